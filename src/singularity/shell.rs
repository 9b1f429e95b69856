//! The little of the shell's language that Singularity's own files are written in: assignments of words.

/// Reads a script of nothing but assignments and exports, in the order of its lines, into `variables`. Known variables are
/// expanded.
///
/// # Errors
/// The first line that is something else.
pub(super) fn assignments(script: &str, variables: &mut Vec<(String, String)>) -> Result<(), String> {
    let mut rest = script;
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', '\t', '\n', ';']);
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
            continue;
        }
        if rest.is_empty() {
            break;
        }
        let line = rest.lines().next().unwrap_or_default().to_string();
        rest = statement(rest, variables).ok_or(line)?;
    }
    Ok(())
}

/// One assignment or export; what follows it.
fn statement<'a>(text: &'a str, variables: &mut Vec<(String, String)>) -> Option<&'a str> {
    // Ours: a variable that is set already keeps its value. Nothing is set here but by the lines before.
    let text = match text.strip_prefix("test -n \"${") {
        Some(guarded) => guarded.split_once(":-}\" || ").filter(|(name, _)| is_name(name))?.1,
        None => text,
    };
    let exported = text.strip_prefix("export ").map(|text| text.trim_start_matches([' ', '\t']));
    let text = exported.unwrap_or(text);
    let name_bytes = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(name_bytes);
    if !is_name(name) {
        return None;
    }
    let Some(value) = rest.strip_prefix('=') else {
        // `export NAME`, or of several names.
        let rest = rest.trim_start_matches([' ', '\t']);
        let ends = rest.is_empty() || rest.starts_with(['\n', ';']);
        exported?;
        return if ends { Some(rest) } else { statement_after_export(rest, variables) };
    };
    let known = |name: &str| variables.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let (value, rest) = word(value, Some(name), &known)?;
    set(variables, name, value);
    let rest = rest.trim_start_matches([' ', '\t']);
    match rest.chars().next() {
        None | Some('\n' | ';') => Some(rest),
        Some('#') => Some(rest.split_once('\n').map_or("", |(_, rest)| rest)),
        _ if exported.is_some() => statement_after_export(rest, variables),
        _ => None,
    }
}

/// `export A=1 B=2`.
fn statement_after_export<'a>(rest: &'a str, variables: &mut Vec<(String, String)>) -> Option<&'a str> {
    let offset = rest.len();
    let again = format!("export {rest}");
    let left = statement(&again, variables)?.len();
    Some(&rest[offset - left..])
}

/// Gives a variable its value at the place where its name came first.
pub(super) fn set(variables: &mut Vec<(String, String)>, name: &str, value: String) {
    match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => variables.push((name.to_string(), value)),
    }
}

/// One word as the shell would make it, and what follows. `own` is the variable that it is assigned to: Singularity writes
/// `"${NAME:-"VALUE"}"`, in which the default is what counts.
fn word<'a>(text: &'a str, own: Option<&str>, known: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'a str)> {
    let mut value = String::new();
    let mut rest = text;
    let guard = own.map(|name| format!("${{{name}:-"));
    loop {
        if let Some(guard) = &guard {
            // With and without quotes around, and inside.
            for (open, close) in
                [(format!("\"{guard}\""), "\"}\""), (format!("\"{guard}"), "}\""), (format!("{guard}\""), "\"}")]
            {
                if let Some(inner) = rest.strip_prefix(open.as_str()) {
                    let (default, after) = double_quoted(inner, close, known)?;
                    value.push_str(&default);
                    return Some((value, after));
                }
            }
        }
        match rest.chars().next() {
            None | Some('\n' | ' ' | '\t' | ';') => return Some((value, rest)),
            Some('\'') => {
                let (inner, after) = rest[1..].split_once('\'')?;
                value.push_str(inner);
                rest = after;
            }
            Some('"') => {
                let (inner, after) = double_quoted(&rest[1..], "\"", known)?;
                value.push_str(&inner);
                rest = after;
            }
            Some('\\') => {
                let escaped = rest[1..].chars().next()?;
                value.push_str(if escaped == '\n' { "" } else { &rest[1..1 + escaped.len_utf8()] });
                rest = &rest[1 + escaped.len_utf8()..];
            }
            Some('$') => {
                let (expanded, after) = expansion(rest, known)?;
                value.push_str(&expanded);
                rest = after;
            }
            Some('`' | '(' | ')' | '<' | '>' | '|' | '&' | '*' | '?' | '[' | '~') => return None,
            Some(plain) => {
                value.push(plain);
                rest = &rest[plain.len_utf8()..];
            }
        }
    }
}

