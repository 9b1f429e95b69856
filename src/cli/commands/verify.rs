//! `convert verify FILE`: is it intact?

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::diff;
use crate::against::{self, AgainstOptions};
use crate::cli::encryption::DecryptionOptions;
use crate::cli::environment::Environment;
use crate::cli::keys;
use crate::cli::looking::{Look, LookOptions};
use crate::cli::options::{Choice, Feedback, Given, source};
use crate::cli::printer::{self, Voice, counted};
use crate::cli::registry::RegistryOptions;
use crate::cli::session;
use crate::cli::shell_word::shell_word;
use crate::cli::signals::Quit;
use crate::cli::subject::Subject;
use crate::cli::values::usage;
use crate::error::{Error, ErrorKind, Result};
use crate::gocryptfs::Secret;
use crate::image::Image;
use crate::io::Monitor;
use crate::model::{Note, Quoted};
use crate::output;
use crate::source::{self as sources, OpenOptions, Selection, Spec};
use crate::trust::{PublicKey, Roots};

/// `convert verify FILE`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// A SIF of any maker, or an image: a docker-archive, an OCI archive or layout, docker://HOST/NAME; "-" is an archive
    /// from standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) file: OsString,
    /// Check that the SIF is what this image gives: byte for byte, or with the differences listed
    #[arg(long, value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) against: Option<OsString>,
    /// Require all of a SIF to be signed by this public key, in PEM; may be repeated: by any of them
    #[arg(long, value_name = "PUB.pem", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) key: Vec<PathBuf>,
    /// Require all of a SIF to be signed by the key of this certificate, in PEM, which must be valid now; may be repeated
    ///
    /// Certificates behind the first one in the file may lead to the roots.
    #[arg(long, value_name = "CERT.pem", verbatim_doc_comment, value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) certificate: Vec<PathBuf>,
    /// Certificates that may lead from it to the roots
    #[arg(long, value_name = "CERTS.pem", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) certificate_intermediates: Option<PathBuf>,
    /// Whose certificates count: all in this file
    #[arg(long, value_name = "ROOTS.pem", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) certificate_roots: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) decryption: DecryptionOptions,
    #[command(flatten)]
    pub(in crate::cli) choice: Choice,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// The options that say whose signatures count.
const SIGNERS: [&str; 4] = ["key", "certificate", "certificate_intermediates", "certificate_roots"];

/// What is verified.
#[derive(Debug)]
pub(in crate::cli) enum Verified {
    /// A file or source by itself.
    Alone(Subject),
    /// A SIF, against what a source gives.
    Against(PathBuf, Box<Look>),
}

impl Verify {
    /// What is verified.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Verified> {
        let spec = source(&self.file, environment)?;
        if matches!(spec, Spec::Oras(_)) {
            return Err(hosted_sif(&self.file));
        }
        if let Some(against) = &self.against {
            let Spec::Path(path) = spec else { return Err(self.no_sif()) };
            if !output::is_sif(&path) {
                return Err(self.no_sif());
            }
            let (choice, registry) = (self.choice.clone(), self.registry.clone());
            let options = LookOptions { choice, registry, ..LookOptions::default() };
            let look = Look::resolve(against, &options, false, given, environment)?;
            return Ok(Verified::Against(path, Box::new(look)));
        }
        let options = (&self.choice, &self.registry);
        let hash = OpenOptions::default().hash;
        let subject = Subject::resolve(&self.file, options, (true, hash), given, environment)?;
        // Opening a file that does not exist says so.
        if let Subject::Source(_) = subject
            && spec.path().is_none_or(Path::exists)
        {
            given.expect("an image", |id| Ok(!SIGNERS.contains(&id) && !DecryptionOptions::IDS.contains(&id)))?;
        }
        Ok(Verified::Alone(subject))
    }

    fn no_sif(&self) -> Error {
        let file = Quoted(self.file.as_encoded_bytes());
        usage(format!("option --against has no effect on {file}, which is not a SIF"), "give a SIF first")
    }

    /// Whose signatures count.
    pub(in crate::cli) fn keys(&self) -> Result<Vec<PublicKey>> {
        let mut all = keys::public_keys(&self.key)?;
        let Some(roots) = &self.certificate_roots else {
            let idle = [
                (!self.certificate.is_empty(), "--certificate"),
                (self.certificate_intermediates.is_some(), "--certificate-intermediates"),
            ];
            return idle.iter().find(|(is_given, _)| *is_given).map_or(Ok(all), |(_, option)| {
                let message = format!("option {option} has no effect without --certificate-roots");
                Err(usage(message, "name the certificates of the authorities that count with --certificate-roots"))
            });
        };
        if self.certificate.is_empty() {
            let message = "option --certificate-roots has no effect without --certificate";
            return Err(usage(message, "name the certificate of the key that signed with --certificate"));
        }
        let between = self.certificate_intermediates.as_deref().map(keys::certificates).transpose()?;
        let roots = Roots::new(keys::certificates(roots)?, between.unwrap_or_default());
        for path in &self.certificate {
            let certificates = keys::certificates(path)?;
            if let Some((leaf, chain)) = certificates.split_first() {
                all.push(roots.vouch(leaf, chain, keys::now())?);
            }
        }
        Ok(all)
    }
}

/// Only files are verified. Reading a SIF from a registry compares it with the digest of its manifest, and looks at no checksum in it.
fn hosted_sif(word: &OsStr) -> Error {
    let hint = format!("fetch it first: sif-convert pull x.sif {}; then verify x.sif", shell_word(word));
    usage(format!("{} is a SIF that is hosted", Quoted(word.as_encoded_bytes())), hint)
}

