use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
#[cfg(feature = "network")]
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode, Stat, Timestamps, UTIME_NOW, fchmod, fstat, futimens, mkdirat,
    openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::output::umask;
use super::scratch::{Base, Scratch};
use super::system;

/// What says that a directory is a cache of this program, also to backup programs (bford.info/cachedir).
pub(crate) const TAG: (&str, &str) = (
    "CACHEDIR.TAG",
    "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of blobs made by sif-convert: convert cache prune empties it.\n",
);
/// An unfinished file that nobody has written to for so long is nobody's.
pub(crate) const ABANDONED: Duration = Duration::from_secs(3600);

/// A directory that others may write to, held open: whatever they put in the place of a name in it, nothing outside of it is
/// opened, made or removed, and nothing that is not a regular file is read.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: Arc<OwnedFd>,
    /// For messages.
    path: PathBuf,
    /// Whose the cache is.
    owner: u32,
}

impl Folder {
    /// The directory that somebody named. Links in that name are theirs.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let fd = openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let owner = fstat(&fd)?.st_uid;
        Ok(Folder { fd: Arc::new(fd), path: path.to_path_buf(), owner })
    }

    /// A directory in it, which must belong to us, to root, to the owner of the cache, or to somebody who could make it here:
    /// what is in it is as good as what they may put into this one.
    pub(crate) fn folder(&self, name: &str) -> io::Result<Folder> {
        let fd = self.open_beneath(name, OFlags::DIRECTORY | OFlags::RDONLY, 0)?;
        let (owner, this) = (fstat(&fd)?.st_uid, fstat(&self.fd)?);
        let trusted = [0, self.owner, this.st_uid, rustix::process::geteuid().as_raw()];
        if !trusted.contains(&owner) && this.st_mode & 0o022 == 0 {
            let message = format!("{name:?} belongs to user {owner}, to whom the cache does not belong");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Folder { fd: Arc::new(fd), path: self.path.join(name), owner: self.owner })
    }

    /// A directory in it that belongs to `owner`, and to which nobody else may write: what is in it is the owner's.
    pub(crate) fn private_folder(&self, name: &str, owner: u32) -> io::Result<Folder> {
        let fd = self.open_beneath(name, OFlags::DIRECTORY | OFlags::RDONLY, 0)?;
        expect_private(&fstat(&fd)?, owner, name)?;
        Ok(Folder { fd: Arc::new(fd), path: self.path.join(name), owner })
    }

    /// The same, made where it is not there. It is then ours.
    pub(crate) fn make_private(&self, name: &str) -> io::Result<Folder> {
        let user = rustix::process::geteuid().as_raw();
        match mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let made = self.private_folder(name, user)?;
                fchmod(&made.fd, Mode::from_raw_mode(self.shared(0o755)? as RawMode))?;
                Ok(made)
            }
            Err(Errno::EXIST) => self.private_folder(name, user),
            Err(error) => Err(error.into()),
        }
    }

    /// A regular file in it that belongs to `owner`, and to which nobody else may write; for reading.
    pub(crate) fn private_file(&self, name: &str, owner: u32) -> io::Result<File> {
        let file = self.file(name, OFlags::RDONLY)?;
        expect_private(&fstat(&file)?, owner, name)?;
        Ok(file)
    }

    /// A directory in it, whoever owns it.
    pub(crate) fn any_folder(&self, name: &str) -> io::Result<Folder> {
        let fd = self.open_beneath(name, OFlags::DIRECTORY | OFlags::RDONLY, 0)?;
        Ok(Folder { fd: Arc::new(fd), path: self.path.join(name), owner: self.owner })
    }

    /// The same, made where it is not there: whoever may write to this one may write to it.
    pub(crate) fn make_like(&self, name: &str) -> io::Result<Folder> {
        match mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let made = self.any_folder(name)?;
                let mode = fstat(&self.fd)?.st_mode & 0o7777;
                fchmod(&made.fd, Mode::from_raw_mode(mode as RawMode))?;
                Ok(made)
            }
            Err(Errno::EXIST) => self.any_folder(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether it belongs to one of these accounts, and nobody else may write to it.
    pub(crate) fn is_private_to(&self, accounts: &[u32]) -> bool {
        fstat(&self.fd).is_ok_and(|data| accounts.contains(&data.st_uid) && data.st_mode & 0o022 == 0)
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        for entry in Dir::read_from(&self.fd)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says that it is a cache. Whatever has the name of the tag already stays as it is: only those ask what it says who remove
    /// something.
    pub(crate) fn tag(&self) -> io::Result<()> {
        if self.has(TAG.0) {
            return Ok(());
        }
        // Where nothing can be written there, nothing needs the tag.
        let Ok(mut tag) = self.scratch(TAG.0, 0o666) else { return Ok(()) };
        tag.file().as_ref().write_all(TAG.1.as_bytes())?;
        if tag.place(Path::new(TAG.0))? {
            tag.keep();
        }
        Ok(())
    }

    /// The number of its inode, which a directory keeps when it is moved.
    pub(crate) fn inode(&self) -> io::Result<u64> {
        Ok(fstat(&self.fd)?.st_ino)
    }

    /// The names of directories in it.
    pub(crate) fn folders(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let is_folder = |data: Stat| FileType::from_raw_mode(data.st_mode) == FileType::Directory;
            if !name.starts_with('.') && statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(is_folder) {
                found.push(name.to_string());
            }
        }
        found.sort();
        Ok(found)
    }

    /// What [`Folder::folder`] opens, made as [`Folder::make_like`] does where it is not there.
    #[cfg(feature = "network")]
    pub(crate) fn make(&self, name: &str) -> io::Result<Folder> {
        drop(self.make_like(name)?);
        self.folder(name)
    }

    /// How many bytes there is room for; absent where that is unknown.
    #[cfg(feature = "network")]
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        super::output::free_bytes(&self.fd)
    }

    /// Fails where no file can be made in it.
    #[cfg(feature = "network")]
    pub(crate) fn expect_writable(&self) -> io::Result<()> {
        self.scratch("probe", 0o600).map(drop)
    }

    /// A regular file in it. The access time of what is planted there does not change: nothing else is opened for good.
    pub(crate) fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let file = File::from(self.open_beneath(name, flags | OFlags::NONBLOCK | OFlags::NOCTTY, 0o666)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
    }

    /// Names have no slashes: where the kernel cannot look after that, following no link is as good.
    fn open_beneath(&self, name: &str, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(if flags.contains(OFlags::CREATE) { mode as RawMode } else { 0 });
        system::open_beneath(&self.fd, name, flags, mode)
    }

    /// A new file that gets a name in it when it is finished. Everybody who can read the folder can read the file, as far as `mode`
    /// lets them: the umask only takes bits that let others write.
    pub(crate) fn scratch(&self, stem: &str, mode: u32) -> io::Result<Scratch> {
        let mode = self.shared(mode)?;
        let made = Scratch::beside(self.base(), Path::new(stem), mode)?;
        fchmod(made.file(), Mode::from_raw_mode(mode as RawMode))?;
        Ok(made)
    }

    /// The bits of `mode` that something in this folder gets.
    fn shared(&self, mode: u32) -> io::Result<u32> {
        let ours = fstat(&self.fd)?.st_mode as u32;
        Ok(mode & (0o700 | ours & 0o555 | ours & !umask()))
    }

    /// The same, with a hidden name until then: what [`Folder::scratch`] makes where files need names.
    #[cfg(test)]
    pub(crate) fn hidden_scratch(&self, stem: &str, mode: u32) -> io::Result<Scratch> {
        Scratch::hidden(self.base(), Path::new(stem), mode)
    }

    fn base(&self) -> Base {
        Base(Some(Arc::clone(&self.fd)))
    }

    /// Removes a name, not what it leads to. One that is gone is as good as removed.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The regular files in it whose names are UTF-8: all that we make have such names.
    pub(crate) fn files(&self) -> io::Result<Vec<(String, Stat)>> {
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
    #[cfg(feature = "network")]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// Whether a file belongs to this user, and its mode lets no other user write to it.
#[cfg(feature = "network")]
pub(crate) fn is_ours_alone(file: &File) -> bool {
    fstat(file).is_ok_and(|data| expect_private(&data, rustix::process::geteuid().as_raw(), "").is_ok())
}

fn expect_private(data: &Stat, owner: u32, name: &str) -> io::Result<()> {
    let message = if data.st_uid != owner {
        format!("{name:?} belongs to user {}, not to user {owner}", data.st_uid)
    } else if data.st_mode & 0o022 != 0 {
        format!("others may write to {name:?}")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// How long ago a file was used or written, in whole seconds; none ago where its time lies ahead.
pub(crate) fn age(data: &Stat) -> Duration {
    let now = UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs());
    let written = i128::from(data.st_mtime);
    Duration::from_secs(u64::try_from(i128::from(now) - written).unwrap_or(0))
}

/// Whether a file has no name but the one in the cache.
#[cfg(feature = "network")]
pub(crate) fn has_one_name(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.nlink() == 1)
}

/// Sets the time at which a file was used last.
pub(crate) fn touch(file: &File) -> rustix::io::Result<()> {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ };
    futimens(file, &Timestamps { last_access: now, last_modification: now })
}

/// Makes a directory with all that leads to it.
pub(crate) fn make_root(path: &Path) -> io::Result<Folder> {
    fs::create_dir_all(path)?;
    Folder::open(path)
}
