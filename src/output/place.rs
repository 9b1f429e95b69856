//! Where an output and the decoded contents it waits for are put.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, getrlimit};

#[cfg(feature = "network")]
use super::hosted::Hosted;
use super::options::{Destination, PushedBlobs};
use super::package::Layout;
use super::prepared::Task;
use crate::error::{Error, ErrorKind, IoResultExt, Remedy, Result, ResultExt};
use crate::image::Image;
use crate::io::{
    Monitor, Output, Phase, Region, Scratch, ScratchDirectory, Spool, Veil, directory_of, file_system_kind, free_bytes,
    hash_region, is_stream, open_stream,
};
use crate::model::Digest;

/// Where in an unfinished output decoded contents are kept, in bytes: 2 TiB, past the end of any output, below the limit
/// of every file system listed in [`SPARSE_FILE_SYSTEMS`]. What lies there is cut off before the output gets its name.
pub(super) const SPOOL_OFFSET: u64 = 1 << 41;

/// File systems on which the gap before [`SPOOL_OFFSET`] costs nothing (`statfs` magic numbers).
const SPARSE_FILE_SYSTEMS: [u64; 11] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x6969,      // NFS
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
];

/// What became of an output.
#[derive(Default)]
pub(super) struct Finished {
    pub(super) size: u64,
    /// Where it was asked for, and of what is pushed.
    pub(super) sha256: Option<Digest>,
    /// The manifest that leads to it on a registry.
    pub(super) manifest_digest: Option<Digest>,
    pub(super) pushed: Option<PushedBlobs>,
}

/// An output that has been begun.
#[derive(Debug)]
pub(super) enum Place {
    /// A file that appears when it is complete.
    File(Output),
    /// Something that takes bytes as they come.
    Stream(File),
    /// An OCI layout, new or not.
    Layout(Layout),
    /// A place on a registry.
    #[cfg(feature = "network")]
    Hosted(Box<Hosted>),
    /// A directory that appears when it is complete.
    Directory(ScratchDirectory),
}

impl Place {
    pub(super) fn open(task: &Task) -> Result<Self> {
        match &task.destination {
            Destination::Stdout => {
                let stdout = rustix::io::dup(std::io::stdout()).map_err(std::io::Error::from);
                let stdout = File::from(stdout.or_kind(ErrorKind::Output).doing(|| "opening standard output")?);
                if stdout.is_terminal() {
                    return Err(Error::new(ErrorKind::Usage, "standard output is a terminal")
                        .hint("send it to a file or a pipe, or name a file"));
                }
                Ok(Place::Stream(stdout))
            }
            Destination::Path(path) if is_stream(path) => Ok(Place::Stream(open_stream(path)?)),
            #[cfg(feature = "network")]
            Destination::Registry(hosting) => Hosted::of_file(hosting, task).map(Box::new).map(Place::Hosted),
            #[cfg(not(feature = "network"))]
            Destination::Registry(_) => Err(Error::new(ErrorKind::Bug, "there is no network")),
            Destination::Path(path) => Ok(Place::File(Output::create(path, task.replaces(), task.mode)?)),
        }
    }

    /// Whether it is one file, which does not appear before it is whole.
    pub(super) fn is_file(&self) -> bool {
        match self {
            Place::File(_) => true,
            #[cfg(feature = "network")]
            Place::Hosted(_) => true,
            _ => false,
        }
    }

