use std::fmt::{self, Write as _};

/// Shows bytes that came out of an image to a person: quoted, and with everything unprintable escaped, so that a hostile
/// name can neither forge a line of output nor drive a terminal. UTF-8 that is printable is shown as it is.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' | '\\' => write!(f, "\\{character}")?,
                    '\n' => f.write_str("\\n")?,
                    '\t' => f.write_str("\\t")?,
                    _ if hides(character) => write!(f, "{}", character.escape_unicode())?,
                    _ => f.write_char(character)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

/// Control characters, and the marks that reorder or hide what stands around them.
pub(crate) fn hides(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_there() {
        assert_eq!(Quoted("grüße".as_bytes()).to_string(), "\"grüße\"");
        assert_eq!(Quoted(b"a\xffb\n\"\x1b[2J").to_string(), r#""a\xffb\n\"\u{1b}[2J""#);
    }
}
