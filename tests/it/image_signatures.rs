//! Signatures of images: what cosign signed is converted, and nothing else is even looked into.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sif_convert::trust::PrivateKey;

use crate::support::registry::Registry;
use crate::support::run::{self, Oracles, Run, exit_code, program, scratch};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What a statement that is a signature says of itself.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A registry with images, and cosign to sign them.
pub struct Place {
    oracles: Oracles,
    registry: Registry,
    pub directory: tempfile::TempDir,
    /// The digest of the manifest of `app:1` and of all its copies.
    pub digest: String,
}

impl Place {
    pub fn new() -> Option<Place> {
        let oracles = run::oracles()?;
        let directory = scratch();
        let registry = Registry::start(directory.path(), "", "")?;
        let root = env!("CARGO_MANIFEST_DIR");
        for name in ["keys/cosign.key", "keys/cosign.pub", "keys/p256.pem", "keys/p256.pub", "archives/hello.tar"] {
            let name = Path::new(root).join("fixtures").join(name);
            fs::copy(&name, directory.path().join(name.file_name().unwrap())).unwrap();
        }
        let mut place = Place { oracles, registry, directory, digest: String::new() };
        place.push("hello.tar", "app:1");
        let inspect =
            format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{}/app:1", place.host());
        place.digest = place.shell(&inspect).trim().to_string();
        place.shell("cosign signing-config create >signing-config.json");
        Some(place)
    }

    pub fn host(&self) -> &str {
        &self.registry.host
    }

    pub fn hex(&self) -> &str {
        self.digest.strip_prefix("sha256:").unwrap()
    }

    pub fn shell(&self, script: &str) -> String {
        let script = format!("export COSIGN_PASSWORD=hunter2; {script}");
        let done = run::run(self.oracles.run(self.directory.path()).args(["sh", "-ec", &script]));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    }

    /// Pushes an archive as Docker has it.
    pub fn push(&self, archive: &str, name: &str) {
        let to = format!("docker://{}/{name}", self.host());
        self.shell(&format!("skopeo copy -q --dest-tls-verify=false docker-archive:{archive} {to}"));
    }

    /// Signs the image of a repository that has the digest of `app:1`, in the new form or the old one.
    pub fn sign(&self, repository: &str, how: &str) {
        let form = match how {
            "bundle" => "--signing-config signing-config.json",
            "tag" => "--new-bundle-format=false --use-signing-config=false --tlog-upload=false",
            other => panic!("{other}"),
        };
        let name = format!("{}/{repository}@{}", self.host(), self.digest);
        self.shell(&format!("cosign sign --key cosign.key {form} --allow-http-registry -y {name}"));
    }

    pub fn convert(&self, source: &str, words: &[&str]) -> Run {
        let _ = fs::remove_file(self.directory.path().join("x.sif"));
        let mut command = program();
        command.current_dir(self.directory.path()).args([source, "--to", "sif", "-o", "x.sif"]).args(words);
        run::run(&mut command)
    }

    /// Pushes `hello.tar` as `repository:1`, and a bundle beside it.
    pub fn attach(&self, repository: &str, bundle: &str) {
        self.push("hello.tar", &format!("{repository}:1"));
        fs::write(self.directory.path().join("bundle.json"), bundle).unwrap();
        let host = self.host();
        self.shell(&format!(
            "oras attach --plain-http --artifact-type {BUNDLE} {host}/{repository}:1 bundle.json:{BUNDLE}"
        ));
    }

    fn pull(&self, name: &str, keys: &[&str]) -> Run {
        let keys = keys.iter().flat_map(|key| ["--verify-key", *key]);
        let words: Vec<&str> = ["--insecure", self.host()].into_iter().chain(keys).collect();
        self.convert(&format!("docker://{}/{name}", self.host()), &words)
    }

    pub fn accepted(&self, done: &Run) {
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(self.directory.path().join("x.sif").exists());
    }

    pub fn refused(&self, done: &Run, why: &str) {
        assert_eq!(done.code, exit_code("Mismatch"), "{}", done.stderr);
        assert!(done.stderr.contains("no valid signature") && done.stderr.contains(why), "{why}: {}", done.stderr);
        assert!(!self.directory.path().join("x.sif").exists());
    }
}

