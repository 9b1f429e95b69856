//! Data blocks, fragments and the contents of files.

use std::io::Write;

use super::inode::{FileInode, Inode, InodeKind};
use super::metadata::Cursor;
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

/// A part of a file that is stored in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its length in the file, in bytes: a block's, or less at the end of the file.
    pub bytes: u32,
    pub(super) stored: Stored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Hole,
    Block(Block),
    /// From `offset` on in the fragment block with this number.
    Fragment {
        number: u32,
        offset: u32,
    },
}

impl Stretch {
    /// Whether it is not stored because it is zeros.
    pub fn is_hole(&self) -> bool {
        self.stored == Stored::Hole
    }
}

/// See [`Image::stretches`]. The first error ends it.
pub struct Stretches<'a, I> {
    pub(super) image: &'a Image<I>,
    pub(super) words: Cursor<'a>,
    pub(super) start: u64,
    pub(super) left_blocks: u64,
    pub(super) left_bytes: u64,
    pub(super) tail: Option<(u32, u32)>,
}

impl<I: Input> Iterator for Stretches<'_, I> {
    type Item = Result<Stretch>;

    fn next(&mut self) -> Option<Result<Stretch>> {
        let bytes = self.left_bytes.min(self.image.superblock.block_size.into()) as u32;
        self.left_bytes -= u64::from(bytes);
        if self.left_blocks == 0 {
            let (number, offset) = self.tail.take()?;
            return Some(Ok(Stretch { bytes, stored: Stored::Fragment { number, offset } }));
        }
        self.left_blocks -= 1;
        let stretch = self.block(bytes);
        if stretch.is_err() {
            (self.left_blocks, self.tail) = (0, None);
        }
        Some(stretch)
    }
}

impl<I: Input> Stretches<'_, I> {
    fn block(&mut self, bytes: u32) -> Result<Stretch> {
        let word = self.words.word(self.image)?;
        if word == 0 {
            return Ok(Stretch { bytes, stored: Stored::Hole });
        }
        let block = Block { start: self.start, word, raw_min: bytes, raw_max: bytes };
        self.image.check_block(&block)?;
        self.start += u64::from(block.stored_bytes());
        Ok(Stretch { bytes, stored: Stored::Block(block) })
    }
}

/// What is kept from block to block: one for each thread that reads.
pub struct BlockReader {
    decompressor: Decompressor,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl BlockReader {
    /// The bytes of a compressed block, which is `stored`.
    pub(super) fn decode(&mut self, block: &Block, stored: &[u8]) -> Result<&[u8]> {
        decode(block, stored, &mut self.decompressor, &mut self.raw)
    }
}

fn decode<'a>(block: &Block, stored: &[u8], decompressor: &mut Decompressor, raw: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let decoded = decompressor.decompress(stored, block.raw_max as usize, raw);
    decoded.map_err(|what| damaged(block.start, format!("a data block: {what}")))?;
    expect_length(block, raw)
}

fn expect_length<'a>(block: &Block, bytes: &'a [u8]) -> Result<&'a [u8]> {
    if bytes.len() < block.raw_min as usize || bytes.len() > block.raw_max as usize {
        let message = format!("a data block holds {} bytes instead of {}", bytes.len(), block.raw_min);
        return Err(damaged(block.start, message));
    }
    Ok(bytes)
}

impl<I: Input> Image<I> {
    /// The stretches of a file in order, as they are stored. Nothing is read but the inode's own block list.
    pub fn stretches<'a>(&'a self, file: &FileInode) -> Stretches<'a, I> {
        Stretches {
            image: self,
            words: self.inodes.cursor(file.blocks_address),
            start: file.start,
            left_blocks: file.block_count,
            left_bytes: file.size,
            tail: file.fragment.filter(|_| self.tail_bytes(file) > 0),
        }
    }

    /// Hands the blocks of a file to `visit`: those that are stored, and `None` for each that is a hole.
    pub(super) fn for_each_block(
        &self,
        file: &FileInode,
        mut visit: impl FnMut(Option<Block>, u32) -> Result<()>,
    ) -> Result<()> {
        for stretch in self.stretches(&FileInode { fragment: None, ..file.clone() }) {
            match stretch? {
                Stretch { bytes, stored: Stored::Hole } => visit(None, bytes)?,
                Stretch { bytes, stored: Stored::Block(block) } => visit(Some(block), bytes)?,
                Stretch { stored: Stored::Fragment { .. }, .. } => {}
            }
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

    /// What one thread needs to read blocks.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn block_reader(&self) -> Result<BlockReader> {
        Ok(BlockReader { decompressor: Decompressor::new(self.codec)?, stored: Vec::new(), raw: Vec::new() })
    }

    /// The bytes of a block.
    pub(super) fn read_block<'a>(&self, block: &Block, reader: &'a mut BlockReader) -> Result<&'a [u8]> {
        let BlockReader { decompressor, stored, raw } = reader;
        stored.resize(block.stored_bytes() as usize, 0);
        self.read(stored, block.start)?;
        if block.is_compressed() { decode(block, stored, decompressor, raw) } else { expect_length(block, stored) }
    }

    /// Appends the bytes of a stretch to `out`. Fragment blocks, which many small files share, are kept in a small cache.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when the image is damaged there; [`ErrorKind::SourceUnavailable`] when it cannot be read.
    pub fn read_stretch(&self, stretch: &Stretch, reader: &mut BlockReader, out: &mut Vec<u8>) -> Result<()> {
        match &stretch.stored {
            Stored::Hole => out.resize(out.len() + stretch.bytes as usize, 0),
            Stored::Block(block) => out.extend_from_slice(self.read_block(block, reader)?),
            Stored::Fragment { number, offset } => {
                let block = self.fragment(*number)?;
                let bytes = self.fragments_read.get(*number, || self.read_block(&block, reader).map(<[u8]>::to_vec))?;
                let start = *offset as usize;
                let part = start.checked_add(stretch.bytes as usize).and_then(|end| bytes.get(start..end));
                let part = part.ok_or_else(|| damaged(block.start, format!("fragment {number} is too short")))?;
                out.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// Writes the contents of a regular file, holes as zeros.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when the image is damaged there, [`ErrorKind::Output`] when writing fails,
    /// [`ErrorKind::Usage`] when the inode is not a regular file.
    pub fn copy_file(&self, inode: &Inode, output: &mut dyn Write) -> Result<()> {
        let InodeKind::File(file) = &inode.kind else {
            return Err(Error::new(ErrorKind::Usage, format!("inode {} is not a regular file", inode.number)));
        };
        let mut reader = self.block_reader()?;
        let mut bytes = Vec::new();
        for stretch in self.stretches(file) {
            bytes.clear();
            self.read_stretch(&stretch?, &mut reader, &mut bytes)?;
            output.write_all(&bytes).or_kind(ErrorKind::Output)?;
        }
        Ok(())
    }

    /// How many bytes of a file are in its fragment.
    pub(super) fn tail_bytes(&self, file: &FileInode) -> u32 {
        (file.size % u64::from(self.superblock.block_size)) as u32
    }
}
