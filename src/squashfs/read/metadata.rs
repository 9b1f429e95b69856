//! Tables made of metadata blocks, read through a small cache.

use std::sync::{Arc, PoisonError};

use super::{Image, Input, damaged};
use crate::error::Result;
use crate::squashfs::codec::Decompressor;
use crate::squashfs::format::{METADATA_BYTES, METADATA_STORED};

/// Where the blocks of one table are. All but the last have full payload, so a byte of the table can be addressed as if
/// the payloads stood one after the other.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Position of each block in the image, rising.
    pub(super) starts: Vec<u64>,
    /// Where the last block ends.
    pub(super) end: u64,
    /// Where block numbers in references count from.
    pub(super) base: u64,
}

impl Table {
    /// The address of what a reference names: a block's start counted from the table's, and an offset in its payload.
    pub(super) fn address(&self, block: u64, offset: u16) -> Result<u64> {
        let position = self.base.saturating_add(block);
        let index = self.starts.binary_search(&position).map_err(|_| {
            damaged(position, format!("no block of the {} starts there, though a reference says so", self.name))
        })?;
        if usize::from(offset) >= METADATA_BYTES {
            return Err(damaged(position, format!("a reference into the {} has offset {offset}", self.name)));
        }
        Ok(index as u64 * METADATA_BYTES as u64 + u64::from(offset))
    }

    /// The position in the image of the block that holds `address`.
    pub(super) fn position(&self, address: u64) -> u64 {
        self.starts.get((address / METADATA_BYTES as u64) as usize).copied().unwrap_or(self.end)
    }

    /// Reads from `address` on.
    pub(super) fn cursor(&self, address: u64) -> Cursor<'_> {
        Cursor { table: self, address, at_hand: None }
    }
}

/// How many blocks the cache holds: 2 MiB of payload.
const CACHE_BLOCKS_MAX: usize = 256;

impl<I: Input> Image<I> {
    /// Finds the blocks between two positions by going from header to header.
    pub(super) fn scan_table(&self, name: &'static str, start: u64, end: u64) -> Result<Table> {
        let mut starts = Vec::new();
        let mut position = start;
        while position < end {
            starts.push(position);
            position = self.block_end(name, position, end)?;
        }
        Ok(Table { name, starts, end, base: start })
    }

    /// Where the block at `position` ends, by its header.
    pub(super) fn block_end(&self, name: &str, position: u64, limit: u64) -> Result<u64> {
        let mut header = [0; 2];
        let past_limit = || damaged(position, format!("a block of the {name} reaches past its end at offset {limit}"));
        if limit.saturating_sub(position) < 2 {
            return Err(past_limit());
        }
        self.read(&mut header, position)?;
        let length = u16::from_le_bytes(header) & !METADATA_STORED;
        if length == 0 || usize::from(length) > METADATA_BYTES {
            return Err(damaged(position, format!("a block of the {name} is {length} bytes long")));
        }
        let end = position + 2 + u64::from(length);
        if end > limit { Err(past_limit()) } else { Ok(end) }
    }

    /// The payload of a table's block.
    pub(super) fn payload(&self, table: &Table, index: usize) -> Result<Arc<Vec<u8>>> {
        let Some(&start) = table.starts.get(index) else {
            return Err(damaged(table.end, format!("the {} ends too early", table.name)));
        };
        if let Some(payload) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&start) {
            return Ok(Arc::clone(payload));
        }
        let end = table.starts.get(index + 1).copied().unwrap_or(table.end);
        let payload = Arc::new(self.decode_metadata(table.name, start, end)?);
        let is_last = index + 1 == table.starts.len();
        if !is_last && payload.len() != METADATA_BYTES {
            let message = format!("a block of the {} holds {} bytes instead of 8192", table.name, payload.len());
            return Err(damaged(start, message));
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_BLOCKS_MAX {
            cache.clear();
        }
        cache.insert(start, Arc::clone(&payload));
        Ok(payload)
    }

    fn decode_metadata(&self, name: &str, start: u64, end: u64) -> Result<Vec<u8>> {
        if self.block_end(name, start, end)? != end {
            return Err(damaged(start, format!("a block of the {name} does not end where the next begins")));
        }
        let mut block = vec![0; (end - start) as usize];
        self.read(&mut block, start)?;
        let stored = u16::from_le_bytes([block[0], block[1]]) & METADATA_STORED != 0;
        if stored {
            block.drain(..2);
            return Ok(block);
        }
        let mut payload = Vec::new();
        Decompressor::new(self.codec)?
            .decompress(&block[2..], METADATA_BYTES, &mut payload)
            .map_err(|what| damaged(start, format!("a block of the {name}: {what}")))?;
        Ok(payload)
    }
}

/// A place in a table that moves as it is read.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    pub(super) table: &'a Table,
    pub(super) address: u64,
    /// The block that was read last, by its index: fields are small, and the cache is everybody's.
    at_hand: Option<(usize, Arc<Vec<u8>>)>,
}

impl Cursor<'_> {
    pub(super) fn read<I: Input>(&mut self, image: &Image<I>, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let index = (self.address / METADATA_BYTES as u64) as usize;
            let offset = (self.address % METADATA_BYTES as u64) as usize;
            let payload = match &mut self.at_hand {
                Some((at_hand, payload)) if *at_hand == index => payload,
                other => &other.insert((index, image.payload(self.table, index)?)).1,
            };
            let rest = payload.get(offset..).unwrap_or_default();
            if rest.is_empty() {
                return Err(damaged(self.table.end, format!("the {} ends too early", self.table.name)));
            }
            let count = rest.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            now.copy_from_slice(&rest[..count]);
            buffer = later;
            self.address += count as u64;
        }
        Ok(())
    }

    pub(super) fn half<I: Input>(&mut self, image: &Image<I>) -> Result<u16> {
        let mut bytes = [0; 2];
        self.read(image, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    pub(super) fn word<I: Input>(&mut self, image: &Image<I>) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(image, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(super) fn long<I: Input>(&mut self, image: &Image<I>) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(image, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// `length` bytes; the caller has bounded the length.
    pub(super) fn bytes<I: Input>(&mut self, image: &Image<I>, length: usize) -> Result<Box<[u8]>> {
        let mut bytes = vec![0; length];
        self.read(image, &mut bytes)?;
        Ok(bytes.into())
    }

    /// Where this is in the image, for messages.
    pub(super) fn position(&self) -> u64 {
        self.table.position(self.address)
    }
}
