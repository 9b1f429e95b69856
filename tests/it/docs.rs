//! Every command in docs/medperf.md works as it stands there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer::tar_of;
use crate::support::pack::{Squeeze, config, docker_archive_of};
use crate::support::run::{host_has, run, scratch, skip};
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
