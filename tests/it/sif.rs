//! An image becomes a SIF: the right tree in it, the same bytes whoever writes it from wherever, and a word about all that
//! Singularity will not do as Docker does.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::case::{self, Case, Expected};
use crate::support::entry::{Content, Entry, Kind};
use crate::support::listing::Listing;
use crate::support::pack::{self, Squeeze, docker_archive, docker_archive_of, sha256};
use crate::support::run::{self, exit_code, host_has, is_root, program, skip};
use crate::support::{large, layer, singularity, squashfs};
use serde_json::{Value, json};
use sif_convert::sif::DataType;

#[test]
fn sif_of_every_case() {
    let mut failures = String::new();
    let cases = case::all();
    for case in &cases {
        if let Err(failure) = check(case) {
            failures.push_str(&format!("== {}.case\n{failure}\n", case.name));
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    eprintln!("{} cases", cases.len());
}

fn check(case: &Case) -> Result<(), String> {
    let scratch = run::scratch();
    let (archive, sif) = (scratch.path().join("image.tar"), scratch.path().join("image.sif"));
    let layers: Vec<Vec<u8>> = case.layers.iter().map(layer::tar).collect();
    fs::write(&archive, docker_archive(&layers, Squeeze::Not)).unwrap();
    let mut convert = program();
    convert.arg(&archive).args(["--to", "sif", "--keep-devices", "--xattrs", "all", "-o"]).arg(&sif);
    let run = run::run(&mut convert);
    let tree = match &case.expected {
        Expected::Tree(tree) if run.code == 0 => tree,
        Expected::Tree(_) => return Err(format!("exit code {}: {}", run.code, run.stderr)),
        Expected::Error { kind, .. } if run.code == exit_code(kind) && !sif.exists() => return Ok(()),
        Expected::Error { kind, .. } => return Err(format!("exit code {}, not {kind}: {}", run.code, run.stderr)),
    };
    let mut expected = Listing::from_tree(tree);
    squashfs::storable_times(&mut expected);
    let partition = squashfs::partition(&squashfs::open(&sif)?);
    let mut found = squashfs::list(partition.clone())?;
    let theirs = squashfs::list_by_backhand(&sif, &partition).map_err(|error| format!("backhand: {error}"))?;
    squashfs::same(&squashfs::plain(&found), &theirs).map_err(|error| format!("backhand: {error}"))?;
    singularity::subtract(&mut expected, &mut found)?;
    squashfs::same(&expected, &found)
}

/// A directory that anyone may write to, with an image of many parts and a copy of the program.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(directory.path().join("image.tar"), docker_archive(&large::layers(), Squeeze::Not)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_convert"), directory.path().join("convert")).unwrap();
        Place(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).args(["image.tar", "--to", "sif", "-o", "out.sif"]);
        command
    }

    /// Runs a command that makes `out.sif`, and takes that away.
    fn digest(&self, command: &mut Command) -> String {
        let run = run::run(command);
        assert_eq!(run.code, 0, "{command:?}: {}", run.stderr);
        let bytes = fs::read(self.path("out.sif")).unwrap();
        fs::remove_file(self.path("out.sif")).unwrap();
        sha256(&bytes)
    }
}

#[test]
fn bytes_depend_on_nothing_but_the_image() {
    let place = Place::new();
    let expected = place.digest(&mut place.command());
    let same = |what: &str, command: &mut Command| {
        assert_eq!(place.digest(command), expected, "{what} changes the bytes");
    };
    same("running it twice", &mut place.command());
    for jobs in ["1", "2", "8"] {
        same("the number of threads", place.command().args(["--jobs", jobs]));
    }
    same("the time zone", place.command().env("TZ", "Pacific/Kiritimati"));
    same("the locale", place.command().env("LANG", "tr_TR.UTF-8").env("LC_ALL", "tr_TR.UTF-8"));
    same("HOME and USER", place.command().env("HOME", "/nowhere").env("USER", "someone"));
    let archive = place.path("image.tar");
    File::options().append(true).open(&archive).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    same("the time of the archive", &mut place.command());
    let from = |path: &Path| {
        let mut command = program();
        command.current_dir("/").arg(path).args(["--to", "sif", "-o"]).arg(place.path("out.sif"));
        command
    };
    same("an absolute path", &mut from(&archive));
    fs::rename(&archive, place.path("other name.img")).unwrap();
    same("another name", &mut from(&place.path("other name.img")));
}

