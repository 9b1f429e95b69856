//! What is kept of an archive that comes as a stream: unlinked files, which vanish with the last handle, whatever happens to
//! us.

use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::members::{Contents, Members};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::{CHUNK_BYTES, Monitor, Region, unnamed_file};
use crate::model::Quoted;
use crate::tar::{Entries, EntryKind, Sequential};

/// Smaller members are no layers that are worth a file of their own.
const OWN_BYTES_MIN: u64 = 1 << 20;
/// How many members may have files of their own, which stay open: above the layers of any image, below what a process may
/// have open.
const OWN_FILES_MAX: usize = 256;

/// Copies a stream to one file in `tmpdir`.
pub(super) fn all(mut stream: impl Read, at_least: Option<u64>, tmpdir: &Path, monitor: &Monitor) -> Result<Region> {
    let mut common = Common::create(tmpdir, at_least)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        monitor.check()?;
        match stream.read(&mut chunk) {
            Ok(0) => return Region::whole(common.file).or_kind(ErrorKind::Other),
            Ok(count) => common.append(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(ErrorKind::InvalidImage, error)),
        }
    }
}

/// The members of a tar that comes as a stream. The large ones are put into files of their own on the file system of
/// `adopting`, so that the layers among them can become a part of an output there as they are; all others share one in `tmpdir`.
pub(super) fn members(
    mut stream: impl Read,
    at_least: Option<u64>,
    tmpdir: &Path,
    adopting: &Path,
    monitor: &Monitor,
) -> Result<Members> {
    let mut entries = Entries::new(Sequential(BufReader::with_capacity(CHUNK_BYTES, &mut stream)));
    let mut members = Members::default();
    let mut common = Common::create(tmpdir, None)?;
    let mut own_files = 0;
    while let Some(entry) = entries.next_entry()? {
        monitor.check()?;
        let large = entry.kind == EntryKind::File && entry.stored_bytes >= OWN_BYTES_MIN;
        let own = if large && own_files < OWN_FILES_MAX { unnamed_file(adopting) } else { None };
        let contents = match own {
            Some(file) => {
                if own_files == 0 {
                    has_room(&file, at_least).map_err(|error| no_space(error, adopting, "-o"))?;
                }
                own_files += 1;
                let mut writer = &file;
                let taken = entries.for_each_piece(|bytes| writer.write_all(bytes));
                taken.map_err(|error| no_space(error, adopting, "-o"))?;
                Contents::Own(Region::whole(Arc::new(file)).or_kind(ErrorKind::Other)?)
            }
            None => {
                let offset = common.bytes;
                entries.for_each_piece(|bytes| common.append(bytes).map_err(Error::into_io))?;
                Contents::Region(Region { file: Arc::clone(&common.file), offset, len: entry.stored_bytes })
            }
        };
        members.insert(&entry, contents)?;
    }
    // What compressed it has checksums at the end.
    io::copy(&mut stream, &mut io::sink()).or_kind(ErrorKind::InvalidImage)?;
    Ok(members)
}

/// A file that is appended to.
struct Common<'a> {
    directory: &'a Path,
    file: Arc<File>,
    bytes: u64,
}

impl<'a> Common<'a> {
    fn create(directory: &'a Path, at_least: Option<u64>) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).or_kind(ErrorKind::Output);
        let created = file.and_then(|file| has_room(&file, at_least).map(|()| file));
        let file = Arc::new(created.map_err(|error| no_space(error, directory, "--tmpdir"))?);
        Ok(Common { directory, file, bytes: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, self.bytes).or_kind(ErrorKind::Output);
        written.map_err(|error| no_space(error, self.directory, "--tmpdir"))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn no_space(error: Error, directory: &Path, option: &str) -> Error {
    let directory = Quoted(directory.as_os_str().as_encoded_bytes()).to_string();
    error
        .doing(format!("unpacking the archive to a temporary file in {directory}"))
        .hint(format!("free some space there or name another directory with {option}"))
}

/// What can be known before anything is written: whether the least that will be needed is there.
fn has_room(file: &File, at_least: Option<u64>) -> Result<()> {
    let Some(needed) = at_least else { return Ok(()) };
    let about = rustix::fs::fstatvfs(file).map_err(io::Error::from).or_kind(ErrorKind::Output)?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    if free < needed {
        let message = format!("{needed} bytes are needed at least, {free} are free");
        return Err(Error::new(ErrorKind::NoSpace, message));
    }
    Ok(())
}
