//! Archives that are broken, or made to break a reader. Whatever they are: a clear error and its exit code, or a correct
//! output; bounded memory and time; nothing left behind.
//!
//! Every run has 1 GiB of address space and a minute.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::entry::{Content, Entry, Kind, Piece};
use crate::support::layer::{self, member};
use crate::support::listing;
use crate::support::pack::{Squeeze, config, docker_archive, docker_archive_of, sha256, squeeze};
use crate::support::run::{Run, run, scratch};

/// What a run may use: an archive of a few kilobytes needs a fraction of it, threads and their stacks included.
const ADDRESS_SPACE_KIB: u32 = 1 << 20;
const SECONDS: u32 = 60;

const INVALID: i32 = 4;
const MISMATCH: i32 = 5;
const NO_SPACE: i32 = 7;

/// Converts, and checks what must hold whatever the archive is.
fn convert(archive: &[u8], format: &str) -> (Run, Option<Vec<u8>>) {
    let place = scratch();
    fs::write(place.path().join("image.tar"), archive).unwrap();
    for directory in ["out", "tmp"] {
        fs::create_dir(place.path().join(directory)).unwrap();
    }
    let mut command = Command::new("sh");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", place.path().join("tmp")).stdin(Stdio::null());
    let script = format!("ulimit -v {ADDRESS_SPACE_KIB}; exec timeout {SECONDS} \"$@\"");
    command.current_dir(place.path()).args(["-c", &script, "sh", env!("CARGO_BIN_EXE_convert")]);
    command.args(["image.tar", "--to", format, "-o", "out/x.tar", "--jobs", "2"]);
    let run = run(&mut command);

    let names = |directory: &str| -> Vec<_> {
        fs::read_dir(place.path().join(directory)).unwrap().map(|each| each.unwrap().file_name()).collect()
    };
    assert!(names("tmp").is_empty(), "left in TMPDIR: {:?}", names("tmp"));
    assert!([0, 3, 4, 5, 7].contains(&run.code), "exit code {} (124 is the time limit): {}", run.code, run.stderr);
    if run.code == 0 {
        assert_eq!(names("out"), ["x.tar"]);
        return (run, Some(fs::read(place.path().join("out/x.tar")).unwrap()));
    }
    assert!(names("out").is_empty(), "left beside the output: {:?}", names("out"));
    let first = run.stderr.lines().find(|line| line.starts_with("error: "));
    let named = if run.code == NO_SPACE { "out/x.tar" } else { "image.tar" };
    assert!(first.is_some_and(|line| line.contains(named)), "the archive is not named: {}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let printable = |c: char| c == '\n' || !c.is_control();
    assert!(run.stderr.chars().all(printable), "control characters in {:?}", run.stderr);
    (run, None)
}

/// It must be refused, with this exit code, and the error must hold these words.
fn refuse(what: &str, archive: &[u8], code: i32, words: &[&str]) {
    for format in ["rootfs", "sif-rootfs"] {
        let (run, _) = convert(archive, format);
        assert_eq!(run.code, code, "{what}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{what}: {word:?} is not in {}", run.stderr);
        }
    }
}

/// It must be refused or give a canonical tar: which of the two is not laid down.
fn survive(what: &str, archive: &[u8]) -> bool {
    let (run, output) = convert(archive, "rootfs");
    eprintln!("{what}: exit code {}", run.code);
    if let Some(output) = output {
        listing::from_tar(&output).unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        return true;
    }
    false
}

fn file(path: &str, bytes: &[u8]) -> Entry {
    Entry::new(path, Kind::File(Content::data(bytes)))
}

fn with(mut entry: Entry, directives: &[&str]) -> Entry {
    entry.dialect.extend(directives.iter().map(|each| (*each).to_string()));
    entry
}

fn small_image() -> Vec<u8> {
    let lower = layer::tar_of(&[Entry::new("a", Kind::Dir), file("a/f", b"contents"), file("a/g", &[7; 3000])]);
    let upper = layer::tar_of(&[file("a/.wh.f", b""), file("h", b"more")]);
    docker_archive(&[lower, upper], Squeeze::Not)
}

