use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::deflate;
use super::{Codec, Compression};
use crate::error::{Error, ErrorKind};

/// Input of one gzip block, in bytes. The blocks, and so the output, do not depend on how many threads there are.
const GZIP_CHUNK_BYTES: usize = 4 << 20;
/// Input of one zstd frame, in bytes: several times the window of the default level, so that little is lost at its start.
const ZSTD_CHUNK_BYTES: usize = 8 << 20;

/// How a gzip stream is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    /// One member, for some readers stop after the first.
    One,
    /// One after the other: joining them into one costs nearly as much as the lowest level itself. For readers that are
    /// known to go on after the first, as all readers of image layers do.
    Many,
}

/// What a chunk becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coder {
    /// What it was.
    Stored,
    /// A piece of the one gzip member.
    Gzip(u32),
    /// gzip members.
    GzipMembers(u32),
    /// A zstd frame with a checksum.
    Zstd(u32),
}

impl Coder {
    fn new(compression: Compression, members: Members) -> Self {
        match (compression.kind(), compression.level(), members) {
            (Codec::Gzip, level, Members::One) => Coder::Gzip(level.unwrap_or(6)),
            (Codec::Gzip, level, Members::Many) => Coder::GzipMembers(level.unwrap_or(6)),
            (Codec::Zstd, level, _) => Coder::Zstd(level.unwrap_or(3)),
            _ => Coder::Stored,
        }
    }

    fn chunk_bytes(self) -> usize {
        match self {
            Coder::Stored | Coder::Gzip(_) | Coder::GzipMembers(_) => GZIP_CHUNK_BYTES,
            Coder::Zstd(_) => ZSTD_CHUNK_BYTES,
        }
    }
}

/// Compresses a stream on several threads: chunks are compressed independently and written in order, so the bytes are the
/// same for any number of threads.
pub(crate) struct Compressor<W> {
    coder: Coder,
    chunk: Vec<u8>,
    /// Whether no chunk has been sent.
    first: bool,
    jobs: Option<SyncSender<Job>>,
    order: Option<SyncSender<Receiver<Compressed>>>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<io::Result<W>>>,
}

struct Job {
    chunk: Vec<u8>,
    first: bool,
    last: bool,
    reply: SyncSender<Compressed>,
}

type Compressed = io::Result<Block>;

struct Block {
    bytes: Vec<u8>,
    /// CRC-32 and length of what was compressed, for gzip's trailer.
    checksum: crc32fast::Hasher,
    input_bytes: u64,
}

impl<W: Write + Send + 'static> Compressor<W> {
    /// Begins a compressed stream into `inner` on `threads` threads. Levels up to 9 are for gzip of one member.
    pub(crate) fn new(inner: W, compression: Compression, members: Members, threads: NonZeroUsize) -> Self {
        let coder = Coder::new(compression, members);
        let ahead = 2 * threads.get();
        let (jobs, queue) = sync_channel::<Job>(ahead);
        let (order, ordered) = sync_channel(ahead);
        let queue = Arc::new(Mutex::new(queue));
        let start_worker = |_| {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || work(coder, &queue))
        };
        let workers = (0..threads.get()).map(start_worker).collect();
        let writer = std::thread::spawn(move || write_in_order(coder, inner, &ordered));
        let chunk = Vec::with_capacity(coder.chunk_bytes());
        Compressor { coder, chunk, first: true, jobs: Some(jobs), order: Some(order), workers, writer: Some(writer) }
    }

    /// Writes what is left and gives the inner writer back.
    ///
    /// # Errors
    /// What writing failed with.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        // A writer that stopped says why when it is joined.
        let _ = self.send(true);
        self.close()
    }

    fn send(&mut self, last: bool) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(self.coder.chunk_bytes()));
        let first = std::mem::replace(&mut self.first, false);
        let (reply, replied) = sync_channel(1);
        let job = Job { chunk, first, last, reply };
        let sent = self.order.as_ref().is_some_and(|order| order.send(replied).is_ok())
            && self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn close(&mut self) -> io::Result<W> {
        (self.jobs, self.order) = (None, None);
        let panicked = || io::Error::other(Error::new(ErrorKind::Bug, "a compression thread panicked"));
        let all_well = self.workers.drain(..).all(|worker| worker.join().is_ok());
        let written = self.writer.take().and_then(|writer| writer.join().ok()).ok_or_else(panicked)?;
        if all_well { written } else { Err(panicked()) }
    }
}

