//! Tells images from what is packed like them: signatures, charts, modules, SIF files.

use crate::error::{Error, ErrorKind};
use crate::model::{Descriptor, Digest, Manifest};

/// BuildKit marks attestation manifests with annotations below this.
const ATTESTATION_TYPE: &str = "vnd.docker.reference.type";
const ATTESTATION_DIGEST: &str = "vnd.docker.reference.digest";

const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// What registries and Docker 1.10 and 1.11 wrote for the type of a config (moby#22378, distribution#1621).
const ANY_CONFIGS: [&str; 5] = ["", "application/octet-stream", "application/json", "text/html", "text/plain"];
/// The config of a manifest that has none (image-spec, manifest.md).
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// What something is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// An image, as far as one can see.
    Image,
    /// Something else: the media type that says so.
    Artifact(String),
}

/// Artifacts that people may take for an image: how their type begins, what they are, what to do with them.
const KNOWN: [(&str, &str, &str); 10] = [
    ("application/vnd.sylabs.sif", "a SIF file", "on a registry, name it oras://HOST/NAME:TAG"),
    ("application/vnd.wasm", "a WebAssembly module", WASM),
    ("application/wasm", "a WebAssembly module", WASM),
    ("application/vnd.cncf.helm", "a Helm chart", "give the image that the chart names"),
    ("application/vnd.docker.plugin", "a Docker plugin", "give the image that the plugin was made from"),
    ("application/vnd.docker.ai", "a model", OTHER),
    ("application/vnd.ollama", "a model", OTHER),
    ("application/vnd.nydus", "a Nydus image", "push it again in layers of tar, without conversion to Nydus"),
    ("application/vnd.amazon.soci", "a SOCI index", OTHER),
    ("application/vnd.dev.cosign", "a signature", OTHER),
];

const WASM: &str = "run it with a WebAssembly runtime such as wasmtime";
const OTHER: &str = "give an image; oras pull fetches what is none";

/// Whether a descriptor says that it leads to an index.
pub(super) fn is_index(descriptor: &Descriptor) -> bool {
    INDEXES.contains(&plain(&descriptor.media_type).as_str())
}

/// Whether a descriptor may lead to an image, as far as its media type goes.
pub(super) fn may_be_image(descriptor: &Descriptor) -> bool {
    let kind = plain(&descriptor.media_type);
    is_index(descriptor) || MANIFESTS.contains(&kind.as_str()) || ANY_CONFIGS.contains(&kind.as_str())
}

/// What BuildKit adds beside an image.
pub(super) fn is_attestation(descriptor: &Descriptor) -> bool {
    let unknown = descriptor.platform().is_some_and(|it| it.os == "unknown" && it.architecture == "unknown");
    unknown || [ATTESTATION_TYPE, ATTESTATION_DIGEST].iter().any(|key| descriptor.annotation(key).is_some())
}

/// The manifest that such an entry is about, where it says so.
pub(super) fn subject_of_attestation(descriptor: &Descriptor) -> Option<Digest> {
    descriptor.annotation(ATTESTATION_DIGEST)?.parse().ok()
}

/// What an entry of an index leads to, as far as it says.
pub(super) fn of_descriptor(descriptor: &Descriptor) -> Content {
    let kind = plain(&descriptor.artifact_type);
    if kind.is_empty() || IMAGE_CONFIGS.contains(&kind.as_str()) {
        return Content::Image;
    }
    Content::Artifact(kind)
}

/// What a manifest describes. Signatures and attestations use image configs too, but their layers are JSON.
pub(super) fn of_manifest(manifest: &Manifest) -> Content {
    let config = plain(&manifest.config.media_type);
    let layers = || manifest.layers.iter().map(|layer| plain(&layer.media_type));
    let first_layer = layers().next().unwrap_or_default();
    let artifact = plain(&manifest.artifact_type);
    if IMAGE_CONFIGS.contains(&config.as_str()) {
        let only_json = !first_layer.is_empty() && layers().all(|layer| layer.ends_with("json"));
        return if only_json { Content::Artifact(first_layer) } else { Content::Image };
    }
    if ANY_CONFIGS.contains(&config.as_str()) && artifact.is_empty() && layers().all(|layer| may_be_layer(&layer)) {
        return Content::Image;
    }
    let says_nothing = |kind: &str| kind == EMPTY || ANY_CONFIGS.contains(&kind) || kind.contains(".unknown.");
    let kind = [artifact, config, first_layer].into_iter().find(|kind| !says_nothing(kind));
    Content::Artifact(kind.unwrap_or_else(|| EMPTY.to_string()))
}

fn may_be_layer(media_type: &str) -> bool {
    ANY_CONFIGS.contains(&media_type)
        || ["application/vnd.docker.image.rootfs.", "application/vnd.oci.image.layer."]
            .iter()
            .any(|start| media_type.starts_with(start))
}

/// The error for somebody who wants a file system out of an artifact. `what` is what messages call it.
pub(super) fn unsupported(what: &str, kind: &str) -> Error {
    let known = KNOWN.iter().find(|(start, ..)| kind.starts_with(start));
    let (name, hint) = known.map_or(("an artifact", OTHER), |(_, name, hint)| (name, hint));
    Error::new(ErrorKind::Unsupported, format!("{what} is not an image but {name} ({kind})")).hint(hint).of_artifact()
}

/// A media type without parameters, in small letters.
fn plain(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(config: &str, layers: &[&str], artifact: &str) -> Manifest {
        let layers: Vec<_> = layers.iter().map(|kind| serde_json::json!({"mediaType": kind})).collect();
        let document = serde_json::json!({"artifactType": artifact, "config": {"mediaType": config}, "layers": layers});
        Manifest::parse(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn images_are_told_from_artifacts() {
        let tar = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        for config in ["application/vnd.oci.image.config.v1+json", "", "text/html; charset=utf-8", "Application/JSON"] {
            assert_eq!(of_manifest(&manifest(config, &[tar, ""], "")), Content::Image, "{config}");
        }
        for (config, layer, artifact, kind) in [
            ("application/vnd.unknown.config.v1+json", "text/x", "", "text/x"),
            ("application/vnd.oci.empty.v1+json", "application/wasm", "application/x", "application/x"),
            ("application/json", "application/vnd.acme", "", "application/vnd.acme"),
            ("application/json", tar, "application/vnd.acme", "application/vnd.acme"),
            ("application/vnd.wasm.config.v0+json", "application/wasm", "", "application/vnd.wasm.config.v0+json"),
            (
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.in-toto+json",
                "",
                "application/vnd.in-toto+json",
            ),
        ] {
            let found = of_manifest(&manifest(config, &[layer], artifact));
            assert_eq!(found, Content::Artifact(kind.to_string()));
        }
    }
}
