//! Manual pages. clap_mangen fills whatever it is given; tables and examples are made legible here, as roff has them.

use std::ffi::OsString;

use clap::Command;

use crate::error::{ErrorKind, IoResultExt, Result};

/// Headings of what stands below the options.
const SECTIONS: [&str; 3] = ["Examples:", "Environment:", "Exit codes:"];
/// Lines that are further in than this go on with the right column of a table.
const LEFT_COLUMN_MAX: usize = 8;

/// A page for `command` and for each of its commands: file name and roff.
pub(super) fn pages(command: &Command) -> Result<Vec<(OsString, String)>> {
    let mut all = Vec::new();
    for each in command.get_subcommands().filter(|each| !each.is_hide_set()) {
        all.extend(pages(each)?);
    }
    let man = clap_mangen::Man::new(command.clone());
    let mut bytes = Vec::new();
    man.render(&mut bytes).or_kind(ErrorKind::Other)?;
    let usage = command.clone().render_usage().to_string();
    let roff = String::from_utf8(bytes).unwrap_or_default();
    all.push((man.get_filename().into(), legible(&roff, &usage)));
    Ok(all)
}

/// `roff` with its tables as lists of terms, its headings as sections, and `usage` as its synopsis.
fn legible(roff: &str, usage: &str) -> String {
    let mut page = String::new();
    let (mut in_synopsis, mut in_table, mut is_text_before) = (false, false, false);
    for line in roff.lines() {
        // What stands there are sections of their own.
        if line == ".SH EXTRA" {
            continue;
        }
        if line.starts_with(".SH") {
            in_synopsis = line.contains("SYNOPSIS");
            push(&mut page, line);
            if in_synopsis {
                push(&mut page, &synopsis(usage));
            }
            (in_table, is_text_before) = (false, false);
            continue;
        }
        if in_synopsis {
            continue;
        }
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if text.is_empty() || text.starts_with('.') {
            push(&mut page, line);
            (in_table, is_text_before) = (in_table && text.is_empty(), false);
        } else if indent > LEFT_COLUMN_MAX {
            push(&mut page, &guarded(text));
        } else if indent > 1 {
            let (left, right) = text.split_once("  ").unwrap_or((text, ""));
            push(&mut page, &format!(".TP 4\n\\fB{left}\\fR\n{}", guarded(right.trim_start())));
            in_table = true;
        } else if SECTIONS.contains(&text) {
            push(&mut page, &format!(".SH {}", text.trim_end_matches(':').to_uppercase()));
            (in_table, is_text_before) = (false, false);
        } else {
            if std::mem::take(&mut in_table) {
                push(&mut page, ".PP");
            } else if is_text_before && is_term(text) {
                push(&mut page, ".br");
            }
            push(&mut page, line);
            is_text_before = true;
        }
    }
    page
}

fn push(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}

/// "Usage: a\n       b" as two lines.
fn synopsis(usage: &str) -> String {
    let lines = usage.lines().map(|line| line.trim().trim_start_matches("Usage: ").replace('-', "\\-"));
    lines.collect::<Vec<_>>().join("\n.br\n")
}

/// A line of text that cannot be taken for a request, and is not empty.
fn guarded(text: &str) -> String {
    if text.is_empty() || text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text.to_string() }
}

/// Whether a line explains a word: "reuse: use it if …".
fn is_term(text: &str) -> bool {
    let word = text.split(':').next().unwrap_or_default();
    word.len() < text.len() && word.chars().all(|letter| letter.is_ascii_lowercase() || "\\-".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_lists_and_headings_sections() {
        let roff = ".SH SYNOPSIS\nsif\\-convert lots\n.SH DESCRIPTION\nIt is one of\n  PATH     a file, or\n           a directory\n  \
                    \\-       standard input\n\nMore.\n.TP\n\\fB\\-\\-x\\fR\nWhat\nreuse: use it\nupdate: use it\n.SH EXTRA\nExit codes:\n  0        done";
        let page = ".SH SYNOPSIS\na \\-\\-to X\n.br\na CMD\n.SH DESCRIPTION\nIt is one of\n.TP 4\n\\fBPATH\\fR\na file, or\na directory\n.TP 4\n\
                    \\fB\\-\\fR\nstandard input\n\n.PP\nMore.\n.TP\n\\fB\\-\\-x\\fR\nWhat\n.br\nreuse: use it\n.br\nupdate: use it\n\
                    .SH EXIT CODES\n.TP 4\n\\fB0\\fR\ndone\n";
        assert_eq!(legible(roff, "Usage: a --to X\n       a CMD"), page);
    }
}