fn image_of(entries: &[Entry]) -> Vec<u8> {
    docker_archive(&[layer::tar_of(entries)], Squeeze::Not)
}

/// A docker-archive of these members, an end, and nothing checked.
fn archive_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in members {
        member(&mut out, name, bytes);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn bytes_of(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

#[test]
fn truncated_anywhere() {
    for how in [Squeeze::Not, Squeeze::Gzip, Squeeze::Zstd] {
        let layers = [layer::tar_of(&[file("a", &[1; 2000])]), layer::tar_of(&[file("b", b"b")])];
        let whole = docker_archive(&layers, how);
        let (run, expected) = convert(&whole, "rootfs");
        assert_eq!(run.code, 0, "{}", run.stderr);
        let end = whole.len() - 1024;
        for length in (0..whole.len()).step_by(512).flat_map(|at| [at, at + 100]) {
            let (run, output) = convert(&whole[..length], "rootfs");
            // All that is missing may be the end that says nothing.
            if length >= end {
                assert!(output.is_none() || output == expected, "at {length}");
            } else {
                assert_ne!(run.code, 0, "at {length} of {}", whole.len());
            }
        }
    }
}

#[test]
fn truncated_inside_a_layer_that_its_digest_vouches_for() {
    let whole = layer::tar_of(&[file("a", &[1; 2000]), file("b", b"b")]);
    // At 2,560 the first file is whole: an archive without its end, which some writers leave out.
    for length in (512..whole.len() - 1024).step_by(512).filter(|length| *length != 2560) {
        let cut = &whole[..length];
        refuse(&format!("cut at {length}"), &docker_archive(&[cut.to_vec()], Squeeze::Not), INVALID, &["layer 1"]);
    }
    for how in [Squeeze::Gzip, Squeeze::Zstd] {
        let stored = squeeze(&whole, how);
        for length in [1, 5, 12, stored.len() / 2, stored.len() - 9, stored.len() - 1] {
            let archive = stored_layer(&whole, &stored[..length]);
            let (run, _) = convert(&archive, "rootfs");
            assert!([INVALID, MISMATCH].contains(&run.code), "{how:?} cut at {length}: {}", run.stderr);
            assert!(run.stderr.contains("layer 1"), "{}", run.stderr);
        }
    }
}

/// A config that vouches for `layer`, and an archive that stores `stored` for it.
fn stored_layer(layer: &[u8], stored: &[u8]) -> Vec<u8> {
    let manifest = json!([{ "Config": "config.json", "RepoTags": null, "Layers": ["layer.tar"] }]);
    let config = bytes_of(&config(&[layer.to_vec()]));
    archive_of(&[("layer.tar", stored), ("config.json", &config), ("manifest.json", &bytes_of(&manifest))])
}

#[test]
fn bytes_after_the_end_of_a_compressed_layer() {
    let layer = layer::tar_of(&[file("a", b"a")]);
    for how in [Squeeze::Gzip, Squeeze::Zstd] {
        let stored = [squeeze(&layer, how), b"garbage that is not a member".to_vec()].concat();
        refuse("garbage after the last member", &stored_layer(&layer, &stored), INVALID, &["layer 1"]);
    }
    let stored = [squeeze(&layer[..512], Squeeze::Gzip), squeeze(&layer[512..], Squeeze::Gzip)].concat();
    assert!(survive("two gzip members", &stored_layer(&layer, &stored)));
}

#[test]
fn digests_that_do_not_match() {
    let layers = [layer::tar_of(&[file("a", b"a")]), layer::tar_of(&[file("b", b"b")])];
    let mut config = config(&layers);
    let wrong = format!("sha256:{}", "0".repeat(64));
    config["rootfs"]["diff_ids"][1] = json!(wrong);
    for how in [Squeeze::Not, Squeeze::Gzip] {
        let archive = docker_archive_of(&config, &layers, how);
        refuse("a wrong diff_id", &archive, MISMATCH, &["layer 2", &wrong, &sha256(&layers[1])]);
    }
    for broken in ["sha256:xyz", "md5:00", "", "sha256:", &format!("sha256:{}", "0".repeat(63))] {
        config["rootfs"]["diff_ids"][1] = json!(broken);
        let (run, _) = convert(&docker_archive_of(&config, &layers, Squeeze::Not), "rootfs");
        assert_eq!(run.code, INVALID, "diff_id {broken:?}: {}", run.stderr);
    }
    config["rootfs"]["diff_ids"] = json!([format!("sha256:{}", sha256(&layers[0]))]);
    refuse("fewer diff_ids than layers", &docker_archive_of(&config, &layers, Squeeze::Not), INVALID, &["2", "1"]);
}

#[test]
fn documents_that_are_missing_or_broken() {
    let layer = layer::tar_of(&[file("a", b"a")]);
    let good_config = bytes_of(&config(std::slice::from_ref(&layer)));
    let manifest = |layers: Value| bytes_of(&json!([{ "Config": "c.json", "RepoTags": null, "Layers": layers }]));
    let good_manifest = manifest(json!(["l.tar"]));
    let archive = |config: &[u8], manifest: &[u8]| {
        archive_of(&[("l.tar", &layer), ("c.json", config), ("manifest.json", manifest)])
    };
    assert!(survive("all in order", &archive(&good_config, &good_manifest)));
    refuse("no image", &archive(&good_config, b"[]"), INVALID, &["no image"]);
    refuse("no config", &archive_of(&[("l.tar", &layer), ("manifest.json", &good_manifest)]), INVALID, &["c.json"]);
    refuse(
        "no layer",
        &archive_of(&[("c.json", &good_config), ("manifest.json", &good_manifest)]),
        INVALID,
        &["l.tar"],
    );
    refuse("no manifest", &archive_of(&[("l.tar", &layer), ("c.json", &good_config)]), INVALID, &[]);
    refuse("an empty archive", &archive_of(&[]), INVALID, &[]);
    refuse("an empty file", &[], INVALID, &[]);
    refuse("zeros", &[0; 10240], INVALID, &[]);
    refuse("text", b"hello, this is not an archive\n".repeat(100).as_slice(), INVALID, &[]);
    for manifest in ["", "{", "[{}]", "[null]", "{\"a\":1}", "[[]]", "\"x\"", "[{\"Config\":1,\"Layers\":[]}]"] {
        refuse(
            &format!("manifest {manifest}"),
            &archive(&good_config, manifest.as_bytes()),
            INVALID,
            &["manifest.json"],
        );
    }
    for config in ["", "{", "[]", "{\"rootfs\":{\"diff_ids\":7}}"] {
        refuse(&format!("config {config}"), &archive(config.as_bytes(), &good_manifest), INVALID, &["c.json"]);
    }
    for config in ["{}", "null", "{\"rootfs\":{}}", "{\"rootfs\":{\"diff_ids\":[]}}"] {
        refuse(&format!("config {config}"), &archive(config.as_bytes(), &good_manifest), INVALID, &["diff_ids"]);
    }
    let nested = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    refuse("a manifest of nested lists", &archive(&good_config, nested.as_bytes()), INVALID, &["manifest.json"]);
    let large = [b"[".as_slice(), &[b' '; 64 << 20], b"]"].concat();
    refuse("a manifest of 64 MiB", &archive(&good_config, &large), INVALID, &["manifest.json"]);
    for name in ["../etc/passwd", "/etc/passwd", "l.tar/x", ""] {
        refuse(&format!("layer {name:?}"), &archive(&good_config, &manifest(json!([name]))), INVALID, &[]);
    }
}

/// Links inside of the archive itself, as docker writes them for layers that occur twice.
#[test]
fn links_between_members_that_form_loops() {
    let layer = layer::tar_of(&[file("a", b"a")]);
    let config = bytes_of(&config(std::slice::from_ref(&layer)));
    let manifest = bytes_of(&json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["a/layer.tar"] }]));
    let archive = |links: &[(&str, &str)]| {
        let link = |(path, target): &(&str, &str)| Entry::new(*path, Kind::Symlink((*target).into()));
        let mut entries: Vec<Entry> = links.iter().map(link).collect();
        entries.extend([file("l.tar", &layer), file("c.json", &config), file("manifest.json", &manifest)]);
        layer::tar_of(&entries)
    };
    assert!(survive("a link", &archive(&[("a/layer.tar", "../l.tar")])));
    refuse("a link to itself", &archive(&[("a/layer.tar", "layer.tar")]), INVALID, &["a/layer.tar"]);
    let two = [("a/layer.tar", "../b/layer.tar"), ("b/layer.tar", "../a/layer.tar")];
    refuse("two links in a circle", &archive(&two), INVALID, &["layer.tar"]);
    refuse("a link to nothing", &archive(&[("a/layer.tar", "../gone")]), INVALID, &["a/layer.tar"]);
    refuse("a link out of it", &archive(&[("a/layer.tar", "../../../../etc/passwd")]), INVALID, &["a/layer.tar"]);
}

