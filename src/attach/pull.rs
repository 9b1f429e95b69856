//! Pulls that look for an attached SIF before they convert.

use super::find::{Found, find_attached};
use crate::conversion::{Conversion, Observer, check_digest};
use crate::download::{Download, Downloaded, Found as DownloadFound};
use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt as _};
use crate::io::{Expected, Monitor};
use crate::model::{Note, Reference};
use crate::output::{Destination, IfExists, Outcome, Target};
use crate::report::{ImageRecord, OutputRecord, SourceRecord};
use crate::source::{OpenOptions, Spec, open};

/// What came of a pull that looks for an attached SIF.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Pulled {
    /// The attached SIF was downloaded.
    Downloaded(Found, Downloaded),
    /// The image was converted, which gave the attached SIF to the byte.
    Verified(Found, Outcome),
    /// No SIF was attached: the image was converted.
    Converted(Outcome),
}

/// Does what `conversion` does, but where a SIF is attached to the image that is what the conversion would give, downloads
/// that; with `verify`, converts all the same, and refuses an attached SIF that is another one.
///
/// # Errors
/// See [`ErrorKind`]; the output does not exist then. [`ErrorKind::Mismatch`] when the attached SIF is another than the
/// conversion gives.
pub fn pull_attached(
    conversion: &Conversion,
    verify: bool,
    observer: &dyn Observer,
    monitor: &Monitor,
) -> Result<Pulled> {
    let (Spec::Registry(name), Target::Sif(sif)) = (&conversion.source, &conversion.target) else {
        return Err(Error::new(ErrorKind::Usage, "SIFs are attached to images on registries")
            .hint("name an image on a registry, to become a SIF"));
    };
    let reference: Reference = name.parse()?;
    let documents = OpenOptions { want_layers: false, ..conversion.open.clone() };
    let image = open(&conversion.source, &documents, monitor)?.select(&conversion.selection)?;
    check_digest(conversion.expected_digest, &image)?;
    let registry = &conversion.open.registry;
    let found = find_attached(&reference, &image, sif, &conversion.options, registry, monitor)?;
    // What is converted is what was looked at, whatever becomes of the tag meanwhile.
    let digest = image.index_digest.or(image.manifest_digest);
    let pinned = Reference { tag: None, digest: digest.or(reference.digest), ..reference.clone() };
    let mut conversion = Conversion { source: Spec::Registry(pinned.to_string()), ..conversion.clone() };
    let Some(found) = found else {
        let message = "no SIF is attached to the image that was made in this way: it is converted";
        observer.record(&mut |report| report.notes.push(Note::new("not-attached", message, 1)));
        return conversion.run(observer, monitor).map(Pulled::Converted);
    };
    let expected = Expected { digest: conversion.options.expected_sha256, size: None };
    expected.check(found.sha256, 0).doing(|| "the SIF that is attached")?;
    if verify {
        conversion.options.expected_sha256 = Some(found.sha256);
        let outcome = conversion.run(observer, monitor).map_err(|error| match error.remedy_kind() {
            Some(Remedy::AttachedSif) => {
                error.doing(format!("the SIF that is attached as {} is not what a conversion gives", found.manifest))
            }
            _ => error,
        })?;
        return Ok(Pulled::Verified(found, outcome));
    }
    let Destination::Path(path) = &conversion.destination else {
        return Err(
            Error::new(ErrorKind::Usage, "an attached SIF is downloaded to a file").with_remedy(Remedy::OutputFile)
        );
    };
    observer.record(&mut |report| {
        let usual = || SourceRecord::of(conversion.source.to_string().as_ref(), None);
        report.source.get_or_insert_with(usual);
        report.image = Some(ImageRecord::of(&image, None));
    });
    let download = Download {
        source: Spec::Oras(Reference { digest: Some(found.manifest), ..pinned }.to_string()),
        path: path.clone(),
        replace: matches!(conversion.options.if_exists, Some(IfExists::Replace | IfExists::Update)),
        mode: conversion.options.mode,
        platform: image.platform(),
        expected: Some(found.sha256),
        open: conversion.open.clone(),
    };
    match download.run(monitor)? {
        DownloadFound::Sif(downloaded) => {
            record_download(&downloaded, &conversion.destination, observer);
            Ok(Pulled::Downloaded(found, downloaded))
        }
        DownloadFound::Other => Err(Error::new(ErrorKind::Bug, "a SIF on a registry is something else")),
    }
}

/// Adds a download to the report, as what is at `destination` now.
pub(crate) fn record_download(downloaded: &Downloaded, destination: &Destination, observer: &dyn Observer) {
    observer.record(&mut |report| {
        report.output = Some(download_record(downloaded, destination));
        report.notes.extend(downloaded.warnings.iter().map(|text| Note::new("image", text, 1)));
    });
}

/// A download as reports have it.
pub(crate) fn download_record(downloaded: &Downloaded, destination: &Destination) -> OutputRecord {
    let Downloaded { size, sha256, manifest, .. } = downloaded;
    let outcome = Outcome { size: *size, sha256: Some(*sha256), manifest_digest: *manifest, ..Outcome::default() };
    OutputRecord::of("sif", destination, &outcome)
}
