//! Applying layers, slowly and plainly: section 3 of the rules for readers of image archives, as a map from paths to
//! inodes. Entries are applied in the order of the tar. Written from the OCI image specification and from what umoci
//! does; the program under test must agree with it on every image, and so must umoci (`tests/it/oracles.rs`).

use std::collections::{BTreeSet, VecDeque};

use super::case::Layer;
use super::entry::{Entry, Kind};
use super::listing::{Listing, Path, What, made_directory, node, show};

/// As many symlinks as umoci follows.
const SYMLINKS_MAX: usize = 255;

/// As long as a name can be on Linux.
const NAME_BYTES_MAX: usize = 255;

#[derive(Clone, Default)]
pub struct Reference {
    pub tree: Listing,
    /// What the layer at hand wrote, and all directories above that.
    written: BTreeSet<Path>,
    /// Hard links of the layer at hand whose target was not there: name and target.
    pending: Vec<(Path, Vec<u8>)>,
}

/// The merged tree of these layers.
pub fn merge<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Result<Listing, String> {
    let mut reference = Reference::new();
    for layer in layers {
        for entry in layer.entries() {
            reference.apply(entry)?;
        }
        reference.end_layer()?;
    }
    Ok(reference.tree)
}

impl Reference {
    pub fn new() -> Self {
        let mut reference = Reference::default();
        reference.tree.add(Path::new(), made_directory());
        reference
    }

    pub fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let path = clean(&entry.path);
        if path.iter().any(|part| part.len() > NAME_BYTES_MAX) {
            return Err("a name of more than 255 bytes".into());
        }
        let Some((name, directory)) = path.split_last() else {
            if entry.kind != Kind::Dir {
                return Err("the root is not a directory".into());
            }
            let root = self.tree.names[&path];
            self.tree.nodes[root] = node(entry);
            return Ok(());
        };
        // Neither is applied to anything, so it does not matter where its directory leads.
        if directory.iter().any(|part| part.starts_with(b".wh.")) || is_leftover(name) {
            return Ok(());
        }
        let parent = self.follow(directory)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(parent, hidden);
        }
        self.make_directories(&parent);
        let path = [parent, vec![name.clone()]].concat();
        match &entry.kind {
            Kind::Dir if self.is_directory(&path) => {
                let id = self.tree.names[&path];
                self.tree.nodes[id] = node(entry);
            }
            Kind::Link(target) => {
                let found = self.link_target(&path, target)?;
                self.remove(&path);
                match found {
                    Some(id) => drop(self.tree.names.insert(path.clone(), id)),
                    None => self.pending.push((path.clone(), target.clone())),
                }
            }
            _ => {
                self.remove(&path);
                self.tree.add(path.clone(), node(entry));
            }
        }
        for length in 1..=path.len() {
            self.written.insert(path[..length].to_vec());
        }
        Ok(())
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What a path leads to, symlinks followed.
    pub fn what_is_at(&self, path: &[u8]) -> Option<What> {
        let path = self.follow(&clean(path)).ok()?;
        self.tree.node(&path).map(|node| node.what.clone())
    }

    /// Gives the links that came before their targets what they link to.
    pub fn end_layer(&mut self) -> Result<(), String> {
        self.written.clear();
        loop {
            let pending = std::mem::take(&mut self.pending);
            let before = pending.len();
            for (path, target) in pending {
                match self.link_target(&path, &target)? {
                    Some(id) => drop(self.tree.names.insert(path, id)),
                    None => self.pending.push((path, target)),
                }
            }
            match self.pending.first() {
                None => return Ok(()),
                Some((path, target)) if self.pending.len() == before => {
                    return Err(format!("{} links to {}, which is missing", show(path), target.escape_ascii()));
                }
                Some(_) => {}
            }
        }
    }

    /// The inode that a link is to share, where its target is there.
    fn link_target(&self, path: &Path, target: &[u8]) -> Result<Option<usize>, String> {
        let target = self.place_of(target)?;
        if target.is_empty() || self.is_directory(&target) {
            return Err(format!("{} links to {}, a directory", show(path), show(&target)));
        }
        Ok(self.tree.names.get(&target).copied())
    }

    /// Where a name stands: its directory followed, its last part not.
    pub fn place_of(&self, name: &[u8]) -> Result<Path, String> {
        let path = clean(name);
        let Some((last, directory)) = path.split_last() else { return Ok(path) };
        Ok([self.follow(directory)?, vec![last.clone()]].concat())
    }

    fn whiteout(&mut self, parent: Path, hidden: &[u8]) -> Result<(), String> {
        let (top, itself) = match hidden {
            b".wh..opq" => (parent, false),
            _ => ([parent, vec![hidden.to_vec()]].concat(), true),
        };
        // Sorted, so that a directory comes before what is in it, and goes with it.
        let below: Vec<Path> = self.tree.names.keys().filter(|path| path.starts_with(&top)).cloned().collect();
        for path in below {
            if (itself || path != top) && !self.written.contains(&path) {
                self.remove(&path);
            }
        }
        Ok(())
    }

    fn remove(&mut self, top: &Path) {
        self.tree.names.retain(|path, _| !path.starts_with(top));
        self.pending.retain(|(path, _)| !path.starts_with(top));
    }

    fn make_directories(&mut self, path: &Path) {
        for length in 1..=path.len() {
            let path = path[..length].to_vec();
            if !self.is_directory(&path) {
                self.remove(&path);
                self.tree.add(path, made_directory());
            }
        }
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.tree.node(path).is_some_and(|node| node.what == What::Dir)
    }

    /// Where a path leads, all symlinks followed inside the root. What is not there is taken as it stands.
    fn follow(&self, path: &[Vec<u8>]) -> Result<Path, String> {
        let mut left: VecDeque<Vec<u8>> = path.iter().cloned().collect();
        let mut here = Path::new();
        let mut followed = 0;
        while let Some(part) = left.pop_front() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    here.pop();
                    continue;
                }
                _ => here.push(part),
            }
            if let Some(What::Symlink(target)) = self.tree.node(&here).map(|node| &node.what) {
                followed += 1;
                if followed > SYMLINKS_MAX {
                    return Err(format!("the symlinks of {} form a loop", show(&path.to_vec())));
                }
                here.pop();
                if target.first() == Some(&b'/') {
                    here.clear();
                }
                for part in target.split(|&byte| byte == b'/').rev() {
                    left.push_front(part.to_vec());
                }
            }
        }
        Ok(here)
    }
}

/// Whether a name is AUFS's own, or a whiteout of what can have no name.
fn is_leftover(name: &[u8]) -> bool {
    match name.strip_prefix(b".wh.") {
        Some(b"" | b"." | b"..") => true,
        Some(hidden) => hidden.starts_with(b".wh.") && hidden != b".wh..opq",
        None => false,
    }
}

/// The parts of a name, cleaned by its text alone: `..` takes back the part before it and stops at the root.
fn clean(name: &[u8]) -> Path {
    let mut parts = Path::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part.to_vec()),
        }
    }
    parts
}
