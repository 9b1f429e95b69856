//! Several blobs at once: each is looked for, mounted or uploaded on one of a few connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::repository::{Content, Pushed, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Digest;

/// How many blobs are worked at at once.
const CONNECTIONS_MAX: usize = 3;

/// A blob to be pushed: its digest, its length in bytes, and where it is read from.
pub type BlobContent<'a> = (Digest, u64, &'a dyn Content);

impl Repository {
    /// Pushes blobs side by side; what each took, in their order.
    ///
    /// # Errors
    /// As [`Repository::push_blob`]: the first that failed. What has not begun by then is left out.
    pub fn push_blobs(&self, blobs: &[BlobContent<'_>]) -> Result<Vec<Pushed>> {
        each(blobs, |(digest, size, content)| self.push_blob(*digest, *size, *content))
    }

    /// Has the registry come by blobs without their bytes: `None` for each that is neither there nor in a repository that it
    /// can be mounted from.
    ///
    /// # Errors
    /// As [`Repository::has_blob`].
    pub fn obtain_blobs(&self, blobs: &[(Digest, u64)]) -> Result<Vec<Option<Pushed>>> {
        each(blobs, |(digest, size)| self.obtain_blob(*digest, *size))
    }
}

/// Does `work` for each item on a few threads; the results in the order of the items.
fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match work(item) {
                Ok(result) => done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result)),
                Err(error) => {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..CONNECTIONS_MAX.min(items.len()) {
            // Without a thread this one does it all.
            let _ = std::thread::Builder::new().name("upload".to_string()).spawn_scoped(scope, run);
        }
        run();
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    match done.len() == items.len() {
        true => Ok(done.into_iter().map(|(_, result)| result).collect()),
        false => Err(Error::new(ErrorKind::Bug, "a blob was left out")),
    }
}
