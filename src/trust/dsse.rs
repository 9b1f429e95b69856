use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::{PrivateKey, PublicKey, SignatureHash};
use crate::error::{Error, ErrorKind, Result};

/// Most signatures in one envelope that are looked at.
const SIGNATURES_MAX: usize = 64;

/// A signed message: a DSSE envelope (<https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    signatures: Vec<(String, Vec<u8>)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    payload_type: String,
    payload: String,
    signatures: Vec<DocumentSignature>,
}

#[derive(Serialize, Deserialize)]
struct DocumentSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

impl Envelope {
    /// Signs `payload`.
    ///
    /// # Errors
    /// Those of [`PrivateKey::sign`].
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &PrivateKey) -> Result<Self> {
        let signature = key.sign(&pre_authentication(payload_type, &payload))?;
        Ok(Envelope { payload_type: payload_type.into(), payload, signatures: vec![(key.public().id(), signature)] })
    }

    /// Reads an envelope. Nothing is verified.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is none.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let malformed = |what: &str| Error::new(ErrorKind::InvalidImage, format!("not a DSSE envelope: {what}"));
        let document: Document = serde_json::from_slice(json).map_err(|error| malformed(&error.to_string()))?;
        if document.signatures.is_empty() || document.signatures.len() > SIGNATURES_MAX {
            return Err(malformed(&format!("{} signatures", document.signatures.len())));
        }
        let decoded = |text: &str| decode(text).ok_or_else(|| malformed("what should be base64 is not"));
        Ok(Envelope {
            payload: decoded(&document.payload)?,
            signatures: document
                .signatures
                .iter()
                .map(|it| Ok((it.keyid.clone(), decoded(&it.sig)?)))
                .collect::<Result<_>>()?,
            payload_type: document.payload_type,
        })
    }

    /// The envelope as JSON, in the bytes that Go's encoder writes.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when it cannot be written.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let document = Document {
            payload_type: self.payload_type.clone(),
            payload: BASE64_STANDARD.encode(&self.payload),
            signatures: self
                .signatures
                .iter()
                .map(|(id, signature)| DocumentSignature { keyid: id.clone(), sig: BASE64_STANDARD.encode(signature) })
                .collect(),
        };
        serde_json::to_vec(&document).map_err(|error| Error::new(ErrorKind::Bug, error))
    }

    /// What kind of message it is.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The message, whoever signed it.
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The signature, if it is the only one.
    pub(super) fn only_signature(&self) -> Option<&[u8]> {
        match self.signatures.as_slice() {
            [(_, signature)] => Some(signature),
            _ => None,
        }
    }

    /// What the signatures say of their keys. Nothing is verified.
    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|(id, _)| id.as_str())
    }

    /// The first of `keys` that signed the message, with the hash that is named. What a signature says of its key is no
    /// more than a hint and is not looked at.
    pub fn signed_by<'k>(&self, keys: &'k [PublicKey], hash: SignatureHash) -> Option<&'k PublicKey> {
        let message = pre_authentication(&self.payload_type, &self.payload);
        let signed = |key: &&PublicKey| self.signatures.iter().any(|(_, it)| key.verifies(&message, it, hash));
        keys.iter().find(signed)
    }
}

/// What is signed: type and message with their lengths, so that neither can pass for a part of the other.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Either alphabet is allowed; all writers pad.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok();
    decode(&STANDARD).or_else(|| decode(&URL_SAFE))
}
