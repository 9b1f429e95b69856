use crate::model::{Algorithm, Digest, Hasher};

/// Zeros are told from data page by page.
const PAGE_BYTES: usize = 4096;

/// A digest of what a file reads as, the same for every way to store it: pages of zeros count as holes, so that a hole costs
/// nothing whatever its size. For comparing files with each other only; it is not the SHA-256 of the bytes.
pub(crate) struct ContentSum {
    hasher: Hasher,
    /// The page at hand, from its first byte on.
    page: Box<[u8; PAGE_BYTES]>,
    /// How much of it there is.
    filled: usize,
    position: u64,
}

impl Default for ContentSum {
    fn default() -> Self {
        ContentSum { hasher: Hasher::new(Algorithm::Sha256), page: Box::new([0; PAGE_BYTES]), filled: 0, position: 0 }
    }
}

impl ContentSum {
    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - self.filled));
            if now.len() == PAGE_BYTES {
                self.take_page(now);
            } else {
                self.page[self.filled..self.filled + now.len()].copy_from_slice(now);
                self.advance(now.len());
            }
            bytes = rest;
        }
    }

    /// Takes so many zeros.
    pub(crate) fn zeros(&mut self, count: u64) {
        let to_page_end = (PAGE_BYTES - self.filled) as u64;
        if self.filled == 0 || count < to_page_end {
            let inside = (count % PAGE_BYTES as u64) as usize;
            self.position += count - inside as u64;
            self.page[self.filled..self.filled + inside].fill(0);
            self.advance(inside);
        } else {
            self.page[self.filled..].fill(0);
            self.advance(to_page_end as usize);
            self.zeros(count - to_page_end);
        }
    }

    /// The digest of all that was taken, its length included.
    pub(crate) fn finish(mut self) -> Digest {
        let (position, filled) = (self.position, self.filled);
        self.page[filled..].fill(0);
        self.flush();
        self.hasher.update(&(position + filled as u64).to_le_bytes());
        self.hasher.finish()
    }

    fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
        if self.filled == PAGE_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let page = std::mem::replace(&mut self.page, Box::new([0; PAGE_BYTES]));
        self.take_page(&page[..]);
        self.page = page;
        self.filled = 0;
    }

    fn take_page(&mut self, page: &[u8]) {
        if page.iter().any(|&byte| byte != 0) {
            self.hasher.update(&self.position.to_le_bytes());
            self.hasher.update(page);
        }
        self.position += PAGE_BYTES as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(take: impl FnOnce(&mut ContentSum)) -> Digest {
        let mut sum = ContentSum::default();
        take(&mut sum);
        sum.finish()
    }

    #[test]
    fn holes_and_zeros_are_the_same() {
        let bytes: Vec<u8> = [vec![1; 5000], vec![0; 20_000], b"end".to_vec(), vec![0; 9000]].concat();
        let whole = sum(|sum| sum.update(&bytes));
        for step in [1, 7, 4095, 4096, 4097, 100_000] {
            assert_eq!(sum(|sum| bytes.chunks(step).for_each(|chunk| sum.update(chunk))), whole, "{step}");
        }
        let sparse = sum(|sum| {
            sum.update(&bytes[..5000]);
            sum.zeros(19_999);
            sum.zeros(1);
            sum.update(b"end");
            sum.zeros(9000);
        });
        assert_eq!(sparse, whole);
    }

    #[test]
    fn lengths_and_places_count() {
        let sums = [
            sum(|_| ()),
            sum(|sum| sum.zeros(1)),
            sum(|sum| sum.zeros(4096)),
            sum(|sum| sum.zeros(1 << 50)),
            sum(|sum| sum.update(b"x")),
            sum(|sum| sum.update(b"x\0")),
            sum(|sum| {
                sum.zeros(4096);
                sum.update(b"x");
            }),
            sum(|sum| {
                sum.zeros(8192);
                sum.update(b"x");
            }),
        ];
        for (at, one) in sums.iter().enumerate() {
            assert!(sums[at + 1..].iter().all(|other| other != one), "{at}");
        }
    }
}
