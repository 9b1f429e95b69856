//! How each output of a directory was made: a file for each, which is the report of its conversion too.
//!
//! A record is written whole, by rename, when its output has its name. Whoever works on an output holds a lock on the record
//! that is there, or on an empty one: it ends with the process, and a file system without locks costs work done twice, never a
//! wrong output.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Scratch, sweep_directory, umask};

/// Where records are, in the directory of the outputs.
pub(super) const DIRECTORY: &str = "reports";
const SUFFIX: &str = ".json";
/// The longest record that is read, in bytes.
const BYTES_MAX: u64 = 16 << 20;
/// How often a record is opened again that was replaced meanwhile.
const TRIES: usize = 100;

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Status {
    /// It was converted.
    Done,
    /// The output that was there is what would be made.
    Kept,
    /// It could not be converted.
    Failed,
    /// Its turn has not come, or its output is gone.
    Missing,
    /// A tag of a repository that does not name an image, but a SIF file or a signature, for example.
    Skipped,
}

impl Status {
    /// As one word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Done => "done",
            Status::Kept => "kept",
            Status::Failed => "failed",
            Status::Missing => "missing",
            Status::Skipped => "skipped",
        }
    }

    /// Whether the output is there.
    pub fn is_good(self) -> bool {
        matches!(self, Status::Done | Status::Kept)
    }
}

/// Why an image could not be converted, in the words of whoever runs the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trouble {
    /// The name of its class: [`ErrorKind::name`].
    pub kind: String,
    /// What was being done, and what went wrong.
    pub message: String,
    /// What to do about it; empty where nothing is known that helps.
    pub hint: String,
    /// With what the program ends that does this conversion alone: [`ErrorKind::exit_code`].
    pub exit_code: u8,
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Trouble {
            kind: error.kind().name().to_string(),
            message: error.to_string(),
            hint: error.remedy().unwrap_or_default().to_string(),
            exit_code: error.kind().exit_code(),
        }
    }
}

/// An image and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// Its place in the list, from 1.
    pub number: usize,
    /// What became of it.
    pub status: Status,
    /// The source as it is written.
    pub source: String,
    /// The name of the output.
    pub output: String,
    /// The digest that the source named: of a manifest or an index where it has one, else the image ID.
    pub digest: Option<String>,
    /// Bytes of the output.
    pub bytes: Option<u64>,
    /// SHA-256 of the output in hex, where it was computed.
    pub sha256: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Bytes of blobs that came over the network.
    pub downloaded_bytes: u64,
    /// Bytes of blobs that a cache had.
    pub cached_bytes: u64,
    /// Why there is no output.
    pub error: Option<Trouble>,
}

/// An output that is there, and what it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The source, as it was named.
    #[serde(default)]
    pub(super) source: String,
    /// A digest of all options that decide about its bytes.
    pub(super) options: String,
    /// What the source named, where that can be told without reading it.
    pub(super) origin: Option<String>,
    /// What the file is as long as nobody touches it.
    pub(super) file: String,
    /// What is told of it.
    pub(super) sha256: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) bytes: u64,
}

/// The record of an output.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) schema_version: u32,
    #[serde(flatten)]
    pub(super) row: Row,
    /// The format of the output.
    pub(super) format: String,
    /// The output that is there: with a failure, one of an earlier run.
    pub(super) made: Option<Made>,
    /// The report of the conversion.
    #[serde(default)]
    pub(super) report: serde_json::Value,
}

/// All records of a directory.
#[derive(Debug)]
pub(super) struct Book {
    directory: PathBuf,
    mode: u32,
}

/// A record that nobody else works on, as long as this is there.
#[derive(Debug)]
pub(super) struct Page {
    _lock: File,
    /// The file that has taken its place, locked too, once the output is being worked on.
    claim: RefCell<Option<Arc<File>>>,
    /// What it says.
    pub(super) record: Option<Record>,
}

