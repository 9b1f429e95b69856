//! An image of a few files whose bytes come as a stream and are stored as they are: what is encrypted does not shrink.

use super::directory::{ListingEntry, write_listing};
use super::inode::{self, Common, FileBlocks};
use super::metadata::{MetadataWriter, append_indexed};
use super::output::{Layout, Output};
use super::tables::Ids;
use super::{Store, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::squashfs::format::{
    Compression, FLAG_EXPORTABLE, NAME_BYTES_MAX, NO_TABLE, NONE, PADDING_BYTES, Superblock, compression_id, kind,
};

/// What mksquashfs takes, in bytes. It decides how much a reader reads at once.
const BLOCK_SIZE: u32 = 128 << 10;
/// Longest file, in bytes, so that its list of blocks fits into memory: 4 TiB are 128 MiB of list.
const FILE_BYTES_MAX: u64 = 4 << 40;
/// What is written is read only.
const FILE_MODE: u16 = 0o444;
const DIRECTORY_MODE: u16 = 0o555;

/// Writes one image: files in a root directory, one after the other, all of them owned by 0:0.
pub struct StreamWriter<S: Store> {
    output: Output<S>,
    mkfs_time: u32,
    files: Vec<StreamFile>,
}

struct StreamFile {
    name: String,
    start: u64,
    size: u64,
}

impl<S: Store> StreamWriter<S> {
    /// An empty image in `store`, in which everything has the time `mkfs_time`, in seconds since 1970.
    pub fn new(store: S, mkfs_time: u32) -> Self {
        StreamWriter { output: Output::new(store), mkfs_time, files: Vec::new() }
    }

    /// Where in the image the next byte goes.
    pub fn position(&self) -> u64 {
        self.output.position()
    }

    /// Begins a file.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] for a name that cannot be one, or is taken.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        let is_taken = self.files.iter().any(|file| file.name == name);
        if is_taken || name.contains('/') || !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(Error::new(ErrorKind::Bug, format!("{name:?} cannot be the name of a file")));
        }
        self.files.push(StreamFile { name: name.to_string(), start: self.output.position(), size: 0 });
        Ok(())
    }

    /// Appends to the file that was begun last.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] past 4 TiB; whatever writing fails with.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let none = || Error::new(ErrorKind::Bug, "no file was begun");
        let file = self.files.last_mut().ok_or_else(none)?;
        file.size += bytes.len() as u64;
        if file.size > FILE_BYTES_MAX {
            return Err(unsupported(format_args!("a file of more than {FILE_BYTES_MAX} bytes"), "split the image"));
        }
        self.output.append(bytes)
    }

    /// Writes over what was appended at `position` in the image.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn overwrite(&mut self, bytes: &[u8], position: u64) -> Result<()> {
        self.output.overwrite(bytes, position)
    }

    /// Writes tables, padding and, last, the superblock. Returns the store, and the padded length in bytes.
    ///
    /// # Errors
    /// Whatever writing fails with.
    pub fn finish(mut self) -> Result<(S, u64)> {
        let compression = Compression::GZIP;
        let output = &mut self.output;
        self.files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ids = Ids::default();
        let root_position = ids.position(0)?;
        let common = |number, mode, links| Common {
            mode,
            uid_position: root_position,
            gid_position: root_position,
            mtime: self.mkfs_time,
            number,
            xattrs: NONE,
            links,
        };
        let mut inodes = MetadataWriter::new(compression)?;
        let mut places = Vec::new();
        for (number, file) in (1..).zip(&self.files) {
            places.push(inodes.place());
            let layout = Layout::stored(file.start, file.size, BLOCK_SIZE);
            let blocks = FileBlocks { size: file.size, layout: &layout, fragment: None, block_size: BLOCK_SIZE };
            inode::file(&common(number, FILE_MODE, 1), &blocks, &mut inodes)?;
        }
        let entries = (1..).zip(&self.files).zip(&places).map(|((number, file), &inode)| ListingEntry {
            name: file.name.as_bytes(),
            inode,
            number,
            kind: kind::FILE,
        });
        let mut directories = MetadataWriter::new(compression)?;
        let listing = write_listing(entries, &mut directories)?;
        let count = self.files.len() as u32 + 1;
        places.push(inodes.place());
        let root_inode = inodes.place().reference();
        inode::directory(&common(count, DIRECTORY_MODE, 2), &listing, count + 1, &mut inodes)?;
        let inode_table = output.position();
        inodes.finish(output)?;
        let directory_table = output.position();
        directories.finish(output)?;
        let fragment_table = append_indexed(output, compression, &[], &[])?;
        let exports: Vec<u8> = places.iter().flat_map(|place| place.reference().to_le_bytes()).collect();
        let export_table = append_indexed(output, compression, &exports, &[])?;
        let id_table = ids.append_to(output, compression)?;
        let bytes_used = output.position();
        let padded_bytes = bytes_used.next_multiple_of(PADDING_BYTES);
        output.append(&vec![0; (padded_bytes - bytes_used) as usize])?;
        let superblock = Superblock {
            inode_count: count,
            mkfs_time: self.mkfs_time,
            block_size: BLOCK_SIZE,
            fragment_count: 0,
            compression_id: compression_id(compression),
            flags: FLAG_EXPORTABLE,
            id_count: ids.count(),
            root_inode,
            bytes_used,
            id_table,
            xattr_table: NO_TABLE,
            inode_table,
            directory_table,
            fragment_table,
            export_table,
        };
        output.overwrite(&superblock.encode(), 0)?;
        Ok((self.output.finish()?, padded_bytes))
    }
}
