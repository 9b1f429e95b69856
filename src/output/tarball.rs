//! A merged file system as one canonical tar.

use std::sync::Arc;

use super::flat::Written;
use super::in_place;
use super::place::{Place, SPOOL_OFFSET};
use super::prepared::Task;
use super::sink::{Sink, put};
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::io::{CHUNK_BYTES, Codec, Compression, Monitor, Phase, Reclaimer, Region, read_error};
use crate::layers::{Contents, Flattened, Piece};
use crate::model::Quoted;
use crate::tar::{Member, MemberKind, Segment, SparseMap, end_of_archive, member_bytes, member_header, padding};
use crate::tree::{Content, FileData, Inode, Kind, Tree, Visit};

/// What becomes of the holes of sparse files. Only what a layer has as a hole is one, never zeros that are written out there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holes {
    /// They are left out.
    Kept,
    /// They are written as zeros: `docker load` reads sparse files, but `docker save` and `docker push` of what it loaded fail.
    Filled,
}

impl Holes {
    /// The map of a file of which something is left out.
    fn map(self, kind: &Kind) -> Option<SparseMap> {
        match (self, kind) {
            (Holes::Kept, Kind::File(FileData { size, content: Content::Sparse(extents), .. })) => {
                SparseMap::new(*size, extents.iter().map(|extent| Segment { at: extent.at, len: extent.len }))
            }
            _ => None,
        }
    }
}

/// Writes the tar of a flattened image to where the output is.
pub(super) fn write_output(
    flattened: Flattened,
    place: &Place,
    compression: Compression,
    task: &Task,
    monitor: &Monitor,
) -> Result<Written> {
    let Flattened { mut tree, contents, spooled_bytes, .. } = flattened;
    let (bytes, names) = measure(&tree, Holes::Kept);
    let in_place = in_place::settle(&mut tree, &contents, SPOOL_OFFSET + spooled_bytes, monitor)?;
    if compression.kind() == Codec::None {
        if spooled_bytes > 0 && bytes > SPOOL_OFFSET {
            return Err(Error::new(ErrorKind::Unsupported, format!("an output of {bytes} bytes is too large")));
        }
        place.expect_room(bytes - in_place)?;
    }
    monitor.begin(Phase::Write, bytes);
    let bytes = put(place, compression, task, |sink| write(&tree, Holes::Kept, contents, sink, monitor))?;
    Ok(Written { names, bytes, notes: Vec::new() })
}

/// How many bytes and names the tar of `tree` has. Known before the first is written, so that free space can be looked at.
pub(super) fn measure(tree: &Tree, holes: Holes) -> (u64, u64) {
    let (mut bytes, mut names) = (end_of_archive().len() as u64, 0_u64);
    let counted = for_each_member(tree, holes, |_, member, _| {
        bytes = bytes.saturating_add(member_bytes(member));
        names += 1;
        Ok(())
    });
    counted.map_or_else(|_| Default::default(), |()| (bytes, names))
}

/// Writes the tar. What has been written is given back by the spool: nobody can read `contents` again.
pub(super) fn write(
    tree: &Tree,
    holes: Holes,
    contents: Contents,
    sink: &mut dyn Sink,
    monitor: &Monitor,
) -> Result<()> {
    let mut reclaimer = contents.spool().cloned().map(Reclaimer::new);
    let mut header = Vec::new();
    for_each_member(tree, holes, |_, member, data| {
        monitor.check()?;
        header.clear();
        member_header(&mut header, member);
        sink.write_all(&header).or_kind(ErrorKind::Output)?;
        monitor.advance(header.len() as u64);
        let Some(data) = data else { return Ok(()) };
        let map = match member.kind {
            MemberKind::Sparse { map, .. } => Some(map),
            _ => None,
        };
        write_contents(&contents, data, map, reclaimer.as_mut(), sink, monitor)
            .doing(|| format!("writing contents of {}", Quoted(member.path)))?;
        let zeros = [0; 512];
        sink.write_all(&zeros[..padding(member.kind.data_bytes()) as usize]).or_kind(ErrorKind::Output)
    })?;
    sink.write_all(&end_of_archive()).or_kind(ErrorKind::Output)?;
    sink.finish().or_kind(ErrorKind::Output)
}

