//! An index, a manifest and a config that a stranger wrote, with digests that fit: the input is the three documents, separated
//! by NUL. `%M`, `%C`, `%L` in them become the digests of manifest, config and a layer, `%m`, `%c`, `%l` their sizes. A first
//! document that begins with `[` is Docker's `manifest.json`. Nothing may panic, hang or allocate without bound, and no error
//! may blame us or the machine.
#![no_main]

mod archive;
mod input;

use libfuzzer_sys::fuzz_target;
use sif_convert::internals::{Additions, forecast, prepare};
use sif_convert::io::Monitor;
use sif_convert::model::{Digest, Timestamp};
use sif_convert::source::{OpenOptions, Selection, Spec, open};
use sif_convert::tree::Tree;
use sif_convert::{Error, Image};

use archive::Archive;
use input::{expected, path};

/// An empty tar: what is looked at is what the documents say of it.
const LAYER: [u8; 1024] = [0; 1024];

/// `document` with `%X` for the digest of `bytes`, and `%x` for their size.
fn refer(document: &[u8], letter: u8, bytes: &[u8]) -> Vec<u8> {
    let (digest, size) = (Digest::of(bytes).to_string(), bytes.len().to_string());
    let mut referring = Vec::with_capacity(document.len());
    let mut rest = document;
    while let Some(at) = rest.windows(2).position(|pair| pair[0] == b'%' && pair[1].eq_ignore_ascii_case(&letter)) {
        referring.extend_from_slice(&rest[..at]);
        referring.extend_from_slice(if rest[at + 1] == letter { digest.as_bytes() } else { size.as_bytes() });
        rest = &rest[at + 2..];
    }
    referring.extend_from_slice(rest);
    referring
}

/// The archive that holds the documents.
fn assemble(documents: &[u8]) -> Vec<u8> {
    let mut parts = documents.splitn(3, |&byte| byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (index, manifest, config) = (next(), next(), next());
    let config = refer(config, b'L', &LAYER);
    let manifest = refer(&refer(manifest, b'L', &LAYER), b'C', &config);
    let index = refer(&refer(&refer(index, b'L', &LAYER), b'C', &config), b'M', &manifest);
    let mut archive = Archive::default();
    for blob in [&manifest[..], &config, &LAYER] {
        archive.add(&format!("blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    if index.first() == Some(&b'[') {
        archive.add("manifest.json", &index);
        archive.add("c.json", &config);
        archive.add("l.tar", &LAYER);
    } else {
        archive.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive.add("index.json", &index);
    }
    archive.finish()
}

/// What a SIF would say of the image.
fn describe(image: &Image) -> Result<(), Error> {
    let (id, platform) = (image.id().to_string(), image.platform());
    let _shown = format!("{platform} {:?} {:?} {:?} {:?}", image.names, image.tags, image.ref_names, image.warnings);
    let _advice = format!("{:?}", forecast(&image.config));
    let _times = image.config.layer_times(image.layers.len());
    let time = image.config.created().unwrap_or_default();
    let additions = Additions {
        reference: &id,
        time,
        architecture: &platform.architecture,
        change_to_workdir: true,
        mkdir: &[],
        mkfile: &[],
        bind_targets: &[],
        labels: &[],
    };
    let mut tree = Tree::new(Timestamp::default());
    let prepared = prepare(&mut tree, &image.config, &additions)?;
    prepared.inspect_metadata(&tree, &|_| Ok(Vec::new()))?;
    Ok(())
}

fn read(documents: &[u8]) -> Result<(), Error> {
    let options = OpenOptions { tmpdir: "/nonexistent".into(), want_layers: false, ..OpenOptions::default() };
    let source = open(&Spec::Path(path(&assemble(documents))), &options, &Monitor::default())?;
    for number in 0..source.images().len() {
        let selected = source.select(&Selection { image: Some(number.to_string()), platform: None });
        let _ = selected.and_then(|image| describe(&image)).map_err(expected);
    }
    let _ = source.select(&Selection::default()).map_err(expected);
    Ok(())
}

fuzz_target!(|documents: &[u8]| {
    let _ = read(documents).map_err(expected);
});
