//! The 512-byte header block, read field by field from the layouts that the `tar` crate declares.

use super::number::{is_number, parse_field};

/// Which layout a header's later fields follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Nothing after the link name.
    V7,
    /// POSIX ustar: device numbers and a 155-byte prefix.
    Ustar,
    /// star's ustar: a 131-byte prefix before its times.
    Star,
    /// GNU: device numbers, times and sparse fields where ustar has the prefix.
    Gnu,
}

/// Whether these bytes are a tar header: whether they pass their own checksum.
pub fn is_header(block: &[u8; 512]) -> bool {
    Block::checked(block).is_some()
}

/// A header block that passed its checksum.
pub(super) struct Block(tar::Header);

impl Block {
    /// Takes a block whose checksum is right (summed as unsigned or, as some old writers did, as signed bytes).
    pub(super) fn checked(bytes: &[u8; 512]) -> Option<Self> {
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(bytes);
        let stated = parse_field(&header.as_old().cksum)?;
        let (mut unsigned, mut signed) = (8 * i64::from(b' '), 8 * i64::from(b' '));
        for part in [&bytes[..148], &bytes[156..]] {
            for &byte in part {
                unsigned += i64::from(byte);
                signed += i64::from(byte as i8);
            }
        }
        (stated == unsigned || stated == signed).then_some(Block(header))
    }

    pub(super) fn layout(&self) -> Layout {
        match (self.0.as_ustar(), self.0.as_gnu()) {
            (Some(_), _) if self.0.as_bytes()[508..] == *b"tar\0" => Layout::Star,
            (Some(_), _) => Layout::Ustar,
            (None, Some(_)) => Layout::Gnu,
            // Some writers set the magic without a version.
            (None, None) if self.0.as_bytes()[257..263] == *b"ustar\0" => Layout::Ustar,
            (None, None) => Layout::V7,
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0.as_old().linkflag[0]
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0.as_old().name);
        let bytes = self.0.as_bytes();
        let prefix = match self.layout() {
            Layout::Ustar => until_nul(&bytes[345..500]),
            Layout::Star => until_nul(&bytes[345..476]),
            Layout::Gnu => self.prefix_of_old_go(),
            Layout::V7 => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    /// Go before 1.8, and so Docker to 17.05, wrote ustar's prefix into GNU headers where a number took base-256
    /// (golang.org/issue/12594). As in today's Go, it is taken for one where it cannot be the two times that GNU has there.
    fn prefix_of_old_go(&self) -> &[u8] {
        let bytes = self.0.as_bytes();
        let is_time = |field: &[u8]| field[0] == 0 || is_number(field);
        let prefix = until_nul(&bytes[345..500]);
        let is_prefix = !(is_time(&bytes[345..357]) && is_time(&bytes[357..369])) && prefix.is_ascii();
        if is_prefix { prefix } else { b"" }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        until_nul(&self.0.as_old().linkname).to_vec()
    }

    pub(super) fn size(&self) -> Option<u64> {
        u64::try_from(parse_field(&self.0.as_old().size)?).ok()
    }

    pub(super) fn mode(&self) -> Option<u32> {
        // Only the low bits count; a wild value above them is some writer's file type.
        parse_field(&self.0.as_old().mode).map(|mode| mode as u32)
    }

    pub(super) fn uid(&self) -> Option<i64> {
        parse_field(&self.0.as_old().uid)
    }

    pub(super) fn gid(&self) -> Option<i64> {
        parse_field(&self.0.as_old().gid)
    }

    pub(super) fn mtime_seconds(&self) -> Option<i64> {
        parse_field(&self.0.as_old().mtime)
    }

    /// Major and minor number; 0 where the layout has no place for them.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if self.layout() == Layout::V7 {
            return Some((0, 0));
        }
        let bytes = self.0.as_bytes();
        let number = |field: &[u8]| u32::try_from(parse_field(field)?).ok();
        Some((number(&bytes[329..337])?, number(&bytes[337..345])?))
    }

    /// Old GNU sparse: the four map entries, whether extension blocks follow, and the apparent size.
    pub(super) fn sparse(&self) -> Option<(&[u8], bool, u64)> {
        let bytes = self.0.as_bytes();
        let size = u64::try_from(parse_field(&bytes[483..495])?).ok()?;
        Some((&bytes[386..482], bytes[482] != 0, size))
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}
