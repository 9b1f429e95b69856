//! Signatures that travel by the registry: the owner of an image signs its SIF once, and every site adds that signature to
//! the SIF that it made itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::attach::{Place, fetch, put, writes};
use crate::support::depot::Depot;
use crate::support::fake::{Fake, OCI_INDEX, OCI_MANIFEST, Request};
use crate::support::registry::Registry;
use crate::support::run::{self, Run, exit_code, run};

const SIGNATURE: &str = "application/vnd.sif-convert.signature.v1+json";

fn key(name: &str) -> String {
    format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What the owner signs, on a machine of another kind: another user's umask, directory, time zone and number of threads,
/// and an archive where the site has a registry. The path of the signature.
fn signed(place: &Place, architecture: &str, pair: &str) -> String {
    let directory = place.path(&format!("owner of {architecture} by {pair}"));
    fs::create_dir(&directory).unwrap();
    let script = "umask 077; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_sif-convert")]).arg(place.path(&format!("{architecture}.tar")));
    command.args(["--to", "sif", "-q", "-j", "1", "--sign-key", &key(&format!("{pair}.pem"))]);
    command.args(["--sign-detached", "owner.json"]).env("TZ", "Asia/Tokyo").current_dir(&directory);
    let done = run(&mut command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    directory.join("owner.json").display().to_string()
}

fn refused(place: &Place, words: &[&str], kind: &str, said: &str) -> Run {
    let done = run(&mut place.command(words));
    assert_eq!(done.code, exit_code(kind), "{words:?}: {}", done.stderr);
    assert!(done.stderr.contains(said), "{words:?}: {}", done.stderr);
    done
}

/// The SIF with the signature, made without a registry.
fn signed_sif(place: &Place, architecture: &str, signature: &str) -> Vec<u8> {
    let plain = format!("{architecture}.sif");
    place.good(&["sign", &plain, "--signature", signature, "-o", "later.sif"]);
    let bytes = fs::read(place.path("later.sif")).unwrap();
    fs::remove_file(place.path("later.sif")).unwrap();
    bytes
}

