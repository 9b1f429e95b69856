//! Where in a tar the contents of a layer will lie, told while that layer is still being decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Sender;

use super::moves::{Move, Mover};
use crate::layers::{Flattened, Forecast};
use crate::output::place::SPOOL_OFFSET;
use crate::output::policy;
use crate::output::root::Root;
use crate::output::tarball::{Holes, for_each_member};
use crate::tar::{Member, MemberKind, member_bytes, padding};
use crate::tree::{Content, Location};

/// Smaller contents go through the spool: gathered there and gathered again, they cost less than a write of their own.
const PLACED_BYTES_MIN: u64 = 16 << 10;

/// Merges the names of one layer, as they come, with those of all others, and counts the bytes of what stands before each.
///
/// That is right for a layer whose tar is in canonical order, as BuildKit and containerd write them, and for one whose
/// whole paths are sorted bytewise, as older Docker engines do: there `a-b/c` comes after `a` and before `a/d`.
pub(super) struct TarForecast<'a> {
    /// What is known to be in the output and has not been counted.
    ahead: BTreeMap<Key, Ahead>,
    /// Where the next member begins.
    position: u64,
    layer: u32,
    /// The last name that was counted of the layer.
    last: Option<Key>,
    /// Whether names came in another order: nothing can be said any more.
    lost: bool,
    /// Directories of the layer of which nothing has come yet.
    childless: BTreeSet<Key>,
    /// What the layer removed of the layers below.
    removed: Vec<Removed>,
    /// What a member takes in the root; `None` where it is left out.
    bytes_of: BytesOf<'a>,
    /// Takes what is to be moved out of the spool.
    mover: Option<Sender<Move>>,
}

type BytesOf<'a> = Box<dyn Fn(&Member<'_>) -> Option<u64> + Send + 'a>;

/// A path, ordered as on a walk: a separator comes before any byte of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<u8>);

const SEPARATOR: u8 = 0;

impl Key {
    fn of(path: &[u8]) -> Self {
        Key(path.iter().map(|&byte| if byte == b'/' { SEPARATOR } else { byte }).collect())
    }

    fn is_below(&self, directory: &Key) -> bool {
        match self.0.strip_prefix(&directory.0[..]) {
            _ if directory.0.is_empty() => !self.0.is_empty(),
            Some(rest) => rest.first() == Some(&SEPARATOR),
            None => false,
        }
    }

    fn parent(&self) -> Key {
        let end = self.0.iter().rposition(|&byte| byte == SEPARATOR).unwrap_or(0);
        Key(self.0[..end].to_vec())
    }

    /// Paths that come before this one though, with a slash behind them, they would not: `a` of `a-b` and of `a-b/c`.
    fn shorter_siblings(&self) -> impl Iterator<Item = Key> {
        let ends = (1..self.0.len()).filter(|&end| (1..b'/').contains(&self.0[end]));
        ends.map(|end| Key(self.0[..end].to_vec()))
    }
}

/// A member that is there.
struct Ahead {
    /// The newest layer that wrote it or anything below it.
    layer: u32,
    is_directory: bool,
    bytes: u64,
    /// Contents that lie in the spool in one piece: where, and how many bytes.
    spooled: Option<(Location, u64)>,
}

enum Removed {
    /// The name, and all below it.
    Name(Key),
    /// All below it.
    Below(Key),
}

impl Removed {
    fn contains(&self, place: &Key) -> bool {
        match self {
            Removed::Name(path) => place == path || place.is_below(path),
            Removed::Below(path) => place.is_below(path),
        }
    }

    /// Whether it may still concern what comes after `place`.
    fn lasts(&self, place: &Key) -> bool {
        let (Removed::Name(path) | Removed::Below(path)) = self;
        path >= place || place.is_below(path)
    }
}

impl<'a> TarForecast<'a> {
    /// `others` is what the output will hold without what is to come from `layer`.
    pub(super) fn new(others: Flattened, layer: u32, root: Option<&'a Root>, mover: &Mover<'_, '_>) -> Self {
        Self::with(others, layer, mover, Box::new(move |member| bytes_as_asked(member, root)))
    }

    fn with(others: Flattened, layer: u32, mover: &Mover<'_, '_>, bytes_of: BytesOf<'a>) -> Self {
        let Flattened { tree, contents, .. } = others;
        let mut ahead = BTreeMap::new();
        let listed = for_each_member(&tree, Holes::Kept, |visit, member, data| {
            let is_directory = matches!(member.kind, MemberKind::Directory);
            let spooled = data.and_then(|data| match data.content {
                Content::Stored(location) if contents.is_spooled(location) => Some((location, data.size)),
                _ => None,
            });
            let there = Ahead { layer: visit.layer, is_directory, bytes: member_bytes(member), spooled };
            ahead.insert(Key::of(&visit.path), there);
            Ok(())
        });
        let file = contents.spool().cloned();
        TarForecast {
            ahead,
            position: 0,
            layer,
            last: None,
            lost: listed.is_err(),
            childless: BTreeSet::new(),
            removed: Vec::new(),
            bytes_of,
            mover: file.map(|file| mover.start(file)),
        }
    }

