//! What a conversion learns of layers that were not known: where their files are in the blocks that it writes.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

use super::reuse::{HIDDEN, Known};
use crate::derived::{BlockPlace, Contents, FileEntry, Fragment, LayerIndex, Name, PackWriter, Store};
use crate::error::Error;
use crate::layers::{self, ReadLayer};
use crate::squashfs::{BlockCompressor, ContentName, Hashes, MemoBlock};
use crate::tree::{Content, FileData};

/// More blocks of one file are not kept: what bounds the memory that a file with long holes costs.
const FILE_BLOCKS_MAX: u64 = 1 << 20;

/// Where a block is: in the pack that is being written, or in one that is there.
#[derive(Debug, Clone, Copy)]
struct Place {
    pack: Option<Name>,
    block: BlockPlace,
}

/// All that was learned so far.
#[derive(Default)]
pub(super) struct Lessons {
    pack: Option<PackWriter>,
    /// Why nothing more is kept.
    failure: Option<io::Error>,
    /// The blocks of each file, with their numbers.
    data: BTreeMap<ContentName, Vec<(u64, BlockPlace)>>,
    fragments: Vec<LearnedFragment>,
    /// Where each small file is: the number of its fragment, and the offset in it.
    parts: BTreeMap<ContentName, (u32, u32)>,
    same: BTreeMap<ContentName, ContentName>,
    layers: Vec<LayerLesson>,
}

struct LearnedFragment {
    key: Option<[u8; 32]>,
    raw_bytes: u32,
    place: Place,
}

/// What is known of one layer now.
struct LayerLesson {
    read: ReadLayer,
    files: Vec<FileEntry>,
    blocks: Vec<Place>,
    fragments: Vec<(Option<[u8; 32]>, u32, Place)>,
}

/// What there is to keep.
pub(super) struct Learned {
    pub(super) pack: Option<PackWriter>,
    pub(super) indexes: Vec<LayerIndex>,
}

impl Lessons {
    pub(super) fn new(store: &Store) -> Lessons {
        let mut lessons = Lessons::default();
        match store.pack() {
            None => lessons.failure = Some(io::ErrorKind::Unsupported.into()),
            Some(Ok(pack)) => lessons.pack = Some(pack),
            Some(Err(error)) => lessons.failure = Some(error),
        }
        lessons
    }

    /// Nothing, and nothing will be.
    pub(super) fn none() -> Lessons {
        Lessons { failure: Some(io::ErrorKind::Unsupported.into()), ..Lessons::default() }
    }

    /// Appends a block to the pack. Where that fails, the conversion goes on, and nothing is kept of it.
    fn append(&mut self, bytes: &[u8], word: u32, sum: u128) -> Option<BlockPlace> {
        if word == 0 {
            return Some(BlockPlace::HOLE);
        }
        match self.pack.as_mut()?.append(bytes, word, sum) {
            Ok(place) => Some(place),
            Err(error) => {
                (self.pack, self.failure) = (None, Some(error));
                (self.data, self.fragments, self.parts) = Default::default();
                None
            }
        }
    }

    pub(super) fn wrote_data(&mut self, file: ContentName, number: u64, block: &MemoBlock<'_>) {
        let Some(sum) = block.sum else { return };
        if let Some(place) = self.append(block.bytes, block.word, sum) {
            self.data.entry(file).or_default().push((number, place));
        }
    }

    /// A fragment was written, that was known before at `earlier` or is new.
    pub(super) fn wrote_fragment(
        &mut self,
        key: [u8; 32],
        parts: &[(ContentName, u32)],
        block: &MemoBlock<'_>,
        earlier: Option<(Name, BlockPlace)>,
    ) {
        let place = match (earlier, block.sum) {
            (Some((pack, block)), None) => Place { pack: Some(pack), block },
            (_, Some(sum)) => {
                let Some(block) = self.append(block.bytes, block.word, sum) else { return };
                Place { pack: None, block }
            }
            (None, None) => return,
        };
        let (number, mut offset) = (self.fragments.len() as u32, 0);
        self.fragments.push(LearnedFragment { key: Some(key), raw_bytes: block.raw_bytes as u32, place });
        for &(name, size) in parts {
            self.parts.insert(name, (number, offset));
            offset += size;
        }
    }

    pub(super) fn same(&mut self, file: ContentName, earlier: ContentName) {
        self.same.insert(file, earlier);
    }

    /// Settles where every file of the layers is that were read. What the output does not show is read once more, and kept.
    pub(super) fn finish(
        &mut self,
        read: Vec<ReadLayer>,
        contents: &layers::Contents,
        hashes: &BTreeMap<ContentName, Arc<Hashes>>,
        block_size: u32,
        known: &[Option<Arc<Known>>],
    ) {
        for layer in read {
            if self.pack.is_none() {
                return;
            }
            match self.layer(layer, contents, hashes, block_size, known) {
                Ok(lesson) => self.layers.extend(lesson),
                Err(error) => (self.pack, self.failure) = (None, Some(error)),
            }
        }
        self.add_strays(known.len());
    }

