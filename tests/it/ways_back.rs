//! SIFs, squashfs images, tars of root file systems and directories as sources.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use crate::support::listing::{self, Listing, Times, from_tar};
use crate::support::pack::{Squeeze, docker_archive, docker_archive_of};
use crate::support::random::{self, Image, Wanted};
use crate::support::run::{self, convert_to_stdout, host_has, is_root, program, scratch, skip};
use crate::support::squashfs::storable_times;
use crate::support::{layer, pack};

/// A conversion that must succeed.
fn convert(source: &Path, format: &str, output: &Path, arguments: &[&str]) -> String {
    let done = run::run(program().arg(source).args(["--to", format, "-o"]).arg(output).args(arguments));
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stderr
}

/// The tree of a source, through the target `rootfs`.
fn tree(source: &Path) -> Listing {
    let done = convert_to_stdout(source, "rootfs", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

/// The config of a docker-archive.
fn config(archive: &Path) -> Value {
    let done = run::run(Command::new("tar").arg("xOf").arg(archive).arg("manifest.json"));
    let manifest: Value = serde_json::from_slice(&done.stdout).unwrap();
    let member = manifest[0]["Config"].as_str().unwrap();
    let done = run::run(Command::new("tar").arg("xOf").arg(archive).arg(member));
    serde_json::from_slice(&done.stdout).unwrap()
}

fn assert_equal(expected: &Listing, found: &Listing, what: &str) {
    let differences = expected.differences(found, Times::Exact);
    assert!(differences.is_empty(), "{what}:\n{differences}");
}

/// The tar of a root is known by its directories, also where they are empty.
#[test]
fn a_root_of_empty_directories_is_one() {
    let place = scratch();
    let path = place.path().join("root.tar");
    let tar = crate::support::tar::Tar::new()
        .directory("./")
        .directory("bin/")
        .directory("etc/")
        .directory("x/")
        .file("x/1", "")
        .finish();
    fs::write(&path, &tar).unwrap();
    assert_equal(&from_tar(&tar).unwrap(), &tree(&path), "a file");
    let mut piped = Command::new("sh");
    piped.args(["-c", "cat root.tar | exec \"$0\" - --to rootfs -o -", env!("CARGO_BIN_EXE_convert")]);
    let done = run::run(piped.current_dir(place.path()));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_equal(&from_tar(&tar).unwrap(), &from_tar(&done.stdout).unwrap(), "a stream");
}

/// An image with things that Singularity replaces, and a config that is hard to quote.
fn image(directory: &Path) -> PathBuf {
    let layer = crate::support::tar::Tar::new()
        .directory("etc")
        .file("etc/hosts", "127.0.0.1 localhost\n")
        .symlink("etc/resolv.conf", "../run/resolv.conf")
        .symlink("environment", "/elsewhere")
        .directory("data")
        .file("data/one", "one\n".repeat(100_000))
        .hard_link("data/hard", "data/one")
        .file("data/small", "small")
        .file("data/empty", "")
        .symlink("tmp", "data")
        .finish();
    let layers = [layer];
    let mut config = pack::config(&layers);
    config["created"] = json!("2024-05-06T07:08:09Z");
    config["architecture"] = json!("arm64");
    config["config"] = json!({
        "Env": ["PATH=/a:/b", "A=it's \"q\" $x"],
        "Entrypoint": ["/data/one", "it's", ""],
        "Cmd": ["$HOME", "*"],
        "WorkingDir": "/data",
        "User": "12:34",
        "Labels": {"org.example.one": "1", "org.label-schema.build-date": "mine"},
        "Volumes": {"/v": {}},
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGINT",
    });
    let archive = directory.join("image.tar");
    fs::write(&archive, docker_archive_of(&config, &layers, Squeeze::Not)).unwrap();
    archive
}

#[test]
fn an_image_goes_through_a_sif_and_comes_back() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let original = image(scratch.path());
    for (compression, block_size) in [("gzip", "131072"), ("zstd:3", "4096"), ("gzip:1", "1048576")] {
        let sif = at("image.sif");
        convert(&original, "sif", &sif, &["--force", "--compression", compression, "--block-size", block_size]);
        let back = at("back.tar");
        let stderr = convert(&sif, "docker-archive", &back, &["--force", "--tag", "example.org/back:1"]);
        assert!(!stderr.contains("warning"), "{stderr}");
        assert_equal(&tree(&original), &tree(&back), "through docker-archive");
        assert_equal(&tree(&original), &tree(&sif), "through rootfs");
        let (before, after) = (config(&original), config(&back));
        for key in ["config", "architecture", "os", "created"] {
            assert_eq!(after[key], before[key], "{key}");
        }
    }
}

/// From every source of a file system, every kind of image and of file comes out, and all of them agree.
#[test]
fn every_target_takes_a_sif() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let original = image(scratch.path());
    convert(&original, "sif", &at("one.sif"), &[]);
    let expected = tree(&original);
    for (format, name) in
        [("oci", "layout"), ("oci-archive", "oci.tar"), ("docker-archive", "docker.tar"), ("sif", "two.sif")]
    {
        convert(&at("one.sif"), format, &at(name), &[]);
        assert_equal(&expected, &tree(&at(name)), format);
    }
    let kept = convert_to_stdout(&at("one.sif"), "rootfs", &["--keep-singularity"]);
    assert!(
        from_tar(&kept.stdout).unwrap().node(&listing::parts(b".singularity.d/runscript")).is_some(),
        "{}",
        kept.stderr
    );
}

