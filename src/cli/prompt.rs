//! A passphrase from a terminal, or from standard input.

use std::io::{BufRead, Read, stdin};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::printer;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::gocryptfs::Passphrase;

/// The most that is read, in bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Asks for a passphrase as Apptainer does: on a terminal without showing it, else one line of standard input.
pub(super) fn ask(stdin_is_terminal: bool) -> Result<Passphrase> {
    if stdin_is_terminal {
        printer::prompt("Enter encryption passphrase: ");
        let echo = tcgetattr(stdin()).map_err(|error| Error::io(ErrorKind::Other, error.into()))?;
        let mut silent = echo.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        let set = |modes| tcsetattr(stdin(), OptionalActions::Now, modes);
        set(&silent).map_err(|error| Error::io(ErrorKind::Other, error.into()))?;
        let line = line();
        let _ = set(&echo);
        printer::prompt("\n");
        return Passphrase::new(line?);
    }
    Passphrase::new(line()?)
}

fn line() -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(LINE_BYTES_MAX as usize);
    stdin().lock().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(bytes)
}
