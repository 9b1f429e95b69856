use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use serde::Deserialize;

use super::EngineSettings;
use super::endpoint::{Place, places};
use super::engine::{Engine, ended};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::{CHUNK_BYTES, Monitor, no_thread};
use crate::model::{Platform, Quoted};

/// How many batches may wait for the reader: with one of [`CHUNK_BYTES`] each, and what hyper holds beside, a few MiB.
const BATCHES_AHEAD: usize = 8;
/// How often both sides look whether they are to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Every tar that Docker and Podman write ends with two blocks of zeros.
const END_BYTES: usize = 1024;
/// A tar consists of blocks of this many bytes.
const BLOCK_BYTES: u64 = 512;
/// How much of the end is kept, to find there what an engine says when it fails half-way.
const TAIL_BYTES: usize = 4096;

/// Bytes as they came, without a copy.
type Piece = Box<dyn AsRef<[u8]> + Send>;

/// What the engine's thread has to say.
enum Event {
    /// The image is there; its export has at least so many bytes.
    Found(Option<u64>),
    Bytes(Vec<Piece>),
    /// The answer is over, as its framing tells.
    Ended,
    Failed(Error),
}

/// An image being exported: a blocking reader over what an engine sends. It fails where the export is not whole.
pub(in crate::source) struct Export<'a> {
    /// `None` only while it is dropped.
    events: Option<Receiver<Event>>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    monitor: &'a Monitor,
    at_least: Option<u64>,
    /// What came and is not read yet, and how far the first of it is.
    pieces: VecDeque<Piece>,
    position: usize,
    tail: Vec<u8>,
    bytes: u64,
    over: bool,
}

/// Asks the engine that `settings` lead to for the image `word`.
///
/// # Errors
/// [`ErrorKind::Network`] when no engine answers or it may not be used, [`ErrorKind::SourceUnavailable`] when it has no such
/// image, [`ErrorKind::Usage`] when `word` is not the name or ID of an image.
pub(in crate::source) fn export<'a>(
    word: &str,
    platform: Option<&Platform>,
    settings: &EngineSettings,
    monitor: &'a Monitor,
) -> Result<Export<'a>> {
    let (word, platform, places) = (word.to_string(), platform.cloned(), places(settings)?);
    let asked = Asked { word, platform, places, monitor: monitor.clone() };
    let (sender, events) = sync_channel(BATCHES_AHEAD);
    let stop = Arc::new(AtomicBool::new(false));
    let for_thread = Arc::clone(&stop);
    let thread = thread::Builder::new()
        .name("engine".to_string())
        .spawn(move || talk(asked, &sender, &for_thread))
        .map_err(no_thread)?;
    let mut export = Export {
        events: Some(events),
        thread: Some(thread),
        stop,
        monitor,
        at_least: None,
        pieces: VecDeque::new(),
        position: 0,
        tail: Vec::new(),
        bytes: 0,
        over: false,
    };
    match export.next_event()? {
        Event::Found(at_least) => export.at_least = at_least,
        Event::Failed(error) => return Err(error),
        Event::Bytes(_) | Event::Ended => return Err(Error::new(ErrorKind::Bug, "an export before its image")),
    }
    Ok(export)
}

/// Asks the engine that `settings` lead to which image `word` names now: its ID. `None` where the engine does not say.
///
/// # Errors
/// As [`export`].
pub(in crate::source) fn image_id(word: &str, settings: &EngineSettings, monitor: &Monitor) -> Result<Option<String>> {
    let places = places(settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_kind(ErrorKind::Other)?;
    let asked = async { Engine::connect(places, monitor).await?.find(word).await };
    let stopped = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = monitor.check() {
                return error;
            }
        }
    };
    let found = runtime.block_on(async {
        match select(pin!(asked), pin!(stopped)).await {
            Either::Left((found, _)) => found,
            Either::Right((error, _)) => Err(error),
        }
    });
    runtime.shutdown_background();
    found.map(|found| found.id)
}

impl Export<'_> {
    /// How many bytes there will be at least, where that is known.
    pub(in crate::source) fn at_least(&self) -> Option<u64> {
        self.at_least
    }

    /// Waits for the thread, and for whoever wants the conversion to stop.
    fn next_event(&self) -> Result<Event> {
        let gone = || Error::new(ErrorKind::Bug, "the engine's thread is gone");
        let events = self.events.as_ref().ok_or_else(gone)?;
        loop {
            self.monitor.check()?;
            match events.recv_timeout(LOOK) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }

    fn remember_end(&mut self, piece: &[u8]) {
        let fresh = &piece[piece.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.tail.len() + fresh.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus.min(self.tail.len()));
        self.tail.extend_from_slice(fresh);
        self.bytes += piece.len() as u64;
    }

    /// An engine that fails half-way ends its answer as if nothing were: Docker adds a message, others just end.
    fn check_end(&self) -> Result<()> {
        if self.tail.ends_with(&[0; END_BYTES]) && self.bytes.is_multiple_of(BLOCK_BYTES) {
            return Ok(());
        }
        let error = match message_in(&self.tail) {
            Some(message) => {
                let message = Quoted(message.as_bytes()).to_string();
                Error::new(ErrorKind::Network, format!("the engine failed while it exported the image: {message}"))
            }
            None => Error::new(ErrorKind::Network, "the engine ended its export before the archive was complete"),
        };
        Err(error.hint("see why in the engine's log (journalctl -u docker), and run the same command again"))
    }
}

