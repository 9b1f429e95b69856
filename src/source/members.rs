use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::sync::Arc;

use super::recognise;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Monitor, Region};
use crate::model::{DOCUMENT_BYTES_MAX, PATH_BYTES_MAX, Quoted};
use crate::tar::{Entries, Entry, EntryKind, Sequential};

/// How many links are followed from one name: what Linux does.
const LINK_HOPS_MAX: usize = 40;
/// How many members an archive may have: as many as the tar of a root file system may have entries.
const MEMBERS_MAX: usize = 8 << 20;
/// How many bytes the names and link targets of all members may have: a compressed archive could have very long ones.
const NAMES_BYTES_MAX: usize = 256 << 20;
/// How many bytes of small documents are kept while an archive is only looked at.
const KEPT_BYTES_MAX: u64 = 256 << 20;
/// How many bytes at the start of a member are looked at to tell JSON from anything else.
const JSON_SNIFF_BYTES: usize = 64;

/// The members of an archive by name: where the bytes of each are.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_name: BTreeMap<Vec<u8>, Member>,
    names_bytes: usize,
    /// Whether there is a directory that roots of file systems have. Directories are not among `by_name`, and it may be empty.
    has_root_directory: bool,
    /// All of the tar, where it lies uncompressed in one piece.
    whole: Option<Region>,
}

#[derive(Debug)]
enum Member {
    File(Contents),
    /// A file that is stored with holes, which no document and no layer is.
    Sparse,
    /// A symbolic or hard link, its target as a normalised member name.
    Link(Vec<u8>),
}

/// Where the bytes of a member are.
#[derive(Debug, Clone)]
pub(super) enum Contents {
    /// In the file.
    Region(Region),
    /// All of an unnamed file that holds nothing else.
    Own(Region),
    /// In memory.
    Kept(Arc<[u8]>),
    /// Passed over: this many bytes of a compressed archive that was only looked at, too many for a document.
    Passed(u64),
    /// Passed over likewise: few enough for a document, but they are none.
    NoDocument(u64),
}

impl Contents {
    /// How many bytes are stored.
    pub(super) fn len(&self) -> u64 {
        match self {
            Contents::Region(region) | Contents::Own(region) => region.len,
            Contents::Kept(bytes) => bytes.len() as u64,
            Contents::Passed(len) | Contents::NoDocument(len) => *len,
        }
    }

    /// A reader over the stored bytes.
    pub(super) fn reader(&self) -> Result<Box<dyn Read + Send>> {
        match self {
            Contents::Region(region) | Contents::Own(region) => Ok(Box::new(region.reader())),
            Contents::Kept(bytes) => Ok(Box::new(Cursor::new(Arc::clone(bytes)))),
            Contents::Passed(_) => Err(Error::new(
                ErrorKind::Bug,
                "the contents were passed over because the archive was opened without its layers",
            )),
            Contents::NoDocument(_) => {
                let hint = "the archive is damaged: fetch or save it again";
                Err(Error::new(ErrorKind::InvalidImage, "this is not a JSON document").hint(hint))
            }
        }
    }
}

impl Members {
    /// The members of a tar that lies uncompressed in a file. Headers are read, contents passed over.
    pub(super) fn of_region(region: &Region, monitor: &Monitor) -> Result<Members> {
        let mut entries = Entries::new(region.reader());
        let mut members = Members { whole: Some(region.clone()), ..Members::default() };
        while let Some(entry) = entries.next_entry()? {
            monitor.check()?;
            let place =
                region.slice(entry.data_offset, entry.stored_bytes).ok_or_else(|| truncated(&entry.raw_path))?;
            members.insert(&entry, Contents::Region(place))?;
        }
        Ok(members)
    }

