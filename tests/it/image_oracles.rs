//! Other people's programs take the images that we write: skopeo, umoci, crane, Docker, Podman, and the schemas of the OCI
//! image specification. Where a program is missing its test is skipped with a printed reason; under `ORACLES=require` that
//! is a failure.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::archives::{Described, PRODUCERS};
use crate::support::disk;
use crate::support::docker::{self, DockerImage};
use crate::support::entry::When;
use crate::support::layout::{self, files_below};
use crate::support::listing::{Listing, Times, parts};
use crate::support::run::{self, host_has, program, skip};
use crate::support::tar::Tar;

fn described() -> Described {
    let layer = |name: &str| Tar::new().directory(name).file(format!("{name}/file"), name.repeat(999)).finish();
    Described::new(vec![layer("base"), layer("middle"), layer("base")]).tagged("example.org/first:1")
}

/// Runs our program, which must succeed, in a directory.
fn convert(directory: &Path, line: &str) -> Vec<u8> {
    let done = run::run(program().current_dir(directory).args(line.split(' ')));
    assert_eq!(done.code, 0, "{line}: {}", done.stderr);
    done.stdout
}

/// Every producer's image in every way in which we write layouts, in `directory`: the layouts, `N.oci`, and an archive of
/// each, `N.tar`.
fn write_all(directory: &Path) -> usize {
    let mut count = 0;
    let ways = ["", " --flatten", " --compression gzip", " --compression zstd", " --flatten --compression gzip:1"];
    for (number, (producer, pack, _)) in PRODUCERS.iter().enumerate() {
        fs::write(directory.join("source"), pack(&[described()]).bytes).unwrap();
        // All ways for the first few, one way each for the rest: that makes every pair of storage and way.
        let chosen = if number < 2 || producer.contains("29") { &ways[..] } else { &ways[number % ways.len()..][..1] };
        for way in chosen {
            convert(directory, &format!("source --to oci -o {count}.oci{way}"));
            convert(directory, &format!("source --to oci-archive -o {count}.tar{way}"));
            convert(directory, &format!("source --to docker-archive -o {count}.docker{}", flatten_of(way)));
            count += 1;
        }
    }
    fs::remove_file(directory.join("source")).unwrap();
    count
}

fn flatten_of(way: &str) -> &str {
    if way.contains("--flatten") { " --flatten" } else { "" }
}

#[test]
fn skopeo_umoci_and_crane_take_what_we_write() {
    let Some(oracles) = run::oracles() else { return };
    let place = run::scratch();
    let count = write_all(place.path());
    // One process for all: entering the oracles' root costs more than the work. A crane registry of its own is where crane
    // looks at layouts: it knows no other way.
    let script = r#"set -eu
        crane registry serve --address 127.0.0.1:0 >registry.log 2>&1 & registry=$!
        trap 'kill $registry' EXIT
        port=
        for i in $(seq 100); do
            port=$(sed -n 's/.*[ :]\([0-9][0-9]*\)$/\1/p' registry.log | tail -n 1)
            [ -n "$port" ] && break
            sleep 0.1
        done
        for layout in *.oci; do
            n=${layout%.oci}
            skopeo inspect oci:$layout:1 >$n.inspect
            skopeo --insecure-policy copy -q oci:$layout:1 dir:$n.dir
            skopeo --insecure-policy copy -q --preserve-digests oci-archive:$n.tar:1 oci:$n.again:1
            skopeo --insecure-policy copy -q docker-archive:$n.docker dir:$n.docker.dir
            umoci raw unpack --image $layout:1 $n.tree >/dev/null
            umoci stat --image $layout:1 --json >/dev/null
            crane push $layout localhost:$port/image:$n >/dev/null 2>&1
            # It takes every layer for gzip (go-containerregistry, pkg/v1/validate): others are left to those above.
            fast=; crane manifest localhost:$port/image:$n | grep -q -e 'layer.v1.tar"' -e tar+zstd && fast=--fast
            crane validate $fast --remote localhost:$port/image:$n
            crane validate --tarball $n.docker
        done"#;
    let done = run::run(oracles.run(place.path()).args(["sh", "-c", script]));
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.code, 0, "{said}{}", done.stderr);
    assert_eq!(said.matches("PASS").count(), 2 * count, "{said}");
    for number in 0..count {
        let ours = layout::images(&files_below(&place.path().join(format!("{number}.oci"))));
        let inspect: Value =
            serde_json::from_slice(&fs::read(place.path().join(format!("{number}.inspect"))).unwrap()).unwrap();
        assert_eq!(inspect["Digest"], ours[0].entry["digest"]);
        // What skopeo copies out of the archive is what is in the directory.
        assert_eq!(manifest_of(&place.path().join(format!("{number}.again"))), ours[0].manifest, "{number}");
        for name in ["base", "middle"] {
            let file = fs::read(place.path().join(format!("{number}.tree/{name}/file"))).unwrap();
            assert_eq!(file, name.repeat(999).as_bytes());
        }
    }
    eprintln!("skopeo, umoci and crane take {count} images, each as layout, OCI archive and docker-archive");
}

