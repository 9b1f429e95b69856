//! Our squashfs images before other people's programs: unsquashfs, the kernel, squashfuse, and the crate backhand.
//!
//! A program that is missing is skipped with a printed reason; with `ORACLES=require` that is a failure. The kernel needs
//! root, so it is only asked when this runs as root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use crate::support::random::noise;
use crate::support::run::skip;
use sif_convert::Result;
use sif_convert::io::{Monitor, Region};
use sif_convert::model::{Mode, Timestamp, Xattrs};
use sif_convert::squashfs::{
    Attributes, Compression, FileSource, FileStore, Image, InodeKind, Node, NodeId, Options, Writer,
};

type ImageWriter = Writer<'static, FileStore>;
const ROOT: NodeId = ImageWriter::ROOT;

fn attributes(mode: u32) -> Attributes<'static> {
    Attributes { mode: Mode::new(mode), uid: 0, gid: 0, mtime: Timestamp::from_seconds(1_600_000_000), xattrs: None }
}

fn add(writer: &mut ImageWriter, parent: NodeId, name: &str, node: Node<'_>) -> NodeId {
    writer.add(parent, name.as_bytes(), &attributes(0o755), node).unwrap()
}

fn file(bytes: Vec<u8>) -> Node<'static> {
    Node::File(Arc::new(bytes))
}

/// A hole of any length with one byte in it.
struct Hole {
    size: u64,
    byte_at: u64,
}

impl FileSource for Hole {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        buffer.fill(0);
        if let Some(byte) = self.byte_at.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize)) {
            *byte = b'!';
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        (offset <= self.byte_at).then(|| offset.max(self.byte_at))
    }
}

