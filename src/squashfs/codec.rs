//! Compressors and decompressors of blocks, with their buffers and state kept from block to block.

use libdeflater::{CompressionLvl, DecompressionError};
use liblzma::stream::{Action, Status, Stream};
use zstd::zstd_safe::CParameter;

use super::format::{BlockCodec, DATA_STORED};
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::io::{Codec, Compression, Levels, deflate_is_futile};

/// A compressor that is used for many blocks.
pub(super) enum Compressor {
    Gzip { level: u32, compressor: libdeflater::Compressor },
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Compressor {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        let compression = Levels::SQUASHFS.settle(Some(compression))?;
        let level = compression.level().unwrap_or_default();
        if compression.kind() == Codec::Gzip {
            let known = CompressionLvl::new(level as i32);
            let known = known.map_err(|_| Error::new(ErrorKind::Bug, format!("libdeflate has no level {level}")))?;
            return Ok(Compressor::Gzip { level, compressor: libdeflater::Compressor::new(known) });
        }
        let mut compressor = zstd::bulk::Compressor::new(level as i32).or_kind(ErrorKind::Other)?;
        // squashfs has no checksums of its own: four bytes a block buy the detection of damage.
        compressor.set_parameter(CParameter::ChecksumFlag(true)).or_kind(ErrorKind::Other)?;
        Ok(Compressor::Zstd(compressor))
    }

    /// Compresses `raw` into the start of `packed` and returns the length, or nothing where that would not make it
    /// smaller: it is then to be stored as it is. `packed` only ever grows, so that a used buffer costs nothing.
    pub(super) fn compress(&mut self, raw: &[u8], packed: &mut Vec<u8>) -> Result<Option<usize>> {
        let length = match self {
            Compressor::Gzip { level, .. } if deflate_is_futile(raw, *level) => None,
            Compressor::Gzip { compressor, .. } => {
                // No room for a result that is not smaller: libdeflate gives up then.
                let room = raw.len().saturating_sub(1);
                grow(packed, room);
                compressor.zlib_compress(raw, &mut packed[..room]).ok()
            }
            Compressor::Zstd(compressor) => {
                grow(packed, zstd::zstd_safe::compress_bound(raw.len()));
                Some(compressor.compress_to_buffer(raw, &mut packed[..]).or_kind(ErrorKind::Other)?)
            }
        };
        Ok(length.filter(|&length| length < raw.len()))
    }
}

/// Everything that decides which bytes a block becomes, besides its compression and level: blocks that were compressed with
/// something else are not what would be written now. A test compares it with the versions in `Cargo.lock`.
pub const BLOCK_CODECS: &str = "libdeflate-sys 1.26.1, zstd-sys 2.1.3, noise 1";

/// Compresses single blocks as a [`Writer`](super::Writer) does.
pub struct BlockCompressor(Compressor);

impl BlockCompressor {
    /// For blocks of this compression.
    ///
    /// # Errors
    /// As [`BlockDecoder::new`].
    pub fn new(compression: Compression) -> Result<Self> {
        Compressor::new(compression).map(BlockCompressor)
    }

    /// Puts the block into the start of `packed`, which only ever grows; its length with the bit that says whether it is stored
    /// as it is.
    ///
    /// # Errors
    /// When the compressor fails.
    pub fn compress(&mut self, raw: &[u8], packed: &mut Vec<u8>) -> Result<u32> {
        if let Some(length) = self.0.compress(raw, packed)? {
            return Ok(length as u32);
        }
        packed.clear();
        packed.extend_from_slice(raw);
        Ok(raw.len() as u32 | DATA_STORED)
    }

    /// The length in what [`BlockCompressor::compress`] returns.
    pub fn length(word: u32) -> usize {
        (word & !DATA_STORED) as usize
    }
}

/// Reads blocks again that a [`Writer`](super::Writer) wrote.
pub struct BlockDecoder(Decompressor);

impl BlockDecoder {
    /// For blocks of this compression.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when squashfs is not written so; when the decoder cannot be made.
    pub fn new(compression: Compression) -> Result<Self> {
        let kind = Levels::SQUASHFS.settle(Some(compression))?.kind();
        Decompressor::new(if kind == Codec::Zstd { BlockCodec::Zstd } else { BlockCodec::Gzip }).map(BlockDecoder)
    }

    /// Decodes `packed`, whose length with the bit that says whether it is stored as it is are `word`, into `raw`, which must
    /// become `length` bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it does not.
    pub fn decode(&mut self, packed: &[u8], word: u32, length: usize, raw: &mut Vec<u8>) -> Result<()> {
        if word & DATA_STORED != 0 {
            raw.clear();
            raw.extend_from_slice(packed);
        } else {
            self.0.decompress(packed, length, raw).map_err(|text| Error::new(ErrorKind::InvalidImage, text))?;
        }
        if raw.len() == length {
            return Ok(());
        }
        let message = format!("a block of {} bytes should have {length}", raw.len());
        Err(Error::new(ErrorKind::InvalidImage, message))
    }
}

fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

/// What the xz and lzma decoders may allocate: mksquashfs takes no dictionary above the block size of 1 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 64 << 20;

