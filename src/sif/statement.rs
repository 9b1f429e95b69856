use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::descriptor::{Descriptor, at};
use super::header;
use super::kind::DataType;
use super::reader::Container;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::hash_region;
use crate::model::Digest;

/// The only version there is.
const VERSION: u32 = 1;
/// Most objects that a statement is read of.
const OBJECTS_MAX: usize = 4096;

/// What a signature of a container is over: digests of the header and of each object of a group, with its descriptor. What
/// others may change without harm is not covered: times of change, offsets, free slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    version: u32,
    header: HeaderDigest,
    objects: Vec<ObjectDigests>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HeaderDigest {
    digest: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectDigests {
    /// From the lowest ID of the group.
    relative_id: u32,
    descriptor_digest: String,
    object_digest: String,
}

impl Statement {
    /// Computes the digests of the group `group`. `each` is told how many bytes were read, to count them and to stop.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when there is no such group or an object does not lie in the file,
    /// [`ErrorKind::SourceUnavailable`] when the file cannot be read, and those of `each`.
    pub fn of(container: &Container, group: u32, mut each: impl FnMut(u64) -> Result<()>) -> Result<Self> {
        let mut members: Vec<&Descriptor> = members(container, group).collect();
        members.sort_by_key(|it| it.id);
        let Some(lowest) = members.first().map(|it| it.id) else {
            let message = format!("there is no object of group {group} to sign");
            return Err(Error::new(ErrorKind::InvalidImage, message));
        };
        let mut objects = Vec::with_capacity(members.len());
        for member in members {
            let relative_id = member.id - lowest;
            let data = container.data(member)?;
            let fail = |error| Error::io(ErrorKind::SourceUnavailable, error);
            let (digest, _) = hash_region(&data, fail, &mut each).doing(|| format!("hashing object {}", member.id))?;
            let descriptor_digest = Digest::of(&protected(member, relative_id)).to_string();
            objects.push(ObjectDigests { relative_id, descriptor_digest, object_digest: digest.to_string() });
        }
        let header = HeaderDigest { digest: Digest::of(&protected_header(container)).to_string() };
        Ok(Statement { version: VERSION, header, objects })
    }

    /// Reads what was signed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is not a statement, [`ErrorKind::Unsupported`] when it is of another version.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let malformed = |what: String| {
            Error::new(ErrorKind::InvalidImage, format!("what was signed is not a list of digests: {what}"))
        };
        let statement: Statement = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if statement.version != VERSION {
            let message =
                format!("version {} of what is signed in a SIF is not supported, only 1 is", statement.version);
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut ids: Vec<u32> = statement.objects.iter().map(|it| it.relative_id).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != statement.objects.len() || ids.is_empty() || ids.len() > OBJECTS_MAX {
            return Err(malformed(format!("{} objects", statement.objects.len())));
        }
        Ok(statement)
    }

    /// The statement as it is signed: compact JSON, in the order of Go's encoder.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when it cannot be written.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::new(ErrorKind::Bug, error))
    }

    /// Compares what was signed with `found`, the statement that the container gives now. It may be about a part of the
    /// group. The relative IDs that it covers.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`], naming the first thing that differs.
    pub fn expect(&self, found: &Statement) -> Result<Vec<u32>> {
        let differs = |what: String| Err(Error::new(ErrorKind::Mismatch, what));
        if self.header != found.header {
            return differs("the header is not what was signed".to_string());
        }
        let present: BTreeMap<u32, &ObjectDigests> = found.objects.iter().map(|it| (it.relative_id, it)).collect();
        for signed in &self.objects {
            let id = signed.relative_id;
            match present.get(&id) {
                None => {
                    return differs(format!("an object that was signed, number {} of its group, is missing", id + 1));
                }
                Some(object) if object.object_digest != signed.object_digest => {
                    return differs(format!("object {} of the group is not what was signed", id + 1));
                }
                Some(object) if object.descriptor_digest != signed.descriptor_digest => {
                    return differs(format!("the descriptor of object {} of the group is not what was signed", id + 1));
                }
                Some(_) => {}
            }
        }
        Ok(self.objects.iter().map(|it| it.relative_id).collect())
    }

    /// The relative IDs of all objects in it.
    pub fn relative_ids(&self) -> impl Iterator<Item = u32> {
        self.objects.iter().map(|it| it.relative_id)
    }
}

/// The groups that have objects to sign, in order.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when an object is in no group: no signature would cover it.
pub fn groups(container: &Container) -> Result<Vec<u32>> {
    let mut groups = Vec::new();
    for descriptor in container.descriptors().filter(|it| it.data_type != DataType::Signature) {
        match descriptor.group() {
            Some(group) if !groups.contains(&group) => groups.push(group),
            Some(_) => {}
            None => {
                let message = format!("object {} ({descriptor}) is in no group: no signature covers it", descriptor.id);
                return Err(Error::new(ErrorKind::Unsupported, message)
                    .hint("remove it, or add it again to a group with: apptainer sif add --groupid 1"));
            }
        }
    }
    groups.sort_unstable();
    Ok(groups)
}

/// What can be signed of a group: signatures cannot.
fn members(container: &Container, group: u32) -> impl Iterator<Item = &Descriptor> {
    let is_member = move |it: &&Descriptor| it.group() == Some(group) && it.data_type != DataType::Signature;
    container.descriptors().filter(is_member)
}

/// The fields of a descriptor that are signed, in their order.
fn protected(descriptor: &Descriptor, relative_id: u32) -> Vec<u8> {
    let record = descriptor.to_bytes();
    let mut fields = record[at::DATA_TYPE..at::ID].to_vec();
    fields.extend(relative_id.to_le_bytes());
    fields.extend(&record[at::LINK..at::OFFSET]);
    fields.extend(&record[at::SIZE..at::SIZE_WITH_PADDING]);
    fields.extend(&record[at::CREATED..at::MODIFIED]);
    fields.extend(&record[at::UID..]);
    fields
}

/// The fields of the header that are signed, in their order.
fn protected_header(container: &Container) -> Vec<u8> {
    let record = container.header().to_bytes();
    let mut fields = record[header::at::LAUNCH..header::at::ARCHITECTURE].to_vec();
    fields.extend(&record[header::at::UUID..header::at::CREATED]);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement over no object, or one object twice, would be proof of something that nobody signed.
    #[test]
    fn each_object_is_signed_once_and_there_is_one() {
        let object =
            |relative_id| ObjectDigests { relative_id, descriptor_digest: String::new(), object_digest: String::new() };
        let parsed = |ids: &[u32]| {
            let objects = ids.iter().map(|&id| object(id)).collect();
            let statement = Statement { version: VERSION, header: HeaderDigest { digest: String::new() }, objects };
            Statement::parse(&statement.to_json().unwrap()).map_err(|error| error.kind())
        };
        assert_eq!(parsed(&[0, 1]).unwrap().relative_ids().collect::<Vec<_>>(), [0, 1]);
        for bad in [&[][..], &[0, 0], &[1, 0, 1], &(0..=OBJECTS_MAX as u32).collect::<Vec<_>>()] {
            assert_eq!(parsed(bad).unwrap_err(), ErrorKind::InvalidImage, "{} objects", bad.len());
        }
    }
}
