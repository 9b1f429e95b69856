//! Images on registries, by the HTTP API of the OCI distribution specification, which is Docker's.
//!
//! The idea to hold: a name leads to one digest, once; all else is asked for by digest and checked against it, wherever it
//! comes from. Four walls: `http` sends one request and follows where it leads; `client` knows registries, logins and
//! what is worth another try; `stream` makes one stream of bytes of many broken connections; `fetch` and `cache`
//! decide when and where to. What a registry, a mirror or a token server may be told, `http` and `client` decide alone:
//! credentials go to nobody else. Nothing here reads the environment.

mod artifact;
mod attached;
mod auth;
mod cache;
mod challenge;
mod client;
mod credentials;
mod fetch;
mod guard;
mod helper;
mod hosted;
mod http;
mod link;
mod look;
mod netrc;
mod proxy;
mod push;
mod referrers;
mod registries_conf;
mod repository;
mod retry;
mod secret;
mod settings;
mod settings_file;
mod stream;
mod tls;
mod token;
mod transfer;
mod upload;
mod url;
mod usual;
mod web;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use self::url::Url;
use cache::{Cache, Claim};
use client::Client;
use fetch::Fetcher;
use stream::Blob;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::image::{BlobRef, Blobs, Layer};
use crate::io::{Expected, Monitor, Phase, Region};
use crate::model::{Digest, Manifest, Quoted, Reference};

pub use artifact::{ArtifactKind, SIF_LAYER, SIF_SIGNATURE, SifArtifact};
pub(crate) use cache::trim;
pub use cache::{Pruned, Room, VerifiedBlobs, count_blobs, expect_cache, prune, verify};
pub use hosted::HostedSif;
pub(crate) use look::{digest_of, tags};
pub use proxy::Proxies;
pub use push::BlobContent;
pub use registries_conf::{PullSource, RegistriesConf, RegistriesConfFiles};
pub use repository::{Content, Pushed, Repository, Stored};
pub use secret::Secret;
#[cfg(feature = "program")]
pub(crate) use secret::{redacted, remember_userinfo};
#[cfg(feature = "program")]
pub(crate) use settings::is_host;
pub use settings::{Login, Mirror, Settings};
pub(crate) use settings_file::read_settings_file;
pub use usual::Variables;
#[cfg(feature = "program")]
pub(crate) use usual::registries;
pub use web::WebFile;

/// How many addresses of one layer are tried.
const URLS_MAX: usize = 8;

/// What is done with an image's layers when they come.
pub(crate) struct Fetching<'a> {
    /// Whether layers will be read, or documents only.
    pub(crate) want_layers: bool,
    /// Where blobs that come ahead of their time are kept, in unnamed files.
    pub(crate) tmpdir: Option<&'a Path>,
}

/// One image name on a registry, with all that it leads to. Keys are digests.
pub(crate) struct Registry {
    name: String,
    client: Arc<Client>,
    fetcher: Fetcher,
    /// Manifests and configs that were read, verified.
    documents: Mutex<BTreeMap<Digest, Arc<[u8]>>>,
    /// What manifests list: no manifests, then.
    blobs: Mutex<BTreeMap<Digest, Blob>>,
}

impl Registry {
    /// Asks what the name leads to; its digest.
    pub(crate) fn open(
        reference: &Reference,
        settings: &Settings,
        fetching: Fetching<'_>,
        monitor: &Monitor,
    ) -> Result<(Registry, Digest)> {
        monitor.begin(Phase::Open, 0);
        let (cache, cache_refusal) = match settings.cache.as_deref().filter(|_| fetching.want_layers) {
            Some(directory) => Cache::open_as_allowed(directory, settings.room.as_ref())?,
            None => (None, None),
        };
        let client = Arc::new(Client::for_pulling(reference, settings.clone(), monitor.clone())?);
        let registry = Registry {
            name: format!("registry image {}", Quoted(reference.to_string().as_bytes())),
            fetcher: Fetcher::new(Arc::clone(&client), cache, cache_refusal, fetching.tmpdir.map(Path::to_path_buf)),
            client,
            documents: Mutex::default(),
            blobs: Mutex::default(),
        };
        let digest = registry.root(reference)?;
        Ok((registry, digest))
    }

