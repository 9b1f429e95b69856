use std::collections::BTreeMap;
use std::fmt;

use super::view::View;
use crate::error::Result;
use crate::model::{Metadata, Quoted};
use crate::tree::{Inode, InodeId, Kind, Tree, Walk};

/// One name.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// From the root, without a slash before it; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Owner, permissions, time, extended attributes.
    pub metadata: &'a Metadata,
    /// The layer that it is from, counted from 1: of a directory the newest that wrote it or anything in it. `None` where
    /// the source is not an image of layers.
    pub layer: Option<u32>,
    /// The first name of the same file that was given, where this is another one.
    pub link_to: Option<Vec<u8>>,
}

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind<'a> {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes that it reads as.
        size: u64,
    },
    /// A symbolic link and its target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
}

/// The numbers of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl<'a> EntryKind<'a> {
    /// A word for it.
    pub fn word(&self) -> &'static str {
        match self {
            EntryKind::Directory => "directory",
            EntryKind::File { .. } => "file",
            EntryKind::Symlink(_) => "symbolic link",
            EntryKind::Fifo => "named pipe",
            EntryKind::CharDevice(_) => "character device",
            EntryKind::BlockDevice(_) => "block device",
        }
    }

    /// What an inode is.
    pub fn of(kind: &'a Kind) -> Self {
        match kind {
            Kind::Directory(_) => EntryKind::Directory,
            Kind::File(data) => EntryKind::File { size: data.size },
            Kind::Symlink(target) => EntryKind::Symlink(target),
            Kind::Fifo => EntryKind::Fifo,
            Kind::CharDevice { major, minor } => EntryKind::CharDevice(Device { major: *major, minor: *minor }),
            Kind::BlockDevice { major, minor } => EntryKind::BlockDevice(Device { major: *major, minor: *minor }),
        }
    }
}

/// What it is, for people: `file, 12 bytes`.
impl fmt::Display for EntryKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            EntryKind::File { size: 1 } => f.write_str(", 1 byte"),
            EntryKind::File { size } => write!(f, ", {size} bytes"),
            EntryKind::Symlink(target) => write!(f, " to {}", Quoted(target)),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                write!(f, " {}:{}", device.major, device.minor)
            }
            EntryKind::Directory | EntryKind::Fifo => Ok(()),
        }
    }
}

/// Names from some path on, parents before what is in them, bytewise.
pub struct Entries<'a> {
    view: &'a View,
    walk: Walk<'a>,
    /// Slashes in the paths that are given at most.
    depth_max: usize,
    first_names: BTreeMap<InodeId, Vec<u8>>,
}

impl View {
    /// The name at `path` and all below it, `depth` levels deep where that is given.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`](crate::ErrorKind) when there is no such name.
    pub fn entries(&self, path: &[u8], depth: Option<usize>) -> Result<Entries<'_>> {
        let first = self.find(path, false)?;
        let base = level(&first.path);
        let depth_max = depth.map_or(usize::MAX, |depth| base.saturating_add(depth));
        Ok(Entries { view: self, walk: self.tree().walk_from(first), depth_max, first_names: BTreeMap::new() })
    }
}

/// How deep a path lies: 0 for the root.
pub(super) fn level(path: &[u8]) -> usize {
    if path.is_empty() { 0 } else { 1 + path.iter().filter(|&&byte| byte == b'/').count() }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let depth_max = self.depth_max;
        let visit = self.walk.find(|visit| level(&visit.path) <= depth_max)?;
        let tree: &'a Tree = self.view.tree();
        let Inode { kind, metadata, links } = tree.inode(visit.inode);
        let link_to = self.first_names.get(&visit.inode).cloned();
        if link_to.is_none() && *links > 1 {
            self.first_names.insert(visit.inode, visit.path.clone());
        }
        let layer = self.view.layer_number(visit.layer);
        Some(Entry { path: visit.path, kind: EntryKind::of(kind), metadata, layer, link_to })
    }
}
