//! SIFs beside the hosted image that they were made from: one image, hosted once, for Docker and for Singularity.
//!
//! The idea to hold: each SIF is one manifest, which is both a referrer of its image's manifest and what `apptainer pull
//! oras://…` takes. Annotations say what it was made from, in which format and with which options: so that whoever
//! attaches again finds it, and whoever pulls knows whether it is what a conversion would give. An index of all SIFs has a
//! tag of its own, for one tag cannot serve both Docker's and Singularity's clients.

mod find;
mod pull;
mod referrers;

use serde_json::{Value, json};

use find::find_in;

use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt as _};
use crate::image::Image;
use crate::io::{Monitor, Phase};
use crate::model::{Digest, Note, OUTPUT_FORMAT, Platform, Reference};
use crate::output::{
    Attachment, CarriedSignature, Destination, FORMAT, HostedSignature, Hosting, IMAGE, OPTIONS, Outcome, Sif, Target,
    Transport, WriteOptions, signatures_in,
};
use crate::registry::{Repository, SIF_LAYER, Settings};
use crate::report::{AttachedSif, AttachedSignature};
use crate::sif::Architecture;
use crate::source::{Candidate, OpenOptions, Selection, Source, Spec, open};

pub use find::{Found, find_attached};
pub use pull::{Pulled, pull_attached};
#[cfg(feature = "program")]
pub(crate) use pull::{download_record, record_download};
pub use referrers::{Referrer, ReferrerList, ReferringSif};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// How often the index is written before others are believed to write it for ever.
const WRITES_MAX: u32 = 8;
/// How many SIFs of one image are looked at.
const LOOKED_AT_MAX: usize = 64;

/// SIFs to be attached to an image, with every choice made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attach {
    /// The image.
    pub reference: Reference,
    /// For which platforms; for every Linux platform of the image where none is named.
    pub platforms: Vec<Platform>,
    /// The tag of the index that lists the SIFs; no index where there is none.
    pub index_tag: Option<String>,
    /// Whether that tag is taken from whatever else has it.
    pub replace: bool,
    /// Signatures of the SIFs that were made elsewhere: each is attached to the image whose SIF it is of. Where there are
    /// some, each SIF must have one.
    pub signatures: Vec<CarriedSignature>,
    /// Whether only these are attached, and neither SIFs nor an index of them.
    pub signatures_only: bool,
    /// How the SIFs are made.
    pub sif: Sif,
    /// How the image is opened.
    pub open: OpenOptions,
    /// How the SIFs are written, and how the registry is reached.
    pub options: WriteOptions,
}

/// What is attached now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attached {
    /// One SIF for each platform that was asked for; none where only signatures are attached.
    pub sifs: Vec<AttachedSif>,
    /// The signatures that were asked for.
    pub signatures: Vec<AttachedSignature>,
    /// The index, where there is one.
    pub index: Option<AttachedIndex>,
}

/// The index of all SIFs of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedIndex {
    /// Its digest.
    pub digest: Digest,
    /// Whether it was written now.
    pub is_new: bool,
    /// How many SIFs it lists.
    pub sifs: usize,
}

/// Takes what is found out while SIFs are attached.
pub trait AttachObserver {
    /// A SIF is attached now.
    fn attached(&self, _sif: &AttachedSif) {}

    /// A signature is attached now.
    fn signature_attached(&self, _signature: &AttachedSignature) {}

    /// Something that the user should know.
    fn note(&self, _note: Note) {}
}

/// Sees nothing.
impl AttachObserver for () {}

impl Attach {
    /// With the usual options, the index under `TAG.sif`.
    pub fn new(reference: Reference) -> Self {
        Attach {
            index_tag: reference.tag.as_ref().map(|tag| format!("{tag}.sif")),
            reference,
            platforms: Vec::new(),
            replace: false,
            signatures: Vec::new(),
            signatures_only: false,
            sif: Sif::default(),
            open: OpenOptions::default(),
            options: WriteOptions::default(),
        }
    }