    fn root(&self, reference: &Reference) -> Result<Digest> {
        let asked = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_string()),
        };
        let what = format!("image {}:{asked}", reference.repository).replace(":sha256:", "@sha256:");
        let found =
            self.client.document(&format!("manifests/{asked}"), &what, reference.digest).map_err(
                |error| match error.kind() {
                    ErrorKind::SourceUnavailable => error.hint("check the name and the tag"),
                    _ => error,
                },
            )?;
        let digest = Digest::of(&found.bytes);
        if let Some(stated) = found.stated.filter(|&stated| Expected::digest(stated).check_bytes(&found.bytes).is_err())
        {
            let message = format!("{what}: digest mismatch: the registry says {stated}, its manifest has {digest}");
            return Err(
                Error::new(ErrorKind::Mismatch, message).hint("try again; something changes what the registry says")
            );
        }
        refuse_schema_1(&found.bytes)?;
        self.keep_manifest(digest, found.bytes);
        Ok(digest)
    }

    fn keep_manifest(&self, digest: Digest, bytes: Vec<u8>) {
        // What is not an image manifest lists no blobs; the reader of documents says what is wrong with it.
        if let Ok(manifest) = Manifest::parse(&bytes) {
            let mut blobs = lock(&self.blobs);
            for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
                let listed = descriptor.urls.iter().filter(|_| is_foreign(&descriptor.media_type));
                let urls = listed.filter_map(|url| Url::parse(url)).take(URLS_MAX).collect();
                if let Ok(digest) = descriptor.digest() {
                    blobs.entry(digest).or_insert(Blob { digest, size: descriptor.size(), urls });
                }
            }
        }
        lock(&self.documents).insert(digest, bytes.into());
    }

    /// A document that was read, or a manifest that is there to be read.
    fn manifest(&self, digest: Digest) -> Result<Option<Arc<[u8]>>> {
        if let Some(bytes) = lock(&self.documents).get(&digest) {
            return Ok(Some(Arc::clone(bytes)));
        }
        match self.client.document(&format!("manifests/{digest}"), &format!("manifest {digest}"), Some(digest)) {
            Ok(found) => self.keep_manifest(digest, found.bytes),
            Err(error) if error.kind() == ErrorKind::SourceUnavailable => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(lock(&self.documents).get(&digest).cloned())
    }

    /// The config, which is a blob like layers are, and small.
    fn config(&self, blob: &Blob) -> Result<Arc<[u8]>> {
        let fetch = || {
            let (path, what) = (format!("blobs/{}", blob.digest), format!("config {}", blob.digest));
            self.client.document(&path, &what, Some(blob.digest)).map(|found| found.bytes)
        };
        let read = |file| -> Result<Vec<u8>> {
            let region = Region::whole(file).or_kind(ErrorKind::SourceUnavailable)?;
            let mut bytes = Vec::new();
            region.reader().read_to_end(&mut bytes).or_kind(ErrorKind::SourceUnavailable)?;
            // Whoever shares the cache may have changed the file since it was hashed.
            Expected::digest(blob.digest).check_bytes(&bytes).doing(|| "reading a config from the cache")?;
            Ok(bytes)
        };
        let bytes = match self.fetcher.cache() {
            None => self.fetcher.shelved(blob)?.map_or_else(fetch, read)?,
            Some(cache) => match cache.claim(blob.digest, blob.size, &self.client.monitor) {
                Ok(Claim::There(file)) => {
                    self.client.monitor.save(file.metadata().map_or(0, |data| data.len()));
                    read(file)?
                }
                Ok(Claim::Mine(mut writer)) => {
                    let bytes = fetch()?;
                    writer
                        .write(&bytes)
                        .and_then(|()| writer.finish(None))
                        .or_else(|error| self.fetcher.expect_full(error))?;
                    bytes
                }
                Err(error) => {
                    self.fetcher.expect_full(error)?;
                    fetch()?
                }
            },
        };
        let bytes: Arc<[u8]> = bytes.into();
        lock(&self.documents).insert(blob.digest, Arc::clone(&bytes));
        Ok(bytes)
    }

    fn blob(&self, digest: &Digest) -> Option<Blob> {
        lock(&self.blobs).get(digest).cloned()
    }
}

