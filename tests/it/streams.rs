//! What comes as a stream: standard input, and the exports of engines. It gives the bytes that a file gives; where it ends
//! early there is the right exit code, one clear sentence, and nothing left.
//!
//! Most tests talk to an engine of their own (`support/engine.rs`), which fails on demand; the last ones to a real Docker and a real
//! Podman, and have a real Apptainer run what comes out.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::docker::DockerImage;
use crate::support::engine::{Behaviour, Export, FakeEngine};
use crate::support::layer::member;
use crate::support::pack::{Squeeze, docker_archive, sha256, squeeze};
use crate::support::run::{self, Run, host_has, is_root, program, skip};
use crate::support::small::SmallDisk;

/// An end to a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Places for an output, for temporary files and for sockets.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        // Not below the target directory: the path of a socket is short.
        let place = Place(tempfile::tempdir().unwrap());
        for name in ["out", "tmp"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `convert SOURCE --to FORMAT -o out/x`.
    fn convert(&self, source: &str, format: &str) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("TMPDIR", self.path("tmp"));
        command.args([source, "--to", format, "-o", "out/x"]);
        command
    }

    /// The same of the engine.
    fn convert_from(&self, engine: &FakeEngine, format: &str) -> Command {
        let mut command = self.convert("docker-daemon:example/case", format);
        command.env("DOCKER_HOST", engine.host());
        command
    }

    fn output(&self) -> Vec<u8> {
        fs::read(self.path("out/x")).unwrap()
    }

    fn nothing_left(&self, when: &str) {
        for directory in ["out", "tmp"] {
            let left: Vec<_> = fs::read_dir(self.path(directory)).unwrap().map(|each| each.unwrap().path()).collect();
            assert!(left.is_empty(), "{when}: {left:?}");
        }
    }

    /// Runs it; it must fail in one sentence, with this code, and leave nothing.
    fn fails(&self, command: &mut Command, code: i32, words: &[&str]) -> Run {
        let run = run::run(command.stdout(Stdio::null()));
        self.failed(run, code, words)
    }

    fn failed(&self, run: Run, code: i32, words: &[&str]) -> Run {
        assert_eq!(run.code, code, "{}", run.stderr);
        let errors = run.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", run.stderr);
        assert!(words.iter().all(|word| run.stderr.contains(word)), "{words:?}: {}", run.stderr);
        assert!(run.stderr.trim_end().lines().last().unwrap().starts_with("hint: "), "{}", run.stderr);
        self.nothing_left(&run.stderr);
        run
    }
}

fn image(how: Squeeze) -> Vec<u8> {
    docker_archive(&crate::support::large::layers(), how)
}

/// The same archive with its members in the opposite order: metadata first.
fn backwards(archive: &[u8]) -> Vec<u8> {
    let mut members = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        members.push((entry.path().unwrap().to_str().unwrap().to_string(), bytes));
    }
    let mut out = Vec::new();
    members.iter().rev().for_each(|(name, bytes)| member(&mut out, name, bytes));
    out.resize(out.len() + 1024, 0);
    out
}

/// Runs a command with `bytes` on a pipe.
fn piped(command: &mut Command, bytes: &[u8]) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let written = thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(bytes));
        let output = child.wait_with_output().unwrap();
        (writer.join().unwrap(), output)
    });
    let (written, output) = written;
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = output.status.code().unwrap();
    assert!(code != 0 || written.is_ok(), "the pipe was closed before its end: {written:?}");
    Run { code, stdout: output.stdout, stderr }
}

fn from_file(archive: &[u8], format: &str) -> Vec<u8> {
    let place = Place::new();
    fs::write(place.path("image.tar"), archive).unwrap();
    let run = run::run(&mut place.convert("image.tar", format));
    assert_eq!(run.code, 0, "{}", run.stderr);
    place.output()
}

