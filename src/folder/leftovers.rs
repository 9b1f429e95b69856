//! What macOS leaves in folders: none of it belongs to what a folder is shared for.

use super::scan::Kind;

/// Directories and files of the Finder, of Spotlight, of archives and network shares, by name.
const NAMES: [&[u8]; 14] = [
    b".DS_Store",
    b"__MACOSX",
    b".AppleDouble",
    b".AppleDB",
    b".AppleDesktop",
    b".LSOverride",
    b".Spotlight-V100",
    b".Trashes",
    b".fseventsd",
    b".TemporaryItems",
    b".DocumentRevisions-V100",
    b".VolumeIcon.icns",
    b".apdisk",
    b"Icon\r",
];

/// Whether `name` is such a leftover. `._NAME` are files that hold what a foreign file system could not say of NAME.
pub(super) fn is_leftover(name: &[u8], kind: &Kind) -> bool {
    NAMES.contains(&name) || matches!(kind, Kind::File { .. }) && name.len() > 2 && name.starts_with(b"._")
}
