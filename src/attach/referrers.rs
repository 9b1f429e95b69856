//! What is attached to an image, whoever attached it.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use serde::Serialize;
use serde_json::Value;

use super::LOOKED_AT_MAX;
use crate::error::Result;
use crate::io::Monitor;
use crate::model::{Digest, Reference};
use crate::output::FORMAT;
use crate::registry::{Repository, SIF_LAYER, Settings};

/// Something that refers to an image.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Referrer {
    /// The digest of its manifest.
    pub manifest_digest: String,
    /// What it is, as a media type.
    pub artifact_type: Option<String>,
    /// What it says of itself.
    pub annotations: BTreeMap<String, String>,
    /// The file, where it is a SIF.
    pub sif: Option<ReferringSif>,
}

/// A SIF that refers to an image.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ReferringSif {
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Bytes of the file.
    pub size: u64,
    /// The number of the output format, where it was attached by this program.
    pub format: Option<String>,
}

/// Asks what refers to images of one repository, with a limit on how many requests that takes. Mirrors are asked first; the
/// first that knows anything counts.
pub struct ReferrerList {
    repositories: Vec<Repository>,
    monitor: Monitor,
    /// How many manifests are looked at yet. Of those beyond, what the registry's list says is taken.
    left: usize,
}

impl ReferrerList {
    /// For the repository that `reference` names.
    ///
    /// # Errors
    /// [`ErrorKind::Network`](crate::ErrorKind::Network) where `registries.conf` blocks the registry.
    pub fn open(reference: &Reference, settings: &Settings, monitor: &Monitor) -> Result<Self> {
        let repositories = Repository::open_for_reading(reference, settings, monitor)?;
        Ok(ReferrerList { repositories, monitor: monitor.clone(), left: LOOKED_AT_MAX })
    }

    /// All that refers to the manifest or index `subject`.
    ///
    /// # Errors
    /// [`ErrorKind::Network`](crate::ErrorKind::Network) when the registry cannot be reached or refuses.
    pub fn of(&mut self, subject: Digest) -> Result<Vec<Referrer>> {
        let Some((origin, mirrors)) = self.repositories.split_last() else { return Ok(Vec::new()) };
        for mirror in mirrors {
            match list_in(mirror, subject, &mut self.left) {
                Ok(found) if !found.is_empty() => return Ok(found),
                _ => self.monitor.check()?,
            }
        }
        list_in(origin, subject, &mut self.left)
    }
}

fn list_in(repository: &Repository, subject: Digest, left: &mut usize) -> Result<Vec<Referrer>> {
    let mut found = Vec::new();
    for entry in repository.referrers(subject, None)? {
        match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                found.extend(Referrer::read(repository, entry.digest().as_ref())?);
            }
            None => found.push(Referrer::listed(&entry)),
        }
    }
    Ok(found)
}

impl Referrer {
    /// What the list says of it.
    fn listed(entry: &Descriptor) -> Self {
        let annotations = entry.annotations().iter().flatten();
        Referrer {
            manifest_digest: entry.digest().to_string(),
            artifact_type: entry.artifact_type().as_ref().map(ToString::to_string),
            annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
            sif: None,
        }
    }

    fn read(repository: &Repository, digest: &str) -> Result<Option<Self>> {
        let Some(bytes) = repository.manifest(digest)? else { return Ok(None) };
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_string);
        let annotations: BTreeMap<String, String> =
            serde_json::from_value(document["annotations"].clone()).unwrap_or_default();
        let layer =
            document["layers"].as_array().and_then(|layers| layers.iter().find(|it| it["mediaType"] == SIF_LAYER));
        let sif = layer.and_then(|layer| {
            Some(ReferringSif {
                sha256: layer["digest"].as_str()?.parse::<Digest>().ok()?.hex(),
                size: layer["size"].as_u64()?,
                format: annotations.get(FORMAT).cloned(),
            })
        });
        Ok(Some(Referrer {
            manifest_digest: digest.to_string(),
            artifact_type: text(&document["artifactType"]).or_else(|| text(&document["config"]["mediaType"])),
            annotations,
            sif,
        }))
    }
}
