//! `gocryptfs.conf`: how the master key is wrapped. It holds no secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::keys::Passphrase;
use crate::error::{Error, ErrorKind, Result};

/// The name of the file in an encrypted directory.
pub(crate) const CONFIG_NAME: &str = "gocryptfs.conf";

pub(super) const KEY_BYTES: usize = 32;
pub(super) const SALT_BYTES: usize = 32;
/// Nonce, key and tag.
pub(super) const WRAPPED_BYTES: usize = 16 + KEY_BYTES + 16;

/// What scrypt costs: gocryptfs's own choice, 64 MiB and about 0.2 s.
const LOG_N: u8 = 16;
const R: u32 = 8;
const P: u32 = 1;
/// The most that is done for a file that somebody else made: 1 GiB of memory.
const MEMORY_BYTES_MAX: u64 = 1 << 30;
const P_MAX: u32 = 16;
/// The least: what gocryptfs itself insists on.
const LOG_N_MIN: u8 = 10;
const R_MIN: u32 = 8;
/// The most that is read, in bytes.
pub(super) const CONFIG_BYTES_MAX: usize = 64 << 10;

/// What the encrypted directory is like: keys by HKDF, nonces of 128 bits, names in the clear.
const FLAGS: [&str; 3] = ["HKDF", "GCMIV128", "PlaintextNames"];

pub(super) struct Config {
    pub(super) wrapped: [u8; WRAPPED_BYTES],
    salt: Vec<u8>,
    log_n: u8,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    encrypted_key: String,
    scrypt_object: Scrypt,
    version: u32,
    #[serde(default)]
    feature_flags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Scrypt {
    salt: String,
    n: u64,
    r: u32,
    p: u32,
    key_len: usize,
}

impl Config {
    /// One whose key is not wrapped yet.
    pub(super) fn new(salt: [u8; SALT_BYTES]) -> Self {
        Config { wrapped: [0; WRAPPED_BYTES], salt: salt.to_vec(), log_n: LOG_N, r: R, p: P }
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let damaged = |what: &dyn std::fmt::Display| {
            let message = format!("{CONFIG_NAME} is damaged: {what}");
            Error::new(ErrorKind::InvalidImage, message).hint("fetch the file again")
        };
        if text.len() > CONFIG_BYTES_MAX {
            return Err(damaged(&format_args!("it has {} bytes", text.len())));
        }
        let document: Document = serde_json::from_slice(text).map_err(|error| damaged(&error))?;
        let Document { encrypted_key, scrypt_object: Scrypt { salt, n, r, p, key_len }, version, feature_flags } =
            document;
        let unsupported = |what: String| {
            let message = format!("{CONFIG_NAME}: {what} is not supported");
            Err(Error::new(ErrorKind::Unsupported, message).hint("encrypt it again, as Apptainer does"))
        };
        if version != 2 {
            return unsupported(format!("version {version}"));
        }
        if let Some(other) = feature_flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
            return unsupported(format!("{other:?}"));
        }
        if let Some(missing) = FLAGS.iter().find(|flag| !feature_flags.iter().any(|it| it == *flag)) {
            return unsupported(format!("a file system without {missing:?}"));
        }
        let log_n = n.ilog2_or_zero();
        let memory = 128u64.saturating_mul(n).saturating_mul(r.into());
        let costs_fit = memory <= MEMORY_BYTES_MAX && (1..=P_MAX).contains(&p) && r >= R_MIN && log_n >= LOG_N_MIN;
        if !n.is_power_of_two() || !costs_fit || key_len != KEY_BYTES {
            return unsupported(format!("scrypt with N={n}, r={r}, p={p} and a key of {key_len} bytes"));
        }
        let salt = STANDARD.decode(salt).map_err(|error| damaged(&error))?;
        if salt.len() < SALT_BYTES {
            return Err(damaged(&"the salt is too short"));
        }
        let wrapped = STANDARD.decode(encrypted_key).map_err(|error| damaged(&error))?;
        let wrapped = wrapped.try_into().map_err(|_| damaged(&"the encrypted key has another length"))?;
        Ok(Config { wrapped, salt, log_n, r, p })
    }

    /// The file, as gocryptfs writes it.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let Config { wrapped, salt, log_n, r, p } = self;
        let (key, salt, n) = (STANDARD.encode(wrapped), STANDARD.encode(salt), 1u64 << log_n);
        let flags = FLAGS.map(|flag| format!("\t\t\"{flag}\"")).join(",\n");
        format!(
            "{{\n\t\"Creator\": \"sif-convert\",\n\t\"EncryptedKey\": \"{key}\",\n\t\"ScryptObject\": {{\n\t\t\"Salt\": \
             \"{salt}\",\n\t\t\"N\": {n},\n\t\t\"R\": {r},\n\t\t\"P\": {p},\n\t\t\"KeyLen\": {KEY_BYTES}\n\t}},\n\t\
             \"Version\": 2,\n\t\"FeatureFlags\": [\n{flags}\n\t]\n}}\n"
        )
        .into_bytes()
    }

    /// The key that the master key is wrapped with.
    pub(super) fn wrapping_key(&self, passphrase: &Passphrase) -> Result<Zeroizing<[u8; KEY_BYTES]>> {
        let failed = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Other, format!("scrypt: {error}"));
        let params = scrypt::Params::new(self.log_n, self.r, self.p).map_err(|error| failed(&error))?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        scrypt::scrypt(passphrase.bytes(), &self.salt, &params, &mut *key).map_err(|error| failed(&error))?;
        Ok(key)
    }
}

trait LogOrZero {
    fn ilog2_or_zero(self) -> u8;
}

impl LogOrZero for u64 {
    fn ilog2_or_zero(self) -> u8 {
        self.checked_ilog2().unwrap_or(0) as u8
    }
}
