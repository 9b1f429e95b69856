//! The shape of the `source` room until it is there. Opening says so.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::Monitor;
use crate::model::{Digest, Platform};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spec {
    Path(PathBuf),
    Stdin,
    DockerArchive { path: PathBuf, image: Option<String> },
    OciArchive { path: PathBuf, image: Option<String> },
    OciLayout { path: PathBuf, image: Option<String> },
    DockerDaemon(String),
    Registry(String),
}

impl Spec {
    pub(super) fn parse(word: &OsStr) -> Result<Self> {
        let text = word.to_str().unwrap_or("");
        let local = |rest: &str| PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
        Ok(if text == "-" {
            Spec::Stdin
        } else if let Some(rest) = text.strip_prefix("docker-archive:") {
            Spec::DockerArchive { path: local(rest), image: None }
        } else if let Some(rest) = text.strip_prefix("oci-archive:") {
            Spec::OciArchive { path: local(rest), image: None }
        } else if let Some(rest) = text.strip_prefix("oci:") {
            Spec::OciLayout { path: local(rest), image: None }
        } else if let Some(rest) = text.strip_prefix("docker-daemon:") {
            Spec::DockerDaemon(rest.to_string())
        } else if let Some(rest) = text.strip_prefix("docker://") {
            Spec::Registry(rest.to_string())
        } else {
            Spec::Path(word.into())
        })
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Spec::Path(path)
            | Spec::DockerArchive { path, .. }
            | Spec::OciArchive { path, .. }
            | Spec::OciLayout { path, .. } => Some(path),
            Spec::Stdin | Spec::DockerDaemon(_) | Spec::Registry(_) => None,
        }
    }

    pub(super) fn image(&self) -> Option<&str> {
        match self {
            Spec::DockerArchive { image, .. } | Spec::OciArchive { image, .. } | Spec::OciLayout { image, .. } => {
                image.as_deref()
            }
            _ => None,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path() {
            Some(path) => write!(f, "{path:?}"),
            None => f.write_str("standard input"),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    pub(super) image: Option<String>,
    pub(super) platform: Option<Platform>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Candidate {
    pub(super) names: Vec<String>,
    pub(super) tags: Vec<String>,
    pub(super) id: Option<Digest>,
    pub(super) platform: Option<Platform>,
    pub(super) manifest_digest: Option<Digest>,
    pub(super) index_digest: Option<Digest>,
    pub(super) absent: Option<String>,
}

pub(super) struct OpenOptions {
    pub(super) tmpdir: PathBuf,
    pub(super) want_layers: bool,
}

pub(super) struct Source;

impl Source {
    pub(super) fn kind(&self) -> &'static str {
        "nothing"
    }

    pub(super) fn images(&self) -> Vec<Candidate> {
        Vec::new()
    }

    pub(super) fn select(&self, _selection: &Selection) -> Result<Image> {
        Err(Error::new(ErrorKind::Unsupported, "not written yet"))
    }
}

pub(super) fn open(spec: &Spec, _options: &OpenOptions, _monitor: &Monitor) -> Result<Source> {
    match spec.path() {
        Some(path) if !path.exists() => {
            Err(Error::new(ErrorKind::SourceUnavailable, format!("opening {spec}: no such file or directory")))
        }
        _ => Err(Error::new(ErrorKind::Unsupported, format!("opening {spec}: not written yet"))),
    }
}
