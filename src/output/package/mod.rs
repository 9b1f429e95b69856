//! Images out: OCI layouts, as directories and as tars, and docker-archives.
//!
//! The idea to hold: layers are made ready and verified first (`stage`, or `flatten` where one is made of all), then the
//! documents that name them are put together, and only then does anything get the output's name.

mod archive;
mod documents;
#[cfg(feature = "network")]
mod hosted;
mod layout;
mod stage;

use std::fs::File;
use std::sync::Arc;

use serde_json::json;

use super::options::{ImageOptions, Outcome};
use super::place::{Place, hash};
use super::prepared::Task;
use super::sink::{FileSink, Sequential, StreamSink, put};
use super::tarball::{self, Holes};
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::image::Image;
use crate::io::{Codec, Compression, Compressor, HashingWriter, Members, Monitor, Phase, Region};
use crate::layers::{self, Flattened, Schedule, flatten};
use crate::model::{Algorithm, Digest, Note};
use documents::Document;
use layout::with_entries;
use stage::{Blob, Stage};

pub(super) use archive::Archive;
pub(super) use documents::Package;
#[cfg(feature = "network")]
pub(super) use hosted::{MediaTypes, push};
pub(super) use layout::Layout;

/// The file that makes a directory a layout (image-spec, image-layout.md).
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// How layers are to go out.
pub(super) struct Packing<'a> {
    pub(super) image: &'a ImageOptions,
    /// What layers are compressed with that are not compressed yet.
    pub(super) compression: Compression,
    /// Whether layers that are compressed with what OCI images may have stay so.
    pub(super) keeps_compressed: bool,
    /// The place in the output where the one layer is written to, which lies nowhere yet: see [`foresee`].
    pub(super) in_place: Option<InPlace>,
}

/// A place in an unfinished output.
#[derive(Debug, Clone)]
pub(super) struct InPlace {
    file: Arc<File>,
    offset: u64,
    /// Bytes of the whole output.
    bytes: u64,
}

/// Where in a docker-archive the layer of a file system will lie: what comes before it has the same length whatever the
/// layer's digest is. So it need not be copied there.
pub(super) fn foresee(
    image: &Image,
    packing: &Packing<'_>,
    (place, whole): (&Place, Compression),
    task: &Task,
) -> Result<Option<InPlace>> {
    let (Place::File(output), Some(volume), Codec::None) = (place, image.blobs.volume(), whole.kind()) else {
        return Ok(None);
    };
    if packing.image.flatten {
        return Ok(None);
    }
    let file = Arc::clone(output.file());
    let (tar_bytes, digest) = (volume.tar_bytes(), Digest::of(b""));
    let data = Region { len: tar_bytes, ..Region::whole(Arc::clone(&file)).or_kind(ErrorKind::Output)? };
    let blob = Blob { digest, diff_id: digest, codec: Codec::None, data, own: None, tar_bytes, stamp: None };
    let config = config(image, packing, (&[digest], &[digest], 1), task)?;
    let package = Package::new(image, config, vec![blob], (packing.keeps_compressed, &packing.image.tags))?;
    let (archive, _) = Archive::docker(&package);
    let (_, bytes) = archive.measure();
    Ok(archive.first_layer_at().map(|offset| InPlace { file, offset, bytes }))
}

/// An image whose layers are ready, and what was found in those of the source.
pub(super) struct Packed {
    pub(super) package: Package,
    diff_ids: Vec<Digest>,
    entries: u64,
    tar_bytes: u64,
    notes: Vec<Note>,
    in_place: Option<InPlace>,
}

/// Makes an image ready to be put somewhere.
pub(super) fn pack(
    image: &Image,
    packing: &Packing<'_>,
    place: &Place,
    task: &Task,
    monitor: &Monitor,
) -> Result<Packed> {
    let layers = layers(image, packing, place, task, monitor)?;
    let found: (Vec<Digest>, Vec<Digest>) = layers.blobs.iter().map(|blob| (blob.diff_id, blob.digest)).unzip();
    let config = config(image, packing, (&found.0, &found.1, layers.diff_ids.len()), task)?;
    let Layers { blobs, diff_ids, entries, tar_bytes } = layers;
    let package = Package::new(image, config, blobs, (packing.keeps_compressed, &packing.image.tags))?;
    let mut notes = Vec::new();
    if image.platform().architecture.is_empty() {
        let message = "neither the config nor programs tell the architecture: the image names none";
        notes.push(Note::new("no-architecture", message, 1));
    }
    Ok(Packed { package, diff_ids, entries, tar_bytes, notes, in_place: packing.in_place.clone() })
}

impl Packed {
    /// Puts the image into a layout.
    pub(super) fn write_layout(mut self, layout: Layout, image: &Image, monitor: &Monitor) -> Result<Outcome> {
        monitor.begin(Phase::Finish, 0);
        monitor.check()?;
        let layers = self.package.unique_layers();
        let documents = [&self.package.config, &self.package.manifest];
        let bytes = layers.iter().map(|blob| blob.data.len).sum::<u64>()
            + documents.iter().map(|document| document.bytes.len() as u64).sum::<u64>();
        let files = (layers.len() + documents.len()) as u64;
        self.notes.extend(self.package.index_notes());
        self.package.expect_unchanged(image)?;
        let (outcome, package) = self.outcome((bytes, None), files, true);
        image.blobs.confirm()?;
        layout.publish(package, monitor)?;
        Ok(outcome)
    }

