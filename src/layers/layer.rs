use std::io::BufRead;
use std::num::NonZeroU64;

use super::budget::Budget;
use super::forecast::Visible;
use super::list::Sums;
use super::whiteout::{Marker, marker};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{FOREIGN_LOOK_BYTES, Monitor, Region, SpoolWriter, foreign_format, read_error};
use crate::model::{EntryPath, Metadata, Quoted};
use crate::tar::{Entries, Entry, EntryKind, Input, Member, MemberKind, Sequential, SparseMap, is_header};
use crate::tree::{Content, Extent, FileData, FileId, Location, Origin};

/// One change that a layer makes, in the order of its tar.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Whiteout { directory: Box<[u8]>, name: Box<[u8]> },
    Opaque { directory: Box<[u8]> },
    Put { path: EntryPath, node: Node, metadata: Metadata },
}

/// What is put at a path.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Directory,
    File(FileData),
    HardLink(EntryPath),
    Symlink(Box<[u8]>),
    Fifo,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

impl Node {
    fn member_kind(&self) -> MemberKind<'_> {
        match self {
            Node::Directory => MemberKind::Directory,
            Node::File(data) => MemberKind::File { size: data.size },
            Node::HardLink(target) => MemberKind::HardLink(target.as_bytes()),
            Node::Symlink(target) => MemberKind::Symlink(target),
            Node::Fifo => MemberKind::Fifo,
            Node::CharDevice { major, minor } => MemberKind::CharDevice(*major, *minor),
            Node::BlockDevice { major, minor } => MemberKind::BlockDevice(*major, *minor),
        }
    }
}

/// Where the bytes of a layer's files go while its tar is read.
pub(super) enum Keep<'a> {
    /// Nowhere: they lie in file `file`, and the tar begins at `offset` there.
    InPlace { file: FileId, offset: u64 },
    /// Into the spool, which is file `file`, or where in that file they are foreseen to belong.
    Spool { layer: u32, file: FileId, writer: SpoolWriter<'a>, forecast: Option<Visible<'a>> },
    /// Nowhere: only names are wanted, and sums of contents where there are `sums`. The layer is file `file`.
    Nothing { file: FileId, sums: Option<&'a mut Sums> },
}

/// What was read of a layer's tar.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) changes: Vec<Change>,
    /// How many entries there were, and the bytes of memory that they cost by what [`Budget`] counts.
    pub(super) entries: u64,
    pub(super) memory_bytes: u64,
}

impl<'a> Keep<'a> {
    fn layer(&self) -> u32 {
        match self {
            Keep::InPlace { file, .. } | Keep::Nothing { file, .. } => file.0,
            Keep::Spool { layer, .. } => *layer,
        }
    }

    fn forecast(&mut self) -> Option<&mut Visible<'a>> {
        match self {
            Keep::Spool { forecast: Some(forecast), .. } => Some(forecast),
            _ => None,
        }
    }
}

/// Reads the changes of a layer whose tar lies uncompressed in a file: headers only.
pub(super) fn scan(region: &Region, keep: Keep<'_>, budget: &Budget, monitor: &Monitor) -> Result<Changes> {
    let mut start = vec![0; FOREIGN_LOOK_BYTES];
    let count = region.read_at(&mut start, 0).map_err(read_error)?;
    expect_tar(&start[..count])?;
    changes(region.reader(), keep, budget, monitor)
}

/// Reads the changes of a layer from a stream of its uncompressed tar, keeping the contents of its files.
pub(super) fn read(stream: &mut dyn BufRead, keep: Keep<'_>, budget: &Budget, monitor: &Monitor) -> Result<Changes> {
    expect_tar(stream.fill_buf().map_err(read_error)?)?;
    changes(Sequential(stream), keep, budget, monitor)
}

/// Refuses what is told by its first bytes to be something else than a tar.
fn expect_tar(start: &[u8]) -> Result<()> {
    let is_tar = start.first_chunk().is_some_and(is_header);
    match foreign_format(start).filter(|_| !is_tar) {
        None => Ok(()),
        Some(what) => Err(Error::new(ErrorKind::Unsupported, format!("the layer is {what}, not a tar"))
            .hint("push or save the image again with layers of tar, plain or compressed with gzip or zstd")),
    }
}

fn changes<I: Input>(input: I, mut keep: Keep<'_>, budget: &Budget, monitor: &Monitor) -> Result<Changes> {
    let mut entries = Entries::new(input);
    let mut changes = Vec::new();
    let (mut count, mut memory_bytes) = (0, 0);
    while let Some(entry) = entries.next_entry()? {
        monitor.check()?;
        memory_bytes += budget.spend_entry(&entry)?;
        count += 1;
        let path = EntryPath::parse(&entry.raw_path);
        let path = path.map_err(|error| invalid(format!("entry {}: {error}", Quoted(&entry.raw_path))))?;
        match marker(&path) {
            Some(Marker::Whiteout { directory, name }) => {
                keep.forecast().into_iter().for_each(|forecast| forecast.whiteout(&directory, &name));
                changes.push(Change::Whiteout { directory, name });
            }
            Some(Marker::Opaque { directory }) => {
                keep.forecast().into_iter().for_each(|forecast| forecast.opaque(&directory));
                changes.push(Change::Opaque { directory });
            }
            Some(Marker::Dropped) => {}
            None => {
                let node = node(&mut entries, &entry, &path, &mut keep)?;
                changes.push(Change::Put { path, node, metadata: entry.metadata });
            }
        }
    }
    if let Keep::Spool { writer, .. } = &mut keep {
        writer.flush().map_err(|error| writer.failed(error))?;
    }
    Ok(Changes { changes, entries: count, memory_bytes })
}

