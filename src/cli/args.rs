//! The command line as text: what clap parses, and what help says. Nothing is decided here; see `job`.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind as ClapKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::commands::build::Build;
use super::commands::cache::Cache;
use super::commands::verify::Verify;
use super::exit::TABLE;
use super::registry::RegistryOptions;
use super::{imagemagick, pack};
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::output::Format;

const LONG_ABOUT: &str = "\
Converts Docker and OCI images for Singularity and Apptainer, and into each other: in one pass, without root, \
without a daemon, and with the same bytes every time.

SOURCE is told by its content, never by its name. It is one of
  PATH                         an archive from \"docker save\", an OCI archive or an OCI layout
                               directory; compressed or not
  docker-archive:PATH[:TAG]    these three say what PATH must be, and which image of it is meant
  oci-archive:PATH[:REF]
  oci:DIR[:REF]
  -                            an archive from standard input, from a pipe of any kind
  docker-daemon:NAME[:TAG]     an image of the local Docker or Podman engine, by name or ID
  docker://HOST/NAME[:TAG]     an image on a registry; short names as Docker has them

A file that is named like one of the commands below is written ./inspect or docker-archive:inspect.";

const EXAMPLES: &str = "\
Examples:
  docker save ubuntu:24.04 -o ubuntu.tar
  sif-convert ubuntu.tar --to sif                      writes ubuntu.sif, to be run
  sif-convert ubuntu.tar --to sif-rootfs               writes ubuntu.sif-rootfs.tar
  sif-convert ubuntu.tar --to rootfs -o - | tar -t     lists the image's files
  sif-convert two.tar --image app:1.0 --to sif-rootfs --compression zstd
  sif-convert ubuntu.tar --to oci --flatten            writes ubuntu.oci, an image of one layer
  sif-convert docker-daemon:ubuntu:24.04 --to sif      asks the local Docker or Podman engine
  gpg -d app.tar.gpg | sif-convert - --to sif -o app.sif
  sif-convert build app.sif docker-archive:app.tar     as singularity build is called
  sif-convert docker://ghcr.io/org/app:1.0 --to sif    writes app_1.0.sif
  sif-convert weights --to additional-files            packs a folder, prints its SHA-256
  sif-convert inspect ubuntu.tar                       shows what an image holds
  sif-convert verify app.sif                           tells whether it is whole";

const VARIABLES: &str = "\
Environment:
  APPTAINER_TMPDIR, SINGULARITY_TMPDIR, TMPDIR     where --tmpdir is not given, in this order
  CONVERT_PROGRESS                                 where --progress is not given
  DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG,      where the engine of docker-daemon: is, as for
  DOCKER_TLS_VERIFY, DOCKER_CERT_PATH              the docker command
  CONTAINER_HOST, XDG_RUNTIME_DIR                  where Podman is, when there is no Docker
  APPTAINER_DOCKER_USERNAME, APPTAINER_DOCKER_PASSWORD (or SINGULARITY_…)
                                                   the login for a registry; else those of
                                                   docker login, podman login or apptainer
  DOCKER_CONFIG, REGISTRY_AUTH_FILE                where these are
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY                how registries are reached
  SSL_CERT_FILE, SSL_CERT_DIR                      whom to trust instead of the system's roots
  SOURCE_DATE_EPOCH                                the time, in seconds, of what is made rather than
                                                   read; default: the image's creation";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "sif-convert",
    bin_name = "sif-convert",
    version,
    about = "Converts Docker and OCI images for Singularity and Apptainer",
    long_about = LONG_ABOUT,
    after_help = format!("{EXAMPLES}\n\nMore with --help: sources, exit codes, environment."),
    after_long_help = format!("{EXAMPLES}\n\n{VARIABLES}\n\n{}", exit_codes()),
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    next_line_help = false
)]
struct CommandLine {
    #[command(subcommand)]
    word: Option<Word>,
    #[command(flatten)]
    convert: Convert,
}

/// A first word that asks for something else than a conversion.
#[derive(Debug, Subcommand)]
pub(super) enum Word {
    /// Write a SIF, with the options and the order of "singularity build"
    Build(Box<Build>),
    /// Show what a source holds: images, tags, platform, config, layers, warnings
    Inspect(Inspect),
    /// Tell whether a SIF, an archive or a layout is whole
    Verify(Verify),
    /// Look after a directory of downloads (--cache)
    Cache(Cache),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// `convert SOURCE --to FORMAT`.
#[derive(Debug, Args)]
pub(super) struct Convert {
    /// Where the image comes from: a file, a directory, "-", or TRANSPORT:…
    #[arg(required = true, value_hint = clap::ValueHint::AnyPath)]
    pub(super) source: Option<OsString>,
    /// What to write
    ///
    /// sif: a SIF file, which Singularity and Apptainer run.
    /// sif-rootfs: one flattened tar with all that Singularity expects inside.
    /// rootfs: one flattened tar, the image's files and nothing else.
    /// oci: an OCI layout directory; the image is added where there is one.
    /// oci-archive: the same as one tar.
    /// docker-archive: a tar that docker load takes.
    /// additional-files: a folder, SOURCE, as a reproducible .tar.gz for a MedPerf submission.
    #[arg(long, short = 't', value_name = "FORMAT", required = true, value_parser = formats(), verbatim_doc_comment)]
    pub(super) to: Option<String>,
    /// Where to write it; "-" is standard output [default: named after SOURCE, in this directory]
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) output: Option<OsString>,

