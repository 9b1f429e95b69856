//! Who is shown what: tokens and passwords, each for one repository on one server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::Method;
use ureq::http::header::WWW_AUTHENTICATE;
use url::form_urlencoded::Serializer;

use super::challenge::Challenge;
use super::client::{Endpoint, broken};
use super::credentials::{self, Asker, Credentials, Found};
use super::http::{Answer, Failure, Http, Request, refusal};
use super::secret::Secret;
use super::settings::Settings;
use super::token::{Token, scopes};
use super::url::{Scheme, Url};
use crate::error::{Error, ErrorKind};
use crate::io::Monitor;

/// The longest answer of a token server that is read, in bytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;

type Asked<T> = std::result::Result<T, Failure>;

/// What is asked of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A repository on a server, whoever named it: a reference, a mirror, a redirect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Audience {
    scheme: Scheme,
    host: String,
    port: u16,
    repository: String,
}

impl Audience {
    /// Whom an address of a registry's interface belongs to; `None` for any other address, whose server gets no credentials.
    fn of(url: &Url) -> Option<Audience> {
        let repository = url.repository()?.to_string();
        Some(Audience { scheme: url.scheme, host: url.host().to_string(), port: url.port(), repository })
    }
}

/// What an audience is shown, and how that came to be.
#[derive(Debug, Clone)]
struct Grant {
    secret: Secret,
    /// The challenge that it answers.
    challenge: Challenge,
    /// When it is to be renewed.
    renewal: Option<Instant>,
    refused: Option<RefusedLogin>,
}

/// The message and the hint for a login that was not accepted, after which it was tried without.
type RefusedLogin = Arc<(String, String)>;

/// Answers what servers want to see.
pub(super) struct Auth {
    settings: Arc<Settings>,
    access: Access,
    /// What a token is to be good for besides.
    scopes: Vec<String>,
    grants: Mutex<BTreeMap<Audience, Grant>>,
    /// Several threads may need a token at once: one gets it.
    turn: Mutex<()>,
    warnings: Mutex<Vec<String>>,
}

impl Auth {
    pub(super) fn new(settings: Arc<Settings>, access: Access, scopes: Vec<String>) -> Self {
        Auth { settings, access, scopes, grants: Mutex::default(), turn: Mutex::default(), warnings: Mutex::default() }
    }

    /// Logins that could not be used.
    pub(super) fn warnings(&self) -> Vec<String> {
        lock(&self.warnings).clone()
    }

    fn grant(&self, audience: &Audience) -> Option<Grant> {
        lock(&self.grants).get(audience).cloned()
    }

    /// Whether what is shown at an address is a password, and no token.
    pub(super) fn shows_password(&self, url: &Url) -> bool {
        let grant = Audience::of(url).and_then(|audience| self.grant(&audience));
        grant.is_some_and(|grant| grant.challenge == Challenge::Basic)
    }

    fn warn(&self, warning: String) {
        let mut warnings = lock(&self.warnings);
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

/// Sends one request with all that it takes to be let in.
pub(super) struct Door<'a> {
    pub(super) auth: &'a Auth,
    pub(super) http: &'a Http,
    pub(super) endpoints: &'a [Endpoint],
    pub(super) monitor: &'a Monitor,
}

impl Door<'_> {
    /// Sends a request without credentials until a server wants some; then with what it wants, where that can be had.
    pub(super) fn send(&self, request: &Request<'_>) -> Asked<Answer> {
        let home = request.home;
        self.renew(home.unwrap_or(request.url));
        let audience_of = |url: &Url| {
            let is_at_home = home.is_none_or(|home| home.is_same_server(url));
            Audience::of(url).or_else(|| home.and_then(Audience::of)).filter(|_| is_at_home)
        };
        let mut answered = BTreeSet::new();
        let mut request = request.clone();
        let mut at = request.url.clone();
        loop {
            let before =
                |url: &Url| audience_of(url).and_then(|audience| self.auth.grant(&audience)).map(|it| it.secret);
            let shown_here = before(&at);
            let answer = self.http.send(&Request { url: &at, ..request.clone() }, &before)?;
            // What is written goes where the registry says, but who asks for credentials there is not the registry.
            let may_answer = match home {
                Some(home) => home.is_same_server(&answer.url),
                None => answer.is_from_asked || request.method == Method::GET || request.method == Method::HEAD,
            };
            let audience = audience_of(&answer.url).filter(|_| may_answer);
            let Some(audience) = audience.filter(|audience| !answered.contains(audience)) else {
                return self.last(answer);
            };
            let shown = if answer.is_from_asked { shown_here } else { before(&answer.url) };
            if !self.respond(&audience, &answer, shown.as_ref())? {
                return self.last(answer);
            }
            answered.insert(audience);
            at = answer.url;
            request.is_guarded = false;
        }
    }

