//! Signatures of images by whoever has a certificate: cosign's without keys, and policies that ask for them.

use std::fs;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sif_convert::model::Digest;

use crate::image_signatures::{Place, SIGN, bundle_by, private_key};
use crate::support::authority::AUTHORITY;
use crate::support::run::{Run, exit_code};

const MAKE: &str = r#"
itself root root "$always"; itself stranger root "$always"; under root between short "$always"
key signer; key other
for name in owner expired expired_host build robot elsewhere host forged; do cp signer.key $name.key; done
under between owner fulcio "$always"; under between expired fulcio "$past"; under between build fulcio_uri "$always"
under between robot fulcio_name "$always"; under between elsewhere other_issuer "$always"
under between host host "$always"; under between expired_host host "$past"
under stranger forged fulcio "$always"
cat between.crt root.crt >roots.pem
exec 2>&3
openssl pkcs8 -topk8 -nocrypt -in signer.key -out signer.pem
cosign import-key-pair --key signer.pem --output-key-prefix imported -y 2>/dev/null
cosign trusted-root create --fulcio="url=https://f.example,certificate-chain=roots.pem" --out trusted.json
"#;
const OWNER: &str = "owner@example.org";
const ISSUER: &str = "https://issuer.example";
/// When the certificates in the past were valid.
const THEN: u64 = 1_590_000_000;

fn place() -> Option<Place> {
    let place = Place::new()?;
    place.shell(&format!("{AUTHORITY}\n{MAKE}"));
    Some(place)
}

impl Place {
    /// What is asked of an image, and whether cosign says the same.
    fn pulled(&self, name: &str, [roots, identity, issuer]: [&str; 3]) -> Run {
        let words = ["--verify-root", roots, "--certificate-identity", identity, "--certificate-oidc-issuer", issuer];
        self.pull_with(name, &words)
    }

    fn pull_with(&self, name: &str, words: &[&str]) -> Run {
        let words = [&["--insecure", self.host()], words].concat();
        self.convert(&format!("docker://{}/{name}", self.host()), &words)
    }

    /// Signs `repository:1` as the owner of `certificate`, in the new form or the old one.
    fn sign_as(&self, certificate: &str, repository: &str, form: &str) {
        self.push("hello.tar", &format!("{repository}:1"));
        let form = match form {
            "bundle" => "--signing-config signing-config.json",
            _ => "--new-bundle-format=false --use-signing-config=false --tlog-upload=false",
        };
        self.shell(&format!(
            "COSIGN_PASSWORD=hunter2 cosign sign --key imported.key --certificate {certificate}.crt \
             --certificate-chain roots.pem {form} --allow-http-registry -y {}/{repository}@{}",
            self.host(),
            self.digest
        ));
    }

    /// Whether cosign accepts `repository:1`.
    fn cosign_accepts(&self, repository: &str, form: &str, [identity, issuer]: [&str; 2]) -> bool {
        let form = if form == "bundle" { "" } else { "--new-bundle-format=false" };
        let verify = format!(
            "cosign verify {form} --trusted-root trusted.json --insecure-ignore-tlog --insecure-ignore-sct \
             --allow-http-registry --certificate-identity '{identity}' --certificate-oidc-issuer '{issuer}' \
             {}/{repository}@{} >said 2>&1 && echo yes || echo no",
            self.host(),
            self.digest
        );
        self.shell(&verify).trim() == "yes"
    }

    /// Attaches a signature in the old form, with what is given of certificates and of Rekor.
    fn attach_old(&self, repository: &str, signature: &[u8], payload: &str, options: &str) {
        self.push("hello.tar", &format!("{repository}:1"));
        fs::write(self.directory.path().join("payload"), payload).unwrap();
        fs::write(self.directory.path().join("signature"), BASE64_STANDARD.encode(signature)).unwrap();
        self.shell(&format!(
            "cosign attach signature --payload payload --signature signature {options} --allow-http-registry \
             {}/{repository}@{} 2>&1",
            self.host(),
            self.digest
        ));
    }

    fn payload(&self, repository: &str) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{}/{repository}"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
            self.host(),
            self.digest
        )
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(name)).unwrap()
    }

    /// The material of a bundle: a certificate of the test, in DER.
    fn material(&self, name: &str) -> String {
        let der = self.shell(&format!("openssl x509 -in {name}.crt -outform der | base64 -w0"));
        format!(r#""certificate":{{"rawBytes":"{}"}}"#, der.trim())
    }
}

