/// `text` as one shell word that no shell expands.
///
/// An inner single quote is written `'"'"'`: the shorter `'\''` comes out of the runtime's embedded shell (mvdan/sh) with
/// its backslash (`specs/sif.md` section 2.5).
pub(super) fn single_quoted(text: &str) -> String {
    format!("'{}'", inside_single_quotes(text))
}

fn inside_single_quotes(text: &str) -> String {
    text.replace('\'', r#"'"'"'"#)
}

/// `text` in double quotes with everything escaped that is special there.
pub(super) fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if matches!(character, '\\' | '"' | '`' | '$') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(single_quoted(""), "''");
        assert_eq!(single_quoted("it's $x"), r#"'it'"'"'s $x'"#);
        assert_eq!(double_quoted(r#"a"b\c`d$e'f"#), r#""a\"b\\c\`d\$e'f""#);
    }
}