    /// The members of a tar that comes as a stream and is only looked at: documents are kept in memory, all else is
    /// passed over.
    pub(super) fn of_stream(stream: impl Read, monitor: &Monitor) -> Result<Members> {
        let mut entries = Entries::new(Sequential(BufReader::new(stream)));
        let mut members = Members::default();
        let mut kept_bytes = 0;
        while let Some(entry) = entries.next_entry()? {
            monitor.check()?;
            let small = entry.kind == EntryKind::File && entry.size <= DOCUMENT_BYTES_MAX;
            let contents = if small { small_contents(&mut entries, &entry)? } else { Contents::Passed(entry.size) };
            if let Contents::Kept(bytes) = &contents {
                kept_bytes += bytes.len() as u64;
            }
            if kept_bytes > KEPT_BYTES_MAX {
                let message = format!("the archive has more than {KEPT_BYTES_MAX} bytes of documents");
                return Err(Error::new(ErrorKind::InvalidImage, message));
            }
            members.insert(&entry, contents)?;
        }
        Ok(members)
    }

    /// A later member of the same name replaces an earlier one, as in tar.
    pub(super) fn insert(&mut self, entry: &Entry, contents: Contents) -> Result<()> {
        if entry.raw_path.len() > PATH_BYTES_MAX || entry.link.len() > PATH_BYTES_MAX {
            let message = format!("the archive has a member whose name has more than {PATH_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::InvalidImage, message));
        }
        let name = normalise(&entry.raw_path);
        let directory = name.iter().rposition(|&byte| byte == b'/').map_or(&name[..0], |slash| &name[..slash]);
        let member = match entry.kind {
            EntryKind::File if entry.segments.is_some() => Member::Sparse,
            EntryKind::File => Member::File(contents),
            EntryKind::HardLink => Member::Link(normalise(&entry.link)),
            EntryKind::Symlink if entry.link.starts_with(b"/") => Member::Link(normalise(&entry.link)),
            EntryKind::Symlink => Member::Link(normalise(&[directory, b"/", &entry.link].concat())),
            EntryKind::Directory => {
                self.has_root_directory |= recognise::is_in_root(&name);
                return Ok(());
            }
            EntryKind::Fifo | EntryKind::CharDevice | EntryKind::BlockDevice => return Ok(()),
        };
        self.names_bytes += name.len() + entry.link.len();
        self.by_name.insert(name, member);
        if self.by_name.len() > MEMBERS_MAX || self.names_bytes > NAMES_BYTES_MAX {
            let message =
                format!("the archive has more than {MEMBERS_MAX} members or {NAMES_BYTES_MAX} bytes of names");
            return Err(Error::new(ErrorKind::InvalidImage, message));
        }
        Ok(())
    }

    /// Finds a member by any spelling of its name, through links. `None` where there is none, or a link leads nowhere.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<&Contents>> {
        if name.len() > PATH_BYTES_MAX {
            // No member has such a name, and each of its parts would be looked at.
            return Ok(None);
        }
        let mut at = normalise(name);
        for _ in 0..LINK_HOPS_MAX {
            match self.by_name.get(&at) {
                Some(Member::File(contents)) => return Ok(Some(contents)),
                Some(Member::Link(target)) => at.clone_from(target),
                Some(Member::Sparse) => {
                    let message = format!("member {} is stored as a sparse file", Quoted(&at));
                    return Err(
                        Error::new(ErrorKind::Unsupported, message).hint("pack the archive again without --sparse")
                    );
                }
                None => match self.through_linked_directory(&at) {
                    Some(elsewhere) => at = elsewhere,
                    None => return Ok(None),
                },
            }
        }
        let quoted = Quoted(name).to_string();
        Err(Error::new(ErrorKind::InvalidImage, format!("member {quoted} is a link that leads back to itself"))
            .hint("the archive is damaged: save it again"))
    }

    /// `dir/file` where `dir` is a link to `other`: `other/file`.
    fn through_linked_directory(&self, name: &[u8]) -> Option<Vec<u8>> {
        let slashes = (0..name.len()).rev().filter(|&at| name[at] == b'/');
        slashes.into_iter().find_map(|slash| match self.by_name.get(&name[..slash]) {
            Some(Member::Link(target)) => Some(normalise(&[target, &name[slash..]].concat())),
            _ => None,
        })
    }

