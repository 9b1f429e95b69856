//! Inodes, basic where that is enough, else extended.

use super::directory::Listing;
use super::metadata::MetadataWriter;
use super::output::Layout;
use crate::error::Result;
use crate::squashfs::format::{DIRECTORY_SIZE_EXTRA, NONE, kind};

/// What all inodes begin with, in this order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    pub(super) mode: u16,
    pub(super) uid_position: u16,
    pub(super) gid_position: u16,
    pub(super) mtime: u32,
    pub(super) number: u32,
    /// Not among them, but in the tail of each extended inode.
    pub(super) xattrs: u32,
    pub(super) links: u32,
}

impl Common {
    fn begin(&self, kind: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        for half in [kind, self.mode, self.uid_position, self.gid_position] {
            bytes.extend(half.to_le_bytes());
        }
        put(&mut bytes, &[self.mtime, self.number]);
        bytes
    }

    fn has_xattrs(&self) -> bool {
        self.xattrs != NONE
    }
}

fn put(bytes: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        bytes.extend(word.to_le_bytes());
    }
}

/// A directory whose listing is written.
pub(super) fn directory(common: &Common, listing: &Listing, parent: u32, table: &mut MetadataWriter) -> Result<()> {
    let size = listing.bytes + DIRECTORY_SIZE_EXTRA;
    let block = super::directory::table_offset(listing.place.block)?;
    let offset = listing.place.offset;
    if let (Ok(short_size), false, true) = (u16::try_from(size), common.has_xattrs(), listing.index.is_empty()) {
        let mut bytes = common.begin(kind::DIRECTORY);
        put(&mut bytes, &[block, common.links]);
        bytes.extend(short_size.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        put(&mut bytes, &[parent]);
        return table.write(&bytes);
    }
    let mut bytes = common.begin(kind::DIRECTORY + kind::EXTENDED);
    put(&mut bytes, &[common.links, size, block, parent]);
    bytes.extend((listing.index.len() as u16).to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    put(&mut bytes, &[common.xattrs]);
    for entry in &listing.index {
        put(&mut bytes, &[entry.byte, entry.block, entry.name.len() as u32 - 1]);
        bytes.extend_from_slice(&entry.name);
    }
    table.write(&bytes)
}

/// A regular file's data, as its inode tells it.
pub(super) struct FileBlocks<'a> {
    pub(super) size: u64,
    pub(super) layout: &'a Layout,
    /// Number of the fragment block and the offset in it.
    pub(super) fragment: Option<(u32, u32)>,
    pub(super) block_size: u32,
}

impl FileBlocks<'_> {
    /// Bytes in blocks that are not stored. Readers take the value for less than the size: a file has some bytes.
    fn sparse_bytes(&self) -> u64 {
        let holes = self.layout.holes() * u64::from(self.block_size);
        let tail = self.size % u64::from(self.block_size);
        let past_the_end = if self.layout.ends_in_hole() && tail != 0 { u64::from(self.block_size) - tail } else { 0 };
        (holes - past_the_end).min(self.size.saturating_sub(1))
    }
}

/// A regular file.
pub(super) fn file(common: &Common, data: &FileBlocks<'_>, table: &mut MetadataWriter) -> Result<()> {
    let sparse = data.sparse_bytes();
    let (fragment, offset) = data.fragment.unwrap_or((NONE, 0));
    let plain = common.links == 1 && !common.has_xattrs() && sparse == 0;
    let bytes = match (u32::try_from(data.layout.start), u32::try_from(data.size)) {
        (Ok(start), Ok(size)) if plain => {
            let mut bytes = common.begin(kind::FILE);
            put(&mut bytes, &[start, fragment, offset, size]);
            bytes
        }
        _ => {
            let mut bytes = common.begin(kind::FILE + kind::EXTENDED);
            for long in [data.layout.start, data.size, sparse] {
                bytes.extend(long.to_le_bytes());
            }
            put(&mut bytes, &[common.links, fragment, offset, common.xattrs]);
            bytes
        }
    };
    table.write(&bytes)?;
    // One by one: a list may stand for terabytes of holes, and must not be spelled out in memory.
    data.layout.words().try_for_each(|word| table.write(&word.to_le_bytes()))
}

/// A symbolic link.
pub(super) fn symlink(common: &Common, target: &[u8], table: &mut MetadataWriter) -> Result<()> {
    let extended = if common.has_xattrs() { kind::EXTENDED } else { 0 };
    let mut bytes = common.begin(kind::SYMLINK + extended);
    put(&mut bytes, &[common.links, target.len() as u32]);
    bytes.extend_from_slice(target);
    if common.has_xattrs() {
        put(&mut bytes, &[common.xattrs]);
    }
    table.write(&bytes)
}

/// A device, with its number, or a fifo or socket, without.
pub(super) fn special(common: &Common, kind: u16, device: Option<u32>, table: &mut MetadataWriter) -> Result<()> {
    let extended = if common.has_xattrs() { kind::EXTENDED } else { 0 };
    let mut bytes = common.begin(kind + extended);
    put(&mut bytes, &[common.links]);
    put(&mut bytes, device.as_slice());
    if common.has_xattrs() {
        put(&mut bytes, &[common.xattrs]);
    }
    table.write(&bytes)
}
