/// Shorter pieces are not looked at: trying to compress them costs as little.
const BYTES_MIN: usize = 16 << 10;
/// How many samples are counted, and how long each is, in bytes.
const SAMPLES: usize = 16;
const SAMPLE_BYTES: usize = 512;
/// Repetitions are looked for behind this value, so that both ends of one are found alike; about one byte of noise in 256
/// has it.
const MARK: u8 = 0x5b;
const MARKS_APART: usize = 256;
/// Places for what was seen; a power of two.
const SEEN: usize = 2 << 10;

/// From this level on every byte counts more than any time.
const LEVEL_THOROUGH: u32 = 10;

/// Whether deflate at `level` (libdeflate's, 1 to 12) should not be tried on `bytes`: they are noise, and the level is none
/// at which every byte counts. It takes a fiftieth of the time that deflate takes to find that out, and where it is wrong
/// little is lost: of the blocks of a large image of which it said so, deflate makes 99.9 % of their size.
pub(crate) fn deflate_is_futile(bytes: &[u8], level: u32) -> bool {
    level < LEVEL_THOROUGH && is_noise(bytes)
}

/// Whether every value is about as frequent, as in what is compressed or encrypted already, and nothing comes again.
fn is_noise(bytes: &[u8]) -> bool {
    bytes.len() >= BYTES_MIN && values_are_even(bytes) && !repeats(bytes)
}

/// Whether the values of samples are spread as evenly as chance spreads them, to a tenth: nearly eight bits of entropy.
fn values_are_even(bytes: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    for sample in bytes.chunks(bytes.len() / SAMPLES).take(SAMPLES) {
        sample[..SAMPLE_BYTES].iter().for_each(|&value| counts[usize::from(value)] += 1);
    }
    const TOTAL: u64 = (SAMPLES * SAMPLE_BYTES) as u64;
    // The least that a sum of squares can be is TOTAL * TOTAL / 256; chance adds TOTAL.
    counts.iter().map(|count| count * count).sum::<u64>() * 10 < TOTAL * TOTAL / 256 * 11
}

/// Whether more than one in 32 marks is followed by four bytes that stood behind one before. Noise has about as many marks
/// as is to be expected; where there are far fewer, so few different things stand there that most of them come again.
fn repeats(bytes: &[u8]) -> bool {
    let mut seen = [0_u32; SEEN];
    let (mut marks, mut again) = (0_usize, 0_usize);
    for at in memchr::memchr_iter(MARK, bytes) {
        let Some(four) = bytes[at + 1..].first_chunk() else { break };
        let four = u32::from_le_bytes(*four);
        let place = &mut seen[four.wrapping_mul(0x9e37_79b1) as usize >> 16 & (SEEN - 1)];
        marks += 1;
        again += usize::from(*place == four);
        *place = four;
    }
    again > marks / 32 || marks < bytes.len() / (2 * MARKS_APART)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 128 << 10;

    fn random() -> impl FnMut() -> u32 {
        let mut state = 7_u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        }
    }

    fn noise() -> Vec<u8> {
        let mut random = random();
        (0..BLOCK).map(|_| random() as u8).collect()
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut compressor = libdeflater::Compressor::new(libdeflater::CompressionLvl::new(6).unwrap());
        let mut packed = vec![0; compressor.deflate_compress_bound(bytes.len())];
        let length = compressor.deflate_compress(bytes, &mut packed).unwrap();
        packed.truncate(length);
        packed
    }

    #[test]
    fn what_is_compressed_or_random_is_noise() {
        let mut random = random();
        let words: Vec<u8> = (0..400_000).flat_map(|_| format!("{} ", random() % 50_000).into_bytes()).collect();
        let packed = deflated(&words);
        assert!(packed.len() > 2 * BLOCK);
        for bytes in [&noise()[..], &noise()[..BYTES_MIN], &packed[..BLOCK], &packed[BLOCK..2 * BLOCK]] {
            assert!(is_noise(bytes));
            assert!(deflated(bytes).len() * 100 > bytes.len() * 98);
        }
    }

    #[test]
    fn what_can_be_compressed_is_no_noise() {
        let (mut random, noise) = (random(), noise());
        let text: Vec<u8> = (0..BLOCK / 5).flat_map(|_| format!("{} ", random() % 5000).into_bytes()).collect();
        let weights: Vec<u8> =
            (0..BLOCK / 4).flat_map(|_| (random() as f32 / u32::MAX as f32 - 0.25).to_le_bytes()).collect();
        let half = [&noise[..BLOCK / 2], &text[..BLOCK / 2]].concat();
        // Flat as noise, but each part comes twice, so that half of it need not be stored.
        let twice: Vec<u8> = noise.chunks(4 << 10).take(16).flat_map(|part| [part, part].concat()).collect();
        let counting: Vec<u8> = (0..BLOCK).map(|at| at as u8).collect();
        for (name, bytes) in
            [("text", text), ("weights", weights), ("half", half), ("twice", twice), ("counting", counting)]
        {
            assert!(!is_noise(&bytes), "{name}");
            assert!(deflated(&bytes).len() * 100 < bytes.len() * 95, "{name}");
        }
    }

    #[test]
    fn short_pieces_are_always_tried() {
        assert!(!is_noise(&noise()[..BYTES_MIN - 1]));
        assert!(!is_noise(&[]));
    }
}
