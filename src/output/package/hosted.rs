//! An image on its way to a registry.
//!
//! The idea to hold: what the registry has, or can take from another repository, is not even read. All else is made ready and
//! verified as for a file; then blobs are pushed, and the manifest last. Until that is there, nothing leads to the blobs.

use oci_spec::image::MediaType;
use serde_json::{Value, json};

use super::stage::Blob;
use super::{Document, Layers, Packing, config, layers_where};
use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt as _};
use crate::image::{BlobRef, Image};
use crate::io::{Codec, Monitor, Phase, Stamp};
use crate::model::{Algorithm, Digest, Manifest, Note};
use crate::output::hosted::Hosted;
use crate::output::place::Place;
use crate::output::prepared::Task;
use crate::output::{Outcome, PushedBlobs};
use crate::registry::{BlobContent, Pushed};

/// Whose names manifests, configs and layers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::output) enum MediaTypes {
    /// Those of the OCI (image-spec, media-types.md).
    Oci,
    /// Docker's (distribution, image manifest version 2, schema 2).
    Docker,
}

impl MediaTypes {
    fn manifest(self) -> String {
        match self {
            MediaTypes::Oci => MediaType::ImageManifest.to_string(),
            MediaTypes::Docker => "application/vnd.docker.distribution.manifest.v2+json".to_string(),
        }
    }

    fn config(self) -> String {
        match self {
            MediaTypes::Oci => MediaType::ImageConfig.to_string(),
            MediaTypes::Docker => "application/vnd.docker.container.image.v1+json".to_string(),
        }
    }

    /// `None` where there is no name for it.
    fn layer(self, codec: Codec) -> Option<String> {
        let docker = "application/vnd.docker.image.rootfs.diff.tar";
        match (self, codec) {
            (MediaTypes::Oci, Codec::None) => Some(MediaType::ImageLayer.to_string()),
            (MediaTypes::Oci, Codec::Gzip) => Some(MediaType::ImageLayerGzip.to_string()),
            (MediaTypes::Oci, Codec::Zstd) => Some(MediaType::ImageLayerZstd.to_string()),
            (MediaTypes::Docker, Codec::None) => Some(docker.to_string()),
            (MediaTypes::Docker, Codec::Gzip) => Some(format!("{docker}.gzip")),
            _ => None,
        }
    }

    /// The codec that a layer has whose descriptor says `media_type`.
    fn codec(self, media_type: &str) -> Option<Codec> {
        [Codec::None, Codec::Gzip, Codec::Zstd].into_iter().find(|&it| self.layer(it).as_deref() == Some(media_type))
    }
}

/// What a manifest says of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Described {
    digest: Digest,
    size: u64,
    codec: Codec,
}

/// Pushes `image`.
pub(in crate::output) fn push(
    image: &Image,
    packing: &Packing<'_>,
    types: MediaTypes,
    place: &Place,
    task: &Task,
    monitor: &Monitor,
) -> Result<Outcome> {
    let Place::Hosted(hosted) = place else { return Err(Error::new(ErrorKind::Bug, "an image has no registry")) };
    let there = obtained(image, packing, types, hosted)?;
    for (layer, _) in image.layers.iter().zip(&there).filter(|(_, there)| there.is_some()) {
        image.blobs.forget(&layer.blob);
    }
    let made = layers_where(image, packing, place, task, monitor, &|at| there[at].is_none())?;
    let described = described(image, packing, types, &there, &made.blobs)?;
    let (diff_ids, digests): (Vec<Digest>, Vec<Digest>) = match packing.image.flatten {
        true => made.blobs.iter().flatten().map(|blob| (blob.diff_id, blob.digest)).unzip(),
        false => {
            let stated = image.config.diff_ids()?;
            let of = |at: usize| made.blobs[at].as_ref().map(|blob| blob.diff_id).or(stated.get(at).copied());
            (0..described.len()).filter_map(|at| Some((of(at)?, described[at].digest))).unzip()
        }
    };
    let config = config(image, packing, (&diff_ids, &digests, made.diff_ids.len()), task)?;
    let manifest = manifest(image, types, &config, &described)?;
    let pushed = send(image, hosted, &config, &made, &there, monitor)?;
    let pushed: Vec<Pushed> = pushed.into_iter().chain(there.iter().flatten().map(|(_, how)| *how)).collect();
    image.blobs.confirm()?;
    let repository = hosted.repository()?;
    let digest = Digest::of(&manifest);
    let name = hosted.hosting.reference.tag.clone().unwrap_or_else(|| digest.to_string());
    monitor.begin(Phase::Finish, 0);
    monitor.check()?;
    repository.push_manifest(&name, &types.manifest(), &manifest).doing(|| format!("pushing {}", hosted.hosting))?;
    let documents = (config.bytes.len() + manifest.len()) as u64;
    let distinct = distinct(&described);
    let notes_of_registry = repository.warnings().into_iter().map(|text| Note::new("registry", text, 1));
    Ok(Outcome {
        size: distinct.iter().map(|layer| layer.size).sum::<u64>() + documents,
        entries: distinct.len() as u64 + 2,
        image_id: Some(config.digest),
        manifest_digest: Some(digest),
        pushed: Some(PushedBlobs::of(&pushed)),
        layer_entries: made.entries,
        layer_bytes: made.tar_bytes,
        diff_ids: if packing.image.flatten { made.diff_ids } else { diff_ids },
        notes: uncompressed(&described).into_iter().chain(notes_of_registry).collect(),
        ..Outcome::default()
    })
}

