//! Local sources: archives in the shape of every producer open, and give the same image; damaged and hostile ones give
//! errors that say what is wrong.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::archives::{self, Described, Members, PRODUCERS, Packed, Squeeze, WRAPPERS, descriptor, sha256};
use crate::support::tar::{self, Tar};
use serde_json::{Value, json};
use sif_convert::image::Image;
use sif_convert::io::Monitor;
use sif_convert::model::{Digest, Platform};
use sif_convert::source::{OpenOptions, Selection, Source, Spec, open};
use sif_convert::{Error, ErrorKind};

/// A directory with a file `x.tar`, and a directory for temporaries.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tmp")).unwrap();
        Bench { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("x.tar");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, word: impl AsRef<OsStr>) -> Result<Source, Error> {
        self.open_with(word, true)
    }

    fn open_with(&self, word: impl AsRef<OsStr>, want_layers: bool) -> Result<Source, Error> {
        let options = OpenOptions { tmpdir: self.path("tmp"), want_layers, ..OpenOptions::default() };
        open(&Spec::parse(word.as_ref()).unwrap(), &options, &Monitor::default())
    }

    fn open_bytes(&self, bytes: &[u8]) -> Result<Source, Error> {
        self.open(self.file(bytes))
    }
}

fn layer(name: &str) -> Vec<u8> {
    Tar::new().file(name, format!("contents of {name}")).finish()
}

/// Three layers, the first of which comes again as the last.
fn first_image() -> Described {
    let layers = vec![layer("base"), layer("middle"), layer("base")];
    Described { comment: "first".into(), ..Described::new(layers) }.tagged("example.org/first:1")
}

fn second_image() -> Described {
    let layers = vec![layer("base"), layer("top")];
    let image = Described { comment: "second".into(), ..Described::new(layers) };
    image.tagged("debian:12").tagged("localhost:5000/second:latest")
}

fn by_image(image: &str) -> Selection {
    Selection { image: Some(image.into()), platform: None }
}

fn by_platform(platform: &str) -> Selection {
    Selection { image: None, platform: Some(platform.parse::<Platform>().unwrap()) }
}

/// What a stored layer is once it is decompressed.
fn plain(image: &Image, at: usize) -> Vec<u8> {
    let blob = &image.layers[at].blob;
    let mut stored = Vec::new();
    image.blobs.open(blob).unwrap().read_to_end(&mut stored).unwrap();
    let region = image.blobs.region(blob).unwrap().expect("a region");
    let mut again = Vec::new();
    region.reader().read_to_end(&mut again).unwrap();
    assert_eq!(stored, again, "the region is not what is read");
    if let Some(digest) = blob.digest {
        assert_eq!(digest.hex(), sha256(&stored), "the digest of {}", blob.key);
    }
    if let Some(size) = blob.size {
        assert_eq!(size, stored.len() as u64, "the size of {}", blob.key);
    }
    match stored.first_chunk::<4>() {
        Some([0x1f, 0x8b, ..]) => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&stored[..]).read_to_end(&mut plain).unwrap();
            plain
        }
        Some([0x28, 0xb5, 0x2f, 0xfd]) => zstd::decode_all(&stored[..]).unwrap(),
        _ => stored,
    }
}

fn check(image: &Image, described: &Described, config: &[u8], what: &str) {
    assert_eq!(&image.config.raw()[..], config, "{what}: config");
    assert_eq!(image.id().hex(), sha256(config), "{what}: image ID");
    assert_eq!(image.layers.len(), described.layers.len(), "{what}: number of layers");
    for (at, layer) in described.layers.iter().enumerate() {
        assert_eq!(&plain(image, at), layer, "{what}: layer {at}");
        if !what.contains("1.9") {
            let diff_id = image.layers[at].diff_id.unwrap();
            assert_eq!(diff_id.hex(), sha256(layer), "{what}: diff_id {at}");
        }
    }
    let mut names: Vec<&str> = image.names.iter().map(String::as_str).collect();
    let mut expected: Vec<&str> = described.tags.iter().map(|tag| full(tag)).collect();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "{what}: names");
}

fn full(tag: &str) -> &str {
    if tag == "debian:12" { "docker.io/library/debian:12" } else { tag }
}

