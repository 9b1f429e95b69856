use super::environment::Environment;
use super::runscript::Command;
use crate::model::{Config, Note, Quoted};
use crate::tree::{Kind, Tree};

const RELATIVE_ENTRYPOINT: &str = "relative-entrypoint";
const WORKDIR_IGNORED: &str = "workdir-ignored";
/// What is said of `WORKDIR`, unless the runscript changes to it.
pub(super) const ABOUT_WORKDIR: [&str; 2] = [RELATIVE_ENTRYPOINT, WORKDIR_IGNORED];

const SETUID_SETGID: u16 = 0o6000;

/// What will differ from Docker at run time, as far as the config alone tells.
pub(crate) fn review(config: &Config) -> Vec<Note> {
    let mut notes = Environment::of(config).notes();
    let command = Command::of(config);
    notes.extend(relative_program(&command).map(|word| relative_note(config, &[word])));
    if command.is_empty() {
        let message = "the image has neither ENTRYPOINT nor CMD: `run` needs a command to be given";
        notes.push(Note::new("no-command", message, 1));
    }
    if !is_root(config.user()) {
        let mut note = Note::new("user-ignored", "USER has no effect: containers run as the calling user", 1);
        note.example(Quoted(config.user().as_bytes()));
        notes.push(note);
    }
    notes
}

/// What `review` says, and what arguments look like files of `WORKDIR`: for those who see no files. A conversion looks.
pub fn forecast(config: &Config) -> Vec<Note> {
    let mut notes = review(config);
    let command = Command::of(config);
    if relative_program(&command).is_none() {
        let words: Vec<&str> = shell_words(&command).into_iter().skip(1).filter(|word| is_like_a_file(word)).collect();
        notes.extend(workdir_note(config, &words));
    }
    notes
}

/// Whether a word is a relative path or the name of a script, by the look of it.
fn is_like_a_file(word: &str) -> bool {
    const SCRIPTS: [&str; 8] = [".py", ".sh", ".R", ".r", ".pl", ".jl", ".js", ".jar"];
    let is_path = word.contains('/') && !word.contains("://");
    let is_relative = !word.starts_with(['/', '-', '$', '~']);
    is_relative && !word.contains('=') && (is_path || SCRIPTS.iter().any(|suffix| word.ends_with(suffix)))
}

/// What will differ from Docker at run time, as far as the files tell; goes over the whole tree once.
pub(super) fn of_tree(tree: &Tree, config: &Config) -> Vec<Note> {
    let command = Command::of(config);
    let mut notes = Vec::new();
    // `review` has said so where the program itself is relative.
    if relative_program(&command).is_none() {
        notes.extend(workdir_note(config, &words_in_workdir(tree, config, &command)));
    }
    notes.extend(setuid_note(tree));
    notes
}

/// `WORKDIR` from the root: Docker's default is the root.
pub(super) fn absolute_workdir(config: &Config) -> String {
    format!("/{}", config.working_dir().trim_start_matches('/'))
}

/// Whether the image has a shell that can run `#!/bin/sh`.
pub(crate) fn has_shell(tree: &Tree) -> bool {
    let shell = tree.resolve(b"bin/sh").ok().and_then(|resolution| resolution.inode).map(|id| tree.inode(id));
    shell.is_some_and(|inode| matches!(inode.kind, Kind::File(_)) && inode.metadata.mode.bits() & 0o111 != 0)
}

fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or(user);
    matches!(name, "" | "root") || name.parse() == Ok(0_u32)
}

/// The program, where it is a path but not an absolute one. A name without a slash is looked up in `PATH`.
fn relative_program<'a>(command: &Command<'a>) -> Option<&'a str> {
    let program = *shell_words(command).first()?;
    (program.contains('/') && !program.starts_with('/')).then_some(program)
}

/// The words of the command; those of the text where it is `sh -c TEXT`, roughly: for advice that is close enough.
fn shell_words<'a>(command: &Command<'a>) -> Vec<&'a str> {
    let words: Vec<&str> = command.words().collect();
    match words[..] {
        [shell, "-c", text, ..] if shell.ends_with("sh") => {
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            lines.flat_map(str::split_whitespace).collect()
        }
        _ => words,
    }
}

/// Words after the program that name something in `WORKDIR`, such as `main.py` of `python3 main.py`. In the root nearly
/// any word would, as `run` of `npm run`.
fn words_in_workdir<'a>(tree: &Tree, config: &Config, command: &Command<'a>) -> Vec<&'a str> {
    let workdir = absolute_workdir(config);
    if workdir == "/" {
        return Vec::new();
    }
    let is_there = |word: &str| {
        let resolution = tree.resolve(format!("{workdir}/{word}").as_bytes());
        resolution.is_ok_and(|resolution| resolution.inode.is_some())
    };
    let words = shell_words(command).into_iter().skip(1);
    words.filter(|word| !word.is_empty() && !word.starts_with('/') && is_there(word)).collect()
}

/// Whoever sets `WORKDIR` means programs to start there, whether or not a word of the command shows it: `npm start`,
/// `python -m app`. `words` are those that do.
fn workdir_note(config: &Config, words: &[&str]) -> Option<Note> {
    let workdir = absolute_workdir(config);
    if workdir == "/" {
        return None;
    }
    if !words.is_empty() {
        return Some(relative_note(config, words));
    }
    let workdir = Quoted(workdir.as_bytes());
    let message = format!(
        "WORKDIR is {workdir}, but Singularity does not start there: convert with --workdir, or run with --pwd"
    );
    Some(Note::new(WORKDIR_IGNORED, message, 1))
}

fn relative_note(config: &Config, words: &[&str]) -> Note {
    let workdir = absolute_workdir(config);
    let message = format!(
        "ENTRYPOINT or CMD names files relative to WORKDIR {}, but Singularity does not start there: convert with \
         --workdir, or run with --pwd",
        Quoted(workdir.as_bytes())
    );
    let mut note = Note::new(RELATIVE_ENTRYPOINT, message, words.len() as u64);
    words.iter().for_each(|word| note.example(Quoted(word.as_bytes())));
    note
}

/// Runtimes mount the image without setuid.
fn setuid_note(tree: &Tree) -> Option<Note> {
    let message = "setuid and setgid bits on programs are kept but have no effect: the runtime mounts the image nosuid";
    let mut note = Note::new("setuid-inert", message, 0);
    let mut seen = vec![false; tree.inode_count()];
    for visit in tree.walk() {
        let inode = tree.inode(visit.inode);
        let first = !std::mem::replace(&mut seen[visit.inode.index()], true);
        if first && matches!(inode.kind, Kind::File(_)) && inode.metadata.mode.bits() & SETUID_SETGID != 0 {
            note.count += 1;
            note.example(Quoted(&visit.path));
        }
    }
    (note.count > 0).then_some(note)
}
