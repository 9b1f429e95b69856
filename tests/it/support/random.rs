//! Random numbers, and random images: small names in a small tree, so that entries meet: whiteouts of what is there, directories over
//! symlinks, links to what was just replaced.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::case::{Item, Layer, describe};
use super::entry::{Content, Entry, Kind, Piece, Time, When};
use super::listing::What;
use super::reference::Reference;

/// Which images are wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// Whatever comes; most are to be refused.
    Any,
    /// Those that the rules allow.
    Valid,
    /// Those of them that umoci 0.6 gets right: it wants links after their targets, gives a directory that replaces a file
    /// the file's metadata, and fails when a link replaces its own target, knows neither sparse files in the old form nor the xattrs of libarchive. And the kernel hands the group of a setgid
    /// directory down to the directories that umoci makes in it.
    ForUmoci,
}

fn name() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![
        8 => Just("a"), 8 => Just("b"), 6 => Just("c"), 2 => Just("d"),
        1 => Just("\u{e9}"), 1 => Just("a.b"), 1 => Just("a-"), 1 => Just("stargz.index.json"),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let plain = vec(name(), 1..=3).prop_map(|parts| parts.join("/").into_bytes());
    prop_oneof![
        20 => plain.clone(),
        1 => plain.clone().prop_map(|path| [b"./", path.as_slice()].concat()),
        1 => plain.clone().prop_map(|path| [b"/", path.as_slice()].concat()),
        1 => plain.clone().prop_map(|path| [b"a/../", path.as_slice()].concat()),
        1 => plain.prop_map(|path| [path.as_slice(), b"\xff"].concat()),
    ]
}

fn marker() -> impl Strategy<Value = Vec<u8>> {
    let directory =
        prop_oneof![2 => Just(String::new()), 3 => vec(name(), 1..=2).prop_map(|parts| parts.join("/") + "/")];
    let base = prop_oneof![
        6 => name().prop_map(|name| format!(".wh.{name}")),
        3 => Just(".wh..wh..opq".to_string()),
        1 => Just(".wh..wh.plnk".to_string()),
    ];
    (directory, base).prop_map(|(directory, base)| (directory + &base).into_bytes())
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    let plain = vec(name(), 1..=2).prop_map(|parts| parts.join("/"));
    prop_oneof![
        4 => plain.clone(),
        2 => plain.clone().prop_map(|path| format!("/{path}")),
        2 => plain.clone().prop_map(|path| format!("../{path}")),
        1 => plain.prop_map(|path| format!("../../../{path}/..")),
        1 => Just(".".to_string()),
        1 => Just("/".to_string()),
    ]
    .prop_map(String::into_bytes)
}

fn content() -> impl Strategy<Value = Content> {
    let data = vec(any::<u8>(), 1..40).prop_map(Piece::Data);
    let blocks = (1_usize..6, any::<u8>()).prop_map(|(count, byte)| Piece::Data(vec![byte; count * 512]));
    let hole = (1_u64..8).prop_map(|count| Piece::Hole(count * 512));
    prop_oneof![
        2 => Just(Content::default()),
        6 => data.prop_map(|piece| Content(vec![piece])),
        2 => (hole.clone(), blocks.clone(), hole).prop_map(|(first, data, last)| Content(vec![first, data, last])),
        1 => blocks.prop_map(|piece| Content(vec![piece])),
    ]
}

