use std::collections::BTreeSet;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Config, Digest, Manifest, Platform, Reference};

/// How many images one source may list: far more than anyone packs, and few enough to search one by one.
const IMAGES_MAX: usize = 1 << 12;

/// One image of a source, as a list of what there is shows it.
#[derive(Debug, Clone, Default)]
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
    /// The v1 image ID, in hexadecimal digits, which is no digest of anything.
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
    /// Attestations, signatures and other things that are no images.
    pub(super) passed_over: usize,
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
        self.candidate.absent = None;
    }

    /// Adds a name or tag that a document gives the image: anything with a slash or a colon is a name.
    pub(super) fn add_name(&mut self, spelling: &str) {
        if !self.spellings.insert(spelling.to_string()) {
            return;
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

/// The full spelling of an image name. What is no reference as Docker reads it stays as it is.
pub(super) fn full_name(spelling: &str) -> String {
    spelling.parse::<Reference>().map_or_else(|_| spelling.to_string(), |reference| reference.to_string())
}
