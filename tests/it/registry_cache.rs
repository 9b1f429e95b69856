//! `--cache`: blobs that several processes and users share, whatever happens to them and to the files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::registry::{Place, big_digest, faulty, layers, source};
use crate::support::fake::{Body, Fake, Repository};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive, sha256};
use crate::support::run::{host_has, is_root, leave_out, program, run, skip};
use crate::support::small::SmallDisk;

/// The blobs in a cache, each whole.
fn cached(directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory.join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !name.starts_with('.') {
            assert_eq!(sha256(&fs::read(entry.path()).unwrap()), name, "a damaged blob is in the cache");
            names.push(format!("sha256:{name}"));
        }
    }
    names.sort();
    names
}

#[test]
fn ten_processes_share_one_cache() {
    let (fake, repository) = faulty(|_, answer| answer);
    let places: Vec<Place> = (0..10).map(|_| Place::new()).collect();
    let shared = Place::new();
    let cache = shared.path("cache");
    let cache_option = cache.to_str().unwrap();
    let children: Vec<_> = places
        .iter()
        .map(|place| place.command(&source(&fake), &["--cache", cache_option]).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8(done.stderr).unwrap());
    }
    let expected = sha256(&shared.expected(&layers()));
    for place in &places {
        assert_eq!(sha256(&fs::read(place.path("out/x.tar")).unwrap()), expected);
        assert_eq!(place.names("tmp"), Vec::<String>::new());
    }
    assert_eq!(cached(&cache), repository.blob_digests());
    for digest in repository.blob_digests() {
        assert!(fake.count(&digest) <= 2, "{digest} was fetched {} times", fake.count(&digest));
    }
    // What is damaged is fetched again, and nothing else.
    let big = big_digest(&repository);
    let path = cache.join("blobs/sha256").join(big.strip_prefix("sha256:").unwrap());
    fs::write(&path, "damaged").unwrap();
    let before = fake.log().len();
    shared.makes(&source(&fake), &["--cache", cache_option], &layers());
    let asked: Vec<String> = fake.log()[before..].iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked, ["/v2/x/manifests/1".to_string(), format!("/v2/x/blobs/{big}")]);
    assert_eq!(cached(&cache), repository.blob_digests());

    let prune = |arguments: &[&str]| run(program().args(["cache", "prune", cache_option]).args(arguments));
    let done = prune(&["--older-than", "1"]);
    assert_eq!((done.code, String::from_utf8(done.stdout).unwrap().as_str()), (0, "removed 0 blobs, 0 B; kept 4\n"));
    assert_eq!(prune(&[]).code, 0);
    assert_eq!(cached(&cache), Vec::<String>::new());
    assert_eq!(run(program().args(["cache", "prune", shared.path("out").to_str().unwrap()])).code, 2);
}

#[test]
fn one_of_a_kind_is_not_many() {
    let layers = vec![layer::of_file("a", b"the only one")];
    let (fake, repository) = (Repository::of(&layers), Repository::of(&layers));
    let fake = Fake::start(move |request| fake.answer(request));
    let place = Place::new();
    place.makes(&source(&fake), &["--cache", "cache"], &layers);
    fs::remove_file(place.path("cache/blobs/sha256").join(&repository.blob_digests()[0]["sha256:".len()..])).unwrap();
    fs::write(place.path("x.tar"), docker_archive(&layers, Squeeze::Not)).unwrap();
    for (words, said) in [
        (&["cache", "list", "cache"][..], "1 blob, "),
        (&["cache", "verify", "cache"], "intact: 1 blob and 0 layers\n"),
        (&["cache", "prune", "cache"], "removed 1 blob, "),
        (&["verify", "x.tar"], "is whole: 1 layer\n"),
    ] {
        let done = run(program().current_dir(place.path("")).args(words));
        let page = String::from_utf8(done.stdout).unwrap();
        assert!(done.code == 0 && page.contains(said), "{words:?}: {page}{}", done.stderr);
    }
}

