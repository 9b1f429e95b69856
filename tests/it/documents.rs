//! What other people's producers write into documents, and what becomes of it: read as Docker's and OCI's own readers read it,
//! or refused for what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha512};

use crate::support::fake::{Fake, Repository};
use crate::support::listing::hex;
use crate::support::pack::{Squeeze, config, sha256, squeeze};
use crate::support::run::{Run, program, run, scratch};
use crate::support::tar::Tar;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn bytes_of(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

fn sha512(bytes: &[u8]) -> String {
    hex(&Sha512::digest(bytes))
}

/// A layer with one file, named and filled as said.
fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, name).finish()
}

/// Adds something to a layout; its descriptor.
type Neighbour = fn(&Layout) -> Value;
/// Makes a manifest odd.
type Change = fn(&mut Value);

/// A layout directory in the making.
struct Layout {
    directory: tempfile::TempDir,
    entries: Vec<Value>,
}

impl Layout {
    fn new() -> Self {
        let directory = scratch();
        fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
        fs::create_dir_all(directory.path().join("blobs/sha512")).unwrap();
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout { directory, entries: Vec::new() }
    }

    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = sha256(bytes);
        fs::write(self.directory.path().join("blobs/sha256").join(&hex), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    fn blob_512(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = sha512(bytes);
        fs::write(self.directory.path().join("blobs/sha512").join(&hex), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha512:{hex}"), "size": bytes.len()})
    }

    /// The manifest of an image with one file; `change` may spoil it.
    fn manifest(&self, file: &str, change: impl FnOnce(&mut Value)) -> Value {
        let tar = layer(file);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(CONFIG, &bytes_of(&config(std::slice::from_ref(&tar)))),
            "layers": [self.blob(TAR, &tar)],
        });
        change(&mut manifest);
        manifest
    }

    fn image(&self, file: &str) -> Value {
        self.blob(MANIFEST, &bytes_of(&self.manifest(file, |_| {})))
    }

    fn add(&mut self, mut entry: Value, tag: Option<&str>) -> &mut Self {
        if let Some(tag) = tag {
            entry["annotations"] = json!({REF_NAME: tag});
        }
        self.entries.push(entry);
        self
    }

    fn write(&self) -> PathBuf {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.entries});
        fs::write(self.directory.path().join("index.json"), bytes_of(&index)).unwrap();
        self.directory.path().to_path_buf()
    }
}

