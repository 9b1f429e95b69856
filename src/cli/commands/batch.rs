//! `convert batch LIST|SOURCE… --to FORMAT --out DIR`: many images.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use regex::Regex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::convert::{Convert, settle_compression};
use crate::batch::{self, Access, Entry, Make, Names, Status, Summary, Trouble, Wanted, What};
use crate::cli::board::{Board, Ended};
use crate::cli::encryption::EncryptionOptions;
use crate::cli::environment::Environment;
use crate::cli::exit::Failure;
use crate::cli::options::{
    Checks, Choice, ConfigOptions, Feedback, Given, ImageOptions, OutputOptions, RootOptions, SignKeyOptions,
    SignatureOptions, TrustOptions,
};
use crate::cli::printer;
use crate::cli::registry::{self, RegistryOptions};
use crate::cli::session::Session;
use crate::cli::signals::Quit;
use crate::cli::signatures;
use crate::cli::values::usage;
use crate::conversion::Conversion;
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::io::{Monitor, is_stream};
use crate::model::{Note, Quoted};
use crate::output::{Signing, Target};
use crate::source::Spec;
use crate::trust::{ImagePolicy, PolicyFile};

/// How many images are converted at once where nobody says: while one waits for its registry or its disk, others work.
const PARALLEL: usize = 4;
/// More than that at once is a mistake.
const PARALLEL_MAX: usize = 256;

/// What helps where an output cannot be replaced.
const OTHER_OUTPUT: &str = "add --force to replace it, remove it, or give the output another name in the list";
/// How a list says which of several images is meant.
const ONE_IMAGE: &str = "write docker-archive:PATH:TAG or oci:DIR:NAME in the list";

/// What is not for one of many images: not in the help, and refused.
pub(in crate::cli) const REFUSED: [(&str, &str); 4] = [
    ("image", ONE_IMAGE),
    ("if_exists", "outputs that are up to date are kept, others are replaced; --force replaces all"),
    ("tag", "each image keeps its own name"),
    ("reference", "each image keeps its own name"),
];

/// `convert batch LIST|SOURCE… --to FORMAT --out DIR`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Batch {
    /// Lists of sources, or sources themselves; of a docker:// repository with --tags, its tags
    ///
    /// A list is a text file of lines "SOURCE [NAME]", where NAME is what the output is called and "#" begins a comment;
    /// or a file *.yaml in the form of skopeo sync: registries with images, images-by-tag-regex, credentials, tls-verify.
    #[arg(value_name = "LIST|SOURCE", value_hint = clap::ValueHint::AnyPath, verbatim_doc_comment)]
    sources: Vec<OsString>,
    /// A list, too; "-" is standard input; may be repeated
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    list: Vec<PathBuf>,
    /// What to write: sif, sif-rootfs, rootfs, squashfs, oci-archive or docker-archive
    #[arg(long, short = 't', value_name = "FORMAT", value_parser = formats())]
    to: String,
    /// The directory of the outputs, their reports, summary.tsv and summary.jsonl
    #[arg(long, short, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: PathBuf,
    /// Convert the tags of each docker:// source that this regular expression is found in
    #[arg(long, value_name = "REGEX")]
    tags: Option<String>,
    /// What outputs are called where the list does not say [default: plain]
    ///
    /// plain: NAME_TAG.sif. nextflow: as its cacheDir has them. cwltool: as its
    /// CWL_SINGULARITY_CACHE has them, before 3.3; cwltool-3.3: from then on.
    /// digest: sha256-HEX.sif, the digest that the name leads to now.
    #[arg(long, value_name = "HOW", verbatim_doc_comment)]
    names: Option<Naming>,
    /// How many images at once; they share the cores [default: 4]
    #[arg(long, value_name = "N")]
    parallel: Option<String>,
    /// Only this image of the list, or these, counted from 1: for array jobs
    #[arg(long, value_name = "N|N-M")]
    only: Option<String>,
    /// Convert only what failed or is missing; do not ask whether the others are up to date
    #[arg(long, conflicts_with_all = ["force", "verify"])]
    retry_failed: bool,
    /// Read the outputs that are kept, too, and make those anew that are damaged
    #[arg(long, conflicts_with = "force")]
    verify: bool,
    /// Remove outputs of this format that a batch made here and that the list no longer names
    #[arg(long, conflicts_with = "only")]
    prune: bool,
    /// Convert nothing; print the list, a line "SOURCE, tab, NAME" for each image
    #[arg(long, conflicts_with_all = ["prune", "retry_failed", "verify", "summary", "force"])]
    dry_run: bool,
    /// Convert nothing; print what earlier runs recorded, as in summary.tsv
    #[arg(long, conflicts_with_all = ["prune", "retry_failed", "verify", "force"])]
    summary: bool,

    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    output_options: OutputOptions,
    #[command(flatten)]
    trust: TrustOptions,
    #[command(flatten)]
    root: RootOptions,
    #[command(flatten)]
    image: ImageOptions,
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    signing: SignKeyOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// `--names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Naming {
    Plain,
    Nextflow,
    Cwltool,
    #[value(name = "cwltool-3.3")]
    CwltoolNow,
    Digest,
}

