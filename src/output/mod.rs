//! Targets: a file each for what can be written, with its own options.
//!
//! The idea to hold: a [`Target`] is prepared before anything is read, and whatever can be refused is refused then. What is
//! [`Prepared`] pulls: it is given an image, writes in its own order, and lets the output have its name only when every
//! digest has been verified.
//!
//! A new format is a file with a type that has a `Format`, and a line in `targets!`.

mod additional_files;
mod architecture;
mod attested;
mod builders;
mod decrypt;
mod dir;
mod docker_archive;
mod encrypted;
mod file_system;
mod flat;
#[cfg(feature = "network")]
mod hosted;
#[cfg(feature = "network")]
mod hosted_signature;
mod hosting;
mod in_place;
mod learn;
mod name;
mod oci;
mod oci_archive;
mod options;
mod origin;
mod package;
mod passage;
mod place;
mod policy;
mod prepared;
mod reuse;
mod root;
mod rootfs;
mod sandbox;
mod sealed;
mod sif;
mod sif_rootfs;
mod signature;
mod sink;
mod squashfs;
mod tarball;
#[cfg(test)]
mod tests;
#[cfg(feature = "network")]
mod upload;
mod verify;

pub use crate::derived::Accounts;
pub use crate::runtime::Runtime;
pub use additional_files::{AdditionalFiles, PreparedFolder};
#[cfg(feature = "program")]
pub(crate) use architecture::other_machine;
pub(crate) use attested::has_sbom;
pub use decrypt::{Decrypt, Decrypted};
pub use dir::Dir;
pub use docker_archive::DockerArchive;
pub use encrypted::Encryption;
#[cfg(feature = "program")]
pub(crate) use encrypted::HIDDEN_IMAGE;
#[cfg(feature = "network")]
pub use hosted_signature::HostedSignature;
#[cfg(feature = "network")]
pub(crate) use hosted_signature::signatures_in;
#[cfg(feature = "program")]
pub(crate) use hosting::SIGNER;
pub use hosting::{Attachment, Hosting, Transport};
#[cfg(feature = "network")]
pub(crate) use hosting::{FORMAT, IMAGE, OPTIONS};
pub use oci::Oci;
pub use oci_archive::OciArchive;
pub use options::{Destination, IfExists, ImageName, ImageOptions, Outcome, PushedBlobs, WriteOptions};
use prepared::NOT_KEPT;
pub use prepared::Prepared;
pub(crate) use prepared::{CACHE_USED, REUSED};
pub use reuse::WorkCache;
pub use root::{Root, XattrPolicy};
pub use rootfs::Rootfs;
pub use sif::Sif;
pub use sif_rootfs::SifRootfs;
#[cfg(feature = "program")]
pub(crate) use signature::SIGNATURE_BYTES_MAX;
pub use signature::{CarriedSignature, SignatureForm, Signer, Signing, Verified, sign_sif, signers, verify_signatures};
pub use squashfs::Squashfs;
#[cfg(feature = "network")]
pub use upload::Upload;
pub use verify::{Whole, is_sif, verify_layers, verify_sif};
pub(crate) use verify::{added_objects, hash_file};

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::{Compression, Monitor};
use crate::model::Digest;
use crate::source::Spec;
use place::Place;
use prepared::Task;

/// One format: its words, its options, and how it is written.
trait Format: fmt::Debug {
    /// Its name on a command line and in reports.
    fn name(&self) -> &'static str;

    /// What it is, in one line.
    fn about(&self) -> &'static str;

    /// What the names of its outputs end in.
    fn suffix(&self) -> String;

    /// What an output is called that is made from `source`.
    fn default_name(&self, source: &Spec) -> Option<OsString> {
        name::of_output(source, &self.suffix())
    }

    /// What runs it, where it is made for one of several.
    fn runtime(&mut self) -> Option<&mut Runtime> {
        None
    }

    /// The permission bits of its outputs, before the umask.
    fn mode(&self) -> u32 {
        0o666
    }

    /// How it is compressed, where that can be chosen.
    fn compression(&mut self) -> Option<&mut Option<Compression>> {
        None
    }

    /// How many bytes a block has, where it is made of blocks.
    fn block_size(&mut self) -> Option<&mut Option<u32>> {
        None
    }

    /// What the programs inside run on, where it records that.
    fn architecture(&mut self) -> Option<&mut Option<String>> {
        None
    }

    /// What it is encrypted with, where it can be.
    fn encryption(&mut self) -> Option<&mut Option<Encryption>> {
        None
    }

    /// What goes into a root for Singularity, where it is one.
    fn root(&mut self) -> Option<&mut Root> {
        None
    }

    /// Who signs it, where it can be signed.
    fn signing(&mut self) -> Option<&mut Signing> {
        None
    }

    /// Whether it carries what builds say of the image, where it can.
    fn sbom(&mut self) -> Option<&mut bool> {
        None
    }

    /// What becomes of an image that stays one, where it does.
    fn image(&mut self) -> Option<&mut ImageOptions> {
        None
    }

    /// Reads a name for an image that is written.
    fn image_name(&self, text: &str) -> Result<ImageName> {
        ImageName::parse(text)
    }

    /// Whether it is made of blocks that can be kept for later conversions.
    fn keeps_work(&self) -> bool {
        false
    }

    /// Whether its outputs have a digest: of a file, or of a manifest.
    fn has_digest(&self) -> bool {
        true
    }

    /// Whether its outputs record what they are made from, so that one that exists can be used again.
    fn is_reusable(&self) -> bool {
        false
    }

    /// What kind of place on a registry it is pushed to, where it can be.
    fn transport(&self) -> Option<Transport> {
        None
    }