    /// Fragments without a file of a layer that was read differ from those of other images in their borders only. They go to
    /// the uppermost layer that was read: whoever has that, has all below it too, mostly.
    fn add_strays(&mut self, layers: usize) {
        let mut owned = vec![false; self.fragments.len()];
        for (name, &(number, _)) in &self.parts {
            let is_read = self.layers.iter().any(|lesson| lesson.read.layer == name.layer);
            owned[number as usize] |= is_read && (name.layer as usize) < layers;
        }
        let strays = self.fragments.iter().zip(owned).filter(|(it, owned)| !owned && it.place.pack.is_none());
        let strays: Vec<_> = strays.map(|(it, _)| (it.key, it.raw_bytes, it.place)).collect();
        if let Some(uppermost) = self.layers.iter_mut().max_by_key(|lesson| lesson.read.layer) {
            uppermost.fragments.extend(strays);
        }
    }

    fn layer(
        &mut self,
        read: ReadLayer,
        contents: &layers::Contents,
        hashes: &BTreeMap<ContentName, Arc<Hashes>>,
        block_size: u32,
        known: &[Option<Arc<Known>>],
    ) -> io::Result<Option<LayerLesson>> {
        let mut lesson = LayerLesson { read, files: Vec::new(), blocks: Vec::new(), fragments: Vec::new() };
        let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
        let mut hidden = Hidden::new(block_size)?;
        let files = std::mem::take(&mut lesson.read.files);
        for data in &files {
            let Some(origin) = data.origin else { continue };
            let name = ContentName { layer: origin.layer, at: origin.at.get() };
            let source = self.same.get(&name).copied().unwrap_or(name);
            let contents = if let Some(of) = known.get(source.layer as usize).and_then(Option::as_deref) {
                self.of_known(of, source.at, &mut lesson)
            } else if let Some(&(number, offset)) = self.parts.get(&source) {
                let of = &self.fragments[number as usize];
                let number = *numbers.entry(number).or_insert_with(|| {
                    lesson.fragments.push((of.key, of.raw_bytes, of.place));
                    lesson.fragments.len() as u32 - 1
                });
                Some(Contents::Fragment { number, offset })
            } else if let Some(blocks) = self.data.get(&source) {
                let count = data.size.div_ceil(block_size.into());
                if count > FILE_BLOCKS_MAX {
                    return Ok(None);
                }
                let first = lesson.blocks.len();
                let hole = Place { pack: None, block: BlockPlace::HOLE };
                lesson.blocks.resize(first + count as usize, hole);
                for &(number, block) in blocks {
                    lesson.blocks[first + number as usize] = Place { pack: None, block };
                }
                Some(Contents::Blocks { first: first as u32, count: count as u32 })
            } else {
                match &data.content {
                    Content::Sparse(extents) if extents.is_empty() => Some(Contents::Hole),
                    Content::Sparse(_) => None,
                    _ => Some(hidden.add(self, data, contents, &mut lesson)?),
                }
            };
            // A layer counts only as a whole.
            let Some(contents) = contents else { return Ok(None) };
            let hashes = hashes.get(&name);
            lesson.files.push(FileEntry {
                at: name.at,
                size: data.size,
                contents,
                head: hashes.and_then(|it| it.head.get().copied()),
                whole: hashes.and_then(|it| it.whole.get().copied()),
                proof: hashes.and_then(|it| it.proof.get().copied()),
            });
        }
        hidden.flush(self, &mut lesson)?;
        lesson.files.sort_by_key(|file| file.at);
        lesson.files.dedup_by_key(|file| file.at);
        Ok(Some(lesson))
    }

    /// The contents of a file whose bytes are those of a file in a known layer.
    fn of_known(&self, known: &Known, at: u64, lesson: &mut LayerLesson) -> Option<Contents> {
        let place = |block: BlockPlace| Place { pack: Some(known.packs[block.pack as usize].name()), block };
        let copied = |number: u32| {
            let fragment = known.index.fragments[number as usize];
            (fragment.key, fragment.raw_bytes, place(fragment.place))
        };
        Some(match known.index.files[known.at(at)?].contents {
            Contents::Hole => Contents::Hole,
            Contents::Fragment { number, offset } => {
                lesson.fragments.push(copied(number));
                Contents::Fragment { number: lesson.fragments.len() as u32 - 1, offset }
            }
            Contents::Pieces { first, count } => {
                let start = lesson.fragments.len() as u32;
                lesson.fragments.extend((first..first + count).map(copied));
                Contents::Pieces { first: start, count }
            }
            Contents::Blocks { first, count } => {
                let start = lesson.blocks.len() as u32;
                let blocks = &known.index.blocks[first as usize..(first + count) as usize];
                lesson.blocks.extend(blocks.iter().map(|&block| match block.word {
                    0 => Place { pack: None, block: BlockPlace::HOLE },
                    _ => place(block),
                }));
                Contents::Blocks { first: start, count }
            }
        })
    }