impl From<Naming> for Names {
    fn from(naming: Naming) -> Self {
        match naming {
            Naming::Plain => Names::Plain,
            Naming::Nextflow => Names::Nextflow,
            Naming::Cwltool => Names::Cwltool,
            Naming::CwltoolNow => Names::CwltoolNow,
            Naming::Digest => Names::Digest,
        }
    }
}

/// What is one file: a layout and a directory are not, and a folder is not an image.
fn formats() -> PossibleValuesParser {
    let names = Target::all().into_iter().map(|target| target.name());
    PossibleValuesParser::new(names.filter(|name| !["oci", "dir"].contains(name)))
}

/// All choices, made.
pub(in crate::cli) struct Plan<'a> {
    arguments: &'a Batch,
    given: &'a Given,
    environment: &'a Environment,
    target: Target,
    names: Names,
    parallel: NonZeroUsize,
    only: Option<RangeInclusive<usize>>,
    tags: Option<Regex>,
    /// Whose images are converted, and who signs: read once, for what is named may be a pipe.
    trust: Option<ImagePolicy>,
    policy: Option<PolicyFile>,
    signing: Signing,
    /// What settings decide about the bytes of all outputs.
    note: Option<Note>,
}

impl std::fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Batch { sources, list, out, retry_failed, verify, prune, dry_run, summary, .. } = self.arguments;
        let flags = (retry_failed, verify, prune, dry_run, summary, self.arguments.output_options.force);
        let (names, parallel, only, tags) = (self.names, self.parallel, &self.only, &self.tags);
        write!(f, "{sources:?} {list:?} {out:?} {flags:?} {names:?} {parallel} {only:?} {tags:?}")?;
        let first = sources.first().map(|source| self.conversion(source, Path::new("x")));
        write!(f, " {first:?}")
    }
}

/// Converts, and says how it went.
pub(in crate::cli) fn run(
    arguments: &Batch,
    given: &Given,
    words: &[OsString],
    environment: &Environment,
    quit: Quit,
) -> u8 {
    Session::record((&arguments.feedback, None), words, environment, quit, |session| {
        let plan = arguments.resolve(given, environment)?;
        allow_open_files();
        session.recorder.record(|report| report.notes.extend(plan.note.clone()));
        session.supervise_quietly(|monitor| plan.run(session, monitor))
    })
}

/// Many conversions at once have more files open than the usual 1,024: as many as the system allows, where it lets us.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

