//! The merged names of an image without its contents: for whoever only looks.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::num::NonZeroUsize;

use super::budget::Budget;
use super::layer::{self, Change, Keep};
use super::merge;
use super::schedule::{Schedule, largest_first};
use crate::error::{Result, ResultExt as _};
use crate::image::Image;
use crate::io::{Codec, ContentSum, Expected, Monitor, Phase, Region, decode, read_error};
use crate::model::Digest;
use crate::tar::{Entries, Entry, Input};
use crate::tree::{FileId, Tree};

/// How [`list`] goes about it.
pub(crate) struct ListOptions<'a> {
    /// How many layers are read at once.
    pub jobs: NonZeroUsize,
    /// Who watches.
    pub monitor: &'a Monitor,
    /// How many bytes of memory the files may take.
    pub memory_bytes_max: u64,
    /// Whether the contents of a layer's files are summed up, where they must be decoded anyway.
    pub wants_sums: &'a (dyn Fn(usize) -> bool + Sync),
}

/// The names of an image.
pub(crate) struct Listed {
    /// The merged file system. A file's [`FileId`] is the number of its layer, its offset one in that layer's plain tar.
    pub tree: Tree,
    /// Sums of contents by layer; `None` where the layer is not compressed, or none are wanted.
    pub sums: Vec<Option<Sums>>,
    /// Which layers are compressed: decoded and verified.
    pub decoded: Vec<bool>,
}

/// Sums of the contents of one layer's files, by where they begin in its plain tar.
#[derive(Debug, Default)]
pub(crate) struct Sums(BTreeMap<u64, Digest>);

impl Sums {
    /// The sum of the file whose data begins at `offset`, as [`ContentSum`] has it.
    pub(crate) fn get(&self, offset: u64) -> Option<Digest> {
        self.0.get(&offset).copied()
    }

    /// Reads the contents of the entry at hand.
    pub(super) fn add<I: Input>(&mut self, entries: &mut Entries<I>, entry: &Entry) -> Result<()> {
        let mut sum = ContentSum::default();
        let Some(segments) = &entry.segments else {
            entries.for_each_piece(|bytes| {
                sum.update(bytes);
                Ok(())
            })?;
            self.0.insert(entry.data_offset, sum.finish());
            return Ok(());
        };
        let (mut segments, mut at) = (segments.iter(), 0);
        let mut left = 0;
        entries.for_each_piece(|mut bytes| {
            while !bytes.is_empty() {
                while left == 0 {
                    let Some(segment) = segments.next() else { return Ok(()) };
                    sum.zeros(segment.at - at);
                    (at, left) = (segment.at + segment.len, segment.len);
                }
                let (now, rest) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                sum.update(now);
                left -= now.len() as u64;
                bytes = rest;
            }
            Ok(())
        })?;
        sum.zeros(entry.size - at);
        self.0.insert(entry.data_offset, sum.finish());
        Ok(())
    }
}

/// Lists an image. Layers that are compressed are decoded and verified; of the others only headers are read, and nothing is
/// verified.
///
/// # Errors
/// As for [`flatten`](super::flatten), but for the digests of layers that are not compressed.
pub(crate) fn list(image: &Image, options: &ListOptions<'_>) -> Result<Listed> {
    super::run::expect_files(image)?;
    let count = image.layers.len();
    let plain: Vec<Option<Region>> = (0..count).map(|index| plain_region(image, index)).collect::<Result<_>>()?;
    let stored = |index: usize| image.layers[index].blob.size.unwrap_or(0);
    let compressed: Vec<usize> = (0..count).filter(|&index| plain[index].is_none()).collect();
    options.monitor.begin(Phase::Read, compressed.iter().map(|&index| stored(index)).sum());
    let schedule = Schedule::new(options.jobs, options.monitor);
    let budget = Budget::new(options.memory_bytes_max);
    let read = |index: usize| -> Result<(Vec<Change>, Option<Sums>)> {
        let doing = || format!("reading {}", image.layer_name(index));
        let file = FileId(index as u32);
        if let Some(region) = &plain[index] {
            let keep = Keep::Nothing { file, sums: None };
            return Ok((layer::scan(region, keep, &budget, options.monitor).doing(doing)?.changes, None));
        }
        let mut sums = (options.wants_sums)(index).then(Sums::default);
        let source = &image.layers[index];
        let (bytes, expected) = image.blobs.open_expecting(&source.blob).doing(doing)?;
        let consume = |stream: &mut dyn BufRead| {
            layer::read(stream, Keep::Nothing { file, sums: sums.as_mut() }, &budget, options.monitor)
        };
        let staged = options.jobs.get() > 1;
        let decoded = decode(bytes, expected, source.algorithm(), options.monitor, staged, consume);
        let (read, found) = decoded.doing(doing)?;
        let expected = Expected { digest: source.diff_id, size: None };
        expected
            .check(found.digest, found.bytes)
            .doing(|| "the uncompressed layer against its diff_id")
            .doing(doing)?;
        Ok((read.changes, sums))
    };
    let order = largest_first((0..count).map(|index| (index, stored(index))));
    let mut results = schedule.each(&order, read)?;
    results.sort_by_key(|(index, _)| *index);
    let times = image.config.layer_times(count);
    let root_time = times.first().copied().or_else(|| image.config.created());
    let mut tree = Tree::new(root_time.unwrap_or_default());
    let mut sums = Vec::with_capacity(count);
    for (index, (changes, of_layer)) in results {
        merge::apply(&mut tree, changes, index as u32, times[index], &budget)
            .doing(|| format!("merging {}", image.layer_name(index)))?;
        sums.push(of_layer);
    }
    let decoded = plain.iter().map(Option::is_none).collect();
    Ok(Listed { tree, sums, decoded })
}

/// Where the tar of a layer lies uncompressed in a file, if it does.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn plain_region(image: &Image, index: usize) -> Result<Option<Region>> {
    let doing = || format!("reading {}", image.layer_name(index));
    let Some(region) = image.blobs.region(&image.layers[index].blob).doing(doing)? else { return Ok(None) };
    let mut start = [0; Codec::SNIFF_BYTES];
    let count = region.read_at(&mut start, 0).map_err(read_error).doing(doing)?;
    Ok((Codec::sniff(&start[..count]) == Codec::None).then_some(region))
}

/// Checks that the uncompressed layer `index` is what its digests say.
///
/// # Errors
/// [`ErrorKind::Mismatch`](crate::ErrorKind) when it is not.
pub(crate) fn verify_plain(image: &Image, index: usize, region: &Region, monitor: &Monitor) -> Result<()> {
    let layer = &image.layers[index];
    let doing = || format!("verifying {}", image.layer_name(index));
    let mut known: Vec<Digest> = layer.diff_id.into_iter().chain(layer.blob.digest).collect();
    known.dedup();
    for digest in known {
        let algorithm = digest.algorithm();
        let (found, bytes) =
            crate::io::hash_region_with(algorithm, region, read_error, |_| monitor.check()).doing(doing)?;
        Expected { digest: Some(digest), size: layer.blob.size }.check(found, bytes).doing(doing)?;
    }
    Ok(())
}
