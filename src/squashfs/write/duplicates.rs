//! Finds earlier files with the same bytes, reading as little as possible (the reasons stand in the room's `mod.rs`).
//!
//! Hashes only choose the candidates; two files are the same when a comparison of their bytes says so. Everything here
//! sees blocks of zeros and holes as the same thing, however the source tells them.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::source::is_zero;
use super::{ContentName, FileSource, Hashes};
use crate::error::Result;
use crate::model::{Algorithm, Hasher};

/// How much of a file is looked at first, in bytes. Files that differ mostly differ here, and many are no longer.
const HEAD_BYTES: u64 = 16 << 10;
/// How much is read at once, in bytes.
const CHUNK_BYTES: u64 = 128 << 10;

/// All files so far that nobody had before, findable by content.
#[derive(Default)]
pub(super) struct Duplicates {
    files: BTreeMap<u32, Arc<dyn FileSource>>,
    sizes: BTreeMap<u64, Class>,
    heads: BTreeMap<(u64, u128), Class>,
    wholes: BTreeMap<(u64, u128), Vec<u32>>,
    /// Files that are [distinct](FileSource::is_distinct), by name and by size. They are compared with none of themselves.
    named: BTreeMap<ContentName, u32>,
    distinct: BTreeMap<u64, Vec<u32>>,
    /// All others by size; missing until there is a distinct one, which most images do not have.
    others: Option<BTreeMap<u64, Vec<u32>>>,
    buffers: [Vec<u8>; 2],
}

/// The files that are alike so far.
#[derive(Clone, Copy)]
enum Class {
    /// Only this one: nothing more was asked of it yet.
    One(u32),
    /// Several, told apart by the next map.
    Several,
}

impl Duplicates {
    /// The file with the same bytes that was registered before. Where there is none, `file` is registered.
    pub(super) fn find_or_register(&mut self, file: u32, source: &Arc<dyn FileSource>) -> Result<Option<u32>> {
        let name = source.name().filter(|_| source.is_distinct());
        let found = match name {
            Some(name) => self.find_named(name, &**source)?,
            None => self.find_other(file, &**source)?,
        };
        if let Some(name) = name {
            self.named.entry(name).or_insert(found.unwrap_or(file));
        }
        if found.is_none() {
            let by_size = if name.is_some() { Some(&mut self.distinct) } else { self.others.as_mut() };
            by_size.into_iter().for_each(|files| files.entry(source.size()).or_default().push(file));
            self.files.insert(file, Arc::clone(source));
        }
        Ok(found)
    }

    fn find_named(&mut self, name: ContentName, source: &dyn FileSource) -> Result<Option<u32>> {
        match self.named.get(&name) {
            Some(&earlier) => Ok(Some(earlier)),
            None => {
                let files = &self.files;
                let others = self.others.get_or_insert_with(|| {
                    let mut by_size: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
                    files.iter().for_each(|(&file, source)| by_size.entry(source.size()).or_default().push(file));
                    by_size
                });
                let candidates = others.get(&source.size()).cloned();
                self.equal_one(candidates, source)
            }
        }
    }

    fn find_other(&mut self, file: u32, source: &dyn FileSource) -> Result<Option<u32>> {
        match self.equal_one(self.distinct.get(&source.size()).cloned(), source)? {
            Some(earlier) => Ok(Some(earlier)),
            None => self.find(file, source),
        }
    }

