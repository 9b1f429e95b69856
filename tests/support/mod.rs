//! What integration tests share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod archives;
pub mod tar;