fn kind() -> impl Strategy<Value = (Vec<u8>, Kind)> {
    prop_oneof![
        10 => path().prop_map(|path| (path, Kind::Dir)),
        12 => (path(), content()).prop_map(|(path, content)| (path, Kind::File(content))),
        5 => (path(), target()).prop_map(|(path, target)| (path, Kind::Symlink(target))),
        6 => (path(), path()).prop_map(|(path, target)| (path, Kind::Link(target))),
        7 => marker().prop_map(|path| (path, Kind::File(Content::default()))),
        1 => path().prop_map(|path| (path, Kind::Fifo)),
        1 => (path(), 0_u32..300, 0_u32..300).prop_map(|(path, major, minor)| (path, Kind::Char(major, minor))),
        1 => Just((b"./".to_vec(), Kind::Dir)),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let mode = prop_oneof![3 => Just(None), 2 => (0_u32..0o10000).prop_map(Some)];
    let id = || prop_oneof![6 => Just(0), 3 => 1_u32..70_000, 1 => 2_097_150_u32..4_000_000_000];
    let seconds = prop_oneof![6 => 1_u64..1_599_999_999, 1 => Just(0)];
    let nanoseconds = prop_oneof![3 => Just(0), 1 => 1_u32..1_000_000_000];
    let xattr = prop_oneof![9 => Just(None), 1 => vec(any::<u8>(), 1..20).prop_map(Some)];
    let meta = (mode, id(), id(), seconds, nanoseconds, xattr);
    (kind(), meta, any::<u8>()).prop_map(|((path, kind), (mode, uid, gid, seconds, nanoseconds, xattr), dialect)| {
        let mut entry = Entry::new(path, kind);
        entry.mode = mode.unwrap_or(entry.mode);
        (entry.uid, entry.gid) = (uid, gid);
        entry.time = When::At(Time { seconds: seconds as i64, nanoseconds });
        // Linux keeps user attributes of files and directories only.
        if let (Some(value), Kind::File(_) | Kind::Dir) = (xattr, &entry.kind) {
            entry.xattrs.insert(b"user.test".to_vec(), value);
        }
        choose_dialect(&mut entry, dialect);
        entry
    })
}

fn choose_dialect(entry: &mut Entry, number: u8) {
    let plain = entry.uid < 1 << 21 && entry.gid < 1 << 21;
    let whole = matches!(entry.time, When::At(Time { nanoseconds: 0, .. })) && entry.xattrs.is_empty();
    let has_holes =
        matches!(&entry.kind, Kind::File(content) if content.0.iter().any(|piece| matches!(piece, Piece::Hole(_))));
    let choices: &[&str] = match () {
        () if has_holes && plain && whole => &["sparse-old", "sparse-0.0", "sparse-0.1", "sparse-1.0", "pax", ""],
        () if plain && whole => &["v7", "gnu", "pax", "base256", "named", ""],
        () if whole => &["base256", "pax", ""],
        () => &["pax", "libarchive", ""],
    };
    let choice = choices[usize::from(number) % choices.len()];
    let unknown_to_v7 = matches!(entry.kind, Kind::Fifo | Kind::Char(..) | Kind::Block(..));
    if !choice.is_empty() && (choice != "v7" || !unknown_to_v7) {
        entry.dialect.push(choice.to_string());
    }
}

/// Drops the entries that the rules refuse.
fn repair(layers: Vec<Vec<Entry>>, wanted: Wanted) -> Vec<Layer> {
    let layer =
        |entries: Vec<Entry>| Layer { items: entries.into_iter().map(Item::Entry).collect(), ..Layer::default() };
    if wanted == Wanted::Any {
        return layers.into_iter().map(layer).collect();
    }
    let mut below = Reference::new();
    let mut repaired = Vec::new();
    for entries in layers {
        let mut merged = below.clone();
        let mut kept = keep(&mut merged, entries, wanted);
        if merged.end_layer().is_err() {
            merged = below;
            kept = keep(&mut merged, kept, Wanted::ForUmoci);
            merged.end_layer().unwrap();
        }
        below = merged;
        repaired.push(layer(kept));
    }
    repaired
}

fn keep(merged: &mut Reference, mut entries: Vec<Entry>, wanted: Wanted) -> Vec<Entry> {
    entries.retain(|entry| {
        let mut trial = merged.clone();
        let allowed = trial.apply(entry).is_ok() && (wanted == Wanted::Valid || umoci_can(merged, &trial, entry));
        if allowed {
            *merged = trial;
        }
        allowed
    });
    entries
}

fn umoci_can(before: &Reference, after: &Reference, entry: &Entry) -> bool {
    let parent = match entry.path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => before.what_is_at(&entry.path[..slash]),
        None => None,
    };
    let over_a_file = parent.is_some_and(|what| what != What::Dir);
    let hands_down = entry.kind == Kind::Dir && entry.mode & 0o2000 != 0;
    // It removes what had the link's name before it looks for the target: that may be the target, or lead to it.
    let over_its_target = match &entry.kind {
        Kind::Link(target) => before.place_of(&entry.path).is_ok_and(|path| {
            let mut removed = before.clone();
            removed.tree.names.retain(|name, _| !name.starts_with(&path));
            removed.place_of(target).is_ok_and(|place| !removed.tree.names.contains_key(&place))
        }),
        _ => false,
    };
    !after.has_pending()
        && !over_its_target
        && !over_a_file
        && !hands_down
        && !entry.is("sparse-old")
        && !entry.is("libarchive")
}

/// Layers that show themselves as the text of a case, which can be kept as a file.
#[derive(Clone)]
pub struct Image(pub Vec<Layer>);

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, layer) in self.0.iter().enumerate() {
            write!(f, "\n-- layer {number}")?;
            layer.entries().try_for_each(|entry| write!(f, "\n{}", describe(entry)))?;
        }
        Ok(())
    }
}

pub fn image(wanted: Wanted) -> impl Strategy<Value = Image> {
    vec(vec(entry(), 0..14), 1..=4).prop_map(move |layers| Image(repair(layers, wanted)))
}

/// The same `count` images every time.
pub fn images(wanted: Wanted, count: usize) -> Vec<Image> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = image(wanted);
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// Numbers without a pattern, the same every time (xorshift).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes that no codec makes smaller: they are stored as they are, where squashfs itself has no checksum.
    pub fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| (self.next() >> 32) as u8).collect()
    }

    /// Bytes of which a third is noise.
    pub fn thin_noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|at| if at % 3 == 0 { (self.next() >> 32) as u8 } else { 0 }).collect()
    }
}

/// Bytes that no codec makes smaller.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    Numbers::new(seed).noise(length)
}
