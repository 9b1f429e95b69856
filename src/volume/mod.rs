//! A file system as a source: one [`Tree`] and the way to its bytes, whatever holds them.
//!
//! The idea to hold: what is not an image of layers is a tree already. A squashfs and a directory are looked at once, names
//! and metadata only; contents stay where they are until somebody asks for them. Whoever needs a layer gets the tree as one
//! canonical tar that is made as it is read ([`Volume::tar`]), its blocks decoded by several threads.
//!
//! ```text
//! squashfs ──┐            ┌──► tar: one layer, in canonical order
//!            ├──► Volume ─┤
//! directory ─┘            └──► names and single files: ls, cat, configs
//! ```
//!
//! This room knows neither images nor what Singularity keeps inside of a root.

mod blocks;
mod directory;
mod encrypted;
mod members;
mod owners;
mod squashfs;
mod stream;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};

pub(crate) use blocks::Blocks;
pub use directory::DirectoryOptions;
pub(crate) use encrypted::{EncryptedRoot, UnlockedRoot};
pub use stream::TarStream;

use crate::error::{Error, ErrorKind, Result};
use crate::io::{ContentSum, Monitor, zeros};
use crate::model::{Digest, Note, Quoted};
use crate::squashfs::{BlockReader, Input};
use crate::tree::{Content, FileId, InodeId, Kind, Tree};

/// How many names a file system may have: as many as an image.
const ENTRIES_MAX: usize = 8 << 20;

/// A file system that was looked at.
pub struct Volume {
    /// All names. Contents that are [`Content::Stored`] are numbered by this volume: only it can read them.
    pub tree: Tree,
    /// What was left out, or is not as it was.
    pub notes: Vec<Note>,
    /// The names that were left out by [`Volume::drop_whiteout_names`].
    pub whiteout_names: Vec<Vec<u8>>,
    /// Compares all that holds the volume with checksums that lie beside it, where there are such. Whoever takes blocks as they
    /// are does that, too; else each block must be decoded.
    pub check: Option<Box<Check>>,
    backing: Backing,
    tar_bytes: OnceLock<u64>,
}

/// See [`Volume::check`].
pub(crate) type Check = dyn Fn(&Monitor) -> Result<()> + Send + Sync;

/// What holds the contents.
enum Backing {
    Squashfs(Box<squashfs::Files>),
    Directory(Box<directory::Files>),
}

/// A part of the contents of a file that is read at once.
#[derive(Debug, Clone, Copy)]
enum Part {
    Squashfs(crate::squashfs::Stretch),
    Directory { file: FileId, offset: u64, bytes: u32 },
    Zeros(u64),
}

/// A stretch of a file as it is read.
enum Span<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

/// What one thread keeps from part to part.
enum Reader {
    Squashfs(BlockReader),
    Directory,
}

impl Volume {
    fn new(tree: Tree, notes: Vec<Note>, backing: Backing) -> Volume {
        Volume { tree, notes, whiteout_names: Vec::new(), check: None, backing, tar_bytes: OnceLock::new() }
    }

    /// Looks at the squashfs in `input`: a [`Region`](crate::io::Region), or an encrypted one that was
    /// unlocked.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] naming the offset where it is damaged; [`ErrorKind::Unsupported`] for other versions and
    /// compressions of squashfs, and for names that no tar and no Linux can hold.
    pub fn of_squashfs(input: impl Input + Send + 'static, monitor: &Monitor) -> Result<Volume> {
        squashfs::open(Box::new(input), monitor)
    }

    /// Looks at the directory at `path`.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] naming every file that cannot be read; [`ErrorKind::Unsupported`] where there are too
    /// many.
    pub fn of_directory(path: &Path, options: &DirectoryOptions, monitor: &Monitor) -> Result<Volume> {
        directory::open(path, options, monitor)
    }

