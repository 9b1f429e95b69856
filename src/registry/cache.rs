use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Timestamps, UTIME_NOW, flock, futimens, linkat};
use sha2::{Digest as _, Sha256};

use super::retry::sleep;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Expected, Monitor, Region, hash_region};
use crate::model::{Digest, Quoted};

/// What says that a directory is a cache, to backup programs (bford.info/cachedir) and to [`prune`].
const TAG: (&str, &str) = (
    "CACHEDIR.TAG",
    "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of blobs made by sif-convert: sif-convert cache prune empties it.\n",
);

/// How often a waiting process looks.
const LOOK: Duration = Duration::from_millis(50);
/// How often a writer shows that it lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// After so long without a sign of life, a writer is waited for no longer. Its retries and timeouts fit into it.
const PATIENCE: Duration = Duration::from_secs(180);
/// An unfinished file that nobody has written to for so long is nobody's.
const ABANDONED: Duration = Duration::from_secs(3600);

const UNFINISHED_SUFFIX: &str = ".unfinished";

/// Blobs under their digests, in a directory that many processes and machines may use at once.
///
/// A blob appears whole, by link or rename, and is hashed before it is used: that is all that must hold, and no lock is
/// needed for it. Locks only keep two processes from fetching the same blob at the same time; where they do not work, or a
/// process that has one stands still, the blob is fetched twice.
#[derive(Debug)]
pub(super) struct Cache {
    blobs: PathBuf,
    locks: PathBuf,
}

/// What a process that wants a blob gets.
pub(super) enum Claim {
    /// The blob.
    There(Arc<File>),
    /// The task to fetch it.
    Mine(Box<Writer>),
}

impl Cache {
    /// Uses `directory`, made where it is not there.
    pub(super) fn open(directory: &Path) -> Result<Cache> {
        let cache = Cache { blobs: directory.join("blobs/sha256"), locks: directory.join("locks") };
        let doing = || format!("opening cache {}", Quoted(directory.as_os_str().as_encoded_bytes()));
        let hint = |error: Error| error.hint("name another directory with --cache, or leave it out");
        for each in [&cache.blobs, &cache.locks] {
            fs::create_dir_all(each).or_kind(ErrorKind::Output).map_err(hint).doing(doing)?;
        }
        let tag = directory.join(TAG.0);
        if !tag.exists() {
            fs::write(tag, TAG.1).or_kind(ErrorKind::Output).map_err(hint).doing(doing)?;
        }
        Ok(cache)
    }

    /// Finds the blob, or gives the task to fetch it. Waits for a process that is fetching it, as long as that lives.
    pub(super) fn claim(&self, digest: Digest, size: Option<u64>, monitor: &Monitor) -> Result<Claim> {
        if let Some(file) = self.find(digest, size, monitor)? {
            return Ok(Claim::There(file));
        }
        let path = self.locks.join(digest.hex());
        let lock = File::options().create(true).truncate(false).write(true).mode(0o666).open(&path).ok();
        if let Some(lock) = &lock {
            self.wait_for(lock, &path, digest, monitor)?;
        }
        // Whoever had the lock may have done it all.
        match self.find(digest, size, monitor)? {
            Some(file) => Ok(Claim::There(file)),
            None => Writer::create(&self.blobs, digest, lock.map(|lock| (lock, path)))
                .map(|writer| Claim::Mine(Box::new(writer))),
        }
    }

    /// Waits until the lock is ours, the blob is there, or nobody seems to be at work.
    fn wait_for(&self, lock: &File, path: &Path, digest: Digest, monitor: &Monitor) -> Result<()> {
        let mut since = Instant::now();
        let mut seen = None;
        while flock(lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
            let sign = fs::metadata(path).ok().map(|data| (data.mtime(), data.mtime_nsec()));
            if sign != seen {
                (seen, since) = (sign, Instant::now());
            }
            if since.elapsed() > PATIENCE || self.path(digest).exists() {
                return Ok(());
            }
            sleep(LOOK, monitor)?;
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// The blob, whole. One that is damaged is removed.
    fn find(&self, digest: Digest, size: Option<u64>, monitor: &Monitor) -> Result<Option<Arc<File>>> {
        let path = self.path(digest);
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let file = Arc::new(file);
        if is_whole(&file, digest, size, monitor)? {
            // When it was used last; on a cache that only others may write, prune does not learn of it.
            let _ = touch(&file);
            return Ok(Some(file));
        }
        let doing = || format!("removing a damaged blob, {}", Quoted(path.as_os_str().as_encoded_bytes()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).or_kind(ErrorKind::Output).doing(doing),
            _ => Ok(None),
        }
    }
}

fn is_whole(file: &Arc<File>, digest: Digest, size: Option<u64>, monitor: &Monitor) -> Result<bool> {
    let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::SourceUnavailable)?;
    if size.is_some_and(|size| size != region.len) {
        return Ok(false);
    }
    let failed = |error| Error::io(ErrorKind::SourceUnavailable, error);
    match hash_region(&region, failed, |_| monitor.check()) {
        Ok((found, _)) => Ok(found == digest),
        // A disk that cannot read it holds it no more.
        Err(error) if error.kind() == ErrorKind::SourceUnavailable => Ok(false),
        Err(error) => Err(error),
    }
}

fn touch(file: &File) -> rustix::io::Result<()> {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: UTIME_NOW as _ };
    futimens(file, &Timestamps { last_access: now, last_modification: now })
}

