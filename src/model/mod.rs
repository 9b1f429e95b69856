//! Names and documents of the specifications: digests, references, platforms, manifests, configs, entry paths.
//!
//! The idea to hold: values are parsed once, at the door, and are right from then on. Nothing here does I/O, reads a
//! clock or looks at the environment.

/// The number of the format of `sif` and `sif-rootfs`: it grows with every change of the bytes that are written for some image
/// and options, and with nothing else. The version of the program plays no part.
pub const OUTPUT_FORMAT: u32 = 2;

mod bind;
mod changes;
mod config;
mod digest;
mod document;
mod json;
mod metadata;
mod note;
mod path;
mod platform;
mod quote;
mod reference;
mod time;
#[cfg(feature = "network")]
mod yaml;

pub use bind::{BindKind, BindTarget};
pub use changes::ConfigChanges;
pub use config::{Config, HistoryEntry};
pub use digest::{Algorithm, Digest, Hasher};
pub(crate) use document::DOCUMENT_BYTES_MAX;
pub use document::{ArchiveManifestItem, Descriptor, Index, Manifest};
pub(crate) use json::parse_json;
pub use metadata::{Metadata, Mode, Xattrs};
#[cfg(feature = "program")]
pub(crate) use note::Grouped;
pub use note::Note;
pub use path::{EntryPath, PathError};
pub(crate) use path::{PATH_BYTES_MAX, split_last};
pub use platform::Platform;
pub use quote::Quoted;
#[cfg(feature = "program")]
pub(crate) use quote::hides;
pub use reference::Reference;
pub use time::Timestamp;
#[cfg(feature = "network")]
pub(crate) use yaml::{Data as YamlData, Node as YamlNode, load as load_yaml};
