use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::catalogue::{Catalogue, MemberList};
use super::document::Documents;
use super::layers::LAYERS_MAX;
use super::members::Members;
use crate::error::{Error, ErrorKind, Result, ResultExt as _};
use crate::model::{Config, Digest, parse_json};

/// The document of old archives that lists tags: `{repository: {tag: v1 id}}`.
pub(super) const REPOSITORIES: &str = "repositories";

/// The part of a v1 image's `json` that leads to its parent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Link {
    parent: Option<String>,
}

/// Adds the images of an archive of Docker before 1.10, which has neither `manifest.json` nor `index.json`; whether there
/// are any.
///
/// An image is a chain of `<id>/json` documents, from the top layer down to the one without a parent. The top one serves
/// as config: it has `config`, `created`, `architecture` and `os` where later configs have them, and no diff_ids. Docker's
/// IDs of that time are random numbers; the image ID that follows from the document here is its digest, which names the
/// document's bytes but is known to no Docker. The old ID can be asked for all the same.
pub(super) fn read(documents: &Documents<'_>, members: &Members, catalogue: &mut Catalogue) -> Result<bool> {
    let links = links(documents, members)?;
    if links.is_empty() {
        return Ok(false);
    }
    let mut tops = tagged(documents)?;
    if tops.is_empty() {
        let parents: BTreeSet<&str> = links.values().flatten().map(String::as_str).collect();
        let childless = links.keys().filter(|id| !parents.contains(id.as_str()));
        tops = childless.map(|id| (id.clone(), Vec::new())).collect();
    }
    for (top, names) in tops {
        let doing = || format!("following the layers of image {top:?} of {}", documents.store.name());
        add(documents, catalogue, &links, &top, &names).doing(doing)?;
    }
    Ok(true)
}

/// A line of history for each layer, as Docker's own migration makes them (`HistoryFromConfig` of its `image/v1`).
fn history(documents: &Documents<'_>, chain: &[String]) -> Result<Value> {
    let line = |id: &String| {
        let json = format!("{id}/json");
        let bytes = documents.read(&json)?.unwrap_or_default();
        let document: Map<String, Value> =
            parse_json(&bytes, "an image of Docker before 1.10").doing(|| documents.doing(&json))?;
        let text = |key: &str| document.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let command = document.get("container_config").and_then(|config| config.get("Cmd"));
        let words = command.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let command = words.collect::<Vec<_>>().join(" ");
        let mut line = Map::new();
        for (key, value) in [
            ("created", text("created").map(as_go_writes)),
            ("author", text("author").map(str::to_string)),
            ("created_by", Some(command).filter(|command| !command.is_empty())),
            ("comment", text("comment").map(str::to_string)),
        ] {
            line.extend(value.map(|value| (key.to_string(), Value::from(value))));
        }
        Ok(Value::Object(line))
    };
    chain.iter().map(line).collect::<Result<Vec<_>>>().map(Value::Array)
}

/// A time without zeros at the end of its fraction (RFC3339Nano).
fn as_go_writes(time: &str) -> String {
    match time.split_once('.').and_then(|(start, rest)| Some((start, rest.strip_suffix('Z')?))) {
        Some((start, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{start}Z"),
            fraction => format!("{start}.{fraction}Z"),
        },
        None => time.to_string(),
    }
}

fn add(
    documents: &Documents<'_>,
    catalogue: &mut Catalogue,
    links: &BTreeMap<String, Option<String>>,
    top: &str,
    names: &[String],
) -> Result<()> {
    let chain = chain(links, top)?;
    let json = format!("{top}/json");
    let bytes = documents.read(&json)?.unwrap_or_default();
    let found = catalogue.with_config(Digest::of(&bytes))?;
    found.set_config(Config::parse(bytes).doing(|| documents.doing(&json))?);
    found.v1_id = Some(top.to_string());
    found.history = Some(history(documents, &chain)?);
    names.iter().for_each(|name| found.add_name(name));
    found.candidate.layers = chain.len();
    let names = chain.iter().map(|id| format!("{id}/layer.tar")).collect();
    found.members = Some(MemberList { listed_in: json, names });
    Ok(())
}

/// The v1 IDs from the base up to `top`.
fn chain(links: &BTreeMap<String, Option<String>>, top: &str) -> Result<Vec<String>> {
    let mut chain: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut at = Some(top);
    while let Some(id) = at {
        let link = links.get(id).ok_or_else(|| {
            let referrer = chain.last().map_or(REPOSITORIES.to_string(), |child| format!("{child}/json"));
            Error::new(
                ErrorKind::InvalidImage,
                format!("member \"{id}/json\", to which {referrer:?} refers, is missing"),
            )
            .hint("the archive is damaged or incomplete: save it again")
        })?;
        if !seen.insert(id) {
            return Err(Error::new(ErrorKind::InvalidImage, format!("layer {id:?} is its own ancestor")));
        }
        if chain.len() == LAYERS_MAX {
            return Err(Error::new(ErrorKind::InvalidImage, format!("there are more than {LAYERS_MAX} layers")));
        }
        chain.push(id.to_string());
        at = link.as_deref();
    }
    chain.reverse();
    Ok(chain)
}

/// Every v1 image of the archive and its parent.
fn links(documents: &Documents<'_>, members: &Members) -> Result<BTreeMap<String, Option<String>>> {
    let mut links = BTreeMap::new();
    for name in members.names() {
        let id = name.strip_suffix(b"/json").and_then(|id| std::str::from_utf8(id).ok());
        let Some(id) = id.filter(|id| !id.contains('/')) else { continue };
        let key = format!("{id}/json");
        let Some(bytes) = documents.read(&key)? else { continue };
        let link: Link = parse_json(&bytes, "an image document").doing(|| documents.doing(&key))?;
        links.insert(id.to_string(), link.parent.filter(|parent| !parent.is_empty()));
    }
    Ok(links)
}

/// The v1 IDs that `repositories` names, with all their names.
fn tagged(documents: &Documents<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let mut tops: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(bytes) = documents.read(REPOSITORIES)? else { return Ok(tops) };
    let repositories: BTreeMap<String, BTreeMap<String, String>> =
        parse_json(&bytes, "a list of repositories").doing(|| documents.doing(REPOSITORIES))?;
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            tops.entry(id).or_default().push(format!("{repository}:{tag}"));
        }
    }
    Ok(tops)
}
