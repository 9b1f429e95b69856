//! What the commands that look into a source have in common.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::Path;

use clap::Args;

use super::encryption::DecryptionOptions;
use super::environment::Environment;
use super::options::{Choice, Given, open_options, selection, source};
use super::registry::{self, RegistryOptions};
use super::values::{jobs_of, memory_bytes, usage};
use crate::browse::{View, ViewOptions};
use crate::error::Result;
use crate::gocryptfs::Secret;
use crate::io::Monitor;
use crate::source::{self as sources, OpenOptions, Selection, Source, Spec, is_encrypted};

/// How much a look may cost.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct Limits {
    /// How many threads may work at once [default: as many as this machine runs]
    #[arg(long, short, value_name = "N")]
    jobs: Option<String>,
    /// Refuse an image whose list of files takes more memory than this [default: 2G]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
}

/// What the commands take beside sources.
#[derive(Debug, Default, Args)]
pub(super) struct LookOptions {
    #[command(flatten)]
    pub(super) choice: Choice,
    #[command(flatten)]
    pub(super) registry: RegistryOptions,
    #[command(flatten)]
    pub(super) decryption: DecryptionOptions,
    #[command(flatten)]
    pub(super) limits: Limits,
}

/// One source to look into, with every choice made.
#[derive(Debug)]
pub(super) struct Look {
    spec: Spec,
    open: OpenOptions,
    selection: Selection,
    jobs: NonZeroUsize,
    memory_bytes_max: u64,
}

impl Look {
    /// What `word` and the options mean. What Singularity added to a root stays in sight where it is `raw`.
    pub(super) fn resolve(
        word: &OsStr,
        options: &LookOptions,
        raw: bool,
        given: &Given,
        environment: &Environment,
    ) -> Result<Self> {
        let spec = source(word, environment)?;
        registry::expect_registry(given, &spec, false)?;
        Look::of(spec, options, options.decryption.secret()?, raw, environment)
    }

    /// Two sources. Options about registries are for whichever of them is on one.
    pub(super) fn pair(
        (left, right): (&OsStr, &OsStr),
        options: &LookOptions,
        raw: bool,
        given: &Given,
        environment: &Environment,
    ) -> Result<(Self, Self)> {
        let specs = (source(left, environment)?, source(right, environment)?);
        if specs.0 == Spec::Stdin && specs.1 == Spec::Stdin {
            return Err(usage("both sources are standard input", "name a file as one of them"));
        }
        registry::expect_registry(given, &specs.0, false)
            .or_else(|_| registry::expect_registry(given, &specs.1, false))?;
        // Where one alone is encrypted, the key is for that one; where none is, opening the first says so.
        let (left, right) = (is_encrypted(&specs.0), is_encrypted(&specs.1));
        let secret = options.decryption.secret()?;
        let for_left = secret.clone().filter(|_| left || !right);
        let for_right = secret.filter(|_| right);
        Ok((
            Look::of(specs.0, options, for_left, raw, environment)?,
            Look::of(specs.1, options, for_right, raw, environment)?,
        ))
    }

    fn of(
        spec: Spec,
        options: &LookOptions,
        secret: Option<Secret>,
        raw: bool,
        environment: &Environment,
    ) -> Result<Self> {
        let LookOptions { choice, registry, limits, .. } = options;
        let jobs = jobs_of(limits.jobs.as_deref(), environment)?;
        let open = OpenOptions {
            registry: registry::settings(registry, &spec, environment)?,
            jobs: Some(jobs),
            secret,
            keep_singularity: raw,
            ..open_options(choice, true, environment)?
        };
        let memory_bytes_max = memory_bytes(limits.max_memory.as_deref())?;
        Ok(Look { spec, open, selection: selection(choice)?, jobs, memory_bytes_max })
    }

    /// Opens the source.
    pub(super) fn source(&self, monitor: &Monitor) -> Result<Source> {
        sources::open(&self.spec, &self.open, monitor)
    }

    /// Looks into the image or file system.
    pub(super) fn view(&self, source: &Source, monitor: &Monitor) -> Result<View> {
        View::of(source, &self.selection, &self.view_options(), monitor)
    }

    /// Which image of it.
    pub(super) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// How it is looked into.
    pub(super) fn view_options(&self) -> ViewOptions {
        ViewOptions::default().jobs(self.jobs).memory_bytes_max(self.memory_bytes_max)
    }

    /// Where temporary files go.
    pub(super) fn tmpdir(&self) -> &Path {
        &self.open.tmpdir
    }

    /// What the source is, as it was named.
    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }
}
