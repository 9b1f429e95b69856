use super::builders::{accessors, builders};
use super::package::{Packing, pack};
use super::place::Place;
use super::prepared::Task;
use super::{Format, ImageOptions, Outcome};
use crate::error::Result;
use crate::image::Image;
use crate::io::{Compression, Levels, Monitor};

/// An OCI image layout in one tar.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OciArchive {
    /// How layers are compressed that are not compressed yet; `None` leaves them as they are.
    pub compression: Option<Compression>,
    /// What becomes of its layers, and what it is called.
    pub image: ImageOptions,
}

builders!(OciArchive: "Layers as they are, names as in the source.", compression, image);

impl Format for OciArchive {
    fn name(&self) -> &'static str {
        "oci-archive"
    }

    fn about(&self) -> &'static str {
        "the same as one tar"
    }

    fn suffix(&self) -> String {
        ".oci.tar".to_string()
    }

    accessors!(compression: Option<Compression>, image: ImageOptions);

    fn check(&self, _task: &Task) -> Result<()> {
        Levels::LAYER.settle(self.compression).map(drop)
    }

    /// The option speaks of layers, a name always of the file.
    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let compression = Levels::LAYER.settle(self.compression)?;
        let whole = task.whole(None, &Levels::TAR)?;
        let packing = Packing { image: &self.image, compression, keeps_compressed: true, in_place: None };
        pack(image, &packing, &place, task, monitor)?.write_oci(place, whole, image, task, monitor)
    }
}
