//! Images that share layers, with a cache: each layer is worked on once, the bytes are those without a cache, and nothing that
//! lies in the cache can change them.
//!
//! KILLS says how often the program is killed, 20 times by default.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::entry::{Content, Entry, Kind, Piece};
use crate::support::fake::{Fake, Repository};
use crate::support::layer;
use crate::support::pack::{Squeeze, config, docker_archive, oci_layout_of, sha256};
use crate::support::random::{self, Numbers, Wanted};
use crate::support::run::{host_has, is_root, leave_out, program, run};

/// Files of every kind that a squashfs treats in its own way: fragments, blocks, noise, zeros, holes, copies.
fn base() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(5);
    let file = |path: &str, bytes: Vec<u8>| Entry::new(path, Kind::File(Content::data(bytes)));
    let mut lower = vec![Entry::new("bin", Kind::Dir), file("etc/passwd", b"root:x:0:0\n".to_vec())];
    for number in 0..60 {
        let length = 500 + numbers.below(9000) as usize;
        lower.push(file(&format!("usr/lib/{number:02}.py"), numbers.thin_noise(length)));
    }
    lower.push(file("usr/lib/large", numbers.thin_noise(700_001)));
    lower.push(file("usr/lib/noise", numbers.noise(300_000)));
    lower.push(file("usr/lib/zeros", vec![0; 400_000]));
    lower.push(file("usr/share/hidden-large", numbers.thin_noise(300_000)));
    lower.push(file("usr/share/hidden-small", numbers.thin_noise(3000)));
    let pieces = vec![Piece::Data(vec![7; 5000]), Piece::Hole(600_000), Piece::Data(numbers.thin_noise(9000))];
    let mut sparse = Entry::new("usr/lib/sparse", Kind::File(Content(pieces)));
    sparse.dialect = vec!["sparse-1.0".to_string()];
    lower.push(sparse);
    lower.push(Entry::new("usr/lib/link", Kind::Link(b"usr/lib/large".to_vec())));
    lower.push(Entry::new("bin/sh", Kind::Symlink(b"../usr/lib/large".to_vec())));
    let copy = lower.iter().find(|entry| entry.path == b"usr/lib/07.py").unwrap().clone();
    let large = lower.iter().find(|entry| entry.path == b"usr/lib/large").unwrap().clone();
    let upper = vec![
        Entry { path: b"usr/share/copy-of-07.py".to_vec(), ..copy },
        Entry { path: b"usr/share/copy-of-large".to_vec(), ..large },
        file("usr/share/.wh.hidden-large", Vec::new()),
        file("usr/share/hidden-small", b"another".to_vec()),
        file("usr/share/more", numbers.thin_noise(150_000)),
        file("etc/os-release", b"ID=test\n".to_vec()),
    ];
    vec![layer::tar_of(&lower), layer::tar_of(&upper)]
}

/// The base with a layer of its own.
fn sibling(number: u64) -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(100 + number);
    let file = |path: String, bytes: Vec<u8>| Entry::new(path, Kind::File(Content::data(bytes)));
    let own = vec![
        file("opt/app".to_string(), numbers.thin_noise(200_000)),
        file(format!("usr/lib/20-{number}.py"), numbers.thin_noise(2000)),
        file("usr/lib/33.py".to_string(), format!("changed by {number}").into_bytes()),
        file("etc/passwd".to_string(), b"root:x:0:0\napp:x:1:1\n".to_vec()),
        // The same bytes as a file of the base: whoever compares them must read that one.
        file("opt/os-release".to_string(), b"ID=test\n".to_vec()),
    ];
    let mut layers = base();
    layers.push(layer::tar_of(&own));
    layers
}

