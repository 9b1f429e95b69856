use serde_json::{Map, Value, json};

use super::Config;
use super::json::parse_json;
use crate::error::{Error, ErrorKind, Result};

/// What is to be different in the execution part of a config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// Another `ENTRYPOINT`; empty for none. `CMD` goes with the old one, as in a Dockerfile, unless it is given too.
    pub entrypoint: Option<Vec<String>>,
    /// Another `CMD`; empty for none.
    pub cmd: Option<Vec<String>>,
    /// `ENV` variables and their values, over those that are there.
    pub env: Vec<(String, String)>,
    /// Another `WORKDIR`.
    pub workdir: Option<String>,
    /// Another `USER`.
    pub user: Option<String>,
    /// `LABEL`s, over those that are there.
    pub labels: Vec<(String, String)>,
}

impl ConfigChanges {
    /// Whether nothing is to be different.
    pub fn is_empty(&self) -> bool {
        *self == ConfigChanges::default()
    }

    /// All that it sets.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let words = [&self.entrypoint, &self.cmd].into_iter().flatten().flatten();
        let pairs = self.env.iter().chain(&self.labels).flat_map(|(key, value)| [key, value]);
        words.chain(pairs).chain(&self.workdir).chain(&self.user)
    }

    /// Words as a Dockerfile has them: a JSON list (the exec form), or a line for `/bin/sh -c` (the shell form).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for text that begins as a list but is none of words.
    pub fn words(text: &str) -> Result<Vec<String>> {
        if text.trim_start().starts_with('[') {
            let refuse = |why: String| {
                Error::new(ErrorKind::Usage, format!("{text:?} is not a JSON list of words: {why}"))
                    .hint("write for example [\"python3\", \"app.py\"]")
            };
            let words: Vec<String> = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
            // execve takes none that holds one.
            let has_nul = words.iter().any(|word| word.contains('\0'));
            return if has_nul { Err(refuse("a word holds a NUL".to_string())) } else { Ok(words) };
        }
        let shell = || vec!["/bin/sh".to_string(), "-c".to_string(), text.to_string()];
        Ok(if text.is_empty() { Vec::new() } else { shell() })
    }
}

impl Config {
    /// The same config with another execution part. All else stays, in its order.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a change that holds a NUL, which no process can be given; as [`Config::parse`].
    pub fn with_changes(&self, changes: &ConfigChanges) -> Result<Config> {
        if changes.is_empty() {
            return Ok(self.clone());
        }
        if let Some(text) = changes.texts().find(|text| text.contains('\0')) {
            let message = format!("{text:?} cannot be in a config: it holds a NUL");
            return Err(Error::new(ErrorKind::Usage, message).hint("leave the NUL out"));
        }
        #[expect(clippy::disallowed_methods, reason = "JSON text, not a file name; as Config::parse reads it")]
        let text = String::from_utf8_lossy(self.raw());
        let mut document: Map<String, Value> = parse_json(text.as_bytes(), "an image config")?;
        let part = document.entry("config").or_insert(Value::Null);
        if !part.is_object() {
            *part = json!({});
        }
        if let Some(part) = part.as_object_mut() {
            change(part, self, changes);
        }
        let changed = Config::parse(Value::Object(document).to_string().into_bytes())?;
        Ok(changed.keeping_scripts(self.keeps_scripts()))
    }

    /// A config of an image of one layer that nobody has made an image of before. What is not known is left out.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn of_execution(
        execution: Map<String, Value>,
        architecture: Option<&str>,
        created: Option<super::Timestamp>,
    ) -> Result<Config> {
        let mut document = Map::new();
        document.extend(created.map(|time| ("created".to_string(), json!(time.to_rfc3339()))));
        document.extend(architecture.map(|name| ("architecture".to_string(), json!(name))));
        document.insert("os".into(), json!("linux"));
        document.insert("config".into(), Value::Object(execution));
        document.insert("rootfs".into(), json!({"type": "layers", "diff_ids": []}));
        Config::parse(Value::Object(document).to_string().into_bytes())
    }
}

