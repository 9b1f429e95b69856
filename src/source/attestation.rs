//! What builds say of an image beside it: in-toto statements in the attestation manifests of BuildKit
//! (<https://docs.docker.com/build/metadata/attestations/attestation-storage/>).

use std::io::Read as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Source;
use super::document::Documents;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::image::{Attestation, BlobRef, Image};
use crate::io::Expected;
use crate::model::{Digest, Manifest};

const STATEMENT: &str = "application/vnd.in-toto+json";
/// Most bytes of all statements about one image: bills of materials of large images have some 10 MiB.
const STATEMENTS_BYTES_MAX: u64 = 32 << 20;
/// Most statements about one image.
const STATEMENTS_MAX: usize = 32;

/// An entry of an index that leads to statements about one of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttestationEntry {
    /// The outermost index that lists it.
    pub(super) index: Option<Digest>,
    /// The manifest that it is about.
    pub(super) subject: Digest,
    /// The manifest that lists the statements.
    pub(super) manifest: Digest,
}

/// in-toto statements of any version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    predicate_type: String,
    #[serde(default)]
    subject: Vec<Subject>,
    #[serde(borrow)]
    predicate: &'a RawValue,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: std::collections::BTreeMap<String, String>,
}

impl Source {
    /// The statements about `image` that stand beside it in its index, in their order; none where there is no index, or it has
    /// none.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when one is not a statement, [`ErrorKind::Mismatch`] when it is not what its digest says, or
    /// says to be about something else; [`ErrorKind::Unsupported`] when there are too many; as reading the source.
    pub fn attestations(&self, image: &Image) -> Result<Vec<Attestation>> {
        let Some(subject) = image.manifest_digest else { return Ok(Vec::new()) };
        let entries = self.artifacts.attestations.iter();
        let of_image = |it: &&AttestationEntry| it.subject == subject && it.index == image.index_digest;
        let mut manifests: Vec<Digest> = Vec::new();
        for entry in entries.filter(of_image) {
            if !manifests.contains(&entry.manifest) {
                manifests.push(entry.manifest);
            }
        }
        let doing = || format!("reading the attestations of image manifest {subject} of {}", self.store.name());
        let (mut found, mut left) = (Vec::new(), STATEMENTS_BYTES_MAX);
        for manifest in manifests {
            found.extend(self.statements(manifest, subject, &mut left).doing(doing)?);
            if found.len() > STATEMENTS_MAX {
                let message = format!("there are more than {STATEMENTS_MAX} of them");
                return Err(Error::new(ErrorKind::Unsupported, message)).doing(doing);
            }
        }
        Ok(found)
    }

    fn statements(&self, manifest: Digest, subject: Digest, left: &mut u64) -> Result<Vec<Attestation>> {
        let absent = |what: String| {
            let error = Error::new(ErrorKind::InvalidImage, format!("{what} is listed and not there"));
            error.hint("push, save or copy the image again with all that its index lists")
        };
        let bytes = Documents::new(&*self.store).read_blob(manifest)?;
        let bytes = bytes.ok_or_else(|| absent(format!("attestation manifest {manifest}")))?;
        let mut found = Vec::new();
        for layer in Manifest::parse(&bytes)?.layers.iter().filter(|layer| layer.media_type == STATEMENT) {
            let digest = layer.digest()?;
            let key = self.store.key(&digest);
            if !self.store.has(&key)? {
                return Err(absent(format!("attestation {digest}")));
            }
            let media_type = Some(layer.media_type.clone());
            let blob = BlobRef { key, digest: Some(digest), size: layer.size(), media_type };
            let mut statement = Vec::new();
            let stored = self.store.open(&blob)?.take(*left + 1);
            { stored }.read_to_end(&mut statement).or_kind(ErrorKind::SourceUnavailable)?;
            *left = left.checked_sub(statement.len() as u64).ok_or_else(|| {
                let message = format!("they have more than {STATEMENTS_BYTES_MAX} bytes altogether");
                Error::new(ErrorKind::Unsupported, message)
            })?;
            Expected::digest(digest).check_bytes(&statement).doing(|| format!("attestation {digest}"))?;
            found.push(read(statement, subject).doing(|| format!("attestation {digest}"))?);
        }
        Ok(found)
    }
}

fn read(bytes: Vec<u8>, subject: Digest) -> Result<Attestation> {
    let malformed = |error| Error::new(ErrorKind::InvalidImage, format!("not an in-toto statement: {error}"));
    let statement: Statement<'_> = serde_json::from_slice(&bytes).map_err(malformed)?;
    let is_it = |it: &Subject| it.digest.get(subject.algorithm().name()).is_some_and(|hex| *hex == subject.hex());
    if !statement.subject.is_empty() && !statement.subject.iter().any(is_it) {
        return Err(Error::new(ErrorKind::Mismatch, "it is about something else than this image")
            .hint("push or build the image again"));
    }
    let (predicate_type, predicate) = (statement.predicate_type, statement.predicate.get().as_bytes().to_vec());
    Ok(Attestation { predicate_type, predicate, statement: bytes })
}
