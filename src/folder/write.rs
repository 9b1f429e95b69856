//! The tar of a folder that has been looked at.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::Folder;
use super::scan::{Entry, Kind, Stamp};
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{CHUNK_BYTES, Monitor, Phase};
use crate::model::{Metadata, Quoted, Timestamp};
use crate::tar::{BLOCK_BYTES, Member, MemberKind, end_of_archive, member_header, padding};

impl Folder {
    /// Writes the tar. Times later than `latest` (`SOURCE_DATE_EPOCH`, in seconds) become that.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when something cannot be read or is changed meanwhile; what `out` fails with.
    pub(crate) fn write(&self, out: &mut dyn Write, latest: Option<i64>, monitor: &Monitor) -> Result<()> {
        monitor.begin(Phase::Write, self.file_bytes());
        let mut header = Vec::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        for entry in &self.entries {
            monitor.check()?;
            header.clear();
            self.header(&mut header, entry, latest);
            out.write_all(&header).or_kind(ErrorKind::Output)?;
            if let Kind::File { size, .. } = entry.kind {
                self.contents(entry, size, out, &mut buffer, monitor)
                    .doing(|| format!("packing {}", Quoted(&entry.path)))?;
                let zeros = [0; BLOCK_BYTES as usize];
                out.write_all(&zeros[..padding(size) as usize]).or_kind(ErrorKind::Output)?;
            }
        }
        out.write_all(&end_of_archive()).or_kind(ErrorKind::Output)?;
        self.expect_unchanged()
    }

    fn header(&self, header: &mut Vec<u8>, entry: &Entry, latest: Option<i64>) {
        let path = written(&entry.path);
        let seconds = latest.map_or(entry.mtime_seconds, |latest| latest.min(entry.mtime_seconds));
        let target = match entry.kind {
            Kind::HardLink(first) => written(&self.entries[first].path),
            _ => Vec::new(),
        };
        let (kind, mode) = match &entry.kind {
            Kind::Directory => (MemberKind::Directory, 0o755),
            Kind::File { size, executable } => {
                (MemberKind::File { size: *size }, if *executable { 0o755 } else { 0o644 })
            }
            Kind::HardLink(first) => (MemberKind::HardLink(&target), self.mode_of(*first)),
            Kind::Symlink(target) => (MemberKind::Symlink(target), 0o777),
        };
        let metadata = Metadata::root_owned(mode, Timestamp::from_seconds(seconds));
        member_header(header, &Member { path: &path, kind, metadata: &metadata });
    }

    fn mode_of(&self, position: usize) -> u32 {
        match self.entries[position].kind {
            Kind::File { executable: true, .. } => 0o755,
            _ => 0o644,
        }
    }

    /// Copies a file that must be what it was when the folder was looked at, before and after.
    fn contents(
        &self,
        entry: &Entry,
        size: u64,
        out: &mut dyn Write,
        buffer: &mut [u8],
        monitor: &Monitor,
    ) -> Result<()> {
        let mut file = self.open_file(entry)?;
        let same = |file: &File| {
            file.metadata().or_kind(ErrorKind::SourceUnavailable).map(|data| Stamp::of(&data) == entry.stamp)
        };
        if !same(&file)? {
            return Err(changed());
        }
        let mut left = size;
        while left > 0 {
            monitor.check()?;
            let want = left.min(buffer.len() as u64) as usize;
            let count = file.read(&mut buffer[..want]).or_kind(ErrorKind::SourceUnavailable)?;
            if count == 0 {
                return Err(changed());
            }
            out.write_all(&buffer[..count]).or_kind(ErrorKind::Output)?;
            monitor.advance(count as u64);
            left -= count as u64;
        }
        if same(&file)? { Ok(()) } else { Err(changed()) }
    }

    fn open_file(&self, entry: &Entry) -> Result<File> {
        // Whatever may have been put in its place: no link is followed and no pipe is waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.place(entry), flags, Mode::empty());
        match opened {
            Ok(file) => Ok(File::from(file)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => Err(changed()),
            Err(error) => Err(Error::io(ErrorKind::SourceUnavailable, error.into())
                .hint("make all files of the folder readable, or take out what is not meant to be shared")),
        }
    }

    fn place(&self, entry: &Entry) -> PathBuf {
        self.root.join(OsStr::from_bytes(&entry.path))
    }

    /// Names may have come or gone while others were read.
    fn expect_unchanged(&self) -> Result<()> {
        for entry in self.entries.iter().filter(|entry| matches!(entry.kind, Kind::Directory | Kind::Symlink(_))) {
            let found =
                if entry.path.is_empty() { fs::metadata(&self.root) } else { fs::symlink_metadata(self.place(entry)) };
            if !found.is_ok_and(|data| Stamp::of(&data) == entry.stamp) {
                let name = if entry.path.is_empty() { &b"."[..] } else { &entry.path };
                return Err(changed()).doing(|| Quoted(name).to_string());
            }
        }
        Ok(())
    }
}

/// As tar names what it finds in `.`; the folder itself is written as `./` by its empty path.
fn written(path: &[u8]) -> Vec<u8> {
    if path.is_empty() { Vec::new() } else { [b"./", path].concat() }
}

fn changed() -> Error {
    Error::new(ErrorKind::SourceUnavailable, "it was changed while the folder was packed")
        .hint("run the same command again when nobody writes to the folder")
}
