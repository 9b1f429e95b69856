//! The end of an image: inodes, directories and tables, then the superblock.
//!
//! Order: directories from the last that was added to the first, so that what is inside a directory is written before
//! it. For each, first the inodes of all its names, in the order of the names (a node with several names at the first
//! of them); then its listing, whose inodes are then neighbours. Numbers count up in that order; the root is last. That
//! a parent's number is known before its inode is written needs a pass of its own.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::directory::{Listing, ListingEntry, write_listing};
use super::inode::{Common, FileBlocks};
use super::metadata::{MetadataWriter, Place, append_indexed};
use super::output::{Layout, Output};
use super::{Body, Dentry, NodeRecord, Store, Summary, Writer, inode};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::model::Quoted;
use crate::squashfs::format::{FLAG_DUPLICATES, FLAG_EXPORTABLE, PADDING_BYTES, Superblock, compression_id};

impl<S: Store + 'static> Writer<'_, S> {
    /// Waits for all data to be written, writes the tables and the superblock, and pads with zeros.
    ///
    /// # Errors
    /// Whatever reading sources and writing fail with; [`ErrorKind::Unsupported`] when a table becomes too large.
    pub fn finish(self) -> Result<Summary> {
        self.finish_image().doing(|| "finishing the squashfs")
    }

    fn finish_image(mut self) -> Result<Summary> {
        self.end_fragment()?;
        let mut output = self.pool.finish(self.monitor)?;
        self.duplicates = Default::default();
        self.sort_names()?;
        let (layouts, fragments) = output.take_blocks();
        let compression = self.options.compression;
        let inode_table = output.position();
        let (references, root, directory_table) = self.append_nodes(&layouts, &mut output)?;
        let fragment_bytes: Vec<u8> = fragments.iter().flat_map(|&(start, word)| fragment_entry(start, word)).collect();
        let fragment_table = append_indexed(&mut output, compression, &fragment_bytes, &[])?;
        let export_bytes: Vec<u8> = references.iter().flat_map(|reference| reference.to_le_bytes()).collect();
        let export_table = append_indexed(&mut output, compression, &export_bytes, &[])?;
        let id_table = self.ids.append_to(&mut output, compression)?;
        let xattr_table = self.xattrs.append_to(&mut output, compression)?;
        let superblock = Superblock {
            inode_count: references.len() as u32,
            mkfs_time: self.options.mkfs_time,
            block_size: self.options.block_size,
            fragment_count: fragments.len() as u32,
            compression_id: compression_id(compression),
            flags: FLAG_DUPLICATES | FLAG_EXPORTABLE,
            id_count: self.ids.count(),
            root_inode: root,
            bytes_used: output.position(),
            id_table,
            xattr_table,
            inode_table,
            directory_table,
            fragment_table,
            export_table,
        };
        let bytes_used = output.position();
        let padded_bytes = bytes_used.next_multiple_of(PADDING_BYTES);
        output.append(&vec![0; (padded_bytes - bytes_used) as usize])?;
        output.overwrite(&superblock.encode(), 0)?;
        output.finish()?;
        Ok(Summary { bytes_used, padded_bytes, inodes: superblock.inode_count, ..self.summary })
    }

    /// Brings names into the order of writing: by directory, the last added first, then by name.
    fn sort_names(&mut self) -> Result<()> {
        let names = &self.names;
        self.dentries.sort_by(|a, b| (Reverse(a.directory), a.name(names)).cmp(&(Reverse(b.directory), b.name(names))));
        let twin = self
            .dentries
            .windows(2)
            .find(|pair| pair[0].directory == pair[1].directory && pair[0].name(names) == pair[1].name(names));
        match twin {
            Some(pair) => {
                let message = format!("the name {} was added to one directory twice", Quoted(pair[0].name(names)));
                Err(Error::new(ErrorKind::Bug, message))
            }
            None => Ok(()),
        }
    }

    /// The number of each node's inode.
    fn inode_numbers(&self) -> Vec<u32> {
        let mut numbers = vec![0; self.nodes.len()];
        let mut last = 0;
        let root = std::iter::once(Self::ROOT.0);
        for node in self.dentries.iter().map(|dentry| dentry.node).chain(root) {
            let number = &mut numbers[node as usize];
            if *number == 0 {
                last += 1;
                *number = last;
            }
        }
        numbers
    }

