//! scripts/slurm-array, as the person in front of a cluster calls it.
//!
//! A real Slurm is asked where `sinfo` shows a node that takes jobs; where it is missing that test is skipped with a
//! printed reason, and fails under `ORACLES=require`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::run::skip;

const IMAGES: usize = 30;
const BAD: usize = 7;

/// Thirty images, one of them cut off, in a list.
struct Batch(tempfile::TempDir);

impl Batch {
    fn new() -> Self {
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
        batch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn slurm_array(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/env");
        command.args(["--default-signal=INT,TERM"]).arg(repository().join("scripts/slurm-array")).args(words);
        command.current_dir(self.0.path()).env("CONVERT", env!("CARGO_BIN_EXE_sif-convert")).stdin(Stdio::null());
        command
    }

    fn assert_all_there_but_the_bad_one(&self) {
        for number in 1..=IMAGES {
            let report = fs::read(self.path(&format!("out/reports/image_{number}.sif.json"))).unwrap();
            let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
            assert_eq!(report["status"], if number == BAD { "failed" } else { "done" }, "{report}");
            assert_eq!(self.path(&format!("out/image_{number}.sif")).exists(), number != BAD);
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
fn wrong_use_is_said_and_nothing_is_done() {
    let batch = Batch::new();
    let output = batch.slurm_array(&["list"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("error: ") && said.contains("hint: "), "{said}");
    assert!(!batch.path("out").exists());
}

/// Submits by running each task at once, as a Slurm does whose arrays have eleven tasks at most.
const SBATCH: &str = r#"#!/bin/bash
set -eu
echo "$*" >>sbatch.log
for ((at = 1; at <= $#; at++)); do
    next=$((at + 1))
    case ${!at} in
        --array) array=${!next%\%*} ;;
        --wrap) wrapped=${!next} ;;
    esac
done
[[ -n ${array:-} ]] || exit 0
((${array#*-} < 12))
for ((task = ${array%-*}; task <= ${array#*-}; task++)); do
    SLURM_ARRAY_TASK_ID=$task sh -c "$wrapped" >>tasks.log 2>&1 || true
done
echo "1$(wc -l <sbatch.log);cluster"
"#;

#[test]
fn what_exceeds_the_size_of_an_array_becomes_several() {
    let batch = Batch::new();
    fs::create_dir(batch.path("bin")).unwrap();
    for (name, script) in [("sbatch", SBATCH), ("scontrol", "#!/bin/sh\necho 'MaxArraySize            = 12'\n")] {
        let path = batch.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", batch.path("bin").display());
    let mut command = batch.slurm_array(&["--wait", "list", "out", "--time", "5", "--", "--label", "a=b c"]);
    let output = command.env("PATH", path).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    batch.assert_all_there_but_the_bad_one();
    let log = fs::read_to_string(batch.path("sbatch.log")).unwrap();
    let arrays: Vec<&str> = log.lines().filter(|line| line.contains("--array")).collect();
    let sizes: Vec<&str> =
        arrays.iter().map(|line| line.split("--array ").nth(1).unwrap().split(' ').next().unwrap()).collect();
    assert_eq!(sizes, ["1-11%4", "1-11%4", "1-8%4"]);
    assert!(arrays.iter().all(|line| line.contains("--time 5")));
    assert!(!arrays[0].contains("--dependency") && arrays[1].contains("--dependency afterany:1"), "{log}");
    assert_eq!(said.lines().filter(|line| line.starts_with("done\t")).count(), IMAGES - 1, "{said}");
}

#[test]
fn a_batch_is_an_array_job_of_slurm() {
    let node = Command::new("sinfo").args(["--noheader", "--states=idle,mixed,allocated"]).output();
    if !node.is_ok_and(|output| output.status.success() && !output.stdout.is_empty()) {
        return skip("no Slurm node takes jobs: install slurmctld and slurmd, and start them");
    }
    let batch = Batch::new();
    let output = batch.slurm_array(&["--at-once", "6", "--wait", "list", "out"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    batch.assert_all_there_but_the_bad_one();
    assert_eq!(said.lines().filter(|line| line.starts_with("done\t")).count(), IMAGES - 1, "{said}");
}