impl<W: Write + Send + 'static> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.coder.chunk_bytes() - self.chunk.len();
        let count = room.min(bytes.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == self.coder.chunk_bytes() && self.send(false).is_err() {
            // The writer has stopped: its error is the one to tell.
            return Err(self.close().err().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn work(coder: Coder, queue: &Mutex<Receiver<Job>>) {
    loop {
        let next = queue.lock().map(|queue| queue.recv());
        let Ok(Ok(job)) = next else { return };
        let compressed = match coder {
            Coder::Stored => Ok(job.chunk.clone()),
            Coder::Gzip(level) => run_of_deflate(level, &job),
            Coder::GzipMembers(level) => gzip_members(level, &job),
            Coder::Zstd(level) => zstd_frame(level, &job),
        };
        let mut checksum = crc32fast::Hasher::new();
        if let Coder::Gzip(_) = coder {
            checksum.update(&job.chunk);
        }
        let input_bytes = job.chunk.len() as u64;
        let _ = job.reply.send(compressed.map(|bytes| Block { bytes, checksum, input_bytes }));
    }
}

/// One run of deflate blocks that begins and ends on a byte, so that runs can be joined.
fn run_of_deflate(level: u32, job: &Job) -> io::Result<Vec<u8>> {
    let bug = || io::Error::other(Error::new(ErrorKind::Bug, "a compressed chunk cannot be joined to the next"));
    let mut joined = Vec::new();
    for (run, level) in deflate::runs(&job.chunk, level) {
        let ends = job.last && run.end == job.chunk.len();
        let mut stream = deflate::compress(&job.chunk[run], level).ok_or_else(bug)?;
        if !ends {
            deflate::open_end(&mut stream).ok_or_else(bug)?;
        }
        joined.append(&mut stream);
    }
    Ok(joined)
}

impl Job {
    /// An empty last chunk is an empty member or frame only where it is the only one; elsewhere it is nothing.
    fn is_nothing(&self) -> bool {
        self.chunk.is_empty() && !self.first
    }
}

fn gzip_members(level: u32, job: &Job) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    if job.is_nothing() {
        return Ok(out);
    }
    for (run, level) in deflate::runs(&job.chunk, level) {
        let level = libdeflater::CompressionLvl::new(level as i32).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut compressor = libdeflater::Compressor::new(level);
        let start = out.len();
        out.resize(start + compressor.gzip_compress_bound(run.len()), 0);
        let count = compressor.gzip_compress(&job.chunk[run], &mut out[start..]).map_err(io::Error::other)?;
        out.truncate(start + count);
    }
    Ok(out)
}

fn zstd_frame(level: u32, job: &Job) -> io::Result<Vec<u8>> {
    if job.is_nothing() {
        return Ok(Vec::new());
    }
    let mut compressor = zstd::bulk::Compressor::new(level as i32)?;
    compressor.include_checksum(true)?;
    compressor.compress(&job.chunk)
}

fn write_in_order<W: Write>(coder: Coder, mut inner: W, ordered: &Receiver<Receiver<Compressed>>) -> io::Result<W> {
    let is_gzip = matches!(coder, Coder::Gzip(_));
    if is_gzip {
        // RFC 1952: deflate, no flags, no time, no hint about the level, unknown system.
        inner.write_all(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])?;
    }
    let mut checksum = crc32fast::Hasher::new();
    let mut input_bytes = 0u64;
    for reply in ordered {
        let block = reply.recv().map_err(|_| io::ErrorKind::BrokenPipe)??;
        inner.write_all(&block.bytes)?;
        checksum.combine(&block.checksum);
        input_bytes += block.input_bytes;
    }
    if is_gzip {
        inner.write_all(&checksum.finalize().to_le_bytes())?;
        inner.write_all(&(input_bytes as u32).to_le_bytes())?;
    }
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::decoder;
    use std::io::Read as _;

    fn compressed((compression, members): (Compression, Members), threads: usize, bytes: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(Vec::new(), compression, members, NonZeroUsize::new(threads).unwrap());
        compressor.write_all(bytes).unwrap();
        compressor.finish().unwrap()
    }

    #[test]
    fn any_number_of_threads_writes_the_same_stream() {
        let text: Vec<u8> =
            (0..2_500_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 20).to_le_bytes()).collect();
        for codec in [
            (Compression::NONE, Members::One),
            (Compression::gzip(6), Members::One),
            (Compression::gzip(1), Members::One),
            (Compression::gzip(1), Members::Many),
            (Compression::zstd(3), Members::One),
        ] {
            for length in [0, 1, GZIP_CHUNK_BYTES, ZSTD_CHUNK_BYTES, ZSTD_CHUNK_BYTES + 1, text.len()] {
                let one = compressed(codec, 1, &text[..length]);
                assert!(one == compressed(codec, 5, &text[..length]));
                let mut back = Vec::new();
                decoder(Codec::sniff(&one), &one[..]).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == text[..length], "{codec:?} {length}");
            }
        }
    }

    /// Text, noise, text: chunks that begin, end and turn in either.
    fn half_noise() -> Vec<u8> {
        let mut state = 7_u64;
        let noise = std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        let text = |bytes| b"all work and no play ".iter().copied().cycle().take(bytes);
        text(1 << 20).chain(noise.take(5 << 20)).chain(text(4 << 20)).collect()
    }

    #[test]
    fn noise_between_text_comes_back() {
        let bytes = half_noise();
        for codec in [
            (Compression::gzip(6), Members::One),
            (Compression::gzip(1), Members::Many),
            (Compression::gzip(12), Members::Many),
        ] {
            let stream = compressed(codec, 2, &bytes);
            assert!(stream.len() < (5 << 20) + (100 << 10), "{codec:?}: {}", stream.len());
            let mut back = Vec::new();
            decoder(Codec::Gzip, &stream[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{codec:?}");
        }
    }

    #[test]
    fn gzip_is_a_single_member() {
        let bytes = half_noise();
        let stream = compressed((Compression::gzip(6), Members::One), 2, &bytes);
        let mut back = Vec::new();
        flate2::bufread::GzDecoder::new(&stream[..]).read_to_end(&mut back).unwrap();
        assert!(back == bytes);
    }

    #[test]
    fn a_failing_writer_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut compressor = Compressor::new(Full, Compression::gzip(1), Members::One, NonZeroUsize::MIN);
        let failed = (0..64).find_map(|_| compressor.write_all(&[0; GZIP_CHUNK_BYTES]).err());
        let error = failed.map_or_else(|| compressor.finish().err(), Some);
        assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
    }
}