    /// An answer after which nothing more can be tried. Where a login was left out because it was not accepted, and that
    /// did not help, that login is the trouble.
    fn last(&self, answer: Answer) -> Asked<Answer> {
        let refused = Audience::of(&answer.url).and_then(|audience| self.auth.grant(&audience)?.refused);
        match refused {
            Some(refused) if matches!(answer.status, 401 | 403 | 404) => Err(Failure::Denied(refusal_of(&refused))),
            _ => Ok(answer),
        }
    }

    /// Gets a new token where the one in use is about to expire.
    fn renew(&self, url: &Url) {
        let Some(audience) = Audience::of(url) else { return };
        let due = |grant: &Grant| grant.renewal.is_some_and(|renewal| renewal <= Instant::now());
        if let Some(grant) = self.auth.grant(&audience).filter(due) {
            let _turn = lock(&self.auth.turn);
            if self.auth.grant(&audience).as_ref().is_some_and(due) {
                // Where that fails the old one is shown: the registry says what it thinks of it.
                let _ = self.obtain(&audience, url, &grant.challenge);
            }
        }
    }

    /// Gets what an answer asks for; whether there is anything new to show.
    fn respond(&self, audience: &Audience, answer: &Answer, shown: Option<&Secret>) -> Asked<bool> {
        if !matches!(answer.status, 401 | 403 | 404) || (answer.status != 401 && shown.is_some()) {
            return Ok(false);
        }
        let _turn = lock(&self.auth.turn);
        let held = self.auth.grant(audience);
        if held.as_ref().is_some_and(|held| Some(&held.secret) != shown) {
            return Ok(true);
        }
        let stated = challenge_of(answer);
        // A token that has expired is answered by some (Harbor) with another challenge than no token is.
        let of_token = held.map(|held| held.challenge).filter(|held| matches!(held, Challenge::Bearer { .. }));
        match (stated, of_token) {
            (Some(Challenge::Basic) | None, Some(challenge)) | (Some(challenge), _) if answer.status == 401 => {
                self.obtain(audience, &answer.url, &challenge).map(|()| true)
            }
            _ if shown.is_some() => Ok(false),
            _ => Ok(self.try_login(audience, &answer.url)),
        }
    }

    /// Some registries answer anonymous users as if what they may not see were not there. Whether there is a login to try.
    fn try_login(&self, audience: &Audience, url: &Url) -> bool {
        if self.login_for(audience).credentials.is_none() {
            return false;
        }
        let root = Url::new(url.scheme, &url.authority, "/v2/");
        let probed = root.and_then(|root| self.http.send(&Request::new(Method::GET, &root), &|_| None).ok());
        let stated = probed.filter(|answer| answer.status == 401 && answer.is_from_asked);
        let challenge = stated.and_then(|answer| challenge_of(&answer)).unwrap_or(Challenge::Basic);
        // What was answered without a login still stands where the login leads nowhere.
        self.obtain(audience, url, &challenge).is_ok()
    }

