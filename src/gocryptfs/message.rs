//! The passphrase of an encrypted SIF under an RSA key, as Apptainer stores it in a SIF: RSA-OAEP with SHA-256, in pieces
//! as long as the key allows, in an ASN.1 OCTET STRING, as PEM of the type `MESSAGE`.

use std::fmt;

use rsa::pkcs1::{DecodeRsaPrivateKey, DecodeRsaPublicKey};
use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{pkcs8, sha2};
use zeroize::Zeroizing;

use super::keys::Passphrase;
use crate::error::{Error, ErrorKind, Result};

/// The type of the PEM.
const LABEL: &str = "MESSAGE";
/// What RSA-OAEP with SHA-256 takes of a piece, in bytes.
const OAEP_BYTES: usize = 2 * 32 + 2;
/// Shorter RSA keys protect nothing (NIST SP 800-131A), in bits.
const KEY_BITS_MIN: usize = 2048;

const MAKE_KEYS: &str = "make a key with: openssl genrsa -traditional -out key.pem 4096; openssl rsa -in key.pem -RSAPublicKey_out -out pub.pem";

/// An RSA key to encrypt with.
#[derive(Clone)]
pub struct PublicKey(rsa::PublicKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bits)", self.0.n().bit_width())
    }
}

/// An RSA key to decrypt with. It is wiped from memory when dropped, and never shown.
#[derive(Clone)]
pub struct PrivateKey(rsa::PrivateKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

impl PublicKey {
    /// Reads a key in PEM: `RSA PUBLIC KEY` (PKCS #1) or `PUBLIC KEY` (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for anything else, and for a key of less than 2048 bits.
    pub fn parse(pem: &str) -> Result<Self> {
        let pem = pem.trim();
        let key = match label(pem) {
            Some("RSA PUBLIC KEY") => rsa::PublicKey::from_pkcs1_pem(pem).map_err(|error| malformed(&error))?,
            Some("PUBLIC KEY") => rsa::PublicKey::from_public_key_pem(pem).map_err(unfit)?,
            other => return Err(another("a public RSA key", other)),
        };
        if (key.n().bit_width() as usize) < KEY_BITS_MIN {
            let message = format!("the RSA key has {} bits, fewer than {KEY_BITS_MIN}", key.n().bit_width());
            return Err(Error::new(ErrorKind::Usage, message).hint("make one with: openssl genrsa -traditional 4096"));
        }
        Ok(PublicKey(key))
    }

    /// Tells keys apart: SHA-256 of modulus and exponent.
    pub fn fingerprint(&self) -> [u8; 32] {
        let parts = [self.0.n().to_be_bytes(), self.0.e().to_be_bytes()];
        let mut hash = sha2::Sha256::default();
        for part in parts {
            sha2::Digest::update(&mut hash, (part.len() as u64).to_be_bytes());
            sha2::Digest::update(&mut hash, &part);
        }
        sha2::Digest::finalize(hash).into()
    }

    /// Encrypts a passphrase. RSA-OAEP is randomised: no two messages are equal.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn seal(&self, passphrase: &Passphrase) -> Result<Vec<u8>> {
        let failed = |error: &dyn fmt::Display| Error::new(ErrorKind::Other, format!("RSA encryption: {error}"));
        let mut sealed = Vec::new();
        for piece in passphrase.bytes().chunks(self.0.size() - OAEP_BYTES) {
            sealed.extend(self.0.oaep_encrypt::<sha2::Sha256>(piece).map_err(|error| failed(&error))?);
        }
        let string = pkcs8::der::asn1::OctetString::new(sealed).map_err(|error| failed(&error))?;
        let der = pkcs8::der::Encode::to_der(&string).map_err(|error| failed(&error))?;
        let text = pkcs8::der::pem::encode_string(LABEL, pkcs8::der::pem::LineEnding::LF, &der);
        text.map(String::into_bytes).map_err(|error| failed(&error))
    }
}

