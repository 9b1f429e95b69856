use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Quoted;

/// A SOURCE word, parsed: where an image is to come from.
///
/// Paths are bytes as the operating system gives them; they need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spec {
    /// A bare path. What is there is told by its content.
    Path(PathBuf),
    /// `-`: standard input.
    Stdin,
    /// `docker-archive:PATH[:TAG]`.
    DockerArchive {
        /// The archive.
        path: PathBuf,
        /// Which image of it.
        image: Option<String>,
    },
    /// `oci-archive:PATH[:REF]`.
    OciArchive {
        /// The archive.
        path: PathBuf,
        /// Which image of it.
        image: Option<String>,
    },
    /// `oci:DIR[:REF]`.
    OciLayout {
        /// The layout directory.
        path: PathBuf,
        /// Which image of it.
        image: Option<String>,
    },
    /// `docker-daemon:NAME[:TAG]` or an image ID.
    DockerDaemon(String),
    /// `docker://REFERENCE`.
    Registry(String),
    /// `http://…` or `https://…`: an archive or a SIF on a web server. The whole URL.
    Web(String),
    /// `oras://REFERENCE`: a SIF on a registry.
    Oras(String),
}

/// Transports of other programs that people may try here.
const FOREIGN_TRANSPORTS: [&str; 5] = ["containers-storage", "containerd", "dir", "library", "shub"];

/// How the transports that work are written, for hints.
pub(super) const SPELLINGS: &str = "write PATH, - (standard input), docker-archive:PATH[:TAG], oci-archive:PATH[:REF], \
                                    oci:DIR[:REF], docker-daemon:NAME[:TAG], docker://HOST/NAME[:TAG], oras://HOST/NAME[:TAG] or https://HOST/PATH";

impl Spec {
    /// Parses a SOURCE word. In `docker-archive:PATH:TAG` the path is the longest part before a colon that exists as a
    /// file, so that both may hold colons; where none exists it ends at the first colon.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when a transport lacks what belongs after its colon, or that is not UTF-8 where it must be.
    pub fn parse(word: &OsStr) -> Result<Self> {
        parse(word, &|path| path.exists())
    }

    /// Which image the word itself asks for.
    pub fn image(&self) -> Option<&str> {
        match self {
            Spec::DockerArchive { image, .. } | Spec::OciArchive { image, .. } | Spec::OciLayout { image, .. } => {
                image.as_deref()
            }
            _ => None,
        }
    }

    /// The local path, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Spec::Path(path)
            | Spec::DockerArchive { path, .. }
            | Spec::OciArchive { path, .. }
            | Spec::OciLayout { path, .. } => Some(path),
            Spec::Stdin | Spec::DockerDaemon(_) | Spec::Registry(_) | Spec::Web(_) | Spec::Oras(_) => None,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |path: &Path| Quoted(path.as_os_str().as_bytes()).to_string();
        match self {
            Spec::Path(path) => f.write_str(&quoted(path)),
            Spec::Stdin => f.write_str("standard input"),
            Spec::DockerArchive { path, .. } => write!(f, "docker-archive {}", quoted(path)),
            Spec::OciArchive { path, .. } => write!(f, "oci-archive {}", quoted(path)),
            Spec::OciLayout { path, .. } => write!(f, "oci layout {}", quoted(path)),
            Spec::DockerDaemon(name) => write!(f, "docker-daemon image {}", Quoted(name.as_bytes())),
            Spec::Registry(name) => write!(f, "registry image {}", Quoted(name.as_bytes())),
            Spec::Web(url) => f.write_str(&Quoted(without_query(url).as_bytes()).to_string()),
            Spec::Oras(name) => write!(f, "SIF {}", Quoted(name.as_bytes())),
        }
    }
}

