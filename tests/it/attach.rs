//! `convert attach`: SIFs beside the image they were made from; who looks for them finds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sif_convert::model::Platform;

use crate::support::depot::Depot;
use crate::support::fake::{Answer, Body, Fake, OCI_INDEX, OCI_MANIFEST, Request};
use crate::support::layer;
use crate::support::pack::{self, Squeeze, docker_archive_of, sha256};
use crate::support::registry::Registry;
use crate::support::run::{self, Run, program, run, scratch};

const SIF: &str = "application/vnd.sylabs.sif.layer.v1.sif";

fn layers() -> Vec<Vec<u8>> {
    let mut tar = Vec::new();
    layer::member(&mut tar, "etc/motd", "hello ".repeat(1000).as_bytes());
    tar.resize(tar.len() + 1024, 0);
    vec![tar]
}

/// A directory with an archive for each of two platforms, and the SIF of each.
pub struct Place {
    pub place: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Place { place: scratch() };
        for architecture in ["amd64", "arm64"] {
            let mut config = pack::config(&layers());
            config["architecture"] = json!(architecture);
            let name = format!("{architecture}.tar");
            fs::write(place.path(&name), docker_archive_of(&config, &layers(), Squeeze::Not)).unwrap();
            place.good(&[&name, "--to", "sif", "-o", &format!("{architecture}.sif")]);
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.place.path()).env("HOME", self.place.path()).args(words);
        command
    }

    pub fn good(&self, words: &[&str]) -> Run {
        let done = run(&mut self.command(words));
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
        done
    }

    pub fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }

    /// Pushes both, and an index of them, as `:1`; the digests of the manifests of the images.
    pub fn host(&self, host: &str) -> Vec<String> {
        let mut entries = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let name = format!("docker://{host}/org/app:{architecture}");
            self.good(&[&format!("{architecture}.tar"), "--to", "oci", "-o", &name, "--report", "report.json"]);
            let output = &self.report()["output"];
            let bytes = fetch(host, &format!("manifests/{architecture}"));
            entries.push(json!({ "mediaType": OCI_MANIFEST, "digest": output["manifest_digest"], "size": bytes.len(),
                "platform": { "os": "linux", "architecture": architecture } }));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string();
        put(host, "manifests/1", OCI_INDEX, index.as_bytes());
        entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_string()).collect()
    }

    pub fn sif(&self, architecture: &str) -> Vec<u8> {
        fs::read(self.path(&format!("{architecture}.sif"))).unwrap()
    }
}

