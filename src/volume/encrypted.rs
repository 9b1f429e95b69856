//! The encrypted root of a SIF: a squashfs with `gocryptfs.conf` and an encrypted squashfs, read through the key, any part
//! of it at any time, without a copy.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::gocryptfs::{BLOCK_BYTES, CONFIG_NAME, Decryptor, HEADER_BYTES, Keys, Passphrase, plain_bytes};
use crate::io::Region;
use crate::squashfs::{BlockReader, FileInode, Image, InodeKind, Input, Stretch};

/// What the name of the inner squashfs begins with.
const ROOT_PREFIX: &[u8] = b"squashfs-";
/// The most that is read of a small file, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of plaintext that are decrypted at once, a multiple of a block: several outer blocks, so that few are read twice.
const WINDOW_BYTES: usize = 512 << 10;
/// How many of them are kept.
const WINDOWS: usize = 8;
/// What an encrypted block takes, in bytes.
const ENCRYPTED_BLOCK_BYTES: u64 = BLOCK_BYTES as u64 + 32;

/// An encrypted root that was looked at.
pub(crate) struct EncryptedRoot {
    image: Image<Region>,
    config: Vec<u8>,
    root: FileInode,
    /// The other files, by name.
    others: Vec<(Vec<u8>, FileInode)>,
}

impl EncryptedRoot {
    /// Looks at the outer squashfs in `partition`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is damaged, or lacks one of the two files.
    pub(crate) fn open(partition: Region) -> Result<Self> {
        let image = Image::open(partition)?;
        let mut config = None;
        let mut root = None;
        let mut others = Vec::new();
        // Whoever packs more than a few files has packed something else.
        for entry in image.entries().take(64) {
            let entry = entry?;
            let InodeKind::File(file) = entry.inode.kind else { continue };
            match entry.path.as_slice() {
                name if name == CONFIG_NAME.as_bytes() => config = Some(file),
                name if name.starts_with(ROOT_PREFIX) && root.is_none() => root = Some(file),
                name => others.push((name.to_vec(), file)),
            }
        }
        let lacks = |what: &str| {
            let message = format!("the encrypted partition has no {what}");
            Error::new(ErrorKind::InvalidImage, message).hint("build the SIF again")
        };
        let config = config.ok_or_else(|| lacks(CONFIG_NAME))?;
        let root = root.ok_or_else(|| lacks("squashfs-…"))?;
        let config = read_all(&image, &config)?;
        Ok(EncryptedRoot { image, config, root, others })
    }

    /// Whether `passphrase` is the right one. Takes as long as [`EncryptedRoot::unlock`].
    ///
    /// # Errors
    /// As [`EncryptedRoot::unlock`].
    pub(crate) fn check(&self, passphrase: &Passphrase) -> Result<()> {
        Keys::unlock(&self.config, passphrase).map(drop)
    }

    /// Opens the inner squashfs.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] for a wrong passphrase; [`ErrorKind::InvalidImage`] when it is damaged.
    pub(crate) fn unlock(self, passphrase: &Passphrase) -> Result<UnlockedRoot> {
        let keys = Keys::unlock(&self.config, passphrase)?;
        let root = DecryptedFile::open(self.image, &self.root, &keys)?;
        Ok(UnlockedRoot { root, keys, others: self.others })
    }
}

/// The squashfs inside of an encrypted root.
pub(crate) struct UnlockedRoot {
    root: DecryptedFile,
    keys: Keys,
    others: Vec<(Vec<u8>, FileInode)>,
}

impl UnlockedRoot {
    /// The plaintext of another file; `None` where there is none of this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is damaged.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some((_, file)) = self.others.iter().find(|(other, _)| other == name.as_bytes()) else { return Ok(None) };
        let encrypted = read_all(&self.root.image, file)?;
        let Some((header, blocks)) = encrypted.split_first_chunk::<HEADER_BYTES>() else { return Ok(Some(Vec::new())) };
        let mut plain = Vec::new();
        Decryptor::new(&self.keys, header)?.decrypt(0, blocks, &mut plain).doing(|| format!("reading {name:?}"))?;
        Ok(Some(plain))
    }
}

impl Input for UnlockedRoot {
    fn length(&self) -> u64 {
        self.root.bytes
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.root.read_at(buffer, position).map_err(Error::into_io)
    }
}

