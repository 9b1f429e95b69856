//! Image archives in the shape of every producer, built in memory from a neutral
//! description. Each function says what its producer does that others do not.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::listing::hex;
use super::tar::Tar;

/// An image to be packed: what is the same whoever packs it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Layers as uncompressed tars, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// Full names with tags, such as `example.org/a:1`.
    pub tags: Vec<String>,
    /// GOARCH.
    pub architecture: String,
    /// Makes configs differ where all else is equal.
    pub comment: String,
    /// The config, where it is not made of the rest.
    pub config: Option<Value>,
}

impl Described {
    /// An image for linux/amd64 without names.
    pub fn new(layers: Vec<Vec<u8>>) -> Described {
        Described { layers, tags: Vec::new(), architecture: "amd64".into(), comment: String::new(), config: None }
    }

    /// With a name more.
    pub fn tagged(mut self, tag: &str) -> Described {
        self.tags.push(tag.into());
        self
    }

    /// For another architecture.
    pub fn architecture(mut self, architecture: &str) -> Described {
        self.architecture = architecture.into();
        self
    }

    /// With this config.
    pub fn with_config(mut self, config: &Value) -> Described {
        self.config = Some(config.clone());
        self
    }

    /// diff_ids in hexadecimal digits.
    pub fn diff_ids(&self) -> Vec<String> {
        self.layers.iter().map(|layer| sha256(layer)).collect()
    }

