//! Member headers of the outer archive, and nothing of their contents: a stand-in with the shape of `crate::tar::read`.

use std::io::{self, Read};

use crate::error::{Error, ErrorKind, Result};
use crate::io::RegionReader;
use crate::model::Quoted;

/// One member, as its headers describe it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name, as written.
    pub(super) raw_path: Vec<u8>,
    /// What it is.
    pub(super) kind: EntryKind,
    /// The target of a link, as written.
    pub(super) link: Vec<u8>,
    /// Where its contents begin, from the start of the stream.
    pub(super) data_offset: u64,
    /// How many bytes of contents are stored.
    pub(super) size: u64,
}

/// What a member is, as far as finding blobs goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    HardLink,
    Symlink,
    Directory,
    Other,
}

/// A stream of which parts can be passed over.
pub(super) trait Skip: Read {
    /// Passes over `bytes` and says how many there were; a file does not look and takes all of them for there.
    fn pass(&mut self, bytes: u64) -> io::Result<u64>;
}

impl Skip for RegionReader {
    fn pass(&mut self, bytes: u64) -> io::Result<u64> {
        self.skip(bytes);
        Ok(bytes)
    }
}

/// A stream that can only be read; what is passed over is read and dropped.
pub(super) struct Sequential<R>(pub(super) R);

impl<R: Read> Read for Sequential<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Skip for Sequential<R> {
    fn pass(&mut self, bytes: u64) -> io::Result<u64> {
        io::copy(&mut (&mut self.0).take(bytes), &mut io::sink())
    }
}

const BLOCK_BYTES: u64 = 512;
/// The most that a long name or a set of PAX records may take.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// The members of a tar, in order.
pub(super) struct Entries<S> {
    stream: S,
    /// Where `stream` stands.
    position: u64,
    /// Where the next header begins.
    next: u64,
    /// The current member: its name, and where its contents end without the padding.
    current: (Vec<u8>, u64),
    global: Extensions,
}

