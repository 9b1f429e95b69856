//! A conversion that is ended from outside leaves a complete output or none, and what a signal can be told to clean up is
//! cleaned up.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::entry::{Content, Entry, Kind};
use crate::support::layer;
use crate::support::pack::{Squeeze, docker_archive};
use crate::support::random::Numbers;
use crate::support::run::{program, scratch};

/// Long enough on any machine, and an end to a test that hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// 40 MB in 400 files that compress to a third: some hundred milliseconds of work.
fn image() -> Vec<u8> {
    let mut numbers = Numbers::new(1);
    let mut file =
        |number: u32| Entry::new(format!("file-{number:04}"), Kind::File(Content::data(numbers.thin_noise(100_000))));
    let lower: Vec<Entry> = (0..200).map(&mut file).collect();
    let upper: Vec<Entry> = (100..300).map(&mut file).collect();
    docker_archive(&[layer::tar_of(&lower), layer::tar_of(&upper)], Squeeze::Gzip)
}

/// A directory with the image, an empty one for the output, and an empty one for temporary files.
struct Place(tempfile::TempDir);

impl Place {
    fn new(image: &[u8]) -> Self {
        let place = Place(scratch());
        fs::write(place.path("image.tar"), image).unwrap();
        fs::create_dir(place.path("out")).unwrap();
        fs::create_dir(place.path("tmp")).unwrap();
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, source: &str, format: &str) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("TMPDIR", self.path("tmp"));
        command.args([source, "--to", format, "-o", "out/x.tar"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn assert_nothing_left(&self, when: &str) {
        for directory in ["out", "tmp"] {
            assert_eq!(names(&self.path(directory)), Vec::<String>::new(), "left in {directory} {when}");
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|each| each.unwrap().file_name().into_string().unwrap()).collect()
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    // It may have ended by itself, which is one of the moments to be tested.
    let _ = kill_process(pid, signal);
}

fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("still running after {PATIENCE:?}");
        }
        sleep(Duration::from_millis(2));
    }
}

/// The complete output, and how long it took.
fn whole(place: &Place) -> (Vec<u8>, Duration) {
    let started = Instant::now();
    let status = place.command("image.tar", "rootfs").status().unwrap();
    assert!(status.success(), "{status}");
    let took = started.elapsed();
    let output = place.path("out/x.tar");
    let bytes = fs::read(&output).unwrap();
    fs::remove_file(output).unwrap();
    place.assert_nothing_left("after a whole run");
    (bytes, took)
}

/// Moments spread over a run, and one after it.
fn moments(took: Duration, count: u32) -> impl Iterator<Item = Duration> {
    (0..=count).map(move |number| took * number / (count - 1))
}

#[test]
fn killed_at_any_moment_leaves_all_or_nothing() {
    let place = Place::new(&image());
    let (expected, took) = whole(&place);
    for moment in moments(took, 24) {
        let mut child = place.command("image.tar", "rootfs").spawn().unwrap();
        sleep(moment);
        send(&child, Signal::KILL);
        wait(&mut child);
        let output = place.path("out/x.tar");
        if output.exists() {
            assert!(fs::read(&output).unwrap() == expected, "an incomplete output after {moment:?}");
            fs::remove_file(output).unwrap();
        }
        // Nobody can clean up after SIGKILL but the kernel, which does so for files without a name.
        place.assert_nothing_left("after SIGKILL");
    }
    assert!(whole(&place).0 == expected, "a run after all these gives the same bytes");
}

#[test]
fn interrupted_at_any_moment_leaves_nothing() {
    let place = Place::new(&image());
    let (expected, took) = whole(&place);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut interrupted = 0;
        for moment in moments(took, 10) {
            let mut child = place.command("image.tar", "sif-rootfs").spawn().unwrap();
            sleep(moment);
            send(&child, signal);
            let status = wait(&mut child);
            match (status.code(), status.signal()) {
                (Some(0), _) => fs::remove_file(place.path("out/x.tar")).unwrap(),
                // So early that the program had no handler yet, and had made nothing.
                (None, Some(number)) => assert_eq!(number, signal.as_raw(), "after {moment:?}"),
                (ended, _) => {
                    assert_eq!(ended, Some(code), "after {moment:?}");
                    interrupted += 1;
                }
            }
            place.assert_nothing_left(&format!("after {signal:?} at {moment:?}"));
        }
        assert!(interrupted > 0, "no {signal:?} arrived in the middle: the image is too small");
    }
    assert!(whole(&place).0 == expected);
}

/// Its exit code says what is there. Here the last words take their time: the pipe they go to is full.
#[test]
fn a_signal_that_comes_too_late_does_not_make_a_failure_of_an_output() {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let place = Place::new(&image());
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let flags = fcntl_getfl(&writer).unwrap();
        fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        while writer.write(&[b'.'; 1 << 10]).is_ok() {}
        fcntl_setfl(&writer, flags).unwrap();
        let mut command = place.command("image.tar", "rootfs");
        let mut child = command.args(["--progress", "none"]).stderr(writer).spawn().unwrap();
        drop(command);
        let started = Instant::now();
        while !place.path("out/x.tar").exists() && started.elapsed() < PATIENCE {
            sleep(Duration::from_millis(2));
        }
        sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "the last words are not waited for");
        send(&child, signal);
        sleep(Duration::from_millis(100));
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(wait(&mut child).code(), Some(0), "{said}");
        assert!(said.contains("x.tar"), "{said}");
    }
}

/// A pipe that gives nothing is where people press Ctrl-C.
#[test]
fn interrupted_while_waiting_for_input() {
    let image = image();
    for part in [0, 1000, image.len() / 2] {
        let place = Place::new(&[]);
        let mut child = place.command("-", "rootfs").stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&image[..part]).unwrap();
        sleep(Duration::from_millis(300));
        send(&child, Signal::INT);
        assert_eq!(wait(&mut child).code(), Some(130), "after {part} bytes");
        place.assert_nothing_left("after SIGINT");
        drop(stdin);
    }
}

#[test]
fn an_output_that_exists_outlives_a_failed_replacement() {
    let mut image = image();
    let place = Place::new(&image);
    fs::write(place.path("out/x.tar"), "precious").unwrap();
    let middle = image.len() / 2;
    image[middle] ^= 0xff;
    fs::write(place.path("image.tar"), &image).unwrap();
    let status = place.command("image.tar", "rootfs").arg("--force").status().unwrap();
    assert_ne!(status.code(), Some(0));
    assert_eq!(fs::read(place.path("out/x.tar")).unwrap(), b"precious");
    assert_eq!(names(&place.path("out")), ["x.tar"]);
}

#[test]
fn a_full_device_is_said_so() {
    let place = Place::new(&image());
    let mut command = program();
    command.current_dir(place.0.path()).env("TMPDIR", place.path("tmp"));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command.args(["image.tar", "--to", "rootfs", "-o", "-"]).stdout(full).stderr(Stdio::piped());
    let output = output.output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{message}");
    assert!(message.contains("error: "), "{message}");
    place.assert_nothing_left("after a full device");
}

/// `convert … -o - | head`: nobody reads on, and that is not a bug of ours.
#[test]
fn a_reader_that_goes_away_is_an_output_error() {
    let place = Place::new(&image());
    let mut command = program();
    command.current_dir(place.0.path()).env("TMPDIR", place.path("tmp"));
    command.args(["image.tar", "--to", "rootfs", "-o", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let status = wait(&mut child);
    assert!(matches!((status.code(), status.signal()), (Some(8), None) | (None, Some(13))), "{status}");
    place.assert_nothing_left("after a broken pipe");
}
