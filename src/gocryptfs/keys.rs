use std::fmt;

use aes_gcm::KeyInit;
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::config::{Config, KEY_BYTES, SALT_BYTES, WRAPPED_BYTES};
use super::content::Gcm;
use crate::error::{Error, ErrorKind, Result};
use aes_gcm::aead::AeadInOut;

/// What gocryptfs derives the key of contents with, and the key that wraps the master key.
const CONTENT_INFO: &str = "AES-GCM file content encryption";
/// What everything that is derived here and drawn at random there is derived with.
const OWN_INFO: &str = "sif-convert gocryptfs 1";
/// Block 0 of no file: what authenticates a wrapped master key.
const WRAPPING_ASSOCIATED: [u8; 8] = [0; 8];
/// The longest passphrase that gocryptfs reads, in bytes.
const PASSPHRASE_BYTES_MAX: usize = 2048;
/// How many bytes of randomness a random passphrase has; Apptainer's have as many.
const RANDOM_BYTES: usize = 16;

/// A passphrase. It is wiped from memory when dropped, and never shown.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

impl Passphrase {
    /// Takes a passphrase; one end of line after it is not a part of it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an empty one, and for what gocryptfs cannot read: more than one line, or more than 2048
    /// bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self> {
        let mut bytes = Zeroizing::new(bytes);
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let refuse = |message: &str, hint| Err(Error::new(ErrorKind::Usage, message).hint(hint));
        if bytes.is_empty() {
            return refuse("the passphrase is empty", "choose a long one, for example: openssl rand -base64 32");
        }
        if bytes.iter().any(|byte| matches!(byte, b'\n' | 0)) {
            return refuse("the passphrase has more than one line", "write it in one line of text");
        }
        if bytes.len() > PASSPHRASE_BYTES_MAX {
            return refuse(
                "the passphrase has more than 2048 bytes",
                "choose a shorter one; 32 random bytes are enough",
            );
        }
        Ok(Passphrase(bytes))
    }

    /// 128 random bits as 32 hexadecimal digits: what a public key encrypts.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn random() -> Result<Self> {
        let bytes = random::<RANDOM_BYTES>()?;
        let mut digits = Zeroizing::new(Vec::with_capacity(2 * RANDOM_BYTES));
        for byte in bytes.iter() {
            digits.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        Ok(Passphrase(digits))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Random bytes of the operating system.
pub(super) fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    let failed = |error| Error::new(ErrorKind::Other, format!("the system gives no random bytes: {error}"));
    getrandom::fill(&mut *bytes).map_err(failed)?;
    Ok(bytes)
}

/// The master key of one encrypted directory. It is wiped from memory when dropped.
#[derive(Clone)]
pub(crate) struct Keys(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Keys {
    /// Makes a directory's master key and its `gocryptfs.conf`: the same for the same passphrase and `context`, which says
    /// what is encrypted and is not a secret. Takes 64 MiB of memory and a fraction of a second.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn derive(passphrase: &Passphrase, context: &[u8]) -> Result<(Self, Vec<u8>)> {
        let salt: [u8; SALT_BYTES] =
            Sha256::new().chain_update(OWN_INFO).chain_update(b" salt\0").chain_update(context).finalize().into();
        Self::with_salt(passphrase, salt)
    }

    /// The same with a random salt, so that no two directories have the same key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn random(passphrase: &Passphrase) -> Result<(Self, Vec<u8>)> {
        Self::with_salt(passphrase, *random()?)
    }

    fn with_salt(passphrase: &Passphrase, salt: [u8; SALT_BYTES]) -> Result<(Self, Vec<u8>)> {
        let mut config = Config::new(salt);
        let wrapping = config.wrapping_key(passphrase)?;
        let keys = Keys(expand(&wrapping, &[OWN_INFO, "master key"]));
        let nonce = *expand::<16>(&wrapping, &[OWN_INFO, "wrapping nonce"]);
        let mut key = keys.0.clone();
        let sealed = gcm(&wrapping).encrypt_inout_detached(&nonce.into(), &WRAPPING_ASSOCIATED, (&mut key[..]).into());
        let tag = sealed.map_err(|_| Error::new(ErrorKind::Bug, "a key is too long to be encrypted"))?;
        config.wrapped[..16].copy_from_slice(&nonce);
        config.wrapped[16..16 + KEY_BYTES].copy_from_slice(&key[..]);
        config.wrapped[16 + KEY_BYTES..].copy_from_slice(&tag);
        Ok((keys, config.to_json()))
    }

    /// Reads the master key out of a `gocryptfs.conf` of any maker's.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] for a wrong passphrase; [`ErrorKind::InvalidImage`] when the file is damaged;
    /// [`ErrorKind::Unsupported`] for what Apptainer does not write.
    pub(crate) fn unlock(config: &[u8], passphrase: &Passphrase) -> Result<Self> {
        let config = Config::parse(config)?;
        let wrapping = config.wrapping_key(passphrase)?;
        let (nonce, rest) = config.wrapped.split_at(16);
        let (key, tag) = rest.split_at(KEY_BYTES);
        let mut keys = Keys(Zeroizing::new([0; KEY_BYTES]));
        keys.0.copy_from_slice(key);
        let wrong =
            || Error::new(ErrorKind::Mismatch, "the passphrase or key is not the one that it was encrypted with");
        let (Ok(nonce), Ok(tag)) = (nonce.try_into(), tag.try_into()) else { return Err(wrong()) };
        let opened = gcm(&wrapping).decrypt_inout_detached(nonce, &WRAPPING_ASSOCIATED, (&mut keys.0[..]).into(), tag);
        opened
            .map_err(|_| wrong().hint("give the right one; if it is right, gocryptfs.conf in the file is damaged"))?;
        Ok(keys)
    }

    /// Encrypts and decrypts contents.
    pub(super) fn content(&self) -> Gcm {
        gcm(&self.0)
    }

    /// A secret for another purpose.
    pub(super) fn expand<const N: usize>(&self, purpose: &[&str]) -> Zeroizing<[u8; N]> {
        expand(&self.0, &[&[OWN_INFO], purpose].concat())
    }
}

fn gcm(key: &Zeroizing<[u8; KEY_BYTES]>) -> Gcm {
    let content = expand::<KEY_BYTES>(key, &[CONTENT_INFO]);
    Gcm::new((&*content).into())
}

/// HKDF with SHA-256. Parts of the purpose are kept apart by NUL, which none of them holds.
fn expand<const N: usize>(key: &Zeroizing<[u8; KEY_BYTES]>, purpose: &[&str]) -> Zeroizing<[u8; N]> {
    let mut derived = Zeroizing::new([0; N]);
    // It fails for more than 8160 bytes only.
    let made = Hkdf::<Sha256>::new(None, &key[..]).expand(purpose.join("\0").as_bytes(), &mut *derived);
    debug_assert!(made.is_ok());
    derived
}

const _: () = assert!(WRAPPED_BYTES == 16 + KEY_BYTES + 16);
