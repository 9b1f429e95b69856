//! Logins: in the settings, in files in the form of Docker's `config.json` or Podman's `auth.json`
//! (containers-auth.json(5)), with credential helpers.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::helper;
use super::secret::Secret;
use super::settings::{Login, Settings};
use super::settings_file::read_settings_file;
use crate::io::Monitor;
use crate::model::Quoted;

/// Under what Docker files its own registry.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// How much of a login file is read, in bytes.
const LOGIN_FILE_BYTES_MAX: u64 = 4 << 20;
/// What helpers give as the name of the user where the secret is a token to be changed for others.
const TOKEN_USER: &str = "<token>";
/// RFC 4648, section 4; other programs leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a registry is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A user name and a password.
    Password(Login),
    /// What an earlier login was given, to be changed for tokens.
    IdentityToken(Secret),
}

/// Who is asked for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// What people call the registry.
    pub(super) host: &'a str,
    pub(super) repository: &'a str,
    /// Whether it is the registry that the reference names, and not a mirror: only that one gets [`Settings::login`].
    pub(super) is_named: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) credentials: Option<Credentials>,
    /// Whether the user gave them for this run.
    pub(super) is_given: bool,
    /// Files and helpers that could not be asked, as sentences. What they hold is not repeated: it may be secret.
    pub(super) troubles: Vec<String>,
}

/// The credentials for a registry, where there are any. A file or helper that cannot be understood does not keep the next
/// from being asked.
pub(super) fn find(settings: &Settings, asker: Asker<'_>, monitor: &Monitor) -> Found {
    if let Some(login) = settings.login.as_ref().filter(|_| asker.is_named) {
        let credentials = Some(Credentials::Password(login.clone()));
        return Found { credentials, is_given: true, troubles: Vec::new() };
    }
    let mut found = Found::default();
    for path in &settings.login_files {
        let mut file = LoginFile { settings, asker, monitor, troubles: Vec::new() };
        found.credentials = file.look_up(path);
        let named = Quoted(path.as_os_str().as_encoded_bytes()).to_string();
        let told = |why: String| format!("cannot look up the login for {} in {named}: {why}", asker.host);
        found.troubles.extend(file.troubles.into_iter().map(told));
        if found.credentials.is_some() {
            break;
        }
    }
    found
}

struct LoginFile<'a> {
    settings: &'a Settings,
    asker: Asker<'a>,
    monitor: &'a Monitor,
    troubles: Vec<String>,
}

impl LoginFile<'_> {
    fn look_up(&mut self, path: &Path) -> Option<Credentials> {
        let text = match read_settings_file(path, LOGIN_FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.trouble(error.to_string()),
        };
        if text.trim_ascii().is_empty() {
            return self.trouble("the file is empty");
        }
        let Ok(document) = serde_json::from_slice::<Value>(&text) else {
            return self.trouble("the file is not JSON");
        };
        let keys = keys_of(self.asker);
        self.ask_helper(&document, &keys).or_else(|| {
            let entry = |key: &String| document.get("auths")?.get(key);
            keys.iter().filter_map(entry).find_map(|entry| self.read_entry(entry))
        })
    }

    fn trouble<T>(&mut self, why: impl Into<String>) -> Option<T> {
        self.troubles.push(why.into());
        None
    }

    /// The helper for this registry, and then the one for all, as Docker has it.
    fn ask_helper(&mut self, document: &Value, keys: &[String]) -> Option<Credentials> {
        let named = |value: Option<&Value>| value?.as_str().filter(|name| !name.is_empty()).map(str::to_string);
        let special = keys.iter().find_map(|key| {
            Some((named(document.get("credHelpers").and_then(|helpers| helpers.get(key)))?, key.clone()))
        });
        let store = || {
            let listed = keys.iter().find(|key| document.get("auths").is_some_and(|auths| auths.get(key).is_some()));
            let key = listed.or_else(|| keys.iter().find(|key| is_server(key)))?;
            Some((named(document.get("credsStore"))?, key.clone()))
        };
        let (name, server) = special.or_else(store)?;
        let is_over = || self.monitor.check().is_err();
        match helper::ask(&name, &server, self.settings.timeout, &is_over) {
            Ok(answer) => answer.and_then(|answer| credentials(answer.username, answer.secret)),
            Err(why) => self.trouble(why),
        }
    }

    fn read_entry(&mut self, entry: &Value) -> Option<Credentials> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        if !text("identitytoken").is_empty() {
            return Some(Credentials::IdentityToken(Secret::remembered(text("identitytoken"))));
        }
        if text("auth").is_empty() {
            return credentials(text("username").to_string(), text("password").to_string());
        }
        match decoded(text("auth")) {
            Some((username, password)) => credentials(username, password),
            None => self.trouble("its entry for that registry is malformed"),
        }
    }
}

