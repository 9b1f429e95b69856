use std::collections::BTreeSet;

use super::layer::{Change, Node};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{EntryPath, Metadata, Quoted, Timestamp};
use crate::tree::{Dentry, Directory, FileData, InodeId, Kind, Tree};

/// Applies the changes of one layer to the tree, in the order of its tar.
///
/// # Errors
/// For what no runtime could unpack: a root that is no directory, a loop of symlinks in a parent, a hard link whose target
/// never appears or is a directory.
pub(super) fn apply(tree: &mut Tree, changes: Vec<Change>, layer: u32, time: Timestamp) -> Result<()> {
    let mut merger = Merger { tree, layer, time, pending: Vec::new(), placeholders: BTreeSet::new(), parent: None };
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
    /// Hard links whose target had not been seen yet.
    pending: Vec<PendingLink>,
    /// The inodes that stand in for them, so that a link to such a link is pending too.
    placeholders: BTreeSet<InodeId>,
    /// The last parent found: entries of one directory follow one another. Dropped when a directory or symlink goes.
    parent: Option<(Box<[u8]>, InodeId)>,
}

struct PendingLink {
    path: EntryPath,
    target: EntryPath,
    directory: InodeId,
    placeholder: InodeId,
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
        let found = self.link_target(&target)?;
        if let Some(inode) = found {
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
        self.placeholders.insert(placeholder);
        self.pending.push(PendingLink { path: path.clone(), target, directory, placeholder });
        Ok(())
    }

    /// What a hard link's target is now: parents are followed, the last part is not. `None` where it is not there yet.
    fn link_target(&self, target: &EntryPath) -> Result<Option<InodeId>> {
        let Some((parent, name)) = target.split_last() else {
            return Err(invalid("a hard link to the root directory"));
        };
        let parent = self.tree.resolve(parent).map_err(|error| invalid(format!("link target {target}: {error}")))?;
        let found = parent.inode.and_then(|directory| self.tree.lookup(directory, name)).map(|dentry| dentry.inode);
        match found {
            Some(inode) if self.placeholders.contains(&inode) => Ok(None),
            Some(inode) if self.tree.directory(inode).is_some() => {
                Err(invalid(format!("a hard link to the directory {target}")))
            }
            found => Ok(found),
        }
    }

    /// Links before their targets are legal; links to links need several rounds.
    fn resolve_pending(mut self) -> Result<()> {
        while !self.pending.is_empty() {
            let round = std::mem::take(&mut self.pending);
            let before = round.len();
            for link in round {
                self.resolve_link(link)?;
            }
            if self.pending.len() == before {
                let PendingLink { path, target, .. } = &self.pending[0];
                return Err(invalid(format!("entry {path}: hard link to {target}, which does not exist"))
                    .hint("the layer is incomplete: build or save the image again"));
            }
        }
        Ok(())
    }

    fn resolve_link(&mut self, link: PendingLink) -> Result<()> {
        let name = link.path.split_last().map(|(_, name)| name).unwrap_or_default();
        let current = self.tree.lookup(link.directory, name);
        if current.is_none_or(|dentry| dentry.inode != link.placeholder) {
            // A later entry of the layer took the name: last wins.
            self.placeholders.remove(&link.placeholder);
            return Ok(());
        }
        let target = self.link_target(&link.target).map_err(|error| error.doing(format!("entry {}", link.path)))?;
        match target {
            Some(inode) => {
                self.placeholders.remove(&link.placeholder);
                self.attach(link.directory, name, inode);
            }
            None => self.pending.push(link),
        }
        Ok(())
    }

    fn attach(&mut self, directory: InodeId, name: &[u8], inode: InodeId) {
        self.forget_parent_if_replaced(directory, name);
        self.tree.attach(directory, name, inode, self.layer);
    }

    /// The directory at `path`, made where it is missing, every part of it marked as written by this layer.
    fn parent(&mut self, path: &[u8]) -> Result<InodeId> {
        if let Some((known, directory)) = &self.parent
            && **known == *path
        {
            return Ok(*directory);
        }
        let resolved = self.resolve(path)?;
        let mut directory = Tree::ROOT;
        for part in &resolved {
            directory = self.enter(directory, part);
        }
        self.parent = Some((path.into(), directory));
        Ok(directory)
    }

    fn enter(&mut self, directory: InodeId, name: &[u8]) -> InodeId {
        match self.tree.lookup(directory, name) {
            Some(Dentry { inode, .. }) if self.tree.directory(inode).is_some() => {
                self.tree.touch(directory, name, self.layer);
                inode
            }
            _ => {
                let metadata = Metadata::root_owned(0o755, self.time);
                let made = self.tree.add(Kind::Directory(Directory::new()), metadata);
                self.attach(directory, name, made);
                made
            }
        }
    }

    fn resolve(&self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let resolved = self.tree.resolve(path);
        Ok(resolved.map_err(|error| invalid(format!("directory {}: {error}", Quoted(path))))?.parts)
    }

    /// The directory at `path` where there is one.
    fn existing(&self, path: &[u8]) -> Result<Option<InodeId>> {
        let resolved = self.tree.resolve(path);
        let resolved = resolved.map_err(|error| invalid(format!("directory {}: {error}", Quoted(path))))?;
        Ok(resolved.inode.filter(|&inode| self.tree.directory(inode).is_some()))
    }

    fn whiteout(&mut self, directory: &[u8], name: &[u8]) -> Result<()> {
        if let Some(directory) = self.existing(directory)? {
            self.purge(vec![(directory, name.into())]);
        }
        Ok(())
    }

    fn opaque(&mut self, directory: &[u8]) -> Result<()> {
        if let Some(directory) = self.existing(directory)? {
            let names = self.names(directory);
            self.purge(names);
        }
        Ok(())
    }

    fn names(&self, directory: InodeId) -> Vec<(InodeId, Box<[u8]>)> {
        let names = self.tree.directory(directory).into_iter().flat_map(|names| names.keys());
        names.map(|name| (directory, name.clone())).collect()
    }

    /// Removes names that lower layers wrote. What this layer wrote stays, and so do the directories that lead there; what
    /// lower layers put beside it goes.
    fn purge(&mut self, mut names: Vec<(InodeId, Box<[u8]>)>) {
        while let Some((directory, name)) = names.pop() {
            match self.tree.lookup(directory, &name) {
                Some(Dentry { layer, inode }) if layer == self.layer => names.extend(self.names(inode)),
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
