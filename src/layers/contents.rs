use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::known::KnownContents;
use crate::io::{Region, Spool, Veil};
use crate::tree::{Content, Extent, FileData, FileId, Location, Origin};

/// The open files that a flattened image's bytes lie in.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    files: Vec<Place>,
    spool: Option<SpoolPlace>,
}

/// A file, and what its bytes are encrypted with where they are.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    file: Arc<File>,
    veil: Option<Veil>,
}

impl Stored {
    pub(super) fn of_region(region: &Region) -> Self {
        Stored { file: Arc::clone(&region.file), veil: region.veil.clone() }
    }

    pub(super) fn of_spool(spool: &Spool) -> Self {
        Stored { file: Arc::clone(spool.file()), veil: spool.veil().cloned() }
    }
}

/// What a [`FileId`] means.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// An open file.
    File(Stored),
    /// A layer that was not read: locations are places in its tar.
    Known(Arc<dyn KnownContents>),
}

/// Which of the files holds the spool, and where in it the spool begins. What lies before that was foreseen to belong there.
#[derive(Debug, Clone, Copy)]
struct SpoolPlace {
    file: FileId,
    base: u64,
}

/// A stretch of a regular file, in order.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// `len` bytes of `file` from `offset` on.
    Stored {
        /// Where they are read from.
        file: &'a Arc<File>,
        /// First byte, from the start of the file.
        offset: u64,
        /// How many.
        len: u64,
        /// Whether they lie in the spool, where no other regular file has them.
        spooled: bool,
        /// What they are encrypted with.
        veil: Option<&'a Veil>,
    },
    /// This many zeros: a hole.
    Zeros(u64),
}

impl Contents {
    /// File `n` is what [`FileId`] `n` means; the last of them is the spool, where there is one.
    pub(super) fn new(in_place: Vec<Place>, spool: Option<&Spool>) -> Self {
        let place = spool.map(|spool| SpoolPlace { file: FileId(in_place.len() as u32), base: spool.base() });
        let files = in_place.into_iter().chain(spool.map(|spool| Place::File(Stored::of_spool(spool))));
        Contents { files: files.collect(), spool: place }
    }

    /// The file that decoded contents were kept in.
    pub fn spool(&self) -> Option<&Arc<File>> {
        self.spool.and_then(|spool| self.stored(spool.file)).map(|stored| &stored.file)
    }

    fn stored(&self, id: FileId) -> Option<&Stored> {
        match &self.files[id.0 as usize] {
            Place::File(file) => Some(file),
            Place::Known(_) => None,
        }
    }

    /// The layer that a file lies in, where that was not read.
    fn known(&self, data: &FileData) -> Option<(&dyn KnownContents, Origin)> {
        let origin = data.origin.filter(|_| !matches!(data.content, Content::Inline(_)))?;
        match self.files.get(origin.layer as usize)? {
            Place::Known(contents) => Some((&**contents, origin)),
            Place::File(_) => None,
        }
    }

    /// Whether a place is in the spool.
    pub fn is_spooled(&self, location: Location) -> bool {
        self.spool.is_some_and(|spool| location.file == spool.file && location.offset >= spool.base)
    }

    /// Whether a place is before the spool, where a [`Forecast`](super::Forecast) wanted it to be.
    pub fn is_foreseen(&self, location: Location) -> bool {
        self.spool.is_some_and(|spool| location.file == spool.file && location.offset < spool.base)
    }

    /// The pieces of a regular file from its first byte to its last.
    ///
    /// # Panics
    /// When the file lies in a [known layer](super::KnownLayers): whoever asks for pieces does not offer such.
    pub fn pieces<'a>(&'a self, data: &'a FileData) -> impl Iterator<Item = Piece<'a>> {
        let stored = |location: Location, len| Piece::Stored {
            file: &self.stored(location.file).expect("pieces of known layers are not asked for").file,
            offset: location.offset,
            len,
            spooled: self.is_spooled(location),
            veil: self.stored(location.file).and_then(|stored| stored.veil.as_ref()),
        };
        let (bytes, whole, extents): (&[u8], Option<Location>, &[Extent]) = match &data.content {
            Content::Inline(bytes) => (bytes, None, &[]),
            Content::Stored(location) => (&[], Some(*location), &[]),
            Content::Sparse(extents) => (&[], None, extents),
        };
        let held = bytes.len() as u64 + whole.map_or(0, |_| data.size);
        let end = extents.last().map_or(held, |last| last.at + last.len);
        let holes_before = std::iter::once(0).chain(extents.iter().map(|extent| extent.at + extent.len));
        let sparse = extents.iter().zip(holes_before).flat_map(move |(extent, hole_at)| {
            [Piece::Zeros(extent.at - hole_at), stored(extent.location, extent.len)]
        });
        std::iter::once(Piece::Bytes(bytes))
            .chain(whole.map(|location| stored(location, data.size)))
            .chain(sparse)
            .chain(std::iter::once(Piece::Zeros(data.size - end)))
            .filter(|piece| !piece.is_empty())
    }
}

