use std::fmt;
use std::io;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_128;

use crate::io::wire::{Decoder, Encoder, malformed};
use crate::model::Digest;

/// What every index begins with. Another layout of the bytes gets another number.
const MAGIC: &[u8] = b"sif-convert layer 1\n";
const SUM_BYTES: usize = 16;

/// The name of a pack: a hash of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name(pub(crate) u128);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Name {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Name)
    }
}

/// Where a block is, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    /// Which pack, as the holder counts them.
    pub(crate) pack: u32,
    /// Its length with the bit that says whether it is stored as it is; 0 for a hole, which is nowhere.
    pub(crate) word: u32,
    /// First byte, from the start of the pack.
    pub(crate) offset: u64,
    /// The XXH3-128 of its bytes.
    pub(crate) sum: u128,
}

impl BlockPlace {
    /// A block of zeros.
    pub(crate) const HOLE: BlockPlace = BlockPlace { pack: 0, word: 0, offset: 0, sum: 0 };
}

/// A block that holds small files, or parts of files that no output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// A hash of the names of the files in it, in their order. `None` where no output may have it: it is compressed in
    /// another way.
    pub(crate) key: Option<[u8; 32]>,
    /// How many bytes it holds.
    pub(crate) raw_bytes: u32,
    pub(crate) place: BlockPlace,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contents {
    /// In blocks of their own, `count` of them from block `first` of the index on.
    Blocks { first: u32, count: u32 },
    /// In a fragment, from `offset` on.
    Fragment { number: u32, offset: u32 },
    /// In `count` fragments from number `first` on, which hold nothing else, each but the last as long as a block.
    Pieces { first: u32, count: u32 },
    /// Only zeros.
    Hole,
}

/// A regular file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEntry {
    /// Where its data begins in the layer's tar.
    pub(crate) at: u64,
    pub(crate) size: u64,
    pub(crate) contents: Contents,
    /// Hashes by which it is compared with others, as far as they were computed.
    pub(crate) head: Option<u128>,
    pub(crate) whole: Option<u128>,
    pub(crate) proof: Option<[u8; 32]>,
}

/// All that is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerIndex {
    pub(crate) diff_id: Digest,
    /// How its blocks were made: compression, level, block size, versions.
    pub(crate) parameters: String,
    /// Its entries; this room does not look at them.
    pub(crate) entries: Vec<u8>,
    pub(crate) packs: Vec<Name>,
    pub(crate) blocks: Vec<BlockPlace>,
    pub(crate) fragments: Vec<Fragment>,
    /// In the order of their places in the tar.
    pub(crate) files: Vec<FileEntry>,
}

impl LayerIndex {
    /// The bytes of a file that holds it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Encoder(MAGIC.to_vec());
        to.bytes(self.diff_id.to_string().as_bytes());
        to.bytes(self.parameters.as_bytes());
        to.bytes(&self.entries);
        to.number(self.packs.len() as u64);
        self.packs.iter().for_each(|name| to.raw(&name.0.to_le_bytes()));
        let mut near = 0;
        to.number(self.blocks.len() as u64);
        self.blocks.iter().for_each(|block| encode_place(block, &mut near, &mut to));
        to.number(self.fragments.len() as u64);
        for fragment in &self.fragments {
            encode_optional(fragment.key.as_ref().map(<[u8; 32]>::as_slice), &mut to);
            to.number(fragment.raw_bytes.into());
            encode_place(&fragment.place, &mut near, &mut to);
        }
        to.number(self.files.len() as u64);
        for file in &self.files {
            encode_file(file, &mut to);
        }
        let sum = xxh3_128(&to.0);
        to.raw(&sum.to_le_bytes());
        to.0
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When a byte of it is not what was written, or it contradicts itself.
    pub(crate) fn decode(bytes: &[u8]) -> io::Result<LayerIndex> {
        let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or_else(malformed)?;
        if xxh3_128(body) != u128::from_le_bytes(*sum) {
            return Err(malformed());
        }
        let mut from = Decoder(body.strip_prefix(MAGIC).ok_or_else(malformed)?);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| malformed());
        let diff_id = text(from.bytes()?)?.parse().map_err(|_| malformed())?;
        let parameters = text(from.bytes()?)?;
        let entries = from.bytes()?.to_vec();
        let names = (0..from.count()?).map(|_| Ok(Name(u128::from_le_bytes(from.array()?))));
        let packs = names.collect::<io::Result<Vec<_>>>()?;
        let mut near = 0;
        let count = from.count()?;
        let blocks = (0..count).map(|_| decode_place(&mut near, packs.len(), &mut from)).collect::<io::Result<_>>()?;
        let count = from.count()?;
        let fragments = (0..count).map(|_| {
            let key = decode_optional(&mut from)?;
            let raw_bytes = from.small()?;
            Ok(Fragment { key, raw_bytes, place: decode_place(&mut near, packs.len(), &mut from)? })
        });
        let fragments = fragments.collect::<io::Result<_>>()?;
        let count = from.count()?;
        let files = (0..count).map(|_| decode_file(&mut from)).collect::<io::Result<_>>()?;
        from.end()?;
        let index = LayerIndex { diff_id, parameters, entries, packs, blocks, fragments, files };
        if index.is_consistent() { Ok(index) } else { Err(malformed()) }
    }

    /// Whether all that it points to is there.
    fn is_consistent(&self) -> bool {
        let within = |first: u32, count: u32, of: usize| u64::from(first) + u64::from(count) <= of as u64;
        let is_sorted = self.files.windows(2).all(|pair| pair[0].at < pair[1].at);
        is_sorted
            && self.files.iter().all(|file| match file.contents {
                Contents::Blocks { first, count } => within(first, count, self.blocks.len()),
                Contents::Pieces { first, count } => within(first, count, self.fragments.len()),
                Contents::Hole => true,
                Contents::Fragment { number, offset } => {
                    let fragment = self.fragments.get(number as usize);
                    let end = u64::from(offset).checked_add(file.size);
                    fragment.is_some_and(|it| end.is_some_and(|end| end <= it.raw_bytes.into()))
                }
            })
    }
}

