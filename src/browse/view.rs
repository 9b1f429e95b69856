use std::num::NonZeroUsize;
use std::sync::Arc;

use super::layered::Layered;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::image::Image;
use crate::io::Monitor;
use crate::layers::MEMORY_BYTES_MAX;
use crate::model::{Config, Digest, Quoted};
use crate::source::{Selection, Source};
use crate::tree::{InodeId, Kind, Location, Tree};
use crate::volume::Volume;

/// How a source is looked into.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ViewOptions {
    /// How many threads may work at once.
    pub jobs: NonZeroUsize,
    /// How many bytes of memory the names of an image may take.
    pub memory_bytes_max: u64,
}

impl Default for ViewOptions {
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        ViewOptions { jobs, memory_bytes_max: MEMORY_BYTES_MAX }
    }
}

impl ViewOptions {
    /// How many threads may work at once.
    #[must_use]
    pub fn jobs(mut self, jobs: NonZeroUsize) -> Self {
        self.jobs = jobs;
        self
    }

    /// How many bytes of memory the names of an image may take.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: u64) -> Self {
        self.memory_bytes_max = bytes;
        self
    }
}

/// One image or file system that is looked into.
pub struct View {
    pub(super) image: Image,
    pub(super) backing: Backing,
}

pub(super) enum Backing {
    Volume(Arc<Volume>),
    Layered(Layered),
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct LayerInfo {
    /// The source's own name for it.
    pub key: String,
    /// Of the stored bytes.
    pub digest: Option<Digest>,
    /// Of the uncompressed tar.
    pub diff_id: Option<Digest>,
    /// Bytes as stored.
    pub stored_bytes: Option<u64>,
}

impl View {
    /// Looks into one image of `source`, or into the file system that it is. Compressed layers are decoded and verified; of
    /// layers that are not compressed only headers are read.
    ///
    /// # Errors
    /// As [`Source::select`], and as reading the names fails.
    pub fn of(source: &Source, selection: &Selection, options: &ViewOptions, monitor: &Monitor) -> Result<View> {
        let image = source.select(selection)?;
        View::of_image(source, image, options, monitor, &|_| false)
    }

    /// The same of an image that was selected; `wants_sums` says of which layers the contents are summed up on the way.
    pub(super) fn of_image(
        source: &Source,
        image: Image,
        options: &ViewOptions,
        monitor: &Monitor,
        wants_sums: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<View> {
        let backing = match source.volume() {
            Some(volume) => Backing::Volume(Arc::clone(volume)),
            None => Backing::Layered(Layered::read(&image, options, monitor, wants_sums)?),
        };
        Ok(View { image, backing })
    }

    /// All names.
    pub fn tree(&self) -> &Tree {
        match &self.backing {
            Backing::Volume(volume) => &volume.tree,
            Backing::Layered(layered) => &layered.tree,
        }
    }

    /// How it runs.
    pub fn config(&self) -> &Config {
        &self.image.config
    }

    /// What the user should know about the source.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.image.warnings.clone();
        for text in self.image.blobs.warnings() {
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        warnings
    }

    /// The layers, lowest first; none where it is not an image of layers.
    pub fn layers(&self) -> Vec<LayerInfo> {
        if matches!(self.backing, Backing::Volume(_)) {
            return Vec::new();
        }
        let of = |layer: &crate::image::Layer| LayerInfo {
            key: layer.blob.key.clone(),
            digest: layer.blob.digest,
            diff_id: layer.diff_id,
            stored_bytes: layer
                .blob
                .size
                .or_else(|| self.image.blobs.region(&layer.blob).ok().flatten().map(|region| region.len)),
        };
        self.image.layers.iter().map(of).collect()
    }

    /// The layer that a name is from, counted from 1; `None` where it is not an image of layers.
    pub(super) fn layer_number(&self, layer: u32) -> Option<u32> {
        let has_layers = matches!(self.backing, Backing::Layered(_)) && !self.image.layers.is_empty();
        has_layers.then(|| layer.saturating_add(1))
    }

    /// Hands the contents of the regular file at `path` to `each`, holes as zeros. Symlinks are followed inside of the
    /// root. The layer that they come from is verified before.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when there is no such file, or it is something else; as reading or `each` fails.
    pub fn read(&self, path: &[u8], monitor: &Monitor, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let found = self.find(path, true)?;
        let inode = found.inode;
        let what = match &self.tree().inode(inode).kind {
            Kind::File(_) => return self.read_file(inode, monitor, &mut each).doing(|| Quoted(path).to_string()),
            Kind::Directory(_) => "a directory",
            Kind::Symlink(_) => "a symbolic link",
            Kind::Fifo => "a named pipe",
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => "a device",
        };
        Err(Error::new(ErrorKind::SourceUnavailable, format!("{} is {what}, not a file", Quoted(path)))
            .hint("name a regular file"))
    }

    /// The sum of the contents of a regular file.
    pub(super) fn content_sum(&self, inode: InodeId, monitor: &Monitor) -> Result<Digest> {
        match &self.backing {
            Backing::Volume(volume) => volume.content_sum(inode),
            Backing::Layered(layered) => layered.content_sum(&self.image, inode, monitor),
        }
    }

    /// A place in a layer that was verified, by the digest of that; two of them that are equal hold the same.
    pub(super) fn verified_place(&self, location: Location) -> Option<(Digest, u64)> {
        let Backing::Layered(layered) = &self.backing else { return None };
        let index = location.file.0 as usize;
        let diff_id = self.image.layers.get(index)?.diff_id?;
        layered.is_decoded(index).then_some((diff_id, location.offset))
    }

    /// Checks that a directory is still what was looked at.
    pub(super) fn expect_unchanged(&self) -> Result<()> {
        match &self.backing {
            Backing::Volume(volume) => volume.expect_unchanged(),
            Backing::Layered(_) => Ok(()),
        }
    }

    fn read_file(&self, inode: InodeId, monitor: &Monitor, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match &self.backing {
            Backing::Volume(volume) => volume.for_each_chunk(inode, |bytes| {
                monitor.check()?;
                each(bytes)
            }),
            Backing::Layered(layered) => layered.read_file(&self.image, inode, monitor, each),
        }
    }
}