    /// Counts what stands before `place`.
    fn pass(&mut self, place: &Key) {
        while let Some(next) = self.ahead.first_entry().filter(|next| next.key() < place) {
            let (path, there) = next.remove_entry();
            let is_older = there.layer < self.layer;
            if !(is_older && self.removed.iter().any(|removed| removed.contains(&path))) {
                self.position += there.bytes;
                self.bring(&there);
            }
        }
        self.removed.retain(|removed| removed.lasts(place));
    }

    /// Has contents moved from the spool to where the member that has just been counted has them.
    fn bring(&self, there: &Ahead) {
        let Some((from, bytes)) = there.spooled.filter(|(_, bytes)| *bytes >= PLACED_BYTES_MIN) else { return };
        let to = self.position - padding(bytes) - bytes;
        if let Some(mover) = self.mover.as_ref().filter(|_| self.position <= SPOOL_OFFSET) {
            // A mover that has stopped leaves them where they are.
            let _ = mover.send(Move { from: from.offset, bytes, to });
        }
    }

    /// Takes away what a member of the layer replaces; whether the member will be there at all.
    fn replace(&mut self, place: &Key, is_directory: bool) -> bool {
        if let Some(there) = self.ahead.get(place) {
            // Two directories become one. Otherwise the newer replaces the older, with all below that.
            if there.layer > self.layer && !(there.is_directory && is_directory) {
                return false;
            }
            self.ahead.remove(place);
        }
        if !is_directory {
            while self.ahead.first_entry().filter(|next| next.key().is_below(place)).map(|next| next.remove()).is_some()
            {
            }
        }
        true
    }
}

impl Forecast for TarForecast<'_> {
    fn put(&mut self, member: &Member<'_>) -> Option<u64> {
        if self.lost {
            return None;
        }
        let place = Key::of(member.path);
        let is_directory = matches!(member.kind, MemberKind::Directory);
        self.childless.remove(&place.parent());
        let waits = place.shorter_siblings().any(|sibling| self.childless.contains(&sibling));
        if is_directory {
            self.childless.insert(place.clone());
        }
        let bytes = (self.bytes_of)(member)?;
        if waits {
            // What is in that sibling stands before it and may be still to come.
            self.ahead.insert(place, Ahead { layer: self.layer, is_directory, bytes, spooled: None });
            return None;
        }
        self.lost = self.last.as_ref().is_some_and(|last| *last >= place);
        if self.lost {
            return None;
        }
        self.pass(&place);
        let is_there = self.replace(&place, is_directory);
        self.last = Some(place);
        let end = self.position.checked_add(bytes).filter(|&end| is_there && end <= SPOOL_OFFSET)?;
        self.position = end;
        match member.kind {
            MemberKind::File { size } if size >= PLACED_BYTES_MIN => Some(end - size - padding(size)),
            _ => None,
        }
    }

    fn whiteout(&mut self, path: &[u8]) {
        self.removed.push(Removed::Name(Key::of(path)));
    }

    fn opaque(&mut self, directory: &[u8]) {
        self.removed.push(Removed::Below(Key::of(directory)));
    }
}

