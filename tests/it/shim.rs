//! The shim of docs/medperf.md: images are built by us, all else by the next program in `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// The text between the marks of the page's here-document.
fn shim() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/medperf.md")).unwrap();
    let (_, rest) = page.split_once("cat >shim/singularity <<'EOF'\n").unwrap();
    rest.split_once("EOF\n").unwrap().0.to_string()
}

fn script(directory: &Path, name: &str, text: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(name), text).unwrap();
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_shim_takes_images_and_hands_on_all_else() {
    let scratch = tempfile::tempdir().unwrap();
    let [front, back] = ["front", "back dir"].map(|name| scratch.path().join(name));
    script(&front, "singularity", &shim());
    script(&back, "convert", "#!/bin/sh\nprintf 'convert'; printf ' <%s>' \"$@\"\n");
    let path = format!("{}:{}:/usr/bin:/bin", front.display(), back.display());
    let run = |words: &[&str]| {
        let output = Command::new(front.join("singularity")).env("PATH", &path).args(words).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["run", "a.sif"]).0, Some(127), "there is no other one");
    for real in ["apptainer", "singularity"] {
        script(&back, real, "#!/bin/sh\nprintf '%s' \"${0##*/}\"; printf ' <%s>' \"$@\"\n");
        for source in ["a.def", "a.sif", "oras://host/a:1", "library://a/b/c", "shub://a/b"] {
            let want = format!("{real} <build> <--fakeroot> <out file.sif> <{source}>");
            assert_eq!(run(&["build", "--fakeroot", "out file.sif", source]), (Some(0), want));
        }
        assert_eq!(run(&["exec", "a.sif", "a b", ""]).1, format!("{real} <exec> <a.sif> <a b> <>"));
        assert_eq!(run(&[]).0, Some(0));
        for source in ["docker://a:1", "docker-archive:///a b.tar", "docker-daemon:a:1", "oci:a", "oci-archive:a.tar"] {
            let want = format!("convert <build> <--workdir> <--if-exists> <update> <out.sif> <{source}>");
            assert_eq!(run(&["build", "out.sif", source]), (Some(0), want));
        }
    }
}
