use std::fmt;
use std::path::{Path, PathBuf};

use super::ssh::Ssh;
use super::{EngineSettings, context};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Quoted;

/// Where Docker's engine listens when nobody says otherwise.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";
/// Where root's Podman listens.
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";
/// The ports that Docker reserves, without TLS and with it.
const PORTS: [u16; 2] = [2375, 2376];

/// How an engine is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A socket in the file system.
    Unix(String),
    /// A TCP port, `host:port`.
    Tcp {
        /// Host and port.
        address: String,
        /// The files for TLS, where it is spoken.
        tls: Option<Tls>,
    },
    /// `docker system dial-stdio` is run at the far end.
    Ssh(Ssh),
}

/// Files for TLS with both sides verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) ca: PathBuf,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// An endpoint, and who named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) endpoint: Endpoint,
    /// `DOCKER_HOST`, `Docker context "x"`; `None` for a usual place.
    pub(super) named_by: Option<String>,
}

impl Tls {
    /// The three files as Docker names them.
    pub(super) fn of_directory(directory: &Path) -> Tls {
        Tls { ca: directory.join("ca.pem"), cert: directory.join("cert.pem"), key: directory.join("key.pem") }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match &self.endpoint {
            Endpoint::Unix(path) => path.clone(),
            Endpoint::Tcp { address, .. } => format!("tcp://{address}"),
            Endpoint::Ssh(ssh) => ssh.to_string(),
        };
        write!(f, "{}", Quoted(address.as_bytes()))?;
        self.named_by.iter().try_for_each(|who| write!(f, " ({who})"))
    }
}

/// Where an engine may listen, in the order to try: as the docker command has it, and where that finds nothing, Podman.
/// Where somebody named a place there is no other.
pub(super) fn places(settings: &EngineSettings) -> Result<Vec<Place>> {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(host) = given(&settings.docker_host) {
        let named_by = Some("DOCKER_HOST".to_string());
        return Ok(vec![Place { endpoint: parse(&host, "DOCKER_HOST", tls_of(settings)?)?, named_by }]);
    }
    let context = match given(&settings.docker_context) {
        Some(name) => Some(name),
        None => settings.docker_config.as_deref().map(context::current).transpose()?.flatten(),
    };
    if let Some(name) = context.filter(|name| name != "default") {
        let endpoint = context::endpoint(settings.docker_config.as_deref(), &name)?;
        return Ok(vec![Place { endpoint, named_by: Some(format!("Docker context {name:?}")) }]);
    }
    let usual = |path: String| Place { endpoint: Endpoint::Unix(path), named_by: None };
    let mut places = vec![usual(DOCKER_SOCKET.to_string())];
    if let Some(host) = given(&settings.container_host) {
        let endpoint = parse(&host, "CONTAINER_HOST", None)?;
        if matches!(endpoint, Endpoint::Ssh(_)) {
            let message = format!("CONTAINER_HOST: {host:?} is reached through ssh, which works for Docker only");
            return Err(Error::new(ErrorKind::Unsupported, message).hint(
                "forward the socket: ssh -nNT -L /tmp/podman.sock:/run/podman/podman.sock HOST, and set DOCKER_HOST",
            ));
        }
        places.push(Place { endpoint, named_by: Some("CONTAINER_HOST".to_string()) });
    }
    let runtime = settings.runtime_dir.as_deref().filter(|directory| directory.is_absolute()).and_then(Path::to_str);
    places.extend(runtime.map(|directory| usual(format!("{directory}/podman/podman.sock"))));
    places.push(usual(PODMAN_SOCKET.to_string()));
    Ok(places)
}

/// The files for TLS, where the environment asks for it.
fn tls_of(settings: &EngineSettings) -> Result<Option<Tls>> {
    if !settings.docker_tls_verify {
        return Ok(None);
    }
    let given = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    match given(&settings.docker_cert_path).or(given(&settings.docker_config)) {
        Some(directory) => Ok(Some(Tls::of_directory(&directory))),
        None => Err(Error::new(ErrorKind::Network, "DOCKER_TLS_VERIFY is set, but no place of certificates is known")
            .hint("set DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem")),
    }
}

