//! Real registries and what others put there: Docker's registry on loopback, plain, with passwords, with tokens and with
//! TLS; skopeo and crane push to it; Apptainer runs what comes out.
//!
//! Needs `docker-registry`, `openssl` and `scripts/oracles setup`; without them the tests are skipped with a printed reason,
//! and fail under `ORACLES=require`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::docker::DockerImage;
use crate::support::fake::{Answer, Fake};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::registry::Registry;
use crate::support::run::{self, Oracles, Run, program, scratch, skip};
use crate::support::{layer, pack};

/// The user `user` with the password `correct horse`, as htpasswd writes it (bcrypt).
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";
const PASSWORD: &str = "correct horse";

fn layers() -> Vec<Vec<u8>> {
    let of = |name: &str, text: &str| {
        let mut tar = Vec::new();
        layer::member(&mut tar, name, text.repeat(1000).as_bytes());
        tar.resize(tar.len() + 1024, 0);
        tar
    };
    vec![of("a", "one"), of("b", "two"), of("a", "three")]
}

/// A directory with `image.tar`.
struct Place {
    oracles: Oracles,
    place: tempfile::TempDir,
}

impl Place {
    fn new() -> Option<Self> {
        let oracles = run::oracles()?;
        let place = scratch();
        fs::write(place.path().join("image.tar"), docker_archive(&layers(), Squeeze::Not)).unwrap();
        Some(Place { oracles, place })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Runs a script among the oracles.
    fn shell(&self, script: &str) -> String {
        let done = run::run(self.oracles.run(self.place.path()).args(["sh", "-euc", script]));
        let stdout = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.code, 0, "{script}: {stdout}{}", done.stderr);
        stdout
    }

    fn skopeo(&self, registry: &Registry, options: &str) {
        let to = format!("docker://{}/org/x:1", registry.host);
        self.shell(&format!("skopeo copy --quiet --insecure-policy {options} docker-archive:image.tar {to}"));
    }

    fn command(&self, source: &str, output: &str) -> Command {
        let mut command = program();
        command.current_dir(self.place.path()).env("HOME", self.place.path());
        command.arg(source).args(["--to", "sif", "--reference", "host/x:1", "--force", "-o", output]);
        command.args(["--report", "report.json", "-v"]);
        command
    }

    /// What comes from the registry must be what comes from the archive that was pushed.
    fn is_same(&self, registry: &Registry, change: impl FnOnce(&mut Command)) -> Run {
        self.is_same_as("image.tar", registry, change)
    }

    fn is_same_as(&self, archive: &str, registry: &Registry, change: impl FnOnce(&mut Command)) -> Run {
        let mut command = self.command(&format!("docker://{}/org/x:1", registry.host), "pulled.sif");
        change(&mut command);
        let done = run::run(&mut command);
        assert_eq!(done.code, 0, "{}", done.stderr);
        let saved = run::run(&mut self.command(archive, "saved.sif"));
        assert_eq!(saved.code, 0, "{}", saved.stderr);
        let same = fs::read(self.path("pulled.sif")).unwrap() == fs::read(self.path("saved.sif")).unwrap();
        assert!(same, "the two SIF files differ");
        done
    }
}

