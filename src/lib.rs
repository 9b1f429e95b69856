//! Converts Docker and OCI images into SIF-ready rootfs tarballs and runnable SIF files.

mod error;

pub mod flatten;
pub mod image;
pub mod io;
pub mod model;
pub mod sif;
pub mod singularity;
pub mod source;
pub mod squashfs;
pub mod tar;
pub mod target;
pub mod tree;

#[doc(hidden)]
pub mod cli;

pub use error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
