//! `convert cat SOURCE PATH`: the bytes of files, without unpacking what they are in.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use clap::Args;

use crate::cli::environment::Environment;
use crate::cli::looking::{Look, LookOptions};
use crate::cli::options::{Feedback, Given};
use crate::cli::printer;
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::error::Result;

/// `convert cat SOURCE PATH...`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cat {
    /// An image, a SIF, a squashfs, a tar or a directory: whatever can be converted
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) source: OsString,
    /// Files inside of it; symbolic links are followed
    #[arg(value_name = "PATH", required = true)]
    pub(in crate::cli) paths: Vec<OsString>,
    #[command(flatten)]
    look: LookOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

impl Cat {
    /// What is read from.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Look> {
        Look::resolve(&self.source, &self.look, true, given, environment)
    }
}

/// Writes the bytes, and says how it went.
pub(in crate::cli) fn run(arguments: &Cat, given: &Given, environment: &Environment, quit: Quit) -> u8 {
    session::stream(&arguments.feedback, environment, quit, |_, monitor| {
        let look = arguments.resolve(given, environment)?;
        let source = look.source(monitor)?;
        let view = look.view(&source, monitor)?;
        source.confirm()?;
        arguments.paths.iter().try_for_each(|path| view.read(path.as_bytes(), monitor, printer::data))
    })
}
