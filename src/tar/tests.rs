use super::*;
use crate::io::Region;
use crate::model::{Metadata, Timestamp, Xattrs};
use std::io::Write as _;
use std::sync::Arc;

fn region(bytes: &[u8]) -> Region {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Region::whole(Arc::new(file)).unwrap()
}

fn read_all(bytes: &[u8]) -> crate::Result<Vec<Entry>> {
    let mut entries = Entries::new(region(bytes).reader());
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry()? {
        found.push(entry);
    }
    Ok(found)
}

fn written(members: &[Member<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        let start = out.len() as u64;
        member_header(&mut out, member);
        if let MemberKind::File { size } = member.kind {
            out.resize(out.len() + (size + padding(size)) as usize, b'x');
        }
        assert_eq!(out.len() as u64 - start, member_bytes(member), "{member:?}");
    }
    out.extend_from_slice(&end_of_archive());
    out
}

/// The names of sparse files stand in records, and their maps before their data.
#[test]
fn a_sparse_member_takes_what_is_counted() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let segments = [Segment { at: 512, len: 700 }, Segment { at: 1 << 30, len: 1 }];
    let map = SparseMap::new(1 << 40, segments.into_iter()).unwrap();
    for path in [&b"d/f"[..], &[b'x'; 200]] {
        let member = Member { path, kind: MemberKind::of_file(1 << 40, Some(&map)), metadata: &metadata };
        let mut header = Vec::new();
        member_header(&mut header, &member);
        let data = map.data_bytes();
        assert_eq!(header.len() as u64 + data + padding(data), member_bytes(&member));
        if path == b"d/f" {
            // Behind the header and the records of PAX: who does not know these makes a file of this name.
            assert!(header.windows(20).any(|name| name == b"d/GNUSparseFile.0/f\0"));
        }
    }
}

/// GNU tar ends there with a warning, Go refuses it: what is behind it is never left out without a word.
#[test]
fn a_lone_block_of_zeros_ends_nothing_but_the_input() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let member = written(&[Member { path: b"f", kind: MemberKind::File { size: 0 }, metadata: &metadata }]);
    let header = &member[..512];
    for (behind, is_end) in [
        (&[][..], true),
        (&[0; 100], true),
        (&[0; 512], true),
        (&[&[0; 512], header].concat(), true),
        (header, false),
        (b"x", false),
    ] {
        let found = read_all(&[header, &[0; 512], behind].concat());
        match found {
            Ok(entries) => assert!(is_end && entries.len() == 1),
            Err(error) => assert!(!is_end && error.to_string().contains("a lone block of zeros"), "{error}"),
        }
    }
}

/// As many extended headers before one member, and as large ones, as are taken, and not one more.
#[test]
fn extended_headers_are_bounded() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let member = written(&[Member { path: b"f", kind: MemberKind::File { size: 0 }, metadata: &metadata }]);
    let extension = |payload: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(payload.len() as u64);
        header.set_cksum();
        let mut bytes = [header.as_bytes().as_slice(), payload].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    };
    let several = |count: usize| [extension(b"5 a=\n").repeat(count), member.clone()].concat();
    assert_eq!(read_all(&several(64)).unwrap().len(), 1);
    assert_eq!(read_all(&several(65)).unwrap_err().kind(), crate::error::ErrorKind::InvalidImage);
    let large = |bytes: u64| {
        let mut payload = format!("{bytes} comment=").into_bytes();
        payload.resize(bytes as usize - 1, b'x');
        payload.push(b'\n');
        [extension(&payload), member.clone()].concat()
    };
    assert_eq!(read_all(&large(1 << 20)).unwrap().len(), 1);
    assert_eq!(read_all(&large((1 << 20) + 1)).unwrap_err().kind(), crate::error::ErrorKind::InvalidImage);
}

#[test]
fn data_is_read_exactly() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let member = |path, size| Member { path, kind: MemberKind::File { size }, metadata: &metadata };
    let bytes = written(&[member(b"one", 700), member(b"two", 3), member(b"three", 0)]);
    let mut entries = Entries::new(region(&bytes).reader());
    assert_eq!(entries.next_entry().unwrap().unwrap().raw_path[..], b"one"[..]);
    // What is not read is skipped.
    let mut buffer = [0; 600];
    entries.read_data_exact(&mut buffer).unwrap();
    assert_eq!(buffer, [b'x'; 600]);
    assert_eq!(entries.next_entry().unwrap().unwrap().raw_path[..], b"two"[..]);
    entries.read_data_exact(&mut []).unwrap();
    entries.read_data_exact(&mut buffer[..3]).unwrap();
    assert_eq!(entries.read_data_exact(&mut buffer[..1]).unwrap_err().kind(), crate::error::ErrorKind::InvalidImage);
    assert_eq!(entries.next_entry().unwrap().unwrap().raw_path[..], b"three"[..]);
    assert!(entries.next_entry().unwrap().is_none());
}

