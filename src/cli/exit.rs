use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use super::{hints, printer};
use crate::error::{Error, ErrorKind, Result};

/// The exit codes, as `--help` and README print them.
pub(super) const TABLE: [(&str, &str); 11] = [
    ("0", "done: the output is complete"),
    ("1", "anything not below"),
    ("2", "wrong use"),
    ("3", "the source is not there or cannot be read"),
    ("4", "the source is not a valid image, or holds something unsupported"),
    ("5", "a digest or hash does not match"),
    ("6", "daemon, network, authentication"),
    ("7", "no space"),
    ("8", "the output cannot be written, or exists"),
    ("70", "a bug of ours"),
    ("130, 143", "interrupted, terminated: nothing is left behind"),
];

/// What to do about an error that does not say so itself.
fn usual_remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Other => "run it again with -v, which shows every phase and request",
        ErrorKind::Usage => "\"sif-convert --help\" explains all options",
        ErrorKind::SourceUnavailable => "check that the source exists and that you may read it",
        ErrorKind::InvalidImage => "save or pull the image again",
        ErrorKind::Unsupported => "convert the image to another form first, for example with \"docker save\"",
        ErrorKind::Mismatch => "fetch the image again, or correct what is expected of it",
        ErrorKind::Network => "check the network, the daemon and your login, then try again",
        ErrorKind::NoSpace => "free space, or choose another disk with -o and --tmpdir",
        ErrorKind::Output => "check that the output's directory exists and that you may write there",
        ErrorKind::Bug => {
            concat!("please report this, with the command, at ", env!("CARGO_PKG_REPOSITORY"), "/issues")
        }
        ErrorKind::Interrupted | ErrorKind::Terminated => "run the same command again to start over",
    }
}

/// A failure in all that is ever said about it: on stderr, in the report, as a progress event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Failure {
    /// Stable name of its class.
    pub(super) kind: &'static str,
    /// What was being done, and what went wrong.
    pub(super) message: String,
    /// What led to it, nearest first.
    pub(super) causes: Vec<String>,
    /// What to do about it.
    pub(super) hint: String,
    pub(super) exit_code: u8,
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        let first = std::error::Error::source(error);
        let causes = std::iter::successors(first, |&cause| cause.source()).map(ToString::to_string).collect();
        Failure {
            kind: error.kind().name(),
            message: error.to_string(),
            causes,
            hint: hints::of(error).unwrap_or_else(|| usual_remedy(error.kind()).to_string()),
            exit_code: error.kind().exit_code(),
        }
    }

    /// The lines for people. The last one says what to do: it is the one that callers show.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("error: {}", self.message)];
        lines.extend(self.causes.iter().map(|cause| format!("caused by: {cause}")));
        lines.push(format!("hint: {}", self.hint));
        lines
    }
}

/// Has a panic say where it happened in one line; [`guarded`] turns it into an error.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        printer::line(&format!("panic at {place}: {}", panic_text(panic.payload())));
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            trace.to_string().lines().for_each(printer::line);
        }
    }));
}

/// Runs `work`; a panic in it unwinds (so that outputs are cleaned up) and comes out as [`ErrorKind::Bug`].
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(bug(&*payload)))
}

/// The error that a panic becomes.
pub(super) fn bug(payload: &(dyn std::any::Any + Send)) -> Error {
    Error::new(ErrorKind::Bug, format!("this program has a bug: {}", panic_text(payload)))
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [ErrorKind; 12] = [
        ErrorKind::Other,
        ErrorKind::Usage,
        ErrorKind::SourceUnavailable,
        ErrorKind::InvalidImage,
        ErrorKind::Unsupported,
        ErrorKind::Mismatch,
        ErrorKind::Network,
        ErrorKind::NoSpace,
        ErrorKind::Output,
        ErrorKind::Bug,
        ErrorKind::Interrupted,
        ErrorKind::Terminated,
    ];

    #[test]
    fn codes_are_those_of_the_table() {
        assert_eq!(KINDS.map(ErrorKind::exit_code), [1, 2, 3, 4, 4, 5, 6, 7, 8, 70, 130, 143]);
        let listed: Vec<u8> =
            TABLE.iter().flat_map(|(codes, _)| codes.split(", ")).map(|c| c.parse().unwrap()).collect();
        assert!(KINDS.iter().all(|&kind| listed.contains(&kind.exit_code())));
    }

    #[test]
    fn last_line_is_the_remedy() {
        for kind in KINDS {
            let lines = Failure::of(&Error::new(kind, "x")).lines();
            assert!(lines.last().unwrap().starts_with("hint: ") && lines.last().unwrap().len() > 12, "{lines:?}");
        }
        let cause = Error::new(ErrorKind::Other, "outer cause").because("inner cause");
        let error = Error::new(ErrorKind::Output, "no").doing("writing \"x\"").because(cause).hint("do this");
        assert_eq!(
            Failure::of(&error).lines(),
            ["error: writing \"x\": no", "caused by: outer cause", "caused by: inner cause", "hint: do this"]
        );
    }

    #[test]
    fn panics_become_bugs() {
        let error = guarded::<()>(|| panic!("index {}", 7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bug);
        assert_eq!(error.to_string(), "this program has a bug: index 7");
        assert_eq!(guarded(|| Ok(1)).unwrap(), 1);
    }
}
