//! The tree as one tar that is made as it is read.
//!
//! A thread goes through the tree and gathers parts of contents into batches; the parts of a batch are decoded side by
//! side, and one batch is decoded while the one before is being read. Memory: three batches of 8 MiB, whatever the size of
//! files and holes.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::members::for_each_member;
use super::{Part, Volume};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::io::no_thread;
use crate::model::Quoted;
use crate::tar::{end_of_archive, member_header, padding};
use crate::tree::Content;

/// Bytes of a batch, or one part more.
const BATCH_BYTES: u64 = 8 << 20;
/// Holes are zeros that nobody keeps; this many bytes of them are handed out at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Buffers that were read, for parts to come: fresh ones would cost a page fault for every 4 KiB.
type Spares = Arc<Mutex<Vec<Vec<u8>>>>;
/// How many buffers wait: those of a batch in blocks of the usual size.
const SPARES_MAX: usize = 64;

fn spares_of(spares: &Spares) -> MutexGuard<'_, Vec<Vec<u8>>> {
    spares.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads the tar. An error that is read is one of this crate's in an [`io::Error`] (see [`Error::into_io`]).
pub struct TarStream {
    batches: Receiver<Message>,
    /// What has come and was not read yet.
    held: VecDeque<Chunk>,
    /// Read of the first of them.
    position: usize,
    spares: Spares,
    ended: bool,
}

enum Message {
    Batch(Vec<Chunk>),
    Failed(Error),
    End,
}

/// A stretch of the tar.
enum Chunk {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// A stretch of the tar before it is read.
enum Piece {
    Bytes(Vec<u8>),
    Part(Part),
}

impl TarStream {
    pub(super) fn new(volume: Arc<Volume>, threads: NonZeroUsize) -> Self {
        let (sender, batches) = sync_channel(1);
        let spares = Spares::default();
        let taken = Arc::clone(&spares);
        // The thread ends with the stream: its next message finds nobody.
        thread::spawn(move || {
            let last = match produce(&volume, threads, (&sender, &taken)) {
                Ok(()) => Message::End,
                Err(error) => Message::Failed(error),
            };
            let _ = sender.send(last);
        });
        TarStream { batches, held: VecDeque::new(), position: 0, spares, ended: false }
    }

    fn receive(&mut self) -> io::Result<()> {
        match self.batches.recv() {
            Ok(Message::Batch(chunks)) => self.held.extend(chunks),
            Ok(Message::End) => self.ended = true,
            Ok(Message::Failed(error)) => return Err(error.into_io()),
            Err(_) => return Err(Error::new(ErrorKind::Bug, "a thread panicked while reading").into_io()),
        }
        Ok(())
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.held.is_empty() && !self.ended {
            self.receive()?;
        }
        let Some(chunk) = self.held.front_mut() else { return Ok(0) };
        let (count, is_done) = match chunk {
            Chunk::Bytes(bytes) => {
                let left = &bytes[self.position..];
                let count = left.len().min(buffer.len());
                buffer[..count].copy_from_slice(&left[..count]);
                self.position += count;
                (count, self.position == bytes.len())
            }
            Chunk::Zeros(left) => {
                let count = (*left).min(ZEROS.len().min(buffer.len()) as u64) as usize;
                buffer[..count].copy_from_slice(&ZEROS[..count]);
                *left -= count as u64;
                (count, *left == 0)
            }
        };
        if is_done {
            if let Some(Chunk::Bytes(mut bytes)) = self.held.pop_front() {
                let mut spares = spares_of(&self.spares);
                if spares.len() < SPARES_MAX {
                    bytes.clear();
                    spares.push(bytes);
                }
            }
            self.position = 0;
        }
        if count == 0 && is_done { self.read(buffer) } else { Ok(count) }
    }
}

/// Sends the whole tar, batch by batch. That nobody listens any more is not an error.
fn produce(volume: &Volume, threads: NonZeroUsize, (sender, spares): (&SyncSender<Message>, &Spares)) -> Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build();
    let pool = pool.map_err(|error| no_thread(std::io::Error::other(error)))?;
    let mut batches = Batches { volume, pool, sender, spares, pieces: Vec::new(), bytes: 0 };
    let mut header = Vec::new();
    for_each_member(&volume.tree, |member, data| {
        header.clear();
        member_header(&mut header, member);
        batches.bytes(&header)?;
        let Some(data) = data else { return Ok(()) };
        let reading = || format!("reading contents of {}", Quoted(member.path));
        match &data.content {
            Content::Inline(bytes) => batches.bytes(bytes)?,
            _ => volume.for_each_part(data, |part| batches.part(part)).doing(reading)?,
        }
        batches.bytes(&ZEROS[..padding(data.size) as usize])
    })?;
    batches.bytes(&end_of_archive())?;
    batches.flush()?;
    volume.expect_unchanged()
}

struct Batches<'a> {
    volume: &'a Volume,
    pool: rayon::ThreadPool,
    sender: &'a SyncSender<Message>,
    spares: &'a Spares,
    pieces: Vec<Piece>,
    bytes: u64,
}

impl Batches<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match self.pieces.last_mut() {
            Some(Piece::Bytes(before)) => before.extend_from_slice(bytes),
            _ => self.pieces.push(Piece::Bytes(bytes.to_vec())),
        }
        self.grown(bytes.len() as u64)
    }

    fn part(&mut self, part: Part) -> Result<()> {
        // A hole costs nothing, but millions of them do.
        if let (Part::Zeros(more), Some(Piece::Part(Part::Zeros(zeros)))) = (part, self.pieces.last_mut()) {
            *zeros += more;
            return Ok(());
        }
        self.pieces.push(Piece::Part(part));
        self.grown(match part {
            Part::Squashfs(stretch) => stretch.bytes.into(),
            Part::Directory { bytes, .. } => bytes.into(),
            Part::Zeros(_) => ZEROS.len() as u64,
        })
    }

    fn grown(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        if self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.bytes = 0;
        let (volume, spares, pieces) = (self.volume, self.spares, std::mem::take(&mut self.pieces));
        let chunks: Result<Vec<Chunk>> = self.pool.install(|| {
            let read = |reader: &mut Result<super::Reader>, piece| match piece {
                Piece::Bytes(bytes) => Ok(Chunk::Bytes(bytes)),
                Piece::Part(Part::Zeros(count)) => Ok(Chunk::Zeros(count)),
                Piece::Part(part) => {
                    let reader = reader.as_mut().map_err(|error| Error::new(error.kind(), error))?;
                    let mut bytes = spares_of(spares).pop().unwrap_or_default();
                    volume.read_part(&part, reader, &mut bytes)?;
                    Ok(Chunk::Bytes(bytes))
                }
            };
            pieces.into_par_iter().map_init(|| volume.reader(), read).collect()
        });
        // Whoever reads has gone: so does this thread.
        let stopped = |_| Error::new(ErrorKind::Other, "nobody reads on");
        self.sender.send(Message::Batch(chunks?)).map_err(stopped)
    }
}
