use crate::model::EntryPath;

/// What an entry's name asks for (OCI image-spec layer.md, "Whiteouts"; AUFS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marker {
    /// `.wh.NAME`: remove `NAME` of lower layers from this directory.
    Whiteout {
        /// The directory, as written.
        directory: Box<[u8]>,
        /// The name to remove.
        name: Box<[u8]>,
    },
    /// `.wh..wh..opq`: remove all names of lower layers from this directory.
    Opaque {
        /// The directory, as written.
        directory: Box<[u8]>,
    },
    /// Bookkeeping of AUFS (`.wh..wh.plnk`, `.wh..wh.aufs`), a whiteout of nothing (`.wh.`), or something inside of a
    /// marker: dropped.
    Dropped,
}

/// Tells whether `path` is a marker.
pub(super) fn marker(path: &EntryPath) -> Option<Marker> {
    let (directory, name) = path.split_last()?;
    // What lies in a directory that is itself a marker would bring the marker's name into the output.
    if directory.split(|&byte| byte == b'/').any(|part| part.starts_with(b".wh.")) {
        return Some(Marker::Dropped);
    }
    let hidden = name.strip_prefix(b".wh.")?;
    Some(match hidden {
        b".wh..opq" => Marker::Opaque { directory: directory.into() },
        // `.wh.`, `.wh..` and `.wh...` name nothing that could be removed.
        b"" | b"." | b".." => Marker::Dropped,
        // `.wh..wh.plnk`, `.wh..wh.aufs` and their like.
        name if name.starts_with(b".wh.") => Marker::Dropped,
        name => Marker::Whiteout { directory: directory.into(), name: name.into() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let of = |path: &str| marker(&EntryPath::parse(path.as_bytes()).unwrap());
        let whiteout = |directory: &str, name: &str| {
            Some(Marker::Whiteout { directory: directory.as_bytes().into(), name: name.as_bytes().into() })
        };
        assert_eq!(of("a/.wh.b"), whiteout("a", "b"));
        assert_eq!(of(".wh.b"), whiteout("", "b"));
        assert_eq!(of("a/.wh..hidden"), whiteout("a", ".hidden"));
        assert_eq!(of("a/.wh..wh..opq"), Some(Marker::Opaque { directory: b"a"[..].into() }));
        for dropped in
            [".wh..wh.plnk", ".wh..wh.plnk/12.34", "a/.wh.b/c", "a/.wh..wh.aufs", "a/.wh.", "a/.wh..", "a/.wh..."]
        {
            assert_eq!(of(dropped), Some(Marker::Dropped), "{dropped}");
        }
        for plain in ["a", "a.wh.b", "a/wh.b", ".w", ""] {
            assert_eq!(of(plain), None, "{plain}");
        }
    }
}
