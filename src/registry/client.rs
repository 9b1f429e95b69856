use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::http::Method;

use super::auth::{Access, Auth, Door};
use super::http::{Answer, Failure, Http, Payload, Request, refusal};
use super::registries_conf::PullSource;
use super::retry::Retry;
use super::settings::{Mirror, Settings};
use super::url::{Scheme, Url, is_loopback};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::{Expected, Monitor};
use crate::model::{DOCUMENT_BYTES_MAX, Digest, Reference};

/// Where Docker Hub's registry is; `docker.io` itself is a web site.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Every form of a manifest that we read.
pub(super) const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

type Asked<T> = std::result::Result<T, Failure>;

/// A repository on a registry: the one that the reference names, or a mirror's.
pub(super) struct Endpoint {
    /// What people call the registry, and what logins are filed under.
    pub(super) host: String,
    /// What is connected to.
    pub(super) authority: String,
    pub(super) repository: String,
    /// Whether it is the one that the reference names.
    pub(super) is_named: bool,
}

impl Endpoint {
    fn of(reference: &Reference) -> Endpoint {
        Endpoint {
            host: reference.host.clone(),
            authority: authority_of(&reference.host),
            repository: reference.repository.clone(),
            is_named: true,
        }
    }
}

/// A document as it came.
pub(super) struct Document {
    pub(super) bytes: Vec<u8>,
    /// What the registry says it hashes to.
    pub(super) stated: Option<Digest>,
}

/// Asks registries, in order, for parts of one image.
pub(super) struct Client {
    pub(super) settings: Arc<Settings>,
    pub(super) monitor: Monitor,
    pub(super) http: Http,
    pub(super) endpoints: Vec<Endpoint>,
    /// How a server is spoken to, once that is known.
    schemes: Mutex<BTreeMap<String, Scheme>>,
    auth: Auth,
    warnings: Mutex<Vec<String>>,
}

impl Client {
    /// A client for an image that is read: mirrors first. Those that are given go before those of `registries.conf`.
    pub(super) fn for_pulling(reference: &Reference, settings: Settings, monitor: Monitor) -> Result<Self> {
        let given: Vec<&Mirror> = settings.mirrors.iter().filter(|mirror| mirror.of == reference.host).collect();
        let mut sources = settings.registries.pull_sources(reference)?;
        if !given.is_empty() {
            sources.drain(..sources.len() - 1);
        }
        let of_mirror = |mirror: &&Mirror| Endpoint {
            host: mirror.host.clone(),
            authority: authority_of(&mirror.host),
            repository: [mirror.prefix.as_str(), &reference.repository].join("/").trim_start_matches('/').to_string(),
            is_named: false,
        };
        let of_source = |source: &PullSource| Endpoint {
            is_named: source.reference.host == reference.host,
            ..Endpoint::of(&source.reference)
        };
        let endpoints = given.iter().map(of_mirror).chain(sources.iter().map(of_source)).collect();
        let lenient = sources.iter().filter(|source| source.is_insecure);
        let lenient = lenient.map(|source| authority_of(&source.reference.host));
        let mut settings = settings;
        settings.lenient.extend(lenient);
        let auth = |settings| Auth::new(settings, Access::Pull, Vec::new());
        Ok(Client::new(endpoints, settings, monitor, auth))
    }

    /// A client for each place that an image is read from: mirrors first.
    pub(super) fn each_for_pulling(reference: &Reference, settings: &Settings, monitor: &Monitor) -> Result<Vec<Self>> {
        let client = || Client::for_pulling(reference, settings.clone(), monitor.clone());
        let one = |at: usize| {
            let mut client = client()?;
            client.endpoints = vec![client.endpoints.swap_remove(at)];
            Ok(client)
        };
        (0..client()?.endpoints.len()).map(one).collect()
    }

    /// A client for a repository that is written to, which no mirror stands for. Blobs may be mounted from other
    /// repositories, which then must be read.
    pub(super) fn for_pushing(
        reference: &Reference,
        mounts: &[String],
        mut settings: Settings,
        monitor: Monitor,
    ) -> Result<Self> {
        if settings.registries.expect_writable(reference)? {
            settings.lenient.push(authority_of(&reference.host));
        }
        let scopes = mounts.iter().map(|repository| format!("repository:{repository}:pull")).collect();
        let auth = |settings| Auth::new(settings, Access::Push, scopes);
        Ok(Client::new(vec![Endpoint::of(reference)], settings, monitor, auth))
    }

    fn new(
        endpoints: Vec<Endpoint>,
        settings: Settings,
        monitor: Monitor,
        auth: impl FnOnce(Arc<Settings>) -> Auth,
    ) -> Self {
        let settings = Arc::new(settings);
        let authority = endpoints.last().map(|endpoint| endpoint.authority.clone()).unwrap_or_default();
        Client {
            http: Http::new(Arc::clone(&settings), &authority, &monitor),
            monitor,
            endpoints,
            schemes: Mutex::default(),
            auth: auth(Arc::clone(&settings)),
            settings,
            warnings: Mutex::default(),
        }
    }

