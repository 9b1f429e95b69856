//! Deflate streams (RFC 1951) that can be joined into one.
//!
//! libdeflate compresses faster than any compressor that can be interrupted, but what it writes always ends: its last block
//! says that it is the last. [`open_end`] takes that back. To find the block, codes are read and nothing is decoded.

use std::ops::Range;

use libdeflater::{CompressionLvl, Compressor};

use super::deflate_is_futile;

/// What is looked at as a whole whether it is worth compressing, in bytes.
const PIECE_BYTES: usize = 128 << 10;
/// libdeflate's level for what is stored as it is.
const LEVEL_STORED: u32 = 0;

/// The longest code of a block, in bits.
const CODE_BITS_MAX: usize = 15;
/// The order in which the lengths of the code for code lengths are written.
const LENGTHS_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Bits that follow each length symbol from 257 on, and each distance symbol.
const LENGTH_EXTRA: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const END_OF_BLOCK: usize = 256;

/// Cuts `bytes` where noise begins and ends. Each run comes with the level that it is worth: `level`, or none for noise.
pub(super) fn runs(bytes: &[u8], level: u32) -> Vec<(Range<usize>, u32)> {
    let mut runs = vec![(0..0, level)];
    for piece in bytes.chunks(PIECE_BYTES) {
        let worth = if deflate_is_futile(piece, level) { LEVEL_STORED } else { level };
        let end = runs.last().map_or(0, |(run, _)| run.end);
        match runs.last_mut() {
            Some((run, level)) if *level == worth || run.end == 0 => (run.end, *level) = (end + piece.len(), worth),
            _ => runs.push((end..end + piece.len(), worth)),
        }
    }
    runs
}

/// Compresses `bytes` at a level from 0 to 12 into a stream of its own; `None` is a bug.
pub(super) fn compress(bytes: &[u8], level: u32) -> Option<Vec<u8>> {
    let mut compressor = Compressor::new(CompressionLvl::new(level as i32).ok()?);
    let mut out = vec![0; compressor.deflate_compress_bound(bytes.len())];
    let written = compressor.deflate_compress(bytes, &mut out).ok()?;
    out.truncate(written);
    Some(out)
}

/// Changes a stream that ends so that another may follow: its last block is no longer said to be the last, and an empty
/// stored one brings it to the end of a byte. `None` where it is not a deflate stream.
pub(super) fn open_end(stream: &mut Vec<u8>) -> Option<()> {
    let (begin, end) = last_block(stream)?;
    stream[begin / 8] &= !(1 << (begin % 8));
    // Not the last, stored: three zeros, then zeros up to the next byte; they are there as far as the byte goes.
    stream.resize((end + 3).div_ceil(8), 0);
    stream.extend_from_slice(&[0, 0, 0xff, 0xff]);
    Some(())
}

/// Where the last block begins, and where it ends, in bits.
fn last_block(stream: &[u8]) -> Option<(usize, usize)> {
    let mut bits = Bits::new(stream);
    loop {
        let begin = bits.position();
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => bits.skip_stored()?,
            1 => {
                let mut lengths = [8; 288];
                lengths[144..256].fill(9);
                lengths[256..280].fill(7);
                skip_codes(&mut bits, &Codes::literals(&lengths)?, &Codes::distances(&[5; 30])?)?;
            }
            2 => {
                let (literals, distances) = read_codes(&mut bits)?;
                skip_codes(&mut bits, &literals, &distances)?;
            }
            _ => return None,
        }
        if last {
            return Some((begin, bits.position()));
        }
    }
}

/// The two codes of a dynamic block.
fn read_codes(bits: &mut Bits<'_>) -> Option<(Codes, Codes)> {
    let literals = bits.take(5)? as usize + 257;
    let distances = bits.take(5)? as usize + 1;
    let count = bits.take(4)? as usize + 4;
    let mut lengths = [0; 19];
    for &symbol in &LENGTHS_ORDER[..count] {
        lengths[symbol] = bits.take(3)? as u8;
    }
    let code = Codes::new(&lengths, |symbol| symbol as u8)?;
    let mut lengths = Vec::with_capacity(literals + distances);
    while lengths.len() < literals + distances {
        match bits.symbol(&code)? {
            16 => {
                let before = *lengths.last()?;
                let times = 3 + bits.take(2)?;
                lengths.extend((0..times).map(|_| before));
            }
            17 => lengths.resize(lengths.len() + 3 + bits.take(3)? as usize, 0),
            18 => lengths.resize(lengths.len() + 11 + bits.take(7)? as usize, 0),
            length => lengths.push(length),
        }
    }
    let (literals, distances) = lengths.get(..literals + distances)?.split_at(literals);
    Some((Codes::literals(literals)?, Codes::distances(distances)?))
}

