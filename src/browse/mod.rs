//! Looks into a source without unpacking it: names, single files, differences.
//!
//! The idea to hold: whatever a source is, a [`View`] of it is one [`Tree`](crate::tree::Tree) and a way to the bytes of each file. Names cost
//! what reading them costs: the tables of a squashfs, the headers of a plain tar, the decoding of a compressed layer. The
//! contents of files are read only where somebody asks for them.
//!
//! ```text
//! SIF, squashfs, directory ──► Volume ───────────────┐
//!                                                    ├──► View ──► entries, usage, one file, differences
//! layers of an image ────────► names, sums ──────────┘
//! ```
//!
//! Nothing here writes outputs or prints.

mod config;
mod diff;
mod entry;
mod find;
mod layered;
mod usage;
mod view;

pub use diff::{Aspect, DiffOptions, Difference, Explain, Pair, Place, Side, diff, diff_explained};
pub use entry::{Device, Entries, Entry, EntryKind};
pub use usage::{DirectoryUsage, LayerUsage, Usage};
pub use view::{LayerInfo, View, ViewOptions};
