//! Layers on their way out: each becomes a blob whose every digest has been verified.
//!
//! The idea to hold: stored bytes that may stay as they are stay where they are, or are copied, while
//! other threads hash and decode them. What must be made anew goes to a file of its own.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::image::Image;
use crate::io::{
    Codec, Compression, Compressor, Decoded, Expected, HashingWriter, Members, Monitor, Phase, Region, Scratch, Stamp,
    decode, hash_region_with, read_error,
};
use crate::layers::{Schedule, largest_first};
use crate::model::{Algorithm, Digest, Hasher};
use crate::output::sink::{FileSink, Sequential, Sink};

/// How much is copied between two looks at whether to stop, in bytes.
const COPY_BYTES: u64 = 64 << 20;

/// A layer as it goes out.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    /// The SHA-256 of the bytes as they are stored.
    pub(super) digest: Digest,
    /// Of the uncompressed tar, as the config states it.
    pub(super) diff_id: Digest,
    /// How it is compressed.
    pub(super) codec: Codec,
    /// Where its bytes lie.
    pub(super) data: Region,
    /// The file of its own that they lie in, where it has one.
    pub(super) own: Option<Arc<Scratch>>,
    /// Bytes of the uncompressed tar.
    pub(super) tar_bytes: u64,
    /// Of the file that was hashed by one reader and is copied by another, where there is one.
    pub(super) stamp: Option<Stamp>,
}

/// How layers are made ready.
pub(super) struct Stage<'a> {
    pub(super) image: &'a Image,
    pub(super) jobs: NonZeroUsize,
    pub(super) monitor: &'a Monitor,
    /// Whether layers that are compressed with what OCI images may have stay so.
    pub(super) keeps_compressed: bool,
    /// What uncompressed layers are compressed with.
    pub(super) compression: Compression,
    /// Whether each needs a file of its own, also where its bytes could stay where they are.
    pub(super) own_files: bool,
    /// The permission bits of a file that becomes one as it is.
    pub(super) mode: u32,
    /// Makes such files.
    pub(super) scratch: &'a (dyn Fn() -> Result<Scratch> + Sync),
    /// Where in the output the one layer goes that lies nowhere yet.
    pub(super) in_place: Option<(&'a Arc<File>, u64)>,
    /// Has the work done.
    pub(super) schedule: Schedule<'a>,
}

/// Stored bytes that lie in a file of this machine.
struct Local {
    region: Region,
    codec: Codec,
    own: Option<Arc<Scratch>>,
    /// What is known of the bytes already, because they were hashed as they came.
    known: Option<(Digest, Decoded)>,
}

