//! `convert ls SOURCE [PATH]`: what is in there, without unpacking it.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use clap::Args;
use serde::Serialize;

use crate::browse::{DirectoryUsage, Entry, EntryKind, LayerInfo, Usage, View};
use crate::cli::environment::Environment;
use crate::cli::looking::{Look, LookOptions};
use crate::cli::options::{Feedback, Given};
use crate::cli::printer::{self, Voice};
use crate::cli::session;
use crate::cli::signals::Quit;
use crate::error::{Error, ErrorKind, Result};
use crate::io::Monitor;
use crate::model::{Mode, Note, Quoted};
use crate::report::{SourceRecord, text};

/// So many bytes are printed at once.
const BATCH_BYTES: usize = 64 << 10;

/// `convert ls SOURCE [PATH]`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Ls {
    /// An image, a SIF, a squashfs, a tar or a directory: whatever can be converted
    #[arg(value_name = "SOURCE", value_hint = clap::ValueHint::AnyPath)]
    pub(in crate::cli) source: OsString,
    /// Where to begin, inside of it [default: /]
    #[arg(value_name = "PATH")]
    pub(in crate::cli) path: Option<OsString>,
    /// Print JSON instead of lines
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Show how many bytes each directory and each layer holds, instead of names
    #[arg(long)]
    pub(in crate::cli) du: bool,
    /// Go this many levels down from PATH [default: all]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) depth: Option<usize>,
    #[command(flatten)]
    look: LookOptions,
    #[command(flatten)]
    pub(in crate::cli) feedback: Feedback,
}

impl Ls {
    /// What is listed.
    pub(in crate::cli) fn resolve(&self, given: &Given, environment: &Environment) -> Result<Look> {
        Look::resolve(&self.source, &self.look, true, given, environment)
    }
}

/// Lists, and says how it went.
pub(in crate::cli) fn run(arguments: &Ls, given: &Given, environment: &Environment, quit: Quit) -> u8 {
    session::stream(&arguments.feedback, environment, quit, |voice, monitor| {
        print(arguments, &arguments.resolve(given, environment)?, voice, monitor)
    })
}

fn print(arguments: &Ls, look: &Look, voice: Voice, monitor: &Monitor) -> Result<()> {
    let source = look.source(monitor)?;
    let view = look.view(&source, monitor)?;
    view.warnings().into_iter().for_each(|text| voice.warning(&Note::new("image", text, 1)));
    let path = arguments.path.as_deref().unwrap_or_default().as_bytes();
    let mut out = Out::default();
    let head = Head::of(&arguments.source, look, source.kind(), &view.layers());
    match (arguments.du, arguments.json) {
        (false, false) => entries(&view, path, arguments.depth, &mut out)?,
        (false, true) => json_entries(&head, &view, path, arguments.depth, &mut out)?,
        (true, false) => usage(&view.usage(path, arguments.depth)?, &head, &mut out)?,
        (true, true) => json_usage(&head, &view.usage(path, arguments.depth)?, &mut out)?,
    }
    out.flush()?;
    source.confirm()
}

/// Standard output in large pieces.
#[derive(Default)]
struct Out(String);

impl Out {
    fn line(&mut self, line: &str) -> Result<()> {
        self.0.push_str(line);
        self.0.push('\n');
        if self.0.len() >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        printer::data(std::mem::take(&mut self.0).as_bytes())
    }
}

fn entries(view: &View, path: &[u8], depth: Option<usize>, out: &mut Out) -> Result<()> {
    let entries = || view.entries(path, depth);
    let (mut owners, mut sizes) = (1, 1);
    for entry in entries()? {
        owners = owners.max(owner(&entry).len());
        sizes = sizes.max(size(&entry).len());
    }
    let layers = view.layers().len().to_string().len();
    for entry in entries()? {
        let (mode, owner, size) = (mode_text(&entry), owner(&entry), size(&entry));
        let time = entry.metadata.mtime.to_rfc3339();
        let layer = entry.layer.map(|layer| format!(" {layer:>layers$}")).unwrap_or_default();
        let name = quoted_path(&entry.path);
        let more = match (&entry.link_to, entry.kind) {
            (Some(first), _) => format!(" link to {}", quoted_path(first)),
            (None, EntryKind::Symlink(target)) => format!(" -> {}", Quoted(target)),
            _ => String::new(),
        };
        out.line(&format!("{mode} {owner:<owners$} {size:>sizes$} {time}{layer} {name}{more}"))?;
    }
    Ok(())
}