/// A name, how the image is written, and what is put into it.
type Recipe = (&'static str, Options, fn(&mut ImageWriter));

/// All the images that are asked about.
fn cases() -> Vec<Recipe> {
    let gzip = Options::new(1_700_000_000, NonZeroUsize::new(2).unwrap());
    let zstd = Options { compression: Compression::zstd(3), ..gzip.clone() };
    let small_blocks = Options { block_size: 4096, ..gzip.clone() };
    let large_blocks = Options { block_size: 1 << 20, compression: Compression::gzip(12), ..gzip.clone() };
    vec![
        ("empty root", gzip.clone(), |_| {}),
        ("every kind", gzip.clone(), every_kind),
        ("every kind, zstd", zstd.clone(), every_kind),
        ("sizes around a block", gzip.clone(), |writer| sizes(writer, 128 << 10)),
        ("sizes around a block, zstd", zstd, |writer| sizes(writer, 128 << 10)),
        ("sizes around a small block", small_blocks.clone(), |writer| sizes(writer, 4096)),
        ("sizes around a large block", large_blocks, |writer| sizes(writer, 1 << 20)),
        ("long link", gzip.clone(), |writer| {
            add(writer, ROOT, "link", Node::Symlink(&[b'x'; 4095]));
        }),
        ("70000 names", gzip.clone(), many_names),
        ("names of 255 bytes", gzip.clone(), long_names),
        ("70000 hard links", gzip.clone(), |writer| {
            let first = add(writer, ROOT, "first", file(b"once".to_vec()));
            (0..70_000).for_each(|number| writer.link(ROOT, format!("l{number:05}").as_bytes(), first).unwrap());
        }),
        ("files over 4 GiB", gzip.clone(), huge_files),
        ("owners and times", gzip.clone(), owners_and_times),
        ("5000 owners", gzip.clone(), many_owners),
        ("extended attributes", gzip, extended_attributes),
        ("4000 small files", small_blocks, |writer| {
            for number in 0..4000u64 {
                let directory = if number % 100 == 0 { 1 } else { 0 };
                let name = format!("f{number}-{directory}");
                add(writer, ROOT, &name, file(noise((number * 37 % 5000) as usize, number / 2)));
            }
        }),
    ]
}

fn every_kind(writer: &mut ImageWriter) {
    let bin = add(writer, ROOT, "bin", Node::Directory);
    add(writer, ROOT, "empty directory", Node::Directory);
    let tool = add(writer, bin, "tool", file(noise(300_000, 1)));
    add(writer, bin, "copy of tool", file(noise(300_000, 1)));
    add(writer, ROOT, "empty", file(Vec::new()));
    add(writer, ROOT, "small", file(b"small".to_vec()));
    add(writer, ROOT, "link", Node::Symlink(b"bin/tool"));
    let dev = add(writer, ROOT, "dev", Node::Directory);
    add(writer, dev, "null", Node::CharDevice { major: 1, minor: 3 });
    add(writer, dev, "disk", Node::BlockDevice { major: 259, minor: 70_000 });
    add(writer, dev, "fifo", Node::Fifo);
    add(writer, dev, "socket", Node::Socket);
    writer.link(ROOT, b"tool again", tool).unwrap();
    for mode in [0o0, 0o4755, 0o2755, 0o1777] {
        writer.add(ROOT, format!("mode {mode:o}").as_bytes(), &attributes(mode), Node::Fifo).unwrap();
    }
    writer.add(ROOT, b"not \xff utf-8", &attributes(0o644), file(b"bytes".to_vec())).unwrap();
}

fn sizes(writer: &mut ImageWriter, block: usize) {
    for (number, size) in
        [1, block - 1, block, block + 1, 2 * block - 1, 2 * block, 3 * block + 7].into_iter().enumerate()
    {
        add(writer, ROOT, &format!("noise {size}"), file(noise(size, number as u64)));
        add(writer, ROOT, &format!("zeros {size}"), file(vec![0; size]));
        add(writer, ROOT, &format!("letters {size}"), file(vec![b'a'; size]));
        let mut mixed = noise(size, number as u64);
        mixed[..size / 2].fill(0);
        add(writer, ROOT, &format!("zeros first {size}"), file(mixed.clone()));
        mixed.reverse();
        add(writer, ROOT, &format!("zeros last {size}"), file(mixed));
    }
}

fn many_names(writer: &mut ImageWriter) {
    (0..70_000u64).for_each(|number| {
        add(writer, ROOT, &format!("{number:x}"), file(vec![7; (number % 3) as usize]));
    });
}

fn long_names(writer: &mut ImageWriter) {
    let directory = add(writer, ROOT, &"d".repeat(255), Node::Directory);
    (0..400).for_each(|number| {
        add(writer, directory, &format!("{number:0255}"), file(vec![b'n'; 3]));
    });
}

fn huge_files(writer: &mut ImageWriter) {
    for (name, size, byte_at) in
        [("end", (5 << 30) + 17, (5 << 30) + 16), ("middle", 5 << 30, 3 << 30), ("nothing", (4 << 30) + 1, u64::MAX)]
    {
        add(writer, ROOT, name, Node::File(Arc::new(Hole { size, byte_at })));
    }
}

fn owners_and_times(writer: &mut ImageWriter) {
    for (number, seconds) in [-1, 0, 1, i64::from(i32::MAX) + 1, u32::MAX.into(), 1 << 33].into_iter().enumerate() {
        let id = 65_536 * number as u32 + 5;
        let mtime = Timestamp::from_seconds(seconds);
        let attributes = Attributes { uid: id, gid: id + 1, mtime, ..attributes(0o640) };
        writer.add(ROOT, format!("{number}").as_bytes(), &attributes, Node::Fifo).unwrap();
    }
}

fn many_owners(writer: &mut ImageWriter) {
    for id in 0..5000 {
        let attributes = Attributes { uid: 1_000_000 + id, ..attributes(0o600) };
        writer.add(ROOT, format!("id {id}").as_bytes(), &attributes, Node::Fifo).unwrap();
    }
}

/// cap_net_bind_service=ep, as the kernel stores it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn extended_attributes(writer: &mut ImageWriter) {
    // Linux gives symbolic links trusted.* and security.*, but not user.*.
    let xattrs = Xattrs::from([(b"trusted.link"[..].into(), b"yes"[..].into())]);
    let on_link = Attributes { xattrs: Some(&xattrs), ..attributes(0o777) };
    writer.add(ROOT, b"link", &on_link, Node::Symlink(b"0400")).unwrap();
    writer.add(ROOT, b"fifo", &on_link, Node::Fifo).unwrap();
    writer.add(ROOT, b"null", &on_link, Node::CharDevice { major: 1, minor: 3 }).unwrap();
    for number in 0..1200 {
        let mut xattrs = Xattrs::from([(b"user.number"[..].into(), format!("{}", number / 2).into_bytes().into())]);
        if number % 2 == 0 {
            xattrs.insert(b"security.capability"[..].into(), CAPABILITY.into());
        }
        let attributes = Attributes { xattrs: Some(&xattrs), ..attributes(0o755) };
        let node = match number % 4 {
            2 => Node::Directory,
            _ => file(vec![b'x'; number]),
        };
        writer.add(ROOT, format!("{number:04}").as_bytes(), &attributes, node).unwrap();
    }
}

