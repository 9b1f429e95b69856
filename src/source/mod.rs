//! Ways to get [`Image`](crate::image::Image) values out of local files: docker-archives of any age, OCI archives, OCI
//! layout directories, compressed as a whole or not.
//!
//! The idea to hold: what a file is follows from its content, never from its name. Documents are read and checked when a
//! source is opened, layers are only located; an archive that is not compressed is never copied. Two walls: a store
//! (`archive`, `layout`) knows bytes under keys and no images; a reader (`docker`, `oci`, `v1`) knows documents and no files.
//! Nothing here merges layers, writes outputs or prints.

mod archive;
mod catalogue;
mod docker;
mod document;
mod layers;
mod layout;
mod members;
mod oci;
mod recognise;
mod select;
mod spec;
mod v1;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use archive::Archive;
use catalogue::{Catalogue, Found};
use document::{Documents, Store};
use layout::Layout;
use oci::INDEX;

use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::Monitor;
use crate::model::Quoted;

pub use catalogue::Candidate;
pub use select::Selection;
pub use spec::Spec;

/// How a source is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where an archive that is compressed as a whole is unpacked, to an unlinked file.
    pub tmpdir: PathBuf,
    /// Whether layers will be read. Without them nothing is written: documents of a compressed archive are kept in memory
    /// and reading a layer of it fails.
    pub want_layers: bool,
}

/// An opened source: all its images, of which one is [selected](Source::select).
pub struct Source {
    store: Arc<dyn Store>,
    kind: Kind,
    found: Vec<Found>,
    passed_over: usize,
    /// Which image the SOURCE word asks for.
    wanted: Option<String>,
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
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::DockerArchive => "docker-archive",
            Kind::OciArchive => "oci-archive",
            Kind::OciLayout => "oci",
        }
    }

    fn name(self, path: &Path) -> String {
        format!("{} {}", self.word(), Quoted(path.as_os_str().as_encoded_bytes()))
    }
}

impl Source {
    /// All images that the source lists, in its own order; absent ones too.
    pub fn images(&self) -> Vec<Candidate> {
        self.found.iter().map(|found| found.candidate.clone()).collect()
    }

    /// What it turned out to be, in the words of the transports: `docker-archive`, `oci-archive` or `oci`.
    pub fn kind(&self) -> &'static str {
        self.kind.word()
    }

    /// What messages call it: `docker-archive "x.tar"`.
    pub fn name(&self) -> String {
        self.store.name()
    }
}

/// Opens a source: finds out what is there and reads its documents.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when it cannot be read, [`ErrorKind::InvalidImage`] when it is damaged,
/// [`ErrorKind::Unsupported`] when it is something else, [`ErrorKind::Mismatch`] when a document is not what its digest
/// says, [`ErrorKind::NoSpace`] when unpacking it fills `tmpdir`, and [`ErrorKind::Interrupted`] or
/// [`ErrorKind::Terminated`] when `monitor` says so.
pub fn open(spec: &Spec, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let opened = match spec {
        Spec::Path(path) if path.is_dir() => open_layout(path),
        Spec::Path(path) => open_archive(path, None, options, monitor),
        Spec::DockerArchive { path, .. } => open_archive(path, Some(Kind::DockerArchive), options, monitor),
        Spec::OciArchive { path, .. } => open_archive(path, Some(Kind::OciArchive), options, monitor),
        Spec::OciLayout { path, .. } => open_layout(path),
        Spec::Stdin | Spec::DockerDaemon(_) | Spec::Registry(_) => return Err(not_yet(spec)),
    };
    let mut source = opened.doing(|| format!("opening {spec}"))?;
    source.wanted = spec.image().map(str::to_string);
    Ok(source)
}

fn not_yet(spec: &Spec) -> Error {
    let hint = match spec {
        Spec::Stdin => "write the archive to a file and name that".to_string(),
        Spec::DockerDaemon(name) => format!("save it to a file and name that: docker save -o image.tar {name}"),
        _ => {
            "fetch it to a file and name that, for example with skopeo copy docker://NAME oci-archive:image.tar".into()
        }
    };
    Error::new(ErrorKind::Unsupported, format!("reading {spec} is not supported yet")).hint(hint)
}

/// Reads an archive: as a docker-archive when it has the documents of one, for these say more.
fn open_archive(path: &Path, asked: Option<Kind>, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    if path.is_dir() {
        let hint = "for an OCI layout directory write oci:DIR";
        return Err(Error::new(ErrorKind::SourceUnavailable, "this is a directory, not an archive").hint(hint));
    }
    let name = asked.map_or_else(|| Quoted(path.as_os_str().as_encoded_bytes()).to_string(), |kind| kind.name(path));
    let mut archive = Archive::open(path, name, options, monitor)?;
    let mut catalogue = Catalogue::default();
    let documents = Documents::new(&archive);
    let listed = docker::read(&documents, &mut catalogue)?;
    let indexed = oci::read(&documents, &mut catalogue)?;
    let chained = !listed && !indexed && v1::read(&documents, archive.members(), &mut catalogue)?;
    let kind = match (listed || chained, indexed, asked) {
        (true, _, None | Some(Kind::DockerArchive)) => Kind::DockerArchive,
        (_, true, None | Some(Kind::OciArchive)) => Kind::OciArchive,
        (false, false, _) => return Err(recognise::archive_without_image(archive.members())),
        (_, _, asked) => return Err(other_kind(asked.unwrap_or(Kind::DockerArchive))),
    };
    archive.rename(kind.name(path));
    Ok(Source {
        store: Arc::new(archive),
        kind,
        found: catalogue.found,
        passed_over: catalogue.passed_over,
        wanted: None,
    })
}

fn other_kind(asked: Kind) -> Error {
    let (lacks, has, instead) = match asked {
        Kind::OciArchive => (INDEX, "a docker-archive", "docker-archive:PATH"),
        _ => (docker::MANIFEST, "an OCI archive", "oci-archive:PATH"),
    };
    Error::new(ErrorKind::InvalidImage, format!("the archive has no {lacks}: it seems to be {has}"))
        .hint(format!("write {instead}, or just PATH"))
}

fn open_layout(path: &Path) -> Result<Source> {
    if !path.exists() {
        return Err(Error::new(ErrorKind::SourceUnavailable, "no such directory").hint("check the path"));
    }
    if !path.is_dir() {
        let hint = "for an OCI layout packed in one file write oci-archive:PATH, or just PATH";
        return Err(Error::new(ErrorKind::SourceUnavailable, "this is a file, not a directory").hint(hint));
    }
    let layout = Layout::new(path, Kind::OciLayout.name(path));
    let mut catalogue = Catalogue::default();
    if !oci::read(&Documents::new(&layout), &mut catalogue)? {
        return Err(recognise::directory_without_layout(path));
    }
    let (found, passed_over) = (catalogue.found, catalogue.passed_over);
    Ok(Source { store: Arc::new(layout), kind: Kind::OciLayout, found, passed_over, wanted: None })
}