fn wait(child: &mut Child) -> i32 {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap();
        }
        assert!(started.elapsed() < PATIENCE, "it does not end");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pipe_gives_the_bytes_that_a_file_gives() {
    for (layers, whole) in [(Squeeze::Not, Squeeze::Not), (Squeeze::Gzip, Squeeze::Not), (Squeeze::Not, Squeeze::Zstd)]
    {
        let archive = image(layers);
        for format in ["rootfs", "sif"] {
            let expected = from_file(&archive, format);
            for bytes in [archive.clone(), backwards(&archive)] {
                let place = Place::new();
                // What follows the end marker is read too: whoever writes must not find the pipe closed.
                let bytes =
                    [squeeze(&bytes, whole), if whole == Squeeze::Not { vec![0; 300_000] } else { vec![] }].concat();
                let run = piped(&mut place.convert("-", format), &bytes);
                assert_eq!(run.code, 0, "{}", run.stderr);
                assert!(place.output() == expected, "{format}, layers {layers:?}, all {whole:?}");
                fs::remove_file(place.path("out/x")).unwrap();
                place.nothing_left("after a success");
            }
        }
    }
}

#[test]
fn a_stream_is_hashed_as_it_comes() {
    let archive = squeeze(&image(Squeeze::Not), Squeeze::Gzip);
    let place = Place::new();
    let sum = sha256(&archive);
    let run = piped(place.convert("-", "rootfs").args(["--expect-sha256", &sum, "--report", "report"]), &archive);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(place.path("report")).unwrap()).unwrap();
    assert_eq!((&report["source"]["sha256"], &report["source"]["size"]), (&sum.into(), &archive.len().into()));
    fs::remove_file(place.path("out/x")).unwrap();
    // A file that is redirected is hashed as a file.
    fs::write(place.path("image.tar.gz"), &archive).unwrap();
    let wrong = "0".repeat(64);
    let mut redirected = place.convert("-", "rootfs");
    redirected.args(["--expect-sha256", &wrong]).stdin(fs::File::open(place.path("image.tar.gz")).unwrap());
    place.fails(&mut redirected, 5, &[&wrong]);
    let run = piped(place.convert("-", "rootfs").args(["--expect-sha256", &wrong]), &archive);
    place.failed(run, 5, &[&wrong, &sha256(&archive), "--expect-sha256"]);
    // That a part is missing is the reason for what else is wrong.
    let part = &archive[..archive.len() / 2];
    let run = piped(place.convert("-", "rootfs").args(["--expect-sha256", &sha256(&archive)]), part);
    place.failed(run, 5, &["caused by: ", "truncated"]);
    let run = piped(&mut place.convert("-", "rootfs"), part);
    place.failed(run, 4, &["standard input", "truncated"]);
}

#[test]
fn a_pipe_that_is_cut_leaves_nothing() {
    let (plain, gzip) = (image(Squeeze::Not), image(Squeeze::Gzip));
    let packed = squeeze(&plain, Squeeze::Gzip);
    for format in ["sif", "oci"] {
        for archive in [&plain, &gzip] {
            for part in [0, 700, 40_000, archive.len() / 2, archive.len() - 4000] {
                let place = Place::new();
                let run = piped(&mut place.convert("-", format), &archive[..part]);
                let run = place.failed(run, 4, &["standard input"]);
                assert!(!run.stderr.contains("temporary file"), "the place is not at fault: {}", run.stderr);
            }
        }
        // Nothing of the tar is missing here, but the checksum of what compressed it.
        let place = Place::new();
        let run = piped(&mut place.convert("-", format), &packed[..packed.len() - 4]);
        place.failed(run, 4, &["standard input", "truncated"]);
    }
}

/// What is decrypted lies under no name, not even for a moment.
#[test]
fn plain_bytes_have_no_name() {
    let archive = image(Squeeze::Not);
    let place = Place::new();
    let mut child = place.convert("-", "rootfs").stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&archive[..archive.len() / 2]).unwrap();
    let files = PathBuf::from(format!("/proc/{}/fd", child.id()));
    let unnamed = || {
        let links = fs::read_dir(&files).unwrap().filter_map(|each| fs::read_link(each.ok()?.path()).ok());
        links
            .filter(|link| link.starts_with(place.path("tmp")))
            .any(|link| link.to_str().unwrap().ends_with("(deleted)"))
    };
    let started = Instant::now();
    while !unnamed() {
        assert!(started.elapsed() < PATIENCE, "there is no unnamed file");
        sleep(Duration::from_millis(10));
    }
    place.nothing_left("in the middle");
    stdin.write_all(&archive[archive.len() / 2..]).unwrap();
    drop(stdin);
    assert_eq!(wait(&mut child), 0);
}

