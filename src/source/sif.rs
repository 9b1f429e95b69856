//! What a SIF file holds, and what of it can be converted.

use std::path::Path;

use super::filesystem::About;
use super::{Kind, filesystem};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result};
use crate::gocryptfs::Secret;
use crate::io::Region;
use crate::model::{Note, Timestamp};
use crate::sif::{
    Architecture, Container, DataType, Descriptor, Extra, FileSystem, HiddenObjects, PartitionCheck, PartitionKind,
    is_built,
};
use crate::volume::{Check, EncryptedRoot, UnlockedRoot};

/// The name of the object that holds the image's config.
const OCI_CONFIG: &[u8] = b"oci-config.json";
/// The most that is read of it, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// A squashfs that is run.
pub(super) enum Root {
    Plain(Region),
    Unlocked(Box<UnlockedRoot>),
}

/// The root file system that the SIF file in `file` runs, a squashfs, and what is said of it. An encrypted one is opened with
/// `secret`.
pub(super) fn primary(file: Region, secret: Option<&Secret>) -> Result<(Root, About)> {
    let container = Container::open(file)?;
    if container.is_oci() {
        let message = "this is an OCI-SIF of SingularityCE 4: it holds an OCI image in layers, not a root file system";
        return Err(Error::new(ErrorKind::Unsupported, message).hint(
            "push it with SingularityCE 4.1 or newer: singularity push --layer-format tar x.sif docker://HOST/NAME",
        ));
    }
    let Some(primary) = container.primary() else {
        let held: Vec<String> = container.descriptors().map(|it| format!("object {} ({it})", it.id)).collect();
        let held = if held.is_empty() { "nothing".to_string() } else { held.join(", ") };
        let message = format!("the SIF has no root file system to run; it holds {held}");
        return Err(Error::new(ErrorKind::Unsupported, message).hint("give the SIF of a container"));
    };
    let Extra::Partition { file_system, architecture, .. } = primary.extra() else {
        return Err(Error::new(ErrorKind::Bug, "a primary partition is not a partition"));
    };
    let (root, hidden) = match (file_system, secret) {
        (FileSystem::GocryptfsSquashfs, Some(secret)) => unlock(&container, primary, secret)?,
        (_, None) => {
            expect_squashfs(file_system)?;
            (Root::Plain(container.data(primary)?), None)
        }
        (_, Some(_)) => {
            let message = "the root file system of the SIF is not encrypted with gocryptfs";
            return Err(Error::new(ErrorKind::Usage, message).with_remedy(Remedy::NoKey));
        }
    };
    let created = container.header().created_seconds;
    // Each block of an encrypted one is authenticated.
    let check = if secret.is_none() { PartitionCheck::of(&container)? } else { None };
    let about = About {
        oci_config: match hidden {
            Some(hidden) => hidden.json.get("oci-config.json").map(|text| text.clone().into_bytes()),
            None => oci_config(&container)?,
        },
        architecture: Architecture::goarch(architecture),
        created: (created > 0).then(|| Timestamp::from_seconds(created)),
        notes: others(&container, primary),
        left_out: left_out(&container),
        check: check.map(|check| Box::new(move |monitor: &_| check.run(monitor)) as Box<Check>),
        input: None,
    };
    Ok((root, about))
}

/// Opens an encrypted root; what it has beside that a SIF in the clear has as objects.
fn unlock(container: &Container, primary: &Descriptor, secret: &Secret) -> Result<(Root, Option<HiddenObjects>)> {
    let passphrase = secret.passphrase(container.key_message(primary)?.as_deref())?;
    let root = EncryptedRoot::open(container.data(primary)?)?.unlock(&passphrase)?;
    let hidden = root.read(HiddenObjects::NAME)?.map(|bytes| HiddenObjects::parse(&bytes)).transpose()?;
    Ok((Root::Unlocked(Box::new(root)), hidden))
}