/// What an image should show: for each path its kind, permissions, owner, time, size or target or device, and links.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Shown {
    kind: char,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    links: u32,
    size: u64,
    target: Vec<u8>,
    device: u64,
}

/// What our own reader shows, once it has verified all.
fn shown_by_us(path: &Path) -> BTreeMap<Vec<u8>, Shown> {
    let image = Image::open(Region::whole(Arc::new(File::open(path).unwrap())).unwrap()).unwrap();
    image.verify(NonZeroUsize::new(2).unwrap(), &Monitor::default()).unwrap();
    let shown = image.entries().map(|entry| {
        let entry = entry.unwrap();
        let inode = entry.inode;
        let (mut size, mut target, mut device) = (0, Vec::new(), 0);
        let kind = match inode.kind {
            InodeKind::Directory(_) => 'd',
            InodeKind::File(data) => {
                size = data.size;
                '-'
            }
            InodeKind::Symlink(bytes) => {
                target = bytes.into();
                'l'
            }
            InodeKind::BlockDevice { major, minor } => {
                device = rustix::fs::makedev(major, minor);
                'b'
            }
            InodeKind::CharDevice { major, minor } => {
                device = rustix::fs::makedev(major, minor);
                'c'
            }
            InodeKind::Fifo => 'p',
            InodeKind::Socket => 's',
        };
        let (mode, owner, mtime) = (inode.mode.bits().into(), (inode.uid, inode.gid), inode.mtime.into());
        (entry.path, Shown { kind, mode, owner, mtime, links: inode.links, size, target, device })
    });
    shown.collect()
}

/// What a mounted file system shows.
fn shown_by_mount(mount: &Path) -> BTreeMap<Vec<u8>, Shown> {
    let mut shown = BTreeMap::new();
    let mut pending = vec![mount.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let (mut size, mut target, mut device) = (0, Vec::new(), 0);
        let letter = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            'd'
        } else if kind.is_file() {
            size = metadata.size();
            '-'
        } else if kind.is_symlink() {
            target = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec();
            'l'
        } else if kind.is_fifo() {
            'p'
        } else if kind.is_socket() {
            's'
        } else {
            device = metadata.rdev();
            if kind.is_block_device() { 'b' } else { 'c' }
        };
        let links = metadata.nlink() as u32;
        let (mode, owner, mtime) = (metadata.mode() & 0o7777, (metadata.uid(), metadata.gid()), metadata.mtime());
        let name = path.strip_prefix(mount).unwrap().as_os_str().as_bytes().to_vec();
        shown.insert(name, Shown { kind: letter, mode, owner, mtime, links, size, target, device });
    }
    shown
}

/// Compares contents; of huge files, only the ends and the middle.
fn compare_contents(image: &Path, mount: &Path) {
    let ours = Image::open(Region::whole(Arc::new(File::open(image).unwrap())).unwrap()).unwrap();
    for entry in ours.entries() {
        let entry = entry.unwrap();
        let InodeKind::File(data) = &entry.inode.kind else { continue };
        let path = mount.join(std::ffi::OsStr::from_bytes(&entry.path));
        if data.size < 1 << 30 {
            let mut expected = Vec::new();
            ours.copy_file(&entry.inode, &mut expected).unwrap();
            assert!(fs::read(&path).unwrap() == expected, "{}", path.display());
        } else {
            let file = File::open(&path).unwrap();
            let mut buffer = vec![0; 1 << 20];
            for start in [0, 3 << 30, data.size - (1 << 20)] {
                file.read_exact_at(&mut buffer, start).unwrap();
                let byte = match entry.path.as_slice() {
                    b"end" => Some((5u64 << 30) + 16),
                    b"middle" => Some(3 << 30),
                    _ => None,
                };
                let at = byte.and_then(|at| at.checked_sub(start)).filter(|&at| at < 1 << 20);
                assert!(buffer.iter().enumerate().all(|(n, &b)| b == if Some(n as u64) == at { b'!' } else { 0 }));
            }
        }
    }
}

struct Case {
    name: &'static str,
    image: PathBuf,
    directory: tempfile::TempDir,
}

