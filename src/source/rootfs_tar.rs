//! The tar of a root file system as an image of one layer: what `docker export` and debootstrap write.

use std::io::Read;
use std::sync::Arc;

use super::archive::Archive;
use super::catalogue::{Catalogue, MemberList};
use super::document::Store;
use super::input::Input;
use super::members::Members;
use super::{Kind, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{BlobRef, Blobs};
use crate::io::Region;
use crate::model::{Config, Digest};
use crate::sif::goarch_of_elf;

/// The key of the one layer.
const LAYER: &str = "rootfs.tar";
/// Programs that say what a root is for; links of the archive are followed.
const PROGRAMS: [&[u8]; 4] = [b"bin/sh", b"usr/bin/env", b"bin/busybox", b"usr/bin/dash"];

struct RootfsTar {
    name: String,
    /// Absent where the archive was only looked at.
    tar: Option<Region>,
    warnings: Vec<String>,
    input: Arc<Input>,
}

/// The image of the tar that `archive` is.
pub(super) fn source(archive: &Archive, place: &str) -> Result<Source> {
    let members = archive.members();
    let config = Config::of_execution(serde_json::Map::new(), architecture(members), None)?;
    let mut catalogue = Catalogue::default();
    let found = catalogue.with_config(config.image_id())?;
    found.set_config(config);
    found.candidate.layers = 1;
    found.diff_ids_unknown = true;
    found.members = Some(MemberList { listed_in: place.to_string(), names: vec![LAYER.to_string()] });
    let prepared = members.names().any(|name| name.starts_with(b".singularity.d/"));
    let kept = "the tar holds .singularity.d, which is kept: how it ran is not read from there";
    let store = RootfsTar {
        name: Kind::RootfsTar.name(place),
        tar: members.whole().cloned(),
        warnings: prepared.then(|| kept.to_string()).into_iter().collect(),
        input: Arc::clone(archive.input()),
    };
    Ok(Source {
        store: Arc::new(store),
        kind: Kind::RootfsTar,
        found: catalogue.found,
        artifacts: catalogue.artifacts,
        warnings: Vec::new(),
        wanted: None,
        volume: None,
        input: Some(Arc::clone(archive.input())),
    })
}

fn architecture(members: &Members) -> Option<&'static str> {
    PROGRAMS.iter().find_map(|name| {
        let contents = members.find(name).ok()??;
        let mut header = Vec::new();
        contents.reader().ok()?.take(20).read_to_end(&mut header).ok()?;
        goarch_of_elf(&header)
    })
}

impl RootfsTar {
    fn tar(&self) -> Result<&Region> {
        self.tar.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the tar of a root file system came in pieces")
                .hint("save it to a file first, and give that")
        })
    }
}

impl Blobs for RootfsTar {
    fn open(&self, blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>> {
        self.read(&blob.key)
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn confirm(&self) -> Result<()> {
        self.input.confirm()
    }

    fn region(&self, _blob: &BlobRef) -> Result<Option<Region>> {
        self.tar().map(|tar| Some(tar.clone()))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }
}

impl Store for RootfsTar {
    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok((key == LAYER).then(|| self.tar.as_ref().map_or(0, |tar| tar.len)))
    }

    fn read(&self, _key: &str) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.tar()?.reader()))
    }

    fn key(&self, digest: &Digest) -> String {
        digest.to_string()
    }
}