fn node<I: Input>(entries: &mut Entries<I>, entry: &Entry, path: &EntryPath, keep: &mut Keep<'_>) -> Result<Node> {
    let (major, minor) = entry.device;
    let node = match entry.kind {
        EntryKind::Directory => Node::Directory,
        EntryKind::File => {
            let segments = entry.segments.as_ref().filter(|_| keep.forecast().is_some());
            let map = segments.and_then(|segments| SparseMap::new(entry.size, segments.iter().copied()));
            let place = foresee(keep, path, MemberKind::of_file(entry.size, map.as_ref()), &entry.metadata);
            return Ok(Node::File(file(entries, entry, place, keep)?));
        }
        EntryKind::HardLink => Node::HardLink(EntryPath::parse(&entry.link).map_err(|error| {
            invalid(format!("entry {}: link target {}: {error}", Quoted(&entry.raw_path), Quoted(&entry.link)))
        })?),
        EntryKind::Symlink => Node::Symlink(entry.link.as_slice().into()),
        EntryKind::Fifo => Node::Fifo,
        EntryKind::CharDevice => Node::CharDevice { major, minor },
        EntryKind::BlockDevice => Node::BlockDevice { major, minor },
    };
    foresee(keep, path, node.member_kind(), &entry.metadata);
    Ok(node)
}

/// Where the contents of an entry should lie, if anyone knows.
fn foresee(keep: &mut Keep<'_>, path: &EntryPath, kind: MemberKind<'_>, metadata: &Metadata) -> Option<u64> {
    keep.forecast()?.put(&Member { path: path.as_bytes(), kind, metadata })
}

fn file<I: Input>(
    entries: &mut Entries<I>,
    entry: &Entry,
    place: Option<u64>,
    keep: &mut Keep<'_>,
) -> Result<FileData> {
    let first = match keep {
        _ if entry.stored_bytes == 0 => Location { file: FileId(0), offset: 0 },
        Keep::InPlace { file, offset } => Location { file: *file, offset: *offset + entry.data_offset },
        Keep::Nothing { file, sums } => {
            if let Some(sums) = sums {
                sums.add(entries, entry)?;
            }
            Location { file: *file, offset: entry.data_offset }
        }
        Keep::Spool { file, writer, .. } => {
            // The contents of a sparse file lie in one piece here, and not always in the output, where short holes are
            // written out.
            let place = place.filter(|_| entry.segments.is_none());
            let begun = match place {
                Some(place) => writer.begin_at(place).map(|()| place),
                None => writer.begin(entry.stored_bytes),
            };
            // Reading and keeping share one loop; only the latter can fill a disk.
            let offset = begun.map_err(|error| writer.failed(error))?;
            entries.for_each_piece(|bytes| writer.append(bytes).map_err(|error| writer.failed(error).into_io()))?;
            Location { file: *file, offset }
        }
    };
    let content = match &entry.segments {
        None if entry.size == 0 => return Ok(FileData::inline(&b""[..])),
        None => Content::Stored(first),
        Some(segments) => {
            let mut next = first;
            let place = segments.iter().map(|segment| {
                let extent = Extent { at: segment.at, len: segment.len, location: next };
                next.offset += segment.len;
                extent
            });
            Content::Sparse(place.collect())
        }
    };
    let origin = NonZeroU64::new(entry.data_offset).map(|at| Origin { layer: keep.layer(), at });
    Ok(FileData { size: entry.size, content, origin })
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidImage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, Timestamp};
    use crate::tar::{end_of_archive, member_header};

    #[test]
    fn entries_cost_what_a_budget_must_have() {
        let metadata = Metadata::root_owned(0o755, Timestamp::default());
        let mut tar = Vec::new();
        let file = || MemberKind::File { size: 0 };
        for (path, kind) in [("a", MemberKind::Directory), ("a/file", file()), ("a/.wh.gone", file())] {
            member_header(&mut tar, &Member { path: path.as_bytes(), kind, metadata: &metadata });
        }
        tar.extend(end_of_archive());
        let scan = |budget: &Budget| {
            let keep = Keep::Nothing { file: FileId(0), sums: None };
            read(&mut tar.as_slice(), keep, budget, &Monitor::default())
        };
        let found = scan(&Budget::new(u64::MAX)).unwrap();
        assert_eq!((found.entries, found.changes.len()), (3, 3));
        assert!(scan(&Budget::new(found.memory_bytes)).is_ok());
        assert_eq!(scan(&Budget::new(found.memory_bytes - 1)).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