/// A request of a test's own, in plain HTTP.
fn exchange(host: &str, head: &str, body: &[u8]) -> Vec<u8> {
    use std::io::{Read, Write};
    let mut connection = std::net::TcpStream::connect(host).unwrap();
    write!(connection, "{head}\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())
        .unwrap();
    connection.write_all(body).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 20"), "{head}: {}", answer[..end].escape_ascii());
    answer.split_off(end)
}

pub fn fetch(host: &str, path: &str) -> Vec<u8> {
    let accept = format!("{OCI_INDEX}, {OCI_MANIFEST}");
    exchange(host, &format!("GET /v2/org/app/{path} HTTP/1.1\r\nAccept: {accept}"), b"")
}

pub fn put(host: &str, path: &str, kind: &str, bytes: &[u8]) {
    exchange(host, &format!("PUT /v2/org/app/{path} HTTP/1.1\r\nContent-Type: {kind}"), bytes);
}

fn host_architecture() -> String {
    Platform::host().architecture
}

pub fn writes(log: &[Request]) -> Vec<String> {
    let is_write = |request: &&Request| request.method != "GET" && request.method != "HEAD";
    log.iter().filter(is_write).map(|request| format!("{} {}", request.method, request.path)).collect()
}

/// Attaches to `host`, and looks at what became of it in every way.
fn attached_once(place: &Place, host: &str, log: &dyn Fn() -> Vec<Request>) {
    let images = place.host(host);
    let uri = format!("docker://{host}/org/app:1");
    let before = fetch(host, "manifests/1");
    place.good(&["attach", &uri, "--report", "report.json"]);
    let report = place.report();
    let attached = report["attached"].as_array().unwrap();
    assert_eq!(attached.len(), 2);
    let index = fetch(host, "manifests/1.sif");
    assert_eq!(report["output"]["manifest_digest"], format!("sha256:{}", sha256(&index)));
    let listed: Value = serde_json::from_slice(&index).unwrap();
    for (at, architecture) in ["amd64", "arm64"].iter().enumerate() {
        let hex = sha256(&place.sif(architecture));
        assert_eq!(attached[at]["sha256"], hex, "{architecture}");
        assert_eq!(
            (&attached[at]["is_new"], &attached[at]["image_manifest_digest"]),
            (&json!(true), &json!(images[at]))
        );
        let entry = &listed["manifests"][at];
        assert_eq!(entry["platform"], json!({ "os": "linux", "architecture": architecture }));
        assert_eq!((&entry["digest"], &entry["artifactType"]), (&attached[at]["manifest_digest"], &json!(SIF)));
        let bytes = fetch(host, &format!("manifests/{}", entry["digest"].as_str().unwrap()));
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&manifest["subject"]["digest"], &manifest["artifactType"]), (&json!(images[at]), &json!(SIF)));
        assert_eq!(manifest["annotations"]["org.sif-convert.image"], attached[at]["image_id"]);
        assert_eq!(manifest["layers"][0]["digest"], format!("sha256:{hex}"));
        assert!(!String::from_utf8(bytes).unwrap().contains("created"), "no time");
    }
    // Twice changes nothing, and sends nothing.
    let sent = writes(&log()).len();
    let done = place.good(&["attach", &uri, "--report", "report.json"]);
    assert_eq!(writes(&log())[sent..], [] as [String; 0]);
    assert!(done.stderr.contains("already attached: linux/amd64"), "{}", done.stderr);
    assert!(place.report()["attached"].as_array().unwrap().iter().all(|it| it["is_new"] == false));
    assert_eq!(fetch(host, "manifests/1.sif"), index);
    assert_eq!(fetch(host, "manifests/1"), before, "the image itself is what it was");
    // Other options make another SIF, which is attached beside the first.
    place.good(&["attach", &uri, "--platform", "linux/amd64", "--workdir", "--sif-tag", "1.workdir.sif"]);
    let other: Value = serde_json::from_slice(&fetch(host, "manifests/1.workdir.sif")).unwrap();
    assert_eq!(other["manifests"].as_array().unwrap().len(), 1);
    assert_ne!(other["manifests"][0]["digest"], attached[0]["manifest_digest"]);
    // It does not take the tag of the first unasked, not even for another platform.
    let sent = writes(&log()).len();
    for more in [&[][..], &["--platform", "linux/amd64"], &["--platform", "linux/arm64"]] {
        let done = run(&mut place.command(&[&["attach", &uri, "--workdir"], more].concat()));
        let said = "tag 1.sif of org/app exists and lists a SIF that was made with other options";
        assert!(done.code == 8 && done.stderr.contains(said), "{}: {}", done.code, done.stderr);
        assert!(done.stderr.contains("--sif-tag") && done.stderr.contains("--force"), "{}", done.stderr);
    }
    assert_eq!((&writes(&log())[sent..], fetch(host, "manifests/1.sif")), (&[] as &[String], index.clone()));
    place.good(&["attach", &uri, "--workdir", "--platform", "linux/amd64", "--force"]);
    assert_eq!(fetch(host, "manifests/1.sif"), fetch(host, "manifests/1.workdir.sif"));
    place.good(&["attach", &uri, "--force"]);
    assert_eq!(fetch(host, "manifests/1.sif"), index);
    // The image's own tag is not to be had by force, and a summary counts what the index lists.
    for force in [&[][..], &["--force"]] {
        let done = run(&mut place.command(&[&["attach", &uri, "--sif-tag", "1"], force].concat()));
        assert!(done.code == 2 && done.stderr.contains("the image's own"), "{}: {}", done.code, done.stderr);
    }
    let again = ["--platform", "linux/amd64", "--platform", "linux/amd64"];
    let done = place.good(&[&["attach", &uri], &again[..]].concat());
    assert!(
        done.stderr.contains("already lists 2 SIFs") && done.stderr.matches("linux/amd64").count() == 1,
        "{}",
        done.stderr
    );

    // Who pulls gets it without a conversion, and the same bytes.
    let here = host_architecture();
    let gets = || log().iter().filter(|request| request.method == "GET" && request.is_for("/blobs/")).count();
    let before = gets();
    place.good(&["pull", "--attached", "pulled.sif", &uri]);
    if !log().is_empty() {
        assert_eq!(gets() - before, 2, "the config, and the SIF");
    }
    assert!(fs::read(place.path("pulled.sif")).unwrap() == place.sif(&here));
    let done = place.good(&["pull", "--attached=verify", "verified.sif", &uri, "--arch", "arm64"]);
    assert!(done.stderr.contains("is what a conversion gives"), "{}", done.stderr);
    assert!(fs::read(place.path("verified.sif")).unwrap() == place.sif("arm64"));
    place.good(&["pull", &format!("oras://{host}/org/app:1.sif")]);
    assert!(fs::read(place.path("app_1.sif.sif")).unwrap() == place.sif(&here));

    let page = String::from_utf8(place.good(&["inspect", &uri]).stdout).unwrap();
    assert!(page.matches("attached").count() >= 3, "{page}");
    let page: Value = serde_json::from_slice(&place.good(&["inspect", "--json", &uri]).stdout).unwrap();
    let shown = &page["images"][1]["attached"][0];
    assert_eq!((&shown["manifest_digest"], &shown["artifact_type"]), (&attached[1]["manifest_digest"], &json!(SIF)));
    assert_eq!(shown["sif"]["sha256"], sha256(&place.sif("arm64")));
}

