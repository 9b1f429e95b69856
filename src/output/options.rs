use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::model::{BindTarget, Digest, EntryPath, Note, Reference};

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One flattened tar: the image's files and nothing else.
    Rootfs,
    /// One flattened tar with all that Singularity and Apptainer expect inside.
    SifRootfs,
    /// A SIF file, runnable by Singularity and Apptainer.
    Sif,
    /// An OCI image layout directory, new or with other images in it already.
    Oci,
    /// An OCI image layout in one tar.
    OciArchive,
    /// A tar that `docker load` takes.
    DockerArchive,
}

impl Format {
    /// All formats, for help and completion.
    pub const ALL: [Format; 6] =
        [Format::Sif, Format::SifRootfs, Format::Rootfs, Format::Oci, Format::OciArchive, Format::DockerArchive];

    /// Whether what Singularity and Apptainer expect is put inside.
    pub fn is_for_singularity(self) -> bool {
        matches!(self, Format::Sif | Format::SifRootfs)
    }

    /// Whether an image is written, with its config, rather than a file system.
    pub fn is_image(self) -> bool {
        matches!(self, Format::Oci | Format::OciArchive | Format::DockerArchive)
    }

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Format::Rootfs => "rootfs",
            Format::SifRootfs => "sif-rootfs",
            Format::Sif => "sif",
            Format::Oci => "oci",
            Format::OciArchive => "oci-archive",
            Format::DockerArchive => "docker-archive",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Format::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names = Format::ALL.map(Format::name).join(", ");
            Error::new(ErrorKind::Usage, format!("{text:?} is not a format")).hint(format!("formats: {names}"))
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an output is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip at a level from 1 to 12; `None` is the format's default.
    Gzip(Option<u32>),
    /// zstd at a level from 1 to 22; `None` is the format's default.
    Zstd(Option<u32>),
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || {
            Error::new(ErrorKind::Usage, format!("{text:?} is not a compression"))
                .hint("write none, gzip, gzip:1 to gzip:12, zstd, or zstd:1 to zstd:22")
        };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u32>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let within = |max| level.is_none_or(|level| (1..=max).contains(&level));
        match name {
            "none" if level.is_none() => Ok(Compression::None),
            "gzip" if within(12) => Ok(Compression::Gzip(level)),
            "zstd" if within(22) => Ok(Compression::Zstd(level)),
            _ => Err(bad()),
        }
    }
}

/// Where the output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// A file, or a directory.
    Path(PathBuf),
}

/// What to do when the output exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// It is an error.
    Fail,
    /// It is replaced, atomically.
    Replace,
    /// The caller looks at it first and uses it if it will do; one that appears meanwhile is an error.
    Reuse,
    /// The caller looks at it first and uses it if it will do; else it is replaced, atomically.
    Update,
    /// The image is added to it (`oci` only).
    Add,
}

impl IfExists {
    /// Whether an output that is there when the new one is complete gives way.
    pub fn replaces(self) -> bool {
        matches!(self, IfExists::Replace | IfExists::Update)
    }

    /// Whether an output that is there and will do is used as it is.
    pub fn reuses(self) -> bool {
        matches!(self, IfExists::Reuse | IfExists::Update)
    }
}

/// Which extended attributes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrPolicy {
    /// None.
    None,
    /// `security.capability` only.
    Capabilities,
    /// All.
    All,
}

/// One conversion, with every choice made.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is written.
    pub format: Format,
    /// Where to.
    pub destination: Destination,
    /// How it is compressed; `None` means by the output's name, else the format's default.
    pub compression: Option<Compression>,
    /// How many threads may work at once.
    pub jobs: NonZeroUsize,
    /// Where an unlinked temporary goes when one is needed.
    pub tmpdir: PathBuf,
    /// What to do when the output exists.
    pub if_exists: IfExists,
    /// Permission bits of the output file; the caller has applied the umask.
    pub output_mode: u32,
    /// Whether the SHA-256 of the output is wanted.
    pub hash_output: bool,
    /// `SOURCE_DATE_EPOCH`, in seconds: the time of everything that is made rather than read.
    pub source_date_epoch: Option<i64>,
    /// `sif`: bytes in a data block, a power of two from 4 KiB to 1 MiB; `None` is 128 KiB.
    pub block_size: Option<u32>,
    /// `sif`: what the programs inside run on, in Go's spelling, where neither config nor programs say.
    pub architecture: Option<String>,
    /// The image's name as recorded inside `sif` and `sif-rootfs`; its own name or ID where absent.
    pub reference: Option<String>,
    /// `sif` and `sif-rootfs`: which extended attributes are kept.
    pub xattrs: XattrPolicy,
    /// `sif` and `sif-rootfs`: give everything to 0:0.
    pub all_root: bool,
    /// `sif` and `sif-rootfs`: make directories u+rwx and files u+rw.
    pub fix_perms: bool,
    /// `sif` and `sif-rootfs`: keep device nodes.
    pub keep_devices: bool,
    /// `sif` and `sif-rootfs`: let the runscript change to the image's WORKDIR first.
    pub workdir: bool,
    /// `sif` and `sif-rootfs`: directories to create where missing.
    pub mkdir: Vec<EntryPath>,
    /// `sif` and `sif-rootfs`: empty files to create where missing.
    pub mkfile: Vec<EntryPath>,
    /// `sif` and `sif-rootfs`: places of a configuration to create where missing.
    pub bind_targets: Vec<BindTarget>,
    /// `sif` and `sif-rootfs`: labels to add.
    pub labels: Vec<(String, String)>,
    /// Images: all layers become one.
    pub flatten: bool,
    /// Images: what the image is called in the output; its own names where there are none.
    pub tags: Vec<ImageName>,
}

