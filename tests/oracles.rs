//! Other people's programs must agree with the reference, and with what we write.
//!
//! Where a program is missing its test is skipped with a printed reason; under `ORACLES=require` that is a failure.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

#[allow(dead_code, unreachable_pub, reason = "every test file uses its part of the support modules")]
mod support {
    pub mod case;
    pub mod disk;
    pub mod entry;
    pub mod layer;
    pub mod listing;
    pub mod pack;
    pub mod random;
    pub mod reference;
    pub mod run;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use support::case::{self, Expected, Layer};
use support::entry::When;
use support::listing::{Listing, Times, What};
use support::random::{self, Wanted};
use support::{disk, layer, pack, reference, run};

/// One image for umoci: how to name it in a report, and what the reference makes of it.
struct Asked {
    name: String,
    text: String,
    layers: Vec<Layer>,
    expected: Result<Listing, String>,
}

/// The tree that umoci makes of every case is the case's tree.
#[test]
fn umoci_agrees_with_every_case() {
    let mut asked = Vec::new();
    for case in case::all() {
        if let Some(reason) = case.skips("umoci") {
            eprintln!("{}: umoci is not asked: {reason}", case.name);
            continue;
        }
        let expected = match &case.expected {
            Expected::Tree(entries) => Ok(Listing::from_tree(entries)),
            Expected::Error { parts, .. } => Err(parts.join(" ")),
        };
        asked.push(Asked { name: case.name, text: String::new(), layers: case.layers, expected });
    }
    ask_umoci(asked);
}

/// The reference and umoci make the same tree of random images. `RANDOM_IMAGES` says how many.
#[test]
fn umoci_agrees_with_the_reference_on_random_images() {
    let count = std::env::var("RANDOM_IMAGES").map_or(40, |count| count.parse().unwrap());
    let asked = random::images(Wanted::ForUmoci, count).into_iter().enumerate().map(|(number, image)| Asked {
        name: format!("random-{number}"),
        text: format!("{image:?}\n"),
        expected: reference::merge(&image.0),
        layers: image.0,
    });
    ask_umoci(asked.collect());
}

fn ask_umoci(asked: Vec<Asked>) {
    let Some(oracles) = run::oracles() else { return };
    let scratch = run::scratch();
    for image in &asked {
        let layers: Vec<Vec<u8>> = image.layers.iter().map(layer::tar).collect();
        pack::oci_layout(&scratch.path().join(&image.name).join("oci"), &layers);
    }
    // One process for all: entering the oracles' root costs more than unpacking.
    let script = "umask 022; for image in */; do
        umoci raw unpack --image ${image}oci:latest ${image}tree >${image}log 2>&1; echo $? >${image}code; done";
    let started = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64 - 1;
    let status = oracles.run(scratch.path()).args(["sh", "-c", script]).status().unwrap();
    assert!(status.success(), "the oracles' root cannot be entered");
    let mut disagreements = String::new();
    for image in &asked {
        let report = disagreement(&scratch.path().join(&image.name), image, started);
        if !report.is_empty() {
            disagreements.push_str(&format!("== {}\n{}{report}", image.name, image.text));
        }
    }
    assert!(disagreements.is_empty(), "{disagreements}");
    eprintln!("umoci agrees on {} images", asked.len());
}

fn disagreement(directory: &Path, image: &Asked, started: i64) -> String {
    let code = fs::read_to_string(directory.join("code")).unwrap();
    let log = || fs::read_to_string(directory.join("log")).unwrap();
    let expected = match (&image.expected, code.trim()) {
        (Ok(expected), "0") => expected,
        (Ok(_), _) => return format!("umoci failed: {}", log()),
        (Err(wrong), "0") => return format!("umoci took what the reference refuses: {wrong}\n"),
        (Err(_), _) => return String::new(),
    };
    let mut found = disk::list(&directory.join("tree"));
    let mut expected = expected.clone();
    forget_clock_times(&mut expected, &mut found, started);
    expected.differences(&found, Times::MadeIsAny)
}

/// umoci gives a directory the time of the clock where entries came or went two levels below it, and gives the root that
/// no layer speaks of the epoch. Neither is a rule: such times are not compared.
fn forget_clock_times(expected: &mut Listing, found: &mut Listing, started: i64) {
    let inodes: BTreeMap<_, _> = found.names.clone();
    for (path, id) in inodes {
        let node = &found.nodes[id];
        let clock = matches!(node.time, When::At(time) if time.seconds >= started);
        if node.what == What::Dir
            && clock
            && let Some(&id) = expected.names.get(&path)
        {
            expected.nodes[id].time = When::Made;
        }
    }
}
