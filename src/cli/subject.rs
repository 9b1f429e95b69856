//! What `inspect` and `verify` look at.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::environment::Environment;
use super::options::{Choice, Given, open_options, selection, source};
use super::registry::{self, RegistryOptions};
use crate::error::Result;
use crate::output;
use crate::source::{InputHash, OpenOptions, Selection, Spec};

/// A source, or a SIF, which is looked at by itself rather than as the image that could be made of it.
#[derive(Debug)]
pub(super) enum Subject {
    /// The SIF at this path.
    Sif(PathBuf),
    /// A source, how it is opened, and which image is meant.
    Source(Box<(Spec, OpenOptions, Selection)>),
}

impl Subject {
    /// What `word` and the options mean. `want_layers` says whether layers will be read.
    pub(super) fn resolve(
        word: &OsStr,
        (choice, registry): (&Choice, &RegistryOptions),
        (want_layers, hash): (bool, InputHash),
        given: &Given,
        environment: &Environment,
    ) -> Result<Self> {
        let spec = source(word, environment)?;
        let selection = selection(choice)?;
        registry::expect_registry(given, &spec, false)?;
        if let Spec::Path(path) = &spec
            && output::is_sif(path)
        {
            given.expect("a SIF", |id| Ok(!Choice::IDS.contains(&id)))?;
            return Ok(Subject::Sif(path.clone()));
        }
        let registry = registry::settings(registry, &spec, environment)?;
        let options = OpenOptions { registry, hash, ..open_options(choice, want_layers, environment)? };
        Ok(Subject::Source(Box::new((spec, options, selection))))
    }
}
