//! `convert verify` finds damage, and `convert build` takes the argv of `singularity build`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::archives::{self, Described};
use crate::support::random::Numbers;
use crate::support::run::count;
use crate::support::tar::Tar;

fn convert(directory: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_convert")).current_dir(directory).args(words).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with `image.tar` in it: text, noise, a program of another machine, links, a sparse tail.
fn place() -> (tempfile::TempDir, PathBuf) {
    let mut numbers = Numbers::new(1);
    let elf = [&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0"[..], &[0; 44]].concat();
    let layer = Tar::new()
        .file("bin/sh", elf)
        .file("noise", numbers.noise(300_000))
        .file("small-noise", numbers.noise(3000))
        .file("text", b"all work and no play\n".repeat(20_000))
        .file("empty", b"")
        .finish();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    std::fs::write(&path, archives::docker_24(&[Described::new(vec![layer])]).bytes).unwrap();
    (directory, path)
}

fn sif() -> (tempfile::TempDir, Vec<u8>) {
    let (directory, _) = place();
    let output = convert(directory.path(), &["image.tar", "--to", "sif", "-q", "--arch", "amd64"]);
    assert!(output.status.success(), "{}", told(&output));
    let bytes = std::fs::read(directory.path().join("image.sif")).unwrap();
    (directory, bytes)
}

fn verify(directory: &Path, bytes: &[u8]) -> Output {
    std::fs::write(directory.join("damaged.sif"), bytes).unwrap();
    convert(directory, &["verify", "damaged.sif"])
}

/// Zeros that no reader looks at: between table and objects nothing is free, but before the partition and behind the
/// squashfs there is.
fn is_padding(output: &Output) -> bool {
    output.status.success() && told(output).contains("warning: byte ")
}

#[test]
fn every_flipped_byte_is_found() {
    let (directory, whole) = sif();
    assert!(verify(directory.path(), &whole).status.success());
    let mut numbers = Numbers::new(42);
    let mut padding = 0;
    let rounds = count("FLIPS", 200);
    for round in 0..rounds {
        let at = match round {
            // Most of a file is data; every third flip goes to where the structure is.
            n if n % 3 == 0 => numbers.below(40_000.min(whole.len() as u64)),
            n if n % 3 == 1 => whole.len() as u64 - 1 - numbers.below(8192),
            _ => numbers.below(whole.len() as u64),
        } as usize;
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << numbers.below(8);
        let output = verify(directory.path(), &damaged);
        if is_padding(&output) {
            padding += 1;
            continue;
        }
        // Without its magic it is not a SIF at all.
        let code = if (32..42).contains(&at) { 4 } else { 5 };
        assert_eq!(output.status.code(), Some(code), "byte {at}: {}", told(&output));
    }
    assert!(padding < rounds * 3 / 4, "{padding} of {rounds} flips hit padding: the others prove too little");
}

#[test]
fn every_truncation_is_found() {
    let (directory, whole) = sif();
    let mut numbers = Numbers::new(7);
    for round in 0..60 {
        let length = if round < 10 { round * 13 } else { numbers.below(whole.len() as u64) } as usize;
        let output = verify(directory.path(), &whole[..length]);
        assert!(!output.status.success(), "{length}");
        assert_ne!(output.status.code(), Some(70), "{length}: {}", told(&output));
        assert_ne!(output.status.code(), Some(101), "{length}: {}", told(&output));
    }
}

#[test]
fn build_takes_the_argv_of_singularity_build() {
    let (directory, archive) = place();
    let source = format!("docker-archive://{}", archive.display());
    let run = |words: &[&str]| convert(directory.path(), words);
    let first = run(&["build", "out.sif", &source]);
    assert!(first.status.success(), "{}", told(&first));
    let whole = std::fs::read(directory.path().join("out.sif")).unwrap();
    let again = run(&["build", "out.sif", &source]);
    assert!(again.status.success() && told(&again).contains("reused "), "{}", told(&again));
    let strict = run(&["build", "--if-exists", "fail", "out.sif", &source]);
    assert_eq!(strict.status.code(), Some(8), "{}", told(&strict));
    let forced = run(&[
        "build",
        "--force",
        "--fakeroot",
        "--disable-cache",
        "--tmpdir",
        "/tmp",
        "--fix-perms",
        "--arch",
        "amd64",
        "--userns",
        "--authfile",
        "/dev/null",
        "--mount",
        "type=bind,source=/opt,destination=/opt",
        "out.sif",
        &source,
    ]);
    assert!(forced.status.success(), "{}", told(&forced));
    assert!(
        told(&forced).contains("without effect here: --fakeroot, --disable-cache, --mount, --userns"),
        "{}",
        told(&forced)
    );
    for refused in ["--sandbox", "--encrypt", "--oci", "--update"] {
        let output = run(&["build", refused, "other.sif", &source]);
        assert_eq!(output.status.code(), Some(2), "{refused}");
        assert!(!directory.path().join("other.sif").exists());
    }
    let plain = run(&["image.tar", "--to", "sif", "-q"]);
    assert!(plain.status.success());
    assert!(std::fs::read(directory.path().join("image.sif")).unwrap() == whole, "the same image, the same bytes");
}

#[test]
fn an_output_is_reused_only_when_it_is_whole_and_of_this_image() {
    let (directory, whole) = sif();
    let path = directory.path().join("image.sif");
    let reuse = || convert(directory.path(), &["image.tar", "--to", "sif", "--if-exists", "reuse"]);
    let output = reuse();
    assert!(output.status.success() && told(&output).contains("reused "), "{}", told(&output));
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let output = reuse();
    assert_eq!(output.status.code(), Some(5), "{}", told(&output));
    assert!(std::fs::read(&path).unwrap() == damaged, "a damaged output is not touched");
    let other = archives::docker_24(&[Described::new(vec![Tar::new().file("other", "x").finish()])]).bytes;
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(directory.path().join("image.tar"), other).unwrap();
    assert_eq!(reuse().status.code(), Some(8));
    std::fs::remove_file(&path).unwrap();
    let reuse =
        |arch: &str| convert(directory.path(), &["image.tar", "--to", "sif", "--if-exists", "reuse", "--arch", arch]);
    let output = reuse("amd64");
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&reuse("amd64")).contains("reused "));
    let output = reuse("arm64");
    assert_eq!(output.status.code(), Some(8), "{}", told(&output));
    assert!(told(&output).contains("made for amd64, not for arm64"), "{}", told(&output));
}

