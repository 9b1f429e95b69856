use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much a writer takes from the spool at once for files smaller than half of it, in bytes.
const SLAB_BYTES: u64 = 8 << 20;
/// How much is gathered before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Pieces of at least this many bytes are written as they are: gathering them would cost a copy.
const DIRECT_BYTES_MIN: usize = 64 << 10;

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
        if at != self.buffer_at + self.buffer.len() as u64 {
            self.flush()?;
            self.buffer_at = at;
        }
        Ok(at)
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
