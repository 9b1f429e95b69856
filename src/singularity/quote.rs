/// `text` as one shell word that no shell expands, and that the runtime's embedded shell (mvdan/sh) reads right too:
///
/// * An inner single quote is `'"'"'`; the shorter `'\''` comes out of its assignments with the backslash.
/// * CR LF loses its CR when the two stand side by side in the text, quoted or not: the quotes end between them.
/// * U+0080 and U+0081 are what its parser marks the end of the text and a joined line with: one of them in a file loses
///   the whole file. They are spelled in octal.
pub(super) fn single_quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => quoted.push_str(r#"'"'"'"#),
            '\r' if characters.peek() == Some(&'\n') => quoted.push_str("\r''"),
            '\u{80}' => quoted.push_str(r#"'"$(printf '\302\200')"'"#),
            '\u{81}' => quoted.push_str(r#"'"$(printf '\302\201')"'"#),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
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
        assert_eq!(single_quoted("a\r\n\rb"), "'a\r''\n\rb'");
        assert_eq!(single_quoted("\u{80}\u{81}"), r#"''"$(printf '\302\200')"''"$(printf '\302\201')"''"#);
        assert_eq!(double_quoted(r#"a"b\c`d$e'f"#), r#""a\"b\\c\`d\$e'f""#);
    }
}
