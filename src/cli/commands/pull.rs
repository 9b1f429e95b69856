//! `convert pull [options] [OUTPUT] URI`: the argv of `singularity pull` and `apptainer pull`, for the programs that call
//! them. Images are converted, what is hosted as a SIF is downloaded as it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::convert::{self, Convert};
use crate::attach::{self, Pulled};
use crate::cli::encryption::EncryptionOptions;
use crate::cli::environment::Environment;
use crate::cli::fatal;
use crate::cli::handover;
use crate::cli::options::{
    Checks, Choice, ConfigOptions, Feedback, Given, ImageOptions, OutputOptions, RootOptions, SignKeyOptions,
    SignatureOptions, WhenThere, selection,
};
use crate::cli::printer::{self, Bytes, Voice};
use crate::cli::registry::{self, RegistryOptions};
use crate::cli::report::{Done, Recorder};
use crate::cli::session::{self, Session};
use crate::cli::signals::Quit;
use crate::cli::values::{expected, platform_of, usage};
use crate::conversion::Conversion;
use crate::download::{Download, Downloaded, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Platform, Quoted};
use crate::output::{Destination, IfExists};
use crate::report::SourceRecord;
use crate::source::Spec;

/// Options as `apptainer pull` takes them.
#[derive(Debug, Args)]
pub(in crate::cli) struct Pull {
    /// The SIF to write [default: NAME_TAG.sif], and what to pull
    #[arg(value_name = "[OUTPUT] URI", num_args = 1..=2, required = true)]
    words: Vec<OsString>,

    /// Replace an output that exists
    #[arg(long, short = 'F')]
    force: bool,
    /// The name of the SIF, as OUTPUT
    #[arg(long, value_name = "NAME")]
    name: Option<OsString>,
    /// Write the SIF into this directory
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
    /// The architecture to pull, as in --platform linux/ARCH
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    arch_variant: Option<String>,
    /// Speak plain HTTP to the registry
    #[arg(long, alias = "nohttps")]
    no_https: bool,
    /// Where an unnamed temporary file goes when one is needed
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    tmpdir: Option<PathBuf>,
    /// Logins for registries, in the form of Docker's config.json
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    authfile: Option<PathBuf>,
    /// The engine of docker-daemon: sources, as in DOCKER_HOST
    #[arg(long, value_name = "HOST")]
    docker_host: Option<OsString>,
    #[arg(long, hide = true)]
    docker_username: Option<OsString>,
    #[arg(long, hide = true)]
    docker_password: Option<OsString>,

    /// Download the SIF that is attached to a docker:// image, and convert where there is none; with
    /// =verify, convert all the same, and refuse an attached SIF that is another one
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "trust")]
    attached: Option<AttachedMode>,

    #[arg(long, short = 's', hide = true)]
    sandbox: bool,
    #[arg(long, hide = true)]
    docker_login: bool,

    /// Let the runscript change to the image's WORKDIR first, as Docker does
    #[arg(long)]
    workdir: bool,
    /// How many threads may work at once
    #[arg(long, short, value_name = "N")]
    jobs: Option<String>,
    // The heading of a flattened group holds until the next one: what has none comes first.
    #[command(flatten)]
    meaningless: Meaningless,
    #[command(flatten)]
    checks: Checks,
    #[command(flatten)]
    signing: SignKeyOptions,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    feedback: Feedback,
}

/// `--attached`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AttachedMode {
    Trust,
    Verify,
}

/// What `apptainer pull` needs and this program does not.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted for compatibility with apptainer pull, without effect")]
struct Meaningless {
    /// There is no cache without --cache
    #[arg(long)]
    disable_cache: bool,
    /// Nothing is left to clean up
    #[arg(long)]
    no_cleanup: bool,
    /// Signatures are not checked
    #[arg(long, short = 'U')]
    allow_unsigned: bool,
    /// Signatures are not checked
    #[arg(long)]
    allow_unauthenticated: bool,
    /// Only for library:// URIs, which the real program pulls
    #[arg(long, value_name = "URL")]
    library: Option<String>,
    /// The same image gives the same bytes in any case
    #[arg(long)]
    reproducible: bool,
}

/// A pull, its names resolved.
struct Job {
    spec: Spec,
    convert: Convert,
    path: PathBuf,
    attached: Option<AttachedMode>,
}

