use std::ffi::OsString;
use std::sync::Arc;

use super::builders::{accessors, builders};
use super::flat::{self, BlockChoice, Foresight, Written};
use super::place::Place;
use super::prepared::Task;
use super::{Format, Outcome, file_system, name, policy};
use crate::error::Result;
use crate::image::Image;
use crate::io::{Compression, Monitor};
use crate::runtime::{self, Runtime};
use crate::source::Spec;
use crate::squashfs::FileStore;

/// A squashfs: the image's files and nothing else, as a file system to mount.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Squashfs {
    /// How blocks are compressed; `None` is gzip.
    pub compression: Option<Compression>,
    /// Bytes in a data block, a power of two from 4 KiB to 1 MiB; `None` is 128 KiB.
    pub block_size: Option<u32>,
    /// What it is made for.
    pub runtime: Runtime,
}

builders!(Squashfs: "Compressed with gzip.", compression, block_size);

impl Squashfs {
    /// Adds what a runtime expects inside.
    #[must_use]
    pub fn runtime(mut self, runtime: Runtime) -> Self {
        self.runtime = runtime;
        self
    }
}

impl Format for Squashfs {
    fn name(&self) -> &'static str {
        "squashfs"
    }

    fn about(&self) -> &'static str {
        "a file system to mount, the image's files and nothing else"
    }

    fn suffix(&self) -> String {
        self.runtime.suffix().to_string()
    }

    fn default_name(&self, source: &Spec) -> Option<OsString> {
        let suffix = self.suffix();
        match self.runtime {
            Runtime::Enroot => name::of_enroot(source, &suffix),
            _ => name::of_output(source, &suffix),
        }
    }

    accessors!(runtime: Runtime, compression: Option<Compression>, block_size: Option<u32>);

    fn keeps_work(&self) -> bool {
        true
    }

    fn check(&self, task: &Task) -> Result<()> {
        file_system::options(self.compression, self.block_size, Default::default(), task).map(drop)
    }

    fn open(&self, task: &Task) -> Result<Place> {
        let place = Place::open(task)?;
        place.expect_file("a squashfs")?;
        Ok(place)
    }

    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome> {
        let options = file_system::options(self.compression, self.block_size, task.made_at(image), task)?;
        let choice = BlockChoice { options: &options, any_level: file_system::is_any_level(self.compression) };
        flat::write(image, place, Foresight::Blocks(choice), false, task, monitor, |mut flattened, place, reuse| {
            let mut all = runtime::prepare(&mut flattened.tree, &image.config, self.runtime, task.made_at(image))?;
            all.extend(policy::drop_unstorable_xattrs(&mut flattened.tree));
            let names = flattened.tree.walk().count() as u64;
            let store = FileStore::new(Arc::clone(place.expect_file("a squashfs")?), 0);
            let (bytes, notes) = file_system::write(flattened, store, options.clone(), reuse, monitor)?;
            all.extend(notes);
            Ok(Written { names, bytes, notes: all })
        })
    }
}
