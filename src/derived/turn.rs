use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::error::Result;
use crate::io::folder::{Folder, touch};
use crate::io::{Monitor, Phase};

/// How often a waiting process looks.
const LOOK: Duration = Duration::from_millis(50);
/// How often who has the turn shows that it is at work.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// After so long without a sign of life it is waited for no longer: it may be stopped, and not gone. Attributes of files on NFS
/// may be a minute old.
const PATIENCE: Duration = Duration::from_secs(180);

/// The turn to work on something: as long as one process holds it, others that want to work on the same wait. It is a lock on a
/// file, so it ends with the process. It only saves time: on a file system without locks several processes do the same work.
#[derive(Debug)]
pub(crate) struct Turn {
    name: String,
    folder: Arc<Folder>,
    /// Ends the signs of life when it goes.
    end: Option<Sender<()>>,
    signs: Option<JoinHandle<()>>,
}

impl Turn {
    /// Waits for the turn called `name`; `None` on a file system without locks, and where the holder shows no
    /// sign of life.
    ///
    /// # Errors
    /// When the conversion is asked to stop.
    pub(super) fn wait(folder: &Arc<Folder>, name: &str, monitor: &Monitor) -> Result<Option<Turn>> {
        Turn::wait_with(folder, name, monitor, PATIENCE)
    }

    fn wait_with(folder: &Arc<Folder>, name: &str, monitor: &Monitor, patience: Duration) -> Result<Option<Turn>> {
        let (mut seen, mut since) = (None, Instant::now());
        let mut waits = false;
        loop {
            monitor.check()?;
            let Ok(file) = folder.file(name, OFlags::CREATE | OFlags::WRONLY) else { return Ok(None) };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before may have removed the name meanwhile: then the lock of another file counts.
                Ok(()) if has_name(&file, folder, name) => return Ok(Turn::begin(folder, name, file)),
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(_) => return Ok(None),
            }
            let sign = file.metadata().and_then(|data| data.modified()).ok();
            if seen != Some(sign) {
                (seen, since) = (Some(sign), Instant::now());
            }
            if since.elapsed() >= patience {
                return Ok(None);
            }
            if !waits {
                monitor.begin(Phase::Wait, 0);
                waits = true;
            }
            thread::sleep(LOOK);
        }
    }

    fn begin(folder: &Arc<Folder>, name: &str, file: File) -> Option<Turn> {
        let (end, ended) = channel();
        let signs = thread::Builder::new().spawn(move || {
            while ended.recv_timeout(SIGN_OF_LIFE) == Err(RecvTimeoutError::Timeout) {
                let _ = touch(&file);
            }
        });
        let signs = Some(signs.ok()?);
        Some(Turn { name: name.to_string(), folder: Arc::clone(folder), end: Some(end), signs })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.folder.remove(&self.name);
        self.end = None;
        // The lock goes with the file, which that thread has.
        if let Some(signs) = self.signs.take() {
            let _ = signs.join();
        }
    }
}

fn has_name(file: &File, folder: &Folder, name: &str) -> bool {
    let inode = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
    let now = folder.file(name, OFlags::WRONLY).ok();
    now.is_some_and(|now| inode(&now).is_some_and(|now| inode(file) == Some(now)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;
    use crate::error::ErrorKind;

    fn place() -> (tempfile::TempDir, Arc<Folder>) {
        let directory = tempfile::tempdir().unwrap();
        let folder = Arc::new(Folder::open(directory.path()).unwrap());
        (directory, folder)
    }

    #[test]
    fn one_has_the_turn_and_nothing_is_left_of_it() {
        let (directory, folder) = place();
        let (at_work, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let turn = Turn::wait(&folder, "a", &Monitor::default()).unwrap();
                        assert!(turn.is_some());
                        most.fetch_max(at_work.fetch_add(1, SeqCst) + 1, SeqCst);
                        thread::sleep(Duration::from_millis(1));
                        at_work.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(most.load(SeqCst), 1);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_turn_need_not_be_waited_for() {
        let (_directory, folder) = place();
        let _one = Turn::wait(&folder, "a", &Monitor::default()).unwrap().unwrap();
        assert!(Turn::wait(&folder, "b", &Monitor::default()).unwrap().is_some());
    }

    #[test]
    fn who_shows_no_sign_of_life_is_waited_for_no_longer() {
        let (_directory, folder) = place();
        let stopped = folder.file("a", OFlags::CREATE | OFlags::WRONLY).unwrap();
        flock(&stopped, FlockOperation::NonBlockingLockExclusive).unwrap();
        let monitor = Monitor::default();
        let began = Instant::now();
        assert!(Turn::wait_with(&folder, "a", &monitor, 4 * LOOK).unwrap().is_none());
        assert!(began.elapsed() >= 4 * LOOK);
        assert_eq!(monitor.snapshot().phase, Phase::Wait);
    }

    #[test]
    fn who_is_at_work_is_waited_for_beyond_all_patience() {
        let (_directory, folder) = place();
        let turn = Turn::wait(&folder, "a", &Monitor::default()).unwrap().unwrap();
        let patience = SIGN_OF_LIFE + 10 * LOOK;
        thread::scope(|scope| {
            let waiting = scope.spawn(|| Turn::wait_with(&folder, "a", &Monitor::default(), patience).unwrap());
            thread::sleep(2 * patience);
            drop(turn);
            assert!(waiting.join().unwrap().is_some());
        });
    }

    #[test]
    fn a_wait_ends_with_the_conversion_and_where_nothing_can_be_made_there_is_none() {
        let (directory, folder) = place();
        let _one = Turn::wait(&folder, "a", &Monitor::default()).unwrap().unwrap();
        let monitor = Monitor::default();
        monitor.stop(ErrorKind::Interrupted);
        assert_eq!(Turn::wait(&folder, "a", &monitor).unwrap_err().kind(), ErrorKind::Interrupted);
        std::fs::create_dir(directory.path().join("b")).unwrap();
        assert!(Turn::wait(&folder, "b", &Monitor::default()).unwrap().is_none());
    }
}
