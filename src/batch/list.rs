use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use regex::Regex;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::model::{Quoted, Reference, YamlData, YamlNode, load_yaml};
use crate::registry::{Login, Secret, Settings};
use crate::source::Spec;

/// The longest list that is read, in bytes.
const BYTES_MAX: u64 = 64 << 20;
/// How much of a file tells whether it is a list.
const START_BYTES: u64 = 4096;

const YAML_FORM: &str = "write REGISTRY: { images: { NAME: [TAG, …] } }, as for skopeo sync";

/// How the registry of a source is reached, where a list says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The login for it.
    pub login: Option<Login>,
    /// `tls-verify`: whether its certificate counts; `None` leaves it to the other settings.
    pub tls_verify: Option<bool>,
}

impl Access {
    /// Changes the settings for the registry of `spec`.
    pub(super) fn apply(&self, spec: &Spec, settings: &mut Settings) -> Result<()> {
        let Spec::Registry(name) = spec else { return Ok(()) };
        if let Some(login) = &self.login {
            settings.login = Some(login.clone());
        }
        if self.tls_verify == Some(false) {
            settings.lenient.push(name.parse::<Reference>()?.host.to_ascii_lowercase());
        }
        Ok(())
    }
}

/// What a list or a command line asks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Wanted {
    /// One image or many.
    pub what: What,
    /// What the output is to be called.
    pub name: Option<String>,
    /// How its registry is reached.
    pub access: Arc<Access>,
    /// Where that is written, for messages.
    pub place: String,
}

impl Wanted {
    /// With an output that is called as usual; messages name `place`.
    pub fn new(what: What, place: impl Into<String>) -> Self {
        Wanted { what, name: None, access: Arc::default(), place: place.into() }
    }
}

impl<S: AsRef<OsStr>> From<S> for Wanted {
    /// The image at a source, written as a conversion takes it.
    fn from(source: S) -> Self {
        let source = source.as_ref();
        Wanted::new(What::Source(source.to_os_string()), format!("source {}", Quoted(source.as_bytes())))
    }
}

/// One image or many.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum What {
    /// A source as a conversion takes it.
    Source(OsString),
    /// The tags of a repository: all, or those that the expression is found in.
    Tags(String, Option<Regex>),
}

/// Whether the file at `path` is a list: text, where images are anything else.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when it cannot be read.
pub fn is_list(path: &Path) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    read.or_kind(ErrorKind::SourceUnavailable).doing(|| format!("reading {path:?}"))?;
    let is_utf8 = match std::str::from_utf8(&start) {
        Ok(_) => true,
        // The last character may go on.
        Err(error) => error.error_len().is_none() && start.len() as u64 == START_BYTES,
    };
    Ok(is_utf8 && !start.contains(&0) || is_plain(&start))
}

/// Whether these bytes are text of any encoding that has ASCII in it: names of files are not always UTF-8.
fn is_plain(start: &[u8]) -> bool {
    let ascii = start.iter().filter(|byte| byte.is_ascii()).count();
    let is_control = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    !start.iter().any(is_control) && ascii >= start.len() / 4 * 3 && ascii > 0
}

/// Whether `line` says just this source and this name.
pub fn says(line: &[u8], source: &OsStr, name: &str) -> bool {
    let read = lines(line, &|path| path.exists()).unwrap_or_default();
    let [Wanted { what: What::Source(read), name: Some(named), .. }] = &read[..] else { return false };
    read == source && named == name
}

/// Whether the first line is a key of YAML: no source ends with a colon.
fn begins_as_yaml(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty() && line[0] != b'#' && *line != b"---");
    first.is_some_and(|line| line.ends_with(b":"))
}

/// Reads a list: YAML where its name ends in `.yaml` or `.yml`, or its first line is a key, else lines `SOURCE [NAME]`.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when it cannot be read, [`ErrorKind::Usage`] with the line where it is not a list, and
/// [`ErrorKind::Unsupported`] for what skopeo reads in it and this does not.
pub fn read_list(path: &Path) -> Result<Vec<Wanted>> {
    let doing = || format!("list {}", Quoted(path.as_os_str().as_bytes()));
    let source = if path == Path::new("-") { Path::new("/dev/stdin") } else { path };
    let mut text = Vec::new();
    let read = File::open(source).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut text));
    read.or_kind(ErrorKind::SourceUnavailable).doing(doing)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("more than {BYTES_MAX} bytes")).doing(doing()));
    }
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if is_yaml || begins_as_yaml(&text) { yaml(&text) } else { lines(&text, &|path| path.exists()) }.doing(doing)
}

