//! Engines that are not to be trusted: they lie about what they export, and their answers never end.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::support::engine::{Behaviour, Export, FakeEngine};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::run::{program, run, scratch};

fn archive() -> Vec<u8> {
    let mut tar = Vec::new();
    layer::member(&mut tar, "a", b"text");
    tar.resize(tar.len() + 1024, 0);
    docker_archive(&[tar], Squeeze::Not)
}

#[test]
fn an_image_that_is_asked_for_by_its_id_must_have_it() {
    let place = scratch();
    fs::write(place.path().join("image.tar"), archive()).unwrap();
    let done = run(program().current_dir(place.path()).args(["inspect", "--json", "image.tar"]));
    let page: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let id = page["images"][0]["image_id"].as_str().or(page["images"][0]["id"].as_str()).unwrap().to_string();
    let engine = FakeEngine::start(place.path(), Behaviour::new(&archive(), Export::Whole));
    let converted = |word: &str| {
        let mut command = program();
        command.env("DOCKER_HOST", engine.host()).args([word, "--to", "rootfs", "-o", "-"]);
        run(&mut command)
    };
    let right = converted(&format!("docker-daemon:{id}"));
    assert_eq!(right.code, 0, "{}", right.stderr);
    let wrong = converted(&format!("docker-daemon:sha256:{}", "1".repeat(64)));
    assert_eq!((wrong.code, wrong.stdout.len()), (5, 0), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("digest mismatch") && wrong.stderr.contains(&id), "{}", wrong.stderr);
}

/// Answers each request with a head and then the same bytes without end, until nobody listens.
fn endless(directory: &std::path::Path, status: u16, start: &'static str) -> String {
    let socket = directory.join("endless.sock");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            std::thread::spawn(move || answer(stream, status, start));
        }
    });
    format!("unix://{}", socket.display())
}

fn answer(mut stream: UnixStream, status: u16, start: &str) {
    let _ = stream.read(&mut [0; 4096]);
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{start}");
    let _ = stream.write_all(head.as_bytes());
    while stream.write_all(&[b'a'; 65_536]).is_ok() {}
}

/// The limit is far below what the machine has, and is reached at once.
#[test]
fn answers_without_end_are_cut_off() {
    let place = scratch();
    for (status, start) in [(200, "{\"ApiVersion\":\""), (500, "{\"message\":\""), (200, "["), (404, "")] {
        let host = endless(place.path(), status, start);
        let script = "ulimit -v 2000000; exec \"$0\" docker-daemon:x --to rootfs -o -";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", script]).arg(env!("CARGO_BIN_EXE_convert")).env("DOCKER_HOST", host);
        let done = run(&mut shell);
        assert_eq!(done.code, 6, "{status} {start}: {}", done.stderr);
        assert!(done.stderr.len() < 10_000, "{} bytes are said", done.stderr.len());
    }
}
