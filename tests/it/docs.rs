//! Every command in docs/medperf.md and docs/hosting.md works as it stands there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer::tar_of;
use crate::support::pack::{Squeeze, config, docker_archive_of};
use crate::support::registry::Registry;
use crate::support::run::{host_has, oracles, run, scratch, skip};
use serde_json::json;

/// The blocks of a page that are marked as shell.
fn blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line == "```sh" {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
        }
    }
    blocks
}

fn put_program(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

const CONFIG: &str = "\
tasks:
  prepare:
    input_volumes:
      data: { mount_path: /mlcommons/volumes/data, type: directory }
";

/// Takes what the client gives to "run": options, each --bind with a directory of this host, and a whole SIF.
const SINGULARITY: &str = r#"#!/bin/sh
set -eu
[ "$1" = run ] && [ "$2" = -eC ] && shift 2
while [ "$1" = --bind ]; do
    test -d "${2%%:*}"
    shift 2
done
convert verify "$1"
"#;

const CARGO: &str = r#"#!/bin/sh
[ "$*" = 'install --locked --path .' ]
"#;

/// A place as the page takes for granted: the files that it names, `convert`, and in place of programs that would need more
/// than that some that look at what they are given.
fn prepare(place: &Path) {
    let entries = [Entry::new("app", Kind::Dir), Entry::new("app/main.py", Kind::File(Content::data("print('hi')\n")))];
    let layers = [tar_of(&entries)];
    let mut image = config(&layers);
    image["config"]["WorkingDir"] = "/app".into();
    image["config"]["Entrypoint"] = json!(["python3", "main.py"]);
    fs::write(place.join("prep.tar"), docker_archive_of(&image, &layers, Squeeze::Gzip)).unwrap();
    fs::write(place.join("container_config.yaml"), CONFIG).unwrap();
    for directory in ["bin", "data", "out", "images", "weights"] {
        fs::create_dir(place.join(directory)).unwrap();
    }
    fs::write(place.join("weights/model.bin"), [7; 5000]).unwrap();
    fs::write(place.join("passphrase"), "secret\n").unwrap();
    let bin = place.join("bin");
    for name in ["convert", "sif-convert"] {
        symlink(env!("CARGO_BIN_EXE_sif-convert"), bin.join(name)).unwrap();
    }
    put_program(&bin, "cargo", CARGO);
    put_program(&bin, "singularity", SINGULARITY);
    put_program(&bin, "apptainer", SINGULARITY);
}

#[test]
fn every_command_for_medperf_works() {
    let place = scratch();
    prepare(place.path());
    let shell = |script: &str| {
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", place.path().join("bin").display());
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", path).env("HOME", place.path()).current_dir(place.path());
        run(command.args(["-euc", script]))
    };
    let blocks = blocks(include_str!("../../docs/medperf.md"));
    assert!(blocks.len() >= 9, "{} blocks", blocks.len());
    for block in blocks {
        if block.contains("gpg ") {
            if !host_has("gpg") {
                skip("gpg is missing: apt-get install gnupg");
                continue;
            }
            let encrypt =
                "gpg --batch --quiet --passphrase-file passphrase --pinentry-mode loopback --symmetric prep.tar";
            let done = shell(encrypt);
            assert_eq!(done.code, 0, "{}", done.stderr);
        }
        let done = shell(&block);
        assert_eq!(done.code, 0, "{block}{}{}", String::from_utf8(done.stdout).unwrap(), done.stderr);
    }
    let sifs = ["prep", "bound", "by-hand", "workdir", "checked", "images/prep", "images/shimmed"];
    let files = sifs.iter().map(|name| format!("{name}.sif"));
    for name in files.chain(["report.json", "additional_files.tar.gz"].map(str::to_string)) {
        assert!(place.path().join(&name).exists(), "{name} was not made");
    }
}

/// Runs a program of the oracles, with the option that lets it speak plain HTTP. It works in /mnt there.
const ORACLE: &str = r#"#!/bin/sh
subcommand=$1
shift
[ "$subcommand" = verify ] || set -- @OPTION@ "$@"
exec "@ORACLES@" run @NAME@ "$subcommand" "$@"
"#;

/// The page's registry is one of this machine's.
#[test]
fn every_command_for_hosting_works_oracle() {
    if oracles().is_none() {
        return;
    }
    let place = scratch();
    let Some(registry) = Registry::start(place.path(), "", "") else { return };
    let layers = [tar_of(&[Entry::new("app.py", Kind::File(Content::data("print('hi')\n")))])];
    fs::write(place.path().join("app.tar"), docker_archive_of(&config(&layers), &layers, Squeeze::Not)).unwrap();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_sif-convert"), bin.join("sif-convert")).unwrap();
    for (name, option) in [("apptainer", "--no-https"), ("oras", "--plain-http")] {
        let oracles = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/oracles");
        let text = ORACLE.replace("@ORACLES@", oracles).replace("@NAME@", name).replace("@OPTION@", option);
        put_program(&bin, name, &text);
    }
    let page = include_str!("../../docs/hosting.md").replace("ghcr.io", &registry.host);
    let blocks = blocks(&page);
    assert!(blocks.len() >= 7, "{} blocks", blocks.len());
    for block in blocks {
        let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", path).env("HOME", place.path()).current_dir(place.path());
        let root = std::env::var_os("ORACLES_ROOT").unwrap_or_else(|| "/var/tmp/oracles".into());
        let done = run(command.env("ORACLES_ROOT", root).args(["-euc", &block]));
        let stdout = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.code, 0, "{block}{stdout}{}", done.stderr);
        if block.contains("discover") {
            assert!(stdout.matches("application/vnd.sylabs.sif.layer.v1.sif").count() >= 1, "{stdout}");
        }
    }
}

