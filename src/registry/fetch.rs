use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::cache::{Cache, Claim};
use super::client::Client;
use super::stream::{Blob, BlobStream};
use super::transfer::{Follower, Transfer};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::io::folder::is_ours_alone;
use crate::io::{CHUNK_BYTES, Expected, free_bytes, no_thread};
use crate::model::{Digest, Hasher};

/// How many blobs come at once, those included that are decoded as they come: enough to fill a line of which one connection
/// gets a share only, few enough for registries that count connections.
const CONNECTIONS_MAX: usize = 4;
/// How much may wait in temporary files, in bytes, and which part of what is free there.
const WAITING_BYTES_MAX: u64 = 512 << 20;
const WAITING_SHARE: u64 = 4;
/// What is opened within this time is read as it comes, rather than fetched ahead: whoever opens one layer usually opens
/// the next one at once.
const HESITATION: Duration = Duration::from_millis(30);
/// How long the end of a conversion waits for downloads to notice it.
const FAREWELL: Duration = Duration::from_millis(500);

/// Fetches blobs, and fetches ahead those that will be wanted.
///
/// Without a cache, a blob that is opened is read as it comes; blobs that must wait for others to be decoded come into
/// unnamed temporary files meanwhile. With a cache, every blob comes into the cache, and is read behind the download. Where
/// nothing can be kept in the cache, what is there is read, and all else comes as without one.
pub(super) struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    client: Arc<Client>,
    cache: Option<Cache>,
    /// A cache that is read only.
    shelf: Option<Cache>,
    /// Where blobs may wait; nowhere where nothing is to lie on a disk.
    tmpdir: Option<PathBuf>,
    plan: Mutex<Plan>,
    changed: Condvar,
    closed: AtomicBool,
    /// Why nothing can be kept in the cache that was named.
    refusal: Option<String>,
    /// Why something that would have been kept was not.
    not_kept: OnceLock<String>,
}

#[derive(Default)]
struct Plan {
    /// What will be wanted, in the order in which it will be.
    waiting: VecDeque<Blob>,
    is_under_way: bool,
    connections: usize,
    /// How many bytes more may wait.
    room_bytes: u64,
    transfers: BTreeMap<Digest, Arc<Transfer>>,
}

impl Fetcher {
    /// `refusal` says why nothing can be kept in `cache`, or there is none.
    pub(super) fn new(
        client: Arc<Client>,
        cache: Option<Cache>,
        refusal: Option<String>,
        tmpdir: Option<PathBuf>,
    ) -> Self {
        let (plan, changed, closed) = (Mutex::default(), Condvar::new(), AtomicBool::new(false));
        let (cache, shelf) = match cache {
            Some(cache) if !cache.is_kept() => (None, Some(cache)),
            cache => (cache, None),
        };
        let not_kept = OnceLock::new();
        let shared = Shared { client, cache, shelf, tmpdir, plan, changed, closed, refusal, not_kept };
        Fetcher { shared: Arc::new(shared) }
    }

    /// Why something that came was not kept in the cache, if so.
    pub(super) fn not_kept(&self) -> Option<&str> {
        self.shared.not_kept.get().map(String::as_str)
    }

    /// Notes that something cannot be kept in the cache, which has no room for it; any other error is one.
    pub(super) fn expect_full(&self, error: Error) -> Result<()> {
        self.shared.expect_full(error)
    }

    /// A blob that is in a cache in which nothing can be kept.
    pub(super) fn shelved(&self, blob: &Blob) -> Result<Option<Arc<File>>> {
        self.shared.shelved(blob)
    }

    /// The cache, where there is one.
    pub(super) fn cache(&self) -> Option<&Cache> {
        self.shared.cache.as_ref()
    }

    /// Says what will be opened, in the order in which it will be.
    pub(super) fn expect(&self, blobs: Vec<Blob>) {
        let mut waiting: VecDeque<Blob> = VecDeque::new();
        for blob in blobs {
            if waiting.iter().all(|other| other.digest != blob.digest) {
                waiting.push_back(blob);
            }
        }
        self.shared.lock().waiting = waiting;
    }

    /// Says that a blob will not be opened after all.
    pub(super) fn forget(&self, digest: Digest) {
        self.shared.lock().waiting.retain(|blob| blob.digest != digest);
    }

