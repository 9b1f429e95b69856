use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};

use super::leftover::sweep;
use super::scratch::{Base, Scratch, sync_directory};
use super::system::unnamed;
use crate::error::{Error, ErrorKind, IoResultExt, Remedy, Result, ResultExt};

/// An output file that appears under its name complete, or not at all: a [`Scratch`] that knows which name it is to get, and
/// whether it may take the place of what has that name.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    scratch: Scratch,
    replace: bool,
}

/// What to do where nothing can be created at `path`.
pub(crate) fn writable(path: &Path) -> Remedy {
    let directory = directory_of(path);
    if directory.exists() { Remedy::WritableOutput } else { Remedy::CreateDirectory(directory.to_path_buf()) }
}

/// Refuses what cannot be a name. It would be found out when all is written: until then an output has none, or a hidden one.
///
/// # Errors
/// [`ErrorKind::Output`] for a name that is too long, empty, or holds a NUL.
pub(crate) fn expect_name(path: &Path) -> Result<()> {
    let error = match fs::symlink_metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidFilename | io::ErrorKind::InvalidInput) => {
            Error::io(ErrorKind::Output, error)
        }
        Err(_) if path.as_os_str().is_empty() => Error::new(ErrorKind::Output, "the name is empty"),
        _ => return Ok(()),
    };
    Err(error.with_remedy(Remedy::OutputName).at(path))
}

impl Output {
    /// Begins an output at `path` with the permission bits `mode`.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when `path` exists and `replace` is off, or its directory cannot be written.
    pub(crate) fn create(path: &Path, replace: bool, mode: u32) -> Result<Self> {
        let doing = || format!("creating output {path:?}");
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(Error::new(ErrorKind::Output, "it is a directory")
                    .with_remedy(Remedy::OutputFile)
                    .at(path))
                .doing(doing);
            }
            Ok(_) if !replace => return Err(exists(path)),
            _ => {}
        }
        expect_name(path).doing(doing)?;
        let scratch = Scratch::beside(Base::default(), path, mode)
            .or_kind(ErrorKind::Output)
            .doing(doing)
            .map_err(|error| error.with_remedy(writable(path)).at(path))?;
        // Also what was killed in the instant in which it replaced something.
        sweep(&Base::default(), directory_of(path), scratch.file());
        Ok(Output { path: path.to_path_buf(), scratch, replace })
    }

    /// The file to be written; readable too.
    pub(crate) fn file(&self) -> &Arc<File> {
        self.scratch.file()
    }

    /// The name it will have.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails, or when somebody else made a file of that name meanwhile and it is not to be
    /// replaced.
    pub(crate) fn publish(self) -> Result<()> {
        let Output { path, scratch, replace } = self;
        let published = name(scratch, &path, replace).doing(|| format!("finishing output {path:?}"));
        published.map_err(|error| error.at(&path))
    }
}

fn name(mut scratch: Scratch, path: &Path, replace: bool) -> Result<()> {
    scratch.sync()?;
    if replace {
        scratch.move_to(path)?;
    } else if !scratch.place_at(path)? {
        return Err(exists(path));
    }
    scratch.keep();
    sync_directory(directory_of(path));
    Ok(())
}

/// Whether `path` is something that is written to rather than replaced: a pipe, a terminal, `/dev/null`.
pub(crate) fn is_stream(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let kind = found.file_type();
        kind.is_fifo() || kind.is_char_device()
    })
}

/// How long a named pipe is waited for that nobody reads.
const READER_PATIENCE: Duration = Duration::from_secs(30);
const READER_LOOK: Duration = Duration::from_millis(20);

/// Opens what [is a stream](is_stream) for writing. A named pipe that nobody reads is waited for, but not for ever.
///
/// # Errors
/// [`ErrorKind::Output`] when it cannot be opened, or nobody reads it.
pub(crate) fn open_stream(path: &Path) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mut waited = Duration::ZERO;
    let file = loop {
        match rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => break File::from(file),
            Err(rustix::io::Errno::NXIO) if waited < READER_PATIENCE => {
                std::thread::sleep(READER_LOOK);
                waited += READER_LOOK;
            }
            Err(rustix::io::Errno::NXIO) => {
                let message = format!("nobody has opened the named pipe {path:?} for reading in 30 seconds");
                return Err(Error::new(ErrorKind::Output, message).hint("start what reads it first"));
            }
            Err(error) => {
                return Err(Error::io(ErrorKind::Output, error.into()).doing(format!("opening output {path:?}")));
            }
        }
    };
    // Whoever writes to it waits for room as usual.
    rustix::fs::fcntl_setfl(&file, OFlags::empty()).map_err(io::Error::from).or_kind(ErrorKind::Output)?;
    Ok(file)
}

/// Opens a file or a pipe for reading, at once: a named pipe that nobody writes to is empty.
///
/// # Errors
/// As `open`.
#[cfg(feature = "program")]
pub(crate) fn open_now(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

/// Bytes an ordinary user may still write to the file system that holds `file`; `None` where it does not say.
pub(crate) fn free_bytes(file: impl AsFd) -> Option<u64> {
    let found = rustix::fs::fstatvfs(file).ok()?;
    // A file system that reports no blocks at all keeps no such count.
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::Output, format!("output {path:?} exists already")).with_remedy(Remedy::Replace).at(path)
}

/// Permission bits that new files of this process do not get.
#[allow(clippy::useless_conversion, reason = "macOS has 16 bits here")]
pub(crate) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let said = status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
    // Without /proc it can only be read by setting it.
    said.unwrap_or_else(|| {
        let mask = rustix::process::umask(Mode::empty());
        rustix::process::umask(mask);
        mask.bits().into()
    })
}

/// The directory that holds `path`.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A file without a name in `directory`, for its owner only, which can be given one on that file system; `None` where that
/// is not to be had.
pub(crate) fn unnamed_file(directory: &Path) -> Option<File> {
    unnamed(CWD, directory, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, PermissionsExt as _};

    #[test]
    fn appears_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        let begin = |replace| Output::create(&path, replace, 0o640);
        drop(begin(false).unwrap());
        assert_eq!(names(), 0);

        let (first, late) = (begin(false).unwrap(), begin(false).unwrap());
        first.file().write_all_at(b"one", 0).unwrap();
        assert!(!path.exists());
        first.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(late.publish().unwrap_err().kind(), ErrorKind::Output);
        assert_eq!(begin(false).unwrap_err().kind(), ErrorKind::Output);

        // What can be no name is refused before anything is written.
        for name in ["x".repeat(256), "x\0y".to_string(), String::new(), "..".to_string()] {
            let error = Output::create(&directory.path().join(&name), false, 0o640).map(drop).unwrap_err();
            assert!(error.kind() == ErrorKind::Output && error.remedy().is_some(), "{name:?}: {error}");
        }
        assert_eq!(Output::create(Path::new(""), false, 0o640).map(drop).unwrap_err().kind(), ErrorKind::Output);

        let replacement = begin(true).unwrap();
        replacement.file().write_all_at(b"two", 0).unwrap();
        replacement.publish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"two".to_vec(), 1));
    }
}
