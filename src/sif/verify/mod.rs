//! Checks a container against its own statements and the rules of the format.
//!
//! The idea to hold: every byte of header and table is looked at. What readers depend on is an error, what they merely
//! show is at most a notice, and what they skip is padding; so that damage anywhere up there is found, or at least told.

mod content;
mod placement;
mod structure;

use super::finding::Finding;
use super::reader::Container;
use crate::error::Result;
use crate::io::Region;

/// Checks the container that fills `file`: header, descriptors, places, the zeros between them, and of the objects what
/// can be told without knowing their meaning. Signatures are not checked.
///
/// No findings means that all is well. They come in the order of their offsets.
///
/// # Errors
/// Only when the file cannot be read. A file that is not a SIF at all is a finding.
pub fn verify(file: &Region) -> Result<Vec<Finding>> {
    let container = match Container::read(file.clone())? {
        Ok(container) => container,
        Err(finding) => return Ok(vec![finding]),
    };
    let mut findings = Vec::new();
    structure::check(&container, &mut findings);
    placement::check(&container, &mut findings)?;
    // Objects that share bytes could make us read the same gigabytes thousands of times over.
    if !findings.iter().any(|finding| finding.code == placement::OVERLAP) {
        content::check(&container, &mut findings)?;
    }
    findings.sort_by_key(|finding| finding.offset);
    Ok(findings)
}