impl Blobs for Registry {
    fn open(&self, blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>> {
        self.fetcher.open(&self.wanted(blob)?)
    }

    fn open_expecting(&self, blob: &BlobRef) -> Result<(Box<dyn Read + Send + '_>, Expected)> {
        let wanted = self.wanted(blob)?;
        let (stream, is_verified) = self.fetcher.open_verifying(&wanted)?;
        let digest = blob.digest.filter(|&digest| !is_verified || digest != wanted.digest);
        Ok((stream, Expected { digest, size: blob.size }))
    }

    fn forget(&self, blob: &BlobRef) {
        blob.digest.iter().for_each(|&digest| self.fetcher.forget(digest));
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn warnings(&self) -> Vec<String> {
        self.client.warnings()
    }

    fn cache_refusal(&self) -> Option<&str> {
        self.fetcher.not_kept()
    }
}

impl Registry {
    /// Whether a manifest lists `key`, a digest.
    pub(crate) fn lists(&self, key: &str) -> Result<bool> {
        Ok(self.blob(&key.parse()?).is_some())
    }

    /// How many bytes are stored under `key`, a digest; `None` where there is nothing.
    pub(crate) fn size(&self, key: &str) -> Result<Option<u64>> {
        let digest: Digest = key.parse()?;
        match self.blob(&digest) {
            Some(Blob { size: Some(size), .. }) => return Ok(Some(size)),
            // A document: nobody asks how large a layer is whose manifest does not say.
            Some(blob) => return Ok(Some(self.config(&blob)?.len() as u64)),
            None => {}
        }
        Ok(self.manifest(digest)?.map(|bytes| bytes.len() as u64))
    }

    /// What is to be fetched for a blob.
    fn wanted(&self, blob: &BlobRef) -> Result<Blob> {
        let digest: Digest = blob.key.parse()?;
        Ok(self.blob(&digest).unwrap_or(Blob { digest, size: blob.size, urls: Vec::new() }))
    }

    /// The bytes stored under `key`, a digest.
    pub(crate) fn read(&self, key: &str) -> Result<Box<dyn Read + Send + '_>> {
        let digest: Digest = key.parse()?;
        let read = lock(&self.documents).get(&digest).cloned();
        let bytes = match (read, self.blob(&digest)) {
            (Some(bytes), _) => bytes,
            (None, Some(blob)) => self.config(&blob)?,
            (None, None) => self.manifest(digest)?.ok_or_else(|| {
                Error::new(ErrorKind::SourceUnavailable, format!("{} has no manifest {digest}", self.name))
            })?,
        };
        Ok(Box::new(Cursor::new(bytes)))
    }

    /// Says which layers will be opened, so that they are fetched ahead.
    pub(crate) fn will_read(&self, layers: &[Layer]) {
        let mut order: Vec<&Layer> = layers.iter().collect();
        // As layers are read: the largest first, of equal ones the uppermost.
        order.reverse();
        order.sort_by_key(|layer| Reverse(layer.blob.size));
        self.fetcher.expect(order.iter().filter_map(|layer| self.blob(&layer.blob.digest?)).collect());
    }
}

/// Whether a layer is of a kind that registries need not have (image-spec, layer.md, non-distributable layers; Docker's image
/// manifest schema 2): only for these do the addresses in a document count.
fn is_foreign(media_type: &str) -> bool {
    media_type.contains(".foreign.") || media_type.contains(".nondistributable.")
}

/// Docker's manifests from before 2015 hold signatures and the configs of all layers, and no digest of any config.
fn refuse_schema_1(bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Version {
        #[serde(rename = "schemaVersion")]
        schema_version: Option<u32>,
    }
    match serde_json::from_slice::<Version>(bytes) {
        Ok(Version { schema_version: Some(1) }) => {
            let message = "this is a Docker image manifest of schema 1, which Docker itself reads no more";
            Err(Error::new(ErrorKind::Unsupported, message)
                .hint("push the image again with a current Docker or skopeo"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(ErrorKind::InvalidImage, format!("this is not an image manifest: {error}"))
            .doing("reading the manifest")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