/// `PROPTEST_CASES` says how many; 200 are asked for.
#[test]
fn random_images_come_back_from_a_sif_as_they_were() {
    let cases = std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().unwrap());
    let settings = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let result = TestRunner::new(settings).run(&random::image(Wanted::Valid), |image| comes_back(&image));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

fn comes_back(image: &Image) -> Result<(), TestCaseError> {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let layers: Vec<Vec<u8>> = image.0.iter().map(layer::tar).collect();
    fs::write(at("image.tar"), docker_archive(&layers, Squeeze::Not)).unwrap();
    let fail = |text: String| Err(TestCaseError::fail(text));
    let options = ["--keep-devices", "--xattrs", "all"];
    let sif = run::run(program().arg(at("image.tar")).args(["--to", "sif", "-o"]).arg(at("image.sif")).args(options));
    if sif.code != 0 {
        return fail(format!("exit code {}: {}", sif.code, sif.stderr));
    }
    let back = run::run(program().arg(at("image.sif")).args(["--to", "docker-archive", "-o"]).arg(at("back.tar")));
    if back.code != 0 {
        return fail(format!("exit code {}: {}", back.code, back.stderr));
    }
    let (mut expected, mut found) = (tree(&at("image.tar")), tree(&at("back.tar")));
    for listing in [&mut expected, &mut found] {
        storable_times(listing);
        storable_xattrs(listing);
    }
    let differences = expected.differences(&found, Times::Exact);
    if differences.is_empty() { Ok(()) } else { fail(differences) }
}

/// squashfs has no place for other names.
fn storable_xattrs(listing: &mut Listing) {
    for node in &mut listing.nodes {
        node.xattrs
            .retain(|name, _| [&b"user."[..], b"trusted.", b"security."].iter().any(|prefix| name.starts_with(prefix)));
    }
}

/// A directory of every kind of file that an ordinary test may make.
fn directory(place: &Path) -> PathBuf {
    let root = place.join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("d/deep/deeper")).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(root.join("d/large"), b"0123456789abcdef".repeat(200_000)).unwrap();
    fs::write(root.join("d/zeros"), vec![0; 3 << 20]).unwrap();
    for number in 0..200 {
        fs::write(root.join(format!("d/deep/f{number}")), format!("{number} ").repeat(number)).unwrap();
    }
    fs::hard_link(root.join("d/large"), root.join("d/deep/hard")).unwrap();
    symlink("../large", root.join("d/deep/soft")).unwrap();
    fs::set_permissions(root.join("d/deep/f7"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o1777)).unwrap();
    let done = run::run(Command::new("mkfifo").arg(root.join("d/fifo")));
    assert_eq!(done.code, 0);
    // Whole seconds: squashfs keeps no others.
    let done = run::run(Command::new("find").arg(&root).args(["-exec", "touch", "-h", "-d", "@1600000000", "{}", "+"]));
    assert_eq!(done.code, 0);
    root
}

