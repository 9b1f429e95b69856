//! `convert inspect`: what a source holds, from its documents alone. Layers are located, never read.

mod sif;
mod words;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::attach::{Referrer, ReferrerList};
use crate::cli::environment::Environment;
use crate::cli::options::{Choice, Feedback, Given};
use crate::cli::registry::RegistryOptions;
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::cli::subject::Subject;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, Layer};
use crate::io::{Codec, Monitor};
use crate::model::{Config, Digest, Note, Reference, Timestamp};
use crate::output;
use crate::registry::Settings;
use crate::report::SourceRecord;
use crate::singularity::forecast;
use crate::source::{self as sources, Candidate, InputHash, Selection, Source, Spec};
use sif::SifView;

/// `convert inspect SOURCE`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Inspect {
    /// Where the image comes from: a file, a directory, "-", or TRANSPORT:…
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) source: OsString,
    /// Print JSON instead of words
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) choice: Choice,
    #[command(flatten)]
    pub(in crate::cli) registry: RegistryOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

/// Of how many images at most it is asked what is attached to each.
const ASKED_MAX: usize = 8;

/// The document of `--json`, schema version 1. Every key is always there. The SHA-256 of the source is computed for it.
#[derive(Debug, Serialize)]
struct Inspection {
    schema_version: u32,
    source: SourceRecord,
    images: Vec<ImageView>,
    /// What refers to the index of the images on its registry: signatures, anything; `null` where that is not known.
    index_attached: Option<Vec<Referrer>>,
    /// What a SIF holds; absent where the source is none.
    sif: Option<SifView>,
}

/// One image.
#[derive(Debug, Default, Serialize)]
struct ImageView {
    /// What `--image` takes for it in any case; absent where one was asked for.
    index: Option<usize>,
    names: Vec<String>,
    tags: Vec<String>,
    id: Option<String>,
    manifest_digest: Option<String>,
    index_digest: Option<String>,
    platform: Option<String>,
    created: Option<String>,
    config: Option<ConfigView>,
    layers: Vec<LayerView>,
    /// What refers to it on its registry: SIFs, signatures, anything; `null` where that was not asked for or is not known.
    attached: Option<Vec<Referrer>>,
    image_hash: ImageHash,
    warnings: Vec<String>,
    /// Why it cannot be converted.
    problem: Option<String>,
}

/// What MedPerf stores as `image_hash` for a container that is hosted as this, by its `container_type`. Of an encrypted
/// file it is the SHA-256 of that, which only who has it can tell.
#[derive(Debug, Default, Serialize)]
struct ImageHash {
    /// The digest that a registry knows it by: of the index where there is one, else of the manifest.
    #[serde(rename = "DockerImage")]
    docker_image: Option<String>,
    /// The SHA-256 of the archive, in hex.
    #[serde(rename = "DockerArchive")]
    docker_archive: Option<String>,
    /// The SHA-256 of the SIF, in hex.
    #[serde(rename = "SingularityFile")]
    singularity_file: Option<String>,
}

#[derive(Debug, Serialize)]
struct ConfigView {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    user: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct LayerView {
    /// The source's own name for it.
    key: String,
    /// Of the stored bytes.
    digest: Option<String>,
    /// Of the uncompressed tar.
    diff_id: Option<String>,
    /// Stored bytes.
    size: Option<u64>,
    /// Told by the first bytes; `null` where they are not at hand.
    compression: Option<String>,
    media_type: Option<String>,
    /// The command that made it, as the config's history has it; `null` where that does not tell.
    created_by: Option<String>,
}

impl Inspect {
    /// What is inspected.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Subject> {
        let hash = if self.json { InputHash::Wanted } else { InputHash::Unneeded };
        Subject::resolve(&self.source, (&self.choice, &self.registry), (false, hash), given, environment)
    }
}

/// Inspects, and says how it went.
pub(in crate::cli) fn run(arguments: &Inspect, given: &Given, environment: &Environment, quit: Quit) -> u8 {
    session::page(&arguments.feedback, environment, quit, |_, monitor| page(arguments, given, environment, monitor))
}

/// What is printed.
fn page(arguments: &Inspect, given: &Given, environment: &Environment, monitor: &Monitor) -> Result<String> {
    let (spec, options, selection) = match arguments.resolve(given, environment)? {
        Subject::Source(source) => *source,
        Subject::Sif(path) => return sif::inspection(arguments, &path, environment, monitor)?.page(arguments.json),
    };
    let source = sources::open(&spec, &options, monitor)?;
    let one = spec.image().is_some() || selection.image.is_some() || selection.platform.is_some();
    let mut images = if one { vec![ImageView::of(&source.select(&selection)?)] } else { all(&source)? };
    let index_attached = match &spec {
        Spec::Registry(name) => list_attached(&mut images, &name.parse()?, &options.registry, monitor)?,
        _ => {
            images.iter_mut().for_each(|image| image.attached = Some(Vec::new()));
            Some(Vec::new())
        }
    };
    let mut record = SourceRecord::of(&arguments.source, spec.path());
    record.kind = Some(source.kind().to_string());
    if let Some((sha256, size)) = source.sha256()? {
        (record.sha256, record.size) = (Some(sha256.hex()), Some(size));
        if source.kind() == "docker-archive" {
            images.iter_mut().for_each(|image| image.image_hash.docker_archive = Some(sha256.hex()));
        }
    }
    Inspection { schema_version: 1, source: record, images, index_attached, sif: None }.page(arguments.json)
}

