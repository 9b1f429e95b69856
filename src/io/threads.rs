use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::process::{Resource, getrlimit};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Note;

/// How many threads are started at most for each that was asked for: layers are decoded and hashed beside those that compress.
const THREADS_PER_JOB: usize = 4;
/// How many are started besides: for signals, progress, moving and writing.
const THREADS_BESIDE: usize = 6;

/// More are never worked on: more than any machine has cores, and few enough for what a system lets one process map.
pub(crate) const JOBS_MAX: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

const RAISE_THREADS: &str = "raise the limit of the shell: ulimit -u";

/// Address space that one job takes where that is limited: stacks, and what the C library sets aside for each thread.
const ADDRESS_BYTES_PER_JOB: u64 = 192 << 20;
/// The same for the threads beside them, and for those that download.
const ADDRESS_BYTES_BESIDE: u64 = 256 << 20;

/// How many of `jobs` threads may work at once, where limits (`ulimit -u`, `-v`, a container's) may allow fewer: as many are
/// started for a moment as a conversion needs. With a note where they are fewer than `jobs`.
///
/// # Errors
/// [`ErrorKind::Other`] where not even one job can be done.
pub(crate) fn affordable(jobs: NonZeroUsize) -> Result<(NonZeroUsize, Option<Note>)> {
    // Where the memory for one more thread cannot be mapped, the process is ended, and not told.
    let most = jobs.min(JOBS_MAX);
    let fitting = match jobs_in_address_space() {
        // Each thread that was ever started keeps some: trying would take what is to be spared.
        Some(fitting) => fitting,
        None => startable_jobs(most)?,
    };
    let fewer = NonZeroUsize::new(fitting).unwrap_or(NonZeroUsize::MIN).min(most);
    let threads = if fewer.get() == 1 { "thread" } else { "threads" };
    let note = || Note::new("fewer-threads", format!("limits allow work on {fewer} {threads}, not on {jobs}"), 1);
    Ok((fewer, (fewer < jobs).then(note)))
}

/// How many jobs there is address space for in this process, at least one; `None` where that is not limited.
pub(crate) fn jobs_in_address_space() -> Option<usize> {
    let left = getrlimit(Resource::As).current?.saturating_sub(ADDRESS_BYTES_BESIDE);
    Some(usize::try_from(left / ADDRESS_BYTES_PER_JOB).unwrap_or(usize::MAX).max(1))
}

/// The error for a thread that could not be started, with the limit that may be the cause.
pub(crate) fn no_thread(error: std::io::Error) -> Error {
    Error::io(ErrorKind::Other, error).doing("starting a thread").hint(RAISE_THREADS)
}

fn startable_jobs(jobs: NonZeroUsize) -> Result<usize> {
    let wanted = |jobs: usize| THREADS_PER_JOB * jobs + THREADS_BESIDE;
    let started = startable(wanted(jobs.get()));
    match started.saturating_sub(THREADS_BESIDE) / THREADS_PER_JOB {
        0 => {
            let message = format!("only {started} threads can be started, and {} are needed", wanted(1));
            Err(Error::new(ErrorKind::Other, message).hint(RAISE_THREADS))
        }
        fitting => Ok(fitting),
    }
}

/// How many of `wanted` threads can live at once.
fn startable(wanted: usize) -> usize {
    let (gate, mut threads) = (Arc::new(std::sync::RwLock::new(())), Vec::<JoinHandle<()>>::new());
    let closed = gate.write();
    for _ in 0..wanted {
        let gate = Arc::clone(&gate);
        match Builder::new().spawn(move || drop(gate.read())) {
            Ok(thread) => threads.push(thread),
            Err(_) => break,
        }
    }
    drop(closed);
    let started = threads.len();
    threads.into_iter().for_each(|thread| drop(thread.join()));
    started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_affordable() {
        let two = NonZeroUsize::new(2).unwrap();
        assert_eq!(affordable(two).unwrap(), (two, None));
        let (fewer, note) = affordable(NonZeroUsize::MAX).unwrap();
        assert!(fewer <= JOBS_MAX && note.unwrap().code == "fewer-threads");
        assert_eq!(startable(20), 20);
    }
}
