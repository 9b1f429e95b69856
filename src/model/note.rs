use std::fmt;

use serde::Serialize;

/// Something the user should know that is not an error: what was dropped, changed or will not work. Nothing is lost without
/// a note; the report lists them all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// A stable word for programs: `device-nodes-dropped`, `environment-name-skipped`, …
    pub code: &'static str,
    /// One sentence for people, lower case, no final period.
    pub message: String,
    /// How many things it is about.
    pub count: u64,
    /// The first few of them, escaped for display.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

impl Note {
    /// How many examples a note carries at most.
    pub const EXAMPLES_MAX: usize = 5;

    /// A note about `count` things.
    pub fn new(code: &'static str, message: impl Into<String>, count: u64) -> Self {
        Note { code, message: message.into(), count, examples: Vec::new() }
    }

    /// Adds an example, as long as there is room for it.
    pub fn example(&mut self, example: impl ToString) {
        if self.examples.len() < Self::EXAMPLES_MAX {
            self.examples.push(example.to_string());
        }
    }
}

/// For people: the message, the examples, and how many more there are.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        let more = self.count.saturating_sub(self.examples.len() as u64);
        match (self.examples.is_empty(), more) {
            (true, 0 | 1) => Ok(()),
            (true, _) => write!(f, " ({} times)", Grouped(self.count)),
            (false, 0) => write!(f, ": {}", self.examples.join(", ")),
            (false, _) => write!(f, ": {} and {} more", self.examples.join(", "), Grouped(more)),
        }
    }
}

/// A number for people: `34,567`.
pub(crate) struct Grouped(pub(crate) u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.chars().enumerate() {
            let comma = if at > 0 && (digits.len() - at).is_multiple_of(3) { "," } else { "" };
            write!(f, "{comma}{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([7, 999, 1000, 1_234_567].map(|n| Grouped(n).to_string()), ["7", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn notes_count_and_show() {
        let mut note = Note::new("device-nodes-dropped", "device nodes dropped", 7);
        assert_eq!(note.to_string(), "device nodes dropped (7 times)");
        note.example("\"dev/null\"");
        note.example("\"dev/zero\"");
        assert_eq!(note.to_string(), "device nodes dropped: \"dev/null\", \"dev/zero\" and 5 more");
        assert_eq!(Note::new("x", "once", 1).to_string(), "once");
    }
}