/// Whoever may read the directory may read what is in it, whatever the umask of those who filled it was.
#[test]
fn a_umask_keeps_a_cache_from_nobody() {
    if !is_root() || !host_has("setpriv") {
        return leave_out("two users need root and setpriv");
    }
    let (fake, repository) = faulty(|_, answer| answer);
    let all = repository.blob_digests().len();
    for (mode, first) in [(0o1777, "1000"), (0o755, "0")] {
        let place = Place(tempfile::tempdir().unwrap());
        ["out", "tmp"].into_iter().for_each(|name| fs::create_dir(place.path(name)).unwrap());
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_convert"), place.path("convert")).unwrap();
        let cache = place.path("cache");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).unwrap();
        let convert = |uid: &str, to: &str, umask: &str| {
            let home = place.path(&format!("home-{uid}"));
            fs::create_dir_all(&home).unwrap();
            std::os::unix::fs::chown(&home, Some(uid.parse().unwrap()), None).unwrap();
            let before = fake.log().len();
            let line = format!(
                "umask {umask}; exec setpriv --reuid {uid} --regid {uid} --clear-groups {} {} --to {to} -f -o x --cache {} --report r",
                place.path("convert").display(),
                source(&fake),
                cache.display()
            );
            let done =
                run(Command::new("sh").args(["-c", &line]).current_dir(&home).env("HOME", &home).env("TMPDIR", &home));
            assert_eq!(done.code, 0, "{uid}: {}", done.stderr);
            let asked = fake.log()[before..].iter().filter(|request| request.path.contains("/blobs/")).count();
            (asked, fs::read_to_string(home.join("r")).unwrap().contains("cache-used"))
        };
        assert_eq!(convert(first, "sif", "077"), (all, false));
        // Work of root counts for everybody, that of another user does not.
        assert_eq!(convert("1001", "sif", "022"), (0, first == "0"));
        assert_eq!(convert("1001", "rootfs", "022").0, 0);
        let mut list = Command::new("setpriv");
        list.args(["--reuid", "1001", "--regid", "1001", "--clear-groups"]).arg(place.path("convert"));
        assert_eq!(run(list.args(["cache", "list"]).arg(&cache)).code, 0);
    }
}

/// A disk that is full is no reason to fail: what has no room in the cache is read as it comes, and is verified.
#[test]
fn what_has_no_room_in_the_cache_is_converted_and_not_kept() {
    if !is_root() {
        return skip("only root can mount a tmpfs");
    }
    let (fake, _) = faulty(|_, answer| answer);
    for kib in [0, 8, 64, 200, 400] {
        let place = Place::new();
        let Some(disk) = SmallDisk::mount(place.path("small"), 400) else { return skip("a tmpfs cannot be mounted") };
        fs::write(disk.path().join("full"), vec![1; (400 - kib) << 10]).unwrap();
        let before = fake.log().len();
        place.makes(&source(&fake), &["--cache", "small/cache"], &layers());
        let fetched = fake.log()[before..].iter().filter(|request| request.path.contains("/blobs/")).count();
        assert!(fetched >= layers().len(), "{kib} KiB: {fetched}");
        if disk.path().join("cache/blobs/sha256").exists() {
            cached(&disk.path().join("cache"));
        }
    }
    // The rest of a blob that comes directly is compared with its digest, too.
    let (fake, _) = faulty(|request, answer| {
        let big = request.is_for("/blobs/") && matches!(&answer.body, Body::Whole(bytes) if bytes.len() > 100_000);
        if !big {
            return answer;
        }
        answer.spoilt(|mut bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            Body::Whole(bytes)
        })
    });
    let place = Place::new();
    let Some(_disk) = SmallDisk::mount(place.path("small"), 100) else { return skip("a tmpfs cannot be mounted") };
    place.fails(&source(&fake), &["--cache", "small/cache"], 5, &["digest mismatch"]);
}

