use std::io::Read as _;
use std::num::NonZeroUsize;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::io::{Compression, Region};
use crate::model::{Mode, Timestamp};
use crate::squashfs::{Attributes, BlockDecoder, FileStore, Node, NodeId, Options, Writer};
use crate::tar::{Entries, Sequential};

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn attributes() -> Attributes<'static> {
    Attributes { mode: Mode::new(0o750), uid: 3, gid: 4, mtime: Timestamp::from_seconds(5), xattrs: None }
}

type Builder<'m> = Writer<'m, FileStore>;
const ROOT: NodeId = Builder::ROOT;

/// A squashfs in an unnamed file.
fn squashfs(fill: impl FnOnce(&mut Builder<'_>)) -> Region {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let monitor = Monitor::default();
    let options = Options { block_size: 4096, ..Options::new(0, threads(2)) };
    let store = FileStore::new(Arc::clone(&file), 0);
    let mut writer = Writer::new(store, options, &attributes(), &monitor).unwrap();
    fill(&mut writer);
    writer.finish().unwrap();
    Region::whole(file).unwrap()
}

fn add(writer: &mut Builder<'_>, parent: NodeId, name: &str, node: Node<'_>) -> NodeId {
    writer.add(parent, name.as_bytes(), &attributes(), node).unwrap()
}

fn file(bytes: Vec<u8>) -> Node<'static> {
    Node::File(Arc::new(bytes))
}

