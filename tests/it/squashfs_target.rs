//! `--to squashfs`: the trees of all cases, which `oracles.rs` compares with umoci, as our reader, the kernel and unsquashfs
//! see them.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sif_convert::io::Region;

use crate::support::case::{self, Expected};
use crate::support::layer;
use crate::support::listing::Listing;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::run::{self, is_root, program, skip};
use crate::support::{disk, squashfs};

/// One row a way to write it.
const WAYS: [&[&str]; 3] = [&[], &["--compression", "zstd"], &["--compression", "gzip:1", "--block-size", "4096"]];

fn convert(archive: &Path, output: &Path, way: &[&str]) {
    let run = run::run(program().arg(archive).args(["--to", "squashfs"]).args(way).arg("-o").arg(output));
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// What our reader, and the kernel where it may be asked, make of `file`.
fn check(file: &Path, expected: &Listing) -> Result<(), String> {
    let region = Region::whole(Arc::new(File::open(file).unwrap())).unwrap();
    squashfs::same(expected, &squashfs::list(region)?)?;
    if !is_root() {
        return Ok(());
    }
    let at = file.with_extension("mounted");
    fs::create_dir(&at).unwrap();
    let mounted = run::run(Command::new("mount").args(["-t", "squashfs", "-o", "ro,loop"]).arg(file).arg(&at));
    if mounted.code != 0 {
        skip(&format!("this kernel does not mount it: {}", mounted.stderr));
        return Ok(());
    }
    let found = disk::list(&at);
    run::run(Command::new("umount").arg("--lazy").arg(&at));
    squashfs::same(expected, &found)
}

#[test]
fn the_tree_of_every_case_is_what_is_written() {
    let scratch = run::scratch();
    let mut failures = String::new();
    let mut count = 0;
    for case in case::all() {
        let Expected::Tree(tree) = &case.expected else { continue };
        let archive = scratch.path().join(format!("{count}.tar"));
        let layers: Vec<Vec<u8>> = case.layers.iter().map(layer::tar).collect();
        fs::write(&archive, docker_archive(&layers, Squeeze::Not)).unwrap();
        let output = scratch.path().join(format!("{count}.squashfs"));
        convert(&archive, &output, WAYS[count % WAYS.len()]);
        let mut expected = Listing::from_tree(tree);
        squashfs::storable_times(&mut expected);
        if let Err(failure) = check(&output, &expected) {
            failures.push_str(&format!("== {}.case\n{failure}\n", case.name));
        }
        count += 1;
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(count > 20, "{count} cases");
}

#[test]
fn unsquashfs_reads_it_and_the_same_bytes_come_again() {
    let scratch = run::scratch();
    let hello = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar"));
    for (number, way) in WAYS.iter().enumerate() {
        let [one, other] = [1, 2].map(|jobs| {
            let output = scratch.path().join(format!("{number}-{jobs}.squashfs"));
            convert(hello, &output, &[way, &["-j", &jobs.to_string()][..]].concat());
            output
        });
        assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap(), "{way:?}");
        // It has a version to show, and calls that a failure.
        if Command::new("unsquashfs").arg("-version").output().is_err() {
            skip("unsquashfs is not installed");
            continue;
        }
        let listed = run::run(Command::new("unsquashfs").arg("-ls").arg(&one));
        assert!(listed.code == 0 && listed.stdout.windows(9).any(|part| part == b"bin/hello"), "{}", listed.stderr);
    }
}