#[test]
fn bytes_do_not_depend_on_umask_or_user() {
    let place = Place::new();
    let expected = place.digest(&mut place.command());
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", "/usr/bin:/bin").current_dir(place.0.path()).args(["-c", script]);
        place.digest(&mut command)
    };
    for umask in ["000", "077"] {
        let script = format!("umask {umask}; exec ./convert image.tar --to sif -o out.sif");
        assert_eq!(shell(&script), expected, "umask {umask}");
    }
    if !is_root() || !host_has("setpriv") {
        return skip("comparing root with another user needs root and setpriv");
    }
    let script =
        "exec setpriv --reuid 1000 --regid 1000 --clear-groups ./convert image.tar --to sif --tmpdir . -o out.sif";
    assert_eq!(shell(script), expected, "uid 1000");
}

/// However the image comes: as it is stored does not show.
#[test]
fn bytes_do_not_depend_on_the_source() {
    let layers = large::layers();
    let place = Place::new();
    let config = pack::config(&layers);
    let convert = |source: &str| {
        let mut command = program();
        command.current_dir(place.0.path()).arg(source);
        place.digest(command.args(["--reference", "example.org/app:1.0", "--to", "sif", "-o", "out.sif"]))
    };
    let expected = convert("image.tar");
    for how in [Squeeze::Not, Squeeze::Gzip, Squeeze::Zstd] {
        let layout = format!("layout-{how:?}");
        pack::oci_layout_of(&place.path(&layout), &config, &layers, how);
        assert_eq!(convert(&layout), expected, "an OCI layout, layers {how:?}");
        fs::write(place.path("again.tar"), docker_archive(&layers, how)).unwrap();
        assert_eq!(convert("again.tar"), expected, "a docker-archive, layers {how:?}");
    }
}

/// The codes, counts and examples of the notes in the report.
fn notes(config: &Value, entries: &[Entry], arguments: &[&str]) -> Vec<(String, u64, String)> {
    let scratch = run::scratch();
    let (archive, report) = (scratch.path().join("image.tar"), scratch.path().join("report.json"));
    let layers = [layer::tar_of(entries)];
    let mut whole = pack::config(&layers);
    for (name, value) in config.as_object().unwrap() {
        whole["config"][name] = value.clone();
    }
    fs::write(&archive, docker_archive_of(&whole, &layers, Squeeze::Not)).unwrap();
    let mut convert = program();
    convert.arg(&archive).args(["--to", "sif", "--report"]).arg(&report).args(arguments);
    let run = run::run(convert.arg("-o").arg(scratch.path().join("image.sif")));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let notes = report["notes"].as_array().unwrap_or_else(|| panic!("no notes in {report:#}"));
    let note = |note: &Value| {
        let text = |field: &str| note[field].as_str().unwrap().to_string();
        (text("code"), note["count"].as_u64().unwrap(), format!("{} {}", text("message"), note["examples"]))
    };
    notes.iter().map(note).collect()
}

fn expect_note(notes: &[(String, u64, String)], code: &str, count: u64, words: &[&str]) {
    let Some((_, found, text)) = notes.iter().find(|note| note.0 == code) else {
        panic!("no note {code} in {notes:#?}");
    };
    assert_eq!(*found, count, "{code}: {text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{code}: {word:?} is not in {text}"));
}

