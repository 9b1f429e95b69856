use super::builders::{accessors, builders};
use super::flat::{self, Foresight, Written};
use super::place::Place;
use super::prepared::Task;
use super::{Destination, Format, IfExists, Outcome, Root, sandbox};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::{Monitor, is_stream};

/// A directory that Singularity and Apptainer run and build from (a sandbox): the image's files with all that is expected
/// inside.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Dir {
    /// What goes into the root.
    pub root: Root,
}

builders!(Dir: "With nothing added but what Singularity expects.", root);

impl Format for Dir {
    fn name(&self) -> &'static str {
        "dir"
    }

    fn about(&self) -> &'static str {
        "a directory (sandbox), which Singularity and Apptainer run and build from"
    }

    fn has_digest(&self) -> bool {
        false
    }

    fn suffix(&self) -> String {
        ".dir".to_string()
    }

    accessors!(root: Root);

    fn check(&self, task: &Task) -> Result<()> {
        let usage = |message, hint| Err(Error::new(ErrorKind::Usage, message).hint(hint));
        if let Some(IfExists::Replace) = task.options.if_exists {
            return usage(
                "a directory is never replaced",
                "leave that out: what is there must be removed first, or another place named",
            );
        }
        if task.options.mode.is_some() {
            return usage("a directory has no mode of its own", "leave the mode out: it is that of the image's root");
        }
        Ok(())
    }

    fn open(&self, task: &Task) -> Result<Place> {
        match &task.destination {
            Destination::Path(path) if !is_stream(path) => sandbox::open(path).map(Place::Directory),
            _ => Err(Error::new(ErrorKind::Usage, "a directory cannot be written to a stream")
                .hint("name a directory that does not exist yet")),
        }
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        flat::write(image, place, Foresight::None, false, task, monitor, |mut flattened, place, _| {
            let made = self.root.make(image, &mut flattened, None, task)?;
            let Place::Directory(directory) = place else {
                return Err(Error::new(ErrorKind::Bug, "a directory was opened as a file"));
            };
            let written = sandbox::write(flattened, directory, monitor)?;
            Ok(Written { notes: [made.notes, written.notes].concat(), ..written })
        })
    }
}
