//! What an object is: the numbers that descriptors and their extra areas use, and the words siftool shows for them.

use std::fmt;

use super::architecture::Architecture;
use super::record::{bytes, i32_at, trimmed};
use crate::model::Quoted;

/// Size of a descriptor's extra area, in bytes.
pub(super) const EXTRA_BYTES: usize = 384;
/// How many bytes of the extra area a signature's signer takes; a PGP fingerprint fills 20 of them.
const ENTITY_BYTES: usize = 256;

/// Declares an enum over the numbers of one field: number to name and back without loss, and the word siftool shows.
macro_rules! numbers {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A number this version does not know.
            Unknown(i32),
        }

        impl $name {
            /// What a file's number means.
            pub fn from_code(code: i32) -> Self {
                match code {
                    $($number => $name::$variant,)+
                    other => $name::Unknown(other),
                }
            }

            /// The number as it stands in a file.
            pub fn code(self) -> i32 {
                match self {
                    $($name::$variant => $number,)+
                    $name::Unknown(code) => code,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($name::$variant => f.write_str($word),)+
                    $name::Unknown(code) => write!(f, "unknown {code:#x}"),
                }
            }
        }
    };
}

numbers! {
    /// The type of an object.
    DataType {
        /// Definition file text.
        Definition = 0x4001 "Def.FILE",
        /// Environment variables.
        Environment = 0x4002 "Env.Vars",
        /// Labels, as JSON.
        Labels = 0x4003 "JSON.Labels",
        /// A file system.
        Partition = 0x4004 "FS",
        /// A signature over a group of objects, or over one.
        Signature = 0x4005 "Signature",
        /// JSON, told apart by its name.
        GenericJson = 0x4006 "JSON.Generic",
        /// Anything.
        Generic = 0x4007 "Generic/Raw",
        /// A message that holds a key.
        CryptoMessage = 0x4008 "Cryptographic Message",
        /// A bill of materials.
        Sbom = 0x4009 "SBOM",
        /// The OCI image index at the root of an OCI-SIF.
        OciRootIndex = 0x400a "OCI.RootIndex",
        /// A blob of an OCI-SIF.
        OciBlob = 0x400b "OCI.Blob",
    }
}

numbers! {
    /// The file system of a partition.
    FileSystem {
        /// SquashFS.
        Squashfs = 1 "Squashfs",
        /// ext3.
        Ext3 = 2 "Ext3",
        /// An archive of immutable objects.
        ImmutableObjects = 3 "Archive",
        /// Anything.
        Raw = 4 "Raw",
        /// SquashFS inside a LUKS2 container.
        EncryptedSquashfs = 5 "Encrypted squashfs",
        /// SquashFS that holds a gocryptfs directory.
        GocryptfsSquashfs = 6 "Gocryptfs squashfs",
    }
}

numbers! {
    /// What a partition is for.
    PartitionKind {
        /// A root file system.
        System = 1 "System",
        /// The root file system that is run; one in a file.
        PrimarySystem = 2 "*System",
        /// Data to mount.
        Data = 3 "Data",
        /// A writable layer over the root file system.
        Overlay = 4 "Overlay",
    }
}

numbers! {
    /// The hash that a signature is over.
    Hash {
        /// SHA-256.
        Sha256 = 1 "SHA-256",
        /// SHA-384.
        Sha384 = 2 "SHA-384",
        /// SHA-512.
        Sha512 = 3 "SHA-512",
        /// BLAKE2s.
        Blake2s256 = 4 "BLAKE2s-256",
        /// BLAKE2b.
        Blake2b256 = 5 "BLAKE2b-256",
    }
}

numbers! {
    /// How a cryptographic message is written.
    MessageFormat {
        /// OpenPGP.
        OpenPgp = 1 "OpenPGP",
        /// PEM.
        Pem = 2 "PEM",
    }
}

numbers! {
    /// What a cryptographic message holds.
    MessageKind {
        /// Clear-signed text.
        ClearSignature = 0x100 "Clear Signature",
        /// A secret under RSA-OAEP.
        RsaOaep = 0x200 "RSA-OAEP",
    }
}

numbers! {
    /// How a bill of materials is written.
    SbomFormat {
        /// CycloneDX, JSON.
        CycloneDxJson = 1 "cyclonedx-json",
        /// CycloneDX, XML.
        CycloneDxXml = 2 "cyclonedx-xml",
        /// GitHub's dependency snapshot.
        GithubJson = 3 "github-json",
        /// SPDX, JSON.
        SpdxJson = 4 "spdx-json",
        /// SPDX, RDF.
        SpdxRdf = 5 "spdx-rdf",
        /// SPDX, tags and values.
        SpdxTagValue = 6 "spdx-tag-value",
        /// SPDX, YAML.
        SpdxYaml = 7 "spdx-yaml",
        /// Syft's own.
        SyftJson = 8 "syft-json",
    }
}

