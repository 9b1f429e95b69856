//! Streams that know their own name: verified, decompressed, counted, replaced atomically.
//!
//! The idea to hold: bytes are checked where they are read, and an output exists whole or not at all. Nothing here knows
//! tar, images or registries, and nothing prints.

mod compress;
mod compression;
mod content_sum;
mod copy;
mod decompress;
mod deflate;
pub(crate) mod folder;
mod foreign;
mod gather;
mod leftover;
mod monitor;
mod noise;
mod output;
mod pipeline;
mod region;
#[cfg(feature = "network")]
mod save;
mod scratch;
mod spool;
mod stamp;
pub(crate) mod system;
mod threads;
mod veil;
mod verify;
pub(crate) mod wire;
mod writeback;

pub(crate) use compress::{Compressor, Members};
pub use compression::{Compression, Levels};
pub(crate) use content_sum::ContentSum;
pub(crate) use copy::copy_between;
pub use decompress::Codec;
pub(crate) use decompress::decoder;
pub(crate) use foreign::{FOREIGN_LOOK_BYTES, foreign_format};
pub(crate) use gather::Gather;
pub(crate) use leftover::UNFINISHED_SUFFIX;
#[cfg(feature = "network")]
pub(crate) use leftover::sweep_directory;
pub use monitor::{Download, DownloadCounter, Event, Monitor, Phase, Snapshot};
pub(crate) use noise::deflate_is_futile;
#[cfg(feature = "program")]
pub(crate) use output::open_now;
pub(crate) use output::{
    Output, directory_of, expect_name, free_bytes, is_stream, open_stream, umask, unnamed_file, writable,
};
pub(crate) use pipeline::{Decoded, Watched, decode};
pub use region::{Region, RegionReader};
#[cfg(feature = "network")]
pub(crate) use save::save;
pub(crate) use scratch::{Scratch, ScratchDirectory, lock_directory, sync_directory};
pub(crate) use spool::Reclaimer;
pub use spool::{Spool, SpoolWriter};
pub(crate) use stamp::Stamp;
pub(crate) use system::file_system_kind;
#[cfg(feature = "program")]
pub(crate) use threads::JOBS_MAX;
#[cfg(feature = "network")]
pub(crate) use threads::jobs_in_address_space;
pub(crate) use threads::{affordable, no_thread};
pub use veil::Veil;
pub use verify::Expected;
pub(crate) use verify::{HashingReader, HashingWriter, VerifiedReader, hash_region, hash_region_with};
pub(crate) use writeback::Writeback;

use crate::error::{Error, ErrorKind, Result};

/// Gives out `count` zeros, in pieces.
///
/// # Errors
/// Those of `each`.
pub(crate) fn zeros(count: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let zeros = [0; 64 << 10];
    let mut left = count;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        each(&zeros[..now as usize])?;
        left -= now;
    }
    Ok(())
}

/// How much is moved at once, in bytes: large enough that system calls do not count, small enough to stay in the cache.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// Sorts out why reading a source failed: damaged data is the image's fault, the rest the file's or the disk's.
pub(crate) fn read_error(error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    let damaged = matches!(error.kind(), Io::InvalidData | Io::InvalidInput | Io::UnexpectedEof | Io::Other);
    let kind = if damaged { ErrorKind::InvalidImage } else { ErrorKind::SourceUnavailable };
    Error::io(kind, error)
}
