use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Digest;

/// What a stream must turn out to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Its SHA-256.
    pub digest: Option<Digest>,
    /// Its length in bytes.
    pub size: Option<u64>,
}

/// Hashes what passes through.
pub struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Starts hashing `inner`.
    pub fn new(inner: R) -> Self {
        HashingReader { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// The digest and length of what was read.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_bytes(self.hasher.finalize().into()), self.bytes)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// A stream that must match a digest and a size. Nothing past the stated size is taken from the inner stream but one
/// byte, which proves the stream too long.
pub struct VerifiedReader<R> {
    inner: HashingReader<R>,
    expected: Expected,
}

impl<R: Read> VerifiedReader<R> {
    /// Reads `inner`, which must be what is `expected`.
    pub fn new(inner: R, expected: Expected) -> Self {
        VerifiedReader { inner: HashingReader::new(inner), expected }
    }

    /// Reads what the parser above left unread, then compares.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when digest or size differ; whatever reading fails with.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| Error::io(ErrorKind::InvalidImage, error))?;
        let (digest, bytes) = self.inner.finish();
        self.expected.check(digest, bytes)?;
        Ok((digest, bytes))
    }
}

impl Expected {
    /// Compares what was found with what was expected.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`], naming both.
    pub fn check(&self, digest: Digest, bytes: u64) -> Result<()> {
        if let Some(size) = self.size.filter(|&size| size != bytes) {
            return Err(Error::new(ErrorKind::Mismatch, format!("size mismatch: expected {size} bytes, got {bytes}"))
                .hint(REFETCH));
        }
        match self.expected_other_than(digest) {
            Some(expected) => {
                Err(Error::new(ErrorKind::Mismatch, format!("digest mismatch: expected {expected}, got {digest}"))
                    .hint(REFETCH))
            }
            None => Ok(()),
        }
    }

    fn expected_other_than(&self, digest: Digest) -> Option<Digest> {
        self.digest.filter(|&expected| expected != digest)
    }
}

const REFETCH: &str = "the image is damaged or was changed: fetch or save it again";

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(size) = self.expected.size else { return self.inner.read(buffer) };
        let left = size.saturating_sub(self.inner.bytes);
        if left == 0 && self.inner.bytes > size {
            return Ok(0);
        }
        // One byte past the end may be asked for, so that a longer stream is noticed.
        let want = usize::try_from(left.max(1)).map_or(buffer.len(), |left| left.min(buffer.len()));
        self.inner.read(&mut buffer[..want])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest: Digest, size: u64) -> Result<(Digest, u64)> {
        VerifiedReader::new(bytes, Expected { digest: Some(digest), size: Some(size) }).finish()
    }

    #[test]
    fn finds_every_difference() {
        let digest = Digest::of(b"hello");
        assert!(read(b"hello", digest, 5).is_ok());
        for (bytes, size) in
            [(&b"hellp"[..], 5), (b"hell", 5), (b"hello!", 5), (b"hello", 6), (b"hello and far more than that", 5)]
        {
            assert_eq!(read(bytes, digest, size).unwrap_err().kind(), ErrorKind::Mismatch);
        }
    }
}
