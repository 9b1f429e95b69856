//! From a source to an output: everything that the program does, for everyone.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::image::Image;
use crate::io::{Event, Monitor};
use crate::model::{ConfigChanges, Digest, Note};
use crate::output::{Destination, Outcome, Prepared, Target, WriteOptions};
use crate::report::{ImageRecord, OutputRecord, Report, SourceRecord};
use crate::source::{InputHash, OpenOptions, Selection, Spec, open};

/// One conversion, with every choice made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Conversion {
    /// Where the image comes from.
    pub source: Spec,
    /// How it is opened. Where layers may become a part of the output is filled in.
    pub open: OpenOptions,
    /// Which image of it.
    pub selection: Selection,
    /// What is written.
    pub target: Target,
    /// Where to.
    pub destination: Destination,
    /// How.
    pub options: WriteOptions,
    /// What its manifest, index or config must hash to.
    pub expected_digest: Option<Digest>,
    /// Whether the image is looked at in any case, also where an output that exists says that it was made of it.
    pub always_open: bool,
    /// How it is to run, where that is to be different from what its config says.
    pub changes: ConfigChanges,
}

/// Takes what is found out about a conversion while it runs.
pub trait Observer {
    /// Adds to the report.
    fn record(&self, change: &mut dyn FnMut(&mut Report));

    /// An image was selected, and is the expected one.
    fn selected(&self, _image: &Image) {}
}

