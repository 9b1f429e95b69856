use std::time::{Duration, Instant};

use super::http::{Failure, Http};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::io::Monitor;

/// The first pause; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// No pause of our own is longer.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A server that asks for more patience than this is as good as absent.
const WAIT_MAX: Duration = Duration::from_secs(300);
/// How often a pause looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// How often something was tried, and may still be.
pub(super) struct Retry {
    tries: u32,
    left: u32,
    pause: Duration,
}

impl Retry {
    pub(super) fn new(settings: &Settings) -> Self {
        Retry { tries: 1, left: settings.retries, pause: PAUSE }
    }

    /// Waits until the next try is due.
    ///
    /// # Errors
    /// The failure itself, where another try would be in vain or one too many.
    pub(super) fn wait(
        &mut self,
        failure: Failure,
        authority: &str,
        http: &Http,
        monitor: &Monitor,
    ) -> std::result::Result<(), Failure> {
        let (error, wait) = match failure {
            Failure::Passing { error, wait } => (error, wait),
            Failure::Nobody(error) if http.knows(authority) => (error, None),
            lasting => return Err(lasting),
        };
        if self.left == 0 {
            return Err(Failure::Lasting(self.given_up(error)));
        }
        if let Some(wait) = wait.filter(|&wait| wait > WAIT_MAX) {
            return Err(Failure::Lasting(error.doing(format!("it asks for a pause of {} s", wait.as_secs()))));
        }
        sleep(wait.unwrap_or(self.pause), monitor)?;
        self.tries += 1;
        self.left -= 1;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }

    fn given_up(&self, error: Error) -> Error {
        if self.tries == 1 { error } else { error.doing(format!("giving up after {} attempts", self.tries)) }
    }
}

/// Sleeps, but not longer than the conversion goes on.
pub(super) fn sleep(time: Duration, monitor: &Monitor) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        monitor.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}