#[test]
fn what_skopeo_and_crane_push_is_read() {
    let Some(place) = Place::new() else { return };
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    let to = format!("{}/org/x", registry.host);
    for options in
        ["--dest-tls-verify=false --format v2s2", "--dest-tls-verify=false --format oci --dest-compress-format zstd"]
    {
        place.skopeo(&registry, options);
        if options.contains("oci") {
            // skopeo writes another config then, which is another image ID: the same as in an archive that it makes.
            place.shell(&format!(
                "skopeo copy --quiet --insecure-policy --src-tls-verify=false docker://{to}:1 oci-archive:oci.tar"
            ));
            place.is_same_as("oci.tar", &registry, |_| {});
        } else {
            place.is_same(&registry, |_| {});
        }
        let digest =
            place.shell(&format!("skopeo inspect --tls-verify=false --format '{{{{.Digest}}}}' docker://{to}:1"));
        let done = run::run(
            place
                .command(&format!("docker://{to}@{}", digest.trim()), "x.sif")
                .args(["--expect-digest", digest.trim()]),
        );
        assert_eq!(done.code, 0, "{}", done.stderr);
        let report: Value = serde_json::from_slice(&fs::read(place.path("report.json")).unwrap()).unwrap();
        assert_eq!(report["image"]["manifest_digest"], digest.trim());
    }
    place.shell(&format!("crane push --insecure image.tar {to}:1 >/dev/null 2>&1"));
    place.is_same(&registry, |_| {});
    // An index, made by crane out of what is there.
    place.shell(&format!(
        "crane index append --insecure -m {to}:1 -t {to}:all >/dev/null 2>&1; crane digest --insecure {to}:all >index 2>/dev/null"
    ));
    let done = run::run(&mut place.command(&format!("docker://{to}:all"), "x.sif"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let report: Value = serde_json::from_slice(&fs::read(place.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["image"]["index_digest"], fs::read_to_string(place.path("index")).unwrap().trim());
    let page = run::run(program().args(["inspect", &format!("docker://{to}:all")]));
    assert_eq!(page.code, 0, "{}", page.stderr);
    for missing in ["org/x:2", "org/none:1"] {
        let done = run::run(&mut place.command(&format!("docker://{}/{missing}", registry.host), "none.sif"));
        assert!(done.code == 3 && done.stderr.contains("UNKNOWN"), "{}", done.stderr);
    }
    assert!(!place.path("none.sif").exists());
}

#[test]
fn passwords_are_shown_to_a_registry_that_asks() {
    let Some(place) = Place::new() else { return };
    fs::write(place.path("htpasswd"), HTPASSWD).unwrap();
    let auth = format!("auth:\n  htpasswd: {{realm: here, path: {}}}\n", place.path("htpasswd").display());
    let Some(registry) = Registry::start(place.place.path(), "", &auth) else { return };
    place.skopeo(&registry, &format!("--dest-tls-verify=false --dest-creds 'user:{PASSWORD}'"));
    let done = place.is_same(&registry, |command| {
        command.env("APPTAINER_DOCKER_USERNAME", "user").env("APPTAINER_DOCKER_PASSWORD", PASSWORD);
    });
    assert!(!done.stderr.contains(PASSWORD), "{}", done.stderr);
    // What skopeo's login writes is what we read.
    let login =
        format!("skopeo login --tls-verify=false --authfile auth.json -u user -p '{PASSWORD}' {}", registry.host);
    place.shell(&format!("{login} >/dev/null"));
    place.is_same(&registry, |command| {
        command.env("REGISTRY_AUTH_FILE", place.path("auth.json"));
    });
    let mut anonymous = place.command(&format!("docker://{}/org/x:1", registry.host), "none.sif");
    let done = run::run(&mut anonymous);
    assert!(done.code == 6 && done.stderr.contains("requires a login"), "{}", done.stderr);
    assert!(!place.path("none.sif").exists());
}

/// Runs openssl, which must be there where the tests are required.
fn openssl(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    if !run::host_has("openssl") && Command::new("openssl").arg("version").output().is_err() {
        skip("there is no openssl: apt-get install openssl");
        return None;
    }
    let done = Command::new("openssl").current_dir(directory).args(arguments).output().unwrap();
    assert!(done.status.success(), "openssl {arguments:?}: {}", String::from_utf8(done.stderr).unwrap());
    Some(done.stdout)
}

/// A private authority `ca.crt` and, made by it, `NAME.crt` with `NAME.key`, for each of `names`.
fn certificates(directory: &Path, names: &[&str]) -> Option<()> {
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority =
        ["req", "-x509", "-subj", "/CN=test authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(directory, &[&authority[..], &new_key].concat())?;
    fs::write(directory.join("extensions"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    for name in names {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        let subject = format!("/CN={name}");
        let ask = ["req", "-new", "-subj", &subject, "-keyout", &key, "-out", &request];
        openssl(directory, &[&ask[..], &new_key].concat())?;
        let sign =
            ["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        openssl(directory, &[&sign[..], &["-extfile", "extensions", "-out", &certificate]].concat())?;
    }
    Some(())
}

#[test]
fn a_private_authority_is_trusted_where_docker_would_look() {
    let Some(place) = Place::new() else { return };
    let Some(()) = certificates(place.place.path(), &["server", "client"]) else { return };
    let file = |name: &str| place.path(name).display().to_string();
    let (server, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let tls = format!("  tls: {{certificate: {server}, key: {key}, clientcas: [{ca}]}}\n");
    let Some(registry) = Registry::start(place.place.path(), &tls, "") else { return };
    // skopeo wants its certificates in a directory of their own.
    place.shell("mkdir certs; cp ca.crt certs/; cp client.crt certs/client.cert; cp client.key certs/");
    place.skopeo(&registry, "--dest-cert-dir certs");
    let source = format!("docker://{}/org/x:1", registry.host);
    let done = run::run(&mut place.command(&source, "none.sif"));
    assert!(done.code == 6 && done.stderr.contains("is not trusted"), "{}", done.stderr);
    assert!(done.stderr.contains("certs.d"), "{}", done.stderr);
    let directory = place.path(".docker/certs.d").join(&registry.host);
    fs::create_dir_all(&directory).unwrap();
    fs::copy(place.path("ca.crt"), directory.join("ca.crt")).unwrap();
    // Trusted, but who are we?
    let done = run::run(&mut place.command(&source, "none.sif"));
    assert!(done.code == 6 && done.stderr.contains("asks for a certificate"), "{}", done.stderr);
    assert!(!done.stderr.contains("retrying"), "{}", done.stderr);
    fs::copy(place.path("client.crt"), directory.join("client.cert")).unwrap();
    fs::copy(place.path("server.key"), directory.join("client.key")).unwrap();
    let done = run::run(&mut place.command(&source, "none.sif"));
    assert!(done.code == 6 && done.stderr.contains("client.key\" is not the key of"), "{}", done.stderr);
    fs::copy(place.path("client.crt"), directory.join("client.cert")).unwrap();
    fs::copy(place.path("client.key"), directory.join("client.key")).unwrap();
    place.is_same(&registry, |_| {});
    // The roots may be named as well.
    fs::remove_file(directory.join("ca.crt")).unwrap();
    place.is_same(&registry, |command| {
        command.env("SSL_CERT_FILE", place.path("ca.crt"));
    });
    assert!(!place.path("none.sif").exists());
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A token for `actions` on org/x, as the registry checks it: signed with the authority's key (RS256), the certificate in
/// its header.
fn token(directory: &Path, actions: &[&str]) -> String {
    let der = openssl(directory, &["x509", "-in", "token.crt", "-outform", "DER"]).unwrap();
    let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [BASE64_STANDARD.encode(&der)] });
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let access = [json!({ "type": "repository", "name": "org/x", "actions": actions })];
    let claims = json!({ "iss": "test issuer", "sub": "user", "aud": "test registry", "exp": now + 300, "nbf": now - 60,
        "iat": now - 60, "jti": "1", "access": access });
    let text = format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let name = format!("to-sign-{}", pack::sha256(text.as_bytes()));
    fs::write(directory.join(&name), &text).unwrap();
    let signature = openssl(directory, &["dgst", "-sha256", "-sign", "token.key", &name]).unwrap();
    format!("{text}.{}", base64url(&signature))
}

#[test]
fn tokens_are_fetched_and_accepted() {
    let Some(place) = Place::new() else { return };
    let directory = place.place.path().to_path_buf();
    let self_signed = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens"];
    if openssl(&directory, &[&self_signed[..], &["-keyout", "token.key", "-out", "token.crt"]].concat()).is_none() {
        return;
    }
    // "user:hunter2" may push and pull, nobody else may do anything.
    let signer = directory.clone();
    let tokens = Fake::start(move |request| {
        let actions: &[&str] = match request.header("authorization") {
            Some("Basic dXNlcjpodW50ZXIy") => &["pull", "push"],
            _ => &[],
        };
        Answer::json(200, json!({ "token": token(&signer, actions), "expires_in": 300 }))
    });
    let auth = format!(
        "auth:\n  token: {{realm: \"http://{}/token\", service: test registry, issuer: test issuer, rootcertbundle: {}}}\n",
        tokens.host(),
        place.path("token.crt").display()
    );
    let Some(registry) = Registry::start(&directory, "", &auth) else { return };
    place.skopeo(&registry, "--dest-tls-verify=false --dest-creds user:hunter2");
    let before = tokens.log().len();
    let done = place.is_same(&registry, |command| {
        command.env("SINGULARITY_DOCKER_USERNAME", "user").env("SINGULARITY_DOCKER_PASSWORD", "hunter2");
    });
    assert_eq!(tokens.log().len(), before + 1, "one token is enough for one image");
    assert!(!done.stderr.contains("hunter2"));
    let done = run::run(&mut place.command(&format!("docker://{}/org/x:1", registry.host), "none.sif"));
    assert!(done.code == 6 && done.stderr.contains("(401)"), "{}", done.stderr);
}

#[test]
fn what_docker_pushes_runs_in_apptainer() {
    let Some(oracles) = run::oracles() else { return };
    let Some(image) = DockerImage::build("registry-run") else { return };
    let place = scratch();
    let Some(registry) = Registry::start(place.path(), "", "") else { return };
    let name = format!("{}/test/run:1", registry.host);
    image.docker(&["tag", &image.name, &name]);
    image.docker(&["push", "--quiet", &name]);
    image.docker(&["rmi", &name]);
    let work = image.place.path();
    let mut command = program();
    command.current_dir(work).arg(format!("docker://{name}")).args(["--to", "sif", "-o", "image.sif"]);
    let done = run::run(&mut command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    fs::set_permissions(work, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let ran = run::run(oracles.user(work).args(["apptainer", "--silent", "run", "image.sif", "a b", "$HOME"]));
    let expected = image.docker(&["run", "--rm", &image.name, "a b", "$HOME"]);
    assert_eq!((ran.code, String::from_utf8(ran.stdout)), (0, String::from_utf8(expected)), "{}", ran.stderr);
}

/// Every address that the program connects to is the registry's.
#[test]
fn nobody_else_is_asked() {
    let Some(place) = Place::new() else { return };
    if Command::new("strace").arg("-V").output().is_err() {
        skip("there is no strace: apt-get install strace");
        return;
    }
    let Some(registry) = Registry::start(place.place.path(), "", "") else { return };
    place.skopeo(&registry, "--dest-tls-verify=false");
    let mut traced = Command::new("strace");
    traced.current_dir(place.place.path()).env_clear().env("PATH", "/usr/bin:/bin");
    traced.args(["-f", "-e", "trace=connect", "-o", "trace", env!("CARGO_BIN_EXE_convert")]);
    traced.args([&format!("docker://{}/org/x:1", registry.host), "--to", "rootfs", "-o", "x.tar"]);
    let done = run::run(&mut traced);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let trace = fs::read_to_string(place.path("trace")).unwrap();
    let connects: Vec<&str> = trace.lines().filter(|line| line.contains("connect(")).collect();
    let port = format!("sin_port=htons({})", registry.host.rsplit_once(':').unwrap().1);
    assert!(!connects.is_empty());
    connects.iter().for_each(|line| assert!(line.contains(&port) && line.contains("\"127.0.0.1\""), "{line}"));
}
