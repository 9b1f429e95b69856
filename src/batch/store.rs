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
    /// How many bytes may have come over the network before blobs may take more than that. To look before each image would make
    /// the time of a batch grow with the square of its images.
    full_at: AtomicU64,
}

impl Store {
    /// One in `tmpdir`; `None` where none can be made: then each image fetches its own blobs.
    pub(super) fn create(tmpdir: &Path) -> Option<Self> {
        let directory = ScratchDirectory::create(&tmpdir.join("sif-convert-batch"), 0o700).ok()?;
        let free = std::fs::File::open(directory.path()).ok().and_then(free_bytes).unwrap_or(0);
        let bytes_max = free / SHARE;
        Some(Store { directory, bytes_max, full_at: AtomicU64::new(bytes_max) })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    /// Makes room for the next image, and some more, where there may be too little of it: `received` bytes have come over the
    /// network for all images.
    pub(super) fn trim(&self, received: u64) {
        if received <= self.full_at.load(Ordering::Relaxed) {
            return;
        }
        let left = self.bytes_max / 4 * 3;
        self.full_at.store(received.saturating_add(self.bytes_max - left), Ordering::Relaxed);
        // A blob that cannot be removed takes room, and does no other harm.
        let _ = registry::trim(self.directory.path(), left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_when_more_has_come_than_fits() {
        let directory = tempfile::tempdir().unwrap();
        let full_at = AtomicU64::new(1000);
        let store = Store { bytes_max: 1000, full_at, ..Store::create(directory.path()).unwrap() };
        let blobs = store.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let held = || std::fs::read_dir(&blobs).unwrap().count();
        let counts: Vec<usize> = (0..15_u8)
            .map(|number| {
                std::fs::write(blobs.join(crate::model::Digest::of(&[number]).hex()), [number; 100]).unwrap();
                store.trim(100 * (u64::from(number) + 1));
                held()
            })
            .collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 7, 8, 9, 7, 8], "three quarters of the room are left");
    }
}
