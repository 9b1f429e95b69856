use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::prune::{enter, prune};
use super::record::{Book, Made, Page, Record, Row, Status, Trouble};
use super::store::Store;
use super::summary::Summary;
use super::{Entry, Make, origin};
use crate::conversion::Conversion;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::io::{Monitor, jobs_in_address_space, no_thread};
use crate::model::{Digest, OUTPUT_FORMAT};
use crate::output::{IfExists, Signing, added_objects, hash_file};
use crate::report::{ImageRecord, Report};
use crate::source::Spec;

/// How often it is looked whether somebody else has finished an image.
const LOOK: Duration = Duration::from_millis(100);

/// Images, and how they are converted.
#[non_exhaustive]
pub struct Batch<'a> {
    /// The images.
    pub entries: &'a [Entry],
    /// Where outputs and records go.
    pub directory: &'a Path,
    /// The name of the format that is written.
    pub format: &'a str,
    /// How many images at once; usually one, which uses all threads that its conversion may have.
    pub parallel: NonZeroUsize,
    /// Which of them, by their numbers; all where absent.
    pub only: Option<std::ops::RangeInclusive<usize>>,
    /// Makes all anew.
    pub force: bool,
    /// Reads outputs that are kept, and makes those anew that are damaged.
    pub verify: bool,
    /// Converts only what has no output from an earlier run; whether the others are up to date is not asked.
    pub retry_failed: bool,
    /// Removes outputs that no entry makes any more.
    pub prune: bool,
    /// Makes the conversion of an entry.
    pub make: &'a Make<'a>,
    /// Says what an error means for people; usually what it says itself.
    pub describe: &'a (dyn Fn(&Error) -> Trouble + Sync),
}

/// Sees how a batch gets on.
pub trait Watch: Sync {
    /// Work on an image begins, and is counted by `monitor`. What stops that stops the whole batch.
    fn begun(&self, _entry: &Entry, _monitor: &Monitor) {}

    /// It ended, or was stopped.
    fn ended(&self, _entry: &Entry, _row: &Row) {}
}

/// Sees nothing.
impl Watch for () {}

/// What is to be done, and what has been.
struct Queue {
    /// Indices of entries whose turn comes.
    next: VecDeque<usize>,
    /// Of those that somebody else works on.
    busy: VecDeque<usize>,
    rows: Vec<Option<Row>>,
    running: usize,
}

struct Run<'a> {
    batch: &'a Batch<'a>,
    book: Book,
    store: Option<Store>,
    queue: Mutex<Queue>,
    changed: Condvar,
    monitor: &'a Monitor,
}

impl<'a> Batch<'a> {
    /// All of `entries`, one after the other, into `directory`; outputs of earlier runs that are up to date are kept. `format` is
    /// what `make` writes: [`Target::name`](crate::Target::name).
    pub fn new(entries: &'a [Entry], directory: &'a Path, format: &'a str, make: &'a Make<'a>) -> Self {
        Batch {
            entries,
            directory,
            format,
            parallel: NonZeroUsize::MIN,
            only: None,
            force: false,
            verify: false,
            retry_failed: false,
            prune: false,
            make,
            describe: &|error| Trouble::from(error),
        }
    }

