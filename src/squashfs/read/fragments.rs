//! The fragment blocks that were read last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// How many fragment blocks are kept: files that share one mostly follow one another, so a few for each thread do. At the
/// largest block size this is 32 MiB.
const BLOCKS_MAX: usize = 32;

/// Locked while the block is decoded: whoever else wants it waits, rather than decoding it again.
type Cell = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// The newest fragment blocks by number.
#[derive(Default)]
pub(super) struct FragmentCache {
    cells: Mutex<VecDeque<(u32, Cell)>>,
}

impl FragmentCache {
    /// The block with this number, read by `read` where it is not there.
    pub(super) fn get(&self, number: u32, read: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<Vec<u8>>> {
        let cell = self.cell(number);
        let mut bytes = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*bytes {
            return Ok(Arc::clone(bytes));
        }
        Ok(Arc::clone(bytes.insert(Arc::new(read()?))))
    }

    fn cell(&self, number: u32) -> Cell {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = cells.iter().find(|(known, _)| *known == number) {
            return Arc::clone(cell);
        }
        if cells.len() == BLOCKS_MAX {
            cells.pop_front();
        }
        let cell = Cell::default();
        cells.push_back((number, Arc::clone(&cell)));
        cell
    }
}
