//! Data blocks, fragments and the contents of files.

use std::io::Write;

use super::inode::{FileInode, Inode, InodeKind};
use super::{Image, Input, damaged};
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::squashfs::codec::Decompressor;
use crate::squashfs::format::{DATA_STORED, FRAGMENT_ENTRY_BYTES, SUPERBLOCK_BYTES};

/// A stored block: where it is, its length word, and how many bytes it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) start: u64,
    pub(super) word: u32,
    /// Fewest and most bytes that may come out.
    pub(super) raw_min: u32,
    pub(super) raw_max: u32,
}

impl Block {
    /// Bytes it takes in the image.
    pub(super) fn stored_bytes(&self) -> u32 {
        self.word & !DATA_STORED
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.word & DATA_STORED == 0
    }
}

/// What is kept from block to block.
pub(super) struct BlockReader {
    decompressor: Decompressor,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl<I: Input> Image<I> {
    /// Hands the blocks of a file to `visit`: those that are stored, and `None` for each that is a hole.
    pub(super) fn for_each_block(
        &self,
        file: &FileInode,
        mut visit: impl FnMut(Option<Block>, u32) -> Result<()>,
    ) -> Result<()> {
        let block_size = self.superblock.block_size;
        let mut words = self.inodes.cursor(file.blocks_address);
        let mut start = file.start;
        for number in 0..file.block_count {
            let word = words.word(self)?;
            let raw = (file.size - number * u64::from(block_size)).min(block_size.into()) as u32;
            if word == 0 {
                visit(None, raw)?;
                continue;
            }
            let block = Block { start, word, raw_min: raw, raw_max: raw };
            self.check_block(&block)?;
            start += u64::from(block.stored_bytes());
            visit(Some(block), raw)?;
        }
        Ok(())
    }

    /// The fragment block with this number.
    pub(super) fn fragment(&self, number: u32) -> Result<Block> {
        if number >= self.superblock.fragment_count {
            let message = format!("there is no fragment {number}, only {}", self.superblock.fragment_count);
            return Err(damaged(self.superblock.fragment_table, message));
        }
        let mut cursor = self.fragments.cursor(u64::from(number) * FRAGMENT_ENTRY_BYTES as u64);
        let position = cursor.position();
        let (start, word, unused) = (cursor.long(self)?, cursor.word(self)?, cursor.word(self)?);
        let block = Block { start, word, raw_min: 1, raw_max: self.superblock.block_size };
        if word == 0 || unused != 0 {
            return Err(damaged(position, format!("the entry of fragment {number} makes no sense")));
        }
        self.check_block(&block)?;
        Ok(block)
    }

    /// A block must lie before the tables, and not be longer than what it holds.
    fn check_block(&self, block: &Block) -> Result<()> {
        let end = block.start.checked_add(block.stored_bytes().into());
        let inside = block.start >= SUPERBLOCK_BYTES && end.is_some_and(|end| end <= self.superblock.inode_table);
        if !inside || block.stored_bytes() == 0 || block.stored_bytes() > block.raw_max {
            let message = format!("a data block there (length word 0x{:08x}) is not inside the data", block.word);
            return Err(damaged(block.start, message));
        }
        Ok(())
    }

    pub(super) fn block_reader(&self) -> Result<BlockReader> {
        Ok(BlockReader { decompressor: Decompressor::new(self.compression)?, stored: Vec::new(), raw: Vec::new() })
    }

    /// The bytes of a block.
    pub(super) fn read_block<'a>(&self, block: &Block, reader: &'a mut BlockReader) -> Result<&'a [u8]> {
        let BlockReader { decompressor, stored, raw } = reader;
        stored.resize(block.stored_bytes() as usize, 0);
        self.read(stored, block.start)?;
        let bytes = if block.is_compressed() {
            let decoded = decompressor.decompress(stored, block.raw_max as usize, raw);
            decoded.map_err(|what| damaged(block.start, format!("a data block: {what}")))?;
            raw
        } else {
            stored
        };
        if bytes.len() < block.raw_min as usize || bytes.len() > block.raw_max as usize {
            let message = format!("a data block holds {} bytes instead of {}", bytes.len(), block.raw_min);
            return Err(damaged(block.start, message));
        }
        Ok(bytes)
    }

    /// Writes the contents of a regular file, holes as zeros.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when the image is damaged there, [`ErrorKind::Output`] when writing fails,
    /// [`ErrorKind::Usage`] when the inode is no regular file.
    pub fn copy_file(&self, inode: &Inode, output: &mut dyn Write) -> Result<()> {
        let InodeKind::File(file) = &inode.kind else {
            return Err(Error::new(ErrorKind::Usage, format!("inode {} is no regular file", inode.number)));
        };
        let mut reader = self.block_reader()?;
        let zeros = vec![0; self.superblock.block_size as usize];
        self.for_each_block(file, |block, length| {
            let bytes = match &block {
                Some(block) => self.read_block(block, &mut reader)?,
                None => &zeros[..length as usize],
            };
            output.write_all(bytes).or_kind(ErrorKind::Output)
        })?;
        if let Some((number, offset)) = file.fragment {
            let block = self.fragment(number)?;
            let (start, length) = (offset as usize, self.tail_bytes(file) as usize);
            let bytes = self.read_block(&block, &mut reader)?;
            let tail = start.checked_add(length).and_then(|end| bytes.get(start..end));
            let tail = tail.ok_or_else(|| damaged(block.start, format!("fragment {number} is too short")))?;
            output.write_all(tail).or_kind(ErrorKind::Output)?;
        }
        Ok(())
    }

    /// How many bytes of a file are in its fragment.
    pub(super) fn tail_bytes(&self, file: &FileInode) -> u32 {
        (file.size % u64::from(self.superblock.block_size)) as u32
    }
}
