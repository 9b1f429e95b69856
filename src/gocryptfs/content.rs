use aes_gcm::aead::consts::U16;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256;
use aes_gcm::{AesGcm, Nonce, Tag};
use aes_gcm_siv::Aes256GcmSiv;

use super::keys::Keys;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of plaintext in a block.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Bytes before the first block: version and file ID.
pub(crate) const HEADER_BYTES: usize = 18;
const FILE_ID_BYTES: usize = HEADER_BYTES - 2;
/// The version of the file format, in its first two bytes.
const VERSION: [u8; 2] = [0, 2];
const NONCE_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// What a block takes beside its plaintext, in bytes.
const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// AES-256-GCM with nonces of 128 bits.
pub(super) type Gcm = AesGcm<Aes256, U16>;

/// How long an encrypted file is that holds `plain` bytes. An empty file is empty.
pub(crate) fn encrypted_bytes(plain: u64) -> u64 {
    match plain {
        0 => 0,
        plain => HEADER_BYTES as u64 + plain + plain.div_ceil(BLOCK_BYTES as u64) * OVERHEAD_BYTES as u64,
    }
}

/// How many bytes a file holds that is `encrypted` bytes long; `None` where no file has that length.
pub(crate) fn plain_bytes(encrypted: u64) -> Option<u64> {
    if encrypted == 0 {
        return Some(0);
    }
    let blocks_bytes = encrypted.checked_sub(HEADER_BYTES as u64).filter(|&bytes| bytes > 0)?;
    let overhead = blocks_bytes.div_ceil((BLOCK_BYTES + OVERHEAD_BYTES) as u64) * OVERHEAD_BYTES as u64;
    let plain = blocks_bytes.checked_sub(overhead)?;
    (encrypted_bytes(plain) == encrypted).then_some(plain)
}

/// What authenticates a block's place: its number, and the file that it is in.
fn associated(number: u64, file_id: &[u8]) -> [u8; 8 + FILE_ID_BYTES] {
    let mut bytes = [0; 8 + FILE_ID_BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(file_id);
    bytes
}

/// Encrypts the blocks of one file.
pub(crate) struct Encryptor {
    content: Gcm,
    nonces: Aes256GcmSiv,
    file_id: [u8; FILE_ID_BYTES],
}

impl Encryptor {
    /// For the file called `name`. Within one directory, each name stands for one content.
    pub(crate) fn new(keys: &Keys, name: &str) -> Self {
        let nonces = keys.expand::<32>(&["nonces", name]);
        Encryptor {
            content: keys.content(),
            nonces: Aes256GcmSiv::new((&*nonces).into()),
            file_id: *keys.expand(&["file ID", name]),
        }
    }

    /// What the file begins with.
    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&VERSION);
        header[2..].copy_from_slice(&self.file_id);
        header
    }

    /// Appends the encrypted form of `plain`, the blocks from number `first` on, to `out`. Only the last of them may be
    /// shorter than [`BLOCK_BYTES`], and only at the end of the file.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`]: no block is long enough to be refused.
    pub(crate) fn encrypt(&self, first: u64, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.reserve(plain.len() + plain.len().div_ceil(BLOCK_BYTES) * OVERHEAD_BYTES);
        for (number, block) in (first..).zip(plain.chunks(BLOCK_BYTES)) {
            let nonce = self.nonce(number, block)?;
            let start = out.len();
            out.extend_from_slice(&nonce);
            out.extend_from_slice(block);
            let associated = associated(number, &self.file_id);
            let bytes = &mut out[start + NONCE_BYTES..];
            let tag = self.content.encrypt_inout_detached(&nonce, &associated, bytes.into()).map_err(|_| too_long())?;
            out.extend_from_slice(&tag);
        }
        Ok(())
    }

    /// A pseudorandom function of file (which has a key of its own), number and plaintext: see the room's description.
    fn nonce(&self, number: u64, plain: &[u8]) -> Result<Nonce<U16>> {
        let mut of_number = [0; 12];
        of_number[4..].copy_from_slice(&number.to_be_bytes());
        let nothing: &mut [u8] = &mut [];
        let tag = self.nonces.encrypt_inout_detached(&of_number.into(), plain, nothing.into());
        tag.map_err(|_| too_long())
    }
}

fn too_long() -> Error {
    Error::new(ErrorKind::Bug, "a block is too long to be encrypted")
}

/// Decrypts the blocks of one file, whoever wrote it.
pub(crate) struct Decryptor {
    content: Gcm,
    file_id: [u8; FILE_ID_BYTES],
}

impl Decryptor {
    /// For a file that begins with `header`.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another version of the format.
    pub(crate) fn new(keys: &Keys, header: &[u8; HEADER_BYTES]) -> Result<Self> {
        if header[..2] != VERSION {
            let version = u16::from_be_bytes([header[0], header[1]]);
            let message = format!("the encrypted file is of version {version} of gocryptfs's format, not 2");
            return Err(
                Error::new(ErrorKind::Unsupported, message).hint("encrypt it again with gocryptfs 1.3 or newer")
            );
        }
        let mut file_id = [0; FILE_ID_BYTES];
        file_id.copy_from_slice(&header[2..]);
        Ok(Decryptor { content: keys.content(), file_id })
    }

    /// Appends the plaintext of `encrypted`, the blocks from number `first` on, to `out`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] naming the first block that is not what was encrypted there.
    pub(crate) fn decrypt(&self, first: u64, encrypted: &[u8], out: &mut Vec<u8>) -> Result<()> {
        for (number, block) in (first..).zip(encrypted.chunks(BLOCK_BYTES + OVERHEAD_BYTES)) {
            let damaged = || Error::new(ErrorKind::InvalidImage, format!("encrypted block {number} is damaged"));
            // gocryptfs leaves a hole where nothing was written.
            if block.len() == BLOCK_BYTES + OVERHEAD_BYTES && block.iter().all(|&byte| byte == 0) {
                out.resize(out.len() + BLOCK_BYTES, 0);
                continue;
            }
            let (nonce, rest) = block.split_first_chunk::<NONCE_BYTES>().ok_or_else(damaged)?;
            let (bytes, tag) = rest.split_last_chunk::<TAG_BYTES>().ok_or_else(damaged)?;
            let start = out.len();
            out.extend_from_slice(bytes);
            let associated = associated(number, &self.file_id);
            let tag: &Tag = tag.into();
            let opened =
                self.content.decrypt_inout_detached(nonce.into(), &associated, (&mut out[start..]).into(), tag);
            if opened.is_err() {
                out.truncate(start);
                return Err(damaged());
            }
        }
        Ok(())
    }
}
