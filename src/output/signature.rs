//! Signatures of SIF files: who signed what is in them, and adding one.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use super::origin::Origin;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Monitor, Output, Phase, Region, copy_between};
use crate::model::Digest;
use crate::sif::{Container, DataType, Descriptor, Extra, Hash, Link, NewObject, Statement, append, groups};
use crate::trust::{Envelope, PrivateKey, PublicKey, SignatureHash};

/// What a signature of a SIF says it signs.
const PAYLOAD_TYPE: &str = "application/vnd.sylabs.sif-metadata+json";
/// Most bytes of a signature object that are read: one object takes 200 bytes, and there are at most 4096.
pub(crate) const SIGNATURE_BYTES_MAX: u64 = 4 << 20;
const PGP_START: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureForm {
    /// With a key in PEM, in a DSSE envelope.
    Dsse,
    /// With a PGP key. Such a signature is never checked here.
    Pgp,
    /// In a way that is not known.
    Unknown,
}

/// One signature in a SIF, as it presents itself. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Signer {
    /// The number of its object.
    pub object: u32,
    /// What it says it is over.
    pub link: Link,
    /// How it is written.
    pub form: SignatureForm,
    /// What it says of its keys: IDs as `ssh-keygen -l` shows them, or a PGP fingerprint in hexadecimal digits.
    pub key_ids: Vec<String>,
}

/// A signature that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The number of its object.
    pub object: u32,
    /// The group it is over.
    pub group: u32,
    /// The key that made it.
    pub key: PublicKey,
}

/// All signatures that the SIF at `path` carries, unverified.
///
/// # Errors
/// As [`Container::open`].
pub fn signers(path: &Path) -> Result<Vec<Signer>> {
    let container = open(path)?;
    container.descriptors().filter(|it| is_signature(it)).map(|it| signer(&container, it)).collect()
}

fn signer(container: &Container, descriptor: &Descriptor) -> Result<Signer> {
    let bytes = signature_bytes(container, descriptor)?;
    let (form, key_ids) = match Envelope::parse(&bytes) {
        Ok(envelope) if envelope.payload_type() == PAYLOAD_TYPE => {
            (SignatureForm::Dsse, envelope.key_ids().map(str::to_string).collect())
        }
        _ if bytes.starts_with(PGP_START) => (SignatureForm::Pgp, fingerprint(descriptor).into_iter().collect()),
        _ => (SignatureForm::Unknown, Vec::new()),
    };
    Ok(Signer { object: descriptor.id, link: descriptor.link(), form, key_ids })
}

/// Whether an object is a signature that names `key`, and no other, as the one that made it. It is not verified.
pub(super) fn says_it_is_by(container: &Container, descriptor: &Descriptor, key: &PublicKey) -> Result<bool> {
    Ok(is_signature(descriptor) && signer(container, descriptor)?.key_ids == [key.id()])
}

fn fingerprint(descriptor: &Descriptor) -> Option<String> {
    match descriptor.extra() {
        Extra::Signature { entity, .. } if !entity.is_empty() => {
            Some(entity.iter().map(|byte| format!("{byte:02X}")).collect())
        }
        _ => None,
    }
}

/// Checks that all of the SIF at `path` is signed by some of `keys`: each object by at least one of them. What others
/// signed counts for nothing.
///
/// # Errors
/// [`ErrorKind::Mismatch`] when there is no signature of these keys, when one of theirs is not over what is there, or when an
/// object is not covered; [`ErrorKind::Unsupported`] when an object cannot be.
pub fn verify_signatures(path: &Path, keys: &[PublicKey], monitor: &Monitor) -> Result<Vec<Verified>> {
    let doing = || format!("verifying the signatures of {path:?}");
    let container = open(path)?;
    monitor.begin(Phase::Verify, container.file().len);
    verify_container(&container, keys, monitor).doing(doing)
}

pub(super) fn verify_container(container: &Container, keys: &[PublicKey], monitor: &Monitor) -> Result<Vec<Verified>> {
    let mut verified = Vec::new();
    for group in groups(container)? {
        let ours = signatures_of(container, group, keys)?;
        if ours.is_empty() {
            return Err(unsigned(container, group));
        }
        let found = Statement::of(container, group, |bytes| {
            monitor.advance(bytes);
            monitor.check()
        })?;
        let mut covered = Vec::new();
        for (object, key, signed) in ours {
            let ids = signed.expect(&found).doing(|| format!("signature {object} by {key}")).map_err(not_as_signed)?;
            covered.extend(ids);
            verified.push(Verified { object, group, key: key.clone() });
        }
        if let Some(id) = found.relative_ids().find(|id| !covered.contains(id)) {
            let message = format!("object {} of group {group} is not signed by any of the keys", id + 1);
            return Err(not_as_signed(Error::new(ErrorKind::Mismatch, message)));
        }
    }
    if verified.is_empty() {
        return Err(Error::new(ErrorKind::Mismatch, "there is nothing in it that could be signed"));
    }
    Ok(verified)
}

