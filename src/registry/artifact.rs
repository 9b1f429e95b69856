//! A SIF as an artifact of a registry, as Apptainer, Singularity and oras read it.

use serde_json::{Map, Value, json};

use super::repository::{Content, Pushed, Repository, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Digest;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SIF_CONFIG: &str = "application/vnd.sylabs.sif.config.v1+json";
/// The media type of a SIF, and what kind of artifact a manifest with one is.
pub const SIF_LAYER: &str = "application/vnd.sylabs.sif.layer.v1.sif";
/// The config of such a manifest says nothing.
const EMPTY: &[u8] = b"{}";

/// A SIF to be pushed.
pub struct SifArtifact<'a> {
    /// The SHA-256 of the file.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its bytes.
    pub content: &'a dyn Content,
    /// The name of the file that it is to become.
    pub title: &'a str,
    /// The image manifest that it was made from: media type, digest, length in bytes. With it the SIF refers to that image.
    pub subject: Option<(&'a str, Digest, u64)>,
    /// What else the manifest says.
    pub annotations: &'a [(&'a str, &'a str)],
}

impl SifArtifact<'_> {
    /// The manifest: one that `apptainer pull oras://…` takes, and that a registry lists among the referrers of the subject.
    ///
    /// # Errors
    /// None that can be helped.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        let config = json!({ "mediaType": SIF_CONFIG, "digest": Digest::of(EMPTY).to_string(), "size": EMPTY.len() });
        let layer = json!({ "mediaType": SIF_LAYER, "digest": self.digest.to_string(), "size": self.size,
            "annotations": { "org.opencontainers.image.title": self.title } });
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": SIF_LAYER,
            "config": config, "layers": [layer] });
        if let Some((media_type, digest, size)) = self.subject {
            manifest["subject"] = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
        }
        if !self.annotations.is_empty() {
            let pairs = self.annotations.iter().map(|(key, value)| (key.to_string(), Value::from(*value)));
            manifest["annotations"] = Value::Object(Map::from_iter(pairs));
        }
        serde_json::to_vec(&manifest).map_err(|error| Error::new(ErrorKind::Bug, error))
    }
}

impl Repository {
    /// Makes sure that blobs may be pushed, by pushing one that every SIF needs.
    ///
    /// # Errors
    /// As [`Repository::push_blob`].
    pub fn expect_push(&self) -> Result<()> {
        self.push_blob(Digest::of(EMPTY), EMPTY.len() as u64, &EMPTY).map(drop)
    }

    /// Pushes a SIF, under `tag` where one is given; one with a subject is listed among the referrers of that.
    ///
    /// # Errors
    /// As [`Repository::push_blob`] and [`Repository::attach`].
    pub fn push_sif(&self, sif: &SifArtifact<'_>, tag: Option<&str>) -> Result<(Stored, Pushed)> {
        self.push_blob(Digest::of(EMPTY), EMPTY.len() as u64, &EMPTY)?;
        let pushed = self.push_blob(sif.digest, sif.size, sif.content)?;
        let manifest = sif.manifest()?;
        let mut stored = match sif.subject {
            Some(_) => Some(self.attach(OCI_MANIFEST, &manifest)?),
            None => None,
        };
        if let Some(name) =
            tag.map(str::to_string).or_else(|| stored.is_none().then(|| Digest::of(&manifest).to_string()))
        {
            let tagged = self.push_manifest(&name, OCI_MANIFEST, &manifest)?;
            stored.get_or_insert(tagged);
        }
        let stored = stored.ok_or_else(|| Error::new(ErrorKind::Bug, "no manifest was pushed"))?;
        Ok((stored, pushed))
    }
}
