use super::advice::review;
use super::recover::Recovered;
use super::*;
use crate::ErrorKind;
use crate::model::{Metadata, Quoted};
use crate::tree::{Directory, FileData, InodeId, Kind, MADE};

const TIME: Timestamp = Timestamp { seconds: 1_764_666_307, nanoseconds: 0 };

fn plain<'a>() -> Additions<'a> {
    Additions {
        reference: "example.org/app:1",
        time: TIME,
        architecture: "amd64",
        change_to_workdir: false,
        mkdir: &[],
        mkfile: &[],
        bind_targets: &[],
        labels: &[],
    }
}

fn config(execution: serde_json::Value) -> Config {
    Config::parse(serde_json::to_vec(&serde_json::json!({ "config": execution })).unwrap()).unwrap()
}

fn empty() -> Config {
    config(serde_json::json!({ "Cmd": ["true"] }))
}

/// `d PATH`, `f PATH TEXT`, `s PATH TARGET`, `p PATH`; mode 0700 and owner 7:8, so that what was there can be told from
/// what was made. Parents are made on the way.
fn tree_of(entries: &[&str]) -> Tree {
    let mut tree = Tree::default();
    for entry in entries {
        let mut words = entry.splitn(3, ' ');
        let (kind, path, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let kind = match kind {
            "d" => Kind::Directory(Directory::new()),
            "f" => Kind::File(FileData::inline(rest.as_bytes())),
            "s" => Kind::Symlink(rest.as_bytes().into()),
            "p" => Kind::Fifo,
            other => panic!("{other}"),
        };
        put(&mut tree, path, kind);
    }
    tree
}

fn put(tree: &mut Tree, path: &str, kind: Kind) -> InodeId {
    let metadata = || Metadata { uid: 7, gid: 8, ..Metadata::root_owned(0o700, Timestamp::default()) };
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut directory = Tree::ROOT;
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        directory = match tree.lookup(directory, part.as_bytes()) {
            Some(dentry) => dentry.inode,
            None => {
                let made = tree.add(Kind::Directory(Directory::new()), metadata());
                tree.attach(directory, part.as_bytes(), made, 0);
                made
            }
        };
    }
    let inode = tree.add(kind, metadata());
    tree.attach(directory, name.as_bytes(), inode, 0);
    inode
}

/// The dump's line of `path`, without the time where it is ours.
fn line(tree: &Tree, path: &str) -> String {
    let quoted = format!("{} ", Quoted(path.as_bytes()));
    let dump = tree.dump();
    let found = dump.lines().find(|line| line.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(&quoted)));
    found.unwrap_or("nothing").trim_end_matches(&format!(" @{}", TIME.seconds)).to_owned()
}

fn codes(notes: &[Note]) -> Vec<&str> {
    notes.iter().map(|note| note.code).collect()
}

fn note<'a>(notes: &'a [Note], code: &str) -> &'a Note {
    notes.iter().find(|note| note.code == code).unwrap_or_else(|| panic!("no {code} in {:?}", codes(notes)))
}

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

