use std::collections::BTreeMap;
use std::io::{self, Seek, SeekFrom, Write};

use super::architecture::Architecture;
use super::descriptor::{DEFAULT_GROUP, DESCRIPTOR_BYTES, Descriptor, GROUP_MARK, NAME_BYTES};
use super::header::{Header, LAUNCH_BYTES};
use super::kind::{DataType, EXTRA_BYTES, Extra, FileSystem, SbomFormat};
use super::record::padded;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::model::Quoted;

/// Descriptor slots of a new file: Apptainer's number, so that signatures, overlays and more can be added later.
pub const DESCRIPTOR_CAPACITY: usize = 48;
/// Where the descriptor table of a new file begins, in bytes.
pub(super) const TABLE_OFFSET: usize = 4096;
/// Where the objects of a new file begin, in bytes: right behind the table.
pub(super) const DATA_OFFSET: usize = TABLE_OFFSET + DESCRIPTOR_CAPACITY * DESCRIPTOR_BYTES;
/// What the start of a partition is a multiple of, in bytes. Loop devices need 512, mapping into memory a page.
pub(super) const PARTITION_ALIGNMENT: u64 = 4096;
/// What the size of a partition must be a multiple of, in bytes: loop devices cut off what is left over.
const SECTOR_BYTES: u64 = 512;

/// What goes into a new SIF file, but for its partition.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Contents {
    /// What the programs in the partition run on.
    pub architecture: Architecture,
    /// The one time of header and objects, in seconds since the Unix epoch.
    pub time_seconds: i64,
    /// The file's UUID; all zero is what Apptainer writes when it is asked for the same bytes every time.
    pub uuid: [u8; 16],
    /// The line the kernel sees when the file is run, at most 31 bytes: [`super::LAUNCH_SCRIPT`].
    pub launch_script: Vec<u8>,
    /// Definition file text; an encrypted container has none.
    pub definition: Option<Vec<u8>>,
    /// What the partition is.
    pub file_system: FileSystem,
    /// The key of an encrypted partition under an RSA key, as PEM.
    pub key_message: Option<Vec<u8>>,
    /// Bills of materials, in their order.
    pub sboms: Vec<Sbom>,
    /// JSON objects by name. They are written in the order of their names.
    pub json: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    /// Of a partition that holds a squashfs; everything else as Apptainer has it, or empty.
    pub fn new(architecture: Architecture, time_seconds: i64) -> Self {
        Contents {
            architecture,
            time_seconds,
            uuid: [0; 16],
            launch_script: super::LAUNCH_SCRIPT.to_vec(),
            definition: None,
            file_system: FileSystem::Squashfs,
            key_message: None,
            sboms: Vec::new(),
            json: BTreeMap::new(),
        }
    }
}

/// A bill of materials: what is in the partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// How it is written.
    pub format: SbomFormat,
    /// The name of its object.
    pub name: String,
    /// The document.
    pub bytes: Vec<u8>,
}

/// A SIF file whose places are all known but for the end of its last object, the primary system partition.
///
/// Three steps: [`Plan::write_objects`]; then the partition is written by whoever makes it, from
/// [`Plan::partition_offset`] on, in any order; then [`Plan::finish`] writes the table and, as the very last, the header.
#[derive(Debug, Clone)]
pub struct Plan {
    header: Header,
    objects: Vec<(Descriptor, Vec<u8>)>,
    partition: Descriptor,
}

impl Plan {
    /// Places everything: definition, message, bills of materials, JSON by name, partition, all in group 1.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the launch script or a name is too long for its field, or there are more objects than
    /// slots.
    pub fn new(contents: Contents) -> Result<Self> {
        let header = new_header(&contents)?;
        let time = contents.time_seconds;
        let formats: Vec<SbomFormat> = contents.sboms.iter().map(|sbom| sbom.format).collect();
        let sboms = contents.sboms.into_iter().map(|sbom| (DataType::Sbom, sbom.name, sbom.bytes));
        let json = contents.json.into_iter().map(|(name, bytes)| (DataType::GenericJson, name, bytes));
        let unnamed = |data_type, bytes: Option<Vec<u8>>| bytes.map(|bytes| (data_type, String::new(), bytes));
        let definition = unnamed(DataType::Definition, contents.definition);
        let message = unnamed(DataType::CryptoMessage, contents.key_message);
        let before = definition.into_iter().chain(message).chain(sboms).chain(json);
        let mut objects: Vec<(Descriptor, Vec<u8>)> = Vec::new();
        let mut end = DATA_OFFSET as u64;
        for (data_type, name, bytes) in before {
            let mut descriptor = new_descriptor(objects.len(), data_type, &name, time)?;
            place(&mut descriptor, end, 1, bytes.len() as u64)?;
            end += bytes.len() as u64;
            objects.push((descriptor, bytes));
        }
        if objects.len() >= DESCRIPTOR_CAPACITY {
            let message =
                format!("{} objects and a partition do not fit into {DESCRIPTOR_CAPACITY} slots", objects.len());
            return Err(Error::new(ErrorKind::Usage, message).hint("put fewer JSON objects into the file"));
        }
        let mut partition = new_descriptor(objects.len(), DataType::Partition, "", time)?;
        partition.extra_area = Extra::primary(contents.file_system, contents.architecture);
        for (descriptor, _) in objects.iter_mut().filter(|(it, _)| it.data_type == DataType::CryptoMessage) {
            descriptor.link_field = partition.id;
            descriptor.extra_area = Extra::rsa_message();
        }
        let sboms = objects.iter_mut().filter(|(it, _)| it.data_type == DataType::Sbom);
        for ((descriptor, _), format) in sboms.zip(formats) {
            descriptor.extra_area = Extra::sbom(format);
        }
        place(&mut partition, end, PARTITION_ALIGNMENT, 0)?;
        Ok(Plan { header, objects, partition })
    }