/// One source a line, and after a blank the name of its output. What as a whole is the name of a file is one source.
fn lines(text: &[u8], exists: &dyn Fn(&Path) -> bool) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    // Editors of other systems mark a text as UTF-8.
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = without_comment(line.trim_ascii(), exists);
        if line.is_empty() {
            continue;
        }
        let (source, name) = split(line, exists);
        let name = name.map(|name| String::from_utf8(name.to_vec())).transpose();
        let name = name.map_err(|_| Error::new(ErrorKind::Usage, format!("line {number}: the name is not UTF-8")))?;
        let source = OsString::from_vec(source.to_vec());
        Spec::parse(&source).doing(|| format!("line {number}"))?;
        if source == OsStr::new("-") {
            return Err(standard_input().doing(format!("line {number}")));
        }
        wanted.push(Wanted {
            what: What::Source(source),
            name,
            access: Arc::default(),
            place: format!("line {number}"),
        });
    }
    Ok(wanted)
}

pub(super) fn standard_input() -> Error {
    Error::new(ErrorKind::Usage, "standard input is one image, not one of many")
        .hint("convert it by itself, or save it to a file")
}

/// A line without its comment, which begins with `#` at the start of the line or after a blank. What names a file, the line as
/// a whole or up to a tab, has none.
fn without_comment<'a>(line: &'a [u8], exists: &dyn Fn(&Path) -> bool) -> &'a [u8] {
    let begins = |at: &usize| line[*at] == b'#' && (*at == 0 || matches!(line[at - 1], b' ' | b'\t'));
    let tab = line.iter().position(|&byte| byte == b'\t');
    let mut names = [Some(line.len()), tab].into_iter().flatten();
    let named = names.find(|&end| line.first() != Some(&b'#') && exists(Path::new(OsStr::from_bytes(&line[..end]))));
    (named.unwrap_or(0)..line.len()).find(begins).map_or(line, |at| line[..at].trim_ascii_end())
}

fn split<'a>(line: &'a [u8], exists: &dyn Fn(&Path) -> bool) -> (&'a [u8], Option<&'a [u8]>) {
    let is_there = |bytes: &[u8]| {
        let spec = Spec::parse(OsStr::from_bytes(bytes)).ok();
        // No name of an image has a blank: what follows one is the output's.
        let names_image = |spec: &Spec| spec.image().is_none_or(|image| !image.contains(' '));
        spec.filter(names_image).is_some_and(|spec| spec.path().is_some_and(exists))
    };
    let cut = |at: usize| (line[..at].trim_ascii_end(), Some(line[at..].trim_ascii_start()));
    if let Some(at) = line.iter().position(|&byte| byte == b'\t') {
        return cut(at);
    }
    match line.iter().rposition(|&byte| byte == b' ') {
        Some(at) if !is_there(line) => cut(at),
        _ => (line, None),
    }
}

/// The form of skopeo-sync(1).
fn yaml(text: &[u8]) -> Result<Vec<Wanted>> {
    let text = std::str::from_utf8(text).map_err(|_| Error::new(ErrorKind::Usage, "this is not UTF-8 text"))?;
    let registries = || -> Result<Vec<Wanted>> {
        let root = load_yaml(text)?;
        let mut wanted = Vec::new();
        for (host, body) in root.entries("the list")? {
            registry(&required(host, "the name of a registry")?, body, &mut wanted)?;
        }
        Ok(wanted)
    };
    registries().map_err(|error| error.hint(YAML_FORM))
}

