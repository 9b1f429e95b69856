//! What an output is called when nobody says so.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::open::Spec;
use crate::output::{Compression, Format};

/// What image files are called by those who save them; the longest that fits is taken off.
const SUFFIXES: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".oci"];

/// What may stand before one of [`SUFFIXES`] and says no more than it.
const INFIXES: [&str; 2] = [".oci", ".docker"];

/// The output's file name for `source`; `None` where the source has no name to take it from.
pub(super) fn default_output(source: &Spec, format: Format, compression: Option<Compression>) -> Option<OsString> {
    let mut name = stem(source)?.into_vec();
    name.extend_from_slice(match format {
        Format::SifRootfs => b".sif-rootfs.tar",
        Format::Rootfs => b".rootfs.tar",
        Format::Sif => b".sif",
        Format::Oci => b".oci",
        Format::OciArchive => b".oci.tar",
        Format::DockerArchive => b".docker.tar",
    });
    // Elsewhere it is not the file that is compressed, but what is in it.
    let is_whole = matches!(format, Format::SifRootfs | Format::Rootfs | Format::DockerArchive);
    name.extend_from_slice(match compression.filter(|_| is_whole) {
        Some(Compression::Gzip(_)) => b".gz",
        Some(Compression::Zstd(_)) => b".zst",
        Some(Compression::None) | None => b"",
    });
    Some(OsString::from_vec(name))
}

fn stem(source: &Spec) -> Option<OsString> {
    match source {
        Spec::Stdin => None,
        Spec::DockerDaemon(reference) | Spec::Registry(reference) => stem_of_reference(reference),
        _ => source.path().and_then(|path| path.file_name()).map(stem_of_file),
    }
}

fn stem_of_file(name: &OsStr) -> OsString {
    let whole = name.as_bytes();
    let strip = |name: &'_ [u8], suffixes: &[&str]| -> Option<usize> {
        let fits = suffixes.iter().filter(|suffix| name.ends_with(suffix.as_bytes()) && name.len() > suffix.len());
        fits.map(|suffix| name.len() - suffix.len()).min()
    };
    let Some(end) = strip(whole, &SUFFIXES) else { return name.to_os_string() };
    let end = strip(&whole[..end], &INFIXES).unwrap_or(end);
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

    fn name(source: &str, format: Format, compression: Option<Compression>) -> Option<String> {
        let spec = Spec::parse(OsStr::new(source)).unwrap();
        default_output(&spec, format, compression).map(|name| name.into_string().unwrap())
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
        ] {
            assert_eq!(name(source, Format::SifRootfs, None).unwrap(), format!("{stem}.sif-rootfs.tar"), "{source}");
        }
    }

    #[test]
    fn format_and_compression_show() {
        assert_eq!(name("x.tar", Format::Rootfs, None).unwrap(), "x.rootfs.tar");
        assert_eq!(name("x.tar", Format::Rootfs, Some(Compression::Gzip(Some(9)))).unwrap(), "x.rootfs.tar.gz");
        assert_eq!(name("x.tar", Format::Rootfs, Some(Compression::Zstd(None))).unwrap(), "x.rootfs.tar.zst");
        assert_eq!(name("x.tar", Format::Rootfs, Some(Compression::None)).unwrap(), "x.rootfs.tar");
        assert_eq!(name("x.tar", Format::Sif, Some(Compression::Zstd(None))).unwrap(), "x.sif");
        assert_eq!(name("x.tar", Format::Oci, Some(Compression::Zstd(None))).unwrap(), "x.oci");
        assert_eq!(name("x.tar", Format::OciArchive, Some(Compression::Gzip(None))).unwrap(), "x.oci.tar");
        assert_eq!(name("x.tar", Format::DockerArchive, None).unwrap(), "x.docker.tar");
        assert_eq!(name("x.tar", Format::DockerArchive, Some(Compression::Gzip(None))).unwrap(), "x.docker.tar.gz");
    }

    #[test]
    fn some_sources_have_no_name() {
        assert_eq!(name("-", Format::Rootfs, None), None);
        assert_eq!(name("/", Format::Rootfs, None), None);
        assert_eq!(name("oci:..", Format::Rootfs, None), None);
    }

    #[test]
    fn names_need_not_be_utf8() {
        let spec = Spec::Path(OsStr::from_bytes(b"\xff.tar").into());
        let name = default_output(&spec, Format::Rootfs, None).unwrap();
        assert_eq!(name.as_bytes(), b"\xff.rootfs.tar");
    }
}
