//! Uploads of blobs (distribution-spec, "Pushing blobs").
//!
//! A small blob is sent with the request that ends its upload. A larger one is sent in one piece before that, as `docker push` does
//! it, which every registry knows; one that broke is gone on with where the registry says it ended. Chunks are for those that take
//! no large request, or where large ones do not get through: some registries have no chunks (Google's), limit them (GitHub's
//! to 4 MiB), or say of each that the first one is what they have (Amazon's).

use std::cell::Cell;
use std::io::{self, Read};

use ureq::http::Method;

use super::client::Client;
use super::http::{Answer, Failure, Payload, Request, Stream};
use super::repository::rejection;
use super::retry::Retry;
use super::url::Url;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{DownloadCounter, Region};
use crate::model::Digest;

/// How large a blob may be that is sent with the request that ends its upload, in bytes.
const SMALL_BYTES_MAX: u64 = 16 << 20;
/// How much is sent at once in chunks, in bytes.
const CHUNK_BYTES: u64 = 4 << 20;
/// The largest chunk that a registry may ask for, and the smallest that is tried where it takes no larger one.
const CHUNK_BYTES_MAX: u64 = 128 << 20;
const CHUNK_BYTES_MIN: u64 = 1 << 20;

type Asked<T> = std::result::Result<T, Failure>;

/// The stored bytes of a blob, to be read from any place and more than once.
pub trait Content: Send + Sync {
    /// Opens them at `position`.
    ///
    /// # Errors
    /// Whatever reading them fails with.
    fn open(&self, position: u64) -> Result<Box<dyn Read + Send + '_>>;
}

impl Content for Region {
    fn open(&self, position: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut reader = self.reader();
        reader.skip(position);
        Ok(Box::new(reader))
    }
}

impl Content for &[u8] {
    fn open(&self, position: u64) -> Result<Box<dyn Read + Send + '_>> {
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(&self[start..]))
    }
}

/// What it took to push a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Present,
    /// It was in another repository of the registry.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// An upload that the registry has begun.
struct Session {
    url: Url,
    position: u64,
}

/// In what pieces a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// All that is left at once.
    One,
    /// All with the request that ends the upload: the registry takes no other.
    Last,
    /// Chunks of so many bytes, for larger requests do not get through.
    Tried(u64),
    /// Chunks of so many bytes, for the registry says that more is too much.
    Asked(u64),
}

/// Uploads one blob.
pub(super) struct Uploader<'a> {
    client: &'a Client,
    digest: Digest,
    size: u64,
    content: &'a dyn Content,
    pieces: Pieces,
    /// The smallest chunk that the registry takes, but for the last one.
    chunk_bytes_least: Cell<u64>,
    /// How far the registry has ever been: only more than that is progress.
    furthest: u64,
    /// How much was ever sent, as it is shown.
    shown: Cell<u64>,
}

/// A part of a blob on its way.
struct Part<'a> {
    uploader: &'a Uploader<'a>,
    counter: &'a DownloadCounter,
    position: u64,
    length: u64,
}

impl Stream for Part<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn open(&self) -> Result<Box<dyn Read + '_>> {
        let inner = self.uploader.content.open(self.position)?;
        Ok(Box::new(PartReader { part: self, inner, position: self.position }))
    }
}

struct PartReader<'a> {
    part: &'a Part<'a>,
    inner: Box<dyn Read + Send + 'a>,
    position: u64,
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Part { uploader, counter, position, length } = self.part;
        uploader.client.monitor.check().map_err(Error::into_io)?;
        let wanted = usize::try_from(position + length - self.position).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            let message = format!("{}: size mismatch: expected {} bytes", uploader.what(), uploader.size);
            return Err(Error::new(ErrorKind::Mismatch, message).into_io());
        }
        self.position += count as u64;
        uploader.show(self.position, counter);
        Ok(count)
    }
}