impl Read for Export<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.over {
            if let Some(piece) = self.pieces.front() {
                let left = &(**piece).as_ref()[self.position..];
                let count = left.len().min(buffer.len());
                buffer[..count].copy_from_slice(&left[..count]);
                self.position += count;
                if count == left.len() {
                    self.pieces.pop_front();
                    self.position = 0;
                }
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                continue;
            }
            match self.next_event().map_err(Error::into_io)? {
                Event::Bytes(pieces) => {
                    pieces.iter().for_each(|piece| self.remember_end((**piece).as_ref()));
                    self.pieces = pieces.into();
                }
                Event::Ended => {
                    self.over = true;
                    self.check_end().map_err(Error::into_io)?;
                }
                Event::Failed(error) => return Err(error.into_io()),
                Event::Found(_) => return Err(Error::new(ErrorKind::Bug, "an image was found twice").into_io()),
            }
        }
        Ok(0)
    }
}

impl Drop for Export<'_> {
    /// The thread is waited for: a connection through ssh has a process that is to end with it.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(self.events.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it has been told already: its events ended without a last one.
            let _ = thread.join();
        }
    }
}

/// What the engine's thread is to do.
struct Asked {
    word: String,
    platform: Option<Platform>,
    places: Vec<Place>,
    monitor: Monitor,
}

/// The engine's thread.
fn talk(asked: Asked, events: &SyncSender<Event>, stop: &AtomicBool) {
    let done = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let done = runtime.block_on(unless_stopped(stop, converse(asked, events)));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(Error::io(ErrorKind::Other, error)),
    };
    let last = match done {
        Ok(()) => Event::Ended,
        Err(error) => Event::Failed(error),
    };
    // Where nobody listens any more, nobody wants to know.
    let _ = events.send(last);
}

/// `work`, or nothing where it is to stop before it is done.
async fn unless_stopped(stop: &AtomicBool, work: impl Future<Output = Result<()>>) -> Result<()> {
    let stopped = async {
        while !stop.load(Ordering::Acquire) {
            tokio::time::sleep(LOOK).await;
        }
    };
    match select(pin!(work), pin!(stopped)).await {
        Either::Left((done, _)) => done,
        Either::Right(_) => Ok(()),
    }
}

async fn converse(asked: Asked, events: &SyncSender<Event>) -> Result<()> {
    let engine = Engine::connect(asked.places, &asked.monitor).await?;
    let found = engine.find(&asked.word).await?;
    if events.send(Event::Found(found.at_least)).is_err() {
        return Ok(());
    }
    let docker = engine.exporting(asked.platform.as_ref());
    let mut stream = docker.export_images(&[&found.name]);
    let (mut batch, mut bytes, mut begun) = (Vec::<Piece>::new(), 0, false);
    let path = format!("/images/{}/get", found.name);
    let mut next = engine.told(&path, async { stream.next().await.transpose() }).await;
    loop {
        let doing = format!("exporting image {:?}", found.name);
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) if begun => return Err(ended(engine.place(), error, &doing)),
            Err(error) => return Err(engine.refused(error, &doing)),
        };
        begun = true;
        bytes += piece.len();
        batch.push(Box::new(piece));
        // One message for many pieces: each wakes the other side. While it is full this thread waits, and the engine with it.
        if bytes >= CHUNK_BYTES {
            bytes = 0;
            if events.send(Event::Bytes(std::mem::take(&mut batch))).is_err() {
                return Ok(());
            }
        }
        next = stream.next().await.transpose();
    }
    let _ = events.send(Event::Bytes(batch));
    Ok(())
}

/// The message that Docker appends to an export that failed.
fn message_in(tail: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        error: String,
    }
    let start = tail.windows(7).rposition(|window| window == b"{\"error")?;
    let mut read = serde_json::Deserializer::from_slice(&tail[start..]).into_iter::<Said>();
    read.next()?.ok().map(|said| said.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_at_the_end() {
        let told = br#"{"errorDetail":{"message":"no space left"},"error":"no space left"}"#;
        let tail = [&[0; 700][..], told, b"\r\n"].concat();
        assert_eq!(message_in(&tail).as_deref(), Some("no space left"));
        assert_eq!(message_in(&[0; 700]), None);
        assert_eq!(message_in(b"{\"a\":1}"), None);
    }

    #[test]
    fn the_end_is_remembered_across_pieces() {
        let monitor = Monitor::default();
        let mut export = Export {
            events: None,
            thread: None,
            stop: Arc::default(),
            monitor: &monitor,
            at_least: None,
            pieces: VecDeque::new(),
            position: 0,
            tail: Vec::new(),
            bytes: 0,
            over: false,
        };
        export.remember_end(&[1; 3 * TAIL_BYTES]);
        assert!(export.check_end().is_err());
        for _ in 0..END_BYTES {
            assert!(export.check_end().is_err());
            export.remember_end(&[0]);
        }
        assert!(export.check_end().is_ok());
        export.remember_end(&[0]);
        assert!(export.check_end().is_err(), "half a block");
        assert_eq!(export.tail.len(), TAIL_BYTES);
    }
}
