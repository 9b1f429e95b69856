/// Reads a numeric field: octal digits among blanks and NULs (POSIX), or base-256 where the first bit is set (GNU, star),
/// which may be negative.
///
/// Returns `None` for anything else, and for what does not fit.
pub(super) fn parse_field(field: &[u8]) -> Option<i64> {
    match field.first() {
        Some(&first) if first & 0x80 != 0 => parse_base256(field),
        _ => parse_octal(field),
    }
}

/// Two's complement, big-endian, the marker bit taken out of the first byte: 0x80 is positive, 0xff negative.
fn parse_base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let mut value = i128::from(if negative { first as i8 } else { first as i8 & 0x7f });
    for &byte in &field[1..] {
        value = value.checked_mul(256)? + i128::from(byte);
    }
    i64::try_from(value).ok()
}

fn parse_octal(field: &[u8]) -> Option<i64> {
    let blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    // What follows the first terminator is not looked at: old writers left rubbish there.
    digits[..end].iter().try_fold(0i64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(i64::from(digit))
    })
}

/// Whether a field holds a number and, unlike in [`parse_field`], nothing behind it.
pub(super) fn is_number(field: &[u8]) -> bool {
    let is_blank = |byte: &u8| *byte == b' ' || *byte == 0;
    let end = field.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
    let start = field[..end].iter().position(|byte| !is_blank(byte)).unwrap_or(end);
    let digits = &field[start..end];
    field[0] & 0x80 != 0 || until_nul(digits).iter().all(|digit| matches!(digit, b'0'..=b'7'))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A decimal number with an optional minus sign: what owners may be in PAX records.
pub(super) fn parse_signed_decimal(text: &[u8]) -> Option<i64> {
    match text.split_first()? {
        (b'-', digits) => i64::try_from(parse_decimal(digits)?).ok().map(|value| -value),
        _ => i64::try_from(parse_decimal(text)?).ok(),
    }
}

/// Decimal digits and nothing else, as PAX records hold them.
pub(super) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_base256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77777777)),
            (b"12 34", Some(0o12)),
            (b"0000648\0", None),
            (b"-1", None),
            (b"\x80\0\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        ] {
            assert_eq!(parse_field(field), value, "{field:?}");
        }
        assert_eq!(parse_decimal(b"18446744073709551616"), None);
        for bad in ["", "1:", "1/", "-1", " 1"] {
            assert_eq!(parse_decimal(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_decimal(b"42"), Some(42));
    }
}