fn write_contents(
    contents: &Contents,
    data: &FileData,
    map: Option<&SparseMap>,
    reclaimer: Option<&mut Reclaimer>,
    sink: &mut dyn Sink,
    monitor: &Monitor,
) -> Result<()> {
    let mut reclaimer = reclaimer;
    let mut position = 0;
    for piece in contents.pieces(data) {
        let start = position;
        position += piece.len();
        match piece {
            Piece::Bytes(bytes) => {
                sink.write_all(bytes).or_kind(ErrorKind::Output)?;
                monitor.advance(bytes.len() as u64);
            }
            Piece::Stored { file, offset, len, veil: Some(veil), .. } => {
                let region = Region { file: Arc::clone(file), offset, len, veil: Some(veil.clone()) };
                copy_decrypted(&region, sink, monitor)?;
            }
            Piece::Stored { file, offset, len, spooled, veil: None } => match &mut reclaimer {
                Some(reclaimer) if spooled => {
                    let mut done = 0;
                    while done < len {
                        let count = (len - done).min(reclaimer.step());
                        sink.copy(file, offset + done, count, monitor)?;
                        reclaimer.done_with(offset + done, count);
                        done += count;
                    }
                }
                _ => sink.copy(file, offset, len, monitor)?,
            },
            Piece::Zeros(len) => {
                let len = map.map_or(len, |map| map.written_bytes(start, len));
                sink.zeros(len, monitor)?;
                monitor.advance(len);
            }
        }
    }
    Ok(())
}

/// What is encrypted cannot be copied inside the kernel.
fn copy_decrypted(region: &Region, sink: &mut dyn Sink, monitor: &Monitor) -> Result<()> {
    let mut buffer = vec![0; region.len.min(CHUNK_BYTES as u64) as usize];
    let mut done = 0;
    while done < region.len {
        monitor.check()?;
        let count = region.read_at(&mut buffer, done).map_err(read_error)?;
        sink.write_all(&buffer[..count]).or_kind(ErrorKind::Output)?;
        monitor.advance(count as u64);
        done += count as u64;
    }
    Ok(())
}

/// Gives every name of the tree in canonical order: the first name of an inode as what it is, later ones as hard links to
/// the first, so that links always come after their targets.
pub(super) fn for_each_member<'a>(
    tree: &'a Tree,
    holes: Holes,
    mut each: impl FnMut(&Visit, &Member<'_>, Option<&'a FileData>) -> Result<()>,
) -> Result<()> {
    let mut first_names: Vec<Option<Box<[u8]>>> = vec![None; tree.inode_count()];
    for visit in tree.walk() {
        let Inode { kind, metadata, links } = tree.inode(visit.inode);
        let map = holes.map(kind);
        let first = &mut first_names[visit.inode.index()];
        let (kind, data) = match (&*first, kind) {
            (Some(first), _) => (MemberKind::HardLink(first), None),
            (None, Kind::Directory(_)) => (MemberKind::Directory, None),
            (None, Kind::File(data)) => (MemberKind::of_file(data.size, map.as_ref()), Some(data)),
            (None, Kind::Symlink(target)) => (MemberKind::Symlink(target), None),
            (None, Kind::Fifo) => (MemberKind::Fifo, None),
            (None, Kind::CharDevice { major, minor }) => (MemberKind::CharDevice(*major, *minor), None),
            (None, Kind::BlockDevice { major, minor }) => (MemberKind::BlockDevice(*major, *minor), None),
        };
        each(&visit, &Member { path: &visit.path, kind, metadata }, data)?;
        if first.is_none() && *links > 1 {
            *first = Some(visit.path.into());
        }
    }
    Ok(())
}