/// The root has no name of its own.
fn quoted_path(path: &[u8]) -> String {
    Quoted(if path.is_empty() { b"." } else { path }).to_string()
}

fn owner(entry: &Entry<'_>) -> String {
    format!("{}:{}", entry.metadata.uid, entry.metadata.gid)
}

/// Bytes of a file, numbers of a device.
fn size(entry: &Entry<'_>) -> String {
    match entry.kind {
        EntryKind::File { size } => size.to_string(),
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => format!("{},{}", device.major, device.minor),
        _ => "-".to_string(),
    }
}

/// As ls(1) has it.
fn mode_text(entry: &Entry<'_>) -> String {
    let letter = match entry.kind {
        EntryKind::Directory => 'd',
        EntryKind::File { .. } => '-',
        EntryKind::Symlink(_) => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice(_) => 'c',
        EntryKind::BlockDevice(_) => 'b',
    };
    format!("{letter}{}", permissions(entry.metadata.mode))
}

fn permissions(mode: Mode) -> String {
    let bits = mode.bits();
    let triple = |shift: u16, special: bool, letter: char| {
        let set = |bit: u16, letter: char| if bits >> shift & bit != 0 { letter } else { '-' };
        let last = match (special, bits >> shift & 1 != 0) {
            (false, executable) => {
                if executable {
                    'x'
                } else {
                    '-'
                }
            }
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        };
        [set(4, 'r'), set(2, 'w'), last]
    };
    let user = triple(6, bits & 0o4000 != 0, 's');
    let group = triple(3, bits & 0o2000 != 0, 's');
    let other = triple(0, bits & 0o1000 != 0, 't');
    user.into_iter().chain(group).chain(other).collect()
}