/// A blob that is being fetched into the cache.
pub(super) struct Writer {
    file: Arc<File>,
    /// Its hidden name, on file systems without unnamed files.
    unfinished: Option<PathBuf>,
    path: PathBuf,
    digest: Digest,
    hasher: Sha256,
    bytes: u64,
    lock: Option<(File, PathBuf)>,
    alive: Instant,
}

impl Writer {
    fn create(directory: &Path, digest: Digest, lock: Option<(File, PathBuf)>) -> Result<Writer> {
        let path = directory.join(digest.hex());
        let (file, unfinished) = match unnamed(directory) {
            Some(file) => (file, None),
            None => named(&path).or_kind(ErrorKind::Output).map_err(full).doing(|| doing(&path))?,
        };
        if let Some((lock, _)) = &lock {
            let _ = touch(lock);
        }
        let alive = Instant::now();
        Ok(Writer { file: Arc::new(file), unfinished, path, digest, hasher: Sha256::new(), bytes: 0, lock, alive })
    }

    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, self.bytes).or_kind(ErrorKind::Output);
        written.map_err(full).doing(|| doing(&self.path))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        if let Some((lock, _)) = self.lock.as_ref().filter(|_| self.alive.elapsed() > SIGN_OF_LIFE) {
            let _ = touch(lock);
            self.alive = Instant::now();
        }
        Ok(())
    }

    /// Gives the blob its name, if it is what it should be.
    pub(super) fn finish(mut self, size: Option<u64>) -> Result<()> {
        let found = Digest::from_bytes(std::mem::take(&mut self.hasher).finalize().into());
        Expected { digest: Some(self.digest), size }.check(found, self.bytes)?;
        let named = match &self.unfinished {
            None => {
                let descriptor = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(CWD, descriptor, CWD, &self.path, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from)
            }
            Some(unfinished) => fs::rename(unfinished, &self.path),
        };
        match named {
            // Another process was as quick, and its bytes are the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            named => named.or_kind(ErrorKind::Output).doing(|| doing(&self.path))?,
        }
        self.unfinished = None;
        if let Some((_, path)) = &self.lock {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(path) = &self.unfinished {
            let _ = fs::remove_file(path);
        }
    }
}

fn doing(path: &Path) -> String {
    format!("writing {} of the cache", Quoted(path.as_os_str().as_encoded_bytes()))
}

fn full(error: Error) -> Error {
    error.hint("free some space, for example with sif-convert cache prune, or leave --cache out")
}

fn unnamed(directory: &Path) -> Option<File> {
    // The name is given through /proc, which a bare chroot may lack.
    if !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::from_raw_mode(0o666)).ok().map(File::from)
}

fn named(path: &Path) -> io::Result<(File, Option<PathBuf>)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let hex = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Two machines may have processes of the same number.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_file_name(format!(".{hex}.{host}-{}-{number}{UNFINISHED_SUFFIX}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o666).open(&beside)?;
    Ok((file, Some(beside)))
}

/// What [`prune`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that stay.
    pub kept: u64,
}

/// Removes blobs from the cache in `directory`: all, or those that nobody has used for `older_than`. Processes that use
/// one meanwhile keep what they have open. Only files with names of ours are removed.
///
/// # Errors
/// [`ErrorKind::Usage`] when the directory is no cache of ours, and whatever removing fails with.
pub fn prune(directory: &Path, older_than: Option<Duration>) -> Result<Pruned> {
    let quoted = Quoted(directory.as_os_str().as_encoded_bytes()).to_string();
    let is_ours = fs::read_to_string(directory.join(TAG.0)).is_ok_and(|text| text == TAG.1);
    if !is_ours {
        let message = format!("{quoted} is not a cache of this program: it has no {} that says so", TAG.0);
        return Err(Error::new(ErrorKind::Usage, message).hint("name a directory that was given with --cache"));
    }
    let mut pruned = Pruned::default();
    let doing = || format!("pruning cache {quoted}");
    for (name, data) in entries(&directory.join("blobs/sha256")).or_kind(ErrorKind::Output).doing(doing)? {
        let is_blob = Digest::from_hex(&name).is_ok();
        let age = age(&data);
        let goes = match older_than {
            _ if !is_blob && !name.ends_with(UNFINISHED_SUFFIX) => false,
            _ if !is_blob => age.is_some_and(|age| age > ABANDONED),
            None => true,
            Some(limit) => age.is_some_and(|age| age >= limit),
        };
        if goes {
            remove(&directory.join("blobs/sha256").join(&name)).doing(doing)?;
            (pruned.blobs, pruned.bytes) = (pruned.blobs + u64::from(is_blob), pruned.bytes + data.len());
        } else if is_blob {
            pruned.kept += 1;
        }
    }
    for (name, data) in entries(&directory.join("locks")).or_kind(ErrorKind::Output).doing(doing)? {
        if Digest::from_hex(&name).is_ok() && age(&data).is_some_and(|age| age > ABANDONED) {
            remove(&directory.join("locks").join(&name)).doing(doing)?;
        }
    }
    Ok(pruned)
}

