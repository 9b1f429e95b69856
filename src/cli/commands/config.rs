//! `sif-convert config`: what counts where no option says otherwise, and from where.

use std::path::Path;

use crate::cli::environment::Environment;
use crate::cli::options;
use crate::cli::printer::Bytes;
use crate::cli::settings::Setting;

/// The table that is printed.
pub(in crate::cli) fn page(environment: &Environment) -> String {
    let settings = &environment.settings;
    let mut rows: Vec<[String; 3]> = Vec::new();
    let mut line = |name: &str, value: &str, origin: &str| {
        rows.push([name.to_string(), value.to_string(), origin.to_string()]);
    };
    let origin = |file: &Path| file.display().to_string();
    let or_default = |found: Option<(String, String)>, default: &str| {
        found.unwrap_or_else(|| (default.to_string(), "default".to_string()))
    };
    let (value, from) =
        or_default(settings.cache.as_ref().map(|it| shown(it, |path| path.display().to_string())), "none");
    line("cache", &value, &from);
    if let Some(Setting { value, file }) = &settings.cache_accounts {
        let numbers: Vec<String> = value.iter().map(ToString::to_string).collect();
        line("cache_accounts", &numbers.join(" "), &origin(file));
    }
    if let Some(Setting { value, file }) = &settings.cache_size {
        line("cache_size", &Bytes(*value).to_string(), &origin(file));
    }
    let (value, from) = or_default(settings.compression.as_ref().map(|it| shown(it, ToString::to_string)), "gzip");
    line("compression", &value, &from);
    let jobs = environment.parallelism.to_string();
    let (value, from) = or_default(settings.jobs.as_ref().map(|it| shown(it, ToString::to_string)), &jobs);
    line("jobs", &value, &from);
    let (directory, from) = options::settled_tmpdir(environment);
    line("tmpdir", &directory.display().to_string(), &from);
    for Setting { value, file } in settings.mirrors.values() {
        let name =
            if value.prefix.is_empty() { value.host.clone() } else { format!("{}/{}", value.host, value.prefix) };
        line("mirror", &format!("{}={name}", value.of), &origin(file));
    }
    if let Some(Setting { value, file }) = &settings.insecure {
        value.iter().for_each(|host| line("insecure", host, &origin(file)));
    }
    for (file, found) in &settings.files {
        let state = if *found { "read" } else { "absent" };
        line("file", &origin(file), state);
    }
    aligned(&rows)
}

/// Columns as wide as their longest cell, two spaces apart.
fn aligned(rows: &[[String; 3]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (names, values) = (width(0), width(1));
    rows.iter().map(|[name, value, origin]| format!("{name:<names$}  {value:<values$}  {origin}\n")).collect()
}

fn shown<T>(setting: &Setting<T>, text: impl Fn(&T) -> String) -> (String, String) {
    (text(&setting.value), setting.file.display().to_string())
}