fn usage(usage: &Usage, head: &Head, out: &mut Out) -> Result<()> {
    let bytes = usage.directories.iter().map(|it| it.bytes).chain(usage.layers.iter().map(|it| it.bytes)).max();
    let width = bytes.unwrap_or_default().to_string().len();
    for (number, (layer, info)) in usage.layers.iter().zip(&head.layers).enumerate() {
        let stored = info.size.map_or_else(String::new, |size| format!(", {size} bytes stored"));
        let key = Quoted(info.key.as_bytes());
        let names = counted(layer.names, "name");
        out.line(&format!("{:>width$} layer {}: {names}{stored}, {key}", layer.bytes, number + 1))?;
    }
    for DirectoryUsage { path, bytes, names } in &usage.directories {
        out.line(&format!("{bytes:>width$} {}: {}", quoted_path(path), counted(*names, "name")))?;
    }
    Ok(())
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// What the documents of `--json` begin with, schema version 1. Every key is always there.
#[derive(Debug, Serialize)]
struct Head {
    schema_version: u32,
    source: SourceRecord,
    layers: Vec<LayerRecord>,
}

#[derive(Debug, Serialize)]
struct LayerRecord {
    key: String,
    digest: Option<String>,
    diff_id: Option<String>,
    /// Bytes as stored.
    size: Option<u64>,
}

impl Head {
    fn of(word: &OsStr, look: &Look, kind: &str, layers: &[LayerInfo]) -> Self {
        let mut source = SourceRecord::of(word, look.spec().path());
        source.kind = Some(kind.to_string());
        let record = |layer: &LayerInfo| LayerRecord {
            key: layer.key.clone(),
            digest: layer.digest.as_ref().map(ToString::to_string),
            diff_id: layer.diff_id.as_ref().map(ToString::to_string),
            size: layer.stored_bytes,
        };
        Head { schema_version: 1, source, layers: layers.iter().map(record).collect() }
    }
}

#[derive(Serialize)]
struct EntryRecord {
    /// What is not UTF-8 is `\xff`.
    path: String,
    /// The bytes of such a path in hex.
    path_hex: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Octal.
    mode: String,
    uid: u32,
    gid: u32,
    /// Bytes; of regular files only.
    size: Option<u64>,
    mtime: String,
    layer: Option<u32>,
    /// Of a symbolic link.
    target: Option<String>,
    /// The first name of the same file.
    link_to: Option<String>,
    /// `MAJOR:MINOR`.
    device: Option<String>,
    /// Names with values in hex.
    xattrs: std::collections::BTreeMap<String, String>,
}

impl EntryRecord {
    fn of(entry: &Entry<'_>) -> Self {
        let shown = |bytes: &[u8]| text(OsStr::from_bytes(bytes));
        let metadata = entry.metadata;
        let (kind, size, target, device) = match entry.kind {
            EntryKind::Directory => ("directory", None, None, None),
            EntryKind::File { size } => ("file", Some(size), None, None),
            EntryKind::Symlink(target) => ("symlink", None, Some(shown(target)), None),
            EntryKind::Fifo => ("fifo", None, None, None),
            EntryKind::CharDevice(device) => ("char", None, None, Some(device)),
            EntryKind::BlockDevice(device) => ("block", None, None, Some(device)),
        };
        let xattrs = metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter());
        EntryRecord {
            path: shown(&entry.path),
            path_hex: std::str::from_utf8(&entry.path).err().map(|_| hex(&entry.path)),
            kind,
            mode: format!("{:04o}", metadata.mode.bits()),
            uid: metadata.uid,
            gid: metadata.gid,
            size,
            mtime: metadata.mtime.to_rfc3339(),
            layer: entry.layer,
            target,
            link_to: entry.link_to.as_deref().map(shown),
            device: device.map(|device| format!("{}:{}", device.major, device.minor)),
            xattrs: xattrs.map(|(name, value)| (shown(name), hex(value))).collect(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn json_entries(head: &Head, view: &View, path: &[u8], depth: Option<usize>, out: &mut Out) -> Result<()> {
    let mut entries = view.entries(path, depth)?.peekable();
    // One entry a line, so that a long list needs no memory and can be read by lines.
    let head = json(head)?;
    out.line(&format!("{},\"entries\":[", &head[..head.len() - 1]))?;
    while let Some(entry) = entries.next() {
        let comma = if entries.peek().is_some() { "," } else { "" };
        out.line(&format!("{}{comma}", json(&EntryRecord::of(&entry))?))?;
    }
    out.line("]}")
}

#[derive(Serialize)]
struct UsageRecord<'a> {
    #[serde(flatten)]
    head: &'a Head,
    layer_usage: Vec<LayerUsageRecord>,
    directories: Vec<DirectoryRecord>,
}

#[derive(Serialize)]
struct LayerUsageRecord {
    layer: usize,
    bytes: u64,
    names: u64,
}

#[derive(Serialize)]
struct DirectoryRecord {
    path: String,
    bytes: u64,
    names: u64,
}

fn json_usage(head: &Head, usage: &Usage, out: &mut Out) -> Result<()> {
    let layers = usage.layers.iter().enumerate();
    let record = UsageRecord {
        head,
        layer_usage: layers
            .map(|(at, layer)| LayerUsageRecord { layer: at + 1, bytes: layer.bytes, names: layer.names })
            .collect(),
        directories: usage
            .directories
            .iter()
            .map(|it| DirectoryRecord { path: text(OsStr::from_bytes(&it.path)), bytes: it.bytes, names: it.names })
            .collect(),
    };
    out.line(&json(&record)?)
}

fn json(record: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(record);
    let text = text.map_err(|error| Error::new(ErrorKind::Bug, format!("the list is not JSON: {error}")))?;
    Ok(printer::safe_json(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_as_ls_writes_them() {
        let shown = [0o644, 0o4755, 0o2750, 0o1777, 0o7000, 0].map(|bits| permissions(Mode::new(bits)));
        assert_eq!(shown, ["rw-r--r--", "rwsr-xr-x", "rwxr-s---", "rwxrwxrwt", "--S--S--T", "---------"]);
    }
}