    /// Writes the inode and the directory table. Returns the reference of each inode in the order of numbers, that of
    /// the root, and where the directory table starts.
    fn append_nodes(&self, layouts: &[Layout], output: &mut Output<S>) -> Result<(Vec<u64>, u64, u64)> {
        let mut tables = NodeTables {
            writer: self,
            layouts,
            numbers: self.inode_numbers(),
            places: vec![None; self.nodes.len()],
            listings: BTreeMap::new(),
            inodes: MetadataWriter::new(self.options.compression)?,
            directories: MetadataWriter::new(self.options.compression)?,
        };
        for names in self.dentries.chunk_by(|a, b| a.directory == b.directory) {
            for dentry in names {
                self.monitor.check()?;
                tables.inode(dentry.node, tables.numbers[dentry.directory as usize])?;
                tables.inodes.drain(output)?;
            }
            tables.listing(names)?;
        }
        let above_root = self.nodes.len() as u32 + 1;
        tables.inode(Self::ROOT.0, above_root)?;
        let NodeTables { numbers, places, inodes, directories, .. } = tables;
        let mut references = vec![0; self.nodes.len()];
        for (number, place) in numbers.iter().zip(&places) {
            references[*number as usize - 1] = place.map_or(0, Place::reference);
        }
        inodes.finish(output)?;
        let directory_table = output.position();
        directories.finish(output)?;
        Ok((references, places[0].map_or(0, Place::reference), directory_table))
    }
}

impl Dentry {
    fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        &names[self.name_start as usize..][..usize::from(self.name_length)]
    }
}

fn fragment_entry(start: u64, word: u32) -> impl Iterator<Item = u8> {
    start.to_le_bytes().into_iter().chain(word.to_le_bytes()).chain(0u32.to_le_bytes())
}

/// The inode and directory tables while they are written.
struct NodeTables<'a, 'm, S: Store + 'static> {
    writer: &'a Writer<'m, S>,
    layouts: &'a [Layout],
    numbers: Vec<u32>,
    /// Where each node's inode is, once it is written.
    places: Vec<Option<Place>>,
    /// Listings of directories whose inode is not written yet; empty ones have none.
    listings: BTreeMap<u32, Listing>,
    inodes: MetadataWriter,
    directories: MetadataWriter,
}

impl<S: Store> NodeTables<'_, '_, S> {
    /// Writes a node's inode, unless another name of it came first.
    fn inode(&mut self, node: u32, parent_number: u32) -> Result<()> {
        if self.places[node as usize].is_some() {
            return Ok(());
        }
        self.places[node as usize] = Some(self.inodes.place());
        let record = &self.writer.nodes[node as usize];
        let common = record.common(self.numbers[node as usize]);
        match &record.body {
            Body::Directory => {
                let listing = self.listings.remove(&node).unwrap_or_default();
                inode::directory(&common, &listing, parent_number, &mut self.inodes)
            }
            Body::File(file) => self.file(&common, *file),
            Body::Symlink(target) => inode::symlink(&common, target, &mut self.inodes),
            Body::Special { kind, device } => inode::special(&common, *kind, *device, &mut self.inodes),
        }
    }

    fn file(&mut self, common: &Common, file: Option<u32>) -> Result<()> {
        let block_size = self.writer.options.block_size;
        let nothing = Layout::default();
        let data = match file.map(|file| file as usize) {
            None => FileBlocks { size: 0, layout: &nothing, fragment: None, block_size },
            Some(file) => {
                let record = &self.writer.files[file];
                let layout = self.layouts.get(file).unwrap_or(&nothing);
                FileBlocks { size: record.size, layout, fragment: record.fragment, block_size }
            }
        };
        inode::file(common, &data, &mut self.inodes)
    }

    /// Writes the listing of the directory that has these names.
    fn listing(&mut self, names: &[Dentry]) -> Result<()> {
        let Some(directory) = names.first().map(|dentry| dentry.directory) else { return Ok(()) };
        let entries = names.iter().map(|dentry| ListingEntry {
            name: dentry.name(&self.writer.names),
            inode: self.places[dentry.node as usize].unwrap_or_default(),
            number: self.numbers[dentry.node as usize],
            kind: self.writer.nodes[dentry.node as usize].body.kind(),
        });
        let listing = write_listing(entries, &mut self.directories)?;
        self.listings.insert(directory, listing);
        Ok(())
    }
}

impl NodeRecord {
    fn common(&self, number: u32) -> Common {
        Common {
            mode: self.mode,
            uid_position: self.uid_position,
            gid_position: self.gid_position,
            mtime: self.mtime,
            number,
            xattrs: self.xattrs,
            links: self.links,
        }
    }
}
