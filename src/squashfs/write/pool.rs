//! Threads that read, compress and write blocks. Jobs get their sequence number when they are submitted; a finished
//! block waits until all before it are written. Whichever worker finds the next block ready writes it and what follows,
//! so no thread exists only to wait, and no two write at once. What a memo is told of written blocks, in their order, is told
//! by another worker meanwhile: to a memo that keeps them that is as much work as writing them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use super::output::{Output, Owner};
use super::source::is_zero;
use super::{BlockName, FileSource, Memo, MemoBlock, Options, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Monitor, no_thread};
use crate::squashfs::codec::Compressor;
use crate::squashfs::format::DATA_STORED;

/// A piece of work; what it yields is written in the order of submission.
pub(super) enum Job {
    /// One block of a file.
    Block { source: Arc<dyn FileSource>, offset: u64, length: u32, file: u32 },
    /// Blocks of a file that are known to be zeros.
    Holes { file: u32, blocks: u32 },
    /// A fragment block: whole small files, one after the other.
    Fragment { parts: Vec<Arc<dyn FileSource>> },
}

/// A block that is ready to be written.
struct Packed {
    owner: Owner,
    /// The block is the first `length` bytes.
    bytes: Vec<u8>,
    length: usize,
    /// 0 for a hole.
    word: u32,
    /// How many blocks: more than one only for holes.
    blocks: u32,
    /// Progress: bytes of files this stands for.
    raw_bytes: u64,
    /// What a memo is to be told of it.
    remark: Option<Remark>,
}

impl Packed {
    /// The bytes of the block.
    fn stored(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn tell(&self, memo: &dyn Memo) {
        let Some(Remark { name, sum }) = &self.remark else { return };
        let (bytes, word, raw_bytes, times) = (self.stored(), self.word, self.raw_bytes, self.blocks);
        memo.wrote(name, &MemoBlock { bytes, word, raw_bytes, times, sum: *sum });
    }
}

/// What a block is called, and the checksum of one that the memo did not have.
struct Remark {
    name: BlockName,
    sum: Option<u128>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(u64, Job)>,
    submitted: u64,
    ready: BTreeMap<u64, Packed>,
    written: u64,
    writing: bool,
    /// Written, and the memo does not know yet.
    untold: Vec<Packed>,
    telling: bool,
    /// How many are done with.
    done: u64,
    spare: Vec<Vec<u8>>,
    closed: bool,
    failed: bool,
    failure: Option<Error>,
    progress_bytes: u64,
}

struct Shared<S> {
    state: Mutex<State>,
    /// Something changed that a worker may wait for.
    work: Condvar,
    /// Something changed that the submitting thread may wait for.
    room: Condvar,
    output: Mutex<Output<S>>,
    memo: Option<Arc<dyn Memo>>,
    block_size: usize,
    /// How many blocks may be under way: it bounds the memory.
    window: u64,
}

/// How many jobs may wait; they hold no block, so this only has to keep the workers busy while the submitting thread
/// compares files.
const QUEUE_JOBS_MAX: usize = 256;
/// What finished blocks may occupy while they wait for an earlier one, in bytes.
const WINDOW_BYTES_MAX: usize = 64 << 20;
/// How often a waiting submitter looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// The threads, and the image they write to.
pub(super) struct Pool<S: Store + 'static> {
    /// Present until the pool is finished.
    shared: Option<Arc<Shared<S>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<S: Store + 'static> Pool<S> {
    pub(super) fn new(store: S, options: &Options, memo: Option<Arc<dyn Memo>>) -> Result<Self> {
        let threads = options.threads.get();
        let block_size = options.block_size as usize;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            output: Mutex::new(Output::new(store)),
            memo,
            block_size,
            window: (4 * threads).min(WINDOW_BYTES_MAX / block_size).max(threads + 1) as u64,
        });
        let mut pool = Pool { shared: Some(Arc::clone(&shared)), threads: Vec::new() };
        for number in 0..threads {
            let worker = Worker { compressor: Compressor::new(options.compression)?, raw: vec![0; block_size] };
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("squashfs-{number}"));
            pool.threads.push(thread.spawn(move || shared.work(worker)).map_err(no_thread)?);
        }
        Ok(pool)
    }

    /// Queues a job, waiting for room.
    pub(super) fn submit(&self, job: Job, monitor: &Monitor) -> Result<()> {
        let shared = self.shared()?;
        let mut state = shared.wait(monitor, |state| state.queue.len() < QUEUE_JOBS_MAX)?;
        let sequence = state.submitted;
        state.submitted += 1;
        state.queue.push_back((sequence, job));
        drop(state);
        shared.work.notify_one();
        Ok(())
    }

    /// Waits until all is written, ends the threads and returns the image.
    pub(super) fn finish(&mut self, monitor: &Monitor) -> Result<Output<S>> {
        drop(self.shared()?.wait(monitor, |state| state.done == state.submitted)?);
        self.end_threads();
        let shared = self.shared.take().and_then(Arc::into_inner).ok_or_else(finished)?;
        Ok(shared.output.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn shared(&self) -> Result<&Shared<S>> {
        self.shared.as_deref().ok_or_else(finished)
    }

    fn end_threads(&mut self) {
        if let Some(shared) = &self.shared {
            let mut state = shared.lock();
            state.closed = true;
            state.queue.clear();
            drop(state);
            shared.work.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has left its failure in the state.
            drop(thread.join());
        }
    }
}

fn finished() -> Error {
    Error::new(ErrorKind::Bug, "the squashfs writer was used after its end")
}

impl<S: Store + 'static> Drop for Pool<S> {
    fn drop(&mut self) {
        self.end_threads();
    }
}

