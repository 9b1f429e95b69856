use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{Place, SEAL_NAME, Seal, blank, start_bytes};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::Region;
use crate::sif::descriptor::{DESCRIPTOR_BYTES, Descriptor};
use crate::sif::header::at;
use crate::sif::kind::{DataType, Extra};
use crate::sif::reader::Container;
use crate::sif::writer::{DATA_OFFSET, PARTITION_ALIGNMENT, TABLE_OFFSET};

/// Fields of the header that whoever adds or removes an object changes: modification time, free slots, size of the data
/// (bytes from the start of the file). The check of the container looks after them.
const VOLATILE: [std::ops::Range<usize>; 3] =
    [at::MODIFIED..at::DESCRIPTORS_FREE, at::DESCRIPTORS_FREE..at::DESCRIPTORS_TOTAL, at::DATA_SIZE..at::DATA_SIZE + 8];
/// The most that is read before the partition, in bytes: configs are at most a few MiB.
const HEAD_BYTES_MAX: u64 = 64 << 20;

/// Everything before the partition that was written with it: header, table, a definition and a few documents.
pub(super) struct Head<'a> {
    container: &'a Container,
    seal: &'a Seal,
    place: Place,
    /// The partition's slot, from 0.
    slot: usize,
    partition: &'a Descriptor,
    bytes: Vec<u8>,
}

/// Slot and descriptor of the partition that was written behind the seal.
pub(super) fn partition<'a>(container: &'a Container, place: &Place) -> Option<(usize, &'a Descriptor)> {
    let start = place.end.next_multiple_of(PARTITION_ALIGNMENT);
    let is_it =
        |it: &Descriptor| it.is_used() && it.data_type == DataType::Partition && it.offset.unsigned_abs() == start;
    container.slots().map(|(_, it)| it).enumerate().find(|(_, it)| is_it(it))
}

/// The file up to `end`, or as much of it as is read.
pub(super) fn read(container: &Container, end: u64) -> Result<Vec<u8>> {
    let mut head = vec![0; end.min(container.file().len).min(HEAD_BYTES_MAX) as usize];
    container.file().read_at(&mut head, 0).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(head)
}

impl<'a> Head<'a> {
    /// `None` where there is no partition behind the seal.
    pub(super) fn of(container: &'a Container, seal: &'a Seal, place: Place) -> Result<Option<Self>> {
        let Some((slot, partition)) = partition(container, &place) else { return Ok(None) };
        let bytes = read(container, partition.offset.unsigned_abs())?;
        Ok(Some(Head { container, seal, place, slot, partition, bytes }))
    }

    /// Whether it is the one that is run.
    pub(super) fn is_primary(&self) -> bool {
        self.partition.is_primary()
    }

    /// The partition's bytes.
    pub(super) fn partition(&self) -> Result<Region> {
        self.container.data(self.partition)
    }

    /// How many bytes at the partition's start are hashed last.
    pub(super) fn start_bytes(&self) -> u64 {
        match self.partition.extra() {
            Extra::Partition { file_system, .. } => start_bytes(file_system),
            _ => 0,
        }
    }

    /// Where the partition ends.
    pub(super) fn end(&self) -> u64 {
        self.partition.extent().map_or(u64::MAX, |(_, end)| end)
    }

    /// The checksum of the head as it was before it had checksums, and before anyone added or removed objects.
    pub(super) fn checksum(&self) -> u128 {
        let mut head = self.bytes.clone();
        VOLATILE.into_iter().for_each(|range| fill(&mut head, range, 0));
        for slot in (0..self.container.slots().count()).filter(|&slot| !self.covers(slot)) {
            fill(&mut head, slot_range(slot), 0);
        }
        if self.seal.checksums.objects.is_some() {
            fill(&mut head, DATA_OFFSET..self.place.start as usize, 0);
        }
        self.undo_setprim(&mut head);
        if let Some(text) = head.get_mut(self.place.start as usize..self.place.end as usize) {
            blank(text);
        }
        xxh3_128(&head)
    }

    /// Whether the head's checksum covers a slot: the seal's and the partition's, and in older files all before them.
    fn covers(&self, slot: usize) -> bool {
        (self.seal.objects()..=self.slot).contains(&slot)
    }

    /// `setprim` makes another partition the one that is run: it changes the kind of this one, its time, and what the
    /// header says of the architecture.
    fn undo_setprim(&self, head: &mut [u8]) {
        let Extra::Partition { file_system, architecture, .. } = self.partition.extra() else { return };
        if self.partition.is_primary() || self.container.primary().is_none() {
            return;
        }
        let before = Descriptor {
            modified_seconds: self.partition.created_seconds,
            extra_area: Extra::primary(file_system, architecture),
            ..self.partition.clone()
        };
        put(head, slot_range(self.slot).start, &before.to_bytes());
        put(head, at::ARCHITECTURE, &architecture.code());
    }

    /// The checksums of the objects before the seal.
    pub(super) fn object_checksums(&self) -> Result<Vec<u128>> {
        let count = self.seal.objects();
        if self.slot != count + 1 {
            return Err(Error::new(ErrorKind::Bug, format!("{SEAL_NAME} counts {count} objects before it")));
        }
        let before = self.container.slots().map(|(_, descriptor)| descriptor).take(count);
        before.map(|descriptor| self.object_checksum(descriptor)).collect()
    }

    /// The checksum of an object and its descriptor.
    pub(super) fn object_checksum(&self, descriptor: &Descriptor) -> Result<u128> {
        let region = self.container.data(descriptor)?;
        let mut bytes = vec![0; region.len.min(HEAD_BYTES_MAX) as usize];
        region.read_at(&mut bytes, 0).or_kind(ErrorKind::SourceUnavailable)?;
        let mut hash = Xxh3::new();
        hash.update(&descriptor.to_bytes());
        hash.update(&bytes);
        Ok(hash.digest128())
    }
}

fn slot_range(slot: usize) -> std::ops::Range<usize> {
    let start = TABLE_OFFSET + slot * DESCRIPTOR_BYTES;
    start..start + DESCRIPTOR_BYTES
}

fn fill(head: &mut [u8], range: std::ops::Range<usize>, byte: u8) {
    if let Some(bytes) = head.get_mut(range) {
        bytes.fill(byte);
    }
}

fn put(head: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at.saturating_add(bytes.len())) {
        place.copy_from_slice(bytes);
    }
}
