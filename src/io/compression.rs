use std::fmt;
use std::str::FromStr;

use super::Codec;
use crate::error::{Error, ErrorKind, Result};

/// How something is compressed: a kind, and a level where one was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    kind: Codec,
    level: Option<u32>,
}

impl Compression {
    /// Not at all.
    pub const NONE: Compression = Compression { kind: Codec::None, level: None };
    /// gzip at the level that is usual for what it compresses.
    pub const GZIP: Compression = Compression { kind: Codec::Gzip, level: None };
    /// zstd at the level that is usual for what it compresses.
    pub const ZSTD: Compression = Compression { kind: Codec::Zstd, level: None };

    /// gzip at a level from 1 to 12.
    pub const fn gzip(level: u32) -> Self {
        Compression { kind: Codec::Gzip, level: Some(level) }
    }

    /// zstd at a level from 1 to 22.
    pub const fn zstd(level: u32) -> Self {
        Compression { kind: Codec::Zstd, level: Some(level) }
    }

    /// `None`, `Gzip` or `Zstd`.
    pub const fn kind(self) -> Codec {
        self.kind
    }

    /// The level, where one was chosen or [`Levels::settle`] filled it in.
    pub const fn level(self) -> Option<u32> {
        self.level
    }

    /// What a file name gains that is compressed so: `.gz`, `.zst` or nothing.
    pub const fn suffix(self) -> &'static str {
        match self.kind {
            Codec::Gzip => ".gz",
            Codec::Zstd => ".zst",
            _ => "",
        }
    }

    /// What the extension of a file name says.
    pub fn of_extension(extension: Option<&str>) -> Self {
        match extension {
            Some("gz" | "tgz") => Compression::GZIP,
            Some("zst" | "zstd" | "tzst") => Compression::ZSTD,
            _ => Compression::NONE,
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::new(ErrorKind::Usage, format!("{text:?} is not a compression"))
                .hint("write none, gzip, gzip:1 to gzip:12, zstd, or zstd:1 to zstd:22")
        };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u32>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let within = |max| level.is_none_or(|level| (1..=max).contains(&level));
        match name {
            "none" if level.is_none() => Ok(Compression::NONE),
            "gzip" if within(12) => Ok(Compression { kind: Codec::Gzip, level }),
            "zstd" if within(22) => Ok(Compression { kind: Codec::Zstd, level }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        self.level.map_or(Ok(()), |level| write!(f, ":{level}"))
    }
}

/// What one use of compression takes, and what it does where nothing is chosen.
#[derive(Debug)]
pub struct Levels {
    /// What is compressed, as a message names it.
    what: &'static str,
    /// Kind, usual level, highest level. The first kind is the usual one.
    kinds: &'static [(Codec, u32, u32)],
}

impl Levels {
    /// A whole tar: the levels of the programs `gzip` and `zstd`, and their usual ones.
    pub const TAR: Levels = Levels { what: "a tar", kinds: &[NONE, (Codec::Gzip, 6, 9), (Codec::Zstd, 3, 22)] };
    /// A tar that is always a `.tar.gz`.
    pub const TAR_GZ: Levels = Levels { what: "a .tar.gz", kinds: &[(Codec::Gzip, 6, 9)] };
    /// A layer. With libdeflate the lowest level of gzip is as small as what skopeo writes.
    pub const LAYER: Levels = Levels { what: "a layer", kinds: &[NONE, (Codec::Gzip, 1, 12), (Codec::Zstd, 3, 22)] };
    /// The blocks of a squashfs. libdeflate's level 5 compresses half a percent less than zlib's 9, the default of
    /// mksquashfs, at fifteen times the speed; level 6 as well as that, at twelve times. zstd at 9 is smaller than gzip at
    /// most of its speed.
    pub const SQUASHFS: Levels = Levels { what: "a squashfs", kinds: &[(Codec::Gzip, 5, 12), (Codec::Zstd, 9, 22)] };

    /// The compression that is meant, with its level.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when this use does not take it.
    pub fn settle(&self, asked: Option<Compression>) -> Result<Compression> {
        let Levels { what, kinds } = self;
        let kind = asked.map_or(kinds[0].0, |asked| asked.kind);
        let level = asked.and_then(|asked| asked.level);
        let hint = || format!("{what} takes {}", self.choices());
        let Some(&(_, usual, max)) = kinds.iter().find(|(each, ..)| *each == kind) else {
            let message = match kind {
                Codec::None => format!("{what} is always compressed"),
                kind => format!("{what} is not compressed with {kind}"),
            };
            return Err(Error::new(ErrorKind::Usage, message).hint(hint()));
        };
        match level {
            Some(level) if !(1..=max).contains(&level) => {
                Err(Error::new(ErrorKind::Usage, format!("{what} has no {kind} level {level}")).hint(hint()))
            }
            _ if kind == Codec::None => Ok(Compression::NONE),
            level => Ok(Compression { kind, level: Some(level.unwrap_or(usual)) }),
        }
    }

    fn choices(&self) -> String {
        let spelled = self.kinds.iter().map(|(kind, _, max)| match kind {
            Codec::None => "none".to_string(),
            kind => format!("{kind}:1 to {kind}:{max}"),
        });
        spelled.collect::<Vec<_>>().join(", or ")
    }
}

const NONE: (Codec, u32, u32) = (Codec::None, 0, 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_written() {
        for text in ["none", "gzip", "gzip:12", "zstd", "zstd:1", "zstd:22"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for text in ["", "none:1", "gzip:0", "gzip:13", "zstd:23", "zstd:-1", "xz", "lz4", "Gzip"] {
            assert_eq!(text.parse::<Compression>().unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn each_use_has_its_levels() {
        let settled = |levels: &Levels, text: &str| levels.settle(Some(text.parse().unwrap())).map(|it| it.to_string());
        for (levels, usual, gzip, zstd, refused) in [
            (&Levels::TAR, "none", "gzip:6", Some("zstd:3"), &["gzip:10"][..]),
            (&Levels::TAR_GZ, "gzip:6", "gzip:6", None, &["none", "zstd", "gzip:12"]),
            (&Levels::LAYER, "none", "gzip:1", Some("zstd:3"), &[]),
            (&Levels::SQUASHFS, "gzip:5", "gzip:5", Some("zstd:9"), &["none"]),
        ] {
            assert_eq!(levels.settle(None).unwrap().to_string(), usual);
            assert_eq!(settled(levels, "gzip").unwrap(), gzip);
            assert_eq!(settled(levels, "zstd").ok().as_deref(), zstd);
            for text in refused {
                let error = settled(levels, text).unwrap_err();
                assert!(error.kind() == ErrorKind::Usage && error.remedy().is_some(), "{text}");
            }
        }
        // A library user is not bound to what text can say.
        assert!(Levels::LAYER.settle(Some(Compression::gzip(13))).is_err());
        assert!(Levels::LAYER.settle(Some(Compression::zstd(0))).is_err());
    }
}
