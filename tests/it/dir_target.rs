//! `--to dir`: a sandbox on disk.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::listing::{Listing, Times, What, from_tar, parts};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::{self, Wanted};
use crate::support::run::{self, Run, convert_to_stdout, host_has, is_root, oracles, program, scratch, skip};
use crate::support::tar::{Header, Magic, Tar};
use crate::support::{disk, layer};

fn to_dir(command: &mut Command, source: &Path, output: &Path, options: &[&str]) -> Run {
    run::run(command.arg(source).args(["--to", "dir", "-o"]).arg(output).args(options))
}

fn listing(source: &Path, format: &str, options: &[&str]) -> Listing {
    let done = convert_to_stdout(source, format, options);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

fn text(done: &Run) -> String {
    format!("{}{}", str::from_utf8(&done.stdout).expect("it prints text"), done.stderr)
}

const ALL: [&str; 3] = ["--xattrs", "all", "--keep-devices"];

/// What is on disk is what `sif-rootfs` would have in its tar, whatever the image.
#[test]
fn the_directory_is_the_tree() {
    if !is_root() {
        return skip("owners and devices need root");
    }
    let cases = std::env::var("PROPTEST_CASES").map_or(16, |cases| cases.parse().unwrap());
    for (number, image) in random::images(Wanted::Valid, cases).iter().enumerate() {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        let layers: Vec<Vec<u8>> = image.0.iter().map(layer::tar).collect();
        fs::write(at("x.tar"), docker_archive(&layers, if number % 2 == 0 { Squeeze::Not } else { Squeeze::Gzip }))
            .unwrap();
        let done = to_dir(&mut program(), &at("x.tar"), &at("d"), &ALL);
        assert_eq!(done.code, 0, "{}", done.stderr);
        let (mut expected, mut found) = (listing(&at("x.tar"), "sif-rootfs", &ALL), disk::list(&at("d")));
        [&mut expected, &mut found].into_iter().for_each(on_disk);
        let differences = expected.differences(&found, Times::Exact);
        assert!(differences.is_empty(), "image {number}:\n{differences}{}", done.stderr);
    }
}

/// What this machine's file systems and a directory as a source do not have: modes of links, attributes of other kinds.
fn on_disk(listing: &mut Listing) {
    for node in &mut listing.nodes {
        let kept = |name: &[u8]| name.starts_with(b"user.") || name == b"security.capability";
        let takes = matches!(node.what, What::Dir | What::File(..));
        node.xattrs.retain(|name, _| takes && kept(name));
        if matches!(node.what, What::Symlink(_)) {
            node.mode = 0o777;
        }
    }
}

#[test]
fn without_root_owners_are_recorded() {
    if !is_root() || !host_has("setpriv") {
        return skip("root and setpriv are needed to become somebody else");
    }
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let owned = |name: &'static [u8], flag, mode| {
        let mut header = Header::blank(name, flag, Magic::Ustar);
        (header.mode, header.uid, header.gid) = (mode, 1234, 56);
        header.block()
    };
    // Of the user who writes it.
    let mut mine = Header::blank(b"mine", b'0', Magic::Ustar);
    (mine.uid, mine.gid) = (1000, 1000);
    let tar = Tar::new()
        .raw(owned(b"./", b'5', 0o755), b"")
        .raw(owned(b"d", b'5', 0o555), b"")
        .raw(owned(b"d/f", b'0', 0o400), b"")
        .raw(owned(b"secret", b'0', 0o000), b"")
        .raw(owned(b"pipe", b'6', 0o644), b"")
        .raw(mine.block(), b"")
        .file("root-own", "x")
        .symlink("link", "root-own")
        .finish();
    fs::write(at("x.tar"), docker_archive(&[tar], Squeeze::Not)).unwrap();
    let user = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", scratch.path());
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(program().get_program());
        command.args(program().get_args());
        run::run(command.args(words).current_dir(scratch.path()))
    };
    let done = user(&["x.tar", "--to", "dir", "-o", "d"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stderr.contains("user.rootlesscontainers") && done.stderr.contains("\"d/f\" (1234:56)"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("neither be given to files nor recorded") && done.stderr.contains("\"pipe\""),
        "{}",
        done.stderr
    );
    let found = listing(&at("d"), "rootfs", &["--keep-singularity"]);
    for (path, mode) in [("d", 0o555), ("d/f", 0o400), ("secret", 0)] {
        let node = found.node(&parts(path.as_bytes())).unwrap();
        assert_eq!((node.mode, node.uid, node.gid), (mode, 1234, 56), "{path}");
        assert_eq!(fs::symlink_metadata(at("d").join(path)).unwrap().uid(), 1000, "{path}");
    }
    // What was root's is root's again; whose the pipe was could not be recorded.
    for (path, owner) in [("root-own", (0, 0)), ("mine", (1000, 1000)), ("link", (0, 0)), ("pipe", (0, 0))] {
        let node = found.node(&parts(path.as_bytes())).unwrap();
        assert_eq!((node.uid, node.gid), owner, "{path}");
        assert_eq!(fs::symlink_metadata(at("d").join(path)).unwrap().uid(), 1000, "{path}");
    }
    // What fails leaves nothing, even where directories may not be written to.
    let done = user(&["x.tar", "--to", "dir", "-o", "e", "--expect-digest", &format!("sha256:{}", "ab".repeat(32))]);
    assert_eq!(done.code, run::exit_code("Mismatch"), "{}", done.stderr);
    let left: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(|each| each.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// Links of the image lead out of it, and so do links that stand where the output is to be.
#[test]
fn nothing_is_written_through_a_link() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("outside")).unwrap();
    let outside = at("outside");
    let lower = Tar::new()
        .symlink("a", outside.to_str().unwrap())
        .symlink("b", "../outside")
        .directory("c")
        .symlink("etc", outside.to_str().unwrap())
        .symlink(".singularity.d", outside.to_str().unwrap())
        .finish();
    let upper = Tar::new().file("a/x", "1").file("b/x", "2").symlink("c", "../outside").file("c/x", "3").finish();
    fs::write(at("x.tar"), docker_archive(&[lower, upper], Squeeze::Not)).unwrap();
    let done = to_dir(&mut program(), &at("x.tar"), &at("d"), &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(fs::symlink_metadata(at("d/a")).unwrap().is_symlink());
    // What exists is never replaced, neither itself nor what a link points to.
    symlink("outside", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::write(at("file"), "x").unwrap();
    for name in ["d", "link", "dangling", "file", "outside"] {
        let done = to_dir(&mut program(), &at("x.tar"), &at(name), &[]);
        assert_eq!(done.code, run::exit_code("Output"), "{name}: {}", done.stderr);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    for options in [["--force", "-q"], ["--mode", "700"]] {
        let done = to_dir(&mut program(), &at("x.tar"), &at("new"), &options);
        assert_eq!(done.code, run::exit_code("Usage"), "{}", done.stderr);
    }
    let done = run::run(program().arg(at("x.tar")).args(["--to", "dir", "-o", "-"]));
    assert_eq!(done.code, run::exit_code("Usage"), "{}", done.stderr);
}

/// Apptainer runs it as Docker would, and builds the SIF from it that it builds from the image.
#[test]
fn apptainer_runs_it_and_builds_from_it() {
    let Some(oracles) = oracles() else { return };
    let Ok(busybox) = fs::read("/bin/busybox") else { return skip("busybox is missing") };
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let tar = Tar::new()
        .directory("bin")
        .file("bin/busybox", busybox)
        .symlink("bin/sh", "busybox")
        .file("f", "of the image\n")
        .finish();
    let mut config = crate::support::pack::config(std::slice::from_ref(&tar));
    config["config"] =
        serde_json::json!({"Entrypoint": ["/bin/busybox", "echo"], "Cmd": ["it's", "$HOME"], "Env": ["PATH=/bin"]});
    config["architecture"] = "amd64".into();
    fs::write(at("x.tar"), crate::support::pack::docker_archive_of(&config, &[tar], Squeeze::Not)).unwrap();
    // Busybox is executable only by its header's mode.
    let done = to_dir(&mut program(), &at("x.tar"), &at("d"), &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    fs::set_permissions(at("d/bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    let user = |script: &str| {
        let done = run::run(oracles.user(scratch.path()).args(["sh", "-c", script]));
        assert_eq!(done.code, 0, "{script}: {}", text(&done));
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(user("apptainer --silent exec d /bin/busybox cat /f"), "of the image\n");
    assert_eq!(user("apptainer --silent run d"), "it's $HOME\n");
    assert_eq!(user("apptainer --silent run d 'a  b'"), "a  b\n");
    assert_eq!(user("apptainer --silent build x.sif d >&2 && apptainer --silent run x.sif"), "it's $HOME\n");
}