    /// What went otherwise than was asked for.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = lock(&self.warnings).clone();
        warnings.extend(self.auth.warnings());
        warnings
    }

    /// Fetches a manifest, config or the like from the first endpoint that has it. `path` is what comes after the
    /// repository, `what` is how messages call it. Where `digest` is given, the document has it.
    pub(super) fn document(&self, path: &str, what: &str, digest: Option<Digest>) -> Result<Document> {
        let mut at = 0;
        loop {
            match self.document_at(at, path, what, digest) {
                Err(error) if at + 1 < self.endpoints.len() && self.pass_over(at, &error) => at += 1,
                result => return result,
            }
        }
    }

    /// Whether the next endpoint is to be asked after this `error`.
    pub(super) fn pass_over(&self, at: usize, error: &Error) -> bool {
        let stopped = matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Terminated);
        if !stopped {
            let (mirror, origin) = (&self.endpoints[at].host, &self.endpoints[at + 1].host);
            let warning = format!("mirror {mirror} failed; used {origin} instead: {error}");
            let mut warnings = lock(&self.warnings);
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        !stopped
    }

    fn document_at(&self, at: usize, path: &str, what: &str, digest: Option<Digest>) -> Result<Document> {
        let mut retry = Retry::new(&self.settings);
        loop {
            match self.try_document(at, path, what, digest) {
                Ok(document) => return Ok(document),
                Err(failure) => self.wait(&mut retry, failure, at).map_err(Failure::into_error)?,
            }
        }
    }

    pub(super) fn wait(&self, retry: &mut Retry, failure: Failure, at: usize) -> Asked<()> {
        retry.wait(failure, &self.endpoints[at].authority, &self.http, &self.monitor)
    }

    /// Asks one endpoint once.
    pub(super) fn try_document(&self, at: usize, path: &str, what: &str, digest: Option<Digest>) -> Asked<Document> {
        let accept: &[(&str, &str)] = if path.starts_with("manifests/") { &[("accept", MANIFESTS)] } else { &[] };
        let mut answer = self.ask(at, path, accept)?;
        if answer.status != 200 {
            return Err(refusal(answer, what));
        }
        let from = answer.url.authority.clone();
        let bytes = answer.start(DOCUMENT_BYTES_MAX + 1).map_err(|error| broken(&from, &error))?;
        let is_expected = digest.is_some_and(|digest| Digest::of(&bytes) == digest);
        if answer.is_web_page() && !is_expected && !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(web_page(&answer, what));
        }
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let message = format!("{what} of {from} has more than {DOCUMENT_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::InvalidImage, message).into());
        }
        if let Some(digest) = digest {
            Expected::digest(digest).check_bytes(&bytes).doing(|| format!("reading {what} of {from}"))?;
        }
        let stated = answer.header("docker-content-digest").and_then(|text| text.parse().ok());
        Ok(Document { bytes, stated })
    }

    /// Asks an endpoint for what is at `path` below the repository. Any status is an answer.
    pub(super) fn ask(&self, at: usize, path: &str, headers: &[(&str, &str)]) -> Asked<Answer> {
        self.ask_with(at, |url| self.send(&Request { headers, ..Request::new(Method::GET, url) }), path)
    }

    /// Sends any request to the first endpoint: the only one of a client that pushes.
    pub(super) fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Asked<Answer> {
        let body = Payload::Bytes(body);
        self.ask_with(0, |url| self.send(&Request { headers, body, ..Request::new(method.clone(), url) }), path)
    }

    /// The same with parameters.
    pub(super) fn request_with(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Asked<Answer> {
        self.ask_with(0, |url| self.send(&Request::new(method.clone(), &url.with_query(query))), path)
    }

    /// The URL of what is at `path` below the repository, once it is known how the server is spoken to.
    pub(super) fn url_of(&self, at: usize, path: &str) -> Asked<Url> {
        let authority = &self.endpoints[at].authority;
        self.url(at, self.scheme(authority).unwrap_or(Scheme::Https), path)
    }

    fn url(&self, at: usize, scheme: Scheme, path: &str) -> Asked<Url> {
        let Endpoint { authority, repository, .. } = &self.endpoints[at];
        let url = Url::new(scheme, authority, &format!("/v2/{repository}/{path}"));
        Ok(url.ok_or_else(|| Error::new(ErrorKind::Usage, format!("{authority:?} is not a host")))?)
    }

    pub(super) fn ask_with(&self, at: usize, send: impl Fn(&Url) -> Asked<Answer>, path: &str) -> Asked<Answer> {
        let authority = &self.endpoints[at].authority;
        let ask = |scheme| send(&self.url(at, scheme, path)?);
        if let Some(scheme) = self.scheme(authority) {
            return ask(scheme);
        }
        let secure = ask(Scheme::Https);
        // Docker falls back to plain HTTP on this machine, and only there; containers/image where it is told to.
        let (answer, scheme) = match secure {
            Err(Failure::NoTls(_) | Failure::Passing { .. } | Failure::Nobody(_))
                if is_loopback(authority) || self.settings.lenient.contains(authority) =>
            {
                (ask(Scheme::Http), Scheme::Http)
            }
            secure => (secure, Scheme::Https),
        };
        if answer.is_ok() {
            lock(&self.schemes).insert(authority.clone(), scheme);
        }
        answer
    }

    /// Sends a request with what it takes to be let in.
    pub(super) fn send(&self, request: &Request<'_>) -> Asked<Answer> {
        let Client { auth, http, endpoints, monitor, .. } = self;
        Door { auth, http, endpoints, monitor }.send(request)
    }

    /// Whether an endpoint is shown a password with each request.
    pub(super) fn shows_password(&self, at: usize) -> bool {
        self.url_of(at, "manifests/").is_ok_and(|url| self.auth.shows_password(&url))
    }

    fn scheme(&self, authority: &str) -> Option<Scheme> {
        if self.settings.insecure.iter().any(|host| host.eq_ignore_ascii_case(authority)) {
            return Some(Scheme::Http);
        }
        lock(&self.schemes).get(authority).copied()
    }

    /// Opens the bytes of a blob from `position` on, as an endpoint gives them.
    pub(super) fn blob(
        &self,
        at: usize,
        digest: Digest,
        size: Option<u64>,
        position: u64,
    ) -> Asked<Box<dyn Read + Send>> {
        let answer = ask_from(position, |headers| self.ask(at, &format!("blobs/{digest}"), headers))?;
        self.body(answer, digest, size, position)
    }

    /// The same of a layer that lies elsewhere.
    pub(super) fn foreign_blob(
        &self,
        url: &Url,
        digest: Digest,
        size: Option<u64>,
        position: u64,
    ) -> Asked<Box<dyn Read + Send>> {
        let answer = ask_from(position, |headers| {
            let request = Request { headers, is_guarded: true, ..Request::new(Method::GET, url) };
            self.http.send(&request, &|_| None)
        })?;
        self.body(answer, digest, size, position)
    }

    fn body(&self, answer: Answer, digest: Digest, size: Option<u64>, position: u64) -> Asked<Box<dyn Read + Send>> {
        let what = format!("blob {digest}");
        let from = answer.url.authority.clone();
        let lasting = |kind, message: String| Failure::Lasting(Error::new(kind, message));
        match answer.status {
            200 => {
                if let (Some(expected), Some(got)) = (size, answer.length())
                    && expected != got
                {
                    if answer.is_web_page() {
                        return Err(web_page(&answer, &what));
                    }
                    let message = format!("{what} of {from}: size mismatch: expected {expected} bytes, got {got}");
                    return Err(lasting(ErrorKind::Mismatch, message));
                }
                let mut body = answer.body.into_reader();
                // A server without ranges begins at the beginning.
                std::io::copy(&mut Read::by_ref(&mut body).take(position), &mut std::io::sink())
                    .map_err(|error| broken(&from, &error))?;
                Ok(Box::new(body))
            }
            206 if position > 0 => {
                if start_of(&answer) != Some(position) {
                    return Err(lasting(
                        ErrorKind::Network,
                        format!("{from} sent another part of {what} than was requested"),
                    ));
                }
                Ok(Box::new(answer.body.into_reader()))
            }
            416 => Err(lasting(ErrorKind::Mismatch, format!("{what} of {from} ends before byte {position}"))),
            _ => Err(refusal(answer, &what)),
        }
    }
}

