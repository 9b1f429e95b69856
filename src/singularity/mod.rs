//! What Singularity and Apptainer expect inside a root: an image config becomes a handful of small files, directories and
//! links that are added to a [`Tree`], and the two JSON documents that a SIF carries beside it.
//!
//! The idea to hold: the image's own words reach the container unchanged, whatever they are made of. `ENV`, `ENTRYPOINT`
//! and `CMD` are written as single-quoted shell words that no shell expands, and what cannot be carried over is named in
//! a [`Note`]. Names are resolved inside the tree, and an inode of the image is never changed in place: it may have other
//! names. This room writes no files and knows neither layers nor output formats.

mod advice;
mod base;
mod definition;
mod environment;
mod foreign;
mod go_json;
mod inspect;
mod labels;
mod program;
mod quote;
mod recover;
mod remove;
mod runscript;
mod scripts;
mod shell;
mod shown;
mod site;

#[cfg(test)]
mod shell_tests;
#[cfg(test)]
mod tests;

pub use advice::forecast;
pub(crate) use advice::has_shell;
pub(crate) use foreign::{always_there, explain as explain_foreign, is_known_directory, mode_for_all};
pub(crate) use program::program;
pub(crate) use recover::{Remains, recover};
pub(crate) use remove::{is_prepared, list_of_made, remove};
pub(crate) use shown::ReadFile;

use self::inspect::Texts;
use self::runscript::{Command, Workdir};
use self::site::{Asked, Obstacle, Origin, Site};
use crate::error::{Result, ResultExt};
use crate::model::{BindTarget, Config, EntryPath, Note, Timestamp};
use crate::tree::{Kind, Tree};

/// Everything about the additions that the image does not say itself.
#[derive(Debug, Clone, Copy)]
pub struct Additions<'a> {
    /// The image's ID, or a name that was asked for: recorded as `bootstrap: docker`, `from: REFERENCE`.
    pub reference: &'a str,
    /// Modification time of everything that is made, and the build date in the labels.
    pub time: Timestamp,
    /// Architecture in Go's spelling, for the label `org.label-schema.build-arch`.
    pub architecture: &'a str,
    /// Whether the runscript changes to the image's `WORKDIR` first.
    pub change_to_workdir: bool,
    /// Directories to create where missing.
    pub mkdir: &'a [EntryPath],
    /// Empty files to create where missing.
    pub mkfile: &'a [EntryPath],
    /// Places of a configuration to create where missing.
    pub bind_targets: &'a [BindTarget],
    /// Labels that win over the image's and ours; of equal names the last wins.
    pub labels: &'a [(String, String)],
}

/// What [`prepare`] made besides the files in the tree.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// What the user should know; holds what [`forecast`] says too.
    pub notes: Vec<Note>,
    /// The definition text: the file `.singularity.d/Singularity` and the SIF's definition object.
    pub definition: String,
    /// The SIF object `oci-config.json`, which `apptainer oci` reads.
    pub oci_config: Vec<u8>,
    texts: Texts,
}

impl Prepared {
    /// The SIF object `inspect-metadata.json`, which `apptainer inspect` reads, and what was left out of it. `tree` is the
    /// one that was prepared.
    ///
    /// # Errors
    /// When a file of the image that is shown cannot be read.
    pub fn inspect_metadata(&self, tree: &Tree, read: ReadFile<'_>) -> Result<(Vec<u8>, Option<Note>)> {
        let mut shown = shown::Shown::of(tree, self.texts.runscript.is_none(), read)?;
        let note = shown.note.take();
        Ok((inspect::metadata(&self.texts, &shown)?, note))
    }
}

/// Adds to `tree` what Singularity and Apptainer expect.
///
/// # Errors
/// [`crate::ErrorKind::InvalidImage`] when symlinks in the way form a loop or lead to a name that cannot be, or when the
/// config's execution part has a field of the wrong type; [`crate::ErrorKind::Usage`] when something asked for cannot be
/// had in this image: a directory where a file is, a `WORKDIR` that is none, a reference of several lines.
pub fn prepare(tree: &mut Tree, config: &Config, additions: &Additions<'_>) -> Result<Prepared> {
    let definition = definition::text(additions.reference)?;
    let oci_config = inspect::oci_config(config).doing(|| "reading the image config")?;
    let environment = environment::Environment::of(config);
    let labels = labels::merge(config, additions);

    let mut notes = advice::review(config);
    notes.extend(advice::of_tree(tree, config));
    if additions.change_to_workdir {
        notes.retain(|note| !advice::ABOUT_WORKDIR.contains(&note.code));
    }

    if is_prepared(tree) {
        let message = "the image holds .singularity.d already, as a root that was prepared for Singularity does: an \
                       image that is made of the output again may be without it, and without what it says was made";
        notes.push(Note::new("singularity-files-present", message, 1));
    }
    let mut site = Site::new(tree, additions.time);
    base::directories(&mut site)?;
    let workdir = workdir(&mut site, config, additions)?;
    notes.extend(base::image_directories(&mut site, config, &inspect::volumes(&oci_config)));
    let command = Command::of(config);
    let kept = Kept::of(&site, config, &command);
    if kept.scripts && (!command.cmd.is_empty() || workdir.is_some()) {
        let message = "CMD and WORKDIR have no effect: the runscript of the root is kept, and does not know them";
        notes.push(Note::new("runscript-kept", message, 1));
    }
    // What runs the runscript cannot be what it runs.
    let command = if runs_the_runscript(&command) { Command::NONE } else { command };
    let texts = Texts {
        environment: environment.script(),
        runscript: (!kept.scripts).then(|| runscript::text(&command, workdir.as_ref(), &environment)),
        labels,
        definition,
    };
    base::files(&mut site, &texts, kept)?;
    base::links(&mut site);
    base::bind_targets(&mut site)?;
    base::requested(&mut site, additions)?;
    base::record(&mut site)?;
    notes.extend(site.into_notes());
    notes.extend(workdir.and_then(|workdir| workdir.note()));

    Ok(Prepared { notes, oci_config, definition: texts.definition.clone(), texts })
}

/// What of a root that was prepared before stays as it is: no config says what it does.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// `env/90-environment.sh`, where there is one.
    environment: bool,
    /// `runscript`, which is there, and `startscript`, where there is one.
    scripts: bool,
}

impl Kept {
    fn of(site: &Site<'_>, config: &Config, command: &Command<'_>) -> Self {
        let runscript = site.tree().get(b".singularity.d/runscript");
        let has_runscript = runscript.is_some_and(|inode| matches!(site.tree().inode(inode).kind, Kind::File(_)));
        let scripts = runs_the_runscript(command) && has_runscript;
        Kept { environment: config.keeps_scripts() || scripts, scripts }
    }
}

/// Whether an image runs what sets the environment and then runs the root's own runscript (see [`recover`]).
fn runs_the_runscript(command: &Command<'_>) -> bool {
    matches!(command.entrypoint, [word] if word == recover::RUN)
}

/// Where the runscript goes first, if anywhere. Docker makes a missing `WORKDIR` when a container starts; here only the
/// conversion can.
fn workdir(site: &mut Site<'_>, config: &Config, additions: &Additions<'_>) -> Result<Option<Workdir>> {
    if !additions.change_to_workdir {
        return Ok(None);
    }
    let path = advice::absolute_workdir(config);
    let asked = Asked { origin: Origin::Option("--workdir"), path: path.as_bytes() };
    site.directory(path.as_bytes(), 0o755, Obstacle::Refuse(asked))?;
    Ok(Some(Workdir { has_shell: advice::has_shell(site.tree()), path }))
}
