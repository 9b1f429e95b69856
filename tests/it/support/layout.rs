//! Reads an OCI layout as the specification describes it, and checks all that can be checked of it by itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::archives::sha256;

/// A layout's files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// One image of a layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub entry: Value,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// As they are stored.
    pub layers: Vec<Vec<u8>>,
}

impl Found {
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.entry["annotations"][key].as_str()
    }

    pub fn tag(&self) -> Option<&str> {
        self.annotation("org.opencontainers.image.ref.name")
    }

    /// Media types of the layers, without what all have in common.
    pub fn layer_types(&self) -> Vec<String> {
        let manifest: Value = serde_json::from_slice(&self.manifest).unwrap();
        let types = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap());
        types.map(|name| name.strip_prefix("application/vnd.oci.image.layer.v1.").unwrap().to_string()).collect()
    }

    pub fn plain_layers(&self) -> Vec<Vec<u8>> {
        self.layers.iter().map(|layer| plain(layer)).collect()
    }
}

/// What a layer decompresses to, as far as OCI images may be compressed.
pub fn plain(stored: &[u8]) -> Vec<u8> {
    match stored.first_chunk::<4>() {
        Some([0x1f, 0x8b, ..]) => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(stored), &mut plain).unwrap();
            plain
        }
        Some([0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18]) => zstd::decode_all(stored).unwrap(),
        _ => stored.to_vec(),
    }
}

/// All files below a directory.
pub fn files_below(directory: &Path) -> Files {
    let mut files = Files::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(at) = left.pop() {
        for each in fs::read_dir(at).unwrap() {
            let path = each.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_string();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// The images of a layout, in the order of its index. Whatever is wrong with it is a panic.
pub fn images(files: &Files) -> Vec<Found> {
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    for (name, bytes) in files {
        match name.strip_prefix("blobs/sha256/") {
            Some(hex) => assert_eq!(hex, sha256(bytes), "a blob under a wrong name"),
            None => assert!(["oci-layout", "index.json"].contains(&name.as_str()), "{name} has no business there"),
        }
    }
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    index["manifests"].as_array().unwrap().iter().map(|entry| image(files, entry)).collect()
}

fn image(files: &Files, entry: &Value) -> Found {
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    let manifest = blob(files, entry);
    let document: Value = serde_json::from_slice(manifest).unwrap();
    assert_eq!(document["schemaVersion"], 2);
    assert_eq!(document["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    let config = blob(files, &document["config"]);
    let config_json: Value = serde_json::from_slice(config).unwrap();
    assert_eq!(entry["platform"]["os"], "linux");
    assert_eq!(entry["platform"]["architecture"], config_json["architecture"]);
    let layers = document["layers"].as_array().unwrap();
    let diff_ids = config_json["rootfs"]["diff_ids"].as_array().unwrap();
    assert_eq!(layers.len(), diff_ids.len());
    let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        let stored = blob(files, layer);
        assert_eq!(format!("sha256:{}", sha256(&plain(stored))), diff_id.as_str().unwrap());
        let suffix = match stored.first_chunk::<2>() {
            Some([0x1f, 0x8b]) => "+gzip",
            Some([0x28, 0xb5] | [0x50..=0x5f, 0x2a]) => "+zstd",
            _ => "",
        };
        assert_eq!(layer["mediaType"], format!("application/vnd.oci.image.layer.v1.tar{suffix}"));
        stored.clone()
    });
    Found { entry: entry.clone(), manifest: manifest.clone(), config: config.clone(), layers: layers.collect() }
}

fn blob<'a>(files: &'a Files, descriptor: &Value) -> &'a Vec<u8> {
    let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let blob = &files[&format!("blobs/sha256/{hex}")];
    assert_eq!(descriptor["size"], blob.len());
    blob
}

/// The members of a tar, in order.
pub fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let members = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        (name, bytes)
    });
    members.collect()
}

/// The layout in an OCI archive.
pub fn files_of(tar: &[u8]) -> Files {
    let members = members(tar);
    let first: Vec<&str> = members.iter().take(2).map(|(name, _)| name.as_str()).collect();
    assert_eq!(first, ["oci-layout", "index.json"]);
    members.into_iter().filter(|(name, _)| !name.ends_with('/')).collect()
}

/// The one image of a docker-archive: names, config, layers.
pub fn docker(tar: &[u8]) -> (Vec<String>, Vec<u8>, Vec<Vec<u8>>) {
    let files: Files = members(tar).into_iter().collect();
    let items: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(items.as_array().unwrap().len(), 1);
    let texts = |key: &str| -> Vec<String> {
        items[0][key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
    };
    let config = files[items[0]["Config"].as_str().unwrap()].clone();
    assert_eq!(items[0]["Config"], format!("{}.json", sha256(&config)));
    let layers: Vec<Vec<u8>> = texts("Layers").iter().map(|name| files[name].clone()).collect();
    let document: Value = serde_json::from_slice(&config).unwrap();
    let digests: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    assert_eq!(document["rootfs"]["diff_ids"], serde_json::json!(digests), "layers are plain tars");
    assert!(!texts("RepoTags").is_empty());
    (texts("RepoTags"), config, layers)
}
