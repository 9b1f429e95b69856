use std::io::{BufReader, Read};
use std::sync::Mutex;

use super::view::ViewOptions;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::image::Image;
use crate::io::{CHUNK_BYTES, Codec, ContentSum, Monitor, Region, decoder, read_error, zeros};
use crate::layers::{ListOptions, Listed, Sums, list, plain_region, verify_plain};
use crate::model::Digest;
use crate::tree::{Content, Extent, FileData, FileId, InodeId, Kind, Tree};

/// The names of an image of layers. A file's place is one in the plain tar of its layer.
pub(super) struct Layered {
    pub(super) tree: Tree,
    sums: Vec<Option<Sums>>,
    decoded: Vec<bool>,
    /// Layers that lie in a file as they are, and were verified since.
    verified: Mutex<Vec<bool>>,
}

impl Layered {
    pub(super) fn read(
        image: &Image,
        options: &ViewOptions,
        monitor: &Monitor,
        wants_sums: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Self> {
        let (jobs, memory_bytes_max) = (options.jobs, options.memory_bytes_max);
        let Listed { tree, sums, decoded } = list(image, &ListOptions { jobs, monitor, memory_bytes_max, wants_sums })?;
        Ok(Layered { tree, sums, decoded, verified: Mutex::new(vec![false; image.layers.len()]) })
    }

    /// Hands the contents of a regular file to `each`.
    pub(super) fn read_file(
        &self,
        image: &Image,
        inode: InodeId,
        monitor: &Monitor,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Kind::File(data) = &self.tree.inode(inode).kind else { return Ok(()) };
        let (extents, file) = match pieces(data) {
            Pieces::Here(bytes) => return each(bytes),
            Pieces::InLayer(extents, file) => (extents, file),
        };
        if let Some(file) = file {
            self.verify(image, file, monitor)?;
        }
        let mut layer = file.map(|file| LayerReader::open(image, file)).transpose()?;
        let mut at = 0;
        for extent in extents {
            zeros(extent.at - at, each)?;
            at = extent.at + extent.len;
            let bug = || Error::new(ErrorKind::Bug, "contents of no layer");
            layer.as_mut().ok_or_else(bug)?.read(&extent, monitor, each)?;
        }
        zeros(data.size - at, each)
    }

    /// The sum of the contents of a regular file.
    pub(super) fn content_sum(&self, image: &Image, inode: InodeId, monitor: &Monitor) -> Result<Digest> {
        let Kind::File(data) = &self.tree.inode(inode).kind else { return Ok(ContentSum::default().finish()) };
        let mut sum = ContentSum::default();
        let (extents, file) = match pieces(data) {
            Pieces::Here(bytes) => {
                sum.update(bytes);
                return Ok(sum.finish());
            }
            Pieces::InLayer(extents, file) => (extents, file),
        };
        let known = file.and_then(|file| self.sums.get(file.0 as usize)?.as_ref());
        if let (Some(known), Some(first)) = (known, extents.first())
            && let Some(digest) = known.get(first.location.offset)
        {
            return Ok(digest);
        }
        let mut layer = file.map(|file| LayerReader::open(image, file)).transpose()?;
        let mut at = 0;
        for extent in extents {
            sum.zeros(extent.at - at);
            at = extent.at + extent.len;
            if let Some(layer) = &mut layer {
                layer.read(&extent, monitor, &mut |bytes| {
                    sum.update(bytes);
                    Ok(())
                })?;
            }
        }
        sum.zeros(data.size - at);
        Ok(sum.finish())
    }

    /// Whether a layer was decoded, and verified with that.
    pub(super) fn is_decoded(&self, index: usize) -> bool {
        self.decoded.get(index).is_some_and(|decoded| *decoded)
    }

    /// Compressed layers were verified when they were listed.
    fn verify(&self, image: &Image, file: FileId, monitor: &Monitor) -> Result<()> {
        let index = file.0 as usize;
        let Some(region) = plain_region(image, index)? else { return Ok(()) };
        let mut verified = self.verified.lock().map_err(|_| Error::new(ErrorKind::Bug, "a thread panicked"))?;
        if !verified[index] {
            verify_plain(image, index, &region, monitor)?;
            verified[index] = true;
        }
        Ok(())
    }
}

enum Pieces<'a> {
    Here(&'a [u8]),
    /// What is data, in order, and the layer that has it, if any of it is.
    InLayer(Vec<Extent>, Option<FileId>),
}

fn pieces(data: &FileData) -> Pieces<'_> {
    match &data.content {
        Content::Inline(bytes) => Pieces::Here(bytes),
        Content::Stored(location) => {
            Pieces::InLayer(vec![Extent { at: 0, len: data.size, location: *location }], Some(location.file))
        }
        Content::Sparse(extents) => {
            Pieces::InLayer(extents.to_vec(), extents.first().map(|extent| extent.location.file))
        }
    }
}

/// Reads stretches of the plain tar of one layer, front to back.
struct LayerReader<'a> {
    tar: Tar<'a>,
    buffer: Vec<u8>,
    name: String,
}

enum Tar<'a> {
    /// It lies in a file as it is.
    Plain(Region),
    /// It is decoded up to this byte.
    Decoded(Box<dyn Read + 'a>, u64),
}

impl<'a> LayerReader<'a> {
    fn open(image: &'a Image, file: FileId) -> Result<Self> {
        let index = file.0 as usize;
        let name = image.layer_name(index);
        let tar = match plain_region(image, index)? {
            Some(region) => Tar::Plain(region),
            None => Tar::Decoded(decoded(image, index).doing(|| format!("reading {name}"))?, 0),
        };
        Ok(LayerReader { tar, buffer: vec![0; CHUNK_BYTES], name })
    }

    /// Hands a stretch to `each`.
    fn read(&mut self, extent: &Extent, monitor: &Monitor, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let offset = extent.location.offset;
        if let Tar::Decoded(_, position) = &self.tar {
            let skipped = offset.saturating_sub(*position);
            self.take(*position, skipped, monitor, &mut |_| Ok(()))?;
        }
        self.take(offset, extent.len, monitor, each)
    }

    fn take(
        &mut self,
        mut at: u64,
        mut left: u64,
        monitor: &Monitor,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while left > 0 {
            monitor.check()?;
            let now = left.min(self.buffer.len() as u64) as usize;
            let buffer = &mut self.buffer[..now];
            let read = match &mut self.tar {
                Tar::Plain(region) => region.read_at(buffer, at).and_then(|count| match count == now {
                    true => Ok(()),
                    false => Err(std::io::ErrorKind::UnexpectedEof.into()),
                }),
                Tar::Decoded(stream, position) => {
                    *position += now as u64;
                    stream.read_exact(buffer)
                }
            };
            read.map_err(read_error).doing(|| format!("reading {}", self.name))?;
            each(buffer)?;
            at += now as u64;
            left -= now as u64;
        }
        Ok(())
    }
}

fn decoded(image: &Image, index: usize) -> Result<Box<dyn Read + '_>> {
    let mut stored = image.blobs.open(&image.layers[index].blob)?;
    let mut start = Vec::with_capacity(Codec::SNIFF_BYTES);
    stored.by_ref().take(Codec::SNIFF_BYTES as u64).read_to_end(&mut start).map_err(read_error)?;
    let codec = Codec::sniff(&start);
    let whole = std::io::Cursor::new(start).chain(stored);
    let decoder: Box<dyn Read + '_> =
        decoder(codec, BufReader::with_capacity(CHUNK_BYTES, whole)).or_kind(ErrorKind::Other)?;
    Ok(decoder)
}
