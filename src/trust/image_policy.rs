use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::identity::Identity;
use super::{Envelope, PublicKey, SignatureHash};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Digest, Quoted, Reference};

/// What cosign's old form says that it is.
const SIMPLE_SIGNING: &str = "cosign container image signature";
/// What a statement says that is a signature rather than an attestation of something else. Old payloads may say it too.
const SIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// How a bundle's media type begins, whatever its version.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// How many reasons an error lists.
const REASONS_MAX: usize = 4;

/// Whose signatures of images count: all of these must be met, by whatever signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    pub(super) requirements: Vec<Requirement>,
}

/// One signature that an image must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    /// Keys, any of which will do.
    pub(super) keys: Vec<PublicKey>,
    /// What the signature must say of where the image is.
    pub(super) identity: Identity,
}

/// Something that lies beside an image and says it is a signature. Nothing of it is believed.
#[derive(Debug, Clone)]
pub struct FoundSignature {
    /// Where it was found, for messages.
    pub place: String,
    /// What was found.
    pub form: SignatureBytes,
}

/// The two forms in which cosign writes signatures of images.
#[derive(Debug, Clone)]
pub enum SignatureBytes {
    /// A document and an annotation (`sha256-HEX.sig`).
    Simple {
        /// The document that is signed.
        payload: Vec<u8>,
        /// The signature, in base64.
        signature: String,
    },
    /// A sigstore bundle, in JSON.
    Bundle(Vec<u8>),
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    identity: SignedIdentity,
    image: SignedImage,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct SignedIdentity {
    #[serde(rename = "docker-reference", default)]
    docker_reference: String,
}

#[derive(Deserialize)]
struct SignedImage {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    #[serde(default)]
    dsse_envelope: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InToto {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: std::collections::BTreeMap<String, String>,
}

/// Why a signature does not count.
pub(super) type Refused = String;

impl ImagePolicy {
    /// A signature by any of `keys`. Where it says which repository it is for, it must be the one that is asked.
    pub fn keys(keys: Vec<PublicKey>) -> Self {
        ImagePolicy { requirements: vec![Requirement { keys, identity: Identity::SameRepository }] }
    }

    /// What this asks for and what `other` asks for.
    #[must_use]
    pub fn and(mut self, other: ImagePolicy) -> Self {
        self.requirements.extend(other.requirements);
        self
    }

    /// Looks for signatures over `digest` that count. `asked` is the name that the image was asked for by, where it has one:
    /// signatures in the old form say for which they are.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when something is asked for that no signature gives, with the reasons.
    pub fn check(&self, digest: Digest, asked: Option<&Reference>, found: &[FoundSignature]) -> Result<()> {
        self.requirements.iter().try_for_each(|requirement| requirement.check(digest, asked, found))
    }
}

impl Requirement {
    fn check(&self, digest: Digest, asked: Option<&Reference>, found: &[FoundSignature]) -> Result<()> {
        let mut reasons = Vec::new();
        for signature in found {
            let checked = match &signature.form {
                SignatureBytes::Simple { payload, signature } => self.simple(digest, asked, payload, signature),
                SignatureBytes::Bundle(json) => self.bundle(digest, json),
            };
            match checked {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(format!("{}: {reason}", signature.place)),
            }
        }
        let more = reasons.len().saturating_sub(REASONS_MAX);
        reasons.truncate(REASONS_MAX);
        if more > 0 {
            reasons.push(format!("and {more} more"));
        }
        let why = if reasons.is_empty() { "it has none".to_string() } else { reasons.join("; ") };
        let message = format!("no valid signature of {digest}: {why}");
        Err(Error::new(ErrorKind::Mismatch, message).hint("ask whoever publishes the image for the key that signs it"))
    }

    fn simple(
        &self,
        digest: Digest,
        asked: Option<&Reference>,
        payload: &[u8],
        signature: &str,
    ) -> std::result::Result<(), Refused> {
        let signature = BASE64_STANDARD.decode(signature.trim()).map_err(|_| "its signature is not base64")?;
        if !self.keys.iter().any(|key| verifies(key, payload, &signature)) {
            return Err("not by any of the keys".to_string());
        }
        // From here on a key vouches for the payload.
        let Payload { critical } = serde_json::from_slice(payload).map_err(|error| format!("malformed: {error}"))?;
        if ![SIMPLE_SIGNING, SIGN_PREDICATE].contains(&critical.kind.as_str()) {
            return Err(format!("it is not the signature of an image but {}", Quoted(critical.kind.as_bytes())));
        }
        if critical.image.digest != digest.to_string() {
            return Err(format!("it is of another image, {}", Quoted(critical.image.digest.as_bytes())));
        }
        self.identity.expect(&critical.identity.docker_reference, asked)
    }

    fn bundle(&self, digest: Digest, json: &[u8]) -> std::result::Result<(), Refused> {
        let bundle: Bundle = serde_json::from_slice(json).map_err(|error| format!("malformed: {error}"))?;
        if !bundle.media_type.starts_with(BUNDLE) {
            return Err(format!("not a bundle but {}", Quoted(bundle.media_type.as_bytes())));
        }
        let envelope = Envelope::parse(bundle.dsse_envelope.to_string().as_bytes()).map_err(|it| it.to_string())?;
        if envelope.payload_type() != IN_TOTO {
            return Err(format!("it signs {}", Quoted(envelope.payload_type().as_bytes())));
        }
        let hashes = [SignatureHash::Sha256, SignatureHash::Sha384, SignatureHash::Sha512];
        if !hashes.into_iter().any(|hash| envelope.signed_by(&self.keys, hash).is_some()) {
            return Err("not by any of the keys".to_string());
        }
        let statement: InToto =
            serde_json::from_slice(envelope.unverified_payload()).map_err(|error| format!("malformed: {error}"))?;
        if !STATEMENTS.contains(&statement.kind.as_str()) || statement.predicate_type != SIGN_PREDICATE {
            let kind = Quoted(statement.predicate_type.as_bytes()).to_string();
            return Err(format!("it is not a signature but an attestation, {kind}"));
        }
        let algorithm = digest.algorithm().name();
        let names = |subject: &Subject| subject.digest.get(algorithm).is_some_and(|hex| *hex == digest.hex());
        if !statement.subject.iter().any(names) {
            return Err("it is of another image".to_string());
        }
        match self.identity {
            Identity::SameRepository => Ok(()),
            _ => Err("a bundle does not say for which repository it is, as the policy wants".to_string()),
        }
    }
}

/// cosign hashes with SHA-256, for keys on P-384 of late with SHA-384.
fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let hashes = [SignatureHash::Sha256, SignatureHash::Sha384, SignatureHash::Sha512];
    hashes.into_iter().any(|hash| key.verifies(message, signature, hash))
}
