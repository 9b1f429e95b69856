use std::collections::{BTreeMap, BTreeSet};

use super::budget::Budget;
use super::layer::{Change, Node};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{EntryPath, Metadata, PATH_BYTES_MAX, Quoted, Timestamp};
use crate::tree::{Dentry, Directory, FileData, InodeId, Kind, Resolution, Tree};

/// Applies the changes of one layer to the tree, in the order of its tar.
///
/// # Errors
/// For what no runtime could unpack: a root that is not a directory, a loop of symlinks in a parent, a hard link whose target
/// never appears or is a directory.
pub(super) fn apply(tree: &mut Tree, changes: Vec<Change>, layer: u32, time: Timestamp, budget: &Budget) -> Result<()> {
    let first_of_layer = tree.inode_count();
    let (pending, purged) = (BTreeMap::new(), BTreeSet::new());
    let mut merger = Merger { tree, layer, time, budget, first_of_layer, purged, pending, parent: None };
    for change in changes {
        match change {
            Change::Whiteout { directory, name } => merger.whiteout(&directory, &name)?,
            Change::Opaque { directory } => merger.opaque(&directory)?,
            Change::Put { path, node, metadata } => {
                merger.put(&path, node, metadata).map_err(|error| error.doing(format!("entry {path}")))?;
            }
        }
    }
    merger.resolve_pending()
}

struct Merger<'a> {
    tree: &'a mut Tree,
    layer: u32,
    time: Timestamp,
    budget: &'a Budget,
    /// Inodes from this number on were made by this layer: whatever directories among them hold is of this layer.
    first_of_layer: usize,
    /// Older directories whose names are all of this layer, because it has removed those of lower ones.
    purged: BTreeSet<InodeId>,
    /// Hard links whose target had not been seen yet, by the inode that stands in for them.
    pending: BTreeMap<InodeId, PendingLink>,
    /// The last parent found: entries of one directory follow one another. Dropped when a directory or symlink goes.
    parent: Option<Parent>,
}

struct Parent {
    /// As entries write it.
    path: Box<[u8]>,
    directory: InodeId,
    /// By how many bytes it is longer when symlinks are followed.
    longer_bytes: u64,
}

struct PendingLink {
    path: EntryPath,
    target: EntryPath,
    directory: InodeId,
}

/// What a hard link's target is at the moment.
enum Target {
    /// A file of any kind.
    Found(InodeId),
    /// A hard link that waits for its own target.
    Pending(InodeId),
    /// Not there.
    Missing,
}

