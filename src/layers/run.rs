use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::budget::Budget;
use super::contents::{Contents, Place, Stored};
use super::forecast::{Above, Forecaster, Visible};
use super::known::{self, ENTRIES_REMEMBERED_MAX, KnownContents, KnownLayer, KnownLayers, ReadLayer};
use super::layer::{self, Change, Changes, Keep};
use super::merge;
use super::schedule::{Results, Schedule, all_right, blames_the_data, explained, largest_first};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::image::{Image, Layer};
use crate::io::{Codec, Expected, Monitor, Phase, Region, Spool, Stamp, decode, hash_region_with, read_error};
use crate::model::{Digest, Timestamp};
use crate::tree::{FileId, Tree};

/// How [`flatten`] goes about it.
pub struct Options<'a> {
    /// How many layers are read or hashed at once.
    pub jobs: NonZeroUsize,
    /// Who watches.
    pub monitor: &'a Monitor,
    /// Makes room for contents of compressed layers; asked at most once, and only where there are any.
    pub spool: &'a (dyn Fn() -> Result<Spool> + Sync),
    /// Whether every digest is checked before the caller sees the tree, rather than while it works. For outputs that
    /// cannot be taken back.
    pub verify_first: bool,
    /// How many bytes of memory the files of the image may take, by what [`layers`](super) counts for each.
    pub memory_bytes_max: u64,
    /// Foresees where in the spool's file the contents of one layer belong, where the output is such that this can be done.
    pub forecaster: Option<&'a Forecaster<'a>>,
    /// Layers that need not be read, because they have been before. Only for outputs that read contents by
    /// [`Contents::read_at`].
    pub known: Option<&'a dyn KnownLayers>,
}

impl<'a> Options<'a> {
    /// On all cores, within the usual memory, with every digest checked first.
    pub fn new(monitor: &'a Monitor, spool: &'a (dyn Fn() -> Result<Spool> + Sync)) -> Self {
        Options {
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            monitor,
            spool,
            verify_first: true,
            memory_bytes_max: super::MEMORY_BYTES_MAX,
            forecaster: None,
            known: None,
        }
    }
}

/// A flattened image, while its digests may still be being checked.
pub struct Flattened {
    /// The merged file system.
    pub tree: Tree,
    /// Where its bytes are.
    pub contents: Contents,
    /// Bytes that decoded contents take in the spool.
    pub spooled_bytes: u64,
    /// What there is to remember of layers that were read, where somebody knows layers.
    pub read: Vec<ReadLayer>,
}

/// What was read and found right.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Entries of all layers.
    pub entries: u64,
    /// Bytes of each layer's uncompressed tar, lowest first.
    pub layer_bytes: Vec<u64>,
}

/// Merges the layers of `image` and gives the result to `emit`. Every layer's digests are verified by the time this
/// returns: what `emit` wrote may be shown to the world only after that.
///
/// # Errors
/// Errors of `emit`; [`ErrorKind::Mismatch`] for a layer that is not what its digests say, which is told rather than
/// whatever else went wrong because of it; otherwise why a layer could not be read or merged.
pub fn flatten<T>(
    image: &Image,
    options: &Options<'_>,
    emit: impl FnOnce(Flattened) -> Result<T>,
) -> Result<(T, Summary)> {
    expect_files(image)?;
    let plans = plan(image, options.known)?;
    let stamps = stamps(image, &plans)?;
    let stored_bytes = plans.iter().map(Plan::stored_bytes).sum();
    options.monitor.begin(Phase::Read, stored_bytes);
    let run = Run {
        image,
        options,
        plans,
        budget: Budget::new(options.memory_bytes_max),
        spool: OnceLock::new(),
        making_spool: Mutex::default(),
        read: Mutex::default(),
        schedule: Schedule::new(options.jobs, options.monitor),
    };
    run.schedule.run(|scope| {
        let (changes_sender, changes) = channel();
        let (check_sender, checks) = channel();
        let last = run.read_last();
        run.start(scope, last, changes_sender, &check_sender);
        if last.is_none() {
            run.start_hashing(scope, &check_sender);
        }
        let merged = run.merge(changes, last, &check_sender);
        if last.is_some() {
            // What the last layer needed both cores for is done; writing the output takes one.
            run.start_hashing(scope, &check_sender);
        }
        drop(check_sender);
        let result = merged.and_then(|tree| run.emit(tree, &checks, emit));
        if result.as_ref().is_err_and(|error| !blames_the_data(error)) {
            run.schedule.give_up();
        }
        let concluded = run.conclude(result, checks)?;
        // What was copied is what was hashed, for nobody wrote to it meanwhile.
        stamps.iter().try_for_each(Stamp::check).doing(|| format!("reading {}", image.blobs.name()))?;
        Ok(concluded)
    })
}

