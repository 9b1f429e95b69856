//! `policy.json` of containers/image, which podman, skopeo and CRI-O obey
//! (<https://github.com/containers/image/blob/main/docs/containers-policy.json.5.md>).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::identity::Identity;
use super::image_policy::{ImagePolicy, Requirement};
use super::signers::{Holder, Signers};
use super::{Certificate, CertifiedSigners, PublicKey, Roots};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::model::{Quoted, Reference};

/// A policy that was read: what is asked of images, by where they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    default: Vec<Entry>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Entry>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    default: Vec<DocumentEntry>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<DocumentEntry>>>,
}

/// One entry, as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentEntry {
    #[serde(rename = "type")]
    kind: String,
    key_path: Option<String>,
    key_paths: Option<Vec<String>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    key_type: Option<String>,
    fulcio: Option<Fulcio>,
    pki: Option<Pki>,
    rekor_public_key_path: Option<String>,
    rekor_public_key_paths: Option<Vec<String>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    signed_identity: Option<DocumentIdentity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fulcio {
    ca_path: Option<String>,
    ca_data: Option<String>,
    oidc_issuer: String,
    subject_email: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pki {
    ca_roots_path: Option<String>,
    ca_roots_data: Option<String>,
    ca_intermediates_path: Option<String>,
    ca_intermediates_data: Option<String>,
    subject_email: Option<String>,
    subject_hostname: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DocumentIdentity {
    #[serde(rename = "type")]
    kind: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Accept,
    Reject,
    Signed(Box<Requirement>),
    /// What cannot be checked here: an image that it is asked of is refused.
    Unsupported(String),
}

impl PolicyFile {
    /// Reads a policy. `read` reads the files that it names. Certificates must be valid at the time `now` (since 1970).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is not a policy, and those of `read`.
    pub fn parse(json: &[u8], read: ReadFile<'_>, now: Duration) -> Result<Self> {
        let document: Document = serde_json::from_slice(json).map_err(|error| malformed(error.to_string()))?;
        if document.default.is_empty() {
            return Err(malformed("its default asks for nothing and accepts nothing".to_string()));
        }
        let entries = |entries: Vec<DocumentEntry>| -> Result<Vec<Entry>> {
            if entries.is_empty() {
                return Err(malformed("a scope has no entry".to_string()));
            }
            entries.into_iter().map(|entry| Entry::of(entry, read, now)).collect()
        };
        let mut transports = BTreeMap::new();
        for (transport, scopes) in document.transports {
            let scopes = scopes.into_iter().map(|(scope, list)| Ok((scope, entries(list)?))).collect::<Result<_>>()?;
            transports.insert(transport, scopes);
        }
        Ok(PolicyFile { default: entries(document.default)?, transports })
    }

    /// What is asked of an image that comes by `transport` (`docker`, `oci`, …): from the repository of `reference`, or from
    /// the file or directory `path`. `None` where anything is accepted.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when it is rejected, [`ErrorKind::Unsupported`] when something is asked for that cannot be
    /// checked.
    pub fn of(
        &self,
        transport: &str,
        reference: Option<&Reference>,
        path: Option<&str>,
    ) -> Result<Option<ImagePolicy>> {
        let scopes = match (reference, path) {
            (Some(reference), _) => scopes_of_name(reference),
            (None, Some(path)) => scopes_of_path(path),
            (None, None) => Vec::new(),
        };
        let of_transport = self.transports.get(transport);
        let found = scopes
            .iter()
            .chain([&String::new()])
            .find_map(|scope| of_transport.and_then(|known| known.get(scope)).map(|entries| (scope.clone(), entries)));
        let (scope, entries) = found.unwrap_or_else(|| ("default".to_string(), &self.default));
        let mut policy = ImagePolicy::default();
        for entry in entries {
            match entry {
                Entry::Accept => {}
                Entry::Reject => {
                    let message = format!("the policy rejects images from here (scope {})", Quoted(scope.as_bytes()));
                    return Err(Error::new(ErrorKind::Mismatch, message)
                        .hint("ask whoever keeps the policy; another file can be named"));
                }
                Entry::Signed(requirement) => policy.requirements.push((**requirement).clone()),
                Entry::Unsupported(what) => {
                    let message = format!("the policy asks for {what}, which cannot be checked here");
                    return Err(Error::new(ErrorKind::Unsupported, message)
                        .hint("use sigstoreSigned with keys for this scope, in a policy of your own"));
                }
            }
        }
        Ok((!policy.requirements.is_empty()).then_some(policy))
    }
}

impl Entry {
    fn of(entry: DocumentEntry, read: ReadFile<'_>, now: Duration) -> Result<Self> {
        let unsupported = |what: &str| Ok(Entry::Unsupported(what.to_string()));
        match entry.kind.as_str() {
            "insecureAcceptAnything" => Ok(Entry::Accept),
            "reject" => Ok(Entry::Reject),
            "signedBy" => unsupported(&format!("a signature of PGP ({})", entry.key_type.unwrap_or_default())),
            "sigstoreSigned" => Ok(Entry::Signed(Box::new(entry.requirement(read, now)?))),
            other => Err(malformed(format!("{} is not a type that is known", Quoted(other.as_bytes())))),
        }
    }
}

impl DocumentEntry {
    fn requirement(self, read: ReadFile<'_>, now: Duration) -> Result<Requirement> {
        let files = self.key_path.into_iter().chain(self.key_paths.into_iter().flatten());
        let keys = keys(files, self.key_data.into_iter().chain(self.key_datas.into_iter().flatten()), read)?;
        let files = self.rekor_public_key_path.into_iter().chain(self.rekor_public_key_paths.into_iter().flatten());
        let datas = self.rekor_public_key_data.into_iter().chain(self.rekor_public_key_datas.into_iter().flatten());
        let rekor = self::keys(files, datas, read)?;
        let certified = |roots, holder| Signers::Certified(CertifiedSigners { roots, holder, now });
        let signers = match (keys.is_empty(), self.fulcio, self.pki) {
            (false, None, None) => Signers::Keys(keys),
            (true, Some(_), None) if rekor.is_empty() => {
                return Err(malformed(
                    "fulcio lacks a key of Rekor, which says when a certificate was used".to_string(),
                ));
            }
            (true, Some(fulcio), None) => {
                let roots = certificates("fulcio", fulcio.ca_path, fulcio.ca_data, read)?;
                let holder = Holder::Fulcio { identity: fulcio.subject_email, issuer: fulcio.oidc_issuer };
                certified(Roots::new(roots, Vec::new()), holder)
            }
            (true, None, Some(pki)) => {
                let roots = certificates("pki", pki.ca_roots_path, pki.ca_roots_data, read)?;
                let between = match (pki.ca_intermediates_path, pki.ca_intermediates_data) {
                    (None, None) => Vec::new(),
                    (path, data) => certificates("pki", path, data, read)?,
                };
                let (email, host) = (pki.subject_email, pki.subject_hostname);
                if email.is_none() && host.is_none() {
                    return Err(malformed("pki does not say to whom a certificate is issued".to_string()));
                }
                certified(Roots::new(roots, between), Holder::Subject { email, host })
            }
            _ => {
                return Err(malformed(
                    "sigstoreSigned names no key, or more than one of keys, fulcio and pki".to_string(),
                ));
            }
        };
        let identity = self.signed_identity.map_or(Ok(Identity::RepositoryOfDigestOrExact), identity_of)?;
        Ok(Requirement { signers, rekor, identity })
    }
}

/// Reads a file that a policy names.
type ReadFile<'a> = &'a dyn Fn(&str) -> Result<Vec<u8>>;

fn keys(
    files: impl Iterator<Item = String>,
    datas: impl Iterator<Item = String>,
    read: ReadFile<'_>,
) -> Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for file in files {
        let doing = || format!("key {} of the policy", Quoted(file.as_bytes()));
        keys.push(read(&file).and_then(|text| PublicKey::from_pem(&text)).doing(doing)?);
    }
    for data in datas {
        keys.push(PublicKey::from_pem(&decoded(data)?).doing(|| "a key in the policy")?);
    }
    Ok(keys)
}

/// The certificates in a file or in the policy itself, of which one is named.
fn certificates(
    what: &str,
    path: Option<String>,
    data: Option<String>,
    read: ReadFile<'_>,
) -> Result<Vec<Certificate>> {
    let text = match (path, data) {
        (Some(path), None) => read(&path)?,
        (None, Some(data)) => decoded(data)?,
        _ => return Err(malformed(format!("{what} names no certificates, or two files of them"))),
    };
    Certificate::all_from_pem(&text).doing(|| format!("certificates for {what} of the policy"))
}

fn decoded(data: String) -> Result<Vec<u8>> {
    BASE64_STANDARD.decode(data).map_err(|_| malformed("a key or certificate is not base64".to_string()))
}

fn identity_of(identity: DocumentIdentity) -> Result<Identity> {
    let reference = |text: Option<String>| -> Result<Reference> {
        let text = text.ok_or_else(|| malformed("signedIdentity lacks a name".to_string()))?;
        text.parse().map_err(|_| malformed(format!("{} is not a name", Quoted(text.as_bytes()))))
    };
    Ok(match identity.kind.as_str() {
        "matchExact" => Identity::Exact,
        "matchRepoDigestOrExact" => Identity::RepositoryOfDigestOrExact,
        "matchRepository" => Identity::Repository,
        "exactReference" => Identity::ExactReference(reference(identity.docker_reference)?),
        "exactRepository" => Identity::ExactRepository(reference(identity.docker_repository)?),
        "remapIdentity" => match (identity.prefix, identity.signed_prefix) {
            (Some(prefix), Some(signed_prefix)) => Identity::Remapped { prefix, signed_prefix },
            _ => return Err(malformed("remapIdentity lacks a prefix".to_string())),
        },
        other => return Err(malformed(format!("{} is not a signedIdentity", Quoted(other.as_bytes())))),
    })
}

/// From the name itself to its host, and the wildcards above that.
fn scopes_of_name(reference: &Reference) -> Vec<String> {
    let repository = format!("{}/{}", reference.host, reference.repository);
    let exact = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => format!("{repository}@{digest}"),
        (None, tag) => format!("{repository}:{}", tag.as_deref().unwrap_or("latest")),
    };
    let mut scopes = vec![exact, repository.clone()];
    let mut rest = repository.as_str();
    while let Some((parent, _)) = rest.rsplit_once('/') {
        scopes.push(parent.to_string());
        rest = parent;
    }
    let mut domain = reference.host.split(':').next().unwrap_or_default();
    while let Some((_, parent)) = domain.split_once('.') {
        scopes.push(format!("*.{parent}"));
        domain = parent;
    }
    scopes
}

