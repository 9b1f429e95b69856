//! Work on layers that is done once: for one conversion, what is known of its layers, and what is learned of the others.
//!
//! Three things come together here: `layers`, which need not read a layer whose entries are known; `squashfs`, which need not
//! compress a block that it is given; and `derived`, which keeps both. A block is known by what goes into it: the digest of a
//! layer and a place in its tar for a file; all of these, in order, for a fragment. So nothing has to be hashed to find it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sha2::{Digest as _, Sha256};

use super::learn::{Learned, Lessons};
use crate::derived::{Accounts, BlockPlace, Contents, LayerIndex, Name, Pack, Store, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::{Compression, Monitor};
use crate::layers::{self, KnownContents, KnownLayer, KnownLayers, ReadLayer};
use crate::model::{Digest, Note};
use crate::squashfs::{BLOCK_CODECS, BlockDecoder, BlockName, ContentName, Hashes, Memo, MemoBlock};

/// Where derived work is kept, and whose counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkCache {
    /// The directory of the cache.
    pub directory: PathBuf,
    /// Whose work counts.
    pub accounts: Accounts,
    /// How large the cache may become, in bytes, downloads included.
    pub bytes_max: Option<u64>,
}

/// How the layers of [`Lessons`] that are not shown are compressed: fast.
pub(super) const HIDDEN: Compression = Compression::zstd(1);
/// How many fragments are held decoded, so that the files in one are not decoded one by one.
const DECODED_MAX: usize = 16;

/// Layers of fewer stored bytes are worked on sooner than a turn is taken.
const TURN_BYTES_MIN: u64 = 1 << 20;

/// What is known for one conversion.
pub(super) struct Reuse {
    store: Store,
    parameters: String,
    block_size: u32,
    diff_ids: Vec<Option<Digest>>,
    known: Vec<Option<Arc<Known>>>,
    /// Where fragments are that are known by name: in a known layer, at a number.
    fragments: BTreeMap<[u8; 32], (usize, u32)>,
    lessons: Mutex<Lessons>,
    /// Hashes of the files of layers that were read.
    hashes: Mutex<BTreeMap<ContentName, Arc<Hashes>>>,
    damage: Arc<Damage>,
    saved_bytes: AtomicU64,
    /// The turn to work on one layer: others that need it wait until it is kept.
    _turn: Option<Turn>,
}

/// Packs that turned out to be damaged.
#[derive(Debug, Default)]
struct Damage {
    found: AtomicBool,
    packs: Mutex<Vec<Name>>,
}

impl Damage {
    fn add(&self, pack: Name) -> io::Error {
        lock(&self.packs).push(pack);
        self.found.store(true, Relaxed);
        io::Error::other("an entry of the cache is damaged")
    }
}

/// A layer that is known, with its packs open.
pub(super) struct Known {
    pub(super) index: LayerIndex,
    pub(super) packs: Vec<Pack>,
    hashes: Vec<Hashes>,
    block_size: u64,
    decoder: Mutex<Decoders>,
    damage: Arc<Damage>,
}

/// Where a decoded block is: the number of its layer, and its offset there.
type DecodedAt = (u32, u64);

/// What it takes to read files of a known layer again.
struct Decoders {
    shown: BlockDecoder,
    hidden: BlockDecoder,
    packed: Vec<u8>,
    /// Fragments and blocks by where they are, the one that was used last at the end.
    decoded: Vec<(DecodedAt, Arc<Vec<u8>>)>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("diff_id", &self.index.diff_id).finish_non_exhaustive()
    }
}

