//! Groups of options that commands share, and the one check for options that have no effect.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, ValueEnum};

use super::environment::Environment;
use super::printer::Voice;
use super::values::{parsed, usage};
use crate::error::Result;
use crate::io::file_system_kind;
use crate::model::Quoted;
use crate::source::{EngineSettings, OpenOptions, Selection, Spec};
use std::os::unix::ffi::OsStrExt;

/// The magic number of tmpfs (statfs(2)).
const TMPFS: u64 = 0x0102_1994;

/// The options that were given to a command, by their IDs: not those that have their usual value.
#[derive(Debug, Clone, Default)]
pub(super) struct Given(BTreeSet<String>);

impl Given {
    /// What clap found in the command line of `command`.
    pub(super) fn of(command: &Command, matches: &ArgMatches) -> Self {
        let ids =
            command.get_arguments().filter(|argument| !argument.is_positional()).map(|each| each.get_id().as_str());
        let is_given = |id: &&str| {
            // An ID that is not of this command is one of clap's own.
            let known = matches.try_contains_id(id).is_ok();
            known && matches.value_source(id) == Some(ValueSource::CommandLine)
        };
        Given(ids.filter(is_given).map(str::to_string).collect())
    }

    /// Refuses each option that `takes` says has no effect on `what`.
    pub(super) fn expect(&self, what: &str, takes: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        self.expect_or(what, takes, |_| String::new())
    }

    /// The same; `instead` ends the hint for an option that is refused.
    pub(super) fn expect_or(
        &self,
        what: &str,
        mut takes: impl FnMut(&str) -> Result<bool>,
        instead: impl Fn(&str) -> String,
    ) -> Result<()> {
        for id in &self.0 {
            if !takes(id)? {
                let option = format!("--{}", id.replace('_', "-"));
                let message = format!("option {option} has no effect on {what}");
                return Err(usage(message, format!("leave {option} out{}", instead(id))));
            }
        }
        Ok(())
    }

    /// Whether the option `id` was given.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// Without `ids`, which are taken whether they have an effect or not.
    pub(super) fn without(mut self, ids: &[&str]) -> Self {
        self.0.retain(|id| !ids.contains(&id.as_str()));
        self
    }
}

/// Which image of a source.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which image")]
pub(super) struct Choice {
    /// Which image, where the source holds several
    #[arg(long, value_name = "NAME|ID|DIGEST|NUMBER")]
    pub(super) image: Option<String>,
    /// Which platform, where the image has several [default: linux on this CPU]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(super) platform: Option<String>,
    /// Where an unnamed temporary file goes when one is needed [default: see Environment, then /tmp]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) tmpdir: Option<PathBuf>,
}

impl Choice {
    /// The IDs of all options here.
    pub(super) const IDS: [&str; 3] = ["image", "platform", "tmpdir"];
}

/// How the output is written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// none, gzip[:LEVEL] or zstd[:LEVEL]; for oci and oci-archive, applies to layers not yet compressed
    /// [default: gzip for sif, none for layers, else by the output's name]
    #[arg(long, value_name = "KIND[:LEVEL]")]
    pub(super) compression: Option<String>,
    /// Bytes in a block of a sif or squashfs, a power of two from 4096 to 1048576 [default: 131072]
    #[arg(long, value_name = "BYTES")]
    pub(super) block_size: Option<u32>,
    /// Add what a runtime expects inside of a squashfs: plain, enroot or charliecloud [default: plain]
    #[arg(id = "for", long = "for", value_name = "RUNTIME")]
    pub(super) runtime: Option<String>,
    /// Carry the SBOM and the provenance that BuildKit attached to the image (sif)
    #[arg(long)]
    pub(super) with_sbom: bool,
    /// Replace an output that exists, at once and whole
    #[arg(long, short, conflicts_with = "if_exists")]
    pub(super) force: bool,
    /// What to do when the output exists [default: fail]
    ///
    /// reuse: use it if it is whole and is what this call would make; else fail.
    /// update: use it on the same terms; else replace it.
    #[arg(long, value_name = "WHAT", verbatim_doc_comment)]
    pub(super) if_exists: Option<WhenThere>,
    /// Permissions of the output, octal [default: 666, for a sif 777, less the umask]
    #[arg(long, value_name = "OCTAL")]
    pub(super) mode: Option<String>,
    /// How many threads may work at once [default: as many as this machine runs]
    #[arg(long, short, value_name = "N")]
    pub(super) jobs: Option<String>,
    /// Refuse an image whose list of files takes more memory than this [default: 2G]
    ///
    /// A number of bytes, or with K, M or G. A file takes about 700 bytes and
    /// three times its name: 2G is enough for 2 million files.
    #[arg(long, value_name = "SIZE", verbatim_doc_comment)]
    pub(super) max_memory: Option<String>,
}

