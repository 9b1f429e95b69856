//! The JSON report: what was asked, what was found, what was written, what went wrong.
//!
//! Schema version 1. Every key is always there; what is not known is `null`. A key is never renamed or removed without a
//! new version, so that a program that reads version 1 keeps working.

use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::exit::Failure;
use super::printer;
use super::report_file::{REPORT, ReportFile};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Note, Timestamp};
use crate::report::{AttachedSif, AttachedSignature, ImageRecord, OutputRecord, Report, SourceRecord, text};

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
    attached: &'a Option<Vec<AttachedSif>>,
    attached_signatures: &'a Option<Vec<AttachedSignature>>,
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

/// Collects a [`Report`] and writes it once, whatever happens.
pub(super) struct Recorder {
    place: Option<ReportFile>,
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
            place: place.map(|word| ReportFile::open(word, &REPORT)).transpose()?,
            arguments: words.iter().skip(1).map(|word| text(word)).collect(),
            started: started.to_rfc3339(),
            report: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// Whether the report goes to standard output.
    pub(super) fn takes_stdout(&self) -> bool {
        matches!(self.place, Some(ReportFile::Stdout))
    }

    /// How long it has been, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Adds to the report.
    pub(super) fn record(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.lock());
    }

    /// Writes what the output was made from, and how, to `place`.
    pub(super) fn attest(&self, place: &ReportFile) -> Result<()> {
        write_json(place, self.lock().provenance(&self.arguments)?)
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
            attached: &report.attached,
            attached_signatures: &report.attached_signatures,
            timing: Timing { started: &self.started, seconds: (self.seconds() * 1000.0).round() / 1000.0 },
            notes: &report.notes,
        };
        let document = serde_json::to_value(&document).map_err(not_json)?;
        write_json(place, document)
    }
}

fn write_json(place: &ReportFile, document: serde_json::Value) -> Result<()> {
    let json = serde_json::to_string_pretty(&printer::without_secrets(document)).map_err(not_json)?;
    place.write((printer::safe_json(&json) + "\n").as_bytes())
}

fn not_json(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Bug, format!("the report is not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn written(place: &Path) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(place).unwrap()).unwrap()
    }

    #[test]
    fn a_report_replaces_the_one_before_and_leaves_nothing_beside() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("r.json");
        std::fs::write(&place, "{\n  \"schema_version\": 1, of the last run").unwrap();
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
            "attached",
            "attached_signatures",
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
        std::fs::write(&place, "").unwrap();
        std::os::unix::fs::symlink("r.json", &link).unwrap();
        Recorder::new(Some(link.as_os_str()), &[]).unwrap().conclude(Status::Ok, None).unwrap();
        assert!(link.is_symlink());
        assert_eq!(written(&place)["status"], "ok");
        assert!(matches!(ReportFile::open(OsStr::new("/dev/null"), &REPORT).unwrap(), ReportFile::Stream(..)));
    }

    #[test]
    fn nothing_is_replaced_but_a_report() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("precious"), directory.path().join("link"));
        std::os::unix::fs::symlink("precious", &link).unwrap();
        for precious in ["x", "{\"schemaVersion\": 2}", "{\"schema_version\": 1}"] {
            std::fs::write(&file, precious).unwrap();
            for place in [&file, &link] {
                let error = Recorder::new(Some(place.as_os_str()), &[]).map(|_| ()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Output, "{precious}");
            }
            assert_eq!(std::fs::read_to_string(&file).unwrap(), precious);
        }
        let full = Recorder::new(Some(OsStr::new("/dev/full")), &[]).map(|_| ()).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::NoSpace, "known before the work begins");
        // A report that is never written leaves nothing, and what was there.
        let place = directory.path().join("r.json");
        drop(Recorder::new(Some(place.as_os_str()), &[]).unwrap());
        assert!(!place.exists());
    }

    #[test]
    fn places_that_cannot_work_are_refused_at_once() {
        for place in ["/", "/no/such/directory/r.json", "..", ""] {
            let error = Recorder::new(Some(OsStr::new(place)), &[]).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Output, "{place:?}");
        }
    }
}