impl Reuse {
    /// What is known of the layers of `image`, for blocks of this kind. Packs in `damaged` count as absent. Where another
    /// conversion is at work on the largest layer that is not known, waits for it: one turn at a time, so that no two
    /// conversions wait for each other.
    pub(super) fn open(
        cache: &WorkCache,
        image: &Image,
        compression: Compression,
        block_size: u32,
        damaged: &[Name],
        monitor: &Monitor,
    ) -> Result<Arc<Reuse>> {
        let store = Store::open(&cache.directory, &cache.accounts);
        let codecs = xxhash_rust::xxh3::xxh3_64(BLOCK_CODECS.as_bytes());
        let parameters = format!("{compression}-{block_size}-{codecs:016x}").replace(':', "-");
        let damage = Arc::new(Damage::default());
        let diff_ids: Vec<Option<Digest>> = image.layers.iter().map(|layer| layer.diff_id).collect();
        let load = || -> Result<Vec<Option<Arc<Known>>>> {
            let load_one = |diff_id: &Option<Digest>| {
                let loaded = diff_id.and_then(|id| store.load(id, &parameters, |pack| !damaged.contains(&pack)));
                let loaded = loaded.map(|(index, packs)| Known::new(index, packs, compression, block_size, &damage));
                Ok(loaded.transpose()?.map(Arc::new))
            };
            diff_ids.iter().map(load_one).collect()
        };
        let mut known = load()?;
        let mut turn = None;
        let mut at = None;
        while let Some(next) = largest_unknown(image, &known).filter(|&next| at != Some(next)) {
            // The one before goes first.
            drop(turn.take());
            (at, turn) = (Some(next), store.turn(next, &parameters, monitor)?);
            if turn.is_none() || !store.has(next, &parameters) {
                break;
            }
            known = load()?;
        }
        let mut fragments = BTreeMap::new();
        for (layer, known) in known.iter().enumerate() {
            let keyed = known.iter().flat_map(|known| known.index.fragments.iter().enumerate());
            fragments.extend(keyed.filter_map(|(number, it)| Some((it.key?, (layer, number as u32)))));
        }
        let lessons = Mutex::new(Lessons::new(&store));
        let (hashes, saved_bytes) = (Mutex::default(), AtomicU64::new(0));
        Ok(Arc::new(Reuse {
            store,
            parameters,
            block_size,
            diff_ids,
            known,
            fragments,
            lessons,
            hashes,
            damage,
            saved_bytes,
            _turn: turn,
        }))
    }

    /// Packs that turned out to be damaged, which are forgotten; what was written with them must be written again.
    pub(super) fn damaged(&self) -> Vec<Name> {
        if !self.damage.found.load(Relaxed) {
            return Vec::new();
        }
        let packs = std::mem::take(&mut *lock(&self.damage.packs));
        packs.iter().for_each(|&pack| self.store.forget(pack));
        packs
    }

    /// Hashes of a file, kept for later.
    pub(super) fn hashes(&self, name: ContentName) -> FileHashes {
        match self.known(name).and_then(|known| Some((known, known.at(name.at)?))) {
            Some((known, at)) => FileHashes::Known(Arc::clone(known), at),
            None => FileHashes::Learned(Arc::clone(lock(&self.hashes).entry(name).or_default())),
        }
    }

    fn known(&self, name: ContentName) -> Option<&Arc<Known>> {
        self.known.get(name.layer as usize)?.as_ref()
    }

    /// Keeps what no output shows of the layers that were read, and settles what there is to keep. Called when the image is
    /// written and its contents can still be read.
    pub(super) fn finish(&self, read: Vec<ReadLayer>, contents: &layers::Contents) {
        let hashes = std::mem::take(&mut *lock(&self.hashes));
        lock(&self.lessons).finish(read, contents, &hashes, self.block_size, &self.known);
    }

    /// Keeps what was learned, now that every digest has been verified. `layer_bytes` are the lengths of the layers' tars.
    pub(super) fn publish(&self, layer_bytes: &[u64], cache: &WorkCache) -> Vec<Note> {
        let lessons = std::mem::replace(&mut *lock(&self.lessons), Lessons::none());
        let reused = self.known.iter().flatten().count() as u64;
        let mut notes = Vec::new();
        if reused > 0 {
            let saved = self.saved_bytes.load(Relaxed);
            let text = format!("{reused} layers and {saved} compressed bytes came from the cache");
            notes.push(Note::new(super::CACHE_USED, text, 1));
        }
        let kept = lessons.learned(&self.parameters, layer_bytes).and_then(|learned| {
            let Some(Learned { pack, indexes }) = learned else { return Ok(()) };
            pack.map_or(Ok(()), crate::derived::PackWriter::finish)?;
            indexes.iter().try_for_each(|index| self.store.keep(index))?;
            cache.bytes_max.map_or(Ok(0), |bytes| crate::derived::limit(&cache.directory, bytes)).map(drop)
        });
        // Where all was there, nothing would have been kept.
        let refusal = self.store.refusal().filter(|_| reused < self.known.len() as u64).map(str::to_string);
        let refusal = refusal.or_else(|| kept.err().map(|error| error.to_string()));
        if let Some(refusal) = refusal {
            notes.push(Note::new(super::NOT_KEPT, format!("nothing was kept in the cache: {refusal}"), 1));
        }
        notes
    }

