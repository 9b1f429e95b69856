//! `--with-sbom`: what BuildKit says of an image goes into its SIF, as it is.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::Deref;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::archives::{Described, Members, buildx};
use crate::support::fake::{Answer, Fake, OCI_INDEX, OCI_MANIFEST, Request};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive, squeeze};
use crate::support::place;
use crate::support::registry::Registry;
use crate::support::run::{self, exit_code, run};
use crate::support::siftool::Sif;

const SPDX: &str = "https://spdx.dev/Document";
const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";

fn layers(name: &str) -> Vec<Vec<u8>> {
    let mut tar = Vec::new();
    layer::member(&mut tar, "etc/motd", name.repeat(1000).as_bytes());
    tar.resize(tar.len() + 1024, 0);
    vec![tar]
}

/// A document in a form that no program would give it again. `size` bytes of it say nothing.
fn spdx(image: &Described, size: usize) -> String {
    let packages = "x".repeat(size);
    format!(
        "{{ \"spdxVersion\":\"SPDX-2.3\",\n\t\"b\":1.50, \"a\":[1e3,  \"\\u0061{}\"],\"c\":\"{packages}\" }}",
        image.architecture
    )
}

/// A statement about the manifest with this digest, in hexadecimal digits.
fn statement(kind: &str, hex: &str, predicate: &str) -> (String, Vec<u8>) {
    let text = format!(
        "{{\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"{kind}\",\"subject\":[\
         {{\"name\":\"pkg:docker/app@1\",\"digest\":{{\"sha256\":\"{hex}\"}}}}],\"predicate\":{predicate}}}"
    );
    (kind.to_string(), text.into_bytes())
}

fn provenance(hex: &str) -> (String, Vec<u8>) {
    statement(PROVENANCE, hex, "{\"builder\":{\"id\":\"\"},\"buildType\":\"https://mobyproject.org/buildkit@v1\"}")
}

/// An image for two platforms, as buildx leaves it: with an SBOM of `size` bytes and provenance for each.
fn image(size: usize) -> Members {
    let of =
        |architecture: &str| Described::new(layers(architecture)).architecture(architecture).tagged("h.example/app:1");
    buildx(&[of("amd64"), of("arm64")], &|image, hex| vec![statement(SPDX, hex, &spdx(image, size)), provenance(hex)])
}

/// A directory with the image in every form.
struct Place {
    place: place::Place,
}

impl Deref for Place {
    type Target = place::Place;

    fn deref(&self) -> &place::Place {
        &self.place
    }
}

impl Place {
    fn new(members: &Members) -> Self {
        let place = place::Place::new();
        members.write_below(&place.path("layout"));
        fs::write(place.path("archive.tar"), members.pack("")).unwrap();
        fs::write(place.path("archive.tar.gz"), squeeze(&members.pack(""), Squeeze::Gzip)).unwrap();
        Place { place }
    }

    /// Refused, with nothing left behind.
    fn refused(&self, words: &[&str], kind: &str, said: &str) {
        let done = run(&mut self.command(&[words, &["--to", "sif", "-o", "refused.sif"]].concat()));
        assert_eq!(done.code, exit_code(kind), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(said), "{words:?}: {}", done.stderr);
        assert!(!self.path("refused.sif").exists());
    }

    fn sif(&self, name: &str) -> Sif {
        Sif(fs::read(self.path(name)).unwrap())
    }
}

/// A registry that holds the image as `org/app:1`.
fn hosted(members: Members) -> Fake {
    let blobs: BTreeMap<String, Vec<u8>> = members.into_blobs().collect();
    let of = |blob: &&Vec<u8>| serde_json::from_slice::<Value>(blob).is_ok_and(|it| it["mediaType"] == OCI_INDEX);
    let index = blobs.values().find(of).unwrap().clone();
    Fake::start(move |request: &Request| {
        let name = request.path.rsplit('/').next().unwrap();
        let found = if name == "1" { Some(&index) } else { blobs.get(name) };
        match found {
            Some(bytes) if request.is_for("/manifests/") => {
                let kind = if *bytes == index { OCI_INDEX } else { OCI_MANIFEST };
                Answer::new(200, kind, bytes.clone())
            }
            Some(bytes) => Answer::new(200, "application/octet-stream", bytes.clone()),
            None => Answer::json(404, json!({ "errors": [{ "code": "MANIFEST_UNKNOWN" }] })),
        }
    })
}

