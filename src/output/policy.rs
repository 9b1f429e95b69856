//! What `sif-rootfs` and `sif` change about the image's own files, as asked: nothing is dropped without a note.

use super::root::{Root, XattrPolicy};
use crate::model::{Metadata, Mode, Note, Quoted, Xattrs};
use crate::tree::{InodeId, Kind, Tree};

/// Longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest value, in bytes (`XATTR_SIZE_MAX`).
const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// Applies the choices for the root to the tree and says what they dropped.
pub(super) fn apply(tree: &mut Tree, root: &Root) -> Vec<Note> {
    let mut notes = Vec::new();
    if !root.keep_devices {
        notes.extend(drop_devices(tree));
    }
    notes.extend(drop_xattrs(tree, root.xattrs));
    notes.extend(owners_note(tree).filter(|_| !root.all_root));
    for index in inodes(tree) {
        let is_directory = tree.directory(index).is_some();
        let inode = tree.inode_mut(index);
        change_owner(&mut inode.metadata, root);
        if root.fix_perms && matches!(inode.kind, Kind::Directory(_) | Kind::File(_)) {
            let owner = if is_directory { 0o700 } else { 0o600 };
            inode.metadata.mode = Mode::new(u32::from(inode.metadata.mode.bits() | owner));
        }
    }
    notes
}

/// Owners are kept, whoever converts. Users without subordinate ids meet them later.
fn owners_note(tree: &Tree) -> Option<Note> {
    let message = "names keep owners other than root: a user without subordinate ids can neither `apptainer build` from \
                   them nor `exec --fakeroot` on them (--all-root gives all to root)";
    let mut note = Note::new("owners-kept", message, 0);
    for visit in tree.walk() {
        let Metadata { uid, gid, .. } = tree.inode(visit.inode).metadata;
        if (uid, gid) != (0, 0) {
            note.count += 1;
            note.example(format!("{} ({uid}:{gid})", Quoted(&visit.path)));
        }
    }
    (note.count > 0).then_some(note)
}

/// What of the choices for the root decides how long the tar header of a file is.
pub(super) fn foresee(metadata: &mut Metadata, root: &Root) {
    drop(take_xattrs(metadata, |name, _| keeps_xattr(root.xattrs, name)));
    change_owner(metadata, root);
}

fn change_owner(metadata: &mut Metadata, root: &Root) {
    if root.all_root {
        (metadata.uid, metadata.gid) = (0, 0);
    }
}

/// Every inode that has a name, once.
pub(super) fn inodes(tree: &Tree) -> Vec<InodeId> {
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

/// Drops what squashfs has no way to store, names outside of `user.`, `trusted.` and `security.`, and what is beyond the
/// limits of Linux.
pub(super) fn drop_unstorable_xattrs(tree: &mut Tree) -> impl Iterator<Item = Note> {
    let message = "extended attributes that squashfs cannot hold (POSIX ACLs, for example) were left out";
    let unstorable = drop_xattrs_but(tree, message, |name, _| crate::squashfs::xattr_is_storable(name));
    let message = format!(
        "extended attributes that Linux cannot hold (names over {XATTR_NAME_BYTES_MAX} bytes or of a prefix alone, values \
         over {XATTR_VALUE_BYTES_MAX}) were left out"
    );
    unstorable.into_iter().chain(drop_xattrs_but(tree, &message, xattr_fits))
}

/// Whether Linux takes it (xattr(7)).
fn xattr_fits(name: &[u8], value: &[u8]) -> bool {
    let is_prefix = name.iter().position(|&byte| byte == b'.').is_some_and(|dot| dot + 1 == name.len());
    name.len() <= XATTR_NAME_BYTES_MAX && value.len() <= XATTR_VALUE_BYTES_MAX && !is_prefix
}

fn drop_xattrs(tree: &mut Tree, policy: XattrPolicy) -> Option<Note> {
    let message = "extended attributes were left out (--xattrs capabilities or all keeps them)";
    drop_xattrs_but(tree, message, |name, _| keeps_xattr(policy, name))
}

fn keeps_xattr(policy: XattrPolicy, name: &[u8]) -> bool {
    match policy {
        XattrPolicy::None => false,
        XattrPolicy::Capabilities => name == b"security.capability",
        XattrPolicy::All => true,
    }
}

fn drop_xattrs_but(tree: &mut Tree, message: &str, kept: impl Fn(&[u8], &[u8]) -> bool) -> Option<Note> {
    let mut note = Note::new("xattrs-dropped", message, 0);
    for visit in tree.walk().collect::<Vec<_>>() {
        for name in take_xattrs(&mut tree.inode_mut(visit.inode).metadata, &kept).keys() {
            note.count += 1;
            note.example(format!("{} of {}", Quoted(name), Quoted(&visit.path)));
        }
    }
    (note.count > 0).then_some(note)
}

/// Takes the extended attributes away that are not `kept`.
fn take_xattrs(metadata: &mut Metadata, kept: impl Fn(&[u8], &[u8]) -> bool) -> Xattrs {
    let xattrs = metadata.xattrs.take().map(|xattrs| *xattrs).unwrap_or_default();
    let (keep, taken): (Xattrs, Xattrs) = xattrs.into_iter().partition(|(name, value)| kept(name, value));
    metadata.xattrs = (!keep.is_empty()).then(|| Box::new(keep));
    taken
}
