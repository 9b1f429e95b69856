//! An encrypted partition: a squashfs that holds `gocryptfs.conf` and, encrypted, the squashfs of the container. It is
//! written as the inner one is made: nothing of that exists in the clear but a few blocks in memory.
//!
//! ```text
//! outer squashfs   superblock │ gocryptfs.conf │ squashfs-root, encrypted      │ sif-objects.json, encrypted │ tables
//!                             └── stored as they are ──────────────────────────┴─────────────────────────────┘
//! squashfs-root    header │ block 0: superblock and first bytes │ block 1 │ …
//! ```
//!
//! An image of a file system is written in order but for its superblock, which comes last. So block 0 waits in memory, and
//! with it the first bytes of the outer squashfs ([`HeldStart`]).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::gocryptfs::{BLOCK_BYTES, CONFIG_NAME, Encryptor, Keys, Passphrase, PublicKey};
use crate::model::Digest;
use crate::sif::{ENCRYPTED_START_BYTES, HiddenObjects};
use crate::squashfs::{Store, StreamWriter};

/// What is held back of the partition, in bytes.
const START_BYTES: usize = ENCRYPTED_START_BYTES as usize;
/// Length of a squashfs's superblock, which is written last, in bytes.
const SUPERBLOCK_BYTES: u64 = 96;
/// The name of the inner squashfs: Apptainer looks for one that begins with `squashfs-`.
const ROOT_NAME: &str = "squashfs-root";

/// What a SIF is encrypted with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Encryption {
    /// A passphrase: the same image, options and passphrase give the same bytes.
    Passphrase(Passphrase),
    /// An RSA key, which encrypts a random passphrase: no two outputs are equal.
    PublicKey(PublicKey),
}

impl Encryption {
    /// The keys of one output, the directory's configuration, and the message that holds the passphrase. `context` says
    /// what is encrypted.
    pub(super) fn begin(&self, context: &str) -> Result<Begun> {
        match self {
            Encryption::Passphrase(passphrase) => {
                let (keys, config) = Keys::derive(passphrase, context.as_bytes())?;
                Ok(Begun { keys, config, message: None })
            }
            Encryption::PublicKey(key) => {
                let passphrase = Passphrase::random()?;
                let (keys, config) = Keys::random(&passphrase)?;
                Ok(Begun { keys, config, message: Some(key.seal(&passphrase)?) })
            }
        }
    }

    /// What tells outputs apart that are encrypted for different keys. Nothing is told of a passphrase, not even a hash: it
    /// could be guessed.
    pub(super) fn kind(&self) -> String {
        match self {
            Encryption::Passphrase(_) => "passphrase".to_string(),
            Encryption::PublicKey(key) => format!("RSA key {}", Digest::of(&key.fingerprint())),
        }
    }
}

/// What begins the record of an image that is not told in the clear.
pub(crate) const HIDDEN_IMAGE: &str = "hidden:";

/// What a SIF says that it was made from where it is encrypted: the image ID stands in files of the image, too, and is not
/// repeated in the clear.
pub(super) fn hidden_image(image: &str) -> String {
    format!("{HIDDEN_IMAGE}{}", Digest::of(format!("sif-convert hidden image\0{image}").as_bytes()).hex())
}

/// See [`Encryption::begin`].
#[derive(Clone)]
pub(super) struct Begun {
    keys: Keys,
    config: Vec<u8>,
    pub(super) message: Option<Vec<u8>>,
}

/// An encrypted partition under construction. The store of the inner squashfs is a clone of it.
pub(super) struct EncryptedPartition<S: Store>(Arc<Mutex<State<S>>>);

impl<S: Store> Clone for EncryptedPartition<S> {
    fn clone(&self) -> Self {
        EncryptedPartition(Arc::clone(&self.0))
    }
}

struct State<S: Store> {
    keys: Keys,
    encryptor: Encryptor,
    /// Missing once the partition is finished.
    outer: Option<StreamWriter<HeldStart<S>>>,
    /// Block 0, which is complete when the superblock has come, and where it belongs in the partition.
    first: Vec<u8>,
    first_position: u64,
    /// What is not a whole block yet.
    pending: Vec<u8>,
    /// Encrypted blocks, on their way.
    encrypted: Vec<u8>,
    /// Where the next byte of the inner squashfs belongs.
    position: u64,
}