#[test]
fn both_forms_of_cosign_are_accepted_by_their_key_only() {
    let Some(place) = Place::new() else { return };
    place.refused(&place.pull("app:1", &["cosign.pub"]), "it has none");
    for form in ["bundle", "tag"] {
        place.push("hello.tar", &format!("{form}:1"));
        place.sign(form, form);
        let verify = format!(
            "cosign verify --key cosign.pub --insecure-ignore-tlog=true --allow-http-registry {} {}/{form}@{} >/dev/null",
            if form == "tag" { "--new-bundle-format=false" } else { "" },
            place.host(),
            place.digest
        );
        place.shell(&verify);
        place.accepted(&place.pull(&format!("{form}:1"), &["cosign.pub"]));
        place.accepted(&place.pull(&format!("{form}@{}", place.digest), &["p256.pub", "cosign.pub"]));
        place.refused(&place.pull(&format!("{form}:1"), &["p256.pub"]), "not by any of the keys");
    }
}

#[test]
fn signatures_of_other_images_and_for_other_repositories_do_not_count() {
    let Some(place) = Place::new() else { return };
    place.sign("app", "tag");
    place.accepted(&place.pull("app:1", &["cosign.pub"]));
    // The same image elsewhere, with the signature that was made for this repository.
    place.push("hello.tar", "elsewhere:1");
    let (host, hex) = (place.host(), place.hex());
    let copy = |from: &str, to: &str| place.shell(&format!("oras copy --from-plain-http --to-plain-http {from} {to}"));
    copy(&format!("{host}/app:sha256-{hex}.sig"), &format!("{host}/elsewhere:sha256-{hex}.sig"));
    place.refused(&place.pull("elsewhere:1", &["cosign.pub"]), "for another repository");
    // Another image here, under whose tag the signature of the first one was put.
    let done = run::run(program().current_dir(place.directory.path()).args([
        "hello.tar",
        "--to",
        "docker-archive",
        "-q",
        "-o",
        "other.tar",
        "--env",
        "OTHER=1",
    ]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    place.push("other.tar", "app:2");
    let inspect = format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{host}/app:2");
    let other = place.shell(&inspect).trim().replace("sha256:", "");
    place.refused(&place.pull("app:2", &["cosign.pub"]), "it has none");
    copy(&format!("{host}/app:sha256-{hex}.sig"), &format!("{host}/app:sha256-{other}.sig"));
    place.refused(&place.pull("app:2", &["cosign.pub"]), "of another image");
}

#[test]
fn a_batch_converts_what_is_signed_and_signs_what_it_makes() {
    let Some(place) = Place::new() else { return };
    place.push("hello.tar", "good:1");
    place.sign("good", "tag");
    let host = place.host();
    let batch = |words: &[&str]| {
        let sources = ["good:1", "app:1"].map(|name| format!("docker://{host}/{name}"));
        let mut command = program();
        command.current_dir(place.directory.path()).arg("batch").args(sources);
        run::run(command.args(["--to", "sif", "--out", "out", "--insecure", host]).args(words))
    };
    let path = |name: &str| place.directory.path().join("out").join(name);
    let file = || fs::metadata(path("good_1.sif")).unwrap().ino();
    let key = place.directory.path().join("p256.pub");
    let verify = || run::run(program().arg("verify").arg(path("good_1.sif")).arg("--key").arg(&key));
    let signed = ["--verify-key", "cosign.pub", "--sign-key", "p256.pem"];
    let done = batch(&signed);
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("no valid signature") && done.stderr.contains("it has none"), "{}", done.stderr);
    assert!(!path("app_1.sif").exists());
    assert_eq!(verify().code, 0, "{}", verify().stderr);
    // What was made under the same keys is kept; what others vouched for is asked for anew.
    let first = file();
    assert_eq!(batch(&signed).code, 1);
    assert_eq!(file(), first);
    let done = batch(&["--verify-key", "p256.pub", "--sign-key", "p256.pem", "--only", "1"]);
    assert!(done.code == 1 && done.stderr.contains("not by any of the keys"), "{}", done.stderr);
    // Made without any keys, it is not what these vouch for.
    let plain = |words: &[&str]| batch(&[&["--only", "2"], words].concat());
    assert_eq!(plain(&[]).code, 0);
    let done = plain(&["--verify-key", "cosign.pub", "--retry-failed"]);
    assert!(done.code == 1 && done.stderr.contains("it has none"), "{}", done.stderr);
    // Two names of one digest have one output, and each must be checked.
    let done = batch(&["--names", "digest", "--verify-key", "cosign.pub"]);
    assert!(done.code == 2 && done.stderr.contains("would both be written"), "{}", done.stderr);
    // Another image under the same name: the signature goes with the file if it is ours.
    let words = ["hello.tar", "--to", "docker-archive", "-q", "-o", "other.tar", "--env", "OTHER=1"];
    assert_eq!(run::run(program().current_dir(place.directory.path()).args(words)).code, 0);
    place.push("other.tar", "good:1");
    fs::write(place.directory.path().join("passphrase"), "hunter2\n").unwrap();
    let rotated = ["--sign-key", "cosign.key", "--sign-passphrase-file", "passphrase", "--only", "1"];
    let done = batch(&rotated);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let second = file();
    assert_ne!(second, first);
    let words = ["sign", "out/good_1.sif", "--key", "p256.pem"];
    assert_eq!(run::run(program().current_dir(place.directory.path()).args(words)).code, 0);
    let second = file();
    place.push("hello.tar", "good:1");
    let done = batch(&rotated);
    assert!(done.code == 1 && done.stderr.contains("added to it later"), "{}", done.stderr);
    assert_eq!(file(), second);
    let done = batch(&["--sign-key", "p256.pem", "--force"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    // A signature that cannot be read is nobody's any more.
    let bytes = fs::read(path("good_1.sif")).unwrap();
    fs::write(path("good_1.sif"), &bytes[..bytes.len() - 200]).unwrap();
    let done = batch(&["--sign-key", "p256.pem"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(verify().code, 0, "{}", verify().stderr);
}

/// A key of the fixtures, or of a file.
pub fn private_key(name: impl AsRef<Path>) -> PrivateKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keys").join(name);
    PrivateKey::from_pem(&fs::read(path).unwrap(), &|| unreachable!()).unwrap()
}

/// A bundle over a statement, signed by the key of the test.
fn bundle(predicate: &str, hex: &str, signature: Option<&str>) -> String {
    bundle_by(&private_key("p256.pem"), r#""publicKey":{"hint":"x"}"#, predicate, hex, signature)
}

/// A bundle over a statement, signed by a key, with this beside the signature.
pub fn bundle_by(key: &PrivateKey, material: &str, predicate: &str, hex: &str, signature: Option<&str>) -> String {
    let statement = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"{predicate}","predicate":{{}}}}"#
    );
    let kind = "application/vnd.in-toto+json";
    let pre = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
    let signed = BASE64_STANDARD.encode(key.sign(pre.as_bytes()).unwrap());
    let (signature, payload) = (signature.unwrap_or(&signed), BASE64_STANDARD.encode(&statement));
    format!(
        r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{{material}}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"sig":"{signature}"}}]}}}}"#
    )
}

