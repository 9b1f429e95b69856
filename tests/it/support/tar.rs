//! A ustar writer of our own, so that tests do not check a reader against the writer beside it.

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
        self.put(name.as_ref(), b'0', b"", contents.as_ref());
        self
    }

    /// Adds a directory.
    pub fn directory(mut self, name: impl AsRef<[u8]>) -> Tar {
        self.put(name.as_ref(), b'5', b"", b"");
        self
    }

    /// Adds a symbolic link.
    pub fn symlink(mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.put(name.as_ref(), b'2', target.as_ref(), b"");
        self
    }

    /// Adds a hard link.
    pub fn hard_link(mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.put(name.as_ref(), b'1', target.as_ref(), b"");
        self
    }

    /// Adds PAX records for the member that follows; `kind` is `x`, or `g` for all that follow.
    pub fn pax(mut self, kind: u8, records: &[(&str, &[u8])]) -> Tar {
        let contents: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.put(b"pax", kind, b"", &contents);
        self
    }

    /// Adds a GNU long name (`kind` is `L`) or long link (`K`) for the member that follows.
    pub fn gnu_long(mut self, kind: u8, text: &[u8]) -> Tar {
        self.put(b"././@LongLink", kind, b"", &[text, b"\0"].concat());
        self
    }

    /// Adds a header as it is, its checksum made right, and contents without looking at the header's size.
    pub fn raw(mut self, mut header: [u8; 512], contents: &[u8]) -> Tar {
        set_checksum(&mut header);
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(contents);
        self.pad();
        self
    }

    /// The bytes with the end-of-archive marker.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    /// The bytes so far, without the marker.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    fn put(&mut self, name: &[u8], kind: u8, link: &[u8], contents: &[u8]) {
        self.bytes.extend_from_slice(&header(name, kind, link, contents.len() as u64));
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
    }
}

/// A ustar header with its checksum. Names over 100 bytes are split into prefix and name at a slash.
pub fn header(name: &[u8], kind: u8, link: &[u8], size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let (prefix, name) = split(name);
    header[..name.len()].copy_from_slice(name);
    header[345..345 + prefix.len()].copy_from_slice(prefix);
    let mode: &[u8] = if kind == b'5' { b"0000755\0" } else { b"0000644\0" };
    header[100..108].copy_from_slice(mode);
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = kind;
    assert!(link.len() <= 100, "use gnu_long or pax for a long link");
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    set_checksum(&mut header);
    header
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    if name.len() <= 100 {
        return (b"", name);
    }
    let slash = (name.len() - 101..name.len() - 1).find(|&at| name[at] == b'/');
    let slash = slash.expect("use gnu_long or pax for this name");
    (&name[..slash], &name[slash + 1..])
}

/// Makes the checksum right after a header was changed.
pub fn set_checksum(header: &mut [u8; 512]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
