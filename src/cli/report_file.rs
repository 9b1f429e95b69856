//! Where a report or a statement about the output goes. Neither replaces anything but its like.

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

/// What is written to such a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DocumentKind {
    /// What messages call it.
    name: &'static str,
    /// The option that names the place.
    option: &'static str,
    /// How every one of it begins: its first key, which is never renamed.
    start: &'static [u8],
}

/// What became of a run.
pub(super) const REPORT: DocumentKind =
    DocumentKind { name: "report", option: "--report", start: b"{\n  \"schema_version\":" };
/// What the output was made from.
pub(super) const PROVENANCE: DocumentKind = DocumentKind {
    name: "provenance",
    option: "--provenance",
    start: b"{\n  \"_type\": \"https://in-toto.io/Statement/v1\"",
};

/// Room that is set aside before the work begins: nothing that is written here has been longer.
static ROOM: [u8; 64 << 10] = [b' '; 64 << 10];

/// The place for it, found fit before the work begins.
#[derive(Debug)]
pub(super) enum ReportFile {
    Stdout,
    /// A pipe or a device. What it takes first is an empty line, which means nothing in JSON.
    Stream(&'static DocumentKind, File),
    /// A file, and the unfinished one that is to replace it.
    File(&'static DocumentKind, PathBuf, Mutex<Option<Output>>),
}

impl ReportFile {
    /// Finds out whether it can be written to `word`; better now than after an hour of work.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] where it cannot, or where there is something else; [`ErrorKind::NoSpace`] where
    /// there is no room for it.
    pub(super) fn open(word: &OsStr, kind: &'static DocumentKind) -> Result<Self> {
        if word == "-" {
            return Ok(ReportFile::Stdout);
        }
        ReportFile::open_path(word, kind).doing(|| format!("{} {}", kind.name, Quoted(word.as_bytes())))
    }

    fn open_path(word: &OsStr, kind: &'static DocumentKind) -> Result<Self> {
        // What a symbolic link points to is replaced, not the link.
        let path = std::fs::canonicalize(word).unwrap_or_else(|_| PathBuf::from(word));
        let DocumentKind { name, option, start } = kind;
        let refuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Output, why).hint(hint));
        let elsewhere = &format!("name a file in a directory that exists with {option}");
        match std::fs::metadata(&path) {
            Ok(data) if data.is_dir() => refuse("this is a directory", elsewhere),
            Ok(data) if !data.is_file() => {
                let mut stream = open_stream(&path)?;
                stream.write_all(b"\n").or_kind(ErrorKind::Output)?;
                Ok(ReportFile::Stream(kind, stream))
            }
            Ok(data) if data.len() > 0 && !begins_with(&path, start).or_kind(ErrorKind::Output)? => refuse(
                &format!("this is a file, and not a {name}"),
                &format!("remove it, or name another file with {option}"),
            ),
            Ok(_) => ReportFile::begin(path, kind),
            Err(_) if path.file_name().is_none() => refuse("this is not a file name", elsewhere),
            Err(_) if !directory_of(&path).is_dir() => refuse("its directory does not exist", elsewhere),
            Err(_) => ReportFile::begin(path, kind),
        }
    }

    fn begin(path: PathBuf, kind: &'static DocumentKind) -> Result<Self> {
        let output = Output::create(&path, true, report_mode())?;
        output.file().write_all_at(&ROOM, 0).or_kind(ErrorKind::Output)?;
        Ok(ReportFile::File(kind, path, Mutex::new(Some(output))))
    }

    /// Writes it, whole and durable, or leaves what was there.
    pub(super) fn write(&self, json: &[u8]) -> Result<()> {
        match self {
            ReportFile::Stdout => printer::data(json),
            ReportFile::Stream(kind, file) => {
                (&mut &*file).write_all(json).or_kind(ErrorKind::Output).doing(|| format!("writing the {}", kind.name))
            }
            ReportFile::File(kind, path, begun) => {
                let begun = begun.lock().unwrap_or_else(PoisonError::into_inner).take();
                let output = begun.map_or_else(|| Output::create(path, true, report_mode()), Ok);
                let published = output.and_then(|output| {
                    output.file().write_all_at(json, 0).or_kind(ErrorKind::Output)?;
                    output.file().set_len(json.len() as u64).or_kind(ErrorKind::Output)?;
                    output.publish()
                });
                published.doing(|| format!("writing the {}", kind.name))
            }
        }
    }
}

/// Permissions for whoever the umask lets read and write.
fn report_mode() -> u32 {
    0o666 & !crate::io::umask()
}

fn begins_with(path: &std::path::Path, expected: &[u8]) -> io::Result<bool> {
    let mut start = Vec::new();
    open_now(path)?.take(expected.len() as u64).read_to_end(&mut start)?;
    Ok(start == expected)
}
