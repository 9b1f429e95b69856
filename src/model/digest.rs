use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind};

/// A SHA-256 digest, written `sha256:<64 lower-case hex digits>` (OCI image-spec, descriptor.md).
///
/// Other registered algorithms (sha512, blake3) are not in use by any producer known to us; parsing one is an
/// [`ErrorKind::Unsupported`] error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest whose raw bytes these are.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }

    /// Hashes a document held in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Parses 64 hex digits without the `sha256:` prefix, as archives use them for file names.
    pub fn from_hex(hex: &str) -> Result<Self, Error> {
        let bad = || Error::new(ErrorKind::InvalidImage, format!("{hex:?} is not a SHA-256 in 64 hex digits"));
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = hex_digit(pair[0]).ok_or_else(bad)?;
            let low = hex_digit(pair[1]).ok_or_else(bad)?;
            *byte = high << 4 | low;
        }
        Ok(Digest(bytes))
    }

    /// The 64 hex digits without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The raw 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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
            Some(("sha256", hex)) => Digest::from_hex(hex),
            Some((algorithm, _)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("digest {text:?} uses {algorithm:?}, only sha256 is supported"),
            )),
            None => Err(Error::new(ErrorKind::InvalidImage, format!("{text:?} is not a digest (sha256:<hex>)"))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
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
        assert_eq!("sha512:00".parse::<Digest>().unwrap_err().kind(), ErrorKind::Unsupported);
        for bad in ["", "sha256:", "sha256:E3B0", "e3b0", &empty.to_uppercase().replace("SHA", "sha")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
