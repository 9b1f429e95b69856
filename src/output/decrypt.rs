//! An encrypted SIF as the one in the clear that it was, or would have been.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::sealed::Sealed;
use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::gocryptfs::Secret;
use crate::io::{Monitor, Output, Phase, Region, umask};
use crate::model::Note;
use crate::sif::{self, Container, Contents, DataType, Descriptor, Extra, FileSystem, HiddenObjects};
use crate::squashfs::{Input as _, Store as _};
use crate::volume::{EncryptedRoot, UnlockedRoot};

/// How much is decrypted at once, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Length of a squashfs's superblock, which is written last, in bytes.
const SUPERBLOCK_BYTES: usize = 96;
/// What the length of a partition is a multiple of, in bytes.
const SECTOR_BYTES: u64 = 512;
/// The most that is read of an object beside the partition, in bytes.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// Decrypts one SIF, with every choice made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decrypt {
    /// The encrypted SIF.
    pub source: PathBuf,
    /// What it is opened with.
    pub secret: Secret,
    /// The file to write.
    pub path: PathBuf,
    /// Whether a file of that name is replaced.
    pub replace: bool,
    /// Permissions of the file; 777 less the umask where absent.
    pub mode: Option<u32>,
}

/// What was decrypted.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Decrypted {
    /// Length of the output in bytes.
    pub size: u64,
    /// What the user should know.
    pub notes: Vec<Note>,
}

impl Decrypt {
    /// With the usual choices.
    pub fn new(source: impl Into<PathBuf>, secret: Secret, path: impl Into<PathBuf>) -> Self {
        Decrypt { source: source.into(), secret, path: path.into(), replace: false, mode: None }
    }

    /// Decrypts. A SIF of ours becomes what would have been written without encryption, byte for byte.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] for a wrong key; [`ErrorKind::InvalidImage`] for a damaged file; [`ErrorKind::Unsupported`]
    /// for one that is not encrypted, or otherwise; [`ErrorKind::Output`]. The output does not exist then.
    pub fn run(&self, monitor: &Monitor) -> Result<Decrypted> {
        let output = Output::create(&self.path, self.replace, self.mode.unwrap_or_else(|| 0o777 & !umask()))?;
        let doing = || format!("decrypting {:?}", self.source);
        let region = Region::open(&self.source).doing(doing)?;
        let decrypted = self.write(&Container::open(region).doing(doing)?, &output, monitor).doing(doing)?;
        output.publish()?;
        Ok(decrypted)
    }

    fn write(&self, container: &Container, output: &Output, monitor: &Monitor) -> Result<Decrypted> {
        let primary = encrypted_partition(container)?;
        let (root, hidden) = unlock(container, &self.secret)?;
        let mut notes = Vec::new();
        let contents = match hidden {
            Some(hidden) => ours(container, primary, hidden)?,
            None => others(container, primary, &mut notes)?,
        };
        notes.extend(left_out(container));
        monitor.begin(Phase::Write, root.length());
        let sealed = Sealed::begin(contents, output.file())?;
        let bytes = copy(&root, &mut sealed.store(), monitor)?;
        let size = sealed.finish(bytes)?;
        monitor.begin(Phase::Finish, 0);
        Ok(Decrypted { size, notes })
    }
}

/// The root, decrypted, and what is hidden beside it in a SIF of ours.
pub(super) fn unlock(container: &Container, secret: &Secret) -> Result<(UnlockedRoot, Option<HiddenObjects>)> {
    let primary = encrypted_partition(container)?;
    let passphrase = secret.passphrase(container.key_message(primary)?.as_deref())?;
    let root = EncryptedRoot::open(container.data(primary)?)?.unlock(&passphrase)?;
    let hidden = root.read(HiddenObjects::NAME)?.map(|bytes| HiddenObjects::parse(&bytes)).transpose()?;
    Ok((root, hidden))
}

fn encrypted_partition(container: &Container) -> Result<&Descriptor> {
    let unsupported = |message: &str, remedy| Err(Error::new(ErrorKind::Unsupported, message).with_remedy(remedy));
    let Some(primary) = container.primary() else {
        return Err(
            Error::new(ErrorKind::Unsupported, "the SIF has no root file system").hint("give the SIF of a container")
        );
    };
    match primary.extra() {
        Extra::Partition { file_system: FileSystem::GocryptfsSquashfs, .. } => Ok(primary),
        Extra::Partition { file_system: FileSystem::EncryptedSquashfs, .. } => unsupported(
            "the root file system is encrypted with LUKS2, by root, and only root can open it",
            Remedy::Sandbox,
        ),
        _ => Err(Error::new(ErrorKind::Usage, "the root file system is not encrypted").with_remedy(Remedy::NoKey)),
    }
}

