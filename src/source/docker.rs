use super::catalogue::{Candidate, Catalogue, Found, MemberList};
use super::document::Documents;
use super::oci::is_own_affair;
use crate::error::{Result, ResultExt as _};
use crate::io::Expected;
use crate::model::{ArchiveManifestItem, Config, Digest};

/// The document of a docker-archive that lists its images.
pub(super) const MANIFEST: &str = "manifest.json";

/// Adds the images of `manifest.json`; whether there is one.
pub(super) fn read(documents: &Documents<'_>, catalogue: &mut Catalogue) -> Result<bool> {
    let Some(bytes) = documents.read(MANIFEST)? else { return Ok(false) };
    let mut items = ArchiveManifestItem::parse_list(&bytes).doing(|| documents.doing(MANIFEST))?;
    let names = |it: &ArchiveManifestItem| it.repo_tags.clone();
    catalogue.is_narrowed |= documents.narrow(&mut items, |it| it.config.clone(), names, |_| false);
    for (at, item) in items.into_iter().enumerate() {
        match item {
            Ok(item) => add(documents, catalogue, item)?,
            Err(error) => {
                let trouble = error.doing(format!("image {at} of {MANIFEST}")).doing(documents.doing(MANIFEST));
                catalogue.add_unreadable(Candidate::default(), &[], trouble)?;
            }
        }
    }
    Ok(true)
}

fn add(documents: &Documents<'_>, catalogue: &mut Catalogue, item: ArchiveManifestItem) -> Result<()> {
    let stated = digest_of_config_name(&item.config);
    let found = match (read_config(documents, &item.config), stated) {
        (Ok(Some((id, config))), stated) => {
            let found = catalogue.with_config(id)?;
            found.set_config(config);
            if let Some(stated) = stated.filter(|&stated| stated != id) {
                found.warnings.push(format!(
                    "the config's name in the archive, {:?}, is the hash of other bytes: the config is {id}, not {stated}",
                    item.config
                ));
            }
            found
        }
        (Ok(None), stated) => {
            let found = of_unknown_config(catalogue, stated)?;
            let why = format!("its config {:?}, to which {MANIFEST} refers, is not there", item.config);
            found.candidate.absent = Some(why);
            found
        }
        (Err(error), _) if !is_own_affair(&error) => return Err(error),
        (Err(error), stated) => {
            let found = of_unknown_config(catalogue, stated)?;
            found.set_trouble(error);
            found
        }
    };
    item.repo_tags.iter().for_each(|tag| found.add_name(tag));
    found.candidate.layers = item.layers.len();
    found.members.get_or_insert(MemberList { listed_in: MANIFEST.to_string(), names: item.layers });
    Ok(())
}

/// The config and the image ID that follows from it; `None` where it is not there. A name below `blobs` promises a digest. What
/// `docker save` calls it is a habit: nobody who loads the archive looks at that, and whoever edits a config leaves it.
fn read_config(documents: &Documents<'_>, name: &str) -> Result<Option<(Digest, Config)>> {
    let Some(bytes) = documents.read(name)? else { return Ok(None) };
    if let Some(promised) = digest_of_blob_name(name) {
        Expected::digest(promised).check_bytes(&bytes).doing(|| documents.doing(name))?;
    }
    let id = Digest::of(&bytes);
    Ok(Some((id, Config::parse(bytes).doing(|| documents.doing(name))?)))
}

/// An image of whose config nothing but perhaps the digest is known.
fn of_unknown_config(catalogue: &mut Catalogue, stated: Option<Digest>) -> Result<&mut Found> {
    match stated {
        Some(stated) => catalogue.with_config(stated),
        None => catalogue.add(Candidate::default()),
    }
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
