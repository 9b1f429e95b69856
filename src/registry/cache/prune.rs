use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;

use super::{BLOBS, LOCKS, is_whole};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::io::folder::{ABANDONED, Folder, TAG, age};
use crate::io::{Monitor, UNFINISHED_SUFFIX};
use crate::model::{Digest, Quoted};

/// What [`prune`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that stay.
    pub kept: u64,
}

/// Removes blobs from the cache in `directory`: all, or those that nobody has used for `older_than`. Processes that use
/// one meanwhile keep what they have open. Only regular files with names of ours are removed, and nothing that a link in the
/// cache leads to.
///
/// # Errors
/// [`ErrorKind::Usage`] when the directory is not a cache of ours, and whatever removing fails with.
pub fn prune(directory: &Path, older_than: Option<Duration>) -> Result<Pruned> {
    let quoted = Quoted(directory.as_os_str().as_encoded_bytes()).to_string();
    let root = open(directory)?;
    let pruned = prune_blobs(&root, older_than).and_then(|pruned| prune_locks(&root).map(|()| pruned));
    let hint = |error: Error| error.hint("remove what is not a directory of the cache by hand, then try again");
    pruned.or_kind(ErrorKind::Output).map_err(hint).doing(|| format!("pruning cache {quoted}"))
}

/// Refuses a directory that is not a cache of ours.
///
/// # Errors
/// [`ErrorKind::Usage`].
pub fn expect_cache(directory: &Path) -> Result<()> {
    open(directory).map(drop)
}

fn open(directory: &Path) -> Result<Folder> {
    Folder::open(directory).ok().filter(is_ours).ok_or_else(|| {
        let quoted = Quoted(directory.as_os_str().as_encoded_bytes());
        let message = format!("{quoted} is not a cache of this program: it has no {} that says so", TAG.0);
        Error::new(ErrorKind::Usage, message).with_remedy(Remedy::CacheDirectory)
    })
}

/// How many blobs a cache holds, and their bytes.
///
/// # Errors
/// When it cannot be read.
pub fn count_blobs(directory: &Path) -> io::Result<(u64, u64)> {
    let files = match blobs_of(&Folder::open(directory)?)? {
        Some(blobs) => blobs.files()?,
        None => Vec::new(),
    };
    let sizes =
        files.iter().filter(|(name, _)| is_hash(name)).map(|(_, data)| u64::try_from(data.st_size).unwrap_or(0));
    Ok(sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size)))
}

/// What [`verify`] found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifiedBlobs {
    /// Blobs that are what their names say.
    pub intact: u64,
    /// Blobs that are not.
    pub damaged: u64,
    /// How many of those could be removed.
    pub removed: u64,
}

/// Hashes all blobs of a cache, and removes those that are damaged.
///
/// # Errors
/// [`ErrorKind::Usage`] when it is not a cache, and whatever reading it fails with.
pub fn verify(directory: &Path, monitor: &Monitor) -> Result<VerifiedBlobs> {
    let root = open(directory)?;
    let mut verified = VerifiedBlobs::default();
    let Some(blobs) = blobs_of(&root).or_kind(ErrorKind::Output)? else { return Ok(verified) };
    for (name, _) in blobs.files().or_kind(ErrorKind::Output)? {
        let digest = Digest::from_hex(&name).or_else(|_| format!("sha512:{name}").parse());
        let Ok(digest) = digest else { continue };
        let file = blobs.file(&name, OFlags::RDONLY).map(Arc::new);
        if file.is_ok_and(|file| is_whole(&file, digest, None, monitor).is_ok_and(|whole| whole)) {
            verified.intact += 1;
        } else {
            monitor.check()?;
            verified.damaged += 1;
            verified.removed += u64::from(blobs.remove(&name).is_ok());
        }
    }
    Ok(verified)
}

/// Where blobs are; a cache of work alone has none.
fn blobs_of(root: &Folder) -> io::Result<Option<Folder>> {
    if root.has(BLOBS[0]) { root.folder(BLOBS[0])?.folder(BLOBS[1]).map(Some) } else { Ok(None) }
}

fn is_ours(root: &Folder) -> bool {
    let mut text = Vec::new();
    let read = root.file(TAG.0, OFlags::RDONLY).and_then(|tag| tag.take(TAG.1.len() as u64 + 1).read_to_end(&mut text));
    read.is_ok() && text == TAG.1.as_bytes()
}

fn prune_blobs(root: &Folder, older_than: Option<Duration>) -> io::Result<Pruned> {
    let mut pruned = Pruned::default();
    let Some(blobs) = blobs_of(root)? else { return Ok(pruned) };
    for (name, data) in blobs.files()? {
        let is_blob = is_hash(&name);
        let age = age(&data);
        let goes = match older_than {
            _ if !is_blob && !name.ends_with(UNFINISHED_SUFFIX) => false,
            _ if !is_blob => age > ABANDONED,
            None => true,
            Some(limit) => age >= limit,
        };
        // What belongs to others may not be removable.
        let is_gone = match goes.then(|| blobs.remove(&name)) {
            Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            removed => removed.is_some_and(|removed| removed.is_ok()),
        };
        if is_gone {
            let bytes = u64::try_from(data.st_size).unwrap_or(0);
            (pruned.blobs, pruned.bytes) = (pruned.blobs + u64::from(is_blob), pruned.bytes + bytes);
        } else if is_blob {
            pruned.kept += 1;
        }
    }
    Ok(pruned)
}

fn prune_locks(root: &Folder) -> io::Result<()> {
    if !root.has(LOCKS) {
        return Ok(());
    }
    let locks = root.folder(LOCKS)?;
    for (name, data) in locks.files()? {
        if is_hash(&name) && age(&data) > ABANDONED {
            match locks.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether a name is the hash of a blob.
fn is_hash(name: &str) -> bool {
    Digest::from_hex(name).is_ok() || format!("sha512:{name}").parse::<Digest>().is_ok()
}