    #[command(flatten)]
    pub(super) choice: Choice,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
    #[command(flatten)]
    pub(super) output_options: OutputOptions,
    #[command(flatten)]
    pub(super) checks: Checks,
    #[command(flatten)]
    pub(super) root: RootOptions,
    #[command(flatten)]
    pub(super) image: ImageOptions,
    #[command(flatten)]
    pub(super) feedback: Feedback,
}

/// Which image of a source.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which image")]
pub(super) struct Choice {
    /// Which image, where the source holds several
    #[arg(long, value_name = "TAG|ID|DIGEST|INDEX")]
    pub(super) image: Option<String>,
    /// Which platform, where the image has several [default: linux on this machine's architecture]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(super) platform: Option<String>,
    /// Where an unnamed temporary file goes when one is needed [default: see Environment, then /tmp]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) tmpdir: Option<PathBuf>,
}

/// How the output is written.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// none, gzip or zstd, with a level if you like; of oci and oci-archive, the layers that are not
    /// compressed yet [default: gzip for sif, none for layers, else by the output's name]
    #[arg(long, value_name = "KIND[:LEVEL]")]
    pub(super) compression: Option<String>,
    /// Bytes in a block of a sif, a power of two from 4096 to 1048576 [default: 131072]
    #[arg(long, value_name = "BYTES")]
    pub(super) block_size: Option<u32>,
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
}

/// What must hold, and what is recorded.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Checks and records")]
pub(super) struct Checks {
    /// Refuse an image whose manifest, index or config (image ID) has another digest
    #[arg(long, value_name = "DIGEST")]
    pub(super) expect_digest: Option<String>,
    /// Refuse an input, a file or standard input, with another SHA-256
    #[arg(long, value_name = "HEX")]
    pub(super) expect_sha256: Option<String>,
    /// Write a JSON report, on success and on failure; "-" is standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) report: Option<OsString>,
}

/// What goes into a root for Singularity.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Inside the root (sif and sif-rootfs)")]
pub(super) struct RootOptions {
    /// Which extended attributes are kept [default: none]
    #[arg(long, value_name = "WHICH")]
    pub(super) xattrs: Option<Attributes>,
    /// Give everything to root (0:0)
    #[arg(long)]
    pub(super) all_root: bool,
    /// Let the owner read and write all files and enter all directories
    #[arg(long)]
    pub(super) fix_perms: bool,
    /// Keep device nodes, which only root can unpack
    #[arg(long)]
    pub(super) keep_devices: bool,
    /// Let the runscript change to the image's WORKDIR first, as Docker does
    #[arg(long)]
    pub(super) workdir: bool,
    /// Create a directory where the image has none, to bind to; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) mkdir: Vec<OsString>,
    /// Create an empty file where the image has none, to bind to; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) mkfile: Vec<OsString>,
    /// Create what a MedPerf container_config.yaml binds to: mount_path and type of every volume
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) medperf_config: Option<PathBuf>,
    /// Add a label; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Vec<String>,
    /// What the programs inside run on, where the image does not say (sif)
    #[arg(long, value_name = "ARCH")]
    pub(super) arch: Option<String>,
    /// Record this name in the definition and labels [default: the image ID]
    #[arg(long, value_name = "NAME")]
    pub(super) reference: Option<String>,
}

/// What an image becomes that stays one.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "The image (oci, oci-archive and docker-archive)")]
pub(super) struct ImageOptions {
    /// Make one layer of all
    #[arg(long)]
    pub(super) flatten: bool,
    /// What the image is called in the output; may be repeated [default: as in the source]
    #[arg(long, value_name = "NAME[:TAG]")]
    pub(super) tag: Vec<String>,
}

/// What is said while it works.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Messages (all on standard error)")]
pub(super) struct Feedback {
    /// How progress is shown [default: auto]
    ///
    /// auto: a bar on a terminal, else plain. plain: one line at each phase and every few seconds.
    /// json: one object a line.
    #[arg(long, value_name = "HOW", verbatim_doc_comment)]
    pub(super) progress: Option<ProgressMode>,
    /// Say nothing but errors
    #[arg(long, short, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Say more
    #[arg(long, short)]
    pub(super) verbose: bool,
}

