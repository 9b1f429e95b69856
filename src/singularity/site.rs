use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{BindKind, EntryPath, Metadata, Note, Quoted, Timestamp, split_last};
use crate::tree::{Directory, FileData, InodeId, Kind, MADE, Resolution, Tree};

/// The file in `.singularity.d` that lists what was made outside of it, each path ended by a NUL.
pub(super) const MADE_LIST: &[u8] = b"sif-convert.made";
/// The directory in `.singularity.d` that holds what was replaced outside of it, under the path that it had.
pub(super) const REPLACED_DIRECTORY: &[u8] = b"replaced";

/// The tree while it is added to: makes directories, files and links of one owner and time, and keeps account of what had
/// to give way. A name is only ever given a new inode; the inodes of the image stay as they are.
pub(super) struct Site<'a> {
    tree: &'a mut Tree,
    time: Timestamp,
    replaced: Note,
    kept: Note,
    present: Note,
    redirected: Note,
    /// Paths that were made where nothing was.
    made_paths: BTreeSet<Vec<u8>>,
    /// What had a path before, outside of `.singularity.d`.
    replaced_inodes: BTreeMap<Vec<u8>, InodeId>,
}

/// What to do when something that is not a directory stands where one is needed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Obstacle<'a> {
    /// Put a directory in its place, and say so.
    Replace,
    /// Fail: this was asked for.
    Refuse(Asked<'a>),
}

/// Who asks for a path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin<'a> {
    /// An option of this name.
    Option(&'static str),
    /// A place in a configuration.
    Configuration(&'a str),
}

/// A path that was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) path: &'a [u8],
}

impl Asked<'_> {
    /// The error when `found` stands at `at`.
    fn refuse(self, at: &[u8], found: &str, wanted: &str) -> Error {
        let (path, at) = (shown(self.path), shown(at));
        let (asked, hint) = match self.origin {
            Origin::Option(option) => {
                (option, format!("leave out {option} {path}, or choose a path that is free in the image"))
            }
            Origin::Configuration(place) => {
                let hint = "correct mount_path or type in the configuration, or the image: no bind there can work";
                (place, hint.to_string())
            }
        };
        let message = format!("{asked} {path}: in the image {at} is {found}, but {wanted} is needed there");
        Error::new(ErrorKind::Usage, message).hint(hint)
    }
}

/// A directory and the parts of the path to it, free of symlinks.
#[derive(Debug, Clone)]
struct Place {
    parts: Vec<Vec<u8>>,
    inode: InodeId,
}

impl Place {
    const fn root() -> Self {
        Place { parts: Vec::new(), inode: Tree::ROOT }
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [self.parts.join(&b'/').as_slice(), name].join(&b'/')
    }

    fn enter(mut self, name: &[u8], inode: InodeId) -> Self {
        self.parts.push(name.to_vec());
        Place { inode, ..self }
    }
}

impl<'a> Site<'a> {
    pub(super) fn new(tree: &'a mut Tree, time: Timestamp) -> Self {
        let replaced = "things in the image that stood where Singularity needs something else were replaced";
        let kept = "names in the image's root that Singularity would use for its own links were left as they are";
        let present = "paths to bind to that the image has already were left as they are";
        let redirected = "paths to bind to lie behind symlinks of the image, and were looked for where these lead";
        let [replaced, kept, present, redirected] = [
            ("entries-replaced", replaced),
            ("links-not-made", kept),
            ("bind-targets-present", present),
            ("bind-targets-redirected", redirected),
        ]
        .map(|(code, text)| Note::new(code, text, 0));
        let (made_paths, replaced_inodes) = (BTreeSet::new(), BTreeMap::new());
        Site { tree, time, replaced, kept, present, redirected, made_paths, replaced_inodes }
    }

    pub(super) fn tree(&self) -> &Tree {
        self.tree
    }

    pub(super) fn into_notes(self) -> impl Iterator<Item = Note> {
        [self.replaced, self.kept, self.present, self.redirected].into_iter().filter(|note| note.count > 0)
    }

