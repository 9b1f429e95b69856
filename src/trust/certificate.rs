//! X.509 certificates ([RFC 5280](https://www.rfc-editor.org/rfc/rfc5280)): who they are of, and whether roots that are given
//! vouch for them. Chains are checked by webpki, and accepted where Go accepts them, whose checks Apptainer and cosign use.

use std::fmt;
use std::time::Duration;

use pkcs8::der::asn1::{ObjectIdentifier, Utf8StringRef};
use pkcs8::der::{Decode as _, Encode as _};
use rustls_pki_types::{CertificateDer, DnsName, ServerName, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, RequiredEkuNotFoundContext, VerifiedPath};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use super::{PublicKey, pem};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Digest, Quoted, Timestamp};

/// Most certificates that are looked at beside a signature. Fulcio sends three.
const CHAIN_MAX: usize = 16;
/// `id-kp-codeSigning`, RFC 5280.
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
/// `anyExtendedKeyUsage`, RFC 5280.
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// What Fulcio calls a name that is neither an address nor a URI.
const FULCIO_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.7");
/// Who told Fulcio whose the certificate is, as a string in DER.
const FULCIO_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
/// The same in the old form, as bare bytes.
const FULCIO_ISSUER_OLD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
/// How certificates may be signed.
const ALGORITHMS: [&dyn SignatureVerificationAlgorithm; 11] = [
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P256_SHA384,
    webpki::ring::ECDSA_P384_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PKCS1_2048_8192_SHA256,
    webpki::ring::RSA_PKCS1_2048_8192_SHA384,
    webpki::ring::RSA_PKCS1_2048_8192_SHA512,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    webpki::ring::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// A certificate. Nothing of it is believed before [`Roots::vouch`].
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    /// Reads certificates in PEM, at least one.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when one of the PEM blocks is something else.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>> {
        let certificate = |block: &pem::Block| match block.label.as_str() {
            "CERTIFICATE" => Self::from_der(&block.der),
            label => Err(unsupported(format!("a PEM block {label:?} is not a certificate"))),
        };
        pem::blocks(text)?.iter().map(certificate).collect()
    }

    /// Whether it is the certificate in this PEM file.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        Self::all_from_pem(text).is_ok_and(|all| all == [self.clone()])
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when it is none.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let malformed = |error| unsupported(format!("the certificate is malformed: {error}"));
        let parsed = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        Ok(Certificate { der: CertificateDer::from(der.to_vec()), parsed })
    }

    /// The key that it is of.
    fn public_key(&self) -> Result<PublicKey> {
        let spki = self.parsed.tbs_certificate().subject_public_key_info().to_der();
        PublicKey::from_spki(&spki.map_err(|error| unsupported(format!("its key is malformed: {error}")))?)
    }

    /// Whose it says it is: addresses, URIs and names that Fulcio gives.
    pub(super) fn identities(&self) -> Vec<String> {
        self.names(|name| match name {
            GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => Some(text.to_string()),
            GeneralName::OtherName(other) if other.type_id == FULCIO_NAME => {
                Some(Utf8StringRef::try_from(&other.value).ok()?.as_str().to_string())
            }
            _ => None,
        })
    }

    /// The e-mail addresses that it says it is of.
    pub(super) fn emails(&self) -> Vec<String> {
        self.names(|name| match name {
            GeneralName::Rfc822Name(text) => Some(text.to_string()),
            _ => None,
        })
    }

    fn names(&self, chosen: impl Fn(&GeneralName) -> Option<String>) -> Vec<String> {
        let found = self.parsed.tbs_certificate().get_extension::<SubjectAltName>();
        found.ok().flatten().map(|(_, names)| names.0.iter().filter_map(chosen).collect()).unwrap_or_default()
    }

    /// Whether it is of this host; wildcards in it count.
    pub(super) fn is_of_host(&self, name: &str) -> bool {
        let Ok(name) = DnsName::try_from(name) else { return false };
        EndEntityCert::try_from(&self.der)
            .is_ok_and(|it| it.verify_is_valid_for_subject_name(&ServerName::DnsName(name)).is_ok())
    }

    /// Who told Fulcio whose it is.
    pub(super) fn oidc_issuer(&self) -> Option<String> {
        let value = |oid| {
            let mut found = self.parsed.tbs_certificate().extensions()?.iter().filter(|it| it.extn_id == oid);
            // Two of them say nothing.
            found.next().filter(|_| found.next().is_none()).map(|it| it.extn_value.as_bytes())
        };
        match value(FULCIO_ISSUER) {
            Some(der) => Some(Utf8StringRef::from_der(der).ok()?.as_str().to_string()),
            None => String::from_utf8(value(FULCIO_ISSUER_OLD)?.to_vec()).ok(),
        }
    }

    /// Whether it is of an authority that may issue certificates for keys that sign code, at this time.
    fn may_issue(&self, at: Duration) -> Checked {
        self.may_sign_code(at)?;
        let certificate = self.parsed.tbs_certificate();
        let constraints = certificate.get_extension::<BasicConstraints>().map_err(|_| webpki::Error::BadDer)?;
        let usage = certificate.get_extension::<KeyUsage>().map_err(|_| webpki::Error::BadDer)?;
        if !constraints.is_some_and(|(_, it)| it.ca) || usage.is_some_and(|(_, it)| !it.key_cert_sign()) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
        Ok(())
    }

    /// Whether it is for signatures of code, at this time.
    fn may_sign_code(&self, at: Duration) -> Checked {
        let certificate = self.parsed.tbs_certificate();
        let (instant, validity) = (UnixTime::since_unix_epoch, certificate.validity());
        let (from, until) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
        if at < from {
            return Err(webpki::Error::CertNotValidYet { time: instant(at), not_before: instant(from) });
        }
        if at > until {
            return Err(webpki::Error::CertExpired { time: instant(at), not_after: instant(until) });
        }
        let usage = certificate.get_extension::<ExtendedKeyUsage>().map_err(|_| webpki::Error::BadDer)?;
        if usage.is_some_and(|(_, it)| !it.0.iter().any(|it| [CODE_SIGNING, ANY_USAGE].contains(it))) {
            return Err(other_use());
        }
        Ok(())
    }

    /// How many certificates of authorities may lie between this one and one of a key.
    fn path_length(&self) -> usize {
        let constraints = self.parsed.tbs_certificate().get_extension::<BasicConstraints>().ok().flatten();
        constraints.and_then(|(_, it)| it.path_len_constraint).map_or(usize::MAX, usize::from)
    }
}

