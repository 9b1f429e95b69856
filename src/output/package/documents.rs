//! What an image says of itself in an output: config, manifest, index entries, names.

use oci_spec::image::{Arch, Descriptor, ImageManifest, ImageManifestBuilder, MediaType, Os, PlatformBuilder};
use serde_json::{Value, json};

use super::stage::Blob;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::Codec;
use crate::model::{Digest, Note, Platform, Reference};
use crate::output::options::ImageName;

/// Where an OCI layout says the tag.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Where containerd and Docker say the full name beside it.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
/// How many digits of an image ID stand for it in a tag, as Docker shows IDs.
const SHORT_ID_DIGITS: usize = 12;

/// A JSON document and its digest.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl Document {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Document { digest: Digest::of(&bytes), bytes }
    }
}

/// An image, complete, ready to be put somewhere.
pub(in crate::output) struct Package {
    pub(super) config: Document,
    pub(super) manifest: Document,
    /// Lowest first; the same blob may be there twice.
    pub(super) layers: Vec<Blob>,
    pub(super) names: Vec<ImageName>,
    pub(super) platform: Platform,
}

impl Package {
    /// Puts together what `image` became. Manifest bytes of the source are kept where they describe just these blobs.
    pub(super) fn new(image: &Image, config: Document, layers: Vec<Blob>, asked: &[ImageName]) -> Result<Self> {
        let kept = image.manifest.as_deref().filter(|bytes| describes(bytes, &config, &layers));
        let manifest = match kept {
            Some(bytes) => bytes.to_vec(),
            None => manifest(&config, &layers)?,
        };
        Ok(Package {
            config,
            manifest: Document::new(manifest),
            layers,
            names: names(image, asked),
            platform: image.platform(),
        })
    }

    /// Layers, each once, in the order of the image.
    pub(super) fn unique_layers(&self) -> Vec<&Blob> {
        let mut unique: Vec<&Blob> = Vec::new();
        for blob in &self.layers {
            if !unique.iter().any(|there| there.digest == blob.digest) {
                unique.push(blob);
            }
        }
        unique
    }

