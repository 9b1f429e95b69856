//! Ways to get [`Image`](crate::image::Image) values: out of docker-archives of any age, OCI archives and OCI layout
//! directories, compressed as a whole or not; out of standard input and what a Docker or Podman engine exports; and from
//! registries.
//!
//! The idea to hold: what a file is follows from its content, never from its name. Documents are read and checked when a
//! source is opened, layers are only located; an archive in a file that is not compressed is never copied, what comes as a
//! stream goes to one unlinked file. Two walls: a store (`archive`, `layout`) knows bytes under keys and no images; a reader
//! (`docker`, `oci`, `v1`) knows documents and no files. `daemon` turns an engine into a stream, and keeps all that is
//! asynchronous to itself. Nothing here merges layers, writes outputs or prints.

mod archive;
mod artifact;
mod attestation;
mod catalogue;
mod command;
#[cfg(feature = "network")]
mod daemon;
mod docker;
mod document;
mod filesystem;
mod input;
mod keep;
mod layers;
mod layout;
mod members;
mod oci;
mod recognise;
#[cfg(feature = "network")]
mod remote;
mod rootfs_tar;
mod select;
mod sif;
mod signatures;
mod spec;
mod v1;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::Archive;
use catalogue::{Artifacts, Catalogue, Found};
use document::{Documents, Store, Wanted};
use input::Input;
use layout::Layout;
use oci::INDEX;

use crate::error::{Error, ErrorKind, Remedy, Result, ResultExt as _};
use crate::gocryptfs::Secret;
use crate::io::Monitor;
use crate::model::{Digest, Note, Platform, Quoted};
use crate::trust::{ImagePolicy, PolicyFile};
pub use crate::volume::DirectoryOptions;
use crate::volume::Volume;

pub use catalogue::Candidate;
#[cfg(feature = "network")]
pub use daemon::EngineSettings;
#[cfg(feature = "network")]
pub(crate) use remote::engine_image;
pub use select::Selection;
pub use spec::Spec;

/// How a source is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where an archive that is compressed as a whole or comes as a stream is unpacked, to an unlinked file.
    pub tmpdir: PathBuf,
    /// A command for `/bin/sh` whose output is read in place of standard input. Unless it exits with 0, the source is not
    /// opened.
    pub input_command: Option<std::ffi::OsString>,
    /// What an encrypted SIF is opened with.
    pub secret: Option<Secret>,
    /// Whether temporary files hold nothing in the clear: what goes to them is encrypted with a key that is known to this
    /// process only.
    pub private_temporaries: bool,
    /// A directory on whose file system the layers of an archive that is unpacked may become a part of the output as they
    /// are, where there is such an output.
    pub adopting: Option<PathBuf>,
    /// Whether layers will be read. Without them nothing is written: documents of a compressed archive are kept in memory
    /// and reading a layer of it fails.
    pub want_layers: bool,
    /// Whether anyone asks for the SHA-256 of the file or stream that the source is.
    pub hash: InputHash,
    /// The platform that will be selected, so that a source that can choose what it sends does.
    pub platform: Option<Platform>,
    /// How many threads decode the blocks of a file system; as many as there are cores where nobody says.
    pub jobs: Option<std::num::NonZeroUsize>,
    /// Whether all that is in a directory belongs to 0:0, rather than to whom it belongs here.
    pub all_root: bool,
    /// Whether what Singularity added to a root stays in it.
    pub keep_singularity: bool,
    /// Whose signature an image must have, before anything of it is read.
    pub trust: Option<ImagePolicy>,
    /// What is asked of images by where they come from.
    pub policy: Option<PolicyFile>,
    /// How the local engine is found.
    #[cfg(feature = "network")]
    pub engine: EngineSettings,
    /// How registries are reached.
    #[cfg(feature = "network")]
    pub registry: crate::registry::Settings,
}

impl Default for OpenOptions {
    /// Layers will be read, and go to the system's temporary directory where they must.
    fn default() -> Self {
        OpenOptions {
            tmpdir: std::env::temp_dir(),
            input_command: None,
            secret: None,
            private_temporaries: false,
            adopting: None,
            want_layers: true,
            hash: InputHash::default(),
            platform: None,
            jobs: None,
            all_root: false,
            keep_singularity: false,
            trust: None,
            policy: None,
            #[cfg(feature = "network")]
            engine: EngineSettings::default(),
            #[cfg(feature = "network")]
            registry: crate::registry::Settings::default(),
        }
    }
}