impl Batch {
    /// Resolves text. Whatever can be refused is refused here.
    pub(in crate::cli) fn resolve<'a>(&'a self, given: &'a Given, environment: &'a Environment) -> Result<Plan<'a>> {
        for (id, hint) in REFUSED {
            if given.has(id) {
                let option = format!("--{}", id.replace('_', "-"));
                return Err(usage(format!("option {option} has no effect on a batch"), hint));
            }
        }
        if self.sources.is_empty() && self.list.is_empty() {
            return Err(usage("no list and no source is named", "write \"sif-convert batch LIST --to sif --out DIR\""));
        }
        let names = self.names.unwrap_or(Naming::Plain).into();
        if self.to != "sif" && matches!(names, Names::Nextflow | Names::Cwltool | Names::CwltoolNow) {
            let message = format!("option --names has no effect on {}: workflows look for SIF files", self.to);
            return Err(usage(message, "leave --names out, or write --to sif"));
        }
        let signing = SignatureOptions { key: self.signing.clone(), ..SignatureOptions::default() };
        signatures::refuse_idle(&signing)?;
        let mut plan = Plan {
            arguments: self,
            given,
            environment,
            target: self.to.parse()?,
            names,
            parallel: self.parallel()?,
            only: self.only()?,
            tags: self.tags.as_deref().map(expression).transpose()?,
            trust: signatures::trust(&self.trust)?,
            policy: signatures::policy(&self.trust)?,
            // Nothing is signed, so no passphrase is asked for.
            signing: match self.dry_run || self.summary {
                true => Signing::default(),
                false => signatures::signing(&signing)?,
            },
            note: None,
        };
        // Options that no image can have are told before anything is looked at.
        let convert = plan.convert(OsStr::new("docker://h.example/x:1"), Path::new("x"));
        let probe = plan.resolve(&convert)?;
        plan.note = settle_compression(&mut probe.target.clone(), &convert, environment);
        probe.target.check(&probe.destination, &probe.options)?;
        // With all options: some decide about names.
        plan.target = probe.target;
        Ok(plan)
    }

    fn parallel(&self) -> Result<NonZeroUsize> {
        let Some(text) = &self.parallel else { return Ok(NonZeroUsize::new(PARALLEL).unwrap_or(NonZeroUsize::MIN)) };
        text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= PARALLEL_MAX).ok_or_else(|| {
            let message = format!("option --parallel: {text:?} is not a number of images");
            usage(message, format!("write a number from 1 to {PARALLEL_MAX}"))
        })
    }

    fn only(&self) -> Result<Option<RangeInclusive<usize>>> {
        let Some(text) = &self.only else { return Ok(None) };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number > 0);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Some(first..=last)),
            _ => {
                let message = format!("option --only: {text:?} is not a number from the list");
                Err(usage(message, "write a number from 1, or two with a dash between them"))
            }
        }
    }
}

fn expression(text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        usage(format!("option --tags: {text:?} is not a regular expression: {reason}"), "write for example '^1\\.'")
    })
}

