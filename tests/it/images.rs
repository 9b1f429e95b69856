//! Images out: OCI layouts, OCI archives and docker-archives, from archives in the shape of every producer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use sif_convert::image::{BlobRef, Blobs};
use sif_convert::io::Compression;
use sif_convert::output::{DockerArchive, Oci, OciArchive, Target, WriteOptions};

use crate::support::archives::{self, Described, Members, PRODUCERS, Squeeze, sha256};
use crate::support::layout::{self, Files, Found, files_below, files_of};
use crate::support::random::noise;
use crate::support::run::{Run, exit_code, is_root, program, run, scratch, skip};
use crate::support::tar::Tar;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(scratch());
        fs::create_dir(place.path("tmp")).unwrap();
        place
    }

    fn with(bytes: &[u8]) -> Self {
        let place = Place::new();
        fs::write(place.path("x.tar"), bytes).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("TMPDIR", self.path("tmp")).args(line.split(' '));
        command
    }

    fn run(&self, line: &str) -> Run {
        run(&mut self.command(line))
    }

    /// Runs what must succeed.
    fn done(&self, line: &str) -> Run {
        let done = self.run(line);
        assert_eq!(done.code, 0, "{line}: {}", done.stderr);
        done
    }

    /// The images of a layout directory.
    fn images(&self, name: &str) -> Vec<Found> {
        layout::images(&files_below(&self.path(name)))
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|each| each.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "tmp").collect();
        names.sort();
        assert_eq!(fs::read_dir(self.path("tmp")).unwrap().count(), 0, "left in the temporary directory");
        names
    }
}

fn layer(name: &str) -> Vec<u8> {
    Tar::new().directory(name).file(format!("{name}/file"), format!("contents of {name}").repeat(100)).finish()
}

/// Three layers, the first of which comes again as the last.
fn image() -> Described {
    let layers = vec![layer("base"), layer("middle"), layer("base")];
    Described { comment: "first".into(), ..Described::new(layers) }.tagged("example.org/first:1")
}

fn other() -> Described {
    Described { comment: "other".into(), ..Described::new(vec![layer("base"), layer("top")]) }.tagged("debian:12")
}

fn to_json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_producer_becomes_every_kind_of_image() {
    for (producer, pack, _) in PRODUCERS {
        let described = image();
        let packed = pack(std::slice::from_ref(&described));
        let place = Place::with(&packed.bytes);
        for format in ["oci", "oci-archive", "docker-archive"] {
            place.done(&format!("x.tar --to {format} -o {format} --progress none"));
        }
        let directory = files_below(&place.path("oci"));
        let archive = files_of(&fs::read(place.path("oci-archive")).unwrap());
        assert_eq!(archive, directory, "{producer}: the archive is the directory in a tar");
        let (names, config, layers) = layout::docker(&fs::read(place.path("docker-archive")).unwrap());
        let found = layout::images(&directory).pop().unwrap();
        assert_eq!(found.plain_layers(), described.layers, "{producer}");
        assert_eq!((layers, &config), (described.layers.clone(), &found.config), "{producer}");
        if producer == "docker 1.9" {
            let document = to_json(&config);
            assert_eq!(document["comment"], "first");
            assert_eq!(document["os"], "linux");
            assert!(document.get("id").is_none() && document.get("parent").is_none());
        } else {
            assert_eq!(config, packed.configs[0], "{producer}: the config's bytes are kept");
        }
        assert_eq!(names, ["example.org/first:1"], "{producer}");
        assert_eq!(found.tag(), Some("1"), "{producer}");
        assert_eq!(found.annotation("io.containerd.image.name"), Some("example.org/first:1"), "{producer}");
        for output in ["oci", "oci-archive", "docker-archive"] {
            let verified = place.done(&format!("verify {output}"));
            let text = String::from_utf8(verified.stdout).unwrap();
            assert!(text.contains(&format!("sha256:{} is whole: 3 layers", sha256(&config))), "{producer}: {text}");
            let inspected = to_json(&place.done(&format!("inspect {output} --json")).stdout);
            assert_eq!(inspected["images"][0]["names"], json!(["example.org/first:1"]), "{producer}");
        }
        // From the layout back again: the image ID is what it was.
        place.done("oci:oci --to docker-archive -o again");
        assert_eq!(fs::read(place.path("again")).unwrap(), fs::read(place.path("docker-archive")).unwrap());
    }
}

