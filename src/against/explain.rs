//! What builders of SIFs are known to change about an image.

use crate::browse::{Aspect, Difference, Pair, Place};
use crate::tree::{Inode, Kind};

/// Directories that are made where the image has none.
const MADE_DIRECTORIES: [&[u8]; 9] = [b"dev", b"proc", b"root", b"var", b"var/tmp", b"tmp", b"etc", b"sys", b"home"];
/// Files that a runtime binds to.
const EMPTIED: [&[u8]; 2] = [b"etc/hosts", b"etc/resolv.conf"];

const MADE: &str = "Singularity makes it";
const TIME: &str = "changed when Singularity's files were added";

/// Why a difference between an image, on the left, and a SIF is to be expected.
pub(super) fn explain(pair: &Pair<'_>, aspect: Aspect) -> Option<&'static str> {
    if EMPTIED.contains(&pair.path) && pair.right.is_some_and(is_empty_file) {
        return Some("a runtime binds to it: it is empty in a SIF");
    }
    if EMPTIED.contains(&pair.path)
        && aspect == Aspect::Mode
        && pair.right.is_some_and(|it| it.metadata.mode.bits() == 0o644)
    {
        return Some("a runtime binds to it: Apptainer gives it 0644");
    }
    match (aspect, pair.left, pair.right) {
        (Aspect::Presence, None, Some(made)) => {
            (MADE_DIRECTORIES.contains(&pair.path) && is_made_directory(made, pair.path)).then_some(MADE)
        }
        (Aspect::Presence | Aspect::Type, Some(device), sif) if is_device(device) && sif.is_none_or(is_empty_file) => {
            Some("a device node, which only root can make")
        }
        // What stands for a device has its own owner and mode.
        (Aspect::Mode | Aspect::Owner | Aspect::Time, Some(device), Some(sif))
            if is_device(device) && is_empty_file(sif) =>
        {
            Some("a device node, which only root can make")
        }
        (Aspect::Xattrs, _, Some(sif)) if sif.metadata.xattrs.as_ref().is_none_or(|xattrs| xattrs.is_empty()) => {
            Some("extended attributes are left out")
        }
        (Aspect::Owner, Some(_), Some(sif)) if (sif.metadata.uid, sif.metadata.gid) == (0, 0) => {
            Some("built without root: all belongs to 0:0")
        }
        (Aspect::Time, Some(image), Some(sif)) => time(pair.path, image, sif),
        (Aspect::Mode, Some(image), Some(sif)) => mode(pair.path, image, sif),
        _ => None,
    }
}

/// The config of a SIF lacks what its kind of document has no place for.
pub(super) fn config(difference: &mut Difference) {
    let Place::Config(field) = &difference.place else { return };
    let only_in_image = difference.right.is_none();
    if only_in_image
        && ["Healthcheck", "OnBuild", "Shell", "StopTimeout", "Memory", "CpuShares"].contains(&field.as_str())
    {
        difference.explanation = Some("Docker's own: Apptainer does not record it");
    }
}

fn is_empty_file(inode: &Inode) -> bool {
    matches!(&inode.kind, Kind::File(data) if data.size == 0)
}

fn is_device(inode: &Inode) -> bool {
    matches!(inode.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. })
}

/// `var` holds `tmp`; all others are empty.
fn is_made_directory(inode: &Inode, path: &[u8]) -> bool {
    match &inode.kind {
        Kind::Directory(names) if path == b"var" => names.keys().all(|name| **name == *b"tmp"),
        Kind::Directory(names) => names.is_empty(),
        _ => false,
    }
}

fn time(path: &[u8], image: &Inode, sif: &Inode) -> Option<&'static str> {
    let seconds = image.metadata.mtime.seconds;
    if sif.metadata.mtime.seconds == seconds.clamp(0, u32::MAX.into()) {
        return Some("squashfs holds no such time");
    }
    let is_parent = matches!(path, b"" | b"etc" | b"var" | b"var/tmp" | b"dev" | b"home" | b"root");
    is_parent.then_some(TIME)
}

fn mode(path: &[u8], image: &Inode, sif: &Inode) -> Option<&'static str> {
    let (of_image, of_sif) = (image.metadata.mode.bits(), sif.metadata.mode.bits());
    if path.is_empty() && of_sif == of_image | 0o200 {
        return Some("Singularity must write to the root");
    }
    let granted = match &image.kind {
        Kind::Directory(_) => 0o700,
        Kind::File(_) => 0o600,
        _ => return None,
    };
    // Apptainer's own option drops setuid, setgid and sticky with it.
    [of_image | granted, (of_image & 0o777) | granted]
        .contains(&of_sif)
        .then_some("built so that the owner has access to all")
}
