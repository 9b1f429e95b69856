//! A source that somebody writes to while it is read: what is written is what was hashed, or there is no output.
//!
//! CHANGES says how often each target is tried, 6 times by default.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::archives::sha256;
use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::run::{count, exit_code, program, run, scratch};

const TARGETS: [&str; 6] = ["sif", "rootfs", "sif-rootfs", "oci", "oci-archive", "docker-archive"];

/// Numbers that nobody chose.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// 24 MB in 30 files, which are read in place.
fn image() -> Vec<u8> {
    let mut noise = Noise(1);
    let mut files = |layer: u32| -> Vec<Entry> {
        let file = |number: u32, noise: &mut Noise| {
            let bytes: Vec<u8> = (0..800_000).map(|_| noise.next() as u8).collect();
            Entry::new(format!("{layer}/{number}"), Kind::File(Content::data(bytes)))
        };
        (0..15).map(|number| file(number, &mut noise)).collect()
    };
    docker_archive(&[layer::tar_of(&files(1)), layer::tar_of(&files(2))], Squeeze::Not)
}

/// All files of an output, by name.
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

#[test]
fn what_is_written_is_what_was_hashed() {
    let place = scratch();
    let (archive, output) = (place.path().join("image.tar"), place.path().join("out"));
    let bytes = image();
    fs::write(&archive, &bytes).unwrap();
    let command = |target: &str| {
        let mut command = program();
        command.current_dir(place.path()).args(["image.tar", "--to", target, "-o", "out", "--jobs", "2"]);
        command
    };
    let remove = || drop(fs::remove_file(&output).or_else(|_| fs::remove_dir_all(&output)));
    let mut noise = Noise(u64::from(std::process::id()));
    for target in TARGETS {
        let started = Instant::now();
        let whole = run(&mut command(target));
        assert_eq!(whole.code, 0, "{target}: {}", whole.stderr);
        let (took, expected) = (started.elapsed(), contents(&output));
        let (mut refused, mut unharmed) = (0, 0);
        for number in 0..count("CHANGES", 6) {
            remove();
            let child = command(target).stderr(Stdio::piped()).spawn().unwrap();
            sleep(took.mul_f64((noise.next() % 1000) as f64 / 1000.0));
            let at = 10_000 + noise.next() % (bytes.len() as u64 - 100_000);
            let writer = File::options().write(true).open(&archive).unwrap();
            writer.write_all_at(&[number as u8; 4096], at).unwrap();
            let ended = child.wait_with_output().unwrap();
            let stderr = String::from_utf8(ended.stderr).unwrap();
            match ended.status.code() {
                Some(0) => {
                    assert_eq!(contents(&output), expected, "{target}: exit 0 and wrong bytes at {at}");
                    unharmed += 1;
                }
                // Told as what it is, or as what it did to digests or headers.
                Some(code @ 3..=5) => {
                    assert!(!output.exists(), "{target}: exit code {code}, and an output");
                    assert!(code != 3 || stderr.contains("changed while it was read"), "{target}: {stderr}");
                    refused += 1;
                }
                code => panic!("{target}: exit code {code:?}: {stderr}"),
            }
            writer.write_all_at(&bytes[at as usize..at as usize + 4096], at).unwrap();
        }
        eprintln!("{target}: {refused} refused, {unharmed} that were not touched by it");
        remove();
    }
}

/// A blob of a layout that is written to likewise, and one that somebody renames.
#[test]
fn a_file_that_changes_is_named() {
    let place = scratch();
    fs::write(place.path().join("image.tar"), image()).unwrap();
    let mut command = program();
    command.current_dir(place.path()).args(["image.tar", "--to", "rootfs", "-o", "out", "--jobs", "1"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    // From the first moment to the last: whichever of them falls between two readers.
    while started.elapsed() < Duration::from_secs(20) && !place.path().join("out").exists() {
        let file = File::options().write(true).open(place.path().join("image.tar")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        sleep(Duration::from_millis(5));
        if fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") Z ")) {
            break;
        }
    }
    let ended = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(exit_code("SourceUnavailable")), "{stderr}");
    for words in ["docker-archive \"image.tar\"", "changed while it was read", "hint: "] {
        assert!(stderr.contains(words), "{words:?} is not in {stderr}");
    }
}
