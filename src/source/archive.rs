use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use super::document::Store;
use super::input::{Hashed, Input, mismatch};
use super::members::{Contents, Members};
use super::{InputHash, OpenOptions, keep, recognise, spec};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::image::{BlobRef, Blobs};
use crate::io::{CHUNK_BYTES, Codec, HashingReader, Monitor, Phase, Region, Watched, decoder};
use crate::model::Digest;

/// An archive, from a file or from a stream: blobs are its members.
pub(super) struct Archive {
    name: String,
    members: Members,
    input: Arc<Input>,
}

impl Archive {
    /// Opens the archive at `path`; `name` is what messages call it.
    pub(super) fn open(path: &Path, name: String, options: &OpenOptions, monitor: &Monitor) -> Result<Archive> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => spec::no_such_path(path),
            _ => Error::io(ErrorKind::SourceUnavailable, error),
        })?;
        Archive::of_opened(file, name, options, monitor)
    }

    /// Opens the archive that standard input is: a pipe of any kind, or a file that was redirected to it.
    pub(super) fn of_stdin(name: String, options: &OpenOptions, monitor: &Monitor) -> Result<Archive> {
        let input = io::stdin().as_fd().try_clone_to_owned().or_kind(ErrorKind::SourceUnavailable)?;
        Archive::of_opened(File::from(input), name, options, monitor)
    }

    fn of_opened(mut file: File, name: String, options: &OpenOptions, monitor: &Monitor) -> Result<Archive> {
        let metadata = file.metadata().or_kind(ErrorKind::SourceUnavailable)?;
        // A file of which a part has been read already is a stream that begins there.
        if !metadata.is_file() || file.stream_position().or_kind(ErrorKind::SourceUnavailable)? != 0 {
            return Archive::of_reader(file, None, name, options, monitor);
        }
        monitor.begin(Phase::Open, metadata.len());
        let file = Arc::new(file);
        let input = Arc::new(Input::of_file(&file, options.hash, monitor));
        let members = of_file(file, options, monitor).map_err(|error| input.blame(error))?;
        Ok(Archive { name, members, input })
    }

    /// Reads an archive whose bytes come once, to the end of the stream: whoever writes it must not find the pipe closed.
    /// `at_least` is how many bytes it takes unpacked, where that is known.
    pub(super) fn of_reader(
        stream: impl Read + Send,
        at_least: Option<u64>,
        name: String,
        options: &OpenOptions,
        monitor: &Monitor,
    ) -> Result<Archive> {
        monitor.begin(Phase::Open, 0);
        let mut stream = Watched { inner: stream, monitor };
        if options.hash == InputHash::Unneeded {
            let members = of_stream(&mut stream, at_least, options, monitor)?;
            drain(&mut stream)?;
            return Ok(Archive { name, members, input: Arc::new(Input::of_stream(None, monitor)) });
        }
        let mut stream = HashingReader::new(stream);
        let members = of_stream(&mut stream, at_least, options, monitor);
        let (members, stream) = expected_stream(members, stream, options.hash)?;
        Ok(Archive { name, members, input: Arc::new(Input::of_stream(Some(stream), monitor)) })
    }

    /// The file or stream that it is.
    pub(super) fn input(&self) -> &Arc<Input> {
        &self.input
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// What the archive is called once it is known what it holds.
    pub(super) fn rename(&mut self, name: String) {
        self.name = name;
    }

    fn contents(&self, key: &str) -> Result<&Contents> {
        self.members.find(key.as_bytes())?.ok_or_else(|| {
            Error::new(ErrorKind::InvalidImage, format!("{} has no member {key:?}", self.name))
                .hint("the archive is damaged or incomplete: fetch or save it again")
        })
    }
}

impl Blobs for Archive {
    fn open(&self, blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>> {
        self.read(&blob.key)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn confirm(&self) -> Result<()> {
        self.input.confirm()
    }

    fn is_adoptable(&self, blob: &BlobRef) -> bool {
        matches!(self.contents(&blob.key), Ok(Contents::Own(_)))
    }

    fn region(&self, blob: &BlobRef) -> Result<Option<Region>> {
        Ok(match self.contents(&blob.key)? {
            Contents::Region(region) | Contents::Own(region) => Some(region.clone()),
            Contents::Kept(_) | Contents::Passed(_) | Contents::NoDocument(_) => None,
        })
    }
}

impl Store for Archive {
    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.members.find(key.as_bytes())?.map(Contents::len))
    }

