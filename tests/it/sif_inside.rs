//! What a SIF says of its image: architecture, WORKDIR, VOLUME, owners, SCIF apps, and what does not fit into it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::entry::{Content, Entry, Kind};
use crate::support::listing::{Listing, What, from_tar, parts};
use crate::support::pack::{self, Squeeze, docker_archive_of};
use crate::support::run::{self, Oracles, Run, program};
use crate::support::{layer, squashfs};
use serde_json::{Value, json};

/// An ELF header for amd64 (62) or another machine.
fn elf(machine: u8) -> Vec<u8> {
    let start = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, machine, 0];
    [&start[..], &[0; 44]].concat()
}

const AMD64: u8 = 62;
const ARM64: u8 = 183;

fn file(path: &str, bytes: impl Into<Vec<u8>>) -> Entry {
    Entry { mode: 0o755, ..Entry::new(path, Kind::File(Content::data(bytes))) }
}

/// `image.tar` in a directory: these entries as its only layer, and over the usual config `changes`, where `null` takes a key
/// away; those of `config` in it go into its execution part.
fn image(directory: &Path, entries: &[Entry], changes: &Value) {
    let layers = [layer::tar_of(entries)];
    let mut whole = pack::config(&layers);
    for (name, value) in changes.as_object().unwrap() {
        match (name.as_str(), value) {
            ("config", value) => {
                value.as_object().unwrap().iter().for_each(|(name, value)| whole["config"][name] = value.clone())
            }
            (_, Value::Null) => drop(whole.as_object_mut().unwrap().remove(name)),
            _ => whole[name] = value.clone(),
        }
    }
    fs::write(directory.join("image.tar"), docker_archive_of(&whole, &layers, Squeeze::Not)).unwrap();
}

/// `image.tar` to `image.sif`, with a report.
fn convert(directory: &Path, arguments: &[&str]) -> Run {
    let mut command = program();
    command.current_dir(directory).args(["image.tar", "--to", "sif", "--force", "--report", "report.json"]);
    run::run(command.args(arguments))
}

/// The SIF's architecture code, and the notes.
fn converted(entries: &[Entry], changes: &Value, arguments: &[&str]) -> (String, Vec<Value>) {
    let scratch = run::scratch();
    image(scratch.path(), entries, changes);
    let done = convert(scratch.path(), arguments);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let sif = fs::read(scratch.path().join("image.sif")).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(scratch.path().join("report.json")).unwrap()).unwrap();
    let verified = run::run(program().current_dir(scratch.path()).args(["verify", "image.sif"]));
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    (String::from_utf8(sif[45..47].to_vec()).unwrap(), report["notes"].as_array().unwrap().clone())
}

fn note<'a>(notes: &'a [Value], code: &str) -> Option<&'a Value> {
    notes.iter().find(|note| note["code"] == code)
}

