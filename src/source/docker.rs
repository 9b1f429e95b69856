use super::catalogue::{Candidate, Catalogue, MemberList};
use super::document::Documents;
use crate::error::{Result, ResultExt as _};
use crate::io::Expected;
use crate::model::{ArchiveManifestItem, Config, Digest};

/// The document of a docker-archive that lists its images.
pub(super) const MANIFEST: &str = "manifest.json";

/// Adds the images of `manifest.json`; whether there is one.
pub(super) fn read(documents: &Documents<'_>, catalogue: &mut Catalogue) -> Result<bool> {
    let Some(bytes) = documents.read(MANIFEST)? else { return Ok(false) };
    let items = ArchiveManifestItem::parse_list(&bytes).doing(|| documents.doing(MANIFEST))?;
    for item in items {
        add(documents, catalogue, item)?;
    }
    Ok(true)
}

fn add(documents: &Documents<'_>, catalogue: &mut Catalogue, item: ArchiveManifestItem) -> Result<()> {
    let stated = digest_of_config_name(&item.config);
    let bytes = documents.read(&item.config)?;
    if let (Some(bytes), Some(stated)) = (&bytes, stated) {
        Expected::digest(stated).check_bytes(bytes).doing(|| documents.doing(&item.config))?;
    }
    let found = match (bytes, stated) {
        (Some(bytes), _) => {
            let found = catalogue.with_config(Digest::of(&bytes))?;
            found.set_config(Config::parse(bytes).doing(|| documents.doing(&item.config))?);
            found
        }
        (None, stated) => {
            let found = match stated {
                Some(stated) => catalogue.with_config(stated)?,
                // Not even the digest of its config is known.
                None => catalogue.add(Candidate::default())?,
            };
            let why = format!("its config {:?}, to which {MANIFEST} refers, is not there", item.config);
            found.candidate.absent = Some(why);
            found
        }
    };
    item.repo_tags.iter().for_each(|tag| found.add_name(tag));
    found.candidate.layers = item.layers.len();
    found.members.get_or_insert(MemberList { listed_in: MANIFEST.to_string(), names: item.layers });
    Ok(())
}

/// The digest in `<hex>.json` (Docker, Podman, nix), `sha256:<hex>` (go-containerregistry) or `blobs/sha256/<hex>`.
fn digest_of_config_name(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next()?;
    let hex = last.strip_suffix(".json").or_else(|| last.strip_prefix("sha256:"));
    hex.and_then(|hex| Digest::from_hex(hex).ok()).or_else(|| digest_of_blob_name(name))
}

/// The digest in `blobs/sha256/<hex>`, with rules_oci's `.tar.gz` or without. Elsewhere 64 hex digits may be a digest of
/// anything: Podman names layers by diff_id, go-containerregistry by what is stored, Docker 1.10 by neither.
pub(super) fn digest_of_blob_name(name: &str) -> Option<Digest> {
    let name = name.trim_start_matches("./").trim_start_matches('/');
    let hex = name.strip_prefix("blobs/sha256/")?;
    Digest::from_hex(hex.split_once('.').map_or(hex, |(hex, _)| hex)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_digests_are_taken_for_digests() {
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        for name in [format!("{hex}.json"), format!("sha256:{hex}"), format!("./blobs/sha256/{hex}")] {
            assert_eq!(digest_of_config_name(&name), Some(digest), "{name}");
        }
        assert_eq!(digest_of_config_name("config.json"), None);
        assert_eq!(digest_of_blob_name(&format!("blobs/sha256/{hex}.tar.gz")), Some(digest));
        for name in [format!("{hex}.tar.gz"), format!("{hex}/layer.tar"), "blobs/sha256/1".into()] {
            assert_eq!(digest_of_blob_name(&name), None, "{name}");
        }
    }
}
