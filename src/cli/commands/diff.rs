//! `convert diff A B`: what differs between two images, without unpacking them.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use clap::Args;
use serde::Serialize;

use crate::browse::{Aspect, DiffOptions, Difference, Place, Side, diff};
use crate::cli::environment::Environment;
use crate::cli::looking::{Look, LookOptions};
use crate::cli::options::{Feedback, Given};
use crate::cli::printer::{self, Voice};
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Monitor;
use crate::model::Quoted;
use crate::report::text;

/// As diff(1) ends where there are differences.
const DIFFERENT: u8 = 1;
/// As diff(1) ends where it cannot tell: [`DIFFERENT`] says nothing else.
const TROUBLE: u8 = 2;

/// `convert diff A B`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Diff {
    /// An image, a SIF, a squashfs, a tar or a directory: whatever can be converted
    #[arg(value_name = "A", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) left: OsString,
    /// Another one
    #[arg(value_name = "B", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) right: OsString,
    /// Print JSON instead of lines
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Compare times of last modification too, in whole seconds
    #[arg(long)]
    pub(in crate::cli) times: bool,
    /// Compare what Singularity added to a root, too
    #[arg(long)]
    pub(in crate::cli) keep_singularity: bool,
    #[command(flatten)]
    look: LookOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

impl Diff {
    /// What is compared.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<(Look, Look)> {
        Look::pair((&self.left, &self.right), &self.look, self.keep_singularity, given, environment)
    }
}

/// Compares, and says how it went: 0 for no difference, 1 for some, anything else for trouble.
pub(in crate::cli) fn run(arguments: &Diff, given: &Given, environment: &Environment, quit: Quit) -> u8 {
    let differs = Cell::new(false);
    let code = session::stream(&arguments.feedback, environment, quit, |voice, monitor| {
        let differences = differences(arguments, &arguments.resolve(given, environment)?, monitor)?;
        differs.set(!differences.is_empty());
        print(arguments, &differences, voice)
    });
    match code {
        0 if differs.get() => DIFFERENT,
        DIFFERENT => TROUBLE,
        code => code,
    }
}

fn differences(arguments: &Diff, (left, right): &(Look, Look), monitor: &Monitor) -> Result<Vec<Difference>> {
    let sources = (left.source(monitor)?, right.source(monitor)?);
    let options = DiffOptions::default().times(arguments.times);
    let sides = (
        Side { source: &sources.0, selection: left.selection() },
        Side { source: &sources.1, selection: right.selection() },
    );
    let differences = diff(&sides.0, &sides.1, options, &left.view_options(), monitor)?;
    sources.0.confirm()?;
    sources.1.confirm()?;
    Ok(differences)
}

fn print(arguments: &Diff, differences: &[Difference], voice: Voice) -> Result<()> {
    if arguments.json {
        return printer::data(json((&arguments.left, &arguments.right), differences)?.as_bytes());
    }
    let page: String = differences.iter().map(|difference| line(difference) + "\n").collect();
    printer::data(page.as_bytes())?;
    voice.summary(&summary(differences));
    Ok(())
}

/// One line: `-` for what only the first has, `+` for what only the second has, `~` for what both have.
pub(in crate::cli) fn line(difference: &Difference) -> String {
    let Difference { place, aspect, left, right, names, explanation } = difference;
    let place = match place {
        Place::Path(path) if path.is_empty() => "\".\"".to_string(),
        Place::Path(path) => Quoted(path).to_string(),
        Place::Config(field) => format!("config {field}"),
    };
    let more = if *names > 1 { format!(", {} names", *names) } else { String::new() };
    let text = match (left, right, aspect) {
        (Some(left), None, Aspect::Presence) => format!("- {place} {left}{more}"),
        (None, Some(right), Aspect::Presence) => format!("+ {place} {right}{more}"),
        _ => {
            let (left, right) = (left.as_deref().unwrap_or("none"), right.as_deref().unwrap_or("none"));
            let values = if left == right { left.to_string() } else { format!("{left} -> {right}") };
            format!("~ {place} {}: {values}", aspect.word())
        }
    };
    explanation.map_or(text.clone(), |why| format!("{text} ({why})"))
}

/// How many differences of which kind.
pub(in crate::cli) fn summary(differences: &[Difference]) -> String {
    let names = |of: fn(&Difference) -> bool| -> u64 {
        let presence = |it: &&Difference| it.aspect == Aspect::Presence && matches!(it.place, Place::Path(_));
        differences.iter().filter(presence).filter(|it| of(it)).map(|it| it.names).sum()
    };
    let both = differences.iter().filter(|it| it.aspect != Aspect::Presence && matches!(it.place, Place::Path(_)));
    let both = both.count() as u64;
    let config = differences.iter().filter(|it| matches!(it.place, Place::Config(_))).count() as u64;
    let parts = [
        (names(|it| it.right.is_none()), "only in the first"),
        (names(|it| it.left.is_none()), "only in the second"),
        (both, if both == 1 { "difference in both" } else { "differences in both" }),
        (config, "in the config"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "no differences".to_string() } else { parts.join(", ") }
}

/// The document of `--json`, schema version 1. Every key is always there.
#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    left: String,
    right: String,
    equal: bool,
    differences: Vec<Record<'a>>,
}

/// One difference.
#[derive(Serialize)]
pub(in crate::cli) struct Record<'a> {
    /// What is not UTF-8 is `\xff`; `null` for the config.
    path: Option<String>,
    /// The field of the config.
    field: Option<&'a str>,
    aspect: &'static str,
    left: Option<&'a str>,
    right: Option<&'a str>,
    names: u64,
    explanation: Option<&'a str>,
}

impl<'a> Record<'a> {
    pub(in crate::cli) fn of(difference: &'a Difference) -> Self {
        let (path, field) = match &difference.place {
            Place::Path(path) => (Some(text(OsStr::from_bytes(path))), None),
            Place::Config(field) => (None, Some(field.as_str())),
        };
        Record {
            path,
            field,
            aspect: difference.aspect.word(),
            left: difference.left.as_deref(),
            right: difference.right.as_deref(),
            names: difference.names,
            explanation: difference.explanation,
        }
    }
}

fn json((left, right): (&OsStr, &OsStr), differences: &[Difference]) -> Result<String> {
    let document = Document {
        schema_version: 1,
        left: text(left),
        right: text(right),
        equal: differences.is_empty(),
        differences: differences.iter().map(Record::of).collect(),
    };
    let text = serde_json::to_string_pretty(&document);
    let text = text.map_err(|error| Error::new(ErrorKind::Bug, format!("the list is not JSON: {error}")))?;
    Ok(printer::safe_json(&text) + "\n")
}
