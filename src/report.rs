//! What a conversion was made from, what was found, and what was written.
//!
//! Every key is always there when it is serialised; what is not known is `null`. A key is never renamed or removed.

mod provenance;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use crate::image::Image;
use crate::model::{Digest, Note, Timestamp};
use crate::output::{Destination, Outcome, PushedBlobs};

/// All that is known of a conversion; it grows while the conversion runs.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Where the image came from.
    pub source: Option<SourceRecord>,
    /// The image that was selected.
    pub image: Option<ImageRecord>,
    /// What was written.
    pub output: Option<OutputRecord>,
    /// The SIFs that are attached to a hosted image, where that was asked for.
    pub attached: Option<Vec<AttachedSif>>,
    /// The signatures of SIFs that are attached to a hosted image, where that was asked for.
    pub attached_signatures: Option<Vec<AttachedSignature>>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// Where the image came from.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct SourceRecord {
    /// The SOURCE word as given.
    pub spelling: String,
    /// What it turned out to be.
    pub kind: Option<String>,
    /// The absolute path of a local source.
    pub path: Option<String>,
    /// Bytes of the input file.
    pub size: Option<u64>,
    /// SHA-256 of the input file in hex.
    pub sha256: Option<String>,
}

/// The image that was selected.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ImageRecord {
    /// The image ID: the digest of its config.
    pub id: String,
    /// The same.
    pub config_digest: String,
    /// The digest of its manifest, where there is one.
    pub manifest_digest: Option<String>,
    /// The digest of the index that led to it, where there is one.
    pub index_digest: Option<String>,
    /// All its names.
    pub names: Vec<String>,
    /// The name under which it is recorded, where it has one.
    pub reference: Option<String>,
    /// What it is for: OS/ARCH[/VARIANT].
    pub platform: String,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// The digests of its uncompressed layers, lowest first.
    pub diff_ids: Vec<Option<String>>,
}

/// A SIF that is attached to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AttachedSif {
    /// What it runs on.
    pub platform: String,
    /// The image ID of its image.
    pub image_id: String,
    /// The digest of that image's manifest.
    pub image_manifest_digest: String,
    /// The digest of the SIF's own manifest.
    pub manifest_digest: String,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
    /// Bytes of the file.
    pub size: u64,
    /// Whether it was attached now, and not before.
    pub is_new: bool,
}

/// A signature of a SIF that is attached to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AttachedSignature {
    /// What the SIF runs on.
    pub platform: String,
    /// The digest of the manifest of the image that the SIF is made from.
    pub image_manifest_digest: String,
    /// The digest of the signature's own manifest.
    pub manifest_digest: String,
    /// SHA-256 of the signature, in hex.
    pub sha256: String,
    /// What it says of its keys. Nothing is verified.
    pub key_ids: String,
    /// Whether it was attached now, and not before.
    pub is_new: bool,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct OutputRecord {
    /// The absolute path; `-` is standard output; `docker://…` and `oras://…` are on a registry.
    pub path: String,
    /// Its format.
    pub format: &'static str,
    /// Bytes of the output.
    pub size: u64,
    /// SHA-256 of the output in hex, where it was asked for.
    pub sha256: Option<String>,
    /// Names in the output.
    pub entries: u64,
    /// The image ID of an image that was written: another than the source's where it was flattened.
    pub image_id: Option<String>,
    /// The digest of its manifest, where there is one.
    pub manifest_digest: Option<String>,
    /// What it took to push it, where it went to a registry.
    pub pushed: Option<PushedBlobs>,
}

impl SourceRecord {
    /// What the SOURCE word alone says. `path` is where it points to, if to a local place.
    pub fn of(spelling: &OsStr, path: Option<&Path>) -> Self {
        let size = path.and_then(|path| std::fs::metadata(path).ok()).filter(|data| data.is_file());
        SourceRecord {
            spelling: text(spelling),
            kind: None,
            path: path.map(absolute),
            size: size.map(|data| data.len()),
            sha256: None,
        }
    }
}

impl ImageRecord {
    /// Describes `image`, to be recorded under `reference` if that is given.
    pub fn of(image: &Image, reference: Option<&str>) -> Self {
        let id = image.id().to_string();
        ImageRecord {
            config_digest: id.clone(),
            id,
            manifest_digest: image.manifest_digest.as_ref().map(Digest::to_string),
            index_digest: image.index_digest.as_ref().map(Digest::to_string),
            reference: reference.or(image.names.first().map(String::as_str)).map(str::to_string),
            names: image.names.clone(),
            platform: image.platform().to_string(),
            created: image.config.created().map(Timestamp::to_rfc3339),
            diff_ids: image.layers.iter().map(|layer| layer.diff_id.as_ref().map(Digest::to_string)).collect(),
        }
    }
}

impl OutputRecord {
    /// Describes what was written in `format` to `destination`.
    pub fn of(format: &'static str, destination: &Destination, outcome: &Outcome) -> Self {
        OutputRecord {
            path: place_of(destination),
            format,
            size: outcome.size,
            sha256: outcome.sha256.as_ref().map(Digest::hex),
            entries: outcome.entries,
            image_id: outcome.image_id.as_ref().map(Digest::to_string),
            manifest_digest: outcome.manifest_digest.as_ref().map(Digest::to_string),
            pushed: outcome.pushed,
        }
    }
}

impl OutputRecord {
    /// Describes the index of SIFs at `place` on a registry.
    #[cfg(feature = "program")]
    pub(crate) fn of_attached(place: &str, index: Option<Digest>, sifs: &[AttachedSif]) -> Self {
        OutputRecord {
            path: place.to_string(),
            format: "sif",
            size: sifs.iter().map(|sif| sif.size).sum(),
            sha256: None,
            entries: sifs.len() as u64,
            image_id: None,
            manifest_digest: index.as_ref().map(Digest::to_string),
            pushed: None,
        }
    }
}

/// A path, or a place on a registry as a source is written.
fn place_of(destination: &Destination) -> String {
    match destination {
        Destination::Stdout => "-".to_string(),
        Destination::Path(path) => absolute(path),
        Destination::Registry(hosting) => hosting.to_string(),
    }
}

/// Bytes of the operating system as JSON can hold them: what is not UTF-8 becomes `\xff`.
pub(crate) fn text(bytes: &OsStr) -> String {
    let mut text = String::new();
    for chunk in bytes.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

fn absolute(path: &Path) -> String {
    text(std::path::absolute(path).as_deref().unwrap_or(path).as_os_str())
}
