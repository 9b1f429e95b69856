use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::system::{copy_inside_kernel, file_system_kind};
use super::{CHUNK_BYTES, read_error};
use crate::error::{ErrorKind, IoResultExt as _, Result};

/// How much the kernel is asked to copy at once, in bytes: a stop is heeded between.
const KERNEL_BYTES: u64 = 64 << 20;

/// File systems share blocks of this many bytes, or multiples.
const BLOCK_BYTES: u64 = 4096;
/// File systems that may have somebody else copy, so that nothing goes over the network, by their magic numbers (statfs(2)): NFS,
/// CIFS, SMB, Ceph, FUSE.
const ELSEWHERE: [u64; 5] = [0x6969, 0xff53_4d42, 0xfe53_4d42, 0x00c3_6400, 0x6573_5546];

/// Copies `len` bytes from a place in a file to one in another: inside the kernel where that may spare moving them, because these
/// files can share blocks or a server copies. Elsewhere the kernel copies page by page, which takes half as long again as reading
/// and writing. `copied` hears of each stretch, and ends the copy with an error of its own.
///
/// # Errors
/// As [`read_error`] when `from` cannot be read or is shorter; [`ErrorKind::Output`] when `to` cannot be written; those of `copied`.
pub(crate) fn copy_between(
    (from, offset): (&File, u64),
    (to, at): (&File, u64),
    len: u64,
    mut copied: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let (mut read, mut written) = (offset, at);
    let end = offset + len;
    let by_kernel = (offset % BLOCK_BYTES == at % BLOCK_BYTES) || copies_elsewhere(to);
    while by_kernel && read < end {
        let want = (end - read).min(KERNEL_BYTES) as usize;
        match copy_inside_kernel((from, &mut read), (to, &mut written), want) {
            Ok(count) if count > 0 => copied(count as u64)?,
            // Not between these two, or not further: whatever is wrong then shows.
            _ => break,
        }
    }
    let mut buffer = vec![0; (end - read).min(CHUNK_BYTES as u64) as usize];
    while read < end {
        let count = (end - read).min(CHUNK_BYTES as u64) as usize;
        from.read_exact_at(&mut buffer[..count], read).map_err(read_error)?;
        to.write_all_at(&buffer[..count], written).or_kind(ErrorKind::Output)?;
        (read, written) = (read + count as u64, written + count as u64);
        copied(count as u64)?;
    }
    Ok(())
}

fn copies_elsewhere(file: &File) -> bool {
    file_system_kind(file).is_some_and(|kind| ELSEWHERE.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_is_copied_to_its_place_and_a_short_file_is_an_error() {
        for at in [6, 4097] {
            copies_to(at);
        }
    }

    fn copies_to(at: u64) {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let bytes: Vec<u8> = (0..700_001u32).map(|at| (at % 251) as u8).collect();
        from.write_all_at(&bytes, 0).unwrap();
        to.write_all_at(b"before", 0).unwrap();
        let mut sum = 0;
        let add = |count| {
            sum += count;
            Ok(())
        };
        copy_between((&from, 1), (&to, at), 700_000, add).unwrap();
        let mut found = vec![0; 700_000];
        to.read_exact_at(&mut found, at).unwrap();
        assert!(sum == 700_000 && found == bytes[1..], "at {at}");
        to.read_exact_at(&mut found[..6], 0).unwrap();
        assert_eq!(&found[..6], b"before");
        let short = copy_between((&from, 1), (&to, 0), 700_001, |_| Ok(())).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::InvalidImage);
    }

    #[test]
    fn two_file_systems_are_copied_between_by_hand() {
        // /proc copies nothing inside the kernel.
        let from = File::open("/proc/self/status").unwrap();
        let to = tempfile::tempfile().unwrap();
        copy_between((&from, 0), (&to, 0), 5, |_| Ok(())).unwrap();
        let mut found = [0; 5];
        to.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"Name:");
    }
}
