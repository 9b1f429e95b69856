//! Docker's own registry, on loopback, as Debian packages it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::run::skip;

pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    child: Child,
}

impl Registry {
    /// Starts one that keeps its data below `directory`, with these lines added to its configuration.
    pub fn start(directory: &Path, http: &str, others: &str) -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            skip("there is no docker-registry: apt-get install docker-registry");
            return None;
        }
        let data = directory.join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
             http:\n  addr: 127.0.0.1:0\n  secret: none\n{http}{others}",
            data.display()
        );
        let config = directory.join("registry.yml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new("/usr/bin/docker-registry");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let host = loop {
            let Some(line) = lines.next() else { panic!("docker-registry ended: {said}") };
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("listening on ") {
                break address.split(['"', ',']).next().unwrap().to_string();
            }
            said.push_str(&line);
        };
        // It stops when nobody reads what it says.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Registry { host, child })
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