    /// Writes an OCI layout in one tar, compressed as a whole with `whole`.
    pub(super) fn write_oci(
        mut self,
        place: Place,
        whole: Compression,
        image: &Image,
        task: &Task,
        monitor: &Monitor,
    ) -> Result<Outcome> {
        let index = with_entries(None, self.package.index_entries()?)?;
        let archive = Archive::oci(&self.package, index);
        let (files, bytes) = write_archive(&archive, (&place, false), whole, task, monitor)?;
        self.package.expect_unchanged(image)?;
        let written = place.finish(bytes, image, task, monitor)?;
        self.notes.extend(self.package.index_notes());
        Ok(self.outcome((written.size, written.sha256), files, true).0)
    }

    /// Writes what `docker load` takes, compressed as a whole with `whole`.
    pub(super) fn write_docker(
        mut self,
        place: Place,
        whole: Compression,
        image: &Image,
        task: &Task,
        monitor: &Monitor,
    ) -> Result<Outcome> {
        let (archive, notes) = Archive::docker(&self.package);
        if self.in_place.as_ref().is_some_and(|there| archive.first_layer_at() != Some(there.offset)) {
            return Err(Error::new(ErrorKind::Bug, "a layer was written to another place than its own"));
        }
        let (files, bytes) = write_archive(&archive, (&place, self.in_place.is_some()), whole, task, monitor)?;
        self.package.expect_unchanged(image)?;
        let written = place.finish(bytes, image, task, monitor)?;
        self.notes.extend(notes);
        Ok(self.outcome((written.size, written.sha256), files, false).0)
    }

    fn outcome(self, (size, sha256): (u64, Option<Digest>), entries: u64, has_manifest: bool) -> (Outcome, Package) {
        let Packed { package, diff_ids, entries: layer_entries, tar_bytes: layer_bytes, notes, .. } = self;
        let image_id = Some(package.config.digest);
        let manifest_digest = has_manifest.then_some(package.manifest.digest);
        let outcome = Outcome {
            size,
            sha256,
            entries,
            image_id,
            manifest_digest,
            pushed: None,
            layer_entries,
            layer_bytes,
            diff_ids,
            notes,
        };
        (outcome, package)
    }
}

fn write_archive(
    archive: &Archive<'_>,
    (place, is_there): (&Place, bool),
    whole: Compression,
    task: &Task,
    monitor: &Monitor,
) -> Result<(u64, u64)> {
    let (files, bytes) = archive.measure();
    if whole.kind() == Codec::None && !is_there {
        place.expect_room(bytes)?;
    }
    monitor.begin(Phase::Write, bytes);
    let bytes = put(place, whole, task, |sink| archive.write(sink, monitor))?;
    Ok((files, bytes))
}

/// Layers, ready to go out, and what was found in those of the source.
struct Layers<B = Blob> {
    blobs: Vec<B>,
    diff_ids: Vec<Digest>,
    entries: u64,
    tar_bytes: u64,
}

fn layers(image: &Image, packing: &Packing<'_>, place: &Place, task: &Task, monitor: &Monitor) -> Result<Layers> {
    if packing.image.flatten {
        return flattened(image, packing, place, task, monitor);
    }
    let made = staged(image, packing, place, task, monitor, &|_| true)?;
    let lost = || Error::new(ErrorKind::Bug, "a layer was lost");
    let blobs = made.blobs.into_iter().map(|blob| blob.ok_or_else(lost)).collect::<Result<_>>()?;
    Ok(Layers { blobs, diff_ids: made.diff_ids, entries: made.entries, tar_bytes: made.tar_bytes })
}

/// The layers that are `wanted`, or the one that is made of all.
#[cfg(feature = "network")]
fn layers_where(
    image: &Image,
    packing: &Packing<'_>,
    place: &Place,
    task: &Task,
    monitor: &Monitor,
    wanted: &dyn Fn(usize) -> bool,
) -> Result<Layers<Option<Blob>>> {
    if packing.image.flatten {
        let Layers { blobs, diff_ids, entries, tar_bytes } = flattened(image, packing, place, task, monitor)?;
        return Ok(Layers { blobs: blobs.into_iter().map(Some).collect(), diff_ids, entries, tar_bytes });
    }
    staged(image, packing, place, task, monitor, wanted)
}

