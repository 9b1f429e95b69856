//! Help, manual pages and completions, as the programs that show them show them.

use std::fs;
use std::process::Command;

use crate::support::run;
use crate::terminal::Terminal;

fn has(program: &str) -> bool {
    let is_there = run::host_has(program);
    if !is_there {
        run::skip(&format!("there is no {program}"));
    }
    is_there
}

/// A directory with the program and an archive.
fn place() -> tempfile::TempDir {
    let place = run::scratch();
    put(place.path());
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sif-convert"), place.path().join("sif-convert")).unwrap();
    place
}

fn put(directory: &std::path::Path) {
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    fs::copy(hello, directory.join("x.tar")).unwrap();
}

fn shell(place: &tempfile::TempDir, words: &[&str]) -> String {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(place.path()).env_clear().env("HOME", place.path()).env("LC_ALL", "C.UTF-8");
    command.env("PATH", format!("{}:/usr/bin:/bin", place.path().display())).env("MANWIDTH", "80");
    let done = run::run(&mut command);
    assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    String::from_utf8(done.stdout).unwrap()
}

const TAG: &str = "docker.io/example/case:latest";

#[test]
fn bash_completes() {
    if !has("bash") {
        return;
    }
    let place = place();
    let complete = |line: &str| {
        let script = format!(
            "source <(sif-convert completions bash); compopt() {{ :; }}; COMP_LINE='{line}' COMP_POINT={}; _sif_convert; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            line.len()
        );
        shell(&place, &["bash", "--norc", "-c", &script])
    };
    assert!(complete("sif-convert ins").lines().any(|line| line == "inspect"));
    assert_eq!(complete("sif-convert x.tar --to roo"), "rootfs\n");
    assert_eq!(complete("sif-convert x.tar --if-exists=re"), "replace\nreuse\n");
    assert_eq!(complete("sif-convert docker-archive:x.tar:"), format!("{TAG}\n"), "bash takes what is behind a colon");
    assert!(complete("sif-convert ").lines().any(|line| line == "x.tar"), "files");
}

#[test]
fn fish_completes() {
    if !has("fish") {
        return;
    }
    let place = place();
    let complete = |line: &str| {
        let script = format!("sif-convert completions fish | source; complete -C '{line}'");
        let shown = shell(&place, &["fish", "--no-config", "-c", &script]);
        shown.lines().map(|line| line.split('\t').next().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert!(complete("sif-convert ver").contains(&"verify".to_string()));
    assert!(complete("sif-convert x.tar --fl").contains(&"--flatten".to_string()), "options after SOURCE");
    assert!(complete("sif-convert x.tar --to sif").contains(&"sif-rootfs".to_string()), "values after SOURCE");
    assert_eq!(complete("sif-convert docker-archive:x.tar:"), [format!("docker-archive:x.tar:{TAG}")]);
    assert_eq!(complete("sif-convert x.tar --image doc"), [TAG]);
    assert!(complete("sif-convert inspect x").contains(&"x.tar".to_string()));
}

#[test]
fn zsh_completes() {
    if !has("zsh") {
        return;
    }
    let Some(terminal) = Terminal::open(120) else { return };
    put(terminal.path());
    terminal.enter("exec zsh -f");
    terminal.enter("PS1='> '; autoload -Uz compinit && compinit -u -D; source <(sif-convert completions zsh); clear");
    for (typed, becomes) in [
        ("sif-convert ins", "sif-convert inspect"),
        ("sif-convert x.tar --to roo", "sif-convert x.tar --to rootfs"),
        ("sif-convert docker-archive:x.tar:", &format!("sif-convert docker-archive:x.tar:{TAG}")),
    ] {
        terminal.tmux(&["send-keys", typed, "Tab"]);
        terminal.wait(becomes, |screen| screen.contains(becomes));
        terminal.tmux(&["send-keys", "C-u"]);
    }
}

/// Each command has a page, which `man` shows in 80 columns with its examples and tables as they were meant.
#[test]
fn manual_pages_are_legible() {
    if !has("man") {
        return;
    }
    let place = place();
    shell(&place, &["sif-convert", "man", "--directory", "man"]);
    let mut pages = 0;
    for each in fs::read_dir(place.path().join("man")).unwrap() {
        let path = each.unwrap().path();
        let page = shell(&place, &["man", "-l", path.to_str().unwrap()]);
        assert!(page.lines().all(|line| line.chars().count() <= 80), "{path:?}:\n{page}");
        assert!(page.contains("SYNOPSIS\n       sif-convert"), "{page}");
        pages += 1;
    }
    assert!(pages > 9);
    let page = shell(&place, &["man", "-l", "man/sif-convert.1"]);
    for part in [
        "SYNOPSIS\n       sif-convert [OPTIONS] --to <FORMAT> <SOURCE>\n",
        "\n       docker-daemon:NAME[:TAG]\n           an image of the local Docker or Podman engine, by name or ID\n",
        "\n       sif-convert ubuntu.tar --to rootfs -o - | tar -t\n           lists the image's files\n",
        "\nEXIT CODES\n       0   done: the output is complete\n",
    ] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    let one = shell(&place, &["sh", "-c", "sif-convert man inspect | man -l -"]);
    assert!(one.starts_with("sif-convert-inspect(1)") || one.contains("sif-convert inspect"), "{one}");
}

/// `-h` is one screen.
#[test]
fn short_help_is_one_screen() {
    let place = place();
    let help = shell(&place, &["sif-convert", "-h"]);
    assert!((24..=40).contains(&help.lines().count()), "{} lines:\n{help}", help.lines().count());
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}
