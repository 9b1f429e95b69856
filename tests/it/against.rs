//! `verify x.sif --against SOURCE`: is this SIF what that image gives?

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::archives::{Described, buildx};
use crate::support::fake::{Fake, Repository};
use crate::support::pack::{self, Squeeze};
use crate::support::place::Place;
use crate::support::run::{self, Run, oracles, program, scratch};
use crate::support::tar::{Header, Magic, Tar};

/// An image with what builders of SIFs change: a device, owners, files that are bound to, an attribute.
fn image(directory: &Path, name: &str, word: &str) -> PathBuf {
    let mut device = Header::blank(b"dev/null", b'3', Magic::Ustar);
    (device.mode, device.device) = (0o666, (1, 3));
    let mut home = Header::blank(b"home/u", b'5', Magic::Ustar);
    (home.mode, home.uid, home.gid) = (0o700, 1000, 1000);
    let shell = fs::read("/bin/busybox").or_else(|_| fs::read("/bin/sh")).unwrap();
    let tar = Tar::new()
        .directory("bin")
        .file("bin/busybox", shell)
        .symlink("bin/sh", "busybox")
        .hard_link("bin/ls", "bin/busybox")
        .directory("etc")
        .file("etc/hosts", "127.0.0.1 localhost\n")
        .symlink("etc/resolv.conf", "hosts")
        .directory("home")
        .raw(home.block(), b"")
        .file("home/u/f", word)
        .directory("dev")
        .raw(device.block(), b"")
        .directory("opt")
        .pax(b'x', &[("SCHILY.xattr.user.a", b"1")])
        .file("opt/attribute", "y")
        .finish();
    let mut config = pack::config(std::slice::from_ref(&tar));
    config["architecture"] = "amd64".into();
    config["config"] = json!({
        "Env": ["PATH=/bin", "A=it's $x \"q\""], "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo it's"], "WorkingDir": "/opt",
        "User": "1000", "Labels": {"k": "v"}, "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["CMD", "x"]},
    });
    let path = directory.join(name);
    fs::write(&path, pack::docker_archive_of(&config, &[tar], Squeeze::Gzip)).unwrap();
    path
}

