//! YAML as a tree of nodes with their lines.
//!
//! A text is read as events, never expanded: an alias is another pointer to the same node, so a text that would unfold into
//! gigabytes stays as small as it is written. Depth and the number of names have bounds. What a reader could take in two ways
//! (two equal keys, merge keys) is refused with its line.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::error::{Error, ErrorKind, Result};

/// How deep nodes may lie in each other, aliases counted as what they stand for: real files need five.
const DEPTH_MAX: usize = 64;
/// How many names one mapping may have.
const NAMES_MAX: usize = 10_000;
/// How many items one list may have.
const ITEMS_MAX: usize = 1_000_000;

fn refuse(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, message)
}

/// A part of the document. What an alias stands for is shared, not copied.
pub(crate) struct Node {
    /// From 1 up.
    pub(crate) line: usize,
    /// How many nodes lie inside each other from here down.
    depth: usize,
    pub(crate) data: Data,
}

pub(crate) enum Data {
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(
        #[cfg_attr(not(feature = "program"), allow(dead_code, reason = "only lists of batches have some"))]
        Vec<Rc<Node>>,
    ),
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

impl Node {
    /// Text, or what YAML writes without quotes: `12` is fine as a name.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        let word = |text: &str| matches!(text, "" | "~" | "null" | "Null" | "NULL");
        matches!(&self.data, Data::Scalar { text, plain: true } if word(text))
    }

    /// As a key, for messages: one word, whatever it is made of.
    pub(crate) fn name(&self) -> String {
        let text = self.text().unwrap_or("?");
        let short = text.chars().take(60).flat_map(char::escape_default).collect::<String>();
        if short.len() < text.len() { format!("{short}…") } else { short }
    }

    pub(crate) fn mapping(&self, what: &str) -> Result<&Node> {
        match self.data {
            Data::Mapping(_) => Ok(self),
            _ if self.is_null() => Ok(self),
            _ => Err(refuse(format!("line {}: {what} is not a mapping", self.line))),
        }
    }

    /// Keys and values; none of what is left empty.
    pub(crate) fn entries(&self, what: &str) -> Result<&[(Rc<Node>, Rc<Node>)]> {
        let Data::Mapping(entries) = &self.mapping(what)?.data else { return Ok(&[]) };
        let mut lines = BTreeMap::new();
        for (key, _) in entries {
            no_merge_key(key)?;
            let text = key.text();
            let text = text.ok_or_else(|| refuse(format!("line {}: a name in {what} is not text", key.line)))?;
            if let Some(line) = lines.insert(text, key.line) {
                return Err(twice(key, line));
            }
        }
        Ok(entries)
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<&Node>> {
        let Data::Mapping(entries) = &self.data else { return Ok(None) };
        let mut found = entries.iter().filter(|(name, _)| name.text() == Some(key));
        match (found.next(), found.next()) {
            (Some((first, _)), Some((second, _))) => Err(twice(second, first.line)),
            (Some((_, value)), None) => Ok(Some(value)),
            // What a merge key stands for could hold it.
            (None, _) => entries.iter().try_for_each(|(name, _)| no_merge_key(name)).map(|()| None),
        }
    }

    pub(crate) fn required(&self, key: &str, place: &str, line: usize) -> Result<&Node> {
        self.get(key)?.ok_or_else(|| refuse(format!("line {line}: {place} has no {key}")))
    }
}

/// Of two equal keys one would be lost, and which one depends on who reads.
fn twice(key: &Node, first_line: usize) -> Error {
    let message = format!("lines {first_line} and {} both have {}", key.line, key.name());
    refuse(message).hint("take one of the two out")
}

fn no_merge_key(key: &Node) -> Result<()> {
    match &key.data {
        Data::Scalar { text, plain: true } if text == "<<" => {
            let message = format!("line {}: merge keys (<<) are not read", key.line);
            Err(refuse(message).hint("write out what it stands for"))
        }
        _ => Ok(()),
    }
}

/// A mapping or sequence whose end has not come.
struct Open {
    line: usize,
    anchor: usize,
    depth: usize,
    is_mapping: bool,
    key: Option<Rc<Node>>,
    entries: Vec<(Rc<Node>, Rc<Node>)>,
    items: Vec<Rc<Node>>,
}

/// The nodes of a text under construction.
#[derive(Default)]
struct Loader {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
}

pub(crate) fn load(text: &str) -> Result<Rc<Node>> {
    let mut loader = Loader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| no_yaml(&error))?;
        loader.take(event, span)?;
    }
    loader.root.ok_or_else(|| refuse("the file is empty"))
}

fn no_yaml(error: &ScanError) -> Error {
    let (line, column) = (error.marker().line(), error.marker().col() + 1);
    let message = format!("line {line}, column {column}: this is not YAML: {}", error.info());
    refuse(message).hint("correct that line: indentation is by spaces, and a colon is followed by one")
}

impl Loader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<()> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let data = Data::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.put(Rc::new(Node { line, depth: 1, data }), anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, false),
            Event::MappingStart(anchor, _) => self.begin(line, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.put(node, 0),
                None => Err(refuse(format!("line {line}: an alias stands inside of what it stands for"))),
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(refuse(format!("line {line}: a second document begins")).hint("leave one document in the file"))
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, is_mapping: bool) -> Result<()> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(line));
        }
        self.open.push(Open { line, anchor, depth: 1, is_mapping, key: None, entries: Vec::new(), items: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(Open { line, anchor, depth, is_mapping, entries, items, .. }) = self.open.pop() else { return Ok(()) };
        let data = if is_mapping { Data::Mapping(entries) } else { Data::Sequence(items) };
        self.put(Rc::new(Node { line, depth, data }), anchor)
    }

    fn put(&mut self, node: Rc<Node>, anchor: usize) -> Result<()> {
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.depth = open.depth.max(node.depth + 1);
        if open.depth > DEPTH_MAX {
            return Err(too_deep(node.line));
        }
        match (open.is_mapping, open.key.take()) {
            (false, _) if open.items.len() >= ITEMS_MAX => {
                return Err(refuse(format!("line {}: a list has more than {ITEMS_MAX} items", node.line)));
            }
            (false, _) => open.items.push(node),
            (true, None) => open.key = Some(node),
            (true, Some(_)) if open.entries.len() >= NAMES_MAX => {
                return Err(refuse(format!("line {}: a mapping has more than {NAMES_MAX} names", node.line)));
            }
            (true, Some(key)) => open.entries.push((key, node)),
        }
        Ok(())
    }
}

fn too_deep(line: usize) -> Error {
    refuse(format!("line {line}: more than {DEPTH_MAX} levels lie inside each other"))
}