/// A site's directory serves everybody in both of the ways that docs/cache.md names, whoever comes first; and so does one whose
/// folders were made by an earlier version with the mask of the first user.
#[test]
fn users_and_root_share_one_cache() {
    if !is_root() || !host_has("setpriv") {
        return leave_out("two users need root and setpriv");
    }
    let (fake, repository) = faulty(|_, answer| answer);
    let place = Place(tempfile::tempdir().unwrap());
    ["out", "tmp"].into_iter().for_each(|name| fs::create_dir(place.path(name)).unwrap());
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_convert"), place.path("convert")).unwrap();
    let expected = sha256(&place.expected(&layers()));
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let cache = place.path("cache");
    // How many blobs were asked for, and what is said of the cache.
    let convert = |uid: &str, to: &str| {
        let home = place.path(&format!("home-{uid}"));
        fs::create_dir_all(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(uid.parse().unwrap()), None).unwrap();
        let before = fake.log().len();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "--"]).arg(place.path("convert"));
        command.arg(source(&fake)).args(["--to", to, "-f", "-o", "x", "--report", "r.json", "--cache"]).arg(&cache);
        let done = run(command.current_dir(&home).env("HOME", &home).env("TMPDIR", &home));
        assert_eq!(done.code, 0, "{uid}: {}", done.stderr);
        if to == "rootfs" {
            assert_eq!(sha256(&fs::read(home.join("x")).unwrap()), expected, "{uid}");
        }
        let report: Value = serde_json::from_slice(&fs::read(home.join("r.json")).unwrap()).unwrap();
        let notes = report["notes"].as_array().unwrap().iter();
        let notes: Vec<String> = notes
            .filter(|note| note["code"] == "cache-not-kept")
            .map(|note| note["message"].as_str().unwrap().to_string())
            .collect();
        (fake.log()[before..].iter().filter(|request| request.path.contains("/blobs/")).count(), notes)
    };
    let all = repository.blob_digests().len();
    let nothing = Vec::<String>::new();
    let refused = vec!["no download was kept in the cache: Permission denied (os error 13)".to_string()];
    // Everybody keeps downloads, root those of a user, too.
    fs::create_dir(&cache).unwrap();
    mode(&cache, 0o1777);
    assert_eq!(convert("1000", "rootfs"), (all, nothing.clone()));
    assert_eq!(convert("1001", "rootfs"), (0, nothing.clone()));
    assert_eq!(convert("0", "rootfs"), (0, nothing.clone()));
    for folder in ["blobs", "blobs/sha256", "locks"] {
        assert_eq!(fs::metadata(cache.join(folder)).unwrap().permissions().mode() & 0o7777, 0o1777, "{folder}");
    }
    let big = big_digest(&repository);
    let big_file = cache.join("blobs/sha256").join(big.strip_prefix("sha256:").unwrap());
    fs::remove_file(&big_file).unwrap();
    assert_eq!(convert("1001", "rootfs"), (1, nothing.clone()));
    assert_eq!(convert("1000", "rootfs"), (0, nothing.clone()));
    // A user removes what is theirs, and stumbles over nothing else.
    let prune = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "--"]).arg(place.path("convert"));
        let done = run(command.args(["cache", "prune"]).arg(&cache));
        assert_eq!(done.code, 0, "{}", done.stderr);
        cached(&cache).len()
    };
    assert_eq!(prune("1001"), all - 1);
    assert_eq!(prune("1002"), all - 1);
    // The folders of an earlier version: what is there is read, and what is not is not kept.
    for folder in ["blobs", "blobs/sha256", "locks"] {
        mode(&cache.join(folder), 0o755);
    }
    assert_eq!(convert("1001", "rootfs"), (1, refused.clone()));
    assert_eq!(convert("1001", "sif").1, refused);
    assert_eq!(convert("0", "rootfs"), (1, nothing.clone()));
    assert_eq!(convert("1001", "rootfs"), (0, nothing.clone()), "all was there");
    assert_eq!(prune("0"), 0);
    // Root's alone: others read it. A damaged blob is fetched by each, and in nobody's way.
    fs::remove_dir_all(&cache).unwrap();
    fs::create_dir(&cache).unwrap();
    mode(&cache, 0o755);
    let (asked, notes) = convert("1000", "rootfs");
    assert!(asked == all && notes.len() == 1 && notes[0].contains("Permission denied"), "{asked} {notes:?}");
    assert_eq!(convert("0", "rootfs"), (all, nothing.clone()));
    assert_eq!(convert("1000", "rootfs"), (0, nothing));
    fs::write(&big_file, "damaged").unwrap();
    assert_eq!(convert("1000", "rootfs"), (1, refused));
    assert_eq!(convert("1000", "sif").1.len(), 1);
}

