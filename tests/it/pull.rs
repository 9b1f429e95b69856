//! `convert pull`, as the programs call it that run `singularity pull`; the shim stands before it where they look for one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::fake::{Answer, Body, Fake, OCI_INDEX, OCI_MANIFEST, Repository, Request};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive, sha256};
use crate::support::registry::Registry;
use crate::support::run::{self, Run, program, run, scratch};

const MEBIBYTE: usize = 1 << 20;
const SIF: &str = "application/vnd.sylabs.sif.layer.v1.sif";

/// Layers that no compression makes small.
fn layers() -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let noise: Vec<u8> = (0..(7 * MEBIBYTE / 16)).flat_map(|_| next()).collect();
    let mut tar = Vec::new();
    layer::member(&mut tar, "noise", &noise);
    tar.resize(tar.len() + 1024, 0);
    vec![tar]
}

/// An archive, the SIF of it, and a shim.
struct Place {
    place: tempfile::TempDir,
    archive: Vec<u8>,
    sif: Vec<u8>,
}

impl Place {
    fn new() -> Self {
        let place = scratch();
        let archive = docker_archive(&layers(), Squeeze::Not);
        fs::write(place.path().join("image.tar"), &archive).unwrap();
        let done = run(program().current_dir(place.path()).args(["image.tar", "--to", "sif", "-o", "want.sif"]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        let sif = fs::read(place.path().join("want.sif")).unwrap();
        assert!(sif.len() > 3 * MEBIBYTE);
        assert_eq!(run(program().arg("shim").arg(place.path().join("shim"))).code, 0);
        Place { place, archive, sif }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn command(&self, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.path("shim").join(name));
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", self.path("shim").display()));
        command.env("HOME", self.place.path()).current_dir(self.place.path()).args(words);
        command
    }

    fn pull(&self, name: &str, words: &[&str]) -> Run {
        run(&mut self.command(name, words))
    }

    /// What came is whole, and what was wanted.
    fn came(&self, done: &Run, file: &str) {
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(fs::read(self.path(file)).unwrap() == self.sif, "{file} is another file");
        assert_eq!(fs::metadata(self.path(file)).unwrap().permissions().mode() & 0o111, 0o111);
        fs::remove_file(self.path(file)).unwrap();
    }

    /// It failed, and left nothing.
    fn failed(&self, done: &Run, words: &[&str], file: &str) {
        assert_eq!(done.code, 255, "{}", done.stderr);
        let line = done.stderr.lines().find(|line| line.starts_with("FATAL:   ")).expect(&done.stderr);
        words.iter().for_each(|word| assert!(line.contains(word), "{word:?}: {line}"));
        assert!(!self.path(file).exists(), "{file} is there");
    }
}

/// A web server that breaks every connection after 1 MiB of a body.
fn cutting(request: &Request, bytes: &[u8]) -> Answer {
    let range = request.header("range").map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap());
    let start: usize = range.map_or(0, |start| start.parse().unwrap());
    let answer = Answer::new(if start > 0 { 206 } else { 200 }, "application/octet-stream", &bytes[start..]);
    let shown = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    let answer = answer.with("ETag", "\"1\"").with("Content-Range", &shown);
    answer.spoilt(|rest| if rest.len() > MEBIBYTE { Body::Cut(rest, MEBIBYTE) } else { Body::Whole(rest) })
}

#[test]
fn a_sif_and_an_archive_come_over_connections_that_break() {
    let place = Place::new();
    let (sif, archive) = (place.sif.clone(), place.archive.clone());
    let fake = Fake::start(move |request| match request.path.as_str() {
        "/moved/x.sif" => Answer::redirect("/x.sif"),
        "/x.sif" | "/img:1.0" => cutting(request, &sif),
        "/x.tar" => cutting(request, &archive),
        "/other.sif" if request.earlier > 0 => cutting(request, &archive).with("ETag", "\"2\""),
        "/other.sif" => cutting(request, &sif),
        "/not.sif" => Answer::new(200, "text/html", "<html>a page</html>"),
        "/cut.sif" => Answer::new(200, "x/y", &sif[..100]),
        _ => Answer::new(404, "text/plain", ""),
    });
    let url = |path: &str| format!("http://{}{path}", fake.host());
    // Nextflow, nf-core, Snakemake, bv.
    let done = place.pull("singularity", &["pull", "--name", "x.img.pulling.1", &url("/x.sif")]);
    assert!(done.stdout.is_empty());
    place.came(&done, "x.img.pulling.1");
    assert!(fake.count("/x.sif") > 3, "it was cut");
    let ranges = fake.log().iter().filter(|request| request.header("if-range") == Some("\"1\"")).count();
    assert_eq!(ranges, fake.count("/x.sif") - 1);
    let name = place.path("tmp file");
    place.came(
        &place.pull("singularity", &["pull", "--name", name.to_str().unwrap(), &url("/moved/x.sif")]),
        "tmp file",
    );
    place.came(&place.pull("apptainer", &["pull", "--name", "00.simg", &url("/x.tar")]), "00.simg");
    place.came(&place.pull("apptainer", &["pull", &url("/img:1.0")]), "img:1.0");
    place.came(&place.pull("apptainer", &["pull", "--force", "y.sif", &url("/x.sif")]), "y.sif");
    let sum = sha256(&place.sif);
    place.came(&place.pull("apptainer", &["pull", "--expect-sha256", &sum, "y.sif", &url("/x.sif")]), "y.sif");

    let wrong = "0".repeat(64);
    let done = place.pull("apptainer", &["pull", "--expect-sha256", &wrong, "y.sif", &url("/x.sif")]);
    place.failed(&done, &["digest mismatch"], "y.sif");
    for (path, words) in [
        ("/other.sif", &["changed while it was downloaded"][..]),
        ("/not.sif", &["not.sif"]),
        ("/cut.sif", &["checking what came from"]),
        ("/none.sif", &["StatusCode: 404"]),
    ] {
        place.failed(&place.pull("apptainer", &["pull", "y.sif", &url(path)]), words, "y.sif");
    }
    // As a source.
    let report = place.path("report.json");
    let mut command = program();
    command.current_dir(place.place.path()).arg(url("/x.tar")).args(["--to", "sif", "--report"]).arg(&report);
    place.came(&run(&mut command), "x.sif");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report["source"]["sha256"], sha256(&place.archive));
}

