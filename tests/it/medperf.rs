//! What the MedPerf client needs of a converter: called through a terminal that nobody looks at, killed and called again,
//! called by many at once, told where volumes will be bound.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer::tar_of;
use crate::support::pack::{Squeeze, config, docker_archive, docker_archive_of, sha256};
use crate::support::random::Numbers;
use crate::support::run::{Run, program, run, scratch, skip};
use serde_json::{Value, json};

/// One file that is far larger than the rest, as weights are.
fn image(bytes: usize) -> Vec<u8> {
    let entries = [
        Entry::new("app", Kind::Dir),
        Entry::new("app/weights", Kind::File(Content::data(Numbers::new(1).thin_noise(bytes)))),
        Entry::new("mlcommons", Kind::Dir),
        Entry::new("mlcommons/file", Kind::File(Content::data("x"))),
        Entry::new("mlcommons/link", Kind::Symlink(b"/elsewhere/deep".to_vec())),
    ];
    docker_archive(&[tar_of(&entries)], Squeeze::Gzip)
}

/// An image whose layer is another one than its config says.
fn exchanged() -> Vec<u8> {
    let [one, other] = ["one", "two"].map(|name| tar_of(&[Entry::new(name, Kind::Dir)]));
    docker_archive_of(&config(&[one]), &[other], Squeeze::Not)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(scratch())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    fn convert(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.0.path()).unwrap().map(|each| each.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn succeeded(run: Run) -> Run {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

const CONFIG: &str = "\
tasks:
  infer:
    input_volumes:
      data_path: { mount_path: /mlcommons/volumes/data, type: directory }
      parameters: { mount_path: /mlcommons/volumes/parameters.yaml, type: file }
    output_volumes:
      output: { mount_path: /mlcommons/link/out, type: directory }
      there: { mount_path: /mlcommons/file, type: file }
";

#[test]
fn the_client_is_served_through_its_terminal() {
    let python = std::env::var("MEDPERF_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let version = Command::new(&python).args(["-c", "import pexpect; print(pexpect.__version__)"]).output();
    match version {
        Ok(output) if output.status.success() && output.stdout.starts_with(b"4.8") => {}
        _ => return skip("python3 has no pexpect 4.8: pip install pexpect==4.8.0"),
    }
    let place = Place::new();
    let archive = image(12 << 20);
    let name = sha256(&archive);
    place.put(&name, &archive);
    place.put("short", &archive[..archive.len() / 2]);
    let mut damaged = archive.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    // Not named by its hash, which is not what the client expects then.
    place.put("damaged", damaged);
    place.put("exchanged", exchanged());
    place.put("names.json", json!({ "archive": name, "damaged": "damaged" }).to_string());
    place.put("text", "this is not an archive, however long one looks at it\n".repeat(20));
    place.put("container_config.yaml", CONFIG);
    place.put("bad.yaml", "tasks:\n  t:\n    input_volumes:\n      v: { mount_path: /a, type: dir }\n");
    place.put(
        "conflict.yaml",
        "tasks:\n  t:\n    input_volumes:\n      v:\n        mount_path: /mlcommons/file\n        type: directory\n",
    );
    place.put("other.tar", docker_archive(&[tar_of(&[Entry::new("other", Kind::Dir)])], Squeeze::Not));
    succeeded(place.convert(&["other.tar", "--to", "sif"]));
    for folder in ["folder", "pipes"] {
        fs::create_dir(place.path(folder)).unwrap();
        place.put(&format!("{folder}/weights"), Numbers::new(1).thin_noise(100_000));
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path("pipes/pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/medperf_client.py");
    let mut command = Command::new(python);
    let done = run(command.arg(script).arg(env!("CARGO_BIN_EXE_convert")).arg(place.0.path()).stdin(Stdio::null()));
    assert_eq!(done.code, 0, "{}{}", String::from_utf8(done.stdout).unwrap(), done.stderr);
}

fn kill(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Today's client keeps what a killed `singularity build` left for ever.
#[test]
fn killed_and_called_again_always_ends_with_a_valid_sif() {
    let place = Place::new();
    place.put("image", image(3 << 20));
    let arguments = ["build", "--report", "r.json", "out.sif", "docker-archive:image"];
    let begun = Instant::now();
    succeeded(place.convert(&arguments));
    let took = begun.elapsed();
    let expected = fs::read(place.path("out.sif")).unwrap();
    let mut numbers = Numbers::new(std::process::id().into());
    for _ in 0..10 {
        fs::remove_file(place.path("out.sif")).unwrap();
        let moment = took * numbers.below(1 << 16) as u32 / 0xffff;
        let mut child = place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(moment);
        kill(&mut child);
        succeeded(place.convert(&arguments));
        assert!(fs::read(place.path("out.sif")).unwrap() == expected, "after a kill at {moment:?}");
        let hidden: Vec<String> = place.names().into_iter().filter(|name| name.ends_with(".unfinished")).collect();
        assert!(hidden.is_empty(), "{hidden:?}");
    }
}

/// The time that a SIF was made with decides its bytes, as every option does.
#[test]
fn a_sif_with_another_time_is_not_used_again() {
    let place = Place::new();
    place.put("image", image(1 << 10));
    let build = |how: &str, epoch: Option<&str>| {
        let mut command = place.command(&["build", "--if-exists", how, "out.sif", "image"]);
        epoch.map(|epoch| command.env("SOURCE_DATE_EPOCH", epoch));
        let done = crate::support::run::run(&mut command);
        (done.code, done.stderr, fs::read(place.path("out.sif")).unwrap())
    };
    let (_, _, first) = build("reuse", Some("1500000000"));
    for epoch in [Some("1700000000"), None] {
        let (code, stderr, bytes) = build("reuse", epoch);
        assert!(code != 0 && stderr.contains("another SOURCE_DATE_EPOCH"), "{epoch:?}: {stderr}");
        assert!(bytes == first, "{epoch:?}");
        let (code, stderr, bytes) = build("update", epoch);
        assert!(code == 0 && bytes != first, "{epoch:?}: {stderr}");
        // What is the same is used.
        assert_eq!(build("reuse", epoch).0, 0, "{epoch:?}");
        assert_eq!(build("update", Some("1500000000")).2, first, "{epoch:?}");
    }
}

#[test]
fn many_at_once_make_one_file() {
    let place = Place::new();
    place.put("image", image(1 << 20));
    succeeded(place.convert(&["image", "--to", "sif", "-o", "alone.sif"]));
    let expected = fs::read(place.path("alone.sif")).unwrap();
    for how in [&["--if-exists=reuse"][..], &["--if-exists=update"], &["--force"], &[]] {
        let start = |number: usize| {
            let report = format!("r{number}.json");
            let mut command = place.command(&["build", "-q", "-j1", "--report", &report]);
            command.args(how).args(["out.sif", "image"]).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<Child> = (0..20).map(start).collect();
        // Whoever looks meanwhile sees nothing, or all of it.
        for _ in 0..50 {
            if let Ok(bytes) = fs::read(place.path("out.sif")) {
                assert!(bytes == expected, "{how:?}: half a file");
            }
            sleep(Duration::from_millis(5));
        }
        for (number, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{how:?}: {}", String::from_utf8(output.stderr).unwrap());
            let report: Value =
                serde_json::from_slice(&fs::read(place.path(&format!("r{number}.json"))).unwrap()).unwrap();
            assert_eq!(report["output"]["sha256"], sha256(&expected), "{how:?}");
            fs::remove_file(place.path(&format!("r{number}.json"))).unwrap();
        }
        assert!(fs::read(place.path("out.sif")).unwrap() == expected, "{how:?}");
        succeeded(place.convert(&["verify", "out.sif"]));
        fs::remove_file(place.path("out.sif")).unwrap();
    }
    assert_eq!(place.names(), ["alone.sif", "image"]);
}

#[test]
fn what_volumes_are_bound_to_is_made() {
    let place = Place::new();
    place.put("image", image(1000));
    place.put("container_config.yaml", CONFIG);
    let config = ["--medperf-config", "container_config.yaml"];
    let done = succeeded(place.convert(&[&["image", "--to", "sif-rootfs", "-o", "x.tar"][..], &config].concat()));
    let tar = fs::read(place.path("x.tar")).unwrap();
    let listing = crate::support::listing::from_tar(&tar).unwrap();
    let what = |path: &str| {
        let node = listing
            .node(&crate::support::listing::parts(path.as_bytes()))
            .unwrap_or_else(|| panic!("there is no {path}"));
        (node.what.clone(), node.mode)
    };
    use crate::support::listing::{What, file};
    assert_eq!(what("mlcommons/volumes/data"), (What::Dir, 0o755));
    assert_eq!(what("mlcommons/volumes/parameters.yaml"), (file(b""), 0o644));
    assert_eq!(what("elsewhere/deep/out"), (What::Dir, 0o755), "behind the image's own link");
    assert_eq!(what("mlcommons/file"), (file(b"x"), 0o644), "what is there stays");
    for note in [
        "lie behind symlinks of the image, and were looked for where these lead: \"/mlcommons/link/out\" (\"/elsewhere/deep/out\")",
        "that the image has already were left as they are: \"/mlcommons/file\"",
    ] {
        assert!(done.stderr.contains(note), "{}", done.stderr);
    }
    // Another configuration is another file: what was made without is not good enough.
    succeeded(place.convert(&["build", "out.sif", "image"]));
    let other = place.convert(&[&["build"][..], &config, &["out.sif", "image"]].concat());
    assert!(other.code == 8 && other.stderr.contains("with other options"), "{}", other.stderr);
    let updated =
        succeeded(place.convert(&[&["build", "--if-exists", "update"][..], &config, &["out.sif", "image"]].concat()));
    assert!(updated.stderr.contains("is replaced"), "{}", updated.stderr);
    let same = succeeded(place.convert(&[&["build"][..], &config, &["out.sif", "image"]].concat()));
    assert!(same.stderr.contains("reused "), "{}", same.stderr);
    let missing = place.convert(&["build", "--medperf-config", "nowhere.yaml", "new.sif", "image"]);
    assert!(missing.code == 3 && missing.stderr.contains("nowhere.yaml"), "{}", missing.stderr);
}

/// What killed singularity left is not kept, and not taken for a SIF.
#[test]
fn a_broken_output_is_replaced_on_request() {
    let place = Place::new();
    place.put("image", image(1000));
    succeeded(place.convert(&["build", "out.sif", "image"]));
    let whole = fs::read(place.path("out.sif")).unwrap();
    for broken in [&whole[..whole.len() / 2], b"", b"no SIF at all"] {
        place.put("out.sif", broken);
        let kept = place.convert(&["build", "out.sif", "image"]);
        assert!(kept.code == 5 && kept.stderr.contains("--force"), "{} {}", kept.code, kept.stderr);
        assert_eq!(fs::read(place.path("out.sif")).unwrap(), broken);
        succeeded(place.convert(&["build", "--if-exists", "update", "out.sif", "image"]));
        assert!(fs::read(place.path("out.sif")).unwrap() == whole);
    }
}

#[test]
fn inspect_tells_hashes_and_what_workdir_is_needed_for() {
    let place = Place::new();
    let layers = [tar_of(&[Entry::new("app", Kind::Dir), Entry::new("app/main.py", Kind::File(Content::data("x")))])];
    let mut with_workdir = config(&layers);
    with_workdir["config"]["WorkingDir"] = "/app".into();
    with_workdir["config"]["Entrypoint"] = json!(["python3", "main.py"]);
    let archive = docker_archive_of(&with_workdir, &layers, Squeeze::Not);
    place.put("image", &archive);
    let inspect = |source: &str| -> Value {
        serde_json::from_slice(&succeeded(place.convert(&["inspect", "--json", source])).stdout).unwrap()
    };
    let found = inspect("image");
    let hash = sha256(&archive);
    assert_eq!(found["source"]["sha256"], hash);
    let image = &found["images"][0];
    assert_eq!(image["image_hash"], json!({ "DockerImage": null, "DockerArchive": hash, "SingularityFile": null }));
    let warnings = image["warnings"].to_string();
    assert!(warnings.contains("--workdir") && warnings.contains("main.py"), "{warnings}");
    let done = succeeded(place.convert(&["build", "out.sif", "image"]));
    assert!(done.stderr.contains("warning: ENTRYPOINT or CMD names files relative to WORKDIR"), "{}", done.stderr);
    let with = succeeded(place.convert(&["build", "--workdir", "with.sif", "image"]));
    assert!(!with.stderr.contains("relative to WORKDIR"), "{}", with.stderr);
    let sif = inspect("out.sif");
    let hash = sha256(&fs::read(place.path("out.sif")).unwrap());
    assert_eq!(sif["images"][0]["image_hash"]["SingularityFile"], hash);
    assert_eq!((&sif["images"][0]["id"], &sif["source"]["kind"]), (&image["id"], &"sif".into()));
    crate::support::pack::oci_layout(&place.path("layout"), &layers);
    let layout = &inspect("oci:layout")["images"][0];
    assert_eq!(layout["image_hash"]["DockerImage"], layout["manifest_digest"]);
    assert!(layout["manifest_digest"].as_str().unwrap().starts_with("sha256:"));
}

/// `gpg --decrypt … | convert - …`: no plaintext has a name, at any time.
#[test]
fn encrypted_archives_go_through_a_pipe() {
    if !crate::support::run::host_has("gpg") {
        return skip("gpg is missing: apt-get install gnupg");
    }
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let archive = image(1 << 20);
    place.put("image", &archive);
    place.put("passphrase", "secret\n");
    for directory in ["home", "tmp", "out"] {
        fs::create_dir(place.path(directory)).unwrap();
    }
    fs::set_permissions(place.path("home"), fs::Permissions::from_mode(0o700)).unwrap();
    succeeded(place.convert(&["image", "--to", "sif", "-o", "expected.sif"]));
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.current_dir(place.0.path()).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("GNUPGHOME", place.path("home")).env("CONVERT", env!("CARGO_BIN_EXE_convert"));
        run(command.args(["-euc", script]))
    };
    let gpg = "gpg --batch --quiet --passphrase-file passphrase --pinentry-mode loopback";
    succeeded(shell(&format!("{gpg} --symmetric -o image.gpg image && rm image")));
    let hash = sha256(&archive);
    let call = "\"$CONVERT\" - --to sif -o out/x.sif --mode 600 --tmpdir tmp --progress plain --report r.json";
    succeeded(shell(&format!("{gpg} --decrypt image.gpg | {call} --expect-sha256 {hash}")));
    assert!(fs::read(place.path("out/x.sif")).unwrap() == fs::read(place.path("expected.sif")).unwrap());
    assert_eq!(fs::metadata(place.path("out/x.sif")).unwrap().permissions().mode() & 0o7777, 0o600);
    for (directory, left) in [("tmp", 0), ("out", 1)] {
        assert_eq!(fs::read_dir(place.path(directory)).unwrap().count(), left, "{directory}");
    }
    // A passphrase that is wrong gives an empty pipe: nothing appears.
    place.put("passphrase", "wrong\n");
    let refused = shell(&format!("{gpg} --decrypt image.gpg | {}", call.replace("x.sif", "y.sif")));
    assert!(refused.code != 0 && !place.path("out/y.sif").exists(), "{}", refused.stderr);
}
