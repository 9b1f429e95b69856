use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde_json::Value;

use super::secret::Secret;
use super::settings::{Login, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Quoted;

/// Under what Docker files its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// How much of a login file is read, in bytes.
const LOGIN_FILE_BYTES_MAX: u64 = 4 << 20;

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A user name and a password.
    Password(Login),
    /// What an earlier login was given, to be changed for tokens.
    IdentityToken(Secret),
}

/// The credentials for `repository` on `host`, where there are any. `named` says whether it is the registry that the
/// reference names, and not a mirror: only that one gets [`Settings::login`].
///
/// # Errors
/// When a file or a credential helper that should know cannot be understood. What it said is not repeated: it may hold
/// what must not be shown.
pub(super) fn find(settings: &Settings, host: &str, repository: &str, named: bool) -> Result<Option<Credentials>> {
    if let Some(login) = settings.login.as_ref().filter(|_| named) {
        return Ok(Some(Credentials::Password(login.clone())));
    }
    for file in &settings.login_files {
        if let Some(found) = in_file(file, host, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn in_file(path: &Path, host: &str, repository: &str) -> Result<Option<Credentials>> {
    let named = Quoted(path.as_os_str().as_encoded_bytes()).to_string();
    let trouble = |why: &str| {
        Error::new(ErrorKind::Network, format!("looking up the login for {host} in {named}: {why}"))
            .hint("repair that file, or log in again with docker login or podman login")
    };
    let mut text = Vec::new();
    let file = match File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened.map_err(|error| trouble(&error.to_string()))?,
    };
    file.take(LOGIN_FILE_BYTES_MAX).read_to_end(&mut text).map_err(|error| trouble(&error.to_string()))?;
    let document: Value = serde_json::from_slice(&text).map_err(|_| trouble("the file is no JSON"))?;
    let Some(key) = key_in(&document, host, repository) else { return Ok(None) };
    match get_credential_from_reader(text.as_slice(), &key) {
        Ok(DockerCredential::UsernamePassword(username, password)) if username.is_empty() && password.is_empty() => {
            Ok(None)
        }
        Ok(DockerCredential::UsernamePassword(username, password)) => {
            Ok(Some(Credentials::Password(Login { username, password: Secret::new(password) })))
        }
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credentials::IdentityToken(Secret::new(token)))),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // A helper that does not know the registry fails like one that is broken, but for its words.
        Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
            if format!("{stdout}{stderr}").contains("credentials not found") =>
        {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(trouble(&format!("{helper} failed"))),
        Err(CredentialRetrievalError::HelperCommunicationError) => Err(trouble("its credential helper cannot be run")),
        Err(CredentialRetrievalError::MalformedHelperResponse) => {
            Err(trouble("its credential helper said something else than credentials"))
        }
        Err(_) => Err(trouble("what it says of that registry is malformed")),
    }
}

/// The key under which the file knows the registry, or its helpers may: Podman's keys may name a repository or a part of
/// it, the longest counts (containers-auth.json(5)); Docker's are hosts, or addresses.
fn key_in(document: &Value, host: &str, repository: &str) -> Option<String> {
    let is_hub = matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let mut keys: Vec<String> = Vec::new();
    let mut path = Some(repository);
    while let Some(part) = path {
        keys.push(format!("{host}/{part}"));
        path = part.rsplit_once('/').map(|(parent, _)| parent);
    }
    if is_hub {
        keys.extend([DOCKER_HUB_KEY, "https://index.docker.io", "index.docker.io", "docker.io"].map(str::to_string));
    } else {
        keys.extend(["", "https://", "http://"].map(|scheme| format!("{scheme}{host}")));
        keys.extend(["https://", "http://"].map(|scheme| format!("{scheme}{host}/v1/")));
        keys.extend(["https://", "http://"].map(|scheme| format!("{scheme}{host}/v2/")));
    }
    let has = |section: &str, key: &String| document.get(section).and_then(|section| section.get(key)).is_some();
    let listed = keys.iter().find(|key| has("auths", key) || has("credHelpers", key));
    let has_store = document.get("credsStore").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let asked = || if is_hub { DOCKER_HUB_KEY.to_string() } else { host.to_string() };
    listed.cloned().or_else(|| has_store.then(asked))
}

/// The value of an `Authorization` header (RFC 7617).
pub(super) fn basic(login: &Login) -> Secret {
    Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password.expose()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str, repository: &str) -> Option<Credentials> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        let settings = Settings { login_files: vec![directory.path().join("absent"), file], ..Settings::default() };
        find(&settings, host, repository, true).unwrap()
    }

    fn user(found: Option<Credentials>) -> Option<String> {
        match found? {
            Credentials::Password(login) => Some(format!("{}:{}", login.username, login.password.expose())),
            Credentials::IdentityToken(token) => Some(format!("token {}", token.expose())),
        }
    }

    #[test]
    fn login_files_of_docker_and_podman_are_understood() {
        let entry = |name: &str| format!(r#"{{"auth":"{}"}}"#, BASE64_STANDARD.encode(format!("{name}:pw")));
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"host:5000":{},"quay.io/org":{},"quay.io":{},"https://old.org/v1/":{},
                "id.org":{{"identitytoken":"refresh"}},"plain.org":{{"username":"p","password":"q"}},"empty.org":{{}}}}}}"#,
            entry("hub"),
            entry("port"),
            entry("org"),
            entry("quay"),
            entry("old")
        );
        let of = |host: &str, repository: &str| user(found(&text, host, repository));
        assert_eq!(of("docker.io", "library/debian").as_deref(), Some("hub:pw"));
        assert_eq!(of("host:5000", "x").as_deref(), Some("port:pw"));
        assert_eq!(of("quay.io", "org/x").as_deref(), Some("org:pw"));
        assert_eq!(of("quay.io", "organic/x").as_deref(), Some("quay:pw"));
        assert_eq!(of("old.org", "x").as_deref(), Some("old:pw"));
        assert_eq!(of("id.org", "x").as_deref(), Some("token refresh"));
        assert_eq!(of("plain.org", "x").as_deref(), Some("p:q"));
        assert_eq!(of("empty.org", "x"), None);
        assert_eq!(of("host", "x"), None);
        assert_eq!(of("other.org", "x"), None);
    }

    #[test]
    fn what_is_malformed_is_told_without_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        for text in [r#"{"auths":{"h":{"auth":"aHVudGVyMg=="}}}"#, "hunter2", r#"{"auths":{"h":{"auth":"hunter2!"}}}"#]
        {
            std::fs::write(&file, text).unwrap();
            let settings = Settings { login_files: vec![file.clone()], ..Settings::default() };
            let error = find(&settings, "h", "x", true).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Network);
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_given_login_is_for_the_named_registry_only() {
        let login = Login { username: "u".into(), password: Secret::new("p") };
        let settings = Settings { login: Some(login.clone()), ..Settings::default() };
        assert_eq!(find(&settings, "h", "x", true).unwrap(), Some(Credentials::Password(login)));
        assert_eq!(find(&settings, "mirror", "x", false).unwrap(), None);
    }
}
