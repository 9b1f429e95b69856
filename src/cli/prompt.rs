//! A passphrase from a terminal, or from standard input.

use std::fs::File;
use std::io::{BufRead as _, Read as _, Write as _, stdin};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::gocryptfs::Passphrase;
use crate::trust::Zeroizing;

/// Most bytes of a passphrase.
pub(super) const PASSPHRASE_BYTES_MAX: usize = 4096;

/// Asks for a passphrase to encrypt with as Apptainer does: on a terminal, else one line of standard input.
pub(super) fn ask(stdin_is_terminal: bool) -> Result<Passphrase> {
    let mut line = if stdin_is_terminal { on_terminal("Enter encryption passphrase: ")? } else { line_of_input()? };
    Passphrase::new(std::mem::take(&mut *line))
}

fn line_of_input() -> Result<Zeroizing<Vec<u8>>> {
    let most = PASSPHRASE_BYTES_MAX + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    stdin().lock().take(most as u64).read_until(b'\n', &mut bytes).or_kind(ErrorKind::SourceUnavailable)?;
    Ok(bytes)
}

/// Asks on the terminal, where what is typed is not shown.
pub(super) fn on_terminal(words: &str) -> Result<Zeroizing<Vec<u8>>> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal.map_err(|_| {
        let message = "there is no terminal to ask for the passphrase";
        Error::new(ErrorKind::Usage, message)
            .hint("put the passphrase into a file, or a descriptor N, and name the file, or /dev/fd/N")
    })?;
    let usual = tcgetattr(&terminal).map_err(std::io::Error::from).or_kind(ErrorKind::Other)?;
    let mut silent = usual.clone();
    // Without signals, too: one that ended us would leave a terminal that shows nothing.
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(std::io::Error::from).or_kind(ErrorKind::Other)?;
    let line = terminal.write_all(words.as_bytes()).or_kind(ErrorKind::Other).and_then(|()| line_of(&mut terminal));
    let _ = tcsetattr(&terminal, OptionalActions::Flush, &usual);
    let _ = terminal.write_all(b"\n");
    line
}

fn line_of(terminal: &mut File) -> Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX));
    let mut byte = [0];
    loop {
        let count = terminal.read(&mut byte).or_kind(ErrorKind::Other)?;
        match byte[0] {
            _ if count == 0 => return Ok(line),
            b'\r' | b'\n' | 0x04 => return Ok(line),
            0x03 => return Err(Error::new(ErrorKind::Interrupted, "stopped while asking for a passphrase")),
            0x08 | 0x7f => {
                // A whole character.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            // Control-U starts over.
            0x15 => line.clear(),
            other if line.len() < PASSPHRASE_BYTES_MAX => line.push(other),
            _ => {
                return Err(
                    Error::new(ErrorKind::Usage, "the passphrase is too long").hint("give one of at most 4096 bytes")
                );
            }
        }
    }
}
