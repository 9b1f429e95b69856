use super::catalogue::{Found, FoundManifest, MemberList};
use super::docker::digest_of_blob_name;
use super::document::Store;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::image::{BlobRef, Layer};
use crate::model::{Descriptor, Digest};

/// How many layers an image may have: Docker takes 127, and the files of a layout's layers are open at once.
pub(super) const LAYERS_MAX: usize = 1 << 10;

const DAMAGED: &str = "the image is damaged or incomplete: fetch or save it again";

/// The layers of an image, lowest first, each with the blob that is there for it.
///
/// The config's diff_ids decide the order. Where `manifest.json` lists the image its members are taken, one for each
/// diff_id: Docker 25.0.0 wrote OCI manifests in random order (moby#47150) and its release candidates with wrong sizes
/// (moby#47072), so nothing but media types is believed of them then.
pub(super) fn layers(store: &dyn Store, found: &Found, manifest: Option<&FoundManifest>) -> Result<Vec<Layer>> {
    let diff_ids = match &found.config {
        Some(config) => config.diff_ids()?,
        None => Vec::new(),
    };
    if diff_ids.len() > LAYERS_MAX {
        let message = format!("the image has {} layers, more than {LAYERS_MAX}", diff_ids.len());
        return Err(Error::new(ErrorKind::Unsupported, message).hint("make one layer of them, and save it again"));
    }
    match (&found.members, manifest) {
        (Some(list), _) if found.v1_id.is_some() || found.diff_ids_unknown => {
            list.names.iter().map(|name| Ok(Layer { blob: member(store, list, name)?, diff_id: None })).collect()
        }
        (Some(list), manifest) => {
            agree(list.names.len(), diff_ids.len(), &list.listed_in)?;
            let pairs = list.names.iter().zip(&diff_ids).enumerate();
            pairs.map(|(at, (name, diff_id))| of_member(store, list, name, (at, *diff_id), manifest)).collect()
        }
        (None, Some(manifest)) => {
            let listed = &manifest.document.layers;
            listed.iter().enumerate().try_for_each(|(at, descriptor)| foreign_format(at, descriptor))?;
            agree(listed.len(), diff_ids.len(), &format!("manifest {}", manifest.digest))?;
            let uncompressed = |diff_id: &Digest| listed.iter().find(|it| it.digest().ok().as_ref() == Some(diff_id));
            let pairs = listed.iter().zip(&diff_ids).enumerate().map(|(at, (descriptor, diff_id))| {
                // A layer that is stored uncompressed has its diff_id for a digest, wherever the manifest lists it.
                (at, (uncompressed(diff_id).unwrap_or(descriptor), diff_id))
            });
            pairs
                .map(|(at, (descriptor, diff_id))| of_descriptor(store, manifest, descriptor, (at, *diff_id)))
                .collect()
        }
        (None, None) => Ok(Vec::new()),
    }
}

fn agree(listed: usize, diff_ids: usize, listed_in: &str) -> Result<()> {
    if listed == diff_ids {
        return Ok(());
    }
    let message = format!("{listed_in} lists {listed} layers, but the config has {diff_ids} diff_ids");
    Err(Error::new(ErrorKind::InvalidImage, message).hint(DAMAGED))
}

/// The layer that `manifest.json` lists under `name`.
fn of_member(
    store: &dyn Store,
    list: &MemberList,
    name: &str,
    (at, diff_id): (usize, Digest),
    manifest: Option<&FoundManifest>,
) -> Result<Layer> {
    let listed = manifest.and_then(|manifest| manifest.document.layers.get(at));
    let mut blob = match (member(store, list, name), stored_by_diff_id(store, diff_id)?) {
        (Ok(blob), _) | (Err(_), Some(blob)) => blob,
        (Err(missing), None) => {
            return Err(listed.and_then(|descriptor| foreign(at, descriptor)).unwrap_or(missing));
        }
    };
    let same_blob = |descriptor: &&Descriptor| blob.digest.is_some() && descriptor.digest().ok() == blob.digest;
    let described = manifest.and_then(|manifest| manifest.document.layers.iter().find(same_blob));
    blob.media_type = described.map(|descriptor| descriptor.media_type.clone());
    Ok(Layer { blob, diff_id: Some(diff_id) })
}