/// The user and the password in Docker's `auth`: base64 of `USER:PASSWORD`. Docker takes zeros off its end; a newline is what
/// `echo` put there.
fn decoded(auth: &str) -> Option<(String, String)> {
    let bytes = BASE64.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    let password = password.trim_matches('\0').trim_end_matches(['\r', '\n']);
    let is_plain = |text: &str| !text.chars().any(char::is_control);
    (is_plain(username) && is_plain(password)).then(|| (username.to_string(), password.to_string()))
}

fn credentials(username: String, secret: String) -> Option<Credentials> {
    match (username.as_str(), secret.as_str()) {
        ("", "") => None,
        (TOKEN_USER, _) => Some(Credentials::IdentityToken(Secret::remembered(secret))),
        _ => Some(Credentials::Password(Login { username, password: Secret::remembered(secret) })),
    }
}

/// Whether a key names a registry rather than a part of one.
fn is_server(key: &str) -> bool {
    key == DOCKER_HUB_KEY || !key.contains('/')
}

/// The keys under which a file may know the registry: Podman's may name a repository or a part of it, the longest counts;
/// Docker's are hosts, or addresses.
fn keys_of(asker: Asker<'_>) -> Vec<String> {
    let host = asker.host;
    let is_hub = matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    let filed = if is_hub { "docker.io" } else { host };
    let mut keys: Vec<String> = Vec::new();
    let mut path = Some(asker.repository);
    while let Some(part) = path {
        keys.push(format!("{filed}/{part}"));
        path = part.rsplit_once('/').map(|(parent, _)| parent);
    }
    if is_hub {
        keys.extend([DOCKER_HUB_KEY, "https://index.docker.io", "index.docker.io", "docker.io"].map(str::to_string));
    } else {
        keys.extend(["", "https://", "http://"].map(|scheme| format!("{scheme}{host}")));
        keys.extend(["https://", "http://"].map(|scheme| format!("{scheme}{host}/v1/")));
        keys.extend(["https://", "http://"].map(|scheme| format!("{scheme}{host}/v2/")));
    }
    keys
}

