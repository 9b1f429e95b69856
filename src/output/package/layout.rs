//! An OCI image layout directory as an output: made whole, or given one image more.
//!
//! The idea to hold: blobs come first and `index.json` last, by rename. Until then nothing leads to them, so a run that is
//! killed leaves a layout that is what it was before.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::LAYOUT_FILE;
use super::documents::{FULL_NAME, Package, REF_NAME};
use crate::error::{Error, ErrorKind, IoResultExt, Remedy, Result, ResultExt};
use crate::io::{
    Monitor, Scratch, ScratchDirectory, directory_of, expect_name, lock_directory, sync_directory, writable,
};
use crate::model::Digest;
use crate::output::options::IfExists;
use crate::output::prepared::Task;

/// The largest `index.json` that is read, in bytes.
const INDEX_BYTES_MAX: u64 = 4 << 20;

/// What is at the output's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    EmptyDirectory,
    Layout,
}

/// A layout that is to be written.
#[derive(Debug)]
pub(in crate::output) struct Layout {
    path: PathBuf,
    there: There,
    /// Permission bits of files.
    mode: u32,
    if_exists: Option<IfExists>,
}

impl Layout {
    /// Looks at what is at `path`, and refuses what cannot become or take a layout, or where nobody can write.
    pub(in crate::output) fn open(path: &Path, task: &Task) -> Result<Self> {
        let if_exists = task.options.if_exists;
        let there = expect_name(path).and_then(|()| look(path)).and_then(|there| refuse_existing(there, if_exists));
        let there = there.doing(|| format!("creating output {path:?}"))?;
        let layout = Layout { path: path.to_path_buf(), there, mode: task.mode, if_exists };
        layout.scratch().doing(|| format!("creating output {path:?}"))?;
        Ok(layout)
    }

    /// Where it is, or will be.
    pub(in crate::output) fn path(&self) -> &Path {
        &self.path
    }

    /// A file for a blob, on the file system of the output.
    pub(in crate::output) fn scratch(&self) -> Result<Scratch> {
        let made = Scratch::create(self.directory(), self.mode);
        made.map_err(|error| error.with_remedy(writable(&self.path)))
    }

    /// A directory on its file system.
    pub(in crate::output) fn directory(&self) -> &Path {
        if self.there == There::Nothing { directory_of(&self.path) } else { &self.path }
    }

    /// Puts the image there. Its layers are in files of their own.
    pub(super) fn publish(self, package: Package, monitor: &Monitor) -> Result<()> {
        let finishing = format!("finishing output {:?}", self.path);
        let entries = package.index_entries()?;
        let mut blobs = self.blobs(package)?;
        let published = if self.there == There::Nothing && self.make(&mut blobs, &entries)? {
            blobs.into_values().for_each(Scratch::keep);
            sync_directory(directory_of(&self.path));
            Ok(())
        } else {
            self.add(blobs, entries, monitor)
        };
        published.doing(|| finishing)
    }

    /// All blobs of the image, durable.
    fn blobs(&self, package: Package) -> Result<BTreeMap<Digest, Scratch>> {
        let mut shared: BTreeMap<Digest, Arc<Scratch>> = BTreeMap::new();
        let no_file = || Error::new(ErrorKind::Bug, "a layer has no file of its own");
        for blob in package.layers {
            shared.entry(blob.digest).or_insert(blob.own.ok_or_else(no_file)?);
        }
        let mut blobs = BTreeMap::new();
        for (digest, scratch) in shared {
            blobs.insert(digest, Arc::into_inner(scratch).ok_or_else(no_file)?);
        }
        for document in [package.config, package.manifest] {
            blobs.insert(document.digest, self.file(&document.bytes)?);
        }
        Ok(blobs)
    }

    fn file(&self, bytes: &[u8]) -> Result<Scratch> {
        let scratch = self.scratch()?;
        scratch.file().write_all_at(bytes, 0).or_kind(ErrorKind::Output)?;
        scratch.sync()?;
        Ok(scratch)
    }

