//! What the options for signatures mean.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::keys;
use super::options::{SignatureOptions, TrustOptions};
use super::values::usage;
use crate::error::{Error, Result, ResultExt as _};
use crate::model::Quoted;
use crate::output::{CarriedSignature, SIGNATURE_BYTES_MAX, Signing};
use crate::trust::{CertifiedSigners, ImagePolicy, PolicyFile, PublicKey, Roots};

/// Refuses options that mean nothing without another one.
pub(super) fn refuse_idle(options: &SignatureOptions) -> Result<()> {
    if options.key.sign_key.is_none() {
        let idle = [
            (options.key.sign_passphrase_file.is_some(), "--sign-passphrase-file"),
            (options.sign_detached.is_some(), "--sign-detached"),
        ];
        if let Some((_, option)) = idle.iter().find(|(is_given, _)| *is_given) {
            let message = format!("option {option} has no effect without --sign-key");
            return Err(usage(message, "name the private key with --sign-key, or leave it out"));
        }
    }
    if options.sign_detached.is_some() && options.signature.is_some() {
        let message = "option --signature has no effect on a detached signature";
        return Err(usage(message, "leave --signature or --sign-detached out"));
    }
    Ok(())
}

/// The signature is the output: there is no other.
pub(super) fn two_outputs() -> Error {
    let message = "option --output has no effect on a detached signature: --sign-detached says where it goes";
    usage(message, "leave --output out; convert once more without --sign-detached for the SIF")
}

/// Reads keys and signatures.
pub(super) fn signing(options: &SignatureOptions) -> Result<Signing> {
    let key = |path: &PathBuf| keys::private_key(path, options.key.sign_passphrase_file.as_deref());
    Ok(Signing {
        key: options.key.sign_key.as_ref().map(key).transpose()?,
        detached: options.sign_detached.is_some(),
        carried: options.signature.as_deref().filter(|it| !is_referrer(it)).map(carried).transpose()?.map(Box::new),
        from_referrer: options.signature.as_deref().is_some_and(is_referrer),
    })
}

/// Whether the signature is the one that is attached to the image.
fn is_referrer(path: &Path) -> bool {
    path.as_os_str() == "referrer"
}

/// Whose images are converted, where not everybody's.
pub(super) fn trust(options: &TrustOptions) -> Result<Option<ImagePolicy>> {
    let mut keys = keys::public_keys(&options.verify_key)?;
    // Any of them will do: their order says nothing.
    keys.sort_by_key(PublicKey::id);
    keys.dedup();
    let keys = Some(keys).filter(|keys| !keys.is_empty()).map(ImagePolicy::keys);
    let rekor = keys::public_keys(&options.rekor_key)?;
    let certified = certified(options)?.map(|signers| ImagePolicy::certified(signers, rekor));
    if certified.is_none() && !options.rekor_key.is_empty() {
        let message = "option --rekor-key has no effect without --verify-root";
        return Err(usage(message, "leave it out, or name the roots of certificates with --verify-root"));
    }
    Ok(keys.into_iter().chain(certified).reduce(ImagePolicy::and))
}

/// Whose certificates count. Nobody is believed for having one alone.
fn certified(options: &TrustOptions) -> Result<Option<CertifiedSigners>> {
    let TrustOptions { verify_root, certificate_identity, certificate_oidc_issuer, .. } = options;
    let whose = [
        ("--verify-root", verify_root.is_some()),
        ("--certificate-identity", certificate_identity.is_some()),
        ("--certificate-oidc-issuer", certificate_oidc_issuer.is_some()),
    ];
    match (verify_root, certificate_identity, certificate_oidc_issuer) {
        (Some(root), Some(identity), Some(issuer)) => {
            let roots = Roots::new(keys::certificates(root)?, Vec::new());
            Ok(Some(CertifiedSigners::new(roots, identity.clone(), issuer.clone(), keys::now())))
        }
        _ => {
            let named = |wanted: bool| whose.iter().filter(move |it| it.1 == wanted).map(|it| it.0).collect::<Vec<_>>();
            let Some(option) = named(true).first().copied() else { return Ok(None) };
            let others = named(false).join(" and ");
            let message = format!("option {option} has no effect without {others}");
            Err(usage(
                message,
                "say under which roots, to whom and by whose word the certificate must have been issued",
            ))
        }
    }
}

/// Reads the policy.json, if one is named, and the keys that it names.
pub(super) fn policy(options: &TrustOptions) -> Result<Option<PolicyFile>> {
    let Some(path) = &options.policy else { return Ok(None) };
    let doing = || format!("policy {}", Quoted(path.as_os_str().as_bytes()));
    let text = keys::small_file(path, SIGNATURE_BYTES_MAX as usize).doing(doing)?;
    let read = |name: &str| keys::small_file(Path::new(name), keys::KEY_BYTES_MAX).map(|text| text.to_vec());
    PolicyFile::parse(&text, &read, keys::now()).doing(doing).map(Some)
}

/// Reads a detached signature.
pub(super) fn carried(path: &Path) -> Result<CarriedSignature> {
    let doing = || format!("signature {}", Quoted(path.as_os_str().as_bytes()));
    let text = keys::small_file(path, SIGNATURE_BYTES_MAX as usize).doing(doing)?;
    CarriedSignature::parse(text.to_vec()).doing(doing)
}
