use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::http::header::WWW_AUTHENTICATE;
use url::form_urlencoded::Serializer;

use super::challenge::Challenge;
use super::credentials::{self, Credentials};
use super::http::{Answer, Failure, Http, refusal};
use super::retry::Retry;
use super::secret::Secret;
use super::settings::Settings;
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

/// The longest answer of a token server that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;

type Asked<T> = std::result::Result<T, Failure>;

/// A repository on a registry: the one that the reference names, or a mirror's.
pub(super) struct Endpoint {
    /// What people call the registry, and what logins are filed under.
    host: String,
    /// What is connected to.
    pub(super) authority: String,
    repository: String,
    /// Whether it is the one that the reference names.
    named: bool,
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
    /// What each endpoint is shown, once it asked.
    authorizations: Mutex<BTreeMap<usize, Secret>>,
    warnings: Mutex<Vec<String>>,
}

impl Client {
    pub(super) fn new(reference: &Reference, settings: Settings, monitor: Monitor) -> Self {
        let of_mirror = |mirror: &super::settings::Mirror| Endpoint {
            host: mirror.host.clone(),
            authority: authority_of(&mirror.host),
            repository: [mirror.prefix.as_str(), &reference.repository].join("/").trim_start_matches('/').to_string(),
            named: false,
        };
        let named = Endpoint {
            host: reference.host.clone(),
            authority: authority_of(&reference.host),
            repository: reference.repository.clone(),
            named: true,
        };
        let mirrors = settings.mirrors.iter().filter(|mirror| mirror.of == reference.host).map(of_mirror);
        let endpoints = mirrors.chain([named]).collect();
        let settings = Arc::new(settings);
        Client {
            http: Http::new(Arc::clone(&settings)),
            settings,
            monitor,
            endpoints,
            schemes: Mutex::default(),
            authorizations: Mutex::default(),
            warnings: Mutex::default(),
        }
    }

    /// What went otherwise than was asked for.
    pub(super) fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
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
            let warning = format!("{origin} was asked because mirror {mirror} failed: {error}");
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

    fn try_document(&self, at: usize, path: &str, what: &str, digest: Option<Digest>) -> Asked<Document> {
        let accept: &[(&str, &str)] = if path.starts_with("manifests/") { &[("accept", MANIFESTS)] } else { &[] };
        let mut answer = self.ask(at, path, accept)?;
        if answer.status != 200 {
            return Err(refusal(answer, what));
        }
        refuse_web_page(&answer, what)?;
        let from = answer.url.authority.clone();
        let bytes = answer.start(DOCUMENT_BYTES_MAX + 1).map_err(|error| broken(&from, &error))?;
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
        let Endpoint { authority, repository, .. } = &self.endpoints[at];
        let ask = |scheme| {
            let url = Url::new(scheme, authority, &format!("/v2/{repository}/{path}"))
                .ok_or_else(|| Error::new(ErrorKind::Usage, format!("{authority:?} is not a host")))?;
            self.ask_authorized(at, &url, headers)
        };
        if let Some(scheme) = self.scheme(authority) {
            return ask(scheme);
        }
        let secure = ask(Scheme::Https);
        // Docker falls back to plain HTTP on this machine, and only there.
        let (answer, scheme) = match secure {
            Err(Failure::NoTls(_) | Failure::Passing { .. }) if is_loopback(authority) => {
                (ask(Scheme::Http), Scheme::Http)
            }
            secure => (secure, Scheme::Https),
        };
        if answer.is_ok() {
            lock(&self.schemes).insert(authority.clone(), scheme);
        }
        answer
    }

    fn scheme(&self, authority: &str) -> Option<Scheme> {
        if self.settings.insecure.iter().any(|host| host.eq_ignore_ascii_case(authority)) {
            return Some(Scheme::Http);
        }
        lock(&self.schemes).get(authority).copied()
    }

    /// Asks without credentials until the server wants some.
    fn ask_authorized(&self, at: usize, url: &Url, headers: &[(&str, &str)]) -> Asked<Answer> {
        let shown = lock(&self.authorizations).get(&at).cloned();
        let answer = self.http.get(url, headers, shown.as_ref())?;
        if answer.status != 401 || !answer.is_from_asked {
            return Ok(answer);
        }
        let challenges = answer.headers.get_all(WWW_AUTHENTICATE);
        let Some(challenge) = Challenge::of(challenges.iter().filter_map(|value| value.to_str().ok())) else {
            return Ok(answer);
        };
        let authorization = self.authorize(at, url, &challenge, shown.as_ref())?;
        self.http.get(url, headers, Some(&authorization))
    }

    /// What is to be shown to an endpoint that was not content with what was `shown`. Several threads may need it at once:
    /// one gets it.
    fn authorize(&self, at: usize, url: &Url, challenge: &Challenge, shown: Option<&Secret>) -> Asked<Secret> {
        let mut authorizations = lock(&self.authorizations);
        if let Some(current) = authorizations.get(&at).filter(|&current| Some(current) != shown) {
            return Ok(current.clone());
        }
        let endpoint = &self.endpoints[at];
        let found = credentials::find(&self.settings, &endpoint.host, &endpoint.repository, endpoint.named)?;
        let secret = match (challenge, found) {
            (Challenge::Bearer { realm, service, scope }, found) => {
                let usual = format!("repository:{}:pull", endpoint.repository);
                let scope = scope.as_deref().unwrap_or(&usual);
                self.token(url, realm, service.as_deref().unwrap_or_default(), scope, found)?
            }
            (Challenge::Basic, Some(Credentials::Password(login))) => credentials::basic(&login),
            (Challenge::Basic, _) => {
                let host = &endpoint.host;
                let error = Error::new(ErrorKind::Network, format!("{host} wants a login, and none is known for it"));
                return Err(error.hint(format!("log in with docker login {host} or podman login {host}")).into());
            }
        };
        authorizations.insert(at, secret.clone());
        Ok(secret)
    }