#[test]
fn what_is_left_out_or_without_effect_is_in_the_report() {
    let entry = |path: &str, kind| Entry::new(path, kind);
    let file = || Kind::File(Content::data("text"));
    let setuid = Entry { mode: 0o4755, ..entry("bin/su", file()) };
    let mut labelled = entry("labelled", file());
    labelled.xattrs.insert(b"user.test".to_vec(), b"1".to_vec());
    labelled.xattrs.insert(b"security.selinux".to_vec(), b"label".to_vec());
    let mut acl = entry("acl", file());
    acl.xattrs.insert(b"system.posix_acl_access".to_vec(), b"\x02\0\0\0".to_vec());
    let devices = [entry("dev/null", Kind::Char(1, 3)), entry("dev/sda", Kind::Block(8, 0))];
    let entries = [&[setuid, labelled, acl][..], &devices].concat();
    let config = json!({
        "Env": ["PATH=/bin", "1ST=x", "a-b=y", "HOME=/nowhere", "UID=7"],
        "Entrypoint": ["./start"],
        "WorkingDir": "/app",
        "User": "nobody",
    });
    let found = notes(&config, &entries, &[]);
    expect_note(&found, "device-nodes-dropped", 2, &["dev/null", "dev/sda", "--keep-devices"]);
    expect_note(&found, "xattrs-dropped", 3, &["user.test", "security.selinux", "labelled", "--xattrs"]);
    expect_note(&found, "environment-name-skipped", 3, &["1ST", "a-b", "UID"]);
    expect_note(&found, "environment-ignored", 1, &["HOME"]);
    expect_note(&found, "setuid-inert", 1, &["bin/su", "nosuid"]);
    expect_note(&found, "relative-entrypoint", 1, &["./start", "/app", "--workdir"]);
    expect_note(&found, "user-ignored", 1, &["nobody"]);

    let found = notes(&config, &entries, &["--keep-devices", "--xattrs", "all", "--workdir"]);
    let codes: Vec<&str> = found.iter().map(|note| note.0.as_str()).collect();
    assert!(!codes.contains(&"device-nodes-dropped") && !codes.contains(&"relative-entrypoint"), "{codes:?}");
    expect_note(&found, "xattrs-dropped", 1, &["system.posix_acl_access", "squashfs"]);
}

#[test]
fn times_that_squashfs_cannot_hold_are_in_the_report() {
    let at = |seconds| crate::support::entry::When::At(crate::support::entry::Time { seconds, nanoseconds: 0 });
    let entry = |path: &str, seconds| {
        let pax = vec!["pax".to_string()];
        Entry { time: at(seconds), dialect: pax, ..Entry::new(path, Kind::File(Content::data("text"))) }
    };
    let entries = [entry("before", -1), entry("first", 0), entry("last", u32::MAX.into()), entry("after", 1 << 32)];
    let found = notes(&json!({}), &entries, &[]);
    expect_note(&found, "times-clamped", 2, &["1970", "2106"]);
}

/// What the objects of the file say, and that nothing else is in it.
#[test]
fn objects_hold_the_config_and_the_reference() {
    let scratch = run::scratch();
    let (archive, sif) = (scratch.path().join("image.tar"), scratch.path().join("image.sif"));
    let layers = [layer::tar_of(&[Entry::new("a", Kind::Dir)])];
    let mut config = pack::config(&layers);
    config["config"]["Labels"] = json!({ "org.example": "<one> & \"two\"" });
    fs::write(&archive, docker_archive_of(&config, &layers, Squeeze::Not)).unwrap();
    let mut convert = program();
    convert.arg(&archive).args(["--to", "sif", "--reference", "example.org/app:1.0", "-o"]).arg(&sif);
    let run = run::run(&mut convert);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(fs::metadata(&sif).unwrap().permissions().mode() & 0o111, 0o111, "a SIF can be run by its name");
    let container = squashfs::open(&sif).unwrap();
    let objects: Vec<&[u8]> = container.descriptors().map(|it| it.name()).collect();
    assert_eq!(objects.len(), 5, "definition, three documents, partition");
    let bytes = |data_type, name: &[u8]| {
        let descriptor = container.descriptors().find(|it| it.data_type == data_type && it.name() == name);
        let region = container.data(descriptor.unwrap()).unwrap();
        let mut bytes = vec![0; region.len as usize];
        region.read_at(&mut bytes, 0).unwrap();
        bytes
    };
    let definition = container.descriptors().find(|it| it.data_type == DataType::Definition).unwrap();
    let definition = bytes(DataType::Definition, definition.name());
    assert_eq!(String::from_utf8(definition).unwrap(), "bootstrap: docker\nfrom: example.org/app:1.0\n\n");
    let json = |name: &[u8]| -> Value { serde_json::from_slice(&bytes(DataType::GenericJson, name)).unwrap() };
    let labels = &json(b"inspect-metadata.json")["data"]["attributes"]["labels"];
    assert_eq!(labels["org.example"], "<one> & \"two\"");
    assert_eq!(labels["org.label-schema.usage.singularity.deffile.from"], "example.org/app:1.0");
    assert_eq!(json(b"oci-config.json")["Cmd"], json!(["/bin/sh"]));
    let own = objects.iter().find(|name| name.starts_with(b"sif-convert")).unwrap();
    assert_eq!(json(own)["image"], format!("sha256:{}", sha256(&serde_json::to_vec(&config).unwrap())));
    assert!(squashfs::holds(&squashfs::list(squashfs::partition(&container)).unwrap(), ".singularity.d/runscript"));
}
