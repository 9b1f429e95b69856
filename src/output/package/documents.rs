//! What an image says of itself in an output: config, manifest, index entries, names.

use oci_spec::image::{Arch, Descriptor, ImageManifest, ImageManifestBuilder, MediaType, Os, PlatformBuilder};
use serde_json::{Value, json};

use super::stage::Blob;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::image::Image;
use crate::io::{Codec, Stamp};
use crate::model::{Digest, Note, Platform, Quoted, Reference};
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
    /// Whether the names were asked for, and are not the image's own.
    asked: bool,
    /// Names of the source that are none in the output.
    lost: Vec<String>,
    pub(super) platform: Platform,
}

impl Package {
    /// Puts together what `image` became. Manifest bytes of the source are kept where they describe just these blobs.
    pub(super) fn new(
        image: &Image,
        config: Document,
        layers: Vec<Blob>,
        (in_layout, asked): (bool, &[ImageName]),
    ) -> Result<Self> {
        let (names, lost) = if asked.is_empty() { own_names(image, in_layout) } else { (asked.to_vec(), Vec::new()) };
        let kept = image.manifest.as_deref().filter(|bytes| describes(bytes, &config, &layers));
        let manifest = match kept {
            Some(bytes) => bytes.to_vec(),
            None => manifest(&config, &layers)?,
        };
        Ok(Package {
            config,
            manifest: Document::new(manifest),
            layers,
            names: unique(names),
            asked: !asked.is_empty(),
            lost,
            platform: image.platform(),
        })
    }

