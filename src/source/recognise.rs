use std::path::Path;

use super::members::Members;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::io::{FOREIGN_LOOK_BYTES, foreign_format};
use crate::tar::{Entries, Sequential, is_header};

/// How much of a file is looked at.
pub(super) const LOOK_BYTES: usize = FOREIGN_LOOK_BYTES;

const EMPTY: &str = "the archive is empty: there is no file in it";
const SAVE: &str = "make an image archive with: docker save -o image.tar NAME";

/// Refuses what is not a tar, and says what it seems to be. `start` is the first [`LOOK_BYTES`] of it, or all there is.
pub(super) fn expect_tar(start: &[u8]) -> Result<()> {
    let Some(block) = start.first_chunk::<512>() else {
        if start.is_empty() {
            return Err(Error::new(ErrorKind::InvalidImage, "the file is empty").hint("save or fetch the image again"));
        }
        if is_pgp_message(start) {
            return Err(seems(start));
        }
        return Err(text_document(start).unwrap_or_else(|| {
            let message = format!("the file has {} bytes only: too short for an image archive", start.len());
            Error::new(ErrorKind::InvalidImage, message).hint("save or fetch the image again")
        }));
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
        "a SIF image" if sif_has_file_system(start) => "run it as it is; to convert it, save it to a file first",
        "a squashfs file system" | "an image of Singularity 2" => "save it, uncompressed, to a file, and give that",
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

/// Whether it begins as a message that gpg encrypted: a session key that a passphrase (SKESK) or a public key (PKESK) opens,
/// in the old or the new form of packets (RFC 9580, 4.2, 5.1 and 5.3), or its text form.
fn is_pgp_message(start: &[u8]) -> bool {
    let body = match start {
        [0xc1 | 0xc3, length, ..] if *length < 192 => start.get(2..),
        [0x84 | 0x8c, ..] => start.get(2..),
        [0xc1 | 0xc3 | 0x85 | 0x8d, ..] => start.get(3..),
        _ => None,
    };
    let public = matches!(start.first(), Some(0x84 | 0x85 | 0xc1));
    let version = body.and_then(|body| body.first());
    let is_packet = if public { matches!(version, Some(3 | 6)) } else { matches!(version, Some(4..=6)) };
    is_packet || start.trim_ascii_start().starts_with(b"-----BEGIN PGP MESSAGE-----")
}

fn seems(start: &[u8]) -> Error {
    if is_pgp_message(start) {
        return Error::new(ErrorKind::Unsupported, "this seems to be encrypted by gpg").with_remedy(Remedy::Gpg);
    }
    if let Some(what) = foreign_format(start) {
        let what_kind = match what {
            "a SIF image" if !sif_has_file_system(start) => "a SIF image without a system partition",
            _ => what,
        };
        return Error::new(ErrorKind::Unsupported, format!("this seems to be {what_kind}, not an image archive"))
            .hint(remedy(what, start));
    }
    text_document(start).unwrap_or_else(|| {
        Error::new(ErrorKind::InvalidImage, "this is not a tar archive, compressed or not").hint(SAVE)
    })
}

/// Says what a text seems to be; `None` where `start` is not text.
fn text_document(start: &[u8]) -> Option<Error> {
    let start = start.get(..512).unwrap_or(start);
    let is_text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    // A page may hold any UTF-8, and a part of a character at the end of what is seen.
    let lower = start.trim_ascii_start().strip_prefix(b"\xef\xbb\xbf").unwrap_or(start.trim_ascii_start());
    let lower = lower.to_ascii_lowercase();
    let begins = |words: &[&str]| words.iter().any(|word| lower.starts_with(word.as_bytes()));
    // The first line that says something.
    let line = start.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let line = line.into_iter().find(|line| !line.is_empty() && line[0] != b'#').unwrap_or_default();
    let error = |kind, what: &str, hint: &str| {
        Some(Error::new(kind, format!("this seems to be {what}, not an image archive")).hint(hint))
    };
    if begins(&["<!doctype", "<html", "<?xml", "<head", "<body"]) {
        let hint = "fetch the image again: the server sent a page instead, perhaps an error or a login";
        return error(ErrorKind::InvalidImage, "a web page", hint);
    }
    if begins(&["version https://git-lfs"]) {
        return error(ErrorKind::InvalidImage, "a Git LFS pointer", "fetch what it points to: git lfs pull");
    }
    if !is_text {
        return None;
    }
    if line.to_ascii_lowercase().starts_with(b"bootstrap:") {
        let hint = "build it with Apptainer: apptainer build image.sif FILE";
        return error(ErrorKind::Unsupported, "a Singularity definition file", hint);
    }
    if line.starts_with(b"FROM ") || line.starts_with(b"ARG ") {
        let hint = "build it first: docker build -t app .; the image is then docker-daemon:app";
        return error(ErrorKind::Unsupported, "a Dockerfile", hint);
    }
    if begins(&["{", "["]) {
        let is_message = [&b"\"error"[..], b"\"message\"", b"\"detail\""]
            .iter()
            .any(|key| lower.windows(key.len()).any(|it| it == *key));
        let hint = if is_message { "read it: it may be a server's error; then fetch the image again" } else { SAVE };
        return error(ErrorKind::InvalidImage, "a JSON document", hint);
    }
    error(ErrorKind::InvalidImage, "a text file", SAVE)
}

/// Names in the root of nearly every file system that programs run in.
const ROOT_NAMES: [&[u8]; 7] = [b"bin", b"etc", b"lib", b"sbin", b"usr", b"var", b".singularity.d"];
/// Names at the top of an image archive.
const IMAGE_NAMES: [&[u8]; 5] = [b"manifest.json", b"index.json", b"oci-layout", b"blobs", b"repositories"];

/// Whether a name in a tar is one of a root file system.
pub(super) fn is_in_root(name: &[u8]) -> bool {
    ROOT_NAMES.contains(&top(name))
}

/// Whether a name in a tar is one of an image archive.
pub(super) fn is_in_image(name: &[u8]) -> bool {
    IMAGE_NAMES.contains(&top(name))
}

/// Whether a tar begins as that of a root file system, so far as `start` shows.
pub(super) fn begins_as_root(start: &[u8]) -> bool {
    let mut entries = Entries::new(Sequential(start));
    let mut is_root = false;
    // The end of what there is to see ends the loop.
    while let Ok(Some(entry)) = entries.next_entry() {
        let name = entry.raw_path.strip_prefix(b"./").unwrap_or(&entry.raw_path);
        if is_in_image(name) {
            return false;
        }
        is_root |= is_in_root(name);
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
        None => error.hint("save the image with: docker save -o image.tar NAME; or pack the root of a file system, with its bin, etc and usr"),
    }
}

/// Says what a directory that is not an OCI layout seems to be.
pub(super) fn directory_without_layout(path: &Path) -> Error {
    let has = |name: &str| path.join(name).exists();
    let (kind, what, hint) = if has("manifest.json") && has("version") {
        let hint = "copy it first: skopeo copy dir:PATH oci:PATH2";
        (ErrorKind::Unsupported, "this seems to be a directory of skopeo's dir: transport", hint)
    } else if has("manifest.json") || has("repositories") {
        let hint = "pack it again: tar -C DIRECTORY -cf image.tar .";
        (ErrorKind::Unsupported, "this seems to be an unpacked docker-archive", hint)
    } else {
        let what = "the directory is neither an OCI layout nor the root of a file system: it has no index.json, bin, etc or usr";
        let hint = "name the directory that holds index.json, or the one that holds bin, etc and usr";
        (ErrorKind::InvalidImage, what, hint)
    };
    Error::new(kind, what).hint(hint)
}