    /// Refuses options that it does not take.
    fn check(&self, task: &Task) -> Result<()>;

    /// Begins the output.
    fn open(&self, task: &Task) -> Result<Place> {
        Place::open(task)
    }

    /// Writes the output, which is complete and verified then, and has its name.
    fn write(&self, image: &Image, place: Place, task: &Task, monitor: &Monitor) -> Result<Outcome>;

    /// Looks whether `existing` is what would be written from the image that `expected` names: its manifest, its index or
    /// itself. `None` where the file does not say.
    fn reuse_unread(&self, _existing: &Path, _expected: Digest, _task: &Task, _: &Monitor) -> Result<Option<Outcome>> {
        Ok(None)
    }

    /// Looks whether `existing` is what would be written.
    fn reuse(&self, existing: &Path, _image: &Image, _task: &Task, _monitor: &Monitor) -> Result<Outcome> {
        Err(Error::new(ErrorKind::Bug, format!("{existing:?} cannot be compared with {}", self.name())))
    }
}

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        /// What an image becomes: one variant a format, with that format's own options.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum Target {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name)),*
        }

        impl Target {
            /// Every format, with its usual options.
            pub fn all() -> Vec<Target> {
                vec![$(Target::$name($name::default())),*]
            }

            fn format(&self) -> &dyn Format {
                match self { $(Target::$name(format) => format),* }
            }

            fn format_mut(&mut self) -> &mut dyn Format {
                match self { $(Target::$name(format) => format),* }
            }
        }

        $(impl From<$name> for Target {
            fn from(format: $name) -> Target {
                Target::$name(format)
            }
        })*
    };
}

targets!(Sif, SifRootfs, Rootfs, Squashfs, Dir, Oci, OciArchive, DockerArchive);

impl Target {
    /// Its name, as on the command line and in reports: `sif`, `oci-archive`, …
    pub fn name(&self) -> &'static str {
        self.format().name()
    }

    /// What it is, in one line.
    pub fn about(&self) -> &'static str {
        self.format().about()
    }

    /// What kind of place on a registry it is pushed to; `None` where it cannot be.
    pub fn transport(&self) -> Option<Transport> {
        self.format().transport()
    }

    /// What an output is called that is made from `source`; `None` where the source has no name to take it from.
    pub fn default_name(&self, source: &Spec) -> Option<OsString> {
        self.format().default_name(source)
    }

    /// What runs the output, where it is made for one of several.
    pub fn runtime_mut(&mut self) -> Option<&mut Runtime> {
        self.format_mut().runtime()
    }

    /// How the output is compressed, where that can be chosen; `None` inside is as its name says, else as usual.
    pub fn compression_mut(&mut self) -> Option<&mut Option<Compression>> {
        self.format_mut().compression()
    }

    /// Bytes in a data block, where there are such; `None` inside is as usual.
    pub fn block_size_mut(&mut self) -> Option<&mut Option<u32>> {
        self.format_mut().block_size()
    }

    /// What the programs inside run on, where that is recorded and the image does not say.
    pub fn architecture_mut(&mut self) -> Option<&mut Option<String>> {
        self.format_mut().architecture()
    }

    /// What the output is encrypted with, where it can be; `None` inside is nothing. Then a source should be opened with
    /// [private temporaries](crate::source::OpenOptions::private_temporaries), as a [`Conversion`](crate::Conversion) does.
    pub fn encryption_mut(&mut self) -> Option<&mut Option<Encryption>> {
        self.format_mut().encryption()
    }

    /// What goes into a root for Singularity, where the output is one.
    pub fn root_mut(&mut self) -> Option<&mut Root> {
        self.format_mut().root()
    }

    /// Who signs the output, where it can be signed.
    pub fn signing_mut(&mut self) -> Option<&mut Signing> {
        self.format_mut().signing()
    }

    /// Whether the output carries the SBOM and the provenance of the image, where it can: see [`Image::attestations`].
    pub fn sbom_mut(&mut self) -> Option<&mut bool> {
        self.format_mut().sbom()
    }

    /// Whether the output has a digest that it is known by: of a file, or of a manifest.
    pub fn has_digest(&self) -> bool {
        self.format().has_digest()
    }

    /// What becomes of an image that stays one, where it does.
    pub fn image_mut(&mut self) -> Option<&mut ImageOptions> {
        self.format_mut().image()
    }

    /// Whether work on layers can be kept for later outputs of it: see [`WriteOptions::cache`].
    pub fn keeps_work(&self) -> bool {
        self.format().keeps_work()
    }

    /// Reads a name for the image in the output.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is not one, or pinned by a digest.
    pub fn image_name(&self, text: &str) -> Result<ImageName> {
        self.format().image_name(text)
    }

    /// Checks the options, and looks at nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when they do not fit.
    pub fn check(&self, destination: &Destination, options: &WriteOptions) -> Result<()> {
        Task::new(self.format(), destination, options).map(drop)
    }

    /// Checks everything that can be known before an image is, and begins the output.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when options do not fit, [`ErrorKind::Output`] when the output exists and is not to be replaced,
    /// or cannot be written.
    pub fn prepare(&self, destination: &Destination, options: &WriteOptions) -> Result<Prepared> {
        Prepared::new(self.clone(), destination, options)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Target::all().into_iter().find(|target| target.name() == text).ok_or_else(|| {
            let names: Vec<_> = Target::all().iter().map(Target::name).collect();
            Error::new(ErrorKind::Usage, format!("{text:?} is not a format"))
                .hint(format!("formats: {}", names.join(", ")))
        })
    }
}