#[test]
fn cosign_and_ours_agree_on_whose_certificate_counts() {
    let Some(place) = place() else { return };
    for form in ["bundle", "old"] {
        for (certificate, identity) in [
            ("owner", OWNER),
            ("build", "https://ci.example/build.yml@refs/heads/main"),
            ("robot", "robot!example.org"),
        ] {
            let repository = format!("{form}-{certificate}");
            place.sign_as(certificate, &repository, form);
            let image = format!("{repository}:1");
            let cases = [
                ([identity, ISSUER], "", true),
                ([&identity[1..], ISSUER], "of another identity", false),
                (["", ISSUER], "of another identity", false),
                ([identity, "https://issuer.example/"], "of another issuer", false),
            ];
            for (asked, why, is_good) in cases {
                let done = place.pulled(&image, ["roots.pem", asked[0], asked[1]]);
                if is_good {
                    place.accepted(&done)
                } else {
                    place.refused(&done, why)
                }
                assert_eq!(
                    place.cosign_accepts(&repository, form, asked),
                    is_good,
                    "{repository}, {asked:?}: {}",
                    place.read("said").escape_ascii()
                );
            }
            place.refused(&place.pulled(&image, ["stranger.crt", identity, ISSUER]), "under any of the roots");
            // What leads to the root is in neither form: it belongs into the file of roots.
            place.refused(&place.pulled(&image, ["root.crt", identity, ISSUER]), "under any of the roots");
            place.accepted(&place.pulled(&image, ["between.crt", identity, ISSUER]));
        }
        // Whoever asks for a key is not content with a certificate, and the other way round.
        let image = format!("{form}-owner:1");
        place.refused(&place.pull_with(&image, &["--verify-key", "p256.pub"]), "not by any of the keys");
        place.push("hello.tar", &format!("{form}-keyed:1"));
        place.sign(&format!("{form}-keyed"), if form == "old" { "tag" } else { form });
        let done = place.pulled(&format!("{form}-keyed:1"), ["roots.pem", OWNER, ISSUER]);
        place.refused(&done, "without a certificate");
    }
}

