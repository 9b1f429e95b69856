//! The SIF among the referrers of an image that a conversion would give.

use serde_json::Value;

use super::LOOKED_AT_MAX;
use crate::error::Result;
use crate::image::Image;
use crate::io::Monitor;
use crate::model::{Digest, OUTPUT_FORMAT, Reference};
use crate::output::{FORMAT, OPTIONS, Sif, WriteOptions};
use crate::registry::{Repository, SIF_LAYER, Settings};

/// A SIF that was found among the referrers of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The SHA-256 of the file.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The length of its manifest in bytes.
    pub(super) manifest_size: u64,
}

/// Looks for the SIF of `image`, which `reference` led to, as `sif` and `options` would make it. Mirrors are asked first, as
/// for the image itself.
///
/// # Errors
/// [`ErrorKind::Network`](crate::ErrorKind::Network) when the registry cannot be reached or refuses.
pub fn find_attached(
    reference: &Reference,
    image: &Image,
    sif: &Sif,
    options: &WriteOptions,
    settings: &Settings,
    monitor: &Monitor,
) -> Result<Option<Found>> {
    let wanted = sif.effective_options(options)?;
    let Some(subject) = image.manifest_digest else { return Ok(None) };
    let mut repositories = Repository::open_for_reading(reference, settings, monitor)?;
    let origin = repositories.pop();
    for mirror in &repositories {
        // A mirror need not have what refers to an image: then the registry itself says whether it is there.
        if let Ok(Some(found)) = find_in(mirror, subject, wanted.as_deref(), None) {
            return Ok(Some(found));
        }
        monitor.check()?;
    }
    origin.map_or(Ok(None), |origin| find_in(&origin, subject, wanted.as_deref(), None))
}

/// The first SIF among the referrers of `subject` that is said to be made in this output format with these options, and whose
/// file is there; `made` before all others, the manifest of one that was made here.
pub(super) fn find_in(
    repository: &Repository,
    subject: Digest,
    options: Option<&str>,
    made: Option<Digest>,
) -> Result<Option<Found>> {
    let mut first = None;
    for referrer in repository.referrers(subject, Some(SIF_LAYER))?.into_iter().take(LOOKED_AT_MAX) {
        let Ok(manifest) = referrer.digest().to_string().parse::<Digest>() else { continue };
        // Some registries list what is there no more.
        let Some(bytes) = repository.manifest(&manifest.to_string())? else { continue };
        let Some(found) = Found::read(manifest, &bytes, subject, options) else { continue };
        let is_the_one = made.is_none_or(|made| made == manifest);
        if (is_the_one || first.is_none()) && repository.has_blob(found.sha256)? {
            if is_the_one {
                return Ok(Some(found));
            }
            first = Some(found);
        }
    }
    Ok(first)
}

impl Found {
    fn read(manifest: Digest, bytes: &[u8], subject: Digest, options: Option<&str>) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        let says = |key: &str| document["annotations"][key].as_str();
        let is_it = document["subject"]["digest"] == subject.to_string().as_str()
            && says(FORMAT) == Some(&OUTPUT_FORMAT.to_string())
            && says(OPTIONS) == options;
        let layer = match document["layers"].as_array().map(Vec::as_slice) {
            Some([layer]) if is_it && layer["mediaType"] == SIF_LAYER => layer,
            _ => return None,
        };
        Some(Found {
            manifest,
            sha256: layer["digest"].as_str()?.parse().ok()?,
            size: layer["size"].as_u64()?,
            manifest_size: bytes.len() as u64,
        })
    }
}
