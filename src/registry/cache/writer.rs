use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Room;
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::io::folder::{Folder, touch};
use crate::io::{Expected, Scratch};
use crate::model::{Digest, Hasher, Quoted};

/// How often a writer shows that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A blob that is being fetched into the cache.
pub(in crate::registry) struct Writer {
    scratch: Scratch,
    blobs: Arc<Folder>,
    digest: Digest,
    hasher: Hasher,
    bytes: u64,
    lock: Option<(File, Arc<Folder>)>,
    alive: Instant,
    /// The room that it fills.
    taken: Option<Taken>,
}

/// Room that was taken. It is given back unless the blob stays.
pub(super) struct Taken {
    pub(super) room: Arc<Room>,
    pub(super) bytes: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

impl Writer {
    pub(super) fn create(
        blobs: &Arc<Folder>,
        digest: Digest,
        lock: Option<(File, Arc<Folder>)>,
        taken: Option<Taken>,
    ) -> Result<Writer> {
        let scratch = blobs.scratch(&digest.hex(), 0o666);
        let scratch = scratch.or_kind(ErrorKind::Output).map_err(full).doing(|| doing(blobs, digest))?;
        if let Some((lock, _)) = &lock {
            let _ = touch(lock);
        }
        Ok(Writer { taken, ..Writer::of(blobs, digest, scratch, lock) })
    }

    pub(super) fn of(
        blobs: &Arc<Folder>,
        digest: Digest,
        scratch: Scratch,
        lock: Option<(File, Arc<Folder>)>,
    ) -> Writer {
        let (blobs, hasher) = (Arc::clone(blobs), Hasher::like(Some(digest)));
        Writer { scratch, blobs, digest, hasher, bytes: 0, lock, alive: Instant::now(), taken: None }
    }

    pub(in crate::registry) fn file(&self) -> &Arc<File> {
        self.scratch.file()
    }

    /// Appends bytes.
    pub(in crate::registry) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file().write_all_at(bytes, self.bytes).or_kind(ErrorKind::Output);
        written.map_err(full).doing(|| doing(&self.blobs, self.digest))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        if let Some((lock, _)) = self.lock.as_ref().filter(|_| self.alive.elapsed() > SIGN_OF_LIFE) {
            let _ = touch(lock);
            self.alive = Instant::now();
        }
        Ok(())
    }

    /// Gives the blob its name, if it is what it should be.
    pub(in crate::registry) fn finish(mut self, size: Option<u64>) -> Result<()> {
        let found = self.hasher.clone().finish();
        Expected { digest: Some(self.digest), size }.check(found, self.bytes)?;
        let name = self.digest.hex();
        let placed = self.scratch.place(Path::new(&name)).or_kind(ErrorKind::Output).map_err(full);
        // Else another process was as quick, and its bytes are the same; or something is there that cannot be removed, and
        // the blob is not kept.
        if placed.doing(|| doing(&self.blobs, self.digest))? {
            self.scratch.keep();
            if let Some(mut taken) = self.taken {
                taken.bytes = 0;
            }
        }
        if let Some((_, locks)) = &self.lock {
            let _ = locks.remove(&name);
        }
        Ok(())
    }
}

fn doing(blobs: &Folder, digest: Digest) -> String {
    format!("writing {} of the cache", Quoted(blobs.path(&digest.hex()).as_os_str().as_encoded_bytes()))
}

fn full(error: Error) -> Error {
    let remedy = if error.kind() == ErrorKind::NoSpace { Remedy::RoomInCache } else { Remedy::OtherCache };
    error.with_remedy(remedy)
}