fn registry(host: &str, body: &YamlNode, wanted: &mut Vec<Wanted>) -> Result<()> {
    let access = Arc::new(access(host, body)?);
    let mut add = |what, line: usize| {
        wanted.push(Wanted { what, name: None, access: Arc::clone(&access), place: format!("line {line}") });
    };
    for (key, value) in body.entries(host)? {
        match key.text().unwrap_or_default() {
            "images" => {
                for (name, tags) in value.entries("images")? {
                    let repository = format!("{host}/{}", required(name, "the name of a repository")?);
                    let tags = texts(tags, &repository)?;
                    if tags.is_empty() {
                        add(What::Tags(checked(repository, name.line)?, None), name.line);
                        continue;
                    }
                    for (tag, line) in tags {
                        let separator = if tag.contains(':') { '@' } else { ':' };
                        let reference = checked(format!("{repository}{separator}{tag}"), line)?;
                        add(What::Source(format!("docker://{reference}").into()), line);
                    }
                }
            }
            "images-by-tag-regex" => {
                for (name, expression) in value.entries("images-by-tag-regex")? {
                    let repository = format!("{host}/{}", required(name, "the name of a repository")?);
                    let expression = Regex::new(&required(expression, "a regular expression")?)
                        .map_err(|error| refuse(expression.line, error))?;
                    add(What::Tags(checked(repository, name.line)?, Some(expression)), name.line);
                }
            }
            "credentials" | "tls-verify" => {}
            other @ ("images-by-semver" | "cert-dir") => {
                let hint = match other {
                    "cert-dir" => "put the certificates into ~/.config/containers/certs.d/HOST",
                    _ => "write images-by-tag-regex",
                };
                let message = format!("line {}: {other} is not supported", key.line);
                return Err(Error::new(ErrorKind::Unsupported, message).hint(hint));
            }
            _ => return Err(refuse(key.line, format!("{} has no {}", YAML_KEYS, key.name()))),
        }
    }
    Ok(())
}

const YAML_KEYS: &str = "a registry with images, images-by-tag-regex, credentials and tls-verify";

fn access(host: &str, body: &YamlNode) -> Result<Access> {
    let tls_verify = match body.get("tls-verify")? {
        None => None,
        Some(value) => match value.text() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => return Err(refuse(value.line, "tls-verify is neither true nor false")),
        },
    };
    let login = match body.get("credentials")? {
        None => None,
        Some(login) if login.is_null() => None,
        Some(login) => {
            let place = format!("{host}.credentials");
            let part = |key| required(login.required(key, &place, login.line)?, key);
            login.mapping(&place)?;
            Some(Login { username: part("username")?, password: Secret::remembered(part("password")?) })
        }
    };
    Ok(Access { login, tls_verify })
}

/// The items of a list of texts, with their lines.
fn texts(node: &YamlNode, what: &str) -> Result<Vec<(String, usize)>> {
    match &node.data {
        YamlData::Sequence(items) => {
            items.iter().map(|item: &Rc<YamlNode>| Ok((required(item, "a tag")?, item.line))).collect()
        }
        _ if node.is_null() => Ok(Vec::new()),
        _ => Err(refuse(node.line, format!("{what} is not a list of tags"))),
    }
}

fn required(node: &YamlNode, what: &str) -> Result<String> {
    node.text().map(str::to_string).ok_or_else(|| refuse(node.line, format!("this is not {what}")))
}

fn checked(reference: String, line: usize) -> Result<String> {
    reference.parse::<Reference>().doing(|| format!("line {line}")).map(|_| reference)
}

