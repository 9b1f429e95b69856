use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::diff::{Aspect, Difference, Place};
use crate::error::Result;
use crate::model::{Config, Quoted};

/// Fields of the execution part of a config (image-spec config.md; Docker image spec v1.3), as they are written.
const FIELDS: [&str; 15] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "StopTimeout",
    "Healthcheck",
    "OnBuild",
    "Shell",
    "Memory",
    "CpuShares",
];

/// Compares how two images run, and on what. When they were made, and of which layers, plays no part.
pub(super) fn compare_configs(left: &Config, right: &Config) -> Result<Vec<Difference>> {
    let (of_left, of_right) = (fields(left)?, fields(right)?);
    let mut differences = Vec::new();
    let names: std::collections::BTreeSet<&String> = of_left.keys().chain(of_right.keys()).collect();
    for name in names {
        let (left, right) = (of_left.get(name), of_right.get(name));
        if left == right {
            continue;
        }
        match (parts(name, left), parts(name, right)) {
            (Some(left), Some(right)) => {
                let only = |these: &[String], others: &[String]| -> Vec<String> {
                    these.iter().filter(|part| !others.contains(part)).cloned().collect()
                };
                let (gone, new) = (only(&left, &right), only(&right, &left));
                // The same parts in another order.
                if gone.is_empty() && new.is_empty() {
                    differences.push(difference(name, Some(left.join(" ")), Some(right.join(" "))));
                }
                differences.extend(gone.into_iter().map(|part| difference(name, Some(part), None)));
                differences.extend(new.into_iter().map(|part| difference(name, None, Some(part))));
            }
            _ => {
                differences.push(difference(name, left.map(shown), right.map(shown)));
            }
        }
    }
    Ok(differences)
}

fn difference(field: &str, left: Option<String>, right: Option<String>) -> Difference {
    let aspect = if left.is_some() && right.is_some() { Aspect::Value } else { Aspect::Presence };
    Difference { place: Place::Config(field.to_string()), aspect, left, right, names: 1, explanation: None }
}

/// What is set, under one spelling, without what is as good as not set.
fn fields(config: &Config) -> Result<BTreeMap<String, Value>> {
    let mut fields = BTreeMap::new();
    for (key, value) in config.execution()? {
        let name = FIELDS.iter().find(|name| name.eq_ignore_ascii_case(&key));
        let value = match (name, value) {
            (Some(&("Entrypoint" | "Cmd" | "Shell")), Value::String(word)) => Value::Array(vec![Value::String(word)]),
            (_, value) => value,
        };
        // What else Docker wrote (Hostname, Image, AttachStdin …) belongs to the container that the image was made of.
        if let Some(name) = name.filter(|_| !is_empty(&value)) {
            fields.insert((*name).to_string(), value);
        }
    }
    let platform = config.platform();
    fields.insert("os".to_string(), Value::String(platform.os));
    if !platform.architecture.is_empty() {
        fields.insert("architecture".to_string(), Value::String(platform.architecture));
    }
    Ok(fields)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(true) => false,
    }
}

/// The members of what is a set, for people; `None` for what is one value.
fn parts(field: &str, value: Option<&Value>) -> Option<Vec<String>> {
    let quoted = |text: &str| Quoted(text.as_bytes()).to_string();
    let empty = Map::new();
    match (field, value) {
        ("Env", None) => Some(Vec::new()),
        ("Env", Some(Value::Array(words))) => {
            Some(words.iter().map(|word| quoted(word.as_str().unwrap_or_default())).collect())
        }
        ("Labels", _) => {
            let labels = value.and_then(Value::as_object).unwrap_or(&empty);
            Some(labels.iter().map(|(key, value)| format!("{}={}", quoted(key), shown(value))).collect())
        }
        ("Volumes" | "ExposedPorts", _) => {
            let keys = value.and_then(Value::as_object).unwrap_or(&empty);
            Some(keys.keys().map(|key| quoted(key)).collect())
        }
        _ => None,
    }
}

fn shown(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    Quoted(text.as_bytes()).to_string()
}
