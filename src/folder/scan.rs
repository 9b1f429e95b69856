//! Looks at every name of a folder, in the order in which they will be written.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::leftovers::is_leftover;
use super::{ENTRIES_MAX, links};
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{Monitor, Phase};
use crate::model::{Note, Quoted};

/// How many of what is refused are named.
const NAMED_MAX: usize = 10;
/// setuid, setgid and sticky.
const SPECIAL_BITS: u32 = 0o7000;

/// One name.
#[derive(Debug)]
pub(super) struct Entry {
    /// From the folder down, without a leading slash; empty for the folder.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Modification time in seconds since 1970; that of the newest thing inside for a directory that is not empty.
    pub(super) mtime_seconds: i64,
    /// What would be different if it had been changed.
    pub(super) stamp: Stamp,
    /// Position of the directory it is in; its own for the folder.
    parent: usize,
}

#[derive(Debug)]
pub(super) enum Kind {
    Directory,
    File {
        size: u64,
        executable: bool,
    },
    /// Another name of the file at this position.
    HardLink(usize),
    Symlink(Vec<u8>),
}

/// Tells a file that was written to, or exchanged, from one that was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    identity: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(data: &Metadata) -> Self {
        Stamp {
            identity: (data.dev(), data.ino()),
            size: data.size(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

impl Entry {
    pub(super) fn file_bytes(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }
}

/// All entries in order, and what was left out.
pub(super) fn scan(root: &Path, monitor: &Monitor) -> Result<(Vec<Entry>, Vec<Note>)> {
    monitor.begin(Phase::Open, 0);
    let data = fs::metadata(root).or_kind(ErrorKind::SourceUnavailable)?;
    if !data.is_dir() {
        return Err(
            Error::new(ErrorKind::Usage, "it is not a folder").hint("name the folder whose files are to be packed")
        );
    }
    let mut scan = Scan::new();
    scan.push(Vec::new(), Kind::Directory, &data, 0);
    scan.walk(root, monitor)?;
    scan.finish()
}

struct Scan {
    entries: Vec<Entry>,
    /// Positions of files that have several names, by device and inode.
    first_names: BTreeMap<(u64, u64), usize>,
    refused: Vec<String>,
    refused_count: u64,
    leftovers: Note,
    special_bits: Note,
}

/// A directory whose names are being gone through.
struct Level {
    position: usize,
    names: std::vec::IntoIter<OsString>,
}

impl Scan {
    fn new() -> Self {
        let leftovers = "files and folders that macOS leaves behind were left out";
        let special = "setuid, setgid and sticky bits were left out";
        Scan {
            entries: Vec::new(),
            first_names: BTreeMap::new(),
            refused: Vec::new(),
            refused_count: 0,
            leftovers: Note::new("macos-leftovers-dropped", leftovers, 0),
            special_bits: Note::new("special-bits-dropped", special, 0),
        }
    }

    fn push(&mut self, path: Vec<u8>, kind: Kind, data: &Metadata, parent: usize) {
        self.entries.push(Entry { path, kind, mtime_seconds: data.mtime(), stamp: Stamp::of(data), parent });
    }

    fn walk(&mut self, root: &Path, monitor: &Monitor) -> Result<()> {
        let mut levels = vec![Level { position: 0, names: names_of(root, b"")? }];
        while let Some(level) = levels.last_mut() {
            monitor.check()?;
            let parent = level.position;
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            if self.entries.len() >= ENTRIES_MAX {
                let message = format!("it holds more than {ENTRIES_MAX} files and folders");
                return Err(Error::new(ErrorKind::Unsupported, message).hint("pack parts of it on their own"));
            }
            if let Some(position) = self.look(root, parent, name.as_bytes())? {
                levels.push(Level { position, names: names_of(root, &self.entries[position].path)? });
            }
        }
        Ok(())
    }

    /// Takes one name; its position where it is a directory.
    fn look(&mut self, root: &Path, parent: usize, name: &[u8]) -> Result<Option<usize>> {
        let above = &self.entries[parent].path;
        let path = if above.is_empty() { name.to_vec() } else { [above, &b"/"[..], name].concat() };
        let place = root.join(OsStr::from_bytes(&path));
        let data =
            fs::symlink_metadata(&place).or_kind(ErrorKind::SourceUnavailable).doing(|| Quoted(&path).to_string())?;
        let position = self.entries.len();
        let kind = match data.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_file() => self.file(&data),
            kind if kind.is_symlink() => {
                let target = fs::read_link(&place).or_kind(ErrorKind::SourceUnavailable);
                Kind::Symlink(target.doing(|| Quoted(&path).to_string())?.into_os_string().into_vec())
            }
            kind => {
                self.refuse(format!("{} {}", describe(kind), Quoted(&path)));
                return Ok(None);
            }
        };
        if is_leftover(name, &kind) {
            self.leftovers.count += 1;
            self.leftovers.example(Quoted(&path));
            return Ok(None);
        }
        if data.mode() & SPECIAL_BITS != 0 && !data.is_symlink() {
            self.special_bits.count += 1;
            self.special_bits.example(Quoted(&path));
        }
        if let (Kind::File { .. }, true) = (&kind, data.nlink() > 1) {
            self.first_names.insert((data.dev(), data.ino()), position);
        }
        let is_directory = data.is_dir();
        self.push(path, kind, &data, parent);
        Ok(is_directory.then_some(position))
    }

    fn file(&self, data: &Metadata) -> Kind {
        match self.first_names.get(&(data.dev(), data.ino())) {
            Some(&first) => Kind::HardLink(first),
            None => Kind::File { size: data.size(), executable: data.mode() & 0o100 != 0 },
        }
    }

    fn refuse(&mut self, what: String) {
        self.refused_count += 1;
        if self.refused.len() < NAMED_MAX {
            self.refused.push(what);
        }
    }

    fn finish(mut self) -> Result<(Vec<Entry>, Vec<Note>)> {
        for what in links::that_leave(&self.entries) {
            self.refuse(what);
        }
        if self.refused_count > 0 {
            let more = self.refused_count - self.refused.len() as u64;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!("it holds what would not survive: {}{more}", self.refused.join(", "));
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("take them out of the folder; replace links that leave it by what they lead to"));
        }
        self.date_directories();
        let mut notes = vec![self.leftovers, self.special_bits];
        notes.retain(|note| note.count > 0);
        if self.entries.len() == 1 {
            notes.push(Note::new("empty-folder", "the folder holds no files", 1));
        }
        Ok((self.entries, notes))
    }

    /// A directory's own time says when names were last put into it: another one after each copy. What is in it has
    /// times that copies keep.
    fn date_directories(&mut self) {
        let mut newest: Vec<Option<i64>> = vec![None; self.entries.len()];
        for position in (1..self.entries.len()).rev() {
            let entry = &mut self.entries[position];
            entry.mtime_seconds = newest[position].unwrap_or(entry.mtime_seconds);
            let (time, parent) = (Some(entry.mtime_seconds), entry.parent);
            newest[parent] = newest[parent].max(time);
        }
        let folder = &mut self.entries[0];
        folder.mtime_seconds = newest[0].unwrap_or(folder.mtime_seconds);
    }
}

/// The names in a directory, bytewise.
fn names_of(root: &Path, path: &[u8]) -> Result<std::vec::IntoIter<OsString>> {
    let doing = || Quoted(if path.is_empty() { b"." } else { path }).to_string();
    let read = fs::read_dir(root.join(OsStr::from_bytes(path)));
    let names = read.and_then(|names| names.map(|each| each.map(|each| each.file_name())).collect());
    let mut names: Vec<OsString> = names.or_kind(ErrorKind::SourceUnavailable).doing(doing)?;
    names.sort_unstable();
    Ok(names.into_iter())
}

fn describe(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_socket() => "socket",
        kind if kind.is_fifo() => "named pipe",
        _ => "device",
    }
}