    /// Where the partition begins, in bytes from the start of the file: a multiple of 4096.
    pub fn partition_offset(&self) -> u64 {
        self.partition.offset.unsigned_abs()
    }

    /// Writes what comes before the partition, and zeros where header and table will be. The next write, without a
    /// seek, goes to [`Plan::partition_offset`].
    ///
    /// # Errors
    /// [`ErrorKind::Output`] or [`ErrorKind::NoSpace`] when writing fails.
    pub fn write_objects(&self, store: &mut (impl Write + Seek)) -> Result<()> {
        let mut bytes = vec![0; DATA_OFFSET];
        bytes.extend(self.objects.iter().flat_map(|(_, object)| object));
        bytes.resize(bytes.len().next_multiple_of(PARTITION_ALIGNMENT as usize), 0);
        write_at(store, 0, &bytes).or_kind(ErrorKind::Output)
    }

    /// Writes the table and then the header, for a partition of `partition_bytes`. The file is complete then and ends
    /// with the partition; its size in bytes is returned.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when the partition's size is 0 or not a multiple of 512, which no kernel could mount;
    /// [`ErrorKind::Output`] or [`ErrorKind::NoSpace`] when writing fails.
    pub fn finish(mut self, store: &mut (impl Write + Seek), partition_bytes: u64) -> Result<u64> {
        if partition_bytes == 0 || !partition_bytes.is_multiple_of(SECTOR_BYTES) {
            let message = format!("a partition of {partition_bytes} bytes is not a whole number of sectors");
            return Err(Error::new(ErrorKind::Bug, message));
        }
        let (last, _) = self.partition.extent().ok_or_else(too_large)?;
        let padding = self.partition.size_with_padding.unsigned_abs();
        place(&mut self.partition, last - padding, PARTITION_ALIGNMENT, partition_bytes)?;
        let (_, end) = self.partition.extent().ok_or_else(too_large)?;
        self.header.data_size = signed(end - DATA_OFFSET as u64)?;
        self.header.descriptors_free = signed((DESCRIPTOR_CAPACITY - self.objects.len() - 1) as u64)?;

        let mut table = Vec::with_capacity(DATA_OFFSET - TABLE_OFFSET);
        for descriptor in self.objects.iter().map(|(descriptor, _)| descriptor).chain([&self.partition]) {
            table.extend(descriptor.to_bytes());
        }
        table.resize(DATA_OFFSET - TABLE_OFFSET, 0);
        write_at(store, TABLE_OFFSET as u64, &table).or_kind(ErrorKind::Output)?;
        write_at(store, 0, &self.header.to_bytes()).or_kind(ErrorKind::Output)?;
        store.flush().or_kind(ErrorKind::Output)?;
        Ok(end)
    }
}

/// A header that lacks only what the partition's size decides.
fn new_header(contents: &Contents) -> Result<Header> {
    let script = &contents.launch_script;
    let launch_script = padded(script).filter(|_| script.len() < LAUNCH_BYTES).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("the launch script {} is longer than 31 bytes", Quoted(script)))
            .hint("shorten it; it only starts the program that runs the container")
    })?;
    Ok(Header {
        launch_script,
        architecture: contents.architecture,
        uuid: contents.uuid,
        created_seconds: contents.time_seconds,
        modified_seconds: contents.time_seconds,
        descriptors_free: 0,
        descriptors_total: DESCRIPTOR_CAPACITY as i64,
        descriptors_offset: TABLE_OFFSET as i64,
        descriptors_size: (DATA_OFFSET - TABLE_OFFSET) as i64,
        data_offset: DATA_OFFSET as i64,
        data_size: 0,
    })
}

/// The descriptor for slot `slot` (from 0), without a place.
fn new_descriptor(slot: usize, data_type: DataType, name: &str, time_seconds: i64) -> Result<Descriptor> {
    let name_field = padded(name.as_bytes()).ok_or_else(|| {
        let quoted = Quoted(name.as_bytes());
        Error::new(ErrorKind::Usage, format!("the object name {quoted} is longer than {NAME_BYTES} bytes"))
            .hint("shorten the name")
    })?;
    Ok(Descriptor {
        data_type,
        used: 1,
        id: u32::try_from(slot + 1).map_err(|_| too_large())?,
        group_field: DEFAULT_GROUP | GROUP_MARK,
        link_field: 0,
        offset: 0,
        size: 0,
        size_with_padding: 0,
        created_seconds: time_seconds,
        modified_seconds: time_seconds,
        uid: 0,
        gid: 0,
        name_field,
        extra_area: [0; EXTRA_BYTES],
    })
}

/// Places an object of `bytes` at the first multiple of `alignment` from `end` on, where the previous object ends. The
/// padding in front of it counts into its size with padding.
fn place(descriptor: &mut Descriptor, end: u64, alignment: u64, bytes: u64) -> Result<()> {
    let start = end.checked_next_multiple_of(alignment).ok_or_else(too_large)?;
    descriptor.offset = signed(start)?;
    descriptor.size = signed(bytes)?;
    descriptor.size_with_padding = signed(bytes.checked_add(start - end).ok_or_else(too_large)?)?;
    Ok(())
}

fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| too_large())
}

fn too_large() -> Error {
    Error::new(ErrorKind::Unsupported, "a SIF file cannot be larger than 2^63 bytes")
}

fn write_at(store: &mut (impl Write + Seek), at: u64, bytes: &[u8]) -> io::Result<()> {
    store.seek(SeekFrom::Start(at))?;
    store.write_all(bytes)
}
