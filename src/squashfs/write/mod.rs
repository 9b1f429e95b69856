//! The writer: nodes are added parents first, files begin to be compressed at once, and `finish` writes the tables.

mod directory;
mod duplicates;
mod finish;
mod inode;
mod memo;
mod metadata;
mod output;
mod pool;
mod source;
mod stream;
mod tables;

use std::num::NonZeroUsize;
use std::sync::Arc;

pub use memo::{BlockName, ContentName, Hashes, Memo, MemoBlock};
pub use source::{FileSource, FileStore, Store};
pub use stream::StreamWriter;

use self::duplicates::Duplicates;
use self::pool::{Job, Pool};
use self::tables::{Ids, XattrSets};
use super::format::{
    BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, Compression, NAME_BYTES_MAX, NONE, SYMLINK_BYTES_MAX, device_number, kind,
};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::io::Monitor;
use crate::model::{Mode, Quoted, Timestamp, Xattrs};

/// The choices for one image.
#[derive(Debug, Clone)]
pub struct Options {
    /// How blocks and tables are compressed: gzip as zlib streams, which every reader understands, or zstd, which Apptainer
    /// before 1.4 and SingularityCE refuse.
    pub compression: Compression,
    /// Bytes in a data block: a power of two from 4 KiB to 1 MiB. Kernels refuse less than their page size.
    pub block_size: u32,
    /// The time in the superblock, in seconds since 1970.
    pub mkfs_time: u32,
    /// How many threads compress. Any number gives the same bytes.
    pub threads: NonZeroUsize,
}

impl Options {
    /// What [`packing`](super::Superblock::packing) will be.
    pub fn packing(&self) -> (u16, u32) {
        (super::format::compression_id(self.compression), self.block_size)
    }

    /// What mksquashfs and Apptainer use by default: gzip, 128 KiB.
    pub fn new(mkfs_time: u32, threads: NonZeroUsize) -> Self {
        Options { compression: Compression::GZIP, block_size: 128 << 10, mkfs_time, threads }
    }
}

/// What all nodes have.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Permissions.
    pub mode: Mode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification; whole seconds from 1970 to 2106 can be stored, others become the nearest of them.
    pub mtime: Timestamp,
    /// Extended attributes; each must be [storable](super::xattr_is_storable).
    pub xattrs: Option<&'a Xattrs>,
}

/// What a node is.
#[non_exhaustive]
pub enum Node<'a> {
    /// A directory; its names are added later.
    Directory,
    /// A regular file.
    File(Arc<dyn FileSource>),
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number, below 4096.
        major: u32,
        /// Minor number, below 1 Mi.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, below 4096.
        major: u32,
        /// Minor number, below 1 Mi.
        minor: u32,
    },
}

/// Names a node of one [`Writer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(u32);

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Length of the image in bytes, as its superblock has it.
    pub bytes_used: u64,
    /// Length with the zeros after it: a multiple of [`super::PADDING_BYTES`].
    pub padded_bytes: u64,
    /// Inodes.
    pub inodes: u32,
    /// Names, the root not counted.
    pub names: u64,
    /// Files that share another file's data.
    pub duplicate_files: u64,
    /// The bytes of those files.
    pub duplicate_bytes: u64,
    /// Nodes whose time could not be stored: before 1970 or after 2106-02-07.
    pub clamped_times: u64,
}

/// Writes one image.
pub struct Writer<'m, S: Store + 'static> {
    options: Options,
    monitor: &'m Monitor,
    pool: Pool<S>,
    memo: Option<Arc<dyn Memo>>,
    ids: Ids,
    xattrs: XattrSets,
    nodes: Vec<NodeRecord>,
    dentries: Vec<Dentry>,
    /// All names, one after the other.
    names: Vec<u8>,
    files: Vec<FileRecord>,
    duplicates: Duplicates,
    fragment: OpenFragment,
    /// How long the block lists of all inodes are together.
    listed_blocks: u64,
    summary: Summary,
}

/// A node as its inode will tell it.
struct NodeRecord {
    body: Body,
    mode: u16,
    uid_position: u16,
    gid_position: u16,
    mtime: u32,
    xattrs: u32,
    links: u32,
}

enum Body {
    Directory,
    /// The file's position in `files`, or nothing for an empty one.
    File(Option<u32>),
    Symlink(Box<[u8]>),
    Special {
        kind: u16,
        device: Option<u32>,
    },
}

impl Body {
    fn kind(&self) -> u16 {
        match self {
            Body::Directory => kind::DIRECTORY,
            Body::File(_) => kind::FILE,
            Body::Symlink(_) => kind::SYMLINK,
            Body::Special { kind, .. } => *kind,
        }
    }
}

/// A name in a directory.
struct Dentry {
    directory: u32,
    node: u32,
    name_start: u64,
    name_length: u16,
}

/// The data of one or more equal files.
struct FileRecord {
    size: u64,
    fragment: Option<(u32, u32)>,
}

/// The fragment block that small files go to at the moment.
#[derive(Default)]
struct OpenFragment {
    number: u32,
    bytes: u32,
    parts: Vec<Arc<dyn FileSource>>,
}

