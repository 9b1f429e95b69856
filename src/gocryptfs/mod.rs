//! Files as gocryptfs encrypts them (AES-256-GCM, version 2 of its format), and the key of such a directory: what
//! Apptainer 1.2 and newer mounts, without gocryptfs, FUSE or a file in the clear.
//!
//! ```text
//! gocryptfs.conf   scrypt(passphrase, salt) ──► key that wraps the master key ──HKDF──► key of the contents
//!
//! an encrypted file
//!   0 ┌────────────────────────────┐
//!     │ version 2, file ID         │ 2 + 16 bytes
//!  18 ├────────────────────────────┤
//!     │ nonce, ciphertext, tag     │ 16 + 4096 + 16 bytes: block 0
//!     │ …                          │ the last one holds what is left
//!     └────────────────────────────┘
//! ```
//!
//! The idea to hold: **the same input under the same passphrase gives the same bytes, and no nonce serves two contents.**
//! gocryptfs draws salt, master key, file IDs and nonces at random; here they are derived (`Keys::derive`,
//! `Encryptor`):
//!
//! * The salt is a hash of a context: what is converted, and how. It must not depend on the passphrase: whoever reads it
//!   could try passphrases against it without paying for scrypt.
//! * The master key comes from what scrypt makes of passphrase and salt, so it differs from one context to the next.
//! * A block's nonce is a pseudorandom function of its file, its number and its plaintext, under a key of its own: the tag of
//!   AES-256-GCM-SIV (RFC 8452) over the plaintext as associated data, with the block's number as nonce. Two blocks get the
//!   same nonce if they have the same file, number and plaintext, which gives the same ciphertext, and otherwise as
//!   rarely as two random numbers of 128 bits are equal. This does not rely on the context: if another version of this
//!   program, a layer with the wrong digest or a changed directory gives other contents under the same master key, the
//!   nonces of the blocks that differ are others, too.
//!
//! What an observer without the key learns beyond what random values would tell is in docs/security.md.
//!
//! This room knows neither SIF nor squashfs, and opens no files.

mod config;
mod content;
mod keys;
mod message;

#[cfg(test)]
mod tests;

pub(crate) use config::CONFIG_NAME;
pub(crate) use content::{BLOCK_BYTES, Decryptor, Encryptor, HEADER_BYTES, plain_bytes};
pub(crate) use keys::Keys;
pub use keys::Passphrase;
pub use message::{PrivateKey, PublicKey, Secret};
