//! `convert build [options] OUTPUT SOURCE`: the argv of `singularity build` and `apptainer build`, so that a shim or one
//! changed word puts this program in their place.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::Args;

use super::convert::{self, Convert};
use crate::cli::encryption::{self, EncryptionOptions};
use crate::cli::environment::Environment;
use crate::cli::options::{
    Checks, Choice, ConfigOptions, Feedback, Given, ImageOptions, OutputOptions, ProgressMode, RootOptions,
    SignKeyOptions, SignatureOptions, WhenThere,
};
use crate::cli::printer::Voice;
use crate::cli::registry::{self, RegistryOptions};
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::cli::values::platform_of;
use crate::cli::{handover, mistakes};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Note;
use crate::output::Encryption;

/// Options as `singularity build` takes them. What has no meaning here is taken with a note; what would change the result
/// and is not done here is refused.
#[derive(Debug, Args)]
pub(in crate::cli) struct Build {
    /// The SIF to write
    #[arg(value_name = "OUTPUT", value_hint = clap::ValueHint::FilePath)]
    output: OsString,
    /// Where the image comes from
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    source: OsString,

    /// Replace an output that exists
    #[arg(long, short = 'F')]
    force: bool,
    /// What to do when the output exists, unless it is forced: fail, replace, reuse or update [default: reuse]
    #[arg(long, value_name = "WHAT")]
    if_exists: Option<WhenThere>,
    /// Permissions of the output, octal
    #[arg(long, value_name = "OCTAL")]
    mode: Option<String>,
    /// Let the owner read and write all files and enter all directories
    #[arg(long)]
    fix_perms: bool,
    /// The architecture of the image, as in --platform linux/ARCH
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    arch_variant: Option<String>,
    /// Where an unnamed temporary file goes when one is needed
    #[arg(long, value_name = "DIR")]
    tmpdir: Option<PathBuf>,
    /// Speak plain HTTP to the registry of a docker:// source
    #[arg(long)]
    no_https: bool,
    /// Logins for registries, in the form of Docker's config.json
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    authfile: Option<PathBuf>,
    /// The engine of docker-daemon: sources, as in DOCKER_HOST
    #[arg(long, value_name = "HOST")]
    docker_host: Option<OsString>,

    #[command(flatten)]
    refused: Refused,

    /// none, gzip[:LEVEL] or zstd[:LEVEL] [default: gzip]
    #[arg(long, value_name = "KIND[:LEVEL]")]
    compression: Option<String>,
    /// How many threads may work at once
    #[arg(long, short, value_name = "N")]
    jobs: Option<String>,
    /// Let the runscript change to the image's WORKDIR first, as Docker does
    #[arg(long)]
    workdir: bool,
    /// Create a directory where the image has none, to bind to; may be repeated
    #[arg(long, value_name = "PATH")]
    mkdir: Vec<OsString>,
    /// Create an empty file where the image has none, to bind to; may be repeated
    #[arg(long, value_name = "PATH")]
    mkfile: Vec<OsString>,
    /// Create what a MedPerf container_config.yaml binds to: mount_path and type of every volume
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    medperf_config: Option<PathBuf>,
    /// The image's name as recorded inside
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Encrypt the root file system; the key comes from the options below, or from APPTAINER_ENCRYPTION_PEM_PATH,
    /// APPTAINER_ENCRYPTION_PEM_DATA or APPTAINER_ENCRYPTION_PASSPHRASE (or SINGULARITY_…)
    #[arg(long, short = 'e')]
    encrypt: bool,
    /// Ask for the passphrase to encrypt with: on the terminal, else one line of standard input
    #[arg(long, conflicts_with_all = ["pem_path", "encrypt_pem", "encrypt_passphrase_file"])]
    passphrase: bool,
    /// Encrypt for the owner of this public RSA key in PEM, as --encrypt-pem
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["encrypt_pem", "encrypt_passphrase_file"])]
    pem_path: Option<PathBuf>,
    // The heading of a flattened group holds until the next one: what has none comes first.
    #[command(flatten)]
    meaningless: Meaningless,
    #[command(flatten)]
    encryption: EncryptionOptions,
    #[command(flatten)]
    checks: Checks,
    #[command(flatten)]
    signing: SignKeyOptions,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    feedback: Feedback,
}

