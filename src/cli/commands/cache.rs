//! `convert cache`: what `--cache` has gathered.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::printer::{Bytes, Grouped};
use crate::error::Result;
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
    /// Remove downloads from a cache: all, or those that nobody has used for some time
    Prune {
        /// A directory that was given with --cache
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// Keep what has been used within so many days
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
    },
}

/// Does it; what is printed.
pub(in crate::cli) fn page(arguments: &Cache) -> Result<String> {
    let Task::Prune { dir, older_than } = &arguments.task;
    let older_than = older_than.map(|days| Duration::from_secs(u64::from(days) * DAY_SECONDS));
    let pruned = registry::prune(dir, older_than)?;
    let (removed, bytes, kept) = (Grouped(pruned.blobs), Bytes(pruned.bytes), Grouped(pruned.kept));
    Ok(format!("removed {removed} blobs, {bytes}; kept {kept}\n"))
}