/// The regular files of a directory that have names in UTF-8: all that we make have.
fn entries(directory: &Path) -> io::Result<Vec<(String, fs::Metadata)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match (entry.file_name().into_string(), entry.metadata()) {
            (Ok(name), Ok(data)) if data.is_file() => found.push((name, data)),
            _ => {}
        }
    }
    Ok(found)
}

/// How long ago a file was used or written; absent where its time lies ahead.
fn age(data: &fs::Metadata) -> Option<Duration> {
    data.modified().ok()?.elapsed().ok()
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).or_kind(ErrorKind::Output),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(cache: &Cache, bytes: &[u8]) -> bool {
        let claim = cache.claim(Digest::of(bytes), Some(bytes.len() as u64), &Monitor::default()).unwrap();
        let Claim::Mine(mut writer) = claim else { return false };
        let (start, end) = bytes.split_at(bytes.len() / 2);
        writer.write(start).unwrap();
        writer.write(end).unwrap();
        writer.finish(Some(bytes.len() as u64)).unwrap();
        true
    }

    #[test]
    fn a_blob_is_fetched_once_and_again_when_it_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        assert!(fetch(&cache, b"hello") && !fetch(&cache, b"hello"));
        for damage in [&b"hellp"[..], b"hell", b""] {
            fs::write(cache.path(Digest::of(b"hello")), damage).unwrap();
            assert!(fetch(&cache, b"hello"), "{damage:?}");
        }
        assert_eq!(fs::read_dir(&cache.locks).unwrap().count(), 0, "locks are left");
    }

    #[test]
    fn wrong_bytes_get_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let claim = cache.claim(Digest::of(b"right"), None, &Monitor::default()).unwrap();
        let Claim::Mine(mut writer) = claim else { panic!() };
        writer.write(b"wrong").unwrap();
        assert_eq!(writer.finish(None).unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(fs::read_dir(&cache.blobs).unwrap().count(), 0);
    }

    #[test]
    fn names_are_hidden_where_files_need_them() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let path = cache.path(Digest::of(b"x"));
        let (file, unfinished) = named(&path).unwrap();
        let writer = |file, unfinished| Writer {
            file: Arc::new(file),
            unfinished,
            path: path.clone(),
            digest: Digest::of(b"x"),
            hasher: Sha256::new(),
            bytes: 0,
            lock: None,
            alive: Instant::now(),
        };
        drop(writer(file, unfinished));
        assert_eq!(fs::read_dir(&cache.blobs).unwrap().count(), 0);
        let (file, unfinished) = named(&path).unwrap();
        let mut second = writer(file, unfinished);
        second.write(b"x").unwrap();
        second.finish(None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"x");
        assert_eq!(fs::read_dir(&cache.blobs).unwrap().count(), 1);
    }

    #[test]
    fn one_fetches_and_the_others_wait() {
        let directory = tempfile::tempdir().unwrap();
        let fetched = std::thread::scope(|scope| {
            let race = |_| scope.spawn(|| fetch(&Cache::open(directory.path()).unwrap(), &vec![7; 100_000]));
            let all: Vec<_> = (0..8).map(race).collect();
            all.into_iter().map(|each| each.join().unwrap()).filter(|&fetched| fetched).count()
        });
        assert_eq!(fetched, 1);
    }

    #[test]
    fn pruning_takes_what_is_ours_and_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(prune(path, None).unwrap_err().kind(), ErrorKind::Usage);
        let cache = Cache::open(path).unwrap();
        assert!(fetch(&cache, b"one") && fetch(&cache, b"three"));
        fs::write(cache.blobs.join("mine.txt"), "not ours").unwrap();
        let day = Duration::from_secs(86_400);
        assert_eq!(prune(path, Some(day)).unwrap(), Pruned { blobs: 0, bytes: 0, kept: 2 });
        let old = File::options().write(true).open(cache.path(Digest::of(b"one"))).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(prune(path, Some(day)).unwrap(), Pruned { blobs: 1, bytes: 3, kept: 1 });
        assert_eq!(prune(path, None).unwrap(), Pruned { blobs: 1, bytes: 5, kept: 0 });
        assert!(cache.blobs.join("mine.txt").exists());
        let foreign = tempfile::tempdir().unwrap();
        fs::create_dir_all(foreign.path().join("blobs/sha256")).unwrap();
        assert!(prune(foreign.path(), None).is_err());
    }
}
