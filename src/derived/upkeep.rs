//! What is kept, what of it is damaged, and what goes when there is too much.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::index::{LayerIndex, Name};
use super::{Accounts, LAYERS, PACKS, Place, derived, open_pack, read_index};
use crate::io::UNFINISHED_SUFFIX;
use crate::io::folder::{ABANDONED, Folder, age};

/// What one account keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The number of the user.
    pub account: u32,
    /// Whether it counts for whoever asks.
    pub is_trusted: bool,
    /// Layers that are known.
    pub layers: u64,
    /// Packs of compressed blocks.
    pub packs: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// How long ago something of it was used or written.
    pub last_use: Option<Duration>,
}

/// What a check found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Layers that are intact, with all their blocks.
    pub intact: u64,
    /// Layers that are damaged or incomplete, and of no use.
    pub damaged: u64,
    /// How many of those were removed: all that are ours.
    pub removed: u64,
}

/// Lists what accounts keep below `directory`, the directory of a cache.
///
/// # Errors
/// When it cannot be read.
pub fn holdings(directory: &Path, accounts: &Accounts) -> io::Result<Vec<Holdings>> {
    let root = Folder::open(directory)?;
    let Some(derived) = derived(&root)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for name in derived.folders()? {
        let Ok(account) = name.parse::<u32>() else { continue };
        let Ok(place) = derived.private_folder(&name, account) else { continue };
        let is_trusted = accounts.all().contains(&account) && Place::open(&root, account, accounts).is_some();
        let mut of = Holdings { account, is_trusted, layers: 0, packs: 0, bytes: 0, last_use: None };
        for (kind, folder) in folders(&place, account) {
            for (name, data) in folder.files()? {
                if name.ends_with(UNFINISHED_SUFFIX) {
                    continue;
                }
                let count = if kind == LAYERS { &mut of.layers } else { &mut of.packs };
                *count += 1;
                of.bytes += u64::try_from(data.st_size).unwrap_or(0);
                of.last_use = of.last_use.into_iter().chain([age(&data)]).min();
            }
        }
        found.push(of);
    }
    Ok(found)
}

fn folders(place: &Folder, owner: u32) -> impl Iterator<Item = (&'static str, Folder)> {
    let open = move |kind| Some((kind, place.private_folder(kind, owner).ok()?));
    [LAYERS, PACKS].into_iter().filter_map(open)
}

/// The derived work that this user may remove: for root, of all accounts.
fn removable(root: &Folder) -> io::Result<Vec<Place>> {
    match rustix::process::geteuid().as_raw() {
        0 => Place::all(root),
        own => Ok(Place::open(root, own, &Accounts::default()).into_iter().collect()),
    }
}

/// Reads all that counts below `directory`, for root all that is there, and removes what is damaged and ours.
///
/// # Errors
/// When it cannot be read.
pub fn verify(directory: &Path, accounts: &Accounts) -> io::Result<Verified> {
    let root = Folder::open(directory)?;
    let mut verified = Verified::default();
    let is_root = rustix::process::geteuid().is_root();
    let places: Vec<Place> = match is_root {
        true => Place::all(&root)?,
        false => accounts.all().into_iter().filter_map(|account| Place::open(&root, account, accounts)).collect(),
    };
    for place in &places {
        for (name, _) in place.layers.files()? {
            if name.ends_with(UNFINISHED_SUFFIX) {
                continue;
            }
            // Accounts that read the same image have packs of the same name: each has its own, or one of whom it trusts.
            match verify_layer(place, &name, std::iter::once(place).chain(&places)) {
                Ok(()) => verified.intact += 1,
                Err(_) => {
                    verified.damaged += 1;
                    verified.removed += u64::from((place.is_own || is_root) && place.layers.remove(&name).is_ok());
                }
            }
        }
    }
    Ok(verified)
}

