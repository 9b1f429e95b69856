//! The walls between the rooms of `src`: what a room may use is what ARCHITECTURE.md's table says, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room and what it may use, besides itself. Everyone may use `error`.
const ROOMS: [(&str, &[&str]); 28] = [
    ("error", &[]),
    ("model", &[]),
    ("io", &["model"]),
    ("tar", &["model", "io"]),
    ("image", &["model", "io", "volume"]),
    ("registry", &["image", "model", "io"]),
    ("gocryptfs", &[]),
    (
        "source",
        &["image", "registry", "model", "io", "tar", "tree", "volume", "sif", "singularity", "gocryptfs", "trust"],
    ),
    ("derived", &["model", "io"]),
    ("tree", &["model"]),
    ("layers", &["tree", "image", "tar", "io", "model"]),
    ("squashfs", &["model", "io"]),
    ("sif", &["model", "io"]),
    ("singularity", &["tree", "model"]),
    ("trust", &["model"]),
    ("runtime", &["tree", "model"]),
    ("volume", &["model", "io", "tar", "tree", "squashfs", "folder", "gocryptfs"]),
    (
        "output",
        &[
            "model",
            "io",
            "tar",
            "image",
            "source",
            "tree",
            "layers",
            "squashfs",
            "sif",
            "singularity",
            "runtime",
            "folder",
            "registry",
            "volume",
            "gocryptfs",
            "trust",
            "derived",
        ],
    ),
    ("browse", &["model", "io", "image", "source", "tree", "layers", "volume"]),
    (
        "against",
        &[
            "model",
            "io",
            "image",
            "source",
            "browse",
            "output",
            "tree",
            "volume",
            "squashfs",
            "sif",
            "singularity",
            "gocryptfs",
        ],
    ),
    ("report", &["model", "image", "output"]),
    ("conversion", &["model", "io", "image", "source", "output", "report"]),
    ("batch", &["model", "io", "source", "registry", "output", "report", "conversion"]),
    ("download", &["model", "io", "registry", "sif", "source"]),
    ("attach", &["model", "io", "image", "source", "output", "registry", "report", "sif", "conversion", "download"]),
    ("medperf", &["model"]),
    ("folder", &["model", "io", "tar"]),
    (
        "cli",
        &[
            "model",
            "io",
            "image",
            "source",
            "registry",
            "sif",
            "singularity",
            "folder",
            "against",
            "browse",
            "gocryptfs",
            "output",
            "report",
            "conversion",
            "batch",
            "download",
            "attach",
            "medperf",
            "trust",
            "derived",
        ],
    ),
];

/// Names of the crate's root that are not rooms: what `error` gives to all.
const ROOT_NAMES: [&str; 6] = ["Error", "ErrorKind", "Remedy", "Result", "ResultExt", "IoResultExt"];

#[test]
fn rooms_use_what_the_table_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut trespasses = Vec::new();
    for (room, allowed) in ROOMS {
        let files = files_of(&source, room);
        assert!(!files.is_empty(), "there is no room {room}");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (line, used) in uses(&text) {
                if used != room
                    && used != "error"
                    && !allowed.contains(&used.as_str())
                    && !ROOT_NAMES.contains(&used.as_str())
                {
                    let file = file.strip_prefix(&source).unwrap().display();
                    trespasses.push(format!("src/{file}:{line}: {room} may not use {used}"));
                }
            }
        }
    }
    assert!(trespasses.is_empty(), "\n{}", trespasses.join("\n"));
}

/// What is asynchronous stays in one room.
#[test]
fn only_the_engines_room_is_asynchronous() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = |file: &PathBuf| file.strip_prefix(&source).unwrap().starts_with("source/daemon");
    let asynchronous = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        let mut code = text.lines().map(|line| line.split("//").next().unwrap());
        code.any(|code| {
            ["tokio::", "bollard::", "futures_util::", "async ", ".await"].iter().any(|word| code.contains(word))
        })
    };
    let files: Vec<PathBuf> = ROOMS.iter().flat_map(|(room, _)| files_of(&source, room)).collect();
    let (within, without): (Vec<_>, Vec<_>) = files.into_iter().filter(asynchronous).partition(inside);
    assert!(!within.is_empty(), "the room is gone, or this test does not see it");
    assert_eq!(without, Vec::<PathBuf>::new());
}

