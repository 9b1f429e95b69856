//! What a line of a case says: one entry of a layer, or one file of the expected tree.

use std::collections::BTreeMap;

/// Seconds since the epoch and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// The time of everything that a converter makes rather than reads: `created` of every image built by these tests.
pub const MADE: Time = Time { seconds: 1_600_000_000, nanoseconds: 0 };

/// The time of entries that say nothing about it. Not [`MADE`], so that a mix-up shows.
pub const USUAL: Time = Time { seconds: 1_500_000_000, nanoseconds: 0 };

/// A time that is known, or that of things made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(Time),
    Made,
}

/// A regular file's bytes, holes apart, so that sparse dialects know what to leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content(pub Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Data(Vec<u8>),
    Hole(u64),
}

impl Content {
    pub fn data(bytes: impl Into<Vec<u8>>) -> Self {
        Content(vec![Piece::Data(bytes.into())])
    }

    pub fn size(&self) -> u64 {
        self.0.iter().map(Piece::size).sum()
    }

    /// The whole file, holes as zeros.
    pub fn expand(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Data(data) => bytes.extend_from_slice(data),
                Piece::Hole(size) => bytes.resize(bytes.len() + *size as usize, 0),
            }
        }
        bytes
    }

    /// Offset and bytes of each stretch of data.
    pub fn extents(&self) -> Vec<(u64, &[u8])> {
        let mut at = 0;
        let mut extents = Vec::new();
        for piece in &self.0 {
            if let Piece::Data(data) = piece {
                extents.push((at, data.as_slice()));
            }
            at += piece.size();
        }
        extents
    }
}

impl Piece {
    fn size(&self) -> u64 {
        match self {
            Piece::Data(data) => data.len() as u64,
            Piece::Hole(size) => *size,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File(Content),
    Link(Vec<u8>),
    Symlink(Vec<u8>),
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: When,
    pub xattrs: Xattrs,
    /// How to write it: `pax`, `sparse-1.0`, `type=5`, … (see `layer.rs`).
    pub dialect: Vec<String>,
}

impl Entry {
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind) -> Self {
        let mode = match kind {
            Kind::Dir => 0o755,
            Kind::Symlink(_) => 0o777,
            _ => 0o644,
        };
        let path = path.into();
        Entry { path, kind, mode, uid: 0, gid: 0, time: When::At(USUAL), xattrs: Xattrs::new(), dialect: Vec::new() }
    }

    pub fn is(&self, directive: &str) -> bool {
        self.dialect.iter().any(|each| each == directive)
    }

    /// What follows `NAME=` in a directive.
    pub fn directive(&self, name: &str) -> Option<&str> {
        self.dialect.iter().find_map(|each| each.strip_prefix(name)?.strip_prefix('='))
    }
}
