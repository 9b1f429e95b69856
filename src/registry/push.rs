//! An image as it is stored, pushed.

use std::io::Read;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::repository::{Content, Repository, Stored};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::image::{BlobRef, Image};
use crate::io::{CHUNK_BYTES, Codec};
use crate::model::{Digest, Manifest};

/// How many blobs are pushed at once.
const CONNECTIONS_MAX: usize = 3;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer as it is stored.
struct StoredLayer<'a> {
    image: &'a Image,
    blob: &'a BlobRef,
    digest: Digest,
    size: u64,
    codec: Codec,
}

impl Content for StoredLayer<'_> {
    fn open(&self, position: u64) -> Result<Box<dyn Read + Send + '_>> {
        if let Some(region) = self.image.blobs.region(self.blob)? {
            let mut reader = region.reader();
            reader.skip(position);
            return Ok(Box::new(reader));
        }
        let mut reader = self.image.blobs.open(self.blob)?;
        std::io::copy(&mut Read::by_ref(&mut reader).take(position), &mut std::io::sink())
            .or_kind(ErrorKind::SourceUnavailable)?;
        Ok(reader)
    }
}

/// Pushes blobs side by side, and then the manifest.
pub(super) fn push_image(repository: &Repository, image: &Image, tags: &[&str]) -> Result<Stored> {
    let layers: Vec<StoredLayer<'_>> =
        (0..image.layers.len()).map(|at| stored_layer(image, at)).collect::<Result<_>>()?;
    let config: &[u8] = image.config.raw();
    let mut blobs: Vec<(Digest, u64, &dyn Content)> = vec![(image.id(), config.len() as u64, config_content(&config))];
    for layer in &layers {
        if blobs.iter().all(|(digest, ..)| *digest != layer.digest) {
            blobs.push((layer.digest, layer.size, layer));
        }
    }
    push_blobs(repository, &blobs)?;
    let (media_type, manifest) = manifest_of(image, &layers)?;
    let digest = Digest::of(&manifest).to_string();
    let mut stored = None;
    let untagged = [digest.as_str()];
    for name in if tags.is_empty() { &untagged[..] } else { tags } {
        stored = Some(repository.push_manifest(name, &media_type, &manifest)?);
    }
    stored.ok_or_else(|| Error::new(ErrorKind::Bug, "no manifest was pushed"))
}

fn config_content<'a>(config: &'a &'a [u8]) -> &'a dyn Content {
    config
}

fn push_blobs(repository: &Repository, blobs: &[(Digest, u64, &dyn Content)]) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some((digest, size, content)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = repository.push_blob(*digest, *size, *content) {
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                // What has not begun is left out.
                next.store(blobs.len(), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..CONNECTIONS_MAX.min(blobs.len()) {
            // Without a thread this one does it all.
            let _ = std::thread::Builder::new().name("upload".to_string()).spawn_scoped(scope, work);
        }
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Finds out what a layer is, where the source does not say: its stored bytes are read once more then.
fn stored_layer(image: &Image, at: usize) -> Result<StoredLayer<'_>> {
    let blob = &image.layers[at].blob;
    let doing = || format!("reading {}", image.layer_name(at));
    let unavailable = |error| Error::io(ErrorKind::SourceUnavailable, error);
    let mut reader = image.blobs.open(blob).doing(doing)?;
    let mut start = Vec::new();
    Read::by_ref(&mut reader).take(64).read_to_end(&mut start).map_err(unavailable).doing(doing)?;
    let (digest, size) = match (blob.digest, blob.size) {
        (Some(digest), Some(size)) => (digest, size),
        _ => hash_reader(start.as_slice().chain(reader)).map_err(unavailable).doing(doing)?,
    };
    Ok(StoredLayer { image, blob, digest, size, codec: Codec::sniff(&start) })
}

/// The media type and the bytes of the manifest: those that the image came with, where they list just these blobs.
fn manifest_of(image: &Image, layers: &[StoredLayer<'_>]) -> Result<(String, Vec<u8>)> {
    if let Some(bytes) = &image.manifest
        && let Ok(manifest) = Manifest::parse(bytes)
    {
        let listed: Vec<Digest> = manifest.layers.iter().filter_map(|layer| layer.digest().ok()).collect();
        let is_same = listed.iter().eq(layers.iter().map(|layer| &layer.digest));
        if is_same && manifest.config.digest().ok() == Some(image.id()) {
            let stated: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let media_type = stated["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_string();
            return Ok((media_type, bytes.to_vec()));
        }
    }
    let described = layers.iter().enumerate().map(|(at, layer)| {
        let suffix = match layer.codec {
            Codec::None => "",
            Codec::Gzip => "+gzip",
            Codec::Zstd => "+zstd",
            other => {
                let message = format!("{} is compressed with {other}, which registries do not know", image.layer_name(at));
                return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(Remedy::LayoutFirst));
            }
        };
        Ok(json!({ "mediaType": format!("{OCI_LAYER}{suffix}"), "digest": layer.digest.to_string(), "size": layer.size }))
    });
    let config = json!({ "mediaType": OCI_CONFIG, "digest": image.id().to_string(), "size": image.config.raw().len() });
    let layers: Vec<Value> = described.collect::<Result<_>>()?;
    let document = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
    let bytes = serde_json::to_vec(&document).map_err(|error| Error::new(ErrorKind::Bug, error))?;
    Ok((OCI_MANIFEST.to_string(), bytes))
}

/// SHA-256 and length of what a reader has.
fn hash_reader(mut reader: impl Read) -> std::io::Result<(Digest, u64)> {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok((Digest::from_bytes(hasher.finalize().into()), bytes)),
            count => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}