    /// Has a token made (distribution/spec, auth/token and auth/oauth).
    fn token(&self, asked: &Url, realm: &str, service: &str, scope: &str, found: Option<Credentials>) -> Asked<Secret> {
        let lasting = |why: String| Failure::Lasting(Error::new(ErrorKind::Network, why));
        let realm = Url::parse(realm)
            .ok_or_else(|| lasting(format!("{} wants a token from something that is no address", asked.authority)))?;
        let may_be_plain = is_loopback(&realm.authority) || self.settings.insecure.contains(&realm.authority);
        if asked.scheme == Scheme::Https && realm.scheme == Scheme::Http && !may_be_plain {
            return Err(lasting(format!("{} wants a token from {realm}, which is not encrypted", asked.authority)));
        }
        let parameters: Vec<(&str, &str)> =
            [("service", service), ("scope", scope)].into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let user = match &found {
            Some(Credentials::Password(login)) => format!(" the login of {:?}", login.username),
            Some(Credentials::IdentityToken(_)) => " the login on file".to_string(),
            None => " us without a login".to_string(),
        };
        let mut answer = match found {
            Some(Credentials::IdentityToken(refresh)) => {
                let mut form = vec![("grant_type", "refresh_token"), ("client_id", "sif-convert")];
                form.extend(parameters);
                form.push(("refresh_token", refresh.expose()));
                self.http.post(&realm, &Serializer::new(String::new()).extend_pairs(form).finish())?
            }
            Some(Credentials::Password(login)) => {
                self.http.get(&realm.with_query(&parameters), &[], Some(&credentials::basic(&login)))?
            }
            None => self.http.get(&realm.with_query(&parameters), &[], None)?,
        };
        match answer.status {
            200 => {}
            401 | 403 => {
                let error = Error::new(ErrorKind::Network, format!("token server {realm} does not accept{user}"));
                let hint = format!("log in (again) with docker login or podman login to {}", asked.authority);
                return Err(error.hint(hint).into());
            }
            _ => return Err(refusal(answer, "token").or_lasting()),
        }
        let body = answer.start(TOKEN_BYTES_MAX).map_err(|error| broken(&realm.authority, &error))?;
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = ["token", "access_token"].iter().find_map(|key| document.get(key)?.as_str());
        let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        let token = token.ok_or_else(|| lasting(format!("token server {realm} answers without a token")))?;
        Ok(Secret::new(format!("Bearer {token}")))
    }

    /// Opens the bytes of a blob from `position` on, as an endpoint gives them.
    pub(super) fn blob(
        &self,
        at: usize,
        digest: Digest,
        size: Option<u64>,
        position: u64,
    ) -> Asked<Box<dyn Read + Send>> {
        let range = format!("bytes={position}-");
        let headers: &[(&str, &str)] = if position > 0 { &[("range", &range)] } else { &[] };
        let answer = self.ask(at, &format!("blobs/{digest}"), headers)?;
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
        let range = format!("bytes={position}-");
        let headers: &[(&str, &str)] = if position > 0 { &[("range", &range)] } else { &[] };
        self.body(self.http.get(url, headers, None)?, digest, size, position)
    }

    fn body(&self, answer: Answer, digest: Digest, size: Option<u64>, position: u64) -> Asked<Box<dyn Read + Send>> {
        let what = format!("blob {digest}");
        let from = answer.url.authority.clone();
        let lasting = |kind, message: String| Failure::Lasting(Error::new(kind, message));
        match answer.status {
            200 => {
                refuse_web_page(&answer, &what)?;
                if let (Some(expected), Some(got)) = (size, answer.length())
                    && expected != got
                {
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
                let start = answer
                    .header("content-range")
                    .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse::<u64>().ok());
                if start != Some(position) {
                    return Err(lasting(
                        ErrorKind::Network,
                        format!("{from} gives another part of {what} than was asked for"),
                    ));
                }
                Ok(Box::new(answer.body.into_reader()))
            }
            416 => Err(lasting(ErrorKind::Mismatch, format!("{what} of {from} ends before byte {position}"))),
            _ => Err(refusal(answer, &what)),
        }
    }
}

impl Failure {
    /// A token server that has no token is no image that is missing.
    fn or_lasting(self) -> Failure {
        match self {
            Failure::Missing(error) => Failure::Lasting(Error::new(ErrorKind::Network, error)),
            other => other,
        }
    }
}

/// A connection that broke in the middle of an answer.
pub(super) fn broken(from: &str, error: &std::io::Error) -> Failure {
    let error = Error::new(ErrorKind::Network, format!("the answer of {from} broke off: {error}"));
    Failure::Passing { error: error.hint("check the network, then try again"), wait: None }
}

fn refuse_web_page(answer: &Answer, what: &str) -> Asked<()> {
    if !answer.is_web_page() {
        return Ok(());
    }
    let message = format!("{} answers with a web page when asked for {what}", answer.url);
    let hint = "check the name of the registry; if a proxy or a login page is in between, see NO_PROXY";
    Err(Error::new(ErrorKind::Network, message).hint(hint).into())
}

/// What is connected to for a host as references name it.
fn authority_of(host: &str) -> String {
    let authority = if host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { host };
    authority.to_ascii_lowercase()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
