//! A directory as a volume: a sandbox, what debootstrap made, anything that was unpacked.
//!
//! Every name is looked at before the first byte is read, so that what cannot be read is told at once and all together.
//! What is read later must be what was looked at: device, inode, size and times are compared, and nothing is reached
//! through a symlink.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata as FileMetadata};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode as OpenMode, OFlags};

use super::{Backing, ENTRIES_MAX, Part, Volume, owners};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::folder::Stamp;
use crate::io::{Monitor, Phase, system};
use crate::model::{EntryPath, Metadata, Mode, Note, Quoted, Timestamp, Xattrs};
use crate::tree::{Content, Directory, FileData, FileId, InodeId, Kind, Location, Tree};

/// How much of a file is read at once, in bytes.
const PART_BYTES: u64 = 1 << 20;
/// How many of what cannot be read are named.
const NAMED_MAX: usize = 10;
/// Linux knows no longer lists of names and no longer values (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`), in bytes.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// How a directory is taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct DirectoryOptions {
    /// Whether everything belongs to 0:0, rather than to whom it belongs here.
    pub all_root: bool,
}

/// What was looked at, to be read and compared later.
pub(super) struct Files {
    root: PathBuf,
    root_fd: OwnedFd,
    /// Regular files by number.
    files: Vec<(Box<[u8]>, Stamp)>,
    /// Directories, symlinks and empty files.
    others: Vec<(Box<[u8]>, Stamp)>,
}

pub(super) fn for_each_part(file: FileId, size: u64, mut each: impl FnMut(Part) -> Result<()>) -> Result<()> {
    let mut offset = 0;
    while offset < size {
        let bytes = (size - offset).min(PART_BYTES);
        each(Part::Directory { file, offset, bytes: bytes as u32 })?;
        offset += bytes;
    }
    Ok(())
}

impl Files {
    /// Appends `bytes` bytes of a file from `offset` on. It must be the file that was looked at, before and after.
    pub(super) fn read(&self, file: FileId, offset: u64, bytes: u32, out: &mut Vec<u8>) -> Result<()> {
        let known = self.files.get(file.0 as usize);
        let (path, stamp) = known.ok_or_else(|| Error::new(ErrorKind::Bug, "a file is of another volume"))?;
        self.read_file(path, stamp, offset, bytes, out).doing(|| format!("reading {}", Quoted(path)))
    }

    fn read_file(&self, path: &[u8], stamp: &Stamp, offset: u64, bytes: u32, out: &mut Vec<u8>) -> Result<()> {
        let file = open_below(&self.root_fd, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let same = || Ok(Stamp::of(&file.metadata().or_kind(ErrorKind::SourceUnavailable)?) == *stamp);
        if !same()? {
            return Err(changed());
        }
        let start = out.len();
        out.resize(start + bytes as usize, 0);
        match file.read_exact_at(&mut out[start..], offset) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(changed()),
            read => read.or_kind(ErrorKind::SourceUnavailable)?,
        }
        if same()? { Ok(()) } else { Err(changed()) }
    }

    /// Names may have come or gone while others were read.
    pub(super) fn expect_unchanged(&self) -> Result<()> {
        for (path, stamp) in &self.others {
            let found = match &**path {
                b"" => fs::metadata(&self.root),
                path => fs::symlink_metadata(self.root.join(OsStr::from_bytes(path))),
            };
            if !found.is_ok_and(|data| Stamp::of(&data) == *stamp) {
                return Err(changed()).doing(|| Quoted(if path.is_empty() { b"." } else { path }).to_string());
            }
        }
        Ok(())
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::SourceUnavailable, "it was changed while it was read")
        .hint("stop what writes to the directory, and run the same command again")
}