impl Stage<'_> {
    /// Makes those layers ready that are `wanted`; `None` for the others. Every digest that the source states of them has been
    /// compared when this returns.
    pub(super) fn run(&self, wanted: &dyn Fn(usize) -> bool) -> Result<Vec<Option<Blob>>> {
        let layers = &self.image.layers;
        // A layer that the image has twice is made ready once.
        let first = |at: usize| {
            let same = |&other: &usize| {
                layers[other].blob.key == layers[at].blob.key
                    && layers[other].diff_id == layers[at].diff_id
                    && layers[other].blob.digest == layers[at].blob.digest
            };
            (0..at).find(same).unwrap_or(at)
        };
        let distinct: Vec<usize> = (0..layers.len()).filter(|&at| first(at) == at && wanted(at)).collect();
        let mut blobs: Vec<Option<Blob>> = vec![None; layers.len()];
        for (at, blob) in self.distinct(&distinct)? {
            blobs[at] = Some(blob);
        }
        Ok((0..layers.len()).map(|at| blobs[first(at)].clone()).collect())
    }

    fn distinct(&self, wanted: &[usize]) -> Result<Vec<(usize, Blob)>> {
        let there = |at: usize| -> Result<Option<(Region, Codec)>> {
            // What is encrypted cannot be copied as it lies there.
            let region = self.image.blobs.region(&self.image.layers[at].blob)?.filter(|it| it.veil.is_none());
            region.map(|region| Ok((region.clone(), sniff(&region)?))).transpose()
        };
        let named = |at| there(at).doing(|| self.doing(at));
        let there: Vec<Option<(Region, Codec)>> = (0..self.image.layers.len()).map(named).collect::<Result<_>>()?;
        let stored_bytes = |at: usize| match &there[at] {
            Some((region, _)) => region.len,
            None => self.image.layers[at].blob.size.unwrap_or(0),
        };
        self.monitor.begin(Phase::Read, wanted.iter().map(|&at| stored_bytes(at) * self.passes(at, &there[at])).sum());
        let order = largest_first(wanted.iter().map(|&at| (at, stored_bytes(at))));
        let ready = self.schedule.each(&order, |at| {
            let made = || {
                let local = match there[at].clone() {
                    // Its tar is made as it is read, and nothing is known of it that would have to be compared.
                    None if self.image.blobs.volume().is_some() => return self.make(at).map(Ok),
                    Some((region, codec)) => Local { region, codec, own: None, known: None },
                    None => self.fetch(at)?,
                };
                // Compressing takes all threads for one layer after the other: fewer chunks are held so.
                if self.is_compressed_anew(local.codec) { Ok(Err(local)) } else { self.ready(at, local).map(Ok) }
            };
            made().doing(|| self.doing(at))
        })?;
        let finish = |(at, ready)| match ready {
            Ok(blob) => Ok((at, blob)),
            Err(local) => Ok((at, self.remake(at, &local).doing(|| self.doing(at))?)),
        };
        ready.into_iter().map(finish).collect()
    }

    /// How many times the stored bytes are read.
    fn passes(&self, at: usize, there: &Option<(Region, Codec)>) -> u64 {
        let copies = u64::from(self.own_files && !self.is_adoptable(at));
        match there {
            Some((_, codec)) if self.is_compressed_anew(*codec) => 1,
            Some((_, Codec::None)) => 1 + copies,
            Some((_, codec)) if self.stays_compressed(*codec) => 2 + copies,
            _ => 1,
        }
    }

    fn doing(&self, at: usize) -> String {
        format!("reading {}", self.image.layer_name(at))
    }

    /// Whether the layer lies in a file that can become its blob.
    fn is_adoptable(&self, at: usize) -> bool {
        self.image.blobs.is_adoptable(&self.image.layers[at].blob)
    }

    fn staged(&self) -> bool {
        self.jobs.get() > 1
    }

    fn is_compressed_anew(&self, codec: Codec) -> bool {
        self.compression.kind() != Codec::None && !self.stays_compressed(codec)
    }

    fn stays_compressed(&self, codec: Codec) -> bool {
        self.keeps_compressed && matches!(codec, Codec::Gzip | Codec::Zstd)
    }

    fn expected_diff_id(&self, at: usize, found: Decoded) -> Result<()> {
        let expected = Expected { digest: self.image.layers[at].diff_id, size: None };
        expected.check(found.digest, found.bytes).doing(|| "the uncompressed layer against its diff_id")
    }

    /// Reads a stream once: it is written, hashed and decoded at the same time.
    fn fetch(&self, at: usize) -> Result<Local> {
        let layer = &self.image.layers[at];
        let scratch = (self.scratch)()?;
        let inner = self.image.blobs.open(&layer.blob)?;
        let stated = Hasher::like(layer.blob.digest);
        let hashers = (Hasher::new(Algorithm::Sha256), is_other(layer.blob.digest).then_some(stated));
        let mut tee = Tee { inner, hashers, file: Arc::clone(scratch.file()), bytes: 0 };
        let unchecked = Expected::default();
        let decoded = decode(Box::new(&mut tee), unchecked, layer.algorithm(), self.monitor, self.staged(), |_| Ok(()));
        if decoded.as_ref().is_err_and(|error| error.kind() == ErrorKind::InvalidImage) {
            // A digest that differs explains damage better than whatever the decoder stumbled over.
            io::copy(&mut tee, &mut io::sink()).map_err(read_error)?;
        }
        let (hashers, bytes) = (tee.hashers, tee.bytes);
        let digest = hashers.0.finish();
        let stated = hashers.1.map_or(digest, Hasher::finish);
        let found = match decoded {
            Ok(((), found)) => found,
            Err(error) if error.kind() == ErrorKind::InvalidImage => {
                layer.blob.expected().check(stated, bytes)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        layer.blob.expected().check(stated, bytes)?;
        self.expected_diff_id(at, found)?;
        let region = Region::whole(Arc::clone(scratch.file())).or_kind(ErrorKind::Output)?;
        Ok(Local { codec: sniff(&region)?, region, own: Some(Arc::new(scratch)), known: Some((digest, found)) })
    }

    fn ready(&self, at: usize, local: Local) -> Result<Blob> {
        match local.codec {
            Codec::None => self.keep(at, local),
            codec if self.stays_compressed(codec) => self.keep(at, local),
            _ => self.remake(at, &local),
        }
    }

    /// Leaves stored bytes as they are: copied where they need a file of their own and do not lie in one that can become it,
    /// while they are hashed and decoded.
    fn keep(&self, at: usize, local: Local) -> Result<Blob> {
        let stamp = match local.own {
            None if !self.is_adoptable(at) => Stamp::of(&local.region.file)?,
            _ => None,
        };
        let own = || match &local.own {
            Some(own) => Ok(Some(Arc::clone(own))),
            None if self.own_files && self.is_adoptable(at) => {
                Ok(Some(Arc::new(Scratch::adopt(Arc::clone(&local.region.file), self.mode))))
            }
            None if self.own_files => self.copy(&local.region).map(Some),
            None => Ok(None),
        };
        let hashes = || match local.known {
            Some(known) => Ok(known),
            None => self.hashes(at, &local),
        };
        let (own, hashes) = rayon::join(own, hashes);
        let (own, (digest, found)) = (own?, hashes?);
        let data = match &own {
            Some(own) => self.finished(own)?,
            None => local.region,
        };
        Ok(Blob { digest, diff_id: found.digest, codec: local.codec, data, own, tar_bytes: found.bytes, stamp })
    }

    /// A file that is written. It is made durable at once, while other layers are being worked at, so that the end need
    /// not wait for the disk.
    fn finished(&self, own: &Scratch) -> Result<Region> {
        if self.own_files {
            own.sync()?;
        }
        Region::whole(Arc::clone(own.file())).or_kind(ErrorKind::Output)
    }

    fn copy(&self, region: &Region) -> Result<Arc<Scratch>> {
        let scratch = (self.scratch)()?;
        let mut sink = FileSink::new(Arc::clone(scratch.file()));
        let mut done = 0;
        while done < region.len {
            self.schedule.check()?;
            let count = (region.len - done).min(COPY_BYTES);
            sink.copy(&region.file, region.offset + done, count, self.monitor)?;
            done += count;
        }
        sink.finish().or_kind(ErrorKind::Output)?;
        Ok(Arc::new(scratch))
    }

    /// The digests of stored bytes and of what they decode to, compared with all that is known of them.
    fn hashes(&self, at: usize, local: &Local) -> Result<(Digest, Decoded)> {
        let stored = || -> Result<(Digest, u64)> {
            let hashed = self.hash(&local.region, Algorithm::Sha256)?;
            let blob = &self.image.layers[at].blob;
            let (stated, bytes) = self.as_stated(&local.region, blob.digest, hashed)?;
            blob.expected().check(stated, bytes)?;
            Ok(hashed)
        };
        if local.codec == Codec::None {
            let (digest, bytes) = stored()?;
            let (diff_id, bytes) = self.as_stated(&local.region, self.image.layers[at].diff_id, (digest, bytes))?;
            let found = Decoded { digest: diff_id, bytes };
            self.expected_diff_id(at, found)?;
            return Ok((digest, found));
        }
        let algorithm = self.image.layers[at].algorithm();
        let unchecked = Expected::default();
        let decoded = || decode(self.reader(local), unchecked, algorithm, self.monitor, self.staged(), |_| Ok(()));
        let (stored, decoded) = rayon::join(stored, decoded);
        // Damage is told as the digest that differs, not as what the decoder stumbled over.
        let (digest, _) = stored?;
        let ((), found) = decoded?;
        self.expected_diff_id(at, found)?;
        Ok((digest, found))
    }

    /// A digest in the algorithm of the one that is stated, where `hashed` is not.
    fn as_stated(&self, region: &Region, stated: Option<Digest>, hashed: (Digest, u64)) -> Result<(Digest, u64)> {
        match stated.filter(|_| is_other(stated)) {
            Some(stated) => self.hash(region, stated.algorithm()),
            None => Ok(hashed),
        }
    }

    fn hash(&self, region: &Region, algorithm: Algorithm) -> Result<(Digest, u64)> {
        hash_region_with(algorithm, region, read_error, |count| {
            self.monitor.advance(count);
            self.schedule.check()
        })
    }

    /// Makes the layer of a file system.
    fn make(&self, at: usize) -> Result<Blob> {
        let blob = &self.image.layers[at].blob;
        let tar = Box::new(Stopping { inner: self.image.blobs.open(blob)?, stage: self });
        let Some((file, offset)) = self.in_place else { return self.remake_from(at, tar, blob.expected()) };
        let write = |tar: &mut dyn BufRead| pour(tar, Sequential::of_output(Arc::clone(file), offset)).map(drop);
        let algorithm = self.image.layers[at].algorithm();
        let ((), found) = decode(tar, blob.expected(), algorithm, self.monitor, self.staged(), write)?;
        let Decoded { digest, bytes } = found;
        let whole = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
        let data = Region { offset, len: bytes, ..whole };
        Ok(Blob { digest, diff_id: digest, codec: Codec::None, data, own: None, tar_bytes: bytes, stamp: None })
    }

    /// Decodes a layer, and compresses it where that is asked for, into a file of its own.
    fn remake(&self, at: usize, local: &Local) -> Result<Blob> {
        let expected = match local.known {
            Some(_) => Expected::default(),
            None => self.image.layers[at].blob.expected(),
        };
        self.remake_from(at, self.reader(local), expected)
    }

    fn remake_from(&self, at: usize, stored: Box<dyn Read + Send + '_>, expected: Expected) -> Result<Blob> {
        let scratch = (self.scratch)()?;
        let write = |tar: &mut dyn BufRead| self.write(tar, scratch.file());
        let algorithm = self.image.layers[at].algorithm();
        let (compressed, found) = decode(stored, expected, algorithm, self.monitor, self.staged(), write)?;
        self.expected_diff_id(at, found)?;
        let data = self.finished(&scratch)?;
        let digest = match compressed {
            Some(digest) => digest,
            None if is_other(Some(found.digest)) => self.hash(&data, Algorithm::Sha256)?.0,
            None => found.digest,
        };
        Ok(Blob {
            digest,
            diff_id: found.digest,
            codec: self.compression.kind(),
            data,
            own: Some(Arc::new(scratch)),
            tar_bytes: found.bytes,
            stamp: None,
        })
    }

    fn reader<'s>(&'s self, local: &Local) -> Box<dyn Read + Send + 's> {
        Box::new(Stopping { inner: local.region.reader(), stage: self })
    }

    /// Writes a tar; the digest of what it is compressed to, where it is.
    fn write(&self, tar: &mut dyn BufRead, file: &Arc<File>) -> Result<Option<Digest>> {
        let output = Sequential::new(Arc::clone(file));
        if self.compression.kind() == Codec::None {
            return pour(tar, output).map(|_| None);
        }
        let compressor = Compressor::new(HashingWriter::new(output), self.compression, Members::Many, self.jobs);
        let compressor = pour(tar, compressor)?;
        Ok(Some(compressor.finish().or_kind(ErrorKind::Output)?.finish().0))
    }
}

