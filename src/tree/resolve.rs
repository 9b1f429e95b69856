use std::collections::VecDeque;
use std::fmt;

use super::{InodeId, Kind, Tree};

/// How many symlinks one resolution may follow; Linux gives up after 40, securejoin (umoci) after 255.
const SYMLINKS_MAX: usize = 255;

/// More symlinks than any sane path needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopError;

impl fmt::Display for LoopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {SYMLINKS_MAX} symlinks to follow: they form a loop")
    }
}

/// Where a path leads inside the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The parts of the path with every symlink replaced.
    pub parts: Vec<Vec<u8>>,
    /// What is there, if anything is.
    pub inode: Option<InodeId>,
    /// Bytes of the symlinks' targets that were followed: what it cost beside the path itself.
    pub followed_bytes: u64,
}

impl Tree {
    /// Follows `path` from the root as a process with this root would: symlinks are followed (the last part's too),
    /// absolute targets start at the root again, `..` stops at the root. Parts that do not exist, or lie below something
    /// that is not a directory, are taken as they stand, as umoci's securejoin does.
    ///
    /// # Errors
    /// When the symlinks form a loop.
    pub fn resolve(&self, path: &[u8]) -> Result<Resolution, LoopError> {
        let mut left: VecDeque<&[u8]> = split(path).collect();
        // What each resolved part points at, the root first.
        let mut found = vec![Some(Tree::ROOT)];
        let mut parts: Vec<&[u8]> = Vec::new();
        let (mut followed, mut followed_bytes) = (0, 0);
        while let Some(part) = left.pop_front() {
            if part == b".." {
                if parts.pop().is_some() {
                    found.pop();
                }
                continue;
            }
            let here = found.last().copied().flatten();
            let next = here.and_then(|directory| self.lookup(directory, part)).map(|dentry| dentry.inode);
            let Some(Kind::Symlink(target)) = next.map(|id| &self.inode(id).kind) else {
                parts.push(part);
                found.push(next);
                continue;
            };
            followed += 1;
            followed_bytes += target.len() as u64;
            if followed > SYMLINKS_MAX {
                return Err(LoopError);
            }
            if target.first() == Some(&b'/') {
                parts.clear();
                found.truncate(1);
            }
            split(target).rev().for_each(|part| left.push_front(part));
        }
        let parts = parts.into_iter().map(<[u8]>::to_vec).collect();
        Ok(Resolution { parts, inode: found.last().copied().flatten(), followed_bytes })
    }
}

fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, Timestamp};
    use crate::tree::{Directory, MADE};

    fn metadata() -> Metadata {
        Metadata::root_owned(0o755, Timestamp::default())
    }

    #[test]
    fn follows_symlinks_inside_the_root() {
        let mut tree = Tree::default();
        let usr = tree.add(Kind::Directory(Directory::new()), metadata());
        tree.attach(Tree::ROOT, b"usr", usr, MADE);
        let lib = tree.add(Kind::Directory(Directory::new()), metadata());
        tree.attach(usr, b"lib", lib, MADE);
        for (name, target) in [("lib", "usr/lib"), ("abs", "/../../usr"), ("gone", "no/where"), ("loop", "loop/x")] {
            let link = tree.add(Kind::Symlink(target.as_bytes().into()), metadata());
            tree.attach(Tree::ROOT, name.as_bytes(), link, MADE);
        }
        let at = |path: &str| tree.resolve(path.as_bytes()).map(|r| (r.parts.join(&b'/'), r.inode));
        assert_eq!(at("lib"), Ok((b"usr/lib".to_vec(), Some(lib))));
        assert_eq!(at("abs/lib/../../usr"), Ok((b"usr".to_vec(), Some(usr))));
        assert_eq!(at("gone/x"), Ok((b"no/where/x".to_vec(), None)));
        assert_eq!(at("loop"), Err(LoopError));
    }

    #[test]
    fn what_is_followed_is_counted_and_bounded() {
        let mut tree = Tree::default();
        for at in 0..=SYMLINKS_MAX {
            let link = tree.add(Kind::Symlink(format!("{:03}", at + 1).into_bytes().into()), metadata());
            tree.attach(Tree::ROOT, format!("{at:03}").as_bytes(), link, MADE);
        }
        let followed = tree.resolve(b"001").map(|found| (found.parts, found.followed_bytes));
        assert_eq!(followed, Ok((vec![b"256".to_vec()], 3 * SYMLINKS_MAX as u64)));
        assert_eq!(tree.resolve(b"000").map(|found| found.parts), Err(LoopError));
        assert_eq!(tree.resolve(b"none/x").map(|found| found.followed_bytes), Ok(0));
    }
}
