use super::builders::{accessors, builders};
#[cfg(feature = "network")]
use super::hosted::Hosted;
use super::options::expect_names_of_registry;
#[cfg(feature = "network")]
use super::package::{MediaTypes, push};
use super::package::{Packing, foresee, pack};
use super::place::Place;
use super::prepared::Task;
use super::{Destination, Format, ImageName, ImageOptions, Outcome, Transport};
use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::image::Image;
use crate::io::{Codec, Compression, Levels, Monitor};

/// A tar that `docker load` takes. Its layers are never compressed, for old engines read only such.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DockerArchive {
    /// How the tar is compressed as a whole; `None` is as its name says.
    pub compression: Option<Compression>,
    /// What becomes of its layers, and what it is called.
    pub image: ImageOptions,
}

builders!(DockerArchive: "Layers as they are, names as in the source.", compression, image);

impl Format for DockerArchive {
    fn name(&self) -> &'static str {
        "docker-archive"
    }

    fn about(&self) -> &'static str {
        "a tar that docker load takes"
    }

    fn suffix(&self) -> String {
        format!(".docker.tar{}", self.compression.map_or("", Compression::suffix))
    }

    accessors!(compression: Option<Compression>, image: ImageOptions);

    fn image_name(&self, text: &str) -> Result<ImageName> {
        ImageName::parse_full(text)
    }

    fn transport(&self) -> Option<Transport> {
        Some(Transport::Docker)
    }

    fn check(&self, task: &Task) -> Result<()> {
        if matches!(task.destination, Destination::Registry(_)) {
            let compression = Levels::LAYER.settle(self.compression)?;
            if compression.kind() == Codec::Zstd {
                let message = "layers compressed with zstd have no name in Docker's manifests";
                return Err(Error::new(ErrorKind::Usage, message).with_remedy(Remedy::OtherCompression));
            }
            return expect_names_of_registry(&self.image);
        }
        task.whole(self.compression, &Levels::TAR).map(drop)
    }

    #[cfg(feature = "network")]
    fn open(&self, task: &Task) -> Result<Place> {
        match &task.destination {
            Destination::Registry(hosting) => Ok(Place::Hosted(Box::new(Hosted::of_parts(hosting)))),
            _ => Place::open(task),
        }
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        #[cfg(feature = "network")]
        if let Place::Hosted(_) = place {
            // Engines that are too old for compressed layers are too old for registries, too.
            let compression = Levels::LAYER.settle(self.compression)?;
            let packing = Packing { image: &self.image, compression, keeps_compressed: true, in_place: None };
            return push(image, &packing, MediaTypes::Docker, &place, task, monitor);
        }
        let whole = task.whole(self.compression, &Levels::TAR)?;
        let packing =
            Packing { image: &self.image, compression: Compression::NONE, keeps_compressed: false, in_place: None };
        let in_place = foresee(image, &packing, (&place, whole), task)?;
        let packing = Packing { in_place, ..packing };
        pack(image, &packing, &place, task, monitor)?.write_docker(place, whole, image, task, monitor)
    }
}
