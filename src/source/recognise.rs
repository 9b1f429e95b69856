use std::path::Path;

use super::members::Members;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{FOREIGN_LOOK_BYTES, foreign_format};
use crate::tar::{Entries, Sequential, is_header};

/// How much of a file is looked at.
pub(super) const LOOK_BYTES: usize = FOREIGN_LOOK_BYTES;

const EMPTY: &str = "the archive is empty";
const SAVE: &str = "make an image archive with: docker save -o image.tar NAME";

/// Refuses what is no tar, and says what it seems to be. `start` is the first [`LOOK_BYTES`] of it, or all there is.
pub(super) fn expect_tar(start: &[u8]) -> Result<()> {
    let Some(block) = start.first_chunk::<512>() else {
        let what = if start.is_empty() { "the file is empty" } else { "the file is too short for an image archive" };
        return Err(Error::new(ErrorKind::InvalidImage, what).hint("save or fetch the image again"));
    };
    if is_header(block) {
        return Ok(());
    }
    // A tar that begins with its end marker: what follows may be zeros without end.
    if block.iter().all(|&byte| byte == 0) && foreign_format(start).is_none() {
        return Err(Error::new(ErrorKind::InvalidImage, EMPTY).hint(SAVE));
    }
    Err(seems(start))
}

/// What to do with something of which is known what it is.
fn remedy(what: &str, start: &[u8]) -> &'static str {
    match what {
        "a SIF image" if sif_has_file_system(start) => "it is what a conversion would make: run it as it is",
        "a zip archive" | "a 7z archive" => "unpack it and give the image archive inside",
        "an lz4 stream" => "decompress it first",
        "a WebAssembly module" => "run it with a WebAssembly runtime such as wasmtime",
        _ if what.ends_with("file system") || what == "a SIF image" => "give the Docker or OCI image it was made from",
        _ => SAVE,
    }
}

/// Whether a SIF has a system partition, as far as its first descriptors say: OCI-SIFs and SIFs of data have none. The layout
/// is that of sylabs/sif `pkg/sif/sif.go`.
fn sif_has_file_system(start: &[u8]) -> bool {
    const DESCRIPTOR_BYTES: usize = 585;
    const PARTITION: i32 = 0x4004;
    const SYSTEM_TYPES: [i32; 2] = [1, 2];
    let number =
        |at: usize| -> Option<i32> { Some(i32::from_le_bytes(start.get(at..at.checked_add(4)?)?.try_into().ok()?)) };
    let table = number(96).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(start.len());
    let mut descriptors = (table..start.len()).step_by(DESCRIPTOR_BYTES);
    descriptors.any(|at| {
        let used = start.get(at + 4).is_some_and(|&used| used != 0);
        used && number(at) == Some(PARTITION) && number(at + 205).is_some_and(|kind| SYSTEM_TYPES.contains(&kind))
    })
}

fn seems(start: &[u8]) -> Error {
    if let Some(what) = foreign_format(start) {
        let what_kind = match what {
            "a SIF image" if !sif_has_file_system(start) => "a SIF image without a system partition",
            _ => what,
        };
        return Error::new(ErrorKind::Unsupported, format!("this seems to be {what_kind}, not an image archive"))
            .hint(remedy(what, start));
    }
    let text = start.iter().take(512).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let what = match start.trim_ascii_start().first() {
        Some(b'{' | b'[') if text => "this seems to be a JSON document, not an image archive",
        _ if text => "this seems to be a text file, not an image archive",
        _ => "this is no tar archive, compressed or not",
    };
    Error::new(ErrorKind::InvalidImage, what).hint(SAVE)
}

/// Names in the root of nearly every file system that programs run in.
const ROOT_NAMES: [&[u8]; 7] = [b"bin", b"etc", b"lib", b"sbin", b"usr", b"var", b".singularity.d"];
/// Names at the top of an image archive.
const IMAGE_NAMES: [&[u8]; 5] = [b"manifest.json", b"index.json", b"oci-layout", b"blobs", b"repositories"];

/// Whether the names of a tar are those of a root file system.
pub(super) fn is_root_file_system<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> bool {
    names.any(|name| ROOT_NAMES.contains(&top(name)))
}

/// Whether a tar begins as that of a root file system, so far as `start` shows.
pub(super) fn begins_as_root(start: &[u8]) -> bool {
    let mut entries = Entries::new(Sequential(start));
    let mut is_root = false;
    // The end of what there is to see ends the loop.
    while let Ok(Some(entry)) = entries.next_entry() {
        let name = entry.raw_path.strip_prefix(b"./").unwrap_or(&entry.raw_path);
        if IMAGE_NAMES.contains(&top(name)) {
            return false;
        }
        is_root |= ROOT_NAMES.contains(&top(name));
    }
    is_root
}

fn top(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == b'/').next().unwrap_or_default()
}

/// Says what an archive without image documents seems to be.
pub(super) fn archive_without_image(members: &Members) -> Error {
    let starts = |prefix: &[u8]| members.names().any(|name| name.starts_with(prefix));
    let below = members.names().find_map(|name| {
        let directory = name.strip_suffix(b"/index.json").or_else(|| name.strip_suffix(b"/manifest.json"))?;
        (!directory.contains(&b'/')).then(|| directory.to_vec())
    });
    if members.names().next().is_none() {
        return Error::new(ErrorKind::InvalidImage, EMPTY).hint(SAVE);
    }
    if starts(b"rootfs/") {
        let message = "this seems to be the tar of a folder that holds the root of a file system";
        return Error::new(ErrorKind::Unsupported, message)
            .hint("pack the root itself: tar -C rootfs -cf rootfs.tar .");
    }
    let error = Error::new(ErrorKind::InvalidImage, "the archive has no manifest.json, index.json or repositories");
    match below {
        Some(directory) => {
            let directory = crate::model::Quoted(&directory).to_string();
            error.hint(format!(
                "the image lies in its folder {directory}: pack it with tar -C {directory} -cf image.tar ."
            ))
        }
        None => error.hint(SAVE),
    }
}

/// Says what a directory that is no OCI layout seems to be.
pub(super) fn directory_without_layout(path: &Path) -> Error {
    let has = |name: &str| path.join(name).exists();
    let (kind, what, hint) = if has("manifest.json") && has("version") {
        let hint = "copy it first: skopeo copy dir:PATH oci:PATH2";
        (ErrorKind::Unsupported, "this seems to be a directory of skopeo's dir: transport", hint)
    } else if has("manifest.json") || has("repositories") {
        let hint = "pack it again: tar -C DIRECTORY -cf image.tar .";
        (ErrorKind::Unsupported, "this seems to be an unpacked docker-archive", hint)
    } else {
        (ErrorKind::InvalidImage, "the directory is no OCI layout: it has no index.json", SAVE)
    };
    Error::new(kind, what).hint(hint)
}
