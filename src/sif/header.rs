use super::architecture::Architecture;
use super::finding::Finding;
use super::record::{bytes, i64_at, put, trimmed};

/// Size of the global header, in bytes.
pub const HEADER_BYTES: usize = 128;
/// What Apptainer puts at the start of a file, so that the kernel can run it as a script.
pub const LAUNCH_SCRIPT: &[u8] = b"#!/usr/bin/env run-singularity\n";
/// Space for the launch script, in bytes; one of them is its NUL.
pub(super) const LAUNCH_BYTES: usize = 32;
const MAGIC: [u8; 10] = *b"SIF_MAGIC\0";
/// The one version there is; loaders demand exactly this.
const VERSION: [u8; 3] = *b"01\0";

/// Offsets of the header's fields from the start of the file, in bytes.
pub(super) mod at {
    pub(in super::super) const LAUNCH: usize = 0;
    pub(in super::super) const MAGIC: usize = 32;
    pub(in super::super) const VERSION: usize = 42;
    pub(in super::super) const ARCHITECTURE: usize = 45;
    pub(in super::super) const UUID: usize = 48;
    pub(in super::super) const CREATED: usize = 64;
    pub(in super::super) const MODIFIED: usize = 72;
    pub(in super::super) const DESCRIPTORS_FREE: usize = 80;
    pub(in super::super) const DESCRIPTORS_TOTAL: usize = 88;
    pub(in super::super) const DESCRIPTORS_OFFSET: usize = 96;
    pub(in super::super) const DESCRIPTORS_SIZE: usize = 104;
    pub(in super::super) const DATA_OFFSET: usize = 112;
    pub(in super::super) const DATA_SIZE: usize = 120;
}

/// The global header as it stands in a file (§3.1 of the format notes). Numbers are signed in the format and unchecked
/// here; [`super::Container`] and [`super::verify`] check them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Launch script, padded with NULs.
    pub launch_script: [u8; LAUNCH_BYTES],
    /// Architecture of the primary system partition.
    pub architecture: Architecture,
    /// UUID in the byte order of RFC 4122; all zero where there is none.
    pub uuid: [u8; 16],
    /// When the file was made, in seconds since the Unix epoch.
    pub created_seconds: i64,
    /// When an object was last added or removed, in seconds since the Unix epoch.
    pub modified_seconds: i64,
    /// Descriptor slots not in use.
    pub descriptors_free: i64,
    /// Descriptor slots.
    pub descriptors_total: i64,
    /// Where the descriptor table begins, in bytes.
    pub descriptors_offset: i64,
    /// Size of the descriptor table, in bytes.
    pub descriptors_size: i64,
    /// Where objects may begin, in bytes.
    pub data_offset: i64,
    /// From there to the end of the last object, in bytes.
    pub data_size: i64,
}

impl Header {
    /// The launch script without its padding.
    pub fn launch_script(&self) -> &[u8] {
        trimmed(&self.launch_script)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// A finding when magic or version are others: nothing else in it means anything then.
    pub(super) fn parse(record: &[u8; HEADER_BYTES]) -> Result<Self, Finding> {
        let magic: [u8; 10] = bytes(record, at::MAGIC);
        if magic != MAGIC {
            return Err(Finding::error(at::MAGIC as u64, "magic", "this is not a SIF file: SIF_MAGIC is missing"));
        }
        let version: [u8; 3] = bytes(record, at::VERSION);
        if version != VERSION {
            let found = version.escape_ascii();
            let message = format!("version \"{found}\" of the SIF format is not supported, only 01 is");
            return Err(Finding::error(at::VERSION as u64, "version", message));
        }
        Ok(Header {
            launch_script: bytes(record, at::LAUNCH),
            architecture: Architecture::from_code(bytes(record, at::ARCHITECTURE)),
            uuid: bytes(record, at::UUID),
            created_seconds: i64_at(record, at::CREATED),
            modified_seconds: i64_at(record, at::MODIFIED),
            descriptors_free: i64_at(record, at::DESCRIPTORS_FREE),
            descriptors_total: i64_at(record, at::DESCRIPTORS_TOTAL),
            descriptors_offset: i64_at(record, at::DESCRIPTORS_OFFSET),
            descriptors_size: i64_at(record, at::DESCRIPTORS_SIZE),
            data_offset: i64_at(record, at::DATA_OFFSET),
            data_size: i64_at(record, at::DATA_SIZE),
        })
    }

    /// The header as it is written.
    pub(super) fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut record = [0; HEADER_BYTES];
        put(&mut record, at::LAUNCH, &self.launch_script);
        put(&mut record, at::MAGIC, &MAGIC);
        put(&mut record, at::VERSION, &VERSION);
        put(&mut record, at::ARCHITECTURE, &self.architecture.code());
        put(&mut record, at::UUID, &self.uuid);
        for (offset, number) in [
            (at::CREATED, self.created_seconds),
            (at::MODIFIED, self.modified_seconds),
            (at::DESCRIPTORS_FREE, self.descriptors_free),
            (at::DESCRIPTORS_TOTAL, self.descriptors_total),
            (at::DESCRIPTORS_OFFSET, self.descriptors_offset),
            (at::DESCRIPTORS_SIZE, self.descriptors_size),
            (at::DATA_OFFSET, self.data_offset),
            (at::DATA_SIZE, self.data_size),
        ] {
            put(&mut record, offset, &number.to_le_bytes());
        }
        record
    }
}