/// What a member of a layer takes once the choices for the root are applied to it; `None` where they leave it out.
fn bytes_as_asked(member: &Member<'_>, root: Option<&Root>) -> Option<u64> {
    let Some(root) = root else { return Some(member_bytes(member)) };
    let is_device = matches!(member.kind, MemberKind::CharDevice(..) | MemberKind::BlockDevice(..));
    let mut metadata = member.metadata.clone();
    policy::foresee(&mut metadata, root);
    (!is_device || root.keep_devices).then(|| member_bytes(&Member { metadata: &metadata, ..*member }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Monitor;
    use crate::layers::Contents;
    use crate::model::{Metadata, Timestamp};
    use crate::tree::{FileData, FileId, Kind, Tree};
    use std::thread;

    const BIG: u64 = 20_000;

    fn metadata() -> Metadata {
        Metadata::root_owned(0o755, Timestamp::default())
    }

    /// Directories end in a slash; files have [`BIG`] bytes, or as many as follow the name.
    fn kind(name: &str) -> (&str, Option<u64>) {
        match (name.strip_suffix('/'), name.split_once(' ')) {
            (Some(directory), _) => (directory, None),
            (_, Some((file, size))) => (file, Some(size.parse().unwrap())),
            _ => (name, Some(BIG)),
        }
    }

    fn add(tree: &mut Tree, name: &str, layer: u32) {
        let (path, size) = kind(name);
        let (parent, base) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = tree.get(parent.as_bytes()).unwrap();
        let nowhere = Location { file: FileId(0), offset: 0 };
        let kind = match size {
            Some(size) => Kind::File(FileData { size, content: Content::Stored(nowhere), origin: None }),
            None => Kind::Directory(Default::default()),
        };
        let inode = tree.add(kind, metadata());
        tree.attach(parent, base.as_bytes(), inode, layer);
    }

    /// Where the contents of each file begin in the tar of `tree`.
    fn places(tree: &Tree) -> BTreeMap<String, u64> {
        let mut position = 0;
        let mut places = BTreeMap::new();
        for_each_member(tree, Holes::Kept, |visit, member, data| {
            position += member_bytes(member);
            if let Some(data) = data {
                let begin = position - data.size - padding(data.size);
                places.insert(String::from_utf8(visit.path.clone()).unwrap(), begin);
            }
            Ok(())
        })
        .unwrap();
        places
    }

    /// What is said of each of the layer's files, when layer 1 of 0 to 2 comes last and `others` are there already;
    /// `.wh.` names are whiteouts.
    fn foreseen(others: &[(&str, u32)], layer: &[&str]) -> BTreeMap<String, Option<u64>> {
        let mut tree = Tree::default();
        others.iter().for_each(|(name, layer)| add(&mut tree, name, *layer));
        let monitor = Monitor::default();
        thread::scope(|scope| {
            let others = Flattened { tree, contents: Contents::default(), spooled_bytes: 0, read: Vec::new() };
            let mover = Mover::new(scope, &monitor);
            let mut forecast = TarForecast::with(others, 1, &mover, Box::new(|member| Some(member_bytes(member))));
            let mut said = BTreeMap::new();
            for name in layer {
                if name.contains(".wh.") {
                    forecast.whiteout(name.replace(".wh.", "").as_bytes());
                    continue;
                }
                let (path, size) = kind(name);
                let kind = size.map_or(MemberKind::Directory, |size| MemberKind::File { size });
                let place = forecast.put(&Member { path: path.as_bytes(), kind, metadata: &metadata() });
                if size.is_some() {
                    said.insert(path.to_string(), place);
                }
            }
            said
        })
    }

    /// Checks that what is said is so in the tree of all; returns of how many files it was said.
    fn said_rightly(others: &[(&str, u32)], layer: &[&str], all: &[&str]) -> usize {
        let mut tree = Tree::default();
        all.iter().for_each(|name| add(&mut tree, name, 0));
        let places = places(&tree);
        let said = foreseen(others, layer);
        for (name, place) in &said {
            assert!(place.is_none() || *place == places.get(name).copied(), "{name}: {place:?} of {places:?}");
        }
        said.values().flatten().count()
    }

    #[test]
    fn a_layer_in_canonical_order_is_foreseen_between_others() {
        let others = [("a 5", 0), ("b/", 0), ("b/x 700", 2), ("d", 0)];
        let all = ["a 5", "b/", "b/m", "b/x 700", "b/y", "b/z 16383", "c", "d", "e"];
        assert_eq!(said_rightly(&others, &["b/", "b/m", "b/y", "b/z 16383", "c", "e"], &all), 4);
    }

    #[test]
    fn whole_paths_in_order_are_foreseen_but_for_what_waits() {
        let order = ["t/", "t-1/", "t-1/m", "t.py", "t/", "t/a", "t/b/", "t/b-c", "t/b/d", "tz"];
        let order: Vec<&str> = order.iter().enumerate().filter(|(at, _)| *at != 4).map(|(_, name)| *name).collect();
        let all = ["t/", "t/a", "t/b/", "t/b/d", "t/b-c", "t-1/", "t-1/m", "t.py", "tz"];
        // Those that stand behind what is still to come of t and t/b are not said: three of six.
        assert_eq!(said_rightly(&[], &order, &all), 3);
        // In canonical order all of them are.
        assert_eq!(said_rightly(&[], &all, &all), 6);
    }

    #[test]
    fn what_the_layer_replaces_or_removes_takes_no_room() {
        let others =
            [("a/", 0), ("a/gone", 0), ("b/", 0), ("b/old", 0), ("c/", 0), ("c/kept", 2), ("c/old", 0), ("d 9", 0)];
        let layer = ["a", ".wh.b", "c/", "c/.wh.old", "d 600", "e"];
        let all = ["a", "c/", "c/kept", "d 600", "e"];
        assert_eq!(said_rightly(&others, &layer, &all), 2);
    }

    #[test]
    fn nothing_is_said_once_names_come_in_another_order() {
        assert_eq!(foreseen(&[], &["b", "a", "c"]).values().flatten().count(), 1);
        assert_eq!(foreseen(&[], &["b", "b", "c"])["c"], None);
    }

    #[test]
    fn what_a_newer_layer_has_stays() {
        let others = [("a 100", 2), ("b/", 2), ("b/x", 2)];
        assert_eq!(said_rightly(&others, &["b/", "b/y", "c"], &["a 100", "b/", "b/x", "b/y", "c"]), 2);
        assert_eq!(said_rightly(&others, &["a", "b", "c"], &["a 100", "b/", "b/x", "c"]), 1);
    }
}