#[test]
fn logins_of_netrc_go_to_their_own_server_only() {
    let place = Place::new();
    let (sif, seen) = (place.sif.clone(), Arc::new(Mutex::new(Vec::new())));
    let serving = Arc::clone(&seen);
    let other = Fake::start(move |request| {
        serving.lock().unwrap().push(request.header("authorization").map(str::to_string));
        Answer::new(200, "x/y", sif.clone())
    });
    let elsewhere = format!("http://localhost:{}/x.sif", other.address.port());
    let fake = Fake::start(move |request| match request.header("authorization") {
        Some("Basic dTpw") => Answer::redirect(&elsewhere),
        _ => Answer::new(401, "text/plain", ""),
    });
    let url = format!("http://{}/x.sif", fake.host());
    place.failed(&place.pull("apptainer", &["pull", &url]), &["requested access to the resource is denied"], "x.sif");
    fs::write(place.path(".netrc"), "machine 127.0.0.1 login u password p\nmachine localhost login v password q\n")
        .unwrap();
    place.came(&place.pull("apptainer", &["pull", &url]), "x.sif");
    assert_eq!(*seen.lock().unwrap(), [None]);
    let done = place.pull("apptainer", &["pull", &url.replace("http://", "http://user:hunter2@")]);
    place.failed(&done, &["user name"], "x.sif");
    assert!(!done.stderr.contains("hunter2"));
}

