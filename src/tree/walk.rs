use std::collections::btree_map;

use super::{Dentry, Directory, InodeId, Tree};

/// One name on a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// Path from the root, parts separated by one slash; empty for the root.
    pub path: Vec<u8>,
    /// What the name points at.
    pub inode: InodeId,
    /// The newest layer that wrote the name or anything below it; 0 for the root.
    pub layer: u32,
}

type Names<'a> = btree_map::Iter<'a, Box<[u8]>, Dentry>;

/// Every name of a tree: parents before children, the names of a directory in bytewise order, a directory's contents
/// right after it. The walk is a loop over a stack of its own, so depth costs no call stack.
pub struct Walk<'a> {
    tree: &'a Tree,
    first: Option<Visit>,
    /// Directories that are being walked: how long their own path is, and the names still to come.
    stack: Vec<(usize, Names<'a>)>,
    path: Vec<u8>,
}

impl Tree {
    /// Walks all names in canonical order, the root first.
    pub fn walk(&self) -> Walk<'_> {
        self.walk_from(Visit { path: Vec::new(), inode: Tree::ROOT, layer: 0 })
    }

    /// Walks `first` and all names below it in canonical order.
    pub fn walk_from(&self, first: Visit) -> Walk<'_> {
        let path = first.path.clone();
        Walk { tree: self, first: Some(first), stack: Vec::new(), path }
    }
}

impl<'a> Walk<'a> {
    fn enter(&mut self, names: &'a Directory) {
        self.stack.push((self.path.len(), names.iter()));
    }

    fn visit(&mut self, inode: InodeId, layer: u32) -> Visit {
        let path = self.path.clone();
        if let Some(names) = self.tree.directory(inode) {
            self.enter(names);
        }
        Visit { path, inode, layer }
    }
}

impl Iterator for Walk<'_> {
    type Item = Visit;

    fn next(&mut self) -> Option<Visit> {
        if let Some(Visit { inode, layer, .. }) = self.first.take() {
            return Some(self.visit(inode, layer));
        }
        loop {
            let (parent_bytes, names) = self.stack.last_mut()?;
            self.path.truncate(*parent_bytes);
            match names.next() {
                None => drop(self.stack.pop()),
                Some((name, dentry)) => {
                    if !self.path.is_empty() {
                        self.path.push(b'/');
                    }
                    self.path.extend_from_slice(name);
                    return Some(self.visit(dentry.inode, dentry.layer));
                }
            }
        }
    }
}
