//! Signatures that are hosted beside an image, for everyone who makes the same SIF of it.

use serde_json::Value;

use super::CarriedSignature;
use super::hosting::{FORMAT, OPTIONS};
use crate::error::{Error, ErrorKind, Result};
use crate::io::Monitor;
use crate::model::{Digest, OUTPUT_FORMAT, Quoted, Reference};
use crate::registry::{Repository, SIF_SIGNATURE, Settings};

/// How many signatures of one image are looked at.
const LOOKED_AT_MAX: usize = 64;

/// A signature of a SIF among the referrers of the image that the SIF is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostedSignature {
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The signature. Nothing is verified.
    pub signature: CarriedSignature,
    /// The number of the output format and the digest of the options of its SIF, as the manifest says.
    made: (Option<String>, Option<String>),
}

impl HostedSignature {
    fn read(repository: &Repository, manifest: Digest, subject: Digest) -> Result<Option<Self>> {
        // Some registries list what is there no more.
        let Some(bytes) = repository.manifest(&manifest.to_string())? else { return Ok(None) };
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let says = |key: &str| document["annotations"][key].as_str().map(str::to_string);
        let digest = match document["layers"].as_array().map(Vec::as_slice) {
            Some([layer]) if document["subject"]["digest"] == subject.to_string().as_str() => {
                layer["digest"].as_str().and_then(|text| text.parse().ok())
            }
            _ => None,
        };
        let Some(digest) = digest else { return Ok(None) };
        let Some(bytes) = repository.small_blob(digest)? else { return Ok(None) };
        let Ok(signature) = CarriedSignature::parse(bytes) else { return Ok(None) };
        Ok(Some(HostedSignature { manifest, signature, made: (says(FORMAT), says(OPTIONS)) }))
    }

    /// Whether it is of a SIF of this output format that was made with these options.
    fn fits(&self, options: Option<&str>) -> bool {
        let (format, made_with) = &self.made;
        *format == Some(OUTPUT_FORMAT.to_string()) && made_with.as_deref() == options
    }

    /// Why it is not of the SIF that is wanted.
    fn misfit(&self) -> String {
        match &self.made.0 {
            Some(format) if *format != OUTPUT_FORMAT.to_string() => {
                format!("{} is of a SIF in output format {}", self.manifest, Quoted(format.as_bytes()))
            }
            _ => format!("{} is of a SIF that was made with other options", self.manifest),
        }
    }
}

/// All signatures of SIFs that refer to the manifest `subject`.
///
/// # Errors
/// [`ErrorKind::Network`] when the registry cannot be reached or refuses.
pub(crate) fn signatures_in(repository: &Repository, subject: Digest) -> Result<Vec<HostedSignature>> {
    let listed = repository.referrers(subject, Some(SIF_SIGNATURE))?.into_iter().take(LOOKED_AT_MAX);
    let digests = listed.filter_map(|entry| entry.digest().to_string().parse::<Digest>().ok());
    digests.map(|manifest| HostedSignature::read(repository, manifest, subject)).filter_map(Result::transpose).collect()
}

/// The signature of the SIF that is made with `options` from the image whose manifest is `subject`. Mirrors are asked first.
pub(super) fn find(
    reference: &Reference,
    subject: Digest,
    options: Option<&str>,
    settings: &Settings,
    monitor: &Monitor,
) -> Result<CarriedSignature> {
    let mut repositories = Repository::open_for_reading(reference, settings, monitor)?;
    let origin = repositories.pop();
    for mirror in &repositories {
        // A mirror need not have what refers to an image: then the registry itself says whether it is there.
        match signatures_in(mirror, subject) {
            Ok(found) if found.iter().any(|it| it.fits(options)) => return the_one(found, subject, options),
            _ => monitor.check()?,
        }
    }
    let found = origin.map_or(Ok(Vec::new()), |origin| signatures_in(&origin, subject))?;
    the_one(found, subject, options)
}

/// The only one that fits.
fn the_one(found: Vec<HostedSignature>, subject: Digest, options: Option<&str>) -> Result<CarriedSignature> {
    if found.is_empty() {
        let message = format!("no signature of a SIF refers to image manifest {subject}");
        return Err(Error::new(ErrorKind::SourceUnavailable, message)
            .hint("ask the owner of the image to attach one, or name the file that holds it"));
    }
    let (mut fitting, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|it| it.fits(options));
    fitting.dedup_by(|one, other| one.signature == other.signature);
    let list = |said: Vec<String>| said.join("; ");
    match (fitting.pop(), &fitting[..]) {
        (Some(only), []) => Ok(only.signature),
        (None, _) => {
            let misfits = list(others.iter().map(HostedSignature::misfit).collect());
            let message = format!("no signature of this SIF refers to image manifest {subject}: {misfits}");
            Err(Error::new(ErrorKind::Mismatch, message)
                .hint("convert with the version and the options of whoever signed it"))
        }
        (Some(last), fitting) => {
            let said = |it: &HostedSignature| {
                format!(
                    "{} by {}",
                    it.manifest,
                    Quoted(it.signature.key_ids().as_bytes()).to_string().trim_matches('"')
                )
            };
            let several = list(fitting.iter().chain([&last]).map(said).collect());
            let message = format!("several signatures of this SIF refer to image manifest {subject}: {several}");
            Err(Error::new(ErrorKind::Usage, message)
                .hint("save the one that you want with oras pull HOST/NAME@DIGEST, and name that file"))
        }
    }
}
