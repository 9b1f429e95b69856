//! Bars on a terminal: one for the phase, one for each download. indicatif lays a row out; `screen` draws the rows.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::pace::{Pace, Span};
use super::{View, doing, percent};
use crate::cli::printer::{self, Bytes};
use crate::cli::screen;
use crate::io::{Download, Monitor, Phase, Snapshot};

/// What ends sooner is not worth a flash.
const FIRST_AFTER: Duration = Duration::from_millis(200);
/// A bar that is shorter says less than numbers do, in columns with its brackets.
const BAR_MIN: usize = 14;
/// Where the screen is narrower, labels are words.
const LONG_LABELS_FROM: usize = 60;

/// The bars of a conversion.
pub(super) struct Bars {
    monitor: Monitor,
    pace: Pace,
    main: Row,
    downloads: Vec<(Arc<Download>, Row)>,
}

impl Bars {
    pub(super) fn new(monitor: Monitor) -> Self {
        Bars { monitor, pace: Pace::default(), main: Row::new(), downloads: Vec::new() }
    }

    fn rows(&mut self, now: Snapshot, elapsed: Duration, (columns, rows): (usize, usize)) -> Vec<String> {
        self.pace.see(now, elapsed);
        let mut drawn = vec![self.main.drawn(&Layout::of_phase(now, elapsed, &self.pace, columns), columns)];
        let current = self.monitor.downloads();
        self.downloads.retain(|(shown, _)| current.iter().any(|each| Arc::ptr_eq(shown, each)));
        for download in current {
            if !self.downloads.iter().any(|(shown, _)| Arc::ptr_eq(shown, &download)) {
                self.downloads.push((download, Row::new()));
            }
        }
        // The line above the bars stays in sight.
        for (download, row) in self.downloads.iter().take(rows.saturating_sub(2)) {
            drawn.push(row.drawn(&Layout::of_download(download, columns), columns));
        }
        drawn
    }
}

impl View for Bars {
    fn show(&mut self, now: Snapshot, elapsed: Duration) {
        if elapsed >= FIRST_AFTER {
            let size = screen::size();
            screen::draw(&self.rows(now, elapsed, size));
        }
    }

    fn end(&mut self) {
        screen::draw(&[]);
    }
}

/// What one row says.
#[derive(Debug, PartialEq)]
struct Layout {
    label: String,
    /// Done and all, where there is room for a bar between label and tail.
    bar: Option<(u64, u64)>,
    tail: String,
}

impl Layout {
    fn of_phase(now: Snapshot, elapsed: Duration, pace: &Pace, columns: usize) -> Self {
        let label =
            if columns >= LONG_LABELS_FROM { format!("{:20}", doing(now.phase)) } else { word(now.phase).into() };
        let (done, total) = (now.done_bytes, now.total_bytes);
        if total == 0 {
            let done = if done > 0 { Some(Bytes(done).to_string()) } else { None };
            let parts = [done, Some(Span(elapsed).to_string())];
            return Layout::fitted(label, None, &parts, columns);
        }
        // The most wanted first; those for which there is no room are left out.
        let parts = [
            Some(percent(done, total)),
            pace.left(total).map(|left| format!("{} left", Span(left))),
            Some(format!("{} of {}", Bytes(done), Bytes(total))),
            pace.rate().map(|rate| format!("{}/s", Bytes(rate as u64))),
        ];
        Layout::fitted(label, Some((done, total)), &parts, columns)
    }

    fn of_download(download: &Download, columns: usize) -> Self {
        let (done, total) = (download.done_bytes(), download.total_bytes);
        let label = format!("  {}", short(&download.name, if columns >= LONG_LABELS_FROM { 18 } else { 8 }));
        let label = if columns >= LONG_LABELS_FROM { format!("{label:20}") } else { label };
        if total == 0 {
            return Layout::fitted(label, None, &[Some(Bytes(done).to_string())], columns);
        }
        let parts = [Some(percent(done, total)), Some(format!("{} of {}", Bytes(done), Bytes(total)))];
        Layout::fitted(label, Some((done, total)), &parts, columns)
    }

    /// Takes as many `parts` as fit beside a bar; where not even the first does, there is no bar.
    fn fitted(label: String, bar: Option<(u64, u64)>, parts: &[Option<String>], columns: usize) -> Self {
        let fits = |tail: &str, room: usize| label.len() + 2 + tail.len() + room < columns;
        let room = if bar.is_some() { BAR_MIN + 2 } else { 0 };
        let (mut tail, mut has_bar) = (String::new(), false);
        for part in parts.iter().flatten() {
            let longer = if tail.is_empty() { part.clone() } else { format!("{tail}  {part}") };
            if fits(&longer, room) {
                (tail, has_bar) = (longer, true);
            } else if tail.is_empty() && fits(part, 0) {
                tail.clone_from(part);
                break;
            }
        }
        Layout { label, bar: bar.filter(|_| has_bar), tail }
    }
}

