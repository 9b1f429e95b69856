use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, ErrorKind, Remedy, Result};
use crate::model::Metadata;
use crate::tar::Entry;
use crate::tree::{Inode, Kind};

/// How many bytes of memory the files of an image may take where nothing else is asked for: enough for 2 million files.
pub const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// What an entry of a layer costs at most beside its name, in bytes: as a change, as an inode with a name in a directory, and
/// in the writer of the output. Measured with `scripts/bench-limits`, which compares peaks with what is counted here.
const ENTRY_BYTES: u64 = 640;
/// A directory costs a map of names more, the first names of which take as much room as eleven.
const DIRECTORY_BYTES: u64 = ENTRY_BYTES + 320;
/// How often a name is held: in the list of changes, in the tree, and by the writer.
const NAME_COPIES: u64 = 3;
/// An extended attribute costs two boxes and their place in a map.
const XATTR_BYTES: u64 = 160;
/// A stretch of a sparse file, as it is read and as it is kept.
const SEGMENT_BYTES: u64 = 64;
/// How many bytes of symlinks' targets are followed to find the parents of entries: what bounds the time that a chain of
/// long ones can cost. An image of 2 million directories that all lie behind a link of 16 bytes stays below it.
const FOLLOWED_BYTES_MAX: u64 = 32 << 20;

/// Counts what the entries of all layers cost together, in bytes of memory, and what their names imply: directories that no
/// entry names, and paths that symlinks make longer.
#[derive(Debug)]
pub(super) struct Budget {
    memory_bytes_max: u64,
    memory_bytes: AtomicU64,
    followed_bytes: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    pub(super) fn new(memory_bytes_max: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Budget { memory_bytes_max, memory_bytes: zero(), followed_bytes: zero(), entries: zero() }
    }

    /// A budget that begins with what this one has left, for a merge that is only tried.
    pub(super) fn remainder(&self) -> Self {
        let spent = self.memory_bytes.load(Relaxed);
        Budget { memory_bytes: AtomicU64::new(spent), ..Budget::new(self.memory_bytes_max) }
    }

    /// Counts an entry that was read, and says what it costs.
    pub(super) fn spend_entry(&self, entry: &Entry) -> Result<u64> {
        self.entries.fetch_add(1, Relaxed);
        let xattrs = xattr_bytes(&entry.metadata);
        let segments = entry.segments.as_ref().map_or(0, |segments| SEGMENT_BYTES * segments.len() as u64);
        let own = if entry.kind == crate::tar::EntryKind::Directory { DIRECTORY_BYTES } else { ENTRY_BYTES };
        let bytes = own + NAME_COPIES * (entry.raw_path.len() + entry.link.len()) as u64 + xattrs + segments;
        self.spend(bytes).map(|()| bytes)
    }

    /// Counts a name of a tree that is there already, as if it had been an entry.
    pub(super) fn spend_name(&self, path_bytes: usize, inode: &Inode) -> Result<()> {
        self.entries.fetch_add(1, Relaxed);
        let (own, link) = match &inode.kind {
            Kind::Directory(_) => (DIRECTORY_BYTES, 0),
            Kind::Symlink(target) => (ENTRY_BYTES, target.len()),
            _ => (ENTRY_BYTES, 0),
        };
        self.spend(own + NAME_COPIES * (path_bytes + link) as u64 + xattr_bytes(&inode.metadata))
    }

    /// Counts the entries of a layer that was read before, and what they cost then.
    pub(super) fn spend_entries(&self, entries: u64, bytes: u64) -> Result<()> {
        self.entries.fetch_add(entries, Relaxed);
        self.spend(bytes)
    }

    /// Counts a directory that an entry implies: as much as if it had an entry, for it will have one in the output.
    pub(super) fn spend_implied(&self, path_bytes: u64) -> Result<()> {
        self.spend(DIRECTORY_BYTES + NAME_COPIES * path_bytes)
    }

    /// Counts by how much symlinks make the path of an entry longer than it was written.
    pub(super) fn spend_longer(&self, path_bytes: u64) -> Result<()> {
        self.spend(NAME_COPIES * path_bytes)
    }

