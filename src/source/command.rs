//! An archive that is the output of a command. Its exit code counts: a shell reports that of a pipe's last command alone.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::OpenOptions;
use super::archive::Archive;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::io::Monitor;

/// How often a command that has closed its output is asked whether it has ended.
const POLL: Duration = Duration::from_millis(10);

/// Runs `command` in `/bin/sh` and reads the archive that it writes to its standard output. It inherits standard input and
/// standard error, so that it can ask for a passphrase.
///
/// # Errors
/// [`ErrorKind::SourceUnavailable`] when it cannot be run or does not exit with 0, whatever it wrote.
pub(super) fn archive(command: &OsStr, name: String, options: &OpenOptions, monitor: &Monitor) -> Result<Archive> {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).stdout(Stdio::piped());
    let mut child = Process(shell.spawn().or_kind(ErrorKind::SourceUnavailable)?);
    let stdout = child.0.stdout.take();
    let mut at_end = false;
    let archive = Archive::of_reader(Pipe { stdout, at_end: &mut at_end }, None, name, options, monitor);
    if !at_end {
        return archive;
    }
    let status = loop {
        match child.0.try_wait().or_kind(ErrorKind::SourceUnavailable)? {
            Some(status) => break status,
            None => std::thread::sleep(POLL),
        }
        monitor.check()?;
    };
    if status.success() {
        return archive;
    }
    let failure = failure(status);
    Err(match archive {
        Ok(_) => failure,
        Err(error) => failure.because(error),
    })
}

fn failure(status: ExitStatus) -> Error {
    let message = format!("the command failed ({status})");
    Error::new(ErrorKind::SourceUnavailable, message).hint("its own messages say why; run it alone to see them")
}

/// A command that ends with us.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already, or nobody reads its output any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command writes, and whether that was read to its end. Dropped, it is closed.
struct Pipe<'a, R> {
    stdout: Option<R>,
    at_end: &'a mut bool,
}

impl<R: Read> Read for Pipe<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stdout.as_mut().map_or(Ok(0), |stdout| stdout.read(buffer))?;
        *self.at_end |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}