    /// Converts. An image that fails stops no other.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the directory cannot be written, or a batch works there that removes outputs.
    pub fn run(&self, watch: &dyn Watch, monitor: &Monitor) -> Result<Summary> {
        let book = Book::open(self.directory)?;
        let entered = enter(&book, self.prune)?;
        let chosen: VecDeque<usize> = (0..self.entries.len()).filter(|&index| self.is_chosen(index)).collect();
        let store = self.store(&chosen)?;
        let rows = (0..self.entries.len()).map(|_| None).collect();
        let queue = Queue { next: chosen.clone(), busy: VecDeque::new(), rows, running: 0 };
        let run = Run { batch: self, book, store, queue: Mutex::new(queue), changed: Condvar::new(), monitor };
        let threads = self.at_once(&chosen);
        std::thread::scope(|scope| -> Result<()> {
            for number in 1..threads {
                let thread = std::thread::Builder::new().name(format!("batch-{number}"));
                thread.spawn_scoped(scope, || run.work(watch)).map_err(no_thread)?;
            }
            run.work(watch);
            Ok(())
        })?;
        let mut rows: Vec<Row> = Vec::new();
        let found = std::mem::take(&mut run.lock().rows);
        for index in chosen {
            rows.push(found[index].clone().unwrap_or_else(|| row(&self.entries[index], Status::Missing)));
        }
        let stopped = monitor.check().err();
        let (mut pruned, mut spared) = (Vec::new(), Vec::new());
        if self.prune && stopped.is_none() {
            let outputs: BTreeSet<&str> = self.entries.iter().map(|entry| entry.output.as_str()).collect();
            (pruned, spared) = prune(self.directory, &run.book, &outputs, self.format)?;
        }
        drop(entered);
        Ok(Summary { rows, stopped, pruned, spared })
    }

    /// What earlier runs, wherever they ran, have recorded.
    ///
    /// # Errors
    /// [`ErrorKind::Output`] when the directory cannot be written.
    pub fn recorded(&self) -> Result<Summary> {
        let book = Book::open(self.directory)?;
        let of_entry = |entry: &Entry| {
            let record = book.read(&entry.output);
            match record.filter(|record| record.row.source == source_text(entry)) {
                Some(record) if !record.row.status.is_good() || self.directory.join(&entry.output).exists() => {
                    Row { number: entry.number, ..record.row }
                }
                _ => row(entry, Status::Missing),
            }
        };
        let chosen = (0..self.entries.len()).filter(|&index| self.is_chosen(index));
        let rows = chosen.map(|index| of_entry(&self.entries[index])).collect();
        Ok(Summary { rows, stopped: None, pruned: Vec::new(), spared: Vec::new() })
    }

    fn is_chosen(&self, index: usize) -> bool {
        self.only.as_ref().is_none_or(|range| range.contains(&self.entries[index].number))
    }

    /// How many images are converted at once: fewer than asked for where the address space is limited. Each conversion looks for
    /// itself how many threads it may have, and knows nothing of the others.
    fn at_once(&self, chosen: &VecDeque<usize>) -> usize {
        let wanted = self.parallel.get().min(chosen.len().max(1));
        let Some(fitting) = jobs_in_address_space() else { return wanted };
        let first = chosen.front().and_then(|&first| self.conversion(&self.entries[first]).ok());
        let jobs = first.map_or(1, |conversion| conversion.options.jobs.get());
        wanted.min(fitting / jobs).max(1)
    }

    /// Room for blobs that several images share, where no cache is given.
    fn store(&self, chosen: &VecDeque<usize>) -> Result<Option<Store>> {
        let mut remote = chosen.iter().filter(|&&index| matches!(self.entries[index].spec, Spec::Registry(_)));
        let (Some(&first), Some(_)) = (remote.next(), remote.next()) else { return Ok(None) };
        // What keeps the first from being made is told of it when its turn comes.
        let Ok(Conversion { open, .. }) = self.conversion(&self.entries[first]) else { return Ok(None) };
        Ok(if open.registry.cache.is_none() { Store::create(&open.tmpdir) } else { None })
    }

    fn conversion(&self, entry: &Entry) -> Result<Conversion> {
        let mut conversion = (self.make)(&entry.source, &self.directory.join(&entry.output))?;
        entry.access.apply(&entry.spec, &mut conversion.open.registry)?;
        Ok(conversion)
    }
}

