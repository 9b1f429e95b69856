use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::document::{null_as_default, parse_json};
use super::{Digest, Platform, Timestamp};
use crate::error::Result;

/// What Docker's own migration of images before 1.10 takes out of their documents.
const V1_KEYS: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];

/// An image config (OCI image-spec config.md, Docker image spec v1.3): the bytes as they came, and the parts that a
/// conversion looks at. Whatever else the document holds stays in the bytes and is passed through.
#[derive(Debug, Clone)]
pub struct Config {
    raw: Arc<[u8]>,
    document: Document,
}

/// One line of the image's history.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct HistoryEntry {
    /// When it was made, as written.
    #[serde(default)]
    pub created: Option<String>,
    /// The instruction that made it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub created_by: String,
    /// Whether it has no layer.
    #[serde(default, deserialize_with = "null_as_default")]
    pub empty_layer: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct Document {
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_as_default")]
    os: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    config: Execution,
    #[serde(default, deserialize_with = "null_as_default")]
    rootfs: RootFs,
    #[serde(default, deserialize_with = "null_as_default")]
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "null_as_default")]
    diff_ids: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Execution {
    #[serde(rename = "Env", default, deserialize_with = "null_as_default")]
    env: Vec<String>,
    #[serde(rename = "Entrypoint", default, deserialize_with = "null_as_default")]
    entrypoint: Words,
    #[serde(rename = "Cmd", default, deserialize_with = "null_as_default")]
    cmd: Words,
    #[serde(rename = "WorkingDir", default, deserialize_with = "null_as_default")]
    working_dir: String,
    #[serde(rename = "User", default, deserialize_with = "null_as_default")]
    user: String,
    #[serde(rename = "Labels", default, deserialize_with = "null_as_default")]
    labels: BTreeMap<String, String>,
}

/// Docker reads a bare string where a list of words belongs (its `strslice`).
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Words {
    List(Vec<String>),
    One(String),
}

impl Default for Words {
    fn default() -> Self {
        Words::List(Vec::new())
    }
}

impl Words {
    fn as_slice(&self) -> &[String] {
        match self {
            Words::List(words) => words,
            Words::One(word) => std::slice::from_ref(word),
        }
    }
}