/// What a descriptor's extra area says; its form follows from the object's type (§3.4 of the format notes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// The type has none.
    None,
    /// Of a partition.
    Partition {
        /// Its file system.
        file_system: FileSystem,
        /// What it is for.
        kind: PartitionKind,
        /// What its programs run on.
        architecture: Architecture,
    },
    /// Of a signature.
    Signature {
        /// What it is over.
        hash: Hash,
        /// The signer: a PGP fingerprint of 20 bytes, or nothing.
        entity: Vec<u8>,
    },
    /// Of a cryptographic message.
    CryptoMessage {
        /// How it is written.
        format: MessageFormat,
        /// What it holds.
        kind: MessageKind,
    },
    /// Of a bill of materials.
    Sbom {
        /// How it is written.
        format: SbomFormat,
    },
    /// Of the objects of an OCI-SIF: the digest, as written.
    Digest(Vec<u8>),
}

impl Extra {
    /// Reads the extra area of an object of type `data_type`.
    pub(super) fn parse(data_type: DataType, area: &[u8; EXTRA_BYTES]) -> Self {
        match data_type {
            DataType::Partition => Extra::Partition {
                file_system: FileSystem::from_code(i32_at(area, 0)),
                kind: PartitionKind::from_code(i32_at(area, 4)),
                architecture: Architecture::from_code(bytes(area, 8)),
            },
            DataType::Signature => Extra::Signature {
                hash: Hash::from_code(i32_at(area, 0)),
                entity: trimmed(&area[4..4 + ENTITY_BYTES]).to_vec(),
            },
            DataType::CryptoMessage => Extra::CryptoMessage {
                format: MessageFormat::from_code(i32_at(area, 0)),
                kind: MessageKind::from_code(i32_at(area, 4)),
            },
            DataType::Sbom => Extra::Sbom { format: SbomFormat::from_code(i32_at(area, 0)) },
            DataType::OciRootIndex | DataType::OciBlob => Extra::Digest(trimmed(area).to_vec()),
            _ => Extra::None,
        }
    }

    /// How many bytes of the area this form uses; what is behind them must be zero.
    pub(super) fn used_bytes(&self) -> usize {
        match self {
            Extra::None => 0,
            Extra::Partition { .. } => 11,
            Extra::Signature { .. } => 4 + ENTITY_BYTES,
            Extra::CryptoMessage { .. } => 8,
            Extra::Sbom { .. } => 4,
            Extra::Digest(text) => text.len(),
        }
    }

    /// Whether all numbers in it are known to this version.
    pub(super) fn is_known(&self) -> bool {
        match self {
            Extra::Partition { file_system, kind, .. } => {
                !matches!(file_system, FileSystem::Unknown(_)) && !matches!(kind, PartitionKind::Unknown(_))
            }
            Extra::Signature { hash, .. } => !matches!(hash, Hash::Unknown(_)),
            Extra::CryptoMessage { format, kind } => {
                !matches!(format, MessageFormat::Unknown(_)) && !matches!(kind, MessageKind::Unknown(_))
            }
            Extra::Sbom { format } => !matches!(format, SbomFormat::Unknown(_)),
            Extra::None | Extra::Digest(_) => true,
        }
    }

    /// The extra area of a primary system partition.
    pub(super) fn primary(file_system: FileSystem, architecture: Architecture) -> [u8; EXTRA_BYTES] {
        let mut area = [0; EXTRA_BYTES];
        area[..4].copy_from_slice(&file_system.code().to_le_bytes());
        area[4..8].copy_from_slice(&PartitionKind::PrimarySystem.code().to_le_bytes());
        area[8..11].copy_from_slice(&architecture.code());
        area
    }

    /// The extra area of a bill of materials.
    pub(super) fn sbom(format: SbomFormat) -> [u8; EXTRA_BYTES] {
        let mut area = [0; EXTRA_BYTES];
        area[..4].copy_from_slice(&format.code().to_le_bytes());
        area
    }

    /// The extra area of a key under an RSA key.
    pub(super) fn rsa_message() -> [u8; EXTRA_BYTES] {
        let mut area = [0; EXTRA_BYTES];
        area[..4].copy_from_slice(&MessageFormat::Pem.code().to_le_bytes());
        area[4..8].copy_from_slice(&MessageKind::RsaOaep.code().to_le_bytes());
        area
    }
}

/// The part in parentheses of siftool's list; empty where it shows none.
impl fmt::Display for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extra::None => Ok(()),
            Extra::Partition { file_system, kind, architecture } => write!(f, "{file_system}/{kind}/{architecture}"),
            Extra::Signature { hash, .. } => write!(f, "{hash}"),
            Extra::CryptoMessage { format, kind } => write!(f, "{format}/{kind}"),
            Extra::Sbom { format } => write!(f, "{format}"),
            Extra::Digest(text) if text.is_ascii() && text.iter().all(u8::is_ascii_graphic) => {
                text.iter().try_for_each(|&byte| write!(f, "{}", char::from(byte)))
            }
            Extra::Digest(text) => write!(f, "{}", Quoted(text)),
        }
    }
}
