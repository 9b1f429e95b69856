//! `sif-convert batch`, as the person in front of hundreds of images calls it.
//!
//! BATCH_KILLS says how often a batch is killed (4 by default), BATCH_IMAGES how many tiny images the large one has (200).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::attach::{fetch, put};
use crate::support::depot::Depot;
use crate::support::engine::{Behaviour, Export, FakeEngine, NAME};
use crate::support::fake::{Answer, Body, Fake, OCI_MANIFEST, Repository, Request};
use crate::support::layer;
use crate::support::pack::{self, Squeeze, docker_archive, sha256};
use crate::support::random::noise;
use crate::support::run::{Run, count, is_root, program, run, scratch, skip};
use crate::support::small::SmallDisk;

const IMAGES: usize = 30;
const BAD: usize = 7;
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory to run in, with a place for temporaries that must be empty in the end.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Place(scratch());
        fs::create_dir(place.path("tmp")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("TMPDIR", self.path("tmp")).env("HOME", self.0.path());
        command.arg("batch").args(words);
        command
    }

    fn batch(&self, words: &[&str]) -> Run {
        run(&mut self.command(words))
    }

    /// Runs a batch into `out`; how many were done, kept and failed.
    fn counts(&self, words: &[&str]) -> (usize, usize, usize) {
        let done = self.batch(&[&["--to", "sif", "--out", "out"], words].concat());
        assert!(done.code == 0 || done.code == 1, "{}", done.stderr);
        let rows = self.rows();
        let with = |status: &str| rows.iter().filter(|row| row["status"] == status).count();
        assert_eq!(done.code == 1, with("failed") + with("missing") > 0, "{}", done.stderr);
        (with("done"), with("kept"), with("failed"))
    }

    /// What summary.jsonl says.
    fn rows(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("out/summary.jsonl")).unwrap();
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(fs::read_to_string(self.path("out/summary.tsv")).unwrap().lines().count(), 1 + rows.len());
        rows
    }

    /// The outputs that are there: which file each is, and when it was written.
    fn outputs(&self) -> BTreeMap<String, (u64, i64, i64)> {
        let Ok(directory) = fs::read_dir(self.path("out")) else { return BTreeMap::new() };
        let files =
            directory.map(|entry| entry.unwrap()).filter(|entry| entry.path().extension() == Some("sif".as_ref()));
        files
            .map(|entry| {
                let data = entry.metadata().unwrap();
                (entry.file_name().into_string().unwrap(), (data.ino(), data.mtime(), data.mtime_nsec()))
            })
            .collect()
    }

    fn hidden(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in ["out", "out/reports", "tmp"] {
            let Ok(entries) = fs::read_dir(self.path(directory)) else { continue };
            let hidden = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
            names.extend(hidden.filter(|name| name.starts_with('.') || directory == "tmp"));
        }
        names
    }

    fn sums(&self) -> BTreeMap<String, String> {
        let names: Vec<String> = self.outputs().into_keys().collect();
        names.into_iter().map(|name| (name.clone(), sha256(&fs::read(self.path("out").join(name)).unwrap()))).collect()
    }
}

/// Many tags on one base: the layers of each are the base's and one of its own.
fn tags(count: usize, base_bytes: usize) -> Repository {
    let base = layer::of_file("base", &noise(base_bytes, 1));
    let mut repository = Repository::default();
    for number in 1..=count {
        let layers = [base.clone(), layer::of_file(&format!("own-{number}"), &noise(2_000, number as u64 + 2))];
        let image = repository.add_image(&pack::config(&layers), &layers);
        repository.tag(&format!("t{number}"), &image);
    }
    repository
}

/// What a registry without fault answers, HEAD requests and lists of tags too.
fn answer(repository: &Repository, request: &Request) -> Answer {
    if request.is_for("/tags/list") {
        // Pages of two.
        let mut names: Vec<&String> = repository.manifests.keys().filter(|name| !name.contains(':')).collect();
        names.sort();
        let last = request.path.split_once("last=").map(|(_, last)| last.split('&').next().unwrap().to_string());
        names.retain(|name| last.as_ref().is_none_or(|last| *name > last));
        let more = names.len() > 2;
        names.truncate(2);
        let answer = Answer::json(200, json!({ "name": "x", "tags": names }));
        let next = names.last().map(|last| format!("</v2/x/tags/list?n=2&last={last}>; rel=\"next\""));
        return if more { answer.with("Link", &next.unwrap()) } else { answer };
    }
    let answer = repository.answer(request);
    if request.method == "HEAD" { answer.spoilt(|_| Body::Whole(Vec::new())) } else { answer }
}

fn registry(repository: Repository) -> Fake {
    Fake::start(move |request| answer(&repository, request))
}

fn list_of(fake: &Fake, count: usize) -> String {
    (1..=count)
        .fold("# images\n\n".to_string(), |text, number| text + &format!("docker://{}/x:t{number}\n", fake.host()))
}

/// A file of somebody else that appears while a batch is at work stays what it is.
#[test]
fn what_appears_meanwhile_is_not_replaced() {
    for format in ["sif", "rootfs"] {
        let place = Place::new();
        let (held, planted) =
            (tags(1, 20_000), place.path("out").join(if format == "sif" { "x.sif" } else { "x.rootfs.tar" }));
        let target = planted.clone();
        let fake = Fake::start(move |request| {
            if request.is_for("/blobs/") {
                fs::write(&target, "mine").unwrap();
            }
            answer(&held, request)
        });
        let name = planted.file_name().unwrap().to_str().unwrap();
        place.write("list", format!("docker://{}/x:t1 {name}\n", fake.host()));
        for _ in 0..2 {
            let done = place.batch(&["list", "--to", format, "--out", "out"]);
            assert_eq!(done.code, 1, "{format}: {}", done.stderr);
            assert_eq!(fs::read(&planted).unwrap(), b"mine", "{format}");
        }
        let done = place.batch(&["list", "--to", format, "--out", "out", "--force"]);
        assert_eq!(done.code, 0, "{format}: {}", done.stderr);
    }
}

