//! Other people's programs must agree with the reference, and with what we write.
//!
//! Where a program is missing its test is skipped with a printed reason; under `ORACLES=require` that is a failure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::UNIX_EPOCH;

use crate::support::case::{self, Expected, Layer};
use crate::support::docker::DockerImage;
use crate::support::entry::When;
use crate::support::listing::{Listing, Times, What, parts};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::{self, Wanted};
use crate::support::run::{Oracles, convert_to_stdout, is_root, skip};
use crate::support::{disk, layer, pack, reference, run};

/// One image for umoci: how to name it in a report, and what the reference makes of it.
struct Asked {
    name: String,
    text: String,
    layers: Vec<Layer>,
    expected: Result<Listing, String>,
}

/// The tree that umoci makes of every case is the case's tree.
#[test]
fn umoci_agrees_with_every_case() {
    let mut asked = Vec::new();
    for case in case::all() {
        if let Some(reason) = case.skips("umoci") {
            eprintln!("{}: umoci is not asked: {reason}", case.name);
            continue;
        }
        let expected = match &case.expected {
            Expected::Tree(entries) => Ok(Listing::from_tree(entries)),
            Expected::Error { parts, .. } => Err(parts.join(" ")),
        };
        asked.push(Asked { name: case.name, text: String::new(), layers: case.layers, expected });
    }
    ask_umoci(asked);
}

/// The reference and umoci make the same tree of random images. `RANDOM_IMAGES` says how many.
#[test]
fn umoci_agrees_with_the_reference_on_random_images() {
    let count = std::env::var("RANDOM_IMAGES").map_or(40, |count| count.parse().unwrap());
    let asked = random::images(Wanted::ForUmoci, count).into_iter().enumerate().map(|(number, image)| Asked {
        name: format!("random-{number}"),
        text: format!("{image:?}\n"),
        expected: reference::merge(&image.0),
        layers: image.0,
    });
    ask_umoci(asked.collect());
}

fn ask_umoci(asked: Vec<Asked>) {
    let Some(oracles) = run::oracles() else { return };
    let scratch = run::scratch();
    for image in &asked {
        let layers: Vec<Vec<u8>> = image.layers.iter().map(layer::tar).collect();
        pack::oci_layout(&scratch.path().join(&image.name).join("oci"), &layers);
    }
    // One process for all: entering the oracles' root costs more than unpacking.
    let script = "umask 022; for image in */; do
        umoci raw unpack --image ${image}oci:latest ${image}tree >${image}log 2>&1; echo $? >${image}code; done";
    let started = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - 1;
    let status = oracles.run(scratch.path()).args(["sh", "-c", script]).status().unwrap();
    assert!(status.success(), "the oracles' root cannot be entered");
    let mut disagreements = String::new();
    for image in &asked {
        let report = disagreement(&scratch.path().join(&image.name), image, started);
        if !report.is_empty() {
            disagreements.push_str(&format!("== {}\n{}{report}", image.name, image.text));
        }
    }
    assert!(disagreements.is_empty(), "{disagreements}");
    eprintln!("umoci agrees on {} images", asked.len());
}

fn disagreement(directory: &Path, image: &Asked, started: i64) -> String {
    let code = fs::read_to_string(directory.join("code")).unwrap();
    let log = || fs::read_to_string(directory.join("log")).unwrap();
    let expected = match (&image.expected, code.trim()) {
        (Ok(expected), "0") => expected,
        (Ok(_), _) => return format!("umoci failed: {}", log()),
        (Err(wrong), "0") => return format!("umoci took what the reference refuses: {wrong}\n"),
        (Err(_), _) => return String::new(),
    };
    let mut found = disk::list(&directory.join("tree"));
    let mut expected = expected.clone();
    forget_clock_times(&mut expected, &mut found, started);
    expected.differences(&found, Times::MadeIsAny)
}

/// umoci gives a directory the time of the clock where entries came or went two levels below it, and gives the root that
/// no layer speaks of the epoch. Neither is a rule: such times are not compared.
fn forget_clock_times(expected: &mut Listing, found: &mut Listing, started: i64) {
    let inodes: BTreeMap<_, _> = found.names.clone();
    for (path, id) in inodes {
        let node = &found.nodes[id];
        let clock = matches!(node.time, When::At(time) if time.seconds >= started);
        if node.what == What::Dir
            && clock
            && let Some(&id) = expected.names.get(&path)
        {
            expected.nodes[id].time = When::Made;
        }
    }
}

