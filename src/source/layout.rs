use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::Store;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::image::{BlobRef, Blobs};
use crate::io::Region;
use crate::model::{Digest, Quoted};

/// An OCI image layout directory (image-spec, image-layout.md): blobs are files below `blobs/ALGORITHM`.
///
/// Keys are `index.json` or digests, so that no key can name a file elsewhere.
pub(super) struct Layout {
    directory: PathBuf,
    name: String,
}

impl Layout {
    pub(super) fn new(directory: &Path, name: String) -> Layout {
        Layout { directory: directory.to_path_buf(), name }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        if key == super::INDEX {
            return Ok(self.directory.join(key));
        }
        let digest: Digest = key.parse()?;
        Ok(self.directory.join("blobs").join(digest.algorithm().name()).join(digest.hex()))
    }

    /// The whole file behind `key`; `None` where there is none.
    fn file(&self, key: &str) -> Result<Option<Region>> {
        let path = self.path(key)?;
        let named = || Quoted(path.as_os_str().as_encoded_bytes()).to_string();
        // Looked at before it is opened: opening a named pipe would wait for a writer.
        match path.metadata() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(Error::io(ErrorKind::SourceUnavailable, error).doing(named())),
            Ok(metadata) if !metadata.is_file() => {
                Err(Error::new(ErrorKind::InvalidImage, format!("{} is not a regular file", named())))
            }
            Ok(_) => {
                let file = File::open(&path).or_kind(ErrorKind::SourceUnavailable).doing(named)?;
                Region::whole(Arc::new(file)).or_kind(ErrorKind::SourceUnavailable).doing(named).map(Some)
            }
        }
    }

    fn present(&self, key: &str) -> Result<Region> {
        self.file(key)?.ok_or_else(|| {
            Error::new(ErrorKind::InvalidImage, format!("{} has no blob {key}", self.name))
                .hint("the layout is damaged or incomplete: copy it again")
        })
    }
}

impl Blobs for Layout {
    fn open(&self, blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>> {
        self.read(&blob.key)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn region(&self, blob: &BlobRef) -> Result<Option<Region>> {
        self.present(&blob.key).map(Some)
    }
}

impl Store for Layout {
    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.file(key)?.map(|region| region.len))
    }

    fn read(&self, key: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.present(key)?.reader()))
    }

    fn key(&self, digest: &Digest) -> String {
        digest.to_string()
    }
}
