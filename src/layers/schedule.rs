use std::cmp::Reverse;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use crate::error::{Error, ErrorKind, Result};
use crate::io::{Monitor, no_thread};

/// What came of the work on layers, each with its number.
pub(super) type Results<T> = Vec<(usize, Result<T>)>;

/// The order of work on the layers of one image: the largest first, as many at once as there are jobs, and none longer than
/// it is of use.
pub(crate) struct Schedule<'a> {
    jobs: NonZeroUsize,
    monitor: &'a Monitor,
    given_up: AtomicBool,
}

impl<'a> Schedule<'a> {
    /// `jobs` layers at once, as long as `monitor` lets them.
    pub(crate) fn new(jobs: NonZeroUsize, monitor: &'a Monitor) -> Self {
        Schedule { jobs, monitor, given_up: AtomicBool::new(false) }
    }

    /// Starts the threads, and `work` on this one, which gives them tasks.
    ///
    /// # Errors
    /// [`ErrorKind::Other`] when no threads can be started; those of `work`.
    pub(crate) fn run<'s, T>(&self, work: impl FnOnce(&rayon::Scope<'s>) -> Result<T>) -> Result<T> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.jobs.get()).build();
        let pool = pool.map_err(|error| no_thread(std::io::Error::other(error)))?;
        pool.in_place_scope(work)
    }

    /// Does `work` for all layers of the `order`. When it fails for one, the others are given up.
    ///
    /// # Errors
    /// As [`Schedule::run`]; that of the lowest layer that failed by itself.
    pub(crate) fn each<T: Send>(
        &self,
        order: &[usize],
        work: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<(usize, T)>> {
        let (sender, receiver) = channel();
        let work = &work;
        self.run(|scope| {
            for &at in order {
                let sender = sender.clone();
                scope.spawn(move |_| {
                    let done = work(at);
                    if done.is_err() {
                        self.give_up();
                    }
                    let _ = sender.send((at, done));
                });
            }
            Ok(())
        })?;
        drop(sender);
        all_right(receiver.iter().collect())
    }

    /// Ends what is still being worked at, at its next [`Schedule::check`].
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Asks whether to go on.
    ///
    /// # Errors
    /// Those of the monitor; [`ErrorKind::Other`] where all is given up.
    pub(crate) fn check(&self) -> Result<()> {
        self.monitor.check()?;
        match self.given_up.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Other, "given up")),
            false => Ok(()),
        }
    }
}

/// The numbers of `layers` that come with how many bytes are stored, the largest layer first: it decides how long it all
/// takes.
pub(crate) fn largest_first(layers: impl IntoIterator<Item = (usize, u64)>) -> Vec<usize> {
    let mut layers: Vec<(usize, u64)> = layers.into_iter().collect();
    layers.sort_by_key(|&(at, bytes)| Reverse((bytes, at)));
    layers.into_iter().map(|(at, _)| at).collect()
}

/// What came of all layers, in their order.
///
/// # Errors
/// That of the lowest layer that failed by itself, rather than because of another.
pub(super) fn all_right<T>(mut results: Results<T>) -> Result<Vec<(usize, T)>> {
    results.sort_by_key(|(at, _)| *at);
    let by_itself = |(_, result): &(usize, Result<T>)| matches!(result, Err(error) if error.kind() != ErrorKind::Other);
    if let Some((_, Err(error))) = results.iter().position(by_itself).map(|at| results.swap_remove(at)) {
        return Err(error);
    }
    results.into_iter().map(|(at, result)| Ok((at, result?))).collect()
}

/// The error that is told where `error` came of the layers: a digest that differs explains whatever else damage has led to.
pub(super) fn explained<T>(error: Error, results: Results<T>) -> Error {
    let errors = results.into_iter().filter_map(|(_, result)| result.err());
    match errors.into_iter().find(|error| error.kind() == ErrorKind::Mismatch) {
        Some(mismatch) if blames_the_data(&error) => mismatch.because(error),
        _ => error,
    }
}

/// Whether damaged data may be behind an error, so that it is worth knowing which digest differs.
pub(super) fn blames_the_data(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidImage | ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn schedule(monitor: &Monitor, jobs: usize) -> Schedule<'_> {
        Schedule::new(NonZeroUsize::new(jobs).unwrap(), monitor)
    }

    #[test]
    fn the_largest_come_first() {
        let monitor = Monitor::default();
        let begun = Mutex::new(Vec::new());
        let order = largest_first([(0, 5), (1, 9), (2, 5), (3, 1)]);
        let squares = schedule(&monitor, 1).each(&order, |at| {
            begun.lock().unwrap().push(at);
            Ok(at * at)
        });
        assert_eq!(squares.unwrap(), [(0, 0), (1, 1), (2, 4), (3, 9)]);
        assert_eq!((order, begun.into_inner().unwrap()), (vec![1, 2, 0, 3], vec![1, 2, 0, 3]));
    }

    #[test]
    fn the_error_of_a_layer_that_failed_by_itself_is_told() {
        let monitor = Monitor::default();
        let schedule = schedule(&monitor, 4);
        let failed = schedule.each::<()>(&[0, 1, 2, 3], |at| match at {
            3 => Err(Error::new(ErrorKind::InvalidImage, "three")),
            _ => loop {
                schedule.check()?;
                std::thread::yield_now();
            },
        });
        assert_eq!(failed.unwrap_err().to_string(), "three");
    }

    #[test]
    fn a_digest_that_differs_explains_damage_and_nothing_else() {
        let results = || -> Results<()> {
            vec![
                (0, Ok(())),
                (1, Err(Error::new(ErrorKind::Other, "x"))),
                (2, Err(Error::new(ErrorKind::Mismatch, "m"))),
            ]
        };
        let told = |kind, results| explained(Error::new(kind, "e"), results).to_string();
        assert_eq!(told(ErrorKind::InvalidImage, results()), "m");
        assert_eq!(told(ErrorKind::Output, results()), "e");
        assert_eq!(told(ErrorKind::InvalidImage, Vec::new()), "e");
        assert_eq!(all_right(results()).unwrap_err().to_string(), "m");
    }
}
