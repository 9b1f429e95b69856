//! Images out: OCI layouts, as directories and as tars, and docker-archives.
//!
//! The idea to hold: layers are made ready and verified first (`stage`, or `flatten` where one is made of all), then the
//! documents that name them are put together, and only then does anything get the output's name.

mod archive;
mod documents;
mod layout;
mod stage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use super::options::{Compression, Destination, Format, Outcome, Request};
use super::place::Place;
use super::rootfs::{self, FileSink, StreamSink};
use super::{Sequential, finish, hash, made_at, put, stream_codec};
use crate::error::{Error, ErrorKind, IoResultExt, Result};
use crate::image::Image;
use crate::io::{Compressor, HashingWriter, Monitor, Phase, Region, Scratch, Spool, StreamCodec, is_stream};
use crate::layers::{self, Flattened, flatten};
use crate::model::{Digest, Note};
use archive::Archive;
use documents::{Document, Package};
use layout::{Layout, with_entries};
use stage::{Blob, Stage, codec_of};

/// The file that makes a directory a layout (image-spec, image-layout.md).
const LAYOUT_FILE: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// gzip level of layers where none is given: with libdeflate the lowest is as small as what skopeo writes by default.
const GZIP_LEVEL_DEFAULT: u32 = 1;

/// Where an image goes.
enum Output {
    Layout(Layout),
    /// One tar, compressed as a whole or not.
    Archive(Place, Option<StreamCodec>),
}

/// Writes `image` as an image. See [`super::convert`].
pub(super) fn convert(
    image: &Image,
    request: &Request,
    monitor: &Monitor,
    before_publish: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    let compression = layer_codec(request)?;
    let output = Output::open(request)?;
    let mut notes: Vec<Note> = image.warnings.iter().map(|text| Note::new("source", text.clone(), 1)).collect();
    let layers = layers(image, request, &output, compression, monitor)?;
    let config = config(image, request, &layers)?;
    let (diff_ids, layer_entries) = (layers.diff_ids, layers.entries);
    let layer_bytes = layers.tar_bytes;
    let package = Package::new(image, config, layers.blobs, &request.tags)?;
    let image_id = Some(package.config.digest);
    let manifest_digest = (request.format != Format::DockerArchive).then_some(package.manifest.digest);
    let written = output.write(package, request, monitor, before_publish)?;
    notes.extend(written.note);
    Ok(Outcome {
        size: written.bytes,
        sha256: written.sha256,
        entries: written.files,
        image_id,
        manifest_digest,
        layer_entries,
        layer_bytes,
        diff_ids,
        notes,
    })
}

/// What layers are compressed with. Those who read layers read gzip of several members: eStargz layers are such.
fn layer_codec(request: &Request) -> Result<Option<StreamCodec>> {
    match request.compression {
        _ if request.format == Format::DockerArchive => Ok(None),
        Some(Compression::Gzip(level)) => Ok(Some(StreamCodec::GzipMembers(level.unwrap_or(GZIP_LEVEL_DEFAULT)))),
        compression => stream_codec(compression.unwrap_or(Compression::None)),
    }
}

struct Written {
    bytes: u64,
    files: u64,
    sha256: Option<Digest>,
    note: Option<Note>,
}

impl Output {
    fn open(request: &Request) -> Result<Self> {
        match (&request.destination, request.format) {
            (Destination::Path(path), Format::Oci) if !is_stream(path) => {
                Layout::open(path, request).map(Output::Layout)
            }
            (_, Format::Oci) => Err(Error::new(ErrorKind::Usage, "an OCI layout is a directory")
                .hint("name it with -o, or convert --to oci-archive, which is the same in one tar")),
            // The option speaks of layers, where there are compressed ones; a name always speaks of the file.
            (_, Format::DockerArchive) => {
                let whole = stream_codec(super::compression(request))?;
                Ok(Output::Archive(Place::open(request)?, whole))
            }
            _ => {
                let whole = stream_codec(super::compression_by_name(request))?;
                Ok(Output::Archive(Place::open(request)?, whole))
            }
        }
    }

    /// A file that lies where the output is to be, or near it.
    fn scratch(&self, tmpdir: &Path) -> Result<Scratch> {
        match self {
            Output::Layout(layout) => layout.scratch(),
            Output::Archive(place, _) => place.scratch(tmpdir),
        }
    }

    fn spool(&self, tmpdir: &Path) -> Result<Spool> {
        match self {
            Output::Layout(layout) => Ok(Spool::new(Arc::clone(layout.scratch()?.file()), 0)),
            Output::Archive(place, _) => place.spool(tmpdir),
        }
    }

    /// A stream cannot be taken back.
    fn is_stream(&self) -> bool {
        matches!(self, Output::Archive(Place::Stream(_), _))
    }