#[test]
fn sifs_are_attached_where_the_registry_lists_referrers() {
    let place = Place::new();
    let depot = Depot { has_referrers: true, ..Depot::default() };
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    attached_once(&place, &fake.host(), &|| fake.log());
}

#[test]
fn sifs_are_attached_where_it_does_not() {
    let place = Place::new();
    let depot = Depot::default();
    let fake = Fake::start(move |request| depot.answer(request));
    attached_once(&place, &fake.host(), &|| fake.log());
}

#[test]
fn sifs_are_attached_on_dockers_registry_docker() {
    let place = Place::new();
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    attached_once(&place, &registry.host, &Vec::new);
}

/// What refers to an index is shown with it; of an index of many images, one is asked for what refers to it.
#[test]
fn what_refers_to_an_index_is_listed_with_few_requests() {
    let place = Place::new();
    let depot = Depot { has_referrers: true, ..Depot::default() };
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let host = fake.host();
    let images = place.host(&host);
    let uri = format!("docker://{host}/org/app:1");
    let refer = |subject: &str, number: usize| {
        depot.put_blob("org/app", b"{}");
        let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "size": 2,
            "digest": format!("sha256:{}", sha256(b"{}")) });
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": empty, "layers": [empty],
            "artifactType": "application/vnd.example.note", "annotations": { "number": number.to_string() },
            "subject": { "mediaType": OCI_INDEX, "digest": subject, "size": 1 } })
        .to_string();
        let digest = format!("sha256:{}", sha256(manifest.as_bytes()));
        put(&host, &format!("manifests/{digest}"), OCI_MANIFEST, manifest.as_bytes());
        digest
    };
    let index = format!("sha256:{}", sha256(&fetch(&host, "manifests/1")));
    let (of_index, of_image) = (refer(&index, 0), refer(&images[1], 1));
    let inspect = |words: &[&str]| {
        let before = fake.log().len();
        let page = String::from_utf8(place.good(&[&["inspect"], words].concat()).stdout).unwrap();
        let log = fake.log();
        let asked = log[before..].iter().filter(|request| request.is_for("/referrers/")).count();
        (page, asked, log.len() - before)
    };
    let (page, asked, _) = inspect(&[&uri]);
    assert!(page.contains(&format!("to the index   {of_index} (application/vnd.example.note)")), "{page}");
    assert!(page.contains(&format!("attached     {of_image} (application/vnd.example.note)")), "{page}");
    assert_eq!(asked, 3);
    let (page, asked, _) = inspect(&["--json", "--platform", "linux/arm64", &uri]);
    let page: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["index_attached"][0]["manifest_digest"], of_index);
    assert_eq!((&page["images"][0]["attached"][0]["manifest_digest"], asked), (&json!(of_image), 2));
    // Of many images, all but the one for this machine are not asked for; of many referrers, most are shown as they are listed.
    let list: Value = serde_json::from_slice(&fetch(&host, "manifests/1")).unwrap();
    let mut entries = list["manifests"].as_array().unwrap().clone();
    for number in 0..10 {
        let mut entry = entries[0].clone();
        entry["digest"] = json!(format!("sha256:{number:064}"));
        entry["platform"] = json!({ "os": "linux", "architecture": "arm", "variant": format!("v{number}") });
        entries.push(entry);
    }
    let many = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string();
    put(&host, "manifests/many", OCI_INDEX, many.as_bytes());
    let index = format!("sha256:{}", sha256(many.as_bytes()));
    for number in 0..100 {
        refer(&index, number);
    }
    let uri = format!("docker://{host}/org/app:many");
    let (page, asked, requests) = inspect(&[&uri]);
    assert!(page.contains("not asked for 11 of the images; --platform chooses one"), "{page}");
    assert_eq!((page.matches("to the index").count(), asked), (100, 2), "{page}");
    assert!(requests < 80, "{requests} requests");
    let page: Value = serde_json::from_str(&inspect(&["--json", &uri]).0).unwrap();
    let known = page["images"].as_array().unwrap().iter().filter(|image| image["attached"].is_array()).count();
    assert_eq!((known, page["index_attached"].as_array().unwrap().len()), (1, 100));
    assert_eq!(page["index_attached"][99]["artifact_type"], "application/vnd.example.note");
}

