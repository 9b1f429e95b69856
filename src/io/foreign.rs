//! Formats that are told by bytes at a fixed place and that nothing here reads: they are refused by name.

/// How much must be seen to tell all of them: an ISO 9660 image says what it is at byte 32769.
pub(crate) const FOREIGN_LOOK_BYTES: usize = 33 << 10;

/// (offset, bytes, what it is).
const FORMATS: [(usize, &[u8], &str); 16] = [
    (32, b"SIF_MAGIC", "a SIF image"),
    (0, b"hsqs", "a squashfs file system"),
    (0, b"#!/usr/bin/env run-singularity\n", "an image of Singularity 2"),
    (1080, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS file system"),
    (32769, b"CD001", "an ISO 9660 image"),
    (0, b"\x7fELF", "a program"),
    (0, b"\0asm", "a WebAssembly module"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"!<arch>\n", "a Debian package or ar archive"),
    (0, b"\xed\xab\xee\xdb", "an RPM package"),
    (0, b"QFI\xfb", "a virtual machine disk"),
    (0, b"\x02\x21\x4c\x18", "an lz4 stream"),
    (0, b"\x04\x22\x4d\x18", "an lz4 stream"),
];

/// What bytes that are not a tar seem to be, where that is known. A tar may begin with any name: look at its header first.
pub(crate) fn foreign_format(start: &[u8]) -> Option<&'static str> {
    let fits = |&&(offset, bytes, _): &&(usize, &[u8], &str)| {
        start.get(offset..).is_some_and(|there| there.starts_with(bytes))
    };
    FORMATS.iter().find(fits).map(|&(_, _, what)| what)
}
