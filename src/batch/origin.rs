//! What a source names now, as text that is another one when that is another image.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Access;
use crate::error::Result;
use crate::io::Monitor;
use crate::model::Digest;
use crate::registry;
use crate::source::{OpenOptions, Spec, engine_image};

/// What `spec` names now, as cheaply as it can be told: one request to a registry or engine, one look at a file. `None` where
/// only reading all of it would tell.
///
/// # Errors
/// Whatever asking a registry or an engine fails with.
pub(super) fn now(spec: &Spec, access: &Access, open: &OpenOptions, monitor: &Monitor) -> Result<Option<String>> {
    match spec {
        Spec::Registry(name) => {
            let mut settings = open.registry.clone();
            access.apply(spec, &mut settings)?;
            registry::digest_of(&name.parse()?, &settings, monitor).map(|digest| Some(digest.to_string()))
        }
        Spec::DockerDaemon(word) => engine_image(word, &open.engine, monitor),
        Spec::Stdin | Spec::Web(_) | Spec::Oras(_) => Ok(None),
        // Why it cannot be read is told by who reads it.
        _ => Ok(spec.path().and_then(|path| of_path(path).ok().flatten())),
    }
}

fn of_path(path: &Path) -> io::Result<Option<String>> {
    let found = fs::metadata(path)?;
    if found.is_file() {
        return Ok(Some(format!("file {}", state_of(&found))));
    }
    // A layout is what its index says, for all else in it has its digest as name. The files of a root have none.
    match fs::read(path.join("index.json")) {
        Ok(index) => Ok(Some(format!("layout {}", Digest::of(&index)))),
        Err(_) => Ok(None),
    }
}

/// What is another one after every change of a file: nobody can set the time of change back. The device is left out, for a
/// shared file system has another number on each machine.
fn state_of(found: &fs::Metadata) -> String {
    let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
    format!(
        "{} bytes, inode {}, modified {}.{:09}, changed {}.{:09}",
        found.size(),
        found.ino(),
        modified.0,
        modified.1,
        changed.0,
        changed.1
    )
}

/// The same of an output.
pub(super) fn of_output(path: &Path) -> Option<String> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|found| state_of(&found))
}