/// All images that the source lists. One that cannot be opened hides none of the others. Of those on a registry, the one
/// for this machine is opened, and the others are shown as the index lists them: every look at one would be a request.
fn all(source: &Source) -> Result<Vec<ImageView>> {
    let images = source.images();
    if images.is_empty() && source.kind() == "docker" {
        // A name that leads to something else says to what: a SIF, a signature.
        source.select(&Selection::default())?;
    }
    let is_unread = images.iter().any(|candidate| candidate.unread);
    let ours = if is_unread { source.select(&Selection::default()).map(Some) } else { Ok(None) };
    let ours = ours.or_else(|error| match error.kind() {
        // There is none for this machine, or there are several.
        ErrorKind::SourceUnavailable | ErrorKind::Usage => Ok(None),
        _ => Err(error),
    })?;
    let is_ours = |image: &&Image, listed: &Candidate| image.manifest_digest == listed.manifest_digest;
    let view = |(position, candidate): (usize, Candidate)| {
        if candidate.unread {
            let ours = ours.as_ref().filter(|image| is_ours(image, &candidate));
            let view = ours.map_or_else(|| ImageView::listed(&candidate), ImageView::of);
            return ImageView { index: Some(position), ..view };
        }
        let opened = match &candidate.absent {
            None => source.select_at(position),
            Some(why) => Err(Error::new(ErrorKind::InvalidImage, why)),
        };
        let view = opened.map_or_else(|error| ImageView::unreadable(&candidate, &error), |image| ImageView::of(&image));
        ImageView { index: Some(position), tags: candidate.tags, ..view }
    };
    Ok(images.into_iter().enumerate().map(view).collect())
}

/// Asks what is attached to the images, and to the index that lists them. That a registry does not say so hides nothing else.
fn list_attached(
    images: &mut [ImageView],
    reference: &Reference,
    settings: &Settings,
    monitor: &Monitor,
) -> Result<Option<Vec<Referrer>>> {
    let mut list = ReferrerList::open(reference, settings, monitor)?;
    let mut ask = |digest: &Option<String>, warnings: &mut Vec<String>| {
        let Some(digest) = digest.as_deref().and_then(|text| text.parse().ok()) else { return Ok(Some(Vec::new())) };
        match list.of(digest) {
            Ok(attached) => Ok(Some(attached)),
            Err(error) => {
                monitor.check()?;
                warnings.push(format!("what is attached is not known: {error}"));
                Ok(None)
            }
        }
    };
    let of_index = match images.first_mut() {
        // All are of the one index that the name leads to.
        Some(first) => ask(&first.index_digest.clone(), &mut first.warnings)?,
        None => Some(Vec::new()),
    };
    // Of many only the one that was opened, for this machine: each takes a request, and one for all that is attached.
    let asks_all = images.len() <= ASKED_MAX;
    for image in images.iter_mut().filter(|image| asks_all || image.id.is_some()) {
        image.attached = ask(&image.manifest_digest.clone(), &mut image.warnings)?;
    }
    Ok(of_index)
}

impl ImageView {
    fn of(image: &Image) -> Self {
        ImageView {
            names: image.names.clone(),
            id: Some(image.id().to_string()),
            manifest_digest: text(&image.manifest_digest),
            index_digest: text(&image.index_digest),
            platform: Some(image.platform().to_string()),
            created: image.config.created().map(Timestamp::to_rfc3339),
            config: Some(ConfigView::of(&image.config)),
            layers: LayerView::all(image),
            image_hash: ImageHash {
                docker_image: text(&image.index_digest.or(image.manifest_digest)),
                ..ImageHash::default()
            },
            warnings: image.warnings.iter().cloned().chain(notes_of(image).iter().map(Note::to_string)).collect(),
            ..ImageView::default()
        }
    }

    fn unreadable(candidate: &Candidate, error: &Error) -> Self {
        ImageView { problem: Some(error.to_string()), ..ImageView::listed(candidate) }
    }

    /// What an index says of it.
    fn listed(candidate: &Candidate) -> Self {
        ImageView {
            names: candidate.names.clone(),
            id: text(&candidate.id),
            manifest_digest: text(&candidate.manifest_digest),
            index_digest: text(&candidate.index_digest),
            platform: candidate.platform.as_ref().map(ToString::to_string),
            ..ImageView::default()
        }
    }
}

impl ConfigView {
    fn of(config: &Config) -> Self {
        ConfigView {
            entrypoint: config.entrypoint().to_vec(),
            cmd: config.cmd().to_vec(),
            env: config.env().to_vec(),
            working_dir: config.working_dir().to_string(),
            user: config.user().to_string(),
            labels: config.labels().clone(),
        }
    }
}

