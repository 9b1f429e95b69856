//! Images from registries: what is asked for, what is verified, what goes wrong and how it is told. The registries here
//! are our own, so that they can be as faulty as need be; `tests/it/registry_oracles.rs` has real ones.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::fake::{Answer, Body, Fake, OCI_INDEX, Repository, Request};
use crate::support::layer;
use crate::support::pack::{self, Squeeze, docker_archive, sha256};
use crate::support::random::noise;
use crate::support::run::{Run, program, run, scratch};

/// Three layers, the middle one by far the largest.
pub fn layers() -> Vec<Vec<u8>> {
    vec![
        layer::of_file("a", b"lower"),
        layer::of_file("big", &noise(600_000, 1)),
        layer::of_file("b", &noise(3_000, 2)),
    ]
}

/// A directory to run in, with empty places for outputs and temporaries.
pub struct Place(pub tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Place(scratch());
        fs::create_dir(place.path("out")).unwrap();
        fs::create_dir(place.path("tmp")).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, source: &str, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("TMPDIR", self.path("tmp")).env("HOME", self.0.path());
        command
            .arg(source)
            .args(["--to", "rootfs", "-o", "out/x.tar", "--report", "report.json", "-v"])
            .args(arguments);
        command
    }

    pub fn convert(&self, source: &str, arguments: &[&str]) -> Run {
        run(&mut self.command(source, arguments))
    }

    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }

    /// Fails as it should: with this exit code and these words in one line of error, and nothing left behind.
    pub fn fails(&self, source: &str, arguments: &[&str], code: i32, words: &[&str]) -> String {
        let done = self.convert(source, arguments);
        assert_eq!(done.code, code, "{}", done.stderr);
        let errors: Vec<&str> = done.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", done.stderr);
        words.iter().for_each(|word| assert!(errors[0].contains(word), "no {word:?} in {}", done.stderr));
        assert!(done.stderr.lines().last().unwrap().starts_with("hint: "), "{}", done.stderr);
        self.is_clean();
        assert_eq!(self.report()["error"]["exit_code"], code);
        done.stderr
    }

    pub fn is_clean(&self) {
        assert_eq!((self.names("out"), self.names("tmp")), (vec![], vec![]), "something is left behind");
    }

    /// Converts, and the output is that of these layers.
    pub fn makes(&self, source: &str, arguments: &[&str], layers: &[Vec<u8>]) -> String {
        let done = self.convert(source, arguments);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(sha256(&fs::read(self.path("out/x.tar")).unwrap()), sha256(&self.expected(layers)));
        fs::remove_file(self.path("out/x.tar")).unwrap();
        self.is_clean();
        done.stderr
    }

    /// The output for a docker-archive of these layers.
    pub fn expected(&self, layers: &[Vec<u8>]) -> Vec<u8> {
        let archive = self.path("archive.tar");
        fs::write(&archive, docker_archive(layers, Squeeze::Not)).unwrap();
        let done = run(program().arg(archive).args(["--to", "rootfs", "-o", "-"]));
        assert_eq!(done.code, 0, "{}", done.stderr);
        done.stdout
    }
}

pub fn source(fake: &Fake) -> String {
    format!("docker://{}/x:1", fake.host())
}

/// A registry whose answers `change` may replace.
pub fn faulty(change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static) -> (Fake, Repository) {
    let repository = Repository::of(&layers());
    let held = repository.clone();
    (Fake::start(move |request| change(request, held.answer(request))), repository)
}

pub fn big_digest(repository: &Repository) -> String {
    repository.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone()
}

