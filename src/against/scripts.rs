//! What is in `.singularity.d`, file by file: it runs in the container, and is not part of the image.

use std::collections::BTreeMap;

use crate::browse::{Aspect, Difference, Place};
use crate::error::Result;
use crate::image::Image;
use crate::model::{Config, Metadata, Timestamp};
use crate::singularity::{self, Additions};
use crate::tree::{Content, Directory, FileData, Inode, Kind, Tree};
use crate::volume::Volume;

/// The most that is read of one of them, in bytes.
const BYTES_MAX: u64 = 4 << 20;
const DIRECTORY: &[u8] = b".singularity.d";

/// Compares what is there with what we make for `image`, and with what other programs are known to make; and what is not there
/// with what all of them make.
pub(super) fn compare(volume: &Volume, image: &Image) -> Result<Vec<Difference>> {
    let has_shell = singularity::has_shell(&volume.tree);
    let ours = [ours(image, false, has_shell)?, ours(image, true, has_shell)?];
    let mut differences = missing(&volume.tree, &image.config);
    for visit in volume.tree.walk() {
        let Some(path) = visit.path.strip_prefix(DIRECTORY) else { continue };
        let path = match path {
            [] => path,
            [b'/', path @ ..] => path,
            _ => continue,
        };
        differences.extend(access(&visit.path, path, volume.tree.inode(visit.inode)));
        let mut add = |explanation, what: String| {
            differences.push(Difference {
                place: Place::Path(visit.path.clone()),
                aspect: Aspect::Presence,
                left: None,
                right: Some(what),
                names: 1,
                explanation,
            });
        };
        match &volume.tree.inode(visit.inode).kind {
            Kind::Directory(_) if singularity::is_known_directory(path) => {}
            Kind::Directory(_) => add(None, "directory".to_string()),
            Kind::File(data) if data.size <= BYTES_MAX => {
                let bytes = volume.read(visit.inode, BYTES_MAX)?.unwrap_or_default();
                if ours.iter().all(|ours| made(ours, &visit.path) != Some(&bytes)) {
                    add(
                        singularity::explain_foreign(path, &bytes, &image.config),
                        format!("file, {} bytes", data.size),
                    );
                }
            }
            // What an image had of its own is kept as it was.
            _ if path.starts_with(b"replaced/") => {}
            kind => add(None, crate::browse::EntryKind::of(kind).to_string()),
        }
    }
    Ok(differences)
}

/// What no builder leaves out: without it a container runs something else, or in another environment. A directory that is missing
/// is one difference.
fn missing(tree: &Tree, config: &Config) -> Vec<Difference> {
    let mut absent = BTreeMap::new();
    for path in singularity::always_there(config) {
        let path = [DIRECTORY, b"/", path.as_bytes()].concat();
        let parents = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let mut places = parents.chain([path.len()]).map(|end| &path[..end]);
        if let Some(place) = places.find(|place| tree.get(place).is_none()) {
            absent.insert(place.to_vec(), if place.len() < path.len() { "directory" } else { "file" });
        }
    }
    let difference = |(path, kind): (Vec<u8>, &str)| Difference {
        place: Place::Path(path),
        aspect: Aspect::Presence,
        left: Some(kind.to_string()),
        right: None,
        names: 1,
        explanation: None,
    };
    absent.into_iter().map(difference).collect()
}

/// In what a file or directory at `place` is open to others than it is as any builder makes it: it is root's, who alone may
/// write to it, and nothing that is run may only be run by some. `path` is relative to `.singularity.d`.
fn access(place: &[u8], path: &[u8], inode: &Inode) -> Vec<Difference> {
    let (usual, for_all, never) = match &inode.kind {
        // What an image had of its own is kept as it was.
        _ if path.starts_with(b"replaced/") => return Vec::new(),
        // Setgid, and its group, a directory may have inherited from the one that it was made in: they give nobody a right.
        Kind::Directory(_) => (0o755, 0o555, 0o5022),
        Kind::File(_) => (0o644 | singularity::mode_for_all(path), singularity::mode_for_all(path), 0o7022),
        _ => return Vec::new(),
    };
    let difference = |aspect, left: String, right: String| Difference {
        place: Place::Path(place.to_vec()),
        aspect,
        left: Some(left),
        right: Some(right),
        names: 1,
        explanation: None,
    };
    let metadata = &inode.metadata;
    let mode = metadata.mode.bits();
    let is_usual = mode & for_all == for_all && mode & never == 0;
    let of_mode = (!is_usual).then(|| difference(Aspect::Mode, format!("{usual:04o}"), format!("{mode:04o}")));
    let owner = |uid, gid| format!("{uid}:{gid}");
    let of_owner =
        (metadata.uid != 0).then(|| difference(Aspect::Owner, owner(0, 0), owner(metadata.uid, metadata.gid)));
    of_mode.into_iter().chain(of_owner).collect()
}

/// The empty files and directories that the SIF says were made outside of `.singularity.d`. `without` is the root as it was
/// compared with the image, from which they were taken away.
pub(super) fn made_places(volume: &Volume, without: &Volume) -> Result<Vec<Difference>> {
    let Some(list) = singularity::list_of_made(&volume.tree) else { return Ok(Vec::new()) };
    let list = volume.read(list, BYTES_MAX)?.unwrap_or_default();
    let paths = list.split(|&byte| byte == 0).filter(|path| !path.is_empty());
    let left_out = paths.filter_map(|path| {
        let inode = volume.tree.get(path)?;
        without.tree.get(path).is_none().then(|| (path, crate::browse::EntryKind::of(&volume.tree.inode(inode).kind)))
    });
    let difference = |(path, kind): (&[u8], crate::browse::EntryKind)| Difference {
        place: Place::Path(path.to_vec()),
        aspect: Aspect::Presence,
        left: None,
        right: Some(format!("empty {kind}")),
        names: 1,
        explanation: Some("a place to bind to: the SIF says that it was made"),
    };
    Ok(left_out.map(difference).collect())
}

/// Names of whiteouts, which were not compared: no image leaves any behind.
pub(super) fn whiteout_names(volume: &Volume) -> impl Iterator<Item = Difference> {
    volume.whiteout_names.iter().map(|path| Difference {
        place: Place::Path(path.clone()),
        aspect: Aspect::Presence,
        left: None,
        right: Some("a name of whiteouts".to_string()),
        names: 1,
        explanation: None,
    })
}

/// What a conversion adds, whatever else the image holds but a shell.
fn ours(image: &Image, change_to_workdir: bool, has_shell: bool) -> Result<Tree> {
    let mut tree = Tree::default();
    if has_shell {
        let metadata = Metadata::root_owned(0o755, Timestamp::default());
        let directory = tree.add(Kind::Directory(Directory::new()), metadata.clone());
        let shell = tree.add(Kind::File(FileData::inline(*b"")), metadata);
        tree.attach(Tree::ROOT, b"bin", directory, 0);
        tree.attach(directory, b"sh", shell, 0);
    }
    let additions = Additions {
        reference: &image.id().to_string(),
        time: image.config.created().unwrap_or_default(),
        architecture: &image.platform().architecture,
        change_to_workdir,
        mkdir: &[],
        mkfile: &[],
        bind_targets: &[],
        labels: &[],
    };
    singularity::prepare(&mut tree, &image.config, &additions)?;
    Ok(tree)
}

fn made<'t>(tree: &'t Tree, path: &[u8]) -> Option<&'t [u8]> {
    match &tree.inode(tree.get(path)?).kind {
        Kind::File(data) => match &data.content {
            Content::Inline(bytes) => Some(bytes),
            _ => None,
        },
        _ => None,
    }
}
