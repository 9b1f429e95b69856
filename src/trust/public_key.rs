use std::fmt;

use pkcs8::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use pkcs8::der::{Decode, Encode, Reader, SliceReader};
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};

use super::{key_id, pem};
use crate::error::{Error, ErrorKind, Result};

/// `id-ecPublicKey`, RFC 5480.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `id-Ed25519`, RFC 8410.
const ED25519_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// `rsaEncryption`, RFC 8017.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// `secp256r1`, RFC 5480.
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// `secp384r1`, RFC 5480.
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// What a signature is over, where the kind of key leaves that open. Ed25519 has its own hash and takes no notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureHash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ed25519,
    P256,
    P384,
    Rsa,
}

/// A key that checks signatures: Ed25519, ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    /// A point, the 32 bytes of Ed25519, or `RSAPublicKey` in DER.
    bits: Vec<u8>,
}

impl PublicKey {
    /// Reads a public key in PEM, as `openssl pkey -pubout` and `cosign generate-key-pair` write it; an RSA key also as PKCS #1,
    /// as `openssl rsa -RSAPublicKey_out` does.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it is none, or of a kind that is not supported.
    pub fn from_pem(text: &[u8]) -> Result<Self> {
        let blocks = pem::blocks(text)?;
        let [block] = blocks.as_slice() else {
            let message = format!("{} PEM blocks where one public key is wanted", blocks.len());
            return Err(Error::new(ErrorKind::Unsupported, message).hint("put one public key in each file"));
        };
        match block.label.as_str() {
            "PUBLIC KEY" => Self::from_spki(&block.der),
            "RSA PUBLIC KEY" => Self::new(Kind::Rsa, &block.der),
            label => Err(Error::new(ErrorKind::Unsupported, format!("a PEM block {label:?} is not a public key"))
                .hint("write the public key of a pair with: openssl pkey -in KEY.pem -pubout -out PUB.pem")),
        }
    }

    /// Reads a `SubjectPublicKeyInfo`, in DER.
    ///
    /// # Errors
    /// As [`PublicKey::from_pem`].
    pub fn from_spki(der: &[u8]) -> Result<Self> {
        let malformed = |_| unsupported("the public key is malformed");
        let info = SubjectPublicKeyInfoRef::from_der(der).map_err(malformed)?;
        let kind = kind_of(&info.algorithm)?;
        let bits = info.subject_public_key.as_bytes().ok_or_else(|| unsupported("the public key is malformed"))?;
        Self::new(kind, bits)
    }

    pub(super) fn new(kind: Kind, bits: &[u8]) -> Result<Self> {
        let is_sound = match kind {
            Kind::Ed25519 => bits.len() == 32,
            Kind::P256 => bits.len() == 65 && bits[0] == 4,
            Kind::P384 => bits.len() == 97 && bits[0] == 4,
            Kind::Rsa => {
                let (modulus, _) = rsa_numbers(bits)?;
                if !(256..=1024).contains(&modulus.len()) {
                    let message = format!("an RSA key of {} bits: 2048 to 8192 are supported", modulus.len() * 8);
                    return Err(unsupported(message));
                }
                true
            }
        };
        if is_sound {
            Ok(PublicKey { kind, bits: bits.to_vec() })
        } else {
            Err(unsupported("the public key is malformed, or a compressed point"))
        }
    }

    /// Whether `signature` is this key's over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8], hash: SignatureHash) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (self.kind, hash) {
            (Kind::Ed25519, _) => &ED25519,
            (Kind::P256, SignatureHash::Sha256) => &ECDSA_P256_SHA256_ASN1,
            (Kind::P256, SignatureHash::Sha384) => &ECDSA_P256_SHA384_ASN1,
            (Kind::P384, SignatureHash::Sha256) => &ECDSA_P384_SHA256_ASN1,
            (Kind::P384, SignatureHash::Sha384) => &ECDSA_P384_SHA384_ASN1,
            (Kind::P256 | Kind::P384, SignatureHash::Sha512) => return false,
            (Kind::Rsa, SignatureHash::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, SignatureHash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, SignatureHash::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
        };
        UnparsedPublicKey::new(algorithm, &self.bits).verify(message, signature).is_ok()
    }

    /// The key's ID, as `ssh-keygen -l` shows it and Apptainer writes it into signatures.
    pub fn id(&self) -> String {
        match self.kind {
            Kind::Ed25519 => key_id::of_fields(&[b"ssh-ed25519", &self.bits]),
            Kind::P256 => key_id::of_fields(&[b"ecdsa-sha2-nistp256", b"nistp256", &self.bits]),
            Kind::P384 => key_id::of_fields(&[b"ecdsa-sha2-nistp384", b"nistp384", &self.bits]),
            Kind::Rsa => match rsa_numbers(&self.bits) {
                Ok((modulus, exponent)) => {
                    let (modulus, exponent) = (key_id::positive(&modulus), key_id::positive(&exponent));
                    key_id::of_fields(&[b"ssh-rsa", &exponent, &modulus])
                }
                Err(_) => String::new(),
            },
        }
    }

    /// The kind of key, for people.
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Ed25519 => "Ed25519",
            Kind::P256 => "ECDSA P-256",
            Kind::P384 => "ECDSA P-384",
            Kind::Rsa => "RSA",
        }
    }

    /// The key as a `SubjectPublicKeyInfo`, in DER.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when it cannot be encoded.
    pub fn to_spki(&self) -> Result<Vec<u8>> {
        let (oid, parameters) = match &self.kind {
            Kind::Ed25519 => (ED25519_OID, None),
            Kind::P256 => (EC_PUBLIC_KEY, Some(AnyRef::from(&SECP256R1))),
            Kind::P384 => (EC_PUBLIC_KEY, Some(AnyRef::from(&SECP384R1))),
            Kind::Rsa => (RSA_ENCRYPTION, Some(AnyRef::NULL)),
        };
        let algorithm = AlgorithmIdentifierRef { oid, parameters };
        let bits = BitStringRef::from_bytes(&self.bits);
        let encoded =
            bits.and_then(|subject_public_key| SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der());
        encoded.map_err(|error| Error::new(ErrorKind::Bug, format!("a public key cannot be encoded: {error}")))
    }
}

/// Shows who it is, not what it is made of.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id(), self.algorithm())
    }
}

fn kind_of(algorithm: &AlgorithmIdentifierRef<'_>) -> Result<Kind> {
    match algorithm.oid {
        ED25519_OID => Ok(Kind::Ed25519),
        RSA_ENCRYPTION => Ok(Kind::Rsa),
        EC_PUBLIC_KEY => match algorithm.parameters_oid() {
            Ok(SECP256R1) => Ok(Kind::P256),
            Ok(SECP384R1) => Ok(Kind::P384),
            _ => Err(unsupported("a key on an elliptic curve other than P-256 and P-384")),
        },
        other => Err(unsupported(format!("a key for the algorithm {other}"))),
    }
}

/// Modulus and exponent of an `RSAPublicKey`.
fn rsa_numbers(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let read = || -> pkcs8::der::Result<(Vec<u8>, Vec<u8>)> {
        let mut reader = SliceReader::new(der)?;
        reader.sequence(|inner| {
            let modulus = UintRef::decode(inner)?.as_bytes().to_vec();
            Ok((modulus, UintRef::decode(inner)?.as_bytes().to_vec()))
        })
    };
    read().map_err(|_| unsupported("the RSA public key is malformed"))
}

pub(super) fn unsupported(message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Unsupported, message)
        .hint("use a key of Ed25519, ECDSA on P-256 or P-384, or RSA of 2048 bits or more")
}