#[test]
fn the_sbom_is_in_the_sif_wherever_the_image_comes_from() {
    // Larger than any other document may be.
    for size in [0, 5 << 20] {
        let place = Place::new(&image(size));
        let fake = hosted(image(size));
        let uri = format!("docker://{}/org/app:1", fake.host());
        for architecture in ["amd64", "arm64"] {
            let platform = format!("linux/{architecture}");
            let convert = ["--to", "sif", "-q", "--platform", &platform, "-o"];
            place.good(&[&["layout", "--with-sbom"], &convert[..], &["layout.sif", "-f"]].concat());
            let sif = place.sif("layout.sif");
            let bill = spdx(&Described::new(Vec::new()).architecture(architecture), size);
            assert!(sif.objects(9, "sbom.spdx.json") == [bill.as_bytes()], "{architecture}");
            let [said] = sif.objects(6, "provenance.json")[..] else { panic!("one provenance") };
            let said: Value = serde_json::from_slice(said).unwrap();
            assert_eq!(said["predicateType"], PROVENANCE);
            for (source, options) in [
                ("archive.tar", &["-j", "1"][..]),
                ("archive.tar.gz", &[]),
                ("oci:layout", &["--cache", "cache"]),
                (uri.as_str(), &[]),
            ] {
                let words = [&[source, "--with-sbom"], options, &convert, &["other.sif", "-f"]].concat();
                place.good(&words);
                assert!(place.sif("other.sif").0 == sif.0, "{source} for {architecture}");
            }
            let stdin = fs::File::open(place.path("archive.tar.gz")).unwrap();
            let words = [&["-", "--with-sbom"], &convert[..], &["other.sif", "-f"]].concat();
            assert_eq!(run(place.command(&words).stdin(stdin)).code, 0);
            assert!(place.sif("other.sif").0 == sif.0, "standard input for {architecture}");
        }
        // It is an option that decides bytes: without it they are those of an image that never had one.
        place.good(&["layout", "--to", "sif", "-q", "--platform", "linux/amd64", "-o", "plain.sif"]);
        let plain = buildx(&[Described::new(layers("amd64")).tagged("h.example/app:1")], &|_, _| Vec::new());
        plain.write_below(&place.path("bare"));
        place.good(&["bare", "--to", "sif", "-q", "-o", "bare.sif"]);
        assert!(place.sif("plain.sif").0 == place.sif("bare.sif").0);
        assert!(place.sif("plain.sif").objects(9, "sbom.spdx.json").is_empty());
    }
}

#[test]
fn what_a_conversion_leaves_out_of_a_sif_is_said_once() {
    let place = Place::new(&image(100));
    let key = format!("{}/fixtures/keys/ed25519.pem", env!("CARGO_MANIFEST_DIR"));
    let amd64 = ["--platform", "linux/amd64", "-q"];
    place.good(&[&["layout", "--with-sbom", "--to", "sif", "--sign-key", &key, "-o", "x.sif"], &amd64[..]].concat());
    place.good(&[&["layout", "--to", "sif", "-o", "plain.sif"], &amd64[..]].concat());
    let left_out = |source: &str, format: &str| {
        let output = format!("{format}.out");
        let mut words = vec![source, "--to", format, "-o", &output, "--report", "r.json", "--progress", "none"];
        words.extend((format != "oci" && format != "dir").then_some("--force"));
        words.extend(["--arch", "amd64"].iter().filter(|_| format == "sif"));
        let said = place.good(&words).stderr;
        let mut warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
        let all = warnings.len();
        warnings.sort_unstable();
        warnings.dedup();
        assert_eq!(warnings.len(), all, "{source} {format}: {said}");
        let report: Value = serde_json::from_slice(&fs::read(place.path("r.json")).unwrap()).unwrap();
        let notes = report["notes"].as_array().unwrap();
        let notes: Vec<Value> = notes.iter().filter(|note| note["code"] == "objects-left-out").cloned().collect();
        assert_eq!(said.contains("left out"), !notes.is_empty(), "{source} {format}: {said}");
        notes
    };
    for format in ["sif", "oci", "docker-archive", "squashfs", "rootfs", "dir"] {
        let [note] = &left_out("x.sif", format)[..] else { panic!("one note for {format}") };
        assert_eq!(note["count"], 3, "{note}");
        let message = note["message"].as_str().unwrap();
        for what in ["signatures", "SBOM", "other documents", "sign again"] {
            assert!(message.contains(what), "{message}");
        }
    }
    assert!(left_out("plain.sif", "sif").is_empty(), "what every build writes is not missed");
    // A directory says less of how its image ran, and each thing once.
    assert!(left_out("dir.out", "sif").is_empty());
    place.good(&["plain.sif", "--to", "sif-rootfs", "-q", "-o", "rootfs.tar"]);
    assert!(left_out("rootfs.tar", "sif").is_empty());
}