fn staged(
    image: &Image,
    packing: &Packing<'_>,
    place: &Place,
    task: &Task,
    monitor: &Monitor,
    wanted: &dyn Fn(usize) -> bool,
) -> Result<Layers<Option<Blob>>> {
    let scratch = || place.scratch(&task.options.tmpdir);
    let own_files = matches!(place, Place::Layout(_));
    if own_files && packing.compression.kind() == Codec::None {
        place.expect_room(stored_bytes(image)?)?;
    }
    if let Some(there) = &packing.in_place {
        place.expect_room(there.bytes)?;
    }
    let stage = Stage {
        image,
        jobs: task.options.jobs,
        monitor,
        keeps_compressed: packing.keeps_compressed,
        compression: packing.compression,
        own_files,
        mode: task.mode,
        scratch: &scratch,
        in_place: packing.in_place.as_ref().map(|there| (&there.file, there.offset)),
        schedule: Schedule::new(task.options.jobs, monitor),
    };
    let blobs = stage.run(wanted)?;
    let diff_ids = blobs.iter().flatten().map(|blob| blob.diff_id).collect();
    let tar_bytes = blobs.iter().flatten().map(|blob| blob.tar_bytes).sum();
    Ok(Layers { blobs, diff_ids, entries: 0, tar_bytes })
}

/// How many bytes the layers take at least, as they are stored: those that are written already need no more room.
fn stored_bytes(image: &Image) -> Result<u64> {
    let written = image.layers.iter().filter(|layer| !image.blobs.is_adoptable(&layer.blob));
    let sizes = written
        .map(|layer| Ok(image.blobs.region(&layer.blob)?.map_or(layer.blob.size.unwrap_or(0), |region| region.len)));
    sizes.sum()
}

/// One layer of all, as the plain `rootfs` is written.
fn flattened(image: &Image, packing: &Packing<'_>, place: &Place, task: &Task, monitor: &Monitor) -> Result<Layers> {
    let spool = || place.spool(&task.options.tmpdir, false);
    let jobs = task.options.jobs;
    let verify_first = jobs.get() == 1 || place.is_stream();
    let memory_bytes_max = task.options.memory_bytes_max;
    let options =
        layers::Options { jobs, monitor, spool: &spool, memory_bytes_max, verify_first, forecaster: None, known: None };
    let write = |flattened| one_layer(flattened, place, packing.compression, task, monitor);
    let (blob, summary) = flatten(image, &options, write)?;
    let tar_bytes = summary.layer_bytes.iter().sum();
    Ok(Layers { blobs: vec![blob], diff_ids: summary.diff_ids, entries: summary.entries, tar_bytes })
}

fn one_layer(
    flattened: Flattened,
    place: &Place,
    compression: Compression,
    task: &Task,
    monitor: &Monitor,
) -> Result<Blob> {
    let Flattened { tree, contents, .. } = flattened;
    let (tar_bytes, _) = tarball::measure(&tree, Holes::Filled);
    let scratch = place.scratch(&task.options.tmpdir)?;
    monitor.begin(Phase::Write, tar_bytes);
    let file = scratch.file();
    let (diff_id, digest) = match compression.kind() {
        Codec::None => {
            place.expect_room(tar_bytes)?;
            let mut sink = FileSink::of_output(Arc::clone(file));
            tarball::write(&tree, Holes::Filled, contents, &mut sink, monitor)?;
            let digest = hash(file, monitor)?;
            (digest, digest)
        }
        _ => {
            let stored = HashingWriter::new(Sequential::of_output(Arc::clone(file), 0));
            let compressor = Compressor::new(stored, compression, Members::Many, task.options.jobs);
            let mut sink = StreamSink(HashingWriter::new(compressor));
            tarball::write(&tree, Holes::Filled, contents, &mut sink, monitor)?;
            let (compressor, (diff_id, _)) = sink.0.into_parts();
            (diff_id, compressor.finish().or_kind(ErrorKind::Output)?.finish().0)
        }
    };
    scratch.sync()?;
    let data = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
    Ok(Blob { digest, diff_id, codec: compression.kind(), data, own: Some(Arc::new(scratch)), tar_bytes, stamp: None })
}

/// The config: its bytes as they are wherever it speaks of the layers that are written, which have these `diff_ids` and
/// `digests`; the source has `count` of them.
fn config(
    image: &Image,
    packing: &Packing<'_>,
    (diff_ids, digests, count): (&[Digest], &[Digest], usize),
    task: &Task,
) -> Result<Document> {
    if packing.image.flatten {
        let history = json!([{
            "created": task.made_at(image).to_rfc3339(),
            "created_by": "convert --flatten",
            "comment": format!("{count} layers made one"),
        }]);
        return Ok(Document::new(image.config.with_layers(diff_ids, Some(history))?.raw().to_vec()));
    }
    // Docker loads no layer by another digest.
    let other = |digest: &Digest| digest.algorithm() != Algorithm::Sha256;
    if !packing.keeps_compressed && diff_ids.iter().any(other) {
        return Ok(Document::new(image.config.with_layers(digests, image.config.raw_history()?)?.raw().to_vec()));
    }
    if image.config.diff_ids()? == diff_ids {
        return Ok(Document::new(image.config.raw().to_vec()));
    }
    // Docker before 1.10 knew no diff_ids.
    let config = match &image.history {
        Some(history) => image.config.migrated(diff_ids, history)?,
        None => image.config.with_layers(diff_ids, None)?,
    };
    Ok(Document::new(config.raw().to_vec()))
}
