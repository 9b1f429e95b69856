use std::fmt;
use std::io::{self, BufRead, Read};

use flate2::bufread::MultiGzDecoder;

/// How a stream is compressed, told by its first bytes and never by a name or a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1952, one member or many.
    Gzip,
    /// RFC 8878, one frame or many, skippable ones included.
    Zstd,
    /// The .xz format.
    Xz,
    /// bzip2, one stream or many.
    Bzip2,
}

/// Largest zstd window that is accepted, as a power of two: 128 MiB, what `zstd -d` takes without `--long`. It bounds what
/// a hostile frame can make us allocate.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// What the xz decoder may allocate: the preset -9 needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;

impl Codec {
    /// How many bytes [`Codec::sniff`] wants to see.
    pub const SNIFF_BYTES: usize = 10;

    /// Tells the codec from a stream's first bytes.
    pub fn sniff(start: &[u8]) -> Codec {
        match start {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            // A skippable frame: zstd:chunked and some parallel writers begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
            // Four letters would also be a good file name at the start of a tar: the block or end marker must follow.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Codec::Bzip2,
            _ => Codec::None,
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
            Codec::Xz => "xz",
            Codec::Bzip2 => "bzip2",
        })
    }
}

/// Decompresses `inner`, which is compressed with `codec`.
///
/// # Errors
/// When the decoder cannot be set up. Damaged input is reported by the reader.
pub(crate) fn decoder<'a, R: BufRead + Send + 'a>(codec: Codec, inner: R) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(inner),
        Codec::Gzip => Box::new(MultiGzDecoder::new(inner)),
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(inner)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Codec::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, liblzma::stream::CONCATENATED)
                    .map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(inner, stream))
        }
        Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(inner)),
    })
}
