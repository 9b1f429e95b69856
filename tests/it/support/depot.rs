//! A registry that is written to: what the distribution specification asks of one, with the faults that a test wants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::fake::{Answer, OCI_INDEX, Request};
use super::pack::sha256;

/// What it holds. Clones are the same registry.
#[derive(Clone, Default)]
pub struct Depot {
    pub held: Arc<Mutex<Held>>,
    /// Whether it lists referrers itself.
    pub has_referrers: bool,
}

#[derive(Default)]
pub struct Held {
    /// By repository and tag or digest: media type and document.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    blobs: BTreeMap<(String, String), Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    begun: usize,
}

impl Depot {
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        self.held.lock().unwrap().blobs.get(&(repository.to_string(), digest.to_string())).cloned()
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) {
        let key = (repository.to_string(), format!("sha256:{}", sha256(bytes)));
        self.held.lock().unwrap().blobs.insert(key, bytes.to_vec());
    }

    pub fn lose_blob(&self, repository: &str, digest: &str) {
        let lost = self.held.lock().unwrap().blobs.remove(&(repository.to_string(), digest.to_string()));
        assert!(lost.is_some(), "{digest}");
    }

    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let held = self.held.lock().unwrap();
        held.manifests.get(&(repository.to_string(), name.to_string())).map(|(_, bytes)| bytes.clone())
    }

    pub fn answer(&self, request: &Request) -> Answer {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let Some(path) = path.strip_prefix("/v2/") else { return missing("UNSUPPORTED") };
        if let Some((repository, upload)) = path.split_once("/blobs/uploads/") {
            return self.upload(request, repository, upload, query);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            return self.blob(repository, digest).map_or_else(
                || missing("BLOB_UNKNOWN"),
                |bytes| head_or_get(request, Answer::new(200, "application/octet-stream", bytes)),
            );
        }
        if let Some((repository, subject)) = path.split_once("/referrers/") {
            return if self.has_referrers { self.referrers(repository, subject) } else { missing("NOT_FOUND") };
        }
        if let Some(repository) = path.strip_suffix("/tags/list") {
            let held = self.held.lock().unwrap();
            let names = held.manifests.keys().filter(|(of, name)| of == repository && !name.contains(':'));
            let names: Vec<&String> = names.map(|(_, name)| name).collect();
            return Answer::json(200, json!({ "name": repository, "tags": names }));
        }
        match path.split_once("/manifests/") {
            Some((repository, name)) if request.method == "PUT" => self.put_manifest(request, repository, name),
            Some((repository, name)) => {
                let held = self.held.lock().unwrap();
                let found = held.manifests.get(&(repository.to_string(), name.to_string()));
                let Some((kind, bytes)) = found else { return missing("MANIFEST_UNKNOWN") };
                let digest = format!("sha256:{}", sha256(bytes));
                head_or_get(request, Answer::new(200, kind, bytes.clone()).with("Docker-Content-Digest", &digest))
            }
            None => Answer::new(200, "application/json", "{}"),
        }
    }

    fn upload(&self, request: &Request, repository: &str, upload: &str, query: &str) -> Answer {
        let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut held = self.held.lock().unwrap();
        let key = |digest: &String| (repository.to_string(), digest.clone());
        if request.method == "POST" {
            if let (Some(digest), Some(from)) = (parameters.get("mount"), parameters.get("from"))
                && let Some(bytes) = held.blobs.get(&(from.clone(), digest.clone())).cloned()
            {
                held.blobs.insert(key(digest), bytes);
                return Answer::new(201, "text/plain", "");
            }
            held.begun += 1;
            let name = format!("u{}", held.begun);
            held.uploads.insert(name.clone(), Vec::new());
            return Answer::new(202, "text/plain", "")
                .with("Location", &format!("/v2/{repository}/blobs/uploads/{name}"));
        }
        if request.method == "DELETE" {
            held.uploads.remove(upload);
            return Answer::new(204, "text/plain", "");
        }
        let Some(bytes) = held.uploads.get_mut(upload) else { return missing("BLOB_UPLOAD_UNKNOWN") };
        if let Some((first, _)) = request.header("content-range").and_then(|range| range.split_once('-'))
            && first.parse::<usize>().unwrap() != bytes.len()
        {
            return Answer::new(416, "text/plain", "");
        }
        bytes.extend_from_slice(&request.bytes);
        let at = format!("/v2/{repository}/blobs/uploads/{upload}");
        let range = format!("0-{}", bytes.len().saturating_sub(1));
        match (request.method.as_str(), parameters.get("digest")) {
            ("PUT", Some(digest)) if !request.is_cut => {
                let bytes = held.uploads.remove(upload).unwrap();
                if format!("sha256:{}", sha256(&bytes)) != *digest {
                    return Answer::json(
                        400,
                        json!({ "errors": [{ "code": "DIGEST_INVALID", "message": "other bytes" }] }),
                    );
                }
                held.blobs.insert(key(digest), bytes);
                Answer::new(201, "text/plain", "")
            }
            ("GET", _) => Answer::new(204, "text/plain", "").with("Location", &at).with("Range", &range),
            _ => Answer::new(202, "text/plain", "").with("Location", &at).with("Range", &range),
        }
    }

    fn put_manifest(&self, request: &Request, repository: &str, name: &str) -> Answer {
        let mut held = self.held.lock().unwrap();
        let digest = format!("sha256:{}", sha256(&request.bytes));
        let document: Value = serde_json::from_slice(&request.bytes).unwrap();
        let listed = document["layers"].as_array().into_iter().flatten().chain([&document["config"]]);
        for digest in listed.filter_map(|descriptor| descriptor["digest"].as_str()) {
            if !held.blobs.contains_key(&(repository.to_string(), digest.to_string())) {
                return Answer::json(
                    400,
                    json!({ "errors": [{ "code": "MANIFEST_BLOB_UNKNOWN", "message": digest }] }),
                );
            }
        }
        let stored = (request.header("content-type").unwrap().to_string(), request.bytes.clone());
        for name in [name, &digest] {
            held.manifests.insert((repository.to_string(), name.to_string()), stored.clone());
        }
        let answer = Answer::new(201, "text/plain", "").with("Docker-Content-Digest", &digest);
        match document["subject"]["digest"].as_str() {
            Some(subject) if self.has_referrers => answer.with("OCI-Subject", subject),
            _ => answer,
        }
    }

    fn referrers(&self, repository: &str, subject: &str) -> Answer {
        let held = self.held.lock().unwrap();
        let mut entries = Vec::new();
        for ((of, name), (kind, bytes)) in &held.manifests {
            let document: Value = serde_json::from_slice(bytes).unwrap();
            if of == repository && name.starts_with("sha256:") && document["subject"]["digest"] == subject {
                entries.push(json!({ "mediaType": kind, "digest": name, "size": bytes.len(),
                    "artifactType": document["artifactType"], "annotations": document["annotations"] }));
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        Answer::new(200, OCI_INDEX, index.to_string())
    }
}

fn missing(code: &str) -> Answer {
    Answer::json(404, json!({ "errors": [{ "code": code, "message": "it is not here" }] }))
}

/// HEAD has the length and no body.
fn head_or_get(request: &Request, answer: Answer) -> Answer {
    if request.method != "HEAD" {
        return answer;
    }
    let mut length = 0;
    let answer = answer.spoilt(|bytes| {
        length = bytes.len();
        super::fake::Body::Whole(Vec::new())
    });
    answer.with("Content-Length", &length.to_string())
}
