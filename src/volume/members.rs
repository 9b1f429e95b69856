//! A tree as the members of one canonical tar.

use crate::error::Result;
use crate::tar::{Member, MemberKind, end_of_archive, member_bytes};
use crate::tree::{FileData, Inode, Kind, Tree};

/// Gives every name of the tree in canonical order: the first name of an inode as what it is, later ones as hard links to
/// the first, so that links always come after their targets.
pub(super) fn for_each_member<'a>(
    tree: &'a Tree,
    mut each: impl FnMut(&Member<'_>, Option<&'a FileData>) -> Result<()>,
) -> Result<()> {
    let mut first_names: Vec<Option<Box<[u8]>>> = vec![None; tree.inode_count()];
    for visit in tree.walk() {
        let Inode { kind, metadata, links } = tree.inode(visit.inode);
        let first = &mut first_names[visit.inode.index()];
        let (kind, data) = match (&*first, kind) {
            (Some(first), _) => (MemberKind::HardLink(first), None),
            (None, Kind::Directory(_)) => (MemberKind::Directory, None),
            (None, Kind::File(data)) => (MemberKind::File { size: data.size }, Some(data)),
            (None, Kind::Symlink(target)) => (MemberKind::Symlink(target), None),
            (None, Kind::Fifo) => (MemberKind::Fifo, None),
            (None, Kind::CharDevice { major, minor }) => (MemberKind::CharDevice(*major, *minor), None),
            (None, Kind::BlockDevice { major, minor }) => (MemberKind::BlockDevice(*major, *minor), None),
        };
        each(&Member { path: &visit.path, kind, metadata }, data)?;
        if first.is_none() && *links > 1 {
            *first = Some(visit.path.into());
        }
    }
    Ok(())
}

/// Length of the tar of `tree` in bytes.
pub(super) fn tar_bytes(tree: &Tree) -> u64 {
    let mut bytes = end_of_archive().len() as u64;
    let counted = for_each_member(tree, |member, _| {
        bytes = bytes.saturating_add(member_bytes(member));
        Ok(())
    });
    counted.map_or(0, |()| bytes)
}
