//! The values of options and of the environment, as types.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::environment::Environment;
use super::options::OutputOptions;
use super::settings::JOBS_HINT;
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{JOBS_MAX, open_now};
use crate::medperf;
use crate::model::{BindTarget, Digest, EntryPath, Platform, Quoted};
use crate::output::WriteOptions;

pub(super) fn jobs(output: &OutputOptions, environment: &Environment) -> Result<NonZeroUsize> {
    jobs_of(output.jobs.as_deref(), environment)
}

/// How many threads may work at once, as `--jobs` says.
pub(super) fn jobs_of(text: Option<&str>, environment: &Environment) -> Result<NonZeroUsize> {
    let Some(text) = text else {
        let usual = environment.settings.jobs.as_ref().map_or(environment.parallelism, |jobs| jobs.value);
        return Ok(usual.min(JOBS_MAX));
    };
    text.parse()
        .ok()
        .filter(|&jobs| jobs <= JOBS_MAX)
        .ok_or_else(|| usage(format!("option --jobs: {text:?} is not a number of threads"), JOBS_HINT))
}

/// `--arch` and `--arch-variant` of Apptainer as a platform; the architecture is this machine's where only the variant is given.
pub(super) fn platform_of(arch: Option<&str>, variant: Option<&str>) -> Option<String> {
    let variant = variant
        .filter(|variant| !variant.is_empty())
        .map(|variant| format!("/{}{variant}", if variant.starts_with('v') { "" } else { "v" }));
    if arch.is_none() && variant.is_none() {
        return None;
    }
    let host = Platform::host().architecture;
    Some(format!("linux/{}{}", arch.unwrap_or(&host), variant.unwrap_or_default()))
}

/// How much memory the files of an image may take: bytes, or with a unit.
pub(super) fn memory_bytes_max(output: &OutputOptions) -> Result<u64> {
    memory_bytes(output.max_memory.as_deref())
}

/// The same, as `--max-memory` says.
pub(super) fn memory_bytes(text: Option<&str>) -> Result<u64> {
    let Some(text) = text else { return Ok(WriteOptions::default().memory_bytes_max) };
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let bytes = digits.parse().ok().filter(|_| plain).and_then(|number: u64| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| {
        usage(format!("option --max-memory: {text:?} is not a size"), "write a number of bytes, or 512M, or 4G")
    })
}

/// Permission bits as given.
pub(super) fn mode(text: Option<&str>) -> Result<Option<u32>> {
    let Some(text) = text else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| digits && mode <= 0o777);
    mode.map(Some).ok_or_else(|| {
        usage(
            format!("option --mode: {text:?} is not a file mode"),
            "write octal permissions from 000 to 777, such as 644",
        )
    })
}

/// The reproducible-builds.org specification: an ASCII integer, and an error where it is malformed.
pub(super) fn source_date_epoch(environment: &Environment) -> Result<Option<i64>> {
    let Some(value) = environment.variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let digits = value.as_bytes().iter().all(u8::is_ascii_digit);
    match value.to_str().filter(|_| digits).and_then(|text| text.parse().ok()) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(usage(
            format!("environment SOURCE_DATE_EPOCH: {} is not a number of seconds", Quoted(value.as_bytes())),
            "set it to whole seconds since 1970, or unset it",
        )),
    }
}

pub(super) fn entry_paths(option: &str, given: &[OsString]) -> Result<Vec<EntryPath>> {
    let parse = |text: &OsString| {
        let refuse = |why: String| {
            let quoted = Quoted(text.as_bytes());
            usage(format!("option {option}: {quoted}: {why}"), "write a path inside the image, such as /mlcube_io0")
        };
        let path = EntryPath::parse(text.as_bytes()).map_err(|error| refuse(error.to_string()))?;
        if path.is_root() { Err(refuse("this is the root itself".to_string())) } else { Ok(path) }
    };
    given.iter().map(parse).collect()
}

/// What a container_config.yaml binds to.
pub(super) fn bind_targets(path: &Path) -> Result<Vec<BindTarget>> {
    let doing = || format!("option --medperf-config: {}", Quoted(path.as_os_str().as_bytes()));
    // One byte more than is read of it says that there is too much.
    let file = open_now(path).or_kind(ErrorKind::SourceUnavailable).doing(doing)?;
    let mut bytes = Vec::new();
    let read = file.take(medperf::BYTES_MAX + 1).read_to_end(&mut bytes);
    read.or_kind(ErrorKind::SourceUnavailable).doing(doing)?;
    medperf::bind_targets(&bytes).doing(doing)
}

pub(super) fn label(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(usage(format!("option --label: {text:?} is not a label"), "write KEY=VALUE")),
    }
}

/// A SHA-256 as people paste it: with or without `sha256:`, in either case.
pub(super) fn expected(option: &str, text: Option<&str>) -> Result<Option<Digest>> {
    let Some(text) = text else { return Ok(None) };
    let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    Digest::from_hex(&hex).map(Some).map_err(|_| {
        usage(format!("option {option}: {text:?} is not a SHA-256"), "write 64 hex digits, with or without \"sha256:\"")
    })
}

pub(super) fn parsed<T: std::str::FromStr<Err = Error>>(option: &str, text: Option<&str>) -> Result<Option<T>> {
    text.map(str::parse).transpose().doing(|| format!("option {option}"))
}

pub(super) fn usage(message: impl Display, hint: impl Display) -> Error {
    Error::new(ErrorKind::Usage, message).hint(hint)
}
