//! Completion. The scripts ask the program at each TAB, so that they know commands, values and the images of an archive, and
//! are right for whatever version is installed. clap_complete has such an engine too, but calls it unstable.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ArgAction, Command, ValueHint};

use crate::io::Monitor;
use crate::source::{self, OpenOptions, Spec};

/// What stands for "complete the names of files".
const FILES: &str = ":files";
/// Spellings of sources that are not a file.
const TRANSPORTS: [(&str, &str); 7] = [
    ("docker://", "an image on a registry"),
    ("docker-daemon:", "an image of the local Docker or Podman engine"),
    ("docker-archive:", "an archive from docker save, and which image of it"),
    ("oci-archive:", "an OCI archive, and which image of it"),
    ("oci:", "an OCI layout, and which image of it"),
    ("oras://", "a SIF on a registry"),
    ("https://", "an archive on a web server"),
];

/// The script for a shell that asks the program; `None` for those that clap_complete writes.
pub(super) fn script(shell: clap_complete::Shell) -> Option<&'static str> {
    match shell {
        clap_complete::Shell::Bash => Some(include_str!("completions/bash.sh")),
        clap_complete::Shell::Zsh => Some(include_str!("completions/zsh.sh")),
        clap_complete::Shell::Fish => Some(include_str!("completions/fish.fish")),
        _ => None,
    }
}

/// The page of candidates for the last of `words`, which come after the program's name: one a line, with a tab and what it
/// is.
pub(super) fn page(command: &Command, words: &[OsString]) -> String {
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let (current, before) = words.split_last().map_or(("", &[][..]), |(current, before)| (*current, before));
    let found = candidates(command, before, current);
    let has_transport = TRANSPORTS.iter().any(|(name, _)| current.starts_with(name));
    let is_meant = |(name, _): &&(String, String)| {
        if name == FILES { !has_transport } else { name.starts_with(current) }
    };
    let line = |(name, about): &(String, String)| {
        format!("{name}\t{}\n", about.split(['\n', '\t']).next().unwrap_or_default())
    };
    // A name that a script could take for two is none that it could complete.
    found.iter().filter(is_meant).filter(|(name, _)| !name.contains(['\n', '\t'])).map(line).collect()
}

fn candidates(root: &Command, before: &[&str], current: &str) -> Vec<(String, String)> {
    let mut command = root;
    let mut operands: Vec<&str> = Vec::new();
    let mut expects: Option<&Arg> = None;
    for (at, word) in before.iter().enumerate() {
        if expects.take().is_some() {
            continue;
        }
        if word.starts_with('-') && *word != "-" {
            expects = option(command, word).filter(|_| !word.contains('='));
        } else if let Some(inner) = command
            .find_subcommand(word)
            .filter(|_| operands.is_empty() && (at == 0 || command.get_name() != root.get_name()))
        {
            command = inner;
        } else {
            operands.push(word);
        }
    }
    let source = operands.first().copied();
    if let Some(option) = expects {
        return values(option, source);
    }
    if let Some((name, _)) = current.split_once('=').filter(|_| current.starts_with("--")) {
        let values = option(command, name).map(|option| values(option, source)).unwrap_or_default();
        return values
            .into_iter()
            .filter(|(value, _)| value != FILES)
            .map(|(value, about)| (format!("{name}={value}"), about))
            .collect();
    }
    if current.starts_with('-') && current != "-" {
        let options = command.get_arguments().filter(|each| !each.is_hide_set());
        let named = options.filter_map(|each| Some((format!("--{}", each.get_long()?), about(each.get_help()))));
        return named.collect();
    }
    let mut found: Vec<(String, String)> = Vec::new();
    if operands.is_empty() && (before.is_empty() || command.get_name() != root.get_name()) {
        let commands = command.get_subcommands().filter(|each| !each.is_hide_set());
        found.extend(commands.map(|each| (each.get_name().to_string(), about(each.get_about()))));
    }
    let positional = command.get_positionals().nth(operands.len()).or_else(|| command.get_positionals().last());
    if let Some(positional) = positional.filter(|each| {
        operands.len() < command.get_positionals().count() || each.get_num_args().is_some_and(|it| it.max_values() > 1)
    }) {
        found.extend(values(positional, source));
        if positional.get_value_hint() == ValueHint::AnyPath {
            found.extend(sources(current));
        }
    }
    found
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// The option of `command` that `word` is, where it takes a value.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or_default();
    command.get_arguments().find(|each| {
        let is_it = match name.strip_prefix("--") {
            Some(long) => each.get_long() == Some(long),
            None => each.get_short().is_some_and(|short| name == format!("-{short}")),
        };
        is_it && matches!(each.get_action(), ArgAction::Set | ArgAction::Append)
    })
}

/// What an argument may be; `source` is the SOURCE of the line, where there is one.
fn values(argument: &Arg, source: Option<&str>) -> Vec<(String, String)> {
    let possible = argument.get_possible_values();
    if !possible.is_empty() {
        return possible.iter().map(|value| (value.get_name().to_string(), about(value.get_help()))).collect();
    }
    if argument.get_id() == "image" {
        return source.map(|source| images(OsStr::new(source), "")).unwrap_or_default();
    }
    match argument.get_value_hint() {
        ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath => vec![(FILES.to_string(), String::new())],
        _ => Vec::new(),
    }
}

/// Spellings of sources, files behind a transport, and the images of a file.
fn sources(current: &str) -> Vec<(String, String)> {
    let archive =
        ["docker-archive:", "oci-archive:", "oci:"].into_iter().find_map(|it| Some((it, current.strip_prefix(it)?)));
    let Some((transport, path)) = archive else {
        return TRANSPORTS.map(|(name, about)| (name.to_string(), about.to_string())).to_vec();
    };
    if let Some((file, _)) = path.split_once(':').filter(|(file, _)| Path::new(file).exists()) {
        let prefix = format!("{transport}{file}");
        return images(OsStr::new(&prefix), &format!("{prefix}:"));
    }
    files(path).into_iter().map(|name| (format!("{transport}{name}"), String::new())).collect()
}

/// Names of files that begin with `path`.
fn files(path: &str) -> Vec<String> {
    let (directory, start) =
        path.rsplit_once('/').map_or(("", path), |(directory, start)| (&path[..=directory.len()], start));
    let place = if directory.is_empty() { Path::new(".") } else { Path::new(directory) };
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with(start))?;
        let slash = if entry.path().is_dir() { "/" } else { "" };
        Some(format!("{directory}{name}{slash}"))
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The names of the images that `source` holds, each behind `prefix`. Only what lies on this machine is looked at.
fn images(source: &OsStr, prefix: &str) -> Vec<(String, String)> {
    let Ok(spec) = Spec::parse(source) else { return Vec::new() };
    if spec.path().is_none() {
        return Vec::new();
    }
    let options = OpenOptions { want_layers: false, ..OpenOptions::default() };
    let Ok(source) = source::open(&spec, &options, &Monitor::default()) else { return Vec::new() };
    let named = source.images().into_iter().flat_map(|image| {
        let platform = image.platform.map(|platform| platform.to_string()).unwrap_or_default();
        let names: Vec<String> = image.names.into_iter().chain(image.tags).collect();
        names.into_iter().map(move |name| (format!("{prefix}{name}"), platform.clone()))
    });
    let mut all: Vec<(String, String)> = named.collect();
    all.dedup();
    all
}
