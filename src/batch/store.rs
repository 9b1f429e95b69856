use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::{ScratchDirectory, free_bytes};
use crate::registry;

/// Which part of what is free blobs may take.
const SHARE: u64 = 4;

/// Blobs that the images of one batch share, where no cache is given: gone at its end, and where that was SIGKILL, at the
/// start of the next one.
#[derive(Debug)]
pub(super) struct Store {
    directory: ScratchDirectory,
    bytes_max: u64,
    /// Which blobs take at most: those that the last look left, and all that came since. To look before each image would make
    /// the time of a batch grow with the square of its images.
    bytes: AtomicU64,
}

impl Store {
    /// One in `tmpdir`; `None` where none can be made: then each image fetches its own blobs.
    pub(super) fn create(tmpdir: &Path) -> Option<Self> {
        let directory = ScratchDirectory::create(&tmpdir.join("sif-convert-batch"), 0o700).ok()?;
        let free = std::fs::File::open(directory.path()).ok().and_then(free_bytes).unwrap_or(0);
        Some(Store { directory, bytes_max: free / SHARE, bytes: AtomicU64::new(0) })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    /// Notes what an image has brought.
    pub(super) fn grew(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Makes room for the next image, and some more, where there is too little of it.
    pub(super) fn trim(&self) {
        if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
            return;
        }
        let left = self.bytes_max / 4 * 3;
        // A blob that cannot be removed takes room, and does no other harm.
        let _ = registry::trim(self.directory.path(), left);
        self.bytes.store(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_when_more_has_come_than_fits() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { bytes_max: 1000, ..Store::create(directory.path()).unwrap() };
        let blobs = store.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for number in 0..11_u8 {
            store.trim();
            let name = crate::model::Digest::of(&[number]).hex();
            std::fs::write(blobs.join(name), [number; 100]).unwrap();
            store.grew(100);
        }
        let held = || std::fs::read_dir(&blobs).unwrap().count();
        assert_eq!(held(), 11, "up to now there was room");
        store.trim();
        assert_eq!(held(), 7, "three quarters");
    }
}