/// What GNU tar says of a directory.
fn gnu_tree(root: &Path) -> Listing {
    let mut tar = Command::new("tar");
    // In the form that the listing is strict about: plain names in order, nothing but times in PAX records.
    tar.args(["--format=pax", "--pax-option=delete=atime,delete=ctime", "--numeric-owner", "--sort=name"]);
    tar.args(["--xattrs", "--transform=flags=rh;s,^\\./\\(.\\),\\1,", "-c", "."]).current_dir(root);
    let done = run::run(&mut tar);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

#[test]
fn a_directory_gives_the_tree_that_gnu_tar_sees() {
    let scratch = scratch();
    let root = directory(scratch.path());
    assert_equal(&gnu_tree(&root), &tree(&root), "directory");
    // An access control list: the owner, user 7, the group, a mask, others.
    let entries = [(1_u16, 6_u16, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let list = entries
        .iter()
        .flat_map(|&(tag, may, id)| [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat());
    let list: Vec<u8> = 2_u32.to_le_bytes().into_iter().chain(list).collect();
    let set = rustix::fs::setxattr(
        root.join("etc/passwd"),
        "system.posix_acl_access",
        &list,
        rustix::fs::XattrFlags::empty(),
    );
    let listener = UnixListener::bind(root.join("d/socket")).unwrap();
    let done = convert_to_stdout(&root, "rootfs", &["--all-root"]);
    drop(listener);
    assert!(done.stderr.contains("sockets were left out") && done.stderr.contains("d/socket"), "{}", done.stderr);
    assert!(
        set.is_err() || done.stderr.contains("access control lists") && done.stderr.contains("etc/passwd"),
        "{}",
        done.stderr
    );
    let found = from_tar(&done.stdout).unwrap();
    assert!(found.nodes.iter().all(|node| (node.uid, node.gid) == (0, 0)));
    assert!(found.node(&listing::parts(b"d/socket")).is_none());
}

#[test]
fn a_directory_becomes_a_sif_and_an_image() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let root = directory(scratch.path());
    let options = ["--entrypoint", r#"["/bin/x", "a b"]"#, "--env", "A=1", "--user", "5", "--label", "l=m"];
    convert(&root, "docker-archive", &at("image.tar"), &options);
    assert_equal(&gnu_tree(&root), &tree(&at("image.tar")), "docker-archive");
    let made = config(&at("image.tar"));
    assert_eq!(
        made["config"],
        json!({"Entrypoint": ["/bin/x", "a b"], "Env": ["A=1"], "User": "5", "Labels": {"l": "m"}})
    );
    convert(&root, "sif", &at("image.sif"), &[&options[..], &["--arch", "amd64"]].concat());
    assert_equal(&gnu_tree(&root), &tree(&at("image.sif")), "sif");
}

#[test]
fn unreadable_files_are_named() {
    if is_root() && !host_has("setpriv") {
        return skip("setpriv is missing");
    }
    let scratch = scratch();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = directory(scratch.path());
    for name in ["d/large", "d/deep/deeper"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let done = if is_root() {
        let mut command = Command::new("setpriv");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", scratch.path());
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(program().get_program());
        command.args(program().get_args());
        run::run(command.arg(&root).args(["--to", "rootfs", "-o", "-"]))
    } else {
        convert_to_stdout(&root, "rootfs", &[])
    };
    fs::set_permissions(root.join("d/deep/deeper"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(done.code, run::exit_code("SourceUnavailable"), "{}", done.stderr);
    for name in ["\"d/deep/deeper\"", "\"d/deep/hard\""] {
        assert!(done.stderr.contains(name), "{}", done.stderr);
    }
    assert!(done.stdout.is_empty());
}

/// `docker export` and its like, in any compression, from a file and from a stream.
#[test]
fn a_rootfs_tar_is_an_image_of_one_layer() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let root = directory(scratch.path());
    let expected = gnu_tree(&root);
    for (name, option) in
        [("r.tar", "--no-auto-compress"), ("r.tar.gz", "-z"), ("r.tar.xz", "-J"), ("r.tar.zst", "--zstd")]
    {
        let done = run::run(
            Command::new("tar").args([option, "--numeric-owner", "-cf"]).arg(at(name)).arg(".").current_dir(&root),
        );
        if done.code != 0 {
            skip(&format!("tar {option}: {}", done.stderr));
            continue;
        }
        assert_equal(&expected, &tree(&at(name)), name);
        for (format, output) in [("docker-archive", "d.tar"), ("oci", "layout")] {
            let mut command = program();
            // A layout is never replaced: an image is added to it.
            let _ = if format == "oci" { fs::remove_dir_all(at(output)) } else { fs::remove_file(at(output)) };
            command.arg("-").args(["--to", format, "-o"]).arg(at(output)).args(["--cmd", "run me"]);
            let done = run::run(command.stdin(fs::File::open(at(name)).unwrap()));
            assert_eq!(done.code, 0, "{}", done.stderr);
            assert_equal(&expected, &tree(&at(output)), &format!("{name} to {format}"));
        }
        assert_eq!(config(&at("d.tar"))["config"], json!({"Cmd": ["/bin/sh", "-c", "run me"]}));
    }
}

#[test]
fn a_piped_rootfs_tar_becomes_a_layout() {
    let scratch = scratch();
    let root = directory(scratch.path());
    let mut command = Command::new("sh");
    let convert = program();
    let words: Vec<String> = convert.get_args().map(|word| word.to_str().unwrap().to_string()).collect();
    let script = format!(
        "tar --numeric-owner -C root -cz . | {} {} - --to oci -o layout",
        convert.get_program().to_str().unwrap(),
        words.join(" ")
    );
    let done = run::run(command.args(["-c", &script]).current_dir(scratch.path()));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_equal(&gnu_tree(&root), &tree(&scratch.path().join("layout")), "piped");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_found() {
    let scratch = scratch();
    let root = directory(scratch.path());
    let fifo = scratch.path().join("out");
    assert_eq!(run::run(Command::new("mkfifo").arg(&fifo)).code, 0);
    fs::write(root.join("z-last"), b"x".repeat(64 << 20)).unwrap();
    let mut command = program();
    command.arg(&root).args(["--to", "rootfs", "--jobs", "1", "-o", "-"]);
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // What is not read holds it up: the last file has not been opened by far.
    let mut stdout = child.stdout.take().unwrap();
    let watched = root.clone();
    std::io::Read::read_exact(&mut stdout, &mut [0; 512]).unwrap_or(());
    fs::write(watched.join("z-last"), b"y".repeat(64 << 20)).unwrap();
    std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
    let done = child.wait_with_output().unwrap();
    // Whoever was faster than the change has read the old file whole.
    let stderr = String::from_utf8(done.stderr).unwrap();
    if !done.status.success() {
        assert!(stderr.contains("changed while it was read"), "{stderr}");
    }
}

/// What is known of a file system is its config, and that is the same whatever its files are.
#[test]
fn a_digest_that_binds_no_file_is_not_taken_for_one_that_does() {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("root/bin")).unwrap();
    fs::write(path("root/bin/f"), "x").unwrap();
    fs::write(path("x.tar"), docker_archive(&[layer::of_file("bin/f", b"x")], Squeeze::Not)).unwrap();
    convert(&path("x.tar"), "sif", &path("x.sif"), &[]);
    convert(&path("x.tar"), "rootfs", &path("rootfs.tar"), &[]);
    for name in ["root", "x.sif", "rootfs.tar"] {
        let report = path("report.json");
        let words = ["--to", "rootfs", "-f", "-q", "-o", "out.tar", "--report", "report.json"];
        let done = |more: &[&str]| run::run(program().current_dir(directory.path()).arg(name).args(words).args(more));
        assert_eq!(done(&[]).code, 0, "{}", done(&[]).stderr);
        let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        let refused = done(&["--expect-digest", report["image"]["id"].as_str().unwrap()]);
        assert_eq!(refused.code, run::exit_code("Mismatch"), "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains("says nothing about the files"), "{name}: {}", refused.stderr);
    }
}

#[test]
fn a_root_without_programs_is_for_the_platform_that_is_asked_for() {
    let directory = scratch();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("root/etc")).unwrap();
    fs::write(path("root/etc/f"), "x").unwrap();
    convert(&path("root"), "rootfs", &path("rootfs.tar"), &[]);
    for source in ["root", "rootfs.tar"] {
        let said = convert(&path(source), "docker-archive", &path("x.tar"), &["-f"]);
        assert!(said.contains("tell the architecture"), "{said}");
        let said = convert(&path(source), "docker-archive", &path("x.tar"), &["-f", "--platform", "linux/arm64"]);
        assert!(!said.contains("architecture"), "{said}");
        assert_eq!(config(&path("x.tar"))["architecture"], "arm64");
    }
}
