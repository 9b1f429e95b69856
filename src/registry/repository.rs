//! A repository that is written to: the door for everything that is pushed. Mirrors are never written to, and only the
//! registry that the reference names sees credentials, wherever it sends uploads to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::http::Method;

use super::client::{Client, Document, MANIFESTS};
use super::http::{Answer, Failure, refusal};
use super::retry::Retry;
use super::settings::Settings;
use super::upload::Uploader;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::Monitor;
use crate::model::{Digest, Reference};

pub use super::upload::{Content, Pushed};

type Asked<T> = std::result::Result<T, Failure>;

/// A repository on a registry, open for pushing.
pub struct Repository {
    pub(super) client: Arc<Client>,
    /// Other repositories on the same registry that may have the blobs already.
    pub(super) mounts: Vec<String>,
    /// Whether the registry has declined to mount anything: it is not asked again.
    pub(super) mounts_nothing: AtomicBool,
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("mounts", &self.mounts).finish_non_exhaustive()
    }
}

/// What a registry said when it took a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest whose referrers the registry has added it to (distribution-spec 1.1, `OCI-Subject`).
    pub subject: Option<Digest>,
}

impl Repository {
    /// Opens the repository that `reference` names; nothing is sent yet. Blobs are mounted from those of `mounts` that are
    /// on the same registry and may be read.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where `registries.conf` blocks the registry.
    pub fn open(
        reference: &Reference,
        mounts: &[Reference],
        settings: &Settings,
        monitor: &Monitor,
    ) -> Result<Repository> {
        let is_near = |other: &&Reference| other.host == reference.host && other.repository != reference.repository;
        let mut mounts: Vec<String> = mounts.iter().filter(is_near).map(|other| other.repository.clone()).collect();
        mounts.dedup();
        let client = Client::for_pushing(reference, &mounts, settings.clone(), monitor.clone())?;
        Ok(Repository { client: Arc::new(client), mounts, mounts_nothing: AtomicBool::new(false) })
    }

    /// Opens the repositories that `reference` is read from: mirrors first, and last the one that it names.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where `registries.conf` blocks the registry.
    pub fn open_for_reading(reference: &Reference, settings: &Settings, monitor: &Monitor) -> Result<Vec<Repository>> {
        let open = |client| Repository {
            client: Arc::new(client),
            mounts: Vec::new(),
            mounts_nothing: AtomicBool::new(false),
        };
        Ok(Client::each_for_pulling(reference, settings, monitor)?.into_iter().map(open).collect())
    }

    /// What went otherwise than was asked for.
    pub fn warnings(&self) -> Vec<String> {
        self.client.warnings()
    }

    /// Puts a blob there, unless it is there: mounted from another repository, or else uploaded. An upload that breaks goes
    /// on where it ended.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses, [`ErrorKind::Mismatch`] when what it received
    /// has another digest, and whatever `content` fails with.
    pub fn push_blob(&self, digest: Digest, size: u64, content: &dyn Content) -> Result<Pushed> {
        if self.has_blob(digest)? {
            return Ok(Pushed::Present);
        }
        if self.mount(digest, size)? {
            return Ok(Pushed::Mounted);
        }
        let upload = Uploader::new(&self.client, digest, size, content).upload();
        upload.doing(|| format!("pushing blob {digest}"))?;
        Ok(Pushed::Uploaded)
    }

    /// Has the registry come by a blob without its bytes; `None` where it cannot.
    pub(super) fn obtain_blob(&self, digest: Digest, size: u64) -> Result<Option<Pushed>> {
        Ok(match self.has_blob(digest)? {
            true => Some(Pushed::Present),
            false => self.mount(digest, size)?.then_some(Pushed::Mounted),
        })
    }

    /// Mounts a blob from another repository; whether that worked.
    fn mount(&self, digest: Digest, size: u64) -> Result<bool> {
        let Some(from) = self.mounts.first().filter(|_| !self.mounts_nothing.load(Ordering::Relaxed)) else {
            return Ok(false);
        };
        let nothing: &[u8] = &[];
        let mounted = Uploader::new(&self.client, digest, size, &nothing).mount(from)?;
        if !mounted {
            self.mounts_nothing.store(true, Ordering::Relaxed);
        }
        Ok(mounted)
    }

