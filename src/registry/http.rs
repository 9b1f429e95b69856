use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Method, header};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy, SendBody};

use super::guard::{self, Guard};
use super::secret::{Secret, redacted};
use super::settings::Settings;
use super::tls;
use super::url::{Scheme, Url};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::io::{Event, Monitor};
use crate::model::Quoted;

/// As browsers and Go allow.
const REDIRECTS_MAX: usize = 10;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may pass: worth another try, but not before `wait` where the server said so.
    Passing { error: Error, wait: Option<Duration> },
    /// Nobody is there. That passes too, where someone was there before.
    Nobody(Error),
    /// What answers speaks no TLS.
    NoTls(Error),
    /// What was asked for is not there.
    Missing(Error),
    /// A login is not accepted.
    Denied(Error),
    /// It will not get better.
    Lasting(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::Passing { error, .. }
            | Failure::Nobody(error)
            | Failure::NoTls(error)
            | Failure::Missing(error)
            | Failure::Denied(error)
            | Failure::Lasting(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Lasting(error)
    }
}

/// An answer, whatever its status.
pub(super) struct Answer {
    /// Where it came from at last.
    pub(super) url: Url,
    /// Whether that is the server that was asked.
    pub(super) is_from_asked: bool,
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Answer {
    /// The value of a header, where it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// How long the body says it is.
    pub(super) fn length(&self) -> Option<u64> {
        self.header("content-length").and_then(|text| text.parse().ok())
    }

    /// The first bytes of the body: for documents and messages, never for blobs.
    pub(super) fn start(&mut self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        self.body.as_reader().take(bytes_max).read_to_end(&mut start)?;
        Ok(start)
    }

    /// Whether people are meant to read it: a login page, a proxy's complaint.
    pub(super) fn is_web_page(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/html"))
    }
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    Bytes(&'a [u8]),
    /// Too much to hold in memory.
    Stream(&'a dyn Stream),
}

/// A body of known length that is read anew each time it is sent: after a redirect or a login, it is sent again.
pub(super) trait Stream {
    /// How many bytes it has.
    fn length(&self) -> u64;

    /// Opens it at its start. What reading fails with ends the request, and is not taken for trouble of the network.
    fn open(&self) -> Result<Box<dyn Read + '_>>;
}

/// Keeps the error that reading a [`Stream`] fails with: out of the connection it comes as one of the network.
struct Watchful<'a> {
    inner: Box<dyn Read + 'a>,
    trouble: Option<Error>,
}

impl Read for Watchful<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            self.trouble = Some(Error::io(ErrorKind::SourceUnavailable, error));
            io::ErrorKind::Other.into()
        })
    }
}

/// What is sent.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: Payload<'a>,
    /// Whether it is somebody's choice whom we do not trust: see [`guard`].
    pub(super) is_guarded: bool,
    /// A repository whose credentials its own server may see at any URL: some take uploads elsewhere than below it.
    pub(super) home: Option<&'a Url>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, url: &'a Url) -> Self {
        Request { method, url, headers: &[], body: Payload::Bytes(&[]), is_guarded: false, home: None }
    }
}

type Sent = std::result::Result<Answer, Failure>;

/// Sends requests: one agent for each server, because each has its own certificates and its own proxy.
pub(super) struct Http {
    settings: Arc<Settings>,
    agents: Mutex<BTreeMap<(Scheme, String, bool), Agent>>,
    /// Whom guarded requests may reach.
    guard: Guard,
    /// Servers that have answered.
    known: Mutex<BTreeSet<String>>,
    /// Whom requests are told to.
    monitor: Monitor,
}

impl Http {
    /// `authority` is the registry's own: where it is, guarded requests may go too.
    pub(super) fn new(settings: Arc<Settings>, authority: &str, monitor: &Monitor) -> Self {
        let guard = Guard::of_registry(authority);
        Http { settings, agents: Mutex::default(), guard, known: Mutex::default(), monitor: monitor.clone() }
    }

    /// Whether this server has answered before.
    pub(super) fn knows(&self, authority: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(authority)
    }

