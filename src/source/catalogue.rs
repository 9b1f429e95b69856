use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::attestation::AttestationEntry;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Config, Digest, Manifest, Platform, Reference};

/// How many images one source may list: far more than anyone packs, and few enough to search one by one.
const IMAGES_MAX: usize = 1 << 12;

/// One image of a source, as a list of what there is shows it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Candidate {
    /// Full names with tags, in the source's order.
    pub names: Vec<String>,
    /// Bare tags: the source says no name that they belong to.
    pub tags: Vec<String>,
    /// The digest of the config: the image ID. Unknown where the manifest is absent, and in archives of Docker before
    /// 1.10 merely the digest of the document that serves as config.
    pub id: Option<Digest>,
    /// The platform that the index or the config declares.
    pub platform: Option<Platform>,
    /// The digest of its manifest, where it has one.
    pub manifest_digest: Option<Digest>,
    /// The digest of the outermost image index that lists it, where one does.
    pub index_digest: Option<Digest>,
    /// How many layers it has.
    pub layers: usize,
    /// Why it cannot be converted: its manifest or config is listed but not there, as in archives that list all platforms
    /// and hold one.
    pub absent: Option<String>,
    /// Why it cannot be converted: what describes it is there, but cannot be read.
    pub unreadable: Option<String>,
    /// Whether no more is known of it than what an index says: registries are asked for an image's documents only when it is
    /// selected.
    pub unread: bool,
}

/// A candidate with what leads to its layers.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) candidate: Candidate,
    pub(super) config: Option<Config>,
    /// What `manifest.json` or a chain of v1 images says, which goes before manifests.
    pub(super) members: Option<MemberList>,
    /// Manifests of this config: usually one.
    pub(super) manifests: Vec<FoundManifest>,
    /// Names and tags as the documents spell them, and full names.
    pub(super) spellings: BTreeSet<String>,
    /// Tags that an OCI layout gives the image beside its full name, which says all: they find it, no more.
    pub(super) short_names: BTreeSet<String>,
    /// What is wrong with an image that is [unreadable](Candidate::unreadable).
    pub(super) trouble: Option<Error>,
    /// A name that no image can have: a terminal would obey it.
    pub(super) bad_name: Option<String>,
    /// Names of an OCI layout that are neither a tag nor a name with a tag as Docker knows them: `release/1.0`.
    pub(super) odd_names: Vec<String>,
    /// Things a user should know who takes this image.
    pub(super) warnings: Vec<String>,
    /// Whether the config was made here, before anyone read the layers.
    pub(super) diff_ids_unknown: bool,
    /// What made the layers of an image whose config cannot say it: see [`Image::history`](crate::image::Image).
    pub(super) history: Option<Vec<Arc<Value>>>,
    /// The v1 image ID, in hexadecimal digits, which is not a digest of anything.
    pub(super) v1_id: Option<String>,
}

/// Layers as archive members, lowest first.
#[derive(Debug)]
pub(super) struct MemberList {
    /// The document that lists them, for messages.
    pub(super) listed_in: String,
    pub(super) names: Vec<String>,
}

/// A manifest and how it was reached.
#[derive(Debug)]
pub(super) struct FoundManifest {
    pub(super) digest: Digest,
    /// The outermost indexes that list it, in the source's order: builds that differ in their attestations share it.
    pub(super) index_digests: Vec<Digest>,
    pub(super) document: Manifest,
}

/// All images of a source: the union of what its documents list, keyed by config digest.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) found: Vec<Found>,
    pub(super) artifacts: Artifacts,
    /// Whether images of other names than the one that was asked for were left out.
    pub(super) is_narrowed: bool,
}

/// What a source holds beside images.
#[derive(Debug, Default)]
pub(super) struct Artifacts {
    /// How many there are: attestations, signatures, anything.
    pub(super) count: usize,
    /// Where statements about images are.
    pub(super) attestations: Vec<AttestationEntry>,
    /// Those that stand for themselves.
    pub(super) named: Vec<Artifact>,
}

/// Something that is packed like an image.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) names: Vec<String>,
    /// Its digest as it is written.
    pub(super) digest: String,
    /// The media type that says what it is.
    pub(super) kind: String,
}

impl Catalogue {
    /// The image with that config, made where it is new.
    pub(super) fn with_config(&mut self, id: Digest) -> Result<&mut Found> {
        match self.found.iter().position(|found| found.candidate.id == Some(id)) {
            Some(at) => Ok(&mut self.found[at]),
            None => self.add(Candidate { id: Some(id), ..Candidate::default() }),
        }
    }

