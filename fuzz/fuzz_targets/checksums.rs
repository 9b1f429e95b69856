//! Tar headers carry checksums, which random changes would break: nothing but the checksum would be tested.

use libfuzzer_sys::fuzzer_mutate;

/// One of so many changed inputs keeps its broken checksums.
const LEFT_BROKEN: u32 = 16;
const BLOCK_BYTES: usize = 512;
/// Where a header has its checksum, and where the mark of ustar and GNU headers.
const CHECKSUM: std::ops::Range<usize> = 148..156;
const MARK: std::ops::Range<usize> = 257..262;

/// A mutator: changes the bytes as libFuzzer does, then makes the headers' checksums right again.
pub fn mutate_tar(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % LEFT_BROKEN != 0 {
        data[..size].chunks_exact_mut(BLOCK_BYTES).filter(|block| block[MARK] == *b"ustar").for_each(repair);
    }
    size
}

fn repair(block: &mut [u8]) {
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
