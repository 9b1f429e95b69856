//! Many images, each converted as [`crate::Conversion`] does it.
//!
//! The idea to hold: a batch is a list of [`Entry`]s, each with a file name of its own in one directory, and a record of how
//! each was made (`record`). What a source names now is asked before anything is read (`origin`), and an output that was made
//! of just that is kept. Nothing is remembered elsewhere: a batch that was killed at any moment is run again, and two of them
//! may work in one directory. `list` reads what is wanted, `expand` asks registries for tags, `names` says what outputs are
//! called and refuses two of one name, `work` does it, `summary` tells. Nothing here prints.
//!
//! ```
//! use std::ffi::OsStr;
//! use std::path::Path;
//!
//! use sif_convert::batch::{Batch, Names, Status, Wanted, expand, name};
//! use sif_convert::{Conversion, Monitor, Sif, Spec, Target};
//!
//! # fn main() -> sif_convert::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let outputs = directory.path().join("sifs");
//! let monitor = Monitor::default();
//! let target = Target::from(Sif::new());
//! let make =
//!     |source: &OsStr, output: &Path| Ok(Conversion::new(Spec::parse(source)?, target.clone(), output));
//! let (items, _) = expand(&["fixtures/archives/hello.tar".into()], &make, &monitor)?;
//! let entries = name(items, Names::Plain, &target, &make, &monitor)?;
//! assert_eq!(entries[0].output, "hello.sif");
//!
//! let batch = Batch::new(&entries, &outputs, target.name(), &make);
//! assert_eq!(batch.run(&(), &monitor)?.count(Status::Done), 1);
//! // What is there already is kept.
//! assert_eq!(batch.run(&(), &monitor)?.count(Status::Kept), 1);
//! # Ok(())
//! # }
//! ```

mod expand;
mod list;
mod names;
mod origin;
mod prune;
mod record;
mod store;
mod summary;
#[cfg(test)]
mod tests;
mod work;

pub use expand::expand;
pub use list::{Access, Wanted, What, is_list, read_list, says};
pub use names::{Names, name};
pub use record::{Row, Status, Trouble};
pub use summary::{Summary, table, write_summary};
pub use work::{Batch, Watch};

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use crate::conversion::Conversion;
use crate::error::Result;
use crate::source::Spec;

/// Makes the conversion of a source, as it is written, into a file: with every choice but what to do where that exists.
pub type Make<'a> = dyn Fn(&OsStr, &Path) -> Result<Conversion> + Sync + 'a;

/// A source, and how it is reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Item {
    /// As it is written.
    pub source: OsString,
    /// What that means.
    pub spec: Spec,
    /// What the output is to be called, where the list says so.
    pub name: Option<String>,
    /// Whether the list does not name it, but a repository of which all tags are wanted.
    pub is_tag: bool,
    /// How its registry is reached.
    pub access: Arc<Access>,
    /// Where it is listed, for messages.
    pub place: String,
}

/// An image of a batch.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// Its place in the list, from 1.
    pub number: usize,
    /// The source as it is written.
    pub source: OsString,
    /// What that means.
    pub spec: Spec,
    /// The name of the output in the directory of the batch.
    pub output: String,
    /// Whether the list does not name the source, but a repository of which all tags are wanted.
    pub is_tag: bool,
    /// How its registry is reached.
    pub access: Arc<Access>,
}
