use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::read_error;
use crate::error::{Error, ErrorKind, Result};

/// What stands still as long as nobody writes to a file: a file that is read by one reader to be hashed and by another to be
/// copied has one before the first of them begins, and is asked when the last has ended whether it still holds.
///
/// The kernel sets the time of change at each write, truncation and change of owner, permissions or name, and nobody can set
/// it back. What gets past: a writer to pages that were mapped and dirty before, root with the clock or the raw device, and
/// file systems whose server tells late.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    file: Arc<File>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Two writes closer to each other than this may leave the same time: the kernel's clock for files ticks at 100 Hz at the
/// slowest.
const TICK: Duration = Duration::from_millis(12);
/// How many ticks a file is waited for that is being written to; it is told as changed at the end.
const TICKS_MAX: u32 = 20;

impl Stamp {
    /// What `file` is now; `None` for a file without a name, which is ours. A file that was written to a moment ago is
    /// looked at again a moment later, so that the next write will show.
    ///
    /// # Errors
    /// As `fstat`.
    pub(crate) fn of(file: &Arc<File>) -> Result<Option<Self>> {
        let mut found = file.metadata().map_err(read_error)?;
        for _ in 0..TICKS_MAX {
            if found.nlink() == 0 {
                return Ok(None);
            }
            if !is_recent(State::of(&found)) {
                break;
            }
            sleep(TICK);
            found = file.metadata().map_err(read_error)?;
        }
        Ok(Some(Stamp { file: Arc::clone(file), state: State::of(&found) }))
    }

    /// Whether this is about that file.
    pub(crate) fn is_of(&self, file: &Arc<File>) -> bool {
        Arc::ptr_eq(&self.file, file)
    }

    /// Refuses a file that is not what it was.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when it was written to, or touched in any other way.
    pub(crate) fn check(&self) -> Result<()> {
        if State::of(&self.file.metadata().map_err(read_error)?) == self.state {
            return Ok(());
        }
        Err(Error::new(ErrorKind::SourceUnavailable, "the file was changed while it was read")
            .hint("run the same command again when nothing writes to the source, or renames it"))
    }
}

impl State {
    fn of(found: &Metadata) -> Self {
        State {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the time of a file is compared with the time now, and goes nowhere")]
fn is_recent(state: State) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanoseconds) = state.changed.max(state.modified);
    let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
    now.abs_diff(changed) < TICK
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn every_write_is_noticed() {
        let mut named = tempfile::NamedTempFile::new().unwrap();
        let file = Arc::new(named.reopen().unwrap());
        let writer = named.as_file_mut();
        for round in 0..50_u8 {
            let stamp = Stamp::of(&file).unwrap().unwrap();
            assert!(stamp.is_of(&file) && stamp.check().is_ok());
            writer.write_all_at(&[round], 0).unwrap();
            assert_eq!(stamp.check().unwrap_err().kind(), ErrorKind::SourceUnavailable, "round {round}");
        }
    }

    /// As somebody would who wants to hide it.
    #[test]
    fn times_that_were_set_back_are_noticed() {
        let named = tempfile::NamedTempFile::new().unwrap();
        let (file, before) = (Arc::new(named.reopen().unwrap()), named.as_file().metadata().unwrap());
        let stamp = Stamp::of(&file).unwrap().unwrap();
        named.as_file().write_all_at(b"x", 0).unwrap();
        named.as_file().set_len(0).unwrap();
        named.as_file().set_modified(before.modified().unwrap()).unwrap();
        assert!(stamp.check().is_err());
    }

    #[test]
    fn files_without_a_name_are_ours() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        assert!(Stamp::of(&file).unwrap().is_none());
    }
}
