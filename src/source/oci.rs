use serde::Deserialize;
use serde::de::IgnoredAny;

use super::artifact::{self, Content};
use super::attestation::AttestationEntry;
use super::catalogue::{Candidate, Catalogue, Found, FoundManifest};
use super::document::Documents;
use super::signatures;
use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt as _};
use crate::model::{Algorithm, Config, Descriptor, Digest, Index, Manifest, Platform, parse_json};
use crate::trust::ImagePolicy;

/// The document of an OCI layout that lists its images.
pub(super) const INDEX: &str = "index.json";

/// How deep an index may lie inside others. Docker and BuildKit nest once.
const NESTED_INDEXES_MAX: usize = 4;
/// How many descriptors are looked at altogether: indexes that list each other's children over and over end here.
const DESCRIPTORS_MAX: usize = 1 << 16;

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Adds the images of `index.json`; whether there is one.
///
/// Where signatures are asked for, only what is signed is read; all else is listed as what cannot be.
pub(super) fn read(documents: &Documents<'_>, catalogue: &mut Catalogue, trust: Option<&ImagePolicy>) -> Result<bool> {
    let Some(bytes) = documents.read(INDEX)? else { return Ok(false) };
    let mut index = Index::parse(&bytes).doing(|| documents.doing(INDEX))?;
    let digest = |it: &Descriptor| it.digest_text().to_string();
    catalogue.is_narrowed |= documents.narrow(&mut index.manifests, digest, names_of, artifact::is_attestation);
    if let Some(policy) = trust {
        index.manifests = only_signed(documents, catalogue, policy, index.manifests)?;
    }
    let mut walk = Walk { documents, catalogue, descriptors: 0, reads_all: true };
    walk.index(index, &Place { names: Vec::new(), index_digest: None, depth: 0 })?;
    Ok(true)
}

/// Those entries of `index.json` that are signed.
fn only_signed(
    documents: &Documents<'_>,
    catalogue: &mut Catalogue,
    policy: &ImagePolicy,
    entries: Vec<Result<Descriptor>>,
) -> Result<Vec<Result<Descriptor>>> {
    let found = signatures::of_layout(documents)?;
    let mut signed = Vec::new();
    for descriptor in entries.into_iter().filter_map(Result::ok) {
        let is_beside = signatures::is_signature(&descriptor) || signatures::is_referrers_list(&descriptor);
        let is_image = artifact::of_descriptor(&descriptor) == Content::Image && artifact::may_be_image(&descriptor);
        if is_beside || !is_image || artifact::is_attestation(&descriptor) {
            continue;
        }
        let digest = descriptor.digest().doing(|| documents.doing(INDEX))?;
        match policy.check(digest, None, &found) {
            Ok(_) => signed.push(Ok(descriptor)),
            Err(trouble) => {
                let candidate = Candidate {
                    manifest_digest: Some(digest),
                    platform: descriptor.platform(),
                    ..Candidate::default()
                };
                catalogue.add_unreadable(candidate, &names_of(&descriptor), trouble)?;
            }
        }
    }
    Ok(signed)
}

/// Adds the images that the manifest or index with this digest leads to, under this name. Where an index says for which
/// platforms its manifests are, they are not read yet: see [`complete`].
#[cfg(feature = "network")]
pub(super) fn read_from(
    documents: &Documents<'_>,
    catalogue: &mut Catalogue,
    digest: Digest,
    name: String,
) -> Result<()> {
    let mut walk = Walk { documents, catalogue, descriptors: 0, reads_all: false };
    walk.listed(digest, None, &Place { names: vec![name], index_digest: None, depth: 0 })
}

/// Reads the manifest and the config of an image that is [unread](Candidate::unread).
pub(super) fn complete(documents: &Documents<'_>, listed: &Candidate) -> Result<Found> {
    let mut catalogue = Catalogue::default();
    let mut walk = Walk { documents, catalogue: &mut catalogue, descriptors: 0, reads_all: true };
    let place = Place { names: listed.names.clone(), index_digest: listed.index_digest, depth: 0 };
    let digest = listed.manifest_digest.ok_or_else(|| Error::new(ErrorKind::Bug, "an image has no manifest"))?;
    walk.listed(digest, listed.platform.clone(), &place)?;
    let found = catalogue.found.pop().filter(|_| catalogue.found.is_empty());
    found.ok_or_else(|| match catalogue.artifacts.named.first() {
        Some(artifact) => artifact::unsupported(&format!("manifest {digest}"), &artifact.kind),
        None => {
            let message = format!("manifest {digest} is not that of an image, though an image index lists it as one");
            Error::new(ErrorKind::InvalidImage, message).hint("push or build the image again")
        }
    })
}

