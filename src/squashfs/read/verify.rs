//! Checks everything that can be checked: see [`Image::verify`].

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::data::Block;
use super::entries::Entry;
use super::inode::{Inode, InodeKind};
use super::metadata::Table;
use super::{Image, Input, damaged};
use crate::error::{Error, Result, ResultExt};
use crate::io::{CHUNK_BYTES, Monitor};
use crate::model::Quoted;
use crate::squashfs::format::{FRAGMENT_ENTRY_BYTES, XATTR_ID_BYTES};

/// What was found in an image without fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Names, the root included.
    pub names: u64,
    /// Blocks of data and of fragments that were decompressed and had the right checksum and length.
    pub checked_blocks: u64,
    /// Blocks that are stored as they are. squashfs has no checksum for them: damage in them is not found.
    pub unprotected_blocks: u64,
    /// Bytes in those.
    pub unprotected_bytes: u64,
}

impl<I: Input> Image<I> {
    /// Reads all of the image and checks that it is whole: every metadata, data and fragment block decompresses to the
    /// length it must have, nothing overlaps or lies outside, names are in order, every inode has as many names as it
    /// says and stands where the export table says, and zeros follow the end.
    ///
    /// Not found: changed bytes in blocks that are stored uncompressed ([`Verified::unprotected_bytes`] says how many
    /// there are; most metadata of an image is compressed), and in numbers that may have any value, such as the
    /// superblock's time.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidImage`] naming the offset and the table, inode or path.
    pub fn verify(&self, threads: NonZeroUsize, monitor: &Monitor) -> Result<Verified> {
        self.verify_all(threads, monitor).doing(|| "verifying the squashfs")
    }

    fn verify_all(&self, threads: NonZeroUsize, monitor: &Monitor) -> Result<Verified> {
        self.verify_padding()?;
        self.verify_tables(monitor)?;
        let mut seen = Seen { image: self, inodes: BTreeMap::new(), blocks: BTreeMap::new(), names: 0 };
        for entry in self.entries() {
            monitor.check()?;
            let entry = entry?;
            seen.entry(&entry).doing(|| format!("checking {}", Quoted(&entry.path)))?;
        }
        seen.finish()?;
        let mut verified = Verified { names: seen.names, ..Verified::default() };
        for (block, _) in seen.blocks.values() {
            if block.is_compressed() {
                verified.checked_blocks += 1;
            } else {
                verified.unprotected_blocks += 1;
                verified.unprotected_bytes += u64::from(block.stored_bytes());
            }
        }
        let blocks: Vec<(Block, Owner)> = seen.blocks.into_values().collect();
        self.verify_blocks(&blocks, threads, monitor)?;
        Ok(verified)
    }

