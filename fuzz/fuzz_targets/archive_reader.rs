//! Any bytes, taken for an image archive: opened, its images listed, each of them selected. Nothing may panic, hang or
//! allocate without bound; no error may be of the kind that blames us, and layers must lie inside the file.
#![no_main]

mod checksums;
mod input;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use sif_convert::Error;
use sif_convert::io::Monitor;
use sif_convert::source::{OpenOptions, Selection, Source, Spec, open};

use input::{expected, path};

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

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    checksums::mutate_tar(data, size, max_size, seed)
});

fuzz_target!(|bytes: &[u8]| {
    let _ = read(bytes).map_err(expected);
});
