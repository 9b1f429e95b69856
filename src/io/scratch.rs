use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock};

use super::leftover::{sweep, unfinished_name};
use super::output::directory_of;
use super::system::{link, unnamed};
use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};

/// How long between two looks at a lock that somebody else holds.
const LOCK_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// A file in the making that gets its name late, or never. Without a name (`O_TMPFILE`) it is gone when dropped, even by
/// SIGKILL. Where a file system cannot hold such files (NFS, some FUSE ones) it is a hidden one that is removed when dropped,
/// and where its writer was killed, by the next output in that directory.
#[derive(Debug)]
pub struct Scratch {
    file: Arc<File>,
    path: Option<PathBuf>,
    kept: bool,
    mode: u32,
}

impl Scratch {
    /// Makes one in `directory`, to have the permission bits `mode` when it gets a name.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the directory cannot be written.
    pub fn create(directory: &Path, mode: u32) -> Result<Self> {
        let made = Scratch::beside(&directory.join("scratch"), mode);
        made.or_kind(ErrorKind::Output).doing(|| format!("creating a file in {directory:?}"))
    }

    /// The same in the directory of `path`, for an output that is to have that name.
    pub(super) fn beside(path: &Path, mode: u32) -> io::Result<Self> {
        match unnamed(CWD, directory_of(path), mode | 0o600) {
            Some(file) => Ok(Scratch::adopt(Arc::new(file), mode)),
            None => Scratch::named(path, mode),
        }
    }

    fn named(path: &Path, mode: u32) -> io::Result<Self> {
        let hidden = unfinished_name(path);
        let file = File::options().read(true).write(true).create_new(true).mode(mode | 0o600).open(&hidden)?;
        Ok(Scratch { file: Arc::new(file), path: Some(hidden), kept: false, mode })
    }

    /// Takes over a file without a name: from now on it is nobody else's to write to.
    pub fn adopt(unnamed: Arc<File>, mode: u32) -> Self {
        Scratch { file: unnamed, path: None, kept: false, mode }
    }

    /// The file, to be written and read.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Makes the contents durable.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the disk says no.
    pub fn sync(&self) -> Result<()> {
        self.set_mode()?;
        self.file.sync_all().or_kind(ErrorKind::Output)
    }

    /// Gives it its permission bits, for what need not be durable.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub fn set_mode(&self) -> Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(self.mode)).or_kind(ErrorKind::Output)
    }

    /// Gives it the name `path`, at once and in place of what may be there. It is still removed when dropped, unless it is
    /// [kept](Scratch::keep).
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub fn move_to(&mut self, path: &Path) -> Result<()> {
        self.give_name(path).or_kind(ErrorKind::Output).doing(|| format!("creating {path:?}"))
    }

    fn give_name(&mut self, path: &Path) -> io::Result<()> {
        if self.path.is_none() {
            match link(&self.file, CWD, path) {
                Ok(()) => {
                    self.path = Some(path.to_path_buf());
                    return Ok(());
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                // A link never replaces, a rename does.
                Err(_) => {
                    let beside = unfinished_name(path);
                    link(&self.file, CWD, &beside)?;
                    self.path = Some(beside);
                }
            }
        }
        if let Some(from) = &self.path {
            fs::rename(from, path)?;
        }
        self.path = Some(path.to_path_buf());
        Ok(())
    }

    /// Gives it the name `path`; `false` where something has that name, and nothing is changed. It is still removed when
    /// dropped, unless it is [kept](Scratch::keep).
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub fn place_at(&mut self, path: &Path) -> Result<bool> {
        let placed = match &self.path {
            None => link(&self.file, CWD, path),
            // NFS knows no rename that does not replace; a hard link does not replace either.
            Some(from) => {
                rename_new(from, path, |from, to| fs::hard_link(from, to).and_then(|()| fs::remove_file(from)))
            }
        };
        match placed {
            Ok(()) => self.path = Some(path.to_path_buf()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error).or_kind(ErrorKind::Output).doing(|| format!("creating {path:?}")),
        }
        Ok(true)
    }

    /// Takes its name away and gives it a hidden one in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub fn hide_in(&mut self, directory: &Path) -> Result<()> {
        self.move_to(&unfinished_name(&directory.join("scratch")))
    }

    /// From now on it stays.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = self.path.take().filter(|_| !self.kept) {
            let _ = fs::remove_file(path);
        }
    }
}

/// A directory in the making: hidden beside its final place, removed with all that is in it when dropped.
#[derive(Debug)]
pub struct ScratchDirectory {
    hidden: Option<PathBuf>,
    path: PathBuf,
    mode: u32,
}

impl ScratchDirectory {
    /// Makes one that is to become `path`, with the permission bits `mode`.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the directory around it cannot be written.
    pub fn create(path: &Path, mode: u32) -> Result<Self> {
        let hidden = unfinished_name(path);
        let made = fs::DirBuilder::new().mode(mode | 0o700).create(&hidden);
        made.or_kind(ErrorKind::Output).doing(|| format!("creating output {path:?}"))?;
        if let Ok(fresh) = File::open(&hidden) {
            sweep(path, &fresh);
        }
        Ok(ScratchDirectory { hidden: Some(hidden), path: path.to_path_buf(), mode })
    }

    /// Where it is now.
    pub fn path(&self) -> &Path {
        self.hidden.as_deref().unwrap_or(&self.path)
    }

    /// Gives it its name; `false` where something has that name meanwhile, and this stays hidden.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub fn publish(&mut self) -> Result<bool> {
        if let Some(hidden) = &self.hidden {
            fs::set_permissions(hidden, fs::Permissions::from_mode(self.mode)).or_kind(ErrorKind::Output)?;
        }
        self.publish_as_it_is()
    }

    /// The same; its permission bits stay.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when that fails.
    pub fn publish_as_it_is(&mut self) -> Result<bool> {
        let Some(hidden) = &self.hidden else { return Ok(true) };
        // A plain rename replaces a directory only where that is empty: nothing is lost then.
        let renamed = rename_new(hidden, &self.path, |from, to| fs::rename(from, to));
        match renamed {
            Ok(()) => self.hidden = None,
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
                return Ok(false);
            }
            Err(error) => return Err(error).or_kind(ErrorKind::Output),
        }
        Ok(true)
    }
}

impl Drop for ScratchDirectory {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden
            && fs::remove_dir_all(hidden).is_err()
        {
            // The image has directories that their owner may not write to.
            let _ = open_up(hidden).and_then(|()| fs::remove_dir_all(hidden));
        }
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

/// Renames without replacing, by `otherwise` where the file system cannot do that.
fn rename_new(from: &Path, to: &Path, otherwise: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => otherwise(from, to),
        renamed => renamed.map_err(io::Error::from),
    }
}

/// Makes names in a directory durable. Not every file system lets a directory be synced; contents are safe without.
pub fn sync_directory(path: &Path) {
    if let Ok(directory) = File::open(path) {
        let _ = directory.sync_all();
    }
}

/// Keeps others who ask the same way out of `directory` until what is returned is dropped; `None` where the file system
/// knows no locks. `check` is asked while waiting.
///
/// # Errors
/// Errors of `check`; [`ErrorKind::Output`] when the directory cannot be opened.
pub fn lock_directory(directory: &Path, check: impl Fn() -> Result<()>) -> Result<Option<File>> {
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
        let begin = || Scratch::named(&path, 0o600).unwrap();
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
