use super::list::standard_input;
use super::{Item, Make, Wanted, What};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::Monitor;
use crate::model::Digest;
use crate::registry;
use crate::source::Spec;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// Makes a list of images of what is wanted: each tag of a repository becomes one, but for those that clients give to what they
/// attach to an image. What is wanted twice is there once. The list, and how many tags are left out.
///
/// # Errors
/// Whatever asking a registry for tags fails with, [`ErrorKind::Usage`] for what is not a source, and
/// [`ErrorKind::SourceUnavailable`] where a repository has no tag that is meant.
pub fn expand(wanted: &[Wanted], make: &Make<'_>, monitor: &Monitor) -> Result<(Vec<Item>, usize)> {
    let mut left_out = 0;
    let mut items: Vec<Item> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut add = |source: OsString, wanted: &Wanted, name: Option<String>, is_tag: bool| -> Result<()> {
        let spec = Spec::parse(&source).doing(|| wanted.place.clone())?;
        if spec == Spec::Stdin {
            return Err(standard_input());
        }
        if seen.insert((source.clone(), name.clone())) {
            let (access, place) = (Arc::clone(&wanted.access), wanted.place.clone());
            items.push(Item { source, spec, name, is_tag, access, place });
        }
        Ok(())
    };
    for each in wanted {
        match &each.what {
            What::Source(source) => add(source.clone(), each, each.name.clone(), false)?,
            What::Tags(repository, matching) => {
                let tags = tags_of(each, repository, make, monitor).doing(|| each.place.clone())?;
                let meant = |tag: &&String| matching.as_ref().is_none_or(|expression| expression.is_match(tag));
                let tags: Vec<&String> = tags.iter().filter(meant).collect();
                if tags.is_empty() {
                    let which =
                        matching.as_ref().map_or(String::new(), |it| format!(" that matches {:?}", it.as_str()));
                    let message = format!("{}: {repository} has no tag{which}", each.place);
                    return Err(Error::new(ErrorKind::SourceUnavailable, message)
                        .hint("check the name of the repository, and the expression"));
                }
                for tag in tags {
                    if is_of_attached(tag) {
                        left_out += 1;
                    } else {
                        add(format!("docker://{repository}:{tag}").into(), each, None, true)?;
                    }
                }
            }
        }
    }
    Ok((items, left_out))
}

/// Whether a tag is one of those that stand in for referrers (distribution-spec, "Referrers Tag Schema"), or that cosign gives to
/// signatures, attestations and SBOMs: named after the digest of an image.
fn is_of_attached(tag: &str) -> bool {
    let Some((algorithm, rest)) = tag.split_once('-') else { return false };
    let hex = rest.split('.').next().unwrap_or_default();
    let ending = &rest[hex.len()..];
    ["", ".sig", ".att", ".sbom"].contains(&ending) && format!("{algorithm}:{hex}").parse::<Digest>().is_ok()
}

fn tags_of(
    wanted: &Wanted,
    repository: &str,
    make: &Make<'_>,
    monitor: &Monitor,
) -> Result<std::collections::BTreeSet<String>> {
    let spec = Spec::Registry(repository.to_string());
    let mut settings = make(format!("docker://{repository}").as_ref(), Path::new("x"))?.open.registry;
    wanted.access.apply(&spec, &mut settings)?;
    registry::tags(&repository.parse()?, &settings, monitor)
}
