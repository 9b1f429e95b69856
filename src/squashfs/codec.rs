//! The two compressors, with their buffers and state kept from block to block.

use libdeflater::{CompressionLvl, DecompressionError};
use zstd::zstd_safe::CParameter;

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

fn grow(buffer: &mut Vec<u8>, length: usize) {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
}

/// A decompressor that is used for many blocks.
pub(super) enum Decompressor {
    Gzip(libdeflater::Decompressor),
    Zstd(zstd::bulk::Decompressor<'static>),
}

impl Decompressor {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression.kind() {
            Codec::Zstd => Decompressor::Zstd(zstd::bulk::Decompressor::new().or_kind(ErrorKind::Other)?),
            _ => Decompressor::Gzip(libdeflater::Decompressor::new()),
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
        match self {
            Decompressor::Gzip(decompressor) => {
                raw.resize(limit, 0);
                let length = decompressor.zlib_decompress(packed, raw).map_err(|error| match error {
                    DecompressionError::BadData => "the zlib data is damaged".to_string(),
                    DecompressionError::InsufficientSpace => format!("it holds more than {limit} bytes"),
                })?;
                raw.truncate(length);
            }
            Decompressor::Zstd(decompressor) => {
                raw.clear();
                raw.reserve_exact(limit);
                decompressor
                    .decompress_to_buffer(packed, raw)
                    .map_err(|error| format!("the zstd data is damaged: {error}"))?;
                if raw.len() > limit {
                    return Err(format!("it holds more than {limit} bytes"));
                }
            }
        }
        Ok(())
    }
}
