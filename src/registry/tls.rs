use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls_native_certs::load_certs_from_paths;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, TlsConfig, parse_pem};

use super::settings::Settings;
use super::settings_file::read_settings_file;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::model::Quoted;

/// Where systems keep the roots they trust, in one file: the list of Go's crypto/x509.
const ROOTS_FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How much of a file with certificates is read, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;

/// How a host is trusted, and how we show who we are: the system's roots, and what `certs.d` holds for that host.
pub(super) fn config(settings: &Settings, authority: &str) -> Result<TlsConfig> {
    let mut roots = system_roots(settings)?;
    let mut client = None;
    for directory in &settings.certificate_directories {
        let directory = directory.join(authority);
        for file in files_in(&directory)? {
            let doing = || format!("reading certificates for {authority}");
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => roots.extend(certificates(&file).doing(doing)?),
                Some("cert") if client.is_none() => client = Some(client_certificate(&file).doing(doing)?),
                _ => {}
            }
        }
    }
    let is_lenient = settings.lenient.iter().any(|host| host == authority);
    Ok(TlsConfig::builder().root_certs(roots.into()).client_cert(client).disable_verification(is_lenient).build())
}

fn system_roots(settings: &Settings) -> Result<Vec<Certificate<'static>>> {
    let given = settings.roots_file.is_some() || settings.roots_directory.is_some();
    let usual = || ROOTS_FILES.iter().map(Path::new).find(|path| path.exists()).map(Path::to_path_buf);
    let file = settings.roots_file.clone().or_else(|| if given { None } else { usual() });
    let found = load_certs_from_paths(file.as_deref(), settings.roots_directory.as_deref());
    if let Some(error) = found.errors.first().filter(|_| given && found.certs.is_empty()) {
        let message = format!("reading root certificates: {error}");
        return Err(
            Error::new(ErrorKind::Network, message).hint("correct SSL_CERT_FILE and SSL_CERT_DIR, or unset them")
        );
    }
    Ok(found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

/// The files of a directory in the order of their names; none where it is not there.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    Ok(files)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let text = read(path)?;
    let items = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(malformed(path, &error.to_string()))),
    });
    let certificates: Vec<_> = items.collect::<Result<_>>()?;
    if certificates.is_empty() { Err(malformed(path, "there is none")) } else { Ok(certificates) }
}

/// `NAME.cert` with the key in `NAME.key`, as Docker wants it.
fn client_certificate(path: &Path) -> Result<ClientCert> {
    let chain = certificates(path)?;
    let key_path = path.with_extension("key");
    let pem = read(&key_path)?;
    let key = PrivateKey::from_pem(&pem).map_err(|_| malformed(&key_path, "there is no private key in it"))?;
    check_pair(&chain, &pem, &key_path)?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// ureq panics where a certificate and its key do not belong together, as after a renewal of the certificate alone.
fn check_pair(chain: &[Certificate<'_>], pem: &[u8], key_path: &Path) -> Result<()> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der()).into_owned()).collect();
    let why = match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => match CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
        Err(error) => error.to_string(),
    };
    let quoted = Quoted(key_path.as_os_str().as_encoded_bytes());
    Err(Error::new(ErrorKind::Network, format!("{quoted} is not the key of the certificate beside it: {why}"))
        .hint("put the key there that the certificate was made with, or remove both files"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    read_settings_file(path, CERTIFICATES_BYTES_MAX)
        .or_kind(ErrorKind::Network)
        .doing(|| Quoted(path.as_os_str().as_encoded_bytes()).to_string())
}

fn malformed(path: &Path, why: &str) -> Error {
    let quoted = Quoted(path.as_os_str().as_encoded_bytes());
    Error::new(ErrorKind::Network, format!("{quoted} holds no certificate in PEM form: {why}"))
        .hint("correct or remove that file")
}
