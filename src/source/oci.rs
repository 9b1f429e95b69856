use oci_spec::image::Descriptor;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::catalogue::{Candidate, Catalogue, Found, FoundManifest};
use super::document::Documents;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::model::{Config, Digest, Index, Manifest, Platform, digest_of};

/// The document of an OCI layout that lists its images.
pub(super) const INDEX: &str = "index.json";

/// How deep an index may lie inside others. Docker and BuildKit nest once.
const NESTED_INDEXES_MAX: usize = 4;
/// How many descriptors are looked at altogether: indexes that list each other's children over and over end here.
const DESCRIPTORS_MAX: usize = 1 << 16;

const CONTAINERD_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// BuildKit marks attestation manifests with annotations below this.
const ATTESTATION_TYPE: &str = "vnd.docker.reference.type";
const ATTESTATION_DIGEST: &str = "vnd.docker.reference.digest";

const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Adds the images of `index.json`; whether there is one.
pub(super) fn read(documents: &Documents<'_>, catalogue: &mut Catalogue) -> Result<bool> {
    let Some(bytes) = documents.read(INDEX)? else { return Ok(false) };
    let index = Index::parse(&bytes).doing(|| documents.doing(INDEX))?;
    let mut walk = Walk { documents, catalogue, descriptors: 0, reads_all: true };
    walk.index(&index, &Place { names: Vec::new(), index_digest: None, depth: 0 })?;
    Ok(true)
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
    found.ok_or_else(|| {
        let message = format!("manifest {digest} is not that of an image, though an image index lists it as one");
        Error::new(ErrorKind::InvalidImage, message).hint("push or build the image again")
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
#[derive(Deserialize)]
struct Shape {
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Walk<'_> {
    fn index(&mut self, index: &Index, place: &Place) -> Result<()> {
        for descriptor in &index.manifests {
            self.descriptors += 1;
            if self.descriptors > DESCRIPTORS_MAX {
                let message = format!("the image index lists more than {DESCRIPTORS_MAX} manifests");
                return Err(Error::new(ErrorKind::InvalidImage, message));
            }
            self.descriptor(descriptor, place)?;
        }
        Ok(())
    }

    fn descriptor(&mut self, descriptor: &Descriptor, place: &Place) -> Result<()> {
        if is_attestation(descriptor) {
            self.catalogue.passed_over += 1;
            return Ok(());
        }
        let digest = digest_of(descriptor).doing(|| "reading an image index".to_string())?;
        let names = names_of(descriptor);
        let names = if names.is_empty() { place.names.clone() } else { names };
        let platform = platform_of(descriptor);
        if let Some(found) = self.catalogue.with_manifest(digest) {
            names.iter().for_each(|name| found.add_name(name));
            let manifest = found.manifests.iter_mut().find(|manifest| manifest.digest == digest);
            manifest.into_iter().for_each(|manifest| manifest.index_digests.extend(place.index_digest));
            return Ok(());
        }
        if !self.reads_all && platform.is_some() && !is_index(descriptor) {
            let (manifest_digest, index_digest) = (Some(digest), place.index_digest);
            let listed = Candidate { platform, manifest_digest, index_digest, unread: true, ..Candidate::default() };
            let found = self.catalogue.add(listed)?;
            names.iter().for_each(|name| found.add_name(name));
            return Ok(());
        }
        self.listed(digest, platform, &Place { names, ..*place })
    }

    /// Reads the manifest or index with this digest, and what it leads to.
    fn listed(&mut self, digest: Digest, platform: Option<Platform>, place: &Place) -> Result<()> {
        let names = &place.names;
        let Some(bytes) = self.documents.read_blob(digest)? else {
            return self.absent_manifest(digest, platform, names, place);
        };
        let doing = || format!("reading manifest {digest} of {}", self.documents.store.name());
        let shape: Shape = serde_json::from_slice(&bytes)
            .map_err(|error| Error::new(ErrorKind::InvalidImage, format!("this is no image manifest: {error}")))
            .doing(doing)?;
        if shape.config.is_some() {
            let document = Manifest::parse(&bytes).doing(doing)?;
            let index_digests = place.index_digest.into_iter().collect();
            return self.manifest(FoundManifest { digest, index_digests, document }, platform, names);
        }
        if shape.manifests.is_none() {
            // Docker schema 1 and artifacts without a config.
            self.catalogue.passed_over += 1;
            return Ok(());
        }
        if place.depth == NESTED_INDEXES_MAX {
            let message = format!("image indexes lie more than {NESTED_INDEXES_MAX} deep inside each other");
            return Err(Error::new(ErrorKind::InvalidImage, message).doing(doing()));
        }
        let index = Index::parse(&bytes).doing(doing)?;
        let index_digest = place.index_digest.or(Some(digest));
        self.index(&index, &Place { names: names.clone(), index_digest, depth: place.depth + 1 })
    }

    fn manifest(&mut self, manifest: FoundManifest, platform: Option<Platform>, names: &[String]) -> Result<()> {
        if !is_image(&manifest.document) {
            self.catalogue.passed_over += 1;
            return Ok(());
        }
        let doing = || format!("reading manifest {} of {}", manifest.digest, self.documents.store.name());
        let id = digest_of(&manifest.document.config).doing(doing)?;
        let found = self.catalogue.with_config(id)?;
        found.candidate.platform = platform.or(found.candidate.platform.take());
        names.iter().for_each(|name| found.add_name(name));
        found.candidate.manifest_digest.get_or_insert(manifest.digest);
        if found.candidate.index_digest.is_none() {
            found.candidate.index_digest = manifest.index_digests.first().copied();
        }
        if found.config.is_none() {
            found.candidate.layers = manifest.document.layers.len();
            match self.documents.read_blob(id)? {
                Some(bytes) => found.set_config(Config::parse(bytes).doing(|| format!("reading config {id}"))?),
                None => {
                    let why = format!("its config {id}, to which manifest {} refers, is not there", manifest.digest);
                    found.candidate.absent = Some(why);
                }
            }
        }
        found.manifests.push(manifest);
        Ok(())
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
        names.iter().for_each(|name| found.add_name(name));
        Ok(())
    }
}

fn annotation<'a>(descriptor: &'a Descriptor, key: &str) -> Option<&'a str> {
    descriptor.annotations().as_ref()?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// What a descriptor calls its image. Docker and containerd write the tag beside the full name: then the name says all.
fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let full = annotation(descriptor, CONTAINERD_NAME);
    let reference = annotation(descriptor, REF_NAME).filter(|name| full.is_none() || name.contains(['/', ':']));
    full.into_iter().chain(reference).map(str::to_string).collect()
}

fn platform_of(descriptor: &Descriptor) -> Option<Platform> {
    let declared = descriptor.platform().as_ref()?;
    let (os, architecture) = (declared.os().to_string(), declared.architecture().to_string());
    let known = !os.is_empty() && !architecture.is_empty();
    known.then(|| Platform::new(&os, &architecture, declared.variant().as_deref()))
}

/// Whether a descriptor says that it leads to an index.
fn is_index(descriptor: &Descriptor) -> bool {
    let kind = descriptor.media_type().to_string();
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"]
        .contains(&kind.as_str())
}

fn is_attestation(descriptor: &Descriptor) -> bool {
    let unknown = platform_of(descriptor).is_some_and(|it| it.os == "unknown" && it.architecture == "unknown");
    unknown || [ATTESTATION_TYPE, ATTESTATION_DIGEST].iter().any(|key| annotation(descriptor, key).is_some())
}

/// Whether a manifest is an image's: signatures and attestations use image configs too, but their layers are JSON.
fn is_image(manifest: &Manifest) -> bool {
    let config = manifest.config.media_type().to_string();
    let json = |layer: &Descriptor| layer.media_type().to_string().ends_with("json");
    let only_json = !manifest.layers.is_empty() && manifest.layers.iter().all(json);
    IMAGE_CONFIGS.contains(&config.as_str()) && !only_json
}