    /// The directory at `path`, made where missing. Symlinks are followed inside the tree, to places that are made where
    /// missing; directories on the way there are 0755.
    pub(super) fn directory(&mut self, path: &[u8], mode: u32, obstacle: Obstacle<'_>) -> Result<InodeId> {
        let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).collect();
        let mut here = Place::root();
        for (index, part) in parts.iter().enumerate() {
            let mode = if index + 1 == parts.len() { mode } else { 0o755 };
            here = self.step(here, part, mode, obstacle)?;
        }
        Ok(here.inode)
    }

    fn step(&mut self, here: Place, name: &[u8], mode: u32, obstacle: Obstacle<'_>) -> Result<Place> {
        let Some(found) = self.tree.lookup(here.inode, name).map(|dentry| dentry.inode) else {
            return self.make_directory(here, name, mode);
        };
        let path = here.path_of(name);
        match self.tree.inode(found).kind {
            Kind::Directory(_) => return Ok(here.enter(name, found)),
            Kind::Symlink(_) => {
                let resolution = resolve(self.tree, &path)?;
                if let Some(place) = self.follow(resolution.parts, mode)? {
                    return Ok(place);
                }
            }
            _ => {}
        }
        match obstacle {
            Obstacle::Replace => {
                self.note_replaced(&path, found, "a directory");
                self.make_directory(here, name, mode)
            }
            Obstacle::Refuse(asked) => Err(asked.refuse(&path, self.describe(found), "a directory")),
        }
    }

    /// The directory that a symlink leads to, made where missing; `None` when something that is not a directory is in the
    /// way. Nothing is made then.
    fn follow(&mut self, parts: Vec<Vec<u8>>, mode: u32) -> Result<Option<Place>> {
        let mut here = Place::root();
        let count = parts.len();
        for (index, part) in parts.into_iter().enumerate() {
            here = match self.tree.lookup(here.inode, &part).map(|dentry| dentry.inode) {
                Some(found) if self.tree.directory(found).is_some() => here.enter(&part, found),
                Some(_) => return Ok(None),
                None => self.make_directory(here, &part, if index + 1 == count { mode } else { 0o755 })?,
            };
        }
        Ok(Some(here))
    }

    fn make_directory(&mut self, here: Place, name: &[u8], mode: u32) -> Result<Place> {
        check_name(&here, name)?;
        let path = here.path_of(name);
        let inode = self.add_directory(here.inode, name, &path, mode);
        Ok(here.enter(name, inode))
    }

    fn add_directory(&mut self, parent: InodeId, name: &[u8], path: &[u8], mode: u32) -> InodeId {
        self.will_make(parent, name, path);
        let inode = self.tree.add(Kind::Directory(Directory::new()), Metadata::root_owned(mode, self.time));
        self.tree.attach(parent, name, inode, MADE);
        inode
    }

    /// Writes down what stands at `path`, before something that is made takes its place.
    fn will_make(&mut self, parent: InodeId, name: &[u8], path: &[u8]) {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        match self.tree.lookup(parent, name) {
            None => drop(self.made_paths.insert(path.to_vec())),
            // What was made before is not part of the image.
            Some(_) if self.made_paths.contains(path) => {}
            Some(_) if !is_outside(path) || self.replaced_inodes.contains_key(path) => {}
            Some(_) => {
                if let Some(before) = self.tree.take(parent, name) {
                    self.replaced_inodes.insert(path.to_vec(), before);
                }
            }
        }
    }

    /// Lets go of what was replaced and fits: an earlier preparation made it.
    pub(super) fn forget_replaced(&mut self, fits: impl Fn(&Tree, InodeId) -> bool) {
        self.replaced_inodes.retain(|_, &mut inode| !fits(self.tree, inode));
    }

    /// Gives what was replaced names inside of `top`, which is `.singularity.d`.
    pub(super) fn keep_replaced(&mut self, top: InodeId) -> Result<()> {
        self.forget_other_records();
        let kept = std::mem::take(&mut self.replaced_inodes);
        if kept.is_empty() {
            return Ok(());
        }
        let base = self.own_directory(top, REPLACED_DIRECTORY, b".singularity.d/replaced")?;
        for (path, inode) in kept {
            let mut parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
            let name = parts.pop().unwrap_or_default();
            let mut directory = base;
            for part in parts {
                directory = self.own_directory(directory, part, b".singularity.d/replaced")?;
            }
            self.tree.attach(directory, name, inode, MADE);
        }
        Ok(())
    }

    /// Takes away what the image itself has in `replaced` for paths that are new: there was nothing to replace.
    fn forget_other_records(&mut self) {
        for path in self.made_paths.clone() {
            let at = [b".singularity.d/replaced/", path.as_slice()].concat();
            let (directory, name) = split_last(&at);
            if let (Some(found), Some(directory)) = (self.tree.get(&at), self.tree.get(directory)) {
                self.note_replaced(&at, found, "nothing");
                self.tree.detach(directory, name);
            }
        }
    }

    /// Writes the list of what was made outside of `top`, which is `.singularity.d`.
    pub(super) fn write_list_of_made(&mut self, top: InodeId) {
        let outside = self.made_paths.iter().filter(|path| is_outside(path));
        let list: Vec<u8> = outside.flat_map(|path| [path.as_slice(), b"\0"].concat()).collect();
        self.add_file(top, MADE_LIST, b".singularity.d/sif-convert.made", 0o644, &list);
    }

    /// The directory `name` itself, no symlink followed; whatever else has that name gives way.
    pub(super) fn own_directory(&mut self, parent: InodeId, name: &[u8], path: &[u8]) -> Result<InodeId> {
        if let Some(dentry) = self.tree.lookup(parent, name) {
            if self.tree.directory(dentry.inode).is_some() {
                return Ok(dentry.inode);
            }
            self.note_replaced(path, dentry.inode, "a directory");
        }
        Ok(self.add_directory(parent, name, path, 0o755))
    }

    /// Makes `name` a new regular file. A regular file of that name gives way without a word, anything else with one.
    pub(super) fn own_file(&mut self, parent: InodeId, name: &[u8], path: &[u8], mode: u32, bytes: &[u8]) {
        if let Some(dentry) = self.tree.lookup(parent, name)
            && !matches!(self.tree.inode(dentry.inode).kind, Kind::File(_))
        {
            self.note_replaced(path, dentry.inode, "a regular file");
        }
        self.add_file(parent, name, path, mode, bytes);
    }

    fn add_file(&mut self, parent: InodeId, name: &[u8], path: &[u8], mode: u32, bytes: &[u8]) {
        self.will_make(parent, name, path);
        let inode = self.tree.add(Kind::File(FileData::inline(bytes)), Metadata::root_owned(mode, self.time));
        self.tree.attach(parent, name, inode, MADE);
    }

    /// Makes `name` in the root a symlink, unless something that is not a symlink has that name.
    pub(super) fn root_link(&mut self, name: &[u8], target: &[u8]) {
        if let Some(dentry) = self.tree.lookup(Tree::ROOT, name)
            && !matches!(self.tree.inode(dentry.inode).kind, Kind::Symlink(_))
        {
            self.kept.count += 1;
            self.kept.example(format!("{} ({})", shown(name), self.describe(dentry.inode)));
            return;
        }
        self.will_make(Tree::ROOT, name, name);
        let inode = self.tree.add(Kind::Symlink(target.into()), Metadata::root_owned(0o777, self.time));
        self.tree.attach(Tree::ROOT, name, inode, MADE);
    }

    /// Gives the regular file `name` of `from` another name in `to`, and takes the old one away later, when it is replaced.
    pub(super) fn link_file(&mut self, from: InodeId, name: &[u8], to: InodeId, new_name: &[u8]) {
        if let Some(dentry) = self.tree.lookup(from, name) {
            self.tree.attach(to, new_name, dentry.inode, MADE);
        }
    }

    /// A directory or an empty file at `path` where nothing is; symlinks are followed inside the tree.
    pub(super) fn requested(&mut self, path: &EntryPath, kind: BindKind, origin: Origin<'_>) -> Result<()> {
        let asked = Asked { origin, path: path.as_bytes() };
        let before = resolve(self.tree, path.as_bytes())?;
        match kind {
            BindKind::Directory => drop(self.directory(path.as_bytes(), 0o755, Obstacle::Refuse(asked))?),
            BindKind::File => self.requested_file(path, asked, &before)?,
        }
        if before.inode.is_some() {
            self.present.count += 1;
            self.present.example(shown(path.as_bytes()));
        }
        if !before.parts.iter().map(Vec::as_slice).eq(path.parts()) {
            self.redirected.count += 1;
            let place = shown(&before.parts.join(&b'/'));
            self.redirected.example(format!("{} ({place})", shown(path.as_bytes())));
        }
        Ok(())
    }

    fn requested_file(&mut self, path: &EntryPath, asked: Asked<'_>, before: &Resolution) -> Result<()> {
        let refuse = |found| Err(asked.refuse(path.as_bytes(), found, "a file"));
        let Some((parent, name)) = path.split_last() else { return refuse("a directory") };
        let parent = self.directory(parent, 0o755, Obstacle::Refuse(asked))?;
        if self.tree.lookup(parent, name).is_none() {
            self.add_file(parent, name, &before.parts.join(&b'/'), 0o644, b"");
            return Ok(());
        }
        let resolution = resolve(self.tree, path.as_bytes())?;
        match resolution.inode {
            Some(found) if self.tree.directory(found).is_some() => refuse("a directory"),
            Some(_) => Ok(()),
            // A dangling symlink: the file is made where it leads to.
            None if self.make_file(resolution.parts)? => Ok(()),
            None => refuse("a symlink to below something that is not a directory"),
        }
    }

    /// Makes an empty file at a path free of symlinks; `false` when something that is not a directory is in the way.
    fn make_file(&mut self, mut parts: Vec<Vec<u8>>) -> Result<bool> {
        let Some(name) = parts.pop() else { return Ok(false) };
        let Some(place) = self.follow(parts, 0o755)? else { return Ok(false) };
        check_name(&place, &name)?;
        let path = place.path_of(&name);
        self.add_file(place.inode, &name, &path, 0o644, b"");
        Ok(true)
    }

    fn note_replaced(&mut self, path: &[u8], found: InodeId, wanted: &str) {
        self.replaced.count += 1;
        self.replaced.example(format!("{} ({}, now {wanted})", shown(path), self.describe(found)));
    }

    fn describe(&self, inode: InodeId) -> &'static str {
        match self.tree.inode(inode).kind {
            Kind::Directory(_) => "a directory",
            Kind::File(_) => "a regular file",
            Kind::Symlink(_) => "a symlink",
            Kind::Fifo => "a named pipe",
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
        }
    }
}