    fn read(&self, key: &str) -> Result<Box<dyn Read + Send + '_>> {
        self.contents(key)?.reader().doing(|| format!("reading {key:?} of {}", self.name))
    }

    fn key(&self, digest: &Digest) -> String {
        format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
    }
}

/// A regular file: read in place when it is not compressed.
fn of_file(file: Arc<File>, options: &OpenOptions, monitor: &Monitor) -> Result<Members> {
    let region = Region::whole(file).or_kind(ErrorKind::SourceUnavailable)?;
    let mut start = vec![0; recognise::LOOK_BYTES];
    let count = region.read_at(&mut start, 0).or_kind(ErrorKind::SourceUnavailable)?;
    if Codec::sniff(&start[..count]) == Codec::None {
        recognise::expect_tar(&start[..count])?;
        return Members::of_region(&region, monitor);
    }
    // Unpacked, an archive takes at least what it takes packed.
    of_stream(&mut Watched { inner: region.reader(), monitor }, Some(region.len), options, monitor)
}

/// Bytes that come once, compressed or not: looked at, or unpacked to a temporary file.
fn of_stream<R: Read + Send>(
    stream: &mut R,
    at_least: Option<u64>,
    options: &OpenOptions,
    monitor: &Monitor,
) -> Result<Members> {
    let mut start = vec![0; Codec::SNIFF_BYTES];
    let count = fill(stream, &mut start).or_kind(ErrorKind::SourceUnavailable)?;
    let codec = Codec::sniff(&start[..count]);
    let whole = BufReader::with_capacity(CHUNK_BYTES, io::Cursor::new(start[..count].to_vec()).chain(stream));
    let inner = decoder(codec, whole).or_kind(ErrorKind::InvalidImage)?;
    unpack(Decoded { inner, codec }, at_least, options, monitor)
}

fn unpack(mut decoded: impl Read, at_least: Option<u64>, options: &OpenOptions, monitor: &Monitor) -> Result<Members> {
    let mut start = vec![0; recognise::LOOK_BYTES];
    let count = fill(&mut decoded, &mut start).or_kind(ErrorKind::InvalidImage)?;
    recognise::expect_tar(&start[..count])?;
    let whole = io::Cursor::new(&start[..count]).chain(decoded);
    if !options.want_layers {
        return Members::of_stream(BufReader::with_capacity(CHUNK_BYTES, whole), monitor);
    }
    // A root file system is one layer, in one piece.
    let is_root = recognise::begins_as_root(&start[..count]);
    match options.adopting.as_ref().filter(|_| !is_root) {
        Some(directory) => keep::members(whole, at_least, options, directory, monitor),
        None => Members::of_region(&keep::all(whole, at_least, is_root, options, monitor)?, monitor),
    }
}

/// Reads what is left of a stream: what follows the end marker of a tar, or the end of a compressed stream.
fn drain(stream: &mut impl Read) -> Result<()> {
    io::copy(stream, &mut io::sink()).map(drop).or_kind(ErrorKind::SourceUnavailable)
}

/// Compares a stream with what it must be. A wrong hash is the reason for whatever else seems wrong with it.
fn expected_stream(
    members: Result<Members>,
    mut stream: HashingReader<impl Read>,
    hash: InputHash,
) -> Result<(Members, Hashed)> {
    let members = match (members, hash) {
        (Err(error), InputHash::Expected(_)) if error.kind() == ErrorKind::InvalidImage => Err(error),
        (members, _) => Ok(members?),
    };
    if let Err(error) = drain(&mut stream) {
        return Err(members.err().unwrap_or(error));
    }
    let (digest, bytes) = stream.finish();
    match hash {
        InputHash::Expected(expected) if expected != digest => {
            let mismatch = mismatch("the input", digest, expected);
            Err(match members {
                Ok(_) => mismatch,
                Err(error) => mismatch.because(error),
            })
        }
        _ => Ok((members?, (digest, bytes))),
    }
}

/// Reads until `buffer` is full or the stream ends.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Says in our words what is wrong with a compressed stream: each decoder has its own.
struct Decoded<R> {
    inner: R,
    codec: Codec,
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let ours = error.get_ref().is_some_and(|inner| inner.is::<Error>());
            if ours || self.codec == Codec::None || error.raw_os_error().is_some() {
                return error;
            }
            let what = match error.kind() {
                io::ErrorKind::Interrupted => return error,
                io::ErrorKind::UnexpectedEof => "truncated",
                _ => "damaged",
            };
            Error::new(ErrorKind::InvalidImage, format!("the {} stream around the archive is {what}", self.codec))
                .because(error)
                .hint("the archive is damaged or incomplete: fetch or save it again")
                .into_io()
        })
    }
}
