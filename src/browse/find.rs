use super::view::View;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::model::{Quoted, split_last};
use crate::tree::{Tree, Visit};

impl View {
    /// What is at `path`. Symlinks on the way are followed inside of the root; the last part only where `follows`, or where
    /// a slash follows it.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when there is nothing, or the symlinks form a loop.
    pub(super) fn find(&self, path: &[u8], follows: bool) -> Result<Visit> {
        let tree = self.tree();
        let looped = |error| {
            Error::new(ErrorKind::SourceUnavailable, format!("{}: {error}", Quoted(path)))
                .with_remedy(Remedy::PathInImage)
        };
        let (parent, name) = split_last(path);
        let is_plain = !matches!(name, b"" | b"." | b"..");
        let mut parts = if follows || !is_plain {
            tree.resolve(path).map_err(looped)?.parts
        } else {
            let mut parts = tree.resolve(parent).map_err(looped)?.parts;
            parts.push(name.to_vec());
            parts
        };
        let mut found = Visit { path: parts.join(&b'/'), inode: Tree::ROOT, layer: 0 };
        for part in parts.drain(..) {
            let dentry = tree.lookup(found.inode, &part).ok_or_else(|| missing(path, &found.path))?;
            (found.inode, found.layer) = (dentry.inode, dentry.layer);
        }
        if found.inode == Tree::ROOT {
            // It has no name that would say it: as of any directory, the newest layer of what is in it.
            found.layer = tree.walk().skip(1).map(|visit| visit.layer).max().unwrap_or(0);
        }
        Ok(found)
    }
}

/// Nothing is at `path`; it is `resolved` once links are followed.
fn missing(path: &[u8], resolved: &[u8]) -> Error {
    let plain: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    let message = if plain.join(&b'/') == resolved {
        format!("there is no {} in it", Quoted(path))
    } else {
        format!("{} leads to {}, which is not in it", Quoted(path), Quoted(resolved))
    };
    Error::new(ErrorKind::SourceUnavailable, message).with_remedy(Remedy::PathInImage)
}