    /// Whether the blob is there.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses.
    pub fn has_blob(&self, digest: Digest) -> Result<bool> {
        let what = format!("blob {digest}");
        let answer = self.retried(|| {
            let answer = self.client.request(Method::HEAD, &format!("blobs/{digest}"), &[], &[])?;
            // One that has no HEAD is sent what it may have: to ask by GET is to download it.
            if matches!(answer.status, 200 | 404 | 405 | 501) { Ok(answer) } else { Err(refusal(answer, &what)) }
        })?;
        Ok(answer.status == 200)
    }

    /// Whether there is a manifest under a tag or digest.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses.
    pub fn has_manifest(&self, name: &str) -> Result<bool> {
        let what = format!("manifest {name}");
        let accept = [("accept", MANIFESTS)];
        let answer = self.retried(|| {
            let answer = self.client.request(Method::HEAD, &format!("manifests/{name}"), &accept, &[])?;
            if matches!(answer.status, 200 | 404 | 405 | 501) { Ok(answer) } else { Err(refusal(answer, &what)) }
        })?;
        match answer.status {
            // It has no HEAD.
            405 | 501 => Ok(self.manifest(name)?.is_some()),
            status => Ok(status == 200),
        }
    }

    /// The manifest under a tag or digest; `None` where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses, [`ErrorKind::Mismatch`] when it has another
    /// digest.
    pub fn manifest(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let digest = name.parse::<Digest>().ok();
        match self.client.document(&format!("manifests/{name}"), &format!("manifest {name}"), digest) {
            Ok(Document { bytes, .. }) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::SourceUnavailable => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts a manifest there, under a tag or its own digest. All that it lists must be there.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses, [`ErrorKind::Mismatch`] when it stored other
    /// bytes.
    pub fn push_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<Stored> {
        let digest = Digest::of(bytes);
        let what = format!("manifest {name}");
        let headers = [("content-type", media_type)];
        let answer = self.retried(|| {
            let answer = self.client.request(Method::PUT, &format!("manifests/{name}"), &headers, bytes)?;
            if matches!(answer.status, 200..=299) { Ok(answer) } else { Err(rejection(answer, &what)) }
        });
        let answer = answer.doing(|| format!("pushing {what}"))?;
        let stated = |header: &str| answer.header(header).and_then(|text| text.parse::<Digest>().ok());
        match stated("docker-content-digest") {
            Some(other) if other != digest => {
                let message = format!("{what}: digest mismatch: pushed {digest}, the registry stored {other}");
                Err(Error::new(ErrorKind::Mismatch, message).hint("push again; something changes what is sent"))
            }
            _ => Ok(Stored { digest, subject: stated("oci-subject") }),
        }
    }

    /// Repeats what failed for a reason that may pass.
    pub(super) fn retried<T>(&self, ask: impl Fn() -> Asked<T>) -> Result<T> {
        let mut retry = Retry::new(&self.client.settings);
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.client.wait(&mut retry, failure, 0).map_err(Failure::into_error)?,
            }
        }
    }
}

/// What a registry says that does not take something. That there is no such repository is not a missing source.
pub(super) fn rejection(answer: Answer, what: &str) -> Failure {
    let status = answer.status;
    match refusal(answer, what) {
        Failure::Missing(error) => {
            let error = Error::new(ErrorKind::Network, error.to_string());
            Failure::Lasting(error.hint("create the repository on the registry, or check its name"))
        }
        Failure::Lasting(error) if is_immutable(&error, what) => {
            Failure::Lasting(Error::new(ErrorKind::Network, error.to_string()).hint("choose another tag"))
        }
        Failure::Lasting(error) if status == 400 && error.to_string().contains("DIGEST_INVALID") => {
            Failure::Lasting(Error::new(ErrorKind::Mismatch, error.to_string()))
        }
        other => other,
    }
}

/// Whether a registry says that a tag may not be changed: each has its own status and code for it. The tag itself may have any
/// name.
fn is_immutable(error: &Error, what: &str) -> bool {
    error.to_string().replace(what, "").to_ascii_lowercase().contains("immutable")
}
