//! SIGINT, SIGTERM and SIGHUP: first a request to stop, then an end.
//!
//! The work looks at the [`Monitor`] once per chunk and cleans up as it unwinds. Where it cannot look, for example while
//! it waits for a pipe, or where the user asks twice, the process ends from here.

use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::Builder;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::error::{ErrorKind, IoResultExt, Result};
use crate::io::{Monitor, no_thread};

/// What ends the process at once; `main` owns it.
pub type Quit = fn(i32) -> !;

/// How long the work may take to notice that it should stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the last words may take: the report and stderr may be pipes that nobody reads.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Listens to signals until the process ends: writing the report or the last words may block as well as the work.
pub(super) struct Listener {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// How far the stopping has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    asked: bool,
    settled: bool,
}

/// What a signal leads to.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Ask,
    End,
}

impl Progress {
    fn on_signal(&mut self) -> Action {
        let action = if self.asked { Action::End } else { Action::Ask };
        self.asked = true;
        action
    }
}

impl Listener {
    /// Starts to listen. `abandon` is called right before the process is ended from here: it removes what the work can no
    /// longer remove, and says so.
    pub(super) fn start(
        monitor: Arc<Monitor>,
        abandon: impl Fn(ErrorKind) + Send + Sync + 'static,
        quit: Quit,
    ) -> Result<Self> {
        let ignored = ignored_signals();
        // Who started us under nohup, or as a job that must survive Ctrl-C, has had signals ignored: they stay so.
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
        let mut signals = Signals::new(wanted).or_kind(ErrorKind::Other)?;
        // Where a file would be larger than `ulimit -f` allows, writing fails, which is told, and the process goes on.
        signal_hook::flag::register(SIGXFSZ, Arc::default()).or_kind(ErrorKind::Other)?;
        let listener = Listener { state: Arc::default() };
        let state = Arc::clone(&listener.state);
        let abandon = Arc::new(abandon);
        let end = Arc::new(move |kind| {
            within(LAST_WORDS, {
                let abandon = Arc::clone(&abandon);
                move || abandon(kind)
            });
            quit(i32::from(kind.exit_code()))
        });
        let heard = move || {
            for signal in signals.forever() {
                let kind = if signal == SIGINT { ErrorKind::Interrupted } else { ErrorKind::Terminated };
                // A statement of its own, so that the lock is not held while the process ends.
                let action = state.lock().on_signal();
                match action {
                    Action::Ask => {
                        monitor.stop(kind);
                        let (state, end) = (Arc::clone(&state), Arc::clone(&end));
                        // Where no thread can be started, the next signal ends it.
                        let _ = Builder::new().spawn(move || {
                            // Printing may block for ever: a pipe may have no reader.
                            if state.settles_within(PATIENCE) {
                                std::thread::sleep(PATIENCE);
                            }
                            end(kind)
                        });
                    }
                    Action::End => end(kind),
                }
            }
        };
        Builder::new().spawn(heard).map_err(no_thread)?;
        Ok(listener)
    }

    /// The work is over, however it went, and has only words left to say. A signal lets it say them: that an output is
    /// there, for example, which a signal that came an instant too late does not change.
    pub(super) fn settled(&self) {
        self.state.lock().settled = true;
        self.state.changed.notify_all();
    }
}

/// Runs `work` and waits for it, but no longer than `time`.
fn within(time: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let started = Builder::new().spawn(move || {
        work();
        let _ = done.send(());
    });
    drop(started);
    let _ = is_done.recv_timeout(time);
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settles_within(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |progress| !progress.settled);
        waited.unwrap_or_else(PoisonError::into_inner).0.settled
    }
}

/// The signals this process was started to ignore, as a mask whose bit 0 is signal 1; none where the kernel does not say.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    mask_in(&status).unwrap_or(0)
}

fn mask_in(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        for settled in [false, true] {
            let mut progress = Progress { settled, ..Progress::default() };
            assert_eq!(progress.on_signal(), Action::Ask);
            assert_eq!(progress.on_signal(), Action::End);
        }
    }

    #[test]
    fn patience_ends_early_only_when_settled() {
        let state = Arc::new(State::default());
        assert!(!state.settles_within(Duration::from_millis(10)));
        let listener = Arc::clone(&state);
        let waiting = std::thread::spawn(move || listener.settles_within(Duration::from_secs(60)));
        state.lock().settled = true;
        state.changed.notify_all();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn last_words_are_waited_for_but_not_for_ever() {
        let (never, waits) = mpsc::channel::<()>();
        within(Duration::from_millis(10), move || {
            let _ = waits.recv();
        });
        drop(never);
        let said = Arc::new(Mutex::new(false));
        within(Duration::from_secs(60), {
            let said = Arc::clone(&said);
            move || *said.lock().unwrap() = true
        });
        assert!(*said.lock().unwrap());
    }

    #[test]
    fn ignored_signals_are_read_from_the_kernel() {
        let mask = mask_in("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001003\nSigCgt:\tf\n").unwrap();
        assert_eq!((mask >> (SIGHUP - 1) & 1, mask >> (SIGINT - 1) & 1, mask >> (SIGTERM - 1) & 1), (1, 1, 0));
        assert_eq!(mask_in("Name:\tx\n"), None);
    }
}
