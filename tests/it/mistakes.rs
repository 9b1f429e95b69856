//! Mistakes that people make, what they are told, and whether what they are told works.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::run;

/// How a hint is tried.
enum Try {
    /// It is a line for a shell.
    Typed,
    /// It is a line for a shell, after which the same call succeeds.
    ThenAgain,
    /// It says in words what this line does.
    As(&'static str),
    /// It cannot be tried here: it is about programs, networks or files that a test does not have.
    Not,
}
use Try::{As, Not, ThenAgain, Typed};

const MISTAKES: &[(&str, Try)] = &[
    // Words too many, too few, or in the wrong order.
    ("", As("-h")),
    ("x.tar", Typed),
    ("--to sif", As("x.tar --to sif -o new.sif")),
    ("x.tar new.sif", Typed),
    ("x.tar new.sqsh", Typed),
    ("x.tar new.tar", Typed),
    ("x.tar new.sif --to sif", Typed),
    ("x.tar --to sif new.sif", Typed),
    ("x.tar --to sif -o new.sif other", Typed),
    ("x.tar sif", Typed),
    ("x.tar to sif", Typed),
    ("x.tar y.tar --to rootfs", Typed),
    ("x.tar y.tar z.tar --to rootfs", Not),
    ("my image.tar --to sif", Typed),
    ("convert x.tar --to sif", Typed),
    ("Inspect x.tar", Typed),
    ("inspct x.tar", Typed),
    ("isnpect x.tar", Typed),
    ("verfy there.sif", Typed),
    ("run there.sif", Not),
    ("exec there.sif ls /", Not),
    ("build x.tar new.sif", Typed),
    ("build docker://alpine new.sif", Not),
    ("verify there.sif there.sif", As("verify there.sif")),
    ("-q ls x.tar", Typed),
    ("--progress plain ls x.tar --depth 1", Typed),
    ("-- x.tar --to sif", Typed),
    ("inspect", As("inspect x.tar")),
    ("verify", As("verify there.sif")),
    ("ls x.tar /nope", As("ls x.tar")),
    ("pull", Not),
    ("push there.sif", Not),
    ("push x.tar oras://h.example/x:1", Not),
    ("push there.sif docker://h.example/x:1", Not),
    ("push there.sif h.example/x:1", Not),
    ("cache", As("cache --help")),
    ("cache lst", As("cache --help")),
    ("completions", As("completions bash")),
    ("completions tcsh", As("completions zsh")),
    // Options and their values.
    ("x.tar --format sif", As("x.tar --to sif")),
    ("x.tar --to rootfs --forse", As("x.tar --to rootfs --force")),
    ("x.tar --to rootfs --bad", As("--help")),
    ("inspect x.tar --bad", As("inspect --help")),
    // Never another option than the one that was meant: it may check nothing.
    ("batch list.txt --to sif --out out --encrypt-pem key.pem", Not),
    ("batch list.txt --to sif --out out --sign-passphrase-file pass", Not),
    ("sign x.sif --sign-key key.pem", Not),
    ("verify x.sif --verify-key key.pub", Not),
    ("decrypt x.sif --decrypt-pem key.pem", Not),
    ("decrypt x.sif --decrypt-passphrase-file pass", Not),
    ("verify x.sif --certificate-identity me", Not),
    ("x.tar --to sif --certificate c.pem", Not),
    ("-x", As("--help")),
    ("x.tar -to sif", As("x.tar --to sif")),
    ("x.tar --to SIF", As("x.tar --to sif")),
    ("x.tar --to docker", As("x.tar --to docker-archive")),
    ("x.tar --to tar", As("x.tar --to rootfs")),
    ("x.tar --to apptainer", As("x.tar --to sif")),
    ("x.tar --to rootsf", As("x.tar --to rootfs")),
    ("x.tar --to iso", As("x.tar --to sif")),
    ("x.tar --to sif --output", As("x.tar --to sif --output new.sif")),
    ("x.tar --to sif --progress loud", As("x.tar --to sif --progress plain")),
    ("x.tar --to rootfs -q -v", As("x.tar --to rootfs -v")),
    ("x.tar --to sif --force --if-exists reuse", As("x.tar --to sif --force")),
    ("x.tar --to sif --user a --user b", As("x.tar --to sif --user b")),
    ("x.tar --to sif --workdir=/a --workdir=/b", As("x.tar --to sif --workdir=/b")),
    ("x.tar --to rootfs --workdir", As("x.tar --to sif --workdir")),
    ("x.tar --to sif --tag a:1", As("x.tar --to oci --tag a:1")),
    ("x.tar --to oci --fix-perms", As("x.tar --to oci")),
    ("x.tar --to sif --compression lz4", As("x.tar --to sif --compression zstd")),
    ("x.tar --to sif --compression none", As("x.tar --to sif --compression gzip:1")),
    ("x.tar --to sif --jobs 0", As("x.tar --to sif --jobs 1")),
    ("x.tar --to sif --platform amd64", As("x.tar --to sif --platform linux/amd64")),
    ("x.tar --to sif --label foo", As("x.tar --to sif --label foo=bar")),
    ("x.tar --to sif --mkdir ..", As("x.tar --to sif --mkdir /mlcube_io0")),
    ("x.tar --to sif --mode 999", As("x.tar --to sif --mode 644")),
    ("x.tar --to sif --expect-digest sha256:00", Not),
    ("x.tar --to sif --timeout 1", As("x.tar --to sif")),
    // Sources.
    ("missing.tar --to sif", As("x.tar --to sif")),
    ("no/such/x.tar --to sif", As("x.tar --to sif")),
    ("docker-archive:missing.tar --to sif", As("docker-archive:x.tar --to sif")),
    ("ubuntu --to sif", Not),
    ("ubuntu:24.04 --to sif", Not),
    ("docker:ubuntu --to sif", Not),
    ("library://ubuntu --to sif -o new.sif", Not),
    ("docker-archive: --to sif", As("docker-archive:x.tar --to sif")),
    ("page.tar --to sif", Not),
    ("error.json --to sif", Not),
    ("pointer.tar --to sif", Not),
    ("app.def --to sif", Not),
    ("Dockerfile --to sif", Not),
    ("notes.txt --to sif", Not),
    ("x.tar.gpg --to sif", Not),
    ("- --input-command false --to sif -o new.sif", Not),
    ("empty.tar --to sif", Not),
    ("cut.tar --to sif", Not),
    ("cut.tar.gz --to sif", Not),
    ("data.tar --to sif", Not),
    ("data --to sif", As("data --to additional-files")),
    ("oci:data --to sif", Not),
    ("oci:x.tar --to sif", As("x.tar --to sif")),
    ("oci-archive:x.tar --to sif", As("docker-archive:x.tar --to sif")),
    ("x.tar --image nope --to sif", As("x.tar --to sif")),
    ("docker-archive:x.tar:nope --to sif", As("docker-archive:x.tar --to sif")),
    ("x.tar --platform linux/s390x --to sif", As("x.tar --to sif")),
    ("- --to rootfs", Not),
    // Outputs.
    ("x.tar --to sif -o there.sif", As("x.tar --to sif -o there.sif --force")),
    ("x.tar --to sif -o no/such/x.sif", ThenAgain),
    ("x.tar --to oci -o no/such/x", ThenAgain),
    ("x.tar --to sif -o data", As("x.tar --to sif -o data/x.sif")),
    ("x.tar --to oci -o data", As("x.tar --to oci -o data/x")),
    ("x.tar --to oci -o there.sif", As("x.tar --to oci -o new")),
    ("x.tar --to sif -o -", As("x.tar --to sif -o new.sif")),
    ("x.tar --to oci -o -", As("x.tar --to oci-archive -o -")),
    ("x.tar --to rootfs --if-exists reuse", As("x.tar --to rootfs")),
    ("x.tar --to dir --if-exists reuse", As("x.tar --to dir")),
    ("x.tar --to dir --force", As("x.tar --to dir")),
    ("x.tar --to rootfs -o x.tar --force", As("x.tar --to rootfs -o new.tar")),
    ("x.tar --to rootfs -o - --report -", As("x.tar --to rootfs -o - --report r.json")),
];

/// What a person may have in a directory.
fn place() -> tempfile::TempDir {
    let place = run::scratch();
    let put = |name: &str, bytes: &[u8]| fs::write(place.path().join(name), bytes).unwrap();
    let hello = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar")).unwrap();
    ["x.tar", "y.tar", "my image.tar"].iter().for_each(|name| put(name, &hello));
    put("page.tar", b"<!DOCTYPE html>\n<html><title>404 Not Found</title></html>\n");
    put("error.json", b"{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication required\"}]}\n");
    put("pointer.tar", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n");
    put("app.def", b"# ours\nBootstrap: docker\nFrom: ubuntu\n");
    put("Dockerfile", b"# syntax=docker/dockerfile:1\nFROM ubuntu\nRUN true\n");
    put("notes.txt", b"remember the milk\n");
    put("x.tar.gpg", &[b"\x8c\x0d\x04\x09\x03\x02", &[0x5a; 2000][..]].concat());
    put("empty.tar", b"");
    put("cut.tar", &hello[..3000]);
    put("cut.tar.gz", &crate::support::archives::gzip(&hello)[..200]);
    fs::create_dir(place.path().join("data")).unwrap();
    put("data/notes.txt", b"remember the milk\n");
    put(
        "data.tar",
        &crate::support::layer::tar_of(&[crate::support::entry::Entry::new(
            "notes.txt",
            crate::support::entry::Kind::File(crate::support::entry::Content::data(b"x".to_vec())),
        )]),
    );
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sif-convert"), place.path().join("sif-convert")).unwrap();
    let made = call(place.path(), "sif-convert x.tar --to sif -o there.sif");
    assert_eq!(made.code, 0, "{}", made.stderr);
    place
}

/// Runs a line in a shell that finds the program.
fn call(directory: &Path, line: &str) -> run::Run {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(directory).env_clear().stdin(std::process::Stdio::null());
    command.env("PATH", format!("{}:/usr/bin:/bin", directory.display())).env("HOME", directory);
    run::run(&mut command)
}

#[test]
fn mistakes_are_told_and_their_hints_work() {
    assert!(MISTAKES.len() >= 80);
    let (mut said, mut wrong) = (String::new(), String::new());
    for (line, attempt) in MISTAKES {
        let place = place();
        let line = format!("sif-convert {line}").trim_end().to_string();
        let failed = call(place.path(), &line);
        let words: Vec<&str> = failed.stderr.lines().filter(|line| !line.starts_with("   0 s")).collect();
        let _ = writeln!(said, "$ {line}\n{}\n", words.join("\n"));
        if failed.code == 0 {
            let _ = writeln!(wrong, "{line} succeeds");
            continue;
        }
        let hint = words.last().and_then(|last| last.strip_prefix("hint: "));
        let Some(hint) = hint else {
            let _ = writeln!(wrong, "{line} has no hint");
            continue;
        };
        let typed = hint.split_once(": ").map_or(hint, |(_, typed)| typed).to_string();
        let lines = match attempt {
            Typed => vec![typed],
            ThenAgain => vec![typed, line.clone()],
            As(fixed) => vec![format!("sif-convert {fixed} >/dev/null")],
            Not => Vec::new(),
        };
        for fixed in lines {
            let done = call(place.path(), &fixed);
            if done.code != 0 {
                let _ = writeln!(wrong, "{line}: its hint {fixed:?} fails: {}", done.stderr);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    insta::assert_snapshot!(said);
}

/// A name that says something else than what is written is noted, and the output is there.
#[test]
fn names_that_mislead_are_noted() {
    let place = place();
    for (words, note) in [
        ("--to rootfs -o n.tar.xz", "\"n.tar.xz\" is named like an xz file, and is a tar that is not compressed"),
        ("--to rootfs -o n.sif", "\"n.sif\" is named like a SIF, and is a tar that is not compressed"),
        ("--to rootfs --compression gzip -o n.zst", "\"n.zst\" is named like a zstd file, and is a gzip file"),
        ("--to sif -o n.tar", "\"n.tar\" is named like a tar, and is a SIF"),
    ] {
        let done = call(place.path(), &format!("sif-convert x.tar {words}"));
        assert!(done.code == 0 && done.stderr.contains(&format!("warning: {note}\n")), "{words}: {}", done.stderr);
    }
    for words in
        ["--to rootfs -o n.tar.gz", "--to sif -o m.sif", "--to oci -o m.oci", "--to docker-archive -o m.tar.zst"]
    {
        let done = call(place.path(), &format!("sif-convert x.tar {words}"));
        assert!(done.code == 0 && !done.stderr.contains("named like"), "{words}: {}", done.stderr);
    }
}

/// `help` is what other programs have for a command, and shows the same text.
#[test]
fn help_is_understood_as_a_word() {
    let place = place();
    let shown = |line: &str| String::from_utf8(call(place.path(), line).stdout).unwrap();
    assert_eq!(shown("sif-convert help"), shown("sif-convert --help"));
    assert_eq!(shown("sif-convert help inspect"), shown("sif-convert inspect --help"));
    fs::copy(place.path().join("x.tar"), place.path().join("help")).unwrap();
    assert_eq!(call(place.path(), "sif-convert help --to sif").code, 0);
}