/// Opens a file below `root` without following any symlink.
fn open_below(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<File> {
    use rustix::io::Errno;
    // Where the system cannot resolve a path so, the stamps still tell what is not the same file.
    match system::open_beneath(root, path, flags | OFlags::CLOEXEC, OpenMode::empty()) {
        Ok(file) => Ok(File::from(file)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NOTDIR) => Err(changed()),
            _ => Err(Error::io(ErrorKind::SourceUnavailable, error)),
        },
    }
}

pub(super) fn open(root: &Path, options: &DirectoryOptions, monitor: &Monitor) -> Result<Volume> {
    monitor.begin(Phase::Open, 0);
    let data = fs::metadata(root).or_kind(ErrorKind::SourceUnavailable)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_fd = rustix::fs::open(root, flags, OpenMode::empty()).map_err(std::io::Error::from);
    let root_fd = root_fd.or_kind(ErrorKind::SourceUnavailable)?;
    let mut scan = Scan::new(root, root_fd, *options, data.dev());
    let (metadata, is_recorded) = scan.recorded(b"", &data)?;
    scan.stands_for_root = (is_recorded && data.uid() != 0).then_some((data.uid(), data.gid()));
    scan.tree.inode_mut(Tree::ROOT).metadata = metadata;
    scan.others.push((Box::default(), Stamp::of(&data)));
    scan.walk(monitor)?;
    scan.finish()
}

struct Scan<'a> {
    root: &'a Path,
    root_fd: OwnedFd,
    options: DirectoryOptions,
    device: u64,
    /// Who owns here what root owned, where the directory was written without root: then its own owner is recorded.
    stands_for_root: Option<(u32, u32)>,
    tree: Tree,
    files: Vec<(Box<[u8]>, Stamp)>,
    others: Vec<(Box<[u8]>, Stamp)>,
    /// Files that have several names, by inode.
    first_names: BTreeMap<u64, InodeId>,
    unreadable: Vec<String>,
    unreadable_count: u64,
    sockets: Note,
    mounts: Note,
    attributes: Note,
}

/// A directory whose names are being gone through.
struct Level {
    inode: InodeId,
    path: Vec<u8>,
    names: std::vec::IntoIter<OsString>,
}

impl<'a> Scan<'a> {
    fn new(root: &'a Path, root_fd: OwnedFd, options: DirectoryOptions, device: u64) -> Self {
        let attributes = "access control lists and extended attributes that only this machine knows were left out";
        let mounts = "other file systems that are mounted inside were left out, their mount points are empty";
        Scan {
            root,
            root_fd,
            options,
            device,
            stands_for_root: None,
            tree: Tree::default(),
            files: Vec::new(),
            others: Vec::new(),
            first_names: BTreeMap::new(),
            unreadable: Vec::new(),
            unreadable_count: 0,
            sockets: Note::new("sockets-dropped", "sockets were left out: no layer can hold them", 0),
            mounts: Note::new("mounts-dropped", mounts, 0),
            attributes: Note::new("attributes-dropped", attributes, 0),
        }
    }

    fn walk(&mut self, monitor: &Monitor) -> Result<()> {
        let names = self.names_of(b"");
        let mut levels = vec![Level { inode: Tree::ROOT, path: Vec::new(), names }];
        while let Some(level) = levels.last_mut() {
            monitor.check()?;
            let Some(name) = level.names.next() else {
                levels.pop();
                continue;
            };
            let separator: &[u8] = if level.path.is_empty() { b"" } else { b"/" };
            let path = [&level.path, separator, name.as_bytes()].concat();
            let parent = level.inode;
            let found = self.look(parent, &path, name.as_bytes()).doing(|| Quoted(&path).to_string())?;
            if let Some(inode) = found {
                let names = self.names_of(&path);
                levels.push(Level { inode, path, names });
            }
        }
        Ok(())
    }

