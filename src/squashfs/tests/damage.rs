//! Broken images: every one must be refused, or read as if nothing had happened; none may panic.

use proptest::prelude::*;

use super::*;

/// Reads all there is to read, however broken.
fn exercise(bytes: &[u8]) {
    let Ok(image) = Image::open(bytes.to_vec()) else { return };
    let _ = image.verify(threads(1), &Monitor::default());
    for entry in image.entries().take(1000) {
        let Ok(entry) = entry else { return };
        let _ = image.xattrs(&entry.inode);
        if matches!(&entry.inode.kind, InodeKind::File(file) if file.size < 1 << 20) {
            let _ = image.copy_file(&entry.inode, &mut io::sink());
        }
    }
}

/// An image in which everything is compressed, so that every byte is covered by a checksum or a check.
fn compressible(compression: Compression) -> Vec<u8> {
    let options = Options { compression, ..options() };
    let fill = |writer: &mut Builder<'_>| {
        let mut parent = ROOT;
        for number in 0..20 {
            parent = add(
                writer,
                if number % 4 == 0 { ROOT } else { parent },
                &format!("directory{number}"),
                Node::Directory,
            );
            for name in ["aaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaab"] {
                add(writer, parent, name, file(format!("{name}{number}").repeat(300)));
                add(writer, parent, &format!("{name}-small"), file(format!("{name}{number}").repeat(20)));
            }
        }
        Ok(())
    };
    build_with(options, fill).unwrap().0
}

#[test]
fn every_flipped_bit_is_found() {
    for compression in [Compression::GZIP, Compression::zstd(3)] {
        let bytes = compressible(compression);
        let verified = verify(&bytes).unwrap();
        assert_eq!(verified.unprotected_blocks, 0);
        let superblock = *Image::open(bytes.clone()).unwrap().superblock();
        let id_bytes = superblock.id_table - 4..superblock.id_table;
        let mut missed = Vec::new();
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << (at % 8);
            // Some bits mean nothing: those that fill up the last byte of a stream, or which of two equal strings is copied.
            if verify(&broken).is_ok() && listing(&broken) != listing(&bytes) {
                missed.push(at as u64);
            }
        }
        // The id table of one id is stored as it is.
        missed.retain(|at| !id_bytes.contains(at));
        assert_eq!(missed, Vec::<u64>::new(), "{compression:?}");
    }
}

#[test]
fn every_truncation_is_found() {
    let (bytes, summary) = build(sample);
    for length in 0..summary.bytes_used as usize {
        assert!(verify(&bytes[..length]).is_err(), "{length}");
    }
    verify(&bytes[..summary.bytes_used as usize]).unwrap();
}

