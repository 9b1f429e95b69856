use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::Read as _;

use super::catalogue::full_name;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::image::{Blobs, Layer};
use crate::io::Expected;
use crate::model::{DOCUMENT_BYTES_MAX, Digest, Quoted};

/// How many bytes of documents one source may have altogether, so that ten thousand configs cannot fill the memory.
const DOCUMENTS_BYTES_MAX: u64 = 256 << 20;

/// What a source adds to [`Blobs`]: looking before reading, and blobs by digest.
pub(super) trait Store: Blobs {
    /// How many bytes are stored under `key`; `None` where there is nothing.
    fn size(&self, key: &str) -> Result<Option<u64>>;

    /// Whether there is a blob under `key`.
    fn has(&self, key: &str) -> Result<bool> {
        Ok(self.size(key)?.is_some())
    }

    /// The bytes stored under `key`, which is there.
    fn read(&self, key: &str) -> Result<Box<dyn std::io::Read + Send + '_>>;

    /// The key of the blob with that digest, whether it is there or not.
    fn key(&self, digest: &Digest) -> String;

    /// Says which layers will be opened, so that they can be fetched ahead.
    fn will_read(&self, _layers: &[Layer]) {}
}

/// Reads documents out of a store: bounded, and checked against their digests.
pub(super) struct Documents<'a> {
    pub(super) store: &'a dyn Store,
    /// The name of the image that is asked for: of others nothing needs to be read.
    wanted: Option<&'a str>,
    left_bytes: Cell<u64>,
}

impl<'a> Documents<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Documents { store, wanted: None, left_bytes: Cell::new(DOCUMENTS_BYTES_MAX) }
    }

    /// Those in which an image is looked for by the word of a SOURCE, which may be its name.
    pub(super) fn looked_through_for(store: &'a dyn Store, wanted: Option<&'a str>) -> Self {
        Documents { wanted, ..Documents::new(store) }
    }

    /// Those entries of a list of images that have the name that is asked for, and what is of the same image: each has an
    /// identity, and names. All of them, where none has that name: it may be a number, or the digest of something.
    pub(super) fn called<T, I: Ord>(
        &self,
        entries: Vec<Result<T>>,
        identity: impl Fn(&T) -> I,
        names: impl Fn(&T) -> Vec<String>,
    ) -> Vec<Result<T>> {
        let Some(word) = self.wanted else { return entries };
        let full = full_name(word);
        let is_called = |entry: &&T| names(entry).iter().any(|name| name == word || full_name(name) == full);
        let wanted: BTreeSet<I> = entries.iter().flatten().filter(is_called).map(&identity).collect();
        if wanted.is_empty() {
            return entries;
        }
        entries.into_iter().filter(|entry| entry.as_ref().is_ok_and(|it| wanted.contains(&identity(it)))).collect()
    }

    /// Reads the document under `key`; `None` where there is none.
    pub(super) fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let Some(size) = self.store.size(key).doing(|| self.doing(key))? else { return Ok(None) };
        self.afford(size).doing(|| self.doing(key))?;
        let mut bytes = Vec::new();
        let reader = self.store.read(key)?;
        // A layout's file may have grown since it was looked at: the limit holds for what is read.
        reader.take(size).read_to_end(&mut bytes).or_kind(ErrorKind::InvalidImage).doing(|| self.doing(key))?;
        Ok(Some(bytes))
    }

    /// Reads the blob with this digest and checks that it has it; `None` where there is none.
    pub(super) fn read_blob(&self, digest: Digest) -> Result<Option<Vec<u8>>> {
        let key = self.store.key(&digest);
        let Some(bytes) = self.read(&key)? else { return Ok(None) };
        Expected::digest(digest).check_bytes(&bytes).doing(|| self.doing(&key))?;
        Ok(Some(bytes))
    }

    /// What messages say is being done.
    pub(super) fn doing(&self, key: &str) -> String {
        format!("reading {} of {}", Quoted(key.as_bytes()), self.store.name())
    }

    fn afford(&self, size: u64) -> Result<()> {
        if size > DOCUMENT_BYTES_MAX {
            let message = format!("the document has {size} bytes, more than {DOCUMENT_BYTES_MAX}");
            return Err(Error::new(ErrorKind::InvalidImage, message));
        }
        let left = self.left_bytes.get().checked_sub(size).ok_or_else(|| {
            let message = format!("the documents have more than {DOCUMENTS_BYTES_MAX} bytes altogether");
            Error::new(ErrorKind::InvalidImage, message)
        })?;
        self.left_bytes.set(left);
        Ok(())
    }
}