impl Config {
    /// Parses the document. Bytes that are not UTF-8 are read as U+FFFD, as Docker reads them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse(raw: impl Into<Arc<[u8]>>) -> Result<Self> {
        let raw = raw.into();
        #[expect(clippy::disallowed_methods, reason = "JSON text, not a file name; the raw bytes are kept")]
        let text = String::from_utf8_lossy(&raw);
        let document = parse_json(text.as_bytes(), "an image config")?;
        Ok(Config { document, raw })
    }

    /// The document's bytes as they came.
    pub fn raw(&self) -> &Arc<[u8]> {
        &self.raw
    }

    /// The image ID: the digest of the document.
    pub fn image_id(&self) -> Digest {
        Digest::of(&self.raw)
    }

    /// The platform it declares; a missing OS is Linux, a missing architecture stays empty.
    pub fn platform(&self) -> Platform {
        let os = if self.document.os.is_empty() { "linux" } else { &self.document.os };
        Platform::new(os, &self.document.architecture, self.document.variant.as_deref())
    }

    /// When the image was made. A text that is no time counts as missing.
    pub fn created(&self) -> Option<Timestamp> {
        self.document.created.as_deref().and_then(|text| Timestamp::from_rfc3339(text).ok())
    }

    /// Digests of the uncompressed layers, lowest first.
    ///
    /// # Errors
    /// When one is not a SHA-256 digest.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        self.document.rootfs.diff_ids.iter().map(|text| text.parse()).collect()
    }

    /// The same config over other layers, whose history is `history` where there is one. All else stays, in its order, but
    /// for the keys that link an image of Docker before 1.10 to its parent.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn with_layers(&self, diff_ids: &[Digest], history: Option<Value>) -> Result<Config> {
        #[expect(clippy::disallowed_methods, reason = "JSON text, not a file name; as it is parsed above")]
        let text = String::from_utf8_lossy(&self.raw);
        let mut document: Map<String, Value> = parse_json(text.as_bytes(), "an image config")?;
        for key in V1_KEYS {
            document.shift_remove(key);
        }
        let diff_ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        document.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
        match history {
            Some(history) => drop(document.insert("history".into(), history)),
            None => drop(document.shift_remove("history")),
        }
        // A config without these is none (config.md): Docker takes a missing system for Linux.
        if document.get("os").and_then(Value::as_str).is_none_or(str::is_empty) {
            document.insert("os".into(), "linux".into());
        }
        Config::parse(Value::Object(document).to_string().into_bytes())
    }

    /// The history, oldest first.
    pub fn history(&self) -> &[HistoryEntry] {
        &self.document.history
    }

    /// `ENV`: `NAME=value` words in order.
    pub fn env(&self) -> &[String] {
        &self.document.config.env
    }

    /// `ENTRYPOINT` words.
    pub fn entrypoint(&self) -> &[String] {
        self.document.config.entrypoint.as_slice()
    }

    /// `CMD` words.
    pub fn cmd(&self) -> &[String] {
        self.document.config.cmd.as_slice()
    }

    /// `WORKDIR`; empty means `/`.
    pub fn working_dir(&self) -> &str {
        &self.document.config.working_dir
    }

    /// `USER`.
    pub fn user(&self) -> &str {
        &self.document.config.user
    }

    /// `LABEL`s.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.document.config.labels
    }

    /// When each of `layers` layers was made: from the history entries that have a layer if there are as many, else
    /// from the image, else the epoch.
    pub fn layer_times(&self, layers: usize) -> Vec<Timestamp> {
        let image_time = self.created().unwrap_or_default();
        let with_layer: Vec<&HistoryEntry> = self.document.history.iter().filter(|entry| !entry.empty_layer).collect();
        let entry_time = |layer: usize| {
            let text = (with_layer.len() == layers).then(|| with_layer[layer].created.as_deref()).flatten()?;
            Timestamp::from_rfc3339(text).ok()
        };
        (0..layers).map(|layer| entry_time(layer).unwrap_or(image_time)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_strings_are_legal() {
        let config = Config::parse(
            br#"{"created":null,"config":{"Env":null,"Cmd":"one","Entrypoint":["a","b"],"Labels":null},"rootfs":{"diff_ids":null},"history":null}"#
                .as_slice(),
        )
        .unwrap();
        assert_eq!(config.cmd(), ["one"]);
        assert_eq!(config.entrypoint(), ["a", "b"]);
        assert!(config.env().is_empty() && config.diff_ids().unwrap().is_empty() && config.created().is_none());
        assert!(Config::parse(b"{}".as_slice()).is_ok());
        assert!(Config::parse(b"[".as_slice()).is_err());
    }

    #[test]
    fn other_layers_leave_all_else_as_it_is() {
        let digest = Digest::of(b"x");
        let config = Config::parse(
            br#"{"id":"0","z":1,"config":{"Shell":["b","a"],"Labels":{"z":"1","a":"<&>"}},"rootfs":{"type":"layers","diff_ids":[]},"history":[{}],"os":"linux","a":[1.5]}"#
                .as_slice(),
        )
        .unwrap();
        let text = |config: Config| String::from_utf8(config.raw().to_vec()).unwrap();
        assert_eq!(
            text(config.with_layers(&[digest], Some(json!([{"created_by": "x"}]))).unwrap()),
            format!(
                r#"{{"z":1,"config":{{"Shell":["b","a"],"Labels":{{"z":"1","a":"<&>"}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"created_by":"x"}}],"os":"linux","a":[1.5]}}"#
            )
        );
        let bare = Config::parse(b"{}".as_slice()).unwrap().with_layers(&[], None).unwrap();
        assert_eq!(text(bare), r#"{"rootfs":{"type":"layers","diff_ids":[]},"os":"linux"}"#);
    }

    #[test]
    fn layer_times_follow_the_history() {
        let config = Config::parse(
            br#"{"created":"1970-01-01T00:00:09Z","history":[{"created":"1970-01-01T00:00:01Z"},{"empty_layer":true},{"created":"x"}]}"#
                .as_slice(),
        )
        .unwrap();
        let seconds = |n| config.layer_times(n).iter().map(|t| t.seconds).collect::<Vec<_>>();
        assert_eq!(seconds(2), [1, 9]);
        assert_eq!(seconds(3), [9, 9, 9]);
    }
}