impl OpenOptions {
    /// Whether an image must be signed, or be what a policy lets through.
    pub(crate) fn checks_signatures(&self) -> bool {
        self.trust.is_some() || self.policy.is_some()
    }

    /// The architecture that was asked for.
    fn asked_architecture(&self) -> Option<&str> {
        self.platform.as_ref().map(|platform| platform.architecture.as_str())
    }
}

/// What is to be done about the SHA-256 of the file or stream that a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum InputHash {
    /// Nothing.
    #[default]
    Unneeded,
    /// It is computed: see [`Source::sha256`]. Of a file beside all else, of a stream as it comes.
    Wanted,
    /// A source with another one is refused: nothing that was made of it is published.
    Expected(Digest),
}

/// An opened source: all its images, of which one is [selected](Source::select).
pub struct Source {
    store: Arc<dyn Store>,
    kind: Kind,
    found: Vec<Found>,
    artifacts: Artifacts,
    /// Whether it lists others than those that the SOURCE word names.
    is_narrowed: bool,
    /// Things a user should know whichever image is taken.
    warnings: Vec<String>,
    /// Which image the SOURCE word asks for.
    wanted: Option<String>,
    input: Option<Arc<Input>>,
    /// The file system that stands for its one image.
    volume: Option<Arc<Volume>>,
    /// What the file holds beside the image, which no conversion takes over.
    left_out: Option<Note>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name()).field("images", &self.images()).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    DockerArchive,
    OciArchive,
    OciLayout,
    DockerDaemon,
    #[cfg(feature = "network")]
    Registry,
    Sif,
    Squashfs,
    Directory,
    RootfsTar,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::DockerArchive => "docker-archive",
            Kind::OciArchive => "oci-archive",
            Kind::OciLayout => "oci",
            Kind::DockerDaemon => "docker-daemon",
            #[cfg(feature = "network")]
            Kind::Registry => "docker",
            Kind::Sif => "sif",
            Kind::Squashfs => "squashfs",
            Kind::Directory => "directory",
            Kind::RootfsTar => "rootfs",
        }
    }

    /// What messages call a source of this kind that is at `place`.
    fn name(self, place: &str) -> String {
        format!("{} {place}", self.word())
    }
}

fn quoted(path: &Path) -> String {
    Quoted(path.as_os_str().as_encoded_bytes()).to_string()
}

impl Source {
    /// What `store` holds, as `catalogue` lists it.
    fn of(store: impl Store + 'static, kind: Kind, catalogue: Catalogue) -> Self {
        let Catalogue { found, artifacts, is_narrowed } = catalogue;
        Source {
            store: Arc::new(store),
            kind,
            found,
            artifacts,
            is_narrowed,
            warnings: Vec::new(),
            wanted: None,
            input: None,
            volume: None,
            left_out: None,
        }
    }

    /// What the source holds beside its image and no conversion takes over: signatures of a SIF, its SBOM.
    pub fn left_out(&self) -> Option<&Note> {
        self.left_out.as_ref()
    }

