//! A folder of files as one reproducible tar: what `tar -c -C FOLDER .` makes, without what differs from machine to machine.
//!
//! The idea to hold: the tar says what the files are, not how they came to be. Names are sorted bytewise; owners are 0:0;
//! modes are 0644, 0755 for what its owner may execute and for directories, whatever the umask was; files keep their time
//! of modification to the second, and a directory has that of the newest thing inside, for its own says only when it was
//! copied. The whole folder is looked at before the first byte is written: what a tar could not carry to another machine
//! is refused, everything at once, and what changes while it is read is an error.
//!
//! ```text
//! scan: names, kinds, times ──► links: where do they lead? ──► write: headers and contents, in order
//! ```
//!
//! This room knows neither compression nor where the tar goes.

mod leftovers;
mod links;
mod scan;
mod write;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::Monitor;
use crate::model::Note;
use scan::Entry;
pub(crate) use scan::Stamp;

/// How many names a folder may hold: as many as an image.
const ENTRIES_MAX: usize = 8 << 20;

/// A folder that has been looked at, every name of it.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    /// In the order of the tar, the folder itself first.
    entries: Vec<Entry>,
    notes: Vec<Note>,
}

impl Folder {
    /// Looks at all names of the folder at `path`, a symlink to one included.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when it is not there or cannot be read; [`ErrorKind::Usage`] when it is not a folder;
    /// [`ErrorKind::Unsupported`] naming what would not survive: sockets, pipes, devices, and links that leave the folder.
    pub(crate) fn open(path: &Path, monitor: &Monitor) -> Result<Self> {
        let (entries, mut notes) = scan::scan(path, monitor).doing(|| format!("reading folder {path:?}"))?;
        notes.extend(links::dangling(&entries));
        Ok(Folder { root: path.to_path_buf(), entries, notes })
    }

    /// Names in it, its own included.
    pub(crate) fn names(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Bytes of all its files.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.entries.iter().map(Entry::file_bytes).sum()
    }

    /// What was left out, or will not be as it was.
    pub(crate) fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// Whether a file at `path` would lie inside `folder`: then it would be packed, or change what is packed next time.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when the folder is not there.
pub(crate) fn is_inside(folder: &Path, path: &Path) -> Result<bool> {
    let folder = folder.canonicalize().or_kind(ErrorKind::SourceUnavailable).doing(|| format!("folder {folder:?}"))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A directory that is not there will be said so by whoever wants to write to it.
    Ok(directory.canonicalize().is_ok_and(|directory| directory.starts_with(folder)))
}
