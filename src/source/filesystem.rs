//! File systems as images of one layer: a SIF, a squashfs, a directory.
//!
//! The idea to hold: the layer is a tar that is made as it is read; nobody knows its digest before that. What Singularity
//! added to a root leaves it, and says how the image ran: the config is made of that.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use super::catalogue::{Catalogue, MemberList};
use super::document::Store;
use super::input::Input;
use super::sif::Root;
use super::{Kind, OpenOptions, Source, quoted, sif, spec};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::image::{BlobRef, Blobs};
use crate::io::{Monitor, Region};
use crate::model::{Config, Digest, Note, Quoted, Timestamp};
use crate::sif::goarch_of_elf;
use crate::singularity::{self, Remains};
use crate::tree::{InodeId, Kind as FileKind, Tree};
use crate::volume::{Check, DirectoryOptions, Volume};

/// The key of the one layer.
const LAYER: &str = "rootfs.tar";
/// The most that is read of one of Singularity's own files, in bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;
/// How the first line of an image of Singularity 2 ends.
const LAUNCH_WORD: &[u8] = b" run-singularity\n";
/// How much is looked at to tell what a file is, in bytes.
const START_BYTES: u64 = 64;
/// Bytes of an ELF header that tell the machine.
const ELF_BYTES: usize = 20;

/// A file system that stands for an image.
pub(super) struct FileSystem {
    name: String,
    volume: Arc<Volume>,
    threads: NonZeroUsize,
    notes: Vec<Note>,
    input: Option<Arc<Input>>,
}

/// What a file or directory says of itself besides its names.
#[derive(Default)]
pub(super) struct About {
    pub(super) oci_config: Option<Vec<u8>>,
    pub(super) architecture: Option<&'static str>,
    pub(super) created: Option<Timestamp>,
    pub(super) notes: Vec<Note>,
    /// What stands beside the root: nothing that is made of it has that.
    pub(super) left_out: Option<Note>,
    /// Checksums of what holds the file system.
    pub(super) check: Option<Box<Check>>,
    pub(super) input: Option<Arc<Input>>,
}

/// What a file is, where it is a file system.
pub(super) fn recognise(path: &Path) -> Result<Option<Kind>> {
    // A pipe must be opened once: what keeps a file from being opened is told by whoever opens it.
    if !path.metadata().is_ok_and(|data| data.is_file()) {
        return Ok(None);
    }
    let Ok(file) = File::open(path) else { return Ok(None) };
    let mut start = Vec::new();
    file.take(START_BYTES).read_to_end(&mut start).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(if start.get(32..).is_some_and(|there| there.starts_with(b"SIF_MAGIC")) {
        Some(Kind::Sif)
    } else if start[launch_line_bytes(&start)..].starts_with(b"hsqs") {
        Some(Kind::Squashfs)
    } else {
        None
    })
}

/// How long the line is that images of Singularity 2.4 to 2.6 begin with, before their squashfs; 0 where there is none.
fn launch_line_bytes(start: &[u8]) -> usize {
    if !start.starts_with(b"#!") {
        return 0;
    }
    memchr::memmem::find(start, LAUNCH_WORD).map_or(0, |at| at + LAUNCH_WORD.len())
}

/// Whether a directory is the root of a file system: it has a directory that every one has.
pub(super) fn is_root(path: &Path) -> bool {
    [".singularity.d", "etc", "usr", "bin", "lib"].iter().any(|name| path.join(name).is_dir())
}

/// Opens a SIF or a squashfs.
pub(super) fn open_file(path: &Path, kind: Kind, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => spec::no_such_path(path),
        _ => Error::io(ErrorKind::SourceUnavailable, error),
    })?;
    open_unnamed(&Arc::new(file), kind, &quoted(path), options, monitor)
}

/// Opens a SIF or a squashfs in a file that came from `place`.
pub(super) fn open_unnamed(
    file: &Arc<File>,
    kind: Kind,
    place: &str,
    options: &OpenOptions,
    monitor: &Monitor,
) -> Result<Source> {
    let input = Arc::new(Input::of_file(file, options.hash, monitor));
    let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::SourceUnavailable)?;
    let opened = || {
        let (volume, about) = match kind {
            Kind::Sif => {
                let (root, about) = sif::primary(region, options.secret.as_ref())?;
                let volume = match root {
                    Root::Plain(region) => Volume::of_squashfs(region, monitor),
                    Root::Unlocked(root) => Volume::of_squashfs(*root, monitor),
                };
                (volume?, about)
            }
            _ => (Volume::of_squashfs(behind_launch_line(region)?, monitor)?, About::default()),
        };
        let about = About { input: Some(Arc::clone(&input)), ..about };
        source(volume, about, kind, place, options)
    };
    opened().map_err(|error| input.blame(error))
}

fn behind_launch_line(file: Region) -> Result<Region> {
    let mut start = vec![0; START_BYTES.min(file.len) as usize];
    file.read_at(&mut start, 0).or_kind(ErrorKind::SourceUnavailable)?;
    let offset = launch_line_bytes(&start) as u64;
    file.slice(offset, file.len - offset).ok_or_else(|| Error::new(ErrorKind::Bug, "a line is longer than its file"))
}

