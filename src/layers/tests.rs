use super::budget::Budget;
use super::layer::{Change, Node};
use super::merge::apply;
use crate::model::{EntryPath, Metadata, Timestamp};
use crate::tree::{FileData, Tree};

fn put(path: &str, node: Node) -> Change {
    let metadata = Metadata::root_owned(0o755, Timestamp::default());
    Change::Put { path: EntryPath::parse(path.as_bytes()).unwrap(), node, metadata }
}

fn file(path: &str, text: &str) -> Change {
    put(path, Node::File(FileData::inline(text.as_bytes())))
}

fn link(path: &str, target: &str) -> Change {
    put(path, Node::HardLink(EntryPath::parse(target.as_bytes()).unwrap()))
}

fn symlink(path: &str, target: &str) -> Change {
    put(path, Node::Symlink(target.as_bytes().into()))
}

fn whiteout(directory: &str, name: &str) -> Change {
    Change::Whiteout { directory: directory.as_bytes().into(), name: name.as_bytes().into() }
}

fn opaque(directory: &str) -> Change {
    Change::Opaque { directory: directory.as_bytes().into() }
}

/// Applies layers and shows the result in short: names with contents or link targets.
fn merged(layers: Vec<Vec<Change>>) -> crate::Result<String> {
    let mut tree = Tree::default();
    for (layer, changes) in layers.into_iter().enumerate() {
        apply(&mut tree, changes, layer as u32, Timestamp::from_seconds(9), &Budget::new(1 << 30))?;
    }
    let short = |line: &str| line.replace(" 755 0:0", "").replace(" @0", "");
    Ok(tree.dump().lines().skip(1).map(short).collect::<Vec<_>>().join("; "))
}

#[test]
fn a_whiteout_spares_its_own_layer_on_either_side() {
    let lower = || vec![file("d/a", "old"), file("d/b", "old")];
    for upper in [vec![whiteout("d", "a"), file("d/a", "new")], vec![file("d/a", "new"), whiteout("d", "a")]] {
        let tree = merged(vec![lower(), upper]).unwrap();
        assert_eq!(tree, r#"dir "d" @9; file "d/a" "new"; file "d/b" "old""#);
    }
    let tree = merged(vec![lower(), vec![file("d/c", "new"), opaque("d")]]).unwrap();
    assert_eq!(tree, r#"dir "d" @9; file "d/c" "new""#);
}

#[test]
fn a_whiteout_of_a_directory_keeps_only_what_its_layer_put_there() {
    let tree = merged(vec![vec![file("d/e/a", "1"), file("d/x", "2")], vec![file("d/e/b", "3"), whiteout("", "d")]]);
    assert_eq!(tree.unwrap(), r#"dir "d" @9; dir "d/e" @9; file "d/e/b" "3""#);
}

#[test]
fn links_wait_for_their_targets_and_for_links() {
    let tree = merged(vec![vec![link("a", "b"), link("b", "c"), file("c", "x")]]).unwrap();
    assert_eq!(tree, r#"file "a" "x"; link "b" -> "a"; link "c" -> "a""#);
    let error = merged(vec![vec![link("a", "b"), link("b", "a")]]).unwrap_err();
    assert!(error.to_string().starts_with(r#"entry "a": hard link to "b", which does not exist"#), "{error}");
    let tree = merged(vec![vec![link("a", "b"), file("a", "last wins"), file("b", "x")]]).unwrap();
    assert_eq!(tree, r#"file "a" "last wins"; file "b" "x""#);
    let tree = merged(vec![vec![link("a", "nowhere"), file("a", "last wins")]]).unwrap();
    assert_eq!(tree, r#"file "a" "last wins""#);
}

#[test]
fn a_long_chain_of_links_is_followed_once() {
    let chain =
        |end: Change| (0..50_000).map(|n| link(&format!("l{n}"), &format!("l{}", n + 1))).chain([end]).collect();
    let tree = merged(vec![chain(file("l50000", "x"))]).unwrap();
    assert_eq!(tree.matches("; ").count(), 50_000);
    assert!(merged(vec![chain(link("l50000", "l7"))]).is_err());
}

#[test]
fn a_link_keeps_its_inode_when_the_target_goes() {
    let tree = merged(vec![vec![file("a", "1"), link("b", "a")], vec![whiteout("", "a")], vec![file("a", "2")]]);
    assert_eq!(tree.unwrap(), r#"file "a" "2"; file "b" "1""#);
}

#[test]
fn parents_follow_symlinks_inside_the_root_even_after_they_change() {
    let tree = merged(vec![
        vec![file("usr/lib/x", "1"), symlink("lib", "/../usr/lib")],
        vec![file("lib/y", "2"), put("lib", Node::Directory), file("lib/z", "3")],
    ]);
    assert_eq!(
        tree.unwrap(),
        r#"dir "lib"; file "lib/z" "3"; dir "usr" @9; dir "usr/lib" @9; file "usr/lib/x" "1"; file "usr/lib/y" "2""#
    );
    let error = merged(vec![vec![symlink("l", "l"), file("l/x", "1")]]).unwrap_err();
    assert!(error.to_string().contains("loop"), "{error}");
}

#[test]
fn the_root_stays_a_directory_and_links_never_name_one() {
    assert!(merged(vec![vec![file("", "x")]]).is_err());
    assert!(merged(vec![vec![put("d", Node::Directory), link("l", "d")]]).is_err());
    assert!(merged(vec![vec![link("l", "")]]).is_err());
}

/// A link makes the path of a parent longer than any entry could say it; its slashes count.
#[test]
fn a_parent_behind_a_link_has_a_bounded_path() {
    let target = vec!["d".repeat(254); 16].join("/");
    let behind = |name: &str| merged(vec![vec![symlink("link", &target), file(&format!("link/{name}/f"), "")]]);
    assert!(behind(&"x".repeat(14)).is_ok());
    assert_eq!(behind(&"x".repeat(15)).unwrap_err().kind(), crate::ErrorKind::InvalidImage);
}
