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
    written: Arc<Mutex<Written>>,
    has_seal: bool,
}

impl<'a> Sealed<'a> {
    /// Writes what comes before the partition. Where one of the JSON objects is [`sif::unsealed`], it is filled in later.
    pub(super) fn begin(contents: sif::Contents, file: &'a Arc<File>) -> Result<Self> {
        let written = Written { sum: PartitionSum::new(contents.file_system), is_finished: false };
        let has_seal = contents.json.contains_key(sif::SEAL_NAME);
        let plan = Plan::new(contents)?;
        plan.write_objects(&mut &**file)?;
        Ok(Sealed { plan, file, written: Arc::new(Mutex::new(written)), has_seal })
    }

    /// Where the partition is written to.
    pub(super) fn store(&self) -> PartitionStore {
        let inner = FileStore::new(Arc::clone(self.file), self.plan.partition_offset());
        PartitionStore { inner, written: Arc::clone(&self.written) }
    }

    /// Completes the file, whose partition is written. Returns its length in bytes; what lies behind is cut off.
    pub(super) fn finish(self, partition_bytes: u64) -> Result<u64> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !written.is_finished {
            return Err(Error::new(ErrorKind::Bug, "a partition was not written to its end"));
        }
        let bytes = self.plan.finish(&mut &**self.file, partition_bytes)?;
        // Decoded contents that lay behind the output are not wanted any more.
        self.file.set_len(bytes).or_kind(ErrorKind::Output)?;
        if self.has_seal {
            sif::seal(self.file, &written.sum)?;
        }
        Ok(bytes)
    }
}

/// What has come of the partition.
struct Written {
    sum: PartitionSum,
    /// Whether all of it is in the file.
    is_finished: bool,
}

/// The partition, whose checksum is computed as it is written.
pub(super) struct PartitionStore {
    inner: FileStore,
    written: Arc<Mutex<Written>>,
}

impl Store for PartitionStore {
    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(bytes, position)?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.sum.add(bytes, position).map_err(Error::into_io)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.inner.finish()?;
        self.written.lock().unwrap_or_else(PoisonError::into_inner).is_finished = true;
        Ok(())
    }
}
