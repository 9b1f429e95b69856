//! What `sif-rootfs` and `sif` change about the image's own files, as asked: nothing is dropped without a note.

use super::options::{Request, XattrPolicy};
use crate::model::{Mode, Note, Quoted, Xattrs};
use crate::tree::{InodeId, Kind, Tree};

/// Applies the request's choices to the tree and says what they dropped.
pub(super) fn apply(tree: &mut Tree, request: &Request) -> Vec<Note> {
    let mut notes = Vec::new();
    if !request.keep_devices {
        notes.extend(drop_devices(tree));
    }
    notes.extend(drop_xattrs(tree, request.xattrs));
    for index in inodes(tree) {
        let is_directory = tree.directory(index).is_some();
        let inode = tree.inode_mut(index);
        if request.all_root {
            (inode.metadata.uid, inode.metadata.gid) = (0, 0);
        }
        if request.fix_perms && matches!(inode.kind, Kind::Directory(_) | Kind::File(_)) {
            let owner = if is_directory { 0o700 } else { 0o600 };
            inode.metadata.mode = Mode::new(u32::from(inode.metadata.mode.bits() | owner));
        }
    }
    notes
}

/// Every inode that has a name, once.
fn inodes(tree: &Tree) -> Vec<InodeId> {
    let mut ids: Vec<InodeId> = tree.walk().map(|visit| visit.inode).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn drop_devices(tree: &mut Tree) -> Option<Note> {
    let is_device = |kind: &Kind| matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
    let devices: Vec<Vec<u8>> =
        tree.walk().filter(|visit| is_device(&tree.inode(visit.inode).kind)).map(|visit| visit.path).collect();
    if devices.is_empty() {
        return None;
    }
    let message = "device nodes were left out: containers get theirs from the host (--keep-devices keeps them)";
    let mut note = Note::new("device-nodes-dropped", message, devices.len() as u64);
    for path in devices {
        note.example(Quoted(&path));
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = slash.map_or((&b""[..], &path[..]), |slash| (&path[..slash], &path[slash + 1..]));
        if let Some(directory) = tree.get(parent) {
            tree.detach(directory, name);
        }
    }
    Some(note)
}

/// Drops what squashfs has no way to store: names outside of `user.`, `trusted.` and `security.`.
pub(super) fn drop_unstorable_xattrs(tree: &mut Tree) -> Option<Note> {
    let message = "extended attributes that squashfs cannot hold (POSIX ACLs, for example) were left out";
    drop_xattrs_but(tree, message, crate::squashfs::xattr_is_storable)
}

fn drop_xattrs(tree: &mut Tree, policy: XattrPolicy) -> Option<Note> {
    let kept = |name: &[u8]| match policy {
        XattrPolicy::None => false,
        XattrPolicy::Capabilities => name == b"security.capability",
        XattrPolicy::All => true,
    };
    drop_xattrs_but(tree, "extended attributes were left out (--xattrs capabilities or all keeps them)", kept)
}

fn drop_xattrs_but(tree: &mut Tree, message: &str, kept: impl Fn(&[u8]) -> bool) -> Option<Note> {
    let mut note = Note::new("xattrs-dropped", message, 0);
    for visit in tree.walk().collect::<Vec<_>>() {
        let Some(xattrs) = tree.inode_mut(visit.inode).metadata.xattrs.take() else { continue };
        let (keep, dropped): (Xattrs, Xattrs) = xattrs.into_iter().partition(|(name, _)| kept(name));
        for name in dropped.keys() {
            note.count += 1;
            note.example(format!("{} of {}", Quoted(name), Quoted(&visit.path)));
        }
        tree.inode_mut(visit.inode).metadata.xattrs = (!keep.is_empty()).then(|| Box::new(keep));
    }
    (note.count > 0).then_some(note)
}
