use std::fmt;

use super::kind::{DataType, EXTRA_BYTES, Extra, PartitionKind};
use super::record::{bytes, i32_at, i64_at, put, trimmed, u32_at};

/// Size of a descriptor, in bytes.
pub const DESCRIPTOR_BYTES: usize = 585;
/// The group that Apptainer puts a container's objects into; signatures are over a group.
pub const DEFAULT_GROUP: u32 = 1;
/// Marks a number as a group's. A group field always carries it; alone it means "no group".
pub(super) const GROUP_MARK: u32 = 0xf000_0000;
/// Space for a name, in bytes; a name may fill it.
pub(super) const NAME_BYTES: usize = 128;

/// Offsets of a descriptor's fields from its start, in bytes.
pub(super) mod at {
    pub(in super::super) const DATA_TYPE: usize = 0;
    pub(in super::super) const USED: usize = 4;
    pub(in super::super) const ID: usize = 5;
    pub(in super::super) const GROUP: usize = 9;
    pub(in super::super) const LINK: usize = 13;
    pub(in super::super) const OFFSET: usize = 17;
    pub(in super::super) const SIZE: usize = 25;
    pub(in super::super) const SIZE_WITH_PADDING: usize = 33;
    pub(in super::super) const CREATED: usize = 41;
    pub(in super::super) const MODIFIED: usize = 49;
    pub(in super::super) const UID: usize = 57;
    pub(in super::super) const GID: usize = 65;
    pub(in super::super) const NAME: usize = 73;
    pub(in super::super) const EXTRA: usize = 201;
}

/// One slot of the descriptor table as it stands in a file (§3.2 of the format notes); nothing is lost in reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the object is.
    pub data_type: DataType,
    /// 1 for a slot in use, 0 for a free one; readers take anything but 0 for 1.
    pub used: u8,
    /// The object's number: that of its slot, counted from 1.
    pub id: u32,
    /// The group field; see [`Descriptor::group`].
    pub group_field: u32,
    /// The link field; see [`Descriptor::link`].
    pub link_field: u32,
    /// Where the object begins, in bytes from the start of the file.
    pub offset: i64,
    /// Its size in bytes.
    pub size: i64,
    /// Its size and that of the padding in front of it, in bytes.
    pub size_with_padding: i64,
    /// When it was added, in seconds since the Unix epoch.
    pub created_seconds: i64,
    /// When it was changed, in seconds since the Unix epoch.
    pub modified_seconds: i64,
    /// Owner; 0 since Apptainer 1.0.
    pub uid: i64,
    /// Group of the owner; 0 since Apptainer 1.0.
    pub gid: i64,
    /// The name, padded with NULs; see [`Descriptor::name`].
    pub name_field: [u8; NAME_BYTES],
    /// The extra area; see [`Descriptor::extra`].
    pub extra_area: [u8; EXTRA_BYTES],
}

/// What an object refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Nothing.
    None,
    /// The object with this number.
    Object(u32),
    /// All objects of this group.
    Group(u32),
}

/// As siftool's list shows it.
impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::None => f.write_str("NONE"),
            Link::Object(id) => write!(f, "{id}"),
            Link::Group(group) => write!(f, "{group} (G)"),
        }
    }
}

impl Descriptor {
    /// Whether the slot describes an object.
    pub fn is_used(&self) -> bool {
        self.used != 0
    }

    /// The group the object belongs to, if any. Bits of the mark are not part of the number.
    pub fn group(&self) -> Option<u32> {
        let group = self.group_field & !GROUP_MARK;
        (group != 0).then_some(group)
    }

    /// What the object refers to.
    pub fn link(&self) -> Link {
        match self.link_field {
            0 => Link::None,
            link if link & GROUP_MARK == GROUP_MARK => Link::Group(link & !GROUP_MARK),
            link => Link::Object(link),
        }
    }

    /// The name; often empty.
    pub fn name(&self) -> &[u8] {
        trimmed(&self.name_field)
    }

    /// What the extra area says.
    pub fn extra(&self) -> Extra {
        Extra::parse(self.data_type, &self.extra_area)
    }

    /// Whether this is the root file system that is run.
    pub fn is_primary(&self) -> bool {
        self.is_used() && matches!(self.extra(), Extra::Partition { kind: PartitionKind::PrimarySystem, .. })
    }

    /// First byte of the object and first byte behind it; `None` where that is not a stretch of any file.
    pub(super) fn extent(&self) -> Option<(u64, u64)> {
        let start = u64::try_from(self.offset).ok()?;
        let end = start.checked_add(u64::try_from(self.size).ok()?)?;
        i64::try_from(end).is_ok().then_some((start, end))
    }

    /// Reads a descriptor.
    pub(super) fn parse(record: &[u8; DESCRIPTOR_BYTES]) -> Self {
        Descriptor {
            data_type: DataType::from_code(i32_at(record, at::DATA_TYPE)),
            used: record[at::USED],
            id: u32_at(record, at::ID),
            group_field: u32_at(record, at::GROUP),
            link_field: u32_at(record, at::LINK),
            offset: i64_at(record, at::OFFSET),
            size: i64_at(record, at::SIZE),
            size_with_padding: i64_at(record, at::SIZE_WITH_PADDING),
            created_seconds: i64_at(record, at::CREATED),
            modified_seconds: i64_at(record, at::MODIFIED),
            uid: i64_at(record, at::UID),
            gid: i64_at(record, at::GID),
            name_field: bytes(record, at::NAME),
            extra_area: bytes(record, at::EXTRA),
        }
    }

    /// The descriptor as it is written.
    pub(super) fn to_bytes(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut record = [0; DESCRIPTOR_BYTES];
        put(&mut record, at::DATA_TYPE, &self.data_type.code().to_le_bytes());
        put(&mut record, at::USED, &[self.used]);
        put(&mut record, at::ID, &self.id.to_le_bytes());
        put(&mut record, at::GROUP, &self.group_field.to_le_bytes());
        put(&mut record, at::LINK, &self.link_field.to_le_bytes());
        for (offset, number) in [
            (at::OFFSET, self.offset),
            (at::SIZE, self.size),
            (at::SIZE_WITH_PADDING, self.size_with_padding),
            (at::CREATED, self.created_seconds),
            (at::MODIFIED, self.modified_seconds),
            (at::UID, self.uid),
            (at::GID, self.gid),
        ] {
            put(&mut record, offset, &number.to_le_bytes());
        }
        put(&mut record, at::NAME, &self.name_field);
        put(&mut record, at::EXTRA, &self.extra_area);
        record
    }
}

/// Type and extra as siftool's list shows them: `FS (Squashfs/*System/amd64)`.
impl fmt::Display for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.data_type)?;
        match self.extra() {
            Extra::None => Ok(()),
            extra => write!(f, " ({extra})"),
        }
    }
}
