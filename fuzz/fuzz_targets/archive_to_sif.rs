//! A whole conversion: the input is a tar of a config and of layers, which become a docker-archive whose digests fit, and that
//! a SIF. Nothing may panic, hang or allocate without bound, no error may blame us or the machine, and what is written must be
//! intact: the container, the file system in it, and every file of that.
#![no_main]

mod archive;
mod checksums;
mod input;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use serde_json::{Map, Value, json};
use sif_convert::io::{Monitor, Region};
use sif_convert::model::Digest;
use sif_convert::sif::{Container, Severity, verify};
use sif_convert::source::{OpenOptions, Selection, Spec, open};
use sif_convert::squashfs;
use sif_convert::{Error, IfExists, Sif, Target, WriteOptions};

use archive::Archive;
use input::{expected, path};

const BLOCK_BYTES: usize = 512;
const LAYERS_MAX: usize = 8;
/// Enough for any input of this size that is not made to exhaust it.
const MEMORY_BYTES_MAX: u64 = 64 << 20;

/// The files of a tar, whatever their names.
fn files(mut tar: &[u8]) -> Vec<&[u8]> {
    let mut files = Vec::new();
    while tar.len() >= BLOCK_BYTES && files.len() <= LAYERS_MAX {
        let (header, rest) = tar.split_at(BLOCK_BYTES);
        let octal = header[124..135].iter().filter(|byte| byte.is_ascii_digit());
        let size = octal.fold(0_usize, |size, digit| size.wrapping_mul(8).wrapping_add(usize::from(digit & 7)));
        let (file, _) = rest.split_at(size.min(rest.len()));
        if header[0] != 0 {
            files.push(file);
        }
        tar = &rest[file.len().next_multiple_of(BLOCK_BYTES).min(rest.len())..];
    }
    files
}

/// A docker-archive of the files: the first is the config, all others are layers.
fn assemble(tar: &[u8]) -> Vec<u8> {
    let files = files(tar);
    let (config, layers) = files.split_first().map_or((&b""[..], &[][..]), |(config, layers)| (*config, layers));
    let mut config: Map<String, Value> = serde_json::from_slice(config).unwrap_or_default();
    let digests: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    config.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": digests}));
    let names: Vec<_> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let mut archive = Archive::default();
    let manifest = json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": names}]);
    archive.add("manifest.json", manifest.to_string().as_bytes());
    archive.add("c.json", Value::Object(config).to_string().as_bytes());
    for (name, layer) in names.iter().zip(layers) {
        archive.add(name, layer);
    }
    archive.finish()
}

/// Where the SIF goes: in memory, one for this process.
fn output() -> &'static PathBuf {
    static OUTPUT: OnceLock<PathBuf> = OnceLock::new();
    OUTPUT.get_or_init(|| format!("/dev/shm/sif-convert-fuzz-{}.sif", std::process::id()).into())
}

fn convert(tar: &[u8]) -> Result<(), Error> {
    let mut options = WriteOptions::default().if_exists(IfExists::Replace).jobs(NonZeroUsize::MIN).tmpdir("/dev/shm");
    options.memory_bytes_max = MEMORY_BYTES_MAX;
    let prepared = Target::from(Sif::new()).prepare(&output().into(), &options)?;
    let source = open(&Spec::Path(path(&assemble(tar))), &OpenOptions::default(), &Monitor::default())?;
    prepared.write(&source.select(&Selection::default())?, &Monitor::default())?;
    Ok(())
}

fn check() -> Result<(), Error> {
    let file = Region::whole(Arc::new(File::open(output()).expect("it was written"))).expect("its length can be read");
    let findings = verify(&file)?;
    assert!(findings.iter().all(|finding| finding.severity != Severity::Error), "{findings:?}");
    let container = Container::open(file)?;
    let partition = container.data(container.primary().expect("a SIF has a root file system"))?;
    squashfs::Image::open(partition)?.verify(NonZeroUsize::MIN, &Monitor::default())?;
    Ok(())
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    checksums::mutate_tar(data, size, max_size, seed)
});

fuzz_target!(|tar: &[u8]| {
    if convert(tar).map_err(expected).is_ok() {
        check().expect("what was written is intact");
        std::fs::remove_file(output()).expect("it can be removed");
    }
});