/// Whose it says it is.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.parsed.tbs_certificate().subject().to_string();
        let names = if subject.is_empty() { self.identities().join(", ") } else { subject };
        write!(f, "{}", Quoted(names.as_bytes()))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({self}, {})", Digest::of(&self.der))
    }
}

/// The certificates of authorities that are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    roots: Vec<Certificate>,
    intermediates: Vec<Certificate>,
}

impl Roots {
    /// All of `roots` are believed, whoever issued them. `intermediates` lead to them, and are believed for that alone.
    pub fn new(roots: Vec<Certificate>, intermediates: Vec<Certificate>) -> Self {
        Roots { roots, intermediates }
    }

    /// The key of the certificate `leaf`, if a chain leads from it to one of the roots, all of which is valid at the time
    /// `at` (since 1970) and for signatures of code. `chain` came with the certificate.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when there is no such chain, [`ErrorKind::Unsupported`] when the key is of a kind that is not
    /// supported.
    pub fn vouch(&self, leaf: &Certificate, chain: &[Certificate], at: Duration) -> Result<PublicKey> {
        self.chain(leaf, chain, at).map_err(|error| {
            let why = why(&error);
            Error::new(ErrorKind::Mismatch, format!("the certificate of {leaf} is not accepted: {why}"))
                .hint("compare certificate, roots and clock with those of whoever signed")
        })?;
        leaf.public_key()
    }

    fn chain(&self, leaf: &Certificate, chain: &[Certificate], at: Duration) -> Checked {
        leaf.may_sign_code(at)?;
        let time = UnixTime::since_unix_epoch(at);
        let end = EndEntityCert::try_from(&leaf.der)?;
        let given = self.intermediates.iter().chain(chain.iter().take(CHAIN_MAX));
        let between: Vec<_> = given.filter(|it| it.may_issue(at).is_ok()).map(|it| it.der.clone()).collect();
        let mut trouble = webpki::Error::UnknownIssuer;
        for root in &self.roots {
            if root.der == leaf.der {
                return Ok(());
            }
            let anchor = [webpki::anchor_from_trusted_cert(&root.der)?];
            let fits = |path: &VerifiedPath<'_>| match path.intermediate_certificates().count() > root.path_length() {
                true => Err(webpki::Error::PathLenConstraintViolated),
                false => root.may_issue(at),
            };
            match end.verify_for_usage(&ALGORITHMS, &anchor, &between, time, AnyUse, None, Some(&fits)) {
                Ok(_) => return Ok(()),
                Err(webpki::Error::UnknownIssuer) => {}
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }
}

type Checked = std::result::Result<(), webpki::Error>;

/// What certificates are for is checked one by one: of roots, too.
struct AnyUse;

impl ExtendedKeyUsageValidator for AnyUse {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Checked {
        Ok(())
    }
}

fn other_use() -> webpki::Error {
    let required = webpki::KeyUsage::required_if_present(CODE_SIGNING.as_bytes());
    webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present: Vec::new() })
}

/// The error in words.
fn why(error: &webpki::Error) -> String {
    let date = |time: &UnixTime| i64::try_from(time.as_secs()).map(|it| Timestamp::from_seconds(it).to_rfc3339());
    match error {
        webpki::Error::CertExpired { not_after, .. } => {
            format!("a certificate was valid until {}", date(not_after).unwrap_or_default())
        }
        webpki::Error::CertNotValidYet { not_before, .. } => {
            format!("a certificate is valid from {} only", date(not_before).unwrap_or_default())
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => {
            "a certificate is for another use than to sign code".to_string()
        }
        webpki::Error::UnknownIssuer => "it was not issued under any of the roots".to_string(),
        webpki::Error::InvalidSignatureForPublicKey => {
            "it was not issued under any of the roots: one has the same name, but another key".to_string()
        }
        webpki::Error::EndEntityUsedAsCa => "it was issued with a certificate that is not of an authority".to_string(),
        webpki::Error::CaUsedAsEndEntity => "it is of an authority, and not for signatures".to_string(),
        other => format!("{other:?}"),
    }
}

fn unsupported(message: String) -> Error {
    Error::new(ErrorKind::Unsupported, message)
        .hint("name certificates in PEM, for example those that openssl x509 wrote")
}
