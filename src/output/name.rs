//! What an output is called when nobody says so.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::io::Compression;
use crate::model::{Note, Quoted};
use crate::source::Spec;

/// What image files are called by those who save them; the longest that fits is taken off.
const SUFFIXES: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".oci"];

/// What may stand before one of [`SUFFIXES`] and says no more than it.
const INFIXES: [&str; 2] = [".oci", ".docker"];

/// What files that hold a file system are called, ours and others'. Taken off, too, unless that is what is written.
const FILE_SYSTEMS: [&str; 4] = [".sif", ".sqsh", ".sqfs", ".squashfs"];

/// The same of a tar, before one of [`SUFFIXES`].
const ROOTS: [&str; 2] = [".rootfs", ".sif-rootfs"];

/// The output's file name for `source`; `None` where the source has no name to take it from.
pub(super) fn of_output(source: &Spec, suffix: &str) -> Option<OsString> {
    let mut name = stem(source, suffix)?;
    name.push(suffix);
    Some(name)
}

/// A note where the name of an output says that it is something else than the `format` that is written, or compressed
/// otherwise.
pub(super) fn misleading(path: &Path, format: &str, compression: Compression) -> Option<Note> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let named = match extension.as_str() {
        "tar" => "a tar",
        "gz" | "tgz" => "a gzip file",
        "zst" | "zstd" | "tzst" => "a zstd file",
        "xz" | "txz" => "an xz file",
        "bz2" | "tbz" | "tbz2" => "a bzip2 file",
        "lz4" => "an lz4 file",
        "zip" => "a zip file",
        "sif" => "a SIF",
        "sqsh" | "sqfs" | "squashfs" => "a squashfs image",
        "oci" => "an OCI layout",
        _ => return None,
    };
    let written = match (format, compression.suffix()) {
        ("sif", _) => "a SIF",
        ("squashfs", _) => "a squashfs image",
        ("oci", _) => "an OCI layout",
        (_, "") => "a tar",
        (_, ".gz") => "a gzip file",
        _ => "a zstd file",
    };
    let is_any_tar = named == "a tar" && written.ends_with(" file");
    (named != written && !is_any_tar).then(|| {
        let path = Quoted(path.as_os_str().as_bytes());
        let written = if written == "a tar" { "a tar that is not compressed" } else { written };
        Note::new("misleading-name", format!("{path} is named like {named}, and is {written}"), 1)
    })
}

/// As enroot names what it imports: `NAME+TAG.sqsh`, with `+` for the slashes of the name, without the registry.
pub(super) fn of_enroot(source: &Spec, suffix: &str) -> Option<OsString> {
    let (Spec::DockerDaemon(reference) | Spec::Registry(reference)) = source else { return of_output(source, suffix) };
    let (name, _) = reference.split_once('@').unwrap_or((reference, ""));
    // What stands before the first slash is a host only where it cannot be a part of a name.
    let path = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => path,
        _ => name,
    };
    let path = path.trim_start_matches('/');
    (!path.is_empty()).then(|| OsString::from(format!("{}{suffix}", path.replace(['/', ':'], "+"))))
}

fn stem(source: &Spec, suffix: &str) -> Option<OsString> {
    match source {
        Spec::Stdin => None,
        Spec::DockerDaemon(reference) | Spec::Registry(reference) | Spec::Oras(reference) => {
            stem_of_reference(reference)
        }
        Spec::Web(url) => stem_of_url(url, suffix),
        _ => source.path().and_then(|path| path.file_name()).map(|name| stem_of_file(name, suffix)),
    }
}

/// The last part of the path.
fn stem_of_url(url: &str, suffix: &str) -> Option<OsString> {
    let (_, rest) = url.split(['?', '#']).next()?.split_once("//")?;
    let (_, path) = rest.split_once('/')?;
    let name = path.rsplit('/').next().filter(|name| !name.is_empty() && *name != "..")?;
    Some(stem_of_file(OsStr::new(name), suffix))
}