/// A decompressor that is used for many blocks.
pub(super) enum Decompressor {
    Gzip(libdeflater::Decompressor),
    Lzma,
    Lzo,
    Xz,
    Lz4,
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl Decompressor {
    pub(super) fn new(codec: BlockCodec) -> Result<Self> {
        Ok(match codec {
            BlockCodec::Gzip => Decompressor::Gzip(libdeflater::Decompressor::new()),
            BlockCodec::Lzma => Decompressor::Lzma,
            BlockCodec::Lzo => Decompressor::Lzo,
            BlockCodec::Xz => Decompressor::Xz,
            BlockCodec::Lz4 => Decompressor::Lz4,
            BlockCodec::Zstd => Decompressor::Zstd(zstd::bulk::Decompressor::new().or_kind(ErrorKind::Other)?),
        })
    }

    /// Decompresses `packed`, which holds at most `limit` bytes, into `raw`.
    ///
    /// # Errors
    /// What is wrong with the block, in words.
    pub(super) fn decompress(
        &mut self,
        packed: &[u8],
        limit: usize,
        raw: &mut Vec<u8>,
    ) -> std::result::Result<(), String> {
        let too_long = || format!("it holds more than {limit} bytes");
        raw.resize(limit, 0);
        let length = match self {
            Decompressor::Gzip(decompressor) => {
                decompressor.zlib_decompress(packed, raw).map_err(|error| match error {
                    DecompressionError::BadData => "the zlib data is damaged".to_string(),
                    DecompressionError::InsufficientSpace => too_long(),
                })?
            }
            Decompressor::Lzo => lzokay::decompress::decompress(packed, raw).map_err(|error| match error {
                lzokay::Error::OutputOverrun => too_long(),
                error => format!("the lzo data is damaged: {error}"),
            })?,
            Decompressor::Lz4 => lz4_flex::block::decompress_into(packed, raw).map_err(|error| match error {
                lz4_flex::block::DecompressError::OutputTooSmall { .. } => too_long(),
                error => format!("the lz4 data is damaged: {error}"),
            })?,
            Decompressor::Lzma => of_liblzma(Stream::new_lzma_decoder(XZ_MEMORY_BYTES_MAX), "lzma", packed, raw)?,
            Decompressor::Xz => of_liblzma(Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, 0), "xz", packed, raw)?,
            Decompressor::Zstd(decompressor) => {
                raw.clear();
                raw.reserve_exact(limit);
                decompressor
                    .decompress_to_buffer(packed, raw)
                    .map_err(|error| format!("the zstd data is damaged: {error}"))?;
                if raw.len() > limit {
                    return Err(too_long());
                }
                raw.len()
            }
        };
        raw.truncate(length);
        Ok(())
    }
}

/// Decodes all of `packed`, which must end its stream, into the start of `raw`.
fn of_liblzma(
    stream: std::result::Result<Stream, liblzma::stream::Error>,
    name: &str,
    packed: &[u8],
    raw: &mut [u8],
) -> std::result::Result<usize, String> {
    let damaged = |error: liblzma::stream::Error| format!("the {name} data is damaged: {error}");
    let mut stream = stream.map_err(damaged)?;
    let status = stream.process(packed, raw, Action::Finish).map_err(damaged)?;
    let length = stream.total_out() as usize;
    match status {
        Status::StreamEnd => Ok(length),
        _ if length == raw.len() => Err(format!("it holds more than {length} bytes")),
        _ => Err(format!("the {name} data is cut short")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The six forms of the same text, of which five are made here: mksquashfs writes lzma that another test reads.
    fn packed(codec: BlockCodec, text: &[u8]) -> Option<Vec<u8>> {
        let liblzma = |stream: Stream| {
            let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
            std::io::Write::write_all(&mut encoder, text).unwrap();
            encoder.finish().unwrap()
        };
        let options = liblzma::stream::LzmaOptions::new_preset(6).unwrap();
        Some(match codec {
            BlockCodec::Gzip => {
                let mut packed = Vec::new();
                let length = Compressor::new(Compression::GZIP).unwrap().compress(text, &mut packed).unwrap()?;
                packed.truncate(length);
                packed
            }
            BlockCodec::Zstd => zstd::bulk::compress(text, 3).unwrap(),
            BlockCodec::Lz4 => lz4_flex::block::compress(text),
            BlockCodec::Lzo => lzokay::compress::compress(text).unwrap(),
            BlockCodec::Xz => liblzma(Stream::new_easy_encoder(6, liblzma::stream::Check::Crc32).unwrap()),
            BlockCodec::Lzma => liblzma(Stream::new_lzma_encoder(&options).unwrap()),
        })
    }

    #[test]
    fn the_codecs_are_those_of_the_lock_file() {
        let lock = include_str!("../../Cargo.lock");
        let version = |name: &str| {
            let at = lock.find(&format!("name = \"{name}\"\nversion = \"")).unwrap();
            lock[at..].split('"').nth(3).unwrap().split('+').next().unwrap()
        };
        let found = format!("libdeflate-sys {}, zstd-sys {}, noise 1", version("libdeflate-sys"), version("zstd-sys"));
        assert_eq!(found, BLOCK_CODECS, "kept blocks of other codecs must not be used: change the constant");
    }

    #[test]
    fn every_codec_is_read_and_bounded() {
        let text = b"a text that repeats itself, ".repeat(300);
        for id in 1..=6 {
            let codec = BlockCodec::from_id(id).unwrap();
            let packed = packed(codec, &text).unwrap();
            let mut raw = Vec::new();
            let mut decode = |packed: &[u8], limit| {
                let mut decompressor = Decompressor::new(codec).unwrap();
                decompressor.decompress(packed, limit, &mut raw).map(|()| raw.clone())
            };
            assert_eq!(decode(&packed, text.len()).as_ref(), Ok(&text), "{codec:?}");
            assert_eq!(decode(&packed, 128 << 10).as_ref(), Ok(&text), "{codec:?}");
            assert!(decode(&packed, text.len() - 1).is_err(), "{codec:?}: more came out than there is room for");
            for cut in 0..packed.len() {
                assert_ne!(decode(&packed[..cut], text.len()).as_ref(), Ok(&text), "{codec:?}, cut at {cut}");
            }
        }
        assert!(BlockCodec::from_id(0).is_err() && BlockCodec::from_id(7).is_err());
    }
}