fn convert(source: &Path, sif: &Path, options: &[&str]) {
    let done = run::run(program().arg(source).args(["--to", "sif", "--force", "-q", "-o"]).arg(sif).args(options));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

fn verify(sif: &Path, source: &Path) -> Run {
    run::run(program().arg("verify").arg(sif).arg("--against").arg(source))
}

fn text(done: &Run) -> String {
    format!("{}{}", str::from_utf8(&done.stdout).expect("it prints text"), done.stderr)
}

#[test]
fn ours_is_made_again_byte_for_byte() {
    let scratch = scratch();
    let source = image(scratch.path(), "x.tar", "word");
    let sif = scratch.path().join("x.sif");
    for options in [
        &[][..],
        &["--compression", "zstd", "--block-size", "4096"],
        &["--fix-perms", "--all-root"],
        &["--xattrs", "all", "--keep-devices", "--workdir"],
    ] {
        convert(&source, &sif, options);
        let done = verify(&sif, &source);
        assert!(done.code == 0 && text(&done).contains("byte for byte"), "{options:?}: {}", text(&done));
    }
    // What says nothing of how it was made is compared by its files.
    for options in [&["--compression", "gzip:1"][..], &["--mkdir", "/made"], &["--label", "a=b"]] {
        convert(&source, &sif, options);
        let done = verify(&sif, &source);
        let shown = text(&done);
        assert!(!shown.contains("byte for byte"), "{options:?}: {shown}");
        // An empty directory that was made for a bind leaves a SIF again, and is told.
        let is_same = options[0] != "--label";
        assert_eq!(shown.contains("+ \"made\""), options[0] == "--mkdir", "{options:?}: {shown}");
        assert_eq!(done.code, if is_same { 0 } else { run::exit_code("Mismatch") }, "{options:?}: {shown}");
        assert!(is_same || shown.contains("\"a\"=\"b\""), "{shown}");
    }
}

/// Whoever makes a SIF may write into it what ours record there: what was replaced, and what was made. It hides nothing.
#[test]
fn records_of_whoever_made_it_hide_nothing() {
    const KEPT: &str = ".singularity.d/replaced/bin";
    let place = Place::new();
    let write = |name: &str, tar: Tar| {
        let tar = tar.finish();
        let mut config = pack::config(std::slice::from_ref(&tar));
        config["architecture"] = "amd64".into();
        fs::write(place.path(name), pack::docker_archive_of(&config, &[tar], Squeeze::Not)).unwrap();
    };
    let root = || Tar::new().directory("bin").file("bin/sh", "shell").directory("etc");
    let honest = || root().file("bin/tool", "honest").symlink("bin/alias", "sh");
    let kept =
        |tar: Tar| tar.directory(KEPT).file(format!("{KEPT}/tool"), "honest").symlink(format!("{KEPT}/alias"), "sh");
    let empty = |tar: Tar, mode| tar.raw(Header { mode, ..Header::blank(b"bin/new", b'0', Magic::Ustar) }.block(), b"");
    let made = |tar: Tar| tar.file(".singularity.d/sif-convert.made", b"bin/new\0");
    write("honest.tar", honest());
    let changes = [
        ("bin/tool", kept(root().file("bin/tool", "evil").symlink("bin/alias", "sh"))),
        ("bin/alias", kept(root().file("bin/tool", "honest").file("bin/alias", "evil"))),
        ("bin/tool", kept(root().directory("bin/tool").file("bin/tool/x", "evil").symlink("bin/alias", "sh"))),
        ("bin/tool", kept(root().symlink("bin/alias", "sh"))),
        ("bin/tool", kept(root().file("bin/tool", "").symlink("bin/alias", "sh"))),
        ("bin/new", made(empty(honest(), 0o755))),
    ];
    for (at, (changed, tar)) in changes.into_iter().enumerate() {
        write("forged.tar", tar);
        let said = place.good(&["forged.tar", "--to", "sif", "--force", "-o", "forged.sif"]).stderr;
        assert!(said.contains("holds .singularity.d already"), "{said}");
        let done = verify(&place.path("forged.sif"), &place.path("honest.tar"));
        let shown = text(&done);
        assert_eq!(done.code, run::exit_code("Mismatch"), "{at}: {shown}");
        let unexplained = |line: &str| line.contains(&format!("\"{changed}\"")) && !line.ends_with(')');
        assert!(shown.lines().any(unexplained), "{at}: {shown}");
        let differ = run::run(&mut place.command(&["diff", "honest.tar", "forged.sif"]));
        assert!(differ.code == 1 && text(&differ).contains(changed), "{at}: {}", text(&differ));
        // Nor is it another file that an image has again.
        place.good(&["forged.sif", "--to", "rootfs", "--force", "-q", "-o", "back.tar"]);
        let same = run::run(&mut place.command(&["diff", "forged.tar", "back.tar"]));
        assert!(text(&same).lines().all(|line| !line.contains("\"bin")), "{at}: {}", text(&same));
    }
    // What nobody can run may have been made to bind to, and is told.
    write("bound.tar", made(empty(honest(), 0o644)));
    place.good(&["bound.tar", "--to", "sif", "-q", "-o", "bound.sif"]);
    let shown = text(&verify(&place.path("bound.sif"), &place.path("honest.tar")));
    assert!(
        shown.contains("+ \"bin/new\" empty file, 0 bytes (a place to bind to: the SIF says that it was made)"),
        "{shown}"
    );
}

/// An index is for many platforms: the SIF says which of them it is of.
#[test]
fn the_platform_is_that_of_the_sif() {
    let place = Place::new();
    let images = ["amd64", "arm64", "s390x"].map(|architecture| {
        let layer = Tar::new().directory("etc").file("etc/machine", architecture).finish();
        Described::new(vec![layer]).architecture(architecture).tagged("h.example/app:1")
    });
    buildx(&images, &|_, _| Vec::new()).write_below(&place.path("layout"));
    for architecture in ["amd64", "arm64", "s390x"] {
        let platform = format!("linux/{architecture}");
        place.good(&["layout", "--to", "sif", "-q", "--force", "--platform", &platform, "-o", "x.sif"]);
        let done = place.good(&["verify", "x.sif", "--against", "layout"]);
        assert!(text(&done).contains("byte for byte"), "{architecture}: {}", text(&done));
    }
    // Who chooses one has it compared with that one.
    let other = run::run(&mut place.command(&["verify", "x.sif", "--against", "layout", "--platform", "linux/arm64"]));
    assert_eq!(other.code, run::exit_code("Mismatch"), "{}", text(&other));
}

#[test]
fn who_signed_is_said_of_what_is_compared() {
    let place = Place::new();
    image(&place.path(""), "x.tar", "word");
    let key = |name: &str| format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    place.good(&["x.tar", "--to", "sif", "-q", "--sign-key", &key("ed25519.pem"), "-o", "x.sif"]);
    let against = ["verify", "x.sif", "--against", "x.tar"];
    let unasked = place.good(&against);
    assert!(text(&unasked).contains("signatures were not verified") && !text(&unasked).contains("signed by"));
    let done = place.good(&[&against[..], &["--key", &key("ed25519.pub")]].concat());
    assert!(text(&done).contains("all explained") && text(&done).contains("is signed by"), "{}", text(&done));
    assert!(!text(&done).contains("not verified"), "{}", text(&done));
    let other = run::run(&mut place.command(&[&against[..], &["--key", &key("p256.pub")]].concat()));
    assert_eq!(other.code, run::exit_code("Mismatch"), "{}", text(&other));
}

#[test]
fn another_image_is_told_with_what_differs() {
    let scratch = scratch();
    let (source, other) = (image(scratch.path(), "x.tar", "word"), image(scratch.path(), "y.tar", "Word"));
    let sif = scratch.path().join("x.sif");
    convert(&source, &sif, &[]);
    let done = verify(&sif, &other);
    assert_eq!(done.code, run::exit_code("Mismatch"), "{}", text(&done));
    assert!(text(&done).contains("~ \"home/u/f\" contents: file, 4 bytes\n"), "{}", text(&done));
    let done = run::run(program().arg("verify").arg(&source).arg("--against").arg(&sif));
    assert_eq!(done.code, run::exit_code("Usage"), "{}", text(&done));
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let scratch = scratch();
    let source = image(scratch.path(), "x.tar", "word");
    let sif = scratch.path().join("x.sif");
    convert(&source, &sif, &[]);
    let bytes = fs::read(&sif).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&sif).unwrap();
    let mut found = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 23) {
        file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
        let done = verify(&sif, &source);
        // A byte of padding, between the tables of descriptors and the objects, belongs to nothing.
        assert!(done.code != 0 || bytes[at] == 0, "byte {at}: {}", text(&done));
        found += u32::from(done.code != 0);
        file.write_all_at(&[bytes[at]], at as u64).unwrap();
    }
    assert!(found > 10, "{found}");
    assert_eq!(verify(&sif, &source).code, 0);
}