/// What `singularity build` needs and this program does not.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted for compatibility with singularity build, without effect")]
struct Meaningless {
    /// No privileges are needed
    #[arg(long, short = 'f')]
    fakeroot: bool,
    /// There is no cache without --cache
    #[arg(long)]
    disable_cache: bool,
    /// Nothing is left to clean up
    #[arg(long)]
    no_cleanup: bool,
    /// Images have no %test
    #[arg(long, short = 'T')]
    notest: bool,
    /// The same image gives the same bytes in any case
    #[arg(long)]
    reproducible: bool,
    /// Nothing is asked
    #[arg(long)]
    no_setgroups: bool,
    /// Nothing is run while building
    #[arg(long)]
    nv: bool,
    /// Nothing is run while building
    #[arg(long)]
    rocm: bool,
    /// Nothing is run while building
    #[arg(long)]
    writable_tmpfs: bool,
    /// Nothing is run while building
    #[arg(long)]
    nvccli: bool,
    /// Nothing is run while building
    #[arg(long, short = 'B', value_name = "SPEC")]
    bind: Vec<String>,
    /// Nothing is run while building
    #[arg(long, value_name = "SPEC")]
    mount: Vec<String>,
    /// No privileges are needed
    #[arg(long)]
    userns: bool,
    /// Only for definition files, which the real program builds
    #[arg(long)]
    json: bool,
    /// Only for definition files, which the real program builds
    #[arg(long)]
    warn_unused_build_args: bool,
    /// Only for library:// URIs, which the real program builds
    #[arg(long, value_name = "URL")]
    library: Option<String>,
    /// No mksquashfs is run
    #[arg(long, value_name = "SIZE")]
    mksquashfs_mem: Option<String>,
    /// No mksquashfs is run
    #[arg(long, value_name = "N")]
    mksquashfs_procs: Option<String>,
}

/// What would change the result.
#[derive(Debug, Args)]
struct Refused {
    #[arg(long, short = 's', hide = true)]
    sandbox: bool,
    #[arg(long, short = 'u', hide = true)]
    update: bool,
    #[arg(long, short = 'r', hide = true)]
    remote: bool,
    #[arg(long, hide = true)]
    oci: bool,
    #[arg(long, hide = true)]
    data: bool,
    #[arg(long, hide = true)]
    section: Vec<String>,
    #[arg(long, hide = true)]
    build_arg: Vec<String>,
    #[arg(long, hide = true)]
    build_arg_file: Option<String>,
    #[arg(long, hide = true)]
    mksquashfs_args: Option<String>,
}

const DEFINITION: &str = "a definition file is built by singularity or apptainer itself";

/// The IDs of [`Refused`], and what to do instead.
const REFUSED: [(&str, &str); 9] = [
    ("sandbox", "build a SIF, then: apptainer build --sandbox DIR OUTPUT"),
    ("update", DEFINITION),
    ("remote", "leave it out: nothing is built elsewhere"),
    ("oci", "an OCI-SIF is made by SingularityCE itself"),
    ("data", "a data container is made by apptainer itself"),
    ("section", DEFINITION),
    ("build_arg", DEFINITION),
    ("build_arg_file", DEFINITION),
    ("mksquashfs_args", "use --compression KIND[:LEVEL]"),
];

/// The IDs of [`Meaningless`].
const MEANINGLESS: [&str; 18] = [
    "fakeroot",
    "disable_cache",
    "no_cleanup",
    "notest",
    "reproducible",
    "no_setgroups",
    "nv",
    "rocm",
    "writable_tmpfs",
    "nvccli",
    "bind",
    "mount",
    "userns",
    "json",
    "warn_unused_build_args",
    "library",
    "mksquashfs_mem",
    "mksquashfs_procs",
];

/// Options that are taken care of here.
const OWN: [&str; 3] = ["encrypt", "passphrase", "pem_path"];

fn option(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}

