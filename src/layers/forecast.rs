use std::collections::BTreeSet;

use super::layer::{Change, Node};
use super::run::Flattened;
use crate::tar::Member;

/// Foresees where the contents of one layer will lie in the output, when all other layers are known: then they can be
/// decoded straight to their place instead of into the spool. What it says is no promise: whoever writes the output finds
/// out what lies where, and must move what lies elsewhere.
pub trait Forecast {
    /// The next entry of the layer, in the order of its tar: where in the spool's file, before the spool, its contents should
    /// lie. `None` keeps them in the spool.
    fn put(&mut self, member: &Member<'_>) -> Option<u64>;
    /// The layer removes `path`, and all below it, of the layers below.
    fn whiteout(&mut self, path: &[u8]);
    /// The layer removes all that the layers below have in `directory`.
    fn opaque(&mut self, directory: &[u8]);
}

/// Makes a [`Forecast`] for the layer of that number from all others. Their contents in the spool may be moved to before it,
/// too.
pub type Forecaster<'a> = dyn Fn(Flattened, u32) -> Box<dyn Forecast + Send + 'a> + Sync + 'a;

/// A forecast that is asked only about what the layers above leave visible.
pub(super) struct Visible<'a> {
    above: Above,
    forecast: Box<dyn Forecast + Send + 'a>,
}

impl<'a> Visible<'a> {
    pub(super) fn new(above: Above, forecast: Box<dyn Forecast + Send + 'a>) -> Self {
        Visible { above, forecast }
    }

    pub(super) fn put(&mut self, member: &Member<'_>) -> Option<u64> {
        if self.above.hides(member.path) { None } else { self.forecast.put(member) }
    }

    pub(super) fn whiteout(&mut self, directory: &[u8], name: &[u8]) {
        self.forecast.whiteout(&join(directory, name));
    }

    pub(super) fn opaque(&mut self, directory: &[u8]) {
        self.forecast.opaque(directory);
    }
}

/// What layers above a layer take away of it.
#[derive(Default)]
pub(super) struct Above {
    /// Removed or replaced, with all below them.
    gone: BTreeSet<Box<[u8]>>,
    /// Directories that are emptied.
    emptied: BTreeSet<Box<[u8]>>,
}

impl Above {
    pub(super) fn add(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Whiteout { directory, name } => drop(self.gone.insert(join(directory, name))),
                Change::Opaque { directory } => drop(self.emptied.insert(directory.clone())),
                Change::Put { node: Node::Directory, .. } => {}
                Change::Put { path, .. } => drop(self.gone.insert(path.as_bytes().into())),
            }
        }
    }

    fn hides(&self, path: &[u8]) -> bool {
        let ancestors = (0..path.len()).filter(|&at| path[at] == b'/').map(|at| &path[..at]);
        let within = |set: &BTreeSet<Box<[u8]>>| !set.is_empty() && ancestors.clone().any(|path| set.contains(path));
        self.gone.contains(path) || within(&self.gone) || within(&self.emptied) || self.emptied.contains(&b""[..])
    }
}

fn join(directory: &[u8], name: &[u8]) -> Box<[u8]> {
    let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    [directory, separator, name].concat().into()
}
