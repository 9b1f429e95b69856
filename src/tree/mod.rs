//! The merged file system as data: where bytes are, never the bytes (but for small ones that were made, not read).
//!
//! The idea to hold: a directory holds names, a name points at an inode, and a hard link is two names with one inode.
//! Nothing here knows of layers' files, archives or output formats.

mod dump;
mod inode;
mod resolve;
mod walk;

use std::collections::BTreeMap;

pub use inode::{Content, Extent, FileData, FileId, Inode, Kind, Location, Origin};
pub use resolve::{LoopError, Resolution};
pub use walk::{Visit, Walk};

use crate::model::{Metadata, Timestamp};

/// Names an [`Inode`] of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeId(u32);

impl InodeId {
    /// The number, for tables indexed by inode.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dentry {
    /// What the name points at.
    pub inode: InodeId,
    /// The newest layer that wrote this name or anything below it.
    pub layer: u32,
}

/// Names in bytewise order.
pub type Directory = BTreeMap<Box<[u8]>, Dentry>;

/// A file system in memory. The root always exists and is a directory.
#[derive(Debug, Clone)]
pub struct Tree {
    inodes: Vec<Inode>,
}

/// The layer number of names that were made by us rather than read from a layer.
pub const MADE: u32 = u32::MAX;

impl Default for Tree {
    fn default() -> Self {
        Tree::new(Timestamp::default())
    }
}

impl Tree {
    /// The root directory's inode.
    pub const ROOT: InodeId = InodeId(0);

    /// A tree whose root is an empty directory 0755 0:0 of the given time.
    pub fn new(root_time: Timestamp) -> Self {
        let root = Inode::new(Kind::Directory(Directory::new()), Metadata::root_owned(0o755, root_time));
        Tree { inodes: vec![Inode { links: 1, ..root }] }
    }

    /// How many inodes were ever added; ids are below this.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// The inode.
    pub fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// The inode, to be changed. Its kind may change only between non-directories.
    pub fn inode_mut(&mut self, id: InodeId) -> &mut Inode {
        &mut self.inodes[id.index()]
    }

    /// All inodes, also those without a name.
    pub fn inodes_mut(&mut self) -> impl Iterator<Item = &mut Inode> {
        self.inodes.iter_mut()
    }

    /// The names in `id`, where it is a directory.
    pub fn directory(&self, id: InodeId) -> Option<&Directory> {
        match &self.inode(id).kind {
            Kind::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// The dentry of `name` in `directory`.
    pub fn lookup(&self, directory: InodeId, name: &[u8]) -> Option<Dentry> {
        self.directory(directory)?.get(name).copied()
    }

    /// The inode at a path of plain parts, no symlink followed.
    pub fn get(&self, path: &[u8]) -> Option<InodeId> {
        let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
        parts.into_iter().try_fold(Tree::ROOT, |directory, part| Some(self.lookup(directory, part)?.inode))
    }

    /// Bytes of all regular files that have a name, each counted once.
    pub fn file_bytes(&self) -> u64 {
        let bytes = |inode: &Inode| match &inode.kind {
            Kind::File(data) if inode.links > 0 => data.size,
            _ => 0,
        };
        self.inodes.iter().map(bytes).fold(0, u64::saturating_add)
    }

    /// Adds an inode that has no name yet.
    ///
    /// # Panics
    /// Past 4 Gi inodes; readers bound the number of entries far below that.
    pub fn add(&mut self, kind: Kind, metadata: Metadata) -> InodeId {
        assert!(self.inodes.len() < u32::MAX as usize, "more than 4 Gi inodes");
        self.inodes.push(Inode::new(kind, metadata));
        InodeId(self.inodes.len() as u32 - 1)
    }

    /// Gives `inode` the name `name` in `directory`; what had the name before loses it, with all below it.
    ///
    /// # Panics
    /// When `directory` is not a directory: callers make sure of it first.
    pub fn attach(&mut self, directory: InodeId, name: &[u8], inode: InodeId, layer: u32) {
        self.inode_mut(inode).links += 1;
        let replaced = self.names_mut(directory).insert(name.into(), Dentry { inode, layer });
        if let Some(old) = replaced {
            self.release(old.inode);
        }
    }

    /// Takes `name` out of `directory`, with all below it. Returns whether it was there.
    pub fn detach(&mut self, directory: InodeId, name: &[u8]) -> bool {
        let removed = self.names_mut(directory).remove(name);
        removed.inspect(|old| self.release(old.inode)).is_some()
    }

    /// Takes `name` out of `directory`, for another place: what is below it stays below it.
    pub fn take(&mut self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        let taken = self.names_mut(directory).remove(name)?.inode;
        self.inode_mut(taken).links -= 1;
        Some(taken)
    }

    /// Marks `name` as written by `layer`.
    pub fn touch(&mut self, directory: InodeId, name: &[u8], layer: u32) {
        if let Some(dentry) = self.names_mut(directory).get_mut(name) {
            dentry.layer = layer;
        }
    }

    fn names_mut(&mut self, directory: InodeId) -> &mut Directory {
        match &mut self.inode_mut(directory).kind {
            Kind::Directory(names) => names,
            _ => panic!("inode {directory:?} is not a directory"),
        }
    }

    /// One name less for `inode`; a directory that lost its name lets go of everything below it. Not recursive: a
    /// hostile tree may be very deep.
    fn release(&mut self, inode: InodeId) {
        let mut pending = vec![inode];
        while let Some(id) = pending.pop() {
            let inode = self.inode_mut(id);
            inode.links -= 1;
            if let Kind::Directory(names) = &mut inode.kind {
                pending.extend(std::mem::take(names).into_values().map(|dentry| dentry.inode));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_files_with_a_name_are_counted_once() {
        let mut tree = Tree::default();
        let metadata = || Metadata::root_owned(0o644, Timestamp::default());
        let [named, unnamed] =
            [&b"four"[..], b"seven77"].map(|text| tree.add(Kind::File(FileData::inline(text)), metadata()));
        tree.attach(Tree::ROOT, b"one", named, 0);
        tree.attach(Tree::ROOT, b"two", named, 0);
        assert_eq!(tree.file_bytes(), 4);
        tree.inodes_mut().for_each(|inode| inode.metadata.uid = 7);
        assert!([Tree::ROOT, named, unnamed].iter().all(|&id| tree.inode(id).metadata.uid == 7));
        tree.attach(Tree::ROOT, b"two", unnamed, 1);
        assert_eq!(tree.file_bytes(), 11);
        assert!(tree.detach(Tree::ROOT, b"one") && !tree.detach(Tree::ROOT, b"one"));
        assert_eq!(tree.file_bytes(), 7);
    }
}
