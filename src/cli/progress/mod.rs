//! Says how far a conversion is. A thread of its own looks at the [`Monitor`]; the work knows nothing of it.

mod bar;
mod pace;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::options::ProgressMode;
use super::printer::{self, Bytes};
use crate::io::{Monitor, Phase, Snapshot};

use bar::Bars;

/// How often the monitor is looked at: what a person sees as moving.
const LOOK: Duration = Duration::from_millis(100);
/// Between two plain lines, at least: a log is read, not watched.
const PLAIN_MIN: Duration = Duration::from_secs(2);
/// Between two plain lines of one phase, at most: callers take longer silence for a hang.
const PLAIN_MAX: Duration = Duration::from_secs(3);
/// Between two JSON objects of one phase.
const JSON_MAX: Duration = Duration::from_secs(1);

/// Shows progress until it is dropped.
pub(super) struct Watcher {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Shows what `monitor` counts, from `grace` on: at once, before this returns, where that is zero.
    pub(super) fn start(mode: ProgressMode, monitor: Arc<Monitor>, grace: Duration) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let view: Option<Box<dyn View>> = match mode {
            ProgressMode::None => None,
            ProgressMode::Bar => Some(Box::new(Bars::new(Monitor::clone(&monitor)))),
            ProgressMode::Json => Some(Box::new(Json(Cadence::new(Duration::ZERO, JSON_MAX)))),
            ProgressMode::Plain | ProgressMode::Auto => Some(Box::new(Plain(Cadence::new(PLAIN_MIN, PLAIN_MAX)))),
        };
        // Where no thread can be started there is no progress to be seen, and the work says why.
        let thread = view.and_then(|mut view| {
            let stop = Arc::clone(&stop);
            if grace.is_zero() {
                view.show(monitor.snapshot(), Duration::ZERO);
            }
            std::thread::Builder::new().spawn(move || watch(&monitor, &stop, view, grace)).ok()
        });
        Watcher { stop, thread }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A watcher that panicked has said so; the conversion is none the worse.
            let _ = thread.join();
        }
    }
}

fn watch(monitor: &Monitor, stop: &(Mutex<bool>, Condvar), mut view: Box<dyn View>, grace: Duration) {
    let started = Instant::now();
    let mut stopped = stop.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !*stopped {
        if started.elapsed() >= grace {
            view.show(monitor.snapshot(), started.elapsed());
        }
        stopped = stop.1.wait_timeout(stopped, LOOK).unwrap_or_else(PoisonError::into_inner).0;
    }
    view.end();
}

/// One way to show progress.
trait View: Send {
    /// Called every [`LOOK`].
    fn show(&mut self, now: Snapshot, elapsed: Duration);
    /// Called once, at the end.
    fn end(&mut self) {}
}

/// Decides when a line is due: soon after a phase began, and then as a heartbeat.
struct Cadence {
    min: Duration,
    max: Duration,
    last: Option<(Phase, Duration)>,
}

impl Cadence {
    fn new(min: Duration, max: Duration) -> Self {
        Cadence { min, max, last: None }
    }

    fn is_due(&mut self, phase: Phase, elapsed: Duration) -> bool {
        let due = match self.last {
            None => true,
            Some((said, at)) => elapsed - at >= if said == phase { self.max } else { self.min },
        };
        if due {
            self.last = Some((phase, elapsed));
        }
        due
    }
}

/// Lines for logs.
struct Plain(Cadence);

impl View for Plain {
    fn show(&mut self, now: Snapshot, elapsed: Duration) {
        if self.0.is_due(now.phase, elapsed) {
            printer::line(&plain_line(now, elapsed));
        }
    }
}

fn plain_line(now: Snapshot, elapsed: Duration) -> String {
    let mut text = format!("{:>4} s  {}", elapsed.as_secs(), doing(now.phase));
    match (now.done_bytes, now.total_bytes) {
        (0, 0) => {}
        (done, 0) => text.push_str(&format!(": {}", Bytes(done))),
        (done, total) => {
            text.push_str(&format!(": {} of {} ({})", Bytes(done), Bytes(total), percent(done, total)));
        }
    }
    if now.receivable_bytes > 0 && now.phase == Phase::Read {
        text.push_str(&format!(", downloaded {} of {}", Bytes(now.received_bytes), Bytes(now.receivable_bytes)));
    }
    text
}

