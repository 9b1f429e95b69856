use super::descriptor::{DESCRIPTOR_BYTES, Descriptor, Link};
use super::finding::Finding;
use super::header::{HEADER_BYTES, Header, at};
use super::kind::DataType;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::Region;

/// Most descriptor slots that are read: 2.3 MiB of table. Apptainer makes 48, an OCI-SIF eight more than it has blobs.
pub const DESCRIPTORS_MAX: i64 = 4096;

/// The most that is read of a message that holds a key, in bytes.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// A SIF file that was opened: of any maker, signed or not, with or without a system partition. Header and table have
/// been read; whether what they say makes sense is for [`super::verify`] to tell.
#[derive(Debug, Clone)]
pub struct Container {
    file: Region,
    header: Header,
    slots: Vec<Descriptor>,
}

impl Container {
    /// Opens the SIF file that fills `file`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is none or its table does not lie in the file,
    /// [`ErrorKind::Unsupported`] when it is of another version, [`ErrorKind::SourceUnavailable`] when it cannot be read.
    pub fn open(file: Region) -> Result<Self> {
        Self::read(file)?.map_err(|finding| {
            finding.into_error().hint("fetch the file again, or check with `file` whether it is a SIF file at all")
        })
    }

    /// Opens `file`; what keeps it from being opened is a finding, and trouble in reading an error.
    pub(super) fn read(file: Region) -> Result<std::result::Result<Self, Finding>> {
        let mut record = [0; HEADER_BYTES];
        if read(&file, &mut record, 0)? < HEADER_BYTES {
            let message = format!("a SIF file begins with {HEADER_BYTES} bytes of header, this one ends before");
            return Ok(Err(Finding::error(file.len, "cut-short", message)));
        }
        let (header, offset, count) = match Header::parse(&record).and_then(|header| table(header, file.len)) {
            Ok(found) => found,
            Err(finding) => return Ok(Err(finding)),
        };
        let mut bytes = vec![0; count * DESCRIPTOR_BYTES];
        read(&file, &mut bytes, offset)?;
        let (records, _) = bytes.as_chunks::<DESCRIPTOR_BYTES>();
        let slots = records.iter().map(Descriptor::parse).collect();
        Ok(Ok(Container { file, header, slots }))
    }

    /// The global header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file that was opened.
    pub fn file(&self) -> &Region {
        &self.file
    }

    /// Descriptors in use, in the order of the table.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        self.slots.iter().filter(|slot| slot.is_used())
    }

    /// All slots with their offset in the file.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u64, &Descriptor)> {
        let start = u64::try_from(self.header.descriptors_offset).unwrap_or(0);
        self.slots.iter().enumerate().map(move |(slot, it)| (start + (slot * DESCRIPTOR_BYTES) as u64, it))
    }

    /// The bytes of an object.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when they do not lie in the file.
    pub fn data(&self, descriptor: &Descriptor) -> Result<Region> {
        let region = descriptor.extent().and_then(|(start, end)| self.file.slice(start, end - start));
        region.ok_or_else(|| {
            let Descriptor { id, offset, size, .. } = descriptor;
            let message = format!(
                "object {id} ({descriptor}) is said to take {size} bytes from byte {offset} on, the file has {}",
                self.file.len
            );
            Error::new(ErrorKind::InvalidImage, message).hint("the file is damaged or cut short: fetch it again")
        })
    }

    /// The root file system that is run; an OCI-SIF has none.
    pub fn primary(&self) -> Option<&Descriptor> {
        self.descriptors().find(|descriptor| descriptor.is_primary())
    }

    /// The message that holds the key of an encrypted partition, under an RSA key.
    ///
    /// # Errors
    /// As [`Container::data`]; [`ErrorKind::SourceUnavailable`] when it cannot be read.
    pub fn key_message(&self, partition: &Descriptor) -> Result<Option<Vec<u8>>> {
        let is_it =
            |it: &&Descriptor| it.data_type == DataType::CryptoMessage && it.link() == Link::Object(partition.id);
        let Some(descriptor) = self.descriptors().find(is_it) else { return Ok(None) };
        let region = self.data(descriptor)?;
        let mut bytes = vec![0; region.len.min(MESSAGE_BYTES_MAX) as usize];
        read(&region, &mut bytes, 0)?;
        Ok(Some(bytes))
    }

    /// The first object of a type with a name.
    pub fn named(&self, data_type: DataType, name: &[u8]) -> Option<&Descriptor> {
        self.descriptors().find(|it| it.data_type == data_type && it.name() == name)
    }

    /// Whether this is an OCI-SIF: an OCI image in layers rather than a root file system.
    pub fn is_oci(&self) -> bool {
        self.descriptors().any(|it| it.data_type == DataType::OciRootIndex)
    }
}

/// Where the descriptor table is, and how many slots it has, if it lies in a file of `file_bytes`.
fn table(header: Header, file_bytes: u64) -> std::result::Result<(Header, u64, usize), Finding> {
    let total = header.descriptors_total;
    let Some(count) = usize::try_from(total).ok().filter(|_| total <= DESCRIPTORS_MAX) else {
        let message = format!("{total} descriptor slots: 0 to {DESCRIPTORS_MAX} are supported");
        return Err(Finding::error(at::DESCRIPTORS_TOTAL as u64, "descriptor-count", message));
    };
    let bytes = (count * DESCRIPTOR_BYTES) as u64;
    let offset = u64::try_from(header.descriptors_offset).ok().filter(|&offset| {
        offset >= HEADER_BYTES as u64 && offset.checked_add(bytes).is_some_and(|end| end <= file_bytes)
    });
    match offset {
        Some(offset) => Ok((header, offset, count)),
        None => {
            let start = header.descriptors_offset;
            let message = format!(
                "the table of {total} descriptors is said to take {bytes} bytes from byte {start} on, behind the \
                 header of a file of {file_bytes} bytes"
            );
            Err(Finding::error(at::DESCRIPTORS_OFFSET as u64, "descriptor-table", message))
        }
    }
}

/// Reads what there is of `buffer.len()` bytes from `at` on.
pub(super) fn read(file: &Region, buffer: &mut [u8], at: u64) -> Result<usize> {
    file.read_at(buffer, at).or_kind(ErrorKind::SourceUnavailable)
}
