//! Uploads of blobs (distribution-spec, "Pushing blobs"): in chunks, each of which the registry confirms.

use std::io::Read;

use ureq::http::Method;

use super::client::Client;
use super::http::{Answer, Failure, Request};
use super::repository::rejection;
use super::retry::Retry;
use super::url::Url;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::Region;
use crate::model::Digest;

/// How much is sent at once, in bytes. Each chunk waits in memory: it may have to be sent twice.
const CHUNK_BYTES: u64 = 16 << 20;
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

/// Uploads one blob.
pub(super) struct Uploader<'a> {
    client: &'a Client,
    digest: Digest,
    size: u64,
    content: &'a dyn Content,
    chunk_bytes: u64,
    /// How far it has ever come: only more than that is progress.
    furthest: u64,
}

impl<'a> Uploader<'a> {
    pub(super) fn new(client: &'a Client, digest: Digest, size: u64, content: &'a dyn Content) -> Self {
        Uploader { client, digest, size, content, chunk_bytes: CHUNK_BYTES, furthest: 0 }
    }

    /// Asks the registry to take the blob from the repository `from`; whether it did.
    pub(super) fn mount(&self, from: &str) -> Result<bool> {
        match self.retried(&mut Retry::new(&self.client.settings), |it| match it.begin(Some(from)) {
            // Who may not read there uploads.
            Err(Failure::Lasting(_) | Failure::Missing(_)) => Ok(Some(None)),
            begun => begun.map(|session| session.map(Some)),
        })? {
            None => Ok(true),
            Some(session) => {
                // A registry that does not mount begins an upload instead. It forgets that by itself, too.
                if let Some(session) = session {
                    let _ = self.send(Method::DELETE, &session.url, &[], &[]);
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
            match self.step(&mut session) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(failure) => {
                    self.client.wait(&mut retry, failure, 0).map_err(Failure::into_error)?;
                    if self.is_there() {
                        return Ok(());
                    }
                    // Where it fails at one place twice, the upload itself may be what is broken.
                    let position = session.as_ref().map(|session| session.position);
                    let is_stuck = position.is_some() && std::mem::replace(&mut failed_at, position) == position;
                    session = match session.filter(|_| !is_stuck) {
                        Some(session) => self.resume(&session)?,
                        None => None,
                    };
                    self.furthest = self.furthest.max(session.as_ref().map_or(0, |session| session.position));
                }
            }
            if self.furthest > before {
                counter.advance(self.furthest - before);
                self.client.monitor.advance(self.furthest - before);
                retry = Retry::new(&self.client.settings);
            }
        }
    }

    fn retried<T>(&self, retry: &mut Retry, ask: impl Fn(&Self) -> Asked<T>) -> Result<T> {
        loop {
            match ask(self) {
                Ok(done) => return Ok(done),
                Err(failure) => self.client.wait(retry, failure, 0).map_err(Failure::into_error)?,
            }
        }
    }

    /// Does the next thing; whether the blob is there now.
    fn step(&mut self, session: &mut Option<Session>) -> Asked<bool> {
        let Some(current) = session else {
            *session = self.begin(None)?;
            return Ok(session.is_none());
        };
        let is_first_and_last = current.position == 0 && self.size <= self.chunk_bytes;
        if current.position == self.size || is_first_and_last {
            return self.finish(current);
        }
        self.send_chunk(current)?;
        self.furthest = self.furthest.max(current.position);
        Ok(false)
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
        Ok(Session { url, position })
    }

    fn send(&self, method: Method, url: &Url, headers: &[(&str, &str)], body: &[u8]) -> Asked<Answer> {
        let home = self.client.home()?;
        self.client.send(&Request { headers, body, home: Some(&home), ..Request::new(method, url) })
    }

    fn send_chunk(&mut self, session: &mut Session) -> Asked<()> {
        let chunk = self.read(session.position, self.chunk_bytes)?;
        let (first, sent) = (session.position, chunk.len() as u64);
        let range = format!("{first}-{}", first + sent - 1);
        let headers = [("content-type", "application/octet-stream"), ("content-range", range.as_str())];
        let answer = self.send(Method::PATCH, &session.url, &headers, &chunk)?;
        match answer.status {
            200..=204 => {
                self.heed_minimum(&answer);
                *session = self.continued(&answer, received(&answer).unwrap_or(first + sent))?;
                Ok(())
            }
            413 if self.chunk_bytes > CHUNK_BYTES_MIN => {
                self.chunk_bytes = (self.chunk_bytes / 4).max(CHUNK_BYTES_MIN);
                Ok(())
            }
            // It has something else than we think: it says what when it is asked.
            416 => Err(Failure::Passing { error: rejection(answer, &self.what()).into_error(), wait: None }),
            _ => Err(rejection(answer, &self.what())),
        }
    }

    fn heed_minimum(&mut self, answer: &Answer) {
        let minimum = answer.header("oci-chunk-min-length").and_then(|text| text.parse::<u64>().ok());
        self.chunk_bytes = self.chunk_bytes.max(minimum.unwrap_or(0).min(CHUNK_BYTES_MAX));
    }

    /// Sends what is left of a small blob, or nothing, and says that this is all.
    fn finish(&mut self, session: &Session) -> Asked<bool> {
        let rest = self.read(session.position, self.size - session.position)?;
        let url = session.url.with_query(&[("digest", &self.digest.to_string())]);
        let answer = self.send(Method::PUT, &url, &[("content-type", "application/octet-stream")], &rest)?;
        match answer.status {
            200..=204 => {
                self.furthest = self.size;
                Ok(true)
            }
            413 if self.chunk_bytes > CHUNK_BYTES_MIN && !rest.is_empty() => {
                self.chunk_bytes = (self.size / 4).max(CHUNK_BYTES_MIN);
                Ok(false)
            }
            _ => Err(rejection(answer, &self.what())),
        }
    }

    /// Asks how much has arrived; `None` where the upload is lost and must begin anew.
    fn resume(&self, session: &Session) -> Result<Option<Session>> {
        let answer = self.retried(&mut Retry::new(&self.client.settings), |it| {
            let answer = it.send(Method::GET, &session.url, &[], &[])?;
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

    fn read(&self, position: u64, bytes_max: u64) -> Asked<Vec<u8>> {
        let wanted = bytes_max.min(self.size - position);
        let mut bytes = Vec::new();
        let reader = self.content.open(position)?;
        reader.take(wanted).read_to_end(&mut bytes).or_kind(ErrorKind::SourceUnavailable)?;
        if bytes.len() as u64 != wanted {
            let message = format!("{}: size mismatch: expected {} bytes", self.what(), self.size);
            return Err(Error::new(ErrorKind::Mismatch, message).into());
        }
        Ok(bytes)
    }
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
