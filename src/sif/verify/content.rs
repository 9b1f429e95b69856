//! What can be told about the bytes of objects without knowing what they mean.

use crate::error::{ErrorKind, IoResultExt as _, Result};
use crate::io::{CHUNK_BYTES, HashingReader, Region};
use crate::model::Digest;
use crate::sif::descriptor::Descriptor;
use crate::sif::finding::Finding;
use crate::sif::kind::{DataType, Extra, FileSystem};
use crate::sif::reader::{Container, read};

/// Largest text or JSON object that is read, in bytes; Apptainer's are a few KiB.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// JSON objects that runtimes read, by name.
const READ_BY_RUNTIMES: [&[u8]; 2] = [b"inspect-metadata.json", b"oci-config.json"];
/// First bytes of a squashfs.
const SQUASHFS_MAGIC: &[u8] = b"hsqs";
/// First bytes of a LUKS container.
const LUKS_MAGIC: &[u8] = b"LUKS\xba\xbe";
/// Magic of ext2 to ext4, and where in the partition it is.
const EXT_MAGIC: (&[u8], u64) = (b"\x53\xef", 1080);

pub(super) fn check(container: &Container, findings: &mut Vec<Finding>) -> Result<()> {
    for descriptor in container.descriptors() {
        // An object that is not in the file has been reported already.
        let Ok(data) = container.data(descriptor) else { continue };
        match (descriptor.data_type, descriptor.extra()) {
            (DataType::Partition, Extra::Partition { file_system, .. }) => {
                check_file_system(descriptor, file_system, &data, findings)?;
            }
            (DataType::Definition, _) => check_text(descriptor, &data, findings)?,
            (DataType::GenericJson | DataType::Labels, _) => check_json(descriptor, &data, findings)?,
            (_, Extra::Digest(text)) => {
                check_digest(descriptor, &text, &data, findings)?;
                if descriptor.data_type == DataType::OciRootIndex {
                    check_json(descriptor, &data, findings)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_file_system(
    descriptor: &Descriptor,
    file_system: FileSystem,
    data: &Region,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let starts = |(magic, at): (&[u8], u64)| -> Result<bool> {
        let mut found = vec![0; magic.len().min(data.len.saturating_sub(at) as usize)];
        read(data, &mut found, at)?;
        Ok(found == magic)
    };
    let squashfs = (SQUASHFS_MAGIC, 0);
    let (is_such, at) = match file_system {
        FileSystem::Squashfs | FileSystem::GocryptfsSquashfs => (starts(squashfs)?, 0),
        FileSystem::EncryptedSquashfs => (starts((LUKS_MAGIC, 0))?, 0),
        FileSystem::Ext3 => (starts(EXT_MAGIC)?, EXT_MAGIC.1),
        // Nothing tells these but what they are not: a squashfs that is called so would not be looked into.
        FileSystem::ImmutableObjects | FileSystem::Raw | FileSystem::Unknown(_) => (!starts(squashfs)?, 0),
    };
    if !is_such {
        let message = format!("partition {} ({descriptor}) does not hold such a file system", descriptor.id);
        let finding = if descriptor.is_primary() { Finding::error } else { Finding::notice };
        findings.push(finding(data.offset + at, "file-system", message));
    }
    Ok(())
}

fn check_text(descriptor: &Descriptor, data: &Region, findings: &mut Vec<Finding>) -> Result<()> {
    let Some(bytes) = load(descriptor, data, findings)? else { return Ok(()) };
    if let Err(error) = std::str::from_utf8(&bytes) {
        let message = format!("object {} ({descriptor}) is not UTF-8", descriptor.id);
        findings.push(Finding::notice(data.offset + error.valid_up_to() as u64, "text", message));
    }
    Ok(())
}

fn check_json(descriptor: &Descriptor, data: &Region, findings: &mut Vec<Finding>) -> Result<()> {
    let Some(bytes) = load(descriptor, data, findings)? else { return Ok(()) };
    if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes) {
        let message = format!("object {} ({descriptor}) is not JSON: {error}", descriptor.id);
        // What others add under names of their own is theirs.
        let is_read = descriptor.data_type != DataType::GenericJson || READ_BY_RUNTIMES.contains(&descriptor.name());
        let finding = if is_read { Finding::error } else { Finding::notice };
        findings.push(finding(data.offset, "json", message));
    }
    Ok(())
}

fn check_digest(descriptor: &Descriptor, text: &[u8], data: &Region, findings: &mut Vec<Finding>) -> Result<()> {
    // A text that is not a digest has been reported already.
    let Some(expected) = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Digest>().ok()) else {
        return Ok(());
    };
    let mut reader = std::io::BufReader::with_capacity(CHUNK_BYTES, HashingReader::new(data.reader()));
    std::io::copy(&mut reader, &mut std::io::sink()).or_kind(ErrorKind::SourceUnavailable)?;
    let (digest, _) = reader.into_inner().finish();
    if digest != expected {
        let message = format!("object {} is said to hash to {expected}, it hashes to {digest}", descriptor.id);
        findings.push(Finding::error(data.offset, "digest", message));
    }
    Ok(())
}

/// The object's bytes, or a notice that it is too large to look into.
fn load(descriptor: &Descriptor, data: &Region, findings: &mut Vec<Finding>) -> Result<Option<Vec<u8>>> {
    if data.len > TEXT_BYTES_MAX {
        let message = format!("object {} ({descriptor}) has {} bytes: not looked into", descriptor.id, data.len);
        findings.push(Finding::notice(data.offset, "not-checked", message));
        return Ok(None);
    }
    let mut bytes = vec![0; data.len as usize];
    read(data, &mut bytes, 0)?;
    Ok(Some(bytes))
}
