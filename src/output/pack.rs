//! A folder as a reproducible `.tar.gz`: what MedPerf calls additional files.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::{Destination, IfExists};
use super::{Sequential, hash_file};
use crate::error::{Error, ErrorKind, IoResultExt, Result, ResultExt};
use crate::folder::Folder;
use crate::io::{Compressor, HashingWriter, Monitor, Output, Phase, StreamCodec, is_stream};
use crate::model::{Digest, Note};

/// gzip level where none is given: that of `tar -z`.
pub const GZIP_LEVEL_DEFAULT: u32 = 6;

/// One folder to be packed, with every choice made.
#[derive(Debug, Clone)]
pub struct PackRequest {
    /// What is packed.
    pub folder: PathBuf,
    /// Where to.
    pub destination: Destination,
    /// gzip level, 1 to 9.
    pub level: u32,
    /// How many threads may compress at once.
    pub jobs: NonZeroUsize,
    /// What to do when the output exists. It may be reused where it holds the very bytes that would be written.
    pub if_exists: IfExists,
    /// Permission bits of the output file; the caller has applied the umask.
    pub output_mode: u32,
    /// `SOURCE_DATE_EPOCH`, in seconds: later times become this.
    pub source_date_epoch: Option<i64>,
}

/// What was packed.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Size of the output in bytes.
    pub size: u64,
    /// SHA-256 of the output.
    pub sha256: Digest,
    /// Names in the output.
    pub entries: u64,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// Packs a folder.
///
/// # Errors
/// See [`crate::folder::Folder`]; [`ErrorKind::Output`] when the output exists and is not to be replaced, or cannot be
/// written. The output does not exist then (a stream may have taken a part of it).
pub fn pack(request: &PackRequest, monitor: &Monitor) -> Result<Packed> {
    let folder = Folder::open(&request.folder, monitor)?;
    let mut notes = folder.notes().to_vec();
    let entries = folder.names();
    let done = |(sha256, size), notes| Packed { size, sha256, entries, notes };
    let write = |inner| write(&folder, inner, request, monitor);
    let path = match &request.destination {
        Destination::Stdout => {
            let stdout = rustix::io::dup(io::stdout()).map_err(io::Error::from);
            let stdout = File::from(stdout.or_kind(ErrorKind::Output).doing(|| "opening standard output")?);
            return Ok(done(write(Box::new(stdout))?, notes));
        }
        Destination::Path(path) => path,
    };
    if is_stream(path) {
        let stream = File::options().write(true).open(path).or_kind(ErrorKind::Output);
        return Ok(done(write(Box::new(stream.doing(|| format!("opening output {path:?}"))?))?, notes));
    }
    if request.if_exists == IfExists::Reuse && path.exists() {
        let found = write(Box::new(io::sink()))?;
        expect_same(path, found.0, monitor)?;
        notes.push(reused());
        return Ok(done(found, notes));
    }
    let output = Output::create(path, request.if_exists.replaces(), request.output_mode)?;
    let made = write(Box::new(Sequential { file: Arc::clone(output.file()), position: 0 }))?;
    monitor.begin(Phase::Finish, 0);
    monitor.check()?;
    match output.publish() {
        // Somebody else was faster, with the same bytes or with others.
        Err(error) if request.if_exists == IfExists::Reuse && path.exists() => {
            expect_same(path, made.0, monitor).map_err(|mismatch| mismatch.because(error))?;
            notes.push(reused());
        }
        published => published?,
    }
    Ok(done(made, notes))
}

fn write(
    folder: &Folder,
    inner: Box<dyn Write + Send>,
    request: &PackRequest,
    monitor: &Monitor,
) -> Result<(Digest, u64)> {
    let hashing = HashingWriter::new(inner);
    let mut compressor = Compressor::new(hashing, StreamCodec::Gzip(request.level), request.jobs);
    let written = folder.write(&mut compressor, request.source_date_epoch, monitor);
    written.doing(|| format!("packing folder {:?}", request.folder))?;
    let mut hashing = compressor.finish().or_kind(ErrorKind::Output)?;
    hashing.flush().or_kind(ErrorKind::Output)?;
    Ok(hashing.finish())
}

fn expect_same(path: &Path, wanted: Digest, monitor: &Monitor) -> Result<()> {
    if hash_file(path, monitor)? == wanted {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Output, format!("output {path:?} exists and is not what would be written"))
        .hint("add --force to replace it, or name another file with -o"))
}

fn reused() -> Note {
    Note::new("output-reused", "the output was there already, with the same bytes, and is used as it is", 1)
}
