//! Layers become one tree: every case of `fixtures/cases`, through the program, as `rootfs` and as `sif-rootfs`.

use std::fs;

use crate::support::case::{self, Case, Expected};
use crate::support::entry::Entry;
use crate::support::listing::{self, Listing, Times};
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::run::{self, convert_to_stdout, exit_code};
use crate::support::{layer, reference, singularity};

/// Runs `check` on every case and reports all that fail.
fn every_case(check: impl Fn(&Case) -> Result<(), String>) {
    let mut failures = String::new();
    let cases = case::all();
    for case in &cases {
        if let Err(failure) = check(case) {
            failures.push_str(&format!("== {}.case\n{failure}\n", case.name));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    eprintln!("{} cases", cases.len());
}

/// The reference is what random images are compared with: it must know every rule.
#[test]
fn reference_agrees_with_every_case() {
    every_case(|case| {
        if case.skips("reference").is_some() {
            return Ok(());
        }
        match (&case.expected, reference::merge(&case.layers)) {
            (Expected::Tree(tree), Ok(found)) => same(&Listing::from_tree(tree), &found, Times::Exact),
            (Expected::Tree(_), Err(error)) => Err(format!("refused: {error}")),
            (Expected::Error { .. }, Ok(_)) => Err("not refused".into()),
            (Expected::Error { .. }, Err(_)) => Ok(()),
        }
    });
}

#[test]
fn rootfs_of_every_case() {
    every_case(|case| convert(case, "rootfs", &[], |expected, found| same(expected, &found, Times::Exact)));
}

/// What Singularity expects inside is added; nothing else may change.
#[test]
fn sif_rootfs_of_every_case() {
    every_case(|case| {
        convert(case, "sif-rootfs", &["--keep-devices", "--xattrs", "all"], |expected, mut found| {
            let mut expected = expected.clone();
            singularity::subtract(&mut expected, &mut found)?;
            same(&expected, &found, Times::Exact)
        })
    });
}

fn same(expected: &Listing, found: &Listing, times: Times) -> Result<(), String> {
    let differences = expected.differences(found, times);
    if differences.is_empty() { Ok(()) } else { Err(differences) }
}

fn convert(
    case: &Case,
    format: &str,
    arguments: &[&str],
    check: impl Fn(&Listing, Listing) -> Result<(), String>,
) -> Result<(), String> {
    let scratch = run::scratch();
    let archive = scratch.path().join("image.tar");
    let report = scratch.path().join("report.json");
    let layers: Vec<Vec<u8>> = case.layers.iter().map(layer::tar).collect();
    fs::write(&archive, docker_archive(&layers, Squeeze::Not)).unwrap();
    let arguments = [arguments, &["--report", report.to_str().unwrap()]].concat();
    let run = convert_to_stdout(&archive, format, &arguments);
    match &case.expected {
        Expected::Tree(tree) => {
            if run.code != 0 {
                return Err(format!("exit code {}: {}", run.code, run.stderr));
            }
            notes(case, &fs::read_to_string(report).unwrap())?;
            check(&Listing::from_tree(tree), listing::from_tar(&run.stdout)?)
        }
        Expected::Error { kind, parts } => {
            if run.code != exit_code(kind) {
                return Err(format!("exit code {} and not that of {kind}: {}", run.code, run.stderr));
            }
            let first = run.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
            let missing: Vec<_> = parts.iter().filter(|part| !first.contains(part.as_str())).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} is not in {first:?}")) }
        }
    }
}

fn notes(case: &Case, report: &str) -> Result<(), String> {
    for code in &case.notes {
        let code = format!("{code:?}");
        if !report.contains(&code) {
            return Err(format!("no note {code} in the report: {report}"));
        }
    }
    Ok(())
}

/// A case's text says what its entry is: writing an entry out and reading it again changes nothing.
#[test]
fn descriptions_are_read_back() {
    let entries: Vec<Entry> = case::all()
        .iter()
        .flat_map(|case| case.layers.clone())
        .flat_map(|layer| layer.entries().cloned().collect::<Vec<_>>())
        .collect();
    for entry in entries {
        let text = format!("-- layer 0\n{}\n-- tree\n", case::describe(&entry));
        let again = case::parse("again", &text).layers[0].entries().next().unwrap().clone();
        assert_eq!(again, entry, "{text}");
    }
}
