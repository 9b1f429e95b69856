//! Keys and signatures: who made something, checked against keys that are given.
//!
//! The idea to hold: a signature is checked over bytes before anything in those bytes is believed, and only by a key that
//! the caller names, or whose certificate leads to roots that the caller names. All cryptography comes from ring (checks,
//! RSA) and RustCrypto (Ed25519, ECDSA, encrypted keys), chains are checked by webpki.
//! What is signed (SIF objects, image manifests) is for others to know.

mod certificate;
mod cosign_key;
mod dsse;
mod identity;
mod image_policy;
mod key_id;
mod pem;
mod policy_file;
mod private_key;
mod public_key;
mod rekor;
mod signers;

#[cfg(test)]
mod tests;

pub use certificate::{Certificate, Roots};
pub use dsse::Envelope;
pub use image_policy::{FoundSignature, ImagePolicy, SignatureBytes};
pub use policy_file::PolicyFile;
pub use private_key::PrivateKey;
pub use public_key::{PublicKey, SignatureHash};
pub use signers::CertifiedSigners;
pub use zeroize::Zeroizing;

use crate::error::Result;

/// Asks for the passphrase of a key, once it is known to need one.
pub type AskPassphrase<'a> = &'a dyn Fn() -> Result<Zeroizing<Vec<u8>>>;