    fn verify_padding(&self) -> Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut position = self.superblock.bytes_used;
        while position < self.input.length() {
            let length = (self.input.length() - position).min(CHUNK_BYTES as u64);
            let chunk = &mut buffer[..length as usize];
            self.read(chunk, position)?;
            if let Some(at) = chunk.iter().position(|&byte| byte != 0) {
                return Err(damaged(position + at as u64, "something other than zeros follows the end"));
            }
            position += length;
        }
        Ok(())
    }

    /// Decodes all blocks of all tables and checks their lengths.
    fn verify_tables(&self, monitor: &Monitor) -> Result<()> {
        let superblock = &self.superblock;
        let fragments = u64::from(superblock.fragment_count) * FRAGMENT_ENTRY_BYTES as u64;
        self.verify_table(&self.inodes, None, monitor)?;
        self.verify_table(&self.directories, None, monitor)?;
        self.verify_table(&self.fragments, Some(fragments), monitor)?;
        if let Some(exports) = &self.exports {
            self.verify_table(exports, Some(u64::from(superblock.inode_count) * 8), monitor)?;
        }
        if let Some(xattrs) = &self.xattrs {
            self.verify_table(&xattrs.pairs, None, monitor)?;
            self.verify_table(&xattrs.sets, Some(u64::from(xattrs.set_count) * XATTR_ID_BYTES as u64), monitor)?;
            (0..xattrs.set_count).try_for_each(|set| self.xattr_set(set).map(drop))?;
        }
        Ok(())
    }

    fn verify_table(&self, table: &Table, expected_bytes: Option<u64>, monitor: &Monitor) -> Result<()> {
        let mut bytes = 0;
        for index in 0..table.starts.len() {
            monitor.check()?;
            bytes += self.payload(table, index)?.len() as u64;
        }
        match expected_bytes {
            Some(expected) if expected != bytes => {
                Err(damaged(table.base, format!("the {} holds {bytes} bytes instead of {expected}", table.name)))
            }
            _ => Ok(()),
        }
    }

    /// Decodes data blocks on several threads; of several broken ones, the first is reported.
    fn verify_blocks(&self, blocks: &[(Block, Owner)], threads: NonZeroUsize, monitor: &Monitor) -> Result<()> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || -> std::result::Result<(), (usize, Error)> {
            let mut reader = self.block_reader().map_err(|error| (0, error))?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some((block, _)) = blocks.get(number) else { return Ok(()) };
                monitor
                    .check()
                    .and_then(|()| self.read_block(block, &mut reader).map(drop))
                    .map_err(|e| (number, e))?;
                monitor.advance(block.stored_bytes().into());
            }
        };
        let note = |found: std::result::Result<(), (usize, Error)>| {
            let Err((number, error)) = found else { return };
            // The others stop: all blocks before this one are taken already.
            next.store(blocks.len(), Ordering::Relaxed);
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.as_ref().is_none_or(|(first, _)| number < *first) {
                *failure = Some((number, error));
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads.get() {
                // Where there may be no more threads, those that there are do it all.
                if std::thread::Builder::new().spawn_scoped(scope, || note(work())).is_err() {
                    break;
                }
            }
            note(work());
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some((number, error)) => Err(match blocks.get(number) {
                Some((_, owner)) => error.doing(self.describe(*owner)),
                None => error,
            }),
        }
    }

    /// Names a file that a block belongs to. This walks the image again: it is only done for messages.
    fn describe(&self, owner: Owner) -> String {
        let owns = |inode: &Inode| match (owner, &inode.kind) {
            (Owner::Inode(number), _) => inode.number == number,
            (Owner::Fragment(number), InodeKind::File(file)) => file.fragment.is_some_and(|(of, _)| of == number),
            _ => false,
        };
        let entry = self.entries().filter_map(Result::ok).find(|entry| owns(&entry.inode));
        let path = entry.map_or("?".to_string(), |entry| Quoted(&entry.path).to_string());
        match owner {
            Owner::Inode(_) => format!("checking the data of {path}"),
            Owner::Fragment(number) => format!("checking fragment {number}, which holds {path}"),
        }
    }
}

/// What a block was found through first.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Inode(u32),
    Fragment(u32),
}

/// What the walk has met.
struct Seen<'a, I> {
    image: &'a Image<I>,
    inodes: BTreeMap<u32, SeenInode>,
    /// By position; none overlaps another.
    blocks: BTreeMap<u64, (Block, Owner)>,
    names: u64,
}

struct SeenInode {
    address: u64,
    claimed_links: u32,
    /// For directories, directories in it and 2.
    found_links: u32,
}