/// An entry that is worked on. The others wait for it, and no longer where its [`Watch`] panics.
struct Running<'r, 'a>(&'r Run<'a>);

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl Run<'_> {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what there is to do, until there is nothing.
    fn work(&self, watch: &dyn Watch) {
        while let Some(index) = self.next() {
            let entry = &self.batch.entries[index];
            let monitor = self.monitor.fork();
            let _running = Running(self);
            match self.turn(entry, watch, &monitor) {
                None => self.lock().busy.push_back(index),
                Some(row) => {
                    watch.ended(entry, &row);
                    self.lock().rows[index] = Some(row);
                }
            }
        }
    }

    /// The next entry; at the end those that somebody else works on, now and then.
    fn next(&self) -> Option<usize> {
        loop {
            if self.monitor.check().is_err() {
                return None;
            }
            let mut queue = self.lock();
            if let Some(index) = queue.next.pop_front() {
                queue.running += 1;
                return Some(index);
            }
            if queue.busy.is_empty() && queue.running == 0 {
                return None;
            }
            let waited = self.changed.wait_timeout(queue, LOOK);
            let (mut queue, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out()
                && let Some(index) = queue.busy.pop_front()
            {
                queue.running += 1;
                return Some(index);
            }
            if queue.busy.is_empty() && queue.next.is_empty() && queue.running == 0 {
                return None;
            }
        }
    }

    /// What becomes of an entry now; `None` where somebody else works on it.
    fn turn(&self, entry: &Entry, watch: &dyn Watch, monitor: &Monitor) -> Option<Row> {
        let began = Instant::now();
        let page = match self.book.take(&entry.output) {
            Ok(Some(page)) => page,
            Ok(None) => return None,
            Err(error) => return Some(self.failed(entry, &error)),
        };
        watch.begun(entry, monitor);
        let report = Mutex::new(Report::default());
        let settled = catch_unwind(AssertUnwindSafe(|| self.settle(entry, &page, &report, monitor)));
        let settled =
            settled.unwrap_or_else(|_| Err(Error::new(ErrorKind::Bug, "this program has a bug: it panicked")));
        let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        let recorded = settled.and_then(|settled| match settled {
            Settled::Kept(row) => Ok(row),
            Settled::Made(row, made) => {
                let row = counted(row, &report, began, monitor);
                let made = Made { digest: row.digest.clone(), ..made };
                self.record(row.clone(), Some(made), &report)?;
                Ok(row)
            }
        });
        Some(recorded.unwrap_or_else(|error| {
            let failed = self.failed(entry, &error);
            if failed.status == Status::Missing {
                // Where that cannot be written, the next run does.
                let _ = self.book.give_back(&page, &entry.output);
                return failed;
            }
            let failed = counted(failed, &report, began, monitor);
            // An output of an earlier run is still what it is, and one that was touched is looked at.
            let made = page.record.and_then(|record| record.made);
            // Where not even that can be written, the row says what went wrong first.
            let _ = self.record(failed.clone(), made, &report);
            failed
        }))
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.batch.directory.join(&entry.output)
    }

    fn record(&self, row: Row, made: Option<Made>, report: &Report) -> Result<()> {
        self.book.write(&self.record_of(row, made, report))
    }

    fn record_of(&self, row: Row, made: Option<Made>, report: &Report) -> Record {
        let report = serde_json::to_value(report).unwrap_or_default();
        Record { schema_version: 1, row, format: self.batch.format.to_string(), made, report }
    }

    /// A row for what failed; for what was stopped, one that says that it is still to be done.
    fn failed(&self, entry: &Entry, error: &Error) -> Row {
        if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Terminated) {
            return row(entry, Status::Missing);
        }
        let status = if entry.is_tag && error.is_artifact() { Status::Skipped } else { Status::Failed };
        Row { error: Some((self.batch.describe)(error)), ..row(entry, status) }
    }

    /// Keeps the output that is there, or makes it.
    fn settle(&self, entry: &Entry, page: &Page, report: &Mutex<Report>, monitor: &Monitor) -> Result<Settled> {
        let batch = self.batch;
        let path = self.path(entry);
        let state = origin::of_output(&path);
        let of_source = |record: &&Record| record.row.source == source_text(entry) && !batch.force;
        let earlier = page.record.as_ref().filter(of_source);
        let made = earlier.and_then(|record| record.made.clone()).filter(|_| state.is_some());
        let is_untouched = |made: &Made| Some(&made.file) == state.as_ref() && !batch.verify;
        let mut conversion = batch.conversion(entry)?;
        let options = fingerprint(&conversion);
        let made = made.filter(|made| made.options == options && made.source == source_text(entry));
        if let (true, Some(record), Some(made)) = (batch.retry_failed, earlier, &made)
            && record.row.status.is_good()
            && is_untouched(made)
        {
            return Ok(Settled::Kept(kept(entry, made)));
        }
        let ask = || origin::now(&entry.spec, &entry.access, &conversion.open, monitor);
        let mut now = match (&entry.spec, &made) {
            // What a registry or an engine gives is told by the conversion itself.
            (Spec::Registry(_) | Spec::DockerDaemon(_), None) => None,
            _ => ask()?,
        };
        let same = made.filter(|made| made.origin.is_some() && made.origin == now);
        if let Some(made) = &same {
            let good = earlier.is_some_and(|record| record.row.status.is_good());
            if is_untouched(made) && good {
                return Ok(Settled::Kept(kept(entry, made)));
            }
            if is_untouched(made) || self.is_whole(&path, made, monitor)? {
                let row = kept(entry, made);
                let made = Made { file: origin::of_output(&path).unwrap_or_default(), ..made.clone() };
                self.record(Row { status: Status::Done, ..row.clone() }, Some(made), &Report::default())?;
                return Ok(Settled::Kept(row));
            }
        }
        let recorded = page.record.as_ref().and_then(|record| record.made.as_ref());
        let is_free = path.symlink_metadata().is_err();
        let if_exists = match recorded {
            _ if batch.force => IfExists::Replace,
            // Who comes meanwhile keeps what he wrote, unless that is what this would write.
            _ if is_free => {
                if self.is_sif() {
                    IfExists::Reuse
                } else {
                    IfExists::Fail
                }
            }
            _ if same.is_some() && self.is_sif() => IfExists::Update,
            // The file is still the one that a batch made.
            Some(made) if Some(&made.file) == state.as_ref() => IfExists::Replace,
            _ => self.if_touched(page, conversion.target.signing_mut().as_deref(), &path)?,
        };
        conversion.options.if_exists = Some(if_exists);
        conversion.options.sha256 = !self.is_sif();
        if let Some(store) = self.store.as_ref().filter(|_| matches!(entry.spec, Spec::Registry(_))) {
            store.serve(&mut conversion.open.registry);
        }
        // If this is killed after the output has its name, that is a batch's, too, but not what the record says.
        if is_free || same.is_none() && if_exists == IfExists::Replace {
            self.book
                .claim(page, &self.record_of(row(entry, Status::Missing), recorded.cloned(), &Report::default()))?;
        }
        let outcome = conversion.run(report, monitor)?;
        let image = report.lock().unwrap_or_else(PoisonError::into_inner).image.clone();
        match &entry.spec {
            // What was converted, which may be newer than what was asked for.
            Spec::Registry(_) => now = image.as_ref().map(digest_of),
            Spec::DockerDaemon(_) if now.is_none() => {
                let ask = origin::now(&entry.spec, &entry.access, &conversion.open, monitor);
                now = ask.ok().flatten().filter(|now| is_of_image(now, image.as_ref()));
            }
            _ => {}
        }
        let was_there = outcome.notes.iter().any(|note| note.code == "output-reused");
        let sha256 = outcome.sha256.as_ref().map(Digest::hex);
        let status = if was_there { Status::Kept } else { Status::Done };
        let row = Row { bytes: Some(outcome.size), sha256: sha256.clone(), ..row(entry, status) };
        let file = origin::of_output(&path).unwrap_or_default();
        let (source, bytes) = (source_text(entry), outcome.size);
        Ok(Settled::Made(row, Made { source, options, origin: now, file, sha256, digest: None, bytes }))
    }

    fn is_sif(&self) -> bool {
        self.batch.format == "sif"
    }

    /// Whether a file that was touched, or is to be verified, is what was made. A SIF carries checksums: it is looked at by the
    /// conversion.
    fn is_whole(&self, path: &Path, made: &Made, monitor: &Monitor) -> Result<bool> {
        match &made.sha256 {
            Some(sha256) if !self.is_sif() => Ok(hash_file(path, monitor)?.hex() == *sha256),
            _ => Ok(false),
        }
    }

    /// What becomes of an output that exists and is not the file that a batch recorded. One that no batch wrote is not replaced, and
    /// used only if it is a SIF that is what would be written. One that a batch wrote is replaced unless somebody added to it.
    fn if_touched(&self, page: &Page, signing: Option<&Signing>, path: &Path) -> Result<IfExists> {
        let is_foreign = |record: &Record| record.made.is_none() && record.row.status == Status::Failed;
        if page.record.as_ref().is_none_or(is_foreign) || !path.is_file() {
            if self.is_sif() && path.is_file() {
                return Ok(IfExists::Reuse);
            }
            let what = if path.is_file() { "no batch wrote it" } else { "it is not a file" };
            let message = format!("output {path:?} exists, and {what}");
            return Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::ReplaceAnyway));
        }
        if self.is_sif() && path.is_file() {
            let added = added_objects(path, signing)?;
            if !added.is_empty() {
                let added = added.join(", ");
                let message =
                    format!("output {path:?} is to be replaced, but holds what was added to it later: {added}");
                return Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::ReplaceAnyway));
            }
        }
        Ok(IfExists::Replace)
    }
}

