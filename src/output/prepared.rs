use std::ffi::OsStr;
use std::path::Path;

use super::hosting::Hosting;
use super::options::{Destination, IfExists, Outcome, WriteOptions};
use super::place::Place;
use super::{Format, Signing, Target, added_objects, hash_file, name};
#[cfg(feature = "network")]
use crate::error::ResultExt as _;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::image::Image;
use crate::io::{Compression, Levels, Monitor, affordable};
#[cfg(feature = "network")]
use crate::model::Reference;
use crate::model::{Digest, Note, Timestamp};

/// One output, with every choice made.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) destination: Destination,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) options: WriteOptions,
}

impl Task {
    /// Refuses options that `format` does not take.
    pub(super) fn new(format: &dyn Format, destination: &Destination, options: &WriteOptions) -> Result<Self> {
        let task = Task::unchecked(format.mode(), destination, options);
        format.check(&task)?;
        if matches!(options.if_exists, Some(IfExists::Reuse | IfExists::Update)) && !format.is_reusable() {
            let message = format!("{} output cannot be reused: it does not record its source", format.name());
            return Err(Error::new(ErrorKind::Usage, message).hint("leave that out, or write a SIF"));
        }
        if let Destination::Registry(hosting) = destination {
            task.expect_pushable(hosting, format)?;
        }
        Ok(task)
    }

    /// With `usual` permission bits, less the umask, unless others are asked for.
    pub(super) fn unchecked(usual: u32, destination: &Destination, options: &WriteOptions) -> Self {
        let mode = options.mode.unwrap_or_else(|| usual & !crate::io::umask());
        Task { destination: destination.clone(), mode, options: options.clone() }
    }

    /// Refuses what makes no sense on a registry.
    fn expect_pushable(&self, hosting: &Hosting, format: &dyn Format) -> Result<()> {
        let usage = |message: String, hint: &str| Err(Error::new(ErrorKind::Usage, message).hint(hint));
        if cfg!(not(feature = "network")) {
            let message = "this library was built without its feature \"network\"";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        match format.transport() {
            Some(transport) if transport == hosting.transport => {}
            Some(transport) => {
                let prefix = transport.prefix();
                return usage(
                    format!("{} output is pushed to {prefix}…, not to {hosting}", format.name()),
                    &format!("write {prefix}{}, or choose another format", hosting.reference),
                );
            }
            None => {
                let message = format!("{} output cannot be pushed to a registry", format.name());
                return usage(message, "push an image (oci or docker-archive) to docker://, or a SIF (sif) to oras://");
            }
        }
        if self.options.mode.is_some() {
            return usage("what is on a registry has no mode".to_string(), "leave the mode out");
        }
        if matches!(self.options.if_exists, Some(IfExists::Reuse | IfExists::Update)) {
            let message =
                "what is on a registry cannot be reused: what it has is not sent again in any case".to_string();
            return usage(message, "leave that out");
        }
        Ok(())
    }

    /// Whether an output that exists when the new one is complete gives way.
    pub(super) fn replaces(&self) -> bool {
        matches!(self.options.if_exists, Some(IfExists::Replace | IfExists::Update))
    }

    /// How a file is compressed as a whole: as asked, else as its name says.
    pub(super) fn whole(&self, asked: Option<Compression>, levels: &Levels) -> Result<Compression> {
        levels.settle(Some(asked.unwrap_or_else(|| self.compression_by_name())))
    }

    pub(super) fn compression_by_name(&self) -> Compression {
        match &self.destination {
            Destination::Path(path) => Compression::of_extension(path.extension().and_then(OsStr::to_str)),
            _ => Compression::NONE,
        }
    }

    /// The time of everything that is made rather than read.
    pub(super) fn made_at(&self, image: &Image) -> Timestamp {
        let epoch = self.options.source_date_epoch.map(Timestamp::from_seconds);
        epoch.or_else(|| image.config.created()).unwrap_or_default()
    }

    /// Where an output lies that is to be used again.
    pub(super) fn reusable(&self) -> Option<&Path> {
        match (&self.destination, self.options.if_exists) {
            (Destination::Path(path), Some(IfExists::Reuse | IfExists::Update)) if path.exists() => Some(path),
            _ => None,
        }
    }
}

/// An output that has been begun, and waits for its image. When it is dropped, nothing is left of it.
#[derive(Debug)]
pub struct Prepared {
    target: Target,
    task: Task,
    /// Missing where an output exists that may be used again: then there is nothing to write yet.
    place: Option<Place>,
}

impl Prepared {
    pub(super) fn new(target: Target, destination: &Destination, options: &WriteOptions) -> Result<Self> {
        let format = target.format();
        let task = Task::new(format, destination, options)?;
        let place = if task.reusable().is_some() { None } else { Some(format.open(&task)?) };
        if options.expected_sha256.is_some() && place.as_ref().is_some_and(|place| !place.is_file()) {
            let message = format!("{} output is no single file here: it has no SHA-256 to be expected", format.name());
            return Err(Error::new(ErrorKind::Usage, message).hint("leave that out, or write to a file"));
        }
        Ok(Prepared { target, task, place })
    }

