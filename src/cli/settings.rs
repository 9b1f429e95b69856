//! What a site or a user has settled once, in a file: `/etc/sif-convert.toml`, then
//! `$XDG_CONFIG_HOME/sif-convert/config.toml`. Of both the later counts, key by key; options and environment count more.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::environment::Environment;
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{Compression, JOBS_MAX};
use crate::registry::{Mirror, is_host, read_settings_file};

pub(super) const JOBS_HINT: &str = "write a number from 1 to 1024";
/// The longest file that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;
/// The file of the machine's administrator.
const SITE_FILE: &str = "/etc/sif-convert.toml";

/// A value, and the file that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) file: Arc<Path>,
}

/// The settings of all files, each value checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `--cache`.
    pub(super) cache: Option<Setting<PathBuf>>,
    /// Numbers of the users whose work in the cache counts, besides our own and root's.
    pub(super) cache_accounts: Option<Setting<Vec<u32>>>,
    /// How large the cache may become, in bytes.
    pub(super) cache_size: Option<Setting<u64>>,
    /// `--compression` of a SIF.
    pub(super) compression: Option<Setting<Compression>>,
    /// `--insecure`.
    pub(super) insecure: Option<Setting<Vec<String>>>,
    /// `--jobs`.
    pub(super) jobs: Option<Setting<NonZeroUsize>>,
    /// `--mirror`, by the host that is mirrored.
    pub(super) mirrors: BTreeMap<String, Setting<Mirror>>,
    /// `--tmpdir`.
    pub(super) tmpdir: Option<Setting<PathBuf>>,
    /// The files that were looked for, the later wins; whether each is there.
    pub(super) files: Vec<(Arc<Path>, bool)>,
}

/// A user by name or number, or by a number in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the name or the number of a user")]
enum Account {
    Number(u32),
    Name(String),
}

/// A file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    cache: Option<PathBuf>,
    cache_accounts: Option<Vec<Account>>,
    cache_size: Option<String>,
    compression: Option<String>,
    insecure: Option<Vec<String>>,
    jobs: Option<NonZeroUsize>,
    #[serde(default)]
    mirrors: BTreeMap<String, String>,
    tmpdir: Option<PathBuf>,
}

/// Whether no file of settings is meant. A home directory that cannot be entered is that of someone else: of root, where HOME
/// outlives `setpriv` or a batch system's change of user.
fn is_absent(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        io::ErrorKind::PermissionDenied => fs::metadata(path).is_err(),
        _ => false,
    }
}

impl Settings {
    /// Reads the files that `environment` points to.
    pub(super) fn load(environment: &Environment) -> Result<Settings> {
        let path = |name: &str| environment.variable(name).filter(|value| !value.is_empty()).map(OsStr::to_os_string);
        let home = || Some(PathBuf::from(path("HOME")?).join(".config"));
        let user = path("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
        let user = user.map(|directory| directory.join("sif-convert/config.toml"));
        Settings::of_files([Some(SITE_FILE.into()), user].into_iter().flatten())
    }

    fn of_files(paths: impl Iterator<Item = PathBuf>) -> Result<Settings> {
        let mut settings = Settings::default();
        for path in paths {
            let read = read_settings_file(&path, BYTES_MAX).and_then(|bytes| {
                String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            });
            let text = match read {
                Err(error) if is_absent(&path, &error) => None,
                read => Some(read.or_kind(ErrorKind::Usage).doing(|| format!("reading settings {path:?}"))?),
            };
            let file: Arc<Path> = path.into();
            if let Some(text) = &text {
                settings.add(text, &file).doing(|| format!("settings {file:?}"))?;
            }
            settings.files.push((file, text.is_some()));
        }
        Ok(settings)
    }

    /// Adds what `text`, the content of `file`, says.
    fn add(&mut self, text: &str, file: &Arc<Path>) -> Result<()> {
        let document: Document = toml::from_str(text).map_err(|error| malformed(text, &error))?;
        replace(&mut self.cache, document.cache, file, |path| absolute("cache", path))?;
        replace(&mut self.cache_accounts, document.cache_accounts, file, accounts)?;
        replace(&mut self.cache_size, document.cache_size, file, |text| bytes(&text).doing(|| "cache_size"))?;
        replace(&mut self.tmpdir, document.tmpdir, file, |path| absolute("tmpdir", path))?;
        replace(&mut self.jobs, document.jobs, file, threads)?;
        replace(&mut self.compression, document.compression, file, |text| text.parse().doing(|| "compression"))?;
        replace(&mut self.insecure, document.insecure, file, hosts)?;
        for (host, mirror) in document.mirrors {
            let value = format!("{host}={mirror}").parse().doing(|| "mirrors")?;
            self.mirrors.insert(host, Setting { value, file: Arc::clone(file) });
        }
        Ok(())
    }
}

fn replace<W, T>(
    setting: &mut Option<Setting<T>>,
    written: Option<W>,
    file: &Arc<Path>,
    check: impl FnOnce(W) -> Result<T>,
) -> Result<()> {
    if let Some(written) = written {
        *setting = Some(Setting { value: check(written)?, file: Arc::clone(file) });
    }
    Ok(())
}

fn absolute(key: &str, path: PathBuf) -> Result<PathBuf> {
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::new(ErrorKind::Usage, format!("{key}: {path:?} is not an absolute path"))
        .hint("write the path from the root: the file is read in any directory"))
}

