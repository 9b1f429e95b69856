use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{CHUNK_BYTES, Codec, Expected, HashingReader, Monitor, VerifiedReader, decoder, no_thread, read_error};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Algorithm, Digest, Hasher};

/// What one stage hands to the next at once, in bytes. Every piece may have to wake a core that has gone idle: in pieces of 256 KiB
/// the conversion of a gzip layout takes 5 to 8 % longer.
const PIECE_BYTES: usize = 1 << 20;
/// How many of them may wait between two stages: enough that neither starves the other, 3 MiB a stream.
const PIECES_AHEAD: usize = 3;

/// What a decoded stream turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Digest of the decoded bytes.
    pub digest: Digest,
    /// Length of the decoded bytes.
    pub bytes: u64,
}

/// Decodes `stored`, which must be what is `expected`, hands the decoded bytes to `consume`, and hashes both forms of it
/// in the same pass (the stored form only where a digest is expected of it, the decoded one with `algorithm`). What `consume` leaves unread is read and hashed all the same.
///
/// With `staged`, decoding, hashing and consuming run side by side on three threads: a layer takes the time of its
/// slowest stage, not of their sum.
///
/// # Errors
/// A digest that does not match comes before any error of `consume`: it explains that error.
pub(crate) fn decode<'a, T: Send>(
    stored: Box<dyn Read + Send + 'a>,
    expected: Expected,
    algorithm: Algorithm,
    monitor: &'a Monitor,
    staged: bool,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<T> + Send,
) -> Result<(T, Decoded)> {
    let watched: Box<dyn Read + Send + 'a> = Box::new(Watched { inner: stored, monitor });
    let verified = VerifiedReader::new(watched, expected);
    if staged {
        decode_staged(verified, algorithm, monitor, consume)
    } else {
        decode_inline(verified, algorithm, consume)
    }
}

/// Wraps the start of the decoding: sniff, set up, decode. The verified reader comes back out of `finish`.
struct Stored<'a> {
    shared: Arc<Mutex<VerifiedReader<Box<dyn Read + Send + 'a>>>>,
    decoded: Box<dyn Read + Send + 'a>,
}

/// Lets a decoder own a reader that is asked for its digest when the decoder is gone.
struct SharedReader<R>(Arc<Mutex<R>>);

impl<R: Read> Read for SharedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::Error::other("a thread panicked while reading"))?.read(buffer)
    }
}

impl<'a> Stored<'a> {
    fn open(verified: VerifiedReader<Box<dyn Read + Send + 'a>>) -> io::Result<Self> {
        let shared = Arc::new(Mutex::new(verified));
        let mut reader = SharedReader(Arc::clone(&shared));
        let mut start = Vec::with_capacity(Codec::SNIFF_BYTES);
        Read::by_ref(&mut reader).take(Codec::SNIFF_BYTES as u64).read_to_end(&mut start)?;
        let codec = Codec::sniff(&start);
        let whole = io::Cursor::new(start).chain(reader);
        // An empty stream is an empty tar to every runtime, whatever it was meant to be compressed with.
        let decoded = decoder(codec, BufReader::with_capacity(CHUNK_BYTES, whole))?;
        Ok(Stored { shared, decoded })
    }

    /// Reads what the decoder left and compares.
    fn finish(self) -> Result<()> {
        drop(self.decoded);
        let verified = Arc::into_inner(self.shared).and_then(|shared| shared.into_inner().ok());
        let verified = verified.ok_or_else(|| Error::new(ErrorKind::Bug, "a decoder kept its reader"))?;
        verified.finish()
    }
}

fn decode_inline<'a, T>(
    verified: VerifiedReader<Box<dyn Read + Send + 'a>>,
    algorithm: Algorithm,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<(T, Decoded)> {
    let mut stored = Stored::open(verified).map_err(read_error)?;
    let hashing = HashingReader::with(algorithm, &mut stored.decoded);
    let mut hashed = BufReader::with_capacity(CHUNK_BYTES, hashing);
    let consumed = consume(&mut hashed);
    let drained = io::copy(&mut hashed, &mut io::sink()).map_err(read_error);
    let (digest, bytes) = hashed.into_inner().finish();
    conclude(consumed, drained.map(|_| (digest, bytes)), || stored.finish())
}

