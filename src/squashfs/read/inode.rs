//! Inodes as they are read.

use super::metadata::Cursor;
use super::{Image, Input, damaged};
use crate::error::Result;
use crate::model::{Mode, Xattrs};
use crate::squashfs::format::{DIRECTORY_SIZE_EXTRA, NAME_BYTES_MAX, NONE, SYMLINK_BYTES_MAX, device_parts, kind};

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number, from 1 to the inode count.
    pub number: u32,
    /// Permissions.
    pub mode: Mode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification, in seconds since 1970.
    pub mtime: u32,
    /// How many names it says it has; for a directory, 2 and one for each directory in it.
    pub links: u32,
    /// The number of its extended attribute set.
    pub xattrs: Option<u32>,
    /// What it is.
    pub kind: InodeKind,
    /// Whether it is stored in the extended form.
    pub extended: bool,
    /// Where it is in the inode table, as if payloads stood one after the other.
    pub(super) address: u64,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// A directory.
    Directory(DirectoryInode),
    /// A regular file.
    File(FileInode),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Where a directory's listing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryInode {
    /// Number of the directory it is in; for the root, one more than there are inodes.
    pub parent: u32,
    /// Length of the listing in bytes.
    pub listing_bytes: u32,
    /// Entries of the listing's index.
    pub index_entries: u16,
    pub(super) block: u32,
    pub(super) offset: u16,
    pub(super) index_address: u64,
}

/// Where a file's data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInode {
    /// Length in bytes.
    pub size: u64,
    /// Position of the first stored block.
    pub start: u64,
    /// Bytes in blocks that are not stored because they are zeros.
    pub sparse_bytes: u64,
    /// The fragment block that holds its last bytes, and where in it they start.
    pub fragment: Option<(u32, u32)>,
    /// How many blocks it has.
    pub block_count: u64,
    pub(super) blocks_address: u64,
}

impl Inode {
    /// Tells it from all other inodes of the image: names that share it are hard links of one file.
    pub fn identity(&self) -> u64 {
        self.address
    }

    /// The kind as directories have it, 1 to 7.
    pub(super) fn basic_kind(&self) -> u16 {
        match self.kind {
            InodeKind::Directory(_) => kind::DIRECTORY,
            InodeKind::File(_) => kind::FILE,
            InodeKind::Symlink(_) => kind::SYMLINK,
            InodeKind::BlockDevice { .. } => kind::BLOCK_DEVICE,
            InodeKind::CharDevice { .. } => kind::CHAR_DEVICE,
            InodeKind::Fifo => kind::FIFO,
            InodeKind::Socket => kind::SOCKET,
        }
    }
}

impl<I: Input> Image<I> {
    /// The root directory.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidImage`] when it is damaged or no directory.
    pub fn root(&self) -> Result<Inode> {
        let inode = self.inode_at(self.superblock.root_inode >> 16, self.superblock.root_inode as u16)?;
        match inode.kind {
            InodeKind::Directory(_) => Ok(inode),
            _ => Err(damaged(32, "the root is not a directory")),
        }
    }

