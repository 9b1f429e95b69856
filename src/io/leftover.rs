//! Unfinished outputs with names of their own, and what becomes of those whose writer is gone.
//!
//! The name says who writes: a fingerprint of the running kernel and its process numbers, the process, and when it began.
//! No lock is needed, and none would tell: network file systems keep them badly or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use xxhash_rust::xxh3::xxh3_64;

use super::scratch::Base;

/// What the name of an unfinished output ends in, where the file system cannot hold one without a name.
pub(crate) const UNFINISHED_SUFFIX: &str = ".unfinished";
/// How long another machine's unfinished output is left alone after the last byte was written to it, in seconds: a week.
const ABANDONED_SECONDS: i64 = 7 * 24 * 3600;
/// Bytes of the output's name that are kept: room for the rest within the 255 of a name.
const NAME_BYTES: usize = 180;

/// A process that writes an output, as it can be told from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Writer {
    /// Tells kernels since their start, and process namespaces; 0 where that is not known.
    machine: u64,
    pid: u32,
    /// Ticks of the kernel's clock when the process began; 0 where that is not known.
    began: u64,
}

impl Writer {
    fn this_process() -> Self {
        let pid = std::process::id();
        Writer { machine: machine(), pid, began: began(pid).unwrap_or(0) }
    }

    /// What stands in a name between that of the output and [`UNFINISHED_SUFFIX`], without the number after it.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('-');
        let machine = words.next().filter(|word| word.len() == 16)?;
        let writer = Writer {
            machine: u64::from_str_radix(machine, 16).ok()?,
            pid: words.next()?.parse().ok()?,
            began: words.next()?.parse().ok()?,
        };
        let _number: u32 = words.next()?.parse().ok()?;
        words.next().is_none().then_some(writer)
    }

    /// Whether it certainly writes no more. Nobody can tell of another machine.
    fn is_gone(self, machine: u64) -> bool {
        if self.machine == 0 || self.machine != machine {
            return false;
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        // Asked first: /proc may hide other people's processes.
        if test_kill_process(pid) == Err(Errno::SRCH) {
            return true;
        }
        self.began != 0 && began(self.pid).is_some_and(|began| began != self.began)
    }
}

/// A fingerprint of this kernel since its start and of the namespace of process numbers; 0 where /proc does not say.
fn machine() -> u64 {
    let boot = fs::read("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => xxh3_64(&[boot.as_slice(), namespace.as_os_str().as_bytes()].concat()).max(1),
        _ => 0,
    }
}

/// When a process began, in ticks since the kernel did (proc_pid_stat(5), field 22).
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let rest = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
    std::str::from_utf8(rest).ok()?.split_whitespace().nth(19)?.parse().ok()
}

/// A name beside `path` that no other process and no other output of this one uses.
pub(super) fn unfinished_name(path: &Path) -> PathBuf {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let Writer { machine, pid, began } = Writer::this_process();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let own = path.file_name().unwrap_or_default().as_bytes();
    let mut name = OsString::from(".");
    name.push(OsStr::from_bytes(&own[..own.len().min(NAME_BYTES)]));
    name.push(format!(".{machine:016x}-{pid}-{began}-{number}{UNFINISHED_SUFFIX}"));
    super::output::directory_of(path).join(name)
}

/// Removes what unfinished files are left in `directory`, as the next output in it would.
#[cfg(feature = "network")]
pub(crate) fn sweep_directory(directory: &Path) {
    // Where nothing can be made, nothing was left.
    if let Ok(fresh) = tempfile::tempfile_in(directory) {
        sweep(&Base::default(), directory, &fresh);
    }
}

/// Removes what unfinished outputs are left in `directory`, a path from `base`, by writers that are gone, and by other machines
/// long ago. `fresh` is a file that was made there just now: its time is the file system's own, whatever clocks say here.
pub(super) fn sweep(base: &Base, directory: &Path, fresh: &File) {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(opened) = openat(base, directory, flags, Mode::empty()) else { return };
    let Ok(names) = Dir::read_from(&opened) else { return };
    let machine = machine();
    let now = fresh.metadata().map(|data| data.mtime()).ok();
    for each in names.flatten() {
        let name = OsStr::from_bytes(each.file_name().to_bytes());
        let Some(writer) = writer_of(name) else { continue };
        // No symbolic link is followed.
        let Ok(data) = statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let abandoned = writer.machine != machine && now.is_some_and(|now| now - data.st_mtime > ABANDONED_SECONDS);
        if !(writer.is_gone(machine) || abandoned) {
            continue;
        }
        // Two may sweep at once, and not everything may be removed by everyone.
        match FileType::from_raw_mode(data.st_mode) {
            FileType::RegularFile => drop(unlinkat(&opened, name, AtFlags::empty())),
            // None is ever made in a directory that is held open.
            FileType::Directory if base.0.is_none() => drop(fs::remove_dir_all(directory.join(name))),
            _ => {}
        }
    }
}

