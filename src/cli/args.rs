//! The command line as text: what clap parses, and what help says. Nothing is decided here.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind as ClapKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::commands::attach::AttachSifs;
use super::commands::batch::{Batch, REFUSED};
use super::commands::build::Build;
use super::commands::cache::Cache;
use super::commands::cat::Cat;
use super::commands::convert::Convert;
use super::commands::decrypt::Decrypt;
use super::commands::diff::Diff;
use super::commands::inspect::Inspect;
use super::commands::ls::Ls;
use super::commands::pull::Pull;
use super::commands::push::Push;
use super::commands::shim::Shim;
use super::commands::sign::Sign;
use super::commands::verify::Verify;
use super::exit::TABLE;
use super::options::Given;
use super::values::usage;
use super::{completions, imagemagick, manual, mistakes};
use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};

const LONG_ABOUT: &str = "\
Converts Docker and OCI images for Singularity and Apptainer, and into each other: in one pass, without root, \
without a daemon, and with the same bytes every time.

The kind of SOURCE is detected from its content, not from its name. It is one of
  PATH                         an archive from \"docker save\", an OCI archive or an OCI layout
                               directory; compressed or not; a SIF; a squashfs; the tar or
                               the directory of a root file system
  docker-archive:PATH[:TAG]    these three say what PATH must be, and which image of it is meant
  oci-archive:PATH[:REF]
  oci:DIR[:REF]
  -                            an archive from standard input, from a pipe of any kind
  docker-daemon:NAME[:TAG]     an image of the local Docker or Podman engine, by name or ID
  docker://HOST/NAME[:TAG]     an image on a registry; short names as Docker has them
  oras://HOST/NAME[:TAG]       a SIF on a registry
  https://HOST/PATH            an archive or a SIF on a web server; logins come from ~/.netrc

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
  sif-convert batch images.txt --to sif --out sifs     converts the images of a list
  sif-convert weights --to additional-files            packs a folder, prints its SHA-256
  sif-convert inspect ubuntu.tar                       shows what an image holds
  sif-convert ls app.sif /etc                          lists files; sif-convert cat prints one
  sif-convert diff app.tar app.sif                     compares files and config
  sif-convert verify app.sif                           checks that it is intact
  sif-convert sign app.sif --key key.pem               signs it, for apptainer verify --key
  sif-convert push app.sif oras://ghcr.io/org/app:1    pushes it as it is";

const FIRST_EXAMPLES: &str = "\
Examples:
  sif-convert docker://ubuntu:24.04 --to sif           writes ubuntu_24.04.sif
  sif-convert app.tar --to sif -o app.sif              app.tar is from docker save
  sif-convert inspect app.sif                          shows what it holds
\"sif-convert --help\" has all options, sources and more examples.";

