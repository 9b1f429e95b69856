use super::environment::Environment;
use super::quote::{double_quoted, single_quoted};
use crate::model::{Config, Note, Quoted};

/// A runscript with exactly this line is run by the runtime's embedded shell, so that `run` works in images without a
/// shell. Ours never reaches it.
pub(super) const MARKER: &str = r#"eval "set ${SINGULARITY_OCI_RUN}""#;

/// What the image runs: `ENTRYPOINT` and then the arguments, or `CMD` where there are none.
pub(super) struct Command<'a> {
    pub(super) entrypoint: &'a [String],
    pub(super) cmd: &'a [String],
}

impl<'a> Command<'a> {
    pub(super) const NONE: Self = Command { entrypoint: &[], cmd: &[] };

    /// An `ENTRYPOINT` of one empty word means none, as in Docker.
    pub(super) fn of(config: &'a Config) -> Self {
        let none = matches!(config.entrypoint(), [word] if word.is_empty());
        Command { entrypoint: if none { &[] } else { config.entrypoint() }, cmd: config.cmd() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entrypoint.is_empty() && self.cmd.is_empty()
    }

    /// All words as they run without arguments.
    pub(super) fn words(&self) -> impl Iterator<Item = &'a str> {
        self.entrypoint.iter().chain(self.cmd).map(String::as_str)
    }
}

/// Where the runscript goes first.
pub(super) struct Workdir {
    /// Absolute.
    pub(super) path: String,
    /// Whether the image has a `/bin/sh` that can run the script.
    pub(super) has_shell: bool,
}

impl Workdir {
    /// The embedded shell has a directory of its own, which the process it starts does not get.
    pub(super) fn note(&self) -> Option<Note> {
        let mut note = Note::new(
            "workdir-without-shell",
            "there is no /bin/sh in the image to change to WORKDIR: only the program itself is looked up there, and it \
             starts in the caller's directory; run with --pwd",
            1,
        );
        note.example(Quoted(self.path.as_bytes()));
        (!self.has_shell).then_some(note)
    }
}

/// The text of the runscript. It passes on words as they are: nothing is evaluated a second time.
pub(super) fn text(command: &Command<'_>, workdir: Option<&Workdir>, environment: &Environment<'_>) -> String {
    let mut script = String::from("#!/bin/sh\n");
    // At the top: the runtime's search for the marker gives up at a line of 64 KiB. With a shell in the image and a
    // directory to change to, the image's shell has to do it.
    if !workdir.is_some_and(|workdir| workdir.has_shell) {
        script.push_str(&format!("if false; then\n{MARKER}\nfi\n"));
    }
    for (name, words) in [("OCI_ENTRYPOINT", command.entrypoint), ("OCI_CMD", command.cmd)] {
        // For people and programs that read the script. Left out where it would change a variable of the image.
        if !environment.has(name) {
            let words: Vec<String> = words.iter().map(|word| double_quoted(word)).collect();
            script.push_str(&format!("{name}={}\n", single_quoted(&words.join(" "))));
        }
    }
    if let Some(workdir) = workdir {
        script.push_str(&change_directory(&workdir.path));
    }
    script.push_str(&arguments(command));
    script.push_str("exec \"$@\"\n");
    script
}

fn change_directory(path: &str) -> String {
    let quoted = single_quoted(path);
    let message = single_quoted(&format!("cannot change to the image's WORKDIR {}", Quoted(path.as_bytes())));
    format!("cd {quoted} || {{\n    printf '%s\\n' {message} >&2\n    exit 1\n}}\n")
}

/// The lines that make `"$@"` the whole command.
fn arguments(command: &Command<'_>) -> String {
    let prepend = |words: &[String]| {
        let words: Vec<String> = words.iter().map(|word| single_quoted(word)).collect();
        format!("set -- {} \"$@\"\n", words.join(" "))
    };
    let mut script = String::new();
    if !command.cmd.is_empty() {
        script.push_str(&format!("if [ $# -eq 0 ]; then\n    {}fi\n", prepend(command.cmd)));
    }
    if !command.entrypoint.is_empty() {
        script.push_str(&prepend(command.entrypoint));
    }
    if command.is_empty() {
        let message = "the image has neither ENTRYPOINT nor CMD: say what to run";
        script.push_str(&format!("if [ $# -eq 0 ]; then\n    printf '%s\\n' '{message}' >&2\n    exit 1\nfi\n"));
    }
    script
}