    /// Sends a request and follows where the answer leads, with the same method and body. `shown` says what each server
    /// may see as `Authorization`: it is asked for every server that the request comes to.
    pub(super) fn send(&self, request: &Request<'_>, shown: &dyn Fn(&Url) -> Option<Secret>) -> Sent {
        let mut at = request.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_once(request, &at, shown(&at).as_ref())?;
            let Some(location) = redirection(&answer) else { return Ok(answer) };
            at = self.follow(&at, location)?;
        }
        let message = format!("{}: too many redirects (limit {REDIRECTS_MAX})", request.url);
        Err(Failure::Lasting(Error::new(ErrorKind::Network, message)))
    }

    /// Sends a form. No redirect is followed: what forms hold is for the server of `url` alone.
    pub(super) fn post_form(&self, url: &Url, form: &str) -> Sent {
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let request =
            Request { headers: &headers, body: Payload::Bytes(form.as_bytes()), ..Request::new(Method::POST, url) };
        self.send_once(&request, url, None)
    }

    fn send_once(&self, request: &Request<'_>, at: &Url, authorization: Option<&Secret>) -> Sent {
        let agent = self.agent(at, request.is_guarded)?;
        let mut built = ureq::http::Request::builder().method(request.method.clone()).uri(at.full());
        // A body that was compressed on its way has other bytes than its digest says.
        built = built.header(header::ACCEPT_ENCODING, "identity");
        for (name, value) in request.headers {
            built = built.header(*name, *value);
        }
        if let Some(secret) = authorization {
            built = built.header(header::AUTHORIZATION, secret.expose());
        }
        let malformed = |error: ureq::http::Error| {
            Failure::Lasting(Error::new(ErrorKind::Network, format!("cannot build a request to {at}: {error}")))
        };
        let asked = Instant::now();
        let response = match request.body {
            _ if matches!(request.method, Method::GET | Method::HEAD) => agent.run(built.body(()).map_err(malformed)?),
            Payload::Bytes(bytes) => agent.run(built.body(bytes).map_err(malformed)?),
            Payload::Stream(stream) => {
                let mut reader = Watchful { inner: stream.open()?, trouble: None };
                let built = built.header(header::CONTENT_LENGTH, stream.length());
                let response = agent.run(built.body(SendBody::from_reader(&mut reader)).map_err(malformed)?);
                if let Some(trouble) = reader.trouble {
                    return Err(Failure::Lasting(trouble));
                }
                response
            }
        };
        let outcome = match &response {
            Ok(response) => response.status().as_u16().to_string(),
            Err(error) => error.to_string(),
        };
        self.monitor.tell(Event::Request {
            method: request.method.as_str(),
            url: &at.to_string(),
            outcome: &outcome,
            took: asked.elapsed(),
        });
        Ok(self.answer(request.url, at, response.map_err(|error| self.failure(at, &error))?))
    }

    fn answer(&self, asked: &Url, at: &Url, response: ureq::http::Response<Body>) -> Answer {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(at.authority.clone());
        let (parts, body) = response.into_parts();
        Answer {
            url: at.clone(),
            is_from_asked: at.is_same_server(asked),
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    /// Where `location` leads from there.
    pub(super) fn follow(&self, at: &Url, location: &str) -> std::result::Result<Url, Failure> {
        let error = |why: &str| Error::new(ErrorKind::Network, format!("{at} redirects to {why}"));
        let to = at.join(location).ok_or_else(|| error("something that is not an HTTP address"))?;
        let may_be_plain = self.settings.may_be_plain(&to.authority);
        if at.scheme == Scheme::Https && to.scheme == Scheme::Http && !may_be_plain {
            let error = error(&format!("{to}, which is not encrypted"));
            // A registry behind a proxy takes the way from there for the whole way.
            let is_misled = to.host() == at.host();
            return Err(Failure::Lasting(if is_misled { error.hint(FORWARDED_HINT) } else { error }));
        }
        Ok(to)
    }

    fn agent(&self, url: &Url, is_guarded: bool) -> Result<Agent> {
        let key = (url.scheme, url.authority.clone(), is_guarded);
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let proxy = self.settings.proxies.serving(url).map(|address| {
            proxy(address).ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("the proxy for {} is not given as an address", url.authority))
                    .hint("set HTTP_PROXY and HTTPS_PROXY to http://HOST:PORT or socks5://HOST:PORT")
            })
        });
        let timeout = Some(self.settings.timeout);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy.transpose()?)
            .user_agent(concat!("sif-convert/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(timeout)
            .timeout_connect(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout);
        if url.scheme == Scheme::Https {
            config = config.tls_config(tls::config(&self.settings, &url.authority)?);
        }
        if is_guarded {
            self.guard.check(url)?;
        }
        // Through a proxy it is the proxy's address that is looked up, and the proxy that connects.
        let agent = if is_guarded && self.settings.proxies.serving(url).is_none() {
            Agent::with_parts(config.build(), DefaultConnector::default(), self.guard.clone())
        } else {
            config.build().new_agent()
        };
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn failure(&self, url: &Url, error: &ureq::Error) -> Failure {
        use ureq::Error as E;
        let proxy = self.settings.proxies.serving(url).and_then(proxy);
        let via = proxy.as_ref().map_or("", |_| " through the proxy");
        let host = &url.authority;
        let network = |what: String| Error::new(ErrorKind::Network, what);
        // Through a proxy no other name is looked up here than that of the proxy itself.
        let no_host = || match &proxy {
            Some(proxy) => no_proxy(proxy.host(), host),
            None => no_host(host),
        };
        match error {
            E::HostNotFound => no_host(),
            E::Other(inner) if inner.is::<guard::Refused>() => Failure::Lasting(
                network(format!("{url}: {inner}"))
                    .hint("download the layer yourself, or push the image with all its layers"),
            ),
            E::Io(error) if is_lookup(error) && !error.to_string().contains("emporary") => no_host(),
            E::Timeout(_) => {
                let seconds = self.settings.timeout.as_secs_f64();
                let error = network(format!("{host}{via} sent nothing for {seconds} s"));
                Failure::Passing { error: error.with_remedy(Remedy::Timeout), wait: None }
            }
            E::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Failure::Nobody(network(format!("cannot connect to {host}{via}: {error}")).hint(match &proxy {
                    Some(_) => PROXY_HINT,
                    None => "check the name and the port of the registry, and that it runs",
                }))
            }
            E::Io(inner) => tls_trouble(url, &inner.to_string()).unwrap_or_else(|| {
                let error = network(format!("the connection to {host}{via} broke: {inner}"));
                Failure::Passing { error, wait: None }
            }),
            E::Rustls(inner) => tls_trouble(url, &inner.to_string())
                .unwrap_or_else(|| Failure::Lasting(network(format!("no encrypted connection to {host}: {inner}")))),
            E::ConnectProxyFailed(why) => Failure::Passing {
                error: network(format!("the proxy does not connect to {host}: {why}")).hint(PROXY_HINT),
                wait: None,
            },
            E::ConnectionFailed | E::Protocol(_) => Failure::Passing {
                error: network(format!("{host}{via} sent an invalid HTTP response: {error}")),
                wait: None,
            },
            other => Failure::Lasting(network(format!("asking {host}{via}: {other}"))),
        }
    }
}

