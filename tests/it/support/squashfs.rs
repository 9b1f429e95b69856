//! Lists the squashfs inside a SIF, as the project's reader sees it and as the crate backhand does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use backhand::{FilesystemReader, InnerNode};
use sif_convert::io::Region;
use sif_convert::sif::{Container, verify};
use sif_convert::squashfs::{Image, InodeKind};

use super::entry::{Time, When};
use super::listing::{Listing, Node, Path, Times, What, file, parts};

/// The SIF file, after a look at its structure.
pub fn open(path: &std::path::Path) -> Result<Container, String> {
    let region = Region::whole(Arc::new(File::open(path).unwrap())).unwrap();
    let findings = verify(&region).map_err(|error| error.to_string())?;
    if !findings.is_empty() {
        return Err(format!("{findings:?}"));
    }
    Container::open(region).map_err(|error| error.to_string())
}

/// Where the root file system lies in the file.
pub fn partition(container: &Container) -> Region {
    container.data(container.primary().unwrap()).unwrap()
}

/// The tree as the project's reader sees it.
pub fn list(partition: Region) -> Result<Listing, String> {
    let image = Image::open(partition).map_err(|error| error.to_string())?;
    let mut listing = Listing::default();
    let mut inodes: BTreeMap<u32, usize> = BTreeMap::new();
    for entry in image.entries() {
        let entry = entry.map_err(|error| error.to_string())?;
        let (path, inode) = (parts(&entry.path), entry.inode);
        if let Some(&id) = inodes.get(&inode.number) {
            listing.names.insert(path, id);
            continue;
        }
        let what = match &inode.kind {
            InodeKind::Directory(_) => What::Dir,
            InodeKind::File(_) => {
                let mut bytes = Vec::new();
                image.copy_file(&inode, &mut bytes).map_err(|error| error.to_string())?;
                file(&bytes)
            }
            InodeKind::Symlink(target) => What::Symlink(target.to_vec()),
            InodeKind::Fifo => What::Fifo,
            InodeKind::CharDevice { major, minor } => What::Char(*major, *minor),
            InodeKind::BlockDevice { major, minor } => What::Block(*major, *minor),
            InodeKind::Socket => return Err(format!("{:?} is a socket", entry.path)),
        };
        let xattrs = image.xattrs(&inode).map_err(|error| error.to_string())?;
        let node = Node {
            what,
            mode: inode.mode.bits().into(),
            uid: inode.uid,
            gid: inode.gid,
            time: seconds(inode.mtime.into()),
            xattrs: xattrs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        inodes.insert(inode.number, listing.add(path, node));
    }
    Ok(listing)
}

fn seconds(seconds: i64) -> When {
    When::At(Time { seconds, nanoseconds: 0 })
}

/// What backhand can tell of a tree: it knows neither which names are one inode nor extended attributes.
pub fn list_by_backhand(path: &std::path::Path, partition: &Region) -> Result<Listing, String> {
    let input = BufReader::new(File::open(path).unwrap());
    let image =
        FilesystemReader::from_reader_with_offset(input, partition.offset).map_err(|error| error.to_string())?;
    let mut listing = Listing::default();
    for node in image.files() {
        let what = match &node.inner {
            InnerNode::Dir(_) => What::Dir,
            InnerNode::File(data) => {
                let mut bytes = Vec::new();
                image.file(data).reader().read_to_end(&mut bytes).map_err(|error| error.to_string())?;
                file(&bytes)
            }
            InnerNode::Symlink(link) => What::Symlink(link.link.as_os_str().as_bytes().to_vec()),
            InnerNode::NamedPipe => What::Fifo,
            // It gives the number as it is stored: eight low bits of the minor, twelve of the major, the rest of the minor.
            InnerNode::CharacterDevice(device) => devices(device.device_number, What::Char),
            InnerNode::BlockDevice(device) => devices(device.device_number, What::Block),
            InnerNode::Socket => return Err(format!("{} is a socket", node.fullpath.display())),
        };
        let header = node.header;
        let node_of = Node {
            what,
            mode: header.permissions.into(),
            uid: header.uid,
            gid: header.gid,
            time: seconds(header.mtime.into()),
            xattrs: BTreeMap::new(),
        };
        listing.add(parts(node.fullpath.as_os_str().as_bytes()), node_of);
    }
    Ok(listing)
}

fn devices(number: u32, make: fn(u32, u32) -> What) -> What {
    make(number >> 8 & 0xfff, number & 0xff | (number >> 12 & 0xf_ff00))
}

/// The same tree without what backhand cannot tell.
pub fn plain(listing: &Listing) -> Listing {
    let mut plain = Listing::default();
    for (path, &id) in &listing.names {
        plain.add(path.clone(), Node { xattrs: BTreeMap::new(), ..listing.nodes[id].clone() });
    }
    plain
}

/// Times as squashfs has them: whole seconds, rounded down, from 1970 to 2106.
pub fn storable_times(listing: &mut Listing) {
    for node in &mut listing.nodes {
        if let When::At(time) = &mut node.time {
            *time = Time { seconds: time.seconds.clamp(0, u32::MAX.into()), nanoseconds: 0 };
        }
    }
}

/// Fails with what differs.
pub fn same(expected: &Listing, found: &Listing) -> Result<(), String> {
    let differences = expected.differences(found, Times::Exact);
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

/// Whether a tree holds `path`.
pub fn holds(listing: &Listing, path: &str) -> bool {
    listing.names.contains_key::<Path>(&parts(path.as_bytes()))
}
