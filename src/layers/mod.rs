//! Layer semantics and nothing else: layers in, one merged tree and the way to its bytes out.
//!
//! The idea to hold: merging is a fold over headers into a plain [`Tree`](crate::tree::Tree), in the order they stand, so
//! its rules can be read and tested as text. Bytes are not moved by it: a file in the tree says where its bytes are, in
//! the archive itself or in a spool of decoded layers.
//!
//! Nothing unverified gets out: [`flatten`] returns what its caller made of the tree only when every layer's digests
//! have been checked. This room knows no output format.

mod budget;
mod contents;
mod forecast;
mod known;
mod layer;
mod list;
mod merge;
mod run;
mod schedule;
mod whiteout;

pub use budget::MEMORY_BYTES_MAX;
pub use contents::{Contents, Piece};
pub use forecast::Forecast;
pub use known::{KnownContents, KnownLayer, KnownLayers, ReadLayer};
pub(crate) use list::{ListOptions, Listed, Sums, list, plain_region, verify_plain};
pub(crate) use run::flattened;
pub use run::{Flattened, Options, Summary, flatten};
pub(crate) use schedule::{Schedule, largest_first};

#[cfg(test)]
mod tests;