fn build_all() -> Vec<Case> {
    cases()
        .into_iter()
        .map(|(name, options, fill)| {
            let directory = tempfile::tempdir().unwrap();
            let image = directory.path().join("image");
            let file = Arc::new(File::options().create_new(true).read(true).write(true).open(&image).unwrap());
            let monitor: &'static Monitor = Box::leak(Box::default());
            let mut writer = Writer::new(FileStore::new(file, 0), options, &attributes(0o755), monitor).unwrap();
            fill(&mut writer);
            writer.finish().unwrap();
            Case { name, image, directory }
        })
        .collect()
}

/// Whether to go on with an oracle that needs these programs.
fn available(programs: &[&str], needs_root: bool) -> bool {
    let found = |program: &&&str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).is_file()))
    };
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).collect();
    let not_root = needs_root && !rustix::process::geteuid().is_root();
    if missing.is_empty() && !not_root {
        return true;
    }
    let reason = if not_root { "it needs root".to_string() } else { format!("not on PATH: {missing:?}") };
    skip(&format!("{}: {reason}", programs.join(", ")));
    false
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.stderr.escape_ascii());
    output
}

/// backhand takes targets of 255 bytes at most, where Linux takes 4095; and of tables of more than 8 KiB it reads only the
/// beginning, because it counts entries where it should count bytes. 0.25.1, the last that builds with the Rust that we
/// promise, does not know FIFOs and sockets with extended attributes.
const BACKHAND_CANNOT: [&str; 4] = ["long link", "5000 owners", "4000 small files", "extended attributes"];

#[test]
fn backhand_reads_them() {
    for case in build_all() {
        if BACKHAND_CANNOT.contains(&case.name) {
            continue;
        }
        let file = BufReader::new(File::open(&case.image).unwrap());
        let image =
            backhand::FilesystemReader::from_reader(file).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let names: BTreeSet<Vec<u8>> = image
            .files()
            .map(|node| node.fullpath.as_os_str().as_bytes().strip_prefix(b"/").unwrap().to_vec())
            .collect();
        assert_eq!(names, shown_by_us(&case.image).into_keys().collect(), "{}", case.name);
        let ours = Image::open(Region::whole(Arc::new(File::open(&case.image).unwrap())).unwrap()).unwrap();
        let contents: BTreeMap<Vec<u8>, _> =
            ours.entries().map(|entry| entry.unwrap()).map(|entry| (entry.path, entry.inode)).collect();
        for node in image.files() {
            let backhand::InnerNode::File(file) = &node.inner else { continue };
            let inode = &contents[node.fullpath.as_os_str().as_bytes().strip_prefix(b"/").unwrap()];
            if matches!(&inode.kind, InodeKind::File(data) if data.size > 1 << 30) {
                continue;
            }
            let (mut theirs, mut expected) = (Vec::new(), Vec::new());
            std::io::Read::read_to_end(&mut image.file(file).reader(), &mut theirs).unwrap();
            ours.copy_file(inode, &mut expected).unwrap();
            assert!(theirs == expected, "{}: {}", case.name, node.fullpath.display());
        }
    }
}

#[test]
fn unsquashfs_reads_them() {
    if !available(&["unsquashfs"], false) {
        return;
    }
    for case in build_all() {
        let superblock = String::from_utf8(run(Command::new("unsquashfs").arg("-s").arg(&case.image)).stdout).unwrap();
        assert!(superblock.contains("valid SQUASHFS 4:0 superblock"), "{superblock}");
        let listing = run(Command::new("unsquashfs").args(["-lln"]).arg(&case.image));
        let lines = listing
            .stdout
            .split(|&byte| byte == b'\n')
            .filter(|line| line.windows(13).any(|window| window == b"squashfs-root") && line[0] != b'P');
        assert_eq!(lines.count(), shown_by_us(&case.image).len(), "{}", case.name);
        if case.name == "files over 4 GiB" || case.name == "70000 hard links" {
            continue;
        }
        // As an ordinary user it can make no devices and set no owners; contents and names it can.
        let output = case.directory.path().join("unpacked");
        run(Command::new("unsquashfs")
            .args(["-no-progress", "-no-xattrs", "-ignore-errors", "-d"])
            .arg(&output)
            .arg(&case.image));
        if rustix::process::geteuid().is_root() {
            assert_eq!(comparable(shown_by_mount(&output)), comparable(shown_by_us(&case.image)), "{}", case.name);
        }
        compare_contents(&case.image, &output);
        if case.name == "extended attributes" && rustix::process::geteuid().is_root() {
            let output = case.directory.path().join("with-xattrs");
            run(Command::new("unsquashfs")
                .args(["-no-progress", "-ignore-errors", "-d"])
                .arg(&output)
                .arg(&case.image));
            check_xattrs(&output);
        }
    }
}

