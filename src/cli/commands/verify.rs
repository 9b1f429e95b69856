//! `convert verify FILE`: is it whole?

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;

use crate::cli::args::{Choice, Feedback};
use crate::cli::environment::Environment;
use crate::cli::job;
use crate::cli::open::{self, OpenOptions};
use crate::cli::printer::{Grouped, Voice};
use crate::cli::registry::{self, RegistryOptions};
use crate::error::Result;
use crate::io::Monitor;
use crate::model::Quoted;
use crate::output;

/// `convert verify FILE`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// A SIF of any maker, a docker-archive, an OCI archive or an OCI layout directory; "-" is an archive from
    /// standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) file: OsString,
    #[command(flatten)]
    pub(in crate::cli) choice: Choice,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// What is printed when nothing is wrong.
pub(in crate::cli) fn page(
    arguments: &Verify,
    environment: &Environment,
    voice: Voice,
    monitor: &Monitor,
) -> Result<String> {
    let path = Path::new(&arguments.file);
    let name = match arguments.file.as_encoded_bytes() {
        b"-" => "standard input".to_string(),
        bytes => Quoted(bytes).to_string(),
    };
    if arguments.file != "-" && output::is_sif(path) {
        let whole = output::verify_sif(path, environment.parallelism, monitor)?;
        whole.notes.iter().for_each(|note| voice.warning(note));
        let (names, blocks) = (Grouped(whole.names), Grouped(whole.blocks));
        let image = whole.image.map_or_else(String::new, |image| format!(", made from image {image}"));
        return Ok(format!("{name} is whole: {names} names, {blocks} blocks{image}\n"));
    }
    let spec = job::source(&arguments.file, environment)?;
    let registry = registry::settings(&RegistryOptions::default(), &spec, environment)?;
    let options = OpenOptions { registry, ..job::open_options(&arguments.choice, true, environment)? };
    let source = open::open(&spec, &options, monitor)?;
    let mut page = String::new();
    for position in 0..source.images().len() {
        if source.images()[position].absent.is_some() {
            continue;
        }
        let image = source.select_at(position)?;
        let layers = output::verify_layers(&image, environment.parallelism, monitor)?;
        let _ = writeln!(page, "{name}: image {} is whole: {} layers", image.id(), layers.len());
    }
    Ok(page)
}
