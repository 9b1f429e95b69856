//! From a SIF to programs that know images only, and from what they and Apptainer write to a SIF.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::docker::DockerImage;
use crate::support::entry::When;
use crate::support::layer;
use crate::support::listing::{Listing, Times, What, from_tar};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::{self, Wanted};
use crate::support::run::{
    self, Oracles, Run, convert_to_stdout, host_has, leave_out, oracles, program, scratch, skip,
};
use crate::support::squashfs::storable_times;

fn text(done: &Run) -> String {
    format!("{}{}", str::from_utf8(&done.stdout).expect("it prints text"), done.stderr)
}

fn convert(source: &Path, format: &str, output: &Path, arguments: &[&str]) -> Run {
    // A layout is never replaced, and these are new.
    let force: &[&str] = if format == "oci" { &[] } else { &["--force"] };
    let done = run::run(program().arg(source).args(["--to", format, "-o"]).arg(output).args(arguments).args(force));
    assert_eq!(done.code, 0, "{}", done.stderr);
    done
}

fn tree(source: &Path, arguments: &[&str]) -> Listing {
    let done = convert_to_stdout(source, "rootfs", arguments);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

fn sh(mut command: Command, script: &str) -> String {
    let done = run::run(command.args(["sh", "-ec", script]));
    assert_eq!(done.code, 0, "{script}: {}", text(&done));
    String::from_utf8(done.stdout).unwrap()
}

/// Removes an image that was loaded, and containers that were created.
struct Loaded<'a> {
    image: &'a DockerImage,
    name: &'static str,
}

impl Loaded<'_> {
    /// What `docker export` gives of a container that never ran.
    fn export(&self, image: &str, file: &str) -> Listing {
        let container = String::from_utf8(self.image.docker(&["create", image])).unwrap();
        self.image.docker(&["export", "--output", file, container.trim()]);
        self.image.docker(&["rm", container.trim()]);
        tree(&self.image.place.path().join(file), &[])
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", self.name]).output();
    }
}

/// Image, SIF, docker-archive, `docker load`, `docker run`: it prints the same and holds the same.
#[test]
fn docker_runs_what_was_a_sif() {
    let Some(image) = DockerImage::build("round-trip") else { return };
    let at = |name: &str| image.place.path().join(name);
    convert(&image.archive(), "sif", &at("x.sif"), &["--keep-devices", "--xattrs", "all"]);
    let loaded = Loaded { image: &image, name: "sif-convert-test/back:1" };
    convert(&at("x.sif"), "docker-archive", &at("back.tar"), &["--tag", loaded.name]);
    image.docker(&["load", "--input", "back.tar"]);
    let arguments: [&[&str]; 3] = [&[], &["a b", "$HOME", "", "it's"], &["-n", "*"]];
    for words in arguments {
        let run = |name: &str| image.docker(&[&["run", "--rm", name], words].concat());
        assert_eq!(
            String::from_utf8(run(&image.name)).unwrap(),
            String::from_utf8(run(loaded.name)).unwrap(),
            "{words:?}"
        );
    }
    let inspect = |name: &str| {
        let format = "{{json .Config.Env}} {{json .Config.Entrypoint}} {{json .Config.Cmd}} {{json .Config.Labels}}";
        String::from_utf8(image.docker(&["image", "inspect", "--format", format, name])).unwrap()
    };
    assert_eq!(inspect(&image.name), inspect(loaded.name));
    let (expected, found) = (loaded.export(&image.name, "one.tar"), loaded.export(loaded.name, "two.tar"));
    let differences = expected.differences(&found, Times::MadeIsAny);
    // What the engine itself makes in a container bears the time of that.
    let own: Vec<&str> = differences.lines().filter(|line| !is_of_the_engine(line)).collect();
    assert!(own.is_empty(), "{own:#?}");
    assert!(expected.names.len() > 30, "{} names", expected.names.len());
}