    /// What is written.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Where to.
    pub fn destination(&self) -> &Destination {
        &self.task.destination
    }

    /// A directory on whose file system the layers of an image may become a part of this output as they are, where that
    /// is so: see [`OpenOptions::adopting`](crate::source::OpenOptions::adopting).
    pub fn adopts_in(&self) -> Option<&Path> {
        self.place.as_ref().and_then(Place::adopts_in).filter(|_| !self.is_flattened())
    }

    fn is_flattened(&self) -> bool {
        self.target.clone().image_mut().is_some_and(|image| image.flatten)
    }

    /// Fetches the signature that is to be added, where that is one that is hosted beside `image`, which `reference` led to.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when none refers to the image, [`ErrorKind::Mismatch`] when those that do are of other
    /// SIFs, [`ErrorKind::Usage`] when there are several, and [`ErrorKind::Network`].
    #[cfg(feature = "network")]
    pub fn fetch_signature(
        mut self,
        reference: &Reference,
        image: &Image,
        settings: &crate::registry::Settings,
        monitor: &Monitor,
    ) -> Result<Self> {
        let Target::Sif(sif) = &mut self.target else { return Ok(self) };
        if !sif.signing.from_referrer || sif.signing.carried.is_some() {
            return Ok(self);
        }
        let no_manifest = || Error::new(ErrorKind::Bug, "an image on a registry has no manifest");
        let subject = image.manifest_digest.ok_or_else(no_manifest)?;
        let options = sif.clone().unsigned().effective_options(&self.task.options)?;
        let found = super::hosted_signature::find(reference, subject, options.as_deref(), settings, monitor);
        sif.signing.carried = Some(Box::new(found.doing(|| "looking for the signature of the SIF")?));
        Ok(self)
    }

    /// Uses the output that exists, where reuse is asked for and the file says that it was made from the image that
    /// `expected` names: then the source need not be asked, and may be out of reach. `None` where an image must be read.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] and its like.
    pub fn reuse_unread(&self, expected: Digest, monitor: &Monitor) -> Result<Option<Outcome>> {
        let Some(existing) = self.task.reusable() else { return Ok(None) };
        let found = expect_sha256(existing, &self.task, monitor)
            .and_then(|()| self.target.format().reuse_unread(existing, expected, &self.task, monitor));
        match found {
            // What is wrong with the file is told, or mended, once the image is there.
            Err(error) if is_about_the_file(&error) => Ok(None),
            found => Ok(found?.map(reused)),
        }
    }

    /// Writes `image`, or uses the output that exists where that will do.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the output does not exist then (a stream may have taken a part of it).
    pub fn write(self, image: &Image, monitor: &Monitor) -> Result<Outcome> {
        let (destination, options) = (self.task.destination.clone(), self.task.options.clone());
        self.write_or_reuse(image, monitor).map_err(|error| match image.blobs.confirm() {
            // A source that is not the expected one is the reason for whatever else went wrong.
            Err(mismatch) if mismatch.kind() == ErrorKind::Mismatch && !is_the_same(&error, &mismatch) => {
                mismatch.because(error)
            }
            _ => place_of_failure(error, image, &destination, &options),
        })
    }

