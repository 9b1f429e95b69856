//! Addresses that a manifest names for its layers: only those of layers that registries need not have are asked, only when
//! the registry has none, and none that would make us reach what only this machine can.

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::fake::{Answer, Fake, OCI_MANIFEST, Repository};
use crate::support::layer;
use crate::support::run::{Run, program, run, scratch};

const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
const ORDINARY: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A repository with one layer of this media type and these addresses; and the layer.
fn with_urls(media_type: &str, urls: &[String]) -> (Repository, String, Vec<u8>) {
    let mut tar = Vec::new();
    layer::member(&mut tar, "a", b"text");
    tar.resize(tar.len() + 1024, 0);
    let mut repository = Repository::of(&[tar]);
    let mut manifest: Value = serde_json::from_slice(&repository.manifests["1"].1).unwrap();
    let layer = &mut manifest["layers"][0];
    layer["mediaType"] = media_type.into();
    layer["urls"] = json!(urls);
    let digest = layer["digest"].as_str().unwrap().to_string();
    let descriptor = repository.add_manifest(OCI_MANIFEST, &manifest);
    repository.tag("1", &descriptor);
    let bytes = repository.blobs[&digest].clone();
    (repository, digest, bytes)
}

fn command(source: &str) -> Command {
    let place = scratch();
    let mut command = program();
    command.arg(source).args(["--to", "rootfs", "-o", "-", "--retries", "0"]).env("HOME", place.path());
    command
}

fn trap() -> Fake {
    Fake::start(|_| Answer::new(200, "text/plain", "what only this machine may read"))
}

#[test]
fn addresses_of_ordinary_layers_are_never_asked() {
    for is_there in [true, false] {
        let trap = trap();
        let (mut repository, digest, _) = with_urls(ORDINARY, &[format!("http://{}/secret", trap.host())]);
        if !is_there {
            repository.blobs.remove(&digest);
        }
        let fake = Fake::start(move |request| repository.answer(request));
        let done = run(&mut command(&format!("docker://{}/x:1", fake.host())));
        assert_eq!(done.code, if is_there { 0 } else { 3 }, "{}", done.stderr);
        assert_eq!(trap.log().len(), 0);
    }
}

#[test]
fn the_registry_is_asked_before_the_addresses_of_a_foreign_layer() {
    for media_type in [FOREIGN, NONDISTRIBUTABLE] {
        let trap = trap();
        let (repository, ..) = with_urls(media_type, &[format!("http://{}/secret", trap.host())]);
        let fake = Fake::start(move |request| repository.answer(request));
        let done = run(&mut command(&format!("docker://{}/x:1", fake.host())));
        assert_eq!((done.code, trap.log().len()), (0, 0), "{}", done.stderr);
    }
    // One that refuses is not one that has none.
    let trap = trap();
    let (repository, digest, _) = with_urls(FOREIGN, &[format!("http://{}/secret", trap.host())]);
    let fake = Fake::start(move |request| match request.is_for(&digest) {
        true => Answer::new(403, "text/plain", ""),
        false => repository.answer(request),
    });
    let done = run(&mut command(&format!("docker://{}/x:1", fake.host())));
    assert_eq!((done.code, trap.log().len()), (6, 0), "{}", done.stderr);
}

/// A registry somewhere else: it is reached through a proxy, for there is none here.
fn from_far_away(urls: &[String], vendor: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Run {
    let (mut repository, digest, bytes) = with_urls(FOREIGN, urls);
    repository.blobs.remove(&digest);
    let proxy = Fake::start(move |request| {
        let host = request.header("host").unwrap_or_default();
        match vendor(host) {
            Some(answer) => answer,
            None if host.starts_with("vendor.") => Answer::new(200, "application/octet-stream", bytes.clone()),
            None => repository.answer(request),
        }
    });
    let mut command = command("docker://registry.invalid/x:1");
    command.args(["--insecure", "registry.invalid"]).env("HTTP_PROXY", format!("http://{}", proxy.host()));
    run(&mut command)
}

#[test]
fn addresses_of_this_machine_and_its_network_are_not_asked() {
    let done = from_far_away(&["http://vendor.invalid/layer".to_string()], |_| None);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let trap = Arc::new(trap());
    let port = trap.address.port();
    for (address, words) in [
        (format!("127.0.0.1:{port}"), "an address of this machine"),
        (format!("localhost:{port}"), "an address of this machine"),
        (format!("[::ffff:127.0.0.1]:{port}"), "an address of this machine"),
        (format!("0.0.0.0:{port}"), "an address of this machine"),
        ("169.254.169.254".to_string(), "a link-local address"),
        ("10.0.0.1".to_string(), "an address of a private network"),
        ("192.168.1.1:8080".to_string(), "an address of a private network"),
        ("[fd00::1]".to_string(), "an address of a private network"),
    ] {
        let done = from_far_away(&[format!("http://{address}/secret")], |_| None);
        assert_eq!(done.code, 6, "{address}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{address}: {}", done.stderr);
        // Neither where somebody else leads there.
        let to = format!("http://{address}/secret");
        let lead = move |host: &str| (host == "vendor.invalid").then(|| Answer::redirect(&to));
        let done = from_far_away(&["http://vendor.invalid/layer".to_string()], lead);
        assert_eq!(done.code, 6, "{address}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{address}: {}", done.stderr);
        // The next address is tried.
        let urls = [format!("http://{address}/secret"), "http://vendor.invalid/layer".to_string()];
        assert_eq!(from_far_away(&urls, |_| None).code, 0, "{address}");
    }
    assert_eq!(trap.log().len(), 0, "{:?}", trap.log());
}