    /// What was copied is what was hashed, if nobody wrote to it meanwhile: asked when all has been copied.
    pub(super) fn expect_unchanged(&self, image: &Image) -> Result<()> {
        let mut stamps = self.layers.iter().filter_map(|blob| blob.stamp.as_ref());
        stamps.try_for_each(Stamp::check).doing(|| format!("reading {}", image.blobs.name()))
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

    /// The descriptors that stand for the image in an index: one for each name that is asked for, and one where none is.
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
        let names = self.index_names();
        if names.is_empty() {
            return Ok(vec![bare]);
        }
        let mut tags: Vec<&str> = Vec::new();
        let mut entries = Vec::new();
        for name in names {
            let (tag, full) = match name {
                ImageName::Tag(tag) => (Some(tag.as_str()), None),
                ImageName::Full(reference) => (reference.tag.as_deref(), Some(reference.to_string())),
            };
            // A tag must mean one thing: of several names with one tag, the first has it.
            let tag = tag.filter(|tag| !tags.contains(tag));
            tags.extend(tag);
            let mut annotations = serde_json::Map::new();
            annotations.extend(full.map(|full| (FULL_NAME.to_string(), json!(full))));
            annotations.extend(tag.map(|tag| (REF_NAME.to_string(), json!(tag))));
            let mut entry = bare.clone();
            entry["annotations"] = Value::Object(annotations);
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The names that an index gives the image: all that were asked for, else the first of its own. Apptainer, Podman, skopeo and
    /// crane take no layout without a word which of its entries is meant, although they are one image.
    fn index_names(&self) -> &[ImageName] {
        let count = if self.asked { self.names.len() } else { 1.min(self.names.len()) };
        &self.names[..count]
    }

    /// What is to be said about the names in an index.
    pub(super) fn index_notes(&self) -> Vec<Note> {
        let mut notes: Vec<Note> = Vec::new();
        let written = self.index_names().len();
        if written > 1 {
            let message = format!(
                "the layout lists the image {written} times, once for each --tag: apptainer, podman, skopeo and crane \
                 must be told which one is meant"
            );
            notes.push(Note::new("image-listed-twice", message, written as u64));
        }
        let left_out = &self.names[written..];
        if let Some(first) = self.names.first().filter(|_| !left_out.is_empty()) {
            let message = format!(
                "the image is called {first} only: an index with two entries for one image is refused by apptainer, podman, \
                 skopeo and crane (write all names with --tag)"
            );
            notes.push(of_names("names-left-out", message, left_out.iter().map(ImageName::to_string)));
        }
        notes.extend(self.lost_names());
        notes
    }

    /// Names that the output cannot say.
    fn lost_names(&self) -> Option<Note> {
        let message = "names of the image were left out: they are not names that an output of this format may have";
        let quoted = self.lost.iter().map(|name| Quoted(name.as_bytes()).to_string());
        (!self.lost.is_empty()).then(|| of_names("names-lost", message.to_string(), quoted))
    }

    /// The document that Docker looks for in an archive, and what is to be said about names that were made up.
    pub(super) fn archive_manifest(&self) -> (Vec<u8>, Vec<Note>) {
        let (tags, made) = self.repo_tags();
        let layers: Vec<String> = self.layers.iter().map(layer_member).collect();
        let item = json!({"Config": config_member(&self.config), "RepoTags": tags, "Layers": layers});
        let note = made.then(|| {
            let message = format!("the image has no name with a tag: it is called {} (choose with --tag)", tags[0]);
            Note::new("name-made", message, 1)
        });
        (json!([item]).to_string().into_bytes(), note.into_iter().chain(self.lost_names()).collect())
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

/// What the source calls the image, as far as a layout or a docker-archive can say it, and what it cannot.
fn own_names(image: &Image, in_layout: bool) -> (Vec<ImageName>, Vec<String>) {
    let (mut names, mut lost) = (Vec::new(), Vec::new());
    let odd = |name: &str| in_layout && is_ref_name(name) && image.ref_names.iter().any(|odd| is_same_name(odd, name));
    for name in &image.names {
        let spelled = image.ref_names.iter().find(|odd| is_same_name(odd, name));
        match (spelled, name.parse()) {
            (Some(spelled), _) if odd(spelled) => names.push(ImageName::Tag(spelled.clone())),
            (_, Ok(reference)) => names.push(ImageName::Full(reference)),
            (_, Err(_)) => lost.push(name.clone()),
        }
    }
    for tag in &image.tags {
        let is_tag = matches!(ImageName::parse(tag), Ok(ImageName::Tag(_)));
        if is_tag || in_layout && is_ref_name(tag) {
            names.push(ImageName::Tag(tag.clone()));
        } else {
            lost.push(tag.clone());
        }
    }
    (names, lost)
}

fn unique(all: Vec<ImageName>) -> Vec<ImageName> {
    let mut names: Vec<ImageName> = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether two spellings mean one name.
fn is_same_name(one: &str, other: &str) -> bool {
    one == other
        || matches!((one.parse::<Reference>(), other.parse::<Reference>()), (Ok(one), Ok(other)) if one == other)
}

/// Whether an OCI layout may call an image so (image-spec, annotations.md): words of letters and digits, joined by `-`, `.`, `_`,
/// `:`, `@`, `+`, `--` or `/`.
fn is_ref_name(name: &str) -> bool {
    let is_word = |part: &str| part.split(['-', '.', '_', ':', '@', '+']).all(|word| !word.is_empty());
    let known = |letter: char| letter.is_ascii_alphanumeric() || "-._:@+/".contains(letter);
    name.chars().all(known) && name.split('/').all(|part| is_word(&part.replace("--", "-")))
}

fn of_names(code: &'static str, message: String, names: impl ExactSizeIterator<Item = String>) -> Note {
    let mut note = Note::new(code, message, names.len() as u64);
    names.for_each(|name| note.example(name));
    note
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_layouts_are_told_from_others() {
        for name in ["1.0+build5", "stable@2", "release/1.0", "a--b", "v1", "x_y:1"] {
            assert!(is_ref_name(name), "{name}");
        }
        for name in ["", "a b", "-a", "a/", "a..b", "a\u{1}", "ä"] {
            assert!(!is_ref_name(name), "{name}");
        }
    }
}
