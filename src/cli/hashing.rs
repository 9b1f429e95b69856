//! The SHA-256 of the input file, computed beside the conversion.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::exit;
use super::report::Recorder;
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{Monitor, Phase, Region, hash_region};
use crate::model::Digest;

/// Digest and length in bytes.
type Hashed = Result<(Digest, u64)>;

/// A hash that is being computed, and what it must turn out to be.
pub(super) struct InputHash {
    /// Taken by the first who waits for it.
    thread: Mutex<Option<JoinHandle<Hashed>>>,
    expected: Option<Digest>,
    recorder: Arc<Recorder>,
    monitor: Arc<Monitor>,
}

impl InputHash {
    /// Starts to hash `file`. It is the open file that the conversion reads, so that no other can be slipped in between.
    pub(super) fn start(
        file: Arc<File>,
        expected: Option<Digest>,
        recorder: Arc<Recorder>,
        monitor: Arc<Monitor>,
    ) -> Self {
        let for_thread = Arc::clone(&monitor);
        let thread = std::thread::spawn(move || hash(file, &for_thread));
        InputHash { thread: Mutex::new(Some(thread)), expected, recorder, monitor }
    }

    /// Waits for the hash, records it and compares it; nothing on a second call.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`], and whatever reading fails with.
    pub(super) fn settle(&self) -> Result<()> {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
        if !thread.is_finished() {
            self.monitor.begin(Phase::Verify, 0);
        }
        let hashed = thread.join().unwrap_or_else(|payload| Err(exit::bug(&*payload)));
        let (found, size) = hashed.doing(|| "hashing the input file")?;
        self.recorder.record(|report| {
            if let Some(source) = &mut report.source {
                source.sha256 = Some(found.hex());
                source.size = Some(size);
            }
        });
        match self.expected.filter(|&expected| expected != found) {
            None => Ok(()),
            Some(expected) => Err(Error::new(
                ErrorKind::Mismatch,
                format!("the input file's SHA-256 is {}, expected {}", found.hex(), expected.hex()),
            )
            .hint("the file is damaged or another one: fetch it again, or correct --expect-sha256")),
        }
    }
}

/// The SHA-256 and length of a whole file, wherever its cursor is.
pub(super) fn hash(file: Arc<File>, monitor: &Monitor) -> Hashed {
    let region = Region::whole(file).or_kind(ErrorKind::SourceUnavailable)?;
    hash_region(&region, |error| Error::io(ErrorKind::SourceUnavailable, error), |_| monitor.check())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write;

    use super::super::report::{SourceRecord, Status};
    use super::*;

    fn hashing(expected: Option<Digest>, monitor: Monitor) -> (InputHash, Arc<Recorder>, tempfile::NamedTempFile) {
        let place = tempfile::NamedTempFile::new().unwrap();
        let recorder = Arc::new(Recorder::new(Some(place.path().as_os_str()), &[]).unwrap());
        recorder.record(|report| report.source = Some(SourceRecord::of(OsStr::new("x"), None)));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        (InputHash::start(Arc::new(file), expected, Arc::clone(&recorder), Arc::new(monitor)), recorder, place)
    }

    #[test]
    fn the_hash_is_recorded_and_compared() {
        let (hash, recorder, place) = hashing(Some(Digest::of(b"hello")), Monitor::default());
        hash.settle().unwrap();
        recorder.conclude(Status::Ok, None).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(place.path()).unwrap()).unwrap();
        assert_eq!(report["source"]["sha256"], Digest::of(b"hello").hex());
        assert_eq!(report["source"]["size"], 5);
        let (hash, ..) = hashing(Some(Digest::of(b"hallo")), Monitor::default());
        assert_eq!(hash.settle().unwrap_err().kind(), ErrorKind::Mismatch);
        assert!(hash.settle().is_ok(), "said once");
    }

    #[test]
    fn a_stop_reaches_it() {
        let monitor = Monitor::default();
        monitor.stop(ErrorKind::Terminated);
        let (hash, ..) = hashing(None, monitor);
        assert_eq!(hash.settle().unwrap_err().kind(), ErrorKind::Terminated);
    }
}
