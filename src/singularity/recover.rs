//! The way back: what the image's config was, from what Singularity keeps in a root and beside it.

use serde_json::{Map, Value, json};

use super::shell;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Note, Quoted};

/// What is read of a root: the files of `.singularity.d` that say how a container runs. Missing ones are empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remains {
    /// The SIF object `oci-config.json`.
    pub oci_config: Option<Vec<u8>>,
    /// `runscript`
    pub runscript: String,
    /// `startscript`
    pub startscript: String,
    /// `env/10-docker2singularity.sh`, or `env/10-docker.sh` of old.
    pub docker_environment: String,
    /// `env/90-environment.sh`, and `env/91-environment.sh` after it.
    pub environment: String,
    /// `labels.json`
    pub labels: String,
}

/// How the image ran, as far as can be known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recovered {
    /// The execution part of an image config (image-spec config.md, `config`).
    pub execution: Map<String, Value>,
    /// What cannot be known, and what was guessed.
    pub notes: Vec<Note>,
    /// Whether the container runs only with Singularity's own files in its root.
    pub needs_singularity: bool,
}

/// What an image runs whose root keeps Singularity's scripts: it sets the environment and hands on to the runscript.
pub(super) const RUN: &str = "/.singularity.d/actions/run";

/// The search path that runtimes set where nothing else does.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Works out the execution part of a config.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] when the object `oci-config.json` is not a JSON object.
pub(crate) fn recover(remains: &Remains) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    if let Some(bytes) = &remains.oci_config {
        let parsed: std::result::Result<Map<String, Value>, _> = serde_json::from_slice(bytes);
        recovered.execution = parsed.map_err(|error| {
            Error::new(ErrorKind::InvalidImage, format!("object \"oci-config.json\" is damaged: {error}"))
        })?;
    }
    recovered.environment(remains);
    recovered.command(remains);
    recovered.labels(remains);
    if has_code(&remains.startscript) && !recovered.needs_singularity {
        let message = "the startscript of instances has no place in an image config and is lost";
        recovered.notes.push(Note::new("startscript-lost", message, 1));
    }
    if remains.oci_config.is_none() {
        let message = "the file has no oci-config.json: USER, VOLUME, EXPOSE and HEALTHCHECK of the image cannot be \
                       known (set USER with --user)";
        recovered.notes.push(Note::new("config-rebuilt", message, 1));
    }
    Ok(recovered)
}

impl Recovered {
    fn environment(&mut self, remains: &Remains) {
        let mut variables: Vec<(String, String)> = Vec::new();
        let mut stranger = None;
        match self.execution.get("Env").and_then(Value::as_array) {
            Some(env) => {
                for entry in env.iter().filter_map(Value::as_str) {
                    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                    shell::set(&mut variables, name, value.to_string());
                }
            }
            None => stranger = shell::assignments(&remains.docker_environment, &mut variables).err(),
        }
        let from_image = variables.clone();
        // What a definition file says may build on the search path.
        let had_path = variables.iter().any(|(name, _)| name == "PATH");
        if !had_path {
            variables.push(("PATH".to_string(), PATH_DEFAULT.to_string()));
        }
        stranger = stranger.or(shell::assignments(&remains.environment, &mut variables).err());
        if !had_path && variables.iter().any(|(name, value)| name == "PATH" && value == PATH_DEFAULT) {
            variables.retain(|(name, _)| name != "PATH");
        }
        if let Some(line) = stranger {
            let mut note = Note::new(
                "environment-needs-singularity",
                "the environment is set by a script that only a shell can run: .singularity.d is kept, and the image \
                 runs /.singularity.d/actions/run",
                1,
            );
            note.example(Quoted(line.as_bytes()));
            self.notes.push(note);
            self.needs_singularity = true;
            variables = from_image;
        } else if variables == from_image && self.execution.contains_key("Env") {
            return;
        }
        if !variables.is_empty() {
            let env: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
            self.execution.insert("Env".into(), json!(env));
        }
    }