#[test]
fn verbose_tells_what_an_engine_is_asked() {
    let place = Place::new();
    let engine = FakeEngine::start(&place.path("tmp"), Behaviour::new(&image(Squeeze::Not), Export::Whole));
    let run = run::run(place.convert_from(&engine, "rootfs").args(["-v", "--progress", "none"]));
    assert_eq!(run.code, 0, "{}", run.stderr);
    for path in ["/version", "/images/example/case/json", "/images/example/case:latest/get"] {
        let asked =
            |line: &&str| line.starts_with(&format!("GET {path} of the engine at ")) && line.contains(": 200, ");
        assert_eq!(run.stderr.lines().filter(asked).count(), 1, "{path}: {}", run.stderr);
    }
}

/// What a pipe's last command cannot know: that the first one failed.
#[test]
fn a_command_that_fails_gives_no_output() {
    let archive = image(Squeeze::Gzip);
    let place = Place::new();
    fs::write(place.0.path().join("a b.tar"), &archive).unwrap();
    let with = |command: &str| {
        let mut convert = place.convert("-", "sif");
        convert.args(["--input-command", command]);
        convert
    };
    // The whole archive has come; that does not help.
    place.fails(
        &mut with("cat 'a b.tar'; exit 3"),
        3,
        &["\"cat 'a b.tar'; exit 3\": the command failed (exit status: 3)"],
    );
    place.fails(&mut with("cat 'a b.tar'; kill -KILL $$"), 3, &["failed (signal: 9"]);
    let run = place.fails(&mut with("no-such-program --decrypt x"), 3, &["failed (exit status: 127)", "caused by"]);
    assert!(run.stderr.contains("no-such-program"), "the command's own words: {}", run.stderr);
    place.fails(&mut with("head -c 5000 'a b.tar'; exit 1"), 3, &["failed (exit status: 1)", "truncated"]);
    place.fails(&mut with("yes"), 4, &["opening the output of \"yes\": this seems to be a text file"]);
    place.fails(&mut with("true"), 4, &["opening the output of \"true\""]);
    let took = Instant::now();
    place.fails(&mut with("yes | head -c 100000; exec sleep 300"), 4, &["text file"]);
    assert!(took.elapsed() < PATIENCE);
    let run = place.fails(place.convert("a b.tar", "sif").args(["--input-command", "true"]), 2, &["has no effect on"]);
    assert!(run.stderr.contains("write - in place of SOURCE"), "{}", run.stderr);
    // One that succeeds gives what the file gives; it has our standard input.
    for (command, given) in [("cat 'a b.tar'", &[][..]), ("gzip -c 'a b.tar'", &[]), ("cat", &archive)] {
        let run = piped(&mut with(command), given);
        assert_eq!(run.code, 0, "{command}: {}", run.stderr);
        let from_command = place.output();
        fs::remove_file(place.path("out/x")).unwrap();
        assert_eq!(run::run(&mut place.convert("a b.tar", "sif")).code, 0);
        assert!(place.output() == from_command, "{command}");
        fs::remove_file(place.path("out/x")).unwrap();
    }
}

#[test]
fn a_stream_is_inspected_and_verified() {
    let archive = image(Squeeze::Gzip);
    let place = Place::new();
    let ask = |word: &str, bytes: &[u8]| piped(program().env("TMPDIR", place.path("tmp")).args([word, "-"]), bytes);
    let inspected = ask("inspect", &archive);
    assert_eq!(inspected.code, 0, "{}", inspected.stderr);
    let text = String::from_utf8(inspected.stdout).unwrap();
    assert!(text.contains("docker-archive") && text.contains("example/case:latest"), "{text}");
    let verified = ask("verify", &archive);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert!(String::from_utf8(verified.stdout).unwrap().starts_with("standard input: image sha256:"));
    assert_eq!(ask("verify", &archive[..archive.len() / 2]).code, 4);
    place.nothing_left("after looking");
}

