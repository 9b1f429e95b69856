//! A SIF, as its own records tell it, and as the image that it would become.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{ConfigView, ImageHash, ImageView, Inspect, Inspection};
use crate::cli::environment::Environment;
use crate::cli::options::open_options;
use crate::error::{ErrorKind, Result, ResultExt};
use crate::image::Image;
use crate::io::{Monitor, Region};
use crate::model::{Quoted, Timestamp};
use crate::output::HIDDEN_IMAGE;
use crate::output::{self, SignatureForm, Signer};
use crate::report::SourceRecord;
use crate::sif::{Container, Descriptor, Link, read_seal};
use crate::source::{self as sources, Selection, Spec};

/// What a SIF holds.
#[derive(Debug, Serialize)]
pub(super) struct SifView {
    /// The first line of the file: the program that the kernel runs it with.
    pub(super) launch: String,
    /// A digest of the choices that decide what is inside, where this program wrote it and they are not the usual ones.
    pub(super) options: Option<String>,
    /// The number of the output format that this program wrote it in.
    output_format: Option<u32>,
    pub(super) objects: Vec<ObjectView>,
    pub(super) signatures: Vec<SignatureView>,
}

/// One object of it.
#[derive(Debug, Serialize)]
pub(super) struct ObjectView {
    pub(super) id: u32,
    /// What it is, in words.
    pub(super) kind: String,
    pub(super) name: String,
    /// In bytes, as the descriptor says.
    pub(super) size: i64,
    group: Option<u32>,
    created: Option<String>,
}

/// One signature, which is not checked here.
#[derive(Debug, Serialize)]
pub(super) struct SignatureView {
    /// The object that it is.
    object: u32,
    /// What it is over: "object 3" or "group 1".
    over: String,
    /// The fingerprint of the key that it claims, in hexadecimal digits; absent where it names none.
    fingerprint: Option<String>,
    /// How it is written: `dsse`, `pgp` or `unknown`.
    form: &'static str,
    /// The IDs of the keys that it claims, as ssh-keygen shows them.
    key_ids: Vec<String>,
}

impl fmt::Display for SignatureView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} over {}", self.object, self.over)?;
        let ids: Vec<&str> = self.fingerprint.iter().chain(&self.key_ids).map(String::as_str).collect();
        if !ids.is_empty() {
            write!(f, " by {}", ids.join(", "))?;
        }
        f.write_str(", not checked")
    }
}

impl SifView {
    fn of(container: &Container, path: &Path) -> Result<Self> {
        let seal = read_seal(container)?.map(|(seal, _)| seal);
        let launch = container.header().launch_script();
        let launch = launch.strip_prefix(b"#!").unwrap_or(launch);
        Ok(SifView {
            launch: Quoted(launch.trim_ascii()).to_string().trim_matches('"').to_string(),
            output_format: seal.as_ref().map(|seal| seal.format),
            options: seal.and_then(|seal| seal.options),
            objects: container.descriptors().map(ObjectView::of).collect(),
            signatures: output::signers(path)?.into_iter().map(SignatureView::of).collect(),
        })
    }
}

impl ObjectView {
    fn of(descriptor: &Descriptor) -> Self {
        let created = descriptor.created_seconds;
        ObjectView {
            id: descriptor.id,
            kind: descriptor.to_string(),
            name: Quoted(descriptor.name()).to_string().trim_matches('"').to_string(),
            size: descriptor.size,
            group: descriptor.group(),
            created: (created > 0).then(|| Timestamp::from_seconds(created).to_rfc3339()),
        }
    }
}

impl SignatureView {
    fn of(signer: Signer) -> Self {
        let over = match signer.link {
            Link::None => "nothing".to_string(),
            Link::Object(id) => format!("object {id}"),
            Link::Group(group) => format!("group {group}"),
        };
        let form = match signer.form {
            SignatureForm::Dsse => "dsse",
            SignatureForm::Pgp => "pgp",
            SignatureForm::Unknown => "unknown",
        };
        let ids = signer.key_ids.into_iter().map(|id| Quoted(id.as_bytes()).to_string().trim_matches('"').to_string());
        let (pgp, others): (Vec<String>, Vec<String>) = ids.partition(|_| signer.form == SignatureForm::Pgp);
        SignatureView { object: signer.object, over, form, fingerprint: pgp.into_iter().next(), key_ids: others }
    }
}

/// What the SIF at `path` holds.
pub(super) fn inspection(
    arguments: &Inspect,
    path: &Path,
    environment: &Environment,
    monitor: &Monitor,
) -> Result<Inspection> {
    let doing = || format!("reading {path:?}");
    let region = Region::open(path).doing(doing)?;
    let size = region.len;
    let container = Container::open(region).doing(doing)?;
    let view = SifView::of(&container, path).doing(doing)?;
    let mut source = SourceRecord::of(&arguments.source, Some(path));
    (source.kind, source.size) = (Some("sif".to_string()), Some(size));
    let mut image = ImageView {
        id: read_seal(&container)
            .doing(doing)?
            .map(|(seal, _)| seal.image)
            .filter(|image| !image.starts_with(HIDDEN_IMAGE)),
        platform: container.header().architecture.goarch().map(|name| format!("linux/{name}")),
        ..ImageView::default()
    };
    // Encrypted ones and those of several layers are not an image that could be read; their objects are shown all the same.
    match as_image(arguments, path, environment, monitor) {
        Ok(read) => {
            image.created = read.config.created().map(Timestamp::to_rfc3339);
            image.config = Some(ConfigView::of(&read.config));
            image.warnings = read.warnings;
        }
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::InvalidImage) => {
            image.problem = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    if arguments.json {
        let sha256 = output::hash_file(path, monitor).doing(doing)?;
        source.sha256 = Some(sha256.hex());
        image.image_hash = ImageHash { singularity_file: Some(sha256.hex()), ..ImageHash::default() };
    }
    image.attached = Some(Vec::new());
    Ok(Inspection { schema_version: 1, source, images: vec![image], index_attached: Some(Vec::new()), sif: Some(view) })
}

/// The image that a conversion of it would begin with.
fn as_image(arguments: &Inspect, path: &Path, environment: &Environment, monitor: &Monitor) -> Result<Image> {
    let options = open_options(&arguments.choice, false, environment)?;
    sources::open(&Spec::Path(path.to_path_buf()), &options, monitor)?.select(&Selection::default())
}
