//! Where a report goes. It never replaces anything but a report.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::printer;
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{Output, directory_of, open_now, open_stream};
use crate::model::Quoted;

/// How every report begins: its first key, which is never renamed.
const START: &[u8] = b"{\n  \"schema_version\":";
/// Room that is set aside for a report before the work begins: no report has been longer.
static ROOM: [u8; 64 << 10] = [b' '; 64 << 10];

/// The place for a report, found fit before the work begins.
#[derive(Debug)]
pub(super) enum ReportFile {
    Stdout,
    /// A pipe or a device. What it takes first is an empty line, which means nothing in JSON.
    Stream(File),
    /// A file, and the unfinished one that is to replace it.
    File(PathBuf, Mutex<Option<Output>>),
}

impl ReportFile {
    /// Finds out whether a report can be written to `word`; better now than after an hour of work.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] where it cannot, or where there is something that is no report; [`ErrorKind::NoSpace`] where
    /// there is no room for one.
    pub(super) fn open(word: &OsStr) -> Result<Self> {
        if word == "-" {
            return Ok(ReportFile::Stdout);
        }
        ReportFile::open_path(word).doing(|| format!("report {}", Quoted(word.as_bytes())))
    }

    fn open_path(word: &OsStr) -> Result<Self> {
        // What a symbolic link points to is replaced, not the link.
        let path = std::fs::canonicalize(word).unwrap_or_else(|_| PathBuf::from(word));
        let refuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Output, why).hint(hint));
        let elsewhere = "name a file in a directory that exists with --report";
        match std::fs::metadata(&path) {
            Ok(data) if data.is_dir() => refuse("this is a directory", elsewhere),
            Ok(data) if !data.is_file() => {
                let mut stream = open_stream(&path)?;
                stream.write_all(b"\n").or_kind(ErrorKind::Output)?;
                Ok(ReportFile::Stream(stream))
            }
            Ok(data) if data.len() > 0 && !is_report(&path).or_kind(ErrorKind::Output)? => {
                refuse("this is a file, and not a report", "remove it, or name another file with --report")
            }
            Ok(_) => ReportFile::begin(path),
            Err(_) if path.file_name().is_none() => refuse("this is not a file name", elsewhere),
            Err(_) if !directory_of(&path).is_dir() => refuse("its directory does not exist", elsewhere),
            Err(_) => ReportFile::begin(path),
        }
    }

    fn begin(path: PathBuf) -> Result<Self> {
        let output = Output::create(&path, true, report_mode())?;
        output.file().write_all_at(&ROOM, 0).or_kind(ErrorKind::Output)?;
        Ok(ReportFile::File(path, Mutex::new(Some(output))))
    }

    /// Writes the report, whole and durable, or leaves what was there.
    pub(super) fn write(&self, json: &[u8]) -> Result<()> {
        let written = match self {
            ReportFile::Stdout => return printer::data(json),
            ReportFile::Stream(file) => (&mut &*file).write_all(json).or_kind(ErrorKind::Output),
            ReportFile::File(path, begun) => {
                let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
                let output = begun.map_or_else(|| Output::create(path, true, report_mode()), Ok)?;
                output.file().write_all_at(json, 0).or_kind(ErrorKind::Output)?;
                output.file().set_len(json.len() as u64).or_kind(ErrorKind::Output)?;
                output.publish()
            }
        };
        written.doing(|| "writing the report")
    }
}

/// Permissions for whoever the umask lets read and write.
fn report_mode() -> u32 {
    0o666 & !crate::io::umask()
}

fn is_report(path: &std::path::Path) -> io::Result<bool> {
    let mut start = Vec::new();
    open_now(path)?.take(START.len() as u64).read_to_end(&mut start)?;
    Ok(start == START)
}