/// Reads an address as the docker command does. `named_by` is who gave it.
pub(super) fn parse(host: &str, named_by: &str, tls: Option<Tls>) -> Result<Endpoint> {
    let refuse = |why: &str| {
        Error::new(ErrorKind::Network, format!("{named_by}: {host:?} {why}"))
            .hint("write unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST")
    };
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Endpoint::Unix(path.to_string())),
        Some(("https", _)) if tls.is_none() => Err(Error::new(
            ErrorKind::Network,
            format!("{named_by}: {host:?} needs TLS, and nobody says with which certificates"),
        )
        .hint("set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem")),
        Some(("tcp" | "http" | "https", address)) if !address.is_empty() => {
            Ok(Endpoint::Tcp { address: with_port(address.trim_end_matches('/'), tls.is_some()), tls })
        }
        Some(("ssh", address)) => {
            Ssh::parse(address).map(Endpoint::Ssh).ok_or_else(|| refuse("is not the address of an engine"))
        }
        _ => Err(refuse("is not the address of an engine")),
    }
}

fn with_port(address: &str, tls: bool) -> String {
    // An IPv6 address holds colons of its own, in brackets.
    let after_host = address.rsplit(']').next().unwrap_or(address);
    if after_host.contains([':', '/']) { address.to_string() } else { format!("{address}:{}", PORTS[usize::from(tls)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(settings: &EngineSettings) -> Vec<String> {
        places(settings).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn podman_is_tried_where_nothing_is_named() {
        let settings = EngineSettings {
            container_host: Some("unix:///c.sock".into()),
            runtime_dir: Some("/run/user/7".into()),
            ..EngineSettings::default()
        };
        let expected = [
            r#""/var/run/docker.sock""#,
            r#""/c.sock" (CONTAINER_HOST)"#,
            r#""/run/user/7/podman/podman.sock""#,
            r#""/run/podman/podman.sock""#,
        ];
        assert_eq!(shown(&settings), expected);
        let named = EngineSettings { docker_host: Some("tcp://h:1".into()), ..settings.clone() };
        assert_eq!(shown(&named), [r#""tcp://h:1" (DOCKER_HOST)"#]);
        let empty = EngineSettings { docker_host: Some(String::new()), ..settings.clone() };
        assert_eq!(shown(&empty), expected);
        let ssh = EngineSettings { container_host: Some("ssh://h/run/x.sock".into()), ..settings };
        assert_eq!(places(&ssh).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn addresses_are_read_as_docker_reads_them() {
        let tcp = |address: &str, tls: &Option<Tls>| Endpoint::Tcp { address: address.into(), tls: tls.clone() };
        let files = Some(Tls::of_directory(Path::new("/certs")));
        for (host, tls, endpoint) in [
            ("unix:///var/run/x.sock", &None, Endpoint::Unix("/var/run/x.sock".into())),
            ("tcp://h:1", &None, tcp("h:1", &None)),
            ("tcp://h/", &None, tcp("h:2375", &None)),
            ("tcp://[::1]", &files, tcp("[::1]:2376", &files)),
            ("tcp://[::1]:5", &None, tcp("[::1]:5", &None)),
            ("https://h:1", &files, tcp("h:1", &files)),
            ("ssh://me@h:22", &None, Endpoint::Ssh(Ssh::parse("me@h:22").unwrap())),
        ] {
            assert_eq!(parse(host, "X", tls.clone()).unwrap(), endpoint, "{host}");
        }
        for host in
            ["", "h:2375", "unix://x", "fd://", "npipe:////./pipe/x", "tcp://", "ssh://-oProxyCommand=x", "https://h"]
        {
            let error = parse(host, "DOCKER_HOST", None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Network);
            assert!(error.to_string().starts_with("DOCKER_HOST: "), "{error}");
        }
    }
}