const VARIABLES: &str = "\
Environment:
  APPTAINER_TMPDIR, SINGULARITY_TMPDIR, TMPDIR     where --tmpdir is not given, in this order
  CONVERT_PROGRESS                                 where --progress is not given
  APPTAINER_ENCRYPTION_PASSPHRASE, APPTAINER_ENCRYPTION_PEM_PATH, APPTAINER_ENCRYPTION_PEM_DATA
                                                   (or SINGULARITY_…) the key for build --encrypt
  DOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG,      where the engine of docker-daemon: is, as for
  DOCKER_TLS_VERIFY, DOCKER_CERT_PATH              the docker command
  CONTAINER_HOST, XDG_RUNTIME_DIR                  where Podman is, when there is no Docker
  APPTAINER_DOCKER_USERNAME, APPTAINER_DOCKER_PASSWORD (or SINGULARITY_…)
                                                   the login for a registry; else those of
                                                   docker login, podman login or apptainer
  DOCKER_CONFIG, REGISTRY_AUTH_FILE                where these are
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY                how registries are reached
  SSL_CERT_FILE, SSL_CERT_DIR                      whom to trust instead of the system's roots
  XDG_CONFIG_HOME                                  where sif-convert/config.toml is, which wins over
                                                   /etc/sif-convert.toml
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
    after_help = FIRST_EXAMPLES,
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
    /// Convert many images: of a list, or the tags of a repository
    #[command(override_usage = "sif-convert batch [OPTIONS] --to FORMAT --out DIR LIST|SOURCE...")]
    Batch(Box<Batch>),
    /// Fetch or convert what a URI names, with the options of "apptainer pull"
    #[command(override_usage = "sif-convert pull [OPTIONS] [OUTPUT] URI")]
    Pull(Box<Pull>),
    /// Push a SIF as it is, signatures included, with the options of "apptainer push"
    Push(Box<Push>),
    /// Attach SIFs to a hosted image: one place for Docker and for Singularity
    Attach(Box<AttachSifs>),
    /// Write "singularity" and "apptainer" programs that hand images to this one
    Shim(Box<Shim>),
    /// Show what a source holds: images, tags, platform, config, layers, warnings
    Inspect(Box<Inspect>),
    /// List the files in a source, without unpacking it
    Ls(Box<Ls>),
    /// Print files of a source, without unpacking it
    Cat(Box<Cat>),
    /// Compare two sources: files, owners, contents, config; exit code 1 where they differ
    Diff(Box<Diff>),
    /// Check that a SIF, archive or layout is intact
    Verify(Box<Verify>),
    /// Sign a SIF, as "apptainer sign --key" does
    Sign(Box<Sign>),
    /// Decrypt an encrypted SIF
    Decrypt(Box<Decrypt>),
    /// Manage the cache
    Cache(Box<Cache>),
    /// Show the settings that are in effect, and where each comes from
    Config,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the candidates for the last word, for the completion scripts
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
        words: Vec<OsString>,
    },
    /// Print a manual page: "sif-convert man | man -l -"
    Man {
        /// A command; its page instead of the program's
        command: Option<String>,
        /// Write the pages of all commands into this directory instead
        #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with = "command")]
        directory: Option<PathBuf>,
    },
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

impl Parsed {
    /// Whether files of settings have a say in it.
    pub(super) fn heeds_settings(&self) -> bool {
        !matches!(
            self,
            Parsed::Text(_)
                | Parsed::Word(Word::Shim(_) | Word::Completions { .. } | Word::Complete { .. } | Word::Man { .. })
        )
    }
}

/// Options that `-h` shows: those of most conversions. `--help` shows all.
const IN_SHORT_HELP: [&str; 5] = ["to", "output", "force", "quiet", "verbose"];

/// The whole command line, as clap has it.
pub(super) fn command() -> clap::Command {
    let is_hidden = |argument: &clap::Arg| {
        argument.is_hide_set() || REFUSED.iter().any(|(refused, _)| argument.get_id() == refused)
    };
    CommandLine::command().mut_subcommands(|command| match command.get_name() {
        "batch" => command.mut_args(|argument| {
            let is_hidden = is_hidden(&argument);
            argument.hide(is_hidden)
        }),
        _ => command,
    })
}

/// The same with what one screen has room for: `-h` is for a look, `--help` for reading.
fn in_short(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| {
        let is_shown = IN_SHORT_HELP.contains(&argument.get_id().as_str());
        argument.hide_short_help(!is_shown).help_heading(None::<&'static str>)
    })
}

/// Parses `arguments`, the program's name included; which options were given is told apart from their values.
pub(super) fn parse(arguments: &[OsString]) -> Result<(Parsed, Given)> {
    let command = command();
    let asked = asked_for_help(arguments, &command);
    let arguments = asked.as_deref().unwrap_or(arguments);
    let is_short = arguments.get(1).is_some_and(|word| word == "-h");
    let parser = if is_short { in_short(command.clone()) } else { command.clone() };
    let parsed = parser.try_get_matches_from(arguments).and_then(|matches| {
        let given = match matches.subcommand() {
            Some((name, inner)) => {
                command.find_subcommand(name).map_or_else(Given::default, |command| Given::of(command, inner))
            }
            None => Given::of(&command, &matches),
        };
        Ok((CommandLine::from_arg_matches(&matches)?, given))
    });
    match parsed {
        Ok((CommandLine { word: Some(word), .. }, given)) => Ok((Parsed::Word(word), given)),
        Ok((CommandLine { word: None, convert }, given)) => Ok((Parsed::Convert(Box::new(convert)), given)),
        Err(error) => match error.kind() {
            ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
                Ok((Parsed::Text(error.render().to_string()), Given::default()))
            }
            _ => Err(imagemagick::call(arguments).unwrap_or_else(|| mistakes::of(&error, arguments, &command))),
        },
    }
}

