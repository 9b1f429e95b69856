//! What is attached to an image, whoever attached it.

use std::collections::BTreeMap;

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

/// All that refers to the manifest `subject` of `reference`'s repository. Mirrors are asked first; the first that knows
/// anything counts.
///
/// # Errors
/// [`ErrorKind::Network`](crate::ErrorKind::Network) when the registry cannot be reached or refuses.
pub fn list_referrers(
    reference: &Reference,
    subject: Digest,
    settings: &Settings,
    monitor: &Monitor,
) -> Result<Vec<Referrer>> {
    let mut repositories = Repository::open_for_reading(reference, settings, monitor)?;
    let Some(origin) = repositories.pop() else { return Ok(Vec::new()) };
    for mirror in &repositories {
        match list_in(mirror, subject) {
            Ok(found) if !found.is_empty() => return Ok(found),
            _ => monitor.check()?,
        }
    }
    list_in(&origin, subject)
}

fn list_in(repository: &Repository, subject: Digest) -> Result<Vec<Referrer>> {
    let listed = repository.referrers(subject, None)?.into_iter().take(LOOKED_AT_MAX);
    listed.map(|entry| Referrer::read(repository, entry.digest().as_ref())).filter_map(Result::transpose).collect()
}

impl Referrer {
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
