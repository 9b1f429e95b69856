//! `registries.conf` of containers/image, version 2 (containers-registries.conf(5)): which registry stands for which names,
//! its mirrors, what is blocked, and what short names mean; as skopeo, Podman and Apptainer read it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::settings_file::read_settings_file;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Quoted, Reference};

/// How much of a file is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Which files are read.
#[derive(Debug, Clone, Default)]
pub struct RegistriesConfFiles {
    /// The main files, of which the first that is there counts.
    pub main: Vec<PathBuf>,
    /// Whether one of them must be there.
    pub is_required: bool,
    /// Directories of `*.conf` files that add to it, read in this order, each in the order of its names.
    pub directories: Vec<PathBuf>,
}

/// What all files together say.
#[derive(Debug, Clone, Default)]
pub struct RegistriesConf {
    registries: BTreeMap<String, Registry>,
    search: Vec<String>,
    aliases: BTreeMap<String, String>,
}

/// A place to ask for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullSource {
    /// What to ask for there.
    pub reference: Reference,
    /// Whether its certificate is not looked at, and plain HTTP will do.
    pub is_insecure: bool,
}

/// One file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    #[serde(default)]
    registry: Vec<Registry>,
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1.
    registries: Option<toml::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Endpoint>,
    #[serde(default)]
    pull_from_mirror: String,
    /// The file that says all this.
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Endpoint {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

impl RegistriesConf {
    /// Reads the files; one that is not there says nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where one cannot be read or understood.
    pub fn load(files: &RegistriesConfFiles) -> Result<RegistriesConf> {
        let mut conf = RegistriesConf::default();
        let mut is_found = false;
        for path in &files.main {
            if conf.add(path)? {
                is_found = true;
                break;
            }
        }
        if let Some(path) = files.main.first().filter(|_| files.is_required && !is_found) {
            return Err(unreadable(path, "no such file"));
        }
        for path in files.directories.iter().flat_map(|directory| files_in(directory)) {
            conf.add(&path)?;
        }
        Ok(conf)
    }

    /// Adds what a file says, which takes the place of what was said of the same prefix; whether it is there.
    fn add(&mut self, path: &Path) -> Result<bool> {
        let text = match read_settings_file(path, FILE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            read => read.map_err(|error| unreadable(path, &error.to_string()))?,
        };
        let text = String::from_utf8(text).map_err(|_| unreadable(path, "not UTF-8"))?;
        // The error of the parser shows the line, and a file of settings may hold no secret.
        let document: Document = toml::from_str(&text).map_err(|error| unreadable(path, error.message()))?;
        if document.registries.is_some() {
            let why = "it has the format of version 1, which is no longer supported";
            return Err(unreadable(path, why).hint("write [[registry]] tables: see containers-registries.conf(5)"));
        }
        let mut registries = document.registry;
        for registry in &mut registries {
            registry.settle(path).map_err(|why| unreadable(path, &why))?;
        }
        refuse_contradictions(&registries).map_err(|why| unreadable(path, &why))?;
        self.registries.extend(registries.into_iter().map(|registry| (registry.prefix.clone(), registry)));
        if let Some(search) = document.unqualified_search_registries {
            self.search = search;
        }
        self.aliases.extend(document.aliases);
        Ok(true)
    }

    /// Where to ask for an image, in order: mirrors, and last the registry itself. Without an entry for it, that is the
    /// reference as it stands.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where the registry is blocked, or an entry makes no reference of it.
    pub fn pull_sources(&self, reference: &Reference) -> Result<Vec<PullSource>> {
        let name = reference.to_string();
        let plain = PullSource { reference: reference.clone(), is_insecure: false };
        let Some((registry, matched)) = self.registry_of(reference) else { return Ok(vec![plain]) };
        if registry.blocked {
            return Err(blocked(reference, registry));
        }
        let is_digest = reference.digest.is_some();
        let serves = |mirror: &&Endpoint| match mirror.pull_from_mirror {
            _ if registry.mirror_by_digest_only => is_digest,
            PullFrom::All => true,
            PullFrom::DigestOnly => is_digest,
            PullFrom::TagOnly => !is_digest,
        };
        let mirrors = registry.mirror.iter().filter(serves).map(|mirror| (mirror.location.as_str(), mirror.insecure));
        let mut sources = Vec::new();
        for (location, is_insecure) in mirrors.chain([(registry.location.as_str(), registry.insecure)]) {
            let rewritten = if location.is_empty() { name.clone() } else { format!("{location}{}", &name[matched..]) };
            let parsed = rewritten.parse::<Reference>().ok().filter(|parsed| parsed.to_string() == rewritten);
            let reference = parsed.ok_or_else(|| {
                let why =
                    format!("location {location:?} makes {rewritten:?} of {name:?}, which is not an image reference");
                unreadable(&registry.file, &why)
            })?;
            sources.push(PullSource { reference, is_insecure });
        }
        // What is rewritten to a registry that is blocked is not asked there.
        let blocker =
            |source: &PullSource| self.registry_of(&source.reference).map(|(it, _)| it).filter(|it| it.blocked);
        let first = sources.iter().find_map(blocker);
        sources.retain(|source| blocker(source).is_none());
        match first {
            Some(registry) if sources.is_empty() => Err(blocked(reference, registry)),
            _ => Ok(sources),
        }
    }

    /// Refuses to write to a registry that is blocked; whether it is insecure. Neither mirrors nor locations count: what is
    /// pushed goes where the reference says, as skopeo has it.
    ///
    /// # Errors
    /// [`ErrorKind::Network`] where it is blocked.
    pub(super) fn expect_writable(&self, reference: &Reference) -> Result<bool> {
        match self.registry_of(reference) {
            Some((registry, _)) if registry.blocked => Err(blocked(reference, registry)),
            found => Ok(found.is_some_and(|(registry, _)| registry.insecure)),
        }
    }

    /// The entry with the longest prefix of the name without tag and digest, and how much of it that is.
    fn registry_of(&self, reference: &Reference) -> Option<(&Registry, usize)> {
        let name = format!("{}/{}", reference.host, reference.repository);
        let fitting = self.registries.values().filter_map(|it| Some((it, matched(&name, &it.prefix)?)));
        // Of equally long ones the first by name, as containers/image has it.
        fitting.reduce(|best, other| if other.0.prefix.len() > best.0.prefix.len() { other } else { best })
    }

    /// What a name without a registry means: its alias, or else the name on the one registry that unqualified names are
    /// looked for on.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where nothing says what it means, or more than one registry may have it.
    pub fn resolve_short_name(&self, name: &str) -> Result<Reference> {
        let (bare, rest) = name.find([':', '@']).map_or((name, ""), |at| name.split_at(at));
        if let Some(alias) = self.aliases.get(bare).filter(|alias| !alias.is_empty()) {
            return format!("{alias}{rest}").parse();
        }
        let unclear = |why: String| {
            Error::new(ErrorKind::Usage, format!("short name {name:?} {why}"))
                .hint(format!("write the registry, too, for example docker.io/library/{name}"))
        };
        match self.search.as_slice() {
            [one] if one == "docker.io" => name.parse(),
            [one] => format!("{one}/{name}").parse(),
            [] => Err(unclear("has no alias in registries.conf, which names no registry to search".to_string())),
            several => Err(unclear(format!("may be on any of {}", several.join(", ")))),
        }
    }
}

impl Registry {
    /// Checks the entry and fills in what follows from the rest.
    fn settle(&mut self, file: &Path) -> std::result::Result<(), String> {
        self.file = file.to_path_buf();
        self.location = location(&self.location)?;
        self.prefix = location(&self.prefix)?;
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        let is_wildcard = self.prefix.starts_with("*.");
        if self.location.is_empty() && !is_wildcard {
            return Err(if self.prefix.is_empty() {
                "a registry has neither location nor prefix".to_string()
            } else {
                format!("prefix {:?} has no location, and is not like *.example.com", self.prefix)
            });
        }
        let after = self.prefix.strip_prefix("*.");
        if after.unwrap_or(&self.prefix).contains('*') || after.is_some_and(|host| host.contains('/')) {
            return Err(format!("prefix {:?} has a * and is not like *.example.com", self.prefix));
        }
        if !self.pull_from_mirror.is_empty() {
            return Err(format!("{:?}: pull-from-mirror is for mirrors only", self.prefix));
        }
        for mirror in &mut self.mirror {
            mirror.location = location(&mirror.location)?;
            if mirror.location.is_empty() {
                return Err(format!("a mirror of {:?} has no location", self.prefix));
            }
            if self.mirror_by_digest_only && mirror.pull_from_mirror != PullFrom::All {
                return Err(format!(
                    "{:?}: mirror-by-digest-only and pull-from-mirror exclude each other",
                    self.prefix
                ));
            }
        }
        Ok(())
    }
}

/// A host, perhaps with a path, without the slash at its end.
fn location(text: &str) -> std::result::Result<String, String> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
        return Err(format!("location {text:?} must not have a scheme"));
    }
    if trimmed.is_empty() && !text.is_empty() {
        return Err(format!("location {text:?} is empty"));
    }
    Ok(trimmed.to_string())
}

