use std::io;
use std::path::Path;

use serde::Deserialize;

use super::endpoint::{Endpoint, Tls, parse};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Digest, Quoted};
use crate::registry::read_settings_file;

/// How much of a file of Docker's is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What `config.json` says about contexts.
#[derive(Debug, Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: Option<String>,
}

/// A context: `contexts/meta/ID/meta.json`.
#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Debug, Deserialize)]
struct Endpoints {
    docker: DockerEndpoint,
}

#[derive(Debug, Deserialize)]
struct DockerEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// The context that is current in Docker's configuration directory.
pub(super) fn current(directory: &Path) -> Result<Option<String>> {
    let path = directory.join("config.json");
    let Some(bytes) = read(&path)? else { return Ok(None) };
    let config: ConfigFile = serde_json::from_slice(&bytes).map_err(|error| unreadable(&path, &error))?;
    Ok(config.current_context.filter(|name| !name.is_empty()))
}

/// Where the engine of the context `name` is.
pub(super) fn endpoint(directory: Option<&Path>, name: &str) -> Result<Endpoint> {
    let named_by = format!("Docker context {name:?}");
    let missing = || {
        Error::new(ErrorKind::Network, format!("{named_by} does not exist"))
            .hint("docker context ls lists what there is; choose with DOCKER_CONTEXT or DOCKER_HOST")
    };
    let contexts = directory.ok_or_else(missing)?.join("contexts");
    // Docker names a context's directories by the hash of its name.
    let id = Digest::of(name.as_bytes()).hex();
    let path = contexts.join("meta").join(&id).join("meta.json");
    let bytes = read(&path)?.ok_or_else(missing)?;
    let meta: Meta = serde_json::from_slice(&bytes).map_err(|error| unreadable(&path, &error))?;
    let docker = meta.endpoints.docker;
    let tls = contexts.join("tls").join(&id).join("docker");
    let tls = tls.is_dir().then(|| Tls::of_directory(&tls));
    if docker.skip_tls_verify && tls.is_some() {
        let message = format!("{named_by} trusts any server (SkipTLSVerify), which is not supported");
        return Err(Error::new(ErrorKind::Unsupported, message).hint("give the context the engine's CA certificate"));
    }
    parse(&docker.host, &named_by, tls)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_settings_file(path, FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Error {
    let path = Quoted(path.as_os_str().as_encoded_bytes());
    Error::new(ErrorKind::Network, format!("Docker's configuration {path} cannot be read: {error}"))
        .hint("correct the file, or say where the engine is with DOCKER_HOST")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A configuration directory as `docker context create` fills it.
    fn directory(name: &str, docker: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let meta = directory.path().join("contexts/meta").join(Digest::of(name.as_bytes()).hex());
        fs::create_dir_all(&meta).unwrap();
        let text = format!(r#"{{"Name":"{name}","Metadata":{{"Description":""}},"Endpoints":{{"docker":{docker}}}}}"#);
        fs::write(meta.join("meta.json"), text).unwrap();
        directory
    }

    #[test]
    fn the_current_context_is_found() {
        let directory = directory("far", r#"{"Host":"ssh://me@far","SkipTLSVerify":false}"#);
        assert_eq!(current(directory.path()).unwrap(), None);
        let config = directory.path().join("config.json");
        fs::write(&config, r#"{"auths":{},"currentContext":"far"}"#).unwrap();
        assert_eq!(current(directory.path()).unwrap().as_deref(), Some("far"));
        let found = endpoint(Some(directory.path()), "far").unwrap();
        assert!(matches!(&found, Endpoint::Ssh(ssh) if ssh.to_string() == "ssh://me@far"), "{found:?}");
        fs::write(&config, "{").unwrap();
        assert_eq!(current(directory.path()).unwrap_err().kind(), ErrorKind::Network);
        let error = endpoint(Some(directory.path()), "gone").unwrap_err();
        assert_eq!(error.to_string(), r#"Docker context "gone" does not exist"#);
    }

    /// The identifier is the one that Docker uses: `printf far | sha256sum`.
    #[test]
    fn certificates_lie_beside_the_context() {
        let directory = directory("far", r#"{"Host":"tcp://far:2376"}"#);
        let id = "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";
        let tls = directory.path().join("contexts/tls").join(id).join("docker");
        fs::create_dir_all(&tls).unwrap();
        let expected = Endpoint::Tcp { address: "far:2376".into(), tls: Some(Tls::of_directory(&tls)) };
        assert_eq!(endpoint(Some(directory.path()), "far").unwrap(), expected);
    }

    #[test]
    fn a_context_that_trusts_anyone_is_refused() {
        let directory = directory("far", r#"{"Host":"tcp://far:2376","SkipTLSVerify":true}"#);
        let tls = directory.path().join("contexts/tls").join(Digest::of(b"far").hex()).join("docker");
        fs::create_dir_all(tls).unwrap();
        assert_eq!(endpoint(Some(directory.path()), "far").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
