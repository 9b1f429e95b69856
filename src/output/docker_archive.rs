use super::package::{Packing, pack};
use super::place::Place;
use super::prepared::Task;
use super::{Format, ImageName, ImageOptions, Outcome};
use crate::error::Result;
use crate::image::Image;
use crate::io::{Compression, Levels, Monitor};

/// A tar that `docker load` takes. Its layers are never compressed, for old engines read only such.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DockerArchive {
    /// How the tar is compressed as a whole; `None` is as its name says.
    pub compression: Option<Compression>,
    /// What becomes of its layers, and what it is called.
    pub image: ImageOptions,
}

impl DockerArchive {
    /// Layers as they are, names as in the source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses the compression.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Makes one layer of all.
    #[must_use]
    pub fn flatten(mut self) -> Self {
        self.image.flatten = true;
        self
    }

    /// Calls the image `name`, besides other names that are given.
    #[must_use]
    pub fn tag(mut self, name: ImageName) -> Self {
        self.image.tags.push(name);
        self
    }
}

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

    fn compression(&mut self) -> Option<&mut Option<Compression>> {
        Some(&mut self.compression)
    }

    fn image(&mut self) -> Option<&mut ImageOptions> {
        Some(&mut self.image)
    }

    fn image_name(&self, text: &str) -> Result<ImageName> {
        ImageName::parse_full(text)
    }

    fn check(&self, task: &Task) -> Result<()> {
        task.whole(self.compression, &Levels::TAR).map(drop)
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let whole = task.whole(self.compression, &Levels::TAR)?;
        let packing = Packing { image: &self.image, compression: Compression::NONE, keeps_compressed: false };
        pack(image, &packing, &place, task, monitor)?.write_docker(place, whole, image, task, monitor)
    }
}