fn writer_of(name: &OsStr) -> Option<Writer> {
    let name = name.as_bytes().strip_prefix(b".")?.strip_suffix(UNFINISHED_SUFFIX.as_bytes())?;
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    Writer::parse(std::str::from_utf8(&name[dot + 1..]).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::folder::Folder;
    use std::time::{Duration, SystemTime};

    fn ended() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        pid
    }

    #[test]
    fn names_say_who_writes() {
        let long = format!("/some/{}", "x".repeat(255));
        for path in ["x.sif", "/a/b.c/x", &long] {
            let name = unfinished_name(Path::new(path));
            assert!(name.file_name().unwrap().len() <= 255);
            assert_eq!(writer_of(name.file_name().unwrap()), Some(Writer::this_process()), "{path}");
        }
        for other in [".x.unfinished", ".x.12-3.unfinished", "x.sif", ".unfinished", ".x.tar.1-2-3-4.unfinished"] {
            assert_eq!(writer_of(OsStr::new(other)), None, "{other}");
        }
        let one = unfinished_name(Path::new("x"));
        assert_ne!(one, unfinished_name(Path::new("x")));
    }

    #[test]
    fn only_what_nobody_writes_any_more_is_swept() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let make = |writer: Writer, number: u32| {
            let Writer { machine, pid, began } = writer;
            let path = place(&format!(".x.sif.{machine:016x}-{pid}-{began}-{number}{UNFINISHED_SUFFIX}"));
            fs::write(&path, "part").unwrap();
            path
        };
        let me = Writer::this_process();
        let gone = [make(Writer { pid: ended(), ..me }, 1), make(Writer { began: me.began + 1, ..me }, 2)];
        let old = make(Writer { machine: me.machine ^ 1, ..me }, 3);
        let week_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::options().write(true).open(&old).unwrap().set_modified(week_ago).unwrap();
        let mine = make(me, 4);
        File::options().write(true).open(&mine).unwrap().set_modified(week_ago).unwrap();
        let kept = [
            mine,
            make(Writer { machine: me.machine ^ 1, pid: ended(), ..me }, 5),
            make(Writer { machine: 0, pid: ended(), ..me }, 6),
            place(".other.unfinished"),
            place("x.sif"),
        ];
        kept.iter().for_each(|path| drop(File::options().append(true).create(true).open(path).unwrap()));
        let hidden = |writer: Writer, number: u32| {
            let path = make(writer, number);
            fs::remove_file(&path).unwrap();
            fs::create_dir_all(path.join("blobs/sha256")).unwrap();
            fs::write(path.join("blobs/sha256/0"), "part").unwrap();
            path
        };
        let gone = [gone.to_vec(), vec![hidden(Writer { pid: ended(), ..me }, 7)]].concat();
        let kept = [kept.to_vec(), vec![hidden(me, 8)]].concat();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("precious"), "").unwrap();
        let link = make(Writer { pid: ended(), ..me }, 9);
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(outside.path(), &link).unwrap();
        sweep(&Base::default(), directory.path(), &tempfile::tempfile_in(directory.path()).unwrap());
        assert!(outside.path().join("precious").exists());
        assert!(gone.iter().chain([&old]).all(|path| !path.exists()), "{gone:?} {old:?}");
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    }

    #[test]
    fn a_directory_that_is_held_open_is_swept_too() {
        let directory = tempfile::tempdir().unwrap();
        let Writer { machine, pid, began } = Writer { pid: ended(), ..Writer::this_process() };
        let name = |number| format!(".blob.{machine:016x}-{pid}-{began}-{number}{UNFINISHED_SUFFIX}");
        fs::write(directory.path().join(name(1)), "part").unwrap();
        // Somebody else's: no directory is made there.
        fs::create_dir(directory.path().join(name(2))).unwrap();
        let made = Folder::open(directory.path()).unwrap().hidden_scratch("blob", 0o600).unwrap();
        let names = || fs::read_dir(directory.path()).unwrap().map(|each| each.unwrap().file_name());
        assert!(names().all(|found| found != OsStr::new(&name(1))));
        assert_eq!(names().count(), 2);
        drop(made);
        assert_eq!(names().collect::<Vec<_>>(), [OsStr::new(&name(2))]);
    }
}
