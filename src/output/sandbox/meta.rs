use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, futimens,
    utimensat,
};
use rustix::io::Errno;

use crate::error::{ErrorKind, IoResultExt as _, Result};
use crate::model::{Metadata, Note, Quoted, Timestamp};

/// Where tools without privileges write down whom a file belongs to, as a protobuf message of two numbers
/// (<https://github.com/rootless-containers/proto>).
const OWNER_XATTR: &str = "user.rootlesscontainers";

/// What metadata is given to.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// Something that cannot be opened, in a directory that is.
    Named { parent: BorrowedFd<'a>, name: &'a [u8], is_symlink: bool },
}

/// Gives metadata to files, and remembers what could not be given.
pub(super) struct Metas {
    recorded: Note,
    lost: Note,
    xattrs: Note,
}

impl Default for Metas {
    fn default() -> Self {
        let recorded = "owners could not be given to files without root: they are recorded in the extended attribute \
                        user.rootlesscontainers";
        Metas {
            recorded: Note::new("owners-recorded", recorded, 0),
            lost: Note::new("owners-lost", "owners could neither be given to files nor recorded without root", 0),
            xattrs: Note::new("xattrs-dropped", "extended attributes could not be set here and were left out", 0),
        }
    }
}

impl Metas {
    /// What the user should know.
    pub(super) fn notes(&self) -> Vec<Note> {
        [&self.recorded, &self.lost, &self.xattrs].into_iter().filter(|note| note.count > 0).cloned().collect()
    }

    /// Owner first: giving a file away takes setuid and capabilities from it. The time last.
    pub(super) fn apply(&mut self, target: Target<'_>, metadata: &Metadata, path: &[u8]) -> Result<()> {
        let output = |result: rustix::io::Result<()>| result.map_err(std::io::Error::from).or_kind(ErrorKind::Output);
        match own(target, metadata) {
            Err(Errno::PERM | Errno::INVAL) => self.record_owner(target, metadata, path),
            owned => {
                output(owned)?;
                if !rustix::process::geteuid().is_root() {
                    // Without a record, files of the user who writes them are read back as root's.
                    record(target, metadata);
                }
            }
        }
        let mode = Mode::from_raw_mode(metadata.mode.bits().into());
        match target {
            Target::Open(file) => output(fchmod(file, mode))?,
            Target::Named { is_symlink: true, .. } => {}
            Target::Named { parent, name, .. } => output(chmodat(parent, name, mode, AtFlags::empty()))?,
        }
        for (name, value) in metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
            let is_set = match target {
                Target::Open(file) => fsetxattr(file, &**name, value, XattrFlags::empty()).is_ok(),
                // Only by a path, which is not safe, and hardly anything takes one.
                Target::Named { .. } => false,
            };
            if !is_set {
                self.xattrs.count += 1;
                self.xattrs.example(format!("{} of {}", Quoted(name), Quoted(path)));
            }
        }
        let times = Timestamps { last_access: timespec(metadata.mtime), last_modification: timespec(metadata.mtime) };
        output(match target {
            Target::Open(file) => futimens(file, &times),
            Target::Named { parent, name, .. } => utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW),
        })
    }

    fn record_owner(&mut self, target: Target<'_>, metadata: &Metadata, path: &[u8]) {
        if (metadata.uid, metadata.gid) == (0, 0) {
            // These files belong to the user who writes them. The record of the topmost directory tells readers that.
            if path.is_empty() {
                record(target, metadata);
            }
            return;
        }
        let note = if record(target, metadata) { &mut self.recorded } else { &mut self.lost };
        note.count += 1;
        note.example(format!("{} ({}:{})", Quoted(path), metadata.uid, metadata.gid));
    }
}

/// Writes the owner down beside a file; whether that was possible.
fn record(target: Target<'_>, metadata: &Metadata) -> bool {
    match target {
        Target::Open(file) => {
            let record = encoded(metadata.uid, metadata.gid);
            // A file that its owner may not write to takes no attribute of this kind.
            fchmod(file, Mode::RWXU).is_ok() && fsetxattr(file, OWNER_XATTR, &record, XattrFlags::empty()).is_ok()
        }
        // Linux keeps such attributes for files and directories only.
        Target::Named { .. } => false,
    }
}

fn own(target: Target<'_>, metadata: &Metadata) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
    match target {
        Target::Open(file) => fchown(file, uid, gid),
        Target::Named { parent, name, .. } => chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW),
    }
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// Fields 1 and 2 of the message; numbers of 0 are left out.
fn encoded(uid: u32, gid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (tag, number) in [(0x08, uid), (0x10, gid)].into_iter().filter(|(_, number)| *number != 0) {
        bytes.push(tag);
        let mut left = number;
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_encoded_as_umoci_writes_them() {
        assert_eq!(encoded(1000, 5), [0x08, 0xe8, 0x07, 0x10, 0x05]);
        assert_eq!(encoded(0, 5), [0x10, 0x05]);
        assert_eq!(encoded(u32::MAX, 0), [0x08, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    }
}