    /// The first of these files that is equal.
    fn equal_one(&mut self, candidates: Option<Vec<u32>>, source: &dyn FileSource) -> Result<Option<u32>> {
        for candidate in candidates.unwrap_or_default() {
            let earlier = Arc::clone(&self.files[&candidate]);
            if self.equal(&*earlier, source)? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    fn find(&mut self, file: u32, source: &dyn FileSource) -> Result<Option<u32>> {
        let size = source.size();
        match join(&mut self.sizes, size, file) {
            Joined::First => return Ok(None),
            Joined::Second(earlier) => {
                let earlier_source = Arc::clone(&self.files[&earlier]);
                let head = self.head(&*earlier_source)?;
                self.heads.insert((size, head), Class::One(earlier));
            }
            Joined::Further => {}
        }
        let head = self.head(source)?;
        match join(&mut self.heads, (size, head), file) {
            Joined::First => return Ok(None),
            Joined::Second(earlier) => {
                let earlier_source = Arc::clone(&self.files[&earlier]);
                let whole = self.whole(&*earlier_source, head)?;
                self.wholes.entry((size, whole)).or_default().push(earlier);
            }
            Joined::Further => {}
        }
        let whole = self.whole(source, head)?;
        let candidates = self.wholes.get(&(size, whole)).cloned();
        if let Some(equal) = self.equal_one(candidates, source)? {
            return Ok(Some(equal));
        }
        self.wholes.entry((size, whole)).or_default().push(file);
        Ok(None)
    }

    /// What a registered file is called.
    pub(super) fn name(&self, file: u32) -> Option<ContentName> {
        self.files.get(&file)?.name()
    }

    fn head(&mut self, source: &dyn FileSource) -> Result<u128> {
        let known = source.hashes();
        if let Some(head) = known.and_then(|hashes| hashes.head.get()) {
            return Ok(*head);
        }
        let head = xxh3_128(read(source, &mut self.buffers[0], 0, source.size().min(HEAD_BYTES))?);
        Ok(known.map_or(head, |hashes| *hashes.head.get_or_init(|| head)))
    }

    /// The hash of all of a file whose head has this hash: every chunk that is not zero, with its number.
    fn whole(&mut self, source: &dyn FileSource, head: u128) -> Result<u128> {
        if source.size() <= HEAD_BYTES {
            return Ok(head);
        }
        let known = source.hashes();
        if let Some(whole) = known.and_then(|hashes| hashes.whole.get()) {
            return Ok(*whole);
        }
        let mut hash = Xxh3::new();
        self.for_each_chunk(source, |start, chunk| {
            hash.update(&start.to_le_bytes());
            hash.update(chunk);
        })?;
        let whole = hash.digest128();
        Ok(known.map_or(whole, |hashes| *hashes.whole.get_or_init(|| whole)))
    }

    /// What stands for the bytes of a file of known size, whatever anyone may try.
    fn proof(&mut self, source: &dyn FileSource) -> Result<[u8; 32]> {
        let known = source.hashes();
        if let Some(proof) = known.and_then(|hashes| hashes.proof.get()) {
            return Ok(*proof);
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        self.for_each_chunk(source, |start, chunk| {
            hasher.update(&start.to_le_bytes());
            hasher.update(chunk);
        })?;
        let mut proof = [0; 32];
        proof.copy_from_slice(hasher.finish().as_bytes());
        Ok(known.map_or(proof, |hashes| *hashes.proof.get_or_init(|| proof)))
    }

    /// Gives every chunk that is not zero, with where it begins.
    fn for_each_chunk(&mut self, source: &dyn FileSource, mut each: impl FnMut(u64, &[u8])) -> Result<()> {
        for (start, length) in DataChunks::of(source) {
            let chunk = read(source, &mut self.buffers[0], start, length)?;
            if !is_zero(chunk) {
                each(start, chunk);
            }
        }
        Ok(())
    }

    /// Whether two files whose hashes are equal are. Where hashes are kept for later, a digest is kept of what is found equal,
    /// so that it need not be read again to know that.
    fn equal(&mut self, left: &dyn FileSource, right: &dyn FileSource) -> Result<bool> {
        let (left_hashes, right_hashes) = (left.hashes(), right.hashes());
        let has_proof = |hashes: Option<&Hashes>| hashes.is_some_and(|hashes| hashes.proof.get().is_some());
        if has_proof(left_hashes) || has_proof(right_hashes) {
            return Ok(self.proof(left)? == self.proof(right)?);
        }
        let equal = self.bytes_are_equal(left, right)?;
        if let (true, Some(_), Some(right_hashes)) = (equal, left_hashes, right_hashes) {
            let proof = self.proof(left)?;
            right_hashes.proof.get_or_init(|| proof);
        }
        Ok(equal)
    }

    fn bytes_are_equal(&mut self, left: &dyn FileSource, right: &dyn FileSource) -> Result<bool> {
        let [left_buffer, right_buffer] = &mut self.buffers;
        let (mut left_chunks, mut right_chunks) = (DataChunks::of(left).peekable(), DataChunks::of(right).peekable());
        loop {
            // Chunks that neither has are zeros in both.
            let Some(next) = left_chunks.peek().into_iter().chain(right_chunks.peek()).min().copied() else {
                return Ok(true);
            };
            left_chunks.next_if_eq(&next);
            right_chunks.next_if_eq(&next);
            let (start, length) = next;
            if read(left, left_buffer, start, length)? != read(right, right_buffer, start, length)? {
                return Ok(false);
            }
        }
    }
}

enum Joined {
    First,
    Second(u32),
    Further,
}

/// Puts a file into its class, and says how many were there.
fn join<K: Ord>(classes: &mut BTreeMap<K, Class>, key: K, file: u32) -> Joined {
    match classes.get_mut(&key) {
        None => {
            classes.insert(key, Class::One(file));
            Joined::First
        }
        Some(class) => match std::mem::replace(class, Class::Several) {
            Class::One(earlier) => Joined::Second(earlier),
            Class::Several => Joined::Further,
        },
    }
}

fn read<'a>(source: &dyn FileSource, buffer: &'a mut Vec<u8>, start: u64, length: u64) -> Result<&'a [u8]> {
    let length = length as usize;
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    source.read_at(&mut buffer[..length], start)?;
    Ok(&buffer[..length])
}

/// The chunks of a file that may hold something, as (start, length); starts are multiples of the chunk length.
struct DataChunks<'a> {
    source: &'a dyn FileSource,
    position: u64,
}

