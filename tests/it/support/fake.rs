//! A registry that does what a test wants: an HTTP/1.1 server on loopback, one connection for each request, that writes
//! down what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::archives::{Described, Members, Squeeze, add_oci_image, descriptor, sha256};
pub use super::archives::{INDEX as OCI_INDEX, MANIFEST as OCI_MANIFEST};
use super::pack;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Empty where it is not text.
    pub body: String,
    pub bytes: Vec<u8>,
    /// Whether the connection breaks in the body, of which this is what came.
    pub is_cut: bool,
    /// How often this path was asked for before.
    pub earlier: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn is_for(&self, part: &str) -> bool {
        self.path.contains(part)
    }
}

#[derive(Debug, Clone)]
pub enum Body {
    Whole(Vec<u8>),
    /// So many bytes of it, then the connection is closed.
    Cut(Vec<u8>, usize),
    /// So many bytes of it, then nothing more.
    Stalled(Vec<u8>, usize),
    /// It and then zeros, without a length.
    Endless(Vec<u8>),
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Answer {
    pub fn new(status: u16, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        Answer { status, headers: vec![("Content-Type".into(), kind.into())], body: Body::Whole(body.into()) }
    }

    pub fn json(status: u16, body: Value) -> Self {
        Answer::new(status, "application/json", body.to_string())
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn redirect(to: &str) -> Self {
        Answer::new(307, "text/html", "<a>").with("Location", to)
    }

    /// With the body changed.
    pub fn spoilt(mut self, spoil: impl FnOnce(Vec<u8>) -> Body) -> Self {
        let Body::Whole(bytes) = self.body else { panic!("spoilt twice") };
        self.body = spoil(bytes);
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

pub struct Fake {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    log: Mutex<Vec<Request>>,
    closed: AtomicBool,
    /// After how many bytes of a body connections break.
    cut: usize,
}

impl Fake {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Fake::start_cutting(usize::MAX, handler)
    }

    /// One that breaks every connection after so many bytes of what it is sent.
    pub fn start_cutting(cut: usize, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { handler: Box::new(handler), log: Mutex::default(), closed: AtomicBool::new(false), cut });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if serving.closed.load(Ordering::Relaxed) {
                    return;
                }
                let serving = Arc::clone(&serving);
                // Clients go away in the middle of answers: nobody to tell.
                std::thread::spawn(move || connection.and_then(|it| serving.serve(it)));
            }
        });
        Fake { address, shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn log(&self) -> Vec<Request> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How often a path with this in it was asked for.
    pub fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|request| request.is_for(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        let mut first = [0];
        if connection.peek(&mut first)? == 1 && first[0] == 0x16 {
            // A TLS handshake, which is not spoken here.
            return Ok(());
        }
        let mut reader = BufReader::new(connection.try_clone()?);
        while let Some(request) = self.read(&mut reader)? {
            if request.method == "CONNECT" {
                self.log.lock().unwrap().push(request);
                (&connection).write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
                continue;
            }
            let answer = (self.handler)(&request);
            let is_cut = request.is_cut;
            self.log.lock().unwrap().push(request);
            if is_cut {
                return Ok(());
            }
            return self.answer(&connection, answer);
        }
        Ok(())
    }

    fn read(&self, reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(None) };
        let (method, path) = (method.to_string(), path.to_string());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
        let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let is_cut = length > self.cut;
        let mut bytes = vec![0; length.min(self.cut)];
        reader.read_exact(&mut bytes)?;
        let body = String::from_utf8(bytes.clone()).unwrap_or_default();
        let earlier = self.log.lock().unwrap().iter().filter(|request| request.path == path).count();
        Ok(Some(Request { method, path, headers, body, bytes, is_cut, earlier }))
    }

