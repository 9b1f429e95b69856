use crate::error::{Error, ErrorKind, Result};
use crate::model::{Metadata, Note, Quoted, Timestamp};
use crate::tree::{Directory, FileData, InodeId, Kind, MADE, Tree};

/// The tree while it is added to.
pub(super) struct Site<'a> {
    tree: &'a mut Tree,
    time: Timestamp,
    notes: Vec<Note>,
}

impl<'a> Site<'a> {
    pub(super) fn new(tree: &'a mut Tree, time: Timestamp) -> Self {
        Site { tree, time, notes: Vec::new() }
    }

    pub(super) fn into_notes(self) -> Vec<Note> {
        self.notes
    }

    pub(super) fn note(&mut self, note: Note) {
        self.notes.extend((note.count > 0).then_some(note));
    }

    pub(super) fn exists(&self, path: &[u8]) -> bool {
        self.tree.resolve(path).is_ok_and(|found| found.inode.is_some())
    }

    /// The directory at `path`, made where missing. Symlinks are followed inside of the root.
    pub(super) fn directory(&mut self, path: &[u8]) -> Result<InodeId> {
        let found = self.tree.resolve(path);
        let found = found.map_err(|error| Error::new(ErrorKind::InvalidImage, format!("{}: {error}", Quoted(path))))?;
        let mut at = Tree::ROOT;
        for part in found.parts {
            at = match self.tree.lookup(at, &part).map(|dentry| dentry.inode) {
                Some(inode) if self.tree.directory(inode).is_some() => inode,
                Some(_) => {
                    let message =
                        format!("{} is needed as a directory, and the image has something else there", Quoted(path));
                    return Err(Error::new(ErrorKind::InvalidImage, message));
                }
                None => {
                    let made = self.tree.add(Kind::Directory(Directory::new()), Metadata::root_owned(0o755, self.time));
                    self.tree.attach(at, &part, made, MADE);
                    made
                }
            };
        }
        Ok(at)
    }

    /// Puts a file of these bytes at `path`, in place of what may be there.
    pub(super) fn file(&mut self, path: &[u8], bytes: Vec<u8>) -> Result<()> {
        let at = path.iter().rposition(|&byte| byte == b'/').unwrap_or_default();
        let (parent, name) = (&path[..at], path[at..].strip_prefix(b"/").unwrap_or(&path[at..]));
        let directory = self.directory(parent)?;
        let made = self.tree.add(Kind::File(FileData::inline(bytes)), Metadata::root_owned(0o644, self.time));
        self.tree.attach(directory, name, made, MADE);
        Ok(())
    }

    /// Gives all files to 0:0.
    pub(super) fn give_all_to_root(&mut self) {
        let inodes: Vec<InodeId> = self.tree.walk().map(|visit| visit.inode).collect();
        for inode in inodes {
            let metadata = &mut self.tree.inode_mut(inode).metadata;
            (metadata.uid, metadata.gid) = (0, 0);
        }
    }
}
