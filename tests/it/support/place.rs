//! A directory in which the program is run, gone when dropped.

use std::path::PathBuf;
use std::process::Command;

use super::run::{Run, program, run, scratch};

pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Place(scratch())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The program there, which is its home too.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.0.path()).env("HOME", self.0.path()).args(words);
        command
    }

    /// Runs it; it must succeed.
    pub fn good(&self, words: &[&str]) -> Run {
        let done = run(&mut self.command(words));
        assert_eq!(done.code, 0, "{words:?}: {}", done.stderr);
        done
    }
}
