//! Apptainer must take our containers for its own, and we its.
//!
//! `ORACLES_RUN` is a command prefix under which the programs are found, such as `/path/scripts/oracles run`; without it
//! they are looked for on PATH. Where Apptainer is missing the tests are skipped with a printed reason; under
//! `ORACLES=require` that is a failure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::support::run::skip;
use sif_convert::io::Region;
use sif_convert::sif::{Architecture, Container, Contents, DataType, Descriptor, Plan, Severity, verify};

/// Makes `real.sif` by Apptainer from a root that holds a shell, and `root.squashfs` by mksquashfs from the same files.
const PREPARE: &str = r#"set -eu
    mkdir -p tiny/bin tiny/dev tiny/proc tiny/sys tiny/tmp tiny/var/tmp tiny/etc tiny/home tiny/root
    touch tiny/etc/hosts tiny/etc/resolv.conf tiny/etc/localtime; echo "hello from inside" >tiny/greeting
    shell=$(readlink -f "$(command -v dash || command -v sh)"); cp "$shell" tiny/bin/sh
    for library in $(ldd "$shell" | grep -o '/[^ ]*'); do mkdir -p "tiny/$(dirname "$library")"; cp -L "$library" "tiny/$library"; done
    apptainer build real.sif tiny/
    apptainer sif dump 3 real.sif >real.squashfs
    unsquashfs -quiet -no-progress -d box real.squashfs
    mksquashfs box root.squashfs -noappend -all-root -quiet -no-progress
    chmod -R a+rX ."#;

struct Oracle {
    prefix: Vec<String>,
    scratch: tempfile::TempDir,
}