/// The layer that an OCI manifest describes.
fn of_descriptor(
    store: &dyn Store,
    manifest: &FoundManifest,
    descriptor: &Descriptor,
    (at, diff_id): (usize, Digest),
) -> Result<Layer> {
    let digest = descriptor.digest().doing(|| format!("layer {} of manifest {}", at + 1, manifest.digest))?;
    let key = store.key(&digest);
    let media_type = Some(descriptor.media_type.clone());
    let blob = if store.has(&key)? {
        BlobRef { key, digest: Some(digest), size: descriptor.size(), media_type }
    } else if let Some(blob) = stored_by_diff_id(store, diff_id)? {
        // Docker 26 to 28 describe a foreign layer by its registry's digest and store it uncompressed.
        blob
    } else {
        return Err(foreign(at, descriptor).unwrap_or_else(|| {
            let message =
                format!("blob {digest} (layer {}), to which manifest {} refers, is missing", at + 1, manifest.digest);
            Error::new(ErrorKind::InvalidImage, message).hint(DAMAGED)
        }));
    };
    Ok(Layer { blob, diff_id: Some(diff_id) })
}

fn member(store: &dyn Store, list: &MemberList, name: &str) -> Result<BlobRef> {
    if !store.has(name)? {
        let message = format!("member {name:?}, to which {} refers, is missing", list.listed_in);
        return Err(Error::new(ErrorKind::InvalidImage, message).hint(DAMAGED));
    }
    Ok(BlobRef { key: name.to_string(), digest: digest_of_blob_name(name), size: None, media_type: None })
}

/// The blob whose name is the diff_id: the uncompressed layer.
fn stored_by_diff_id(store: &dyn Store, diff_id: Digest) -> Result<Option<BlobRef>> {
    let key = store.key(&diff_id);
    let there = store.has(&key)?;
    Ok(there.then_some(BlobRef { key, digest: Some(diff_id), size: None, media_type: None }))
}

/// Layers that are not tars, or not readable to us: a part of their media types, what they are, what to do.
const FOREIGN_FORMATS: [(&str, &str, &str); 8] = [
    ("encrypted", "encrypted", "decrypt the image first: skopeo copy --decryption-key KEY docker://NAME oci:DIR"),
    ("squashfs", "a squashfs file system (OCI-SIF)", "run it with SingularityCE, or give the image it was made from"),
    ("erofs", "an EROFS file system", "push the image again in layers of tar"),
    ("ext4", "an ext4 file system", "push the image again in layers of tar"),
    ("nydus", "a Nydus blob", "push the image again in layers of tar, without conversion to Nydus"),
    ("wasm", "a WebAssembly module", "run it with a WebAssembly runtime such as wasmtime"),
    ("lz4", "compressed with lz4", "push the image again with gzip or zstd"),
    ("zip", "a zip archive", "push the image again in layers of tar"),
];

/// Refuses a layer whose media type says that it is something else than a tar. `gzip` ends like `zip`.
fn foreign_format(at: usize, descriptor: &Descriptor) -> Result<()> {
    let kind = descriptor.media_type.to_ascii_lowercase();
    let has = |part: &str| kind.split(|letter: char| !letter.is_ascii_alphanumeric()).any(|word| word == part);
    let format = FOREIGN_FORMATS.iter().find(|(part, ..)| has(part));
    let Some((_, what, hint)) = format else { return Ok(()) };
    let message = format!("layer {} ({}) is {what}: {:?}", at + 1, descriptor.digest_text(), descriptor.media_type);
    Err(Error::new(ErrorKind::Unsupported, message).hint(hint))
}

/// The error for a layer that is to be fetched from elsewhere, where the descriptor says so.
fn foreign(at: usize, descriptor: &Descriptor) -> Option<Error> {
    let Descriptor { media_type, urls, .. } = descriptor;
    if urls.is_empty() && !media_type.contains("foreign") && !media_type.contains("nondistributable") {
        return None;
    }
    let from = if urls.is_empty() { "no URL is given".to_string() } else { format!("it is at {}", urls.join(", ")) };
    let message =
        format!("layer {} ({}) is a foreign layer that is not stored here: {from}", at + 1, descriptor.digest_text());
    Some(Error::new(ErrorKind::Unsupported, message).hint("save the image again where the layer is stored with it"))
}
