use std::path::Path;

use super::{BLOBS, Pruned};
use crate::error::{ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::folder::Folder;
use crate::model::{Digest, Quoted};

/// Removes blobs from the cache in `directory`, those first that were used longest ago, until the others have `bytes_max`
/// bytes or fewer altogether. Processes that use one meanwhile keep what they have open.
///
/// # Errors
/// Whatever looking and removing fail with.
pub(crate) fn trim(directory: &Path, bytes_max: u64) -> Result<Pruned> {
    let trimmed = || -> std::io::Result<Pruned> {
        let blobs = Folder::open(directory)?.folder(BLOBS[0])?.folder(BLOBS[1])?;
        let mut found = blobs.files()?;
        found.retain(|(name, _)| Digest::from_hex(name).is_ok() || format!("sha512:{name}").parse::<Digest>().is_ok());
        found.sort_by_key(|(_, data)| (data.st_mtime, data.st_mtime_nsec));
        let size = |bytes| u64::try_from(bytes).unwrap_or(0);
        let mut left: u64 = found.iter().map(|(_, data)| size(data.st_size)).sum();
        let mut pruned = Pruned::default();
        for (name, data) in found {
            if left <= bytes_max {
                pruned.kept += 1;
                continue;
            }
            blobs.remove(&name)?;
            left -= size(data.st_size);
            (pruned.blobs, pruned.bytes) = (pruned.blobs + 1, pruned.bytes + size(data.st_size));
        }
        Ok(pruned)
    };
    let quoted = Quoted(directory.as_os_str().as_encoded_bytes());
    trimmed().or_kind(ErrorKind::Output).doing(|| format!("trimming cache {quoted}"))
}
