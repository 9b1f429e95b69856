use std::fmt;
use std::str::FromStr;

use super::Digest;
use crate::error::{Error, ErrorKind};

/// An image reference as Docker reads it: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]` (distribution/reference grammar).
///
/// `debian` is `docker.io/library/debian:latest`; two spellings of one image compare equal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Registry host with its port: `docker.io`, `localhost:5000`.
    pub host: String,
    /// Repository below the host: `library/debian`.
    pub repository: String,
    /// Tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// Digest after `@`.
    pub digest: Option<Digest>,
}

const DEFAULT_HOST: &str = "docker.io";

impl Reference {
    /// The name as people write it: Docker Hub's host and `library/` left out.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").unwrap_or(short).to_string()
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Usage, format!("{text:?} is not an image reference: {why}"))
                .hint("write [HOST[:PORT]/]NAME[:TAG][@sha256:…], lower case, for example ghcr.io/org/name:1.0")
        };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| bad("the digest is malformed"))?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("the tag is malformed"));
        }
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path.to_string()),
            _ => (DEFAULT_HOST, name.to_string()),
        };
        let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
        let repository = if host == DEFAULT_HOST && !path.contains('/') { format!("library/{path}") } else { path };
        if !repository.split('/').all(is_path_component) {
            return Err(bad("the name is malformed"));
        }
        let tag = tag.map(str::to_string).or_else(|| digest.is_none().then(|| "latest".to_string()));
        Ok(Reference { host: host.to_string(), repository, tag, digest })
    }
}

/// What Docker takes for a host rather than the first part of a name on Docker Hub.
fn is_host(part: &str) -> bool {
    let looks =
        part.contains('.') || part.contains(':') || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase());
    looks && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case letters and digits, separated by one dot, one or two underscores, or dashes.
fn is_path_component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_well = part.bytes().next().is_some_and(alphanumeric) && part.bytes().last().is_some_and(alphanumeric);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends_well
        && part.bytes().all(|b| alphanumeric(b) || b"._-".contains(&b))
        && separators.into_iter().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_docker_does() {
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/debian:12", "docker.io/library/debian:12", "debian:12"),
            ("org/name", "docker.io/org/name:latest", "org/name:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("ghcr.io/org/n_a__m-e.x:T-1.0", "ghcr.io/org/n_a__m-e.x:T-1.0", "ghcr.io/org/n_a__m-e.x:T-1.0"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar(), familiar);
        }
        for bad in ["", "UPPER", "a//b", "a:", "a:-x", "a b", "a@sha256:12", "-a", "a..b", "host.io/"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        let digest = Digest::of(b"");
        let pinned: Reference = format!("a/b@{digest}").parse().unwrap();
        assert_eq!((pinned.tag, pinned.digest), (None, Some(digest)));
    }
}
