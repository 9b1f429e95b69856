//! `-o docker://…` and `-o oras://…`: what people type, what they read, and what others make of what was pushed.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::depot::Depot;
use crate::support::docker::DockerImage;
use crate::support::fake::{Answer, Body, Fake};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive, sha256};
use crate::support::registry::Registry;
use crate::support::run::{self, Run, program, run, scratch};

struct Place {
    place: tempfile::TempDir,
}

fn layers() -> Vec<Vec<u8>> {
    let of = |name: &str, text: &str| {
        let mut tar = Vec::new();
        layer::member(&mut tar, name, text.repeat(1000).as_bytes());
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    vec![of("a", "one"), of("b", "two")]
}

impl Place {
    fn new(squeeze: Squeeze) -> Self {
        let place = scratch();
        fs::write(place.path().join("image.tar"), docker_archive(&layers(), squeeze)).unwrap();
        fs::write(place.path().join("plain.tar"), docker_archive(&layers(), Squeeze::Not)).unwrap();
        Place { place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn convert(&self, words: &[&str]) -> Run {
        run(program().current_dir(self.place.path()).env("HOME", self.place.path()).args(words))
    }

    fn good(&self, words: &[&str]) -> Run {
        let done = self.convert(words);
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
        done
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

fn depot() -> (Fake, Depot) {
    let depot = Depot::default();
    let held = depot.clone();
    (Fake::start(move |request| held.answer(request)), depot)
}

#[test]
fn an_image_and_a_sif_are_pushed_and_their_digests_told() {
    let place = Place::new(Squeeze::Gzip);
    let (fake, depot) = depot();
    let image = format!("docker://{}/org/app:1", fake.host());
    for (to, kind) in [
        ("oci", "application/vnd.oci.image.manifest.v1+json"),
        ("docker-archive", "application/vnd.docker.distribution.manifest.v2+json"),
    ] {
        let done = place.good(&["image.tar", "--to", to, "-o", &image, "--report", "report.json"]);
        let bytes = depot.manifest("org/app", "1").unwrap();
        let digest = format!("sha256:{}", sha256(&bytes));
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["mediaType"], kind);
        let output = &place.report()["output"];
        assert_eq!((&output["path"], &output["manifest_digest"]), (&Value::from(&*image), &Value::from(&*digest)));
        let line = done.stderr.lines().find(|line| line.starts_with("pushed ")).expect(&done.stderr);
        assert!(line.starts_with(&format!("pushed {image}@{digest}: ")), "{line}");
    }
    let sif = format!("oras://{}/org/app:1.sif", fake.host());
    place.good(&["image.tar", "--to", "sif", "-o", &sif, "--report", "report.json"]);
    place.good(&["image.tar", "--to", "sif", "-o", "here.sif"]);
    let hex = sha256(&fs::read(place.path("here.sif")).unwrap());
    assert_eq!(place.report()["output"]["sha256"], hex);
    assert!(depot.blob("org/app", &format!("sha256:{hex}")).is_some());
    let manifest: Value = serde_json::from_slice(&depot.manifest("org/app", "1.sif").unwrap()).unwrap();
    assert_eq!(manifest["layers"][0]["annotations"]["org.opencontainers.image.title"], "app_1.sif.sif");
    place.good(&["pull", "pulled.sif", &sif]);
    assert!(fs::read(place.path("pulled.sif")).unwrap() == fs::read(place.path("here.sif")).unwrap());
}

#[test]
fn what_cannot_be_pushed_is_refused_before_anything_is_sent() {
    let place = Place::new(Squeeze::Not);
    let (fake, depot) = depot();
    let host = fake.host();
    let (image, sif) = (format!("docker://{host}/x:1"), format!("oras://{host}/x:1"));
    let pinned = format!("docker://{host}/x@sha256:{}", "0".repeat(64));
    for (words, said) in [
        (&["--to", "sif", "-o", &image][..], "sif output is pushed to oras://"),
        (&["--to", "oci", "-o", &sif], "oci output is pushed to docker://"),
        (&["--to", "rootfs", "-o", &image], "rootfs output cannot be pushed"),
        (&["--to", "oci-archive", "-o", &image], "oci-archive output cannot be pushed"),
        (&["--to", "oci", "-o", &image, "--mode", "600"], "has no mode"),
        (&["--to", "oci", "-o", &image, "--tag", "y:1"], "a name has no effect"),
        (&["--to", "oci", "-o", &image, "--if-exists", "reuse"], "cannot be reused"),
        (&["--to", "sif", "-o", &sif, "--if-exists", "update"], "cannot be reused"),
        (&["--to", "oci", "-o", &image, "--cache", "c"], "option --cache has no effect"),
        (&["--to", "oci", "-o", &pinned], "its digest follows"),
        (&["--to", "oci", "-o", "docker://"], "is not an image reference"),
    ] {
        let done = place.convert(&[&["image.tar"], words].concat());
        assert!(done.code == 2 && done.stderr.contains(said), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    }
    assert_eq!(fake.log().len(), 0);
    // A tag is replaced, as `docker push` does, unless it must not exist.
    place.good(&["image.tar", "--to", "oci", "-o", &image]);
    let first = depot.manifest("x", "1").unwrap();
    let words = ["image.tar", "--to", "oci", "--flatten", "-o", &image, "--if-exists", "fail"];
    let done = place.convert(&words);
    assert!(done.code == 8 && done.stderr.contains("exists already"), "{}", done.stderr);
    assert_eq!(depot.manifest("x", "1").unwrap(), first);
    place.good(&words[..6]);
    assert_ne!(depot.manifest("x", "1").unwrap(), first);
    // A source that is not the expected one leaves nothing under the name.
    let name = format!("docker://{host}/y:1");
    let done = place.convert(&["image.tar", "--to", "oci", "-o", &name, "--expect-sha256", &"0".repeat(64)]);
    assert_eq!((done.code, depot.manifest("y", "1")), (5, None), "{}", done.stderr);
}

/// Pushed byte for byte, signature included. A SIF that was converted and pushed at once has the same manifest as its file.
#[test]
fn a_sif_that_is_there_is_pushed_as_it_is() {
    let place = Place::new(Squeeze::Gzip);
    let (fake, depot) = depot();
    let place_of = |name: &str| format!("oras://{}/org/app:{name}", fake.host());
    let key = format!("{}/fixtures/keys/ed25519.pem", env!("CARGO_MANIFEST_DIR"));
    place.good(&["image.tar", "--to", "sif", "-o", "here.sif", "--sign-key", &key]);
    let done = place.good(&["push", "here.sif", &place_of("1"), "--report", "report.json"]);
    let sif = fs::read(place.path("here.sif")).unwrap();
    let hex = sha256(&sif);
    assert!(depot.blob("org/app", &format!("sha256:{hex}")).unwrap() == sif);
    let digest = format!("sha256:{}", sha256(&depot.manifest("org/app", "1").unwrap()));
    let report = place.report();
    let output = &report["output"];
    assert_eq!((&output["sha256"], &output["manifest_digest"]), (&Value::from(hex), &Value::from(&*digest)));
    assert_eq!((&output["size"], &report["status"]), (&Value::from(sif.len()), &Value::from("ok")));
    assert!(output["image_id"].as_str().unwrap().starts_with("sha256:"), "{output}");
    assert!(done.stderr.contains(&format!("pushed {}@{digest}: ", place_of("1"))), "{}", done.stderr);
    let sent = fake.log().iter().filter(|request| request.method == "PATCH").count();
    place.good(&["push", "here.sif", &place_of("1"), "-U"]);
    assert_eq!(fake.log().iter().filter(|request| request.method == "PATCH").count(), sent, "it is there");
    place.good(&["pull", "pulled.sif", &place_of("1")]);
    assert!(fs::read(place.path("pulled.sif")).unwrap() == sif);
    place.good(&[
        "verify",
        "pulled.sif",
        "--key",
        &format!("{}/fixtures/keys/ed25519.pub", env!("CARGO_MANIFEST_DIR")),
    ]);
    // Without a signature it is what a conversion pushes.
    place.good(&["image.tar", "--to", "sif", "-o", "unsigned.sif"]);
    place.good(&["image.tar", "--to", "sif", "-o", &place_of("same")]);
    let converted = depot.manifest("org/app", "same").unwrap();
    place.good(&["push", "unsigned.sif", &place_of("same")]);
    assert_eq!(depot.manifest("org/app", "same").unwrap(), converted);
}

#[test]
fn what_is_no_whole_sif_is_not_pushed() {
    let place = Place::new(Squeeze::Gzip);
    let (fake, depot) = depot();
    let sif = format!("oras://{}/x:1", fake.host());
    place.good(&["image.tar", "--to", "sif", "-o", "here.sif"]);
    let whole = fs::read(place.path("here.sif")).unwrap();
    let image = format!("docker://{}/x:1", fake.host());
    let pinned = format!("oras://{}/x@sha256:{}", fake.host(), "0".repeat(64));
    for (words, code, said) in [
        (&["image.tar", &sif][..], 2, "\"image.tar\": this is not a SIF"),
        (&["none.sif", &sif], 3, "\"none.sif\""),
        (&[".", &sif], 3, "\".\": this is a directory, not a file"),
        (&["here.sif", &image], 2, "is a place for images"),
        (&["here.sif", "x:1"], 2, "\"x:1\" is not a place on a registry"),
        (&["here.sif", &pinned], 2, "its digest follows"),
        (&["here.sif", &sif, "--cache", "c"], 2, "option --cache has no effect"),
        (&["here.sif", &sif, "--authfile", "nothere"], 2, "there is no file \"nothere\""),
        (&["here.sif", &sif, "--report", "here.sif"], 8, "and not a report"),
        (&["here.sif", "library://a/b/c"], 4, "by apptainer or singularity itself"),
    ] {
        let mut command = program();
        command.current_dir(place.place.path()).env("HOME", place.place.path()).env("PATH", "");
        let done = run(command.arg("push").args(words));
        assert!(done.code == code && done.stderr.contains(said), "{words:?}: {} {}", done.code, done.stderr);
        assert!(done.stderr.contains("hint: "), "{}", done.stderr);
    }
    let pipe = place.path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let done = place.convert(&["push", "pipe", &sif]);
    assert!(done.code == 3 && done.stderr.contains("this is a pipe"), "{}", done.stderr);
    assert_eq!(fake.log().len(), 0);
    // What a flipped bit has damaged, and a tag that is there stays what it was.
    place.good(&["push", "here.sif", &sif]);
    let before = depot.manifest("x", "1").unwrap();
    let mut damaged = whole.clone();
    let middle = damaged.len() - 2000;
    damaged[middle] ^= 1;
    fs::write(place.path("damaged.sif"), &damaged).unwrap();
    let done = place.convert(&["push", "damaged.sif", &sif]);
    assert!(done.code == 5 && done.stderr.contains("verifying \"damaged.sif\""), "{}", done.stderr);
    assert_eq!(depot.manifest("x", "1").unwrap(), before);
    assert!(depot.blob("x", &format!("sha256:{}", sha256(&damaged))).is_none());
}

/// From a registry by tag and digest, and from a web server: the same as from the file, over connections that break.
#[test]
fn a_hosted_sif_is_a_source() {
    let place = Place::new(Squeeze::Gzip);
    place.good(&["image.tar", "--to", "sif", "-o", "here.sif"]);
    place.good(&["here.sif", "--to", "rootfs", "-o", "here.tar"]);
    let sif = fs::read(place.path("here.sif")).unwrap();
    let (served, depot) = (sif.clone(), Depot::default());
    let held = depot.clone();
    let fake = Fake::start(move |request| {
        let bytes = match request.path.as_str() {
            "/x.sif" => served.clone(),
            path if path.contains("/blobs/") && request.method == "GET" => served.clone(),
            _ => return held.answer(request),
        };
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let start: usize = range.map_or(0, |start| start.parse().unwrap());
        let shown = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        let answer = Answer::new(if start > 0 { 206 } else { 200 }, "a/b", &bytes[start..]);
        let answer = answer.with("ETag", "\"1\"").with("Content-Range", &shown);
        answer.spoilt(|rest| if rest.len() > 9000 { Body::Cut(rest, 9000) } else { Body::Whole(rest) })
    });
    let host = fake.host();
    let tagged = format!("oras://{host}/org/app:1");
    place.good(&["image.tar", "--to", "sif", "-o", &tagged, "--report", "report.json"]);
    let digest = place.report()["output"]["manifest_digest"].as_str().unwrap().to_string();
    let hex = sha256(&sif);
    for source in [&tagged, &format!("oras://{host}/org/app@{digest}"), &format!("http://{host}/x.sif")] {
        let words = [source, "--to", "rootfs", "--force", "-o", "there.tar", "--expect-sha256", &hex];
        place.good(&[&words[..], &["--report", "report.json", "--retries", "9"]].concat());
        assert!(fs::read(place.path("there.tar")).unwrap() == fs::read(place.path("here.tar")).unwrap(), "{source}");
        let source_record = &place.report()["source"];
        assert_eq!(
            (&source_record["kind"], &source_record["sha256"]),
            (&"sif".into(), &hex.clone().into()),
            "{source}"
        );
        let wrong = "0".repeat(64);
        let done = place.convert(&[source, "--to", "oci", "-o", "none", "--expect-sha256", &wrong]);
        assert_eq!((done.code, place.path("none").exists()), (5, false), "{}", done.stderr);
    }
    place.good(&["inspect", &tagged]);
    let done = place.convert(&[&tagged, "--to", "rootfs", "--cache", "c"]);
    assert!(done.code == 2 && done.stderr.contains("option --cache has no effect"), "{}", done.stderr);
    let done = place.convert(&[&format!("oras://{host}/org/app:2"), "--to", "rootfs"]);
    assert_eq!(done.code, 3, "{}", done.stderr);
    place.good(&["image.tar", "--to", "oci", "-o", &format!("docker://{host}/org/app:image")]);
    let done = place.convert(&[&format!("oras://{host}/org/app:image"), "--to", "rootfs"]);
    assert!(done.code == 4 && done.stderr.contains("docker://"), "{}", done.stderr);
    assert!(depot.manifest("org/app", "1").is_some());
}

#[test]
fn registries_conf_keeps_from_pushing_and_mirrors_are_not_written_to() {
    let place = Place::new(Squeeze::Not);
    let (fake, _) = depot();
    let (mirror, _) = depot();
    let conf = |text: &str| fs::write(place.path("registries.conf"), text).unwrap();
    let push = |name: &str| {
        let mut command = program();
        command.current_dir(place.place.path()).env("CONTAINERS_REGISTRIES_CONF", place.path("registries.conf"));
        run(command.args(["image.tar", "--to", "oci", "-o", &format!("docker://{name}/x:1")]))
    };
    let host = fake.host();
    conf(&format!("[[registry]]\nlocation = \"{host}\"\n[[registry.mirror]]\nlocation = \"{}\"\n", mirror.host()));
    let done = push(&host);
    assert_eq!((done.code, mirror.log().len()), (0, 0), "{}", done.stderr);
    conf(&format!("[[registry]]\nlocation = \"{host}\"\nblocked = true\n"));
    let before = fake.log().len();
    let done = push(&host);
    assert!(done.code == 6 && done.stderr.contains("is blocked by"), "{}", done.stderr);
    assert_eq!(fake.log().len(), before);
}

#[test]
fn others_take_what_is_pushed_oracle() {
    let Some(oracles) = run::oracles() else { return };
    let place = Place::new(Squeeze::Gzip);
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    let host = &registry.host;
    let shell = |script: &str| {
        let done = run(oracles.run(Path::new(place.place.path())).args(["sh", "-euc", script]));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    // What skopeo and crane pushed keeps its digest on its way through us.
    shell(&format!(
        "skopeo copy -q --insecure-policy --dest-tls-verify=false --format v2s2 docker-archive:plain.tar docker://{host}/from:v2s2
         skopeo copy -q --insecure-policy --dest-tls-verify=false --format oci --dest-compress-format zstd \
            docker-archive:plain.tar docker://{host}/from:oci
         crane push --insecure plain.tar {host}/from:crane >/dev/null"
    ));
    for (tag, to) in [("v2s2", "docker-archive"), ("oci", "oci"), ("crane", "docker-archive")] {
        let (from, copy) = (format!("docker://{host}/from:{tag}"), format!("docker://{host}/copy:{tag}"));
        place.good(&[&from, "--to", to, "-o", &copy]);
        let digests =
            shell(&format!("crane digest --insecure {host}/from:{tag}; crane digest --insecure {host}/copy:{tag}"));
        let mut lines = digests.lines();
        assert_eq!(lines.next().unwrap(), lines.next().unwrap(), "{tag}");
    }
    for (to, tag) in [("oci", "o"), ("docker-archive", "d")] {
        let name = format!("{host}/ours:{tag}");
        place.good(&["image.tar", "--to", to, "-o", &format!("docker://{name}")]);
        shell(&format!(
            "skopeo inspect --tls-verify=false docker://{name}; crane validate --insecure --remote {name}
             skopeo copy -q --insecure-policy --src-tls-verify=false docker://{name} oci:{tag}"
        ));
    }
    place.good(&["image.tar", "--to", "sif", "-o", &format!("oras://{host}/ours:1.sif")]);
    place.good(&["image.tar", "--to", "sif", "-o", "here.sif"]);
    place.good(&["push", "here.sif", &format!("oras://{host}/pushed:1"), "--no-https"]);
    let sums = shell(&format!(
        "apptainer pull --no-https pushed.sif oras://{host}/pushed:1 >&2
         apptainer push --no-https here.sif oras://{host}/theirs:1 >&2
         apptainer pull --no-https theirs.sif oras://{host}/theirs:1 >&2
         apptainer pull --no-https apptainer.sif oras://{host}/ours:1.sif >&2
         oras pull --plain-http {host}/ours:1.sif >&2
         sha256sum here.sif apptainer.sif ours_1.sif.sif pushed.sif theirs.sif | cut -d ' ' -f 1 | sort -u"
    ));
    assert_eq!(sums.lines().count(), 1, "{sums}");
}

#[test]
fn docker_pulls_what_is_pushed_docker() {
    let Some(image) = DockerImage::build("pushed") else { return };
    let place = scratch();
    let Some(registry) = Registry::start(place.path(), "", "") else { return };
    let id = image.docker(&["image", "inspect", "--format", "{{.Id}}", &image.name]);
    for (to, tag) in [("oci", "o"), ("docker-archive", "d")] {
        let name = format!("{}/pushed:{tag}", registry.host);
        let words = ["--to", to, "--compression", "gzip", "-o", &format!("docker://{name}")];
        let done = run(program().arg(image.archive()).args(words));
        assert_eq!(done.code, 0, "{}", done.stderr);
        image.docker(&["pull", "--quiet", &name]);
        assert_eq!(image.docker(&["image", "inspect", "--format", "{{.Id}}", &name]), id, "{to}");
        image.docker(&["rmi", &name]);
    }
}
