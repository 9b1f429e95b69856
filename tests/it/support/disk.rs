//! Lists a directory of the host: what another program unpacked there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::entry::{Time, When, Xattrs};
use super::listing::{Listing, Node, Path, What, file};

pub fn list(root: &std::path::Path) -> Listing {
    let mut listing = Listing::default();
    let mut inodes = BTreeMap::new();
    visit(&mut listing, &mut inodes, root, Path::new());
    listing
}

fn visit(listing: &mut Listing, inodes: &mut BTreeMap<u64, usize>, at: &std::path::Path, path: Path) {
    let stat = fs::symlink_metadata(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
    let directory = stat.is_dir();
    if let Some(&id) = inodes.get(&stat.ino()).filter(|_| !directory) {
        listing.names.insert(path, id);
        return;
    }
    let device = (rustix::fs::major(stat.rdev()), rustix::fs::minor(stat.rdev()));
    let what = match stat.file_type() {
        kind if kind.is_dir() => What::Dir,
        kind if kind.is_file() => file(&fs::read(at).unwrap()),
        kind if kind.is_symlink() => What::Symlink(fs::read_link(at).unwrap().into_os_string().into_vec()),
        kind if kind.is_fifo() => What::Fifo,
        kind if kind.is_char_device() => What::Char(device.0, device.1),
        kind if kind.is_block_device() => What::Block(device.0, device.1),
        kind => panic!("{}: {kind:?}", at.display()),
    };
    let time = When::At(Time { seconds: stat.mtime(), nanoseconds: stat.mtime_nsec() as u32 });
    let node = Node { what, mode: stat.mode() & 0o7777, uid: stat.uid(), gid: stat.gid(), time, xattrs: xattrs(at) };
    inodes.insert(stat.ino(), listing.add(path.clone(), node));
    if directory {
        for each in fs::read_dir(at).unwrap() {
            let each = each.unwrap();
            let below = [path.clone(), vec![each.file_name().as_bytes().to_vec()]].concat();
            visit(listing, inodes, &each.path(), below);
        }
    }
}

fn xattrs(at: &std::path::Path) -> Xattrs {
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::llistxattr(at, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(at, name, &mut value[..]).unwrap();
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}