/// From the path to the directories above it; `/` is not a scope.
fn scopes_of_path(path: &str) -> Vec<String> {
    let mut scopes = vec![path.to_string()];
    let mut rest = path;
    while let Some((parent, _)) = rest.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        scopes.push(parent.to_string());
        rest = parent;
    }
    scopes
}

fn malformed(what: String) -> Error {
    Error::new(ErrorKind::Usage, format!("not a policy.json: {what}"))
        .hint("see containers-policy.json(5) for what a policy looks like")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::IoResultExt as _;

    fn policy(json: &str) -> Result<PolicyFile> {
        let read = |path: &str| std::fs::read(format!("fixtures/keys/{path}")).or_kind(ErrorKind::Other);
        PolicyFile::parse(json.as_bytes(), &read, Duration::ZERO)
    }

    fn of(policy: &PolicyFile, name: &str) -> Result<Option<ImagePolicy>> {
        policy.of("docker", Some(&name.parse().unwrap()), None)
    }

    #[test]
    fn the_nearest_scope_counts() {
        let policy = policy(
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{
                "h.example/a":[{"type":"sigstoreSigned","keyPath":"p256.pub"}],
                "h.example/a/b:1":[{"type":"insecureAcceptAnything"}],
                "*.deep.example":[{"type":"insecureAcceptAnything"}],
                "old.example":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"x"}]},
                "oci":{"/srv/images":[{"type":"insecureAcceptAnything"}]},
                "docker-daemon":{"":[{"type":"insecureAcceptAnything"}]}}}"#,
        )
        .unwrap();
        assert_eq!(of(&policy, "debian").unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(of(&policy, "h.example/a/b:2").unwrap().unwrap().requirements.len(), 1);
        assert_eq!(of(&policy, "h.example/a:1").unwrap().unwrap().requirements.len(), 1);
        assert_eq!(of(&policy, "h.example/ab:1").unwrap_err().kind(), ErrorKind::Mismatch);
        assert_eq!(of(&policy, "h.example/a/b:1").unwrap(), None);
        assert_eq!(of(&policy, "x.y.deep.example:5000/z").unwrap(), None);
        assert_eq!(of(&policy, "old.example/z").unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(policy.of("oci", None, Some("/srv/images/x")).unwrap(), None);
        assert!(policy.of("oci", None, Some("/srv/imagesx")).is_err());
        assert_eq!(policy.of("docker-daemon", None, None).unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for json in [
            "{}",
            r#"{"default":[]}"#,
            r#"{"default":[{"type":"accept"}]}"#,
            r#"{"default":[{"type":"reject","more":1}]}"#,
            r#"{"default":[{"type":"sigstoreSigned"}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyData":"!"}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"p256.pub","pki":{"caRootsPath":"ca.pem","subjectEmail":"x"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","pki":{"caRootsPath":"ca.pem"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","pki":{"subjectEmail":"x"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","fulcio":{"caPath":"ca.pem","oidcIssuer":"x","subjectEmail":"x"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","fulcio":{"caPath":"ca.pem","subjectEmail":"x"},"rekorPublicKeyPath":"p256.pub"}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"p256.pub","signedIdentity":{"type":"any"}}]}"#,
            r#"{"default":[{"type":"sigstoreSigned","keyPath":"p256.pub","signedIdentity":{"type":"exactReference"}}]}"#,
        ] {
            assert_eq!(policy(json).unwrap_err().kind(), ErrorKind::Usage, "{json}");
        }
    }

    #[test]
    fn identities_are_compared_as_the_manual_says() {
        let asked: Reference = "h.example/a/b:1".parse().unwrap();
        let pinned: Reference = format!("h.example/a/b@{}", crate::model::Digest::of(b"")).parse().unwrap();
        let remapped =
            Identity::Remapped { prefix: "h.example".to_string(), signed_prefix: "vendor.example/mirror".to_string() };
        for (identity, signed, asked, fits) in [
            (&Identity::RepositoryOfDigestOrExact, "h.example/a/b:1", &asked, true),
            (&Identity::RepositoryOfDigestOrExact, "h.example/a/b", &asked, false),
            (&Identity::RepositoryOfDigestOrExact, "h.example/a/b", &pinned, true),
            (&Identity::Exact, "h.example/a/b:1", &asked, true),
            (&Identity::Exact, "h.example/a/b:1", &pinned, false),
            (&Identity::Repository, "h.example/a/b:2", &asked, true),
            (&Identity::Repository, "h.example/a/c:1", &asked, false),
            (&Identity::ExactRepository("o/x".parse().unwrap()), "docker.io/o/x:7", &asked, true),
            (&Identity::ExactReference("o/x:1".parse().unwrap()), "o/x:2", &asked, false),
            (&remapped, "vendor.example/mirror/a/b:1", &asked, true),
            (&remapped, "h.example/a/b:1", &asked, false),
            (&Identity::SameRepository, "h.example/a/b", &asked, true),
            (&Identity::SameRepository, "h.example/a/B", &asked, false),
        ] {
            assert_eq!(identity.expect(signed, Some(asked)).is_ok(), fits, "{identity:?} {signed} {asked}");
        }
        assert!(Identity::Repository.expect("h.example/a/b:1", None).is_err());
    }
}