/// One location cannot be blocked, or insecure, and not.
fn refuse_contradictions(registries: &[Registry]) -> std::result::Result<(), String> {
    for (at, one) in registries.iter().enumerate() {
        for other in registries[at + 1..].iter().filter(|other| other.location == one.location) {
            if one.insecure != other.insecure || one.blocked != other.blocked {
                let what = if one.insecure == other.insecure { "blocked" } else { "insecure" };
                return Err(format!("location {:?} is both {what} and not", one.location));
            }
        }
    }
    Ok(())
}

/// How much of a name a prefix stands for: all of it, or up to where a part of it ends.
fn matched(name: &str, prefix: &str) -> Option<usize> {
    let rest_at = |end: usize| match name.as_bytes().get(end) {
        None | Some(b':' | b'/' | b'@') => Some(end),
        Some(_) => None,
    };
    match prefix.strip_prefix('*') {
        None => name.strip_prefix(prefix).and_then(|_| rest_at(prefix.len())),
        Some(suffix) => {
            // `*.example.com` stands for any host below it.
            let host_end = name.find('/').unwrap_or(name.len());
            let at = name.find(suffix).filter(|&at| at > 0 && at < host_end)?;
            rest_at(at + suffix.len())
        }
    }
}

/// The files of a directory in the order of their names; none where it is not there.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files
}

