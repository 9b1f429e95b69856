//! Runs a resolved job: opens, converts, records, and says how it went.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::args::{self, Convert, Inspect, ProgressMode};
use super::commands::build::Build;
use super::commands::inspect;
use super::commands::verify::{self, Verify};
use super::environment::Environment;
use super::exit::{Failure, guarded};
use super::hashing::InputHash;
use super::job::{self, Job};
use super::printer::{self, Bytes, Grouped, Voice};
use super::progress::Watcher;
use super::report::{ImageRecord, OutputRecord, Recorder, SourceRecord, Status};
use super::signals::Listener;
use super::{Quit, open, pack};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::Monitor;
use crate::model::{Digest, Note, Quoted};
use crate::output::{self, Destination, IfExists, Outcome};

/// How long `inspect` works in silence: it has its answer at once, unless it must unpack an archive to get at it.
const INSPECT_GRACE: Duration = Duration::from_secs(2);

/// `convert SOURCE --to FORMAT`.
pub(super) fn convert(
    arguments: &Convert,
    note: Option<Note>,
    words: &[OsString],
    environment: &Environment,
    quit: Quit,
) -> u8 {
    let (voice, mode) = match job::voice(&arguments.feedback, environment) {
        Ok(both) => both,
        Err(error) => return misuse(error, words, Voice::default()),
    };
    let recorder = match Recorder::new(arguments.checks.report.as_deref(), words) {
        Ok(recorder) => Arc::new(recorder),
        Err(error) => return failed(&error, voice),
    };
    let spelling = arguments.source.as_deref().unwrap_or_default();
    recorder.record(|report| {
        report.source = Some(SourceRecord::of(spelling, None));
        report.notes.extend(note);
    });
    let result = guarded(|| {
        if pack::is_asked(arguments) {
            let request = pack::resolve(arguments, environment)?;
            return supervised((mode, Duration::ZERO), voice, &recorder, quit, |monitor| {
                pack::attempt(&request, voice, &recorder, monitor)
            });
        }
        let job = Job::resolve(arguments, environment)?;
        recorder.record(|report| report.source = Some(SourceRecord::of(spelling, job.source.path())));
        supervised((mode, Duration::ZERO), voice, &recorder, quit, |monitor| attempt(&job, voice, &recorder, monitor))
    });
    conclude(result, voice, &recorder)
}

/// `convert build OUTPUT SOURCE`.
///
/// Who calls `singularity build` reads lines, through a terminal or not: bars are for those who ask for them.
pub(super) fn build(arguments: Build, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
    match arguments.into_convert() {
        Ok((mut arguments, note)) => {
            if environment.variable("CONVERT_PROGRESS").is_none_or(OsStr::is_empty) {
                arguments.feedback.progress.get_or_insert(ProgressMode::Plain);
            }
            convert(&arguments, note, words, environment, quit)
        }
        Err(error) => misuse(error, words, Voice::default()),
    }
}

/// `convert verify FILE`.
pub(super) fn verify(arguments: &Verify, environment: &Environment, quit: Quit) -> u8 {
    printed(|| {
        let (voice, mode) = job::voice(&arguments.feedback, environment)?;
        let recorder = Arc::new(Recorder::new(None, &[])?);
        let page = supervised((mode, INSPECT_GRACE), voice, &recorder, quit, |monitor| {
            verify::page(arguments, environment, voice, monitor)
        })?;
        printer::data(page.as_bytes())
    })
}

/// `convert inspect SOURCE`.
pub(super) fn inspect(arguments: &Inspect, environment: &Environment, quit: Quit) -> u8 {
    let attempt = || {
        let (voice, mode) = job::voice(&arguments.feedback, environment)?;
        let recorder = Arc::new(Recorder::new(None, &[])?);
        let page = guarded(|| {
            supervised((mode, INSPECT_GRACE), voice, &recorder, quit, |monitor| {
                inspect::page(arguments, environment, monitor)
            })
        })?;
        printer::data(page.as_bytes())
    };
    printed(attempt)
}

/// Runs what prints to standard output and does nothing else.
pub(super) fn printed(work: impl FnOnce() -> Result<()>) -> u8 {
    match guarded(work) {
        Err(error) if !is_broken_pipe(&error) => failed(&error, Voice::default()),
        _ => 0,
    }
}