/// A directory that anyone may enter, with a copy of the program that anyone may run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for number in 0..3 {
            fs::write(place.path(&format!("{number}.tar")), docker_archive(&sibling(number), Squeeze::Not)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, source: &str, more: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).args([source, "--to", "sif", "-f", "-o", "x.sif", "-q"]).args(more);
        command
    }

    /// The bytes of the output, and what the program says of the cache.
    fn convert(&self, source: &str, more: &[&str]) -> (String, Vec<String>) {
        let made = run(self.command(source, &["--report", "r.json"]).args(more));
        assert_eq!(made.code, 0, "{source} {more:?}: {}", made.stderr);
        (sha256(&fs::read(self.path("x.sif")).unwrap()), self.notes())
    }

    fn notes(&self) -> Vec<String> {
        let report: Value = serde_json::from_slice(&fs::read(self.path("r.json")).unwrap()).unwrap();
        let notes = report["notes"].as_array().unwrap().iter();
        let text = |note: &Value| format!("{}: {}", note["code"].as_str().unwrap(), note["message"].as_str().unwrap());
        notes.map(text).filter(|note| note.starts_with("cache-")).collect()
    }

    /// Converts, and expects that so many layers come from the cache; the bytes.
    fn expect(&self, source: &str, cache: &str, known: usize) -> String {
        let (bytes, notes) = self.convert(source, &["--cache", cache]);
        let expected = format!("cache-used: {known} layers and ");
        assert_eq!(notes.len(), usize::from(known > 0), "{source} with {cache}: {notes:?}");
        assert!(notes.iter().all(|note| note.starts_with(&expected)), "{source} with {cache}: {notes:?}");
        bytes
    }

    /// All files of the cache that are made of layers.
    fn derived(&self, cache: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.path(cache).join("derived")];
        while let Some(directory) = directories.pop() {
            for each in fs::read_dir(directory).into_iter().flatten() {
                let path = each.unwrap().path();
                if path.is_dir() { directories.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn a_layer_is_worked_on_once_and_the_bytes_stay_the_same() {
    let place = Place::new();
    for options in [&[][..], &["--compression", "zstd:1"], &["--block-size", "4096"], &["--jobs", "1"]] {
        let expected: Vec<String> = (0..3).map(|it| place.convert(&format!("{it}.tar"), options).0).collect();
        drop(fs::remove_dir_all(place.path("cache")));
        let convert = |number: usize, known: usize| {
            let (bytes, notes) = place.convert(&format!("{number}.tar"), &[options, &["--cache", "cache"]].concat());
            assert_eq!(bytes, expected[number], "{options:?}: sibling {number}, {known} layers known");
            let used = notes.first().map_or("0", |note| note.split(' ').nth(1).unwrap());
            assert_eq!(used, known.to_string(), "{options:?}: {notes:?}");
        };
        convert(0, 0);
        convert(1, 2);
        convert(1, 3);
        convert(2, 2);
        convert(0, 3);
    }
    // What was kept for other blocks is of no use, and does no harm.
    assert_eq!(place.convert("0.tar", &["--block-size", "65536", "--cache", "cache"]).1, Vec::<String>::new());
    let listed = run(program().args(["cache", "list"]).arg(place.path("cache")));
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(text.starts_with("0 blobs") && text.contains(": 8 layers in "), "{text}{}", listed.stderr);
}

#[test]
fn a_known_layer_is_not_read_wherever_it_is() {
    let place = Place::new();
    let expected: Vec<String> = (0..3).map(|it| place.convert(&format!("{it}.tar"), &[]).0).collect();
    fs::write(place.path("gzip.tar"), docker_archive(&sibling(1), Squeeze::Gzip)).unwrap();
    oci_layout_of(&place.path("layout"), &config(&sibling(2)), &sibling(2), Squeeze::Zstd);
    let mut repository = Repository::default();
    for number in 0..3 {
        let image = repository.add_image(&config(&sibling(number)), &sibling(number));
        repository.tag(&number.to_string(), &image);
    }
    let fake = Fake::start(move |request| repository.answer(request));
    let docker = |number: usize| format!("docker://{}/sibling:{number}", fake.host());
    let option = fake.host();
    assert_eq!(place.expect("0.tar", "cache", 0), expected[0]);
    assert_eq!(place.expect("gzip.tar", "cache", 2), expected[1]);
    assert_eq!(place.expect("layout", "cache", 2), expected[2]);
    // The layers of all three are known now: of an image on a registry only the documents are asked for.
    for number in [0, 1, 2, 1] {
        let (bytes, notes) = place.convert(&docker(number), &["--cache", "cache", "--insecure", &option]);
        assert_eq!(bytes, expected[number]);
        assert!(notes[0].starts_with("cache-used: 3 layers"), "{notes:?}");
    }
    assert_eq!(fake.count("/blobs/"), 3, "each config once, and no layer: {:?}", fake.log());
    fs::remove_dir_all(place.path("cache")).unwrap();
    let convert = |number: usize| place.convert(&docker(number), &["--cache", "cache", "--insecure", &option]).0;
    assert_eq!(convert(0), expected[0]);
    let before = fake.count("/blobs/");
    assert_eq!(convert(1), expected[1]);
    assert_eq!(fake.count("/blobs/") - before, 2, "the config, and the layer of its own");
}

#[test]
fn any_layers_give_the_same_bytes() {
    let place = Place::new();
    let images = random::images(Wanted::Valid, 40);
    let tars = |image: &random::Image| -> Vec<Vec<u8>> { image.0.iter().map(layer::tar).collect() };
    let mut known = 0;
    for (number, image) in images.iter().enumerate() {
        // With one more layer, that of the next image: layers meet above other layers than at first.
        let other = &images[(number + 1) % images.len()];
        let mixed = [tars(image), tars(other)].concat();
        for (name, layers) in [("a.tar", tars(image)), ("b.tar", mixed)] {
            fs::write(place.path(name), docker_archive(&layers, Squeeze::Not)).unwrap();
            let plain = run(&mut place.command(name, &["--block-size", "4096"]));
            if plain.code != 0 {
                continue;
            }
            let expected = sha256(&fs::read(place.path("x.sif")).unwrap());
            for _ in 0..2 {
                let (bytes, notes) = place.convert(name, &["--block-size", "4096", "--cache", "cache"]);
                assert_eq!(bytes, expected, "{image:?}{other:?}");
                known += notes.len();
            }
        }
    }
    assert!(known > 60, "the cache was used {known} times only");
}

/// Damages `path` in one of several ways.
fn damage(path: &Path, how: u64, numbers: &mut Numbers) {
    let mut bytes = fs::read(path).unwrap();
    match how {
        0 => bytes.truncate(numbers.below(bytes.len() as u64) as usize),
        1 => bytes.clear(),
        _ => {
            let at = numbers.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << numbers.below(8);
        }
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn damage_of_any_entry_is_found_and_made_good() {
    let place = Place::new();
    let expected: Vec<String> = (0..3).map(|it| place.convert(&format!("{it}.tar"), &[]).0).collect();
    let mut numbers = Numbers::new(9);
    let fill = || {
        drop(fs::remove_dir_all(place.path("cache")));
        place.expect("0.tar", "cache", 0);
        place.expect("1.tar", "cache", 2);
        place.derived("cache")
    };
    let files = fill();
    assert_eq!(files.len(), 6, "four layers in two packs: {files:?}");
    let mut noticed = 0;
    for round in 0..48 {
        let file = &files[round % files.len()];
        if !file.exists() {
            fill();
        }
        damage(file, round as u64 / 6, &mut numbers);
        let number = (round * 7) % 3;
        let (bytes, _) = place.convert(&format!("{number}.tar"), &["--cache", "cache"]);
        assert_eq!(bytes, expected[number], "round {round}: {file:?}");
        // What is left of the damage is found by whoever looks for it, and is gone then.
        let verify = || run(program().args(["cache", "verify"]).arg(place.path("cache")));
        let first = verify();
        assert!(first.code == 0 || first.code == 5, "{}", first.stderr);
        noticed += usize::from(first.code == 5);
        let second = verify();
        assert_eq!(second.code, 0, "{}", second.stderr);
        assert_eq!(place.convert(&format!("{number}.tar"), &["--cache", "cache"]).0, expected[number]);
        place.convert("0.tar", &["--cache", "cache"]);
        place.convert("1.tar", &["--cache", "cache"]);
    }
    assert!(noticed < 40, "mostly the conversion finds it: {noticed}");
    // A pack in the place of another.
    let files = fill();
    let packs: Vec<&PathBuf> = files.iter().filter(|path| path.parent().unwrap().ends_with("packs")).collect();
    fs::copy(packs[0], packs[1]).unwrap();
    for (number, expected) in expected.iter().enumerate() {
        assert_eq!(&place.convert(&format!("{number}.tar"), &["--cache", "cache"]).0, expected);
    }
    // An index in the place of another.
    let files = fill();
    let layers: Vec<&PathBuf> = files.iter().filter(|path| path.parent().unwrap().ends_with("layers")).collect();
    for pair in layers.windows(2) {
        fs::copy(pair[0], pair[1]).unwrap();
    }
    for (number, expected) in expected.iter().enumerate() {
        assert_eq!(&place.convert(&format!("{number}.tar"), &["--cache", "cache"]).0, expected);
    }
}

#[test]
fn what_others_may_write_does_not_count() {
    if !is_root() {
        return leave_out("files of other users are made by root only");
    }
    let place = Place::new();
    let expected = place.convert("0.tar", &[]).0;
    let own = place.path("cache/derived/0");
    let own_mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // Each way in which others may write, or may have written, to what is used. (How many layers are known then.)
    type Plant<'a> = (&'a str, &'a dyn Fn(), usize);
    let indexes = || place.derived("cache").into_iter().filter(|path| path.parent().unwrap().ends_with("layers"));
    let packs = || place.derived("cache").into_iter().filter(|path| path.parent().unwrap().ends_with("packs"));
    let plants: [Plant<'_>; 8] = [
        ("nothing", &|| {}, 3),
        ("the account's directory is another's", &|| chown(&own, Some(1234), None).unwrap(), 0),
        ("others may write to the account's directory", &|| own_mode(&own, 0o777), 0),
        ("the group may write to the indexes", &|| own_mode(&own.join("layers"), 0o775), 0),
        ("others may write to the packs", &|| own_mode(&own.join("packs"), 0o757), 0),
        ("an index is another's", &|| indexes().for_each(|path| chown(path, Some(1234), None).unwrap()), 0),
        ("others may write to an index", &|| indexes().for_each(|path| own_mode(&path, 0o666)), 0),
        ("others may write to a pack", &|| packs().for_each(|path| own_mode(&path, 0o646)), 0),
    ];
    for (what, plant, known) in plants {
        drop(fs::remove_dir_all(place.path("cache")));
        place.expect("0.tar", "cache", 0);
        plant();
        let (bytes, notes) = place.convert("0.tar", &["--cache", "cache"]);
        assert_eq!(bytes, expected, "{what}");
        let used = notes.iter().any(|note| note.starts_with(&format!("cache-used: {known} layers")));
        assert_eq!(used, known > 0, "{what}: {notes:?}");
    }
    // A link in the place of the directory, to one that would do.
    fs::remove_dir_all(place.path("cache")).unwrap();
    place.expect("0.tar", "cache", 0);
    fs::rename(&own, place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), &own).unwrap();
    let (bytes, notes) = place.convert("0.tar", &["--cache", "cache"]);
    assert_eq!(bytes, expected);
    assert!(notes.iter().all(|note| note.starts_with("cache-not-kept")) && notes.len() == 1, "{notes:?}");
    // A directory that was filled elsewhere, by somebody who unpacked an archive: others may move it to where anyone may.
    fs::remove_dir_all(place.path("cache")).unwrap();
    fs::remove_dir_all(place.path("elsewhere")).unwrap();
    place.expect("0.tar", "other", 0);
    fs::create_dir(place.path("cache")).unwrap();
    own_mode(&place.path("cache"), 0o1777);
    fs::create_dir(place.path("cache/derived")).unwrap();
    own_mode(&place.path("cache/derived"), 0o1777);
    fs::rename(place.path("other/derived/0"), &own).unwrap();
    let (bytes, notes) = place.convert("0.tar", &["--cache", "cache"]);
    assert_eq!(bytes, expected);
    assert!(notes.len() == 1 && notes[0].contains("it was moved there from elsewhere"), "{notes:?}");
}

#[test]
fn two_users_share_a_cache_and_trust_whom_they_may() {
    if !is_root() || !host_has("setpriv") {
        return leave_out("two users need root and setpriv");
    }
    let place = Place::new();
    fs::copy(env!("CARGO_BIN_EXE_convert"), place.path("convert")).unwrap();
    let expected: Vec<String> = (0..3).map(|it| place.convert(&format!("{it}.tar"), &[]).0).collect();
    for directory in ["cache", "user"] {
        fs::create_dir(place.path(directory)).unwrap();
        fs::set_permissions(place.path(directory), fs::Permissions::from_mode(0o1777)).unwrap();
    }
    let as_user = |number: usize, settings: &str| {
        let user = place.path("user");
        fs::create_dir_all(place.path("settings/sif-convert")).unwrap();
        fs::write(place.path("settings/sif-convert/config.toml"), settings).unwrap();
        let mut command = Command::new("setpriv");
        command.env_clear().env("PATH", "/usr/bin:/bin").env("XDG_CONFIG_HOME", place.path("settings"));
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "--"]).arg(place.path("convert"));
        command
            .arg(place.path(&format!("{number}.tar")))
            .args(["--to", "sif", "-f", "-q", "-o"])
            .arg(user.join("x.sif"));
        command.arg("--report").arg(user.join("r.json")).arg("--cache").arg(place.path("cache"));
        let made = run(command.current_dir(&user));
        assert_eq!(made.code, 0, "{}", made.stderr);
        fs::copy(user.join("r.json"), place.path("r.json")).unwrap();
        assert_eq!(sha256(&fs::read(user.join("x.sif")).unwrap()), expected[number]);
        place.notes().join("; ")
    };
    // What a user keeps is of use to that user, not to root.
    assert_eq!(as_user(0, ""), "");
    assert!(as_user(1, "").starts_with("cache-used: 2 layers"));
    assert_eq!(place.expect("0.tar", "cache", 0), expected[0]);
    // What root keeps is of use to everybody.
    fs::remove_dir_all(place.path("cache/derived/1000")).unwrap();
    assert!(as_user(1, "").starts_with("cache-used: 2 layers"));
    assert!(as_user(1, "").starts_with("cache-used: 3 layers"));
    // An account that the site names.
    fs::remove_dir_all(place.path("cache/derived/1000")).unwrap();
    let trees = [place.path("cache/derived/0"), place.path("cache/derived/777")];
    assert!(run(Command::new("cp").arg("-a").args(&trees)).code == 0);
    fs::remove_dir_all(&trees[0]).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&trees[1]).unwrap());
    fs::write(trees[1].join("place"), format!("{inode}\n")).unwrap();
    assert!(run(Command::new("chown").args(["-R", "777"]).arg(&trees[1])).code == 0);
    assert_eq!(as_user(2, ""), "", "777 is nobody");
    fs::remove_dir_all(place.path("cache/derived/1000")).unwrap();
    assert!(as_user(2, "cache_accounts = [777]\n").starts_with("cache-used: 2 layers"));
    // Root clears up behind all, whether their work counts for root or not.
    let cache = |word: &str| run(program().arg("cache").arg(word).arg(place.path("cache")));
    let intact = cache("verify");
    let said = String::from_utf8(intact.stdout).unwrap();
    assert!(intact.code == 0 && !said.contains("and 0 layers"), "{said}{}", intact.stderr);
    for pack in fs::read_dir(trees[1].join("packs")).unwrap() {
        fs::OpenOptions::new().write(true).open(pack.unwrap().path()).unwrap().set_len(100).unwrap();
    }
    let damaged = cache("verify");
    assert!(damaged.code == 5 && !damaged.stderr.contains("removed: 0;"), "{}", damaged.stderr);
    assert_eq!(cache("prune").code, 0);
    for account in ["777", "1000"] {
        for kind in ["layers", "packs"] {
            let folder = place.path("cache/derived").join(account).join(kind);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{folder:?}");
        }
    }
}