#[test]
fn a_foreign_program_in_the_image_does_not_decide_the_architecture() {
    let foreign = file("a/addon.node", elf(ARM64));
    let own = file("opt/app", elf(AMD64));
    let run = json!({ "Entrypoint": ["/opt/app"] });
    let script = file("opt/start", "#! /opt/app -x\n");
    let unsaid = |execution: &Value| json!({ "architecture": null, "config": execution });
    let nothing = json!({ "Entrypoint": ["/none"] });
    let in_path = json!({ "Entrypoint": ["app"], "Env": ["PATH=/bin:/opt"] });
    let relative = json!({ "Entrypoint": ["./app"], "WorkingDir": "/opt" });
    for (what, entries, changes, arguments, want) in [
        ("the config says it", vec![foreign.clone(), own.clone()], json!({ "config": run }), vec![], "02"),
        ("the config, without any program of its own", vec![foreign.clone()], json!({ "config": run }), vec![], "02"),
        ("the entrypoint", vec![foreign.clone(), own.clone()], unsaid(&run), vec![], "02"),
        ("the entrypoint, looked up in PATH", vec![foreign.clone(), own.clone()], unsaid(&in_path), vec![], "02"),
        ("the entrypoint in WORKDIR", vec![foreign.clone(), own.clone()], unsaid(&relative), vec![], "02"),
        (
            "the interpreter of the entrypoint",
            vec![foreign.clone(), own.clone(), script],
            unsaid(&json!({ "Entrypoint": ["/opt/start"] })),
            vec![],
            "02",
        ),
        ("the shell", vec![foreign.clone(), file("bin/sh", elf(AMD64))], unsaid(&nothing), vec![], "02"),
        ("all programs", vec![own.clone(), file("opt/b", elf(AMD64))], unsaid(&nothing), vec![], "02"),
        ("--arch", vec![own.clone()], json!({ "config": run }), vec!["--arch", "arm64"], "04"),
        (
            "--arch, where all else is silent",
            vec![foreign.clone(), own.clone()],
            unsaid(&nothing),
            vec!["--arch", "s390x"],
            "11",
        ),
        (
            "--platform, where all else is silent",
            vec![foreign.clone(), own.clone()],
            unsaid(&nothing),
            vec!["--platform", "linux/s390x"],
            "11",
        ),
        (
            "--arch before --platform",
            vec![foreign.clone(), own.clone()],
            unsaid(&nothing),
            vec!["--platform", "linux/s390x", "--arch", "arm64"],
            "04",
        ),
    ] {
        let (code, notes) = converted(&entries, &changes, &arguments);
        assert_eq!(code, want, "{what}: {notes:#?}");
        assert_eq!(note(&notes, "architecture-mismatch").is_some(), what == "--arch", "{what}: {notes:#?}");
    }
    // Programs that disagree tell nothing.
    let scratch = run::scratch();
    image(scratch.path(), &[foreign, own.clone()], &unsaid(&nothing));
    let done = convert(scratch.path(), &[]);
    assert!(done.code == 4 && done.stderr.contains("--arch"), "{}", done.stderr);
    // A config that names a platform is believed: no other one can be asked of it.
    image(scratch.path(), std::slice::from_ref(&own), &json!({ "config": run }));
    let done = convert(scratch.path(), &["--platform", "linux/s390x"]);
    assert!(done.code == 3 && done.stderr.contains("no image is for platform linux/s390x"), "{}", done.stderr);
    // A program that is run and is not what the config says is told.
    let (code, notes) = converted(&[file("opt/app", elf(ARM64))], &json!({ "config": run }), &[]);
    let message = note(&notes, "architecture-mismatch").map(Value::to_string).unwrap_or_default();
    assert!(code == "02" && message.contains("opt/app") && message.contains("arm64"), "{code} {notes:#?}");
}

#[test]
fn an_image_for_another_cpu_is_told_when_it_is_converted_and_inspected() {
    let other = if cfg!(target_arch = "x86_64") { ("arm64", ARM64) } else { ("amd64", AMD64) };
    let entries = [file("bin/sh", elf(other.1))];
    let changes = json!({ "architecture": other.0 });
    let (_, notes) = converted(&entries, &changes, &[]);
    let message = note(&notes, "other-architecture").map(Value::to_string).unwrap_or_default();
    assert!(message.contains(other.0), "{notes:#?}");
    let scratch = run::scratch();
    image(scratch.path(), &entries, &changes);
    let page = run::run(program().current_dir(scratch.path()).args(["inspect", "image.tar"]));
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.contains("warning") && page.contains(&format!("the image is for {}", other.0)), "{page}");
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let (_, notes) = converted(
        &[file("bin/sh", elf(if own == "amd64" { AMD64 } else { ARM64 }))],
        &json!({ "architecture": own }),
        &[],
    );
    assert!(note(&notes, "other-architecture").is_none(), "{notes:#?}");
}