impl Book {
    /// Opens those of the outputs in `directory`, which is made where it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let book = Book { directory: directory.join(DIRECTORY), mode: 0o666 & !umask() };
        let made = fs::create_dir_all(&book.directory).or_kind(ErrorKind::Output);
        made.doing(|| format!("creating {:?}", book.directory))?;
        sweep_directory(&book.directory);
        Ok(book)
    }

    fn path(&self, output: &str) -> PathBuf {
        self.directory.join(format!("{output}{SUFFIX}"))
    }

    /// What is recorded of `output`. What is not a record is none.
    pub(super) fn read(&self, output: &str) -> Option<Record> {
        read(&open(&self.path(output), File::options().read(true)).ok()?)
    }

    /// The record of `output`, to be worked on; `None` where somebody else does.
    pub(super) fn take(&self, output: &str) -> Result<Option<Page>> {
        let path = self.path(output);
        let take = || -> io::Result<Option<Page>> {
            for _ in 0..TRIES {
                let file = open(&path, File::options().read(true).append(true).create(true))?;
                // Without locks, what is done twice is done right.
                if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
                    return Ok(None);
                }
                // Whoever had it may have replaced it.
                if fs::metadata(&path).is_ok_and(|found| file.metadata().is_ok_and(|own| found.ino() == own.ino())) {
                    let record = read(&file);
                    return Ok(Some(Page { _lock: file, claim: RefCell::default(), record }));
                }
            }
            Err(io::Error::other("it is replaced all the time"))
        };
        take().or_kind(ErrorKind::Output).doing(|| format!("opening {path:?}"))
    }

    /// Writes a record, which anybody may take then.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        self.put(record).map(drop)
    }

    /// Writes a record of what is being worked on. Until `page` is dropped, nobody else can take it.
    pub(super) fn claim(&self, page: &Page, record: &Record) -> Result<()> {
        page.claim.replace(Some(self.put(record)?));
        Ok(())
    }

    /// Takes a claim back: nothing has come of it.
    pub(super) fn give_back(&self, page: &Page, output: &str) -> Result<()> {
        match &page.record {
            _ if page.claim.borrow().is_none() => Ok(()),
            Some(record) => self.write(record),
            None => self.remove(output),
        }
    }

    /// The file has a lock when it appears, and as long as somebody has it.
    fn put(&self, record: &Record) -> Result<Arc<File>> {
        let path = self.path(&record.row.output);
        let mut text = serde_json::to_vec_pretty(record)
            .map_err(|error| Error::new(ErrorKind::Bug, format!("a record is not JSON: {error}")))?;
        text.push(b'\n');
        let doing = || format!("writing {path:?}");
        let mut scratch = Scratch::create(&self.directory, self.mode)?;
        (&**scratch.file()).write_all(&text).or_kind(ErrorKind::Output).doing(doing)?;
        scratch.set_mode().doing(doing)?;
        // Without locks, what is done twice is done right.
        let _ = flock(scratch.file(), FlockOperation::NonBlockingLockExclusive);
        scratch.move_to(&path)?;
        let file = Arc::clone(scratch.file());
        scratch.keep();
        Ok(file)
    }

    /// Removes the record of `output`.
    pub(super) fn remove(&self, output: &str) -> Result<()> {
        let path = self.path(output);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(ErrorKind::Output, error).doing(format!("removing {path:?}")))
            }
            _ => Ok(()),
        }
    }

    /// The outputs that have records.
    pub(super) fn outputs(&self) -> Result<Vec<String>> {
        let doing = || format!("reading {:?}", self.directory);
        let mut outputs = Vec::new();
        for entry in fs::read_dir(&self.directory).or_kind(ErrorKind::Output).doing(doing)? {
            let name = entry.or_kind(ErrorKind::Output).doing(doing)?.file_name();
            let output = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            outputs.extend(output.filter(|output| !output.starts_with('.')).map(str::to_string));
        }
        outputs.sort();
        Ok(outputs)
    }

    /// The directory itself, for a lock of all.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Opens a record. Others may write to the directory: a pipe that they put there would never end, and a link leads elsewhere.
fn open(path: &Path, options: &mut fs::OpenOptions) -> io::Result<File> {
    let file =
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

fn read(file: &File) -> Option<Record> {
    let mut text = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok().filter(|record: &Record| record.schema_version == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(output: &str) -> Record {
        let row = Row {
            number: 1,
            status: Status::Done,
            source: "a.tar".into(),
            output: output.into(),
            digest: None,
            bytes: Some(1),
            sha256: None,
            seconds: 0.5,
            downloaded_bytes: 0,
            cached_bytes: 0,
            error: None,
        };
        Record { schema_version: 1, row, format: "sif".into(), made: None, report: serde_json::Value::Null }
    }

    #[test]
    fn a_record_is_one_persons_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::open(place.path()).unwrap();
        let page = book.take("x.sif").unwrap().unwrap();
        assert!(page.record.is_none());
        assert!(Book::open(place.path()).unwrap().take("x.sif").unwrap().is_none());
        assert!(book.take("y.sif").unwrap().is_some());
        book.write(&record("x.sif")).unwrap();
        // What was written is finished: who comes now sees it, whether the writer is still there or not.
        let other = book.take("x.sif").unwrap().unwrap();
        assert_eq!(other.record.unwrap().row, record("x.sif").row);
        drop(page);
        assert_eq!(book.outputs().unwrap(), ["x.sif", "y.sif"]);
        book.remove("x.sif").unwrap();
        assert!(book.read("x.sif").is_none());
        book.remove("x.sif").unwrap();
    }

    #[test]
    fn what_others_put_in_the_place_of_a_record_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::open(place.path()).unwrap();
        let path = |name: &str| place.path().join("reports").join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("pipe.sif.json"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        std::os::unix::fs::symlink(place.path().join("elsewhere"), path("link.sif.json")).unwrap();
        for output in ["pipe.sif", "link.sif"] {
            assert!(book.read(output).is_none());
            assert_eq!(book.take(output).unwrap_err().kind(), ErrorKind::Output);
        }
        assert!(!place.path().join("elsewhere").exists());
    }

    #[test]
    fn what_is_no_record_is_none() {
        let place = tempfile::tempdir().unwrap();
        let book = Book::open(place.path()).unwrap();
        let path = place.path().join("reports/x.sif.json");
        let text = serde_json::to_string(&record("x.sif")).unwrap();
        for bad in ["", "{", &text[..text.len() - 2], &text.replace("\"schema_version\":1", "\"schema_version\":2")] {
            fs::write(&path, bad).unwrap();
            assert!(book.read("x.sif").is_none(), "{bad}");
        }
        fs::write(&path, text).unwrap();
        assert!(book.read("x.sif").is_some());
    }
}