/// Random images through a SIF into the engine and out again: `docker export` gives the tree that the layers make.
/// `ROUND_TRIPS` says how many, 3 by default.
#[test]
fn random_images_come_back_through_docker() {
    let Some(engine) = DockerImage::build("random") else { return };
    let at = |name: &str| engine.place.path().join(name);
    let count = std::env::var("ROUND_TRIPS").map_or(3, |count| count.parse().expect("it is a number"));
    let (mut taken, mut equal) = (0, 0);
    for (number, image) in random::images(Wanted::Valid, count).iter().enumerate() {
        let layers: Vec<Vec<u8>> = image.0.iter().map(layer::tar).collect();
        fs::write(at("one.tar"), docker_archive(&layers, Squeeze::Not)).unwrap();
        convert(&at("one.tar"), "sif", &at("x.sif"), &["--keep-devices", "--xattrs", "all"]);
        convert(&at("x.sif"), "docker-archive", &at("two.tar"), &["--tag", "sif-convert-test/random-back:1"]);
        let expected = comparable(tree(&at("one.tar"), &[]));
        let differences = expected.differences(&comparable(tree(&at("two.tar"), &[])), Times::Exact);
        assert!(differences.is_empty(), "image {number}: {differences}{image:?}");
        let back = exported(&engine, "two.tar", "sif-convert-test/random-back:1").expect("the engine takes it");
        let differences = own_differences(&as_exported(&expected), &as_exported(&back));
        assert!(differences.is_empty(), "image {number}: {differences:#?}{image:?}");
        // The engine does not take every layer that the rules allow, nor all of them in this way: it lets a whiteout remove what
        // the same layer wrote, and dates directories that no entry names by the clock.
        if let Some(original) = exported(&engine, "one.tar", "example/case:latest") {
            taken += 1;
            equal += u32::from(own_differences(&undated(original), &undated(back)).is_empty());
        }
    }
    eprintln!("{count} images came back; the engine took {taken} of them as they were, {equal} with the same tree");
}

/// What differs between two trees, but for what the engine makes in a container.
fn own_differences(expected: &Listing, found: &Listing) -> Vec<String> {
    let differences = expected.differences(found, Times::Exact);
    let lines: Vec<&str> = differences.lines().collect();
    let own = lines.chunks(2).filter(|pair| !pair.iter().any(|line| is_of_the_engine(line)));
    own.flatten().map(ToString::to_string).collect()
}

/// What a container of an archive's image holds, which never ran; `None` where the engine does not take it.
fn exported(engine: &DockerImage, archive: &str, name: &str) -> Option<Listing> {
    let docker = |arguments: &[&str]| {
        let done = run::run(Command::new("docker").args(arguments).current_dir(engine.place.path()));
        (done.code == 0).then(|| String::from_utf8(done.stdout).unwrap())
    };
    docker(&["load", "--input", archive])?;
    let container = docker(&["create", name, "/none"]);
    let listing = container.as_ref().and_then(|container| {
        docker(&["export", "--output", "export.tar", container.trim()])?;
        Some(comparable(tree(&engine.place.path().join("export.tar"), &[])))
    });
    container.and_then(|container| docker(&["rm", container.trim()]));
    engine.docker(&["rmi", "--force", name]);
    listing
}

/// The engine exports a FIFO, a device or a symlink with several names as several, mostly.
fn as_exported(listing: &Listing) -> Listing {
    let mut exported = listing.clone();
    for (path, &id) in &listing.names {
        let node = &listing.nodes[id];
        if !matches!(node.what, What::Dir | What::File(..)) {
            exported.add(path.clone(), node.clone());
        }
    }
    exported
}

fn undated(mut listing: Listing) -> Listing {
    listing.nodes.iter_mut().for_each(|node| node.time = When::Made);
    listing
}

/// A tree without what a SIF or an export cannot hold: parts of seconds, and extended attributes but file capabilities.
fn comparable(mut listing: Listing) -> Listing {
    storable_times(&mut listing);
    for node in &mut listing.nodes {
        node.xattrs.retain(|name, _| name == b"security.capability");
    }
    listing
}

