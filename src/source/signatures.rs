//! Signatures that lie beside images: found here, checked by `trust` before anything of the image is read.

use std::cell::Cell;
use std::path::Path;

use super::document::Documents;
use super::oci::INDEX;
use super::{OpenOptions, Spec};
use crate::error::{ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::model::{Descriptor, Digest, Index, Manifest, Reference};
use crate::trust::{FoundSignature, ImagePolicy, SignatureBytes};

const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const REKOR: &str = "dev.sigstore.cosign/bundle";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What `cosign save` calls entries of a layout that are signatures.
const KIND: &str = "kind";
const KIND_SIGNATURES: &str = "dev.cosignproject.cosign/sigs";
/// Most manifests and most signatures that are looked at for one image.
const MANIFESTS_MAX: usize = 64;
const SIGNATURES_MAX: usize = 64;

/// The options with what the policy asks of this source.
pub(super) fn with_policy(spec: &Spec, options: &OpenOptions) -> Result<OpenOptions> {
    let mut options = options.clone();
    let Some(policy) = options.policy.take() else { return Ok(options) };
    let opening = || format!("opening {spec}");
    let of_path = |transports: &[&str], path: &Path| -> Result<Option<ImagePolicy>> {
        let whole = std::fs::canonicalize(path).or_kind(ErrorKind::SourceUnavailable).doing(opening)?;
        let whole = whole.to_str().map(str::to_string);
        all(transports.iter().map(|transport| policy.of(transport, None, whole.as_deref())))
    };
    let archives = ["docker-archive", "oci-archive"];
    let asked = match spec {
        Spec::Path(path) if path.is_dir() => of_path(&["oci"], path),
        Spec::Path(path) if super::filesystem::recognise(path).doing(opening)?.is_some() => of_path(&["sif"], path),
        // What it is is not known before it is read: it must be allowed as either.
        Spec::Path(path) => of_path(&archives, path),
        Spec::DockerArchive { path, .. } => of_path(&archives[..1], path),
        Spec::OciArchive { path, .. } => of_path(&archives[1..], path),
        Spec::OciLayout { path, .. } => of_path(&["oci"], path),
        Spec::Registry(name) => policy.of("docker", Some(&name.parse::<Reference>()?), None),
        Spec::Oras(name) => policy.of("oras", Some(&name.parse::<Reference>()?), None),
        Spec::DockerDaemon(_) => policy.of("docker-daemon", None, None),
        _ => all(archives.iter().map(|transport| policy.of(transport, None, None))),
    };
    if let Some(asked) = asked? {
        options.trust = Some(options.trust.take().unwrap_or_default().and(asked));
    }
    Ok(options)
}

/// What all of several ask for.
fn all(asked: impl Iterator<Item = Result<Option<ImagePolicy>>>) -> Result<Option<ImagePolicy>> {
    let asked: Vec<ImagePolicy> = asked.filter_map(Result::transpose).collect::<Result<_>>()?;
    Ok(asked.into_iter().reduce(ImagePolicy::and))
}

/// Reads a document by its digest, verified; `None` where there is none.
type ReadDocument<'a> = &'a dyn Fn(Digest) -> Result<Option<Vec<u8>>>;

/// The signatures that a manifest holds, in either form.
pub(super) fn of_manifest(place: &str, manifest: &[u8], read: ReadDocument<'_>) -> Result<Vec<FoundSignature>> {
    // What is not a manifest is not a signature.
    let Ok(manifest) = Manifest::parse(manifest) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for layer in manifest.layers.iter().take(SIGNATURES_MAX) {
        let is_simple = layer.media_type == SIMPLE_SIGNING;
        if !is_simple && !layer.media_type.starts_with(BUNDLE) {
            continue;
        }
        let Ok(digest) = layer.digest() else { continue };
        let Some(bytes) = read(digest)? else { continue };
        let form = match (is_simple, layer.annotation(SIGNATURE)) {
            (true, Some(signature)) => SignatureBytes::Simple {
                payload: bytes,
                signature: signature.to_string(),
                certificates: [CERTIFICATE, CHAIN].map(|key| layer.annotation(key).unwrap_or_default()).join("\n"),
                rekor: layer.annotation(REKOR).unwrap_or_default().to_string(),
            },
            (true, None) => continue,
            (false, _) => SignatureBytes::Bundle(bytes),
        };
        found.push(FoundSignature { place: place.to_string(), form });
    }
    Ok(found)
}

/// All signatures that a layout or an archive of one holds, of whatever image.
pub(super) fn of_layout(documents: &Documents<'_>) -> Result<Vec<FoundSignature>> {
    let Some(bytes) = documents.read(INDEX)? else { return Ok(Vec::new()) };
    let index = Index::parse(&bytes).doing(|| documents.doing(INDEX))?;
    let left = Cell::new(MANIFESTS_MAX);
    let mut found = Vec::new();
    for descriptor in index.manifests.into_iter().filter_map(Result::ok) {
        if is_referrers_list(&descriptor) {
            let listed = descriptor.digest().ok().map(|digest| documents.read_blob(digest)).transpose()?.flatten();
            let listed = listed.and_then(|bytes| Index::parse(&bytes).ok()).unwrap_or_default();
            for entry in listed.manifests.into_iter().filter_map(Result::ok) {
                found.extend(of_entry(documents, &entry, &left)?);
            }
        } else if is_signature(&descriptor) {
            found.extend(of_entry(documents, &descriptor, &left)?);
        }
    }
    Ok(found)
}

fn of_entry(documents: &Documents<'_>, entry: &Descriptor, left: &Cell<usize>) -> Result<Vec<FoundSignature>> {
    let Ok(digest) = entry.digest() else { return Ok(Vec::new()) };
    let Some(less) = left.get().checked_sub(1) else { return Ok(Vec::new()) };
    left.set(less);
    let read = |digest| match documents.read_blob(digest) {
        // A signature that is damaged is none.
        Err(error) if matches!(error.kind(), ErrorKind::Mismatch | ErrorKind::InvalidImage) => Ok(None),
        read => read,
    };
    match read(digest)? {
        Some(manifest) => of_manifest(&format!("signature {digest}"), &manifest, &read),
        None => Ok(Vec::new()),
    }
}

/// Whether an entry of `index.json` says that it is a signature: by the tag that cosign gives it, by what `cosign save`
/// calls it, or by its type.
pub(super) fn is_signature(descriptor: &Descriptor) -> bool {
    let tag = tag_of(descriptor);
    (tag.starts_with("sha256-") && tag.ends_with(".sig"))
        || descriptor.annotation(KIND) == Some(KIND_SIGNATURES)
        || descriptor.artifact_type.starts_with(BUNDLE)
        // What oras copies from a list of referrers has the type that cosign 3.1 wrote into that: the one of its config.
        || descriptor.artifact_type == EMPTY
}

/// Whether an entry of `index.json` is the list of what refers to an image, under the tag that stands for it.
pub(super) fn is_referrers_list(descriptor: &Descriptor) -> bool {
    let hex = tag_of(descriptor).strip_prefix("sha256-");
    hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The tag in a name with or without a repository.
fn tag_of(descriptor: &Descriptor) -> &str {
    let name = descriptor.annotation(REF_NAME).unwrap_or_default();
    name.rsplit(':').next().unwrap_or(name)
}