/// "45%"; never more than all.
fn percent(done: u64, total: u64) -> String {
    format!("{}%", u128::from(done.min(total)) * 100 / u128::from(total))
}

/// A phase in words.
pub(super) fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "opening the source",
        Phase::Wait => "waiting for another conversion that works on the same layer",
        Phase::Read => "reading layers",
        Phase::Write => "writing the output",
        Phase::Push => "pushing the output",
        Phase::Verify => "checking digests",
        Phase::Finish => "finishing the output",
    }
}

/// Objects for programs.
struct Json(Cadence);

#[derive(Serialize)]
struct ProgressEvent {
    event: &'static str,
    phase: &'static str,
    done: u64,
    /// Absent where nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// What comes over the network; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    downloads: Option<Downloads>,
    elapsed_seconds: f64,
}

#[derive(Serialize)]
struct Downloads {
    done: u64,
    total: u64,
}

impl View for Json {
    fn show(&mut self, now: Snapshot, elapsed: Duration) {
        if self.0.is_due(now.phase, elapsed) {
            printer::event(&ProgressEvent {
                event: "progress",
                phase: now.phase.word(),
                done: now.done_bytes,
                total: Some(now.total_bytes).filter(|&total| total > 0),
                downloads: (now.receivable_bytes > 0)
                    .then_some(Downloads { done: now.received_bytes, total: now.receivable_bytes }),
                elapsed_seconds: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(phases: &[(u64, Phase)], until: u64) -> Vec<(f64, Phase)> {
        let mut cadence = Cadence::new(PLAIN_MIN, PLAIN_MAX);
        let at = |tenth: u64| phases.iter().rev().find(|(from, _)| from * 10 <= tenth).unwrap().1;
        let due = (0..until * 10).filter(|&tenth| cadence.is_due(at(tenth), Duration::from_millis(tenth * 100)));
        due.map(|tenth| (tenth as f64 / 10.0, at(tenth))).collect()
    }

    #[test]
    fn plain_lines_are_neither_rare_nor_many() {
        let quiet = lines(&[(0, Phase::Open), (1, Phase::Read), (9, Phase::Write)], 14);
        assert_eq!(
            quiet,
            [
                (0.0, Phase::Open),
                (2.0, Phase::Read),
                (5.0, Phase::Read),
                (8.0, Phase::Read),
                (10.0, Phase::Write),
                (13.0, Phase::Write)
            ]
        );
        let busy: Vec<(u64, Phase)> =
            (0..60).map(|second| (second, if second % 2 == 0 { Phase::Read } else { Phase::Write })).collect();
        let gaps: Vec<f64> = lines(&busy, 60).windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(gaps.len() > 15 && gaps.iter().all(|gap| (2.0..=5.0).contains(gap)), "{gaps:?}");
    }

    #[test]
    fn plain_lines_say_how_far() {
        let line = |phase, done_bytes, total_bytes| {
            let now = Snapshot { phase, done_bytes, total_bytes, received_bytes: 0, receivable_bytes: 0 };
            plain_line(now, Duration::from_secs(12))
        };
        assert_eq!(line(Phase::Open, 0, 0), "  12 s  opening the source");
        assert_eq!(line(Phase::Read, 1 << 30, 0), "  12 s  reading layers: 1.0 GiB");
        assert_eq!(line(Phase::Write, 1 << 29, 1 << 30), "  12 s  writing the output: 512.0 MiB of 1.0 GiB (50%)");
        assert_eq!(line(Phase::Read, 3, 2), "  12 s  reading layers: 3 B of 2 B (100%)");
    }

    #[test]
    fn a_watcher_ends_when_it_is_dropped() {
        let watcher = Watcher::start(ProgressMode::Bar, Arc::new(Monitor::default()), Duration::ZERO);
        std::thread::sleep(Duration::from_millis(20));
        let stop = Arc::clone(&watcher.stop);
        drop(watcher);
        assert_eq!(Arc::strong_count(&stop), 1, "the thread still runs");
    }
}