/// Ends what could not be parsed. Its report is written all the same, where the words say where.
pub(super) fn misuse(error: Error, words: &[OsString], voice: Voice) -> u8 {
    match Recorder::new(args::report_in(words).as_deref(), words) {
        Ok(recorder) => conclude(Err(error), voice, &recorder),
        Err(_) => failed(&error, voice),
    }
}

fn failed(error: &Error, voice: Voice) -> u8 {
    let failure = Failure::of(error);
    voice.failure(&failure);
    failure.exit_code
}

/// Runs `work` with signals heard, and with progress shown in some mode after some time.
fn supervised<T>(
    (mode, grace): (ProgressMode, Duration),
    voice: Voice,
    recorder: &Arc<Recorder>,
    quit: Quit,
    work: impl FnOnce(&Arc<Monitor>) -> Result<T>,
) -> Result<T> {
    let monitor = Arc::new(Monitor::default());
    let for_signals = Arc::clone(recorder);
    let abandon = move |kind| {
        // An unfinished output that has a name (see `io::Output`) is swept by the next run.
        let failure = Failure::of(&Error::new(kind, "stopped by a signal"));
        for_signals.abandon(&failure);
        if mode == ProgressMode::Bar {
            printer::line("");
        }
        voice.failure(&failure);
    };
    let listener = Listener::start(Arc::clone(&monitor), abandon, quit)?;
    let watcher = Watcher::start(mode, Arc::clone(&monitor), grace);
    let result = guarded(|| work(&monitor));
    listener.settled();
    drop(watcher);
    result
}

fn attempt(job: &Job, voice: Voice, recorder: &Arc<Recorder>, monitor: &Arc<Monitor>) -> Result<()> {
    let source = open::open(&job.source, &job.open, monitor)?;
    recorder.record(|report| {
        if let Some(record) = &mut report.source {
            record.kind = Some(source.kind().to_string());
        }
    });
    let hash = input_hash(job, &source, recorder, monitor)?;
    let converted = source.select(&job.selection).and_then(|image| {
        recorder.record(|report| {
            report.image = Some(ImageRecord::of(&image, job.request.reference.as_deref()));
            report.notes.extend(image.warnings.iter().map(|text| Note::new("image", text, 1)));
        });
        check_digest(job.expect_digest, &image)?;
        describe(&image, voice);
        let mut notes = Vec::new();
        let reused = job.reusable(&image, &mut notes, monitor)?;
        recorder.record(|report| report.notes.append(&mut notes));
        if let Some(reused) = reused {
            return Ok(reused);
        }
        // Before the output may appear, the input must be what it should be. A stream cannot be taken back.
        let before_publish = || hash.as_ref().map_or(Ok(()), InputHash::settle);
        if job.expect_sha256.is_some() && job.request.destination == Destination::Stdout {
            before_publish()?;
        }
        let outcome = match output::convert(&image, &job.request, monitor, before_publish) {
            // Somebody else may have been faster, with what was wanted here.
            Err(error) if error.kind() == ErrorKind::Output && job.request.if_exists == IfExists::Reuse => {
                job.reusable(&image, &mut notes, monitor)?.ok_or(error)
            }
            converted => converted,
        };
        let late = image.blobs.warnings().into_iter().filter(|text| !image.warnings.contains(text));
        recorder.record(|report| report.notes.extend(late.map(|text| Note::new("image", text, 1))));
        outcome
    });
    let result = with_hash(converted, hash.as_ref());
    result.map(|outcome| {
        recorder.record(|report| {
            if let Some(image) = &mut report.image {
                image.diff_ids = outcome.diff_ids.iter().map(|id| Some(id.to_string())).collect();
            }
            report.output = Some(OutputRecord::of(&job.request, &outcome));
            report.notes.extend(outcome.notes.iter().cloned());
        });
        summarise(job, &outcome, voice, recorder);
    })
}