/// How an entry was settled.
enum Settled {
    /// The output that was there will do, as is recorded.
    Kept(Row),
    /// By a conversion.
    Made(Row, Made),
}

/// The digest that a source named.
fn digest_of(image: &ImageRecord) -> String {
    image.index_digest.as_ref().or(image.manifest_digest.as_ref()).unwrap_or(&image.id).clone()
}

/// With what was found out and counted on the way.
fn counted(row: Row, report: &Report, began: Instant, monitor: &Monitor) -> Row {
    Row {
        digest: report.image.as_ref().map(digest_of),
        seconds: (began.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
        downloaded_bytes: monitor.snapshot().received_bytes,
        cached_bytes: monitor.saved_bytes(),
        ..row
    }
}

/// Whether what an engine names now is this image, which it exported a moment ago.
fn is_of_image(now: &str, image: Option<&ImageRecord>) -> bool {
    image.is_some_and(|image| {
        let digests = [Some(&image.id), image.manifest_digest.as_ref(), image.index_digest.as_ref()];
        digests.into_iter().flatten().any(|digest| digest == now)
    })
}

/// A digest of all that decides, besides the image, about the bytes of an output and whether there is to be one.
fn fingerprint(conversion: &Conversion) -> String {
    let Conversion { target, selection, changes, options, open, .. } = conversion;
    let text = format!(
        "{} {OUTPUT_FORMAT} {target:?} {selection:?} {changes:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        env!("CARGO_PKG_VERSION"),
        options.mode,
        options.source_date_epoch,
        open.platform,
        open.all_root,
        open.keep_singularity,
        open.trust,
        open.policy
    );
    Digest::of(text.as_bytes()).to_string()
}

fn source_text(entry: &Entry) -> String {
    crate::report::text(&entry.source)
}

fn row(entry: &Entry, status: Status) -> Row {
    Row {
        number: entry.number,
        status,
        source: source_text(entry),
        output: entry.output.clone(),
        digest: None,
        bytes: None,
        sha256: None,
        seconds: 0.0,
        downloaded_bytes: 0,
        cached_bytes: 0,
        error: None,
    }
}

fn kept(entry: &Entry, made: &Made) -> Row {
    let Made { digest, bytes, sha256, .. } = made.clone();
    Row { digest, bytes: Some(bytes), sha256, ..row(entry, Status::Kept) }
}
