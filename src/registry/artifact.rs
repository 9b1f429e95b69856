//! A SIF as an artifact of a registry, as Apptainer, Singularity and oras read it, and the signature of one.

use serde_json::{Map, Value, json};

use super::repository::{Content, Pushed, Repository, Stored};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Digest;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SIF_CONFIG: &str = "application/vnd.sylabs.sif.config.v1+json";
/// The media type of a SIF, and what kind of artifact a manifest with one is.
pub const SIF_LAYER: &str = "application/vnd.sylabs.sif.layer.v1.sif";
/// What kind of artifact the signature of a SIF is, without the SIF.
pub const SIF_SIGNATURE: &str = "application/vnd.sif-convert.signature.v1+json";
/// A DSSE envelope, which such a signature is.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The config of a manifest that needs none (image-spec, manifest.md, "Guidance for an Empty Descriptor").
const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
/// The config of such a manifest says nothing.
const EMPTY: &[u8] = b"{}";

/// What is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactKind {
    /// A SIF.
    Sif,
    /// The signature of a SIF: a DSSE envelope.
    Signature,
}

impl ArtifactKind {
    /// The media types of artifact, config and layer.
    fn media_types(self) -> (&'static str, &'static str, &'static str) {
        match self {
            ArtifactKind::Sif => (SIF_LAYER, SIF_CONFIG, SIF_LAYER),
            ArtifactKind::Signature => (SIF_SIGNATURE, EMPTY_CONFIG, ENVELOPE),
        }
    }
}

/// A SIF to be pushed, or the signature of one.
#[non_exhaustive]
pub struct SifArtifact<'a> {
    /// Which of them.
    pub kind: ArtifactKind,
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

impl<'a> SifArtifact<'a> {
    /// The SIF in a file of `size` bytes, which refers to no image.
    pub fn new(digest: Digest, size: u64, content: &'a dyn Content, title: &'a str) -> Self {
        SifArtifact { kind: ArtifactKind::Sif, digest, size, content, title, subject: None, annotations: &[] }
    }

    /// The manifest: of a SIF one that `apptainer pull oras://…` takes, and that a registry lists among the referrers of the subject.
    ///
    /// # Errors
    /// None that can be helped.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        let (artifact, config, layer) = self.kind.media_types();
        let config = json!({ "mediaType": config, "digest": Digest::of(EMPTY).to_string(), "size": EMPTY.len() });
        let layer = json!({ "mediaType": layer, "digest": self.digest.to_string(), "size": self.size,
            "annotations": { "org.opencontainers.image.title": self.title } });
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact,
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

    /// Pushes a SIF or a signature, under `tag` where one is given; one with a subject is listed among the referrers of that.
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
