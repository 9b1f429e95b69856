use std::fmt;

use crate::error::{Error, ErrorKind};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Readers refuse the file, or read something else than was written.
    Error,
    /// Legal, but not what a freshly made container holds: worth a look.
    Notice,
    /// Bytes that no reader looks at and that should be zero are not.
    Padding,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The byte it is about, from the start of the file.
    pub offset: u64,
    /// How much it matters.
    pub severity: Severity,
    /// A stable word for programs: `magic`, `overlap`, `reserved-bytes`, …
    pub code: &'static str,
    /// One sentence for people, lower case, no final period.
    pub message: String,
}

impl Finding {
    pub(super) fn error(offset: u64, code: &'static str, message: impl Into<String>) -> Self {
        Finding { offset, severity: Severity::Error, code, message: message.into() }
    }

    pub(super) fn notice(offset: u64, code: &'static str, message: impl Into<String>) -> Self {
        Finding { offset, severity: Severity::Notice, code, message: message.into() }
    }

    pub(super) fn padding(offset: u64, code: &'static str, message: impl Into<String>) -> Self {
        Finding { offset, severity: Severity::Padding, code, message: message.into() }
    }

    /// The finding as the error of a reader that cannot go on.
    pub(super) fn into_error(self) -> Error {
        let kind = if self.code == "version" { ErrorKind::Unsupported } else { ErrorKind::InvalidImage };
        Error::new(kind, &self)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset, self.message)
    }
}