impl<S: Store> EncryptedPartition<S> {
    /// Begins a partition in `store`, in which everything has the time `mkfs_time`, in seconds since 1970.
    pub(super) fn new(begun: Begun, store: S, mkfs_time: u32) -> Result<Self> {
        let Begun { keys, config, .. } = begun;
        let mut outer = StreamWriter::new(HeldStart { inner: store, start: vec![0; START_BYTES] }, mkfs_time);
        outer.begin(CONFIG_NAME)?;
        outer.append(&config)?;
        let encryptor = Encryptor::new(&keys, ROOT_NAME);
        outer.begin(ROOT_NAME)?;
        outer.append(&encryptor.header())?;
        let first_position = outer.position();
        let first = vec![0; BLOCK_BYTES];
        let mut encrypted = Vec::new();
        // It holds the place.
        encryptor.encrypt(0, &first, &mut encrypted)?;
        outer.append(&vec![0; encrypted.len()])?;
        if outer.position() > ENCRYPTED_START_BYTES {
            return Err(Error::new(ErrorKind::Bug, "the start of an encrypted partition is too long"));
        }
        let (outer, pending) = (Some(outer), Vec::new());
        let position = SUPERBLOCK_BYTES;
        let state = State { keys, encryptor, outer, first, first_position, pending, encrypted, position };
        Ok(EncryptedPartition(Arc::new(Mutex::new(state))))
    }

    /// Ends the partition, whose inner squashfs is complete, with what a SIF in the clear has as objects. Returns the length
    /// in bytes. Apptainer passes that file over.
    pub(super) fn finish(&self, objects: &[u8]) -> Result<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { keys, encryptor, outer, first, first_position, pending, encrypted, position } = &mut *state;
        let mut outer = outer.take().ok_or_else(finished)?;
        let rest = (*position).saturating_sub(pending.len() as u64) / BLOCK_BYTES as u64;
        encrypted.clear();
        encryptor.encrypt(rest, pending, encrypted)?;
        outer.append(encrypted)?;
        encrypted.clear();
        encryptor.encrypt(0, first, encrypted)?;
        outer.overwrite(encrypted, *first_position)?;
        let encryptor = Encryptor::new(keys, HiddenObjects::NAME);
        outer.begin(HiddenObjects::NAME)?;
        outer.append(&encryptor.header())?;
        encrypted.clear();
        encryptor.encrypt(0, objects, encrypted)?;
        outer.append(encrypted)?;
        Ok(outer.finish()?.1)
    }
}

fn finished() -> Error {
    Error::new(ErrorKind::Bug, "an encrypted partition was written after its end")
}

impl<S: Store> Store for EncryptedPartition<S> {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.write_at(bytes, position).map_err(Error::into_io)
    }

    /// What is around this image ends with [`EncryptedPartition::finish`].
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Store> State<S> {
    fn write_at(&mut self, mut bytes: &[u8], position: u64) -> Result<()> {
        if position == 0 && bytes.len() as u64 == SUPERBLOCK_BYTES {
            self.first[..bytes.len()].copy_from_slice(bytes);
            return Ok(());
        }
        if position != self.position {
            let message = format!("an encrypted squashfs was written out of order, at {position}");
            return Err(Error::new(ErrorKind::Bug, message));
        }
        self.position += bytes.len() as u64;
        if let Some(place) = self.first.get_mut(position as usize..) {
            let (now, later) = bytes.split_at(bytes.len().min(place.len()));
            place[..now.len()].copy_from_slice(now);
            bytes = later;
        }
        let outer = self.outer.as_mut().ok_or_else(finished)?;
        let mut block = (self.position - (bytes.len() + self.pending.len()) as u64) / BLOCK_BYTES as u64;
        self.encrypted.clear();
        if !self.pending.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() < BLOCK_BYTES {
                return Ok(());
            }
            self.encryptor.encrypt(block, &self.pending, &mut self.encrypted)?;
            self.pending.clear();
            block += 1;
        }
        let (whole, rest) = bytes.split_at(bytes.len() / BLOCK_BYTES * BLOCK_BYTES);
        self.encryptor.encrypt(block, whole, &mut self.encrypted)?;
        self.pending.extend_from_slice(rest);
        outer.append(&self.encrypted)
    }
}

