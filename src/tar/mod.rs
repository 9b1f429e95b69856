//! One tar entry at a time: any dialect in, one canonical PAX dialect out.
//!
//! The idea to hold: an entry is a header's meaning (name, kind, metadata, where its bytes are), whatever mixture of v7,
//! ustar, PAX, GNU and star extensions spelled it. The `tar` crate lends its header layout and checksum; every extension
//! is read and written here, because its own parsers lose binary values, sparse maps and PAX times.
//!
//! What a whiteout means is not decided here.

mod header;
mod holes;
mod number;
mod pax;
mod read;
mod sparse;
mod write;

pub use header::is_header;
pub use holes::SparseMap;
pub use read::{Entries, Entry, EntryKind, Input, Sequential};
pub use sparse::Segment;
pub use write::{BLOCK_BYTES, Member, MemberKind, end_of_archive, member_bytes, member_header, padding};

#[cfg(test)]
mod tests;