#[test]
fn manifests_are_kept_where_they_describe_the_blobs_and_only_there() {
    let described = [image()];
    for storage in [Squeeze::Not, Squeeze::Gzip, Squeeze::Zstd] {
        let place = Place::new();
        let members = archives::layout(&described, storage);
        members.write_below(&place.path("in"));
        let source = files_below(&place.path("in"));
        place.done("in --to oci -o out --report report.json");
        let found = place.images("out").pop().unwrap();
        assert!(source.values().any(|blob| *blob == found.manifest), "the manifest's bytes are the source's");
        let report = to_json(&fs::read(place.path("report.json")).unwrap());
        assert_eq!(report["output"]["manifest_digest"], format!("sha256:{}", sha256(&found.manifest)));
        assert_eq!(report["output"]["image_id"], report["image"]["id"]);
        place.done("in --to oci -o gzip --compression gzip");
        let recompressed = place.images("gzip").pop().unwrap();
        match storage {
            Squeeze::Not => assert_eq!(recompressed.layer_types(), ["tar+gzip"; 3]),
            _ => assert_eq!(recompressed.manifest, found.manifest, "what is compressed stays as it is"),
        }
    }
    // Layers in random order and with wrong sizes.
    let place = Place::with(&archives::docker_25_0_0(&described).bytes);
    place.done("x.tar --to oci");
    assert_eq!(place.images("x.oci")[0].layers, described[0].layers);
}