#[test]
fn sizes_that_no_file_has() {
    let layer_words = ["layer 1"];
    for size in [4_u64 << 30, 1 << 40, i64::MAX as u64] {
        let entry = with(file("big", b"small"), &["base256", &format!("size={size}")]);
        refuse(&format!("a file of {size} bytes"), &image_of(&[entry]), INVALID, &layer_words);
        let entry = with(file("big", b"small"), &[&format!("record=size:{size}")]);
        refuse(&format!("a record of {size} bytes"), &image_of(&[entry]), INVALID, &layer_words);
    }
    for record in [
        "size:-1",
        "size:18446744073709551616",
        "size:1e3",
        "uid:1e3",
        "uid:9223372036854775808",
        "gid:x",
        "mtime:soon",
        "mtime:1.2.3",
    ] {
        let entry = with(file("f", b"f"), &[&format!("record={record}")]);
        refuse(&format!("record {record}"), &image_of(&[entry]), INVALID, &["layer 1", "\"f\""]);
    }
    // A size field in base 256 that is negative, or wider than 64 bits.
    for first in [0xff_u8, 0x81] {
        let mut tar = layer::tar_of(&[file("f", b"f")]);
        tar[124..136].fill(first);
        checksum(&mut tar);
        refuse("a size outside of 64 bits", &docker_archive(&[tar], Squeeze::Not), INVALID, &layer_words);
    }
}

