//! `ls`, `cat` and `diff`: what is in a source, without unpacking it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;

use crate::support::listing::{Listing, Times, What, from_tar, parts};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::{self, Image, Wanted};
use crate::support::run::{self, convert_to_stdout, program, scratch};
use crate::support::tar::{Header, Magic, Tar};
use crate::support::{layer, pack};

fn ok(command: &mut std::process::Command) -> run::Run {
    let done = run::run(command);
    assert_eq!(done.code, 0, "{}", done.stderr);
    done
}

fn convert(source: &Path, format: &str, output: &Path, arguments: &[&str]) {
    ok(program().arg(source).args(["--to", format, "-o"]).arg(output).args(arguments).args(["--force", "-q"]));
}

/// The tree of a source, through the target `rootfs`.
fn tree(source: &Path) -> Listing {
    let done = convert_to_stdout(source, "rootfs", &["--keep-singularity"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    from_tar(&done.stdout).unwrap()
}

fn json(command: &mut std::process::Command) -> Value {
    serde_json::from_slice(&ok(command.arg("--json")).stdout).unwrap()
}

/// One line a name as a listing has it and as `ls --json` says it.
fn lines_of(listing: &Listing) -> BTreeSet<String> {
    let mut first: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    let line = |(path, &id): (&Vec<Vec<u8>>, &usize)| {
        let path = path.join(&b'/');
        let node = &listing.nodes[id];
        let (kind, size, target) = match &node.what {
            What::Dir => ("directory", None, None),
            What::File(size, _) => ("file", Some(*size), None),
            What::Symlink(target) => ("symlink", None, Some(target.escape_ascii().to_string())),
            What::Fifo => ("fifo", None, None),
            What::Char(..) => ("char", None, None),
            What::Block(..) => ("block", None, None),
        };
        let link = first.get(&id).map(|first| first.escape_ascii().to_string());
        first.entry(id).or_insert(path.clone());
        let xattrs: Vec<String> =
            node.xattrs.iter().map(|(name, value)| format!("{}={}", hex(name), hex(value))).collect();
        format!(
            "{} {kind} {:04o} {}:{} {size:?} {target:?} {link:?} {xattrs:?}",
            path.escape_ascii(),
            node.mode,
            node.uid,
            node.gid
        )
    };
    listing.names.iter().map(line).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a JSON string stands for: bytes that are not UTF-8 are written `\xff`.
fn bytes(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        let digits = rest.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = digits.filter(|byte| *byte >= 0x80) else {
            bytes.extend_from_slice(&rest.as_bytes()[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        };
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(byte);
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn lines_of_ls(document: &Value) -> BTreeSet<String> {
    let line = |entry: &Value| {
        let path = match entry["path_hex"].as_str() {
            Some(digits) => {
                (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
            }
            None => entry["path"].as_str().unwrap().as_bytes().to_vec(),
        };
        let optional = |key: &str| (!entry[key].is_null()).then(|| bytes(&entry[key]).escape_ascii().to_string());
        let xattrs: BTreeMap<Vec<u8>, String> = entry["xattrs"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (bytes(&name.as_str().into()), value.as_str().unwrap().to_string()))
            .collect();
        let xattrs: Vec<String> = xattrs.iter().map(|(name, value)| format!("{}={value}", hex(name))).collect();
        format!(
            "{} {} {} {}:{} {:?} {:?} {:?} {xattrs:?}",
            path.escape_ascii(),
            entry["type"].as_str().unwrap(),
            entry["mode"].as_str().unwrap(),
            entry["uid"],
            entry["gid"],
            entry["size"].as_u64(),
            optional("target"),
            optional("link_to"),
        )
    };
    document["entries"].as_array().unwrap().iter().map(line).collect()
}

fn assert_lists(source: &Path) {
    let (expected, found) = (lines_of(&tree(source)), lines_of_ls(&json(program().arg("ls").arg(source))));
    let missing: Vec<_> = expected.difference(&found).collect();
    let more: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && more.is_empty(), "{source:?}:\nmissing {missing:#?}\nmore {more:#?}");
}

/// Runs `check` on images by chance, as many as `PROPTEST_CASES` says.
fn by_chance(usual: u32, check: impl Fn(&Image) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").map_or(usual, |cases| cases.parse().unwrap());
    let settings = Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let result = TestRunner::new(settings).run(&random::image(Wanted::Valid), |image| check(&image));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

fn write(image: &Image, path: &Path, squeeze: Squeeze) {
    let layers: Vec<Vec<u8>> = image.0.iter().map(layer::tar).collect();
    fs::write(path, docker_archive(&layers, squeeze)).unwrap();
}

#[test]
fn the_list_is_that_of_the_tar() {
    by_chance(24, |image| {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        write(image, &at("plain.tar"), Squeeze::Not);
        write(image, &at("gzip.tar"), Squeeze::Gzip);
        convert(&at("plain.tar"), "sif", &at("x.sif"), &["--xattrs", "all", "--keep-devices"]);
        ["plain.tar", "gzip.tar", "x.sif"].iter().for_each(|name| assert_lists(&at(name)));
        Ok(())
    });
}

/// Every file of an image, from plain and compressed layers and from a SIF.
#[test]
fn cat_prints_the_bytes_of_every_file() {
    by_chance(6, |image| {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        write(image, &at("plain.tar"), Squeeze::Not);
        write(image, &at("zstd.tar"), Squeeze::Zstd);
        convert(&at("plain.tar"), "sif", &at("x.sif"), &[]);
        for name in ["plain.tar", "zstd.tar", "x.sif"] {
            let listing = tree(&at(name));
            let files = listing.names.iter().filter_map(|(path, &id)| match &listing.nodes[id].what {
                What::File(size, digest) => Some((path.join(&b'/'), *size, *digest)),
                _ => None,
            });
            for (path, size, digest) in files.take(8) {
                use std::os::unix::ffi::OsStrExt as _;
                let done = ok(program().arg("cat").arg(at(name)).arg("--").arg(std::ffi::OsStr::from_bytes(&path)));
                let found = crate::support::listing::file(&done.stdout);
                assert_eq!(found, What::File(size, digest), "{name} {}", path.escape_ascii());
            }
        }
        Ok(())
    });
}

fn image(directory: &Path, name: &str, layers: &[Vec<u8>]) -> std::path::PathBuf {
    let path = directory.join(name);
    fs::write(&path, docker_archive(layers, Squeeze::Not)).unwrap();
    path
}

#[test]
fn hostile_names_keep_to_their_line() {
    let scratch = scratch();
    let name = b"evil\n\x1b[2J\xff\xe2\x80\xae\"name";
    let tar = Tar::new().file(name, "x").symlink("link", "\n-> elsewhere").directory("d").file("d/..a", "").finish();
    let archive = image(scratch.path(), "x.tar", &[tar]);
    let done = ok(program().arg("ls").arg(&archive));
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.contains(r#""evil\n\u{1b}[2J\xff\u{202e}\"name""#), "{text}");
    assert!(text.contains(r#""link" -> "\n-> elsewhere""#), "{text}");
    let document = json(program().arg("ls").arg(&archive));
    let entry = document["entries"].as_array().unwrap().iter().find(|entry| !entry["path_hex"].is_null()).unwrap();
    assert_eq!(entry["path_hex"], hex(name));
    let done = run::run(program().args(["diff", "--progress", "none"]).arg(&archive).arg(image(
        scratch.path(),
        "y.tar",
        &[Tar::new().finish()],
    )));
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.code == 1 && text.lines().count() == 3 && !text.contains('\u{1b}'), "{text}");
    let done = run::run(program().arg("cat").arg(&archive).arg("d"));
    assert_eq!(done.code, run::exit_code("SourceUnavailable"), "{}", done.stderr);
}

/// Parents of a path follow links as they would inside of the container, and never leave it.
#[test]
fn paths_are_found_through_links() {
    let scratch = scratch();
    let tar = Tar::new()
        .directory("usr")
        .directory("usr/lib")
        .file("usr/lib/x", "here")
        .symlink("lib", "/../../usr/lib")
        .symlink("x", "lib/x")
        .symlink("loop", "loop")
        .symlink("out", "../../../../etc/passwd")
        .finish();
    let archive = image(scratch.path(), "x.tar", &[tar]);
    for path in ["usr/lib/x", "/usr/lib/x", "lib/x", "x", "lib/../lib/./x"] {
        assert_eq!(ok(program().arg("cat").arg(&archive).arg(path)).stdout, b"here", "{path}");
    }
    assert_eq!(ok(program().arg("cat").arg(&archive).args(["x", "x"])).stdout, b"herehere");
    for path in ["loop", "out", "usr", "usr/lib/x/y", "nowhere"] {
        let done = run::run(program().arg("cat").arg(&archive).arg(path));
        assert!(done.code == run::exit_code("SourceUnavailable") && done.stdout.is_empty(), "{path}: {}", done.stderr);
    }
    let names = |path: &str, more: &[&str]| -> Vec<String> {
        let document = json(program().arg("ls").arg(&archive).arg(path).args(more));
        let entries = document["entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["path"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names("lib", &[]), ["lib"]);
    assert_eq!(names("lib/", &[]), ["usr/lib", "usr/lib/x"]);
    assert_eq!(names("/usr", &["--depth", "1"]), ["usr", "usr/lib"]);
    assert_eq!(names("usr", &["--depth", "0"]), ["usr"]);
}

#[test]
fn sizes_add_up_by_directory_and_by_layer() {
    let scratch = scratch();
    let lower =
        Tar::new().directory("a").file("a/one", [1; 1000]).hard_link("a/two", "a/one").file("b", [2; 10]).finish();
    let upper = Tar::new().file("a/three", [3; 500]).file(".wh.b", "").finish();
    let archive = image(scratch.path(), "x.tar", &[lower, upper]);
    let document = json(program().arg("ls").arg(&archive).arg("--du"));
    let directories = document["directories"].as_array().unwrap();
    let of = |path: &str| {
        let found = directories.iter().find(|it| it["path"] == path).unwrap();
        (found["bytes"].as_u64().unwrap(), found["names"].as_u64().unwrap())
    };
    assert_eq!((of(""), of("a")), ((1500, 4), (1500, 3)));
    assert_eq!(
        document["layer_usage"],
        serde_json::json!([
            {"layer": 1, "bytes": 1000, "names": 2}, {"layer": 2, "bytes": 500, "names": 1}
        ])
    );
    let text = String::from_utf8(ok(program().arg("ls").arg(&archive).args(["--du", "--depth", "0"])).stdout).unwrap();
    assert_eq!(text.lines().filter(|line| !line.contains("layer")).collect::<Vec<_>>(), ["1500 \".\": 4 names"]);
}

/// What `diff` finds is what two listings differ in; nothing between forms of one image.
#[test]
fn diff_finds_what_the_trees_differ_in() {
    let mut runner = TestRunner::deterministic();
    let cases: usize = std::env::var("PROPTEST_CASES").map_or(16, |cases| cases.parse().unwrap());
    let mut different = 0;
    for _ in 0..cases {
        let scratch = scratch();
        let at = |name: &str| scratch.path().join(name);
        let one = random::image(Wanted::Valid).new_tree(&mut runner).unwrap().current();
        // Another image over the same lower layer.
        let mut two = random::image(Wanted::Valid).new_tree(&mut runner).unwrap().current();
        two.0.insert(0, one.0[0].clone());
        write(&one, &at("one.tar"), Squeeze::Not);
        write(&one, &at("same.tar"), Squeeze::Gzip);
        write(&two, &at("two.tar"), Squeeze::Gzip);
        let same = run::run(program().arg("diff").arg(at("one.tar")).arg(at("same.tar")));
        assert_eq!((same.code, same.stdout.len()), (0, 0), "{}{}", same.stdout.escape_ascii(), same.stderr);
        if run::run(program().arg("ls").arg(at("two.tar"))).code != 0 {
            continue;
        }
        for (left, right) in [("one.tar", "two.tar"), ("two.tar", "same.tar")] {
            let expected = differing(&tree(&at(left)), &tree(&at(right)));
            let done = run::run(program().arg("diff").arg(at(left)).arg(at(right)).arg("--json"));
            let document: Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!((done.code, &document["equal"]), (i32::from(!expected.is_empty()), &expected.is_empty().into()));
            let found = document["differences"].as_array().unwrap();
            let found: BTreeSet<Vec<u8>> =
                found.iter().filter(|it| !it["path"].is_null()).map(|it| bytes(&it["path"])).collect();
            assert_eq!(found, expected, "{left} {right}");
            different += expected.len();
        }
    }
    assert!(different > 50, "{different}");
}

/// The paths that differ, of what is missing only the topmost.
fn differing(left: &Listing, right: &Listing) -> BTreeSet<Vec<u8>> {
    let (in_left, in_right) = (left.lines(Times::Exact), right.lines(Times::Exact));
    let without_time = |line: &String| {
        let at = line.find(" @").unwrap();
        let end = line[at + 1..].find(' ').map_or(line.len(), |space| at + 1 + space);
        format!("{}{}", &line[..at], &line[end..])
    };
    let all: BTreeSet<_> = in_left.keys().chain(in_right.keys()).collect();
    let is_dir =
        |listing: &Listing, path: &[Vec<u8>]| listing.node(&path.to_vec()).is_some_and(|node| node.what == What::Dir);
    let shown = |path: &[Vec<u8>]| (0..path.len()).all(|end| is_dir(left, &path[..end]) && is_dir(right, &path[..end]));
    let kind =
        |listing: &Listing, path: &Vec<Vec<u8>>| listing.node(path).map(|node| matches!(node.what, What::Symlink(_)));
    let mut differing = BTreeSet::new();
    for path in all.into_iter().filter(|path| shown(path)) {
        let (mut a, mut b) = (in_left.get(path).map(without_time), in_right.get(path).map(without_time));
        if kind(left, path) == Some(true) && kind(right, path) == Some(true) {
            // Modes of symlinks are not compared.
            for (line, listing) in [(&mut a, left), (&mut b, right)] {
                let mode = format!(" {:o} ", listing.node(path).unwrap().mode);
                *line = line.take().map(|line| line.replacen(&mode, " ", 1));
            }
        }
        if a != b {
            differing.insert(path.join(&b'/'));
        }
    }
    differing
}

/// One image, changed in one place each.
#[test]
fn diff_names_what_differs() {
    let scratch = scratch();
    let base = || Tar::new().directory("d").file("d/f", "contents").symlink("l", "d").hard_link("h", "d/f");
    let header = |name: &[u8], mode: u32, uid: u32, device: Option<(u32, u32)>| {
        let mut header = Header::blank(name, if device.is_some() { b'3' } else { b'5' }, Magic::Ustar);
        header.mode = mode;
        header.uid = uid;
        header.device = device.unwrap_or_default();
        header.block()
    };
    let one = image(scratch.path(), "one.tar", &[base().finish()]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (base().file("new", "").finish(), r#"+ "new" file, 0 bytes"#),
        (base().file(".wh.none", "").finish(), ""),
        (base().raw(header(b"d", 0o700, 0, None), b"").finish(), r#"~ "d" mode: 0755 -> 0700"#),
        (base().raw(header(b"d", 0o755, 7, None), b"").finish(), r#"~ "d" owner: 0:0 -> 7:0"#),
        (base().file("d/f", "Contents").finish(), "~ \"d/f\" contents: file, 8 bytes\n~ \"h\" link: \"d/f\" -> none\n"),
        (base().symlink("l", "e").finish(), r#"~ "l" target: "d" -> "e""#),
        (base().file("h", "contents").finish(), r#"~ "h" link: "d/f" -> none"#),
        (base().raw(header(b"c", 0o644, 0, Some((1, 3))), b"").finish(), r#"+ "c" character device 1:3"#),
        (
            Tar::new()
                .directory("d")
                .file("d/f", "contents")
                .symlink("l", "d")
                .pax(b'x', &[("SCHILY.xattr.user.a", b"1")])
                .hard_link("h", "d/f")
                .finish(),
            "",
        ),
        (
            Tar::new()
                .directory("d")
                .pax(b'x', &[("SCHILY.xattr.user.a", b"1")])
                .file("d/f", "contents")
                .symlink("l", "d")
                .hard_link("h", "d/f")
                .finish(),
            r#"~ "d/f" xattrs: none of them -> "user.a"="1""#,
        ),
    ];
    for (at, (tar, expected)) in cases.iter().enumerate() {
        let other = image(scratch.path(), "other.tar", std::slice::from_ref(tar));
        let done = run::run(program().arg("diff").arg(&one).arg(&other).arg("-q"));
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.code, i32::from(!expected.is_empty()), "{at}: {text}{}", done.stderr);
        if expected.ends_with('\n') {
            assert_eq!(text, *expected, "{at}");
        } else {
            assert_eq!(text.trim_end(), *expected, "{at}");
        }
    }
}

#[test]
fn diff_compares_how_images_run() {
    let scratch = scratch();
    let layers = [Tar::new().directory("d").finish()];
    let write = |name: &str, config: Value| {
        let mut document = pack::config(&layers);
        document["config"] = config;
        let path = scratch.path().join(name);
        fs::write(&path, pack::docker_archive_of(&document, &layers, Squeeze::Not)).unwrap();
        path
    };
    let one = write(
        "one.tar",
        serde_json::json!({
            "Env": ["A=1", "B=2"], "Cmd": ["x"], "Labels": {"k": "v"}, "User": "", "Hostname": "h", "ExposedPorts": {"80/tcp": {}}
        }),
    );
    let two = write(
        "two.tar",
        serde_json::json!({
            "env": ["A=1", "B=\u{1b}3"], "Cmd": ["y"], "Labels": {"k": "w"}, "User": "5", "Image": "i", "ExposedPorts": {"80/tcp": {}}
        }),
    );
    let done = run::run(program().arg("diff").arg(&one).arg(&two).arg("-q"));
    let text = String::from_utf8(done.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(done.code, 1);
    assert_eq!(
        lines,
        [
            r#"~ config Cmd value: "[\"x\"]" -> "[\"y\"]""#,
            r#"- config Env "B=2""#,
            r#"+ config Env "B=\u{1b}3""#,
            r#"- config Labels "k"="v""#,
            r#"+ config Labels "k"="w""#,
            r#"+ config User "5""#,
        ]
    );
    // In a SIF it runs the same.
    convert(&one, "sif", &scratch.path().join("one.sif"), &["--arch", "x86_64"]);
    let done = run::run(program().arg("diff").arg(&one).arg(scratch.path().join("one.sif")));
    assert_eq!(done.code, 0, "{}{}", done.stdout.escape_ascii(), done.stderr);
}

/// The source is there: what is said is about the path in it.
#[test]
fn a_path_that_is_not_in_the_image_is_told() {
    let scratch = scratch();
    let one = image(scratch.path(), "one.tar", &[Tar::new().directory("d").symlink("l", "l").finish()]);
    for (command, path) in [("ls", "/nope"), ("cat", "d/nope"), ("ls", "l/x")] {
        let done = run::run(program().arg(command).arg(&one).arg(path));
        let hint = done.stderr.lines().last().unwrap();
        assert!(hint.contains("sif-convert ls SOURCE"), "{command} {path}: {}", done.stderr);
        assert_eq!(done.code, run::exit_code("SourceUnavailable"), "{}", done.stderr);
    }
}

/// A difference has exit code 1, and nothing else has.
#[test]
fn diff_tells_trouble_from_difference() {
    let scratch = scratch();
    let one = image(scratch.path(), "one.tar", &[Tar::new().directory("d").finish()]);
    let done = run::run(program().arg("diff").arg(&one).arg("/no/such/file"));
    assert_eq!(done.code, run::exit_code("SourceUnavailable"), "{}", done.stderr);
    let done = run::run(program().args(["diff", "-", "-"]));
    assert_eq!(done.code, run::exit_code("Usage"), "{}", done.stderr);
}

/// Nobody gets bytes of a layer that is not what its digest says.
#[test]
fn cat_prints_nothing_of_a_damaged_layer() {
    let scratch = scratch();
    for squeeze in [Squeeze::Not, Squeeze::Zstd] {
        let tar = Tar::new().file("f", "needle contents").finish();
        let mut config = pack::config(std::slice::from_ref(&tar));
        config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "ab".repeat(32)).into();
        let path = scratch.path().join("x.tar");
        fs::write(&path, pack::docker_archive_of(&config, &[tar], squeeze)).unwrap();
        let done = run::run(program().arg("cat").arg(&path).arg("f"));
        assert_eq!((done.code, done.stdout.len()), (run::exit_code("Mismatch"), 0), "{}", done.stderr);
    }
}

/// Holes are read as zeros, and compared without being read.
#[test]
fn sparse_files_are_compared_by_what_they_read_as() {
    let scratch = scratch();
    let root = scratch.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    let sparse = fs::File::create(root.join("etc/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 5_000_000).unwrap();
    sparse.set_len(9_000_000).unwrap();
    for (name, option) in [("sparse.tar", "--sparse"), ("full.tar", "--no-recursion")] {
        ok(std::process::Command::new("tar")
            .args(["-c", option, "-f"])
            .arg(scratch.path().join(name))
            .args(["etc", "etc/sparse"])
            .current_dir(&root));
    }
    let at = |name: &str| scratch.path().join(name);
    ok(std::process::Command::new("gzip").arg("-k").arg(at("sparse.tar")));
    convert(&root, "squashfs", &at("x.sqsh"), &[]);
    let sources = [at("sparse.tar"), at("full.tar"), at("sparse.tar.gz"), at("x.sqsh"), root.clone()];
    for source in &sources {
        let done = run::run(program().arg("diff").arg(&sources[0]).arg(source));
        assert_eq!(done.code, 0, "{source:?}: {}{}", done.stdout.escape_ascii(), done.stderr);
        let found = ok(program().arg("cat").arg(source).arg("etc/sparse")).stdout;
        assert!(found == fs::read(root.join("etc/sparse")).unwrap(), "{source:?}");
    }
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"x", 8_999_999).unwrap();
    let done = run::run(program().arg("diff").arg(&sources[0]).arg(&root).arg("-q"));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "~ \"etc/sparse\" contents: file, 9000000 bytes\n");
    assert!(parts(b"etc/sparse").len() == 2);
}

/// The right tar in a blob of other bytes: with an empty member of gzip behind it.
#[test]
fn a_blob_must_be_what_its_digest_says_and_not_only_its_tar() {
    let place = scratch();
    let (layout, output) = (place.path().join("layout"), place.path().join("out"));
    let layers = [Tar::new().finish()];
    pack::oci_layout_of(&layout, &pack::config(&layers), &layers, Squeeze::Gzip);
    let convert = || run::run(program().arg(&layout).args(["--to", "rootfs", "-q", "-f", "-o"]).arg(&output));
    assert_eq!(convert().code, 0);
    fs::remove_file(&output).unwrap();
    let squeezed = pack::squeeze(&layers[0], Squeeze::Gzip);
    let blob = layout.join("blobs/sha256").join(pack::sha256(&squeezed));
    assert!(blob.exists());
    fs::write(&blob, [squeezed, pack::squeeze(b"", Squeeze::Gzip)].concat()).unwrap();
    let refused = convert();
    assert_eq!((refused.code, output.exists()), (run::exit_code("Mismatch"), false), "{}", refused.stderr);
}

/// The newest layer of a directory counts, the root's too; what a link leads to that is not there is named.
#[test]
fn the_root_has_a_layer_and_a_link_may_lead_nowhere() {
    let place = scratch();
    let layers = [layer::of_file("a", b"a"), layer::of_file("d/b", b"b")];
    let archive = place.path().join("x.tar");
    fs::write(&archive, docker_archive(&layers, Squeeze::Not)).unwrap();
    let root = json(program().arg("ls").arg(&archive).args(["/", "--depth", "0"]));
    assert_eq!(root["entries"][0]["layer"], 2, "{root}");
    let tar = Tar::new().file("etc/x", "x").symlink("link", "/etc/none").symlink("good", "etc/x").finish();
    fs::write(&archive, docker_archive(&[tar], Squeeze::Not)).unwrap();
    assert_eq!(ok(program().arg("cat").arg(&archive).arg("good")).stdout, b"x");
    for (path, said) in [
        ("link", "\"link\" leads to \"etc/none\", which is not in it"),
        ("/nope", "there is no \"/nope\" in it"),
        ("./etc//nope", "there is no \"./etc//nope\" in it"),
    ] {
        let done = run::run(program().arg("cat").arg(&archive).arg(path));
        assert!(done.code == 3 && done.stderr.contains(said), "{}", done.stderr);
    }
}
