use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::WorkCache;
use super::hosting::Hosting;
use crate::error::{Error, ErrorKind};
use crate::model::{Digest, Note, Reference};

/// Where the output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, or a directory.
    Path(PathBuf),
    /// A name on a registry.
    Registry(Box<Hosting>),
}

impl<P: AsRef<Path>> From<P> for Destination {
    fn from(path: P) -> Self {
        Destination::Path(path.as_ref().to_path_buf())
    }
}

impl From<Hosting> for Destination {
    fn from(hosting: Hosting) -> Self {
        Destination::Registry(Box::new(hosting))
    }
}

impl Destination {
    /// The path, where it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Destination::Path(path) => Some(path),
            Destination::Stdout | Destination::Registry(_) => None,
        }
    }
}

/// What to do when the output exists. A tag on a registry is replaced unless it is to fail, as `docker push` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IfExists {
    /// It is an error.
    Fail,
    /// It is replaced, atomically.
    Replace,
    /// It is used if it is intact and what would be written; else it is an error.
    Reuse,
    /// It is used on the same terms; else it is replaced, atomically.
    Update,
}

/// How an output is written, whatever its format.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WriteOptions {
    /// What to do when the output exists; `None` adds an image to an OCI layout, replaces a tag on a registry, and is
    /// [`IfExists::Fail`] elsewhere.
    pub if_exists: Option<IfExists>,
    /// Permission bits of the output; `None` is what is usual for it, less the umask.
    pub mode: Option<u32>,
    /// How many threads may work at once; all that this machine runs by default.
    pub jobs: NonZeroUsize,
    /// How many bytes of memory the files of an image that is flattened may take; [`MEMORY_BYTES_MAX`] by default.
    ///
    /// [`MEMORY_BYTES_MAX`]: crate::layers::MEMORY_BYTES_MAX
    pub memory_bytes_max: u64,
    /// Where an unlinked temporary goes when one is needed.
    pub tmpdir: PathBuf,
    /// `SOURCE_DATE_EPOCH`, in seconds: the time of everything that is made rather than read; by default that of the
    /// image's creation.
    pub source_date_epoch: Option<i64>,
    /// Whether the SHA-256 of the output is wanted.
    pub sha256: bool,
    /// What the SHA-256 of an output that is a file must be: another is not published.
    pub expected_sha256: Option<Digest>,
    /// How the registry is reached that the output is pushed to.
    #[cfg(feature = "network")]
    pub registry: crate::registry::Settings,
    /// Where work on layers is kept that is made into blocks of a squashfs, for later conversions. The output is the same
    /// with and without.
    pub cache: Option<WorkCache>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            if_exists: None,
            mode: None,
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            memory_bytes_max: crate::layers::MEMORY_BYTES_MAX,
            tmpdir: std::env::temp_dir(),
            source_date_epoch: None,
            sha256: false,
            expected_sha256: None,
            #[cfg(feature = "network")]
            registry: crate::registry::Settings::default(),
            cache: None,
        }
    }
}

impl WriteOptions {
    /// What to do when the output exists.
    #[must_use]
    pub fn if_exists(mut self, if_exists: IfExists) -> Self {
        self.if_exists = Some(if_exists);
        self
    }

    /// How many threads may work at once.
    #[must_use]
    pub fn jobs(mut self, jobs: NonZeroUsize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Where an unlinked temporary goes when one is needed.
    #[must_use]
    pub fn tmpdir(mut self, tmpdir: impl Into<PathBuf>) -> Self {
        self.tmpdir = tmpdir.into();
        self
    }
}

/// What becomes of an image that stays one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// All layers become one.
    pub flatten: bool,
    /// What the image is called in the output; its own names where there are none.
    pub tags: Vec<ImageName>,
}

/// What is pushed is called by the place that it is pushed to.
pub(super) fn expect_names_of_registry(image: &ImageOptions) -> Result<(), Error> {
    if image.tags.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, "a name has no effect on an image that is pushed")
        .hint("leave it out: the image is called by the place that it is pushed to"))
}

/// A name for an image that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageName {
    /// Repository and tag.
    Full(Reference),
    /// A tag alone: OCI layouts can say that.
    Tag(String),
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageName::Full(reference) => write!(f, "{reference}"),
            ImageName::Tag(tag) => f.write_str(tag),
        }
    }
}

impl ImageName {
    /// Reads a name. A word without a slash and a colon is a tag.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is not a name, or pinned by a digest.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::read(text, !text.contains(['/', ':']))
    }

    /// Reads a name where a word is the name of an image whose tag is `latest`.
    ///
    /// # Errors
    /// As [`ImageName::parse`].
    pub fn parse_full(text: &str) -> Result<Self, Error> {
        Self::read(text, false)
    }

    fn read(text: &str, bare: bool) -> Result<Self, Error> {
        // What may follow the colon of some name is a tag.
        let whole = if bare { format!("x:{text}") } else { text.to_string() };
        let malformed = || Error::new(ErrorKind::Usage, format!("{text:?} is not a name for an image"));
        let hint = "write NAME:TAG, for example app:1.0 or ghcr.io/org/app:1.0";
        let reference: Reference = whole.parse().map_err(|_| malformed().hint(hint))?;
        match (bare, reference.digest) {
            (_, Some(_)) => Err(malformed().hint("leave the digest out: it follows from the image")),
            (true, None) => Ok(ImageName::Tag(text.to_string())),
            (false, None) => Ok(ImageName::Full(reference)),
        }
    }
}

/// What it took to push an output: a count of blobs, the config among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct PushedBlobs {
    /// Those that the registry had.
    pub present: u64,
    /// Those that it took from another repository.
    pub mounted: u64,
    /// Those that were sent.
    pub uploaded: u64,
}

/// What a conversion did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// Size of the output in bytes.
    pub size: u64,
    /// SHA-256 of the output file; computed where asked for.
    pub sha256: Option<Digest>,
    /// Names in the output; for an image, its files.
    pub entries: u64,
    /// The image ID of the image that was written, where one was.
    pub image_id: Option<Digest>,
    /// The digest of the manifest that was written, where one was: on a registry, of the SIF's, too.
    pub manifest_digest: Option<Digest>,
    /// What it took to push it, where it went to a registry.
    pub pushed: Option<PushedBlobs>,
    /// Entries read from all layers.
    pub layer_entries: u64,
    /// Bytes of uncompressed layer tars that were read.
    pub layer_bytes: u64,
    /// diff_ids as verified, lowest first.
    pub diff_ids: Vec<Digest>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

impl Outcome {
    /// Whether the output was there already, and was not written: see [`IfExists::Reuse`].
    pub fn is_reused(&self) -> bool {
        self.notes.iter().any(|note| note.code == super::REUSED)
    }

    /// Says that no download was kept in the cache, where it does not say yet that nothing was.
    pub(crate) fn note_cache(&mut self, refusal: &str) {
        if self.notes.iter().all(|note| note.code != super::NOT_KEPT) {
            self.notes.push(Note::new(super::NOT_KEPT, format!("no download was kept in the cache: {refusal}"), 1));
        }
    }
}
