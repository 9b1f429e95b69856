use std::collections::{BTreeMap, BTreeSet};

use rayon::iter::{IntoParallelRefIterator as _, ParallelIterator as _};

use super::config::compare_configs;
use super::entry::EntryKind;
use super::view::{View, ViewOptions};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::io::{Monitor, no_thread};
use crate::layers::plain_region;
use crate::model::{Quoted, Xattrs};
use crate::source::{Selection, Source};
use crate::tree::{Content, Inode, InodeId, Kind, Tree};

/// What is compared.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DiffOptions {
    /// Times of last modification too, in whole seconds.
    pub times: bool,
}

impl DiffOptions {
    /// Whether times of last modification are compared too.
    #[must_use]
    pub fn times(mut self, times: bool) -> Self {
        self.times = times;
        self
    }
}

/// One difference between two images.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// In what.
    pub aspect: Aspect,
    /// What the first has, for people; `None` where it has nothing.
    pub left: Option<String>,
    /// What the second has.
    pub right: Option<String>,
    /// How many names it is about: more than one where a directory is missing with all that is in it.
    pub names: u64,
    /// Why it is to be expected, where that is known.
    pub explanation: Option<&'static str>,
}

/// Where a difference is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At a path; empty for the root.
    Path(Vec<u8>),
    /// In a field of the config.
    Config(String),
}

/// In what two files or configs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aspect {
    /// One of them has it, the other has not.
    Presence,
    /// A directory here, a file there.
    Type,
    /// Permissions.
    Mode,
    /// Owner and group.
    Owner,
    /// The bytes of a file.
    Contents,
    /// Where a symbolic link points to.
    Target,
    /// The numbers of a device.
    Device,
    /// Extended attributes.
    Xattrs,
    /// Which names are of one file.
    Link,
    /// Time of last modification.
    Time,
    /// A value of the config.
    Value,
}

impl Aspect {
    /// A word for it, which never changes.
    pub fn word(self) -> &'static str {
        match self {
            Aspect::Presence => "presence",
            Aspect::Type => "type",
            Aspect::Mode => "mode",
            Aspect::Owner => "owner",
            Aspect::Contents => "contents",
            Aspect::Target => "target",
            Aspect::Device => "device",
            Aspect::Xattrs => "xattrs",
            Aspect::Link => "link",
            Aspect::Time => "time",
            Aspect::Value => "value",
        }
    }
}

/// One of the two that are compared.
pub struct Side<'a> {
    /// The opened source.
    pub source: &'a Source,
    /// Which image of it.
    pub selection: &'a Selection,
}

/// What is at one path in both.
pub struct Pair<'a> {
    /// From the root.
    pub path: &'a [u8],
    /// In the first.
    pub left: Option<&'a Inode>,
    /// In the second.
    pub right: Option<&'a Inode>,
}

/// Says why a difference is to be expected.
pub type Explain<'a> = &'a (dyn Fn(&Pair<'_>, Aspect) -> Option<&'static str> + Sync);

/// Compares two images: names, types, modes, owners, extended attributes, links, contents, and how they run.
///
/// # Errors
/// As looking into either fails.
pub fn diff(
    left: &Side<'_>,
    right: &Side<'_>,
    options: DiffOptions,
    view_options: &ViewOptions,
    monitor: &Monitor,
) -> Result<Vec<Difference>> {
    diff_explained(left, right, options, view_options, monitor, &|_, _| None)
}

/// The same; `explain` says which differences are to be expected.
///
/// # Errors
/// As [`diff`].
pub fn diff_explained(
    left: &Side<'_>,
    right: &Side<'_>,
    options: DiffOptions,
    view_options: &ViewOptions,
    monitor: &Monitor,
    explain: Explain<'_>,
) -> Result<Vec<Difference>> {
    let (left, right) = views(left, right, view_options, monitor)?;
    compare(&left, &right, options, view_options, monitor, explain)
}

/// Both views. Contents of compressed layers are summed up while they are decoded, unless all layers are the same.
fn views(left: &Side<'_>, right: &Side<'_>, options: &ViewOptions, monitor: &Monitor) -> Result<(View, View)> {
    let images = (left.source.select(left.selection)?, right.source.select(right.selection)?);
    let layers = |image: &Image| image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
    let of_left = layers(&images.0);
    let all_same = of_left == layers(&images.1) && of_left.iter().all(Option::is_some);
    let is_decoded = |image: &Image, index| Ok(plain_region(image, index)?.is_none());
    let count = if all_same { of_left.len() } else { 0 };
    // Of the same layer decoded on both sides nothing need be known but that.
    let in_both = |index| Ok(is_decoded(&images.0, index)? && is_decoded(&images.1, index)?);
    let in_both: Vec<bool> = (0..count).map(in_both).collect::<Result<_>>()?;
    let wants_sums = |index: usize| !in_both.get(index).copied().unwrap_or(false);
    let view = |side: &Side<'_>, image| View::of_image(side.source, image, options, monitor, &wants_sums);
    let (of_left, of_right) = images.clone();
    Ok((view(left, of_left)?, view(right, of_right)?))
}

fn compare(
    left: &View,
    right: &View,
    options: DiffOptions,
    view_options: &ViewOptions,
    monitor: &Monitor,
    explain: Explain<'_>,
) -> Result<Vec<Difference>> {
    let mut differences = compare_configs(left.config(), right.config())?;
    let comparison = Comparison { left, right, options, explain };
    let findings = comparison.names(monitor)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(view_options.jobs.get()).build();
    let pool = pool.map_err(|error| no_thread(std::io::Error::other(error)))?;
    let settled: Vec<Option<Difference>> = pool.install(|| {
        let settle = |finding: &Finding| comparison.settle(finding, monitor);
        findings.par_iter().map(settle).collect::<Result<_>>()
    })?;
    left.expect_unchanged()?;
    right.expect_unchanged()?;
    differences.extend(settled.into_iter().flatten());
    Ok(differences)
}

struct Comparison<'a> {
    left: &'a View,
    right: &'a View,
    options: DiffOptions,
    explain: Explain<'a>,
}