/// A walk from `index.json` down to configs.
struct Walk<'a> {
    documents: &'a Documents<'a>,
    catalogue: &'a mut Catalogue,
    descriptors: usize,
    /// Whether manifests of known platforms are read at once too.
    reads_all: bool,
}

/// Where the walk is: what the indexes above say of all that is below.
struct Place {
    names: Vec<String>,
    /// The outermost index below `index.json`: what a registry would have under the image's tag.
    index_digest: Option<Digest>,
    depth: usize,
}

/// Enough of a document to tell an index from a manifest: media types are not trusted.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shape {
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Walk<'_> {
    fn index(&mut self, index: Index, place: &Place) -> Result<()> {
        for descriptor in index.manifests {
            self.descriptors += 1;
            if self.descriptors > DESCRIPTORS_MAX {
                let message = format!("the image index lists more than {DESCRIPTORS_MAX} manifests");
                return Err(Error::new(ErrorKind::InvalidImage, message));
            }
            match descriptor {
                Ok(descriptor) => self.descriptor(&descriptor, place)?,
                Err(error) => {
                    let trouble = error.doing("reading an entry of an image index");
                    self.catalogue.add_unreadable(Candidate::default(), &place.names, trouble)?;
                }
            }
        }
        Ok(())
    }

    /// One entry. What is wrong with it is its own affair: what was asked for may be another one.
    fn descriptor(&mut self, descriptor: &Descriptor, place: &Place) -> Result<()> {
        if artifact::is_attestation(descriptor) {
            let about = artifact::subject_of_attestation(descriptor).zip(descriptor.digest().ok());
            let entry =
                about.map(|(subject, manifest)| AttestationEntry { index: place.index_digest, subject, manifest });
            self.catalogue.add_attestation(entry);
            return Ok(());
        }
        let names = names_of(descriptor);
        let names = if names.is_empty() { place.names.clone() } else { names };
        if let Content::Artifact(kind) = artifact::of_descriptor(descriptor) {
            self.catalogue.add_artifact(&names, descriptor.digest_text(), &kind);
            return Ok(());
        }
        let place = Place { names, ..*place };
        let digest = descriptor.digest().ok();
        let is_listed = |catalogue: &mut Catalogue| {
            digest.and_then(|digest| catalogue.with_manifest(digest)).is_some_and(|found| found.trouble.is_some())
        };
        match self.entry(descriptor, &place) {
            Err(error) if !is_own_affair(&error) || self.descriptors > DESCRIPTORS_MAX => Err(error),
            // It was added with all that is known of it.
            Err(_) if is_listed(self.catalogue) => Ok(()),
            Err(_) if !artifact::may_be_image(descriptor) => {
                self.catalogue.add_artifact(&place.names, descriptor.digest_text(), &descriptor.media_type);
                Ok(())
            }
            Err(trouble) => {
                let (platform, index_digest) = (descriptor.platform(), place.index_digest);
                let candidate = Candidate { platform, manifest_digest: digest, index_digest, ..Candidate::default() };
                self.catalogue.add_unreadable(candidate, &place.names, trouble)
            }
            Ok(()) => Ok(()),
        }
    }

    fn entry(&mut self, descriptor: &Descriptor, place: &Place) -> Result<()> {
        let digest = descriptor.digest().doing(|| "reading an image index".to_string())?;
        let (names, platform) = (&place.names, descriptor.platform());
        if let Some(found) = self.catalogue.with_manifest(digest) {
            found.add_ref_names(names);
            let manifest = found.manifests.iter_mut().find(|manifest| manifest.digest == digest);
            manifest.into_iter().for_each(|manifest| manifest.index_digests.extend(place.index_digest));
            return Ok(());
        }
        if !descriptor.os_features().is_empty() && platform.as_ref().is_some_and(|it| it.os == "linux") {
            let features = descriptor.os_features().join(", ");
            let message =
                format!("manifest {digest} is for systems with {features}, which layers of files do not need");
            let error = Error::new(ErrorKind::Unsupported, message);
            return Err(error.with_remedy(Remedy::OtherImage));
        }
        if !self.reads_all && platform.is_some() && !artifact::is_index(descriptor) {
            let (manifest_digest, index_digest) = (Some(digest), place.index_digest);
            let listed = Candidate { platform, manifest_digest, index_digest, unread: true, ..Candidate::default() };
            let found = self.catalogue.add(listed)?;
            found.add_ref_names(names);
            return Ok(());
        }
        self.listed(digest, platform, place)
    }

    /// Reads the manifest or index with this digest, and what it leads to.
    fn listed(&mut self, digest: Digest, platform: Option<Platform>, place: &Place) -> Result<()> {
        let names = &place.names;
        let Some(bytes) = self.documents.read_blob(digest)? else {
            return self.absent_manifest(digest, platform, names, place);
        };
        let doing = || format!("reading manifest {digest} of {}", self.documents.store.name());
        let shape: Shape = parse_json(&bytes, "an image manifest").doing(doing)?;
        if shape.config.is_some() {
            let document = Manifest::parse(&bytes).doing(doing)?;
            let index_digests = place.index_digest.into_iter().collect();
            return self.manifest(FoundManifest { digest, index_digests, document }, platform, names);
        }
        if shape.manifests.is_none() {
            // Docker schema 1 and artifacts without a config.
            let manifest = Manifest::parse(&bytes).doing(doing)?;
            self.catalogue.add_artifact(names, &digest.to_string(), &manifest.artifact_type);
            return Ok(());
        }
        if place.depth == NESTED_INDEXES_MAX {
            let message = format!("image indexes lie more than {NESTED_INDEXES_MAX} deep inside each other");
            return Err(Error::new(ErrorKind::InvalidImage, message).doing(doing()));
        }
        let index = Index::parse(&bytes).doing(doing)?;
        let index_digest = place.index_digest.or(Some(digest));
        self.index(index, &Place { names: names.clone(), index_digest, depth: place.depth + 1 })
    }

    fn manifest(&mut self, manifest: FoundManifest, platform: Option<Platform>, names: &[String]) -> Result<()> {
        if let Content::Artifact(kind) = artifact::of_manifest(&manifest.document) {
            self.catalogue.add_artifact(names, &manifest.digest.to_string(), &kind);
            return Ok(());
        }
        let doing = || format!("reading manifest {} of {}", manifest.digest, self.documents.store.name());
        let stated = manifest.document.config.digest().doing(doing)?;
        let (id, read) = self.config_id(stated)?;
        let found = self.catalogue.with_config(id)?;
        found.candidate.platform = platform.or(found.candidate.platform.take());
        found.add_ref_names(names);
        found.candidate.manifest_digest.get_or_insert(manifest.digest);
        if found.candidate.index_digest.is_none() {
            found.candidate.index_digest = manifest.index_digests.first().copied();
        }
        if found.config.is_none() {
            found.candidate.layers = manifest.document.layers.len();
            let bytes = match read {
                Some(bytes) => Ok(Some(bytes)),
                None => self.documents.read_blob(stated),
            };
            let parse = |bytes| Config::parse(bytes).doing(|| format!("reading config {stated}"));
            match bytes.and_then(|bytes| bytes.map(parse).transpose()) {
                Ok(Some(config)) => found.set_config(config),
                Ok(None) => {
                    let why =
                        format!("its config {stated}, to which manifest {} refers, is not there", manifest.digest);
                    found.candidate.absent = Some(why);
                }
                Err(error) => {
                    let own_affair = is_own_affair(&error);
                    found.set_trouble(error.again());
                    found.manifests.push(manifest);
                    return if own_affair && self.reads_all { Ok(()) } else { Err(error) };
                }
            }
        }
        found.manifests.push(manifest);
        Ok(())
    }

    /// The image ID, which is a SHA-256 whatever the manifest calls its config by; and the config's bytes, where they had to be
    /// read for that.
    fn config_id(&self, stated: Digest) -> Result<(Digest, Option<Vec<u8>>)> {
        if stated.algorithm() == Algorithm::Sha256 {
            return Ok((stated, None));
        }
        let read = self.documents.read_blob(stated)?;
        Ok((read.as_deref().map_or(stated, Digest::of), read))
    }

    fn absent_manifest(
        &mut self,
        digest: Digest,
        platform: Option<Platform>,
        names: &[String],
        place: &Place,
    ) -> Result<()> {
        let listed_in = place.index_digest.map_or_else(|| INDEX.to_string(), |index| format!("index {index}"));
        let found = self.catalogue.add(Candidate {
            platform,
            manifest_digest: Some(digest),
            index_digest: place.index_digest,
            absent: Some(format!("its manifest {digest}, to which {listed_in} refers, is not there")),
            ..Candidate::default()
        })?;
        found.add_ref_names(names);
        Ok(())
    }
}

/// Whether an error says something about one image, not about the source or about us.
pub(super) fn is_own_affair(error: &Error) -> bool {
    use ErrorKind::{InvalidImage, Mismatch, SourceUnavailable, Unsupported};
    matches!(error.kind(), InvalidImage | Mismatch | SourceUnavailable | Unsupported)
}

/// What a descriptor calls its image.
fn names_of(descriptor: &Descriptor) -> Vec<String> {
    [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| descriptor.annotation(key)).map(str::to_string).collect()
}
