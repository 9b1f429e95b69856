//! The JSON report: what was asked, what was found, what was written, what went wrong.
//!
//! Schema version 1. Every key is always there; what is not known is `null`. A key is never renamed or removed without a
//! new version, so that a program that reads version 1 keeps working.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::exit::Failure;
use super::printer;
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::image::Image;
use crate::io::directory_of;
use crate::model::{Digest, Note, Quoted, Timestamp};
use crate::output::{Destination, Outcome};

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Status {
    /// The output is complete.
    Ok,
    /// There is no output; see `error`.
    Error,
}

/// The whole document.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema_version: u32,
    /// Of this program.
    version: &'static str,
    /// Words of the command line after the program's name.
    arguments: Vec<String>,
    status: Option<Status>,
    error: Option<Failure>,
    pub(super) source: Option<SourceRecord>,
    pub(super) image: Option<ImageRecord>,
    pub(super) output: Option<OutputRecord>,
    timing: Timing,
    pub(super) notes: Vec<Note>,
}

/// Where the image came from.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SourceRecord {
    /// The SOURCE word as given.
    pub(super) spelling: String,
    /// What it turned out to be.
    pub(super) kind: Option<String>,
    /// The absolute path of a local source.
    pub(super) path: Option<String>,
    /// Bytes of the input file.
    pub(super) size: Option<u64>,
    /// SHA-256 of the input file in hex.
    pub(super) sha256: Option<String>,
}

/// The image that was selected.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ImageRecord {
    id: String,
    config_digest: String,
    manifest_digest: Option<String>,
    index_digest: Option<String>,
    names: Vec<String>,
    /// The name under which it is recorded, where it has one.
    reference: Option<String>,
    platform: String,
    created: Option<String>,
    pub(super) diff_ids: Vec<Option<String>>,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub(super) struct OutputRecord {
    /// The absolute path; `-` is standard output.
    path: String,
    format: &'static str,
    size: u64,
    sha256: Option<String>,
    entries: u64,
    /// The image ID of an image that was written: another than the source's where it was flattened.
    image_id: Option<String>,
    manifest_digest: Option<String>,
}

#[derive(Debug, Serialize)]
struct Timing {
    /// RFC 3339, UTC.
    started: String,
    seconds: f64,
}

impl SourceRecord {
    /// What the SOURCE word alone says. `path` is where it points to, if to a local place.
    pub(super) fn of(spelling: &OsStr, path: Option<&Path>) -> Self {
        let size = path.and_then(|path| std::fs::metadata(path).ok()).filter(|data| data.is_file());
        SourceRecord {
            spelling: text(spelling),
            kind: None,
            path: path.map(absolute),
            size: size.map(|data| data.len()),
            sha256: None,
        }
    }
}

impl ImageRecord {
    /// Describes `image`, to be recorded under `reference` if that is given.
    pub(super) fn of(image: &Image, reference: Option<&str>) -> Self {
        let id = image.id().to_string();
        ImageRecord {
            config_digest: id.clone(),
            id,
            manifest_digest: image.manifest_digest.as_ref().map(Digest::to_string),
            index_digest: image.index_digest.as_ref().map(Digest::to_string),
            reference: reference.or(image.names.first().map(String::as_str)).map(str::to_string),
            names: image.names.clone(),
            platform: image.platform().to_string(),
            created: image.config.created().map(Timestamp::to_rfc3339),
            diff_ids: image.layers.iter().map(|layer| layer.diff_id.as_ref().map(Digest::to_string)).collect(),
        }
    }
}

impl OutputRecord {
    /// Describes what was written in `format` to `destination`.
    pub(super) fn of(format: &'static str, destination: &Destination, outcome: &Outcome) -> Self {
        OutputRecord {
            path: place_of(destination),
            format,
            size: outcome.size,
            sha256: outcome.sha256.as_ref().map(Digest::hex),
            entries: outcome.entries,
            image_id: outcome.image_id.as_ref().map(Digest::to_string),
            manifest_digest: outcome.manifest_digest.as_ref().map(Digest::to_string),
        }
    }
}

/// The last event of a run that succeeded.
#[derive(Serialize)]
pub(super) struct Done<'a> {
    pub(super) event: &'static str,
    pub(super) output: &'a OutputRecord,
    pub(super) seconds: f64,
}

fn place_of(destination: &Destination) -> String {
    match destination {
        Destination::Stdout => "-".to_string(),
        Destination::Path(path) => absolute(path),
    }
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
        let report = Report {
            schema_version: 1,
            version: env!("CARGO_PKG_VERSION"),
            arguments: words.iter().skip(1).map(|word| text(word)).collect(),
            status: None,
            error: None,
            source: None,
            image: None,
            output: None,
            timing: Timing { started: started.to_rfc3339(), seconds: 0.0 },
            notes: Vec::new(),
        };
        Ok(Recorder { place: place.map(Place::parse).transpose()?, report: Mutex::new(report), began: Instant::now() })
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

    /// Adds to what is said about the source.
    pub(super) fn with_source(&self, change: impl FnOnce(&mut SourceRecord)) {
        self.record(|report| report.source.as_mut().map_or((), change));
    }

    /// Writes the report.
    pub(super) fn conclude(&self, status: Status, failure: Option<&Failure>) -> Result<()> {
        self.write(&mut self.lock(), status, failure)
    }

    /// Writes the report from outside the work, which may be in the middle of anything.
    pub(super) fn abandon(&self, failure: &Failure) {
        if let Ok(mut report) = self.report.try_lock() {
            // The process ends now, because of what the failure says; there is no one left to tell about the report.
            let _ = self.write(&mut report, Status::Error, Some(failure));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, report: &mut Report, status: Status, failure: Option<&Failure>) -> Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        report.status = Some(status);
        report.error = failure.cloned();
        report.timing.seconds = (self.seconds() * 1000.0).round() / 1000.0;
        let mut json = serde_json::to_vec_pretty(report)
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
            Place::Special(path) => File::options().write(true).open(path).and_then(|mut file| file.write_all(json)),
            Place::File(path) => replace(path, json),
        };
        written.or_kind(ErrorKind::Output).doing(|| "writing the report")
    }
}

/// Puts `bytes` at `path`, whole and durable, or leaves what was there.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = directory_of(path);
    // The umask applies to these permissions.
    let permissions = std::fs::Permissions::from_mode(0o666);
    let mut file =
        tempfile::Builder::new().prefix(".convert-report-").permissions(permissions).tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(directory)?.sync_all()
}

/// Bytes of the operating system as JSON can hold them: what is not UTF-8 becomes `\xff`.
pub(super) fn text(bytes: &OsStr) -> String {
    let mut text = String::new();
    for chunk in bytes.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn absolute(path: &Path) -> String {
    text(std::path::absolute(path).as_deref().unwrap_or(path).as_os_str())
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
