use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RawMode, RenameFlags, flock, linkat, mkdirat, openat, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::leftover::{sweep, unfinished_name};
use super::output::{directory_of, expect_name};
use super::system::{link, unnamed};
use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};

/// How long between two looks at a lock that somebody else holds.
const LOCK_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Where paths begin: in a directory that is held open, or as usual.
#[derive(Debug, Clone, Default)]
pub(super) struct Base(pub(super) Option<Arc<OwnedFd>>);

impl AsFd for Base {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().map_or(CWD, |fd| fd.as_fd())
    }
}

/// A file in the making that gets its name late, or never: the one way to a name for all that is written. Without a name
/// (`O_TMPFILE`) it is gone when dropped, even by SIGKILL. Where a file system cannot hold such files (NFS, some FUSE ones) it
/// is a hidden one that is removed when dropped, and where its writer was killed, by the next one in that directory.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: Arc<File>,
    base: Base,
    path: Option<PathBuf>,
    is_directory: bool,
    kept: bool,
    mode: u32,
}

impl Scratch {
    /// Makes one in `directory`, to have the permission bits `mode` when it gets a name.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the directory cannot be written.
    pub(crate) fn create(directory: &Path, mode: u32) -> Result<Self> {
        let made = Scratch::beside(Base::default(), &directory.join("scratch"), mode);
        made.or_kind(ErrorKind::Output).doing(|| format!("creating a file in {directory:?}"))
    }

    /// The same in the directory of `path`, for what is to have that name.
    pub(super) fn beside(base: Base, path: &Path, mode: u32) -> io::Result<Self> {
        match unnamed(&base, directory_of(path), mode | 0o600) {
            Some(file) => Ok(Scratch::of(file, base, None, mode)),
            None => Scratch::hidden(base, path, mode),
        }
    }

    pub(super) fn hidden(base: Base, path: &Path, mode: u32) -> io::Result<Self> {
        let hidden = unfinished_name(path);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(openat(&base, &hidden, flags, Mode::from_raw_mode((mode | 0o600) as RawMode))?);
        sweep(&base, directory_of(path), &file);
        Ok(Scratch::of(file, base, Some(hidden), mode))
    }

    /// A hidden directory that is to become `path`, open for reading.
    fn directory(path: &Path, mode: u32) -> io::Result<Self> {
        let (base, hidden) = (Base::default(), unfinished_name(path));
        mkdirat(&base, &hidden, Mode::from_raw_mode((mode | 0o700) as RawMode))?;
        let file = File::open(&hidden)?;
        sweep(&base, directory_of(path), &file);
        let mut made = Scratch::of(file, base, Some(hidden), mode);
        made.is_directory = true;
        Ok(made)
    }

    fn of(file: File, base: Base, path: Option<PathBuf>, mode: u32) -> Self {
        Scratch { file: Arc::new(file), base, path, is_directory: false, kept: false, mode }
    }

    /// Takes over a file without a name: from now on it is nobody else's to write to.
    pub(crate) fn adopt(unnamed: Arc<File>, mode: u32) -> Self {
        Scratch { file: unnamed, base: Base::default(), path: None, is_directory: false, kept: false, mode }
    }

    /// The file, to be written and read.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Makes the contents durable.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the disk says no.
    pub(crate) fn sync(&self) -> Result<()> {
        self.set_mode()?;
        self.file.sync_all().or_kind(ErrorKind::Output)
    }