impl Contents {
    /// Fills `buffer` with what stands at `offset` of a regular file; holes read as zeros.
    ///
    /// # Errors
    /// As `pread`; [`io::ErrorKind::UnexpectedEof`] past the end of the file.
    pub fn read_at(&self, data: &FileData, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|&end| end <= data.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if let Some((contents, origin)) = self.known(data) {
            return contents.read_at(origin.at.get(), buffer, offset);
        }
        let stored = |location: Location, from: u64, into: &mut [u8]| {
            let Stored { file, veil } = self.stored(location.file).ok_or(io::ErrorKind::NotFound)?;
            file.read_exact_at(into, location.offset + from)?;
            if let Some(veil) = veil {
                veil.apply(into, location.offset + from);
            }
            Ok::<(), io::Error>(())
        };
        match &data.content {
            Content::Inline(bytes) => buffer.copy_from_slice(&bytes[offset as usize..end as usize]),
            Content::Stored(location) => stored(*location, offset, buffer)?,
            Content::Sparse(extents) => {
                buffer.fill(0);
                let first = extents.partition_point(|extent| extent.at + extent.len <= offset);
                for extent in extents[first..].iter().take_while(|extent| extent.at < end) {
                    let (from, to) = (extent.at.max(offset), (extent.at + extent.len).min(end));
                    let into = &mut buffer[(from - offset) as usize..(to - offset) as usize];
                    stored(extent.location, from - extent.at, into)?;
                }
            }
        }
        Ok(())
    }

    /// The first offset from `offset` on that is not in a hole; `None` where only a hole follows.
    pub fn next_data(data: &FileData, offset: u64) -> Option<u64> {
        match &data.content {
            Content::Sparse(extents) => {
                let next = extents.partition_point(|extent| extent.at + extent.len <= offset);
                extents.get(next).map(|extent| extent.at.max(offset))
            }
            _ => (offset < data.size).then_some(offset),
        }
    }
}

impl Piece<'_> {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Stored { len, .. } | Piece::Zeros(len) => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// Two zeros, `abcd`, one zero, `efg`, two zeros; the letters lie elsewhere, in another order.
    fn sparse() -> (Contents, FileData) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"..efg...abcd").unwrap();
        let region = Region::whole(Arc::new(file)).unwrap();
        let contents = Contents::new(vec![Place::File(Stored::of_region(&region))], None);
        let extent = |at, len, offset| Extent { at, len, location: Location { file: FileId(0), offset } };
        let extents = [extent(2, 4, 8), extent(7, 3, 2)];
        (contents, FileData { size: 12, content: Content::Sparse(extents.into()), origin: None })
    }

    #[test]
    fn every_part_of_a_sparse_file_is_read() {
        let (contents, data) = sparse();
        let whole = b"\0\0abcd\0efg\0\0";
        for from in 0..=12 {
            for to in from..=12 {
                let mut buffer = vec![b'?'; to - from];
                contents.read_at(&data, &mut buffer, from as u64).unwrap();
                assert_eq!(buffer, whole[from..to], "{from}..{to}");
            }
        }
        let past = contents.read_at(&data, &mut [0; 2], 11).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn the_pieces_of_a_sparse_file_are_all_of_it() {
        let (contents, data) = sparse();
        let mut bytes = Vec::new();
        for piece in contents.pieces(&data) {
            match piece {
                Piece::Bytes(held) => bytes.extend_from_slice(held),
                Piece::Zeros(count) => bytes.resize(bytes.len() + count as usize, 0),
                Piece::Stored { file, offset, len, spooled, veil } => {
                    assert!(!spooled && veil.is_none());
                    let mut read = vec![0; len as usize];
                    file.read_exact_at(&mut read, offset).unwrap();
                    bytes.extend(read);
                }
            }
        }
        assert_eq!(bytes, b"\0\0abcd\0efg\0\0");
    }

    #[test]
    fn holes_are_skipped_and_the_end_is_known() {
        let (_, data) = sparse();
        let next: Vec<Option<u64>> = (0..12).map(|offset| Contents::next_data(&data, offset)).collect();
        let expected = [2, 2, 2, 3, 4, 5, 7, 7, 8, 9].map(Some);
        assert_eq!(next, [&expected[..], &[None, None]].concat());
        let dense = FileData::inline(&b"abc"[..]);
        assert_eq!([0, 2, 3].map(|offset| Contents::next_data(&dense, offset)), [Some(0), Some(2), None]);
    }
}