impl<S: Store> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `enough`, reports progress, and fails when a worker failed or the user wants to stop.
    fn wait(&self, monitor: &Monitor, enough: impl Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        loop {
            monitor.advance(std::mem::take(&mut state.progress_bytes));
            if state.failed {
                return Err(state.failure.take().unwrap_or_else(finished));
            }
            monitor.check()?;
            if enough(&state) {
                return Ok(state);
            }
            state = self.room.wait_timeout(state, STOP_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn work(&self, mut worker: Worker) {
        let _guard = PanicGuard(self);
        let mut next = || {
            let Some((sequence, job, spare)) = self.take()? else { return Ok(false) };
            let packed = worker.pack(job, spare, self.block_size, self.memo.as_deref())?;
            self.deliver(sequence, packed).map(|()| true)
        };
        while next().unwrap_or_else(|error| {
            self.fail(error);
            false
        }) {}
    }

    /// The next job that is not too far ahead, with a buffer; nothing when there will be none. A worker that would have to wait
    /// writes finished blocks meanwhile, or tells the memo of written ones.
    fn take(&self) -> Result<Option<(u64, Job, Vec<u8>)>> {
        let mut state = self.lock();
        loop {
            if state.closed || state.failed {
                return Ok(None);
            }
            let end = state.done + self.window;
            if state.queue.front().is_some_and(|&(sequence, _)| sequence < end) {
                let Some((sequence, job)) = state.queue.pop_front() else { continue };
                let spare = state.spare.pop().unwrap_or_default();
                if state.queue.len() == QUEUE_JOBS_MAX / 2 {
                    self.room.notify_one();
                }
                return Ok(Some((sequence, job, spare)));
            }
            state = match self.step(state)? {
                (state, true) => state,
                (state, false) => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Hands in a finished block, and does what can be done with finished ones unless another worker is at it.
    fn deliver(&self, sequence: u64, packed: Packed) -> Result<()> {
        let mut state = self.lock();
        state.ready.insert(sequence, packed);
        while !state.failed {
            let (now, did_something) = self.step(state)?;
            if !did_something {
                return Ok(());
            }
            state = now;
        }
        Ok(())
    }

    /// Writes all that can be written, or tells the memo of all that has been, where no other worker does; whether there was
    /// something to do.
    fn step<'s>(&'s self, mut state: MutexGuard<'s, State>) -> Result<(MutexGuard<'s, State>, bool)> {
        let next = state.written;
        if !state.writing && state.ready.contains_key(&next) {
            let batch: Vec<Packed> = (next..).map_while(|sequence| state.ready.remove(&sequence)).collect();
            state.writing = true;
            drop(state);
            self.write(&batch)?;
            state = self.lock();
            state.writing = false;
            state.written += batch.len() as u64;
            state.progress_bytes += batch.iter().map(|packed| packed.raw_bytes).sum::<u64>();
            match self.memo {
                Some(_) => state.untold.extend(batch),
                None => self.let_go(&mut state, batch),
            }
            self.work.notify_all();
            return Ok((state, true));
        }
        let (Some(memo), false) = (&self.memo, state.telling || state.untold.is_empty()) else {
            return Ok((state, false));
        };
        let batch = std::mem::take(&mut state.untold);
        state.telling = true;
        drop(state);
        batch.iter().for_each(|packed| packed.tell(&**memo));
        state = self.lock();
        state.telling = false;
        self.let_go(&mut state, batch);
        self.work.notify_all();
        Ok((state, true))
    }

    /// Nothing more is to be done with these.
    fn let_go(&self, state: &mut State, batch: Vec<Packed>) {
        state.done += batch.len() as u64;
        state.spare.extend(batch.into_iter().map(|packed| packed.bytes).filter(|bytes| !bytes.is_empty()));
        if state.queue.is_empty() {
            self.room.notify_one();
        }
    }

    fn write(&self, batch: &[Packed]) -> Result<()> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        batch.iter().try_for_each(|packed| match packed.owner {
            Owner::File(file) if packed.word == 0 => {
                output.append_holes(file, packed.blocks);
                Ok(())
            }
            owner => output.append_block(owner, packed.stored(), packed.word),
        })
    }

    fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.failed = true;
        state.failure.get_or_insert(error);
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }
}

/// Turns a worker's panic into an error of the submitting thread, which would wait forever otherwise.
struct PanicGuard<'a, S: Store>(&'a Shared<S>);

impl<S: Store> Drop for PanicGuard<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(ErrorKind::Bug, "a squashfs worker panicked"));
        }
    }
}

