//! What integration tests share.

pub mod archives;
pub mod authority;
pub mod case;
pub mod depot;
pub mod disk;
pub mod docker;
pub mod engine;
pub mod entry;
pub mod fake;
pub mod large;
pub mod layer;
pub mod layout;
pub mod listing;
pub mod pack;
pub mod place;
pub mod random;
pub mod reference;
pub mod registry;
pub mod run;
pub mod siftool;
pub mod singularity;
pub mod small;
pub mod squashfs;
pub mod tar;
