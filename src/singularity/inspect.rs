use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::labels::Labels;
use super::shown::{App, Environments, Shown};
use super::{go_json, scripts};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Config;

/// The texts that depend on the image.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    /// `env/10-docker2singularity.sh`
    pub(super) environment: String,
    /// `runscript`, unless the root has its own.
    pub(super) runscript: Option<String>,
    /// `labels.json`, before it is written.
    pub(super) labels: Labels,
    /// `Singularity`
    pub(super) definition: String,
}

#[derive(Serialize)]
struct Document<'a> {
    data: Data<'a>,
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Serialize)]
struct Data<'a> {
    attributes: Attributes<'a>,
}

/// In Apptainer's order.
#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    apps: &'a BTreeMap<String, App>,
    environment: Environments,
    labels: &'a Labels,
    runscript: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    test: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    helpfile: &'a str,
    deffile: &'a str,
    startscript: &'a str,
}

/// The SIF object `inspect-metadata.json`.
pub(super) fn metadata(texts: &Texts, shown: &Shown) -> Result<Vec<u8>> {
    let trimmed = |text: &'static str| text.trim_end_matches('\n');
    let mut environment = shown.environment.clone();
    environment.extend(
        [
            ("/.singularity.d/env/10-docker2singularity.sh", texts.environment.trim_end_matches('\n')),
            ("/.singularity.d/env/90-environment.sh", trimmed(scripts::ENVIRONMENT)),
        ]
        .map(|(path, text)| (path.to_string(), text.to_string())),
    );
    let attributes = Attributes {
        apps: &shown.apps,
        environment,
        test: &shown.test,
        helpfile: &shown.helpfile,
        labels: &texts.labels,
        runscript: texts.runscript.as_ref().unwrap_or(&shown.runscript).trim_end_matches('\n'),
        deffile: texts.definition.trim_end_matches('\n'),
        startscript: trimmed(scripts::STARTSCRIPT),
    };
    let document = Document { data: Data { attributes }, kind: "container" };
    go_json::compact(&document).map(String::into_bytes)
}

/// The SIF object `oci-config.json`: the image's execution part with the fields that Apptainer knows, in its order,
/// empty ones left out.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] when a field has a type that Docker and Apptainer would refuse as well.
pub(super) fn oci_config(config: &Config) -> Result<Vec<u8>> {
    #[expect(clippy::disallowed_methods, reason = "JSON text, not a file name; read as model::Config reads it")]
    let text = String::from_utf8_lossy(config.raw());
    let ImageDocument { config: mut execution } = serde_json::from_str(&text).map_err(|error| {
        Error::new(ErrorKind::InvalidImage, format!("its execution part is not as it should be: {error}"))
    })?;
    execution.cmd = config.cmd();
    execution.entrypoint = config.entrypoint();
    execution.env = config.env();
    execution.labels = config.labels().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    go_json::compact(&execution).map(String::into_bytes)
}

/// The paths of `VOLUME`, out of the object `oci-config.json`.
pub(super) fn volumes(oci_config: &[u8]) -> Vec<String> {
    let document: serde_json::Value = serde_json::from_slice(oci_config).unwrap_or_default();
    document["Volumes"].as_object().map(|volumes| volumes.keys().cloned().collect()).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct ImageDocument<'a> {
    #[serde(default, deserialize_with = "or_default")]
    config: Execution<'a>,
}

/// go-containerregistry's `v1.Config`, field for field.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, bound(deserialize = "'de: 'a"))]
struct Execution<'a> {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    attach_stderr: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    attach_stdin: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    attach_stdout: bool,
    #[serde(skip_deserializing, skip_serializing_if = "is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    domainname: String,
    #[serde(skip_deserializing, skip_serializing_if = "is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_deserializing, skip_serializing_if = "is_empty")]
    env: &'a [String],
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    hostname: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    image: String,
    #[serde(skip_deserializing, skip_serializing_if = "is_default")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    on_build: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    open_stdin: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    stdin_once: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    tty: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    user: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    volumes: BTreeMap<String, Nothing>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    working_dir: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    exposed_ports: BTreeMap<String, Nothing>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    args_escaped: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    network_disabled: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    mac_address: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    stop_signal: String,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    shell: Vec<String>,
}

/// Times in nanoseconds.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    test: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    interval: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    timeout: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    start_period: i64,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    retries: i64,
}

/// Go's `struct{}`: a set is written as a map to empty objects, and `null` is one too.
#[derive(Clone, Copy, PartialEq)]
struct Nothing;

impl Serialize for Nothing {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        BTreeMap::<(), ()>::new().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(deserializer).map(|_| Nothing)
    }
}

fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_empty(words: &&[String]) -> bool {
    words.is_empty()
}
