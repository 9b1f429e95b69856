//! One image, one SIF: the bytes depend on the image and the effective options, not on how the image was spelled, what it came
//! through, or whether an option was given with its default.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use crate::support::pack::sha256;
use crate::support::run::{program, run, scratch};

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");

/// Runs the program in `directory`, which must succeed.
fn convert(directory: &Path, arguments: &[&str]) {
    let run = run(program().current_dir(directory).args(arguments));
    assert_eq!(run.code, 0, "{arguments:?}: {}", run.stderr);
}

/// The SHA-256 of what SOURCE becomes.
fn converted(directory: &Path, source: &str, format: &str, options: &[&str]) -> String {
    let output = directory.join("output");
    let mut command = program();
    command.current_dir(directory).args([source, "--to", format, "-f", "-o", "output"]).args(options);
    if source == "-" {
        command.stdin(Stdio::from(File::open(directory.join("image.tar")).unwrap()));
    }
    let run = run(&mut command);
    assert_eq!(run.code, 0, "{source} {format} {options:?}: {}", run.stderr);
    sha256(&fs::read(output).unwrap())
}

/// The image in every shape that needs neither an engine nor a registry: other names, containers and compressions.
fn spellings(directory: &Path) -> Vec<&'static str> {
    fs::copy(HELLO, directory.join("image.tar")).unwrap();
    convert(directory, &["image.tar", "--to", "docker-archive", "--tag", "other.example/name:2", "-o", "named.tar"]);
    convert(directory, &["image.tar", "--to", "docker-archive", "--compression", "gzip", "-o", "named.tar.gz"]);
    convert(directory, &["image.tar", "--to", "oci", "--tag", "one", "-o", "plain.oci"]);
    convert(directory, &["image.tar", "--to", "oci", "--compression", "gzip:1", "-o", "gzip.oci"]);
    convert(directory, &["image.tar", "--to", "oci-archive", "--compression", "zstd", "-o", "zstd.oci.tar"]);
    vec![
        "image.tar",
        "-",
        "docker-archive:image.tar",
        "named.tar",
        "named.tar.gz",
        "plain.oci",
        "oci:plain.oci:one",
        "gzip.oci",
        "oci-archive:zstd.oci.tar",
    ]
}

#[test]
fn one_image_gives_one_output_however_it_is_spelled() {
    let place = scratch();
    let spellings = spellings(place.path());
    for format in ["sif", "sif-rootfs"] {
        let first = converted(place.path(), "image.tar", format, &[]);
        for source in &spellings {
            assert_eq!(converted(place.path(), source, format, &[]), first, "{source} as {format}");
        }
    }
}

#[test]
fn defaults_that_are_spelled_out_change_nothing() {
    let place = scratch();
    fs::copy(HELLO, place.path().join("image.tar")).unwrap();
    let first = converted(place.path(), "image.tar", "sif", &[]);
    let spelled: [&[&str]; 5] = [
        &["--compression", "gzip"],
        &["--block-size", "131072"],
        &["--xattrs", "none"],
        &["--jobs", "3"],
        &["--compression", "gzip:5", "--block-size", "131072", "--xattrs", "none"],
    ];
    for options in spelled {
        assert_eq!(converted(place.path(), "image.tar", "sif", options), first, "{options:?}");
    }
}

#[test]
fn a_name_that_is_asked_for_is_recorded() {
    let place = scratch();
    fs::copy(HELLO, place.path().join("image.tar")).unwrap();
    let without = converted(place.path(), "image.tar", "sif", &[]);
    let named = converted(place.path(), "image.tar", "sif", &["--reference", "example.org/app:1"]);
    assert_ne!(named, without);
    let bytes = fs::read(place.path().join("output")).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("from: example.org/app:1\n"), "the definition holds the name");
}
