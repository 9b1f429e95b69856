use std::path::Path;

use super::members::Members;
use crate::error::{Error, ErrorKind, Result};
use crate::tar::is_header;

/// How much of a file is looked at: an ISO 9660 image says what it is at byte 32769.
pub(super) const LOOK_BYTES: usize = 33 << 10;

/// Files that people may give us, told by bytes at a fixed place: (offset, bytes, what it is, what to do).
const KNOWN: [(usize, &[u8], &str, &str); 14] = [
    (32, b"SIF_MAGIC", "a SIF image", "it is what a conversion would make: run it as it is"),
    (0, b"hsqs", "a squashfs file system", "give the Docker or OCI image it was made from"),
    (1080, &[0x53, 0xef], "an ext2, ext3 or ext4 file system", "give the Docker or OCI image it was made from"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS file system", "give the Docker or OCI image it was made from"),
    (32769, b"CD001", "an ISO 9660 image", SAVE),
    (0, b"\x7fELF", "a program", SAVE),
    (0, b"PK\x03\x04", "a zip archive", "unpack it and give the image archive inside"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the image archive inside"),
    (0, b"070701", "a cpio archive", SAVE),
    (0, b"!<arch>\n", "a Debian package or ar archive", SAVE),
    (0, b"\xed\xab\xee\xdb", "an RPM package", SAVE),
    (0, b"QFI\xfb", "a virtual machine disk", SAVE),
    (0, b"\x02\x21\x4c\x18", "an lz4 stream", "decompress it first"),
    (0, b"\x04\x22\x4d\x18", "an lz4 stream", "decompress it first"),
];

const SAVE: &str = "make an image archive with: docker save -o image.tar NAME";

/// Refuses what is no tar, and says what it seems to be. `start` is the first [`LOOK_BYTES`] of it, or all there is.
pub(super) fn expect_tar(start: &[u8]) -> Result<()> {
    let Some(block) = start.first_chunk::<512>() else {
        let what = if start.is_empty() { "the file is empty" } else { "the file is too short for an image archive" };
        return Err(Error::new(ErrorKind::InvalidImage, what).hint("save or fetch the image again"));
    };
    if is_header(block) || block.iter().all(|&byte| byte == 0) && !is_known(start) {
        return Ok(());
    }
    Err(seems(start))
}

fn known(start: &[u8]) -> Option<(&'static str, &'static str)> {
    let fits = |&&(offset, bytes, ..): &&(usize, &[u8], &str, &str)| {
        start.get(offset..).is_some_and(|there| there.starts_with(bytes))
    };
    KNOWN.iter().find(fits).map(|&(_, _, what, hint)| (what, hint))
}

fn is_known(start: &[u8]) -> bool {
    known(start).is_some()
}

fn seems(start: &[u8]) -> Error {
    if let Some((what, hint)) = known(start) {
        return Error::new(ErrorKind::Unsupported, format!("this seems to be {what}, not an image archive")).hint(hint);
    }
    let text = start.iter().take(512).all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    let what = match start.trim_ascii_start().first() {
        Some(b'{' | b'[') if text => "this seems to be a JSON document, not an image archive",
        _ if text => "this seems to be a text file, not an image archive",
        _ => "this is no tar archive, compressed or not",
    };
    Error::new(ErrorKind::InvalidImage, what).hint(SAVE)
}

/// Says what an archive without image documents seems to be.
pub(super) fn archive_without_image(members: &Members) -> Error {
    let starts = |prefix: &[u8]| members.names().any(|name| name.starts_with(prefix));
    let below = members.names().find_map(|name| {
        let directory = name.strip_suffix(b"/index.json").or_else(|| name.strip_suffix(b"/manifest.json"))?;
        (!directory.contains(&b'/')).then(|| directory.to_vec())
    });
    if members.names().next().is_none() {
        return Error::new(ErrorKind::InvalidImage, "the archive is empty").hint(SAVE);
    }
    if [&b"etc/"[..], b"usr/", b"bin/", b"rootfs/"].iter().any(|prefix| starts(prefix)) {
        let message = "this seems to be the tar of a file system, not an image: it has no manifest.json or index.json";
        return Error::new(ErrorKind::Unsupported, message)
            .hint("make an image of it first: docker import FILE NAME && docker save -o image.tar NAME");
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
    } else if has("etc") || has("usr") || has(".singularity.d") {
        let hint = "make an image of it first: tar -C DIRECTORY -c . | docker import - NAME";
        (ErrorKind::Unsupported, "this seems to be a root file system, not an image", hint)
    } else {
        (ErrorKind::InvalidImage, "the directory is no OCI layout: it has no index.json", SAVE)
    };
    Error::new(kind, what).hint(hint)
}
