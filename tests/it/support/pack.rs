//! Puts layers into an image: a docker-archive for the program under test, an OCI layout for others.

use std::path::Path;

use serde_json::{Value, json};

use super::archives::{self, Described};
pub use super::archives::{Squeeze, sha256};
use super::tar::Tar;

/// The [`super::entry::MADE`] of these tests, as configs spell it.
pub const CREATED: &str = "2020-09-13T12:26:40Z";

pub fn squeeze(bytes: &[u8], how: Squeeze) -> Vec<u8> {
    how.store(bytes)
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
    let mut tar = Tar::new();
    let mut names: Vec<String> = Vec::new();
    for layer in layers {
        let stored = how.store(layer);
        let hex = sha256(&stored);
        let name = match how {
            Squeeze::Not => format!("{hex}/layer.tar"),
            Squeeze::Gzip => format!("{hex}.tar.gz"),
            Squeeze::Zstd => format!("{hex}.tar.zst"),
        };
        if !names.contains(&name) {
            tar = tar.file(&name, &stored);
        }
        names.push(name);
    }
    let config = serde_json::to_vec(config).unwrap();
    let config_name = format!("{}.json", sha256(&config));
    let manifest = json!([{ "Config": config_name, "RepoTags": ["example/case:latest"], "Layers": names }]);
    tar.file(&config_name, &config).file("manifest.json", serde_json::to_vec(&manifest).unwrap()).finish()
}

/// An OCI layout with one image under the tag `latest`.
pub fn oci_layout(directory: &Path, layers: &[Vec<u8>]) {
    oci_layout_of(directory, &config(layers), layers, Squeeze::Not);
}

/// The same of a config of any kind, the layers stored in any way.
pub fn oci_layout_of(directory: &Path, config: &Value, layers: &[Vec<u8>], how: Squeeze) {
    let image = Described::new(layers.to_vec()).with_config(config).tagged("latest");
    archives::layout(&[image], how).write_below(directory);
}