fn rootfs(source: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Run {
    run(program().arg(source).args(["--to", "rootfs", "-o", "-"]).args(arguments))
}

/// The names of the regular files that come out.
fn files(source: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Vec<String> {
    let done = rootfs(source, arguments);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut archive = tar::Archive::new(&done.stdout[..]);
    let entries = archive.entries().unwrap().map(Result::unwrap).filter(|entry| entry.header().entry_type().is_file());
    entries.map(|entry| entry.path().unwrap().to_str().unwrap().to_string()).collect()
}

fn fails(source: impl AsRef<std::ffi::OsStr>, arguments: &[&str], code: i32, words: &[&str]) {
    let done = rootfs(source, arguments);
    assert_eq!(done.code, code, "{}", done.stderr);
    words.iter().for_each(|word| assert!(done.stderr.contains(word), "{word:?} is not in {}", done.stderr));
    assert!(done.stdout.is_empty());
}

/// A docker-archive of one layer. `name` is what the config is called; the digest of its bytes where there is none.
fn docker_archive(
    directory: &Path,
    config: &[u8],
    tar: &[u8],
    name: Option<&str>,
    manifest: fn(&str) -> Value,
) -> PathBuf {
    let name = name.map_or_else(|| format!("{}.json", sha256(config)), str::to_string);
    let manifest = bytes_of(&manifest(&name));
    let path = directory.join("x.tar");
    fs::write(&path, Tar::new().file(&name, config).file("l.tar", tar).file("manifest.json", manifest).finish())
        .unwrap();
    path
}

fn item(config: &str) -> Value {
    json!([{"Config": config, "RepoTags": ["app:1"], "Layers": ["l.tar"]}])
}

fn inspected(source: &Path) -> Value {
    let done = run(program().arg("inspect").arg("--json").arg(source));
    assert_eq!(done.code, 0, "{}", done.stderr);
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn keys_in_any_letter_case_are_read_everywhere() {
    let directory = scratch();
    let tar = layer("f");
    let mut document = config(std::slice::from_ref(&tar));
    document["RootFS"] = document.as_object_mut().unwrap().remove("rootfs").unwrap();
    document["config"] =
        json!({"env": ["A=1"], "EntryPoint": ["/e"], "CMD": "c", "workingdir": "/w", "LABELS": {"x": "y"}});
    let archive = docker_archive(
        directory.path(),
        &bytes_of(&document),
        &tar,
        None,
        |name| json!([{"config": name, "REPOTAGS": ["app:1"], "layers": ["l.tar"]}]),
    );
    let image = &inspected(&archive)["images"][0];
    assert_eq!(image["names"], json!(["docker.io/library/app:1"]));
    let read = json!({"cmd": ["c"], "entrypoint": ["/e"], "env": ["A=1"], "labels": {"x": "y"}, "user": "", "working_dir": "/w"});
    assert_eq!(image["config"], read);
    assert_eq!(files(&archive, &[]), ["f"]);

    let mut layout = Layout::new();
    let manifest = layout.manifest("g", |_| {});
    let (config, layers) = (&manifest["config"], &manifest["layers"][0]);
    let upper = |descriptor: &Value| json!({"MEDIATYPE": descriptor["mediaType"], "Digest": descriptor["digest"], "SIZE": descriptor["size"]});
    let manifest = layout.blob(MANIFEST, &bytes_of(&json!({"Config": upper(config), "LAYERS": [upper(layers)]})));
    layout.add(upper(&manifest), None);
    let path = layout.write();
    let index = fs::read_to_string(path.join("index.json")).unwrap();
    fs::write(path.join("index.json"), index.replace("manifests", "Manifests")).unwrap();
    assert_eq!(files(&path, &[]), ["g"]);
}

#[test]
fn documents_of_old_archives_are_read_in_any_letter_case_too() {
    let directory = scratch();
    let path = directory.path().join("v1.tar");
    let tar = Tar::new()
        .file("a/json", r#"{"ID":"a","architecture":"amd64","OS":"linux"}"#)
        .file("a/layer.tar", layer("lower"))
        .file("b/json", r#"{"id":"b","Parent":"a","Config":{"cmd":["x"]}}"#)
        .file("b/layer.tar", layer("upper"))
        .file("repositories", r#"{"app":{"1":"b"}}"#);
    fs::write(&path, tar.finish()).unwrap();
    assert_eq!(files(&path, &[]), ["lower", "upper"]);
    assert_eq!(inspected(&path)["images"][0]["config"]["cmd"], json!(["x"]));
}

#[test]
fn of_two_manifests_for_one_platform_the_first_is_taken() {
    let mut layout = Layout::new();
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let of = |mut entry: Value| {
        entry["platform"] = platform.clone();
        entry
    };
    let (first, second) = (of(layout.image("first")), of(layout.image("second")));
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [first, second]});
    let nested = layout.blob(INDEX, &bytes_of(&index));
    let path = layout.add(nested, Some("v1")).write();
    assert_eq!(files(&path, &["--platform", "linux/amd64"]), ["first"]);
    assert_eq!(files(&path, &["--image", second["digest"].as_str().unwrap()]), ["second"]);

    // SOCI's index beside its image, and Nydus' format of it, are not images.
    let soci = layout.blob(
        MANIFEST,
        &bytes_of(&layout.manifest("soci", |manifest| {
            manifest["artifactType"] = json!("application/vnd.amazon.soci.index.v2+json");
            manifest["config"]["mediaType"] = json!("application/vnd.amazon.soci.index.v2+json");
        })),
    );
    let mut marked = of(layout.image("marked"));
    marked["artifactType"] = json!("application/vnd.acme");
    let mut nydus = of(layout.image("nydus"));
    nydus["platform"]["os.features"] = json!(["nydus.remoteimage.v1"]);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [of(soci), marked, nydus, second]});
    let mut other = Layout { directory: layout.directory, entries: Vec::new() };
    let nested = other.blob(INDEX, &bytes_of(&index));
    assert_eq!(files(other.add(nested, None).write(), &[]), ["second"]);
}

#[test]
fn a_named_image_goes_before_what_has_no_name() {
    let mut layout = Layout::new();
    let (old, new) = (layout.image("old"), layout.image("new"));
    let path = layout.add(old, None).add(new, Some("latest")).write();
    assert_eq!(files(&path, &[]), ["new"]);
    let third = layout.image("third");
    fails(layout.add(third, Some("other")).write(), &[], 2, &["latest", "other"]);
}

#[test]
fn an_unreadable_neighbour_is_no_obstacle() {
    let neighbours: [(&str, Neighbour); 9] = [
        ("xml", |layout| layout.blob("application/xml", b"<?xml version=\"1.0\"?><component/>")),
        ("large", |layout| layout.blob("application/vnd.acme", &vec![0; 5 << 20])),
        ("no platform", |layout| {
            let mut entry = layout.blob(MANIFEST, b"{}");
            entry["platform"] = json!({});
            entry
        }),
        ("sha512", |layout| layout.blob_512(MANIFEST, b"x")),
        ("unknown digest", |_| json!({"mediaType": MANIFEST, "digest": "blake3:00", "size": 1})),
        ("a number for a digest", |_| json!({"mediaType": MANIFEST, "digest": 5})),
        ("a number for a value", |layout| {
            let mut entry = layout.blob(MANIFEST, b"{}");
            entry["annotations"] = json!({"k": 5});
            entry
        }),
        ("null for a value", |layout| {
            let mut entry = layout.image("null");
            entry["annotations"] = json!({"k": null});
            entry
        }),
        ("no JSON", |layout| layout.blob(MANIFEST, b"nonsense")),
    ];
    for (what, neighbour) in neighbours {
        for first in [true, false] {
            let mut layout = Layout::new();
            let (good, bad) = (layout.image("good"), neighbour(&layout));
            if first {
                layout.add(good, Some("v1")).entries.push(bad);
            } else {
                layout.entries.push(bad);
                layout.add(good, Some("v1"));
            }
            let path = layout.write();
            assert_eq!(files(&path, &[]), ["good"], "{what}");
            assert_eq!(files(format!("oci:{}:v1", path.display()), &[]), ["good"], "{what}");
        }
    }
}

#[test]
fn what_was_asked_for_decides() {
    let mut layout = Layout::new();
    let (good, bad) = (layout.image("good"), layout.manifest("bad", |_| {}));
    let damaged = bad["config"]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_string();
    let bad = layout.blob(MANIFEST, &bytes_of(&bad));
    let path = layout.add(good, Some("v1")).add(bad, Some("v2")).write();
    fs::write(path.join("blobs/sha256").join(&damaged), "").unwrap();
    assert_eq!(files(format!("oci:{}:v1", path.display()), &[]), ["good"]);
    fails(format!("oci:{}:v2", path.display()), &[], 5, &["digest mismatch", &damaged]);
    let images = inspected(&path)["images"].clone();
    assert_eq!(images.as_array().unwrap().len(), 2);
    assert!(images[1]["problem"].as_str().unwrap().contains("digest mismatch"), "{images}");
    let done = rootfs(&path, &[]);
    assert!(done.code == 0 && done.stderr.contains("another image cannot be read"), "{}", done.stderr);
    let verified = run(program().arg("verify").arg(&path));
    assert_eq!(verified.code, 5, "{}", verified.stderr);
}

#[test]
fn one_sound_list_of_an_archive_will_do() {
    let directory = scratch();
    let tar = layer("f");
    let config = bytes_of(&config(std::slice::from_ref(&tar)));
    let name = format!("{}.json", sha256(&config));
    let archive = |index: &str, manifest: &str| {
        let path = directory.path().join("x.tar");
        let tar = Tar::new()
            .file(&name, &config)
            .file("l.tar", &tar)
            .file("manifest.json", manifest)
            .file("index.json", index);
        fs::write(&path, tar.finish()).unwrap();
        path
    };
    let sound = item(&name).to_string();
    for index in [r#"{"manifests":[{"platform":{}}]}"#, r#"{"manifests":5}"#, "nonsense", "null", "{}"] {
        assert_eq!(files(archive(index, &sound), &[]), ["f"], "{index}");
    }
    let path = archive("nonsense", &sound);
    fails(format!("oci-archive:{}", path.display()), &[], 4, &["index.json"]);
    assert!(rootfs(&path, &[]).stderr.contains("index.json of the archive was not used"));
    fails(archive("nonsense", "nonsense"), &[], 4, &["manifest.json"]);
    // Of several images in a manifest.json, too, one may be odd.
    let two = format!("[{{\"Config\":5}},{}", &sound[1..]);
    assert_eq!(files(archive("{}", &two), &["--image", "app:1"]), ["f"]);
}

#[test]
fn sha512_digests_are_verified() {
    let mut layout = Layout::new();
    let tar = layer("f");
    let mut document = config(std::slice::from_ref(&tar));
    document["rootfs"]["diff_ids"] = json!([format!("sha512:{}", sha512(&tar))]);
    for how in [Squeeze::Not, Squeeze::Gzip] {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.blob_512(CONFIG, &bytes_of(&document)),
            "layers": [layout.blob_512(TAR, &squeeze(&tar, how))],
        });
        layout.entries.clear();
        let manifest = layout.blob_512(MANIFEST, &bytes_of(&manifest));
        let path = layout.add(manifest, Some("v1")).write();
        assert_eq!(files(&path, &[]), ["f"]);
        for (to, jobs) in [("oci-archive", "1"), ("docker-archive", "2"), ("sif", "2")] {
            let out = path.join("out");
            let done = run(program().arg(&path).args(["--to", to, "-f", "-j", jobs, "-o"]).arg(&out));
            assert_eq!(done.code, 0, "{to}: {}", done.stderr);
            if to != "sif" {
                assert_eq!(files(&out, &[]), ["f"], "{to}");
            }
            if to == "docker-archive" {
                let diff_ids = &inspected(&out)["images"][0]["layers"][0]["diff_id"];
                assert_eq!(diff_ids, &json!(format!("sha256:{}", sha256(&tar))));
            }
        }
        let blob = path.join("blobs/sha512").join(sha512(&squeeze(&tar, how)));
        let mut damaged = fs::read(&blob).unwrap();
        damaged[30] ^= 1;
        fs::write(&blob, damaged).unwrap();
        fails(&path, &[], 5, &["digest mismatch: expected sha512:"]);
        fs::write(&blob, squeeze(&tar, how)).unwrap();
    }
    // The uncompressed layer has another diff_id than the config says.
    document["rootfs"]["diff_ids"] = json!([format!("sha512:{}", sha512(b"x"))]);
    let manifest = json!({"config": layout.blob(CONFIG, &bytes_of(&document)), "layers": [layout.blob(TAR, &tar)]});
    layout.entries.clear();
    let manifest = layout.blob(MANIFEST, &bytes_of(&manifest));
    fails(layout.add(manifest, None).write(), &[], 5, &["digest mismatch: expected sha512:"]);
}