impl<I: Input> Seen<'_, I> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.names += 1;
        let inode = &entry.inode;
        let position = self.image.inodes.position(inode.address);
        let is_directory = matches!(inode.kind, InodeKind::Directory(_));
        if let Some(seen) = self.inodes.get_mut(&inode.number) {
            if seen.address != inode.address || is_directory {
                return Err(damaged(position, format!("inode {} is there twice", inode.number)));
            }
            // The basic form of a file has no count: it stands for one name.
            seen.found_links = seen.found_links.saturating_add(1);
            return Ok(());
        }
        self.image.check_export(inode)?;
        let found_links = if is_directory { 2 } else { 1 };
        let seen = SeenInode { address: inode.address, claimed_links: inode.links, found_links };
        self.inodes.insert(inode.number, seen);
        match &inode.kind {
            InodeKind::Directory(directory) => {
                let is_root = entry.path.is_empty();
                let parent = if is_root { self.image.superblock.inode_count.wrapping_add(1) } else { entry.parent };
                if directory.parent != parent {
                    let message = format!("directory {} names {} as its parent", inode.number, directory.parent);
                    return Err(damaged(position, message));
                }
                if let Some(above) = self.inodes.get_mut(&entry.parent).filter(|_| !is_root) {
                    above.found_links = above.found_links.saturating_add(1);
                }
            }
            InodeKind::File(file) => self.file(inode.number, file, position)?,
            _ => {}
        }
        if let (Some(set), None) = (inode.xattrs, &self.image.xattrs) {
            return Err(damaged(position, format!("it has extended attribute set {set}, but there are none")));
        }
        self.image.xattrs(inode).map(drop)
    }

    fn file(&mut self, number: u32, file: &super::FileInode, position: u64) -> Result<()> {
        if file.sparse_bytes > file.size {
            return Err(damaged(position, format!("inode {number} has more holes than bytes")));
        }
        let image = self.image;
        image.for_each_block(file, |block, _| match block {
            Some(block) => self.block(block, Owner::Inode(number)),
            None => Ok(()),
        })?;
        let Some((fragment, offset)) = file.fragment else { return Ok(()) };
        let end = u64::from(offset) + u64::from(image.tail_bytes(file));
        if image.tail_bytes(file) == 0 || end > image.superblock.block_size.into() {
            return Err(damaged(position, format!("inode {number} has bytes up to {end} in fragment {fragment}")));
        }
        let block = Block { raw_min: end as u32, ..image.fragment(fragment)? };
        self.block(block, Owner::Fragment(fragment))
    }

    /// Notes a block. It may be met again, but only as the same block.
    fn block(&mut self, block: Block, owner: Owner) -> Result<()> {
        let end = block.start + u64::from(block.stored_bytes());
        if let Some((met, first_owner)) = self.blocks.get_mut(&block.start) {
            let same = (met.word, met.raw_max) == (block.word, block.raw_max)
                && matches!(*first_owner, Owner::Fragment(_)) == matches!(owner, Owner::Fragment(_));
            met.raw_min = met.raw_min.max(block.raw_min);
            return if same { Ok(()) } else { Err(damaged(block.start, "a block is described in two ways")) };
        }
        let before = self.blocks.range(..end).next_back();
        if before.is_some_and(|(start, (before, _))| start + u64::from(before.stored_bytes()) > block.start) {
            return Err(damaged(block.start, "two data blocks overlap"));
        }
        self.blocks.insert(block.start, (block, owner));
        Ok(())
    }

    /// Every inode was met, has as many names as it says, and every fragment is whole.
    fn finish(&mut self) -> Result<()> {
        let superblock = &self.image.superblock;
        if self.inodes.len() != superblock.inode_count as usize {
            let message = format!("{} inodes are counted, {} have a name", superblock.inode_count, self.inodes.len());
            return Err(damaged(4, message));
        }
        for (number, inode) in &self.inodes {
            if inode.claimed_links != inode.found_links {
                let (claimed, found) = (inode.claimed_links, inode.found_links);
                let message = format!("inode {number} says it has {claimed} links, but has {found}");
                return Err(damaged(self.image.inodes.position(inode.address), message));
            }
        }
        for number in 0..superblock.fragment_count {
            let block = self.image.fragment(number)?;
            if !self.blocks.contains_key(&block.start) {
                self.block(block, Owner::Fragment(number))?;
            }
        }
        Ok(())
    }
}

impl<I: Input> Image<I> {
    /// The export table must lead to the inode.
    fn check_export(&self, inode: &Inode) -> Result<()> {
        let Some(exports) = &self.exports else { return Ok(()) };
        let mut cursor = exports.cursor(u64::from(inode.number - 1) * 8);
        let reference = cursor.long(self)?;
        let named = self.inodes.address(reference >> 16, reference as u16)?;
        if named != inode.address {
            let message = format!("the export table does not lead to inode {}", inode.number);
            return Err(damaged(cursor.position(), message));
        }
        Ok(())
    }
}