/// Whatever differs in a SIF of Apptainer's is explained, and what somebody slipped in is not.
#[test]
fn a_sif_of_apptainer_is_explained_and_a_changed_one_is_not() {
    let Some(oracles) = oracles() else { return };
    if !Path::new("/bin/busybox").exists() {
        return run::skip("busybox is missing");
    }
    let scratch = scratch();
    let place = scratch.path();
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    let source = image(place, "x.tar", "word");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).unwrap();
    let build = |as_root: bool, words: &str| {
        let mut command = if as_root { oracles.run(place) } else { oracles.user(place) };
        let done = run::run(command.args(["sh", "-c", &format!("apptainer --silent build --force {words}")]));
        assert_eq!(done.code, 0, "{words}: {}", text(&done));
    };
    for (as_root, sif, options) in
        [(true, "root.sif", ""), (false, "user.sif", ""), (false, "perms.sif", "--fix-perms")]
    {
        build(as_root, &format!("{options} {sif} docker-archive:x.tar"));
        let done = verify(&place.join(sif), &source);
        assert!(done.code == 0 && text(&done).contains("all explained"), "{sif}: {}", text(&done));
        assert!(text(&done).contains("a runtime binds to it"), "{sif}: {}", text(&done));
    }
    let changes = [
        // Taken apart and put together, and nothing else.
        ("true", ""),
        // Where a directory has setgid, what is made in it gets that and its group.
        ("chgrp 1000 box/.singularity.d/env && chmod g+s box/.singularity.d/env", ""),
        ("rm box/.singularity.d/env/10-docker2singularity.sh", "- \".singularity.d/env/10-docker2singularity.sh\""),
        ("rm -r box/.singularity.d/env", "- \".singularity.d/env\" directory"),
        ("rm -r box/.singularity.d", "- \".singularity.d\" directory"),
        ("rm box/.singularity.d/runscript", "- \".singularity.d/runscript\" file"),
        ("rm box/.singularity.d/startscript", "- \".singularity.d/startscript\""),
        ("rm box/.singularity.d/env/95-apps.sh", "- \".singularity.d/env/95-apps.sh\""),
        ("rm box/.singularity.d/env/99-base.sh", "- \".singularity.d/env/99-base.sh\""),
        ("rm box/.singularity.d/actions/run", "- \".singularity.d/actions/run\""),
        ("chmod 644 box/.singularity.d/runscript", "~ \".singularity.d/runscript\" mode: 0755 -> 0644"),
        ("chmod 644 box/.singularity.d/actions/exec", "~ \".singularity.d/actions/exec\" mode"),
        (
            "chmod 000 box/.singularity.d/env/10-docker2singularity.sh",
            "~ \".singularity.d/env/10-docker2singularity.sh\" mode: 0644 -> 0000",
        ),
        ("chmod 777 box/.singularity.d/env", "~ \".singularity.d/env\" mode: 0755 -> 0777"),
        ("chmod 700 box/.singularity.d/env", "~ \".singularity.d/env\" mode"),
        ("chmod 775 box/.singularity.d/env/01-base.sh", "~ \".singularity.d/env/01-base.sh\" mode"),
        ("chmod 4755 box/.singularity.d/runscript", "~ \".singularity.d/runscript\" mode"),
        ("chown 1000 box/.singularity.d/runscript", "~ \".singularity.d/runscript\" owner: 0:0 -> 1000:0"),
        ("chown 1000 box/.singularity.d", "~ \".singularity.d\" owner"),
        ("echo evil >>box/.singularity.d/runscript", ".singularity.d/runscript"),
        ("echo evil >box/.singularity.d/env/00-evil.sh", ".singularity.d/env/00-evil.sh"),
        ("echo 'export B=2' >>box/.singularity.d/env/10-docker2singularity.sh", "10-docker2singularity.sh"),
        ("echo evil >>box/.singularity.d/actions/exec", ".singularity.d/actions/exec"),
        ("chmod 4755 box/bin/busybox", "~ \"bin/busybox\" mode"),
        ("echo evil >box/bin/evil", "+ \"bin/evil\""),
        ("echo 10.0.0.1 bank >box/etc/hosts", "\"etc/hosts\""),
        ("rm box/opt/attribute", "- \"opt/attribute\""),
        ("cp box/bin/busybox box/bin/.wh.evil", "+ \"bin/.wh.evil\""),
        (
            "mkdir -p box/.singularity.d/replaced/opt && mv box/opt/attribute box/.singularity.d/replaced/opt/ \
             && echo evil >box/opt/attribute",
            "~ \"opt/attribute\"",
        ),
    ];
    for (change, named) in changes {
        // Apptainer's own build from a directory would write its files anew.
        let script = format!(
            "rm -rf box new.sqsh changed.sif
             apptainer sif dump 3 root.sif >oci-config.json && apptainer sif dump 4 root.sif >part.sqsh
             unsquashfs -quiet -no-progress -d box part.sqsh >&2 && {change}
             mksquashfs box new.sqsh -noappend -quiet -no-progress >&2 && apptainer sif new changed.sif
             apptainer sif add --datatype 6 --groupid 1 --filename oci-config.json changed.sif oci-config.json
             apptainer sif add --datatype 4 --partfs 1 --parttype 2 --partarch 2 --groupid 1 changed.sif new.sqsh"
        );
        let done = run::run(oracles.run(place).args(["sh", "-ec", &script]));
        assert_eq!(done.code, 0, "{script}: {}", text(&done));
        let done = verify(&place.join("changed.sif"), &source);
        if named.is_empty() {
            assert_eq!(done.code, 0, "{}", text(&done));
            continue;
        }
        assert_eq!(done.code, run::exit_code("Mismatch"), "{change}: {}", text(&done));
        let line = text(&done).lines().find(|line| line.contains(named) && !line.contains('(')).map(str::to_string);
        assert!(line.is_some(), "{change}: {}", text(&done));
    }
}

