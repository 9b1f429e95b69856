//! An engine of our own that fails on demand: the part of Docker's interface that an export needs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

/// How an export goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Export {
    /// As it should.
    Whole,
    /// In chunks, and the connection ends in the middle of one.
    CutChunks,
    /// With a length, and the connection ends before it.
    CutLength,
    /// With half of the length that it should have.
    HalfLength,
    /// Without a length, and the connection ends in the middle.
    CutBare,
    /// Half, then Docker's message, and an end as it should be.
    FailsInside,
    /// Nothing at all, and an end as it should be.
    Empty,
    /// An error instead of an answer.
    Refuses,
    /// Half, and then nothing more.
    Stalls,
}

/// What the engine has and does.
#[derive(Clone)]
pub struct Behaviour {
    pub archive: Vec<u8>,
    pub export: Export,
    pub api_version: &'static str,
    /// What it says its one image takes; with that it says that layers are kept unpacked.
    pub size: Option<u64>,
    /// The ID of the image, where it matters.
    pub id: Option<String>,
}

/// The one image that it has.
pub const NAME: &str = "example/case:latest";

impl Behaviour {
    pub fn new(archive: &[u8], export: Export) -> Self {
        Behaviour { archive: archive.to_vec(), export, api_version: "1.41", size: None, id: None }
    }
}

/// An engine that listens on a socket as long as this lives.
pub struct FakeEngine {
    pub socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    pub fn start(directory: &Path, behaviour: Behaviour) -> Self {
        let socket = directory.join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (behaviour, log) = (behaviour.clone(), Arc::clone(&log));
                thread::spawn(move || answer(&mut &stream, &behaviour, &log).then(|| stream.shutdown(Shutdown::Both)));
            }
        });
        FakeEngine { socket, requests }
    }

    /// What `DOCKER_HOST` must be.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The first lines of all requests, without the protocol.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The same engine on a TCP port, which is returned.
    pub fn on_tcp(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = self.socket.clone();
        thread::spawn(move || {
            for far in listener.incoming() {
                let (Ok(mut far), Ok(mut near)) = (far, UnixStream::connect(&socket)) else { return };
                let (mut back, mut from) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut far, &mut near));
                thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut back);
                    let _ = back.shutdown(Shutdown::Both);
                });
            }
        });
        port
    }
}

impl Drop for FakeEngine {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Answers one request; whether the connection is to be closed.
fn answer(stream: &mut (impl Read + Write), behaviour: &Behaviour, log: &Mutex<Vec<String>>) -> bool {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return true,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.split(' ').nth(1).unwrap().to_string();
    log.lock().unwrap().push(target.clone());
    let path = target.split('?').next().unwrap();
    // Writing fails where the other side has gone, which it may.
    let _ = match path {
        "/version" => json_answer(stream, 200, &json!({ "ApiVersion": behaviour.api_version, "Version": "0" })),
        "/images/get" => return export(stream, behaviour),
        "/images/json" => json_answer(stream, 200, &list()),
        _ if path.contains("example/case") || path.contains("/sha256:") => {
            json_answer(stream, 200, &inspect(behaviour))
        }
        _ => json_answer(stream, 404, &json!({ "message": format!("No such image: {path}") })),
    };
    true
}

fn inspect(behaviour: &Behaviour) -> Value {
    let mut image = json!({
        "Id": behaviour.id.clone().unwrap_or_else(|| format!("sha256:{}", "0".repeat(64))),
        "RepoTags": [NAME],
        "RootFS": { "Type": "layers", "Layers": ["sha256:a"] },
        "Os": "linux",
        "Architecture": "amd64",
    });
    if let Some(size) = behaviour.size {
        image["Size"] = size.into();
        image["GraphDriver"] = json!({ "Name": "overlay2", "Data": { "UpperDir": "/somewhere" } });
    }
    image
}

fn list() -> Value {
    let image = |name: &str| {
        json!({
            "Id": "sha256:0", "ParentId": "", "RepoTags": [name], "RepoDigests": [], "Created": 0, "Size": 0,
            "SharedSize": -1, "Labels": {}, "Containers": -1,
        })
    };
    json!([image(NAME), image("other:1"), image("<none>:<none>")])
}

fn json_answer(stream: &mut impl Write, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let kind = "Content-Type: application/json\r\nConnection: close";
    write!(stream, "HTTP/1.1 {status} X\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn export(stream: &mut impl Write, behaviour: &Behaviour) -> bool {
    let archive = &behaviour.archive;
    let half = &archive[..archive.len() / 2];
    let told = br#"{"errorDetail":{"message":"layer is gone"},"error":"layer is gone"}"#;
    let chunked = "Transfer-Encoding: chunked";
    let length = |bytes: &[u8]| format!("Content-Length: {}", bytes.len());
    let (header, body, end) = match behaviour.export {
        Export::Whole => (chunked.to_string(), archive.as_slice(), &b""[..]),
        Export::CutChunks | Export::Stalls => (chunked.to_string(), half, &b""[..]),
        Export::FailsInside => (chunked.to_string(), half, &told[..]),
        Export::Empty => (chunked.to_string(), &b""[..], &b""[..]),
        Export::CutLength => (length(archive), half, &b""[..]),
        Export::HalfLength => (length(half), archive.as_slice(), &b""[..]),
        Export::CutBare => ("Connection: close".to_string(), half, &b""[..]),
        Export::Refuses => {
            let _ = json_answer(stream, 500, &json!({ "message": "no space left on device" }));
            return true;
        }
    };
    let sent = (|| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n{header}\r\n\r\n")?;
        if header != chunked {
            return stream.write_all(body);
        }
        for piece in body.chunks(30_000).chain([end]).filter(|piece| !piece.is_empty()) {
            write!(stream, "{:x}\r\n", piece.len())?;
            stream.write_all(piece)?;
            stream.write_all(b"\r\n")?;
        }
        if matches!(behaviour.export, Export::CutChunks | Export::Stalls) {
            return stream.write_all(b"8000\r\nthe beginning of a chunk");
        }
        stream.write_all(b"0\r\n\r\n")
    })();
    let _ = sent;
    if behaviour.export == Export::Stalls {
        thread::sleep(std::time::Duration::from_secs(60));
    }
    true
}
