//! One file a command: its arguments, and what it does.

pub(super) mod build;
pub(super) mod cache;
pub(super) mod inspect;
pub(super) mod verify;