impl Observer for Mutex<Report> {
    fn record(&self, change: &mut dyn FnMut(&mut Report)) {
        change(&mut self.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Converts the one image of `source`, which is what the program takes as SOURCE, with the usual options. Registries are asked without
/// a login, and without a proxy: what the program finds around itself, [`Settings::usual`](crate::registry::Settings::usual) gives to
/// the `open.registry` of a [`Conversion`].
///
/// # Errors
/// As [`Conversion::run`].
pub fn convert(
    source: impl AsRef<OsStr>,
    target: impl Into<Target>,
    destination: impl Into<Destination>,
) -> Result<Report> {
    let report = Mutex::new(Report::default());
    Conversion::new(Spec::parse(source.as_ref())?, target, destination).run(&report, &Monitor::default())?;
    Ok(report.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Conversion {
    /// With the usual options.
    pub fn new(source: Spec, target: impl Into<Target>, destination: impl Into<Destination>) -> Self {
        Conversion {
            source,
            open: OpenOptions::default(),
            selection: Selection::default(),
            target: target.into(),
            destination: destination.into(),
            options: WriteOptions::default(),
            expected_digest: None,
            always_open: false,
            changes: ConfigChanges::default(),
        }
    }

    /// Converts. Whatever can be refused is refused before the source is opened.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the output does not exist then (a stream may have taken a part of it). What was found out until
    /// then is recorded.
    pub fn run(&self, observer: &dyn Observer, monitor: &Monitor) -> Result<Outcome> {
        self.expect_hosted_signature()?;
        let prepared = self.target.prepare(&self.destination(), &self.options)?;
        if let Some(outcome) = self.reuse_unread(&prepared, monitor)? {
            self.record_output(&outcome, observer);
            monitor.tell(Event::Done);
            return Ok(outcome);
        }
        let is_encrypted = self.target.clone().encryption_mut().is_some_and(|encryption| encryption.is_some());
        let open_options = OpenOptions {
            adopting: prepared.adopts_in().map(Path::to_path_buf),
            private_temporaries: self.open.private_temporaries || is_encrypted,
            ..self.open.clone()
        };
        let source = open(&self.source, &open_options, monitor)?;
        let with_source = |change: &dyn Fn(&mut SourceRecord)| {
            let usual = || SourceRecord::of(self.source.to_string().as_ref(), self.source.path());
            observer.record(&mut |report| change(report.source.get_or_insert_with(usual)));
        };
        with_source(&|record| record.kind = Some(source.kind().to_string()));
        let written = source.select(&self.selection).and_then(|mut image| {
            let reference = self.target.clone().root_mut().and_then(|root| root.reference.clone());
            observer.record(&mut |report| {
                report.image = Some(ImageRecord::of(&image, reference.as_deref()));
                report.notes.extend(image.warnings.iter().map(|text| Note::new("image", text, 1)));
                report.notes.extend(source.left_out().cloned());
            });
            check_digest(self.expected_digest, &image)?;
            observer.selected(&image);
            #[cfg(feature = "network")]
            let prepared = match &self.source {
                Spec::Registry(name) => {
                    prepared.fetch_signature(&name.parse()?, &image, &self.open.registry, monitor)?
                }
                _ => prepared,
            };
            if self.target.clone().sbom_mut().is_some_and(|with_sbom| *with_sbom) {
                image.attestations = source.attestations(&image)?;
            }
            image.change_config(&self.changes)?;
            let mut outcome = prepared.write(&image, monitor);
            if let (Ok(outcome), Some(refusal)) = (&mut outcome, image.blobs.cache_refusal()) {
                outcome.note_cache(refusal);
            }
            let late = image.blobs.warnings().into_iter().filter(|text| !image.warnings.contains(text));
            let late: Vec<Note> = late.map(|text| Note::new("image", text, 1)).collect();
            observer.record(&mut |report| report.notes.extend(late.iter().cloned()));
            outcome
        });
        let hashed = source.sha256();
        if let Ok(Some((sha256, size))) = hashed {
            with_source(&|record| (record.sha256, record.size) = (Some(sha256.hex()), Some(size)));
        }
        let outcome = written?;
        hashed?;
        observer.record(&mut |report| {
            if let Some(image) = &mut report.image
                && !outcome.diff_ids.is_empty()
            {
                image.diff_ids = outcome.diff_ids.iter().map(|id| Some(id.to_string())).collect();
            }
        });
        self.record_output(&outcome, observer);
        monitor.tell(Event::Done);
        Ok(outcome)
    }

    /// Refuses to look for a hosted signature of what is not hosted.
    fn expect_hosted_signature(&self) -> Result<()> {
        let is_wanted = self.target.clone().signing_mut().is_some_and(|signing| signing.from_referrer);
        if is_wanted && !matches!(self.source, Spec::Registry(_)) {
            let message = format!("{} is not on a registry, where a signature could refer to it", self.source);
            return Err(Error::new(ErrorKind::Usage, message)
                .hint("name the image as docker://HOST/NAME, or the file that holds the signature"));
        }
        Ok(())
    }

    /// Where the output goes, with all that is known of it: what comes from the same registry need not be sent.
    fn destination(&self) -> Destination {
        let mut destination = self.destination.clone();
        if let (Destination::Registry(hosting), Spec::Registry(name)) = (&mut destination, &self.source)
            && let Ok(reference) = name.parse()
        {
            hosting.mount_from(&reference);
        }
        destination
    }

    /// The output that exists, where the expected digest alone tells that it is what would be written. What the source's own
    /// bytes must be, only the source tells.
    fn reuse_unread(&self, prepared: &Prepared, monitor: &Monitor) -> Result<Option<Outcome>> {
        match (self.expected_digest, self.open.hash) {
            (Some(expected), InputHash::Unneeded | InputHash::Wanted)
                if self.changes.is_empty() && !self.always_open && !self.open.checks_signatures() =>
            {
                prepared.reuse_unread(expected, monitor)
            }
            _ => Ok(None),
        }
    }

    fn record_output(&self, outcome: &Outcome, observer: &dyn Observer) {
        observer.record(&mut |report| {
            report.output = Some(OutputRecord::of(self.target.name(), &self.destination, outcome));
            report.notes.extend(outcome.notes.iter().cloned());
        });
    }
}

pub(crate) fn check_digest(expected: Option<Digest>, image: &Image) -> Result<()> {
    let found = [image.index_digest, image.manifest_digest, Some(image.id())];
    // A config that does not say what its layers are, of a file system or of an archive before Docker 1.10, binds no file.
    let binds_files =
        |digest: Digest| found[..2].contains(&Some(digest)) || image.layers.iter().all(|layer| layer.diff_id.is_some());
    match expected {
        Some(expected) if !binds_files(expected) => {
            let message = format!("the expected digest says nothing about the files of {}", image.blobs.name());
            Err(Error::new(ErrorKind::Mismatch, message)
                .hint("compare the SHA-256 of the file, or take the image from where its manifest is"))
        }
        Some(expected) if !found.contains(&Some(expected)) => {
            let names = ["index", "manifest", "config"];
            let found: Vec<String> =
                names.iter().zip(found).filter_map(|(name, digest)| Some(format!("{name} {}", digest?))).collect();
            Err(Error::new(
                ErrorKind::Mismatch,
                format!("the image is not the expected one: expected {expected}, got {}", found.join(", ")),
            )
            .with_remedy(Remedy::ExpectedDigest))
        }
        _ => Ok(()),
    }
}
