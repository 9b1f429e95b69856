//! What Rekor, a public log of signatures, promised to have recorded, and when
//! (<https://docs.sigstore.dev/logging/overview/>). Its promise is signed, so nobody need be asked.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::image_policy::Refused;
use super::{PublicKey, SignatureHash};
use crate::model::{Digest, Quoted};

/// An entry of the log, with the promise that it is there. Nothing of it is believed before [`Entry::time`].
#[derive(Debug, Clone)]
pub(super) struct Entry {
    body: Vec<u8>,
    seconds: u64,
    index: u64,
    /// In hexadecimal digits.
    log: String,
    promise: Vec<u8>,
}

/// As cosign's old form has it, in an annotation.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Annotation {
    signed_entry_timestamp: String,
    payload: Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    body: String,
    integrated_time: u64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

/// As bundles have it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BundleEntry {
    log_index: String,
    log_id: LogId,
    integrated_time: Option<String>,
    inclusion_promise: Option<Promise>,
    canonicalized_body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogId {
    key_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Promise {
    signed_entry_timestamp: String,
}

/// What was recorded: of the kinds that Rekor knows, those of signatures of images.
#[derive(Deserialize)]
#[serde(tag = "kind", content = "spec", rename_all = "lowercase")]
enum Record {
    HashedRekord {
        data: Data,
        signature: RecordedSignature,
    },
    Dsse {
        #[serde(rename = "payloadHash")]
        payload_hash: Hash,
        signatures: Vec<DsseSignature>,
    },
}

#[derive(Deserialize)]
struct Data {
    hash: Hash,
}

#[derive(Deserialize)]
struct Hash {
    algorithm: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedSignature {
    content: String,
    public_key: RecordedKey,
}

#[derive(Deserialize)]
struct RecordedKey {
    content: String,
}

#[derive(Deserialize)]
struct DsseSignature {
    signature: String,
    verifier: String,
}

/// What an entry must be of.
pub(super) struct Logged<'a> {
    /// The message, of an envelope its payload.
    pub(super) message: &'a [u8],
    /// The signature.
    pub(super) signature: &'a [u8],
    /// Whether this PEM is the certificate or key of the signer.
    pub(super) is_signer: &'a dyn Fn(&[u8]) -> bool,
}

impl Entry {
    /// Reads the annotation of a signature in the old form.
    pub(super) fn of_annotation(json: &str) -> Result<Self, Refused> {
        let Annotation { signed_entry_timestamp, payload } = serde_json::from_str(json).map_err(malformed)?;
        Ok(Entry {
            body: decoded(&payload.body)?,
            seconds: payload.integrated_time,
            index: payload.log_index,
            log: payload.log_id,
            promise: decoded(&signed_entry_timestamp)?,
        })
    }

    /// Reads the entry of a bundle.
    pub(super) fn of_bundle(entry: BundleEntry) -> Result<Self, Refused> {
        let promise = entry.inclusion_promise.ok_or("its entry in Rekor comes without a signed promise")?;
        Ok(Entry {
            body: decoded(&entry.canonicalized_body)?,
            seconds: entry.integrated_time.unwrap_or_default().parse().map_err(malformed)?,
            index: entry.log_index.parse().map_err(malformed)?,
            log: decoded(&entry.log_id.key_id)?.iter().map(|byte| format!("{byte:02x}")).collect(),
            promise: decoded(&promise.signed_entry_timestamp)?,
        })
    }

    /// When Rekor, whose keys are `keys`, recorded this very signature, since 1970.
    pub(super) fn time(&self, keys: &[PublicKey], logged: &Logged<'_>) -> Result<Duration, Refused> {
        if !self.log.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed("the ID of the log is not hexadecimal"));
        }
        // In the bytes that RFC 8785 gives: the names in order, no spaces, and nothing that needs an escape.
        let (body, seconds) = (BASE64_STANDARD.encode(&self.body), self.seconds);
        let promised = format!(
            r#"{{"body":"{body}","integratedTime":{seconds},"logID":"{}","logIndex":{}}}"#,
            self.log, self.index
        );
        let hash = SignatureHash::Sha256;
        if !keys.iter().any(|key| key.verifies(promised.as_bytes(), &self.promise, hash)) {
            return Err("its entry in Rekor is not promised by the key of Rekor".to_string());
        }
        let (hash, signatures) = match serde_json::from_slice(&self.body).map_err(malformed)? {
            Record::HashedRekord { data, signature } => {
                (data.hash, vec![(signature.content, signature.public_key.content)])
            }
            Record::Dsse { payload_hash, signatures } => {
                (payload_hash, signatures.into_iter().map(|it| (it.signature, it.verifier)).collect())
            }
        };
        let digest = Digest::of(logged.message);
        if hash.algorithm != digest.algorithm().name() || hash.value != digest.hex() {
            return Err("its entry in Rekor is of another image".to_string());
        }
        let is_this = |(signature, signer): &(String, String)| {
            decoded(signature).is_ok_and(|it| it == logged.signature)
                && decoded(signer).is_ok_and(|it| (logged.is_signer)(&it))
        };
        if !signatures.iter().any(is_this) {
            return Err("its entry in Rekor is of another signature".to_string());
        }
        Ok(Duration::from_secs(self.seconds))
    }
}

type Result<T, E> = std::result::Result<T, E>;

fn decoded(text: &str) -> Result<Vec<u8>, Refused> {
    BASE64_STANDARD.decode(text).map_err(malformed)
}

fn malformed(error: impl std::fmt::Display) -> Refused {
    format!("its entry in Rekor is malformed: {}", Quoted(error.to_string().as_bytes()))
}
