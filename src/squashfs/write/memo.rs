use std::sync::OnceLock;

use crate::error::Result;

/// Names the bytes of a file without looking at them: within one image, equal names stand for equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentName {
    /// Where it comes from, as whoever gives the name counts.
    pub layer: u32,
    /// Its place there.
    pub at: u64,
}

/// Names a block by what goes into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockName {
    /// The block of a file that begins at `offset`.
    Data {
        /// The file.
        file: ContentName,
        /// First byte of the block in it.
        offset: u64,
    },
    /// Small files one after the other, each with its size in bytes.
    Fragment(Vec<(ContentName, u32)>),
}

/// A block as it was written.
#[derive(Debug, Clone, Copy)]
pub struct MemoBlock<'a> {
    /// Its bytes in the image.
    pub bytes: &'a [u8],
    /// Their number, with the bit that says whether the block is stored as it is; 0 for a hole.
    pub word: u32,
    /// How many bytes of files it holds.
    pub raw_bytes: u64,
    /// How many blocks in a row are the same: more than 1 only for holes.
    pub times: u32,
    /// The XXH3-128 of the bytes, where they were compressed now; none where [`Memo::find`] gave them.
    pub sum: Option<u128>,
}

/// Blocks that were compressed earlier, with the same compression, level and size. Asked from several threads at once.
pub trait Memo: Send + Sync {
    /// Puts the block that is called `name` into the start of `packed`, and returns its length with the bit that says whether
    /// it is stored as it is; 0 for a hole. `None` where it is not known. `packed` only ever grows.
    ///
    /// # Errors
    /// When the block is known but cannot be had after all.
    fn find(&self, name: &BlockName, packed: &mut Vec<u8>) -> Result<Option<u32>>;

    /// A block was written. Called in the order of the image, from one thread at a time.
    fn wrote(&self, name: &BlockName, block: &MemoBlock<'_>);

    /// The bytes of `file` are those of `earlier`, and are not written again.
    fn same(&self, file: ContentName, earlier: ContentName);
}

/// What was computed of a file to compare it with others, each at most once.
#[derive(Debug, Default)]
pub struct Hashes {
    /// XXH3-128 of its first bytes.
    pub head: OnceLock<u128>,
    /// XXH3-128 of all chunks that are not zero.
    pub whole: OnceLock<u128>,
    /// SHA-256 of the same; only where another file has the same bytes.
    pub proof: OnceLock<[u8; 32]>,
}
