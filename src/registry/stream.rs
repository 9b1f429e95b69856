use std::io::{self, Read};
use std::sync::Arc;

use super::client::{Client, broken};
use super::http::Failure;
use super::retry::Retry;
use super::url::Url;
use crate::error::{Error, Result, ResultExt as _};
use crate::io::DownloadCounter;
use crate::model::Digest;

/// After so many bytes without a break, earlier breaks no longer count.
pub(super) const GOOD_BYTES: u64 = 512 << 10;

/// What is to be fetched.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: Option<u64>,
    /// Where it may be if the registry does not have it: a layer that its makers do not let others distribute.
    pub(super) urls: Vec<Url>,
}

/// The bytes of a blob as they come over the network, unverified. A connection that breaks is made again, and goes on
/// where it ended.
pub(super) struct BlobStream {
    client: Arc<Client>,
    blob: Blob,
    /// Which of the endpoints and then of the URLs is read from.
    place: usize,
    body: Option<Box<dyn Read + Send>>,
    position: u64,
    retry: Retry,
    good_bytes: u64,
    counter: DownloadCounter,
}

impl BlobStream {
    pub(super) fn open(client: &Arc<Client>, blob: &Blob) -> Result<Self> {
        BlobStream::open_at(client, blob, 0)
    }

    /// The same without the bytes before `position`.
    pub(super) fn open_at(client: &Arc<Client>, blob: &Blob, position: u64) -> Result<Self> {
        let bytes = blob.size.unwrap_or(0).saturating_sub(position);
        let counter = client.monitor.begin_download(blob.digest.hex()[..12].to_string(), bytes);
        let mut stream = BlobStream {
            client: Arc::clone(client),
            blob: blob.clone(),
            place: 0,
            body: None,
            position,
            retry: Retry::new(&client.settings),
            good_bytes: 0,
            counter,
        };
        stream.connect()?;
        Ok(stream)
    }

    /// Makes the connection, and goes to the next place where one fails for good.
    fn connect(&mut self) -> Result<()> {
        while self.body.is_none() {
            match self.try_connect() {
                Ok(body) => self.body = Some(body),
                Err(failure) => self.recover(failure)?,
            }
        }
        Ok(())
    }

    fn try_connect(&self) -> std::result::Result<Box<dyn Read + Send>, Failure> {
        let Blob { digest, size, .. } = &self.blob;
        match self.url() {
            Some(url) => self.client.foreign_blob(url, *digest, *size, self.position),
            None => self.client.blob(self.place, *digest, *size, self.position),
        }
    }

    /// The URL that is read from, where it is not an endpoint.
    fn url(&self) -> Option<&Url> {
        self.blob.urls.get(self.place.checked_sub(self.client.endpoints.len())?)
    }

    /// Waits after a failure, or turns to the next place.
    fn recover(&mut self, failure: Failure) -> Result<()> {
        self.body = None;
        self.good_bytes = 0;
        let client = Arc::clone(&self.client);
        let authority = self.url().map(|url| url.authority.clone());
        let waited = match &authority {
            Some(authority) => self.retry.wait(failure, authority, &client.http, &client.monitor),
            None => client.wait(&mut self.retry, failure, self.place),
        };
        let Err(failure) = waited else { return Ok(()) };
        let is_missing = matches!(failure, Failure::Missing(_));
        let error = failure.into_error();
        client.monitor.check()?;
        let endpoints = client.endpoints.len();
        let goes_on = if self.place + 1 < endpoints {
            client.pass_over(self.place, &error)
        } else {
            // Only a registry that has no such blob sends us elsewhere.
            (self.place >= endpoints || is_missing) && self.place + 1 < endpoints + self.blob.urls.len()
        };
        if !goes_on {
            return Err(error).doing(|| format!("downloading blob {}", self.blob.digest));
        }
        self.place += 1;
        self.retry = Retry::new(&client.settings);
        Ok(())
    }

    fn from(&self) -> String {
        self.url().map_or_else(|| self.client.endpoints[self.place].authority.clone(), |url| url.authority.clone())
    }

    fn advance(&mut self, count: usize) {
        self.position += count as u64;
        self.good_bytes += count as u64;
        self.counter.advance(count as u64);
        if self.good_bytes >= GOOD_BYTES {
            self.retry = Retry::new(&self.client.settings);
            self.good_bytes = 0;
        }
    }
}

impl Read for BlobStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.connect().map_err(Error::into_io)?;
            let Some(body) = &mut self.body else { continue };
            let is_short = self.blob.size.is_some_and(|size| self.position < size);
            let failure = match body.read(buffer) {
                Ok(0) if !buffer.is_empty() && is_short => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed");
                    broken(&self.from(), &end)
                }
                Ok(count) => {
                    self.advance(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // All is there: how the connection ends does not matter.
                Err(_) if self.blob.size == Some(self.position) => return Ok(0),
                Err(error) => broken(&self.from(), &error),
            };
            self.recover(failure).map_err(Error::into_io)?;
        }
    }
}
