use std::collections::BTreeSet;

use super::layer::{Change, Node};
use super::run::Flattened;
use crate::tar::Member;

/// Foresees where the contents of one layer will lie in the output, when all other layers are known: then they can be
/// decoded straight to their place instead of into the spool. What it says is not a promise: whoever writes the output finds
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
pub(crate) type Forecaster<'a> = dyn Fn(Flattened, u32) -> Box<dyn Forecast + Send + 'a> + Sync + 'a;

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
    gone: Roots,
    /// Directories that are emptied.
    emptied: Roots,
}

impl Above {
    pub(super) fn add(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Whiteout { directory, name } => self.gone.insert(&join(directory, name)),
                Change::Opaque { directory } => self.emptied.insert(directory),
                Change::Put { node: Node::Directory, .. } => {}
                Change::Put { path, .. } => self.gone.insert(path.as_bytes()),
            }
        }
    }

    fn hides(&self, path: &[u8]) -> bool {
        self.gone.root_of(path).is_some() || self.emptied.root_of(path).is_some_and(|root| root.len() < path.len())
    }
}

/// Paths of which none lies below another; each stands for all that is below it. With separators that sort before every
/// other byte, what lies below a path follows it at once, so that one look tells whether anything is above a path, however
/// deep it is.
#[derive(Default)]
struct Roots(BTreeSet<Box<[u8]>>);

impl Roots {
    fn insert(&mut self, path: &[u8]) {
        if self.root_of(path).is_some() {
            return;
        }
        let key = Roots::key(path);
        while let Some(other) = self.0.range(key.clone()..).next().filter(|other| Roots::covers(&key, other)).cloned() {
            self.0.remove(&other);
        }
        self.0.insert(key);
    }

    /// The path here that `path` is, or lies below.
    fn root_of(&self, path: &[u8]) -> Option<&[u8]> {
        let key = Roots::key(path);
        self.0.range(..=key.clone()).next_back().map(|root| &**root).filter(|root| Roots::covers(root, &key))
    }

    fn covers(root: &[u8], path: &[u8]) -> bool {
        root.is_empty() || path.strip_prefix(root).is_some_and(|rest| rest.first().is_none_or(|&byte| byte == 0))
    }

    /// No path holds a NUL byte.
    fn key(path: &[u8]) -> Box<[u8]> {
        path.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect()
    }
}

fn join(directory: &[u8], name: &[u8]) -> Box<[u8]> {
    let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
    [directory, separator, name].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_hides_what_is_below() {
        let whiteout = |directory: &str, name: &str| Change::Whiteout {
            directory: directory.as_bytes().into(),
            name: name.as_bytes().into(),
        };
        let mut above = Above::default();
        above.add(&[whiteout("a/b", "c"), whiteout("a", "b-"), whiteout("x/y/z", "1"), whiteout("x", "y")]);
        above.add(&[Change::Opaque { directory: b"o/p"[..].into() }, Change::Opaque { directory: b"o"[..].into() }]);
        for hidden in ["a/b/c", "a/b/c/d", "a/b-", "a/b-/x", "x/y", "x/y/w", "x/y/z/1", "o/q", "o/p", "o/p/q"] {
            assert!(above.hides(hidden.as_bytes()), "{hidden}");
        }
        for shown in ["", "a", "a/b", "a/b/cc", "a/b/c-", "a/b/c.d", "a/b--", "x", "x/yy", "o", "op/q"] {
            assert!(!above.hides(shown.as_bytes()), "{shown}");
        }
        above.add(&[Change::Opaque { directory: b""[..].into() }]);
        assert!(above.hides(b"anything") && above.hides(b"a/b"));
    }
}