#[test]
fn a_sif_on_a_registry_comes_whole_or_not_at_all() {
    let place = Place::new();
    let digest = format!("sha256:{}", sha256(&place.sif));
    let mut held = Repository::default();
    held.blobs.insert(digest.clone(), place.sif.clone());
    let wrong = format!("sha256:{}", "0".repeat(64));
    held.blobs.insert(wrong.clone(), place.sif.clone());
    let manifest = |digests: &[&String], kind: &str| {
        let layers: Vec<_> = digests
            .iter()
            .map(|digest| json!({ "mediaType": kind, "digest": digest, "size": place.sif.len() }))
            .collect();
        let config = json!({ "mediaType": "application/vnd.sylabs.sif.config.v1+json", "size": 2,
            "digest": format!("sha256:{}", sha256(b"{}")) });
        json!({ "schemaVersion": 2, "config": config, "layers": layers })
    };
    let good = held.add_manifest(OCI_MANIFEST, &manifest(&[&digest], SIF));
    for (tag, document) in [
        ("two", manifest(&[&digest, &digest], SIF)),
        ("layer", manifest(&[&digest], "application/vnd.oci.image.layer.v1.tar")),
        ("wrong", manifest(&[&wrong], SIF)),
    ] {
        let descriptor = held.add_manifest(OCI_MANIFEST, &document);
        held.tag(tag, &descriptor);
    }
    held.tag("1", &good);
    let host = sif_convert::model::Platform::host();
    let entry = |descriptor: &serde_json::Value, architecture: &str| {
        let mut entry = descriptor.clone();
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let bad = json!({ "mediaType": OCI_MANIFEST, "digest": wrong, "size": 1 });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [entry(&bad, "s390x"), entry(&good, &host.architecture)] });
    let index = held.add_manifest(OCI_INDEX, &index);
    held.tag("both", &index);
    let fake = Fake::start(move |request| {
        let answer = held.answer(request);
        answer.spoilt(|bytes| if bytes.len() > MEBIBYTE { Body::Cut(bytes, MEBIBYTE) } else { Body::Whole(bytes) })
    });
    let uri = |rest: &str| format!("oras://{}/org/x{rest}", fake.host());
    place.came(&place.pull("apptainer", &["pull", "--no-https", &uri(":1")]), "x_1.sif");
    place.came(&place.pull("apptainer", &["pull", "--dir", "shim/..", &uri(":both")]), "x_both.sif");
    let pinned = uri(&format!("@{}", good["digest"].as_str().unwrap()));
    place.came(&place.pull("apptainer", &["pull", "--force", "--name", "x.sif", &pinned]), "x.sif");
    for (tag, words) in [
        (":two", "ORAS SIF image should have a single layer, found 2"),
        (":layer", "invalid layer mediatype: \"application/vnd.oci.image.layer.v1.tar\""),
        (":wrong", "digest mismatch"),
        (":none", "manifest unknown"),
    ] {
        place.failed(&place.pull("apptainer", &["pull", "x.sif", &uri(tag)]), &[words], "x.sif");
    }
}

#[test]
fn images_are_converted_and_names_are_those_of_apptainer() {
    let place = Place::new();
    let held = Repository::of(&layers());
    let fake = Fake::start(move |request| held.answer(request));
    let uri = format!("docker://{}/org/x:1", fake.host());
    place.came(&place.pull("singularity", &["pull", "--force", "--name", "org_x:1.sif", &uri]), "org_x:1.sif");
    place.came(&place.pull("singularity", &["build", "y.sif", "docker-archive://image.tar"]), "y.sif");
    fs::create_dir(place.path("images")).unwrap();
    let mut command = place.command("singularity", &["pull", "-U", "--disable-cache", "docker-archive:image.tar"]);
    place.came(&run(command.env("SINGULARITY_PULLFOLDER", "images")), "images/image.tar_latest.sif");

    fs::write(place.path("there.sif"), "mine").unwrap();
    let done = place.pull("apptainer", &["pull", "there.sif", &uri]);
    assert_eq!(done.code, 255);
    let first = done.stderr.lines().next().unwrap();
    assert_eq!(first, "FATAL:   Image file already exists: \"there.sif\" - will not overwrite");
    assert_eq!(fs::read(place.path("there.sif")).unwrap(), b"mine");
    let pull = |words: &[&str]| run(program().current_dir(place.place.path()).arg("pull").args(words));
    for (words, message) in [
        (&["--sandbox", "x.sif", &uri][..], "--sandbox is not supported"),
        (&["x.sif", "ftp://h/x"], "Unsupported transport type: ftp"),
        (&["--bogus", "x.sif", &uri], "there is no option \"--bogus\""),
        (&["--authfile", "nothere", "x.sif", &uri], "option --authfile: there is no file \"nothere\""),
        (&["x.sif", "library://a/b"], "neither is in PATH"),
        (&["x.sif", "docker://no-such-host.invalid/x:1"], "dial tcp: lookup no-such-host.invalid: no such host"),
        (&["x.sif", &uri.replace(":1", ":2").replace("127.0.0.2", "127.0.0.1")], "manifest unknown"),
    ] {
        place.failed(&pull(words), &[message], "x.sif");
    }
}

