//! Outputs that are pushed.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use super::hosting::{Attachment, Hosting, SIGNER};
use super::options::{IfExists, PushedBlobs, WriteOptions};
use super::place::{Finished, hash};
use super::prepared::Task;
use super::signature::CarriedSignature;
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::image::Image;
use crate::io::{Monitor, Phase, Region, Scratch};
use crate::model::Digest;
use crate::registry::{ArtifactKind, BlobContent, Pushed, Repository, SifArtifact};

/// An output on its way to a registry.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) hosting: Hosting,
    /// The file that is to be pushed, where it is one.
    pub(super) scratch: Option<Scratch>,
    repository: OnceLock<Repository>,
}

impl Hosted {
    /// One whose parts lie elsewhere.
    pub(super) fn of_parts(hosting: &Hosting) -> Self {
        Hosted { hosting: hosting.clone(), scratch: None, repository: OnceLock::new() }
    }

    /// A file without a name, which is pushed when it is whole.
    pub(super) fn of_file(hosting: &Hosting, task: &Task) -> Result<Self> {
        let scratch = Scratch::create(&task.options.tmpdir, 0o600);
        let scratch = scratch.map_err(|error| error.with_remedy(Remedy::OtherTmpdir))?;
        Ok(Hosted { scratch: Some(scratch), ..Hosted::of_parts(hosting) })
    }

    pub(super) fn file(&self) -> Result<&Arc<File>> {
        self.scratch
            .as_ref()
            .map(Scratch::file)
            .ok_or_else(|| Error::new(ErrorKind::Bug, "what is pushed is not a file"))
    }

    /// Opens the repository. What keeps everything from being pushed is known then, before hours of work.
    pub(super) fn begin(&self, options: &WriteOptions, monitor: &Monitor) -> Result<()> {
        let Hosting { reference, mounts, .. } = &self.hosting;
        let opened = || {
            let repository = Repository::open(reference, mounts, &options.registry, monitor)?;
            if let Some(tag) = &reference.tag {
                let is_there = repository.has_manifest(tag)?;
                if is_there && options.if_exists == Some(IfExists::Fail) {
                    let message = format!("{reference} exists already");
                    return Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::OtherTag));
                }
            }
            if self.scratch.is_some() {
                repository.expect_push()?;
            }
            Ok(repository)
        };
        let repository = opened().doing(|| format!("opening {reference} for pushing"))?;
        self.repository.set(repository).map_err(|_| Error::new(ErrorKind::Bug, "a push was begun twice"))
    }

    /// The repository, once the push has begun.
    pub(super) fn repository(&self) -> Result<&Repository> {
        self.repository.get().ok_or_else(|| Error::new(ErrorKind::Bug, "a push has not begun"))
    }

    /// Pushes the file as a SIF of `bytes` bytes, and signatures that are of it.
    pub(super) fn finish_sif(self, bytes: u64, image: &Image, monitor: &Monitor) -> Result<Finished> {
        let file = self.file()?;
        file.set_len(bytes).or_kind(ErrorKind::Output)?;
        let digest = hash(file, monitor)?;
        let attachment = self.hosting.attachment.as_ref();
        let signatures = match attachment {
            Some(Attachment { signatures, .. }) => CarriedSignature::those_that_fit(signatures, file, monitor)?,
            None => Vec::new(),
        };
        image.blobs.confirm()?;
        let mut finished = Finished { size: bytes, sha256: Some(digest), ..Finished::default() };
        if attachment.is_none_or(|attachment| attachment.with_sif) {
            monitor.begin(Phase::Push, bytes);
            let content = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
            let title = attachment.map_or_else(|| self.hosting.title(), |it| it.title.clone());
            let annotations = attachment.map_or(&[][..], |it| &it.annotations);
            let (manifest, pushed) = self.push((ArtifactKind::Sif, &title), (digest, bytes, &content), annotations)?;
            finished.manifest_digest = Some(manifest);
            finished.pushed = Some(PushedBlobs::of(&[pushed]));
        }
        for (signature, attachment) in signatures.into_iter().zip(attachment.into_iter().cycle()) {
            let bytes = signature.bytes();
            let title = format!("{}.sig.json", attachment.title);
            let mut annotations = attachment.annotations.clone();
            annotations.push((SIGNER.to_string(), signature.key_ids()));
            let content = (signature.digest(), bytes.len() as u64, &bytes as _);
            self.push((ArtifactKind::Signature, &title), content, &annotations)?;
        }
        Ok(finished)
    }

    /// Pushes one file with a manifest of its own; the digest of that.
    fn push(
        &self,
        (kind, title): (ArtifactKind, &str),
        (digest, size, content): BlobContent<'_>,
        annotations: &[(String, String)],
    ) -> Result<(Digest, Pushed)> {
        let Hosting { reference, attachment, .. } = &self.hosting;
        let annotations: Vec<(&str, &str)> =
            annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let subject = attachment.as_ref().map(|it| (it.media_type.as_str(), it.digest, it.size));
        let artifact = SifArtifact { kind, digest, size, content, title, subject, annotations: &annotations };
        let pushed = self.repository()?.push_sif(&artifact, reference.tag.as_deref());
        let (stored, pushed) = pushed.doing(|| format!("pushing {reference}"))?;
        Ok((stored.digest, pushed))
    }
}

impl PushedBlobs {
    pub(super) fn of(blobs: &[Pushed]) -> Self {
        let count = |wanted: Pushed| blobs.iter().filter(|&&it| it == wanted).count() as u64;
        PushedBlobs {
            present: count(Pushed::Present),
            mounted: count(Pushed::Mounted),
            uploaded: count(Pushed::Uploaded),
        }
    }
}