/// What a memo said of a block.
enum Recalled {
    Block(Packed),
    /// It does not have it: what it is called, and the buffer back.
    Not(Option<BlockName>, Vec<u8>),
}

/// What a thread keeps from block to block.
struct Worker {
    compressor: Compressor,
    /// Always a full block long.
    raw: Vec<u8>,
}

impl Worker {
    fn pack(&mut self, job: Job, spare: Vec<u8>, block_size: usize, memo: Option<&dyn Memo>) -> Result<Packed> {
        match job {
            Job::Holes { file, blocks } => {
                let raw_bytes = u64::from(blocks) * block_size as u64;
                let owner = Owner::File(file);
                Ok(Packed { owner, bytes: spare, length: 0, word: 0, blocks, raw_bytes, remark: None })
            }
            Job::Block { source, offset, length, file } => {
                let (owner, length) = (Owner::File(file), length as usize);
                let name = memo.and_then(|_| source.name()).map(|file| BlockName::Data { file, offset });
                match Self::recall(memo, name, owner, length, spare)? {
                    Recalled::Block(packed) => Ok(packed),
                    Recalled::Not(name, spare) => {
                        source.read_at(&mut self.raw[..length], offset)?;
                        self.compress(owner, length, spare, name)
                    }
                }
            }
            Job::Fragment { parts } => {
                let length = parts.iter().map(|part| part.size() as usize).sum();
                let names = || parts.iter().map(|part| Some((part.name()?, part.size() as u32))).collect();
                let name = memo.and_then(|_| names()).map(BlockName::Fragment);
                match Self::recall(memo, name, Owner::Fragment, length, spare)? {
                    Recalled::Block(packed) => Ok(packed),
                    Recalled::Not(name, spare) => {
                        let mut start = 0;
                        for part in parts {
                            let end = start + part.size() as usize;
                            part.read_at(&mut self.raw[start..end], 0)?;
                            start = end;
                        }
                        self.compress(Owner::Fragment, length, spare, name)
                    }
                }
            }
        }
    }

    /// The block that is called `name`, where the memo has it.
    fn recall(
        memo: Option<&dyn Memo>,
        name: Option<BlockName>,
        owner: Owner,
        length: usize,
        mut spare: Vec<u8>,
    ) -> Result<Recalled> {
        let (Some(memo), Some(name)) = (memo, name) else { return Ok(Recalled::Not(None, spare)) };
        let Some(word) = memo.find(&name, &mut spare)? else { return Ok(Recalled::Not(Some(name), spare)) };
        let (stored, raw_bytes) = ((word & !DATA_STORED) as usize, length as u64);
        let remark = Some(Remark { name, sum: None });
        Ok(Recalled::Block(Packed { owner, bytes: spare, length: stored, word, blocks: 1, raw_bytes, remark }))
    }

    fn compress(&mut self, owner: Owner, length: usize, mut spare: Vec<u8>, name: Option<BlockName>) -> Result<Packed> {
        let raw_bytes = length as u64;
        let remark = |bytes: &[u8]| name.map(|name| Remark { name, sum: Some(xxh3_128(bytes)) });
        if matches!(owner, Owner::File(_)) && is_zero(&self.raw[..length]) {
            let remark = remark(&[]);
            return Ok(Packed { owner, bytes: spare, length: 0, word: 0, blocks: 1, raw_bytes, remark });
        }
        Ok(match self.compressor.compress(&self.raw[..length], &mut spare)? {
            Some(packed) => {
                let remark = remark(&spare[..packed]);
                Packed { owner, bytes: spare, length: packed, word: packed as u32, blocks: 1, raw_bytes, remark }
            }
            None => {
                // The block goes out as it was read; the buffer that was to take its compressed form takes its place.
                spare.resize(self.raw.len(), 0);
                let bytes = std::mem::replace(&mut self.raw, spare);
                let remark = remark(&bytes[..length]);
                Packed { owner, bytes, length, word: length as u32 | DATA_STORED, blocks: 1, raw_bytes, remark }
            }
        })
    }
}
