//! Finds the tables. As in the kernel, each must end exactly where the next begins, seen from the end of the image.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::fragments::FragmentCache;
use super::metadata::Table;
use super::{Image, Input, Xattr, damaged};
use crate::error::Result;
use crate::model::Xattrs;
use crate::squashfs::format::{
    BlockCodec, FRAGMENT_ENTRY_BYTES, METADATA_BYTES, NO_TABLE, SUPERBLOCK_BYTES, Superblock, XATTR_ID_BYTES,
    XATTR_OUT_OF_LINE, XATTR_PREFIXES,
};

pub(super) fn open<I: Input>(input: I, superblock: Superblock) -> Result<Image<I>> {
    let codec = BlockCodec::from_id(superblock.compression_id)?;
    let mut image = Image {
        input,
        superblock,
        codec,
        inodes: empty("inode table", 0),
        directories: empty("directory table", 0),
        fragments: empty("fragment table", 0),
        exports: None,
        ids: Vec::new(),
        xattrs: None,
        cache: Mutex::new(BTreeMap::new()),
        fragments_read: FragmentCache::default(),
    };
    image.find_tables()?;
    Ok(image)
}

fn empty(name: &'static str, position: u64) -> Table {
    Table { name, starts: Vec::new(), end: position, base: position }
}

/// Bytes of the header of the extended attribute table.
const XATTR_HEADER_BYTES: u64 = 16;

impl<I: Input> Image<I> {
    fn find_tables(&mut self) -> Result<()> {
        let superblock = self.superblock;
        if superblock.bytes_used > self.input.length() || superblock.bytes_used < SUPERBLOCK_BYTES {
            let message = format!("it should have {} bytes, there are {}", superblock.bytes_used, self.input.length());
            return Err(damaged(40, message));
        }
        if superblock.inode_count == 0 || superblock.id_count == 0 {
            return Err(damaged(4, "it has no inodes, or no ids"));
        }
        let mut next = superblock.bytes_used;
        if superblock.xattr_table != NO_TABLE {
            next = self.find_xattrs(next)?;
        }
        let ids = self.indexed("id table", superblock.id_table, next, superblock.id_count.into(), 4)?;
        next = ids.base;
        if superblock.export_table != NO_TABLE {
            let table =
                self.indexed("export table", superblock.export_table, next, superblock.inode_count.into(), 8)?;
            next = table.base;
            self.exports = Some(table);
        }
        if superblock.fragment_table != NO_TABLE {
            let count = superblock.fragment_count.into();
            self.fragments =
                self.indexed("fragment table", superblock.fragment_table, next, count, FRAGMENT_ENTRY_BYTES as u64)?;
            next = self.fragments.base;
        } else if superblock.fragment_count != 0 {
            return Err(damaged(16, "there are fragments, but no fragment table"));
        }
        let in_order = (SUPERBLOCK_BYTES..superblock.directory_table).contains(&superblock.inode_table);
        if !in_order || superblock.directory_table > next {
            return Err(damaged(64, "the inode and the directory table are not in their order before the others"));
        }
        self.inodes = self.scan_table("inode table", superblock.inode_table, superblock.directory_table)?;
        self.directories = self.scan_table("directory table", superblock.directory_table, next)?;
        let mut cursor = ids.cursor(0);
        self.ids = (0..superblock.id_count).map(|_| cursor.word(self)).collect::<Result<_>>()?;
        Ok(())
    }

