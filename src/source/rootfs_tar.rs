//! The tar of a root file system as an image of one layer: what `docker export` and debootstrap write.

use std::io::Read;
use std::sync::Arc;

use super::archive::Archive;
use super::catalogue::{Catalogue, MemberList};
use super::document::Store;
use super::input::Input;
use super::members::Members;
use super::{Kind, OpenOptions, Source};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::image::{BlobRef, Blobs};
use crate::io::Region;
use crate::model::{Config, Digest, Note, Quoted};
use crate::sif::goarch_of_elf;
use crate::singularity::{self, Remains};
use crate::volume::whiteout_names;

/// The key of the one layer.
const LAYER: &str = "rootfs.tar";
/// The most that is read of one of Singularity's own files, in bytes.
const TEXT_BYTES_MAX: u64 = 4 << 20;
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
pub(super) fn source(archive: &Archive, place: &str, options: &OpenOptions) -> Result<Source> {
    let members = archive.members();
    let mut warnings = Vec::new();
    let mut execution = serde_json::Map::new();
    let mut keeps_scripts = false;
    if let Some(remains) = remains(members)? {
        // The files stay: a conversion to Singularity writes anew those that a config can stand for.
        warnings.push("the tar holds .singularity.d, which is kept".to_string());
        let recovered = singularity::recover(&remains)?;
        execution = recovered.execution;
        keeps_scripts = recovered.needs_singularity;
        warnings.extend(recovered.notes.iter().map(Note::to_string));
    }
    warnings.extend(whiteout_names(members.names()).map(|note| note.to_string()));
    let architecture = architecture(members).or(options.asked_architecture());
    let config = Config::of_execution(execution, architecture, None)?.keeping_scripts(keeps_scripts);
    let mut catalogue = Catalogue::default();
    let found = catalogue.with_config(config.image_id())?;
    found.set_config(config);
    found.candidate.layers = 1;
    found.diff_ids_unknown = true;
    found.members = Some(MemberList { listed_in: place.to_string(), names: vec![LAYER.to_string()] });
    let store = RootfsTar {
        name: Kind::RootfsTar.name(place),
        tar: members.whole().cloned(),
        warnings,
        input: Arc::clone(archive.input()),
    };
    let input = Some(Arc::clone(archive.input()));
    Ok(Source { input, ..Source::of(store, Kind::RootfsTar, catalogue) })
}

/// Singularity's own files, where the tar has them. `None` too where its contents were passed over.
fn remains(members: &Members) -> Result<Option<Remains>> {
    if !members.names().any(|name| name.starts_with(b".singularity.d/")) {
        return Ok(None);
    }
    let text = |name: &str| -> Result<Option<String>> {
        let path = format!(".singularity.d/{name}");
        let Some(contents) = members.find(path.as_bytes())? else { return Ok(Some(String::new())) };
        if contents.len() > TEXT_BYTES_MAX {
            let message = format!("{} has {} bytes", Quoted(path.as_bytes()), contents.len());
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let Ok(reader) = contents.reader() else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).or_kind(ErrorKind::SourceUnavailable)?;
        let not_text = |_| Error::new(ErrorKind::Unsupported, format!("{} is not UTF-8 text", Quoted(path.as_bytes())));
        String::from_utf8(bytes).map(Some).map_err(not_text)
    };
    let names = [
        "runscript",
        "startscript",
        "env/10-docker2singularity.sh",
        "env/10-docker.sh",
        "env/90-environment.sh",
        "env/91-environment.sh",
        "labels.json",
    ];
    let texts: Option<Vec<String>> = names.iter().map(|name| text(name)).collect::<Result<_>>()?;
    let Some([runscript, startscript, docker, docker_of_old, first, second, labels]) =
        texts.and_then(|texts| <[String; 7]>::try_from(texts).ok())
    else {
        return Ok(None);
    };
    Ok(Some(Remains {
        oci_config: None,
        runscript,
        startscript,
        docker_environment: docker + &docker_of_old,
        environment: format!("{first}\n{second}"),
        labels,
    }))
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
