use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::CHUNK_BYTES;

/// A file that is written in pieces, most of which follow each other: those go out in one call. A call for every compressed block,
/// of 50 KB that neither begin nor end with a page, takes the kernel almost twice as long for each byte.
#[derive(Debug)]
pub(crate) struct Gather {
    file: Arc<File>,
    /// What belongs at `start` in the file, and is not written yet.
    held: Vec<u8>,
    start: u64,
}

impl Gather {
    /// What is not [released](Gather::release) in the end is not written.
    pub(crate) fn new(file: Arc<File>) -> Self {
        Gather { file, held: Vec::new(), start: 0 }
    }

    /// Writes `bytes` at `position`, now or later; up to where all that came in order is written.
    ///
    /// # Errors
    /// As `pwrite`, of any piece that was held.
    pub(crate) fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<u64> {
        if position != self.start + self.held.len() as u64 || self.held.len() + bytes.len() > CHUNK_BYTES {
            self.release()?;
            self.start = position;
        }
        self.held.extend_from_slice(bytes);
        Ok(self.start)
    }

    /// Writes what is held.
    ///
    /// # Errors
    /// As `pwrite`.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.held, self.start)?;
        self.start += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of all lengths, in order, over what is there and behind a gap: the file is what it would be without.
    #[test]
    fn pieces_arrive_where_they_belong() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut gather = Gather::new(Arc::clone(&file));
        let mut expected = Vec::new();
        let mut position = 96;
        let lengths = [1, CHUNK_BYTES - 1, 1, CHUNK_BYTES, 3, 2 * CHUNK_BYTES + 5, 0, 70_000, 70_000, 70_000, 70_000];
        for (turn, length) in lengths.into_iter().cycle().take(50).enumerate() {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + turn) as u8).collect();
            if turn % 12 == 11 {
                position = if turn % 24 == 11 { 10 } else { expected.len() + 5000 };
            }
            expected.resize(expected.len().max(position + length), 0);
            expected[position..position + length].copy_from_slice(&bytes);
            assert!(gather.write_at(&bytes, position as u64).unwrap() <= position as u64);
            position += length;
        }
        gather.release().unwrap();
        let mut found = vec![0; expected.len() + 1];
        let there = file.read_at(&mut found, 0).unwrap();
        assert!(there <= expected.len() && file.metadata().unwrap().len() == expected.len() as u64);
        file.read_exact_at(&mut found[..expected.len()], 0).unwrap();
        assert!(found[..expected.len()] == expected);
    }
}
