use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::json::{is_key, json_text, parse_json};
use super::{Digest, Platform, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// What Docker's own migration of images before 1.10 takes out of their documents.
const V1_KEYS: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];

/// 0001-01-01T00:00:00Z.
const GO_ZERO_TIME: Timestamp = Timestamp { seconds: -62_135_596_800, nanoseconds: 0 };

/// An image config (OCI image-spec config.md, Docker image spec v1.3): the bytes as they came, and the parts that a
/// conversion looks at. Whatever else the document holds stays in the bytes and is passed through.
#[derive(Debug, Clone)]
pub struct Config {
    raw: Arc<[u8]>,
    document: Document,
    keeps_scripts: bool,
}

/// One line of the image's history.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct HistoryEntry {
    /// When it was made, as written.
    pub created: Option<String>,
    /// The instruction that made it.
    pub created_by: String,
    /// Whether it has no layer.
    pub empty_layer: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Document {
    created: Option<String>,
    architecture: String,
    os: String,
    variant: Option<String>,
    config: Execution,
    rootfs: RootFs,
    history: Vec<HistoryEntry>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Execution {
    env: Vec<String>,
    entrypoint: Words,
    cmd: Words,
    working_dir: String,
    user: String,
    labels: BTreeMap<String, String>,
}

/// A list of words. Docker reads a bare string there too (its `strslice`).
#[derive(Debug, Clone, Default)]
struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct WordsVisitor;
        impl<'de> Visitor<'de> for WordsVisitor {
            type Value = Words;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_unit<E>(self) -> std::result::Result<Words, E> {
                Ok(Words::default())
            }

            fn visit_str<E>(self, word: &str) -> std::result::Result<Words, E> {
                Ok(Words(vec![word.to_string()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Words, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = access.next_element()? {
                    words.push(word);
                }
                Ok(Words(words))
            }
        }
        deserializer.deserialize_any(WordsVisitor)
    }
}

impl Config {
    /// Parses the document. Bytes that are not UTF-8 are read as U+FFFD, as Docker reads them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidImage`] when it is not JSON of that shape.
    pub fn parse(raw: impl Into<Arc<[u8]>>) -> Result<Self> {
        let raw = raw.into();
        let document = parse_json(&raw, "an image config")?;
        Ok(Config { document, raw, keeps_scripts: false })
    }

    /// The document's bytes as they came.
    pub fn raw(&self) -> &Arc<[u8]> {
        &self.raw
    }

    /// Whether the root holds scripts of Singularity for what no config can say, so that they are to be kept.
    pub(crate) fn keeps_scripts(&self) -> bool {
        self.keeps_scripts
    }

    /// The same, which says of the root whether it [holds such scripts](Config::keeps_scripts).
    pub(crate) fn keeping_scripts(self, keeps_scripts: bool) -> Self {
        Config { keeps_scripts, ..self }
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

    /// When the image was made. A text that is not a time counts as missing, as does the year 1, Go's zero time.
    pub fn created(&self) -> Option<Timestamp> {
        self.document.created.as_deref().and_then(known_time)
    }

    /// Digests of the uncompressed layers, lowest first.
    ///
    /// # Errors
    /// When one is not a digest.
    pub fn diff_ids(&self) -> Result<Vec<Digest>> {
        self.document.rootfs.diff_ids.iter().map(|text| text.parse()).collect()
    }

    /// The history as it is written, where there is one.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn raw_history(&self) -> Result<Option<Value>> {
        Ok(self.members()?.into_iter().rev().find(|(key, _)| is_key(key, "history")).map(|(_, history)| history))
    }

    /// The execution part, as it is written.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn execution(&self) -> Result<Map<String, Value>> {
        let part = self.members()?.into_iter().rev().find(|(key, _)| is_key(key, "config"));
        Ok(part.and_then(|(_, part)| part.as_object().cloned()).unwrap_or_default())
    }

    /// All that the document holds, in its order.
    fn members(&self) -> Result<Map<String, Value>> {
        serde_json::from_str(&json_text(&self.raw))
            .map_err(|error| Error::new(ErrorKind::InvalidImage, format!("this is not an image config: {error}")))
    }

    /// The same config over other layers, whose history is `history` where there is one. All else stays, in its order, but
    /// for the keys that link an image of Docker before 1.10 to its parent.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn with_layers(&self, diff_ids: &[Digest], history: Option<Value>) -> Result<Config> {
        let mut document = self.members()?;
        // A key in another letter case would be read along with the one that is written here.
        let replaced = |key: &str| ["rootfs", "history"].iter().any(|name| key != *name && is_key(key, name));
        document.retain(|key, _| !replaced(key) && !V1_KEYS.contains(&key.as_str()));
        let diff_ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
        document.insert("rootfs".into(), json!({"type": "layers", "diff_ids": diff_ids}));
        match history {
            Some(history) => drop(document.insert("history".into(), history)),
            None => drop(document.shift_remove("history")),
        }
        // A config without these is none (config.md): Docker takes a missing system for Linux.
        if self.document.os.is_empty() {
            document.retain(|key, _| key == "os" || !is_key(key, "os"));
            document.insert("os".into(), "linux".into());
        }
        Config::parse(Value::Object(document).to_string().into_bytes())
    }

    /// The config that Docker 1.10 and later make of one of before (`MakeConfigFromV1Config` of their `image/v1`), to the byte
    /// where a Docker of 1.8.3 or later wrote it: [`Config::with_layers`], with its keys in order and all that HTML reads escaped.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn migrated(&self, diff_ids: &[Digest], history: &Value) -> Result<Config> {
        let written = self.with_layers(diff_ids, Some(history.clone()))?;
        let raw = |text| {
            serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text)
                .map_err(|error| Error::new(ErrorKind::InvalidImage, format!("this is not an image config: {error}")))
        };
        let (mut members, mut as_read) = (raw(&json_text(&written.raw))?, raw(&json_text(&self.raw))?);
        // What a member says stays as it is written: another spelling of the same would be another image.
        for (key, member) in members.iter_mut().filter(|(key, _)| !["rootfs", "history"].contains(&key.as_str())) {
            if let Some(value) = as_read.remove(key) {
                *member = value;
            }
        }
        let members = members.iter().map(|(key, value)| format!("{}:{}", json!(key), compact(value.get())));
        let text = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        Config::parse(text.into_bytes())
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
        &self.document.config.entrypoint.0
    }

    /// `CMD` words.
    pub fn cmd(&self) -> &[String] {
        &self.document.config.cmd.0
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
            known_time(text)
        };
        (0..layers).map(|layer| entry_time(layer).unwrap_or(image_time)).collect()
    }
}

