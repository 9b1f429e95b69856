//! Sources that are no files: engines and registries.

use std::io::Read;
use std::sync::Arc;

use super::archive::Archive;
use super::catalogue::Catalogue;
use super::document::{Documents, Store};
use super::{InputHash, Kind, OpenOptions, Source, daemon, oci, read_archive};
use crate::error::Result;
use crate::image::Layer;
use crate::io::Monitor;
use crate::model::{Digest, Quoted, Reference};
use crate::registry::{Fetching, Registry};

/// Has an engine export one image, as `docker save` does, and reads that archive.
pub(super) fn open_engine(word: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let export = daemon::export(word, options.platform.as_ref(), &options.engine, monitor)?;
    let at_least = export.at_least();
    let place = Quoted(word.as_bytes()).to_string();
    // The bytes of two exports differ (in times, at least): their hash says nothing.
    let options = OpenOptions { hash: InputHash::Unneeded, ..options.clone() };
    let archive = Archive::of_reader(export, at_least, Kind::DockerDaemon.name(&place), &options, monitor)?;
    read_archive(archive, Some(Kind::DockerDaemon), &place)
}

/// Asks a registry for the documents that a name leads to: no more of them than are needed to choose.
pub(super) fn open_registry(name: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let reference: Reference = name.parse()?;
    let fetching = Fetching { want_layers: options.want_layers, tmpdir: &options.tmpdir };
    let (registry, digest) = Registry::open(&reference, &options.registry, fetching, monitor)?;
    let mut catalogue = Catalogue::default();
    oci::read_from(&Documents::new(&registry), &mut catalogue, digest, reference.to_string())?;
    Ok(Source {
        store: Arc::new(registry),
        kind: Kind::Registry,
        found: catalogue.found,
        artifacts: catalogue.artifacts,
        warnings: Vec::new(),
        wanted: None,
        input: None,
    })
}

impl Store for Registry {
    fn size(&self, key: &str) -> Result<Option<u64>> {
        Registry::size(self, key)
    }

    fn has(&self, key: &str) -> Result<bool> {
        self.lists(key)
    }

    fn read(&self, key: &str) -> Result<Box<dyn Read + Send + '_>> {
        Registry::read(self, key)
    }

    fn key(&self, digest: &Digest) -> String {
        digest.to_string()
    }

    fn will_read(&self, layers: &[Layer]) {
        Registry::will_read(self, layers);
    }
}