/// Puts the checksum of the first header right.
fn checksum(tar: &mut [u8]) {
    tar[148..156].fill(b' ');
    let sum: u32 = tar[..512].iter().map(|&byte| u32::from(byte)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn headers_that_are_broken() {
    let whole = layer::tar_of(&[file("first", b"1"), file("second", b"2")]);
    let mut sum = whole.clone();
    sum[1024] ^= 1;
    refuse("a wrong checksum", &docker_archive(&[sum], Squeeze::Not), INVALID, &["layer 1"]);
    for field in [100..108, 108..116, 116..124, 124..136, 136..148] {
        let mut tar = whole.clone();
        tar[field.clone()].fill(b'9');
        checksum(&mut tar);
        refuse(&format!("no octal in {field:?}"), &docker_archive(&[tar], Squeeze::Not), INVALID, &["layer 1"]);
    }
    let noise: Vec<u8> = (0..4096_u32).map(|number| (number * 7 + 1) as u8).collect();
    refuse("a layer of noise", &docker_archive(&[noise], Squeeze::Not), INVALID, &["layer 1"]);
}

#[test]
fn extended_headers_that_are_broken() {
    for (what, records) in [
        ("no length", "path=x\n"),
        ("a length past the end", "99 path=x\n"),
        ("a length of nothing", "0 path=x\n"),
        ("a length too short", "3 path=x\n"),
        ("a length beyond 64 bits", "99999999999999999999 path=x\n"),
        ("no equals sign", "7 path\n\n"),
        ("no newline", "9 path=xx"),
    ] {
        let mut tar = Vec::new();
        tar_member(&mut tar, b'x', records.as_bytes());
        tar.extend(layer::tar_of(&[file("f", b"f")]));
        refuse(what, &docker_archive(&[tar], Squeeze::Not), INVALID, &["layer 1"]);
    }
    for flag in [b'x', b'g', b'L', b'K'] {
        let mut tar = layer::tar_of(&[with(file("f", b"f"), &["base256", "size=4294967296"])]);
        tar[156] = flag;
        checksum(&mut tar);
        refuse(&format!("{} of 4 GiB", flag as char), &docker_archive(&[tar], Squeeze::Not), INVALID, &["layer 1"]);
        let mut tar = Vec::new();
        tar_member(&mut tar, flag, &vec![b'1'; 64 << 20]);
        tar.extend(layer::tar_of(&[file("f", b"f")]));
        refuse(&format!("{} of 64 MiB", flag as char), &docker_archive(&[tar], Squeeze::Gzip), INVALID, &["layer 1"]);
    }
    let mut tar = Vec::new();
    tar_member(&mut tar, b'x', b"9 path=x\n");
    tar.extend([0; 1024]);
    survive("an extended header for nothing", &docker_archive(&[tar], Squeeze::Not));
}

fn tar_member(tar: &mut Vec<u8>, flag: u8, bytes: &[u8]) {
    let start = tar.len();
    member(tar, "x", bytes);
    tar[start + 156] = flag;
    checksum(&mut tar[start..]);
}

#[test]
fn names_that_no_file_system_holds() {
    for raw in ["a\0b", "a/\0"] {
        let entry = with(file("f", b"f"), &[&format!("record=path:{raw}")]);
        refuse("a NUL in a name", &image_of(&[entry]), INVALID, &["layer 1", "NUL"]);
    }
    refuse("a name of 256 bytes", &image_of(&[file(&"x".repeat(256), b"")]), INVALID, &["layer 1", "255"]);
    refuse("a path of 1 MiB", &image_of(&[file(&"x/".repeat(1 << 19), b"")]), INVALID, &["layer 1"]);
    survive("an empty name", &image_of(&[with(file("f", b""), &["record=path:/"])]));
    survive("an empty target", &image_of(&[Entry::new("s", Kind::Symlink(Vec::new()))]));
}

#[test]
fn sparse_maps_that_are_broken() {
    let sparse = |directive: &str| {
        let content = Content(vec![Piece::Hole(512), Piece::Data(vec![1; 512]), Piece::Hole(512)]);
        with(Entry::new("sparse", Kind::File(content)), &[directive])
    };
    let words = ["layer 1", "sparse"];
    for map in [
        "0",
        "0,",
        ",",
        "x,1",
        "-1,5",
        "0,600",
        "2000,512",
        "512,512,0,512",
        "0,18446744073709551615",
        "18446744073709551615,2",
    ] {
        let entry = with(sparse("sparse-0.1"), &[&format!("record=GNU.sparse.map:{map}")]);
        refuse(&format!("map {map}"), &image_of(&[entry]), INVALID, &words);
    }
    let sizes = [("-1", INVALID), ("x", INVALID), ("18446744073709551615", INVALID)];
    for (size, code) in sizes {
        for (form, key) in [("sparse-0.0", "size"), ("sparse-0.1", "size"), ("sparse-1.0", "realsize")] {
            let entry = with(sparse(form), &[&format!("record=GNU.sparse.{key}:{size}")]);
            refuse(&format!("{form} of {size} bytes"), &image_of(&[entry]), code, &[]);
        }
    }
    // Nine exabytes of hole are a file that can be described, and cost nothing.
    for (form, key) in [("sparse-0.0", "size"), ("sparse-0.1", "size"), ("sparse-1.0", "realsize")] {
        let entry = with(sparse(form), &[&format!("record=GNU.sparse.{key}:9223372036854770000")]);
        let (run, output) = convert(&image_of(&[entry]), "rootfs");
        assert_eq!((run.code, output.map(|tar| tar.len() < 10_000)), (0, Some(true)), "{form}: {}", run.stderr);
    }
    for map in [
        "",
        "x",
        "1\n0\n",
        "99999999999999999999\n",
        "1000000000\n0\n1\n",
        "2\n512\n512\n0\n512\n",
        "1\n0\n99999\n",
        "1\n-1\n5\n",
    ] {
        let mut entry =
            with(file("sparse", map.as_bytes()), &["record=GNU.sparse.major:1", "record=GNU.sparse.minor:0"]);
        entry = with(entry, &["record=GNU.sparse.realsize:1536"]);
        let padded = [map.as_bytes(), &vec![0; 1024 - map.len()]].concat();
        entry.kind = Kind::File(Content::data(padded));
        refuse(&format!("1.0 map {map:?}"), &image_of(&[entry]), INVALID, &words);
    }
    // An old map that says it goes on, and on.
    let mut tar = layer::tar_of(&[sparse("sparse-old")]);
    tar[482] = 1;
    checksum(&mut tar);
    refuse("an old map that goes on into the data", &docker_archive(&[tar], Squeeze::Not), INVALID, &["layer 1"]);
    let mut endless = layer::tar_of(&[sparse("sparse-old")])[..512].to_vec();
    endless[482] = 1;
    checksum(&mut endless);
    let mut block = [b'0'; 512];
    block[504] = 1;
    endless.extend(block.repeat(200_000));
    refuse("an old map of 4 million extents", &docker_archive(&[endless], Squeeze::Gzip), INVALID, &["layer 1"]);
}

#[test]
fn trees_that_are_deep_or_wide() {
    let path = |depth: usize| vec!["d"; depth].join("/");
    assert!(survive("1,000 directories in one name", &image_of(&[file(&path(1000), b"deep")])));
    let links: Vec<Entry> = (0..300)
        .map(|number| Entry::new(format!("l{number}"), Kind::Symlink(format!("l{}", number + 1).into_bytes())))
        .collect();
    let chain = [links, vec![file("l0/f", b"")]].concat();
    refuse("300 symlinks in a row", &image_of(&chain), INVALID, &["l0/f"]);

    let wide: Vec<Entry> = (0..60_000).map(|number| file(&format!("wide/{number}"), b"")).collect();
    assert!(survive("60,000 names", &docker_archive(&[layer::tar_of(&wide)], Squeeze::Gzip)));
    let links: Vec<Entry> =
        (0..30_000).map(|number| Entry::new(format!("l{number}"), Kind::Link(b"f".to_vec()))).collect();
    assert!(survive("30,000 links", &image_of(&[vec![file("f", b"f")], links.clone()].concat())));
    assert!(survive("30,000 links before their target", &image_of(&[links, vec![file("f", b"f")]].concat())));
}

/// Each link waits for the next: what is linear to follow must not be done by trying all again and again.
#[test]
fn long_chains_of_links() {
    let chain: Vec<Entry> = (0..20_000)
        .map(|number| Entry::new(format!("l{number:05}"), Kind::Link(format!("l{:05}", number + 1).into_bytes())))
        .collect();
    assert!(survive("a chain of 20,000 links", &image_of(&[chain.clone(), vec![file("l20000", b"end")]].concat())));
    refuse(
        "a circle of links",
        &image_of(&[chain, vec![Entry::new("l20000", Kind::Link(b"l00000".to_vec()))]].concat()),
        INVALID,
        &["layer 1"],
    );
}

/// Nobody could unpack paths past `PATH_MAX`, and an archive of 60 KB would become a tar of 900 MB.
#[test]
fn paths_that_are_too_long_to_be_unpacked() {
    let path = |depth: usize| vec!["d"; depth].join("/");
    // A tar spells every path out: the sum of all paths grows with the square of the depth.
    refuse("30,000 directories in one name", &image_of(&[file(&path(30_000), b"deep")]), INVALID, &["layer 1"]);
    // Each symlink adds to the depth that the next name lands in.
    let mut entries = vec![Entry::new("s0", Kind::Symlink(path(1000).into_bytes()))];
    for number in 1..40 {
        let target = format!("s{}/{}", number - 1, path(1000));
        entries.push(Entry::new(format!("s{number}"), Kind::Symlink(target.into_bytes())));
    }
    entries.push(file("s39/f", b"very deep"));
    refuse("40,000 directories by symlinks", &image_of(&entries), INVALID, &["layer 1", "s39/f"]);
}

#[test]
fn many_layers_and_whiteouts() {
    let lower: Vec<Entry> = (0..2000).map(|number| file(&format!("d/{number}"), b"x")).collect();
    let mut layers = vec![layer::tar_of(&lower)];
    for number in 0..300 {
        let upper =
            [file(&format!("d/.wh.{number}"), b""), file("e/.wh..wh..opq", b""), file(&format!("e/{number}"), b"y")];
        layers.push(layer::tar_of(&upper));
    }
    assert!(survive("300 layers", &docker_archive(&layers, Squeeze::Not)));
}

/// Compressed a thousandfold: what is read is bounded by what is written, and memory by neither.
#[test]
fn bombs() {
    let zeros = Entry::new("zeros", Kind::File(Content(vec![Piece::Hole(300 << 20)])));
    let layer = layer::tar_of(&[zeros]);
    for how in [Squeeze::Gzip, Squeeze::Zstd] {
        let (run, output) = convert(&docker_archive(std::slice::from_ref(&layer), how), "rootfs");
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(output.unwrap().len() < 301 << 20);
    }
    let manifest = squeeze(&archive_of(&[("manifest.json", &vec![b' '; 300 << 20])]), Squeeze::Gzip);
    refuse("a manifest of 300 MiB in a compressed archive", &manifest, INVALID, &["manifest.json"]);
    let once = squeeze(&vec![0; 200 << 20], Squeeze::Gzip);
    refuse("gzip in gzip", &squeeze(&once, Squeeze::Gzip), INVALID, &[]);
    refuse("zeros in gzip", &once, INVALID, &[]);
}

/// One bit changed anywhere in a compressed layer, a document or a header of the archive.
#[test]
fn single_bits_changed() {
    for how in [Squeeze::Not, Squeeze::Gzip] {
        let layers = [layer::tar_of(&[file("a", &[1; 700])]), layer::tar_of(&[file("b", b"b")])];
        let whole = docker_archive(&layers, how);
        let (_, expected) = convert(&whole, "rootfs");
        for at in (0..whole.len()).step_by(whole.len() / 150) {
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            if let (_, Some(output)) = convert(&broken, "rootfs") {
                // What nothing vouches for may change: an owner in a header of the archive, a word of the config.
                let found = listing::from_tar(&output).unwrap_or_else(|wrong| panic!("byte {at}: {wrong}"));
                let same = listing::from_tar(expected.as_ref().unwrap()).unwrap();
                let times = listing::Times::MadeIsAny;
                let differences = same.differences(&found, times);
                let only_the_root = differences.lines().all(|line| line.contains("\"\""));
                assert!(only_the_root, "byte {at}: {differences}");
            }
        }
    }
}

/// Sources that are not files of archives at all.
#[test]
fn sources_that_cannot_be_read() {
    for source in ["/nowhere/x.tar", "/dev/null", "/proc/self/fdinfo", "/proc/self/mem"] {
        let run = run(crate::support::run::program().args([source, "--to", "rootfs", "-o", "-"]));
        assert!([3, 4].contains(&run.code), "{source}: {} {}", run.code, run.stderr);
        assert!(run.stdout.is_empty() && run.stderr.contains("error: "), "{source}: {}", run.stderr);
    }
}

#[test]
fn standard_input_that_ends_early() {
    let mut child = crate::support::run::program();
    let mut child =
        child.args(["-", "--to", "rootfs", "-o", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&small_image()[..700]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(INVALID));
}
