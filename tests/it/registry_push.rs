//! Pushing: what is sent and what is not, uploads that break, whom credentials go to, and lists of referrers that several
//! write. Docker's own registry where it is installed, and registries of our own with faults.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use sif_convert::io::Compression;
use sif_convert::model::{Digest, Reference};
use sif_convert::output::{Hosting, Transport};
use sif_convert::registry::{
    Content, Login, Mirror, Pushed, Repository, SIF_LAYER, Secret, Settings, SifArtifact, Stored,
};
use sif_convert::{
    Destination, DockerArchive, Error, ErrorKind, Image, Monitor, Oci, OpenOptions, Outcome, Selection, Spec, Target,
    WriteOptions, open,
};

use crate::support::depot::Depot;
use crate::support::fake::{Answer, Fake, OCI_INDEX, OCI_MANIFEST, Request};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive, sha256};
use crate::support::registry::Registry;
use crate::support::run::{self, program, scratch};

/// `user:hunter2` as RFC 7617 has it.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

fn noise(count: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn layers() -> Vec<Vec<u8>> {
    let of = |name: &str, bytes: &[u8]| {
        let mut tar = Vec::new();
        layer::member(&mut tar, name, bytes);
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    vec![of("a", b"lower"), of("big", &noise(300_000)), of("b", b"upper")]
}

fn image_of(source: &str, directory: &Path) -> Image {
    let options = OpenOptions { tmpdir: directory.to_path_buf(), want_layers: true, ..OpenOptions::default() };
    let spec = Spec::parse(source.as_ref()).unwrap();
    open(&spec, &options, &Monitor::default()).unwrap().select(&Selection::default()).unwrap()
}

fn archive(directory: &Path, squeeze: Squeeze) -> Image {
    let path = directory.join("image.tar");
    fs::write(&path, docker_archive(&layers(), squeeze)).unwrap();
    image_of(path.to_str().unwrap(), directory)
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn settings() -> Settings {
    Settings { retries: 3, ..Settings::default() }
}

fn repository(host: &str, name: &str) -> Repository {
    Repository::open(&reference(&format!("{host}/{name}")), &[], &settings(), &Monitor::default()).unwrap()
}

/// Pushes an image under `name`, blobs mounted from `mounts`.
fn push(image: &Image, target: impl Into<Target>, name: &str, mounts: &[&str]) -> Result<Outcome, Error> {
    let mut hosting = Hosting::new(Transport::Docker, reference(name));
    mounts.iter().for_each(|mount| hosting.mount_from(&reference(mount)));
    let mut options = WriteOptions::default();
    options.registry = settings();
    target.into().prepare(&Destination::from(hosting), &options)?.write(image, &Monitor::default())
}

fn digest_of(outcome: &Outcome) -> Digest {
    outcome.manifest_digest.unwrap()
}

fn push_bytes(repository: &Repository, bytes: &[u8]) -> Result<Pushed, Error> {
    repository.push_blob(Digest::of(bytes), bytes.len() as u64, &bytes as &dyn Content)
}

/// A registry whose answers `change` may replace.
fn depot(change: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> (Fake, Depot) {
    let depot = Depot::default();
    let held = depot.clone();
    (Fake::start(move |request| change(request).unwrap_or_else(|| held.answer(request))), depot)
}

fn methods(fake: &Fake) -> Vec<String> {
    fake.log().iter().map(|request| request.method.clone()).collect()
}

#[test]
fn an_image_is_pushed_as_it_is_stored_and_its_manifest_last() {
    let place = scratch();
    let image = archive(place.path(), Squeeze::Not);
    let (fake, depot) = depot(|_| None);
    let name = format!("{}/org/x:1", fake.host());
    let outcome = push(&image, Oci::new(), &name, &[]).unwrap();
    let paths: Vec<String> = fake.log().iter().map(|request| format!("{} {}", request.method, request.path)).collect();
    assert_eq!(paths.last().unwrap(), "PUT /v2/org/x/manifests/1");
    assert_eq!(outcome.pushed.map(|pushed| pushed.uploaded), Some(4));
    for layer in layers() {
        assert_eq!(depot.blob("org/x", &format!("sha256:{}", sha256(&layer))).unwrap(), layer);
    }
    let manifest = depot.manifest("org/x", "1").unwrap();
    assert_eq!(Digest::of(&manifest), digest_of(&outcome));
    // The second time nothing is sent but the manifest.
    let before = fake.log().len();
    let again = push(&image, Oci::new(), &name, &[]).unwrap();
    assert_eq!((digest_of(&again), again.pushed.map(|pushed| pushed.present)), (digest_of(&outcome), Some(4)));
    let again = methods(&fake)[before..].to_vec();
    assert_eq!((again.len(), again.iter().filter(|method| *method == "HEAD").count()), (6, 5));
    // What comes back is what went.
    let done = run::run(program().args([&*format!("docker://{}/org/x:1", fake.host()), "--to", "rootfs", "-o", "-"]));
    let archive = place.path().join("image.tar");
    let saved = run::run(program().arg(archive).args(["--to", "rootfs", "-o", "-"]));
    assert!(done.code == 0 && done.stdout == saved.stdout, "{}", done.stderr);
}

#[test]
fn layers_keep_their_bytes_and_manifests_their_digest() {
    let place = scratch();
    // gzip layers of an archive that does not say their digests.
    let image = archive(place.path(), Squeeze::Gzip);
    let (fake, first) = depot(|_| None);
    let outcome = push(&image, Oci::new(), &format!("{}/x:1", fake.host()), &[]).unwrap();
    let manifest: Value = serde_json::from_slice(&first.manifest("x", "1").unwrap()).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    // From one registry to another: the same manifest, whatever it looks like.
    let odd = format!(" {}\n", String::from_utf8(first.manifest("x", "1").unwrap()).unwrap());
    let odd_digest = repository(&fake.host(), "x").push_manifest("odd", OCI_MANIFEST, odd.as_bytes()).unwrap().digest;
    assert_ne!(odd_digest, digest_of(&outcome));
    let (other, second) = depot(|_| None);
    let pulled = image_of(&format!("docker://{}/x:odd", fake.host()), place.path());
    let copied = push(&pulled, Oci::new(), &format!("{}/y:1", other.host()), &[]).unwrap();
    assert_eq!(digest_of(&copied), odd_digest);
    assert_eq!(second.manifest("y", "1").unwrap(), odd.as_bytes());
    // By Docker's names, and back: the same layers and the same config.
    let docker = push(&pulled, DockerArchive::new(), &format!("{}/y:docker", other.host()), &[]).unwrap();
    assert_eq!((docker.image_id, docker.pushed.map(|pushed| pushed.uploaded)), (Some(image.id()), Some(0)));
    let manifest: Value = serde_json::from_slice(&second.manifest("y", "docker").unwrap()).unwrap();
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    let there = image_of(&format!("docker://{}/y:docker", other.host()), place.path());
    let same = push(&there, DockerArchive::new(), &format!("{}/z:1", fake.host()), &[]).unwrap();
    assert_eq!(digest_of(&same), digest_of(&docker));
    let back = push(&there, Oci::new(), &format!("{}/z:2", fake.host()), &[]).unwrap();
    let (first, back) = (first.manifest("x", "1").unwrap(), (back, first.manifest("z", "2").unwrap()));
    assert_eq!((Digest::of(&first), digest_of(&outcome)), (digest_of(&back.0), Digest::of(&back.1)));
}

/// What the registry has, or takes from another repository, is not asked of the source.
#[test]
fn layers_that_are_there_are_not_read() {
    let place = scratch();
    let image = archive(place.path(), Squeeze::Gzip);
    let (fake, depot) = depot(|_| None);
    let from = format!("{}/base:1", fake.host());
    push(&image, Oci::new(), &from, &[]).unwrap();
    let pulled = image_of(&format!("docker://{from}"), place.path());
    let gets = |fake: &Fake| {
        let log = fake.log();
        log.iter().filter(|request| request.method == "GET" && request.is_for("/blobs/")).count()
    };
    let before = gets(&fake);
    let copied = push(&pulled, Oci::new(), &format!("{}/copy:1", fake.host()), &[&from]).unwrap();
    assert_eq!(copied.pushed.map(|pushed| (pushed.mounted, pushed.uploaded)), Some((4, 0)));
    assert_eq!(gets(&fake), before, "no layer was downloaded");
    assert_eq!(copied.diff_ids, pulled.config.diff_ids().unwrap());
    // A registry that does not mount is not asked again, and gets the bytes.
    let (deaf, _) = self::depot(|request| {
        (request.method == "POST" && request.is_for("mount="))
            .then(|| Answer::json(403, json!({ "errors": [{ "code": "DENIED", "message": "no" }] })))
    });
    let name = format!("{}/copy:1", deaf.host());
    let sent = push(&pulled, Oci::new(), &name, &[&format!("{}/base:1", deaf.host())]).unwrap();
    assert_eq!(sent.pushed.map(|pushed| pushed.uploaded), Some(4));
    assert_eq!(digest_of(&sent), digest_of(&copied));
    assert!((1..=3).contains(&deaf.count("mount=")), "only those that were asked for at once");
    drop(depot);
}

#[test]
fn layers_are_compressed_or_made_one_where_that_is_asked_for() {
    let place = scratch();
    let image = archive(place.path(), Squeeze::Not);
    let (fake, depot) = depot(|_| None);
    let name = |tag: &str| format!("{}/x:{tag}", fake.host());
    let plain = push(&image, Oci::new(), &name("plain"), &[]).unwrap();
    for (tag, target) in [
        ("gzip", Target::from(Oci::new().compression(Compression::GZIP))),
        ("zstd", Oci::new().compression(Compression::ZSTD).into()),
        ("docker", DockerArchive::new().compression(Compression::GZIP).into()),
        ("one", Oci::new().flatten().compression(Compression::GZIP).into()),
    ] {
        let pushed = push(&image, target, &name(tag), &[]).unwrap();
        let manifest: Value = serde_json::from_slice(&depot.manifest("x", tag).unwrap()).unwrap();
        let count = manifest["layers"].as_array().unwrap().len();
        assert_eq!((count, pushed.image_id == plain.image_id), if tag == "one" { (1, false) } else { (3, true) });
        let done = run::run(program().args([&format!("docker://{}", name(tag)), "--to", "rootfs", "-o", "-"]));
        let saved = run::run(program().arg(place.path().join("image.tar")).args(["--to", "rootfs", "-o", "-"]));
        assert!(done.code == 0 && done.stdout == saved.stdout, "{tag}: {}", done.stderr);
    }
    let zstd = image_of(&format!("docker://{}", name("zstd")), place.path());
    let error = push(&zstd, DockerArchive::new(), &name("not"), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(depot.manifest("x", "not").is_none());
}

#[test]
fn blobs_are_mounted_from_other_repositories() {
    let (fake, depot) = depot(|_| None);
    let (here, other) = (noise(5000), noise(6000));
    depot.put_blob("base", &here);
    let mounts = [reference(&format!("{}/base", fake.host())), reference("elsewhere.net/base")];
    let opened = Repository::open(&reference(&format!("{}/x", fake.host())), &mounts, &settings(), &Monitor::default());
    let opened = opened.unwrap();
    assert_eq!(push_bytes(&opened, &here).unwrap(), Pushed::Mounted);
    assert_eq!(methods(&fake), ["HEAD", "POST"]);
    // What is not there is uploaded; the upload that was begun instead of mounting is given up.
    assert_eq!(push_bytes(&opened, &other).unwrap(), Pushed::Uploaded);
    assert_eq!(methods(&fake)[2..], ["HEAD", "POST", "DELETE", "POST", "PUT"]);
    assert_eq!(push_bytes(&opened, &other).unwrap(), Pushed::Present);
}

#[test]
fn uploads_that_break_go_on_where_they_ended() {
    const CUT: usize = 1 << 20;
    let depot = Depot::default();
    let (held, count) = (depot.clone(), AtomicUsize::new(0));
    // Every connection breaks after 1 MiB, every seventh request fails besides.
    let fake = Fake::start_cutting(CUT, move |request| match count.fetch_add(1, Ordering::Relaxed) % 7 {
        5 if !request.is_cut => Answer::new(503, "text/plain", "").with("Retry-After", "0"),
        _ => held.answer(request),
    });
    let bytes = noise(18 * CUT + 12_345);
    assert_eq!(push_bytes(&repository(&fake.host(), "x"), &bytes).unwrap(), Pushed::Uploaded);
    assert!(depot.blob("x", &format!("sha256:{}", sha256(&bytes))).unwrap() == bytes);
    let sent: usize = fake.log().iter().map(|request| request.bytes.len()).sum();
    assert!(sent <= bytes.len() + 2 * CUT, "{sent} bytes were sent for {}", bytes.len());
}

#[test]
fn an_upload_that_is_lost_begins_anew_and_one_that_never_ends_gives_up() {
    let (fake, depot) = depot(|request| {
        let is_lost = request.method == "PUT" && request.is_for("/uploads/u1?");
        is_lost.then(|| Answer::json(500, json!({})).with("Retry-After", "0"))
    });
    // The first upload is forgotten while it is asked how far it has come.
    let bytes = noise(1000);
    assert_eq!(push_bytes(&repository(&fake.host(), "x"), &bytes).unwrap(), Pushed::Uploaded);
    assert!(depot.blob("x", &format!("sha256:{}", sha256(&bytes))).is_some());
    let never = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Answer::new(404, "text/plain", ""),
        "POST" => Answer::new(202, "text/plain", "").with("Location", "/v2/x/blobs/uploads/1"),
        _ => Answer::new(503, "text/plain", "").with("Retry-After", "0"),
    });
    let error = push_bytes(&repository(&never.host(), "x"), &bytes).unwrap_err();
    assert!(error.kind() == ErrorKind::Network && error.to_string().contains("after 4 attempts"), "{error}");
}

/// Pushes a blob that is too large for one request that ends its upload; what it took.
fn push_large(fake: &Fake, depot: &Depot) -> Vec<Request> {
    static LARGE: LazyLock<(Vec<u8>, Digest)> = LazyLock::new(|| {
        let bytes = noise((17 << 20) + 123);
        let digest = Digest::of(&bytes);
        (bytes, digest)
    });
    let (bytes, digest) = &*LARGE;
    let pushed = repository(&fake.host(), "x").push_blob(*digest, bytes.len() as u64, &bytes.as_slice());
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert!(depot.blob("x", &digest.to_string()).unwrap() == *bytes);
    fake.log()
}

fn patches(log: &[Request]) -> Vec<&Request> {
    log.iter().filter(|request| request.method == "PATCH").collect()
}

/// One that takes no request of more bytes.
fn limited(bytes_max: usize) -> impl Fn(&Request) -> Option<Answer> {
    move |request| (request.bytes.len() > bytes_max).then(|| Answer::new(413, "text/html", "<h1>too large</h1>"))
}

#[test]
fn a_large_blob_is_sent_at_once_where_parts_of_it_are_limited_or_refused() {
    // As GitHub's registry is.
    let (fake, held) = depot(|request| {
        let is_refused = request.header("content-range").is_some() && request.bytes.len() > 4 << 20;
        is_refused.then(|| Answer::new(416, "text/plain", ""))
    });
    push_large(&fake, &held);
    assert_eq!(methods(&fake), ["HEAD", "POST", "PATCH", "PUT"]);
    // As Google's are.
    let (fake, held) = depot(|request| {
        let is_refused = request.method == "PATCH" && request.header("content-range").is_some();
        is_refused.then(|| Answer::new(400, "text/plain", ""))
    });
    push_large(&fake, &held);
    assert_eq!(methods(&fake), ["HEAD", "POST", "PATCH", "PUT"]);
}

/// The same where the first request broke, so that the rest is a part.
#[test]
fn a_large_blob_that_broke_arrives_where_parts_of_it_are_limited_or_refused() {
    for status in [416, 400] {
        let held = Depot::default();
        let (depot, is_broken) = (held.clone(), AtomicBool::new(false));
        let fake = Fake::start(move |request| {
            let bytes_max = if status == 416 { 4 << 20 } else { 0 };
            if request.header("content-range").is_some() && request.bytes.len() > bytes_max {
                return Answer::new(status, "text/plain", "");
            }
            if request.method != "PATCH" || is_broken.swap(true, Ordering::Relaxed) {
                return depot.answer(request);
            }
            // Half of it has arrived.
            let half = Request { bytes: request.bytes[..8 << 20].to_vec(), ..request.clone() };
            depot.answer(&half);
            Answer::new(503, "text/plain", "").with("Retry-After", "0")
        });
        let log = push_large(&fake, &held);
        let parts = patches(&log);
        // What GitHub's has need not be sent again; Google's has all of it sent anew.
        assert_eq!(parts.len(), if status == 416 { 5 } else { 3 }, "{status}");
    }
}

#[test]
fn what_a_registry_says_of_chunks_need_not_be_true() {
    for range in ["0-0", "0-4194303"] {
        let held = Depot::default();
        let (depot, limit) = (held.clone(), limited(5 << 20));
        let fake = Fake::start(move |request| {
            let mut answer = limit(request).unwrap_or_else(|| depot.answer(request));
            let stated = answer.headers.iter_mut().filter(|(name, _)| name == "Range");
            stated.for_each(|(_, value)| *value = range.to_string());
            answer
        });
        let log = push_large(&fake, &held);
        assert_eq!(patches(&log).len(), 6, "{range}: one that is too large, and five chunks");
    }
}

#[test]
fn a_large_blob_is_sent_with_put_or_in_small_chunks_where_nothing_else_is_taken() {
    let (fake, held) = depot(|request| (request.method == "PATCH").then(|| Answer::new(405, "text/plain", "")));
    push_large(&fake, &held);
    assert_eq!(methods(&fake), ["HEAD", "POST", "PATCH", "PUT"]);
    let (fake, held) = depot(limited(1 << 20));
    push_large(&fake, &held);
    assert!(!methods(&fake).contains(&"GET".to_string()), "nothing broke");
    // A registry that wants large chunks gets them.
    let held = Depot::default();
    let (inner, limit) = (held.clone(), limited(10 << 20));
    let fake = Fake::start(move |request| {
        let answer = limit(request).unwrap_or_else(|| inner.answer(request));
        if request.method == "POST" { answer.with("OCI-Chunk-Min-Length", "8388608") } else { answer }
    });
    let log = push_large(&fake, &held);
    let lengths: Vec<usize> = patches(&log)[1..].iter().map(|request| request.bytes.len()).collect();
    assert_eq!(lengths, [8 << 20, 8 << 20, (1 << 20) + 123]);
}

#[test]
fn a_mount_that_fails_is_an_upload() {
    let (fake, held) = depot(|request| {
        let broken = || Answer::json(500, json!({})).with("Retry-After", "0");
        request.is_for("mount=").then(broken)
    });
    let mounts = [reference(&format!("{}/base", fake.host()))];
    let opened = Repository::open(&reference(&format!("{}/x", fake.host())), &mounts, &settings(), &Monitor::default());
    let (opened, bytes) = (opened.unwrap(), noise(1000));
    assert_eq!(push_bytes(&opened, &bytes).unwrap(), Pushed::Uploaded);
    assert_eq!(held.blob("x", &format!("sha256:{}", sha256(&bytes))).unwrap(), bytes);
    assert_eq!(push_bytes(&opened, &noise(1001)).unwrap(), Pushed::Uploaded);
    assert_eq!(fake.count("mount="), 4, "it is not asked for more of them");
}

/// What is in between breaks connections that bring much, and the registry keeps nothing of what broke.
#[test]
fn a_large_blob_gets_through_where_only_small_requests_do() {
    for bytes_max in [5 << 20, 2 << 20] {
        let held = Depot::default();
        let depot = held.clone();
        let fake = Fake::start_cutting(bytes_max, move |request| match request.is_cut {
            true => Answer::new(500, "text/plain", ""),
            false => depot.answer(request),
        });
        let log = push_large(&fake, &held);
        let cut = log.iter().filter(|request| request.is_cut).count();
        assert_eq!(cut, if bytes_max > 4 << 20 { 2 } else { 3 });
    }
}

#[test]
fn what_the_registry_received_otherwise_is_a_mismatch() {
    let (fake, _) = depot(|_| None);
    let repository = repository(&fake.host(), "x");
    let error = repository.push_blob(Digest::of(b"right"), 5, &&b"wrong"[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    let error = repository.push_blob(Digest::of(b"right"), 6, &&b"right"[..]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    let other = Fake::start(|_| {
        Answer::new(201, "text/plain", "").with("Docker-Content-Digest", &format!("sha256:{}", "0".repeat(64)))
    });
    let error = self::repository(&other.host(), "x").push_manifest("1", OCI_MANIFEST, b"{}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    for status in [400, 403, 409, 412] {
        let words = json!({ "errors": [{ "code": "TAG_INVALID", "message": "the repository is Immutable" }] });
        let kept = Fake::start(move |_| Answer::json(status, words.clone()));
        let error = self::repository(&kept.host(), "x").push_manifest("1", OCI_MANIFEST, b"{}").unwrap_err();
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Network, Some("choose another tag")), "{error}");
    }
    let refusing = Fake::start(|request| match request.method.as_str() {
        "HEAD" => Answer::new(404, "text/plain", ""),
        _ => Answer::json(403, json!({ "errors": [{ "code": "DENIED", "message": "read only" }] })),
    });
    let error = push_bytes(&self::repository(&refusing.host(), "x"), b"x").unwrap_err();
    assert!(error.kind() == ErrorKind::Network && error.to_string().contains("DENIED"), "{error}");
}

fn with_login(fake: &Fake) -> Repository {
    let login = Some(Login { username: "user".into(), password: Secret::new("hunter2") });
    let settings = Settings { login, ..settings() };
    Repository::open(&reference(&format!("{}/x", fake.host())), &[], &settings, &Monitor::default()).unwrap()
}

/// Where a registry has uploads sent to another server, that one sees no credentials, even if it asks for them.
#[test]
fn uploads_elsewhere_get_no_credentials() {
    let (elsewhere, there) = depot(|request| {
        assert!(request.header("authorization").is_none(), "credentials went elsewhere");
        None
    });
    let begun = Arc::new(elsewhere);
    let to = Arc::clone(&begun);
    let (fake, here) = depot(move |request| match request.header("authorization") {
        None => Some(Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\"")),
        Some(BASIC) if request.method == "POST" => {
            // Both begin their first upload.
            let client = std::net::TcpStream::connect(to.address).unwrap();
            use std::io::{Read, Write};
            (&client).write_all(b"POST /v2/x/blobs/uploads/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n").unwrap();
            (&client).read_to_string(&mut String::new()).unwrap();
            let location = format!("http://{}/v2/x/blobs/uploads/u1", to.host());
            Some(Answer::new(202, "text/plain", "").with("Location", &location))
        }
        Some(_) => None,
    });
    let bytes = noise(1000);
    assert_eq!(push_bytes(&with_login(&fake), &bytes).unwrap(), Pushed::Uploaded);
    let digest = format!("sha256:{}", sha256(&bytes));
    assert!(there.blob("x", &digest).is_some() && here.blob("x", &digest).is_none());

    let asking = Arc::new(Fake::start(|request| {
        assert!(request.header("authorization").is_none(), "credentials went elsewhere");
        Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\"")
    }));
    let to = asking.host();
    let (fake, _) = depot(move |request| match request.header("authorization") {
        None => Some(Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\"")),
        Some(_) if request.method == "POST" => {
            Some(Answer::new(202, "text/plain", "").with("Location", &format!("http://{to}/v2/x/blobs/uploads/u1")))
        }
        Some(_) => None,
    });
    let error = push_bytes(&with_login(&fake), &bytes).unwrap_err();
    assert!(error.to_string().contains("(401)") && !asking.log().is_empty(), "{error}");
}

/// Some take uploads on their own server, but not below the repository.
#[test]
fn uploads_at_another_path_of_the_registry_get_its_credentials() {
    let (fake, depot) = depot(|_| None);
    let held = depot.clone();
    drop(fake);
    let fake = Fake::start(move |request| {
        if request.header("authorization") != Some(BASIC) {
            return Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        let mut inner = request.clone();
        inner.path = request.path.replace("/storage/", "/v2/x/blobs/uploads/");
        let mut answer = held.answer(&inner);
        for (name, value) in &mut answer.headers {
            if name == "Location" {
                *value = value.replace("/v2/x/blobs/uploads/", "/storage/");
            }
        }
        answer
    });
    assert_eq!(push_bytes(&with_login(&fake), &noise(1000)).unwrap(), Pushed::Uploaded);
}

#[test]
fn tokens_are_asked_for_pull_and_push_and_mirrors_are_not_written_to() {
    let tokens = Fake::start(|_| Answer::json(200, json!({ "token": "t", "expires_in": 300 })));
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:x:pull\"", tokens.host());
    let (fake, depot) = depot(move |request| match request.header("authorization") {
        Some("Bearer t") => None,
        _ => Some(Answer::new(401, "text/plain", "").with("WWW-Authenticate", &realm)),
    });
    depot.put_blob("base", b"base");
    let mirror = Fake::start(|_| Answer::new(200, "text/plain", ""));
    let mirrors = vec![Mirror { of: fake.host(), host: mirror.host(), prefix: String::new() }];
    let settings = Settings { mirrors, ..settings() };
    let mounts = [reference(&format!("{}/base", fake.host()))];
    let opened = Repository::open(&reference(&format!("{}/x", fake.host())), &mounts, &settings, &Monitor::default());
    let opened = opened.unwrap();
    assert_eq!(push_bytes(&opened, b"base").unwrap(), Pushed::Mounted);
    assert_eq!(push_bytes(&opened, b"more").unwrap(), Pushed::Uploaded);
    let asked = tokens.log();
    assert_eq!(asked.len(), 1, "one token is enough");
    assert!(asked[0].is_for("scope=repository%3Ax%3Apull%2Cpush&scope=repository%3Abase%3Apull"), "{}", asked[0].path);
    assert_eq!(mirror.log().len(), 0);
}

/// A SIF that refers to `subject`, told apart by a number.
fn attach(repository: &Repository, subject: (Digest, u64), number: usize) -> Stored {
    let bytes = format!("SIF {number}").into_bytes();
    let content: &[u8] = &bytes;
    let number = number.to_string();
    let annotations = [("org.example.number", number.as_str())];
    let mut sif = SifArtifact::new(Digest::of(content), content.len() as u64, &content, "x.sif");
    sif.subject = Some((OCI_MANIFEST, subject.0, subject.1));
    sif.annotations = &annotations;
    repository.push_sif(&sif, None).unwrap().0
}

/// Several attach at once; all are listed, whichever way.
fn nothing_is_lost(host: &str) {
    let place = scratch();
    let image = archive(place.path(), Squeeze::Not);
    let repository = repository(host, "org/x");
    let subject = digest_of(&push(&image, Oci::new(), &format!("{host}/org/x:1"), &[]).unwrap());
    let bytes = repository.manifest("1").unwrap().unwrap().len() as u64;
    assert_eq!(repository.referrers(subject, None).unwrap(), []);
    let attached: Vec<Stored> = std::thread::scope(|scope| {
        let writer = |number| {
            let own = self::repository(host, "org/x");
            scope.spawn(move || attach(&own, (subject, bytes), number))
        };
        let writers: Vec<_> = (0..5).map(writer).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let listed = || {
        let found = repository.referrers(subject, Some(SIF_LAYER)).unwrap();
        let mut digests: Vec<String> = found.iter().map(|entry| entry.digest().to_string()).collect();
        digests.sort();
        digests
    };
    let mut expected: Vec<String> = attached.iter().map(|stored| stored.digest.to_string()).collect();
    expected.sort();
    assert_eq!(listed(), expected);
    let entry = repository.referrers(subject, Some(SIF_LAYER)).unwrap().remove(0);
    assert!(entry.annotations().as_ref().unwrap().contains_key("org.example.number"));
    // Twice changes nothing.
    attach(&repository, (subject, bytes), 3);
    assert_eq!(listed(), expected);
    assert_eq!(repository.referrers(subject, Some("application/x-other")).unwrap(), []);
}

#[test]
fn referrers_are_listed_by_a_registry_that_keeps_them() {
    let depot = Depot { has_referrers: true, ..Depot::default() };
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    nothing_is_lost(&fake.host());
    assert_eq!(fake.count("/manifests/sha256-"), 0, "the tag is for registries that keep no list");
}

/// A registry behind a proxy may link to itself under another name: the list goes on where it began.
#[test]
fn a_list_of_referrers_goes_on_where_it_began() {
    let elsewhere = Arc::new(Fake::start(|_| Answer::new(500, "text/plain", "")));
    let entry = |number: usize| {
        json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(&[number as u8]).to_string(), "size": 1,
            "artifactType": SIF_LAYER })
    };
    let list_of = move |pages: usize| {
        let link = format!("http://{}/other", elsewhere.host());
        move |request: &Request| {
            let number = request.path.split_once("page=").map_or(0, |(_, number)| number.parse().unwrap());
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(number)] });
            let answer = Answer::new(200, OCI_INDEX, index.to_string()).with("Link", "</first>; rel=first");
            assert!(number == 0 || request.path.starts_with("/v2/x/referrers/sha256:"), "{}", request.path);
            match number + 1 < pages {
                true => answer.with("Link", &format!("<{link}?page={}>; title=\"a, b\"; rel=next", number + 1)),
                false => answer,
            }
        }
    };
    let listed = |fake: &Fake| repository(&fake.host(), "x").referrers(Digest::of(b"it"), Some(SIF_LAYER));
    assert_eq!(listed(&Fake::start(list_of(64))).unwrap().len(), 64);
    let error = listed(&Fake::start(list_of(65))).unwrap_err();
    assert!(error.kind() == ErrorKind::Network && error.to_string().contains("more than 64 pages"), "{error}");
}