    /// What a fragment is called everywhere: a hash of the layers and places of its files, in order.
    fn key(&self, parts: &[(ContentName, u32)]) -> Option<[u8; 32]> {
        let mut hasher = Sha256::new();
        for (name, size) in parts {
            let diff_id = (*self.diff_ids.get(name.layer as usize)?)?;
            hasher.update(diff_id.algorithm().name());
            hasher.update(diff_id.as_bytes());
            hasher.update(name.at.to_le_bytes());
            hasher.update(size.to_le_bytes());
        }
        Some(hasher.finalize().into())
    }
}

/// The largest layer of which nothing is known, where it is worth a turn.
fn largest_unknown(image: &Image, known: &[Option<Arc<Known>>]) -> Option<Digest> {
    let unknown = image.layers.iter().zip(known).filter(|(_, known)| known.is_none());
    let sized = unknown.filter_map(|(layer, _)| {
        let blob = &layer.blob;
        let bytes = blob.size.or_else(|| Some(image.blobs.region(blob).ok()??.len))?;
        Some((bytes, layer.diff_id?))
    });
    sized.filter(|&(bytes, _)| bytes >= TURN_BYTES_MIN).max_by_key(|&(bytes, _)| bytes).map(|(_, diff_id)| diff_id)
}

/// Where the hashes of one file are kept.
pub(super) enum FileHashes {
    Known(Arc<Known>, usize),
    Learned(Arc<Hashes>),
}

impl FileHashes {
    pub(super) fn get(&self) -> &Hashes {
        match self {
            FileHashes::Known(known, at) => &known.hashes[*at],
            FileHashes::Learned(hashes) => hashes,
        }
    }
}

impl KnownLayers for Reuse {
    fn find(&self, layer: u32, _diff_id: Digest) -> Option<KnownLayer> {
        let known = self.known.get(layer as usize)?.as_ref()?;
        let contents: Arc<dyn KnownContents> = Arc::clone(known) as _;
        Some(KnownLayer { entries: known.index.entries.as_slice().into(), contents })
    }
}

impl Memo for Reuse {
    fn find(&self, name: &BlockName, packed: &mut Vec<u8>) -> Result<Option<u32>> {
        let found = match name {
            BlockName::Data { file, offset } => self
                .known(*file)
                .and_then(|known| Some((known, known.block(file.at, *offset, self.block_size.into())?))),
            BlockName::Fragment(parts) => {
                let place = self.key(parts).and_then(|key| self.fragments.get(&key));
                place.and_then(|&(layer, number)| {
                    let known = self.known[layer].as_ref()?;
                    Some((known, known.index.fragments[number as usize].place))
                })
            }
        };
        let Some((known, place)) = found else { return Ok(None) };
        if place.word != 0 {
            let length = known.read(&place, packed).map_err(|error| Error::io(ErrorKind::Other, error))?;
            self.saved_bytes.fetch_add(length as u64, Relaxed);
        }
        Ok(Some(place.word))
    }

    fn wrote(&self, name: &BlockName, block: &MemoBlock<'_>) {
        match name {
            BlockName::Data { file, offset } if self.known(*file).is_none() => {
                lock(&self.lessons).wrote_data(*file, offset / u64::from(self.block_size), block);
            }
            BlockName::Data { .. } => {}
            BlockName::Fragment(parts) => {
                let Some(key) = self.key(parts) else { return };
                let earlier = self.fragments.get(&key).and_then(|&(layer, number)| {
                    let known = self.known[layer].as_ref()?;
                    let place = known.index.fragments[number as usize].place;
                    Some((known.packs[place.pack as usize].name(), place))
                });
                lock(&self.lessons).wrote_fragment(key, parts, block, earlier);
            }
        }
    }

    fn same(&self, file: ContentName, earlier: ContentName) {
        if self.known(file).is_none() {
            lock(&self.lessons).same(file, earlier);
        }
    }
}

impl Known {
    fn new(
        index: LayerIndex,
        packs: Vec<Pack>,
        compression: Compression,
        block_size: u32,
        damage: &Arc<Damage>,
    ) -> Result<Known> {
        let hashes = index.files.iter().map(|file| Hashes {
            head: cell(file.head),
            whole: cell(file.whole),
            proof: cell(file.proof),
        });
        let hashes = hashes.collect();
        let decoder = Mutex::new(Decoders {
            shown: BlockDecoder::new(compression)?,
            hidden: BlockDecoder::new(HIDDEN)?,
            packed: Vec::new(),
            decoded: Vec::new(),
        });
        Ok(Known { index, packs, hashes, block_size: block_size.into(), decoder, damage: Arc::clone(damage) })
    }