fn tar(volume: &Arc<Volume>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    volume.tar(threads(count)).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Names and contents of a tar.
fn members(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut entries = Entries::new(Sequential(tar));
    let mut members = Vec::new();
    while let Some(entry) = entries.next_entry().unwrap() {
        let mut bytes = Vec::new();
        entries
            .for_each_piece(|piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        members.push((String::from_utf8(entry.raw_path).unwrap(), bytes));
    }
    members
}

#[test]
fn the_tar_is_the_same_for_any_number_of_threads() {
    let large: Vec<u8> = (0..9_000_000u32).map(|n| (n / 7) as u8).collect();
    let holes = [vec![0; 40_000], b"end".to_vec()].concat();
    let region = squashfs(|writer| {
        let d = add(writer, ROOT, "d", Node::Directory);
        let one = add(writer, d, "large", file(large.clone()));
        writer.link(d, b"second name", one).unwrap();
        add(writer, d, "holes", file(holes.clone()));
        for n in 0..300 {
            add(writer, d, &format!("small{n}"), file(vec![n as u8; n * 13]));
        }
    });
    let volume = Arc::new(Volume::of_squashfs(region, &Monitor::default()).unwrap());
    let bytes = tar(&volume, 1);
    assert!(bytes == tar(&volume, 4));
    assert_eq!(bytes.len() as u64, volume.tar_bytes());
    let members = members(&bytes);
    let of = |name: &str| &members.iter().find(|(known, _)| known == name).unwrap().1;
    assert!(*of("d/large") == large && *of("d/holes") == holes && of("d/second name").is_empty());
    assert_eq!(*of("d/small299"), vec![43; 299 * 13]);
    assert_eq!(members.len(), 305);
}

/// The blocks of an image of 4 KiB blocks, for an output of `compression` and `block_size`.
fn blocks(volume: &Arc<Volume>, compression: Compression, block_size: u32, any_level: bool) -> Blocks {
    Blocks::of(volume, (compression, block_size, any_level), &Monitor::default()).unwrap().unwrap()
}

fn file_named(volume: &Volume, path: &str) -> FileId {
    let inode = volume.tree.get(path.as_bytes()).unwrap();
    match &volume.tree.inode(inode).kind {
        Kind::File(crate::tree::FileData { content: Content::Stored(location), .. }) => location.file,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_are_found_in_any_order() {
    let large: Vec<u8> = (0..4_000_003u32).map(|n| (n / 7) as u8 ^ (n >> 13) as u8).collect();
    let holes = [vec![0; 40_000], b"middle".to_vec(), vec![0; 80_000], b"end".to_vec()].concat();
    let region = squashfs(|writer| {
        add(writer, ROOT, "large", file(large.clone()));
        add(writer, ROOT, "same", file(large.clone()));
        add(writer, ROOT, "holes", file(holes.clone()));
        add(writer, ROOT, "small", file(b"small".to_vec()));
        add(writer, ROOT, "tiny", file(b"tiny".to_vec()));
    });
    let volume = Arc::new(Volume::of_squashfs(region, &Monitor::default()).unwrap());
    let (at_large, at_small) = (file_named(&volume, "large"), file_named(&volume, "small"));
    let blocks_of = |any_level, size| blocks(&volume, Compression::GZIP, size, any_level);
    let taken = blocks_of(true, 4096);
    assert!(taken.are_distinct());
    assert_eq!(taken.first(file_named(&volume, "same")), Some(at_large), "they lie in the same place");
    let mut seed = 5u64;
    let mut packed = Vec::new();
    for _ in 0..600 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let start = (seed >> 33) as usize % large.len();
        let mut buffer = vec![0; (large.len() - start).min((seed >> 20) as usize % 20_000)];
        taken.read_at(at_large, &mut buffer, start as u64).unwrap();
        assert!(buffer == large[start..start + buffer.len()], "{start}");
        let block = start as u64 / 4096 * 4096;
        let word = taken.data(at_large, block, &mut packed).unwrap().unwrap();
        let raw_bytes = (large.len() as u64 - block).min(4096) as usize;
        let mut raw = Vec::new();
        let stored = &packed[..crate::squashfs::BlockCompressor::length(word)];
        BlockDecoder::new(Compression::GZIP).unwrap().decode(stored, word, raw_bytes, &mut raw).unwrap();
        assert!(raw == large[block as usize..][..raw_bytes], "{block}");
    }
    let at_holes = file_named(&volume, "holes");
    let next = |offset| taken.next_data(at_holes, offset);
    assert_eq!([0, 36_000, 40_001].map(next), [Some(36_864), Some(36_864), Some(40_001)]);
    assert_eq!([40_960, 120_006, 120_009].map(next), [Some(118_784), Some(120_006), None]);
    assert_eq!(taken.data(at_holes, 0, &mut packed).unwrap(), Some(0));
    // A fragment passes as a whole, and with nothing else in it.
    let at_tiny = file_named(&volume, "tiny");
    assert!(taken.fragment(&[(at_small, 5), (at_tiny, 4)], &mut packed).unwrap().is_some());
    for others in [&[(at_small, 5)][..], &[(at_tiny, 4)], &[(at_tiny, 4), (at_small, 5)], &[(at_large, 5)]] {
        assert_eq!(taken.fragment(others, &mut packed).unwrap(), None, "{others:?}");
    }
    for other in [blocks_of(false, 4096), blocks_of(true, 8192), blocks(&volume, Compression::ZSTD, 4096, true)] {
        assert_eq!(other.data(at_large, 0, &mut packed).unwrap(), None);
        assert_eq!(other.fragment(&[(at_small, 5), (at_tiny, 4)], &mut packed).unwrap(), None);
    }
}

#[test]
fn a_damaged_block_does_not_pass() {
    let region = squashfs(|writer| {
        add(writer, ROOT, "victim", file(b"some text ".repeat(5000)));
        add(writer, ROOT, "fragment", file(b"more text ".repeat(100)));
    });
    std::os::unix::fs::FileExt::write_all_at(&*region.file, &[0xff; 32], 120).unwrap();
    let mut volume = Volume::of_squashfs(region, &Monitor::default()).unwrap();
    let victim = file_named(&volume, "victim");
    let mut packed = Vec::new();
    let mut taken = |volume: &Arc<Volume>| {
        blocks(volume, Compression::GZIP, 4096, true).data(victim, 0, &mut packed).unwrap().is_some()
    };
    // Somebody else looks after it where there are checksums.
    volume.check = Some(Box::new(|_| Ok(())));
    let mut volume = Arc::new(volume);
    assert!(taken(&volume));
    Arc::get_mut(&mut volume).unwrap().check = None;
    assert!(!taken(&volume));
    let read = blocks(&volume, Compression::GZIP, 4096, true).read_at(victim, &mut [0; 10], 0);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidImage);
}

#[test]
fn damage_is_an_error_of_the_stream_that_names_the_file() {
    let region = squashfs(|writer| {
        add(writer, ROOT, "victim", file(b"some text ".repeat(5000)));
    });
    std::os::unix::fs::FileExt::write_all_at(&*region.file, &[0xff; 32], 120).unwrap();
    let volume = Arc::new(Volume::of_squashfs(region, &Monitor::default()).unwrap());
    let error = volume.tar(threads(2)).read_to_end(&mut Vec::new()).unwrap_err();
    let error = Error::io(ErrorKind::Other, error);
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.to_string().contains("offset 96"), "{error}");
}

#[test]
fn a_stream_that_nobody_reads_to_its_end_lets_go() {
    let region = squashfs(|writer| {
        add(writer, ROOT, "large", file(vec![7; 50 << 20]));
    });
    let volume = Arc::new(Volume::of_squashfs(region, &Monitor::default()).unwrap());
    let mut stream = volume.tar(threads(2));
    stream.read_exact(&mut [0; 600]).unwrap();
    drop(stream);
    while Arc::strong_count(&volume) > 1 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn names_that_mean_a_removal_are_left_out_with_a_note() {
    let region = squashfs(|writer| {
        let d = add(writer, ROOT, "d", Node::Directory);
        add(writer, d, ".wh.x", file(Vec::new()));
        let hidden = add(writer, ROOT, ".wh.dir", Node::Directory);
        add(writer, hidden, "inside", file(Vec::new()));
    });
    let mut volume = Volume::of_squashfs(region, &Monitor::default()).unwrap();
    volume.drop_whiteout_names();
    let note = &volume.notes[0];
    assert_eq!((note.code, note.count), ("whiteout-names-dropped", 2));
    assert_eq!(volume.tree.walk().count(), 2);
}

fn directory(root: &Path) -> Volume {
    Volume::of_directory(root, &DirectoryOptions::default(), &Monitor::default()).unwrap()
}

#[test]
fn what_changes_in_a_directory_is_found() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let prepare = || {
        let _ = std::fs::remove_dir_all(place.path().join("d"));
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/file"), "contents").unwrap();
        std::fs::write(at("d/empty"), "").unwrap();
        symlink("file", at("d/link")).unwrap();
    };
    let changes: [(&str, &dyn Fn()); 6] = [
        ("file", &|| std::fs::write(at("d/file"), "longer contents").unwrap()),
        ("file", &|| {
            std::fs::remove_file(at("d/file")).unwrap();
            symlink("/etc/passwd", at("d/file")).unwrap();
        }),
        ("\"empty\"", &|| std::fs::write(at("d/empty"), "x").unwrap()),
        ("\".\"", &|| std::fs::write(at("d/new"), "x").unwrap()),
        ("file", &|| std::fs::remove_file(at("d/file")).unwrap()),
        (".", &|| {
            std::fs::remove_file(at("d/link")).unwrap();
            symlink("empty", at("d/link")).unwrap();
        }),
    ];
    prepare();
    let volume = Arc::new(directory(&at("d")));
    assert_eq!(members(&tar(&volume, 2)).len(), 4);
    for (named, change) in changes {
        prepare();
        let volume = Arc::new(directory(&at("d")));
        change();
        let error = volume.tar(threads(1)).read_to_end(&mut Vec::new()).unwrap_err();
        let error = Error::io(ErrorKind::Other, error);
        assert!(error.to_string().contains("changed while it was read"), "{error}");
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}

/// Whatever an image holds: its files read block by block are what they are in sequence, where both are to be had, and what
/// passes is a block of the length that its word says.
fn same_bytes_by_blocks(volume: &Arc<Volume>) {
    for compression in [Compression::GZIP, Compression::ZSTD] {
        let Backing::Squashfs(files) = &volume.backing else { panic!("it is a squashfs") };
        let block_size = files.image.superblock().block_size;
        let Ok(Some(blocks)) = Blocks::of(volume, (compression, block_size, true), &Monitor::default()) else {
            continue;
        };
        for visit in volume.tree.walk() {
            let Kind::File(data) = &volume.tree.inode(visit.inode).kind else { continue };
            let Content::Stored(location) = data.content else { continue };
            if data.size > 4 << 20 {
                continue;
            }
            let (mut whole, mut packed) = (vec![0; data.size as usize], Vec::new());
            let by_blocks = blocks.read_at(location.file, &mut whole, 0);
            if let Ok(Some(bytes)) = volume.read(visit.inode, 4 << 20) {
                assert!(by_blocks.is_ok() && bytes == whole);
            }
            for offset in (0..data.size).step_by(block_size as usize) {
                if let Ok(Some(word)) = blocks.data(location.file, offset, &mut packed) {
                    assert!(crate::squashfs::BlockCompressor::length(word) <= packed.len());
                }
                let data = blocks.next_data(location.file, offset);
                assert!(data.is_none_or(|data| (offset..volume.tar_bytes()).contains(&data)));
            }
            let _ = blocks.fragment(&[(location.file, data.size as u32)], &mut packed);
        }
    }
}

/// One flipped bit at a time in the tables of an image with something of everything.
#[test]
fn no_damage_of_tables_makes_blocks_panic() {
    let region = squashfs(|writer| {
        add(writer, ROOT, "large", file((0..60_000u32).map(|n| (n / 3) as u8).collect()));
        add(writer, ROOT, "holes", file([vec![0; 40_000], b"end".to_vec()].concat()));
        for n in 0..30 {
            add(writer, ROOT, &format!("small{n}"), file(vec![n; 13 * usize::from(n) + 1]));
        }
    });
    let mut bytes = vec![0; region.len as usize];
    region.read_at(&mut bytes, 0).unwrap();
    let tables = u64::from_le_bytes(bytes[64..72].try_into().unwrap()) as usize;
    let end = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    for at in (0..96).chain(tables..end) {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        if let Ok(volume) = Volume::of_squashfs(bad, &Monitor::default()) {
            same_bytes_by_blocks(&Arc::new(volume));
        }
    }
}

/// What the fuzzer starts from, and what it ever tripped over (fuzz/README.md): squashfs images, some of them inside of SIFs.
#[test]
fn the_corpus_is_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus/volume_reader");
    let mut readable = 0;
    for seed in std::fs::read_dir(corpus).unwrap() {
        let bytes = std::fs::read(seed.unwrap().path()).unwrap();
        let Some(start) = bytes.windows(4).position(|window| window == b"hsqs") else { continue };
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[start..], 0).unwrap();
        let Ok(volume) = Volume::of_squashfs(Region::whole(Arc::new(file)).unwrap(), &Monitor::default()) else {
            continue;
        };
        let volume = Arc::new(volume);
        same_bytes_by_blocks(&volume);
        let mut tar = Vec::new();
        if volume.tar(threads(2)).read_to_end(&mut tar).is_ok() {
            assert_eq!(tar.len() as u64, volume.tar_bytes());
            readable += 1;
        }
    }
    assert!(readable >= 8, "{readable}");
}
