use super::builders::{accessors, builders};
use super::flat::{self, Foresight, Written};
use super::place::Place;
use super::prepared::Task;
use super::{Format, Outcome, Root, tarball};
use crate::error::Result;
use crate::image::Image;
use crate::io::{Codec, Compression, Levels, Monitor};

/// One flattened tar with all that Singularity and Apptainer expect inside.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SifRootfs {
    /// How the tar is compressed; `None` is as its name says.
    pub compression: Option<Compression>,
    /// What goes into the root.
    pub root: Root,
}

builders!(SifRootfs: "Compressed as its name says.", compression, root);

impl Format for SifRootfs {
    fn name(&self) -> &'static str {
        "sif-rootfs"
    }

    fn about(&self) -> &'static str {
        "one flattened tar with all that Singularity expects inside"
    }

    fn suffix(&self) -> String {
        format!(".sif-rootfs.tar{}", self.compression.map_or("", Compression::suffix))
    }

    accessors!(compression: Option<Compression>, root: Root);

    fn check(&self, task: &Task) -> Result<()> {
        task.whole(self.compression, &Levels::TAR).map(drop)
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let compression = task.whole(self.compression, &Levels::TAR)?;
        let is_plain = compression.kind() == Codec::None;
        let foresight = if is_plain { Foresight::Tar(Some(&self.root)) } else { Foresight::None };
        flat::write(image, place, foresight, false, task, monitor, |mut flattened, place, _| {
            let made = self.root.make(image, &mut flattened, None, task)?;
            let written = tarball::write_output(flattened, place, compression, task, monitor)?;
            Ok(Written { notes: made.notes, ..written })
        })
    }
}
