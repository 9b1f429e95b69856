//! A real Apptainer, run by an ordinary user, takes our SIF files as its own.
//!
//! Needs Docker and `scripts/oracles setup`; without them the tests are skipped with a printed reason, and fail under
//! `ORACLES=require`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::docker::DockerImage;
use crate::support::entry::{Time, When};
use crate::support::listing::{Listing, Node, Path, What, file, from_tar, parts, show};
use crate::support::run::{self, Oracles, program};
use crate::support::squashfs;

/// An image of Docker's, converted, and an Apptainer to run it.
struct Subject {
    oracles: Oracles,
    image: DockerImage,
}

impl Subject {
    /// `image.sif` beside `image.tar`, where an ordinary user may write.
    fn new(name: &str, dockerfile: Option<&str>) -> Option<Self> {
        let oracles = run::oracles()?;
        let image = dockerfile.map_or_else(|| DockerImage::build(name), |text| DockerImage::build_of(name, text))?;
        let place = image.place.path();
        let mut convert = program();
        convert.arg(image.archive()).args(["--to", "sif", "-o"]).arg(place.join("image.sif"));
        let done = run::run(&mut convert);
        assert_eq!(done.code, 0, "{}", done.stderr);
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(image.archive(), fs::Permissions::from_mode(0o644)).unwrap();
        Some(Subject { oracles, image })
    }

    /// What a shell text prints that must succeed.
    fn shell(&self, script: &str) -> String {
        let done = run::run(self.oracles.user(self.image.place.path()).args(["sh", "-c", script]));
        let stdout = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.code, 0, "{script}: {stdout}{}", done.stderr);
        stdout
    }

    fn apptainer(&self, arguments: &str) -> String {
        self.shell(&format!("apptainer --silent {arguments}"))
    }

    fn docker_run(&self, options: &[&str], arguments: &[&str]) -> String {
        let all = [&["run", "--rm"], options, &[self.image.name.as_str()], arguments].concat();
        String::from_utf8(self.image.docker(&all)).unwrap()
    }

    fn json(&self, arguments: &str) -> serde_json::Value {
        serde_json::from_str(&self.apptainer(arguments)).unwrap()
    }
}

/// Words that Apptainer and Docker must hand on alike.
const ARGUMENTS: &str = r#"'a b' '$HOME' '' "it's" '`id`' '*' '-x'"#;
const ARGUMENTS_LIST: [&str; 7] = ["a b", "$HOME", "", "it's", "`id`", "*", "-x"];