/// The runscript goes to WORKDIR in another way where there is a shell.
#[test]
fn a_sif_of_ours_that_goes_to_workdir_is_explained() {
    let scratch = scratch();
    let mut shell = Header::blank(b"bin/sh", b'0', Magic::Ustar);
    (shell.mode, shell.size) = (0o755, 3);
    let tar = Tar::new().directory("bin").raw(shell.block(), b"#!x").directory("etc").finish();
    let mut config = pack::config(std::slice::from_ref(&tar));
    config["config"] = json!({ "Cmd": ["/bin/sh"], "WorkingDir": "/opt/x" });
    let (source, sif) = (scratch.path().join("x.tar"), scratch.path().join("x.sif"));
    fs::write(&source, pack::docker_archive_of(&config, &[tar], Squeeze::Not)).unwrap();
    // A level that the file does not tell, so that it is not made again byte for byte.
    convert(&source, &sif, &["--workdir", "--mkdir", "/q", "--compression", "gzip:1"]);
    let done = verify(&sif, &source);
    assert!(done.code == 0 && text(&done).contains("all explained"), "{}", text(&done));
}

/// A runtime lays an overlay over the root, and a shell runs the first line of a file: no image gives either.
#[test]
fn what_runs_beside_the_root_is_never_explained() {
    let scratch = scratch();
    let source = image(scratch.path(), "x.tar", "word");
    let sif = scratch.path().join("x.sif");
    convert(&source, &sif, &[]);
    let file = fs::OpenOptions::new().write(true).open(&sif).unwrap();
    let line = b"#!/usr/bin/env evil-singularity\n";
    file.write_all_at(&line[..31], 0).unwrap();
    let done = verify(&sif, &source);
    assert_eq!(done.code, run::exit_code("Mismatch"), "{}", text(&done));

    let Some(oracles) = oracles() else { return };
    convert(&source, &sif, &[]);
    let add = |words: &str| {
        let done = run::run(oracles.run(scratch.path()).args(["sh", "-ec", words]));
        assert_eq!(done.code, 0, "{words}: {}", text(&done));
    };
    // What nothing runs may be added.
    add("echo {} >note.json && apptainer sif add --datatype 7 x.sif note.json");
    let done = verify(&sif, &source);
    assert!(done.code == 0 && text(&done).contains("all explained"), "{}", text(&done));
    for kind in [3, 4] {
        convert(&source, &sif, &[]);
        add(&format!(
            "mkdir -p box/bin && echo evil >box/bin/evil && mksquashfs box over.sqsh -noappend -quiet -no-progress >&2
             apptainer sif add --datatype 4 --partfs 1 --parttype {kind} --partarch 2 --groupid 1 x.sif over.sqsh"
        ));
        let alone = run::run(program().arg("verify").arg(&sif));
        assert_eq!(alone.code, 0, "{}", text(&alone));
        let done = verify(&sif, &source);
        assert_eq!(done.code, run::exit_code("Mismatch"), "{}", text(&done));
        assert!(text(&done).contains("object 6 FS (Squashfs/"), "{kind}: {}", text(&done));
    }
}

