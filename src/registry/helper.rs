//! Docker's credential helpers: programs called `docker-credential-NAME` that keep logins
//! (<https://github.com/docker/docker-credential-helpers>).

use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

/// How much a helper may say, in bytes: tokens of cloud registries have a few thousand.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How often a running helper is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long the output of a helper that has ended is waited for: a process that it left behind may hold the pipe open.
const GRACE: Duration = Duration::from_millis(500);

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    pub(super) username: String,
    pub(super) secret: String,
}

/// Asks the helper `name` for the login to `server`; `None` where it has none. It has `limit` to answer, and `is_over` ends
/// it earlier.
///
/// # Errors
/// Why there is no answer, without a word of the helper's own: it may hold secrets.
pub(super) fn ask(
    name: &str,
    server: &str,
    limit: Duration,
    is_over: &dyn Fn() -> bool,
) -> Result<Option<Answer>, String> {
    let program = format!("docker-credential-{name}");
    // With a slash in its name it would be looked for elsewhere than in PATH.
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Err(format!("{name:?} is not the name of a credential helper"));
    }
    let mut command = Command::new(&program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
    let (status, stdout, stderr) = talk(child, server, limit, is_over).map_err(|why| format!("{program} {why}"))?;
    if !status.success() {
        // One that does not know the registry fails like one that is broken, but for its words.
        let is_unknown = [stdout, stderr].iter().any(|said| memmem::find(said, b"credentials not found").is_some());
        return if is_unknown { Ok(None) } else { Err(format!("{program} failed ({status})")) };
    }
    serde_json::from_slice(&stdout).map(Some).map_err(|_| format!("{program} did not answer with credentials"))
}

/// Writes the question, and collects what the helper says until it ends.
fn talk(
    mut child: Child,
    server: &str,
    limit: Duration,
    is_over: &dyn Fn() -> bool,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), &'static str> {
    if let Some(mut stdin) = child.stdin.take() {
        let question = server.to_string();
        // A helper need not read it: a broken pipe is not a failure. One that never reads is ended with the rest.
        std::thread::spawn(move || stdin.write_all(question.as_bytes()));
    }
    let mut outputs = (Output::of(child.stdout.take()), Output::of(child.stderr.take()));
    let until = Instant::now() + limit;
    let ended = loop {
        outputs.0.collect();
        outputs.1.collect();
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Err(_) => break Err("cannot be waited for"),
            Ok(None) if outputs.0.is_too_long() || outputs.1.is_too_long() => break Err("says too much"),
            Ok(None) if is_over() => break Err("was stopped"),
            Ok(None) if Instant::now() > until => break Err("gave no answer in time"),
            Ok(None) => std::thread::sleep(LOOK),
        }
    };
    match ended {
        Ok(status) => {
            let until = Instant::now() + GRACE;
            outputs.0.finish(until);
            outputs.1.finish(until);
            if outputs.0.is_too_long() || outputs.1.is_too_long() {
                Err("says too much")
            } else {
                Ok((status, outputs.0.bytes, outputs.1.bytes))
            }
        }
        Err(why) => {
            // It has a process group of its own, which all that it started is in.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            Err(why)
        }
    }
}

/// One stream of a helper, read by a thread so that nothing blocks.
struct Output {
    pieces: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Output {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let Some(stream) = stream else { return };
            let mut stream = stream.take(ANSWER_BYTES_MAX + 1);
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Output { pieces, bytes: Vec::new() }
    }

    fn collect(&mut self) {
        self.bytes.extend(self.pieces.try_iter().flatten());
    }

    /// Reads to the end of the stream, but not longer than `until`.
    fn finish(&mut self, until: Instant) {
        loop {
            match self.pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(piece) => self.bytes.extend(piece),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_too_long(&self) -> bool {
        self.bytes.len() as u64 > ANSWER_BYTES_MAX
    }
}
