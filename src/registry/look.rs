//! Questions about a repository that cost one request each and fetch no image.

use std::collections::BTreeSet;

use serde::Deserialize;
use ureq::http::Method;

use super::client::{Client, Endpoint, MANIFESTS, broken};
use super::http::{Answer, Failure, Request, refusal};
use super::link::next_query;
use super::retry::Retry;
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Monitor;
use crate::model::{Digest, Reference};

/// How many tags are asked for at once; registries may send fewer.
const TAGS_ASKED: &str = "1000";
/// The longest page of tags that is read, in bytes: tags have 128 characters at most.
const PAGE_BYTES_MAX: u64 = 4 << 20;
/// How many tags one repository may have.
const TAGS_MAX: usize = 1_000_000;

type Asked<T> = std::result::Result<T, Failure>;

/// Asks which manifest or index `reference` names now: one HEAD request, which registries with a rate limit do not count as a
/// pull. A registry that answers otherwise than with a digest is asked for the document.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] where there is no such image, [`ErrorKind::Network`] when the registry cannot be reached or
/// refuses.
pub(crate) fn digest_of(reference: &Reference, settings: &Settings, monitor: &Monitor) -> Result<Digest> {
    if let Some(digest) = reference.digest {
        return Ok(digest);
    }
    let client = Client::for_pulling(reference, settings.clone(), monitor.clone())?;
    let tag = reference.tag.as_deref().unwrap_or("latest");
    let (path, what) = (format!("manifests/{tag}"), format!("image {}:{tag}", reference.repository));
    first(&client, |at| match stated(&client, at, &path, &what)? {
        Some(digest) => Ok(digest),
        None => client.try_document(at, &path, &what, None).map(|found| Digest::of(&found.bytes)),
    })
}

/// The digest that an endpoint states without sending the document; `None` where only the document can tell. Not all servers
/// have HEAD, and some refuse it, or find nothing by it, where they answer GET.
fn stated(client: &Client, at: usize, path: &str, what: &str) -> Asked<Option<Digest>> {
    let answer = match client.head(at, path) {
        Ok(answer) => answer,
        // The connection works: it wants a login, and none is known. GET may do without.
        Err(Failure::Lasting(_)) if client.http.knows(&client.endpoints[at].authority) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    match answer.status {
        200 => Ok(answer.header("docker-content-digest").and_then(|text| text.parse().ok())),
        408 | 425 | 429 | 500 | 502..=599 => Err(refusal(answer, what)),
        // A password that is wrong is wrong for GET too, and an account that sees it too often may be locked.
        401 if client.shows_password(at) => Err(refusal(answer, what)),
        _ => Ok(None),
    }
}

/// The tags of the repository that `reference` names, in order.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] where there is no such repository, [`ErrorKind::Network`] when the registry cannot be
/// reached, refuses, or lists no end of tags.
pub(crate) fn tags(reference: &Reference, settings: &Settings, monitor: &Monitor) -> Result<BTreeSet<String>> {
    let client = Client::for_pulling(reference, settings.clone(), monitor.clone())?;
    let mut tags = BTreeSet::new();
    let mut query = format!("n={TAGS_ASKED}");
    loop {
        let page = first(&client, |at| page(&client, at, &query))?;
        let before = tags.len();
        tags.extend(page.tags);
        match page.next {
            // A page that brings nothing new would be followed by itself for ever.
            Some(_) if tags.len() == before || tags.len() > TAGS_MAX => {
                let message = format!("{} of {} lists no end of tags", client.host(), reference.repository);
                return Err(Error::new(ErrorKind::Network, message));
            }
            Some(next) => query = next,
            None => return Ok(tags),
        }
    }
}

/// A page of tags, and the parameters of the next one.
struct Page {
    tags: Vec<String>,
    next: Option<String>,
}

/// The answer of `GET /v2/NAME/tags/list` (distribution-spec, "Listing Tags").
#[derive(Deserialize)]
struct Document {
    tags: Option<Vec<String>>,
}

fn page(client: &Client, at: usize, query: &str) -> Asked<Page> {
    let what = format!("list of tags of {}", client.endpoints[at].repository);
    let mut answer = client.ask(at, &format!("tags/list?{query}"), &[])?;
    if answer.status != 200 {
        return Err(refusal(answer, &what));
    }
    let from = answer.url.authority.clone();
    let bytes = answer.start(PAGE_BYTES_MAX).map_err(|error| broken(&from, &error))?;
    let document: Document = serde_json::from_slice(&bytes)
        .map_err(|error| Error::new(ErrorKind::Network, format!("{what}: {from} sent an invalid answer: {error}")))?;
    Ok(Page { tags: document.tags.unwrap_or_default(), next: next_query(&answer.headers) })
}

/// Asks one endpoint after the other, each as often as is worth it.
fn first<T>(client: &Client, ask: impl Fn(usize) -> Asked<T>) -> Result<T> {
    let mut at = 0;
    loop {
        let mut retry = Retry::new(&client.settings);
        let asked = loop {
            match ask(at) {
                Ok(answer) => break Ok(answer),
                Err(failure) => match client.wait(&mut retry, failure, at) {
                    Ok(()) => {}
                    Err(failure) => break Err(failure.into_error()),
                },
            }
        };
        match asked {
            Err(error) if at + 1 < client.endpoints.len() && client.pass_over(at, &error) => at += 1,
            asked => return asked,
        }
    }
}

impl Client {
    /// The registry that the reference names.
    fn host(&self) -> &str {
        self.endpoints.last().map_or("", |Endpoint { host, .. }| host)
    }

    /// Asks an endpoint about a manifest without fetching it.
    fn head(&self, at: usize, path: &str) -> Asked<Answer> {
        let headers: &[(&str, &str)] = &[("accept", MANIFESTS)];
        self.ask_with(at, |url| self.send(&Request { headers, ..Request::new(Method::HEAD, url) }), path)
    }
}