/// `.dockerenv`, and the places that the engine binds to, with the directories that they lie in.
fn is_of_the_engine(line: &str) -> bool {
    [
        "\"\"",
        "\".dockerenv\"",
        "\"dev",
        "\"etc\"",
        "\"etc/hostname\"",
        "\"etc/hosts\"",
        "\"etc/mtab\"",
        "\"etc/resolv.conf\"",
        "\"proc\"",
        "\"sys\"",
    ]
    .iter()
    .any(|name| line.contains(name))
}

/// `podman load`, `skopeo copy`, `crane validate` and `umoci` take what was a SIF.
#[test]
fn other_tools_take_what_was_a_sif() {
    let Some(oracles) = oracles() else { return };
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives/hello.tar");
    convert(&original, "sif", &at("x.sif"), &["--arch", "amd64"]);
    convert(&at("x.sif"), "docker-archive", &at("d.tar"), &["--tag", "example.org/back:1"]);
    convert(&at("x.sif"), "oci", &at("layout"), &["--tag", "1"]);
    let script = "skopeo copy --quiet docker-archive:d.tar oci:copied:1 >&2
        skopeo copy --quiet oci:layout:1 docker-archive:again.tar:again:1 >&2
        crane validate --tarball d.tar >&2
        umoci unpack --image layout:1 bundle >&2
        tar --numeric-owner -C bundle/rootfs -cf umoci.tar .";
    sh(oracles.run(scratch.path()), script);
    let expected = tree(&original, &[]);
    for name in ["copied", "again.tar", "umoci.tar"] {
        let differences = expected.differences(&tree(&at(name), &[]), Times::Exact);
        assert!(differences.is_empty(), "{name}:\n{differences}");
    }
    if !host_has("podman") {
        return leave_out("podman is missing");
    }
    let done = run::run(Command::new("podman").args(["load", "--input"]).arg(at("d.tar")));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let _ = Command::new("podman").args(["rmi", "--force", "example.org/back:1"]).output();
}

/// What a SIF holds, by its partition and unsquashfs.
fn unsquashed(oracles: &Oracles, directory: &Path, sif: &str) -> Listing {
    let script = format!(
        "rm -rf u && id=$(apptainer sif list {sif} | sed -n 's/^\\([0-9]*\\) .*Squashfs.*/\\1/p')
         apptainer sif dump $id {sif} >part.sqsh && unsquashfs -quiet -no-progress -d u part.sqsh >/dev/null
         tar -C u --format=pax --numeric-owner --sort=name --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' \
             '--transform=flags=rh;s,^\\./\\(.\\),\\1,' -cf u.tar . && rm -rf u part.sqsh"
    );
    sh(oracles.run(directory), &script);
    from_tar(&fs::read(directory.join("u.tar")).unwrap()).unwrap()
}

