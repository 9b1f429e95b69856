//! `--provenance`: what an output was made from, as a statement that others sign and check.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::archives::{Described, Members, buildx};
use crate::support::depot::Depot;
use crate::support::fake::Fake;
use crate::support::layer;
use crate::support::pack::{self, Squeeze, docker_archive_of, sha256};
use crate::support::place;
use crate::support::run::{self, exit_code, run};

fn layers() -> Vec<Vec<u8>> {
    let layer = |text: &str| {
        let mut tar = Vec::new();
        layer::member(&mut tar, "etc/motd", text.as_bytes());
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    vec![layer("below"), layer("above")]
}

/// A directory with an archive and a layout of the same image.
struct Place {
    place: place::Place,
    /// The image, its manifest and its index in the layout.
    digests: [String; 3],
}

impl Deref for Place {
    type Target = place::Place;

    fn deref(&self) -> &place::Place {
        &self.place
    }
}

impl Place {
    fn new() -> Self {
        let place = place::Place::new();
        let config = pack::config(&layers());
        fs::write(place.path("app.tar"), docker_archive_of(&config, &layers(), Squeeze::Not)).unwrap();
        let image = Described::new(layers()).with_config(&config).tagged("h.example/app:1");
        let members: Members = buildx(&[image], &|_, _| Vec::new());
        members.write_below(&place.path("layout"));
        let index = fs::read(place.path("layout/index.json")).unwrap();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let index = index["manifests"][0]["digest"].as_str().unwrap().to_string();
        let blob = |digest: &str| {
            let path = place.path("layout/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
            serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap()
        };
        let manifest = blob(&index)["manifests"][0]["digest"].as_str().unwrap().to_string();
        let image = blob(&manifest)["config"]["digest"].as_str().unwrap().to_string();
        Place { place, digests: [image, manifest, index] }
    }

    fn hex(&self, name: &str) -> String {
        sha256(&fs::read(self.path(name)).unwrap())
    }

    fn statement(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("p.json")).unwrap()).unwrap()
    }

    /// Names and digests of a list of the statement.
    fn named(list: &Value) -> Vec<(String, String)> {
        let text = |it: &Value| it.as_str().unwrap().to_string();
        let list = list.as_array().unwrap().iter();
        list.map(|it| (text(&it["name"]), text(&it["digest"]["sha256"]))).collect()
    }
}

fn is_statement(statement: &Value) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(statement), ["_type", "subject", "predicateType", "predicate"]);
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let predicate = &statement["predicate"];
    assert_eq!(keys(predicate), ["buildDefinition", "runDetails"]);
    // What SLSA v1 requires, and URIs where it wants URIs.
    let definition = &predicate["buildDefinition"];
    assert!(definition["buildType"].as_str().unwrap().starts_with("https://"));
    assert!(definition["externalParameters"].is_object() && definition["internalParameters"].is_object());
    assert!(predicate["runDetails"]["builder"]["id"].as_str().unwrap().starts_with("https://"));
    let version = &predicate["runDetails"]["builder"]["version"]["sif-convert"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    for descriptor in
        definition["resolvedDependencies"].as_array().unwrap().iter().chain(statement["subject"].as_array().unwrap())
    {
        let digest = descriptor["digest"].as_object().unwrap();
        assert!(digest.len() == 1 && digest["sha256"].as_str().unwrap().len() == 64, "{descriptor}");
        assert!(descriptor["uri"].as_str().is_none_or(|uri| uri.contains("://")), "{descriptor}");
    }
}