    fn command(&mut self, remains: &Remains) {
        if self.needs_singularity {
            self.run(vec![RUN.to_string()], Vec::new());
            return;
        }
        let words = |name| shell::single_quoted_value(&remains.runscript, name).and_then(|text| shell::words(&text));
        if let (Some(entrypoint), Some(cmd)) = (words("OCI_ENTRYPOINT"), words("OCI_CMD")) {
            if remains.oci_config.is_none() {
                self.run(entrypoint, cmd);
                self.workdir(remains);
            }
            return;
        }
        let script = &remains.runscript;
        if !has_code(script) {
            if remains.oci_config.is_some() {
                return;
            }
            self.run(Vec::new(), Vec::new());
            self.notes.push(Note::new(
                "nothing-to-run",
                "the root has no runscript: set what the image runs with --cmd",
                1,
            ));
        } else if let Some(words) = plain_command(script) {
            self.run(words, Vec::new());
            self.workdir(remains);
        } else {
            // The script itself becomes the command: `$0`, and the arguments behind it.
            let shell = interpreter(script);
            self.run(vec![shell, "-c".into(), script.trim_end().to_string(), "runscript".into()], Vec::new());
            let message = "the runscript is a script of its own: it became the ENTRYPOINT as it is";
            self.notes.push(Note::new("runscript-embedded", message, 1));
        }
    }

    fn run(&mut self, entrypoint: Vec<String>, cmd: Vec<String>) {
        for (key, words) in [("Entrypoint", entrypoint), ("Cmd", cmd)] {
            match words.is_empty() {
                true => drop(self.execution.shift_remove(key)),
                false => drop(self.execution.insert(key.into(), json!(words))),
            }
        }
    }

    /// Our runscript says where it goes first, where that was asked for; nobody else's does.
    fn workdir(&mut self, remains: &Remains) {
        let line = remains.runscript.lines().find_map(|line| line.strip_prefix("cd ")?.split_once(" || {"));
        match line.and_then(|(path, _)| shell::words(path)).as_deref() {
            Some([path]) => drop(self.execution.insert("WorkingDir".into(), json!(path))),
            _ => {
                let message = "WORKDIR of the image is not recorded: set it with --workdir";
                self.notes.push(Note::new("workdir-unknown", message, 1));
            }
        }
    }

    fn labels(&mut self, remains: &Remains) {
        let Ok(found) = serde_json::from_str::<Map<String, Value>>(&remains.labels) else { return };
        let own = found.into_iter().filter(|(name, value)| value.is_string() && !is_made(name));
        let own: Vec<(String, Value)> = own.collect();
        if own.is_empty() {
            return;
        }
        let labels = self.execution.entry("Labels").or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            own.into_iter().for_each(|(name, value)| drop(labels.insert(name, value)));
        }
    }
}

/// Labels that builders add: they speak of the SIF, not of the image.
fn is_made(name: &str) -> bool {
    let schema = name.strip_prefix("org.label-schema.");
    let annotation = name.strip_prefix("org.opencontainers.image.");
    schema
        .is_some_and(|rest| rest.starts_with("usage") || matches!(rest, "schema-version" | "build-date" | "build-arch"))
        || annotation
            .is_some_and(|rest| matches!(rest, "created" | "architecture" | "variant" | "base.name" | "base.digest"))
}

/// What Apptainer and Singularity write where a directory or a definition says nothing of what to run.
const PLACEHOLDERS: [&str; 2] = [
    r#"echo "There is no runscript defined for this container\n";"#,
    r#"echo "There is no startscript defined for this container\n";"#,
];

/// Whether a script does anything: more than a shebang, comments, blank lines and what says that it does nothing.
fn has_code(script: &str) -> bool {
    code(script).any(|line| !PLACEHOLDERS.contains(&line))
}

fn code(script: &str) -> impl Iterator<Item = &str> {
    script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The words of a script that runs one program and passes its arguments on.
fn plain_command(script: &str) -> Option<Vec<String>> {
    let mut lines = code(script);
    let line = lines.next().filter(|_| lines.next().is_none())?;
    let line = line.strip_prefix("exec ").unwrap_or(line);
    let command = line.strip_suffix("\"$@\"").or_else(|| line.strip_suffix("$@"))?.strip_suffix([' ', '\t'])?;
    let words = shell::words(command)?;
    // `A=1 program` sets a variable, `-a name program` is an option of exec.
    let first = words.first()?;
    (!first.contains('=') && !first.starts_with('-')).then_some(words)
}

/// The program that a script asks to be run by.
fn interpreter(script: &str) -> String {
    let asked = script.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim);
    asked.filter(|path| path.starts_with('/') && !path.contains(char::is_whitespace)).unwrap_or("/bin/sh").to_string()
}