    /// Makes a new layout; `false` where somebody else made something of that name meanwhile.
    fn make(&self, blobs: &mut BTreeMap<Digest, Scratch>, entries: &[Value]) -> Result<bool> {
        let mut directory = ScratchDirectory::create(&self.path, self.directory_mode())?;
        let place = directory.path().to_path_buf();
        let holder = place.join("blobs/sha256");
        self.make_directories(&holder)?;
        for (digest, scratch) in blobs.iter_mut() {
            scratch.move_to(&holder.join(digest.hex()))?;
        }
        let index = with_entries(None, entries.to_vec())?;
        let mut documents = [("oci-layout", self.file(LAYOUT_FILE)?), ("index.json", self.file(&index)?)];
        for (name, scratch) in &mut documents {
            scratch.move_to(&place.join(name))?;
        }
        for synced in [&holder, &place.join("blobs"), &place] {
            sync_directory(synced);
        }
        if directory.publish()? {
            documents.into_iter().for_each(|(_, scratch)| scratch.keep());
            return Ok(true);
        }
        // The blobs are needed once more; the rest of the directory goes with it.
        let beside = directory_of(&self.path);
        for scratch in blobs.values_mut() {
            scratch.hide_in(beside)?;
        }
        Ok(false)
    }

    /// Adds the image to what is there. Blobs that nothing leads to yet are taken back on failure.
    fn add(&self, blobs: BTreeMap<Digest, Scratch>, entries: Vec<Value>, monitor: &Monitor) -> Result<()> {
        let lock = lock_directory(&self.path, || monitor.check())?;
        // Only who holds the lock knows what is there.
        refuse_existing(look(&self.path)?, self.if_exists)?;
        let holder = self.path.join("blobs/sha256");
        let mut made = Made(Vec::new());
        for directory in [self.path.join("blobs"), holder.clone()] {
            if !directory.is_dir() {
                self.make_directories(&directory)?;
                made.0.push(directory);
            }
        }
        let mut placed = Vec::new();
        if !self.path.join("oci-layout").exists() {
            let mut scratch = self.file(LAYOUT_FILE)?;
            scratch.move_to(&self.path.join("oci-layout"))?;
            placed.push(scratch);
        }
        for (digest, mut scratch) in blobs {
            let path = holder.join(digest.hex());
            let others_need_it = path.exists() || lock.is_none();
            scratch.move_to(&path)?;
            if others_need_it { scratch.keep() } else { placed.push(scratch) }
        }
        sync_directory(&holder);
        let path = self.path.join("index.json");
        let index = with_entries(read_index(&path)?, entries).doing(|| format!("reading {path:?}"))?;
        let mut index = self.file(&index)?;
        monitor.check()?;
        index.move_to(&path)?;
        index.keep();
        placed.into_iter().for_each(Scratch::keep);
        made.0.clear();
        sync_directory(&self.path);
        Ok(())
    }

    /// Who may read a file may enter its directory.
    fn directory_mode(&self) -> u32 {
        self.mode | (self.mode & 0o444) >> 2
    }

    fn make_directories(&self, path: &Path) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(self.directory_mode() | 0o700).create(path);
        made.or_kind(ErrorKind::Output).doing(|| format!("creating {path:?}"))
    }
}

/// Directories that are removed again, the last first, unless they are needed.
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _ = fs::remove_dir(path);
        }
    }
}

fn look(path: &Path) -> Result<There> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::Output, why).with_remedy(Remedy::OutputLayout));
    match (fs::metadata(path), fs::symlink_metadata(path)) {
        (Err(_), Err(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
        (Err(_), Ok(_)) => return refuse("it is a symbolic link to nowhere"),
        (Err(error), _) => return Err(error).or_kind(ErrorKind::Output),
        (Ok(found), _) if !found.is_dir() => return refuse("it exists and is not a directory"),
        _ => {}
    }
    let layout = path.join("oci-layout");
    if layout.is_file() {
        let text = read_bounded(&layout)?;
        let version = serde_json::from_slice::<Value>(&text).ok();
        let version = version.as_ref().and_then(|document| document.get("imageLayoutVersion")?.as_str());
        return match version {
            Some("1.0.0") => Ok(There::Layout),
            _ => refuse("it is not an OCI layout of version 1.0.0"),
        };
    }
    let mut inside = fs::read_dir(path).or_kind(ErrorKind::Output)?;
    if inside.next().is_none() { Ok(There::EmptyDirectory) } else { refuse("it is neither empty nor an OCI layout") }
}

fn refuse_existing(there: There, if_exists: Option<IfExists>) -> Result<There> {
    if there == There::Nothing || if_exists.is_none() {
        return Ok(there);
    }
    Err(Error::new(ErrorKind::Output, "it exists already").with_remedy(Remedy::AddToLayout))
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).or_kind(ErrorKind::Output).doing(|| format!("reading {path:?}"))?;
    file.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes).or_kind(ErrorKind::Output)?;
    if bytes.len() as u64 > INDEX_BYTES_MAX {
        let message = format!("{path:?} has more than {INDEX_BYTES_MAX} bytes");
        return Err(Error::new(ErrorKind::Output, message).with_remedy(Remedy::OtherLayout));
    }
    Ok(bytes)
}