    /// Opens a blob. Its bytes are not verified.
    pub(super) fn open(&self, blob: &Blob) -> Result<Box<dyn Read + Send>> {
        Ok(self.begin(blob)?.stream)
    }

    /// Opens a blob, and says whether its bytes are verified where the stream ends without an error.
    pub(super) fn open_verifying(&self, blob: &Blob) -> Result<(Box<dyn Read + Send>, bool)> {
        let Opened { stream, transfer } = self.begin(blob)?;
        let is_verified = transfer.map(|it| it.is_verified(&self.shared.client.monitor)).transpose()?;
        Ok((stream, is_verified.unwrap_or(false)))
    }

    fn begin(&self, blob: &Blob) -> Result<Opened> {
        let shared = &self.shared;
        let monitor = || shared.client.monitor.clone();
        let behind = |transfer: Arc<Transfer>| {
            let follower = Follower::new(Arc::clone(&transfer), monitor());
            let stream = Behind { follower, rest: None, blob: blob.clone(), shared: Arc::clone(shared) };
            Opened { stream: Box::new(stream), transfer: Some(transfer) }
        };
        let opened = match shared.way_to(blob) {
            Way::Fetched(transfer) if shared.cache.is_some() => behind(transfer),
            Way::Fetched(transfer) => {
                let follower = Follower::new(transfer, monitor());
                let room_bytes = blob.size.unwrap_or(0);
                Opened::directly(Waited { follower, room_bytes, shared: Arc::clone(shared) })
            }
            Way::Cached(transfer, connection) => {
                let (shared, blob, cached) = (Arc::clone(shared), blob.clone(), Arc::clone(&transfer));
                spawn(move || {
                    cached.come_of(|| shared.fetch_to_cache(&blob, &cached));
                    drop(connection);
                    shared.fetch_ahead();
                })?;
                behind(transfer)
            }
            Way::Direct(connection) => {
                if let Some(file) = shared.shelved(blob)? {
                    let transfer = Transfer::default();
                    let bytes = file.metadata().or_kind(ErrorKind::SourceUnavailable)?.len();
                    transfer.begin(file, bytes);
                    transfer.end(Ok(()));
                    drop(connection);
                    shared.fetch_ahead();
                    return Ok(behind(Arc::new(transfer)));
                }
                let stream = BlobStream::open(&shared.client, blob)?;
                Opened::directly(Direct { stream, connection: Some(connection), shared: Arc::clone(shared) })
            }
        };
        shared.fetch_ahead();
        Ok(opened)
    }
}

/// A blob that is open.
struct Opened {
    stream: Box<dyn Read + Send>,
    /// The download that the stream follows, where that may verify the blob.
    transfer: Option<Arc<Transfer>>,
}

impl Opened {
    fn directly(stream: impl Read + Send + 'static) -> Self {
        Opened { stream: Box::new(stream), transfer: None }
    }
}

/// How a blob that is opened is read.
enum Way {
    /// It is coming, or has come.
    Fetched(Arc<Transfer>),
    /// It is to be brought into the cache.
    Cached(Arc<Transfer>, Connection),
    /// As it comes.
    Direct(Connection),
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        let plan = self.shared.lock();
        let _ = self.shared.changed.wait_timeout_while(plan, FAREWELL, |plan| plan.connections > 0);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks how much may wait, once it is known that layers are read at all.
    fn begin(&self, plan: &mut Plan) {
        if std::mem::replace(&mut plan.is_under_way, true) {
            return;
        }
        if self.cache.is_some() {
            plan.room_bytes = u64::MAX;
            return;
        }
        let is_shelved = |blob: &Blob| self.shelf.as_ref().is_some_and(|shelf| shelf.has(blob.digest));
        let coming = plan.waiting.iter().filter(|blob| !is_shelved(blob));
        let bytes = coming.filter_map(|blob| blob.size).fold(0, u64::saturating_add);
        self.client.monitor.expect_downloads(bytes);
        // Where no temporary can be made, nothing waits: all is read as it comes.
        let free = self.tmpdir.as_ref().and_then(|it| File::open(it).ok()).and_then(free_bytes).unwrap_or(0);
        plan.room_bytes = WAITING_BYTES_MAX.min(free / WAITING_SHARE);
    }