fn blocked(reference: &Reference, registry: &Registry) -> Error {
    let file = Quoted(registry.file.as_os_str().as_encoded_bytes());
    Error::new(ErrorKind::Network, format!("{reference} is blocked by {file} (prefix {:?})", registry.prefix))
        .hint("use an image from another registry, or ask whoever keeps that file")
}

fn unreadable(path: &Path, why: &str) -> Error {
    let quoted = Quoted(path.as_os_str().as_encoded_bytes());
    Error::new(ErrorKind::Network, format!("{quoted}: {why}"))
        .hint("correct that file: see containers-registries.conf(5)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<RegistriesConf> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registries.conf");
        std::fs::write(&file, text).unwrap();
        RegistriesConf::load(&RegistriesConfFiles { main: vec![file], ..RegistriesConfFiles::default() })
    }

    fn sources(conf: &RegistriesConf, name: &str) -> Vec<String> {
        let sources = conf.pull_sources(&name.parse().unwrap()).unwrap();
        let shown = |it: PullSource| format!("{}{}", if it.is_insecure { "!" } else { "" }, it.reference);
        sources.into_iter().map(shown).collect()
    }

    #[test]
    fn names_are_rewritten() {
        let conf = conf(
            r#"
            [[registry]]
            prefix = "example.com/foo"
            location = "internal.net/bar/"
            [[registry]]
            location = "example.com"
            insecure = true
            [[registry.mirror]]
            location = "mirror.net:5000/ex"
            [[registry]]
            prefix = "*.wild.org"
            [[registry.mirror]]
            location = "mirror.net/wild"
            "#,
        )
        .unwrap();
        for (name, expected) in [
            ("example.com/foo/x:1", &["internal.net/bar/x:1"][..]),
            ("example.com/foobar:1", &["mirror.net:5000/ex/foobar:1", "!example.com/foobar:1"]),
            ("a.b.wild.org/x:1", &["mirror.net/wild/x:1", "a.b.wild.org/x:1"]),
            ("wild.org/x:1", &["wild.org/x:1"]),
            ("other.net/x:1", &["other.net/x:1"]),
        ] {
            assert_eq!(sources(&conf, name), expected, "{name}");
        }
    }

    #[test]
    fn mirrors_may_serve_tags_or_digests_only() {
        let text = r#"
            [[registry]]
            location = "h.net"
            [[registry.mirror]]
            location = "all.net"
            [[registry.mirror]]
            location = "digest.net"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tag.net"
            pull-from-mirror = "tag-only"
            "#;
        let digest = format!("h.net/x@sha256:{}", "0".repeat(64));
        let hosts = |conf: &RegistriesConf, name: &str| -> Vec<String> {
            let named = |name: String| name.split('/').next().unwrap().to_string();
            sources(conf, name).into_iter().map(named).collect()
        };
        let mixed = conf(text).unwrap();
        assert_eq!(hosts(&mixed, "h.net/x:1"), ["all.net", "tag.net", "h.net"]);
        assert_eq!(hosts(&mixed, &digest), ["all.net", "digest.net", "h.net"]);
        let both = text.replacen("location", "mirror-by-digest-only = true\nlocation", 1);
        assert!(conf(&both).is_err());
        let only = "[[registry]]\nlocation = \"h.net\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.net\"";
        let only = conf(only).unwrap();
        assert_eq!((hosts(&only, "h.net/x:1").len(), hosts(&only, &digest).len()), (1, 2));
    }

    #[test]
    fn mirrors_that_are_blocked_are_left_out() {
        let text = "[[registry]]\nprefix = \"h.net\"\nlocation = \"good.net\"\n[[registry.mirror]]\nlocation = \"bad.net\"\n\
                    [[registry]]\nlocation = \"bad.net\"\nblocked = true";
        assert_eq!(sources(&conf(text).unwrap(), "h.net/x:1"), ["good.net/x:1"]);
        let named = "[[registry]]\nprefix = \"h.net\"\nlocation = \"good.net\"\nblocked = true";
        assert!(conf(named).unwrap().pull_sources(&"h.net/x".parse().unwrap()).is_err());
    }

    #[test]
    fn what_is_blocked_or_makes_no_sense_is_told_with_its_file() {
        let blocked = conf("[[registry]]\nlocation = \"bad.net\"\nblocked = true").unwrap();
        let error = blocked.pull_sources(&"bad.net/x".parse().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("is blocked by") && error.to_string().contains("registries.conf"),
            "{error}"
        );
        for bad in [
            "[[registry]]",
            "[[registry]]\nprefix = \"x.net\"",
            "[[registry]]\nlocation = \"http://x.net\"",
            "[[registry]]\nprefix = \"x.*.net\"\nlocation = \"y.net\"",
            "[[registry]]\nlocation = \"x.net\"\npull-from-mirror = \"all\"",
            "[[registry]]\nlocation = \"x.net\"\n[[registry.mirror]]\ninsecure = true",
            "[[registry]]\nlocation = \"x.net\"\n[[registry.mirror]]\nlocation = \"m\"\npull-from-mirror = \"some\"",
            "[[registry]]\nlocation = \"x.net\"\n[[registry]]\nprefix = \"y.net\"\nlocation = \"x.net\"\ninsecure = true",
            "[registries.search]\nregistries = [\"x.net\"]",
            "registry = 1",
            "=",
        ] {
            let error = conf(bad).map(|_| ()).unwrap_err();
            assert!(
                error.kind() == ErrorKind::Network && error.to_string().contains("registries.conf"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn short_names_are_resolved_where_they_mean_one_thing() {
        let aliases = "[aliases]\n\"fedora\" = \"registry.fedoraproject.org/fedora\"\n";
        let of = |text: &str, name: &str| conf(text).unwrap().resolve_short_name(name).map(|it| it.to_string());
        let one = format!("unqualified-search-registries = [\"quay.io\"]\n{aliases}");
        assert_eq!(of(&one, "fedora:39").unwrap(), "registry.fedoraproject.org/fedora:39");
        assert_eq!(of(&one, "org/app:1").unwrap(), "quay.io/org/app:1");
        assert_eq!(
            of("unqualified-search-registries = [\"docker.io\"]", "debian").unwrap(),
            "docker.io/library/debian:latest"
        );
        let two = "unqualified-search-registries = [\"quay.io\", \"docker.io\"]";
        assert!(of(two, "x").unwrap_err().to_string().contains("any of quay.io, docker.io"));
        assert_eq!(of("", "x").unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn what_is_added_later_takes_the_place_of_the_same_prefix() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let entry =
            |prefix: &str, location: &str| format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\n");
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("main"), entry("a.net", "main.net") + &entry("b.net", "main.net")).unwrap();
        std::fs::write(path("d/2.conf"), entry("a.net", "second.net")).unwrap();
        std::fs::write(path("d/1.conf"), entry("a.net", "first.net")).unwrap();
        std::fs::write(path("d/3.txt"), "not read").unwrap();
        let files = RegistriesConfFiles {
            main: vec![path("absent"), path("main"), path("d/1.conf")],
            is_required: false,
            directories: vec![path("none"), path("d")],
        };
        let conf = RegistriesConf::load(&files).unwrap();
        assert_eq!(sources(&conf, "a.net/x:1"), ["second.net/x:1"]);
        assert_eq!(sources(&conf, "b.net/x:1"), ["main.net/x:1"]);
        let required = RegistriesConfFiles { main: vec![path("absent")], is_required: true, ..files };
        assert!(RegistriesConf::load(&required).is_err());
    }
}