/// The first manifest of a layout that someone else wrote.
fn manifest_of(layout: &Path) -> Vec<u8> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    fs::read(layout.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())).unwrap()
}

#[test]
fn layer_digests_are_those_of_skopeo() {
    let Some(oracles) = run::oracles() else { return };
    let place = run::scratch();
    for (number, (_, pack, _)) in PRODUCERS.iter().enumerate().filter(|(_, (name, _, _))| name.contains("docker 2")) {
        fs::write(place.path().join(format!("{number}.tar")), pack(&[described()]).bytes).unwrap();
        convert(place.path(), &format!("{number}.tar --to oci -o {number}.ours"));
    }
    let script = "set -e; for source in *.tar; do skopeo --insecure-policy copy -q --dest-oci-accept-uncompressed-layers \
                  docker-archive:$source oci:${source%.tar}.theirs:1; done";
    let done = run::run(oracles.run(place.path()).args(["sh", "-c", script]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let digests = |path: &Path| -> Vec<String> {
        let manifest: Value = serde_json::from_slice(&manifest_of(path)).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["digest"].as_str().unwrap().to_string()).collect()
    };
    let mut compared = 0;
    for number in 0..PRODUCERS.len() {
        let ours = place.path().join(format!("{number}.ours"));
        // Newer Dockers store layers compressed: what is compared are those that are not.
        if ours.exists() && layout::images(&files_below(&ours))[0].layer_types() == ["tar"; 3] {
            assert_eq!(digests(&ours), digests(&place.path().join(format!("{number}.theirs"))));
            compared += 1;
        }
    }
    assert!(compared >= 3, "{compared}");
}

/// The JSON schemas of the image specification (fixtures/oci-schemas), by Python's jsonschema.
#[test]
fn documents_fit_the_schemas_of_the_specification() {
    if run::run(Command::new("python3").args(["-c", "import jsonschema"])).code != 0 {
        return skip("Python has no jsonschema: apt-get install python3-jsonschema");
    }
    let place = run::scratch();
    let count = write_all(place.path());
    let script = r#"
import json, pathlib, sys, warnings
warnings.simplefilter("ignore")
import jsonschema
schemas, place = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
def load(path):
    return json.loads(path.read_bytes())
def without_ids(schema):
    # They would send the references between the files to a server.
    if isinstance(schema, list):
        return [without_ids(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_ids(value) for key, value in schema.items() if not (key == "id" and isinstance(value, str))}
store = {path.as_uri(): without_ids(load(path)) for path in schemas.glob("*.json")}
def checker(name):
    schema = store[(schemas / name).as_uri()]
    resolver = jsonschema.RefResolver((schemas / name).as_uri(), schema, store=store)
    return jsonschema.Draft4Validator(schema, resolver=resolver)
layout, index, manifest, config = map(checker, (
    "image-layout-schema.json", "image-index-schema.json", "image-manifest-schema.json", "config-schema.json"))
assert list(config.iter_errors({"os": 1})), "the schemas find nothing wrong with what is wrong"
checked = 0
for oci in sorted(place.glob("*.oci")):
    blob = lambda descriptor: oci / "blobs/sha256" / descriptor["digest"].split(":")[1]
    layout.validate(load(oci / "oci-layout"))
    top = load(oci / "index.json")
    index.validate(top)
    for entry in top["manifests"]:
        document = load(blob(entry))
        manifest.validate(document)
        config.validate(load(blob(document["config"])))
        checked += 1
print(checked)
"#;
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/oci-schemas");
    let done = run::run(Command::new("python3").args(["-c", script, schemas]).arg(place.path()));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(String::from_utf8(done.stdout).unwrap().trim(), count.to_string());
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

fn exported(image: &DockerImage) -> Listing {
    let container = String::from_utf8(image.docker(&["create", &image.name])).unwrap();
    let tar = image.docker(&["export", container.trim()]);
    image.docker(&["rm", container.trim()]);
    let place = run::scratch();
    fs::write(place.path().join("x.tar"), tar).unwrap();
    fs::create_dir(place.path().join("root")).unwrap();
    let mut unpack = Command::new("tar");
    let unpack = unpack.current_dir(place.path()).args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]);
    let done = run::run(unpack.args(["x.tar", "-C", "root"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut listing = disk::list(&place.path().join("root"));
    for path in MADE_BY_DOCKER {
        listing.names.remove(&parts(path.as_bytes()));
    }
    // Whose contents Docker changes when it makes a container.
    for path in ["", "etc"] {
        if let Some(&id) = listing.names.get(&parts(path.as_bytes())) {
            listing.nodes[id].time = When::Made;
        }
    }
    listing
}

#[test]
fn docker_takes_its_image_back() {
    if !run::is_root() {
        return skip("GNU tar gives files to their owners only as root");
    }
    let Some(image) = DockerImage::build("images") else { return };
    let place = image.place.path();
    let id = |image: &DockerImage| image.docker(&["inspect", "--format", "{{.Id}}", &image.name]);
    let ran = |image: &DockerImage| image.docker(&["run", "--rm", &image.name, "a b", "$HOME"]);
    let (original_id, original_ran, original) = (id(&image), ran(&image), exported(&image));
    assert!(original.names.len() > 200, "BusyBox has hundreds of names, and {} are exported", original.names.len());

    convert(place, "image.tar --to oci -o layers.oci");
    convert(place, "layers.oci --to docker-archive -o layers.tar");
    convert(place, "image.tar --to oci -o gzip.oci --compression gzip");
    convert(place, "gzip.oci --to docker-archive -o gzip.tar");
    convert(place, "image.tar --to oci -o flat.oci --flatten");
    convert(place, "flat.oci --to docker-archive -o flat.tar");
    convert(place, "image.tar --to docker-archive -o flat-at-once.tar --flatten");
    assert!(fs::read(place.join("gzip.tar")).unwrap() == fs::read(place.join("layers.tar")).unwrap());
    assert!(fs::read(place.join("flat.tar")).unwrap() == fs::read(place.join("flat-at-once.tar")).unwrap());

    for archive in ["layers.tar", "flat.tar"] {
        image.docker(&["rmi", "--force", &image.name]);
        image.docker(&["load", "--quiet", "--input", archive]);
        assert_eq!(id(&image) == original_id, archive == "layers.tar", "the ID is that of the config");
        assert_eq!(ran(&image), original_ran, "{archive}");
        let differences = original.differences(&exported(&image), Times::MadeIsAny);
        assert!(differences.is_empty(), "{archive}\n{differences}");
        let layers = image.docker(&["inspect", "--format", "{{len .RootFS.Layers}}", &image.name]);
        assert_eq!(layers == b"1\n", archive == "flat.tar");
        let labels = image.docker(&["inspect", "--format", "{{json .Config.Labels}}", &image.name]);
        assert!(String::from_utf8(labels).unwrap().contains(r#""say \"hi\"""#));
    }
}

/// An archive of Docker 1.9: what is written of it is what Docker makes when it loads it, ID and history too.
#[test]
fn images_of_old_dockers_become_what_docker_makes_of_them_docker() {
    if !docker::answers() {
        return;
    }
    let image = DockerImage { name: "sif-convert-test/old:1".to_string(), place: run::scratch() };
    let place = image.place.path();
    let document = |id: &str, more: &str| {
        format!(
            r#"{{"id":"{id}",{more},"container":"c0","docker_version":"1.9.1","author":"Mé \u003cme@h.example>","config":{{"Env":["A=1 > 0 && 2"],"Cmd":["/bin/sh"],"Hostname":""}},"architecture":"amd64","os":"linux","Size":0}}"#
        )
    };
    let (low, top) = ("1".repeat(64), "2".repeat(64));
    let mut archive = Tar::new();
    for (id, name, more) in [
        (&low, "a", r##""created":"2015-01-02T03:04:05.120000000Z","container_config":{"Cmd":["/bin/sh","-c","#(nop) ADD file:x in /"]}"##.to_string()),
        (&top, "b", format!(r#""parent":"{low}","created":"2015-01-02T03:04:06Z","comment":"two & more","container_config":{{"Cmd":["/bin/sh","-c","echo hi > /etc/b"]}}"#)),
    ] {
        archive = archive.file(format!("{id}/VERSION"), "1.0").file(format!("{id}/json"), document(id, &more));
        archive = archive.file(format!("{id}/layer.tar"), Tar::new().file(name, id.as_bytes()).finish());
    }
    let repositories = format!(r#"{{"sif-convert-test/old":{{"1":"{top}"}}}}"#);
    fs::write(place.join("old.tar"), archive.file("repositories", repositories).finish()).unwrap();
    let load = |archive: &str| {
        image.docker(&["load", "--quiet", "--input", archive]);
        let id = image.docker(&["inspect", "--format", "{{.Id}}", &image.name]);
        let history = image.docker(&[
            "history",
            "--no-trunc",
            "--format",
            "{{.CreatedBy}}|{{.CreatedAt}}|{{.Comment}}",
            &image.name,
        ]);
        image.docker(&["rmi", "--force", &image.name]);
        (String::from_utf8(id).unwrap(), String::from_utf8(history).unwrap())
    };
    let theirs = load("old.tar");
    assert!(theirs.1.contains("echo hi > /etc/b") && theirs.1.contains("ADD file:x in /"), "{}", theirs.1);
    for format in ["docker-archive", "oci"] {
        convert(place, &format!("old.tar --to {format} -o new.{format}"));
    }
    assert_eq!(load("new.docker-archive"), theirs);
    convert(place, "new.oci --to docker-archive -o again.tar");
    assert_eq!(load("again.tar"), theirs);
    let shown = run::run(run::program().current_dir(place).args(["inspect", "old.tar"]));
    assert!(String::from_utf8(shown.stdout).unwrap().contains("echo hi > /etc/b"));
}

#[test]
fn podman_takes_what_we_write() {
    if !run::is_root() || !host_has("podman") {
        return skip("podman is missing: apt-get install podman");
    }
    let place = run::scratch();
    fs::write(place.path().join("source"), crate::support::archives::docker_24(&[described()]).bytes).unwrap();
    let podman = |arguments: &str| {
        let storage = ["--root", "storage", "--runroot", "run", "--storage-driver", "vfs"];
        let mut command = Command::new("podman");
        let done = run::run(command.current_dir(place.path()).args(storage).args(arguments.split(' ')));
        assert_eq!(done.code, 0, "{arguments}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    let id = crate::support::archives::sha256(&described().config());
    for (line, same) in [
        ("docker-archive", true),
        ("oci-archive", true),
        ("oci-archive --compression zstd", true),
        ("docker-archive --flatten", false),
    ] {
        convert(place.path(), &format!("source --to {line} -o archive --force"));
        podman("load --quiet --input archive");
        let found = podman("image inspect --format {{.Id}} example.org/first:1");
        assert_eq!(found.trim() == id, same, "{line}");
        podman("rmi --force example.org/first:1");
    }
}