    /// The place of the index, or where there is none, of the SIFs.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when its tag is not one.
    pub fn place_of_index(&self) -> Result<Hosting> {
        let tag = self.index_tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let Reference { host, repository, .. } = &self.reference;
        let reference = format!("{host}/{repository}{tag}").parse().doing(|| "the tag of the index")?;
        Ok(Hosting::new(Transport::Oras, reference))
    }

    /// Attaches. What is attached already is neither converted nor sent again.
    ///
    /// # Errors
    /// See [`ErrorKind`]. SIFs that were attached until then stay.
    pub fn run(&self, observer: &dyn AttachObserver, monitor: &Monitor) -> Result<Attached> {
        let options = self.sif.effective_options(&self.options)?;
        // What is attached belongs to what the registry itself has, whatever a mirror says.
        let settings = self.options.registry.without_mirrors(&self.reference)?;
        let repository = Repository::open(&self.reference, &[], &settings, monitor)?;
        let index_tag = self.index_tag.as_ref().filter(|_| !self.signatures_only);
        if let Some(tag) = index_tag {
            self.expect_other_tag(tag)?;
            self.expect_index(&repository, tag, options.as_deref())?;
        }
        let open_options = OpenOptions { registry: settings.clone(), ..self.open.clone() };
        let spec = Spec::Registry(self.reference.to_string());
        let source = open(&spec, &open_options, monitor)?;
        let selections = self.selections(&source, observer)?;
        let run = Run {
            attach: self,
            repository: &repository,
            options: options.as_deref(),
            settings: &settings,
            observer,
            monitor,
        };
        let (mut sifs, mut signatures) = (Vec::new(), Vec::new());
        let mut pending = self.not_attached(&repository, &selections, &open_options, monitor)?;
        for selection in selections {
            let mut image = source.select(&selection)?;
            if self.sif.with_sbom {
                image.attestations = source.attestations(&image)?;
            }
            let platform = known(&image.platform());
            let (sif, beside) = run.attach_one(&image, &pending).doing(|| format!("attaching a SIF for {platform}"))?;
            sif.iter().for_each(|sif| observer.attached(sif));
            beside.iter().for_each(|signature| observer.signature_attached(signature));
            pending.retain(|it| beside.iter().all(|attached| attached.sha256 != it.digest().hex()));
            sifs.extend(sif);
            signatures.extend(beside);
        }
        if let Some(lost) = pending.first() {
            let message = format!("signature {} is of none of these SIFs", lost.digest());
            return Err(Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::SignedPlatform));
        }
        monitor.begin(Phase::Finish, 0);
        let index = match index_tag {
            Some(tag) => Some(self.update_index(&repository, tag, &source, options.as_deref(), &sifs)?),
            None => None,
        };
        repository.warnings().into_iter().for_each(|text| observer.note(Note::new("registry", text, 1)));
        Ok(Attached { sifs, signatures, index })
    }

    /// The signatures that are attached to none of the images yet. Where there are too few for all images, nothing is done.
    fn not_attached(
        &self,
        repository: &Repository,
        selections: &[Selection],
        open_options: &OpenOptions,
        monitor: &Monitor,
    ) -> Result<Vec<CarriedSignature>> {
        let mut pending = self.signatures.clone();
        if pending.is_empty() {
            return Ok(pending);
        }
        let documents = OpenOptions { want_layers: false, ..open_options.clone() };
        let source = open(&Spec::Registry(self.reference.to_string()), &documents, monitor)?;
        let (mut unsigned, mut hosted) = (Vec::new(), Vec::new());
        for selection in selections {
            let image = source.select(selection)?;
            let Some(subject) = image.manifest_digest else { continue };
            let found = signatures_in(repository, subject)?;
            if found.iter().all(|hosted| self.signatures.iter().all(|it| !it.is_of_same(&hosted.signature))) {
                unsigned.push(known(&image.platform()));
            }
            pending.retain(|it| found.iter().all(|hosted| hosted.signature != *it));
            hosted.extend(found);
        }
        // A signature is of one SIF, and one SIF may have several: what is of a SIF that has one is of no other.
        let mut of: Vec<&CarriedSignature> = Vec::new();
        for signature in &pending {
            let is_known =
                hosted.iter().map(|it| &it.signature).chain(of.iter().copied()).any(|it| it.is_of_same(signature));
            of.extend((!is_known).then_some(signature));
        }
        if unsigned.len() > of.len() {
            let given = match (pending.len(), of.len()) {
                (0, _) => "none is".to_string(),
                (1, 1) => "1 is".to_string(),
                (count, sifs) if sifs == count => format!("{count} are"),
                (1, _) => "1 of another SIF is".to_string(),
                (count, 0) => format!("{count} of other SIFs are"),
                (count, 1) => format!("{count} of 1 SIF are"),
                (count, sifs) => format!("{count} of {sifs} SIFs are"),
            };
            let message = format!("each SIF must have a signature: {given} given for {}", unsigned.join(", "));
            return Err(Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::SignedPlatform));
        }
        Ok(pending)
    }

    /// Which images are meant.
    fn selections(&self, source: &Source, observer: &dyn AttachObserver) -> Result<Vec<Selection>> {
        if !self.platforms.is_empty() {
            let of = |platform: &Platform| Selection { image: None, platform: Some(platform.clone()) };
            let mut named: Vec<&Platform> = Vec::new();
            for platform in &self.platforms {
                named.extend((!named.contains(&platform)).then_some(platform));
            }
            return Ok(named.into_iter().map(of).collect());
        }
        let mut left_out = Note::new("platforms-left-out", "SIF files know no such architecture", 0);
        let mut selections = Vec::new();
        for (position, platform) in linux_images(source) {
            match platform.filter(|it| Architecture::from_goarch(&it.architecture).is_none()) {
                Some(unknown) => {
                    left_out.count += 1;
                    left_out.example(unknown);
                }
                None => selections.push(Selection { image: Some(format!("@{position}")), platform: None }),
            }
        }
        if left_out.count > 0 {
            observer.note(left_out);
        }
        // What is there instead is told by whoever selects.
        Ok(if selections.is_empty() { vec![Selection::default()] } else { selections })
    }

    /// What the file is called that others download: it must not depend on the tag, or the same image under two tags would
    /// have two manifests.
    fn title(&self, platform: &Platform) -> String {
        let name = self.reference.repository.rsplit('/').next().unwrap_or_default();
        // An image need not say what it runs on.
        match platform.architecture.is_empty() {
            true => format!("{name}.sif"),
            false => format!("{name}-{}.sif", platform.to_string().replace('/', "-")),
        }
    }

    /// Refuses to take the image its own tag, whatever else is asked for: those who pull it want the image.
    fn expect_other_tag(&self, tag: &str) -> Result<()> {
        if self.reference.tag.as_deref().unwrap_or("latest") != tag {
            return Ok(());
        }
        let message = format!("tag {tag} of {} is the image's own", self.reference.repository);
        Err(Error::new(ErrorKind::Usage, message).hint(format!("name another one for its SIFs, such as {tag}.sif")))
    }

    /// Refuses to take the tag from something that is not an index of SIFs, and from SIFs that were made with other options,
    /// which those who pull the tag expect.
    fn expect_index(&self, repository: &Repository, tag: &str, options: Option<&str>) -> Result<()> {
        let Some(bytes) = repository.manifest(tag)?.filter(|_| !self.replace) else { return Ok(()) };
        let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let entries = document["manifests"].as_array();
        let ours = entries.filter(|it| it.iter().all(|entry| entry["artifactType"] == SIF_LAYER));
        let refuse = |what: &str| {
            let message = format!("tag {tag} of {} exists and {what}", self.reference.repository);
            Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::OtherIndexTag))
        };
        let Some(ours) = ours else { return refuse("is not an index of SIFs") };
        for entry in ours.iter().take(LOOKED_AT_MAX) {
            let Some(digest) = entry["digest"].as_str().filter(|text| text.parse::<Digest>().is_ok()) else { continue };
            // An index may list what was deleted.
            let Some(bytes) = repository.manifest(digest)? else { continue };
            let document: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let annotations = &document["annotations"];
            if annotations[FORMAT].is_string() && annotations[OPTIONS].as_str() != options {
                return refuse("lists a SIF that was made with other options");
            }
        }
        Ok(())
    }

    /// Writes the index of all that is attached, unless it is there. Others may attach for other platforms at the same
    /// time: what they have attached meanwhile is seen after each write, and added.
    fn update_index(
        &self,
        repository: &Repository,
        tag: &str,
        source: &Source,
        options: Option<&str>,
        attached: &[AttachedSif],
    ) -> Result<AttachedIndex> {
        let attached = |subject: Digest| {
            let sif = attached.iter().find(|sif| sif.image_manifest_digest == subject.to_string());
            sif.and_then(|sif| sif.manifest_digest.parse().ok())
        };
        let images = source.images();
        for writes in 0..WRITES_MAX {
            let mut entries = Vec::new();
            for (position, platform) in linux_images(source) {
                let Candidate { manifest_digest: Some(subject), .. } = images[position] else { continue };
                if let Some(found) = find_in(repository, subject, options, attached(subject))? {
                    entries.push(entry(&found, platform.as_ref()));
                }
            }
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": &entries });
            let bytes = serde_json::to_vec(&index).map_err(|error| Error::new(ErrorKind::Bug, error))?;
            if repository.manifest(tag)?.as_deref() == Some(&bytes) {
                return Ok(AttachedIndex { digest: Digest::of(&bytes), is_new: writes > 0, sifs: entries.len() });
            }
            repository.push_manifest(tag, OCI_INDEX, &bytes)?;
        }
        let message = format!("others keep writing the index {tag}");
        Err(Error::new(ErrorKind::Network, message).hint("try again when fewer write to it"))
    }
}

