//! Makes a SIF once more as it says that it was made.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{AgainstOptions, write_options};
use crate::error::{ErrorKind, IoResultExt as _, Remedy, Result, ResultExt as _};
use crate::image::Image;
use crate::io::{CHUNK_BYTES, Compression, Monitor, Phase, Region};
use crate::model::OUTPUT_FORMAT;
use crate::output::{Root, Sif, Target, Whole, XattrPolicy, has_sbom};
use crate::sif::{Container, FileSystem};
use crate::source::Source;
use crate::squashfs;

/// Whether the SIF at `sif` is what is written now from `image`, as far as the file says how it was made. `false` where it
/// does not say, or was made otherwise.
pub(super) fn is_same(
    sif: &Path,
    whole: &Whole,
    (image, source): (&Image, &Source),
    options: &AgainstOptions,
    monitor: &Monitor,
) -> Result<bool> {
    // An encrypted one cannot be made again: its salts are not known here.
    if whole.file_system != Some(FileSystem::Squashfs) {
        return Ok(false);
    }
    if whole.image.as_deref() != Some(&image.id().to_string()) || whole.format != Some(OUTPUT_FORMAT) {
        return Ok(false);
    }
    let sifs = roots().flat_map(|root| [false, true].map(|with_sbom| (Sif::new().root(root.clone()), with_sbom)));
    let mut sifs = sifs.map(|(sif, with_sbom)| Sif { with_sbom, ..sif });
    let Some(target) = sifs.find(|sif| sif.choices() == whole.choices) else { return Ok(false) };
    let mut image = image.clone();
    if target.with_sbom {
        image.attestations = source.attestations(&image)?;
        if !has_sbom(&image) {
            return Ok(false);
        }
    }
    let region = Region::open(sif)?;
    let container = Container::open(region.clone())?;
    let Some(primary) = container.primary() else { return Ok(false) };
    let squashfs = squashfs::Image::open(container.data(primary)?)?;
    let superblock = squashfs.superblock();
    let Some(compression) = compression(superblock.compression_id) else { return Ok(false) };
    let mut target = target.compression(compression).block_size(superblock.block_size);
    if let Some(name) = container.header().architecture.goarch() {
        target = target.architecture(name);
    }
    let made = tempfile::tempdir_in(&options.tmpdir).or_kind(ErrorKind::Output);
    let made = made.doing(|| format!("creating a directory in {:?}", options.tmpdir));
    let made = made.map_err(|error| error.with_remedy(Remedy::OtherTmpdir))?;
    let path = made.path().join("remade.sif");
    let mut write_options = write_options(options);
    write_options.source_date_epoch = Some(container.header().created_seconds);
    Target::from(target).prepare(&path.as_path().into(), &write_options)?.write(&image, monitor)?;
    let again = Region::open(&path)?;
    monitor.begin(Phase::Verify, region.len);
    same_bytes(&region, &again, monitor)
}

/// The choices that are tried: those that need no words.
fn roots() -> impl Iterator<Item = Root> {
    let xattrs = [XattrPolicy::None, XattrPolicy::Capabilities, XattrPolicy::All];
    xattrs.into_iter().flat_map(|xattrs| {
        (0..16u8).map(move |bits| {
            let has = |bit: u8| bits >> bit & 1 != 0;
            Root {
                xattrs,
                all_root: has(0),
                fix_perms: has(1),
                keep_devices: has(2),
                workdir: has(3),
                ..Root::default()
            }
        })
    })
}

/// The usual level: another one is not recorded anywhere.
fn compression(id: u16) -> Option<Compression> {
    match id {
        1 => Some(Compression::GZIP),
        6 => Some(Compression::ZSTD),
        _ => None,
    }
}

fn same_bytes(one: &Region, other: &Region, monitor: &Monitor) -> Result<bool> {
    if one.len != other.len {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    let mut at = 0;
    while at < one.len {
        monitor.check()?;
        let count = (one.len - at).min(CHUNK_BYTES as u64) as usize;
        one.file.read_exact_at(&mut left[..count], at).or_kind(ErrorKind::SourceUnavailable)?;
        other.file.read_exact_at(&mut right[..count], at).or_kind(ErrorKind::Output)?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
        at += count as u64;
        monitor.advance(count as u64);
    }
    Ok(true)
}