    /// Takes one name; its inode where it is a directory whose names are wanted.
    fn look(&mut self, parent: InodeId, path: &[u8], name: &[u8]) -> Result<Option<InodeId>> {
        if self.tree.inode_count() >= ENTRIES_MAX {
            let message = format!("the directory holds more than {ENTRIES_MAX} names");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        EntryPath::parse(path).map_err(|error| Error::new(ErrorKind::Unsupported, error))?;
        let place = self.root.join(OsStr::from_bytes(path));
        let data = fs::symlink_metadata(&place).or_kind(ErrorKind::SourceUnavailable)?;
        if let Some(&inode) = self.first_names.get(&data.ino()).filter(|_| !data.is_dir() && data.dev() == self.device)
        {
            self.tree.attach(parent, name, inode, 0);
            return Ok(None);
        }
        let Some(kind) = self.kind(path, &place, &data)? else { return Ok(None) };
        let metadata = self.metadata(path, &data)?;
        let is_directory = matches!(kind, Kind::Directory(_));
        if is_directory || matches!(kind, Kind::Symlink(_)) {
            self.others.push((path.into(), Stamp::of(&data)));
        }
        let inode = self.tree.add(kind, metadata);
        self.tree.attach(parent, name, inode, 0);
        if data.nlink() > 1 && !is_directory && data.dev() == self.device {
            self.first_names.insert(data.ino(), inode);
        }
        if is_directory && data.dev() != self.device {
            self.mounts.count += 1;
            self.mounts.example(Quoted(path));
            return Ok(None);
        }
        Ok(is_directory.then_some(inode))
    }

    /// What a name is; `None` for what is left out.
    fn kind(&mut self, path: &[u8], place: &Path, data: &FileMetadata) -> Result<Option<Kind>> {
        let device = || system::device_numbers(data.rdev());
        Ok(Some(match data.file_type() {
            kind if kind.is_dir() => Kind::Directory(Directory::new()),
            kind if kind.is_file() => self.file(path, data),
            kind if kind.is_symlink() => {
                let target = fs::read_link(place).or_kind(ErrorKind::SourceUnavailable)?;
                Kind::Symlink(target.into_os_string().into_vec().into())
            }
            kind if kind.is_fifo() => Kind::Fifo,
            kind if kind.is_char_device() => {
                let (major, minor) = device();
                Kind::CharDevice { major, minor }
            }
            kind if kind.is_block_device() => {
                let (major, minor) = device();
                Kind::BlockDevice { major, minor }
            }
            _ => {
                self.sockets.count += 1;
                self.sockets.example(Quoted(path));
                return Ok(None);
            }
        }))
    }

    fn file(&mut self, path: &[u8], data: &FileMetadata) -> Kind {
        if rustix::fs::accessat(&self.root_fd, path, Access::READ_OK, AtFlags::EACCESS).is_err() {
            self.cannot_read(path);
        }
        if data.size() == 0 {
            self.others.push((path.into(), Stamp::of(data)));
            return Kind::File(FileData::inline(&b""[..]));
        }
        let location = Location { file: FileId(self.files.len() as u32), offset: 0 };
        self.files.push((path.into(), Stamp::of(data)));
        Kind::File(FileData { size: data.size(), content: Content::Stored(location), origin: None })
    }

    fn cannot_read(&mut self, path: &[u8]) {
        self.unreadable_count += 1;
        if self.unreadable.len() < NAMED_MAX {
            self.unreadable.push(Quoted(if path.is_empty() { b"." } else { path }).to_string());
        }
    }

    /// The names in a directory, bytewise. One that cannot be read is told with the files that cannot.
    fn names_of(&mut self, path: &[u8]) -> std::vec::IntoIter<OsString> {
        let read = fs::read_dir(self.root.join(OsStr::from_bytes(path)));
        let names = read.and_then(|names| names.map(|each| each.map(|each| each.file_name())).collect());
        let mut names: Vec<OsString> = names.unwrap_or_else(|_: std::io::Error| {
            self.cannot_read(path);
            Vec::new()
        });
        names.sort_unstable();
        names.into_iter()
    }

    fn metadata(&mut self, path: &[u8], data: &FileMetadata) -> Result<Metadata> {
        self.recorded(path, data).map(|(metadata, _)| metadata)
    }

    /// The same, and whether the owner is recorded beside the file.
    fn recorded(&mut self, path: &[u8], data: &FileMetadata) -> Result<(Metadata, bool)> {
        let place = self.root.join(OsStr::from_bytes(path));
        let reading = || format!("reading extended attributes of {}", Quoted(path));
        let (xattrs, loses_some) = xattrs(&place).doing(reading)?;
        if loses_some {
            self.attributes.count += 1;
            self.attributes.example(Quoted(path));
        }
        let mut metadata = Metadata {
            mode: Mode::new(data.mode()),
            uid: data.uid(),
            gid: data.gid(),
            mtime: Timestamp { seconds: data.mtime(), nanoseconds: data.mtime_nsec() as u32 },
            xattrs: (!xattrs.is_empty()).then(|| Box::new(xattrs)),
        };
        let is_recorded = owners::apply(&mut metadata);
        if let (false, Some((uid, gid))) = (is_recorded, self.stands_for_root) {
            let shown = |number: u32, stands_for_root: u32| if number == stands_for_root { 0 } else { number };
            (metadata.uid, metadata.gid) = (shown(metadata.uid, uid), shown(metadata.gid, gid));
        }
        if self.options.all_root {
            (metadata.uid, metadata.gid) = (0, 0);
        }
        Ok((metadata, is_recorded))
    }

    fn finish(self) -> Result<Volume> {
        if self.unreadable_count > 0 {
            let more = self.unreadable_count - self.unreadable.len() as u64;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let message = format!("cannot read {}{more}", self.unreadable.join(", "));
            return Err(Error::new(ErrorKind::SourceUnavailable, message)
                .hint("make them readable (chmod u+rX), or run as the user who owns them"));
        }
        let files = Files { root: self.root.into(), root_fd: self.root_fd, files: self.files, others: self.others };
        let notes = [self.sockets, self.mounts, self.attributes].into_iter().filter(|note| note.count > 0).collect();
        Ok(Volume::new(self.tree, notes, Backing::Directory(Box::new(files))))
    }
}

/// Extended attributes that belong to the file rather than to this machine, and whether there are others that somebody chose.
fn xattrs(place: &Path) -> Result<(Xattrs, bool)> {
    let mut list = vec![0; XATTR_BYTES_MAX];
    let count = match rustix::fs::llistxattr(place, &mut list) {
        Ok(count) => count,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok((Xattrs::new(), false)),
        Err(error) => return Err(Error::io(ErrorKind::SourceUnavailable, error.into())),
    };
    let mut xattrs = Xattrs::new();
    let mut loses_some = false;
    for name in list[..count].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if !is_portable(name) {
            loses_some |= !is_of_system(name);
            continue;
        }
        let mut value = vec![0; XATTR_BYTES_MAX];
        match rustix::fs::lgetxattr(place, name, &mut value) {
            Ok(count) => drop(xattrs.insert(name.into(), value[..count].into())),
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(Error::io(ErrorKind::SourceUnavailable, error.into())),
        }
    }
    Ok((xattrs, loses_some))
}

/// Whether the system itself sets an attribute, not a person: a security label, a checksum of IMA, a mark of overlayfs, the form
/// in which a file server shows its own access control lists.
fn is_of_system(name: &[u8]) -> bool {
    let is_acl = name.starts_with(b"system.posix_acl_");
    let is_label = name.strip_prefix(b"security.").is_some_and(|label| {
        matches!(label, b"selinux" | b"sehash" | b"ima" | b"evm" | b"apparmor") || label.starts_with(b"SMACK64")
    });
    is_label || name.starts_with(b"system.") && !is_acl || name.starts_with(b"trusted.overlay.")
}

fn is_portable(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability"
}