/// The layers that the registry has as they are, or took from another repository, and how.
fn obtained(
    image: &Image,
    packing: &Packing<'_>,
    types: MediaTypes,
    hosted: &Hosted,
) -> Result<Vec<Option<(Described, Pushed)>>> {
    let manifest = image.manifest.as_deref().and_then(|bytes| Manifest::parse(bytes).ok());
    let stated: Vec<Option<Described>> = image
        .layers
        .iter()
        .enumerate()
        .map(|(at, layer)| {
            let stays = |codec: Codec| codec != Codec::None || packing.compression.kind() == Codec::None;
            let BlobRef { digest, size, .. } = layer.blob;
            let descriptor = manifest.as_ref().filter(|_| !packing.image.flatten)?.layers.get(at)?;
            // Docker's and the OCI's names for one thing stand for the same bytes.
            let known = [types, MediaTypes::Oci, MediaTypes::Docker];
            let codec = known.iter().find_map(|types| types.codec(&descriptor.media_type))?;
            types.layer(codec).filter(|_| stays(codec))?;
            let (digest, size) = (digest?, size?);
            (digest.algorithm() == Algorithm::Sha256).then_some(Described { digest, size, codec })
        })
        .collect();
    let mut asked: Vec<(Digest, u64)> = stated.iter().flatten().map(|layer| (layer.digest, layer.size)).collect();
    asked.sort();
    asked.dedup();
    let found = hosted.repository()?.obtain_blobs(&asked).doing(|| format!("looking what {} has", hosted.hosting))?;
    let how = |layer: Described| {
        let at = asked.iter().position(|(digest, _)| *digest == layer.digest)?;
        Some((layer, found[at]?))
    };
    Ok(stated.into_iter().map(|layer| layer.and_then(how)).collect())
}

/// What the manifest says of the layers.
fn described(
    image: &Image,
    packing: &Packing<'_>,
    types: MediaTypes,
    there: &[Option<(Described, Pushed)>],
    made: &[Option<Blob>],
) -> Result<Vec<Described>> {
    let of_blob = |blob: &Blob| Described { digest: blob.digest, size: blob.data.len, codec: blob.codec };
    let lost = || Error::new(ErrorKind::Bug, "a layer was lost");
    let described: Vec<Described> = match packing.image.flatten {
        true => made.iter().flatten().map(of_blob).collect(),
        false => (0..made.len())
            .map(|at| there[at].map(|(layer, _)| layer).or(made[at].as_ref().map(of_blob)).ok_or_else(lost))
            .collect::<Result<_>>()?,
    };
    for (at, layer) in described.iter().enumerate() {
        if types.layer(layer.codec).is_none() {
            let name = if packing.image.flatten { "the layer".to_string() } else { image.layer_name(at) };
            let message =
                format!("{name} is compressed with {}, for which Docker's manifests have no name", layer.codec);
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(Remedy::OciMediaTypes));
        }
    }
    Ok(described)
}

