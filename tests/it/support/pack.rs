//! Puts layers into an image: a docker-archive for the program under test, an OCI layout for others.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::member;
use super::listing::hex;

/// The [`super::entry::MADE`] of these tests, as configs spell it.
pub const CREATED: &str = "2020-09-13T12:26:40Z";

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Squeeze {
    Not,
    Gzip,
    Zstd,
}

pub fn squeeze(bytes: &[u8], how: Squeeze) -> Vec<u8> {
    match how {
        Squeeze::Not => bytes.to_vec(),
        Squeeze::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Squeeze::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// An image config whose diff_ids are those of `layers`.
pub fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let history: Vec<Value> = layers.iter().map(|_| json!({ "created": CREATED, "created_by": "case" })).collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    })
}

/// A docker-archive of these uncompressed layer tars, as `docker save` and crane lay it out: a layer that occurs twice is
/// stored once and listed twice.
pub fn docker_archive(layers: &[Vec<u8>], how: Squeeze) -> Vec<u8> {
    docker_archive_of(&config(layers), layers, how)
}

pub fn docker_archive_of(config: &Value, layers: &[Vec<u8>], how: Squeeze) -> Vec<u8> {
    let mut out = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for layer in layers {
        let stored = squeeze(layer, how);
        let hex = sha256(&stored);
        let name = match how {
            Squeeze::Not => format!("{hex}/layer.tar"),
            Squeeze::Gzip => format!("{hex}.tar.gz"),
            Squeeze::Zstd => format!("{hex}.tar.zst"),
        };
        if !names.contains(&name) {
            member(&mut out, &name, &stored);
        }
        names.push(name);
    }
    let config = serde_json::to_vec(config).unwrap();
    let config_name = format!("{}.json", sha256(&config));
    member(&mut out, &config_name, &config);
    let manifest = json!([{ "Config": config_name, "RepoTags": ["example/case:latest"], "Layers": names }]);
    member(&mut out, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
    out.resize(out.len() + 1024, 0);
    out
}

/// An OCI layout with one image under the tag `latest`.
pub fn oci_layout(directory: &Path, layers: &[Vec<u8>]) {
    oci_layout_of(directory, &config(layers), layers, Squeeze::Not);
}

/// The same of a config of any kind, the layers stored in any way.
pub fn oci_layout_of(directory: &Path, config: &Value, layers: &[Vec<u8>], how: Squeeze) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let hex = sha256(bytes);
        fs::write(blobs.join(&hex), bytes).unwrap();
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{hex}"),
            "size": bytes.len(),
        })
    };
    let layer_kind = match how {
        Squeeze::Not => "layer.v1.tar",
        Squeeze::Gzip => "layer.v1.tar+gzip",
        Squeeze::Zstd => "layer.v1.tar+zstd",
    };
    let layer_blobs: Vec<Value> = layers.iter().map(|layer| blob(layer_kind, &squeeze(layer, how))).collect();
    let config = blob("config.v1+json", &serde_json::to_vec(config).unwrap());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layer_blobs,
    });
    let mut manifest = blob("manifest.v1+json", &serde_json::to_vec(&manifest).unwrap());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
