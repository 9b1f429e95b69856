//! A SIF that a registry holds, as `apptainer push`, `oras push` and we put it there.

use std::io::Read;
use std::sync::Arc;

use super::artifact::SIF_LAYER;
use super::client::Client;
use super::settings::Settings;
use super::stream::{Blob, BlobStream};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::{Expected, Monitor, Phase};
use crate::model::{Digest, Index, Manifest, Platform, Quoted, Reference};

/// What Singularity called it before 3.7.
const OLD_SIF_LAYER: &str = "appliciation/vnd.sylabs.sif.layer.tar";

/// A SIF that a name on a registry leads to.
pub struct HostedSif {
    client: Arc<Client>,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// The SHA-256 of the file.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl HostedSif {
    /// Asks what `reference` leads to; of an index, what fits `platform`.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when nothing is there, [`ErrorKind::Network`] when the registry cannot be reached or
    /// refuses, [`ErrorKind::Unsupported`] when what is there is not a SIF.
    pub fn find(
        reference: &Reference,
        platform: &Platform,
        settings: &Settings,
        monitor: &Monitor,
    ) -> Result<HostedSif> {
        monitor.begin(Phase::Open, 0);
        let client = Arc::new(Client::for_pulling(reference, settings.clone(), monitor.clone())?);
        let asked = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_string()),
        };
        let what = format!("image {}:{asked}", reference.repository).replace(":sha256:", "@sha256:");
        let mut bytes = client.document(&format!("manifests/{asked}"), &what, reference.digest)?.bytes;
        if let Some(digest) = entry_of(&bytes, platform)? {
            bytes = client.document(&format!("manifests/{digest}"), &format!("manifest {digest}"), Some(digest))?.bytes;
        }
        let (digest, size) = layer_of(&bytes).doing(|| what.clone())?;
        Ok(HostedSif { client, manifest: Digest::of(&bytes), digest, size })
    }

    /// Its bytes, unverified; what they must be is [`HostedSif::expected`].
    ///
    /// # Errors
    /// [`ErrorKind::Network`] when the registry cannot be reached or refuses.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        self.client.monitor.expect_downloads(self.size);
        let blob = Blob { digest: self.digest, size: Some(self.size), urls: Vec::new() };
        Ok(Box::new(BlobStream::open(&self.client, &blob)?))
    }

    /// What its bytes must be.
    pub fn expected(&self) -> Expected {
        Expected { digest: Some(self.digest), size: Some(self.size) }
    }

    /// What went otherwise than was asked for.
    pub fn warnings(&self) -> Vec<String> {
        self.client.warnings()
    }
}

/// The manifest in an index that fits best; `None` where `bytes` are not an index.
fn entry_of(bytes: &[u8], wanted: &Platform) -> Result<Option<Digest>> {
    let is_index = serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|it| it.get("manifests").is_some());
    if !is_index {
        return Ok(None);
    }
    let entries = Index::parse(bytes)?.manifests;
    // Of an image that does not say what it runs on.
    if let [Ok(only)] = &entries[..]
        && only.platform().is_none()
    {
        return only.digest().map(Some);
    }
    let entries: Vec<_> = entries.iter().flatten().filter_map(|entry| Some((entry.platform()?, entry))).collect();
    let fitting = entries.iter().filter_map(|(platform, entry)| Some((platform.distance(wanted)?, entry)));
    if let Some((_, entry)) = fitting.min_by_key(|(distance, _)| *distance) {
        return entry.digest().map(Some);
    }
    let there: Vec<String> = entries.iter().map(|(platform, _)| platform.to_string()).collect();
    let message = format!("there is no SIF for {wanted}, only for {}", there.join(", "));
    Err(Error::new(ErrorKind::SourceUnavailable, message).hint("choose one of these platforms"))
}

/// The one layer. The words are Apptainer's: people and programs look for them.
fn layer_of(bytes: &[u8]) -> Result<(Digest, u64)> {
    let unsupported =
        |message: String| Error::new(ErrorKind::Unsupported, message).hint("to convert an image write docker://…");
    let manifest = Manifest::parse(bytes)?;
    let [layer] = &manifest.layers[..] else {
        let count = manifest.layers.len();
        return Err(unsupported(format!("ORAS SIF image should have a single layer, found {count}")));
    };
    let media_type = &layer.media_type;
    if media_type != SIF_LAYER && media_type != OLD_SIF_LAYER {
        return Err(unsupported(format!("invalid layer mediatype: {}", Quoted(media_type.as_bytes()))));
    }
    let size = layer.size().ok_or_else(|| Error::new(ErrorKind::InvalidImage, "its layer has no size"))?;
    Ok((layer.digest()?, size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(kind: &str) -> serde_json::Value {
        json!({ "mediaType": kind, "digest": Digest::of(b"x").to_string(), "size": 1 })
    }

    #[test]
    fn a_manifest_must_have_one_layer_that_is_a_sif() {
        let of = |layers: &[serde_json::Value]| {
            let config = json!({ "mediaType": "a/b", "digest": Digest::of(b"{}").to_string(), "size": 2 });
            layer_of(&serde_json::to_vec(&json!({ "config": config, "layers": layers })).unwrap())
        };
        for kind in [SIF_LAYER, OLD_SIF_LAYER] {
            assert_eq!(of(&[layer(kind)]).unwrap(), (Digest::of(b"x"), 1));
        }
        let words = |layers: &[serde_json::Value]| of(layers).unwrap_err().to_string();
        assert_eq!(words(&[]), "ORAS SIF image should have a single layer, found 0");
        assert_eq!(words(&[layer(SIF_LAYER), layer(SIF_LAYER)]), "ORAS SIF image should have a single layer, found 2");
        assert!(words(&[layer("application/vnd.oci.image.layer.v1.tar")]).starts_with("invalid layer mediatype: "));
    }

    #[test]
    fn an_index_is_resolved_for_the_platform() {
        let entry = |bytes: &[u8], architecture: &str| {
            json!({ "mediaType": "a/b", "digest": Digest::of(bytes).to_string(), "size": 1,
                "platform": { "os": "linux", "architecture": architecture } })
        };
        let index = json!({ "manifests": [entry(b"arm", "arm64"), entry(b"amd", "amd64")] });
        let bytes = serde_json::to_vec(&index).unwrap();
        let of = |platform: &str| entry_of(&bytes, &platform.parse().unwrap());
        assert_eq!(of("linux/amd64").unwrap(), Some(Digest::of(b"amd")));
        assert_eq!(of("linux/arm64").unwrap(), Some(Digest::of(b"arm")));
        let error = of("linux/s390x").unwrap_err().to_string();
        assert_eq!(error, "there is no SIF for linux/s390x, only for linux/arm64, linux/amd64");
        assert_eq!(entry_of(b"{}", &"linux/amd64".parse().unwrap()).unwrap(), None);
    }
}
