//! The holes of a sparse file as the canonical dialect writes them: PAX format 1.0 (GNU tar manual, "Storing Sparse Files"),
//! which GNU tar, libarchive, Go and Python read.

use super::sparse::Segment;
use super::write::{BLOCK_BYTES, padding};

/// Shorter holes are written out, in bytes: no file system in use saves anything by them.
const HOLE_BYTES_MIN: u64 = 4096;
/// Longest map that Go's archive/tar reads, in bytes.
const MAP_BYTES_MAX: usize = 1 << 20;

/// Which stretches of a sparse file are written. The others are left out, and read as zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseMap {
    segments: Vec<Segment>,
    /// The map as text, padded to whole blocks.
    text: Vec<u8>,
}

impl SparseMap {
    /// The map of a file of `size` bytes that has data in these `segments`, in order and inside of it. `None` where no hole
    /// is worth leaving out. Follows from what the file holds, and from nothing else.
    pub fn new(size: u64, segments: impl Iterator<Item = Segment> + Clone) -> Option<Self> {
        let mut hole_bytes_min = HOLE_BYTES_MIN;
        loop {
            let segments = without_short_holes(size, segments.clone(), hole_bytes_min);
            if segments == [Segment { at: 0, len: size }] || size == 0 {
                return None;
            }
            let text = map_text(size, &segments);
            if text.len() <= MAP_BYTES_MAX {
                return Some(SparseMap { segments, text });
            }
            hole_bytes_min *= 2;
        }
    }

    /// How many bytes of data follow the map.
    pub fn data_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// How many of the `len` bytes from `offset` of the file on are written.
    pub fn written_bytes(&self, offset: u64, len: u64) -> u64 {
        let end = offset + len;
        let first = self.segments.partition_point(|segment| segment.at + segment.len <= offset);
        let overlaps = self.segments[first..].iter().take_while(|segment| segment.at < end);
        overlaps.map(|segment| (segment.at + segment.len).min(end) - segment.at.max(offset)).sum()
    }

    /// What stands between the header and the data.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// What is written where holes of fewer bytes are not left out. GNU tar takes the data of each segment from whole blocks, so
/// segments begin and end with one; the end of the file alone may be inside.
fn without_short_holes(size: u64, segments: impl Iterator<Item = Segment>, hole_bytes_min: u64) -> Vec<Segment> {
    let mut kept: Vec<Segment> = Vec::new();
    let mut data_end = 0;
    for segment in segments {
        let (begin, end) = (segment.at, segment.at + segment.len);
        match kept.last_mut() {
            Some(last) if begin - data_end < hole_bytes_min => last.len = end - last.at,
            None if begin < hole_bytes_min => kept.push(Segment { at: 0, len: end }),
            _ => {
                let at = begin / BLOCK_BYTES * BLOCK_BYTES;
                kept.push(Segment { at, len: end - at });
            }
        }
        data_end = end;
    }
    let reaches_end = size - data_end < hole_bytes_min;
    match kept.last_mut() {
        Some(last) if reaches_end => last.len = size - last.at,
        None if reaches_end => kept.push(Segment { at: 0, len: size }),
        _ => {}
    }
    for segment in &mut kept {
        let end = (segment.at + segment.len).next_multiple_of(BLOCK_BYTES).min(size);
        segment.len = end - segment.at;
    }
    kept
}

/// How many entries, then offset and length of each. An empty one at the end of the file gives it its length, where it
/// ends in a hole: GNU tar truncates it otherwise.
fn map_text(size: u64, segments: &[Segment]) -> Vec<u8> {
    let data_end = segments.last().map_or(0, |last| last.at + last.len);
    let end = (data_end < size).then_some(Segment { at: size, len: 0 });
    let entries = segments.len() + usize::from(end.is_some());
    let mut text = format!("{entries}\n").into_bytes();
    for Segment { at, len } in segments.iter().copied().chain(end) {
        text.extend_from_slice(format!("{at}\n{len}\n").as_bytes());
    }
    text.resize(text.len() + padding(text.len() as u64) as usize, 0);
    debug_assert_eq!(text.len() as u64 % BLOCK_BYTES, 0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(size: u64, segments: &[(u64, u64)]) -> Option<SparseMap> {
        SparseMap::new(size, segments.iter().map(|&(at, len)| Segment { at, len }))
    }

    fn text(size: u64, segments: &[(u64, u64)]) -> String {
        let text = map(size, segments).unwrap().text;
        assert_eq!(text.len(), 512);
        String::from_utf8(text).unwrap().trim_end_matches('\0').replace('\n', " ")
    }

    #[test]
    fn holes_are_left_out_and_the_end_is_marked() {
        assert_eq!(text(60 << 30, &[]), "1 64424509440 0 ");
        assert_eq!(text(9000, &[(0, 9), (4105, 4895)]), "2 0 512 4096 4904 ");
        assert_eq!(text(9000, &[(0, 9), (4104, 1)]), "2 0 4608 9000 0 ");
        assert_eq!(text(9000, &[(4096, 4904)]), "1 4096 4904 ");
        assert_eq!(text(9000, &[(4095, 1)]), "2 0 4096 9000 0 ");
        // Segments that touch are one, however the layer has them.
        assert_eq!(text(9000, &[(0, 10), (10, 10)]), text(9000, &[(0, 20)]));
    }

    #[test]
    fn a_file_without_holes_worth_it_is_none() {
        for segments in [&[(0, 9000)][..], &[(4095, 4905)], &[(0, 4905)], &[(0, 1), (4000, 1), (8000, 1000)]] {
            assert_eq!(map(9000, segments), None, "{segments:?}");
        }
        assert_eq!((map(0, &[]), map(4095, &[])), (None, None));
    }

    #[test]
    fn every_segment_but_the_last_is_whole_blocks() {
        let found = map(100_001, &[(700, 1), (9000, 3000), (40_000, 100), (99_000, 1001)]).unwrap();
        let pairs: Vec<(u64, u64)> = found.segments.iter().map(|segment| (segment.at, segment.len)).collect();
        assert_eq!(pairs, [(0, 1024), (8704, 3584), (39_936, 512), (98_816, 1185)]);
        assert_eq!(found.data_bytes(), 1024 + 3584 + 512 + 1185);
        // Of the hole before the second: what is left of the first's block, and the beginning of its own.
        assert_eq!(found.written_bytes(701, 9000 - 701), 323 + 296);
        assert_eq!((found.written_bytes(1024, 7680), found.written_bytes(0, 100_001)), (0, found.data_bytes()));
    }

    #[test]
    fn a_map_is_no_longer_than_go_reads() {
        // Holes of 4096 and 8192 bytes in turn: the short ones are written.
        let segments: Vec<(u64, u64)> = (0..120_000).map(|n| (n / 2 * 13312 + n % 2 * 4608, 512)).collect();
        let map = map(60_000 * 13312, &segments).unwrap();
        assert!(map.text.len() <= 1 << 20, "{}", map.text.len());
        assert_eq!((map.segments.len(), map.data_bytes()), (60_000, 60_000 * 5120));
    }
}
