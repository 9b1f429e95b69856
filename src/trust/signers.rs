use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::image_policy::Refused;
use super::{Certificate, PublicKey, Roots};
use crate::model::Quoted;

/// Whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signers {
    /// Those of keys, any of which will do.
    Keys(Vec<PublicKey>),
    /// Those of keys that have a certificate.
    Certified(CertifiedSigners),
}

/// Signers whose certificates were issued under roots that are believed.
#[derive(Clone, PartialEq, Eq)]
pub struct CertifiedSigners {
    pub(super) roots: Roots,
    pub(super) holder: Holder,
    /// When certificates must be valid where nothing says when they were used, since 1970.
    pub(super) now: Duration,
}

/// To whom a certificate must have been issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// As Fulcio issues them.
    Fulcio {
        /// An address, a URI or another name in it.
        identity: String,
        /// Who said that it is theirs.
        issuer: String,
    },
    /// As other authorities issue them: all that is said here must be in it.
    Subject {
        /// An e-mail address.
        email: Option<String>,
        /// The name of a host.
        host: Option<String>,
    },
}

/// Whoever asks for the same shows the same, at any time.
impl fmt::Debug for CertifiedSigners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CertifiedSigners { roots, holder, now: _ } = self;
        f.debug_struct("CertifiedSigners").field("roots", roots).field("holder", holder).finish_non_exhaustive()
    }
}

impl CertifiedSigners {
    /// Signers with certificates as Fulcio issues them: under `roots`, for `identity` (an e-mail address, a URI, …), of whom
    /// `issuer` (the URL of an OIDC provider) said that it is theirs; valid at the time `now` (since 1970).
    pub fn new(roots: Roots, identity: String, issuer: String, now: Duration) -> Self {
        CertifiedSigners { roots, holder: Holder::Fulcio { identity, issuer }, now }
    }
}

impl Signers {
    /// The keys of which one must have signed. `certificates` came with the signature, its own first, which was made
    /// at the time `at`, if that is known.
    pub(super) fn keys(
        &self,
        certificates: &[Certificate],
        at: Option<Duration>,
    ) -> std::result::Result<Cow<'_, [PublicKey]>, Refused> {
        let certified = match self {
            Signers::Keys(keys) => return Ok(Cow::Borrowed(keys)),
            Signers::Certified(certified) => certified,
        };
        let Some((leaf, chain)) = certificates.split_first() else {
            return Err("it comes without a certificate".to_string());
        };
        certified.holder.expect(leaf)?;
        let at = at.unwrap_or(certified.now);
        let key = certified.roots.vouch(leaf, chain, at).map_err(|error| error.to_string())?;
        Ok(Cow::Owned(vec![key]))
    }

    /// Whether a PEM file that Rekor recorded is of the signer.
    pub(super) fn is_signer(&self, certificates: &[Certificate], text: &[u8]) -> bool {
        match self {
            Signers::Keys(keys) => PublicKey::from_pem(text).is_ok_and(|key| keys.contains(&key)),
            Signers::Certified(_) => certificates.first().is_some_and(|it| it.is_in(text)),
        }
    }
}

impl Holder {
    fn expect(&self, certificate: &Certificate) -> std::result::Result<(), Refused> {
        let other = |what: &str, found: &str| Err(format!("its certificate is of another {what}, {}", quoted(found)));
        match self {
            Holder::Fulcio { identity, issuer } => {
                let identities = certificate.identities();
                if !identities.contains(identity) {
                    return other("identity", &identities.join(", "));
                }
                let found = certificate.oidc_issuer();
                if found.as_ref() != Some(issuer) {
                    return other("issuer", &found.unwrap_or_default());
                }
            }
            Holder::Subject { email, host } => {
                let emails = certificate.emails();
                if email.as_ref().is_some_and(|email| !emails.contains(email)) {
                    return other("e-mail address", &emails.join(", "));
                }
                if host.as_ref().is_some_and(|host| !certificate.is_of_host(host)) {
                    return other("host", &certificate.to_string());
                }
            }
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    Quoted(text.as_bytes()).to_string()
}