    /// Opens what the program takes as SOURCE, with the usual options.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(word: impl AsRef<std::ffi::OsStr>) -> Result<Source> {
        open(&Spec::parse(word.as_ref())?, &OpenOptions::default(), &Monitor::default())
    }

    /// All images that the source lists, in its own order; absent ones too. Where the SOURCE word names one, that alone.
    pub fn images(&self) -> Vec<Candidate> {
        self.found.iter().map(|found| found.candidate.clone()).collect()
    }

    /// What it turned out to be, in the words of the transports: `docker-archive`, `oci-archive`, `oci`, `docker-daemon`,
    /// `docker`; `sif`, `squashfs`, `directory` or `rootfs` for a file system.
    pub fn kind(&self) -> &'static str {
        self.kind.word()
    }

    /// What messages call it: `docker-archive "x.tar"`.
    pub fn name(&self) -> String {
        self.store.name()
    }

    /// The file that it is read from, where it is one.
    pub fn file(&self) -> Option<&Arc<File>> {
        self.input.as_ref().and_then(|input| input.file())
    }

    /// The file system that it is, where it is not an image of layers: a SIF, a squashfs, a directory.
    pub fn volume(&self) -> Option<&Arc<Volume>> {
        self.volume.as_ref()
    }

    /// SHA-256 and length in bytes of the file or stream that it is; `None` where it is neither, or [`OpenOptions::hash`] did
    /// not ask for it. Waits until it is known.
    ///
    /// # Errors
    /// Why the file could not be read again.
    pub fn sha256(&self) -> Result<Option<(Digest, u64)>> {
        self.input.as_ref().map_or(Ok(None), |input| input.sha256())
    }

    /// Waits until it is known whether the source is the expected one.
    ///
    /// # Errors
    /// [`ErrorKind::Mismatch`] when it is another.
    pub fn confirm(&self) -> Result<()> {
        self.input.as_ref().map_or(Ok(()), |input| input.confirm())
    }
}

/// Opens a source: finds out what is there and reads its documents.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when it cannot be read or an engine or registry does not have it, [`ErrorKind::Network`]
/// when no engine answers, or a registry cannot be reached or refuses, [`ErrorKind::InvalidImage`] when it is damaged,
/// [`ErrorKind::Unsupported`] when it is something else, [`ErrorKind::Mismatch`] when a document is not what its digest says
/// or a stream is not the expected one, [`ErrorKind::NoSpace`] when unpacking it fills `tmpdir`, and
/// [`ErrorKind::Interrupted`] or [`ErrorKind::Terminated`] when `monitor` says so.
pub fn open(spec: &Spec, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    refuse_hash(spec, options.hash)?;
    refuse_secret(spec, options)?;
    let options = &signatures::with_policy(spec, options)?;
    let about = |error: Error| match spec.path() {
        Some(path) => error.at(path),
        None => error,
    };
    let opening = || match &options.input_command {
        Some(command) if *spec == Spec::Stdin => {
            format!("opening the output of {}", Quoted(command.as_encoded_bytes()))
        }
        _ => format!("opening {spec}"),
    };
    let mut source = open_as(spec, options, monitor).doing(opening).map_err(about)?;
    if options.secret.is_some() && source.kind != Kind::Sif {
        return Err(not_encrypted(spec));
    }
    source.wanted = spec.image().map(str::to_string);
    Ok(source)
}

/// Opens it as what its spelling or its content says.
fn open_as(spec: &Spec, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    match spec {
        Spec::Path(path) if !path.exists() && !path.is_symlink() => Err(spec::no_such_file(path)),
        Spec::Path(path) if options.trust.is_some() && filesystem::recognise(path)?.is_some() => Err(unsigned()),
        Spec::Path(path) if path.is_dir() => open_path_of_directory(path, options, monitor),
        Spec::Path(path) => match filesystem::recognise(path)? {
            Some(kind) => filesystem::open_file(path, kind, options, monitor),
            None => open_archive(path, (None, None), options, monitor),
        },
        Spec::DockerArchive { path, image } => {
            open_archive(path, (Some(Kind::DockerArchive), image.as_deref()), options, monitor)
        }
        Spec::OciArchive { path, image } => {
            open_archive(path, (Some(Kind::OciArchive), image.as_deref()), options, monitor)
        }
        Spec::OciLayout { path, image } => open_layout(path, image.as_deref(), options),
        Spec::Stdin => open_stdin(options, monitor),
        #[cfg(feature = "network")]
        Spec::DockerDaemon(word) => remote::open_engine(word, options, monitor),
        #[cfg(feature = "network")]
        Spec::Registry(name) => remote::open_registry(name, options, monitor),
        #[cfg(feature = "network")]
        Spec::Web(url) => remote::open_web(url, options, monitor),
        #[cfg(feature = "network")]
        Spec::Oras(name) => remote::open_hosted_sif(name, options, monitor),
        #[cfg(not(feature = "network"))]
        Spec::DockerDaemon(_) | Spec::Registry(_) | Spec::Web(_) | Spec::Oras(_) => {
            Err(Error::new(ErrorKind::Unsupported, "this library was built without its feature \"network\""))
        }
    }
}

