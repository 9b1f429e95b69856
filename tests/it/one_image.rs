//! One image, one SIF: the bytes depend on the image and the effective options, not on how the image was spelled, what it came
//! through, or whether an option was given with its default.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use sif_convert::Source;

use crate::support::archives::{self, Described};
use crate::support::pack::sha256;
use crate::support::run::{program, run, scratch};
use crate::support::tar::Tar;

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");

/// Runs the program in `directory`, which must succeed.
fn convert(directory: &Path, arguments: &[&str]) {
    let run = run(program().current_dir(directory).args(arguments));
    assert_eq!(run.code, 0, "{arguments:?}: {}", run.stderr);
}

/// The SHA-256 of what SOURCE becomes.
fn converted(directory: &Path, source: &str, format: &str, options: &[&str]) -> String {
    let output = directory.join("output");
    let mut command = program();
    command.current_dir(directory).args([source, "--to", format, "-f", "-o", "output"]).args(options);
    if source == "-" {
        command.stdin(Stdio::from(File::open(directory.join("image.tar")).unwrap()));
    }
    let run = run(&mut command);
    assert_eq!(run.code, 0, "{source} {format} {options:?}: {}", run.stderr);
    sha256(&fs::read(output).unwrap())
}

/// The image in every shape that needs neither an engine nor a registry: other names, containers and compressions.
fn spellings(directory: &Path) -> Vec<&'static str> {
    fs::copy(HELLO, directory.join("image.tar")).unwrap();
    convert(directory, &["image.tar", "--to", "docker-archive", "--tag", "other.example/name:2", "-o", "named.tar"]);
    convert(directory, &["image.tar", "--to", "docker-archive", "--compression", "gzip", "-o", "named.tar.gz"]);
    convert(directory, &["image.tar", "--to", "oci", "--tag", "one", "-o", "plain.oci"]);
    convert(directory, &["image.tar", "--to", "oci", "--compression", "gzip:1", "-o", "gzip.oci"]);
    convert(directory, &["image.tar", "--to", "oci-archive", "--compression", "zstd", "-o", "zstd.oci.tar"]);
    vec![
        "image.tar",
        "-",
        "docker-archive:image.tar",
        "named.tar",
        "named.tar.gz",
        "plain.oci",
        "oci:plain.oci:one",
        "gzip.oci",
        "oci-archive:zstd.oci.tar",
    ]
}

#[test]
fn one_image_gives_one_output_however_it_is_spelled() {
    let place = scratch();
    let spellings = spellings(place.path());
    for format in ["sif", "sif-rootfs"] {
        let first = converted(place.path(), "image.tar", format, &[]);
        for source in &spellings {
            assert_eq!(converted(place.path(), source, format, &[]), first, "{source} as {format}");
        }
    }
}

#[test]
fn defaults_that_are_spelled_out_change_nothing() {
    let place = scratch();
    fs::copy(HELLO, place.path().join("image.tar")).unwrap();
    let first = converted(place.path(), "image.tar", "sif", &[]);
    let spelled: [&[&str]; 5] = [
        &["--compression", "gzip"],
        &["--block-size", "131072"],
        &["--xattrs", "none"],
        &["--jobs", "3"],
        &["--compression", "gzip:5", "--block-size", "131072", "--xattrs", "none"],
    ];
    for options in spelled {
        assert_eq!(converted(place.path(), "image.tar", "sif", options), first, "{options:?}");
    }
}

#[test]
fn a_name_that_is_asked_for_is_recorded() {
    let place = scratch();
    fs::copy(HELLO, place.path().join("image.tar")).unwrap();
    let without = converted(place.path(), "image.tar", "sif", &[]);
    let named = converted(place.path(), "image.tar", "sif", &["--reference", "example.org/app:1"]);
    assert_ne!(named, without);
    let bytes = fs::read(place.path().join("output")).unwrap();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("from: example.org/app:1\n"), "the definition holds the name");
}

