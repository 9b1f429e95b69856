//! Whether a finished output is whole.

use std::num::NonZeroUsize;
use std::path::Path;

use super::decrypt::unlock;
use super::signature::{Signing, says_it_is_by};
use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt};
use crate::gocryptfs::Secret;
use crate::image::Image;
use crate::io::{CHUNK_BYTES, Monitor, Phase, Region, decode, hash_region};
use crate::model::{Digest, Note};
use crate::sif::{
    Container, DataType, Descriptor, Extra, FileSystem, Finding, Severity, additions, check_seal, read_seal,
};
use crate::squashfs::{self, Input as _};
use crate::volume::UnlockedRoot;

/// What was found in a file without fault.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Whole {
    /// Names in its file system, the root included.
    pub names: u64,
    /// Blocks of data that were decoded.
    pub blocks: u64,
    /// The config digest of the image it was made from, where it says so. An encrypted file has a hash of that instead, which
    /// begins with `hidden:`.
    pub image: Option<String>,
    /// A digest of the choices it was made with, where they were not the usual ones: see [`super::Root::choices`].
    pub choices: Option<String>,
    /// What its programs run on, in Go's spelling, where it says so.
    pub architecture: Option<&'static str>,
    /// The number of the output format it was made in, where it says so: see [`crate::model::OUTPUT_FORMAT`].
    pub format: Option<u32>,
    /// What its root file system is, where it has one. Inside of others than squashfs, encrypted with gocryptfs or not, nothing
    /// was looked at.
    pub file_system: Option<FileSystem>,
    /// How its blocks are compressed, as squashfs numbers it, and how many bytes they have; of what is encrypted only with the key.
    pub packing: Option<(u16, u32)>,
    /// How many bills of materials it carries.
    pub sboms: u64,
    /// What is odd about it but harms nothing.
    pub notes: Vec<Note>,
}

/// Whether a file begins as a SIF does.
pub fn is_sif(path: &Path) -> bool {
    Region::open(path).is_ok_and(|region| begins_as_sif(&region))
}

/// The same of a file that is open.
pub(super) fn begins_as_sif(region: &Region) -> bool {
    let mut start = [0; 10];
    region.read_at(&mut start, 32).is_ok() && start == *b"SIF_MAGIC\0"
}

/// The SHA-256 of a file.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when it cannot be read.
pub(crate) fn hash_file(path: &Path, monitor: &Monitor) -> Result<Digest> {
    let doing = || format!("hashing {path:?}");
    let region = Region::open(path).doing(doing)?;
    hash_open(&region, monitor).doing(doing)
}

/// The same of a file that is open.
pub(super) fn hash_open(region: &Region, monitor: &Monitor) -> Result<Digest> {
    monitor.begin(Phase::Verify, region.len);
    let failed = |error| Error::io(ErrorKind::SourceUnavailable, error);
    let hashed = hash_region(region, failed, |count| {
        monitor.advance(count);
        monitor.check()
    });
    hashed.map(|(digest, _)| digest)
}

/// Checks a SIF, ours or anyone's: header, descriptors, bounds, every table and every block of the squashfs, and the
/// checksums that files of ours carry. With `secret`, what is encrypted, too: every block, as whoever has the key made it.
///
/// # Errors
/// [`ErrorKind::Mismatch`] with the place where it breaks, and for a wrong key; [`ErrorKind::Usage`] for a key where
/// nothing is encrypted.
pub fn verify_sif(path: &Path, secret: Option<&Secret>, threads: NonZeroUsize, monitor: &Monitor) -> Result<Whole> {
    let doing = || format!("verifying {path:?}");
    let region = Region::open(path).doing(doing)?;
    verify_open_sif(&region, secret, threads, monitor).doing(doing)
}

/// The same of a file that is open.
pub(super) fn verify_open_sif(
    region: &Region,
    secret: Option<&Secret>,
    threads: NonZeroUsize,
    monitor: &Monitor,
) -> Result<Whole> {
    monitor.begin(Phase::Verify, region.len);
    verify_region(region, secret, threads, monitor).map_err(broken)
}