/// Only a SIF in a file is opened with a key. What comes from elsewhere is looked at first.
fn refuse_secret(spec: &Spec, options: &OpenOptions) -> Result<()> {
    if options.secret.is_none() {
        return Ok(());
    }
    let may_be = match spec {
        Spec::Path(path) if path.exists() => {
            filesystem::recognise(path).doing(|| format!("opening {spec}"))? == Some(Kind::Sif)
        }
        Spec::Path(_) | Spec::Oras(_) | Spec::Web(_) => true,
        _ => false,
    };
    if may_be { Ok(()) } else { Err(not_encrypted(spec)) }
}

/// Whether a source is, or may be once it is there, an encrypted SIF.
pub fn is_encrypted(spec: &Spec) -> bool {
    match spec {
        Spec::Path(path) => sif::is_encrypted(path),
        Spec::Oras(_) | Spec::Web(_) => true,
        _ => false,
    }
}

fn not_encrypted(spec: &Spec) -> Error {
    Error::new(ErrorKind::Usage, format!("{spec} is not an encrypted SIF")).with_remedy(Remedy::NoKey)
}

/// Only what is one file or stream has a SHA-256.
fn refuse_hash(spec: &Spec, hash: InputHash) -> Result<()> {
    let is_one = match spec {
        Spec::DockerDaemon(_) | Spec::Registry(_) => false,
        spec => !spec.path().is_some_and(Path::is_dir),
    };
    match hash {
        InputHash::Expected(_) if !is_one => {
            let error = Error::new(ErrorKind::Usage, format!("{spec} is not one file, so it has no SHA-256"));
            // The files of a root have no digest either.
            let is_root = spec.path().is_some_and(|path| !path.join("index.json").exists());
            Err(if is_root { error.hint("leave that out") } else { error.with_remedy(Remedy::DigestInstead) })
        }
        _ => Ok(()),
    }
}

/// A layout, or the root of a file system.
fn open_path_of_directory(path: &Path, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let is_layout = path.join(INDEX).exists() || path.join("oci-layout").exists();
    if !is_layout && filesystem::is_root(path) {
        if options.trust.is_some() {
            return Err(unsigned());
        }
        return filesystem::open_directory(path, options, monitor);
    }
    open_layout(path, None, options)
}

/// Opens an archive as what is `asked` for; of its images the one with that name is enough.
fn open_archive(
    path: &Path,
    (asked, image): (Option<Kind>, Option<&str>),
    options: &OpenOptions,
    monitor: &Monitor,
) -> Result<Source> {
    if path.is_dir() {
        let hint = "for an OCI layout directory write oci:DIR";
        return Err(Error::new(ErrorKind::SourceUnavailable, "this is a directory, not an archive").hint(hint));
    }
    let place = quoted(path);
    let name = asked.map_or_else(|| place.clone(), |kind| kind.name(&place));
    read_archive(Archive::open(path, name, options, monitor)?, (asked, image), options, &place)
}

fn open_stdin(options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    match &options.input_command {
        None => {
            let archive = Archive::of_stdin("standard input".to_string(), options, monitor)?;
            read_archive(archive, (None, None), options, "from standard input")
        }
        Some(command) => {
            let archive = command::archive(command, "the command's output".to_string(), options, monitor)?;
            read_archive(archive, (None, None), options, "from a command")
        }
    }
}

