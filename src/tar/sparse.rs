//! Sparse files: the old GNU format (type `S`) and the PAX formats 0.0, 0.1 and 1.0 (GNU tar manual, "Sparse Formats").

use super::number::{parse_decimal, parse_field};
use super::pax::Records;

/// A stretch of a sparse file that holds data. Segments stand in order and do not overlap; their bytes follow one
/// another in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First byte, from the start of the file.
    pub at: u64,
    /// Length in bytes, never 0.
    pub len: u64,
}

/// How many segments one file may have: what bounds the memory a hostile map can take (16 MiB).
pub(super) const SEGMENTS_MAX: usize = 1 << 20;

/// A sparse map while it is read.
#[derive(Debug, Default)]
pub(super) struct Map {
    segments: Vec<Segment>,
    entries: usize,
}

impl Map {
    /// Adds an entry of the map. `None` where it is out of order, or one too many.
    pub(super) fn push(&mut self, at: u64, len: u64) -> Option<()> {
        let end = self.segments.last().map_or(0, |last| last.at + last.len);
        self.entries += 1;
        if at < end || at.checked_add(len)? > i64::MAX as u64 || self.entries > SEGMENTS_MAX {
            return None;
        }
        // GNU tar marks the end of a file that ends in a hole by an entry of length 0.
        if len > 0 {
            self.segments.push(Segment { at, len });
        }
        Some(())
    }

    /// The segments, where they lie inside `size` bytes and are what `stored` bytes hold.
    pub(super) fn finish(self, size: u64, stored: u64) -> Option<Vec<Segment>> {
        let end = self.segments.last().map_or(0, |last| last.at + last.len);
        let held: u64 = self.segments.iter().map(|segment| segment.len).sum();
        (end <= size && held == stored).then_some(self.segments)
    }

    /// Reads consecutive (offset, length) pairs of 12-byte fields, of which the first empty one ends the list.
    pub(super) fn push_old_fields(&mut self, fields: &[u8]) -> Option<()> {
        for pair in fields.chunks_exact(24) {
            if pair[0] == 0 || pair[12] == 0 {
                break;
            }
            let (at, len) = (parse_field(&pair[..12])?, parse_field(&pair[12..])?);
            self.push(u64::try_from(at).ok()?, u64::try_from(len).ok()?)?;
        }
        Some(())
    }

    /// PAX 0.0: `GNU.sparse.offset` and `GNU.sparse.numbytes`, again and again.
    pub(super) fn from_repeated_records(records: &Records) -> Option<Self> {
        let mut map = Map::default();
        let mut offset = None;
        for (key, value) in records.iter() {
            match key {
                b"GNU.sparse.offset" => offset = Some(parse_decimal(value)?),
                b"GNU.sparse.numbytes" => map.push(offset.take()?, parse_decimal(value)?)?,
                _ => {}
            }
        }
        offset.is_none().then_some(map)
    }

    /// PAX 0.1: `GNU.sparse.map`, numbers between commas.
    pub(super) fn from_list(list: &[u8]) -> Option<Self> {
        let mut map = Map::default();
        let mut numbers = list.split(|&byte| byte == b',').map(parse_decimal);
        while let Some(at) = numbers.next() {
            map.push(at?, numbers.next()??)?;
        }
        Some(map)
    }
}

/// PAX 1.0: the map stands before the data, as decimal numbers on lines of their own: how many entries, then offset and
/// length of each. Fed block by block, because only the text says where it ends.
#[derive(Debug, Default)]
pub(super) struct LeadingMap {
    map: Map,
    line: Vec<u8>,
    entries_left: Option<u64>,
    offset: Option<u64>,
}

impl LeadingMap {
    /// Takes one block. `Some(true)` when the map is complete, `None` when it is malformed.
    pub(super) fn feed(&mut self, block: &[u8]) -> Option<bool> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return None;
                }
                continue;
            }
            let number = parse_decimal(&self.line)?;
            self.line.clear();
            match (self.entries_left, self.offset.take()) {
                (None, _) => self.entries_left = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(left), Some(at)) => {
                    self.map.push(at, number)?;
                    self.entries_left = Some(left - 1);
                }
            }
            if self.entries_left == Some(0) {
                return Some(true);
            }
        }
        Some(false)
    }

    pub(super) fn into_map(self) -> Map {
        self.map
    }
}