/// Asks for what comes from `position` on. A server that sends another part instead is asked for all of it.
fn ask_from(position: u64, ask: impl Fn(&[(&str, &str)]) -> Asked<Answer>) -> Asked<Answer> {
    if position == 0 {
        return ask(&[]);
    }
    let answer = ask(&[("range", &format!("bytes={position}-"))])?;
    if answer.status == 206 && start_of(&answer) != Some(position) { ask(&[]) } else { Ok(answer) }
}

/// Where the part begins that an answer holds.
fn start_of(answer: &Answer) -> Option<u64> {
    answer.header("content-range")?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A connection that broke in the middle of an answer.
pub(super) fn broken(from: &str, error: &std::io::Error) -> Failure {
    let error = Error::new(ErrorKind::Network, format!("the answer of {from} broke off: {error}"));
    Failure::Passing { error: error.hint("check the network, then try again"), wait: None }
}

fn web_page(answer: &Answer, what: &str) -> Failure {
    let message = format!("{} answered a request for {what} with a web page", answer.url);
    let hint = "check the name of the registry; if a proxy or a login page is in between, see NO_PROXY";
    Error::new(ErrorKind::Network, message).hint(hint).into()
}

/// What is connected to for a host as references name it.
pub(super) fn authority_of(host: &str) -> String {
    let authority = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
    authority.to_ascii_lowercase()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