#[test]
fn a_tag_is_asked_for_once_and_all_else_by_digest() {
    let place = Place::new();
    let (fake, repository) = faulty(|_, answer| answer);
    place.makes(&source(&fake), &[], &layers());
    let report = place.report();
    let (_, manifest) = &repository.manifests["1"];
    let digest = format!("sha256:{}", sha256(manifest));
    assert_eq!(report["image"]["manifest_digest"], digest.as_str());
    assert_eq!(report["image"]["index_digest"], Value::Null);
    assert_eq!(report["source"]["kind"], "docker");
    let mut asked: Vec<String> = fake.log().iter().map(|request| request.path.clone()).collect();
    asked.sort();
    let mut wanted: Vec<String> =
        repository.blob_digests().iter().map(|digest| format!("/v2/x/blobs/{digest}")).collect();
    wanted.push("/v2/x/manifests/1".into());
    assert_eq!(asked, wanted);
    place.makes(&source(&fake), &["--expect-digest", &digest], &layers());
    place.makes(&format!("docker://{}/x@{digest}", fake.host()), &[], &layers());
    place.makes(&format!("docker://{}/x:none@{digest}", fake.host()), &[], &layers());
    place.fails(&source(&fake), &["--expect-digest", &sha256(b"")], 5, &["not the expected one"]);
}

#[test]
fn the_same_sif_comes_from_a_file_and_from_a_registry() {
    let place = Place::new();
    let (fake, _) = faulty(|_, answer| answer);
    fs::write(place.path("archive.tar"), docker_archive(&layers(), Squeeze::Not)).unwrap();
    let sif = |source: &str, output: &str| {
        let mut command = program();
        command.arg(source).args(["--to", "sif", "--reference", "host/x:1", "-o", output]).current_dir(place.0.path());
        let done = run(&mut command);
        assert_eq!(done.code, 0, "{}", done.stderr);
        fs::read(place.path(output)).unwrap()
    };
    assert!(sif("archive.tar", "a.sif") == sif(&source(&fake), "b.sif"), "the two differ");
}

#[test]
fn what_passes_is_tried_again() {
    let once = |status: u16| {
        move |request: &Request, answer: Answer| match request.earlier {
            0 => Answer::json(status, json!({ "errors": [{ "code": "BUSY", "message": "later" }] }))
                .with("Retry-After", "0"),
            _ => answer,
        }
    };
    for status in [429, 500, 502, 503, 504] {
        let (fake, _) = faulty(once(status));
        Place::new().makes(&source(&fake), &["--retries", "2"], &layers());
    }
    // A connection that breaks in a manifest is made again from the start, in a blob it goes on where it ended.
    let (fake, repository) = faulty(|request, answer| match request.earlier {
        0 => answer.spoilt(|bytes| {
            let half = bytes.len() / 2;
            Body::Cut(bytes, half)
        }),
        _ => answer,
    });
    Place::new().makes(&source(&fake), &["--retries", "3"], &layers());
    let big = big_digest(&repository);
    let ranges: Vec<Option<String>> = fake
        .log()
        .iter()
        .filter(|request| request.is_for(&big))
        .map(|request| request.header("range").map(str::to_string))
        .collect();
    let half = repository.blobs[&big].len() / 2;
    assert_eq!(ranges, [None, Some(format!("bytes={half}-"))]);
}

#[test]
fn a_server_without_ranges_begins_again() {
    let repository = Repository::of(&layers());
    let fake = Fake::start(move |request| {
        let mut plain = request.clone();
        plain.headers.remove("range");
        let answer = repository.answer(&plain);
        match request.earlier {
            0 if request.is_for("/blobs/") => answer.spoilt(|bytes| {
                let part = bytes.len() * 2 / 3;
                Body::Cut(bytes, part)
            }),
            _ => answer,
        }
    });
    Place::new().makes(&source(&fake), &[], &layers());
}

