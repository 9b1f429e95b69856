use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use super::exit::Failure;
use super::{fatal, screen};
use crate::error::{ErrorKind, IoResultExt, Result, ResultExt};
use crate::model::{Grouped, Note, hides};
use crate::registry::redacted;

/// Whether labels and bars are coloured: decided once, before anything is written.
static IS_COLOURED: AtomicBool = AtomicBool::new(false);

/// Has labels and bars coloured from now on.
pub(super) fn colour() {
    IS_COLOURED.store(true, Ordering::Relaxed);
}

/// Whether labels and bars are coloured.
pub(super) fn is_coloured() -> bool {
    IS_COLOURED.load(Ordering::Relaxed)
}

/// The labels that begin a line, and their colours (SGR parameters, ECMA-48 8.3.117): those of cargo and gcc.
const LABELS: [(&str, &str); 4] = [("error:", "1;31"), ("caused by:", "1"), ("warning:", "1;33"), ("hint:", "1;36")];

/// Writes one line of words to stderr. Characters that drive a terminal, or reorder or hide what stands around them, are
/// escaped, so that no text can forge a line. A stderr that is gone is no reason to stop.
pub(super) fn line(text: &str) {
    let text = redacted(text);
    let mut safe = String::with_capacity(text.len() + 1);
    for character in text.chars() {
        if hides(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    screen::write_line(if is_coloured() { painted(safe) } else { safe });
}

/// `line` with its label coloured.
fn painted(line: String) -> String {
    let label = LABELS.iter().find_map(|(label, colour)| Some((label, colour, line.strip_prefix(label)?)));
    match label {
        Some((label, colour, rest)) => format!("\x1b[{colour}m{label}\x1b[0m{rest}"),
        None => line,
    }
}

/// Writes one event to stderr, as one line of JSON.
pub(super) fn event(event: &impl Serialize) {
    if let Ok(document) = serde_json::to_value(event) {
        screen::write_line(safe_json(&without_secrets(document).to_string()));
    }
}

/// A document without the secrets that this process knows, whoever put them there.
pub(super) fn without_secrets(document: Value) -> Value {
    match document {
        Value::String(text) => Value::String(redacted(&text)),
        Value::Array(all) => all.into_iter().map(without_secrets).collect(),
        Value::Object(all) => all.into_iter().map(|(key, value)| (key, without_secrets(value))).collect(),
        other => other,
    }
}

/// JSON that says the same, and shows nothing to a terminal that could drive it: JSON itself escapes only what is below the
/// blank. Characters like these stand nowhere but in strings; line ends and tabs are what JSON is laid out with.
pub(super) fn safe_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if hides(character) && !matches!(character, '\n' | '\t') {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Writes data to stdout.
pub(super) fn data(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.or_kind(ErrorKind::Output).doing(|| "writing to standard output")
}

/// How much is said, and in which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Voice {
    /// Errors only.
    pub(super) quiet: bool,
    /// Everything.
    pub(super) verbose: bool,
    /// One JSON object a line instead of words.
    pub(super) json: bool,
    /// Failures as Apptainer tells them.
    pub(super) fatal: bool,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Warning(&'a Note),
    Error(&'a Failure),
}

impl Voice {
    /// Something that only the curious want to know.
    pub(super) fn detail(self, text: &str) {
        if self.verbose && !self.json {
            line(text);
        }
    }

    /// The line that ends a success.
    pub(super) fn summary(self, text: &str) {
        if !self.quiet && !self.json {
            line(text);
        }
    }

    /// Something the user should know that is not an error.
    pub(super) fn warning(self, note: &Note) {
        match self {
            Voice { quiet: true, .. } => {}
            Voice { json: true, .. } => event(&Event::Warning(note)),
            _ => line(&format!("warning: {note}")),
        }
    }

    /// What went wrong.
    pub(super) fn failure(self, failure: &Failure) {
        if self.json {
            event(&Event::Error(failure));
        } else if self.fatal {
            fatal::lines(failure).iter().for_each(|text| line(text));
        } else {
            failure.lines().iter().for_each(|text| line(text));
        }
    }
}

/// A number of bytes for people: `1.2 GiB`.
pub(super) struct Bytes(pub(super) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95 would round to 1024.0 of the smaller unit.
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A number with its noun: `1 layer`, `2 layers`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", Grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let bytes = [0, 1023, 1024, 1536, (1 << 20) - 1, 1 << 20, 2_847_000_000, u64::MAX];
        let shown = bytes.map(|bytes| Bytes(bytes).to_string());
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "2.7 GiB", "16.0 EiB"]);
    }

    #[test]
    fn json_stays_json_and_drives_no_terminal() {
        let hostile = "a\u{7f}\u{85}\u{9b}2J\u{202e}\u{2066}\u{feff}\n\t\"grüße";
        for text in [serde_json::to_string(hostile), serde_json::to_string_pretty(&[hostile])] {
            let safe = safe_json(&text.unwrap());
            assert!(safe.chars().all(|character| character == '\n' || !hides(character)), "{safe:?}");
            assert!(safe.contains(r#"a\u007f\u0085\u009b2J\u202e\u2066\ufeff\n\t\"grüße"#), "{safe}");
            assert!(
                serde_json::from_str::<serde_json::Value>(&safe)
                    .is_ok_and(|value| { value.as_str().or_else(|| value[0].as_str()) == Some(hostile) })
            );
        }
    }

    #[test]
    fn labels_are_painted_and_nothing_else() {
        assert_eq!(painted("error: no error: here".into()), "\x1b[1;31merror:\x1b[0m no error: here");
        assert_eq!(painted("no error: here".into()), "no error: here");
    }
}