/// Whether the file at `path` is a SIF that a key opens.
pub(super) fn is_encrypted(path: &Path) -> bool {
    if !filesystem::recognise(path).is_ok_and(|kind| kind == Some(Kind::Sif)) {
        return false;
    }
    let container = Region::open(path).map(Container::open);
    let Ok(Ok(container)) = container else { return false };
    let extra = container.primary().map(Descriptor::extra);
    matches!(extra, Some(Extra::Partition { file_system: FileSystem::GocryptfsSquashfs, .. }))
}

fn expect_squashfs(file_system: FileSystem) -> Result<()> {
    let (what, hint) = match file_system {
        FileSystem::Squashfs => return Ok(()),
        FileSystem::EncryptedSquashfs => {
            let message = "the root file system of the SIF is encrypted with LUKS2, which only root can open";
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(Remedy::Sandbox));
        }
        FileSystem::GocryptfsSquashfs => {
            let message = "the root file system of the SIF is encrypted (gocryptfs)";
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(Remedy::Key));
        }
        FileSystem::Ext3 => ("ext3", "unpack it first: apptainer build --sandbox DIRECTORY x.sif"),
        FileSystem::ImmutableObjects => ("an archive of immutable objects", "build the SIF again"),
        FileSystem::Raw => ("raw data", "build the SIF again"),
        FileSystem::Unknown(code) => {
            let message = format!("the root file system of the SIF is of the unknown kind {code}");
            return Err(Error::new(ErrorKind::Unsupported, message).hint("build the SIF again"));
        }
    };
    Err(Error::new(ErrorKind::Unsupported, format!("the root file system of the SIF is {what}, not a squashfs"))
        .hint(hint))
}

fn oci_config(container: &Container) -> Result<Option<Vec<u8>>> {
    let Some(descriptor) = container.named(DataType::GenericJson, OCI_CONFIG) else { return Ok(None) };
    let region = container.data(descriptor)?;
    if region.len > DOCUMENT_BYTES_MAX {
        let message = format!("object \"oci-config.json\" has {} bytes", region.len);
        return Err(Error::new(ErrorKind::InvalidImage, message));
    }
    let mut bytes = vec![0; region.len as usize];
    region.read_at(&mut bytes, 0).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(Some(bytes))
}

/// Other file systems of the SIF, which are not part of the root.
fn others(container: &Container, primary: &Descriptor) -> Vec<Note> {
    let mut overlays = Note::new(
        "overlay-left-out",
        "a writable overlay of the SIF is left out: what was written to it is not in the result",
        0,
    );
    let mut partitions = Note::new("partition-left-out", "partitions besides the one that is run are left out", 0);
    for descriptor in container.descriptors().filter(|it| it.id != primary.id) {
        let Extra::Partition { kind, .. } = descriptor.extra() else { continue };
        let note = if kind == PartitionKind::Overlay { &mut overlays } else { &mut partitions };
        note.count += 1;
        note.example(format!("object {} ({descriptor})", descriptor.id));
    }
    [overlays, partitions].into_iter().filter(|note| note.count > 0).collect()
}

/// Objects that speak of this very file, or of how its image was built.
fn left_out(container: &Container) -> Option<Note> {
    let mut kinds = [("signatures", 0), ("SBOM", 0), ("other documents", 0)];
    let mut note = Note::new("objects-left-out", "", 0);
    for descriptor in container.descriptors() {
        let kind = match descriptor.data_type {
            DataType::Signature => 0,
            DataType::Sbom => 1,
            DataType::GenericJson | DataType::Generic if !is_built(descriptor) => 2,
            _ => continue,
        };
        kinds[kind].1 += 1;
        note.count += 1;
        note.example(format!("object {} ({descriptor})", descriptor.id));
    }
    let what: Vec<&str> = kinds.iter().filter(|(_, count)| *count > 0).map(|(what, _)| *what).collect();
    let again = if kinds[0].1 > 0 { " (sign again)" } else { "" };
    note.message = format!("what the SIF holds beside the image is left out: {}{again}", what.join(", "));
    (note.count > 0).then_some(note)
}
