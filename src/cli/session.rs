//! How a command runs: with signals heard and progress shown, its end recorded and said.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use super::environment::Environment;
use super::exit::{Failure, guarded};
use super::narrator::Narrator;
use super::options::{Feedback, ProgressMode, voice};
use super::printer::{self, Voice};
use super::progress::Watcher;
use super::report::{Recorder, Status};
use super::screen;
use super::signals::{Listener, Quit};
use crate::error::{Error, Result};
use crate::io::Monitor;
use crate::model::Note;
use crate::output::{CACHE_USED, REUSED};

/// How long what only looks works in silence: it has its answer at once, unless it must unpack an archive to get at it.
const LOOKING_GRACE: Duration = Duration::from_secs(2);

/// Runs what prints a page and leaves nothing else behind.
pub(super) fn page(
    feedback: &Feedback,
    environment: &Environment,
    quit: Quit,
    work: impl FnOnce(Voice, &Arc<Monitor>) -> Result<String>,
) -> u8 {
    printed(|| {
        let (voice, mode) = voice(feedback, environment)?;
        let recorder = Arc::new(Recorder::new(None, &[])?);
        let page = supervised((mode, LOOKING_GRACE), voice, &recorder, quit, |monitor| work(voice, monitor))?;
        printer::data(page.as_bytes())
    })
}

/// Runs what prints as it goes and leaves nothing else behind.
pub(super) fn stream(
    feedback: &Feedback,
    environment: &Environment,
    quit: Quit,
    work: impl FnOnce(Voice, &Arc<Monitor>) -> Result<()>,
) -> u8 {
    printed(|| {
        let (voice, mode) = voice(feedback, environment)?;
        let recorder = Arc::new(Recorder::new(None, &[])?);
        supervised((mode, LOOKING_GRACE), voice, &recorder, quit, |monitor| work(voice, monitor))
    })
}

/// A command that leaves an output and a report behind.
pub(super) struct Session {
    pub(super) voice: Voice,
    pub(super) recorder: Arc<Recorder>,
    mode: ProgressMode,
    quit: Quit,
}

impl Session {
    /// Runs `work`, writes the report to `report`, and says how it went; the exit code.
    pub(super) fn record(
        (feedback, report): (&Feedback, Option<&OsStr>),
        words: &[OsString],
        environment: &Environment,
        quit: Quit,
        work: impl FnOnce(&Session) -> Result<()>,
    ) -> u8 {
        let (voice, mode) = match voice(feedback, environment) {
            Ok(both) => both,
            Err(error) => return misuse(error, words, Voice::default()),
        };
        let recorder = match Recorder::new(report, words) {
            Ok(recorder) => Arc::new(recorder),
            Err(error) => return failed(&error, voice),
        };
        let session = Session { voice, recorder, mode, quit };
        let result = guarded(|| work(&session));
        conclude(result, voice, &session.recorder)
    }

    /// How progress is shown.
    pub(super) fn mode(&self) -> ProgressMode {
        self.mode
    }

    /// Runs the part of the work that takes its time and shows itself how far it is: signals stop it.
    pub(super) fn supervise_quietly(&self, work: impl FnOnce(&Monitor) -> Result<()>) -> Result<()> {
        supervised((ProgressMode::None, Duration::ZERO), self.voice, &self.recorder, self.quit, |monitor| work(monitor))
    }

    /// Runs the part of the work that takes its time: signals stop it, and progress is shown.
    pub(super) fn supervise(&self, work: impl FnOnce(&Monitor) -> Result<()>) -> Result<()> {
        supervised((self.mode, Duration::ZERO), self.voice, &self.recorder, self.quit, |monitor| work(monitor))
    }
}

/// Runs what prints to standard output and does nothing else.
pub(super) fn printed(work: impl FnOnce() -> Result<()>) -> u8 {
    match guarded(work) {
        Err(error) if !is_broken_pipe(&error) => failed(&error, Voice::default()),
        _ => 0,
    }
}

/// Ends what could not be parsed. Its report is written all the same, where the words say where.
pub(super) fn misuse(error: Error, words: &[OsString], voice: Voice) -> u8 {
    match Recorder::new(report_in(words).as_deref(), words) {
        Ok(recorder) => conclude(Err(error), voice, &recorder),
        Err(_) => failed(&error, voice),
    }
}

fn failed(error: &Error, voice: Voice) -> u8 {
    let failure = Failure::of(error);
    voice.failure(&failure);
    failure.exit_code
}

/// Runs `work` with signals heard, and with progress shown in some mode after some time.
fn supervised<T>(
    (mode, grace): (ProgressMode, Duration),
    voice: Voice,
    recorder: &Arc<Recorder>,
    quit: Quit,
    work: impl FnOnce(&Arc<Monitor>) -> Result<T>,
) -> Result<T> {
    let monitor = Arc::new(Monitor::default());
    let for_signals = Arc::clone(recorder);
    let abandon = move |kind| {
        // An unfinished output that has a name (see `io::Output`) is swept by the next run.
        let failure = Failure::of(&Error::new(kind, "stopped by a signal"));
        for_signals.abandon(&failure);
        screen::close();
        voice.failure(&failure);
    };
    let listener = Listener::start(Arc::clone(&monitor), abandon, quit)?;
    let narrator = (voice.verbose && !voice.json).then(|| Narrator::follow(&monitor));
    let watcher = Watcher::start(mode, Arc::clone(&monitor), grace);
    let result = guarded(|| work(&monitor));
    listener.settled();
    drop(watcher);
    narrator.iter().for_each(Narrator::end);
    result
}

/// Writes the report and says what has not been said. A report that cannot be written makes a success a failure, for
/// someone waits for it; of two failures the first counts.
fn conclude(result: Result<()>, voice: Voice, recorder: &Recorder) -> u8 {
    let failure = result.as_ref().err().map(Failure::of);
    let status = match result {
        Ok(()) => Status::Ok,
        Err(_) => Status::Error,
    };
    // That an output was reused is said by the line that ends a success.
    let warned = |note: &&Note| voice.json || ![REUSED, CACHE_USED].contains(&note.code);
    recorder.record(|report| report.notes.iter().filter(warned).for_each(|note| voice.warning(note)));
    let written = recorder.conclude(status, failure.as_ref());
    match (failure, written) {
        (Some(failure), written) => {
            if let Err(error) = written {
                voice.warning(&Note::new("report-not-written", error.to_string(), 1));
            }
            voice.failure(&failure);
            failure.exit_code
        }
        (None, Err(error)) if !is_broken_pipe(&error) => failed(&error, voice),
        (None, _) => 0,
    }
}

/// Whether this began as a write to a pipe that nobody reads any more.
fn is_broken_pipe(error: &Error) -> bool {
    error.io_kind() == Some(std::io::ErrorKind::BrokenPipe)
}

/// Where `--report` points in arguments that could not be parsed as a whole.
fn report_in(arguments: &[OsString]) -> Option<OsString> {
    let mut words = arguments.iter().skip(1).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == "--report" {
            return words.next().cloned();
        }
        if let Some(value) = word.as_bytes().strip_prefix(b"--report=") {
            return Some(OsStr::from_bytes(value).to_os_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("convert").chain(line.split(' ')).map(OsString::from).collect()
    }

    #[test]
    fn report_is_found_in_what_cannot_be_parsed() {
        let found = |line: &str| report_in(&words(line));
        assert_eq!(found("--bad --report r.json x").unwrap(), "r.json");
        assert_eq!(found("x --report=r.json").unwrap(), "r.json");
        assert_eq!(found("x -- --report r.json"), None);
        assert_eq!(found("x --report"), None);
    }
}
