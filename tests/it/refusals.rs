//! What can be refused is refused before anything is read: the writer of a pipe still holds it open, and engines and
//! registries have not been asked.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::engine::{Behaviour, Export, FakeEngine};
use crate::support::fake::{Answer, Fake};
use crate::support::run::{is_root, program, scratch};
use serde_json::json;

/// Words, exit code, what is said. `LONG` is a name that is too long.
const REFUSALS: [(&str, i32, &str); 19] = [
    ("--to sif -o there", 8, "exists already"),
    ("--to rootfs -o there", 8, "exists already"),
    ("--to oci -o full", 8, "neither empty nor an OCI layout"),
    ("--to oci -o layout --if-exists fail", 8, "exists already"),
    ("--to docker-archive -o there", 8, "exists already"),
    ("--to sif -o nowhere/x.sif", 8, "nowhere"),
    ("--to oci -o nowhere/x", 8, "nowhere"),
    ("--to rootfs -o full", 8, "it is a directory"),
    ("--to sif -o LONG", 8, "File name too long"),
    ("--to dir -o LONG", 8, "File name too long"),
    ("--to oci -o LONG", 8, "File name too long"),
    ("--to sif -o -", 2, "cannot be written to a stream"),
    ("--to oci -o -", 2, "an OCI layout is a directory"),
    ("--to sif -o x --compression none", 2, "always compressed"),
    ("--to rootfs -o x --compression gzip:10", 2, "no gzip level 10"),
    ("--to rootfs -o x --if-exists reuse", 2, "cannot be reused"),
    ("--to sif -o x --block-size 5000", 2, "is not a block size"),
    ("--to docker-archive --compression zstd:3 -o docker://h.example/x:1", 2, "choose another --compression"),
    ("--to sif -o x --arch vax", 2, "know no architecture"),
];

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(scratch());
        fs::write(place.path("there"), "old").unwrap();
        fs::create_dir_all(place.path("full/inside")).unwrap();
        fs::create_dir(place.path("layout")).unwrap();
        fs::write(place.path("layout/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, source: &str, words: &str) -> std::process::Command {
        let mut command = program();
        command
            .current_dir(self.0.path())
            .env("HOME", self.0.path())
            .arg(source)
            .args(words.replace("LONG", &"a".repeat(256)).split(' '))
            .arg("-q");
        command
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let place = Place::new();
    let forbidden = ("--to sif -o closed/x.sif", 8, "closed/x.sif");
    fs::create_dir(place.path("closed")).unwrap();
    fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    // Root may write anywhere.
    let more = (!is_root()).then_some(forbidden);
    for (words, code, message) in REFUSALS.into_iter().chain(more) {
        let mut command = place.command("-", words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Nothing is ever written to it, and it is closed only after the program has ended.
        let pipe = child.stdin.take().unwrap();
        let ended = child.wait_with_output().unwrap();
        drop(pipe);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(code) && said.contains(message), "{words}: {:?} {said}", ended.status);
        assert!(said.lines().last().unwrap().starts_with("hint: "), "{words}: {said}");
    }
    assert_eq!(fs::read(place.path("there")).unwrap(), b"old");
}

#[test]
fn engines_and_registries_are_not_asked() {
    let place = Place::new();
    let engine = FakeEngine::start(&place.path(""), Behaviour::new(b"never sent", Export::Whole));
    let registry = Fake::start(|_| Answer::json(500, json!({})));
    let name = format!("docker://{}/x:1", registry.host());
    for (words, code, message) in REFUSALS {
        let of_engine = place.command("docker-daemon:example/case", words).env("DOCKER_HOST", engine.host()).output();
        let of_registry = place.command(&name, words).args(["--insecure", &registry.host()]).output();
        for output in [of_engine.unwrap(), of_registry.unwrap()] {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.code() == Some(code) && said.contains(message), "{words}: {said}");
        }
    }
    assert_eq!((engine.requests(), registry.log().len()), (Vec::new(), 0));
    // The same call asks when there is nothing to refuse.
    place.command(&name, "--to sif -o new.sif --retries 0").args(["--insecure", &registry.host()]).output().unwrap();
    assert!(!registry.log().is_empty());
}

#[test]
fn a_sif_on_standard_input_is_to_be_saved_first() {
    let place = Place::new();
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    assert!(place.command(hello, "--to sif -o x.sif").status().unwrap().success());
    let from = |input| place.command("-", "--to rootfs -o /dev/null").stdin(fs::File::open(input).unwrap()).output();
    let refused = from(place.path("x.sif")).unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    let hint = said.lines().last().unwrap();
    assert!(refused.status.code() == Some(4) && hint.contains("save it to a file first"), "{said}");
    assert!(place.command("x.sif", "--to rootfs -o /dev/null").status().unwrap().success());
}

/// A pipe that is closed early is the reader's affair.
#[test]
fn a_reader_that_ends_early_is_named() {
    let place = Place::new();
    fs::create_dir(place.path("root")).unwrap();
    fs::create_dir(place.path("root/etc")).unwrap();
    fs::write(place.path("root/etc/large"), vec![b'x'; 8 << 20]).unwrap();
    let mut command = place.command("root", "--to rootfs -o -");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(8), "{said}");
    assert!(said.lines().last().unwrap().contains("that reads the pipe ended"), "{said}");
}

/// A web server without TLS is named by its URL: no option lets that be spoken to otherwise.
#[test]
fn a_web_server_without_tls_is_named_by_its_url() {
    let place = Place::new();
    let hello = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // As web servers answer what is not HTTP.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let mut request = vec![0; 16 << 10];
            let count = stream.read(&mut request).unwrap();
            let (status, body) = if request[..count].starts_with(b"GET ") {
                ("200 OK", &hello[..])
            } else {
                ("400 Bad Request", &b""[..])
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    let source = format!("https://{host}/app.tar?token=secret");
    let refused = place.command(&source, "--to rootfs -o /dev/null --retries 0").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    let hint = said.lines().last().unwrap();
    let typed = hint.rsplit(' ').next().unwrap();
    assert!(refused.status.code() == Some(6) && typed == format!("http://{host}/app.tar"), "{said}");
    assert!(place.command(typed, "--to rootfs -o /dev/null").status().unwrap().success());
}

#[test]
fn what_has_no_effect_on_a_sif_is_refused() {
    let place = Place::new();
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    assert!(place.command(hello, "--to sif -o x.sif").status().unwrap().success());
    for command in ["inspect", "verify"] {
        for option in ["--image y", "--platform linux/amd64", "--tmpdir /tmp"] {
            let refused = program().arg(command).arg(place.path("x.sif")).args(option.split(' ')).output().unwrap();
            let said = String::from_utf8(refused.stderr).unwrap();
            assert!(refused.status.code() == Some(2) && said.contains("has no effect on a SIF"), "{option}: {said}");
        }
    }
    let missing = program().args(["verify", hello, "--image", "nothere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3), "{}", String::from_utf8(missing.stderr).unwrap());
}
