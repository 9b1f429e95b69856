//! A flattened image as one canonical tar.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{CHUNK_BYTES, Monitor, Reclaimer};
use crate::layers::{Contents, Piece};
use crate::model::Quoted;
use crate::tar::{Member, MemberKind, end_of_archive, member_header, padding};
use crate::tree::{FileData, Inode, Kind, Tree, Visit};

/// Contents of at least this many bytes are copied inside the kernel; smaller ones join their headers in one buffer.
const KERNEL_COPY_BYTES_MIN: u64 = 128 << 10;
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

/// How many bytes and names the tar of `tree` has. Known before the first is written, so that free space can be looked at.
pub(super) fn measure(tree: &Tree) -> (u64, u64) {
    let mut counted = Counted { bytes: 0, names: 0, header: Vec::new() };
    for_each_member(tree, |_, member, _| {
        counted.header.clear();
        member_header(&mut counted.header, member);
        counted.bytes += counted.header.len() as u64;
        counted.names += 1;
        if let MemberKind::File { size } = member.kind {
            counted.bytes += size + padding(size);
        }
        Ok(())
    })
    .map(|()| (counted.bytes + end_of_archive().len() as u64, counted.names))
    .unwrap_or_default()
}

struct Counted {
    bytes: u64,
    names: u64,
    header: Vec<u8>,
}

/// Writes the tar. What has been written is given back by the spool: nobody can read `contents` again.
pub(super) fn write(tree: &Tree, contents: Contents, sink: &mut dyn Sink, monitor: &Monitor) -> Result<()> {
    let mut reclaimer = contents.spool().cloned().map(Reclaimer::new);
    let mut header = Vec::new();
    for_each_member(tree, |_, member, data| {
        monitor.check()?;
        header.clear();
        member_header(&mut header, member);
        sink.write_all(&header).or_kind(ErrorKind::Output)?;
        monitor.advance(header.len() as u64);
        match (member.kind, data) {
            (MemberKind::File { size }, Some(data)) => {
                write_contents(&contents, data, reclaimer.as_mut(), sink, monitor)
                    .doing(|| format!("writing contents of {}", Quoted(member.path)))?;
                let zeros = [0; 512];
                sink.write_all(&zeros[..padding(size) as usize]).or_kind(ErrorKind::Output)
            }
            _ => Ok(()),
        }
    })?;
    sink.write_all(&end_of_archive()).or_kind(ErrorKind::Output)?;
    sink.finish().or_kind(ErrorKind::Output)
}

fn write_contents(
    contents: &Contents,
    data: &FileData,
    reclaimer: Option<&mut Reclaimer>,
    sink: &mut dyn Sink,
    monitor: &Monitor,
) -> Result<()> {
    let mut reclaimer = reclaimer;
    for piece in contents.pieces(data) {
        match piece {
            Piece::Bytes(bytes) => {
                sink.write_all(bytes).or_kind(ErrorKind::Output)?;
                monitor.advance(bytes.len() as u64);
            }
            Piece::Stored { file, offset, len, spooled } => match &mut reclaimer {
                Some(reclaimer) if spooled => {
                    let mut done = 0;
                    while done < len {
                        let count = (len - done).min(reclaimer.step());
                        sink.copy(file, offset + done, count, monitor)?;
                        reclaimer.done_with(offset + done, count);
                        done += count;
                    }
                }
                _ => sink.copy(file, offset, len, monitor)?,
            },
            Piece::Zeros(len) => {
                sink.zeros(len, monitor)?;
                monitor.advance(len);
            }
        }
    }
    Ok(())
}

/// Gives every name of the tree in canonical order: the first name of an inode as what it is, later ones as hard links to
/// the first, so that links always come after their targets.
pub(super) fn for_each_member<'a>(
    tree: &'a Tree,
    mut each: impl FnMut(&Visit, &Member<'_>, Option<&'a FileData>) -> Result<()>,
) -> Result<()> {
    let mut first_names: Vec<Option<Box<[u8]>>> = vec![None; tree.inode_count()];
    for visit in tree.walk() {
        let Inode { kind, metadata, links } = tree.inode(visit.inode);
        let first = &mut first_names[visit.inode.index()];
        let (kind, data) = match (&*first, kind) {
            (Some(first), _) => (MemberKind::HardLink(first), None),
            (None, Kind::Directory(_)) => (MemberKind::Directory, None),
            (None, Kind::File(data)) => (MemberKind::File { size: data.size }, Some(data)),
            (None, Kind::Symlink(target)) => (MemberKind::Symlink(target), None),
            (None, Kind::Fifo) => (MemberKind::Fifo, None),
            (None, Kind::CharDevice { major, minor }) => (MemberKind::CharDevice(*major, *minor), None),
            (None, Kind::BlockDevice { major, minor }) => (MemberKind::BlockDevice(*major, *minor), None),
        };
        each(&visit, &Member { path: &visit.path, kind, metadata }, data)?;
        if first.is_none() && *links > 1 {
            *first = Some(visit.path.into());
        }
    }
    Ok(())
}

/// A file that is written in sequence.
pub(super) struct FileSink {
    file: Arc<File>,
    position: u64,
    buffer: Vec<u8>,
    kernel_copies: bool,
}

impl FileSink {
    pub(super) fn new(file: Arc<File>) -> Self {
        FileSink { file, position: 0, buffer: Vec::with_capacity(BUFFER_BYTES), kernel_copies: true }
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
        self.position += self.buffer.len() as u64;
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

    /// Copies inside the kernel as much as it will; how much that was.
    fn kernel_copy(&mut self, file: &File, offset: u64, len: u64, monitor: &Monitor) -> Result<u64> {
        let (mut from, mut copied) = (offset, 0);
        while copied < len && self.kernel_copies {
            monitor.check()?;
            let want = (len - copied).min(64 << 20) as usize;
            match rustix::fs::copy_file_range(file, Some(&mut from), &*self.file, Some(&mut self.position), want) {
                Ok(0) => break,
                Ok(count) => {
                    copied += count as u64;
                    monitor.advance(count as u64);
                }
                Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    return Err(io::Error::from(io::ErrorKind::StorageFull)).or_kind(ErrorKind::NoSpace);
                }
                // Two file systems that will not copy between them, or a kernel that cannot: by hand, then.
                Err(_) => self.kernel_copies = false,
            }
        }
        Ok(copied)
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
            self.position += len;
            monitor.advance(len);
            return Ok(());
        }
        let mut copied = 0;
        if len >= KERNEL_COPY_BYTES_MIN && self.kernel_copies {
            self.flush().or_kind(ErrorKind::Output)?;
            copied = self.kernel_copy(file, offset, len, monitor)?;
        }
        let left = len - copied;
        if left <= KERNEL_COPY_BYTES_MIN {
            return self.copy_small(file, offset + copied, left as usize, monitor);
        }
        copy_by_hand(file, offset + copied, left, monitor, |bytes| {
            if self.buffer.len() + bytes.len() > BUFFER_BYTES {
                self.flush()?;
            }
            self.buffer.extend_from_slice(bytes);
            Ok(())
        })
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
