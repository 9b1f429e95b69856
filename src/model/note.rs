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
