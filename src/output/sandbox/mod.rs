//! A merged file system as a directory.
//!
//! It grows under a hidden name beside its own, open to nobody else, and gets its name when it is complete. Nothing is reached
//! through a symbolic link: every name is created in a directory that was opened below the root without following any.
//! Metadata of directories comes last, from the inside out: before that we must be able to write into them.

mod meta;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, linkat, mkdirat, symlinkat};
use rustix::io::Errno;

use self::meta::{Metas, Target};
use super::flat::Written;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Monitor, Phase, ScratchDirectory, copy_between, system};
use crate::layers::{Contents, Flattened, Piece};
use crate::model::{Note, Quoted};
use crate::tree::{FileData, InodeId, Kind, Tree};

/// Begins the directory that is to become `path`, which must not exist.
pub(super) fn open(path: &Path) -> Result<ScratchDirectory> {
    if path.symlink_metadata().is_ok() {
        let message = format!("output {path:?} exists, and a directory is never replaced");
        return Err(Error::new(ErrorKind::Output, message).hint("remove it first, or name another").at(path));
    }
    ScratchDirectory::create(path, 0o700)
}

/// Writes all names into `directory`.
pub(super) fn write(flattened: Flattened, directory: &ScratchDirectory, monitor: &Monitor) -> Result<Written> {
    let Flattened { tree, contents, .. } = flattened;
    monitor.begin(Phase::Write, tree.file_bytes());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory.path(), flags, Mode::empty()).map_err(std::io::Error::from);
    let root = root.or_kind(ErrorKind::Output).doing(|| format!("opening {:?}", directory.path()))?;
    let devices = Note::new("device-nodes-dropped", "device nodes were left out: only root can make them", 0);
    let parent = (Vec::new(), root.try_clone().or_kind(ErrorKind::Output)?);
    let mut writer =
        Writer { tree: &tree, contents: &contents, root, parent, monitor, metas: Metas::default(), devices };
    let names = writer.names()?;
    let mut notes = writer.metas.notes();
    notes.extend((writer.devices.count > 0).then_some(writer.devices));
    system::sync_file_system(&writer.root);
    Ok(Written { names, bytes: tree.file_bytes(), notes })
}

struct Writer<'a> {
    tree: &'a Tree,
    contents: &'a Contents,
    root: OwnedFd,
    /// The directory that was opened last: names of one come one after the other.
    parent: (Vec<u8>, OwnedFd),
    monitor: &'a Monitor,
    metas: Metas,
    devices: Note,
}

impl Writer<'_> {
    fn names(&mut self) -> Result<u64> {
        let tree = self.tree;
        let mut first_names: Vec<Option<Vec<u8>>> = vec![None; tree.inode_count()];
        let mut directories: Vec<(Vec<u8>, InodeId)> = vec![(Vec::new(), Tree::ROOT)];
        let mut names = 1;
        for visit in tree.walk().skip(1) {
            self.monitor.check()?;
            names += 1;
            let doing = || format!("writing {}", Quoted(&visit.path));
            let (parent, name) = split(&visit.path);
            self.enter(parent).doing(doing)?;
            if let Some(first) = &first_names[visit.inode.index()] {
                self.link(first, name).doing(doing)?;
                continue;
            }
            let is_there = self.make(name, visit.inode, &visit.path).doing(doing)?;
            if tree.directory(visit.inode).is_some() {
                directories.push((visit.path, visit.inode));
            } else if is_there && tree.inode(visit.inode).links > 1 {
                first_names[visit.inode.index()] = Some(visit.path);
            }
        }
        for (path, inode) in directories.iter().rev() {
            let doing = || format!("writing {}", Quoted(if path.is_empty() { b"." } else { path }));
            let directory = open_directory(&self.root, path).doing(doing)?;
            self.metas.apply(Target::Open(directory.as_fd()), &tree.inode(*inode).metadata, path).doing(doing)?;
        }
        Ok(names)
    }

    fn enter(&mut self, path: &[u8]) -> Result<()> {
        if self.parent.0 != path {
            self.parent = (path.to_vec(), open_directory(&self.root, path)?);
        }
        Ok(())
    }

    /// Makes a new name in the directory at hand; `false` for what cannot be made here.
    fn make(&mut self, name: &[u8], id: InodeId, path: &[u8]) -> Result<bool> {
        let inode = self.tree.inode(id);
        let parent = self.parent.1.as_fd();
        let made = match &inode.kind {
            Kind::Directory(_) => {
                mkdirat(parent, name, Mode::RWXU).map_err(std::io::Error::from).or_kind(ErrorKind::Output)?;
                return Ok(true);
            }
            Kind::File(data) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = system::open_beneath(parent, name, flags, Mode::RUSR | Mode::WUSR);
                let file = File::from(file.or_kind(ErrorKind::Output)?);
                write_contents(self.contents, data, &file, self.monitor)?;
                self.metas.apply(Target::Open(file.as_fd()), &inode.metadata, path)?;
                return Ok(true);
            }
            Kind::Symlink(target) => symlinkat(&**target, parent, name),
            Kind::Fifo => system::make_special(parent, name, FileType::Fifo, (0, 0)),
            Kind::CharDevice { major, minor } => {
                system::make_special(parent, name, FileType::CharacterDevice, (*major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                system::make_special(parent, name, FileType::BlockDevice, (*major, *minor))
            }
        };
        match made {
            Err(Errno::PERM) if matches!(inode.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) => {
                self.devices.count += 1;
                self.devices.example(Quoted(path));
                return Ok(false);
            }
            made => made.map_err(std::io::Error::from).or_kind(ErrorKind::Output)?,
        }
        let is_symlink = matches!(inode.kind, Kind::Symlink(_));
        self.metas.apply(Target::Named { parent: self.parent.1.as_fd(), name, is_symlink }, &inode.metadata, path)?;
        Ok(true)
    }

    fn link(&self, first: &[u8], name: &[u8]) -> Result<()> {
        let (parent, first_name) = split(first);
        let from = open_directory(&self.root, parent)?;
        let linked = linkat(&from, first_name, self.parent.1.as_fd(), name, AtFlags::empty());
        linked
            .map_err(std::io::Error::from)
            .or_kind(ErrorKind::Output)
            .doing(|| format!("linking it to {}", Quoted(first)))
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|&byte| byte == b'/');
    at.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]))
}

fn open_directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    if path.is_empty() {
        return root.try_clone().or_kind(ErrorKind::Output);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    system::open_beneath(root, path, flags, Mode::empty()).or_kind(ErrorKind::Output)
}

fn write_contents(contents: &Contents, data: &FileData, mut file: &File, monitor: &Monitor) -> Result<()> {
    let mut at = 0;
    for piece in contents.pieces(data) {
        let len = piece.len();
        match piece {
            Piece::Bytes(bytes) => {
                file.write_all_at(bytes, at).or_kind(ErrorKind::Output)?;
                monitor.advance(len);
            }
            Piece::Stored { file: from, offset, len, .. } => {
                copy_between((from, offset), (file, at), len, |bytes| monitor.pass(bytes))?;
            }
            Piece::Zeros(_) => monitor.advance(len),
        }
        at += len;
    }
    file.set_len(data.size).or_kind(ErrorKind::Output)?;
    file.flush().or_kind(ErrorKind::Output)
}
