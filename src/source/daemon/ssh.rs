use std::fmt;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};

use super::plain;
use crate::model::Quoted;

/// How long ssh may take to connect: what the docker command gives it.
const CONNECT_TIMEOUT: &str = "ConnectTimeout=30";
/// How long is waited for what ssh says when it fails.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How much of that is looked at, in bytes.
const LAST_WORDS_MAX: u64 = 4096;

/// `ssh://[USER@]HOST[:PORT][/SOCKET]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ssh {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// Where the engine listens there, if not at its usual place.
    socket: Option<String>,
}

impl fmt::Display for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ssh://")?;
        self.user.iter().try_for_each(|user| write!(f, "{user}@"))?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?
        } else {
            f.write_str(&self.host)?
        }
        self.port.iter().try_for_each(|port| write!(f, ":{port}"))?;
        self.socket.iter().try_for_each(|socket| f.write_str(socket))
    }
}

impl Ssh {
    /// Reads what follows `ssh://`; `None` where it is no such address. Nothing in it may be taken for an option, or mean
    /// anything to the shell at the far end.
    pub(super) fn parse(address: &str) -> Option<Ssh> {
        let plain = |word: &str| {
            let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:%".contains(&byte);
            !word.is_empty() && !word.starts_with('-') && word.bytes().all(harmless)
        };
        let (authority, socket) = match address.split_once('/') {
            Some((authority, path)) if !path.is_empty() => (authority, Some(format!("/{path}"))),
            Some((authority, _)) => (authority, None),
            None => (address, None),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_string()), place),
            None => (None, authority),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map(str::parse).transpose().ok()?;
        let words = [Some(host), user.as_deref(), socket.as_deref()];
        let fit = words.into_iter().flatten().all(plain) && !user.as_deref().unwrap_or_default().contains([':', '/']);
        fit.then(|| Ssh { user, host: host.to_string(), port, socket })
    }

    /// A client whose every request runs ssh, and at the far end `docker system dial-stdio`, as the docker command does.
    pub(super) fn client(&self, timeout: u64, version: &ClientVersion) -> Result<Docker, EngineError> {
        let ssh = self.clone();
        let transport = move |request: BollardRequest| {
            let ssh = ssh.clone();
            Box::pin(async move { ssh.request(request).await })
        };
        Docker::connect_with_custom_transport(transport, Some("http://docker"), timeout, version)
    }

    async fn request(
        &self,
        mut request: BollardRequest,
    ) -> Result<hyper::Response<hyper::body::Incoming>, EngineError> {
        let mut child = self.command().spawn().map_err(|error| told(&format!("ssh cannot be run: {error}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(told("ssh has no pipes"));
        };
        let is_export = plain::is_export(&request);
        plain::address(&mut request);
        let limit = plain::Limit::default();
        let io = TokioIo::new(plain::Limited::new(tokio::io::join(stdout, stdin), &limit));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        let said = tokio::spawn(drained(stderr));
        tokio::spawn(drive(child, connection));
        match sender.send_request(request).await {
            Ok(response) => Ok(limit.lifted_for(response, is_export)),
            Err(error) => match tokio::time::timeout(LAST_WORDS, said).await {
                Ok(Ok(words)) if !words.trim_ascii().is_empty() => {
                    Err(told(&format!("ssh says {}", Quoted(words.trim_ascii()))))
                }
                _ => Err(error.into()),
            },
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        if let Some(user) = &self.user {
            command.args(["-l", user]);
        }
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        command.args(["-o", CONNECT_TIMEOUT, "-T", "--", &self.host, "docker"]);
        if let Some(socket) = &self.socket {
            command.arg("--host").arg(format!("unix://{socket}"));
        }
        command.args(["system", "dial-stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Moves the bytes of a connection; its ssh ends with it.
async fn drive(child: Child, connection: impl Future<Output = Result<(), hyper::Error>>) {
    // The other end of an error is the request or the body, which tells it.
    let _ = connection.await;
    drop(child);
}

fn told(words: &str) -> EngineError {
    EngineError::IOError { err: io::Error::other(words.to_string()) }
}

/// The beginning of what ssh, or the shell at the far end, says. All of it is read, or they would stop at a full pipe.
async fn drained(mut stderr: ChildStderr) -> Vec<u8> {
    let mut words = Vec::new();
    // What came before a failure is worth telling.
    let _ = (&mut stderr).take(LAST_WORDS_MAX).read_to_end(&mut words).await;
    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_arguments() {
        for (address, expected) in [
            ("far", "-o ConnectTimeout=30 -T -- far docker system dial-stdio"),
            ("me@far:2222", "-l me -p 2222 -o ConnectTimeout=30 -T -- far docker system dial-stdio"),
            ("[::1]:22/", "-p 22 -o ConnectTimeout=30 -T -- ::1 docker system dial-stdio"),
            ("far/run/d.sock", "-o ConnectTimeout=30 -T -- far docker --host unix:///run/d.sock system dial-stdio"),
        ] {
            let ssh = Ssh::parse(address).unwrap();
            assert_eq!(ssh.to_string(), format!("ssh://{}", address.trim_end_matches('/')));
            let command = ssh.command();
            let words: Vec<&str> = command.as_std().get_args().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), expected);
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            "me@-x",
            "-l@far",
            "far:port",
            "far:70000",
            "me:secret@far",
            "far/a;b",
            "far/$(x)",
            "[::1",
        ] {
            assert_eq!(Ssh::parse(bad), None, "{bad}");
        }
    }
}
