//! A batch as users of the library call it.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{Batch, Entry, Names, Status, Wanted, Watch, expand, name};
use crate::conversion::Conversion;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Monitor;
use crate::output::{Sif, Target};
use crate::source::Spec;

const ARCHIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");

fn make(source: &OsStr, output: &Path) -> Result<Conversion> {
    Ok(Conversion::new(Spec::parse(source)?, Sif::new(), output))
}

/// The same image so many times.
fn entries(count: usize) -> Vec<Entry> {
    let named = |number| Wanted { name: Some(format!("{number}.sif")), ..Wanted::from(ARCHIVE) };
    let wanted: Vec<Wanted> = (1..=count).map(named).collect();
    let monitor = Monitor::default();
    let (items, _) = expand(&wanted, &make, &monitor).unwrap();
    name(items, Names::Plain, &Target::from(Sif::new()), &make, &monitor).unwrap()
}

struct Panics;

impl Watch for Panics {
    fn begun(&self, entry: &Entry, _: &Monitor) {
        assert!(entry.number != 1, "as it should");
    }
}

#[test]
fn nobody_waits_for_an_observer_that_panicked() {
    let (place, entries) = (tempfile::tempdir().unwrap(), entries(3));
    let mut batch = Batch::new(&entries, place.path(), "sif", &make);
    batch.parallel = NonZeroUsize::new(2).unwrap();
    catch_unwind(AssertUnwindSafe(|| batch.run(&Panics, &Monitor::default()))).unwrap_err();
    assert_eq!(batch.run(&(), &Monitor::default()).unwrap().rows.len(), 3);
}

#[test]
fn images_are_chosen_by_their_numbers() {
    let (place, mut entries) = (tempfile::tempdir().unwrap(), entries(3));
    entries.retain(|entry| entry.number != 1);
    let mut batch = Batch::new(&entries, place.path(), "sif", &make);
    batch.only = Some(2..=2);
    let rows = batch.run(&(), &Monitor::default()).unwrap().rows;
    assert_eq!(rows.iter().map(|row| (row.number, row.status)).collect::<Vec<_>>(), [(2, Status::Done)]);
    assert!(place.path().join("2.sif").exists() && !place.path().join("3.sif").exists());
}

#[test]
fn one_that_cannot_be_made_stops_no_other() {
    let (place, entries) = (tempfile::tempdir().unwrap(), entries(2));
    let fails = |source: &OsStr, output: &Path| match output.ends_with("1.sif") {
        true => Err(Error::new(ErrorKind::Usage, "not this one")),
        false => make(source, output),
    };
    let rows = Batch::new(&entries, place.path(), "sif", &fails).run(&(), &Monitor::default()).unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [Status::Failed, Status::Done]);
    let trouble = rows[0].error.as_ref().unwrap();
    assert_eq!((trouble.kind.as_str(), trouble.message.as_str(), trouble.exit_code), ("usage", "not this one", 2));
}