#[test]
fn the_image_may_be_where_options_for_registries_lead() {
    let directory = scratch();
    let layers = [Tar::new().file("f", "x").finish()];
    let mut repository = Repository::default();
    let image = repository.add_image(&pack::config(&layers), &layers);
    repository.tag("1", &image);
    let fake = Fake::start(move |request| repository.answer(request));
    let sif = directory.path().join("x.sif");
    let (source, mirror) = ("docker://h.test/x:1", format!("h.test={}", fake.host()));
    let mirrored = ["--mirror", mirror.as_str(), "--retries", "0"];
    convert(Path::new(source), &sif, &mirrored);
    let against =
        |options: &[&str]| run::run(program().arg("verify").arg(&sif).args(["--against", source]).args(options));
    let done = against(&mirrored);
    assert!(done.code == 0 && text(&done).contains("byte for byte"), "{}", done.stderr);
    // An image by itself is verified where it is, too; and of a file alone they would say nothing.
    let done = run::run(program().args(["verify", source]).args(mirrored));
    assert!(done.code == 0 && text(&done).contains("is whole"), "{}", done.stderr);
    let done = run::run(program().arg("verify").arg(&sif).args(mirrored));
    assert!(done.code == run::exit_code("Usage") && done.stderr.contains("has no effect"), "{}", done.stderr);
}