#[test]
fn killed_at_any_moment_it_goes_on_where_it_was() {
    let place = Place::new();
    let kills: u32 = std::env::var("KILLS").map_or(20, |count| count.parse().unwrap());
    let expected: Vec<String> = (0..3).map(|it| place.convert(&format!("{it}.tar"), &[]).0).collect();
    let mut numbers = Numbers::new(u64::from(std::process::id()));
    let started = Instant::now();
    place.expect("0.tar", "cache", 0);
    let took = started.elapsed();
    for round in 0..kills {
        let number = numbers.below(3) as usize;
        if round % 4 == 0 {
            fs::remove_dir_all(place.path("cache")).unwrap();
        }
        let source = format!("{number}.tar");
        let mut child = place.command(&source, &["--cache", "cache"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(took.mul_f64(numbers.below(1000) as f64 / 900.0));
        child.kill().unwrap();
        child.wait().unwrap();
        let other = numbers.below(3) as usize;
        let (bytes, notes) = place.convert(&format!("{other}.tar"), &["--cache", "cache"]);
        assert_eq!(bytes, expected[other], "round {round}");
        assert!(notes.iter().all(|note| note.starts_with("cache-used")), "{notes:?}");
        let verified = run(program().args(["cache", "verify"]).arg(place.path("cache")));
        assert_eq!(verified.code, 0, "round {round}: {}", verified.stderr);
    }
}

#[test]
fn of_many_processes_at_once_on_an_empty_cache_one_works_on_the_base() {
    let place = Place::new();
    let expected: Vec<String> = (0..3).map(|it| place.convert(&format!("{it}.tar"), &[]).0).collect();
    let outputs: Vec<PathBuf> = (0..6).map(|number| place.path(&format!("out-{number}"))).collect();
    let children: Vec<_> = outputs
        .iter()
        .enumerate()
        .map(|(number, output)| {
            let mut command = program();
            command.arg(place.path(&format!("{}.tar", number % 3))).args(["--to", "sif", "-q", "-o"]).arg(output);
            command.arg("--report").arg(output.with_extension("json"));
            command.arg("--cache").arg(place.path("cache")).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", String::from_utf8(output.stderr));
        assert_eq!(sha256(&fs::read(&outputs[number]).unwrap()), expected[number % 3]);
    }
    let knew_it = |output: &&PathBuf| fs::read_to_string(output.with_extension("json")).unwrap().contains("cache-used");
    assert_eq!(outputs.iter().filter(knew_it).count(), 5, "the others wait for the first");
    let is_leftover = |path: &PathBuf| path.to_str().unwrap().ends_with(".unfinished") || path.ends_with("turns");
    let leftovers: Vec<PathBuf> = place
        .derived("cache")
        .into_iter()
        .filter(|path| is_leftover(path) || is_leftover(&path.parent().unwrap().into()))
        .collect();
    assert_eq!(leftovers, Vec::<PathBuf>::new());
    assert_eq!(place.expect("2.tar", "cache", 3), expected[2]);
}

#[test]
fn a_cache_has_a_limit_and_is_pruned() {
    let place = Place::new();
    let expected = place.convert("0.tar", &[]).0;
    place.expect("0.tar", "cache", 0);
    place.expect("1.tar", "cache", 2);
    let bytes = || place.derived("cache").iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    let prune = |arguments: &[&str]| {
        let pruned = run(program().args(["cache", "prune"]).arg(place.path("cache")).args(arguments));
        assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    };
    prune(&["--older-than", "1"]);
    assert_eq!(place.expect("0.tar", "cache", 3), expected, "nothing is that old");
    // The pack of the base is the oldest, but is used by both.
    let all = bytes();
    std::thread::sleep(Duration::from_millis(1100));
    place.expect("0.tar", "cache", 3);
    prune(&["--max-size", &(all - 1).to_string()]);
    assert!(bytes() < all);
    assert_eq!(place.expect("0.tar", "cache", 3), expected, "what was used lately stays");
    prune(&["--max-size", "1MB"]);
    assert!(bytes() <= 1_000_000);
    assert_eq!(place.convert("0.tar", &["--cache", "cache"]).0, expected);
    prune(&[]);
    assert_eq!(place.derived("cache").iter().filter(|path| !path.ends_with("place")).count(), 0);
    assert_eq!(place.expect("0.tar", "cache", 0), expected);
    let settings = place.path("settings/sif-convert");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("config.toml"), "cache_size = '500kB'\n").unwrap();
    let mut limited = place.command("1.tar", &["--cache", "cache"]);
    assert_eq!(run(limited.env("XDG_CONFIG_HOME", place.path("settings"))).code, 0);
    assert!(bytes() <= 500_000, "{} bytes", bytes());
}