    /// A table with an index: the positions of its blocks, standing right after them and right before `next`.
    fn indexed(&self, name: &'static str, index: u64, next: u64, entries: u64, entry_bytes: u64) -> Result<Table> {
        let blocks = (entries * entry_bytes).div_ceil(METADATA_BYTES as u64);
        if index.checked_add(blocks * 8) != Some(next) || index < SUPERBLOCK_BYTES {
            let message = format!("the index of the {name} ({blocks} entries from there) should end at {next}");
            return Err(damaged(index, message));
        }
        // The index lies inside the image, so this is no longer than the image is.
        let mut bytes = vec![0; (blocks * 8) as usize];
        self.read(&mut bytes, index)?;
        let starts: Vec<u64> =
            bytes.chunks_exact(8).map(|entry| entry.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b))).collect();
        let base = starts.first().copied().unwrap_or(index);
        let mut expected = base;
        for &start in &starts {
            if start != expected || start < SUPERBLOCK_BYTES {
                return Err(damaged(
                    index,
                    format!("the index of the {name} names a block at {start}, not {expected}"),
                ));
            }
            expected = self.block_end(name, start, index)?;
        }
        if expected != index {
            return Err(damaged(expected, format!("the {name} does not reach to its index at offset {index}")));
        }
        Ok(Table { name, starts, end: index, base })
    }

    fn find_xattrs(&mut self, end: u64) -> Result<u64> {
        let header = self.superblock.xattr_table;
        let index = header.checked_add(XATTR_HEADER_BYTES).filter(|&index| index <= end);
        let index = index.ok_or_else(|| damaged(header, "the extended attribute table is outside of the image"))?;
        let mut bytes = [0; XATTR_HEADER_BYTES as usize];
        self.read(&mut bytes, header)?;
        let start = bytes[..8].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        let set_count = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if set_count == 0 {
            return Err(damaged(header, "the extended attribute table is empty"));
        }
        let blocks = (u64::from(set_count) * XATTR_ID_BYTES as u64).div_ceil(METADATA_BYTES as u64);
        if index.checked_add(blocks * 8) != Some(end) {
            return Err(damaged(header, "the index of the extended attribute table does not end with the image"));
        }
        let mut bytes = vec![0; (blocks * 8) as usize];
        self.read(&mut bytes, index)?;
        let first = bytes[..8].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        if !(SUPERBLOCK_BYTES..first).contains(&start) || first > header {
            return Err(damaged(header, "the parts of the extended attribute table are not in their order"));
        }
        let sets = self.scan_table("extended attribute sets", first, header)?;
        let named = bytes.chunks_exact(8).map(|entry| entry.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)));
        if !named.eq(sets.starts.iter().copied()) {
            return Err(damaged(index, "the index of the extended attribute table does not name its blocks"));
        }
        let pairs = self.scan_table("extended attributes", start, first)?;
        self.xattrs = Some(Xattr { pairs, sets, set_count });
        Ok(start)
    }

    /// The extended attributes of the set with this number.
    pub(super) fn xattr_set(&self, number: u32) -> Result<Xattrs> {
        let Some(tables) = self.xattrs.as_ref().filter(|tables| number < tables.set_count) else {
            return Err(damaged(self.superblock.xattr_table, format!("there is no extended attribute set {number}")));
        };
        let mut entry = tables.sets.cursor(u64::from(number) * XATTR_ID_BYTES as u64);
        let (reference, count, size) = (entry.long(self)?, entry.word(self)?, entry.word(self)?);
        let mut cursor = tables.pairs.cursor(tables.pairs.address(reference >> 16, reference as u16)?);
        let mut xattrs = Xattrs::new();
        let mut bytes = 0u64;
        for _ in 0..count {
            let (prefix, length) = (cursor.half(self)?, cursor.half(self)?);
            let Some(prefix_name) = XATTR_PREFIXES.get(usize::from(prefix & !XATTR_OUT_OF_LINE)) else {
                return Err(damaged(
                    cursor.position(),
                    format!("an extended attribute has the prefix number {prefix}"),
                ));
            };
            let name = [prefix_name, &*cursor.bytes(self, length.into())?].concat();
            if name.contains(&0) {
                return Err(damaged(cursor.position(), "the name of an extended attribute has a NUL byte"));
            }
            let value = self.xattr_value(tables, &mut cursor, prefix & XATTR_OUT_OF_LINE != 0)?;
            bytes += (name.len() + 1 + value.len()) as u64;
            if bytes > u64::from(size) || xattrs.insert(name.into(), value).is_some() {
                return Err(damaged(cursor.position(), "an extended attribute set holds more than it says"));
            }
        }
        Ok(xattrs)
    }

    fn xattr_value(
        &self,
        tables: &Xattr,
        cursor: &mut super::metadata::Cursor<'_>,
        elsewhere: bool,
    ) -> Result<Box<[u8]>> {
        let length = cursor.word(self)?;
        if !elsewhere {
            return bounded_value(self, cursor, length);
        }
        if length != 8 {
            return Err(damaged(cursor.position(), "a reference to an extended attribute's value is not 8 bytes long"));
        }
        let reference = cursor.long(self)?;
        let mut cursor = tables.pairs.cursor(tables.pairs.address(reference >> 16, reference as u16)?);
        let length = cursor.word(self)?;
        bounded_value(self, &mut cursor, length)
    }
}

/// Linux knows no longer values (`XATTR_SIZE_MAX`).
const XATTR_VALUE_BYTES_MAX: u32 = 64 << 10;

fn bounded_value<I: Input>(
    image: &Image<I>,
    cursor: &mut super::metadata::Cursor<'_>,
    length: u32,
) -> Result<Box<[u8]>> {
    if length > XATTR_VALUE_BYTES_MAX {
        return Err(damaged(cursor.position(), format!("an extended attribute's value has {length} bytes")));
    }
    cursor.bytes(image, length as usize)
}
