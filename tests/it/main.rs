//! All integration tests, as one program: one link, one place for what they share.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs, reason = "these are tests")]

mod support;

mod additional_files;
mod cli;
mod crash;
mod determinism;
mod docs;
mod documents;
mod fixtures;
mod flatten;
mod hostile;
mod image_oracles;
mod images;
mod medperf;
mod medperf_apptainer;
mod one_image;
mod oracles;
mod packaging;
mod portability;
mod properties;
mod refusals;
mod registries_conf;
mod registry;
mod registry_foreign;
mod registry_logins;
mod registry_oracles;
mod registry_push;
mod scripts;
mod settings;
mod shim;
mod sif;
mod sif_apptainer;
mod sif_edits;
mod sif_images;
mod sif_inside;
mod sif_oracles;
mod sources;
mod squashfs_oracles;
mod squashfs_sources;
mod squashfs_target;
mod streams;
mod tar_dialects;
mod verify;
mod walls;
mod ways_back;