/// SIFs that Apptainer builds from an image, a definition and a directory.
#[test]
fn sifs_of_apptainer_are_sources() {
    let Some(oracles) = oracles() else { return };
    let Ok(busybox) = fs::read("/bin/busybox") else { return skip("busybox is missing") };
    let scratch = scratch();
    let place = scratch.path();
    fs::create_dir_all(place.join("box/bin")).unwrap();
    fs::write(place.join("box/bin/busybox"), busybox).unwrap();
    fs::set_permissions(place.join("box/bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("busybox", place.join("box/bin/sh")).unwrap();
    let definition = "Bootstrap: localimage\nFrom: box\n%environment\n    export B=two\n    export C=\"$B three\"\n%labels\n    \
        org.example.k v w\n%runscript\n    exec /bin/busybox echo from the definition \"$@\"\n%files\n    note /note\n";
    fs::write(place.join("x.def"), definition).unwrap();
    fs::write(place.join("note"), "a note\n").unwrap();
    let definition = "Bootstrap: localimage\nFrom: box\n%environment\n    export B=\"$HOME/b\"\n%runscript\n    \
        /bin/busybox echo \"$B\" \"$@\"\n";
    fs::write(place.join("shell.def"), definition).unwrap();
    let hello = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/archives/hello.tar");
    fs::copy(hello, place.join("hello.tar")).unwrap();
    let build = "apptainer --silent build box.sif box >&2; apptainer --silent build def.sif x.def >&2
        apptainer --silent build docker.sif docker-archive:hello.tar >&2; apptainer --silent build shell.sif shell.def >&2";
    sh(oracles.run(place), build);
    for sif in ["box.sif", "def.sif", "docker.sif", "shell.sif"] {
        let found = tree(&place.join(sif), &["--keep-singularity"]);
        let differences = unsquashed(&oracles, place, sif).differences(&found, Times::Exact);
        assert!(differences.is_empty(), "{sif}:\n{differences}");
    }
    convert(&place.join("def.sif"), "docker-archive", &place.join("def.tar"), &[]);
    let done = run::run(program().args(["inspect", "--json"]).arg(place.join("def.tar")));
    let inspected: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let config = &inspected["images"][0]["config"];
    assert_eq!(
        config["entrypoint"],
        serde_json::json!(["/bin/busybox", "echo", "from", "the", "definition"]),
        "{inspected:#}"
    );
    assert_eq!(config["labels"]["org.example.k"], "v w", "{inspected:#}");
    let environment: Vec<&str> = config["env"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
    assert!(environment.contains(&"B=two") && environment.contains(&"C=two three"), "{environment:?}");
    let note = run::run(program().arg("cat").arg(place.join("def.tar")).arg("note"));
    assert_eq!(note.stdout, b"a note\n");

    // What only a shell can say stays what a shell says, by whatever way.
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
    convert(&place.join("shell.sif"), "docker-archive", &place.join("shell.tar"), &[]);
    convert(&place.join("shell.sif"), "sif-rootfs", &place.join("shell.rootfs.tar"), &[]);
    for source in ["shell.sif", "shell.tar", "shell.rootfs.tar"] {
        convert(&place.join(source), "sif", &place.join("x.sif"), &["--arch", "amd64"]);
        let said = sh(oracles.user(place), "timeout 60 apptainer --silent run x.sif 'a b'");
        assert_eq!(said, "/home/tester/b a b\n", "{source}");
    }
}

/// `docker export`, and a directory as debootstrap leaves one, become SIFs that run.
#[test]
fn exports_and_directories_become_sifs_that_run() {
    let Some(image) = DockerImage::build("exported") else { return };
    let Some(oracles) = oracles() else { return };
    let place = image.place.path();
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    let container = String::from_utf8(image.docker(&["create", &image.name])).unwrap();
    image.docker(&["export", "--output", "export.tar", container.trim()]);
    image.docker(&["rm", container.trim()]);
    fs::create_dir(place.join("root")).unwrap();
    let done = run::run(Command::new("tar").args(["-xpf", "export.tar", "-C", "root"]).current_dir(place));
    assert_eq!(done.code, 0, "{}", done.stderr);
    for source in ["export.tar", "root"] {
        let options = [
            "--entrypoint",
            r#"["/bin/show","word"]"#,
            "--cmd",
            r#"["it's"]"#,
            "--env",
            "PATH=/bin",
            "--env",
            "T_X=a b",
            "--arch",
            "amd64",
        ];
        convert(&place.join(source), "sif", &place.join("x.sif"), &options);
        let run = |words: &str| sh(oracles.user(place), &format!("apptainer --silent run x.sif {words}"));
        assert_eq!(run(""), "T_X=a b\n<word><it's>", "{source}");
        assert_eq!(run("'$HOME' ''"), "T_X=a b\n<word><$HOME><>", "{source}");
        assert_eq!(sh(oracles.user(place), "apptainer --silent exec x.sif cat /data/sub/three"), "three\n", "{source}");
    }
}

/// For a directory that debootstrap made, by hand: `debootstrap --variant=minbase bookworm DIR`. It becomes a SIF that runs, as it is and by
/// way of `docker export`; what Apptainer builds of it differs in ways that have a name.
#[test]
#[ignore = "needs DEBOOTSTRAP, a directory that debootstrap made"]
fn a_directory_of_debootstrap_becomes_what_apptainer_builds_of_it() {
    let directory = std::env::var_os("DEBOOTSTRAP").expect("DEBOOTSTRAP");
    let Some(engine) = DockerImage::build("debootstrap") else { return };
    let Some(oracles) = oracles() else { return };
    let place = engine.place.path();
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    let done = run::run(Command::new("cp").arg("-a").arg(directory).arg(place.join("root")));
    assert_eq!(done.code, 0, "{}", done.stderr);
    // No other list of names and no other clock than the directory's.
    let import = "tar -C root -cf root.tar . && docker import root.tar sif-convert-test/debian:1 >&2 &&
        id=$(docker create sif-convert-test/debian:1 /bin/true) && docker export --output export.tar $id && docker rm $id >&2 &&
        docker rmi --force sif-convert-test/debian:1 >&2";
    let done = run::run(Command::new("bash").args(["-ec", import]).current_dir(place));
    assert_eq!(done.code, 0, "{}", done.stderr);
    sh(oracles.run(place), "apptainer --silent build theirs.sif root >&2");
    convert(&place.join("root"), "sif", &place.join("directory.sif"), &[]);
    convert(&place.join("export.tar"), "sif", &place.join("export.sif"), &[]);
    for sif in ["theirs.sif", "directory.sif", "export.sif"] {
        let script =
            format!("apptainer --silent exec {sif} sh -c 'cat /etc/debian_version; dpkg -l | wc -l; dpkg --verify'");
        let said = sh(oracles.user(place), &script);
        assert!(said.lines().count() >= 2 && said.starts_with("12."), "{sif}: {said}");
        let source = if sif == "export.sif" { "export.tar" } else { "root" };
        let done = run::run(program().arg("verify").arg(place.join(sif)).arg("--against").arg(place.join(source)));
        assert_eq!(done.code, 0, "{sif}: {}{}", str::from_utf8(&done.stdout).unwrap(), done.stderr);
    }
}

/// A `sif-rootfs` tar is a source that knows how it ran, plain and compressed, from a file and from a pipe.
#[test]
fn a_sif_rootfs_tar_says_how_it_ran() {
    let scratch = scratch();
    let at = |name: &str| scratch.path().join(name);
    let layers = [crate::support::tar::Tar::new().directory("bin").file("bin/x", "x").finish()];
    let mut config = crate::support::pack::config(&layers);
    config["config"] = serde_json::json!({
        "Env": ["PATH=/a", "Q=it's $x"], "Entrypoint": ["/bin/x", "it's"], "Cmd": ["a b", ""], "Labels": {"k": "v w"},
    });
    fs::write(
        at("image.tar"),
        crate::support::pack::docker_archive_of(&config, &layers, crate::support::pack::Squeeze::Not),
    )
    .unwrap();
    for name in ["root.tar", "root.tar.zst"] {
        convert(&at("image.tar"), "sif-rootfs", &at(name), &[]);
        for piped in [false, true] {
            let mut command = program();
            command.arg(if piped { "-".into() } else { at(name) }).args(["--to", "docker-archive", "--force", "-o"]);
            if piped {
                command.stdin(fs::File::open(at(name)).unwrap());
            }
            let done = run::run(command.arg(at("back.tar")));
            assert_eq!(done.code, 0, "{}", done.stderr);
            assert!(done.stderr.contains(".singularity.d, which is kept"), "{}", done.stderr);
            let done = run::run(program().args(["inspect", "--json"]).arg(at("back.tar")));
            let inspected: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
            let found = &inspected["images"][0]["config"];
            for (key, field) in [("entrypoint", "Entrypoint"), ("cmd", "Cmd"), ("env", "Env"), ("labels", "Labels")] {
                assert_eq!(found[key], config["config"][field], "{name} {key}");
            }
        }
    }
}