/// Damage in a file that should be whole is a mismatch, whatever reader met it.
fn broken(error: Error) -> Error {
    if error.kind() != ErrorKind::InvalidImage {
        return error;
    }
    Error::new(ErrorKind::Mismatch, error).with_remedy(Remedy::ConvertAgain)
}

fn verify_region(region: &Region, secret: Option<&Secret>, threads: NonZeroUsize, monitor: &Monitor) -> Result<Whole> {
    let mut notes = Vec::new();
    sort_out(crate::sif::verify(region)?, &mut notes)?;
    let container = Container::open(region.clone())?;
    let root = root_file_system(&container)?;
    let file_system = root.map(|(_, file_system)| file_system);
    if secret.is_none() {
        notes.extend(not_looked_into(file_system));
    }
    let (mut found, mut packing) = (squashfs::Verified::default(), None);
    if let Some((primary, FileSystem::Squashfs | FileSystem::GocryptfsSquashfs)) = root {
        let image = squashfs::Image::open(container.data(primary)?);
        let verified = image.and_then(|image| Ok((image.verify(threads, monitor)?, image.superblock().packing())));
        let (outer, packed) = verified.doing(|| format!("partition at byte {}", primary.offset))?;
        found = outer;
        packing = Some(packed).filter(|_| file_system == Some(FileSystem::Squashfs));
    }
    match check_seal(&container, monitor)? {
        Some(findings) => sort_out(findings, &mut notes)?,
        None if found.unprotected_blocks > 0 => notes.push(Note::new(
            "no-checksums",
            "blocks that are stored uncompressed were not checked: the file carries no checksums of them",
            found.unprotected_blocks,
        )),
        None => {}
    }
    notes.extend(added(&container));
    notes.extend(signatures(&container));
    let (mut image, choices, format) = match read_seal(&container)? {
        Some((seal, _)) => (Some(seal.image), seal.options, Some(seal.format)),
        None => (None, None, None),
    };
    if let Some(secret) = secret {
        let (root, hidden) = unlock(&container, secret)?;
        authenticate(&root, monitor)
            .and_then(|()| {
                let image = squashfs::Image::open(root)?;
                packing = Some(image.superblock().packing());
                image.verify(threads, monitor)
            })
            .map(|inner| found = inner)
            .doing(|| "the encrypted root")?;
        image = hidden.map(|hidden| hidden.image).or(image);
    }
    let architecture = container.header().architecture.goarch();
    let sboms = container.descriptors().filter(|it| it.data_type == DataType::Sbom).count() as u64;
    Ok(Whole {
        names: found.names,
        blocks: found.checked_blocks + found.unprotected_blocks,
        image,
        choices,
        architecture,
        format,
        file_system,
        packing,
        sboms,
        notes,
    })
}

/// The partition that is run, and what is in it.
fn root_file_system(container: &Container) -> Result<Option<(&Descriptor, FileSystem)>> {
    let Some(primary) = container.primary() else { return Ok(None) };
    match primary.extra() {
        Extra::Partition { file_system, .. } => Ok(Some((primary, file_system))),
        _ => Err(Error::new(ErrorKind::Bug, "a primary partition is not a partition")),
    }
}

/// What is to be said of a root that was not looked into: it needs the key, or is none of ours to read.
fn not_looked_into(file_system: Option<FileSystem>) -> Option<Note> {
    let (code, message) = match file_system {
        Some(FileSystem::Squashfs) => return None,
        Some(FileSystem::GocryptfsSquashfs) => {
            let message = "the root file system is encrypted: without the key, what is inside was not looked at";
            return Some(Note::new("encrypted", message, 1));
        }
        Some(FileSystem::EncryptedSquashfs) => {
            ("encrypted", "the root file system is encrypted with LUKS2: what is inside was not looked at".to_string())
        }
        Some(other) => (
            "not-looked-into",
            format!("the root file system is of the kind {other}: what is inside was not looked at"),
        ),
        None => ("not-looked-into", "the file has no root file system: only its objects were looked at".to_string()),
    };
    Some(Note::new(code, message, 1))
}

