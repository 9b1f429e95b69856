//! Layers that were read before: their entries as bytes that can be kept, and the way to contents that are not read again.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::budget::Budget;
use super::layer::{Change, Changes, Node};
use crate::error::{ErrorKind, IoResultExt as _, Result};
use crate::io::wire::{Decoder, Encoder, malformed};
use crate::model::{Digest, EntryPath, Metadata, Mode, Timestamp, Xattrs};
use crate::tree::{Content, Extent, FileData, FileId, Location, Origin};

/// Layers of images with more entries than this are not remembered: it bounds what remembering takes, to 100 MiB.
pub(super) const ENTRIES_REMEMBERED_MAX: u64 = 1 << 19;

/// Where layers are found that need not be read again.
pub trait KnownLayers: Sync {
    /// Layer `layer` of the image, whose uncompressed tar has the digest `diff_id`, where it is known.
    fn find(&self, layer: u32, diff_id: Digest) -> Option<KnownLayer>;
}

/// A layer that is not read.
#[derive(Debug, Clone)]
pub struct KnownLayer {
    /// What [`ReadLayer::entries`] was when it was.
    pub entries: Arc<[u8]>,
    /// The way to its files.
    pub contents: Arc<dyn KnownContents>,
}

/// The contents of the files of a layer that is not read.
pub trait KnownContents: fmt::Debug + Send + Sync {
    /// Fills `buffer` with what stands at `offset` of the file whose data begins at `at` in the layer's tar; holes read as
    /// zeros.
    ///
    /// # Errors
    /// When it is not known after all.
    fn read_at(&self, at: u64, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// What there is to remember of a layer that was read. It may count only once the layer is verified.
#[derive(Debug, Clone)]
pub struct ReadLayer {
    /// The layer, counted from the lowest.
    pub layer: u32,
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
    /// Its entries; [`ReadLayer::entries`] completes them.
    entries: Vec<u8>,
    /// Its regular files that are not empty, in the order of the tar; hidden ones too.
    pub files: Vec<FileData>,
}

impl ReadLayer {
    pub(super) fn of(layer: u32, diff_id: Digest, read: &Changes) -> Self {
        let mut files = Vec::new();
        for change in &read.changes {
            if let Change::Put { node: Node::File(data), .. } = change
                && data.origin.is_some()
            {
                files.push(data.clone());
            }
        }
        ReadLayer { layer, diff_id, entries: encode(read), files }
    }

    /// The entries as [`KnownLayer::entries`] wants them, of a layer whose uncompressed tar has `bytes` bytes.
    pub fn entries(&self, bytes: u64) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.number(bytes);
        encoder.raw(&self.entries);
        encoder.0
    }
}

mod tag {
    pub(super) const WHITEOUT: u8 = 0;
    pub(super) const OPAQUE: u8 = 1;
    pub(super) const DIRECTORY: u8 = 2;
    pub(super) const EMPTY: u8 = 3;
    pub(super) const FILE: u8 = 4;
    pub(super) const SPARSE: u8 = 5;
    pub(super) const HARD_LINK: u8 = 6;
    pub(super) const SYMLINK: u8 = 7;
    pub(super) const FIFO: u8 = 8;
    pub(super) const CHAR_DEVICE: u8 = 9;
    pub(super) const BLOCK_DEVICE: u8 = 10;
}

fn encode(read: &Changes) -> Vec<u8> {
    let mut to = Encoder::default();
    to.number(read.entries);
    to.number(read.memory_bytes);
    to.number(read.changes.len() as u64);
    let mut last: &[u8] = b"";
    for change in &read.changes {
        match change {
            Change::Whiteout { directory, name } => {
                to.raw(&[tag::WHITEOUT]);
                to.bytes(directory);
                to.bytes(name);
            }
            Change::Opaque { directory } => {
                to.raw(&[tag::OPAQUE]);
                to.bytes(directory);
            }
            Change::Put { path, node, metadata } => {
                encode_node(node, &mut to);
                let path = path.as_bytes();
                let shared = path.iter().zip(last).take_while(|(one, other)| one == other).count();
                to.number(shared as u64);
                to.bytes(&path[shared..]);
                last = path;
                encode_metadata(metadata, &mut to);
            }
        }
    }
    to.0
}

fn encode_node(node: &Node, to: &mut Encoder) {
    match node {
        Node::Directory => to.raw(&[tag::DIRECTORY]),
        Node::File(FileData { size, content, origin }) => match (content, origin) {
            (Content::Stored(_), Some(origin)) => {
                to.raw(&[tag::FILE]);
                to.number(*size);
                to.number(origin.at.get());
            }
            (Content::Sparse(extents), Some(origin)) => {
                to.raw(&[tag::SPARSE]);
                to.number(*size);
                to.number(origin.at.get());
                to.number(extents.len() as u64);
                for extent in extents {
                    to.number(extent.at);
                    to.number(extent.len);
                }
            }
            // Of layers only empty files are inline.
            _ => to.raw(&[tag::EMPTY]),
        },
        Node::HardLink(target) => {
            to.raw(&[tag::HARD_LINK]);
            to.bytes(target.as_bytes());
        }
        Node::Symlink(target) => {
            to.raw(&[tag::SYMLINK]);
            to.bytes(target);
        }
        Node::Fifo => to.raw(&[tag::FIFO]),
        Node::CharDevice { major, minor } => {
            to.raw(&[tag::CHAR_DEVICE]);
            to.number((*major).into());
            to.number((*minor).into());
        }
        Node::BlockDevice { major, minor } => {
            to.raw(&[tag::BLOCK_DEVICE]);
            to.number((*major).into());
            to.number((*minor).into());
        }
    }
}

fn encode_metadata(metadata: &Metadata, to: &mut Encoder) {
    to.number(metadata.mode.bits().into());
    to.number(metadata.uid.into());
    to.number(metadata.gid.into());
    to.signed(metadata.mtime.seconds);
    to.number(metadata.mtime.nanoseconds.into());
    let xattrs = metadata.xattrs.as_deref();
    to.number(xattrs.map_or(0, |xattrs| xattrs.len() as u64 + 1));
    for (name, value) in xattrs.into_iter().flatten() {
        to.bytes(name);
        to.bytes(value);
    }
}

/// The changes of a known layer, and the length of its tar in bytes.
pub(super) fn decode(entries: &[u8], layer: u32, budget: &Budget) -> Result<(Changes, u64)> {
    let mut from = Decoder(entries);
    let head = (|| Ok((from.number()?, from.number()?, from.number()?, from.count()?)))();
    let (bytes, entries, memory_bytes, count) = head.or_kind(ErrorKind::Other)?;
    budget.spend_entries(entries, memory_bytes)?;
    let changes = decode_changes(from, count, layer).or_kind(ErrorKind::Other)?;
    Ok((Changes { changes, entries, memory_bytes }, bytes))
}

fn decode_changes(mut from: Decoder<'_>, count: usize, layer: u32) -> io::Result<Vec<Change>> {
    let mut changes = Vec::with_capacity(count);
    let mut last = Vec::new();
    for _ in 0..count {
        changes.push(match from.byte()? {
            tag::WHITEOUT => Change::Whiteout { directory: from.bytes()?.into(), name: from.bytes()?.into() },
            tag::OPAQUE => Change::Opaque { directory: from.bytes()?.into() },
            kind => {
                let node = decode_node(kind, &mut from, layer)?;
                let shared = from.small()?;
                if shared > last.len() {
                    return Err(malformed());
                }
                last.truncate(shared);
                last.extend_from_slice(from.bytes()?);
                let path = EntryPath::parse(&last).map_err(|_| malformed())?;
                Change::Put { path, node, metadata: decode_metadata(&mut from)? }
            }
        });
    }
    from.end()?;
    Ok(changes)
}

fn decode_node(kind: u8, from: &mut Decoder<'_>, layer: u32) -> io::Result<Node> {
    let place = |at: NonZeroU64| Location { file: FileId(layer), offset: at.get() };
    Ok(match kind {
        tag::DIRECTORY => Node::Directory,
        tag::EMPTY => Node::File(FileData::inline(&b""[..])),
        tag::FILE => {
            let (size, at) = (from.number()?, NonZeroU64::new(from.number()?).ok_or_else(malformed)?);
            Node::File(FileData { size, content: Content::Stored(place(at)), origin: Some(Origin { layer, at }) })
        }
        tag::SPARSE => {
            let (size, at) = (from.number()?, NonZeroU64::new(from.number()?).ok_or_else(malformed)?);
            let (count, mut end) = (from.count()?, 0);
            let mut extents = Vec::with_capacity(count);
            for _ in 0..count {
                let (start, len) = (from.number()?, from.number()?);
                let next = start.checked_add(len).filter(|&next| start >= end && next <= size).ok_or_else(malformed)?;
                end = next;
                extents.push(Extent { at: start, len, location: place(at) });
            }
            let content = Content::Sparse(extents.into());
            Node::File(FileData { size, content, origin: Some(Origin { layer, at }) })
        }
        tag::HARD_LINK => Node::HardLink(EntryPath::parse(from.bytes()?).map_err(|_| malformed())?),
        tag::SYMLINK => Node::Symlink(from.bytes()?.into()),
        tag::FIFO => Node::Fifo,
        tag::CHAR_DEVICE => Node::CharDevice { major: from.small()?, minor: from.small()? },
        tag::BLOCK_DEVICE => Node::BlockDevice { major: from.small()?, minor: from.small()? },
        _ => return Err(malformed()),
    })
}

fn decode_metadata(from: &mut Decoder<'_>) -> io::Result<Metadata> {
    let (mode, uid, gid) = (Mode::new(from.small()?), from.small()?, from.small()?);
    let mtime = Timestamp { seconds: from.signed()?, nanoseconds: from.small()? };
    let xattrs = match from.count()? {
        0 => None,
        more => {
            let mut xattrs = Xattrs::new();
            for _ in 1..more {
                xattrs.insert(from.bytes()?.into(), from.bytes()?.into());
            }
            Some(Box::new(xattrs))
        }
    };
    Ok(Metadata { mode, uid, gid, mtime, xattrs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Changes {
        let metadata = |xattrs: &[(&str, &str)]| Metadata {
            mode: Mode::new(0o4755),
            uid: 7,
            gid: u32::MAX,
            mtime: Timestamp { seconds: -5, nanoseconds: 999_999_999 },
            xattrs: (!xattrs.is_empty()).then(|| {
                Box::new(xattrs.iter().map(|(name, value)| (name.as_bytes().into(), value.as_bytes().into())).collect())
            }),
        };
        let path = |text: &str| EntryPath::parse(text.as_bytes()).unwrap();
        let put = |text: &str, node| Change::Put { path: path(text), node, metadata: metadata(&[]) };
        let at = NonZeroU64::new(1536).unwrap();
        let origin = Some(Origin { layer: 3, at });
        let location = Location { file: FileId(3), offset: 1536 };
        let extents = [Extent { at: 0, len: 5, location }, Extent { at: 4096, len: 1, location }];
        let changes = vec![
            put("", Node::Directory),
            put("usr/bin/a", Node::File(FileData { size: 9, content: Content::Stored(location), origin })),
            put("usr/bin/ab", Node::File(FileData { size: 1 << 40, content: Content::Sparse(extents.into()), origin })),
            put("usr/empty", Node::File(FileData::inline(&b""[..]))),
            put("usr/link", Node::HardLink(path("usr/bin/a"))),
            put("l", Node::Symlink(b"../\xff"[..].into())),
            put("f", Node::Fifo),
            put("c", Node::CharDevice { major: 1, minor: 9 }),
            put("b", Node::BlockDevice { major: 4095, minor: 1 << 19 }),
            Change::Whiteout { directory: b"d"[..].into(), name: b"n"[..].into() },
            Change::Opaque { directory: b"o/p"[..].into() },
            Change::Put { path: path("x"), node: Node::Directory, metadata: metadata(&[("user.a", ""), ("b", "\0")]) },
        ];
        Changes { changes, entries: 13, memory_bytes: 12_345 }
    }

    fn kept() -> Vec<u8> {
        ReadLayer::of(3, Digest::of(b"x"), &sample()).entries(98_765)
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let budget = Budget::new(1 << 20);
        let (read, bytes) = decode(&kept(), 3, &budget).unwrap();
        assert_eq!((bytes, read.entries, read.memory_bytes, budget.entries()), (98_765, 13, 12_345, 13));
        assert_eq!(format!("{:?}", read.changes), format!("{:?}", sample().changes));
        assert_eq!(ReadLayer::of(3, Digest::of(b"x"), &sample()).files.len(), 2);
        assert!(decode(&kept(), 3, &Budget::new(10_000)).is_err(), "they cost what they cost when they were read");
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let good = kept();
        for cut in 0..good.len() {
            assert!(decode(&good[..cut], 3, &Budget::new(1 << 40)).is_err(), "cut at {cut}");
        }
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let _ = decode(&bad, 3, &Budget::new(u64::MAX));
            }
        }
    }
}
