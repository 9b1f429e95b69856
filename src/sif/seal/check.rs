use std::io::Read as _;

use xxhash_rust::xxh3::Xxh3;

use super::head::{self, Head};
use super::{Place, Seal, read, shown};
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result};
use crate::io::{CHUNK_BYTES, Monitor, Region};
use crate::sif::descriptor::Descriptor;
use crate::sif::finding::Finding;
use crate::sif::header;
use crate::sif::reader::Container;

/// What stands in every such object, whatever became of its descriptor.
const MARK: &[u8] = br#""tool":"sif-convert""#;
/// Times from here on, in seconds, are nobody's: the year 36812.
const TIME_MAX: i64 = 1 << 40;

/// Compares the checksums of a container with what it holds. `None` where it has none.
///
/// # Errors
/// When the file cannot be read, or the work is stopped.
pub fn check(container: &Container, monitor: &Monitor) -> Result<Option<Vec<Finding>>> {
    match read(container)? {
        Some((seal, place)) => compare(container, &seal, place, monitor).map(Some),
        None => look_for_a_lost_one(container),
    }
}

/// The checksum of a container's primary partition, to be compared with what it holds when somebody has read that.
#[derive(Debug)]
pub struct PartitionCheck {
    partition: Region,
    start_bytes: u64,
    expected: String,
}

impl PartitionCheck {
    /// `None` where the container has no checksums, or they are of another partition.
    pub fn of(container: &Container) -> Result<Option<PartitionCheck>> {
        let Some((seal, place)) = read(container).ok().flatten() else { return Ok(None) };
        let Some(head) = Head::of(container, &seal, place)? else { return Ok(None) };
        if !head.is_primary() {
            return Ok(None);
        }
        let expected = seal.checksums.partition.clone();
        Ok(Some(PartitionCheck { partition: head.partition()?, start_bytes: head.start_bytes(), expected }))
    }

    /// Reads all of the partition.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when it is not what was written.
    pub fn run(&self, monitor: &Monitor) -> Result<()> {
        if self.expected == shown(hash_partition(&self.partition, self.start_bytes, monitor)?) {
            return Ok(());
        }
        let message = "the partition is damaged: it does not have the checksum that was written with it";
        Err(Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::ConvertAgain))
    }
}

fn compare(container: &Container, seal: &Seal, place: Place, monitor: &Monitor) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let offset = place.end;
    let Some(head) = Head::of(container, seal, place)? else {
        let message = "there is no partition where one was written";
        return Ok(vec![Finding::error(offset, "partition-lost", message)]);
    };
    if seal.checksums.head != shown(head.checksum()) {
        let message = "the header, a descriptor, the definition or a JSON object is not what was written";
        findings.push(Finding::error(0, "head-checksum", message));
    }
    for (slot, sum) in seal.checksums.objects.iter().flatten().enumerate() {
        findings.extend(compare_object(container, &head, slot, sum)?);
    }
    let partition = head.partition()?;
    let offset = partition.offset - container.file().offset;
    if seal.checksums.partition != shown(hash_partition(&partition, head.start_bytes(), monitor)?) {
        findings.push(Finding::error(offset, "partition-checksum", "the partition is not what was written"));
    }
    let is_edited = !findings.is_empty()
        || container.file().len > head.end()
        || container.primary().is_some_and(|primary| primary.offset.unsigned_abs() != offset);
    findings.extend(check_time(container, is_edited));
    Ok(findings)
}

/// An object that was written before the seal, with its checksum. It may have been removed, and its slot given to another.
fn compare_object(container: &Container, head: &Head<'_>, slot: usize, sum: &str) -> Result<Option<Finding>> {
    let Some((offset, descriptor)) = container.slots().nth(slot) else { return Ok(None) };
    let is_later = descriptor.created_seconds > container.header().created_seconds;
    if is_blank(descriptor) || (is_later && descriptor.offset.unsigned_abs() >= head.end()) {
        let message = format!("object {} was removed after the file was written", slot + 1);
        return Ok(Some(Finding::notice(offset, "object-removed", message)));
    }
    if shown(head.object_checksum(descriptor)?) == sum {
        return Ok(None);
    }
    let message = format!("object {} ({descriptor}) or its descriptor is not what was written", slot + 1);
    Ok(Some(Finding::error(offset, "object-checksum", message)))
}

/// Whether a slot is as `sif del` leaves it. No single damaged byte makes a slot like this.
fn is_blank(descriptor: &Descriptor) -> bool {
    descriptor.to_bytes().iter().all(|&byte| byte == 0)
}

/// Whoever edits the file sets the header's time. Where nothing else tells of an edit, one bit that differs is damage.
fn check_time(container: &Container, is_edited: bool) -> Option<Finding> {
    let header = container.header();
    let (created, modified) = (header.created_seconds, header.modified_seconds);
    if is_edited || modified == created {
        return None;
    }
    let offset = header::at::MODIFIED as u64;
    if (created ^ modified).count_ones() == 1 || !(created..TIME_MAX).contains(&modified) {
        let message = "the time of the last change is not what was written";
        return Some(Finding::error(offset, "modified-time", message));
    }
    Some(Finding::notice(offset, "modified-time", "the file was changed after it was written"))
}

/// A file that has a seal, though no descriptor says so, is damaged; unless the descriptor was taken away.
fn look_for_a_lost_one(container: &Container) -> Result<Option<Vec<Finding>>> {
    let end = container.primary().map_or(u64::MAX, |primary| primary.offset.unsigned_abs());
    let head = head::read(container, end)?;
    let Some(at) = head.windows(MARK.len()).position(|bytes| bytes == MARK) else { return Ok(None) };
    let covers = |it: &Descriptor| it.extent().is_some_and(|(start, end)| (start..end).contains(&(at as u64)));
    let slot = container.slots().find(|(_, descriptor)| covers(descriptor)).map(|(offset, _)| offset);
    let message = "the object with the checksums is there, but its descriptor does not say so";
    Ok(slot.map(|offset| vec![Finding::error(offset, "checksums-lost", message)]))
}

/// What a [`super::PartitionSum`] of the same bytes is.
fn hash_partition(partition: &Region, start: u64, monitor: &Monitor) -> Result<u128> {
    let start = start.min(partition.len);
    let rest = Region { offset: partition.offset + start, len: partition.len - start, ..partition.clone() };
    let mut reader = rest.reader().chain(partition.reader().take(start));
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        monitor.check()?;
        match reader.read(&mut buffer).or_kind(ErrorKind::SourceUnavailable)? {
            0 => return Ok(hash.digest128()),
            count => hash.update(&buffer[..count]),
        }
    }
}