/// Two machines, each for its own platform, at the same time: the index lists both.
#[test]
fn two_that_attach_at_once_lose_nothing() {
    let place = Place::new();
    let depot = Depot::default();
    let fake = Fake::start(move |request| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        depot.answer(request)
    });
    place.host(&fake.host());
    let uri = format!("docker://{}/org/app:1", fake.host());
    let start = |platform: &str| place.command(&["attach", "--quiet", "--platform", platform, &uri]).spawn().unwrap();
    for mut child in [start("linux/amd64"), start("linux/arm64")] {
        assert!(child.wait().unwrap().success());
    }
    let index: Value = serde_json::from_slice(&fetch(&fake.host(), "manifests/1.sif")).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

/// Connections break after 1 MiB in either direction, and every fifth request fails.
#[test]
fn a_registry_with_faults_gets_and_gives_whole_sifs() {
    const CUT: usize = 1 << 20;
    let place = Place { place: scratch() };
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|number| Sha256::digest(number.to_le_bytes())).collect();
    let mut tar = Vec::new();
    layer::member(&mut tar, "noise", &noise);
    tar.resize(tar.len() + 1024, 0);
    let layers = [tar];
    let mut config = pack::config(&layers);
    config["architecture"] = json!(host_architecture());
    fs::write(place.path("image.tar"), docker_archive_of(&config, &layers, Squeeze::Not)).unwrap();
    place.good(&["image.tar", "--to", "sif", "-o", "here.sif"]);
    let (depot, count) = (Depot::default(), AtomicUsize::new(0));
    let held = depot.clone();
    let fake = Fake::start_cutting(CUT, move |request| {
        if !request.is_cut && count.fetch_add(1, Ordering::Relaxed) % 5 == 4 {
            return Answer::new(503, "text/plain", "").with("Retry-After", "0");
        }
        let answer = held.answer(request);
        if request.method != "GET" || !request.is_for("/blobs/sha256:") {
            return answer;
        }
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let start: usize = range.map_or(0, |start| start.parse().unwrap());
        let Body::Whole(bytes) = answer.body else { panic!("cut twice") };
        let shown = format!("bytes {start}-{}/{}", bytes.len().saturating_sub(1), bytes.len());
        let answer = Answer::new(if start > 0 { 206 } else { 200 }, "a/b", &bytes[start..]);
        let answer = answer.with("Content-Range", &shown);
        answer.spoilt(|rest| if rest.len() > CUT { Body::Cut(rest, CUT) } else { Body::Whole(rest) })
    });
    let uri = format!("docker://{}/org/app:1", fake.host());
    place.good(&["image.tar", "--to", "oci", "-o", &uri]);
    place.good(&["attach", &uri]);
    place.good(&["pull", "--attached", "there.sif", &uri]);
    assert!(fs::read(place.path("there.sif")).unwrap() == fs::read(place.path("here.sif")).unwrap());
    let requests = fake.log();
    assert!(requests.iter().any(|request| request.is_cut) && requests.iter().any(|it| it.header("range").is_some()));
}

