//! What builds say of an image, as objects of a SIF: bills of materials and provenance.

use std::path::Path;

use crate::error::{Error, ErrorKind, IoResultExt as _, Remedy, Result};
use crate::image::{Attestation, Image};
use crate::io::Region;
use crate::model::Note;
use crate::sif::{Container, DataType, Sbom, SbomFormat};

/// How the types of predicates begin that are bills of materials, how these are written, and the end of their objects' names.
const BILLS: [(&str, SbomFormat, &str); 2] = [
    ("https://spdx.dev/Document", SbomFormat::SpdxJson, ".spdx.json"),
    ("https://cyclonedx.org/bom", SbomFormat::CycloneDxJson, ".cdx.json"),
];
/// The same of provenance, whatever its version.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
const PROVENANCE_NAME: &str = "provenance";

/// Whether a bill of materials stands beside `image`, where its attestations were asked for.
pub(crate) fn has_sbom(image: &Image) -> bool {
    image.attestations.iter().any(|it| bill(&it.predicate_type).is_some())
}

/// How a predicate of this type is written, and the end of its object's name, where it is a bill of materials.
fn bill(predicate_type: &str) -> Option<(SbomFormat, &'static str)> {
    let found = BILLS.into_iter().find(|(start, ..)| predicate_type.starts_with(start));
    found.map(|(_, format, end)| (format, end))
}

/// The objects.
pub(super) struct Attested {
    /// Bills of materials: the documents that the statements hold.
    pub(super) sboms: Vec<Sbom>,
    /// Provenance by the names of the objects: whole statements, which say what they are about.
    pub(super) provenance: Vec<(String, Vec<u8>)>,
    /// What was left out.
    pub(super) note: Option<Note>,
}

impl Attested {
    /// Those of `image`.
    ///
    /// # Errors
    /// [`ErrorKind::SourceUnavailable`] when there is no bill of materials.
    pub(super) fn of(image: &Image) -> Result<Self> {
        let mut attested = Attested { sboms: Vec::new(), provenance: Vec::new(), note: None };
        let mut note = Note::new("attestations-left-out", "attestations are neither an SBOM nor provenance", 0);
        for Attestation { predicate_type, predicate, statement } in &image.attestations {
            if let Some((format, end)) = bill(predicate_type) {
                let name = numbered("sbom", attested.sboms.len(), end);
                attested.sboms.push(Sbom { format, name, bytes: predicate.clone() });
            } else if predicate_type.starts_with(PROVENANCE) {
                let name = numbered(PROVENANCE_NAME, attested.provenance.len(), ".json");
                attested.provenance.push((name, statement.clone()));
            } else {
                note.count += 1;
                note.example(predicate_type);
            }
        }
        attested.note = (note.count > 0).then_some(note);
        if attested.sboms.is_empty() {
            let others = match image.attestations.len() {
                0 => "it has no attestations".to_string(),
                count => format!("none of its {count} attestations is one"),
            };
            let message = format!("image {} carries no SBOM: {others}", image.id());
            return Err(Error::new(ErrorKind::SourceUnavailable, message).hint(
                "have BuildKit attach one (attest type=sbom), and convert from the registry, layout or OCI archive",
            ));
        }
        Ok(attested)
    }

    /// Refuses a SIF at `path` that holds other ones.
    pub(super) fn expect_in(&self, path: &Path) -> Result<()> {
        let container = Container::open(Region::open(path)?)?;
        let wanted = self.sboms.iter().map(|sbom| (DataType::Sbom, &sbom.name, &sbom.bytes));
        let wanted = wanted.chain(self.provenance.iter().map(|(name, bytes)| (DataType::GenericJson, name, bytes)));
        for (data_type, name, bytes) in wanted {
            let found = container.named(data_type, name.as_bytes()).map(|it| container.data(it)).transpose()?;
            let is_it = match found.filter(|region| region.len == bytes.len() as u64) {
                Some(region) => {
                    let mut there = vec![0; bytes.len()];
                    region.read_at(&mut there, 0).or_kind(ErrorKind::SourceUnavailable)?;
                    there == *bytes
                }
                None => false,
            };
            if !is_it {
                let message = format!("output {path:?} exists and holds another {name} than the image has now");
                return Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::Replace));
            }
        }
        Ok(())
    }
}

/// `sbom.spdx.json`, `sbom-2.spdx.json`, …
fn numbered(start: &str, before: usize, end: &str) -> String {
    if before == 0 { format!("{start}{end}") } else { format!("{start}-{}{end}", before + 1) }
}