/// What must hold, and what is recorded.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Checks and records")]
pub(super) struct Checks {
    /// Fail unless the manifest, index or config (image ID) has this digest
    #[arg(long, value_name = "DIGEST")]
    pub(super) expect_digest: Option<String>,
    /// Fail unless the input file or stream has this SHA-256
    #[arg(long, value_name = "HEX")]
    pub(super) expect_sha256: Option<String>,
    #[command(flatten)]
    pub(super) trust: TrustOptions,
    /// Write a JSON report, on success and on failure; "-" is standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) report: Option<OsString>,
    /// Write what the output was made from as an in-toto statement (SLSA provenance), on success; "-" is standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) provenance: Option<OsString>,
}

/// Whose images are converted.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Checks and records")]
pub(super) struct TrustOptions {
    /// Refuse an image without a signature by this public key, in PEM; may be repeated: by any of them
    ///
    /// Signatures of cosign in either form, on the registry or in the OCI layout or archive
    /// that holds the image, over the digest that was asked for. Nothing of the image is
    /// read before.
    #[arg(long, value_name = "PUB.pem", verbatim_doc_comment, value_hint = clap::ValueHint::FilePath)]
    pub(super) verify_key: Vec<PathBuf>,
    /// Refuse an image without a signature whose certificate was issued under these roots
    ///
    /// All certificates in this file, in PEM, are believed. A certificate must be valid now,
    /// or with --rekor-key at the time that Rekor noted.
    #[arg(long, value_name = "ROOTS.pem", verbatim_doc_comment, value_hint = clap::ValueHint::FilePath)]
    pub(super) verify_root: Option<PathBuf>,
    /// The e-mail address or URI that the certificate must have been issued to
    #[arg(long, value_name = "ID")]
    pub(super) certificate_identity: Option<String>,
    /// The URL of the OIDC issuer that must have vouched for the identity
    #[arg(long, value_name = "URL")]
    pub(super) certificate_oidc_issuer: Option<String>,
    /// Require that Rekor, whose public key this is, recorded the signature; may be repeated: any of them
    #[arg(long, value_name = "PUB.pem", value_hint = clap::ValueHint::FilePath)]
    pub(super) rekor_key: Vec<PathBuf>,
    /// Obey a policy.json of containers/image, for example /etc/containers/policy.json
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) policy: Option<PathBuf>,
}

/// What goes into a root for Singularity.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Inside the root (sif, sif-rootfs and dir)")]
pub(super) struct RootOptions {
    /// Which extended attributes are kept [default: none]
    #[arg(long, value_name = "WHICH")]
    pub(super) xattrs: Option<Attributes>,
    /// Give everything to root (0:0); from a directory, for any format
    #[arg(long)]
    pub(super) all_root: bool,
    /// Let the owner read and write all files and enter all directories
    #[arg(long)]
    pub(super) fix_perms: bool,
    /// Keep device nodes, which only root can unpack
    #[arg(long)]
    pub(super) keep_devices: bool,
    /// Change to WORKDIR in the runscript, as Docker does; with =DIR, set WORKDIR (of an image, too)
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(super) workdir: Option<String>,
    /// Create a directory where the image has none, to bind to; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) mkdir: Vec<OsString>,
    /// Create an empty file where the image has none, to bind to; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) mkfile: Vec<OsString>,
    /// Create what a MedPerf container_config.yaml binds to: mount_path and type of every volume
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) medperf_config: Option<PathBuf>,
    /// Add a label (to an image, too); may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Vec<String>,
    /// What the programs inside run on, whatever the image says of it (sif)
    #[arg(long, value_name = "ARCH")]
    pub(super) arch: Option<String>,
    /// Record this name in the definition and labels [default: the image ID]
    #[arg(long, value_name = "NAME")]
    pub(super) reference: Option<String>,
}

