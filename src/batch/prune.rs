use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::origin;
use super::record::Book;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};

/// Says that a batch works in the directory, as long as what is returned is there; `None` where the file system has no locks.
pub(super) fn enter(book: &Book, alone: bool) -> Result<Option<File>> {
    let directory = book.directory();
    let opened = File::open(directory).or_kind(ErrorKind::Output).doing(|| format!("opening {directory:?}"))?;
    let how = if alone { FlockOperation::NonBlockingLockExclusive } else { FlockOperation::NonBlockingLockShared };
    match flock(&opened, how) {
        Ok(()) => Ok(Some(opened)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let message = if alone { "another batch works" } else { "a batch that removes outputs works" };
            Err(Error::new(ErrorKind::Output, format!("{message} in {directory:?}")).hint("wait until it has ended"))
        }
        Err(_) => Ok(None),
    }
}

/// Removes outputs of `format` that batches made and that are none of `outputs`, with their records: those that are still what
/// was made. The removed ones, and the others.
pub(super) fn prune(
    directory: &Path,
    book: &Book,
    outputs: &BTreeSet<&str>,
    format: &str,
) -> Result<(Vec<String>, Vec<String>)> {
    let (mut pruned, mut spared) = (Vec::new(), Vec::new());
    for output in book.outputs()? {
        if outputs.contains(output.as_str()) {
            continue;
        }
        let Some(page) = book.take(&output)? else { continue };
        let Some(record) = page.record.filter(|record| record.format == format && record.row.output == output) else {
            continue;
        };
        let path = directory.join(&output);
        match (record.made, origin::of_output(&path)) {
            (_, None) if !path.exists() => book.remove(&output)?,
            (Some(made), Some(now)) if made.file == now => {
                std::fs::remove_file(&path).or_kind(ErrorKind::Output).doing(|| format!("removing {path:?}"))?;
                book.remove(&output)?;
                pruned.push(output);
            }
            _ => spared.push(output),
        }
    }
    Ok((pruned, spared))
}