    fn way_to(self: &Arc<Self>, blob: &Blob) -> Way {
        let mut plan = self.lock();
        self.begin(&mut plan);
        plan.waiting.retain(|waiting| waiting.digest != blob.digest);
        if self.cache.is_none() {
            let fetched = plan.transfers.remove(&blob.digest);
            return fetched.map_or_else(|| Way::Direct(Connection::new(self, &mut plan)), Way::Fetched);
        }
        if let Some(transfer) = plan.transfers.get(&blob.digest) {
            return Way::Fetched(Arc::clone(transfer));
        }
        let transfer = Arc::clone(plan.transfers.entry(blob.digest).or_default());
        Way::Cached(transfer, Connection::new(self, &mut plan))
    }

    /// Starts to fetch what will be wanted, as far as there are connections and room.
    fn fetch_ahead(self: &Arc<Self>) {
        for connection in self.idle_connections() {
            let shared = Arc::clone(self);
            // Without a thread it is read when it is opened.
            let _ = spawn(move || {
                std::thread::sleep(HESITATION);
                if let Some((blob, transfer)) = shared.next() {
                    transfer.come_of(|| match shared.cache {
                        Some(_) => shared.fetch_to_cache(&blob, &transfer),
                        None => shared.fetch_to_temporary(&blob, &transfer),
                    });
                    drop(connection);
                    shared.fetch_ahead();
                }
            });
        }
    }

    fn idle_connections(self: &Arc<Self>) -> Vec<Connection> {
        let mut plan = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let idle = CONNECTIONS_MAX.saturating_sub(plan.connections).min(plan.waiting.len());
        (0..idle).map(|_| Connection::new(self, &mut plan)).collect()
    }

    /// The next blob that there is room for.
    fn next(&self) -> Option<(Blob, Arc<Transfer>)> {
        let mut plan = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let room_bytes = plan.room_bytes;
        if self.cache.is_none() && self.tmpdir.is_none() {
            return None;
        }
        let needs = |blob: &Blob| blob.size.unwrap_or(u64::MAX);
        let at = plan.waiting.iter().position(|blob| needs(blob) <= room_bytes)?;
        let blob = plan.waiting.remove(at)?;
        if self.cache.is_none() {
            plan.room_bytes -= needs(&blob);
        }
        let transfer = Arc::clone(plan.transfers.entry(blob.digest).or_default());
        Some((blob, transfer))
    }

    /// A blob that is in a cache in which nothing can be kept.
    fn shelved(&self, blob: &Blob) -> Result<Option<Arc<File>>> {
        let find = |shelf: &Cache| shelf.find(blob.digest, blob.size, &self.client.monitor);
        let found = self.shelf.as_ref().map(find).transpose()?.flatten();
        match (&found, &self.refusal) {
            (Some(file), _) => self.client.monitor.save(file.metadata().map_or(0, |data| data.len())),
            (None, Some(refusal)) => self.note(refusal),
            (None, None) => {}
        }
        Ok(found)
    }

    fn expect_full(&self, error: Error) -> Result<()> {
        if error.kind() != ErrorKind::NoSpace {
            return Err(error);
        }
        self.note(&error.to_string());
        Ok(())
    }

    /// Says why something was not kept, where somebody counts on it.
    fn note(&self, reason: &str) {
        if self.client.settings.room.is_none() {
            let _ = self.not_kept.set(reason.to_string());
        }
    }

    fn fetch_to_temporary(&self, blob: &Blob, transfer: &Transfer) -> Result<()> {
        if let Some(file) = self.shelved(blob)? {
            let bytes = file.metadata().or_kind(ErrorKind::SourceUnavailable)?.len();
            transfer.begin(file, bytes);
            return Ok(());
        }
        let hint = |error: Error| error.with_remedy(Remedy::RoomInTmpdir);
        let Some(tmpdir) = &self.tmpdir else { return Err(Error::new(ErrorKind::Bug, "there is no place to wait")) };
        let doing = || format!("keeping blob {} in {tmpdir:?}", blob.digest);
        let file = tempfile::tempfile_in(tmpdir).or_kind(ErrorKind::Output).map_err(hint).doing(doing)?;
        let file = Arc::new(file);
        transfer.begin(Arc::clone(&file), 0);
        let mut position = 0;
        self.copy(blob, |bytes| {
            file.write_all_at(bytes, position).or_kind(ErrorKind::Output).map_err(hint).doing(doing)?;
            position += bytes.len() as u64;
            transfer.advance(bytes.len() as u64);
            Ok(())
        })
    }

