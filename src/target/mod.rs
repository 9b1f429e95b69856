//! Picks the writer for a format and owns the output file.
//!
//! The idea to hold: a target pulls. It is given a merged tree and a way to read any file of it, writes them in its own
//! order, and lets go of the output only when every digest has been verified.

mod options;

pub use options::{Compression, Destination, Format, IfExists, Outcome, Request, XattrPolicy};

use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::io::Monitor;

/// Converts one image as `request` says.
///
/// # Errors
/// See [`ErrorKind`]; the output does not exist then.
pub fn convert(_image: &Image, _request: &Request, _monitor: &Monitor) -> Result<Outcome> {
    Err(Error::new(ErrorKind::Unsupported, "not written yet"))
}