/// `convert inspect SOURCE`.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Where the image comes from: a file, a directory, "-", or TRANSPORT:…
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub(super) source: OsString,
    /// Print JSON instead of words
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) choice: Choice,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
    #[command(flatten)]
    pub(super) feedback: Feedback,
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

fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(Format::ALL.map(Format::name).into_iter().chain([pack::WORD]))
}

fn exit_codes() -> String {
    TABLE.iter().fold("Exit codes:".to_string(), |mut text, (codes, meaning)| {
        let _ = write!(text, "\n  {codes:<9} {meaning}");
        text
    })
}

/// What the command line asks for.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A conversion.
    Convert(Box<Convert>),
    /// Something else.
    Word(Word),
    /// Help or the version: text for stdout.
    Text(String),
}

/// Parses `arguments`, the program's name included.
pub(super) fn parse(arguments: &[OsString]) -> Result<Parsed> {
    match CommandLine::try_parse_from(arguments) {
        Ok(CommandLine { word: Some(word), .. }) => Ok(Parsed::Word(word)),
        Ok(CommandLine { word: None, convert }) => Ok(Parsed::Convert(Box::new(convert))),
        Err(error) => match error.kind() {
            ClapKind::DisplayHelp | ClapKind::DisplayVersion => Ok(Parsed::Text(error.render().to_string())),
            _ => Err(imagemagick::call(arguments).unwrap_or_else(|| misuse(&error))),
        },
    }
}

/// clap's complaint in our form: its first paragraph is the message, its tips are the hint.
fn misuse(error: &clap::Error) -> Error {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let message = paragraphs.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let message = message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    // "to pass '--x' as a value, use '-- --x'" is true and never what was meant.
    let tips = text.lines().filter_map(|line| line.trim().strip_prefix("tip: "));
    let tips: Vec<&str> = tips.filter(|tip| !tip.starts_with("to pass ")).collect();
    let usage = "write \"sif-convert SOURCE --to sif\"; \"sif-convert --help\" explains all options";
    let hint = if tips.is_empty() { usage.to_string() } else { tips.join("; ") };
    Error::new(ErrorKind::Usage, message).hint(hint)
}

/// Where `--report` points in arguments that could not be parsed as a whole.
pub(super) fn report_in(arguments: &[OsString]) -> Option<OsString> {
    use std::os::unix::ffi::OsStrExt;
    let mut words = arguments.iter().skip(1).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == "--report" {
            return words.next().cloned();
        }
        if let Some(value) = word.as_bytes().strip_prefix(b"--report=") {
            return Some(OsStr::from_bytes(value).to_os_string());
        }
    }
    None
}

/// The completion script for `shell`.
pub(super) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "sif-convert", &mut script);
    script
}

/// The manual page, in roff.
pub(super) fn man() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(CommandLine::command()).render(&mut page).or_kind(ErrorKind::Other)?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn words(line: &str) -> Vec<OsString> {
        std::iter::once("convert").chain(line.split(' ').filter(|word| !word.is_empty())).map(OsString::from).collect()
    }

    fn convert(line: &str) -> Convert {
        match parse(&words(line)).unwrap() {
            Parsed::Convert(convert) => *convert,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn first_words_are_commands_and_files_have_spellings() {
        assert!(matches!(parse(&words("inspect x.tar")).unwrap(), Parsed::Word(Word::Inspect(_))));
        assert!(matches!(parse(&words("man")).unwrap(), Parsed::Word(Word::Man)));
        assert_eq!(convert("./inspect --to rootfs").source.unwrap(), "./inspect");
        assert_eq!(convert("docker-archive:inspect --to rootfs").source.unwrap(), "docker-archive:inspect");
        assert_eq!(convert("--to rootfs inspect").source.unwrap(), "inspect");
        assert_eq!(convert("- --to rootfs -o -").source.unwrap(), "-");
    }

    #[test]
    fn wrong_use_is_said_in_our_words() {
        let error = |line: &str| parse(&words(line)).unwrap_err();
        assert_eq!(error("x.tar").to_string(), "the following required arguments were not provided: --to <FORMAT>");
        assert!(error("x --to tar").to_string().contains(
            "[possible values: sif, sif-rootfs, rootfs, oci, oci-archive, docker-archive, additional-files]"
        ));
        assert!(error("x --to rootfs --forse").remedy().unwrap().contains("'--force'"));
        assert_eq!(error("x --to rootfs --force --if-exists fail").kind(), ErrorKind::Usage);
        assert_eq!(error("").kind(), ErrorKind::Usage);
        assert_eq!(error("inspect x --to rootfs").kind(), ErrorKind::Usage);
    }

    #[test]
    fn report_is_found_in_what_cannot_be_parsed() {
        let found = |line: &str| report_in(&words(line));
        assert_eq!(found("--bad --report r.json x").unwrap(), "r.json");
        assert_eq!(found("x --report=r.json").unwrap(), "r.json");
        assert_eq!(found("x -- --report r.json"), None);
        assert_eq!(found("x --report"), None);
    }
}