/// Looks for a stop once per read, and counts stored bytes: their total is known beforehand.
pub(crate) struct Watched<'a, R> {
    pub(crate) inner: R,
    pub(crate) monitor: &'a Monitor,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.monitor.check().map_err(Error::into_io)?;
        let count = self.inner.read(buffer)?;
        self.monitor.advance(count as u64);
        Ok(count)
    }
}

/// Which error to tell when something failed. Where the data seemed damaged, a stored digest that differs explains it
/// better than whatever the decoder or the consumer stumbled over.
fn conclude<T>(
    consumed: Result<T>,
    decoded: Result<(Digest, u64)>,
    finish_stored: impl FnOnce() -> Result<()>,
) -> Result<(T, Decoded)> {
    let trouble = match (decoded, consumed) {
        (Ok((digest, bytes)), Ok(value)) => {
            finish_stored()?;
            return Ok((value, Decoded { digest, bytes }));
        }
        (Err(error), _) | (_, Err(error)) => error,
    };
    if trouble.kind() != ErrorKind::InvalidImage {
        return Err(trouble);
    }
    match finish_stored() {
        Err(mismatch) if mismatch.kind() == ErrorKind::Mismatch => Err(mismatch.because(trouble)),
        _ => Err(trouble),
    }
}

type Chunk = Arc<Vec<u8>>;

fn decode_staged<'a, T: Send>(
    verified: VerifiedReader<Box<dyn Read + Send + 'a>>,
    algorithm: Algorithm,
    monitor: &Monitor,
    consume: impl FnOnce(&mut dyn BufRead) -> Result<T> + Send,
) -> Result<(T, Decoded)> {
    let (to_hash, hash_from) = sync_channel::<Chunk>(PIECES_AHEAD);
    let (to_consumer, consume_from) = sync_channel::<io::Result<Chunk>>(PIECES_AHEAD);
    let (spare, spares) = sync_channel::<Chunk>(2 * PIECES_AHEAD + 2);
    let spare_of_consumer = spare.clone();
    thread::scope(|scope| {
        let start = || thread::Builder::new();
        let hasher =
            start().spawn_scoped(scope, move || hash_chunks(&hash_from, &spare, algorithm)).map_err(no_thread)?;
        let consumer = start().spawn_scoped(scope, move || {
            let mut reader =
                ChunkReader { chunks: consume_from, spare: spare_of_consumer, chunk: Arc::default(), position: 0 };
            consume(&mut reader)
        });
        let consumer = consumer.map_err(no_thread)?;
        let opened = Stored::open(verified).map_err(read_error).map(|mut stored| {
            let decoded = pump(&mut stored.decoded, monitor, &to_hash, &to_consumer, &spares);
            if let Err(error) = &decoded {
                let _ = to_consumer.send(Err(io::Error::other(error.to_string())));
            }
            (decoded, stored)
        });
        drop((to_hash, to_consumer));
        let consumed = consumer.join().unwrap_or_else(|_| Err(panicked()));
        let hashed = hasher.join().map_err(|_| panicked());
        let (decoded, stored) = opened?;
        conclude(consumed, decoded.and(hashed), || stored.finish())
    })
}

fn panicked() -> Error {
    Error::new(ErrorKind::Bug, "a thread panicked")
}