fn change(part: &mut Map<String, Value>, config: &Config, changes: &ConfigChanges) {
    let mut words = |key: &str, words: Option<&Vec<String>>| match words {
        Some(words) if words.is_empty() => drop(part.shift_remove(key)),
        Some(words) => drop(part.insert(key.into(), json!(words))),
        None => {}
    };
    let none = Vec::new();
    words("Entrypoint", changes.entrypoint.as_ref());
    words("Cmd", changes.cmd.as_ref().or(changes.entrypoint.as_ref().map(|_| &none)));
    if !changes.env.is_empty() {
        let mut env: Vec<String> = config.env().to_vec();
        for (name, value) in &changes.env {
            let is_it = |entry: &&mut String| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name) == name;
            match env.iter_mut().find(is_it) {
                Some(entry) => *entry = format!("{name}={value}"),
                None => env.push(format!("{name}={value}")),
            }
        }
        part.insert("Env".into(), json!(env));
    }
    for (key, value) in [("WorkingDir", &changes.workdir), ("User", &changes.user)] {
        part.extend(value.as_ref().map(|value| (key.to_string(), json!(value))));
    }
    if !changes.labels.is_empty() {
        let mut labels = config.labels().clone();
        labels.extend(changes.labels.iter().cloned());
        part.insert("Labels".into(), json!(labels));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(config: &str, changes: &ConfigChanges) -> String {
        let config = Config::parse(config.as_bytes().to_vec()).unwrap();
        String::from_utf8(config.with_changes(changes).unwrap().raw().to_vec()).unwrap()
    }

    #[test]
    fn only_what_is_asked_for_changes() {
        let before =
            r#"{"z":1,"config":{"Env":["A=1","B=2"],"Entrypoint":["e"],"Cmd":["c"],"Labels":{"x":"1"}},"a":[1.5]}"#;
        assert_eq!(changed(before, &ConfigChanges::default()), before);
        let env =
            ConfigChanges { env: vec![("B".into(), "3=4".into()), ("C".into(), String::new())], ..Default::default() };
        assert_eq!(changed(before, &env), before.replace(r#""B=2""#, r#""B=3=4","C=""#));
        let entrypoint = ConfigChanges { entrypoint: Some(vec!["n".into()]), ..Default::default() };
        assert_eq!(changed(before, &entrypoint), before.replace(r#"["e"],"Cmd":["c"]"#, r#"["n"]"#));
        let none = ConfigChanges { entrypoint: Some(Vec::new()), cmd: Some(vec!["d".into()]), ..Default::default() };
        assert_eq!(changed(before, &none), before.replace(r#""Entrypoint":["e"],"Cmd":["c"]"#, r#""Cmd":["d"]"#));
        let nul = || "a\0b".to_string();
        for changes in [
            ConfigChanges { cmd: Some(vec![nul()]), ..Default::default() },
            ConfigChanges { env: vec![("A".into(), nul())], ..Default::default() },
            ConfigChanges { user: Some(nul()), ..Default::default() },
        ] {
            let error = Config::parse(before.as_bytes().to_vec()).unwrap().with_changes(&changes).unwrap_err();
            assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("NUL"), "{error}");
        }
        let others = ConfigChanges {
            workdir: Some("/w".into()),
            user: Some("1:2".into()),
            labels: vec![("y".into(), "2".into())],
            ..Default::default()
        };
        assert_eq!(
            changed(r#"{"config":null}"#, &others),
            r#"{"config":{"WorkingDir":"/w","User":"1:2","Labels":{"y":"2"}}}"#
        );
    }

    #[test]
    fn words_are_a_list_or_a_line_for_a_shell() {
        assert_eq!(ConfigChanges::words(r#"["a", "b c"]"#).unwrap(), ["a", "b c"]);
        assert_eq!(ConfigChanges::words("a b").unwrap(), ["/bin/sh", "-c", "a b"]);
        assert_eq!(ConfigChanges::words("").unwrap(), [""; 0]);
        assert_eq!(ConfigChanges::words("[1]").unwrap_err().kind(), ErrorKind::Usage);
    }
}
