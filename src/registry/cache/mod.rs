//! Blobs under their digests, in a directory that many processes, users and machines may use at once.
//!
//! The idea to hold: a blob appears whole, by link or rename, and is hashed before it is used. What is read from it is verified
//! once more, unless this process has just downloaded it and no other user may write to the file. That is all that must hold,
//! and no lock is needed for it. Locks only keep two processes from fetching the same blob at the same time.
//! [`folder`] is the only way to the directory: others may write there, too.

mod prune;
mod room;
mod trim;
mod writer;

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::retry::sleep;
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::io::folder::{Folder, has_one_name, make_root, touch};
use crate::io::{Monitor, Region, hash_region_with};
use crate::model::{Digest, Quoted};

pub use prune::{Pruned, VerifiedBlobs, count_blobs, expect_cache, prune, verify};
pub use room::Room;
pub(crate) use trim::trim;
use writer::Taken;
pub(super) use writer::Writer;

/// Where blobs and locks are.
const BLOBS: [&str; 2] = ["blobs", "sha256"];
const LOCKS: &str = "locks";

/// How often a waiting process looks.
const LOOK: Duration = Duration::from_millis(50);
/// After so long without a sign of life, a writer is waited for no longer. Its retries and timeouts fit into it.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cache that is open.
#[derive(Debug)]
pub(super) struct Cache {
    blobs: Arc<Folder>,
    locks: Arc<Folder>,
    /// Why nothing can be kept in it.
    refusal: Option<String>,
    /// What may be kept in it, where that has a limit.
    room: Option<Arc<Room>>,
}

/// What a process that wants a blob gets.
pub(super) enum Claim {
    /// The blob.
    There(Arc<File>),
    /// The task to fetch it.
    Mine(Box<Writer>),
}

impl Cache {
    /// Uses `directory`, made where it is not there.
    pub(super) fn open(directory: &Path) -> Result<Cache> {
        let make = || -> std::io::Result<Cache> {
            let root = make_root(directory)?;
            let blobs = root.make(BLOBS[0])?.make(BLOBS[1])?;
            let locks = root.make(LOCKS)?;
            root.tag()?;
            let refusal = match blobs.expect_writable() {
                Err(error) if is_refusal(error.kind()) => Some(error.to_string()),
                // What else is wrong is told by whoever writes.
                _ => None,
            };
            Ok(Cache { blobs: Arc::new(blobs), locks: Arc::new(locks), refusal, room: None })
        };
        let hint = |error: Error| error.with_remedy(Remedy::OtherCache);
        let doing = || format!("opening cache {}", Quoted(directory.as_os_str().as_encoded_bytes()));
        make().or_kind(ErrorKind::Output).map_err(hint).doing(doing)
    }

    /// The same; where it may not be used at all, none, and where nothing can be kept in it, the reason.
    /// With `room`, no more is kept than there is room for.
    pub(super) fn open_as_allowed(
        directory: &Path,
        room: Option<&Arc<Room>>,
    ) -> Result<(Option<Cache>, Option<String>)> {
        match Cache::open(directory) {
            Ok(cache) => {
                let refusal = cache.refusal.clone();
                Ok((Some(Cache { room: room.cloned(), ..cache }), refusal))
            }
            Err(error) if error.io_kind().is_some_and(is_refusal) => Ok((None, Some(error.to_string()))),
            Err(error) => Err(error),
        }
    }

    /// Whether what is fetched is kept in it.
    pub(super) fn is_kept(&self) -> bool {
        self.refusal.is_none()
    }