/// What an image becomes that stays one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The image (oci, oci-archive and docker-archive)")]
pub(super) struct ImageOptions {
    /// Make one layer of all
    #[arg(long)]
    pub(super) flatten: bool,
    /// What the image is called in the output; may be repeated [default: as in the source]
    #[arg(long, value_name = "NAME[:TAG]")]
    pub(super) tag: Vec<String>,
}

/// How the image runs, and what of a SIF becomes one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "How it runs (all formats but rootfs, and squashfs without --for)")]
pub(super) struct ConfigOptions {
    /// Set ENTRYPOINT, as a JSON list or as a line for /bin/sh -c; "" for none. Resets CMD
    #[arg(long, value_name = "WORDS")]
    pub(super) entrypoint: Option<String>,
    /// Set CMD, as a JSON list or as a line for /bin/sh -c; "" for none
    #[arg(long, value_name = "WORDS")]
    pub(super) cmd: Option<String>,
    /// Set an environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// Set USER
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<String>,
    /// Keep what Singularity added to the root of a SIF, squashfs or directory
    #[arg(long)]
    pub(super) keep_singularity: bool,
}

/// Who signs the SIF.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signatures (sif)")]
pub(super) struct SignKeyOptions {
    /// Sign with this private key: PEM of Ed25519, ECDSA (P-256, P-384) or RSA, encrypted or not; cosign's too
    #[arg(long, value_name = "KEY.pem", value_hint = clap::ValueHint::FilePath)]
    pub(super) sign_key: Option<PathBuf>,
    /// Where the passphrase of that key is: the first line of a file; /dev/fd/N is descriptor N [default: ask]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) sign_passphrase_file: Option<PathBuf>,
}

/// Who vouches for the output.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signatures (sif)")]
pub(super) struct SignatureOptions {
    #[command(flatten)]
    pub(super) key: SignKeyOptions,
    /// Write the signature of the SIF alone into this file, for others who convert the same image
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) sign_detached: Option<PathBuf>,
    /// Add a signature that was made elsewhere, if it is of the very SIF that is written
    ///
    /// The word "referrer" stands for the one that is attached to the image on its registry
    /// (sif-convert attach --signature); a file of that name is written ./referrer.
    #[arg(long, value_name = "FILE|referrer", verbatim_doc_comment, value_hint = clap::ValueHint::FilePath)]
    pub(super) signature: Option<PathBuf>,
}

/// What is said while it works.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Messages (all on standard error)")]
pub(super) struct Feedback {
    /// How progress is shown [default: auto]
    ///
    /// auto: a bar on a terminal, else plain. plain: one line at each phase and every few seconds.
    /// json: one object a line.
    #[arg(long, value_name = "HOW", verbatim_doc_comment)]
    pub(super) progress: Option<ProgressMode>,
    /// Print errors only
    #[arg(long, short, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Also print how long each phase and each request took
    #[arg(long, short)]
    pub(super) verbose: bool,
    /// Failures are told as Apptainer tells them.
    #[arg(skip)]
    pub(super) is_fatal: bool,
}

/// `--progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProgressMode {
    Auto,
    Bar,
    Plain,
    Json,
    None,
}

/// `--if-exists`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WhenThere {
    Fail,
    Replace,
    Reuse,
    Update,
}

/// `--xattrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Attributes {
    None,
    Capabilities,
    All,
}

/// Parses the SOURCE word.
pub(super) fn source(word: &OsStr, environment: &Environment) -> Result<Spec> {
    let spec = Spec::parse(word)?;
    if spec == Spec::Stdin && environment.stdin_is_terminal {
        return Err(usage("standard input is a terminal", "pipe an archive into it, or name a file as SOURCE"));
    }
    Ok(spec)
}

