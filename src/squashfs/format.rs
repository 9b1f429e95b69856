//! The numbers of the format, shared by writer and reader. Field names and layouts follow the Linux documentation of
//! squashfs 4.0; all integers are little endian.

use crate::error::{Error, ErrorKind, Result};
use crate::io::Codec;
pub use crate::io::Compression;

/// `hsqs`, read as a little-endian number.
pub(super) const MAGIC: u32 = 0x7371_7368;
/// Length of the superblock in bytes; data begins right after it.
pub(super) const SUPERBLOCK_BYTES: u64 = 96;
/// Payload of a full metadata block in bytes.
pub(super) const METADATA_BYTES: usize = 8192;
/// Bit 15 of a metadata block's length: the block is stored as it is.
pub(super) const METADATA_STORED: u16 = 1 << 15;
/// Bit 24 of a data block's length: the block is stored as it is.
pub(super) const DATA_STORED: u32 = 1 << 24;
/// "No such table" in the superblock.
pub(super) const NO_TABLE: u64 = u64::MAX;
/// "No fragment" and "no extended attributes" in inodes.
pub(super) const NONE: u32 = u32::MAX;
/// A directory's recorded size counts three bytes more than its listing has, for "." and "..".
pub(super) const DIRECTORY_SIZE_EXTRA: u32 = 3;
/// Entries after one directory header, at most.
pub(super) const HEADER_ENTRIES_MAX: usize = 256;
/// Length of a directory header and of an entry before its name, in bytes.
pub(super) const DIRECTORY_HEADER_BYTES: usize = 12;
pub(super) const DIRECTORY_ENTRY_BYTES: usize = 8;
/// Longest name in a directory, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// Longest symbolic link target, in bytes.
pub(super) const SYMLINK_BYTES_MAX: usize = u16::MAX as usize;
/// Bytes of one entry of the fragment table and of the table of extended attribute sets.
pub(super) const FRAGMENT_ENTRY_BYTES: usize = 16;
pub(super) const XATTR_ID_BYTES: usize = 16;

/// Superblock flags: data blocks, or fragment blocks, were not compressed because nobody wanted them to be.
pub(super) const FLAG_DATA_UNCOMPRESSED: u16 = 0x0002;
pub(super) const FLAG_FRAGMENTS_UNCOMPRESSED: u16 = 0x0008;
/// Superblock flags: duplicates were looked for, an export table is present. What mksquashfs sets by default.
pub(super) const FLAG_DUPLICATES: u16 = 0x0040;
pub(super) const FLAG_EXPORTABLE: u16 = 0x0080;
/// All flags that squashfs 4.0 defines.
pub(super) const FLAGS_KNOWN: u16 = 0x0FFF;

/// The image's length is a multiple of this many bytes: loop devices work in sectors, and mksquashfs pads to 4 KiB.
pub const PADDING_BYTES: u64 = 4096;
/// Smallest block size in bytes.
pub const BLOCK_SIZE_MIN: u32 = 4 << 10;
/// Largest block size in bytes.
pub const BLOCK_SIZE_MAX: u32 = 1 << 20;

/// The number of a compression in the superblock.
pub(super) fn compression_id(compression: Compression) -> u16 {
    if compression.kind() == Codec::Zstd { 6 } else { 1 }
}

/// What the blocks of an image that is read are compressed with. Levels and other options of the writer leave no trace
/// that a reader needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockCodec {
    /// zlib streams.
    Gzip,
    /// LZMA streams with the old header, which no kernel reads.
    Lzma,
    /// LZO1X blocks.
    Lzo,
    /// The .xz format, with or without a filter for machine code.
    Xz,
    /// LZ4 blocks without a frame.
    Lz4,
    /// zstd frames.
    Zstd,
}

impl BlockCodec {
    /// By their number in the superblock, from 1 on.
    const ALL: [BlockCodec; 6] =
        [BlockCodec::Gzip, BlockCodec::Lzma, BlockCodec::Lzo, BlockCodec::Xz, BlockCodec::Lz4, BlockCodec::Zstd];

    pub(super) fn from_id(id: u16) -> Result<Self> {
        let known = usize::from(id).checked_sub(1).and_then(|at| BlockCodec::ALL.get(at));
        known.copied().ok_or_else(|| {
            let message = format!("the squashfs is compressed with something unknown (id {id})");
            Error::new(ErrorKind::Unsupported, message).hint("pack it again with mksquashfs -comp gzip")
        })
    }

    /// The word that mksquashfs has for it.
    pub fn word(self) -> &'static str {
        match self {
            BlockCodec::Gzip => "gzip",
            BlockCodec::Lzma => "lzma",
            BlockCodec::Lzo => "lzo",
            BlockCodec::Xz => "xz",
            BlockCodec::Lz4 => "lz4",
            BlockCodec::Zstd => "zstd",
        }
    }
}

/// The kinds of file, by their number in directory entries and basic inodes; the extended inode has 7 more.
pub(super) mod kind {
    pub(in crate::squashfs) const DIRECTORY: u16 = 1;
    pub(in crate::squashfs) const FILE: u16 = 2;
    pub(in crate::squashfs) const SYMLINK: u16 = 3;
    pub(in crate::squashfs) const BLOCK_DEVICE: u16 = 4;
    pub(in crate::squashfs) const CHAR_DEVICE: u16 = 5;
    pub(in crate::squashfs) const FIFO: u16 = 6;
    pub(in crate::squashfs) const SOCKET: u16 = 7;
    pub(in crate::squashfs) const EXTENDED: u16 = 7;
}

