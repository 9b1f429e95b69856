//! Standard error as a screen: lines that stay, and below them rows that are drawn again and again.
//!
//! Between two drawings the cursor stands at the start of the first row. So whatever comes next — a line, a prompt, or the
//! rows again after the terminal was resized and wrapped them — erases from there to the end of the screen, and need not
//! know how many rows the old ones take now.

use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::tcgetwinsize;

/// Erases from the cursor to the end of the screen (ED, ECMA-48 8.3.39).
const ERASE_BELOW: &str = "\x1b[J";
/// The same from the start of the line: a terminal echoes what is typed, such as ^C, at the cursor.
const ERASE_ROWS: &str = "\r\x1b[J";
/// Erases from the cursor to the end of the line (EL, ECMA-48 8.3.41).
const ERASE_LINE: &str = "\x1b[K";

/// What is below the lines that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    Nothing,
    Rows,
    /// Nothing, for ever: the process is about to end.
    Closed,
}

static BELOW: Mutex<Below> = Mutex::new(Below::Nothing);

fn lock() -> MutexGuard<'static, Below> {
    BELOW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stderr that is gone is no reason to stop.
fn write(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes a line that stays, above the rows.
pub(super) fn write_line(mut text: String) {
    let mut below = lock();
    text.push('\n');
    if *below == Below::Rows {
        *below = Below::Nothing;
        text.insert_str(0, ERASE_ROWS);
    }
    write(&text);
}

/// Erases the rows, and has none drawn any more.
pub(super) fn close() {
    let mut below = lock();
    if *below == Below::Rows {
        write(ERASE_ROWS);
    }
    *below = Below::Closed;
}

/// Draws `rows` in place of those that are there; none erases them. Each must be narrower than the screen.
pub(super) fn draw(rows: &[String]) {
    let mut below = lock();
    if *below == Below::Closed {
        return;
    }
    if let Some(text) = drawing(rows, *below == Below::Rows) {
        write(&text);
    }
    *below = if rows.is_empty() { Below::Nothing } else { Below::Rows };
}

fn drawing(rows: &[String], has_rows: bool) -> Option<String> {
    if rows.is_empty() {
        return has_rows.then(|| ERASE_ROWS.to_string());
    }
    let rows_text: Vec<String> = rows.iter().map(|row| format!("\r{row}{ERASE_LINE}")).collect();
    let mut text = rows_text.join("\n");
    text.push_str(ERASE_BELOW);
    text.push('\r');
    if rows.len() > 1 {
        text.push_str(&format!("\x1b[{}A", rows.len() - 1));
    }
    Some(text)
}

/// Columns and rows of the screen, where stderr is one that says.
pub(super) fn size() -> (usize, usize) {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_ends_where_it_began() {
        let rows = ["one".to_string(), "two".to_string(), "three".to_string()];
        let text = drawing(&rows, false).unwrap();
        assert_eq!(text, "\rone\x1b[K\n\rtwo\x1b[K\n\rthree\x1b[K\x1b[J\r\x1b[2A");
        assert_eq!(drawing(&rows[..1], true).unwrap(), "\rone\x1b[K\x1b[J\r");
        assert_eq!((drawing(&[], true).unwrap().as_str(), drawing(&[], false)), ("\r\x1b[J", None));
    }
}
