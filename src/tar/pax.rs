//! PAX records (POSIX.1-2017, pax interchange format): `LENGTH KEY=VALUE\n`, where VALUE may be any bytes, newlines and
//! NULs included, so that only LENGTH says where a record ends.

use std::collections::BTreeMap;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use percent_encoding::percent_decode;

use super::number::parse_decimal;
use crate::model::{Timestamp, Xattrs};

/// Records in the order they stand: PAX sparse 0.0 repeats keys, and their order counts. Only those that somebody may ask
/// for: others cost nothing, however many there are.
#[derive(Debug, Clone, Default)]
pub(super) struct Records(Vec<Record>);

/// Key and value.
type Record = (Box<[u8]>, Box<[u8]>);

/// Records of global headers: a later value replaces an earlier one.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    records: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: usize,
}

/// Keys that the reader asks for, besides those that begin with one of [`PREFIXES`].
const KEYS: [&[u8]; 8] =
    [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.devmajor", b"SCHILY.devminor"];
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
const PREFIXES: [&[u8]; 3] = [LIBARCHIVE_XATTR, SCHILY_XATTR, b"GNU.sparse."];

fn is_asked_for(key: &[u8]) -> bool {
    KEYS.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

impl Records {
    /// Parses an extended header's payload. `None` where a record is malformed.
    pub(super) fn parse(mut payload: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        // What pads the last record are zeros: looked for once, for a payload may have 100,000 records.
        let end = payload.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let mut at = 0;
        while at < end {
            let blank = payload.iter().take(20).position(|&byte| byte == b' ')?;
            let length = usize::try_from(parse_decimal(&payload[..blank])?).ok()?;
            let record = payload.get(blank + 1..length)?;
            let (last, body) = record.split_last()?;
            let equals = body.iter().position(|&byte| byte == b'=')?;
            if *last != b'\n' || !is_valid(&body[..equals], &body[equals + 1..]) {
                return None;
            }
            if is_asked_for(&body[..equals]) {
                records.push((body[..equals].into(), body[equals + 1..].into()));
            }
            payload = &payload[length..];
            at += length;
        }
        Some(Records(records))
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

impl Globals {
    /// Takes over what a global header says.
    pub(super) fn merge(&mut self, newer: Records) {
        for (key, value) in newer.0 {
            let key_bytes = key.len();
            self.bytes += key_bytes + value.len();
            if let Some(old) = self.records.insert(key, value) {
                self.bytes -= key_bytes + old.len();
            }
        }
    }

    /// Bytes held, to be bounded by the caller.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// Local records before global ones. An empty value means "as if there were no record", and so hides a global one.
pub(super) struct Lookup<'a> {
    pub(super) local: &'a Records,
    pub(super) global: &'a Globals,
}

impl Lookup<'_> {
    /// The value that counts for `key`.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        debug_assert!(is_asked_for(key));
        let local = self.local.0.iter().rev().find(|(name, _)| **name == *key).map(|(_, value)| value);
        let value = local.or_else(|| self.global.records.get(key))?;
        (!value.is_empty()).then_some(value)
    }

    /// Extended attributes in the spellings of star, GNU tar and Docker (`SCHILY.xattr.`) and of libarchive
    /// (`LIBARCHIVE.xattr.`: name percent-encoded, value in base64). The former wins where both are there.
    /// `None` where a value cannot be decoded, or a name holds a NUL, which no file system and no PAX key can.
    pub(super) fn xattrs(&self) -> Option<Option<Box<Xattrs>>> {
        let mut xattrs = Xattrs::new();
        let records = || self.global.iter().chain(self.local.iter());
        for (key, value) in records() {
            if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
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
            if let Some(name) = key.strip_prefix(SCHILY_XATTR).filter(|name| !name.is_empty()) {
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
        let records = Records::parse(b"19 mtime=b\n9 c=d\n\0\n15 linkpath=xy\n\0\0\0").unwrap();
        let global = Globals::default();
        let lookup = Lookup { local: &records, global: &global };
        assert_eq!(lookup.get(b"mtime"), Some(&b"b\n9 c=d\n\0"[..]));
        assert_eq!(lookup.get(b"linkpath"), Some(&b"xy"[..]));
        for bad in [&b"5 a=b"[..], b"6 a=bb", b"x a=b\n", b"6 ab_\n", b"99 a=b\n", b"6 =ab\n", b" a=b\n", b"6 a=b\nx"] {
            assert!(Records::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_empty_local_value_hides_the_global_one() {
        let mut global = Globals::default();
        global.merge(Records::parse(b"11 path=xy\n8 uid=7\n").unwrap());
        let local = Records::parse(b"8 path=\n").unwrap();
        let lookup = Lookup { local: &local, global: &global };
        assert_eq!((lookup.get(b"path"), lookup.get(b"uid")), (None, Some(&b"7"[..])));
    }

    #[test]
    fn records_that_nobody_asks_for_are_not_kept() {
        let records = Records::parse(b"13 comment=x\n8 uid=7\n25 SCHILY.xattr.user.a=b\n").unwrap();
        assert_eq!(records.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&b"uid"[..], b"SCHILY.xattr.user.a"]);
        let mut global = Globals::default();
        for value in [&b"8 uid=7\n"[..], b"11 uid=789\n", b"9 uid=78\n"] {
            global.merge(Records::parse(value).unwrap());
        }
        assert_eq!(global.bytes(), 5);
        assert_eq!(Lookup { local: &Records::default(), global: &global }.get(b"uid"), Some(&b"78"[..]));
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
        assert!(Lookup { local: &encoded, global: &Globals::default() }.xattrs().is_none());
        let nameless = Records::parse(b"24 LIBARCHIVE.xattr.=AA\n").unwrap();
        assert!(matches!(Lookup { local: &nameless, global: &Globals::default() }.xattrs(), Some(None)));
    }

    #[test]
    fn gnu_spelling() {
        for (name, decoded) in [("a%3Db%25", "a=b%"), ("x3Dx25", "x3Dx25"), ("%%3D%253D%2", "%=%3D%2")] {
            assert_eq!(decode_gnu_name(name.as_bytes()), decoded.as_bytes(), "{name}");
        }
    }

    #[test]
    fn libarchive_spelling() {
        let local = Records::parse(b"38 LIBARCHIVE.xattr.user.a%20b=AAH/gA\n").unwrap();
        let xattrs = Lookup { local: &local, global: &Globals::default() }.xattrs().unwrap().unwrap();
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