/// Opens a directory.
pub(super) fn open_directory(path: &Path, options: &OpenOptions, monitor: &Monitor) -> Result<Source> {
    let volume = Volume::of_directory(path, &DirectoryOptions { all_root: options.all_root }, monitor)?;
    source(volume, About::default(), Kind::Directory, &quoted(path), options)
}

fn source(mut volume: Volume, mut about: About, kind: Kind, place: &str, options: &OpenOptions) -> Result<Source> {
    volume.check = about.check.take();
    let mut notes = about.notes;
    let mut execution = serde_json::Map::new();
    let mut keeps_scripts = false;
    if singularity::is_prepared(&volume.tree) || about.oci_config.is_some() {
        let recovered = singularity::recover(&remains(&volume, about.oci_config)?)?;
        execution = recovered.execution;
        notes.extend(recovered.notes);
        keeps_scripts = recovered.needs_singularity;
        if !options.keep_singularity && !recovered.needs_singularity {
            notes.extend(leave_singularity(&mut volume)?);
        }
    }
    volume.drop_whiteout_names();
    notes.append(&mut volume.notes);
    let architecture = about.architecture.or_else(|| architecture(&volume)).or(options.asked_architecture());
    let config = Config::of_execution(execution, architecture, about.created)?.keeping_scripts(keeps_scripts);
    let mut catalogue = Catalogue::default();
    let found = catalogue.with_config(config.image_id())?;
    found.set_config(config);
    found.candidate.layers = 1;
    found.diff_ids_unknown = true;
    found.members = Some(MemberList { listed_in: kind.word().to_string(), names: vec![LAYER.to_string()] });
    let name = kind.name(place);
    let threads = options.jobs.or(std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let input = about.input;
    let volume = Arc::new(volume);
    let store = FileSystem { name, volume: Arc::clone(&volume), threads, notes, input: input.clone() };
    Ok(Source { input, volume: Some(volume), left_out: about.left_out, ..Source::of(store, kind, catalogue) })
}

fn leave_singularity(volume: &mut Volume) -> Result<Vec<Note>> {
    let made = match singularity::list_of_made(&volume.tree) {
        Some(list) => volume.read(list, TEXT_BYTES_MAX)?,
        None => None,
    };
    Ok(singularity::remove(&mut volume.tree, made.as_deref()))
}

/// Singularity's own files in the root.
fn remains(volume: &Volume, oci_config: Option<Vec<u8>>) -> Result<Remains> {
    let text = |name: &str| -> Result<String> {
        let path = format!(".singularity.d/{name}");
        let Some(inode) = volume.tree.get(path.as_bytes()) else { return Ok(String::new()) };
        let bytes = volume.read(inode, TEXT_BYTES_MAX)?.unwrap_or_default();
        let not_text = |_| {
            let message = format!("{} is not UTF-8 text", Quoted(path.as_bytes()));
            Error::new(ErrorKind::Unsupported, message)
        };
        String::from_utf8(bytes).map_err(not_text)
    };
    let docker_environment = text("env/10-docker2singularity.sh")? + &text("env/10-docker.sh")?;
    Ok(Remains {
        oci_config,
        runscript: text("runscript")?,
        startscript: text("startscript")?,
        docker_environment,
        environment: text("env/90-environment.sh")? + "\n" + &text("env/91-environment.sh")?,
        labels: text("labels.json")?,
    })
}

/// What the programs run on: what `/bin/sh` says, else the first program in the order of names.
fn architecture(volume: &Volume) -> Option<&'static str> {
    let of = |inode: InodeId| {
        let mut header = Vec::new();
        // Only the first chunk is wanted: the error ends the reading.
        let _ = volume.for_each_chunk(inode, |bytes| {
            header.extend_from_slice(&bytes[..bytes.len().min(ELF_BYTES)]);
            Err(Error::new(ErrorKind::Other, "enough"))
        });
        goarch_of_elf(&header)
    };
    let tree: &Tree = &volume.tree;
    let shell = tree.resolve(b"bin/sh").ok().and_then(|found| found.inode).and_then(of);
    let is_program = |inode: &InodeId| {
        let inode = tree.inode(*inode);
        matches!(inode.kind, FileKind::File(_)) && inode.metadata.mode.bits() & 0o111 != 0
    };
    shell.or_else(|| tree.walk().map(|visit| visit.inode).filter(is_program).find_map(of))
}

impl Blobs for FileSystem {
    fn open(&self, blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>> {
        self.read(&blob.key)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn volume(&self) -> Option<&Arc<Volume>> {
        Some(&self.volume)
    }

    fn confirm(&self) -> Result<()> {
        self.input.as_ref().map_or(Ok(()), |input| input.confirm())
    }

    fn warnings(&self) -> Vec<String> {
        self.notes.iter().map(Note::to_string).collect()
    }
}

impl Store for FileSystem {
    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok((key == LAYER).then(|| self.volume.tar_bytes()))
    }

    fn read(&self, _key: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.volume.tar(self.threads)))
    }

    fn key(&self, digest: &Digest) -> String {
        digest.to_string()
    }
}