/// GNU tar, run by root, unpacks what we write into the tree that we mean.
#[test]
fn gnu_tar_unpacks_what_we_write() {
    if !is_root() {
        return skip("GNU tar gives files to their owners only as root");
    }
    let mut failures = String::new();
    for case in case::all() {
        let Expected::Tree(tree) = &case.expected else { continue };
        if let Some(reason) = case.skips("gnu-tar") {
            eprintln!("{}: GNU tar is not asked: {reason}", case.name);
            continue;
        }
        let place = run::scratch();
        let layers: Vec<Vec<u8>> = case.layers.iter().map(layer::tar).collect();
        let archive = place.path().join("image.tar");
        fs::write(&archive, docker_archive(&layers, Squeeze::Not)).unwrap();
        let made = convert_to_stdout(&archive, "rootfs", &[]);
        assert_eq!(made.code, 0, "{}: {}", case.name, made.stderr);
        let found = unpack(place.path(), &made.stdout);
        let differences = Listing::from_tree(tree).differences(&found, Times::Exact);
        if !differences.is_empty() {
            failures.push_str(&format!("== {}\n{differences}", case.name));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
}

/// Unpacks a tar with GNU tar, as root, all metadata kept, into `directory`/unpacked, and lists that.
fn unpack(directory: &Path, tar: &[u8]) -> Listing {
    let file = directory.join("unpack.tar");
    fs::write(&file, tar).unwrap();
    let root = directory.join("unpacked");
    fs::create_dir(&root).unwrap();
    let mut command = Command::new("tar");
    command.args([
        "--extract",
        "--same-permissions",
        "--same-owner",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    ]);
    let done = run::run(command.arg("-C").arg(&root).arg("-f").arg(&file));
    assert_eq!(done.code, 0, "{}", done.stderr);
    disk::list(&root)
}

/// What `docker export` adds to every container, or changes.
const MADE_BY_DOCKER: [&str; 12] = [
    ".dockerenv",
    "dev",
    "dev/console",
    "dev/pts",
    "dev/shm",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "sys",
    "run",
];

#[test]
fn docker_export_gives_the_same_tree() {
    if !is_root() {
        return skip("GNU tar gives files to their owners only as root");
    }
    let Some(image) = DockerImage::build("export") else { return };
    let container = String::from_utf8(image.docker(&["create", &image.name])).unwrap();
    let exported = image.docker(&["export", container.trim()]);
    image.docker(&["rm", container.trim()]);
    let (theirs, ours) = (run::scratch(), run::scratch());
    let mut expected = unpack(theirs.path(), &exported);
    let mut found = unpack(ours.path(), &image.convert("rootfs"));
    for listing in [&mut expected, &mut found] {
        for path in MADE_BY_DOCKER {
            listing.names.remove(&parts(path.as_bytes()));
        }
        // Whose contents Docker changes when it makes a container.
        for path in ["", "etc"] {
            let id = listing.names[&parts(path.as_bytes())];
            listing.nodes[id].time = When::Made;
        }
        // A layer holds times to the second or better, as the builder likes; `docker export` to the second.
        for node in &mut listing.nodes {
            if let When::At(time) = &mut node.time {
                time.nanoseconds = 0;
            }
        }
    }
    assert!(expected.names.len() > 200, "BusyBox has hundreds of names, and {} are exported", expected.names.len());
    let differences = expected.differences(&found, Times::MadeIsAny);
    assert!(differences.is_empty(), "\n{differences}");
}

/// A real Apptainer builds a SIF from our tar, unpacked by an ordinary user, and runs it as Docker runs the image.
#[test]
fn apptainer_runs_what_we_write_as_docker_does() {
    let Some(oracles) = run::oracles() else { return };
    let Some(image) = DockerImage::build("run") else { return };
    let place = run::scratch();
    fs::write(place.path().join("rootfs.tar"), image.convert("sif-rootfs")).unwrap();
    rustix::fs::chown(place.path(), Some(rustix::fs::Uid::from_raw(1000)), None).unwrap();
    let apptainer = |script: &str| -> String {
        let done = run::run(oracles.user(place.path()).args(["sh", "-c", script]));
        assert_eq!(done.code, 0, "{script}: {}{}", String::from_utf8(done.stdout).unwrap(), done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    apptainer("mkdir dir && tar -xf rootfs.tar -C dir && apptainer --quiet build image.sif dir");
    let run = |arguments: &str| apptainer(&format!("apptainer --silent run image.sif {arguments}"));
    let docker = |arguments: &[&str]| {
        let arguments = [&["run", "--rm", image.name.as_str()], arguments].concat();
        String::from_utf8(image.docker(&arguments)).unwrap()
    };
    assert_eq!(run(""), docker(&[]), "entry point and command");
    assert_eq!(run("'a b' '$HOME' ''"), docker(&["a b", "$HOME", ""]), "arguments instead of the command");
    let ours = apptainer("apptainer --silent exec image.sif cat /data/sub/three /data/moved");
    let theirs = image.docker(&["run", "--rm", "--entrypoint", "cat", &image.name, "/data/sub/three", "/data/moved"]);
    assert_eq!(ours, String::from_utf8(theirs).unwrap(), "files");
    labels_are_kept(&oracles, &image, place.path());
}

fn labels_are_kept(oracles: &Oracles, image: &DockerImage, directory: &Path) {
    let done = run::run(oracles.user(directory).args(["apptainer", "inspect", "--labels", "--json", "image.sif"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let found = &found["data"]["attributes"]["labels"];
    let wanted = image.docker(&["inspect", "--format", "{{json .Config.Labels}}", &image.name]);
    let wanted: BTreeMap<String, String> = serde_json::from_slice(&wanted).unwrap();
    assert!(wanted.len() >= 2);
    for (name, value) in wanted {
        assert_eq!(found[&name], value, "label {name}");
    }
}
