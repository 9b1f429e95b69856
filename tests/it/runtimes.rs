//! `--to squashfs --for enroot|charliecloud`: what other runtimes find in it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::listing::{Listing, What, from_tar, parts};
use crate::support::pack::{self, Squeeze};
use crate::support::run::{self, oracles, program, scratch, skip};
use crate::support::tar::{Header, Magic, Tar};

fn image(directory: &Path, config: Value, layers: &[Vec<u8>]) -> PathBuf {
    let mut document = pack::config(layers);
    document["config"] = config;
    document["architecture"] = "amd64".into();
    let path = directory.join("x.tar");
    fs::write(&path, pack::docker_archive_of(&document, layers, Squeeze::Not)).unwrap();
    path
}

fn squashfs(source: &Path, runtime: &str) -> PathBuf {
    let output = source.with_file_name(format!("{runtime}.sqsh"));
    let done = run::run(
        program().arg(source).args(["--to", "squashfs", "--for", runtime, "--force", "-q", "-o"]).arg(&output),
    );
    assert_eq!(done.code, 0, "{}", done.stderr);
    output
}

fn tree(source: &Path) -> Listing {
    let done = run::convert_to_stdout(source, "rootfs", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

fn cat(source: &Path, path: &str) -> String {
    let done = run::run(program().arg("cat").arg(source).arg(path));
    assert_eq!(done.code, 0, "{}", done.stderr);
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn enroot_finds_its_four_files() {
    let scratch = scratch();
    let mut owned = Header::blank(b"home", b'5', Magic::Ustar);
    (owned.mode, owned.uid) = (0o700, 1000);
    let tar = Tar::new()
        .raw(owned.block(), b"")
        .symlink("etc", "usr/etc")
        .directory("usr")
        .directory("usr/etc")
        .file("usr/etc/rc", "old")
        .finish();
    let config = json!({
        "Env": ["PATH=/bin", "A=it's"], "Entrypoint": ["/e", "it's"], "Cmd": ["a b"], "WorkingDir": "/made/here",
        "Labels": {"z": "1", "a": "x\ny"}, "Volumes": {"/v": {}, "/a": {}},
    });
    let source = image(scratch.path(), config, &[tar]);
    let output = squashfs(&source, "enroot");
    assert_eq!(cat(&output, "etc/environment"), "PATH=/bin\nA=it's\n");
    let line = |path: &str| format!("${{ENROOT_ROOTFS}}{path} {path} none x-create=dir,bind,rw,nosuid,nodev\n");
    assert_eq!(cat(&output, "etc/fstab"), line("/a") + &line("/v"));
    assert!(cat(&output, "etc/rc.local").starts_with("# This file is sourced"));
    let rc = cat(&output, "usr/etc/rc");
    let (provenance, rest) = rc.split_once('\n').unwrap();
    assert!(provenance.starts_with("# enroot-provenance: sha256:"), "{rc}");
    let expected = "# z 1\n# a x y\n\nmkdir -p \"/made/here\" 2> /dev/null\ncd \"/made/here\" && unset OLDPWD || exit 1\n\n\
        if [ -s /etc/rc.local ]; then\n    . /etc/rc.local\nfi\n\nif [ $# -gt 0 ]; then\n    exec '/e' 'it'\\''s' \"$@\"\nelse\n    \
        exec '/e' 'it'\\''s' 'a b'\nfi\n";
    assert_eq!(rest, expected);
    let listing = tree(&output);
    assert!(listing.nodes.iter().all(|node| (node.uid, node.gid) == (0, 0)));
    assert_eq!(listing.node(&parts(b"made/here")).unwrap().what, What::Dir);
    assert!(matches!(listing.node(&parts(b"etc")).unwrap().what, What::Symlink(_)));
    // Plain is what it always was.
    let done =
        run::run(program().arg(&source).args(["--to", "squashfs", "-q", "-o"]).arg(scratch.path().join("usual")));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(fs::read(squashfs(&source, "plain")).unwrap() == fs::read(scratch.path().join("usual")).unwrap());
}

#[test]
fn names_are_those_of_the_runtime_and_others_refuse_it() {
    let scratch = scratch();
    let source = image(scratch.path(), json!({}), &[Tar::new().directory("d").finish()]);
    for (runtime, name) in [("enroot", "x.sqsh"), ("charliecloud", "x.sqfs"), ("plain", "x.squashfs")] {
        let done = run::run(
            program().arg(&source).args(["--to", "squashfs", "--for", runtime, "-q"]).current_dir(scratch.path()),
        );
        assert!(done.code == 0 && scratch.path().join(name).exists(), "{runtime}: {}", done.stderr);
    }
    for arguments in [["--to", "sif", "--for", "enroot"], ["--to", "squashfs", "--for", "docker"]] {
        let done = run::run(program().arg(&source).args(arguments).current_dir(scratch.path()));
        assert_eq!(done.code, run::exit_code("Usage"), "{}", done.stderr);
        assert!(done.stderr.contains("--for"), "{}", done.stderr);
    }
}

/// What is in the way is an error, never a file in another place.
#[test]
fn an_image_with_a_file_for_etc_is_refused() {
    let scratch = scratch();
    let source = image(scratch.path(), json!({}), &[Tar::new().file("etc", "x").finish()]);
    for runtime in ["enroot", "charliecloud"] {
        let done = run::run(
            program().arg(&source).args(["--to", "squashfs", "--for", runtime, "-o"]).arg(scratch.path().join("out")),
        );
        assert_eq!(done.code, run::exit_code("InvalidImage"), "{runtime}: {}", done.stderr);
        assert!(done.stderr.contains("\"etc") && !scratch.path().join("out").exists(), "{}", done.stderr);
    }
}

/// `ch-run` mounts it, and runs what is in it with the image's environment.
#[test]
fn charliecloud_runs_it() {
    let Some(oracles) = oracles() else { return };
    let Ok(busybox) = fs::read("/bin/busybox") else { return skip("busybox is missing") };
    let scratch = scratch();
    if run::run(oracles.run(scratch.path()).args(["sh", "-c", "command -v ch-run"])).code != 0 {
        return run::leave_out("ch-run is missing");
    }
    fs::set_permissions(scratch.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mut shell = Header::blank(b"bin/busybox", b'0', Magic::Ustar);
    (shell.mode, shell.size) = (0o755, busybox.len() as u64);
    let tar = Tar::new()
        .directory("bin")
        .raw(shell.block(), &busybox)
        .symlink("bin/sh", "busybox")
        .file("f", "of the image\n")
        .finish();
    let config = json!({"Env": ["PATH=/bin", "A=it's \"x\"", "EMPTY="], "Volumes": {"/v/w": {}}, "Cmd": ["sh"]});
    let source = image(scratch.path(), config, &[tar]);
    let output = squashfs(&source, "charliecloud");
    let environment = cat(&output, "ch/environment");
    assert_eq!(environment, "A=it's \"x\"\nEMPTY=\nPATH=/bin\n");
    let metadata: Value = serde_json::from_str(&cat(&output, "ch/metadata.json")).unwrap();
    assert_eq!((&metadata["volumes"], &metadata["cmd"]), (&json!(["/v/w"]), &json!(["sh"])));
    let script =
        "ch-run --set-env charliecloud.sqsh -- /bin/busybox sh -c 'cat /f; echo \"$A\"; ls -d /v/w /mnt/9 /proc/self'";
    let done = run::run(oracles.user(scratch.path()).args(["sh", "-c", script]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "of the image\nit's \"x\"\n/mnt/9\n/proc/self\n/v/w\n");
}