/// A layer that no OCI image may have so is made one that it may have.
#[test]
fn other_compressions_are_undone() {
    for pack in [archives::xz as fn(&[u8]) -> Vec<u8>, archives::bzip2] {
        let described = image();
        let mut members = Members::default();
        let names: Vec<String> = (0..3).map(|at| format!("layer-{at}")).collect();
        for (name, layer) in names.iter().zip(&described.layers) {
            members.file(name, pack(layer));
        }
        members.file("config.json", described.config());
        let manifest = json!([{"Config": "config.json", "RepoTags": null, "Layers": names}]);
        members.file("manifest.json", manifest.to_string());
        let place = Place::with(&members.pack(""));
        place.done("x.tar --to oci -o plain");
        place.done("x.tar --to oci -o zstd --compression zstd:1");
        for (output, kind) in [("plain", "tar"), ("zstd", "tar+zstd")] {
            let found = place.images(output).pop().unwrap();
            assert_eq!((found.plain_layers(), found.layer_types()), (described.layers.clone(), vec![kind.into(); 3]));
            assert_eq!(found.tag(), None);
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_kind_of_output() {
    for storage in [Squeeze::Not, Squeeze::Gzip] {
        let place = Place::new();
        archives::layout(&[image()], storage).write_below(&place.path("in"));
        for options in
            ["", " --compression gzip:1", " --compression zstd", " --flatten", " --flatten --compression gzip"]
        {
            let expected = place.done(&format!("in --to oci-archive -o -{options}")).stdout;
            for jobs in ["1", "8", "8"] {
                let again = place.done(&format!("in --to oci-archive -o -{options} --jobs {jobs}")).stdout;
                assert!(again == expected, "{options}, {jobs} jobs");
                let directory = format!("out-{storage}-{jobs}{}", options.replace(' ', ""), storage = storage as u8);
                if !place.path(&directory).exists() {
                    place.done(&format!("in --to oci -o {directory}{options} --jobs {jobs}"));
                }
                assert!(files_below(&place.path(&directory)) == files_of(&expected), "{options}, {jobs} jobs");
            }
            place.done(&format!("in --to oci-archive -o file.tar --force{options}"));
            assert!(fs::read(place.path("file.tar")).unwrap() == expected, "{options}: a file");
        }
        for options in ["", " --flatten"] {
            let expected = place.done(&format!("in --to docker-archive -o -{options} --jobs 1")).stdout;
            place.done(&format!("in --to docker-archive -o file.tar --force{options} --jobs 8"));
            assert!(fs::read(place.path("file.tar")).unwrap() == expected, "{options}");
            place.done(&format!("in --to docker-archive -o file.tar.gz --force{options}"));
            assert!(layout::plain(&fs::read(place.path("file.tar.gz")).unwrap()) == expected, "{options}");
        }
    }
}

#[test]
fn flattened_images_have_one_layer_and_all_else_of_the_config() {
    let described = image();
    let mut config = to_json(&described.config());
    config["config"] = json!({"Labels": {"z": "1", "a": "<2>"}, "Shell": ["b", "a"], "OnBuild": ["RUN x"],
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30_000_000_000_u64}, "Cmd": null});
    config["history"] = json!([{"created_by": "1"}, {"created_by": "2"}, {"created_by": "3"}]);
    let config = serde_json::to_vec(&config).unwrap();
    let mut members = Members::default();
    for (at, layer) in described.layers.iter().enumerate() {
        members.file(format!("{at}.tar"), layer.as_slice());
    }
    members.file("c.json", config.as_slice());
    let layers = ["0.tar", "1.tar", "2.tar"];
    members.file("manifest.json", json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": layers}]).to_string());
    let place = Place::with(&members.pack(""));
    place.done("x.tar --to oci --flatten");
    let rootfs = place.done("x.tar --to rootfs -o -").stdout;
    let found = place.images("x.oci").pop().unwrap();
    assert!(found.layers == [rootfs.clone()], "the layer is what --to rootfs writes");
    let text = String::from_utf8(found.config.clone()).unwrap();
    let history =
        r#"[{"created":"2020-01-02T03:04:05Z","created_by":"convert --flatten","comment":"3 layers made one"}]"#;
    let mut expected = to_json(&config);
    expected["rootfs"]["diff_ids"] = json!([format!("sha256:{}", sha256(&rootfs))]);
    expected["history"] = to_json(history.as_bytes());
    let without_rootfs = |document: &Value| {
        let keys = document.as_object().unwrap().iter().filter(|(key, _)| *key != "rootfs");
        keys.map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>()
    };
    assert_eq!(without_rootfs(&to_json(&found.config)), without_rootfs(&expected), "values and their order");
    assert_eq!(to_json(&found.config)["rootfs"], expected["rootfs"]);
    assert!(text.contains(r#""Labels":{"z":"1","a":"<2>"},"Shell":["b","a"]"#), "{text}");
    place.done("x.tar --to docker-archive --flatten");
    let (names, config, layers) = layout::docker(&fs::read(place.path("x.docker.tar")).unwrap());
    assert_eq!((names, config, layers), (vec!["docker.io/library/a:1".to_string()], found.config, vec![rootfs]));
}

#[test]
fn an_image_is_added_to_a_layout_and_its_tag_moves() {
    let place = Place::with(&archives::docker_24(&[image(), other()]).bytes);
    place.done("x.tar --image example.org/first:1 --to oci");
    place.done("x.tar --image debian:12 --to oci");
    let tags = |images: &[Found]| images.iter().map(|it| it.tag().map(str::to_string)).collect::<Vec<_>>();
    let both = place.images("x.oci");
    assert_eq!(tags(&both), [Some("1".into()), Some("12".into())]);
    let before = files_below(&place.path("x.oci"));
    place.done("x.tar --image debian:12 --to oci");
    assert!(files_below(&place.path("x.oci")) == before, "once more changes nothing");
    place.done("x.tar --image debian:12 --to oci --tag 1");
    let moved = place.images("x.oci");
    assert_eq!(tags(&moved), [None, Some("12".into()), Some("1".into())]);
    assert_eq!(moved[0].annotation("io.containerd.image.name"), Some("example.org/first:1"), "another name stays");
    assert_eq!(moved[2].manifest, both[1].manifest);
    // What others wrote stays, and a damaged blob is mended.
    let mut index = to_json(&fs::read(place.path("x.oci/index.json")).unwrap());
    index["annotations"] = json!({"org.example": "kept"});
    fs::write(place.path("x.oci/index.json"), index.to_string()).unwrap();
    let blob = place.path("x.oci/blobs/sha256").join(sha256(&layer("top")));
    fs::write(&blob, "damaged").unwrap();
    place.done("x.tar --image debian:12 --to oci --tag 2 --tag example.org/x:2 --flatten");
    place.done("x.tar --image debian:12 --to oci --tag 3");
    assert_eq!(fs::read(blob).unwrap(), layer("top"));
    assert_eq!(to_json(&fs::read(place.path("x.oci/index.json")).unwrap())["annotations"]["org.example"], "kept");
    let last = place.images("x.oci");
    assert_eq!(tags(&last[3..]), [Some("2".into()), None, Some("3".into())], "a tag means one thing");
    assert_eq!(last[4].annotation("io.containerd.image.name"), Some("example.org/x:2"));
    place.done("oci:x.oci:2 --to rootfs -o /dev/null");
    place.done("verify x.oci");
    assert_eq!(place.names(), ["x.oci", "x.tar"]);
}

/// As skopeo and umoci find it: by `org.opencontainers.image.ref.name`, though the full name stands beside it.
#[test]
fn a_tag_beside_a_full_name_finds_the_image() {
    let place = Place::with(&archives::docker_24(&[image(), other()]).bytes);
    for (format, transport) in [("oci", "oci"), ("oci-archive", "oci-archive")] {
        place.done(&format!("x.tar --image debian:12 --to {format} --tag a:1 --tag b:2 -o {format}"));
        for word in ["1", "2", "a:1", "b:2"] {
            place.done(&format!("{transport}:{format}:{word} --to rootfs -o /dev/null"));
            place.done(&format!("{format} --image {word} --to rootfs -o /dev/null"));
        }
        let inspected = to_json(&place.done(&format!("inspect {format} --json")).stdout);
        assert_eq!(inspected["images"][0]["names"], json!(["docker.io/library/a:1", "docker.io/library/b:2"]));
        let absent = run(&mut place.command(&format!("{transport}:{format}:3 --to rootfs -o /dev/null")));
        assert_eq!(absent.code, exit_code("SourceUnavailable"), "{}", absent.stderr);
    }
    // One tag, two images, as programs leave it that add to a layout without looking.
    place.done("x.tar --image example.org/first:1 --to oci -o oci --tag c:1");
    let mut index = to_json(&fs::read(place.path("oci/index.json")).unwrap());
    for entry in index["manifests"].as_array_mut().unwrap() {
        let annotations = &mut entry["annotations"];
        if annotations["io.containerd.image.name"] == "docker.io/library/a:1" {
            annotations["org.opencontainers.image.ref.name"] = "1".into();
        }
    }
    fs::write(place.path("oci/index.json"), index.to_string()).unwrap();
    let several = run(&mut place.command("oci:oci:1 --to rootfs -o /dev/null"));
    assert_eq!(several.code, exit_code("Usage"), "{}", several.stderr);
    assert!(several.stderr.contains("a:1") && several.stderr.contains("c:1"), "{}", several.stderr);
    place.done("oci:oci:c:1 --to rootfs -o /dev/null");
    // A number of the list stays one for --image.
    place.done("oci --image 1 --to rootfs -o /dev/null");
}

#[test]
fn directories_that_are_no_layouts_are_left_alone() {
    let place = Place::with(&archives::docker_24(&[image()]).bytes);
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/precious"), "x").unwrap();
    fs::create_dir(place.path("old")).unwrap();
    fs::write(place.path("old/oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    fs::create_dir_all(place.path("bad/blobs")).unwrap();
    fs::write(place.path("bad/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(place.path("bad/index.json"), "{").unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("link")).unwrap();
    let before = files_below(&place.path("bad"));
    for (line, code, message) in [
        ("-o full", 8, "it is neither empty nor an OCI layout"),
        ("-o old", 8, "it is not an OCI layout of version 1.0.0"),
        ("-o bad", 8, "this is not an image index"),
        ("-o x.tar", 2, "is the source"),
        ("-o link", 8, "it is a symbolic link to nowhere"),
        ("-o no/such/place", 8, "No such file"),
        ("-o -", 2, "an OCI layout is a directory"),
        ("-o /dev/null", 2, "an OCI layout is a directory"),
        ("-o bad --if-exists fail", 8, "it exists already"),
    ] {
        let refused = place.run(&format!("x.tar --to oci {line}"));
        assert_eq!(refused.code, code, "{line}: {}", refused.stderr);
        assert!(refused.stderr.contains(message) && refused.stderr.contains("hint: "), "{line}: {}", refused.stderr);
    }
    assert_eq!(files_below(&place.path("bad")), before);
    assert_eq!(place.names(), ["bad", "full", "link", "old", "x.tar"]);
    assert_eq!(files_below(&place.path("full")).len(), 1);
    // An empty directory is as good as none, and stays the one it is.
    fs::create_dir(place.path("empty")).unwrap();
    fs::set_permissions(place.path("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    place.done("x.tar --to oci -o empty");
    assert_eq!(place.images("empty").len(), 1);
    assert_eq!(fs::metadata(place.path("empty")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn damage_leaves_a_layout_as_it_was() {
    let described = image();
    let mut members = Members::default();
    let names = ["a", "b", "c"];
    for (name, layer) in names.iter().zip(&described.layers) {
        members.file(*name, layer.as_slice());
    }
    members.file("b", layer("another"));
    members.file("config.json", described.config());
    members.file("manifest.json", json!([{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]).to_string());
    let place = Place::with(&members.pack(""));
    fs::write(place.path("good.tar"), archives::docker_24(&[other()]).bytes).unwrap();
    place.done("good.tar --to oci -o out");
    let before = files_below(&place.path("out"));
    for line in
        ["oci -o out", "oci -o new", "oci-archive", "docker-archive", "oci -o out --flatten", "oci -o new --flatten"]
    {
        let failed = place.run(&format!("x.tar --to {line}"));
        assert_eq!(failed.code, 5, "{line}: {}", failed.stderr);
        assert!(
            failed.stderr.contains("layer 2 of docker-archive") && failed.stderr.contains("diff_id"),
            "{}",
            failed.stderr
        );
        assert!(files_below(&place.path("out")) == before, "{line}");
        assert_eq!(place.names(), ["good.tar", "out", "x.tar"], "{line}");
    }
}

/// Whoever comes second finds what the first made, and nothing is lost.
#[test]
fn many_may_add_to_one_layout_at_once() {
    let place = Place::with(&archives::docker_24(&[image()]).bytes);
    let started: Vec<_> = (0..8)
        .map(|number| {
            let flatten = if number % 2 == 0 { "" } else { " --flatten" };
            let line = format!("x.tar --to oci -o out --tag t{number}{flatten}");
            place.command(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in started {
        let ended = child.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8(ended.stderr).unwrap());
    }
    let mut tags: Vec<String> = place.images("out").iter().map(|image| image.tag().unwrap().to_string()).collect();
    tags.sort();
    assert_eq!(tags, ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
    assert_eq!(place.names(), ["out", "x.tar"]);
}

#[test]
fn images_are_called_as_asked_or_as_they_were() {
    let untagged = Described { tags: Vec::new(), ..image() };
    let place = Place::with(&archives::docker_24(std::slice::from_ref(&untagged)).bytes);
    let names = |line: &str| {
        let done = place.done(&format!("{line} --to docker-archive -o -"));
        (layout::docker(&done.stdout).0, done.stderr)
    };
    let id = &sha256(&untagged.config())[..12];
    let (made, said) = names("x.tar");
    assert_eq!(made, [format!("localhost/image:{id}")]);
    assert!(said.contains("no name with a tag") && said.contains("--tag"), "{said}");
    assert_eq!(names("x.tar --tag app --tag ghcr.io/a/b:2").0, ["docker.io/library/app:latest", "ghcr.io/a/b:2"]);
    place.done("x.tar --to oci --tag v1");
    let found = place.images("x.oci").pop().unwrap();
    assert_eq!(found.entry["annotations"], json!({"org.opencontainers.image.ref.name": "v1"}));
    assert_eq!(names("x.oci").0, ["localhost/image:v1"]);
    place.done("x.oci --to oci -o copy");
    assert_eq!(place.images("copy")[0].tag(), Some("v1"));
    place.done("x.tar --to oci -o library --tag docker.io/library/debian:12");
    assert_eq!(names("library").0, ["docker.io/library/debian:12"]);
}

/// A source that is not a local file, such as a registry: blobs come as streams.
struct Streams(std::sync::Arc<dyn Blobs>);

impl Blobs for Streams {
    fn open(&self, blob: &BlobRef) -> sif_convert::Result<Box<dyn std::io::Read + Send + '_>> {
        self.0.open(blob)
    }

    fn name(&self) -> String {
        self.0.name()
    }
}

#[test]
fn layers_that_come_as_streams_are_the_same() {
    for pack in [archives::docker_24 as fn(&[Described]) -> archives::Packed, archives::docker_29, archives::ggcr] {
        let place = Place::with(&pack(&[image()]).bytes);
        let options = sif_convert::OpenOptions {
            tmpdir: place.path("tmp"),
            want_layers: true,
            ..sif_convert::OpenOptions::default()
        };
        let spec = sif_convert::Spec::parse(place.path("x.tar").as_os_str()).unwrap();
        let source = sif_convert::open(&spec, &options, &sif_convert::Monitor::default()).unwrap();
        let mut image = source.select(&sif_convert::Selection::default()).unwrap();
        image.blobs = std::sync::Arc::new(Streams(image.blobs));
        let formats = [
            ("oci", Target::from(Oci::new())),
            ("oci-archive --compression zstd", OciArchive::new().compression(Compression::ZSTD).into()),
            ("docker-archive", DockerArchive::new().into()),
        ];
        for (number, (line, target)) in formats.into_iter().enumerate() {
            place.done(&format!("x.tar --to {line} -o file-{number}"));
            let output = place.path(&format!("stream-{number}"));
            convert(&image, &target, output, place.path("tmp")).unwrap();
            let read = |name: &str| match target {
                Target::Oci(_) => files_below(&place.path(name)),
                _ => Files::from([(String::new(), fs::read(place.path(name)).unwrap())]),
            };
            assert!(read(&format!("stream-{number}")) == read(&format!("file-{number}")), "{line}");
        }
        // What is not what it should be is told by its digest.
        image.layers[1].diff_id = image.layers[0].diff_id;
        let error = convert(&image, &Oci::new().into(), place.path("bad"), place.path("tmp")).unwrap_err();
        assert_eq!(error.kind(), sif_convert::ErrorKind::Mismatch, "{error}");
        assert!(!place.path("bad").exists());
    }
}

/// What is unpacked anyway is unpacked to files that become the layout's blobs, where they may stay as they are.
#[test]
fn layers_of_a_stream_are_written_once() {
    use std::os::unix::fs::MetadataExt as _;
    let place = Place::new();
    fs::write(place.path("x.tar"), large()).unwrap();
    fs::write(place.path("x.tar.gz"), archives::gzip(&large())).unwrap();
    place.done("x.tar --to oci -o expected");
    let options = sif_convert::OpenOptions {
        tmpdir: place.path("tmp"),
        adopting: Some(place.path("")),
        want_layers: true,
        ..sif_convert::OpenOptions::default()
    };
    let spec = sif_convert::Spec::parse(place.path("x.tar.gz").as_os_str()).unwrap();
    let source = sif_convert::open(&spec, &options, &sif_convert::Monitor::default()).unwrap();
    let image = source.select(&sif_convert::Selection::default()).unwrap();
    let unpacked = |layer: &sif_convert::image::Layer| {
        let region = image.blobs.region(&layer.blob).unwrap().unwrap();
        (layer.diff_id.unwrap().hex(), region.file.metadata().unwrap().ino())
    };
    let unpacked: Vec<(String, u64)> = image.layers.iter().map(unpacked).collect();
    assert!(unpacked.len() > 2);
    convert(&image, &Oci::new().into(), place.path("adopted"), place.path("tmp")).unwrap();
    assert!(files_below(&place.path("adopted")) == files_below(&place.path("expected")));
    for (hex, inode) in unpacked {
        let blob = fs::metadata(place.path("adopted/blobs/sha256").join(hex)).unwrap();
        assert_eq!((blob.ino(), blob.mode() & 0o7777), (inode, 0o644));
    }
    // The program does the same, into a layout that is there too, and what may not stay is compressed.
    place.done("x.tar.gz --to oci -o program");
    place.done("x.tar.gz --to oci -o program --tag again");
    place.done("x.tar.gz --to oci -o zstd --compression zstd");
    assert!(place.images("zstd")[0].layer_types().iter().all(|kind| kind.ends_with("+zstd")));
    let blobs = |name: &str| files_below(&place.path(name).join("blobs"));
    assert!(blobs("expected").keys().all(|blob| blobs("program").contains_key(blob)));
    assert_eq!(place.images("program").len(), 2);
}

/// Writes `image` to `output`, two threads at work.
fn convert(
    image: &sif_convert::Image,
    target: &Target,
    output: PathBuf,
    tmpdir: PathBuf,
) -> sif_convert::Result<sif_convert::Outcome> {
    let jobs = std::num::NonZeroUsize::new(2).unwrap();
    let options = WriteOptions::default().jobs(jobs).tmpdir(tmpdir);
    target.prepare(&output.into(), &options)?.write(image, &sif_convert::Monitor::default())
}

/// An archive of noise that takes a while to copy.
fn large() -> Vec<u8> {
    let noise = noise(24 << 20, 1);
    let layers = noise.chunks(6 << 20).enumerate().map(|(at, chunk)| Tar::new().file(format!("f{at}"), chunk).finish());
    archives::docker_24(&[Described::new(layers.collect()).tagged("large:1")]).bytes
}

#[test]
fn killed_at_any_moment_leaves_layouts_that_are_whole() {
    let place = Place::with(&large());
    fs::write(place.path("small.tar"), archives::docker_24(&[other()]).bytes).unwrap();
    let began = Instant::now();
    place.done("x.tar --to oci -o whole");
    let took = began.elapsed();
    place.done("small.tar --to oci -o old");
    let before = files_below(&place.path("old"));
    for number in 0..=16 {
        let moment = took * number / 14;
        for (output, signal) in [("new", "KILL"), ("old", "KILL"), ("new", "TERM"), ("old", "INT")] {
            let line = format!("x.tar --to oci -o {output}");
            let mut child = place.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment);
            let _ = Command::new("kill").args(["-s", signal, &child.id().to_string()]).stderr(Stdio::null()).status();
            let finished = child.wait().unwrap().success();
            let when = format!("{output}, {signal} after {moment:?}");
            let path = place.path(output);
            if output == "old" {
                check_old(&path, &before, finished, signal, &when);
            } else if path.exists() {
                // It appeared whole. With SIGKILL that may have been just before the end.
                assert!(finished || signal == "KILL", "{when}");
                assert!(files_below(&path) == files_below(&place.path("whole")), "{when}");
                fs::remove_dir_all(&path).unwrap();
            }
            let left = place.names().into_iter().filter(|name| name.starts_with('.'));
            for hidden in left.collect::<Vec<_>>() {
                // The instant in which the hidden directory is filled: SIGKILL lets nobody clean up.
                assert_eq!(signal, "KILL", "{hidden} is left: {when}");
                fs::remove_dir_all(place.path(&hidden)).unwrap();
            }
        }
    }
}

/// The layout that was there holds what it held, and the new image whole or not at all; it is put back.
fn check_old(path: &Path, before: &Files, finished: bool, signal: &str, when: &str) {
    let mut files = files_below(path);
    files.retain(|name, _| !name.contains(".unfinished"));
    let images = layout::images(&files);
    assert_eq!(images[0].tag(), Some("12"), "{when}");
    let added = images.len() > 1;
    assert!(added || !finished, "{when}");
    assert!(added || signal == "KILL" || files == *before, "{when}: blobs are left");
    fs::remove_dir_all(path).unwrap();
    for (name, bytes) in before {
        fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
        fs::write(path.join(name), bytes).unwrap();
    }
}

#[test]
fn a_full_disk_leaves_nothing() {
    if !is_root() {
        return skip("a small file system needs root");
    }
    let place = Place::with(&large());
    fs::write(place.path("small.tar"), archives::docker_24(&[other()]).bytes).unwrap();
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(&disk).status().unwrap();
    if !mount.success() {
        return skip("tmpfs cannot be mounted");
    }
    let check = || {
        place.done("small.tar --to oci -o disk/old");
        let before = files_below(&disk);
        for line in [
            "oci -o disk/new",
            "oci -o disk/old",
            "oci -o disk/new --compression gzip:1",
            "oci -o disk/old --compression zstd:1",
            "oci -o disk/new --flatten",
            "oci-archive -o disk/x.tar",
            "oci-archive -o disk/x.tar --compression gzip:1",
            "docker-archive -o disk/x.tar --flatten",
        ] {
            let failed = place.run(&format!("x.tar --to {line}"));
            assert_eq!(failed.code, 7, "{line}: {}", failed.stderr);
            assert!(files_below(&disk) == before, "{line}: {:?}", files_below(&disk).keys());
        }
    };
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}
