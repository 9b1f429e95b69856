//! Checksums that a container carries of itself, in a JSON object of its own. Neither SIF nor squashfs has any: a flipped
//! bit in a block that is stored as it is would otherwise go unnoticed for ever.
//!
//! The object has a fixed length, so that it can be placed before the checksums are known. They are XXH3 of 128 bits:
//! against accidents, not against forgers, for whom `apptainer sign` is the answer.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3;

use super::finding::Finding;
use super::kind::DataType;
use super::reader::Container;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::{CHUNK_BYTES, Monitor, Region};
use crate::model::OUTPUT_FORMAT;

/// The object's name.
pub const SEAL_NAME: &str = "sif-convert.json";

/// Fields of the header that whoever adds a signature changes: modification time, free slots, size of the data (bytes from
/// the start of the file). The check of the container looks after them.
const VOLATILE: [std::ops::Range<usize>; 3] = [72..80, 80..88, 120..128];
/// Where the descriptor table begins, and how long a descriptor is, in bytes.
const TABLE_OFFSET: usize = 4096;

/// What the object says.
#[derive(Debug, Clone, Deserialize)]
pub struct Seal {
    checksums: Checksums,
    /// The digest of the image config that the container was made from.
    pub image: String,
    /// The number of the output format that it was written in: [`crate::model::OUTPUT_FORMAT`]. Files of before there was
    /// one say nothing.
    #[serde(default)]
    pub format: u32,
    /// A digest of the choices that decide what is inside, where they are not the usual ones.
    #[serde(default)]
    pub options: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Checksums {
    head: String,
    partition: String,
}

/// What of a partition is hashed last, in bytes: as much as a squashfs writes last.
const START_BYTES: u64 = 96;
/// The most that is read before the partition, in bytes: configs are at most a few MiB.
const HEAD_BYTES_MAX: u64 = 64 << 20;
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 32;
/// Where the digits of the two checksums begin in the object's text, in bytes.
const HEAD_DIGITS: usize = r#"{"checksums":{"head":"xxh3:"#.len();
const PARTITION_DIGITS: usize = HEAD_DIGITS + DIGITS + r#"","partition":"xxh3:"#.len();
/// What stands in every such object, whatever became of its descriptor.
const MARK: &[u8] = br#""tool":"sif-convert""#;

/// The object's bytes, without and with checksums of the same length.
fn text(image: &str, options: Option<&str>, format: u32, head: u128, partition: u128) -> Vec<u8> {
    let checksums = format!(r#"{{"head":"xxh3:{head:032x}","partition":"xxh3:{partition:032x}"}}"#);
    let options = options.map(|options| format!(r#""options":"{options}","#)).unwrap_or_default();
    format!(r#"{{"checksums":{checksums},"format":{format},"image":"{image}",{options}"tool":"sif-convert"}}"#)
        .into_bytes()
}

/// The object as it stands until [`seal`] fills it in. `options` is a digest of choices that are not the usual ones.
pub fn unsealed(image: &str, options: Option<&str>) -> Vec<u8> {
    text(image, options, OUTPUT_FORMAT, 0, 0)
}

/// The checksum of a partition that is being written: of its bytes in the order in which an image of a file system is
/// written, from byte `START_BYTES` on and the start at the very end. So the file need not be read once more.
pub struct PartitionSum {
    hash: Xxh3,
    next: u64,
}

impl Default for PartitionSum {
    fn default() -> Self {
        PartitionSum { hash: Xxh3::new(), next: START_BYTES }
    }
}

impl PartitionSum {
    /// Takes in `bytes`, which have been written at `position` in the partition.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when they were written in another order.
    pub fn add(&mut self, bytes: &[u8], position: u64) -> Result<()> {
        let starts = position == 0 && bytes.len() as u64 == START_BYTES && self.next != u64::MAX;
        if position != self.next && !starts {
            return Err(Error::new(ErrorKind::Bug, format!("a partition was written out of order, at {position}")));
        }
        self.hash.update(bytes);
        self.next = if starts { u64::MAX } else { self.next + bytes.len() as u64 };
        Ok(())
    }
}

/// Computes the checksums of a finished container, whose partition has the checksum `partition`, and writes them into its
/// object.
///
/// # Errors
/// [`ErrorKind::Output`] when the file cannot be read back or written; [`ErrorKind::Bug`] when it has no such object.
pub fn seal(file: &Arc<File>, partition: &PartitionSum) -> Result<()> {
    let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
    let container = Container::open(region)?;
    let bug = || Error::new(ErrorKind::Bug, "the container has no object for its checksums");
    let (seal, at) = read(&container)?.ok_or_else(bug)?;
    let (head, _) = head_checksum(&container, at)?;
    let bytes = text(&seal.image, seal.options.as_deref(), seal.format, head, partition.hash.digest128());
    file.write_all_at(&bytes, at).or_kind(ErrorKind::Output)
}

/// The container's seal and where it stands, where it has one.
///
/// # Errors
/// When the file cannot be read, or the object is damaged.
pub fn read(container: &Container) -> Result<Option<(Seal, u64)>> {
    let Some(descriptor) = container.named(DataType::GenericJson, SEAL_NAME.as_bytes()) else { return Ok(None) };
    let region = container.data(descriptor)?;
    let mut bytes = vec![0; region.len.min(4096) as usize];
    region.read_at(&mut bytes, 0).or_kind(ErrorKind::SourceUnavailable)?;
    let damaged = |error| Error::new(ErrorKind::InvalidImage, format!("object {SEAL_NAME:?} is damaged: {error}"));
    let seal = serde_json::from_slice(&bytes).map_err(damaged)?;
    Ok(Some((seal, region.offset - container.file().offset)))
}

/// Compares the checksums of a container with what it holds. `None` where it has none.
///
/// # Errors
/// When the file cannot be read, or the work is stopped.
pub fn check(container: &Container, monitor: &Monitor) -> Result<Option<Vec<Finding>>> {
    let Some((seal, at)) = read(container)? else {
        let end = container.primary().map_or(u64::MAX, |primary| primary.offset.unsigned_abs());
        let lost = read_head(container, end)?.windows(MARK.len()).any(|bytes| bytes == MARK);
        let message = "the object with the checksums is there, but its descriptor does not say so";
        return Ok(lost.then(|| vec![Finding::error(TABLE_OFFSET as u64, "checksums-lost", message)]));
    };
    let (head, partition) = head_checksum(container, at)?;
    let partition = hash_partition(&partition, monitor)?;
    let mut findings = Vec::new();
    if seal.checksums.head != format!("xxh3:{head:032x}") {
        let message = "the header, a descriptor, the definition or a JSON object is not what was written";
        findings.push(Finding::error(0, "head-checksum", message));
    }
    if seal.checksums.partition != format!("xxh3:{partition:032x}") {
        let offset = container.primary().map_or(0, |primary| primary.offset.unsigned_abs());
        findings.push(Finding::error(offset, "partition-checksum", "the partition is not what was written"));
    }
    let signed = container.descriptors().any(|descriptor| descriptor.data_type == DataType::Signature);
    let header = container.header();
    if !signed && header.modified_seconds != header.created_seconds {
        findings.push(Finding::error(72, "modified-time", "the file was changed after it was written, or damaged"));
    }
    Ok(Some(findings))
}

/// The checksum of all before the partition, and where that is.
fn head_checksum(container: &Container, at: u64) -> Result<(u128, Region)> {
    let primary = container.primary().ok_or_else(|| Error::new(ErrorKind::InvalidImage, "there is no partition"))?;
    let partition = container.data(primary)?;
    let end = partition.offset - container.file().offset;
    let mut head = read_head(container, end)?;
    normalise(&mut head, primary.id as usize, at as usize);
    let mut hash = Xxh3::new();
    hash.update(&head);
    Ok((hash.digest128(), partition))
}

/// Everything before the partition: a definition and a few documents.
fn read_head(container: &Container, end: u64) -> Result<Vec<u8>> {
    let mut head = vec![0; end.min(container.file().len).min(HEAD_BYTES_MAX) as usize];
    container.file().read_at(&mut head, 0).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(head)
}

/// Makes the start of a file what it was before it had checksums or signatures.
fn normalise(head: &mut [u8], descriptors: usize, at: usize) {
    let later = TABLE_OFFSET + descriptors * super::descriptor::DESCRIPTOR_BYTES..super::writer::DATA_OFFSET;
    for range in VOLATILE.into_iter().chain([later]) {
        if let Some(bytes) = head.get_mut(range) {
            bytes.fill(0);
        }
    }
    // Only the digits are made blank: all else of the object is covered.
    for offset in [HEAD_DIGITS, PARTITION_DIGITS] {
        let start = at.saturating_add(offset);
        if let Some(digits) = head.get_mut(start..start.saturating_add(DIGITS)) {
            digits.fill(b'0');
        }
    }
}

/// What a [`PartitionSum`] of the same bytes is.
fn hash_partition(partition: &Region, monitor: &Monitor) -> Result<u128> {
    let start = START_BYTES.min(partition.len);
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
