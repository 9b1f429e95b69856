//! Where the objects lie, and what is between them.

use crate::error::Result;
use crate::sif::descriptor::{DESCRIPTOR_BYTES, Descriptor, at};
use crate::sif::finding::Finding;
use crate::sif::header::{self, HEADER_BYTES};
use crate::sif::kind::DataType;
use crate::sif::reader::{Container, read};

/// Most padding that is read to see whether it is zero, in bytes: more than any alignment in use asks for.
const PADDING_BYTES_MAX: u64 = 64 << 10;
/// The code of findings about objects that share bytes with what is before them.
pub(super) const OVERLAP: &str = "overlap";
/// What loop devices count in, in bytes.
const SECTOR_BYTES: i64 = 512;

pub(super) fn check(container: &Container, findings: &mut Vec<Finding>) -> Result<()> {
    let header = container.header();
    let table_start = u64::try_from(header.descriptors_offset).unwrap_or(0);
    let table_end = container.slots().last().map_or(table_start, |(offset, _)| offset + DESCRIPTOR_BYTES as u64);
    check_zero(container, HEADER_BYTES as u64, table_start, "reserved-bytes", findings)?;
    let data_start = match u64::try_from(header.data_offset).ok().filter(|&start| start >= table_end) {
        Some(data_start) => data_start,
        None => {
            let message = format!("data is said to begin at {}, the table ends at {table_end}", header.data_offset);
            findings.push(Finding::error(header::at::DATA_OFFSET as u64, "data-offset", message));
            table_end
        }
    };
    check_zero(container, table_end, data_start.min(container.file().len), "reserved-bytes", findings)?;
    let end = check_objects(container, data_start, findings)?;
    check_end(container, end, findings);
    Ok(())
}

/// Looks at the objects in the order of their places; returns where the last one ends.
fn check_objects(container: &Container, data_start: u64, findings: &mut Vec<Finding>) -> Result<u64> {
    let mut placed = Vec::new();
    for (offset, descriptor) in container.slots().filter(|(_, descriptor)| descriptor.is_used()) {
        match descriptor.extent() {
            Some((start, end)) if end <= container.file().len => placed.push((start, end, offset, descriptor)),
            _ => {
                let Descriptor { id, offset: start, size, .. } = descriptor;
                let message = format!(
                    "object {id} ({descriptor}) is said to take {size} bytes from byte {start} on, the file has {}",
                    container.file().len
                );
                findings.push(Finding::error(offset + at::OFFSET as u64, "outside", message));
            }
        }
        check_sectors(descriptor, offset, findings);
    }
    placed.sort_by_key(|&(start, end, offset, _)| (start, end, offset));
    let mut previous_end = data_start;
    for (start, end, offset, descriptor) in placed {
        check_distance(container, previous_end, start, offset, descriptor, findings)?;
        previous_end = previous_end.max(end);
    }
    Ok(previous_end)
}

/// The stretch between the end of what comes before, `previous_end`, and an object's `start`.
fn check_distance(
    container: &Container,
    previous_end: u64,
    start: u64,
    offset: u64,
    descriptor: &Descriptor,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let id = descriptor.id;
    let Some(distance) = start.checked_sub(previous_end) else {
        let message = format!("object {id} ({descriptor}) begins at {start}, what is before it ends at {previous_end}");
        findings.push(Finding::error(offset + at::OFFSET as u64, OVERLAP, message));
        return Ok(());
    };
    let padding = descriptor.size_with_padding.checked_sub(descriptor.size).and_then(|it| u64::try_from(it).ok());
    match padding {
        Some(padding) if padding == distance => check_zero(container, previous_end, start, "padding", findings),
        Some(padding) if padding < distance => {
            let message = format!("{} bytes before object {id} belong to nothing", distance - padding);
            findings.push(Finding::notice(offset + at::OFFSET as u64, "gap", message));
            Ok(())
        }
        _ => {
            let Descriptor { size, size_with_padding, .. } = descriptor;
            let message = format!(
                "object {id} takes {size} bytes and is said to take {size_with_padding} with the padding in front of \
                 it, where there is room for {distance}"
            );
            findings.push(Finding::error(offset + at::SIZE_WITH_PADDING as u64, "size-with-padding", message));
            Ok(())
        }
    }
}

fn check_sectors(descriptor: &Descriptor, offset: u64, findings: &mut Vec<Finding>) {
    if descriptor.data_type != DataType::Partition {
        return;
    }
    for (at, what, number) in [(at::OFFSET, "offset", descriptor.offset), (at::SIZE, "size", descriptor.size)] {
        if number % SECTOR_BYTES != 0 {
            let message = format!(
                "the {what} of partition {}, {number}, is not a multiple of {SECTOR_BYTES}: the kernel cannot mount it",
                descriptor.id
            );
            let finding = if descriptor.is_primary() { Finding::error } else { Finding::notice };
            findings.push(finding(offset + at as u64, "sectors", message));
        }
    }
}

fn check_end(container: &Container, end: u64, findings: &mut Vec<Finding>) {
    let header = container.header();
    let stated = header.data_offset.checked_add(header.data_size).and_then(|it| u64::try_from(it).ok());
    if stated != Some(end) {
        let (offset, size) = (header.data_offset, header.data_size);
        let message = format!("data is said to take {size} bytes from byte {offset} on, the last object ends at {end}");
        // `sif del` takes away a descriptor and leaves the bytes where they are.
        let is_room = stated.is_some_and(|stated| (end..=container.file().len).contains(&stated));
        let finding = if is_room { Finding::notice } else { Finding::error };
        findings.push(finding(header::at::DATA_SIZE as u64, "data-size", message));
    }
    let left = container.file().len.saturating_sub(end);
    if left > 0 {
        let message = format!("{left} bytes follow the last object");
        findings.push(Finding::notice(end, "trailing-bytes", message));
    }
}

/// Says so where a byte from `start` to `end` is not zero. Of a stretch too long to be padding only the first part is read.
fn check_zero(
    container: &Container,
    start: u64,
    end: u64,
    code: &'static str,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let wanted = end.saturating_sub(start).min(PADDING_BYTES_MAX);
    let mut bytes = vec![0; wanted as usize];
    read(container.file(), &mut bytes, start)?;
    if let Some(first) = bytes.iter().position(|&byte| byte != 0) {
        let message = format!("the bytes from {start} to {end} belong to nothing and should be zero");
        findings.push(Finding::padding(start + first as u64, code, message));
    }
    Ok(())
}
