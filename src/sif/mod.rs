//! The SIF container (Singularity Image Format, version 01): its bytes, a writer, a reader and a check.
//!
//! A SIF file is one header, one table of descriptors, and the objects that the descriptors point at:
//!
//! ```text
//!      0 ┌──────────────────────────────┐
//!        │ header, 128 bytes            │  launch script, magic, architecture, times, where the rest is
//!    128 ├──────────────────────────────┤
//!        │ zeros                        │
//!   4096 ├──────────────────────────────┤
//!        │ descriptor 1, 585 bytes      │──┐  type, group, link, offset, size, name, extra
//!        │ descriptor 2                 │─┐│
//!        │ …                            │ ││
//!        │ descriptor 48                │ ││  slots not in use are zeros
//!  32176 ├──────────────────────────────┤ ││
//!        │ object 1: definition text    │◄┼┘
//!        │ object 2: JSON               │◄┘   packed: no alignment
//!        │ object 3: JSON               │
//!        ├──────────────────────────────┤
//!        │ zeros to a multiple of 4096  │      counted in the partition's size with padding
//!      p ├──────────────────────────────┤
//!        │ object 4: squashfs,          │      the primary system partition
//!        │ itself a multiple of 4096    │
//!        └──────────────────────────────┘      the file ends here; signatures are appended
//! ```
//!
//! The idea to hold: the header tells where the table is and the table tells where the objects are, so a writer that
//! writes the header last leaves nothing that passes for a SIF file before it is one, and a reader believes no number
//! that it has not compared with the size of the file. All integers are little-endian, all records are packed.
//!
//! This room must not know what the objects mean: neither squashfs (but for its magic), nor OCI, nor what Singularity
//! expects to find inside.

mod additions;
mod append;
mod architecture;
mod descriptor;
mod finding;
mod header;
mod hidden;
mod kind;
mod reader;
mod record;
mod seal;
mod statement;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use additions::{additions, is_built};
pub use append::{NewObject, append};
pub use architecture::{Architecture, goarch_of_elf};
pub use descriptor::{DEFAULT_GROUP, DESCRIPTOR_BYTES, Descriptor, Link};
pub use finding::{Finding, Severity};
pub use header::{HEADER_BYTES, Header, LAUNCH_SCRIPT};
pub use hidden::HiddenObjects;
pub use kind::{DataType, Extra, FileSystem, Hash, MessageFormat, MessageKind, PartitionKind, SbomFormat};
pub use reader::{Container, DESCRIPTORS_MAX};
pub use seal::{
    ENCRYPTED_START_BYTES, PartitionCheck, PartitionSum, SEAL_NAME, Seal, check as check_seal, read as read_seal, seal,
    unsealed,
};
pub use statement::{Statement, groups};
pub use verify::verify;
pub use writer::{Contents, DESCRIPTOR_CAPACITY, Plan, Sbom};
