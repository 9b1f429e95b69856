//! Random images: the program and the reference make the same tree of them, or both refuse.
//!
//! `PROPTEST_CASES` says how many (default 64). A failure is shown as the text of a case, as small as could be found.

use std::fs;
use std::path::Path;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::support::case::Item;
use crate::support::entry::{Entry, Kind, Piece};
use crate::support::listing::Times;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::{self, Image, Wanted};
use crate::support::run::{Run, convert_to_stdout, program, run, scratch};
use crate::support::{layer, listing, reference};

fn check(image: &Image, squeeze: Squeeze) -> Result<(), TestCaseError> {
    check_run(image, squeeze, |archive| convert_to_stdout(archive, "rootfs", &[]))
}

/// `convert` gives what the program wrote as its standard output.
fn check_run(image: &Image, squeeze: Squeeze, convert: impl FnOnce(&Path) -> Run) -> Result<(), TestCaseError> {
    let scratch = scratch();
    let archive = scratch.path().join("image.tar");
    let layers: Vec<Vec<u8>> = image.0.iter().map(layer::tar).collect();
    fs::write(&archive, docker_archive(&layers, squeeze)).unwrap();
    let run = convert(&archive);
    let fail = |text: String| Err(TestCaseError::fail(text));
    match (reference::merge(&image.0), run.code) {
        (Ok(expected), 0) => {
            let found = listing::from_tar(&run.stdout).map_err(TestCaseError::fail)?;
            let differences = expected.differences(&found, Times::Exact);
            if differences.is_empty() { Ok(()) } else { fail(differences) }
        }
        (Ok(_), code) => fail(format!("exit code {code}: {}", run.stderr)),
        (Err(_), 4) => Ok(()),
        (Err(error), code) => fail(format!("exit code {code}, and the reference refuses: {error}\n{}", run.stderr)),
    }
}

fn every_image(wanted: Wanted, squeeze: impl Fn(usize) -> Squeeze) {
    every(wanted, |image| {
        let entries = image.0.iter().map(|layer| layer.items.len()).sum();
        check(image, squeeze(entries))
    });
}

fn every(wanted: Wanted, check: impl Fn(&Image) -> Result<(), TestCaseError>) {
    let cases = std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let result = TestRunner::new(config).run(&random::image(wanted), |image| check(&image));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn valid_images_become_the_tree_of_the_reference() {
    every_image(Wanted::Valid, |_| Squeeze::Not);
}

#[test]
fn compressed_layers_become_the_tree_of_the_reference() {
    every_image(Wanted::Valid, |entries| if entries % 2 == 0 { Squeeze::Gzip } else { Squeeze::Zstd });
}

/// Into a file, with two threads, one layer is decoded last, and its larger files straight to where they are foreseen to
/// belong.
#[test]
fn contents_decoded_to_their_place_become_the_tree_of_the_reference() {
    every(Wanted::Valid, |image| {
        let mut image = image.clone();
        for layer in &mut image.0 {
            let mut entries: Vec<Entry> = layer.entries().cloned().map(swollen).collect();
            if !entries.len().is_multiple_of(3) {
                entries.sort_by(|one, other| one.path.cmp(&other.path));
            }
            layer.items = entries.into_iter().map(Item::Entry).collect();
        }
        check_run(&image, Squeeze::Gzip, |archive| {
            let output = archive.with_file_name("out.tar");
            let mut run = run(program().arg(archive).args(["--to", "rootfs", "--jobs", "2", "-o"]).arg(&output));
            run.stdout = fs::read(output).unwrap_or_default();
            run
        })
    });
}

/// The entry with contents that are worth a place of their own.
fn swollen(mut entry: Entry) -> Entry {
    if let Kind::File(content) = &mut entry.kind
        && let [Piece::Data(bytes)] = &mut content.0[..]
    {
        *bytes = bytes.iter().copied().cycle().take(16_000 + 100 * bytes.len()).collect();
    }
    entry
}

/// Most of these break a rule. Whether one does, both must say.
#[test]
fn images_are_refused_when_the_reference_refuses_them() {
    every_image(Wanted::Any, |_| Squeeze::Not);
}
