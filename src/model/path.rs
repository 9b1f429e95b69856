use std::fmt;

use super::Quoted;

/// The longest name Linux file systems take, in bytes (`NAME_MAX`).
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The longest path Linux system calls take, in bytes (`PATH_MAX` without its NUL). No runtime can unpack a longer one, and
/// without a bound one name could cost a tree of tens of thousands of directories.
pub(crate) const PATH_BYTES_MAX: usize = 4095;

/// A name inside an image: bytes, relative to the root, without empty, `.` or `..` parts. The root itself is empty.
///
/// Parsed once, where a tar header is read; cleaned lexically as umoci and containerd do it, so that `..` cannot leave
/// the root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPath(Box<[u8]>);

/// Why bytes are not an [`EntryPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// A NUL byte, which no file system can hold.
    Nul,
    /// The whole is longer than 4,095 bytes.
    PathTooLong,
    /// One part is longer than 255 bytes.
    NameTooLong,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathError::Nul => "the name holds a NUL byte",
            PathError::PathTooLong => "the name is longer than 4,095 bytes",
            PathError::NameTooLong => "a part of the name is longer than 255 bytes",
        })
    }
}

impl EntryPath {
    /// Cleans `raw` lexically.
    ///
    /// # Errors
    /// When a file system could not hold the name.
    pub fn parse(raw: &[u8]) -> Result<Self, PathError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in raw.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                _ if part.contains(&0) => return Err(PathError::Nul),
                _ if part.len() > NAME_BYTES_MAX => return Err(PathError::NameTooLong),
                _ => parts.push(part),
            }
        }
        let bytes = parts.join(&b'/');
        if bytes.len() > PATH_BYTES_MAX { Err(PathError::PathTooLong) } else { Ok(EntryPath(bytes.into_boxed_slice())) }
    }

    /// The cleaned bytes, parts separated by one slash; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parts from the root down.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|part| !part.is_empty())
    }

    /// Parent and last part; `None` for the root.
    pub fn split_last(&self) -> Option<(&[u8], &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(split_last(&self.0))
    }
}

/// Parent and last part of a path of plain parts.
pub(crate) fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str("\"/\"") } else { Quoted(&self.0).fmt(f) }
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_and_confines() {
        for (raw, clean) in [
            ("./a//b/", "a/b"),
            ("/", ""),
            (".", ""),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b/./c", "b/c"),
            ("/nix/store", "nix/store"),
        ] {
            assert_eq!(EntryPath::parse(raw.as_bytes()).unwrap().as_bytes(), clean.as_bytes(), "{raw}");
        }
        assert_eq!(EntryPath::parse(b"a\0b"), Err(PathError::Nul));
        assert_eq!(EntryPath::parse(&[b'x'; 256]), Err(PathError::NameTooLong));
        assert!(EntryPath::parse(&[b'x'; 255]).is_ok());
        assert_eq!(EntryPath::parse(&b"d/".repeat(2049)), Err(PathError::PathTooLong));
        assert!(EntryPath::parse(&b"d/./".repeat(2048)).is_ok());
        let path = EntryPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.split_last(), Some((&b"a/b"[..], &b"c"[..])));
    }
}
