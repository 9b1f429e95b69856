//! What must not be accepted, and errors that arise on other threads.

use super::*;

#[test]
fn what_squashfs_cannot_hold_is_refused() {
    let refuse = |name: &[u8], node: Node<'_>| {
        let refused = build_with(options(), |writer| writer.add(ROOT, name, &attributes(0o644), node).map(drop));
        refused.unwrap_err().kind()
    };
    assert_eq!(refuse(&[b'n'; 257], Node::Fifo), ErrorKind::Unsupported);
    assert_eq!(refuse(b"", Node::Fifo), ErrorKind::Unsupported);
    assert_eq!(refuse(b"link", Node::Symlink(&[b't'; 65_536])), ErrorKind::Unsupported);
    assert_eq!(refuse(b"link", Node::Symlink(b"")), ErrorKind::Unsupported);
    assert_eq!(refuse(b"dev", Node::CharDevice { major: 4096, minor: 0 }), ErrorKind::Unsupported);
    assert_eq!(refuse(b"a/b", Node::Fifo), ErrorKind::Bug);
    assert_eq!(refuse(b"..", Node::Fifo), ErrorKind::Bug);
    let acl = Xattrs::from([(b"system.posix_acl_access"[..].into(), b"x"[..].into())]);
    let with_acl = Attributes { xattrs: Some(&acl), ..attributes(0o644) };
    let refused = build_with(options(), |writer| writer.add(ROOT, b"f", &with_acl, Node::Fifo).map(drop));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    let twice = build_with(options(), |writer| {
        writer.add(ROOT, b"f", &attributes(0o644), Node::Fifo)?;
        writer.add(ROOT, b"f", &attributes(0o644), Node::Fifo).map(drop)
    });
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Bug);
    let longest = build_with(options(), |writer| {
        writer.add(ROOT, &[b'n'; 256], &attributes(0o644), Node::Symlink(&[b't'; 65_535])).map(drop)
    });
    verify(&longest.unwrap().0).unwrap();
}

#[test]
fn what_was_refused_leaves_nothing_behind() {
    let (bytes, _) = build_with(options(), |writer| {
        for name in [&[b'n'; 257][..], b"", b"a/b"] {
            writer.add(ROOT, name, &attributes(0o755), Node::Directory).unwrap_err();
            writer.add(ROOT, name, &attributes(0o644), file(noise(9000, 7))).unwrap_err();
        }
        writer.add(ROOT, b"hole", &attributes(0o644), Node::File(Arc::new(Hole(u64::MAX)))).unwrap_err();
        writer.add(ROOT, b"f", &attributes(0o644), file(noise(9000, 8))).map(drop)
    })
    .unwrap();
    verify(&bytes).unwrap();
    assert_eq!(listing(&bytes).len(), 2);
}

/// Each inode lists the blocks of its file, also where the file is there already: what the lists take together is bounded.
#[test]
fn no_few_bytes_make_endless_lists_of_blocks() {
    let refused = build_with(options(), |writer| {
        (0..64).try_for_each(|n| {
            let hole = Node::File(Arc::new(Hole(u64::from(options().block_size) << 22)));
            writer.add(ROOT, format!("{n}").as_bytes(), &attributes(0o644), hole).map(drop)
        })
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn options_out_of_range_are_refused() {
    let bad_level = |compression| Options { compression, ..options() };
    let refused = [
        Options { block_size: 2048, ..options() },
        Options { block_size: 5000, ..options() },
        Options { block_size: 2 << 20, ..options() },
        bad_level(Compression::gzip(0)),
        bad_level(Compression::gzip(13)),
        bad_level(Compression::zstd(0)),
        bad_level(Compression::zstd(23)),
    ];
    for options in refused {
        assert_eq!(build_with(options, |_| Ok(())).unwrap_err().kind(), ErrorKind::Usage);
    }
    for level in 1..=22 {
        let gzip = (level <= 12).then_some(Compression::gzip(level));
        for compression in gzip.into_iter().chain([Compression::zstd(level)]) {
            let (bytes, _) = build_with(bad_level(compression), |writer| {
                sample(writer);
                Ok(())
            })
            .unwrap();
            assert_eq!(listing(&bytes).len(), 17, "{compression:?}");
        }
    }
}

/// A file that cannot be read.
struct Unreadable {
    panics: bool,
}

impl FileSource for Unreadable {
    fn size(&self) -> u64 {
        10_000
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> Result<()> {
        assert!(!self.panics, "as it should");
        Err(crate::Error::new(ErrorKind::SourceUnavailable, "the file \"x\" is gone"))
    }
}

#[test]
fn errors_of_workers_come_out() {
    for (panics, kind) in [(false, ErrorKind::SourceUnavailable), (true, ErrorKind::Bug)] {
        for count in [1, 4] {
            let failed = build_with(Options { threads: threads(count), ..options() }, |writer| {
                writer.add(ROOT, b"x", &attributes(0o644), Node::File(Arc::new(Unreadable { panics })))?;
                (0..2000).try_for_each(|n| {
                    writer.add(ROOT, format!("{n}").as_bytes(), &attributes(0o644), file(noise(9000, n))).map(drop)
                })
            });
            assert_eq!(failed.unwrap_err().kind(), kind);
        }
    }
}

/// A disk with little room.
struct Full;

impl Store for Full {
    fn write_at(&mut self, _: &[u8], position: u64) -> io::Result<()> {
        if position < 50_000 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_no_space() {
    let monitor = Monitor::default();
    let mut writer = Writer::new(Full, options(), &attributes(0o755), &monitor).unwrap();
    let root = Writer::<Full>::ROOT;
    let outcome = (0..100u64)
        .try_for_each(|n| {
            writer.add(root, format!("{n}").as_bytes(), &attributes(0o644), file(noise(9000, n))).map(drop)
        })
        .and_then(|()| writer.finish().map(drop));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NoSpace);
}

#[test]
fn stops_when_asked_and_counts_all_bytes() {
    let monitor = Monitor::default();
    let mut writer = Writer::new(Shared::default(), options(), &attributes(0o755), &monitor).unwrap();
    for (name, size) in [("a", 100), ("b", 10_000), ("c", 10_000), ("d", 0)] {
        let bytes = if name == "d" { Vec::new() } else { noise(size, 1) };
        writer.add(ROOT, name.as_bytes(), &attributes(0o644), file(bytes)).unwrap();
    }
    writer.add(ROOT, b"hole", &attributes(0o644), Node::File(Arc::new(Hole(50_000)))).unwrap();
    writer.finish().unwrap();
    assert_eq!(monitor.snapshot().done_bytes, 100 + 10_000 + 10_000 + 50_000);
    let mut writer = Writer::new(Shared::default(), options(), &attributes(0o755), &monitor).unwrap();
    monitor.stop(ErrorKind::Interrupted);
    let stopped = writer.add(ROOT, b"x", &attributes(0o644), Node::Fifo);
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::Interrupted);
}
