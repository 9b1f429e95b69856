use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::descriptor::{Descriptor, GROUP_MARK, Link};
use super::header::Header;
use super::kind::{DataType, EXTRA_BYTES};
use super::reader::Container;
use super::record::padded;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};

/// An object that is added to a container that is complete.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewObject {
    /// What it is.
    pub data_type: DataType,
    /// The group it becomes a member of.
    pub group: Option<u32>,
    /// What it refers to.
    pub link: Link,
    /// What its type has to say of it; see [`super::Extra`].
    pub extra_area: [u8; EXTRA_BYTES],
    /// When it was made, in seconds since the Unix epoch.
    pub time_seconds: i64,
    /// Its contents.
    pub bytes: Vec<u8>,
}

impl NewObject {
    /// An object of the first group, of a type that has nothing else to say: a definition, labels, JSON or any data.
    pub fn new(data_type: DataType, time_seconds: i64, bytes: Vec<u8>) -> Self {
        NewObject { data_type, group: Some(1), link: Link::None, extra_area: [0; EXTRA_BYTES], time_seconds, bytes }
    }

    /// A signature of the group `group`, over SHA-256, whose signer its own bytes name.
    pub fn signature(group: u32, time_seconds: i64, bytes: Vec<u8>) -> Self {
        let mut extra_area = [0; EXTRA_BYTES];
        extra_area[..4].copy_from_slice(&super::Hash::Sha256.code().to_le_bytes());
        let link = Link::Group(group);
        NewObject { data_type: DataType::Signature, group: None, link, extra_area, time_seconds, bytes }
    }
}

/// Adds `objects` behind the last one of `container`, which `file` holds, and returns how long the file is now, in bytes. The
/// file is not whole in between: it should not have its name yet.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when there are not enough free slots, [`ErrorKind::Output`] when writing fails.
pub fn append(container: &Container, file: &File, objects: &[NewObject]) -> Result<u64> {
    let used: Vec<&Descriptor> = container.descriptors().collect();
    let mut free = container.slots().enumerate().filter(|(_, (_, slot))| !slot.is_used());
    let ends = used.iter().filter_map(|it| it.extent().map(|(_, end)| end));
    let mut end = ends.max().unwrap_or(0).max(container.header().data_offset.unsigned_abs());
    for object in objects {
        let Some((slot, (offset, _))) = free.next() else {
            let message =
                format!("all {} descriptor slots of the SIF file are in use", container.header().descriptors_total);
            return Err(Error::new(ErrorKind::Unsupported, message)
                .hint("remove an object first, for example with: apptainer sif del ID FILE"));
        };
        let descriptor = describe(object, slot, end)?;
        file.write_all_at(&object.bytes, end).or_kind(ErrorKind::Output)?;
        file.write_all_at(&descriptor.to_bytes(), offset).or_kind(ErrorKind::Output)?;
        end += object.bytes.len() as u64;
    }
    let old = container.header();
    let header = Header {
        modified_seconds: objects.iter().map(|it| it.time_seconds).fold(old.modified_seconds, i64::max),
        descriptors_free: old.descriptors_free - objects.len() as i64,
        data_size: signed(end)? - old.data_offset,
        ..old.clone()
    };
    file.write_all_at(&header.to_bytes(), 0).or_kind(ErrorKind::Output)?;
    file.set_len(end).or_kind(ErrorKind::Output)?;
    Ok(end)
}

fn describe(object: &NewObject, slot: usize, offset: u64) -> Result<Descriptor> {
    let size = signed(object.bytes.len() as u64)?;
    Ok(Descriptor {
        data_type: object.data_type,
        used: 1,
        id: u32::try_from(slot + 1).map_err(|_| too_large())?,
        group_field: object.group.unwrap_or(0) | GROUP_MARK,
        link_field: match object.link {
            Link::None => 0,
            Link::Object(id) => id,
            Link::Group(group) => group | GROUP_MARK,
        },
        offset: signed(offset)?,
        size,
        size_with_padding: size,
        created_seconds: object.time_seconds,
        modified_seconds: object.time_seconds,
        uid: 0,
        gid: 0,
        name_field: padded(b"").ok_or_else(too_large)?,
        extra_area: object.extra_area,
    })
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::new(ErrorKind::Unsupported, "a SIF file cannot be larger than 2^63 bytes")
}
