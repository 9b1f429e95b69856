//! One error type for the whole crate: what kind it is (exit codes follow from that), what was being done, what went
//! wrong, and what the user can do about it.
//!
//! An error is built where the trouble is found and gains a frame of context at every boundary it crosses, so that the
//! printed line reads from the outside in: `reading layer 3 of docker-archive "x.tar": digest mismatch: …`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

mod remedy;

pub use remedy::Remedy;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The class of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything that fits nowhere else.
    Other,
    /// The caller asked for something that makes no sense.
    Usage,
    /// The source does not exist or cannot be read.
    SourceUnavailable,
    /// The source is readable but not a valid image.
    InvalidImage,
    /// The source is valid but uses something this version does not support.
    Unsupported,
    /// A digest or hash is not what it should be.
    Mismatch,
    /// A daemon, the network or authentication failed.
    Network,
    /// There is no room on a file system.
    NoSpace,
    /// The output cannot be written, or exists already.
    Output,
    /// A bug of ours.
    Bug,
    /// SIGINT arrived.
    Interrupted,
    /// SIGTERM (or SIGHUP) arrived.
    Terminated,
}

impl ErrorKind {
    /// Its name in reports and records, which stays.
    pub fn name(self) -> &'static str {
        self.identity().0
    }

    /// With what the program ends for it.
    pub fn exit_code(self) -> u8 {
        self.identity().1
    }

    fn identity(self) -> (&'static str, u8) {
        match self {
            ErrorKind::Other => ("other", 1),
            ErrorKind::Usage => ("usage", 2),
            ErrorKind::SourceUnavailable => ("source-unavailable", 3),
            ErrorKind::InvalidImage => ("invalid-image", 4),
            ErrorKind::Unsupported => ("unsupported", 4),
            ErrorKind::Mismatch => ("mismatch", 5),
            ErrorKind::Network => ("network", 6),
            ErrorKind::NoSpace => ("no-space", 7),
            ErrorKind::Output => ("output", 8),
            ErrorKind::Bug => ("bug", 70),
            ErrorKind::Interrupted => ("interrupted", 130),
            ErrorKind::Terminated => ("terminated", 143),
        }
    }
}

/// An error that knows its kind, its place and its remedy.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    /// Innermost first; printed outermost first.
    context: Vec<String>,
    message: String,
    hint: Option<String>,
    remedy: Option<Remedy>,
    path: Option<PathBuf>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    io: Option<Arc<io::Error>>,
    is_artifact: bool,
}

impl Error {
    /// A new error. `message` is lower case, names quoted, no final period.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Error(Box::new(Inner {
            kind,
            context: Vec::new(),
            message: message.to_string(),
            hint: None,
            remedy: None,
            path: None,
            cause: None,
            io: None,
            is_artifact: false,
        }))
    }

    /// Wraps an I/O error. A full disk becomes [`ErrorKind::NoSpace`] whatever `kind` says, and an [`Error`] that
    /// travelled through an [`io::Error`] (see [`Error::into_io`]) comes out as it went in.
    pub fn io(kind: ErrorKind, error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => {
                let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                let kind = if full { ErrorKind::NoSpace } else { kind };
                let mut wrapped = Error::new(kind, &error);
                wrapped.0.cause = std::error::Error::source(&error).map(|c| c.to_string().into());
                let errno = Errno::from_io_error(&error);
                wrapped.0.io = Some(Arc::new(error));
                match errno {
                    Some(Errno::FBIG) => wrapped.hint("see whether a limit is in the way: ulimit -f"),
                    Some(Errno::MLINK) => {
                        wrapped.hint("this file system allows no more names of one file: write to another")
                    }
                    Some(Errno::MFILE) => wrapped.hint("see whether a limit is in the way: ulimit -n"),
                    _ => wrapped,
                }
            }
        }
    }

    /// Lets this error pass through an interface that speaks [`io::Error`], such as [`io::Read`].
    pub fn into_io(self) -> io::Error {
        io::Error::other(self)
    }

    /// Adds what was being done, as seen from one level further out.
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.0.context.push(what.to_string());
        self
    }

    /// Says what the user can do about it. The innermost hint wins: it knows most.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint.get_or_insert_with(|| hint.to_string());
        self
    }

    /// Says which choice of the caller's mends it. As with [`Error::hint`], the innermost wins.
    pub fn with_remedy(mut self, remedy: Remedy) -> Self {
        if self.0.hint.is_none() {
            self.0.hint = Some(remedy.to_string());
            self.0.remedy = Some(remedy);
        }
        self
    }

    /// Says which file or directory it is about. The innermost wins.
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// Records the error that led to this one; printed as `caused by: …`.
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The same error once more, for who comes to the same trouble again.
    pub(crate) fn again(&self) -> Self {
        let mut error = Error::new(self.0.kind, &self.0.message);
        error.0.context.clone_from(&self.0.context);
        error.0.hint.clone_from(&self.0.hint);
        error.0.remedy.clone_from(&self.0.remedy);
        error.0.path.clone_from(&self.0.path);
        error.0.cause = self.0.cause.as_ref().map(|cause| cause.to_string().into());
        error.0.io.clone_from(&self.0.io);
        error.0.is_artifact = self.0.is_artifact;
        error
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The kind of the I/O error that this began as, where it did.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.io_error().map(io::Error::kind)
    }

    /// The I/O error that this began as, where it did: its text is in the message, and therefore not among the causes.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.0.io.as_deref()
    }

    /// Says that what should be an image is something else that registries hold.
    pub(crate) fn of_artifact(mut self) -> Self {
        self.0.is_artifact = true;
        self
    }

    /// Whether what should be an image is something else that registries hold: a SIF file, a signature, a chart.
    pub fn is_artifact(&self) -> bool {
        self.0.is_artifact
    }

    /// What to do about it, where something can be done.
    pub fn remedy(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Which choice of the caller's mends it, where one does.
    pub fn remedy_kind(&self) -> Option<&Remedy> {
        self.0.remedy.as_ref()
    }

    /// The file or directory that it is about, where one is known.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for frame in self.0.context.iter().rev() {
            write!(f, "{frame}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| &**cause as &(dyn std::error::Error + 'static))
    }
}

/// Context for results: `.doing(|| format!("reading {name}"))`.
pub trait ResultExt<T> {
    /// Adds what was being done, evaluated only on failure.
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn doing<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.doing(what()))
    }
}

/// Turns I/O results into ours: `.or_kind(ErrorKind::Output)`.
pub trait IoResultExt<T> {
    /// Wraps the I/O error with `kind` (see [`Error::io`]).
    fn or_kind(self, kind: ErrorKind) -> Result<T>;
}

impl<T> IoResultExt<T> for io::Result<T> {
    fn or_kind(self, kind: ErrorKind) -> Result<T> {
        self.map_err(|error| Error::io(kind, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_stays() {
        let failed = || io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error());
        let error = Error::io(ErrorKind::Output, failed()).doing("writing").again();
        assert_eq!(error.io_error().and_then(io::Error::raw_os_error), failed().raw_os_error());
        assert_eq!(error.io_kind(), Some(io::ErrorKind::PermissionDenied));
        assert_eq!(error.to_string(), format!("writing: {}", failed()));
        assert!(std::error::Error::source(&error).is_none());
        let passed = Error::io(ErrorKind::Other, Error::new(ErrorKind::Usage, "ours").into_io());
        assert!(passed.kind() == ErrorKind::Usage && passed.io_error().is_none());
    }
}
