use std::collections::BTreeSet;

use super::inspect::Texts;
use super::site::{Asked, MADE_LIST, Obstacle, Origin, Site, is_as_made};
use super::{Additions, Kept, labels, scripts};
use crate::error::Result;
use crate::model::{BindKind, Config, EntryPath, Note, Quoted, split_last};
use crate::tree::{InodeId, Kind, Tree};

pub(super) const METADATA_DIRECTORY: &[u8] = b".singularity.d";

/// Directories that the runtime mounts over or into, with the mode they get when they are missing. The two for temporary
/// files are open to all, as everywhere else: a runtime that does not mount over them leaves them in use.
const DIRECTORIES: [(&str, u32); 8] = [
    ("dev", 0o755),
    ("proc", 0o755),
    ("root", 0o755),
    ("var/tmp", 0o1777),
    ("tmp", 0o1777),
    ("etc", 0o755),
    ("sys", 0o755),
    ("home", 0o755),
];

/// Links in the root, for runtimes and people of old.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("singularity", ".singularity.d/runscript"),
    (".run", ".singularity.d/actions/run"),
    (".exec", ".singularity.d/actions/exec"),
    (".test", ".singularity.d/actions/test"),
    (".shell", ".singularity.d/actions/shell"),
    ("environment", ".singularity.d/env/90-environment.sh"),
];

/// Files that the runtime binds the host's over.
const BIND_FILES: [&str; 2] = ["etc/hosts", "etc/resolv.conf"];

/// All that may have to give way ([`directories`], [`bind_targets`]), parents first.
pub(super) fn replaceable() -> BTreeSet<&'static str> {
    let directories = DIRECTORIES.map(|(path, _)| path).into_iter();
    let with_parents = directories.flat_map(|path| [path.split('/').next().unwrap_or(path), path]);
    with_parents.chain(BIND_FILES).collect()
}

/// Whether a file is made at `path`, of which [`replaceable`] says that it may replace something.
pub(super) fn is_bind_file(path: &[u8]) -> bool {
    BIND_FILES.iter().any(|bind| bind.as_bytes() == path)
}

/// The directories that are made where missing.
pub(super) fn directories(site: &mut Site<'_>) -> Result<()> {
    for (path, mode) in DIRECTORIES {
        site.directory(path.as_bytes(), mode, Obstacle::Replace)?;
    }
    Ok(())
}

/// The directories of `VOLUME` and `WORKDIR`, where no layer has them: Docker makes them when a container starts, which here
/// only the conversion can. What cannot be made is told.
pub(super) fn image_directories(site: &mut Site<'_>, config: &Config, volumes: &[String]) -> Option<Note> {
    let message = "directories of VOLUME or WORKDIR could not be made: something else is in the way";
    let mut note = Note::new("directories-not-made", message, 0);
    let named = volumes.iter().map(String::as_str).chain([config.working_dir()]);
    for path in named.filter(|path| !path.is_empty()) {
        if !make_image_directory(site, path) {
            note.count += 1;
            note.example(Quoted(path.as_bytes()));
        }
    }
    (note.count > 0).then_some(note)
}

fn make_image_directory(site: &mut Site<'_>, path: &str) -> bool {
    let Ok(path) = EntryPath::parse(path.as_bytes()) else { return false };
    let asked = Asked { origin: Origin::Option("VOLUME"), path: path.as_bytes() };
    path.is_root() || site.directory(path.as_bytes(), 0o755, Obstacle::Refuse(asked)).is_ok()
}

/// `.singularity.d` and everything in it, but for what is kept.
pub(super) fn files(site: &mut Site<'_>, texts: &Texts, kept: Kept) -> Result<()> {
    let top = site.own_directory(Tree::ROOT, METADATA_DIRECTORY, METADATA_DIRECTORY)?;
    own_directory(site, top, "libs")?;
    let actions = own_directory(site, top, "actions")?;
    for (name, text) in [
        ("exec", scripts::EXEC),
        ("run", scripts::RUN),
        ("shell", scripts::SHELL),
        ("start", scripts::START),
        ("test", scripts::TEST),
    ] {
        own_file(site, actions, &format!("actions/{name}"), 0o755, text);
    }
    let env = own_directory(site, top, "env")?;
    for (name, text) in [
        ("01-base.sh", scripts::ENVIRONMENT_FIRST),
        ("10-docker2singularity.sh", &texts.environment),
        ("90-environment.sh", scripts::ENVIRONMENT),
        ("94-appsbase.sh", ""),
        ("95-apps.sh", scripts::ENVIRONMENT_APPS),
        ("99-base.sh", scripts::ENVIRONMENT_BASE),
        ("99-runtimevars.sh", scripts::ENVIRONMENT_RUNTIME),
    ] {
        if !(kept.environment && name == "90-environment.sh" && has_file(site, env, name)) {
            own_file(site, env, &format!("env/{name}"), 0o755, text);
        }
    }
    if let Some(runscript) = &texts.runscript {
        own_file(site, top, "runscript", 0o755, runscript);
    }
    if !(kept.scripts && has_file(site, top, "startscript")) {
        own_file(site, top, "startscript", 0o755, scripts::STARTSCRIPT);
    }
    own_file(site, top, "labels.json", 0o644, &labels::text(&texts.labels)?);
    keep_history(site, top)?;
    own_file(site, top, "Singularity", 0o644, &texts.definition);
    Ok(())
}