impl Pull {
    /// Pulls, and says how it went.
    pub(in crate::cli) fn run(self, given: Given, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
        let voice = Voice { fatal: true, quiet: self.feedback.quiet, ..Voice::default() };
        if self.is_for_the_real_program() {
            return exit_code(session::misuse(handover::run_real_program(words, environment), words, voice));
        }
        let environment = match self.settled(environment) {
            Ok(environment) => environment,
            Err(error) => return exit_code(session::misuse(error, words, voice)),
        };
        let given = given.without(&registry::IDS);
        exit_code(match self.resolve(&environment) {
            Err(error) => session::misuse(error, words, voice),
            Ok(job) if matches!(job.spec, Spec::Oras(_) | Spec::Web(_)) => {
                download(&job, &given, words, &environment, quit)
            }
            Ok(job) if job.attached.is_some() => attached(&job, &given, words, &environment, quit),
            Ok(job) => convert::run(&job.convert, &given, None, words, &environment, quit),
        })
    }

    fn uri(&self) -> &OsStr {
        self.words.last().map(OsString::as_os_str).unwrap_or_default()
    }

    /// A URI without a transport is one of a library.
    fn is_for_the_real_program(&self) -> bool {
        matches!(transport(self.uri()), None | Some(b"library" | b"shub"))
    }

    /// Options that are variables for everyone else.
    fn settled(&self, environment: &Environment) -> Result<Environment> {
        let mut environment =
            registry::with_apptainer_options(environment, self.authfile.as_deref(), self.docker_host.as_deref())?;
        for (name, value) in
            [("APPTAINER_DOCKER_USERNAME", &self.docker_username), ("APPTAINER_DOCKER_PASSWORD", &self.docker_password)]
        {
            environment.variables.extend(value.iter().map(|value| (name, value.clone())));
        }
        if environment.variable("CONVERT_PROGRESS").is_none_or(OsStr::is_empty) && self.feedback.progress.is_none() {
            // Who calls this reads lines, through a terminal or not.
            environment.variables.insert("CONVERT_PROGRESS", "plain".into());
        }
        Ok(environment)
    }

    fn resolve(self, environment: &Environment) -> Result<Job> {
        if self.sandbox {
            return Err(usage(
                "option --sandbox is not supported",
                "pull a SIF, then: apptainer build --sandbox DIR SIF",
            ));
        }
        if self.docker_login {
            return Err(usage(
                "option --docker-login is not supported: nothing is asked",
                "log in with docker login first",
            ));
        }
        let uri = self.uri().to_os_string();
        match transport(&uri) {
            Some(
                b"docker" | b"docker-daemon" | b"docker-archive" | b"oci" | b"oci-archive" | b"oras" | b"http"
                | b"https",
            ) => {}
            other => {
                let name = Quoted(other.unwrap_or_default()).to_string();
                return Err(usage(
                    format!("Unsupported transport type: {}", name.trim_matches('"')),
                    "write docker://, docker-daemon:, docker-archive:, oci:, oci-archive:, oras:// or https://",
                ));
            }
        }
        let spec = Spec::parse(&uri)?;
        if spec.path() == Some(Path::new(&uri)) {
            return Err(usage(format!("Bad URI {}", Quoted(uri.as_bytes())), "write TRANSPORT://NAME"));
        }
        let attached = self.attached;
        if attached.is_some() && !matches!(spec, Spec::Registry(_)) {
            let message = format!("option --attached has no effect on {spec}");
            return Err(usage(message, "leave --attached out, or name an image as docker://HOST/NAME"));
        }
        if self.signing.sign_key.is_some() && matches!(spec, Spec::Oras(_) | Spec::Web(_)) {
            let message = format!("option --sign-key has no effect on {spec}: a SIF is downloaded as it is");
            return Err(usage(message, "leave it out, and sign the file: sif-convert sign FILE --key KEY.pem"));
        }
        if self.checks.provenance.is_some() && (attached.is_some() || matches!(spec, Spec::Oras(_) | Spec::Web(_))) {
            let message = "option --provenance has no effect on a SIF that is downloaded";
            return Err(usage(message, "leave --provenance out: whoever made the SIF has it"));
        }
        let path = self.output(&uri, environment);
        if !self.force && path.symlink_metadata().is_ok() {
            return Err(exists(&path));
        }
        Ok(Job { convert: self.into_convert(uri, &path, environment), spec, path, attached })
    }

