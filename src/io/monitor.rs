use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// What a conversion is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum Phase {
    /// Finding out what the source holds.
    Open,
    /// Waiting for another conversion, which works on the same layer.
    Wait,
    /// Reading layers.
    Read,
    /// Writing the output.
    Write,
    /// Pushing the output to a registry.
    Push,
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
            Phase::Wait => "wait",
            Phase::Read => "read",
            Phase::Write => "write",
            Phase::Push => "push",
            Phase::Verify => "verify",
            Phase::Finish => "finish",
        }
    }
}

/// The one thing a running conversion shares with whoever watches it: how far it is, and whether it should stop.
///
/// Workers only count; a watcher looks when it likes, so heartbeats cost the work nothing. A clone is the same monitor.
#[derive(Debug, Clone, Default)]
pub struct Monitor(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    phase: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    /// The reason to stop, 0 for none; all forks share it.
    stop: Arc<AtomicU8>,
    /// Of the whole, where this is a part.
    whole: Option<Monitor>,
    received_bytes: AtomicU64,
    saved_bytes: AtomicU64,
    receivable_bytes: AtomicU64,
    downloads: Mutex<Vec<Arc<Download>>>,
    listener: OnceLock<Listener>,
}

/// Something that happened, for whoever wants to follow it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A phase begins.
    Phase(Phase),
    /// The output is complete.
    Done,
    /// A server was asked for something.
    Request {
        /// Such as GET.
        method: &'a str,
        /// Without secrets.
        url: &'a str,
        /// The HTTP status, or why there is none.
        outcome: &'a str,
        /// Until the answer began.
        took: Duration,
    },
}

struct Listener(Box<dyn Fn(Event<'_>) + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// One download that is going on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Download {
    /// What people call it.
    pub name: String,
    /// All its bytes; 0 where nobody knows.
    pub total_bytes: u64,
    done_bytes: AtomicU64,
}

impl Download {
    /// Bytes that have arrived.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }
}

/// Counts what arrives of one [`Download`]. When it is dropped, the download is no longer going on.
#[derive(Debug)]
pub struct DownloadCounter {
    monitor: Monitor,
    download: Arc<Download>,
}

impl DownloadCounter {
    /// Counts bytes that have arrived.
    pub fn advance(&self, bytes: u64) {
        self.download.done_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.monitor.0.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for DownloadCounter {
    fn drop(&mut self) {
        self.monitor.lock().retain(|each| !Arc::ptr_eq(each, &self.download));
    }
}

/// How far a conversion is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done_bytes: u64,
    /// Bytes to do in this phase; 0 where nobody knows.
    pub total_bytes: u64,
    /// Bytes that have come over the network, whatever the phase.
    pub received_bytes: u64,
    /// Bytes that are to come over the network altogether, as far as is known; 0 where there is no network.
    pub receivable_bytes: u64,
}

impl Monitor {
    /// A monitor of its own for one of several conversions: what stops this one stops that.
    #[must_use]
    pub fn fork(&self) -> Monitor {
        Monitor(Arc::new(Shared { stop: Arc::clone(&self.0.stop), ..Shared::default() }))
    }

    /// A monitor for a part of the work: what stops this one stops that, but not the other way round.
    pub(crate) fn part(&self) -> Monitor {
        Monitor(Arc::new(Shared { whole: Some(self.clone()), ..Shared::default() }))
    }

    /// Begins a phase of `total_bytes` (0: unknown).
    pub fn begin(&self, phase: Phase, total_bytes: u64) {
        self.0.done_bytes.store(0, Ordering::Relaxed);
        self.0.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.0.phase.store(phase as u8, Ordering::Release);
        self.tell(Event::Phase(phase));
    }

    /// Has `listener` called for each [`Event`], by the thread in which it happens. The first listener stays.
    pub fn listen(&self, listener: impl Fn(Event<'_>) + Send + Sync + 'static) {
        let _ = self.0.listener.set(Listener(Box::new(listener)));
    }

    /// Tells the listener, where there is one.
    pub fn tell(&self, event: Event<'_>) {
        if let Some(Listener(listener)) = self.0.listener.get() {
            listener(event);
        }
    }

    /// Counts bytes done.
    pub fn advance(&self, bytes: u64) {
        self.0.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes done, and asks whether to go on.
    ///
    /// # Errors
    /// Those of [`Monitor::check`].
    pub(crate) fn pass(&self, bytes: u64) -> Result<()> {
        self.advance(bytes);
        self.check()
    }

    /// How far it is now.
    pub fn snapshot(&self) -> Snapshot {
        let phase = match self.0.phase.load(Ordering::Acquire) {
            0 => Phase::Open,
            1 => Phase::Wait,
            2 => Phase::Read,
            3 => Phase::Write,
            4 => Phase::Push,
            5 => Phase::Verify,
            _ => Phase::Finish,
        };
        Snapshot {
            phase,
            done_bytes: self.0.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.0.total_bytes.load(Ordering::Relaxed),
            received_bytes: self.0.received_bytes.load(Ordering::Relaxed),
            receivable_bytes: self.0.receivable_bytes.load(Ordering::Relaxed),
        }
    }

    /// Says that so many bytes more are to come over the network.
    pub fn expect_downloads(&self, bytes: u64) {
        self.0.receivable_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that a cache had, so that they need not come over the network.
    pub fn save(&self, bytes: u64) {
        self.0.saved_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that a cache had.
    pub fn saved_bytes(&self) -> u64 {
        self.0.saved_bytes.load(Ordering::Relaxed)
    }

    /// Begins a download of `total_bytes` (0: unknown).
    pub fn begin_download(&self, name: String, total_bytes: u64) -> DownloadCounter {
        let download = Arc::new(Download { name, total_bytes, done_bytes: AtomicU64::new(0) });
        self.lock().push(Arc::clone(&download));
        DownloadCounter { monitor: self.clone(), download }
    }

    /// The downloads that are going on, in the order in which they began.
    pub fn downloads(&self) -> Vec<Arc<Download>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Download>>> {
        self.0.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the conversion to stop with `kind`: [`ErrorKind::Interrupted`], or else [`ErrorKind::Terminated`].
    pub fn stop(&self, kind: ErrorKind) {
        let reason = if kind == ErrorKind::Interrupted { 1 } else { 2 };
        self.0.stop.store(reason, Ordering::Release);
    }

    /// To be asked once per chunk of work.
    ///
    /// # Errors
    /// When the conversion was asked to stop.
    pub fn check(&self) -> Result<()> {
        match self.0.stop.load(Ordering::Acquire) {
            0 => self.0.whole.as_ref().map_or(Ok(()), Monitor::check),
            1 => {
                Err(Error::new(ErrorKind::Interrupted, "interrupted").hint("run the same command again to start over"))
            }
            _ => Err(Error::new(ErrorKind::Terminated, "terminated").hint("run the same command again to start over")),
        }
    }
}
