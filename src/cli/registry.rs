//! Options and settings for registries.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::environment::Environment;
use super::options::Given;
use crate::derived::Accounts;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::model::{Quoted, Reference};
use crate::output::{Destination, WorkCache};
use crate::registry::{Mirror, RegistriesConf, Settings, is_host, registries, remember_userinfo};
use crate::source::Spec;

/// How registries are reached.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Registries")]
pub(super) struct RegistryOptions {
    /// Speak plain HTTP to this registry; may be repeated
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) insecure: Vec<String>,
    /// Ask MIRROR first for images of HOST, and HOST where it fails; may be repeated
    #[arg(long, value_name = "HOST=MIRROR")]
    pub(super) mirror: Vec<String>,
    /// Keep downloads and compressed layers in this directory, for later conversions; many may share it [default: none]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub(super) cache: Option<PathBuf>,
    /// Retries after a transient failure [default: 5]
    #[arg(long, value_name = "N")]
    pub(super) retries: Option<u32>,
    /// Give up when a server sends nothing for this long [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<String>,
    /// `--no-https` of `singularity build`.
    #[arg(skip)]
    pub(super) no_https: bool,
}

/// Resolves options and environment for the registry that `spec` names, if it names one.
pub(super) fn settings(options: &RegistryOptions, spec: &Spec, environment: &Environment) -> Result<Settings> {
    let mirrors: Result<Vec<Mirror>> = options.mirror.iter().map(|text| text.parse()).collect();
    let mut mirrors = mirrors.doing(|| "option --mirror")?;
    let settled = environment.settings.mirrors.values().map(|setting| &setting.value);
    let unmentioned: Vec<Mirror> =
        settled.filter(|mirror| mirrors.iter().all(|given| given.of != mirror.of)).cloned().collect();
    mirrors.extend(unmentioned);
    let variables = |name: &str| environment.variable(name).map(OsStr::to_os_string);
    let is_on_registry = matches!(spec, Spec::Registry(_) | Spec::Oras(_));
    Ok(Settings {
        insecure: insecure(options, spec, environment)?,
        mirrors,
        registries: if is_on_registry { registries(&variables)? } else { RegistriesConf::default() },
        retries: options.retries.unwrap_or(Settings::RETRIES),
        timeout: timeout(options.timeout.as_deref())?,
        cache: cache(options, environment),
        ..Settings::without_registries_conf(&variables)?
    })
}

/// Refuses a file of logins that is not there: without it others would be used.
fn expect_login_file(file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let message = format!("option --authfile: there is no file {}", Quoted(file.as_os_str().as_bytes()));
    Err(Error::new(ErrorKind::Usage, message).hint("name a file that docker login or podman login wrote"))
}

/// The environment with options of Apptainer's that are variables for everyone else.
pub(super) fn with_apptainer_options(
    environment: &Environment,
    authfile: Option<&Path>,
    docker_host: Option<&OsStr>,
) -> Result<Environment> {
    authfile.map_or(Ok(()), expect_login_file)?;
    let mut environment = environment.clone();
    let given = [("REGISTRY_AUTH_FILE", authfile.map(Path::as_os_str)), ("DOCKER_HOST", docker_host)];
    environment.variables.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?.to_os_string()))));
    Ok(environment)
}

/// The directory of the cache, where one is given or settled.
fn cache(options: &RegistryOptions, environment: &Environment) -> Option<PathBuf> {
    options.cache.clone().or_else(|| environment.settings.cache.as_ref().map(|it| it.value.clone()))
}

/// Where work on layers is kept, where there is a cache.
pub(super) fn work_cache(options: &RegistryOptions, environment: &Environment) -> Option<WorkCache> {
    let settings = &environment.settings;
    Some(WorkCache {
        directory: cache(options, environment)?,
        accounts: accounts(environment),
        bytes_max: settings.cache_size.as_ref().map(|it| it.value),
    })
}

/// Whose derived work counts, besides our own and root's.
pub(super) fn accounts(environment: &Environment) -> Accounts {
    let others = environment.settings.cache_accounts.as_ref().map(|it| it.value.clone()).unwrap_or_default();
    Accounts { others }
}

/// The IDs of all options here.
pub(super) const IDS: [&str; 5] = ["insecure", "mirror", "cache", "retries", "timeout"];

/// Refuses options for registries where the source is not on one. A cache keeps work, too, where there `is_work` to keep.
pub(super) fn expect_registry(given: &Given, spec: &Spec, is_work: bool) -> Result<()> {
    let is_remote = matches!(spec, Spec::Registry(_) | Spec::Oras(_));
    // What is hosted as a SIF is one file, and kept by whoever wants to keep it.
    let is_kept = |id: &str| id != "cache" || matches!(spec, Spec::Registry(_));
    let is_web = |id: &str| matches!(spec, Spec::Web(_)) && ["retries", "timeout"].contains(&id);
    given.expect("a source that is not on a registry", |id| {
        Ok(is_remote && is_kept(id) || is_web(id) || (is_work && id == "cache") || !IDS.contains(&id))
    })
}

/// The same of a conversion, whose output may be on one, too. What is pushed comes from no mirror and no cache.
pub(super) fn expect_registries(given: &Given, spec: &Spec, destination: &Destination, is_work: bool) -> Result<()> {
    match destination {
        Destination::Registry(_) => {
            expect_registry(&given.clone().without(&["insecure", "retries", "timeout"]), spec, is_work)
        }
        _ => expect_registry(given, spec, is_work),
    }
}