#[test]
fn it_names_the_output_and_all_that_it_was_made_from() {
    let place = Place::new();
    let plain = |digest: &String| digest.strip_prefix("sha256:").unwrap().to_string();
    let [image, manifest, index] = place.digests.each_ref().map(plain);
    let of_layers = layers();
    let of_layers = of_layers.iter().enumerate();
    let of_layers: Vec<(String, String)> =
        of_layers.map(|(at, tar)| (format!("layer {}, uncompressed", at + 1), sha256(tar))).collect();
    let dependencies = || Place::named(&place.statement()["predicate"]["buildDefinition"]["resolvedDependencies"]);

    let words = ["layout", "--to", "sif", "-o", "app.sif", "--compression", "zstd", "--provenance", "p.json"];
    place.good(&words);
    let statement = place.statement();
    is_statement(&statement);
    assert_eq!(Place::named(&statement["subject"]), [("app.sif".to_string(), place.hex("app.sif"))]);
    let parameters = &statement["predicate"]["buildDefinition"]["externalParameters"];
    assert_eq!(parameters["arguments"], json!(words));
    assert_eq!((&parameters["format"], &parameters["source"]), (&json!("sif"), &json!("layout")));
    let internal = &statement["predicate"]["buildDefinition"]["internalParameters"];
    assert_eq!(internal["outputFormat"], sif_convert::model::OUTPUT_FORMAT);
    let documents = [("image index", &index), ("image manifest", &manifest), ("image config", &image)];
    let documents = documents.map(|(name, hex)| (name.to_string(), hex.clone()));
    assert_eq!(dependencies(), [&documents[..], &of_layers].concat());
    let mode = fs::metadata(place.path("p.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666 & !umask());
    // No time: the same words give the same statement, also where the output is used again.
    let first = fs::read(place.path("p.json")).unwrap();
    fs::remove_file(place.path("app.sif")).unwrap();
    place.good(&words);
    assert_eq!(fs::read(place.path("p.json")).unwrap(), first);
    let digest = place.digests[0].clone();
    let reuse = [&words[..], &["--if-exists", "reuse", "--expect-digest", &digest]].concat();
    let done = place.good(&reuse);
    assert!(done.stderr.contains("reused \"app.sif\""), "{}", done.stderr);
    assert_eq!(Place::named(&place.statement()["subject"]), [("app.sif".to_string(), place.hex("app.sif"))]);
    assert_eq!(dependencies(), [&documents[..], &of_layers].concat());

    // An archive is a source with a hash of its own.
    place.good(&["app.tar", "--to", "rootfs", "-o", "root.tar", "--provenance", "p.json", "--report", "r.json"]);
    assert_eq!(Place::named(&place.statement()["subject"]), [("root.tar".to_string(), place.hex("root.tar"))]);
    let archive = [("source".to_string(), place.hex("app.tar")), documents[2].clone()];
    assert_eq!(dependencies(), [&archive[..], &of_layers].concat());
    // A layout is known by its manifest.
    let done = place.good(&["app.tar", "--to", "oci", "-o", "made", "--provenance", "-"]);
    let statement: Value = serde_json::from_slice(&done.stdout).unwrap();
    is_statement(&statement);
    let made: Value = serde_json::from_slice(&fs::read(place.path("made/index.json")).unwrap()).unwrap();
    let made = plain(&made["manifests"][0]["digest"].as_str().unwrap().to_string());
    assert_eq!(Place::named(&statement["subject"]), [("made".to_string(), made)]);

    // What is pushed is known by its manifest and, if it is a file, by that.
    let depot = Depot::default();
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let (docker, oras) =
        (format!("docker://{}/org/app:1", fake.host()), format!("oras://{}/org/app:1.sif", fake.host()));
    place.good(&["app.tar", "--to", "oci", "-o", &docker, "--provenance", "p.json"]);
    let pushed = sha256(&depot.manifest("org/app", "1").unwrap());
    assert_eq!(Place::named(&place.statement()["subject"]), [(docker.clone(), pushed.clone())]);
    place.good(&[&docker, "--to", "sif", "-o", &oras, "--provenance", "p.json"]);
    let statement = place.statement();
    is_statement(&statement);
    let sif = depot.manifest("org/app", "1.sif").unwrap();
    let file: Value = serde_json::from_slice(&sif).unwrap();
    let file = plain(&file["layers"][0]["digest"].as_str().unwrap().to_string());
    assert_eq!(Place::named(&statement["subject"]), [(oras.clone(), sha256(&sif)), (format!("{oras}.sif"), file)]);
    let from = &statement["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(*from, json!({ "name": "image manifest", "digest": { "sha256": pushed }, "uri": docker }));
    let pull = ["pull", "--provenance", "p.json", "--force", "x.sif", &docker];
    place.good(&pull);
    assert_eq!(Place::named(&place.statement()["subject"]), [("x.sif".to_string(), place.hex("x.sif"))]);
}

/// The umask of this process, which children inherit.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(umask.trim(), 8).unwrap()
}

#[test]
fn it_is_whole_or_absent_and_replaces_nothing_else() {
    let place = Place::new();
    let convert = |more: &[&str]| run(&mut place.command(&[&["app.tar", "--to", "sif", "-o", "x.sif"], more].concat()));
    let left = || fs::read_dir(place.path("")).unwrap().count();
    let before = left();
    // No output, no statement.
    let wrong = format!("sha256:{}", "0".repeat(64));
    let done = convert(&["--provenance", "p.json", "--expect-digest", &wrong]);
    assert_eq!(done.code, exit_code("Mismatch"), "{}", done.stderr);
    assert_eq!(left(), before);
    // One that is there stays with the output that it is about.
    assert_eq!(convert(&["--provenance", "p.json"]).code, 0);
    let (statement, sif) = (fs::read(place.path("p.json")).unwrap(), place.hex("x.sif"));
    assert_eq!(convert(&["--provenance", "p.json", "-f", "--expect-digest", &wrong]).code, exit_code("Mismatch"));
    assert!(fs::read(place.path("p.json")).unwrap() == statement && place.hex("x.sif") == sif);
    // Nothing else is replaced, and nothing is begun.
    fs::write(place.path("precious"), "{\n  \"schema_version\": 1}").unwrap();
    for (words, kind, said) in [
        (&["-f", "--provenance", "precious"][..], "Output", "this is a file, and not a provenance"),
        (&["-f", "--provenance", "none/p.json"], "Output", "its directory does not exist"),
        (&["-f", "--provenance", "x.sif"], "Usage", "go to the same place"),
        (&["-f", "--provenance", "r.json", "--report", "r.json"], "Usage", "go to the same place"),
    ] {
        let done = convert(words);
        assert_eq!(done.code, exit_code(kind), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{words:?}: {}", done.stderr);
        assert_eq!(place.hex("x.sif"), sif);
    }
    assert_eq!(fs::read(place.path("precious")).unwrap(), b"{\n  \"schema_version\": 1}");
    for (words, said) in [
        (&["app.tar", "--to", "rootfs", "-o", "-", "--provenance", "p.json"][..], "has no effect on a stream"),
        (&["app.tar", "--to", "dir", "-o", "d", "--provenance", "p.json"], "--provenance has no effect on dir"),
        (
            &["layout", "--to", "additional-files", "--provenance", "p.json"],
            "--provenance has no effect on additional-files",
        ),
    ] {
        let done = run(&mut place.command(words));
        assert!(done.code == 2 && done.stderr.contains(said), "{words:?}: {} {}", done.code, done.stderr);
    }
    let done = run(&mut place.command(&["pull", "--provenance", "q.json", "y.sif", "oras://h.example/x:1"]));
    assert!(done.code == 255 && done.stderr.contains("has no effect on a SIF that is downloaded"), "{}", done.stderr);
    // A statement that cannot be written is a failure, though the output is there.
    let done = convert(&["-f", "--provenance", "/dev/full"]);
    assert_eq!(done.code, exit_code("NoSpace"), "{}", done.stderr);
}

#[test]
fn cosign_signs_it_and_checks_it_oracle() {
    let Some(oracles) = run::oracles() else { return };
    let place = Place::new();
    for name in ["cosign.key", "cosign.pub"] {
        fs::copy(format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR")), place.path(name)).unwrap();
    }
    place.good(&["layout", "--to", "sif", "-o", "app.sif", "--provenance", "p.json"]);
    place.good(&["layout", "--to", "sif", "-o", "other.sif", "--compression", "zstd"]);
    let shell = |script: &str| {
        let script = format!("export COSIGN_PASSWORD=hunter2; {script}");
        let done = run(oracles.run(&place.path("")).args(["sh", "-euc", &script]));
        (done.code, done.stderr)
    };
    let attest = "cosign signing-config create >config.json; cosign attest-blob --key cosign.key --signing-config config.json \
                  --statement p.json --bundle bundle.json -y app.sif";
    let (code, said) = shell(attest);
    assert_eq!(code, 0, "{said}");
    let verify = |kind: &str, file: &str| {
        shell(&format!(
            "cosign verify-blob-attestation --key cosign.pub --bundle bundle.json --insecure-ignore-tlog=true --type {kind} {file}"
        ))
    };
    let (code, said) = verify("slsaprovenance1", "app.sif");
    assert_eq!(code, 0, "{said}");
    assert_ne!(verify("slsaprovenance1", "other.sif").0, 0, "it is about another file");
    assert_ne!(verify("spdxjson", "app.sif").0, 0, "it is of another type");
    // The predicate alone, as cosign makes a statement of it.
    fs::write(place.path("predicate.json"), place.statement()["predicate"].to_string()).unwrap();
    let (code, said) = shell(
        "cosign attest-blob --key cosign.key --signing-config config.json --predicate predicate.json --type slsaprovenance1 \
         --bundle bundle.json -y app.sif",
    );
    assert_eq!(code, 0, "{said}");
    let (code, said) = verify("slsaprovenance1", "app.sif");
    assert_eq!(code, 0, "{said}");
}