/// Reads every block, which shows whether whoever has the key made it.
fn authenticate(root: &UnlockedRoot, monitor: &Monitor) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut position = 0;
    while position < root.length() {
        monitor.check()?;
        let length = (root.length() - position).min(CHUNK_BYTES as u64);
        root.read_at(&mut chunk[..length as usize], position).map_err(crate::io::read_error)?;
        position += length;
    }
    Ok(())
}

/// The ID of the image that a SIF of ours says it was made from. Nothing is verified.
pub(super) fn sealed_image(path: &Path) -> Option<String> {
    read_seal(&Container::open(Region::open(path).ok()?).ok()?).ok()?.map(|(seal, _)| seal.image)
}

fn signatures(container: &Container) -> Option<Note> {
    let signatures: Vec<_> =
        container.descriptors().filter(|descriptor| descriptor.data_type == DataType::Signature).collect();
    let message = "signatures were not verified: that needs the key of who signed";
    let mut note = Note::new("signatures-not-verified", message, signatures.len() as u64);
    signatures.iter().for_each(|it| note.example(format!("{} {it}", it.id)));
    (!signatures.is_empty()).then_some(note)
}

fn added(container: &Container) -> Option<Note> {
    // Signatures have a note of their own.
    let mut added = additions(container);
    added.retain(|it| it.data_type != DataType::Signature);
    let message = "objects were added after the file was written: they are left alone and not verified";
    let mut note = Note::new("objects-added", message, added.len() as u64);
    added.iter().for_each(|it| note.example(format!("{} {it}", it.id)));
    (!added.is_empty()).then_some(note)
}

/// What others added to a SIF after it was written (overlays, signatures, and the like): what replacing it would destroy.
/// Each is shown with its number. A signature by the key that signs what takes the file's place is none. Empty for
/// a file that is not a SIF, or none that can be read.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when the file cannot be read.
pub(crate) fn added_objects(path: &Path, signing: Option<&Signing>) -> Result<Vec<String>> {
    let doing = || format!("looking into {path:?}");
    let region = Region::open(path).doing(doing)?;
    let Ok(container) = Container::open(region) else { return Ok(Vec::new()) };
    let key = signing.and_then(|signing| signing.key.as_ref());
    let mut added = Vec::new();
    for it in additions(&container) {
        let is_ours = match key.map(|key| says_it_is_by(&container, it, key.public())) {
            // What cannot be read is lost already.
            Some(Err(error)) if error.kind() == ErrorKind::InvalidImage => true,
            is_ours => is_ours.transpose()? == Some(true),
        };
        if !is_ours {
            added.push(format!("{} {it}", it.id));
        }
    }
    Ok(added)
}

/// The first error ends it; the rest is worth a word.
fn sort_out(findings: Vec<Finding>, notes: &mut Vec<Note>) -> Result<()> {
    for finding in findings {
        let message = format!("byte {}: {}", finding.offset, finding.message);
        match finding.severity {
            Severity::Error => return Err(Error::new(ErrorKind::InvalidImage, message)),
            Severity::Notice => notes.push(Note::new("unusual", message, 1)),
            Severity::Padding => notes.push(Note::new("padding", message, 1)),
        }
    }
    Ok(())
}

/// Reads every layer of an image and compares it with all digests that are known of it.
///
/// # Errors
/// [`ErrorKind::Mismatch`] naming the layer.
pub fn verify_layers(image: &Image, threads: NonZeroUsize, monitor: &Monitor) -> Result<Vec<Digest>> {
    let verify = |index: usize| -> Result<Digest> {
        let layer = &image.layers[index];
        let (stored, expected) = image.blobs.open_expecting(&layer.blob)?;
        let staged = threads.get() > 1;
        let ((), found) = decode(stored, expected, layer.algorithm(), monitor, staged, |_| Ok(()))?;
        crate::io::Expected { digest: layer.diff_id, size: None }.check(found.digest, found.bytes)?;
        Ok(found.digest)
    };
    let named = |index| verify(index).map_err(broken).doing(|| format!("verifying {}", image.layer_name(index)));
    (0..image.layers.len()).map(named).collect()
}