/// The index of a layout; `None` where there is none yet.
fn read_index(path: &Path) -> Result<Option<Vec<u8>>> {
    if path.exists() { read_bounded(path).map(Some) } else { Ok(None) }
}

/// The index with these entries more. A name moves to the image that has it now, as skopeo does it: what had it before
/// stays, without it. All else stays as it is.
pub(super) fn with_entries(index: Option<Vec<u8>>, entries: Vec<Value>) -> Result<Vec<u8>> {
    let damaged = || Error::new(ErrorKind::Output, "this is not an image index").with_remedy(Remedy::DamagedLayout);
    let mut index: Map<String, Value> = match index {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|_| damaged())?,
        None => new_index(),
    };
    let manifests = index.entry("manifests").or_insert(Value::Null);
    if manifests.is_null() {
        *manifests = json!([]);
    }
    let manifests = manifests.as_array_mut().ok_or_else(damaged)?;
    for entry in entries {
        for old in manifests.iter_mut() {
            take_names(old, &entry);
        }
        let same = |old: &Value| old["digest"] == entry["digest"];
        let nameless = |old: &Value| name_of(old, REF_NAME).is_none() && name_of(old, FULL_NAME).is_none();
        if let Some(old) = manifests.iter_mut().find(|old| same(old) && nameless(old)) {
            *old = entry;
        } else if !(nameless(&entry) && manifests.iter().any(same)) {
            manifests.push(entry);
        }
    }
    Ok(Value::Object(index).to_string().into_bytes())
}

fn new_index() -> Map<String, Value> {
    let media_type = oci_spec::image::MediaType::ImageIndex.to_string();
    let mut index = Map::new();
    index.insert("schemaVersion".into(), json!(2));
    index.insert("mediaType".into(), json!(media_type));
    index.insert("manifests".into(), json!([]));
    index
}

fn name_of<'a>(entry: &'a Value, key: &str) -> Option<&'a str> {
    entry.get("annotations")?.get(key)?.as_str()
}

fn take_names(old: &mut Value, new: &Value) {
    let taken = [REF_NAME, FULL_NAME].map(|key| name_of(old, key).is_some() && name_of(old, key) == name_of(new, key));
    let Some(annotations) = old.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    for (key, taken) in [REF_NAME, FULL_NAME].into_iter().zip(taken) {
        if taken {
            annotations.shift_remove(key);
        }
    }
    if annotations.is_empty()
        && let Some(old) = old.as_object_mut()
    {
        old.shift_remove("annotations");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, tag: Option<&str>) -> Value {
        match tag {
            Some(tag) => json!({"digest": digest, "annotations": {REF_NAME: tag}}),
            None => json!({"digest": digest}),
        }
    }

    fn added(index: Option<&Value>, new: Value) -> Value {
        let index = index.map(|index| index.to_string().into_bytes());
        serde_json::from_slice(&with_entries(index, vec![new]).unwrap()).unwrap()
    }

    #[test]
    fn a_tag_moves_and_all_else_stays() {
        let first = added(None, entry("a", Some("1")));
        assert_eq!(first["manifests"], json!([entry("a", Some("1"))]));
        assert_eq!(added(Some(&first), entry("a", Some("1"))), first);
        let moved = added(Some(&first), entry("b", Some("1")));
        assert_eq!(moved["manifests"], json!([entry("a", None), entry("b", Some("1"))]));
        let back = added(Some(&moved), entry("a", Some("2")));
        assert_eq!(back["manifests"], json!([entry("a", Some("2")), entry("b", Some("1"))]));
        assert_eq!(added(Some(&back), entry("a", None)), back);
        let strange = json!({"x": 1, "manifests": null, "annotations": {"k": "v"}});
        let kept = added(Some(&strange), entry("a", None));
        assert_eq!((&kept["x"], &kept["annotations"]["k"]), (&json!(1), &json!("v")));
        assert_eq!(kept["manifests"], json!([entry("a", None)]));
    }

    #[test]
    fn a_damaged_index_is_not_written_over() {
        for damaged in ["", "[]", "{\"manifests\": 1}"] {
            let error = with_entries(Some(damaged.into()), vec![entry("a", None)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Output, "{damaged}");
        }
    }
}
