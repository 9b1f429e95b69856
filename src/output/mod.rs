//! Picks the writer for a format and owns the output file.
//!
//! The idea to hold: a target pulls. It is given a merged tree and a way to read any file of it, writes them in its own
//! order, and lets go of the output only when every digest has been verified.

mod architecture;
mod forecast;
mod moves;
mod options;
mod pack;
mod package;
mod place;
mod policy;
mod rootfs;
mod sif;
mod verify;

pub use options::{Compression, Destination, Format, IfExists, ImageName, Outcome, Request, XattrPolicy};
pub use pack::{GZIP_LEVEL_DEFAULT as PACK_LEVEL_DEFAULT, PackRequest, Packed, pack};
pub use verify::{Whole, hash_file, is_sif, verify_layers, verify_sif};

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::image::Image;
use crate::io::{CHUNK_BYTES, Compressor, Monitor, Phase, Region, StreamCodec, hash_region};
use crate::layers::{self, Flattened, Forecast, flatten};
use crate::model::{Digest, Note, Timestamp};
use crate::sif::Architecture;
use crate::singularity::{self, Additions, Prepared};
use crate::tree::Tree;
use forecast::TarForecast;
use moves::Mover;
use place::{Place, SPOOL_OFFSET};
use rootfs::{FileSink, Sink, StreamSink};

/// gzip level of tars where none is given: what `gzip` uses.
const GZIP_LEVEL_DEFAULT: u32 = 6;
/// zstd level of tars where none is given: what `zstd` uses.
const ZSTD_LEVEL_DEFAULT: u32 = 3;

/// Converts one image as `request` says. `before_publish` is asked last, when the output is complete but has no name yet;
/// what it refuses never appears.
///
/// # Errors
/// See [`ErrorKind`]; the output does not exist then (a stream may have taken a part of it).
pub fn convert(
    image: &Image,
    request: &Request,
    monitor: &Monitor,
    before_publish: impl FnOnce() -> Result<()>,
) -> Result<Outcome> {
    if request.format.is_image() {
        return package::convert(image, request, monitor, before_publish);
    }
    let codec = if request.format == Format::Sif { None } else { stream_codec(compression(request))? };
    let place = Place::open(request)?;
    if request.format == Format::Sif {
        sif::compression(request)?;
        place.expect_file()?;
    }
    let (written, summary) = thread::scope(|scope| {
        let mover = Mover::new(scope, monitor);
        flatten_and_write(image, request, &place, codec, &mover, monitor)
    })?;
    monitor.begin(Phase::Finish, 0);
    monitor.check()?;
    let (size, sha256) = finish(place, written.bytes, request, monitor, before_publish)?;
    Ok(Outcome {
        size,
        sha256,
        entries: written.names,
        image_id: None,
        manifest_digest: None,
        layer_entries: summary.entries,
        layer_bytes: summary.bytes,
        diff_ids: summary.diff_ids,
        notes: written.notes,
    })
}

fn flatten_and_write(
    image: &Image,
    request: &Request,
    place: &Place,
    codec: Option<StreamCodec>,
    mover: &Mover<'_, '_>,
    monitor: &Monitor,
) -> Result<(Written, layers::Summary)> {
    let spool = || place.spool(&request.tmpdir);
    let forecast = |others, layer| forecast(image, request, others, layer, mover);
    let is_foreseeable = codec.is_none() && request.format != Format::Sif && place.spools_itself();
    let options = layers::Options {
        jobs: request.jobs,
        monitor,
        spool: &spool,
        verify_first: request.jobs.get() == 1 || matches!(place, Place::Stream(_)),
        forecaster: is_foreseeable.then_some(&forecast),
    };
    flatten(image, &options, |mut flattened| {
        mover.finish(&mut flattened)?;
        write(image, request, flattened, place, codec, monitor)
    })
}

/// What is recorded of where an image comes from: a name only where one is asked for, else its ID. The same image gives the
/// same bytes, whatever it was called where it was found.
pub fn recorded_reference(image: &Image, asked: Option<&str>) -> String {
    asked.map_or_else(|| image.id().to_string(), str::to_string)
}

/// How a tar is compressed: as asked, else as its name says.
fn compression(request: &Request) -> Compression {
    request.compression.unwrap_or_else(|| compression_by_name(request))
}

