use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// `os/architecture[/variant]` in Go's spelling (`linux/amd64`, `linux/arm/v7`), normalised as containerd does it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …
    pub variant: Option<String>,
}

impl Platform {
    /// A platform from the parts an image document holds.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.filter(|v| !v.is_empty()).map(str::to_ascii_lowercase);
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64", _) => ("amd64".into(), variant),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386".into(), None),
            ("aarch64", None | Some("8" | "v8")) | ("arm64", Some("8" | "v8")) => ("arm64".into(), None),
            ("armhf", _) => ("arm".into(), Some("v7".into())),
            ("armel", _) => ("arm".into(), Some("v6".into())),
            ("arm", None) => ("arm".into(), Some("v7".into())),
            _ => (architecture, variant),
        };
        Platform { os: os.to_ascii_lowercase(), architecture, variant }
    }

    /// Linux on the architecture this program was built for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Platform::new("linux", architecture, None)
    }

    /// Whether an image for `self` serves a request for `wanted`: a request without a variant takes any.
    pub fn serves(&self, wanted: &Platform) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (wanted.variant.is_none() || self.variant == wanted.variant)
    }
}

impl Platform {
    /// How far an image for `self` is from what a machine of platform `wanted` runs best: 0 is that; older variants are
    /// further away; `None` is what does not run there. A machine of unknown variant runs the least best.
    pub fn distance(&self, wanted: &Platform) -> Option<u32> {
        let base = match wanted.architecture.as_str() {
            "arm64" => 8,
            _ => 1,
        };
        let version = |variant: &Option<String>| match variant.as_deref() {
            None => Some(base),
            Some(variant) => variant.strip_prefix('v').and_then(|digits| digits.parse::<u32>().ok()),
        };
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        match (version(&self.variant), version(&wanted.variant)) {
            _ if self.variant == wanted.variant => Some(0),
            (Some(own), Some(_)) if wanted.variant.is_none() => Some(own),
            (Some(own), Some(most)) => most.checked_sub(own),
            (None, _) if wanted.variant.is_none() => Some(u32::MAX),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let usable = parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic()));
        match parts[..] {
            [os, architecture] if usable => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] if usable => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(Error::new(ErrorKind::Usage, format!("{text:?} is not a platform"))
                .hint("write OS/ARCH or OS/ARCH/VARIANT, for example linux/amd64 or linux/arm/v7")),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_run_older_variants() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (image, machine, distance) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64/v3", "linux/amd64", Some(3)),
            ("linux/amd64", "linux/amd64/v3", Some(2)),
            ("linux/amd64/v4", "linux/amd64/v3", None),
            ("linux/arm/v6", "linux/arm/v7", Some(1)),
            ("linux/arm/v7", "linux/arm/v6", None),
            ("linux/arm64", "linux/arm64/v9", Some(1)),
            ("linux/arm64", "linux/arm/v7", None),
            ("windows/amd64", "linux/amd64", None),
        ] {
            assert_eq!(platform(image).distance(&platform(machine)), distance, "{image} on {machine}");
        }
    }

    #[test]
    fn normalises() {
        for (given, want) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/ARM/V6", "linux/arm/v6"),
        ] {
            assert_eq!(given.parse::<Platform>().unwrap().to_string(), want);
        }
        assert!("linux".parse::<Platform>().is_err());
        assert!("linux//v7".parse::<Platform>().is_err());
    }
}
