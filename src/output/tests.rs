//! What the options of every output promise.

use super::{IfExists, Oci, Sif, Target, WriteOptions, hash_file};
use crate::error::{ErrorKind, Result};
use crate::image::Image;
use crate::io::Monitor;
use crate::model::Digest;
use crate::source::{Selection, Source};

fn image() -> Image {
    let archive = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/archives/hello.tar");
    Source::open(archive).unwrap().select(&Selection::default()).unwrap()
}

#[test]
fn what_is_expected_of_the_sha256_holds_for_what_is_there_too() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.sif");
    let (image, monitor) = (image(), Monitor::default());
    let write = |target: Target, expected: Digest, if_exists: IfExists| -> Result<()> {
        let options =
            WriteOptions { expected_sha256: Some(expected), if_exists: Some(if_exists), ..WriteOptions::default() };
        target.prepare(&path.as_path().into(), &options)?.write(&image, &monitor).map(drop)
    };
    let (sif, other) = (|| Target::from(Sif::new()), Digest::of(b"something else"));
    assert_eq!(write(sif(), other, IfExists::Fail).unwrap_err().kind(), ErrorKind::Mismatch);
    assert!(!path.exists());
    sif().prepare(&path.as_path().into(), &WriteOptions::default()).unwrap().write(&image, &monitor).unwrap();
    let right = hash_file(&path, &monitor).unwrap();
    for if_exists in [IfExists::Reuse, IfExists::Update] {
        write(sif(), right, if_exists).unwrap();
        assert_eq!(write(sif(), other, if_exists).unwrap_err().kind(), ErrorKind::Mismatch);
    }
    assert_eq!(hash_file(&path, &monitor).unwrap(), right);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(write(Oci::new().into(), right, IfExists::Fail).unwrap_err().kind(), ErrorKind::Usage);
}