fn read_all(image: &Image<Region>, file: &FileInode) -> Result<Vec<u8>> {
    if file.size > SMALL_BYTES_MAX {
        let message = format!("a file beside the encrypted squashfs has {} bytes", file.size);
        return Err(Error::new(ErrorKind::Unsupported, message).hint("build the SIF again"));
    }
    let mut bytes = Vec::new();
    let mut reader = image.block_reader()?;
    for stretch in image.stretches(file) {
        image.read_stretch(&stretch?, &mut reader, &mut bytes)?;
    }
    Ok(bytes)
}

/// An encrypted file in a squashfs.
struct DecryptedFile {
    image: Image<Region>,
    /// All but the last are a block long.
    stretches: Vec<Stretch>,
    decryptor: Decryptor,
    encrypted_bytes: u64,
    bytes: u64,
    readers: Mutex<Vec<BlockReader>>,
    /// Windows that were decrypted last, by number.
    windows: Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>,
}

impl DecryptedFile {
    fn open(image: Image<Region>, file: &FileInode, keys: &Keys) -> Result<Self> {
        let cut = || Error::new(ErrorKind::InvalidImage, "the encrypted squashfs is cut short").hint("fetch it again");
        let bytes = plain_bytes(file.size).filter(|&bytes| bytes > 0).ok_or_else(cut)?;
        let stretches = image.stretches(file).collect::<Result<Vec<_>>>()?;
        let mut reader = image.block_reader()?;
        let mut start = Vec::new();
        let first = stretches.first().ok_or_else(cut)?;
        image.read_stretch(first, &mut reader, &mut start)?;
        let header = start.first_chunk::<HEADER_BYTES>().ok_or_else(cut)?;
        let decryptor = Decryptor::new(keys, header)?;
        let (readers, windows) = (Mutex::new(vec![reader]), Mutex::default());
        Ok(DecryptedFile { image, stretches, decryptor, encrypted_bytes: file.size, bytes, readers, windows })
    }

    fn read_at(&self, mut buffer: &mut [u8], mut position: u64) -> Result<()> {
        while !buffer.is_empty() {
            let window = self.window(position / WINDOW_BYTES as u64)?;
            let start = (position % WINDOW_BYTES as u64) as usize;
            let held = window.get(start..).unwrap_or_default();
            if held.is_empty() {
                return Err(Error::io(ErrorKind::InvalidImage, io::ErrorKind::UnexpectedEof.into()));
            }
            let (now, later) = buffer.split_at_mut(buffer.len().min(held.len()));
            now.copy_from_slice(&held[..now.len()]);
            position += now.len() as u64;
            buffer = later;
        }
        Ok(())
    }

    /// The plaintext of a window.
    fn window(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        let lock = || self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, window)) = lock().iter().find(|(known, _)| *known == number) {
            return Ok(Arc::clone(window));
        }
        let blocks = (WINDOW_BYTES / BLOCK_BYTES) as u64;
        let start = HEADER_BYTES as u64 + number * blocks * ENCRYPTED_BLOCK_BYTES;
        let end = self.encrypted_bytes.min(start + blocks * ENCRYPTED_BLOCK_BYTES);
        let encrypted = self.encrypted(start.min(end), end)?;
        let mut plain = Vec::with_capacity(WINDOW_BYTES);
        self.decryptor.decrypt(number * blocks, &encrypted, &mut plain)?;
        let window = Arc::new(plain);
        let mut windows = lock();
        if windows.len() == WINDOWS {
            windows.pop_front();
        }
        windows.push_back((number, Arc::clone(&window)));
        Ok(window)
    }

    /// The bytes of the file from `start` to `end`, as they are stored.
    fn encrypted(&self, start: u64, end: u64) -> Result<Vec<u8>> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = pooled.map_or_else(|| self.image.block_reader(), Ok)?;
        let block_bytes = u64::from(self.image.superblock().block_size);
        let first = start / block_bytes;
        let mut bytes = Vec::with_capacity((end - start + 2 * block_bytes) as usize);
        for stretch in self.stretches.iter().skip(first as usize).take((end.div_ceil(block_bytes) - first) as usize) {
            self.image.read_stretch(stretch, &mut reader, &mut bytes)?;
        }
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        let skipped = (start - first * block_bytes) as usize;
        bytes.truncate(skipped + (end - start) as usize);
        bytes.drain(..skipped.min(bytes.len()));
        Ok(bytes)
    }
}
