//! A flattened image as a SIF: definition, JSON objects, and a squashfs that is written at its final place.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::options::{Compression, Request};
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{Monitor, Output};
use crate::layers::{Contents, Flattened};
use crate::model::{Digest, Note, Quoted, Timestamp};
use crate::sif::{self, Architecture, LAUNCH_SCRIPT, PartitionSum, Plan};
use crate::singularity::Prepared;
use crate::squashfs::{self, Attributes, FileSource, FileStore, Node, NodeId, Options, Store, Summary, Writer};
use crate::tree::{FileData, Inode, InodeId, Kind, Tree};

/// zstd level where none is given: smaller than gzip at most of its speed.
const ZSTD_LEVEL_DEFAULT: u8 = 9;

/// The squashfs compression that is asked for.
pub(super) fn compression(request: &Request) -> Result<squashfs::Compression> {
    match request.compression {
        None | Some(Compression::Gzip(None)) => Ok(squashfs::Compression::GZIP_DEFAULT),
        Some(Compression::Gzip(Some(level))) => Ok(squashfs::Compression::Gzip { level: level as u8 }),
        Some(Compression::Zstd(level)) => {
            Ok(squashfs::Compression::Zstd { level: level.map_or(ZSTD_LEVEL_DEFAULT, |level| level as u8) })
        }
        Some(Compression::None) => Err(Error::new(ErrorKind::Usage, "a SIF is always compressed")
            .hint("leave --compression out, or choose gzip or zstd with a low level")),
    }
}

/// What a SIF says of its making.
pub(super) struct Made {
    /// The image it is made from.
    pub(super) image_id: Digest,
    /// [`Request::choices`].
    pub(super) options: Option<String>,
    /// What its programs run on.
    pub(super) architecture: Architecture,
    /// The one time of everything that is not read from the image.
    pub(super) time: Timestamp,
}

/// Writes the SIF and says how long it is in bytes, and what the user should know.
pub(super) fn write(
    flattened: Flattened,
    prepared: Prepared,
    made: Made,
    output: &Output,
    request: &Request,
    monitor: &Monitor,
) -> Result<(u64, Vec<Note>)> {
    let objects = [
        ("inspect-metadata.json", prepared.inspect_metadata),
        ("oci-config.json", prepared.oci_config),
        (sif::SEAL_NAME, sif::unsealed(&made.image_id.to_string(), made.options.as_deref())),
    ];
    let plan = Plan::new(sif::Contents {
        architecture: made.architecture,
        time_seconds: made.time.seconds,
        uuid: [0; 16],
        launch_script: LAUNCH_SCRIPT.to_vec(),
        definition: prepared.definition.into_bytes(),
        json: objects.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect::<BTreeMap<_, _>>(),
    })?;
    let mut file = &**output.file();
    plan.write_objects(&mut file)?;
    let sum = Arc::new(Mutex::new(PartitionSum::default()));
    let file_store = FileStore { file: Arc::clone(output.file()), offset: plan.partition_offset() };
    let store = SummedStore { inner: file_store, sum: Arc::clone(&sum) };
    let options = Options {
        compression: compression(request)?,
        mkfs_time: made.time.seconds.clamp(0, u32::MAX.into()) as u32,
        block_size: request.block_size.unwrap_or(Options::new(0, request.jobs).block_size),
        threads: request.jobs,
    };
    let summary = write_squashfs(flattened, store, options, monitor)?;
    let bytes = plan.finish(&mut file, summary.padded_bytes)?;
    // Decoded contents that lay behind the output are not wanted any more.
    output.file().set_len(bytes).or_kind(ErrorKind::Output)?;
    sif::seal(output.file(), &sum.lock().unwrap_or_else(PoisonError::into_inner))?;
    Ok((bytes, notes(&summary)))
}

fn notes(summary: &Summary) -> Vec<Note> {
    let clamped = summary.clamped_times;
    let message = "times before 1970 or after 2106 became the nearest that squashfs can hold";
    (clamped > 0).then(|| Note::new("times-clamped", message, clamped)).into_iter().collect()
}

/// The partition, whose checksum is computed as it is written.
struct SummedStore {
    inner: FileStore,
    sum: Arc<Mutex<PartitionSum>>,
}

impl Store for SummedStore {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(bytes, position)?;
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(bytes, position).map_err(Error::into_io)
    }
}

fn write_squashfs(flattened: Flattened, store: SummedStore, options: Options, monitor: &Monitor) -> Result<Summary> {
    let Flattened { tree, contents, .. } = flattened;
    let contents = Arc::new(contents);
    let root = attributes(tree.inode(Tree::ROOT));
    let mut writer = Writer::new(store, options, &root, monitor)?;
    let mut nodes: Vec<Option<NodeId>> = vec![None; tree.inode_count()];
    // The directories that lead to the name at hand, the root first.
    let mut parents = vec![Writer::<SummedStore>::ROOT];
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
        let node = node(&tree, visit.inode, &contents, &visit.path);
        let id = writer.add(parents[depth], name, &attributes(inode), node).doing(adding)?;
        nodes[visit.inode.index()] = Some(id);
        if tree.directory(visit.inode).is_some() {
            parents.push(id);
        }
    }
    // The tree is not needed while the last blocks are compressed and the tables are written.
    drop(tree);
    writer.finish()
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

fn node<'a>(tree: &'a Tree, inode: InodeId, contents: &Arc<Contents>, path: &[u8]) -> Node<'a> {
    match &tree.inode(inode).kind {
        Kind::Directory(_) => Node::Directory,
        Kind::File(data) => {
            let (contents, data) = (Arc::clone(contents), data.clone());
            Node::File(Arc::new(TreeFile { contents, data, path: path.into() }))
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
        Contents::next_data(&self.data, offset)
    }
}