impl<'a> Uploader<'a> {
    pub(super) fn new(client: &'a Client, digest: Digest, size: u64, content: &'a dyn Content) -> Self {
        Uploader {
            client,
            digest,
            size,
            content,
            pieces: Pieces::One,
            chunk_bytes_least: Cell::new(0),
            furthest: 0,
            shown: Cell::new(0),
        }
    }

    /// Asks the registry to take the blob from the repository `from`; whether it did.
    pub(super) fn mount(&self, from: &str) -> Result<bool> {
        match self.retried(&mut Retry::new(&self.client.settings), |it| match it.begin(Some(from)) {
            // Who may not read there uploads.
            Err(Failure::Lasting(_) | Failure::Missing(_)) => Ok(Some(None)),
            begun => begun.map(|session| session.map(Some)),
        }) {
            Ok(None) => Ok(true),
            // A registry that fails at that may still take it as others do.
            Err(error) if error.kind() == ErrorKind::Network => Ok(false),
            Err(error) => Err(error),
            Ok(Some(session)) => {
                // A registry that does not mount begins an upload instead. It forgets that by itself, too.
                if let Some(session) = session {
                    let _ = self.send(Method::DELETE, &session.url, &[], Payload::Bytes(&[]));
                }
                Ok(false)
            }
        }
    }

