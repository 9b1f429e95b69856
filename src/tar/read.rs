use std::io::{self, BufRead, Read};

use super::header::Block;
use super::number::{parse_decimal, parse_signed_decimal};
use super::pax::{Globals, Lookup, Records, parse_time};
use super::sparse::{LeadingMap, Map, Segment};
use super::write::BLOCK_BYTES;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::{RegionReader, read_error};
use crate::model::{Metadata, Mode, PATH_BYTES_MAX, Quoted, Timestamp};

/// Longest payload of a PAX header or GNU long name, in bytes; what Go's reader, and so Docker, takes. So many bytes may all
/// PAX records of one entry have together, and all global ones.
const SPECIAL_BYTES_MAX: u64 = 1 << 20;
/// Longest chain of special headers before one entry. Four kinds exist; writers use each once.
const SPECIAL_HEADERS_MAX: u32 = 64;

/// What [`Entries`] reads from: bytes in sequence, with a way past those that nobody wants.
pub trait Input: Read {
    /// Moves past `bytes` bytes.
    ///
    /// # Errors
    /// Where they are not there.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;

    /// Hands up to `want` bytes to `take`, and says how many; 0 at the end. Inputs that hold bytes already lend them.
    ///
    /// # Errors
    /// As reading; whatever `take` fails with.
    fn lend(&mut self, want: usize, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let want = want.min(buffer.len());
        let count = self.read(&mut buffer[..want])?;
        take(&buffer[..count])?;
        Ok(count)
    }
}

/// Skips by seeking: contents of a layer that lies in a local file are not touched.
impl Input for RegionReader {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if self.remaining() < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        RegionReader::skip(self, bytes);
        Ok(())
    }
}

/// A stream that cannot seek: what is skipped is read.
pub struct Sequential<R>(pub R);