/// Also where its data was lent rather than read, an entry's place in the archive is right.
#[test]
fn places_are_right_behind_what_was_lent() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let member = |path, size| Member { path, kind: MemberKind::File { size }, metadata: &metadata };
    let bytes = written(&[member(b"one", 700), member(b"two", 3)]);
    let mut entries = Entries::new(region(&bytes).reader());
    assert_eq!(entries.next_entry().unwrap().unwrap().data_offset, 512);
    let mut lent = 0;
    let count = |bytes: &[u8]| {
        lent += bytes.len();
        Ok(())
    };
    entries.for_each_piece(count).unwrap();
    assert_eq!((lent, entries.next_entry().unwrap().unwrap().data_offset), (700, 512 + 1024 + 512));
}

/// Some writers leave out the zeros that end an archive.
#[test]
fn an_archive_may_end_with_the_data_of_its_last_entry() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let bytes = written(&[Member { path: b"one", kind: MemberKind::File { size: 700 }, metadata: &metadata }]);
    let whole = &bytes[..512 + 1024];
    assert_eq!(read_all(whole).unwrap().len(), 1);
    assert_eq!(read_all(&whole[..whole.len() - 512]).unwrap_err().kind(), crate::error::ErrorKind::InvalidImage);
}

#[test]
fn a_header_passes_its_checksum_or_is_none() {
    let mut header = [0; 512];
    header.copy_from_slice(&written(&[])[..512]);
    assert!(!is_header(&header));
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let bytes = written(&[Member { path: b"one", kind: MemberKind::Directory, metadata: &metadata }]);
    header.copy_from_slice(&bytes[..512]);
    assert!(is_header(&header));
    header[0] ^= 1;
    assert!(!is_header(&header));
}