    /// As `apptainer pull` names it: by the option, by the word before the URI, else after the URI.
    fn output(&self, uri: &OsStr, environment: &Environment) -> PathBuf {
        let given = self.name.clone().or_else(|| setting(environment, &["PULL_NAME"]));
        let word = (self.words.len() == 2).then(|| self.words[0].clone());
        let name = given.or(word).unwrap_or_else(|| default_name(uri));
        let directory = self.dir.clone().map(OsString::from);
        match directory.or_else(|| setting(environment, &["PULLDIR", "PULLFOLDER"])) {
            // As filepath.Join has it: an absolute name, too, is one below the directory.
            Some(directory) => {
                let name = Path::new(&name);
                PathBuf::from(directory).join(name.strip_prefix("/").unwrap_or(name))
            }
            None => PathBuf::from(name),
        }
    }

    fn into_convert(self, uri: OsString, path: &Path, environment: &Environment) -> Convert {
        let text = |name: &str| setting(environment, &[name]).and_then(|value| value.into_string().ok());
        let arch = self.arch.or_else(|| text("PULL_ARCH"));
        let variant = self.arch_variant.or_else(|| text("PULL_ARCH_VARIANT"));
        let platform = platform_of(arch.as_deref(), variant.as_deref());
        Convert {
            source: Some(uri),
            to: Some("sif".to_string()),
            output: Some(path.into()),
            input_command: None,
            choice: Choice { image: None, platform, tmpdir: self.tmpdir },
            registry: RegistryOptions { no_https: self.no_https, ..self.registry },
            output_options: OutputOptions {
                // That nothing is there has been seen. Of two that pull at once, the second takes what the first wrote.
                if_exists: Some(if self.force { WhenThere::Replace } else { WhenThere::Reuse }),
                jobs: self.jobs,
                ..OutputOptions::default()
            },
            checks: self.checks,
            root: RootOptions { workdir: self.workdir.then(String::new), ..RootOptions::default() },
            encryption: EncryptionOptions::default(),
            image: ImageOptions::default(),
            config: ConfigOptions::default(),
            signatures: SignatureOptions { key: self.signing, ..SignatureOptions::default() },
            feedback: Feedback { is_fatal: true, ..self.feedback },
        }
    }
}

/// Ends what could not be parsed.
pub(in crate::cli) fn misuse(error: Error, words: &[OsString]) -> u8 {
    exit_code(session::misuse(error, words, Voice { fatal: true, ..Voice::default() }))
}

/// Apptainer knows one exit code for failures; signals have their own.
fn exit_code(code: u8) -> u8 {
    let of_signals = [ErrorKind::Interrupted, ErrorKind::Terminated].map(ErrorKind::exit_code);
    if code == 0 || of_signals.contains(&code) { code } else { fatal::EXIT_CODE }
}

fn exists(path: &Path) -> Error {
    let path = Quoted(path.as_os_str().as_bytes());
    Error::new(ErrorKind::Output, format!("Image file already exists: {path} - will not overwrite"))
        .hint("add --force to replace it")
}

/// What is before the first colon.
fn transport(uri: &OsStr) -> Option<&[u8]> {
    let bytes = uri.as_bytes();
    bytes.iter().position(|&byte| byte == b':').map(|at| &bytes[..at])
}

/// The first that is set of variables of Apptainer or Singularity.
fn setting(environment: &Environment, names: &[&str]) -> Option<OsString> {
    let variables =
        names.iter().flat_map(|name| ["APPTAINER", "SINGULARITY"].map(|program| format!("{program}_{name}")));
    variables
        .into_iter()
        .find_map(|name| environment.variable(&name).filter(|it| !it.is_empty()).map(OsStr::to_os_string))
}

/// Apptainer's `uri.GetName`: the last part of the name and its tag, or the last part of a URL.
fn default_name(uri: &OsStr) -> OsString {
    let bytes = uri.as_bytes();
    let name = bytes.rsplit(|&byte| byte == b'/').next().unwrap_or(bytes);
    if matches!(transport(uri), Some(b"http" | b"https")) {
        return OsStr::from_bytes(name).to_os_string();
    }
    let mut name = match bytes.contains(&b'/') {
        true => name,
        // `docker-daemon:x:1`
        false => name.splitn(2, |&byte| byte == b':').nth(1).unwrap_or(name),
    }
    .split(|&byte| byte == b':');
    let (container, tag) = (name.next().unwrap_or_default(), name.next().unwrap_or(b"latest"));
    let tag = tag.split(|&byte| byte == b',').next().unwrap_or(tag);
    OsStr::from_bytes(&[container, b"_", tag, b".sif"].concat()).to_os_string()
}

