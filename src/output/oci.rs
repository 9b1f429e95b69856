use super::builders::{accessors, builders};
#[cfg(feature = "network")]
use super::hosted::Hosted;
use super::options::expect_names_of_registry;
use super::package::{Layout, Packing, pack};
#[cfg(feature = "network")]
use super::package::{MediaTypes, push};
use super::place::Place;
use super::prepared::Task;
use super::{Destination, Format, IfExists, ImageOptions, Outcome, Transport};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::image::Image;
use crate::io::{Compression, Levels, Monitor, is_stream};

/// An OCI image layout directory, new or with other images in it already.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Oci {
    /// How layers are compressed that are not compressed yet; `None` leaves them as they are.
    pub compression: Option<Compression>,
    /// What becomes of its layers, and what it is called.
    pub image: ImageOptions,
}

builders!(Oci: "Layers as they are, names as in the source.", compression, image);

impl Format for Oci {
    fn name(&self) -> &'static str {
        "oci"
    }

    fn about(&self) -> &'static str {
        "an OCI layout directory; the image is added where there is one"
    }

    fn suffix(&self) -> String {
        ".oci".to_string()
    }

    accessors!(compression: Option<Compression>, image: ImageOptions);

    fn transport(&self) -> Option<Transport> {
        Some(Transport::Docker)
    }

    fn check(&self, task: &Task) -> Result<()> {
        Levels::LAYER.settle(self.compression)?;
        let usage = |message, hint| Err(Error::new(ErrorKind::Usage, message).hint(hint));
        if matches!(task.destination, Destination::Registry(_)) {
            return expect_names_of_registry(&self.image);
        }
        if let Some(IfExists::Replace) = task.options.if_exists {
            return usage(
                "an OCI layout is never replaced",
                "leave that out: the image is added, and its tag moves to it",
            );
        }
        if task.options.mode.is_some() {
            return usage("an OCI layout has no mode of its own", "leave the mode out: the umask says who may read");
        }
        Ok(())
    }

    fn open(&self, task: &Task) -> Result<Place> {
        match &task.destination {
            #[cfg(feature = "network")]
            Destination::Registry(hosting) => Ok(Place::Hosted(Box::new(Hosted::of_parts(hosting)))),
            Destination::Path(path) if !is_stream(path) => Layout::open(path, task).map(Place::Layout),
            _ => Err(Error::new(ErrorKind::Usage, "an OCI layout is a directory").with_remedy(Remedy::OutputDirectory)),
        }
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let compression = Levels::LAYER.settle(self.compression)?;
        let packing = Packing { image: &self.image, compression, keeps_compressed: true, in_place: None };
        #[cfg(feature = "network")]
        if let Place::Hosted(_) = place {
            return push(image, &packing, MediaTypes::Oci, &place, task, monitor);
        }
        let packed = pack(image, &packing, &place, task, monitor)?;
        match place {
            Place::Layout(layout) => packed.write_layout(layout, image, monitor),
            _ => Err(Error::new(ErrorKind::Bug, "an OCI layout was opened as a file")),
        }
    }
}
