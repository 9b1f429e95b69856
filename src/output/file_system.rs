//! A merged file system as a squashfs.

use std::sync::{Arc, OnceLock};

use super::passage::Passage;
use super::prepared::Task;
use super::reuse::{FileHashes, Reuse};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::io::{Compression, Levels, Monitor, Phase};
use crate::layers::{Contents, Flattened};
use crate::model::{Note, Quoted, Timestamp};
use crate::squashfs::{
    Attributes, BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, ContentName, FileSource, Hashes, Memo, Node, NodeId, Options, Store,
    Writer,
};
use crate::tree::{FileData, Inode, InodeId, Kind, Tree};

/// The choices for a squashfs that was made at `time`.
///
/// # Errors
/// [`ErrorKind::Usage`] when the compression or the block size is not one that a squashfs has.
pub(super) fn options(
    compression: Option<Compression>,
    block_size: Option<u32>,
    time: Timestamp,
    task: &Task,
) -> Result<Options> {
    let usual = Options::new(time.seconds.clamp(0, u32::MAX.into()) as u32, task.options.jobs);
    let block_size = block_size.unwrap_or(usual.block_size);
    if !block_size.is_power_of_two() || !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size) {
        return Err(Error::new(ErrorKind::Usage, format!("{block_size} is not a block size"))
            .hint(format!("choose a power of two from {BLOCK_SIZE_MIN} to {BLOCK_SIZE_MAX}")));
    }
    Ok(Options { compression: Levels::SQUASHFS.settle(compression)?, block_size, ..usual })
}

/// Whether blocks of any level will do, because none was asked for.
pub(super) fn is_any_level(compression: Option<Compression>) -> bool {
    compression.is_none_or(|compression| compression.level().is_none())
}

/// What saves work on blocks, where there is anything.
#[derive(Clone)]
pub(super) enum Shortcut {
    /// Blocks of earlier conversions.
    Cache(Arc<Reuse>),
    /// Blocks of the source itself.
    Source(Arc<Passage>),
}

impl Shortcut {
    fn memo(&self) -> Arc<dyn Memo> {
        match self {
            Shortcut::Cache(reuse) => Arc::clone(reuse) as _,
            Shortcut::Source(passage) => Arc::clone(passage) as _,
        }
    }
}

/// Writes the squashfs of a flattened image; its padded length in bytes, and what the user should know.
pub(super) fn write<S: Store + 'static>(
    flattened: Flattened,
    store: S,
    options: Options,
    shortcut: Option<&Shortcut>,
    monitor: &Monitor,
) -> Result<(u64, Vec<Note>)> {
    let Flattened { tree, contents, read, .. } = flattened;
    monitor.begin(Phase::Write, tree.file_bytes());
    let contents = Arc::new(contents);
    let root = attributes(tree.inode(Tree::ROOT));
    let memo = shortcut.map(Shortcut::memo);
    let mut writer = Writer::with_memo(store, options, memo, &root, monitor)?;
    let mut nodes: Vec<Option<NodeId>> = vec![None; tree.inode_count()];
    // The directories that lead to the name at hand, the root first.
    let mut parents = vec![Writer::<S>::ROOT];
    for visit in tree.walk().skip(1) {
        let depth = visit.path.iter().filter(|&&byte| byte == b'/').count();
        parents.truncate(depth + 1);
        let name = visit.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let adding = || format!("writing {}", Quoted(&visit.path));
        if let Some(node) = nodes[visit.inode.index()] {
            writer.link(parents[depth], name, node).doing(adding)?;
            continue;
        }
        let inode = tree.inode(visit.inode);
        let node = node(&tree, visit.inode, &contents, shortcut, &visit.path);
        let id = writer.add(parents[depth], name, &attributes(inode), node).doing(adding)?;
        nodes[visit.inode.index()] = Some(id);
        if tree.directory(visit.inode).is_some() {
            parents.push(id);
        }
    }
    // The tree is not needed while the last blocks are compressed and the tables are written.
    drop(tree);
    let summary = writer.finish()?;
    if let Some(Shortcut::Cache(reuse)) = shortcut {
        reuse.finish(read, &contents);
    }
    let message = "times before 1970 or after 2106 became the nearest that squashfs can hold";
    let note = (summary.clamped_times > 0).then(|| Note::new("times-clamped", message, summary.clamped_times));
    Ok((summary.padded_bytes, note.into_iter().collect()))
}

fn attributes(inode: &Inode) -> Attributes<'_> {
    let metadata = &inode.metadata;
    Attributes {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        mtime: metadata.mtime,
        xattrs: metadata.xattrs.as_deref(),
    }
}

fn node<'a>(
    tree: &'a Tree,
    inode: InodeId,
    contents: &Arc<Contents>,
    shortcut: Option<&Shortcut>,
    path: &[u8],
) -> Node<'a> {
    match &tree.inode(inode).kind {
        Kind::Directory(_) => Node::Directory,
        Kind::File(data) => {
            let (contents, data) = (Arc::clone(contents), data.clone());
            let shortcut = shortcut.cloned();
            Node::File(Arc::new(TreeFile { contents, data, path: path.into(), shortcut, hashes: OnceLock::new() }))
        }
        Kind::Symlink(target) => Node::Symlink(target),
        Kind::Fifo => Node::Fifo,
        Kind::CharDevice { major, minor } => Node::CharDevice { major: *major, minor: *minor },
        Kind::BlockDevice { major, minor } => Node::BlockDevice { major: *major, minor: *minor },
    }
}

/// A regular file of the tree, for workers to read.
struct TreeFile {
    contents: Arc<Contents>,
    data: FileData,
    path: Box<[u8]>,
    /// What knows such files, where anyone does.
    shortcut: Option<Shortcut>,
    hashes: OnceLock<FileHashes>,
}

impl FileSource for TreeFile {
    fn size(&self) -> u64 {
        self.data.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = self.contents.read_at(&self.data, buffer, offset).map_err(crate::io::read_error);
        read.doing(|| format!("reading contents of {}", Quoted(&self.path)))
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        match (&self.shortcut, self.name()) {
            (Some(Shortcut::Source(passage)), Some(name)) => passage.next_data(name, offset),
            _ => Contents::next_data(&self.data, offset),
        }
    }

    fn name(&self) -> Option<ContentName> {
        let origin = self.data.origin.filter(|_| self.shortcut.is_some())?;
        Some(ContentName { layer: origin.layer, at: origin.at.get() })
    }

    fn is_distinct(&self) -> bool {
        matches!(&self.shortcut, Some(Shortcut::Source(passage)) if passage.are_distinct())
    }

    fn hashes(&self) -> Option<&Hashes> {
        let Some(Shortcut::Cache(reuse)) = &self.shortcut else { return None };
        let name = self.name()?;
        Some(self.hashes.get_or_init(|| reuse.hashes(name)).get())
    }
}
