//! Any bytes, taken for a SIF or a squashfs that stands for an image: opened, its config recovered, what Singularity added
//! removed, its tar read. Nothing may panic, hang or allocate without bound, no error may blame us or the machine; the tar
//! has the length that was said, and the names of the tree.
#![no_main]

mod input;

use std::io::Read as _;
use std::num::NonZeroUsize;

use libfuzzer_sys::fuzz_target;
use sif_convert::browse::{View, ViewOptions};
use sif_convert::io::Monitor;
use sif_convert::source::{OpenOptions, Selection, Spec, open};
use sif_convert::tar::{Entries, Sequential};
use sif_convert::{Error, Result};

use input::{expected, path};

/// Tars are read up to this size in bytes: a hole can make one of any size.
const TAR_BYTES_MAX: u64 = 4 << 20;

fn exercise(bytes: &[u8], keep_singularity: bool) -> Result<()> {
    let one = NonZeroUsize::MIN;
    let options = OpenOptions { keep_singularity, jobs: Some(one), tmpdir: "/dev/shm".into(), ..OpenOptions::default() };
    let monitor = Monitor::default();
    let source = open(&Spec::Path(path(bytes)), &options, &monitor)?;
    let view = View::of(&source, &Selection::default(), &ViewOptions::default().jobs(one), &monitor)?;
    let names = view.entries(b"", None)?.count();
    let usage = view.usage(b"/", None)?;
    assert!(usage.directories.first().is_some_and(|root| root.names + 1 == names as u64), "{names} names");
    let Some(volume) = source.volume() else { return Ok(()) };
    let length = volume.tar_bytes();
    if length > TAR_BYTES_MAX {
        return Ok(());
    }
    let mut tar = Vec::new();
    volume.tar(one).read_to_end(&mut tar).map_err(|error| Error::io(sif_convert::ErrorKind::InvalidImage, error))?;
    assert_eq!(tar.len() as u64, length);
    let mut entries = Entries::new(Sequential(tar.as_slice()));
    let mut members = 0;
    while entries.next_entry().expect("our tar is one").is_some() {
        members += 1;
    }
    assert_eq!(members, names);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    for keep_singularity in [false, true] {
        if let Err(error) = exercise(bytes, keep_singularity) {
            expected(error);
        }
    }
});
