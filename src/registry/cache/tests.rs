use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::io::UNFINISHED_SUFFIX;
use crate::io::folder::TAG;

fn fetch(cache: &Cache, bytes: &[u8]) -> bool {
    let claim = cache.claim(Digest::of(bytes), Some(bytes.len() as u64), &Monitor::default()).unwrap();
    let Claim::Mine(mut writer) = claim else { return false };
    let (start, end) = bytes.split_at(bytes.len() / 2);
    writer.write(start).unwrap();
    writer.write(end).unwrap();
    writer.finish(Some(bytes.len() as u64)).unwrap();
    true
}

fn names(folder: &Folder) -> Vec<String> {
    folder.files().unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_blob_is_fetched_once_and_again_when_it_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    assert!(fetch(&cache, b"hello") && !fetch(&cache, b"hello"));
    for damage in [&b"hellp"[..], b"hell", b""] {
        fs::write(cache.blobs.path(&Digest::of(b"hello").hex()), damage).unwrap();
        assert!(fetch(&cache, b"hello"), "{damage:?}");
    }
    assert_eq!(names(&cache.locks), [""; 0], "locks are left");
}

#[test]
fn wrong_bytes_get_no_name() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let claim = cache.claim(Digest::of(b"right"), None, &Monitor::default()).unwrap();
    let Claim::Mine(mut writer) = claim else { panic!() };
    writer.write(b"wrong").unwrap();
    assert_eq!(writer.finish(None).unwrap_err().kind(), ErrorKind::Mismatch);
    assert_eq!(names(&cache.blobs), [""; 0]);
}

#[test]
fn names_are_hidden_where_files_need_them() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let digest = Digest::of(b"x");
    let writer = || Writer::of(&cache.blobs, digest, cache.blobs.hidden_scratch("x", 0o666).unwrap(), None);
    let first = writer();
    let hidden = names(&cache.blobs);
    assert!(hidden[0].ends_with(UNFINISHED_SUFFIX), "{hidden:?}");
    drop(first);
    assert_eq!(names(&cache.blobs), [""; 0]);
    let mut second = writer();
    second.write(b"x").unwrap();
    second.finish(None).unwrap();
    assert_eq!(fs::read(cache.blobs.path(&digest.hex())).unwrap(), b"x");
    assert_eq!(names(&cache.blobs), [digest.hex()]);
}

#[test]
fn one_fetches_and_the_others_wait() {
    let directory = tempfile::tempdir().unwrap();
    let fetched = std::thread::scope(|scope| {
        let race = |_| scope.spawn(|| fetch(&Cache::open(directory.path()).unwrap(), &vec![7; 100_000]));
        let all: Vec<_> = (0..8).map(race).collect();
        all.into_iter().map(|each| each.join().unwrap()).filter(|&fetched| fetched).count()
    });
    assert_eq!(fetched, 1);
}

/// Who looks while another one gives the blob its name must not take that away.
#[test]
fn a_blob_is_not_lost_to_those_who_look_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    for round in 0..300_u32 {
        let bytes = round.to_le_bytes();
        let digest = Digest::of(&bytes);
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                        cache.find(digest, None, &Monitor::default()).unwrap();
                    }
                });
            }
            assert!(fetch(&cache, &bytes));
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(cache.blobs.has(&digest.hex()), "round {round}");
    }
}

#[test]
fn pruning_takes_what_is_ours_and_old() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert_eq!(prune(path, None).unwrap_err().kind(), ErrorKind::Usage);
    let cache = Cache::open(path).unwrap();
    assert!(fetch(&cache, b"one") && fetch(&cache, b"three"));
    fs::write(cache.blobs.path("mine.txt"), "not ours").unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(prune(path, Some(day)).unwrap(), Pruned { blobs: 0, bytes: 0, kept: 2 });
    let old = File::options().write(true).open(cache.blobs.path(&Digest::of(b"one").hex())).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(prune(path, Some(day)).unwrap(), Pruned { blobs: 1, bytes: 3, kept: 1 });
    assert_eq!(prune(path, None).unwrap(), Pruned { blobs: 1, bytes: 5, kept: 0 });
    assert!(cache.blobs.path("mine.txt").exists());
    let foreign = tempfile::tempdir().unwrap();
    fs::create_dir_all(foreign.path().join("blobs/sha256")).unwrap();
    assert!(prune(foreign.path(), None).is_err());
}

/// Somebody who may write to the cache plants links, pipes and directories: nothing outside of it is read, written, made or
/// removed, nothing hangs, and the blob is fetched all the same.
#[test]
fn what_is_planted_leads_nowhere() {
    let place = tempfile::tempdir().unwrap();
    let (root, outside) = (place.path().join("cache"), place.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let hex = Digest::of(b"hello").hex();
    // The very bytes, but elsewhere.
    fs::write(outside.join(&hex), "hello").unwrap();
    let before = fs::metadata(outside.join(&hex)).unwrap().modified().unwrap();
    let plants: [&dyn Fn(&Path); 4] = [
        &|at| symlink(outside.join(&hex), at).unwrap(),
        &|at| symlink(outside.join("made"), at).unwrap(),
        &|at| mknodat(CWD, at, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        &|at| fs::create_dir(at).unwrap(),
    ];
    for plant in plants {
        let cache = Cache::open(&root).unwrap();
        plant(&cache.blobs.path(&hex));
        plant(&cache.locks.path(&hex));
        assert!(fetch(&cache, b"hello"));
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        plant(&root.join(TAG.0));
        assert!(fetch(&Cache::open(&root).unwrap(), b"hello"));
        assert_eq!(prune(&root, None).unwrap_err().kind(), ErrorKind::Usage);
        fs::remove_dir_all(&root).unwrap();
    }
    for name in ["blobs", "locks", "blobs/sha256"] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        symlink(&outside, root.join(name)).unwrap();
        fs::write(root.join(TAG.0), TAG.1).unwrap();
        assert_eq!(Cache::open(&root).unwrap_err().kind(), ErrorKind::Output, "{name}");
        assert_eq!(prune(&root, None).unwrap_err().kind(), ErrorKind::Output, "{name}");
        fs::remove_dir_all(&root).unwrap();
    }
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((left, fs::read(outside.join(&hex)).unwrap()), (vec![hex.clone().into()], b"hello".to_vec()));
    assert_eq!(fs::metadata(outside.join(&hex)).unwrap().modified().unwrap(), before);
}

/// Needs root, who can give files away.
#[test]
fn directories_of_strangers_are_not_used() {
    let directory = tempfile::tempdir().unwrap();
    Cache::open(directory.path()).unwrap();
    let locks = directory.path().join("locks");
    if std::os::unix::fs::chown(&locks, Some(65_533), None).is_err() {
        return;
    }
    let error = Cache::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("belongs to user 65533"), "{error}");
    // Who shares a cache owns all of it.
    std::os::unix::fs::chown(directory.path(), Some(65_533), None).unwrap();
    assert!(Cache::open(directory.path()).is_ok());
}