/// The same of an image whose one layer is a tree already, the contents of which are in `contents`; with the number of its
/// names.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when it takes more than `memory_bytes_max`, or is not for Linux.
pub(crate) fn flattened(
    image: &Image,
    tree: Tree,
    contents: Arc<dyn KnownContents>,
    memory_bytes_max: u64,
) -> Result<(Flattened, u64)> {
    expect_files(image)?;
    let budget = Budget::new(memory_bytes_max);
    tree.walk().try_for_each(|visit| budget.spend_name(visit.path.len(), tree.inode(visit.inode)))?;
    let contents = Contents::new(vec![Place::Known(contents)], None);
    Ok((Flattened { tree, contents, spooled_bytes: 0, read: Vec::new() }, budget.entries()))
}

/// Refuses images whose layers are not made of a system's files as they are: those of Windows hold `Files` and `Hives`.
pub(super) fn expect_files(image: &Image) -> Result<()> {
    let platform = image.platform();
    if platform.os != "windows" && platform.architecture != "wasm" {
        return Ok(());
    }
    let message = format!("{} is an image for {platform}, not for Linux", image.blobs.name());
    Err(Error::new(ErrorKind::Unsupported, message).hint("give an image for Linux"))
}

/// Of the files that two readers share: one that hashes, and the writer of the output.
fn stamps(image: &Image, plans: &[Plan]) -> Result<Vec<Stamp>> {
    let mut stamps: Vec<Stamp> = Vec::new();
    for plan in plans {
        if let Plan::InPlace(region) = plan
            && !stamps.last().is_some_and(|last| last.is_of(&region.file))
        {
            stamps.extend(Stamp::of(&region.file).doing(|| format!("reading {}", image.blobs.name()))?);
        }
    }
    Ok(stamps)
}

/// So many times larger than any other compressed layer is one that is worth waiting for the others.
const BY_FAR: u64 = 4;

/// How one layer is read.
enum Plan {
    /// Its tar lies uncompressed in a file: headers are read, contents stay, and a second reader hashes all of it.
    InPlace(Region),
    /// It is compressed and lies in a file: decoded once, contents kept in the spool. A second reader hashes the stored
    /// bytes, when a core has nothing better to do.
    DecodeFile(Region),
    /// It comes from somewhere that is not a file: decoded and hashed in both forms as it comes.
    DecodeStream {
        /// Bytes as stored, where known.
        stored_bytes: u64,
    },
    /// It was read and verified earlier: nothing of it is read now.
    Known(KnownLayer),
}

impl Plan {
    fn stored_bytes(&self) -> u64 {
        match self {
            Plan::InPlace(region) | Plan::DecodeFile(region) => region.len,
            Plan::DecodeStream { stored_bytes } => *stored_bytes,
            Plan::Known(_) => 0,
        }
    }
}

fn plan(image: &Image, known: Option<&dyn KnownLayers>) -> Result<Vec<Plan>> {
    let plan_one = |index: usize| -> Result<Plan> {
        let Layer { blob, diff_id } = &image.layers[index];
        if let Some(layer) = diff_id.and_then(|diff_id| known?.find(index as u32, diff_id)) {
            image.blobs.forget(blob);
            return Ok(Plan::Known(layer));
        }
        let Some(region) = image.blobs.region(blob)? else {
            return Ok(Plan::DecodeStream { stored_bytes: blob.size.unwrap_or(0) });
        };
        let mut start = [0; Codec::SNIFF_BYTES];
        let count = region.read_at(&mut start, 0).map_err(read_error)?;
        Ok(match Codec::sniff(&start[..count]) {
            Codec::None => Plan::InPlace(region),
            _ => Plan::DecodeFile(region),
        })
    };
    let named = |index| plan_one(index).doing(|| format!("reading {}", image.layer_name(index)));
    (0..image.layers.len()).map(named).collect()
}

/// What is found out about one layer's tar as a whole.
struct Hashed {
    diff_id: Digest,
    bytes: u64,
}

/// What a check of one layer came to.
enum Check {
    /// The uncompressed tar is what it should be.
    Tar(Hashed),
    /// The stored bytes are what they should be.
    Stored,
}

type Received = (usize, Result<Changes>);
type Checked = (usize, Result<Check>);

