use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::veil::Veil;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

/// A stretch of an open file that many threads may read at once. The file is read with `pread`, never mapped: a file that
/// is truncated under us is an error then, not a SIGBUS.
#[derive(Debug, Clone)]
pub struct Region {
    /// The file.
    pub file: Arc<File>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// What its bytes are encrypted with, where they are not to be read on a disk.
    pub veil: Option<Veil>,
}

impl Region {
    /// The whole file at `path` as it is now. A named pipe is refused, never waited for.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when it cannot be opened, or is a directory, a pipe or a device.
    pub fn open(path: &Path) -> Result<Self> {
        // Looked at before it is opened: opening a named pipe would wait for a writer.
        let kind = path.metadata().or_kind(ErrorKind::SourceUnavailable)?.file_type();
        if !kind.is_file() {
            let what = if kind.is_dir() { "a directory" } else { "a pipe, a socket or a device" };
            return Err(Error::new(ErrorKind::SourceUnavailable, format!("this is {what}, not a file")).at(path));
        }
        let file = File::open(path).or_kind(ErrorKind::SourceUnavailable)?;
        Region::whole(Arc::new(file)).or_kind(ErrorKind::SourceUnavailable)
    }

    /// The whole file as it is now.
    ///
    /// # Errors
    /// When its size cannot be read.
    pub fn whole(file: Arc<File>) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Region { file, offset: 0, len, veil: None })
    }

    /// The part `[offset, offset + len)` of this region; `None` where it does not lie inside.
    pub fn slice(&self, offset: u64, len: u64) -> Option<Region> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Region { offset: self.offset + offset, len, ..self.clone() })
    }

    /// Reads up to `buffer.len()` bytes from `at` on; fewer only at the end of the region.
    ///
    /// # Errors
    /// As `pread`; [`io::ErrorKind::UnexpectedEof`] when the file became shorter than the region.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let left = self.len.saturating_sub(at);
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        self.file.read_exact_at(&mut buffer[..want], self.offset + at)?;
        if let Some(veil) = &self.veil {
            veil.apply(&mut buffer[..want], self.offset + at);
        }
        Ok(want)
    }

    /// A sequential reader over the region.
    pub fn reader(&self) -> RegionReader {
        RegionReader { region: self.clone(), position: 0 }
    }
}

/// Reads a [`Region`] from its start to its end.
#[derive(Debug)]
pub struct RegionReader {
    region: Region,
    position: u64,
}

impl RegionReader {
    /// Where the next byte comes from, relative to the region.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes are left to read.
    pub fn remaining(&self) -> u64 {
        self.region.len.saturating_sub(self.position)
    }

    /// Moves forward without reading. Past the end, reads find nothing.
    pub fn skip(&mut self, bytes: u64) {
        self.position = self.position.saturating_add(bytes);
    }
}

impl Read for RegionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.region.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
