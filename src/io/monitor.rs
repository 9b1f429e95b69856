use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// What a conversion is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Finding out what the source holds.
    Open,
    /// Reading layers.
    Read,
    /// Writing the output.
    Write,
    /// Checking digests that are still being computed.
    Verify,
    /// Putting the output in its place.
    Finish,
}

impl Phase {
    /// The phase as one word for people and for JSON.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Open => "open",
            Phase::Read => "read",
            Phase::Write => "write",
            Phase::Verify => "verify",
            Phase::Finish => "finish",
        }
    }
}

/// The one thing a running conversion shares with whoever watches it: how far it is, and whether it should stop.
///
/// Workers only count; a watcher looks when it likes, so heartbeats cost the work nothing.
#[derive(Debug, Default)]
pub struct Monitor {
    phase: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    stop: AtomicU8,
}

/// How far a conversion is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes to do in this phase; 0 where nobody knows.
    pub total_bytes: u64,
}

impl Monitor {
    /// Begins a phase of `total_bytes` (0: unknown).
    pub fn begin(&self, phase: Phase, total_bytes: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Counts bytes done.
    pub fn advance(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How far it is now.
    pub fn snapshot(&self) -> Snapshot {
        let phase = match self.phase.load(Ordering::Acquire) {
            0 => Phase::Open,
            1 => Phase::Read,
            2 => Phase::Write,
            3 => Phase::Verify,
            _ => Phase::Finish,
        };
        Snapshot {
            phase,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }

    /// Asks the conversion to stop with `kind` ([`ErrorKind::Interrupted`] or [`ErrorKind::Terminated`]).
    pub fn stop(&self, kind: ErrorKind) {
        let reason = if kind == ErrorKind::Interrupted { 1 } else { 2 };
        self.stop.store(reason, Ordering::Release);
    }

    /// To be asked once per chunk of work.
    ///
    /// # Errors
    /// When the conversion was asked to stop.
    pub fn check(&self) -> Result<()> {
        match self.stop.load(Ordering::Acquire) {
            0 => Ok(()),
            1 => {
                Err(Error::new(ErrorKind::Interrupted, "interrupted").hint("run the same command again to start over"))
            }
            _ => Err(Error::new(ErrorKind::Terminated, "terminated").hint("run the same command again to start over")),
        }
    }
}