    fn write(
        self,
        package: Package,
        request: &Request,
        monitor: &Monitor,
        before_publish: impl FnOnce() -> Result<()>,
    ) -> Result<Written> {
        match self {
            Output::Layout(layout) => {
                monitor.begin(Phase::Finish, 0);
                monitor.check()?;
                let layers = package.unique_layers();
                let documents = [&package.config, &package.manifest];
                let bytes = layers.iter().map(|blob| blob.data.len).sum::<u64>()
                    + documents.iter().map(|document| document.bytes.len() as u64).sum::<u64>();
                let files = (layers.len() + documents.len()) as u64;
                before_publish()?;
                layout.publish(package, monitor)?;
                Ok(Written { bytes, files, sha256: None, note: None })
            }
            Output::Archive(place, whole) => {
                let (archive, note) = match request.format {
                    Format::DockerArchive => Archive::docker(&package),
                    _ => (Archive::oci(&package, with_entries(None, package.index_entries()?)?), None),
                };
                let (files, bytes) = write_archive(&archive, &place, whole, request, monitor)?;
                monitor.begin(Phase::Finish, 0);
                monitor.check()?;
                let (bytes, sha256) = finish(place, bytes, request, monitor, before_publish)?;
                Ok(Written { bytes, files, sha256, note })
            }
        }
    }
}

fn write_archive(
    archive: &Archive<'_>,
    place: &Place,
    whole: Option<StreamCodec>,
    request: &Request,
    monitor: &Monitor,
) -> Result<(u64, u64)> {
    let (files, bytes) = archive.measure();
    if whole.is_none() {
        place.expect_room(bytes)?;
    }
    monitor.begin(Phase::Write, bytes);
    let bytes = put(place, whole, request, |sink| archive.write(sink, monitor))?;
    Ok((files, bytes))
}

/// Layers, ready to go out, and what was found in those of the source.
struct Layers {
    blobs: Vec<Blob>,
    diff_ids: Vec<Digest>,
    entries: u64,
    tar_bytes: u64,
}

fn layers(
    image: &Image,
    request: &Request,
    output: &Output,
    compression: Option<StreamCodec>,
    monitor: &Monitor,
) -> Result<Layers> {
    let scratch = || output.scratch(&request.tmpdir);
    if request.flatten {
        return flattened(image, request, output, compression, monitor);
    }
    let own_files = matches!(output, Output::Layout(_));
    if let (Output::Layout(layout), None) = (output, compression) {
        layout.expect_room(stored_bytes(image)?)?;
    }
    let stage = Stage {
        image,
        jobs: request.jobs,
        monitor,
        keeps_compressed: request.format != Format::DockerArchive,
        compression,
        own_files,
        mode: request.output_mode,
        scratch: &scratch,
        give_up: AtomicBool::new(false),
    };
    let blobs = stage.run()?;
    let diff_ids = blobs.iter().map(|blob| blob.diff_id).collect();
    let tar_bytes = blobs.iter().map(|blob| blob.tar_bytes).sum();
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
fn flattened(
    image: &Image,
    request: &Request,
    output: &Output,
    compression: Option<StreamCodec>,
    monitor: &Monitor,
) -> Result<Layers> {
    let spool = || output.spool(&request.tmpdir);
    let verify_first = request.jobs.get() == 1 || output.is_stream();
    let options = layers::Options { jobs: request.jobs, monitor, spool: &spool, verify_first, forecaster: None };
    let write = |flattened| {
        let scratch = output.scratch(&request.tmpdir)?;
        one_layer(flattened, scratch, request, compression, monitor)
    };
    let (blob, summary) = flatten(image, &options, write)?;
    Ok(Layers { blobs: vec![blob], diff_ids: summary.diff_ids, entries: summary.entries, tar_bytes: summary.bytes })
}

fn one_layer(
    flattened: Flattened,
    scratch: Scratch,
    request: &Request,
    compression: Option<StreamCodec>,
    monitor: &Monitor,
) -> Result<Blob> {
    let Flattened { tree, contents, .. } = flattened;
    let (tar_bytes, _) = rootfs::measure(&tree);
    monitor.begin(Phase::Write, tar_bytes);
    let file = scratch.file();
    let (diff_id, digest) = match compression {
        None => {
            let mut sink = FileSink::new(Arc::clone(file));
            rootfs::write(&tree, contents, &mut sink, monitor)?;
            let digest = hash(file, monitor)?;
            (digest, digest)
        }
        Some(codec) => {
            let stored = HashingWriter::new(Sequential { file: Arc::clone(file), position: 0 });
            let mut sink = StreamSink(HashingWriter::new(Compressor::new(stored, codec, request.jobs)));
            rootfs::write(&tree, contents, &mut sink, monitor)?;
            let (compressor, (diff_id, _)) = sink.0.into_parts();
            (diff_id, compressor.finish().or_kind(ErrorKind::Output)?.finish().0)
        }
    };
    scratch.sync()?;
    let data = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
    Ok(Blob { digest, diff_id, codec: codec_of(compression), data, own: Some(Arc::new(scratch)), tar_bytes })
}

/// The config: its bytes as they are wherever it speaks of the layers that are written.
fn config(image: &Image, request: &Request, layers: &Layers) -> Result<Document> {
    let diff_ids: Vec<Digest> = layers.blobs.iter().map(|blob| blob.diff_id).collect();
    if request.flatten {
        let count = layers.diff_ids.len();
        let history = json!([{
            "created": made_at(image, request).to_rfc3339(),
            "created_by": "convert --flatten",
            "comment": format!("{count} layers made one"),
        }]);
        return Ok(Document::new(image.config.with_layers(&diff_ids, Some(history))?.raw().to_vec()));
    }
    if image.config.diff_ids()? == diff_ids {
        return Ok(Document::new(image.config.raw().to_vec()));
    }
    // Docker before 1.10 knew no diff_ids.
    Ok(Document::new(image.config.with_layers(&diff_ids, None)?.raw().to_vec()))
}
