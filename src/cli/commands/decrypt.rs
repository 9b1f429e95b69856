//! `convert decrypt FILE -o OUTPUT`: the SIF in the clear that an encrypted one is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;

use super::convert::{given_destination, refuse_one_place};
use crate::cli::encryption;
use crate::cli::environment::Environment;
use crate::cli::options::Feedback;
use crate::cli::printer::Bytes;
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::cli::values::{mode, usage};
use crate::error::Result;
use crate::model::Quoted;
use crate::output::{Decrypt as Decryption, Destination};

/// What is decrypted, and with what.
#[derive(Debug, Args)]
pub(in crate::cli) struct Decrypt {
    /// An encrypted SIF, of this program's or of apptainer build --encrypt
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Where to write the SIF in the clear
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: OsString,
    /// The file with its passphrase [default: the key in APPTAINER_ENCRYPTION_…, as for apptainer run]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    passphrase_file: Option<PathBuf>,
    /// The private RSA key in PEM that it was encrypted for
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, conflicts_with = "passphrase_file")]
    pem: Option<PathBuf>,
    /// Replace an output that exists, at once and whole
    #[arg(long, short)]
    force: bool,
    /// Permissions of the output, octal [default: 777, less the umask]
    #[arg(long, value_name = "OCTAL")]
    mode: Option<String>,
    #[command(flatten)]
    feedback: Feedback,
}

impl Decrypt {
    /// Reads what is named.
    fn resolve(&self, environment: &Environment) -> Result<Decryption> {
        let named = encryption::secret(self.passphrase_file.as_deref(), self.pem.as_deref())?;
        let secret = match named {
            Some(secret) => Some(secret),
            None => encryption::secret_of_environment(environment)?,
        };
        let secret = secret.ok_or_else(|| {
            usage("nothing says what the SIF is decrypted with", "add --passphrase-file FILE or --pem KEY.pem")
        })?;
        let destination = given_destination(&self.output)?;
        refuse_one_place(Some(self.file.as_os_str()), &destination)
            .map_err(|_| usage("the output is the source", "name another output with -o"))?;
        let Destination::Path(path) = destination else {
            return Err(usage(
                "a SIF cannot be written to a stream",
                "name a file with -o: its header is written last",
            ));
        };
        let mut decryption = Decryption::new(&self.file, secret, path);
        decryption.replace = self.force;
        decryption.mode = mode(self.mode.as_deref())?;
        Ok(decryption)
    }
}

/// Decrypts, and says how it went.
pub(in crate::cli) fn run(arguments: &Decrypt, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
    session::Session::record((&arguments.feedback, None), words, environment, quit, |session| {
        let decryption = arguments.resolve(environment)?;
        let mut size = 0;
        session.supervise(|monitor| {
            let done = decryption.run(monitor)?;
            size = done.size;
            session.recorder.record(|report| report.notes.extend(done.notes.iter().cloned()));
            Ok(())
        })?;
        let place = Quoted(decryption.path.as_os_str().as_bytes());
        session.voice.summary(&format!("wrote {place}: {}", Bytes(size)));
        Ok(())
    })
}