#[test]
fn what_is_not_what_it_says_is_not_used() {
    let place = Place::new();
    let depot = Depot::default();
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let host = fake.host();
    let uri = format!("docker://{host}/org/app:1");
    let digests = place.host(&host);
    // Nothing is attached: it is converted, and that is said.
    let done = place.good(&["pull", "--attached", "x.sif", &uri, "--arch", "amd64"]);
    assert!(done.stderr.contains("no SIF is attached"), "{}", done.stderr);
    assert!(fs::read(place.path("x.sif")).unwrap() == place.sif("amd64"));
    let done = run(&mut place.command(&["pull", "no.sif", &uri, "--arch", "s390x"]));
    assert!(done.code == 255 && done.stderr.contains("hint: choose with --arch"), "{}", done.stderr);
    // Somebody attached another SIF than a conversion gives.
    let other = place.sif("arm64");
    let digest = format!("sha256:{}", sha256(&other));
    depot.put_blob("org/app", &other);
    depot.put_blob("org/app", b"{}");
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": SIF,
        "config": { "mediaType": "application/vnd.sylabs.sif.config.v1+json", "size": 2,
            "digest": format!("sha256:{}", sha256(b"{}")) },
        "layers": [{ "mediaType": SIF, "digest": digest, "size": other.len() }],
        "subject": { "mediaType": OCI_MANIFEST, "digest": digests[0], "size": fetch(&host, "manifests/amd64").len() },
        "annotations": { "org.sif-convert.format": sif_convert::model::OUTPUT_FORMAT.to_string() } })
    .to_string();
    let name = format!("sha256:{}", sha256(manifest.as_bytes()));
    put(&host, &format!("manifests/{name}"), OCI_MANIFEST, manifest.as_bytes());
    let list = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{ "mediaType": OCI_MANIFEST,
        "digest": name, "size": manifest.len(), "artifactType": SIF }] });
    let tag = digests[0].replace(':', "-");
    put(&host, &format!("manifests/{tag}"), OCI_INDEX, list.to_string().as_bytes());
    let done = run(&mut place.command(&["pull", "--attached=verify", "y.sif", &uri, "--arch", "amd64"]));
    assert_eq!(done.code, 255, "{}", done.stderr);
    assert!(done.stderr.contains("not what a conversion gives"), "{}", done.stderr);
    assert!(!place.path("y.sif").exists());
    // A signature can only be of the SIF that is made: it is this one that is listed then, and the other is told.
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/ed25519.pem");
    place.good(&["amd64.tar", "--to", "sif", "--sign-key", key, "--sign-detached", "owner.json"]);
    let words = ["attach", &uri, "--platform", "linux/amd64", "--signature", "owner.json", "--sif-tag", "good.sif"];
    let done = place.good(&[&words[..], &["--report", "report.json"]].concat());
    assert!(done.stderr.contains("say they are this one") && done.stderr.contains(&name), "{}", done.stderr);
    let report = place.report();
    let attached = &report["attached"][0];
    assert_eq!((&attached["is_new"], &attached["sha256"]), (&json!(true), &json!(sha256(&place.sif("amd64")))));
    let listed: Value = serde_json::from_slice(&fetch(&host, "manifests/good.sif")).unwrap();
    assert_eq!(listed["manifests"][0]["digest"], attached["manifest_digest"]);
    // Neither is a tag taken away that is something else.
    put(&host, "manifests/1.sif", OCI_MANIFEST, &fetch(&host, "manifests/amd64"));
    let done = run(&mut place.command(&["attach", &uri]));
    assert!(done.code == 8 && done.stderr.contains("is not an index of SIFs"), "{}", done.stderr);
    place.good(&["attach", &uri, "--force"]);
}

/// A registry may lose a file and keep what refers to it.
#[test]
fn a_sif_whose_file_is_gone_is_attached_again() {
    let place = Place::new();
    let depot = Depot { has_referrers: true, ..Depot::default() };
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let host = fake.host();
    let uri = format!("docker://{host}/org/app:1");
    place.host(&host);
    place.good(&["attach", &uri]);
    depot.lose_blob("org/app", &format!("sha256:{}", sha256(&place.sif("amd64"))));
    // Whoever pulls gets what the image gives.
    let done = place.good(&["pull", "--attached", "x.sif", &uri, "--arch", "amd64"]);
    assert!(done.stderr.contains("no SIF is attached"), "{}", done.stderr);
    let done = place.good(&["attach", &uri, "--report", "report.json"]);
    assert!(done.stderr.contains("already attached: linux/arm64"), "{}", done.stderr);
    assert_eq!(place.report()["attached"][0]["is_new"], true);
    place.good(&["pull", "y.sif", &format!("oras://{host}/org/app:1.sif"), "--no-https", "--arch", "amd64"]);
    assert!(fs::read(place.path("y.sif")).unwrap() == place.sif("amd64"));
}

