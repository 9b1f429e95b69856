//! Directory listings: headers that each share an inode block and a base number among up to 256 entries, and an index
//! for listings that span metadata blocks.

use super::metadata::{MetadataWriter, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::squashfs::format::{DIRECTORY_ENTRY_BYTES, DIRECTORY_HEADER_BYTES, HEADER_ENTRIES_MAX, METADATA_BYTES};

/// A name on its way into a listing.
#[derive(Clone, Copy)]
pub(super) struct ListingEntry<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: Place,
    pub(super) number: u32,
    /// The basic kind, 1 to 7.
    pub(super) kind: u16,
}

/// A written listing: what the directory's inode says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    pub(super) place: Place,
    pub(super) bytes: u32,
    pub(super) index: Vec<IndexEntry>,
}

/// Where the first header after a block boundary stands, and its first name.
#[derive(Debug, Clone)]
pub(super) struct IndexEntry {
    pub(super) byte: u32,
    pub(super) block: u32,
    pub(super) name: Box<[u8]>,
}

/// Entries of the index are counted in 16 bits. It only makes lookups faster: what is past its end is searched.
const INDEX_ENTRIES_MAX: usize = u16::MAX as usize;

/// Writes the listing of one directory. `entries` must be sorted by name.
pub(super) fn write_listing<'a>(
    entries: impl Iterator<Item = ListingEntry<'a>>,
    table: &mut MetadataWriter,
) -> Result<Listing> {
    let mut builder = Builder { listing: Listing { place: table.place(), ..Listing::default() }, run: None, table };
    for entry in entries {
        builder.add(entry)?;
    }
    builder.end_run()?;
    Ok(builder.listing)
}

struct Builder<'a, 't> {
    listing: Listing,
    run: Option<Run<'a>>,
    table: &'t mut MetadataWriter,
}

/// Entries that share one header.
struct Run<'a> {
    first: ListingEntry<'a>,
    count: usize,
    bytes: Vec<u8>,
}

impl<'a> Builder<'a, '_> {
    fn add(&mut self, entry: ListingEntry<'a>) -> Result<()> {
        if !self.run.as_ref().is_some_and(|run| self.fits(run, &entry)) {
            self.end_run()?;
            self.begin_run(entry)?;
        }
        if let Some(run) = &mut self.run {
            run.push(&entry);
        }
        Ok(())
    }

    fn fits(&self, run: &Run<'_>, entry: &ListingEntry<'_>) -> bool {
        let within_block = usize::from(self.table.place().offset) + run.bytes.len() < METADATA_BYTES;
        within_block
            && run.count < HEADER_ENTRIES_MAX
            && run.first.inode.block == entry.inode.block
            && run.delta(entry).is_some()
    }

    /// The first header in a further metadata block gets an index entry.
    fn begin_run(&mut self, first: ListingEntry<'a>) -> Result<()> {
        let block = self.table.place().block;
        let last = self.listing.index.last().map_or(self.listing.place.block, |entry| u64::from(entry.block));
        if block != last && self.listing.index.len() < INDEX_ENTRIES_MAX {
            let entry = IndexEntry { byte: self.listing.bytes, block: table_offset(block)?, name: first.name.into() };
            self.listing.index.push(entry);
        }
        self.run = Some(Run { first, count: 0, bytes: vec![0; DIRECTORY_HEADER_BYTES] });
        Ok(())
    }

    fn end_run(&mut self) -> Result<()> {
        let Some(mut run) = self.run.take() else { return Ok(()) };
        run.bytes[0..4].copy_from_slice(&(run.count as u32 - 1).to_le_bytes());
        run.bytes[4..8].copy_from_slice(&table_offset(run.first.inode.block)?.to_le_bytes());
        run.bytes[8..12].copy_from_slice(&run.first.number.to_le_bytes());
        self.table.write(&run.bytes)?;
        let bytes = u64::from(self.listing.bytes) + run.bytes.len() as u64;
        self.listing.bytes = table_offset(bytes)?;
        Ok(())
    }
}

impl Run<'_> {
    fn delta(&self, entry: &ListingEntry<'_>) -> Option<i16> {
        i16::try_from(i64::from(entry.number) - i64::from(self.first.number)).ok()
    }

    fn push(&mut self, entry: &ListingEntry<'_>) {
        self.count += 1;
        self.bytes.reserve(DIRECTORY_ENTRY_BYTES + entry.name.len());
        self.bytes.extend(entry.inode.offset.to_le_bytes());
        self.bytes.extend(self.delta(entry).unwrap_or_default().to_le_bytes());
        self.bytes.extend(entry.kind.to_le_bytes());
        self.bytes.extend((entry.name.len() as u16 - 1).to_le_bytes());
        self.bytes.extend_from_slice(entry.name);
    }
}

/// Places in the inode and directory tables are 32 bits wide in directories, and so are their sizes (with room for the
/// three bytes that inodes add).
pub(super) fn table_offset(bytes: u64) -> Result<u32> {
    u32::try_from(bytes).ok().filter(|&bytes| bytes <= u32::MAX - 16).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the image has so many files that a squashfs table passes 4 GiB")
    })
}