impl LayerView {
    /// All layers of an image, the lowest first.
    fn all(image: &Image) -> Vec<Self> {
        let of_chain = image.history.iter().filter_map(Value::as_array).flatten();
        let of_chain = of_chain.map(|line| line["created_by"].as_str().unwrap_or_default());
        let of_config = image.config.history().iter().filter(|it| !it.empty_layer).map(|it| it.created_by.as_str());
        let made: Vec<&str> = of_chain.chain(of_config).collect();
        // A history of another length does not say which layer is whose.
        let made_by = |at: usize| if made.len() == image.layers.len() { made.get(at).copied() } else { None };
        let layers = image.layers.iter().enumerate();
        layers.map(|(at, layer)| LayerView::of(image, layer, made_by(at).filter(|text| !text.is_empty()))).collect()
    }

    fn of(image: &Image, layer: &Layer, created_by: Option<&str>) -> Self {
        let region = image.blobs.region(&layer.blob).ok().flatten();
        let compression = region.as_ref().and_then(|region| {
            let mut start = Vec::with_capacity(Codec::SNIFF_BYTES);
            region.reader().take(Codec::SNIFF_BYTES as u64).read_to_end(&mut start).ok()?;
            Some(Codec::sniff(&start).to_string())
        });
        LayerView {
            key: layer.blob.key.clone(),
            digest: text(&layer.blob.digest),
            diff_id: text(&layer.diff_id),
            size: layer.blob.size.or(region.map(|region| region.len)),
            compression,
            media_type: layer.blob.media_type.clone(),
            created_by: created_by.map(str::to_string),
        }
    }
}

/// What a conversion would say, as far as the documents tell.
fn notes_of(image: &Image) -> Vec<Note> {
    let mut notes = forecast(&image.config);
    notes.extend(output::other_machine(&image.platform().architecture));
    notes
}

fn text(digest: &Option<Digest>) -> Option<String> {
    digest.as_ref().map(Digest::to_string)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::sync::Arc;

    use super::*;
    use crate::image::{BlobRef, Blobs};

    struct Nothing;

    impl Blobs for Nothing {
        fn open(&self, _blob: &BlobRef) -> Result<Box<dyn Read + Send + '_>> {
            Err(Error::new(ErrorKind::Bug, "inspect must not read layers"))
        }

        fn name(&self) -> String {
            "nothing".to_string()
        }
    }

    fn inspection() -> Inspection {
        let config = br#"{"created":"2026-01-02T03:04:05Z","architecture":"amd64","os":"linux",
            "config":{"Env":["A=\u001b[2J"],"Cmd":["sh","-c"],"WorkingDir":"/w","Labels":{"k":"v"}},
            "history":[{"created_by":"/bin/sh -c #(nop) ADD file:\u001b[2J in /"},{"created_by":"ENV A=1","empty_layer":true}]}"#;
        let blob = BlobRef { key: "a/layer.tar".into(), digest: None, size: Some(2048), media_type: None };
        let layers = vec![Layer { blob, diff_id: Some(Digest::of(b"x")) }];
        let image = Image {
            names: vec!["host/x:1".into()],
            warnings: vec!["odd".into()],
            ..Image::new(Arc::new(Nothing), Config::parse(config.as_slice()).unwrap(), layers)
        };
        let absent = Candidate { names: vec!["y:2".into()], ..Candidate::default() };
        let other = ImageView::unreadable(&absent, &Error::new(ErrorKind::InvalidImage, "its config is missing"));
        let source = SourceRecord::of(OsStr::new("x.tar"), None);
        let attached = || Some(Vec::new());
        let first = ImageView { index: Some(0), attached: attached(), ..ImageView::of(&image) };
        Inspection {
            schema_version: 1,
            source,
            images: vec![first, ImageView { index: Some(1), attached: attached(), ..other }],
            index_attached: Some(Vec::new()),
            sif: None,
        }
    }

    #[test]
    fn words_are_readable_and_harmless() {
        let inspection = inspection();
        let id = inspection.images[0].id.clone().unwrap();
        let diff_id = &Digest::of(b"x").hex()[..12];
        let expected = format!(
            r#"source         "x.tar" (unknown)
images         2

image @0
  names        "host/x:1"
  id           {id}
  platform     linux/amd64
  created      2026-01-02T03:04:05Z
  cmd          "sh" "-c"
  workdir      "/w"
  env          "A=\u{{1b}}[2J"
  label        "k"="v"
  layers       1, 2.0 KiB stored

     #        SIZE  STORED  DIFF_ID       MADE BY
     1     2.0 KiB  ?       {diff_id}  ADD file:\u{{1b}}[2J in /

  warning      odd
  warning      WORKDIR is "/w", but Singularity does not start there: convert with --workdir, or run with --pwd

image @1
  names        "y:2"
  problem      its config is missing
"#
        );
        assert_eq!(inspection.words(), expected);
    }

    #[test]
    fn json_has_every_key() {
        let json = serde_json::to_value(inspection()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json["images"][0]), keys(&json["images"][1]));
        assert_eq!(json["images"][0]["config"]["env"][0], "A=\u{1b}[2J");
        assert_eq!(json["images"][1]["problem"], "its config is missing");
    }
}