#[test]
fn an_output_is_reused_only_as_it_would_be_packed_and_gets_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let (directory, _) = sif();
    let path = directory.path().join("image.sif");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let call = |when: &str, words: &[&str]| {
        let line = ["image.tar", "--to", "sif", "--arch", "amd64", "--if-exists", when];
        convert(directory.path(), &[&line, words].concat())
    };
    for words in [&["--compression", "zstd"][..], &["--block-size", "4096"]] {
        let output = call("reuse", words);
        assert_eq!(output.status.code(), Some(8), "{}", told(&output));
        assert!(told(&output).contains("another compression or block size"), "{}", told(&output));
    }
    for words in [&["--compression", "gzip"][..], &["--block-size", "131072"], &[]] {
        assert!(told(&call("reuse", words)).contains("reused "), "{words:?}");
    }
    assert!(told(&call("update", &["--compression", "zstd"])).contains("wrote "));
    assert!(told(&call("update", &[])).contains("wrote "));
    let before = mode();
    assert!(told(&call("update", &[])).contains("reused ") && mode() == before);
    assert!(told(&call("update", &["--mode", "600"])).contains("reused ") && mode() == 0o600);
    assert!(told(&call("reuse", &[])).contains("reused ") && mode() == 0o600);
}

#[test]
fn what_holds_no_digests_is_not_called_whole() {
    let (directory, _) = place();
    let root = directory.path();
    for format in ["rootfs", "squashfs", "dir"] {
        let made = convert(root, &["image.tar", "--to", format, "-o", format]);
        assert!(made.status.success(), "{}", told(&made));
        let output = convert(root, &["verify", format]);
        let page = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success() && page.contains("can be read to its end"), "{page}{}", told(&output));
        assert!(!page.contains("whole") && !page.contains("sha256"), "{page}");
    }
    for (words, said) in [
        (&["verify", "oras://h.example/x:1"][..], "sif-convert pull x.sif oras://h.example/x:1;"),
        (&["verify", "oras://h.example/x:1", "--against", "image.tar"], "sif-convert pull x.sif oras://"),
        (&["verify", "nothere.sif", "--key", "key.pub"], "no such file"),
    ] {
        let output = convert(root, words);
        assert!(!output.status.success() && told(&output).to_lowercase().contains(said), "{}", told(&output));
    }
}

#[test]
fn archives_and_layouts_are_verified_too() {
    let (directory, archive) = place();
    let output = convert(directory.path(), &["verify", "image.tar"]);
    assert!(output.status.success(), "{}", told(&output));
    let mut damaged = std::fs::read(&archive).unwrap();
    let text = damaged.windows(8).position(|bytes| bytes == b"all work").unwrap();
    damaged[text] ^= 1;
    std::fs::write(directory.path().join("damaged.tar"), damaged).unwrap();
    let output = convert(directory.path(), &["verify", "damaged.tar"]);
    assert_eq!(output.status.code(), Some(5), "{}", told(&output));
    assert!(told(&output).contains("layer 1"), "{}", told(&output));
}
