//! The canonical dialect: ustar where it can say everything, one PAX header before it where it cannot. Numeric owners
//! only, no user or group names, nothing that depends on the machine or the day.

use std::borrow::Cow;

use super::holes::SparseMap;
use crate::model::Metadata;

/// Everything in a tar is a multiple of this, in bytes.
pub const BLOCK_BYTES: u64 = 512;

/// Largest number that eleven octal digits hold: sizes and times.
const OCTAL_11_MAX: u64 = (1 << 33) - 1;
/// Largest number that seven octal digits hold: owners and device numbers.
const OCTAL_7_MAX: u32 = (1 << 21) - 1;

/// What is written of one name.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Path from the root without a leading slash; empty for the root, which is written as `./`.
    pub path: &'a [u8],
    /// What it is.
    pub kind: MemberKind<'a>,
    /// Owner, permissions, time, extended attributes.
    pub metadata: &'a Metadata,
}

/// The kinds of member a tar can hold.
#[derive(Debug, Clone, Copy)]
pub enum MemberKind<'a> {
    /// A directory.
    Directory,
    /// A regular file whose `size` bytes follow, rounded up by [`padding`].
    File {
        /// Bytes of contents.
        size: u64,
    },
    /// A regular file of which only the data that the map names follows.
    Sparse {
        /// Bytes of contents, with those that are left out.
        size: u64,
        /// What follows.
        map: &'a SparseMap,
    },
    /// Another name of the member with this path.
    HardLink(&'a [u8]),
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// A named pipe.
    Fifo,
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
}

impl<'a> MemberKind<'a> {
    /// A regular file of `size` bytes, sparse where it has a `map`.
    pub fn of_file(size: u64, map: Option<&'a SparseMap>) -> Self {
        map.map_or(MemberKind::File { size }, |map| MemberKind::Sparse { size, map })
    }

    /// How many bytes of contents follow the header.
    pub fn data_bytes(&self) -> u64 {
        match self {
            MemberKind::File { size } => *size,
            MemberKind::Sparse { map, .. } => map.data_bytes(),
            _ => 0,
        }
    }
}

/// How many zeros follow `size` bytes of contents.
pub fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_BYTES
}

/// The two blocks of zeros that end an archive.
pub fn end_of_archive() -> [u8; 2 * BLOCK_BYTES as usize] {
    [0; 2 * BLOCK_BYTES as usize]
}

/// How many bytes a member takes: its header, its contents and what pads them.
pub fn member_bytes(member: &Member<'_>) -> u64 {
    let records = pax_records(member, &written_name(member)).len() as u64;
    let pax = if records > 0 { BLOCK_BYTES + records + padding(records) } else { 0 };
    let (map, data) = (sparse_map(member.kind).len() as u64, member.kind.data_bytes());
    (pax + BLOCK_BYTES + map).saturating_add(data).saturating_add(padding(data))
}

/// Appends the header of `member` to `out`: one block, or three and more where PAX records are needed; of a sparse file its
/// map too.
pub fn member_header(out: &mut Vec<u8>, member: &Member<'_>) {
    let name = written_name(member);
    let records = pax_records(member, &name);
    if !records.is_empty() {
        push_pax(out, &records);
    }
    let (prefix, name) = split_name(&name).unwrap_or((b"", cut(&name)));
    let mut header = tar::Header::new_ustar();
    if let Some(ustar) = header.as_ustar_mut() {
        ustar.name[..name.len()].copy_from_slice(name);
        ustar.prefix[..prefix.len()].copy_from_slice(prefix);
        let link = cut(link_target(member.kind));
        ustar.linkname[..link.len()].copy_from_slice(link);
    }
    fill_numbers(&mut header, member);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(sparse_map(member.kind));
}

/// All that the block of `member`, which is written as `name`, cannot say.
fn pax_records(member: &Member<'_>, name: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    if split_name(name).is_none() {
        record(&mut records, b"path", name);
    }
    let link = link_target(member.kind);
    if link.len() > 100 {
        record(&mut records, b"linkpath", link);
    }
    number_records(&mut records, member);
    if let MemberKind::Sparse { size, .. } = member.kind {
        sparse_records(&mut records, member.path, size);
    }
    for (name, value) in member.metadata.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
        record(&mut records, &[b"SCHILY.xattr.", encode_xattr_name(name).as_slice()].concat(), value);
    }
    records
}

fn link_target<'a>(kind: MemberKind<'a>) -> &'a [u8] {
    match kind {
        MemberKind::HardLink(target) | MemberKind::Symlink(target) => target,
        _ => b"",
    }
}

/// What stands between the header of a sparse file and its data.
fn sparse_map<'a>(kind: MemberKind<'a>) -> &'a [u8] {
    match kind {
        MemberKind::Sparse { map, .. } => map.text(),
        _ => b"",
    }
}

/// The name that GNU tar gives a sparse file: who does not know the format unpacks map and data under it, rather than a file
/// of the real name with wrong contents.
fn stand_in(name: &[u8]) -> Vec<u8> {
    let (directory, base) = name.split_at(name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1));
    [directory, b"GNUSparseFile.0/", base].concat()
}

