//! An image as every source gives it: a config, layers in order, and a place to read blobs from.
//!
//! The idea to hold: a source implements [`Blobs`], the minimum; everything else is derived here from the documents.
//! Nothing here opens files or sockets.

use std::io::Read;
use std::sync::Arc;

use serde_json::Value;

use crate::error::Result;
use crate::io::{Expected, Region};
use crate::model::{Algorithm, Config, ConfigChanges, Digest, Platform};
pub use crate::volume::{TarStream, Volume};

/// Names one blob of a [`Blobs`], and says what it must turn out to be.
#[derive(Debug, Clone)]
pub struct BlobRef {
    /// The source's own name for it: an archive member, or a digest.
    pub key: String,
    /// What its stored bytes must hash to, where the source's documents say so.
    pub digest: Option<Digest>,
    /// How many stored bytes there must be, where the source's documents say so.
    pub size: Option<u64>,
    /// The media type that was declared for it; a hint for people, never trusted.
    pub media_type: Option<String>,
}

impl BlobRef {
    /// What a verified read must find.
    pub fn expected(&self) -> Expected {
        Expected { digest: self.digest, size: self.size }
    }
}

/// Where blobs come from: all that a new source has to write. Any blob may be opened several times, from several threads
/// at once. Bytes arrive as stored and unverified.
pub trait Blobs: Send + Sync {
    /// Opens a blob.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    fn open(&self, blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>>;

    /// Opens a blob to be read to its end, and says what its bytes must then turn out to be: [`BlobRef::expected`], but for
    /// what the source compares itself before it lets the stream end.
    ///
    /// # Errors
    /// As [`Blobs::open`].
    fn open_expecting(&self, blob: &BlobRef) -> Result<(Box<dyn Read + Send + '_>, Expected)> {
        Ok((self.open(blob)?, blob.expected()))
    }

    /// What people call this source: `docker-archive "x.tar"`.
    fn name(&self) -> String;

    /// The stretch of a local file that holds the blob's stored bytes, where there is one.
    ///
    /// # Errors
    /// When the blob is not there.
    fn region(&self, _blob: &BlobRef) -> Result<Option<Region>> {
        Ok(None)
    }

    /// The file system that the one layer is, where it is one already: whoever needs no tar of it need not make one.
    fn volume(&self) -> Option<&Arc<Volume>> {
        None
    }

    /// Says that a blob will not be opened after all, so that it need not be fetched ahead.
    fn forget(&self, _blob: &BlobRef) {}

    /// Whether the region of a blob is all of an unnamed file of ours, which may become an output.
    fn is_adoptable(&self, _blob: &BlobRef) -> bool {
        false
    }

    /// Waits until it is known whether the source is the one that was expected. What was made of its blobs may be shown to
    /// the world only after that.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`](crate::ErrorKind) when it is another; said once.
    fn confirm(&self) -> Result<()> {
        Ok(())
    }

    /// What the user should know about how blobs were read until now: of several mirrors one failed, for example.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Why no blob is kept in the cache that was named, where that is so.
    fn cache_refusal(&self) -> Option<&str> {
        None
    }
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Where its stored bytes are.
    pub blob: BlobRef,
    /// The digest of its uncompressed tar; unknown only in archives of Docker before 1.10.
    pub diff_id: Option<Digest>,
}

impl Layer {
    /// What its uncompressed tar is hashed with.
    pub fn algorithm(&self) -> Algorithm {
        self.diff_id.map(|digest| digest.algorithm()).unwrap_or_default()
    }
}

/// What a build says of an image: an in-toto statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// What kind of statement it is.
    pub predicate_type: String,
    /// What it says, in the bytes that the statement has.
    pub predicate: Vec<u8>,
    /// The whole statement.
    pub statement: Vec<u8>,
}

/// An image: documents, layers, and where the layers' bytes come from.
#[derive(Clone)]
#[non_exhaustive]
pub struct Image {
    /// Where blobs are read from.
    pub blobs: Arc<dyn Blobs>,
    /// The image config.
    pub config: Config,
    /// The digest of the manifest that led here, where there is one.
    pub manifest_digest: Option<Digest>,
    /// The digest of the image index that led here, where there is one.
    pub index_digest: Option<Digest>,
    /// The platform that was asked for: it counts where the config names none. What an index says of it does not: the same
    /// image gives the same bytes wherever it is listed.
    pub asked_platform: Option<Platform>,
    /// Layers, lowest first.
    pub layers: Vec<Layer>,
    /// All names it goes by, in full spelling, in the source's order.
    pub names: Vec<String>,
    /// Bare tags it goes by, where the source says no name that they belong to.
    pub tags: Vec<String>,
    /// Names of an OCI layout that are not names with a tag as Docker knows them, as they are written.
    pub ref_names: Vec<String>,
    /// The bytes of the manifest that led here, where there is one, so that they can be kept.
    pub manifest: Option<Arc<[u8]>>,
    /// Things a user should know that are not errors.
    pub warnings: Vec<String>,
    /// What made each layer, lowest first, where the config has no history: entries as image-spec config.md has them, of an image
    /// of Docker before 1.10.
    pub history: Option<Value>,
    /// What builds say of it, where that was asked for: see [`Source::attestations`](crate::source::Source::attestations).
    pub attestations: Vec<Attestation>,
}

impl Image {
    /// An image without a name, which no manifest led to.
    pub fn new(blobs: Arc<dyn Blobs>, config: Config, layers: Vec<Layer>) -> Self {
        Image {
            blobs,
            config,
            manifest_digest: None,
            index_digest: None,
            asked_platform: None,
            layers,
            names: Vec::new(),
            tags: Vec::new(),
            ref_names: Vec::new(),
            manifest: None,
            warnings: Vec::new(),
            history: None,
            attestations: Vec::new(),
        }
    }

    /// The digest of the config document.
    pub fn id(&self) -> Digest {
        self.config.image_id()
    }

    /// Gives it another config, which says how it runs. What led to the old one (digests of manifest and index, and the
    /// manifest itself) is forgotten.
    ///
    /// # Errors
    /// When the config is not a JSON object.
    pub fn change_config(&mut self, changes: &ConfigChanges) -> Result<()> {
        if !changes.is_empty() {
            self.config = self.config.with_changes(changes)?;
            (self.manifest, self.manifest_digest, self.index_digest) = (None, None, None);
        }
        Ok(())
    }

    /// Whether its ID stands for its layers, too: not for a file system that somebody may have changed.
    pub fn is_identified(&self) -> bool {
        self.layers.iter().all(|layer| layer.diff_id.is_some())
    }

    /// The platform that its config declares, else the one that was asked for.
    pub fn platform(&self) -> Platform {
        let declared = self.config.platform();
        match &self.asked_platform {
            Some(asked) if declared.architecture.is_empty() => asked.clone(),
            _ => declared,
        }
    }

    /// How a message names layer `index` (from 0): `layer 3 of docker-archive "x.tar"` counts from 1.
    pub fn layer_name(&self, index: usize) -> String {
        let key = self.layers.get(index).map_or("", |layer| &layer.blob.key);
        format!("layer {} of {} ({key:?})", index + 1, self.blobs.name())
    }
}
