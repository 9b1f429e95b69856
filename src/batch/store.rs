use std::path::{Path, PathBuf};

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
}

impl Store {
    /// One in `tmpdir`; `None` where none can be made: then each image fetches its own blobs.
    pub(super) fn create(tmpdir: &Path) -> Option<Self> {
        let directory = ScratchDirectory::create(&tmpdir.join("sif-convert-batch"), 0o700).ok()?;
        let free = std::fs::File::open(directory.path()).ok().and_then(free_bytes).unwrap_or(0);
        Some(Store { directory, bytes_max: free / SHARE })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    /// Makes room for the next image, where there is too little of it.
    pub(super) fn trim(&self) {
        // A blob that cannot be removed takes room, and does no other harm.
        let _ = registry::trim(self.directory.path(), self.bytes_max);
    }
}
