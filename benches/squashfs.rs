//! What the squashfs writer costs beside what it cannot avoid.
//!
//!     SQUASHFS_TREE=/some/unpacked/root cargo bench --bench squashfs
//!
//! packs the tree, then compresses the same blocks with libdeflate in a plain loop on as many threads, and prints both.
//! `SQUASHFS_OUT` keeps the image, `SQUASHFS_THREADS` and `SQUASHFS_LEVEL` set what they say. Without a tree it does
//! nothing.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sif_convert::io::{Monitor, Region};
use sif_convert::model::{Mode, Timestamp};
use sif_convert::squashfs::{
    Attributes, Compression, FileSource, FileStore, Image, Node, NodeId, Options, Summary, Writer,
};
use sif_convert::{ErrorKind, IoResultExt, Result};

/// A file that is opened for each read: what keeping descriptors open costs belongs to the caller, not to the writer.
struct OnDisk {
    path: PathBuf,
    size: u64,
}

impl FileSource for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let file = File::open(&self.path).or_kind(ErrorKind::SourceUnavailable)?;
        file.read_exact_at(buffer, offset).or_kind(ErrorKind::SourceUnavailable)
    }
}

struct Packer {
    writer: Writer<'static, FileStore>,
    links: BTreeMap<(u64, u64), NodeId>,
    blocks: Vec<(PathBuf, u64, usize)>,
}

impl Packer {
    fn directory(&mut self, path: &Path, id: NodeId) {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            self.entry(&path.join(&name), id, name.as_bytes());
        }
    }

    fn entry(&mut self, path: &Path, parent: NodeId, name: &[u8]) {
        let metadata = fs::symlink_metadata(path).unwrap();
        let attributes = attributes(&metadata);
        if let Some(&first) = self.links.get(&(metadata.dev(), metadata.ino())) {
            return self.writer.link(parent, name, first).unwrap();
        }
        let kind = metadata.file_type();
        let target;
        let node = if kind.is_dir() {
            Node::Directory
        } else if kind.is_symlink() {
            target = fs::read_link(path).unwrap();
            Node::Symlink(target.as_os_str().as_bytes())
        } else if kind.is_file() {
            self.note_blocks(path, metadata.size());
            Node::File(Arc::new(OnDisk { path: path.into(), size: metadata.size() }))
        } else if kind.is_fifo() {
            Node::Fifo
        } else {
            return;
        };
        let id = self.writer.add(parent, name, &attributes, node).unwrap();
        if kind.is_dir() {
            self.directory(path, id);
        } else if metadata.nlink() > 1 {
            self.links.insert((metadata.dev(), metadata.ino()), id);
        }
    }

    fn note_blocks(&mut self, path: &Path, size: u64) {
        for offset in (0..size).step_by(BLOCK) {
            self.blocks.push((path.into(), offset, (size - offset).min(BLOCK as u64) as usize));
        }
    }
}

const BLOCK: usize = 128 << 10;

fn attributes(metadata: &fs::Metadata) -> Attributes<'static> {
    let (mode, mtime) = (Mode::new(metadata.mode()), Timestamp::from_seconds(metadata.mtime()));
    Attributes { mode, uid: metadata.uid(), gid: metadata.gid(), mtime, xattrs: None }
}

fn pack(tree: &Path, output: &Path, options: Options) -> (Summary, Vec<(PathBuf, u64, usize)>) {
    let file = Arc::new(File::options().create(true).truncate(true).read(true).write(true).open(output).unwrap());
    let store = FileStore::new(file, 0);
    let root = attributes(&fs::symlink_metadata(tree).unwrap());
    let monitor: &'static Monitor = Box::leak(Box::default());
    let writer = Writer::new(store, options, &root, monitor).unwrap();
    let mut packer = Packer { writer, links: BTreeMap::new(), blocks: Vec::new() };
    packer.directory(tree, Writer::<FileStore>::ROOT);
    (packer.writer.finish().unwrap(), packer.blocks)
}

/// The same bytes through libdeflate, small files gathered to blocks, nothing written.
fn plain_loop(blocks: &[(PathBuf, u64, usize)], level: i32, threads: usize) -> usize {
    let next = AtomicUsize::new(0);
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(level).unwrap());
                let mut packed = vec![0; compressor.zlib_compress_bound(BLOCK)];
                let mut raw = vec![0; BLOCK];
                let mut filled = 0;
                let mut flush = |raw: &[u8]| {
                    total.fetch_add(compressor.zlib_compress(raw, &mut packed).unwrap(), Ordering::Relaxed)
                };
                while let Some((path, offset, length)) = blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if filled + length > BLOCK {
                        flush(&raw[..filled]);
                        filled = 0;
                    }
                    File::open(path).unwrap().read_exact_at(&mut raw[filled..filled + length], *offset).unwrap();
                    filled += length;
                }
                flush(&raw[..filled]);
            });
        }
    });
    total.into_inner()
}

/// CPU time and peak memory of this process so far.
fn usage() -> (Duration, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    (Duration::from_millis(ticks * 10), peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10)
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> (T, Duration, Duration) {
    let (cpu, _) = usage();
    let start = Instant::now();
    let result = work();
    let (wall, (cpu_after, peak)) = (start.elapsed(), usage());
    println!("{what}: wall {wall:.2?}, CPU {:.2?}, peak memory so far {peak} MiB", cpu_after - cpu);
    (result, wall, cpu_after - cpu)
}

fn main() {
    let Some(tree) = std::env::var_os("SQUASHFS_TREE") else {
        return println!("set SQUASHFS_TREE to a directory to measure with");
    };
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<usize>().unwrap());
    let threads = number("SQUASHFS_THREADS")
        .map_or(std::thread::available_parallelism().unwrap(), |n| NonZeroUsize::new(n).unwrap());
    let level = number("SQUASHFS_LEVEL").unwrap_or(6);
    let output = std::env::var_os("SQUASHFS_OUT").map_or("/dev/shm/bench.squashfs".into(), PathBuf::from);
    let compression = match std::env::var_os("SQUASHFS_ZSTD") {
        Some(_) => Compression::zstd(level as u32),
        None => Compression::gzip(level as u32),
    };
    let options = Options { compression, ..Options::new(0, threads) };
    let ((summary, blocks), wall, cpu) = timed("squashfs", || pack(tree.as_ref(), &output, options));
    println!("{summary:?}");
    let region = Region::whole(Arc::new(File::open(&output).unwrap())).unwrap();
    let (verified, ..) = timed("verify", || Image::open(region).unwrap().verify(threads, &Monitor::default()).unwrap());
    println!("{verified:?}");
    let (_, loop_wall, loop_cpu) = timed("libdeflate in a loop", || plain_loop(&blocks, level as i32, threads.get()));
    println!(
        "ratio: wall {:.3}, CPU {:.3}",
        wall.as_secs_f64() / loop_wall.as_secs_f64(),
        cpu.as_secs_f64() / loop_cpu.as_secs_f64()
    );
    if std::env::var_os("SQUASHFS_OUT").is_none() {
        fs::remove_file(&output).unwrap();
    }
}
