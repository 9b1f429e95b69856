//! A file on a web server, as one stream however many connections break. Credentials come from netrc, and each server sees
//! its own only.

use std::io::{self, Read};
use std::sync::Arc;

use ureq::http::Method;

use super::client::broken;
use super::credentials::basic;
use super::http::{Answer, Failure, Http, Request, refusal};
use super::netrc;
use super::retry::Retry;
use super::secret::Secret;
use super::settings::Settings;
use super::settings_file::read_settings_file;
use super::stream::GOOD_BYTES;
use super::url::{Scheme, Url};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::{DownloadCounter, Monitor};
use crate::model::Quoted;

/// How much of a netrc file is read, in bytes.
const NETRC_BYTES_MAX: u64 = 1 << 20;

type Body = Box<dyn Read + Send>;

/// The bytes of a file at an `http` or `https` URL, as they come.
pub struct WebFile {
    http: Http,
    settings: Arc<Settings>,
    netrc: String,
    monitor: Monitor,
    url: Url,
    size: Option<u64>,
    /// What tells whether the file is still the same: a strong `ETag`, else `Last-Modified` (RFC 9110, section 8.8).
    validator: Option<String>,
    body: Option<Body>,
    position: u64,
    retry: Retry,
    good_bytes: u64,
    counter: Option<DownloadCounter>,
}

impl WebFile {
    /// Asks for the file.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when `url` is not one, [`ErrorKind::SourceUnavailable`] when nothing is there,
    /// [`ErrorKind::Network`] when the server cannot be reached or refuses.
    pub fn open(url: &str, settings: &Settings, monitor: &Monitor) -> Result<WebFile> {
        let settings = Arc::new(settings.clone());
        let url = Url::parse(url).ok_or_else(|| malformed(url))?;
        let mut file = WebFile {
            http: Http::new(Arc::clone(&settings), &url.authority, monitor),
            netrc: read_netrc(&settings)?,
            retry: Retry::new(&settings),
            settings,
            monitor: monitor.clone(),
            url,
            size: None,
            validator: None,
            body: None,
            position: 0,
            good_bytes: 0,
            counter: None,
        };
        file.connect()?;
        let size = file.size.unwrap_or(0);
        monitor.expect_downloads(size);
        file.counter = Some(monitor.begin_download(file.url.host().to_string(), size));
        Ok(file)
    }