    /// The descriptors that stand for the image in an index: one for each name, and one where there is none.
    pub(super) fn index_entries(&self) -> Result<Vec<Value>> {
        let mut descriptor = descriptor(MediaType::ImageManifest, &self.manifest)?;
        let Platform { os, architecture, variant } = &self.platform;
        if !architecture.is_empty() {
            let platform =
                PlatformBuilder::default().architecture(Arch::from(architecture.as_str())).os(Os::from(os.as_str()));
            let platform = match variant {
                Some(variant) => platform.variant(variant.clone()),
                None => platform,
            };
            descriptor.set_platform(Some(platform.build().map_err(bug)?));
        }
        let bare = serde_json::to_value(&descriptor).map_err(bug)?;
        if self.names.is_empty() {
            return Ok(vec![bare]);
        }
        let mut tags: Vec<&str> = Vec::new();
        let entry = |name: &'_ ImageName| {
            let (tag, full) = match name {
                ImageName::Tag(tag) => (Some(tag.as_str()), None),
                ImageName::Full(reference) => (reference.tag.as_deref(), Some(reference.to_string())),
            };
            (tag.map(str::to_string), full)
        };
        let named: Vec<_> = self.names.iter().map(entry).collect();
        let mut entries = Vec::new();
        for (tag, full) in &named {
            // A tag must mean one thing: of several names with one tag, the first has it.
            let tag = tag.as_deref().filter(|tag| !tags.contains(tag));
            tags.extend(tag);
            let mut annotations = serde_json::Map::new();
            annotations.extend(full.as_ref().map(|full| (FULL_NAME.to_string(), json!(full))));
            annotations.extend(tag.map(|tag| (REF_NAME.to_string(), json!(tag))));
            let mut entry = bare.clone();
            entry["annotations"] = Value::Object(annotations);
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The document that Docker looks for in an archive, and what is to be said about names that were made up.
    pub(super) fn archive_manifest(&self) -> (Vec<u8>, Option<Note>) {
        let (tags, made) = self.repo_tags();
        let layers: Vec<String> = self.layers.iter().map(layer_member).collect();
        let item = json!({"Config": config_member(&self.config), "RepoTags": tags, "Layers": layers});
        let note = made.then(|| {
            let message = format!("the image has no name with a tag: it is called {} (choose with --tag)", tags[0]);
            Note::new("name-made", message, 1)
        });
        (json!([item]).to_string().into_bytes(), note)
    }

    /// Names in full, which Docker and Podman read alike; never none, for clients read the first. Whether that had to be
    /// made up.
    fn repo_tags(&self) -> (Vec<String>, bool) {
        let tagged = |name: &ImageName| match name {
            ImageName::Full(reference) if reference.tag.is_some() => {
                Some(Reference { digest: None, ..reference.clone() }.to_string())
            }
            _ => None,
        };
        let tags: Vec<String> = self.names.iter().filter_map(tagged).collect();
        if !tags.is_empty() {
            return (tags, false);
        }
        let id = self.config.digest.hex()[..SHORT_ID_DIGITS].to_string();
        let made = match self.names.first() {
            Some(ImageName::Full(reference)) => {
                Reference { tag: Some(id), digest: None, ..reference.clone() }.to_string()
            }
            Some(ImageName::Tag(tag)) => format!("localhost/image:{tag}"),
            None => format!("localhost/image:{id}"),
        };
        (vec![made], true)
    }
}

/// The member of a docker-archive that holds a layer.
pub(super) fn layer_member(layer: &Blob) -> String {
    format!("{}.tar", layer.digest.hex())
}

/// The member of a docker-archive that holds the config.
pub(super) fn config_member(config: &Document) -> String {
    format!("{}.json", config.digest.hex())
}

/// What the image is called: as asked, else as the source says.
fn names(image: &Image, asked: &[ImageName]) -> Vec<ImageName> {
    let full = image.names.iter().filter_map(|name| name.parse().ok()).map(ImageName::Full);
    let tags = image.tags.iter().filter_map(|tag| match ImageName::parse(tag) {
        Ok(ImageName::Tag(tag)) => Some(ImageName::Tag(tag)),
        _ => None,
    });
    let own = full.chain(tags);
    let mut names: Vec<ImageName> = Vec::new();
    for name in if asked.is_empty() { own.collect() } else { asked.to_vec() } {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether a manifest is an OCI one of just this config and these layers, as they are.
fn describes(manifest: &[u8], config: &Document, layers: &[Blob]) -> bool {
    let Ok(manifest) = serde_json::from_slice::<ImageManifest>(manifest) else { return false };
    let is = |descriptor: &Descriptor, media_type: MediaType, digest: Digest, size: u64| {
        *descriptor.media_type() == media_type
            && descriptor.digest().to_string() == digest.to_string()
            && descriptor.size() == size
    };
    manifest.schema_version() == 2
        && manifest.media_type().as_ref().is_none_or(|media_type| *media_type == MediaType::ImageManifest)
        && is(manifest.config(), MediaType::ImageConfig, config.digest, config.bytes.len() as u64)
        && manifest.layers().len() == layers.len()
        && manifest
            .layers()
            .iter()
            .zip(layers)
            .all(|(descriptor, blob)| is(descriptor, layer_type(blob.codec), blob.digest, blob.data.len))
}

fn manifest(config: &Document, layers: &[Blob]) -> Result<Vec<u8>> {
    let layers = layers.iter().map(|blob| described(layer_type(blob.codec), blob.digest, blob.data.len));
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(descriptor(MediaType::ImageConfig, config)?)
        .layers(layers.collect::<Result<Vec<_>>>()?)
        .build()
        .map_err(bug)?;
    serde_json::to_vec(&manifest).map_err(bug)
}

fn layer_type(codec: Codec) -> MediaType {
    match codec {
        Codec::Gzip => MediaType::ImageLayerGzip,
        Codec::Zstd => MediaType::ImageLayerZstd,
        _ => MediaType::ImageLayer,
    }
}

fn descriptor(media_type: MediaType, document: &Document) -> Result<Descriptor> {
    described(media_type, document.digest, document.bytes.len() as u64)
}

fn described(media_type: MediaType, digest: Digest, size: u64) -> Result<Descriptor> {
    let digest: oci_spec::image::Digest = digest.to_string().parse().map_err(bug)?;
    Ok(Descriptor::new(media_type, size, digest))
}

/// Documents of ours that cannot be written are a bug.
fn bug(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Bug, format!("a document cannot be written: {error}"))
}