#[test]
fn documents_are_read_as_leniently_as_go_reads_them() {
    let changes: [(&str, Change); 6] = [
        ("half a platform", |manifest| manifest["config"]["platform"] = json!({"os": "linux"})),
        ("no size of the config", |manifest| drop(manifest["config"].as_object_mut().unwrap().remove("size"))),
        ("no size of a layer", |manifest| drop(manifest["layers"][0].as_object_mut().unwrap().remove("size"))),
        ("size -1", |manifest| manifest["layers"][0]["size"] = json!(-1)),
        ("no type of a layer", |manifest| drop(manifest["layers"][0].as_object_mut().unwrap().remove("mediaType"))),
        ("nulls", |manifest| manifest["layers"][0]["urls"] = json!(null)),
    ];
    for (what, change) in changes {
        let mut layout = Layout::new();
        let manifest = layout.blob(MANIFEST, &bytes_of(&layout.manifest("f", change)));
        assert_eq!(files(layout.add(manifest, None).write(), &[]), ["f"], "{what}");

        let directory = scratch();
        let tar = layer("f");
        let (config, stored) = (bytes_of(&config(std::slice::from_ref(&tar))), tar.clone());
        let mut manifest = layout.manifest("f", |_| {});
        change(&mut manifest);
        let fake = serve(vec![("1", MANIFEST, bytes_of(&manifest))], vec![config, stored]);
        let done = run(program()
            .current_dir(directory.path())
            .arg(format!("docker://{}/a/b:1", fake.host()))
            .args(["--to", "rootfs", "-o", "x"]));
        assert_eq!(done.code, 0, "{what}: {}", done.stderr);
    }
    let directory = scratch();
    let tar = layer("f");
    let mut document = config(std::slice::from_ref(&tar));
    document["config"] = json!({"Env": ["A=1", null], "Cmd": ["x", null], "Labels": {"a": null}, "Entrypoint": null});
    let archive = docker_archive(directory.path(), &bytes_of(&document), &tar, None, item);
    let read = &inspected(&archive)["images"][0]["config"];
    assert_eq!(
        (&read["env"], &read["cmd"], &read["labels"]),
        (&json!(["A=1", ""]), &json!(["x", ""]), &json!({"a": ""}))
    );
}