    fn login_for(&self, audience: &Audience) -> Found {
        let is_same = |endpoint: &&Endpoint| {
            Url::new(audience.scheme, &endpoint.authority, "/")
                .is_some_and(|there| there.host() == audience.host && there.port() == audience.port)
        };
        let endpoint = self.endpoints.iter().find(|it| is_same(it) && it.repository == audience.repository);
        let usual = if audience.scheme == Scheme::Http { 80 } else { 443 };
        let bracketed =
            if audience.host.contains(':') { format!("[{}]", audience.host) } else { audience.host.clone() };
        let plain = if audience.port == usual { bracketed } else { format!("{bracketed}:{}", audience.port) };
        let asker = Asker {
            host: endpoint.map_or(&plain, |endpoint| &endpoint.host),
            repository: &audience.repository,
            is_named: endpoint.is_some_and(|endpoint| endpoint.is_named),
        };
        let found = credentials::find(&self.auth.settings, asker, self.monitor);
        found.troubles.iter().for_each(|trouble| self.auth.warn(trouble.clone()));
        found
    }

    /// Gets what is to be shown to an audience that asks with `challenge`.
    fn obtain(&self, audience: &Audience, url: &Url, challenge: &Challenge) -> Asked<()> {
        let found = self.login_for(audience);
        let grant = match (challenge, &found.credentials) {
            (Challenge::Bearer { realm, service, scope }, _) => {
                let actions = if self.auth.access == Access::Push { "pull,push" } else { "pull" };
                let wanted = format!("repository:{}:{actions}", audience.repository);
                let mut scopes = scopes(&wanted, scope.as_deref().unwrap_or_default());
                scopes.extend(self.auth.scopes.iter().cloned());
                let ask = TokenRequest { asked: url, realm, service: service.as_deref().unwrap_or_default(), scopes };
                let (token, refused) = self.token(&ask, &found)?;
                let renewal = Some(Instant::now() + token.lasts - margin(token.lasts));
                Grant { secret: token.secret, challenge: challenge.clone(), renewal, refused }
            }
            (Challenge::Basic, Some(Credentials::Password(login))) => {
                Grant { secret: credentials::basic(login), challenge: Challenge::Basic, renewal: None, refused: None }
            }
            (Challenge::Basic, _) => {
                let host = &url.authority;
                let error =
                    Error::new(ErrorKind::Network, format!("{host} requires a login, and none is known for it"));
                let error = error.hint(format!("log in with docker login {host} or podman login {host}"));
                return Err(because_of(error, &found).into());
            }
        };
        lock(&self.auth.grants).insert(audience.clone(), grant);
        Ok(())
    }

    /// A token, with the login where there is one. A login out of a file that is not accepted is not an obstacle to what
    /// everyone may have: then the token is asked for without it.
    fn token(&self, ask: &TokenRequest<'_>, found: &Found) -> Asked<(Token, Option<RefusedLogin>)> {
        let Some(credentials) = &found.credentials else {
            return self.ask_token(ask, None).map(|token| (token, None)).map_err(|failure| match failure {
                Failure::Lasting(error) => Failure::Lasting(because_of(error, found)),
                other => other,
            });
        };
        let refused = match self.ask_token(ask, Some(credentials)) {
            Err(Failure::Denied(error)) if !found.is_given => error,
            result => return result.map(|token| (token, None)),
        };
        let told = Arc::new((refused.to_string(), refused.remedy().unwrap_or_default().to_string()));
        let Ok(token) = self.ask_token(ask, None) else { return Err(Failure::Denied(refused)) };
        self.auth.warn(format!("{refused}; continued without it"));
        Ok((token, Some(told)))
    }