/// A cache in between may answer with another part than the one that was asked for, or not say which one it is.
#[test]
fn a_server_that_sends_another_part_is_asked_for_all() {
    for stated in [Some("bytes 0-9/10"), Some("nonsense"), None] {
        let (fake, repository) = faulty(move |request, mut answer| {
            if request.is_for("/blobs/") && request.earlier == 0 {
                return answer.spoilt(|bytes| {
                    let half = bytes.len() / 2;
                    Body::Cut(bytes, half)
                });
            }
            let said = answer.headers.iter().position(|(name, _)| name == "Content-Range");
            if let Some(at) = said {
                answer.headers.remove(at);
                answer = stated.iter().fold(answer, |answer, stated| answer.with("Content-Range", stated));
            }
            answer
        });
        Place::new().makes(&source(&fake), &["--retries", "1"], &layers());
        let big = big_digest(&repository);
        let log = fake.log();
        let ranges: Vec<bool> =
            log.iter().filter(|request| request.is_for(&big)).map(|it| it.header("range").is_some()).collect();
        assert_eq!(ranges, [false, true, false], "{stated:?}");
    }
}

#[test]
fn a_silent_server_is_left_and_asked_again() {
    let stall = |request: &Request, answer: Answer| {
        let big = request.is_for("/blobs/") && matches!(&answer.body, Body::Whole(bytes) if bytes.len() > 100_000);
        if big { answer.spoilt(|bytes| Body::Stalled(bytes, 70_000)) } else { answer }
    };
    let (fake, _) = faulty(move |request, answer| if request.earlier == 0 { stall(request, answer) } else { answer });
    Place::new().makes(&source(&fake), &["--timeout", "0.4"], &layers());
    let (fake, _) = faulty(stall);
    let words = ["downloading blob sha256:", "giving up after 2 attempts"];
    Place::new().fails(&source(&fake), &["--timeout", "0.3", "--retries", "1"], 6, &words);
}

#[test]
fn lasting_faults_are_told_in_one_sentence() {
    type Change = Box<dyn Fn(&Request, Answer) -> Answer + Send + Sync>;
    let of_blobs = |change: fn(Answer) -> Answer| -> Change {
        Box::new(move |request, answer| if request.is_for("/blobs/") { change(answer) } else { answer })
    };
    let of_layers = |change: fn(Answer) -> Answer| -> Change {
        Box::new(move |request, answer| {
            let is_json = matches!(&answer.body, Body::Whole(bytes) if bytes.starts_with(b"{"));
            if request.is_for("/blobs/") && !is_json { change(answer) } else { answer }
        })
    };
    let of_manifests = |change: fn(Answer) -> Answer| -> Change {
        Box::new(move |request, answer| if request.is_for("/manifests/") { change(answer) } else { answer })
    };
    let flip = |answer: Answer| {
        answer.spoilt(|mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Body::Whole(bytes)
        })
    };
    let cases: Vec<(&str, Change, i32, &[&str])> = vec![
        ("wrong config", of_blobs(flip), 5, &["digest mismatch: expected sha256:"]),
        ("wrong layer", of_layers(flip), 5, &["layer ", "digest mismatch: expected sha256:"]),
        ("wrong manifest", of_manifests(flip), 5, &["digest mismatch"]),
        (
            "too short",
            of_layers(|answer| answer.spoilt(|bytes| Body::Whole(bytes[..bytes.len() - 1].to_vec()))),
            5,
            &["size mismatch"],
        ),
        (
            "too long",
            of_layers(|answer| answer.spoilt(|bytes| Body::Whole([bytes, vec![0]].concat()))),
            5,
            &["size mismatch"],
        ),
        ("endless", of_layers(|answer| answer.spoilt(Body::Endless)), 5, &["size mismatch"]),
        ("endless manifest", of_manifests(|answer| answer.spoilt(Body::Endless)), 4, &["more than 4194304 bytes"]),
        (
            "cut short always",
            of_layers(|answer| answer.spoilt(|bytes| Body::Cut(bytes, 10))),
            6,
            &["giving up after 2 attempts", "broke off"],
        ),
        ("always 500", of_blobs(|_| Answer::new(500, "text/plain", "no")), 6, &["answered 500 to a request for"]),
        (
            "always 429",
            of_manifests(|_| {
                Answer::json(429, json!({ "errors": [{ "code": "TOOMANYREQUESTS", "message": "slow\ndown" }] }))
                    .with("Retry-After", "0")
            }),
            6,
            &["answered 429", r#"TOOMANYREQUESTS, slow\ndown"#],
        ),
        (
            "429 for an hour",
            of_manifests(|_| Answer::new(429, "text/plain", "").with("Retry-After", "3600")),
            6,
            &["answered 429"],
        ),
        (
            "a web page",
            of_manifests(|_| Answer::new(200, "text/html; charset=utf-8", "<html>log in</html>")),
            6,
            &["web page"],
        ),
        (
            "a web page as a layer",
            of_layers(|_| Answer::new(200, "text/html", "<html>log in</html>")),
            6,
            &["web page"],
        ),
        ("nonsense", of_manifests(|_| Answer::new(200, "application/json", "[1,")), 4, &["not an image manifest"]),
        (
            "schema 1",
            of_manifests(|_| Answer::json(200, json!({ "schemaVersion": 1, "fsLayers": [] }))),
            4,
            &["schema 1"],
        ),
        (
            "no such tag",
            of_manifests(|_| {
                Answer::json(404, json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "unknown" }] }))
            }),
            3,
            &["has no image x:1", "MANIFEST_UNKNOWN"],
        ),
        ("no such blob", of_layers(|_| Answer::new(404, "text/plain", "")), 3, &["has no blob sha256:"]),
        ("forbidden", of_manifests(|_| Answer::new(403, "text/plain", "")), 6, &["(403)"]),
        ("in a circle", of_blobs(|_| Answer::redirect("/v2/x/blobs/again")), 6, &["too many redirects (limit 10)"]),
        ("nowhere", of_blobs(|_| Answer::redirect("gopher://x/")), 6, &["not an HTTP address"]),
    ];
    for (name, change, code, words) in cases {
        let (fake, _) = faulty(change);
        eprintln_case(name);
        Place::new().fails(&source(&fake), &["--retries", "1"], code, words);
    }
}

