//! Files of settings: what counts, that options and environment count more, and what is said of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::run::{Run, program, run, scratch};

/// A directory with a user's file of settings.
struct Place(tempfile::TempDir);

impl Place {
    fn new(settings: &str) -> Place {
        let place = Place(scratch());
        let directory = place.0.path().join("config/sif-convert");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("config.toml"), settings).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = program();
        command.env("XDG_CONFIG_HOME", self.path().join("config")).current_dir(self.path());
        command.args(line.split_whitespace().map(|word| word.replace("FIXTURE", FIXTURE)));
        command
    }

    fn run(&self, line: &str) -> Run {
        run(&mut self.command(line))
    }

    /// The line of `config` that begins with `name`.
    fn shown(&self, command: &mut Command, name: &str) -> Vec<String> {
        let shown = run(command.arg("config"));
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        let text = String::from_utf8(shown.stdout).unwrap();
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {text}")).split_whitespace().map(str::to_string).collect()
    }
}

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");

#[test]
fn config_shows_what_counts_and_from_where() {
    let place = Place::new(
        "cache = '/scratch/cache'\njobs = 3\ntmpdir = '/scratch'\n[mirrors]\n'docker.io' = 'cache:5000/hub'\n",
    );
    let file = place.path().join("config/sif-convert/config.toml").display().to_string();
    let shown = |name: &str| place.shown(&mut place.command(""), name);
    assert_eq!(shown("cache"), ["cache", "/scratch/cache", &file]);
    assert_eq!(shown("jobs"), ["jobs", "3", &file]);
    assert_eq!(shown("tmpdir"), ["tmpdir", "/scratch", &file]);
    assert_eq!(shown("mirror"), ["mirror", "docker.io=cache:5000/hub", &file]);
    assert_eq!(shown("compression")[2], "default");
    let mut command = place.command("");
    assert_eq!(place.shown(command.env("TMPDIR", "/elsewhere"), "tmpdir"), ["tmpdir", "/elsewhere", "TMPDIR"]);
}

#[test]
fn config_aligns_its_columns() {
    let place = Place::new(
        "cache = '/scratch/a directory of the site/with/a/name/longer/than/others/é'\ncache_accounts = ['0']\njobs = 3\n",
    );
    let shown = place.run("config");
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    // The last column begins at the same place in all lines, behind two spaces.
    let columns: Vec<usize> = text
        .lines()
        .map(|line| {
            let last = line.rsplit("  ").next().unwrap();
            line.chars().count() - last.chars().count()
        })
        .collect();
    assert!(columns.len() > 5 && columns.iter().all(|at| *at == columns[0]), "{text}");
    assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
}

#[test]
fn settings_that_change_bytes_are_in_the_report() {
    let place = Place::new("compression = 'zstd:1'\n");
    let convert = |line: &str, output: &str| {
        let done = place.run(&format!("FIXTURE --to {line} -o {output} --report {output}.json"));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let report: Value =
            serde_json::from_slice(&fs::read(place.path().join(format!("{output}.json"))).unwrap()).unwrap();
        let notes = report["notes"].as_array().unwrap();
        notes
            .iter()
            .filter(|note| note["code"] == "settings")
            .map(|note| note["message"].to_string())
            .collect::<Vec<_>>()
    };
    let bytes = |name: &str| fs::read(place.path().join(name)).unwrap();
    let notes = convert("sif", "settled.sif");
    assert!(notes.len() == 1 && notes[0].contains("compression zstd:1 is set in"), "{notes:?}");
    assert!(convert("sif --compression zstd:1", "given.sif").is_empty());
    assert!(convert("sif --compression gzip", "gzip.sif").is_empty());
    assert!(bytes("settled.sif") == bytes("given.sif") && bytes("settled.sif") != bytes("gzip.sif"));
    // A tar is compressed as its name says, in every place.
    assert!(convert("rootfs", "x.tar").is_empty());
}

#[test]
fn a_file_that_cannot_be_read_stops_what_heeds_it_only() {
    let place = Place::new("jobs = 2\ncashe = '/c'\n");
    for line in ["FIXTURE --to rootfs -o x.tar", "inspect FIXTURE", "config"] {
        let failed = place.run(line);
        assert_eq!(failed.code, 2, "{line}: {}", failed.stderr);
        let named = failed.stderr.contains("config/sif-convert/config.toml") && failed.stderr.contains("line 2");
        assert!(named && failed.stderr.contains("hint: "), "{}", failed.stderr);
    }
    assert!(!place.path().join("x.tar").exists());
    // Who calls pull looks for these words, and for nothing else.
    let pulled = place.run("pull x.sif docker://registry.invalid/x");
    assert!(pulled.code == 255 && pulled.stderr.starts_with("FATAL:   "), "{}", pulled.stderr);
    assert_eq!(place.run("--version").code, 0);
    assert_eq!(place.run("completions bash").code, 0);
}