    /// What there is to keep, where there is anything. `layer_bytes` are the lengths of the layers' tars.
    ///
    /// # Errors
    /// What went wrong when blocks were kept.
    pub(super) fn learned(self, parameters: &str, layer_bytes: &[u64]) -> io::Result<Option<Learned>> {
        match (self.pack, self.failure) {
            (None, Some(error)) if error.kind() != io::ErrorKind::Unsupported => Err(error),
            (Some(pack), _) if !self.layers.is_empty() => {
                let own = pack.name();
                let mut is_needed = false;
                let indexes = self.layers.into_iter().map(|lesson| {
                    let bytes = layer_bytes.get(lesson.read.layer as usize).copied().unwrap_or_default();
                    lesson.index(parameters, bytes, own, &mut is_needed)
                });
                let indexes = indexes.collect();
                Ok(Some(Learned { pack: Some(pack).filter(|_| is_needed), indexes }))
            }
            _ => Ok(None),
        }
    }
}

impl LayerLesson {
    fn index(self, parameters: &str, bytes: u64, own: Name, is_own_needed: &mut bool) -> LayerIndex {
        let mut packs: Vec<Name> = Vec::new();
        let mut settle = |place: Place| {
            if place.block.word == 0 {
                return BlockPlace::HOLE;
            }
            let name = place.pack.unwrap_or(own);
            *is_own_needed |= name == own;
            let at = packs.iter().position(|&pack| pack == name).unwrap_or_else(|| {
                packs.push(name);
                packs.len() - 1
            });
            BlockPlace { pack: at as u32, ..place.block }
        };
        let blocks = self.blocks.into_iter().map(&mut settle).collect();
        let fragments = self.fragments.into_iter();
        let fragments =
            fragments.map(|(key, raw_bytes, place)| Fragment { key, raw_bytes, place: settle(place) }).collect();
        LayerIndex {
            diff_id: self.read.diff_id,
            parameters: parameters.to_string(),
            entries: self.read.entries(bytes),
            packs,
            blocks,
            fragments,
            files: self.files,
        }
    }
}

/// Packs files that no output shows, one after the other, fast.
struct Hidden {
    compressor: BlockCompressor,
    block_size: usize,
    raw: Vec<u8>,
    packed: Vec<u8>,
    /// The number that the fragment will have that is being filled; those of others may come between.
    open: Option<u32>,
}

impl Hidden {
    fn new(block_size: u32) -> io::Result<Hidden> {
        let compressor = BlockCompressor::new(HIDDEN).map_err(Error::into_io)?;
        Ok(Hidden { compressor, block_size: block_size as usize, raw: Vec::new(), packed: Vec::new(), open: None })
    }

    fn add(
        &mut self,
        lessons: &mut Lessons,
        data: &FileData,
        contents: &layers::Contents,
        lesson: &mut LayerLesson,
    ) -> io::Result<Contents> {
        if data.size < self.block_size as u64 {
            let size = data.size as usize;
            if self.raw.len() + size > self.block_size {
                self.flush(lessons, lesson)?;
            }
            let number = *self.open.get_or_insert_with(|| {
                lesson.fragments.push((None, 0, Place { pack: None, block: BlockPlace::HOLE }));
                lesson.fragments.len() as u32 - 1
            });
            let offset = self.raw.len();
            self.raw.resize(offset + size, 0);
            contents.read_at(data, &mut self.raw[offset..], 0)?;
            return Ok(Contents::Fragment { number, offset: offset as u32 });
        }
        let first = lesson.fragments.len() as u32;
        let (mut offset, mut raw) = (0, vec![0; self.block_size]);
        while offset < data.size {
            let length = (data.size - offset).min(self.block_size as u64) as usize;
            contents.read_at(data, &mut raw[..length], offset)?;
            let place = self.keep(lessons, &raw[..length])?;
            lesson.fragments.push((None, length as u32, place));
            offset += length as u64;
        }
        Ok(Contents::Pieces { first, count: lesson.fragments.len() as u32 - first })
    }

    fn flush(&mut self, lessons: &mut Lessons, lesson: &mut LayerLesson) -> io::Result<()> {
        if let Some(number) = self.open.take() {
            let raw = std::mem::take(&mut self.raw);
            let place = self.keep(lessons, &raw)?;
            lesson.fragments[number as usize] = (None, raw.len() as u32, place);
        }
        Ok(())
    }

    fn keep(&mut self, lessons: &mut Lessons, raw: &[u8]) -> io::Result<Place> {
        let word = self.compressor.compress(raw, &mut self.packed).map_err(Error::into_io)?;
        let bytes = &self.packed[..BlockCompressor::length(word)];
        let block = lessons.append(bytes, word, xxh3_128(bytes));
        let failed = || lessons.failure.take().unwrap_or_else(|| io::ErrorKind::Other.into());
        block.map(|block| Place { pack: None, block }).ok_or_else(failed)
    }
}
