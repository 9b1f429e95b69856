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

/// An image that the word of a SOURCE asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) word: &'a str,
    /// Whether the word is a reference of an OCI layout, which may be a tag that stands beside a full name.
    pub(super) is_reference: bool,
}

impl Wanted<'_> {
    /// Whether it is what an image with these names is found by before all else.
    fn is_one_of(&self, names: &[String]) -> bool {
        let full = full_name(self.word);
        let is_full = |name: &String| name.contains(['/', ':']);
        let has_full = names.iter().any(is_full);
        names.iter().any(|name| match is_full(name) {
            true => name == self.word || full_name(name) == full,
            false => name == self.word && (self.is_reference || !has_full),
        })
    }
}

/// Reads documents out of a store: bounded, and checked against their digests.
pub(super) struct Documents<'a> {
    pub(super) store: &'a dyn Store,
    /// The image that is asked for, where it may be one name: of others nothing needs to be read.
    wanted: Option<Wanted<'a>>,
    left_bytes: Cell<u64>,
}

impl<'a> Documents<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Documents { store, wanted: None, left_bytes: Cell::new(DOCUMENTS_BYTES_MAX) }
    }

    /// Those in which an image is looked for.
    pub(super) fn looked_through_for(store: &'a dyn Store, wanted: Option<Wanted<'a>>) -> Self {
        Documents { wanted, ..Documents::new(store) }
    }

    /// Leaves of a list of images those entries that have the name that is asked for, what is of the same image by its
    /// `identity`, and what `is_beside` images; whether others were left out. Where nothing has that name all are left: it may be
    /// a number, or the digest of something.
    pub(super) fn narrow<T, I: Ord>(
        &self,
        entries: &mut Vec<Result<T>>,
        identity: impl Fn(&T) -> I,
        names: impl Fn(&T) -> Vec<String>,
        is_beside: impl Fn(&T) -> bool,
    ) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let is_called = |entry: &&T| wanted.is_one_of(&names(entry));
        let called: BTreeSet<I> = entries.iter().flatten().filter(is_called).map(&identity).collect();
        let before = entries.len();
        if !called.is_empty() {
            entries.retain(|entry| {
                entry.as_ref().is_ok_and(|entry| called.contains(&identity(entry)) || is_beside(entry))
            });
        }
        entries.len() < before
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

#[cfg(test)]
mod tests {
    use super::*;

    /// In a layout `2` finds the entry that has `2` as a tag beside its full name; in a docker-archive it counts images.
    #[test]
    fn a_name_is_what_an_image_is_found_by_first() {
        for (word, names, of_layout, elsewhere) in [
            ("2", &["docker.io/library/foo:2", "2"][..], true, false),
            ("2", &["2"], true, true),
            ("q:latest", &["q"], false, false),
            ("q", &["q:latest"], true, true),
            ("docker.io/library/app:1", &["app:1"], true, true),
            ("app:1", &["other/app:1", "app"], false, false),
        ] {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            for (is_reference, is_called) in [(true, of_layout), (false, elsewhere)] {
                assert_eq!(
                    Wanted { word, is_reference }.is_one_of(&names),
                    is_called,
                    "{word} {names:?} {is_reference}"
                );
            }
        }
    }
}
