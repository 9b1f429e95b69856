//! What a conversion of a gzip OCI layout cannot be faster than, and how fast it is: each piece of work alone on one
//! core, added and divided by the cores, beside the conversion itself, in one run. Pieces and conversions take turns,
//! `ROUNDS` times (default 5), for machines are not equally fast all the time.
//!
//! `cargo bench --bench bound -- LAYOUT [DIRECTORY]`: an OCI layout with gzip layers, and where output goes (default: beside
//! the layout; a tmpfs with room for twice the image keeps the disk out of it). A third word, `HOST/NAME:TAG`, names the same
//! image in a registry that speaks plain HTTP: then it is converted from there, and downloading is one more piece.

#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use ring::digest::{Context, SHA256};

const CHUNK_BYTES: usize = 256 << 10;

fn seconds<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
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

/// Downloads the layer as a blob of `HOST/NAME:TAG`.
fn download(reference: &str, layer: &Path) -> u64 {
    let (host, name) = reference.split_once('/').unwrap();
    let name = name.split_once(':').unwrap().0;
    let digest = layer.file_name().unwrap().to_str().unwrap();
    let url = format!("http://{host}/v2/{name}/blobs/sha256:{digest}");
    drain(ureq::get(url).call().unwrap().body_mut().as_reader(), |_| {})
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(layout) = arguments.first().map(PathBuf::from) else {
        println!("bound: give an OCI layout with gzip layers: cargo bench --bench bound -- LAYOUT [DIRECTORY]");
        return;
    };
    let rounds: usize = std::env::var("ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let directory = arguments.get(1).map_or_else(|| layout.parent().unwrap().to_path_buf(), PathBuf::from);
    let registry = arguments.get(2);
    let place = tempfile::tempdir_in(&directory).unwrap();
    let layers = layers(&layout);
    let plain = place.path().join("plain");
    let mut unpacked = File::create(&plain).unwrap();
    let mut bytes = 0;
    // Warms the pages that the copy below writes to, too.
    layers.iter().for_each(|layer| bytes += drain(inflate(layer), |chunk| unpacked.write_all(chunk).unwrap()));

    let hash = |path: &Path| {
        let mut hasher = Context::new(&SHA256);
        drain(File::open(path).unwrap(), |chunk| hasher.update(chunk));
        std::hint::black_box(hasher.finish());
    };
    let copy = place.path().join("copy");
    let output = place.path().join("out.tar");
    let convert = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_convert"));
        match registry {
            Some(name) => command.arg(format!("docker://{name}")).args(["--insecure", name.split_once('/').unwrap().0]),
            None => command.arg(format!("oci:{}", layout.display())),
        };
        command.args(["--to", "rootfs", "-q", "-o"]).arg(&output);
        assert!(command.status().unwrap().success());
    };
    // Pages that the copy and the conversions write to are warm then.
    std::fs::copy(&plain, &copy).unwrap();
    std::fs::remove_file(&copy).unwrap();
    let mut taken: [Vec<f64>; 6] = Default::default();
    for _ in 0..rounds {
        taken[0].push(seconds(|| layers.iter().map(|layer| drain(inflate(layer), |_| {})).sum::<u64>()));
        taken[1].push(seconds(|| layers.iter().for_each(|layer| hash(layer))));
        taken[2].push(seconds(|| hash(&plain)));
        taken[3].push(seconds(|| std::fs::copy(&plain, &copy).unwrap()));
        std::fs::remove_file(&copy).unwrap();
        taken[4].push(
            registry.map_or(0.0, |name| seconds(|| layers.iter().map(|layer| download(name, layer)).sum::<u64>())),
        );
        taken[5].push(seconds(convert));
        std::fs::remove_file(&output).unwrap();
    }

    let cores = std::thread::available_parallelism().unwrap().get() as f64;
    println!("{} layers, {bytes} bytes uncompressed, {cores} cores, medians of {rounds} rounds", layers.len());
    let [inflating, stored, plain, copying, downloading, converting] = taken.map(median);
    let bound = (inflating + stored + plain + copying + downloading) / cores;
    println!("inflate {inflating:.2} s, SHA-256 stored {stored:.2} s, plain {plain:.2} s, copy {copying:.2} s");
    if registry.is_some() {
        println!("download {downloading:.2} s");
    }
    println!("bound {bound:.2} s, convert {converting:.2} s, ratio {:.2}", converting / bound);
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