impl<'a> DataChunks<'a> {
    fn of(source: &'a dyn FileSource) -> Self {
        DataChunks { source, position: 0 }
    }
}

impl Iterator for DataChunks<'_> {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        let size = self.source.size();
        let data = self.source.next_data(self.position).filter(|&data| data < size)?.max(self.position);
        let start = data - data % CHUNK_BYTES;
        let length = CHUNK_BYTES.min(size - start);
        self.position = start + length;
        Some((start, length))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Counts what is read of it.
    struct Counted(Vec<u8>, AtomicU64);

    impl FileSource for Counted {
        fn size(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
            self.1.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            FileSource::read_at(&self.0, buffer, offset)
        }
    }

    fn file(length: usize, last: u8) -> Arc<Counted> {
        let mut bytes = vec![7; length];
        bytes[length - 1] = last;
        Arc::new(Counted(bytes, AtomicU64::new(0)))
    }

    fn add(duplicates: &mut Duplicates, number: u32, file: &Arc<Counted>) -> Option<u32> {
        let source: Arc<dyn FileSource> = Arc::clone(file) as _;
        duplicates.find_or_register(number, &source).unwrap()
    }

    #[test]
    fn reads_no_more_than_it_must() {
        let mut duplicates = Duplicates::default();
        let (alone, long, longer) = (file(5, 1), file(1 << 20, 1), file(1 << 20, 2));
        for (number, file) in [&alone, &long, &longer].into_iter().enumerate() {
            assert_eq!(add(&mut duplicates, number as u32, file), None);
        }
        assert_eq!(alone.1.load(Ordering::Relaxed), 0, "no other file of that size");
        assert_eq!(long.1.load(Ordering::Relaxed), HEAD_BYTES + (1 << 20), "its head is shared, so all is hashed");
        assert_eq!(add(&mut duplicates, 3, &file(1 << 20, 2)), Some(2));
        assert_eq!(add(&mut duplicates, 4, &file(5, 1)), Some(0));
        assert_eq!(add(&mut duplicates, 5, &file(5, 2)), None);
        assert_eq!(add(&mut duplicates, 6, &file(5, 2)), Some(5));
    }

    #[test]
    fn bytes_decide_when_hashes_agree() {
        let mut duplicates = Duplicates::default();
        let (one, other) = (file(1 << 20, 1), file(1 << 20, 2));
        add(&mut duplicates, 0, &one);
        add(&mut duplicates, 1, &other);
        // As if all hashes were equal.
        for candidates in duplicates.wholes.values_mut() {
            *candidates = vec![0, 1];
        }
        assert_eq!(add(&mut duplicates, 2, &file(1 << 20, 2)), Some(1));
        assert_eq!(add(&mut duplicates, 3, &file(1 << 20, 1)), Some(0));
    }

    /// A file that somebody vouches for, whose bytes nobody needs to look at.
    struct Vouched(Counted, u64);

    impl FileSource for Vouched {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
            self.0.read_at(buffer, offset)
        }

        fn name(&self) -> Option<ContentName> {
            Some(ContentName { layer: 0, at: self.1 })
        }

        fn is_distinct(&self) -> bool {
            true
        }
    }

    #[test]
    fn distinct_files_are_compared_with_others_only() {
        let vouched = |last, name| Arc::new(Vouched(Counted(vec![7, 7, last], AtomicU64::new(0)), name));
        let read = |file: &Arc<Vouched>| file.0.1.load(Ordering::Relaxed);
        let mut duplicates = Duplicates::default();
        let add_vouched = |duplicates: &mut Duplicates, number, file: &Arc<Vouched>| {
            let source: Arc<dyn FileSource> = Arc::clone(file) as _;
            duplicates.find_or_register(number, &source).unwrap()
        };
        let (one, other) = (vouched(1, 10), vouched(2, 20));
        assert_eq!(add_vouched(&mut duplicates, 0, &one), None);
        assert_eq!(add_vouched(&mut duplicates, 1, &other), None);
        assert_eq!(add_vouched(&mut duplicates, 2, &vouched(2, 20)), Some(1));
        assert_eq!((read(&one), read(&other)), (0, 0), "their names tell");
        // Files that nobody vouches for, before and after.
        assert_eq!(add(&mut duplicates, 3, &file(3, 2)), Some(1));
        assert_eq!(add(&mut duplicates, 4, &file(3, 4)), None);
        assert_eq!(add_vouched(&mut duplicates, 5, &vouched(4, 40)), Some(4));
        assert_eq!(add_vouched(&mut duplicates, 6, &vouched(4, 40)), Some(4));
        assert_eq!(add_vouched(&mut duplicates, 7, &vouched(5, 50)), None);
        // Those that came before any distinct one are found as well.
        let mut late = Duplicates::default();
        assert_eq!(add(&mut late, 0, &file(3, 9)), None);
        assert_eq!(add_vouched(&mut late, 1, &vouched(9, 90)), Some(0));
    }

    /// The same zeros, told as a hole or not.
    struct Sparse(u64);

    impl FileSource for Sparse {
        fn size(&self) -> u64 {
            self.0
        }

        fn read_at(&self, buffer: &mut [u8], _: u64) -> Result<()> {
            buffer.fill(0);
            Ok(())
        }

        fn next_data(&self, _: u64) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_hole_equals_zeros() {
        let mut duplicates = Duplicates::default();
        let zeros: Arc<dyn FileSource> = Arc::new(vec![0u8; 1 << 20]);
        let hole: Arc<dyn FileSource> = Arc::new(Sparse(1 << 20));
        assert_eq!(duplicates.find_or_register(0, &zeros).unwrap(), None);
        assert_eq!(duplicates.find_or_register(1, &hole).unwrap(), Some(0));
        let large: Arc<dyn FileSource> = Arc::new(Sparse(1 << 60));
        assert_eq!(duplicates.find_or_register(2, &large).unwrap(), None);
        assert_eq!(duplicates.find_or_register(3, &large).unwrap(), Some(2));
    }
}