/// Notes name the options that they are about. What is said by errors is said for users of the library too: there
/// `Error::with_remedy` names the choice, and `cli/hints.rs` the option.
const NAME_OPTIONS: [&str; 10] = [
    "output/architecture.rs",
    "output/package/documents.rs",
    "output/package/hosted.rs",
    "output/package/mod.rs",
    "output/policy.rs",
    "registry/registries_conf.rs",
    "singularity/advice.rs",
    "singularity/base.rs",
    "singularity/mod.rs",
    "singularity/recover.rs",
];

#[test]
fn no_error_of_the_library_names_an_option() {
    let options = options();
    assert!(options.len() > 40 && options.iter().any(|option| option == "--force"), "{options:?}");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for (room, _) in ROOMS.iter().filter(|(room, _)| *room != "cli") {
        for file in files_of(&source, room) {
            let name = file.strip_prefix(&source).unwrap().display().to_string();
            if NAME_OPTIONS.contains(&name.as_str()) {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
            let lines = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
            let named =
                lines.filter(|(_, line)| line.contains("with -o") || words(line).any(|word| options.contains(&word)));
            found.extend(named.map(|(at, line)| format!("src/{name}:{}: {}", at + 1, line.trim())));
        }
    }
    assert!(
        found.is_empty(),
        "say it with Error::with_remedy, and name the option in cli/hints.rs:\n{}",
        found.join("\n")
    );
}

/// The long options of all commands, but those that other programs have too.
fn options() -> Vec<String> {
    let commands =
        [&[][..], &["build"], &["attach"], &["inspect"], &["ls"], &["verify"], &["cache", "prune"], &["man"]];
    let mut options = Vec::new();
    for command in commands {
        let help = crate::support::run::run(crate::support::run::program().args(command).arg("--help"));
        assert_eq!(help.code, 0, "{}", help.stderr);
        let text = String::from_utf8(help.stdout).unwrap();
        options.extend(text.lines().flat_map(|line| words(line).collect::<Vec<_>>()));
    }
    options.retain(|option| option.len() > 2 && option != "--user" && option != "--help");
    options
}

/// The words of a line that look like long options.
fn words(line: &str) -> impl Iterator<Item = String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    line.split(move |c: char| !is_part(c)).filter(|word| word.starts_with("--")).map(str::to_string)
}

/// So many files may use each other in a circle, whichever of them one begins with.
const CIRCLE_FILES_MAX: usize = 3;

#[test]
fn the_program_has_no_large_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = files_of(&source, "cli");
    let module = |file: &PathBuf| {
        let inside = file.strip_prefix(source.join("cli")).unwrap().with_extension("");
        let names: Vec<String> = inside.iter().map(|name| name.to_str().unwrap().to_string()).collect();
        names.into_iter().filter(|name| name != "mod").collect::<Vec<_>>()
    };
    let modules: Vec<Vec<String>> = files.iter().map(module).collect();
    let arrows: Vec<Vec<usize>> = files
        .iter()
        .zip(&modules)
        .map(|(file, from)| {
            let used = paths(&fs::read_to_string(file).unwrap(), from);
            let at = |path: &Vec<String>| {
                (1..=path.len()).rev().find_map(|end| modules.iter().position(|module| module[..] == path[..end]))
            };
            used.iter().filter_map(at).filter(|&to| modules[to] != *from).collect()
        })
        .collect();
    assert!(arrows.iter().flatten().count() > 40, "this test does not see what is used");
    let reached: Vec<Vec<bool>> = (0..files.len()).map(|from| reached(&arrows, from)).collect();
    for (from, ahead) in reached.iter().enumerate() {
        let circle: Vec<&PathBuf> =
            (0..files.len()).filter(|&to| ahead[to] && reached[to][from]).map(|to| &files[to]).collect();
        assert!(circle.len() <= CIRCLE_FILES_MAX, "these files use each other in a circle: {circle:?}");
    }
}

