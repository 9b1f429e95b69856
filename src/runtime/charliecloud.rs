//! What Charliecloud's `ch-image` writes into an image, and where `ch-run` mounts to
//! (<https://github.com/hpc/charliecloud>, lib/image.py).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::site::Site;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Config, Note, Quoted};

const DIRECTORIES: [&[u8]; 8] = [b"bin", b"dev", b"etc", b"mnt", b"proc", b"sys", b"tmp", b"usr"];

pub(super) fn prepare(site: &mut Site<'_>, config: &Config) -> Result<()> {
    let execution = config.execution()?;
    for path in DIRECTORIES {
        site.directory(path)?;
    }
    for number in 0..10 {
        site.directory(format!("mnt/{number}").as_bytes())?;
    }
    // `ch-run` binds its own to all four.
    for path in [&b"etc/hosts"[..], b"etc/resolv.conf", b"etc/passwd", b"etc/group"] {
        if !site.exists(path) {
            site.file(path, Vec::new())?;
        }
    }
    let mut torn =
        Note::new("environment-torn", "variables with line ends cannot be in /ch/environment and were left out", 0);
    let mut environment = String::new();
    for (name, value) in variables(config) {
        if name.contains('\n') || value.contains('\n') {
            torn.count += 1;
            torn.example(Quoted(name.as_bytes()));
            continue;
        }
        let _ = writeln!(environment, "{name}={value}");
    }
    site.note(torn);
    for path in volumes(&execution) {
        site.directory(path.as_bytes())?;
    }
    site.file(b"ch/environment", environment.into_bytes())?;
    site.file(b"ch/config.pulled.json", config.raw().to_vec())?;
    site.file(b"ch/entrypoint", length_value(config.entrypoint()))?;
    site.file(b"ch/cmd", length_value(config.cmd()))?;
    site.file(b"ch/metadata.json", metadata(config, &execution)?)
}

/// The last of each name counts.
fn variables(config: &Config) -> BTreeMap<&str, &str> {
    config.env().iter().filter_map(|word| word.split_once('=')).collect()
}

fn field<'a>(execution: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    execution.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn volumes(execution: &Map<String, Value>) -> Vec<&String> {
    field(execution, "Volumes").and_then(Value::as_object).into_iter().flat_map(Map::keys).collect()
}

/// Words as `ch-run` reads them since 0.45: a magic word, then each with its length before it, big-endian.
fn length_value(words: &[String]) -> Vec<u8> {
    let mut bytes = b"angi".to_vec();
    for word in words {
        bytes.extend_from_slice(&u32::try_from(word.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes
}

fn metadata(config: &Config, execution: &Map<String, Value>) -> Result<Vec<u8>> {
    let workdir = if config.working_dir().is_empty() { "/" } else { config.working_dir() };
    let shell = field(execution, "Shell").cloned().filter(Value::is_array);
    let document = json!({
        "arch": config.platform().architecture,
        "arg": {},
        "cmd": config.cmd(),
        "cwd": workdir,
        "entrypoint": config.entrypoint(),
        "env": variables(config),
        "history": config.raw_history()?.unwrap_or_else(|| json!([])),
        "labels": config.labels(),
        "shell": shell.unwrap_or_else(|| json!(["/bin/sh", "-c"])),
        "volumes": volumes(execution),
    });
    let mut bytes = serde_json::to_vec_pretty(&document)
        .map_err(|error| Error::new(ErrorKind::Bug, format!("the metadata is not JSON: {error}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
