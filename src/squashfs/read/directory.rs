//! Directory listings as they are read.

use super::inode::DirectoryInode;
use super::metadata::Cursor;
use super::{Image, Input, damaged};
use crate::error::Result;
use crate::model::Quoted;
use crate::squashfs::format::{
    DIRECTORY_ENTRY_BYTES, DIRECTORY_HEADER_BYTES, HEADER_ENTRIES_MAX, METADATA_BYTES, NAME_BYTES_MAX,
};

/// A name in a directory.
pub(super) struct Name {
    pub(super) name: Box<[u8]>,
    pub(super) inode_block: u32,
    pub(super) inode_offset: u16,
    pub(super) number: u32,
    pub(super) kind: u16,
    /// Where the header before it stands in the listing, when this is the first name after it.
    pub(super) header_at: Option<u64>,
}

/// Goes through a listing.
pub(super) struct Listing<'a> {
    cursor: Cursor<'a>,
    start: u64,
    end: u64,
    left_in_run: usize,
    inode_block: u32,
    base_number: u32,
    last_name: Box<[u8]>,
}

impl<I: Input> Image<I> {
    /// The listing of a directory. Empty ones have no place in the table.
    pub(super) fn listing(&self, directory: &DirectoryInode) -> Result<Listing<'_>> {
        let start = match directory.listing_bytes {
            0 => 0,
            _ => self.directories.address(directory.block.into(), directory.offset)?,
        };
        let end = start + u64::from(directory.listing_bytes);
        if end > self.directories.starts.len() as u64 * METADATA_BYTES as u64 {
            let position = self.directories.position(start);
            return Err(damaged(position, "a directory's listing reaches past the end of the directory table"));
        }
        Ok(Listing {
            cursor: self.directories.cursor(start),
            start,
            end,
            left_in_run: 0,
            inode_block: 0,
            base_number: 0,
            last_name: Box::default(),
        })
    }
}

impl Listing<'_> {
    /// Where the listing is in the directory table, as if payloads stood one after the other.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.start, self.end)
    }

    /// The next name; they must rise.
    pub(super) fn next<I: Input>(&mut self, image: &Image<I>) -> Result<Option<Name>> {
        if self.cursor.address == self.end && self.left_in_run == 0 {
            return Ok(None);
        }
        let header_at = if self.left_in_run == 0 { Some(self.header(image)?) } else { None };
        self.need(DIRECTORY_ENTRY_BYTES)?;
        let inode_offset = self.cursor.half(image)?;
        let delta = self.cursor.half(image)? as i16;
        let kind = self.cursor.half(image)?;
        let length = usize::from(self.cursor.half(image)?) + 1;
        if length > NAME_BYTES_MAX {
            return Err(damaged(self.cursor.position(), format!("a directory has a name of {length} bytes")));
        }
        self.need(length)?;
        let name = self.cursor.bytes(image, length)?;
        let plain = !name.iter().any(|&byte| byte == b'/' || byte == 0) && !matches!(&*name, b"." | b"..");
        if !plain || name <= self.last_name {
            let what = if plain { "is not after the one before it" } else { "cannot be a file's name" };
            return Err(damaged(self.cursor.position(), format!("in a directory, {} {what}", Quoted(&name))));
        }
        self.last_name.clone_from(&name);
        self.left_in_run -= 1;
        let number = self.base_number.wrapping_add_signed(i32::from(delta));
        Ok(Some(Name { name, inode_block: self.inode_block, inode_offset, number, kind, header_at }))
    }

    fn header<I: Input>(&mut self, image: &Image<I>) -> Result<u64> {
        let at = self.cursor.address - self.start;
        self.need(DIRECTORY_HEADER_BYTES)?;
        let count = self.cursor.word(image)?;
        if count as usize >= HEADER_ENTRIES_MAX {
            return Err(damaged(self.cursor.position(), format!("a directory header counts {count} entries and one")));
        }
        self.left_in_run = count as usize + 1;
        self.inode_block = self.cursor.word(image)?;
        self.base_number = self.cursor.word(image)?;
        Ok(at)
    }

    fn need(&self, bytes: usize) -> Result<()> {
        if self.end - self.cursor.address < bytes as u64 {
            return Err(damaged(self.cursor.position(), "a directory's listing ends within an entry"));
        }
        Ok(())
    }
}
