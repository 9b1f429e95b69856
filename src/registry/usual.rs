//! Where Docker, Podman, Apptainer and Go programs keep what it takes to reach a registry.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::proxy::Proxies;
use super::registries_conf::{RegistriesConf, RegistriesConfFiles};
use super::secret::Secret;
use super::settings::{Login, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Quoted;

/// The environment: the value of a variable, where it is set.
pub type Variables<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

impl Settings {
    /// With the logins, certificates and proxies that other programs know, and their `registries.conf`; else as
    /// [`Settings::default`]. Of this process that is `Settings::usual(&|name| std::env::var_os(name))`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a variable that is not UTF-8, [`ErrorKind::Network`] for a `registries.conf` that cannot be read.
    pub fn usual(variables: &Variables<'_>) -> Result<Self> {
        Ok(Settings { registries: registries(variables)?, ..Settings::without_registries_conf(variables)? })
    }

    /// The same for who needs no `registries.conf`, or has read it.
    pub(crate) fn without_registries_conf(variables: &Variables<'_>) -> Result<Self> {
        Ok(Settings {
            login: login(variables)?,
            login_files: login_files(variables),
            netrc: path(variables, "NETRC").or_else(|| path(variables, "HOME").map(|home| home.join(".netrc"))),
            certificate_directories: certificate_directories(variables),
            roots_file: path(variables, "SSL_CERT_FILE"),
            roots_directory: path(variables, "SSL_CERT_DIR"),
            proxies: proxies(variables)?,
            ..Settings::default()
        })
    }
}

/// `registries.conf` where skopeo and Podman look for it: what the variable names, else the user's, else the system's. Files
/// in directories beside it add to it: to the user's only the user's own.
pub(crate) fn registries(variables: &Variables<'_>) -> Result<RegistriesConf> {
    let system = PathBuf::from("/etc/containers/registries.conf");
    let user = path(variables, "HOME").map(|home| home.join(".config/containers/registries.conf"));
    let directory_of = |file: &PathBuf| file.with_extension("conf.d");
    let named = path(variables, "CONTAINERS_REGISTRIES_CONF");
    let of_user_only = named.is_none() && user.as_ref().is_some_and(|file| file.exists());
    let directories = [Some(&system).filter(|_| !of_user_only), user.as_ref()].into_iter().flatten().map(directory_of);
    RegistriesConf::load(&RegistriesConfFiles {
        is_required: named.is_some(),
        directories: directories.collect(),
        main: match named {
            Some(file) => vec![file],
            None => user.into_iter().chain([system]).collect(),
        },
    })
}

/// Apptainer's and Singularity's variables for `docker://`.
fn login(variables: &Variables<'_>) -> Result<Option<Login>> {
    for program in ["APPTAINER", "SINGULARITY"] {
        let (name, password) = (format!("{program}_DOCKER_USERNAME"), format!("{program}_DOCKER_PASSWORD"));
        if let (Some(username), Some(password)) = (text(variables, &name)?, text(variables, &password)?) {
            return Ok(Some(Login { username, password: Secret::remembered(password) }));
        }
    }
    Ok(None)
}

/// containers-auth.json(5), then Docker's `config.json`, then Apptainer's and Singularity's own.
fn login_files(variables: &Variables<'_>) -> Vec<PathBuf> {
    let home = path(variables, "HOME");
    let below_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
    let config_home = path(variables, "XDG_CONFIG_HOME").or_else(|| below_home(".config"));
    let podman = match path(variables, "REGISTRY_AUTH_FILE") {
        Some(file) => vec![Some(file)],
        None => vec![
            path(variables, "XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
            config_home.map(|directory| directory.join("containers/auth.json")),
        ],
    };
    let docker = path(variables, "DOCKER_CONFIG").or_else(|| below_home(".docker"));
    let others = [
        docker.map(|directory| directory.join("config.json")),
        below_home(".apptainer/docker-config.json"),
        below_home(".singularity/docker-config.json"),
    ];
    podman.into_iter().chain(others).flatten().collect()
}

/// Of Docker, rootless Docker and Podman: the user's before the system's.
fn certificate_directories(variables: &Variables<'_>) -> Vec<PathBuf> {
    let home = path(variables, "HOME");
    let of_home = [".config/containers/certs.d", ".config/docker/certs.d", ".docker/certs.d"];
    let of_system = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
    let of_user = home.iter().flat_map(|home| of_home.map(|rest| home.join(rest)));
    of_user.chain(of_system.map(PathBuf::from)).collect()
}

fn proxies(variables: &Variables<'_>) -> Result<Proxies> {
    let first = |names: &[&str]| -> Result<Option<String>> {
        for name in names {
            if let Some(value) = text(variables, name)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    };
    // A CGI program's HTTP_PROXY is what a visitor sent as the header Proxy (httpoxy.org).
    let is_cgi = variables("REQUEST_METHOD").is_some();
    let of_http: &[&str] =
        if is_cgi { &["http_proxy"] } else { &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] };
    Ok(Proxies {
        http: first(of_http)?.map(Secret::new),
        https: first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])?.map(Secret::new),
        none_for: first(&["NO_PROXY", "no_proxy"])?.unwrap_or_default(),
    })
}

fn set(variables: &Variables<'_>, name: &str) -> Option<OsString> {
    variables(name).filter(|value| !value.is_empty())
}

fn path(variables: &Variables<'_>, name: &str) -> Option<PathBuf> {
    set(variables, name).map(PathBuf::from)
}

/// A variable as text. Its value is not shown when it is none: it may be a password.
fn text(variables: &Variables<'_>, name: &str) -> Result<Option<String>> {
    set(variables, name).map(|value| value.into_string()).transpose().map_err(|value| {
        let shown = if name.contains("PASSWORD") || name.to_ascii_lowercase().contains("proxy") {
            String::new()
        } else {
            format!("{} ", Quoted(value.as_bytes()))
        };
        Error::new(ErrorKind::Usage, format!("environment {name}: the value {shown}is not UTF-8"))
            .hint("set it again, or unset it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_know_is_found_by_who_uses_the_library() {
        let place = tempfile::tempdir().unwrap();
        let conf = place.path().join("registries.conf");
        std::fs::write(&conf, "unqualified-search-registries = [\"h.example\"]\n").unwrap();
        let usual = |conf: PathBuf| {
            Settings::usual(&|name| match name {
                "CONTAINERS_REGISTRIES_CONF" => Some(conf.clone().into()),
                "HOME" => Some("/home/x".into()),
                "https_proxy" => Some("http://p.example:1".into()),
                _ => None,
            })
        };
        let settings = usual(conf).unwrap();
        assert_eq!(settings.netrc, Some("/home/x/.netrc".into()));
        assert!(settings.login_files.contains(&"/home/x/.docker/config.json".into()));
        assert!(settings.proxies.https.is_some() && settings.proxies.http.is_none());
        assert_ne!(format!("{:?}", settings.registries), format!("{:?}", RegistriesConf::default()));
        assert_eq!(usual("/not/there".into()).unwrap_err().kind(), ErrorKind::Network);
    }
}
