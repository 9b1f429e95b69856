//! Where the bytes of an output go: a file, which contents of other files are copied to, or anything that takes bytes in sequence.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::place::Place;
use super::prepared::Task;
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::io::{CHUNK_BYTES, Codec, Compression, Compressor, Members, Monitor, Writeback, copy_between};

/// Contents of at least this many bytes are copied from file to file; smaller ones join their headers in one buffer.
const FILE_COPY_BYTES_MIN: u64 = 512 << 10;
/// How much is gathered before it is written, in bytes.
const BUFFER_BYTES: usize = 1 << 20;

/// Where a tar goes.
pub(super) trait Sink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Copies `len` bytes of `file` from `offset` on.
    fn copy(&mut self, file: &File, offset: u64, len: u64, monitor: &Monitor) -> Result<()>;
    /// `len` zeros.
    fn zeros(&mut self, len: u64, monitor: &Monitor) -> Result<()> {
        let zeros = vec![0; CHUNK_BYTES];
        let mut left = len;
        while left > 0 {
            monitor.check()?;
            let count = left.min(CHUNK_BYTES as u64);
            self.write_all(&zeros[..count as usize]).or_kind(ErrorKind::Output)?;
            left -= count;
        }
        Ok(())
    }
    fn finish(&mut self) -> io::Result<()>;
}

/// Has `write` write to wherever the output is, compressed as asked; how many bytes that came to.
pub(super) fn put(
    place: &Place,
    compression: Compression,
    task: &Task,
    write: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result<u64> {
    let is_plain = compression.kind() == Codec::None;
    Ok(match place {
        Place::File(output) if is_plain => {
            let mut sink = FileSink::of_output(Arc::clone(output.file()));
            write(&mut sink)?;
            sink.position()
        }
        Place::File(output) => {
            compress(Sequential::of_output(Arc::clone(output.file()), 0), compression, task, write)?.position
        }
        Place::Stream(stream) => {
            let stream = stream.try_clone().or_kind(ErrorKind::Output)?;
            if !is_plain {
                return Ok(compress(Counting { inner: stream, bytes: 0 }, compression, task, write)?.bytes);
            }
            let mut sink = StreamSink(Counting { inner: BufWriter::with_capacity(CHUNK_BYTES, stream), bytes: 0 });
            write(&mut sink)?;
            sink.0.bytes
        }
        _ => return Err(Error::new(ErrorKind::Bug, "a directory is not one stream of bytes")),
    })
}

fn compress<W: Write + Send + 'static>(
    inner: W,
    compression: Compression,
    task: &Task,
    write: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result<W> {
    let mut sink = StreamSink(Compressor::new(inner, compression, Members::One, task.options.jobs));
    write(&mut sink)?;
    sink.0.finish().or_kind(ErrorKind::Output)
}

/// Writes a file in sequence without moving its cursor.
pub(super) struct Sequential {
    file: Arc<File>,
    position: u64,
    /// Where it is an output.
    writeback: Option<Writeback>,
}

impl Sequential {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self::from(file, 0)
    }

    /// From `position` on.
    pub(super) fn from(file: Arc<File>, position: u64) -> Self {
        Sequential { file, position, writeback: None }
    }

    /// The same of a file that is to be durable in the end.
    pub(super) fn of_output(file: Arc<File>, position: u64) -> Self {
        let writeback = Some(Writeback::new(&file, position));
        Sequential { writeback, ..Self::from(file, position) }
    }
}

impl Write for Sequential {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.position)?;
        self.position += count as u64;
        if let Some(writeback) = &mut self.writeback {
            writeback.reached(self.position);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A file that is written in sequence.
pub(super) struct FileSink {
    file: Arc<File>,
    position: u64,
    buffer: Vec<u8>,
    /// Where it is an output, which is written from start to end.
    writeback: Option<Writeback>,
}

impl FileSink {
    pub(super) fn new(file: Arc<File>) -> Self {
        FileSink { file, position: 0, buffer: Vec::with_capacity(BUFFER_BYTES), writeback: None }
    }

    /// A file that is to be durable in the end, and is written from its start to its end.
    pub(super) fn of_output(file: Arc<File>) -> Self {
        let writeback = Some(Writeback::new(&file, 0));
        FileSink { writeback, ..FileSink::new(file) }
    }

    fn advance(&mut self, bytes: u64) {
        self.position += bytes;
        if let Some(writeback) = &mut self.writeback {
            writeback.reached(self.position);
        }
    }

    /// Where the next byte goes, once everything is flushed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at `position`. Nothing may be waiting to be written.
    pub(super) fn seek(&mut self, position: u64) {
        debug_assert!(self.buffer.is_empty());
        self.position = position;
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.position)?;
        self.advance(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }

    /// Whether what is to be copied from there lies where it would be copied to.
    fn is_here(&self, file: &File, offset: u64) -> bool {
        offset == self.position + self.buffer.len() as u64 && file.as_raw_fd() == self.file.as_raw_fd()
    }

    /// Reads straight into the buffer.
    fn copy_small(&mut self, file: &File, offset: u64, len: usize, monitor: &Monitor) -> Result<()> {
        if self.buffer.len() + len > BUFFER_BYTES {
            self.flush().or_kind(ErrorKind::Output)?;
        }
        let start = self.buffer.len();
        self.buffer.resize(start + len, 0);
        file.read_exact_at(&mut self.buffer[start..], offset).map_err(crate::io::read_error)?;
        monitor.advance(len as u64);
        Ok(())
    }
}

impl Sink for FileSink {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn copy(&mut self, file: &File, offset: u64, len: u64, monitor: &Monitor) -> Result<()> {
        if self.is_here(file, offset) {
            self.flush().or_kind(ErrorKind::Output)?;
            self.advance(len);
            monitor.advance(len);
            return Ok(());
        }
        if len < FILE_COPY_BYTES_MIN {
            return self.copy_small(file, offset, len as usize, monitor);
        }
        self.flush().or_kind(ErrorKind::Output)?;
        copy_between((file, offset), (&self.file, self.position), len, |bytes| monitor.pass(bytes))?;
        self.advance(len);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// Anything that takes bytes in sequence: a pipe, a compressor.
pub(super) struct StreamSink<W>(pub(super) W);

impl<W: Write> Sink for StreamSink<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn copy(&mut self, file: &File, offset: u64, len: u64, monitor: &Monitor) -> Result<()> {
        copy_by_hand(file, offset, len, monitor, |bytes| self.0.write_all(bytes))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn copy_by_hand(
    file: &File,
    offset: u64,
    len: u64,
    monitor: &Monitor,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; (CHUNK_BYTES as u64).min(len) as usize];
    let mut done = 0;
    while done < len {
        monitor.check()?;
        let count = (len - done).min(CHUNK_BYTES as u64) as usize;
        file.read_exact_at(&mut buffer[..count], offset + done).map_err(crate::io::read_error)?;
        write(&buffer[..count]).or_kind(ErrorKind::Output)?;
        done += count as u64;
        monitor.advance(count as u64);
    }
    Ok(())
}