fn stem_of_file(name: &OsStr, written: &str) -> OsString {
    let whole = name.as_bytes();
    let strip = |name: &'_ [u8], suffixes: &[&str]| -> Option<usize> {
        let fits = suffixes.iter().filter(|suffix| name.ends_with(suffix.as_bytes()) && name.len() > suffix.len());
        fits.map(|suffix| name.len() - suffix.len()).min()
    };
    let of_others = |suffixes: &[&'static str]| -> Vec<&'static str> {
        let is_written = |suffix: &str| written.strip_prefix(suffix).is_some_and(|rest| !rest.starts_with('-'));
        suffixes.iter().copied().filter(|suffix| !is_written(suffix)).collect()
    };
    let end = match strip(whole, &SUFFIXES) {
        Some(end) => strip(&whole[..end], &[&INFIXES[..], &of_others(&ROOTS)].concat()).unwrap_or(end),
        None => strip(whole, &of_others(&FILE_SYSTEMS)).unwrap_or(whole.len()),
    };
    OsStr::from_bytes(&whole[..end]).to_os_string()
}

/// `host/path/name:tag` is `name_tag`; a digest is left out where there is a tag, and else cut to 12 digits, as Docker does.
fn stem_of_reference(reference: &str) -> Option<OsString> {
    let (name, digest) = reference.split_once('@').unwrap_or((reference, ""));
    let last = name.rsplit('/').next().filter(|last| !last.is_empty())?;
    let stem = match (last.split_once(':'), digest.split_once(':')) {
        (Some((name, tag)), _) => format!("{name}_{tag}"),
        (None, Some((_, hex))) => format!("{last}_{}", hex.get(..12).unwrap_or(hex)),
        (None, None) => last.to_string(),
    };
    Some(OsString::from(stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{DockerArchive, Oci, OciArchive, Rootfs, Sif, SifRootfs, Target};

    fn name(source: &str, target: impl Into<Target>) -> Option<String> {
        let spec = Spec::parse(OsStr::new(source)).unwrap();
        target.into().default_name(&spec).map(|name| name.into_string().unwrap())
    }

    #[test]
    fn names_that_mislead_are_noted() {
        let misleads =
            |name: &str, format: &str, compression| misleading(Path::new(name), format, compression).is_some();
        for (name, format) in [
            ("x.tar.xz", "rootfs"),
            ("x.sif", "sif-rootfs"),
            ("x.tar", "sif"),
            ("x.gz", "oci-archive"),
            ("x.zip", "oci"),
        ] {
            assert!(misleads(name, format, Compression::NONE), "{name} {format}");
        }
        assert!(
            misleads("x.zst", "rootfs", Compression::GZIP) && misleads("x.tgz", "docker-archive", Compression::ZSTD)
        );
        for (name, format) in
            [("x.tar", "rootfs"), ("x.sif", "sif"), ("x", "sif"), ("x.img", "sif"), ("x.oci", "oci"), ("a.b", "rootfs")]
        {
            assert!(!misleads(name, format, Compression::NONE), "{name} {format}");
        }
        assert!(!misleads("x.tar", "rootfs", Compression::GZIP) && !misleads("x.tgz", "rootfs", Compression::GZIP));
    }

    #[test]
    fn enroot_has_names_of_its_own() {
        let enroot = || crate::output::Squashfs::new().runtime(crate::runtime::Runtime::Enroot);
        for (source, expected) in [
            ("docker://nvcr.io/nvidia/pytorch:24.01-py3", "nvidia+pytorch+24.01-py3.sqsh"),
            ("docker://ubuntu:24.04", "ubuntu+24.04.sqsh"),
            ("docker://localhost:5000/a/b", "a+b.sqsh"),
            ("docker-daemon:org/app:1", "org+app+1.sqsh"),
            ("x.tar.gz", "x.sqsh"),
        ] {
            assert_eq!(name(source, enroot()).as_deref(), Some(expected), "{source}");
        }
    }

    #[test]
    fn outputs_are_named_after_their_source() {
        let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        for (source, stem) in [
            ("x.tar", "x"),
            ("/a/b/x.tar.gz", "x"),
            ("x.tgz", "x"),
            ("x.tar.zst", "x"),
            ("x.tar.xz", "x"),
            ("x.tar.bz2", "x"),
            ("x.oci.tar", "x"),
            ("x.docker.tar.gz", "x"),
            ("x.oci", "x"),
            ("dir/x.oci/", "x"),
            ("x-1.2.tar", "x-1.2"),
            (".tar", ".tar"),
            (".oci.tar", ".oci"),
            (hash, hash),
            ("docker-archive:///abs/x.tar", "x"),
            ("oci:layout", "layout"),
            ("docker://host/x:1", "x_1"),
            ("docker://host:5000/x", "x"),
            ("docker-daemon:host:5000/a/x:1", "x_1"),
            ("docker-daemon:0123456789ab", "0123456789ab"),
            ("docker://x@sha256:0123456789abcdef", "x_0123456789ab"),
            ("https://host/a/x.tar.gz?sig=1/2", "x"),
            ("oras://host/a/x:1", "x_1"),
        ] {
            assert_eq!(name(source, SifRootfs::new()).unwrap(), format!("{stem}.sif-rootfs.tar"), "{source}");
        }
    }

    #[test]
    fn format_and_compression_show() {
        for (target, expected) in [
            (Target::from(Rootfs::new()), "x.rootfs.tar"),
            (Rootfs::new().compression(Compression::gzip(9)).into(), "x.rootfs.tar.gz"),
            (Rootfs::new().compression(Compression::ZSTD).into(), "x.rootfs.tar.zst"),
            (Rootfs::new().compression(Compression::NONE).into(), "x.rootfs.tar"),
            (Sif::new().compression(Compression::ZSTD).into(), "x.sif"),
            (Oci::new().compression(Compression::ZSTD).into(), "x.oci"),
            (OciArchive::new().compression(Compression::GZIP).into(), "x.oci.tar"),
            (DockerArchive::new().into(), "x.docker.tar"),
            (DockerArchive::new().compression(Compression::GZIP).into(), "x.docker.tar.gz"),
        ] {
            assert_eq!(name("x.tar", target).unwrap(), expected);
        }
    }

    #[test]
    fn file_systems_lose_their_suffix_unless_it_is_what_is_written() {
        for (source, target, expected) in [
            ("x.sif", Target::from(DockerArchive::new()), "x.docker.tar"),
            ("x.sif", SifRootfs::new().into(), "x.sif-rootfs.tar"),
            ("x.sif", Sif::new().into(), "x.sif.sif"),
            ("x.sqsh", Sif::new().into(), "x.sif"),
            ("x.squashfs", crate::output::Squashfs::new().into(), "x.squashfs.squashfs"),
            ("https://host/x.sif", Oci::new().into(), "x.oci"),
            ("x.sif-rootfs.tar", Sif::new().into(), "x.sif"),
            ("x.rootfs.tar.gz", OciArchive::new().into(), "x.oci.tar"),
            ("x.sif-rootfs.tar", Rootfs::new().into(), "x.rootfs.tar"),
            ("x.rootfs.tar", Rootfs::new().into(), "x.rootfs.rootfs.tar"),
            (".sif", Rootfs::new().into(), ".sif.rootfs.tar"),
        ] {
            assert_eq!(name(source, target).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn some_sources_have_no_name() {
        for source in ["-", "/", "oci:..", "https://host", "https://host/", "https://host/a/.."] {
            assert_eq!(name(source, Rootfs::new()), None, "{source}");
        }
    }

    #[test]
    fn names_need_not_be_utf8() {
        let spec = Spec::Path(OsStr::from_bytes(b"\xff.tar").into());
        let name = Target::from(Rootfs::new()).default_name(&spec).unwrap();
        assert_eq!(name.as_bytes(), b"\xff.rootfs.tar");
    }
}
