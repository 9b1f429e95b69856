//! `convert push SIF oras://HOST/NAME[:TAG]`: the argv of `singularity push` and `apptainer push`. The file stays what it is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use clap::Args;

use super::convert::pushed;
use crate::cli::environment::Environment;
use crate::cli::handover;
use crate::cli::options::{Feedback, Given};
use crate::cli::printer::{self, Voice};
use crate::cli::registry::{self, RegistryOptions};
use crate::cli::report::Done;
use crate::cli::session::{self, Session};
use crate::cli::signals::Quit;
use crate::cli::values::{jobs_of, usage};
use crate::error::Result;
use crate::model::Quoted;
use crate::output::{Destination, Hosting, Upload};
use crate::report::{OutputRecord, SourceRecord};
use crate::source::Spec;

/// Options as `apptainer push` takes them.
#[derive(Debug, Args)]
pub(in crate::cli) struct Push {
    /// The SIF to push, of any maker
    #[arg(value_name = "SIF", value_hint = clap::ValueHint::FilePath)]
    file: OsString,
    /// Where to: oras://HOST/NAME[:TAG]
    #[arg(value_name = "URI")]
    place: OsString,

    /// Speak plain HTTP to the registry
    #[arg(long, alias = "nohttps")]
    no_https: bool,
    /// Logins for registries, in the form of Docker's config.json
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    authfile: Option<PathBuf>,
    /// How many threads may check the file at once [default: as many as this machine runs]
    #[arg(long, short, value_name = "N")]
    jobs: Option<String>,
    /// Write a JSON report, on success and on failure; "-" is standard output
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(in crate::cli) report: Option<OsString>,
    // The heading of a flattened group holds until the next one: what has none comes first.
    #[command(flatten)]
    pub(in crate::cli) meaningless: Meaningless,
    #[command(flatten)]
    registry: RegistryOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// What `apptainer push` needs and this program does not.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted for compatibility with apptainer push, without effect")]
pub(in crate::cli) struct Meaningless {
    /// A signature is pushed where there is one
    #[arg(long, short = 'U')]
    allow_unsigned: bool,
    /// Only for library:// URIs, to which the real program pushes
    #[arg(long, short = 'D', value_name = "TEXT")]
    description: Option<String>,
    /// Only for library:// URIs, to which the real program pushes
    #[arg(long, value_name = "URL")]
    library: Option<String>,
    /// Only for images of an engine
    #[arg(long, value_name = "HOST")]
    docker_host: Option<OsString>,
}

impl Push {
    /// Pushes, and says how it went.
    pub(in crate::cli) fn run(self, given: &Given, words: &[OsString], environment: &Environment, quit: Quit) -> u8 {
        if self.place.as_bytes().starts_with(b"library://") {
            let error = handover::run_real_program(words, environment);
            return session::misuse(error, words, Voice { quiet: self.feedback.quiet, ..Voice::default() });
        }
        Session::record((&self.feedback, self.report.as_deref()), words, environment, quit, |session| {
            let (voice, recorder) = (session.voice, &session.recorder);
            recorder.record(|report| report.source = Some(SourceRecord::of(&self.file, None)));
            let upload = self.resolve(given, environment)?;
            recorder.record(|report| report.source = Some(SourceRecord::of(&self.file, Some(&upload.source))));
            session.supervise(|monitor| {
                let outcome = upload.run(monitor)?;
                let destination = Destination::Registry(Box::new(upload.place.clone()));
                let output = OutputRecord::of("sif", &destination, &outcome);
                recorder.record(|report| {
                    report.output = Some(output.clone());
                    report.notes.extend(outcome.notes.iter().cloned());
                });
                let seconds = recorder.seconds();
                if voice.json {
                    printer::event(&Done { event: "done", output: &output, seconds });
                } else {
                    voice.summary(&pushed(&upload.place, &outcome, seconds));
                }
                Ok(())
            })
        })
    }

    /// Resolves text.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Upload> {
        given.expect("a SIF that is pushed", |id| Ok(!["mirror", "cache"].contains(&id)))?;
        let shown = || usage(format!("{} is not text", Quoted(self.place.as_bytes())), "write oras://HOST/NAME[:TAG]");
        let place: Hosting = self.place.to_str().ok_or_else(shown)?.parse()?;
        let registry = RegistryOptions { no_https: self.no_https, ..self.registry.clone() };
        let environment = registry::with_apptainer_options(environment, self.authfile.as_deref(), None)?;
        let spec = Spec::Oras(place.reference.to_string());
        let settings = registry::settings(&registry, &spec, &environment)?;
        let mut upload = Upload::new(&self.file, place, settings);
        upload.jobs = jobs_of(self.jobs.as_deref(), &environment)?;
        Ok(upload)
    }
}