fn check_packed(bench: &Bench, packed: &Packed, images: &[Described], what: &str) {
    let source = bench.open_bytes(&packed.bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(source.kind(), packed.kind, "{what}");
    let present = source.images().into_iter().filter(|candidate| candidate.absent.is_none()).count();
    assert_eq!(present, images.len(), "{what}: {source:?}");
    for (described, config) in images.iter().zip(&packed.configs) {
        for tag in &described.tags {
            let image = source.select(&by_image(tag)).unwrap_or_else(|error| panic!("{what}, {tag}: {error}"));
            check(&image, described, config, what);
        }
        let image = source.select(&by_image(&sha256(config)[..12])).unwrap();
        check(&image, described, config, what);
    }
}

#[test]
fn one_image_of_every_producer() {
    let bench = Bench::new();
    for (producer, pack, _) in PRODUCERS {
        let images = [first_image()];
        let packed = pack(&images);
        check_packed(&bench, &packed, &images, producer);
        let image = bench.open_bytes(&packed.bytes).unwrap().select(&Selection::default()).unwrap();
        check(&image, &images[0], &packed.configs[0], producer);
    }
}

#[test]
fn several_images_of_every_producer() {
    let bench = Bench::new();
    let mut producers = 0;
    for (producer, pack, several) in PRODUCERS {
        if several {
            let images = [first_image(), second_image()];
            let packed = pack(&images);
            check_packed(&bench, &packed, &images, producer);
            let error = bench.open_bytes(&packed.bytes).unwrap().select(&Selection::default()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Usage, "{producer}: {error}");
            let text = error.to_string();
            assert!(text.contains("example.org/first:1") && text.contains("library/debian:12"), "{producer}: {text}");
            producers += 1;
        }
    }
    assert!(producers > 10);
}

#[test]
fn untagged_images_of_every_producer() {
    let bench = Bench::new();
    let untagged = |image: Described| Described { tags: Vec::new(), ..image };
    for (producer, pack, several) in PRODUCERS {
        let mut images = vec![untagged(first_image())];
        if several {
            images.push(untagged(second_image()));
        }
        check_packed(&bench, &pack(&images), &images, producer);
    }
}

#[test]
fn images_without_layers() {
    let bench = Bench::new();
    for (producer, pack, _) in PRODUCERS.iter().filter(|(producer, ..)| *producer != "docker 1.9") {
        let images = [Described::new(Vec::new()).tagged("example.org/empty:1")];
        check_packed(&bench, &pack(&images), &images, producer);
    }
}

#[test]
fn every_compression_of_every_producer() {
    let bench = Bench::new();
    for (producer, pack, _) in PRODUCERS {
        let images = [first_image()];
        let packed = pack(&images);
        if producer == "regctl" {
            continue; // is compressed as it is
        }
        for (wrapper, wrap) in WRAPPERS {
            let wrapped = Packed { bytes: wrap(&packed.bytes), kind: packed.kind, configs: packed.configs.clone() };
            check_packed(&bench, &wrapped, &images, &format!("{producer} in {wrapper}"));
        }
    }
    assert_eq!(std::fs::read_dir(bench.path("tmp")).unwrap().count(), 0, "temporaries are left behind");
}

#[test]
fn looking_at_a_compressed_archive_writes_nothing() {
    let bench = Bench::new();
    std::fs::remove_dir(bench.path("tmp")).unwrap();
    for (producer, pack, _) in PRODUCERS {
        let packed = pack(&[first_image()]);
        let path = bench.file(&archives::gzip(&packed.bytes));
        let path = if producer == "regctl" { bench.file(&packed.bytes) } else { path };
        let source = bench.open_with(&path, false).unwrap_or_else(|error| panic!("{producer}: {error}"));
        let image = source.select(&Selection::default()).unwrap();
        assert_eq!(&image.config.raw()[..], packed.configs[0], "{producer}");
        assert_eq!(image.layers.len(), 3, "{producer}");
        assert!(image.blobs.region(&image.layers[0].blob).unwrap().is_none());
        assert!(image.blobs.open(&image.layers[0].blob).is_err(), "{producer}: layers were passed over");
        let kind = bench.open(&path).unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Output), "with layers a directory for temporaries is needed: {kind:?}");
    }
}

#[test]
fn a_named_pipe_is_read_once() {
    let bench = Bench::new();
    let images = [first_image()];
    let packed = archives::docker_29(&images);
    let pipe = bench.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let bytes = packed.bytes.clone();
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::write(pipe, bytes).unwrap()
    });
    let source = bench.open(&pipe).unwrap();
    writer.join().unwrap();
    check(&source.select(&Selection::default()).unwrap(), &images[0], &packed.configs[0], "pipe");
}

#[test]
fn layout_directories() {
    let bench = Bench::new();
    let images = [first_image(), second_image()];
    archives::layout(&images, Squeeze::Gzip).write_below(&bench.path("layout"));
    let words = [bench.path("layout").into_os_string(), format!("oci:{}", bench.path("layout").display()).into()];
    for word in words {
        let source = bench.open(&word).unwrap();
        assert_eq!(source.kind(), "oci");
        for described in &images {
            let image = source.select(&by_image(&described.tags[0])).unwrap();
            check(&image, described, &described.config(), "layout");
            assert!(image.layers.iter().all(|layer| layer.blob.size.is_some() && layer.blob.digest.is_some()));
        }
    }
    let word = format!("oci:{}:debian:12", bench.path("layout").display());
    check(&bench.open(word).unwrap().select(&Selection::default()).unwrap(), &images[1], &images[1].config(), "ref");
}