struct Run<'a, 'o> {
    image: &'a Image,
    options: &'a Options<'o>,
    plans: Vec<Plan>,
    budget: Budget,
    spool: OnceLock<Spool>,
    making_spool: Mutex<()>,
    schedule: Schedule<'o>,
    read: Mutex<Vec<ReadLayer>>,
}

impl Run<'_, '_> {
    /// The layer that is read when all others have been: one compressed layer whose contents are then decoded straight to
    /// their place in the output. It must be by far the largest where more than two threads could have read it beside the
    /// others.
    fn read_last(&self) -> Option<usize> {
        self.options.forecaster.filter(|_| self.options.jobs.get() > 1 && !self.options.verify_first)?;
        let is_decoded = |index: &usize| matches!(self.plans[*index], Plan::DecodeFile(_) | Plan::DecodeStream { .. });
        let mut order: Vec<usize> = self.order().into_iter().filter(is_decoded).collect();
        let next = order.get(1).map_or(0, |&index| self.plans[index].stored_bytes());
        order.truncate(1);
        let largest = order.pop().filter(|&index| matches!(self.plans[index], Plan::DecodeFile(_)))?;
        let alone = self.plans[largest].stored_bytes() / BY_FAR >= next;
        (alone || self.options.jobs.get() <= 2).then_some(largest)
    }

    /// Large layers come before small ones.
    fn order(&self) -> Vec<usize> {
        largest_first(self.plans.iter().map(Plan::stored_bytes).enumerate())
    }