fn text_of(tree: &Tree, path: &str) -> String {
    match &tree.inode(tree.get(path.as_bytes()).unwrap()).kind {
        Kind::File(FileData { content: crate::tree::Content::Inline(bytes), .. }) => {
            String::from_utf8(bytes.to_vec()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_root_gets_everything() {
    let mut tree = Tree::new(TIME);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    assert!(prepared.notes.is_empty(), "{:?}", prepared.notes);
    let names: Vec<String> = tree
        .walk()
        .map(|visit| {
            let inode = tree.inode(visit.inode);
            assert_eq!((inode.metadata.uid, inode.metadata.gid, inode.metadata.mtime), (0, 0, TIME));
            let kind = match &inode.kind {
                Kind::Directory(_) => "d".to_owned(),
                Kind::File(_) => "f".to_owned(),
                Kind::Symlink(target) => format!("s -> {}", Quoted(target)),
                other => panic!("{other:?}"),
            };
            format!("{} {:o} {kind}", String::from_utf8(visit.path).unwrap(), inode.metadata.mode.bits())
        })
        .collect();
    let want = r#" 755 d
.exec 777 s -> ".singularity.d/actions/exec"
.run 777 s -> ".singularity.d/actions/run"
.shell 777 s -> ".singularity.d/actions/shell"
.singularity.d 755 d
.singularity.d/Singularity 644 f
.singularity.d/actions 755 d
.singularity.d/actions/exec 755 f
.singularity.d/actions/run 755 f
.singularity.d/actions/shell 755 f
.singularity.d/actions/start 755 f
.singularity.d/actions/test 755 f
.singularity.d/env 755 d
.singularity.d/env/01-base.sh 755 f
.singularity.d/env/10-docker2singularity.sh 755 f
.singularity.d/env/90-environment.sh 755 f
.singularity.d/env/94-appsbase.sh 755 f
.singularity.d/env/95-apps.sh 755 f
.singularity.d/env/99-base.sh 755 f
.singularity.d/env/99-runtimevars.sh 755 f
.singularity.d/labels.json 644 f
.singularity.d/libs 755 d
.singularity.d/runscript 755 f
.singularity.d/sif-convert.made 644 f
.singularity.d/startscript 755 f
.test 777 s -> ".singularity.d/actions/test"
dev 755 d
environment 777 s -> ".singularity.d/env/90-environment.sh"
etc 755 d
etc/hosts 644 f
etc/resolv.conf 644 f
home 755 d
proc 755 d
root 755 d
singularity 777 s -> ".singularity.d/runscript"
sys 755 d
tmp 1777 d
var 755 d
var/tmp 1777 d"#;
    assert_eq!(names.join("\n"), want);
    assert_eq!(text_of(&tree, ".singularity.d/Singularity"), "bootstrap: docker\nfrom: example.org/app:1\n\n");
    assert_eq!(text_of(&tree, ".singularity.d/env/94-appsbase.sh"), "");
}

#[test]
fn preparing_twice_changes_nothing_but_the_history() {
    let mut once = Tree::new(TIME);
    prepare(&mut once, &empty(), &plain()).unwrap();
    let mut twice = once.clone();
    let prepared = prepare(&mut twice, &empty(), &plain()).unwrap();
    assert_eq!(prepared.notes.iter().map(|note| note.code).collect::<Vec<_>>(), ["singularity-files-present"]);
    let history = ".singularity.d/bootstrap_history";
    let rest: Vec<String> = twice.dump().lines().filter(|line| !line.contains(history)).map(str::to_owned).collect();
    assert_eq!(rest, once.dump().lines().collect::<Vec<_>>());
    assert_eq!(text_of(&twice, &format!("{history}/Apptainer0")), "bootstrap: docker\nfrom: example.org/app:1\n\n");
}

/// What a shell does with `$HOME` at run time no config can say: the root's own scripts run as they did, and never themselves.
#[test]
fn scripts_for_what_no_config_says_are_kept() {
    let entries = [
        "f .singularity.d/runscript own run",
        "f .singularity.d/startscript own start",
        "f .singularity.d/env/90-environment.sh export A=$HOME/x",
    ];
    let kept = |execution: serde_json::Value, keeps: bool| {
        let mut tree = tree_of(&entries);
        let prepared = prepare(&mut tree, &config(execution).keeping_scripts(keeps), &plain()).unwrap();
        let files = ["runscript", "startscript", "env/90-environment.sh"];
        let texts = files.map(|file| !text_of(&tree, &format!(".singularity.d/{file}")).starts_with("#!"));
        let read = |data: &FileData| match &data.content {
            crate::tree::Content::Inline(bytes) => Ok(bytes.to_vec()),
            _ => unreachable!("all of it is inline"),
        };
        let shown = String::from_utf8(prepared.inspect_metadata(&tree, &read).unwrap().0).unwrap();
        assert_eq!(shown.contains("own run"), texts[0], "{shown}");
        let codes: Vec<&str> = prepared.notes.iter().map(|note| note.code).collect();
        (texts, codes.contains(&"runscript-kept"))
    };
    let run = "/.singularity.d/actions/run";
    assert_eq!(kept(serde_json::json!({ "Entrypoint": [run] }), false), ([true; 3], false));
    assert_eq!(kept(serde_json::json!({ "Entrypoint": [run], "Cmd": ["x"] }), true), ([true; 3], true));
    assert_eq!(kept(serde_json::json!({ "Entrypoint": ["/other"] }), true), ([false, false, true], false));
    assert_eq!(kept(serde_json::json!({ "Entrypoint": ["/other"] }), false), ([false; 3], false));

    let mut tree = Tree::default();
    prepare(&mut tree, &config(serde_json::json!({ "Entrypoint": [run] })), &plain()).unwrap();
    assert!(!text_of(&tree, ".singularity.d/runscript").contains(run));
}

#[test]
fn base_directories_and_symlinks_to_them_are_kept() {
    let mut tree = tree_of(&["d home", "d real/root", "s root real/root", "d tmp", "s var/tmp ../tmp", "f home/x y"]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    assert!(prepared.notes.is_empty(), "{:?}", prepared.notes);
    assert_eq!(line(&tree, "home"), r#"dir "home" 700 7:8 @0"#);
    assert_eq!(line(&tree, "root"), r#"symlink "root" 700 7:8 -> "real/root" @0"#);
    assert_eq!(line(&tree, "var/tmp"), r#"symlink "var/tmp" 700 7:8 -> "../tmp" @0"#);
    assert_eq!(line(&tree, "tmp"), r#"dir "tmp" 700 7:8 @0"#);
}

#[test]
fn dangling_base_symlinks_get_their_target() {
    let mut tree = tree_of(&["s home /srv/people", "s var/tmp /scratch/tmp", "s tmp /scratch/tmp"]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    assert!(prepared.notes.is_empty());
    assert_eq!(line(&tree, "srv"), r#"dir "srv" 755 0:0"#);
    assert_eq!(line(&tree, "srv/people"), r#"dir "srv/people" 755 0:0"#);
    assert_eq!(line(&tree, "scratch"), r#"dir "scratch" 755 0:0"#);
    assert_eq!(line(&tree, "scratch/tmp"), r#"dir "scratch/tmp" 1777 0:0"#);
    assert_eq!(line(&tree, "tmp"), r#"symlink "tmp" 700 7:8 -> "/scratch/tmp" @0"#);
}

#[test]
fn base_names_of_another_kind_are_replaced_with_a_note() {
    let mut tree = tree_of(&["f home x", "p proc", "s root passwd", "f passwd x", "s sys passwd/below", "f var y"]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    for name in ["home", "proc", "root", "sys", "var"] {
        assert_eq!(line(&tree, name), format!(r#"dir "{name}" 755 0:0"#));
    }
    assert_eq!(line(&tree, "passwd"), r#"file "passwd" 700 7:8 "x" @0"#, "what a symlink leads to is left alone");
    let note = note(&prepared.notes, "entries-replaced");
    assert_eq!(note.count, 5);
    assert_eq!(note.examples[0], r#""/proc" (a named pipe, now a directory)"#);
}

#[test]
fn symlink_loops_are_errors_that_name_the_path() {
    for (entries, named) in [
        (&["s home home/x"][..], "\"/home\""),
        (&["s etc b", "s b etc"], "\"/etc\""),
        (&["s var v", "s v var"], "\"/var\""),
    ] {
        let error = prepare(&mut tree_of(entries), &empty(), &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidImage);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn symlinks_to_impossible_names_are_errors() {
    let long = format!("s home /{}", "x".repeat(256));
    let error = prepare(&mut tree_of(&[&long]), &empty(), &plain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
    assert!(error.to_string().contains("255 bytes"), "{error}");
}

#[test]
fn root_links_replace_symlinks_and_nothing_else() {
    let mut tree = tree_of(&["s singularity /dangling", "f environment mine", "d .run"]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    assert_eq!(line(&tree, "singularity"), r#"symlink "singularity" 777 0:0 -> ".singularity.d/runscript""#);
    assert_eq!(line(&tree, "environment"), r#"file "environment" 700 7:8 "mine" @0"#);
    assert_eq!(line(&tree, ".run"), r#"dir ".run" 700 7:8 @0"#);
    let note = note(&prepared.notes, "links-not-made");
    assert_eq!(
        (note.count, &note.examples[..]),
        (2, &[r#""/.run" (a directory)"#.into(), r#""/environment" (a regular file)"#.into()][..])
    );
}

#[test]
fn metadata_names_of_the_wrong_type_are_replaced() {
    let mut tree = tree_of(&["s .singularity.d /opt", "d opt", "f opt/runscript x"]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    assert_eq!(line(&tree, ".singularity.d"), r#"dir ".singularity.d" 755 0:0"#);
    assert_eq!(line(&tree, "opt/runscript"), r#"file "opt/runscript" 700 7:8 "x" @0"#, "not followed");
    assert_eq!(note(&prepared.notes, "entries-replaced").count, 1);

    let mut tree =
        tree_of(&["f .singularity.d/env x", "d .singularity.d/runscript/y", "s .singularity.d/labels.json /etc/x"]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    assert_eq!(line(&tree, ".singularity.d/env"), r#"dir ".singularity.d/env" 755 0:0"#);
    assert!(line(&tree, ".singularity.d/runscript").starts_with("file "));
    assert!(line(&tree, ".singularity.d/labels.json").starts_with("file "));
    assert_eq!(line(&tree, ".singularity.d/runscript/y"), "nothing");
    assert_eq!(note(&prepared.notes, "entries-replaced").count, 3);
}

#[test]
fn an_older_definition_goes_to_the_history() {
    let mut tree = tree_of(&[
        "f .singularity.d/Singularity second",
        "f .singularity.d/bootstrap_history/Singularity0 first",
        "f .singularity.d/bootstrap_history/Apptainer2 odd",
    ]);
    prepare(&mut tree, &empty(), &plain()).unwrap();
    let history = ".singularity.d/bootstrap_history";
    assert_eq!(
        line(&tree, &format!("{history}/Apptainer3")),
        format!(r#"file "{history}/Apptainer3" 700 7:8 "second" @0"#)
    );
    assert_eq!(text_of(&tree, &format!("{history}/Apptainer2")), "odd");
    assert_eq!(text_of(&tree, ".singularity.d/Singularity"), "bootstrap: docker\nfrom: example.org/app:1\n\n");
    let id = tree.get(format!("{history}/Apptainer3").as_bytes()).unwrap();
    assert_eq!(tree.inode(id).links, 1);
}

#[test]
fn other_names_of_a_replaced_inode_keep_it() {
    let mut tree = Tree::default();
    let file = put(&mut tree, "etc/hosts", Kind::File(FileData::inline(&b"127.0.0.1 me"[..])));
    let opt = put(&mut tree, "opt", Kind::Directory(Directory::new()));
    tree.attach(opt, b"hosts", file, MADE);
    prepare(&mut tree, &empty(), &plain()).unwrap();
    assert_eq!(line(&tree, "etc/hosts"), r#"file "etc/hosts" 644 0:0 """#);
    let kept = ".singularity.d/replaced/etc/hosts";
    assert_eq!(line(&tree, kept), format!(r#"file "{kept}" 700 7:8 "127.0.0.1 me" @0"#));
    assert_eq!(line(&tree, "opt/hosts"), format!(r#"link "opt/hosts" -> "{kept}""#));
    assert_eq!(tree.inode(file).links, 2);
}

#[test]
fn bind_targets_are_empty_files_below_the_resolved_etc() {
    let mut tree = tree_of(&[
        "s etc usr/etc",
        "s usr/etc/resolv.conf /run/systemd/resolve/stub-resolv.conf",
        "d usr/etc/hosts/odd",
        "f run/systemd/resolve/stub-resolv.conf x",
    ]);
    let prepared = prepare(&mut tree, &empty(), &plain()).unwrap();
    for name in ["hosts", "resolv.conf"] {
        assert_eq!(line(&tree, &format!("usr/etc/{name}")), format!(r#"file "usr/etc/{name}" 644 0:0 """#));
    }
    assert_eq!(text_of(&tree, "run/systemd/resolve/stub-resolv.conf"), "x");
    let note = note(&prepared.notes, "entries-replaced");
    assert_eq!(note.examples[0], r#""/etc/hosts" (a directory, now a regular file)"#);
}

#[test]
fn requested_paths_are_made_where_missing() {
    let mut tree = tree_of(&["s data /mnt/data", "d opt", "f etc/motd hello", "s out opt/out.txt", "s here opt"]);
    let mkdir = [path("data/in"), path("opt"), path("a/b"), path("here/x"), path("/")];
    let mkfile = [path("etc/motd"), path("c/d"), path("out"), path("etc/hosts")];
    let additions = Additions { mkdir: &mkdir, mkfile: &mkfile, ..plain() };
    prepare(&mut tree, &empty(), &additions).unwrap();
    assert_eq!(line(&tree, "mnt/data/in"), r#"dir "mnt/data/in" 755 0:0"#);
    assert_eq!(line(&tree, "opt"), r#"dir "opt" 700 7:8 @0"#);
    assert_eq!(line(&tree, "opt/x"), r#"dir "opt/x" 755 0:0"#);
    assert_eq!(line(&tree, "a"), r#"dir "a" 755 0:0"#);
    assert_eq!(line(&tree, "etc/motd"), r#"file "etc/motd" 700 7:8 "hello" @0"#);
    assert_eq!(line(&tree, "c/d"), r#"file "c/d" 644 0:0 """#);
    assert_eq!(line(&tree, "opt/out.txt"), r#"file "opt/out.txt" 644 0:0 """#);
}

#[test]
fn requested_paths_in_the_way_of_others_are_refused() {
    let entries = ["f file x", "d dir", "s link file", "s below file/x", "s todir dir", "p pipe"];
    for (mkdir, mkfile, named) in [
        ("file", "", r#"--mkdir "/file": in the image "/file" is a regular file"#),
        ("file/x", "", r#"--mkdir "/file/x": in the image "/file" is a regular file"#),
        ("link", "", r#"--mkdir "/link": in the image "/link" is a symlink"#),
        ("pipe", "", r#"--mkdir "/pipe": in the image "/pipe" is a named pipe"#),
        ("", "dir", r#"--mkfile "/dir": in the image "/dir" is a directory"#),
        ("", "todir", r#"--mkfile "/todir": in the image "/todir" is a directory"#),
        ("", "file/x", r#"--mkfile "/file/x": in the image "/file" is a regular file"#),
        ("", "below", r#"--mkfile "/below": in the image "/below" is a symlink"#),
        ("", "/", r#"--mkfile "/": in the image "/" is a directory"#),
        ("same", "same", r#"--mkfile "/same": in the image "/same" is a directory"#),
    ] {
        let list = |text: &str| if text.is_empty() { Vec::new() } else { vec![path(text)] };
        let (mkdir, mkfile) = (list(mkdir), list(mkfile));
        let additions = Additions { mkdir: &mkdir, mkfile: &mkfile, ..plain() };
        let error = prepare(&mut tree_of(&entries), &empty(), &additions).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().starts_with(named), "{error}\n{named}");
        assert!(error.remedy().is_some());
    }
}

#[test]
fn environment_rules() {
    let env = [
        "A=1",
        "PATH=/first",
        "B=",
        "A=2=3",
        "A.B=x",
        "1A=x",
        "=x",
        "",
        "UID=1",
        "EUID=1",
        "GID=1",
        "BARE",
        "N=a\0b",
        "PATH=/last",
        "HOME=/root",
        "caf\u{e9}=x",
        "BAD NAME",
    ];
    let config = config(serde_json::json!({ "Env": env, "Cmd": ["x"] }));
    let mut tree = Tree::new(TIME);
    let prepared = prepare(&mut tree, &config, &plain()).unwrap();
    let want = r#"#!/bin/sh
test -n "${A:-}" || A='2=3'
export A
PATH='/last'
export PATH
test -n "${B:-}" || B=''
export B
test -n "${BARE:-}" || BARE=''
export BARE
test -n "${HOME:-}" || HOME='/root'
export HOME
"#;
    assert_eq!(text_of(&tree, ".singularity.d/env/10-docker2singularity.sh"), want);
    let names = note(&prepared.notes, "environment-name-skipped");
    assert_eq!((names.count, names.examples.len()), (8, Note::EXAMPLES_MAX));
    let values = note(&prepared.notes, "environment-value-skipped");
    assert_eq!(values.examples, ["\"N\""]);
    assert_eq!(note(&prepared.notes, "environment-ignored").examples, ["\"HOME\""]);
    assert_eq!(
        codes(&review(&config)),
        ["environment-name-skipped", "environment-value-skipped", "environment-ignored"]
    );
}

/// Seen with Apptainer 1.4.5: the action script's own variables, and what it sets or drops.
#[test]
fn variables_of_the_action_script_are_told() {
    let env = ["e=1", "key=1", "SINGULARITY_ENVIRONMENT=1", "APPTAINER_ENVIRONMENT=1", "SINGULARITY_NAME=1", "keys=1"];
    let notes = review(&config(serde_json::json!({ "Env": env, "Cmd": ["x"] })));
    assert_eq!(note(&notes, "environment-ignored").examples, ["\"SINGULARITY_ENVIRONMENT\"", "\"e\"", "\"key\""]);
}

fn runscript_of(execution: serde_json::Value) -> String {
    let config = config(execution);
    let mut tree = Tree::new(TIME);
    prepare(&mut tree, &config, &plain()).unwrap();
    text_of(&tree, ".singularity.d/runscript")
}

#[test]
fn runscript_text() {
    let want = r#"#!/bin/sh
if false; then
eval "set ${SINGULARITY_OCI_RUN}"
fi
OCI_ENTRYPOINT='"/bin/e" "$x\$y"'
OCI_CMD='"a b" "it'"'"'s"'
if [ $# -eq 0 ]; then
    set -- 'a b' 'it'"'"'s' "$@"
fi
set -- '/bin/e' '$x$y' "$@"
exec "$@"
"#
    .replace("\"$x\\$y\"", "\"\\$x\\$y\"");
    assert_eq!(runscript_of(serde_json::json!({ "Entrypoint": ["/bin/e", "$x$y"], "Cmd": ["a b", "it's"] })), want);
}

/// The runtime reads lines of at most 64 KiB when it looks for the marker.
#[test]
fn the_marker_is_a_line_of_its_own_before_any_long_one() {
    let script = runscript_of(serde_json::json!({ "Cmd": ["x".repeat(100_000)] }));
    assert_eq!(script.lines().nth(2), Some(runscript::MARKER));
    assert!(script.lines().nth(2).is_some() && script.lines().take(3).all(|line| line.len() < 100));
}

#[test]
fn runscript_leaves_the_images_variables_alone() {
    let script = runscript_of(serde_json::json!({ "Env": ["OCI_CMD=mine"], "Cmd": ["x"] }));
    assert!(script.contains("\nOCI_ENTRYPOINT=''\n") && !script.contains("OCI_CMD"), "{script}");
}

#[test]
fn workdir_needs_the_images_shell() {
    let config = config(serde_json::json!({ "Cmd": ["./run"], "WorkingDir": "work/it's" }));
    let additions = Additions { change_to_workdir: true, ..plain() };
    let mut tree = tree_of(&["f usr/bin/dash x", "s bin usr/bin", "s usr/bin/sh dash"]);
    let prepared = prepare(&mut tree, &config, &additions).unwrap();
    assert!(prepared.notes.is_empty(), "{:?}", prepared.notes);
    let script = text_of(&tree, ".singularity.d/runscript");
    assert!(!script.contains(runscript::MARKER), "the embedded shell would start the program elsewhere");
    assert!(script.contains("\ncd '/work/it'\"'\"'s' || {\n"), "{script}");
    assert_eq!(line(&tree, "work/it's"), r#"dir "work/it's" 755 0:0"#, "Docker makes a missing WORKDIR");

    let mut tree = Tree::new(TIME);
    let prepared = prepare(&mut tree, &config, &additions).unwrap();
    assert_eq!(codes(&prepared.notes), ["workdir-without-shell"]);
    assert!(text_of(&tree, ".singularity.d/runscript").contains(runscript::MARKER));

    let error = prepare(&mut tree_of(&["f work x"]), &config, &additions).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(
        error.to_string().starts_with(r#"--workdir "/work/it's": in the image "/work" is a regular file"#),
        "{error}"
    );
}

#[test]
fn labels_are_merged_in_order_and_escaped() {
    let config = config(serde_json::json!({ "Cmd": ["x"], "Labels": {
        "z": "<a&b>\n", "org.label-schema.build-arch": "image", "mine": "image", "A": "\u{2028}"
    } }));
    let labels = [("mine".into(), "first".into()), ("mine".into(), "asked".into())];
    let mut tree = Tree::new(TIME);
    prepare(&mut tree, &config, &Additions { labels: &labels, ..plain() }).unwrap();
    let want = [
        "{",
        r#"	"A": "\u2028","#,
        r#"	"mine": "asked","#,
        r#"	"org.label-schema.build-arch": "amd64","#,
        r#"	"org.label-schema.build-date": "Tuesday_2_December_2025_9:5:7_UTC","#,
        r#"	"org.label-schema.schema-version": "1.0","#,
        r#"	"org.label-schema.usage.sif-convert.format": "2","#,
        r#"	"org.label-schema.usage.singularity.deffile.bootstrap": "docker","#,
        r#"	"org.label-schema.usage.singularity.deffile.from": "example.org/app:1","#,
        r#"	"org.opencontainers.image.architecture": "amd64","#,
        r#"	"org.opencontainers.image.created": "2025-12-02T09:05:07Z","#,
        r#"	"z": "\u003ca\u0026b\u003e\n""#,
        "}",
    ];
    assert_eq!(text_of(&tree, ".singularity.d/labels.json"), want.join("\n"));
}

#[test]
fn references_of_several_lines_are_refused() {
    let error = prepare(&mut Tree::default(), &empty(), &Additions { reference: "a\nfrom: b", ..plain() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains(r#""a\nfrom: b""#), "{error}");
}

#[test]
fn inspect_metadata_is_compact_go_json() {
    let config = config(serde_json::json!({ "Env": ["A=<>"], "Entrypoint": ["/e"] }));
    let prepared = prepare(&mut Tree::new(TIME), &config, &plain()).unwrap();
    let (metadata, note) = prepared.inspect_metadata(&Tree::new(TIME), &|_| unreachable!()).unwrap();
    assert_eq!(note, None);
    let text = String::from_utf8(metadata).unwrap();
    let want = [
        r##"{"data":{"attributes":{"environment":{"/.singularity.d/env/10-docker2singularity.sh":"#!/bin/sh\ntest -n \"${A:-}\" || A='\u003c\u003e'\nexport A","##,
        r##""/.singularity.d/env/90-environment.sh":"#!/bin/sh\n# The %environment of a definition file goes here."},"##,
        r#""labels":{"org.label-schema.build-arch":"amd64","org.label-schema.build-date":"Tuesday_2_December_2025_9:5:7_UTC","#,
        r#""org.label-schema.schema-version":"1.0","org.label-schema.usage.sif-convert.format":"2","#,
        r#""org.label-schema.usage.singularity.deffile.bootstrap":"docker","org.label-schema.usage.singularity.deffile.from":"example.org/app:1","#,
        r#""org.opencontainers.image.architecture":"amd64","org.opencontainers.image.created":"2025-12-02T09:05:07Z"},"#,
        r##""runscript":"#!/bin/sh\nif false; then\neval \"set ${SINGULARITY_OCI_RUN}\"\nfi\nOCI_ENTRYPOINT='\"/e\"'\nOCI_CMD=''\nset -- '/e' \"$@\"\nexec \"$@\"","##,
        r##""deffile":"bootstrap: docker\nfrom: example.org/app:1","startscript":"#!/bin/sh\n# An instance of this image starts nothing of its own."}},"type":"container"}"##,
    ];
    assert_eq!(text, want.concat());
}

#[test]
fn oci_config_has_the_fields_that_apptainer_knows_in_its_order() {
    let config = config(serde_json::json!({
        "StopSignal": "SIGTERM", "Shell": ["/bin/sh", "-c"], "WorkingDir": "/w", "Volumes": { "/b": {}, "/a": null },
        "Unknown": 1, "User": "", "Tty": false, "OpenStdin": true, "Labels": { "k": "<" }, "Env": ["A=1"], "Cmd": "one",
        "Entrypoint": [], "OnBuild": null, "ExposedPorts": { "80/tcp": {} },
        "Healthcheck": { "Test": ["CMD", "x"], "Interval": 30_000_000_000_i64, "Retries": 0 }
    }));
    let prepared = prepare(&mut Tree::new(TIME), &config, &plain()).unwrap();
    let want = concat!(
        r#"{"Cmd":["one"],"Healthcheck":{"Test":["CMD","x"],"Interval":30000000000},"Env":["A=1"],"Labels":{"k":"\u003c"},"#,
        r#""OpenStdin":true,"Volumes":{"/a":{},"/b":{}},"WorkingDir":"/w","ExposedPorts":{"80/tcp":{}},"#,
        r#""StopSignal":"SIGTERM","Shell":["/bin/sh","-c"]}"#
    );
    assert_eq!(String::from_utf8(prepared.oci_config).unwrap(), want);

    for raw in [&b"{}"[..], br#"{"config":null}"#, br#"{"config":{"Healthcheck":null}}"#] {
        let prepared = prepare(&mut Tree::new(TIME), &Config::parse(raw).unwrap(), &plain()).unwrap();
        assert_eq!(prepared.oci_config, b"{}");
    }
    let bad = Config::parse(br#"{"config":{"Tty":"yes"}}"#.as_slice()).unwrap();
    let error = prepare(&mut Tree::new(TIME), &bad, &plain()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidImage);
}

#[test]
fn users_other_than_root_are_noted() {
    for (user, noted) in
        [("", false), ("root", false), ("0", false), ("0:0", false), ("root:x", false), ("app", true), ("1000:0", true)]
    {
        let notes = review(&config(serde_json::json!({ "Cmd": ["x"], "User": user })));
        assert_eq!(codes(&notes), if noted { vec!["user-ignored"] } else { vec![] }, "{user}");
    }
}

#[test]
fn words_relative_to_workdir_are_noted() {
    let noted = |execution: serde_json::Value| {
        let config = config(execution);
        let mut tree = tree_of(&["f workspace/main.py x", "f workspace/run.sh x", "d run"]);
        let notes = prepare(&mut tree, &config, &plain()).unwrap().notes;
        let notes = notes.into_iter().filter(|note| note.code == "relative-entrypoint");
        (
            notes.flat_map(|note| note.examples).collect::<Vec<_>>(),
            codes(&review(&config)).contains(&"relative-entrypoint"),
        )
    };
    let none: Vec<String> = Vec::new();
    let workspace = "/workspace";
    for (execution, want, reviewed) in [
        (serde_json::json!({ "Entrypoint": ["./run.sh"], "WorkingDir": workspace }), vec!["\"./run.sh\"".into()], true),
        (serde_json::json!({ "Cmd": ["bin/x"] }), vec!["\"bin/x\"".into()], true),
        (serde_json::json!({ "Cmd": ["/bin/sh", "-c", "./run.sh now"] }), vec!["\"./run.sh\"".into()], true),
        // A %runscript.
        (
            serde_json::json!({ "Entrypoint": ["/bin/sh", "-c", "#!/bin/sh\n\n # see doc/x\necho hi", "runscript"] }),
            none.clone(),
            false,
        ),
        (
            serde_json::json!({ "Entrypoint": ["python3"], "Cmd": ["main.py"], "WorkingDir": "workspace" }),
            vec!["\"main.py\"".into()],
            false,
        ),
        (
            serde_json::json!({ "Cmd": ["/bin/sh", "-c", "python3 main.py x"], "WorkingDir": workspace }),
            vec!["\"main.py\"".into()],
            false,
        ),
        (
            serde_json::json!({ "Entrypoint": ["python3", "/workspace/main.py", "", "-x"], "WorkingDir": workspace }),
            none.clone(),
            false,
        ),
        (serde_json::json!({ "Entrypoint": ["main.py"], "WorkingDir": workspace }), none.clone(), false),
        (serde_json::json!({ "Cmd": ["npm", "run"] }), none.clone(), false),
    ] {
        assert_eq!(noted(execution.clone()), (want, reviewed), "{execution}");
    }
    assert_eq!(codes(&review(&config(serde_json::json!({})))), ["no-command"]);
}

#[test]
fn setuid_programs_are_counted_once() {
    let mut tree = Tree::default();
    let program = put(&mut tree, "bin/su", Kind::File(FileData::inline(&b""[..])));
    tree.inode_mut(program).metadata.mode = crate::model::Mode::new(0o4755);
    let bin = tree.get(b"bin").unwrap();
    tree.inode_mut(bin).metadata.mode = crate::model::Mode::new(0o2755);
    tree.attach(bin, b"sudo", program, 0);
    let notes = prepare(&mut tree, &empty(), &plain()).unwrap().notes;
    let note = note(&notes, "setuid-inert");
    assert_eq!((note.count, &note.examples[..]), (1, &["\"bin/su\"".to_owned()][..]));
}

fn made_of(tree: &Tree) -> Vec<u8> {
    match &tree.inode(list_of_made(tree).unwrap()).kind {
        Kind::File(FileData { content: crate::tree::Content::Inline(made), .. }) => made.to_vec(),
        _ => panic!(),
    }
}

/// Whatever a root looked like, it looks like that again when the additions leave.
#[test]
fn what_was_added_leaves_again_and_what_was_replaced_comes_back() {
    let roots: [&[&str]; 11] = [
        &[],
        &["f etc/hosts 127.0.0.1 me", "f etc/resolv.conf", "d tmp", "d var/tmp", "d home"],
        &["s tmp var/tmp", "s home nowhere/at/all", "s root /var/roothome", "d var"],
        &["s etc usr/etc", "f usr/etc/hosts x", "d usr/etc"],
        &["s etc usr/etc"],
        &["f dev a file where a directory belongs", "s proc self", "f sys x"],
        &["s environment /elsewhere", "f singularity mine", "d .run", "s .exec .singularity.d/actions/exec2"],
        &["s etc/hosts ../run/hosts", "f run/hosts", "s etc/resolv.conf /run/resolv.conf"],
        &["d etc/hosts/d", "f etc/hosts/f x", "d etc/resolv.conf"],
        &["s etc usr/etc", "f usr/etc/hosts/f x"],
        &["s var private/var", "f private/var/tmp x", "f etc x"],
    ];
    for root in roots {
        let before = tree_of(root);
        let mut after = before.clone();
        let paths = ["data/in/put", "etc/mine", "srv"].map(path);
        prepare(&mut after, &empty(), &Additions { mkdir: &paths, ..plain() }).unwrap();
        let made = made_of(&after);
        assert!(is_prepared(&after));
        assert_eq!(remove(&mut after, Some(&made)), []);
        assert!(!is_prepared(&after));
        assert_eq!(after.dump(), before.dump(), "{root:?}");
    }
}

/// Of a root that someone else prepared, only what is certain goes.
#[test]
fn without_a_list_only_what_is_certain_goes() {
    let mut tree = tree_of(&[
        "d .singularity.d/env",
        "f .singularity.d/runscript x",
        "s singularity .singularity.d/runscript",
        "s .run elsewhere",
        "d home",
        "f etc/hosts",
    ]);
    let notes = remove(&mut tree, None);
    assert_eq!(notes.iter().map(|note| note.code).collect::<Vec<_>>(), ["singularity-additions-unknown"]);
    let names: Vec<Vec<u8>> = tree.walk().map(|visit| visit.path).collect();
    assert_eq!(names, [&b""[..], b".run", b"etc", b"etc/hosts", b"home"]);
}

/// Whoever made a SIF may have written anything there.
#[test]
fn nothing_takes_the_place_of_what_was_never_made() {
    let mut tree = tree_of(&[
        "f .singularity.d/replaced/bin/tool honest",
        "f bin/tool evil",
        "f .singularity.d/replaced/etc/hosts honest",
        "f etc/hosts evil",
        "f .singularity.d/replaced/tmp honest",
        "f tmp/evil x",
        "f .singularity.d/replaced/home honest",
        "f .singularity.d/replaced/opt/gone honest",
        "d opt",
        "f .singularity.d/replaced/etc/resolv.conf honest",
        "f etc/resolv.conf",
        "f .singularity.d/replaced/etc/passwd honest",
        "f etc/passwd",
        "f usr/bin/empty",
    ]);
    let resolv = tree.get(b"etc/resolv.conf").unwrap();
    tree.inode_mut(resolv).metadata.mode = crate::model::Mode::new(0o644);
    remove(&mut tree, Some(b"usr/bin/empty"));
    for (path, text) in [
        ("bin/tool", "evil"),
        ("etc/hosts", "evil"),
        ("tmp/evil", "x"),
        ("etc/resolv.conf", "honest"),
        ("etc/passwd", ""),
    ] {
        assert_eq!(text_of(&tree, path), text, "{path}");
    }
    assert_eq!(line(&tree, "home"), "nothing", "what is not there comes from nowhere");
    assert_eq!(line(&tree, "opt/gone"), "nothing");
    assert_ne!(line(&tree, "usr/bin/empty"), "nothing", "an empty file that runs is none of ours");
}

/// What an image brings there is not what a conversion wrote down.
#[test]
fn records_that_an_image_brings_change_nothing_of_it() {
    let brought: [&[&str]; 4] = [
        &["f .singularity.d/replaced/bin/sh evil", "f bin/sh good"],
        &["f .singularity.d/replaced/etc/hosts evil", "f .singularity.d/replaced/etc evil"],
        &["f .singularity.d/replaced/etc/hosts evil", "f etc/hosts good"],
        &["f .singularity.d/replaced/etc/hosts/file evil", "d etc"],
    ];
    for root in brought {
        let before = tree_of(root);
        let mut after = before.clone();
        let notes = prepare(&mut after, &empty(), &plain()).unwrap().notes;
        assert_eq!(note(&notes, "singularity-files-present").count, 1);
        let made = made_of(&after);
        remove(&mut after, Some(&made));
        let own = |tree: &Tree| {
            tree.dump().lines().filter(|line| !line.contains(".singularity.d")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(own(&after), own(&before), "{root:?}");
    }
}

/// An image of a root that was prepared, and a layer above it: what the layer wrote is the image's.
#[test]
fn what_was_written_over_an_earlier_preparation_is_kept() {
    let mut tree = Tree::default();
    prepare(&mut tree, &empty(), &plain()).unwrap();
    put(&mut tree, "etc/hosts", Kind::File(FileData::inline(&b"127.0.0.1 me"[..])));
    prepare(&mut tree, &empty(), &plain()).unwrap();
    let made = made_of(&tree);
    remove(&mut tree, Some(&made));
    assert_eq!(text_of(&tree, "etc/hosts"), "127.0.0.1 me");
    assert_eq!(line(&tree, "tmp"), "nothing");
}

/// A list from a hostile file takes away nothing but what is empty, inside of the root.
#[test]
fn a_hostile_list_takes_nothing_away() {
    let mut tree = tree_of(&["d .singularity.d", "f etc/passwd root", "d etc/empty", "s up ..", "s loop loop"]);
    remove(&mut tree, Some(b"etc/passwd\0etc\0\0..\0up/etc/passwd\0loop/x\0/\0etc/empty/x\0.singularity.d"));
    let names: Vec<Vec<u8>> = tree.walk().map(|visit| visit.path).collect();
    assert_eq!(names, [&b""[..], b"etc", b"etc/empty", b"etc/passwd", b"loop", b"up"]);
}

fn remains(runscript: &str, environment: &str, definition: &str) -> Remains {
    Remains {
        runscript: runscript.to_string(),
        docker_environment: environment.to_string(),
        environment: definition.to_string(),
        ..Remains::default()
    }
}

fn recovered(remains: &Remains) -> (String, Vec<&'static str>) {
    let Recovered { execution, notes, .. } = recover(remains).unwrap();
    let unsaid = |code: &&str| !["config-rebuilt", "workdir-unknown"].contains(code);
    (serde_json::Value::Object(execution).to_string(), notes.iter().map(|note| note.code).filter(unsaid).collect())
}

#[test]
fn our_own_files_give_the_command_and_the_environment_back() {
    let config = config(serde_json::json!({
        "Env": ["PATH=/a:/b", "A=it's \"q\" $x `y` \\z", "B=", "C=two\nlines"],
        "Entrypoint": ["/e", "it's", "", "$HOME"],
        "Cmd": ["*", "a b", "\"q\" `b` \\"],
        "WorkingDir": "/work it's",
    }));
    let mut tree = tree_of(&["f bin/sh x"]);
    prepare(&mut tree, &config, &Additions { change_to_workdir: true, ..plain() }).unwrap();
    let text = |name: &str| text_of(&tree, &format!(".singularity.d/{name}"));
    let remains = remains(&text("runscript"), &text("env/10-docker2singularity.sh"), &text("env/90-environment.sh"));
    let Recovered { execution, needs_singularity, .. } = recover(&remains).unwrap();
    assert!(!needs_singularity);
    let words = |key: &str| {
        execution[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(words("Env"), config.env());
    assert_eq!(words("Entrypoint"), config.entrypoint());
    assert_eq!(words("Cmd"), config.cmd());
    assert_eq!(execution["WorkingDir"], config.working_dir());
}

#[test]
fn runscripts_of_the_usual_forms_are_understood() {
    for (script, want, notes) in [
        ("#!/bin/sh\nexec /bin/bash \"$@\"\n", r#"{"Entrypoint":["/bin/bash"]}"#, &[][..]),
        ("#!/bin/sh\n# why\n\npython3 '/a b.py' -v $@\n", r#"{"Entrypoint":["python3","/a b.py","-v"]}"#, &[]),
        ("#!/bin/sh\nOCI_ENTRYPOINT=''\nOCI_CMD='\"sh\"'\nrest", r#"{"Cmd":["sh"]}"#, &[]),
        ("#!/bin/sh\n", "{}", &["nothing-to-run"]),
        (
            "#!/bin/sh\n# whose\n\necho \"There is no runscript defined for this container\\n\";\n",
            "{}",
            &["nothing-to-run"],
        ),
        (
            "#!/bin/bash\necho \"hi $1\"\nexec x\n",
            r##"{"Entrypoint":["/bin/bash","-c","#!/bin/bash\necho \"hi $1\"\nexec x","runscript"]}"##,
            &["runscript-embedded"],
        ),
        ("A=1 x \"$@\"", r#"{"Entrypoint":["/bin/sh","-c","A=1 x \"$@\"","runscript"]}"#, &["runscript-embedded"]),
    ] {
        assert_eq!(recovered(&remains(script, "", "")), (want.to_string(), notes.to_vec()), "{script:?}");
    }
}

#[test]
fn environments_of_definition_files_go_over_the_images() {
    let run = "#!/bin/sh\nexec x \"$@\"\n";
    for (docker, definition, want) in [
        ("export A=\"${A:-\"1\"}\"\n", "export B=2\n", r#"{"Env":["A=1","B=2"],"Entrypoint":["x"]}"#),
        ("export PATH=\"/a\"\n", "export PATH=/opt:$PATH\n", r#"{"Env":["PATH=/opt:/a"],"Entrypoint":["x"]}"#),
        (
            "",
            "export PATH=$PATH:/opt\n",
            r#"{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt"],"Entrypoint":["x"]}"#,
        ),
        ("", "#!/bin/sh\n# nothing\n", r#"{"Entrypoint":["x"]}"#),
    ] {
        assert_eq!(recovered(&remains(run, docker, definition)), (want.to_string(), vec![]), "{docker} {definition}");
    }
    let needs = Remains { runscript: run.into(), environment: "export A=$(date)\n".into(), ..Remains::default() };
    assert!(recover(&needs).unwrap().needs_singularity);
    assert_eq!(
        recovered(&needs),
        (r#"{"Entrypoint":["/.singularity.d/actions/run"]}"#.to_string(), vec!["environment-needs-singularity"])
    );
}

#[test]
fn an_oci_config_is_taken_as_it_is() {
    let config = r#"{"Cmd":["a"],"Env":["PATH=/x","A=1"],"Labels":{"a":"1"},"User":"5","Volumes":{"/v":{}}}"#;
    let own = Remains {
        oci_config: Some(config.into()),
        runscript: "#!/bin/sh\nOCI_ENTRYPOINT=''\nOCI_CMD='\"a\"'\n".into(),
        labels: r#"{"a":"1","org.label-schema.build-date":"x","org.label-schema.usage.singularity.version":"3"}"#
            .into(),
        ..Remains::default()
    };
    assert_eq!(recovered(&own), (config.to_string(), vec![]));
    let more = Remains { labels: r#"{"b":"2"}"#.into(), environment: "export A=2".into(), ..own };
    let want = config.replace(r#""A=1""#, r#""A=2""#).replace(r#"{"a":"1"}"#, r#"{"a":"1","b":"2"}"#);
    assert_eq!(recovered(&more), (want, vec![]));
    let damaged = Remains { oci_config: Some(b"[".to_vec()), ..Remains::default() };
    assert_eq!(recover(&damaged).unwrap_err().kind(), ErrorKind::InvalidImage);
}
