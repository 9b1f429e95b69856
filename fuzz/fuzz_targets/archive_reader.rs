//! Any bytes, taken for an image archive: opened, its images listed, each of them selected. Nothing may panic, hang or
//! allocate without bound; no error may be of the kind that blames us, and layers must lie inside the file.
#![no_main]

mod checksums;

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use rustix::fs::{MemfdFlags, memfd_create};
use sif_convert::io::Monitor;
use sif_convert::source::{OpenOptions, Selection, Source, Spec, open};
use sif_convert::{Error, ErrorKind};

thread_local! {
    /// One file in memory for all inputs: making one for each would take most of the time.
    static FILE: OnceCell<File> = const { OnceCell::new() };
}

/// The name of a file that holds the bytes until the next call.
fn path(bytes: &[u8]) -> PathBuf {
    FILE.with(|file| {
        let file = file.get_or_init(|| memfd_create("input", MemfdFlags::CLOEXEC).expect("a file in memory").into());
        file.set_len(bytes.len() as u64).expect("its length can be set");
        file.write_all_at(bytes, 0).expect("it can be written");
        format!("/proc/self/fd/{}", file.as_raw_fd()).into()
    })
}

/// Selects image `number` of the list, and looks at what it is made of.
fn select(source: &Source, number: usize, bytes: &[u8]) -> Result<(), Error> {
    let image = source.select(&Selection { image: Some(number.to_string()), platform: None })?;
    let _shown = format!("{} {} {:?}", image.id(), image.platform(), image.names);
    for (index, layer) in image.layers.iter().enumerate() {
        assert!(!image.layer_name(index).is_empty());
        if let Some(region) = image.blobs.region(&layer.blob)? {
            assert!(region.offset + region.len <= bytes.len() as u64);
        }
    }
    Ok(())
}

/// All there is to do with an archive.
fn read(bytes: &[u8]) -> Result<(), Error> {
    let options = OpenOptions { tmpdir: "/nonexistent".into(), want_layers: false, ..OpenOptions::default() };
    let source = open(&Spec::Path(path(bytes)), &options, &Monitor::default())?;
    let images = source.images();
    let selected =
        (0..images.len()).map(|number| select(&source, number, bytes)).map(|result| result.map_err(expected));
    let failed = selected.filter_map(Result::err).count();
    assert!(failed <= images.len());
    let _ = source.select(&Selection::default()).map_err(expected);
    Ok(())
}

/// An error that blames the input, and not us or the machine.
fn expected(error: Error) -> Error {
    let blames_input = matches!(
        error.kind(),
        ErrorKind::InvalidImage
            | ErrorKind::Unsupported
            | ErrorKind::Mismatch
            | ErrorKind::SourceUnavailable
            | ErrorKind::Usage
    );
    assert!(blames_input && !error.to_string().is_empty(), "{:?}: {error}", error.kind());
    error
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    checksums::mutate_tar(data, size, max_size, seed)
});

fuzz_target!(|bytes: &[u8]| {
    let _ = read(bytes).map_err(expected);
});