    /// Which of the files begins at `at`.
    pub(super) fn at(&self, at: u64) -> Option<usize> {
        self.index.files.binary_search_by_key(&at, |file| file.at).ok()
    }

    /// The block of a file that begins at `offset`, where it has such.
    fn block(&self, at: u64, offset: u64, block_size: u64) -> Option<BlockPlace> {
        match self.index.files[self.at(at)?].contents {
            Contents::Blocks { first, count } => {
                let number = u32::try_from(offset / block_size).ok().filter(|&number| number < count)?;
                Some(self.index.blocks[(first + number) as usize])
            }
            _ => None,
        }
    }

    fn read(&self, place: &BlockPlace, packed: &mut Vec<u8>) -> io::Result<usize> {
        let pack = &self.packs[place.pack as usize];
        pack.read(place, packed).map_err(|_| self.damage.add(pack.name()))
    }

    /// The bytes of a block, of which `length` must be.
    fn decoded(&self, place: &BlockPlace, is_hidden: bool, length: usize) -> io::Result<Arc<Vec<u8>>> {
        let mut decoders = lock(&self.decoder);
        let key = (place.pack, place.offset);
        if let Some(at) = decoders.decoded.iter().position(|(each, _)| *each == key) {
            let found = decoders.decoded.remove(at);
            let raw = Arc::clone(&found.1);
            decoders.decoded.push(found);
            return Ok(raw);
        }
        let Decoders { shown, hidden, packed, decoded } = &mut *decoders;
        let count = self.read(place, packed)?;
        let mut raw = Vec::new();
        let decoder = if is_hidden { hidden } else { shown };
        let pack = self.packs[place.pack as usize].name();
        decoder.decode(&packed[..count], place.word, length, &mut raw).map_err(|_| self.damage.add(pack))?;
        if decoded.len() == DECODED_MAX {
            decoded.remove(0);
        }
        let raw = Arc::new(raw);
        decoded.push((key, Arc::clone(&raw)));
        Ok(raw)
    }

    /// Copies what stands at `offset` of a file that is cut into blocks.
    fn read_blocks(
        &self,
        buffer: &mut [u8],
        mut offset: u64,
        size: u64,
        block: impl Fn(u64) -> Option<(BlockPlace, bool)>,
    ) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let (number, within) = (offset / self.block_size, (offset % self.block_size) as usize);
            let length = self.block_size.min(size - number * self.block_size) as usize;
            let count = (length - within).min(buffer.len() - filled);
            let (place, is_hidden) = block(number).ok_or(io::ErrorKind::UnexpectedEof)?;
            let into = &mut buffer[filled..filled + count];
            if place.word == 0 {
                into.fill(0);
            } else {
                into.copy_from_slice(&self.decoded(&place, is_hidden, length)?[within..within + count]);
            }
            (filled, offset) = (filled + count, offset + count as u64);
        }
        Ok(())
    }
}

impl KnownContents for Known {
    fn read_at(&self, at: u64, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.at(at).map(|number| &self.index.files[number]).ok_or(io::ErrorKind::NotFound)?;
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= file.size);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        match file.contents {
            Contents::Hole => buffer.fill(0),
            Contents::Fragment { number, offset: start } => {
                let fragment = &self.index.fragments[number as usize];
                let length = fragment.raw_bytes as usize;
                let raw = self.decoded(&fragment.place, fragment.key.is_none(), length)?;
                let start = start as usize + offset as usize;
                buffer.copy_from_slice(&raw[start..start + buffer.len()]);
            }
            Contents::Blocks { first, count } => {
                let block =
                    |number| (number < count.into()).then(|| self.index.blocks[first as usize + number as usize]);
                self.read_blocks(buffer, offset, file.size, |number| Some((block(number)?, false)))?;
            }
            Contents::Pieces { first, count } => {
                let piece = |number| {
                    let within = number < u64::from(count);
                    within.then(|| (self.index.fragments[first as usize + number as usize].place, true))
                };
                self.read_blocks(buffer, offset, file.size, piece)?;
            }
        }
        Ok(())
    }
}

/// A cell that holds what is known already.
fn cell<T>(value: Option<T>) -> OnceLock<T> {
    value.map_or_else(OnceLock::new, OnceLock::from)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