impl<R: Read> Read for Sequential<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: BufRead> Input for Sequential<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        while left > 0 {
            match self.lend(usize::try_from(left).unwrap_or(usize::MAX), &mut |_| Ok(()))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => left -= count as u64,
            }
        }
        Ok(())
    }

    fn lend(&mut self, want: usize, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<usize> {
        let held = loop {
            match self.0.fill_buf() {
                Ok(held) => break held,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        let count = held.len().min(want);
        take(&held[..count])?;
        self.0.consume(count);
        Ok(count)
    }
}

/// Kinds of entry, whatever spelled them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file; contiguous files (`7`) are no different.
    File,
    /// Another name of a file named before, after or in a lower layer.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device with its numbers.
    CharDevice,
    /// A block device with its numbers.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry of a tar, all extensions applied.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name as written.
    pub raw_path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Target of a hard link or symlink, as written.
    pub link: Vec<u8>,
    /// Owner, permissions, time, extended attributes.
    pub metadata: Metadata,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Apparent size of a file in bytes.
    pub size: u64,
    /// Bytes of the archive that hold the file's data; less than `size` where it is sparse.
    pub stored_bytes: u64,
    /// First of these bytes, from the start of the tar.
    pub data_offset: u64,
    /// Where the data belongs, for a sparse file.
    pub segments: Option<Vec<Segment>>,
}

/// Reads the entries of a tar one after the other, up to its end marker or the end of the input.
pub struct Entries<I> {
    input: I,
    /// Bytes read or skipped so far.
    position: u64,
    /// Data of the current entry that nobody has read.
    unread_bytes: u64,
    /// What rounds that data up to whole blocks.
    padding_bytes: u64,
    /// The name of the current entry, for messages.
    current: Vec<u8>,
    global: Globals,
    ended: bool,
}

/// Extensions that stand before the header they belong to.
#[derive(Default)]
struct Extensions {
    local: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    headers: u32,
}

impl<I: Input> Entries<I> {
    /// Reads from the start of a tar.
    pub fn new(input: I) -> Self {
        Entries {
            input,
            position: 0,
            unread_bytes: 0,
            padding_bytes: 0,
            current: Vec::new(),
            global: Globals::default(),
            ended: false,
        }
    }

    /// The input, at the place where reading stopped.
    pub fn into_input(self) -> I {
        self.input
    }

    /// Where the next byte is read, from the start of the tar.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; data of the one before that was not read is skipped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] for what is not a tar, or is cut off; [`ErrorKind::Unsupported`] for entry types that no
    /// image has. Messages give the byte where the header stands.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_data()?;
            let header_offset = self.position;
            let Some(block) = self.next_block()? else {
                return self.end(&extensions, header_offset);
            };
            let at = |error: Error| error.doing(format!("tar header at byte {header_offset}"));
            match block.type_flag() {
                b'x' | b'X' | b'g' | b'L' | b'K' => self.take_extension(&block, &mut extensions).map_err(at)?,
                // A volume label has no contents and names no file.
                b'V' => self.expect_data(block.size().ok_or_else(|| at(malformed("size")))?),
                _ => return self.entry(&block, &extensions).map(Some).map_err(at),
            }
        }
    }

    /// Reads data of the current entry as it is stored; 0 at its end.
    ///
    /// # Errors
    /// When the input cannot be read or is cut off.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let want = usize::try_from(self.unread_bytes).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        let count = loop {
            match self.input.read(&mut buffer[..want]) {
                Ok(0) => return Err(self.cut_off_inside()),
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        };
        self.position += count as u64;
        self.unread_bytes -= count as u64;
        Ok(count)
    }

    /// Gives all data of the current entry to `take`, piece by piece.
    ///
    /// # Errors
    /// As [`Entries::read_data`]; what `take` fails with comes through [`Error::io`] as an [`ErrorKind::Output`] error.
    pub fn for_each_piece(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
        while self.unread_bytes > 0 {
            let want = usize::try_from(self.unread_bytes).unwrap_or(usize::MAX);
            let mut taken = Ok(());
            let lent = self.input.lend(want, &mut |bytes| {
                taken = take(bytes);
                Ok(())
            });
            let count = lent.map_err(read_error)?;
            taken.or_kind(ErrorKind::Output)?;
            if count == 0 {
                return Err(self.cut_off_inside());
            }
            self.position += count as u64;
            self.unread_bytes -= count as u64;
        }
        Ok(())
    }

    /// Fills `buffer` with data of the current entry.
    ///
    /// # Errors
    /// As [`Entries::read_data`], and when there is less.
    pub fn read_data_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_data(&mut buffer[filled..])? {
                0 => return Err(self.cut_off_inside()),
                count => filled += count,
            }
        }
        Ok(())
    }

    fn cut_off_inside(&self) -> Error {
        cut_off(self.position).doing(format!("entry {}", Quoted(&self.current)))
    }

    fn end(&mut self, extensions: &Extensions, offset: u64) -> Result<Option<Entry>> {
        self.ended = true;
        if extensions.headers > 0 {
            return Err(cut_off(offset));
        }
        Ok(None)
    }

    fn expect_data(&mut self, bytes: u64) {
        self.unread_bytes = bytes;
        self.padding_bytes = bytes.wrapping_neg() % BLOCK_BYTES;
    }

    fn skip_data(&mut self) -> Result<()> {
        let data = std::mem::take(&mut self.unread_bytes);
        self.skip(data)?;
        // The last member of an archive may lack its padding.
        let padding = std::mem::take(&mut self.padding_bytes);
        let mut block = [0; BLOCK_BYTES as usize];
        let count = self.fill(&mut block[..padding as usize])?;
        if count < padding as usize {
            self.ended = true;
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        match self.input.skip(bytes) {
            Ok(()) => {
                self.position = self.position.checked_add(bytes).ok_or_else(|| cut_off(self.position))?;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.cut_off_inside()),
            Err(error) => Err(read_error(error)),
        }
    }

    /// Reads until the buffer is full or the input ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(error)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// The next header block; `None` at the end marker, or where the input ends between blocks.
    fn next_block(&mut self) -> Result<Option<Block>> {
        let mut bytes = [0; BLOCK_BYTES as usize];
        let offset = self.position;
        if self.ended {
            return Ok(None);
        }
        match self.fill(&mut bytes)? {
            0 => return Ok(None),
            count if count < bytes.len() => return Err(cut_off(offset)),
            _ => {}
        }
        // Two blocks of zeros end an archive. One does at the end of the input, as for every reader; what comes after a lone one
        // GNU tar leaves out with a warning, and Go, and so Docker, refuses.
        if is_zeros(&bytes) {
            let count = self.fill(&mut bytes)?;
            if !is_zeros(&bytes[..count]) {
                return Err(
                    invalid("a lone block of zeros, with more behind it").doing(format!("tar header at byte {offset}"))
                );
            }
            return Ok(None);
        }
        let block = Block::checked(&bytes);
        block.map(Some).ok_or_else(|| invalid("checksum mismatch").doing(format!("tar header at byte {offset}")))
    }

    fn take_extension(&mut self, block: &Block, extensions: &mut Extensions) -> Result<()> {
        extensions.headers += 1;
        let size = block.size().ok_or_else(|| malformed("size"))?;
        if size > SPECIAL_BYTES_MAX || extensions.headers > SPECIAL_HEADERS_MAX {
            return Err(invalid(format!("an extended header of {size} bytes is more than any file needs")));
        }
        self.expect_data(size);
        let mut payload = vec![0; size as usize];
        let offset = self.position;
        if self.fill(&mut payload)? < payload.len() {
            return Err(cut_off(offset));
        }
        self.unread_bytes = 0;
        let records = |payload: &[u8]| {
            Records::parse(payload).ok_or_else(|| malformed("PAX record, or a NUL in its key or name"))
        };
        match block.type_flag() {
            b'L' => extensions.long_name = Some(until_nul(payload)),
            b'K' => extensions.long_link = Some(until_nul(payload)),
            b'g' => {
                extensions.headers -= 1;
                self.global.merge(records(&payload)?);
                if self.global.bytes() as u64 > SPECIAL_BYTES_MAX {
                    return Err(invalid("more than 1 MiB of global PAX records"));
                }
            }
            // Of several the last one alone counts, in Go and in GNU tar.
            _ => extensions.local = records(&payload)?,
        }
        Ok(())
    }

    fn entry(&mut self, block: &Block, extensions: &Extensions) -> Result<Entry> {
        let global = std::mem::take(&mut self.global);
        let records = Lookup { local: &extensions.local, global: &global };
        let entry = self.entry_with(block, extensions, &records);
        self.global = global;
        entry
    }

    fn entry_with(&mut self, block: &Block, extensions: &Extensions, records: &Lookup<'_>) -> Result<Entry> {
        let raw_path = [records.get(b"GNU.sparse.name"), extensions.long_name.as_deref(), records.get(b"path")];
        let raw_path = raw_path.into_iter().flatten().next().map_or_else(|| block.name(), <[u8]>::to_vec);
        let link = extensions.long_link.as_deref().or_else(|| records.get(b"linkpath"));
        let link = link.map_or_else(|| block.link_name(), <[u8]>::to_vec);
        let kind = kind_of(block.type_flag(), &raw_path)?;
        self.current.clone_from(&raw_path);
        let named = |error: Error| error.doing(format!("entry {}", Quoted(&raw_path)));
        if kind == EntryKind::Symlink {
            check_symlink(&link).map_err(named)?;
        }

        let stored = match records.get(b"size") {
            Some(text) => parse_decimal(text),
            None => block.size(),
        };
        let stored = stored.filter(|&size| size <= i64::MAX as u64).ok_or_else(|| named(malformed("size")))?;
        // Only files have data; other headers' sizes are rubbish that every reader passes over.
        self.expect_data(if kind == EntryKind::File { stored } else { 0 });
        let metadata = metadata(block, records).map_err(named)?;
        let device = device(kind, block, records).ok_or_else(|| named(malformed("device number")))?;
        let sparse = if kind == EntryKind::File { self.sparse(block, records).map_err(named)? } else { None };
        let (size, segments) = match sparse {
            Some((size, segments)) => (size, Some(segments)),
            None => (self.unread_bytes, None),
        };
        let (stored_bytes, data_offset) = (self.unread_bytes, self.position);
        Ok(Entry { raw_path, kind, link, metadata, device, size, stored_bytes, data_offset, segments })
    }

    /// Apparent size and map, where the entry is sparse in any of the four formats. Reads what of the map stands between
    /// the header and the data.
    fn sparse(&mut self, block: &Block, records: &Lookup<'_>) -> Result<Option<(u64, Vec<Segment>)>> {
        let bad = || malformed("sparse map");
        let number = |key: &[u8]| records.get(key).map(|text| parse_decimal(text).ok_or_else(bad)).transpose();
        let (size, map) = if block.type_flag() == b'S' {
            self.old_sparse(block)?
        } else if records.get(b"GNU.sparse.major") == Some(b"1") {
            let size = number(b"GNU.sparse.realsize")?.ok_or_else(bad)?;
            (size, self.leading_map()?)
        } else if let Some(list) = records.get(b"GNU.sparse.map") {
            let size = number(b"GNU.sparse.size")?.ok_or_else(bad)?;
            (size, Map::from_list(list).ok_or_else(bad)?)
        } else if let Some(size) = number(b"GNU.sparse.size")? {
            (size, Map::from_repeated_records(records.local).ok_or_else(bad)?)
        } else {
            return Ok(None);
        };
        let segments = map.finish(size, self.unread_bytes).filter(|_| size <= i64::MAX as u64).ok_or_else(bad)?;
        Ok(Some((size, segments)))
    }

    fn old_sparse(&mut self, block: &Block) -> Result<(u64, Map)> {
        let bad = || malformed("sparse map");
        let (fields, mut extended, size) = block.sparse().ok_or_else(bad)?;
        let mut map = Map::default();
        map.push_old_fields(fields).ok_or_else(bad)?;
        while extended {
            let mut more = [0; BLOCK_BYTES as usize];
            let offset = self.position;
            if self.fill(&mut more)? < more.len() {
                return Err(cut_off(offset));
            }
            map.push_old_fields(&more[..504]).ok_or_else(bad)?;
            extended = more[504] != 0;
        }
        Ok((size, map))
    }

    fn leading_map(&mut self) -> Result<Map> {
        let mut map = LeadingMap::default();
        loop {
            let mut block = [0; BLOCK_BYTES as usize];
            let offset = self.position;
            if self.unread_bytes < BLOCK_BYTES {
                return Err(malformed("sparse map"));
            }
            if self.fill(&mut block)? < block.len() {
                return Err(cut_off(offset));
            }
            self.unread_bytes -= BLOCK_BYTES;
            if map.feed(&block).ok_or_else(|| malformed("sparse map"))? {
                return Ok(map.into_map());
            }
        }
    }
}