#[test]
fn it_runs_as_docker_runs_the_image() {
    let Some(subject) = Subject::new("sif-run", None) else { return };
    let cmd = subject.docker_run(&[], &[]);
    let arguments = subject.docker_run(&[], &ARGUMENTS_LIST);
    assert!(cmd.contains("T_QUOTE=it's \"quoted\"") && cmd.contains("<fixed word><it's><>"), "{cmd}");
    for options in ["", "--no-eval", "--cleanenv", "--containall", "--userns", "--writable-tmpfs"] {
        assert_eq!(subject.apptainer(&format!("run {options} image.sif")), cmd, "run {options}");
        assert_eq!(subject.apptainer(&format!("run {options} image.sif {ARGUMENTS}")), arguments, "run {options}");
    }
    assert_eq!(subject.shell(&format!("./image.sif {ARGUMENTS} 2>/dev/null")), arguments, "run by its own name");
    // Apptainer itself expands what `--env` gives, unless it is told not to.
    let changed = subject.docker_run(&["--env", "T_PLAIN=a $x 'y'"], &["one"]);
    assert_eq!(subject.apptainer(r#"run --no-eval --env "T_PLAIN=a \$x 'y'" image.sif one"#), changed, "--env");
    let files = subject.docker_run(&["--entrypoint", "cat"], &["/data/sub/three", "/data/moved"]);
    assert_eq!(subject.apptainer("exec image.sif cat /data/sub/three /data/moved"), files, "exec");
    assert_eq!(subject.apptainer(r#"exec image.sif sh -c 'echo "$T_SPACE"'"#), "two  words\n", "exec of a shell");
    assert_eq!(
        subject.shell(r#"echo 'echo "$T_QUOTE"' | apptainer --silent shell image.sif"#),
        "it's \"quoted\"\n",
        "shell"
    );
    subject.apptainer("test image.sif");
}

#[test]
fn it_is_listed_inspected_signed_and_unpacked() {
    let Some(subject) = Subject::new("sif-tools", None) else { return };
    let list = subject.apptainer("sif list image.sif");
    assert_eq!(list.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count(), 5, "{list}");
    assert!(subject.apptainer("sif header image.sif").contains("amd64"));
    let all = subject.json("inspect --all image.sif");
    let attributes = &all["data"]["attributes"];
    assert_eq!(attributes["labels"]["org.example.quote"], "say \"hi\"", "{all:#}");
    assert!(attributes["deffile"].as_str().unwrap().contains("bootstrap: docker"), "{all:#}");
    assert!(attributes["runscript"].as_str().unwrap().contains("'fixed word'"), "{all:#}");
    assert!(all.to_string().contains("T_PLAIN"), "{all:#}");

    subject.shell(
        "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
         cp image.sif signed.sif && apptainer sign --key key.pem signed.sif && apptainer verify --key public.pem signed.sif",
    );
    assert_eq!(subject.apptainer("run signed.sif one"), subject.docker_run(&[], &["one"]), "a signed image runs");

    subject.apptainer("build --sandbox box image.sif");
    assert_eq!(subject.apptainer("run box one"), subject.docker_run(&[], &["one"]), "a sandbox runs");
    assert_eq!(subject.shell("cat box/data/sub/three box/data/moved"), "three\none\n");
}

/// Files that can be changed by whoever runs the image.
const WRITABLE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 777 /open && echo old >/open/file && chmod 666 /open/file && echo fixed >/open/fixed
CMD ["cat", "/open/file"]
"#;

#[test]
fn it_can_be_written_over() {
    let Some(subject) = Subject::new("sif-overlay", Some(WRITABLE)) else { return };
    let change = "sh -c 'rm /open/fixed; echo new >/open/file; echo more >/open/more; cat /open/file; ls /open'";
    let expected = "new\nfile\nmore\n";
    assert_eq!(subject.apptainer(&format!("exec --writable-tmpfs image.sif {change}")), expected);
    subject.shell("mkdir over");
    assert_eq!(subject.apptainer(&format!("exec --overlay over image.sif {change}")), expected);
    assert_eq!(subject.apptainer("run --overlay over image.sif"), "new\n", "the change stays in the overlay");
    assert_eq!(subject.apptainer("run image.sif"), "old\n", "the image is as it was");
}

/// A program and nothing else: no shell, no directory but that of the program.
const STATIC: &str = r#"FROM scratch
COPY busybox /busybox
ENV T_A="one  'two' \$x"
ENTRYPOINT ["/busybox", "printf", "<%s>"]
CMD ["a b", "", "$HOME"]
"#;

#[test]
fn it_runs_without_a_shell_in_the_image() {
    let Some(subject) = Subject::new("sif-static", Some(STATIC)) else { return };
    assert_eq!(subject.apptainer("run image.sif"), subject.docker_run(&[], &[]));
    let arguments = subject.docker_run(&[], &ARGUMENTS_LIST);
    assert_eq!(subject.apptainer(&format!("run image.sif {ARGUMENTS}")), arguments);
    assert_eq!(subject.apptainer("exec image.sif /busybox sh -c 'echo \"$T_A\"'"), "one  'two' $x\n");
}

/// What Apptainer has its own way with: modes that keep the owner out, devices, special bits, links, owners, a root and
/// an `/etc` with a life of their own.
const AWKWARD: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /data/closed /data/sticky /data/group && echo root:x:0:0:root:/root:/bin/sh >/etc/passwd
RUN echo secret >/data/unreadable && chmod 000 /data/unreadable && echo one >/data/one && ln /data/one /data/hard
RUN echo inside >/data/closed/file && chmod 0500 /data/closed && chmod 1777 /data/sticky && chmod 2775 /data/group
RUN echo s >/data/setuid && chmod 4755 /data/setuid && echo o >/data/owned && chown 12:34 /data/owned
RUN mkfifo /data/fifo && mknod /data/null c 1 3 && ln -s /data/one /data/absolute && ln -s nowhere /data/dangling
RUN echo gone >/data/gone && touch -d '2001-02-03 04:05:06' /data/one
RUN rm /data/gone && echo two >>/data/owned
ENV T_A=a T_B="b c"
LABEL org.example.one=1
CMD ["echo", "hello"]
"#;

/// What is known of a path in the two trees and in the image itself.
struct Sides<'a> {
    path: &'a Path,
    theirs: Option<&'a Node>,
    ours: Option<&'a Node>,
    image: Option<&'a Node>,
}

impl Sides<'_> {
    fn top(&self) -> &[u8] {
        self.path.first().map_or(b"", Vec::as_slice)
    }

    /// Whether both have it, and are the same once `change` was made to theirs and ours.
    fn same_but_for(&self, change: impl Fn(&mut Node)) -> bool {
        let (Some(theirs), Some(ours)) = (self.theirs, self.ours) else { return false };
        let (mut theirs, mut ours) = (theirs.clone(), ours.clone());
        change(&mut theirs);
        change(&mut ours);
        theirs == ours
    }

    fn ours_is_the_images(&self) -> bool {
        let whole = |node: &Node| {
            let When::At(time) = node.time else { unreachable!("read from a file") };
            Node { time: When::At(Time { nanoseconds: 0, ..time }), ..node.clone() }
        };
        self.ours.is_some() && self.ours.cloned() == self.image.map(whole)
    }
}

fn forget_time(node: &mut Node) {
    node.time = When::Made;
}

/// Heading in docs/differences.md, and whether a difference is the one described there.
type Intended = (&'static str, fn(&Sides) -> bool);

const INTENDED: [Intended; 8] = [
    ("Scripts, labels and definition", |sides| {
        let file = |node: &Node| matches!(node.what, What::File(..));
        sides.top() == b".singularity.d"
            && sides.theirs.is_some_and(file)
            && sides.same_but_for(|node| {
                forget_time(node);
                node.what = What::Fifo;
            })
            && sides.theirs.map(|node| &node.what) != sides.ours.map(|node| &node.what)
    }),
    ("Times of what is added", |sides| sides.image.is_none() && sides.same_but_for(forget_time)),
    ("Times of directories of the image", |sides| {
        let directory = sides.image.is_some_and(|node| node.what == What::Dir);
        directory && sides.same_but_for(forget_time) && sides.ours_is_the_images()
    }),
    ("Temporary directories are open to all", |sides| {
        let temporary = *sides.path == parts(b"tmp") || *sides.path == parts(b"var/tmp");
        let made = sides.image.is_none() && sides.ours.is_some_and(|node| node.mode == 0o1777);
        temporary && made && sides.same_but_for(|node| (node.mode, node.time) = (0, When::Made))
    }),
    ("Owners are kept", |sides| {
        let all_root = sides.theirs.is_some_and(|node| (node.uid, node.gid) == (0, 0));
        let forget = |node: &mut Node| {
            (node.uid, node.gid) = (0, 0);
            node.xattrs.remove(b"user.rootlesscontainers".as_slice());
        };
        all_root && sides.same_but_for(forget) && sides.ours_is_the_images()
    }),
    ("Contents of unreadable files are kept", |sides| {
        let emptied = sides.theirs.is_some_and(|node| node.mode & 0o400 == 0 && node.what == file(b""));
        emptied && sides.same_but_for(|node| node.what = What::Fifo) && sides.ours_is_the_images()
    }),
    ("What was added is recorded", |sides| {
        show(sides.path).trim_matches('"') == ".singularity.d/sif-convert.made"
            && sides.theirs.is_none()
            && sides.ours.is_some()
    }),
    ("Device nodes are left out", |sides| {
        let device = sides.image.is_some_and(|node| matches!(node.what, What::Char(..) | What::Block(..)));
        let emptied = sides.theirs.is_some_and(|node| node.what == file(b""));
        device && emptied && sides.ours.is_none()
    }),
];

/// Every difference between the file that Apptainer builds of an archive and ours is one that docs/differences.md
/// describes; and each described there occurs, so that the list holds nothing that is not so.
#[test]
fn it_differs_from_apptainers_own_only_as_intended() {
    let Some(subject) = Subject::new("sif-theirs", Some(AWKWARD)) else { return };
    subject.apptainer("build theirs.sif docker-archive:image.tar");
    let path = |name: &str| subject.image.place.path().join(name);
    let list = |name: &str| squashfs::list(squashfs::partition(&squashfs::open(&path(name)).unwrap())).unwrap();
    let (theirs, ours) = (list("theirs.sif"), list("image.sif"));
    let image = from_tar(&subject.image.convert("rootfs")).unwrap();
    let mut seen: Vec<&str> = Vec::new();
    let mut others = String::new();
    let paths: BTreeSet<&Path> = theirs.names.keys().chain(ours.names.keys()).collect();
    for path in paths {
        let sides = Sides { path, theirs: theirs.node(path), ours: ours.node(path), image: image.node(path) };
        if sides.theirs == sides.ours {
            continue;
        }
        match INTENDED.iter().find(|(_, describes)| describes(&sides)) {
            Some((heading, _)) => seen.push(heading),
            None => others.push_str(&format!("{}: {:?}\n     ours: {:?}\n", show(path), sides.theirs, sides.ours)),
        }
    }
    assert!(others.is_empty(), "differences that docs/differences.md does not describe:\n{others}");
    assert_eq!(names_of_inodes(&theirs), names_of_inodes(&ours), "hard links");
    let documented = include_str!("../../docs/differences.md");
    for (heading, _) in INTENDED {
        assert!(documented.contains(&format!("\n## {heading}\n")), "docs/differences.md has no {heading:?}");
        assert!(seen.contains(&heading), "{heading:?} was not seen: Apptainer has changed, or the list is wrong");
    }
    assert!(ours.names.len() > 250, "BusyBox has hundreds of names");
    objects_differ_only_as_intended(&subject);
    assert_eq!(subject.apptainer("run theirs.sif"), subject.apptainer("run image.sif"));
    let environment = |name: &str| subject.apptainer(&format!("exec --cleanenv {name} /bin/env | grep ^T_"));
    assert_eq!(environment("theirs.sif"), environment("image.sif"));
}

/// The names of every inode that has more than one.
fn names_of_inodes(listing: &Listing) -> BTreeSet<Vec<String>> {
    let mut names: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    listing.names.iter().for_each(|(path, &id)| names.entry(id).or_default().push(show(path)));
    names.into_values().filter(|names| names.len() > 1).collect()
}

/// The objects of the container: the same kinds in the same order, the config the same, and labels but for those that say
/// when and by what the file was made.
fn objects_differ_only_as_intended(subject: &Subject) {
    let kinds = |name: &str| -> Vec<String> {
        let list = subject.apptainer(&format!("sif list {name}"));
        let rows = list.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        rows.map(|row| row.rsplit('|').next().unwrap().to_string()).collect()
    };
    let (theirs, mut ours) = (kinds("theirs.sif"), kinds("image.sif"));
    // Our own record comes after their documents.
    assert_eq!(ours.remove(3), theirs[2]);
    assert_eq!(theirs, ours);
    assert_eq!(subject.json("sif dump 3 theirs.sif"), subject.json("sif dump 3 image.sif"), "oci-config.json");
    let labels = |name: &str| {
        let all = subject.json(&format!("inspect --labels --json {name}"));
        all["data"]["attributes"]["labels"].as_object().unwrap().clone()
    };
    let (mut theirs, mut ours) = (labels("theirs.sif"), labels("image.sif"));
    for name in ["build-date", "usage.singularity.deffile.bootstrap", "usage.singularity.deffile.from"] {
        let name = format!("org.label-schema.{name}");
        assert!(theirs.remove(&name).is_some() && ours.remove(&name).is_some(), "{name}");
    }
    assert!(theirs.remove("org.label-schema.usage.apptainer.version").is_some());
    assert!(ours.remove("org.label-schema.usage.sif-convert.format").is_some());
    // Apptainer 1.6 makes these two, 1.4 does not.
    for name in ["created", "architecture"] {
        let name = format!("org.opencontainers.image.{name}");
        assert!(ours.remove(&name).is_some());
        theirs.remove(&name);
    }
    assert_eq!(theirs, ours);
}