fn sparse_records(records: &mut Vec<u8>, name: &[u8], size: u64) {
    record(records, b"GNU.sparse.major", b"1");
    record(records, b"GNU.sparse.minor", b"0");
    record(records, b"GNU.sparse.name", name);
    record(records, b"GNU.sparse.realsize", size.to_string().as_bytes());
}

/// Bytes between the header and the padding: of a sparse file, its map and its data.
fn size_field(kind: MemberKind<'_>) -> u64 {
    sparse_map(kind).len() as u64 + kind.data_bytes()
}

fn written_name<'a>(member: &Member<'a>) -> Cow<'a, [u8]> {
    let name = if member.path.is_empty() { b"." } else { member.path };
    match member.kind {
        MemberKind::Directory => [name, b"/"].concat().into(),
        MemberKind::Sparse { .. } => stand_in(name).into(),
        _ => name.into(),
    }
}

/// Prefix and name as ustar holds them, where they fit. The slash between them is not stored.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 {
        return Some((b"", name));
    }
    let slashes = || name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let fits = |&at: &usize| at > 0 && at <= 155 && (1..=100).contains(&(name.len() - at - 1));
    slashes().find(fits).map(|at| (&name[..at], &name[at + 1..]))
}

/// What stands in the header where the whole is in a PAX record; readers of PAX never look at it.
fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(100)]
}

fn number_records(records: &mut Vec<u8>, member: &Member<'_>) {
    let Metadata { uid, gid, mtime, .. } = *member.metadata;
    let mut number = |key: &[u8], value: u64| record(records, key, value.to_string().as_bytes());
    for (key, id) in [(&b"uid"[..], uid), (b"gid", gid)] {
        if id > OCTAL_7_MAX {
            number(key, id.into());
        }
    }
    let size = size_field(member.kind);
    if size > OCTAL_11_MAX {
        number(b"size", size);
    }
    match member.kind {
        MemberKind::CharDevice(major, minor) | MemberKind::BlockDevice(major, minor) => {
            for (key, value) in [(&b"SCHILY.devmajor"[..], major), (b"SCHILY.devminor", minor)] {
                if value > OCTAL_7_MAX {
                    number(key, value.into());
                }
            }
        }
        _ => {}
    }
    let whole_and_fits = mtime.nanoseconds == 0 && u64::try_from(mtime.seconds).is_ok_and(|s| s <= OCTAL_11_MAX);
    if !whole_and_fits {
        record(records, b"mtime", pax_time(mtime).as_bytes());
    }
}

/// Decimal seconds; a time before the epoch counts its fraction away from zero, as a decimal number does.
fn pax_time(time: crate::model::Timestamp) -> String {
    let nanoseconds = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, fraction) = (nanoseconds.unsigned_abs() / 1_000_000_000, nanoseconds.unsigned_abs() % 1_000_000_000);
    match fraction {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{fraction:09}").trim_end_matches('0').to_string(),
    }
}

/// A PAX key ends at the first `=`, so GNU tar writes that byte as `%3D` (and `%` as `%25`) in these names.
fn encode_xattr_name(name: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(name.len());
    for &byte in name {
        match byte {
            b'=' => encoded.extend_from_slice(b"%3D"),
            b'%' => encoded.extend_from_slice(b"%25"),
            _ => encoded.push(byte),
        }
    }
    encoded
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    for piece in [&b" "[..], key, b"=", value, b"\n"] {
        out.extend_from_slice(piece);
    }
}

fn push_pax(out: &mut Vec<u8>, records: &[u8]) {
    let mut header = tar::Header::new_ustar();
    let name = b"././@PaxHeader";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64) as usize, 0);
}

fn fill_numbers(header: &mut tar::Header, member: &Member<'_>) {
    let Metadata { mode, uid, gid, mtime, .. } = *member.metadata;
    // What does not fit stands in a PAX record; the field then holds the nearest number that does.
    header.set_mode(mode.bits().into());
    header.set_uid(uid.min(OCTAL_7_MAX).into());
    header.set_gid(gid.min(OCTAL_7_MAX).into());
    header.set_mtime(u64::try_from(mtime.seconds).unwrap_or(0).min(OCTAL_11_MAX));
    let mut device = None;
    header.set_entry_type(match member.kind {
        MemberKind::Directory => tar::EntryType::Directory,
        MemberKind::File { .. } | MemberKind::Sparse { .. } => tar::EntryType::Regular,
        MemberKind::HardLink(_) => tar::EntryType::Link,
        MemberKind::Symlink(_) => tar::EntryType::Symlink,
        MemberKind::Fifo => tar::EntryType::Fifo,
        MemberKind::CharDevice(major, minor) => {
            device = Some((major, minor));
            tar::EntryType::Char
        }
        MemberKind::BlockDevice(major, minor) => {
            device = Some((major, minor));
            tar::EntryType::Block
        }
    });
    header.set_size(size_field(member.kind).min(OCTAL_11_MAX));
    if let (Some((major, minor)), Some(ustar)) = (device, header.as_ustar_mut()) {
        ustar.set_device_major(major.min(OCTAL_7_MAX));
        ustar.set_device_minor(minor.min(OCTAL_7_MAX));
    }
}
