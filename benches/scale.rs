//! Whether time and memory grow with the number of entries and no faster: images of 250 000, 500 000 and 1 000 000 entries in
//! 127 layers, converted to a rootfs one after the other. It fails when an entry of the largest image costs much more than
//! one of the smallest.
//!
//! `cargo bench --bench scale -- [DIRECTORY]`: where the archives go (default: the temporary directory), with 3 GiB free.
//! `BIN` names another program than the one just built. Needs `/usr/bin/time`.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

/// As many layers as Docker's storage drivers take.
const LAYERS: usize = 127;
const ENTRIES: [usize; 3] = [250_000, 500_000, 1_000_000];
const FILES_IN_A_DIRECTORY: usize = 50;
/// How much more an entry of the largest image may cost than one of the smallest: room for caches that no longer hold all.
const GROWTH_MAX: f64 = 1.5;

/// Writes tar headers whose names fit into them.
struct Layer(Vec<u8>);

impl Layer {
    fn add(&mut self, kind: tar::EntryType, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(1_700_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn file_name(layer: usize, number: usize) -> String {
    format!("opt/layer-{layer:03}/directory-{:05}/file-{number:07}", number / FILES_IN_A_DIRECTORY)
}

/// A layer of exactly `entries` entries: mostly files of its own in directories of its own; one in sixteen replaces, and one
/// in sixty-four removes, a file of the layer below.
fn layer(index: usize, entries: usize) -> Vec<u8> {
    let mut layer = Layer(Vec::with_capacity(entries * 1100));
    let mut files = 0;
    let mut directory_of = usize::MAX;
    for number in 0..entries {
        let below = index.checked_sub(1).map(|below| file_name(below, files));
        if let Some(below) = below.as_ref().filter(|_| number % 64 == 63) {
            let (directory, name) = below.rsplit_once('/').unwrap();
            layer.add(tar::EntryType::Regular, &format!("{directory}/.wh.{name}"), b"");
        } else if let Some(below) = below.as_ref().filter(|_| number % 16 == 7) {
            layer.add(tar::EntryType::Regular, below, b"replaced\n");
        } else if directory_of != files / FILES_IN_A_DIRECTORY {
            directory_of = files / FILES_IN_A_DIRECTORY;
            let name = file_name(index, files);
            layer.add(tar::EntryType::Directory, name.rsplit_once('/').unwrap().0, b"");
        } else {
            let name = file_name(index, files);
            layer.add(tar::EntryType::Regular, &name, name.as_bytes());
            files += 1;
        }
    }
    layer.finish()
}

fn member(archive: &mut impl Write, name: &str, content: &[u8]) {
    let mut outer = Layer(Vec::new());
    outer.add(tar::EntryType::Regular, name, content);
    archive.write_all(&outer.0).unwrap();
}

/// Writes a docker-archive with `entries` entries.
fn write_archive(path: &Path, entries: usize) {
    let mut archive = BufWriter::new(File::create(path).unwrap());
    let (mut diff_ids, mut names) = (Vec::new(), Vec::new());
    for index in 0..LAYERS {
        let share = entries / LAYERS + usize::from(index < entries % LAYERS);
        let bytes = layer(index, share);
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        names.push(format!("{digest}/layer.tar"));
        diff_ids.push(format!("sha256:{digest}"));
        member(&mut archive, &names[index], &bytes);
    }
    let config = json!({ "architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20Z", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    member(&mut archive, "config.json", config.to_string().as_bytes());
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["scale:1"], "Layers": names }]);
    member(&mut archive, "manifest.json", manifest.to_string().as_bytes());
    archive.write_all(&[0; 1024]).unwrap();
    archive.flush().unwrap();
}

/// Wall seconds, seconds of CPU, and peak memory in bytes.
struct Cost {
    wall: f64,
    cpu: f64,
    memory: f64,
}

fn convert(program: &Path, archive: &Path, entries: usize, directory: &Path) -> Cost {
    let (output, times, report) = (directory.join("out.tar"), directory.join("times"), directory.join("report.json"));
    let mut command = Command::new("/usr/bin/time");
    command.args(["-f", "%e %U %S %M", "-o"]).arg(&times).arg(program).arg(archive);
    command.args(["--to", "rootfs", "-q", "--force", "--report"]).arg(&report).arg("-o").arg(&output);
    assert!(command.status().unwrap().success());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let written = report["output"]["entries"].as_u64().unwrap() as usize;
    // One in 64 removes one and one in 16 replaces one: what is left is known to a few in a hundred.
    assert!(written * 100 > entries * 85 && written < entries, "{written} names of {entries} entries");
    let times = std::fs::read_to_string(times).unwrap();
    let figures: Vec<f64> = times.split_whitespace().map(|figure| figure.parse().unwrap()).collect();
    Cost { wall: figures[0], cpu: figures[1] + figures[2], memory: figures[3] * 1024.0 }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let base = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let program = std::env::var_os("BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_convert")), PathBuf::from);
    let place = tempfile::tempdir_in(&base).unwrap();
    println!("{LAYERS} layers, best of 3 runs, in {}", base.display());
    println!("  entries     wall      CPU     memory   CPU/entry  memory/entry");
    let mut each = Vec::new();
    for entries in ENTRIES {
        let archive = place.path().join("image.tar");
        write_archive(&archive, entries);
        let runs = [(); 3].map(|()| convert(&program, &archive, entries, place.path()));
        let best = runs.into_iter().min_by(|a, b| a.cpu.total_cmp(&b.cpu)).unwrap();
        let (time, memory) = (best.cpu / entries as f64, best.memory / entries as f64);
        println!(
            "{entries:9} {:6.2} s {:6.2} s {:6.1} MiB {:8.2} us {memory:10.0} B",
            best.wall,
            best.cpu,
            best.memory / f64::from(1 << 20),
            time * 1e6,
        );
        each.push((time, memory));
    }
    let (first, last) = (each[0], each[each.len() - 1]);
    println!(
        "an entry of the largest costs {:.2} x the time and {:.2} x the memory",
        last.0 / first.0,
        last.1 / first.1
    );
    assert!(last.0 < first.0 * GROWTH_MAX, "time grows faster than the number of entries");
    assert!(last.1 < first.1 * GROWTH_MAX, "memory grows faster than the number of entries");
}
