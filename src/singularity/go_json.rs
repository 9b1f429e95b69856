use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use crate::error::{Error, ErrorKind, Result};

/// `value` as Go's `json.Marshal` writes it.
pub(super) fn compact(value: &impl Serialize) -> Result<String> {
    write(value, CompactFormatter)
}

/// `value` as Go's `json.MarshalIndent(value, "", "\t")` writes it: no newline at the end.
pub(super) fn indented(value: &impl Serialize) -> Result<String> {
    write(value, PrettyFormatter::with_indent(b"\t"))
}

fn write(value: &impl Serialize, formatter: impl Formatter) -> Result<String> {
    let bug = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Bug, format!("writing JSON: {error}"));
    let mut bytes = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).map_err(|error| bug(&error))?;
    String::from_utf8(bytes).map(|text| escape_for_html(&text)).map_err(|error| bug(&error))
}

/// Go escapes five characters that JSON need not; they occur inside strings only, so the whole text can be gone over.
fn escape_for_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn escapes_as_go_does() {
        let text = "<&>\u{2028}\u{2029}\"\\/\u{1}\u{8}\u{b}\u{c}\n\r\t\u{1f}\u{7f}é";
        let want = r#""\u003c\u0026\u003e\u2028\u2029\"\\/\u0001\b\u000b\f\n\r\t\u001fDELé""#.replace("DEL", "\u{7f}");
        assert_eq!(compact(&text).unwrap(), want);
    }

    #[test]
    fn indents_as_go_does() {
        let mut map = BTreeMap::new();
        assert_eq!(indented(&map).unwrap(), "{}");
        map.insert("b", "1");
        map.insert("B", "<");
        assert_eq!(indented(&map).unwrap(), "{\n\t\"B\": \"\\u003c\",\n\t\"b\": \"1\"\n}");
    }
}
