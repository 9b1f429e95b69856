//! Sources that are no files: engines and registries.

use std::sync::Arc;

use super::archive::Archive;
use super::catalogue::Catalogue;
use super::document::Documents;
use super::registry::Registry;
use super::{Kind, OpenOptions, Source, StreamHash, daemon, oci, read_archive};
use crate::error::Result;
use crate::io::Monitor;
use crate::model::{Quoted, Reference};

/// Has an engine export one image, as `docker save` does, and reads that archive.
pub(super) fn open_engine(word: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let export = daemon::export(word, options.platform.as_ref(), &options.engine, monitor)?;
    let at_least = export.at_least();
    let place = Quoted(word.as_bytes()).to_string();
    // The bytes of two exports differ (in times, at least): their hash says nothing.
    let options = OpenOptions { stream_hash: StreamHash::Unneeded, ..options.clone() };
    let archive = Archive::of_reader(export, at_least, Kind::DockerDaemon.name(&place), &options, monitor)?;
    read_archive(archive, Some(Kind::DockerDaemon), &place)
}

/// Asks a registry for the documents that a name leads to: no more of them than are needed to choose.
pub(super) fn open_registry(name: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let reference: Reference = name.parse()?;
    let (registry, digest) = Registry::open(&reference, options, monitor)?;
    let mut catalogue = Catalogue::default();
    oci::read_from(&Documents::new(&registry), &mut catalogue, digest, reference.to_string())?;
    let (found, passed_over) = (catalogue.found, catalogue.passed_over);
    Ok(Source { store: Arc::new(registry), kind: Kind::Registry, found, passed_over, wanted: None, stream: None })
}
