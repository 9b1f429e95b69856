//! One file a command: its arguments, and what it does.

pub(super) mod additional_files;
pub(super) mod attach;
pub(super) mod batch;
pub(super) mod build;
pub(super) mod cache;
pub(super) mod cat;
pub(super) mod config;
pub(super) mod convert;
pub(super) mod decrypt;
pub(super) mod diff;
pub(super) mod inspect;
pub(super) mod ls;
pub(super) mod pull;
pub(super) mod push;
pub(super) mod shim;
pub(super) mod sign;
pub(super) mod verify;
