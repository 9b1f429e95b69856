//! Random ends: kills and signals at any moment, over all targets and kinds of source, disks that are full at any size, and
//! system calls that fail with EIO. There is the whole output or none, and the next run leaves nothing of the one before.
//!
//! KILLS, DISKS and FAULTS say how many are tried.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::archives::sha256;
use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::run::{count, exit_code, host_has, is_root, program, scratch, skip};
use crate::support::small::SmallDisk;

const TARGETS: [&str; 9] =
    ["sif", "rootfs", "sif-rootfs", "squashfs", "oci-archive", "docker-archive", "oci", "dir", "additional-files"];
/// How many of these are images in one file or layout.
const FILES: usize = 7;
const SOURCES: [&str; 7] = ["plain.tar", "gzip.tar", "-", "layout.oci", "image.sif", "image.sqsh", "root"];

struct Noise(u64);

impl Noise {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// A directory with sources of all kinds: 8 MB in 80 files, which compress to a third.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(scratch());
        let mut noise = Noise(7);
        let mut file = |number: u32| {
            let bytes: Vec<u8> = (0..100_000).map(|at| if at % 3 == 0 { noise.next(256) as u8 } else { 0 }).collect();
            Entry::new(format!("file-{number:04}"), Kind::File(Content::data(bytes)))
        };
        let lower: Vec<Entry> = (0..40).map(&mut file).collect();
        let upper: Vec<Entry> = (20..60).map(&mut file).collect();
        let layers = [layer::tar_of(&lower), layer::tar_of(&upper)];
        fs::write(place.path("plain.tar"), docker_archive(&layers, Squeeze::Not)).unwrap();
        fs::write(place.path("gzip.tar"), docker_archive(&layers, Squeeze::Gzip)).unwrap();
        fs::create_dir(place.path("folder")).unwrap();
        for number in 0..40_u8 {
            fs::write(place.path(&format!("folder/{number}")), vec![number; 200_000]).unwrap();
        }
        fs::create_dir(place.path("out")).unwrap();
        fs::create_dir(place.path("tmp")).unwrap();
        for (target, output) in
            [("oci", "layout.oci"), ("sif", "image.sif"), ("squashfs", "image.sqsh"), ("dir", "root")]
        {
            assert!(place.command("gzip.tar", target, output).status().unwrap().success(), "{output}");
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, source: &str, target: &str, output: &str) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("TMPDIR", self.path("tmp"));
        command.args([source, "--to", target, "-o", output, "--jobs", "2", "-q"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if target == "sif" {
            // A file system does not say it, and there is no program inside.
            command.args(["--arch", "amd64"]);
        }
        if source == "-" {
            command.stdin(File::open(self.path("gzip.tar")).unwrap());
        }
        command
    }
}

/// All files of an output, by name, with their SHA-256.
fn contents(path: &Path) -> Vec<(String, String)> {
    if !path.is_dir() {
        return vec![(String::new(), sha256(&fs::read(path).unwrap()))];
    }
    let mut all = Vec::new();
    for each in fs::read_dir(path).unwrap() {
        let each = each.unwrap();
        let name = each.file_name().into_string().unwrap();
        all.extend(contents(&each.path()).into_iter().map(|(below, sum)| (format!("{name}/{below}"), sum)));
    }
    all.sort();
    all
}

fn remove(path: &Path) {
    drop(fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)));
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|each| each.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn ended_at_any_moment_by_any_signal() {
    let place = Place::new();
    let output = place.path("out/x");
    let mut noise = Noise(u64::from(std::process::id()));
    let mut outcomes = [0; 2];
    let pairs: Vec<(&str, &str)> = TARGETS
        .iter()
        .flat_map(|target| match *target {
            "additional-files" => vec![("folder", *target)],
            _ => SOURCES.iter().map(|source| (*source, *target)).collect(),
        })
        .collect();
    let kills = count("KILLS", 60).max(pairs.len());
    for (at, (source, target)) in pairs.iter().enumerate() {
        let run = || place.command(source, target, "out/x");
        let started = Instant::now();
        assert!(run().status().unwrap().success(), "{source} to {target}");
        let (took, expected) = (started.elapsed(), contents(&output));
        remove(&output);
        let share = kills / pairs.len() + usize::from(at < kills % pairs.len());
        for _ in 0..share {
            let signal = [Signal::KILL, Signal::TERM, Signal::INT][noise.next(3) as usize];
            let mut child = run().spawn().unwrap();
            sleep(took.mul_f64(noise.next(1050) as f64 / 1000.0));
            let _ = kill_process(Pid::from_child(&child), signal);
            let status = child.wait().unwrap();
            let when = format!("{source} to {target} after {signal:?}: {status}");
            outcomes[usize::from(output.exists())] += 1;
            if output.exists() {
                assert!(contents(&output) == expected, "{when}: another output");
                remove(&output);
            } else {
                assert!(!status.success(), "{when}: no output");
            }
            assert_eq!(names(&place.path("tmp")), Vec::<String>::new(), "{when}: left in TMPDIR");
            if signal != Signal::KILL {
                assert_eq!(names(&place.path("out")), Vec::<String>::new(), "{when}: left beside the output");
            }
            // What SIGKILL has left goes with the next run.
            if !names(&place.path("out")).is_empty() {
                assert!(run().status().unwrap().success(), "{when}: the next run");
                assert_eq!(names(&place.path("out")), ["x"], "{when}: left after the next run");
                assert!(contents(&output) == expected, "{when}: the next run's output");
                remove(&output);
            }
        }
    }
    eprintln!("{kills} ends: {} without an output, {} with a whole one", outcomes[0], outcomes[1]);
    assert!(outcomes[0] > 0, "the image is too small: all runs had ended before their signal");
}

