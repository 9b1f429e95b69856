use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What a container in the clear tells in objects, and an encrypted one keeps beside its root, encrypted. The container in
/// the clear can be made of it again, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenObjects {
    /// Definition file text.
    pub definition: String,
    /// JSON objects by name, without the checksums.
    pub json: BTreeMap<String, String>,
    /// The digest of the image config that the container was made from.
    pub image: String,
    /// A digest of the choices that decide what is inside, where they are not the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// The number of the output format.
    pub format: u32,
}

impl HiddenObjects {
    /// The name of the file that holds it.
    pub const NAME: &str = "sif-objects.json";

    /// Reads the file.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidImage`] when it is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let damaged = |error| Error::new(ErrorKind::InvalidImage, format!("{:?} is damaged: {error}", Self::NAME));
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The file.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`]: text can always be written.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::new(ErrorKind::Bug, format!("{:?}: {error}", Self::NAME)))
    }
}
