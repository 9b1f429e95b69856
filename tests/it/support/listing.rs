//! A file system as a list of lines, wherever it comes from, and what must hold of a tar that we wrote.
//!
//! Tars are read with `tar-core`, which shares nothing with the program under test. It gives times as whole seconds and
//! wants UTF-8 in PAX keys, so times and xattrs are taken from the PAX records it hands out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

use super::case::parse_time;
use super::entry::{Entry, Kind, MADE, Time, When, Xattrs};

/// Path parts, the root empty: their order is that of a depth-first walk with the names of a directory in bytewise order.
pub type Path = Vec<Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Dir,
    /// Size and SHA-256.
    File(u64, [u8; 32]),
    Symlink(Vec<u8>),
    Fifo,
    Char(u32, u32),
    Block(u32, u32),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub what: What,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub time: When,
    pub xattrs: Xattrs,
}

/// Inodes, and names for them. A hard link is two names with one inode.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub nodes: Vec<Node>,
    pub names: BTreeMap<Path, usize>,
}

pub fn file(bytes: &[u8]) -> What {
    What::File(bytes.len() as u64, Sha256::digest(bytes).into())
}

pub fn parts(path: &[u8]) -> Path {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").map(<[u8]>::to_vec).collect()
}

pub fn show(path: &Path) -> String {
    format!("\"{}\"", path.join(&b'/').escape_ascii())
}

