use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::io::Expected;
use crate::io::folder::{Folder, touch};
use crate::model::{Digest, Hasher, Quoted};

/// How often a writer shows that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A blob that is being fetched into the cache.
pub(in crate::registry) struct Writer {
    file: Arc<File>,
    /// Its hidden name, on file systems without unnamed files.
    pub(super) unfinished: Option<String>,
    blobs: Arc<Folder>,
    digest: Digest,
    hasher: Hasher,
    bytes: u64,
    lock: Option<(File, Arc<Folder>)>,
    alive: Instant,
}

impl Writer {
    pub(super) fn create(blobs: &Arc<Folder>, digest: Digest, lock: Option<(File, Arc<Folder>)>) -> Result<Writer> {
        let doing = || doing(blobs, digest);
        let (file, unfinished) = match blobs.unnamed(0o666) {
            Some(file) => (file, None),
            None => temporary(blobs, digest).or_kind(ErrorKind::Output).map_err(full).doing(doing)?,
        };
        if let Some((lock, _)) = &lock {
            let _ = touch(lock);
        }
        Ok(Writer::of(blobs, digest, (file, unfinished), lock))
    }

    pub(super) fn of(
        blobs: &Arc<Folder>,
        digest: Digest,
        (file, unfinished): (File, Option<String>),
        lock: Option<(File, Arc<Folder>)>,
    ) -> Writer {
        let (file, blobs, hasher) = (Arc::new(file), Arc::clone(blobs), Hasher::like(Some(digest)));
        Writer { file, unfinished, blobs, digest, hasher, bytes: 0, lock, alive: Instant::now() }
    }

    pub(in crate::registry) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Appends bytes.
    pub(in crate::registry) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, self.bytes).or_kind(ErrorKind::Output);
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
        let named = match &self.unfinished {
            None => self.blobs.link(&self.file, &name),
            Some(unfinished) => self.blobs.rename(unfinished, &name),
        };
        match named {
            // Another process was as quick, and its bytes are the same; or something is there that cannot be removed, and
            // the blob is not kept.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory) => {}
            named => {
                named.or_kind(ErrorKind::Output).map_err(full).doing(|| doing(&self.blobs, self.digest))?;
                self.unfinished = None;
            }
        }
        if let Some((_, locks)) = &self.lock {
            let _ = locks.remove(&name);
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(name) = &self.unfinished {
            let _ = self.blobs.remove(name);
        }
    }
}

fn doing(blobs: &Folder, digest: Digest) -> String {
    format!("writing {} of the cache", Quoted(blobs.path(&digest.hex()).as_os_str().as_encoded_bytes()))
}

fn full(error: Error) -> Error {
    let remedy = if error.kind() == ErrorKind::NoSpace { Remedy::RoomInCache } else { Remedy::OtherCache };
    error.with_remedy(remedy)
}

pub(super) fn temporary(blobs: &Folder, digest: Digest) -> io::Result<(File, Option<String>)> {
    blobs.temporary(&digest.hex(), 0o666).map(|(file, name)| (file, Some(name)))
}