#[test]
fn every_command_knows_the_objects() {
    let place = Place::new(&image(100));
    let amd64 = ["--platform", "linux/amd64"];
    let convert = |more: &[&str]| {
        place.good(&[&["layout", "--to", "sif", "--with-sbom", "-o", "app.sif"], &amd64[..], more].concat())
    };
    convert(&[]);
    let verified = place.good(&["verify", "app.sif"]);
    assert!(!verified.stderr.contains("added") && !verified.stderr.contains("warning"), "{}", verified.stderr);
    let against = place.good(&[&["verify", "app.sif", "--against", "layout"], &amd64[..]].concat());
    let said = String::from_utf8(against.stdout).unwrap() + &against.stderr;
    assert!(said.contains("byte for byte"), "{said}");
    // Of the same image without what BuildKit said of it, the files are compared.
    let bare = buildx(&[Described::new(layers("amd64")).tagged("h.example/app:1")], &|_, _| Vec::new());
    bare.write_below(&place.path("bare"));
    let against = place.good(&["verify", "app.sif", "--against", "bare"]);
    assert!(against.stderr.contains("the SBOM in the file was not compared"), "{}", against.stderr);
    let page: Value = serde_json::from_slice(&place.good(&["inspect", "--json", "app.sif"]).stdout).unwrap();
    let objects = page["sif"]["objects"].as_array().unwrap();
    let kind = |name: &str| objects.iter().find(|it| it["name"] == name).map(|it| it["kind"].as_str().unwrap());
    assert_eq!(kind("sbom.spdx.json"), Some("SBOM (spdx-json)"), "{page}");
    assert!(kind("provenance.json").unwrap().starts_with("JSON"), "{page}");
    let listed = String::from_utf8(place.good(&["ls", "app.sif", "/etc"]).stdout).unwrap();
    assert!(listed.contains("motd"), "{listed}");
    // Signed like all else.
    let key = |name: &str| format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    place.good(&["sign", "app.sif", "--key", &key("p256.pem"), "-o", "signed.sif"]);
    place.good(&["verify", "signed.sif", "--key", &key("p256.pub")]);
    let mut forged = place.sif("signed.sif");
    let at = forged.0.windows(8).position(|bytes| bytes == b"SPDX-2.3").unwrap();
    forged.0[at] = b'X';
    fs::write(place.path("forged.sif"), &forged.0).unwrap();
    for words in [&["verify", "forged.sif"][..], &["verify", "forged.sif", "--key", &key("p256.pub")]] {
        assert_eq!(run(&mut place.command(words)).code, exit_code("Mismatch"), "{words:?}");
    }
    // What is there is used again for the same SBOM only.
    let reused = convert(&["--if-exists", "reuse"]);
    assert!(reused.stderr.contains("reused \"app.sif\""), "{}", reused.stderr);
    let before = place.sif("app.sif");
    image(200).write_below(&place.path("layout"));
    let words =
        [&["layout", "--to", "sif", "--with-sbom", "-o", "app.sif", "--if-exists", "reuse"], &amd64[..]].concat();
    let done = run(&mut place.command(&words));
    assert_eq!(done.code, exit_code("Output"), "{}", done.stderr);
    assert!(done.stderr.contains("holds another sbom.spdx.json"), "{}", done.stderr);
    let without = [&["layout", "--to", "sif", "-o", "app.sif", "--if-exists", "reuse"], &amd64[..]].concat();
    assert!(run(&mut place.command(&without)).stderr.contains("with other options"));
    assert!(place.sif("app.sif").0 == before.0);
    convert(&["--if-exists", "update"]);
    assert!(place.sif("app.sif").0 != before.0);
    // An attached one is found by whoever asks for the same.
    let depot = crate::support::depot::Depot { has_referrers: true, ..Default::default() };
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let uri = format!("docker://{}/org/app:1", fake.host());
    place.good(&[&["layout", "--to", "oci", "-o", &uri], &amd64[..]].concat());
    let done = run(&mut place.command(&["attach", &uri, "--with-sbom"]));
    assert_eq!(done.code, exit_code("SourceUnavailable"), "only the image was pushed: {}", done.stderr);
}

