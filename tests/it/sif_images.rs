//! The kernel mounts the partitions of our SIF files and shows the trees that are meant.
//!
//! The trees are those of the cases and of the reference, which `oracles.rs` compares with umoci. `RANDOM_IMAGES` says how
//! many random images are made. Needs root; without it the tests are skipped with a printed reason, and fail under
//! `ORACLES=require`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::case::{self, Expected, Layer};
use crate::support::entry::{MADE, When};
use crate::support::listing::{Listing, What, parts};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::{self, Wanted};
use crate::support::run::{self, is_root, program, skip};
use crate::support::{disk, layer, reference, singularity, squashfs};

/// A file system that is there while this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// The partition of a SIF, at `at`, read-only.
    fn new(sif: &Path, at: PathBuf) -> Result<Self, String> {
        let partition = squashfs::partition(&squashfs::open(sif)?);
        fs::create_dir(&at).unwrap();
        let options = format!("ro,loop,offset={},sizelimit={}", partition.offset, partition.len);
        let run = run::run(Command::new("mount").args(["-t", "squashfs", "-o", &options]).arg(sif).arg(&at));
        if run.code == 0 { Ok(Mounted(at)) } else { Err(format!("mount: {}", run.stderr)) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: another process may have been started, with a copy of the mounts, in the meantime.
        let run = run::run(Command::new("umount").arg("--lazy").arg(&self.0));
        if run.code != 0 {
            eprintln!("umount: {}", run.stderr);
        }
    }
}

/// Whether the kernel can be asked.
fn kernel_mounts() -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match () {
        () if !is_root() => skip("mounting needs root"),
        () if !known.contains("squashfs") && run::run(Command::new("modprobe").arg("squashfs")).code != 0 => {
            skip("this kernel has no squashfs");
        }
        () => return true,
    }
    false
}

/// What the kernel makes of an image that is converted, against what is meant.
fn check(layers: &[Layer], expected: &Listing, arguments: &[&str]) -> Result<(), String> {
    let scratch = run::scratch();
    let (archive, sif) = (scratch.path().join("image.tar"), scratch.path().join("image.sif"));
    let layers: Vec<Vec<u8>> = layers.iter().map(layer::tar).collect();
    fs::write(&archive, docker_archive(&layers, Squeeze::Not)).unwrap();
    let mut convert = program();
    convert.arg(&archive).args(["--to", "sif", "--keep-devices", "--xattrs", "all"]).args(arguments);
    let run = run::run(convert.arg("-o").arg(&sif));
    if run.code != 0 {
        return Err(format!("exit code {}: {}", run.code, run.stderr));
    }
    let mounted = Mounted::new(&sif, scratch.path().join("mounted"))?;
    let (mut expected, mut found) = (expected.clone(), disk::list(&mounted.0));
    squashfs::storable_times(&mut expected);
    singularity::subtract(&mut expected, &mut found)?;
    squashfs::same(&expected, &found)
}

/// How the partition may be compressed and cut into blocks.
const WAYS: [&[&str]; 3] = [&[], &["--compression", "zstd"], &["--compression", "gzip:1", "--block-size", "4096"]];

#[test]
fn kernel_shows_the_tree_of_every_case() {
    if !kernel_mounts() {
        return;
    }
    let mut failures = String::new();
    let mut count = 0;
    for case in case::all() {
        let Expected::Tree(tree) = &case.expected else { continue };
        if let Err(failure) = check(&case.layers, &Listing::from_tree(tree), WAYS[count % WAYS.len()]) {
            failures.push_str(&format!("== {}.case\n{failure}\n", case.name));
        }
        count += 1;
    }
    assert!(failures.is_empty(), "\n{failures}");
    eprintln!("the kernel agrees on {count} cases");
}

#[test]
fn kernel_shows_the_trees_of_random_images() {
    if !kernel_mounts() {
        return;
    }
    let count = std::env::var("RANDOM_IMAGES").map_or(20, |count| count.parse().unwrap());
    let mut failures = String::new();
    for (number, image) in random::images(Wanted::Valid, count).into_iter().enumerate() {
        let expected = reference::merge(&image.0).unwrap();
        if let Err(failure) = check(&image.0, &expected, WAYS[number % WAYS.len()]) {
            failures.push_str(&format!("== random-{number}{image:?}\n{failure}\n"));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    eprintln!("the kernel agrees on {count} random images");
}

/// For an image of any size, by hand: `REAL_SIF` is our SIF of it and `REAL_TREE` the directory where root unpacked it with
/// umoci. Device nodes and extended attributes, which our SIF does not hold, are passed over.
#[test]
#[ignore = "needs REAL_SIF and REAL_TREE"]
fn kernel_shows_the_tree_that_umoci_unpacks() {
    let [sif, tree] = ["REAL_SIF", "REAL_TREE"].map(|name| PathBuf::from(std::env::var_os(name).expect(name)));
    let scratch = run::scratch();
    let mounted = Mounted::new(&sif, scratch.path().join("mounted")).unwrap();
    let (mut expected, mut found) = (disk::list(&tree), disk::list(&mounted.0));
    squashfs::storable_times(&mut expected);
    let nodes = &mut expected.nodes;
    nodes.iter_mut().for_each(|node| node.xattrs.clear());
    expected.names.retain(|_, &mut id| !matches!(nodes[id].what, What::Char(..) | What::Block(..)));
    // What is added bears the image's creation time, and this image is not of these tests.
    let made = found.node(&parts(b".singularity.d")).unwrap().time;
    for node in expected.nodes.iter_mut().chain(&mut found.nodes).filter(|node| node.time == made) {
        node.time = When::At(MADE);
    }
    singularity::subtract(&mut expected, &mut found).unwrap();
    eprintln!("{} names", expected.names.len());
    squashfs::same(&expected, &found).unwrap_or_else(|differences| panic!("\n{differences}"));
}
