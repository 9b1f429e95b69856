use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::identity::Identity;
use super::rekor::{BundleEntry, Entry, Logged};
use super::signers::Signers;
use super::{Certificate, CertifiedSigners, Envelope, PublicKey, SignatureHash};
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
    /// Whose it must be.
    pub(super) signers: Signers,
    /// The keys of Rekor, which must have recorded the signature; none where it need not have.
    pub(super) rekor: Vec<PublicKey>,
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
        /// The certificate of the key that signed and what leads from it to a root, in PEM.
        certificates: String,
        /// What Rekor promised to have recorded of it, in JSON; empty where it did not.
        rekor: String,
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
    verification_material: Material,
    #[serde(default)]
    dsse_envelope: Value,
}

/// What comes beside the signature: a certificate, or in old bundles a chain of them.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    certificate: Option<RawCertificate>,
    #[serde(default)]
    tlog_entries: Vec<BundleEntry>,
    x509_certificate_chain: Option<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<RawCertificate>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCertificate {
    raw_bytes: String,
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
        Self::by(Signers::Keys(keys), Vec::new())
    }

    /// A signature by somebody whose certificate comes with it. As for [keys](Self::keys), for the repository that is asked.
    ///
    /// With keys of Rekor, it must have been recorded there, and what counts is whether the certificate was valid then.
    pub fn certified(signers: CertifiedSigners, rekor: Vec<PublicKey>) -> Self {
        Self::by(Signers::Certified(signers), rekor)
    }

    fn by(signers: Signers, rekor: Vec<PublicKey>) -> Self {
        ImagePolicy { requirements: vec![Requirement { signers, rekor, identity: Identity::SameRepository }] }
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
                SignatureBytes::Simple { payload, signature, certificates, rekor } => {
                    self.simple(digest, asked, payload, (signature, certificates, rekor))
                }
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
        Err(Error::new(ErrorKind::Mismatch, message).hint(match self.signers {
            Signers::Keys(_) => "ask whoever publishes the image for the key that signs it",
            Signers::Certified(_) => "ask whoever publishes the image who signs it, and under which roots",
        }))
    }

    /// When Rekor recorded the signature, where that is asked for.
    fn recorded(
        &self,
        entry: impl FnOnce() -> std::result::Result<Option<Entry>, Refused>,
        message: &[u8],
        signature: &[u8],
        certificates: &[Certificate],
    ) -> std::result::Result<Option<Duration>, Refused> {
        if self.rekor.is_empty() {
            return Ok(None);
        }
        let entry = entry()?.ok_or("it comes without an entry in Rekor")?;
        let is_signer = |text: &[u8]| self.signers.is_signer(certificates, text);
        entry.time(&self.rekor, &Logged { message, signature, is_signer: &is_signer }).map(Some)
    }

    fn by_others(&self) -> Refused {
        match self.signers {
            Signers::Keys(_) => "not by any of the keys".to_string(),
            Signers::Certified(_) => "not by the key of its certificate".to_string(),
        }
    }

    fn simple(
        &self,
        digest: Digest,
        asked: Option<&Reference>,
        payload: &[u8],
        (signature, certificates, rekor): (&str, &str, &str),
    ) -> std::result::Result<(), Refused> {
        let signature = BASE64_STANDARD.decode(signature.trim()).map_err(|_| "its signature is not base64")?;
        let certificates = match certificates.trim().is_empty() {
            true => Vec::new(),
            false => Certificate::all_from_pem(certificates.as_bytes()).map_err(|error| error.to_string())?,
        };
        let entry = || if rekor.is_empty() { Ok(None) } else { Entry::of_annotation(rekor).map(Some) };
        let at = self.recorded(entry, payload, &signature, &certificates)?;
        if !self.signers.keys(&certificates, at)?.iter().any(|key| verifies(key, payload, &signature)) {
            return Err(self.by_others());
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
        let material = bundle.verification_material;
        let (certificates, entry) = (material.certificates()?, material.tlog_entries.into_iter().next());
        let entry = || entry.map(Entry::of_bundle).transpose();
        let at = self.recorded(
            entry,
            envelope.unverified_payload(),
            envelope.only_signature().unwrap_or_default(),
            &certificates,
        )?;
        let keys = self.signers.keys(&certificates, at)?;
        if !hashes.into_iter().any(|hash| envelope.signed_by(&keys, hash).is_some()) {
            return Err(self.by_others());
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

impl Material {
    /// The certificate of the key that signed, and what came with it.
    fn certificates(&self) -> std::result::Result<Vec<Certificate>, Refused> {
        let chain = self.x509_certificate_chain.iter().flat_map(|it| &it.certificates);
        let all = self.certificate.iter().chain(chain);
        all.map(|it| {
            let der = BASE64_STANDARD.decode(&it.raw_bytes).map_err(|_| "its certificate is not base64")?;
            Certificate::from_der(&der).map_err(|error| error.to_string())
        })
        .collect()
    }
}

/// cosign hashes with SHA-256, for keys on P-384 of late with SHA-384.
fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let hashes = [SignatureHash::Sha256, SignatureHash::Sha384, SignatureHash::Sha512];
    hashes.into_iter().any(|hash| key.verifies(message, signature, hash))
}