#[test]
fn a_disk_that_is_full_at_any_size() {
    if !is_root() {
        return skip("only root can mount a tmpfs");
    }
    let place = Place::new();
    let mut noise = Noise(u64::from(std::process::id()) + 1);
    let (mut full, mut enough) = (0, 0);
    for number in 0..count("DISKS", 24) {
        let target = TARGETS[number % FILES];
        let source = SOURCES[(number / FILES) % SOURCES.len()];
        let Some(disk) = SmallDisk::mount(place.path("disk"), 64 + noise.next(12_000)) else {
            return skip("a tmpfs cannot be mounted");
        };
        let mut command = place.command(source, target, "disk/x");
        let status = command.env("TMPDIR", disk.path()).status().unwrap();
        let when = format!("{source} to {target}: {status}");
        if status.success() {
            enough += 1;
            assert!(disk.path().join("x").exists(), "{when}");
        } else {
            full += 1;
            assert_eq!(status.code(), Some(exit_code("NoSpace")), "{when}");
            assert_eq!(names(disk.path()), Vec::<String>::new(), "{when}: left on the disk");
        }
    }
    eprintln!("{full} disks were full, {enough} large enough");
    assert!(full > 0);
}

/// The calls that move bytes, name files or ask about them; and not those that remove what is left.
const CALLS: [&str; 17] = [
    "read",
    "pread64",
    "write",
    "pwrite64",
    "pwritev",
    "copy_file_range",
    "lseek",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "openat",
    "linkat",
    "renameat2",
    "fstat",
    "statx",
    "getdents64",
];

/// The same command below strace, which sees these calls.
fn traced(place: &Place, plain: &Command, options: &[&str]) -> Output {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qqq"]).args(options).arg(plain.get_program()).args(plain.get_args());
    traced.current_dir(place.0.path()).env_clear();
    traced.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced.stdin(File::open(place.path("gzip.tar")).unwrap());
    traced.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap()
}

/// How often a thread makes each call, at most. The lines of a trace begin with the thread and the call.
fn most_by_a_thread(trace: &str) -> Vec<(&'static str, u64)> {
    let made = trace.lines().filter_map(|line| {
        let (thread, rest) = line.split_once(' ')?;
        Some((thread, rest.trim_start().split_once('(')?.0))
    });
    let mut counts = BTreeMap::new();
    made.for_each(|made| *counts.entry(made).or_insert(0) += 1);
    let most = |call| counts.iter().filter(|((_, made), _)| *made == call).map(|(_, &count)| count).max();
    CALLS.iter().filter_map(|&call| Some((call, most(call)?))).collect()
}

/// A disk or network that fails: the n-th call of one kind, in each thread, ends with EIO. strace does that.
#[test]
fn a_call_that_fails_at_any_moment() {
    if !host_has("strace") {
        return skip("strace is missing");
    }
    let place = Place::new();
    let output = place.path("out/x");
    let mut noise = Noise(u64::from(std::process::id()) + 2);
    let (mut failed, mut whole) = (0, 0);
    for _ in 0..count("FAULTS", 34) {
        let target = TARGETS[noise.next(8) as usize];
        let source = SOURCES[noise.next(SOURCES.len() as u64) as usize];
        let plain = place.command(source, target, "out/x");
        let all = format!("trace={}", CALLS.join(","));
        assert!(traced(&place, &plain, &["-o", "trace", "-e", &all]).status.success(), "{source} to {target}");
        let expected = contents(&output);
        remove(&output);
        let calls = most_by_a_thread(&fs::read_to_string(place.path("trace")).unwrap());
        let (call, most) = calls[noise.next(calls.len() as u64) as usize];
        let nth = 1 + noise.next(most);
        let fault = format!("inject={call}:error=EIO:when={nth}");
        let ended = traced(&place, &plain, &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &fault]);
        let said = String::from_utf8(ended.stderr).unwrap();
        let when = format!("{source} to {target}, {call} {nth} of {most}: {} {said}", ended.status);
        if ended.status.success() {
            whole += 1;
            assert!(contents(&output) == expected, "{when}: another output");
        } else {
            failed += 1;
            assert!(!said.contains("panicked"), "{when}");
            // Calls of env and of the loader are among those that fail.
            if let Some(error) = said.lines().find(|line| line.starts_with("error: ")) {
                assert_ne!(error, "error: Input/output error (os error 5)", "{when}: nothing is named");
                assert!(said.lines().any(|line| line.starts_with("hint: ")), "{when}: no hint");
            }
            assert_eq!(names(&place.path("out")), Vec::<String>::new(), "{when}: left beside the output");
        }
        remove(&output);
        assert_eq!(names(&place.path("tmp")), Vec::<String>::new(), "{when}: left in TMPDIR");
    }
    eprintln!("{failed} runs failed, {whole} were whole all the same");
    assert!(failed > 0);
}
