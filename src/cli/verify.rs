//! `convert verify FILE`: is it whole?

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;

use super::args::{Choice, Feedback};
use super::environment::Environment;
use super::job;
use super::open::{self, OpenOptions};
use super::printer::{Grouped, Voice};
use super::registry::{self, RegistryOptions};
use crate::error::Result;
use crate::io::Monitor;
use crate::model::Quoted;
use crate::target;

/// `convert verify FILE`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// A SIF of any maker, a docker-archive, an OCI archive or an OCI layout directory; "-" is an archive from
    /// standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    pub(super) file: OsString,
    #[command(flatten)]
    pub(super) choice: Choice,
    #[command(flatten)]
    pub(super) feedback: Feedback,
}

/// What is printed when nothing is wrong.
pub(super) fn page(arguments: &Verify, environment: &Environment, voice: Voice, monitor: &Monitor) -> Result<String> {
    let path = Path::new(&arguments.file);
    let name = match arguments.file.as_encoded_bytes() {
        b"-" => "standard input".to_string(),
        bytes => Quoted(bytes).to_string(),
    };
    if arguments.file != "-" && target::is_sif(path) {
        let whole = target::verify_sif(path, environment.parallelism, monitor)?;
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
        let layers = target::verify_layers(&image, environment.parallelism, monitor)?;
        let _ = writeln!(page, "{name}: image {} is whole: {} layers", image.id(), layers.len());
    }
    Ok(page)
}