impl Plan<'_> {
    fn run(&self, session: &Session, monitor: &Monitor) -> Result<()> {
        let (arguments, voice) = (self.arguments, session.voice);
        let make: &Make<'_> = &|source, output| self.conversion(source, output);
        let wanted = self.wanted()?;
        let (items, left_out) = batch::expand(&wanted, make, monitor)?;
        if items.is_empty() && left_out == 0 {
            return Err(usage("the list names no image", "write a source on each line"));
        }
        // Tags that are left out are of a registry, too.
        if !items.is_empty() {
            self.expect_remote(items.iter().map(|item| &item.spec))?;
        }
        let entries = batch::name(items, self.names, &self.target, make, monitor)?;
        if self.only.as_ref().is_some_and(|only| *only.end() > entries.len()) {
            let images = if entries.len() == 1 { "image" } else { "images" };
            let message = format!("option --only: the list has {} {images}", entries.len());
            return Err(usage(message, "write a number from the list"));
        }
        if arguments.dry_run {
            return printer::data(&listing(&entries, self.only.as_ref())?);
        }
        // An output that is its source is told before anything is written.
        let mut local = entries.iter().filter(|entry| entry.spec.path().is_some());
        local.try_for_each(|entry| make(&entry.source, &arguments.out.join(&entry.output)).map(drop))?;
        let batch = batch::Batch {
            parallel: self.parallel,
            only: self.only.clone(),
            force: arguments.output_options.force,
            verify: arguments.verify,
            retry_failed: arguments.retry_failed,
            prune: arguments.prune,
            describe: &trouble,
            ..batch::Batch::new(&entries, &arguments.out, self.target.name(), make)
        };
        if arguments.summary {
            let summary = batch.recorded()?;
            return self.print_recorded(&summary);
        }
        let total = self.only.as_ref().map_or(entries.len(), |only| only.clone().count());
        let board = Board::start(session.mode(), voice, total);
        let summary = batch.run(&board, monitor);
        drop(board);
        self.conclude(summary?, left_out, session)
    }

    /// What words and lists ask for.
    fn wanted(&self) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for (number, word) in (1..).zip(&self.arguments.sources) {
            if self.is_list(word)? {
                wanted.extend(batch::read_list(Path::new(word))?);
            } else if self.arguments.sources.len() == 1 && names_missing_list(word) {
                let message = format!("list {} does not exist", Quoted(word.as_bytes()));
                return Err(Error::new(ErrorKind::SourceUnavailable, message).hint(
                    "check the name of the list, or write the source as KIND:SOURCE, such as docker://HOST/NAME",
                ));
            } else if is_stream(Path::new(word)) {
                let message = format!("{} is a pipe or a device", Quoted(word.as_bytes()));
                return Err(usage(
                    message,
                    "name it with --list if it is a list; convert an image from a pipe by itself",
                ));
            } else {
                wanted.push(Wanted::new(What::Source(word.clone()), format!("source {number}")));
            }
        }
        for list in &self.arguments.list {
            if list == Path::new("-") && std::io::stdin().is_terminal() {
                return Err(usage("standard input is a terminal", "pipe a list into it, or name a file"));
            }
            wanted.extend(batch::read_list(list)?);
        }
        let Some(tags) = &self.tags else { return Ok(wanted) };
        let mut repositories = 0;
        for each in &mut wanted {
            if let What::Source(source) = &each.what
                && let Some(repository) = repository_in(source)
            {
                each.what = What::Tags(repository, Some(tags.clone()));
                repositories += 1;
            }
        }
        if repositories == 0 {
            let hint = "name a repository without a tag, as in docker://ghcr.io/org/app";
            return Err(usage("option --tags has no effect on a list without a docker:// repository", hint));
        }
        Ok(wanted)
    }

    fn is_list(&self, word: &OsStr) -> Result<bool> {
        let path = Path::new(word);
        let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml") && path.is_file();
        Ok(is_yaml || batch::is_list(path)?)
    }

    /// Options for registries have no effect on a list without one.
    fn expect_remote<'s>(&self, mut specs: impl Iterator<Item = &'s Spec>) -> Result<()> {
        let is_remote = |spec: &Spec| matches!(spec, Spec::Registry(_) | Spec::Oras(_) | Spec::Web(_));
        match specs.any(is_remote) {
            true => Ok(()),
            // Work is kept whatever the source.
            false => self.given.expect("a list without a registry", |id| {
                Ok(!registry::IDS.contains(&id) || id == "cache" && self.target.keeps_work())
            }),
        }
    }

    /// The conversion of one source, as if it were called by itself.
    fn conversion(&self, source: &OsStr, output: &Path) -> Result<Conversion> {
        let convert = self.convert(source, output);
        let mut conversion = self.resolve(&convert)?;
        settle_compression(&mut conversion.target, &convert, self.environment);
        Ok(conversion)
    }

    fn resolve(&self, convert: &Convert) -> Result<Conversion> {
        let mut conversion = convert.resolve(&self.given.clone().without(&OF_BATCH), self.environment)?;
        conversion.open.trust.clone_from(&self.trust);
        conversion.open.policy.clone_from(&self.policy);
        if let Some(signing) = conversion.target.signing_mut() {
            signing.clone_from(&self.signing);
        }
        Ok(conversion)
    }

    fn convert(&self, source: &OsStr, output: &Path) -> Convert {
        let Batch { choice, registry, output_options, root, image, config, .. } = self.arguments;
        Convert {
            source: Some(source.to_os_string()),
            to: Some(self.arguments.to.clone()),
            output: Some(output.as_os_str().to_os_string()),
            input_command: None,
            choice: choice.clone(),
            registry: registry.clone(),
            output_options: OutputOptions { force: true, if_exists: None, ..output_options.clone() },
            checks: Checks::default(),
            root: root.clone(),
            encryption: EncryptionOptions::default(),
            signatures: SignatureOptions::default(),
            image: image.clone(),
            config: config.clone(),
            feedback: Feedback::default(),
        }
    }

    fn print_recorded(&self, summary: &Summary) -> Result<()> {
        let table = match &self.only {
            None => batch::write_summary(&self.arguments.out, &summary.rows)?,
            Some(_) => batch::table(&summary.rows),
        };
        printer::data(table.as_bytes())?;
        self.judge(summary)
    }

    /// Writes the summary, says how many came to what, and fails where not all is there.
    fn conclude(&self, summary: Summary, left_out: usize, session: &Session) -> Result<()> {
        let voice = session.voice;
        let say = |what: &str, outputs: &[String]| {
            outputs.iter().for_each(|output| voice.summary(&format!("{what} {}", Quoted(output.as_bytes()))));
        };
        say("removed", &summary.pruned);
        say("not removed, for it is not what was made:", &summary.spared);
        if self.only.is_none() {
            batch::write_summary(&self.arguments.out, &summary.rows)?;
        }
        if voice.json {
            printer::event(&Ended::of(&summary, left_out, session.recorder.seconds()));
        } else {
            voice.summary(&Ended::of(&summary, left_out, session.recorder.seconds()).line());
        }
        match summary.stopped {
            Some(error) => Err(Error::new(error.kind(), error.to_string())
                .hint("run the same command again: it goes on where it stopped")),
            None => self.judge(&summary),
        }
    }

    fn judge(&self, summary: &Summary) -> Result<()> {
        let (failed, missing) = (summary.count(Status::Failed), summary.count(Status::Missing));
        if failed + missing == 0 {
            return Ok(());
        }
        let out = Quoted(self.arguments.out.as_os_str().as_bytes()).to_string();
        let images = if summary.rows.len() == 1 { "image" } else { "images" };
        let are = if missing == 1 { "is" } else { "are" };
        let what = match (failed, missing) {
            (failed, 0) => format!("{failed} of {} {images} could not be converted", summary.rows.len()),
            (0, missing) => format!("{missing} of {} {images} {are} not converted yet", summary.rows.len()),
            (failed, missing) => {
                let all = summary.rows.len();
                format!("{failed} of {all} {images} could not be converted, and {missing} {are} not converted yet")
            }
        };
        Err(Error::new(ErrorKind::Other, what).hint(format!(
            "see the reports in {out}; then run the same command again, with --retry-failed if you like"
        )))
    }
}

