//! Work on layers that is kept for later conversions: what is in a layer, and its files in compressed form.
//!
//! The idea to hold: a blob can be checked by whoever reads it, for its name is its digest; what is made of it cannot. So it
//! counts only where it lies in a directory of an account that is trusted, to which nobody else may write (`DIR/derived/UID`).
//! Beside that nothing is believed: every entry has a checksum, and one that is damaged or incomplete is as good as absent.
//!
//! An *index* (`layers/DIFF_ID.PARAMETERS`) tells the entries of one layer, and where its files are. A *pack* (`packs/NAME`) has
//! the blocks that one conversion compressed, in the order in which they stand in its output. Both appear by rename, packs
//! first, and are never changed. No lock is needed, and a file that is replaced by its equal does no harm. A turn (`turn.rs`)
//! only spares others the same work.
//!
//! This room must not know what a tree, an image or a squashfs is.

mod index;
mod pack;
mod turn;
mod upkeep;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

pub(crate) use index::{BlockPlace, Contents, FileEntry, Fragment, LayerIndex, Name};
pub(crate) use pack::{Pack, PackWriter};
pub(crate) use turn::Turn;
pub use upkeep::{Holdings, Verified, holdings, limit, prune, verify};

use crate::error::Result;
use crate::io::Monitor;
use crate::io::folder::{Folder, make_root, touch};
use crate::model::Digest;

/// Where all derived work is, below the directory of the cache.
const DERIVED: &str = "derived";
const LAYERS: &str = "layers";
const PACKS: &str = "packs";
/// Who is at work on what.
const TURNS: &str = "turns";
/// Tells for which directory a directory was made.
const MARK: &str = "place";
/// No index is longer, in bytes.
const INDEX_BYTES_MAX: u64 = 1 << 30;

/// Which accounts are trusted to keep derived work: the one that runs this, root, and `others`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Numbers of users.
    pub others: Vec<u32>,
}

impl Accounts {
    /// All of them, the one that runs this first.
    fn all(&self) -> Vec<u32> {
        let mut all = vec![rustix::process::geteuid().as_raw(), 0];
        all.extend(&self.others);
        let mut seen = Vec::new();
        all.retain(|account| {
            !seen.contains(account) && {
                seen.push(*account);
                true
            }
        });
        all
    }
}

/// Derived work of one account.
#[derive(Debug)]
struct Place {
    owner: u32,
    is_own: bool,
    layers: Folder,
    packs: Arc<Folder>,
    /// Absent where there can be no turns.
    turns: Option<Arc<Folder>>,
}

/// All derived work that counts, and where new work is kept.
#[derive(Debug)]
pub(crate) struct Store {
    places: Vec<Place>,
    /// Why nothing new can be kept.
    refusal: Option<String>,
}

impl Store {
    /// Opens what is below `directory`, made where it is not there. What cannot be used is left out.
    pub(crate) fn open(directory: &Path, accounts: &Accounts) -> Store {
        let mut store = Store { places: Vec::new(), refusal: None };
        match Store::make(directory, accounts) {
            Ok(place) => store.places.push(place),
            Err(error) => store.refusal = Some(error.to_string()),
        }
        let Ok(root) = Folder::open(directory) else { return store };
        for &owner in accounts.all().iter().skip(1) {
            store.places.extend(Place::open(&root, owner, accounts));
        }
        store
    }

    fn make(directory: &Path, accounts: &Accounts) -> io::Result<Place> {
        let root = make_root(directory)?;
        root.tag()?;
        let derived = root.make_like(DERIVED)?;
        let owner = rustix::process::geteuid().as_raw();
        let own = derived.make_private(&owner.to_string())?;
        if !is_private(&root, &derived, accounts) && !is_marked(&own, owner) {
            mark(&own)?;
            if !is_marked(&own, owner) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it was moved there from elsewhere"));
            }
        }
        let (layers, packs) = (own.make_private(LAYERS)?, Arc::new(own.make_private(PACKS)?));
        let turns = own.make_private(TURNS).ok().map(Arc::new);
        Ok(Place { owner, is_own: true, layers, packs, turns })
    }

    /// Why nothing new is kept, where that is so.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// What is known of a layer, with the packs that hold its files. `is_usable` looks at the packs' names.
    pub(crate) fn load(
        &self,
        diff_id: Digest,
        parameters: &str,
        is_usable: impl Fn(Name) -> bool,
    ) -> Option<(LayerIndex, Vec<Pack>)> {
        let name = index_name(diff_id, parameters);
        self.places.iter().find_map(|place| {
            let file = place.layers.private_file(&name, place.owner).ok()?;
            let loaded = read_index(&file).and_then(|index| {
                if index.diff_id != diff_id || index.parameters != parameters {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let packs = index.packs.iter().map(|&pack| match is_usable(pack) {
                    true => open_pack(&self.places, pack),
                    false => Err(io::ErrorKind::InvalidData.into()),
                });
                let packs = packs.collect::<io::Result<Vec<_>>>()?;
                Ok((index, packs))
            });
            if place.is_own {
                match &loaded {
                    Ok((_, packs)) => {
                        let _ = touch(&file);
                        for pack in packs {
                            let _ = touch(pack.file());
                        }
                    }
                    Err(_) => drop(place.layers.remove(&name)),
                }
            }
            loaded.ok()
        })
    }

    /// Waits until no other process of this user works on the layer, and keeps others from it as long as the turn is held. `None`
    /// on a file system without locks, and where nothing can be kept. Look again then whether the layer is [known](Store::has): the
    /// other process may have finished it.
    ///
    /// # Errors
    /// When the conversion is asked to stop.
    pub(crate) fn turn(&self, diff_id: Digest, parameters: &str, monitor: &Monitor) -> Result<Option<Turn>> {
        let turns = self.places.iter().find(|place| place.is_own).and_then(|place| place.turns.as_ref());
        turns.map_or(Ok(None), |turns| Turn::wait(turns, &index_name(diff_id, parameters), monitor))
    }

    /// Whether something says what is in a layer; it may be damaged.
    pub(crate) fn has(&self, diff_id: Digest, parameters: &str) -> bool {
        self.places.iter().any(|place| place.layers.has(&index_name(diff_id, parameters)))
    }

    /// Forgets a pack that is damaged, where it is ours. Indexes that need it are of no use then.
    pub(crate) fn forget(&self, pack: Name) {
        for place in self.places.iter().filter(|place| place.is_own) {
            let _ = place.packs.remove(&pack.to_string());
        }
    }

    /// Begins a pack; `None` where nothing can be kept.
    pub(crate) fn pack(&self) -> Option<io::Result<PackWriter>> {
        let own = self.places.iter().find(|place| place.is_own)?;
        Some(PackWriter::create(&own.packs))
    }

    /// Keeps what is known of a layer. Its packs must be there.
    pub(crate) fn keep(&self, index: &LayerIndex) -> io::Result<()> {
        let Some(own) = self.places.iter().find(|place| place.is_own) else { return Ok(()) };
        let name = index_name(index.diff_id, &index.parameters);
        write(&own.layers, &name, &index.encode())
    }
}