#[test]
fn a_blob_of_a_layout_is_a_regular_file() {
    let bench = Bench::new();
    let image = first_image();
    archives::layout(std::slice::from_ref(&image), Squeeze::Not).write_below(&bench.path("layout"));
    let blob = bench.path("layout/blobs/sha256").join(sha256(&image.layers[1]));
    std::fs::rename(&blob, bench.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(bench.path("elsewhere"), &blob).unwrap();
    let selected = bench.open(bench.path("layout")).unwrap().select(&Selection::default()).unwrap();
    assert_eq!(plain(&selected, 1), image.layers[1], "a link is followed as the system does");
    std::fs::remove_file(&blob).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&blob).status().unwrap().success());
    let error = bench.open(bench.path("layout")).unwrap().select(&Selection::default()).err().unwrap();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    let stray =
        sif_convert::image::BlobRef { key: "../../elsewhere".into(), digest: None, size: None, media_type: None };
    assert!(selected.blobs.open(&stray).is_err());
}

#[test]
fn transports_ask_for_what_they_are() {
    let bench = Bench::new();
    let docker = bench.file(&archives::docker_27(&[first_image()]).bytes);
    let word = |transport: &str, path: &Path| format!("{transport}:{}", path.display());
    assert_eq!(bench.open(word("docker-archive", &docker)).unwrap().kind(), "docker-archive");
    assert_eq!(bench.open(word("oci-archive", &docker)).unwrap().kind(), "oci-archive");
    let nix = bench.file(&archives::nix(&[first_image()]).bytes);
    let error = bench.open(word("oci-archive", &nix)).unwrap_err();
    assert!(error.remedy().unwrap().contains("docker-archive:PATH"), "{error}");
    let error = bench.open(word("oci", &nix)).unwrap_err();
    assert!(error.remedy().unwrap().contains("oci-archive:"), "{error}");
    let jib = bench.file(&archives::jib_oci(&[first_image()]).bytes);
    let error = bench.open(word("docker-archive", &jib)).unwrap_err();
    assert!(error.remedy().unwrap().contains("oci-archive:PATH"), "{error}");
    let error = bench.open("no-such-image:1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceUnavailable);
    let hint = error.remedy().unwrap();
    assert!(hint.contains("docker-daemon:no-such-image:1") && hint.contains("docker://no-such-image:1"), "{hint}");
}

#[test]
fn paths_that_are_not_utf8() {
    let bench = Bench::new();
    let path = bench.directory.path().join(OsStr::from_bytes(b"\xff:\xfe"));
    std::fs::write(&path, archives::nix(&[first_image()]).bytes).unwrap();
    let source = bench.open(&path).unwrap();
    assert!(source.name().contains(r"\xff:\xfe"), "{}", source.name());
    let word = [b"docker-archive:", path.as_os_str().as_bytes(), b":example.org/first:1"].concat();
    bench.open(OsStr::from_bytes(&word)).unwrap().select(&Selection::default()).unwrap();
}

#[test]
fn selection() {
    let bench = Bench::new();
    let packed = archives::docker_27(&[first_image(), second_image()]);
    let path = bench.file(&packed.bytes);
    let source = bench.open(&path).unwrap();
    let candidates = source.images();
    let second = Digest::from_hex(&sha256(&packed.configs[1])).unwrap();
    let manifest = candidates[1].manifest_digest.unwrap();
    let words = [
        "debian:12".to_string(),
        "docker.io/library/debian:12".into(),
        "index.docker.io/debian:12".into(),
        "localhost:5000/second".into(),
        second.to_string(),
        second.hex(),
        second.hex()[..6].to_string(),
        manifest.to_string(),
        "1".into(),
        "@1".into(),
    ];
    for word in words {
        assert_eq!(source.select(&by_image(&word)).unwrap().id(), second, "{word}");
    }
    for number in 0..10 {
        // Two images are there: 2 to 9 are none, whatever IDs begin with.
        let found = source.select(&by_image(&number.to_string()));
        assert_eq!(found.is_ok(), number < 2, "{number}");
    }
    for word in ["debian", "2", "example.org/first:2", "sha256:", "xyz"] {
        let error = source.select(&by_image(word)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::SourceUnavailable, "{word}");
        assert!(error.to_string().contains("example.org/first:1"), "{error}");
    }
    let error = source.select(&by_platform("linux/arm64")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::SourceUnavailable);
    assert!(error.to_string().contains("linux/amd64"), "{error}");
    // What the word asks for and what is selected must both fit.
    let word = format!("docker-archive:{}:debian:12", path.display());
    let source = bench.open(word).unwrap();
    assert_eq!(source.select(&Selection::default()).unwrap().id(), second);
    assert!(source.select(&by_image("example.org/first:1")).is_err());
}

#[test]
fn the_hosts_platform_is_a_choice_among_one_images_platforms() {
    let bench = Bench::new();
    let host = Platform::host().architecture;
    let image = |architecture: &str, tag: &str| {
        Described::new(vec![layer(architecture)]).architecture(architecture).tagged(tag)
    };
    // One name, several platforms: the host's.
    let packed = archives::jib_oci(&[image("s390x", "example.org/a:1"), image(&host, "example.org/a:1")]);
    let source = bench.open_bytes(&packed.bytes).unwrap();
    assert_eq!(source.select(&Selection::default()).unwrap().platform().architecture, host);
    assert_eq!(source.select(&by_platform("linux/s390x")).unwrap().platform().architecture, "s390x");
    // Several names: they are different images, whatever their platforms.
    let packed = archives::jib_oci(&[image("s390x", "example.org/a:1"), image(&host, "example.org/b:1")]);
    let source = bench.open_bytes(&packed.bytes).unwrap();
    assert_eq!(source.select(&Selection::default()).err().unwrap().kind(), ErrorKind::Usage);
    // No choice: it is taken as it is.
    let source = bench.open_bytes(&archives::jib_oci(&[image("s390x", "example.org/a:1")]).bytes).unwrap();
    assert_eq!(source.select(&Selection::default()).unwrap().platform().architecture, "s390x");
    // Neither is the host's.
    let packed = archives::jib_oci(&[image("s390x", "example.org/a:1"), image("riscv64", "example.org/a:1")]);
    let error = bench.open_bytes(&packed.bytes).unwrap().select(&Selection::default()).err().unwrap();
    assert!(error.to_string().contains("linux/riscv64"), "{error}");
}

#[test]
fn absent_platforms_are_named_when_asked_for() {
    let bench = Bench::new();
    let source = bench.open_bytes(&archives::docker_29(&[first_image()]).bytes).unwrap();
    let absent: Vec<_> = source.images().into_iter().filter(|candidate| candidate.absent.is_some()).collect();
    assert_eq!(absent.len(), 2);
    for platform in ["linux/s390x", "linux/riscv64"] {
        let error = source.select(&by_platform(platform)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{error}");
        assert!(error.to_string().contains(platform) && error.to_string().contains("not there"), "{error}");
    }
    let image = source.select(&Selection::default()).unwrap();
    assert!(image.index_digest.is_some() && image.manifest_digest.is_some());
    let by_index = image.index_digest.unwrap().to_string();
    assert_eq!(source.select(&by_image(&by_index)).unwrap().id(), image.id());
    assert!(source.images().iter().all(|candidate| candidate.platform.as_ref().unwrap().os != "unknown"));
}

#[test]
fn bare_tags_are_kept_as_tags() {
    let bench = Bench::new();
    let image = first_image();
    let mut members = Members::default();
    let manifest = archives::add_oci_image(&mut members, &image, Squeeze::Not);
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"});
    members.file("index.json", json!({"schemaVersion": 2, "manifests": [entry]}).to_string());
    let path = bench.file(&members.pack(""));
    let candidates = bench.open(&path).unwrap().images();
    assert_eq!((candidates[0].names.len(), &candidates[0].tags[..]), (0, &["v1".to_string()][..]));
    let source = bench.open(format!("oci-archive:{}:v1", path.display())).unwrap();
    assert!(source.select(&Selection::default()).is_ok());
    assert!(bench.open(format!("oci-archive:{}:v2", path.display())).unwrap().select(&Selection::default()).is_err());
}

#[test]
fn foreign_layers() {
    let bench = Bench::new();
    let image = Described::new(vec![layer("a"), layer("b")]);
    let build = |stored: bool, listed: bool| {
        let mut members = Members::default();
        image.layers[1..].iter().for_each(|layer| drop(members.blob(layer)));
        if stored {
            members.blob(&image.layers[0]);
        }
        members.blob(&image.config());
        let mut foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"at the registry");
        foreign["urls"] = json!(["https://example.org/layer"]);
        let own = descriptor("application/vnd.oci.image.layer.v1.tar", &image.layers[1]);
        let config = descriptor("application/vnd.oci.image.config.v1+json", &image.config());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [foreign, own]}).to_string();
        members.blob(manifest.as_bytes());
        let entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        members.file("index.json", json!({"schemaVersion": 2, "manifests": [entry]}).to_string());
        if listed {
            let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
            let layers: Vec<String> = image.layers.iter().map(|layer| blob(layer)).collect();
            let item = json!({"Config": blob(&image.config()), "RepoTags": null, "Layers": layers});
            members.file("manifest.json", json!([item]).to_string());
        }
        members.pack("")
    };
    for listed in [true, false] {
        let source = bench.open_bytes(&build(true, listed)).unwrap();
        check(&source.select(&Selection::default()).unwrap(), &image, &image.config(), "foreign");
        let error = bench.open_bytes(&build(false, listed)).unwrap().select(&Selection::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("layer 1") && error.to_string().contains("https://example.org/layer"));
    }
}