/// Reads an archive: as a docker-archive when it has the documents of one, for these say more.
fn read_archive(
    mut archive: Archive,
    (asked, image): (Option<Kind>, Option<&str>),
    options: &OpenOptions,
    place: &str,
) -> Result<Source> {
    let mut catalogue = Catalogue::default();
    let documents = Documents::looked_through_for(
        &archive,
        image.map(|word| Wanted { word, is_reference: asked == Some(Kind::OciArchive) }),
    );
    let trust = options.trust.as_ref();
    // What is signed are manifests: the list of a docker-archive names none.
    let listed = if trust.is_some() { Ok(false) } else { docker::read(&documents, &mut catalogue) };
    let indexed = oci::read(&documents, &mut catalogue, trust);
    let (listed, indexed, warnings) = one_will_do(listed, indexed, asked)?;
    if trust.is_some() && !indexed {
        return Err(unsigned());
    }
    let chained = !listed && !indexed && v1::read(&documents, archive.members(), &mut catalogue)?;
    let kind = match (listed || chained, indexed, asked) {
        (true, _, Some(Kind::DockerDaemon)) | (_, true, Some(Kind::DockerDaemon)) => Kind::DockerDaemon,
        (true, _, None | Some(Kind::DockerArchive)) => Kind::DockerArchive,
        (_, true, None | Some(Kind::OciArchive)) => Kind::OciArchive,
        (false, false, None) if archive.members().are_of_root() => {
            return rootfs_tar::source(&archive, place, options);
        }
        (false, false, _) => return Err(recognise::archive_without_image(archive.members())),
        (_, _, asked) => return Err(other_kind(asked.unwrap_or(Kind::DockerArchive))),
    };
    archive.rename(kind.name(place));
    let input = Some(Arc::clone(archive.input()));
    Ok(Source { input, warnings, ..Source::of(archive, kind, catalogue) })
}

/// Whether each of the two lists of an archive is there. One that cannot be read is not an obstacle where the other lists images,
/// and was not asked for.
fn one_will_do(listed: Result<bool>, indexed: Result<bool>, asked: Option<Kind>) -> Result<(bool, bool, Vec<String>)> {
    let passed_over = |error: &Error, name: &str| vec![format!("{name} of the archive was not used: {error}")];
    match (listed, indexed) {
        (Ok(true), Err(error)) if oci::is_own_affair(&error) && asked != Some(Kind::OciArchive) => {
            Ok((true, false, passed_over(&error, INDEX)))
        }
        (Err(error), Ok(true)) if oci::is_own_affair(&error) && asked != Some(Kind::DockerArchive) => {
            Ok((false, true, passed_over(&error, docker::MANIFEST)))
        }
        (listed, indexed) => Ok((listed?, indexed?, Vec::new())),
    }
}

/// Refuses a SIF at `spec` where the options ask for a signature of an image, which a SIF does not carry.
///
/// # Errors
/// [`ErrorKind::Mismatch`] when they do; those of a policy.
pub fn refuse_unsigned(spec: &Spec, options: &OpenOptions) -> Result<()> {
    let asked = signatures::with_policy(spec, options)?.trust;
    asked.map_or(Ok(()), |_| Err(unsigned()).doing(|| format!("downloading {spec}")))
}

/// Nothing that is not an image with a manifest has a signature of one.
fn unsigned() -> Error {
    Error::new(ErrorKind::Mismatch, "no valid signature: what this is carries none of images")
        .hint("take the image from its registry, or from an OCI layout or archive that holds its signatures")
}

fn other_kind(asked: Kind) -> Error {
    let (lacks, has, instead) = match asked {
        Kind::OciArchive => (INDEX, "a docker-archive", "docker-archive:PATH"),
        _ => (docker::MANIFEST, "an OCI archive", "oci-archive:PATH"),
    };
    Error::new(ErrorKind::InvalidImage, format!("the archive has no {lacks}: it seems to be {has}"))
        .hint(format!("write {instead}, or just PATH"))
}

fn open_layout(path: &Path, image: Option<&str>, options: &OpenOptions) -> Result<Source> {
    if !path.exists() {
        return Err(spec::no_such_path(path));
    }
    if !path.is_dir() {
        let hint = "for an OCI layout packed in one file write oci-archive:PATH, or just PATH";
        return Err(Error::new(ErrorKind::SourceUnavailable, "this is a file, not a directory").hint(hint));
    }
    let layout = Layout::new(path, Kind::OciLayout.name(&quoted(path)));
    let mut catalogue = Catalogue::default();
    let wanted = image.map(|word| Wanted { word, is_reference: true });
    if !oci::read(&Documents::looked_through_for(&layout, wanted), &mut catalogue, options.trust.as_ref())? {
        return Err(recognise::directory_without_layout(path));
    }
    Ok(Source::of(layout, Kind::OciLayout, catalogue))
}