    /// Starts reading all layers but `last`. Headers come before hashes, because merging waits for them.
    fn start<'s>(
        &'s self,
        scope: &rayon::Scope<'s>,
        last: Option<usize>,
        changes: Sender<Received>,
        checks: &Sender<Checked>,
    ) {
        for index in self.order().into_iter().filter(|&index| Some(index) != last) {
            let (changes, checks) = (changes.clone(), checks.clone());
            scope.spawn(move |_| match &self.plans[index] {
                Plan::InPlace(region) => drop(changes.send((index, self.scan(index, region)))),
                Plan::DecodeFile(_) | Plan::DecodeStream { .. } => {
                    let (read, hashed) = split(self.decode(index, None));
                    let _ = checks.send((index, hashed));
                    let _ = changes.send((index, read));
                }
                Plan::Known(layer) => {
                    let (read, hashed) = split(self.recall(index, layer));
                    let _ = checks.send((index, hashed));
                    let _ = changes.send((index, read));
                }
            });
        }
    }

    fn start_hashing<'s>(&'s self, scope: &rayon::Scope<'s>, checks: &Sender<Checked>) {
        for index in self.order() {
            if let Some(region) = self.hashed_apart(index) {
                let checks = checks.clone();
                scope.spawn(move |_| drop(checks.send((index, self.hash(index, region)))));
            }
        }
    }

    /// The stored bytes of a layer that a reader of its own hashes: all that lie in a file and about which something is
    /// known.
    fn hashed_apart(&self, index: usize) -> Option<&Region> {
        let Expected { digest, size } = self.image.layers[index].blob.expected();
        match &self.plans[index] {
            Plan::InPlace(region) => Some(region),
            Plan::DecodeFile(region) if digest.is_some() || size.is_some() => Some(region),
            _ => None,
        }
    }

    /// What is known of a layer. Its digest is what it was found by.
    fn recall(&self, index: usize, layer: &KnownLayer) -> Result<(Changes, Hashed)> {
        let doing = || format!("recalling {}", self.image.layer_name(index));
        let (changes, bytes) = known::decode(&layer.entries, index as u32, &self.budget).doing(doing)?;
        let diff_id = self.image.layers[index].diff_id;
        let diff_id = diff_id.ok_or_else(|| Error::new(ErrorKind::Bug, "a layer without a digest is known"))?;
        Ok((changes, Hashed { diff_id, bytes }))
    }

    fn scan(&self, index: usize, region: &Region) -> Result<Changes> {
        let keep = Keep::InPlace { file: FileId(index as u32), offset: region.offset };
        layer::scan(region, keep, &self.budget, self.options.monitor)
            .doing(|| format!("reading {}", self.image.layer_name(index)))
    }

    fn decode(&self, index: usize, forecast: Option<Visible<'_>>) -> Result<(Changes, Hashed)> {
        let blob = &self.image.layers[index].blob;
        let doing = || format!("reading {}", self.image.layer_name(index));
        let spool = self.spool()?;
        let (stored, expected) = match self.plans[index] {
            Plan::DecodeStream { .. } => self.image.blobs.open_expecting(blob).doing(doing)?,
            _ => (self.image.blobs.open(blob).doing(doing)?, Expected::default()),
        };
        let staged = self.options.jobs.get() > 1;
        let file = FileId(self.plans.len() as u32);
        let keep = Keep::Spool { layer: index as u32, file, writer: spool.writer(), forecast };
        let read = |stream: &mut dyn io::BufRead| layer::read(stream, keep, &self.budget, self.options.monitor);
        let algorithm = self.image.layers[index].algorithm();
        let (changes, found) = decode(stored, expected, algorithm, self.options.monitor, staged, read).doing(doing)?;
        let hashed = Hashed { diff_id: found.digest, bytes: found.bytes };
        self.check_diff_id(index, &hashed).doing(doing)?;
        Ok((changes, hashed))
    }

    fn spool(&self) -> Result<&Spool> {
        if let Some(spool) = self.spool.get() {
            return Ok(spool);
        }
        let _turn = self.making_spool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spool) = self.spool.get() {
            return Ok(spool);
        }
        let made = (self.options.spool)()?;
        Ok(self.spool.get_or_init(|| made))
    }

    fn hash(&self, index: usize, region: &Region) -> Result<Check> {
        let doing = || format!("verifying {}", self.image.layer_name(index));
        let hash = |algorithm| {
            let hashed = hash_region_with(algorithm, region, read_error, |count| {
                if self.options.verify_first {
                    self.options.monitor.advance(count);
                }
                self.schedule.check()
            });
            hashed.doing(doing)
        };
        let layer = &self.image.layers[index];
        let of_tar = layer.algorithm();
        let of_blob = layer.blob.digest.map_or(of_tar, |digest| digest.algorithm());
        let stored = hash(of_blob)?;
        layer.blob.expected().check(stored.0, stored.1).doing(doing)?;
        if let Plan::DecodeFile(_) = self.plans[index] {
            return Ok(Check::Stored);
        }
        let (diff_id, bytes) = if of_tar == of_blob { stored } else { hash(of_tar)? };
        let hashed = Hashed { diff_id, bytes };
        self.check_diff_id(index, &hashed).doing(doing)?;
        Ok(Check::Tar(hashed))
    }

    fn check_diff_id(&self, index: usize, hashed: &Hashed) -> Result<()> {
        let expected = Expected { digest: self.image.layers[index].diff_id, size: None };
        expected.check(hashed.diff_id, hashed.bytes).doing(|| "the uncompressed layer against its diff_id")
    }

    /// Merges all layers in their order; `last` is read when the others have been.
    fn merge(&self, changes: Receiver<Received>, last: Option<usize>, checks: &Sender<Checked>) -> Result<Tree> {
        let layers = self.plans.len();
        let mut received: Vec<Option<Result<Changes>>> = (0..layers).map(|_| None).collect();
        for (index, result) in changes {
            received[index] = Some(result);
        }
        let times = self.image.config.layer_times(layers);
        let root_time = times.first().copied().or_else(|| self.image.config.created());
        let mut tree = Tree::new(root_time.unwrap_or_default());
        for index in 0..layers {
            if Some(index) == last {
                let forecast = self.forecast(&tree, index, &received[index + 1..], &times);
                let (read, hashed) = split(self.decode(index, forecast));
                let _ = checks.send((index, hashed));
                received[index] = Some(read);
            }
            let lost = || Err(Error::new(ErrorKind::Bug, "a layer was lost"));
            let read = received[index].take().unwrap_or_else(lost)?;
            self.remember(index, &read);
            self.apply(&mut tree, read.changes, index, times[index], &self.budget)?;
        }
        Ok(tree)
    }

    /// Foresees where the contents of layer `index` belong, from what is below it and what was read of what is above.
    fn forecast(
        &self,
        below: &Tree,
        index: usize,
        above: &[Option<Result<Changes>>],
        times: &[Timestamp],
    ) -> Option<Visible<'_>> {
        let mut others = below.clone();
        let mut hidden = Above::default();
        let budget = self.budget.remainder();
        for (layer, changes) in (index + 1..).zip(above) {
            let changes = &changes.as_ref()?.as_ref().ok()?.changes;
            hidden.add(changes);
            // An error here comes again, and is told, when the layers are merged for good.
            self.apply(&mut others, changes.clone(), layer, times[layer], &budget).ok()?;
        }
        let forecaster = self.options.forecaster?;
        Some(Visible::new(hidden, forecaster(self.flattened(others), index as u32)))
    }

    fn apply(
        &self,
        tree: &mut Tree,
        changes: Vec<Change>,
        index: usize,
        time: Timestamp,
        budget: &Budget,
    ) -> Result<()> {
        self.options.monitor.check()?;
        merge::apply(tree, changes, index as u32, time, budget)
            .doing(|| format!("applying {}", self.image.layer_name(index)))
    }

    fn emit<T>(
        &self,
        tree: Tree,
        checks: &Receiver<Checked>,
        emit: impl FnOnce(Flattened) -> Result<T>,
    ) -> Result<(T, Vec<(usize, Check)>)> {
        let verified = if self.options.verify_first { all_right(self.wait(checks))? } else { Vec::new() };
        Ok((emit(self.flattened(tree))?, verified))
    }

    fn flattened(&self, tree: Tree) -> Flattened {
        let spooled_bytes = self.spool.get().map_or(0, Spool::used_bytes);
        let read = std::mem::take(&mut *self.read.lock().unwrap_or_else(PoisonError::into_inner));
        Flattened { tree, contents: self.contents(), spooled_bytes, read }
    }

    /// Keeps what there is to remember of a layer, where somebody may want to.
    fn remember(&self, index: usize, read: &Changes) {
        let (Some(_), Some(diff_id)) = (self.options.known, self.image.layers[index].diff_id) else { return };
        if !matches!(self.plans[index], Plan::Known(_)) && self.budget.entries() <= ENTRIES_REMEMBERED_MAX {
            let mut remembered = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.push(ReadLayer::of(index as u32, diff_id, read));
        }
    }

    /// File `n` is where layer `n` lies in place, and the spool comes last. Layers that were decoded have no file of their
    /// own: nothing in the tree points there, and the spool fills the place.
    fn contents(&self) -> Contents {
        let spool = self.spool.get();
        let in_place = self.plans.iter().filter_map(|plan| match plan {
            Plan::InPlace(region) => Some(Place::File(Stored::of_region(region))),
            Plan::DecodeFile(_) | Plan::DecodeStream { .. } => spool.map(|it| Place::File(Stored::of_spool(it))),
            Plan::Known(layer) => Some(Place::Known(Arc::clone(&layer.contents))),
        });
        Contents::new(in_place.collect(), spool)
    }

    fn wait(&self, checks: &Receiver<Checked>) -> Results<Check> {
        self.options.monitor.begin(Phase::Verify, 0);
        checks.iter().collect()
    }

    /// Waits for the digests that are still being computed, and puts the first cause of trouble first.
    fn conclude<T>(&self, result: Result<(T, Vec<(usize, Check)>)>, checks: Receiver<Checked>) -> Result<(T, Summary)> {
        let late = self.wait(&checks);
        let (value, mut early) = match result {
            Ok(result) => result,
            Err(error) => return Err(explained(error, late)),
        };
        early.extend(all_right(late)?);
        early.sort_by_key(|(index, _)| *index);
        let hashed = self.expect_all(early)?;
        let layer_bytes = hashed.iter().map(|hashed| hashed.bytes).collect();
        let diff_ids = hashed.iter().map(|hashed| hashed.diff_id).collect();
        Ok((value, Summary { diff_ids, entries: self.budget.entries(), layer_bytes }))
    }

    /// The proof that every check was made.
    fn expect_all(&self, checks: Vec<(usize, Check)>) -> Result<Vec<Hashed>> {
        let mut hashed = Vec::new();
        let mut stored = 0;
        for (_, check) in checks {
            match check {
                Check::Tar(found) => hashed.push(found),
                Check::Stored => stored += 1,
            }
        }
        let apart =
            |index: &usize| matches!(self.plans[*index], Plan::DecodeFile(_)) && self.hashed_apart(*index).is_some();
        let expected = (0..self.plans.len()).filter(apart).count();
        if hashed.len() != self.plans.len() || stored != expected {
            return Err(Error::new(ErrorKind::Bug, "a layer was not verified"));
        }
        Ok(hashed)
    }
}

fn split(result: Result<(Changes, Hashed)>) -> (Result<Changes>, Result<Check>) {
    match result {
        Ok((changes, hashed)) => (Ok(changes), Ok(Check::Tar(hashed))),
        // The message travels with the changes; the tar only must not count as verified.
        Err(error) => (Err(error), Err(Error::new(ErrorKind::Other, "not decoded"))),
    }
}
