use std::fmt;
use std::str::FromStr;

use ring::digest::{Context, SHA256, SHA512, digest};

use crate::error::{Error, ErrorKind};

/// A registered digest algorithm (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Algorithm {
    /// What nearly all images use, and all that is written here.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// How it is written before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Algorithm::Sha256 => 32,
            Algorithm::Sha512 => 64,
        }
    }
}

/// A digest, written `sha256:<64 lower-case hex digits>` or `sha512:<128>` (OCI image-spec, descriptor.md).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// A SHA-256 is followed by zeros.
    bytes: [u8; 64],
}

impl Digest {
    /// The SHA-256 digest whose raw bytes these are.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest::new(Algorithm::Sha256, &bytes)
    }

    fn new(algorithm: Algorithm, raw: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..raw.len()].copy_from_slice(raw);
        Digest { algorithm, bytes }
    }

    /// The SHA-256 of a document held in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Digest::new(Algorithm::Sha256, digest(&SHA256, bytes).as_ref())
    }

    /// Parses 64 hex digits without the `sha256:` prefix, as archives use them for file names.
    pub fn from_hex(hex: &str) -> Result<Self, Error> {
        Digest::parse_hex(Algorithm::Sha256, hex)
    }

    /// Parses hex digits without the algorithm's prefix.
    fn parse_hex(algorithm: Algorithm, hex: &str) -> Result<Self, Error> {
        let count = algorithm.bytes() * 2;
        let bad = || {
            let name = match algorithm {
                Algorithm::Sha256 => "SHA-256",
                Algorithm::Sha512 => "SHA-512",
            };
            Error::new(ErrorKind::InvalidImage, format!("{hex:?} is not a {name} in {count} hex digits"))
        };
        let digits = hex.as_bytes();
        if digits.len() != count {
            return Err(bad());
        }
        let mut bytes = [0; 64];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or_else(bad)?;
            let low = hex_digit(pair[1]).ok_or_else(bad)?;
            *byte = high << 4 | low;
        }
        Ok(Digest { algorithm, bytes })
    }

    /// How it was computed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hex digits without the algorithm.
    pub fn hex(&self) -> String {
        self.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.bytes()]
    }
}

/// Computes a digest of bytes as they come. Of ring, whose speed no option of the compiler halves: that of the crate sha2
/// depends on link-time optimisation, which is not ours to choose where this crate is a library.
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: Context,
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        let context = Context::new(match algorithm {
            Algorithm::Sha256 => &SHA256,
            Algorithm::Sha512 => &SHA512,
        });
        Hasher { algorithm, context }
    }

    /// Starts with no bytes what is to be compared with `expected`; SHA-256 where that is unknown.
    pub fn like(expected: Option<Digest>) -> Self {
        Hasher::new(expected.map(|digest| digest.algorithm).unwrap_or_default())
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Digest {
        Digest::new(self.algorithm, self.context.finish().as_ref())
    }
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once(':') {
            Some(("sha256", hex)) => Digest::parse_hex(Algorithm::Sha256, hex),
            Some(("sha512", hex)) => Digest::parse_hex(Algorithm::Sha512, hex),
            Some((algorithm, _)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("digest {text:?} uses {algorithm:?}, only sha256 and sha512 are supported"),
            )),
            None => Err(Error::new(ErrorKind::InvalidImage, format!("{text:?} is not a digest (sha256:<hex>)"))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap(), Digest::of(b""));
        assert_eq!("blake3:00".parse::<Digest>().unwrap_err().kind(), ErrorKind::Unsupported);
        for bad in ["", "sha256:", "sha512:00", "sha256:E3B0", "e3b0", &empty.to_uppercase().replace("SHA", "sha")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sha512_is_a_digest_too() {
        // `printf x | sha512sum`
        let x = "sha512:a4abd4448c49562d828115d13a1fccea927f52b4d5459297f8b43e42da89238bc13626e43dcb38ddb082488927ec904f\
                 b42057443983e88585179d50551afe62";
        let digest: Digest = x.parse().unwrap();
        let mut hasher = Hasher::like(Some(digest));
        hasher.update(b"x");
        assert_eq!((hasher.finish(), digest.to_string().as_str()), (digest, x));
        assert_ne!(digest, Digest::of(b"x"));
    }
}
