use std::error::Error as StdError;
use std::io;
use std::time::{Duration, Instant};

use bollard::errors::Error as EngineError;
use bollard::models::ImageInspect;
use bollard::query_parameters::ListImagesOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use url::form_urlencoded::byte_serialize;

use super::endpoint::{Endpoint, Place, Tls};
use super::near::near;
use super::plain;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Event, Monitor};
use crate::model::{Platform, Quoted, Reference};

/// How long an engine may take to answer a question.
const ANSWER_SECONDS: u64 = 60;
/// How long an engine may take to begin an export: Docker up to 24 copies all layers to a directory of its own before.
const EXPORT_SECONDS: u64 = 24 * 60 * 60;
/// The interface since which an export can be asked for one platform: Docker 28.
const PLATFORM_SINCE: ClientVersion = ClientVersion { major_version: 1, minor_version: 48 };

const NO_ENGINE: &str = "start it (systemctl start docker, or systemctl --user start podman.socket), say where it is with \
                         DOCKER_HOST, or save the image where it is, with docker save -o image.tar NAME, and name the file";

/// An engine that has answered.
pub(super) struct Engine {
    docker: Docker,
    place: Place,
    monitor: Monitor,
}

/// An image that the engine has.
pub(super) struct Found {
    /// Its image ID, or where the engine keeps images as containerd does, the digest of its manifest or index.
    pub(super) id: Option<String>,
    /// What to ask an export for.
    pub(super) name: String,
    /// How many bytes its export has at least, where that is known.
    pub(super) at_least: Option<u64>,
}

impl Engine {
    /// The first of `places` where an engine answers. One that is there and refuses ends the search.
    pub(super) async fn connect(places: Vec<Place>, monitor: &Monitor) -> Result<Engine> {
        let mut absent = Vec::new();
        for place in places {
            let answered = match client(&place.endpoint)? {
                Ok(docker) => told(monitor, &place, "/version", in_time(docker.negotiate_version())).await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(docker) => return Ok(Engine { docker, place, monitor: monitor.clone() }),
                Err(error) if is_absent(&error) => absent.push((place, error)),
                Err(error) => return Err(no_answer(&place, error)),
            }
        }
        let shown: Vec<String> = absent.iter().map(|(place, _)| place.to_string()).collect();
        let message = format!("no engine answers at {}", shown.join(", "));
        let first = absent.into_iter().next().map(|(_, error)| error);
        let error = Error::new(ErrorKind::Network, message).hint(NO_ENGINE);
        Err(match first {
            Some(cause) => error.because(innermost(&cause)),
            None => error,
        })
    }

    /// Finds the image that `word` means: a name, `latest` where it has no tag, an image ID or the start of one.
    pub(super) async fn find(&self, word: &str) -> Result<Found> {
        // The grammar of names, which IDs fit too, holds nothing that means anything else in an address.
        let reference: Reference = word.parse()?;
        let asked = in_time(self.docker.inspect_image(word));
        let image = match told(&self.monitor, &self.place, &format!("/images/{word}/json"), asked).await {
            Ok(image) => image,
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => {
                return Err(self.no_such_image(word).await);
            }
            Err(error) => return Err(self.refused(error, &format!("looking for image {word:?}"))),
        };
        let (name, at_least) = (export_name(word, &reference, &image), bytes_at_least(&image));
        Ok(Found { id: image.id, name, at_least })
    }

    /// The engine as one that exports, for `platform` where it can choose.
    pub(super) fn exporting(&self, platform: Option<&Platform>) -> Docker {
        let docker = self.docker.clone().with_timeout(Duration::from_secs(EXPORT_SECONDS));
        match platform {
            Some(platform) if docker.client_version() >= PLATFORM_SINCE => {
                let asked: String = byte_serialize(platform_json(platform).as_bytes()).collect();
                let asked = format!("&platform={asked}");
                docker.with_request_modifier(move |mut request| {
                    // What is made of an address and escaped text is an address; the choice is checked later in any case.
                    if let Ok(address) = format!("{}{asked}", request.uri()).parse() {
                        *request.uri_mut() = address;
                    }
                    request
                })
            }
            _ => docker,
        }
    }

    /// An answer, of which whoever listens is told.
    pub(super) async fn told<T>(
        &self,
        path: &str,
        answer: impl Future<Output = std::result::Result<T, EngineError>>,
    ) -> std::result::Result<T, EngineError> {
        told(&self.monitor, &self.place, path, answer).await
    }

    /// The error for an answer that is none.
    pub(super) fn refused(&self, error: EngineError, doing: &str) -> Error {
        match error {
            EngineError::DockerResponseServerError { status_code, message } => {
                let kind = if status_code == 404 { ErrorKind::SourceUnavailable } else { ErrorKind::Network };
                let message = Quoted(message.trim().as_bytes()).to_string();
                Error::new(kind, format!("{doing}: the engine at {} answers {status_code}: {message}", self.place))
                    .hint("try docker save with the same name: if that fails too, it is the engine's trouble")
            }
            error => ended(&self.place, error, doing),
        }
    }