#[test]
fn forged_bundles_and_attestations_do_not_count() {
    let Some(place) = Place::new() else { return };
    let sign = SIGN;
    let attach = |repository: &str, text: &str| {
        place.attach(repository, text);
        place.pull(&format!("{repository}:1"), &["p256.pub"])
    };
    // The same as cosign would make counts; whatever differs does not.
    place.accepted(&attach("genuine", &bundle(sign, place.hex(), None)));
    place.refused(&attach("attested", &bundle("https://slsa.dev/provenance/v1", place.hex(), None)), "an attestation");
    place.refused(&attach("swapped", &bundle(sign, &"0".repeat(64), None)), "of another image");
    let other = bundle(sign, &"0".repeat(64), None);
    let start = other.find("\"sig\":\"").unwrap() + 7;
    let signature = &other[start..start + other[start..].find('"').unwrap()];
    place.refused(&attach("moved", &bundle(sign, place.hex(), Some(signature))), "not by any of the keys");
    place.refused(&attach("garbage", "{}"), "malformed");
}

#[test]
fn layouts_and_archives_carry_signatures_too() {
    let Some(place) = Place::new() else { return };
    place.sign("app", "bundle");
    let (host, directory) = (place.host(), place.directory.path());
    place.shell(&format!("oras copy -r --from-plain-http {host}/app:1 --to-oci-layout signed:1"));
    place.shell(&format!("oras copy --from-plain-http {host}/app:1 --to-oci-layout plain:1"));
    place.shell("tar -C signed -cf signed.tar .; tar -C plain -cf plain.tar .");
    for source in ["oci:signed", "signed", "oci-archive:signed.tar", "signed.tar"] {
        place.accepted(&place.convert(source, &["--verify-key", "cosign.pub"]));
        place.refused(&place.convert(source, &["--verify-key", "p256.pub"]), "not by any of the keys");
    }
    for source in ["plain", "plain.tar"] {
        place.refused(&place.convert(source, &["--verify-key", "cosign.pub"]), "it has none");
    }
    place.refused(&place.convert("hello.tar", &["--verify-key", "cosign.pub"]), "carries none");
    // Nothing of what is not signed is read: that its manifest is missing is not found out.
    fs::remove_file(directory.join("plain/blobs/sha256").join(place.hex())).unwrap();
    place.refused(&place.convert("plain", &["--verify-key", "cosign.pub"]), "it has none");
    let unasked = place.convert("plain", &[]);
    assert_eq!(unasked.code, exit_code("InvalidImage"), "{}", unasked.stderr);
}