    /// The config document.
    pub fn config(&self) -> Vec<u8> {
        if let Some(config) = &self.config {
            return bytes_of(config);
        }
        let diff_ids: Vec<String> = self.diff_ids().iter().map(|hex| format!("sha256:{hex}")).collect();
        let config = json!({
            "architecture": self.architecture,
            "comment": self.comment,
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "created": "2020-01-02T03:04:05Z",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        bytes_of(&config)
    }

    fn v1_ids(&self) -> Vec<String> {
        // Later layers get smaller IDs, so that in lexical order links stand before their targets.
        let id = |at: usize| {
            let hex = sha256(format!("{} {} {at}", self.comment, self.tags.join(" ")).as_bytes());
            format!("{:02x}{}", 255 - at, &hex[2..])
        };
        (0..self.layers.len()).map(id).collect()
    }
}

/// An archive and what a reader must find in it.
pub struct Packed {
    /// The file.
    pub bytes: Vec<u8>,
    /// `docker-archive` or `oci-archive`.
    pub kind: &'static str,
    /// For each image the config document.
    pub configs: Vec<Vec<u8>>,
}

/// A producer: its name, how it packs, and whether one archive of it can hold several images.
pub type Producer = (&'static str, fn(&[Described]) -> Packed, bool);

/// Every producer.
pub const PRODUCERS: [Producer; 18] = [
    ("docker 1.9", docker_v1, true),
    ("docker 1.10", docker_1_10, true),
    ("docker 24", docker_24, true),
    ("docker 25.0.0", docker_25_0_0, true),
    ("docker 25.0.1", docker_25_0_1, true),
    ("docker 27", docker_27, true),
    ("docker 29", docker_29, true),
    ("podman", podman, true),
    ("buildkit docker", buildkit_docker, true),
    ("buildkit oci", buildkit_oci, true),
    ("go-containerregistry", ggcr, true),
    ("jib docker", jib_docker, false),
    ("jib oci", jib_oci, true),
    ("rules_oci", rules_oci, true),
    ("nix", nix, true),
    ("regctl", regctl, true),
    ("dot slash", dot_slash, true),
    ("absolute names", absolute_names, true),
];

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// Members by name, written in lexical order as Go's and Docker's tar code walks directories.
#[derive(Default)]
pub struct Members(BTreeMap<String, Stored>);

enum Stored {
    File(Vec<u8>),
    Symlink(String),
}

impl Members {
    /// Adds a file.
    pub fn file(&mut self, name: impl Into<String>, contents: impl Into<Vec<u8>>) {
        self.0.insert(name.into(), Stored::File(contents.into()));
    }

    /// Adds a blob of an OCI layout; its digest in hexadecimal digits.
    pub fn blob(&mut self, contents: &[u8]) -> String {
        let hex = sha256(contents);
        self.file(format!("blobs/sha256/{hex}"), contents);
        hex
    }

    fn json(&mut self, name: impl Into<String>, value: &Value) {
        self.file(name, bytes_of(value));
    }

    fn symlink(&mut self, name: String, target: String) {
        self.0.entry(name).or_insert(Stored::Symlink(target));
    }

    /// The blobs of an OCI layout, by digest.
    pub fn into_blobs(self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.0.into_iter().filter_map(|(name, stored)| match stored {
            Stored::File(contents) => Some((format!("sha256:{}", name.strip_prefix("blobs/sha256/")?), contents)),
            Stored::Symlink(_) => None,
        })
    }

    /// The contents of a file.
    pub fn get(&self, name: &str) -> &[u8] {
        match self.0.get(name) {
            Some(Stored::File(contents)) => contents,
            _ => panic!("{name} is not a file here"),
        }
    }

    /// Takes a member away.
    pub fn remove(&mut self, name: &str) {
        assert!(self.0.remove(name).is_some(), "{name} is not there to be removed");
    }

    /// The tar, with `prefix` before every name, in lexical order.
    pub fn pack(&self, prefix: &str) -> Vec<u8> {
        let tar = self.0.iter().fold(Tar::new(), |tar, (name, stored)| put(tar, prefix, name, stored));
        tar.finish()
    }

    /// The tar with these members first and last, all else in between.
    fn pack_in_order(&self, first: &[&str], last: &[&str]) -> Vec<u8> {
        let middle = self.0.keys().map(String::as_str).filter(|name| !first.contains(name) && !last.contains(name));
        let names = first.iter().copied().chain(middle).chain(last.iter().copied());
        let present = names.filter_map(|name| self.0.get(name).map(|stored| (name, stored)));
        present.fold(Tar::new(), |tar, (name, stored)| put(tar, "", name, stored)).finish()
    }

    /// Writes the members below a directory.
    pub fn write_below(&self, directory: &std::path::Path) {
        for (name, stored) in &self.0 {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match stored {
                Stored::File(contents) => std::fs::write(path, contents).unwrap(),
                Stored::Symlink(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            }
        }
    }
}

fn put(tar: Tar, prefix: &str, name: &str, stored: &Stored) -> Tar {
    let name = format!("{prefix}{name}");
    match stored {
        Stored::File(contents) => tar.file(name, contents),
        Stored::Symlink(target) => tar.symlink(name, target),
    }
}

/// Splits `name:tag`.
fn name_and_tag(full: &str) -> (&str, &str) {
    full.rsplit_once(':').unwrap()
}

fn configs(images: &[Described]) -> Vec<Vec<u8>> {
    images.iter().map(Described::config).collect()
}

fn tags_or_null(image: &Described) -> Value {
    if image.tags.is_empty() { Value::Null } else { json!(image.tags) }
}

fn add_repositories(members: &mut Members, images: &[Described], id: impl Fn(&Described) -> String) {
    let mut repositories: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for image in images {
        for (name, tag) in image.tags.iter().map(|tag| name_and_tag(tag)) {
            repositories.entry(name).or_default().insert(tag, id(image));
        }
    }
    if !repositories.is_empty() {
        members.json("repositories", &json!(repositories));
    }
}

/// The v1 documents of every layer. The top one has the config that later Dockers keep apart; its bytes are returned.
fn add_v1_chain(members: &mut Members, image: &Described, with_layers: bool) -> Vec<u8> {
    let ids = image.v1_ids();
    let mut top = Vec::new();
    for (at, id) in ids.iter().enumerate() {
        let mut document = json!({"id": id, "created": "2014-01-02T03:04:05Z", "os": "linux"});
        if at > 0 {
            document["parent"] = json!(ids[at - 1]);
        }
        if at == ids.len() - 1 {
            document["architecture"] = json!(image.architecture);
            document["comment"] = json!(image.comment);
            document["config"] = json!({"Env": ["PATH=/bin"], "Cmd": ["sh"]});
        }
        top = bytes_of(&document);
        members.file(format!("{id}/VERSION"), "1.0");
        members.file(format!("{id}/json"), top.clone());
        if with_layers {
            members.file(format!("{id}/layer.tar"), image.layers[at].clone());
        }
    }
    top
}

fn top_id(image: &Described) -> String {
    image.v1_ids().last().cloned().unwrap_or_default()
}

/// Docker before 1.10: chains of `<id>/json`, no manifest.json, no diff_ids.
pub fn docker_v1(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let configs = images.iter().map(|image| add_v1_chain(&mut members, image, true)).collect();
    add_repositories(&mut members, images, top_id);
    Packed { bytes: members.pack(""), kind: "docker-archive", configs }
}

/// The members of what Docker 1.10 to 24 save.
pub fn docker_with_v1(images: &[Described], linked: bool) -> Members {
    let mut members = Members::default();
    let mut stored_at: BTreeMap<String, String> = BTreeMap::new();
    let mut manifest = Vec::new();
    for image in images {
        add_v1_chain(&mut members, image, false);
        let mut layers = Vec::new();
        for ((id, diff_id), layer) in image.v1_ids().iter().zip(image.diff_ids()).zip(&image.layers) {
            let name = format!("{id}/layer.tar");
            layers.push(name.clone());
            match stored_at.get(&diff_id).filter(|_| linked) {
                Some(other) => members.symlink(name, format!("../{other}/layer.tar")),
                None => {
                    members.file(name, layer.clone());
                    stored_at.insert(diff_id, id.clone());
                }
            }
        }
        let config = format!("{}.json", sha256(&image.config()));
        members.file(config.clone(), image.config());
        manifest.push(json!({"Config": config, "RepoTags": tags_or_null(image), "Layers": layers}));
    }
    members.json("manifest.json", &json!(manifest));
    add_repositories(&mut members, images, top_id);
    members
}

/// Docker 1.10: manifest.json beside the v1 chains.
pub fn docker_1_10(images: &[Described]) -> Packed {
    let bytes = docker_with_v1(images, false).pack("");
    Packed { bytes, kind: "docker-archive", configs: configs(images) }
}

/// Docker up to 24: a layer that occurs again is a relative link, which may come before its target.
pub fn docker_24(images: &[Described]) -> Packed {
    let bytes = docker_with_v1(images, true).pack("");
    Packed { bytes, kind: "docker-archive", configs: configs(images) }
}

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squeeze {
    /// As they are.
    Not,
    /// As gzip.
    Gzip,
    /// As zstd.
    Zstd,
}

impl Squeeze {
    /// The bytes as they are stored.
    pub fn store(self, layer: &[u8]) -> Vec<u8> {
        match self {
            Squeeze::Not => layer.to_vec(),
            Squeeze::Gzip => gzip(layer),
            Squeeze::Zstd => zstd_frame(layer),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Squeeze::Not => "application/vnd.oci.image.layer.v1.tar",
            Squeeze::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Squeeze::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// An OCI descriptor.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
}

/// The media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Adds an image's blobs; its manifest's bytes.
pub fn add_oci_image(members: &mut Members, image: &Described, storage: Squeeze) -> Vec<u8> {
    let layers: Vec<Value> = image
        .layers
        .iter()
        .map(|layer| {
            let stored = storage.store(layer);
            members.blob(&stored);
            descriptor(storage.media_type(), &stored)
        })
        .collect();
    members.blob(&image.config());
    add_manifest(members, &image.config(), layers)
}

fn add_manifest(members: &mut Members, config: &[u8], layers: Vec<Value>) -> Vec<u8> {
    let config = descriptor(CONFIG, config);
    let manifest = bytes_of(&json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}));
    members.blob(&manifest);
    manifest
}

fn add_layout(members: &mut Members, entries: Value) {
    members.json("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}));
    members.json("index.json", &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
}

/// A manifest.json whose layers are blobs.
fn add_blob_manifest_json(members: &mut Members, images: &[Described], storage: Squeeze) {
    let item = |image: &Described| {
        let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
        let layers: Vec<String> = image.layers.iter().map(|layer| blob(&storage.store(layer))).collect();
        json!({"Config": blob(&image.config()), "RepoTags": tags_or_null(image), "Layers": layers})
    };
    let items: Vec<Value> = images.iter().map(item).collect();
    members.json("manifest.json", &json!(items));
}

/// Index entries as Docker and containerd write them: one for each tag, or one without a name.
fn named_entries(entry: &Value, image: &Described) -> Vec<Value> {
    let named = |tag: &String| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": tag,
            "org.opencontainers.image.ref.name": name_and_tag(tag).1,
        });
        entry
    };
    if image.tags.is_empty() { vec![entry.clone()] } else { image.tags.iter().map(named).collect() }
}

/// Docker 25.0.0: plain blobs, and an OCI manifest whose layers are in no order (moby#47150); sizes are wrong as in its
/// release candidates (moby#47072).
pub fn docker_25_0_0(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut entries = Vec::new();
    for image in images {
        image.layers.iter().for_each(|layer| drop(members.blob(layer)));
        members.blob(&image.config());
        members.blob(&bytes_of(&json!({"id": "orphan", "created": "2014-01-02T03:04:05Z"})));
        let mut layers: Vec<Value> =
            image.layers.iter().map(|layer| descriptor(Squeeze::Not.media_type(), layer)).collect();
        layers.iter_mut().for_each(|layer| layer["size"] = json!(7));
        let first = usize::from(!layers.is_empty());
        layers.rotate_left(first);
        let manifest = add_manifest(&mut members, &image.config(), layers);
        entries.extend(named_entries(&descriptor(MANIFEST, &manifest), image));
    }
    add_layout(&mut members, json!(entries));
    add_blob_manifest_json(&mut members, images, Squeeze::Not);
    add_repositories(&mut members, images, top_id);
    Packed { bytes: members.pack(""), kind: "docker-archive", configs: configs(images) }
}

/// Docker 25.0.1: in order; images saved by ID are in manifest.json only and index.json lists `null` (moby#47210).
pub fn docker_25_0_1(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut entries = Vec::new();
    for image in images {
        let manifest = add_oci_image(&mut members, image, Squeeze::Not);
        if !image.tags.is_empty() {
            entries.extend(named_entries(&descriptor(MANIFEST, &manifest), image));
        }
    }
    add_layout(&mut members, if entries.is_empty() { Value::Null } else { json!(entries) });
    add_blob_manifest_json(&mut members, images, Squeeze::Not);
    Packed { bytes: members.pack(""), kind: "docker-archive", configs: configs(images) }
}

/// Docker 26 to 28: of several untagged images only the first is in index.json (moby#51389).
pub fn docker_27(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut entries = Vec::new();
    let first_untagged = images.iter().position(|image| image.tags.is_empty());
    for (at, image) in images.iter().enumerate() {
        let manifest = add_oci_image(&mut members, image, Squeeze::Not);
        if !image.tags.is_empty() || Some(at) == first_untagged {
            entries.extend(named_entries(&descriptor(MANIFEST, &manifest), image));
        }
    }
    add_layout(&mut members, json!(entries));
    add_blob_manifest_json(&mut members, images, Squeeze::Not);
    add_repositories(&mut members, images, top_id);
    Packed { bytes: members.pack(""), kind: "docker-archive", configs: configs(images) }
}

/// Adds an index with the image, an attestation for it, and two platforms that are not there: of one the manifest is
/// stored, of the other nothing. The index's bytes.
fn add_containerd_index(members: &mut Members, image: &Described, storage: Squeeze, absent: bool) -> Vec<u8> {
    let manifest = add_oci_image(members, image, storage);
    let platform = |entry: &mut Value, architecture: &str| {
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
    };
    let mut own = descriptor(MANIFEST, &manifest);
    platform(&mut own, &image.architecture);
    let statement = b"{\"_type\":\"https://in-toto.io/Statement/v0.1\"}";
    members.blob(statement);
    let attestation_config =
        br#"{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    members.blob(attestation_config);
    let attested =
        add_manifest(members, attestation_config, vec![descriptor("application/vnd.in-toto+json", statement)]);
    let mut attestation = descriptor(MANIFEST, &attested);
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": own["digest"],
    });
    let mut entries = vec![own, attestation];
    if absent {
        let elsewhere = bytes_of(&json!(format!("config of {} for s390x", image.comment)));
        let layer = descriptor(storage.media_type(), b"elsewhere");
        let manifest = add_manifest(members, &elsewhere, vec![layer]);
        let mut half = descriptor(MANIFEST, &manifest);
        platform(&mut half, "s390x");
        let mut gone = descriptor(MANIFEST, format!("manifest of {} for riscv64", image.comment).as_bytes());
        platform(&mut gone, "riscv64");
        entries.extend([half, gone]);
    }
    let index = bytes_of(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
    members.blob(&index);
    index
}

fn containerd(images: &[Described], storage: Squeeze, absent: bool) -> Members {
    let mut members = Members::default();
    let mut entries = Vec::new();
    for image in images {
        let index = add_containerd_index(&mut members, image, storage, absent);
        entries.extend(named_entries(&descriptor(INDEX, &index), image));
    }
    add_layout(&mut members, json!(entries));
    members
}

/// Docker 29 and every containerd store: compressed layers, an index below index.json, attestations, platforms that are
/// listed and not there, metadata last.
pub fn docker_29(images: &[Described]) -> Packed {
    let mut members = containerd(images, Squeeze::Gzip, true);
    add_blob_manifest_json(&mut members, images, Squeeze::Gzip);
    Packed { bytes: members.pack(""), kind: "docker-archive", configs: configs(images) }
}

/// BuildKit `type=docker`.
pub fn buildkit_docker(images: &[Described]) -> Packed {
    let mut members = containerd(images, Squeeze::Gzip, false);
    add_blob_manifest_json(&mut members, images, Squeeze::Gzip);
    Packed { bytes: members.pack(""), kind: "docker-archive", configs: configs(images) }
}

/// BuildKit `type=oci`: no manifest.json; here with zstd layers.
pub fn buildkit_oci(images: &[Described]) -> Packed {
    let members = containerd(images, Squeeze::Zstd, false);
    Packed { bytes: members.pack(""), kind: "oci-archive", configs: configs(images) }
}

/// podman save and skopeo: layers at the root by diff_id, links to them from the v1 folders, manifest.json near the end.
pub fn podman(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut manifest = Vec::new();
    for image in images {
        add_v1_chain(&mut members, image, false);
        for ((diff_id, layer), id) in image.diff_ids().iter().zip(&image.layers).zip(image.v1_ids()) {
            members.file(format!("{diff_id}.tar"), layer.clone());
            members.symlink(format!("{id}/layer.tar"), format!("../{diff_id}.tar"));
        }
        let config = format!("{}.json", sha256(&image.config()));
        members.file(config.clone(), image.config());
        let layers: Vec<String> = image.diff_ids().iter().map(|hex| format!("{hex}.tar")).collect();
        manifest.push(json!({"Config": config, "RepoTags": image.tags, "Layers": layers}));
    }
    members.json("manifest.json", &json!(manifest));
    add_repositories(&mut members, images, top_id);
    let bytes = members.pack_in_order(&[], &["manifest.json", "repositories"]);
    Packed { bytes, kind: "docker-archive", configs: configs(images) }
}

/// go-containerregistry: the config is literally called `sha256:<hex>`, layers by their compressed digest, each once.
pub fn ggcr(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut manifest = Vec::new();
    for image in images {
        let layers = add_compressed_layers(&mut members, image, "");
        let config = format!("sha256:{}", sha256(&image.config()));
        members.file(config.clone(), image.config());
        manifest.push(json!({"Config": config, "RepoTags": tags_or_null(image), "Layers": layers}));
    }
    members.json("manifest.json", &json!(manifest));
    let bytes = members.pack_in_order(&[], &["manifest.json"]);
    Packed { bytes, kind: "docker-archive", configs: configs(images) }
}

fn add_compressed_layers(members: &mut Members, image: &Described, folder: &str) -> Vec<String> {
    let stored = image.layers.iter().map(|layer| gzip(layer));
    stored
        .map(|layer| {
            let name = format!("{folder}{}.tar.gz", sha256(&layer));
            members.file(name.clone(), layer);
            name
        })
        .collect()
}

/// jib for Docker: the config is called `config.json`.
pub fn jib_docker(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let [image] = images else { panic!("jib packs one image") };
    let layers = add_compressed_layers(&mut members, image, "");
    members.file("config.json", image.config());
    let item = json!({"Config": "config.json", "RepoTags": image.tags, "Layers": layers});
    members.json("manifest.json", &json!([item]));
    Packed { bytes: members.pack(""), kind: "docker-archive", configs: configs(images) }
}

/// A plain OCI layout whose `ref.name` is the full name, as jib and skopeo write it.
pub fn layout(images: &[Described], storage: Squeeze) -> Members {
    let mut members = Members::default();
    let mut entries = Vec::new();
    for image in images {
        let manifest = add_oci_image(&mut members, image, storage);
        let entry = descriptor(MANIFEST, &manifest);
        entries.extend(image.tags.iter().map(|tag| {
            let mut entry = entry.clone();
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
            entry
        }));
        if image.tags.is_empty() {
            entries.push(entry);
        }
    }
    add_layout(&mut members, json!(entries));
    members
}

/// jib for OCI.
pub fn jib_oci(images: &[Described]) -> Packed {
    let bytes = layout(images, Squeeze::Gzip).pack("");
    Packed { bytes, kind: "oci-archive", configs: configs(images) }
}

/// rules_oci: manifest.json first, blobs without a layout, `.tar.gz` whatever the layers are (here zstd).
pub fn rules_oci(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut manifest = Vec::new();
    for image in images {
        let config = format!("blobs/sha256/{}", members.blob(&image.config()));
        let layers: Vec<String> = image
            .layers
            .iter()
            .map(|layer| {
                let stored = zstd_frame(layer);
                let name = format!("blobs/sha256/{}.tar.gz", sha256(&stored));
                members.file(name.clone(), stored);
                name
            })
            .collect();
        manifest.push(json!({"Config": config, "RepoTags": image.tags, "Layers": layers}));
    }
    members.json("manifest.json", &json!(manifest));
    let bytes = members.pack_in_order(&["manifest.json"], &[]);
    Packed { bytes, kind: "docker-archive", configs: configs(images) }
}

/// nix dockerTools: `<diff_id>/layer.tar`, manifest.json last.
pub fn nix(images: &[Described]) -> Packed {
    let mut members = Members::default();
    let mut manifest = Vec::new();
    for image in images {
        let name = |hex: &String| format!("{hex}/layer.tar");
        for (diff_id, layer) in image.diff_ids().iter().zip(&image.layers) {
            members.file(name(diff_id), layer.clone());
        }
        let config = format!("{}.json", sha256(&image.config()));
        members.file(config.clone(), image.config());
        let layers: Vec<String> = image.diff_ids().iter().map(name).collect();
        manifest.push(json!({"Config": config, "RepoTags": image.tags, "Layers": layers}));
    }
    members.json("manifest.json", &json!(manifest));
    let bytes = members.pack_in_order(&[], &["manifest.json"]);
    Packed { bytes, kind: "docker-archive", configs: configs(images) }
}

/// regctl export: an OCI layout and a manifest.json, gzipped as a whole.
pub fn regctl(images: &[Described]) -> Packed {
    let mut members = layout(images, Squeeze::Gzip);
    add_blob_manifest_json(&mut members, images, Squeeze::Gzip);
    Packed { bytes: gzip(&members.pack("")), kind: "docker-archive", configs: configs(images) }
}

/// `tar -C layout -cf x.tar .`: a `./` member, and every name begins with `./`.
pub fn dot_slash(images: &[Described]) -> Packed {
    let members = layout(images, Squeeze::Gzip);
    let bytes = [Tar::new().directory("./").unfinished(), members.pack("./")].concat();
    Packed { bytes, kind: "oci-archive", configs: configs(images) }
}

/// Member names with a slash in front and doubled ones inside.
pub fn absolute_names(images: &[Described]) -> Packed {
    let members = docker_with_v1(images, true);
    Packed { bytes: members.pack("/.//"), kind: "docker-archive", configs: configs(images) }
}

/// A compression by its name.
pub type Wrapper = (&'static str, fn(&[u8]) -> Vec<u8>);

/// How an archive can be compressed as a whole.
pub const WRAPPERS: [Wrapper; 7] = [
    ("gzip", gzip),
    ("gzip in members", gzip_members),
    ("zstd", zstd_frame),
    ("zstd in frames", zstd_frames),
    ("zstd with skippable frames", zstd_skippable),
    ("xz", xz),
    ("bzip2", bzip2),
];

/// One gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn in_parts(bytes: &[u8], pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(bytes.len() / 3 + 1).flat_map(pack).collect()
}

/// Several gzip members, as pigz and bgzip write them.
pub fn gzip_members(bytes: &[u8]) -> Vec<u8> {
    in_parts(bytes, gzip)
}

/// One zstd frame.
pub fn zstd_frame(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Several zstd frames.
pub fn zstd_frames(bytes: &[u8]) -> Vec<u8> {
    in_parts(bytes, zstd_frame)
}

/// zstd frames with a skippable one at either end.
pub fn zstd_skippable(bytes: &[u8]) -> Vec<u8> {
    let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip";
    [&skippable[..], &zstd_frames(bytes), skippable].concat()
}

/// xz.
pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// bzip2.
pub fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a build says of the image whose manifest has this digest, in hexadecimal digits: predicate types and statements.
pub type Statements<'a> = &'a dyn Fn(&Described, &str) -> Vec<(String, Vec<u8>)>;

/// `docker buildx build --sbom=true --provenance=mode=max -o type=oci` for several platforms: one index of all manifests and,
/// behind them, an attestation manifest for each that has statements.
pub fn buildx(images: &[Described], statements: Statements<'_>) -> Members {
    let mut members = Members::default();
    let (mut entries, mut attestations) = (Vec::new(), Vec::new());
    for image in images {
        let manifest = add_oci_image(&mut members, image, Squeeze::Gzip);
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": image.architecture});
        let said = statements(image, &sha256(&manifest));
        if !said.is_empty() {
            let layers = said.iter().map(|(predicate_type, statement)| {
                members.blob(statement);
                let mut layer = descriptor("application/vnd.in-toto+json", statement);
                layer["annotations"] = json!({"in-toto.io/predicate-type": predicate_type});
                layer
            });
            let layers: Vec<Value> = layers.collect();
            let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
            let config = bytes_of(&json!({"architecture": "unknown", "os": "unknown", "config": {},
                "rootfs": {"type": "layers", "diff_ids": diff_ids}}));
            members.blob(&config);
            let mut attestation = descriptor(MANIFEST, &add_manifest(&mut members, &config, layers));
            attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
            attestation["annotations"] = json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": entry["digest"],
            });
            attestations.push(attestation);
        }
        entries.push(entry);
    }
    entries.extend(attestations);
    let index = bytes_of(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
    members.blob(&index);
    let named = named_entries(&descriptor(INDEX, &index), &images[0]);
    add_layout(&mut members, json!(named));
    members
}
