//! Keys and passphrases: from files, descriptors and the terminal. Never from arguments or the environment, where others
//! see them.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::prompt::{self, PASSPHRASE_BYTES_MAX};
use super::values::usage;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::open_now;
use crate::model::Quoted;
use crate::trust::{Certificate, PrivateKey, PublicKey, Zeroizing};

/// Most bytes of a file with keys; RSA keys of 4096 bits take 3.3 KB.
pub(super) const KEY_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a file with certificates: all that a system trusts take 250 KB.
const CERTIFICATES_BYTES_MAX: usize = 1 << 20;

/// Reads a private key. Where it is encrypted, its passphrase comes from `passphrase_file`, else from the terminal.
pub(super) fn private_key(path: &Path, passphrase_file: Option<&Path>) -> Result<PrivateKey> {
    let name = Quoted(path.as_os_str().as_bytes()).to_string();
    let doing = || format!("private key {name}");
    let text = small_file(path, KEY_BYTES_MAX).doing(doing)?;
    let ask = || match passphrase_file {
        Some(file) => passphrase_of(file),
        None => prompt::on_terminal(&format!("passphrase of {name}: ")),
    };
    PrivateKey::from_pem(&text, &ask).doing(doing)
}

/// Reads public keys, one a file.
pub(super) fn public_keys(paths: &[impl AsRef<OsStr>]) -> Result<Vec<PublicKey>> {
    let read = |path: &Path| PublicKey::from_pem(&small_file(path, KEY_BYTES_MAX)?);
    let named = |path: &Path| format!("public key {}", Quoted(path.as_os_str().as_bytes()));
    paths.iter().map(|path| Path::new(path.as_ref())).map(|path| read(path).doing(|| named(path))).collect()
}

/// Reads the certificates of a file, one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let doing = || format!("certificates {}", Quoted(path.as_os_str().as_bytes()));
    small_file(path, CERTIFICATES_BYTES_MAX).and_then(|text| Certificate::all_from_pem(&text)).doing(doing)
}

/// How long it has been since 1970: certificates are valid for a time.
pub(super) fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "certificates are compared with the time, which goes nowhere")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The first line of a file; `/dev/fd/N` is the descriptor N.
pub(super) fn passphrase_of(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let doing = || format!("passphrase in {}", Quoted(path.as_os_str().as_bytes()));
    let mut text = small_file(path, PASSPHRASE_BYTES_MAX).doing(doing)?;
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    let end = if text[..end].ends_with(b"\r") { end - 1 } else { end };
    text.truncate(end);
    if text.is_empty() {
        return Err(usage("it is empty", "put the passphrase into the first line of the file")).doing(doing);
    }
    Ok(text)
}

/// A file in memory that is wiped when it is not needed any more.
pub(super) fn small_file(path: &Path, bytes_max: usize) -> Result<Zeroizing<Vec<u8>>> {
    let mut file = open_now(path).or_kind(ErrorKind::SourceUnavailable)?;
    // A buffer that grew would leave what it held behind.
    let mut bytes = Zeroizing::new(vec![0; bytes_max + 1]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(ErrorKind::SourceUnavailable, error)),
        }
    }
    if length > bytes_max {
        return Err(usage(format!("it is too long: more than {bytes_max} bytes"), "name the right file"));
    }
    bytes.truncate(length);
    Ok(bytes)
}