fn timeout(text: Option<&str>) -> Result<Duration> {
    let Some(text) = text else { return Ok(Settings::TIMEOUT) };
    // Longer than a day is as good as for ever, and overflows nothing.
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("option --timeout: {text:?} is not a number of seconds"))
            .hint("write a number from 0.01 to 86400")
    })
}

fn insecure(options: &RegistryOptions, spec: &Spec, environment: &Environment) -> Result<Vec<String>> {
    let settled = environment.settings.insecure.as_ref();
    let mut insecure: Vec<String> = settled.map(|setting| setting.value.clone()).unwrap_or_default();
    for host in &options.insecure {
        if !is_host(host) {
            return Err(Error::new(ErrorKind::Usage, format!("option --insecure: {host:?} is not a host"))
                .hint("write HOST or HOST:PORT, as in the reference"));
        }
        insecure.push(host.to_ascii_lowercase());
    }
    let is_set = |name: &str| {
        let value = environment.variable(name).map(|value| value.to_ascii_lowercase());
        value.is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
    };
    let no_https = options.no_https || is_set("APPTAINER_NOHTTPS") || is_set("SINGULARITY_NOHTTPS");
    if let (true, Spec::Registry(name) | Spec::Oras(name)) = (no_https, spec) {
        insecure.push(name.parse::<Reference>()?.host.to_ascii_lowercase());
    }
    Ok(insecure)
}

/// Passwords in addresses that were given, wrongly or not: nothing that is printed or reported repeats them.
pub(super) fn remember_secrets(arguments: &[OsString], environment: &Environment) {
    let mut before = "";
    for word in arguments.iter().filter_map(|word| word.to_str()) {
        let value = ["--mirror=", "--insecure="].iter().find_map(|option| word.strip_prefix(option));
        if value.is_some() || word.contains("://") || word.starts_with("docker:") || is_address_option(before) {
            remember_userinfo(value.unwrap_or(word));
        }
        before = word;
    }
    let addresses = ["DOCKER_HOST", "CONTAINER_HOST", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let lower = ["http_proxy", "https_proxy", "all_proxy"];
    let given = addresses.iter().chain(&lower).filter_map(|name| environment.variable(name)?.to_str());
    given.for_each(remember_userinfo);
}

fn is_address_option(word: &str) -> bool {
    matches!(word, "--mirror" | "--insecure")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&'static str, &str)]) -> Environment {
        let mut environment = Environment::bare();
        environment.variables.extend(variables.iter().map(|(name, value)| (*name, value.into())));
        environment
    }

    fn resolved(variables: &[(&'static str, &str)]) -> Settings {
        let spec = Spec::Registry("Host.example:5000/x".into());
        settings(&RegistryOptions::default(), &spec, &environment(variables)).unwrap()
    }

    #[test]
    fn a_bare_environment_gives_nothing_away() {
        let settings = resolved(&[]);
        assert!(settings.login.is_none() && settings.login_files.is_empty() && settings.insecure.is_empty());
        assert!(settings.proxies.http.is_none() && settings.cache.is_none());
        assert_eq!((settings.retries, settings.timeout), (5, Duration::from_secs(60)));
        assert_eq!(settings.certificate_directories.len(), 2);
    }

    #[test]
    fn logins_are_looked_for_where_others_put_them() {
        let files = |variables: &[(&'static str, &str)]| -> Vec<String> {
            resolved(variables).login_files.iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            files(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/1")]),
            [
                "/run/1/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/h/.docker/config.json",
                "/h/.apptainer/docker-config.json",
                "/h/.singularity/docker-config.json"
            ]
        );
        assert_eq!(files(&[("REGISTRY_AUTH_FILE", "/a"), ("DOCKER_CONFIG", "/d")]), ["/a", "/d/config.json"]);
        let names = [("SINGULARITY_DOCKER_USERNAME", "s"), ("SINGULARITY_DOCKER_PASSWORD", "p")];
        assert_eq!(resolved(&names).login.unwrap().username, "s");
        let both = [names[0], names[1], ("APPTAINER_DOCKER_USERNAME", "a"), ("APPTAINER_DOCKER_PASSWORD", "p")];
        assert_eq!(resolved(&both).login.unwrap().username, "a");
        assert!(resolved(&both[..1]).login.is_none());
        assert!(
            !format!("{:?}", resolved(&[names[0], ("SINGULARITY_DOCKER_PASSWORD", "hunter2")])).contains("hunter2")
        );
    }

    #[test]
    fn options_arrive_and_nonsense_is_refused() {
        let spec = Spec::Registry("Host.example:5000/x".into());
        let options = |insecure: &str, mirror: &str, timeout: &str| RegistryOptions {
            insecure: vec![insecure.into()],
            mirror: vec![mirror.into()],
            timeout: Some(timeout.into()),
            ..RegistryOptions::default()
        };
        let good = settings(&options("H:1", "docker.io=m", "0.5"), &spec, &Environment::bare()).unwrap();
        assert_eq!((good.insecure, good.timeout), (vec!["h:1".to_string()], Duration::from_millis(500)));
        for bad in [
            options("http://h", "a=b", "1"),
            options("h", "a", "1"),
            options("h", "a=b", "-1"),
            options("h", "a=b", "x"),
        ] {
            assert_eq!(settings(&bad, &spec, &Environment::bare()).unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(resolved(&[("APPTAINER_NOHTTPS", "1")]).insecure, ["host.example:5000"]);
        assert!(resolved(&[("APPTAINER_NOHTTPS", "false")]).insecure.is_empty());
        let cgi = resolved(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "evil:1"), ("HTTPS_PROXY", "p:1")]);
        assert!(cgi.proxies.http.is_none() && cgi.proxies.https.is_some());
    }
}