/// How a source is opened, but for registries. `want_layers` says whether layers will be read, or documents only.
pub(super) fn open_options(choice: &Choice, want_layers: bool, environment: &Environment) -> Result<OpenOptions> {
    Ok(OpenOptions {
        tmpdir: tmpdir(choice, environment),
        want_layers,
        platform: selection(choice)?.platform,
        engine: engine(environment)?,
        ..OpenOptions::default()
    })
}

/// How the local engine is found.
fn engine(environment: &Environment) -> Result<EngineSettings> {
    let text = |name: &str| match environment.variable(name).map(OsStr::to_str) {
        None => Ok(None),
        Some(Some(text)) => Ok(Some(text.to_string())),
        Some(None) => Err(usage(format!("environment {name} is not UTF-8"), format!("set {name} again, or unset it"))),
    };
    let path = |name: &str| environment.variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    Ok(EngineSettings {
        docker_host: text("DOCKER_HOST")?,
        docker_context: text("DOCKER_CONTEXT")?,
        docker_tls_verify: environment.variable("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty()),
        docker_cert_path: path("DOCKER_CERT_PATH"),
        docker_config: path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker"))),
        container_host: text("CONTAINER_HOST")?,
        runtime_dir: path("XDG_RUNTIME_DIR"),
    })
}

/// Which image is meant by options; what the SOURCE word itself says is the source's to know.
pub(super) fn selection(choice: &Choice) -> Result<Selection> {
    let platform = parsed("--platform", choice.platform.as_deref())?;
    Ok(Selection { image: choice.image.clone(), platform })
}

/// Where temporaries go: the option, what Apptainer, SingularityCE and everyone else look at, the settings, then a disk.
pub(super) fn tmpdir(choice: &Choice, environment: &Environment) -> PathBuf {
    choice.tmpdir.clone().unwrap_or_else(|| settled_tmpdir(environment).0)
}

/// Where temporaries go without an option, and what says so.
pub(super) fn settled_tmpdir(environment: &Environment) -> (PathBuf, String) {
    let set = |name: &'static str| Some((name, environment.variable(name).filter(|value| !value.is_empty())?));
    if let Some((name, value)) = ["APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "TMPDIR"].into_iter().find_map(set) {
        return (value.into(), name.to_string());
    }
    match &environment.settings.tmpdir {
        Some(setting) => (setting.value.clone(), setting.file.display().to_string()),
        None => (disk(Path::new("/tmp"), Path::new("/var/tmp")).to_path_buf(), "default".to_string()),
    }
}

/// `usual`, unless what is written there takes memory and `on_disk` is there: a tmpfs is not a place for an image.
fn disk<'a>(usual: &'a Path, on_disk: &'a Path) -> &'a Path {
    let kind = std::fs::File::open(usual).ok().and_then(|directory| file_system_kind(&directory));
    if kind == Some(TMPFS) && on_disk.is_dir() { on_disk } else { usual }
}

/// How much is said, and how progress is shown: `Auto` is resolved.
pub(super) fn voice(feedback: &Feedback, environment: &Environment) -> Result<(Voice, ProgressMode)> {
    let wanted = match (feedback.progress, environment.variable("CONVERT_PROGRESS").filter(|value| !value.is_empty())) {
        (Some(mode), _) => mode,
        (None, Some(value)) => {
            value.to_str().and_then(|text| ProgressMode::from_str(text, false).ok()).ok_or_else(|| {
                usage(
                    format!("environment CONVERT_PROGRESS: {} is not a way to show progress", Quoted(value.as_bytes())),
                    "set it to auto, bar, plain, json or none",
                )
            })?
        }
        (None, None) => ProgressMode::Auto,
    };
    let bar_works = environment.has_cursor();
    let mode = match wanted {
        _ if feedback.quiet => ProgressMode::None,
        ProgressMode::Auto | ProgressMode::Bar if bar_works => ProgressMode::Bar,
        ProgressMode::Auto | ProgressMode::Bar => ProgressMode::Plain,
        mode => mode,
    };
    let json = wanted == ProgressMode::Json;
    Ok((Voice { quiet: feedback.quiet, verbose: feedback.verbose, json, fatal: feedback.is_fatal }, mode))
}