/// Writes the squashfs in `root`, its superblock last. Returns its length in bytes.
fn copy(root: &UnlockedRoot, store: &mut super::sealed::PartitionStore, monitor: &Monitor) -> Result<u64> {
    let length = root.length();
    let read = |buffer: &mut [u8], position| {
        root.read_at(buffer, position).map_err(crate::io::read_error).doing(|| format!("at byte {position}"))
    };
    let mut write = |bytes: &[u8], position| store.write_at(bytes, position).or_kind(ErrorKind::Output);
    let mut start = [0; SUPERBLOCK_BYTES];
    read(&mut start, 0)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut position = SUPERBLOCK_BYTES as u64;
    while position < length {
        monitor.check()?;
        let chunk = &mut buffer[..(length - position).min(CHUNK_BYTES as u64) as usize];
        read(chunk, position)?;
        write(chunk, position)?;
        monitor.advance(chunk.len() as u64);
        position += chunk.len() as u64;
    }
    let padded = length.next_multiple_of(SECTOR_BYTES);
    if padded > length {
        write(&vec![0; (padded - length) as usize], length)?;
    }
    write(&start, 0)?;
    store.finish().or_kind(ErrorKind::Output)?;
    Ok(padded)
}

/// What both kinds have.
fn contents(container: &Container, primary: &Descriptor) -> Result<Contents> {
    let Extra::Partition { architecture, .. } = primary.extra() else {
        return Err(Error::new(ErrorKind::Bug, "a partition is none"));
    };
    let header = container.header();
    Ok(Contents {
        uuid: header.uuid,
        launch_script: header.launch_script().to_vec(),
        ..Contents::new(architecture, header.created_seconds)
    })
}

fn ours(container: &Container, primary: &Descriptor, hidden: HiddenObjects) -> Result<Contents> {
    let HiddenObjects { definition, json, image, options, format } = hidden;
    let mut json: BTreeMap<String, Vec<u8>> = json.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
    let seal = sif::unsealed(format, &image, options.as_deref(), json.len() + 1);
    json.insert(sif::SEAL_NAME.to_string(), seal);
    Ok(Contents { definition: Some(definition.into_bytes()), json, ..contents(container, primary)? })
}

/// A SIF of Apptainer's has its objects in the clear.
fn others(container: &Container, primary: &Descriptor, notes: &mut Vec<Note>) -> Result<Contents> {
    let mut made = contents(container, primary)?;
    for descriptor in container.descriptors() {
        let region = container.data(descriptor)?;
        let is_kept = match descriptor.data_type {
            DataType::Definition => made.definition.is_none(),
            DataType::GenericJson => true,
            _ => continue,
        };
        let name = String::from_utf8(descriptor.name().to_vec()).ok();
        let (true, Some(name), true) = (is_kept, name, region.len <= OBJECT_BYTES_MAX) else {
            notes.push(dropped(descriptor));
            continue;
        };
        let mut bytes = vec![0; region.len as usize];
        region.read_at(&mut bytes, 0).or_kind(ErrorKind::SourceUnavailable)?;
        match descriptor.data_type {
            DataType::Definition => made.definition = Some(bytes),
            _ => drop(made.json.insert(name, bytes)),
        }
    }
    Ok(made)
}

/// Signatures are of the encrypted file; what else others added is theirs.
fn left_out(container: &Container) -> Vec<Note> {
    let is_kept = |it: &Descriptor| {
        matches!(it.data_type, DataType::Definition | DataType::GenericJson | DataType::CryptoMessage)
            || it.is_primary()
    };
    container.descriptors().filter(|it| !is_kept(it)).map(dropped).collect()
}

fn dropped(descriptor: &Descriptor) -> Note {
    let message = format!("object {} ({descriptor}) of the encrypted SIF is left out", descriptor.id);
    Note::new("object-left-out", message, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_the_usual_ones() {
        let passphrase = crate::gocryptfs::Passphrase::new(b"x".to_vec()).unwrap();
        let decrypt = Decrypt::new("a", Secret::Passphrase(passphrase), "b");
        assert!(!decrypt.replace && decrypt.mode.is_none() && decrypt.path == std::path::Path::new("b"));
    }
}