/// The blob is sent, which costs less than to download it; the manifest is looked at.
#[test]
fn what_is_there_is_found_out_without_head() {
    for status in [405, 501] {
        let (fake, held) =
            depot(move |request| (request.method == "HEAD").then(|| Answer::new(status, "text/plain", "")));
        let repository = repository(&fake.host(), "x");
        held.put_blob("x", b"there");
        assert_eq!(push_bytes(&repository, b"there").unwrap(), Pushed::Uploaded);
        assert!(!repository.has_manifest("1").unwrap());
        repository.push_manifest("1", OCI_MANIFEST, b"{}").unwrap();
        assert!(repository.has_manifest("1").unwrap());
    }
}

#[test]
fn referrers_are_kept_under_a_tag_where_the_registry_keeps_none() {
    // Slow, so that writers do meet.
    let (fake, _) = depot(|request| {
        if request.is_for("/manifests/sha256-") {
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        None
    });
    nothing_is_lost(&fake.host());
}

#[test]
fn entries_that_do_not_say_what_they_are_are_looked_at() {
    let (fake, _) = depot(|_| None);
    let repository = repository(&fake.host(), "x");
    let subject = Digest::of(b"some image");
    attach(&repository, (subject, 10), 1);
    let tag = format!("sha256-{}", subject.hex());
    let mut index: Value = serde_json::from_slice(&repository.manifest(&tag).unwrap().unwrap()).unwrap();
    index["manifests"][0].as_object_mut().unwrap().remove("artifactType");
    index["manifests"].as_array_mut().unwrap().push(json!("nonsense"));
    repository.push_manifest(&tag, OCI_INDEX, index.to_string().as_bytes()).unwrap();
    assert_eq!(repository.referrers(subject, Some(SIF_LAYER)).unwrap().len(), 1);
    // What others wrote stays as it is when an entry is added.
    attach(&repository, (subject, 10), 2);
    let after: Value = serde_json::from_slice(&repository.manifest(&tag).unwrap().unwrap()).unwrap();
    assert_eq!(after["manifests"].as_array().unwrap()[..2], index["manifests"].as_array().unwrap()[..]);
}

#[test]
fn dockers_registry_takes_what_is_pushed_docker() {
    let place = scratch();
    let Some(registry) = Registry::start(place.path(), "", "") else { return };
    nothing_is_lost(&registry.host);
    let big = noise(20 << 20);
    let repository = repository(&registry.host, "org/x");
    assert_eq!(push_bytes(&repository, &big).unwrap(), Pushed::Uploaded);
    assert_eq!(push_bytes(&repository, &big).unwrap(), Pushed::Present);
    let mounts = [reference(&format!("{}/org/x", registry.host))];
    let other = reference(&format!("{}/org/y", registry.host));
    let other = Repository::open(&other, &mounts, &settings(), &Monitor::default()).unwrap();
    assert_eq!(push_bytes(&other, &big).unwrap(), Pushed::Mounted);
    let done = run::run(program().args(["inspect", "--json", &format!("docker://{}/org/x:1", registry.host)]));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

#[test]
fn others_read_what_is_pushed_oracle() {
    let Some(oracles) = run::oracles() else { return };
    let place = scratch();
    let Some(registry) = Registry::start(place.path(), "", "") else { return };
    let image = archive(place.path(), Squeeze::Gzip);
    let repository = repository(&registry.host, "org/x");
    let digest = digest_of(&push(&image, Oci::new(), &format!("{}/org/x:1", registry.host), &[]).unwrap());
    let bytes = repository.manifest("1").unwrap().unwrap().len() as u64;
    attach(&repository, (digest, bytes), 1);
    let name = format!("{}/org/x", registry.host);
    let script = format!(
        "skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{name}:1; crane validate --insecure --remote {name}:1 >&2; \
         skopeo copy --quiet --insecure-policy --src-tls-verify=false docker://{name}:1 oci:copied"
    );
    let done = run::run(oracles.run(place.path()).args(["sh", "-euc", &script]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(String::from_utf8(done.stdout).unwrap().trim(), digest.to_string());
}
