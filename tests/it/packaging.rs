//! What packages rely on: the program's names, one version in one place, and how versions are sorted.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::run::{Run, run, scratch, skip};

/// The program under both of its names.
const NAMES: [&str; 2] = [env!("CARGO_BIN_EXE_sif-convert"), env!("CARGO_BIN_EXE_convert")];

fn call(program: &str, line: &str) -> Run {
    run(Command::new(program).args(line.split_whitespace()).env_clear().stdin(Stdio::null()))
}

#[test]
fn both_names_are_the_same_program() {
    for name in NAMES {
        let version = call(name, "--version");
        assert_eq!(version.stdout, format!("sif-convert {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
        let help = String::from_utf8(call(name, "build --help").stdout).unwrap();
        assert!(help.contains("Usage: sif-convert build "), "{help}");
    }
}

#[test]
fn who_wanted_imagemagick_is_told_so() {
    for (line, quoted) in
        [("a.png b.jpg", "\"a.png\""), ("a.png -resize 50% b.jpg", "\"-resize\""), ("-version", "\"-version\"")]
    {
        for name in NAMES {
            let said = call(name, line);
            let expected = format!(
                "error: {quoted} is for ImageMagick's convert, and this is sif-convert, which converts container images\n\
                 hint: call ImageMagick as \"magick\" or \"convert-im6.q16\", or put its directory first in PATH\n"
            );
            assert_eq!((said.code, said.stderr), (2, expected), "{line}");
            assert!(said.stdout.is_empty());
        }
    }
}

/// What a script of the repository prints.
fn printed(script: &Path, words: &[&str]) -> Option<String> {
    let done = run(Command::new(script).args(words));
    (done.code == 0).then(|| String::from_utf8(done.stdout).unwrap().trim_end().to_string())
}

#[test]
fn a_candidate_is_older_than_its_release() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/system-version");
    let of = |version: &str| printed(&script, &[version]).unwrap();
    assert_eq!(of("0.3.0"), "0.3.0");
    assert_eq!(of("0.3.0-rc.1"), "0.3.0~rc.1");
    let sorted = ["0.2.9", "0.3.0-alpha-2", "0.3.0-rc.1", "0.3.0-rc.2", "0.3.0", "0.3.1-rc.1"].map(of);
    for pair in sorted.windows(2) {
        let dpkg = Command::new("dpkg").args(["--compare-versions", &pair[0], "lt", &pair[1]]).status();
        match dpkg {
            Ok(status) => assert!(status.success(), "{pair:?}"),
            Err(_) => skip("dpkg is missing"),
        }
        let compared = format!("%{{lua: print(rpm.vercmp('{}', '{}'))}}", pair[0], pair[1]);
        match Command::new("rpm").args(["--eval", &compared]).output() {
            Ok(said) => assert_eq!(String::from_utf8(said.stdout).unwrap().trim(), "-1", "{pair:?}"),
            Err(_) => skip("rpm is missing"),
        }
    }
}

#[test]
fn the_changes_of_a_version_are_its_own() {
    let place = scratch();
    std::fs::create_dir(place.path().join("scripts")).unwrap();
    let script = place.path().join("scripts/changelog-section");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/changelog-section"), &script).unwrap();
    let changes = "# Changelog\n\n## Unreleased\n\n* a\n\n## 10.3.0 - 2027-01-03\n\n* b\n\n## [0.3.0] - 2027-01-02\n\n* c\n\n\
                   ## 0.3.0-rc.1 - 2027-01-01\n\n* d\n";
    std::fs::write(place.path().join("CHANGELOG.md"), changes).unwrap();
    for (version, section) in [("Unreleased", "* a"), ("10.3.0", "* b"), ("0.3.0", "* c"), ("0.3.0-rc.1", "* d")] {
        assert_eq!(printed(&script, &[version]).unwrap().trim(), section);
    }
    assert_eq!(printed(&script, &["3.0"]), None);
}

/// A program of examples/. `cargo test` builds them all; of one test target alone they are not a part.
fn example(name: &str) -> Command {
    let built = Path::new(env!("CARGO_BIN_EXE_sif-convert")).with_file_name("examples").join(name);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().unwrap().success(), "{name} does not build");
    Command::new(built)
}

#[test]
fn examples_work() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    let place = scratch();
    let run = |name: &str, arguments: &[&str]| {
        let done = run(example(name).args(arguments).current_dir(place.path()));
        assert_eq!(done.code, 0, "{name}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    let facts = run("image_facts", &[fixture]);
    let listed = run("list_files", &[fixture]);
    assert!(listed.lines().count() > 2 && listed.contains(" entries in "), "{listed}");
    let written = run("to_sif", &[fixture, "hello.sif"]);
    let id = facts.lines().find_map(|line| line.strip_prefix("image:    ")).unwrap();
    assert!(written.contains(id), "{written}");
    let mut verify = Command::new(env!("CARGO_BIN_EXE_sif-convert"));
    assert_eq!(crate::support::run::run(verify.args(["verify", "hello.sif"]).current_dir(place.path())).code, 0);
}