/// The manifest: its bytes as they are where they say just this.
fn manifest(image: &Image, types: MediaTypes, config: &Document, layers: &[Described]) -> Result<Vec<u8>> {
    if let Some(bytes) = image.manifest.as_deref().filter(|bytes| says(bytes, types, config, layers)) {
        return Ok(bytes.to_vec());
    }
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            let media_type = types.layer(layer.codec);
            json!({ "mediaType": media_type, "size": layer.size, "digest": layer.digest.to_string() })
        })
        .collect();
    let config =
        json!({ "mediaType": types.config(), "size": config.bytes.len(), "digest": config.digest.to_string() });
    let document = json!({ "schemaVersion": 2, "mediaType": types.manifest(), "config": config, "layers": layers });
    serde_json::to_vec(&document).map_err(|error| Error::new(ErrorKind::Bug, error))
}

fn says(bytes: &[u8], types: MediaTypes, config: &Document, layers: &[Described]) -> bool {
    let (Ok(manifest), Ok(document)) = (Manifest::parse(bytes), serde_json::from_slice::<Value>(bytes)) else {
        return false;
    };
    // The OCI's may leave it out; what is pushed says it besides.
    let is_typed = match document.get("mediaType").and_then(Value::as_str) {
        Some(stated) => stated == types.manifest(),
        None => types == MediaTypes::Oci,
    };
    let is_config = manifest.config.media_type == types.config()
        && manifest.config.digest().ok() == Some(config.digest)
        && manifest.config.size() == Some(config.bytes.len() as u64);
    let stated: Vec<Option<Described>> = manifest
        .layers
        .iter()
        .map(|it| {
            let (digest, codec) = (it.digest().ok()?, types.codec(&it.media_type)?);
            Some(Described { digest, size: it.size()?, codec })
        })
        .collect();
    is_typed
        && is_config
        && document["schemaVersion"] == 2
        && stated.iter().eq(layers.iter().copied().map(Some).collect::<Vec<_>>().iter())
}

/// Each blob once.
fn distinct(layers: &[Described]) -> Vec<Described> {
    let mut distinct: Vec<Described> = Vec::new();
    for layer in layers {
        if distinct.iter().all(|other| other.digest != layer.digest) {
            distinct.push(*layer);
        }
    }
    distinct
}

/// Pushes what is not there.
fn send(
    image: &Image,
    hosted: &Hosted,
    config: &Document,
    made: &Layers<Option<Blob>>,
    there: &[Option<(Described, Pushed)>],
    monitor: &Monitor,
) -> Result<Vec<Pushed>> {
    let config_bytes: &[u8] = &config.bytes;
    let mut blobs: Vec<BlobContent<'_>> = vec![(config.digest, config_bytes.len() as u64, &config_bytes)];
    for blob in made.blobs.iter().flatten() {
        let is_there = there.iter().flatten().any(|(layer, _)| layer.digest == blob.digest);
        if !is_there && blobs.iter().all(|(digest, ..)| *digest != blob.digest) {
            blobs.push((blob.digest, blob.data.len, &blob.data));
        }
    }
    monitor.begin(Phase::Push, blobs.iter().map(|(_, size, _)| size).sum());
    let pushed = hosted.repository()?.push_blobs(&blobs).doing(|| format!("pushing {}", hosted.hosting))?;
    // What was sent is what was hashed, if nobody wrote to it meanwhile.
    let mut stamps = made.blobs.iter().flatten().filter_map(|blob| blob.stamp.as_ref());
    stamps.try_for_each(Stamp::check).doing(|| format!("reading {}", image.blobs.name()))?;
    Ok(pushed)
}

/// Whoever pulls such an image takes more bytes than need be.
fn uncompressed(layers: &[Described]) -> Option<Note> {
    let plain: Vec<&Described> = layers.iter().filter(|layer| layer.codec == Codec::None).collect();
    let bytes: u64 = plain.iter().map(|layer| layer.size).sum();
    let message = format!(
        "layers of {bytes} bytes were pushed without compression, as they are in the source \
                           (--compression gzip makes them smaller)"
    );
    const WORTH_SAYING_BYTES: u64 = 1 << 20;
    (bytes >= WORTH_SAYING_BYTES).then(|| Note::new("layers-uncompressed", message, plain.len() as u64))
}
