use std::num::NonZeroU64;
use std::sync::Arc;

use super::Directory;
use crate::model::Metadata;

/// A file of any kind, without its name.
#[derive(Debug, Clone)]
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Owner, permissions, time, extended attributes.
    pub metadata: Metadata,
    /// How many names point here.
    pub links: u32,
}

impl Inode {
    pub(super) fn new(kind: Kind, metadata: Metadata) -> Self {
        Inode { kind, metadata, links: 0 }
    }
}

/// The kinds of file that tar and squashfs can hold.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory and its names.
    Directory(Directory),
    /// A regular file.
    File(FileData),
    /// A symbolic link and its target, any bytes.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// A regular file's size and where its bytes are.
#[derive(Debug, Clone)]
pub struct FileData {
    /// Apparent size in bytes.
    pub size: u64,
    /// Where the bytes are.
    pub content: Content,
    /// Which bytes they are, where they came from a layer.
    pub origin: Option<Origin>,
}

/// The place in a layer's tar where the bytes of a regular file come from. With the layer's digest it names the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The layer, counted from the lowest.
    pub layer: u32,
    /// First byte of its data, from the start of the uncompressed tar: behind a header, and so never 0.
    pub at: NonZeroU64,
}

/// Where a regular file's bytes are.
#[derive(Debug, Clone)]
pub enum Content {
    /// Here: small text that was made, or nothing.
    Inline(Arc<[u8]>),
    /// In one piece.
    Stored(Location),
    /// In pieces, in order and not overlapping; what no extent covers is zeros.
    Sparse(Box<[Extent]>),
}

/// A place in one of the open files that a flattened image reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Which file.
    pub file: FileId,
    /// First byte, from that file's start.
    pub offset: u64,
}

/// Names one of the open files that a flattened image reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A stretch of a sparse file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the file in the image.
    pub at: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where those bytes are.
    pub location: Location,
}

impl FileData {
    /// A file made of these bytes.
    pub fn inline(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        FileData { size: bytes.len() as u64, content: Content::Inline(bytes), origin: None }
    }
}
