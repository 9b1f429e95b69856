use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::system;

/// How much a writer takes from the spool at once for files smaller than half of it, in bytes.
const SLAB_BYTES: u64 = 8 << 20;
/// How much is gathered before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Pieces of at least this many bytes are written as they are: gathering them would cost a copy.
const DIRECT_BYTES_MIN: usize = 64 << 10;

/// How much is read back before the file system gets its room again, in bytes: little enough that what is written next
/// finds the freed pages still in the processor's cache.
const RECLAIM_BYTES: u64 = 2 << 20;
/// Shorter stretches are not worth a system call.
const RECLAIM_BYTES_MIN: u64 = 64 << 10;
/// Room is given back in whole blocks; of these, on any file system in use. Parts would be zeroed instead.
const BLOCK_BYTES: u64 = 64 << 10;

/// Room in a file for decoded bytes that cannot be had twice cheaply: contents of compressed layers. Several threads
/// append at once, each through a [`SpoolWriter`] of its own; where bytes land differs from run to run, what is later
/// read from there does not.
#[derive(Debug)]
pub struct Spool {
    file: Arc<File>,
    base: u64,
    next: AtomicU64,
}

impl Spool {
    /// A spool that begins at `base` in `file`. Nobody else may write past `base`.
    pub fn new(file: Arc<File>, base: u64) -> Self {
        Spool { file, base, next: AtomicU64::new(base) }
    }

    /// The file, for reading back.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where in the file it begins.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes handed out so far.
    pub fn used_bytes(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - self.base
    }

    /// A writer with slabs of its own.
    pub fn writer(&self) -> SpoolWriter<'_> {
        SpoolWriter { spool: self, slab_next: 0, slab_end: 0, buffer: Vec::new(), buffer_at: 0 }
    }

    fn reserve(&self, bytes: u64) -> io::Result<u64> {
        let grown = |next: u64| next.checked_add(bytes).filter(|&end| end <= i64::MAX as u64);
        let reserved = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        reserved.map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
    }
}

/// Appends to a [`Spool`].
pub struct SpoolWriter<'a> {
    spool: &'a Spool,
    slab_next: u64,
    slab_end: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer's first byte belongs.
    buffer_at: u64,
}

impl SpoolWriter<'_> {
    /// Takes a contiguous place for `bytes` bytes, which are then given by [`SpoolWriter::append`].
    ///
    /// # Errors
    /// When what is buffered cannot be written.
    pub fn begin(&mut self, bytes: u64) -> io::Result<u64> {
        let at = if bytes > SLAB_BYTES / 2 {
            self.spool.reserve(bytes)?
        } else {
            if self.slab_end - self.slab_next < bytes {
                self.slab_next = self.spool.reserve(SLAB_BYTES)?;
                self.slab_end = self.slab_next + SLAB_BYTES;
            }
            let at = self.slab_next;
            self.slab_next += bytes;
            at
        };
        self.begin_at(at)?;
        Ok(at)
    }

    /// Goes to a place of the caller's own in the spool's file, before the spool; [`SpoolWriter::append`] fills it.
    ///
    /// # Errors
    /// When what is buffered cannot be written.
    pub fn begin_at(&mut self, at: u64) -> io::Result<()> {
        if at != self.buffer_at + self.buffer.len() as u64 {
            self.flush()?;
            self.buffer_at = at;
        }
        Ok(())
    }

    /// Gives the next bytes of what [`SpoolWriter::begin`] took a place for.
    ///
    /// # Errors
    /// As `pwrite`.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let direct = bytes.len() >= DIRECT_BYTES_MIN;
        if direct || self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if direct {
            self.spool.file.write_all_at(bytes, self.buffer_at)?;
            self.buffer_at += bytes.len() as u64;
            return Ok(());
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what is buffered. Must be called at the end.
    ///
    /// # Errors
    /// As `pwrite`.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.spool.file.write_all_at(&self.buffer, self.buffer_at)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Gives back room of a [`Spool`] as its bytes are read for the last time, so that spool and output together need little
/// more room than one of them, and nothing is left to be freed at the end.
#[derive(Debug)]
pub struct Reclaimer {
    file: Arc<File>,
    /// What has been read on end and not been given back.
    read: Range<u64>,
    works: bool,
}

impl Reclaimer {
    /// Nothing has been read of `file` so far.
    pub fn new(file: Arc<File>) -> Self {
        Reclaimer { file, read: 0..0, works: true }
    }

    /// These bytes will not be read again.
    pub fn done_with(&mut self, offset: u64, len: u64) {
        if offset != self.read.end {
            self.give_back(RECLAIM_BYTES_MIN);
            self.read.start = offset;
        }
        self.read.end = offset + len;
        self.give_back(RECLAIM_BYTES);
    }

    /// How much may be copied before [`Reclaimer::done_with`] should be told.
    pub fn step(&self) -> u64 {
        RECLAIM_BYTES
    }

    fn give_back(&mut self, at_least: u64) {
        let start = self.read.start.next_multiple_of(BLOCK_BYTES);
        let end = self.read.end / BLOCK_BYTES * BLOCK_BYTES;
        if !self.works || end < start + at_least {
            return;
        }
        // Where a file system has no holes, the room comes back with the rest of the spool.
        self.works = system::give_back(&self.file, start, end - start);
        self.read.start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn only_what_was_read_is_given_back() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&[7; 8 << 20], 0).unwrap();
        let before = file.metadata().unwrap().blocks() * 512;
        let mut reclaimer = Reclaimer::new(Arc::clone(&file));
        // Two stretches that begin and end inside blocks, the first in two parts.
        reclaimer.done_with(100_001, 2_500_000);
        reclaimer.done_with(2_600_001, 500_000);
        reclaimer.done_with(4_000_001, 2_500_000);
        let mut bytes = vec![0; 8 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let read = |at: usize| (100_001..3_100_001).contains(&at) || (4_000_001..6_500_001).contains(&at);
        assert!((0..bytes.len()).all(|at| read(at) || bytes[at] == 7), "bytes that were not read are gone");
        if reclaimer.works {
            let given_back = before - file.metadata().unwrap().blocks() * 512;
            assert!(given_back >= 4 << 20, "{given_back}");
        }
    }
}
