//! Shows how a batch gets on: a line for each image, and a bar over all.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::options::ProgressMode;
use super::printer::{self, Bytes, Voice, counted};
use crate::batch::{Entry, Row, Status, Summary, Watch};
use crate::io::Monitor;
use crate::model::{Grouped, Quoted};

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(200);
/// Longer silence is taken for a hang: then a plain line says what goes on.
const SILENCE_MAX: Duration = Duration::from_secs(10);

const TEMPLATE: &str = "[{wide_bar}] {pos}/{len} images, {msg} {elapsed}";

/// Shows progress until it is dropped.
pub(super) struct Board {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    voice: Voice,
    total: usize,
    bar: Option<ProgressBar>,
}

struct State {
    /// Images that are being worked on, with their names.
    running: BTreeMap<usize, (String, Monitor)>,
    over: usize,
    said: Instant,
    ended: bool,
}

impl Board {
    /// Shows how `total` images get on.
    pub(super) fn start(mode: ProgressMode, voice: Voice, total: usize) -> Self {
        let bar = (mode == ProgressMode::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar
        });
        let state = State { running: BTreeMap::new(), over: 0, said: Instant::now(), ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), voice, total, bar });
        let watching = Arc::clone(&shared);
        let is_shown = !matches!(mode, ProgressMode::None | ProgressMode::Json);
        // Where no thread can be started, lines alone tell.
        let thread = is_shown.then(|| std::thread::Builder::new().spawn(move || watching.watch()).ok()).flatten();
        Board { shared, thread }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Some(bar) = &self.shared.bar {
            bar.finish_and_clear();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.ended {
            let running: Vec<&str> = state.running.values().map(|(name, _)| name.as_str()).collect();
            let bytes: u64 = state.running.values().map(|(_, monitor)| monitor.snapshot().done_bytes).sum();
            let what = format!("{} ({})", running.join(" "), Bytes(bytes));
            match &self.bar {
                Some(bar) => {
                    bar.set_position(state.over as u64);
                    bar.set_message(what.chars().take(60).collect::<String>());
                    bar.tick();
                }
                None if !running.is_empty() && state.said.elapsed() > SILENCE_MAX => {
                    printer::line(&format!("[{}/{}] converting {what}", state.over, self.total));
                    state.said = Instant::now();
                }
                None => {}
            }
            state = self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Watch for Board {
    fn begun(&self, entry: &Entry, monitor: &Monitor) {
        self.shared.lock().running.insert(entry.number, (entry.output.clone(), monitor.clone()));
    }

    fn ended(&self, entry: &Entry, row: &Row) {
        let mut state = self.shared.lock();
        state.running.remove(&entry.number);
        // What was stopped is told at the end.
        if row.status == Status::Missing {
            return;
        }
        state.over += 1;
        state.said = Instant::now();
        let (number, total, voice) = (state.over, self.shared.total, self.shared.voice);
        // Lines stay in order, so the next one waits.
        match &self.shared.bar {
            Some(bar) => bar.suspend(|| tell(row, number, total, voice)),
            None => tell(row, number, total, voice),
        }
        drop(state);
    }
}

/// What became of all, as the last event of a batch.
#[derive(Serialize)]
pub(super) struct Ended {
    event: &'static str,
    done: usize,
    kept: usize,
    failed: usize,
    missing: usize,
    skipped: usize,
    downloaded_bytes: u64,
    cached_bytes: u64,
    seconds: f64,
}

impl Ended {
    /// `left_out`: how many tags were not asked for, for their names tell what they are.
    pub(super) fn of(summary: &Summary, left_out: usize, seconds: f64) -> Self {
        let sum = |count: fn(&Row) -> u64| summary.rows.iter().map(count).sum();
        Ended {
            event: "done",
            done: summary.count(Status::Done),
            kept: summary.count(Status::Kept),
            failed: summary.count(Status::Failed),
            missing: summary.count(Status::Missing),
            skipped: summary.count(Status::Skipped) + left_out,
            downloaded_bytes: sum(|row| row.downloaded_bytes),
            cached_bytes: sum(|row| row.cached_bytes),
            seconds: (seconds * 1000.0).round() / 1000.0,
        }
    }

    /// The same for people.
    pub(super) fn line(&self) -> String {
        let Ended { done, kept, failed, missing, skipped, downloaded_bytes, cached_bytes, seconds, .. } = *self;
        let count = |number: usize| Grouped(number as u64);
        let mut text = format!("{} converted, {} kept, {} failed", count(done), count(kept), count(failed));
        if missing > 0 {
            text.push_str(&format!(", {} missing", count(missing)));
        }
        if skipped > 0 {
            text.push_str(&format!(
                ", {} skipped",
                counted(skipped as u64, "tag that is not an image", "tags that are not images")
            ));
        }
        if downloaded_bytes + cached_bytes > 0 {
            let (came, were_there) = (Bytes(downloaded_bytes), Bytes(cached_bytes));
            text.push_str(&format!("; downloaded {came}, found {were_there} in the cache"));
        }
        format!("{text}; {seconds:.1} s")
    }
}

/// The line of an image.
fn line(row: &Row, number: usize, total: usize) -> String {
    let source = Quoted(row.source.as_bytes());
    let place = format!("[{number}/{total}]");
    match &row.error {
        Some(trouble) => format!("{place} {} {source}: {}", row.status.word(), trouble.message),
        None => {
            let bytes = row.bytes.map_or(String::new(), |bytes| format!(" {}", Bytes(bytes)));
            let seconds = if row.status == Status::Done { format!(" {:.1} s", row.seconds) } else { String::new() };
            format!("{place} {} {source}: {}{bytes}{seconds}", row.status.word(), row.output)
        }
    }
}

/// What is said of an image where events are wanted.
#[derive(Serialize)]
struct ImageEvent<'a> {
    event: &'static str,
    total: usize,
    #[serde(flatten)]
    row: &'a Row,
}

/// Tells of an image, in the form that is wanted.
fn tell(row: &Row, number: usize, total: usize, voice: Voice) {
    if voice.json {
        printer::event(&ImageEvent { event: "image", total, row });
    } else if row.status == Status::Failed || !voice.quiet {
        printer::line(&line(row, number, total));
        if let (Status::Failed, Some(error)) = (row.status, &row.error) {
            printer::line(&format!("hint: {}", error.hint));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }

    #[test]
    fn a_board_ends_when_it_is_dropped() {
        let board = Board::start(ProgressMode::Plain, Voice { quiet: true, ..Voice::default() }, 3);
        let shared = Arc::clone(&board.shared);
        drop(board);
        assert_eq!(Arc::strong_count(&shared), 1, "the thread still runs");
    }
}