    pub(super) fn upload(mut self) -> Result<()> {
        let counter = self.client.monitor.begin_download(self.digest.hex()[..12].to_string(), self.size);
        let mut retry = Retry::new(&self.client.settings);
        let (mut session, mut failed_at) = (None, None);
        loop {
            self.client.monitor.check()?;
            let before = self.furthest;
            match self.step(&mut session, &counter) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(failure) => {
                    self.client.wait(&mut retry, failure, 0).map_err(Failure::into_error)?;
                    if self.is_there() {
                        return Ok(());
                    }
                    let position = session.as_ref().map(|session| session.position);
                    let is_stuck = position.is_some() && std::mem::replace(&mut failed_at, position) == position;
                    let is_lost = is_stuck && self.unstick(position);
                    session = match session.filter(|_| !is_lost) {
                        Some(session) => self.resume(&session)?,
                        None => None,
                    };
                    self.furthest = self.furthest.max(session.as_ref().map_or(0, |session| session.position));
                }
            }
            if self.furthest > before {
                self.show(self.furthest, &counter);
                retry = Retry::new(&self.client.settings);
            }
        }
    }

    /// Tries smaller pieces where it failed at one place twice; whether the upload itself may be what is broken.
    fn unstick(&mut self, position: Option<u64>) -> bool {
        let was_one = self.pieces == Pieces::One;
        match &mut self.pieces {
            Pieces::One => self.pieces = Pieces::Tried(CHUNK_BYTES),
            Pieces::Tried(bytes) => *bytes = (*bytes / 4).max(CHUNK_BYTES_MIN),
            Pieces::Last | Pieces::Asked(_) => {}
        }
        // What has arrived is not given up before chunks were tried.
        !was_one || position == Some(0)
    }

    fn retried<T>(&self, retry: &mut Retry, ask: impl Fn(&Self) -> Asked<T>) -> Result<T> {
        loop {
            match ask(self) {
                Ok(done) => return Ok(done),
                Err(failure) => self.client.wait(retry, failure, 0).map_err(Failure::into_error)?,
            }
        }
    }

    /// Shows that as much was sent.
    fn show(&self, position: u64, counter: &DownloadCounter) {
        let Some(more) = position.checked_sub(self.shown.get()).filter(|&more| more > 0) else { return };
        self.shown.set(position);
        counter.advance(more);
        self.client.monitor.advance(more);
    }

    /// Does the next thing; whether the blob is there now.
    fn step(&mut self, session: &mut Option<Session>, counter: &DownloadCounter) -> Asked<bool> {
        let Some(current) = session else {
            *session = self.begin(None)?;
            return Ok(session.is_none());
        };
        let is_small = match self.pieces {
            Pieces::One => self.size <= SMALL_BYTES_MAX,
            Pieces::Last => true,
            Pieces::Tried(_) | Pieces::Asked(_) => self.chunk().is_some_and(|bytes| self.size <= bytes),
        };
        if current.position == self.size || (current.position == 0 && is_small) {
            return self.finish(current, counter);
        }
        self.send_piece(session, counter)?;
        let Some(current) = session else { return Ok(false) };
        self.furthest = self.furthest.max(current.position);
        Ok(false)
    }

    /// How large chunks are; `None` where there are none.
    fn chunk(&self) -> Option<u64> {
        match self.pieces {
            Pieces::One | Pieces::Last => None,
            Pieces::Tried(bytes) | Pieces::Asked(bytes) => Some(bytes.max(self.chunk_bytes_least.get())),
        }
    }

    /// Begins an upload; `None` where the blob was mounted instead.
    fn begin(&self, from: Option<&str>) -> Asked<Option<Session>> {
        let digest = self.digest.to_string();
        let query = from.map(|from| [("mount", digest.as_str()), ("from", from)]);
        let answer = self.client.request_with(Method::POST, "blobs/uploads/", query.as_ref().map_or(&[], |it| it))?;
        match answer.status {
            201 => Ok(None),
            202 => self.continued(&answer, 0).map(Some),
            _ => Err(rejection(answer, &self.what())),
        }
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    /// Where the registry wants the rest, and how much it has.
    fn continued(&self, answer: &Answer, position: u64) -> Asked<Session> {
        let from = &answer.url.authority;
        let lasting = |why: String| Failure::Lasting(Error::new(ErrorKind::Network, why));
        let location =
            answer.header("location").ok_or_else(|| lasting(format!("{from} did not say where to upload")))?;
        let url = self.client.http.follow(&answer.url, location)?;
        if position > self.size {
            return Err(lasting(format!("{from} has more of {} than was sent", self.what())));
        }
        if let Some(least) = answer.header("oci-chunk-min-length").and_then(|text| text.trim().parse::<u64>().ok()) {
            self.chunk_bytes_least.set(least.min(CHUNK_BYTES_MAX));
        }
        Ok(Session { url, position })
    }

    fn send(&self, method: Method, url: &Url, headers: &[(&str, &str)], body: Payload<'_>) -> Asked<Answer> {
        let home = self.client.home()?;
        self.client.send(&Request { headers, body, home: Some(&home), ..Request::new(method, url) })
    }

    /// Sends the next piece. The session is gone where the upload must begin anew.
    fn send_piece(&mut self, session: &mut Option<Session>, counter: &DownloadCounter) -> Asked<()> {
        let Some(Session { url, position: first }) = &*session else { return Ok(()) };
        let (first, left) = (*first, self.size - first);
        let chunk = self.chunk();
        let part = Part { uploader: self, counter, position: first, length: left.min(chunk.unwrap_or(left)) };
        let end = first + part.length;
        let range = format!("{first}-{}", end - 1);
        let mut headers = vec![("content-type", "application/octet-stream")];
        let has_range = chunk.is_some() || first > 0;
        if has_range {
            headers.push(("content-range", range.as_str()));
        }
        let answer = self.send(Method::PATCH, url, &headers, Payload::Stream(&part))?;
        match answer.status {
            200..=204 => {
                let position = match received(&answer) {
                    Some(position) if position > self.size || (position > first && position < end) => position,
                    // Some say of each chunk what they said of the first one.
                    _ => end,
                };
                *session = Some(self.continued(&answer, position)?);
                Ok(())
            }
            413 if self.shrink() => Ok(()),
            // It has something else than we think, or takes no part as large as that: it says what it has when it is asked.
            416 => {
                if self.pieces == Pieces::One && has_range {
                    self.pieces = Pieces::Tried(CHUNK_BYTES);
                }
                Err(passing(rejection(answer, &self.what())))
            }
            // It has forgotten the upload, not the repository.
            404 if first > 0 => Err(passing(rejection(answer, &self.what()))),
            405 | 501 if !has_range => {
                self.pieces = Pieces::Last;
                Ok(())
            }
            400..=499 | 501 if has_range && !matches!(self.pieces, Pieces::Asked(_)) => {
                let failure = rejection(answer, &self.what());
                // One that takes no part of a blob may still take all of it.
                if matches!(failure, Failure::Lasting(_) | Failure::Missing(_)) {
                    (self.pieces, *session) = (Pieces::One, None);
                    return Err(passing(failure));
                }
                Err(failure)
            }
            _ => Err(rejection(answer, &self.what())),
        }
    }

    /// Makes the pieces smaller; whether that can be.
    fn shrink(&mut self) -> bool {
        let smaller = match self.pieces {
            Pieces::One | Pieces::Last => CHUNK_BYTES,
            Pieces::Tried(bytes) | Pieces::Asked(bytes) => (bytes / 4).max(CHUNK_BYTES_MIN),
        };
        let is_possible = !matches!(self.pieces, Pieces::Asked(bytes) if bytes <= CHUNK_BYTES_MIN);
        self.pieces = Pieces::Asked(smaller);
        is_possible
    }

    /// Sends what is left of a small blob, or nothing, and says that this is all.
    fn finish(&mut self, session: &Session, counter: &DownloadCounter) -> Asked<bool> {
        let (position, length) = (session.position, self.size - session.position);
        let part = Part { uploader: self, counter, position, length };
        let url = session.url.with_query(&[("digest", &self.digest.to_string())]);
        let headers = [("content-type", "application/octet-stream")];
        let answer = self.send(Method::PUT, &url, &headers, Payload::Stream(&part))?;
        match answer.status {
            200..=204 => {
                self.furthest = self.size;
                Ok(true)
            }
            413 if length > 0 && self.shrink() => Ok(false),
            // As above.
            404 if position > 0 => Err(passing(rejection(answer, &self.what()))),
            _ => Err(rejection(answer, &self.what())),
        }
    }

    /// Asks how much has arrived; `None` where the upload is lost and must begin anew.
    fn resume(&self, session: &Session) -> Result<Option<Session>> {
        let answer = self.retried(&mut Retry::new(&self.client.settings), |it| {
            let answer = it.send(Method::GET, &session.url, &[], Payload::Bytes(&[]))?;
            // That it cannot say so now does not mean that nothing has arrived.
            let is_passing = matches!(answer.status, 408 | 425 | 429 | 500..=599);
            if is_passing { Err(rejection(answer, &it.what())) } else { Ok(answer) }
        })?;
        if answer.status != 204 && answer.status != 202 {
            return Ok(None);
        }
        let position = received(&answer).unwrap_or(0);
        let resumed = self.continued(&answer, position);
        // Asking need not say where to go on: where it was, then.
        let same = || (position <= self.size).then(|| Session { url: session.url.clone(), position });
        Ok(resumed.ok().or_else(same))
    }

    /// Whether an answer was lost, and not the blob.
    fn is_there(&self) -> bool {
        let answer = self.client.request(Method::HEAD, &format!("blobs/{}", self.digest), &[], &[]);
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

/// The same, as something that is worth another try.
fn passing(failure: Failure) -> Failure {
    Failure::Passing { error: failure.into_error(), wait: None }
}

/// How many bytes an answer says have arrived: `Range: 0-N`, where N is the last one. Some leave it out where there is none,
/// and some say `0-0` then.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let last = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse::<u64>().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

impl Client {
    /// The repository that is written to: a URL that its credentials are for.
    pub(super) fn home(&self) -> Asked<Url> {
        self.url_of(0, "blobs/")
    }
}