    /// Has a token made (distribution/spec, auth/token and auth/oauth).
    fn ask_token(&self, ask: &TokenRequest<'_>, credentials: Option<&Credentials>) -> Asked<Token> {
        let realm = self.realm(ask)?;
        let scopes = ask.scopes.iter().map(|scope| ("scope", scope.as_str()));
        let service = Some(("service", ask.service)).filter(|(_, value)| !value.is_empty());
        let parameters: Vec<(&str, &str)> = service.into_iter().chain(scopes).collect();
        let at = realm.with_query(&parameters);
        let (user, answer) = match credentials {
            Some(Credentials::IdentityToken(refresh)) => {
                let scope = ask.scopes.join(" ");
                let fixed = [("grant_type", "refresh_token"), ("client_id", "sif-convert"), ("scope", &scope)];
                let form = fixed.into_iter().chain(service).chain([("refresh_token", refresh.expose())]);
                let form = Serializer::new(String::new()).extend_pairs(form).finish();
                ("the login on file".to_string(), self.http.post_form(&realm, &form))
            }
            Some(Credentials::Password(login)) => {
                let secret = credentials::basic(login);
                let shown = |to: &Url| Some(secret.clone()).filter(|_| to.is_same_server(&realm));
                (format!("the login of {:?}", login.username), self.http.send(&Request::new(Method::GET, &at), &shown))
            }
            None => ("anonymous access".to_string(), self.http.send(&Request::new(Method::GET, &at), &|_| None)),
        };
        let mut answer = answer?;
        match answer.status {
            200 => {}
            401 | 403 => {
                let error = Error::new(ErrorKind::Network, format!("token server {realm} refused {user}"));
                let hint = format!("log in again with docker login or podman login to {}", ask.asked.authority);
                return Err(Failure::Denied(error.hint(hint)));
            }
            _ => return Err(without_missing(refusal(answer, "a token"))),
        }
        let body = answer.start(TOKEN_BYTES_MAX).map_err(|error| broken(&realm.authority, &error))?;
        Token::parse(&body).ok_or_else(|| {
            let message = format!("token server {realm} answered without a token");
            Failure::Lasting(Error::new(ErrorKind::Network, message))
        })
    }

    /// The token server, which an encrypted registry may not have unencrypted.
    fn realm(&self, ask: &TokenRequest<'_>) -> Asked<Url> {
        let lasting = |why: String| Failure::Lasting(Error::new(ErrorKind::Network, why));
        let asked = &ask.asked.authority;
        let realm =
            Url::parse(ask.realm).ok_or_else(|| lasting(format!("{asked} named a token server that is not a URL")))?;
        let may_be_plain = self.auth.settings.may_be_plain(&realm.authority);
        if ask.asked.scheme == Scheme::Https && realm.scheme == Scheme::Http && !may_be_plain {
            return Err(lasting(format!("{asked} named token server {realm}, which is not encrypted")));
        }
        Ok(realm)
    }
}

/// What a challenge asks a token for.
struct TokenRequest<'a> {
    asked: &'a Url,
    realm: &'a str,
    service: &'a str,
    scopes: Vec<String>,
}

/// How long before its end a token is renewed: what was sent with it must arrive in time.
fn margin(lasts: Duration) -> Duration {
    (lasts / 4).min(Duration::from_secs(15))
}

fn challenge_of(answer: &Answer) -> Option<Challenge> {
    let challenges = answer.headers.get_all(WWW_AUTHENTICATE);
    Challenge::of(challenges.iter().filter_map(|value| value.to_str().ok()))
}

/// A login that could not be looked up may be the very one that was needed.
fn because_of(error: Error, found: &Found) -> Error {
    if found.troubles.is_empty() { error } else { error.because(found.troubles.join("; ")) }
}

fn refusal_of(told: &(String, String)) -> Error {
    Error::new(ErrorKind::Network, &told.0).hint(&told.1)
}

/// A token server that has no token is not an image that is missing.
fn without_missing(failure: Failure) -> Failure {
    match failure {
        Failure::Missing(error) | Failure::Denied(error) => Failure::Lasting(Error::new(ErrorKind::Network, error)),
        other => other,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
