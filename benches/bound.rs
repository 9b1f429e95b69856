//! What a conversion of a gzip OCI layout cannot be faster than, and how fast it is: each piece of work alone on one
//! core, added and divided by the cores, beside the conversion itself, in one run.
//!
//! `cargo bench --bench bound -- LAYOUT [DIRECTORY]`: an OCI layout with gzip layers, and where output goes (default: beside
//! the layout; a tmpfs with room for twice the image keeps the disk out of it).

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sha2::{Digest, Sha256};

const CHUNK_BYTES: usize = 256 << 10;

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// The stored layers: every gzip blob of the layout.
fn layers(layout: &Path) -> Vec<PathBuf> {
    let blobs = std::fs::read_dir(layout.join("blobs/sha256")).unwrap();
    let is_gzip = |path: &PathBuf| {
        let mut start = [0; 2];
        File::open(path).unwrap().read(&mut start).unwrap() == 2 && start == [0x1f, 0x8b]
    };
    blobs.map(|entry| entry.unwrap().path()).filter(is_gzip).collect()
}

fn drain(mut reader: impl Read, mut each: impl FnMut(&[u8])) -> u64 {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => return total,
            count => {
                each(&buffer[..count]);
                total += count as u64;
            }
        }
    }
}

fn inflate(layer: &Path) -> impl Read {
    let file = std::io::BufReader::with_capacity(CHUNK_BYTES, File::open(layer).unwrap());
    flate2::bufread::MultiGzDecoder::new(file)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(layout) = arguments.first().map(PathBuf::from) else {
        println!("bound: give an OCI layout with gzip layers: cargo bench --bench bound -- LAYOUT [DIRECTORY]");
        return;
    };
    let directory = arguments.get(1).map_or_else(|| layout.parent().unwrap().to_path_buf(), PathBuf::from);
    let place = tempfile::tempdir_in(&directory).unwrap();
    let layers = layers(&layout);
    let plain = place.path().join("plain");
    let mut unpacked = File::create(&plain).unwrap();
    let mut bytes = 0;
    // Warms the pages that the copy below writes to, too.
    layers.iter().for_each(|layer| bytes += drain(inflate(layer), |chunk| unpacked.write_all(chunk).unwrap()));

    let inflating = seconds(|| {
        layers.iter().for_each(|layer| {
            drain(inflate(layer), |_| {});
        })
    });
    let hash = |path: &Path| {
        let mut hasher = Sha256::new();
        drain(File::open(path).unwrap(), |chunk| hasher.update(chunk));
        std::hint::black_box(hasher.finalize());
    };
    let hashing_stored = seconds(|| layers.iter().for_each(|layer| hash(layer)));
    let hashing_plain = seconds(|| hash(&plain));
    let copy = place.path().join("copy");
    std::fs::copy(&plain, &copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let copying = seconds(|| {
        std::fs::copy(&plain, &copy).unwrap();
    });
    std::fs::remove_file(&copy).unwrap();
    std::fs::remove_file(&plain).unwrap();

    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    let bound = (inflating + hashing_stored + hashing_plain + copying) / cores;
    let output = place.path().join("out.tar");
    let convert = || {
        let _ = std::fs::remove_file(&output);
        let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
        command.arg(format!("oci:{}", layout.display())).args(["--to", "rootfs", "-q", "-o"]).arg(&output);
        seconds(|| assert!(command.status().unwrap().success()))
    };
    let mut runs: Vec<f64> = (0..3).map(|_| convert()).collect();
    runs.sort_by(f64::total_cmp);

    println!("{} layers, {bytes} bytes uncompressed, {cores} cores", layers.len());
    println!(
        "inflate {inflating:.2} s, SHA-256 stored {hashing_stored:.2} s, plain {hashing_plain:.2} s, copy {copying:.2} s"
    );
    println!("bound {bound:.2} s, convert {:.2} s (median of 3), ratio {:.2}", runs[1], runs[1] / bound);
}
