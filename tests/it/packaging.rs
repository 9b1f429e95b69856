//! What packages rely on: the program's names, and one version in one place.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::run::{Run, run, scratch};

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
