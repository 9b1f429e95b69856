//! The contents of a squashfs for an output that is made of blocks, too: those that it takes as they are stay as they are,
//! all others are decoded, in any order and by several threads.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backing, Reader, Volume, squashfs};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Compression, Monitor};
use crate::squashfs::{BlockReader, FileInode, Resume, Stretch};
use crate::tree::FileId;

/// How many places in lists of blocks are remembered: more than threads that read one file at a time.
const PLACES_MAX: usize = 256;

/// See the description of the file.
pub(crate) struct Blocks {
    volume: Arc<Volume>,
    /// Whether the output takes blocks as they are.
    passes: bool,
    /// Of each file, the first that has its bytes in the same place.
    firsts: Vec<u32>,
    /// How long each fragment is, by all files that lie in it, those included that no name leads to any more.
    fragments: BTreeMap<u32, u32>,
    /// Where reading goes on in lists of blocks, the newest last.
    places: Mutex<VecDeque<(FileId, Resume)>>,
    readers: Mutex<Vec<Reader>>,
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocks").field("passes", &self.passes).finish_non_exhaustive()
    }
}

impl Blocks {
    /// The blocks of a volume for an image of this compression and block size, of which blocks pass where `any_level` of
    /// compression will do. `None` where the volume is a directory.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when a list of blocks is damaged.
    pub(crate) fn of(
        volume: &Arc<Volume>,
        (compression, block_size, any_level): (Compression, u32, bool),
        monitor: &Monitor,
    ) -> Result<Option<Blocks>> {
        let Backing::Squashfs(files) = &volume.backing else { return Ok(None) };
        let mut by_place: BTreeMap<[u8; 32], u32> = BTreeMap::new();
        let mut blocks = Blocks {
            volume: Arc::clone(volume),
            passes: any_level && files.image.has_blocks_for(compression, block_size),
            firsts: Vec::with_capacity(files.files.len()),
            fragments: BTreeMap::new(),
            places: Mutex::default(),
            readers: Mutex::default(),
        };
        for (number, file) in (0..).zip(&files.files) {
            monitor.check()?;
            blocks.firsts.push(*by_place.entry(files.image.place_digest(file)?).or_insert(number));
            if let Some((fragment, offset)) = file.fragment {
                let tail = file.size % u64::from(files.image.superblock().block_size);
                let end = u64::from(offset).saturating_add(tail).min(u32::MAX.into()) as u32;
                let known = blocks.fragments.entry(fragment).or_default();
                *known = end.max(*known);
            }
        }
        Ok(Some(blocks))
    }

    /// The volume.
    pub(crate) fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// What files are the same that have the same bytes in the same place.
    pub(crate) fn first(&self, file: FileId) -> Option<FileId> {
        self.firsts.get(file.0 as usize).map(|&first| FileId(first))
    }

    /// Whether files that are not the same by [`Blocks::first`] have other bytes.
    pub(crate) fn are_distinct(&self) -> bool {
        self.squashfs().is_ok_and(|files| files.image.shares_equal_files())
    }

    /// Fills `buffer` with what stands at `offset` of a file, holes as zeros.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when the image is damaged there; [`ErrorKind::SourceUnavailable`] when it cannot be read.
    pub(crate) fn read_at(&self, file: FileId, buffer: &mut [u8], offset: u64) -> Result<()> {
        let files = self.squashfs()?;
        let block_size = u64::from(files.image.superblock().block_size);
        self.with_reader(|reader| {
            let (mut filled, mut bytes) = (0, Vec::new());
            while filled < buffer.len() {
                let at = offset + filled as u64;
                let stretch = self.stretch(file, at / block_size)?;
                let within = (at % block_size) as usize;
                let count = (stretch.bytes as usize).saturating_sub(within).min(buffer.len() - filled);
                if count == 0 {
                    return Err(Error::new(ErrorKind::Bug, "a file is read past its end"));
                }
                let into = &mut buffer[filled..filled + count];
                if stretch.is_hole() {
                    into.fill(0);
                } else {
                    bytes.clear();
                    files.image.read_stretch(&stretch, reader, &mut bytes)?;
                    into.copy_from_slice(&bytes[within..within + count]);
                }
                filled += count;
            }
            Ok(())
        })
    }

    /// The first offset from `offset` on that is not in a hole; `None` where only a hole follows. What cannot be found out is
    /// no hole: reading it tells why.
    pub(crate) fn next_data(&self, file: FileId, offset: u64) -> Option<u64> {
        let inode = self.squashfs().ok().and_then(|files| files.files.get(file.0 as usize));
        match inode {
            Some(inode) if offset < inode.size => self.skip_hole(inode, file, offset).unwrap_or(Some(offset)),
            _ => None,
        }
    }