#[test]
fn extended_attributes_beyond_the_limits_of_linux_are_left_out_and_told() {
    let mut entry = file("labelled", "x");
    for (name, value) in [
        (b"user.kept".to_vec(), vec![1; 65_536]),
        (b"user.long-value".to_vec(), vec![1; 65_537]),
        ([&b"user."[..], &[b'n'; 250]].concat(), b"kept".to_vec()),
        ([&b"user."[..], &[b'm'; 251]].concat(), b"long name".to_vec()),
        (b"user.".to_vec(), b"no name".to_vec()),
    ] {
        entry.xattrs.insert(name, value);
    }
    // `converted` has the SIF verified.
    let (_, notes) = converted(&[entry], &json!({}), &["--xattrs", "all", "--arch", "amd64"]);
    let dropped = note(&notes, "xattrs-dropped").unwrap();
    assert_eq!(dropped["count"], 3, "{dropped}");
    assert!(
        dropped["message"].as_str().unwrap().contains("255") && dropped.to_string().contains("long-value"),
        "{dropped}"
    );
}

#[test]
fn a_workdir_is_noted_once_and_shorter_where_nothing_relative_is_seen() {
    let entries = [file("bin/sh", elf(AMD64)), file("app/main.py", "")];
    for (execution, want) in [
        (json!({ "Cmd": ["npm", "start"], "WorkingDir": "/app" }), Some("workdir-ignored")),
        (json!({ "Cmd": ["python", "-m", "app"], "WorkingDir": "/app" }), Some("workdir-ignored")),
        (json!({ "Cmd": ["/bin/sh"], "WorkingDir": "app" }), Some("workdir-ignored")),
        (json!({ "Cmd": ["python", "main.py"], "WorkingDir": "/app" }), Some("relative-entrypoint")),
        (json!({ "Cmd": ["./main.py"], "WorkingDir": "/app" }), Some("relative-entrypoint")),
        (json!({ "Cmd": ["npm", "start"], "WorkingDir": "/" }), None),
        (json!({ "Cmd": ["npm", "start"], "WorkingDir": "" }), None),
    ] {
        let of = |arguments: &[&str]| -> Vec<String> {
            let (_, notes) = converted(&entries, &json!({ "config": execution }), arguments);
            let codes = notes.iter().map(|note| note["code"].as_str().unwrap().to_string());
            codes.filter(|code| code == "workdir-ignored" || code == "relative-entrypoint").collect()
        };
        assert_eq!(of(&[]), want.into_iter().collect::<Vec<_>>(), "{execution}");
        assert_eq!(of(&["--workdir"]), Vec::<String>::new(), "{execution}");
    }
}

