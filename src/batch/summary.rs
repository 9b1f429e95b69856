use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::record::{Row, Status};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::{Output, umask};

/// What became of a batch.
#[derive(Debug)]
#[non_exhaustive]
pub struct Summary {
    /// All images that were asked for, in the order of the list.
    pub rows: Vec<Row>,
    /// Why it ended before its time.
    pub stopped: Option<Error>,
    /// Outputs that were removed, for no source of the list makes them any more.
    pub pruned: Vec<String>,
    /// Outputs that were to be removed, but are not what was made.
    pub spared: Vec<String>,
}

impl Summary {
    /// How many images have this status.
    pub fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }
}

/// The columns of `summary.tsv`.
const COLUMNS: &str = "status\texit\tseconds\tbytes\tdownloaded\tcached\tdigest\tsource\toutput or error\n";

/// A table with a row for each image.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    rows.iter().fold(COLUMNS.to_string(), |mut text, row| {
        let shown = |number: Option<u64>| number.map_or_else(|| "-".to_string(), |number| number.to_string());
        let exit = match (&row.error, row.status) {
            (_, Status::Missing | Status::Skipped) => None,
            (Some(trouble), _) => Some(u64::from(trouble.exit_code)),
            (None, _) => Some(0),
        };
        let last = row.error.as_ref().map_or(&row.output, |trouble| &trouble.message);
        let _ = writeln!(
            text,
            "{}\t{}\t{:.1}\t{}\t{}\t{}\t{}\t{}\t{}",
            row.status.word(),
            shown(exit),
            row.seconds,
            shown(row.bytes),
            row.downloaded_bytes,
            row.cached_bytes,
            row.digest.as_deref().unwrap_or("-"),
            cell(&row.source),
            cell(last)
        );
        text
    })
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    let escaped = |character: char| -> String {
        if character.is_control() { character.escape_default().collect() } else { character.to_string() }
    };
    text.chars().map(escaped).collect()
}

/// An object a line for each image.
///
/// # Errors
/// [`ErrorKind::Bug`] where a row is not JSON.
fn lines(rows: &[Row]) -> Result<String> {
    rows.iter().try_fold(String::new(), |mut text, row| {
        let line = serde_json::to_string(row)
            .map_err(|error| Error::new(ErrorKind::Bug, format!("a row is not JSON: {error}")))?;
        text.push_str(&line);
        text.push('\n');
        Ok(text)
    })
}

/// Writes `summary.tsv` and `summary.jsonl` into `directory`; the table.
///
/// # Errors
/// [`ErrorKind::Output`] and its like when they cannot be written.
pub fn write_summary(directory: &Path, rows: &[Row]) -> Result<String> {
    let table = table(rows);
    for (name, text) in [("summary.tsv", &table), ("summary.jsonl", &lines(rows)?)] {
        let path = directory.join(name);
        let output = Output::create(&path, true, 0o666 & !umask())?;
        (&**output.file())
            .write_all(text.as_bytes())
            .or_kind(ErrorKind::Output)
            .doing(|| format!("writing {path:?}"))?;
        output.publish()?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::super::record::Trouble;
    use super::*;

    #[test]
    fn rows_have_as_many_cells_as_columns() {
        let mut row = Row {
            number: 1,
            status: Status::Done,
            source: "a\tb".into(),
            output: "a.sif".into(),
            digest: Some("sha256:0".into()),
            bytes: Some(4096),
            sha256: None,
            seconds: 1.25,
            downloaded_bytes: 7,
            cached_bytes: 8,
            error: None,
        };
        let good = row.clone();
        row.status = Status::Failed;
        row.error = Some(Trouble { kind: "x".into(), message: "no\nway".into(), hint: "h".into(), exit_code: 4 });
        let missing = Row { status: Status::Missing, bytes: None, digest: None, ..good.clone() };
        let text = table(&[good, row, missing]);
        let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(cells[1], ["done", "0", "1.2", "4096", "7", "8", "sha256:0", "a\\tb", "a.sif"]);
        assert_eq!(cells[2][..3], ["failed", "4", "1.2"]);
        assert_eq!(cells[2][8], "no\\nway");
        assert_eq!(cells[3][..4], ["missing", "-", "1.2", "-"]);
        assert!(cells.iter().all(|row| row.len() == 9));
    }
}
