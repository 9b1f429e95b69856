//! What packages rely on: the program's names, and one version in one place.

use std::process::{Command, Stdio};

use crate::support::run::{Run, run};

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
