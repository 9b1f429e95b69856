use std::collections::BTreeSet;

use super::entry::level;
use super::view::{Backing, View};
use crate::error::Result;
use crate::tree::Kind;

/// Where the bytes are.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Directories, parents first, bytewise.
    pub directories: Vec<DirectoryUsage>,
    /// Layers, lowest first; none where the source is not an image of layers.
    pub layers: Vec<LayerUsage>,
}

/// What a directory and all below it hold. A file with several names counts at the first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryUsage {
    /// From the root; empty for the root.
    pub path: Vec<u8>,
    /// Bytes of regular files.
    pub bytes: u64,
    /// How many names are below it; 1 for a file.
    pub names: u64,
}

/// What of a layer is left in the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerUsage {
    /// Bytes of regular files that are from this layer.
    pub bytes: u64,
    /// Names of anything but directories that are from this layer.
    pub names: u64,
}

impl View {
    /// Adds up what `path` and all below it hold. Of directories, those that lie `depth` levels deep are given; all counts.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`](crate::ErrorKind) when there is no such name.
    pub fn usage(&self, path: &[u8], depth: Option<usize>) -> Result<Usage> {
        let first = self.find(path, false)?;
        let (base, named) = (level(&first.path), first.clone());
        let layers = match self.backing {
            Backing::Volume(_) => 0,
            Backing::Layered(_) => self.image.layers.len(),
        };
        let mut usage = Usage { directories: Vec::new(), layers: vec![LayerUsage::default(); layers] };
        // The directories that lead to the name at hand, by their places in the list.
        let mut open: Vec<usize> = Vec::new();
        let mut seen = BTreeSet::new();
        let tree = self.tree();
        for visit in tree.walk_from(first) {
            let deep = level(&visit.path) - base;
            open.truncate(deep);
            open.iter().for_each(|&at| usage.directories[at].names += 1);
            let inode = tree.inode(visit.inode);
            if let Kind::Directory(_) = inode.kind {
                open.push(usage.directories.len());
                usage.directories.push(DirectoryUsage { path: visit.path, ..DirectoryUsage::default() });
                continue;
            }
            let bytes = match &inode.kind {
                Kind::File(data) if inode.links < 2 || seen.insert(visit.inode) => data.size,
                _ => 0,
            };
            open.iter().for_each(|&at| add(&mut usage.directories[at].bytes, bytes));
            if let Some(layer) = usage.layers.get_mut(visit.layer as usize) {
                layer.names += 1;
                add(&mut layer.bytes, bytes);
            }
        }
        if usage.directories.is_empty() {
            // What was named is no directory: as with du, it is told by itself.
            let bytes = if let Kind::File(data) = &tree.inode(named.inode).kind { data.size } else { 0 };
            usage.directories.push(DirectoryUsage { path: named.path, bytes, names: 1 });
        }
        let depth_max = depth.map_or(usize::MAX, |depth| base.saturating_add(depth));
        usage.directories.retain(|directory| level(&directory.path) <= depth_max);
        Ok(usage)
    }
}

/// Sparse files may claim to be of any size.
fn add(sum: &mut u64, bytes: u64) {
    *sum = sum.saturating_add(bytes);
}