/// Whether something may be what was made outside of `.singularity.d`, links aside: empty, and nothing that runs.
pub(super) fn is_as_made(tree: &Tree, inode: InodeId) -> bool {
    let inode = tree.inode(inode);
    let allowed = match &inode.kind {
        Kind::Directory(names) if names.is_empty() => 0o1777,
        Kind::File(data) if data.size == 0 => 0o644,
        _ => return false,
    };
    inode.metadata.mode.bits() & !allowed == 0
}

fn resolve(tree: &Tree, path: &[u8]) -> Result<crate::tree::Resolution> {
    tree.resolve(path).map_err(|problem| Error::new(ErrorKind::InvalidImage, format!("{}: {problem}", shown(path))))
}

/// Whether a path is not in `.singularity.d`, which goes as a whole.
fn is_outside(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').next() != Some(b".singularity.d")
}

/// A name may come out of a symlink, where it could be anything.
fn check_name(place: &Place, name: &[u8]) -> Result<()> {
    EntryPath::parse(name).map(drop).map_err(|problem| {
        let message = format!("a symlink leads to {}, which cannot be made: {problem}", shown(&place.path_of(name)));
        Error::new(ErrorKind::InvalidImage, message)
    })
}

/// An absolute path for people.
fn shown(path: &[u8]) -> String {
    let absolute: Vec<u8> = [b"/", path.strip_prefix(b"/").unwrap_or(path)].concat();
    Quoted(&absolute).to_string()
}