#[test]
fn standard_input_gives_the_output_no_name() {
    let run = piped(program().args(["-", "--to", "sif"]), b"");
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("-o FILE"), "{}", run.stderr);
}

#[test]
fn a_full_disk_is_told() {
    if !is_root() {
        return skip("mounting needs root");
    }
    let place = Place::new();
    let small = SmallDisk::mount(place.path("small"), 1 << 10).unwrap();
    let archive = image(Squeeze::Not);
    assert!(archive.len() > 2 << 20, "{}", archive.len());
    let words = ["temporary file in", small.path().to_str().unwrap(), "--tmpdir"];
    let run = piped(place.convert("-", "rootfs").arg("--tmpdir").arg(small.path()), &archive);
    place.failed(run, 7, &words);
    // The same where the engine does not say how much there will be.
    let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, Export::Whole));
    place.fails(place.convert_from(&engine, "rootfs").arg("--tmpdir").arg(small.path()), 7, &words);
    drop(engine);
    // Where it does, nothing is written.
    let behaviour = Behaviour { size: Some(archive.len() as u64), ..Behaviour::new(&archive, Export::Stalls) };
    let engine = FakeEngine::start(place.0.path(), behaviour);
    let words = [&words[..], &["bytes are needed at least"]].concat();
    place.fails(place.convert_from(&engine, "rootfs").arg("--tmpdir").arg(small.path()), 7, &words);
    assert_eq!(fs::read_dir(small.path()).unwrap().count(), 0);
}

#[test]
fn an_export_gives_the_bytes_that_its_file_gives() {
    let archive = image(Squeeze::Not);
    for format in ["rootfs", "sif"] {
        let place = Place::new();
        let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, Export::Whole));
        let run = run::run(place.convert_from(&engine, format).args(["--report", "report"]));
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(place.output() == from_file(&archive, format), "{format}");
        let report: serde_json::Value = serde_json::from_slice(&fs::read(place.path("report")).unwrap()).unwrap();
        assert_eq!(report["source"]["kind"], "docker-daemon", "{report:#}");
        fs::remove_file(place.path("out/x")).unwrap();
        place.nothing_left("after a success");
        let asked = engine.requests().pop().unwrap();
        assert!(asked.starts_with("/images/get?names=example%2Fcase%3Alatest"), "{asked}");
    }
}

#[test]
fn an_export_that_ends_early_is_never_taken() {
    let archive = image(Squeeze::Gzip);
    for (export, words) in [
        (Export::CutChunks, "broke off"),
        (Export::CutLength, "broke off"),
        (Export::HalfLength, "before the archive was complete"),
        (Export::CutBare, "before the archive was complete"),
        (Export::FailsInside, "layer is gone"),
        (Export::Empty, "before the archive was complete"),
        (Export::Refuses, "no space left on device"),
    ] {
        let place = Place::new();
        let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, export));
        let run = place.fails(&mut place.convert_from(&engine, "sif"), 6, &[words, "example/case"]);
        eprintln!("{export:?}: {}", run.stderr.trim_end());
        let mut inspect = program();
        inspect.env("DOCKER_HOST", engine.host()).args(["inspect", "docker-daemon:example/case"]);
        assert_eq!(run::run(&mut inspect).code, 6, "{export:?}");
    }
}

/// Whatever lies before the cut: whole members, all members, all but the last byte.
#[test]
fn an_archive_without_its_end_is_never_taken() {
    let archive = image(Squeeze::Gzip);
    for missing in [1, 512, 1024, 1536, 5000] {
        let place = Place::new();
        let part = &archive[..archive.len() - missing];
        let engine = FakeEngine::start(place.0.path(), Behaviour::new(part, Export::Whole));
        place.fails(&mut place.convert_from(&engine, "rootfs"), 6, &["before the archive was complete"]);
    }
}

#[test]
fn an_engine_that_stalls_can_be_left() {
    let archive = image(Squeeze::Not);
    let place = Place::new();
    let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, Export::Stalls));
    let mut child = place.convert_from(&engine, "sif").stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while !engine.requests().iter().any(|request| request.starts_with("/images/get")) {
        assert!(started.elapsed() < PATIENCE, "no export is asked for");
        sleep(Duration::from_millis(10));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(wait(&mut child), 130);
    place.nothing_left("after SIGINT");
}