#[test]
fn diff_ids_decide_the_order_of_plain_layers() {
    let bench = Bench::new();
    let image = first_image();
    let packed = archives::docker_25_0_0(std::slice::from_ref(&image));
    // Without manifest.json only the shuffled OCI manifest is left.
    let at = packed.bytes.windows(14).position(|window| window == b"manifest.json\0").unwrap();
    let mut bytes = packed.bytes.clone();
    let mut header: [u8; 512] = bytes[at..at + 512].try_into().unwrap();
    header[..13].copy_from_slice(b"somethingelse");
    tar::set_checksum(&mut header);
    bytes[at..at + 512].copy_from_slice(&header);
    let selected = bench.open_bytes(&bytes).unwrap().select(&Selection::default()).unwrap();
    let layers: Vec<Digest> = selected.layers.iter().map(|layer| layer.blob.digest.unwrap()).collect();
    assert_eq!(layers, selected.config.diff_ids().unwrap());
}

#[test]
fn a_missing_layer_is_named() {
    let bench = Bench::new();
    let image = first_image();
    let mut members = archives::layout(std::slice::from_ref(&image), Squeeze::Not);
    let missing = sha256(&image.layers[1]);
    members.remove(&format!("blobs/sha256/{missing}"));
    let error = bench.open_bytes(&members.pack("")).unwrap().select(&Selection::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.to_string().contains(&missing) && error.to_string().contains("layer 2"), "{error}");
    let tar = docker_tar(&image, |name| !name.contains(&missing));
    let error = bench.open_bytes(&tar.finish()).unwrap().select(&Selection::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    let text = error.to_string();
    assert!(text.contains(&missing) && text.contains("manifest.json") && text.contains("x.tar"), "{error}");
}

/// A docker-archive in nix's shape, without the members that `keep` refuses.
fn docker_tar(image: &Described, keep: impl Fn(&str) -> bool) -> Tar {
    let config = format!("{}.json", sha256(&image.config()));
    let names: Vec<String> = image.diff_ids().iter().map(|hex| format!("{hex}/layer.tar")).collect();
    let manifest = json!([{"Config": config, "RepoTags": image.tags, "Layers": names}]).to_string();
    let layers = names.iter().zip(&image.layers).map(|(name, layer)| (name.clone(), layer.clone()));
    let members = layers.chain([(config, image.config()), ("manifest.json".into(), manifest.into_bytes())]);
    members.filter(|(name, _)| keep(name)).fold(Tar::new(), |tar, (name, contents)| tar.file(name, contents))
}

#[test]
fn a_missing_config_is_named() {
    let bench = Bench::new();
    let image = first_image();
    let config = sha256(&image.config());
    let tar = docker_tar(&image, |name| !name.contains(&config));
    let error = bench.open_bytes(&tar.finish()).unwrap().select(&Selection::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.to_string().contains(&config), "{error}");
}

#[test]
fn documents_must_be_what_their_digests_say() {
    let bench = Bench::new();
    let image = first_image();
    let config = sha256(&image.config());
    let changed = Described { comment: "changed".into(), ..image.clone() }.config();
    // The last of two members of one name wins, so this replaces the config.
    for name in [format!("{config}.json"), format!("sha256:{config}"), format!("blobs/sha256/{config}")] {
        let manifest = json!([{"Config": name, "RepoTags": null, "Layers": []}]).to_string();
        let tar = Tar::new().file(&name, image.config()).file("manifest.json", manifest).file(&name, &changed);
        let error = bench.open_bytes(&tar.finish()).unwrap().select(&Selection::default()).err().unwrap();
        // The names of `docker save` are a habit: what is listed there has no layers, and is refused for that alone.
        let kind = if name.starts_with("blobs") { ErrorKind::Mismatch } else { ErrorKind::InvalidImage };
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(if kind == ErrorKind::Mismatch { &config } else { "diff_ids" }), "{error}");
    }
    for (packed, has_manifest_json) in
        [(archives::docker_29(std::slice::from_ref(&image)), true), (archives::buildkit_oci(&[image]), false)]
    {
        let source = bench.open_bytes(&packed.bytes).unwrap();
        let selected = source.select(&Selection::default()).unwrap();
        for digest in [selected.manifest_digest.unwrap(), selected.index_digest.unwrap(), selected.id()] {
            let tar = [&packed.bytes[..packed.bytes.len() - 1024]].concat();
            let more = Tar::new().file(format!("blobs/sha256/{}", digest.hex()), "{}").finish();
            let source = bench.open_bytes(&[tar, more].concat()).unwrap();
            match source.select(&Selection::default()) {
                // A sound manifest.json leads to the same config.
                Ok(image) => {
                    assert!(has_manifest_json && digest != image.id());
                    assert!(image.warnings.iter().any(|it| it.contains(&digest.hex())), "{:?}", image.warnings);
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
                    assert!(error.to_string().contains(&digest.hex()), "{error}");
                }
            }
        }
    }
}