/// Prefixes of extended attribute names; the position is the number that stands for them.
pub(super) const XATTR_PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// The value is somewhere else, and a reference to it stands here.
pub(super) const XATTR_OUT_OF_LINE: u16 = 0x0100;

/// Whether squashfs has a way to store an extended attribute of this name: `user.*`, `trusted.*` and `security.*`.
/// POSIX ACLs (`system.*`) have none.
pub fn xattr_is_storable(name: &[u8]) -> bool {
    split_xattr_name(name).is_some()
}

/// The number of the name's prefix, and the rest of the name.
pub(super) fn split_xattr_name(name: &[u8]) -> Option<(u16, &[u8])> {
    let position = XATTR_PREFIXES.iter().position(|prefix| name.starts_with(prefix))?;
    Some((position as u16, &name[XATTR_PREFIXES[position].len()..]))
}

/// The number for a device node: the classic 16 bits, with the minor's upper bits above them.
pub(super) fn device_number(major: u32, minor: u32) -> u32 {
    (major << 8) | (minor & 0xff) | ((minor & !0xff) << 12)
}

/// Major and minor of a device number.
pub(super) fn device_parts(number: u32) -> (u32, u32) {
    ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00))
}

/// The first 96 bytes of an image, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// How many inodes there are.
    pub inode_count: u32,
    /// When the image was made, in seconds since 1970.
    pub mkfs_time: u32,
    /// Bytes in a data block, a power of two.
    pub block_size: u32,
    /// How many fragment blocks there are.
    pub fragment_count: u32,
    /// Compression, as a number: 1 gzip, 2 lzma, 3 lzo, 4 xz, 5 lz4, 6 zstd.
    pub compression_id: u16,
    /// Flag bits.
    pub flags: u16,
    /// How many distinct user and group ids there are.
    pub id_count: u16,
    /// Reference of the root directory's inode.
    pub root_inode: u64,
    /// Length of the image in bytes, without padding.
    pub bytes_used: u64,
    /// Position of the id table's index.
    pub id_table: u64,
    /// Position of the extended attribute table's header, or all ones.
    pub xattr_table: u64,
    /// Position of the inode table.
    pub inode_table: u64,
    /// Position of the directory table.
    pub directory_table: u64,
    /// Position of the fragment table's index.
    pub fragment_table: u64,
    /// Position of the export table's index, or all ones.
    pub export_table: u64,
}

impl Superblock {
    /// How blocks are compressed, by number, and how many bytes they have.
    pub fn packing(&self) -> (u16, u32) {
        (self.compression_id, self.block_size)
    }

    /// The 96 bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SUPERBLOCK_BYTES as usize);
        for word in [MAGIC, self.inode_count, self.mkfs_time, self.block_size, self.fragment_count] {
            bytes.extend(word.to_le_bytes());
        }
        let block_log = self.block_size.ilog2() as u16;
        for half in [self.compression_id, block_log, self.flags, self.id_count, 4, 0] {
            bytes.extend(half.to_le_bytes());
        }
        let tables = [self.id_table, self.xattr_table, self.inode_table, self.directory_table];
        for long in [self.root_inode, self.bytes_used].into_iter().chain(tables) {
            bytes.extend(long.to_le_bytes());
        }
        bytes.extend(self.fragment_table.to_le_bytes());
        bytes.extend(self.export_table.to_le_bytes());
        bytes
    }

    /// Reads the 96 bytes and checks what they say of themselves.
    pub(super) fn decode(bytes: &[u8; SUPERBLOCK_BYTES as usize]) -> Result<Self> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) | u32::from(half(at + 2)) << 16;
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let bad = |message: String| Err(Error::new(ErrorKind::InvalidImage, format!("squashfs superblock: {message}")));
        if word(0) != MAGIC {
            return bad(format!("magic 0x{:08x} at offset 0 is not \"hsqs\"", word(0)));
        }
        if (half(28), half(30)) != (4, 0) {
            let message = format!("squashfs version {}.{}", half(28), half(30));
            return Err(Error::new(ErrorKind::Unsupported, message).hint("this version reads squashfs 4.0"));
        }
        let block_size = word(12);
        let size_is_good = block_size.is_power_of_two() && (BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size);
        if !size_is_good || u32::from(half(22)) != block_size.ilog2() {
            return bad(format!("block size {block_size} at offset 12 with logarithm {} at offset 22", half(22)));
        }
        if half(24) & !FLAGS_KNOWN != 0 {
            return bad(format!("unknown flags 0x{:04x} at offset 24", half(24)));
        }
        Ok(Superblock {
            inode_count: word(4),
            mkfs_time: word(8),
            block_size,
            fragment_count: word(16),
            compression_id: half(20),
            flags: half(24),
            id_count: half(26),
            root_inode: long(32),
            bytes_used: long(40),
            id_table: long(48),
            xattr_table: long(56),
            inode_table: long(64),
            directory_table: long(72),
            fragment_table: long(80),
            export_table: long(88),
        })
    }
}