/// The image in a layout, whose manifest has a digest; that digest.
fn layout(directory: &Path) -> String {
    fs::copy(HELLO, directory.join("image.tar")).unwrap();
    convert(directory, &["image.tar", "--to", "oci", "-o", "layout"]);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("layout/index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_string()
}

/// The exit code of `build --if-exists update --expect-digest` on `x.sif` from a registry that is not there.
fn updated_out_of_reach(directory: &Path, digest: &str) -> i32 {
    let words = ["build", "--if-exists", "update", "--expect-digest", digest, "--retries", "0", "--no-https", "x.sif"];
    run(program().current_dir(directory).args(words).arg("docker://127.0.0.1:1/app:1")).code
}

#[test]
fn a_whole_output_of_the_expected_image_needs_no_registry() {
    let place = scratch();
    let manifest = layout(place.path());
    convert(place.path(), &["oci:layout", "--to", "sif", "-o", "x.sif"]);
    assert_eq!(updated_out_of_reach(place.path(), &manifest), 0);
    let (other, network) = (format!("sha256:{}", "0".repeat(64)), 6);
    assert_eq!(updated_out_of_reach(place.path(), &other), network, "another image must be asked for");
}

#[test]
fn a_damaged_output_of_the_expected_image_is_made_again() {
    let place = scratch();
    let manifest = layout(place.path());
    convert(place.path(), &["oci:layout", "--to", "sif", "-o", "x.sif"]);
    let path = place.path().join("x.sif");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 5000;
    bytes[last] ^= 1;
    // In place: the record beside the bytes stays.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes))
        .unwrap();
    assert_eq!(updated_out_of_reach(place.path(), &manifest), 6, "damage is not used");
}

/// A change of the bytes of `sif` or `sif-rootfs` must come with another number of the output format: raise
/// `model::OUTPUT_FORMAT`, and write the new sums here.
#[test]
fn the_bytes_of_the_output_format_stay() {
    const FORMAT: &str = "\"org.label-schema.usage.sif-convert.format\": \"2\"";
    let place = scratch();
    fs::copy(HELLO, place.path().join("image.tar")).unwrap();
    let rootfs = converted(place.path(), "image.tar", "sif-rootfs", &[]);
    let bytes = fs::read(place.path().join("output")).unwrap();
    assert!(bytes.windows(FORMAT.len()).any(|window| window == FORMAT.as_bytes()), "another number, or another label");
    let sif = converted(place.path(), "image.tar", "sif", &[]);
    assert_eq!([&*rootfs, &*sif], SUMS);
}

const SUMS: [&str; 2] = [
    "784811fa82063fc10ad539067a0a22ab39b17e76538ba702a31153334876b1da",
    "67cfc071176bd10e6d43599fb65b0218dfa3468ece0459903674391eac5ca761",
];

/// Of a source that lists more images than anyone may, the one that is named is read alone, under all of its names.
#[test]
fn of_many_images_only_the_named_one_is_read() {
    let place = scratch();
    let image = Described::new(vec![Tar::new().file("a", b"1").finish()]).tagged("app:1").tagged("app:also");
    let add = |entries: &mut Vec<Value>, other: &dyn Fn(usize) -> Value| entries.extend((0..5000).map(other));
    let mut members = archives::layout(std::slice::from_ref(&image), archives::Squeeze::Not);
    let mut index: Value = serde_json::from_slice(members.get("index.json")).unwrap();
    add(index["manifests"].as_array_mut().unwrap(), &|number| {
        let manifest = number.to_string();
        let mut entry = archives::descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("other:{number}") });
        entry
    });
    // What is said of the image stands beside it, under no name.
    let mut statement = archives::descriptor("application/vnd.oci.image.manifest.v1+json", b"{}");
    let digest = index["manifests"][0]["digest"].clone();
    statement["annotations"] =
        json!({ "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest });
    index["manifests"].as_array_mut().unwrap().push(statement);
    members.file("index.json", index.to_string());
    members.write_below(&place.path().join("layout"));
    fs::write(place.path().join("oci.tar"), members.pack("")).unwrap();
    let mut members = archives::docker_with_v1(&[image], false);
    let mut list: Value = serde_json::from_slice(members.get("manifest.json")).unwrap();
    add(list.as_array_mut().unwrap(), &|number| json!({ "Config": format!("{number}.json"), "Layers": [] }));
    members.file("manifest.json", list.to_string());
    fs::write(place.path().join("docker.tar"), members.pack("")).unwrap();
    for (source, word) in [("oci", "layout"), ("oci-archive", "oci.tar"), ("docker-archive", "docker.tar")] {
        let all = run(program().current_dir(place.path()).args([word, "--image", "app:1", "--to", "rootfs"]));
        assert!(all.code == 4 && all.stderr.contains("more than 4096 images are listed"), "{}", all.stderr);
        let named = Source::open(format!("{source}:{}:app:also", place.path().join(word).display())).unwrap();
        let [only] = &named.images()[..] else { panic!("{source}: {:?}", named.images().len()) };
        assert_eq!(only.names, ["docker.io/library/app:1", "docker.io/library/app:also"], "{source}");
        let none = run(program().current_dir(place.path()).args([&format!("{source}:{word}:app:2"), "--to", "rootfs"]));
        assert!(none.code == 4 && none.stderr.contains("more than 4096 images are listed"), "{}", none.stderr);
        convert(place.path(), &[&format!("{source}:{word}:app:1"), "--to", "rootfs", "-f", "-o", "x.tar"]);
        let asked = |words: &[&str]| {
            run(program().current_dir(place.path()).arg(format!("{source}:{word}:app:1")).args(words)).stderr
        };
        let other = asked(&["--to", "rootfs", "--platform", "linux/s390x"]);
        assert!(other.contains("which holds one image of that name"), "{other}");
        if source != "docker-archive" {
            let said = asked(&["--to", "sif", "--with-sbom", "-o", "x.sif"]);
            assert!(!said.contains("has no attestations") && said.contains("error: "), "{said}");
        }
    }
}
