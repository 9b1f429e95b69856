use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::index::{BlockPlace, Name};
use crate::io::folder::Folder;
use crate::io::{Gather, Scratch};

/// What every pack begins with.
const MAGIC: &[u8] = b"sif-convert pack 1\n";
/// The bit of a block's word that is not a part of its length.
const STORED: u32 = 1 << 24;

/// Blocks of one conversion, for reading.
#[derive(Debug)]
pub(crate) struct Pack {
    file: File,
    name: Name,
}

impl Pack {
    pub(super) fn open(packs: &Folder, owner: u32, name: Name) -> io::Result<Pack> {
        Ok(Pack { file: packs.private_file(&name.to_string(), owner)?, name })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn name(&self) -> Name {
        self.name
    }

    /// Puts a block into the start of `bytes`, which only ever grows; how long it is.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] when it is not what was written, also where it cannot be read.
    pub(crate) fn read(&self, place: &BlockPlace, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let length = (place.word & !STORED) as usize;
        if bytes.len() < length {
            bytes.resize(length, 0);
        }
        let block = &mut bytes[..length];
        self.file.read_exact_at(block, place.offset).map_err(|_| io::ErrorKind::InvalidData)?;
        if xxh3_128(block) == place.sum { Ok(length) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// A pack that is being written. It has no name until it is finished.
#[derive(Debug)]
pub(crate) struct PackWriter {
    scratch: Scratch,
    pieces: Gather,
    bytes: u64,
    content: Xxh3Debug,
}

/// The hash has no `Debug` of its own.
struct Xxh3Debug(Xxh3);

impl std::fmt::Debug for Xxh3Debug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xxh3")
    }
}

impl PackWriter {
    pub(super) fn create(packs: &Folder) -> io::Result<PackWriter> {
        let scratch = packs.scratch("pack", 0o644)?;
        let pieces = Gather::new(Arc::clone(scratch.file()));
        let mut writer = PackWriter { scratch, pieces, bytes: 0, content: Xxh3Debug(Xxh3::new()) };
        writer.write(MAGIC)?;
        Ok(writer)
    }

    /// Appends a block whose checksum is `sum`; where it is then.
    ///
    /// # Errors
    /// As `pwrite`.
    pub(crate) fn append(&mut self, bytes: &[u8], word: u32, sum: u128) -> io::Result<BlockPlace> {
        let offset = self.bytes;
        self.write(bytes)?;
        self.content.0.update(&word.to_le_bytes());
        self.content.0.update(&sum.to_le_bytes());
        Ok(BlockPlace { pack: 0, word, offset, sum })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pieces.write_at(bytes, self.bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// What it will be called: two packs with the same blocks have one name.
    pub(crate) fn name(&self) -> Name {
        Name(self.content.0.digest128())
    }

    /// Gives it its name. One that is there is replaced: nobody knows whether it is intact.
    ///
    /// # Errors
    /// As the file system says.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let name = self.name().to_string();
        self.pieces.release()?;
        self.scratch.replace(Path::new(&name))?;
        self.scratch.keep();
        Ok(())
    }
}