/// A name for an image that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageName {
    /// Repository and tag.
    Full(Reference),
    /// A tag alone: OCI layouts can say that.
    Tag(String),
}

impl ImageName {
    /// Reads a name for an output of `format`. A word without a slash and a colon is a tag in OCI layouts, and in a
    /// docker-archive the name of an image whose tag is `latest`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is no name, or pinned by a digest.
    pub fn parse(text: &str, format: Format) -> Result<Self, Error> {
        let bare = format != Format::DockerArchive && !text.contains(['/', ':']);
        // What may follow the colon of some name is a tag.
        let whole = if bare { format!("x:{text}") } else { text.to_string() };
        let malformed = || Error::new(ErrorKind::Usage, format!("{text:?} is no name for an image"));
        let hint = "write NAME:TAG, for example app:1.0 or ghcr.io/org/app:1.0";
        let reference: Reference = whole.parse().map_err(|_| malformed().hint(hint))?;
        match (bare, reference.digest) {
            (_, Some(_)) => Err(malformed().hint("leave the digest out: it follows from the image")),
            (true, None) => Ok(ImageName::Tag(text.to_string())),
            (false, None) => Ok(ImageName::Full(reference)),
        }
    }
}

impl Request {
    /// A digest of the choices that decide what is inside a `sif`, beside the image: what is there already will do for a
    /// caller who made the same ones. `None` where all of them are the usual ones. How it is compressed and dated plays
    /// no part.
    pub fn choices(&self) -> Option<String> {
        let paths = |paths: &[EntryPath]| paths.iter().map(EntryPath::to_string).collect::<BTreeSet<_>>();
        let bound: BTreeSet<String> =
            self.bind_targets.iter().map(|target| format!("{} {}", target.kind.word(), target.path)).collect();
        let words = [
            (self.xattrs != XattrPolicy::None).then(|| format!("xattrs {:?}", self.xattrs)),
            self.all_root.then(|| "all-root".to_string()),
            self.fix_perms.then(|| "fix-perms".to_string()),
            self.keep_devices.then(|| "keep-devices".to_string()),
            self.workdir.then(|| "workdir".to_string()),
            (!self.mkdir.is_empty()).then(|| format!("mkdir {:?}", paths(&self.mkdir))),
            (!self.mkfile.is_empty()).then(|| format!("mkfile {:?}", paths(&self.mkfile))),
            (!bound.is_empty()).then(|| format!("bind {bound:?}")),
            (!self.labels.is_empty()).then(|| format!("labels {:?}", self.labels)),
            self.reference.as_ref().map(|reference| format!("reference {reference:?}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| Digest::of(words.join("\n").as_bytes()).to_string())
    }
}

/// What a conversion did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Size of the output in bytes.
    pub size: u64,
    /// SHA-256 of the output file; computed where asked for.
    pub sha256: Option<Digest>,
    /// Names in the output; for an image, its files.
    pub entries: u64,
    /// The image ID of the image that was written, where one was.
    pub image_id: Option<Digest>,
    /// The digest of the OCI manifest that was written, where one was.
    pub manifest_digest: Option<Digest>,
    /// Entries read from all layers.
    pub layer_entries: u64,
    /// Bytes of uncompressed layer tars that were read.
    pub layer_bytes: u64,
    /// diff_ids as verified, lowest first.
    pub diff_ids: Vec<Digest>,
    /// What the user should know.
    pub notes: Vec<Note>,
}