fn kind_of(type_flag: u8, path: &[u8]) -> Result<EntryKind> {
    Ok(match type_flag {
        // v7 has no type for directories.
        0 if path.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' | b'S' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        other => {
            let what = match other {
                b'M' => "a continuation of a multi-volume archive",
                b'D' => "a GNU incremental dump's directory",
                _ => "an entry of a type that no image has",
            };
            let message = format!("entry {} is {what} (type {})", Quoted(path), Quoted(&[other]));
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("build the image again with Docker, Podman or BuildKit, which write no such entries"));
        }
    })
}

fn metadata(block: &Block, records: &Lookup<'_>) -> Result<Metadata> {
    let id = |key: &[u8], field: Option<i64>, what: &str| {
        let number = records.get(key).map_or(field, parse_signed_decimal);
        number.map(owner).ok_or_else(|| malformed(what))
    };
    let mtime = match records.get(b"mtime") {
        Some(text) => parse_time(text),
        None => block.mtime_seconds().map(Timestamp::from_seconds),
    };
    Ok(Metadata {
        mode: Mode::new(block.mode().ok_or_else(|| malformed("mode"))?),
        uid: id(b"uid", block.uid(), "uid")?,
        gid: id(b"gid", block.gid(), "gid")?,
        mtime: mtime.ok_or_else(|| malformed("time"))?,
        xattrs: records.xattrs().ok_or_else(|| malformed("extended attribute"))?,
    })
}

