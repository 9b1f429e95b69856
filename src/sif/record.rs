//! Fields of a packed record. Offsets are constants of the format and records are arrays of its size, so that no access
//! can be out of bounds.

/// The `N` bytes at `at`.
pub(super) fn bytes<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&record[at..at + N]);
    field
}

/// The signed 32-bit number at `at`.
pub(super) fn i32_at(record: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes(record, at))
}

/// The unsigned 32-bit number at `at`.
pub(super) fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(record, at))
}

/// The signed 64-bit number at `at`.
pub(super) fn i64_at(record: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes(record, at))
}

/// Puts `field` at `at`.
pub(super) fn put(record: &mut [u8], at: usize, field: &[u8]) {
    record[at..at + field.len()].copy_from_slice(field);
}

/// `text` with NULs behind it, as fixed-size text fields hold it; `None` where it is too long.
pub(super) fn padded<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut field = [0; N];
    field.get_mut(..text.len())?.copy_from_slice(text);
    Some(field)
}

/// A text field without the NULs behind it. NULs inside stay: the reference reader keeps them, too.
pub(super) fn trimmed(field: &[u8]) -> &[u8] {
    let end = field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &field[..end]
}