#[test]
fn counts_of_layers_must_agree() {
    let bench = Bench::new();
    let image = first_image();
    let config = format!("{}.json", sha256(&image.config()));
    let manifest = json!([{"Config": config, "RepoTags": null, "Layers": ["a.tar"]}]).to_string();
    let tar = Tar::new().file(&config, image.config()).file("a.tar", &image.layers[0]).file("manifest.json", manifest);
    let error = bench.open_bytes(&tar.finish()).unwrap().select(&Selection::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.to_string().contains("1 layers") && error.to_string().contains("3 diff_ids"), "{error}");
}

#[test]
fn links_inside_archives() {
    let bench = Bench::new();
    let image = Described::new(vec![layer("a"), layer("b"), layer("c")]);
    let config = format!("{}.json", sha256(&image.config()));
    let manifest = |last: &str| {
        json!([{"Config": config, "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar", last]}]).to_string()
    };
    let tar = |last: &str| {
        Tar::new()
            .symlink("1/layer.tar", "../chain")
            .symlink("chain", "./a.tar")
            .hard_link("2/layer.tar", "./b.tar")
            .symlink("dir", "other")
            .symlink("loop", "loop2")
            .symlink("loop2", "loop")
            .file("a.tar", &image.layers[0])
            .file("b.tar", &image.layers[1])
            .file("other/c.tar", &image.layers[2])
            .file(&config, image.config())
            .file("manifest.json", manifest(last))
            .finish()
    };
    let source = bench.open_bytes(&tar("dir/c.tar")).unwrap();
    check(&source.select(&Selection::default()).unwrap(), &image, &image.config(), "links");
    let error = bench.open_bytes(&tar("loop")).unwrap().select(&Selection::default()).err().unwrap();
    assert!(error.to_string().contains("\"loop\""), "{error}");
}