/// An owner as it comes out of Docker: `lchown` takes the low 32 bits, so that -2 is 4294967294 (macOS's nobody), and takes
/// 4294967295 for "leave it as it is", which is root's where Docker unpacks.
fn owner(number: i64) -> u32 {
    match number as u32 {
        u32::MAX => 0,
        id => id,
    }
}

/// No file system holds a target with a NUL byte, nor Linux one that is longer than a path may be (`symlink(2)`). Targets of
/// hard links are paths inside the archive, and checked where paths are.
fn check_symlink(target: &[u8]) -> Result<()> {
    if target.contains(&0) {
        return Err(invalid(format!("the target {} of the symbolic link has a NUL byte", Quoted(target))));
    }
    if target.len() > PATH_BYTES_MAX {
        let bytes = target.len();
        return Err(invalid(format!("the target of the symbolic link has {bytes} bytes, more than {PATH_BYTES_MAX}")));
    }
    Ok(())
}

fn device(kind: EntryKind, block: &Block, records: &Lookup<'_>) -> Option<(u32, u32)> {
    if !matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice) {
        return Some((0, 0));
    }
    let record = |key: &[u8]| records.get(key).map(|text| parse_decimal(text).and_then(|n| u32::try_from(n).ok()));
    let (major, minor) = block.device()?;
    let major = record(b"SCHILY.devmajor").unwrap_or(Some(major))?;
    Some((major, record(b"SCHILY.devminor").unwrap_or(Some(minor))?))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidImage, message)
}

fn malformed(what: &str) -> Error {
    invalid(format!("malformed {what}"))
}

fn is_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn cut_off(offset: u64) -> Error {
    invalid(format!("the tar is truncated at byte {offset}"))
        .hint("fetch or save the image again: a part of it is missing")
}
