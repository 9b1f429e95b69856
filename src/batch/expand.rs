use super::list::standard_input;
use super::{Item, Make, Wanted, What};
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::io::Monitor;
use crate::registry;
use crate::source::Spec;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

/// Makes a list of images of what is wanted: each tag of a repository becomes one. What is wanted twice is there once.
///
/// # Errors
/// Whatever asking a registry for tags fails with, [`ErrorKind::Usage`] for what is not a source, and
/// [`ErrorKind::SourceUnavailable`] where a repository has no tag that is meant.
pub fn expand(wanted: &[Wanted], make: &Make<'_>, monitor: &Monitor) -> Result<Vec<Item>> {
    let mut items: Vec<Item> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut add = |source: OsString, wanted: &Wanted, name: Option<String>| -> Result<()> {
        let spec = Spec::parse(&source).doing(|| wanted.place.clone())?;
        if spec == Spec::Stdin {
            return Err(standard_input());
        }
        if seen.insert((source.clone(), name.clone())) {
            items.push(Item { source, spec, name, access: Arc::clone(&wanted.access), place: wanted.place.clone() });
        }
        Ok(())
    };
    for each in wanted {
        match &each.what {
            What::Source(source) => add(source.clone(), each, each.name.clone())?,
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
                    add(format!("docker://{repository}:{tag}").into(), each, None)?;
                }
            }
        }
    }
    Ok(items)
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