/// Checks an index and all blocks that it points to.
fn verify_layer<'p>(place: &Place, name: &str, places: impl Iterator<Item = &'p Place> + Clone) -> io::Result<()> {
    let index = read_index(&place.layers.private_file(name, place.owner)?)?;
    let LayerIndex { packs: names, blocks, fragments, .. } = &index;
    let packs = names.iter().map(|&pack| open_pack(places.clone(), pack)).collect::<io::Result<Vec<_>>>()?;
    let blocks = blocks.iter().chain(fragments.iter().map(|fragment| &fragment.place));
    let mut bytes = Vec::new();
    for block in blocks.filter(|block| block.word != 0) {
        packs[block.pack as usize].read(block, &mut bytes)?;
    }
    Ok(())
}

/// Removes derived work of this user; as root, that of all accounts. `older_than` spares what somebody has used since. Packs that
/// no index names go, too. Returns how many files went, their bytes, and how many stay.
///
/// # Errors
/// When something cannot be read or removed.
pub fn prune(directory: &Path, older_than: Option<Duration>) -> io::Result<(u64, u64, u64)> {
    let root = Folder::open(directory)?;
    let (mut gone, mut bytes, mut kept) = (0, 0, 0);
    let places = removable(&root)?;
    let mut wanted: Vec<Name> = Vec::new();
    let mut remove = |folder: &Folder, name: &str, size: i64| -> io::Result<()> {
        folder.remove(name)?;
        (gone, bytes) = (gone + 1, bytes + u64::try_from(size).unwrap_or(0));
        Ok(())
    };
    for place in &places {
        for (name, data) in place.layers.files()? {
            let is_old = |limit| age(&data) >= limit;
            let index = place.layers.private_file(&name, place.owner).and_then(|file| read_index(&file));
            match (older_than, index) {
                (Some(limit), Ok(index)) if !is_old(limit) => {
                    wanted.extend(index.packs);
                    kept += 1;
                }
                _ if name.ends_with(UNFINISHED_SUFFIX) && !is_old(ABANDONED) => {}
                _ => remove(&place.layers, &name, data.st_size)?,
            }
        }
    }
    for place in &places {
        for (name, data) in place.packs.files()? {
            let is_young = age(&data) < ABANDONED;
            let is_wanted = name.parse().is_ok_and(|name| wanted.contains(&name));
            // What was written lately may wait for its index.
            if is_wanted {
                kept += 1;
            } else if !is_young || (older_than.is_none() && !name.ends_with(UNFINISHED_SUFFIX)) {
                remove(&place.packs, &name, data.st_size)?;
            }
        }
        // Of processes that were killed. Without one that is held, others do the same work at most.
        if let Some(turns) = &place.turns {
            for (name, data) in turns.files()? {
                if older_than.is_none() || age(&data) >= ABANDONED {
                    turns.remove(&name)?;
                }
            }
        }
    }
    Ok((gone, bytes, kept))
}

/// Removes what was not used for longest, of the derived work of this user (for root, of all accounts) and of all blobs, until
/// these have at most `bytes_max` bytes. Returns how many bytes went.
///
/// # Errors
/// When something cannot be read.
pub fn limit(directory: &Path, bytes_max: u64) -> io::Result<u64> {
    let root = Folder::open(directory)?;
    let mut folders = Vec::new();
    for Place { layers, packs, .. } in removable(&root)? {
        folders.push(layers);
        folders.extend(std::sync::Arc::into_inner(packs));
    }
    folders.extend(root.folder("blobs").and_then(|blobs| blobs.folder("sha256")));
    let mut files = Vec::new();
    for (at, folder) in folders.iter().enumerate() {
        for (name, data) in folder.files()? {
            if !name.ends_with(UNFINISHED_SUFFIX) {
                files.push((data.st_mtime, at, name, u64::try_from(data.st_size).unwrap_or(0)));
            }
        }
    }
    let mut left: u64 = files.iter().map(|(.., bytes)| bytes).sum();
    let mut gone = 0;
    files.sort();
    for (_, at, name, bytes) in files {
        if left <= bytes_max {
            break;
        }
        // What belongs to others may not be removable.
        if folders[at].remove(&name).is_ok() {
            (left, gone) = (left - bytes, gone + bytes);
        }
    }
    Ok(gone)
}
