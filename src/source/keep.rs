//! What is kept of an archive that comes as a stream: unlinked files, which vanish with the last handle, whatever happens to
//! us.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::OpenOptions;
use super::members::{Contents, Members};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result};
use crate::io::{CHUNK_BYTES, Monitor, Region, Veil, free_bytes, read_error, unnamed_file};
use crate::model::Quoted;
use crate::tar::{Entries, EntryKind, Sequential};

/// Smaller members are not layers that are worth a file of their own.
const OWN_BYTES_MIN: u64 = 1 << 20;
/// How many members may have files of their own, which stay open: above the layers of any image, below what a process may
/// have open.
const OWN_FILES_MAX: usize = 256;

/// How many bytes after its end marker a tar may have that is kept in one piece: writers fill up records, of 10 KiB usually.
const PADDING_BYTES_MAX: u64 = 64 << 20;

/// Copies a tar that comes as a stream to one file in `tmpdir`, up to its end marker: what follows takes no room, however
/// much it is. In `one_piece`, because the tar itself is wanted, what follows is kept too, and must have an end.
pub(super) fn all(
    mut stream: impl Read,
    at_least: Option<u64>,
    one_piece: bool,
    options: &OpenOptions,
    monitor: &Monitor,
) -> Result<Region> {
    let mut common = Unlinked::temporary(options, at_least)?;
    let mut keeping = Keeping { stream: &mut stream, common: &mut common };
    let mut entries = Entries::new(Sequential(BufReader::with_capacity(CHUNK_BYTES, &mut keeping)));
    while entries.next_entry()?.is_some() {
        monitor.check()?;
    }
    if one_piece {
        let after = io::copy(&mut keeping.take(PADDING_BYTES_MAX + 1), &mut io::sink()).map_err(read_error)?;
        if after > PADDING_BYTES_MAX {
            let message = format!("more than {PADDING_BYTES_MAX} bytes follow the end marker of the tar");
            return Err(Error::new(ErrorKind::InvalidImage, message));
        }
    }
    // What compressed it has checksums at the end.
    io::copy(&mut stream, &mut io::sink()).or_kind(ErrorKind::InvalidImage)?;
    common.into_region()
}

/// Keeps what is read of a stream.
struct Keeping<'a, 'd, R> {
    stream: R,
    common: &'a mut Unlinked<'d>,
}

impl<R: Read> Read for Keeping<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        // An error in writing must not be taken for damage of what is read.
        self.common.append(&buffer[..count]).map_err(Error::into_io)?;
        Ok(count)
    }
}

/// The members of a tar that comes as a stream. The large ones are put into files of their own on the file system of
/// `adopting`, so that the layers among them can become a part of an output there as they are; all others share one in `tmpdir`.
pub(super) fn members(
    mut stream: impl Read,
    at_least: Option<u64>,
    options: &OpenOptions,
    adopting: &Path,
    monitor: &Monitor,
) -> Result<Members> {
    let mut entries = Entries::new(Sequential(BufReader::with_capacity(CHUNK_BYTES, &mut stream)));
    let mut members = Members::default();
    let mut common = Unlinked::temporary(options, None)?;
    let mut own_files = 0;
    while let Some(entry) = entries.next_entry()? {
        monitor.check()?;
        let large = entry.kind == EntryKind::File && entry.stored_bytes >= OWN_BYTES_MIN;
        let may_adopt = large && own_files < OWN_FILES_MAX && common.veil.is_none();
        let own = if may_adopt { unnamed_file(adopting) } else { None };
        let contents = match own {
            Some(file) => {
                let at_least = at_least.filter(|_| own_files == 0);
                own_files += 1;
                let mut own = Unlinked::new(file, adopting, Remedy::RoomierOutput, at_least)?;
                entries.for_each_piece(|bytes| own.append(bytes).map_err(Error::into_io))?;
                Contents::Own(own.into_region()?)
            }
            None => {
                let offset = common.bytes;
                entries.for_each_piece(|bytes| common.append(bytes).map_err(Error::into_io))?;
                let (file, veil) = (Arc::clone(&common.file), common.veil.clone());
                Contents::Region(Region { file, offset, len: entry.stored_bytes, veil })
            }
        };
        members.insert(&entry, contents)?;
    }
    // What compressed it has checksums at the end.
    io::copy(&mut stream, &mut io::sink()).or_kind(ErrorKind::InvalidImage)?;
    Ok(members)
}

/// A file without a name that is appended to.
struct Unlinked<'a> {
    directory: &'a Path,
    /// What helps where it is full.
    remedy: Remedy,
    file: Arc<File>,
    bytes: u64,
    veil: Option<Veil>,
    /// What is encrypted before it is written.
    scratch: Vec<u8>,
}

impl<'a> Unlinked<'a> {
    fn temporary(options: &'a OpenOptions, at_least: Option<u64>) -> Result<Self> {
        let tmpdir = &options.tmpdir;
        let file = tempfile::tempfile_in(tmpdir).or_kind(ErrorKind::Output);
        let remedy = match file.as_ref().map_err(Error::kind) {
            Err(kind) if kind != ErrorKind::NoSpace => Remedy::OtherTmpdir,
            _ => Remedy::RoomThere,
        };
        let file = file.map_err(|error| explained(error, tmpdir, remedy))?;
        let veil = if options.private_temporaries { Some(Veil::new()?) } else { None };
        Ok(Unlinked { veil, ..Self::new(file, tmpdir, Remedy::RoomThere, at_least)? })
    }

    fn into_region(self) -> Result<Region> {
        Ok(Region { veil: self.veil, ..Region::whole(self.file).or_kind(ErrorKind::Other)? })
    }

    /// Looks whether there is room for the least that will be needed, where that is known.
    fn new(file: File, directory: &'a Path, remedy: Remedy, at_least: Option<u64>) -> Result<Self> {
        if let (Some(needed), Some(free)) = (at_least, free_bytes(&file))
            && free < needed
        {
            let message = format!("{needed} bytes are needed at least, {free} are free");
            return Err(explained(Error::new(ErrorKind::NoSpace, message), directory, remedy));
        }
        Ok(Unlinked { directory, remedy, file: Arc::new(file), bytes: 0, veil: None, scratch: Vec::new() })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let stored = match &self.veil {
            None => bytes,
            Some(veil) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(bytes);
                veil.apply(&mut self.scratch, self.bytes);
                &self.scratch
            }
        };
        let written = self.file.write_all_at(stored, self.bytes).or_kind(ErrorKind::Output);
        written.map_err(|error| explained(error, self.directory, self.remedy.clone()))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Says what could not be written, and what helps.
fn explained(error: Error, directory: &Path, remedy: Remedy) -> Error {
    let directory = Quoted(directory.as_os_str().as_encoded_bytes()).to_string();
    error.doing(format!("unpacking the archive to a temporary file in {directory}")).with_remedy(remedy)
}