    /// The extended attributes of an inode.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidImage`] when they are damaged.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs> {
        inode.xattrs.map_or(Ok(Xattrs::new()), |set| self.xattr_set(set))
    }

    pub(super) fn inode_at(&self, block: u64, offset: u16) -> Result<Inode> {
        let address = self.inodes.address(block, offset)?;
        let mut cursor = self.inodes.cursor(address);
        let position = cursor.position();
        let (stored_kind, mode) = (cursor.half(self)?, cursor.half(self)?);
        let (uid, gid) = (self.id(cursor.half(self)?, position)?, self.id(cursor.half(self)?, position)?);
        let (mtime, number) = (cursor.word(self)?, cursor.word(self)?);
        if number == 0 || number > self.superblock.inode_count || mode & !0o7777 != 0 {
            return Err(damaged(position, format!("the inode at offset {offset} has number {number}, mode 0{mode:o}")));
        }
        let mut body = Body { links: 1, xattrs: NONE, kind: InodeKind::Fifo };
        let extended = stored_kind > kind::EXTENDED;
        match stored_kind - if extended { kind::EXTENDED } else { 0 } {
            kind::DIRECTORY => self.read_directory(&mut cursor, extended, &mut body)?,
            kind::FILE => self.read_file_inode(&mut cursor, extended, &mut body)?,
            kind::SYMLINK => self.read_symlink(&mut cursor, extended, &mut body)?,
            basic @ (kind::BLOCK_DEVICE | kind::CHAR_DEVICE | kind::FIFO | kind::SOCKET) => {
                self.read_special(&mut cursor, basic, extended, &mut body)?;
            }
            _ => return Err(damaged(position, format!("inode {number} is of the unknown kind {stored_kind}"))),
        }
        let Body { links, xattrs, kind } = body;
        let xattrs = (xattrs != NONE).then_some(xattrs);
        Ok(Inode { number, mode: Mode::new(mode.into()), uid, gid, mtime, links, xattrs, kind, extended, address })
    }

    fn id(&self, position_in_table: u16, position: u64) -> Result<u32> {
        self.ids.get(usize::from(position_in_table)).copied().ok_or_else(|| {
            damaged(position, format!("an inode has id {position_in_table} of a table of {}", self.ids.len()))
        })
    }

    fn read_directory(&self, cursor: &mut Cursor<'_>, extended: bool, body: &mut Body) -> Result<()> {
        let (size, block, parent, index_entries, offset);
        if extended {
            body.links = cursor.word(self)?;
            (size, block, parent) = (cursor.word(self)?, cursor.word(self)?, cursor.word(self)?);
            (index_entries, offset) = (cursor.half(self)?, cursor.half(self)?);
            body.xattrs = cursor.word(self)?;
        } else {
            (block, body.links) = (cursor.word(self)?, cursor.word(self)?);
            (size, offset) = (cursor.half(self)?.into(), cursor.half(self)?);
            (parent, index_entries) = (cursor.word(self)?, 0);
        }
        let listing_bytes = u32::checked_sub(size, DIRECTORY_SIZE_EXTRA)
            .ok_or_else(|| damaged(cursor.position(), format!("a directory's size is {size}")))?;
        let index_address = cursor.address;
        body.kind =
            InodeKind::Directory(DirectoryInode { parent, listing_bytes, index_entries, block, offset, index_address });
        Ok(())
    }

    fn read_file_inode(&self, cursor: &mut Cursor<'_>, extended: bool, body: &mut Body) -> Result<()> {
        let (start, size, sparse_bytes, fragment, offset);
        if extended {
            (start, size, sparse_bytes) = (cursor.long(self)?, cursor.long(self)?, cursor.long(self)?);
            (body.links, fragment, offset) = (cursor.word(self)?, cursor.word(self)?, cursor.word(self)?);
            body.xattrs = cursor.word(self)?;
        } else {
            (start, fragment, offset) = (cursor.word(self)?.into(), cursor.word(self)?, cursor.word(self)?);
            (size, sparse_bytes) = (cursor.word(self)?.into(), 0);
        }
        let block_size = u64::from(self.superblock.block_size);
        let fragment = (fragment != NONE).then_some((fragment, offset));
        let block_count = if fragment.is_some() { size / block_size } else { size.div_ceil(block_size) };
        let blocks_address = cursor.address;
        body.kind = InodeKind::File(FileInode { size, start, sparse_bytes, fragment, block_count, blocks_address });
        Ok(())
    }

    fn read_symlink(&self, cursor: &mut Cursor<'_>, extended: bool, body: &mut Body) -> Result<()> {
        body.links = cursor.word(self)?;
        let length = cursor.word(self)? as usize;
        if !(1..=SYMLINK_BYTES_MAX).contains(&length) {
            return Err(damaged(cursor.position(), format!("a symbolic link's target has {length} bytes")));
        }
        let target = cursor.bytes(self, length)?;
        // No system has such links, and no tar can hold them.
        if target.contains(&0) {
            return Err(damaged(cursor.position(), "a symbolic link's target has a NUL byte"));
        }
        body.kind = InodeKind::Symlink(target);
        if extended {
            body.xattrs = cursor.word(self)?;
        }
        Ok(())
    }

    fn read_special(&self, cursor: &mut Cursor<'_>, basic: u16, extended: bool, body: &mut Body) -> Result<()> {
        body.links = cursor.word(self)?;
        body.kind = match basic {
            kind::FIFO => InodeKind::Fifo,
            kind::SOCKET => InodeKind::Socket,
            _ => {
                let (major, minor) = device_parts(cursor.word(self)?);
                match basic {
                    kind::BLOCK_DEVICE => InodeKind::BlockDevice { major, minor },
                    _ => InodeKind::CharDevice { major, minor },
                }
            }
        };
        if extended {
            body.xattrs = cursor.word(self)?;
        }
        Ok(())
    }

    /// The entries of a directory's index.
    pub(super) fn directory_index(&self, directory: &DirectoryInode) -> Result<Vec<IndexEntry>> {
        let mut cursor = self.inodes.cursor(directory.index_address);
        let mut entries = Vec::new();
        for _ in 0..directory.index_entries {
            let (byte, block, length) = (cursor.word(self)?, cursor.word(self)?, cursor.word(self)? as usize);
            if length >= NAME_BYTES_MAX {
                return Err(damaged(cursor.position(), format!("a directory's index has a name of {length} bytes")));
            }
            entries.push(IndexEntry { byte, block, name: cursor.bytes(self, length + 1)? });
        }
        Ok(entries)
    }
}

/// Where a header stands in a listing, and its first name.
pub(super) struct IndexEntry {
    /// Byte of the listing.
    pub(super) byte: u32,
    /// Start of the metadata block, counted from the directory table's.
    pub(super) block: u32,
    pub(super) name: Box<[u8]>,
}

/// What the kinds of inode have in different places.
struct Body {
    links: u32,
    xattrs: u32,
    kind: InodeKind,
}
