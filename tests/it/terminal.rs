//! What a person sees: the program in tmux, at several widths, captured as text.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::entry::{Content, Entry, Kind};
use crate::support::fake::{Body, Fake, Repository};
use crate::support::{layer, pack, run};

/// A terminal of some width in a directory of its own.
pub struct Terminal {
    scratch: tempfile::TempDir,
}

impl Terminal {
    /// A terminal whose shell knows the program as `sif-convert`; `None` where there is no tmux.
    pub fn open(columns: usize) -> Option<Terminal> {
        if !Command::new("tmux").arg("-V").output().is_ok_and(|output| output.status.success()) {
            run::skip("there is no tmux");
            return None;
        }
        let terminal = Terminal { scratch: run::scratch() };
        let link = terminal.scratch.path().join("sif-convert");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sif-convert"), link).unwrap();
        let size = columns.to_string();
        terminal.tmux(&["new-session", "-d", "-x", &size, "-y", "24", "exec env PS1='$ ' bash --norc"]);
        terminal.wait("a prompt", |screen| screen.contains('$'));
        Some(terminal)
    }

    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    pub fn tmux(&self, arguments: &[&str]) -> String {
        // The name of a socket is short, and a scratch directory's is not.
        let socket = format!("/tmp/{}.tmux", self.path().file_name().unwrap().to_str().unwrap());
        let mut command = Command::new("tmux");
        command.args(["-S", &socket, "-f", "/dev/null"]).args(arguments).current_dir(self.path());
        command.env_clear().env("PS1", "$ ").env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color");
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path().display()));
        let done = run::run(&mut command);
        assert_eq!(done.code, 0, "tmux {arguments:?}: {}", done.stderr);
        String::from_utf8(done.stdout).unwrap()
    }

    pub fn enter(&self, line: &str) {
        self.tmux(&["send-keys", line, "Enter"]);
    }

    /// What is on the screen, without the empty lines below.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"]).trim_end().to_string()
    }

    fn colours(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    pub fn wait(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let screen = self.screen();
            if is_there(&screen) {
                return screen;
            }
            assert!(Instant::now() < until, "waited for {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// A registry that sends half of a layer of 1 MiB and then nothing.
fn stalling() -> Fake {
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(1 << 20)
    .collect();
    let repository = Repository::of(&[layer::tar_of(&[Entry::new("noise", Kind::File(Content::data(noise)))])]);
    Fake::start(move |request| {
        let answer = repository.answer(request);
        match &answer.body {
            Body::Whole(bytes) if bytes.len() > 1 << 19 => answer.spoilt(|bytes| {
                let half = bytes.len() / 2 + 1;
                Body::Stalled(bytes, half)
            }),
            _ => answer,
        }
    })
}

#[test]
fn a_bar_is_sane_at_every_width() {
    let registry = stalling();
    let host = registry.host();
    for columns in [20, 40, 80, 200] {
        let Some(terminal) = Terminal::open(columns) else { return };
        terminal.enter(&format!("clear; sif-convert docker://{host}/x:1 --to sif --insecure {host}"));
        let screen = terminal.wait("half of it", |screen| screen.matches("50%").count() == 2);
        let rows: Vec<&str> = screen.lines().collect();
        let has_bar = |row: &&str| row.contains("=>") && row.contains("] 50%");
        assert_eq!(rows.len(), 2, "the phase and the layer, at {columns} columns:\n{screen}");
        assert!(rows[0].starts_with("reading") && rows[1].starts_with("  "), "{columns} columns:\n{screen}");
        assert!(rows.iter().all(|row| row.len() < columns), "{columns} columns:\n{screen}");
        assert!(rows.iter().all(|row| has_bar(row) == (columns >= 40)), "{columns} columns:\n{screen}");
        assert_eq!(screen.contains("KiB of 1.1 MiB"), columns >= 80, "{columns} columns:\n{screen}");
    }
}

#[test]
fn a_bar_survives_a_resize_and_an_interrupt() {
    let registry = stalling();
    let host = registry.host();
    let Some(terminal) = Terminal::open(100) else { return };
    // At the bottom of the screen, as most often: what tmux wraps at its top goes into its history.
    terminal.enter(&format!("seq 100 140; sif-convert docker://{host}/x:1 --to sif --insecure {host}"));
    terminal.wait("half of it", |screen| screen.contains("50%"));
    for columns in ["40", "120", "30", "80"] {
        terminal.tmux(&["resize-window", "-x", columns, "-y", "24"]);
        std::thread::sleep(Duration::from_millis(400));
        let screen = terminal.screen();
        assert_eq!(screen.matches("reading").count(), 1, "at {columns} columns:\n{screen}");
        assert_eq!(screen.matches('%').count(), 2, "at {columns}:\n{screen}");
    }
    terminal.tmux(&["send-keys", "C-c"]);
    let screen = terminal.wait("the end", |screen| screen.contains("hint:"));
    assert!(!screen.contains('%') && screen.contains("error: "), "{screen}");
}

#[test]
fn nothing_of_a_bar_is_left_when_it_succeeds() {
    let Some(terminal) = Terminal::open(80) else { return };
    std::fs::write(terminal.path().join("x.tar"), pack::docker_archive(&[layer::tar_of(&[])], pack::Squeeze::Not))
        .unwrap();
    terminal.enter("clear; (head -c 1000 x.tar; sleep 1; tail -c +1001 x.tar) | sif-convert - --to sif -o x.sif");
    terminal.wait("a bar", |screen| screen.contains("opening the source"));
    let screen = terminal.wait("the end", |screen| screen.contains("wrote") && screen.ends_with('$'));
    let after: Vec<&str> = screen.lines().collect();
    assert!(after[0].starts_with("wrote \"x.sif\": ") && after[1..] == ["$"], "{screen}");
    terminal.enter("clear; sif-convert x.tar --to sif -o x.sif --if-exists reuse");
    let screen = terminal.wait("the end", |screen| screen.contains("reused"));
    assert!(screen.starts_with("reused \"x.sif\": ") && !screen.contains("warning"), "{screen}");
}

#[test]
fn labels_are_coloured_where_people_want_it() {
    let Some(terminal) = Terminal::open(80) else { return };
    let calls = std::cell::Cell::new(0);
    let red = |settings: &str| {
        calls.set(calls.get() + 1);
        let end = format!("ended {}", calls.get());
        terminal.enter(&format!(
            "clear; {settings} sif-convert missing --to sif; echo {}",
            end.replace("ended", "end''ed")
        ));
        terminal.wait("the end", |screen| screen.contains(&end));
        let screen = terminal.colours();
        assert!(screen.contains("error:"), "{screen}");
        screen.contains("\x1b[1m\x1b[31merror:")
    };
    assert!(red("") && red("NO_COLOR=") && red("CLICOLOR=1"));
    assert!(!red("NO_COLOR=1") && !red("TERM=dumb") && !red("CLICOLOR=0"));
    let piped = |settings: &str| {
        let mut command = run::program();
        let done = run::run(command.args(["missing", "--to", "sif"]).envs(settings.split_once('=')));
        done.stderr.contains('\x1b')
    };
    assert!(!piped("") && piped("CLICOLOR_FORCE=1"));
}

/// `-v` tells the phases, each with its time, and each request.
#[test]
fn verbose_tells_phases_and_requests() {
    let registry = Repository::of(&[layer::tar_of(&[])]);
    let server = Fake::start(move |request| registry.answer(request));
    let scratch = run::scratch();
    let host = server.host();
    let mut command = run::program();
    command.args([&format!("docker://{host}/x:1"), "--to", "sif", "-v", "--progress", "none", "--insecure", &host]);
    let done = run::run(command.current_dir(scratch.path()));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let phases = ["opening the source: ", "reading layers: ", "writing the output: ", "finishing the output: "];
    let lines: Vec<&str> = done.stderr.lines().collect();
    let at = phases.map(|phase| lines.iter().position(|line| line.starts_with(phase) && line.ends_with(" s")).unwrap());
    assert!(at.is_sorted() && lines.last().unwrap().starts_with("wrote "), "{}", done.stderr);
    let requests = lines.iter().filter(|line| line.starts_with("GET http://") && line.contains(": 200, ")).count();
    assert_eq!(requests, server.log().iter().filter(|request| request.method == "GET").count(), "{}", done.stderr);
    assert!(requests >= 2);
}
