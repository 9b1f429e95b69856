use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stderr, stdin};
use std::num::NonZeroUsize;

use super::settings::Settings;
use crate::error::Result;
use crate::gocryptfs::Passphrase;

/// What the process finds around itself, looked at once. Everything else in this room gets it as a value, so that tests
/// can choose it.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// The variables of [`VARIABLES`] that are set.
    pub(super) variables: BTreeMap<&'static str, OsString>,
    pub(super) stdin_is_terminal: bool,
    pub(super) stderr_is_terminal: bool,
    /// How many threads this machine (or this container) can run at once.
    pub(super) parallelism: NonZeroUsize,
    /// How a passphrase is asked for, given whether standard input is a terminal.
    pub(super) ask: fn(bool) -> Result<Passphrase>,
    /// What files say; nothing until it is needed.
    pub(super) settings: Settings,
}

/// All environment variables that mean something to this program, besides those for registries.
const VARIABLES: [&str; 18] = [
    "APPTAINER_TMPDIR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "CONTAINER_HOST",
    "CONVERT_PROGRESS",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "NO_COLOR",
    "PATH",
    "SINGULARITY_TMPDIR",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
];

/// The variables of `apptainer pull`: the directory, name and architecture of what is pulled.
const PULL_VARIABLES: [&str; 10] = [
    "APPTAINER_PULLDIR",
    "APPTAINER_PULLFOLDER",
    "APPTAINER_PULL_ARCH",
    "APPTAINER_PULL_ARCH_VARIANT",
    "APPTAINER_PULL_NAME",
    "SINGULARITY_PULLDIR",
    "SINGULARITY_PULLFOLDER",
    "SINGULARITY_PULL_ARCH",
    "SINGULARITY_PULL_ARCH_VARIANT",
    "SINGULARITY_PULL_NAME",
];

/// The variables that Apptainer and SingularityCE take keys from.
pub(super) const ENCRYPTION_VARIABLES: [&str; 6] = [
    "APPTAINER_ENCRYPTION_PASSPHRASE",
    "APPTAINER_ENCRYPTION_PEM_DATA",
    "APPTAINER_ENCRYPTION_PEM_PATH",
    "SINGULARITY_ENCRYPTION_PASSPHRASE",
    "SINGULARITY_ENCRYPTION_PEM_DATA",
    "SINGULARITY_ENCRYPTION_PEM_PATH",
];

/// The variables that mean something to a registry client.
const REGISTRY_VARIABLES: [&str; 24] = [
    "APPTAINER_DOCKER_PASSWORD",
    "APPTAINER_DOCKER_USERNAME",
    "APPTAINER_NOHTTPS",
    "CONTAINERS_REGISTRIES_CONF",
    "DOCKER_CONFIG",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NETRC",
    "NO_PROXY",
    "REGISTRY_AUTH_FILE",
    "SINGULARITY_DOCKER_PASSWORD",
    "SINGULARITY_DOCKER_USERNAME",
    "SINGULARITY_NOHTTPS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "all_proxy",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "REQUEST_METHOD",
];

impl Environment {
    /// Looks.
    pub(super) fn of_process() -> Self {
        Environment {
            variables: VARIABLES
                .into_iter()
                .chain(REGISTRY_VARIABLES)
                .chain(PULL_VARIABLES)
                .chain(ENCRYPTION_VARIABLES)
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
            stdin_is_terminal: stdin().is_terminal(),
            stderr_is_terminal: stderr().is_terminal(),
            parallelism: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            ask: super::prompt::ask,
            settings: Settings::default(),
        }
    }

    /// Whether stderr is a terminal that can move its cursor.
    pub(super) fn has_cursor(&self) -> bool {
        self.stderr_is_terminal && self.variable("TERM").is_none_or(|term| term != "dumb")
    }

    /// Whether people want colours on stderr, as <https://no-color.org> and <https://bixense.com/clicolors> have it.
    pub(super) fn wants_colour(&self) -> bool {
        let value = |name| self.variable(name).filter(|value| !value.is_empty());
        if value("NO_COLOR").is_some() {
            return false;
        }
        value("CLICOLOR_FORCE").is_some_and(|value| value != "0")
            || self.has_cursor() && value("CLICOLOR").is_none_or(|value| value != "0")
    }

    /// The value of one of [`VARIABLES`].
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str)
    }
}

#[cfg(test)]
impl Environment {
    /// A quiet place: nothing set, no terminal, 4 threads.
    pub(super) fn bare() -> Self {
        Environment {
            variables: BTreeMap::new(),
            stdin_is_terminal: false,
            stderr_is_terminal: false,
            parallelism: NonZeroUsize::new(4).unwrap(),
            ask: |_| Passphrase::new(b"secret".to_vec()),
            settings: Settings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_and_for_who_wants_them() {
        let wants = |is_terminal: bool, set: &[(&'static str, &str)]| {
            let mut environment = Environment { stderr_is_terminal: is_terminal, ..Environment::bare() };
            environment.variables.extend(set.iter().map(|&(name, value)| (name, OsString::from(value))));
            environment.wants_colour()
        };
        assert!(wants(true, &[]) && !wants(false, &[]));
        assert!(!wants(true, &[("NO_COLOR", "1")]) && wants(true, &[("NO_COLOR", "")]));
        assert!(!wants(true, &[("TERM", "dumb")]) && wants(true, &[("TERM", "xterm")]));
        assert!(!wants(true, &[("CLICOLOR", "0")]) && wants(true, &[("CLICOLOR", "1")]));
        assert!(wants(false, &[("CLICOLOR_FORCE", "1")]) && !wants(false, &[("CLICOLOR_FORCE", "0")]));
        assert!(wants(true, &[("TERM", "dumb"), ("CLICOLOR_FORCE", "1")]));
        assert!(!wants(false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    }
}
