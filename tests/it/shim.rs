//! `convert shim`: pulls, and builds of images, are done by us, all else by the next program in `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::run::{program, run};

fn script(directory: &Path, name: &str, text: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(name), text).unwrap();
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Says what it was called as and with.
const ECHO: &str = "#!/bin/sh\nprintf '%s' \"${0##*/}\"; printf ' <%s>' \"$@\"\n";

#[test]
fn the_shim_takes_images_and_hands_on_all_else() {
    let scratch = tempfile::tempdir().unwrap();
    let [front, second, back] = ["front", "second", "back dir"].map(|name| scratch.path().join(name));
    for directory in [&front, &second] {
        let made = run(program().args(["shim", "--workdir"]).arg(directory));
        assert_eq!((made.code, &*made.stderr), (0, ""));
        assert_eq!(made.stdout, format!("export PATH='{}':\"$PATH\"\n", directory.display()).into_bytes());
    }
    // What is ours is replaced, anybody else's is not.
    assert_eq!(run(program().args(["shim", "--workdir"]).arg(&front)).code, 0);
    script(&back, "apptainer", ECHO);
    assert_eq!(run(program().arg("shim").arg(&back)).code, 8);
    fs::remove_file(back.join("apptainer")).unwrap();
    // The program itself is replaced by one that says how it was called.
    for name in ["apptainer", "singularity"] {
        let text = fs::read_to_string(front.join(name)).unwrap();
        let ours = text.lines().find(|line| line.starts_with("ours=")).unwrap();
        assert!(ours.contains("sif-convert"), "{ours}");
        script(&front, name, &text.replace(ours, &format!("ours='{}'", back.join("convert").display())));
    }
    script(&back, "convert", ECHO);
    let path = format!("{}:{}/:{}:/usr/bin:/bin", front.display(), second.display(), back.display());
    let called = |name: &str, words: &[&str]| {
        let output = Command::new(front.join(name)).env("PATH", &path).args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(called("singularity", &["run", "a.sif"]).0, Some(127), "there is no other one");
    script(&back, "apptainer", ECHO);
    assert!(called("singularity", &["--version"]).1.starts_with("apptainer <--version>"));
    script(&back, "singularity", ECHO);
    for name in ["apptainer", "singularity"] {
        for source in ["a.def", "a.sif", "oras://host/a:1", "library://a/b/c", "shub://a/b"] {
            let want = format!("{name} <build> <--fakeroot> <out file.sif> <{source}>");
            assert_eq!(called(name, &["build", "--fakeroot", "out file.sif", source]), (Some(0), want));
        }
        for words in [
            &["exec", "a.sif", "a b", ""][..],
            &["--version"],
            &["pull", "library://a"],
            &["pull", "a:1"],
            &["push", "a.sif", "library://a/b/c"],
            &["push", "--help"],
            &["build", "--sandbox", "d", "docker://a:1"],
            &["--config", "x", "pull", "docker://a:1"],
            &["build", "-s", "d", "docker://a:1"],
            &["build", "-sF", "d", "docker://a:1"],
            &["build", "-Fu", "d", "docker://a:1"],
            &["build", "-e", "a.sif", "docker://a:1"],
            &["-s", "build", "-r", "a.sif", "docker://a:1"],
            &["build", "a.sif", "docker://a:1", "-s"],
            &["pull", "docker://a:1", "--docker-login"],
            &["pull", "library://a", "--name", "docker://x"],
            &["pull", "a.sif", "shub://a", "--tmpdir", "oci:x"],
            &["pull", "--name", "a.sif", "b", "--library", "http"],
            &["build", "a.sif", "a.def", "--force"],
            &["push", "a.sif", "library://a", "--library", "oras://a"],
            &["push", "a.sif", "docker://a:1", "-U"],
        ] {
            let want = words.iter().fold(name.to_string(), |text, word| format!("{text} <{word}>"));
            assert_eq!(called(name, words), (Some(0), want));
        }
        assert_eq!(called(name, &[]).0, Some(0));
        for source in ["docker://a:1", "docker-archive:///a b.tar", "docker-daemon:a:1", "oci:a", "oci-archive:a.tar"] {
            let want = format!("convert <build> <--workdir> <--if-exists> <update> <out.sif> <{source}>");
            assert_eq!(called(name, &["build", "out.sif", source]), (Some(0), want));
        }
        for words in [
            &["pull", "docker://a:1", "--name", "y z.sif"][..],
            &["pull", "x.sif", "docker://a:1", "--force"],
            &["pull", "oras://h/a:1", "--dir", ""],
            &["build", "-F", "x.sif", "docker://a:1"],
            &["build", "-FT", "x.sif", "oci-archive:a.tar", "--fakeroot"],
            &["build", "--bind", "/-s/e:/x", "x.sif", "docker://a:1"],
            &["build", "-B/-s/e", "x.sif", "docker://a:1"],
            &["push", "a b.sif", "oras://h/a:1", "--no-https"],
        ] {
            let ours: &[&str] = match words[0] {
                "pull" => &["--workdir"],
                "build" => &["--workdir", "--if-exists", "update"],
                _ => &[],
            };
            let (first, rest) = words.split_first().unwrap();
            let want = |quiet: &[&str]| {
                let words = [&[*first], ours, quiet, rest].concat();
                words.iter().fold("convert".to_string(), |text, word| format!("{text} <{word}>"))
            };
            assert_eq!(called(name, words), (Some(0), want(&[])));
            // An option before the command is one of apptainer itself: `-s` is --silent there.
            assert_eq!(called(name, &[&["-s"], words].concat()), (Some(0), want(&["--quiet"])));
        }
        let want = "convert <push> <--quiet> <--no-https> <a b.sif> <oras://h/a:1>".to_string();
        assert_eq!(called(name, &["-q", "push", "--no-https", "a b.sif", "oras://h/a:1"]), (Some(0), want));
        for source in ["docker://a:1", "oras://h/a:1", "https://h/a b.sif", "oci:a"] {
            let want = format!("convert <pull> <--workdir> <--quiet> <--name> <a b> <{source}>");
            assert_eq!(called(name, &["--nocolor", "-q", "pull", "--name", "a b", source]), (Some(0), want));
        }
    }
}