/// Users by name or number.
fn accounts(accounts: Vec<Account>) -> Result<Vec<u32>> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_name = |name: &str| {
        let mut lines = users.lines().map(|line| line.split(':'));
        lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?)
    };
    let number = |account: &Account| {
        let name = match account {
            Account::Number(number) => return Ok(*number),
            Account::Name(name) => name,
        };
        name.parse().ok().or_else(|| of_name(name)).ok_or_else(|| {
            Error::new(ErrorKind::Usage, format!("cache_accounts: {name:?} is not a user in /etc/passwd"))
                .hint("write the number of the user, as \"id -u NAME\" prints it")
        })
    };
    accounts.iter().map(number).collect()
}

fn threads(jobs: NonZeroUsize) -> Result<NonZeroUsize> {
    if jobs <= JOBS_MAX {
        return Ok(jobs);
    }
    Err(Error::new(ErrorKind::Usage, format!("jobs: {jobs} is not a number of threads")).hint(JOBS_HINT))
}

/// A size with a unit of 1000 or 1024.
pub(super) fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "kB" | "KB" | "K" => Some(1000),
        "MB" | "M" => Some(1000 * 1000),
        "GB" | "G" => Some(1000 * 1000 * 1000),
        "TB" | "T" => Some(1000 * 1000 * 1000 * 1000),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let number = digits.trim_end().parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    number.ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("{text:?} is not a size")).hint("write for example 200GB or 64GiB")
    })
}

fn hosts(hosts: Vec<String>) -> Result<Vec<String>> {
    match hosts.iter().find(|host| !is_host(host)) {
        None => Ok(hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect()),
        Some(host) => Err(Error::new(ErrorKind::Usage, format!("insecure: {host:?} is not a host"))
            .hint("write HOST or HOST:PORT, as in the reference")),
    }
}

fn malformed(text: &str, error: &toml::de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let message = error.message().lines().next().unwrap_or_default();
    Error::new(ErrorKind::Usage, format!("line {line}: {message}"))
        .hint("correct the file; \"sif-convert config\" shows what it says then")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> (tempfile::TempDir, Result<Settings>) {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> =
            (0..texts.len()).map(|number| directory.path().join(format!("{number}.toml"))).collect();
        for (path, text) in paths.iter().zip(texts) {
            fs::write(path, text).unwrap();
        }
        let absent = directory.path().join("absent/x.toml");
        let settings = Settings::of_files(paths.into_iter().chain([absent]));
        (directory, settings)
    }

    #[test]
    fn the_later_file_wins_key_by_key() {
        let site = "cache = '/c'\njobs = 4\ninsecure = ['A:5000']\n[mirrors]\n'docker.io' = 'm1'\n'quay.io' = 'm2'\n";
        let user = "jobs = 2\ncompression = 'zstd:3'\ninsecure = []\n[mirrors]\n'docker.io' = 'm3/hub'\n";
        let (directory, settings) = files(&[site, user]);
        let settings = settings.unwrap();
        let origin = |name: &str| -> Arc<Path> { directory.path().join(name).into() };
        assert_eq!(settings.cache, Some(Setting { value: "/c".into(), file: origin("0.toml") }));
        assert_eq!(settings.jobs, Some(Setting { value: 2.try_into().unwrap(), file: origin("1.toml") }));
        assert_eq!(settings.compression.unwrap().value, "zstd:3".parse().unwrap());
        assert_eq!(settings.insecure.unwrap().value, Vec::<String>::new());
        assert_eq!(settings.mirrors["docker.io"].value, "docker.io=m3/hub".parse().unwrap());
        assert_eq!(settings.mirrors["quay.io"].file, origin("0.toml"));
        assert_eq!(settings.tmpdir, None);
        let found: Vec<bool> = settings.files.iter().map(|(_, found)| *found).collect();
        assert_eq!(found, [true, true, false]);
    }

    #[test]
    fn what_cannot_be_meant_names_the_file_and_the_line() {
        for (text, expected) in [
            ("jobs = 1\ncashe = '/c'\n", "line 2: unknown field `cashe`"),
            ("jobs = 0\n", "line 1: "),
            ("jobs = 'two'\n", "line 1: invalid type"),
            ("jobs = 5000\n", "jobs: 5000 is not a number of threads"),
            ("cache = 'c'\n", "cache: \"c\" is not an absolute path"),
            ("cache_size = '5 parsecs'\n", "cache_size: \"5 parsecs\" is not a size"),
            ("cache_accounts = ['no such user']\n", "cache_accounts: \"no such user\" is not a user"),
            ("compression = 'lz4'\n", "compression: \"lz4\" is not a compression"),
            ("insecure = ['a/b']\n", "insecure: \"a/b\" is not a host"),
            ("[mirrors]\n'a/b' = 'c'\n", "mirrors: \"a/b=c\" is not a mirror"),
            ("\n\n= 1\n", "line 3: "),
        ] {
            let (directory, settings) = files(&[text]);
            let error = settings.unwrap_err();
            let message = error.to_string();
            assert!(message.contains(expected) && message.contains("0.toml"), "{message}");
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.remedy().is_some());
            drop(directory);
        }
    }
}