#[test]
fn an_image_that_is_not_there_has_near_names() {
    let place = Place::new();
    let engine = FakeEngine::start(place.0.path(), Behaviour::new(&image(Squeeze::Gzip), Export::Whole));
    let ask = |word: &str| {
        let mut command = place.convert(word, "sif");
        command.env("DOCKER_HOST", engine.host());
        command
    };
    place.fails(&mut ask("docker-daemon:exmple/case:1"), 3, &["no image", r#""example/case:latest""#]);
    let run = place.fails(&mut ask("docker-daemon:postgres"), 3, &["no image \"postgres\"", "docker pull postgres"]);
    assert!(!run.stderr.contains("other:1") && !run.stderr.contains("none"), "{}", run.stderr);
    place.fails(&mut ask("docker-daemon:Not A Name"), 2, &["Not A Name"]);
    place.fails(ask("docker-daemon:example/case").args(["--expect-sha256", &"0".repeat(64)]), 2, &["--expect-digest"]);
}

#[test]
fn no_engine_and_no_permission_are_told_apart() {
    let place = Place::new();
    let ask = |host: &str| {
        let mut command = place.convert("docker-daemon:example/case", "sif");
        command.env("DOCKER_HOST", host);
        command
    };
    let socket = place.path("x.sock");
    let host = format!("unix://{}", socket.display());
    place.fails(&mut ask(&host), 6, &["no engine answers at", "DOCKER_HOST", "systemctl start docker"]);
    let listener = UnixListener::bind(&socket).unwrap();
    drop(listener);
    place.fails(&mut ask(&host), 6, &["no engine answers at", "refused"]);
    // Port 1 of this machine is free; nobody is asked to wait for another one's.
    place.fails(&mut ask("tcp://127.0.0.1:1"), 6, &["no engine answers at", "127.0.0.1:1"]);
    place.fails(&mut ask("127.0.0.1:1"), 6, &["unix:///PATH"]);
    if !is_root() || !host_has("setpriv") {
        return skip("taking a right away needs root and setpriv");
    }
    fs::remove_file(&socket).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["out", "tmp"] {
        fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::copy(env!("CARGO_BIN_EXE_convert"), place.path("convert")).unwrap();
    let mut command = Command::new("setpriv");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("DOCKER_HOST", &host).env("TMPDIR", place.path("tmp"));
    command.current_dir(place.0.path()).args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "./convert"]);
    command.args(["docker-daemon:example/case", "--to", "sif", "-o", "out/x"]);
    place.fails(&mut command, 6, &["no permission", "group docker", "podman"]);
}

#[test]
fn an_engine_that_can_choose_a_platform_is_asked_for_it() {
    let archive = image(Squeeze::Not);
    for (api_version, asked) in [("1.41", false), ("1.48", true), ("1.52", true)] {
        let place = Place::new();
        let behaviour = Behaviour { api_version, ..Behaviour::new(&archive, Export::Whole) };
        let engine = FakeEngine::start(place.0.path(), behaviour);
        let run = run::run(place.convert_from(&engine, "rootfs").args(["--platform", "linux/amd64"]));
        assert_eq!(run.code, 0, "{}", run.stderr);
        let request = engine.requests().pop().unwrap();
        let platform = "&platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";
        assert_eq!(request.ends_with(platform), asked, "{request}");
        fs::remove_file(place.path("out/x")).unwrap();
        // Whether it chose or not, the image must be for that platform.
        let mut other = place.convert_from(&engine, "rootfs");
        place.fails(other.args(["--platform", "linux/arm64"]), 3, &["linux/arm64", "linux/amd64"]);
    }
}

/// Whether a program of the host can be run, with the argument by which it tells its version.
fn answers(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// A program that runs until this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_engine_is_reached_as_docker_reaches_it() {
    let archive = image(Squeeze::Gzip);
    let expected = from_file(&archive, "rootfs");
    let place = Place::new();
    let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, Export::Whole));
    let check = |how: &str, command: &mut Command| {
        let run = run::run(command);
        assert_eq!(run.code, 0, "{how}: {}", run.stderr);
        assert!(place.output() == expected, "{how}");
        fs::remove_file(place.path("out/x")).unwrap();
    };
    let ask = || place.convert("docker-daemon:example/case", "rootfs");
    let tcp = format!("tcp://127.0.0.1:{}", engine.on_tcp());
    check("tcp", ask().env("DOCKER_HOST", &tcp));

    let config = place.path("config");
    let meta = config.join("contexts/meta").join(sha256(b"mine"));
    fs::create_dir_all(&meta).unwrap();
    let context =
        format!(r#"{{"Name":"mine","Endpoints":{{"docker":{{"Host":"{}","SkipTLSVerify":false}}}}}}"#, engine.host());
    fs::write(meta.join("meta.json"), context).unwrap();
    check("DOCKER_CONTEXT", ask().env("DOCKER_CONFIG", &config).env("DOCKER_CONTEXT", "mine"));
    fs::write(config.join("config.json"), r#"{"currentContext":"mine"}"#).unwrap();
    check("currentContext", ask().env("DOCKER_CONFIG", &config));
    let home = place.path("home");
    fs::create_dir(&home).unwrap();
    fs::rename(&config, home.join(".docker")).unwrap();
    check("~/.docker", ask().env("HOME", &home));
    // DOCKER_HOST goes before contexts.
    check("both", ask().env("DOCKER_HOST", &tcp).env("HOME", &home).env("DOCKER_CONTEXT", "other"));
    place.fails(ask().env("HOME", &home).env("DOCKER_CONTEXT", "other"), 6, &["context \"other\" does not exist"]);
}

/// Speaks TLS with whoever has a certificate, on a port that it prints, and hands each request on to a socket.
const TLS_PROXY: &str = r#"
import socket, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server-key.pem")
context.load_verify_locations("ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def serve(raw):
    with context.wrap_socket(raw, server_side=True) as far, socket.socket(socket.AF_UNIX) as near:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += far.recv(65536) or sys.exit()
        near.connect(sys.argv[1])
        near.sendall(request)
        while answer := near.recv(65536):
            far.sendall(answer)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"#;

#[test]
fn an_engine_is_reached_through_tls() {
    if !host_has("python3") || !answers("openssl", "version") {
        return skip("there is no python3, or no openssl");
    }
    let archive = image(Squeeze::Gzip);
    let place = Place::new();
    let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, Export::Whole));
    let script = "mkdir certs && cd certs
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca.pem
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name-key.pem -out $name.csr
            echo subjectAltName=IP:127.0.0.1 >ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out $name.pem
        done
        mv client.pem cert.pem; mv client-key.pem key.pem";
    let made = run::run(Command::new("sh").current_dir(place.0.path()).args(["-ec", script]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let mut proxy = Command::new("python3");
    proxy.current_dir(place.path("certs")).args(["-c", TLS_PROXY]).arg(&engine.socket);
    let mut server = Server(proxy.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    let port: u16 = port.trim().parse().unwrap();
    let ask = |directory: &Path| {
        let mut command = place.convert("docker-daemon:example/case", "rootfs");
        command.env("DOCKER_HOST", format!("tcp://127.0.0.1:{port}"));
        command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", directory);
        command
    };
    let run = run::run(&mut ask(&place.path("certs")));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(place.output() == from_file(&archive, "rootfs"));
    fs::remove_file(place.path("out/x")).unwrap();
    place.fails(&mut ask(&place.path("nowhere")), 6, &["ca.pem", "DOCKER_CERT_PATH"]);
    // An engine that another authority vouches for is not talked to.
    let script = "cp -r certs other && cd other && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout x -out ca.pem";
    let made = run::run(Command::new("sh").current_dir(place.0.path()).args(["-ec", script]));
    assert_eq!(made.code, 0, "{}", made.stderr);
    place.fails(&mut ask(&place.path("other")), 6, &["certificate"]);
}

/// `ssh` is one of our own that runs what it is asked to run here: `docker system dial-stdio`.
#[test]
fn an_engine_is_reached_through_ssh() {
    if !answers("socat", "-V") {
        return skip("there is no socat");
    }
    let archive = image(Squeeze::Gzip);
    let place = Place::new();
    let engine = FakeEngine::start(place.0.path(), Behaviour::new(&archive, Export::Whole));
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{0}/ssh.log\ncase \"$*\" in
        *' closed '*) echo 'Permission denied (publickey).' >&2; exit 255 ;;
        *) exec socat STDIO UNIX-CONNECT:{1} ;;
        esac\n",
        place.0.path().display(),
        engine.socket.display()
    );
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let ask = |host: &str| {
        let mut command = place.convert("docker-daemon:example/case", "rootfs");
        command.env("DOCKER_HOST", host).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command
    };
    let run = run::run(&mut ask("ssh://me@far:2222"));
    let log = fs::read_to_string(place.path("ssh.log")).unwrap();
    assert_eq!(run.code, 0, "{}\n{log}", run.stderr);
    assert!(place.output() == from_file(&archive, "rootfs"));
    let words = "-l me -p 2222 -o ConnectTimeout=30 -T -- far docker system dial-stdio";
    assert!(log.lines().all(|line| line == words), "{log}");
    fs::remove_file(place.path("out/x")).unwrap();
    place.fails(&mut ask("ssh://closed"), 6, &["ssh://closed", "Permission denied (publickey).", "ssh HOST"]);
}

