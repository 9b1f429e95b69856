//! The JSON report: what was asked, what was found, what was written, what went wrong.
//!
//! Schema version 1. Every key is always there; what is not known is `null`. A key is never renamed or removed without a
//! new version, so that a program that reads version 1 keeps working.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::exit::Failure;
use super::printer;
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{Output, directory_of, umask};
use crate::model::{Note, Quoted, Timestamp};
use crate::report::{ImageRecord, OutputRecord, Report, SourceRecord, text};

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// The output is complete.
    Ok,
    /// There is no output; see `error`.
    Error,
}

/// The whole document, in the order of its keys.
#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    /// Of this program.
    version: &'static str,
    /// Words of the command line after the program's name.
    arguments: &'a [String],
    status: Status,
    error: Option<&'a Failure>,
    source: &'a Option<SourceRecord>,
    image: &'a Option<ImageRecord>,
    output: &'a Option<OutputRecord>,
    timing: Timing<'a>,
    notes: &'a [Note],
}

#[derive(Serialize)]
struct Timing<'a> {
    /// RFC 3339, UTC.
    started: &'a str,
    seconds: f64,
}

/// The last event of a run that succeeded.
#[derive(Serialize)]
pub(super) struct Done<'a> {
    pub(super) event: &'static str,
    pub(super) output: &'a OutputRecord,
    pub(super) seconds: f64,
}

/// Where a report goes.
#[derive(Debug)]
enum Place {
    Stdout,
    /// A pipe or device: written to as it stands.
    Special(PathBuf),
    /// A file: replaced at once and whole.
    File(PathBuf),
}

/// Collects a [`Report`] and writes it once, whatever happens.
pub(super) struct Recorder {
    place: Option<Place>,
    arguments: Vec<String>,
    started: String,
    report: Mutex<Report>,
    began: Instant,
}

impl Recorder {
    /// A recorder that writes to `place`, or nowhere. `words` is the command line with the program's name.
    ///
    /// # Errors
    /// When no report could be written there: better now than after an hour of work.
    pub(super) fn new(place: Option<&OsStr>, words: &[OsString]) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "the time goes into the report and nowhere else")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started = i64::try_from(now.as_secs()).map(Timestamp::from_seconds).unwrap_or_default();
        Ok(Recorder {
            place: place.map(Place::parse).transpose()?,
            arguments: words.iter().skip(1).map(|word| text(word)).collect(),
            started: started.to_rfc3339(),
            report: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Whether the report goes to standard output.
    pub(super) fn takes_stdout(&self) -> bool {
        matches!(self.place, Some(Place::Stdout))
    }

    /// How long it has been, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Adds to the report.
    pub(super) fn record(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.lock());
    }

    /// Writes the report.
    pub(super) fn conclude(&self, status: Status, failure: Option<&Failure>) -> Result<()> {
        self.write(&self.lock(), status, failure)
    }

    /// Writes the report from outside the work, which may be in the middle of anything.
    pub(super) fn abandon(&self, failure: &Failure) {
        if let Ok(report) = self.report.try_lock() {
            // The process ends now, because of what the failure says; there is no one left to tell about the report.
            let _ = self.write(&report, Status::Error, Some(failure));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, report: &Report, status: Status, failure: Option<&Failure>) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        let document = Document {
            schema_version: 1,
            version: env!("CARGO_PKG_VERSION"),
            arguments: &self.arguments,
            status,
            error: failure,
            source: &report.source,
            image: &report.image,
            output: &report.output,
            timing: Timing { started: &self.started, seconds: (self.seconds() * 1000.0).round() / 1000.0 },
            notes: &report.notes,
        };
        let mut json = serde_json::to_value(&document)
            .map(printer::without_secrets)
            .and_then(|document| serde_json::to_vec_pretty(&document))
            .map_err(|error| Error::new(ErrorKind::Bug, format!("the report is no JSON: {error}")))?;
        json.push(b'\n');
        place.write(&json)
    }
}

impl Place {
    fn parse(word: &OsStr) -> Result<Self> {
        if word == "-" {
            return Ok(Place::Stdout);
        }
        // What a symbolic link points to is replaced, not the link.
        let path = std::fs::canonicalize(word).unwrap_or_else(|_| PathBuf::from(word));
        let refuse = |why: &str| {
            Error::new(ErrorKind::Output, format!("report {}: {why}", Quoted(word.as_bytes())))
                .hint("name a file in a directory that exists with --report")
        };
        match std::fs::metadata(&path) {
            Ok(data) if data.is_dir() => Err(refuse("this is a directory")),
            Ok(data) if !data.is_file() => Ok(Place::Special(path)),
            Ok(_) => Ok(Place::File(path)),
            Err(_) if path.file_name().is_none() => Err(refuse("this is not a file name")),
            Err(_) if !directory_of(&path).is_dir() => Err(refuse("its directory does not exist")),
            Err(_) => Ok(Place::File(path)),
        }
    }

    fn write(&self, json: &[u8]) -> Result<()> {
        let written = match self {
            Place::Stdout => return printer::data(json),
            Place::Special(path) => {
                let opened = File::options().write(true).open(path);
                opened.and_then(|mut file| file.write_all(json)).or_kind(ErrorKind::Output)
            }
            Place::File(path) => replace(path, json),
        };
        written.doing(|| "writing the report")
    }
}

/// Puts `bytes` at `path`, whole and durable, or leaves what was there.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let output = Output::create(path, true, 0o666 & !umask())?;
    output.file().write_all_at(bytes, 0).or_kind(ErrorKind::Output)?;
    output.publish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(place: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(place).unwrap()).unwrap()
    }

    #[test]
    fn a_report_replaces_the_one_before_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("r.json");
        std::fs::write(&place, "old").unwrap();
        let words = ["convert", "x.tar"].map(OsString::from);
        let recorder = Recorder::new(Some(place.as_os_str()), &words).unwrap();
        recorder.record(|report| report.source = Some(SourceRecord::of(OsStr::from_bytes(b"\xff.tar"), None)));
        recorder.conclude(Status::Ok, None).unwrap();
        let report = written(&place);
        assert_eq!((&report["schema_version"], &report["status"]), (&1.into(), &"ok".into()));
        assert_eq!(report["arguments"], serde_json::json!(["x.tar"]));
        assert_eq!(report["source"]["spelling"], "\\xff.tar");
        let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
        let all = [
            "schema_version",
            "version",
            "arguments",
            "status",
            "error",
            "source",
            "image",
            "output",
            "timing",
            "notes",
        ];
        assert_eq!(keys, all);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_stay_links_and_devices_stay_devices() {
        let directory = tempfile::tempdir().unwrap();
        let (link, place) = (directory.path().join("link"), directory.path().join("r.json"));
        std::fs::write(&place, "old").unwrap();
        std::os::unix::fs::symlink("r.json", &link).unwrap();
        Recorder::new(Some(link.as_os_str()), &[]).unwrap().conclude(Status::Ok, None).unwrap();
        assert!(link.is_symlink());
        assert_eq!(written(&place)["status"], "ok");
        assert!(matches!(Place::parse(OsStr::new("/dev/null")).unwrap(), Place::Special(_)));
    }

    #[test]
    fn places_that_cannot_work_are_refused_at_once() {
        for place in ["/", "/no/such/directory/r.json", "..", ""] {
            let error = Recorder::new(Some(OsStr::new(place)), &[]).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Output, "{place:?}");
        }
    }
}
