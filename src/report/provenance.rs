//! What an output was made from and how, as a statement that others sign: in-toto Statement v1
//! (<https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>) with SLSA provenance v1
//! (<https://slsa.dev/spec/v1.0/provenance>).

use std::path::Path;

use serde_json::{Value, json};

use super::{ImageRecord, OutputRecord, Report, SourceRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::model::OUTPUT_FORMAT;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What the external parameters mean: docs/signing.md says it.
const BUILD_TYPE: &str = "https://github.com/mlcommons/sif-convert/conversion/v1";
const BUILDER: &str = "https://github.com/mlcommons/sif-convert";

impl Report {
    /// The provenance of the output. It has no time: the same conversion gives the same statement. `arguments` are the words
    /// of a command line, for who wants to repeat it.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] when there is no output, no image, or nothing with a digest.
    pub fn provenance(&self, arguments: &[String]) -> Result<Value> {
        let unknown = |what| Error::new(ErrorKind::Bug, format!("provenance of an output without {what}"));
        let source = self.source.as_ref().ok_or_else(|| unknown("a source"))?;
        let image = self.image.as_ref().ok_or_else(|| unknown("an image"))?;
        let output = self.output.as_ref().ok_or_else(|| unknown("a record"))?;
        let subjects = subjects(output);
        if subjects.is_empty() {
            return Err(unknown("a digest"));
        }
        Ok(json!({
            "_type": STATEMENT,
            "subject": subjects,
            "predicateType": PREDICATE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "source": source.spelling,
                        "format": output.format,
                        "platform": image.platform,
                        "arguments": arguments,
                    },
                    "internalParameters": { "outputFormat": OUTPUT_FORMAT },
                    "resolvedDependencies": dependencies(source, image),
                },
                "runDetails": {
                    "builder": { "id": BUILDER, "version": { "sif-convert": env!("CARGO_PKG_VERSION") } },
                },
            },
        }))
    }
}

/// The file, and the manifest where there is one to be known by.
fn subjects(output: &OutputRecord) -> Vec<Value> {
    let is_hosted = output.path.contains("://");
    let name = match Path::new(&output.path).file_name().filter(|_| !is_hosted) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => output.path.clone(),
    };
    let file = output.sha256.as_ref().map(|hex| {
        let name = if is_hosted { format!("{name}.{}", output.format) } else { name.clone() };
        json!({ "name": name, "digest": { "sha256": hex } })
    });
    // That of an archive lies in the file.
    let manifest = output.manifest_digest.as_deref().filter(|_| is_hosted || file.is_none());
    let manifest = manifest.and_then(|digest| Some(json!({ "name": name, "digest": digest_set(digest)? })));
    manifest.into_iter().chain(file).collect()
}

/// All that is known of the source by a digest.
fn dependencies(source: &SourceRecord, image: &ImageRecord) -> Vec<Value> {
    let file = source.sha256.as_ref().map(|hex| format!("sha256:{hex}"));
    let documents = [
        ("source", file.as_ref()),
        ("image index", image.index_digest.as_ref()),
        ("image manifest", image.manifest_digest.as_ref()),
        ("image config", Some(&image.id)),
    ];
    let documents = documents.into_iter().filter_map(|(name, digest)| Some((name.to_string(), digest?.clone())));
    let layers = image.diff_ids.iter().enumerate();
    let layers = layers.filter_map(|(at, id)| Some((format!("layer {}, uncompressed", at + 1), id.clone()?)));
    let mut dependencies: Vec<Value> = documents
        .chain(layers)
        .filter_map(|(name, digest)| Some(json!({ "name": name, "digest": digest_set(&digest)? })))
        .collect();
    // What the first of them was asked for by.
    if let (Some(first), true) = (dependencies.first_mut(), source.spelling.contains("://")) {
        first["uri"] = json!(source.spelling);
    }
    dependencies
}

/// `sha256:…` as a DigestSet.
fn digest_set(digest: &str) -> Option<Value> {
    let (algorithm, hex) = digest.split_once(':')?;
    Some(json!({ algorithm: hex }))
}
