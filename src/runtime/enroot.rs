//! What `enroot import` writes into a root: `docker::configure` of its `src/docker.sh`
//! (<https://github.com/NVIDIA/enroot>, doc/image-format.md).

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::site::Site;
use crate::error::Result;
use crate::model::{Config, Note, Quoted};

const RC_LOCAL: &str = "\
# This file is sourced by /etc/rc when the container starts.
# It can be used to manipulate the entrypoint or the command of the container.
";

pub(super) fn prepare(site: &mut Site<'_>, config: &Config) -> Result<()> {
    let execution = config.execution()?;
    site.file(b"etc/fstab", fstab(&execution).into_bytes())?;
    let mut torn =
        Note::new("environment-torn", "variables with line ends cannot be in /etc/environment as they are", 0);
    let environment = config.env().iter().fold(String::new(), |mut text, word| {
        if word.contains('\n') {
            torn.count += 1;
            torn.example(Quoted(word.as_bytes()));
        }
        let _ = writeln!(text, "{word}");
        text
    });
    site.file(b"etc/environment", environment.into_bytes())?;
    site.note(torn);
    site.file(b"etc/rc", rc(config, &execution).into_bytes())?;
    site.file(b"etc/rc.local", RC_LOCAL.as_bytes().to_vec())?;
    let workdir = workdir(config);
    if !site.exists(workdir.as_bytes()) {
        site.directory(workdir.as_bytes())?;
    }
    site.give_all_to_root();
    Ok(())
}

/// Every VOLUME as a bind of the root onto itself, in the order of names.
fn fstab(execution: &Map<String, Value>) -> String {
    let volumes = member(execution, "Volumes").and_then(Value::as_object);
    let mut names: Vec<&String> = volumes.into_iter().flat_map(Map::keys).collect();
    names.sort_unstable();
    names.iter().fold(String::new(), |mut text, name| {
        let _ = writeln!(text, "${{ENROOT_ROOTFS}}{name} {name} none x-create=dir,bind,rw,nosuid,nodev");
        text
    })
}

fn rc(config: &Config, execution: &Map<String, Value>) -> String {
    let mut script = format!("# enroot-provenance: {}\n", config.image_id());
    let labels = member(execution, "Labels").and_then(Value::as_object);
    for (name, value) in labels.into_iter().flatten() {
        // A line end in a name would end the comment, too.
        let (name, value) = (name.replace('\n', " "), value.as_str().unwrap_or_default().replace('\n', " "));
        let _ = writeln!(script, "# {name} {value}");
    }
    let workdir = in_double_quotes(&workdir(config));
    let shell = ["/bin/sh".to_string()];
    let is_empty = config.entrypoint().is_empty() && config.cmd().is_empty();
    let entrypoint = words(config.entrypoint());
    let cmd = words(if is_empty { &shell } else { config.cmd() });
    let _ = write!(
        script,
        r#"
mkdir -p "{workdir}" 2> /dev/null
cd "{workdir}" && unset OLDPWD || exit 1

if [ -s /etc/rc.local ]; then
    . /etc/rc.local
fi

if [ $# -gt 0 ]; then
    exec {entrypoint} "$@"
else
    exec {entrypoint} {cmd}
fi
"#
    );
    script
}

/// A field in any letter case.
fn member<'a>(execution: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    execution.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// As a shell reads a line of it.
fn workdir(config: &Config) -> String {
    let line = config.working_dir().lines().next().unwrap_or_default().trim_matches([' ', '\t']);
    if line.is_empty() { "/".to_string() } else { line.to_string() }
}

fn in_double_quotes(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// As bash's `${word@Q}` writes a word that is printable; every shell reads it.
fn quoted(word: &str) -> String {
    if word == "'" { r"\'".to_string() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(config: &str) -> String {
        let config = Config::parse(config.as_bytes()).unwrap();
        rc(&config, &config.execution().unwrap())
    }

    #[test]
    fn words_and_directories_stay_what_they_are() {
        let script = script(r#"{"config":{"Entrypoint":["it's",""],"Cmd":["'","$x"],"WorkingDir":" /a\"$(id) "}}"#);
        assert!(script.contains("\ncd \"/a\\\"\\$(id)\" && "), "{script}");
        assert!(script.contains("    exec 'it'\\''s' '' \"$@\"\n"), "{script}");
        assert!(script.contains("    exec 'it'\\''s' '' \\' '$x'\n"), "{script}");
    }

    #[test]
    fn a_label_stays_a_comment() {
        let script = script("{\"config\":{\"Labels\":{\"b\":\"x\\nrm -rf /\",\"a\\nevil\":\"1\"}}}");
        assert!(script.contains("\n# b x rm -rf /\n# a evil 1\n\nmkdir"), "{script}");
        assert!(script.contains("    exec  \"$@\"\nelse\n    exec  '/bin/sh'\nfi\n"), "{script}");
    }
}