    /// All of the tar, where it lies uncompressed in one piece.
    pub(super) fn whole(&self) -> Option<&Region> {
        self.whole.as_ref()
    }

    /// Whether these are the members of the tar of a root file system.
    pub(super) fn are_of_root(&self) -> bool {
        let is_of_image = || self.names().any(recognise::is_in_image);
        self.names().any(recognise::is_in_root) || self.has_root_directory && !is_of_image()
    }

    /// All names, sorted bytewise.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.by_name.keys().map(Vec::as_slice)
    }
}

/// What a member of no more bytes than a document has holds: they are kept if they are one.
fn small_contents<R: BufRead>(entries: &mut Entries<Sequential<R>>, entry: &Entry) -> Result<Contents> {
    // A sparse member is refused later; what it stores says nothing.
    let mut bytes = vec![0; entry.stored_bytes as usize];
    entries.read_data_exact(&mut bytes)?;
    let kept = is_document(&entry.raw_path, &bytes);
    Ok(if kept { Contents::Kept(bytes.into()) } else { Contents::NoDocument(entry.size) })
}

/// A member name or link target without `./`, `..`, leading or doubled slashes; `..` stops at the root.
fn normalise(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// What may be read as a document later: anything that begins like JSON, and the two files of old archives.
fn is_document(name: &[u8], bytes: &[u8]) -> bool {
    let start = bytes[..bytes.len().min(JSON_SNIFF_BYTES)].trim_ascii_start();
    matches!(start.first(), Some(b'{' | b'[')) || name.ends_with(b"VERSION") || start.starts_with(b"null")
}

fn truncated(name: &[u8]) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("the archive is truncated inside member {}", Quoted(name)))
        .hint("fetch or save the image again: a part of it is missing")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, Timestamp};

    fn entry(name: &str, kind: EntryKind, link: &str) -> Entry {
        Entry {
            raw_path: name.into(),
            kind,
            link: link.into(),
            metadata: Metadata::root_owned(0o644, Timestamp::default()),
            device: (0, 0),
            size: 0,
            stored_bytes: 0,
            data_offset: 0,
            segments: None,
        }
    }

    fn members(entries: &[Entry]) -> Members {
        let mut members = Members::default();
        for (at, entry) in entries.iter().enumerate() {
            members.insert(entry, Contents::Passed(at as u64)).unwrap();
        }
        members
    }

    fn found(members: &Members, name: &str) -> Option<u64> {
        members.find(name.as_bytes()).unwrap().map(Contents::len)
    }

    #[test]
    fn links_are_followed_in_either_order() {
        use EntryKind::{File, HardLink, Symlink};
        let members = members(&[
            entry("a/layer.tar", Symlink, "../b/layer.tar"),
            entry("b/layer.tar", File, ""),
            entry("c/layer.tar", HardLink, "./a/layer.tar"),
            entry("d", Symlink, "/a/../b"),
            entry("nowhere", Symlink, "gone"),
        ]);
        for name in ["a/layer.tar", "./b//layer.tar", "/c/layer.tar", "d/layer.tar"] {
            assert_eq!(found(&members, name), Some(1), "{name}");
        }
        assert_eq!(found(&members, "nowhere"), None);
        assert_eq!(found(&members, "b"), None);
    }

    #[test]
    fn loops_end() {
        use EntryKind::Symlink;
        let members = members(&[
            entry("a", Symlink, "b"),
            entry("b", Symlink, "./a"),
            entry("self", Symlink, "self/x"),
            entry("up", Symlink, "../../up/up"),
        ]);
        for name in ["a", "b", "self", "self/y", "up"] {
            let error = members.find(name.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidImage);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn the_last_of_a_name_wins() {
        let members = members(&[entry("x", EntryKind::File, ""), entry("./x", EntryKind::File, "")]);
        assert_eq!(found(&members, "x"), Some(1));
    }
}
