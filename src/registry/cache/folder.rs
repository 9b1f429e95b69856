use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, Stat, fstat, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::io::system;

/// A directory that others may write to, held open: whatever they put in the place of a name in it, nothing outside of it is
/// opened, made or removed, and nothing that is not a regular file is read.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    /// For messages.
    path: PathBuf,
    /// Whose the cache is.
    owner: u32,
}

impl Folder {
    /// The directory that somebody named. Links in that name are theirs.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        let fd = openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let owner = fstat(&fd)?.st_uid;
        Ok(Folder { fd, path: path.to_path_buf(), owner })
    }

    /// A directory in it, which must belong to us, to root or to the owner of the cache.
    pub(super) fn folder(&self, name: &str) -> io::Result<Folder> {
        let fd = self.open_beneath(name, OFlags::DIRECTORY | OFlags::RDONLY, 0)?;
        let owner = fstat(&fd)?.st_uid;
        let trusted = [0, self.owner, rustix::process::geteuid().as_raw()];
        if !trusted.contains(&owner) {
            let message = format!("{name:?} belongs to user {owner}, to whom the cache does not belong");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Folder { fd, path: self.path.join(name), owner: self.owner })
    }

    /// The same, made where it is not there.
    pub(super) fn make(&self, name: &str) -> io::Result<Folder> {
        match mkdirat(&self.fd, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => self.folder(name),
            Err(error) => Err(error.into()),
        }
    }

    /// A regular file in it. The access time of what is planted there does not change: nothing else is opened for good.
    pub(super) fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let file = File::from(self.open_beneath(name, flags | OFlags::NONBLOCK | OFlags::NOCTTY, 0o666)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }

    /// Names have no slashes: where the kernel cannot look after that, following no link is as good.
    fn open_beneath(&self, name: &str, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(if flags.contains(OFlags::CREATE) { mode as RawMode } else { 0 });
        system::open_beneath(&self.fd, name, flags, mode)
    }

    /// A file without a name, where the file system has such and names can be given later.
    pub(super) fn unnamed(&self) -> Option<File> {
        system::unnamed(&self.fd, Path::new("."), 0o666)
    }

    /// Gives a file without a name a name.
    pub(super) fn link(&self, file: &File, name: &str) -> io::Result<()> {
        system::link(file, &self.fd, Path::new(name))
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Removes a name, not what it leads to. One that is gone is as good as removed.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The regular files in it whose names are UTF-8: all that we make have such names.
    pub(super) fn files(&self) -> io::Result<Vec<(String, Stat)>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(data) if FileType::from_raw_mode(data.st_mode) == FileType::RegularFile => {
                    found.push((name.to_string(), data));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Where a name in it is, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// How long ago a file was used or written; absent where its time lies ahead.
pub(super) fn age(data: &Stat) -> Option<Duration> {
    let seconds = u64::try_from(data.st_mtime).ok()?;
    let written = UNIX_EPOCH + Duration::from_secs(seconds);
    written.elapsed().ok()
}

/// Whether a file has no name but the one in the cache.
pub(super) fn has_one_name(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.nlink() == 1)
}

/// Makes a directory with all that leads to it.
pub(super) fn make_root(path: &Path) -> io::Result<Folder> {
    fs::create_dir_all(path)?;
    Folder::open(path)
}