/// What the way back needs ([`super::remove`]): the very last, when everything has been made. The list of an earlier
/// preparation of the same root stands: it knows the image.
pub(super) fn record(site: &mut Site<'_>) -> Result<()> {
    let top = site.own_directory(Tree::ROOT, METADATA_DIRECTORY, METADATA_DIRECTORY)?;
    let has_list = site.tree().lookup(top, MADE_LIST).is_some();
    if has_list {
        site.forget_replaced(|tree, inode| is_as_made(tree, inode) || is_own_link(tree, inode));
    }
    site.keep_replaced(top)?;
    if !has_list {
        site.write_list_of_made(top);
    }
    Ok(())
}

fn is_own_link(tree: &Tree, inode: InodeId) -> bool {
    match &tree.inode(inode).kind {
        Kind::Symlink(target) => LINKS.iter().any(|(_, own)| own.as_bytes() == &**target),
        _ => false,
    }
}

fn own_directory(site: &mut Site<'_>, parent: InodeId, name: &str) -> Result<InodeId> {
    site.own_directory(parent, name.as_bytes(), format!(".singularity.d/{name}").as_bytes())
}

fn has_file(site: &Site<'_>, parent: InodeId, name: &str) -> bool {
    let found = site.tree().lookup(parent, name.as_bytes());
    found.is_some_and(|dentry| matches!(site.tree().inode(dentry.inode).kind, Kind::File(_)))
}

/// `path` is below `.singularity.d`; `parent` is its directory.
fn own_file(site: &mut Site<'_>, parent: InodeId, path: &str, mode: u32, text: &str) {
    let name = path.rsplit('/').next().unwrap_or(path);
    site.own_file(parent, name.as_bytes(), format!(".singularity.d/{path}").as_bytes(), mode, text.as_bytes());
}

/// An image that came out of a SIF has a definition already: it becomes `bootstrap_history/ApptainerN`, as in Apptainer.
fn keep_history(site: &mut Site<'_>, top: InodeId) -> Result<()> {
    if !has_file(site, top, "Singularity") {
        return Ok(());
    }
    let history = own_directory(site, top, "bootstrap_history")?;
    let known = site.tree().directory(history).map_or(0, |names| names.len());
    let free = (known..).map(|number| format!("Apptainer{number}").into_bytes());
    let name = free.into_iter().find(|name| site.tree().lookup(history, name).is_none());
    name.iter().for_each(|name| site.link_file(top, b"Singularity", history, name));
    Ok(())
}

/// The links in the root.
pub(super) fn links(site: &mut Site<'_>) {
    for (name, target) in LINKS {
        site.root_link(name.as_bytes(), target.as_bytes());
    }
}

/// A symlink there is replaced: at run time it would be followed, or dangle.
pub(super) fn bind_targets(site: &mut Site<'_>) -> Result<()> {
    let etc = site.directory(b"etc", 0o755, Obstacle::Replace)?;
    for path in BIND_FILES.map(str::as_bytes) {
        site.own_file(etc, split_last(path).1, path, 0o644, b"");
    }
    Ok(())
}

/// What was asked for with `--mkdir` and `--mkfile`, and by a configuration.
pub(super) fn requested(site: &mut Site<'_>, additions: &Additions<'_>) -> Result<()> {
    for path in additions.mkdir {
        site.requested(path, BindKind::Directory, Origin::Option("--mkdir"))?;
    }
    for path in additions.mkfile {
        site.requested(path, BindKind::File, Origin::Option("--mkfile"))?;
    }
    // Directories first: a file may be wanted inside of one.
    for kind in [BindKind::Directory, BindKind::File] {
        for target in additions.bind_targets.iter().filter(|target| target.kind == kind) {
            site.requested(&target.path, kind, Origin::Configuration(&target.origin))?;
        }
    }
    Ok(())
}