/// What a site says to convert `uri`.
fn site_of<'a>(uri: &'a str) -> impl Fn(&[&'a str]) -> Vec<&'a str> {
    move |words| [&[uri, "--to", "sif", "-o", "site.sif", "--signature", "referrer"], words].concat()
}

fn signed_by_its_owner(place: &Place, host: &str, log: &dyn Fn() -> Vec<Request>) {
    let images = place.host(host);
    let uri = format!("docker://{host}/org/app:1");
    let [amd64, arm64] = ["amd64", "arm64"].map(|architecture| signed(place, architecture, "p384"));
    let site = site_of(&uri);
    let on_amd64 = ["--platform", "linux/amd64"];
    // A signature for one of two SIFs is not enough: nothing is sent.
    let hosted = writes(&log()).len();
    for more in [&[][..], &["--signature-only"]] {
        let words = [&["attach", &uri, "--signature", &amd64], more].concat();
        refused(place, &words, "Mismatch", "1 is given for linux/amd64, linux/arm64");
    }
    // Nor are two of one of them.
    let second = signed(place, "amd64", "ed25519");
    let of_one = ["attach", &uri, "--signature", &amd64, "--signature", &second];
    refused(place, &of_one, "Mismatch", "2 of 1 SIF are given for linux/amd64, linux/arm64");
    assert_eq!(writes(&log())[hosted..], [] as [String; 0]);
    refused(place, &site(&on_amd64), "SourceUnavailable", "no signature of a SIF refers to image manifest");

    // Beside the SIF of one platform, then of both.
    let attach = |words: &[&str]| place.good(&[&["attach", &uri, "--report", "report.json"], words].concat());
    attach(&[&["--signature", &amd64], &on_amd64[..]].concat());
    let report = place.report();
    let [sif, signature] = ["attached", "attached_signatures"].map(|key| report[key].as_array().unwrap().clone());
    assert_eq!((sif.len(), signature.len()), (1, 1));
    assert_eq!((&signature[0]["is_new"], &signature[0]["image_manifest_digest"]), (&json!(true), &json!(images[0])));
    let sha256 = crate::support::pack::sha256(&fs::read(&amd64).unwrap());
    assert_eq!(signature[0]["sha256"], sha256);
    let manifest = signature[0]["manifest_digest"].as_str().unwrap();
    let manifest: Value = serde_json::from_slice(&fetch(host, &format!("manifests/{manifest}"))).unwrap();
    assert_eq!((&manifest["artifactType"], &manifest["subject"]["digest"]), (&json!(SIGNATURE), &json!(images[0])));
    assert_eq!(manifest["layers"][0]["digest"], format!("sha256:{sha256}"));
    assert!(manifest["annotations"]["org.sif-convert.signer"].as_str().unwrap().starts_with("SHA256:"), "{manifest}");
    let sent = writes(&log()).len();
    refused(place, &of_one, "Mismatch", "1 of another SIF is given for linux/arm64");
    assert_eq!(writes(&log())[sent..], [] as [String; 0]);
    attach(&["--signature", &arm64, "--signature", &amd64]);
    let new = |report: &Value| {
        let list = report["attached_signatures"].as_array().unwrap();
        list.iter().map(|it| it["is_new"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(new(&place.report()), [false, true]);
    // Twice changes nothing, and sends nothing.
    let sent = writes(&log()).len();
    attach(&["--signature", &arm64, "--signature", &amd64]);
    assert_eq!((new(&place.report()), &writes(&log())[sent..]), (vec![false, false], &[] as &[String]));
    // What fits no SIF is not hosted: of another SIF, of another platform.
    let other = key("hello.sig.json");
    let of_one = ["attach", &uri, "--signature", &other, on_amd64[0], on_amd64[1]];
    refused(place, &of_one, "Mismatch", "the signature is of another SIF");
    refused(place, &["attach", &uri, "--signature", &amd64], "Mismatch", "none is given for linux/arm64");
    let options = ["attach", &uri, "--workdir", "--signature-only", "--signature", &arm64, "--platform", "linux/arm64"];
    place.good(&options);
    assert_eq!(writes(&log())[sent..], [] as [String; 0]);

    // A site converts, and adds it.
    for (platform, signature) in [("linux/amd64", &amd64), ("linux/arm64", &arm64)] {
        let architecture = &platform[6..];
        place.good(&site(&["--platform", platform, "-f"]));
        assert!(fs::read(place.path("site.sif")).unwrap() == signed_sif(place, architecture, signature));
        place.good(&["verify", "site.sif", "--key", &key("p384.pub")]);
        refused(place, &["verify", "site.sif", "--key", &key("p256.pub")], "Mismatch", "no valid signature");
        let reused = place.good(&site(&["--platform", platform, "--if-exists", "reuse"]));
        assert!(reused.stderr.contains("reused \"site.sif\""), "{}", reused.stderr);
    }
    let page = String::from_utf8(place.good(&["inspect", &uri]).stdout).unwrap();
    assert_eq!(page.matches("signature of a SIF by SHA256:").count(), 2, "{page}");
    // Not to another SIF.
    fs::remove_file(place.path("site.sif")).unwrap();
    refused(place, &site(&["--workdir"]), "Mismatch", "was made with other options");
    refused(place, &site(&["--cmd", "other"]), "Mismatch", "the signature is of another SIF");
    let archive = ["amd64.tar", "--to", "sif", "-o", "site.sif", "--signature", "referrer"];
    refused(place, &archive, "Usage", "is not on a registry");
    assert!(!place.path("site.sif").exists());

    // Another owner's, and then it must be said which.
    attach(&[&["--signature", &second], &on_amd64[..]].concat());
    let done = refused(place, &site(&on_amd64), "Usage", "several signatures of this SIF refer to image manifest");
    assert!(done.stderr.matches(" by SHA256:").count() == 2 && !place.path("site.sif").exists(), "{}", done.stderr);

    // Without a SIF beside it.
    let alone = format!("docker://{host}/org/alone:amd64");
    place.good(&["amd64.tar", "--to", "oci", "-o", &alone]);
    place.good(&["attach", &alone, "--signature", &amd64, "--signature-only", "--report", "report.json"]);
    let report = place.report();
    assert!(report["attached"].is_null() && report["output"].is_null(), "{report}");
    place.good(&[&alone, "--to", "sif", "-o", "alone.sif", "--signature", "referrer"]);
    assert!(fs::read(place.path("alone.sif")).unwrap() == signed_sif(place, "amd64", &amd64));
    let page: Value = serde_json::from_slice(&place.good(&["inspect", "--json", &alone]).stdout).unwrap();
    let listed = page["images"][0]["attached"].as_array().unwrap();
    assert!(listed.len() == 1 && listed[0]["artifact_type"] == SIGNATURE, "{page}");

    // Two owners of one SIF, at once.
    let both = format!("docker://{host}/org/both:amd64");
    place.good(&["amd64.tar", "--to", "oci", "-o", &both]);
    place.good(&["attach", &both, "--signature", &amd64, "--signature", &second, "--report", "report.json"]);
    let report = place.report();
    let mut found: Vec<&str> =
        report["attached_signatures"].as_array().unwrap().iter().map(|it| it["sha256"].as_str().unwrap()).collect();
    found.sort_unstable();
    let mut given = [&amd64, &second].map(|path| crate::support::pack::sha256(&fs::read(path).unwrap()));
    given.sort_unstable();
    assert_eq!(found, given);
}

#[test]
fn a_signature_is_hosted_where_the_registry_lists_referrers() {
    let place = Place::new();
    let depot = Depot { has_referrers: true, ..Depot::default() };
    let fake = Fake::start(move |request| depot.answer(request));
    signed_by_its_owner(&place, &fake.host(), &|| fake.log());
}

#[test]
fn a_signature_is_hosted_on_dockers_registry_docker() {
    let place = Place::new();
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    signed_by_its_owner(&place, &registry.host, &Vec::new);
    let Some(oracles) = run::oracles() else { return };
    let shell = |script: &str| {
        let done = run(oracles.run(Path::new(place.place.path())).args(["sh", "-euc", script]));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    fs::copy(key("p384.pub"), place.path("p384.pub")).unwrap();
    fs::copy(key("p256.pub"), place.path("p256.pub")).unwrap();
    let said = shell("apptainer verify --key p384.pub alone.sif 2>&1; ! apptainer verify --key p256.pub alone.sif >&2");
    assert!(said.contains("Verified signature(s)"), "{said}");
    let name = format!("{}/org/alone", registry.host);
    let found = shell(&format!("oras discover --plain-http --format json {name}:amd64 2>/dev/null"));
    assert!(found.contains(SIGNATURE), "{found}");
    let manifest = serde_json::from_str::<Value>(&found).unwrap();
    let digest = manifest["referrers"][0]["digest"].as_str().or(manifest["manifests"][0]["digest"].as_str()).unwrap();
    // What oras saves is the file that the owner made.
    shell(&format!("mkdir saved && cd saved && oras pull --plain-http {name}@{digest} >&2"));
    let saved = fs::read_dir(place.path("saved")).unwrap().next().unwrap().unwrap().path();
    let owner = place.path("owner of amd64 by p384/owner.json");
    assert_eq!(fs::read(&saved).unwrap(), fs::read(owner).unwrap(), "{saved:?}");
    assert!(saved.ends_with("alone-linux-amd64.sif.sig.json"), "{saved:?}");
}

/// What a registry says is not believed: a signature of another SIF that claims to be of this one does not get into it.
#[test]
fn a_hosted_signature_of_another_sif_is_refused() {
    let place = Place::new();
    let depot = Depot::default();
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let host = fake.host();
    let images = place.host(&host);
    let forged = fs::read(signed(&place, "arm64", "p256")).unwrap();
    depot.put_blob("org/app", &forged);
    depot.put_blob("org/app", b"{}");
    let digest = |bytes: &[u8]| format!("sha256:{}", crate::support::pack::sha256(bytes));
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": SIGNATURE,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digest(b"{}") },
        "layers": [{ "mediaType": "application/vnd.dsse.envelope.v1+json", "digest": digest(&forged), "size": forged.len() }],
        "subject": { "mediaType": OCI_MANIFEST, "digest": images[0], "size": fetch(&host, "manifests/amd64").len() },
        "annotations": { "org.sif-convert.format": sif_convert::model::OUTPUT_FORMAT.to_string() } })
    .to_string();
    let name = digest(manifest.as_bytes());
    put(&host, &format!("manifests/{name}"), OCI_MANIFEST, manifest.as_bytes());
    let list = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{ "mediaType": OCI_MANIFEST,
        "digest": name, "size": manifest.len(), "artifactType": SIGNATURE }] });
    put(&host, &format!("manifests/{}", images[0].replace(':', "-")), OCI_INDEX, list.to_string().as_bytes());
    let uri = format!("docker://{host}/org/app:1");
    let words = [&uri, "--to", "sif", "-o", "x.sif", "--platform", "linux/amd64", "--signature", "referrer"];
    refused(&place, &words, "Mismatch", "the signature is of another SIF");
    assert!(!place.path("x.sif").exists());
}

#[test]
fn wrong_use_of_signatures_is_told() {
    let place = Place::new();
    let file = key("hello.sig.json");
    for (words, said) in [
        (&["--signature-only"][..], "--signature-only has no effect without --signature"),
        (
            &["--signature", &file, "--signature-only", "--sif-tag", "x"],
            "--sif-tag has no effect with --signature-only",
        ),
        (&["--signature", &file, "--signature-only", "--force"], "--force has no effect with --signature-only"),
    ] {
        refused(&place, &[&["attach", "docker://h.example/x:1"], words].concat(), "Usage", said);
    }
    let missing = ["attach", "docker://h.example/x:1", "--signature", "none.json"];
    refused(&place, &missing, "SourceUnavailable", "none.json");
}