const PROXY_HINT: &str = "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, and that the proxy runs";

const FORWARDED_HINT: &str = "the proxy in front of the registry should send it X-Forwarded-Proto: https";

/// The proxy at an address; `None` where it is none. As in Go, a SOCKS proxy of any version looks up names itself.
fn proxy(address: &Secret) -> Option<Proxy> {
    let text = address.expose();
    let by_proxy = [("socks://", "socks5h://"), ("socks5://", "socks5h://"), ("socks4://", "socks4a://")];
    let renamed = by_proxy.into_iter().find_map(|(from, to)| Some(format!("{to}{}", text.strip_prefix(from)?)));
    Proxy::new(renamed.as_deref().unwrap_or(text)).ok()
}

fn no_proxy(proxy: &str, host: &str) -> Failure {
    let error =
        Error::new(ErrorKind::Network, format!("the proxy for {host} is not found: no host is named {proxy:?}"));
    Failure::Nobody(error.hint(PROXY_HINT))
}

fn no_host(host: &str) -> Failure {
    let error = Error::new(ErrorKind::Network, format!("there is no host {host:?}"));
    Failure::Nobody(error.hint("check the name of the registry, and that this machine reaches a name server"))
}

/// Whether it is the name that was not found: Rust tells by words alone.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().contains("failed to lookup address information")
}

