//! A key for temporary files that only this process knows, and only in memory.

use std::fmt;
use std::sync::Arc;

use aes::Aes256;
use ctr::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherSeek};
use ctr::{Ctr128BE, CtrCore};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Encrypts what lies in one unnamed file, so that no disk ever holds it in the clear: AES-256 in counter mode, the
/// counter being the offset in the file. The key is random, is never stored, and is wiped when the last clone is dropped.
///
/// Each byte of the file must be written once only: two versions of a byte would be encrypted with the same keystream.
/// Nothing is authenticated: whoever can write to an unnamed file of this process can write to its memory, too.
#[derive(Clone)]
pub struct Veil {
    cipher: Arc<Aes256>,
}

impl fmt::Debug for Veil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Veil(…)")
    }
}

impl Veil {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        let failed = |error| Error::new(ErrorKind::Other, format!("the system gives no random bytes: {error}"));
        getrandom::fill(&mut *key).map_err(failed)?;
        Ok(Veil { cipher: Arc::new(Aes256::new((&*key).into())) })
    }

    /// Encrypts or decrypts `bytes`, which stand at `offset` of the file.
    pub fn apply(&self, bytes: &mut [u8], offset: u64) {
        let core = CtrCore::inner_iv_init((*self.cipher).clone(), &Default::default());
        let mut cipher = Ctr128BE::<Aes256>::from_core(core);
        cipher.seek(offset);
        cipher.apply_keystream(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_decrypted_by_itself() {
        let (veil, other) = (Veil::new().unwrap(), Veil::new().unwrap());
        let plain: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        for base in [0, 5, 1 << 41] {
            let mut hidden = plain.clone();
            veil.apply(&mut hidden, base);
            assert!(hidden.windows(8).all(|window| window != [0; 8]) && hidden != plain);
            for (start, end) in [(0, 100_000), (1, 17), (15, 16), (4097, 70_001)] {
                let mut part = hidden[start..end].to_vec();
                veil.apply(&mut part, base + start as u64);
                assert_eq!(part, plain[start..end]);
            }
            other.apply(&mut hidden, base);
            assert_ne!(hidden, plain);
        }
        assert_eq!(format!("{veil:?}"), "Veil(…)");
    }
}
