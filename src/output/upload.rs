//! A SIF that is there, pushed to a registry as it is: with the signatures in it, and whatever else others added.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::hosting::{Hosting, Transport};
use super::options::{Outcome, PushedBlobs};
use super::verify::{begins_as_sif, hash_open, verify_open_sif};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::{Monitor, Phase, Region, Stamp};
use crate::registry::{Repository, Settings, SifArtifact};

/// Pushes one SIF file, with every choice made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Upload {
    /// The file, of any maker.
    pub source: PathBuf,
    /// Where it goes: a place of [`Transport::Oras`].
    pub place: Hosting,
    /// How the registry is reached.
    pub registry: Settings,
    /// How many threads check the file.
    pub jobs: NonZeroUsize,
}

impl Upload {
    /// With the usual choices: one thread.
    pub fn new(source: impl Into<PathBuf>, place: Hosting, registry: Settings) -> Self {
        Upload { source: source.into(), place, registry, jobs: NonZeroUsize::MIN }
    }

    /// Checks that the file is whole, and pushes it: no byte of it is changed.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a file that is not a SIF and for a place that takes none; [`ErrorKind::SourceUnavailable`];
    /// also when the file changes meanwhile; [`ErrorKind::Mismatch`] for a damaged file; [`ErrorKind::Network`]. The tag
    /// names what it named before then.
    pub fn run(&self, monitor: &Monitor) -> Result<Outcome> {
        let place = &self.place;
        if place.transport != Transport::Oras {
            let message = format!("{place} is a place for images, and a SIF is none");
            return Err(Error::new(ErrorKind::Usage, message).hint(format!("write oras://{}", place.reference)));
        }
        let region = self.open().doing(|| format!("opening {:?}", self.source))?;
        let stamp = Stamp::of(&region.file)?;
        monitor.begin(Phase::Open, 0);
        // Whether it takes anything is known before gigabytes are read.
        let repository = Repository::open(&place.reference, &[], &self.registry, monitor)
            .and_then(|repository| repository.expect_push().map(|()| repository))
            .doing(|| format!("opening {} for pushing", place.reference))?;
        let whole = verify_open_sif(&region, None, self.jobs, monitor);
        let whole = whole.doing(|| format!("verifying {:?}", self.source))?;
        let sha256 = hash_open(&region, monitor).doing(|| format!("hashing {:?}", self.source))?;
        monitor.begin(Phase::Push, region.len);
        let title = place.title();
        let artifact = SifArtifact::new(sha256, region.len, &region, &title);
        let pushed = repository.push_sif(&artifact, place.reference.tag.as_deref());
        if pushed.is_err() {
            // What the registry says of bytes that do not fit is not what is wrong.
            stamp.iter().try_for_each(Stamp::check).doing(|| format!("pushing {:?}", self.source))?;
        }
        let (stored, pushed) = pushed.doing(|| format!("pushing {}", place.reference))?;
        Ok(Outcome {
            size: region.len,
            sha256: Some(sha256),
            entries: whole.names,
            // That of an encrypted one is hidden.
            image_id: whole.image.and_then(|image| image.parse().ok()),
            manifest_digest: Some(stored.digest),
            pushed: Some(PushedBlobs::of(&[pushed])),
            notes: whole.notes,
            ..Outcome::default()
        })
    }

    fn open(&self) -> Result<Region> {
        let region = Region::open(&self.source)?;
        if !begins_as_sif(&region) {
            let hint = "give a SIF; an image becomes one when it is converted to such a place";
            return Err(Error::new(ErrorKind::Usage, "this is not a SIF").hint(hint));
        }
        Ok(region)
    }
}