/// What a failed handshake means, told by the words of rustls: its types do not come through.
fn tls_trouble(url: &Url, words: &str) -> Option<Failure> {
    let host = &url.authority;
    let network = |what: String| Error::new(ErrorKind::Network, what);
    if words.contains("corrupt message") {
        let error = network(format!("{host} does not speak TLS"));
        return Some(Failure::NoTls(error.with_remedy(Remedy::Insecure(host.clone()))));
    }
    // Our certificate is meant, or that there is none.
    let refused = ["BadCertificate", "CertificateRequired", "CertificateUnknown", "CertificateExpired", "UnknownCA"];
    if words.contains("fatal alert: ") && refused.iter().any(|alert| words.contains(alert)) {
        let error = network(format!("{host} asks for a certificate, and takes none that it was shown: {words}"));
        let hint =
            format!("put your certificate and its key into /etc/docker/certs.d/{host}, as NAME.cert and NAME.key");
        return Some(Failure::Lasting(error.hint(hint)));
    }
    if words.contains("certificate expired") || words.contains("not valid") {
        let error = network(format!("{host} is not trusted: {words}"));
        return Some(Failure::Lasting(
            error
                .hint("its certificate must be renewed or corrected by who runs it; check the name, and the date here"),
        ));
    }
    if words.contains("certificate") || words.contains("UnknownIssuer") {
        let hint =
            format!("if you trust it, put the certificate of its authority into /etc/docker/certs.d/{host}/ca.crt");
        return Some(Failure::Lasting(network(format!("{host} is not trusted: {words}")).hint(hint)));
    }
    None
}

/// Where an answer sends us.
fn redirection(answer: &Answer) -> Option<&str> {
    matches!(answer.status, 301 | 302 | 303 | 307 | 308).then(|| answer.header("location")).flatten()
}

/// What a status other than success says, with the words of the registry where it has any (distribution/spec, errors).
pub(super) fn refusal(mut answer: Answer, what: &str) -> Failure {
    /// How much of a message is read, in bytes.
    const MESSAGE_BYTES_MAX: u64 = 16 << 10;
    let start = answer.start(MESSAGE_BYTES_MAX).unwrap_or_default();
    let words = words_of(&start).map(|words| format!(": {words}")).unwrap_or_default();
    let (status, url) = (answer.status, &answer.url);
    let error = |message: String| Error::new(ErrorKind::Network, message);
    match status {
        404 | 410 => Failure::Missing(Error::new(
            ErrorKind::SourceUnavailable,
            format!("{} has no {what}{words}", url.authority),
        )),
        401 | 403 => {
            Failure::Lasting(error(format!("{} denied access to {what} ({status}){words}", url.authority)).hint(
                "check the name; if it is right, log in with docker login or podman login as someone who may do that",
            ))
        }
        408 | 425 | 429 | 500..=599 => Failure::Passing {
            error: error(format!("{} answered {status} to a request for {what}{words}", url.authority))
                .hint("try again later"),
            wait: answer.header("retry-after").and_then(|text| pause_of(text, answer.header("date"))),
        },
        _ => Failure::Lasting(error(format!("{} answered {status} to a request for {what}{words}", url.authority))),
    }
}

/// How long `Retry-After` (RFC 9110) asks to wait: so many seconds, or until a date. The time is then the one of the server, which
/// its answer says too: the clock here may be another.
fn pause_of(text: &str, now: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(now?.trim()).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// The first error in a document of errors, on one line.
fn words_of(body: &[u8]) -> Option<String> {
    /// Longer messages are cut, in characters.
    const SHOWN_MAX: usize = 300;
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = document.get("errors")?.get(0)?;
    let text = |key: &str| first.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let words = match (text("code"), text("message")) {
        (Some(code), Some(message)) => format!("{code}, {message}"),
        (code, message) => code.or(message)?.to_string(),
    };
    // Before it is cut: half of a secret would not be found any more.
    let words: String = redacted(&words).chars().take(SHOWN_MAX).collect();
    Some(Quoted(words.as_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_forgets_its_encryption_is_told_from_others() {
        let http = Http::new(Arc::default(), "r.example", &Monitor::default());
        let at = Url::parse("https://r.example/v2/x/blobs/uploads/").unwrap();
        let remedy = |location: &str| {
            let error = http.follow(&at, location).unwrap_err().into_error();
            assert!(error.to_string().ends_with(", which is not encrypted"), "{error}");
            error.remedy().map(str::to_string)
        };
        assert_eq!(remedy("http://r.example:80/v2/x/blobs/uploads/1").as_deref(), Some(FORWARDED_HINT));
        assert_eq!(remedy("http://other.example/v2/x/blobs/uploads/1"), None);
        assert!(http.follow(&at, "/v2/x/blobs/uploads/1").is_ok());
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        let now = Some("Sun, 06 Nov 1994 08:48:07 GMT");
        for (text, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(90)),
            ("Sat, 05 Nov 1994 08:49:37 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(pause_of(text, now), seconds.map(Duration::from_secs), "{text}");
        }
        for now in [None, Some("now")] {
            assert_eq!(pause_of("Sun, 06 Nov 1994 08:49:37 GMT", now), None);
            assert_eq!(pause_of("7", now), Some(Duration::from_secs(7)));
        }
    }
}