/// What extension headers say about the member that follows.
#[derive(Debug, Default, Clone)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<S: Skip> Entries<S> {
    pub(super) fn new(stream: S) -> Self {
        Entries { stream, position: 0, next: 0, current: (Vec::new(), 0), global: Extensions::default() }
    }

    /// The next member; `None` after the last.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut local = Extensions::default();
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header[124..136]).ok_or_else(|| damaged(self.position, "an unreadable size"))?;
            match header[156] {
                b'L' => local.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => local.link = Some(until_nul(&self.extension(size)?).to_vec()),
                b'x' | b'X' => {
                    let records = self.extension(size)?;
                    local.read_records(&records).ok_or_else(|| damaged(self.position, "damaged PAX records"))?;
                }
                b'g' => {
                    let records = self.extension(size)?;
                    let read = self.global.read_records(&records);
                    read.ok_or_else(|| damaged(self.position, "damaged PAX records"))?;
                }
                _ => return self.entry(&header, size, local).map(Some),
            }
        }
    }

    /// Reads the current member's contents into memory. The caller has checked the size.
    pub(super) fn read_contents(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        let mut contents = Vec::new();
        (&mut self.stream).take(entry.size).read_to_end(&mut contents).map_err(unreadable)?;
        self.position += contents.len() as u64;
        if (contents.len() as u64) < entry.size {
            return Err(truncated(&entry.raw_path));
        }
        Ok(contents)
    }

    fn entry(&mut self, header: &[u8; 512], size: u64, local: Extensions) -> Result<Entry> {
        let raw_path = local.path.or_else(|| self.global.path.clone()).unwrap_or_else(|| header_path(header));
        let link = local.link.or_else(|| self.global.link.clone());
        let link = link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        let kind = match header[156] {
            b'0' | 0 if raw_path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'5' => EntryKind::Directory,
            b'S' => {
                let quoted = Quoted(&raw_path).to_string();
                return Err(Error::new(ErrorKind::Unsupported, format!("member {quoted} is stored as a sparse file"))
                    .hint("pack the archive again without --sparse"));
            }
            _ => EntryKind::Other,
        };
        // Links, devices and directories store nothing, whatever their size field says.
        let stores = matches!(kind, EntryKind::File) || !matches!(header[156], b'1'..=b'6' | b'0' | 0);
        let size = if stores { local.size.or(self.global.size).unwrap_or(size) } else { 0 };
        let end = size.checked_next_multiple_of(BLOCK_BYTES).and_then(|padded| self.position.checked_add(padded));
        self.next = end.ok_or_else(|| truncated(&raw_path))?;
        self.current = (raw_path.clone(), self.position + size);
        Ok(Entry { raw_path, kind, link, data_offset: self.position, size })
    }

    /// The next header that is not all zeros; `None` at the end-of-archive marker or where the stream ends.
    fn header(&mut self) -> Result<Option<[u8; 512]>> {
        let passed = self.stream.pass(self.next - self.position).map_err(unreadable)?;
        if self.position + passed < self.current.1 {
            return Err(truncated(&self.current.0));
        }
        self.position = self.next;
        let mut block = [0; BLOCK_BYTES as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        if filled == 0 || (filled == block.len() && block.iter().all(|&byte| byte == 0)) {
            return Ok(None);
        }
        if filled < block.len() {
            return Err(damaged(self.position, "half a header: the file is truncated"));
        }
        if !checksum_is_right(&block) {
            return Err(damaged(self.position, "no tar header where one belongs (bad checksum)"));
        }
        self.position += BLOCK_BYTES;
        self.next = self.position;
        Ok(Some(block))
    }

    /// The contents of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(damaged(self.position, "an extension header of more than 1 MiB"));
        }
        let mut contents = Vec::new();
        (&mut self.stream).take(size).read_to_end(&mut contents).map_err(unreadable)?;
        if (contents.len() as u64) < size {
            return Err(damaged(self.position, "half an extension header: the file is truncated"));
        }
        self.position += size;
        self.next = self.position.next_multiple_of(BLOCK_BYTES);
        Ok(contents)
    }
}

impl Extensions {
    /// Takes over PAX records, `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
    fn read_records(&mut self, mut records: &[u8]) -> Option<()> {
        while !records.is_empty() && records[0] != 0 {
            let space = records.iter().take(20).position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
            let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
            records = &records[length..];
            let equals = record.iter().position(|&byte| byte == b'=')?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
        }
        Some(())
    }
}

fn damaged(position: u64, what: &str) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("damaged tar: {what}, at byte {position}"))
        .hint("the archive is damaged or incomplete: fetch or save it again")
}

/// A member that is longer than the archive.
pub(super) fn truncated(name: &[u8]) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("the archive is truncated: it ends inside member {}", Quoted(name)))
        .hint("the archive is incomplete: fetch or save it again")
}

fn unreadable(error: io::Error) -> Error {
    Error::io(ErrorKind::InvalidImage, error)
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// The name with POSIX ustar's prefix. GNU's magic (`ustar` and two spaces) keeps other things in that field.
fn header_path(header: &[u8; 512]) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = if &header[257..263] == b"ustar\0" { until_nul(&header[345..500]) } else { b"" };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// Octal digits between blanks, or GNU's base-256 with the top bit of the first byte set.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let first = field[0] & 0x7f;
        let mut bytes = std::iter::once(first).chain(field[1..].iter().copied());
        return bytes.try_fold(0u64, |sum, byte| sum.checked_mul(256)?.checked_add(u64::from(byte)));
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0u64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// The sum of all bytes with the checksum field taken as blanks; old writers summed signed bytes.
pub(super) fn checksum_is_right(header: &[u8; 512]) -> bool {
    let Some(stated) = number(&header[148..156]) else { return false };
    let bytes = || header.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
    let unsigned: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    stated == unsigned || i64::try_from(stated) == Ok(signed)
}