fn compression_by_name(request: &Request) -> Compression {
    match &request.destination {
        Destination::Path(path) => match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "tgz") => Compression::Gzip(None),
            Some("zst" | "zstd" | "tzst") => Compression::Zstd(None),
            _ => Compression::None,
        },
        Destination::Stdout => Compression::None,
    }
}

fn stream_codec(compression: Compression) -> Result<Option<StreamCodec>> {
    match compression {
        Compression::None => Ok(None),
        Compression::Gzip(Some(level)) if level > 9 => {
            Err(Error::new(ErrorKind::Usage, format!("gzip level {level} is for squashfs only"))
                .hint("a tar takes --compression gzip:1 to gzip:9, or zstd:1 to zstd:22"))
        }
        Compression::Gzip(level) => Ok(Some(StreamCodec::Gzip(level.unwrap_or(GZIP_LEVEL_DEFAULT)))),
        Compression::Zstd(level) => Ok(Some(StreamCodec::Zstd(level.unwrap_or(ZSTD_LEVEL_DEFAULT)))),
    }
}

struct Written {
    names: u64,
    notes: Vec<Note>,
    /// How long the output is.
    bytes: u64,
}

/// Makes of the tree what the format wants, and writes it.
fn write(
    image: &Image,
    request: &Request,
    mut flattened: Flattened,
    place: &Place,
    codec: Option<StreamCodec>,
    monitor: &Monitor,
) -> Result<Written> {
    let mut notes = image.warnings.iter().map(|text| Note::new("source", text.clone(), 1)).collect::<Vec<_>>();
    if !request.format.is_for_singularity() {
        return write_tar(request, flattened, place, codec, monitor, notes);
    }
    notes.extend(policy::apply(&mut flattened.tree, request));
    let (architecture, note) = architecture::architecture(image, &flattened.tree, &flattened.contents);
    notes.extend(note);
    let architecture = architecture.or_else(|| request.architecture.clone());
    let mut prepared = add_singularity(image, request, &mut flattened.tree, architecture.as_deref())?;
    notes.append(&mut prepared.notes);
    match place {
        Place::File(output) if request.format == Format::Sif => {
            notes.extend(policy::drop_unstorable_xattrs(&mut flattened.tree));
            let names = flattened.tree.walk().count() as u64;
            monitor.begin(Phase::Write, flattened.tree.file_bytes());
            let code = sif_architecture(architecture.as_deref())?;
            let (bytes, more) = sif::write(
                flattened,
                prepared,
                sif::Made {
                    image_id: image.id(),
                    options: request.choices(),
                    architecture: code,
                    time: made_at(image, request),
                },
                output,
                request,
                monitor,
            )?;
            notes.extend(more);
            Ok(Written { names, notes, bytes })
        }
        _ => write_tar(request, flattened, place, codec, monitor, notes),
    }
}

/// Where in the tar the contents of a layer will lie, so far as `others`, the layers without it, tell.
fn forecast<'a>(
    image: &Image,
    request: &'a Request,
    mut others: Flattened,
    layer: u32,
    mover: &Mover<'_, '_>,
) -> Box<dyn Forecast + Send + 'a> {
    if request.format.is_for_singularity() {
        policy::apply(&mut others.tree, request);
        let architecture = image.platform().architecture;
        // What cannot be prepared now will be told when all layers are there.
        drop(add_singularity(image, request, &mut others.tree, Some(&architecture)));
    }
    Box::new(TarForecast::new(others, layer, request, mover))
}

fn sif_architecture(name: Option<&str>) -> Result<Architecture> {
    let hint = "say what the image runs on with --arch, for example --arch amd64";
    let Some(name) = name else {
        return Err(Error::new(ErrorKind::Unsupported, "neither config nor programs tell the architecture").hint(hint));
    };
    Architecture::from_goarch(name).ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, format!("SIF files know no architecture {name:?}")).hint(hint)
    })
}

/// The time of everything that is made rather than read.
fn made_at(image: &Image, request: &Request) -> Timestamp {
    let epoch = request.source_date_epoch.map(Timestamp::from_seconds);
    epoch.or_else(|| image.config.created()).unwrap_or_default()
}