    /// Its length in bytes, where the server says it.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    fn connect(&mut self) -> Result<()> {
        while self.body.is_none() {
            match self.ask().and_then(|answer| self.body_of(answer)) {
                Ok(body) => self.body = Some(body),
                Err(failure) => self.recover(failure)?,
            }
        }
        Ok(())
    }

    fn ask(&self) -> std::result::Result<Answer, Failure> {
        let range = format!("bytes={}-", self.position);
        let mut headers = Vec::new();
        if self.position > 0 {
            headers.push(("range", range.as_str()));
            headers.extend(self.validator.as_deref().map(|validator| ("if-range", validator)));
        }
        let request = Request { headers: &headers, ..Request::new(Method::GET, &self.url) };
        self.http.send(&request, &|at| self.authorization(at)).map_err(|failure| match failure {
            // Whoever names a URL says how its server is spoken to.
            Failure::NoTls(error) if self.url.scheme == Scheme::Https => {
                let address = self.url.to_string().replacen("https://", "http://", 1);
                let error = Error::new(error.kind(), error);
                Failure::NoTls(error.hint(format!("if it is meant to speak plain HTTP, write {address}")))
            }
            other => other,
        })
    }

    /// What the server of `at` may see. No redirect leads to a password that goes over the line in the clear.
    fn authorization(&self, at: &Url) -> Option<Secret> {
        let may_see = at.scheme == Scheme::Https || at.is_same_server(&self.url);
        netrc::login(&self.netrc, at.host()).filter(|_| may_see).map(|login| basic(&login))
    }

    fn body_of(&mut self, answer: Answer) -> std::result::Result<Body, Failure> {
        let from = answer.url.authority.clone();
        match answer.status {
            200 => {
                let (size, validator) = (answer.length(), validator_of(&answer));
                if self.position > 0 && (size, &validator) != (self.size, &self.validator) {
                    return Err(changed(&self.url));
                }
                if self.position > 0 && size.is_none() && validator.is_none() {
                    let message = format!("{from} says nothing by which an interrupted download could be resumed");
                    return Err(Failure::Lasting(Error::new(ErrorKind::Network, message)));
                }
                (self.size, self.validator) = (size, validator);
                let mut body = answer.body.into_reader();
                // A server without ranges begins at the beginning.
                io::copy(&mut Read::by_ref(&mut body).take(self.position), &mut io::sink())
                    .map_err(|error| broken(&from, &error))?;
                Ok(Box::new(body))
            }
            206 if self.position > 0 => {
                let range = answer.header("content-range").and_then(|range| range.strip_prefix("bytes "));
                let (start, total) = range.map_or((None, None), |range| {
                    let (part, total) = range.split_once('/').unwrap_or((range, ""));
                    (part.split('-').next().and_then(|start| start.parse().ok()), total.parse::<u64>().ok())
                });
                if start != Some(self.position) {
                    let message = format!("{from} sent another part of {} than was requested", self.url);
                    return Err(Failure::Lasting(Error::new(ErrorKind::Network, message)));
                }
                if total.is_some() && total != self.size {
                    return Err(changed(&self.url));
                }
                Ok(Box::new(answer.body.into_reader()))
            }
            416 => Err(changed(&self.url)),
            401 | 403 => {
                let message = format!("{from} denied access to {} ({})", self.url, answer.status);
                let hint = format!("put \"machine {} login NAME password PASSWORD\" into ~/.netrc", answer.url.host());
                Err(Failure::Lasting(Error::new(ErrorKind::Network, message).hint(hint)))
            }
            404 | 410 => {
                let message = format!("{from} has no {} ({})", self.url, answer.status);
                Err(Failure::Missing(Error::new(ErrorKind::SourceUnavailable, message).hint("check the address")))
            }
            _ => Err(refusal(answer, &self.url.to_string())),
        }
    }

    fn recover(&mut self, failure: Failure) -> Result<()> {
        self.body = None;
        self.good_bytes = 0;
        let waited = self.retry.wait(failure, &self.url.authority, &self.http, &self.monitor);
        waited.map_err(Failure::into_error).doing(|| format!("downloading {}", self.url))
    }

    fn advance(&mut self, count: usize) {
        self.position += count as u64;
        self.good_bytes += count as u64;
        self.counter.iter().for_each(|counter| counter.advance(count as u64));
        if self.good_bytes >= GOOD_BYTES {
            self.retry = Retry::new(&self.settings);
            self.good_bytes = 0;
        }
    }
}

impl Read for WebFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.monitor.check().map_err(Error::into_io)?;
            self.connect().map_err(Error::into_io)?;
            let Some(body) = &mut self.body else { continue };
            let is_short = self.size.is_some_and(|size| self.position < size);
            let failure = match body.read(buffer) {
                Ok(0) if !buffer.is_empty() && is_short => {
                    let end = io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed");
                    broken(&self.url.authority, &end)
                }
                Ok(count) => {
                    self.advance(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // All is there: how the connection ends does not matter.
                Err(_) if self.size == Some(self.position) => return Ok(0),
                Err(error) => broken(&self.url.authority, &error),
            };
            self.recover(failure).map_err(Error::into_io)?;
        }
    }
}

fn validator_of(answer: &Answer) -> Option<String> {
    let strong = answer.header("etag").filter(|tag| !tag.starts_with("W/"));
    strong.or(answer.header("last-modified")).map(str::to_string)
}

fn changed(url: &Url) -> Failure {
    let message = format!("{url} changed while it was downloaded");
    Failure::Lasting(Error::new(ErrorKind::Mismatch, message).hint("download it again"))
}

/// The address is not repeated where it may hold a password.
fn malformed(url: &str) -> Error {
    if url.contains('@') {
        return Error::new(ErrorKind::Usage, "the URL holds a user name, or is malformed")
            .hint("put the login into ~/.netrc: machine HOST login NAME password PASSWORD");
    }
    Error::new(ErrorKind::Usage, format!("{} is not an HTTP URL", Quoted(url.as_bytes())))
        .hint("write https://HOST/PATH")
}

fn read_netrc(settings: &Settings) -> Result<String> {
    let Some(path) = &settings.netrc else { return Ok(String::new()) };
    let doing = || format!("reading {path:?}");
    match read_settings_file(path, NETRC_BYTES_MAX) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::Usage, "it is not UTF-8")).doing(doing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Error::io(ErrorKind::Usage, error)).doing(doing),
    }
}
