use super::image_policy::Refused;
use crate::model::{Quoted, Reference};

/// What a signature must say of where the image is (containers-policy.json(5), `signedIdentity`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// The repository that is asked, if it says one at all: bundles do not.
    SameRepository,
    /// `matchExact`: the very name, with its tag.
    Exact,
    /// `matchRepoDigestOrExact`: the very name, or of one with a digest the repository.
    RepositoryOfDigestOrExact,
    /// `matchRepository`: the repository.
    Repository,
    /// `exactReference`: this name.
    ExactReference(Reference),
    /// `exactRepository`: this repository.
    ExactRepository(Reference),
    /// `remapIdentity`: as `matchRepoDigestOrExact`, of a name whose start is another one.
    Remapped {
        /// What the name that is asked for begins with.
        prefix: String,
        /// What a signature has in its place.
        signed_prefix: String,
    },
}

impl Identity {
    /// Checks what a signature says, for an image that was asked for as `asked`.
    pub(super) fn expect(&self, signed: &str, asked: Option<&Reference>) -> std::result::Result<(), Refused> {
        let other = || format!("it is for another repository, {}", Quoted(signed.as_bytes()));
        let unnamed = || "nothing says by which name the image is known here, as the policy wants".to_string();
        let mut reference: Reference = signed.parse().map_err(|_| other())?;
        if !signed.rsplit('/').next().unwrap_or_default().contains(':') {
            // cosign names no tag: that is none, not the usual one.
            reference.tag = None;
        }
        let fits = match (self, asked) {
            // A layout or an archive has the name that its owner gave it.
            (Identity::SameRepository, None) => true,
            (Identity::SameRepository, Some(asked)) => same_repository(&reference, asked),
            (Identity::ExactReference(wanted), _) => same_name(&reference, wanted),
            (Identity::ExactRepository(wanted), _) => same_repository(&reference, wanted),
            (_, None) => return Err(unnamed()),
            (Identity::Exact, Some(asked)) => same_name(&reference, asked),
            (Identity::Repository, Some(asked)) => same_repository(&reference, asked),
            (Identity::RepositoryOfDigestOrExact, Some(asked)) => fits_digest_or_name(&reference, asked),
            (Identity::Remapped { prefix, signed_prefix }, Some(asked)) => {
                fits_digest_or_name(&reference, &remapped(asked, prefix, signed_prefix).ok_or_else(other)?)
            }
        };
        if fits { Ok(()) } else { Err(other()) }
    }
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    (&one.host, &one.repository) == (&other.host, &other.repository)
}

/// The same name and tag.
fn same_name(signed: &Reference, asked: &Reference) -> bool {
    same_repository(signed, asked) && signed.tag.is_some() && signed.tag == asked.tag
}

fn fits_digest_or_name(signed: &Reference, asked: &Reference) -> bool {
    match asked.digest {
        Some(_) => same_repository(signed, asked),
        None => same_name(signed, asked),
    }
}

/// The name with another start, where it has this one: at the end of a part.
fn remapped(asked: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let name = format!("{}/{}", asked.host, asked.repository);
    let Some(rest) = name.strip_prefix(prefix) else { return Some(asked.clone()) };
    if !rest.is_empty() && !rest.starts_with('/') {
        return Some(asked.clone());
    }
    let mut other: Reference = format!("{signed_prefix}{rest}").parse().ok()?;
    (other.tag, other.digest) = (asked.tag.clone(), asked.digest);
    Some(other)
}
