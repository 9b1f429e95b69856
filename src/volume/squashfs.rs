//! A squashfs as a volume.

use std::collections::BTreeMap;

use super::{Backing, ENTRIES_MAX, Volume, last_part, owners};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::io::Monitor;
use crate::model::{EntryPath, Metadata, Note, Quoted, Timestamp};
use crate::squashfs::{Entry, FileInode, Image, Inode, InodeKind, Input, Stretch};
use crate::tree::{Content, Directory, FileData, FileId, InodeId, Kind, Location, Tree};

/// Whatever holds the image.
pub(super) type AnyInput = Box<dyn Input + Send>;

/// The image and the inodes of its files, by number.
pub(super) struct Files {
    pub(super) image: Image<AnyInput>,
    pub(super) files: Vec<FileInode>,
}

impl Files {
    pub(super) fn for_each_stretch(&self, file: FileId, mut each: impl FnMut(Stretch) -> Result<()>) -> Result<()> {
        let inode = self.files.get(file.0 as usize);
        let inode = inode.ok_or_else(|| Error::new(ErrorKind::Bug, "a file is of another volume"))?;
        self.image.stretches(inode).try_for_each(|stretch| each(stretch?))
    }
}

pub(super) fn open(input: AnyInput, monitor: &Monitor) -> Result<Volume> {
    let image = Image::open(input)?;
    let mut build = Build {
        tree: Tree::default(),
        files: Vec::new(),
        directories: vec![Tree::ROOT],
        by_identity: BTreeMap::new(),
        names: 0,
        sockets: Note::new("sockets-dropped", "sockets were left out: no layer can hold them", 0),
    };
    for entry in image.entries() {
        monitor.check()?;
        let entry = entry?;
        build.add(&image, &entry).doing(|| format!("reading {}", Quoted(&entry.path)))?;
    }
    let Build { tree, files, sockets, .. } = build;
    let notes = Some(sockets).filter(|note| note.count > 0).into_iter().collect();
    Ok(Volume::new(tree, notes, Backing::Squashfs(Box::new(Files { image, files }))))
}

struct Build {
    tree: Tree,
    files: Vec<FileInode>,
    /// The directories that lead to the name at hand, the root first.
    directories: Vec<InodeId>,
    /// Inodes that are not directories.
    by_identity: BTreeMap<u64, InodeId>,
    names: usize,
    sockets: Note,
}

impl Build {
    fn add(&mut self, image: &Image<AnyInput>, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        EntryPath::parse(path).map_err(|error| Error::new(ErrorKind::Unsupported, error))?;
        self.names += 1;
        if self.names > ENTRIES_MAX {
            return Err(Error::new(ErrorKind::Unsupported, format!("it holds more than {ENTRIES_MAX} names")));
        }
        let is_directory = matches!(entry.inode.kind, InodeKind::Directory(_));
        if path.is_empty() {
            self.tree.inode_mut(Tree::ROOT).metadata = metadata(image, &entry.inode)?;
            return Ok(());
        }
        let depth = path.iter().filter(|&&byte| byte == b'/').count();
        self.directories.truncate(depth + 1);
        let parent = self.directories[depth];
        let known = self.by_identity.get(&entry.inode.identity()).filter(|_| !is_directory);
        let inode = match known {
            Some(inode) => *inode,
            None => {
                let Some(kind) = self.kind(&entry.inode.kind, path)? else { return Ok(()) };
                self.tree.add(kind, metadata(image, &entry.inode)?)
            }
        };
        self.tree.attach(parent, last_part(path), inode, 0);
        if is_directory {
            self.directories.push(inode);
        } else if entry.inode.links > 1 {
            self.by_identity.insert(entry.inode.identity(), inode);
        }
        Ok(())
    }

    /// `None` for what is left out.
    fn kind(&mut self, kind: &InodeKind, path: &[u8]) -> Result<Option<Kind>> {
        Ok(Some(match kind {
            InodeKind::Directory(_) => Kind::Directory(Directory::new()),
            InodeKind::File(file) if file.size == 0 => Kind::File(FileData::inline(&b""[..])),
            InodeKind::File(file) => {
                let location = Location { file: FileId(self.files.len() as u32), offset: 0 };
                self.files.push(file.clone());
                Kind::File(FileData { size: file.size, content: Content::Stored(location), origin: None })
            }
            InodeKind::Symlink(target) => Kind::Symlink(target.clone()),
            InodeKind::BlockDevice { major, minor } => Kind::BlockDevice { major: *major, minor: *minor },
            InodeKind::CharDevice { major, minor } => Kind::CharDevice { major: *major, minor: *minor },
            InodeKind::Fifo => Kind::Fifo,
            InodeKind::Socket => {
                self.sockets.count += 1;
                self.sockets.example(Quoted(path));
                return Ok(None);
            }
        }))
    }
}

fn metadata(image: &Image<AnyInput>, inode: &Inode) -> Result<Metadata> {
    let xattrs = image.xattrs(inode)?;
    let mut metadata = Metadata {
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        mtime: Timestamp::from_seconds(inode.mtime.into()),
        xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
    };
    owners::apply(&mut metadata);
    Ok(metadata)
}
