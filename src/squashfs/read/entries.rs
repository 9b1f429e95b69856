//! A walk over all names of an image.

use std::collections::BTreeMap;

use super::directory::{Listing, Name};
use super::inode::{DirectoryInode, IndexEntry, Inode, InodeKind};
use super::{Image, Input, damaged};
use crate::error::{Result, ResultExt};
use crate::model::Quoted;

/// One name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the root, parts separated by one slash; empty for the root.
    pub path: Vec<u8>,
    /// What the name points at.
    pub inode: Inode,
    /// Number of the directory that the name is in; for the root, its own.
    pub parent: u32,
}

/// Longest path, in bytes. It only bounds what a hostile image can make us copy.
const PATH_BYTES_MAX: usize = 1 << 20;

/// All names of an image: directories before what is in them, names in bytewise order. The first error ends it.
pub struct Entries<'a, I> {
    image: &'a Image<I>,
    root_is_next: bool,
    stack: Vec<OpenDirectory<'a>>,
    path: Vec<u8>,
    /// Listings that were met, by address, with their ends: directories share nothing, so a walk ends.
    listings: BTreeMap<u64, u64>,
}

struct OpenDirectory<'a> {
    number: u32,
    path_bytes: usize,
    listing: Listing<'a>,
    /// What the index should say.
    index: std::vec::IntoIter<IndexEntry>,
}

impl<I: Input> Image<I> {
    /// Walks all names.
    pub fn entries(&self) -> Entries<'_, I> {
        Entries { image: self, root_is_next: true, stack: Vec::new(), path: Vec::new(), listings: BTreeMap::new() }
    }
}

impl<I: Input> Iterator for Entries<'_, I> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let next = self.advance();
        if next.is_err() {
            self.stack.clear();
            self.root_is_next = false;
        }
        next.transpose()
    }
}

impl<'a, I: Input> Entries<'a, I> {
    fn advance(&mut self) -> Result<Option<Entry>> {
        if std::mem::take(&mut self.root_is_next) {
            let inode = self.image.root()?;
            let parent = inode.number;
            return self.enter(inode, parent).map(Some);
        }
        while let Some(open) = self.stack.last_mut() {
            self.path.truncate(open.path_bytes);
            let named = open.next(self.image).doing(|| format!("reading the directory {}", Quoted(&self.path)))?;
            let Some(name) = named else {
                self.stack.pop();
                continue;
            };
            let parent = open.number;
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name.name);
            return self.visit(&name, parent).doing(|| format!("reading {}", Quoted(&self.path))).map(Some);
        }
        Ok(None)
    }

    fn visit(&mut self, name: &Name, parent: u32) -> Result<Entry> {
        let inode = self.image.inode_at(name.inode_block.into(), name.inode_offset)?;
        let position = self.image.inodes.position(inode.address);
        if self.path.len() > PATH_BYTES_MAX {
            return Err(damaged(position, "directories are nested too deep"));
        }
        if (inode.number, inode.basic_kind()) != (name.number, name.kind) {
            let (number, kind) = (name.number, name.kind);
            let message =
                format!("inode {} of kind {} is named as {number} of kind {kind}", inode.number, inode.basic_kind());
            return Err(damaged(position, message));
        }
        self.enter(inode, parent)
    }

    fn enter(&mut self, inode: Inode, parent: u32) -> Result<Entry> {
        if let InodeKind::Directory(directory) = &inode.kind {
            let listing = self.claim(directory)?;
            let index = self.image.directory_index(directory)?.into_iter();
            self.stack.push(OpenDirectory { number: inode.number, path_bytes: self.path.len(), listing, index });
        }
        Ok(Entry { path: self.path.clone(), inode, parent })
    }

    fn claim(&mut self, directory: &DirectoryInode) -> Result<Listing<'a>> {
        let listing = self.image.listing(directory)?;
        let (start, end) = listing.range();
        if start < end {
            let before = self.listings.range(..end).next_back();
            if before.is_some_and(|(_, &before_end)| before_end > start) {
                let position = self.image.directories.position(start);
                return Err(damaged(position, "two directories share a part of their listings"));
            }
            self.listings.insert(start, end);
        }
        Ok(listing)
    }
}

impl OpenDirectory<'_> {
    /// The next name. An entry of the index must stand for a header, and for the first name after it.
    fn next<I: Input>(&mut self, image: &Image<I>) -> Result<Option<Name>> {
        let name = self.listing.next(image)?;
        let Some(expected) = self.index.as_slice().first() else { return Ok(name) };
        let position = image.directories.position(self.listing.range().0);
        let wrong = || damaged(position, "a directory's index does not fit its listing");
        let Some(name) = name else { return Err(wrong()) };
        if let Some(at) = name.header_at.filter(|&at| at >= u64::from(expected.byte)) {
            let header_block = image.directories.position(self.listing.range().0 + at) - image.directories.base;
            if (at, header_block) != (expected.byte.into(), expected.block.into()) || expected.name != name.name {
                return Err(wrong());
            }
            self.index.next();
        }
        Ok(Some(name))
    }
}
