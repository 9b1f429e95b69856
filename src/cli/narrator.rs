use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::printer;
use super::progress::doing;
use crate::io::{Event, Monitor, Phase};

/// Tells what a conversion does, line by line, for those who said `-v`.
#[derive(Clone)]
pub(super) struct Narrator(Arc<Mutex<Current>>);

/// The phase that is going on, and since when.
struct Current {
    phase: Option<Phase>,
    since: Instant,
}

impl Narrator {
    /// Tells what happens on `monitor`.
    pub(super) fn follow(monitor: &Monitor) -> Self {
        let narrator = Narrator(Arc::new(Mutex::new(Current { phase: None, since: Instant::now() })));
        let listener = narrator.clone();
        monitor.listen(move |event| match event {
            Event::Phase(phase) => listener.turn_to(Some(phase)),
            Event::Done => listener.end(),
            Event::Request { method, url, outcome, took } => {
                printer::line(&format!("{method} {url}: {outcome}, {}", seconds(took)));
            }
        });
        narrator
    }

    /// Tells how long the last phase took.
    pub(super) fn end(&self) {
        self.turn_to(None);
    }

    fn turn_to(&self, next: Option<Phase>) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.phase == next {
            return;
        }
        if let Some(ended) = current.phase {
            printer::line(&format!("{}: {}", doing(ended), seconds(current.since.elapsed())));
        }
        *current = Current { phase: next, since: Instant::now() };
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
