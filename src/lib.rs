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
//! | [`Source`] | |
//! |---|---|
//! | docker-archive of any age, OCI archive | from a file, a stream or a web server |
//! | OCI layout | a directory |
//! | image of a local Docker or Podman engine, or on a registry | feature `network` |
//! | SIF, squashfs, tar or directory of a root file system | as an image of one layer |
//!
//! | [`Target`] | |
//! |---|---|
//! | [`Sif`], [`SifRootfs`], [`Dir`] | with what Singularity expects inside |
//! | [`Rootfs`], [`Squashfs`] | the image's files, and nothing else unless asked for |
//! | [`Oci`], [`OciArchive`], [`DockerArchive`] | an image that stays one; also pushed to a registry |
//!
//! A docker-archive becomes a SIF:
//!
//! ```
//! use sif_convert::{Sif, convert};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let output = directory.path().join("hello.sif");
//! let report = convert("fixtures/archives/hello.tar", Sif::new(), &output)?;
//! assert!(report.output.is_some_and(|record| record.size > 0));
//! # Ok(())
//! # }
//! ```
//!
//! With choices, step by step: a [`Target`] is prepared, which refuses whatever can be refused before anything is read; a
//! [`Source`] is opened and lists images; one [`Image`] is selected and written.
//!
//! ```
//! use sif_convert::io::Compression;
//! use sif_convert::{ErrorKind, Monitor, Selection, Sif, Source, Target, WriteOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let output = directory.path().join("hello.sif");
//! let target = Target::from(Sif::new().compression(Compression::zstd(9)));
//! let prepared = target.prepare(&output.as_path().into(), &WriteOptions::default())?;
//! let image = Source::open("fixtures/archives/hello.tar")?.select(&Selection::default())?;
//! let outcome = prepared.write(&image, &Monitor::default())?;
//! assert_eq!(outcome.size, output.metadata()?.len());
//!
//! let again = target.prepare(&output.as_path().into(), &WriteOptions::default());
//! assert_eq!(again.unwrap_err().kind(), ErrorKind::Output);
//! # Ok(())
//! # }
//! ```
//!
//! What is in between is public too: [`layers::flatten`] gives the merged [`tree::Tree`] of an image to whoever wants to do
//! something else with it, and lets nothing out before every digest has been verified. The formats [`tar`], [`squashfs`] and
//! [`sif`] are modules of their own. Errors say what kind they are ([`ErrorKind`]), where it happened, and what to do about
//! it.

pub mod against;
#[cfg(feature = "network")]
pub mod attach;
#[cfg(feature = "network")]
pub mod batch;
pub mod browse;
mod conversion;
pub mod derived;
#[cfg(feature = "network")]
mod download;
mod error;
mod folder;
pub mod gocryptfs;
pub mod image;
pub mod io;
pub mod layers;
#[cfg(feature = "program")]
mod medperf;
pub mod model;
pub mod output;
#[cfg(feature = "network")]
pub mod registry;
mod report;
mod runtime;
pub mod sif;
mod singularity;
pub mod source;
pub mod squashfs;
pub mod tar;
pub mod tree;
pub mod trust;
mod volume;

/// For the fuzz targets only.
#[doc(hidden)]
pub mod internals {
    pub use crate::singularity::{Additions, Prepared, forecast, prepare};
}

#[cfg(feature = "program")]
#[doc(hidden)]
pub mod cli;

pub use conversion::{Conversion, Observer, convert};
#[cfg(feature = "network")]
pub use download::{Download, Downloaded, Found};
pub use error::{Error, ErrorKind, IoResultExt, Remedy, Result, ResultExt};
pub use image::Image;
pub use io::Monitor;
pub use output::{
    AdditionalFiles, Destination, Dir, DockerArchive, IfExists, Oci, OciArchive, Outcome, Prepared, Root, Rootfs, Sif,
    SifRootfs, Squashfs, Target, WorkCache, WriteOptions,
};
pub use report::{AttachedSif, AttachedSignature, ImageRecord, OutputRecord, Report, SourceRecord};
pub use source::{OpenOptions, Selection, Source, Spec, open};
