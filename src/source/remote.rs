//! Sources that are not files: engines and registries.

use std::io::Read;
use std::sync::Arc;

use super::archive::Archive;
use super::catalogue::{Candidate, Catalogue};
use super::document::{Documents, Store};
use super::spec::without_query;
use super::{InputHash, Kind, OpenOptions, Source, daemon, filesystem, oci, read_archive, signatures, unsigned};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::image::Layer;
use crate::io::{Expected, Monitor, Phase, save};
use crate::model::{Digest, Platform, Quoted, Reference};
use crate::registry::{Fetching, HostedSif, Registry, WebFile};

/// Has an engine export one image, as `docker save` does, and reads that archive.
pub(super) fn open_engine(word: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let export = daemon::export(word, options.platform.as_ref(), &options.engine, monitor)?;
    let at_least = export.at_least();
    let place = Quoted(word.as_bytes()).to_string();
    // The bytes of two exports differ (in times, at least): their hash says nothing.
    let options = OpenOptions { hash: InputHash::Unneeded, ..options.clone() };
    let archive = Archive::of_reader(export, at_least, Kind::DockerDaemon.name(&place), &options, monitor)?;
    let mut source = read_archive(archive, (Some(Kind::DockerDaemon), None), &options, &place)?;
    if let Some(id) = full_id(word) {
        keep_only(&mut source, id)?;
    }
    Ok(source)
}

/// Asks the local engine which image `word` names now, without having it exported: its ID; `None` where the engine does not
/// say.
///
/// # Errors
/// [`ErrorKind::Network`] when no engine answers or it may not be used, [`ErrorKind::SourceUnavailable`] when it has no such
/// image, [`ErrorKind::Usage`] when `word` is not the name or ID of an image.
pub(crate) fn engine_image(word: &str, settings: &daemon::EngineSettings, monitor: &Monitor) -> Result<Option<String>> {
    daemon::image_id(word, settings, monitor)
}

/// The ID that a word spells out, which is the digest of the image's config, or where the engine keeps images as containerd
/// does, of its manifest or index.
fn full_id(word: &str) -> Option<Digest> {
    word.parse().ok().or_else(|| Digest::from_hex(word).ok())
}

/// The engine is asked for an image by its ID and believed in nothing: what it exported must have that ID.
fn keep_only(source: &mut Source, id: Digest) -> Result<()> {
    let exported: Vec<String> = source.found.iter().filter_map(|it| it.candidate.id).map(|id| id.to_string()).collect();
    source.found.retain(|found| {
        let Candidate { id: of_config, manifest_digest, index_digest, .. } = &found.candidate;
        let mut manifests = found.manifests.iter().flat_map(|it| it.index_digests.iter().chain([&it.digest]));
        [of_config, manifest_digest, index_digest].contains(&&Some(id)) || manifests.any(|&digest| digest == id)
    });
    if !source.found.is_empty() {
        return Ok(());
    }
    let message = format!("digest mismatch: asked for image {id}, the engine exported {}", exported.join(", "));
    Err(Error::new(ErrorKind::Mismatch, message).hint("pull the image from its registry again"))
}

/// Asks a registry for the documents that a name leads to: no more of them than are needed to choose.
pub(super) fn open_registry(name: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let reference: Reference = name.parse()?;
    // What is private does not wait in files.
    let tmpdir = Some(options.tmpdir.as_path()).filter(|_| !options.private_temporaries);
    let fetching = Fetching { want_layers: options.want_layers, tmpdir };
    let (registry, digest) = Registry::open(&reference, &options.registry, fetching, monitor)?;
    if let Some(policy) = &options.trust {
        let mut found = Vec::new();
        for attached in registry.attached(digest)? {
            let read = |digest| registry.small_blob(digest);
            found.extend(signatures::of_manifest(&attached.name, &attached.manifest, &read)?);
        }
        policy.check(digest, Some(&reference), &found)?;
    }
    let mut catalogue = Catalogue::default();
    oci::read_from(&Documents::new(&registry), &mut catalogue, digest, reference.to_string())?;
    Ok(Source::of(registry, Kind::Registry, catalogue))
}

/// Reads an archive from a web server as it comes.
pub(super) fn open_web(url: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    /// Behind the launch script of a SIF.
    const MAGIC_AT: usize = 32;
    let place = Quoted(without_query(url).as_bytes()).to_string();
    let mut file = WebFile::open(url, &options.registry, monitor)?;
    let size = file.size();
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(64).read_to_end(&mut start).or_kind(ErrorKind::Network)?;
    if start.get(MAGIC_AT..).is_some_and(|rest| rest.starts_with(b"SIF_MAGIC\0")) {
        let expected = Expected { digest: None, size };
        return open_sif(start.as_slice().chain(file), expected, &place, options, monitor);
    }
    let archive = Archive::of_reader(start.as_slice().chain(file), size, place.clone(), options, monitor)?;
    read_archive(archive, (None, None), options, &place)
}

/// Downloads a SIF that a registry holds.
pub(super) fn open_hosted_sif(name: &str, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let reference: Reference = name.parse()?;
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let hosted = HostedSif::find(&reference, &platform, &options.registry, monitor)?;
    let place = Quoted(format!("oras://{reference}").as_bytes()).to_string();
    let mut source = open_sif(hosted.open()?, hosted.expected(), &place, options, monitor)?;
    source.warnings.extend(hosted.warnings());
    Ok(source)
}

/// A SIF that comes as a stream: its parts are read in any order, so that it goes to a file without a name first.
fn open_sif(
    stream: impl Read,
    expected: Expected,
    place: &str,
    options: &OpenOptions,
    monitor: &Monitor,
) -> Result<Source> {
    if options.trust.is_some() {
        return Err(unsigned());
    }
    monitor.begin(Phase::Open, expected.size.unwrap_or(0));
    if options.private_temporaries {
        let message = format!("{place} would lie in the clear in a temporary file while it is converted");
        return Err(Error::new(ErrorKind::Unsupported, message)
            .hint("download it to a place of your choice, and convert the file"));
    }
    let mending =
        |error: Error, remedy| error.doing(format!("keeping {place} in {:?}", options.tmpdir)).with_remedy(remedy);
    let file = tempfile::tempfile_in(&options.tmpdir).or_kind(ErrorKind::Output);
    let file = Arc::new(file.map_err(|error| mending(error, Remedy::OtherTmpdir))?);
    let (digest, size) = save(stream, &file, expected.size, monitor).map_err(|error| match error.kind() {
        ErrorKind::Output | ErrorKind::NoSpace => mending(error, Remedy::RoomInTmpdir),
        _ => error,
    })?;
    expected.check(digest, size).doing(|| format!("downloading {place}"))?;
    filesystem::open_unnamed(&file, Kind::Sif, place, options, monitor)
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
