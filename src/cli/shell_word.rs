use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::model::Quoted;

/// A word as a shell takes it.
pub(super) fn shell_word(word: &OsStr) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:=@,+%[]".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(is_plain) {
        return text(word);
    }
    format!("'{}'", text(word).replace('\'', "'\\''"))
}

/// A word as text; what is not UTF-8 is shown with escapes, for nobody could type it.
fn text(word: &OsStr) -> String {
    let escaped = || Quoted(word.as_bytes()).to_string().trim_matches('"').to_string();
    word.to_str().map_or_else(escaped, str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let word = |text: &str| shell_word(OsStr::new(text));
        assert_eq!(["x.tar", "a b", "it's", "", "$x"].map(word), ["x.tar", "'a b'", "'it'\\''s'", "''", "'$x'"]);
    }
}
