use super::builders::{accessors, builders};
use super::flat::{self, Foresight};
use super::place::Place;
use super::prepared::Task;
use super::{Format, Outcome, tarball};
use crate::error::Result;
use crate::image::Image;
use crate::io::{Codec, Compression, Levels, Monitor};

/// One flattened tar: the image's files and nothing else.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Rootfs {
    /// How the tar is compressed; `None` is as its name says.
    pub compression: Option<Compression>,
}

builders!(Rootfs: "Compressed as its name says.", compression);

impl Format for Rootfs {
    fn name(&self) -> &'static str {
        "rootfs"
    }

    fn about(&self) -> &'static str {
        "one flattened tar, the image's files and nothing else"
    }

    fn suffix(&self) -> String {
        format!(".rootfs.tar{}", self.compression.map_or("", Compression::suffix))
    }

    accessors!(compression: Option<Compression>);

    fn check(&self, task: &Task) -> Result<()> {
        task.whole(self.compression, &Levels::TAR).map(drop)
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let compression = task.whole(self.compression, &Levels::TAR)?;
        let foresight = if compression.kind() == Codec::None { Foresight::Tar(None) } else { Foresight::None };
        flat::write(image, place, foresight, false, task, monitor, |flattened, place, _| {
            tarball::write_output(flattened, place, compression, task, monitor)
        })
    }
}