#[test]
fn v1_chains_that_loop_or_break() {
    let bench = Bench::new();
    let v1 = |parent: &str| {
        let tar = Tar::new().file("a/json", r#"{"id":"a","parent":"b"}"#).file("a/layer.tar", layer("a"));
        let tar = tar.file("b/json", format!(r#"{{"id":"b","parent":"{parent}"}}"#)).file("b/layer.tar", layer("b"));
        tar.file("repositories", r#"{"x":{"1":"a"}}"#).finish()
    };
    for (parent, text) in [("a", "own ancestor"), ("gone", "gone/json")] {
        let error = bench.open_bytes(&v1(parent)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert!(error.to_string().contains(text), "{error}");
    }
    assert!(bench.open_bytes(&v1("")).unwrap().select(&by_image("x:1")).is_ok());
}

#[test]
fn truncation_is_an_error_wherever_it_falls() {
    let bench = Bench::new();
    for (producer, pack, _) in PRODUCERS {
        let packed = pack(&[first_image()]);
        // Near the end a cut may cost padding, the end marker or a second list of images; all else costs the image.
        let last_needed = if producer == "regctl" { packed.bytes.len() } else { packed.bytes.len() - 5120 };
        for length in (0..packed.bytes.len()).step_by(509) {
            let opened = bench.open_bytes(&packed.bytes[..length]);
            match opened.and_then(|source| source.select(&Selection::default())) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidImage, "{producer} cut at {length}: {error}"),
                Ok(mut image) => {
                    // Docker 25.0.0 states wrong sizes, which only its manifest.json makes up for.
                    image.layers.iter_mut().for_each(|layer| layer.blob.size = None);
                    assert!(length > last_needed, "{producer} cut at {length} is taken for whole");
                    let layers = (0..image.layers.len()).map(|at| plain(&image, at));
                    assert!(layers.eq(first_image().layers), "{producer} cut at {length} gives other layers");
                }
            }
        }
    }
    let whole = archives::docker_24(&[first_image()]).bytes;
    for (wrapper, wrap) in WRAPPERS {
        let wrapped = wrap(&whole);
        for length in [wrapped.len() / 4, wrapped.len() / 2, wrapped.len() - 1] {
            let error = bench.open_bytes(&wrapped[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidImage, "{wrapper}: {error}");
        }
        let mut damaged = wrapped.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 8].fill(0xa5);
        let error = bench.open_bytes(&damaged).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{wrapper}: {error}");
    }
}

#[test]
fn a_truncated_member_is_named() {
    let bench = Bench::new();
    let tar = Tar::new().file("first", "x").file("the/second", vec![1; 5000]).finish();
    let error = bench.open_bytes(&tar[..3000]).unwrap_err();
    assert!(error.to_string().contains("truncated") && error.to_string().contains("the/second"), "{error}");
    let error = bench.open_with(bench.file(&archives::gzip(&tar[..3000])), false).unwrap_err();
    assert!(error.to_string().contains("truncated") && error.to_string().contains("the/second"), "{error}");
}

#[test]
fn absurd_sizes() {
    let bench = Bench::new();
    let mut sizes: Vec<[u8; 12]> = vec![*b"77777777777\0", *b"9999999999z\0", [0xff; 12]];
    sizes.push([0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]); // 2^63
    sizes.push([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]); // 2^64 - 1
    sizes.push([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]); // 2^64 + 1
    for size in sizes {
        for kind in [b'0', b'L', b'x'] {
            let mut header = tar::header(b"absurd", kind, b"", 0);
            header[124..136].copy_from_slice(&size);
            let tar = docker_tar(&first_image(), |_| true).raw(header, b"").finish();
            let error = bench.open_bytes(&tar).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidImage, "{size:?} {kind}: {error}");
            let error = bench.open_with(bench.file(&archives::gzip(&tar)), false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidImage, "{size:?} {kind}: {error}");
        }
    }
}

#[test]
fn long_names_of_every_kind() {
    let bench = Bench::new();
    let image = Described::new(vec![layer("a"), layer("b"), layer("c"), layer("d")]);
    let long = |start: &str| format!("{start}/{}", "n".repeat(150));
    let prefixed = format!("{}/{}", "p".repeat(120), "q".repeat(60));
    let config = format!("{}.json", sha256(&image.config()));
    let layers = [long("gnu"), long("pax"), prefixed.clone(), "link".to_string()];
    let manifest = json!([{"Config": config, "RepoTags": null, "Layers": layers}]).to_string();
    let size = image.layers[1].len().to_string();
    let tar = Tar::new()
        .gnu_long(b'L', long("gnu").as_bytes())
        .file("short", &image.layers[0])
        .pax(b'g', &[("comment", b"not for us")])
        .pax(b'x', &[("mtime", b"1.5"), ("path", long("pax").as_bytes()), ("size", size.as_bytes())])
        .raw(tar::header(b"short", b'0', b"", 0), &image.layers[1])
        .file(&prefixed, &image.layers[2])
        .gnu_long(b'K', long("target").as_bytes())
        .symlink("link", "short")
        .pax(b'x', &[("path", long("target").as_bytes())])
        .file("short", &image.layers[3])
        .file(&config, image.config())
        .file("manifest.json", manifest);
    let source = bench.open_bytes(&tar.finish()).unwrap();
    check(&source.select(&Selection::default()).unwrap(), &image, &image.config(), "long names");
}

#[test]
fn documents_have_a_limit() {
    let bench = Bench::new();
    let padding = " ".repeat(10 << 20);
    for name in ["manifest.json", "index.json"] {
        let tar = Tar::new().file(name, format!("[{padding}]")).finish();
        for bytes in [tar.clone(), archives::gzip(&tar)] {
            let error = bench.open_bytes(&bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidImage);
            assert!(error.to_string().contains(name) && error.to_string().contains("10485762"), "{error}");
        }
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let error = bench.open_bytes(&Tar::new().file("manifest.json", deep).finish()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage, "{error}");
}

/// An OCI archive whose `index.json` lists an index that lists … an image, `depth` indexes deep; each lists the next
/// `times` times.
fn nested(depth: usize, times: usize) -> Vec<u8> {
    let mut members = Members::default();
    let manifest = archives::add_oci_image(&mut members, &first_image(), Squeeze::Not);
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    for _ in 0..depth {
        let index = json!({"schemaVersion": 2, "manifests": vec![entry; times]}).to_string();
        members.blob(index.as_bytes());
        entry = descriptor("application/vnd.oci.image.index.v1+json", index.as_bytes());
    }
    let index: Value = json!({"schemaVersion": 2, "manifests": [entry]});
    members.file("index.json", index.to_string());
    members.pack("")
}

#[test]
fn nested_indexes_end() {
    let bench = Bench::new();
    for depth in 0..=4 {
        let source = bench.open_bytes(&nested(depth, 2)).unwrap();
        assert_eq!(source.images().len(), 1, "{depth}");
        source.select(&Selection::default()).unwrap();
    }
    for (depth, times) in [(5, 1), (40, 1), (4, 1000)] {
        let opened = bench.open_bytes(&nested(depth, times));
        let error = opened.and_then(|source| source.select(&Selection::default())).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidImage, "{error}");
    }
}

#[test]
fn empty_lists_are_legal_and_hold_no_image() {
    let bench = Bench::new();
    for (name, contents) in [
        ("manifest.json", "[]"),
        ("manifest.json", "null"),
        ("index.json", r#"{"schemaVersion":2,"manifests":null}"#),
        ("index.json", r#"{"schemaVersion":2,"manifests":[]}"#),
    ] {
        let source = bench.open_bytes(&Tar::new().file(name, contents).finish()).unwrap();
        assert!(source.images().is_empty());
        assert_eq!(source.select(&Selection::default()).err().unwrap().kind(), ErrorKind::InvalidImage);
    }
}

#[test]
fn other_things_are_told_apart() {
    let bench = Bench::new();
    let at = |offset: usize, magic: &[u8]| {
        let mut bytes = vec![0; 40 << 10];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    };
    let cases: [(Vec<u8>, &str); 9] = [
        (at(32, b"SIF_MAGIC"), "SIF"),
        (at(0, b"hsqs"), "squashfs"),
        (at(1080, &[0x53, 0xef]), "ext4"),
        (at(32769, b"CD001"), "ISO"),
        (at(0, b"PK\x03\x04"), "zip"),
        (b"FROM debian\n".repeat(100), "Dockerfile"),
        (br#"{"schemaVersion": 2}"#.repeat(50), "JSON"),
        (Vec::new(), "empty"),
        (Tar::new().file("rootfs/etc/passwd", "").finish(), "folder that holds the root"),
    ];
    for (bytes, word) in cases {
        let error = bench.open_bytes(&bytes).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidImage | ErrorKind::Unsupported), "{error:?}");
        assert!(error.to_string().contains(word) && error.remedy().is_some(), "{word}: {error}");
        assert!(error.to_string().contains("x.tar"), "{error}");
        if !bytes.is_empty() {
            let error = bench.open_bytes(&archives::gzip(&bytes)).unwrap_err();
            assert!(error.to_string().contains(word), "{word} in gzip: {error}");
        }
    }
    let inside = Tar::new().file("layout/index.json", "{}").finish();
    assert!(bench.open_bytes(&inside).unwrap_err().remedy().unwrap().contains("tar -C \"layout\""));
    for (file, word) in [("manifest.json", "docker-archive"), ("x", "OCI layout")] {
        let directory = bench.path(&format!("dir for {word}"));
        std::fs::create_dir_all(directory.join(file).parent().unwrap()).unwrap();
        std::fs::write(directory.join(file), "").unwrap();
        let error = bench.open(&directory).unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[test]
fn a_conversion_that_was_stopped_stops() {
    let bench = Bench::new();
    let bytes = archives::docker_24(&[first_image()]).bytes;
    let monitor = Monitor::default();
    monitor.stop(ErrorKind::Terminated);
    let wrapped = WRAPPERS.iter().map(|(_, wrap)| wrap(&bytes));
    for bytes in wrapped.chain([bytes.clone()]) {
        for want_layers in [true, false] {
            let options = OpenOptions { tmpdir: bench.path("tmp"), want_layers, ..OpenOptions::default() };
            let spec = Spec::parse(bench.file(&bytes).as_os_str()).unwrap();
            assert_eq!(open(&spec, &options, &monitor).unwrap_err().kind(), ErrorKind::Terminated);
        }
    }
}

#[test]
fn many_members_open_at_once() {
    let bench = Bench::new();
    let layers: Vec<Vec<u8>> = (0..130).map(|at| layer(&format!("file {at}"))).collect();
    let image = Described::new(layers);
    let members = (0..40_000).fold(docker_tar(&image, |_| true), |tar, at| tar.file(format!("more/{at}"), b""));
    let path = bench.file(&members.finish());
    let start = run_time();
    let selected = bench.open(&path).unwrap().select(&Selection::default()).unwrap();
    let taken = run_time() - start;
    assert_eq!(selected.layers.len(), 130);
    // Contents must not be read, nor names be searched one by one.
    assert!(taken.as_millis() < 2000, "{taken:?}");
}

/// How long this thread has run (proc_pid_schedstat), however loaded the machine is.
fn run_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn many_names_and_images_take_no_time() {
    let bench = Bench::new();
    let start = run_time();
    let image = first_image();
    let config = format!("{}.json", sha256(&image.config()));
    let tags: Vec<String> = (0..200_000).map(|at| format!("a:{at}")).collect();
    let item = json!({"Config": config, "RepoTags": tags, "Layers": []});
    let tar = Tar::new().file(&config, image.config()).file("manifest.json", json!([item]).to_string());
    assert_eq!(bench.open_bytes(&tar.finish()).unwrap().images()[0].names.len(), tags.len());
    let items: Vec<Value> = (0..5_000).map(|at| json!({"Config": format!("{at}")})).collect();
    let tar = Tar::new().file("manifest.json", json!(items).to_string());
    let error = bench.open_bytes(&tar.finish()).unwrap_err();
    assert!(error.to_string().contains("4096 images"), "{error}");
    let taken = run_time() - start;
    assert!(taken.as_secs() < 20, "{taken:?}");
}

/// What the fuzzer starts from, and what it ever tripped over (fuzz/README.md).
#[test]
fn the_corpus_is_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus/archive_reader");
    let bench = Bench::new();
    let mut found = std::collections::BTreeMap::new();
    for seed in std::fs::read_dir(corpus).unwrap() {
        let seed = seed.unwrap();
        for want_layers in [true, false] {
            let opened = bench.open_with(seed.path(), want_layers).map(|source| {
                let select =
                    |number: usize| source.select(&Selection { image: Some(number.to_string()), platform: None });
                let selected: Vec<Result<Image, Error>> = (0..source.images().len()).map(select).collect();
                let layers = selected.iter().flatten().map(|image| image.layers.len()).collect::<Vec<_>>();
                let blamed = selected.iter().filter_map(|it| it.as_ref().err()).find(|it| it.kind() == ErrorKind::Bug);
                assert!(blamed.is_none(), "{:?}: {blamed:?}", seed.path());
                (source.kind(), layers)
            });
            let name = seed.file_name().into_string().unwrap();
            found.insert((name, want_layers), opened.map_err(|error| error.kind()));
        }
    }
    let docker = |name, layers: &[usize]| (name, Ok(("docker-archive", layers.to_vec())));
    let oci = |name, layers: &[usize]| (name, Ok(("oci-archive", layers.to_vec())));
    let expected = [
        docker("docker", &[1]),
        docker("docker-gzip", &[1]),
        docker("docker-bzip2", &[1]),
        docker("docker-xz", &[1]),
        docker("docker-zstd", &[1]),
        docker("docker-links", &[2]),
        docker("docker-several", &[1, 1]),
        docker("docker-25", &[1]),
        docker("docker-v1", &[2]),
        docker("docker-v1-untagged", &[2]),
        oci("oci", &[1]),
        oci("oci-platforms", &[1, 1]),
        oci("oci-absent", &[1]),
        ("docker-v1-circle", Err(ErrorKind::InvalidImage)),
        docker("config-is-no-document", &[]),
        ("root-file-system", Ok(("rootfs", vec![1]))),
        ("cut-short", Err(ErrorKind::InvalidImage)),
    ];
    for (name, outcome) in expected {
        for want_layers in [true, false] {
            assert_eq!(found[&(name.to_string(), want_layers)], outcome, "{name}, layers {want_layers}");
        }
    }
}