/// A difference, or two files of one size whose contents are still to be compared.
enum Finding {
    Difference(Difference),
    Contents { path: Vec<u8>, left: InodeId, right: InodeId },
}

/// A path and what it is in both.
type Both = (Vec<u8>, Option<InodeId>, Option<InodeId>);

impl Comparison<'_> {
    fn names(&self, monitor: &Monitor) -> Result<Vec<Finding>> {
        let (left_tree, right_tree) = (self.left.tree(), self.right.tree());
        let mut findings = Vec::new();
        let mut first_names: (BTreeMap<InodeId, Vec<u8>>, BTreeMap<InodeId, Vec<u8>>) = Default::default();
        let mut left_to_do: Vec<Both> = vec![(Vec::new(), Some(Tree::ROOT), Some(Tree::ROOT))];
        while let Some((path, left, right)) = left_to_do.pop() {
            monitor.check()?;
            let pair = Pair {
                path: &path,
                left: left.map(|id| left_tree.inode(id)),
                right: right.map(|id| right_tree.inode(id)),
            };
            let (Some(left), Some(right)) = (left, right) else {
                findings.push(Finding::Difference(self.presence(&pair, left, right)));
                continue;
            };
            let firsts = (
                first_name(left_tree, left, &path, &mut first_names.0),
                first_name(right_tree, right, &path, &mut first_names.1),
            );
            if firsts.0 != firsts.1 {
                let shown = |first: &Option<Vec<u8>>| first.as_ref().map(|first| Quoted(first).to_string());
                findings.push(self.found(&pair, Aspect::Link, shown(&firsts.0), shown(&firsts.1)));
            } else if firsts.0.is_some() {
                // What it is was compared at its first name.
                continue;
            }
            self.one(&pair, (left, right), &mut findings);
            children(left_tree, right_tree, (&path, left, right), &mut left_to_do);
        }
        Ok(findings)
    }

    fn presence(&self, pair: &Pair<'_>, left: Option<InodeId>, right: Option<InodeId>) -> Difference {
        let names = |view: &View, id: Option<InodeId>| {
            id.map_or(0, |inode| {
                let first = crate::tree::Visit { path: Vec::new(), inode, layer: 0 };
                view.tree().walk_from(first).count() as u64
            })
        };
        let what = |inode: Option<&Inode>| inode.map(|inode| EntryKind::of(&inode.kind).to_string());
        let names = names(self.left, left) + names(self.right, right);
        let difference = self.difference(pair, Aspect::Presence, what(pair.left), what(pair.right));
        Difference { names, ..difference }
    }

    /// Compares all but contents.
    fn one(&self, pair: &Pair<'_>, ids: (InodeId, InodeId), findings: &mut Vec<Finding>) {
        let (Some(left), Some(right)) = (pair.left, pair.right) else { return };
        let mut differ = |aspect, left: String, right: String| {
            if left != right {
                findings.push(self.found(pair, aspect, Some(left), Some(right)));
            }
        };
        let (of_left, of_right) = (&left.metadata, &right.metadata);
        differ(Aspect::Type, word(&left.kind).to_string(), word(&right.kind).to_string());
        // The mode of a symbolic link means nothing, and is not the same everywhere.
        if !matches!(left.kind, Kind::Symlink(_)) {
            let octal = |mode: crate::model::Mode| format!("{:04o}", mode.bits());
            differ(Aspect::Mode, octal(of_left.mode), octal(of_right.mode));
        }
        let owner = |metadata: &crate::model::Metadata| format!("{}:{}", metadata.uid, metadata.gid);
        differ(Aspect::Owner, owner(of_left), owner(of_right));
        if self.options.times {
            differ(Aspect::Time, of_left.mtime.to_rfc3339(), of_right.mtime.to_rfc3339());
        }
        differ_in_xattrs(of_left.xattrs.as_deref(), of_right.xattrs.as_deref(), &mut differ);
        match (&left.kind, &right.kind) {
            (Kind::Symlink(left), Kind::Symlink(right)) => {
                differ(Aspect::Target, Quoted(left).to_string(), Quoted(right).to_string());
            }
            (Kind::CharDevice { .. }, Kind::CharDevice { .. })
            | (Kind::BlockDevice { .. }, Kind::BlockDevice { .. }) => {
                let numbers = |kind: &Kind| EntryKind::of(kind).to_string();
                differ(Aspect::Device, numbers(&left.kind), numbers(&right.kind));
            }
            (Kind::File(of_left), Kind::File(of_right)) if of_left.size != of_right.size => {
                let bytes = |inode: &Inode| EntryKind::of(&inode.kind).to_string();
                differ(Aspect::Contents, bytes(left), bytes(right));
            }
            (Kind::File(of_left), Kind::File(_)) if of_left.size > 0 => {
                findings.push(Finding::Contents { path: pair.path.to_vec(), left: ids.0, right: ids.1 });
            }
            _ => {}
        }
    }

    fn settle(&self, finding: &Finding, monitor: &Monitor) -> Result<Option<Difference>> {
        let (path, left, right) = match finding {
            Finding::Difference(difference) => return Ok(Some(difference.clone())),
            Finding::Contents { path, left, right } => (path, *left, *right),
        };
        monitor.check()?;
        let doing = |error: Error| error.doing(format!("comparing {}", Quoted(path)));
        if self.is_same_place(left, right) {
            return Ok(None);
        }
        let sums = (self.left.content_sum(left, monitor), self.right.content_sum(right, monitor));
        if sums.0.map_err(doing)? == sums.1.map_err(doing)? {
            return Ok(None);
        }
        let pair = Pair { path, left: Some(self.left.tree().inode(left)), right: Some(self.right.tree().inode(right)) };
        let bytes = |inode: Option<&Inode>| inode.map(|inode| EntryKind::of(&inode.kind).to_string());
        Ok(Some(self.difference(&pair, Aspect::Contents, bytes(pair.left), bytes(pair.right))))
    }

    /// Whether both files are one stretch of one layer that was verified in both.
    fn is_same_place(&self, left: InodeId, right: InodeId) -> bool {
        let place = |view: &View, id: InodeId| match &view.tree().inode(id).kind {
            Kind::File(data) => match &data.content {
                Content::Stored(location) => view.verified_place(*location),
                _ => None,
            },
            _ => None,
        };
        let of_left = place(self.left, left);
        of_left.is_some() && of_left == place(self.right, right)
    }

    fn found(&self, pair: &Pair<'_>, aspect: Aspect, left: Option<String>, right: Option<String>) -> Finding {
        Finding::Difference(self.difference(pair, aspect, left, right))
    }

    fn difference(&self, pair: &Pair<'_>, aspect: Aspect, left: Option<String>, right: Option<String>) -> Difference {
        let explanation = (self.explain)(pair, aspect);
        Difference { place: Place::Path(pair.path.to_vec()), aspect, left, right, names: 1, explanation }
    }
}