    async fn no_such_image(&self, word: &str) -> Error {
        let error = |more: &str| {
            Error::new(
                ErrorKind::SourceUnavailable,
                format!("the engine at {} has no image {word:?}{more}", self.place),
            )
        };
        let all = ListImagesOptionsBuilder::new().build();
        let asked = in_time(self.docker.list_images(Some(all)));
        let Ok(images) = told(&self.monitor, &self.place, "/images/json", asked).await else {
            return error("").hint("docker images lists what there is");
        };
        let names: Vec<String> = images.into_iter().flat_map(|image| image.repo_tags).collect();
        let near = near(word, &names);
        if near.is_empty() {
            let hint = format!("docker images lists what there is; fetch it with docker pull {word}");
            return error("").hint(hint);
        }
        let shown: Vec<String> = near.iter().map(|name| Quoted(name.as_bytes()).to_string()).collect();
        error(&format!(", but {}", shown.join(", ")))
            .hint(format!("write docker-daemon:{}, or pull {word} first", near[0]))
    }
}

/// The same before there is an engine.
async fn told<T>(
    monitor: &Monitor,
    place: &Place,
    path: &str,
    answer: impl Future<Output = std::result::Result<T, EngineError>>,
) -> std::result::Result<T, EngineError> {
    let asked = Instant::now();
    let answer = answer.await;
    let outcome = match &answer {
        Ok(_) => "200".to_string(),
        Err(EngineError::DockerResponseServerError { status_code, .. }) => status_code.to_string(),
        Err(error) => innermost(error),
    };
    let url = format!("{path} of the engine at {place}");
    monitor.tell(Event::Request { method: "GET", url: &url, outcome: &outcome, took: asked.elapsed() });
    answer
}

/// An answer, all of it, within the time that the engine has: one that goes on and on is not an answer.
async fn in_time<T>(
    answer: impl Future<Output = std::result::Result<T, EngineError>>,
) -> std::result::Result<T, EngineError> {
    let limit = Duration::from_secs(ANSWER_SECONDS);
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(EngineError::RequestTimeoutError))
}

/// A client for an endpoint; nothing has been sent. Files for TLS that cannot be read are told here.
fn client(endpoint: &Endpoint) -> Result<std::result::Result<Docker, EngineError>> {
    let version = API_DEFAULT_VERSION;
    Ok(match endpoint {
        Endpoint::Unix(path) => plain::unix(path, ANSWER_SECONDS, version),
        Endpoint::Tcp { address, tls: None } => plain::tcp(address, ANSWER_SECONDS, version),
        Endpoint::Tcp { address, tls: Some(tls) } => {
            readable(tls)?;
            Docker::connect_with_ssl(address, &tls.key, &tls.cert, &tls.ca, ANSWER_SECONDS, version)
        }
        Endpoint::Ssh(ssh) => ssh.client(ANSWER_SECONDS, version),
    })
}

fn readable(tls: &Tls) -> Result<()> {
    for path in [&tls.ca, &tls.cert, &tls.key] {
        if let Err(error) = std::fs::File::open(path) {
            let path = Quoted(path.as_os_str().as_encoded_bytes());
            return Err(Error::new(ErrorKind::Network, format!("{path}, which TLS needs, cannot be read: {error}"))
                .hint("set DOCKER_CERT_PATH to the directory of ca.pem, cert.pem and key.pem"));
        }
    }
    Ok(())
}

/// What an export is asked for: what was written, so that it names the image as `docker save` of the same word does. Only
/// a name without a tag is completed, for Docker would export all its tags.
fn export_name(word: &str, reference: &Reference, image: &ImageInspect) -> String {
    let complete = |name: &String| name.parse::<Reference>().is_ok_and(|full| full == *reference);
    let untagged = reference.digest.is_none() && !word.rsplit('/').next().unwrap_or(word).contains(':');
    let known = image.repo_tags.iter().flatten().any(complete);
    if untagged && known { format!("{word}:latest") } else { word.to_string() }
}

/// Where layers are kept unpacked they are exported uncompressed, with headers: that takes more than their files do. Of a
/// containerd store nothing is known, for it counts what it exports twice, or compresses it.
fn bytes_at_least(image: &ImageInspect) -> Option<u64> {
    let unpacked = image.graph_driver.as_ref().is_some_and(|driver| !driver.data.is_empty());
    let layers = image.root_fs.as_ref().and_then(|root| root.layers.as_ref());
    // A layer that occurs twice is exported once.
    let distinct = layers.is_some_and(|layers| {
        let mut sorted = layers.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == layers.len()
    });
    image.size.filter(|_| unpacked && distinct).and_then(|bytes| u64::try_from(bytes).ok())
}

fn platform_json(platform: &Platform) -> String {
    let mut json = serde_json::json!({ "os": platform.os, "architecture": platform.architecture });
    if let Some(variant) = &platform.variant {
        json["variant"] = variant.as_str().into();
    }
    json.to_string()
}