/// Thirty images of which one is damaged, on a registry that takes its time.
fn slow_and_one_bad(delay: Duration) -> (Fake, Repository) {
    let repository = tags(IMAGES, 20_000);
    let held = repository.clone();
    let fake = Fake::start(move |request| {
        if request.is_for(&format!("/manifests/t{BAD}")) {
            return Answer::json(200, json!({ "schemaVersion": 2, "layers": 3 }));
        }
        if request.is_for("/manifests/t") {
            sleep(delay);
        }
        answer(&held, request)
    });
    (fake, repository)
}

#[test]
fn a_batch_is_stopped_and_resumed_and_one_bad_image_stops_no_other() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let place = Place::new();
        let (fake, _) = slow_and_one_bad(Duration::from_millis(50));
        place.write("list", list_of(&fake, IMAGES));
        let words = ["list", "--to", "sif", "--out", "out", "--parallel", "3"];
        let mut child = place.command(&words);
        let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        while place.outputs().len() < 5 {
            assert!(began.elapsed() < PATIENCE, "nothing is converted");
            sleep(Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let stopped = child.wait_with_output().unwrap();
        let said = String::from_utf8(stopped.stderr).unwrap();
        assert_eq!(stopped.status.code(), Some(code), "{said}");
        let before = place.outputs();
        assert!(before.len() < IMAGES - 1, "it was stopped too late to tell");
        assert_eq!(place.hidden(), [""; 0], "{said}");
        assert!(place.rows().iter().any(|row| row["status"] == "missing"));
        // Names that nothing has come of are nobody's.
        for report in fs::read_dir(place.path("out/reports")).unwrap() {
            let record = fs::read(report.unwrap().path()).unwrap();
            let record: Value = serde_json::from_slice(&record).unwrap_or_default();
            assert_ne!(record["status"], "missing", "{record}");
        }

        let resumed = place.batch(&words);
        assert_eq!(resumed.code, 1, "{}", resumed.stderr);
        let after = place.outputs();
        assert_eq!(after.len(), IMAGES - 1);
        assert!(before.iter().all(|(name, file)| after[name] == *file), "an output was made twice");
        let rows = place.rows();
        assert_eq!(rows.iter().filter(|row| row["status"] == "kept").count(), before.len(), "{}", resumed.stderr);
        let bad: Vec<&Value> = rows.iter().filter(|row| row["status"] == "failed").collect();
        assert_eq!((bad.len(), bad[0]["number"].as_u64()), (1, Some(BAD as u64)));
        assert_eq!(bad[0]["error"]["exit_code"], 4, "{}", bad[0]);
        let report = fs::read(place.path(&format!("out/reports/x_t{BAD}.sif.json"))).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&report).unwrap()["status"], "failed");
        let verify = run(program().arg("verify").arg(place.path("out/x_t30.sif")));
        assert_eq!(verify.code, 0, "{}", verify.stderr);
        // Only what failed is tried again, and nothing else is asked for.
        let asked = fake.count("/manifests/t");
        assert_eq!(place.counts(&["list", "--retry-failed"]), (0, IMAGES - 1, 1));
        assert_eq!(fake.count("/manifests/t"), asked + 1);
    }
}