    /// Gives it its permission bits, for what need not be durable.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub(crate) fn set_mode(&self) -> Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(self.mode)).or_kind(ErrorKind::Output)
    }

    /// Gives it the name `path`, at once and in place of what may be there. It is still removed when dropped, unless it is
    /// [kept](Scratch::keep).
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub(crate) fn move_to(&mut self, path: &Path) -> Result<()> {
        self.replace(path).or_kind(ErrorKind::Output).doing(|| format!("creating {path:?}"))
    }

    /// [`Scratch::move_to`], with the error of the system.
    pub(crate) fn replace(&mut self, path: &Path) -> io::Result<()> {
        if self.path.is_none() {
            // A link never replaces, a rename does.
            if self.place(path)? {
                return Ok(());
            }
            let beside = unfinished_name(path);
            link(&self.file, &self.base, &beside)?;
            self.path = Some(beside);
        }
        if let Some(from) = &self.path {
            renameat(&self.base, from, &self.base, path)?;
        }
        self.path = Some(path.to_path_buf());
        Ok(())
    }

    /// Gives it the name `path`; `false` where something has that name, and nothing is changed. It is still removed when
    /// dropped, unless it is [kept](Scratch::keep).
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub(crate) fn place_at(&mut self, path: &Path) -> Result<bool> {
        self.place(path).or_kind(ErrorKind::Output).doing(|| format!("creating {path:?}"))
    }

    /// [`Scratch::place_at`], with the error of the system.
    pub(crate) fn place(&mut self, path: &Path) -> io::Result<bool> {
        let placed = match &self.path {
            None => link(&self.file, &self.base, path),
            Some(from) => self.rename_new(from, path),
        };
        match placed {
            Ok(()) => self.path = Some(path.to_path_buf()),
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let base = &self.base;
        match renameat_with(base, from, base, to, RenameFlags::NOREPLACE) {
            // NFS knows no rename that does not replace. A plain one replaces a directory only where that is empty, so that
            // nothing is lost; of a file a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if self.is_directory => renameat(base, from, base, to)?,
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.link_new(from, to)?,
            renamed => renamed?,
        }
        Ok(())
    }

    fn link_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let base = &self.base;
        match linkat(base, from, base, to, AtFlags::empty()) {
            // Object stores and the like have no hard links: all that can be done is to look once more.
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) if fs::symlink_metadata(to).is_ok() => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => renameat(base, from, base, to)?,
            linked => linked.and_then(|()| unlinkat(base, from, AtFlags::empty()))?,
        }
        Ok(())
    }

    /// Takes its name away and gives it a hidden one in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub(crate) fn hide_in(&mut self, directory: &Path) -> Result<()> {
        self.move_to(&unfinished_name(&directory.join("scratch")))
    }

    /// From now on it stays.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Some(path) = self.path.take().filter(|_| !self.kept) else { return };
        if !self.is_directory {
            let _ = unlinkat(&self.base, path, AtFlags::empty());
        } else if fs::remove_dir_all(&path).is_err() {
            // The image has directories that their owner may not write to.
            let _ = open_up(&path).and_then(|()| fs::remove_dir_all(path));
        }
    }
}

/// A directory in the making: a [`Scratch`] that is hidden beside its final place, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct ScratchDirectory {
    scratch: Scratch,
    path: PathBuf,
}

impl ScratchDirectory {
    /// Makes one that is to become `path`, with the permission bits `mode`.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the directory around it cannot be written.
    pub(crate) fn create(path: &Path, mode: u32) -> Result<Self> {
        let made = expect_name(path).and_then(|()| Scratch::directory(path, mode).or_kind(ErrorKind::Output));
        Ok(ScratchDirectory { scratch: made.doing(|| format!("creating output {path:?}"))?, path: path.to_path_buf() })
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path.as_deref().unwrap_or(&self.path)
    }

    /// Gives it its permission bits and its name; `false` where something has that name meanwhile, and this stays hidden.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub(crate) fn publish(&mut self) -> Result<bool> {
        self.scratch.set_mode()?;
        self.publish_as_it_is()
    }

    /// The same; its permission bits stay.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub(crate) fn publish_as_it_is(&mut self) -> Result<bool> {
        self.scratch.kept = self.scratch.place(&self.path).or_kind(ErrorKind::Output)?;
        Ok(self.scratch.kept)
    }
}