impl Merger<'_> {
    fn put(&mut self, path: &EntryPath, node: Node, metadata: Metadata) -> Result<()> {
        let Some((parent, name)) = path.split_last() else {
            return self.put_root(&node, metadata);
        };
        let kind = match node {
            Node::HardLink(target) => return self.put_link(path, target),
            Node::Directory => Kind::Directory(Directory::new()),
            Node::File(data) => Kind::File(data),
            Node::Symlink(target) => Kind::Symlink(target),
            Node::Fifo => Kind::Fifo,
            Node::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            Node::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
        };
        let directory = self.parent(parent)?;
        let existing = self.tree.lookup(directory, name);
        if let (Kind::Directory(_), Some(Dentry { inode, .. })) = (&kind, existing)
            && self.tree.directory(inode).is_some()
        {
            self.tree.inode_mut(inode).metadata = metadata;
            self.tree.touch(directory, name, self.layer);
            return Ok(());
        }
        let inode = self.tree.add(kind, metadata);
        self.attach(directory, name, inode);
        Ok(())
    }

    fn put_root(&mut self, node: &Node, metadata: Metadata) -> Result<()> {
        if !matches!(node, Node::Directory) {
            return Err(invalid("the root of an image must be a directory"));
        }
        self.tree.inode_mut(Tree::ROOT).metadata = metadata;
        Ok(())
    }

    fn put_link(&mut self, path: &EntryPath, target: EntryPath) -> Result<()> {
        let (parent, name) = path.split_last().unwrap_or_default();
        let directory = self.parent(parent)?;
        if let Target::Found(inode) = self.link_target(&target)? {
            let same = self.tree.lookup(directory, name).is_some_and(|existing| existing.inode == inode);
            if same {
                self.tree.touch(directory, name, self.layer);
            } else {
                self.attach(directory, name, inode);
            }
            return Ok(());
        }
        let stand_in = Kind::File(FileData::inline(&b""[..]));
        let placeholder = self.tree.add(stand_in, Metadata::root_owned(0, self.time));
        self.attach(directory, name, placeholder);
        self.pending.insert(placeholder, PendingLink { path: path.clone(), target, directory });
        Ok(())
    }

    /// What a hard link's target is now: parents are followed, the last part is not.
    fn link_target(&self, target: &EntryPath) -> Result<Target> {
        let Some((parent, name)) = target.split_last() else {
            return Err(invalid("a hard link to the root directory"));
        };
        let parent = self.follow(parent, "link target", target.as_bytes())?;
        let found = parent.inode.and_then(|directory| self.tree.lookup(directory, name));
        match found.map(|dentry| dentry.inode) {
            None => Ok(Target::Missing),
            Some(inode) if self.pending.contains_key(&inode) => Ok(Target::Pending(inode)),
            Some(inode) if self.tree.directory(inode).is_some() => {
                Err(invalid(format!("a hard link to the directory {target}")))
            }
            Some(inode) => Ok(Target::Found(inode)),
        }
    }

    /// Links before their targets are legal, and so are links to such links: each chain is followed to its end once.
    fn resolve_pending(mut self) -> Result<()> {
        while let Some(&placeholder) = self.pending.keys().next() {
            if self.stands(placeholder) {
                self.follow_chain(placeholder)?;
            } else {
                // A later entry of the layer took the name: the last one wins.
                self.pending.remove(&placeholder);
            }
        }
        Ok(())
    }

    /// Whether the name of a pending link still points at its placeholder.
    fn stands(&self, placeholder: InodeId) -> bool {
        let name_of = |link: &PendingLink| {
            let name = link.path.split_last().map(|(_, name)| name).unwrap_or_default();
            self.tree.lookup(link.directory, name)
        };
        self.pending.get(&placeholder).and_then(name_of).is_some_and(|dentry| dentry.inode == placeholder)
    }

    fn follow_chain(&mut self, first: InodeId) -> Result<()> {
        let mut chain = vec![first];
        let inode = loop {
            let link = &self.pending[&chain[chain.len() - 1]];
            let target = self.link_target(&link.target).map_err(|error| error.doing(format!("entry {}", link.path)))?;
            match target {
                Target::Found(inode) => break inode,
                // No chain of different links is longer than there are links.
                Target::Pending(next) if chain.len() <= self.pending.len() => chain.push(next),
                Target::Pending(_) | Target::Missing => {
                    let PendingLink { path, target, .. } = link;
                    return Err(invalid(format!("entry {path}: hard link to {target}, which does not exist"))
                        .hint("the layer is incomplete: build or save the image again"));
                }
            }
        };
        for placeholder in chain {
            let Some(link) = self.pending.remove(&placeholder) else { continue };
            let name = link.path.split_last().map(|(_, name)| name).unwrap_or_default();
            self.attach(link.directory, name, inode);
        }
        Ok(())
    }

    fn attach(&mut self, directory: InodeId, name: &[u8], inode: InodeId) {
        self.forget_parent_if_replaced(directory, name);
        self.tree.attach(directory, name, inode, self.layer);
    }

    /// The directory at `path`, made where it is missing, every part of it marked as written by this layer.
    fn parent(&mut self, path: &[u8]) -> Result<InodeId> {
        if let Some(Parent { path: known, directory, longer_bytes }) = &self.parent
            && **known == *path
        {
            self.budget.spend_longer(*longer_bytes)?;
            return Ok(*directory);
        }
        let resolved = self.resolve(path)?;
        let resolved_bytes = resolved.iter().map(|part| part.len() + 1).sum::<usize>();
        if resolved_bytes > PATH_BYTES_MAX {
            return Err(invalid(format!("directory {} leads to a path longer than 4,095 bytes", Quoted(path))));
        }
        let longer_bytes = resolved_bytes.saturating_sub(path.len() + 1) as u64;
        self.budget.spend_longer(longer_bytes)?;
        let (mut directory, mut path_bytes) = (Tree::ROOT, 0);
        for part in &resolved {
            path_bytes += part.len() as u64 + 1;
            directory = self.enter(directory, part, path_bytes)?;
        }
        self.parent = Some(Parent { path: path.into(), directory, longer_bytes });
        Ok(directory)
    }

    fn enter(&mut self, directory: InodeId, name: &[u8], path_bytes: u64) -> Result<InodeId> {
        if let Some(Dentry { inode, .. }) = self.tree.lookup(directory, name)
            && self.tree.directory(inode).is_some()
        {
            self.tree.touch(directory, name, self.layer);
            return Ok(inode);
        }
        self.budget.spend_implied(path_bytes)?;
        let metadata = Metadata::root_owned(0o755, self.time);
        let made = self.tree.add(Kind::Directory(Directory::new()), metadata);
        self.attach(directory, name, made);
        Ok(made)
    }

    fn resolve(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        Ok(self.follow(path, "directory", path)?.parts)
    }

    /// The directory at `path` where there is one.
    fn existing(&self, path: &[u8]) -> Result<Option<InodeId>> {
        let resolved = self.follow(path, "directory", path)?;
        Ok(resolved.inode.filter(|&inode| self.tree.directory(inode).is_some()))
    }

    /// Where `path` leads; `what` and `name` are for messages.
    fn follow(&self, path: &[u8], what: &str, name: &[u8]) -> Result<Resolution> {
        let named = |message: &dyn std::fmt::Display| invalid(format!("{what} {}: {message}", Quoted(name)));
        let resolved = self.tree.resolve(path).map_err(|error| named(&error))?;
        self.budget.follow(resolved.followed_bytes)?;
        Ok(resolved)
    }

    fn whiteout(&mut self, directory: &[u8], name: &[u8]) -> Result<()> {
        if let Some(directory) = self.existing(directory)? {
            self.purge(vec![(directory, name.into())]);
        }
        Ok(())
    }

    fn opaque(&mut self, directory: &[u8]) -> Result<()> {
        if let Some(directory) = self.existing(directory)? {
            let names = self.names_to_purge(directory);
            self.purge(names);
        }
        Ok(())
    }

    /// The names of a directory among which there may be some of lower layers. There are none once they have been removed:
    /// a layer that says so again and again costs no more than one that says it once.
    fn names_to_purge(&mut self, directory: InodeId) -> Vec<(InodeId, Box<[u8]>)> {
        if directory.index() >= self.first_of_layer || !self.purged.insert(directory) {
            return Vec::new();
        }
        let names = self.tree.directory(directory).into_iter().flat_map(|names| names.keys());
        names.map(|name| (directory, name.clone())).collect()
    }

    /// Removes names that lower layers wrote. What this layer wrote stays, and so do the directories that lead there; what
    /// lower layers put beside it goes.
    fn purge(&mut self, mut names: Vec<(InodeId, Box<[u8]>)>) {
        while let Some((directory, name)) = names.pop() {
            match self.tree.lookup(directory, &name) {
                Some(Dentry { layer, inode }) if layer == self.layer => names.extend(self.names_to_purge(inode)),
                Some(_) => {
                    self.forget_parent_if_replaced(directory, &name);
                    self.tree.detach(directory, &name);
                }
                None => {}
            }
        }
    }

    fn forget_parent_if_replaced(&mut self, directory: InodeId, name: &[u8]) {
        let replaced = self.tree.lookup(directory, name).map(|dentry| &self.tree.inode(dentry.inode).kind);
        if matches!(replaced, Some(Kind::Directory(_) | Kind::Symlink(_))) {
            self.parent = None;
        }
    }
}

fn invalid(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidImage, message)
}
