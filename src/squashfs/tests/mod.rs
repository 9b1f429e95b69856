//! Images built and looked at: their bytes, their limits, their damage.

mod damage;
mod disassembly;
mod failures;

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::{ErrorKind, Result};
use crate::io::Monitor;
use crate::model::{Digest, Mode, Timestamp, Xattrs};

/// A store whose bytes can be looked at afterwards.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Store for Shared {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.lock().unwrap().write_at(bytes, position)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Builder<'m> = Writer<'m, Shared>;
const ROOT: NodeId = Writer::<Shared>::ROOT;

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn options() -> Options {
    Options { block_size: 4096, ..Options::new(1_700_000_000, threads(2)) }
}

fn attributes(mode: u32) -> Attributes<'static> {
    Attributes { mode: Mode::new(mode), uid: 0, gid: 0, mtime: Timestamp::from_seconds(1_600_000_000), xattrs: None }
}

fn build_with(options: Options, add: impl FnOnce(&mut Builder<'_>) -> Result<()>) -> Result<(Vec<u8>, Summary)> {
    let (store, monitor) = (Shared::default(), Monitor::default());
    let mut writer = Writer::new(store.clone(), options, &attributes(0o755), &monitor)?;
    add(&mut writer)?;
    let summary = writer.finish()?;
    let bytes = std::mem::take(&mut *store.0.lock().unwrap());
    Ok((bytes, summary))
}

fn build(add: impl FnOnce(&mut Builder<'_>)) -> (Vec<u8>, Summary) {
    build_with(options(), |writer| {
        add(writer);
        Ok(())
    })
    .unwrap()
}

fn add(writer: &mut Builder<'_>, parent: NodeId, name: &str, node: Node<'_>) -> NodeId {
    writer.add(parent, name.as_bytes(), &attributes(0o644), node).unwrap()
}

fn file(bytes: impl Into<Vec<u8>>) -> Node<'static> {
    Node::File(Arc::new(bytes.into()))
}

/// Bytes that do not compress and differ by seed (xorshift).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

fn verify(bytes: &[u8]) -> Result<Verified> {
    Image::open(bytes.to_vec())?.verify(threads(2), &Monitor::default())
}

/// Path and content or kind of everything in an image, after it was verified.
fn listing(bytes: &[u8]) -> Vec<(String, Entry, Vec<u8>)> {
    verify(bytes).unwrap();
    let image = Image::open(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    for entry in image.entries() {
        let entry = entry.unwrap();
        let mut content = Vec::new();
        if matches!(entry.inode.kind, InodeKind::File(_)) {
            image.copy_file(&entry.inode, &mut content).unwrap();
        }
        all.push((String::from_utf8(entry.path.clone()).unwrap(), entry, content));
    }
    all
}

fn find(all: &[(String, Entry, Vec<u8>)], path: &str) -> (Inode, Vec<u8>) {
    let (_, entry, content) = all.iter().find(|(name, ..)| name == path).unwrap_or_else(|| panic!("no {path}"));
    (entry.inode.clone(), content.clone())
}

/// Something of everything.
fn sample(writer: &mut Builder<'_>) {
    let bin = add(writer, ROOT, "bin", Node::Directory);
    let tool = add(writer, bin, "tool", file(noise(10_000, 1)));
    add(writer, bin, "twin", file(noise(10_000, 1)));
    add(writer, ROOT, "empty", file([]));
    add(writer, ROOT, "hole", file(vec![0; 3 * 4096 + 5]));
    add(writer, ROOT, "link", Node::Symlink(b"bin/tool"));
    let dev = add(writer, ROOT, "dev", Node::Directory);
    add(writer, dev, "null", Node::CharDevice { major: 1, minor: 3 });
    add(writer, dev, "disk", Node::BlockDevice { major: 259, minor: 70_000 });
    add(writer, dev, "fifo", Node::Fifo);
    add(writer, dev, "socket", Node::Socket);
    add(writer, ROOT, "text", file("some text, some text, some text, some text"));
    add(writer, ROOT, "text2", file("some text, some text, some text, some text"));
    writer.link(ROOT, b"tool-again", tool).unwrap();
    let xattrs = Xattrs::from([
        (b"security.capability"[..].into(), b"\x01\0\0\x02"[..].into()),
        (b"user.a"[..].into(), b"b"[..].into()),
    ]);
    for name in ["marked", "marked2"] {
        let marked = Attributes { xattrs: Some(&xattrs), uid: 1000, gid: 70_000, ..attributes(0o4755) };
        writer.add(ROOT, name.as_bytes(), &marked, file(noise(4096, 9))).unwrap();
    }
}

#[test]
fn holds_something_of_everything() {
    let (bytes, summary) = build(sample);
    let all = listing(&bytes);
    let kind = |path: &str| find(&all, path).0.kind;
    assert_eq!(kind("link"), InodeKind::Symlink(b"bin/tool"[..].into()));
    assert_eq!(kind("dev/null"), InodeKind::CharDevice { major: 1, minor: 3 });
    assert_eq!(kind("dev/disk"), InodeKind::BlockDevice { major: 259, minor: 70_000 });
    assert_eq!((kind("dev/fifo"), kind("dev/socket")), (InodeKind::Fifo, InodeKind::Socket));
    let (tool, content) = find(&all, "bin/tool");
    assert_eq!((content, tool.links), (noise(10_000, 1), 2));
    assert_eq!(find(&all, "tool-again").0, tool);
    assert_eq!(find(&all, "hole").1, vec![0; 3 * 4096 + 5]);
    let (marked, _) = find(&all, "marked");
    assert_eq!((marked.uid, marked.gid, marked.mode.bits(), marked.xattrs), (1000, 70_000, 0o4755, Some(0)));
    assert_eq!(find(&all, "marked2").0.xattrs, Some(0), "equal sets are stored once");
    let image = Image::open(bytes.clone()).unwrap();
    assert_eq!(image.xattrs(&marked).unwrap().len(), 2);
    assert_eq!((summary.duplicate_files, summary.names as usize), (3, all.len() - 1));
    assert_eq!((summary.padded_bytes, summary.bytes_used), (bytes.len() as u64, image.superblock().bytes_used));
}

#[test]
fn duplicates_share_their_data() {
    let big = noise(20_000, 3);
    let mut almost = big.clone();
    almost[19_999] ^= 1;
    let (bytes, summary) = build(|writer| {
        for (name, content) in [("a", &big), ("b", &almost), ("c", &big)] {
            add(writer, ROOT, name, file(content.clone()));
        }
        for name in ["d", "e"] {
            add(writer, ROOT, name, file("small"));
        }
    });
    let all = listing(&bytes);
    assert_eq!((summary.duplicate_files, summary.duplicate_bytes), (2, 20_005));
    let data = |path| match find(&all, path).0.kind {
        InodeKind::File(file) => (file.start, file.fragment),
        other => panic!("{other:?}"),
    };
    assert_eq!((data("a"), data("d")), (data("c"), data("e")));
    assert_ne!(data("a"), data("b"));
    assert_eq!((find(&all, "b").1, find(&all, "c").1), (almost, big));
}

#[test]
fn fragments_are_filled_to_the_last_byte() {
    let (bytes, _) = build(|writer| {
        for (name, size) in [("a", 2048), ("b", 2048), ("c", 1), ("d", 4095), ("e", 1)] {
            add(writer, ROOT, name, file(noise(size, size as u64 + u64::from(name.as_bytes()[0]))));
        }
    });
    let all = listing(&bytes);
    let places = ["a", "b", "c", "d", "e"].map(|name| match find(&all, name).0.kind {
        InodeKind::File(file) => file.fragment.unwrap(),
        other => panic!("{other:?}"),
    });
    assert_eq!(places, [(0, 0), (0, 2048), (1, 0), (1, 1), (2, 0)]);
}

#[test]
fn sizes_around_a_block() {
    for size in [0usize, 1, 4095, 4096, 4097, 8191, 8192, 8193] {
        for content in [noise(size, 5), vec![0; size], vec![b'x'; size]] {
            let (bytes, _) = build(|writer| {
                add(writer, ROOT, "file", file(content.clone()));
            });
            let (inode, found) = find(&listing(&bytes), "file");
            assert_eq!(found, content);
            let InodeKind::File(data) = inode.kind else { panic!("{inode:?}") };
            assert_eq!(data.fragment.is_some(), (1..4096).contains(&size));
            let hole = size >= 4096 && content[0] == 0;
            assert_eq!(data.sparse_bytes, if hole { size as u64 - 1 } else { 0 });
        }
    }
}

#[test]
fn the_end_of_a_file_may_be_a_hole_or_not() {
    for (blocks, tail) in [(vec![7u8, 0, 0, 7], 100), (vec![0, 0, 7, 0], 100), (vec![0, 7, 0], 0), (vec![0, 7], 1)] {
        let mut content: Vec<u8> = blocks.iter().flat_map(|&byte| vec![byte; 4096]).collect();
        content.extend(vec![0; tail]);
        let (bytes, _) = build(|writer| {
            add(writer, ROOT, "file", file(content.clone()));
        });
        let (inode, found) = find(&listing(&bytes), "file");
        assert_eq!(found, content);
        let InodeKind::File(data) = inode.kind else { panic!("{inode:?}") };
        let zeros = content.chunks(4096).filter(|block| block.iter().all(|&byte| byte == 0)).map(<[u8]>::len);
        assert_eq!(data.sparse_bytes, zeros.sum::<usize>() as u64);
    }
}

/// A file of any size that is a hole but for a byte at its end.
struct Hole(u64);

impl FileSource for Hole {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        buffer.fill(0);
        if offset + buffer.len() as u64 == self.0 {
            buffer[buffer.len() - 1] = 1;
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        (offset < self.0).then(|| offset.max(self.0 - 1))
    }
}

#[test]
fn a_file_of_a_tebibyte_costs_nothing() {
    let options = Options { block_size: BLOCK_SIZE_MAX, ..options() };
    let add_hole = |writer: &mut Builder<'_>| {
        writer.add(ROOT, b"huge", &attributes(0o644), Node::File(Arc::new(Hole((1 << 40) + 1)))).map(drop)
    };
    let (bytes, _) = build_with(options.clone(), add_hole).unwrap();
    assert!(bytes.len() < 64 << 10, "{}", bytes.len());
    verify(&bytes).unwrap();
    let image = Image::open(bytes).unwrap();
    let entry = image.entries().nth(1).unwrap().unwrap();
    let InodeKind::File(data) = entry.inode.kind else { panic!("no file") };
    assert_eq!((data.size, data.sparse_bytes, data.block_count), ((1 << 40) + 1, 1 << 40, (1 << 20) + 1));
    let too_long = build_with(options, |writer| {
        writer.add(ROOT, b"huge", &attributes(0o644), Node::File(Arc::new(Hole(1 << 60)))).map(drop)
    });
    assert_eq!(too_long.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    for compression in [Compression::GZIP, Compression::zstd(3)] {
        let with = |count| {
            let options = Options { threads: threads(count), compression, ..options() };
            let fill = |writer: &mut Builder<'_>| {
                sample(writer);
                for number in 0..400u64 {
                    let mut content = noise((number * 97 % 30_000) as usize, number);
                    content.extend(vec![0; (number % 7 * 3000) as usize]);
                    add(writer, ROOT, &format!("file{number:03}"), file(content));
                }
                Ok(())
            };
            build_with(options, fill).unwrap()
        };
        let (one, summary) = with(1);
        verify(&one).unwrap();
        for count in [2, 8] {
            assert!(with(count) == (one.clone(), summary.clone()), "{count} threads");
        }
    }
}

#[test]
fn a_directory_of_70000_names_has_an_index() {
    let (bytes, _) = build(|writer| {
        for number in 0..70_000 {
            add(writer, ROOT, &format!("a-name-of-some-length-{number:06}"), Node::Fifo);
        }
        let full = add(writer, ROOT, "full", Node::Directory);
        for number in 0..300 {
            add(writer, full, &format!("{number:0255}"), Node::Fifo);
        }
    });
    assert_eq!(verify(&bytes).unwrap().names, 70_302);
    let image = Image::open(bytes).unwrap();
    let InodeKind::Directory(root) = image.root().unwrap().kind else { panic!("no directory") };
    let blocks = root.listing_bytes.div_ceil(8192);
    assert!((blocks - 1..=blocks).contains(&root.index_entries.into()), "{root:?}");
}

/// Two headers and 408 names fill a metadata block to its last byte: what follows has a header and an index entry.
#[test]
fn a_listing_that_ends_with_its_block_goes_on_with_a_header() {
    for (names, bytes_of_listing, index_entries) in [(408, 8192, 0), (409, 8192 + 12 + 8 + 12, 1)] {
        let (bytes, _) = build(|writer| {
            for number in 0..names {
                let suffix = if number == 407 { "suffixed" } else { "" };
                add(writer, ROOT, &format!("{number:012}{suffix}"), Node::Fifo);
            }
        });
        assert_eq!(verify(&bytes).unwrap().names, names + 1);
        let image = Image::open(bytes).unwrap();
        let InodeKind::Directory(root) = image.root().unwrap().kind else { panic!("no directory") };
        assert_eq!((root.listing_bytes, u64::from(root.index_entries)), (bytes_of_listing, index_entries), "{names}");
    }
}

#[test]
fn hard_links_past_64_ki() {
    let (bytes, summary) = build(|writer| {
        let first = add(writer, ROOT, "f", file("once"));
        (0..70_000).for_each(|number| writer.link(ROOT, format!("l{number}").as_bytes(), first).unwrap());
    });
    assert_eq!((verify(&bytes).unwrap().names, summary.inodes), (70_002, 2));
    let image = Image::open(bytes).unwrap();
    assert_eq!(image.entries().nth(7).unwrap().unwrap().inode.links, 70_001);
}

#[test]
fn times_are_clamped_and_counted() {
    let times = [(-1, 0), (0, 0), (u32::MAX.into(), u32::MAX), (1 << 32, u32::MAX), (i64::MIN, 0)];
    let (bytes, summary) = build(|writer| {
        for (number, (seconds, _)) in times.iter().enumerate() {
            let attributes = Attributes { mtime: Timestamp::from_seconds(*seconds), ..attributes(0o644) };
            writer.add(ROOT, number.to_string().as_bytes(), &attributes, Node::Fifo).unwrap();
        }
    });
    let found: Vec<u32> = listing(&bytes)[1..].iter().map(|(_, entry, _)| entry.inode.mtime).collect();
    assert_eq!(found, times.map(|(_, stored)| stored));
    assert_eq!(summary.clamped_times, 3);
}

#[test]
fn ids_are_32_bits_wide_but_not_too_many() {
    let with = |count: u32| {
        build_with(options(), |writer| {
            (1..count).try_for_each(|number| {
                let attributes = Attributes { uid: u32::MAX - number, ..attributes(0o644) };
                writer.add(ROOT, number.to_string().as_bytes(), &attributes, Node::Fifo).map(drop)
            })
        })
    };
    let (bytes, _) = with(65_535).unwrap();
    let all = listing(&bytes);
    assert_eq!(find(&all, "65534").0.uid, u32::MAX - 65_534);
    assert_eq!(with(65_536).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn an_image_that_ends_on_4096_gets_no_padding() {
    let (mut found, mut size) = (None, 1);
    while found.is_none() {
        let (bytes, summary) = build(|writer| {
            add(writer, ROOT, "f", file(noise(size, 2)));
        });
        verify(&bytes).unwrap();
        assert_eq!((bytes.len() % 4096, bytes.len() as u64), (0, summary.padded_bytes));
        found = (summary.bytes_used == summary.padded_bytes).then_some(size);
        size += 1;
    }
    assert!(found.is_some());
}

#[test]
fn empty_images_differ_only_by_time() {
    let (bytes, _) = build(|_| {});
    assert_eq!(listing(&bytes).len(), 1);
    let (later, _) = build_with(Options { mkfs_time: 1_700_000_001, ..options() }, |_| Ok(())).unwrap();
    let different: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != later[at]).collect();
    assert_eq!(different, [8]);
}

#[test]
fn the_bytes_are_pinned() {
    let (bytes, _) = build(sample);
    insta::assert_snapshot!("sample", disassembly::disassemble(&bytes));
    insta::assert_snapshot!("sample_digest", Digest::of(&bytes).to_string());
}