#[test]
fn what_has_no_sbom_or_a_wrong_one_is_refused() {
    let one = || [Described::new(layers("amd64")).tagged("h.example/app:1")];
    let with = |members: &Members| {
        let place = Place::new(members);
        (place, ["layout", "--with-sbom"])
    };
    let (place, words) = with(&buildx(&one(), &|_, _| Vec::new()));
    place.refused(&words, "SourceUnavailable", "carries no SBOM: it has no attestations");
    fs::write(place.path("docker.tar"), docker_archive(&layers("amd64"), Squeeze::Not)).unwrap();
    place.refused(&["docker.tar", "--with-sbom"], "SourceUnavailable", "carries no SBOM: it has no attestations");
    fs::write(place.path("passphrase"), "secret\n").unwrap();
    let encrypted = [&words[..], &["--encrypt-passphrase-file", "passphrase"]].concat();
    place.refused(&encrypted, "Usage", "an SBOM would tell in the clear");

    let (place, words) = with(&buildx(&one(), &|_, hex| vec![provenance(hex)]));
    place.refused(&words, "SourceUnavailable", "carries no SBOM: none of its 1 attestations is one");
    let (place, words) = with(&buildx(&one(), &|image, _| vec![statement(SPDX, &"0".repeat(64), &spdx(image, 0))]));
    place.refused(&words, "Mismatch", "it is about something else than this image");
    let (place, words) = with(&buildx(&one(), &|_, _| vec![(SPDX.to_string(), b"no JSON".to_vec())]));
    place.refused(&words, "InvalidImage", "not an in-toto statement");
    // Of 40 MiB.
    let (place, words) = with(&buildx(&one(), &|image, hex| vec![statement(SPDX, hex, &spdx(image, 40 << 20))]));
    place.refused(&words, "Unsupported", "more than 33554432 bytes altogether");

    // Damaged, and gone.
    let (place, words) = with(&image(0));
    let said = |name: &Path| fs::read(name).unwrap().starts_with(b"{\"_type\"");
    let blobs = || fs::read_dir(place.path("layout/blobs/sha256")).unwrap().map(|it| it.unwrap().path());
    for blob in blobs().filter(|name| said(name)) {
        let mut file = fs::OpenOptions::new().append(true).open(blob).unwrap();
        file.write_all(b" ").unwrap();
    }
    let words = [&words[..], &["--platform", "linux/amd64"]].concat();
    place.refused(&words, "Mismatch", "attestation sha256:");
    blobs().filter(|name| said(name)).for_each(|name| fs::remove_file(name).unwrap());
    place.refused(&words, "InvalidImage", "is listed and not there");
    // Who does not ask for them does not care.
    place.good(&["layout", "--to", "sif", "--platform", "linux/amd64", "-o", "without.sif"]);
}

/// Several bills of materials, one by another program, and a statement of another kind.
#[test]
fn all_bills_are_carried_in_their_order() {
    let one = [Described::new(layers("amd64")).tagged("h.example/app:1")];
    let place = Place::new(&buildx(&one, &|_, hex| {
        vec![
            statement("https://spdx.dev/Document/v2.3", hex, "{\"n\":1}"),
            statement("https://cyclonedx.org/bom/v1.5", hex, "{\"n\":2}"),
            statement("https://in-toto.io/attestation/vulns", hex, "{}"),
            statement(SPDX, hex, "{\"n\":3}"),
        ]
    }));
    let done = place.good(&["layout", "--to", "sif", "--with-sbom", "-o", "app.sif"]);
    assert!(done.stderr.contains("https://in-toto.io/attestation/vulns"), "{}", done.stderr);
    let sif = place.sif("app.sif");
    for (name, text) in
        [("sbom.spdx.json", "{\"n\":1}"), ("sbom-2.cdx.json", "{\"n\":2}"), ("sbom-3.spdx.json", "{\"n\":3}")]
    {
        assert_eq!(sif.objects(9, name), [text.as_bytes()], "{name}");
    }
    assert!(sif.objects(6, "provenance.json").is_empty());
}

#[test]
fn apptainer_shows_the_sbom_oracle_docker() {
    let Some(oracles) = run::oracles() else { return };
    let place = Place::new(&image(100));
    let Some(registry) = Registry::start(&place.path(""), "", "") else { return };
    let shell = |script: &str| {
        let done = run(oracles.run(&place.path("")).args(["sh", "-euc", script]).stdin(Stdio::null()));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    // As somebody else's program puts it there: the index, and all that it lists.
    let host = &registry.host;
    shell(&format!("oras cp --from-oci-layout --to-plain-http layout:1 {host}/org/app:1 >&2"));
    let uri = format!("docker://{host}/org/app:1");
    place.good(&["attach", &uri, "--with-sbom", "--sif-tag", "1.sif"]);
    place.good(&["layout", "--to", "sif", "--with-sbom", "--platform", "linux/amd64", "-o", "here.sif"]);
    shell(&format!("oras pull --plain-http --platform linux/amd64 -o out {host}/org/app:1.sif >&2"));
    let pulled = fs::read_dir(place.path("out")).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read(pulled).unwrap() == place.sif("here.sif").0);
    let listed = shell("apptainer sif list here.sif");
    let line = listed.lines().find(|line| line.contains("SBOM (spdx-json)")).expect(&listed);
    let id = line.split('|').next().unwrap().trim();
    let dumped = shell(&format!("apptainer sif dump {id} here.sif"));
    assert_eq!(dumped, spdx(&Described::new(Vec::new()), 100));
    let key = |name: &str| format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::copy(key("p256.pub"), place.path("p256.pub")).unwrap();
    place.good(&["sign", "here.sif", "--key", &key("p256.pem")]);
    shell("apptainer verify --key p256.pub here.sif >&2");
}