/// Which case a failure belongs to.
#[expect(clippy::print_stderr, reason = "shown only where the test fails")]
fn eprintln_case(name: &str) {
    eprintln!("case: {name}");
}

#[test]
fn a_registry_that_is_not_there_is_told_apart() {
    let place = Place::new();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.fails(&format!("docker://{unused}/x:1"), &[], 6, &["cannot connect to"]);
    place.fails("docker://registry.invalid/x:1", &[], 6, &["there is no host \"registry.invalid\""]);
    place.fails("docker://UPPER/x:1:2", &[], 2, &["is not an image reference"]);
    for arguments in [["--mirror", "x"], ["--insecure", "http://x"], ["--timeout", "0"]] {
        place.fails("docker://registry.invalid/x:1", &arguments, 2, &[arguments[0]]);
    }
}

#[test]
fn blobs_come_from_elsewhere_and_credentials_do_not_go_there() {
    let repository = Arc::new(Repository::of(&layers()));
    let held = Arc::clone(&repository);
    let elsewhere = Arc::new(Fake::start(move |request| held.answer(request)));
    let to = elsewhere.host();
    let held = Arc::clone(&repository);
    let fake = Fake::start(move |request| match request.header("authorization") {
        // "user:hunter2"
        Some("Basic dXNlcjpodW50ZXIy") if request.is_for("/blobs/") => {
            Answer::redirect(&format!("http://{to}{}?signature=sesame", request.path))
        }
        Some("Basic dXNlcjpodW50ZXIy") => held.answer(request),
        _ => Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let place = Place::new();
    let mut command = place.command(&source(&fake), &["--progress", "json"]);
    command.env("APPTAINER_DOCKER_USERNAME", "user").env("APPTAINER_DOCKER_PASSWORD", "hunter2");
    let done = run(&mut command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(fake.log()[0].header("authorization").is_none(), "credentials were sent before they were asked for");
    let followed = elsewhere.log();
    assert_eq!(followed.len(), repository.blobs.len());
    assert!(followed.iter().all(|request| request.header("authorization").is_none()), "credentials went elsewhere");
    is_silent_about(&place, &done, &["hunter2", "dXNlcjpodW50ZXIy", "sesame"]);

    // The same where it fails in the end.
    let to = elsewhere.host();
    let fake = Fake::start(move |request| match request.header("authorization") {
        Some(_) => Answer::redirect(&format!("http://{to}/nothing?signature=sesame")),
        _ => Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let mut command = place.command(&source(&fake), &["--force"]);
    command.env("SINGULARITY_DOCKER_USERNAME", "user").env("SINGULARITY_DOCKER_PASSWORD", "hunter2");
    let done = run(&mut command);
    assert_eq!(done.code, 3, "{}", done.stderr);
    is_silent_about(&place, &done, &["hunter2", "dXNlcjpodW50ZXIy", "sesame"]);
}

/// Neither words nor report hold any of the secrets.
fn is_silent_about(place: &Place, done: &Run, secrets: &[&str]) {
    let report = fs::read_to_string(place.path("report.json")).unwrap();
    for secret in secrets {
        assert!(!done.stderr.contains(secret), "{secret} is in {}", done.stderr);
        assert!(!report.contains(secret), "{secret} is in {report}");
    }
}

/// A token server that takes the login `user:hunter2` or the refresh token `again`, and a registry that wants its tokens.
fn with_tokens() -> (Arc<Fake>, Fake) {
    let tokens = Arc::new(Fake::start(|request| {
        let login = request.header("authorization") == Some("Basic dXNlcjpodW50ZXIy");
        let refresh = request.method == "POST" && request.body.contains("refresh_token=again");
        let path = if request.method == "POST" { &request.body } else { &request.path };
        assert!(path.contains("service=the+service") && path.contains("scope=repository%3Ax%3Apull"), "{path}");
        if login || refresh {
            Answer::json(200, json!({ "access_token": "t0ken", "expires_in": 60 }))
        } else if request.header("authorization").is_some() || request.method == "POST" {
            Answer::new(401, "text/plain", "")
        } else {
            Answer::json(200, json!({ "token": "an0nymous" }))
        }
    }));
    let repository = Repository::of(&layers());
    let realm = format!("http://{}/token", tokens.host());
    let fake = Fake::start(move |request| {
        if request.header("authorization") == Some("Bearer t0ken") {
            return repository.answer(request);
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="the service",scope="repository:x:pull""#);
        let errors = json!({ "errors": [{ "code": "UNAUTHORIZED", "message": "authentication required" }] });
        Answer::json(401, errors).with("WWW-Authenticate", &challenge)
    });
    (tokens, fake)
}

#[test]
fn tokens_are_had_with_every_kind_of_login() {
    let (tokens, fake) = with_tokens();
    let place = Place::new();
    let host = fake.host();
    let secrets = ["hunter2", "dXNlcjpodW50ZXIy", "t0ken", "again", "an0nymous"];
    let logins: [(&str, String); 3] = [
        (".docker/config.json", json!({ "auths": { &host: { "auth": "dXNlcjpodW50ZXIy" } } }).to_string()),
        (
            ".config/containers/auth.json",
            json!({ "auths": { format!("{host}/x"): { "auth": "dXNlcjpodW50ZXIy" } } }).to_string(),
        ),
        (".docker/config.json", json!({ "auths": { &host: { "identitytoken": "again" } } }).to_string()),
    ];
    for (file, text) in logins {
        let path = place.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let before = (tokens.log().len(), fake.log().len());
        let done = place.convert(&source(&fake), &["--force"]);
        assert_eq!(done.code, 0, "{file}: {}", done.stderr);
        is_silent_about(&place, &done, &secrets);
        assert_eq!(tokens.log().len(), before.0 + 1, "one token is enough");
        assert!(fake.log()[before.1].header("authorization").is_none());
        fs::remove_file(path).unwrap();
    }
    fs::remove_file(place.path("out/x.tar")).unwrap();
    // Without a login the token is good for nothing; with a wrong one there is none.
    place.fails(&source(&fake), &[], 6, &["denied access to image x:1 (401)", "UNAUTHORIZED"]);
    let mut command = place.command(&source(&fake), &[]);
    command.env("APPTAINER_DOCKER_USERNAME", "user").env("APPTAINER_DOCKER_PASSWORD", "wr0ng");
    let done = run(&mut command);
    assert_eq!(done.code, 6);
    assert!(done.stderr.contains("refused the login of \"user\""), "{}", done.stderr);
    is_silent_about(&place, &done, &["wr0ng"]);
    place.is_clean();
}

#[test]
fn credential_helpers_are_asked() {
    let (_tokens, fake) = with_tokens();
    let place = Place::new();
    let helper = place.path("docker-credential-test");
    let script = "#!/bin/sh\nread -r host\n[ \"$1 $host\" = \"get $HELPED\" ] || { echo 'credentials not found in native keychain'; exit 1; }\n\
                  echo '{\"Username\":\"user\",\"Secret\":\"hunter2\"}'\n";
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(place.path("config.json"), json!({ "auths": {}, "credsStore": "test" }).to_string()).unwrap();
    let path = format!("{}:/usr/bin:/bin", place.0.path().display());
    let helped = |host: &str| {
        let mut command = place.command(&source(&fake), &["--force"]);
        command.env("DOCKER_CONFIG", place.0.path()).env("PATH", &path).env("HELPED", host);
        run(&mut command)
    };
    let done = helped(&fake.host());
    assert_eq!(done.code, 0, "{}", done.stderr);
    is_silent_about(&place, &done, &["hunter2"]);
    // One that knows nothing is not an error of its own: the registry has the last word.
    let done = helped("another host");
    assert!(done.code == 6 && done.stderr.contains("(401)"), "{}", done.stderr);
}

/// An index of an image for several platforms, with an attestation; in it, another index.
fn many_platforms() -> (Repository, Value) {
    let mut repository = Repository::default();
    let mut image = |architecture: &str, variant: Option<&str>| {
        let layers = [layer::of_file("is", format!("{architecture}{}", variant.unwrap_or_default()).as_bytes())];
        let mut config = pack::config(&layers);
        config["architecture"] = architecture.into();
        let mut descriptor = repository.add_image(&config, &layers);
        descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
        if let Some(variant) = variant {
            descriptor["platform"]["variant"] = variant.into();
        }
        descriptor
    };
    let (amd64, amd64_v3) = (image("amd64", None), image("amd64", Some("v3")));
    let (arm_v6, arm64, s390x) = (image("arm", Some("v6")), image("arm64", Some("v8")), image("s390x", None));
    let mut attestation = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
        "digest": format!("sha256:{}", sha256(b"{}")), "platform": { "os": "unknown", "architecture": "unknown" } });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let inner = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [s390x] });
    let inner = repository.add_manifest(OCI_INDEX, &inner);
    let manifests = [amd64_v3, amd64, arm_v6, arm64, attestation, inner];
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
    let index = repository.add_manifest(OCI_INDEX, &index);
    repository.tag("1", &index);
    (repository, index)
}

#[test]
fn of_many_platforms_only_the_chosen_one_is_read() {
    let (repository, index) = many_platforms();
    let held = repository.clone();
    let fake = Fake::start(move |request| held.answer(request));
    for (platform, is) in [
        ("linux/amd64", "amd64"),
        ("linux/amd64/v3", "amd64v3"),
        ("linux/amd64/v2", "amd64"),
        ("linux/arm64", "arm64v8"),
        ("linux/arm/v7", "armv6"),
        ("linux/s390x", "s390x"),
    ] {
        let place = Place::new();
        let before = fake.log().len();
        place.makes(&source(&fake), &["--platform", platform], &[layer::of_file("is", is.as_bytes())]);
        let asked = fake.log()[before..].to_vec();
        // The index, the one inside it, the manifest, the config, the layer.
        assert_eq!(asked.len(), 5, "{platform}: {asked:?}");
        assert_eq!(place.report()["image"]["index_digest"], index["digest"]);
        let manifest = place.report()["image"]["manifest_digest"].as_str().unwrap().to_string();
        for digest in [index["digest"].as_str().unwrap(), &manifest] {
            place.makes(
                &source(&fake),
                &["--platform", platform, "--expect-digest", digest],
                &[layer::of_file("is", is.as_bytes())],
            );
        }
    }
    let place = Place::new();
    let words = ["no image is for platform linux/ppc64le", "linux/amd64/v3", "linux/arm/v6", "linux/s390x"];
    place.fails(&source(&fake), &["--platform", "linux/ppc64le"], 3, &words);

    let before = fake.log().len();
    let done = run(program().args(["inspect", "--json", &source(&fake)]));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let page: Value = serde_json::from_slice(&done.stdout).unwrap();
    let platforms: Vec<&str> =
        page["images"].as_array().unwrap().iter().map(|image| image["platform"].as_str().unwrap()).collect();
    assert_eq!(platforms, ["linux/amd64/v3", "linux/amd64", "linux/arm/v6", "linux/arm64", "linux/s390x"]);
    // What is attached to each is asked for, too, and what is attached to their index.
    let of_referrers = |path: &str| path.contains("/referrers/") || path.contains("/manifests/sha256-");
    let asked = fake.log()[before..].to_vec();
    let others = asked.iter().filter(|request| !of_referrers(&request.path)).count();
    assert!(others <= 4, "inspect reads more than one manifest and one config");
    assert!(
        asked.len() - others <= 2 * (platforms.len() + 1),
        "referrers are asked for more than by API and by tag: {asked:?}"
    );
    assert!(fake.log()[before..].iter().filter(|request| request.is_for("/blobs/")).count() <= 1);
}

#[test]
fn mirrors_are_asked_first_and_the_origin_where_they_fail() {
    let repository = Repository::of(&layers());
    let held = repository.clone();
    let mirror = Fake::start(move |request| {
        let mut origin = request.clone();
        origin.path = request.path.replace("/v2/prefix/library/", "/v2/");
        held.answer(&origin)
    });
    let place = Place::new();
    let option = format!("docker.io={}/prefix", mirror.host());
    place.makes("docker://x:1", &["--mirror", &option], &layers());
    assert!(mirror.log().iter().all(|request| request.path.starts_with("/v2/prefix/library/x/")));

    let broken = Fake::start(|_| Answer::new(404, "text/plain", ""));
    let (origin, _) = faulty(|_, answer| answer);
    let option = format!("{}={}", origin.host(), broken.host());
    let said = place.makes(&source(&origin), &["--mirror", &option], &layers());
    assert!(said.contains("mirror 127.0.0.1"), "{said}");

    // A mirror that has the manifest, and half of a layer.
    let big = big_digest(&repository);
    let half = Fake::start(move |request| match repository.answer(request) {
        answer if request.is_for(&big) && request.earlier == 0 => answer.spoilt(|bytes| Body::Cut(bytes, 300_000)),
        _ if request.is_for(&big) => Answer::new(404, "text/plain", ""),
        answer => answer,
    });
    let before = origin.log().len();
    let option = format!("{}={}", origin.host(), half.host());
    let said = place.makes(&source(&origin), &["--mirror", &option], &layers());
    assert!(said.contains("mirror 127.0.0.1"), "{said}");
    let asked = &origin.log()[before..];
    assert!(asked.len() == 1 && asked[0].header("range") == Some("bytes=300000-"), "{asked:?}");
}

#[test]
fn layers_that_may_not_be_distributed_come_by_their_url() {
    let layers = layers();
    let mut repository = Repository::of(&layers);
    let big = big_digest(&repository);
    let bytes = repository.blobs.remove(&big).unwrap();
    let vendor = Fake::start(move |_| Answer::new(200, "application/octet-stream", bytes.clone()));
    let (_, manifest) = repository.manifests["1"].clone();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer =
        manifest["layers"].as_array_mut().unwrap().iter_mut().find(|layer| layer["digest"] == big.as_str()).unwrap();
    layer["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    layer["urls"] = json!(["ftp://vendor.invalid/", format!("http://{}/layer", vendor.host())]);
    let manifest = repository.add_manifest(crate::support::fake::OCI_MANIFEST, &manifest);
    repository.tag("1", &manifest);
    let fake = Fake::start(move |request| repository.answer(request));
    Place::new().makes(&source(&fake), &[], &layers);
    assert_eq!(vendor.count("/layer"), 1);
}

#[test]
fn proxies_are_used_as_the_environment_says() {
    let repository = Repository::of(&layers());
    let proxy = Fake::start(move |request| repository.answer(request));
    let place = Place::new();
    let converted = |variables: &[(&str, &str)]| {
        let mut command =
            place.command("docker://registry.invalid:5000/x:1", &["--insecure", "registry.invalid:5000", "--force"]);
        command.envs(variables.iter().copied());
        run(&mut command)
    };
    let address = format!("http://user:hunter2@{}", proxy.host());
    let done = converted(&[("HTTP_PROXY", &address)]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    is_silent_about(&place, &done, &["hunter2"]);
    assert!(proxy.log().iter().any(|request| request.method == "CONNECT" && request.path == "registry.invalid:5000"));
    let before = proxy.log().len();
    let done = converted(&[("HTTP_PROXY", &address), ("NO_PROXY", "other,.invalid")]);
    assert!(done.code == 6 && done.stderr.contains("there is no host"), "{}", done.stderr);
    assert_eq!(proxy.log().len(), before, "the proxy was asked all the same");
    // What is wrong with a proxy is not wrong with the registry.
    for (address, words) in [
        ("http://proxy.invalid:3128", "the proxy for registry.invalid:5000 is not found"),
        ("socks5://proxy.invalid:1080", "the proxy for registry.invalid:5000 is not found"),
        ("http://127.0.0.1:1", "cannot connect to registry.invalid:5000 through the proxy"),
        ("ftp://127.0.0.1:1", "the proxy for registry.invalid:5000 is not given as an address"),
    ] {
        let done = converted(&[("HTTP_PROXY", address)]);
        assert!(done.code != 0 && done.stderr.contains(words), "{address}: {}", done.stderr);
        assert!(
            done.stderr.lines().any(|line| line.starts_with("hint: ") && line.contains("PROXY")),
            "{}",
            done.stderr
        );
    }
}

/// What `ssh -D` speaks (RFC 1928): names are looked up on its side.
#[test]
fn socks_proxies_look_names_up_themselves() {
    use std::io::{Read as _, Write as _};
    let repository = Repository::of(&layers());
    let registry = Fake::start(move |request| repository.answer(request));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, behind) = (Arc::new(std::sync::Mutex::new(Vec::new())), registry.host());
    let names = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, names) = (client.unwrap(), Arc::clone(&names));
            let mut server = std::net::TcpStream::connect(&behind).unwrap();
            std::thread::spawn(move || {
                let read = |count: usize| {
                    let mut bytes = vec![0; count];
                    (&client).read_exact(&mut bytes).map(|()| bytes)
                };
                let methods = read(2)?[1];
                read(methods.into())?;
                (&client).write_all(&[5, 0])?;
                let length = read(5)?[4];
                let name = read(length.into())?;
                names.lock().unwrap().push(String::from_utf8(name).unwrap());
                read(2)?;
                (&client).write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
                let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::io::copy(&mut server, &mut client)
            });
        }
    });
    let place = Place::new();
    for scheme in ["socks5", "socks5h", "socks"] {
        let words = ["--insecure", "registry.invalid:5000", "--force"];
        let mut command = place.command("docker://registry.invalid:5000/x:1", &words);
        let done = run(command.env("ALL_PROXY", format!("{scheme}://{address}")));
        assert_eq!(done.code, 0, "{scheme}: {}", done.stderr);
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert!(!asked.is_empty() && asked.iter().all(|name| name == "registry.invalid"), "{asked:?}");
    }
}