/// Options of a batch that are not options of its conversions.
const OF_BATCH: [&str; 17] = [
    "list",
    "to",
    "out",
    "tags",
    "names",
    "parallel",
    "only",
    "retry_failed",
    "verify",
    "prune",
    "dry_run",
    "summary",
    "insecure",
    "mirror",
    "cache",
    "retries",
    "timeout",
];

/// Whether a word looks like the name of a list, and nothing has that name.
fn names_missing_list(word: &OsStr) -> bool {
    let path = Path::new(word);
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    let is_plain = !word.as_bytes().contains(&b':');
    is_plain && ["txt", "yaml", "yml", "list"].contains(&ending) && !path.exists()
}

/// The repository that a source without a tag and a digest names.
fn repository_in(source: &OsStr) -> Option<String> {
    let name = source.to_str()?.strip_prefix("docker://")?;
    let is_whole = !name.contains('@') && !name.rsplit('/').next().unwrap_or(name).contains(':');
    is_whole.then(|| name.to_string())
}

/// The list with all tags and names written out.
fn listing(entries: &[Entry], only: Option<&RangeInclusive<usize>>) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for entry in entries.iter().filter(|entry| only.is_none_or(|only| only.contains(&entry.number))) {
        if *entry.access != Access::default() {
            let message = "lines cannot say how a registry is reached: the list has credentials or tls-verify";
            let hint = "leave them out of the list, log in with docker login, and give --insecure HOST";
            return Err(usage(message, hint));
        }
        let line = [entry.source.as_bytes(), b"\t", entry.output.as_bytes(), b"\n"].concat();
        if !batch::says(&line, &entry.source, &entry.output) {
            let message = format!("no line can say {}", Quoted(entry.source.as_bytes()));
            return Err(usage(message, "give it another name, without line breaks, tabs and blanks at its ends"));
        }
        text.extend(line);
    }
    Ok(text)
}

fn trouble(error: &Error) -> Trouble {
    let mut trouble = Trouble::from(error);
    // An option that names one output, or one image, is none of a batch.
    let other = match error.remedy_kind() {
        Some(Remedy::Image | Remedy::OneImage | Remedy::OtherImage) => Some(ONE_IMAGE),
        Some(Remedy::Replace | Remedy::ReplaceAnyway) => Some(OTHER_OUTPUT),
        Some(Remedy::OutputFile) => Some("remove the directory, or give the output another name in the list"),
        _ => None,
    };
    trouble.hint = other.map_or_else(|| Failure::of(error).hint, ToString::to_string);
    trouble
}