/// A member of the size 0 whose header `change` changes, with the checksum that it has then.
fn changed(change: impl Fn(&mut [u8])) -> Vec<u8> {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let mut bytes = written(&[Member { path: b"one", kind: MemberKind::File { size: 0 }, metadata: &metadata }]);
    let header = &mut bytes[..512];
    change(header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

/// What stands after the names means a prefix in ustar only, with or without the version, and nothing in older headers.
#[test]
fn the_prefix_is_read_where_there_is_one() {
    for (magic, name) in [(b"ustar\x0000", "dir/one"), (b"ustar\0\0\0", "dir/one"), (b"\0\0\0\0\0\0\0\0", "one")] {
        let bytes = changed(|header| {
            header[257..265].copy_from_slice(magic);
            header[345..348].copy_from_slice(b"dir");
        });
        let entries = read_all(&bytes).unwrap();
        assert_eq!(entries[0].raw_path, name.as_bytes(), "{magic:?}");
    }
}

/// ustar has 155 bytes for it, star 131 and two times behind them. Where old Go wrote it GNU has two times, which are none.
#[test]
fn the_prefix_is_as_long_as_its_dialect_has_it() {
    let long = [b'd'; 155];
    let times = b"12345670123\x0012345670124\0";
    for (magic, end, bytes) in
        [(b"ustar\x0000", b"\0\0\0\0", 155), (b"ustar\x0000", b"tar\0", 131), (b"ustar  \0", b"\0\0\0\0", 155)]
    {
        let read = changed(|header| {
            header[257..265].copy_from_slice(magic);
            header[345..345 + bytes].copy_from_slice(&long[..bytes]);
            if end == b"tar\0" {
                header[476..500].copy_from_slice(times);
            }
            header[508..512].copy_from_slice(end);
        });
        let name = [&long[..bytes], b"/one"].concat();
        assert_eq!(read_all(&read).unwrap()[0].raw_path, name, "{magic:?} {end:?}");
    }
    let of_gnu = changed(|header| {
        header[257..265].copy_from_slice(b"ustar  \0");
        header[345..369].copy_from_slice(times);
    });
    assert_eq!(read_all(&of_gnu).unwrap()[0].raw_path, b"one");
}

/// Some old writers summed bytes as signed ones.
#[test]
fn checksums_of_signed_bytes_are_taken() {
    let metadata = Metadata::root_owned(0o644, Timestamp::from_seconds(0));
    let mut bytes = written(&[Member { path: b"one", kind: MemberKind::File { size: 0 }, metadata: &metadata }]);
    let header = &mut bytes[..512];
    header[..5].copy_from_slice("\u{e9}t\u{e9}".as_bytes());
    header[148..156].fill(b' ');
    let sum: i32 = header.iter().map(|&byte| i32::from(byte.cast_signed())).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(read_all(&bytes).unwrap()[0].raw_path, "\u{e9}t\u{e9}".as_bytes());
}

#[test]
fn maps_of_sparse_files_are_bounded_and_hold_no_empty_segment() {
    let mut map = sparse::Map::default();
    map.push(0, 5).unwrap();
    // The end of the file, in a hole.
    for _ in 1..sparse::SEGMENTS_MAX {
        map.push(9, 0).unwrap();
    }
    assert_eq!(map.push(9, 0), None);
    assert_eq!(map.finish(9, 5), Some(vec![Segment { at: 0, len: 5 }]));
}

#[test]
fn targets_of_symbolic_links_are_bounded() {
    let metadata = Metadata::root_owned(0o777, Timestamp::from_seconds(0));
    let link = |bytes: usize| {
        let target = vec![b'a'; bytes];
        read_all(&written(&[Member { path: b"one", kind: MemberKind::Symlink(&target), metadata: &metadata }]))
    };
    assert_eq!(link(4095).unwrap()[0].link.len(), 4095);
    assert_eq!(link(4096).unwrap_err().kind(), crate::error::ErrorKind::InvalidImage);
}

#[test]
fn what_is_written_is_read_back() {
    let xattrs: Xattrs = [(&b"security.capability"[..], &b"\x01\0\0\x02\n12 a=b\n"[..]), (b"user.a=b%", b"")]
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let mut odd = Metadata::root_owned(0o6755, Timestamp { seconds: -2, nanoseconds: 500_000_000 });
    (odd.uid, odd.gid, odd.xattrs) = (4_000_000_000, 2_097_152, Some(Box::new(xattrs)));
    let plain = Metadata::root_owned(0o644, Timestamp::from_seconds(1 << 34));
    let long = [b"d/".repeat(60).as_slice(), &[b'n'; 99]].concat();
    let longer = [b'n'; 255].repeat(3).chunks(255).collect::<Vec<_>>().join(&b'/');
    let kinds = [
        (&b"plain"[..], MemberKind::File { size: 3 }),
        (&long, MemberKind::File { size: 512 }),
        (&longer, MemberKind::HardLink(&long)),
        (b"link\xff", MemberKind::Symlink(&longer)),
        (b"dir", MemberKind::Directory),
        (b"fifo", MemberKind::Fifo),
        (b"null", MemberKind::CharDevice(1, 3)),
        (b"sda", MemberKind::BlockDevice(8, 1 << 22)),
    ];
    for metadata in [&plain, &odd] {
        let members: Vec<_> = kinds.map(|(path, kind)| Member { path, kind, metadata }).into();
        let entries = read_all(&written(&members)).unwrap();
        assert_eq!(entries.len(), members.len());
        for (entry, member) in entries.iter().zip(&members) {
            let name = entry.raw_path.strip_suffix(b"/").unwrap_or(&entry.raw_path);
            assert_eq!(name, member.path);
            assert_eq!(&entry.metadata, metadata);
            match member.kind {
                MemberKind::File { size } => assert_eq!((entry.size, entry.stored_bytes), (size, size)),
                MemberKind::HardLink(target) | MemberKind::Symlink(target) => assert_eq!(entry.link, target),
                MemberKind::CharDevice(..) => assert_eq!(entry.device, (1, 3)),
                MemberKind::BlockDevice(..) => assert_eq!(entry.device, (8, 1 << 22)),
                _ => {}
            }
        }
    }
}

#[test]
fn a_cut_tar_is_an_error_or_shorter_but_never_wrong() {
    let metadata = Metadata::root_owned(0o644, Timestamp { seconds: 5, nanoseconds: 1 });
    let member = |path| Member { path, kind: MemberKind::File { size: 700 }, metadata: &metadata };
    let whole = written(&[member(b"a"), member(b"b")]);
    for length in 0..whole.len() {
        if let Ok(entries) = read_all(&whole[..length]) {
            assert!(entries.len() <= 2);
            assert!(entries.iter().all(|entry| entry.size == 700), "cut at {length}");
        }
    }
}

#[test]
fn a_changed_header_is_noticed() {
    let metadata = Metadata::root_owned(0o644, Timestamp::default());
    let mut bytes = written(&[Member { path: b"a", kind: MemberKind::Directory, metadata: &metadata }]);
    bytes[0] ^= 1;
    let error = read_all(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "tar header at byte 0: checksum mismatch");
}

/// What the fuzzer starts from, and what it ever tripped over (fuzz/README.md).
#[test]
fn the_corpus_is_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/corpus/tar_reader");
    let mut found = std::collections::BTreeMap::new();
    for seed in std::fs::read_dir(corpus).unwrap() {
        let seed = seed.unwrap();
        let bytes = std::fs::read(seed.path()).unwrap();
        let seeking = read_all(&bytes);
        let mut sequential = Entries::new(Sequential(&bytes[..]));
        let mut count = 0;
        while let Ok(Some(entry)) = sequential.next_entry() {
            count += 1;
            assert_eq!(entry.segments.is_some(), entry.size != entry.stored_bytes, "{:?}", seed.path());
        }
        assert!(seeking.as_ref().map_or(true, |entries| entries.len() == count), "{:?}", seed.path());
        found.insert(seed.file_name().into_string().unwrap(), seeking.ok().map(|entries| entries.len()));
    }
    let whole =
        [("gnu", 9), ("ustar", 9), ("gnu-long-names", 2), ("pax-long-names", 2), ("gnu-base-256", 1), ("v7", 2)];
    let sparse = ["sparse-gnu", "sparse-gnu-extended", "sparse-0.0", "sparse-0.1", "sparse-1.0"].map(|name| (name, 1));
    for (name, count) in whole.into_iter().chain(sparse).chain([("pax-records", 1), ("pax-global", 1), ("empty", 0)]) {
        assert_eq!(found[name], Some(count), "{name}");
    }
    assert_eq!(found["cut-short"], None);
}
