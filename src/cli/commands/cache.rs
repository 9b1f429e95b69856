//! `convert cache`: what `--cache` has gathered.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::environment::Environment;
use crate::cli::printer::{Bytes, counted};
use crate::cli::registry::accounts;
use crate::cli::settings::bytes;
use crate::derived::{self, Holdings};
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::Monitor;
use crate::model::{Grouped, Quoted};
use crate::registry;

const DAY_SECONDS: u64 = 86_400;

/// `convert cache …`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cache {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// List what a cache holds
    List {
        /// A directory that was given with --cache
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
    },
    /// Remove downloads and compressed layers from a cache: all, or those not used for some time
    Prune {
        /// A directory that was given with --cache
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Keep what has been used within so many days
        #[arg(long, value_name = "DAYS", conflicts_with = "max_size")]
        older_than: Option<u32>,
        /// Remove what was not used for longest until the cache has this size, for example 200GB
        #[arg(long, value_name = "SIZE")]
        max_size: Option<String>,
    },
    /// Check all that a cache holds, and remove what is damaged
    Verify {
        /// A directory that was given with --cache
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
    },
}

/// Does it; what is printed.
pub(in crate::cli) fn page(arguments: &Cache, environment: &Environment) -> Result<String> {
    match &arguments.task {
        Task::List { dir } => list(dir, environment),
        Task::Prune { dir, older_than: _, max_size: Some(size) } => {
            let bytes_max = bytes(size).doing(|| "option --max-size")?;
            registry::expect_cache(dir)?;
            let gone = derived::limit(dir, bytes_max).or_kind(ErrorKind::Output).doing(|| doing("pruning", dir))?;
            Ok(format!("removed {}\n", Bytes(gone)))
        }
        Task::Prune { dir, older_than, max_size: None } => {
            let older_than = older_than.map(|days| Duration::from_secs(u64::from(days) * DAY_SECONDS));
            let pruned = registry::prune(dir, older_than)?;
            let (files, bytes, kept) =
                derived::prune(dir, older_than).or_kind(ErrorKind::Output).doing(|| doing("pruning", dir))?;
            let (blobs, kept_blobs) = (counted(pruned.blobs, "blob", "blobs"), Grouped(pruned.kept));
            let mut page = format!("removed {blobs}, {}; kept {kept_blobs}\n", Bytes(pruned.bytes));
            if files + kept > 0 {
                let (files, kept) = (counted(files, "file", "files"), Grouped(kept));
                let _ = writeln!(page, "removed {files} of compressed layers, {}; kept {kept}", Bytes(bytes));
            }
            Ok(page)
        }
        Task::Verify { dir } => verify(dir, environment),
    }
}

fn doing(what: &str, dir: &Path) -> String {
    format!("{what} cache {}", Quoted(dir.as_os_str().as_encoded_bytes()))
}

fn list(dir: &Path, environment: &Environment) -> Result<String> {
    registry::expect_cache(dir)?;
    let failed = || doing("reading", dir);
    let (blobs, blob_bytes) = registry::count_blobs(dir).or_kind(ErrorKind::Output).doing(failed)?;
    let holdings = derived::holdings(dir, &accounts(environment)).or_kind(ErrorKind::Output).doing(failed)?;
    let mut page = format!("{}, {}\n", counted(blobs, "blob", "blobs"), Bytes(blob_bytes));
    for Holdings { account, is_trusted, layers, packs, bytes, last_use } in holdings {
        let days = counted(last_use.map_or(0, |age| age.as_secs() / DAY_SECONDS), "day", "days");
        let trust = if is_trusted { "" } else { ", not used: the account is not trusted" };
        let (layers, packs) = (counted(layers, "layer", "layers"), counted(packs, "pack", "packs"));
        let _ = writeln!(page, "user {account}: {layers} in {packs}, {}, last used {days} ago{trust}", Bytes(bytes));
    }
    Ok(page)
}

fn verify(dir: &Path, environment: &Environment) -> Result<String> {
    registry::expect_cache(dir)?;
    let failed = || doing("verifying", dir);
    let blobs = registry::verify(dir, &Monitor::default()).doing(failed)?;
    let layers = derived::verify(dir, &accounts(environment)).or_kind(ErrorKind::Output).doing(failed)?;
    let damaged = blobs.damaged + layers.damaged;
    let (blob_count, layer_count) = (counted(blobs.intact, "blob", "blobs"), counted(layers.intact, "layer", "layers"));
    let intact = format!("{blob_count} and {layer_count}");
    if damaged == 0 {
        return Ok(format!("intact: {intact}\n"));
    }
    let removed = blobs.removed + layers.removed;
    let (entries, are) = (counted(damaged, "entry", "entries"), if damaged == 1 { "is" } else { "are" });
    let message = format!("{entries} of the cache {are} damaged; removed: {}; intact: {intact}", Grouped(removed));
    Err(Error::new(ErrorKind::Mismatch, message)
        .hint("what was removed is made anew when it is needed")
        .doing(failed()))
}