/// How many blocks the files of an image may have: 16 TiB at the default block size. Each is listed in the inode of each file that
/// has it, holes too, and this bounds what a few bytes of an archive can cost.
const BLOCKS_MAX: u64 = 1 << 27;

impl<'m, S: Store + 'static> Writer<'m, S> {
    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// Starts an image in `store` with a root directory. Threads start now and end with the writer. `monitor` is
    /// advanced by the bytes of files whose blocks are written; duplicates count when they are found.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for options out of range; when threads cannot be started.
    pub fn new(store: S, options: Options, root: &Attributes<'_>, monitor: &'m Monitor) -> Result<Self> {
        Self::with_memo(store, options, None, root, monitor)
    }

    /// The same, with blocks that were compressed earlier. The bytes of the image are the same.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn with_memo(
        store: S,
        options: Options,
        memo: Option<Arc<dyn Memo>>,
        root: &Attributes<'_>,
        monitor: &'m Monitor,
    ) -> Result<Self> {
        let size = options.block_size;
        if !size.is_power_of_two() || !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&size) {
            return Err(Error::new(ErrorKind::Usage, format!("{size} is not a squashfs block size"))
                .hint("block sizes are powers of two from 4096 to 1048576"));
        }
        let mut writer = Writer {
            pool: Pool::new(store, &options, memo.clone())?,
            memo,
            options,
            monitor,
            ids: Ids::default(),
            xattrs: XattrSets::default(),
            nodes: Vec::new(),
            listed_blocks: 0,
            dentries: Vec::new(),
            names: Vec::new(),
            files: Vec::new(),
            duplicates: Duplicates::default(),
            fragment: OpenFragment::default(),
            summary: Summary {
                bytes_used: 0,
                padded_bytes: 0,
                inodes: 0,
                names: 0,
                duplicate_files: 0,
                duplicate_bytes: 0,
                clamped_times: 0,
            },
        };
        writer.add_node(root, Body::Directory)?;
        Ok(writer)
    }

    /// Adds a node with its first name. Data of files is laid out in the order of these calls; for the same bytes every
    /// time, add in the same order every time. Returns before the file is compressed: an error may surface later.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for what squashfs cannot hold; whatever reading sources and writing fail with.
    pub fn add(&mut self, parent: NodeId, name: &[u8], attributes: &Attributes<'_>, node: Node<'_>) -> Result<NodeId> {
        self.add_named(parent, name, attributes, node).doing(|| format!("adding {} to the squashfs", Quoted(name)))
    }

    fn add_named(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: &Attributes<'_>,
        node: Node<'_>,
    ) -> Result<NodeId> {
        self.monitor.check()?;
        self.expect_place(parent, name)?;
        let body = match node {
            Node::Directory => Body::Directory,
            Node::File(source) => Body::File(self.add_data(source)?),
            Node::Symlink(target) if (1..=SYMLINK_BYTES_MAX).contains(&target.len()) => Body::Symlink(target.into()),
            Node::Symlink(target) => {
                let message = format!("a symbolic link's target of {} bytes", target.len());
                return Err(unsupported(message, "squashfs holds targets of 1 to 65535 bytes"));
            }
            Node::Fifo => Body::Special { kind: kind::FIFO, device: None },
            Node::Socket => Body::Special { kind: kind::SOCKET, device: None },
            Node::CharDevice { major, minor } => special_device(kind::CHAR_DEVICE, major, minor)?,
            Node::BlockDevice { major, minor } => special_device(kind::BLOCK_DEVICE, major, minor)?,
        };
        let is_directory = matches!(body, Body::Directory);
        let id = self.add_node(attributes, body)?;
        self.add_name(parent, name, id);
        if is_directory {
            self.nodes[parent.0 as usize].links += 1;
        } else {
            self.nodes[id.0 as usize].links = 1;
        }
        Ok(id)
    }

    /// Gives a node that is not a directory a further name.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a name that squashfs cannot hold.
    pub fn link(&mut self, parent: NodeId, name: &[u8], node: NodeId) -> Result<()> {
        if matches!(self.nodes[node.0 as usize].body, Body::Directory) {
            return Err(Error::new(ErrorKind::Bug, format!("{} would be a hard link to a directory", Quoted(name))));
        }
        self.expect_place(parent, name)?;
        self.add_name(parent, name, node);
        self.nodes[node.0 as usize].links += 1;
        Ok(())
    }

    fn add_node(&mut self, attributes: &Attributes<'_>, body: Body) -> Result<NodeId> {
        let seconds = attributes.mtime.seconds;
        let mtime = seconds.clamp(0, u32::MAX.into()) as u32;
        self.summary.clamped_times += u64::from(i64::from(mtime) != seconds);
        let id = u32::try_from(self.nodes.len()).ok().filter(|&id| id < u32::MAX - 1);
        let id = id.ok_or_else(|| unsupported("more than 4 Gi files", "split the image"))?;
        let xattrs = attributes.xattrs.map_or(Ok(NONE), |xattrs| self.xattrs.number(xattrs))?;
        let uid_position = self.ids.position(attributes.uid)?;
        let gid_position = self.ids.position(attributes.gid)?;
        // A directory is linked from itself and its parent, even the root.
        let links = if matches!(body, Body::Directory) { 2 } else { 0 };
        let mode = attributes.mode.bits();
        self.nodes.push(NodeRecord { body, mode, uid_position, gid_position, mtime, xattrs, links });
        Ok(NodeId(id))
    }

    /// Refuses a name that cannot be there, before anything of its node is taken.
    fn expect_place(&self, parent: NodeId, name: &[u8]) -> Result<()> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            let message = format!("the name {} has {} bytes", Quoted(name), name.len());
            return Err(unsupported(message, "squashfs holds names of 1 to 256 bytes"));
        }
        if matches!(name, b"." | b"..") || name.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(Error::new(ErrorKind::Bug, format!("{} cannot be a file's name", Quoted(name))));
        }
        if !matches!(self.nodes[parent.0 as usize].body, Body::Directory) {
            return Err(Error::new(
                ErrorKind::Bug,
                format!("{} would be in something that is not a directory", Quoted(name)),
            ));
        }
        Ok(())
    }

    fn add_name(&mut self, parent: NodeId, name: &[u8], node: NodeId) {
        let (name_start, name_length) = (self.names.len() as u64, name.len() as u16);
        self.names.extend_from_slice(name);
        self.dentries.push(Dentry { directory: parent.0, node: node.0, name_start, name_length });
        self.summary.names += 1;
    }

    /// Finds the file's data among those known, or queues it.
    fn add_data(&mut self, source: Arc<dyn FileSource>) -> Result<Option<u32>> {
        let size = source.size();
        if size == 0 {
            return Ok(None);
        }
        self.list_blocks(size)?;
        let file = self.files.len() as u32;
        if let Some(earlier) = self.duplicates.find_or_register(file, &source)? {
            if let (Some(memo), Some(name), Some(same)) = (&self.memo, source.name(), self.duplicates.name(earlier)) {
                memo.same(name, same);
            }
            self.summary.duplicate_files += 1;
            self.summary.duplicate_bytes += size;
            self.monitor.advance(size);
            return Ok(Some(earlier));
        }
        let fragment = if size < u64::from(self.options.block_size) {
            Some(self.add_to_fragment(source, size as u32)?)
        } else {
            self.add_blocks(&source, file)?;
            None
        };
        self.files.push(FileRecord { size, fragment });
        Ok(Some(file))
    }

    /// Counts the blocks of a file of `size` bytes.
    fn list_blocks(&mut self, size: u64) -> Result<()> {
        let block_size = u64::from(self.options.block_size);
        let listed = self.listed_blocks.saturating_add(size / block_size);
        if listed > BLOCKS_MAX {
            let message = format!("with a file of {size} bytes, the image has {listed} blocks of {block_size} bytes");
            return Err(unsupported(message, "at most 134217728 blocks can be written: choose larger blocks"));
        }
        self.listed_blocks = listed;
        Ok(())
    }

    fn add_to_fragment(&mut self, source: Arc<dyn FileSource>, size: u32) -> Result<(u32, u32)> {
        if self.fragment.bytes + size > self.options.block_size {
            self.end_fragment()?;
        }
        let place = (self.fragment.number, self.fragment.bytes);
        self.fragment.bytes += size;
        self.fragment.parts.push(source);
        Ok(place)
    }

    fn end_fragment(&mut self) -> Result<()> {
        if self.fragment.parts.is_empty() {
            return Ok(());
        }
        let parts = std::mem::take(&mut self.fragment.parts);
        self.fragment.number += 1;
        self.fragment.bytes = 0;
        self.pool.submit(Job::Fragment { parts }, self.monitor)
    }

    fn add_blocks(&mut self, source: &Arc<dyn FileSource>, file: u32) -> Result<()> {
        let (size, block_size) = (source.size(), u64::from(self.options.block_size));
        let blocks = size.div_ceil(block_size);
        let mut block = 0;
        while block < blocks {
            let data =
                source.next_data(block * block_size).map_or(blocks, |data| (data / block_size).clamp(block, blocks));
            if data > block {
                self.pool.submit(Job::Holes { file, blocks: (data - block) as u32 }, self.monitor)?;
            }
            if data < blocks {
                let offset = data * block_size;
                let length = block_size.min(size - offset) as u32;
                self.pool.submit(Job::Block { source: Arc::clone(source), offset, length, file }, self.monitor)?;
            }
            block = data + 1;
        }
        Ok(())
    }
}

fn special_device(kind: u16, major: u32, minor: u32) -> Result<Body> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        let message = format!("the device number {major}:{minor}");
        return Err(unsupported(message, "squashfs holds major numbers below 4096 and minor numbers below 1048576"));
    }
    Ok(Body::Special { kind, device: Some(device_number(major, minor)) })
}

fn unsupported(what: impl std::fmt::Display, hint: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("squashfs cannot hold this: {what}")).hint(hint)
}