impl Listing {
    pub fn add(&mut self, path: Path, node: Node) -> usize {
        self.nodes.push(node);
        self.names.insert(path, self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    /// The tree that a case expects. A root that it does not speak of is a directory 0755 0:0 that was made.
    pub fn from_tree(entries: &[Entry]) -> Listing {
        let mut listing = Listing::default();
        listing.add(Path::new(), made_directory());
        let (links, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| matches!(entry.kind, Kind::Link(_)));
        for entry in others {
            listing.add(parts(&entry.path), node(entry));
        }
        for entry in links {
            let Kind::Link(target) = &entry.kind else { unreachable!() };
            let target = listing.names[&parts(target)];
            listing.names.insert(parts(&entry.path), target);
        }
        listing
    }

    pub fn node(&self, path: &Path) -> Option<&Node> {
        self.names.get(path).map(|&id| &self.nodes[id])
    }

    /// One line a name. Names of one inode say which is the first of them.
    pub fn lines(&self, times: Times) -> BTreeMap<Path, String> {
        let mut first: BTreeMap<usize, &Path> = BTreeMap::new();
        let mut lines = BTreeMap::new();
        for (path, &id) in &self.names {
            let mut line = line(path, &self.nodes[id], times);
            match first.get(&id) {
                None => drop(first.insert(id, path)),
                Some(first) => {
                    let _ = write!(line, " same as {}", show(first));
                }
            }
            lines.insert(path.clone(), line);
        }
        lines
    }

    /// What differs, one line each; empty when the two are equal.
    pub fn differences(&self, found: &Listing, times: Times) -> String {
        let mut report = String::new();
        let (left, mut right) = (self.lines(times), found.lines(times));
        for (path, mut line) in left {
            let mut other = right.remove(&path);
            if times == Times::MadeIsAny && self.node(&path).is_some_and(|node| node.time == When::Made) {
                forget_time(&mut line);
                other.iter_mut().for_each(forget_time);
            }
            if other.as_ref() != Some(&line) {
                let other = other.unwrap_or_else(|| "nothing".into());
                let _ = writeln!(report, "expected {line}\n   found {other}");
            }
        }
        for line in right.values() {
            let _ = writeln!(report, "expected nothing\n   found {line}");
        }
        report
    }
}

/// How times are compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Times {
    /// Exactly; things made bear [`MADE`].
    Exact,
    /// Things made may bear any time: other programs take the clock.
    MadeIsAny,
    /// Times later than [`MADE`] become it, as in `sif-rootfs`.
    Clamped,
}

fn forget_time(line: &mut String) {
    let at = line.find(" @").unwrap();
    let end = line[at + 1..].find(' ').map_or(line.len(), |space| at + 1 + space);
    line.replace_range(at..end, " @any");
}

fn line(path: &Path, node: &Node, times: Times) -> String {
    let (kind, detail) = match &node.what {
        What::Dir => ("dir", String::new()),
        What::File(size, digest) => ("file", format!(" {size} bytes {}", hex(&digest[..6]))),
        What::Symlink(target) => ("symlink", format!(" -> \"{}\"", target.escape_ascii())),
        What::Fifo => ("fifo", String::new()),
        What::Char(major, minor) => ("char", format!(" {major},{minor}")),
        What::Block(major, minor) => ("block", format!(" {major},{minor}")),
    };
    // No file system keeps permissions of symlinks.
    let mode = if matches!(node.what, What::Symlink(_)) { 0o777 } else { node.mode };
    let time = match node.time {
        When::Made => MADE,
        When::At(time) if times == Times::Clamped => time.min(MADE),
        When::At(time) => time,
    };
    let Time { seconds, nanoseconds } = time;
    let mut line =
        format!("{kind} {} {mode:o} {}:{} @{seconds}.{nanoseconds:09}{detail}", show(path), node.uid, node.gid);
    for (name, value) in &node.xattrs {
        let _ = write!(line, " {}={}", name.escape_ascii(), value.escape_ascii());
    }
    line
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn made_directory() -> Node {
    Node { what: What::Dir, mode: 0o755, uid: 0, gid: 0, time: When::Made, xattrs: Xattrs::new() }
}

/// What an entry that is not a hard link makes.
pub fn node(entry: &Entry) -> Node {
    let what = match &entry.kind {
        Kind::Dir => What::Dir,
        Kind::File(content) => file(&content.expand()),
        Kind::Symlink(target) => What::Symlink(target.clone()),
        Kind::Fifo => What::Fifo,
        Kind::Char(major, minor) => What::Char(*major, *minor),
        Kind::Block(major, minor) => What::Block(*major, *minor),
        Kind::Link(_) => panic!("a hard link is a name, not a file"),
    };
    let (mode, uid, gid, time) = (entry.mode & 0o7777, entry.uid, entry.gid, entry.time);
    Node { what, mode, uid, gid, time, xattrs: entry.xattrs.clone() }
}

/// Reads a tar that we wrote, and checks that it is in canonical form: the root first, as `./`, all other names plain, parents before children, the names of a
/// directory in bytewise order with its contents right after it, every name once, links after their target, no names of
/// owners, no whiteouts, two zero blocks at the end and nothing after them but zeros.
pub fn from_tar(bytes: &[u8]) -> Result<Listing, String> {
    let mut parser = Parser::new(Limits::permissive());
    parser.set_ignore_pax_errors(true);
    let mut listing = Listing::default();
    let mut previous: Option<Path> = None;
    let mut at = 0;
    loop {
        let event = parser.parse(&bytes[at..]).map_err(|error| format!("at byte {at}: {error}"))?;
        let (consumed, entry, map) = match event {
            ParseEvent::Entry { consumed, entry } => (consumed, entry, None),
            ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                let map: Vec<_> = sparse_map.iter().map(|extent| (extent.offset, extent.length)).collect();
                (consumed, entry, Some((map, real_size)))
            }
            ParseEvent::End { .. } => break,
            ParseEvent::NeedData { .. } => return Err(format!("cut short at byte {at}")),
            ParseEvent::GlobalExtensions { .. } => return Err("a PAX global header".into()),
        };
        let start = at + consumed;
        let end = start + entry.size as usize;
        let stored = bytes.get(start..end).ok_or_else(|| format!("contents cut short at byte {start}"))?;
        let contents = match map {
            None => stored.to_vec(),
            Some((map, size)) => expand(stored, &map, size as usize),
        };
        let path = read_entry(&mut listing, &entry, &contents)?;
        if let Some(previous) = previous.as_ref().filter(|previous| **previous >= path) {
            return Err(format!("{} comes after {}", show(&path), show(previous)));
        }
        previous = Some(path);
        at = end + (entry.padded_size() - entry.size) as usize;
    }
    let tail = &bytes[at.min(bytes.len())..];
    if tail.len() < 1024 || tail.iter().any(|&byte| byte != 0) {
        return Err(format!("the end is {} bytes and should be at least two zero blocks", tail.len()));
    }
    Ok(listing)
}

fn expand(stored: &[u8], map: &[(u64, u64)], size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut from = 0;
    for &(at, length) in map {
        let (at, length) = (at as usize, length as usize);
        bytes[at..at + length].copy_from_slice(&stored[from..from + length]);
        from += length;
    }
    bytes
}

fn read_entry(listing: &mut Listing, entry: &ParsedEntry, contents: &[u8]) -> Result<Path, String> {
    let raw = entry.path.as_ref();
    let quoted = raw.escape_ascii().to_string();
    // The root is `./`; all other names are plain.
    let inner: &[u8] = if raw == b"./" { b"" } else { raw };
    let kind = entry.entry_type;
    let inner = if kind.is_dir() {
        if inner.is_empty() {
            inner
        } else {
            inner.strip_suffix(b"/").ok_or_else(|| format!("no / after {quoted:?}"))?
        }
    } else {
        inner
    };
    let path: Path =
        if inner.is_empty() { Path::new() } else { inner.split(|&b| b == b'/').map(<[u8]>::to_vec).collect() };
    if path.iter().any(|part| part.is_empty() || part == b"." || part == b".." || part.starts_with(b".wh.")) {
        return Err(format!("{quoted:?} is not a clean name"));
    }
    match path.split_last() {
        None if listing.names.is_empty() && kind.is_dir() => {}
        None => return Err("./ is not the first entry, or not a directory".into()),
        Some((_, parent)) if listing.node(&parent.to_vec()).is_some_and(|node| node.what == What::Dir) => {}
        Some(_) => return Err(format!("{quoted:?} comes before its directory")),
    }
    for name in [entry.uname.as_ref(), entry.gname.as_ref()].into_iter().flatten() {
        if !name.is_empty() {
            return Err(format!("{quoted:?} names its owner"));
        }
    }
    if kind.is_hard_link() {
        let target = entry.link_target.as_deref().unwrap_or_default();
        let target: Path = target.split(|&b| b == b'/').map(<[u8]>::to_vec).collect();
        let Some(&id) = listing.names.get(&target) else {
            return Err(format!("{quoted:?} links to {}, which does not come before it", show(&target)));
        };
        if listing.nodes[id].what == What::Dir {
            return Err(format!("{quoted:?} links to a directory"));
        }
        listing.names.insert(path.clone(), id);
        return Ok(path);
    }
    let device = (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0));
    let what = match () {
        () if kind.is_dir() => What::Dir,
        () if kind.is_file() || kind.is_gnu_sparse() => file(contents),
        () if kind.is_symlink() => What::Symlink(entry.link_target.as_deref().unwrap_or_default().to_vec()),
        () if kind.is_fifo() => What::Fifo,
        () if kind.is_character_special() => What::Char(device.0, device.1),
        () if kind.is_block_special() => What::Block(device.0, device.1),
        () => return Err(format!("{quoted:?} has type {:?}", kind.to_byte() as char)),
    };
    let mut time = Time { seconds: entry.mtime as i64, nanoseconds: 0 };
    let mut xattrs = Xattrs::new();
    for (key, value) in records(entry.pax.unwrap_or_default())? {
        if key == b"mtime" {
            time = parse_time(std::str::from_utf8(value).map_err(|error| error.to_string())?)?;
        } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            xattrs.insert(name.to_vec(), value.to_vec());
        }
    }
    let id = |id: u64| u32::try_from(id).map_err(|_| format!("{quoted:?} has owner {id}"));
    let (uid, gid) = (id(entry.uid)?, id(entry.gid)?);
    if entry.mode & !0o7777 != 0 {
        return Err(format!("{quoted:?} has more than permissions in its mode: {:o}", entry.mode));
    }
    listing.add(path.clone(), Node { what, mode: entry.mode, uid, gid, time: When::At(time), xattrs });
    Ok(path)
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let wrong = || "a malformed PAX record".to_string();
        let space = bytes.iter().position(|&byte| byte == b' ').ok_or_else(wrong)?;
        let length: usize =
            std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let body = bytes.get(space + 1..length).and_then(|body| body.strip_suffix(b"\n")).ok_or_else(wrong)?;
        let equals = body.iter().position(|&byte| byte == b'=').ok_or_else(wrong)?;
        records.push((&body[..equals], &body[equals + 1..]));
        bytes = &bytes[length..];
    }
    Ok(records)
}
