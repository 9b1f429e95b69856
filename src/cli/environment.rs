use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, stderr, stdin};
use std::num::NonZeroUsize;

use super::settings::Settings;

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
    /// What files say; nothing until it is needed.
    pub(super) settings: Settings,
}

/// All environment variables that mean something to this program, besides those for registries.
const VARIABLES: [&str; 15] = [
    "APPTAINER_TMPDIR",
    "CONTAINER_HOST",
    "CONVERT_PROGRESS",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "HOME",
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
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
            stdin_is_terminal: stdin().is_terminal(),
            stderr_is_terminal: stderr().is_terminal(),
            parallelism: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            settings: Settings::default(),
        }
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
            settings: Settings::default(),
        }
    }
}
