use std::fmt::Write as _;

use super::{Content, Inode, InodeId, Kind, Tree};
use crate::model::Quoted;

impl Tree {
    /// One line a name, in walk order: kind, path, mode, owner, what only this kind has, time (`@seconds[.fraction]`).
    /// The second and later names of an inode are `link PATH -> FIRST`. Contents are shown only where they are inline.
    /// For tests and for people; [`Quoted`] keeps hostile names on their line.
    pub fn dump(&self) -> String {
        let mut first_names: Vec<Option<Vec<u8>>> = vec![None; self.inode_count()];
        let mut text = String::new();
        for visit in self.walk() {
            let first = &mut first_names[visit.inode.index()];
            match first {
                Some(first) => text.push_str(&format!("link {} -> {}\n", Quoted(&visit.path), Quoted(first))),
                None => {
                    text.push_str(&self.line(&visit.path, visit.inode));
                    *first = Some(visit.path);
                }
            }
        }
        text
    }

    fn line(&self, path: &[u8], id: InodeId) -> String {
        let Inode { kind, metadata, .. } = self.inode(id);
        let (word, detail) = match kind {
            Kind::Directory(_) => ("dir", String::new()),
            Kind::File(data) => match &data.content {
                Content::Inline(bytes) => ("file", format!(" {}", Quoted(bytes))),
                _ => ("file", format!(" {} bytes", data.size)),
            },
            Kind::Symlink(target) => ("symlink", format!(" -> {}", Quoted(target))),
            Kind::Fifo => ("fifo", String::new()),
            Kind::CharDevice { major, minor } => ("char", format!(" {major},{minor}")),
            Kind::BlockDevice { major, minor } => ("block", format!(" {major},{minor}")),
        };
        let (mode, uid, gid) = (metadata.mode.bits(), metadata.uid, metadata.gid);
        let mut line = format!("{word} {} {mode:o} {uid}:{gid}{detail} @{}", Quoted(path), metadata.mtime.seconds);
        if metadata.mtime.nanoseconds != 0 {
            let _ = write!(line, ".{:09}", metadata.mtime.nanoseconds);
        }
        for (name, value) in metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
            let _ = write!(line, " {}={}", Quoted(name), Quoted(value));
        }
        line.push('\n');
        line
    }
}