#[test]
fn a_policy_is_obeyed() {
    let Some(place) = Place::new() else { return };
    place.sign("app", "tag");
    let (host, directory) = (place.host(), place.directory.path());
    let pull = |name: &str, policy: &str| {
        fs::write(directory.join("policy.json"), policy.replace("HOST", host)).unwrap();
        place.convert(&format!("docker://{host}/{name}"), &["--insecure", host, "--policy", "policy.json"])
    };
    let signed = |key: &str, identity: &str| {
        format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"HOST/app":[{{"type":"sigstoreSigned","keyPath":"{key}"{identity}}}]}}}}}}"#
        )
    };
    let repository = r#","signedIdentity":{"type":"matchRepository"}"#;
    place.accepted(&pull("app:1", &signed("cosign.pub", repository)));
    place.accepted(&pull(&format!("app@{}", place.digest), &signed("cosign.pub", "")));
    // cosign says no tag: that is not the exact name.
    place.refused(&pull("app:1", &signed("cosign.pub", "")), "for another repository");
    place.refused(&pull("app:1", &signed("p256.pub", repository)), "not by any of the keys");
    place.push("hello.tar", "other:1");
    let rejected = pull("other:1", &signed("cosign.pub", repository));
    assert_eq!(rejected.code, exit_code("Mismatch"), "{}", rejected.stderr);
    assert!(rejected.stderr.contains("the policy rejects images from here"), "{}", rejected.stderr);
    place.accepted(&pull("other:1", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#));
    let rejected = place.convert("hello.tar", &["--policy", "policy.json"]);
    place.accepted(&rejected);
}

#[test]
fn a_sif_that_is_hosted_is_not_pulled_in_place_of_a_signed_image() {
    let Some(place) = Place::new() else { return };
    place.sign("app", "bundle");
    let (host, directory) = (place.host(), place.directory.path());
    let words = |words: &[&str]| {
        let mut command = program();
        run::run(command.current_dir(directory).args(words).args(["--insecure", host]))
    };
    let pushed = words(&["hello.tar", "--to", "sif", "-o", &format!("oras://{host}/hosted:1")]);
    assert_eq!(pushed.code, 0, "{}", pushed.stderr);
    let attached = words(&["attach", &format!("docker://{host}/app:1")]);
    assert_eq!(attached.code, 0, "{}", attached.stderr);
    let pull = |source: &str, more: &[&str]| {
        let _ = fs::remove_file(directory.join("x.sif"));
        words(&[&["pull", "x.sif", source], more].concat())
    };
    let (hosted, image) = (format!("oras://{host}/hosted:1"), format!("docker://{host}/app:1"));
    place.accepted(&pull(&hosted, &[]));
    place.accepted(&pull(&image, &["--attached"]));
    // Who may push may attach: the image is signed, that SIF is not.
    for (source, more) in [(&hosted, &[][..]), (&image, &["--attached"])] {
        let refused = pull(source, &[&["--verify-key", "cosign.pub"], more].concat());
        assert!(refused.code != 0 && refused.stderr.contains("no valid signature"), "{}", refused.stderr);
        assert!(!directory.join("x.sif").exists());
    }
    place.accepted(&pull(&image, &["--attached=verify", "--verify-key", "cosign.pub"]));
    let policy = r#"{"default":[{"type":"reject"}],"transports":{"oras":{"":[{"type":"insecureAcceptAnything"}]}}}"#;
    fs::write(directory.join("policy.json"), policy).unwrap();
    place.accepted(&pull(&hosted, &["--policy", "policy.json"]));
    fs::write(directory.join("policy.json"), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    let rejected = pull(&hosted, &["--policy", "policy.json"]);
    assert!(rejected.code != 0 && rejected.stderr.contains("the policy rejects"), "{}", rejected.stderr);
}
