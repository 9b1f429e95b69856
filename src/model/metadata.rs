use std::collections::BTreeMap;

use super::Timestamp;

/// Permission bits with setuid (04000), setgid (02000) and sticky (01000): the low twelve bits of `st_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(u16);

impl Mode {
    /// Keeps the low twelve bits: producers put the file type above them, or not.
    pub fn new(bits: u32) -> Self {
        Mode((bits & 0o7777) as u16)
    }

    /// The twelve bits.
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// Extended attributes: full names (`security.capability`) and their values, both any bytes.
pub type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What a tar header says of a file besides its name, type and contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions.
    pub mode: Mode,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of last modification.
    pub mtime: Timestamp,
    /// Extended attributes; boxed because nearly no file has any.
    pub xattrs: Option<Box<Xattrs>>,
}

impl Metadata {
    /// Owner 0:0, no extended attributes.
    pub fn root_owned(mode: u32, mtime: Timestamp) -> Self {
        Metadata { mode: Mode::new(mode), uid: 0, gid: 0, mtime, xattrs: None }
    }
}
