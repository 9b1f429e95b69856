//! What all outputs that are one file system have in common: layers are merged, and the result is written in one go.

use std::sync::Arc;
use std::thread;

use super::in_place::{self, Mover};
use super::options::Outcome;
use super::place::{Finished, Place};
use super::prepared::Task;
use super::reuse::Reuse;
use super::root::Root;
use crate::error::Result;
use crate::image::Image;
use crate::io::Monitor;
use crate::layers::{self, Flattened, KnownLayers, Summary, flatten};
use crate::model::Note;
use crate::squashfs;

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
    Blocks(&'a squashfs::Options),
}

/// Flattens `image`, keeping contents in the clear on no disk where they are `private`, has `emit` write it, and finishes the output.
pub(super) fn write(
    image: &Image,
    place: Place,
    foresight: Foresight<'_>,
    private: bool,
    task: &Task,
    monitor: &Monitor,
    emit: impl Fn(Flattened, &Place, Option<&Arc<Reuse>>) -> Result<Written>,
) -> Result<Outcome> {
    let cache = task.options.cache.as_ref();
    let mut damaged = Vec::new();
    let (written, summary, reuse) = loop {
        let reuse = match (foresight, cache) {
            (Foresight::Blocks(blocks), Some(cache)) => {
                Some(Reuse::open(cache, image, blocks.compression, blocks.block_size, &damaged)?)
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
    let Finished { size, sha256, manifest_digest, pushed } = place.finish(written.bytes, image, task, monitor)?;
    let source = image.warnings.iter().map(|text| Note::new("source", text.clone(), 1));
    let kept = reuse.zip(cache).map(|(reuse, cache)| reuse.publish(&summary.layer_bytes, cache));
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
        notes: source.chain(written.notes).chain(kept.into_iter().flatten()).collect(),
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
    emit: &impl Fn(Flattened, &Place, Option<&Arc<Reuse>>) -> Result<Written>,
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
            emit(flattened, place, reuse)
        })
    })
}
