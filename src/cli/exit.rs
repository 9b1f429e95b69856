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

/// One class of errors: its exit code, its stable name in reports, and what to do where the error itself does not say.
struct Class {
    code: u8,
    name: &'static str,
    remedy: &'static str,
}

const fn class(code: u8, name: &'static str, remedy: &'static str) -> Class {
    Class { code, name, remedy }
}

fn class_of(kind: ErrorKind) -> Class {
    match kind {
        ErrorKind::Other => class(1, "other", "run it again with -v, which shows every phase and request"),
        ErrorKind::Usage => class(2, "usage", "\"sif-convert --help\" explains all options"),
        ErrorKind::SourceUnavailable => {
            class(3, "source-unavailable", "check that the source exists and that you may read it")
        }
        ErrorKind::InvalidImage => class(4, "invalid-image", "save or pull the image again"),
        ErrorKind::Unsupported => {
            class(4, "unsupported", "convert the image to another form first, for example with \"docker save\"")
        }
        ErrorKind::Mismatch => class(5, "mismatch", "fetch the image again, or correct what is expected of it"),
        ErrorKind::Network => class(6, "network", "check the network, the daemon and your login, then try again"),
        ErrorKind::NoSpace => class(7, "no-space", "free space, or choose another disk with -o and --tmpdir"),
        ErrorKind::Output => {
            class(8, "output", "check that the output's directory exists and that you may write there")
        }
        ErrorKind::Bug => class(
            70,
            "bug",
            concat!("please report this, with the command, at ", env!("CARGO_PKG_REPOSITORY"), "/issues"),
        ),
        ErrorKind::Interrupted => class(130, "interrupted", "run the same command again to start over"),
        ErrorKind::Terminated => class(143, "terminated", "run the same command again to start over"),
    }
}

/// The process exit code for an error of this kind.
pub(super) fn code(kind: ErrorKind) -> u8 {
    class_of(kind).code
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
        let class = class_of(error.kind());
        let first = std::error::Error::source(error);
        let causes = std::iter::successors(first, |&cause| cause.source()).map(ToString::to_string).collect();
        Failure {
            kind: class.name,
            message: error.to_string(),
            causes,
            hint: hints::of(error).unwrap_or_else(|| class.remedy.to_string()),
            exit_code: class.code,
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
        assert_eq!(KINDS.map(code), [1, 2, 3, 4, 4, 5, 6, 7, 8, 70, 130, 143]);
        let listed: Vec<u8> =
            TABLE.iter().flat_map(|(codes, _)| codes.split(", ")).map(|c| c.parse().unwrap()).collect();
        assert!(KINDS.iter().all(|&kind| listed.contains(&code(kind))));
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
