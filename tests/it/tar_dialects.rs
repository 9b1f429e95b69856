//! Tars as writers of old and odd ones made them, read as Go's archive/tar (so Docker, umoci) and GNU tar read them.

use crate::support::archives::{self, Described};
use crate::support::listing::{Listing, from_tar, parts};
use crate::support::run::{Run, convert_to_stdout};
use crate::support::tar::{Tar, header};

/// What the rootfs of an image of these layers holds, or the failure.
fn flattened(layers: Vec<Vec<u8>>) -> Result<Listing, Run> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.tar");
    std::fs::write(&path, archives::docker_24(&[Described::new(layers)]).bytes).unwrap();
    let run = convert_to_stdout(&path, "rootfs", &[]);
    if run.code == 0 { Ok(from_tar(&run.stdout).unwrap()) } else { Err(run) }
}

fn listing(layer: Tar) -> Listing {
    flattened(vec![layer.finish()]).unwrap_or_else(|run| panic!("{}", run.stderr))
}

/// A GNU header whose uid is base-256, and bytes where ustar has its prefix.
fn gnu_header(name: &[u8], prefix: &[u8], kind: u8) -> [u8; 512] {
    let mut block = header(name, kind, b"", 0);
    block[257..265].copy_from_slice(b"ustar  \0");
    block[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    block
}

#[test]
fn the_prefix_that_go_before_1_8_wrote_into_gnu_headers_is_part_of_the_name() {
    let prefix = b"opt/application/python2.7";
    for kind in [b'0', b'5', b'2'] {
        let found = listing(Tar::new().raw(gnu_header(b"lib/name", prefix, kind), b""));
        let node = found.node(&parts(b"opt/application/python2.7/lib/name"));
        assert_eq!(node.map(|node| node.uid), Some(3_000_000), "type {}", kind as char);
    }
    // The two times that GNU tar has there are no prefix, nor is what no path is.
    for times in [
        &b"14632410000\x0014632410000\0"[..],
        b"",
        b"\0\0\0\0\0\0\0\0\0\0\0\0     1234567\0",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
        b"opt/\xff",
    ] {
        let found = listing(Tar::new().raw(gnu_header(b"name", times, b'0'), b""));
        assert!(found.node(&parts(b"name")).is_some(), "{}", times.escape_ascii());
    }
}

#[test]
fn of_several_local_pax_headers_the_last_one_alone_counts() {
    let two =
        Tar::new().pax(b'x', &[("path", b"first/long"), ("uid", b"7")]).pax(b'x', &[("gid", b"8")]).file("bar", "x");
    let found = listing(two);
    let node = found.node(&parts(b"bar")).expect("the first header's path does not count");
    assert_eq!((node.uid, node.gid), (0, 8));
    // Inside one header a later record replaces an earlier one, and a global header stays.
    let records = Tar::new()
        .pax(b'g', &[("uid", b"5")])
        .pax(b'x', &[("gid", b"1"), ("gid", b"2"), ("path", b"a"), ("path", b"b")])
        .file("bar", "x");
    let found = listing(records);
    let node = found.node(&parts(b"b")).unwrap();
    assert_eq!((node.uid, node.gid), (5, 2));
    // A GNU long name between two of them is another extension, and stays.
    let mixed =
        Tar::new().pax(b'x', &[("uid", b"7")]).gnu_long(b'L', b"long").pax(b'x', &[("gid", b"8")]).file("bar", "x");
    let found = listing(mixed);
    assert_eq!(found.node(&parts(b"long")).map(|node| (node.uid, node.gid)), Some((0, 8)));
}

#[test]
fn a_nul_in_a_key_a_path_or_the_name_of_an_extended_attribute_is_refused() {
    let records: [(&str, &[u8]); 6] = [
        ("SCHILY.xattr.user.a\0b", b"v"),
        ("LIBARCHIVE.xattr.user.a%00b", b"dg"),
        ("a\0b", b"v"),
        ("path", b"a\0b"),
        ("linkpath", b"a\0b"),
        ("GNU.sparse.name", b"a\0b"),
    ];
    for (key, value) in records {
        for kind in [b'x', b'g'] {
            let layer = Tar::new().pax(kind, &[(key, value)]).file("bar", "").finish();
            let run = flattened(vec![layer]).expect_err(key);
            assert_eq!(run.code, 4, "{key:?}: {}", run.stderr);
            assert!(run.stderr.contains("malformed") && run.stderr.contains("layer 1"), "{key:?}: {}", run.stderr);
        }
    }
    // In values of other keys it is a byte like any other.
    let found =
        listing(Tar::new().pax(b'x', &[("SCHILY.xattr.user.a", b"\0v\0"), ("comment", b"a\0b")]).file("bar", ""));
    assert_eq!(found.node(&parts(b"bar")).unwrap().xattrs[&b"user.a"[..]], b"\0v\0");
}

#[test]
fn owners_are_those_that_lchown_gives() {
    for (text, owner) in
        [("-2", 4_294_967_294), ("4294967294", 4_294_967_294), ("4294967295", 0), ("-1", 0), ("4294967301", 5)]
    {
        let found =
            listing(Tar::new().pax(b'x', &[("uid", text.as_bytes()), ("gid", text.as_bytes())]).file("bar", ""));
        let node = found.node(&parts(b"bar")).unwrap();
        assert_eq!((node.uid, node.gid), (owner, owner), "{text}");
    }
    let mut negative = header(b"bar", b'0', b"", 0);
    negative[108..116].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(listing(Tar::new().raw(negative, b"")).node(&parts(b"bar")).unwrap().uid, 4_294_967_294);
    for bad in ["", "x", "1.5", "+1", "--2", "99999999999999999999"].iter().skip(1) {
        let layer = Tar::new().pax(b'x', &[("uid", bad.as_bytes())]).file("bar", "").finish();
        let run = flattened(vec![layer]).expect_err(bad);
        assert!(run.code == 4 && run.stderr.contains("malformed uid"), "{bad}: {}", run.stderr);
    }
}
