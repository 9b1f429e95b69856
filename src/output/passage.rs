//! A file system that is a source already, on its way to a squashfs: no tar is made of it, and its blocks pass as they are
//! where the output takes such.
//!
//! Whether they do is decided by what the source is and by the options, never by the blocks' neighbours in time, a cache or
//! the number of threads: the same source and options give the same bytes. Blocks of ours that were compressed at the level
//! that is asked for are those that would be made anew.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::flat::BlockChoice;
use crate::error::{Error, Result, ResultExt as _};
use crate::image::Image;
use crate::io::Monitor;
use crate::layers::KnownContents;
use crate::squashfs::{BlockName, ContentName, Memo, MemoBlock};
use crate::tree::{Content, FileData, FileId, Kind, Location, Origin, Tree};
use crate::volume::{Blocks, Volume};

/// The number of the one layer.
const LAYER: u32 = 0;

/// See the description of the file.
#[derive(Debug)]
pub(super) struct Passage {
    blocks: Blocks,
}

impl Passage {
    /// Of an image whose file system `volume` is; `None` where that is not one of blocks.
    pub(super) fn of(
        image: &Image,
        volume: &Arc<Volume>,
        choice: BlockChoice<'_>,
        monitor: &Monitor,
    ) -> Result<Option<Arc<Passage>>> {
        let options = choice.options;
        let wanted = (options.compression, options.block_size, choice.any_level);
        let blocks = Blocks::of(volume, wanted, monitor).doing(|| format!("reading {}", image.blobs.name()))?;
        Ok(blocks.map(|blocks| Arc::new(Passage { blocks })))
    }

    /// The names, with files named by what they hold.
    pub(super) fn tree(&self) -> Tree {
        let mut tree = self.blocks.volume().tree.clone();
        for inode in tree.inodes_mut() {
            if let Kind::File(data) = &mut inode.kind {
                self.name(data);
            }
        }
        tree
    }

    fn name(&self, data: &mut FileData) {
        if let Content::Stored(location) = data.content
            && let Some(first) = self.blocks.first(location.file)
        {
            let at = at(first);
            let location = Location { file: FileId(LAYER), offset: at.get() };
            (data.content, data.origin) = (Content::Stored(location), Some(Origin { layer: LAYER, at }));
        }
    }

    /// Whether files of other names have other bytes.
    pub(super) fn are_distinct(&self) -> bool {
        self.blocks.are_distinct()
    }

    /// The first place from `offset` on that is not in a hole.
    pub(super) fn next_data(&self, name: ContentName, offset: u64) -> Option<u64> {
        self.blocks.next_data(file(name.at), offset)
    }
}

/// No place is 0.
fn at(file: FileId) -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(file.0.into())
}

fn file(at: u64) -> FileId {
    FileId((at - 1) as u32)
}

impl KnownContents for Passage {
    fn read_at(&self, at: u64, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.blocks.read_at(file(at), buffer, offset).map_err(Error::into_io)
    }
}

impl Memo for Passage {
    fn find(&self, name: &BlockName, packed: &mut Vec<u8>) -> Result<Option<u32>> {
        match name {
            BlockName::Data { file: name, offset } => self.blocks.data(file(name.at), *offset, packed),
            BlockName::Fragment(parts) => {
                let parts: Vec<_> = parts.iter().map(|(name, bytes)| (file(name.at), *bytes)).collect();
                self.blocks.fragment(&parts, packed)
            }
        }
    }

    fn wrote(&self, _name: &BlockName, _block: &MemoBlock<'_>) {}

    fn same(&self, _file: ContentName, _earlier: ContentName) {}
}
