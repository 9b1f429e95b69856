//! Metadata blocks: 8 KiB of payload each, compressed where that helps, with their length in front.

use super::Store;
use super::output::Output;
use crate::error::Result;
use crate::squashfs::codec::Compressor;
use crate::squashfs::format::{Compression, METADATA_BYTES, METADATA_STORED};

/// A place in a table: where its block starts, counted from the start of the table, and where in the block's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) offset: u16,
}

impl Place {
    /// Both in one number, as the format wants it in many places.
    pub(super) fn reference(self) -> u64 {
        self.block << 16 | u64::from(self.offset)
    }
}

/// A table on its way into metadata blocks.
pub(super) struct MetadataWriter {
    compressor: Compressor,
    payload: Vec<u8>,
    packed: Vec<u8>,
    blocks: Vec<u8>,
    starts: Vec<u64>,
    /// What has left `blocks` already.
    drained_bytes: u64,
}

/// How many bytes of finished blocks are worth a write.
const DRAIN_BYTES: usize = 1 << 20;

impl MetadataWriter {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        Ok(MetadataWriter {
            compressor: Compressor::new(compression)?,
            payload: Vec::with_capacity(METADATA_BYTES),
            packed: Vec::new(),
            blocks: Vec::new(),
            starts: Vec::new(),
            drained_bytes: 0,
        })
    }

    /// Where the next byte will stand.
    pub(super) fn place(&self) -> Place {
        Place { block: self.drained_bytes + self.blocks.len() as u64, offset: self.payload.len() as u16 }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(METADATA_BYTES - self.payload.len()));
            self.payload.extend_from_slice(now);
            bytes = later;
            if self.payload.len() == METADATA_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<()> {
        self.starts.push(self.place().block);
        let (block, flag) = match self.compressor.compress(&self.payload, &mut self.packed)? {
            Some(length) => (&self.packed[..length], 0),
            None => (&self.payload[..], METADATA_STORED),
        };
        self.blocks.extend((block.len() as u16 | flag).to_le_bytes());
        self.blocks.extend_from_slice(block);
        self.payload.clear();
        Ok(())
    }

    /// Appends finished blocks to the image once they are worth it. The table must come next in the image.
    pub(super) fn drain<S: Store>(&mut self, output: &mut Output<S>) -> Result<()> {
        if self.blocks.len() < DRAIN_BYTES {
            return Ok(());
        }
        self.drain_all(output)
    }

    fn drain_all<S: Store>(&mut self, output: &mut Output<S>) -> Result<()> {
        output.append(&self.blocks)?;
        self.drained_bytes += self.blocks.len() as u64;
        self.blocks.clear();
        Ok(())
    }

    /// Ends the table and appends it to the image; returns where each block starts, from the start of the table.
    pub(super) fn finish<S: Store>(mut self, output: &mut Output<S>) -> Result<Vec<u64>> {
        if !self.payload.is_empty() {
            self.end_block()?;
        }
        self.drain_all(output)?;
        Ok(self.starts)
    }
}

/// Appends `bytes` in metadata blocks, then `header`, then the position of each block. Returns the position after the
/// blocks, which is what the superblock names.
pub(super) fn append_indexed<S: Store>(
    output: &mut Output<S>,
    compression: Compression,
    bytes: &[u8],
    header: &[u8],
) -> Result<u64> {
    let start = output.position();
    let mut writer = MetadataWriter::new(compression)?;
    writer.write(bytes)?;
    let starts = writer.finish(output)?;
    let index = output.position();
    let positions = starts.into_iter().flat_map(|block| (start + block).to_le_bytes());
    output.append(&header.iter().copied().chain(positions).collect::<Vec<u8>>())?;
    Ok(index)
}
