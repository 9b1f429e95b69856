//! Takes out of a root what Singularity put into it.
//!
//! The idea to hold: [`super::prepare`] writes down what it made and keeps what it replaced, so that the way back leads to
//! the same files. In a root that somebody else prepared only what is certain goes: `.singularity.d`, and links that lead
//! into it.

use super::base::{LINKS, METADATA_DIRECTORY};
use super::site::{MADE_LIST, REPLACED_DIRECTORY};
use crate::model::Note;
use crate::tree::{InodeId, Kind, Tree};

/// Whether a root was prepared for Singularity.
pub(crate) fn is_prepared(tree: &Tree) -> bool {
    tree.lookup(Tree::ROOT, METADATA_DIRECTORY).is_some_and(|dentry| tree.directory(dentry.inode).is_some())
}

/// The list of what [`super::prepare`] made, where it did: a file for [`remove`].
pub(crate) fn list_of_made(tree: &Tree) -> Option<InodeId> {
    let directory = tree.lookup(Tree::ROOT, METADATA_DIRECTORY)?.inode;
    Some(tree.lookup(directory, MADE_LIST)?.inode)
}

/// Takes out of `tree` what was put into it for Singularity. `made` is what [`list_of_made`] holds. What is not as it was
/// made stays.
pub(crate) fn remove(tree: &mut Tree, made: Option<&[u8]>) -> Vec<Note> {
    let replaced = replaced(tree);
    for (name, target) in LINKS {
        let found = tree.lookup(Tree::ROOT, name.as_bytes()).map(|dentry| &tree.inode(dentry.inode).kind);
        if matches!(found, Some(Kind::Symlink(found)) if **found == *target.as_bytes()) {
            tree.detach(Tree::ROOT, name.as_bytes());
        }
    }
    let mut paths: Vec<&[u8]> =
        made.unwrap_or_default().split(|&byte| byte == 0).filter(|path| !path.is_empty()).collect();
    // What is inside of a directory goes before the directory; a file may lie behind a symlink, in one with another path.
    paths.sort_unstable();
    for is_directory in [false, true] {
        paths.iter().rev().for_each(|path| take_made(tree, path, is_directory));
    }
    for (path, inode) in replaced {
        put_back(tree, &path, inode);
    }
    tree.detach(Tree::ROOT, METADATA_DIRECTORY);
    if made.is_some() {
        return Vec::new();
    }
    let message = "the SIF does not record what it changed in the image: empty directories that it may have made are \
                   kept, and etc/hosts and etc/resolv.conf are as they are in it";
    vec![Note::new("singularity-additions-unknown", message, 1)]
}

/// Takes away a directory that is empty again, or a file that still is.
fn take_made(tree: &mut Tree, path: &[u8], is_directory: bool) {
    let Some((parent, name)) = split(tree, path) else { return };
    let Some(inode) = tree.lookup(parent, name).map(|dentry| dentry.inode) else { return };
    let is_untouched = match &tree.inode(inode).kind {
        Kind::Directory(names) => is_directory && names.is_empty(),
        Kind::File(data) => !is_directory && data.size == 0,
        _ => false,
    };
    if is_untouched {
        tree.detach(parent, name);
    }
}

/// What [`super::prepare`] kept, by the path that it had.
fn replaced(tree: &Tree) -> Vec<(Vec<u8>, InodeId)> {
    let prefix = [METADATA_DIRECTORY, b"/", REPLACED_DIRECTORY, b"/"].concat();
    if tree.get(&prefix).is_none() {
        return Vec::new();
    }
    let inside = tree.walk().filter_map(|visit| {
        let path = visit.path.strip_prefix(prefix.as_slice())?;
        tree.directory(visit.inode).is_none().then(|| (path.to_vec(), visit.inode))
    });
    inside.collect()
}

fn put_back(tree: &mut Tree, path: &[u8], inode: InodeId) {
    let Some((parent, name)) = split(tree, path) else { return };
    tree.attach(parent, name, inode, 0);
}

/// The directory that `path` is in, where it is there, and the last part. Symlinks on the way are followed, as they were
/// when the path was made.
fn split<'p>(tree: &Tree, path: &'p [u8]) -> Option<(InodeId, &'p [u8])> {
    let at = path.iter().rposition(|&byte| byte == b'/');
    let (parent, name) = at.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]));
    let parent = tree.resolve(parent).ok()?.inode?;
    (tree.directory(parent).is_some() && !name.is_empty()).then_some((parent, name))
}