/// One row, as indicatif lays it out.
struct Row {
    paper: Paper,
    bar: ProgressBar,
}

impl Row {
    fn new() -> Self {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let bar = ProgressBar::no_length();
        bar.set_draw_target(target);
        Row { paper, bar }
    }

    fn drawn(&self, layout: &Layout, columns: usize) -> String {
        // A row as wide as the screen would leave the cursor beyond its end, where erasing takes the last character along.
        self.paper.lock().columns = columns.saturating_sub(1);
        let (on, off) = if printer::is_coloured() { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
        let template = match layout.bar {
            Some(_) => format!("{{msg}} [{on}{{wide_bar}}{off}] {{prefix}}"),
            None => "{msg}  {prefix}".to_string(),
        };
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style.progress_chars("=> "));
        self.bar.set_message(layout.label.clone());
        self.bar.set_prefix(layout.tail.clone());
        if let Some((done, total)) = layout.bar {
            self.bar.set_length(total);
            self.bar.set_position(done.min(total));
        }
        self.bar.tick();
        self.paper.lock().text.trim_end().to_string()
    }
}

/// What indicatif takes for a terminal of one row.
#[derive(Debug, Clone, Default)]
struct Paper(Arc<Mutex<Sheet>>);

#[derive(Debug, Default)]
struct Sheet {
    columns: usize,
    text: String,
}

impl Paper {
    fn lock(&self) -> MutexGuard<'_, Sheet> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TermLike for Paper {
    fn width(&self) -> u16 {
        self.lock().columns.try_into().unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        1
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        let _ = self.lock().text.write_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.lock().text.clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A phase as one word.
fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "opening",
        Phase::Wait => "waiting",
        Phase::Read => "reading",
        Phase::Write => "writing",
        Phase::Verify => "checking",
        Phase::Push => "pushing",
        Phase::Finish => "finishing",
    }
}

/// The first characters of a name.
fn short(name: &str, most: usize) -> String {
    let safe = name.chars().map(|each| if each.is_ascii_graphic() { each } else { '?' });
    safe.take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A phase half done after 8 seconds.
    fn bars(phase: Phase, total_bytes: u64) -> (Bars, Snapshot) {
        let mut bars = Bars::new(Monitor::default());
        let at = |done_bytes| Snapshot { phase, done_bytes, total_bytes, received_bytes: 0, receivable_bytes: 0 };
        (0..8).for_each(|second| {
            bars.pace.see(at(second << 27), Duration::from_secs(second));
        });
        (bars, at(1 << 30))
    }

    fn rows(phase: Phase, total_bytes: u64, columns: usize) -> Vec<String> {
        let (mut bars, now) = bars(phase, total_bytes);
        bars.rows(now, Duration::from_secs(8), (columns, 24))
    }

    #[test]
    fn a_bar_fits_every_screen() {
        insta::assert_snapshot!(
            [20, 40, 80, 120].map(|columns| rows(Phase::Write, 2 << 30, columns).join("\n")).join("\n"), @r"
        writing  50%
        writing [=======>       ] 50%  8 s left
        writing the output   [===========>          ] 50%  8 s left  1.0 GiB of 2.0 GiB
        writing the output   [========================>                        ] 50%  8 s left  1.0 GiB of 2.0 GiB  128.0 MiB/s
        ");
        insta::assert_snapshot!([20, 40, 80].map(|columns| rows(Phase::Read, 0, columns).join("\n")).join("\n"), @r"
        reading  1.0 GiB
        reading  1.0 GiB  8 s
        reading layers        1.0 GiB  8 s
        ");
        for columns in 1..250 {
            for total in [0, 2 << 30, u64::MAX] {
                let rows = rows(Phase::Finish, total, columns);
                assert!(rows.iter().all(|row| row.len() < columns.max(2)), "{columns}: {rows:?}");
            }
        }
    }

    #[test]
    fn downloads_have_rows_as_many_as_the_screen_has() {
        let (mut bars, now) = bars(Phase::Read, 2 << 30);
        let counters: Vec<_> =
            (0..9).map(|number| bars.monitor.begin_download(format!("{number}5e1c9a2b10"), 40 << 20)).collect();
        counters.iter().for_each(|counter| counter.advance(10 << 20));
        let mut rows = |size| bars.rows(now, Duration::from_secs(8), size);
        assert_eq!(rows((80, 24)).len(), 10);
        assert_eq!(rows((80, 5)).len(), 4);
        insta::assert_snapshot!(rows((80, 3)).join("\n"), @r"
        reading layers       [===========>          ] 50%  8 s left  1.0 GiB of 2.0 GiB
          05e1c9a2b10        [=======>                      ] 25%  10.0 MiB of 40.0 MiB
        ");
        drop(counters);
        assert_eq!(bars.rows(now, Duration::from_secs(9), (80, 24)).len(), 1);
    }
}
