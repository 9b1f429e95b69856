//! PAX records (POSIX.1-2017, pax interchange format): `LENGTH KEY=VALUE\n`, where VALUE may be any bytes, newlines and
//! NULs included, so that only LENGTH says where a record ends.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use percent_encoding::percent_decode;

use super::number::parse_decimal;
use crate::model::{Timestamp, Xattrs};

/// Records in the order they stand: PAX sparse 0.0 repeats keys, and their order counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(Vec<Record>);

/// Key and value.
type Record = (Box<[u8]>, Box<[u8]>);

impl Records {
    /// Parses an extended header's payload. `None` where a record is malformed.
    pub(super) fn parse(mut payload: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !payload.is_empty() && payload.iter().any(|&byte| byte != 0) {
            let blank = payload.iter().take(20).position(|&byte| byte == b' ')?;
            let length = usize::try_from(parse_decimal(&payload[..blank])?).ok()?;
            let record = payload.get(blank + 1..length)?;
            let (last, body) = record.split_last()?;
            let equals = body.iter().position(|&byte| byte == b'=')?;
            if *last != b'\n' || !is_valid(&body[..equals], &body[equals + 1..]) {
                return None;
            }
            records.push((body[..equals].into(), body[equals + 1..].into()));
            payload = &payload[length..];
        }
        Some(Records(records))
    }

    /// Takes over what a global header says: a later value replaces an earlier one.
    pub(super) fn merge(&mut self, newer: Records) {
        for (key, value) in newer.0 {
            self.0.retain(|(old, _)| *old != key);
            self.0.push((key, value));
        }
    }

    /// Bytes held, to be bounded by the caller.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// What Go's reader, and so Docker, takes: keys and names of files are C strings to whoever uses them.
fn is_valid(key: &[u8], value: &[u8]) -> bool {
    let names = [&b"path"[..], b"linkpath", b"GNU.sparse.name"];
    let has_nul = key.contains(&0) || names.contains(&key) && value.contains(&0);
    !key.is_empty() && !has_nul
}

/// Local records before global ones. An empty value means "as if there were no record", and so hides a global one.
pub(super) struct Lookup<'a> {
    pub(super) local: &'a Records,
    pub(super) global: &'a Records,
}

impl Lookup<'_> {
    /// The value that counts for `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let last = |records: &'_ Records| -> Option<usize> { records.0.iter().rposition(|(name, _)| **name == *key) };
        let value = match (last(self.local), last(self.global)) {
            (Some(at), _) => &self.local.0[at].1,
            (None, Some(at)) => &self.global.0[at].1,
            (None, None) => return None,
        };
        (!value.is_empty()).then_some(value)
    }

    /// Extended attributes in the spellings of star, GNU tar and Docker (`SCHILY.xattr.`) and of libarchive
    /// (`LIBARCHIVE.xattr.`: name percent-encoded, value in base64). The former wins where both are there.
    /// `None` where a value cannot be decoded, or a name holds a NUL, which no file system and no PAX key can.
    pub(super) fn xattrs(&self) -> Option<Option<Box<Xattrs>>> {
        let mut xattrs = Xattrs::new();
        let records = || self.global.iter().chain(self.local.iter());
        for (key, value) in records() {
            if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                let name: Vec<u8> = percent_decode(name).collect();
                if name.contains(&0) {
                    return None;
                }
                if !name.is_empty() {
                    xattrs.insert(name.into(), base64_decode(value)?.into());
                }
            }
        }
        for (key, value) in records() {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| !name.is_empty()) {
                xattrs.insert(decode_gnu_name(name).into(), value.into());
            }
        }
        Some((!xattrs.is_empty()).then(|| Box::new(xattrs)))
    }
}

/// `1234567890.123456789`, with an optional sign; digits past the ninth are cut off towards the past.
pub(super) fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, text),
    };
    let dot = digits.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = dot.map_or((digits, &b""[..]), |dot| (&digits[..dot], &digits[dot + 1..]));
    let seconds = i64::try_from(parse_decimal(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let padded = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = padded.fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp::from_seconds(-seconds),
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// GNU tar spells `=` as `%3D` and `%` as `%25` in names of extended attributes, and nothing else.
fn decode_gnu_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        let (decoded, after) = match after {
            [b'3', b'D', tail @ ..] if byte == b'%' => (b'=', tail),
            [b'2', b'5', tail @ ..] if byte == b'%' => (b'%', tail),
            _ => (byte, after),
        };
        out.push(decoded);
        rest = after;
    }
    out
}

/// RFC 4648, section 4, padded or not: libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'\n').collect();
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines_and_nuls() {
        let records = Records::parse(b"15 a=b\n9 c=d\n\0\n11 path=xy\n\0\0\0").unwrap();
        let global = Records::default();
        let lookup = Lookup { local: &records, global: &global };
        assert_eq!(lookup.get(b"a"), Some(&b"b\n9 c=d\n\0"[..]));
        assert_eq!(lookup.get(b"path"), Some(&b"xy"[..]));
        for bad in [&b"5 a=b"[..], b"6 a=bb", b"x a=b\n", b"6 ab_\n", b"99 a=b\n", b"6 =ab\n", b" a=b\n"] {
            assert!(Records::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_local_value_hides_the_global_one() {
        let global = Records::parse(b"11 path=xy\n8 uid=7\n").unwrap();
        let local = Records::parse(b"8 path=\n").unwrap();
        let lookup = Lookup { local: &local, global: &global };
        assert_eq!((lookup.get(b"path"), lookup.get(b"uid")), (None, Some(&b"7"[..])));
    }

    #[test]
    fn times_before_the_epoch_and_between_seconds() {
        let time = |text: &str| parse_time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time("-3"), Some((-3, 0)));
        assert_eq!(time("0.1234567891"), Some((0, 123_456_789)));
        assert_eq!(time("1."), Some((1, 0)));
        for bad in ["", "-", ".5", "1.x", "1e3", "99999999999999999999"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_nul_in_keys_and_names() {
        let bad = [&b"27 SCHILY.xattr.user.a\0b=v\n"[..], b"12 path=a\0b\n", b"16 linkpath=a\0b\n", b"8 a\0b=c\n"];
        for bad in bad {
            assert!(Records::parse(bad).is_none(), "{bad:?}");
        }
        let encoded = Records::parse(b"34 LIBARCHIVE.xattr.user.a%00b=AA\n").unwrap();
        assert!(Lookup { local: &encoded, global: &Records::default() }.xattrs().is_none());
        let nameless = Records::parse(b"24 LIBARCHIVE.xattr.=AA\n").unwrap();
        assert!(matches!(Lookup { local: &nameless, global: &Records::default() }.xattrs(), Some(None)));
    }

    #[test]
    fn libarchive_spelling() {
        let local = Records::parse(b"38 LIBARCHIVE.xattr.user.a%20b=AAH/gA\n").unwrap();
        let xattrs = Lookup { local: &local, global: &Records::default() }.xattrs().unwrap().unwrap();
        assert_eq!(xattrs.into_iter().next().unwrap(), (b"user.a b"[..].into(), [0, 1, 0xff, 0x80][..].into()));
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8", Some(b"fo")),
            ("Zm9v\nYmFy", Some(b"foobar")),
            ("Zh", Some(b"f")),
            ("Z", None),
            ("Zm9v!", None),
            ("Zg==Zg==", None),
        ] {
            assert_eq!(base64_decode(text.as_bytes()).as_deref(), bytes, "{text}");
        }
    }
}