/// What is not written under SIGKILL is written by the next run, and what is there is whole.
#[test]
fn a_batch_that_is_killed_at_any_moment_goes_on() {
    let (fake, _) = slow_and_one_bad(Duration::from_millis(2));
    let reference = Place::new();
    reference.write("list", list_of(&fake, IMAGES));
    let words = ["list", "--to", "sif", "--out", "out"];
    let began = Instant::now();
    assert_eq!(reference.batch(&words).code, 1);
    let whole_run = began.elapsed();
    let expected = reference.sums();
    assert_eq!(expected.len(), IMAGES - 1);
    let kills = count("BATCH_KILLS", 4);
    let mut place = Place::new();
    place.write("list", list_of(&fake, IMAGES));
    let mut earlier = BTreeMap::new();
    for kill in 0..kills {
        let mut child = place.command(&words);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole_run.mul_f64((kill * 7 % kills + 1) as f64 / (kills + 1) as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        let outputs = place.outputs();
        for (name, file) in &earlier {
            assert_eq!(outputs.get(name), Some(file), "kill {kill}: {name} was made twice");
        }
        for (name, sum) in place.sums() {
            assert_eq!(sum, expected[&name], "kill {kill}: {name}");
        }
        // What is kept from now on is what has a record: one output whose name came right before the kill may lack it.
        let has_record = |name: &String| {
            let record = fs::read(place.path(&format!("out/reports/{name}.json"))).unwrap_or_default();
            serde_json::from_slice::<Value>(&record).is_ok_and(|record| record["status"] == "done")
        };
        earlier = outputs.into_iter().filter(|(name, _)| has_record(name)).collect();
        if earlier.len() + 1 >= IMAGES - 1 {
            place = Place::new();
            place.write("list", list_of(&fake, IMAGES));
            earlier.clear();
        }
    }
    assert_eq!(place.batch(&words).code, 1);
    assert_eq!(place.sums(), expected);
    assert_eq!(place.hidden(), [""; 0], "the next run removes what a killed one left");
}

#[test]
fn two_batches_share_one_directory() {
    let place = Place::new();
    let (fake, _) = slow_and_one_bad(Duration::from_millis(20));
    place.write("list", list_of(&fake, IMAGES));
    let words = ["list", "--to", "sif", "--out", "out"];
    let children: Vec<_> = (0..2)
        .map(|_| {
            let mut command = place.command(&[&words[..], &["--progress", "json"]].concat());
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let mut done = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let ended = said.lines().find(|line| line.contains(r#""event":"done""#)).expect(&said).to_string();
        let ended: Value = serde_json::from_str(&ended).unwrap();
        assert_eq!(ended["done"].as_u64().unwrap() + ended["kept"].as_u64().unwrap(), IMAGES as u64 - 1, "{said}");
        done += ended["done"].as_u64().unwrap();
    }
    assert_eq!(done, IMAGES as u64 - 1, "each image is converted once, by one of the two");
    assert_eq!(place.outputs().len(), IMAGES - 1);
    assert_eq!(place.hidden(), [""; 0]);
}

#[test]
fn a_file_that_no_batch_wrote_is_not_replaced() {
    let place = Place::new();
    place.write("x.tar", docker_archive(&[layer::of_file("f", b"x")], Squeeze::Not));
    place.write("out/x.sif", "precious");
    for _ in 0..2 {
        assert_eq!(place.counts(&["x.tar"]), (0, 0, 1));
        assert_eq!(fs::read(place.path("out/x.sif")).unwrap(), b"precious");
    }
    let said = place.batch(&["x.tar", "--to", "sif", "--out", "out"]).stderr;
    assert!(
        said.contains("failed") && said.contains("\nhint: the file is damaged: convert it again, with --force"),
        "{said}"
    );
    assert_eq!(place.counts(&["x.tar", "--force"]), (1, 0, 0));
    // Neither is what is no file; it is not waited for.
    assert!(run(Command::new("mkfifo").arg(place.path("out/y.sif"))).code == 0);
    fs::copy(place.path("x.tar"), place.path("y.tar")).unwrap();
    assert_eq!(place.counts(&["y.tar"]), (0, 0, 1));
    // What is there is used, whoever wrote it, if it is what would be written.
    fs::remove_dir_all(place.path("out/reports")).unwrap();
    assert_eq!(place.counts(&["x.tar"]), (0, 1, 0));
}

#[test]
fn what_was_added_to_an_output_outlives_a_run_that_fails() {
    let place = Place::new();
    place.write("x.tar", docker_archive(&[layer::of_file("f", b"x")], Squeeze::Not));
    assert_eq!(place.counts(&["x.tar"]), (1, 0, 0));
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/p256.pem");
    assert_eq!(run(program().arg("sign").arg(place.path("out/x.sif")).args(["--key", key])).code, 0);
    let signed = place.sums();
    assert_eq!(place.counts(&["x.tar", "--label", "a=b"]), (0, 0, 1));
    assert_eq!(place.counts(&["x.tar"]), (0, 1, 0));
    assert_eq!(place.sums(), signed);
}

#[test]
fn another_image_of_the_same_layout_is_another_image() {
    let place = Place::new();
    for (name, tag) in [("a", "one:1"), ("b", "two:1")] {
        let archive = docker_archive(&[layer::of_file(name, name.as_bytes())], Squeeze::Not);
        place.write(&format!("{name}.tar"), archive);
        let words = [&format!("{name}.tar"), "--to", "oci", "-o", "layout", "--tag", tag];
        assert_eq!(run(program().current_dir(place.path("")).args(words)).code, 0);
        place.write(name, format!("oci:layout:{tag} x\n"));
    }
    assert_eq!(place.counts(&["--list", "a"]), (1, 0, 0));
    let first = place.sums();
    // What fails, or is killed, leaves what there was of the other image, and does not take it for its own.
    assert_eq!(place.counts(&["--list", "b", "--max-memory", "1"]), (0, 0, 1));
    assert_eq!(place.counts(&["--list", "b"]), (1, 0, 0));
    assert_ne!(place.sums(), first);
}

#[test]
fn outputs_are_called_as_single_conversions_call_them() {
    let place = Place::new();
    place.write("x.tar", docker_archive(&[layer::of_file("f", b"x")], Squeeze::Not));
    for options in [
        &["--to", "squashfs", "--for", "enroot"][..],
        &["--to", "squashfs", "--for", "charliecloud"],
        &["--to", "squashfs"],
        &["--to", "rootfs", "--compression", "zstd"],
        &["--to", "docker-archive"],
    ] {
        fs::create_dir(place.path("single")).unwrap();
        let single = run(program().current_dir(place.path("single")).arg("../x.tar").args(options));
        assert_eq!(single.code, 0, "{}", single.stderr);
        let entries = fs::read_dir(place.path("single")).unwrap();
        let names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let listed = place.batch(&[&["x.tar", "--out", "out", "--dry-run"], options].concat());
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), format!("x.tar\t{}\n", names[0]), "{}", listed.stderr);
        fs::remove_dir_all(place.path("single")).unwrap();
    }
}

/// Names of one archive, a tag that moved, an engine's image with another tag: what the source names now decides.
#[test]
fn what_changed_is_made_again() {
    let place = Place::new();
    let image = |name: &str| docker_archive(&[layer::of_file(name, b"content")], Squeeze::Not);
    let app = "docker-archive:app.tar:example/case:latest";
    place.write("app.tar", image("a"));
    place.write("b.tar", image("b"));
    assert_eq!(place.counts(&[app, "b.tar"]), (2, 0, 0));
    assert_eq!(place.counts(&[app, "b.tar"]), (0, 2, 0));
    let sums = place.sums();
    place.write("app.tar", image("c"));
    assert_eq!(place.counts(&[app, "b.tar"]), (1, 1, 0), "an archive that was written anew");
    assert_ne!(place.sums()["app.sif"], sums["app.sif"]);
    assert_eq!(place.counts(&[app, "b.tar", "--label", "a=b"]), (2, 0, 0), "other options");
    assert_eq!(place.counts(&[app, "b.tar", "--label", "a=b", "--jobs", "1", "--parallel", "1"]), (0, 2, 0));
    assert_eq!(place.counts(&[app, "b.tar"]), (2, 0, 0));
    // A byte in the middle of an output.
    let mut bytes = fs::read(place.path("out/b.sif")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.write("out/b.sif", &bytes);
    assert_eq!(place.counts(&[app, "b.tar"]), (1, 1, 0), "a damaged output");
    // Nothing but its time.
    let file = fs::File::options().write(true).open(place.path("out/b.sif")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let touched = place.outputs();
    assert_eq!(place.counts(&[app, "b.tar"]), (0, 2, 0), "an output that was touched and is whole");
    assert_eq!(place.outputs(), touched);
    assert_eq!(place.counts(&[app, "b.tar", "--verify"]), (0, 2, 0));
    fs::remove_file(place.path("out/b.sif")).unwrap();
    assert_eq!(place.counts(&[app, "b.tar"]), (1, 1, 0), "an output that is gone");
    assert_eq!(place.counts(&[app, "b.tar", "--force"]), (2, 0, 0));
    // A layout is what its index says.
    for (name, done) in [("a", 1), ("a", 0), ("d", 1)] {
        if done == 1 {
            let _ = fs::remove_dir_all(place.path("layout"));
            pack::oci_layout(&place.path("layout"), &[layer::of_file(name, b"x")]);
        }
        assert_eq!(place.counts(&["oci:layout"]), (done, 1 - done, 0), "{name}");
    }
    // Formats that carry no checksums of their own are kept by their SHA-256.
    let tars = |words: &[&str]| {
        let run = place.batch(&[&["b.tar", "--to", "rootfs", "--out", "out"], words].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        place.rows()[0]["status"].as_str().unwrap().to_string()
    };
    assert_eq!([tars(&[]), tars(&[]), tars(&["--verify"])], ["done", "kept", "kept"]);
    let mut bytes = fs::read(place.path("out/b.rootfs.tar")).unwrap();
    bytes[600] ^= 1;
    place.write("out/b.rootfs.tar", bytes);
    assert_eq!([tars(&[]), tars(&[])], ["done", "kept"]);
}

#[test]
fn a_tag_that_moved_and_a_retagged_engine_image_are_made_again() {
    let place = Place::new();
    let repository = Arc::new(Mutex::new(tags(2, 2_000)));
    let held = Arc::clone(&repository);
    let fake = Fake::start(move |request| answer(&held.lock().unwrap(), request));
    let source = format!("docker://{}/x:latest", fake.host());
    let retag = |tag: &str| {
        let mut repository = repository.lock().unwrap();
        let image = repository.manifests[tag].clone();
        repository.manifests.insert("latest".into(), image);
    };
    for (tag, counts) in [("t1", (1, 0, 0)), ("t1", (0, 1, 0)), ("t2", (1, 0, 0)), ("t2", (0, 1, 0)), ("t1", (1, 0, 0))]
    {
        retag(tag);
        assert_eq!(place.counts(&[&source]), counts, "{tag}");
    }
    let engine = |archive: &[u8]| {
        let behaviour = Behaviour { id: Some(image_id(archive)), ..Behaviour::new(archive, Export::Whole) };
        FakeEngine::start(place.0.path(), behaviour)
    };
    let source = format!("docker-daemon:{NAME}");
    for (name, made) in [("a", true), ("a", false), ("b", true)] {
        let engine = engine(&docker_archive(&[layer::of_file(name, b"x")], Squeeze::Not));
        let run = run(place.command(&[&source, "--to", "sif", "--out", "out"]).env("DOCKER_HOST", engine.host()));
        assert_eq!(run.code, 0, "{}", run.stderr);
        let exported = engine.requests().iter().any(|request| request.starts_with("/images/get"));
        assert_eq!((place.rows()[0]["status"] == "done", exported), (made, made), "{name}: {}", run.stderr);
    }
}

/// The image ID of a docker-archive: its config is named after it.
fn image_id(archive: &[u8]) -> String {
    let key = b"\"Config\":\"";
    let at = archive.windows(key.len()).position(|bytes| bytes == key).unwrap() + key.len();
    format!("sha256:{}", std::str::from_utf8(&archive[at..at + 64]).unwrap())
}

/// The second run asks for each image once and for no blob, and the base comes once however many images stand on it.
#[test]
fn each_layer_comes_once_and_the_second_run_asks_for_none() {
    let place = Place::new();
    let images = 12;
    let repository = tags(images, 300_000);
    let base = repository.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
    let fake = registry(repository);
    place.write("list", list_of(&fake, images));
    assert_eq!(place.counts(&["list"]), (images, 0, 0));
    assert_eq!(fake.count(&base), 1, "the base was fetched more than once");
    let requests = fake.log();
    let blobs = requests.iter().filter(|request| request.is_for("/blobs/")).count();
    // Its layer and its config each, and the base.
    assert_eq!(blobs, 2 * images + 1);
    assert_eq!(requests.iter().filter(|request| request.is_for("/manifests/")).count(), images);
    let rows = place.rows();
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    assert!(sum("cached_bytes") >= (images as u64 - 1) * 290_000, "{}", sum("cached_bytes"));
    assert!(sum("downloaded_bytes") < 2 * 310_000, "{}", sum("downloaded_bytes"));
    assert_eq!(place.hidden(), [""; 0]);

    assert_eq!(place.counts(&["list"]), (0, images, 0));
    let requests = &fake.log()[requests.len()..];
    assert!(requests.iter().all(|request| request.method == "HEAD" && request.is_for("/manifests/t")), "{requests:?}");
    assert_eq!(requests.len(), images);
    // With a cache that stays, other outputs of the same images need no blob either.
    let fetched = fake.count("/blobs/");
    assert_eq!(place.counts(&["list", "--cache", "cache", "--force"]), (images, 0, 0));
    assert!(fake.count("/blobs/") > fetched);
    let fetched = fake.count("/blobs/");
    assert_eq!(place.counts(&["list", "--cache", "cache", "--label", "a=b"]), (images, 0, 0));
    assert_eq!(fake.count("/blobs/"), fetched);
}

/// What each image is now is asked by GET where HEAD tells nothing, and a password that is wrong is not shown again.
#[test]
fn a_registry_that_refuses_to_be_asked_briefly_is_asked_for_the_manifest() {
    for (status, login) in
        [(400, ""), (401, ""), (401, "Basic realm=\"x\""), (403, ""), (404, ""), (405, ""), (501, "")]
    {
        let place = Place::new();
        let repository = tags(2, 1000);
        let fake = Fake::start(move |request| match request.method.as_str() {
            "HEAD" if login.is_empty() => Answer::new(status, "text/plain", ""),
            "HEAD" => Answer::new(status, "text/plain", "").with("WWW-Authenticate", login),
            _ => answer(&repository, request),
        });
        place.write("list", list_of(&fake, 2));
        assert_eq!(place.counts(&["list"]), (2, 0, 0), "{status}");
        let before = fake.log().len();
        assert_eq!(place.counts(&["list"]), (0, 2, 0), "{status}");
        let requests = fake.log().split_off(before);
        let asked: Vec<&str> = requests.iter().map(|request| request.method.as_str()).collect();
        let gets = asked.iter().filter(|method| **method == "GET").count();
        assert!(gets == 2 && requests.iter().all(|request| request.is_for("/manifests/t")), "{status}: {asked:?}");
    }
    let (place, repository, is_strict) = (Place::new(), tags(1, 1000), Arc::new(AtomicBool::new(false)));
    let strict = Arc::clone(&is_strict);
    let fake = Fake::start(move |request| match strict.load(Ordering::Relaxed) {
        true => Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\""),
        false => answer(&repository, request),
    });
    place.write("list", list_of(&fake, 1));
    assert_eq!(place.counts(&["list"]), (1, 0, 0));
    is_strict.store(true, Ordering::Relaxed);
    let before = fake.log().len();
    let mut command = place.command(&["list", "--to", "sif", "--out", "out"]);
    command.env("APPTAINER_DOCKER_USERNAME", "user").env("APPTAINER_DOCKER_PASSWORD", "wrong");
    let done = run(&mut command);
    assert!(done.code == 1, "{}", done.stderr);
    let requests = fake.log().split_off(before);
    let shown: Vec<&str> = requests
        .iter()
        .filter(|request| request.header("authorization").is_some())
        .map(|request| request.method.as_str())
        .collect();
    assert_eq!(shown, ["HEAD"]);
}

/// Many images cost as much memory and as many open files as few, and their CPU time grows with their number.
#[test]
fn memory_and_open_files_do_not_grow_with_the_number_of_images() {
    let images = count("BATCH_IMAGES", 200);
    let fake = registry(tags(images, 10_000));
    let measure = |number: usize| -> (u64, usize, u64, Place) {
        let place = Place::new();
        place.write("list", list_of(&fake, number));
        let mut command = place.command(&["list", "--to", "sif", "--out", "out", "--jobs", "2", "-q"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (files, memory, cpu) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        while child.try_wait().unwrap().is_none() {
            let open = fs::read_dir(process.join("fd")).map_or(0, Iterator::count);
            files.fetch_max(open, Ordering::Relaxed);
            memory.fetch_max(peak_kib(&process).unwrap_or(0), Ordering::Relaxed);
            cpu.fetch_max(cpu_ticks(&process).unwrap_or(0), Ordering::Relaxed);
            sleep(Duration::from_millis(20));
        }
        assert!(child.wait().unwrap().success());
        assert_eq!(place.outputs().len(), number);
        (cpu.into_inner(), files.into_inner(), memory.into_inner(), place)
    };
    let few = measure(images / 4);
    let many = measure(images);
    println!(
        "{} images: {} ticks {} files {} KiB; {images}: {} ticks {} files {} KiB",
        images / 4,
        few.0,
        few.1,
        few.2,
        many.0,
        many.1,
        many.2
    );
    assert!(many.1 <= few.1.max(64) + 32, "{} open files, then {}", few.1, many.1);
    assert!(many.2 <= few.2 + few.2 / 4 + 8192, "{} KiB, then {}", few.2, many.2);
    // A machine that does other things too spends more on each.
    assert!(many.0 < few.0 * 4 * 2 + 100, "{} ticks, then {}", few.0, many.0);
    let before = fake.log().len();
    assert_eq!(many.3.counts(&["list"]), (0, images, 0));
    let requests = fake.log().split_off(before);
    assert!(requests.len() == images && requests.iter().all(|request| request.method == "HEAD"), "{}", requests.len());
}

/// The largest amount of memory that a process has had.
fn peak_kib(process: &Path) -> Option<u64> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// The CPU time of a process, in hundredths of a second.
fn cpu_ticks(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name of the program may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

#[test]
fn lists_of_skopeo_and_tags_of_repositories_are_expanded() {
    let place = Place::new();
    let held = tags(5, 1_000);
    // With a login.
    let fake = Fake::start(move |request| match request.header("authorization") {
        Some("Basic am9objpzZWNyZXQ=") => answer(&held, request),
        _ => Answer::json(401, json!({ "errors": [] })).with("WWW-Authenticate", "Basic realm=\"r\""),
    });
    let host = fake.host();
    let login = "  credentials: { username: john, password: secret }\n  tls-verify: false\n";
    place.write("all.yaml", format!("'{host}':\n  images: {{ x: [] }}\n{login}"));
    assert_eq!(place.counts(&["all.yaml"]), (5, 0, 0));
    assert_eq!(
        place.outputs().into_keys().collect::<Vec<_>>(),
        ["x_t1.sif", "x_t2.sif", "x_t3.sif", "x_t4.sif", "x_t5.sif"]
    );
    let digest = {
        let rows = place.rows();
        rows[1]["digest"].as_str().unwrap().to_string()
    };
    place.write(
        "some.yml",
        format!("'{host}':\n  images: {{ x: [t1, '{digest}'] }}\n  images-by-tag-regex: {{ x: '^t[34]$' }}\n{login}"),
    );
    let done = place.batch(&["some.yml", "--to", "sif", "--out", "some"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let hex = &digest["sha256:".len()..][..12];
    for name in ["x_t1.sif", &format!("x_{hex}.sif"), "x_t3.sif", "x_t4.sif"] {
        assert!(place.path("some").join(name).exists(), "{name}");
    }
    let wrong = place.batch(&["some.yml", "--to", "sif", "--out", "some", "--dry-run"]);
    assert_eq!(wrong.code, 2, "lines hold no logins: {}", wrong.stderr);
    assert!(!done.stderr.contains("secret") && !wrong.stderr.contains("secret"));

    let open = registry(tags(5, 1_000));
    let repository = format!("docker://{}/x", open.host());
    let listed = place.batch(&[&repository, "--tags", "[24]$", "--to", "sif", "--out", "out", "--dry-run"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(text, format!("{repository}:t2\tx_t2.sif\n{repository}:t4\tx_t4.sif\n"), "{}", listed.stderr);
    assert_eq!(open.count("/blobs/"), 0);
    for names in ["nextflow", "cwltool", "cwltool-3.3", "digest"] {
        let words = [&repository, "--tags", "[24]$", "--to", "sif", "--out", names, "--names", names];
        let done = place.batch(&words);
        assert_eq!(done.code, 0, "{}", done.stderr);
        let files = fs::read_dir(place.path(names)).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name.ends_with(".sif") || name.ends_with(".img")).collect();
        files.sort();
        let expected = match names {
            "nextflow" => ["2", "4"].map(|tag| format!("{}-x-t{tag}.img", open.host().replace(':', "-"))),
            "cwltool" => ["2", "4"].map(|tag| format!("{}_x:t{tag}.sif", open.host())),
            "cwltool-3.3" => ["2", "4"].map(|tag| format!("{}_s_x:t{tag}.sif", open.host())),
            _ => {
                let rows = fs::read_to_string(place.path("digest/summary.jsonl")).unwrap();
                let digest =
                    |line: &str| serde_json::from_str::<Value>(line).unwrap()["digest"].as_str().unwrap().to_string();
                let mut names: Vec<String> =
                    rows.lines().map(|line| format!("{}.sif", digest(line).replace(':', "-"))).collect();
                names.sort();
                names.try_into().unwrap()
            }
        };
        assert_eq!(files, expected);
    }
    let none = place.batch(&[&repository, "--tags", "^v", "--to", "sif", "--out", "out"]);
    assert_eq!(none.code, 3, "{}", none.stderr);
}

/// Tags that hold what is attached to images, or SIFs, are not images that fail. What somebody wrote down is.
#[test]
fn tags_of_what_is_attached_are_skipped_and_counted() {
    let place = Place::new();
    let depot = Depot::default();
    let held = depot.clone();
    let fake = Fake::start(move |request| held.answer(request));
    let repository = format!("docker://{}/org/app", fake.host());
    place.write("app.tar", docker_archive(&[layer::of_file("a", b"content")], Squeeze::Not));
    let convert = |words: &[&str]| {
        let done = run(program().current_dir(place.path("")).env("HOME", place.path("")).args(words));
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
    };
    for tag in ["1.0", "1.1"] {
        convert(&["app.tar", "--to", "oci", "-o", &format!("{repository}:{tag}")]);
    }
    convert(&["attach", &format!("{repository}:1.0")]);
    convert(&["app.tar", "--to", "sif", "-o", &format!("oras://{}/org/app:1.2-sif", fake.host())]);
    // As cosign writes it, under its own tag and under another.
    depot.put_blob("org/app", b"{}");
    let blob = |kind: &str| json!({ "mediaType": kind, "size": 2, "digest": format!("sha256:{}", sha256(b"{}")) });
    let signature = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": blob("application/vnd.oci.image.config.v1+json"),
        "layers": [blob("application/vnd.dev.cosign.simplesigning.v1+json")] });
    let of_image = format!("sha256-{}.sig", sha256(b"x"));
    for tag in ["1.3", &of_image] {
        put(&fake.host(), &format!("manifests/{tag}"), OCI_MANIFEST, signature.to_string().as_bytes());
    }
    let page: Value = serde_json::from_slice(&fetch(&fake.host(), "tags/list")).unwrap();
    assert_eq!(page["tags"].as_array().unwrap().len(), 7, "one tag stands in for referrers: {page}");
    for (number, words) in [&["--tags", "^1\\."], &["--tags", "."]].into_iter().enumerate() {
        let done = place.batch(&[&[repository.as_str(), "--to", "sif", "--out", "out"], &words[..]].concat());
        assert_eq!(done.code, 0, "{}", done.stderr);
        let skipped = [3, 5][number];
        assert!(
            done.stderr.contains(&format!(" 0 failed, {skipped} tags that are not images skipped")),
            "{}",
            done.stderr
        );
        assert!(done.stderr.contains("skipped") && done.stderr.contains("but a SIF file"), "{}", done.stderr);
        assert_eq!(place.outputs().into_keys().collect::<Vec<_>>(), ["app_1.0.sif", "app_1.1.sif"]);
        let statuses: Vec<Value> = place.rows().iter().map(|row| row["status"].clone()).collect();
        let good = ["done", "kept"][number];
        assert_eq!(statuses, [good, "skipped", good, "skipped", "skipped"]);
    }
    let none = place.batch(&[&repository, "--tags", "sif$", "--to", "sif", "--out", "none"]);
    assert!(none.code == 0 && none.stderr.contains("0 converted"), "{}", none.stderr);
    let written = place.batch(&[&format!("{repository}:1.0.sif"), "--to", "sif", "--out", "written"]);
    assert!(written.code == 1 && written.stderr.contains("1 failed"), "{}", written.stderr);
}

#[test]
fn what_no_list_names_any_more_is_pruned_and_nothing_else() {
    let place = Place::new();
    let image = |name: &str| docker_archive(&[layer::of_file(name, b"content")], Squeeze::Not);
    for name in ["a", "b", "c"] {
        place.write(&format!("{name}.tar"), image(name));
    }
    assert_eq!(place.counts(&["a.tar", "b.tar", "c.tar"]), (3, 0, 0));
    place.write("out/mine.sif", "not made by a batch");
    assert_eq!(place.batch(&["a.tar", "--to", "rootfs", "--out", "out"]).code, 0);
    // Somebody has written to one.
    let mut bytes = fs::read(place.path("out/c.sif")).unwrap();
    bytes.push(0);
    place.write("out/c.sif", bytes);
    let pruned = place.batch(&["a.tar", "--to", "sif", "--out", "out", "--prune"]);
    assert_eq!(pruned.code, 0, "{}", pruned.stderr);
    assert_eq!(place.outputs().into_keys().collect::<Vec<_>>(), ["a.sif", "c.sif", "mine.sif"], "{}", pruned.stderr);
    assert!(pruned.stderr.contains("removed \"b.sif\"") && pruned.stderr.contains("c.sif"), "{}", pruned.stderr);
    assert!(place.path("out/a.rootfs.tar").exists() && !place.path("out/reports/b.sif.json").exists());
}

#[test]
fn wrong_use_is_said_and_nothing_is_done() {
    let place = Place::new();
    let image = docker_archive(&[layer::of_file("a", b"content")], Squeeze::Not);
    for name in ["a.tar", "x/a-3.tar", "d/a.tar", "out/b.sif"] {
        place.write(name, &image);
    }
    place.write("empty", "# nothing\n");
    place.write("clash", "a.tar\nx/a-3.tar a\n");
    place.write("list", "a.tar\n");
    place.write("own", "out/b.sif b\n");
    let before = fs::read_dir(place.path("out")).unwrap().count();
    let cases: [(&[&str], &str); 17] = [
        (&[], "no list"),
        (&["x/a-3.tar", "a.tar", "d/a.tar"], "would both be written to \"a.sif\""),
        (&["clash"], "would both be written to"),
        (&["docker-archive:a.tar:x:1", "docker-archive:a.tar:x:2"], "would both be written to"),
        (&["empty"], "names no image"),
        (&["-"], "standard input"),
        (&["list", "--parallel", "0"], "--parallel"),
        (&["list", "--only", "3"], "--only"),
        (&["list", "--only", "2-1"], "--only"),
        (&["list", "--image", "x"], "--image"),
        (&["list", "--if-exists", "reuse"], "--if-exists"),
        (&["list", "--tags", "("], "--tags"),
        (&["list", "--tags", "x"], "--tags"),
        (&["list", "--timeout", "5"], "--timeout"),
        (&["list", "--names", "nextflow"], "workflows"),
        (&["list", "--flatten"], "--flatten"),
        (&["own"], "is the source"),
    ];
    for (words, said) in cases {
        let done = place.batch(&[words, &["--to", "sif", "--out", "out"]].concat());
        assert_eq!(done.code, 2, "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(said) && done.stderr.contains("hint: "), "{words:?}: {}", done.stderr);
    }
    for format in ["oci", "additional-files", "zip"] {
        assert_eq!(place.batch(&["list", "--to", format, "--out", "out"]).code, 2);
    }
    let missing = place.batch(&["--list", "nowhere", "--to", "sif", "--out", "out"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    for name in ["nowhere.txt", "no/where.yaml", "nowhere.yml", "nowhere.list"] {
        let missing = place.batch(&[name, "--to", "sif", "--out", "not-made"]);
        assert!(missing.code == 3 && !place.path("not-made").exists(), "{}", missing.stderr);
        let said = format!("list \"{name}\" does not exist");
        assert!(missing.stderr.contains(&said) && missing.stderr.contains("hint: "), "{}", missing.stderr);
    }
    assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), before);
    // An image that is not there is one that fails.
    let failed = place.batch(&["gone.tar", "a.tar", "--to", "sif", "--out", "out"]);
    assert_eq!(failed.code, 1, "{}", failed.stderr);
    assert!(place.path("out/a.sif").exists());
}

/// A task of an array does its part, and writes no summary; all of them together are told by --summary.
#[test]
fn tasks_of_an_array_do_their_part() {
    let place = Place::new();
    for name in ["a", "b", "c"] {
        place.write(&format!("{name}.tar"), docker_archive(&[layer::of_file(name, b"x")], Squeeze::Not));
    }
    let words = ["a.tar", "b.tar", "c.tar", "--to", "sif", "--out", "out"];
    let with = |more: &[&str]| place.batch(&[&words[..], more].concat());
    assert_eq!(with(&["--only", "2"]).code, 0);
    assert_eq!(place.outputs().into_keys().collect::<Vec<_>>(), ["b.sif"]);
    assert!(!place.path("out/summary.tsv").exists());
    let summary = with(&["--summary"]);
    assert_eq!(summary.code, 1, "two are missing: {}", summary.stderr);
    assert_eq!(with(&["--only", "1-3"]).code, 0);
    let summary = with(&["--summary"]);
    assert_eq!(summary.code, 0, "{}", summary.stderr);
    let text = String::from_utf8(summary.stdout).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("done\t")).count(), 3, "{text}");
    assert_eq!(text, fs::read_to_string(place.path("out/summary.tsv")).unwrap());
}

/// The usual limit of open files is for one conversion, not for hundreds at once; a batch takes what the system allows.
#[test]
fn the_soft_limit_of_open_files_does_not_count() {
    let place = Place::new();
    let names: Vec<String> = (0..32).map(|number| format!("i{number}.tar")).collect();
    for name in &names {
        place.write(name, docker_archive(&[layer::of_file(name, b"")], Squeeze::Not));
    }
    let mut limited = Command::new("bash");
    limited.args(["-c", "ulimit -Sn 48; exec \"$@\"", "bash"]).arg(env!("CARGO_BIN_EXE_sif-convert"));
    limited
        .args(["batch", "--to", "sif", "--out", "out", "--parallel", "32"])
        .args(&names)
        .env("HOME", place.path("tmp"));
    let done = run(limited.current_dir(place.path("")).env("TMPDIR", place.path("tmp")));
    assert_eq!(done.code, 0, "{}", done.stderr);
}

/// Blobs that images share take a part of the temporary directory and no more: without room each image reads its own.
#[test]
fn a_temporary_directory_without_room_stops_no_image() {
    if !is_root() {
        return skip("only root can mount a tmpfs");
    }
    let fake = registry(tags(6, 1 << 20));
    for kib in [1, 300, 1500, 3000] {
        let place = Place::new();
        let Some(_disk) = SmallDisk::mount(place.path("tmp"), kib) else { return skip("a tmpfs cannot be mounted") };
        place.write("list", list_of(&fake, 6));
        assert_eq!(place.counts(&["list"]), (6, 0, 0), "{kib} KiB");
        assert_eq!(place.hidden(), Vec::<String>::new());
    }
}

/// Limits of memory are for all images together.
#[test]
fn a_limit_of_address_space_lets_fewer_images_work_at_once() {
    let fake = registry(tags(6, 1 << 20));
    for kib in [1_500_000, 3_000_000] {
        for jobs in ["2", "64"] {
            let place = Place::new();
            place.write("list", list_of(&fake, 6));
            let words = ["list", "--to", "sif", "--out", "out", "--jobs", jobs, "--parallel", "4"];
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" batch \"$@\"")]);
            command.arg(env!("CARGO_BIN_EXE_sif-convert")).args(words);
            command.current_dir(place.path("")).env("TMPDIR", place.path("tmp"));
            let done = run(command.env("HOME", place.path("")));
            assert_eq!(done.code, 0, "{kib} KiB, {jobs} jobs: {}", done.stderr);
        }
    }
}

/// Lists come from pipes and editors of all kinds, and names of files hold what they please.
#[test]
fn lists_are_known_by_what_they_hold() {
    let place = Place::new();
    let archive = docker_archive(&[layer::of_file("a", b"a")], Squeeze::Not);
    ["a.tar", "x #y.tar", "x y.tar"].iter().for_each(|name| place.write(name, &archive));
    let listed = |line: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", &line.replace("BATCH", "\"$0\" batch --to sif --out out")]);
        command.arg(env!("CARGO_BIN_EXE_sif-convert"));
        run(command.current_dir(place.path("")).env("HOME", place.path("")))
    };
    // What is printed is a list again.
    let done = listed("BATCH --dry-run a.tar 'x #y.tar' 'x y.tar'");
    assert_eq!(done.code, 0, "{}", done.stderr);
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(text, "a.tar\ta.sif\nx #y.tar\tx__y.sif\nx y.tar\tx_y.sif\n");
    place.write("again", &text);
    assert_eq!(listed("BATCH --dry-run again").stdout, text.as_bytes());
    // Text that is not UTF-8 is a list, too; a pipe says that it is one.
    place.write("latin", b"# caf\xe9\na.tar\n");
    assert_eq!(listed("BATCH --dry-run latin").stdout, b"a.tar\ta.sif\n");
    assert_eq!(listed("BATCH --dry-run --list <(cat latin)").stdout, b"a.tar\ta.sif\n");
    let done = listed("BATCH --dry-run <(cat latin)");
    assert!(done.code == 2 && done.stderr.contains("--list"), "{}", done.stderr);
    // YAML needs no name.
    place.write("yaml", "r.example.com:\n  images:\n    x: ['1']\n");
    assert_eq!(listed("BATCH --dry-run --list - <yaml").stdout, b"docker://r.example.com/x:1\tx_1.sif\n");
    // A name that no line can hold.
    place.write("x\ny.tar", &archive);
    let done = listed("BATCH --dry-run \"$(printf 'x\\ny.tar')\"");
    assert!(done.code == 2 && done.stderr.contains("no line can say"), "{}", done.stderr);
}

/// A cache serves images of any source, and what others put in the place of a record holds nobody up.
#[test]
fn a_cache_serves_local_images_and_a_pipe_is_no_record() {
    let place = Place::new();
    let archive = docker_archive(&[layer::of_file("a", &noise(3 << 20, 1))], Squeeze::Gzip);
    place.write("a.tar", &archive);
    assert_eq!(place.counts(&["a.tar", "--cache", "cache"]), (1, 0, 0));
    assert!(place.path("cache/derived").exists());
    let refused = place.batch(&["a.tar", "--to", "rootfs", "--out", "out", "--cache", "cache"]);
    assert!(refused.code == 2 && refused.stderr.contains("--cache"), "{}", refused.stderr);
    fs::remove_file(place.path("out/reports/a.sif.json")).unwrap();
    let pipe = Command::new("mkfifo").arg(place.path("out/reports/a.sif.json")).status().unwrap();
    assert!(pipe.success());
    let done = place.batch(&["a.tar", "--to", "sif", "--out", "out"]);
    assert!(done.code != 0 && done.stderr.contains("not a regular file"), "{}", done.stderr);
}