/// Without what unpacking changes: a directory's links differ between file systems, and unsquashfs cannot know the time
/// of a link to nowhere.
fn comparable(mut shown: BTreeMap<Vec<u8>, Shown>) -> BTreeMap<Vec<u8>, Shown> {
    for entry in shown.values_mut() {
        if entry.kind == 'd' {
            entry.links = 0;
        }
        if entry.kind == 'l' {
            entry.mode = 0;
        }
        // 32-bit times as squashfs tools show them: they take them for signed.
        entry.mtime = i64::from(entry.mtime as i32);
    }
    shown
}

/// Asks Linux for extended attributes of files of several kinds.
fn check_xattrs(root: &Path) {
    let on_file = [("0400", "user.number", &b"200"[..]), ("0400", "security.capability", CAPABILITY)];
    let on_others = ["link", "fifo", "null"].map(|file| (file, "trusted.link", &b"yes"[..]));
    for (file, name, value) in on_file.into_iter().chain(on_others) {
        let mut buffer = [0; 64];
        let length = rustix::fs::lgetxattr(root.join(file), name, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], value, "{name}");
    }
}

#[test]
fn the_kernel_mounts_them() {
    if !available(&["mount", "umount"], true) {
        return;
    }
    for case in build_all() {
        let mount = Mount::new(&case, "mount", Command::new("mount").args(["-t", "squashfs", "-o", "loop,ro"]));
        let (mut theirs, mut ours) = (shown_by_mount(&mount.0), shown_by_us(&case.image));
        for shown in theirs.values_mut().chain(ours.values_mut()).filter(|shown| shown.kind == 'l') {
            // The kernel shows every symbolic link as 0777, whatever is stored.
            shown.mode = 0;
        }
        for shown in theirs.values_mut() {
            // It takes stored times for signed or not, by its version.
            shown.mtime = i64::from(shown.mtime as u32);
        }
        assert!(theirs == ours, "{}", case.name);
        compare_contents(&case.image, &mount.0);
        for name in ours.keys() {
            // One lookup each through the directory index.
            assert!(fs::symlink_metadata(mount.0.join(std::ffi::OsStr::from_bytes(name))).is_ok());
        }
        if case.name == "extended attributes" {
            check_xattrs(&mount.0);
        }
    }
}

#[test]
fn squashfuse_mounts_them() {
    if !available(&["squashfuse", "umount"], true) || !Path::new("/dev/fuse").exists() {
        return;
    }
    for case in build_all() {
        let mount = Mount::new(&case, "fuse", &mut Command::new("squashfuse"));
        let names: BTreeSet<_> = shown_by_mount(&mount.0).into_keys().collect();
        assert_eq!(names, shown_by_us(&case.image).into_keys().collect(), "{}", case.name);
        compare_contents(&case.image, &mount.0);
    }
}

#[test]
fn our_reader_reads_what_mksquashfs_writes() {
    if !available(&["mksquashfs", "unsquashfs"], false) {
        return;
    }
    for case in build_all() {
        // The others would take it minutes.
        if !["every kind", "names of 255 bytes", "owners and times", "extended attributes", "4000 small files"]
            .contains(&case.name)
        {
            continue;
        }
        let unpacked = case.directory.path().join("unpacked");
        run(Command::new("unsquashfs").args(["-no-progress", "-ignore-errors", "-d"]).arg(&unpacked).arg(&case.image));
        for arguments in [&["-comp", "gzip"][..], &["-comp", "zstd", "-b", "64K"], &["-always-use-fragments", "-noI"]] {
            let packed = case.directory.path().join("packed");
            let common = ["-no-progress", "-noappend", "-quiet", "-mkfs-time", "0"];
            run(Command::new("mksquashfs").arg(&unpacked).arg(&packed).args(common).args(arguments));
            assert_eq!(comparable(shown_by_us(&packed)), comparable(shown_by_mount(&unpacked)), "{}", case.name);
            compare_contents(&packed, &unpacked);
        }
    }
}

/// A mounted image, unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(case: &Case, name: &str, command: &mut Command) -> Self {
        let at = case.directory.path().join(name);
        fs::create_dir(&at).unwrap();
        run(command.arg(&case.image).arg(&at));
        Mount(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}