/// What stands in the action is what the program takes.
#[test]
fn the_action_calls_the_program_as_it_is() {
    let action = include_str!("../../action.yml");
    let attach = action.lines().find(|line| line.trim().starts_with("sif-convert attach")).unwrap();
    assert!(attach.contains("--report \"$report\""), "{attach}");
    let place = scratch();
    let mut command = Command::new("bash");
    command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(place.path()).env("RUNNER_TEMP", place.path());
    command.env("GITHUB_OUTPUT", place.path().join("output")).env("IMAGE", "h.example/x:1");
    command.env("PLATFORMS", "linux/amd64 linux/arm64").env("ARGUMENTS", "--workdir");
    let step = action.split("      run: |\n").last().unwrap();
    let step: String = step.lines().map(|line| format!("{}\n", line.trim_start())).collect();
    // Not of this network: what is called is all that matters.
    let call = format!("sif-convert() {{ printf '%s\\n' \"$@\"; }}\n{step}");
    let done = run(command.args(["-euo", "pipefail", "-c", &call]));
    let report = place.path().join("sif-convert-report.json").display().to_string();
    let words = String::from_utf8(done.stdout).unwrap();
    let expected = ["attach", "docker://h.example/x:1", "--report", &report];
    let expected = [&expected[..], &["--platform", "linux/amd64", "--platform", "linux/arm64", "--workdir"]].concat();
    assert_eq!(words.lines().collect::<Vec<_>>(), expected, "{}", done.stderr);
}

/// The patch is one that git reads, and calls the program as it is.
#[test]
fn the_patch_for_the_client_is_whole() {
    let patch = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/medperf-client.patch");
    let done = run(Command::new("git").args(["apply", "--numstat", patch]).current_dir("/"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let files = String::from_utf8(done.stdout).unwrap();
    let names: Vec<&str> = files.lines().filter_map(|line| line.rsplit('/').next()).collect();
    assert_eq!(names, ["singularity_runner.py", "singularity_utils.py"]);
    let text = fs::read_to_string(patch).unwrap();
    let place = scratch();
    let layers = [tar_of(&[Entry::new("a", Kind::Dir)])];
    let archive = place.path().join("archive");
    fs::write(&archive, docker_archive_of(&config(&layers), &layers, Squeeze::Gzip)).unwrap();
    let call = |words: &[&str]| {
        words
            .iter()
            .filter(|word| word.starts_with('-'))
            .for_each(|word| assert!(text.contains(&format!("\"{word}\""))));
        let mut command = Command::new(env!("CARGO_BIN_EXE_sif-convert"));
        let input = fs::File::open(&archive).unwrap();
        let done = run(command.current_dir(place.path()).env_clear().args(words).stdin(input));
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    };
    let source = format!("docker-archive://{}", archive.display());
    call(&["build", "--if-exists", "update", "x.sif", &source]);
    fs::write(place.path().join("key"), "secret\n").unwrap();
    let written = ["--to", "sif", "--progress", "plain", "--mode", "600", "--force"];
    let piped = [&["-", "--input-command", "cat archive"][..], &written, &["-o", "x.sif"]].concat();
    call(&piped[..]);
    call(&[&piped[..], &["--encrypt-passphrase-file", "key"]].concat());
    call(&["verify", "--decrypt-passphrase-file", "key", "x.sif"]);
    call(&["inspect", "--json", "archive"]);
}

#[test]
fn exit_codes_are_those_of_the_readme() {
    let codes = |page: &str| -> Vec<String> {
        let is_row =
            |line: &&str| line.strip_prefix("| ").is_some_and(|row| row.starts_with(|c: char| c.is_ascii_digit()));
        page.lines().filter(is_row).map(|row| row[2..].split(" |").next().unwrap().to_string()).collect()
    };
    let mut expected = codes(include_str!("../../README.md"));
    expected.retain(|code| code != "1");
    assert_eq!(codes(include_str!("../../docs/medperf.md")), expected);
}
