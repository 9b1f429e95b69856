//! What all outputs that are one file system have in common: layers are merged, and the result is written in one go.

use std::sync::Arc;
use std::thread;

use super::file_system::Shortcut;
use super::in_place::{self, Mover};
use super::options::Outcome;
use super::passage::Passage;
use super::place::{Finished, Place};
use super::prepared::Task;
use super::reuse::Reuse;
use super::root::Root;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::image::Image;
use crate::io::Monitor;
use crate::layers::{self, Flattened, KnownContents, KnownLayers, Summary, flatten};
use crate::model::Note;
use crate::squashfs;
use crate::volume::Volume;

/// What was written.
pub(super) struct Written {
    pub(super) names: u64,
    /// How long the output is.
    pub(super) bytes: u64,
    pub(super) notes: Vec<Note>,
}

/// What the output is that contents of layers may be decoded straight into.
#[derive(Clone, Copy)]
pub(super) enum Foresight<'a> {
    /// Not a tar, or one that is compressed.
    None,
    /// The tar of the merged layers, with what such a root has besides.
    Tar(Option<&'a Root>),
    /// Not a tar, but a squashfs of such blocks, which may be known.
    Blocks(BlockChoice<'a>),
}

/// What the blocks of a squashfs are.
#[derive(Clone, Copy)]
pub(super) struct BlockChoice<'a> {
    pub(super) options: &'a squashfs::Options,
    /// Whether nobody asked for a level of compression.
    pub(super) any_level: bool,
}

/// Flattens `image`, keeping contents in the clear on no disk where they are `private`, has `emit` write it, and finishes the output.
pub(super) fn write(
    image: &Image,
    place: Place,
    foresight: Foresight<'_>,
    private: bool,
    task: &Task,
    monitor: &Monitor,
    emit: impl Fn(Flattened, &Place, Option<&Shortcut>) -> Result<Written>,
) -> Result<Outcome> {
    if let Foresight::Blocks(choice) = foresight
        && let Some(volume) = image.blobs.volume()
        && let Some((written, summary)) = pass(image, volume, &place, choice, task, monitor, &emit)?
    {
        return finish(written, summary, image, place, task, monitor);
    }
    // What is kept lies in the clear.
    let cache = task.options.cache.as_ref().filter(|_| !private);
    let mut damaged = Vec::new();
    let (written, summary, reuse) = loop {
        let reuse = match (foresight, cache) {
            (Foresight::Blocks(BlockChoice { options, .. }), Some(cache)) => {
                Some(Reuse::open(cache, image, options.compression, options.block_size, &damaged, monitor)?)
            }
            _ => None,
        };
        let made = write_once(image, &place, (foresight, private), task, monitor, reuse.as_ref(), &emit);
        let found = reuse.as_ref().map_or(Vec::new(), |reuse| reuse.damaged());
        if found.is_empty() {
            let (written, summary) = made?;
            break (written, summary, reuse);
        }
        // Whatever came of it: it is made anew, from what is left.
        damaged.extend(found);
        place.reset()?;
    };
    let publish = |(reuse, cache): (Arc<Reuse>, _)| reuse.publish(&summary.layer_bytes, cache);
    let finished = finish(written, summary.clone(), image, place, task, monitor)?;
    let kept = reuse.zip(cache).map(publish).into_iter().flatten();
    Ok(Outcome { notes: finished.notes.into_iter().chain(kept).collect(), ..finished })
}

/// The output of a file system of blocks that is there already: no layer is read. `None` of any other.
fn pass(
    image: &Image,
    volume: &Arc<Volume>,
    place: &Place,
    choice: BlockChoice<'_>,
    task: &Task,
    monitor: &Monitor,
    emit: &impl Fn(Flattened, &Place, Option<&Shortcut>) -> Result<Written>,
) -> Result<Option<(Written, Summary)>> {
    let make = || {
        let Some(passage) = Passage::of(image, volume, choice, monitor)? else { return Ok(None) };
        let contents = Arc::clone(&passage) as Arc<dyn KnownContents>;
        let (flattened, entries) = layers::flattened(image, passage.tree(), contents, task.options.memory_bytes_max)?;
        let written = emit(flattened, place, Some(&Shortcut::Source(passage)))?;
        Ok(Some((written, Summary { diff_ids: Vec::new(), entries, layer_bytes: vec![volume.tar_bytes()] })))
    };
    // Reading all of the source takes about as long as writing what it has: the two go side by side.
    let part = monitor.part();
    let (written, checked) = thread::scope(|scope| {
        let checking = scope.spawn(|| volume.check.as_ref().map_or(Ok(()), |check| check(&part)));
        let written = make();
        if !matches!(written, Ok(Some(_))) {
            part.stop(ErrorKind::Interrupted);
        }
        (written, checking.join())
    });
    let Some(written) = written? else { return Ok(None) };
    let checked = checked.map_err(|_| Error::new(ErrorKind::Bug, "the thread that checks the source panicked"))?;
    checked.doing(|| format!("reading {}", image.blobs.name()))?;
    Ok(Some(written))
}

/// Gives the output its name.
fn finish(
    written: Written,
    summary: Summary,
    image: &Image,
    place: Place,
    task: &Task,
    monitor: &Monitor,
) -> Result<Outcome> {
    let Finished { size, sha256, manifest_digest, pushed } = place.finish(written.bytes, image, task, monitor)?;
    Ok(Outcome {
        size,
        sha256,
        entries: written.names,
        image_id: None,
        manifest_digest,
        pushed,
        layer_entries: summary.entries,
        layer_bytes: summary.layer_bytes.iter().sum(),
        diff_ids: summary.diff_ids,
        notes: written.notes,
    })
}

/// Flattens `image` and has `emit` write it; every digest has been verified then.
fn write_once(
    image: &Image,
    place: &Place,
    (foresight, private): (Foresight<'_>, bool),
    task: &Task,
    monitor: &Monitor,
    reuse: Option<&Arc<Reuse>>,
    emit: &impl Fn(Flattened, &Place, Option<&Shortcut>) -> Result<Written>,
) -> Result<(Written, Summary)> {
    thread::scope(|scope| {
        let mover = Mover::new(scope, monitor);
        let spool = || place.spool(&task.options.tmpdir, private);
        let root = match foresight {
            Foresight::Tar(root) if place.spools_itself() => Some(root),
            _ => None,
        };
        let forecast = |others, layer| in_place::forecast(image, root.flatten(), task, others, layer, &mover);
        let options = layers::Options {
            jobs: task.options.jobs,
            monitor,
            spool: &spool,
            memory_bytes_max: task.options.memory_bytes_max,
            verify_first: task.options.jobs.get() == 1 || place.is_stream(),
            forecaster: root.is_some().then_some(&forecast),
            known: reuse.map(|reuse| &**reuse as &dyn KnownLayers),
        };
        flatten(image, &options, |mut flattened| {
            mover.finish(&mut flattened)?;
            emit(flattened, place, reuse.map(|reuse| Shortcut::Cache(Arc::clone(reuse))).as_ref())
        })
    })
}
