//! A SIF that somebody hosts, downloaded as it is: from a registry or a web server, checked, whole or absent.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Expected, Monitor, Output, Phase, Region, hash_region, save, umask};
use crate::model::{Digest, Platform, Reference};
use crate::registry::{HostedSif, WebFile};
use crate::sif::{Container, HEADER_BYTES};
use crate::source::{OpenOptions, Spec, refuse_unsigned};

/// Where the magic of a SIF is: behind the launch script.
const MAGIC: (usize, &[u8]) = (32, b"SIF_MAGIC\0");

/// One download, with every choice made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Download {
    /// A SIF on a registry or at a URL.
    pub source: Spec,
    /// The file to write.
    pub path: PathBuf,
    /// Whether a file of that name is replaced.
    pub replace: bool,
    /// Permissions of the file; the umask's usual ones where absent.
    pub mode: Option<u32>,
    /// Which entry of an index is meant.
    pub platform: Platform,
    /// The SHA-256 that the file must have.
    pub expected: Option<Digest>,
    /// How servers are reached, and whose images may come from there: a SIF carries no signature of an image.
    pub open: OpenOptions,
}

/// What was downloaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Downloaded {
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The digest of the manifest that led to it, on a registry.
    pub manifest: Option<Digest>,
    /// What went otherwise than was asked for.
    pub warnings: Vec<String>,
}

/// What a download comes to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Found {
    /// The SIF is there.
    Sif(Downloaded),
    /// What is at the URL does not begin as a SIF does. Nothing was written.
    Other,
}

impl Download {
    /// Of `source` to a new file at `path`, with the usual options.
    pub fn new(source: Spec, path: impl Into<PathBuf>) -> Self {
        Download {
            source,
            path: path.into(),
            replace: false,
            mode: None,
            platform: Platform::host(),
            expected: None,
            open: OpenOptions::default(),
        }
    }

    /// Downloads.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the file does not appear then.
    pub fn run(&self, monitor: &Monitor) -> Result<Found> {
        match &self.source {
            Spec::Oras(name) => self.registry_layer(&name.parse()?, monitor),
            Spec::Web(url) => self.web_file(url, monitor),
            other => Err(Error::new(ErrorKind::Usage, format!("{other} is not downloaded but converted"))),
        }
    }

    fn registry_layer(&self, reference: &Reference, monitor: &Monitor) -> Result<Found> {
        refuse_unsigned(&self.source, &self.open)?;
        let sif = HostedSif::find(reference, &self.platform, &self.open.registry, monitor)?;
        Expected { digest: self.expected, size: None }.check(sif.digest, sif.size)?;
        let mut downloaded = self.save(sif.open()?, sif.expected(), monitor)?;
        (downloaded.manifest, downloaded.warnings) = (Some(sif.manifest), sif.warnings());
        Ok(Found::Sif(downloaded))
    }

    fn web_file(&self, url: &str, monitor: &Monitor) -> Result<Found> {
        monitor.begin(Phase::Open, 0);
        let mut file = WebFile::open(url, &self.open.registry, monitor)?;
        let expected = Expected { digest: self.expected, size: file.size() };
        let mut start = Vec::new();
        Read::by_ref(&mut file).take(HEADER_BYTES as u64).read_to_end(&mut start).or_kind(ErrorKind::Network)?;
        if !start.get(MAGIC.0..).is_some_and(|rest| rest.starts_with(MAGIC.1)) {
            return Ok(Found::Other);
        }
        refuse_unsigned(&self.source, &self.open)?;
        self.save(start.chain(file), expected, monitor).map(Found::Sif)
    }

    fn save(&self, reader: impl Read, expected: Expected, monitor: &Monitor) -> Result<Downloaded> {
        let mode = self.mode.unwrap_or(0o777 & !umask());
        let output = Output::create(&self.path, self.replace, mode)?;
        monitor.begin(Phase::Read, expected.size.unwrap_or(0));
        let saved = save(reader, output.file(), expected.size, monitor);
        let saved = saved.and_then(|(sha256, size)| expected.check(sha256, size).map(|()| (sha256, size)));
        let (sha256, size) = saved.doing(|| format!("downloading {} to {:?}", self.source, self.path))?;
        let region = Region::whole(Arc::clone(output.file())).or_kind(ErrorKind::Output)?;
        Container::open(region).doing(|| format!("checking what came from {}", self.source))?;
        monitor.begin(Phase::Finish, 0);
        monitor.check()?;
        match output.publish() {
            // Somebody else may have been faster, with the same file.
            Err(error) if error.kind() == ErrorKind::Output && !self.replace => {
                let failed = |error| Error::io(ErrorKind::Output, error);
                let there = Region::open(&self.path).and_then(|it| hash_region(&it, failed, |_| monitor.check()));
                there.ok().filter(|(there, _)| *there == sha256).ok_or(error)?;
            }
            published => published?,
        }
        Ok(Downloaded { sha256, size, manifest: None, warnings: Vec::new() })
    }
}