impl Build {
    /// Builds, and says how it went.
    ///
    /// Who calls `singularity build` reads lines, through a terminal or not: bars are for those who ask for them.
    pub(in crate::cli) fn run(self, given: Given, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
        if let Some(error) = mistakes::swapped(&self.output, &self.source, "sif-convert build") {
            return session::misuse(error, words, Voice::default());
        }
        if handover::is_foreign(&self.source) {
            return session::misuse(handover::run_real_program(words, environment), words, Voice::default());
        }
        let environment = &match self.environment(environment) {
            Ok(environment) => environment,
            Err(error) => return session::misuse(error, words, Voice::default()),
        };
        match self.into_convert(&given, environment) {
            Ok((mut arguments, note)) => {
                if environment.variable("CONVERT_PROGRESS").is_none_or(OsStr::is_empty) {
                    arguments.feedback.progress.get_or_insert(ProgressMode::Plain);
                }
                convert::run(&arguments, &given.without(&registry::IDS).without(&OWN), note, words, environment, quit)
            }
            Err(error) => session::misuse(error, words, Voice::default()),
        }
    }

    /// The environment with options that are variables for everyone else.
    pub(in crate::cli) fn environment(&self, environment: &Environment) -> Result<Environment> {
        registry::with_apptainer_options(environment, self.authfile.as_deref(), self.docker_host.as_deref())
    }

    /// The conversion that is meant, and what is to be said about options without effect.
    pub(in crate::cli) fn into_convert(
        mut self,
        given: &Given,
        environment: &Environment,
    ) -> Result<(Convert, Option<Note>)> {
        if let Some((id, hint)) = REFUSED.iter().find(|(id, _)| given.has(id)) {
            let message = format!("option {} is not supported", option(id));
            return Err(Error::new(ErrorKind::Usage, message).hint(hint));
        }
        let without_effect: Vec<String> = MEANINGLESS.iter().filter(|id| given.has(id)).map(|id| option(id)).collect();
        let note = (!without_effect.is_empty()).then(|| {
            let message = format!("without effect here: {}", without_effect.join(", "));
            Note::new("options-without-effect", message, without_effect.len() as u64)
        });
        let without_key = self.settle_encryption(environment)?;
        let platform = platform_of(self.arch.as_deref(), self.arch_variant.as_deref());
        let convert = Convert {
            source: Some(self.source),
            to: Some("sif".to_string()),
            output: Some(self.output),
            input_command: None,
            choice: Choice { image: None, platform, tmpdir: self.tmpdir },
            registry: RegistryOptions { no_https: self.no_https, ..self.registry },
            output_options: OutputOptions {
                compression: self.compression,
                force: self.force,
                // A shim that adds --if-exists must not stand in the way of --force. The same call again, after one that was
                // killed or not, is to end well.
                if_exists: self.if_exists.or(Some(WhenThere::Reuse)).filter(|_| !self.force),
                mode: self.mode,
                jobs: self.jobs,
                ..OutputOptions::default()
            },
            checks: self.checks,
            root: RootOptions {
                fix_perms: self.fix_perms,
                workdir: self.workdir.then(String::new),
                mkdir: self.mkdir,
                mkfile: self.mkfile,
                medperf_config: self.medperf_config,
                reference: self.reference,
                arch: self.arch,
                ..RootOptions::default()
            },
            encryption: self.encryption,
            image: ImageOptions::default(),
            config: ConfigOptions::default(),
            signatures: SignatureOptions { key: self.signing, ..SignatureOptions::default() },
            feedback: self.feedback,
        };
        Ok((convert, note.or(without_key)))
    }

    /// Finds the key, as `apptainer build` does.
    fn settle_encryption(&mut self, environment: &Environment) -> Result<Option<Note>> {
        let options = &mut self.encryption;
        if let Some(path) = self.pem_path.take() {
            options.encrypt_pem = Some(path);
        }
        if self.passphrase {
            options.given = Some(Encryption::Passphrase((environment.ask)(environment.stdin_is_terminal)?));
        }
        let has_key =
            options.encrypt_pem.is_some() || options.encrypt_passphrase_file.is_some() || options.given.is_some();
        if has_key {
            return Ok(None);
        }
        if self.encrypt {
            options.given = encryption::of_environment(environment)?;
            return match options.given {
                Some(_) => Ok(None),
                None => Err(Error::new(ErrorKind::Usage, "option --encrypt is not supported without a key")
                    .hint("add --passphrase, --pem-path FILE or --encrypt-passphrase-file FILE")),
            };
        }
        let is_set = encryption::VARIABLES.iter().any(|name| environment.variable(name).is_some());
        let message = "the environment has a key, but the output is not encrypted: there is no --encrypt";
        Ok(is_set.then(|| Note::new("not-encrypted", message, 1)))
    }
}