/// Lets the owner into all directories below. No symbolic link is followed.
fn open_up(directory: &Path) -> io::Result<()> {
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for each in fs::read_dir(&directory)? {
            let each = each?;
            if each.file_type()?.is_dir() {
                pending.push(each.path());
            }
        }
    }
    Ok(())
}

/// Makes names in a directory durable. Not every file system lets a directory be synced; contents are safe without.
pub(crate) fn sync_directory(path: &Path) {
    if let Ok(directory) = File::open(path) {
        let _ = directory.sync_all();
    }
}

/// Keeps others who ask the same way out of `directory` until what is returned is dropped; `None` where the file system
/// knows no locks. `check` is asked while waiting.
///
/// # Errors
/// Errors of `check`; [`ErrorKind::Output`] when the directory cannot be opened.
pub(crate) fn lock_directory(directory: &Path, check: impl Fn() -> Result<()>) -> Result<Option<File>> {
    let opened = File::open(directory).or_kind(ErrorKind::Output).doing(|| format!("locking {directory:?}"))?;
    loop {
        check()?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(opened)),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => std::thread::sleep(LOCK_LOOK),
            Err(_) => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    fn names(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn a_file_stays_only_where_it_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x");
        fs::write(&path, "old").unwrap();
        let mut scratch = Scratch::create(place.path(), 0o640).unwrap();
        scratch.file().write_all_at(b"new", 0).unwrap();
        scratch.sync().unwrap();
        assert_eq!(names(place.path()), 1);
        scratch.move_to(&path).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(place.path())), (b"new".to_vec(), 1));
        let other = place.path().join("y");
        scratch.move_to(&other).unwrap();
        assert!(other.exists() && !path.exists());
        drop(scratch);
        assert_eq!(names(place.path()), 0);
        let mut scratch = Scratch::create(place.path(), 0o640).unwrap();
        scratch.sync().unwrap();
        scratch.move_to(&path).unwrap();
        scratch.keep();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    }

    #[test]
    fn where_files_need_names_they_are_hidden_and_replace_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x.tar");
        let begin = || Scratch::hidden(Base::default(), &path, 0o600).unwrap();
        drop(begin());
        assert_eq!(names(place.path()), 0);
        let mut first = begin();
        assert!(first.place_at(&path).unwrap());
        first.keep();
        assert!(!begin().place_at(&path).unwrap());
        assert_eq!(names(place.path()), 1);
        let mut second = begin();
        second.move_to(&path).unwrap();
        second.keep();
        assert_eq!(names(place.path()), 1);
    }

    #[test]
    fn a_directory_appears_whole_and_replaces_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("d");
        let mut first = ScratchDirectory::create(&path, 0o750).unwrap();
        let mut late = ScratchDirectory::create(&path, 0o750).unwrap();
        fs::write(first.path().join("x"), "one").unwrap();
        fs::write(late.path().join("x"), "two").unwrap();
        assert!(!path.exists());
        assert!(first.publish().unwrap());
        assert!(!late.publish().unwrap());
        drop((first, late));
        assert_eq!((fs::read(path.join("x")).unwrap(), names(place.path())), (b"one".to_vec(), 1));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o750);
    }

    #[test]
    fn a_lock_is_waited_for_and_the_wait_can_be_ended() {
        let place = tempfile::tempdir().unwrap();
        let held = lock_directory(place.path(), || Ok(())).unwrap();
        assert!(held.is_some());
        let stopped = || Err(crate::Error::new(ErrorKind::Interrupted, "stop"));
        assert_eq!(lock_directory(place.path(), stopped).unwrap_err().kind(), ErrorKind::Interrupted);
        let path = place.path().to_path_buf();
        let waiting = std::thread::spawn(move || lock_directory(&path, || Ok(())).unwrap().is_some());
        drop(held);
        assert!(waiting.join().unwrap());
    }
}
