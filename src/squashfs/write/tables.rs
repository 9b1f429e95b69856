//! The small tables that inodes point into: user and group ids, extended attributes.

use std::collections::BTreeMap;

use super::Store;
use super::metadata::{MetadataWriter, append_indexed};
use super::output::Output;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::model::{Quoted, Xattrs};
use crate::squashfs::format::{Compression, NO_TABLE, NONE, XATTR_PREFIXES, split_xattr_name};

/// User and group ids, in the order of their first use; inodes hold positions in this list.
#[derive(Default)]
pub(super) struct Ids {
    positions: BTreeMap<u32, u16>,
    ids: Vec<u32>,
}

/// The superblock counts ids in 16 bits.
const IDS_MAX: usize = u16::MAX as usize;

impl Ids {
    pub(super) fn position(&mut self, id: u32) -> Result<u16> {
        if let Some(&position) = self.positions.get(&id) {
            return Ok(position);
        }
        if self.ids.len() == IDS_MAX {
            let message = format!("more than {IDS_MAX} different user and group ids, the first too many is {id}");
            return Err(Error::new(ErrorKind::Unsupported, message).with_remedy(Remedy::AllRoot));
        }
        let position = self.ids.len() as u16;
        self.ids.push(id);
        self.positions.insert(id, position);
        Ok(position)
    }

    pub(super) fn count(&self) -> u16 {
        self.ids.len() as u16
    }

    pub(super) fn append_to<S: Store>(&self, output: &mut Output<S>, compression: Compression) -> Result<u64> {
        let bytes: Vec<u8> = self.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        append_indexed(output, compression, &bytes, &[])
    }
}

/// Sets of extended attributes; files with the same set share it.
#[derive(Default)]
pub(super) struct XattrSets {
    numbers: BTreeMap<Vec<u8>, u32>,
    sets: Vec<XattrSet>,
}

struct XattrSet {
    encoded: Vec<u8>,
    count: u32,
    /// What listing names and reading values takes, as the format's index wants it.
    size: u32,
}

impl XattrSets {
    /// The number of this set, for the inode.
    pub(super) fn number(&mut self, xattrs: &Xattrs) -> Result<u32> {
        if xattrs.is_empty() {
            return Ok(NONE);
        }
        let set = XattrSet::encode(xattrs)?;
        if let Some(&number) = self.numbers.get(&set.encoded) {
            return Ok(number);
        }
        let number = self.sets.len() as u32;
        self.numbers.insert(set.encoded.clone(), number);
        self.sets.push(set);
        Ok(number)
    }

    /// Writes all sets; returns what the superblock says of them.
    pub(super) fn append_to<S: Store>(&self, output: &mut Output<S>, compression: Compression) -> Result<u64> {
        if self.sets.is_empty() {
            return Ok(NO_TABLE);
        }
        let start = output.position();
        let mut pairs = MetadataWriter::new(compression)?;
        let mut index = Vec::new();
        for set in &self.sets {
            index.extend(pairs.place().reference().to_le_bytes());
            index.extend(set.count.to_le_bytes());
            index.extend(set.size.to_le_bytes());
            pairs.write(&set.encoded)?;
        }
        pairs.finish(output)?;
        let mut header = start.to_le_bytes().to_vec();
        header.extend((self.sets.len() as u32).to_le_bytes());
        header.extend(0u32.to_le_bytes());
        append_indexed(output, compression, &index, &header)
    }
}

impl XattrSet {
    fn encode(xattrs: &Xattrs) -> Result<Self> {
        let mut set = XattrSet { encoded: Vec::new(), count: 0, size: 0 };
        for (name, value) in xattrs {
            let (prefix, rest) = split_xattr_name(name).ok_or_else(|| {
                let prefixes = XATTR_PREFIXES.map(|prefix| Quoted(prefix).to_string()).join(", ");
                unstorable(name, format!("its name must start with one of {prefixes}"))
            })?;
            let too_long = |_| unstorable(name, "it is too long");
            let name_length = u16::try_from(rest.len()).map_err(too_long)?;
            let value_length = u32::try_from(value.len()).map_err(too_long)?;
            set.encoded.extend(prefix.to_le_bytes());
            set.encoded.extend(name_length.to_le_bytes());
            set.encoded.extend_from_slice(rest);
            set.encoded.extend(value_length.to_le_bytes());
            set.encoded.extend_from_slice(value);
            set.count += 1;
            set.size = u32::try_from(name.len() + 1 + value.len())
                .ok()
                .and_then(|bytes| set.size.checked_add(bytes))
                .ok_or_else(|| unstorable(name, "the file's attributes are too long together"))?;
        }
        Ok(set)
    }
}

fn unstorable(name: &[u8], why: impl std::fmt::Display) -> Error {
    let message = format!("squashfs cannot hold the extended attribute {}: {why}", Quoted(name));
    Error::new(ErrorKind::Unsupported, message)
}