    /// Adds an image.
    pub(super) fn add(&mut self, candidate: Candidate) -> Result<&mut Found> {
        let at = self.found.len();
        if at == IMAGES_MAX {
            return Err(Error::new(ErrorKind::InvalidImage, format!("more than {IMAGES_MAX} images are listed")));
        }
        self.found.push(Found { candidate, ..Found::default() });
        Ok(&mut self.found[at])
    }

    /// Adds something that is not an image.
    pub(super) fn add_artifact(&mut self, names: &[String], digest: &str, kind: &str) {
        self.artifacts.count += 1;
        if self.artifacts.named.len() < IMAGES_MAX && !kind.is_empty() {
            let (names, digest, kind) = (names.to_vec(), digest.to_string(), kind.to_string());
            self.artifacts.named.push(Artifact { names, digest, kind });
        }
    }

    /// Adds where statements about an image are.
    pub(super) fn add_attestation(&mut self, entry: Option<AttestationEntry>) {
        self.artifacts.count += 1;
        if let Some(entry) = entry.filter(|_| self.artifacts.attestations.len() < IMAGES_MAX) {
            self.artifacts.attestations.push(entry);
        }
    }

    /// Adds an image whose documents cannot be read.
    pub(super) fn add_unreadable(&mut self, candidate: Candidate, names: &[String], trouble: Error) -> Result<()> {
        let found = self.add(candidate)?;
        found.add_ref_names(names);
        found.set_trouble(trouble);
        Ok(())
    }

    /// The image that has this manifest.
    pub(super) fn with_manifest(&mut self, digest: Digest) -> Option<&mut Found> {
        self.found.iter_mut().find(|found| {
            found.candidate.manifest_digest == Some(digest)
                || found.manifests.iter().any(|manifest| manifest.digest == digest)
        })
    }
}

impl Found {
    /// Takes the config over, and what it says.
    pub(super) fn set_config(&mut self, config: Config) {
        let declared = config.platform();
        let known = !declared.architecture.is_empty();
        self.candidate.platform = self.candidate.platform.take().or(known.then_some(declared));
        self.config = Some(config);
        (self.candidate.absent, self.candidate.unreadable, self.trouble) = (None, None, None);
    }

    /// Says why the image cannot be taken.
    pub(super) fn set_trouble(&mut self, trouble: Error) {
        self.candidate.unreadable = Some(trouble.to_string());
        self.trouble = Some(trouble);
    }

    /// Adds what an OCI layout calls the image. Docker and containerd write the tag beside the full name.
    pub(super) fn add_ref_names(&mut self, names: &[String]) {
        let is_full = |name: &String| name.contains(['/', ':']);
        let has_full = names.iter().any(is_full);
        for name in names {
            if has_full && !is_full(name) {
                self.short_names.insert(name.clone());
            } else {
                self.add_ref_name(name);
            }
        }
    }

    /// Adds what stands in `org.opencontainers.image.ref.name`, which may be more than a tag.
    fn add_ref_name(&mut self, name: &str) {
        let last = name.rsplit('/').next().unwrap_or(name);
        let is_name = name.contains(['/', ':']);
        if is_name && (!last.contains(':') || name.parse::<Reference>().is_err()) {
            self.odd_names.push(name.to_string());
        }
        self.add_name(name);
    }

    /// Adds a name or tag that a document gives the image: anything with a slash or a colon is a name.
    pub(super) fn add_name(&mut self, spelling: &str) {
        if !self.spellings.insert(spelling.to_string()) {
            return;
        }
        if spelling.chars().any(char::is_control) {
            self.bad_name.get_or_insert_with(|| spelling.to_string());
        }
        if !spelling.contains(['/', ':']) {
            self.candidate.tags.push(spelling.to_string());
            return;
        }
        let name = full_name(spelling);
        if name == spelling || self.spellings.insert(name.clone()) {
            self.candidate.names.push(name);
        }
    }
}

impl Artifact {
    /// Whether `word` means it: a name, a tag or its digest.
    pub(super) fn is_called(&self, word: &str) -> bool {
        self.digest == word || self.names.iter().any(|name| name == word || full_name(name) == full_name(word))
    }
}

/// The full spelling of an image name. What is not a reference as Docker reads it stays as it is.
pub(super) fn full_name(spelling: &str) -> String {
    spelling.parse::<Reference>().map_or_else(|_| spelling.to_string(), |reference| reference.to_string())
}
