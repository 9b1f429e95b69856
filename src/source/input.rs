//! The file or stream that a source is read from, and its SHA-256.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::InputHash;
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::io::{Monitor, Phase, Region, hash_region};
use crate::model::Digest;

/// SHA-256 and length in bytes.
pub(super) type Hashed = (Digest, u64);

/// What a source is read from. The file is hashed beside the conversion, a stream as it comes.
#[derive(Debug)]
pub(super) struct Input {
    file: Option<Arc<File>>,
    expected: Option<Digest>,
    hash: Mutex<Hash>,
    monitor: Monitor,
}

#[derive(Debug)]
enum Hash {
    /// Nobody wants to know it.
    Unneeded,
    Running(JoinHandle<Result<Hashed>>),
    /// No thread could be started for it.
    Late(Arc<File>),
    Known(Hashed),
}

impl Input {
    /// A file, which is hashed from its start where that is wanted.
    pub(super) fn of_file(file: &Arc<File>, wanted: InputHash, monitor: &Monitor) -> Self {
        let hash = match wanted {
            InputHash::Unneeded => Hash::Unneeded,
            InputHash::Wanted | InputHash::Expected(_) => {
                let (ours, monitor) = (Arc::clone(file), monitor.clone());
                let started = std::thread::Builder::new().spawn(move || hash_file(ours, &monitor));
                started.map_or_else(|_| Hash::Late(Arc::clone(file)), Hash::Running)
            }
        };
        let expected = match wanted {
            InputHash::Expected(expected) => Some(expected),
            InputHash::Unneeded | InputHash::Wanted => None,
        };
        Input { file: Some(Arc::clone(file)), expected, hash: Mutex::new(hash), monitor: monitor.clone() }
    }

    /// A stream that has been read, and compared where something was expected of it.
    pub(super) fn of_stream(hashed: Option<Hashed>, monitor: &Monitor) -> Self {
        let hash = hashed.map_or(Hash::Unneeded, Hash::Known);
        Input { file: None, expected: None, hash: Mutex::new(hash), monitor: monitor.clone() }
    }

    pub(super) fn file(&self) -> Option<&Arc<File>> {
        self.file.as_ref()
    }

    /// Waits for the hash; `None` where nobody wanted to know it.
    pub(super) fn sha256(&self) -> Result<Option<Hashed>> {
        let mut hash = self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *hash, Hash::Unneeded) {
            Hash::Unneeded => Ok(None),
            Hash::Late(file) => {
                self.monitor.begin(Phase::Verify, 0);
                let hashed = hash_file(file, &self.monitor).doing(|| "hashing the input file")?;
                *hash = Hash::Known(hashed);
                Ok(Some(hashed))
            }
            Hash::Running(thread) => {
                if !thread.is_finished() {
                    self.monitor.begin(Phase::Verify, 0);
                }
                let panicked = |_| Err(Error::new(ErrorKind::Bug, "a hashing thread panicked"));
                let hashed = thread.join().unwrap_or_else(panicked).doing(|| "hashing the input file")?;
                *hash = Hash::Known(hashed);
                Ok(Some(hashed))
            }
            Hash::Known(hashed) => {
                *hash = Hash::Known(hashed);
                Ok(Some(hashed))
            }
        }
    }

    /// Waits for the hash, and compares it with the one that is expected, if any: when the output has its name, nothing of
    /// the input can fail any more.
    pub(super) fn confirm(&self) -> Result<()> {
        match (self.sha256()?, self.expected) {
            (Some((found, _)), Some(expected)) if found != expected => Err(mismatch("the input file", found, expected)),
            _ => Ok(()),
        }
    }
}

impl Input {
    /// An input that is not the expected one is the reason for whatever else is wrong with it.
    pub(super) fn blame(&self, error: Error) -> Error {
        match self.expected.map(|_| self.confirm()) {
            Some(Err(mismatch)) if mismatch.kind() == ErrorKind::Mismatch => mismatch.because(error),
            _ => error,
        }
    }
}

/// What is said of an input that is not the expected one.
pub(super) fn mismatch(what: &str, found: Digest, expected: Digest) -> Error {
    let message = format!("{what}'s SHA-256 is {}, expected {}", found.hex(), expected.hex());
    Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::ExpectedSha256)
}

fn hash_file(file: Arc<File>, monitor: &Monitor) -> Result<Hashed> {
    let region = Region::whole(file).or_kind(ErrorKind::SourceUnavailable)?;
    hash_region(&region, |error| Error::io(ErrorKind::SourceUnavailable, error), |_| monitor.check())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn input(wanted: InputHash, monitor: &Monitor) -> Input {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"hello").unwrap();
        Input::of_file(&Arc::new(file), wanted, monitor)
    }

    #[test]
    fn a_file_is_hashed_and_compared() {
        let monitor = Monitor::default();
        let right = input(InputHash::Expected(Digest::of(b"hello")), &monitor);
        right.confirm().unwrap();
        assert_eq!(right.sha256().unwrap(), Some((Digest::of(b"hello"), 5)));
        let wrong = input(InputHash::Expected(Digest::of(b"hallo")), &monitor);
        assert_eq!(wrong.confirm().unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(wrong.sha256().unwrap(), Some((Digest::of(b"hello"), 5)));
        assert_eq!(input(InputHash::Unneeded, &monitor).sha256().unwrap(), None);
    }

    #[test]
    fn a_stop_reaches_it() {
        let monitor = Monitor::default();
        monitor.stop(ErrorKind::Terminated);
        assert_eq!(input(InputHash::Wanted, &monitor).sha256().unwrap_err().kind(), ErrorKind::Terminated);
        assert_eq!(input(InputHash::Wanted, &monitor).confirm().unwrap_err().kind(), ErrorKind::Terminated);
    }
}