#[test]
fn a_killed_process_leaves_a_cache_that_verifies() {
    let (fake, _) = faulty(|request, answer| {
        let big = request.is_for("/blobs/") && matches!(&answer.body, Body::Whole(bytes) if bytes.len() > 100_000);
        if big && request.earlier == 0 { answer.spoilt(|bytes| Body::Stalled(bytes, 300_000)) } else { answer }
    });
    let place = Place::new();
    let cache = place.path("cache");
    let option = cache.to_str().unwrap();
    let mut child = place.command(&source(&fake), &["--cache", option]).stderr(Stdio::null()).spawn().unwrap();
    // The small blobs are there, the big one has begun.
    while !cache.join("blobs/sha256").exists() || cached(&cache).len() < 3 || fake.log().len() < 5 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(cached(&cache).len(), 3);
    place.makes(&source(&fake), &["--cache", option], &layers());
    assert_eq!(cached(&cache).len(), 4);
}

#[test]
fn wrong_bytes_never_stay_in_the_cache() {
    let (fake, _) = faulty(|request, answer| match request.is_for("/blobs/") {
        true => answer.spoilt(|mut bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            Body::Whole(bytes)
        }),
        false => answer,
    });
    let place = Place::new();
    let cache = place.path("cache");
    place.fails(&source(&fake), &["--cache", cache.to_str().unwrap()], 5, &["digest mismatch"]);
    assert_eq!(cached(&cache), Vec::<String>::new());
}

/// What comes into the cache is hashed on its way, and once more as it is read where others might have written to it since.
/// Whatever is read, the uncompressed layer is compared with its diff_id: damage is told in other words, and told.
#[test]
fn a_blob_that_changes_in_the_cache_is_noticed_by_whichever_hash_is_left() {
    for (mask, hashed_again) in [("000", true), ("002", true), ("022", false), ("077", false)] {
        let place = Place::new();
        let mut blobs: Vec<(usize, String)> =
            Repository::of(&layers()).blobs.into_iter().map(|(digest, bytes)| (bytes.len(), digest)).collect();
        blobs.sort();
        let small = blobs[blobs.len() - 2].1.clone();
        let kept = place.path("cache/blobs/sha256").join(small.strip_prefix("sha256:").unwrap());
        // The large layer is read first; until it comes, the others are fetched ahead.
        let (fake, _) = faulty(move |request, answer| {
            if matches!(&answer.body, Body::Whole(bytes) if bytes.len() > 100_000) && request.is_for("/blobs/") {
                while !kept.exists() {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                let mut bytes = fs::read(&kept).unwrap();
                bytes[600] ^= 1;
                fs::write(&kept, bytes).unwrap();
            }
            answer
        });
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_convert"));
        command.current_dir(place.path("")).env("HOME", place.path("")).env("TMPDIR", place.path("tmp"));
        command.arg(source(&fake)).args(["--to", "rootfs", "-o", "out/x.tar", "--jobs", "1", "--cache", "cache"]);
        let done = run(&mut command);
        assert!(matches!(done.code, 4 | 5), "umask {mask}: {} {}", done.code, done.stderr);
        let said = format!("digest mismatch: expected {small}");
        assert_eq!(done.stderr.contains(&said), hashed_again, "umask {mask}: {}", done.stderr);
        place.is_clean();
    }
}
