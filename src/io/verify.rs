use std::io::{self, Read, Write};

use super::{CHUNK_BYTES, Region};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Algorithm, Digest, Hasher};

/// What a stream must turn out to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// Its digest.
    pub digest: Option<Digest>,
    /// Its length in bytes.
    pub size: Option<u64>,
}

/// Hashes what passes through.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Starts computing the SHA-256 of `inner`.
    pub(crate) fn new(inner: R) -> Self {
        Self::with(Algorithm::Sha256, inner)
    }

    /// Starts hashing `inner`.
    pub(crate) fn with(algorithm: Algorithm, inner: R) -> Self {
        HashingReader { inner, hasher: Hasher::new(algorithm), bytes: 0 }
    }

    /// The digest and length of what was read.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
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

/// The SHA-256 and length of all of `region`. `each` is told before every chunk how many bytes the one before had (0 at
/// first), to count them and to stop; `fail` says what an error of reading means.
///
/// # Errors
/// Those of `each`, and those that `fail` makes.
pub(crate) fn hash_region(
    region: &Region,
    fail: impl Fn(io::Error) -> Error,
    each: impl FnMut(u64) -> Result<()>,
) -> Result<(Digest, u64)> {
    hash_region_with(Algorithm::Sha256, region, fail, each)
}

/// As [`hash_region`], with another algorithm.
///
/// # Errors
/// As [`hash_region`].
pub(crate) fn hash_region_with(
    algorithm: Algorithm,
    region: &Region,
    fail: impl Fn(io::Error) -> Error,
    mut each: impl FnMut(u64) -> Result<()>,
) -> Result<(Digest, u64)> {
    let mut reader = HashingReader::with(algorithm, region.reader());
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut count = 0;
    loop {
        each(count as u64)?;
        count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(reader.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(fail(error)),
        };
    }
}

/// Computes the SHA-256 of what is written through it.
pub(crate) struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Starts hashing what goes to `inner`.
    pub(crate) fn new(inner: W) -> Self {
        HashingWriter { inner, hasher: Hasher::new(Algorithm::Sha256), bytes: 0 }
    }

    /// The digest and length of what was written.
    pub(crate) fn finish(self) -> (Digest, u64) {
        self.into_parts().1
    }

    /// The inner writer, and the digest and length of what was written.
    pub(crate) fn into_parts(self) -> (W, (Digest, u64)) {
        (self.inner, (self.hasher.finish(), self.bytes))
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A stream that must match a digest and a size. Nothing past the stated size is taken from the inner stream but one
/// byte, which proves the stream too long. Where no digest is expected, none is computed.
pub(crate) struct VerifiedReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    bytes: u64,
    expected: Expected,
}

impl<R: Read> VerifiedReader<R> {
    /// Reads `inner`, which must be what is `expected`.
    pub(crate) fn new(inner: R, expected: Expected) -> Self {
        let hasher = expected.digest.map(|digest| Hasher::new(digest.algorithm()));
        VerifiedReader { inner, hasher, bytes: 0, expected }
    }

    /// Reads what the parser above left unread, then compares.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when digest or size differ; whatever reading fails with.
    pub(crate) fn finish(mut self) -> Result<()> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| Error::io(ErrorKind::InvalidImage, error))?;
        self.expected.check_size(self.bytes)?;
        match self.hasher {
            Some(hasher) => self.expected.check_digest(hasher.finish()),
            None => Ok(()),
        }
    }
}

impl Expected {
    /// Bytes with this digest, however many.
    pub fn digest(digest: Digest) -> Self {
        Expected { digest: Some(digest), size: None }
    }

    /// Compares bytes in memory with what was expected.
    ///
    /// # Errors
    /// As [`Expected::check`].
    pub fn check_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut hasher = Hasher::like(self.digest);
        hasher.update(bytes);
        self.check(hasher.finish(), bytes.len() as u64)
    }

    /// Compares what was found with what was expected: a digest of the same algorithm.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`], naming both.
    pub fn check(&self, digest: Digest, bytes: u64) -> Result<()> {
        self.check_size(bytes)?;
        self.check_digest(digest)
    }

    fn check_size(&self, bytes: u64) -> Result<()> {
        match self.size.filter(|&size| size != bytes) {
            None => Ok(()),
            Some(size) => Err(mismatch(format!("size mismatch: expected {size} bytes, got {bytes}"))),
        }
    }

    fn check_digest(&self, digest: Digest) -> Result<()> {
        match self.digest.filter(|&expected| expected != digest) {
            None => Ok(()),
            Some(expected) => Err(mismatch(format!("digest mismatch: expected {expected}, got {digest}"))),
        }
    }
}

fn mismatch(message: String) -> Error {
    Error::new(ErrorKind::Mismatch, message).hint("the image is damaged or was changed: fetch or save it again")
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.expected.size.map(|size| size.saturating_sub(self.bytes));
        if left == Some(0) && self.expected.size < Some(self.bytes) {
            return Ok(0);
        }
        // One byte past the end may be asked for, so that a longer stream is noticed.
        let want = left.and_then(|left| usize::try_from(left.max(1)).ok()).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..want])?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..count]);
        }
        self.bytes += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest: Digest, size: u64) -> Result<()> {
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