/// Blocks mostly follow one another: what is written is how far each is from the end of the last.
fn encode_place(place: &BlockPlace, near: &mut u64, to: &mut Encoder) {
    to.number(place.word.into());
    if place.word != 0 {
        to.number(place.pack.into());
        to.signed(place.offset.wrapping_sub(*near) as i64);
        to.raw(&place.sum.to_le_bytes());
        *near = place.offset.wrapping_add(place.word.into());
    }
}

fn decode_place(near: &mut u64, packs: usize, from: &mut Decoder<'_>) -> io::Result<BlockPlace> {
    let word: u32 = from.small()?;
    if word == 0 {
        return Ok(BlockPlace::HOLE);
    }
    let pack: u32 = from.small()?;
    let offset = near.wrapping_add(from.signed()? as u64);
    *near = offset.wrapping_add(word.into());
    let sum = u128::from_le_bytes(from.array()?);
    if pack as usize >= packs { Err(malformed()) } else { Ok(BlockPlace { pack, word, offset, sum }) }
}

fn encode_optional(value: Option<&[u8]>, to: &mut Encoder) {
    to.raw(&[u8::from(value.is_some())]);
    value.into_iter().for_each(|bytes| to.raw(bytes));
}

fn decode_optional<const N: usize>(from: &mut Decoder<'_>) -> io::Result<Option<[u8; N]>> {
    match from.byte()? {
        0 => Ok(None),
        1 => from.array().map(Some),
        _ => Err(malformed()),
    }
}

fn encode_file(file: &FileEntry, to: &mut Encoder) {
    to.number(file.at);
    to.number(file.size);
    let (kind, one, other) = match file.contents {
        Contents::Blocks { first, count } => (0, first, count),
        Contents::Fragment { number, offset } => (1, number, offset),
        Contents::Pieces { first, count } => (2, first, count),
        Contents::Hole => (3, 0, 0),
    };
    to.raw(&[kind]);
    to.number(one.into());
    to.number(other.into());
    encode_optional(file.head.map(u128::to_le_bytes).as_ref().map(<[u8; 16]>::as_slice), to);
    encode_optional(file.whole.map(u128::to_le_bytes).as_ref().map(<[u8; 16]>::as_slice), to);
    encode_optional(file.proof.as_ref().map(<[u8; 32]>::as_slice), to);
}

fn decode_file(from: &mut Decoder<'_>) -> io::Result<FileEntry> {
    let (at, size) = (from.number()?, from.number()?);
    let (kind, one, other) = (from.byte()?, from.small()?, from.small()?);
    let contents = match kind {
        0 => Contents::Blocks { first: one, count: other },
        1 => Contents::Fragment { number: one, offset: other },
        2 => Contents::Pieces { first: one, count: other },
        3 => Contents::Hole,
        _ => return Err(malformed()),
    };
    let head = decode_optional(from)?.map(u128::from_le_bytes);
    let whole = decode_optional(from)?.map(u128::from_le_bytes);
    Ok(FileEntry { at, size, contents, head, whole, proof: decode_optional(from)? })
}
