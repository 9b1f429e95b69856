//! Images of a local engine, Docker's or Podman's, as a stream of the archive that `docker save` writes.
//!
//! The idea to hold: the engine's interface is asynchronous, and nothing of that leaves this room. One thread with a runtime of
//! its own talks to the engine (`engine`) and hands batches of bytes through a bounded channel to a blocking reader (`export`),
//! which takes an end for an end only when the archive is complete. Where an engine may listen follows from settings that
//! the caller gives (`endpoint`, `context`): the environment is not read here. What comes out is read as any other archive.

mod context;
mod endpoint;
mod engine;
mod export;
mod near;
mod plain;
mod ssh;

use std::path::PathBuf;

pub(super) use export::{export, image_id};

/// How the local engine is found: what the docker and podman commands take from their environment. Empty values count as
/// none.
#[derive(Debug, Clone, Default)]
pub struct EngineSettings {
    /// `DOCKER_HOST`: the address of an engine, and then of no other.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`: the name of a context of Docker's, which goes before the one that is current in `config.json`.
    pub docker_context: Option<String>,
    /// Whether `DOCKER_TLS_VERIFY` is set: an address `tcp://…` is spoken to through TLS.
    pub docker_tls_verify: bool,
    /// `DOCKER_CERT_PATH`: where `ca.pem`, `cert.pem` and `key.pem` are, if not in `docker_config`.
    pub docker_cert_path: Option<PathBuf>,
    /// `DOCKER_CONFIG`, else `~/.docker`: where `config.json` and contexts are.
    pub docker_config: Option<PathBuf>,
    /// `CONTAINER_HOST`: the address of Podman, for where there is no Docker.
    pub container_host: Option<String>,
    /// `XDG_RUNTIME_DIR`: where the sockets of rootless engines are.
    pub runtime_dir: Option<PathBuf>,
}
