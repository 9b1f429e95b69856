//! What a SIF was made from, beside its bytes: an extended attribute of the file.
//!
//! The manifest and the index that led to an image differ from registry to registry, and an archive has neither; the same
//! image must give the same bytes all the same. So they are recorded where they change no content. The attribute is lost
//! where a file is copied without it, and file systems without `user.` attributes keep none: then the source is asked.

use std::fs::File;
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};
use serde::{Deserialize, Serialize};

use crate::image::Image;
use crate::model::Digest;

const NAME: &str = "user.sif-convert.origin";
/// Three digests and their keys take 300 bytes.
const BYTES_MAX: usize = 1024;

/// The digests by which an image was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The image ID, which the file itself says too.
    image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<String>,
}

impl Origin {
    pub(super) fn of(image: &Image) -> Self {
        let text = |digest: Option<Digest>| digest.map(|digest| digest.to_string());
        Origin { image: image.id().to_string(), manifest: text(image.manifest_digest), index: text(image.index_digest) }
    }

    /// Records it, where the file system can.
    pub(super) fn record(&self, file: &File) {
        // Nothing depends on it but whether a source is asked again.
        if let Ok(text) = serde_json::to_vec(self) {
            let _ = fsetxattr(file, NAME, &text, XattrFlags::empty());
        }
    }

    /// What the file at `path` records.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut text = vec![0; BYTES_MAX];
        let length = getxattr(path, NAME, &mut text[..]).ok()?;
        serde_json::from_slice(text.get(..length)?).ok()
    }

    /// Whether a file of the image `image`, as the file itself says, was found by `digest`.
    pub(super) fn led_to(&self, image: &str, digest: Digest) -> bool {
        let digest = digest.to_string();
        self.image == image && [self.manifest.as_ref(), self.index.as_ref()].contains(&Some(&digest))
    }
}