/// What `docker save` writes, through a pipe; the engine, asked by name and by ID: the same bytes.
#[test]
fn docker_gives_the_bytes_that_its_archive_gives() {
    let Some(image) = DockerImage::build("engine") else { return };
    let id = String::from_utf8(image.docker(&["inspect", "--format", "{{.Id}}", &image.name])).unwrap();
    let id = id.trim();
    for format in ["rootfs", "sif"] {
        let saved = fs::read(image.archive()).unwrap();
        let expected = from_file(&saved, format);
        let place = Place::new();
        let made = |what: &str, run: Run| {
            assert_eq!(run.code, 0, "{what}: {}", run.stderr);
            let output = place.output();
            fs::remove_file(place.path("out/x")).unwrap();
            place.nothing_left(what);
            output
        };
        let ask = |word: &str| run::run(&mut place.convert(&format!("docker-daemon:{word}"), format));
        assert!(made("a pipe", piped(&mut place.convert("-", format), &saved)) == expected, "{format}: a pipe");
        assert!(made("the engine", ask(&image.name)) == expected, "{format}: the engine");
        // Saved by its ID it has no name.
        image.docker(&["save", "--output", "by-id.tar", id]);
        let unnamed = from_file(&fs::read(image.place.path().join("by-id.tar")).unwrap(), format);
        for word in [id, &id[7..], &id[7..19]] {
            assert!(made(word, ask(word)) == unnamed, "{format}: {word}");
        }
        let named = run::run(place.convert(&format!("docker-daemon:{id}"), format).args(match format {
            "sif" => &["--reference", "sif-convert-test/engine:1"][..],
            _ => &[],
        }));
        made("by ID, with a name", named);
    }
    let inspected = run::run(program().args(["inspect", &format!("docker-daemon:{}", image.name)]));
    assert_eq!(inspected.code, 0, "{}", inspected.stderr);
    let text = String::from_utf8(inspected.stdout).unwrap();
    assert!(text.contains("docker-daemon") && text.contains(id) && text.contains("T_QUOTE"), "{text}");
    let place = Place::new();
    let near = "docker-daemon:sif-convert-test/engine";
    place.fails(&mut place.convert(near, "sif"), 3, &["no image", "\"sif-convert-test/engine:1\""]);
}

