use std::collections::{BTreeMap, BTreeSet};

use super::quote::single_quoted;
use crate::model::{Config, Note, Quoted};

/// Read-only in the runtime's embedded shell: an assignment prints an error and does nothing.
const READ_ONLY: [&str; 3] = ["EUID", "GID", "UID"];

/// Set by the runtime before the image's environment is read, kept by its embedded shell for itself, or used and dropped by
/// its action script, whose own variables `e`, `key` and `__exported_env__` are: the image's value does not arrive (seen with
/// Apptainer 1.4.5). `APPTAINER_ENVIRONMENT` does.
const SET_BY_RUNTIME: [&str; 17] = [
    "APPTAINER_CONTAINER",
    "APPTAINER_NAME",
    "DIRSTACK",
    "HOME",
    "IFS",
    "LINENO",
    "OPTIND",
    "PPID",
    "PWD",
    "RANDOM",
    "SINGULARITY_ENVIRONMENT",
    "SING_USER_DEFINED_APPEND_PATH",
    "SING_USER_DEFINED_PATH",
    "SING_USER_DEFINED_PREPEND_PATH",
    "__exported_env__",
    "e",
    "key",
];

/// The image's `ENV`, each name once: the last value wins, as in Docker, at the place where the name came first.
pub(super) struct Environment<'a> {
    variables: Vec<(&'a str, &'a str)>,
    /// Where in `variables` a name is.
    places: BTreeMap<&'a str, usize>,
    skipped_names: Vec<&'a str>,
    skipped_values: Vec<&'a str>,
}

impl<'a> Environment<'a> {
    pub(super) fn of(config: &'a Config) -> Self {
        let mut environment = Environment {
            variables: Vec::new(),
            places: BTreeMap::new(),
            skipped_names: Vec::new(),
            skipped_values: Vec::new(),
        };
        for entry in config.env() {
            // A name without `=` is exported as it is found, else empty: Apptainer's rule. Docker drops it.
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            environment.set(name, value);
        }
        environment
    }

    fn set(&mut self, name: &'a str, value: &'a str) {
        if !is_name(name) || READ_ONLY.contains(&name) {
            self.skipped_names.push(name);
        } else if value.contains('\0') {
            self.skipped_values.push(name);
        } else if let Some(&place) = self.places.get(name) {
            self.variables[place].1 = value;
        } else {
            self.places.insert(name, self.variables.len());
            self.variables.push((name, value));
        }
    }

    /// Whether the image sets `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The text of `env/10-docker2singularity.sh`.
    ///
    /// A variable that is set already keeps its value: the runtime has cleared the host's by then, and on old runtimes
    /// that have not, the host wins as it does with Apptainer's own file. `PATH` is always set, so it is assigned
    /// outright.
    pub(super) fn script(&self) -> String {
        let mut script = String::from("#!/bin/sh\n");
        for (name, value) in &self.variables {
            let quoted = single_quoted(value);
            match *name {
                "PATH" => script.push_str(&format!("PATH={quoted}\n")),
                name => script.push_str(&format!("test -n \"${{{name}:-}}\" || {name}={quoted}\n")),
            }
            script.push_str(&format!("export {name}\n"));
        }
        script
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let ignored: Vec<&str> = SET_BY_RUNTIME.into_iter().filter(|name| self.has(name)).collect();
        [
            names_note(
                "environment-name-skipped",
                "ENV names that a shell cannot set are left out",
                &self.skipped_names,
            ),
            names_note(
                "environment-value-skipped",
                "ENV values that hold a NUL byte are left out",
                &self.skipped_values,
            ),
            names_note(
                "environment-ignored",
                "ENV variables that the runtime sets itself keep the runtime's value",
                &ignored,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn names_note(code: &'static str, message: &str, names: &[&str]) -> Option<Note> {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    let mut note = Note::new(code, message, names.len() as u64);
    names.iter().for_each(|name| note.example(Quoted(name.as_bytes())));
    (note.count > 0).then_some(note)
}

/// POSIX 3.230: letters, digits and underscores, no digit first.
fn is_name(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| !byte.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
