//! A root for Singularity: what it changes about the image's own files, and what it has besides.

use std::collections::BTreeSet;

use super::prepared::Task;
use super::{architecture, policy};
use crate::error::{Result, ResultExt};
use crate::image::Image;
use crate::layers::Flattened;
use crate::model::{BindTarget, Digest, EntryPath, Note};
use crate::singularity::{self, Additions, Prepared};
use crate::tree::Tree;

/// Which extended attributes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum XattrPolicy {
    /// None.
    #[default]
    None,
    /// `security.capability` only.
    Capabilities,
    /// All.
    All,
}

/// What goes into a root for Singularity.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Root {
    /// The image's name as recorded inside; its ID where absent.
    pub reference: Option<String>,
    /// Which extended attributes are kept.
    pub xattrs: XattrPolicy,
    /// Give everything to 0:0.
    pub all_root: bool,
    /// Make directories u+rwx and files u+rw.
    pub fix_perms: bool,
    /// Keep device nodes.
    pub keep_devices: bool,
    /// Let the runscript change to the image's WORKDIR first.
    pub workdir: bool,
    /// Directories to create where missing.
    pub mkdir: Vec<EntryPath>,
    /// Empty files to create where missing.
    pub mkfile: Vec<EntryPath>,
    /// Places of a configuration to create where missing.
    pub bind_targets: Vec<BindTarget>,
    /// Labels to add.
    pub labels: Vec<(String, String)>,
}

/// A root that was made.
pub(super) struct Made {
    pub(super) notes: Vec<Note>,
    /// What its programs run on, where that is known.
    pub(super) architecture: Option<String>,
    pub(super) prepared: Prepared,
}

impl Root {
    /// Makes the root of what was flattened. `asked` is the architecture whatever config and programs say.
    pub(super) fn make(
        &self,
        image: &Image,
        flattened: &mut Flattened,
        asked: Option<&str>,
        task: &Task,
    ) -> Result<Made> {
        let mut notes = policy::apply(&mut flattened.tree, self);
        let (architecture, more) = architecture::architecture(image, &flattened.tree, &flattened.contents, asked);
        notes.extend(more);
        let mut prepared = self.add(image, &mut flattened.tree, architecture.as_deref(), task)?;
        notes.append(&mut prepared.notes);
        Ok(Made { notes, architecture, prepared })
    }

    /// Makes the root of layers that are not all there, as far as it goes.
    pub(super) fn foresee(&self, image: &Image, tree: &mut Tree, task: &Task) {
        policy::apply(tree, self);
        let architecture = image.platform().architecture;
        // What cannot be prepared now will be told when all layers are there.
        drop(self.add(image, tree, Some(&architecture), task));
    }

    fn add(&self, image: &Image, tree: &mut Tree, architecture: Option<&str>, task: &Task) -> Result<Prepared> {
        let additions = Additions {
            reference: &recorded_reference(image, self.reference.as_deref()),
            time: task.made_at(image),
            architecture: architecture.unwrap_or_default(),
            change_to_workdir: self.workdir,
            mkdir: &self.mkdir,
            mkfile: &self.mkfile,
            bind_targets: &self.bind_targets,
            labels: &self.labels,
        };
        singularity::prepare(tree, &image.config, &additions)
            .doing(|| format!("preparing {} for Singularity", image.blobs.name()))
    }

    /// A digest of the choices that decide what is inside, beside the image: what exists will do for a caller who made the
    /// same ones. `None` where all of them are the usual ones. How it is compressed and dated plays no part.
    pub fn choices(&self) -> Option<String> {
        let paths = |paths: &[EntryPath]| paths.iter().map(EntryPath::to_string).collect::<BTreeSet<_>>();
        let bound: BTreeSet<String> =
            self.bind_targets.iter().map(|target| format!("{} {}", target.kind.word(), target.path)).collect();
        let words = [
            (self.xattrs != XattrPolicy::None).then(|| format!("xattrs {:?}", self.xattrs)),
            self.all_root.then(|| "all-root".to_string()),
            self.fix_perms.then(|| "fix-perms".to_string()),
            self.keep_devices.then(|| "keep-devices".to_string()),
            self.workdir.then(|| "workdir".to_string()),
            (!self.mkdir.is_empty()).then(|| format!("mkdir {:?}", paths(&self.mkdir))),
            (!self.mkfile.is_empty()).then(|| format!("mkfile {:?}", paths(&self.mkfile))),
            (!bound.is_empty()).then(|| format!("bind {bound:?}")),
            (!self.labels.is_empty()).then(|| format!("labels {:?}", self.labels)),
            self.reference.as_ref().map(|reference| format!("reference {reference:?}")),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        (!words.is_empty()).then(|| Digest::of(words.join("\n").as_bytes()).to_string())
    }
}

/// What is recorded of where an image comes from: a name only where one is asked for, else its ID. The same image gives the
/// same bytes, whatever it was called where it was found.
pub(crate) fn recorded_reference(image: &Image, asked: Option<&str>) -> String {
    asked.map_or_else(|| image.id().to_string(), str::to_string)
}