/// What is reached along arrows; itself only in a circle.
fn reached(arrows: &[Vec<usize>], from: usize) -> Vec<bool> {
    let mut reached = vec![false; arrows.len()];
    let mut next = arrows[from].clone();
    while let Some(at) = next.pop() {
        if !std::mem::replace(&mut reached[at], true) {
            next.extend(&arrows[at]);
        }
    }
    reached
}

/// The paths inside of cli that a file uses, from the root of cli.
fn paths(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let code = code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for (start, root) in [("super::", &module[..module.len().saturating_sub(1)]), ("crate::cli::", &[])] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(':') {
                continue;
            }
            let (mut rest, mut root) = (&code[at + start.len()..], root);
            while let Some(further) = rest.strip_prefix("super::") {
                (rest, root) = (further, &root[..root.len().saturating_sub(1)]);
            }
            let under = |names: &str| root.iter().cloned().chain(names.split("::").map(first_name)).collect();
            match rest.strip_prefix('{') {
                Some(group) => found.extend(top_level_names(group).iter().map(|name| under(name))),
                None => {
                    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
                    found.push(under(rest[..end].trim_end_matches(':')));
                }
            }
        }
    }
    found
}

#[test]
fn paths_are_found() {
    let text = "use super::exit;\nuse super::{hints, options::{a, b}};\nuse crate::cli::commands::convert::{self, X};\n\
                fn f() { super::super::printer::line(x) }";
    let module: Vec<String> = ["commands", "build"].map(str::to_string).into();
    let found: Vec<String> = paths(text, &module).iter().map(|path| path.join("/")).collect();
    assert_eq!(found, ["commands/exit", "commands/hints", "commands/options", "printer/line", "commands/convert"]);
}

/// A new room must be put into the table.
#[test]
fn every_room_is_in_the_table() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for each in fs::read_dir(source).unwrap() {
        let path = each.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let known = ["bin", "lib", "main"].contains(&name) || ROOMS.iter().any(|(room, _)| *room == name);
        assert!(known, "{name} is not in the table of tests/it/walls.rs");
    }
}

/// The room's files without its tests.
fn files_of(source: &Path, room: &str) -> Vec<PathBuf> {
    let single = source.join(format!("{room}.rs"));
    let mut files = if single.exists() { vec![single] } else { Vec::new() };
    let mut directories = vec![source.join(room)];
    while let Some(directory) = directories.pop() {
        for each in fs::read_dir(&directory).into_iter().flatten() {
            let path = each.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && name != "tests" {
                directories.push(path);
            } else if name.ends_with(".rs") && name != "tests.rs" && !name.ends_with("_tests.rs") {
                files.push(path);
            }
        }
    }
    files
}

/// Every `crate::NAME` outside of comments, and every name of `crate::{A, B::…}`, with its line. A tests module, which
/// ends a file, is not looked at.
fn uses(text: &str) -> Vec<(usize, String)> {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    let mut found = Vec::new();
    let lines: Vec<&str> = code.lines().map(|line| line.split("//").next().unwrap()).collect();
    let joined = lines.join("\n");
    for (at, _) in joined.match_indices("crate::") {
        let inside_a_word = joined[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        if inside_a_word {
            continue;
        }
        let line = joined[..at].matches('\n').count() + 1;
        let rest = &joined[at + "crate::".len()..];
        let names =
            if let Some(group) = rest.strip_prefix('{') { top_level_names(group) } else { vec![first_name(rest)] };
        found.extend(names.into_iter().filter(|name| !name.is_empty()).map(|name| (line, name)));
    }
    found
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of each item of a group, up to its closing brace.
fn top_level_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

#[test]
fn uses_are_found() {
    let text = "use crate::io::Region;\nuse crate::{model::{Digest, Mode},\n  tree::Tree, Error};\n// crate::output\nlet x = crate::sif::y();\n\
                mycrate::no();\n\n#[cfg(test)]\nmod tests { use crate::cli; }";
    let found: Vec<(usize, String)> = uses(text);
    let names: Vec<(usize, &str)> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
    assert_eq!(names, [(1, "io"), (2, "model"), (2, "tree"), (2, "Error"), (5, "sif")]);
}
