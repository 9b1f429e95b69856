//! `convert verify FILE`: is it intact?

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use clap::Args;

use crate::cli::environment::Environment;
use crate::cli::options::{Choice, Feedback, Given};
use crate::cli::printer::{Grouped, Voice};
use crate::cli::registry::RegistryOptions;
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::cli::subject::Subject;
use crate::error::Result;
use crate::image::Image;
use crate::io::Monitor;
use crate::model::Quoted;
use crate::output;
use crate::source::{self as sources, OpenOptions, Selection};

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

impl Verify {
    /// What is verified.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Subject> {
        let options = (&self.choice, &RegistryOptions::default());
        Subject::resolve(&self.file, options, (true, OpenOptions::default().hash), given, environment)
    }
}

/// Verifies, and says how it went.
pub(in crate::cli) fn run(arguments: &Verify, given: &Given, environment: &Environment, quit: Quit) -> u8 {
    session::page(&arguments.feedback, environment, quit, |voice, monitor| {
        page(arguments, given, environment, voice, monitor)
    })
}

/// What is printed when nothing is wrong.
fn page(
    arguments: &Verify,
    given: &Given,
    environment: &Environment,
    voice: Voice,
    monitor: &Monitor,
) -> Result<String> {
    let name = match arguments.file.as_encoded_bytes() {
        b"-" => "standard input".to_string(),
        bytes => Quoted(bytes).to_string(),
    };
    let (spec, options, selection) = match arguments.resolve(given, environment)? {
        Subject::Source(source) => *source,
        Subject::Sif(path) => return sif(&name, &path, environment, voice, monitor),
    };
    let source = sources::open(&spec, &options, monitor)?;
    let images = source.images();
    let present = (0..images.len()).filter(|&position| images[position].absent.is_none());
    let chosen: Vec<Image> = if selection == Selection::default() && spec.image().is_none() {
        present.map(|position| source.select_at(position)).collect::<Result<_>>()?
    } else {
        vec![source.select(&selection)?]
    };
    let mut page = String::new();
    for image in &chosen {
        let layers = output::verify_layers(image, environment.parallelism, monitor)?;
        let _ = writeln!(page, "{name}: image {} is whole: {} layers", image.id(), layers.len());
    }
    Ok(page)
}

/// A SIF says whole of itself whether it is.
fn sif(name: &str, path: &Path, environment: &Environment, voice: Voice, monitor: &Monitor) -> Result<String> {
    let whole = output::verify_sif(path, environment.parallelism, monitor)?;
    whole.notes.iter().for_each(|note| voice.warning(note));
    let (names, blocks) = (Grouped(whole.names), Grouped(whole.blocks));
    let image = whole.image.map_or_else(String::new, |image| format!(", made from image {image}"));
    Ok(format!("{name} is whole: {names} names, {blocks} blocks{image}\n"))
}