/// Reads decoded chunks and gives each to both stages. Buffers come back when both are done with them: fresh ones would
/// cost a page fault for every 4 KiB.
fn pump(
    decoded: &mut dyn Read,
    monitor: &Monitor,
    to_hash: &SyncSender<Chunk>,
    to_consumer: &SyncSender<io::Result<Chunk>>,
    spares: &Receiver<Chunk>,
) -> Result<()> {
    let mut consumer_listens = true;
    loop {
        monitor.check()?;
        let mut buffer = reclaim(spares);
        fill(decoded, &mut buffer).map_err(read_error)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let chunk = Arc::new(buffer);
        // A consumer that stopped early has read all it wants; the digests still cover everything.
        consumer_listens = consumer_listens && to_consumer.send(Ok(Arc::clone(&chunk))).is_ok();
        if to_hash.send(chunk).is_err() {
            return Err(panicked());
        }
    }
}

fn reclaim(spares: &Receiver<Chunk>) -> Vec<u8> {
    let spare = spares.try_iter().find_map(Arc::into_inner);
    // Zeroed by the system, page by page as they are first written.
    spare.unwrap_or_else(|| vec![0; PIECE_BYTES])
}

/// Fills `buffer`, whatever it holds: bytes that are overwritten anyway are not zeroed before.
fn fill(reader: &mut dyn Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.resize(PIECE_BYTES, 0);
    let mut filled = 0;
    while filled < PIECE_BYTES {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

fn hash_chunks(chunks: &Receiver<Chunk>, spare: &SyncSender<Chunk>, algorithm: Algorithm) -> (Digest, u64) {
    let mut hasher = Hasher::new(algorithm);
    let mut bytes = 0;
    for chunk in chunks {
        hasher.update(&chunk);
        bytes += chunk.len() as u64;
        let _ = spare.try_send(chunk);
    }
    (hasher.finish(), bytes)
}

/// The consumer's end: chunks as one stream.
struct ChunkReader {
    chunks: Receiver<io::Result<Chunk>>,
    spare: SyncSender<Chunk>,
    chunk: Chunk,
    position: usize,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.chunk.len()
            && let Ok(next) = self.chunks.recv()
        {
            let used = std::mem::replace(&mut self.chunk, next?);
            let _ = self.spare.try_send(used);
            self.position = 0;
        }
        Ok(&self.chunk[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let held = self.fill_buf()?;
        let count = buffer.len().min(held.len());
        buffer[..count].copy_from_slice(&held[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn run(stored: &[u8], expected: Digest, staged: bool, take: u64) -> Result<(Vec<u8>, Decoded)> {
        let expected = Expected { digest: Some(expected), size: Some(stored.len() as u64) };
        decode(Box::new(stored), expected, Algorithm::Sha256, &Monitor::default(), staged, |reader| {
            let mut bytes = Vec::new();
            reader.take(take).read_to_end(&mut bytes).map_err(read_error)?;
            Ok(bytes)
        })
    }

    #[test]
    fn both_forms_are_hashed_however_much_is_read() {
        let plain: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for stored in [plain.clone(), gzip(&plain), [gzip(&plain[..5]), gzip(&plain[5..])].concat()] {
            for staged in [false, true] {
                for take in [0, 10, u64::MAX] {
                    let (bytes, found) = run(&stored, Digest::of(&stored), staged, take).unwrap();
                    assert!(plain.starts_with(&bytes) && bytes.len() as u64 == take.min(plain.len() as u64));
                    assert_eq!((found.digest, found.bytes), (Digest::of(&plain), plain.len() as u64));
                }
            }
        }
    }

    #[test]
    fn damage_is_told_as_a_digest_that_differs() {
        let stored = gzip(&[7; 1_000_000]);
        for at in [0, 5, 200, stored.len() - 6] {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x55;
            for staged in [false, true] {
                let error = run(&damaged, Digest::of(&stored), staged, u64::MAX).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Mismatch, "{at}: {error}");
            }
        }
    }

    #[test]
    fn a_stop_is_obeyed() {
        let monitor = Monitor::default();
        monitor.stop(ErrorKind::Interrupted);
        for staged in [false, true] {
            let endless = Box::new(io::repeat(0));
            let error = decode(endless, Expected::default(), Algorithm::Sha256, &monitor, staged, |reader| {
                io::copy(reader, &mut io::sink()).map_err(read_error)
            });
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Interrupted);
        }
    }
}