/// The first name of a file that has several; `None` at that name itself.
fn first_name(
    tree: &Tree,
    inode: InodeId,
    path: &[u8],
    first_names: &mut BTreeMap<InodeId, Vec<u8>>,
) -> Option<Vec<u8>> {
    if tree.inode(inode).links < 2 || tree.directory(inode).is_some() {
        return None;
    }
    if let Some(first) = first_names.get(&inode) {
        return Some(first.clone());
    }
    first_names.insert(inode, path.to_vec());
    None
}

/// Adds what is in two directories, so that the first name is taken next.
fn children(
    left_tree: &Tree,
    right_tree: &Tree,
    (path, left, right): (&[u8], InodeId, InodeId),
    to_do: &mut Vec<Both>,
) {
    let (Some(in_left), Some(in_right)) = (left_tree.directory(left), right_tree.directory(right)) else { return };
    let names: BTreeSet<&Box<[u8]>> = in_left.keys().chain(in_right.keys()).collect();
    for name in names.into_iter().rev() {
        let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let inode = |names: &crate::tree::Directory| names.get(name).map(|dentry| dentry.inode);
        to_do.push(([path, separator, name].concat(), inode(in_left), inode(in_right)));
    }
}

fn word(kind: &Kind) -> &'static str {
    EntryKind::of(kind).word()
}

fn differ_in_xattrs(left: Option<&Xattrs>, right: Option<&Xattrs>, differ: &mut impl FnMut(Aspect, String, String)) {
    let none = Xattrs::new();
    let (left, right) = (left.unwrap_or(&none), right.unwrap_or(&none));
    if left == right {
        return;
    }
    let shown = |these: &Xattrs, others: &Xattrs| {
        let own = these.iter().filter(|(name, value)| others.get(*name) != Some(*value));
        let own: Vec<String> = own.map(|(name, value)| format!("{}={}", Quoted(name), Quoted(value))).collect();
        if own.is_empty() { "none of them".to_string() } else { own.join(" ") }
    };
    differ(Aspect::Xattrs, shown(left, right), shown(right, left));
}