/// A file of somebody else that appears while a pull is at work stays what it is.
#[test]
fn what_appears_meanwhile_is_not_replaced() {
    let place = Place::new();
    for (scheme, path) in [("docker", "x.sif"), ("http", "y.sif")] {
        let (held, sif, planted) = (Repository::of(&layers()), place.sif.clone(), place.path(path));
        let fake = Fake::start(move |request| {
            if request.is_for("/blobs/") || request.is_for("/it.sif") {
                fs::write(&planted, "mine").unwrap();
            }
            if request.is_for("/it.sif") { Answer::new(200, "x/y", sif.clone()) } else { held.answer(request) }
        });
        let uri = match scheme {
            "docker" => format!("docker://{}/org/x:1", fake.host()),
            _ => format!("http://{}/it.sif", fake.host()),
        };
        let done = place.pull("singularity", &["pull", path, &uri]);
        assert_eq!(done.code, 255, "{scheme}: {}", done.stderr);
        assert_eq!(fs::read(place.path(path)).unwrap(), b"mine", "{scheme}");
        place.came(&place.pull("singularity", &["pull", "--force", path, &uri]), path);
    }
}

#[test]
fn twenty_pulls_of_one_name_leave_one_whole_file() {
    let place = Place::new();
    let sif = place.sif.clone();
    let fake = Fake::start(move |_| Answer::new(200, "x/y", sif.clone()));
    let url = format!("http://{}/x.sif", fake.host());
    let children: Vec<_> =
        (0..20).map(|_| place.command("singularity", &["pull", "--quiet", "--force", &url]).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(fs::read(place.path("x.sif")).unwrap() == place.sif);
    let left = fs::read_dir(place.place.path()).unwrap().count();
    assert_eq!(left, 4, "an archive, the SIF of it, the shim, and what came");
}

/// As many jobs of a workflow start at once: those that find the name free make the one file, whoever comes later is told
/// that it is there.
#[test]
fn twenty_pulls_from_a_registry_leave_one_whole_file_docker() {
    let place = Place::new();
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    let uri = format!("docker://{}/org/x:1", registry.host);
    let host = |words: &[&str]| {
        let done = run(program().current_dir(place.place.path()).args(words));
        assert_eq!(done.code, 0, "{}", done.stderr);
    };
    host(&["image.tar", "--to", "oci", "-o", &uri]);
    host(&["image.tar", "--to", "sif", "-o", &format!("oras://{}/org/x:1.sif", registry.host)]);
    let before = fs::read_dir(place.place.path()).unwrap().count();
    for uri in [uri.clone(), format!("oras://{}/org/x:1.sif", registry.host)] {
        let pull = || {
            let mut command = place.command("singularity", &["pull", "--name", "x.img", &uri]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..20).map(|_| pull()).collect();
        let mut made = 0;
        for child in children {
            let done = child.wait_with_output().unwrap();
            let said = String::from_utf8(done.stderr).unwrap();
            match done.status.code() {
                Some(0) => made += 1,
                Some(255) => assert!(said.contains("FATAL:   Image file already exists: \"x.img\""), "{said}"),
                other => panic!("{other:?}: {said}"),
            }
        }
        assert!(made > 0 && fs::read(place.path("x.img")).unwrap() == place.sif, "{uri}: {made} made it");
        fs::remove_file(place.path("x.img")).unwrap();
        assert_eq!(fs::read_dir(place.place.path()).unwrap().count(), before, "nothing is left beside it");
    }
}

#[test]
fn what_oras_pushed_comes_as_it_was_oracle() {
    let Some(oracles) = run::oracles() else { return };
    let place = Place::new();
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    let push = format!("oras push --plain-http {}/org/x:1 want.sif:{SIF}", registry.host);
    let done = run(oracles.run(Path::new(place.place.path())).args(["sh", "-euc", &push]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    place.came(&place.pull("apptainer", &["pull", &format!("oras://{}/org/x:1", registry.host)]), "x_1.sif");
}