/// Whether there is no engine at all.
fn is_absent(error: &EngineError) -> bool {
    matches!(error, EngineError::SocketNotFoundError(_))
        || matches!(io_kind(error), Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused))
}

/// The error for an engine that is there and does not talk.
fn no_answer(place: &Place, error: EngineError) -> Error {
    if io_kind(&error) == Some(io::ErrorKind::PermissionDenied) {
        let podman = matches!(&place.endpoint, Endpoint::Unix(path) if path.contains("podman"));
        let hint = if podman {
            "this socket is another user's: start your own with systemctl --user start podman.socket"
        } else {
            "have an administrator add you to the group docker (usermod -aG docker USER) and log in again, or start Podman, \
             which needs no such right: systemctl --user start podman.socket, and set DOCKER_HOST to its socket"
        };
        let message = format!("no permission to use the engine's socket {place}");
        return Error::new(ErrorKind::Network, message).because(innermost(&error)).hint(hint);
    }
    let message = match &error {
        EngineError::RequestTimeoutError => {
            format!("the engine at {place} gives no answer within {ANSWER_SECONDS} seconds")
        }
        EngineError::DockerResponseServerError { status_code, message } => {
            let message = Quoted(message.trim().as_bytes()).to_string();
            format!("the engine at {place} answers {status_code}: {message}")
        }
        _ => format!("the engine at {place} cannot be talked to"),
    };
    Error::new(ErrorKind::Network, message).because(chain(&error)).hint(match &place.endpoint {
        Endpoint::Ssh(_) => "try the same with ssh HOST docker system dial-stdio: it must ask for no password",
        Endpoint::Tcp { tls: Some(_), .. } => "check the address, and the certificates in DOCKER_CERT_PATH",
        Endpoint::Tcp { tls: None, .. } => "check the address; if the engine speaks TLS, set DOCKER_TLS_VERIFY=1",
        Endpoint::Unix(_) => "check with docker version that the engine works",
    })
}

/// The error for an engine that stopped talking.
pub(super) fn ended(place: &Place, error: EngineError, doing: &str) -> Error {
    Error::new(ErrorKind::Network, format!("{doing}: the engine at {place} broke off"))
        .because(chain(&error))
        .hint("see why in the engine's log (journalctl -u docker), and run the same command again")
}

impl Engine {
    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

fn sources(error: &EngineError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&error| error.source())
}

fn io_kind(error: &EngineError) -> Option<io::ErrorKind> {
    let found = match error {
        EngineError::IOError { err } => Some(err.kind()),
        _ => None,
    };
    found.or(sources(error).find_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind))
}

/// What lies behind an error, as one line: the client's own words are of no use to people.
fn innermost(error: &EngineError) -> String {
    sources(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// All that is known about an error, as one line.
fn chain(error: &EngineError) -> String {
    let mut words: Vec<String> = vec![error.to_string()];
    for source in sources(error) {
        let text = source.to_string();
        if !words.iter().any(|word| word.contains(&text)) {
            words.push(text);
        }
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: serde_json::Value) -> ImageInspect {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn exports_are_asked_for_by_the_word() {
        let image = image(serde_json::json!({ "RepoTags": ["app:1", "app:latest", "host:5000/x:latest"] }));
        for (word, expected) in [
            ("app", "app:latest"),
            ("docker.io/library/app", "docker.io/library/app:latest"),
            ("host:5000/x", "host:5000/x:latest"),
            ("app:1", "app:1"),
            ("0123456789ab", "0123456789ab"),
        ] {
            assert_eq!(export_name(word, &word.parse().unwrap(), &image), expected, "{word}");
        }
        let pinned = format!("app@sha256:{}", "0".repeat(64));
        assert_eq!(export_name(&pinned, &pinned.parse().unwrap(), &image), pinned);
    }

    #[test]
    fn space_is_known_where_layers_are_kept_unpacked() {
        let layers = |layers: &[&str]| serde_json::json!({ "Type": "layers", "Layers": layers });
        let docker = |layers: serde_json::Value| {
            let driver = serde_json::json!({ "Name": "overlay2", "Data": { "UpperDir": "/x" } });
            image(serde_json::json!({ "Size": 7, "GraphDriver": driver, "RootFS": layers }))
        };
        assert_eq!(bytes_at_least(&docker(layers(&["a", "b"]))), Some(7));
        assert_eq!(bytes_at_least(&docker(layers(&["a", "b", "a"]))), None);
        let containerd = serde_json::json!({ "Size": 7, "RootFS": layers(&["a"]) });
        assert_eq!(bytes_at_least(&image(containerd)), None);
    }

    #[test]
    fn platforms_are_json() {
        let platform: Platform = "linux/arm/v7".parse().unwrap();
        let json = platform_json(&platform);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read, serde_json::json!({ "os": "linux", "architecture": "arm", "variant": "v7" }));
    }
}