#[test]
fn forged_and_expired_certificates_do_not_count() {
    let Some(place) = place() else { return };
    let (key, other) =
        (private_key(place.directory.path().join("signer.pem")), place.directory.path().join("other.key"));
    let other = private_key(other);
    let asked = ["roots.pem", OWNER, ISSUER];
    let hex = place.hex();
    let attach = |repository: &str, text: &str| {
        place.attach(repository, text);
        let is_good = place.cosign_accepts(repository, "bundle", [OWNER, ISSUER]);
        (place.pulled(&format!("{repository}:1"), asked), is_good)
    };
    let refused = |(done, is_good): (Run, bool), why: &str| {
        place.refused(&done, why);
        assert!(!is_good, "cosign accepts what is refused here: {why}");
    };
    let (owner, expired) = (place.material("owner"), place.material("expired"));
    let (done, is_good) = attach("genuine", &bundle_by(&key, &owner, SIGN, hex, None));
    place.accepted(&done);
    assert!(is_good);
    refused(attach("expired", &bundle_by(&key, &expired, SIGN, hex, None)), "valid until 2021-01-01");
    let forged = place.material("forged");
    refused(attach("forged", &bundle_by(&key, &forged, SIGN, hex, None)), "under any of the roots");
    let elsewhere = place.material("elsewhere");
    refused(attach("elsewhere", &bundle_by(&key, &elsewhere, SIGN, hex, None)), "of another issuer");
    refused(attach("stolen", &bundle_by(&other, &owner, SIGN, hex, None)), "not by the key of its certificate");
    refused(attach("moved", &bundle_by(&key, &owner, SIGN, &"0".repeat(64), None)), "of another image");
    let text = bundle_by(&key, &owner, SIGN, &"0".repeat(64), None);
    let start = text.find("\"sig\":\"").unwrap() + 7;
    let signature = &text[start..start + text[start..].find('"').unwrap()];
    let swapped = bundle_by(&key, &owner, SIGN, hex, Some(signature));
    refused(attach("swapped", &swapped), "not by the key of its certificate");
    let hint = r#""publicKey":{"hint":"x"}"#;
    refused(attach("stripped", &bundle_by(&key, hint, SIGN, hex, None)), "without a certificate");
    refused(attach("garbage", &bundle_by(&key, r#""certificate":{"rawBytes":"AAAA"}"#, SIGN, hex, None)), "malformed");
    // Bundles of before version 0.3 have a chain.
    let between = place.material("between").replace("\"certificate\":", "");
    let own = owner.replace("\"certificate\":", "");
    let chain = format!(r#""x509CertificateChain":{{"certificates":[{own},{between}]}}"#);
    place.attach("chain", &bundle_by(&key, &chain, SIGN, hex, None).replace("v0.3", "v0.1"));
    place.accepted(&place.pulled("chain:1", ["root.crt", OWNER, ISSUER]));

    // The old form says for which repository it is.
    let signed = |name: &str, repository: &str| {
        let payload = place.payload(repository);
        let signature = key.sign(payload.as_bytes()).unwrap();
        place.attach_old(name, &signature, &payload, "--certificate owner.crt --certificate-chain roots.pem");
        place.pulled(&format!("{name}:1"), asked)
    };
    place.accepted(&signed("mine", "mine"));
    place.refused(&signed("yours", "mine"), "for another repository");
}

#[test]
fn layouts_and_archives_carry_certificates_too() {
    let Some(place) = place() else { return };
    place.sign_as("owner", "app", "bundle");
    let script = format!(
        "oras copy -r --from-plain-http {}/app:1 --to-oci-layout signed:1; tar -C signed -cf signed.tar .",
        place.host()
    );
    place.shell(&script);
    let words = |identity| {
        ["--verify-root", "roots.pem", "--certificate-oidc-issuer", ISSUER, "--certificate-identity", identity]
    };
    for source in ["signed", "oci-archive:signed.tar", "signed.tar"] {
        place.accepted(&place.convert(source, &words(OWNER)));
        place.refused(&place.convert(source, &words("x@example.org")), "of another identity");
    }
    // Nothing of what is not signed is read: that its manifest is missing is not found out.
    fs::remove_file(place.directory.path().join("signed/blobs/sha256").join(place.hex())).unwrap();
    place.refused(&place.convert("signed", &words("x@example.org")), "of another identity");
}

#[test]
fn roots_alone_are_refused() {
    let Some(place) = place() else { return };
    for (words, missing) in [
        (&["--verify-root", "roots.pem"][..], "without --certificate-identity and --certificate-oidc-issuer"),
        (&["--certificate-identity", OWNER], "without --verify-root and --certificate-oidc-issuer"),
        (&["--verify-root", "roots.pem", "--certificate-identity", OWNER], "without --certificate-oidc-issuer"),
        (&["--rekor-key", "p256.pub"], "without --verify-root"),
    ] {
        let done = place.convert("hello.tar", words);
        assert_eq!(done.code, exit_code("Usage"), "{}", done.stderr);
        assert!(done.stderr.contains(missing), "{}", done.stderr);
    }
}

/// What Rekor, whose key is `p256.pem`, promised: in JSON, as the annotation has it.
fn promise(body: &str, seconds: u64) -> String {
    let body = BASE64_STANDARD.encode(body);
    let log = "c0d23d6ad406973f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d";
    let payload = format!(r#"{{"body":"{body}","integratedTime":{seconds},"logID":"{log}","logIndex":7}}"#);
    let promise = BASE64_STANDARD.encode(private_key("p256.pem").sign(payload.as_bytes()).unwrap());
    format!(r#"{{"SignedEntryTimestamp":"{promise}","Payload":{payload}}}"#)
}

fn hashed_rekord(payload: &str, signature: &[u8], certificate: &[u8]) -> String {
    let (signature, certificate) = (BASE64_STANDARD.encode(signature), BASE64_STANDARD.encode(certificate));
    format!(
        r#"{{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{{"data":{{"hash":{{"algorithm":"sha256","value":"{}"}}}},"signature":{{"content":"{signature}","publicKey":{{"content":"{certificate}"}}}}}}}}"#,
        Digest::of(payload.as_bytes()).hex()
    )
}

const POLICY: &str = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"HOST":[
    {"type":"sigstoreSigned",WHOSE,"signedIdentity":{"type":"matchRepository"}}]}}}"#;

impl Place {
    /// Whether ours obeys a policy as skopeo does, which is `is_good`.
    fn obeys(&self, repository: &str, whose: &str, is_good: bool) {
        let here = "/mnt/";
        let text = POLICY.replace("HOST", self.host());
        let write = |name: &str, whose: &str| {
            fs::write(self.directory.path().join(name), text.replace("WHOSE", whose)).unwrap();
        };
        write("policy.json", &whose.replace("AT/", ""));
        write("theirs.json", &whose.replace("AT/", here));
        fs::create_dir_all(self.directory.path().join("registries.d")).unwrap();
        let attachments = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", self.host());
        fs::write(self.directory.path().join("registries.d/x.yaml"), attachments).unwrap();
        let done = self.pull_with(&format!("{repository}:1"), &["--policy", "policy.json"]);
        if is_good {
            self.accepted(&done);
        } else {
            self.refused(&done, "");
        }
        let copy = format!(
            "rm -rf copied; skopeo --policy theirs.json --registries.d registries.d copy --src-tls-verify=false \
             docker://{}/{repository}:1 dir:copied >said 2>&1 && echo true || echo false",
            self.host()
        );
        let said = self.shell(&copy);
        assert_eq!(said.trim(), is_good.to_string(), "{repository}, {whose}: {}", self.read("said").escape_ascii());
    }
}

#[test]
fn policies_that_ask_for_certificates_are_obeyed_as_skopeo_does() {
    let Some(place) = place() else { return };
    let key = private_key(place.directory.path().join("signer.pem"));
    let sign = |repository: &str, certificate: &str, payload: &str| {
        let signature = key.sign(payload.as_bytes()).unwrap();
        let options = format!("--certificate {certificate}.crt --certificate-chain roots.pem");
        place.attach_old(repository, &signature, payload, &options);
    };
    for certificate in ["host", "forged", "expired_host"] {
        let repository = certificate.replace('_', "-");
        sign(&repository, certificate, &place.payload(&repository));
    }
    sign("moved", "host", &place.payload("host"));
    let pki =
        |more: &str| format!(r#""pki":{{"caRootsPath":"AT/root.crt","caIntermediatesPath":"AT/between.crt",{more}}}"#);
    place.obeys("host", &pki(r#""subjectEmail":"owner@example.org""#), true);
    place.obeys("host", &pki(r#""subjectHostname":"build.example.org""#), true);
    place.obeys("host", &pki(r#""subjectHostname":"build.example.org","subjectEmail":"owner@example.org""#), true);
    place.obeys("host", &pki(r#""subjectHostname":"build.example.org","subjectEmail":"other@example.org""#), false);
    place.obeys("host", &pki(r#""subjectHostname":"example.org""#), false);
    place.obeys("host", &pki(r#""subjectEmail":"build.example.org""#), false);
    let data = BASE64_STANDARD.encode(place.read("roots.pem"));
    place.obeys("host", &format!(r#""pki":{{"caRootsData":"{data}","subjectEmail":"{OWNER}"}}"#), true);
    let alone = format!(r#""pki":{{"caRootsPath":"AT/root.crt","subjectEmail":"{OWNER}"}}"#);
    // What leads to the root came with the signature.
    place.obeys("host", &alone, true);
    place.obeys("host", &alone.replace("root.crt", "stranger.crt"), false);
    for repository in ["forged", "expired-host", "moved"] {
        place.obeys(repository, &pki(r#""subjectEmail":"owner@example.org""#), false);
    }
}

#[test]
fn what_rekor_recorded_counts_at_its_time() {
    let Some(place) = place() else { return };
    let key = private_key(place.directory.path().join("signer.pem"));
    let attach = |repository: &str, certificate: &str, rekor: &dyn Fn(&str, &[u8]) -> String| {
        let payload = place.payload(repository);
        let signature = key.sign(payload.as_bytes()).unwrap();
        let rekor = rekor(&payload, &signature);
        fs::write(
            place.directory.path().join("rekor.json"),
            format!(r#"{{"base64Signature":"{}","rekorBundle":{rekor}}}"#, BASE64_STANDARD.encode(&signature)),
        )
        .unwrap();
        let options =
            format!("--certificate {certificate}.crt --certificate-chain roots.pem --rekor-response rekor.json");
        place.attach_old(repository, &signature, &payload, &options);
    };
    let expired = place.read("expired.crt");
    let record = |payload: &str, signature: &[u8]| hashed_rekord(payload, signature, &expired);
    attach("recorded", "expired", &|payload, signature| promise(&record(payload, signature), THEN));
    attach("late", "expired", &|payload, signature| promise(&record(payload, signature), THEN * 2));
    attach("lied", "expired", &|payload, signature| {
        promise(&record(payload, signature), THEN * 2).replace(&(THEN * 2).to_string(), &THEN.to_string())
    });
    attach("payload", "expired", &|_, signature| promise(&record("{}", signature), THEN));
    attach("signature", "expired", &|payload, _| promise(&record(payload, &key.sign(b"other").unwrap()), THEN));
    let owner = place.read("owner.crt");
    attach("certificate", "expired", &|payload, signature| promise(&hashed_rekord(payload, signature, &owner), THEN));
    place.push("hello.tar", "unrecorded:1");
    place.sign_as("owner", "unrecorded", "old");

    let whose = |key: &str, email: &str| {
        format!(
            r#""fulcio":{{"caPath":"AT/roots.pem","oidcIssuer":"{ISSUER}","subjectEmail":"{email}"}},"rekorPublicKeyPath":"AT/{key}""#
        )
    };
    let asked = [
        "--verify-root",
        "roots.pem",
        "--certificate-identity",
        OWNER,
        "--certificate-oidc-issuer",
        ISSUER,
        "--rekor-key",
        "p256.pub",
    ];
    place.obeys("recorded", &whose("p256.pub", OWNER), true);
    place.accepted(&place.pull_with("recorded:1", &asked));
    for (repository, why) in [
        ("late", "valid until 2021-01-01"),
        ("lied", "not promised by the key of Rekor"),
        ("payload", "of another image"),
        ("signature", "of another signature"),
        ("certificate", "of another signature"),
        ("unrecorded", "without an entry in Rekor"),
    ] {
        place.obeys(repository, &whose("p256.pub", OWNER), false);
        place.refused(&place.pull_with(&format!("{repository}:1"), &asked), why);
    }
    place.obeys("recorded", &whose("cosign.pub", OWNER), false);
    place.obeys("recorded", &whose("p256.pub", "other@example.org"), false);
    // Keys may be recorded, too.
    let shown = place.shell("openssl pkey -in signer.key -pubout | tee signer.pub");
    let payload = place.payload("keyed");
    let signature = key.sign(payload.as_bytes()).unwrap();
    let rekor = promise(&hashed_rekord(&payload, &signature, shown.as_bytes()), THEN);
    let text = format!(r#"{{"base64Signature":"{}","rekorBundle":{rekor}}}"#, BASE64_STANDARD.encode(&signature));
    fs::write(place.directory.path().join("rekor.json"), text).unwrap();
    place.attach_old("keyed", &signature, &payload, "--rekor-response rekor.json");
    let keyed = |rekor: &str| format!(r#""keyPath":"AT/signer.pub","rekorPublicKeyPath":"AT/{rekor}""#);
    place.obeys("keyed", &keyed("p256.pub"), true);
    place.obeys("keyed", &keyed("cosign.pub"), false);
    place.obeys("unrecorded", &keyed("p256.pub"), false);
    place.obeys("recorded", &keyed("p256.pub"), false);
    // Without Rekor, the time is now.
    place.refused(&place.pull_with("recorded:1", &asked[..6]), "valid until 2021-01-01");

    // The same in a bundle.
    let material = |body: &str, seconds: u64| {
        let entry: serde_json::Value = serde_json::from_str(&promise(body, seconds)).unwrap();
        let log = BASE64_STANDARD.encode(
            (0..32)
                .map(|at| {
                    u8::from_str_radix(&entry["Payload"]["logID"].as_str().unwrap()[2 * at..2 * at + 2], 16).unwrap()
                })
                .collect::<Vec<_>>(),
        );
        format!(
            r#"{},"tlogEntries":[{{"logIndex":"7","logId":{{"keyId":"{log}"}},"integratedTime":"{seconds}","inclusionPromise":{{"signedEntryTimestamp":{}}},"canonicalizedBody":{}}}]"#,
            place.material("expired"),
            entry["SignedEntryTimestamp"],
            entry["Payload"]["body"]
        )
    };
    let plain: serde_json::Value = serde_json::from_str(&bundle_by(&key, "", SIGN, place.hex(), None)).unwrap();
    let payload = BASE64_STANDARD.decode(plain["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
    let record = |payload: &[u8]| {
        format!(
            r#"{{"apiVersion":"0.0.1","kind":"dsse","spec":{{"envelopeHash":{{"algorithm":"sha256","value":"00"}},"payloadHash":{{"algorithm":"sha256","value":"{}"}},"signatures":[{{"signature":{},"verifier":"{}"}}]}}}}"#,
            Digest::of(payload).hex(),
            plain["dsseEnvelope"]["signatures"][0]["sig"],
            BASE64_STANDARD.encode(&expired)
        )
    };
    let bundle = |material: &str| bundle_by(&key, material, SIGN, place.hex(), None);
    place.attach("bundled", &bundle(&material(&record(&payload), THEN)));
    place.accepted(&place.pull_with("bundled:1", &asked));
    place.attach("bundled-late", &bundle(&material(&record(&payload), THEN * 2)));
    place.refused(&place.pull_with("bundled-late:1", &asked), "valid until 2021-01-01");
    place.attach("bundled-other", &bundle(&material(&record(b"{}"), THEN)));
    place.refused(&place.pull_with("bundled-other:1", &asked), "of another image");
}