/// The signatures of a group that one of `keys` made, with what they sign.
fn signatures_of<'k>(
    container: &Container,
    group: u32,
    keys: &'k [PublicKey],
) -> Result<Vec<(u32, &'k PublicKey, Statement)>> {
    let mut found = Vec::new();
    let links = |it: &&Descriptor| is_signature(it) && it.link() == Link::Group(group);
    for descriptor in container.descriptors().filter(links) {
        let Extra::Signature { hash, .. } = descriptor.extra() else { continue };
        let Some(hash) = signature_hash(hash) else { continue };
        let Ok(envelope) = Envelope::parse(&signature_bytes(container, descriptor)?) else { continue };
        if envelope.payload_type() != PAYLOAD_TYPE {
            continue;
        }
        // Nothing of the payload is believed before a key vouches for it.
        if let Some(key) = envelope.signed_by(keys, hash) {
            found.push((descriptor.id, key, Statement::parse(envelope.unverified_payload())?));
        }
    }
    Ok(found)
}

fn signature_hash(hash: Hash) -> Option<SignatureHash> {
    match hash {
        Hash::Sha256 => Some(SignatureHash::Sha256),
        Hash::Sha384 => Some(SignatureHash::Sha384),
        Hash::Sha512 => Some(SignatureHash::Sha512),
        _ => None,
    }
}

/// Why nothing counts: nobody signed, or somebody else.
fn unsigned(container: &Container, group: u32) -> Error {
    let said: Vec<String> = container
        .descriptors()
        .filter(|it| is_signature(it) && it.link() == Link::Group(group))
        .filter_map(|it| signer(container, it).ok())
        .map(|it| it.to_string())
        .collect();
    let message = if said.is_empty() {
        format!("it is not signed: there is no signature of object group {group}")
    } else {
        format!("no valid signature by any of the keys: there is {}", said.join("; "))
    };
    Error::new(ErrorKind::Mismatch, message).hint("ask whoever made the file for the key that signed it")
}

fn not_as_signed(error: Error) -> Error {
    error.hint("the file was changed after it was signed: get it again from whoever signed it")
}

impl std::fmt::Display for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids = self.key_ids.iter().map(|id| id.escape_default().to_string()).collect::<Vec<_>>().join(", ");
        let ids = if ids.is_empty() { "an unnamed key".to_string() } else { ids };
        match self.form {
            SignatureForm::Dsse => write!(f, "signature {} of {ids}", self.object),
            SignatureForm::Pgp => write!(f, "PGP signature {} of {ids} (PGP is not checked here)", self.object),
            SignatureForm::Unknown => write!(f, "signature {} in a form that is not known", self.object),
        }
    }
}

/// What is to be signed with what, and where that goes.
#[derive(Debug, Clone, Default)]
pub struct Signing {
    /// The key that signs.
    pub key: Option<PrivateKey>,
    /// The output is the signature alone.
    pub detached: bool,
    /// A signature that was made elsewhere, of the same file.
    pub carried: Option<Box<CarriedSignature>>,
    /// Whether the carried signature is one that is hosted beside the image, and looked for there.
    pub from_referrer: bool,
}

/// A signature without its SIF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedSignature {
    envelope: Envelope,
    signed: Statement,
    bytes: Vec<u8>,
}

