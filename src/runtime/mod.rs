//! What runtimes that mount a squashfs, other than Singularity, expect inside a root: enroot (with pyxis) and Charliecloud.
//!
//! The idea to hold: the image's config becomes a handful of small files. What those files cannot hold is named in a note.
//! Names are resolved inside the tree, and an inode of the image is never changed in place: it may have other names.

mod charliecloud;
mod enroot;
mod site;

use std::fmt;
use std::str::FromStr;

use self::site::Site;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::model::{Config, Note, Timestamp};
use crate::tree::Tree;

/// What a squashfs is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Runtime {
    /// Nobody in particular: the image's files and nothing else.
    #[default]
    Plain,
    /// enroot, and pyxis: `/etc/rc`, `/etc/rc.local`, `/etc/environment`, `/etc/fstab`, and all belongs to root.
    Enroot,
    /// Charliecloud: `/ch/environment`, `/ch/metadata.json` and the places that it mounts to.
    Charliecloud,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Runtime; 3] = [Runtime::Plain, Runtime::Enroot, Runtime::Charliecloud];

    /// Whether what it adds says this of how the image runs: `entrypoint`, `cmd`, `env`, `user`, `workdir` or `label`.
    pub fn keeps(self, what: &str) -> bool {
        match self {
            Runtime::Plain => false,
            // enroot runs as whoever calls it, and knows no labels.
            Runtime::Enroot => !matches!(what, "user" | "label"),
            Runtime::Charliecloud => true,
        }
    }

    /// Its name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Plain => "plain",
            Runtime::Enroot => "enroot",
            Runtime::Charliecloud => "charliecloud",
        }
    }

    /// What its files end in.
    pub fn suffix(self) -> &'static str {
        match self {
            Runtime::Plain => ".squashfs",
            Runtime::Enroot => ".sqsh",
            Runtime::Charliecloud => ".sqfs",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Runtime {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Runtime::ALL.into_iter().find(|runtime| runtime.name() == text).ok_or_else(|| {
            let names = Runtime::ALL.map(Runtime::name).join(", ");
            Error::new(ErrorKind::Usage, format!("{text:?} is not a runtime")).hint(format!("write one of {names}"))
        })
    }
}

/// Adds to `tree` what `runtime` expects. What is made has the time `time`.
///
/// # Errors
/// [`ErrorKind::InvalidImage`] when the image has something in the way that cannot be replaced, or a config that is not one.
pub(crate) fn prepare(tree: &mut Tree, config: &Config, runtime: Runtime, time: Timestamp) -> Result<Vec<Note>> {
    let mut site = Site::new(tree, time);
    match runtime {
        Runtime::Plain => return Ok(Vec::new()),
        Runtime::Enroot => enroot::prepare(&mut site, config),
        Runtime::Charliecloud => charliecloud::prepare(&mut site, config),
    }
    .doing(|| format!("preparing the root for {runtime}"))?;
    Ok(site.into_notes())
}