/// JSON as Go's `json.Marshal` writes what it was given raw: without spaces between tokens, what HTML reads escaped.
fn compact(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let (mut is_string, mut is_escaped) = (false, false);
    for character in json.chars() {
        match character {
            ' ' | '\t' | '\n' | '\r' if !is_string => continue,
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            }
            _ => text.push(character),
        }
        is_string ^= character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
    }
    text
}

/// The time that a text says, where it says one: Go writes the first second of the year 1 for an unknown time.
fn known_time(text: &str) -> Option<Timestamp> {
    Timestamp::from_rfc3339(text).ok().filter(|&time| time != GO_ZERO_TIME)
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
    fn what_docker_migrates_is_in_order_and_escaped() {
        let old = r#"{"id":"0","parent":"1","os":"linux","config":{ "Env": ["A=1 > \"0\u0009 \\"],"Cmd":null},"architecture":"amd64","Size":0}"#;
        let config = Config::parse(old.as_bytes().to_vec()).unwrap();
        let digest = Digest::of(b"x");
        let migrated = config.migrated(&[digest], &json!([{"created_by": "a && b"}])).unwrap();
        assert_eq!(
            std::str::from_utf8(migrated.raw()).unwrap(),
            format!(
                r#"{{"architecture":"amd64","config":{{"Env":["A=1 \u003e \"0\u0009 \\"],"Cmd":null}},"history":[{{"created_by":"a \u0026\u0026 b"}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
            )
        );
        assert_eq!(migrated.env(), ["A=1 > \"0\t \\"]);
    }

    #[test]
    fn keys_in_any_letter_case_are_read() {
        let config = Config::parse(
            br#"{"ARCHITECTURE":"arm64","OS":"linux","Config":{"env":["A=1"],"EntryPoint":["/e"],"cmd":"c","workingdir":"/w","USER":"u","LABELS":{"Key":"v"}},"RootFS":{"Diff_IDs":[]},"History":[{"Created_By":"x"}]}"#
                .as_slice(),
        )
        .unwrap();
        assert_eq!((config.env().join(" "), config.entrypoint()), ("A=1".to_string(), &["/e".to_string()][..]));
        assert_eq!((config.cmd(), config.working_dir(), config.user()), (&["c".to_string()][..], "/w", "u"));
        assert_eq!((config.labels()["Key"].as_str(), config.history()[0].created_by.as_str()), ("v", "x"));
        assert_eq!(config.platform().to_string(), "linux/arm64");
        let other = config.with_layers(&[Digest::of(b"x")], None).unwrap();
        assert_eq!(other.diff_ids().unwrap(), [Digest::of(b"x")]);
        assert!(other.history().is_empty());
        let text = std::str::from_utf8(other.raw()).unwrap();
        assert!(!text.contains("RootFS") && !text.contains("History") && !text.contains("\"os\""), "{text}");
    }

    #[test]
    fn the_year_1_is_no_date() {
        for text in ["0001-01-01T00:00:00Z", "0001-01-01T01:00:00+01:00"] {
            let config = format!(r#"{{"created":{text:?},"history":[{{"created":{text:?}}}]}}"#);
            let config = Config::parse(config.into_bytes()).unwrap();
            assert_eq!((config.created(), config.layer_times(1)), (None, vec![Timestamp::default()]), "{text}");
        }
        let config = Config::parse(br#"{"created":"0001-01-01T00:00:01Z"}"#.as_slice()).unwrap();
        assert!(config.created().is_some());
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
