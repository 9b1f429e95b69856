use std::path::Path;
use std::sync::Arc;

use crate::io::{ScratchDirectory, free_bytes};
use crate::registry::{self, Room, Settings};

/// Which part of what is free blobs may take: a base that many images share may be large, and outputs may lie there, too.
const SHARE: u64 = 2;

/// Blobs that the images of one batch share, where no cache is given: gone at its end, and where that was SIGKILL, at the
/// start of the next one.
#[derive(Debug)]
pub(super) struct Store {
    directory: ScratchDirectory,
    bytes_max: u64,
    room: Arc<Room>,
}

impl Store {
    /// One in `tmpdir`; `None` where none can be made: then each image fetches its own blobs.
    pub(super) fn create(tmpdir: &Path) -> Option<Self> {
        let directory = ScratchDirectory::create(&tmpdir.join("sif-convert-batch"), 0o700).ok()?;
        let free = std::fs::File::open(directory.path()).ok().and_then(free_bytes).unwrap_or(0);
        let bytes_max = free / SHARE;
        Some(Store { directory, bytes_max, room: Arc::new(Room::new(bytes_max)) })
    }

    /// Has an image take its blobs from here, and leave here what there is room for. There is more of that where little was left:
    /// those blobs go that were used longest ago. To look before each image would make the time of a batch grow with the square
    /// of its images.
    pub(super) fn serve(&self, settings: &mut Settings) {
        (settings.cache, settings.room) = (Some(self.directory.path().to_path_buf()), Some(Arc::clone(&self.room)));
        if self.room.left() < self.bytes_max / 4 {
            // A blob that cannot be removed takes room, and does no other harm.
            let removed = registry::trim(self.directory.path(), self.bytes_max / 2);
            self.room.give_back(removed.map_or(0, |removed| removed.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_where_little_is_left() {
        let place = tempfile::tempdir().unwrap();
        let made = Store::create(place.path()).unwrap();
        let store = Store { bytes_max: 1000, room: Arc::new(Room::new(1000)), ..made };
        let blobs = store.directory.path().join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let counts: Vec<usize> = (0..15_u8)
            .map(|number| {
                store.serve(&mut Settings::default());
                assert!(store.room.take(100));
                std::fs::write(blobs.join(crate::model::Digest::of(&[number]).hex()), [number; 100]).unwrap();
                std::fs::read_dir(&blobs).unwrap().count()
            })
            .collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 6, 7, 8, 6], "at most half of it stays");
    }
}
