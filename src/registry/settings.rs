use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::cache::Room;
use super::proxy::Proxies;
use super::registries_conf::RegistriesConf;
use super::secret::Secret;
use super::url::is_loopback;
use crate::error::{Error, ErrorKind};
use crate::model::Reference;

/// All that decides how a registry is reached, besides the reference. The library looks at no environment variable and
/// at no file that is not named here.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A login for the registry of the reference, which goes before [`Settings::login_files`].
    pub login: Option<Login>,
    /// Files in the form of Docker's `config.json` or Podman's `auth.json`, the first that knows the registry counts.
    /// They are looked at only when a registry asks for a login.
    pub login_files: Vec<PathBuf>,
    /// Where logins for web servers are: a file in the form of netrc(5).
    pub netrc: Option<PathBuf>,
    /// Directories laid out as Docker's `/etc/docker/certs.d`: `HOST[:PORT]/*.crt`, `*.cert` with `*.key`.
    pub certificate_directories: Vec<PathBuf>,
    /// The file with the system's root certificates; looked for in the usual places where absent.
    pub roots_file: Option<PathBuf>,
    /// A directory with root certificates in files of their own, besides or instead of the file.
    pub roots_directory: Option<PathBuf>,
    /// Which proxy serves which host.
    pub proxies: Proxies,
    /// Hosts (with their port, as in the reference) that are spoken to in plain HTTP.
    pub insecure: Vec<String>,
    /// Registries to be asked before the one that a reference names, in this order.
    pub mirrors: Vec<Mirror>,
    /// What `registries.conf` says.
    pub registries: RegistriesConf,
    /// Servers (with their port, in lower case) whose certificates are not verified, and that are spoken to in plain HTTP where
    /// they speak no TLS. What `registries` says of a server that is asked is added.
    pub lenient: Vec<String>,
    /// How often a request that failed for a reason that may pass is repeated.
    pub retries: u32,
    /// How long a connection may be silent, and how long it may take to be made.
    pub timeout: Duration,
    /// Where blobs are kept for later, and for others.
    pub cache: Option<PathBuf>,
    /// How much may be kept there, where that has a limit. What does not fit is fetched all the same.
    pub room: Option<Arc<Room>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            login: None,
            login_files: Vec::new(),
            netrc: None,
            certificate_directories: Vec::new(),
            roots_file: None,
            roots_directory: None,
            proxies: Proxies::default(),
            insecure: Vec::new(),
            mirrors: Vec::new(),
            registries: RegistriesConf::default(),
            lenient: Vec::new(),
            retries: Settings::RETRIES,
            timeout: Settings::TIMEOUT,
            cache: None,
            room: None,
        }
    }
}

impl Settings {
    /// Whether an encrypted server may send us to this one though it is not encrypted.
    pub(super) fn may_be_plain(&self, authority: &str) -> bool {
        let is_listed = |list: &[String]| list.iter().any(|host| host == authority);
        is_loopback(authority) || is_listed(&self.insecure) || is_listed(&self.lenient)
    }

    /// For reading what the registry of `reference` itself has, whatever mirrors have.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where `registries.conf` blocks it.
    pub fn without_mirrors(&self, reference: &Reference) -> Result<Settings, Error> {
        let mut settings = Settings { mirrors: Vec::new(), registries: RegistriesConf::default(), ..self.clone() };
        if self.registries.expect_writable(reference)? {
            settings.lenient.push(super::client::authority_of(&reference.host));
        }
        Ok(settings)
    }

    /// With the pauses between them, five retries bridge eight seconds.
    pub const RETRIES: u32 = 5;
    /// A minute without a byte: registries that fetch a blob from elsewhere first may need that long.
    pub const TIMEOUT: Duration = Duration::from_secs(60);
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of the user.
    pub username: String,
    /// The password, or what the registry takes for one.
    pub password: Secret,
}

/// A registry that is asked in place of another: `docker.io=mirror.example.org` or `docker.io=host:5000/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The host whose images it has.
    pub of: String,
    /// The mirror's own host, with its port.
    pub host: String,
    /// What stands before the repository there; empty where nothing does.
    pub prefix: String,
}

impl FromStr for Mirror {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(ErrorKind::Usage, format!("{text:?} is not a mirror"))
                .hint("write HOST=MIRROR, for example docker.io=mirror.example.org or docker.io=cache:5000/hub")
        };
        let (of, mirror) = text.split_once('=').ok_or_else(bad)?;
        let (host, prefix) = mirror.split_once('/').unwrap_or((mirror, ""));
        if !is_host(of) || !is_host(host) || mirror.contains("//") {
            return Err(bad());
        }
        Ok(Mirror { of: of.to_string(), host: host.to_string(), prefix: prefix.trim_matches('/').to_string() })
    }
}

/// Whether this can be `HOST[:PORT]`.
pub(crate) fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read() {
        let mirror: Mirror = "docker.io=cache:5000/hub/".parse().unwrap();
        assert_eq!((&*mirror.of, &*mirror.host, &*mirror.prefix), ("docker.io", "cache:5000", "hub"));
        let mirror: Mirror = "ghcr.io=m".parse().unwrap();
        assert_eq!((&*mirror.host, &*mirror.prefix), ("m", ""));
        for bad in ["docker.io", "=m", "x=", "x=http://m", "x y=m"] {
            assert!(bad.parse::<Mirror>().is_err(), "{bad}");
        }
    }
}
