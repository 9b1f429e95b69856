use std::fmt;

/// What mends an error where that is another choice of the caller's. It is said here in the words of this library; a
/// program says it in the words of its own interface, such as the names of its options.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Replace the output, or choose another.
    Replace,
    /// Replace the output although something is lost with it, or choose another.
    ReplaceAnyway,
    /// Convert once more, in place of a damaged output.
    ConvertAgain,
    /// Let the tag be replaced, or choose another.
    OtherTag,
    /// Take the tag from what has it, or choose another for the index.
    OtherIndexTag,
    /// Convert without regard to what is attached, and tell whoever attached it.
    AttachedSif,
    /// Choose the platform whose SIF was signed.
    SignedPlatform,
    /// Choose a file as the output.
    OutputFile,
    /// Choose another name for the output.
    OutputName,
    /// Choose a file as the output, for a stream cannot be written to at its start again.
    SeekableOutput,
    /// Choose an output in a directory that may be written to.
    WritableOutput,
    /// Create this directory, or choose an output in another one.
    CreateDirectory(std::path::PathBuf),
    /// Choose an output on a file system with more room.
    RoomierOutput,
    /// As [`Remedy::RoomierOutput`], where it is known what is full.
    RoomForOutput,
    /// Choose an output on a file system that works.
    OtherFileSystem,
    /// Choose a directory as the output, or another format.
    OutputDirectory,
    /// Choose a new directory or an OCI layout as the output.
    OutputLayout,
    /// Choose another layout as the output.
    OtherLayout,
    /// Choose another layout as the output, for this one is damaged.
    DamagedLayout,
    /// Allow the image to be added to the layout, or choose another.
    AddToLayout,
    /// Choose another directory for temporary files.
    OtherTmpdir,
    /// Free space where temporary files are, or choose another directory.
    RoomInTmpdir,
    /// As [`Remedy::RoomInTmpdir`], where the error names the directory.
    RoomThere,
    /// Choose another directory for the cache, or none.
    OtherCache,
    /// Free space where the cache is, or do without it.
    RoomInCache,
    /// Name the directory of a cache.
    CacheDirectory,
    /// Correct the SHA-256 that is expected of the input.
    ExpectedSha256,
    /// Correct the digest that is expected of the image.
    ExpectedDigest,
    /// Expect a digest of the image rather than a SHA-256 of the input.
    DigestInstead,
    /// Choose an image or a platform that there is.
    Image,
    /// Take the only image that there is.
    OnlyImage,
    /// Choose one of several images.
    OneImage,
    /// Choose another image of an index.
    OtherImage,
    /// Say which architecture the image is for.
    Architecture,
    /// Give the image a plain name.
    Reference,
    /// Name the passphrase or the RSA key of an encrypted SIF.
    Key,
    /// Name no key: nothing is encrypted.
    NoKey,
    /// Have Apptainer unpack the SIF, as root.
    Sandbox,
    /// Give all files to root.
    AllRoot,
    /// Convert to an OCI layout before.
    LayoutFirst,
    /// Write the image with the media types of the OCI.
    OciMediaTypes,
    /// Allow more memory for the files of an image.
    Memory,
    /// Have gpg decrypt the input.
    Gpg,
    /// Wait longer for servers.
    Timeout,
    /// Name a path that is in the image.
    PathInImage,
    /// Choose a compression that the manifests of Docker have a name for, or the media types of the OCI.
    OtherCompression,
    /// Let this host be spoken to without TLS.
    Insecure(String),
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Remedy::Replace | Remedy::ReplaceAnyway => "allow the output to be replaced, or choose another",
            Remedy::OtherTag => "allow the tag to be replaced, or choose another",
            Remedy::OtherIndexTag => "allow the tag to be replaced, or choose another for the index",
            Remedy::AttachedSif => "convert without regard to it, and tell whoever attached it",
            Remedy::ConvertAgain => "convert again and replace the damaged file, or fetch it again",
            Remedy::SignedPlatform => "choose the platform whose SIF was signed, and name its signature",
            Remedy::OutputFile => "choose a file as the output, or remove the directory",
            Remedy::OutputName => "choose another name for the output",
            Remedy::SeekableOutput => "choose a file as the output: its header is written last",
            Remedy::WritableOutput => "choose an output in a directory that you may write to",
            Remedy::RoomierOutput | Remedy::RoomForOutput => "free some space, or write to another file system",
            Remedy::OtherFileSystem => {
                "write to another file system; the system's log may say what is wrong with this one"
            }
            Remedy::OutputDirectory => "choose a directory, or an archive of the layout as the target",
            Remedy::OutputLayout => "choose a new directory, or an OCI layout",
            Remedy::OtherLayout => "write to another layout",
            Remedy::DamagedLayout => "the layout is damaged: write to another directory",
            Remedy::AddToLayout => "allow the image to be added to the layout, or choose another directory",
            Remedy::OtherTmpdir => "choose another directory for temporary files",
            Remedy::RoomInTmpdir | Remedy::RoomThere => {
                "free some space, or choose another directory for temporary files"
            }
            Remedy::OtherCache => "choose another directory for the cache, or none",
            Remedy::RoomInCache => "free some space, or do without the cache",
            Remedy::CacheDirectory => "name a directory that was used as a cache",
            Remedy::ExpectedSha256 => "fetch the input again, or correct the SHA-256 that is expected of it",
            Remedy::ExpectedDigest => "fetch the image again, or correct the digest that is expected of it",
            Remedy::DigestInstead => "expect a digest, which checks the image itself",
            Remedy::Image => "select an image by name, ID, digest or number, or by platform",
            Remedy::OnlyImage => "select no image and no platform: there is only one",
            Remedy::OneImage => "select one image by name, ID, digest or number, or by platform",
            Remedy::OtherImage => "select another image of the index by its digest, or push it in layers of tar",
            Remedy::Architecture => "say which architecture the image is for, for example amd64",
            Remedy::Reference => "give the image a plain name, for example app:1.0",
            Remedy::Key => "name the passphrase or the RSA key that it is encrypted with",
            Remedy::NoKey => "name no key: nothing is encrypted",
            Remedy::Sandbox => "have Apptainer unpack it into a directory, and convert that",
            Remedy::AllRoot => "squashfs cannot hold more: give all files to root",
            Remedy::LayoutFirst => "convert it to an OCI layout first, and push that",
            Remedy::OciMediaTypes => "write it with the media types of the OCI",
            Remedy::PathInImage => "name a path that is in the image",
            Remedy::OtherCompression => "compress layers with gzip, or write it with the media types of the OCI",
            Remedy::Memory => "if you trust it, allow more memory",
            Remedy::Gpg => "decrypt it on the way: read what gpg -d prints",
            Remedy::Timeout => "try again, or wait longer for the server",
            Remedy::CreateDirectory(directory) => {
                return write!(f, "create the directory {directory:?}, or choose an output in another one");
            }
            Remedy::Insecure(host) => {
                return write!(f, "if it is meant to speak plain HTTP, allow that for {host}");
            }
        })
    }
}