impl PrivateKey {
    /// Reads a key in PEM: `RSA PRIVATE KEY` (PKCS #1) or `PRIVATE KEY` (PKCS #8), not encrypted.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for anything else.
    pub fn parse(pem: &str) -> Result<Self> {
        let pem = pem.trim();
        if pem.contains("ENCRYPTED") {
            return Err(Error::new(ErrorKind::Usage, "the RSA key is encrypted with a passphrase")
                .hint("decrypt it first: openssl rsa -traditional -in KEY.pem -out PLAIN.pem"));
        }
        match label(pem) {
            Some("RSA PRIVATE KEY") => rsa::PrivateKey::from_pkcs1_pem(pem).map_err(|error| malformed(&error)),
            Some("PRIVATE KEY") => rsa::PrivateKey::from_pkcs8_pem(pem).map_err(|error| match error {
                pkcs8::Error::PublicKey(error) => unfit(error),
                other => malformed(&other),
            }),
            other => return Err(another("a private RSA key", other)),
        }
        .map(PrivateKey)
    }

    /// Decrypts the passphrase in `message`.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when it was encrypted for another key; [`ErrorKind::InvalidImage`] when it is damaged.
    pub fn open(&self, message: &[u8]) -> Result<Passphrase> {
        let damaged = |what: &dyn fmt::Display| {
            Error::new(ErrorKind::InvalidImage, format!("the message that holds the key is damaged: {what}"))
                .hint("fetch the file again")
        };
        let (label, der) = pkcs8::der::pem::decode_vec(message).map_err(|error| damaged(&error))?;
        if label != LABEL {
            return Err(damaged(&format_args!("it is PEM of another type, {label:?}")));
        }
        let string: pkcs8::der::asn1::OctetString =
            pkcs8::der::Decode::from_der(&der).map_err(|error| damaged(&error))?;
        let size = self.0.size();
        let sealed = string.as_bytes();
        let other =
            || Error::new(ErrorKind::Mismatch, "it is encrypted for another RSA key").hint("give the key that fits");
        if sealed.is_empty() || !sealed.len().is_multiple_of(size) {
            return Err(other());
        }
        let mut passphrase = Zeroizing::new(Vec::new());
        for piece in sealed.chunks(size) {
            let opened = Zeroizing::new(self.0.oaep_decrypt::<sha2::Sha256>(piece).map_err(|_| other())?);
            passphrase.extend_from_slice(&opened);
        }
        Passphrase::new(std::mem::take(&mut *passphrase))
    }

    /// The key to encrypt with that belongs to it.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.to_public_key())
    }
}

/// What an encrypted SIF is opened with.
#[derive(Debug, Clone)]
pub enum Secret {
    /// Its passphrase.
    Passphrase(Passphrase),
    /// The RSA key that its passphrase is encrypted for.
    PrivateKey(Box<PrivateKey>),
}

impl Secret {
    /// The passphrase of a SIF that holds this `message`, if any.
    ///
    /// # Errors
    /// As [`PrivateKey::open`]; [`ErrorKind::Mismatch`] where there is nothing for an RSA key to open.
    pub fn passphrase(&self, message: Option<&[u8]>) -> Result<Passphrase> {
        match (self, message) {
            (Secret::Passphrase(passphrase), _) => Ok(passphrase.clone()),
            (Secret::PrivateKey(key), Some(message)) => key.open(message),
            (Secret::PrivateKey(_), None) => {
                let message = "it is encrypted with a passphrase, not for an RSA key";
                Err(Error::new(ErrorKind::Mismatch, message).hint("give the passphrase"))
            }
        }
    }
}

/// The type of a PEM.
fn label(pem: &str) -> Option<&str> {
    pem.strip_prefix("-----BEGIN ")?.split_once("-----").map(|(label, _)| label)
}

/// A key of another kind is not malformed.
fn unfit(error: pkcs8::spki::Error) -> Error {
    match error {
        pkcs8::spki::Error::OidUnknown { .. } => {
            Error::new(ErrorKind::Usage, "an RSA key is needed, this is one of another kind").hint(MAKE_KEYS)
        }
        other => malformed(&other),
    }
}

fn malformed(error: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, format!("the RSA key is malformed: {error}"))
        .hint("make it again, for example with openssl")
}

fn another(expected: &str, found: Option<&str>) -> Error {
    let found = found.map_or_else(|| "no PEM".to_string(), |label| format!("PEM of the type {label:?}"));
    Error::new(ErrorKind::Usage, format!("{expected} is needed, this is {found}")).hint(MAKE_KEYS)
}
