//! A SIF under construction, with checksums of itself that are computed as it is written.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, IoResultExt as _, Result};
use crate::sif::{self, PartitionSum, Plan};
use crate::squashfs::{FileStore, Store};

/// See the description of the file.
pub(super) struct Sealed<'a> {
    plan: Plan,
    file: &'a Arc<File>,
    sum: Arc<Mutex<PartitionSum>>,
    has_seal: bool,
}

impl<'a> Sealed<'a> {
    /// Writes what comes before the partition. Where one of the JSON objects is [`sif::unsealed`], it is filled in later.
    pub(super) fn begin(contents: sif::Contents, file: &'a Arc<File>) -> Result<Self> {
        let sum = PartitionSum::new(contents.file_system);
        let has_seal = contents.json.contains_key(sif::SEAL_NAME);
        let plan = Plan::new(contents)?;
        plan.write_objects(&mut &**file)?;
        Ok(Sealed { plan, file, sum: Arc::new(Mutex::new(sum)), has_seal })
    }

    /// Where the partition is written to.
    pub(super) fn store(&self) -> PartitionStore {
        let inner = FileStore::new(Arc::clone(self.file), self.plan.partition_offset());
        PartitionStore { inner, sum: Arc::clone(&self.sum) }
    }

    /// Completes the file, whose partition is written. Returns its length in bytes; what lies behind is cut off.
    pub(super) fn finish(self, partition_bytes: u64) -> Result<u64> {
        let bytes = self.plan.finish(&mut &**self.file, partition_bytes)?;
        // Decoded contents that lay behind the output are not wanted any more.
        self.file.set_len(bytes).or_kind(ErrorKind::Output)?;
        if self.has_seal {
            sif::seal(self.file, &self.sum.lock().unwrap_or_else(PoisonError::into_inner))?;
        }
        Ok(bytes)
    }
}

/// The partition, whose checksum is computed as it is written.
pub(super) struct PartitionStore {
    inner: FileStore,
    sum: Arc<Mutex<PartitionSum>>,
}

impl Store for PartitionStore {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(bytes, position)?;
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(bytes, position).map_err(Error::into_io)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.inner.finish()
    }
}