/// The config of an image need not say what it runs on.
#[test]
fn an_image_without_an_architecture_gets_its_sif_all_the_same() {
    let place = Place { place: scratch() };
    let mut tar = Vec::new();
    layer::member(&mut tar, "bin/sh", &fs::read("/bin/true").unwrap());
    tar.resize(tar.len() + 1024, 0);
    let layers = [tar];
    let mut config = pack::config(&layers);
    config.as_object_mut().unwrap().remove("architecture");
    fs::write(place.path("image.tar"), docker_archive_of(&config, &layers, Squeeze::Gzip)).unwrap();
    let depot = Depot::default();
    let fake = Fake::start(move |request| depot.answer(request));
    let uri = format!("docker://{}/org/app:1", fake.host());
    place.good(&["image.tar", "--to", "oci", "-o", &uri]);
    let done = place.good(&["attach", &uri]);
    assert!(done.stderr.contains("attached: unknown"), "{}", done.stderr);
    let index: Value = serde_json::from_slice(&fetch(&fake.host(), "manifests/1.sif")).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{index}");
    assert!(index["manifests"][0]["platform"].is_null());
    place.good(&["pull", &format!("oras://{}/org/app:1.sif", fake.host())]);
    place.good(&["pull", "--attached", "x.sif", &uri]);
    assert!(fs::read(place.path("x.sif")).unwrap() == fs::read(place.path("app_1.sif.sif")).unwrap());
}

#[test]
fn wrong_use_is_told() {
    let place = Place::new();
    for (words, code, said) in [
        (&["attach", "x.tar"][..], 2, "attached to an image on a registry"),
        (&["attach", "docker://h.example/x:1", "--arch", "arm64"], 2, "option --arch has no effect"),
        (&["attach", "docker://h.example/x:1", "--sif-tag", "a b"], 2, "is not an image reference"),
        (&["attach", "docker://h.example/x:1", "--platform", "arm64"], 2, "is not a platform"),
        (&["pull", "--attached", "x.sif", "oras://h.example/x:1"], 255, "option --attached has no effect"),
    ] {
        let done = run(&mut place.command(words));
        assert!(done.code == code && done.stderr.contains(said), "{words:?}: {} {}", done.code, done.stderr);
    }
    let fake = Fake::start(|_| Answer::json(404, json!({ "errors": [{ "code": "MANIFEST_UNKNOWN" }] })));
    let done = run(&mut place.command(&["attach", &format!("docker://{}/x:1", fake.host())]));
    assert_eq!(done.code, 3, "{}", done.stderr);
}

#[test]
fn others_find_what_is_attached_oracle() {
    let Some(oracles) = run::oracles() else { return };
    let place = Place::new();
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    let host = &registry.host;
    let images = place.host(host);
    let shell = |script: &str| {
        let done = run(oracles.run(Path::new(place.place.path())).args(["sh", "-euc", script]));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    let name = format!("{host}/org/app");
    let digest = || shell(&format!("crane digest --insecure {name}:1"));
    let before = digest();
    place.good(&["attach", &format!("docker://{name}:1"), "--report", "report.json"]);
    assert_eq!(digest(), before);
    let report = place.report();
    for (at, architecture) in ["amd64", "arm64"].iter().enumerate() {
        let attached = &report["attached"][at];
        let (manifest, sha256) = (attached["manifest_digest"].as_str().unwrap(), attached["sha256"].as_str().unwrap());
        let found = shell(&format!(
            "oras discover --plain-http --format json --artifact-type {SIF} {name}@{} 2>/dev/null",
            images[at]
        ));
        assert!(found.contains(manifest), "{architecture}: {found}");
        // Apptainer takes no SIF for another machine.
        let is_here = *architecture == host_architecture();
        let pull = if is_here {
            format!("apptainer pull --no-https pinned.sif oras://{name}@{manifest} >&2")
        } else {
            String::new()
        };
        let sums = shell(&format!(
            "rm -rf out && mkdir out && cd out
             {pull}
             oras pull --plain-http {name}@{manifest} >&2
             oras pull --plain-http --platform linux/{architecture} -o indexed {name}:1.sif >&2
             find . -type f -exec sha256sum {{}} + | cut -d ' ' -f 1 | sort | uniq -c"
        ));
        let count = if is_here { "3" } else { "2" };
        assert_eq!(sums.split_whitespace().collect::<Vec<_>>(), [count, sha256], "{architecture}");
    }
    let here = host_architecture();
    let sum = shell(&format!(
        "apptainer pull --no-https tagged.sif oras://{name}:1.sif >&2; sha256sum tagged.sif | cut -d ' ' -f 1"
    ));
    assert_eq!(sum.trim(), sha256(&place.sif(&here)));
    shell(&format!("skopeo copy -q --insecure-policy --src-tls-verify=false docker://{name}:1 oci:copied"));
}
