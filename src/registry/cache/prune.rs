use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use super::folder::{Folder, age};
use super::{BLOBS, LOCKS, TAG, UNFINISHED_SUFFIX};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::model::{Digest, Quoted};

/// An unfinished file that nobody has written to for so long is nobody's.
const ABANDONED: Duration = Duration::from_secs(3600);

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
/// [`ErrorKind::Usage`] when the directory is no cache of ours, and whatever removing fails with.
pub fn prune(directory: &Path, older_than: Option<Duration>) -> Result<Pruned> {
    let quoted = Quoted(directory.as_os_str().as_encoded_bytes()).to_string();
    let Some(root) = Folder::open(directory).ok().filter(is_ours) else {
        let message = format!("{quoted} is not a cache of this program: it has no {} that says so", TAG.0);
        return Err(Error::new(ErrorKind::Usage, message).with_remedy(Remedy::CacheDirectory));
    };
    let pruned = prune_blobs(&root, older_than).and_then(|pruned| prune_locks(&root).map(|()| pruned));
    let hint = |error: Error| error.hint("remove what is not a directory of the cache by hand, then try again");
    pruned.or_kind(ErrorKind::Output).map_err(hint).doing(|| format!("pruning cache {quoted}"))
}

fn is_ours(root: &Folder) -> bool {
    let mut text = Vec::new();
    let read = root.file(TAG.0, OFlags::RDONLY).and_then(|tag| tag.take(TAG.1.len() as u64 + 1).read_to_end(&mut text));
    read.is_ok() && text == TAG.1.as_bytes()
}

fn prune_blobs(root: &Folder, older_than: Option<Duration>) -> io::Result<Pruned> {
    let mut pruned = Pruned::default();
    let blobs = root.folder(BLOBS[0])?.folder(BLOBS[1])?;
    for (name, data) in blobs.files()? {
        let is_blob = is_hash(&name);
        let age = age(&data);
        let goes = match older_than {
            _ if !is_blob && !name.ends_with(UNFINISHED_SUFFIX) => false,
            _ if !is_blob => age.is_some_and(|age| age > ABANDONED),
            None => true,
            Some(limit) => age.is_some_and(|age| age >= limit),
        };
        if goes {
            blobs.remove(&name)?;
            let bytes = u64::try_from(data.st_size).unwrap_or(0);
            (pruned.blobs, pruned.bytes) = (pruned.blobs + u64::from(is_blob), pruned.bytes + bytes);
        } else if is_blob {
            pruned.kept += 1;
        }
    }
    Ok(pruned)
}

fn prune_locks(root: &Folder) -> io::Result<()> {
    let locks = root.folder(LOCKS)?;
    for (name, data) in locks.files()? {
        if is_hash(&name) && age(&data).is_some_and(|age| age > ABANDONED) {
            locks.remove(&name)?;
        }
    }
    Ok(())
}

/// Whether a name is the hash of a blob.
fn is_hash(name: &str) -> bool {
    Digest::from_hex(name).is_ok() || format!("sha512:{name}").parse::<Digest>().is_ok()
}