/// What all steps of one run need.
#[derive(Clone, Copy)]
struct Run<'a> {
    attach: &'a Attach,
    repository: &'a Repository,
    options: Option<&'a str>,
    settings: &'a Settings,
    observer: &'a dyn AttachObserver,
    monitor: &'a Monitor,
}

impl Run<'_> {
    /// Attaches what belongs to one image: its SIF, and those of the `pending` signatures that are of it.
    fn attach_one(
        &self,
        image: &Image,
        pending: &[CarriedSignature],
    ) -> Result<(Option<AttachedSif>, Vec<AttachedSignature>)> {
        let Run { attach, repository, options, settings, observer, monitor } = *self;
        let no_manifest = || Error::new(ErrorKind::Bug, "an image on a registry has no manifest");
        let subject = image.manifest_digest.ok_or_else(no_manifest)?;
        let record = |manifest: Digest, sha256: Digest, size: u64, is_new: bool| AttachedSif {
            platform: known(&image.platform()),
            image_id: image.id().to_string(),
            image_manifest_digest: subject.to_string(),
            manifest_digest: manifest.to_string(),
            sha256: sha256.hex(),
            size,
            is_new,
        };
        let beside = |before: &[HostedSignature]| -> Result<Vec<AttachedSignature>> {
            let records = self.hosted(subject)?.into_iter().map(|hosted| AttachedSignature {
                platform: known(&image.platform()),
                image_manifest_digest: subject.to_string(),
                manifest_digest: hosted.manifest.to_string(),
                sha256: hosted.signature.digest().hex(),
                key_ids: hosted.signature.key_ids(),
                is_new: !before.contains(&hosted),
            });
            Ok(records.collect())
        };
        let hosted = self.hosted(subject)?;
        let found = if attach.signatures_only { None } else { find_in(repository, subject, options, None)? };
        let found = found.map(|found| record(found.manifest, found.sha256, found.size, false));
        if pending.is_empty() && hosted.is_empty() && !attach.signatures.is_empty() {
            let message = "none of the signatures is of this SIF: each is attached for another platform";
            return Err(Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::SignedPlatform));
        }
        if pending.is_empty() && (found.is_some() || attach.signatures_only) {
            return Ok((found, beside(&hosted)?));
        }
        let bytes = image.manifest.as_deref().ok_or_else(no_manifest)?;
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let mut annotations =
            vec![(IMAGE.to_string(), image.id().to_string()), (FORMAT.to_string(), OUTPUT_FORMAT.to_string())];
        annotations.extend(options.map(|options| (OPTIONS.to_string(), options.to_string())));
        let known_ones = hosted.iter().map(|hosted| hosted.signature.clone());
        let attachment = Attachment {
            media_type: document["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_string(),
            digest: subject,
            size: bytes.len() as u64,
            title: attach.title(&image.platform()),
            annotations,
            with_sif: !attach.signatures_only,
            signatures: pending.iter().cloned().chain(known_ones).collect(),
        };
        let reference = Reference { tag: None, digest: None, ..attach.reference.clone() };
        let hosting = Hosting { attachment: Some(attachment), ..Hosting::new(Transport::Oras, reference) };
        let write_options = WriteOptions { registry: settings.clone(), if_exists: None, ..attach.options.clone() };
        let prepared = Target::from(attach.sif.clone()).prepare(&Destination::from(hosting), &write_options)?;
        let mut outcome: Outcome = prepared.write(image, monitor)?;
        image.blobs.cache_refusal().into_iter().for_each(|refusal| outcome.note_cache(refusal));
        let of_image = image.warnings.iter().map(|text| Note::new("image", text, 1));
        of_image.chain(outcome.notes).for_each(|note| observer.note(note));
        let pushed = outcome.manifest_digest.zip(outcome.sha256);
        let other = |manifest: Digest| found.as_ref().filter(|found| found.manifest_digest != manifest.to_string());
        if let Some(other) = pushed.and_then(|(manifest, _)| other(manifest)) {
            let mut note = Note::new(
                "other-sif-attached",
                "SIFs are attached that say they are this one, and are not: delete them",
                1,
            );
            note.example(&other.manifest_digest);
            observer.note(note);
        }
        let is_new = |manifest| found.is_none() || other(manifest).is_some();
        let pushed = pushed.map(|(manifest, sha256)| record(manifest, sha256, outcome.size, is_new(manifest)));
        if pushed.is_none() && !attach.signatures_only {
            return Err(Error::new(ErrorKind::Bug, "a SIF that was pushed has no digest"));
        }
        Ok((pushed, beside(&hosted)?))
    }

    /// Those of the signatures that are attached to an image.
    fn hosted(&self, subject: Digest) -> Result<Vec<HostedSignature>> {
        if self.attach.signatures.is_empty() {
            return Ok(Vec::new());
        }
        let mut hosted = signatures_in(self.repository, subject)?;
        hosted.retain(|hosted| self.attach.signatures.contains(&hosted.signature));
        Ok(hosted)
    }
}

/// A platform for people: an image need not say what it runs on.
fn known(platform: &Platform) -> String {
    if platform.architecture.is_empty() { "unknown".to_string() } else { platform.to_string() }
}

/// The images for Linux, each platform once: the first counts.
fn linux_images(source: &Source) -> Vec<(usize, Option<Platform>)> {
    let mut found: Vec<(usize, Option<Platform>)> = Vec::new();
    for (position, Candidate { platform, .. }) in source.images().into_iter().enumerate() {
        let is_linux = platform.as_ref().is_none_or(|platform| platform.os == "linux");
        if is_linux && found.iter().all(|(_, other)| *other != platform) {
            found.push((position, platform));
        }
    }
    found
}

fn entry(found: &Found, platform: Option<&Platform>) -> Value {
    let mut entry = json!({
        "mediaType": OCI_MANIFEST,
        "digest": found.manifest.to_string(),
        "size": found.manifest_size,
        "artifactType": SIF_LAYER,
    });
    if let Some(Platform { os, architecture, variant }) = platform {
        entry["platform"] = json!({ "architecture": architecture, "os": os });
        if let Some(variant) = variant {
            entry["platform"]["variant"] = json!(variant);
        }
    }
    entry
}
