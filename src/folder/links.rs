//! Where the symlinks of a folder lead. One that leaves it leads to something else on another machine, or nowhere, and
//! programs that unpack with care refuse it.

use std::collections::{BTreeMap, VecDeque};

use super::scan::{Entry, Kind};
use crate::model::{Note, Quoted};

/// How many symlinks one path may lead through, as in Linux.
const SYMLINKS_MAX: usize = 40;

/// What is said of each link that leaves the folder.
pub(super) fn that_leave(entries: &[Entry]) -> Vec<String> {
    let tree = Tree::of(entries);
    let said = links(entries).filter_map(|(entry, target)| {
        let leaves = match target.first() {
            Some(b'/') => true,
            _ => leaves_by_its_words(&entry.path, target) || tree.follow(&entry.path) == Place::Outside,
        };
        leaves.then(|| format!("link {} to {}", Quoted(&entry.path), Quoted(target)))
    });
    said.collect()
}

/// Links to what is not there, or not packed.
pub(super) fn dangling(entries: &[Entry]) -> Option<Note> {
    let tree = Tree::of(entries);
    let mut note = Note::new("dangling-links", "links lead to nothing", 0);
    for (entry, target) in links(entries).filter(|(entry, _)| tree.follow(&entry.path) == Place::Nowhere) {
        note.count += 1;
        note.example(format!("{} to {}", Quoted(&entry.path), Quoted(target)));
    }
    (note.count > 0).then_some(note)
}

fn links(entries: &[Entry]) -> impl Iterator<Item = (&Entry, &[u8])> {
    entries.iter().filter_map(|entry| match &entry.kind {
        Kind::Symlink(target) => Some((entry, target.as_slice())),
        _ => None,
    })
}

/// Whether the words alone lead out: this is what Python's tarfile looks at, whatever links stand on the way.
fn leaves_by_its_words(path: &[u8], target: &[u8]) -> bool {
    let mut depth = parts(path).count().saturating_sub(1);
    for part in parts(target) {
        match (part, depth) {
            (b"..", 0) => return true,
            (b"..", _) => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Inside,
    Outside,
    Nowhere,
}

struct Tree<'a>(BTreeMap<&'a [u8], &'a Kind>);

impl<'a> Tree<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        // Most folders have no links: then nothing needs to be found.
        let wanted = links(entries).next().is_some();
        Tree(entries.iter().filter(|_| wanted).map(|entry| (entry.path.as_slice(), &entry.kind)).collect())
    }

    /// Where `path` leads as the kernel follows it.
    fn follow(&self, path: &[u8]) -> Place {
        let mut left: VecDeque<&[u8]> = parts(path).collect();
        let mut here: Vec<u8> = Vec::new();
        let mut followed = 0;
        while let Some(part) = left.pop_front() {
            if part == b".." {
                if here.is_empty() {
                    return Place::Outside;
                }
                let slash = here.iter().rposition(|&byte| byte == b'/');
                here.truncate(slash.unwrap_or(0));
                continue;
            }
            let next = if here.is_empty() { part.to_vec() } else { [&here, &b"/"[..], part].concat() };
            match self.0.get(next.as_slice()) {
                None => return Place::Nowhere,
                Some(Kind::Symlink(target)) => {
                    followed += 1;
                    if followed > SYMLINKS_MAX {
                        return Place::Nowhere;
                    }
                    if target.first() == Some(&b'/') {
                        return Place::Outside;
                    }
                    parts(target).rev().for_each(|part| left.push_front(part));
                }
                Some(_) => here = next,
            }
        }
        Place::Inside
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}