    fn skip_hole(&self, inode: &FileInode, file: FileId, offset: u64) -> Result<Option<u64>> {
        let image = &self.squashfs()?.image;
        let block_size = u64::from(image.superblock().block_size);
        let first = offset / block_size;
        let mut stretches = image.stretches_from(inode, self.resume(inode, file, first));
        for _ in stretches.resume(inode).block..first {
            stretches.next().transpose()?;
        }
        let mut at = first * block_size;
        loop {
            let resume = stretches.resume(inode);
            match stretches.next().transpose()? {
                None => return Ok(None),
                Some(stretch) if stretch.is_hole() => at += block_size,
                Some(_) => {
                    self.remember(file, resume);
                    return Ok(Some(at.max(offset)));
                }
            }
        }
    }

    /// Puts the block at `offset` of a file into the start of `packed` as it is stored, and returns its length with the bit
    /// that says whether it is stored as it is; 0 for a hole. `None` where it does not pass, or is damaged: reading it tells.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when it cannot be read.
    pub(crate) fn data(&self, file: FileId, offset: u64, packed: &mut Vec<u8>) -> Result<Option<u32>> {
        let files = self.squashfs()?;
        if !self.passes {
            return Ok(None);
        }
        let stretch = self.stretch(file, offset / u64::from(files.image.superblock().block_size))?;
        self.with_reader(|reader| files.image.stored_block(&stretch, self.checks(), reader, packed))
    }

    /// The same of a fragment block that holds these files and nothing else, in this order.
    ///
    /// # Errors
    /// As [`Blocks::data`].
    pub(crate) fn fragment(&self, parts: &[(FileId, u32)], packed: &mut Vec<u8>) -> Result<Option<u32>> {
        let files = self.squashfs()?;
        let (mut found, mut end) = (None, 0);
        for &(file, bytes) in parts.iter().filter(|_| self.passes) {
            let stretch = self.stretch(file, 0)?;
            let Some((number, offset)) = files.image.fragment_of(&stretch) else { return Ok(None) };
            if (stretch.bytes, offset) != (bytes, end) || *found.get_or_insert(number) != number {
                return Ok(None);
            }
            end += bytes;
        }
        let Some(number) = found.filter(|number| self.fragments.get(number) == Some(&end)) else { return Ok(None) };
        self.with_reader(|reader| files.image.stored_fragment(number, end, self.checks(), reader, packed))
    }

    /// Whether what passes must be decoded to find damage in it.
    fn checks(&self) -> bool {
        self.volume.check.is_none()
    }

    fn squashfs(&self) -> Result<&squashfs::Files> {
        match &self.volume.backing {
            Backing::Squashfs(files) => Ok(files),
            Backing::Directory(_) => Err(Error::new(ErrorKind::Bug, "a directory has no blocks")),
        }
    }

    /// The stretch of a file that is its block `number`.
    fn stretch(&self, file: FileId, number: u64) -> Result<Stretch> {
        let files = self.squashfs()?;
        let lost = || Error::new(ErrorKind::Bug, "a file is of another volume, or read past its end");
        let inode = files.files.get(file.0 as usize).ok_or_else(lost)?;
        let mut stretches = files.image.stretches_from(inode, self.resume(inode, file, number));
        for _ in stretches.resume(inode).block..number {
            stretches.next().ok_or_else(lost)??;
        }
        let stretch = stretches.next().ok_or_else(lost)??;
        self.remember(file, stretches.resume(inode));
        Ok(stretch)
    }

    /// The nearest place before a block that is remembered, or the first.
    fn resume(&self, inode: &FileInode, file: FileId, number: u64) -> Resume {
        if number == 0 {
            return Resume::first(inode);
        }
        let places = lock(&self.places);
        let mut nearest = Resume::first(inode);
        // Blocks are asked for in order, or nearly so: what is looked for is among the newest.
        for (_, resume) in places.iter().rev().filter(|(of, resume)| *of == file && resume.block <= number) {
            if resume.block > nearest.block {
                nearest = *resume;
            }
            if nearest.block == number {
                break;
            }
        }
        nearest
    }

    fn remember(&self, file: FileId, resume: Resume) {
        if resume.block == 0 {
            return;
        }
        let mut places = lock(&self.places);
        if places.len() == PLACES_MAX {
            places.pop_front();
        }
        places.push_back((file, resume));
    }

    fn with_reader<T>(&self, work: impl FnOnce(&mut BlockReader) -> Result<T>) -> Result<T> {
        let free = lock(&self.readers).pop();
        let mut reader = free.map_or_else(|| self.volume.reader(), Ok)?;
        let Reader::Squashfs(blocks) = &mut reader else {
            return Err(Error::new(ErrorKind::Bug, "a directory has no blocks"));
        };
        let done = work(blocks);
        lock(&self.readers).push(reader);
        done
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
