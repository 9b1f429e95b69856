//! The door to the `source` room: every use of it goes through here.

use std::fs::{File, Metadata};
use std::io::Seek;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::Monitor;
use crate::model::Digest;
use crate::source;

pub(super) use crate::registry::Settings;
pub(super) use source::{Candidate, EngineSettings, OpenOptions, Selection, Spec, StreamHash};

/// An opened source.
pub(super) struct Source {
    inner: source::Source,
    file: Option<Arc<File>>,
}

/// Opens a source.
pub(super) fn open(spec: &Spec, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let file = match spec {
        Spec::Stdin => file_of_stdin(),
        _ => spec.path().filter(|path| path.is_file()).and_then(|path| File::open(path).ok()),
    };
    let inner = source::open(spec, options, monitor)?;
    if let (Some(path), Some(file)) = (spec.path(), &file) {
        refuse_exchanged(spec, path, file)?;
    }
    Ok(Source { inner, file: file.map(Arc::new) })
}

/// The file that was redirected to standard input, where it is read as one: from its start.
fn file_of_stdin() -> Option<File> {
    let mut file = File::from(std::io::stdin().as_fd().try_clone_to_owned().ok()?);
    let whole = file.metadata().ok()?.is_file() && file.stream_position().ok()? == 0;
    whole.then_some(file)
}

/// The file under `path` must be the one that was open before the source opened it too: what is hashed must be what is
/// converted.
fn refuse_exchanged(spec: &Spec, path: &Path, file: &File) -> Result<()> {
    let identity = |data: Metadata| (data.dev(), data.ino());
    match (file.metadata().map(identity), std::fs::metadata(path).map(identity)) {
        (Ok(before), Ok(after)) if before == after => Ok(()),
        _ => Err(Error::new(ErrorKind::SourceUnavailable, format!("{spec} was replaced while it was opened"))
            .hint("run the same command again when nobody writes the file")),
    }
}

impl Source {
    /// What kind of source it turned out to be: `docker-archive`, `oci-archive`, `oci`, …
    pub(super) fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    /// The images it lists, in its own order, those included that are not there.
    pub(super) fn images(&self) -> Vec<Candidate> {
        self.inner.images()
    }

    /// The file that it reads from, where it is one.
    pub(super) fn file(&self) -> Option<Arc<File>> {
        self.file.clone()
    }

    /// SHA-256 and length of the stream that it came as, where it came as one and was hashed.
    pub(super) fn stream_sha256(&self) -> Option<(Digest, u64)> {
        self.inner.stream_sha256()
    }

    /// Takes one image.
    pub(super) fn select(&self, selection: &Selection) -> Result<Image> {
        self.inner.select(selection)
    }

    /// Takes the image at `position` of [`Source::images`].
    pub(super) fn select_at(&self, position: usize) -> Result<Image> {
        self.select(&Selection { image: Some(format!("@{position}")), platform: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchanged_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        std::fs::write(&path, "one").unwrap();
        let file = File::open(&path).unwrap();
        let spec = Spec::Path(path.clone());
        assert!(refuse_exchanged(&spec, &path, &file).is_ok());
        std::fs::write(directory.path().join("y"), "two").unwrap();
        std::fs::rename(directory.path().join("y"), &path).unwrap();
        assert_eq!(refuse_exchanged(&spec, &path, &file).unwrap_err().kind(), ErrorKind::SourceUnavailable);
    }
}
