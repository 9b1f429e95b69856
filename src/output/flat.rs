//! What all outputs that are one file system have in common: layers are merged, and the result is written in one go.

use std::thread;

use super::in_place::{self, Mover};
use super::options::Outcome;
use super::place::{Finished, Place};
use super::prepared::Task;
use super::root::Root;
use crate::error::Result;
use crate::image::Image;
use crate::io::Monitor;
use crate::layers::{self, Flattened, flatten};
use crate::model::Note;

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
}

/// Flattens `image`, keeping contents in the clear on no disk where they are `private`, has `emit` write it, and finishes the output.
pub(super) fn write(
    image: &Image,
    place: Place,
    foresight: Foresight<'_>,
    private: bool,
    task: &Task,
    monitor: &Monitor,
    emit: impl FnOnce(Flattened, &Place) -> Result<Written>,
) -> Result<Outcome> {
    let (written, summary) = thread::scope(|scope| {
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
        };
        flatten(image, &options, |mut flattened| {
            mover.finish(&mut flattened)?;
            emit(flattened, &place)
        })
    })?;
    let Finished { size, sha256, manifest_digest, pushed } = place.finish(written.bytes, image, task, monitor)?;
    let source = image.warnings.iter().map(|text| Note::new("source", text.clone(), 1));
    Ok(Outcome {
        size,
        sha256,
        entries: written.names,
        image_id: None,
        manifest_digest,
        pushed,
        layer_entries: summary.entries,
        layer_bytes: summary.bytes,
        diff_ids: summary.diff_ids,
        notes: source.chain(written.notes).collect(),
    })
}
