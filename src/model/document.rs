use serde::{Deserialize, Deserializer};

use super::Digest;
use crate::error::{Error, ErrorKind, Result};

/// The largest JSON document that is read, in bytes: registries and containerd refuse larger manifests than 4 MiB too.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// One image of a docker-archive's `manifest.json`. Producers write `null` for what they do not have.
#[derive(Debug, Clone, Deserialize)]
pub struct ArchiveManifestItem {
    /// Member that holds the image config.
    #[serde(rename = "Config")]
    pub config: String,
    /// Full names with tags.
    #[serde(rename = "RepoTags", default, deserialize_with = "null_as_default")]
    pub repo_tags: Vec<String>,
    /// Members that hold the layers, lowest first.
    #[serde(rename = "Layers", default, deserialize_with = "null_as_default")]
    pub layers: Vec<String>,
}

/// An OCI image index or Docker manifest list, read leniently: `"manifests": null` is empty.
#[derive(Debug, Clone, Deserialize)]
pub struct Index {
    /// What it lists.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<oci_spec::image::Descriptor>,
}

/// An OCI image manifest or Docker manifest v2 schema 2, read leniently.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The image config.
    pub config: oci_spec::image::Descriptor,
    /// Layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<oci_spec::image::Descriptor>,
}

impl Index {
    /// Parses the document.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse_json(bytes, "an image index")
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
    /// Parses a whole `manifest.json`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>> {
        let items: Option<Vec<Self>> = parse_json(bytes, "a docker-archive manifest")?;
        Ok(items.unwrap_or_default())
    }
}

/// Our digest out of oci-spec's.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when the algorithm is not SHA-256.
pub(crate) fn digest_of(descriptor: &oci_spec::image::Descriptor) -> Result<Digest> {
    descriptor.digest().as_ref().parse()
}

pub(super) fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::new(ErrorKind::InvalidImage, format!("this is not {what}: {error}")))
}

pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
