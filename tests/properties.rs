//! Random images: the program and the reference make the same tree of them, or both refuse.
//!
//! `PROPTEST_CASES` says how many (default 64). A failure is shown as the text of a case, as small as could be found.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[allow(dead_code, unreachable_pub, reason = "every test file uses its part of the support modules")]
mod support {
    pub mod case;
    pub mod entry;
    pub mod layer;
    pub mod listing;
    pub mod pack;
    pub mod random;
    pub mod reference;
    pub mod run;
}

use std::fs;

use proptest::test_runner::{Config, TestCaseError, TestRunner};

use support::listing::Times;
use support::pack::{Squeeze, docker_archive};
use support::random::{self, Image, Wanted};
use support::run::{convert_to_stdout, scratch};
use support::{layer, listing, reference};

fn check(image: &Image, squeeze: Squeeze) -> Result<(), TestCaseError> {
    let scratch = scratch();
    let archive = scratch.path().join("image.tar");
    let layers: Vec<Vec<u8>> = image.0.iter().map(layer::tar).collect();
    fs::write(&archive, docker_archive(&layers, squeeze)).unwrap();
    let run = convert_to_stdout(&archive, "rootfs", &[]);
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
    let cases = std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().unwrap());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let result = TestRunner::new(config).run(&random::image(wanted), |image| {
        let entries = image.0.iter().map(|layer| layer.items.len()).sum();
        check(&image, squeeze(entries))
    });
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

/// Most of these break a rule. Whether one does, both must say.
#[test]
fn images_are_refused_when_the_reference_refuses_them() {
    every_image(Wanted::Any, |_| Squeeze::Not);
}
