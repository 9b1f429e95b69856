//! What of a SIF beside its root file system has a say in what runs.

use crate::browse::{Aspect, Difference, Place};
use crate::sif::{Container, DataType, LAUNCH_SCRIPT};

/// Partitions beside the root file system, and a first line of the file that is not the usual one. Nothing explains either: no
/// build of an image makes them.
pub(super) fn compare(container: &Container) -> impl Iterator<Item = Difference> {
    partitions(container).chain(launch_line(container))
}

/// A runtime lays an overlay over the root, where it replaces programs.
fn partitions(container: &Container) -> impl Iterator<Item = Difference> {
    let root = container.primary().map(|primary| primary.id);
    let partitions = container.descriptors().filter(|it| it.data_type == DataType::Partition);
    partitions
        .filter(move |it| Some(it.id) != root)
        .map(|it| difference(format!("object {}", it.id), Aspect::Presence, None, Some(it.to_string())))
}

/// What the host runs when the file itself is run; nothing where there is none.
fn launch_line(container: &Container) -> Option<Difference> {
    let line = container.header().launch_script();
    let shown = |line: &[u8]| crate::model::Quoted(line.trim_ascii_end()).to_string();
    let is_usual = line.is_empty() || line == LAUNCH_SCRIPT;
    (!is_usual).then(|| {
        difference("first line of the file".to_string(), Aspect::Value, Some(shown(LAUNCH_SCRIPT)), Some(shown(line)))
    })
}

fn difference(what: String, aspect: Aspect, left: Option<String>, right: Option<String>) -> Difference {
    Difference { place: Place::Config(what), aspect, left, right, names: 1, explanation: None }
}
