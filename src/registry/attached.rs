//! What is attached to an image on its registry, for who looks for signatures: manifests, by tag and by reference.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Registry;
use super::repository::Repository;
use crate::error::{ErrorKind, Result, ResultExt as _};
use crate::model::Digest;

/// Most manifests that are looked at.
const MANIFESTS_MAX: usize = 64;

/// A manifest that is attached to another one.
pub(crate) struct Attached {
    /// Its tag or digest.
    pub(crate) name: String,
    /// Its bytes.
    pub(crate) manifest: Vec<u8>,
}

impl Registry {
    /// The manifest under cosign's tag for `subject`, and all that refer to it, whatever their entries say they are: cosign 3.1
    /// writes the wrong type into the list.
    pub(crate) fn attached(&self, subject: Digest) -> Result<Vec<Attached>> {
        let doing = || format!("looking for signatures of {subject}");
        let mut found = Vec::new();
        let tag = format!("{}-{}.sig", subject.algorithm().name(), subject.hex());
        if let Some(manifest) = self.named(&tag, None).doing(doing)? {
            found.push(Attached { name: tag, manifest });
        }
        let repository =
            Repository { client: Arc::clone(&self.client), mounts: Vec::new(), mounts_nothing: AtomicBool::new(true) };
        for descriptor in repository.referrers(subject, None)?.into_iter().take(MANIFESTS_MAX) {
            let Ok(digest) = descriptor.digest().as_ref().parse::<Digest>() else { continue };
            if let Some(manifest) = self.named(&digest.to_string(), Some(digest)).doing(doing)? {
                found.push(Attached { name: digest.to_string(), manifest });
            }
        }
        Ok(found)
    }

    fn named(&self, name: &str, digest: Option<Digest>) -> Result<Option<Vec<u8>>> {
        none_if_missing(self.client.document(&format!("manifests/{name}"), &format!("manifest {name}"), digest))
    }

    /// A small blob that a manifest lists.
    pub(crate) fn small_blob(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        none_if_missing(self.client.document(&format!("blobs/{digest}"), &format!("blob {digest}"), Some(digest)))
    }
}

impl Repository {
    /// A small blob; `None` where it is not there, or is not what its digest says.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses.
    pub fn small_blob(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        none_if_missing(self.client.document(&format!("blobs/{digest}"), &format!("blob {digest}"), Some(digest)))
    }
}

/// What is not there, or is not what its digest says, is not a signature.
fn none_if_missing(found: Result<super::client::Document>) -> Result<Option<Vec<u8>>> {
    match found {
        Ok(document) => Ok(Some(document.bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::SourceUnavailable | ErrorKind::Mismatch) => Ok(None),
        Err(error) => Err(error),
    }
}
