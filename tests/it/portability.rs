//! The crate compiles for macOS: what only Linux has stands in one file, behind `cfg`, with something to do instead.

use std::fs;
use std::path::{Path, PathBuf};

/// Where Linux's own ways are, each with a portable one beside it.
const PLATFORM: &str = "io/system.rs";

/// Calls, flags and modules that rustix and std have for Linux only. What both systems have under one name
/// (`RenameFlags::NOREPLACE`, `flock`, `futimens`, `fstatvfs`) is not among them.
const LINUX_ONLY: &[&str] = &[
    "AT_EMPTY_PATH",
    "EMPTY_PATH",
    "FallocateFlags",
    "IFlags",
    "MemfdFlags",
    "OFlags::PATH",
    "OFlags::TMPFILE",
    "RenameFlags::WHITEOUT",
    "ResolveFlags",
    "StatxFlags",
    "copy_file_range",
    // Other systems have device numbers of another type.
    "fs::major(",
    "fs::minor(",
    "makedev",
    "mknodat",
    "eventfd",
    "f_type",
    "fadvise",
    "fallocate(",
    "inotify",
    "ioctl_ficlone",
    "memfd_create",
    "openat2",
    "os::linux",
    "pidfd",
    "prctl",
    "sendfile",
    "signalfd",
    "splice(",
    "statx(",
    "syncfs",
    "timerfd",
    "tmpfile(OFlags",
    "/proc/self/fd",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for each in fs::read_dir(directory).unwrap() {
        let path = each.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of a file that are code: without comments, and without its tests, which run on Linux.
fn code_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].lines().map(|line| line.split("// ").next().unwrap()).enumerate()
}

fn linux_only(text: &str) -> Vec<(usize, &str)> {
    let documented = |line: &str| line.trim_start().starts_with("//");
    code_of(text)
        .filter(|(_, line)| !documented(line) && LINUX_ONLY.iter().any(|word| line.contains(word)))
        .map(|(number, line)| (number + 1, line.trim()))
        .collect()
}

#[test]
fn what_only_linux_has_stands_in_one_file() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    let mut elsewhere = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap();
        let is_test = name.ends_with("tests.rs") || name.contains("/tests/");
        let text = fs::read_to_string(file).unwrap();
        let found = linux_only(&text);
        if name == PLATFORM {
            assert!(found.len() >= 4, "{PLATFORM} has none of Linux's ways, or this test does not see them: {found:?}");
        } else if !is_test {
            elsewhere.extend(found.into_iter().map(|(number, line)| format!("src/{name}:{number}: {line}")));
        }
    }
    assert!(elsewhere.is_empty(), "only Linux has this; put it into src/{PLATFORM}:\n{}", elsewhere.join("\n"));
}

#[test]
fn linux_and_the_others_have_the_same_functions() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(PLATFORM)).unwrap();
    let (_, text) = text.split_once("#[cfg(target_os = \"linux\")]").unwrap();
    let (linux, others) = text.split_once("#[cfg(not(target_os = \"linux\"))]").unwrap();
    fn functions(text: &str) -> Vec<&str> {
        let signatures = text.lines().filter_map(|line| line.trim().strip_prefix("pub(crate) fn "));
        let mut names: Vec<&str> = signatures.filter_map(|line| line.split('(').next()).collect();
        names.sort_unstable();
        names
    }
    assert!(functions(linux).len() >= 5);
    assert_eq!(functions(linux), functions(others));
}
