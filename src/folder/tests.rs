use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::error::Error;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn date(path: &Path, seconds: u64) {
    File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::new(seconds, 999)).unwrap();
}

fn open(folder: &Path) -> Result<Folder> {
    Folder::open(folder, &Monitor::default())
}

fn packed(folder: &Path, latest: Option<i64>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    open(folder)?.write(&mut out, latest, &Monitor::default())?;
    Ok(out)
}

/// Type, mode, name, link, seconds of each member, as the `tar` crate reads them.
fn listed(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let line = |entry: tar::Entry<'_, &[u8]>| {
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let link = entry.link_name_bytes().map(|link| format!(" {}", String::from_utf8(link.to_vec()).unwrap()));
        let kind = header.entry_type().as_byte() as char;
        format!("{kind} {:o} {} {name}{}", header.mode().unwrap(), header.mtime().unwrap(), link.unwrap_or_default())
    };
    archive.entries().unwrap().map(|entry| line(entry.unwrap())).collect()
}

#[test]
fn names_are_sorted_and_say_what_they_are() {
    let folder = folder();
    let root = folder.path();
    put(root, "b/z", "one");
    put(root, "b.x", "two");
    put(root, "a", "three");
    fs::create_dir(root.join("empty")).unwrap();
    fs::hard_link(root.join("b/z"), root.join("c")).unwrap();
    symlink("../a", root.join("b/link")).unwrap();
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(root.join("b"), fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(root.join("b.x"), fs::Permissions::from_mode(0o600)).unwrap();
    for (name, seconds) in [("a", 10), ("b/z", 20), ("b.x", 30), ("empty", 40), ("b", 50)] {
        date(&root.join(name), seconds);
    }
    let list = listed(&packed(root, Some(35)).unwrap());
    assert_eq!(
        list,
        [
            "5 755 35 ./",
            "0 755 10 ./a",
            "5 755 35 ./b",
            "2 777 35 ./b/link ../a",
            "0 644 20 ./b/z",
            "0 644 30 ./b.x",
            "1 644 20 ./c ./b/z",
            "5 755 35 ./empty",
        ]
        .map(|line| if line.starts_with('5') && !line.ends_with("./") {
            format!("{line}/")
        } else {
            line.to_string()
        })
    );
    let notes = open(root).unwrap().notes().to_vec();
    assert_eq!(notes.iter().map(|note| (note.code, note.count)).collect::<Vec<_>>(), [("special-bits-dropped", 1)]);
}

#[test]
fn directories_have_the_time_of_what_is_in_them() {
    let folder = folder();
    let root = folder.path();
    put(root, "a/b/old", "x");
    put(root, "a/new", "x");
    date(&root.join("a/b/old"), 100);
    date(&root.join("a/new"), 200);
    let list = listed(&packed(root, None).unwrap());
    assert_eq!(
        list,
        ["5 755 200 ./", "5 755 200 ./a/", "5 755 100 ./a/b/", "0 644 100 ./a/b/old", "0 644 200 ./a/new"]
    );
}

#[test]
fn what_macos_leaves_is_left_out_and_counted() {
    let folder = folder();
    let root = folder.path();
    for name in
        [".DS_Store", "a/.DS_Store", "a/._w", "__MACOSX/a/._w", "a/.AppleDouble/w", "a/w", "._keep/me", ".hidden"]
    {
        put(root, name, "x");
    }
    let list = listed(&packed(root, Some(0)).unwrap());
    let names: Vec<&str> = list.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(names, ["./", "./._keep/", "./._keep/me", "./.hidden", "./a/", "./a/w"]);
    let notes = open(root).unwrap().notes().to_vec();
    assert_eq!((notes[0].code, notes[0].count), ("macos-leftovers-dropped", 5));
}

#[test]
fn all_that_would_not_survive_is_named_at_once() {
    let folder = folder();
    let root = folder.path();
    put(root, "d/w", "x");
    fs::create_dir(root.join("d/e")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("s")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("d/p"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    for (name, target) in [
        ("absolute", "/etc/passwd"),
        ("above", "d/../../x"),
        ("d/words", "in/../../../x"),
        ("through", "up/../x"),
        ("chain", "above"),
        ("d/fine", "../d/w"),
        ("d/e/up", "../.."),
        ("up", "d/e/up"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
    let error: Error = open(root).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let said = error.to_string();
    for named in [
        "socket \"s\"",
        "named pipe \"d/p\"",
        "link \"absolute\" to \"/etc/passwd\"",
        "link \"above\" to \"d/../../x\"",
        "link \"d/words\"",
        "link \"through\"",
        "link \"chain\"",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
    assert!(!said.contains("fine") && !said.contains("\"up\""), "{said}");
    for number in 0..20 {
        symlink("/", root.join(format!("x{number}"))).unwrap();
    }
    assert!(open(root).map(drop).unwrap_err().to_string().ends_with("and 17 more"));
}

#[test]
fn links_to_nothing_are_kept_and_told() {
    let folder = folder();
    symlink("later", folder.path().join("a")).unwrap();
    symlink("b", folder.path().join("b")).unwrap();
    assert!(listed(&packed(folder.path(), Some(0)).unwrap()).contains(&"2 777 0 ./a later".to_string()));
    let notes = open(folder.path()).unwrap().notes().to_vec();
    assert_eq!((notes[0].code, notes[0].count), ("dangling-links", 2));
}

#[test]
fn what_changes_while_it_is_packed_is_an_error() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 7] = [
        ("grown", |root| put(root, "d/a", "longer than before")),
        ("cut", |root| put(root, "d/a", "")),
        ("rewritten", |root| put(root, "d/a", "xyz")),
        ("gone", |root| fs::remove_file(root.join("d/a")).unwrap()),
        ("new", |root| put(root, "d/b", "x")),
        ("exchanged for a link", |root| {
            fs::remove_file(root.join("d/a")).unwrap();
            symlink("/etc/passwd", root.join("d/a")).unwrap();
        }),
        ("exchanged for a pipe", |root| {
            fs::remove_file(root.join("d/a")).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, root.join("d/a"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let folder = folder();
        put(folder.path(), "d/a", "abc");
        let looked_at = open(folder.path()).unwrap();
        // Some file systems keep times to some milliseconds only.
        std::thread::sleep(Duration::from_millis(20));
        change(folder.path());
        let error = looked_at.write(&mut std::io::sink(), None, &Monitor::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceUnavailable, "{what}");
        assert!(error.to_string().contains("it was changed while"), "{what}: {error}");
    }
}

#[test]
fn names_of_any_length_and_kind_are_carried() {
    let folder = folder();
    let long = format!("{0}/{0}/{0}", "n".repeat(200));
    put(folder.path(), &long, "deep");
    put(folder.path(), "new\nline", "x");
    let archive = packed(folder.path(), None).unwrap();
    assert!(listed(&archive).iter().any(|line| line.ends_with(&long)));
    assert!(listed(&archive).iter().any(|line| line.ends_with("./new\nline")));
}

#[test]
fn a_stop_is_heeded() {
    let folder = folder();
    File::create(folder.path().join("a")).unwrap().write_all(&[0; 1 << 20]).unwrap();
    let monitor = Monitor::default();
    monitor.stop(ErrorKind::Terminated);
    assert_eq!(Folder::open(folder.path(), &monitor).map(drop).unwrap_err().kind(), ErrorKind::Terminated);
}

#[test]
fn files_beside_and_inside_are_told_apart() {
    let folder = folder();
    fs::create_dir_all(folder.path().join("in/deep")).unwrap();
    symlink("in/deep", folder.path().join("link")).unwrap();
    let inside = |path: &str| is_inside(&folder.path().join("in"), &folder.path().join(path)).unwrap();
    assert!(inside("in/x") && inside("in/deep/x") && inside("link/x"));
    assert!(!inside("x") && !inside("in") && !inside("nowhere/x"));
}
