use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::io::{Phase, Snapshot};

/// Over how long the rate is taken: long enough to be steady, short enough to notice a change.
const WINDOW: Duration = Duration::from_secs(10);
/// Nothing is said of a rate that was seen for a shorter time than this: what a buffer swallows at once is none.
const RATE_AFTER: Duration = Duration::from_secs(1);
/// Nor of the time that is left.
const LEFT_AFTER: Duration = Duration::from_secs(2);

/// How fast a phase goes on.
#[derive(Debug, Default)]
pub(super) struct Pace {
    phase: Option<Phase>,
    /// When, and how many bytes were done then; the oldest first.
    seen: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// Takes note of how far it is `now`, which is `elapsed` after the start.
    pub(super) fn see(&mut self, now: Snapshot, elapsed: Duration) {
        let went_back = self.seen.back().is_some_and(|&(_, done)| now.done_bytes < done);
        if self.phase != Some(now.phase) || went_back {
            (self.phase, self.seen) = (Some(now.phase), VecDeque::new());
        }
        self.seen.push_back((elapsed, now.done_bytes));
        while self.seen.get(1).is_some_and(|&(at, _)| elapsed.saturating_sub(at) >= WINDOW) {
            self.seen.pop_front();
        }
    }

    /// Bytes a second, once there is something to tell.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate_over(RATE_AFTER)
    }

    /// How long it takes until `total_bytes` are done, once there is something to tell.
    pub(super) fn left(&self, total_bytes: u64) -> Option<Duration> {
        let rate = self.rate_over(LEFT_AFTER)?;
        let (_, done) = self.seen.back()?;
        let seconds = total_bytes.checked_sub(*done)? as f64 / rate;
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn rate_over(&self, least: Duration) -> Option<f64> {
        let (&(first, before), &(last, done)) = (self.seen.front()?, self.seen.back()?);
        let seconds = (last.saturating_sub(first) >= least).then(|| (last - first).as_secs_f64())?;
        (done > before).then(|| (done - before) as f64 / seconds)
    }
}

/// A duration in its two largest units: "7 s", "3 min 5 s", "2 h 10 min".
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, seconds) => write!(f, "{seconds} s"),
            (0, minutes, seconds) => write!(f, "{minutes} min {seconds} s"),
            (hours, minutes, _) => write!(f, "{hours} h {minutes} min"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase, done_bytes: u64) -> Snapshot {
        Snapshot { phase, done_bytes, total_bytes: 1000, received_bytes: 0, receivable_bytes: 0 }
    }

    #[test]
    fn there_is_no_rate_before_there_is_one() {
        let mut pace = Pace::default();
        let seconds = Duration::from_secs_f64;
        pace.see(at(Phase::Read, 0), seconds(0.0));
        pace.see(at(Phase::Read, 500), seconds(0.1));
        assert_eq!((pace.rate(), pace.left(1000)), (None, None), "a tenth of a second tells nothing");
        pace.see(at(Phase::Read, 500), seconds(1.0));
        assert_eq!((pace.rate(), pace.left(1000)), (Some(500.0), None));
        pace.see(at(Phase::Read, 600), seconds(2.0));
        assert_eq!((pace.rate(), pace.left(1000)), (Some(300.0), Some(Duration::from_secs_f64(400.0 / 300.0))));
        pace.see(at(Phase::Write, 600), seconds(4.0));
        assert_eq!(pace.rate(), None, "another phase has a rate of its own");
        pace.see(at(Phase::Write, 600), seconds(6.0));
        assert_eq!((pace.rate(), pace.left(1000)), (None, None), "what stands still has none");
    }

    #[test]
    fn only_the_last_seconds_count() {
        let mut pace = Pace::default();
        for second in 0..60 {
            let done = if second < 30 { second * 100 } else { 3000 + (second - 30) * 10 };
            pace.see(at(Phase::Read, done), Duration::from_secs(second));
        }
        assert_eq!(pace.rate(), Some(10.0));
    }

    #[test]
    fn spans_are_short() {
        let span = |seconds| Span(Duration::from_secs(seconds)).to_string();
        assert_eq!([0, 59, 60, 185, 7800].map(span), ["0 s", "59 s", "1 min 0 s", "3 min 5 s", "2 h 10 min"]);
    }
}