    fn write_or_reuse(self, image: &Image, monitor: &Monitor) -> Result<Outcome> {
        let Prepared { target, mut task, place } = self;
        let format = target.format();
        let (jobs, fewer) = affordable(task.options.jobs)?;
        task.options.jobs = jobs;
        let mut notes: Vec<Note> = fewer.into_iter().collect();
        notes.extend(misleading_name(&target, &task));
        if let Some(existing) = task.reusable() {
            match expect_sha256(existing, &task, monitor).and_then(|()| format.reuse(existing, image, &task, monitor)) {
                Ok(outcome) => return image.blobs.confirm().map(|()| reused(outcome)),
                Err(error) if task.options.if_exists == Some(IfExists::Update) && is_about_the_file(&error) => {
                    refuse_to_drop(existing, target.clone().signing_mut(), &error)?;
                    let message = format!("the output that existed is replaced: {error}");
                    notes.push(Note::new("output-replaced", message, 1));
                }
                Err(error) => return Err(error),
            }
        }
        let place = match place {
            Some(place) => place,
            None => format.open(&task)?,
        };
        place.begin(&task, monitor)?;
        if place.is_stream() {
            // It cannot be taken back.
            image.blobs.confirm()?;
        }
        match format.write(image, place, &task, monitor) {
            // Somebody else may have been faster, with what was wanted here.
            Err(error) if error.kind() == ErrorKind::Output && task.options.if_exists == Some(IfExists::Reuse) => {
                let existing = task.reusable().ok_or(error)?;
                expect_sha256(existing, &task, monitor)?;
                format.reuse(existing, image, &task, monitor).map(reused)
            }
            written => written.map(|outcome| Outcome { notes: [notes, outcome.notes].concat(), ..outcome }),
        }
    }
}

/// Names the source or the output where a system call on it failed and nothing says so yet.
fn place_of_failure(error: Error, image: &Image, destination: &Destination, options: &WriteOptions) -> Error {
    let text = error.to_string();
    let kind = error.kind();
    match (kind, destination) {
        _ if error.io_kind().is_none() => error,
        (ErrorKind::SourceUnavailable, _) if !text.contains(&image.blobs.name()) => {
            error.doing(format!("reading {}", image.blobs.name()))
        }
        (ErrorKind::Output | ErrorKind::NoSpace, _) if error.path().is_some() => error,
        (ErrorKind::Output | ErrorKind::NoSpace, Destination::Path(path)) => {
            let error = if kind == ErrorKind::Output { error.with_remedy(Remedy::OtherFileSystem) } else { error };
            let named = text.contains(&format!("{path:?}"));
            if named { error } else { error.doing(format!("writing output {path:?}")).at(path) }
        }
        // What may be full, too, is where that was kept which a stream cannot take before it is whole.
        (ErrorKind::NoSpace, Destination::Stdout) => {
            error.doing(format!("writing to standard output, with temporary files in {:?}", options.tmpdir))
        }
        (ErrorKind::Output, Destination::Stdout) => error.doing("writing to standard output"),
        _ => error,
    }
}

/// The code of the note that an output was there already, and was not written.
pub(crate) const REUSED: &str = "output-reused";
/// The code of the note that says what came from the cache.
pub(crate) const CACHE_USED: &str = "cache-used";
/// The code of the note that says that something was not kept in the cache.
pub(super) const NOT_KEPT: &str = "cache-not-kept";

fn reused(mut outcome: Outcome) -> Outcome {
    let message = "the output was there already, whole, and is used as it is";
    outcome.notes.push(Note::new(REUSED, message, 1));
    outcome
}

/// A note where the output's name says something else than what it will be.
fn misleading_name(target: &Target, task: &Task) -> Option<Note> {
    let Destination::Path(path) = &task.destination else { return None };
    // What an option says of an OCI archive is for its layers.
    let is_of_layers = matches!(target, Target::OciArchive(_));
    let asked = target.clone().compression_mut().and_then(|compression| *compression).filter(|_| !is_of_layers);
    name::misleading(path, target.name(), asked.unwrap_or_else(|| task.compression_by_name()))
}

/// Whether `error` is `inner` with what was being done.
fn is_the_same(error: &Error, inner: &Error) -> bool {
    error.to_string().ends_with(&inner.to_string())
}

/// What others added to an output that exists is not thrown away unasked, whatever is wrong with the rest.
fn refuse_to_drop(path: &Path, signing: Option<&mut Signing>, reason: &Error) -> Result<()> {
    let added = added_objects(path, signing.as_deref())?;
    if added.is_empty() {
        return Ok(());
    }
    let message = format!(
        "output {path:?} is to be replaced ({reason}), but holds what was added to it later: {}",
        added.join(", ")
    );
    Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::ReplaceAnyway))
}

/// Refuses an output that exists and has another SHA-256 than is expected.
fn expect_sha256(existing: &Path, task: &Task, monitor: &Monitor) -> Result<()> {
    let Some(expected) = task.options.expected_sha256 else { return Ok(()) };
    let found = hash_file(existing, monitor)?;
    if found == expected {
        return Ok(());
    }
    let (found, expected) = (found.hex(), expected.hex());
    let message =
        format!("output {existing:?} exists, and is not the expected one: its SHA-256 is {found}, not {expected}");
    Err(Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::Replace))
}

/// Whether the file that exists is at fault, and not the user who stopped us or a bug.
fn is_about_the_file(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Terminated | ErrorKind::Bug)
}