#[test]
fn damage_is_reported_with_its_place() {
    let (bytes, _) = build(|writer| {
        let directory = add(writer, ROOT, "some", Node::Directory);
        add(writer, directory, "file", file("compresses well, ".repeat(1000)));
        add(writer, directory, "small", file("compresses well, ".repeat(20)));
    });
    let report = |at: usize, value: u8| {
        let mut broken = bytes.clone();
        broken[at] = value;
        verify(&broken).unwrap_err().to_string()
    };
    insta::assert_snapshot!(report(0, 0), @r#"squashfs superblock: magic 0x73717300 at offset 0 is not "hsqs""#);
    insta::assert_snapshot!(report(110, 0xff), @r#"verifying the squashfs: checking the data of "some/file": squashfs is damaged at offset 96: a data block: the zlib data is damaged"#);
    let fragment = fragment_start(&bytes);
    insta::assert_snapshot!(report(fragment + 9, 0xff), @r#"verifying the squashfs: checking fragment 0, which holds "some/small": squashfs is damaged at offset 332: a data block: the zlib data is damaged"#);
    insta::assert_snapshot!(report(4, 9), @r#"verifying the squashfs: squashfs is damaged at offset 517: the export table holds 32 bytes instead of 72"#);
    insta::assert_snapshot!(report(bytes.len() - 1, 1), @r#"verifying the squashfs: squashfs is damaged at offset 4095: something other than zeros follows the end"#);
}

/// Where the fragment block with the small file is.
fn fragment_start(bytes: &[u8]) -> usize {
    let image = Image::open(bytes.to_vec()).unwrap();
    let entries: Vec<Entry> = image.entries().map(Result::unwrap).collect();
    let file = |name: &[u8]| match &entries.iter().find(|entry| entry.path.ends_with(name)).unwrap().inode.kind {
        InodeKind::File(file) => file.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(file(b"small").fragment, Some((0, 0)));
    // The fragment table's one block does not compress: its entry stands behind the block's header.
    let index = image.superblock().fragment_table as usize;
    let table = u64::from_le_bytes(bytes[index..index + 8].try_into().unwrap()) as usize;
    u64::from_le_bytes(bytes[table + 2..table + 10].try_into().unwrap()) as usize
}

/// An image whose tables are so small that most of them do not compress: damage gets past the checksums.
fn uncompressed_sample() -> Vec<u8> {
    build(|writer| {
        let directory = add(writer, ROOT, "d", Node::Directory);
        add(writer, directory, "f", file(noise(9000, 1)));
        add(writer, directory, "g", file(noise(100, 2)));
        let first = add(writer, ROOT, "h", Node::Symlink(b"d/f"));
        writer.link(directory, b"i", first).unwrap();
    })
    .0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_on_changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = uncompressed_sample();
        for (at, value) in changes {
            // Mostly where it hurts: the superblock and the tables.
            let image = Image::open(uncompressed_sample()).unwrap();
            let (tables, end) = (image.superblock().inode_table as usize, image.superblock().bytes_used as usize);
            let at = at.index(96 + end - tables);
            bytes[if at < 96 { at } else { at - 96 + tables }] = value;
        }
        exercise(&bytes);
    }

    #[test]
    fn nothing_panics_on_garbage_behind_a_superblock(garbage in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = uncompressed_sample();
        let at = 64.min(bytes.len());
        bytes.splice(at.., garbage);
        let length = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&length.to_le_bytes());
        exercise(&bytes);
    }
}

#[test]
fn every_byte_of_the_tables_with_every_value_that_matters() {
    let bytes = uncompressed_sample();
    let superblock = *Image::open(bytes.clone()).unwrap().superblock();
    let tables = superblock.inode_table as usize..superblock.bytes_used as usize;
    for at in (0..96).chain(tables) {
        for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1), bytes[at].wrapping_sub(1)] {
            let mut broken = bytes.clone();
            broken[at] = value;
            exercise(&broken);
        }
    }
}

/// What the fuzzer starts from, and what it ever tripped over (fuzz/README.md). The sound ones are mksquashfs's.
#[test]
fn the_corpus_is_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus/squashfs_reader");
    let mut found = std::collections::BTreeMap::new();
    for seed in std::fs::read_dir(corpus).unwrap() {
        let seed = seed.unwrap();
        let bytes = std::fs::read(seed.path()).unwrap();
        exercise(&bytes);
        found.insert(seed.file_name().into_string().unwrap(), verify(&bytes).map(|verified| verified.names));
    }
    let stored = [("stored", 7), ("stored-devices", 11), ("stored-not-exportable", 7), ("stored-holes", 2)];
    let compressed = [("gzip", 7), ("zstd", 7), ("gzip-xattrs", 7), ("gzip-data-only", 7), ("gzip-index", 302)];
    let others = [("lz4", 7), ("lzma", 7), ("lzo", 7), ("xz", 7), ("stored-xattrs", 7), ("empty", 1)];
    for (name, names) in stored.into_iter().chain(compressed).chain(others) {
        assert_eq!(*found[name].as_ref().unwrap(), names, "{name}");
    }
    assert_eq!(found["cut-short"].as_ref().unwrap_err().kind(), ErrorKind::InvalidImage);
}

/// What no system has and no tar can hold, though the lengths in an image allow it.
#[test]
fn nul_bytes_in_targets_and_names_of_attributes_are_damage() {
    let xattrs = Xattrs::from([(b"user.a\0b"[..].into(), b"x"[..].into())]);
    let marked = Attributes { xattrs: Some(&xattrs), ..attributes(0o644) };
    let (bytes, _) = build(|writer| {
        writer.add(ROOT, b"marked", &marked, file("x")).unwrap();
    });
    let error = verify(&bytes).unwrap_err();
    assert!(
        error.kind() == ErrorKind::InvalidImage && error.to_string().contains("attribute has a NUL byte"),
        "{error}"
    );
    let (bytes, _) = build(|writer| {
        add(writer, ROOT, "link", Node::Symlink(b"a\0b"));
    });
    let error = verify(&bytes).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidImage && error.to_string().contains("target has a NUL byte"), "{error}");
}
