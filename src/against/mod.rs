//! Is this SIF what that image gives?
//!
//! The idea to hold: where the SIF is ours, and says how it was made, it is made again and compared byte for byte. Else its
//! files and its config are compared with the image's, and each difference is either one that a builder of SIFs is known to
//! make, or one that nothing explains.

mod explain;
mod objects;
mod remake;
mod scripts;

use std::path::{Path, PathBuf};

use crate::browse::{DiffOptions, Difference, Side, ViewOptions, diff_explained};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::gocryptfs::Secret;
use crate::io::{Monitor, Region};
use crate::model::{Note, Platform};
use crate::output::{self, Whole, WriteOptions};
use crate::sif::Container;
use crate::source::{OpenOptions, Selection, Source, Spec, open};

/// What came of the comparison.
#[derive(Debug)]
#[non_exhaustive]
pub struct Compared {
    /// Whether every byte is the same.
    pub is_same_bytes: bool,
    /// What differs otherwise: names, metadata, contents, times and config.
    pub differences: Vec<Difference>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

impl Compared {
    /// How many differences nothing explains: none where the SIF is what the image gives.
    pub fn unexplained(&self) -> usize {
        self.differences.iter().filter(|difference| difference.explanation.is_none()).count()
    }
}

/// How it is compared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AgainstOptions {
    /// How many threads may work at once.
    pub jobs: std::num::NonZeroUsize,
    /// Where the SIF is made again, to be compared.
    pub tmpdir: PathBuf,
    /// What an encrypted SIF is opened with.
    pub secret: Option<Secret>,
}

impl Default for AgainstOptions {
    fn default() -> Self {
        let WriteOptions { jobs, tmpdir, .. } = WriteOptions::default();
        AgainstOptions { jobs, tmpdir, secret: None }
    }
}

/// Compares the SIF at `sif` with what the image that is selected of `source` gives. The SIF itself is verified first.
///
/// # Errors
/// [`ErrorKind::Mismatch`] when the SIF is damaged; as reading either fails. That they differ is not an error.
pub fn compare(
    sif: &Path,
    source: &Source,
    selection: &Selection,
    options: &AgainstOptions,
    monitor: &Monitor,
) -> Result<Compared> {
    let mut whole = output::verify_sif(sif, options.secret.as_ref(), options.jobs, monitor)?;
    let selection = &for_platform_of(&whole, source, selection);
    let image = source.select(selection)?;
    if remake::is_same(sif, &whole, (&image, source), options, monitor)? {
        return Ok(Compared { is_same_bytes: true, differences: Vec::new(), notes: whole.notes });
    }
    if whole.sboms > 0 {
        let message = "the SBOM in the file was not compared with one of the source";
        whole.notes.push(Note::new("sbom-not-compared", message, whole.sboms));
    }
    let opened = |keep_singularity| {
        let open_options = OpenOptions {
            keep_singularity,
            jobs: Some(options.jobs),
            tmpdir: options.tmpdir.clone(),
            secret: options.secret.clone(),
            ..OpenOptions::default()
        };
        open(&Spec::Path(sif.to_path_buf()), &open_options, monitor)
    };
    let (as_image, raw) = (opened(false)?, opened(true)?);
    let no_selection = Selection::default();
    let left = Side { source, selection };
    let right = Side { source: &as_image, selection: &no_selection };
    let view_options = ViewOptions::default().jobs(options.jobs);
    let mut differences =
        diff_explained(&left, &right, DiffOptions::default().times(true), &view_options, monitor, &explain::explain)?;
    differences.iter_mut().for_each(explain::config);
    let not_a_volume = || Error::new(ErrorKind::Bug, "a SIF is not a file system");
    let [volume, without] = [raw.volume().ok_or_else(not_a_volume)?, as_image.volume().ok_or_else(not_a_volume)?];
    differences.extend(scripts::made_places(volume, without).doing(|| "comparing what was made to bind to")?);
    differences.extend(scripts::whiteout_names(volume));
    differences.extend(scripts::compare(volume, &image).doing(|| "comparing .singularity.d")?);
    differences.extend(objects::compare(&Container::open(Region::open(sif)?)?));
    Ok(Compared { is_same_bytes: false, differences, notes: whole.notes })
}

/// The platform that was chosen; else the SIF's, where the source has it; else that of this machine.
fn for_platform_of(whole: &Whole, source: &Source, selection: &Selection) -> Selection {
    let own = whole.architecture.map(|architecture| Platform::new("linux", architecture, None));
    let is_there = |own: &Platform| {
        let mut platforms = source.images().into_iter().filter_map(|candidate| candidate.platform);
        platforms.any(|platform| platform.serves(own))
    };
    let platform = selection.platform.clone().or_else(|| own.filter(is_there));
    Selection { platform, ..selection.clone() }
}

/// Options as a conversion has them.
fn write_options(options: &AgainstOptions) -> WriteOptions {
    WriteOptions::default().jobs(options.jobs).tmpdir(&options.tmpdir)
}
