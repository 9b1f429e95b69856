use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

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

/// What a v1 image's `json` says of its place in a chain, and of how it was made.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Document {
    parent: Option<String>,
    created: Option<String>,
    author: Option<String>,
    comment: Option<String>,
    container_config: Option<Value>,
}

/// A v1 image: its parent, and its line of history.
struct Link {
    parent: Option<String>,
    line: Arc<Value>,
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
        let parents: BTreeSet<&str> = links.values().filter_map(|link| link.parent.as_deref()).collect();
        let childless = links.keys().filter(|id| !parents.contains(id.as_str()));
        tops = childless.map(|id| (id.clone(), Vec::new())).collect();
    }
    for (top, names) in tops {
        let doing = || format!("following the layers of image {top:?} of {}", documents.store.name());
        add(documents, catalogue, &links, &top, &names).doing(doing)?;
    }
    Ok(true)
}

impl Document {
    /// Its line of history, as Docker's own migration makes it (`HistoryFromConfig` of its `image/v1`).
    fn line(&self) -> Value {
        let command = self.container_config.as_ref().and_then(|config| config.get("Cmd"));
        let command = match command {
            Some(Value::String(line)) => line.clone(),
            Some(Value::Array(words)) => {
                words.iter().map(|word| word.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        };
        let mut line = Map::new();
        for (key, value) in [
            ("created", self.created.as_deref().map(as_go_writes)),
            ("author", self.author.clone()),
            ("created_by", Some(command)),
            ("comment", self.comment.clone()),
        ] {
            let value = value.filter(|value| !value.is_empty());
            line.extend(value.map(|value| (key.to_string(), Value::from(value))));
        }
        Value::Object(line)
    }
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
    links: &BTreeMap<String, Link>,
    top: &str,
    names: &[String],
) -> Result<()> {
    let chain = chain(links, top)?;
    let json = format!("{top}/json");
    let bytes = documents.read(&json)?.unwrap_or_default();
    let found = catalogue.with_config(Digest::of(&bytes))?;
    found.set_config(Config::parse(bytes).doing(|| documents.doing(&json))?);
    found.v1_id = Some(top.to_string());
    found.history = Some(chain.iter().filter_map(|id| Some(Arc::clone(&links.get(id)?.line))).collect());
    names.iter().for_each(|name| found.add_name(name));
    found.candidate.layers = chain.len();
    let names = chain.iter().map(|id| format!("{id}/layer.tar")).collect();
    found.members = Some(MemberList { listed_in: json, names });
    Ok(())
}

/// The v1 IDs from the base up to `top`.
fn chain(links: &BTreeMap<String, Link>, top: &str) -> Result<Vec<String>> {
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
        at = link.parent.as_deref();
    }
    chain.reverse();
    Ok(chain)
}

/// Every v1 image of the archive.
fn links(documents: &Documents<'_>, members: &Members) -> Result<BTreeMap<String, Link>> {
    let mut links = BTreeMap::new();
    for name in members.names() {
        let id = name.strip_suffix(b"/json").and_then(|id| std::str::from_utf8(id).ok());
        let Some(id) = id.filter(|id| !id.contains('/')) else { continue };
        let key = format!("{id}/json");
        let Some(bytes) = documents.read(&key)? else { continue };
        let document: Document = parse_json(&bytes, "an image document").doing(|| documents.doing(&key))?;
        let line = Arc::new(document.line());
        links.insert(id.to_string(), Link { parent: document.parent.filter(|parent| !parent.is_empty()), line });
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
