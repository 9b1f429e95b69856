//! squashfs 4.0, written in one stream and read back with suspicion.
//!
//! The idea to hold: an image is a pure function of what is added and in which order. The caller's thread decides
//! everything that depends on order (which file shares whose data, which fragment a small file goes to); workers only
//! read, compress and write blocks, and the position of a block follows from its sequence number. So any number of
//! threads gives the same bytes.
//!
//! ```text
//! superblock │ data and fragment blocks │ inodes │ directories │ fragments │ export │ ids │ xattrs │ zeros to 4096
//!     96 B   │   as they are added      └─────────────── tables, written by finish ──────────────┘
//! ```
//!
//! Duplicate files are found before anything of them is compressed. mksquashfs writes a file's blocks, and takes them
//! back when they turn out to be known; that ties the writer to one thread and needs the output read back. Here a
//! source can be read again at any time ([`FileSource`]), so a file is looked at first, and only as much as is needed:
//! no other file of its size, nothing is read; else a hash of its first bytes; if another file has that too, a hash of
//! all of it; and where that is equal as well, the bytes of both are compared. Earlier files get their hashes at that
//! moment, not before. Most files are read once, and nothing is compressed twice.
//!
//! Memory: a few hundred bytes for each name, four bytes for each data block, and a fixed number of blocks for each
//! thread; nothing grows with the length of holes.
//!
//! What is not protected: squashfs itself has no checksums. Compressed blocks carry one (Adler-32 in the zlib format, a
//! content checksum in the zstd frames written here), blocks that did not shrink and are stored as they are do not,
//! nor does the superblock. [`Image::verify`] finds damage in the former, and in the latter only what breaks the
//! structure.
//!
//! This room must not know where files come from (trees, layers, tar) nor what the image is put into (SIF).

mod codec;
mod format;
mod read;
mod write;

pub use codec::{BLOCK_CODECS, BlockCompressor, BlockDecoder};
pub use format::{
    BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, BlockCodec, Compression, PADDING_BYTES, Superblock, xattr_is_storable,
};
pub use read::{
    BlockReader, DirectoryInode, Entries, Entry, FileInode, Image, Inode, InodeKind, Input, Resume, Stretch, Stretches,
    Verified,
};
pub use write::{
    Attributes, BlockName, ContentName, FileSource, FileStore, Hashes, Memo, MemoBlock, Node, NodeId, Options, Store,
    StreamWriter, Summary, Writer,
};

#[cfg(test)]
mod tests;