impl CarriedSignature {
    /// Reads a detached signature.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is none of a SIF.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let envelope = Envelope::parse(&bytes)?;
        if envelope.payload_type() != PAYLOAD_TYPE {
            let message = format!("the envelope holds {:?}, not the signature of a SIF", envelope.payload_type());
            return Err(Error::new(ErrorKind::InvalidImage, message));
        }
        let signed = Statement::parse(envelope.unverified_payload())?;
        Ok(CarriedSignature { envelope, signed, bytes })
    }

    /// Which of `keys` made it.
    pub fn signed_by<'k>(&self, keys: &'k [PublicKey]) -> Option<&'k PublicKey> {
        self.envelope.signed_by(keys, SignatureHash::Sha256)
    }

    /// The file that it is.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The SHA-256 of the file that it is.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// What it says of its keys. Nothing is verified.
    pub fn key_ids(&self) -> String {
        self.envelope.key_ids().collect::<Vec<_>>().join(", ")
    }

    /// Whether it says that it is of the same SIF as `other`. Nothing is verified.
    #[cfg(feature = "network")]
    pub(crate) fn is_of_same(&self, other: &CarriedSignature) -> bool {
        self.signed == other.signed
    }

    /// Refuses what it is not a signature of.
    fn expect(&self, found: &Statement) -> Result<()> {
        let covered = self.signed.expect(found).map_err(does_not_fit)?;
        if found.relative_ids().any(|id| !covered.contains(&id)) {
            return Err(does_not_fit(Error::new(ErrorKind::Mismatch, "it is over a part of the objects only")));
        }
        Ok(())
    }

    /// Those of `signatures` that are of the SIF that fills `file`. Where there are some, one must be.
    #[cfg(feature = "network")]
    pub(super) fn those_that_fit<'s>(
        signatures: &'s [CarriedSignature],
        file: &Arc<File>,
        monitor: &Monitor,
    ) -> Result<Vec<&'s CarriedSignature>> {
        if signatures.is_empty() {
            return Ok(Vec::new());
        }
        let container = Container::open(Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?)?;
        let group = one_group(&container)?;
        let statement = Statement::of(&container, group, |_| monitor.check())?;
        let (mut fitting, mut misfit) = (Vec::new(), None);
        for signature in signatures {
            match signature.expect(&statement) {
                Ok(()) => fitting.push(signature),
                Err(error) => misfit = misfit.or(Some(error)),
            }
        }
        match misfit {
            Some(error) if fitting.is_empty() => Err(error),
            _ => Ok(fitting),
        }
    }
}

/// The group that one signature is over.
fn one_group(container: &Container) -> Result<u32> {
    match groups(container)?[..] {
        [group] => Ok(group),
        [] => Err(Error::new(ErrorKind::Mismatch, "there is nothing in it that could be signed")),
        [_, second, ..] => {
            let message =
                format!("the SIF has more than one group of objects (also {second}): one signature cannot cover it");
            Err(Error::new(ErrorKind::Unsupported, message).hint("sign the file itself"))
        }
    }
}

impl Signing {
    /// The signatures that belong into `container`: of each group by the key, and the one that was carried here.
    fn make(&self, container: &Container, time_seconds: i64, monitor: &Monitor) -> Result<Vec<NewObject>> {
        let groups = match self.detached || self.carried.is_some() {
            true => vec![one_group(container)?],
            false => groups(container)?,
        };
        if groups.is_empty() {
            let message = "no object of it is in a group: there is nothing to sign";
            return Err(Error::new(ErrorKind::Unsupported, message).hint("give the SIF of a container"));
        }
        let mut objects = Vec::new();
        for group in groups {
            let statement = Statement::of(container, group, |_| monitor.check())?;
            if let Some(carried) = &self.carried {
                carried.expect(&statement)?;
                objects.push(NewObject::signature(group, time_seconds, carried.bytes.clone()));
            }
            if let Some(key) = &self.key {
                let envelope = Envelope::sign(PAYLOAD_TYPE, statement.to_json()?, key)?;
                objects.push(NewObject::signature(group, time_seconds, envelope.to_json()?));
            }
        }
        Ok(objects)
    }

    /// Signs the SIF that fills `file` and has no name yet, or replaces it by its signature. How long the file is then.
    pub(super) fn apply(&self, file: &Arc<File>, time_seconds: i64, monitor: &Monitor) -> Result<u64> {
        let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
        let container = Container::open(region)?;
        let objects = self.make(&container, time_seconds, monitor).doing(|| "signing")?;
        if !self.detached {
            return append(&container, file, &objects);
        }
        let bytes = objects.first().map_or(&[][..], |object| &object.bytes);
        file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)).or_kind(ErrorKind::Output)?;
        Ok(bytes.len() as u64)
    }

    /// What of it decides the bytes of the file.
    pub(super) fn choices(&self) -> Option<String> {
        let key = self.key.as_ref().map(|key| key.public().id());
        let carried = self.carried.as_ref().map(|carried| carried.digest().to_string());
        let words: Vec<String> = key.into_iter().chain(carried).collect();
        (!words.is_empty()).then(|| format!("signed {} {}", self.detached, words.join(" ")))
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.key.is_none() && self.carried.is_none() && !self.from_referrer
    }

    /// Checks that the SIF at `path` has what would be added to it.
    pub(super) fn is_done(&self, path: &Path, monitor: &Monitor) -> Result<()> {
        if let Some(key) = &self.key {
            verify_signatures(path, std::slice::from_ref(key.public()), monitor)?;
        }
        let Some(carried) = &self.carried else { return Ok(()) };
        let container = open(path)?;
        for descriptor in container.descriptors().filter(|it| is_signature(it)) {
            if signature_bytes(&container, descriptor)? == carried.bytes {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Mismatch, "the signature is not in it"))
    }
}

