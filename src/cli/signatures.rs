//! What the options for signatures mean.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::keys;
use super::options::{Checks, SignatureOptions};
use super::values::usage;
use crate::error::{Error, Result, ResultExt as _};
use crate::model::Quoted;
use crate::output::{CarriedSignature, SIGNATURE_BYTES_MAX, Signing};
use crate::trust::{ImagePolicy, PolicyFile};

/// Refuses options that mean nothing without another one.
pub(super) fn refuse_idle(options: &SignatureOptions) -> Result<()> {
    if options.sign_key.is_none() {
        let idle = [
            (options.sign_passphrase_file.is_some(), "--sign-passphrase-file"),
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
    let key = |path: &PathBuf| keys::private_key(path, options.sign_passphrase_file.as_deref());
    Ok(Signing {
        key: options.sign_key.as_ref().map(key).transpose()?,
        detached: options.sign_detached.is_some(),
        carried: options.signature.as_deref().map(carried).transpose()?.map(Box::new),
    })
}

/// Whose images are converted, where not everybody's.
pub(super) fn trust(checks: &Checks) -> Result<Option<ImagePolicy>> {
    if checks.verify_key.is_empty() {
        return Ok(None);
    }
    Ok(Some(ImagePolicy::keys(keys::public_keys(&checks.verify_key)?)))
}

/// Reads a policy.json and the keys that it names.
pub(super) fn policy(path: &Path) -> Result<PolicyFile> {
    let doing = || format!("policy {}", Quoted(path.as_os_str().as_bytes()));
    let text = keys::small_file(path, SIGNATURE_BYTES_MAX as usize).doing(doing)?;
    let read = |name: &str| keys::small_file(Path::new(name), keys::KEY_BYTES_MAX).map(|text| text.to_vec());
    PolicyFile::parse(&text, &read).doing(doing)
}

/// Reads a detached signature.
pub(super) fn carried(path: &Path) -> Result<CarriedSignature> {
    let doing = || format!("signature {}", Quoted(path.as_os_str().as_bytes()));
    let text = keys::small_file(path, SIGNATURE_BYTES_MAX as usize).doing(doing)?;
    CarriedSignature::parse(text.to_vec()).doing(doing)
}
