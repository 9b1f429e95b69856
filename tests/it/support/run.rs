//! Runs the program under test, and other people's programs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program, in an environment of which nothing is inherited but what it needs to find its temporary files.
pub fn program() -> Command {
    let mut command = listening(env!("CARGO_BIN_EXE_sif-convert"));
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// A command that begins with signals as a terminal gives them. Tests that run in the background of a script without job
/// control, or under nohup, have SIGINT or SIGHUP ignored, and what is ignored is inherited.
fn listening(path: &str) -> Command {
    let mut command = Command::new("/usr/bin/env");
    command.args(["--default-signal=INT,TERM,HUP", path]);
    command
}

pub struct Run {
    /// The exit code, or 128 + the signal.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

pub fn run(command: &mut Command) -> Run {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
    let stderr = String::from_utf8(stderr).expect("messages are UTF-8, whatever names they speak of");
    Run { code, stdout, stderr }
}

/// A scratch directory on a file system with extended attributes, gone when dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("case-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Converts `archive` to `format`, to standard output.
pub fn convert_to_stdout(archive: &Path, format: &str, arguments: &[&str]) -> Run {
    run(program().arg(archive).args(["--to", format, "-o", "-"]).args(arguments))
}

/// The exit code of an error kind, from the table in the README.
pub fn exit_code(kind: &str) -> i32 {
    match kind {
        "Other" => 1,
        "Usage" => 2,
        "SourceUnavailable" => 3,
        "InvalidImage" | "Unsupported" => 4,
        "Mismatch" => 5,
        "Network" => 6,
        "NoSpace" => 7,
        "Output" => 8,
        other => panic!("unknown error kind {other:?}"),
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a test is skipped, unless oracles are required: then it fails.
pub fn skip(reason: &str) {
    assert_ne!(std::env::var("ORACLES").as_deref(), Ok("require"), "ORACLES=require, but {reason}");
    leave_out(reason);
}

/// Says why a part of a test is left out that no machine is asked to have. `scripts/test` lists it at its end: cargo hides
/// what a test prints.
pub fn leave_out(reason: &str) {
    eprintln!("skipped: {reason}");
    let Some(list) = std::env::var_os("SKIPPED_LIST") else { return };
    let thread = std::thread::current();
    let line = format!("{reason}\t{}\n", thread.name().unwrap_or_default());
    let mut list = File::options().append(true).create(true).open(list).unwrap();
    list.write_all(line.as_bytes()).unwrap();
}

/// `scripts/oracles`, where the root that it needs is there (it is made by `scripts/oracles setup`).
pub fn oracles() -> Option<Oracles> {
    let root = std::env::var_os("ORACLES_ROOT").map_or_else(|| PathBuf::from("/var/tmp/oracles"), PathBuf::from);
    if !is_root() {
        skip("the oracles need root");
        return None;
    }
    if !root.join(".ready").exists() {
        skip(&format!("there is no {}: run scripts/oracles setup", root.display()));
        return None;
    }
    Some(Oracles { root })
}

pub struct Oracles {
    root: PathBuf,
}

impl Oracles {
    /// A command in the oracles' root, as root; `directory` is /mnt there.
    pub fn run(&self, directory: &Path) -> Command {
        self.enter("run", directory)
    }

    /// The same as an ordinary user.
    pub fn user(&self, directory: &Path) -> Command {
        self.enter("user", directory)
    }

    fn enter(&self, how: &str, directory: &Path) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/oracles"));
        command.arg(how).env("ORACLES_ROOT", &self.root).current_dir(directory).stdin(Stdio::null());
        command
    }
}

/// Whether a program of the host can be run.
pub fn host_has(program: impl AsRef<OsStr>) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// How often something is tried: what the environment variable says, for many by hand, else the usual number.
pub fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |count| count.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// What is on a terminal on which somebody types `keys` (as for printf) one second after the program began, with `exit CODE`,
/// and `silent` if the terminal does not show what is typed afterwards.
pub fn typed(directory: &Path, words: &str, keys: &str) -> Option<String> {
    if !host_has("script") {
        skip("there is no script(1) to make a terminal");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_sif-convert");
    let inside = format!("{program} {words}\necho \"exit $?\"\nstty -a | grep -qw -- -echo && echo silent\n");
    std::fs::write(directory.join("inside"), inside).unwrap();
    let terminal = format!("(sleep 1; printf '{keys}'; sleep 1) | script -qc 'sh inside' /dev/null");
    let done = run(Command::new("sh").args(["-c", &terminal]).current_dir(directory));
    Some(String::from_utf8(done.stdout).unwrap())
}
