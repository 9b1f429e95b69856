use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use super::system::begin_writing_out;

/// The length of one stretch that the system is told of, in bytes. What is on the disk already is dropped from memory by this call: in
/// so short a stretch that is next to nothing, and the next reader of the output finds it in memory.
const STEP_BYTES: NonZeroU64 = NonZeroU64::new(4 << 20).unwrap();

/// Lets the disk work while an output is still being written, so that little is left to wait for when it is made durable. It
/// tells the system only: a file system that does not listen loses nothing, and an error shows when the file is synced.
#[derive(Debug)]
pub(crate) struct Writeback {
    file: Arc<File>,
    /// Up to where the system was told.
    told: u64,
    /// The thread that tells the system, begun with the first stretch. A slow disk makes it wait, and not the writer.
    teller: Option<Teller>,
    no_teller: bool,
}

#[derive(Debug)]
struct Teller {
    steps: Option<Sender<Range<u64>>>,
    given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writeback {
    /// Of a file that is written from `start` to its end, by and large.
    pub(crate) fn new(file: &Arc<File>, start: u64) -> Self {
        Writeback { file: Arc::clone(file), told: start, teller: None, no_teller: false }
    }

    /// All before `position` has been written. What is less than a step is left for the next time: a small request to the disk
    /// takes as long as a large one.
    pub(crate) fn reached(&mut self, position: u64) {
        let steps = position.saturating_sub(self.told) / STEP_BYTES;
        if steps == 0 {
            return;
        }
        if self.teller.is_none() && !self.no_teller {
            self.teller = Teller::begin(&self.file);
            self.no_teller = self.teller.is_none();
        }
        let end = self.told + steps * STEP_BYTES.get();
        if let Some(steps) = self.teller.as_ref().and_then(|teller| teller.steps.as_ref()) {
            let _ = steps.send(self.told..end);
        }
        self.told = end;
    }
}

impl Teller {
    /// `None` where there can be no thread.
    fn begin(file: &Arc<File>) -> Option<Teller> {
        let (steps, received) = channel::<Range<u64>>();
        let given_up = Arc::new(AtomicBool::new(false));
        let (file, over) = (Arc::clone(file), Arc::clone(&given_up));
        let tell = move || {
            let steps =
                received.into_iter().flat_map(|Range { start, end }| (start..end).step_by(STEP_BYTES.get() as usize));
            for at in steps.take_while(|_| !over.load(Ordering::Relaxed)) {
                begin_writing_out(&file, at, STEP_BYTES);
            }
        };
        let thread = thread::Builder::new().name("writeback".to_string()).spawn(tell).ok()?;
        Some(Teller { steps: Some(steps), given_up, thread: Some(thread) })
    }
}

impl Drop for Teller {
    /// The system is not told of the rest: the sync that follows writes it.
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.steps = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn the_system_is_told_in_steps_and_the_bytes_stay() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let bytes: Vec<u8> = (0..STEP_BYTES.get() as u32 + 7).map(|at| (at % 253) as u8).collect();
        let mut writeback = Writeback::new(&file, 0);
        for turn in 0..3 {
            file.write_all_at(&bytes, turn * bytes.len() as u64).unwrap();
            writeback.reached((turn + 1) * bytes.len() as u64 - 3);
            writeback.reached((turn + 1) * bytes.len() as u64);
            assert_eq!(writeback.told, (turn + 1) * STEP_BYTES.get());
        }
        drop(writeback);
        let mut found = vec![0; bytes.len()];
        file.read_exact_at(&mut found, 2 * bytes.len() as u64).unwrap();
        assert!(found == bytes);
        Writeback::new(&file, 0).reached(STEP_BYTES.get() - 1);
    }
}
