//! Takes out of a root what Singularity put into it.
//!
//! The idea to hold: [`super::prepare`] writes down what it made and keeps what it replaced, so that the way back leads to
//! the same files. In a root that somebody else prepared only what is certain goes: `.singularity.d`, and links that lead
//! into it.

use std::collections::BTreeSet;

use super::base::{LINKS, METADATA_DIRECTORY, is_bind_file, replaceable};
use super::site::{MADE_LIST, REPLACED_DIRECTORY, is_as_made};
use crate::model::{Note, split_last};
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

/// Takes out of `tree` what was put into it for Singularity. `made` is what [`list_of_made`] holds.
///
/// The records come from whoever made the SIF, and may be forged. So only what looks as it was made is taken out, and what is
/// kept in `replaced` is put back only where [`super::prepare`] replaces things, and only over what looks as it was made.
pub(crate) fn remove(tree: &mut Tree, made: Option<&[u8]>) -> Vec<Note> {
    for (name, target) in LINKS.map(|(name, target)| (name.as_bytes(), target.as_bytes())) {
        let found = tree.lookup(Tree::ROOT, name).map(|dentry| &tree.inode(dentry.inode).kind);
        if matches!(found, Some(Kind::Symlink(found)) if **found == *target) {
            tree.detach(Tree::ROOT, name);
            if let Some(before) = take_replaced(tree, name) {
                tree.attach(Tree::ROOT, name, before, 0);
            }
        }
    }
    let replaced: Vec<Vec<u8>> = places_of_replaced(tree).filter(|path| has_replaced(tree, path)).collect();
    let made_paths = made.unwrap_or_default().split(|&byte| byte == 0).filter(|path| !path.is_empty());
    let mut paths: Vec<&[u8]> = made_paths.filter(|path| !replaced.iter().any(|replaced| replaced == path)).collect();
    // What is inside of a directory goes before the directory; a file may lie behind a symlink, in one with another path.
    paths.sort_unstable();
    for is_directory in [false, true] {
        paths.iter().rev().for_each(|path| take_made(tree, path, is_directory));
    }
    replaced.iter().for_each(|path| put_back(tree, path));
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
    if is_as_made(tree, inode) && tree.directory(inode).is_some() == is_directory {
        tree.detach(parent, name);
    }
}

/// Where [`super::prepare`] may have replaced something, parents first: what it needs has these paths, behind the symlinks of
/// the image.
fn places_of_replaced(tree: &Tree) -> impl Iterator<Item = Vec<u8>> {
    let places = replaceable().into_iter().flat_map(|path| {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parts = tree.resolve(parent.as_bytes()).map(|resolution| resolution.parts).unwrap_or_default();
        let behind = parts.iter().map(Vec::as_slice).chain([name.as_bytes()]).collect::<Vec<_>>().join(&b'/');
        [path.as_bytes().to_vec(), behind]
    });
    places.collect::<BTreeSet<_>>().into_iter()
}

/// The directory and the name that what stood at `path` is kept under.
fn kept_at<'p>(tree: &Tree, path: &'p [u8]) -> Option<(InodeId, &'p [u8])> {
    let (parent, name) = split_last(path);
    let directory = tree.get(&[METADATA_DIRECTORY, b"/", REPLACED_DIRECTORY, b"/", parent].concat())?;
    let kept = tree.lookup(directory, name)?.inode;
    // A directory gives way only to a file: elsewhere it is there for what is kept in it.
    (tree.directory(kept).is_none() || is_bind_file(path)).then_some((directory, name))
}

fn has_replaced(tree: &Tree, path: &[u8]) -> bool {
    kept_at(tree, path).is_some()
}

fn take_replaced(tree: &mut Tree, path: &[u8]) -> Option<InodeId> {
    let (directory, name) = kept_at(tree, path)?;
    tree.take(directory, name)
}

fn put_back(tree: &mut Tree, path: &[u8]) {
    let Some((parent, name)) = split(tree, path) else { return };
    let Some(now) = tree.lookup(parent, name).map(|dentry| dentry.inode) else { return };
    if is_as_made(tree, now)
        && let Some(before) = take_replaced(tree, path)
    {
        tree.attach(parent, name, before, 0);
    }
}

/// The directory that `path` is in, where it is there, and the last part. Symlinks on the way are followed, as they were
/// when the path was made.
fn split<'p>(tree: &Tree, path: &'p [u8]) -> Option<(InodeId, &'p [u8])> {
    let (parent, name) = split_last(path);
    let parent = tree.resolve(parent).ok()?.inode?;
    (tree.directory(parent).is_some() && !name.is_empty()).then_some((parent, name))
}