    fn fetch_to_cache(&self, blob: &Blob, transfer: &Transfer) -> Result<()> {
        let Some(cache) = &self.cache else { return Err(Error::new(ErrorKind::Bug, "there is no cache")) };
        match cache.claim(blob.digest, blob.size, &self.client.monitor)? {
            Claim::There(file) => {
                let bytes = file.metadata().or_kind(ErrorKind::SourceUnavailable)?.len();
                self.client.monitor.save(bytes);
                transfer.begin(file, bytes);
                Ok(())
            }
            Claim::Mine(mut writer) => {
                self.client.monitor.expect_downloads(blob.size.unwrap_or(0));
                let file = Arc::clone(writer.file());
                if is_ours_alone(&file) {
                    transfer.begin_verified(file);
                } else {
                    transfer.begin(file, 0);
                }
                self.copy(blob, |bytes| {
                    writer.write(bytes)?;
                    transfer.advance(bytes.len() as u64);
                    Ok(())
                })?;
                writer.finish(blob.size).doing(|| format!("downloading blob {}", blob.digest))
            }
        }
    }

    /// Downloads a blob, and not more than one byte past its end, which shows that it is too long.
    fn copy(&self, blob: &Blob, mut put: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let stream = BlobStream::open(&self.client, blob)?;
        let mut stream = stream.take(blob.size.map_or(u64::MAX, |size| size.saturating_add(1)));
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            self.client.monitor.check()?;
            if self.closed.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Other, "given up"));
            }
            match stream.read(&mut buffer).map_err(|error| Error::io(ErrorKind::Network, error))? {
                0 => return Ok(()),
                count => put(&buffer[..count])?,
            }
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name("download".to_string()).spawn(work);
    spawned.map(|_| ()).map_err(no_thread)
}

/// A share in [`CONNECTIONS_MAX`].
struct Connection(Arc<Shared>);

impl Connection {
    fn new(shared: &Arc<Shared>, plan: &mut Plan) -> Self {
        plan.connections += 1;
        Connection(Arc::clone(shared))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.lock().connections -= 1;
        self.0.changed.notify_all();
    }
}

/// A blob that is read as it comes.
struct Direct {
    stream: BlobStream,
    connection: Option<Connection>,
    shared: Arc<Shared>,
}

impl Read for Direct {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        drop(self.connection.take());
        self.shared.fetch_ahead();
    }
}

/// A blob that is read behind its way into the cache. Where that has no room for all of it, the rest is read as it comes.
struct Behind {
    follower: Follower,
    rest: Option<Rest>,
    blob: Blob,
    shared: Arc<Shared>,
}

impl Behind {
    /// What was not read yet. What was is hashed, for nobody compares the digest now who writes it.
    fn rest(&self) -> Result<Rest> {
        let (mut hasher, mut bytes) = (Hasher::like(Some(self.blob.digest)), 0);
        if let Some(read) = self.follower.read_so_far() {
            let (mut reader, mut buffer) = (read.reader(), vec![0; CHUNK_BYTES]);
            while bytes < read.len {
                let count = reader.read(&mut buffer).or_kind(ErrorKind::Other)?;
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
        let stream = BlobStream::open_at(&self.shared.client, &self.blob, bytes)?;
        let expected = Expected { digest: Some(self.blob.digest), size: self.blob.size };
        Ok(Rest { stream, hasher, bytes, expected })
    }
}

impl Read for Behind {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_none() {
            match self.follower.next(buffer) {
                Ok(count) => return Ok(count),
                Err(error) => self.shared.expect_full(error).map_err(Error::into_io)?,
            }
            self.rest = Some(self.rest().map_err(Error::into_io)?);
        }
        self.rest.as_mut().map_or(Ok(0), |rest| rest.read(buffer))
    }
}

/// The end of a blob, which shows whether all of it is right.
struct Rest {
    stream: BlobStream,
    hasher: Hasher,
    bytes: u64,
    expected: Expected,
}

impl Read for Rest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        if count == 0 && !buffer.is_empty() {
            self.expected.check(self.hasher.clone().finish(), self.bytes).map_err(Error::into_io)?;
        }
        Ok(count)
    }
}

/// A blob that waited, or still comes, in a temporary file.
struct Waited {
    follower: Follower,
    room_bytes: u64,
    shared: Arc<Shared>,
}

impl Read for Waited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.follower.read(buffer)
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.shared.lock().room_bytes += self.room_bytes;
        self.shared.fetch_ahead();
    }
}