    fn answer(&self, mut connection: &TcpStream, answer: Answer) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let stated = answer.headers.iter().any(|(name, _)| name == "Content-Length");
        let (bytes, sent, is_endless) = match &answer.body {
            Body::Whole(bytes) => (bytes, bytes.len(), false),
            Body::Cut(bytes, sent) | Body::Stalled(bytes, sent) => (bytes, *sent, false),
            Body::Endless(bytes) => (bytes, bytes.len(), true),
        };
        if !is_endless && !stated {
            head.push_str(&format!("Content-Length: {}\r\n", bytes.len()));
        }
        connection.write_all(format!("{head}\r\n").as_bytes())?;
        connection.write_all(&bytes[..sent])?;
        while is_endless && !self.closed.load(Ordering::Relaxed) {
            connection.write_all(&[0; 4096])?;
        }
        if let Body::Stalled(..) = answer.body {
            connection.set_read_timeout(Some(Duration::from_secs(10)))?;
            // Until the client gives up.
            let _ = connection.read(&mut [0]);
        }
        Ok(())
    }
}

/// What a registry holds of one repository.
#[derive(Clone, Default)]
pub struct Repository {
    /// By tag and by digest: media type and document.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    /// By digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    /// Adds a document; its descriptor.
    pub fn add_manifest(&mut self, kind: &str, document: &Value) -> Value {
        let bytes = serde_json::to_vec(document).unwrap();
        let digest = format!("sha256:{}", sha256(&bytes));
        let descriptor = json!({ "mediaType": kind, "digest": digest, "size": bytes.len() });
        self.manifests.insert(digest, (kind.to_string(), bytes));
        descriptor
    }

    /// Adds an image of these layer tars, stored with gzip; the descriptor of its manifest.
    pub fn add_image(&mut self, config: &Value, layers: &[Vec<u8>]) -> Value {
        let mut members = Members::default();
        let image = Described::new(layers.to_vec()).with_config(config);
        let manifest = add_oci_image(&mut members, &image, Squeeze::Gzip);
        let descriptor = descriptor(OCI_MANIFEST, &manifest);
        let digest = descriptor["digest"].as_str().unwrap().to_string();
        self.blobs.extend(members.into_blobs().filter(|(name, _)| *name != digest));
        self.manifests.insert(digest, (OCI_MANIFEST.to_string(), manifest));
        descriptor
    }

    /// Gives a tag to what the descriptor names.
    pub fn tag(&mut self, tag: &str, descriptor: &Value) {
        let document = self.manifests[descriptor["digest"].as_str().unwrap()].clone();
        self.manifests.insert(tag.to_string(), document);
    }

    /// One image under the tag `1`.
    pub fn of(layers: &[Vec<u8>]) -> Self {
        let mut repository = Repository::default();
        let image = repository.add_image(&pack::config(layers), layers);
        repository.tag("1", &image);
        repository
    }

    /// What a registry without fault answers.
    pub fn answer(&self, request: &Request) -> Answer {
        let missing =
            |code: &str| Answer::json(404, json!({ "errors": [{ "code": code, "message": "it is not here" }] }));
        let path = request.path.split('?').next().unwrap();
        if let Some((_, name)) = path.split_once("/manifests/") {
            let Some((kind, bytes)) = self.manifests.get(name) else { return missing("MANIFEST_UNKNOWN") };
            let digest = format!("sha256:{}", sha256(bytes));
            return Answer::new(200, kind, bytes.clone()).with("Docker-Content-Digest", &digest);
        }
        let Some(bytes) = path.split_once("/blobs/").and_then(|(_, digest)| self.blobs.get(digest)) else {
            return missing("BLOB_UNKNOWN");
        };
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        let octets = "application/octet-stream";
        match range.map(|start| start.parse::<usize>().unwrap()) {
            None => Answer::new(200, octets, bytes.clone()),
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::new(206, octets, &bytes[start..]).with("Content-Range", &range)
            }
        }
    }

    /// The digests of all layers and configs.
    pub fn blob_digests(&self) -> Vec<String> {
        self.blobs.keys().cloned().collect()
    }
}
