use std::fmt;
use std::sync::Arc;

use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use pkcs8::der::asn1::UintRef;
use pkcs8::der::{Decode as _, Reader as _, SliceReader};
use pkcs8::{DecodePrivateKey as _, EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use zeroize::Zeroizing;

use super::public_key::{Kind, PublicKey, unsupported};
use super::{AskPassphrase, cosign_key, pem};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Digest;

/// A key that signs. Copies share one key in memory, which is wiped when the last of them goes.
#[derive(Clone)]
pub struct PrivateKey(Arc<Pair>);

struct Pair {
    secret: Secret,
    public: PublicKey,
}

enum Secret {
    Ed25519(ed25519_dalek::SigningKey),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// Reads a private key in PEM: PKCS#8, encrypted or not; SEC 1 and PKCS#1 as OpenSSL wrote them; the encrypted keys of
    /// `cosign generate-key-pair`. `passphrase` is asked where the key is encrypted.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it is none, or of a kind that is not supported; [`ErrorKind::Usage`] when the
    /// passphrase is wrong; those of `passphrase`.
    pub fn from_pem(text: &[u8], passphrase: AskPassphrase<'_>) -> Result<Self> {
        let blocks = pem::blocks(text)?;
        let is_key = |block: &&pem::Block| block.label.ends_with("PRIVATE KEY");
        let mut keys = blocks.iter().filter(is_key);
        let (Some(block), None) = (keys.next(), keys.next()) else {
            let label = blocks.first().map_or("", |block| &block.label);
            let message = format!("not one private key in PEM (the first block is {label:?})");
            return Err(Error::new(ErrorKind::Unsupported, message).hint("put one private key in a file of its own"));
        };
        match block.label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8(&block.der),
            "EC PRIVATE KEY" => Self::from_sec1(&block.der),
            "RSA PRIVATE KEY" => Self::from_rsa(&block.der, RsaKeyPair::from_der(&block.der)),
            "ENCRYPTED PRIVATE KEY" => {
                let info = EncryptedPrivateKeyInfoRef::from_der(&block.der).map_err(|_| malformed())?;
                let document = info.decrypt(&*passphrase()?).map_err(|error| match error {
                    pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::DecryptFailed) => wrong_passphrase(),
                    pkcs8::Error::EncryptedPrivateKey(_) => {
                        unsupported("the key is encrypted in a way that is not supported")
                            .hint("encrypt it anew with: openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD.pem -out NEW.pem")
                    }
                    // A wrong key that happens to leave a sound padding.
                    _ => wrong_passphrase(),
                })?;
                Self::from_pkcs8(document.as_bytes())
            }
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                Self::from_pkcs8(&cosign_key::decrypt(&block.der, &passphrase()?)?)
            }
            label => Err(unsupported(format!("a PEM block {label:?} is not supported"))),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self> {
        let info = PrivateKeyInfoRef::from_der(der).map_err(|_| malformed())?;
        match info.algorithm.oid.to_string().as_str() {
            "1.3.101.112" => {
                let key = ed25519_dalek::SigningKey::from_pkcs8_der(der).map_err(|_| malformed())?;
                let public = PublicKey::new(Kind::Ed25519, key.verifying_key().as_bytes())?;
                Ok(Self::new(Secret::Ed25519(key), public))
            }
            "1.2.840.113549.1.1.1" => Self::from_rsa(info.private_key.as_bytes(), RsaKeyPair::from_pkcs8(der)),
            "1.2.840.10045.2.1" => match p256::SecretKey::from_pkcs8_der(der) {
                Ok(key) => Self::from_p256(key),
                Err(_) => Self::from_p384(p384::SecretKey::from_pkcs8_der(der).map_err(|_| other_curve())?),
            },
            other => Err(unsupported(format!("a key for the algorithm {other}"))),
        }
    }

    fn from_sec1(der: &[u8]) -> Result<Self> {
        match p256::SecretKey::from_sec1_der(der) {
            Ok(key) => Self::from_p256(key),
            Err(_) => Self::from_p384(p384::SecretKey::from_sec1_der(der).map_err(|_| other_curve())?),
        }
    }

    fn from_p256(key: p256::SecretKey) -> Result<Self> {
        let key = p256::ecdsa::SigningKey::from(key);
        let public = PublicKey::new(Kind::P256, key.verifying_key().to_sec1_point(false).as_bytes())?;
        Ok(Self::new(Secret::P256(key), public))
    }

    fn from_p384(key: p384::SecretKey) -> Result<Self> {
        let key = p384::ecdsa::SigningKey::from(key);
        let public = PublicKey::new(Kind::P384, key.verifying_key().to_sec1_point(false).as_bytes())?;
        Ok(Self::new(Secret::P384(key), public))
    }

    /// `der` is the key as an `RSAPrivateKey`.
    fn from_rsa(der: &[u8], key: std::result::Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<Self> {
        let key = key.map_err(|error| {
            // ring has one word for a modulus and for an exponent that is too small.
            if has_small_exponent(der) {
                return unsupported("the RSA key is not accepted: its public exponent is less than 65537")
                    .hint("use an RSA key with the usual public exponent 65537, or better one of Ed25519");
            }
            unsupported(format!("the RSA key is not accepted: {error}"))
                .hint("use an RSA key of 2048 to 4096 bits, or better one of Ed25519")
        })?;
        let public = PublicKey::new(Kind::Rsa, key.public_key().as_ref())?;
        Ok(Self::new(Secret::Rsa(key), public))
    }

    fn new(secret: Secret, public: PublicKey) -> Self {
        PrivateKey(Arc::new(Pair { secret, public }))
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> &PublicKey {
        &self.0.public
    }

    /// Signs `message`, with SHA-256 where the kind of key leaves that open. The same key and message give the same
    /// signature: ECDSA takes its nonce from them (RFC 6979), RSA is PKCS#1 v1.5.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when the system has no random numbers, or the key is not sound.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| Error::new(ErrorKind::Other, "the key cannot sign").hint("check it with: openssl pkey -check");
        let digest = Digest::of(message);
        match &self.0.secret {
            Secret::Ed25519(key) => Ok(key.sign(message).to_vec()),
            Secret::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(digest.as_bytes()).map_err(failed)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Secret::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(digest.as_bytes()).map_err(failed)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Secret::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let signed = key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature);
                signed.map_err(|_| failed(p256::ecdsa::Error::new()))?;
                Ok(signature)
            }
        }
    }
}