fn parse(word: &OsStr, exists: &dyn Fn(&Path) -> bool) -> Result<Spec> {
    let bytes = word.as_bytes();
    if bytes.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the source is empty").hint(SPELLINGS));
    }
    if bytes == b"-" {
        return Ok(Spec::Stdin);
    }
    let after = |transport: &str| bytes.strip_prefix(transport.as_bytes());
    let located = |rest: &[u8]| split(word, rest.strip_prefix(b"//").unwrap_or(rest), exists);
    if let Some(rest) = after("docker-archive:") {
        located(rest).map(|(path, image)| Spec::DockerArchive { path, image })
    } else if let Some(rest) = after("oci-archive:") {
        located(rest).map(|(path, image)| Spec::OciArchive { path, image })
    } else if let Some(rest) = after("oci:") {
        located(rest).map(|(path, image)| Spec::OciLayout { path, image })
    } else if let Some(rest) = after("docker-daemon:") {
        text(word, rest.strip_prefix(b"//").unwrap_or(rest)).map(Spec::DockerDaemon)
    } else if let Some(rest) = after("docker://") {
        text(word, rest).map(Spec::Registry)
    } else if let Some(rest) = after("oras://") {
        text(word, rest).map(Spec::Oras)
    } else if let Some(rest) = after("https://").or_else(|| after("http://")) {
        text(word, rest)?;
        text(word, bytes).map(Spec::Web)
    } else {
        Ok(Spec::Path(PathBuf::from(word)))
    }
}

/// The query of a URL may hold what gives access to it.
pub(super) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Splits `PATH[:IMAGE]`.
fn split(word: &OsStr, rest: &[u8], exists: &dyn Fn(&Path) -> bool) -> Result<(PathBuf, Option<String>)> {
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let colons: Vec<usize> = (0..rest.len()).filter(|&at| rest[at] == b':').collect();
    let whole = path(rest);
    if !rest.is_empty() && (colons.is_empty() || exists(&whole)) {
        return Ok((whole, None));
    }
    let there = colons.iter().rev().find(|&&at| at > 0 && exists(&path(&rest[..at])));
    match there.or(colons.first()) {
        Some(&at) if at > 0 => Ok((path(&rest[..at]), Some(text(word, &rest[at + 1..])?))),
        _ => Err(Error::new(ErrorKind::Usage, format!("{} names no path", Quoted(word.as_bytes()))).hint(SPELLINGS)),
    }
}

fn text(word: &OsStr, rest: &[u8]) -> Result<String> {
    let quoted = Quoted(word.as_bytes());
    if rest.is_empty() {
        return Err(Error::new(ErrorKind::Usage, format!("{quoted} lacks a name after its colon")).hint(SPELLINGS));
    }
    match std::str::from_utf8(rest) {
        Ok(text) => Ok(text.to_string()),
        Err(_) => Err(Error::new(ErrorKind::Usage, format!("{quoted} does not end in an image name: it is not UTF-8"))),
    }
}

/// Why a bare word that is not a file is an error, and what it may have meant.
pub(super) fn no_such_file(path: &Path) -> Error {
    let error = Error::new(ErrorKind::SourceUnavailable, "no such file or directory").at(path);
    let Some(word) = path.to_str() else { return error.hint(whereabouts(path)) };
    match word.split_once(':') {
        Some((transport @ ("library" | "shub"), _)) => error.hint(format!(
            "{transport}:// is for Apptainer itself: apptainer pull image.sif {word}; the SIF can be converted"
        )),
        Some((transport, _)) if FOREIGN_TRANSPORTS.contains(&transport) => {
            error.hint(format!("there is no transport {transport:?} here: {SPELLINGS}"))
        }
        Some((transport @ ("docker" | "oras"), rest)) => {
            error.hint(format!("if it is on a registry, write {transport}://{}", rest.trim_start_matches('/')))
        }
        _ if is_file_name(path) => error.hint(whereabouts(path)),
        _ if word.parse::<crate::model::Reference>().is_ok() => error.hint(format!(
            "if it is an image name, write docker-daemon:{word} (local Docker or Podman) or docker://{word} (registry)"
        )),
        _ => error.hint(whereabouts(path)),
    }
}

/// Why a path of which it is known that it is a path is an error.
pub(super) fn no_such_path(path: &Path) -> Error {
    Error::new(ErrorKind::SourceUnavailable, "no such file or directory").at(path).hint(whereabouts(path))
}

/// Whether a name is that of a file rather than of an image.
fn is_file_name(path: &Path) -> bool {
    const SUFFIXES: [&str; 13] =
        ["tar", "gz", "tgz", "zst", "xz", "bz2", "sif", "simg", "sqsh", "sqfs", "squashfs", "oci", "def"];
    path.extension().and_then(OsStr::to_str).is_some_and(|suffix| SUFFIXES.contains(&suffix))
}