/// The value of an `Authorization` header (RFC 7617).
pub(super) fn basic(login: &Login) -> Secret {
    Secret::remembered(format!("Basic {}", BASE64.encode(format!("{}:{}", login.username, login.password.expose()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker<'a>(host: &'a str, repository: &'a str) -> Asker<'a> {
        Asker { host, repository, is_named: true }
    }

    fn found(text: &str, host: &str, repository: &str) -> Found {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.json");
        std::fs::write(&file, text).unwrap();
        let settings = Settings { login_files: vec![directory.path().join("absent"), file], ..Settings::default() };
        find(&settings, asker(host, repository), &Monitor::default())
    }

    fn user(found: Found) -> Option<String> {
        assert!(found.troubles.is_empty(), "{:?}", found.troubles);
        match found.credentials? {
            Credentials::Password(login) => Some(format!("{}:{}", login.username, login.password.expose())),
            Credentials::IdentityToken(token) => Some(format!("token {}", token.expose())),
        }
    }

    #[test]
    fn login_files_of_docker_and_podman_are_understood() {
        let entry = |name: &str| format!(r#"{{"auth":"{}"}}"#, BASE64.encode(format!("{name}:pw")));
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"host:5000":{},"quay.io/org":{},"quay.io":{},"https://old.org/v1/":{},
                "id.org":{{"identitytoken":"refresh"}},"plain.org":{{"username":"p","password":"q"}},"empty.org":{{}},
                "blank.org":{{"auth":""}}}}}}"#,
            entry("hub"),
            entry("port"),
            entry("org"),
            entry("quay"),
            entry("old")
        );
        let of = |host: &str, repository: &str| user(found(&text, host, repository));
        assert_eq!(of("docker.io", "library/debian").as_deref(), Some("hub:pw"));
        assert_eq!(of("registry-1.docker.io", "library/debian").as_deref(), Some("hub:pw"));
        assert_eq!(of("host:5000", "x").as_deref(), Some("port:pw"));
        assert_eq!(of("quay.io", "org/x").as_deref(), Some("org:pw"));
        assert_eq!(of("quay.io", "organic/x").as_deref(), Some("quay:pw"));
        assert_eq!(of("old.org", "x").as_deref(), Some("old:pw"));
        assert_eq!(of("id.org", "x").as_deref(), Some("token refresh"));
        assert_eq!(of("plain.org", "x").as_deref(), Some("p:q"));
        for none in ["empty.org", "blank.org", "host", "other.org"] {
            assert_eq!(of(none, "x"), None, "{none}");
        }
    }

    #[test]
    fn zeros_and_newlines_after_a_password_are_taken_off() {
        for after in ["", "\0", "\0\0\0", "\n", "\r\n"] {
            let text = format!(r#"{{"auths":{{"h":{{"auth":"{}"}}}}}}"#, BASE64.encode(format!("u:p:w{after}")));
            assert_eq!(user(found(&text, "h", "x")).as_deref(), Some("u:p:w"), "{after:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_told_without_what_it_holds() {
        let in_the_middle = BASE64.encode("u:hunter2\0x");
        let within = format!(r#"{{"auths":{{"h":{{"auth":"{in_the_middle}"}}}}}}"#);
        let no_colon = format!(r#"{{"auths":{{"h":{{"auth":"{}"}}}}}}"#, BASE64.encode("hunter2"));
        for text in [&*no_colon, &within, "hunter2", "", "{", r#"{"auths":{"h":{"auth":"hunter2!"}}}"#] {
            let found = found(text, "h", "x");
            assert_eq!((found.credentials, found.troubles.len()), (None, 1), "{text}");
            assert!(!found.troubles[0].contains("hunter2"), "{:?}", found.troubles);
        }
    }

    #[test]
    fn after_a_file_that_is_damaged_the_next_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("bad"), "{").unwrap();
        std::fs::write(path("good"), r#"{"auths":{"h":{"username":"u","password":"p"}}}"#).unwrap();
        let settings = Settings { login_files: vec![path("bad"), path("good")], ..Settings::default() };
        let found = find(&settings, asker("h", "x"), &Monitor::default());
        assert!(found.credentials.is_some() && found.troubles.len() == 1, "{found:?}");
    }

    #[test]
    fn a_given_login_is_for_the_named_registry_only() {
        let login = Login { username: "u".into(), password: Secret::new("p") };
        let settings = Settings { login: Some(login.clone()), ..Settings::default() };
        let named = find(&settings, asker("h", "x"), &Monitor::default());
        assert_eq!((named.credentials, named.is_given), (Some(Credentials::Password(login)), true));
        let mirror = Asker { is_named: false, ..asker("mirror", "x") };
        assert_eq!(find(&settings, mirror, &Monitor::default()).credentials, None);
    }

    #[test]
    fn names_of_helpers_are_no_paths() {
        for name in ["", "../x", "a b", "x\0"] {
            assert!(helper::ask(name, "h", settings_timeout(), &|| false).is_err(), "{name:?}");
        }
    }

    fn settings_timeout() -> std::time::Duration {
        Settings::TIMEOUT
    }
}