/// Starts to hash the input where someone wants to know.
fn input_hash(
    job: &Job,
    source: &open::Source,
    recorder: &Arc<Recorder>,
    monitor: &Arc<Monitor>,
) -> Result<Option<InputHash>> {
    if let Some((sha256, size)) = source.stream_sha256() {
        // It was compared before the source was open.
        recorder.record(|report| {
            if let Some(source) = &mut report.source {
                source.sha256 = Some(sha256.hex());
                source.size = Some(size);
            }
        });
        return Ok(None);
    }
    match source.file() {
        Some(file) if recorder.is_wanted() || job.expect_sha256.is_some() => {
            Ok(Some(InputHash::start(file, job.expect_sha256, Arc::clone(recorder), Arc::clone(monitor))))
        }
        None if job.expect_sha256.is_some() => Err(job::no_sha256(&job.source)),
        _ => Ok(None),
    }
}

/// Adds what the hash of the input says. If that is wrong, it is the reason for whatever else went wrong.
fn with_hash(converted: Result<Outcome>, hash: Option<&InputHash>) -> Result<Outcome> {
    let settled = hash.map_or(Ok(()), InputHash::settle);
    match (converted, settled) {
        (Ok(outcome), settled) => settled.map(|()| outcome),
        (Err(error), Err(mismatch)) if mismatch.kind() == ErrorKind::Mismatch => Err(mismatch.because(error)),
        (Err(error), _) => Err(error),
    }
}

fn check_digest(expected: Option<Digest>, image: &Image) -> Result<()> {
    let found = [image.index_digest, image.manifest_digest, Some(image.id())];
    match expected {
        Some(expected) if !found.contains(&Some(expected)) => {
            let names = ["index", "manifest", "config"];
            let found: Vec<String> =
                names.iter().zip(found).filter_map(|(name, digest)| Some(format!("{name} {}", digest?))).collect();
            Err(Error::new(
                ErrorKind::Mismatch,
                format!("the image is not the expected one: expected {expected}, got {}", found.join(", ")),
            )
            .hint("fetch the image again, or correct --expect-digest"))
        }
        _ => Ok(()),
    }
}

fn describe(image: &Image, voice: Voice) {
    let names: Vec<String> = image.names.iter().map(|name| Quoted(name.as_bytes()).to_string()).collect();
    let names = if names.is_empty() { String::new() } else { format!(" {}", names.join(", ")) };
    voice.detail(&format!(
        "image {}{names}: {}, {} layers",
        image.id(),
        image.platform(),
        Grouped(image.layers.len() as u64)
    ));
}

#[derive(Serialize)]
pub(super) struct Done<'a> {
    pub(super) event: &'static str,
    pub(super) output: &'a OutputRecord,
    pub(super) seconds: f64,
}

fn summarise(job: &Job, outcome: &Outcome, voice: Voice, recorder: &Recorder) {
    let seconds = recorder.seconds();
    if voice.json {
        let output = &OutputRecord::of(&job.request, outcome);
        return printer::event(&Done { event: "done", output, seconds });
    }
    let place = match &job.request.destination {
        Destination::Stdout => "standard output".to_string(),
        Destination::Path(path) => Quoted(path.as_os_str().as_bytes()).to_string(),
    };
    let (size, entries) = (Bytes(outcome.size), Grouped(outcome.entries));
    voice.summary(&format!("wrote {place}: {size}, {entries} entries, {seconds:.1} s"));
}

/// Writes the report and says what has not been said. A report that cannot be written makes a success a failure, for
/// someone waits for it; of two failures the first counts.
fn conclude(result: Result<()>, voice: Voice, recorder: &Recorder) -> u8 {
    let failure = result.as_ref().err().map(Failure::of);
    let status = match result {
        Ok(()) => Status::Ok,
        Err(_) => Status::Error,
    };
    recorder.record(|report| report.notes.iter().for_each(|note| voice.warning(note)));
    let written = recorder.conclude(status, failure.as_ref());
    match (failure, written) {
        (Some(failure), written) => {
            if let Err(error) = written {
                voice.warning(&Note::new("report-not-written", error.to_string(), 1));
            }
            voice.failure(&failure);
            failure.exit_code
        }
        (None, Err(error)) if !is_broken_pipe(&error) => failed(&error, voice),
        (None, _) => 0,
    }
}

/// Whether this began as a write to a pipe that nobody reads any more.
fn is_broken_pipe(error: &Error) -> bool {
    error.io_kind() == Some(std::io::ErrorKind::BrokenPipe)
}
