//! A tar writer of our own, so that tests do not check a reader against the writer beside it: [`Tar`] for plain archives,
//! and the blocks that `layer.rs` makes its dialects of.

pub const BLOCK_BYTES: usize = 512;

/// A tar in the making.
#[derive(Default, Clone)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// An empty one.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Adds a regular file, 0644 0:0, time 0.
    pub fn file(mut self, name: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> Tar {
        let contents = contents.as_ref();
        self.put(header(name.as_ref(), b'0', b"", contents.len() as u64), contents);
        self
    }

    /// Adds a directory.
    pub fn directory(mut self, name: impl AsRef<[u8]>) -> Tar {
        self.put(header(name.as_ref(), b'5', b"", 0), b"");
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.put(header(name.as_ref(), b'2', target.as_ref(), 0), b"");
        self
    }

    /// Adds a hard link.
    pub fn hard_link(mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.put(header(name.as_ref(), b'1', target.as_ref(), 0), b"");
        self
    }

    /// Adds PAX records for the member that follows; `kind` is `x`, or `g` for all that follow.
    pub fn pax(mut self, kind: u8, records: &[(&str, &[u8])]) -> Tar {
        let records: Vec<u8> = records.iter().flat_map(|(key, value)| record(key.as_bytes(), value)).collect();
        extended_header(&mut self.bytes, kind, &records);
        self
    }

    /// Adds a GNU long name (`kind` is `L`) or long link (`K`) for the member that follows.
    pub fn gnu_long(mut self, kind: u8, text: &[u8]) -> Tar {
        long_text(&mut self.bytes, kind, text);
        self
    }

    /// Adds a header as it is, its checksum made right, and contents without looking at the header's size.
    pub fn raw(mut self, header: [u8; BLOCK_BYTES], contents: &[u8]) -> Tar {
        self.put(header, contents);
        self
    }

    /// The bytes with the end-of-archive marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 2 * BLOCK_BYTES]);
        self.bytes
    }

    /// The bytes so far, without the marker.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    fn put(&mut self, header: [u8; BLOCK_BYTES], contents: &[u8]) {
        finish(&mut self.bytes, header);
        self.bytes.extend_from_slice(contents);
        pad(&mut self.bytes);
    }
}

/// A ustar header. Names over 100 bytes are split into prefix and name at a slash.
pub fn header(name: &[u8], flag: u8, link: &[u8], size: u64) -> [u8; BLOCK_BYTES] {
    let (prefix, name) = split(name).expect("use gnu_long or pax for this name");
    assert!(link.len() <= 100, "use gnu_long or pax for a long link");
    let mode = if flag == b'5' { 0o755 } else { 0o644 };
    Header { prefix, link, size, mode, ..Header::blank(name, flag, Magic::Ustar) }.block()
}

/// What a header block says, before its numbers become text.
pub struct Header<'a> {
    pub name: &'a [u8],
    pub prefix: &'a [u8],
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub time: i64,
    pub flag: u8,
    pub device: (u32, u32),
    pub owner: &'a [u8],
    pub magic: Magic,
    pub base256: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Magic {
    V7,
    Ustar,
    Gnu,
}

impl Header<'_> {
    pub fn blank(name: &[u8], flag: u8, magic: Magic) -> Header<'_> {
        Header {
            name,
            prefix: b"",
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            time: 0,
            flag,
            device: (0, 0),
            owner: b"",
            magic,
            base256: false,
        }
    }

    pub fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        text(&mut block[0..100], self.name);
        self.number(&mut block[100..108], self.mode.into());
        self.number(&mut block[108..116], self.uid.into());
        self.number(&mut block[116..124], self.gid.into());
        self.number(&mut block[124..136], self.size as i64);
        self.number(&mut block[136..148], self.time);
        block[156] = self.flag;
        text(&mut block[157..257], self.link);
        match self.magic {
            Magic::V7 => {}
            Magic::Ustar => block[257..265].copy_from_slice(b"ustar\x0000"),
            Magic::Gnu => block[257..265].copy_from_slice(b"ustar  \0"),
        }
        if self.magic != Magic::V7 {
            text(&mut block[265..297], self.owner);
            text(&mut block[297..329], self.owner);
            self.number(&mut block[329..337], self.device.0.into());
            self.number(&mut block[337..345], self.device.1.into());
            text(&mut block[345..500], self.prefix);
        }
        block
    }

    /// Octal where it fits (or must), two's complement in base 256 where asked for.
    fn number(&self, field: &mut [u8], value: i64) {
        let digits = field.len() - 1;
        let fits = value >= 0 && value < 1 << (3 * digits);
        if !self.base256 || self.magic != Magic::Gnu {
            assert!(fits, "{value} does not fit {digits} octal digits");
            field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
            return;
        }
        field.fill(if value < 0 { 0xff } else { 0 });
        let bytes = value.to_be_bytes();
        let tail = field.len().min(8);
        let start = field.len() - tail;
        field[start..].copy_from_slice(&bytes[8 - tail..]);
        // The top bit marks the field; a field of eight bytes gives up the top bits of its value for that.
        field[0] |= 0x80;
    }
}

/// Makes a header's checksum right: the sum of its bytes, the checksum's own taken as blanks.
pub fn set_checksum(block: &mut [u8; BLOCK_BYTES]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Writes a header with its checksum.
pub fn finish(out: &mut Vec<u8>, mut block: [u8; BLOCK_BYTES]) {
    set_checksum(&mut block);
    out.extend_from_slice(&block);
}

fn text(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

pub fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length.to_string().len() + body != length {
        length = length.to_string().len() + body;
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

pub fn extended_header(out: &mut Vec<u8>, flag: u8, records: &[u8]) {
    let header = Header { size: records.len() as u64, ..Header::blank(b"PaxHeaders/x", flag, Magic::Ustar) };
    finish(out, header.block());
    out.extend_from_slice(records);
    pad(out);
}

/// GNU `L` (long name) and `K` (long link) members.
pub fn long_text(out: &mut Vec<u8>, flag: u8, bytes: &[u8]) {
    let header = Header { size: bytes.len() as u64 + 1, ..Header::blank(b"././@LongLink", flag, Magic::Gnu) };
    finish(out, header.block());
    out.extend_from_slice(bytes);
    out.push(0);
    pad(out);
}

/// Cuts a name into ustar's prefix and name at a slash.
pub fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let fits = |&at: &usize| name[at] == b'/' && at > 0 && at <= 155 && (1..=100).contains(&(name.len() - at - 1));
    (0..name.len()).find(fits).map(|at| (&name[..at], &name[at + 1..]))
}