/// Reads on to the end of a block.
fn skip_codes(bits: &mut Bits<'_>, literals: &Codes, distances: &Codes) -> Option<()> {
    loop {
        match bits.symbol(literals)? {
            LITERAL => {}
            END => return Some(()),
            extra => {
                bits.take(u32::from(extra))?;
                let extra = bits.symbol(distances)?;
                bits.take(u32::from(extra))?;
            }
        }
    }
}

/// What a symbol of the first code means to us; anything else is the number of bits that follow a length.
const LITERAL: u8 = 0xff;
const END: u8 = 0xfe;

/// A Huffman code: for each of the next bits, how long the code word in them is and what it means.
struct Codes {
    table: Vec<(u8, u8)>,
    mask: u64,
}

impl Codes {
    fn literals(lengths: &[u8]) -> Option<Self> {
        Codes::new(lengths, |symbol| match symbol {
            0..END_OF_BLOCK => LITERAL,
            END_OF_BLOCK => END,
            _ => LENGTH_EXTRA.get(symbol - END_OF_BLOCK - 1).copied().unwrap_or(0),
        })
    }

    fn distances(lengths: &[u8]) -> Option<Self> {
        Codes::new(lengths, |symbol| DISTANCE_EXTRA.get(symbol).copied().unwrap_or(0))
    }

    /// The canonical code whose words have these lengths; 0 is a symbol that does not occur.
    fn new(lengths: &[u8], meaning: impl Fn(usize) -> u8) -> Option<Self> {
        let longest = usize::from(lengths.iter().copied().max().unwrap_or(0));
        let mut counts = [0_u32; CODE_BITS_MAX + 1];
        for &length in lengths.iter().filter(|&&length| length > 0) {
            *counts.get_mut(usize::from(length))? += 1;
        }
        let mut next = [0_u32; CODE_BITS_MAX + 2];
        for length in 1..=CODE_BITS_MAX {
            next[length + 1] = (next[length] + counts[length]) << 1;
        }
        let mut table = vec![(0, 0); 1 << longest];
        for (symbol, &length) in lengths.iter().enumerate().filter(|&(_, &length)| length > 0) {
            let word = next[usize::from(length)];
            next[usize::from(length)] += 1;
            // Words are written from their highest bit on, and bits are read from the lowest on.
            let first = (word.reverse_bits() >> (32 - u32::from(length))) as usize;
            // More words than there can be: no code.
            if word >> length != 0 {
                return None;
            }
            table.iter_mut().skip(first).step_by(1 << length).for_each(|entry| *entry = (length, meaning(symbol)));
        }
        Some(Codes { mask: table.len() as u64 - 1, table })
    }
}

