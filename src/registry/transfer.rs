use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::{Monitor, Region};

/// How often a reader that waits for bytes looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A blob on its way into a file, which others read behind the one who writes.
#[derive(Default)]
pub(super) struct Transfer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    file: Option<Arc<File>>,
    written_bytes: u64,
    /// Whether a good end proves that what was read is the blob.
    is_verified: bool,
    /// How it ended; several readers are told.
    end: Option<Result<()>>,
}

impl Transfer {
    /// The blob comes into this file, of which so many bytes are there.
    pub(super) fn begin(&self, file: Arc<File>, written_bytes: u64) {
        let mut state = self.lock();
        (state.file, state.written_bytes) = (Some(file), written_bytes);
        self.changed.notify_all();
    }

    /// The blob is written into this file, to which no other user can write. Its writer compares the digest before the end.
    pub(super) fn begin_verified(&self, file: Arc<File>) {
        let mut state = self.lock();
        (state.file, state.is_verified) = (Some(file), true);
        self.changed.notify_all();
    }

    /// So many bytes more are in the file.
    pub(super) fn advance(&self, bytes: u64) {
        self.lock().written_bytes += bytes;
        self.changed.notify_all();
    }

    /// Does the `work` that brings it, and says how that ended, whatever happens: who waits for it must not wait for ever.
    pub(super) fn come_of(&self, work: impl FnOnce() -> Result<()>) {
        let panicked = |_| Err(Error::new(ErrorKind::Bug, "a thread panicked while it downloaded"));
        self.end(catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked));
    }

    /// Nothing more comes.
    pub(super) fn end(&self, result: Result<()>) {
        self.lock().end = Some(result);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it has begun, and says whether what is read of it is verified where it ends without an error.
    pub(super) fn is_verified(&self, monitor: &Monitor) -> Result<bool> {
        let mut state = self.lock();
        while state.file.is_none() && state.end.is_none() {
            monitor.check()?;
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state.is_verified)
    }

    /// Waits until there is something after `position`, and says in which file up to where; `None` at the end.
    fn wait(&self, position: u64, monitor: &Monitor) -> Result<Option<(Arc<File>, u64)>> {
        let mut state = self.lock();
        loop {
            match (&state.file, &state.end) {
                (Some(file), _) if position < state.written_bytes => {
                    return Ok(Some((Arc::clone(file), state.written_bytes)));
                }
                (_, Some(Ok(()))) => return Ok(None),
                (_, Some(Err(error))) => return Err(error.again()),
                _ => {}
            }
            monitor.check()?;
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Reads a [`Transfer`] from its start, behind whoever writes it.
pub(super) struct Follower {
    transfer: Arc<Transfer>,
    monitor: Monitor,
    position: u64,
}

impl Follower {
    pub(super) fn new(transfer: Arc<Transfer>, monitor: Monitor) -> Self {
        Follower { transfer, monitor, position: 0 }
    }
}

impl Follower {
    /// As reading from it.
    pub(super) fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some((file, end)) = self.transfer.wait(self.position, &self.monitor)? else { return Ok(0) };
        let left = end - self.position;
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = file.read_at(&mut buffer[..want], self.position).or_kind(ErrorKind::Other)?;
        if count == 0 && want > 0 {
            return Err(Error::new(ErrorKind::Other, "a temporary file became shorter"));
        }
        self.position += count as u64;
        Ok(count)
    }

    /// What was read so far, to be read once more.
    pub(super) fn read_so_far(&self) -> Option<Region> {
        let file = self.transfer.lock().file.clone()?;
        Some(Region { len: self.position, ..Region::whole(file).ok()? })
    }
}

impl Read for Follower {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.next(buffer).map_err(Error::into_io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_a_thread_that_panicked() {
        let transfer = Arc::new(Transfer::default());
        let work = Arc::clone(&transfer);
        std::thread::spawn(move || work.come_of(|| panic!("as if no thread could be started"))).join().unwrap();
        let error = Follower::new(transfer, Monitor::default()).next(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bug);
    }

    #[test]
    fn readers_follow_the_writer_and_hear_of_its_end() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        for error in [None, Some(Error::new(ErrorKind::Network, "broken").hint("mend it"))] {
            let transfer = Arc::new(Transfer::default());
            let read = |transfer: Arc<Transfer>| {
                let mut bytes = Vec::new();
                let result = Follower::new(transfer, Monitor::default()).read_to_end(&mut bytes);
                (bytes, result.map_err(|error| Error::io(ErrorKind::Other, error)))
            };
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let transfer = Arc::clone(&transfer);
                    std::thread::spawn(move || read(transfer))
                })
                .collect();
            let fails = error.is_some();
            transfer.begin(Arc::clone(&file), 0);
            for at in 0..3 {
                file.write_all_at(b"abc", at * 3).unwrap();
                transfer.advance(3);
            }
            transfer.end(error.map_or(Ok(()), Err));
            for reader in readers {
                let (bytes, result) = reader.join().unwrap();
                assert_eq!(bytes, b"abcabcabc");
                match result {
                    Ok(_) => assert!(!fails),
                    Err(error) => {
                        assert!(fails && error.kind() == ErrorKind::Network && error.remedy() == Some("mend it"));
                    }
                }
            }
        }
    }
}
