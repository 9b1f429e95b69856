//! Places on registries that outputs are pushed to.

use std::fmt;
use std::str::FromStr;

use super::CarriedSignature;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Digest, Reference};

/// The annotation with the image ID of the image that what is attached was made from.
#[cfg(feature = "network")]
pub(crate) const IMAGE: &str = "org.sif-convert.image";
/// The annotation with the number of the output format that it was made in.
#[cfg(feature = "network")]
pub(crate) const FORMAT: &str = "org.sif-convert.format";
/// The annotation with the digest of the options it was made with, where these were not the usual ones.
#[cfg(feature = "network")]
pub(crate) const OPTIONS: &str = "org.sif-convert.options";
/// The annotation with the IDs of the keys that a signature says it was made with.
#[cfg(feature = "network")]
pub(crate) const SIGNER: &str = "org.sif-convert.signer";

/// What is pushed, as the start of its address says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// `docker://`: an image.
    Docker,
    /// `oras://`: a SIF.
    Oras,
}

/// A place on a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosting {
    /// What is pushed there.
    pub transport: Transport,
    /// The repository, and the tag. Without a tag the output is known by its digest alone.
    pub reference: Reference,
    /// Repositories on the same registry that may have some of the blobs: they are mounted from there.
    pub mounts: Vec<Reference>,
    /// The image that the output is attached to, where it is.
    pub attachment: Option<Attachment>,
}

/// What attaches a SIF to an image in the same repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The media type of the image's manifest.
    pub media_type: String,
    /// The digest of that.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The name of the file that is attached.
    pub title: String,
    /// Annotations of the manifest of the SIF.
    pub annotations: Vec<(String, String)>,
    /// Whether the SIF itself is attached, and not the signatures alone.
    pub with_sif: bool,
    /// Signatures that may be of this SIF: those that are, are attached beside it. Where there are some, one must be.
    pub signatures: Vec<CarriedSignature>,
}

impl Transport {
    /// The start of an address.
    pub fn prefix(self) -> &'static str {
        match self {
            Transport::Docker => "docker://",
            Transport::Oras => "oras://",
        }
    }
}

impl Hosting {
    /// Under a name, with nothing else known.
    pub fn new(transport: Transport, reference: Reference) -> Self {
        Hosting { transport, reference, mounts: Vec::new(), attachment: None }
    }

    /// Has blobs that are in the repository of `reference` mounted, where that is on the same registry.
    pub fn mount_from(&mut self, reference: &Reference) {
        if reference.host == self.reference.host && !self.mounts.contains(reference) {
            self.mounts.push(reference.clone());
        }
    }

    /// Whether `text` begins as the address of such a place does.
    pub fn is_address(text: &str) -> bool {
        [Transport::Docker, Transport::Oras].iter().any(|transport| text.starts_with(transport.prefix()))
    }

    /// The name of a file that says where it came from.
    #[cfg(feature = "network")]
    pub(super) fn title(&self) -> String {
        let name = self.reference.repository.rsplit('/').next().unwrap_or_default();
        let tag: String = self.reference.tag.iter().map(|tag| format!("_{tag}")).collect();
        format!("{name}{tag}.sif")
    }
}

impl FromStr for Hosting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let transports = [Transport::Docker, Transport::Oras].into_iter();
        let found = transports.filter_map(|it| Some((it, text.strip_prefix(it.prefix())?))).next();
        let Some((transport, name)) = found else {
            return Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a place on a registry"))
                .hint("write docker://HOST/NAME[:TAG], or oras://HOST/NAME:TAG for a SIF"));
        };
        let reference: Reference = name.parse()?;
        if reference.digest.is_some() {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("{text:?} cannot be chosen: its digest follows from what is pushed"),
            )
            .hint("leave the digest out, or name a tag"));
        }
        Ok(Hosting::new(transport, reference))
    }
}

impl fmt::Display for Hosting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.transport.prefix(), self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, full) in [
            ("docker://h:1/x", "docker://h:1/x:latest"),
            ("oras://h.example/a/b:2", "oras://h.example/a/b:2"),
            ("docker://x", "docker://docker.io/library/x:latest"),
        ] {
            assert!(Hosting::is_address(text));
            assert_eq!(text.parse::<Hosting>().unwrap().to_string(), full);
        }
        for bad in ["x.sif", "docker://", "docker://h.example/X", &format!("oras://h.example/x@{}", Digest::of(b""))] {
            assert_eq!(bad.parse::<Hosting>().unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }
}