fn does_not_fit(error: Error) -> Error {
    error.doing("the signature is of another SIF").hint(
        "it fits the SIF that was made with the same program, image and options only: compare those of whoever signed it",
    )
}

/// Signs the SIF at `path` into `output`, or writes the detached signature there. `path` itself is replaced at once and
/// whole. How long the output is, in bytes.
///
/// `time_seconds` is when it was signed; `None` is when the SIF was made, so that the same key gives the same bytes.
///
/// # Errors
/// [`ErrorKind::Usage`] when `signing` has neither a key nor a signature; as [`Container::open`]; [`ErrorKind::Output`] when `output` exists and is not to be replaced, or cannot be written;
/// [`ErrorKind::Mismatch`] when a carried signature is of another file.
pub fn sign_sif(
    path: &Path,
    (output, replace): (&Path, bool),
    signing: &Signing,
    time_seconds: Option<i64>,
    monitor: &Monitor,
) -> Result<u64> {
    let doing = || format!("signing {path:?}");
    if signing.key.is_none() && signing.carried.is_none() {
        return Err(Error::new(ErrorKind::Usage, "there is neither a key nor a signature").hint("give one"))
            .doing(doing);
    }
    let container = open(path)?;
    crate::sif::verify(container.file())?
        .into_iter()
        .find(|finding| finding.severity == crate::sif::Severity::Error)
        .map_or(Ok(()), |finding| Err(Error::new(ErrorKind::InvalidImage, &finding)))
        .doing(doing)?;
    let found = container.file().file.metadata().or_kind(ErrorKind::SourceUnavailable).doing(doing)?;
    let mode = if signing.detached { 0o666 & !crate::io::umask() } else { found.permissions().mode() & 0o7777 };
    let time_seconds = time_seconds.unwrap_or(container.header().created_seconds);
    monitor.begin(Phase::Write, container.file().len);
    if signing.detached {
        let objects = signing.make(&container, time_seconds, monitor).doing(doing)?;
        let bytes = objects.first().map_or(&[][..], |object| &object.bytes);
        let written = Output::create(output, replace, mode)?;
        written.file().write_all_at(bytes, 0).or_kind(ErrorKind::Output)?;
        written.publish()?;
        return Ok(bytes.len() as u64);
    }
    let written = Output::create(output, replace, mode)?;
    let from = container.file();
    copy_between((&from.file, from.offset), (written.file(), 0), from.len, |bytes| monitor.pass(bytes))
        .doing(|| format!("writing {output:?}"))?;
    if let Some(origin) = Origin::read(path) {
        origin.record(written.file());
    }
    // Root signs for others.
    let (owner, group) = (rustix::fs::Uid::from_raw(found.uid()), rustix::fs::Gid::from_raw(found.gid()));
    let _ = rustix::fs::fchown(&**written.file(), Some(owner), Some(group));
    // What is signed is the copy, whatever happens to the file meanwhile.
    let length = signing.apply(written.file(), time_seconds, monitor).doing(doing)?;
    written.publish()?;
    Ok(length)
}

fn open(path: &Path) -> Result<Container> {
    let doing = || format!("opening {path:?}");
    let region = Region::open(path).doing(doing)?;
    Container::open(region).doing(doing)
}

fn is_signature(descriptor: &Descriptor) -> bool {
    descriptor.data_type == DataType::Signature
}

fn signature_bytes(container: &Container, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let region = container.data(descriptor)?;
    if region.len > SIGNATURE_BYTES_MAX {
        let message = format!("signature {} has {} bytes, more than 4 MiB", descriptor.id, region.len);
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let mut bytes = vec![0; region.len as usize];
    region.read_at(&mut bytes, 0).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(bytes)
}