/// Keeps the start of a partition until everything else is written.
struct HeldStart<S> {
    inner: S,
    start: Vec<u8>,
}

impl<S: Store> Store for HeldStart<S> {
    fn write_at(&mut self, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        if let Some(place) = self.start.get_mut(usize::try_from(position).unwrap_or(usize::MAX)..) {
            let (now, later) = bytes.split_at(bytes.len().min(place.len()));
            place[..now.len()].copy_from_slice(now);
            position += now.len() as u64;
            bytes = later;
        }
        if bytes.is_empty() { Ok(()) } else { self.inner.write_at(bytes, position) }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.inner.write_at(&self.start, 0)?;
        self.inner.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::gocryptfs::{Decryptor, HEADER_BYTES};
    use crate::io::Monitor;
    use crate::squashfs::Image;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Store for Shared {
        fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
            self.0.lock().unwrap().write_at(bytes, position)
        }

        fn finish(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn encryption() -> Encryption {
        Encryption::Passphrase(Passphrase::new(b"secret".to_vec()).unwrap())
    }

    fn file(image: &Image<Vec<u8>>, name: &[u8]) -> Vec<u8> {
        let entry = image.entries().map(Result::unwrap).find(|entry| entry.path == name).unwrap();
        let mut bytes = Vec::new();
        image.copy_file(&entry.inode, &mut bytes).unwrap();
        bytes
    }

    /// Written in pieces of any size, the superblock last: what comes out of it is what went in.
    #[test]
    fn every_length_in_every_piece_comes_back() {
        let begun = encryption().begin("x").unwrap();
        let (keys, config) = (begun.keys.clone(), begun.config.clone());
        for (length, piece) in
            [(4096, 4000), (4096, 1), (8192, 777), (20_480, 4096), (600_064, 131_072), (12_288, 9000)]
        {
            let plain: Vec<u8> = (0..length).map(|at: u32| (at / 3) as u8).collect();
            let store = Shared::default();
            let begun = Begun { keys: keys.clone(), config: config.clone(), message: None };
            let partition = EncryptedPartition::new(begun, store.clone(), 7).unwrap();
            let mut inner = partition.clone();
            let mut at = SUPERBLOCK_BYTES as usize;
            while at < plain.len() {
                let end = plain.len().min(at + piece);
                inner.write_at(&plain[at..end], at as u64).unwrap();
                at = end;
            }
            inner.write_at(&plain[..SUPERBLOCK_BYTES as usize], 0).unwrap();
            let bytes = partition.finish(b"{}").unwrap();
            let image = store.0.lock().unwrap().clone();
            assert_eq!(image.len() as u64, bytes);
            let image = Image::open(image).unwrap();
            image.verify(NonZeroUsize::MIN, &Monitor::default()).unwrap();
            assert_eq!(file(&image, CONFIG_NAME.as_bytes()), config);
            for (name, expected) in [(ROOT_NAME, &plain[..]), (HiddenObjects::NAME, b"{}")] {
                let encrypted = file(&image, name.as_bytes());
                let (header, blocks) = encrypted.split_first_chunk::<HEADER_BYTES>().unwrap();
                let mut back = Vec::new();
                Decryptor::new(&keys, header).unwrap().decrypt(0, blocks, &mut back).unwrap();
                assert!(back == expected, "{name}, {length} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn writing_out_of_order_is_a_bug() {
        let mut partition = EncryptedPartition::new(encryption().begin("x").unwrap(), Vec::new(), 0).unwrap();
        assert!(partition.write_at(b"x", 4096).is_err());
    }

    #[test]
    fn nothing_of_a_passphrase_is_told() {
        assert_eq!(encryption().kind(), "passphrase");
        assert!(!format!("{:?}", encryption()).contains("secret"));
    }
}