/// Whether a digest is not of the algorithm that blobs are named by here.
fn is_other(digest: Option<Digest>) -> bool {
    digest.is_some_and(|digest| digest.algorithm() != Algorithm::Sha256)
}

fn sniff(region: &Region) -> Result<Codec> {
    let mut start = [0; Codec::SNIFF_BYTES];
    let count = region.read_at(&mut start, 0).map_err(read_error)?;
    Ok(Codec::sniff(&start[..count]))
}

fn pour<W: Write>(from: &mut dyn BufRead, mut to: W) -> Result<W> {
    loop {
        let held = from.fill_buf().map_err(read_error)?;
        if held.is_empty() {
            return Ok(to);
        }
        to.write_all(held).or_kind(ErrorKind::Output)?;
        let count = held.len();
        from.consume(count);
    }
}

/// Writes to a file and hashes what is read through it.
struct Tee<'a> {
    inner: Box<dyn Read + Send + 'a>,
    /// SHA-256, and what is stated where that is something else.
    hashers: (Hasher, Option<Hasher>),
    file: Arc<File>,
    bytes: u64,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        // An error in writing must not be taken for damage of what is read.
        let written = self.file.write_all_at(&buffer[..count], self.bytes);
        written.map_err(|error| Error::io(ErrorKind::Output, error).into_io())?;
        self.hashers.0.update(&buffer[..count]);
        self.hashers.1.iter_mut().for_each(|hasher| hasher.update(&buffer[..count]));
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Stops where another layer has failed.
struct Stopping<'a, R> {
    inner: R,
    stage: &'a Stage<'a>,
}

impl<R: Read> Read for Stopping<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stage.schedule.check().map_err(Error::into_io)?;
        self.inner.read(buffer)
    }
}
