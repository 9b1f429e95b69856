//! Keys and passphrases: from files, from Apptainer's environment, from a terminal. Never from the command line, which
//! everybody on the machine can read.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use super::environment::Environment;
use super::keys::{KEY_BYTES_MAX, small_file};
use super::values::usage;
use crate::error::{Result, ResultExt as _};
use crate::gocryptfs::{Passphrase, PrivateKey, PublicKey, Secret};
use crate::model::Quoted;
use crate::output::Encryption;

/// The variables that [`of_environment`] looks at.
pub(super) use super::environment::ENCRYPTION_VARIABLES as VARIABLES;

/// What is encrypted, and with what.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Encryption (sif)")]
pub(super) struct EncryptionOptions {
    /// Encrypt the SIF with the passphrase in this file
    ///
    /// For apptainer run --passphrase. The same image, options and passphrase give the same bytes.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, verbatim_doc_comment)]
    pub(super) encrypt_passphrase_file: Option<PathBuf>,
    /// Encrypt the SIF for the owner of this public RSA key in PEM
    ///
    /// For apptainer run --pem-path. No two outputs are the same.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, verbatim_doc_comment)]
    #[arg(conflicts_with = "encrypt_passphrase_file")]
    pub(super) encrypt_pem: Option<PathBuf>,
    #[command(flatten)]
    pub(super) decryption: DecryptionOptions,
    /// A passphrase that was asked for or stood in the environment.
    #[arg(skip)]
    pub(super) given: Option<Encryption>,
}

/// What an encrypted source is opened with.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Encryption (sif)")]
pub(super) struct DecryptionOptions {
    /// Open an encrypted SIF with the passphrase in this file
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    decrypt_passphrase_file: Option<PathBuf>,
    /// Open an encrypted SIF with this private RSA key in PEM
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with = "decrypt_passphrase_file")]
    decrypt_pem: Option<PathBuf>,
}

impl DecryptionOptions {
    /// The IDs of all options here.
    pub(super) const IDS: [&str; 2] = ["decrypt_passphrase_file", "decrypt_pem"];

    /// Reads it.
    pub(super) fn secret(&self) -> Result<Option<Secret>> {
        secret(self.decrypt_passphrase_file.as_deref(), self.decrypt_pem.as_deref())
    }
}

impl EncryptionOptions {
    /// The IDs of the options for an output.
    pub(super) const IDS: [&str; 2] = ["encrypt_passphrase_file", "encrypt_pem"];

    /// Reads what the output is encrypted with.
    pub(super) fn encryption(&self) -> Result<Option<Encryption>> {
        Ok(match (&self.encrypt_passphrase_file, &self.encrypt_pem) {
            (Some(path), _) => {
                Some(Encryption::Passphrase(passphrase(path).doing(|| "option --encrypt-passphrase-file")?))
            }
            (_, Some(path)) => Some(Encryption::PublicKey(public_key(path).doing(|| "option --encrypt-pem")?)),
            (None, None) => self.given.clone(),
        })
    }
}

/// What an encrypted SIF is opened with.
pub(super) fn secret(passphrase_file: Option<&Path>, pem: Option<&Path>) -> Result<Option<Secret>> {
    Ok(match (passphrase_file, pem) {
        (Some(path), _) => Some(Secret::Passphrase(passphrase(path)?)),
        (_, Some(path)) => Some(private_key_of(&text(read(path)?)?).at_file(path)?),
        (None, None) => None,
    })
}

fn private_key_of(text: &str) -> Result<Secret> {
    PrivateKey::parse(text).map(|key| Secret::PrivateKey(Box::new(key)))
}

/// The passphrase in a file.
pub(super) fn passphrase(path: &Path) -> Result<Passphrase> {
    let mut bytes = read(path)?;
    Passphrase::new(std::mem::take(&mut *bytes)).at_file(path)
}

/// The public key in a file.
pub(super) fn public_key(path: &Path) -> Result<PublicKey> {
    PublicKey::parse(&text(read(path)?)?).at_file(path)
}

fn text(bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<String>> {
    let text = std::str::from_utf8(&bytes).map(str::to_string);
    text.map(Zeroizing::new).map_err(|_| usage("the key is not text", "give it in PEM"))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    small_file(path, KEY_BYTES_MAX).at_file(path)
}

/// Names the file.
trait AtFile<T> {
    fn at_file(self, path: &Path) -> Result<T>;
}

impl<T> AtFile<T> for Result<T> {
    fn at_file(self, path: &Path) -> Result<T> {
        self.doing(|| format!("reading {}", Quoted(path.as_os_str().as_bytes())))
    }
}

/// A key that Apptainer's and Singularity's variables name.
enum Named {
    File(String, OsString),
    Pem(String, String),
    Passphrase(Passphrase),
}

/// The first that is set, in Apptainer's order: a PEM file, a PEM, a passphrase.
fn named(environment: &Environment) -> Result<Option<Named>> {
    let set = |name: &str| {
        let variables = ["APPTAINER", "SINGULARITY"].map(|program| format!("{program}_ENCRYPTION_{name}"));
        let found = variables.into_iter().find_map(|name| environment.variable(&name).map(|value| (name, value)));
        found.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.to_os_string()))
    };
    if let Some((name, path)) = set("PEM_PATH") {
        return Ok(Some(Named::File(name, path)));
    }
    if let Some((name, pem)) = set("PEM_DATA") {
        let pem = pem.into_string().map_err(|_| usage(format!("environment {name} is not text"), "set it to PEM"))?;
        return Ok(Some(Named::Pem(name, pem)));
    }
    if let Some((name, passphrase)) = set("PASSPHRASE") {
        let passphrase = Passphrase::new(passphrase.as_bytes().to_vec()).doing(|| format!("environment {name}"))?;
        return Ok(Some(Named::Passphrase(passphrase)));
    }
    Ok(None)
}

/// What the variables say to encrypt with.
pub(super) fn of_environment(environment: &Environment) -> Result<Option<Encryption>> {
    Ok(match named(environment)? {
        None => None,
        Some(Named::Passphrase(passphrase)) => Some(Encryption::Passphrase(passphrase)),
        Some(Named::Pem(name, pem)) => {
            Some(Encryption::PublicKey(PublicKey::parse(&pem).doing(|| format!("environment {name}"))?))
        }
        Some(Named::File(name, path)) => {
            let key = public_key(Path::new(&path)).doing(|| format!("environment {name}"))?;
            Some(Encryption::PublicKey(key))
        }
    })
}

/// What the variables say to decrypt with.
pub(super) fn secret_of_environment(environment: &Environment) -> Result<Option<Secret>> {
    match named(environment)? {
        None => Ok(None),
        Some(Named::Passphrase(passphrase)) => Ok(Some(Secret::Passphrase(passphrase))),
        Some(Named::Pem(name, pem)) => private_key_of(&pem).doing(|| format!("environment {name}")).map(Some),
        Some(Named::File(name, path)) => secret(None, Some(Path::new(&path))).doing(|| format!("environment {name}")),
    }
}