/// Verifies, and says how it went.
pub(in crate::cli) fn run(arguments: &Verify, given: &Given, environment: &Environment, quit: Quit) -> u8 {
    session::page(&arguments.feedback, environment, quit, |voice, monitor| {
        page(arguments, given, environment, voice, monitor)
    })
}

/// What is printed when nothing is wrong.
fn page(
    arguments: &Verify,
    given: &Given,
    environment: &Environment,
    voice: Voice,
    monitor: &Monitor,
) -> Result<String> {
    let name = match arguments.file.as_encoded_bytes() {
        b"-" => "standard input".to_string(),
        bytes => Quoted(bytes).to_string(),
    };
    let (spec, options, selection) = match arguments.resolve(given, environment)? {
        Verified::Alone(Subject::Source(source)) => *source,
        Verified::Alone(Subject::Sif(path)) => {
            let (keys, secret) = (arguments.keys()?, arguments.decryption.secret()?);
            return sif((&name, &path), (&keys, secret.as_ref()), environment, voice, monitor);
        }
        Verified::Against(path, look) => {
            let (keys, secret) = (arguments.keys()?, arguments.decryption.secret()?);
            let signed = signed((&name, &path), &keys, monitor)?;
            return compared((&name, &path), &look, (&signed, secret), environment, voice, monitor);
        }
    };
    let source = sources::open(&spec, &options, monitor)?;
    if source.kind() == "sif" {
        return Err(hosted_sif(&arguments.file));
    }
    let images = source.images();
    let present = (0..images.len()).filter(|&position| images[position].absent.is_none());
    let chosen: Vec<Image> = if selection == Selection::default() && spec.image().is_none() {
        present.map(|position| source.select_at(position)).collect::<Result<_>>()?
    } else {
        vec![source.select(&selection)?]
    };
    let mut page = String::new();
    for image in &chosen {
        let layers = output::verify_layers(image, environment.parallelism, monitor)?.len() as u64;
        let layers = counted(layers, "layer", "layers");
        let _ = match source.kind() {
            // Their one layer is made of what is there, and so is its image.
            "rootfs" | "squashfs" | "directory" => {
                writeln!(page, "{name} can be read to its end; nothing in it says what its files should be")
            }
            _ => writeln!(page, "{name}: image {} is whole: {layers}", image.id()),
        };
    }
    Ok(page)
}

/// A SIF says of itself whether it is intact, and keys say whose it is.
fn sif(
    (name, path): (&str, &Path),
    (keys, secret): (&[PublicKey], Option<&Secret>),
    environment: &Environment,
    voice: Voice,
    monitor: &Monitor,
) -> Result<String> {
    // Whose it is comes first: what strangers made is not looked into.
    let signed = signed((name, path), keys, monitor)?;
    let whole = output::verify_sif(path, secret, environment.parallelism, monitor)?;
    signed.warn(&whole.notes, voice);
    let (names, blocks) = (counted(whole.names, "name", "names"), counted(whole.blocks, "block", "blocks"));
    let told = whole.image.filter(|image| !image.starts_with(output::HIDDEN_IMAGE));
    let image = told.map_or_else(String::new, |image| format!(", made from image {image}"));
    let what = match whole.names {
        0 => format!("{name}: header and objects are whole"),
        _ => format!("{name} is whole: {names}, {blocks}"),
    };
    Ok(format!("{what}{image}\n{}", signed.0))
}

/// A line for each signer of a SIF whose key was given.
struct Signed(String);

fn signed((name, path): (&str, &Path), keys: &[PublicKey], monitor: &Monitor) -> Result<Signed> {
    let signed = if keys.is_empty() { Vec::new() } else { output::verify_signatures(path, keys, monitor)? };
    let line = |output::Verified { object, group, key }: &output::Verified| {
        format!("{name}: object group {group} is signed by {key}, signature {object}\n")
    };
    Ok(Signed(signed.iter().map(line).collect()))
}

impl Signed {
    /// Tells what else there is to know about it.
    fn warn(&self, notes: &[Note], voice: Voice) {
        let is_news = |note: &&Note| self.0.is_empty() || note.code != "signatures-not-verified";
        notes.iter().filter(is_news).for_each(|note| voice.warning(note));
    }
}

/// A SIF and the image that it should be of. Differences that nothing explains are an error, after all of them were printed.
fn compared(
    (name, path): (&str, &Path),
    look: &Look,
    (signed, secret): (&Signed, Option<Secret>),
    environment: &Environment,
    voice: Voice,
    monitor: &Monitor,
) -> Result<String> {
    let source = look.source(monitor)?;
    let options = AgainstOptions { jobs: environment.parallelism, tmpdir: look.tmpdir().to_path_buf(), secret };
    let compared = against::compare(path, &source, look.selection(), &options, monitor)?;
    source.confirm()?;
    signed.warn(&compared.notes, voice);
    let given = look.spec();
    if compared.is_same_bytes {
        return Ok(format!("{name} is what {given} gives, byte for byte\n{}", signed.0));
    }
    let (unexplained, all) = (compared.unexplained() as u64, compared.differences.len() as u64);
    let differences = counted(all, "difference", "differences");
    let mut page: String = compared.differences.iter().map(|it| diff::line(it) + "\n").collect();
    if unexplained > 0 {
        printer::data(page.as_bytes())?;
        let are = if unexplained == 1 { "is" } else { "are" };
        let message = format!("{name} is not what {given} gives: {unexplained} of {differences} {are} unexplained");
        return Err(
            Error::new(ErrorKind::Mismatch, message).hint("build it again from that image, or find out who changed it")
        );
    }
    let _ = writeln!(page, "{name} holds what {given} gives: {differences}, all explained");
    page += &signed.0;
    Ok(page)
}
