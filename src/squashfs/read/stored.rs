//! Blocks as they are stored, for whoever writes an image of the same blocks.

use sha2::{Digest as _, Sha256};

use super::data::{Block, BlockReader, Stored, Stretch, Stretches};
use super::inode::FileInode;
use super::{Image, Input};
use crate::error::Result;
use crate::squashfs::format::{
    Compression, FLAG_DATA_UNCOMPRESSED, FLAG_DUPLICATES, FLAG_FRAGMENTS_UNCOMPRESSED, compression_id,
};

/// A place in a file's list of blocks that reading can go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    /// The block's number in the file, from 0.
    pub block: u64,
    /// Where the first block from there on is that is stored.
    start: u64,
}

impl Resume {
    /// The first block of a file.
    pub fn first(file: &FileInode) -> Self {
        Resume { block: 0, start: file.start }
    }
}

impl<I: Input> Stretches<'_, I> {
    /// Where the next stretch of `file`, whose these are, can be had again.
    pub fn resume(&self, file: &FileInode) -> Resume {
        Resume { block: file.block_count - self.left_blocks.min(file.block_count), start: self.start }
    }
}

impl<I: Input> Image<I> {
    /// Whether its blocks may stand in an image that is written with this compression and block size: they were made by the
    /// same kind of compressor, at whatever level, and were not left uncompressed on purpose.
    pub fn has_blocks_for(&self, compression: Compression, block_size: u32) -> bool {
        let plain = FLAG_DATA_UNCOMPRESSED | FLAG_FRAGMENTS_UNCOMPRESSED;
        let superblock = &self.superblock;
        superblock.compression_id == compression_id(compression)
            && superblock.block_size == block_size
            && superblock.flags & plain == 0
    }

    /// Whether whoever wrote it looked for equal files: those that lie elsewhere then are others.
    pub fn shares_equal_files(&self) -> bool {
        self.superblock.flags & FLAG_DUPLICATES != 0
    }

    /// A digest of where the bytes of a file are: files for which it is the same have the same bytes.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidImage`] when its block list is damaged.
    pub fn place_digest(&self, file: &FileInode) -> Result<[u8; 32]> {
        let mut hasher = Sha256::new();
        hasher.update(file.size.to_le_bytes());
        for stretch in self.stretches(file) {
            let (start, word) = match stretch?.stored {
                Stored::Hole => (0, 0),
                Stored::Block(Block { start, word, .. }) => (start, word),
                // No word of a block is all ones.
                Stored::Fragment { number, offset } => (u64::from(number) << 32 | u64::from(offset), u32::MAX),
            };
            hasher.update(start.to_le_bytes());
            hasher.update(word.to_le_bytes());
        }
        Ok(hasher.finalize().into())
    }

    /// The stretches of a file from a block on.
    pub fn stretches_from<'a>(&'a self, file: &FileInode, from: Resume) -> Stretches<'a, I> {
        let before = from.block.min(file.block_count);
        let stretches = self.stretches(file);
        Stretches {
            words: self.inodes.cursor(file.blocks_address.saturating_add(4 * before)),
            start: from.start,
            left_blocks: stretches.left_blocks - before,
            left_bytes: stretches.left_bytes.saturating_sub(before * u64::from(self.superblock.block_size)),
            ..stretches
        }
    }

    /// Puts a block of a file into the start of `packed` as it is stored, and returns its length with the bit that says whether
    /// it is stored as it is; 0 for a hole. `None` where the stretch is not a block of its own, or is damaged: reading its bytes
    /// then tells how. With `checked` the block is decoded to find that out.
    ///
    /// # Errors
    /// [`crate::ErrorKind::SourceUnavailable`] when it cannot be read.
    pub fn stored_block(
        &self,
        stretch: &Stretch,
        checked: bool,
        reader: &mut BlockReader,
        packed: &mut Vec<u8>,
    ) -> Result<Option<u32>> {
        match &stretch.stored {
            Stored::Hole => Ok(Some(0)),
            Stored::Block(block) => self.take(block, checked, reader, packed),
            Stored::Fragment { .. } => Ok(None),
        }
    }

    /// The number of the fragment block that a stretch lies in, and its first byte there.
    pub fn fragment_of(&self, stretch: &Stretch) -> Option<(u32, u32)> {
        match stretch.stored {
            Stored::Fragment { number, offset } => Some((number, offset)),
            _ => None,
        }
    }

    /// The same of a fragment block, which must hold `bytes` bytes.
    ///
    /// # Errors
    /// As [`Image::stored_block`]; [`crate::ErrorKind::InvalidImage`] where there is no such fragment.
    pub fn stored_fragment(
        &self,
        number: u32,
        bytes: u32,
        checked: bool,
        reader: &mut BlockReader,
        packed: &mut Vec<u8>,
    ) -> Result<Option<u32>> {
        let block = self.fragment(number)?;
        self.take(&Block { raw_min: bytes, raw_max: bytes, ..block }, checked, reader, packed)
    }

    fn take(
        &self,
        block: &Block,
        checked: bool,
        reader: &mut BlockReader,
        packed: &mut Vec<u8>,
    ) -> Result<Option<u32>> {
        let length = block.stored_bytes() as usize;
        if !block.is_compressed() && length != block.raw_max as usize {
            return Ok(None);
        }
        if packed.len() < length {
            packed.resize(length, 0);
        }
        self.read(&mut packed[..length], block.start)?;
        let is_damaged = checked && block.is_compressed() && reader.decode(block, &packed[..length]).is_err();
        Ok((!is_damaged).then_some(block.word))
    }
}
