use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::{Each, parse_json};
use super::{Digest, Platform};
use crate::error::{Error, ErrorKind, Result};

/// The largest JSON document that is read, in bytes: registries and containerd refuse larger manifests than 4 MiB too.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// One image of a docker-archive's `manifest.json`. Producers write `null` for what they do not have.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ArchiveManifestItem {
    /// Member that holds the image config.
    pub config: String,
    /// Full names with tags.
    pub repo_tags: Vec<String>,
    /// Members that hold the layers, lowest first.
    pub layers: Vec<String>,
}

/// An OCI image index or Docker manifest list, read leniently: `"manifests": null` is empty.
#[derive(Debug, Default)]
pub struct Index {
    /// What it lists; an error where an entry is not a descriptor.
    pub manifests: Vec<Result<Descriptor>>,
}

/// An OCI image manifest or Docker manifest v2 schema 2, read leniently.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Manifest {
    /// What it is where it is not an image.
    pub artifact_type: String,
    /// The image config.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A descriptor (OCI image-spec, descriptor.md), read as Go reads it: whatever is missing or `null` is empty, and it is only
/// looked at what is needed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is about; empty where it does not say.
    pub media_type: String,
    /// What the artifact is, where it is one.
    pub artifact_type: String,
    /// As written: see [`Descriptor::digest`].
    digest: String,
    /// Length in bytes; -1 is unknown in Go's libraries.
    size: Option<i64>,
    /// Where else the blob may be had.
    pub urls: Vec<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it runs on.
    platform: DeclaredPlatform,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct DeclaredPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
    #[serde(rename = "os.features")]
    os_features: Vec<String>,
}

impl Descriptor {
    /// The digest of what it is about.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the algorithm is unknown, [`ErrorKind::InvalidImage`] when it is not a digest.
    pub fn digest(&self) -> Result<Digest> {
        self.digest.parse()
    }

    /// The digest as it is written, for messages.
    pub fn digest_text(&self) -> &str {
        &self.digest
    }

    /// The length in bytes, where it says one.
    pub fn size(&self) -> Option<u64> {
        self.size.and_then(|size| u64::try_from(size).ok())
    }

    /// The platform, where it says both halves of one.
    pub fn platform(&self) -> Option<Platform> {
        let DeclaredPlatform { os, architecture, variant, .. } = &self.platform;
        let known = !os.is_empty() && !architecture.is_empty();
        known.then(|| Platform::new(os, architecture, variant.as_deref()))
    }

    /// What the system must be able to do beside what its name says.
    pub fn os_features(&self) -> &[String] {
        &self.platform.os_features
    }

    /// The annotation `key`, where it is there and not empty.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl Index {
    /// Parses the document.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Document {
            manifests: Vec<Each<Descriptor>>,
        }
        let document: Document = parse_json(bytes, "an image index")?;
        Ok(Index { manifests: document.manifests.into_iter().map(|each| each.0).collect() })
    }
}

impl Manifest {
    /// Parses the document.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse_json(bytes, "an image manifest")
    }
}

impl ArchiveManifestItem {
    /// Parses a whole `manifest.json`; an error where an image in it is not described so.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Result<Self>>> {
        let items: Vec<Each<Self>> = parse_json(bytes, "a docker-archive manifest")?;
        let whole = |item: Self| match item.config.is_empty() {
            true => Err(Error::new(ErrorKind::InvalidImage, "it names no config")),
            false => Ok(item),
        };
        Ok(items.into_iter().map(|each| each.0.and_then(whole)).collect())
    }
}