/// Shows whose it is, never what it is made of.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.0.public)
    }
}

/// Whether the public exponent of an `RSAPrivateKey` (RFC 8017, A.1.2) is one that is not accepted.
fn has_small_exponent(der: &[u8]) -> bool {
    let mut is_small = false;
    // What follows the exponent is not read, which is an error here.
    let _ = SliceReader::new(der).and_then(|mut reader| {
        reader.sequence(|inner| {
            let [_version, _modulus, exponent] =
                [UintRef::decode(inner)?, UintRef::decode(inner)?, UintRef::decode(inner)?];
            let exponent = exponent.as_bytes();
            is_small = exponent.len() < 3 || exponent.len() == 3 && exponent < &[1, 0, 1][..];
            pkcs8::der::Result::Ok(())
        })
    });
    is_small
}

fn malformed() -> Error {
    unsupported("the private key is malformed")
}

fn other_curve() -> Error {
    unsupported("the private key is malformed, or on an elliptic curve other than P-256 and P-384")
}

pub(super) fn wrong_passphrase() -> Error {
    Error::new(ErrorKind::Usage, "the passphrase is not the one of the key").hint("give the passphrase of this key")
}

/// Bytes that are wiped when they go.
pub(super) type SecretBytes = Zeroizing<Vec<u8>>;
