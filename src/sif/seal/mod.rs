//! Checksums that a container carries of itself, in a JSON object of its own. Neither SIF nor squashfs has any: a flipped
//! bit in a block that is stored as it is would otherwise go unnoticed for ever.
//!
//! The object has a fixed length, so that it can be placed before the checksums are known. They are XXH3 of 128 bits:
//! against accidents, not against forgers, for whom `apptainer sign` is the answer.
//!
//! What others may do to a container later (`apptainer sif add`, `del` and `setprim`, `sign`, `overlay create`) is not
//! covered: each object has a checksum of its own, and what such edits change in the header is left out.

mod check;
mod head;

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use serde::Deserialize;
use xxhash_rust::xxh3::Xxh3;

use self::head::Head;
use super::kind::{DataType, FileSystem};
use super::reader::Container;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::Region;

pub use check::{PartitionCheck, check};

/// The object's name: the last of all, so that the partition follows it.
pub const SEAL_NAME: &str = "sif-convert.json";

/// The most that is read of the object, in bytes.
const SEAL_BYTES_MAX: u64 = 64 << 10;
/// What of a partition is hashed last, in bytes: as much as a squashfs writes last.
const START_BYTES: u64 = 96;
/// The same of an encrypted one: it holds the start of the squashfs inside, too.
pub const ENCRYPTED_START_BYTES: u64 = 8192;
/// What stands before a checksum's digits.
const SUM_PREFIX: &str = "xxh3:";
/// Hexadecimal digits of a checksum.
const SUM_DIGITS: usize = 32;

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
    /// Of the objects before this one, each with its descriptor. Absent in files of older versions, whose head holds them.
    #[serde(default)]
    objects: Option<Vec<String>>,
    partition: String,
}

impl Checksums {
    fn of(head: u128, objects: &[u128], partition: u128) -> Self {
        let objects = objects.iter().copied().map(shown).collect();
        Checksums { head: shown(head), objects: Some(objects), partition: shown(partition) }
    }
}

/// A checksum as it is written.
fn shown(sum: u128) -> String {
    format!("{SUM_PREFIX}{sum:032x}")
}

impl Seal {
    /// The object's bytes.
    fn text(&self) -> Vec<u8> {
        let Seal { checksums: Checksums { head, objects, partition }, image, format, options } = self;
        let mut text = format!(r#"{{"checksums":{{"head":"{head}","#);
        if let Some(objects) = objects {
            let objects: Vec<String> = objects.iter().map(|sum| format!(r#""{sum}""#)).collect();
            let _ = write!(text, r#""objects":[{}],"#, objects.join(","));
        }
        let _ = write!(text, r#""partition":"{partition}"}},"format":{format},"image":"{image}","#);
        if let Some(options) = options {
            let _ = write!(text, r#""options":"{options}","#);
        }
        let _ = write!(text, r#""tool":"sif-convert"}}"#);
        text.into_bytes()
    }

    /// How many objects stand before this one with a checksum of their own.
    fn objects(&self) -> usize {
        self.checksums.objects.as_ref().map_or(0, Vec::len)
    }
}

/// Makes the digits of all checksums in an object's bytes zeros: they cannot cover themselves.
fn blank(text: &mut [u8]) {
    let is_sum = |at: &usize| text[*at..].starts_with(SUM_PREFIX.as_bytes());
    let places: Vec<usize> = (0..text.len()).filter(is_sum).map(|at| at + SUM_PREFIX.len()).collect();
    for at in places {
        text.iter_mut().skip(at).take(SUM_DIGITS).for_each(|digit| *digit = b'0');
    }
}

/// The object as it stands until [`seal`] fills it in, behind `others` other objects. `options` is a digest of choices
/// that are not the usual ones, `format` the number of the output format.
pub fn unsealed(format: u32, image: &str, options: Option<&str>, others: usize) -> Vec<u8> {
    let checksums = Checksums::of(0, &vec![0; others], 0);
    Seal { checksums, image: image.to_string(), format, options: options.map(str::to_string) }.text()
}

/// The checksum of a partition that is being written: of its bytes in the order in which an image of a file system is
/// written: the start, whose length depends on the kind of file system, at the very end. So the file need not be read once
/// more.
pub struct PartitionSum {
    hash: Xxh3,
    start: u64,
    next: u64,
}

/// How many bytes at the start of a partition are hashed last.
fn start_bytes(file_system: FileSystem) -> u64 {
    if file_system == FileSystem::GocryptfsSquashfs { ENCRYPTED_START_BYTES } else { START_BYTES }
}

impl PartitionSum {
    /// Of a partition of this kind.
    pub fn new(file_system: FileSystem) -> Self {
        let start = start_bytes(file_system);
        PartitionSum { hash: Xxh3::new(), start, next: start }
    }

    /// Takes in `bytes`, which have been written at `position` in the partition.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when they were written in another order.
    pub fn add(&mut self, bytes: &[u8], position: u64) -> Result<()> {
        let starts = position == 0 && bytes.len() as u64 == self.start && self.next != u64::MAX;
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
    let bug = || Error::new(ErrorKind::Bug, "the container has no object for its checksums, or it is not the last one");
    let (seal, place) = read(&container)?.ok_or_else(bug)?;
    let start = place.start;
    let head = Head::of(&container, &seal, place)?.ok_or_else(bug)?;
    let checksums = Checksums::of(head.checksum(), &head.object_checksums()?, partition.hash.digest128());
    file.write_all_at(&Seal { checksums, ..seal }.text(), start).or_kind(ErrorKind::Output)
}

/// Where a seal stands, in bytes from the start of the file.
type Place = std::ops::Range<u64>;

/// The container's seal and where it stands, where it has one.
///
/// # Errors
/// When the file cannot be read, or the object is damaged.
pub fn read(container: &Container) -> Result<Option<(Seal, Place)>> {
    let Some(descriptor) = container.named(DataType::GenericJson, SEAL_NAME.as_bytes()) else { return Ok(None) };
    let region = container.data(descriptor)?;
    let mut bytes = vec![0; region.len.min(SEAL_BYTES_MAX) as usize];
    region.read_at(&mut bytes, 0).or_kind(ErrorKind::SourceUnavailable)?;
    let damaged = |error| Error::new(ErrorKind::InvalidImage, format!("object {SEAL_NAME:?} is damaged: {error}"));
    let seal: Seal = serde_json::from_slice(&bytes).map_err(damaged)?;
    let start = region.offset - container.file().offset;
    Ok(Some((seal, start..start + region.len)))
}

/// The end of what was written at first, in bytes from the start of the file: whatever lies behind it was added later.
/// `None` where no seal says so, or the partition is not where it was.
pub(super) fn written_end(container: &Container) -> Option<u64> {
    let (_, place) = read(container).ok().flatten()?;
    let (_, partition) = head::partition(container, &place)?;
    partition.extent().map(|(_, end)| end)
}
