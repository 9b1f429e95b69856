//! The encrypted keys that `cosign generate-key-pair` writes: JSON in a PEM block, with scrypt and NaCl's secretbox
//! (<https://github.com/secure-systems-lab/go-securesystemslib/blob/main/encrypted/encrypted.go>).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use scrypt::Params;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::private_key::{SecretBytes, wrong_passphrase};
use super::public_key::unsupported;
use crate::error::Result;

/// What scrypt may cost; cosign asks for N = 2^15 or 2^16, r = 8, p = 1 (64 MiB).
const LOG_N_MAX: u32 = 20;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

#[derive(Deserialize)]
struct Document {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: KdfParams,
    salt: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct KdfParams {
    n: u32,
    #[serde(rename = "r")]
    r: u32,
    #[serde(rename = "p")]
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// The PKCS#8 document inside.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::ErrorKind::Usage) when the passphrase is wrong,
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the key is encrypted in another way.
pub(super) fn decrypt(json: &[u8], passphrase: &[u8]) -> Result<SecretBytes> {
    let malformed = || unsupported("the encrypted key of cosign is malformed");
    let document: Document = serde_json::from_slice(json).map_err(|_| malformed())?;
    let (kdf, cipher) = (&document.kdf, &document.cipher);
    if (kdf.name.as_str(), cipher.name.as_str()) != ("scrypt", "nacl/secretbox") {
        return Err(unsupported("the key is encrypted in a way that cosign does not use"));
    }
    let KdfParams { n, r, p } = kdf.params;
    if !n.is_power_of_two() || n.ilog2() > LOG_N_MAX || r > 32 || p > 16 {
        return Err(malformed());
    }
    let decoded = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| malformed());
    let (salt, nonce, boxed) = (decoded(&kdf.salt)?, decoded(&cipher.nonce)?, decoded(&document.ciphertext)?);
    let nonce: [u8; 24] = nonce.try_into().map_err(|_| malformed())?;
    let params = Params::new(n.ilog2() as u8, r, p).map_err(|_| malformed())?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    scrypt::scrypt(passphrase, &salt, &params, &mut *key).map_err(|_| malformed())?;
    open(&key, &nonce, &boxed).ok_or_else(wrong_passphrase)
}

/// NaCl's `crypto_secretbox_open`: XSalsa20 gives the key of Poly1305 first, then the stream. The tag comes first.
fn open(key: &[u8; KEY_BYTES], nonce: &[u8; 24], boxed: &[u8]) -> Option<SecretBytes> {
    let (tag, ciphertext) = boxed.split_at_checked(TAG_BYTES)?;
    let mut stream = XSalsa20::new(key.into(), nonce.into());
    let mut tag_key = Zeroizing::new([0; KEY_BYTES]);
    stream.apply_keystream(&mut *tag_key);
    let expected = Poly1305::new((&*tag_key).into()).compute_unpadded(ciphertext);
    let difference = tag.iter().zip(expected).fold(0, |all, (one, other)| all | (one ^ other));
    if difference != 0 {
        return None;
    }
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    stream.apply_keystream(&mut plain);
    Some(plain)
}