    /// Whether something has the name of the blob, whole or not.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.blobs.has(&digest.hex())
    }

    /// Finds the blob, or gives the task to fetch it. Waits for a process that is fetching it, as long as that lives.
    pub(super) fn claim(&self, digest: Digest, size: Option<u64>, monitor: &Monitor) -> Result<Claim> {
        if let Some(file) = self.find(digest, size, monitor)? {
            return Ok(Claim::There(file));
        }
        // Where there can be no lock, the blob may be fetched twice.
        let lock = self.locks.file(&digest.hex(), OFlags::CREATE | OFlags::WRONLY).ok();
        if let Some(lock) = &lock {
            self.wait_for(lock, digest, monitor)?;
        }
        // Whoever had the lock may have done it all.
        match self.find(digest, size, monitor)? {
            Some(file) => Ok(Claim::There(file)),
            None => {
                let room = self.room_for(digest, size).inspect_err(|_| {
                    // What is not fetched needs no lock.
                    let _ = lock.as_ref().map(|_| self.locks.remove(&digest.hex()));
                })?;
                let lock = lock.map(|lock| (lock, Arc::clone(&self.locks)));
                Writer::create(&self.blobs, digest, lock, room).map(|writer| Claim::Mine(Box::new(writer)))
            }
        }
    }

    /// Takes the room for a blob.
    fn room_for(&self, digest: Digest, size: Option<u64>) -> Result<Option<Taken>> {
        let doing =
            || format!("keeping blob {digest} in {}", Quoted(self.blobs.path("").as_os_str().as_encoded_bytes()));
        let full = || Error::new(ErrorKind::NoSpace, "there is no room for it").with_remedy(Remedy::RoomInCache);
        if size.is_some_and(|size| self.blobs.free_bytes().is_some_and(|free| free < size)) {
            return Err(full()).doing(doing);
        }
        let Some(room) = &self.room else { return Ok(None) };
        let taken = size.filter(|&size| room.take(size)).map(|bytes| Taken { room: Arc::clone(room), bytes });
        taken.map(Some).ok_or_else(full).doing(doing)
    }

    /// Waits until the lock is ours, the blob is there, or nobody seems to be at work.
    fn wait_for(&self, lock: &File, digest: Digest, monitor: &Monitor) -> Result<()> {
        let mut since = Instant::now();
        let mut seen = None;
        while flock(lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            let sign = lock.metadata().and_then(|data| data.modified()).ok();
            if sign != seen {
                (seen, since) = (sign, Instant::now());
            }
            if since.elapsed() > PATIENCE || self.blobs.has(&digest.hex()) {
                return Ok(());
            }
            sleep(LOOK, monitor)?;
        }
        Ok(())
    }

    /// The blob, whole. What is damaged, or is not a file at all, is removed where that is possible; where it is not, the blob
    /// is fetched and not kept.
    pub(super) fn find(&self, digest: Digest, size: Option<u64>, monitor: &Monitor) -> Result<Option<Arc<File>>> {
        let name = digest.hex();
        match self.blobs.file(&name, OFlags::RDONLY) {
            Ok(file) => {
                let file = Arc::new(file);
                if is_whole(&file, digest, size, monitor)? {
                    // When it was used last; of a file that only others may write, prune does not learn it.
                    if has_one_name(&file) {
                        let _ = touch(&file);
                    }
                    return Ok(Some(file));
                }
                // Another process may have put a good one in its place meanwhile.
                if !self.blobs.file(&name, OFlags::RDONLY).is_ok_and(|now| is_same(&now, &file)) {
                    return Ok(None);
                }
            }
            // What was not there a moment ago may be there now: whoever is giving the blob its name must not lose it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(_) => {}
        }
        let _ = self.blobs.remove(&name);
        Ok(None)
    }
}

/// Whether an error says that nothing may or can be written any more, rather than that something is broken.
fn is_refusal(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind as Is;
    matches!(kind, Is::PermissionDenied | Is::ReadOnlyFilesystem | Is::StorageFull | Is::QuotaExceeded)
}

fn is_same(one: &File, other: &File) -> bool {
    let inode = |file: &File| file.metadata().map(|data| data.ino()).ok();
    inode(one).is_some_and(|one| Some(one) == inode(other))
}

fn is_whole(file: &Arc<File>, digest: Digest, size: Option<u64>, monitor: &Monitor) -> Result<bool> {
    let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::SourceUnavailable)?;
    if size.is_some_and(|size| size != region.len) {
        return Ok(false);
    }
    let failed = |error| Error::io(ErrorKind::SourceUnavailable, error);
    match hash_region_with(digest.algorithm(), &region, failed, |_| monitor.check()) {
        Ok((found, _)) => Ok(found == digest),
        // A disk that cannot read it holds it no more.
        Err(error) if error.kind() == ErrorKind::SourceUnavailable => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