impl Oracle {
    /// Finds Apptainer and makes its files, or says why not.
    fn prepared() -> Option<Self> {
        let prefix = std::env::var("ORACLES_RUN").unwrap_or_default();
        let prefix = prefix.split_whitespace().map(str::to_string).collect();
        let scratch = tempfile::Builder::new().prefix("sif-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let oracle = Oracle { prefix, scratch };
        let found = oracle.command(&["apptainer", "--version"]).output();
        if !found.is_ok_and(|output| output.status.success()) {
            skip("apptainer cannot be run: install it, or set ORACLES_RUN=\"…/oracles run\"");
            return None;
        }
        oracle.run(&["sh", "-c", PREPARE]);
        Some(oracle)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut all = self.prefix.iter().map(String::as_str).chain(words.iter().copied());
        let mut command = Command::new(all.next().unwrap());
        command.args(all).current_dir(self.scratch.path()).stdin(Stdio::null());
        command
    }

    /// What a command that must succeed prints on stdout.
    fn run(&self, words: &[&str]) -> Vec<u8> {
        let output = self.command(words).output().unwrap();
        let said = format!("{}{}", output.stderr.escape_ascii(), output.stdout.escape_ascii());
        assert!(output.status.success(), "{words:?}: {}", said.replace("\\n", "\n"));
        output.stdout
    }

    fn text(&self, words: &[&str]) -> String {
        String::from_utf8(self.run(words)).unwrap()
    }

    /// The same oracle as an ordinary user, where the prefix is one of scripts/oracles.
    fn as_user(&self, words: &[&str]) -> String {
        let mut user = self.prefix.clone();
        if let Some(last) = user.last_mut().filter(|last| *last == "run") {
            *last = "user".into();
        }
        let mut all = user.iter().map(String::as_str).chain(words.iter().copied());
        let output = Command::new(all.next().unwrap()).args(all).current_dir(self.scratch.path()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", output.stderr.escape_ascii());
        String::from_utf8(output.stdout).unwrap()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }
}

fn open(path: &Path) -> Container {
    Container::open(Region::whole(Arc::new(File::open(path).unwrap())).unwrap()).unwrap()
}

fn data(container: &Container, descriptor: &Descriptor) -> Vec<u8> {
    let region = container.data(descriptor).unwrap();
    let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
    region.read_at(&mut bytes, 0).unwrap();
    bytes
}

fn write(path: &Path, contents: Contents, partition: &[u8]) {
    let mut file = File::create(path).unwrap();
    let plan = Plan::new(contents).unwrap();
    plan.write_objects(&mut file).unwrap();
    file.write_all(partition).unwrap();
    let size = plan.finish(&mut file, partition.len() as u64).unwrap();
    assert_eq!(file.metadata().unwrap().len(), size);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// All that a container of Apptainer's was made from, but for its partition.
fn contents_of(container: &Container) -> Contents {
    let of = |data_type| container.descriptors().filter(move |it| it.data_type == data_type);
    let name = |it: &Descriptor| String::from_utf8(it.name().to_vec()).unwrap();
    let mut contents = Contents::new(container.header().architecture, container.header().created_seconds);
    contents.uuid = container.header().uuid;
    contents.launch_script = container.header().launch_script().to_vec();
    contents.definition = of(DataType::Definition).map(|it| data(container, it)).next();
    contents.json = of(DataType::GenericJson).map(|it| (name(it), data(container, it))).collect();
    contents
}

fn assert_sound(path: &Path) {
    let findings = verify(&Region::whole(Arc::new(File::open(path).unwrap())).unwrap()).unwrap();
    assert!(findings.is_empty(), "{}: {findings:#?}", path.display());
}

/// The rows of `sif list` as our reader sees them, in siftool's form.
fn rows(container: &Container) -> Vec<String> {
    let row = |it: &Descriptor| {
        let group = it.group().map_or_else(|| "NONE".into(), |group| group.to_string());
        format!("{}|{group}|{}|{}-{}|{it}", it.id, it.link(), it.offset, it.offset + it.size)
    };
    container.descriptors().map(row).collect()
}

/// The rows of `sif list` without what only aligns them.
fn listed(text: &str) -> Vec<String> {
    let cells =
        |line: &str| line.split('|').map(|cell| cell.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let rows = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    rows.map(|line| {
        let cells: Vec<String> = cells(line);
        cells.join("|")
    })
    .collect()
}

/// Makes `oci.sif` by Apptainer from an OCI image that umoci makes: the one with all four objects.
const PREPARE_OCI: &str = r#"set -eu
    umoci init --layout layout; umoci new --image layout:latest
    umoci insert --image layout:latest tiny/bin/sh /bin/sh
    umoci config --image layout:latest --config.cmd /bin/sh --config.env A=b
    apptainer build oci.sif oci:layout
    chmod -R a+rX ."#;

/// Given what Apptainer was given, we write what Apptainer writes: every byte.
#[test]
fn containers_of_apptainers_are_written_again() {
    let Some(oracle) = Oracle::prepared() else { return };
    oracle.run(&["sh", "-c", PREPARE_OCI]);
    for (name, objects) in [("real.sif", 3), ("oci.sif", 4)] {
        let theirs = oracle.path(name);
        assert_sound(&theirs);
        let container = open(&theirs);
        assert_eq!(container.descriptors().count(), objects);
        assert_eq!(rows(&container), listed(&oracle.text(&["apptainer", "sif", "list", name])));
        let ours = oracle.path("again.sif");
        write(&ours, contents_of(&container), &data(&container, container.primary().unwrap()));
        assert!(fs::read(ours).unwrap() == fs::read(theirs).unwrap(), "{name}: the bytes differ from Apptainer's");
    }
}

/// A container of ours, around a squashfs of mksquashfs, is listed, taken apart, inspected, signed, changed and run.
#[test]
fn apptainer_takes_a_container_of_ours() {
    let Some(oracle) = Oracle::prepared() else { return };
    let metadata =
        r#"{"data":{"attributes":{"labels":{"made":"here"},"deffile":"bootstrap: docker"}},"type":"container"}"#;
    let partition = fs::read(oracle.path("root.squashfs")).unwrap();
    let real = open(&oracle.path("real.sif"));
    let mut contents = Contents::new(real.header().architecture, 1_700_000_000);
    contents.definition = Some(b"bootstrap: docker\nfrom: alpine\n\n".to_vec());
    contents.json = BTreeMap::from([
        ("inspect-metadata.json".into(), metadata.into()),
        ("oci-config.json".into(), br#"{"Cmd":["/bin/sh"]}"#.to_vec()),
    ]);
    let path = oracle.path("ours.sif");
    write(&path, contents, &partition);
    assert_sound(&path);
    assert_shown(&oracle, &open(&path));
    assert_eq!(oracle.text(&["apptainer", "inspect", "--labels", "ours.sif"]).trim(), "made: here");
    assert_eq!(oracle.text(&["apptainer", "inspect", "--deffile", "ours.sif"]).trim(), "bootstrap: docker");
    assert_eq!(
        oracle.as_user(&["apptainer", "exec", "ours.sif", "/bin/sh", "-c", "read x </greeting; echo $x"]).trim(),
        "hello from inside"
    );
    assert_signed_and_changed(&oracle);
}

fn assert_shown(oracle: &Oracle, container: &Container) {
    assert_eq!(rows(container), listed(&oracle.text(&["apptainer", "sif", "list", "ours.sif"])));
    let header = oracle.text(&["apptainer", "sif", "header", "ours.sif"]);
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_string()
    };
    let machine = Architecture::from_goarch(&field(&header, "Primary Architecture"));
    assert_eq!(machine, Some(container.header().architecture));
    assert_eq!(field(&header, "Created At"), "2023-11-14 22:13:20 +0000 UTC");
    assert_eq!(field(&header, "Descriptors Free"), "44");
    assert!(!header.contains("ID:"), "a nil UUID is left out: {header}");
    let info = oracle.text(&["apptainer", "sif", "info", "4", "ours.sif"]);
    for (name, value) in [("Filesystem Type", "Squashfs"), ("Partition Type", "*System"), ("Group ID", "1")] {
        assert_eq!(field(&info, name), value);
    }
    assert_eq!(field(&oracle.text(&["apptainer", "sif", "info", "3", "ours.sif"]), "Name"), "oci-config.json");
    for descriptor in container.descriptors() {
        let dumped = oracle.run(&["apptainer", "sif", "dump", &descriptor.id.to_string(), "ours.sif"]);
        assert!(dumped == data(container, descriptor), "object {} is dumped otherwise", descriptor.id);
    }
}

/// What Apptainer adds to our file is read, and what it removes leaves no error behind.
fn assert_signed_and_changed(oracle: &Oracle) {
    oracle.run(&["sh", "-c", "openssl genpkey -algorithm ed25519 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem
        cp ours.sif signed.sif && apptainer sign --key key.pem signed.sif && apptainer verify --key public.pem signed.sif
        echo something >thing && cp ours.sif added.sif && apptainer sif add --datatype 7 --filename thing added.sif thing
        cp added.sif removed.sif && apptainer sif del 2 removed.sif; chmod -R a+rX ."]);
    assert_sound(&oracle.path("signed.sif"));
    let signed = open(&oracle.path("signed.sif"));
    assert_eq!(rows(&signed), listed(&oracle.text(&["apptainer", "sif", "list", "signed.sif"])));
    assert_eq!(signed.descriptors().last().unwrap().to_string(), "Signature (SHA-256)");
    assert_eq!(
        rows(&open(&oracle.path("added.sif"))),
        listed(&oracle.text(&["apptainer", "sif", "list", "added.sif"]))
    );
    for name in ["added.sif", "removed.sif"] {
        let region = Region::whole(Arc::new(File::open(oracle.path(name)).unwrap())).unwrap();
        let findings = verify(&region).unwrap();
        assert!(findings.iter().all(|it| it.severity != Severity::Error), "{name}: {findings:#?}");
    }
    assert_eq!(
        rows(&open(&oracle.path("removed.sif"))),
        listed(&oracle.text(&["apptainer", "sif", "list", "removed.sif"]))
    );
}