/// Built by Docker, converted from an engine, run by Apptainer: as Docker runs it.
fn runs_as_in_docker(image: &DockerImage, sif: &Path) {
    let Some(oracles) = run::oracles() else { return };
    let here = sif.parent().unwrap();
    fs::set_permissions(here, fs::Permissions::from_mode(0o777)).unwrap();
    let apptainer = |arguments: &str| -> String {
        let script = format!("apptainer --silent run {} {arguments}", sif.file_name().unwrap().to_str().unwrap());
        let done = run::run(oracles.user(here).args(["sh", "-c", &script]));
        assert_eq!(done.code, 0, "{script}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    };
    let docker = |arguments: &[&str]| {
        let arguments = [&["run", "--rm", image.name.as_str()], arguments].concat();
        String::from_utf8(image.docker(&arguments)).unwrap()
    };
    let cmd = docker(&[]);
    assert!(cmd.contains("T_QUOTE=it's \"quoted\"") && cmd.contains("<fixed word><it's><>"), "{cmd}");
    assert_eq!(apptainer(""), cmd, "ENTRYPOINT, CMD, ENV");
    assert_eq!(apptainer("'a b' '$HOME' ''"), docker(&["a b", "$HOME", ""]), "arguments instead of CMD");
}

#[test]
fn an_image_of_docker_runs_in_apptainer() {
    let Some(image) = DockerImage::build("engine-run") else { return };
    let sif = image.place.path().join("image.sif");
    let mut convert = program();
    convert.arg(format!("docker-daemon:{}", image.name)).args(["--to", "sif", "-o"]).arg(&sif);
    let done = run::run(&mut convert);
    assert_eq!(done.code, 0, "{}", done.stderr);
    runs_as_in_docker(&image, &sif);
}

/// A Podman with a store of its own, which answers on a socket as long as this lives.
struct Podman {
    place: tempfile::TempDir,
    _service: Server,
}

impl Podman {
    fn start() -> Option<Self> {
        if !is_root() || !host_has("podman") {
            skip("there is no root, or no podman: apt-get install podman");
            return None;
        }
        let place = tempfile::tempdir().unwrap();
        let mut command = Podman::command(place.path());
        command
            .args(["system", "service", "--time", "0"])
            .arg(format!("unix://{}/podman.sock", place.path().display()));
        let service = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(place.path().join("podman.sock")).is_err() {
            assert!(started.elapsed() < PATIENCE, "podman does not listen");
            sleep(Duration::from_millis(50));
        }
        Some(Podman { place, _service: service })
    }

    fn command(place: &Path) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(place.join("root")).arg("--runroot").arg(place.join("run"));
        command.args(["--storage-driver", "vfs"]).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) {
        let done = run::run(Podman::command(self.place.path()).args(arguments));
        assert_eq!(done.code, 0, "podman {arguments:?}: {}", done.stderr);
    }
}

#[test]
fn podman_gives_the_bytes_that_its_archive_gives() {
    let Some(podman) = Podman::start() else { return };
    let Some(image) = DockerImage::build("podman") else { return };
    podman.run(&["load", "--quiet", "--input", image.archive().to_str().unwrap()]);
    let saved = podman.place.path().join("saved.tar");
    podman.run(&["save", "--quiet", "--output", saved.to_str().unwrap(), &image.name]);
    let host = format!("unix://{}/podman.sock", podman.place.path().display());
    let place = Place::new();
    let ask = |word: &str, format: &str| {
        let mut command = place.convert(&format!("docker-daemon:{word}"), format);
        command.env("DOCKER_HOST", &host);
        command
    };
    for format in ["rootfs", "sif"] {
        let expected = from_file(&fs::read(&saved).unwrap(), format);
        for word in [image.name.clone(), format!("localhost/{}", image.name)] {
            let run = run::run(&mut ask(&word, format));
            assert_eq!(run.code, 0, "{}", run.stderr);
            assert!(place.output() == expected, "{format}: {word}");
            if format == "sif" {
                fs::copy(place.path("out/x"), image.place.path().join("podman.sif")).unwrap();
            }
            fs::remove_file(place.path("out/x")).unwrap();
        }
    }
    place.fails(&mut ask("sif-convert-test/podmn:1", "sif"), 3, &["no image", "sif-convert-test/podman:1"]);
    // The tree is the one that Docker's archive holds, and so are ENTRYPOINT, CMD and ENV.
    let theirs = from_file(&fs::read(image.archive()).unwrap(), "rootfs");
    assert!(from_file(&fs::read(&saved).unwrap(), "rootfs") == theirs);
    runs_as_in_docker(&image, &image.place.path().join("podman.sif"));
}