/// The tree of the SIF-ready rootfs.
fn rootfs(entries: &[Entry], execution: &Value) -> (Listing, String) {
    let scratch = run::scratch();
    image(scratch.path(), entries, &json!({ "config": execution }));
    let done = run::convert_to_stdout(&scratch.path().join("image.tar"), "sif-rootfs", &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    (from_tar(&done.stdout).unwrap(), done.stderr)
}

#[test]
fn directories_of_volume_and_workdir_are_made_as_docker_makes_them() {
    let entries = [
        Entry { mode: 0o700, ..Entry::new("kept", Kind::Dir) },
        Entry::new("link", Kind::Symlink(b"/behind".to_vec())),
        file("file", "x"),
    ];
    let volumes = json!({ "/data/in": {}, "/kept": {}, "/link/below": {}, "/file": {}, "/": {}, "relative": {} });
    let (found, said) = rootfs(&entries, &json!({ "Volumes": volumes, "WorkingDir": "/work/dir", "Cmd": ["/bin/sh"] }));
    for path in ["data", "data/in", "behind/below", "relative", "work", "work/dir"] {
        let node = found.node(&parts(path.as_bytes())).unwrap_or_else(|| panic!("{path} is not there"));
        assert_eq!((&node.what, node.mode, node.uid, node.gid), (&What::Dir, 0o755, 0, 0), "{path}");
    }
    assert_eq!(found.node(&parts(b"kept")).map(|node| node.mode), Some(0o700));
    assert!(matches!(found.node(&parts(b"file")).unwrap().what, What::File(..)));
    assert!(said.contains("could not be made") && said.contains("/file"), "{said}");
}

#[test]
fn owners_that_are_kept_are_told_once_with_a_count() {
    let owned = |path: &str, uid, gid| Entry { uid, gid, ..file(path, "x") };
    let entries = [owned("a", 1000, 1000), owned("b", 0, 42), owned("c", 0, 0), file("bin/sh", elf(AMD64))];
    let (_, notes) = converted(&entries, &json!({}), &[]);
    let said = note(&notes, "owners-kept").unwrap();
    assert_eq!(said["count"], 2, "{said}");
    assert!(
        said["message"].as_str().unwrap().contains("--all-root") && said.to_string().contains("1000:1000"),
        "{said}"
    );
    let (_, notes) = converted(&entries, &json!({}), &["--all-root"]);
    assert!(note(&notes, "owners-kept").is_none(), "{notes:#?}");
}

fn scif() -> Vec<Entry> {
    let link = |path: &str, target: &str| Entry::new(path, Kind::Symlink(target.as_bytes().to_vec()));
    vec![
        file("bin/sh", fs::read("/bin/true").unwrap()),
        file(".singularity.d/runscript.help", "how to run it\n\n"),
        file(".singularity.d/test", "#!/bin/sh\nexec true\n"),
        file(".singularity.d/env/91-environment.sh", "export LATE=1\n"),
        file("scif/apps/one/scif/runscript", "#!/bin/sh\n\necho <one>\n"),
        file("scif/apps/one/scif/startscript", "#!/bin/sh\n\necho started\n"),
        file("scif/apps/one/scif/test", "#!/bin/sh\n\ntest one\n"),
        file("scif/apps/one/scif/runscript.help", "help of one\n"),
        file("scif/apps/one/scif/labels.json", "{\n\t\"SCIF_APP_NAME\": \"one\"\n}"),
        file("scif/apps/one/scif/env/01-base.sh", "SCIF_APPNAME=one\n"),
        file("scif/apps/one/scif/env/90-environment.sh", "export ONE=1\n"),
        file("scif/apps/two/bin/x", ""),
        link("scif/apps/two/scif", "/scif/apps/one/scif"),
        file("scif/apps/bare/scif/env/01-base.sh", ""),
        file("scif/apps/no-app/bin/x", ""),
        file("scif/apps/odd/scif/labels.json", "[]"),
        file("scif/apps/.hidden/scif/test", "x"),
    ]
}

/// The document `inspect-metadata.json` of a SIF.
fn metadata(sif: &Path) -> Value {
    let container = squashfs::open(sif).unwrap();
    let object = container.named(sif_convert::sif::DataType::GenericJson, b"inspect-metadata.json").unwrap();
    let region = container.data(object).unwrap();
    let mut bytes = vec![0; usize::try_from(region.len).unwrap()];
    region.read_at(&mut bytes, 0).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn scif_apps_help_and_test_are_in_the_inspect_metadata() {
    let scratch = run::scratch();
    let large = file("scif/apps/large/scif/runscript.help", vec![b'x'; (1 << 20) + 1]);
    image(scratch.path(), &[scif(), vec![large]].concat(), &json!({}));
    let done = convert(scratch.path(), &["--arch", "amd64"]);
    assert!(done.code == 0 && done.stderr.contains("scif/apps/large"), "{}", done.stderr);
    let found = metadata(&scratch.path().join("image.sif"));
    let attributes = &found["data"]["attributes"];
    assert_eq!(attributes["helpfile"], "how to run it");
    assert_eq!(attributes["test"], "#!/bin/sh\nexec true");
    assert_eq!(attributes["environment"]["/.singularity.d/env/91-environment.sh"], "export LATE=1");
    let one = |path: &str| {
        json!({
            "environment": { format!("/scif/apps/{path}/scif/env/90-environment.sh"): "export ONE=1" },
            "labels": { "SCIF_APP_NAME": "one" },
            "runscript": "#!/bin/sh\n\necho <one>",
            "startscript": "#!/bin/sh\n\necho started",
            "test": "#!/bin/sh\n\ntest one",
            "helpfile": "help of one",
        })
    };
    let want = json!({ "bare": {}, "large": {}, "odd": {}, "one": one("one"), "two": one("two") });
    assert_eq!(attributes["apps"], want);
}

/// What an ordinary user's shell in the oracles' tree prints; what went wrong is in it too.
fn in_shell(oracles: &Oracles, place: &Path, script: &str) -> (i32, String) {
    let done = run::run(oracles.user(place).args(["sh", "-c", script]));
    let said = String::from_utf8(done.stdout).unwrap();
    (done.code, if done.code == 0 { said } else { said + &done.stderr })
}

/// `image.sif` by us and `theirs.sif` by Apptainer, of an image of these entries.
fn ours_and_theirs(oracles: &Oracles, place: &Path, entries: &[Entry]) {
    image(place, entries, &json!({ "config": { "Cmd": ["/bin/sh"] } }));
    let done = convert(place, &[]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(place.join("image.tar"), fs::Permissions::from_mode(0o644)).unwrap();
    let built = in_shell(oracles, place, "apptainer --silent build theirs.sif docker-archive:image.tar");
    assert_eq!(built.0, 0, "{}", built.1);
}

#[test]
fn oracle_apptainer_shows_the_same_of_our_sif_and_of_its_own() {
    let Some(oracles) = run::oracles() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path();
    // Apptainer's own build looks at a symlink from the host, where it leads elsewhere.
    let entries: Vec<Entry> = scif().into_iter().filter(|entry| !entry.path.starts_with(b"scif/apps/two")).collect();
    ours_and_theirs(&oracles, place, &entries);
    let shell = |script: &str| in_shell(&oracles, place, script).1;
    for question in [
        "--list-apps",
        "--helpfile",
        "--test",
        "--app one --runscript",
        "--app one --startscript",
        "--app one --helpfile",
        "--app one --test",
        "--app one --labels",
        "--app one --environment",
        "--app bare --labels",
        "--app odd --labels",
    ] {
        let [ours, theirs] =
            ["image.sif", "theirs.sif"].map(|sif| shell(&format!("apptainer inspect {question} {sif}")));
        assert_eq!(ours, theirs, "{question}");
    }
    assert_eq!(shell("apptainer inspect --list-apps image.sif"), "bare\nodd\none\n");
    assert!(shell("apptainer inspect --helpfile image.sif").contains("how to run it"));
}

/// The same for what runs: help, test and apps, with a shell that is one.
#[test]
fn oracle_apptainer_runs_help_test_and_apps() {
    let Some(oracles) = run::oracles() else { return };
    let Ok(busybox) = fs::read("/bin/busybox") else { return run::skip("there is no /bin/busybox") };
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path();
    let link = |path: &str| Entry::new(path, Kind::Symlink(b"busybox".to_vec()));
    let mut entries: Vec<Entry> = ["cat", "echo", "env", "grep", "sort", "test", "true"]
        .iter()
        .map(|name| link(&format!("bin/{name}")))
        .chain([link("bin/sh"), file("bin/busybox", busybox)])
        .collect();
    let app = "scif/apps/one/scif";
    entries.extend([
        file(".singularity.d/runscript.help", "how to run it\n"),
        file(".singularity.d/test", "#!/bin/sh\necho \"tested $1\"\nexit 0\n"),
        file(&format!("{app}/runscript"), "#!/bin/sh\necho \"app $SCIF_APPNAME got $*\"\n"),
        file(&format!("{app}/runscript.help"), "help of one\n"),
        file(&format!("{app}/test"), "#!/bin/sh\necho \"tested one\"\n"),
        file(&format!("{app}/env/01-base.sh"), "export SCIF_APPNAME=one\n"),
        file(&format!("{app}/env/90-environment.sh"), "export ONE=1\n"),
    ]);
    ours_and_theirs(&oracles, place, &entries);
    for (command, want) in [
        ("run-help SIF", "how to run it\n"),
        ("run-help --app one SIF", "help of one\n"),
        ("test SIF x", "tested x\n"),
        ("test --app one SIF", "tested one\n"),
        ("run --app one SIF a b", "app one got a b\n"),
        ("exec --app one SIF sh -c 'echo $ONE'", "1\n"),
    ] {
        for sif in ["image.sif", "theirs.sif"] {
            let done = in_shell(&oracles, place, &format!("apptainer --silent {}", command.replace("SIF", sif)));
            assert_eq!(done, (0, want.to_string()), "{command} with {sif}");
        }
    }
}
