//! A folder as a reproducible `.tar.gz`: what MedPerf calls additional files.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::hash_file;
use super::options::{Destination, IfExists, Outcome, WriteOptions};
use super::place::Place;
use super::prepared::{REUSED, Task};
use super::sink::Sequential;
use crate::error::{Error, ErrorKind, IoResultExt, Remedy, Result, ResultExt};
use crate::folder::{Folder, is_inside};
use crate::io::{Compression, Compressor, HashingWriter, Levels, Members, Monitor, Phase};
use crate::model::{Digest, Note, Quoted};

/// A folder as a reproducible `.tar.gz` for a MedPerf submission: what is packed is not an image, all else is as for a
/// [`Target`](super::Target).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AdditionalFiles {
    /// gzip, with a level from 1 to 9.
    pub compression: Option<Compression>,
}

/// An output that has been begun, and waits for its folder.
#[derive(Debug)]
pub struct PreparedFolder {
    compression: Compression,
    task: Task,
    /// Missing where a file exists that may be what would be written.
    place: Option<Place>,
}

impl AdditionalFiles {
    /// Its name on the command line and in reports.
    pub const NAME: &'static str = "additional-files";
    /// What it is, in one line.
    pub const ABOUT: &'static str = "a folder, SOURCE, as a reproducible .tar.gz for a MedPerf submission";
    /// What the output is called where nobody says so: what MedPerf calls it.
    pub const DEFAULT_NAME: &'static str = "additional_files.tar.gz";

    /// gzip at its usual level.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks everything that can be known before `folder` is read, and begins the output.
    ///
    /// # Errors
    /// As [`Target::prepare`](super::Target::prepare); [`ErrorKind::Usage`] when the output would lie in the folder.
    pub fn prepare(&self, folder: &Path, destination: &Destination, options: &WriteOptions) -> Result<PreparedFolder> {
        let compression = Levels::TAR_GZ.settle(self.compression)?;
        if let Destination::Path(path) = destination
            && is_inside(folder, path)?
        {
            let message = format!(
                "the output {} would lie in the folder that is packed",
                Quoted(path.as_os_str().as_encoded_bytes())
            );
            return Err(Error::new(ErrorKind::Usage, message).hint("name a file outside of the folder"));
        }
        if let Destination::Registry(hosting) = destination {
            let message = format!("additional files cannot be pushed to {hosting}");
            return Err(Error::new(ErrorKind::Usage, message).hint("choose a file as the output"));
        }
        let task = Task::unchecked(0o666, destination, options);
        let may_reuse = options.if_exists == Some(IfExists::Reuse) && task.reusable().is_some();
        let place = if may_reuse { None } else { Some(Place::open(&task)?) };
        Ok(PreparedFolder { compression, task, place })
    }
}

impl PreparedFolder {
    /// Packs a folder.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when something in the folder cannot be read or is changed meanwhile, [`ErrorKind::Unsupported`]
    /// when it cannot be packed; [`ErrorKind::Output`] when the output exists and is not to be replaced, or cannot be written. The
    /// output does not exist then (a stream may have taken a part of it).
    pub fn write(self, folder: &Path, monitor: &Monitor) -> Result<Outcome> {
        let PreparedFolder { compression, task, place } = self;
        let packing = || format!("packing folder {folder:?}");
        let folder = Folder::open(folder, monitor)?;
        let pack = |inner| pack(&folder, inner, compression, &task, monitor).doing(packing);
        let done = |(sha256, size), more: Option<Note>| Outcome {
            size,
            sha256: Some(sha256),
            entries: folder.names(),
            notes: folder.notes().iter().cloned().chain(more).collect(),
            ..Outcome::default()
        };
        let place = match (place, task.reusable()) {
            (None, Some(existing)) => {
                let found = pack(Box::new(io::sink()))?;
                expect_same(existing, found.0, monitor)?;
                return Ok(done(found, Some(reused())));
            }
            (place, _) => place.map_or_else(|| Place::open(&task), Ok)?,
        };
        let output = match place {
            Place::File(output) => output,
            Place::Stream(stream) => return Ok(done(pack(Box::new(stream))?, None)),
            _ => return Err(Error::new(ErrorKind::Bug, "a folder was to be packed into a layout")),
        };
        let made = pack(Box::new(Sequential::new(Arc::clone(output.file()))))?;
        monitor.begin(Phase::Finish, 0);
        monitor.check()?;
        match (output.publish(), task.reusable()) {
            // Somebody else was faster, with the same bytes or with others.
            (Err(error), Some(existing)) if task.options.if_exists == Some(IfExists::Reuse) => {
                expect_same(existing, made.0, monitor).map_err(|mismatch| mismatch.because(error))?;
                Ok(done(made, Some(reused())))
            }
            (published, _) => published.map(|()| done(made, None)),
        }
    }
}

fn pack(
    folder: &Folder,
    inner: Box<dyn Write + Send>,
    compression: Compression,
    task: &Task,
    monitor: &Monitor,
) -> Result<(Digest, u64)> {
    let hashing = HashingWriter::new(inner);
    let mut compressor = Compressor::new(hashing, compression, Members::One, task.options.jobs);
    folder.write(&mut compressor, task.options.source_date_epoch, monitor)?;
    let mut hashing = compressor.finish().or_kind(ErrorKind::Output)?;
    hashing.flush().or_kind(ErrorKind::Output)?;
    Ok(hashing.finish())
}

fn expect_same(path: &Path, wanted: Digest, monitor: &Monitor) -> Result<()> {
    if hash_file(path, monitor)? == wanted {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Output, format!("output {path:?} exists and is not what would be written"))
        .with_remedy(Remedy::Replace))
}

fn reused() -> Note {
    Note::new(REUSED, "the output was there already, with the same bytes, and is used as it is", 1)
}