/// Reads bits, the lowest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in `buffer`.
    next: usize,
    buffer: u64,
    /// How many bits of `buffer` count.
    count: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Bits { bytes, next: 0, buffer: 0, count: 0 }
    }

    fn position(&self) -> usize {
        self.next * 8 - self.count as usize
    }

    /// Has at least 56 bits in the buffer, or all there are.
    #[inline]
    fn fill(&mut self) {
        if let Some(word) = self.bytes.get(self.next..).and_then(|rest| rest.first_chunk::<8>()) {
            // What is taken in of a byte that does not fit whole is taken in again, the same, next time.
            self.buffer |= u64::from_le_bytes(*word) << self.count;
            self.next += (63 - self.count as usize) >> 3;
            self.count |= 56;
            return;
        }
        while self.count <= 56 && self.next < self.bytes.len() {
            self.buffer |= u64::from(self.bytes[self.next]) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }

    /// The next bits as a number, at most 32.
    #[inline]
    fn take(&mut self, bits: u32) -> Option<u64> {
        if self.count < bits {
            self.fill();
        }
        let taken = self.buffer & ((1 << bits) - 1);
        self.drop(bits)?;
        Some(taken)
    }

    #[inline]
    fn drop(&mut self, bits: u32) -> Option<()> {
        self.count = self.count.checked_sub(bits)?;
        self.buffer >>= bits;
        Some(())
    }

    /// What the next code word means.
    #[inline]
    fn symbol(&mut self, codes: &Codes) -> Option<u8> {
        if self.count < CODE_BITS_MAX as u32 {
            self.fill();
        }
        let (length, meaning) = codes.table[(self.buffer & codes.mask) as usize];
        if length == 0 {
            return None;
        }
        self.drop(u32::from(length))?;
        Some(meaning)
    }

    fn skip_stored(&mut self) -> Option<()> {
        let start = self.position().div_ceil(8);
        let length = self.bytes.get(start..start + 2)?;
        self.next = start + 4 + usize::from(u16::from_le_bytes([length[0], length[1]]));
        (self.buffer, self.count) = (0, 0);
        (self.next <= self.bytes.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Bytes with all that makes blocks of each kind.
    fn samples() -> Vec<Vec<u8>> {
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let noise: Vec<u8> = (0..400_000).map(|_| random() as u8).collect();
        let weights: Vec<u8> =
            (0..200_000).flat_map(|_| ((random() as f32 / u32::MAX as f32) - 0.25).to_le_bytes()).collect();
        let words: Vec<u8> = (0..200_000).flat_map(|_| format!("word{} ", random() % 5000).into_bytes()).collect();
        let skewed: Vec<u8> = (0..300_000).map(|_| (random().trailing_zeros() * 7) as u8).collect();
        let mixed = [&noise[..70_000], &words[..200_000], &[0; 100_000], &weights[..300_000]].concat();
        vec![Vec::new(), b"x".to_vec(), vec![7; 1 << 20], noise, weights, words, skewed, mixed]
    }

    #[test]
    fn runs_end_where_noise_does() {
        let samples = samples();
        let (noise, words) = (&samples[3][..3 * PIECE_BYTES], &samples[5][..2 * PIECE_BYTES]);
        let bytes = [words, noise, &words[..PIECE_BYTES + 5]].concat();
        let piece = |pieces: usize| pieces * PIECE_BYTES;
        let expected = vec![(0..piece(2), 6), (piece(2)..piece(5), LEVEL_STORED), (piece(5)..bytes.len(), 6)];
        assert_eq!(runs(&bytes, 6), expected);
        assert_eq!(runs(&bytes[piece(2)..], 1), [(0..piece(3), LEVEL_STORED), (piece(3)..bytes.len() - piece(2), 1)]);
        assert_eq!(runs(&bytes, 12), [(0..bytes.len(), 12)], "every byte counts");
        assert_eq!(runs(&[], 6), [(0..0, 6)]);
    }

    #[test]
    fn opened_streams_join_into_one() {
        for level in [1, 2, 6, 9, 12] {
            let (mut joined, mut expected) = (Vec::new(), Vec::new());
            for sample in samples() {
                for part in [&sample[..], &sample[..sample.len() / 3]] {
                    let mut stream = compress(part, level).unwrap();
                    assert_eq!(last_block(&stream).unwrap().1.div_ceil(8), stream.len(), "level {level}");
                    open_end(&mut stream).unwrap();
                    joined.extend_from_slice(&stream);
                    expected.extend_from_slice(part);
                }
            }
            joined.extend_from_slice(&compress(b"the end", level).unwrap());
            expected.extend_from_slice(b"the end");
            let mut found = Vec::new();
            let mut decoder = flate2::bufread::DeflateDecoder::new(&joined[..]);
            decoder.read_to_end(&mut found).unwrap();
            assert!(found == expected && decoder.total_in() == joined.len() as u64, "level {level}");
        }
    }

    #[test]
    fn what_is_no_deflate_stream_is_told_from_one() {
        let whole = compress(&samples()[5], 6).unwrap();
        for length in (0..whole.len()).step_by(997) {
            assert_eq!(last_block(&whole[..length]), None, "cut to {length}");
        }
        assert_eq!(last_block(&[0xff; 100]), None);
    }
}