fn write_tar(
    request: &Request,
    flattened: Flattened,
    place: &Place,
    codec: Option<StreamCodec>,
    monitor: &Monitor,
    notes: Vec<Note>,
) -> Result<Written> {
    let Flattened { mut tree, contents, spooled_bytes } = flattened;
    let (bytes, names) = rootfs::measure(&tree);
    let in_place = moves::settle(&mut tree, &contents, SPOOL_OFFSET + spooled_bytes, monitor)?;
    if codec.is_none() {
        if spooled_bytes > 0 && bytes > SPOOL_OFFSET {
            return Err(Error::new(ErrorKind::Unsupported, format!("an output of {bytes} bytes is too large")));
        }
        place.expect_room(bytes - in_place)?;
    }
    monitor.begin(Phase::Write, bytes);
    let bytes = put(place, codec, request, |sink| rootfs::write(&tree, contents, sink, monitor))?;
    Ok(Written { names, notes, bytes })
}

/// Has `write` write to wherever the output is, compressed as asked; how many bytes that came to.
fn put(
    place: &Place,
    codec: Option<StreamCodec>,
    request: &Request,
    write: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result<u64> {
    Ok(match (place, codec) {
        (Place::File(output), None) => {
            let mut sink = FileSink::new(Arc::clone(output.file()));
            write(&mut sink)?;
            sink.position()
        }
        (Place::File(output), Some(codec)) => {
            compress(Sequential { file: Arc::clone(output.file()), position: 0 }, codec, request, write)?.position
        }
        (Place::Stream(file), None) => {
            let mut sink =
                StreamSink(Counting { inner: BufWriter::with_capacity(CHUNK_BYTES, clone(file)?), bytes: 0 });
            write(&mut sink)?;
            sink.0.bytes
        }
        (Place::Stream(file), Some(codec)) => {
            compress(Counting { inner: clone(file)?, bytes: 0 }, codec, request, write)?.bytes
        }
    })
}

fn add_singularity(image: &Image, request: &Request, tree: &mut Tree, architecture: Option<&str>) -> Result<Prepared> {
    let additions = Additions {
        reference: &recorded_reference(image, request.reference.as_deref()),
        time: made_at(image, request),
        architecture: architecture.unwrap_or_default(),
        change_to_workdir: request.workdir,
        mkdir: &request.mkdir,
        mkfile: &request.mkfile,
        bind_targets: &request.bind_targets,
        labels: &request.labels,
    };
    singularity::prepare(tree, &image.config, &additions)
        .doing(|| format!("preparing {} for Singularity", image.blobs.name()))
}

fn clone(file: &File) -> Result<File> {
    file.try_clone().or_kind(ErrorKind::Output)
}

fn compress<W: Write + Send + 'static>(
    inner: W,
    codec: StreamCodec,
    request: &Request,
    write: impl FnOnce(&mut dyn Sink) -> Result<()>,
) -> Result<W> {
    let mut sink = StreamSink(Compressor::new(inner, codec, request.jobs));
    write(&mut sink)?;
    sink.0.finish().or_kind(ErrorKind::Output)
}

/// Writes a file from its start without moving its cursor.
struct Sequential {
    file: Arc<File>,
    position: u64,
}

impl Write for Sequential {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write_at(bytes, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Counting<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Cuts off what is not the output, hashes it where asked for, and gives it its name.
fn finish(
    place: Place,
    bytes: u64,
    request: &Request,
    monitor: &Monitor,
    before_publish: impl FnOnce() -> Result<()>,
) -> Result<(u64, Option<Digest>)> {
    let Place::File(output) = place else {
        before_publish()?;
        return Ok((bytes, None));
    };
    output.file().set_len(bytes).or_kind(ErrorKind::Output)?;
    let sha256 = if request.hash_output { Some(hash(output.file(), monitor)?) } else { None };
    before_publish()?;
    output.publish()?;
    Ok((bytes, sha256))
}

/// The SHA-256 of a file that we have written.
fn hash(file: &Arc<File>, monitor: &Monitor) -> Result<Digest> {
    let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
    let failed = |error| Error::io(ErrorKind::Output, error);
    hash_region(&region, failed, |_| monitor.check()).map(|(digest, _)| digest)
}