impl Place {
    /// The work of `owner`, where it counts.
    fn open(root: &Folder, owner: u32, accounts: &Accounts) -> Option<Place> {
        let derived = root.any_folder(DERIVED).ok()?;
        let folder = derived.private_folder(&owner.to_string(), owner).ok()?;
        if !is_private(root, &derived, accounts) && !is_marked(&folder, owner) {
            return None;
        }
        Place::of(&folder, owner)
    }

    /// What there is of the work of everybody, whether it counts or not: root clears up behind all.
    fn all(root: &Folder) -> io::Result<Vec<Place>> {
        let Some(derived) = derived(root)? else { return Ok(Vec::new()) };
        let accounts = derived.folders()?.into_iter().filter_map(|name| name.parse::<u32>().ok());
        let folder = |account: u32| Some((derived.private_folder(&account.to_string(), account).ok()?, account));
        Ok(accounts.filter_map(folder).filter_map(|(folder, account)| Place::of(&folder, account)).collect())
    }

    fn of(folder: &Folder, owner: u32) -> Option<Place> {
        let is_own = owner == rustix::process::geteuid().as_raw();
        let layers = folder.private_folder(LAYERS, owner).ok()?;
        let packs = Arc::new(folder.private_folder(PACKS, owner).ok()?);
        let turns = folder.private_folder(TURNS, owner).ok().map(Arc::new);
        Some(Place { owner, is_own, layers, packs, turns })
    }
}

/// Whether only trusted accounts can rename what is in the directories that lead to an account's. Where others can, a directory
/// of that account could be moved there which it filled with something else: an archive that it unpacked, for example.
fn is_private(root: &Folder, derived: &Folder, accounts: &Accounts) -> bool {
    let accounts = accounts.all();
    [root, derived].iter().all(|folder| folder.is_private_to(&accounts))
}

/// Whether a directory says that it was made where it is: it names its own inode, which no archive can foresee.
fn is_marked(folder: &Folder, owner: u32) -> bool {
    let mut text = String::new();
    let read = folder.private_file(MARK, owner).and_then(|file| file.take(32).read_to_string(&mut text));
    read.is_ok() && folder.inode().is_ok_and(|inode| text == format!("{inode}\n"))
}

/// Marks a directory that has just been made: nothing is in it.
fn mark(folder: &Folder) -> io::Result<()> {
    if !folder.is_empty()? {
        return Ok(());
    }
    write(folder, MARK, format!("{}\n", folder.inode()?).as_bytes())
}

/// Writes a file, in place of what may be there.
fn write(folder: &Folder, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut scratch = folder.scratch(name, 0o644)?;
    scratch.file().as_ref().write_all(bytes)?;
    scratch.replace(Path::new(name))?;
    scratch.keep();
    Ok(())
}

/// A pack, whichever of the accounts keeps it: what is known of one layer may need what another account had compressed.
fn open_pack<'p>(places: impl IntoIterator<Item = &'p Place>, pack: Name) -> io::Result<Pack> {
    let opened = places.into_iter().find_map(|place| Pack::open(&place.packs, place.owner, pack).ok());
    opened.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn index_name(diff_id: Digest, parameters: &str) -> String {
    format!("{}.{parameters}", diff_id.hex())
}

fn read_index(file: &File) -> io::Result<LayerIndex> {
    let length = file.metadata()?.len();
    if length > INDEX_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(INDEX_BYTES_MAX).read_to_end(&mut bytes)?;
    LayerIndex::decode(&bytes)
}

/// Whether anything is kept below `root` that this room knows.
fn derived(root: &Folder) -> io::Result<Option<Folder>> {
    if root.has(DERIVED) { root.any_folder(DERIVED).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
