//! The reader. It trusts nothing: every position, length and number is checked before it is used, nothing is allocated
//! because the image says so, and what is visited is bounded by what the image can hold without overlap.

mod data;
mod directory;
mod entries;
mod fragments;
mod inode;
mod metadata;
mod stored;
mod tables;
mod verify;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

pub use data::{BlockReader, Stretch, Stretches};
pub use entries::{Entries, Entry};
pub use inode::{DirectoryInode, FileInode, Inode, InodeKind};
pub use stored::Resume;
pub use verify::Verified;

use self::fragments::FragmentCache;
use self::metadata::Table;
use super::format::{BlockCodec, SUPERBLOCK_BYTES, Superblock};
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::Region;

/// Where an image is read from, by position from its own start. Read by several threads at once.
pub trait Input: Sync {
    /// Bytes there are, padding included.
    fn length(&self) -> u64;

    /// Fills `buffer` from `position`; never asked for anything past the end.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()>;
}

impl Input for Region {
    fn length(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        match Region::read_at(self, buffer, position)? {
            count if count == buffer.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<I: Input + ?Sized> Input for Box<I> {
    fn length(&self) -> u64 {
        (**self).length()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        (**self).read_at(buffer, position)
    }
}

impl Input for Vec<u8> {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let start = usize::try_from(position).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// An image that was opened: its superblock makes sense and its tables are where they should be.
pub struct Image<I> {
    input: I,
    superblock: Superblock,
    codec: BlockCodec,
    inodes: Table,
    directories: Table,
    fragments: Table,
    /// Absent in images that are not exportable.
    exports: Option<Table>,
    ids: Vec<u32>,
    xattrs: Option<Xattr>,
    cache: Mutex<BTreeMap<u64, Arc<Vec<u8>>>>,
    fragments_read: FragmentCache,
}

/// The tables of extended attributes.
struct Xattr {
    pairs: Table,
    sets: Table,
    set_count: u32,
}

impl<I: Input> Image<I> {
    /// Reads the superblock and finds the tables.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] naming the table and the offset; [`ErrorKind::Unsupported`] for other versions and
    /// compressions of squashfs.
    pub fn open(input: I) -> Result<Self> {
        let mut bytes = [0; SUPERBLOCK_BYTES as usize];
        if input.length() < SUPERBLOCK_BYTES {
            return Err(Error::new(ErrorKind::InvalidImage, "squashfs superblock: the image is shorter than 96 bytes"));
        }
        input
            .read_at(&mut bytes, 0)
            .or_kind(ErrorKind::SourceUnavailable)
            .doing(|| "reading the squashfs superblock")?;
        tables::open(input, Superblock::decode(&bytes)?)
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> Result<()> {
        self.input
            .read_at(buffer, position)
            .or_kind(ErrorKind::SourceUnavailable)
            .doing(|| format!("reading {} bytes of the squashfs at offset {position}", buffer.len()))
    }
}

/// The image is broken at `position`.
fn damaged(position: u64, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("squashfs is damaged at offset {position}: {what}"))
}