/// "help" and "help COMMAND" in the words that clap takes: it is not a command of its own, for a file may have its name.
fn asked_for_help(arguments: &[OsString], command: &clap::Command) -> Option<Vec<OsString>> {
    match arguments {
        [program, help] if help == "help" => Some(vec![program.clone(), "--help".into()]),
        [program, help, name] if help == "help" && command.find_subcommand(name).is_some() => {
            Some(vec![program.clone(), name.clone(), "--help".into()])
        }
        _ => None,
    }
}

/// The completion script for `shell`.
pub(super) fn completion_script(shell: clap_complete::Shell) -> Vec<u8> {
    if let Some(script) = completions::script(shell) {
        return script.as_bytes().to_vec();
    }
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "sif-convert", &mut script);
    script
}

/// What the last of `words` may become.
pub(super) fn completed(words: &[OsString]) -> String {
    completions::page(&command(), words)
}

/// The manual page of `name`, or of the program, in roff; with a `directory`, which is made where it is not
/// there, nothing, and the pages of all commands in it.
pub(super) fn man(name: Option<&str>, directory: Option<&Path>) -> Result<Vec<u8>> {
    let mut command = command();
    command.build();
    let pages = manual::pages(&command)?;
    if let Some(directory) = directory {
        let writing = || format!("writing manual pages into {directory:?}");
        std::fs::create_dir_all(directory).or_kind(ErrorKind::Output).doing(writing)?;
        for (name, page) in pages {
            std::fs::write(directory.join(name), page).or_kind(ErrorKind::Output).doing(writing)?;
        }
        return Ok(Vec::new());
    }
    let wanted = name.map_or("sif-convert.1".to_string(), |name| format!("sif-convert-{name}.1"));
    let page = pages.into_iter().find(|(name, _)| *name == *wanted).map(|(_, page)| page.into_bytes());
    page.ok_or_else(|| {
        usage(format!("there is no command {:?}", name.unwrap_or_default()), "\"sif-convert -h\" lists the commands")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn words(line: &str) -> Vec<OsString> {
        std::iter::once("convert").chain(line.split(' ').filter(|word| !word.is_empty())).map(OsString::from).collect()
    }

    fn convert(line: &str) -> Convert {
        match parse(&words(line)).unwrap().0 {
            Parsed::Convert(convert) => *convert,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn first_words_are_commands_and_files_have_spellings() {
        assert!(matches!(parse(&words("inspect x.tar")).unwrap().0, Parsed::Word(Word::Inspect(_))));
        assert!(matches!(parse(&words("man")).unwrap().0, Parsed::Word(Word::Man { .. })));
        assert_eq!(convert("./inspect --to rootfs").source.unwrap(), "./inspect");
        assert_eq!(convert("docker-archive:inspect --to rootfs").source.unwrap(), "docker-archive:inspect");
        assert_eq!(convert("--to rootfs inspect").source.unwrap(), "inspect");
        assert_eq!(convert("- --to rootfs -o -").source.unwrap(), "-");
    }

    #[test]
    fn wrong_use_is_said_in_our_words() {
        let error = |line: &str| parse(&words(line)).unwrap_err();
        assert!(error("x.tar").remedy().unwrap().ends_with("sif-convert x.tar --to sif"));
        assert!(error("x --to tar").remedy().unwrap().contains("--to rootfs"));
        assert!(error("x --to rootfs --forse").remedy().unwrap().contains("--force"));
        assert_eq!(error("x --to rootfs --force --if-exists fail").kind(), ErrorKind::Usage);
        assert_eq!(error("").kind(), ErrorKind::Usage);
        assert_eq!(error("inspect x --to rootfs").kind(), ErrorKind::Usage);
    }
}