    /// Whether it cannot be taken back.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Place::Stream(_))
    }

    /// See [`Prepared::adopts_in`](super::Prepared::adopts_in).
    pub(super) fn adopts_in(&self) -> Option<&Path> {
        match self {
            Place::Layout(layout) => Some(layout.directory()),
            _ => None,
        }
    }

    /// Finds out what can only be found out by asking, and would be found out late.
    pub(super) fn begin(&self, _task: &Task, _monitor: &Monitor) -> Result<()> {
        match self {
            #[cfg(feature = "network")]
            Place::Hosted(hosted) => hosted.begin(&_task.options, _monitor),
            _ => Ok(()),
        }
    }

    /// Forgets what was written, for it is written anew. Not for what cannot be taken back.
    pub(super) fn reset(&self) -> Result<()> {
        self.expect_file("what is written twice")?.set_len(0).or_kind(ErrorKind::Output)
    }

    /// Cuts off what is not the output, hashes it where asked for, has the source confirmed, and gives it its name.
    pub(super) fn finish(self, bytes: u64, image: &Image, task: &Task, monitor: &Monitor) -> Result<Finished> {
        monitor.begin(Phase::Finish, 0);
        monitor.check()?;
        let output = match self {
            Place::File(output) => output,
            Place::Directory(mut directory) => {
                image.blobs.confirm()?;
                if !directory.publish_as_it_is()? {
                    return Err(Error::new(ErrorKind::Output, "something took the name of the output meanwhile")
                        .with_remedy(Remedy::WritableOutput));
                }
                return Ok(Finished { size: bytes, ..Finished::default() });
            }
            #[cfg(feature = "network")]
            Place::Hosted(hosted) => return hosted.finish_sif(bytes, image, monitor),
            _ => return Ok(Finished { size: bytes, ..Finished::default() }),
        };
        output.file().set_len(bytes).or_kind(ErrorKind::Output)?;
        let expected = task.options.expected_sha256;
        let is_wanted = task.options.sha256 || expected.is_some();
        let sha256 = if is_wanted { Some(hash(output.file(), monitor)?) } else { None };
        if let (Some(expected), Some(found)) = (expected, sha256.filter(|_| sha256 != expected)) {
            let message =
                format!("the output is not the expected one: its SHA-256 is {}, not {}", found.hex(), expected.hex());
            return Err(Error::new(ErrorKind::Mismatch, message).with_remedy(Remedy::AttachedSif));
        }
        image.blobs.confirm()?;
        output.publish()?;
        Ok(Finished { size: bytes, sha256, ..Finished::default() })
    }

    /// Room for decoded contents: the far end of the unfinished output, so that there is no second file and they are read
    /// back from where they are written to; a file of a layout's; an unlinked temporary where there is no output file, or it
    /// cannot hold them. Where it is to be `private`, no disk holds anything in the clear.
    pub(super) fn spool(&self, tmpdir: &Path, private: bool) -> Result<Spool> {
        let veil = if private { Some(Veil::new()?) } else { None };
        self.plain_spool(tmpdir).map(|spool| spool.veiled(veil))
    }

    fn plain_spool(&self, tmpdir: &Path) -> Result<Spool> {
        match self {
            Place::File(output) if self.spools_itself() => Ok(Spool::new(Arc::clone(output.file()), SPOOL_OFFSET)),
            #[cfg(feature = "network")]
            Place::Hosted(hosted) if hosted.scratch.as_ref().is_some_and(|scratch| holds_a_gap(scratch.file())) => {
                Ok(Spool::new(Arc::clone(hosted.file()?), SPOOL_OFFSET))
            }
            Place::Layout(layout) => Ok(Spool::new(Arc::clone(layout.scratch()?.file()), 0)),
            Place::Directory(_) => Ok(Spool::new(Arc::clone(self.scratch(tmpdir)?.file()), 0)),
            _ => {
                let file = tempfile::tempfile_in(tmpdir).or_kind(ErrorKind::Output);
                let file = file.doing(|| format!("creating a temporary file in {tmpdir:?}"));
                let file = file.map_err(|error| error.at(tmpdir).with_remedy(Remedy::OtherTmpdir))?;
                Ok(Spool::new(Arc::new(file), 0).in_directory(tmpdir))
            }
        }
    }

    /// Whether the spool lies in the output itself.
    pub(super) fn spools_itself(&self) -> bool {
        matches!(self, Place::File(output) if holds_a_gap(output.file()))
    }

    /// A file for what must be known whole before it can be written: where the output is to be, or near it, or in `tmpdir`
    /// where that is a stream.
    pub(super) fn scratch(&self, tmpdir: &Path) -> Result<Scratch> {
        match self {
            Place::File(output) => Scratch::create(directory_of(output.path()), 0o600),
            Place::Layout(layout) => layout.scratch(),
            Place::Directory(directory) => Scratch::create(directory_of(directory.path()), 0o600),
            _ => {
                let made = Scratch::create(tmpdir, 0o600);
                made.map_err(|error| error.with_remedy(Remedy::OtherTmpdir))
            }
        }
    }

    /// The file of an output whose beginning is written last, which `what` is.
    pub(super) fn expect_file(&self, what: &str) -> Result<&Arc<File>> {
        match self {
            Place::File(output) => Ok(output.file()),
            #[cfg(feature = "network")]
            Place::Hosted(hosted) => hosted.file(),
            _ => Err(Error::new(ErrorKind::Usage, format!("{what} cannot be written to a stream"))
                .with_remedy(Remedy::SeekableOutput)),
        }
    }

    /// Refuses an output of `bytes` bytes that there is no room for.
    pub(super) fn expect_room(&self, bytes: u64) -> Result<()> {
        let (free, path) = match self {
            Place::File(output) => (free_bytes(&**output.file()), output.path()),
            Place::Layout(layout) => (File::open(layout.directory()).ok().and_then(free_bytes), layout.path()),
            Place::Directory(it) => (File::open(it.path()).ok().and_then(free_bytes), it.path()),
            _ => return Ok(()),
        };
        match free {
            Some(free) if free < bytes => Err(Error::new(
                ErrorKind::NoSpace,
                format!("output {path:?} takes {bytes} bytes, and there is room for {free}"),
            )
            .with_remedy(Remedy::RoomForOutput)),
            _ => Ok(()),
        }
    }
}

/// The SHA-256 of a file that we have written.
pub(super) fn hash(file: &Arc<File>, monitor: &Monitor) -> Result<Digest> {
    let region = Region::whole(Arc::clone(file)).or_kind(ErrorKind::Output)?;
    let failed = |error| Error::io(ErrorKind::Output, error);
    hash_region(&region, failed, |_| monitor.check()).map(|(digest, _)| digest)
}

fn holds_a_gap(file: &File) -> bool {
    let unlimited = getrlimit(Resource::Fsize).current.is_none();
    // ext2 and ext3 have the number of ext4 and no file of that size: only trying tells, behind all that is ever spooled.
    let reaches = || file.write_all_at(&[0], SPOOL_OFFSET + (1 << 40)).is_ok();
    unlimited && file_system_kind(file).is_some_and(|kind| SPARSE_FILE_SYSTEMS.contains(&kind)) && reaches()
}
