//! Streams that know their own name: verified, decompressed, counted, replaced atomically.
//!
//! The idea to hold: bytes are checked where they are read, and an output exists whole or not at all. Nothing here knows
//! tar, images or registries, and nothing prints.

mod decompress;
mod monitor;
mod region;
mod verify;

pub use decompress::{Codec, decoder};
pub use monitor::{Monitor, Phase, Snapshot};
pub use region::{Region, RegionReader};
pub use verify::{Expected, HashingReader, VerifiedReader};

/// How much is moved at once, in bytes: large enough that system calls do not count, small enough to stay in the cache.
pub const CHUNK_BYTES: usize = 256 << 10;