    /// Counts targets of symlinks that were followed.
    pub(super) fn follow(&self, target_bytes: u64) -> Result<()> {
        if self.followed_bytes.fetch_add(target_bytes, Relaxed) + target_bytes > FOLLOWED_BYTES_MAX {
            return Err(refuse("the parents of its entries lie behind more than 32 MiB of symbolic links")
                .hint("check where the image comes from"));
        }
        Ok(())
    }

    fn spend(&self, bytes: u64) -> Result<()> {
        if self.memory_bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) > self.memory_bytes_max {
            let limit = self.memory_bytes_max >> 20;
            return Err(refuse(&format!("its files would take more than the limit of {limit} MiB of memory"))
                .with_remedy(Remedy::Memory));
        }
        Ok(())
    }

    /// Entries seen so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }
}

fn xattr_bytes(metadata: &Metadata) -> u64 {
    let xattrs = metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter());
    xattrs.map(|(name, value)| XATTR_BYTES + 2 * (name.len() + value.len()) as u64).sum()
}

fn refuse(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the image is too large or hostile: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Timestamp, Xattrs};
    use crate::tar::{EntryKind, Segment};
    use crate::tree::FileData;

    #[test]
    fn names_targets_and_attributes_are_counted_as_often_as_they_are_held() {
        let xattrs: Xattrs = [(b"user.a".to_vec().into(), b"1234".to_vec().into())].into_iter().collect();
        let plain = || Metadata::root_owned(0o644, Timestamp::default());
        let with_xattrs = Metadata { xattrs: Some(Box::new(xattrs)), ..plain() };
        let inode = |kind, metadata| Inode { kind, metadata, links: 1 };
        let cases = [
            (inode(Kind::File(FileData::inline(&b""[..])), plain()), 640 + 3 * 10),
            (inode(Kind::Directory(Default::default()), plain()), 960 + 3 * 10),
            (inode(Kind::Symlink(b"target".to_vec().into()), plain()), 640 + 3 * 16),
            (inode(Kind::Fifo, with_xattrs), 640 + 3 * 10 + 160 + 2 * 10),
        ];
        for (inode, bytes) in cases {
            assert!(Budget::new(bytes).spend_name(10, &inode).is_ok(), "{inode:?}");
            let refused = Budget::new(bytes - 1).spend_name(10, &inode).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{inode:?}");
        }
    }

    #[test]
    fn an_entry_costs_what_its_name_target_and_segments_take() {
        let entry = |kind, link: &[u8], segments| Entry {
            raw_path: vec![b'a'; 10],
            kind,
            link: link.to_vec(),
            metadata: Metadata::root_owned(0o644, Timestamp::default()),
            device: (0, 0),
            size: 0,
            stored_bytes: 0,
            data_offset: 0,
            segments,
        };
        let segment = Segment { at: 0, len: 0 };
        let cases = [
            (entry(EntryKind::File, b"", None), 640 + 3 * 10),
            (entry(EntryKind::Directory, b"", None), 960 + 3 * 10),
            (entry(EntryKind::Symlink, b"target", None), 640 + 3 * 16),
            (entry(EntryKind::File, b"", Some(vec![segment; 2])), 640 + 3 * 10 + 2 * 64),
        ];
        for (entry, bytes) in cases {
            let budget = Budget::new(bytes);
            assert_eq!((budget.spend_entry(&entry).unwrap(), budget.entries()), (bytes, 1), "{entry:?}");
            assert_eq!(Budget::new(bytes - 1).spend_entry(&entry).unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(MEMORY_BYTES_MAX, 2_147_483_648, "as docs/security.md says");
    }

    #[test]
    fn links_are_followed_up_to_the_limit() {
        let budget = Budget::new(0);
        budget.follow(FOLLOWED_BYTES_MAX - 5).unwrap();
        budget.follow(5).unwrap();
        assert_eq!(budget.follow(1).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn all_layers_share_one_budget() {
        let budget = Budget::new(1000);
        budget.spend_entries(3, 600).unwrap();
        assert!(budget.remainder().spend_entries(1, 401).is_err());
        budget.spend_entries(2, 400).unwrap();
        assert_eq!(budget.entries(), 5);
        assert!(budget.spend_longer(1).is_err());
    }
}
