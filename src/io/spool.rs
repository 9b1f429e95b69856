use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::system;
use super::veil::Veil;
use crate::error::{Error, ErrorKind, Remedy};
use crate::model::Quoted;

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
    veil: Option<Veil>,
    /// Where it lies, if not with the output.
    directory: Option<PathBuf>,
}

impl Spool {
    /// A spool that begins at `base` in `file`. Nobody else may write past `base`.
    pub fn new(file: Arc<File>, base: u64) -> Self {
        Spool { file, base, next: AtomicU64::new(base), veil: None, directory: None }
    }

    /// Keeps what comes into it from the disk: it is encrypted.
    #[must_use]
    pub fn veiled(self, veil: Option<Veil>) -> Self {
        Spool { veil, ..self }
    }

    /// Has errors say that it lies in `directory`, which is not where the output is.
    #[must_use]
    pub fn in_directory(self, directory: &Path) -> Self {
        Spool { directory: Some(directory.to_path_buf()), ..self }
    }

    /// What its bytes are encrypted with.
    pub fn veil(&self) -> Option<&Veil> {
        self.veil.as_ref()
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
        SpoolWriter { spool: self, slab_next: 0, slab_end: 0, buffer: Vec::new(), buffer_at: 0, skipped: false }
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
    /// Whether the last bytes before that were zeros that were not written: the file may end before them.
    skipped: bool,
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
        // What is to be encrypted is copied anyway.
        let direct = bytes.len() >= DIRECT_BYTES_MIN && self.spool.veil.is_none();
        if direct || self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        if direct {
            // Nothing has been written there: a hole reads as zeros, and takes no room.
            self.skipped = self.buffer_at >= self.spool.base && is_zero(bytes);
            if !self.skipped {
                self.spool.file.write_all_at(bytes, self.buffer_at)?;
            }
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
        self.write_buffer()?;
        // Lets the file reach to where it was skipped.
        match std::mem::take(&mut self.skipped) {
            true => self.spool.file.write_all_at(&[0], self.buffer_at - 1),
            false => Ok(()),
        }
    }

    /// What is to be said where one of these failed.
    pub fn failed(&self, error: io::Error) -> Error {
        let error = Error::io(ErrorKind::Output, error);
        let Some(directory) = &self.spool.directory else { return error.doing("keeping decoded contents") };
        let shown = Quoted(directory.as_os_str().as_bytes());
        error.doing(format!("keeping decoded contents in {shown}")).at(directory).with_remedy(Remedy::RoomThere)
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.skipped = false;
        if let Some(veil) = &self.spool.veil {
            veil.apply(&mut self.buffer, self.buffer_at);
        }
        self.spool.file.write_all_at(&self.buffer, self.buffer_at)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|&first| first == 0) && bytes.get(1..).is_none_or(|rest| rest == &bytes[..rest.len()])
}

/// Gives back room of a [`Spool`] as its bytes are read for the last time, so that spool and output together need little
/// more room than one of them, and nothing is left to be freed at the end.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    file: Arc<File>,
    /// What has been read on end and not been given back.
    read: Range<u64>,
    works: bool,
}

impl Reclaimer {
    /// Nothing has been read of `file` so far.
    pub(crate) fn new(file: Arc<File>) -> Self {
        Reclaimer { file, read: 0..0, works: true }
    }

    /// These bytes will not be read again.
    pub(crate) fn done_with(&mut self, offset: u64, len: u64) {
        if offset != self.read.end {
            self.give_back(RECLAIM_BYTES_MIN);
            self.read.start = offset;
        }
        self.read.end = offset + len;
        self.give_back(RECLAIM_BYTES);
    }

    /// How much may be copied before [`Reclaimer::done_with`] should be told.
    pub(crate) fn step(&self) -> u64 {
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
    fn long_runs_of_zeros_take_no_room() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let spool = Spool::new(Arc::clone(&file), 4096);
        let (mut first, mut second) = (spool.writer(), spool.writer());
        let zeros = vec![0; 256 << 10];
        let big = 64 << 20;
        let at = first.begin(big).unwrap();
        (0..big / zeros.len() as u64).for_each(|_| first.append(&zeros).unwrap());
        let small = first.begin(3).unwrap();
        first.append(b"abc").unwrap();
        let other = second.begin(big).unwrap();
        second.append(b"start").unwrap();
        (0..5).for_each(|_| second.append(&zeros).unwrap());
        first.flush().unwrap();
        second.flush().unwrap();
        let mut bytes = vec![1; big as usize];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert!(is_zero(&bytes));
        file.read_exact_at(&mut bytes[..3], small).unwrap();
        assert_eq!(&bytes[..3], b"abc");
        let mut bytes = vec![1; 5 + 5 * zeros.len()];
        file.read_exact_at(&mut bytes, other).unwrap();
        assert!(bytes.starts_with(b"start") && is_zero(&bytes[5..]));
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "{}", file.metadata().unwrap().blocks());
    }

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