    /// The contents of a small file; `None` where `inode` is not a regular file.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it has more than `limit` bytes; else as reading fails.
    pub fn read(&self, inode: InodeId, limit: u64) -> Result<Option<Vec<u8>>> {
        let Kind::File(data) = &self.tree.inode(inode).kind else { return Ok(None) };
        if data.size > limit {
            let message = format!("the file has {} bytes, more than {limit}", data.size);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut bytes = Vec::new();
        self.for_each_chunk(inode, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(Some(bytes))
    }

    /// Hands the contents of a regular file to `each`, from its first byte to its last, holes as zeros.
    ///
    /// # Errors
    /// As reading or `each` fails.
    pub fn for_each_chunk(&self, inode: InodeId, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.for_each_span(inode, |span| match span {
            Span::Bytes(bytes) => each(bytes),
            Span::Zeros(count) => zeros(count, &mut each),
        })
    }

    /// The sum of the contents of a regular file, as `ContentSum` has it. A hole costs nothing.
    ///
    /// # Errors
    /// As reading fails.
    pub fn content_sum(&self, inode: InodeId) -> Result<Digest> {
        let mut sum = ContentSum::default();
        self.for_each_span(inode, |span| {
            match span {
                Span::Bytes(bytes) => sum.update(bytes),
                Span::Zeros(count) => sum.zeros(count),
            }
            Ok(())
        })?;
        Ok(sum.finish())
    }

    fn for_each_span(&self, inode: InodeId, mut each: impl FnMut(Span<'_>) -> Result<()>) -> Result<()> {
        let Kind::File(data) = &self.tree.inode(inode).kind else { return Ok(()) };
        if let Content::Inline(bytes) = &data.content {
            return each(Span::Bytes(bytes));
        }
        let mut reader = self.reader()?;
        let mut bytes = Vec::new();
        self.for_each_part(data, |part| {
            if let Part::Zeros(count) = part {
                return each(Span::Zeros(count));
            }
            bytes.clear();
            self.read_part(&part, &mut reader, &mut bytes)?;
            each(Span::Bytes(&bytes))
        })
    }

    /// The bytes of one canonical tar of the whole tree, read ahead and decoded by `threads` threads.
    pub fn tar(self: &Arc<Self>, threads: std::num::NonZeroUsize) -> TarStream {
        TarStream::new(Arc::clone(self), threads)
    }

    /// How many bytes [`Volume::tar`] has.
    pub fn tar_bytes(self: &Arc<Self>) -> u64 {
        // A tree is changed only before its volume is shared, so one count holds.
        *self.tar_bytes.get_or_init(|| members::tar_bytes(&self.tree))
    }

    /// Takes names that mean a removal in a layer (`.wh.NAME`) out of the tree: no layer can hold them.
    pub fn drop_whiteout_names(&mut self) {
        let paths = self.tree.walk().map(|visit| visit.path).filter(|path| last_part(path).starts_with(b".wh."));
        let mut paths: Vec<Vec<u8>> = paths.collect();
        paths.retain(|path| {
            let directory = self.tree.get(&path[..path.len() - last_part(path).len()]);
            directory.is_some_and(|directory| self.tree.detach(directory, last_part(path)))
        });
        self.notes.extend(whiteout_names(paths.iter().map(Vec::as_slice)));
        self.whiteout_names.append(&mut paths);
    }

    fn for_each_part(&self, data: &crate::tree::FileData, mut each: impl FnMut(Part) -> Result<()>) -> Result<()> {
        let Content::Stored(location) = &data.content else { return Ok(()) };
        match &self.backing {
            Backing::Squashfs(files) => files.for_each_stretch(location.file, |stretch| {
                each(if stretch.is_hole() { Part::Zeros(stretch.bytes.into()) } else { Part::Squashfs(stretch) })
            }),
            Backing::Directory(_) => directory::for_each_part(location.file, data.size, each),
        }
    }

    fn reader(&self) -> Result<Reader> {
        match &self.backing {
            Backing::Squashfs(files) => files.image.block_reader().map(Reader::Squashfs),
            Backing::Directory(_) => Ok(Reader::Directory),
        }
    }

    fn read_part(&self, part: &Part, reader: &mut Reader, out: &mut Vec<u8>) -> Result<()> {
        match (part, &self.backing, reader) {
            (Part::Squashfs(stretch), Backing::Squashfs(files), Reader::Squashfs(reader)) => {
                files.image.read_stretch(stretch, reader, out)
            }
            (Part::Directory { file, offset, bytes }, Backing::Directory(files), _) => {
                files.read(*file, *offset, *bytes, out)
            }
            _ => Err(Error::new(ErrorKind::Bug, "a part of a file is of another volume")),
        }
    }

    /// Checks that what was read is still what was looked at.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] naming what changed.
    pub fn expect_unchanged(&self) -> Result<()> {
        match &self.backing {
            Backing::Squashfs(_) => Ok(()),
            Backing::Directory(files) => files.expect_unchanged(),
        }
    }
}

/// What is said of those `names` of a file system that mean a removal in a layer, if there are any.
pub(crate) fn whiteout_names<'a>(names: impl Iterator<Item = &'a [u8]>) -> Option<Note> {
    let text = "names that begin with .wh. cannot be in a layer and were left out";
    let mut note = Note::new("whiteout-names-dropped", text, 0);
    for path in names.filter(|path| last_part(path).starts_with(b".wh.")) {
        note.count += 1;
        note.example(Quoted(path));
    }
    (note.count > 0).then_some(note)
}

fn last_part(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}