#[test]
fn the_config_types_of_docker_1_10_and_1_11_are_configs() {
    for kind in
        [json!("application/octet-stream"), json!("text/html"), json!("application/json"), json!(""), json!(null)]
    {
        let mut layout = Layout::new();
        let manifest = layout.manifest("f", |manifest| {
            manifest["config"]["mediaType"] = kind.clone();
            manifest["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        });
        let manifest = layout.blob(MANIFEST, &bytes_of(&manifest));
        assert_eq!(files(layout.add(manifest, None).write(), &[]), ["f"], "{kind}");
    }
}

#[test]
fn owners_are_what_docker_makes_of_them() {
    let numbers = [("-2", 4_294_967_294), ("4294967295", 0), ("-1", 0), ("4294967296", 0), ("4294967301", 5)];
    for (text, owner) in numbers {
        let directory = scratch();
        let tar = Tar::new().pax(b'x', &[("uid", text.as_bytes()), ("gid", text.as_bytes())]).file("f", "").finish();
        let archive =
            docker_archive(directory.path(), &bytes_of(&config(std::slice::from_ref(&tar))), &tar, None, item);
        let done = rootfs(&archive, &[]);
        assert_eq!(done.code, 0, "{text}: {}", done.stderr);
        let mut out = tar::Archive::new(&done.stdout[..]);
        let file = out.entries().unwrap().map(Result::unwrap).find(|entry| entry.path().unwrap() == Path::new("f"));
        let mut file = file.unwrap();
        let records: BTreeMap<String, u64> = file
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .map(Result::unwrap)
            .filter_map(|it| Some((it.key().unwrap().to_string(), it.value().unwrap().parse().ok()?)))
            .collect();
        let field = (file.header().uid().unwrap(), file.header().gid().unwrap());
        let found = records.get("uid").map_or(field, |&uid| (uid, records["gid"]));
        assert_eq!(found, (owner, owner), "{text}");
    }
}

#[test]
fn too_many_owners_for_a_sif_are_told_what_helps() {
    let directory = scratch();
    let entries = (0..70_000_u32).fold(Tar::new(), |tar, id| {
        let id = (id + 1).to_string();
        tar.pax(b'x', &[("uid", id.as_bytes())]).file(format!("f{id}"), "")
    });
    let tar = entries.finish();
    let archive = docker_archive(directory.path(), &bytes_of(&config(std::slice::from_ref(&tar))), &tar, None, item);
    let to_sif = |arguments: &[&str]| {
        run(program()
            .arg(&archive)
            .args(["--to", "sif", "-f", "-o"])
            .arg(directory.path().join("x.sif"))
            .args(arguments))
    };
    let done = to_sif(&[]);
    assert!(done.code == 4 && done.stderr.contains("--all-root"), "{}", done.stderr);
    assert_eq!(to_sif(&["--all-root"]).code, 0);
}

#[test]
fn a_config_under_the_hash_of_other_bytes_is_taken_with_a_warning() {
    let directory = scratch();
    let tar = layer("f");
    let config = bytes_of(&config(std::slice::from_ref(&tar)));
    let (other, own) = (sha256(b"other"), sha256(&config));
    for name in [format!("{other}.json"), format!("sha256:{other}")] {
        let archive = docker_archive(directory.path(), &config, &tar, Some(&name), item);
        let done = rootfs(&archive, &[]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(done.stderr.contains(&other) && done.stderr.contains(&own), "{}", done.stderr);
        // Somebody who knows the image by a digest gets nothing else.
        fails(&archive, &["--expect-digest", &format!("sha256:{other}")], 5, &[&other]);
    }
    // In the room of blobs a name is a promise.
    let archive = docker_archive(directory.path(), &config, &tar, Some(&format!("blobs/sha256/{other}")), item);
    fails(&archive, &[], 5, &["digest mismatch", &other]);
    let archive = docker_archive(directory.path(), &config, &tar, Some("config.json"), item);
    assert!(rootfs(&archive, &["-q"]).stderr.is_empty());
}

#[test]
fn what_is_not_supported_is_named() {
    // By media type.
    for (kind, word) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
        ("application/vnd.oci.image.layer.v1.tar+lz4", "lz4"),
        ("application/vnd.sylabs.image.layer.v1.squashfs", "squashfs"),
        ("application/zip", "zip archive"),
        ("application/wasm", "WebAssembly"),
    ] {
        let mut layout = Layout::new();
        let manifest = layout.manifest("f", |manifest| manifest["layers"][0]["mediaType"] = json!(kind));
        let manifest = layout.blob(MANIFEST, &bytes_of(&manifest));
        fails(layout.add(manifest, None).write(), &[], 4, &[word, "hint: "]);
    }
    // By what they hold, whatever they are called.
    for (start, word) in [
        (&b"\x04\x22\x4d\x18"[..], "an lz4 stream"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\0asm", "a WebAssembly module"),
        (b"hsqs", "a squashfs file system"),
    ] {
        for how in [Squeeze::Not, Squeeze::Gzip] {
            let mut layout = Layout::new();
            let plain = [start, &[1; 2000]].concat();
            let manifest = json!({
                "config": layout.blob(CONFIG, &bytes_of(&config(std::slice::from_ref(&plain)))),
                "layers": [layout.blob(TAR, &squeeze(&plain, how))],
            });
            let manifest = layout.blob(MANIFEST, &bytes_of(&manifest));
            fails(layout.add(manifest, None).write(), &[], 4, &[word, "not a tar"]);
        }
    }
    // A tar may begin with any name.
    let directory = scratch();
    let tar = layer("hsqs");
    let archive = docker_archive(directory.path(), &bytes_of(&config(std::slice::from_ref(&tar))), &tar, None, item);
    assert_eq!(files(&archive, &[]), ["hsqs"]);
}

#[test]
fn artifacts_are_named() {
    for (config_type, layer_type, words) in [
        (
            "application/vnd.sylabs.sif.config.v1+json",
            "application/vnd.sylabs.sif.layer.v1.sif",
            ["a SIF file", "oras://"],
        ),
        ("application/vnd.wasm.config.v0+json", "application/wasm", ["WebAssembly", "wasmtime"]),
        ("application/vnd.cncf.helm.config.v1+json", "application/gzip", ["Helm chart", "hint: "]),
        ("application/vnd.unknown.config.v1+json", "application/vnd.acme", ["an artifact", "application/vnd.acme"]),
    ] {
        let mut layout = Layout::new();
        let manifest = layout.manifest("f", |manifest| {
            manifest["config"]["mediaType"] = json!(config_type);
            manifest["layers"][0]["mediaType"] = json!(layer_type);
        });
        let manifest = layout.blob(MANIFEST, &bytes_of(&manifest));
        let path = layout.add(manifest, Some("it")).write();
        fails(&path, &[], 4, &words);
        // Beside an image it is not an obstacle, unless it is what was asked for.
        let image = layout.image("f");
        let path = layout.add(image, Some("v1")).write();
        assert_eq!(files(&path, &[]), ["f"]);
        fails(format!("oci:{}:it", path.display()), &[], 4, &words);
    }
}

#[test]
fn images_of_other_systems_are_named() {
    let tar = layer("Files/x");
    let mut document = config(std::slice::from_ref(&tar));
    document["os"] = json!("windows");
    let directory = scratch();
    let archive = docker_archive(directory.path(), &bytes_of(&document), &tar, None, item);
    fails(&archive, &[], 4, &["windows/amd64", "Linux"]);
    let mut layout = Layout::new();
    let entry = |architecture: &str| {
        let mut entry = layout.image(architecture);
        entry["platform"] = json!({"os": "windows", "architecture": architecture, "os.version": "10"});
        entry
    };
    let index = json!({"schemaVersion": 2, "manifests": [entry("amd64"), entry("arm64")]});
    let nested = layout.blob(INDEX, &bytes_of(&index));
    fails(layout.add(nested, None).write(), &[], 4, &["windows"]);
}

/// Converts to an OCI archive; the annotations of its index entries, and what was said.
fn entries(source: &Path, arguments: &[&str]) -> (Vec<Value>, String) {
    let done = run(program().arg(source).args(["--to", "oci-archive", "-o", "-"]).args(arguments));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut archive = tar::Archive::new(&done.stdout[..]);
    let index = archive.entries().unwrap().map(Result::unwrap).find(|it| it.path().unwrap() == Path::new("index.json"));
    let index: Value = serde_json::from_reader(index.unwrap()).unwrap();
    let list = index["manifests"].as_array().unwrap().iter().map(|entry| entry["annotations"][REF_NAME].clone());
    (list.collect(), done.stderr)
}

#[test]
fn an_image_with_two_tags_is_one_entry_of_an_index() {
    let directory = scratch();
    let tar = layer("f");
    let archive = docker_archive(
        directory.path(),
        &bytes_of(&config(std::slice::from_ref(&tar))),
        &tar,
        None,
        |name| json!([{"Config": name, "RepoTags": ["app:v1", "app:latest"], "Layers": ["l.tar"]}]),
    );
    let (tags, said) = entries(&archive, &[]);
    assert_eq!(tags, [json!("v1")]);
    assert!(said.contains("app:latest") && said.contains("--tag"), "{said}");
    let (tags, said) = entries(&archive, &["--tag", "app:latest"]);
    assert_eq!(tags, [json!("latest")]);
    assert!(!said.contains("warning"), "{said}");
    let (tags, said) = entries(&archive, &["--tag", "app:v1", "--tag", "app:latest"]);
    assert_eq!(tags, [json!("v1"), json!("latest")]);
    assert!(said.contains("2 times"), "{said}");
    // A docker-archive has room for all of them.
    let out = directory.path().join("out.tar");
    let done = run(program().arg(&archive).args(["--to", "docker-archive", "-o"]).arg(&out));
    assert_eq!(done.code, 0);
    assert_eq!(
        inspected(&out)["images"][0]["names"],
        json!(["docker.io/library/app:v1", "docker.io/library/app:latest"])
    );
}

#[test]
fn odd_names_of_a_layout_stay_in_a_layout() {
    for (name, kept) in [("1.0+build5", true), ("stable@2", true), ("release/1.0", true), ("a b", false)] {
        let mut layout = Layout::new();
        let image = layout.image("f");
        let path = layout.add(image, Some(name)).write();
        assert_eq!(files(format!("oci:{}:{name}", path.display()), &[]), ["f"]);
        let (tags, said) = entries(&path, &[]);
        assert_eq!(
            (tags, said.contains("left out")),
            (vec![if kept { json!(name) } else { json!(null) }], !kept),
            "{said}"
        );
    }
    let mut layout = Layout::new();
    let image = layout.image("f");
    let path = layout.add(image, Some("1.0+build5")).write();
    let done = run(program().arg(&path).args(["--to", "docker-archive", "-o", "-"]));
    assert!(done.code == 0 && done.stderr.contains("1.0+build5"), "{}", done.stderr);
}

#[test]
fn a_name_with_control_characters_is_the_images_fault() {
    let tar = layer("f");
    let directory = scratch();
    let archive = docker_archive(
        directory.path(),
        &bytes_of(&config(std::slice::from_ref(&tar))),
        &tar,
        None,
        |name| json!([{"Config": name, "RepoTags": ["app:1\u{1b}[2J"], "Layers": ["l.tar"]}]),
    );
    fails(&archive, &[], 4, &[r#""app:1\u{1b}[2J""#, "control characters"]);
    let mut layout = Layout::new();
    let image = layout.image("f");
    fails(layout.add(image, Some("v1\n")).write(), &[], 4, &[r#""v1\n""#, "control characters"]);
}

#[test]
fn the_year_1_empty_variables_and_long_ones_stay_right() {
    let directory = scratch();
    let tar = layer("f");
    let mut document = config(std::slice::from_ref(&tar));
    let long = "x".repeat(130 << 10);
    document["created"] = json!("0001-01-01T00:00:00Z");
    document["config"] = json!({"Env": ["EMPTY=", format!("LONG={long}")]});
    let archive = docker_archive(directory.path(), &bytes_of(&document), &tar, None, item);
    let image = &inspected(&archive)["images"][0];
    assert_eq!((&image["created"], &image["config"]["env"][0]), (&json!(null), &json!("EMPTY=")));
    assert_eq!(image["config"]["env"][1], json!(format!("LONG={long}")));
    let done = run(program().arg(&archive).args(["--to", "sif-rootfs", "-o", "-"]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let mut out = tar::Archive::new(&done.stdout[..]);
    let mut script = None;
    for entry in out.entries().unwrap() {
        let mut entry = entry.unwrap();
        assert!(entry.header().mtime().unwrap() < 1 << 33, "a time before the epoch: {:?}", entry.path());
        if entry.path().unwrap() == Path::new(".singularity.d/env/10-docker2singularity.sh") {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
            script = Some(text);
        }
    }
    let script = script.expect("an environment script");
    assert!(script.contains(&long) && script.contains("EMPTY"), "{} bytes", script.len());
}

/// A registry of these manifests by tag, and blobs.
fn serve(manifests: Vec<(&'static str, &'static str, Vec<u8>)>, blobs: Vec<Vec<u8>>) -> Fake {
    let mut repository = Repository::default();
    for (tag, kind, bytes) in manifests {
        repository.manifests.insert(tag.to_string(), (kind.to_string(), bytes.clone()));
        repository.manifests.insert(format!("sha256:{}", sha256(&bytes)), (kind.to_string(), bytes));
    }
    repository.blobs.extend(blobs.into_iter().map(|bytes| (format!("sha256:{}", sha256(&bytes)), bytes)));
    Fake::start(move |request| repository.answer(request))
}