/// Downloads a SIF; an archive at a URL is converted as it streams.
fn download(job: &Job, given: &Given, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
    let Job { spec, convert, path, .. } = job;
    let report = convert.checks.report.as_deref();
    Session::record((&convert.feedback, report), words, environment, quit, |session| {
        let (voice, recorder) = (session.voice, &session.recorder);
        recorder.record(|report| {
            report.source = Some(SourceRecord::of(convert.source.as_deref().unwrap_or_default(), None))
        });
        let conversion = convert.resolve(given, environment)?;
        let wanted = Download {
            source: spec.clone(),
            path: path.clone(),
            replace: conversion.options.if_exists == Some(IfExists::Replace),
            mode: conversion.options.mode,
            platform: selection(&convert.choice)?.platform.unwrap_or_else(Platform::host),
            expected: expected("--expect-sha256", convert.checks.expect_sha256.as_deref())?,
            open: conversion.open.clone(),
        };
        session.supervise(|monitor| match wanted.run(monitor)? {
            Found::Sif(downloaded) => conclude(&conversion, &downloaded, voice, recorder),
            Found::Other => convert::attempt(&conversion, voice, recorder, monitor),
        })
    })
}

/// Takes the SIF that is attached to the image, where there is one.
fn attached(job: &Job, given: &Given, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
    let report = job.convert.checks.report.as_deref();
    Session::record((&job.convert.feedback, report), words, environment, quit, |session| {
        let (voice, recorder) = (session.voice, &session.recorder);
        let spelling = job.convert.source.as_deref().unwrap_or_default();
        recorder.record(|report| report.source = Some(SourceRecord::of(spelling, None)));
        let conversion = job.convert.resolve(given, environment)?;
        let verify = job.attached == Some(AttachedMode::Verify);
        session.supervise(|monitor| {
            let watching = convert::Watching { recorder, voice };
            match attach::pull_attached(&conversion, verify, &watching, monitor)? {
                Pulled::Downloaded(_, downloaded) => tell(&conversion, &downloaded, voice, recorder),
                Pulled::Converted(outcome) => {
                    convert::summarise(&conversion, &outcome, voice, recorder);
                    Ok(())
                }
                Pulled::Verified(found, outcome) => {
                    convert::summarise(&conversion, &outcome, voice, recorder);
                    voice.summary(&format!("the SIF attached as {} is what a conversion gives", found.manifest));
                    Ok(())
                }
            }
        })
    })
}

fn conclude(conversion: &Conversion, downloaded: &Downloaded, voice: Voice, recorder: &Recorder) -> Result<()> {
    attach::record_download(downloaded, &conversion.destination, &convert::Watching { recorder, voice });
    tell(conversion, downloaded, voice, recorder)
}

fn tell(conversion: &Conversion, downloaded: &Downloaded, voice: Voice, recorder: &Recorder) -> Result<()> {
    let output = attach::download_record(downloaded, &conversion.destination);
    let seconds = recorder.seconds();
    if voice.json {
        printer::event(&Done { event: "done", output: &output, seconds });
        return Ok(());
    }
    if let Destination::Path(path) = &conversion.destination {
        let (path, size) = (Quoted(path.as_os_str().as_bytes()), Bytes(downloaded.size));
        voice.summary(&format!("downloaded {path}: {size}, {seconds:.1} s"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_apptainer() {
        for (uri, name) in [
            ("docker://alpine", "alpine_latest.sif"),
            ("docker://quay.io/biocontainers/samtools:1.17--h0", "samtools_1.17--h0.sif"),
            ("docker://host:5000/x", "x_latest.sif"),
            ("docker://x@sha256:abc", "x@sha256_abc.sif"),
            ("docker-daemon:x:1", "x_1.sif"),
            ("docker-archive:/a/b.tar", "b.tar_latest.sif"),
            ("docker-archive:b.tar", "b.tar_latest.sif"),
            ("oras://host/a/x:1", "x_1.sif"),
            ("https://host/a/samtools:1.17--h0", "samtools:1.17--h0"),
            ("https://host/x.sif", "x.sif"),
        ] {
            assert_eq!(default_name(OsStr::new(uri)), name, "{uri}");
        }
    }
}
