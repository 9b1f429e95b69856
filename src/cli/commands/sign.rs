//! `convert sign FILE`: a signature for a SIF, inside of it or beside it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;

use crate::cli::environment::Environment;
use crate::cli::keys;
use crate::cli::options::Feedback;
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::cli::signatures;
use crate::cli::values::{source_date_epoch, usage};
use crate::error::Result;
use crate::io::Monitor;
use crate::model::Quoted;
use crate::output::{self, Signing};

/// `convert sign FILE`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Sign {
    /// A SIF of any maker
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) file: PathBuf,
    /// Sign with this private key: PEM of Ed25519, ECDSA (P-256, P-384) or RSA, encrypted or not; cosign's too
    #[arg(long, value_name = "KEY.pem", required_unless_present = "signature", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) key: Option<PathBuf>,
    /// Where the passphrase of the key is: the first line of a file; /dev/fd/N is descriptor N [default: ask]
    #[arg(long, value_name = "FILE", requires = "key", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) passphrase_file: Option<PathBuf>,
    /// Add a signature that was made elsewhere, if it is of this very SIF
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "detached"], value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) signature: Option<PathBuf>,
    /// Write the signature alone into this file, and leave the SIF as it is
    #[arg(long, value_name = "FILE", conflicts_with = "output", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) detached: Option<PathBuf>,
    /// Write the signed SIF here [default: in place of FILE, at once and whole]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Replace an output that exists
    #[arg(long, short)]
    pub(in crate::cli) force: bool,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// What is signed, with every choice made.
#[derive(Debug)]
pub(in crate::cli) struct Signed {
    signing: Signing,
    output: PathBuf,
    replace: bool,
    time_seconds: Option<i64>,
}

impl Sign {
    /// Reads keys and resolves text.
    pub(in crate::cli) fn resolve(&self, environment: &Environment) -> Result<Signed> {
        let other = self.detached.as_ref().or(self.output.as_ref());
        if self.force && other.is_none() {
            let message = "option --force has no effect without --output or --detached";
            return Err(usage(message, "leave it out: FILE itself is replaced"));
        }
        if other.is_some_and(|path| path.as_os_str() == "-") {
            return Err(usage("standard output cannot take it: it appears whole or not at all", "name a file"));
        }
        let key = |path: &PathBuf| keys::private_key(path, self.passphrase_file.as_deref());
        let signing = Signing {
            from_referrer: false,
            key: self.key.as_ref().map(key).transpose()?,
            detached: self.detached.is_some(),
            carried: self.signature.as_deref().map(signatures::carried).transpose()?.map(Box::new),
        };
        // A link stays one.
        let itself = || std::fs::canonicalize(&self.file).unwrap_or_else(|_| self.file.clone());
        Ok(Signed {
            signing,
            output: other.cloned().unwrap_or_else(itself),
            replace: self.force || other.is_none(),
            time_seconds: source_date_epoch(environment)?,
        })
    }
}

/// Signs, and says how it went.
pub(in crate::cli) fn run(arguments: &Sign, environment: &Environment, quit: Quit) -> u8 {
    // Asked before signals are heard: the terminal is set back whatever is typed.
    let signed = match arguments.resolve(environment) {
        Ok(signed) => signed,
        Err(error) => return session::printed(|| Err(error)),
    };
    session::page(&arguments.feedback, environment, quit, |_, monitor| page(arguments, &signed, monitor))
}

fn page(arguments: &Sign, signed: &Signed, monitor: &Monitor) -> Result<String> {
    let Signed { signing, output, replace, time_seconds } = signed;
    output::sign_sif(&arguments.file, (output, *replace), signing, *time_seconds, monitor)?;
    let who = match &signing.key {
        Some(key) => format!("signed by {}", key.public()),
        None => "now has the signature".to_string(),
    };
    let name = Quoted(arguments.file.as_os_str().as_bytes());
    Ok(match arguments.detached.as_ref().or(arguments.output.as_ref()) {
        None => format!("{name} {who}\n"),
        Some(output) => format!("{name} {who}: {}\n", Quoted(output.as_os_str().as_bytes())),
    })
}