fn refuse(line: usize, message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, format!("line {line}: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Option<String>)> {
        let wanted = lines(text.as_bytes(), &|path| ["a b.tar", "a #b.tar"].map(Path::new).contains(&path)).unwrap();
        let source = |what: What| match what {
            What::Source(source) => source.into_string().unwrap(),
            What::Tags(..) => panic!(),
        };
        wanted.into_iter().map(|it| (source(it.what), it.name)).collect()
    }

    #[test]
    fn lines_are_sources_and_names() {
        let some = |source: &str, name: &str| (source.to_string(), Some(name.to_string()));
        let one = |source: &str| (source.to_string(), None);
        assert_eq!(
            read(
                "\u{feff}# x\n\n a.tar \r\nb.tar # x\nb.tar\t#x\nb.tar n#1 # x y\na #b.tar\tn # x\n\
                 docker://h/x:1 x1\na b.tar\na b.tar n\nc d.tar\te\ndocker-archive:a b.tar:t:1\n\
                 docker-archive:a b.tar:t:1 n\n"
            ),
            [
                one("a.tar"),
                one("b.tar"),
                one("b.tar"),
                some("b.tar", "n#1"),
                some("a #b.tar", "n"),
                some("docker://h/x:1", "x1"),
                one("a b.tar"),
                some("a b.tar", "n"),
                some("c d.tar", "e"),
                one("docker-archive:a b.tar:t:1"),
                some("docker-archive:a b.tar:t:1", "n"),
            ]
        );
        for bad in ["-", "docker://", "x\t\u{0}\n-"] {
            let error = lines(bad.as_bytes(), &|_| false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad}");
            assert!(error.to_string().contains("line "), "{error}");
        }
    }

    const LIST: &str = "\
r.example.com:
  images:
    busybox: []
    redis:
      - '1.0'
      - \"sha256:0000000000000000000000000000000011111111111111111111111111111111\"
  images-by-tag-regex:
    nginx: ^1\\.13\\.[12]-alpine
  credentials:
    username: john
    password: this is a secret
  tls-verify: false
quay.io:
  images:
    coreos/etcd: [latest]
";

    #[test]
    fn a_list_of_skopeo_is_read() {
        let wanted = yaml(LIST.as_bytes()).unwrap();
        let shown: Vec<String> = wanted
            .iter()
            .map(|it| match &it.what {
                What::Source(source) => source.to_str().unwrap().to_string(),
                What::Tags(name, matching) => format!("{name} {:?}", matching.as_ref().map(Regex::as_str)),
            })
            .collect();
        let digest = "sha256:0000000000000000000000000000000011111111111111111111111111111111";
        assert_eq!(
            shown,
            [
                "r.example.com/busybox None".to_string(),
                "docker://r.example.com/redis:1.0".to_string(),
                format!("docker://r.example.com/redis@{digest}"),
                r#"r.example.com/nginx Some("^1\\.13\\.[12]-alpine")"#.to_string(),
                "docker://quay.io/coreos/etcd:latest".to_string(),
            ]
        );
        let access = &wanted[1].access;
        assert_eq!((access.login.as_ref().unwrap().username.as_str(), access.tls_verify), ("john", Some(false)));
        assert_eq!(*wanted[4].access, Access::default());
        assert_eq!(wanted[1].place, "line 5");
    }

    #[test]
    fn yaml_is_known_by_its_first_line_and_lines_say_what_they_can() {
        assert!(begins_as_yaml(LIST.as_bytes()) && begins_as_yaml(b"# x\n---\nh:\n"));
        assert!(!begins_as_yaml(b"docker://h/x:1\n") && !begins_as_yaml(b""));
        let says = |line: &[u8], source: &str| says(line, OsStr::new(source), "n");
        assert!(says(b"x.tar\tn\n", "x.tar") && says(b"x y.tar\tn\n", "x y.tar"));
        for (line, source) in [(&b"x\ny.tar\tn\n"[..], "x\ny.tar"), (b"x\ty\tn\n", "x\ty"), (b" x\tn\n", " x")] {
            assert!(!says(line, source), "{source:?}");
        }
    }

    #[test]
    fn what_is_not_meant_or_not_done_names_the_line() {
        for (text, kind, message) in [
            ("- a", ErrorKind::Usage, "line 1: the list is not a mapping"),
            ("h:\n  images-by-semver:\n    a: '>= 1'", ErrorKind::Unsupported, "line 2: images-by-semver"),
            ("h:\n  cert-dir: /x", ErrorKind::Unsupported, "line 2: cert-dir"),
            ("h:\n  image: {}", ErrorKind::Usage, "line 2: "),
            ("h:\n  images:\n    x: 1", ErrorKind::Usage, "line 3: h/x is not a list of tags"),
            ("h:\n  images:\n    X: []", ErrorKind::Usage, "line 3: "),
            ("h:\n  images:\n    x: ['a b']", ErrorKind::Usage, "line 3: "),
            ("h:\n  images-by-tag-regex:\n    x: '('", ErrorKind::Usage, "line 3: "),
            ("h:\n  tls-verify: maybe", ErrorKind::Usage, "line 2: tls-verify"),
            ("h:\n  credentials: { username: a }", ErrorKind::Usage, "line 2: h.credentials has no password"),
        ] {
            let error = yaml(text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}: {error}");
            assert!(error.to_string().contains(message) && error.remedy().is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn lists_are_text_and_images_are_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x");
        let told = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            is_list(&path).unwrap()
        };
        assert!(told(b"docker://x\n") && told(b"") && told("ä".repeat(5000).as_bytes()));
        assert!(told(b"# caf\xe9\nx.tar\n"));
        assert!(!told(&[0x1f, 0x8b, 8, 0]) && !told(b"a\0") && !told(&[0xff]) && !is_list(place.path()).unwrap());
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives/hello.tar");
        assert!(!is_list(&image).unwrap());
    }
}
