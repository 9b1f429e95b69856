use super::*;
use crate::io::folder::make_root;

fn sample() -> LayerIndex {
    let place = |pack, word, offset| BlockPlace { pack, word, offset, sum: u128::from(word) << 77 };
    LayerIndex {
        diff_id: Digest::of(b"layer"),
        parameters: "gzip-5-131072-x".to_string(),
        entries: b"entries".to_vec(),
        packs: vec![Name(1), Name(u128::MAX)],
        blocks: vec![place(0, 100, 19), place(0, 1 << 24 | 131_072, 119), BlockPlace::HOLE, place(1, 7, 5)],
        fragments: vec![
            Fragment { key: Some([9; 32]), raw_bytes: 5000, place: place(1, 40, 1 << 40) },
            Fragment { key: None, raw_bytes: 131_072, place: place(0, 3, 0) },
        ],
        files: vec![
            FileEntry {
                at: 512,
                size: 400_000,
                contents: Contents::Blocks { first: 0, count: 4 },
                head: Some(1),
                whole: Some(2),
                proof: Some([3; 32]),
            },
            file(2048, 5000, Contents::Fragment { number: 0, offset: 0 }),
            file(9216, 131_072, Contents::Pieces { first: 1, count: 1 }),
            file(1 << 40, 1 << 60, Contents::Hole),
        ],
    }
}

fn file(at: u64, size: u64, contents: Contents) -> FileEntry {
    FileEntry { at, size, contents, head: None, whole: None, proof: None }
}

#[test]
fn an_index_comes_back_as_it_was() {
    assert_eq!(LayerIndex::decode(&sample().encode()).unwrap(), sample());
}

#[test]
fn every_flipped_bit_and_every_cut_of_an_index_is_found() {
    let good = sample().encode();
    for cut in 0..good.len() {
        assert!(LayerIndex::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(LayerIndex::decode(&bad).is_err(), "bit {bit}");
    }
}

/// With a checksum that is right: nothing that such an index says leads out of it.
#[test]
fn an_index_that_contradicts_itself_is_refused() {
    let refused = |change: &dyn Fn(&mut LayerIndex)| {
        let mut index = sample();
        change(&mut index);
        LayerIndex::decode(&index.encode()).is_err()
    };
    assert!(refused(&|index| index.files[0].contents = Contents::Blocks { first: 1, count: 4 }));
    assert!(refused(&|index| index.files[0].contents = Contents::Blocks { first: u32::MAX, count: 2 }));
    assert!(refused(&|index| index.files[1].contents = Contents::Fragment { number: 2, offset: 0 }));
    assert!(refused(&|index| index.files[1].contents = Contents::Fragment { number: 0, offset: 1 }));
    assert!(refused(&|index| index.files[1].size = u64::MAX));
    assert!(refused(&|index| index.files[2].contents = Contents::Pieces { first: 1, count: 2 }));
    assert!(refused(&|index| index.files.swap(0, 1)));
    assert!(refused(&|index| index.packs.truncate(1)));
    assert!(!refused(&|_| {}));
}

#[test]
fn a_pack_gives_back_what_it_was_given_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let folder = Arc::new(make_root(directory.path()).unwrap());
    let mut writer = PackWriter::create(&folder).unwrap();
    let blocks = [b"one".to_vec(), vec![7; 100_000], b"three".to_vec()];
    let sum = |block: &[u8]| xxhash_rust::xxh3::xxh3_128(block);
    let places: Vec<BlockPlace> =
        blocks.iter().map(|block| writer.append(block, block.len() as u32 | 1 << 24, sum(block)).unwrap()).collect();
    let name = writer.name();
    assert!(!directory.path().join(name.to_string()).exists(), "it is not finished");
    writer.finish().unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    let owner = rustix::process::geteuid().as_raw();
    let pack = Pack::open(&folder, owner, name).unwrap();
    let mut bytes = Vec::new();
    for (block, place) in blocks.iter().zip(&places) {
        let length = pack.read(place, &mut bytes).unwrap();
        assert_eq!(&bytes[..length], block);
        assert!(pack.read(&BlockPlace { offset: place.offset + 1, ..*place }, &mut bytes).is_err());
        assert!(pack.read(&BlockPlace { sum: place.sum ^ 1, ..*place }, &mut bytes).is_err());
    }
    let end = places[2].offset + 4;
    std::fs::OpenOptions::new()
        .write(true)
        .open(directory.path().join(name.to_string()))
        .unwrap()
        .set_len(end)
        .unwrap();
    assert!(pack.read(&places[2], &mut bytes).is_err(), "it is cut short");
    assert_eq!(pack.name(), name);
}

#[test]
fn an_unfinished_pack_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let folder = Arc::new(make_root(directory.path()).unwrap());
    drop(PackWriter::create(&folder).unwrap());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
