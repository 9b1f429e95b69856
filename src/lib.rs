//! Converts Docker and OCI images into SIF-ready rootfs tarballs and runnable SIF files: one pass, no root, the same bytes
//! every time.
//!
//! ```text
//! source ──► image ──► layers ──► output
//! where      manifest,  one    ──► rootfs tar · SIF-ready rootfs tar · SIF
//! blobs      config,    Tree,
//! come       verified   then bytes
//! from       layers     once
//! ```
//!
//! | source ↓ · target → | `rootfs` | `sif-rootfs` | `sif` | `oci` | `oci-archive` | `docker-archive` |
//! |---|---|---|---|---|---|---|
//! | docker-archive of any age and producer, from a file or a stream | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |
//! | OCI archive, from a file or a stream | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |
//! | OCI layout directory | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |
//! | image of a local Docker or Podman engine | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |
//! | registry | ✓ | ✓ | ✓ | ✓ | ✓ | ✓ |
//!
//! A [`Source`] is opened and lists images; one [`Image`] is selected; a [`Target`] is prepared and writes it. What is in
//! between is public too: [`layers::flatten`] gives the merged [`tree::Tree`] of an image to whoever wants to do
//! something else with it, and lets nothing out before every digest has been verified.
//!
//! ```no_run
//! use sif_convert::{Monitor, OpenOptions, Selection, Spec, open};
//!
//! # fn main() -> sif_convert::Result<()> {
//! let monitor = Monitor::default();
//! let options = OpenOptions { tmpdir: "/tmp".into(), want_layers: true, ..OpenOptions::default() };
//! let source = open(&Spec::parse("image.tar".as_ref())?, &options, &monitor)?;
//! let image = source.select(&Selection::default())?;
//! println!("{} {}", image.id(), image.platform());
//! # Ok(())
//! # }
//! ```
//!
//! Errors say what kind they are ([`ErrorKind`]), where it happened, and what to do about it.

mod error;

pub mod folder;
pub mod image;
pub mod io;
pub mod layers;
pub mod medperf;
pub mod model;
pub mod output;
#[cfg(feature = "network")]
pub mod registry;
pub mod sif;
pub mod singularity;
pub mod source;
pub mod squashfs;
pub mod tar;
pub mod tree;

#[cfg(feature = "program")]
#[doc(hidden)]
pub mod cli;

pub use error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
pub use image::Image;
pub use io::Monitor;
pub use output::{Destination, Outcome, Target, WriteOptions};
pub use source::{OpenOptions, Selection, Source, Spec, open};
