//! Certificates and those who issue them.

/// Shell functions that make certificates with openssl, for the oracles' root.
pub const AUTHORITY: &str = include_str!("authority.sh");