/// Text in double quotes up to `close`, and what follows that.
fn double_quoted<'a>(text: &'a str, close: &str, known: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'a str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix(close) {
            return Some((value, after));
        }
        match rest.chars().next()? {
            '\\' => {
                let escaped = rest[1..].chars().next()?;
                match escaped {
                    '\\' | '"' | '$' | '`' => value.push(escaped),
                    '\n' => {}
                    other => value.extend(['\\', other]),
                }
                rest = &rest[1 + escaped.len_utf8()..];
            }
            '$' => {
                let (expanded, after) = expansion(rest, known)?;
                value.push_str(&expanded);
                rest = after;
            }
            '`' | '"' => return None,
            plain => {
                value.push(plain);
                rest = &rest[plain.len_utf8()..];
            }
        }
    }
}

/// `$NAME` or `${NAME}` of a known variable. A `$` before anything else that is not a name stands for itself.
fn expansion<'a>(text: &'a str, known: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'a str)> {
    let after = &text[1..];
    let braced = after.strip_prefix('{');
    let start = braced.unwrap_or(after);
    let end = start.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(start.len());
    let (name, rest) = start.split_at(end);
    if !is_name(name) {
        let is_special = after.starts_with(|c: char| "({@*#?-$!0123456789".contains(c));
        return (!is_special).then(|| ("$".to_string(), after));
    }
    let rest = if braced.is_some() { rest.strip_prefix('}')? } else { rest };
    Some((known(name)?, rest))
}

/// The value of `NAME=…` in `script`, at the start of a line and in single quotes: how runscripts say what an image runs.
pub(super) fn single_quoted_value(script: &str, name: &str) -> Option<String> {
    let at = script.match_indices(name).find(|(at, _)| {
        (*at == 0 || script.as_bytes()[at - 1] == b'\n') && script[at + name.len()..].starts_with('=')
    })?;
    word(&script[at.0 + name.len() + 1..], None, &|_| None).map(|(value, _)| value)
}

/// The words of a line of literal words, quoted or not.
pub(super) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t']);
    while !rest.is_empty() {
        let (next, after) = word(rest, None, &|_| None)?;
        words.push(next);
        let left = after.trim_start_matches([' ', '\t']);
        if after.starts_with(['\n', ';']) {
            return None;
        }
        rest = left;
    }
    Some(words)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::singularity::quote::{double_quoted as quote, single_quoted};

    fn read(script: &str) -> Result<Vec<(String, String)>, String> {
        let mut variables = vec![("PATH".to_string(), "/bin".to_string())];
        assignments(script, &mut variables).map(|()| variables.split_off(1))
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_forms_of_all_makers_are_read() {
        for (script, expected) in [
            ("#!/bin/sh\nexport A=\"${A:-\"b c\"}\"\n", &[("A", "b c")][..]),
            ("export A=\"${A:-}\"\n", &[("A", "")]),
            ("export A=\"${A:-x}\"\n", &[("A", "x")]),
            ("export A=${A:-\"x y\"}\n", &[("A", "x y")]),
            ("export A=\"${A:-\"q\\\"d\\$e\\`f\\\\g\"}\"", &[("A", "q\"d$e`f\\g")]),
            ("test -n \"${A:-}\" || A='it'\"'\"'s'\nexport A\n", &[("A", "it's")]),
            ("A=1; export A\nB='2'\nexport B C\n", &[("A", "1"), ("B", "2")]),
            ("  export A=1 B=\"2 3\" # why\n\n# no\nA=4", &[("A", "4"), ("B", "2 3")]),
            ("export Q=/opt/bin:$PATH:${PATH}/x\n", &[("Q", "/opt/bin:/bin:/bin/x")]),
            ("A=\"two\nlines\"\n", &[("A", "two\nlines")]),
            ("A=a\\ b\\\nc", &[("A", "a bc")]),
            ("A=5$", &[("A", "5$")]),
        ] {
            assert_eq!(read(script), Ok(pairs(expected)), "{script:?}");
        }
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused_by_its_line() {
        for line in [
            "if [ -d /x ]; then",
            "A=$(date)",
            "A=`id`",
            "A=$UNKNOWN",
            ". /etc/profile",
            "echo hi",
            "A=1 B=2",
            "A=\"open",
        ] {
            assert_eq!(read(&format!("B=1\n{line}\nC=2\n")), Err(line.to_string()), "{line}");
        }
    }

    #[test]
    fn words_come_back_as_they_were_quoted() {
        let texts = ["", "a b", "it's", "$x `y` \\z", "\"q\"", "--option=*", "two\nlines", "ä"];
        let line = texts.map(quote).join(" ");
        let script = format!("#!/bin/sh\nOCI_ENTRYPOINT={}\nOCI_CMD=''\n", single_quoted(&line));
        let value = single_quoted_value(&script, "OCI_ENTRYPOINT").unwrap();
        assert_eq!(words(&value).unwrap(), texts);
        assert_eq!(single_quoted_value(&script, "OCI_CMD"), Some(String::new()));
        assert_eq!(words(""), Some(Vec::new()));
    }
}
