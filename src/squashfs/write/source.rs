//! What the writer reads from and writes to.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::{ContentName, Hashes};
use crate::error::Result;
use crate::io::{Gather, Writeback};

/// The bytes of one regular file. Workers read from it in any order, more than once, several at a time.
pub trait FileSource: Send + Sync {
    /// Length of the file in bytes, holes included.
    fn size(&self) -> u64;

    /// Fills `buffer` with what stands at `offset`; holes read as zeros. Never asked for anything past the end.
    ///
    /// # Errors
    /// When the bytes cannot be had. The error should name the file: it surfaces later, in another call.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;

    /// The first offset from `offset` on where there may be something but zeros; `None` where only zeros follow. With
    /// this, holes cost nothing, however long.
    fn next_data(&self, offset: u64) -> Option<u64> {
        (offset < self.size()).then_some(offset)
    }

    /// What a [`Memo`](super::Memo) calls the bytes of the file, where it knows them.
    fn name(&self) -> Option<ContentName> {
        None
    }

    /// Whether every other file that says so, and has another [name](FileSource::name), has other bytes.
    fn is_distinct(&self) -> bool {
        false
    }

    /// Where hashes of the file are kept that were computed to compare it with others.
    fn hashes(&self) -> Option<&Hashes> {
        None
    }
}

impl<T: AsRef<[u8]> + Send + Sync> FileSource for T {
    fn size(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = offset as usize;
        buffer.copy_from_slice(&self.as_ref()[start..start + buffer.len()]);
        Ok(())
    }
}

/// Where an image is written, by position from its own start.
pub trait Store: Send {
    /// Writes all of `bytes` at `position`.
    ///
    /// # Errors
    /// As the file system says.
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// All has been written: what was held back goes out.
    ///
    /// # Errors
    /// As [`Store::write_at`].
    fn finish(&mut self) -> io::Result<()>;
}

/// An image inside a larger file.
#[derive(Debug)]
pub struct FileStore {
    pieces: Gather,
    offset: u64,
    writeback: Writeback,
}

impl FileStore {
    /// From `offset` of a file on, which is open for writing.
    pub fn new(file: Arc<File>, offset: u64) -> Self {
        let writeback = Writeback::new(&file, offset);
        FileStore { pieces: Gather::new(file), offset, writeback }
    }
}

impl Store for FileStore {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let written = self.pieces.write_at(bytes, self.offset + position)?;
        self.writeback.reached(written);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.pieces.release()
    }
}

impl Store for Vec<u8> {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let start = usize::try_from(position).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if self.len() < start + bytes.len() {
            self.resize(start + bytes.len(), 0);
        }
        self[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Store + ?Sized> Store for &mut S {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        (**self).write_at(bytes, position)
    }

    fn finish(&mut self) -> io::Result<()> {
        (**self).finish()
    }
}

/// Whether there is nothing but zeros. One comparison of the block with itself, one byte further on: the C library does
/// that at the speed of memory, and stops at the first difference.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|&first| first == 0) && bytes.get(1..).is_none_or(|rest| rest == &bytes[..rest.len()])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn an_image_inside_a_file_is_written_behind_what_stands_before_it() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut store = FileStore::new(Arc::clone(&file), 3);
        store.write_at(b"second", 5).unwrap();
        store.write_at(b"first", 0).unwrap();
        store.finish().unwrap();
        let mut found = [0; 14];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"\0\0\0firstsecond");
    }
}