/// Where to look for a file that is not there.
fn whereabouts(path: &Path) -> String {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if directory.is_dir() {
        return format!("check the name: ls {}", directory.display());
    }
    format!("there is no directory {}: check the path", Quoted(directory.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &str, files: &[&str]) -> Spec {
        parse(OsStr::new(word), &|path| files.iter().any(|file| Path::new(file) == path)).unwrap()
    }

    fn docker(path: &str, image: Option<&str>) -> Spec {
        Spec::DockerArchive { path: path.into(), image: image.map(str::to_string) }
    }

    #[test]
    fn words_are_read_as_people_write_them() {
        assert_eq!(parsed("x.tar", &[]), Spec::Path("x.tar".into()));
        assert_eq!(parsed("-", &[]), Spec::Stdin);
        assert_eq!(parsed("docker-archive:x.tar", &[]), docker("x.tar", None));
        assert_eq!(parsed("docker-archive://x.tar", &[]), docker("x.tar", None));
        assert_eq!(parsed("docker-archive:///abs/x.tar", &[]), docker("/abs/x.tar", None));
        assert_eq!(parsed("docker-archive:/abs/x.tar:a:1", &["/abs/x.tar"]), docker("/abs/x.tar", Some("a:1")));
        assert_eq!(parsed("oci:dir:v1", &[]), Spec::OciLayout { path: "dir".into(), image: Some("v1".into()) });
        assert_eq!(parsed("oci-archive:a:b", &["a"]), Spec::OciArchive { path: "a".into(), image: Some("b".into()) });
        assert_eq!(parsed("docker-daemon:x:1", &[]), Spec::DockerDaemon("x:1".into()));
        assert_eq!(parsed("docker://ghcr.io/x", &[]), Spec::Registry("ghcr.io/x".into()));
        assert_eq!(parsed("oras://h/x:1", &[]), Spec::Oras("h/x:1".into()));
        assert_eq!(parsed("https://h/x.tar?a=b", &[]), Spec::Web("https://h/x.tar?a=b".into()));
        assert_eq!(parsed("https://h/x.tar?secret=b", &[]).to_string(), r#""https://h/x.tar""#);
    }

    #[test]
    fn colons_in_paths_are_found_by_looking() {
        assert_eq!(parsed("docker-archive:a:b:c", &["a:b:c", "a:b"]), docker("a:b:c", None));
        assert_eq!(parsed("docker-archive:a:b:c", &["a", "a:b"]), docker("a:b", Some("c")));
        assert_eq!(parsed("docker-archive:a:b:c", &[]), docker("a", Some("b:c")));
    }

    #[test]
    fn bytes_that_are_not_utf8_stay() {
        let word = OsStr::from_bytes(b"docker-archive:\xff.tar:t");
        let spec = parse(word, &|_| false).unwrap();
        assert_eq!(spec.path().unwrap().as_os_str().as_bytes(), b"\xff.tar");
        assert_eq!(spec.image(), Some("t"));
        assert_eq!(spec.to_string(), r#"docker-archive "\xff.tar""#);
        let kind = parse(OsStr::from_bytes(b"docker-archive:x:\xff"), &|_| false).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::Usage);
    }

    #[test]
    fn empty_parts_are_refused() {
        for word in [
            "",
            "docker-archive:",
            "oci:",
            "oci::x",
            "docker://",
            "docker-daemon:",
            "docker-archive:x:",
            "oras://",
            "http://",
        ] {
            assert_eq!(parse(OsStr::new(word), &|_| false).unwrap_err().kind(), ErrorKind::Usage, "{word:?}");
        }
    }

    #[test]
    fn a_bare_name_hints_at_both_spellings() {
        let remedy = |word: &str| no_such_file(Path::new(word)).remedy().unwrap().to_string();
        let hint = remedy("debian:12");
        assert!(hint.contains("docker-daemon:debian:12") && hint.contains("docker://debian:12"), "{hint}");
        assert!(remedy("dir:x").contains("no transport"));
        assert!(remedy("library://x").contains("apptainer pull image.sif library://x"));
        assert_eq!(remedy("/no/such"), "there is no directory \"/no\": check the path");
        assert_eq!(remedy("x.tar"), "check the name: ls .");
        assert_eq!(remedy("docker:ubuntu"), "if it is on a registry, write docker://ubuntu");
    }
}
