//! Texts of the image's own that `apptainer inspect` shows: SCIF apps, help, tests and further environments. An image has
//! them when it was made from a SIF, or from a definition file's ideas by hand.

use std::collections::BTreeMap;

use serde::Serialize;

use super::labels::Labels;
use crate::error::{Result, ResultExt};
use crate::model::{Note, Quoted};
use crate::tree::{FileData, InodeId, Kind, Tree};

/// Longer texts are left out, in bytes: `apptainer inspect` is for reading.
const TEXT_BYTES_MAX: u64 = 1 << 20;
const APPS: &str = "scif/apps";
const ENVIRONMENTS: &str = ".singularity.d/env";

/// Environment scripts by their absolute paths.
pub(super) type Environments = BTreeMap<String, String>;

/// One SCIF app, in Apptainer's order.
#[derive(Debug, Default, Serialize)]
pub(super) struct App {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: Environments,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: Labels,
    #[serde(skip_serializing_if = "String::is_empty")]
    runscript: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    startscript: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    test: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    helpfile: String,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) apps: BTreeMap<String, App>,
    pub(super) environment: Environments,
    pub(super) runscript: String,
    pub(super) test: String,
    pub(super) helpfile: String,
    /// What was left out.
    pub(super) note: Option<Note>,
}

/// Reads the whole of a file of the image.
pub(crate) type ReadFile<'a> = &'a dyn Fn(&FileData) -> Result<Vec<u8>>;

impl Shown {
    /// Looks into the tree for them, as Apptainer does when it builds; for the runscript only where the root has
    /// its own.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(super) fn of(tree: &Tree, has_runscript: bool, read: ReadFile<'_>) -> Result<Self> {
        let message = "texts of more than 1 MiB are left out of what `apptainer inspect` shows";
        let mut texts = Texts { tree, read, skipped: Note::new("inspect-texts-left-out", message, 0) };
        let mut shown = Shown {
            runscript: if has_runscript { texts.text(".singularity.d/runscript")? } else { String::new() },
            test: texts.text(".singularity.d/test")?,
            helpfile: texts.text(".singularity.d/runscript.help")?,
            environment: texts.environments(ENVIRONMENTS, is_environment)?,
            ..Shown::default()
        };
        for name in texts.names(APPS).into_iter().filter(|name| !name.starts_with('.')) {
            let scif = format!("{APPS}/{name}/scif");
            if texts.is_directory(&scif) {
                shown.apps.insert(name, texts.app(&scif)?);
            }
        }
        shown.note = (texts.skipped.count > 0).then_some(texts.skipped);
        Ok(shown)
    }
}

/// `10-docker*.sh` and `9*-environment.sh`.
fn is_environment(name: &str) -> bool {
    name.starts_with("10-docker") && name.ends_with(".sh") || is_app_environment(name)
}

fn is_app_environment(name: &str) -> bool {
    name.starts_with('9') && name.ends_with("-environment.sh")
}

struct Texts<'a> {
    tree: &'a Tree,
    read: ReadFile<'a>,
    skipped: Note,
}

impl Texts<'_> {
    fn inode(&self, path: &str) -> Option<InodeId> {
        self.tree.resolve(path.as_bytes()).ok()?.inode
    }

    fn is_directory(&self, path: &str) -> bool {
        self.inode(path).is_some_and(|inode| self.tree.directory(inode).is_some())
    }

    /// The names in a directory, but for those that are not text.
    fn names(&self, path: &str) -> Vec<String> {
        let directory = self.inode(path).and_then(|inode| self.tree.directory(inode));
        let names = directory.into_iter().flat_map(|names| names.keys());
        names.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }

    fn app(&mut self, scif: &str) -> Result<App> {
        Ok(App {
            environment: self.environments(&format!("{scif}/env"), is_app_environment)?,
            // What is not an object of strings counts as empty, with Apptainer too.
            labels: serde_json::from_str(&self.text(&format!("{scif}/labels.json"))?).unwrap_or_default(),
            runscript: self.text(&format!("{scif}/runscript"))?,
            startscript: self.text(&format!("{scif}/startscript"))?,
            test: self.text(&format!("{scif}/test"))?,
            helpfile: self.text(&format!("{scif}/runscript.help"))?,
        })
    }

    fn environments(&mut self, directory: &str, is_one: fn(&str) -> bool) -> Result<Environments> {
        let names = self.names(directory).into_iter().filter(|name| is_one(name));
        let paths: Vec<String> = names.map(|name| format!("{directory}/{name}")).collect();
        let mut found = Environments::new();
        for path in paths {
            let text = self.text(&path)?;
            if !text.is_empty() {
                found.insert(format!("/{path}"), text);
            }
        }
        Ok(found)
    }

    /// The text of a file without the newlines at its end; empty where there is none.
    fn text(&mut self, path: &str) -> Result<String> {
        let Some(inode) = self.inode(path) else { return Ok(String::new()) };
        let Kind::File(data) = &self.tree.inode(inode).kind else { return Ok(String::new()) };
        if data.size > TEXT_BYTES_MAX {
            self.skipped.count += 1;
            self.skipped.example(Quoted(path.as_bytes()));
            return Ok(String::new());
        }
        let bytes = (self.read)(data);
        let bytes = bytes.doing(|| format!("reading contents of {}", Quoted(path.as_bytes())))?;
        #[expect(clippy::disallowed_methods, reason = "a text for people, not a file name; Go writes U+FFFD, too")]
        let text = String::from_utf8_lossy(&bytes).replace('\0', "");
        Ok(text.trim_end_matches('\n').to_string())
    }
}
