//! The image as it grows: the position of the next byte, and what was learned about blocks on the way.

use super::Store;
use crate::error::{ErrorKind, IoResultExt, Result};
use crate::squashfs::format::{DATA_STORED, SUPERBLOCK_BYTES};

/// Where one file's blocks are.
#[derive(Debug, Default, Clone)]
pub(super) struct Layout {
    /// Position of the first block that is stored; 0 where none is.
    pub(super) start: u64,
    /// Stored lengths, as in the inode, but for runs of holes: those are a 0 and then their number.
    words: Vec<u32>,
}

impl Layout {
    /// Of a file whose `size` bytes are stored as they are, in one piece from `start` on.
    pub(super) fn stored(start: u64, size: u64, block_size: u32) -> Self {
        let whole = std::iter::repeat_n(block_size | DATA_STORED, (size / u64::from(block_size)) as usize);
        let rest = (size % u64::from(block_size)) as u32;
        Layout { start, words: whole.chain((rest > 0).then_some(rest | DATA_STORED)).collect() }
    }

    /// The block list of the inode.
    pub(super) fn words(&self) -> impl Iterator<Item = u32> + '_ {
        let mut words = self.words.iter();
        std::iter::from_fn(move || {
            let word = *words.next()?;
            let times = if word == 0 { *words.next()? } else { 1 };
            Some(std::iter::repeat_n(word, times as usize))
        })
        .flatten()
    }

    /// How many blocks are holes.
    pub(super) fn holes(&self) -> u64 {
        let mut words = self.words.iter();
        let mut holes = 0;
        while let Some(&word) = words.next() {
            if word == 0 {
                holes += words.next().map_or(0, |&times| u64::from(times));
            }
        }
        holes
    }

    /// Whether the last block is a hole.
    pub(super) fn ends_in_hole(&self) -> bool {
        // A stored length is never followed by a bare number, so a 0 in the last but one place starts a run; a run's
        // number is never 0, so that place can hold nothing else that is 0.
        self.words.len() >= 2 && self.words[self.words.len() - 2] == 0
    }

    fn push(&mut self, word: u32) {
        self.words.push(word);
    }

    fn push_holes(&mut self, blocks: u32) {
        if self.ends_in_hole() {
            let last = self.words.len() - 1;
            self.words[last] += blocks;
        } else {
            self.words.extend([0, blocks]);
        }
    }
}

/// What a block belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    /// The next block of a file.
    File(u32),
    /// The next fragment block.
    Fragment,
}

/// The image under construction.
pub(super) struct Output<S> {
    store: S,
    position: u64,
    layouts: Vec<Layout>,
    fragments: Vec<(u64, u32)>,
}

impl<S: Store> Output<S> {
    /// An image without blocks; the superblock's place is left free.
    pub(super) fn new(store: S) -> Self {
        Output { store, position: SUPERBLOCK_BYTES, layouts: Vec::new(), fragments: Vec::new() }
    }

    /// Ends the image, and gives the store back.
    pub(super) fn finish(mut self) -> Result<S> {
        self.store.finish().or_kind(ErrorKind::Output)?;
        Ok(self.store)
    }

    /// Where the next byte goes.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Writes `bytes` at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.store.write_at(bytes, self.position).or_kind(ErrorKind::Output)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes `bytes` over what is at `position`.
    pub(super) fn overwrite(&mut self, bytes: &[u8], position: u64) -> Result<()> {
        self.store.write_at(bytes, position).or_kind(ErrorKind::Output)
    }

    /// Writes a block; `word` is its length with the bit that says whether it is stored as it is.
    pub(super) fn append_block(&mut self, owner: Owner, bytes: &[u8], word: u32) -> Result<()> {
        let start = self.position;
        self.append(bytes)?;
        match owner {
            Owner::Fragment => self.fragments.push((start, word)),
            Owner::File(file) => {
                let layout = self.layout(file);
                if layout.start == 0 {
                    layout.start = start;
                }
                layout.push(word);
            }
        }
        Ok(())
    }

    /// Notes blocks that are zeros only.
    pub(super) fn append_holes(&mut self, file: u32, blocks: u32) {
        self.layout(file).push_holes(blocks);
    }

    fn layout(&mut self, file: u32) -> &mut Layout {
        let file = file as usize;
        if self.layouts.len() <= file {
            self.layouts.resize_with(file + 1, Layout::default);
        }
        &mut self.layouts[file]
    }

    /// Hands out what was learned about blocks: of each file, and of each fragment block its position and length.
    pub(super) fn take_blocks(&mut self) -> (Vec<Layout>, Vec<(u64, u32)>) {
        (std::mem::take(&mut self.layouts), std::mem::take(&mut self.fragments))
    }
}
