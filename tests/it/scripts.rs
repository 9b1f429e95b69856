//! scripts/convert-all and scripts/slurm-array, as the person in front of hundreds of images calls them.
//!
//! A real Slurm is asked where `sinfo` shows a node that takes jobs; where it is missing that test is skipped with a
//! printed reason, and fails under `ORACLES=require`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::run::skip;

const IMAGES: usize = 30;
const BAD: usize = 7;
const PATIENCE: Duration = Duration::from_secs(120);

/// Thirty images, one of them cut off, in a list; and the program as one that takes its time, so that there is a middle.
struct Batch(tempfile::TempDir);

impl Batch {
    fn new(seconds_each: &str) -> Self {
        let batch = Batch(tempfile::Builder::new().prefix("batch-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let image = fs::read(repository().join("fixtures/archives/hello.tar")).unwrap();
        let mut list = String::from("# thirty images\n\n");
        for number in 1..=IMAGES {
            let name = format!("image {number}.tar");
            let end = if number == BAD { image.len() / 2 } else { image.len() };
            fs::write(batch.path(&name), &image[..end]).unwrap();
            list += batch.path(&name).to_str().unwrap();
            list += "\n";
        }
        fs::write(batch.path("list"), list).unwrap();
        let slow = format!("#!/bin/sh\nsleep {seconds_each}\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_convert"));
        fs::write(batch.path("slow-convert"), slow).unwrap();
        fs::set_permissions(batch.path("slow-convert"), fs::Permissions::from_mode(0o755)).unwrap();
        batch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, script: &str, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=INT,TERM"]).arg(repository().join("scripts").join(script)).args(words);
        command.current_dir(self.0.path()).env("CONVERT", self.path("slow-convert")).stdin(Stdio::null());
        command
    }

    fn convert_all(&self, words: &[&str]) -> Command {
        let mut all = vec!["--list", "list", "--out", "out", "--parallel", "3"];
        all.extend(words);
        self.command("convert-all", &all)
    }

    /// Outputs that were finished with, and not only written when the batch was stopped; and which file each of them is.
    fn outputs(&self) -> Vec<(String, i64, u64)> {
        let Ok(directory) = fs::read_dir(self.path("out")) else { return Vec::new() };
        let mut outputs: Vec<_> = directory
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "sif"))
            .filter(|entry| entry.path().with_extension("made-with").exists())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap()))
            .map(|(name, data)| (name, data.mtime_nsec(), data.ino()))
            .collect();
        outputs.sort();
        outputs
    }

    fn assert_all_there_but_the_bad_one(&self) {
        let outputs = self.outputs();
        assert_eq!(outputs.len(), IMAGES - 1, "{outputs:?}");
        let mut verify = Command::new(env!("CARGO_BIN_EXE_convert"));
        assert!(verify.arg("verify").arg(self.path("out/image_30.sif")).output().unwrap().status.success());
        for number in 1..=IMAGES {
            let report = fs::read(self.path(&format!("out/image_{number}.report.json"))).unwrap();
            let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
            assert_eq!(report["status"], if number == BAD { "error" } else { "ok" }, "{report}");
        }
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).expect("UTF-8")
}

#[test]
fn a_batch_is_stopped_and_resumed_and_one_bad_image_stops_no_other() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let batch = Batch::new("0.1");
        let child = batch.convert_all(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while batch.outputs().len() < 5 {
            assert!(began.elapsed() < PATIENCE, "nothing is converted");
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let stopped = child.wait_with_output().unwrap();
        assert_eq!(stopped.status.code(), Some(code), "{}", text(&stopped));
        let before = batch.outputs();
        assert!(before.len() < IMAGES - 1, "it was stopped too late to tell");
        let hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
        assert_eq!(fs::read_dir(batch.path("out")).unwrap().filter(|e| hidden(e.as_ref().unwrap())).count(), 0);

        let resumed = batch.convert_all(&[]).output().unwrap();
        let said = text(&resumed);
        assert_eq!(resumed.status.code(), Some(1), "{said}");
        batch.assert_all_there_but_the_bad_one();
        let after = batch.outputs();
        assert!(before.iter().all(|output| after.contains(output)), "an output was made twice");
        assert_eq!(said.matches("kept ").count(), before.len(), "{said}");
        let table = fs::read_to_string(batch.path("out/summary.tsv")).unwrap();
        assert_eq!(table.lines().count(), 1 + IMAGES);
        let bad = table.lines().find(|line| line.starts_with("error")).unwrap();
        assert!(bad.contains("\t4\t") && bad.contains("truncated"), "{bad}");
    }
}

#[test]
fn what_changed_is_made_again() {
    let batch = Batch::new("0");
    let sources = ["image 1.tar", "image 2.tar"];
    let run = |more: &[&str]| {
        let words: Vec<&str> = ["--out", "out"].iter().chain(&sources).chain(more).copied().collect();
        let output = batch.command("convert-all", &words).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        (said.matches("done ").count(), said.matches("kept ").count())
    };
    assert_eq!(run(&[]), (2, 0));
    assert_eq!(run(&[]), (0, 2));
    assert_eq!(run(&["--", "--label", "a=b"]), (2, 0), "other options");
    assert_eq!(run(&["--", "--label", "a=b"]), (0, 2));
    // A byte in the middle of an output, its size and time as they were.
    let path = batch.path("out/image_1.sif");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(run(&["--", "--label", "a=b"]), (1, 1), "a damaged output");
    fs::copy(repository().join("fixtures/archives/hello.tar"), batch.path("image 2.tar")).unwrap();
    assert_eq!(run(&["--", "--label", "a=b"]), (1, 1), "a source that was written anew");
}

#[test]
fn wrong_use_is_said_and_nothing_is_done() {
    let batch = Batch::new("0");
    let cases: [(&str, &[&str]); 7] = [
        ("convert-all", &[]),
        ("convert-all", &["--to", "zip", "x.tar"]),
        ("convert-all", &["--parallel", "0", "x.tar"]),
        ("convert-all", &["--only", "3", "x.tar"]),
        ("convert-all", &["--no-such-option", "x.tar"]),
        ("convert-all", &["-"]),
        ("slurm-array", &["list"]),
    ];
    for (script, words) in cases {
        let output = batch.command(script, words).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(2), "{script} {words:?}: {said}");
        assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
    }
    assert_eq!(batch.outputs(), []);
}

#[test]
fn a_batch_is_an_array_job_of_slurm() {
    let node = Command::new("sinfo").args(["--noheader", "--states=idle,mixed,allocated"]).output();
    if !node.is_ok_and(|output| output.status.success() && !output.stdout.is_empty()) {
        return skip("no Slurm node takes jobs: install slurmctld and slurmd, and start them");
    }
    let batch = Batch::new("0");
    let output = batch.command("slurm-array", &["--at-once", "6", "--wait", "list", "out"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    batch.assert_all_there_but_the_bad_one();
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), IMAGES - 1, "{said}");
}
