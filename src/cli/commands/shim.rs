//! `convert shim DIR`: programs `singularity` and `apptainer` that hand pulls, and builds of images, to this one.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::handover::SHIM_MARK;
use crate::error::{Error, ErrorKind, IoResultExt as _, Result, ResultExt as _};
use crate::io::Output;
use crate::model::Quoted;

/// The names that callers look for.
const NAMES: [&str; 2] = ["apptainer", "singularity"];
/// The script. `@OURS@` is this program in quotes, `@BUILD@` and `@PULL@` are options.
const SCRIPT: &str = include_str!("shim.sh");

/// Where to.
#[derive(Debug, Args)]
pub(in crate::cli) struct Shim {
    /// The directory to write "singularity" and "apptainer" into; put it before the real ones in PATH
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
    /// Replace other programs of these names
    #[arg(long, short)]
    force: bool,
    /// Let runscripts change to the image's WORKDIR first, as Docker does
    #[arg(long)]
    workdir: bool,
}

/// Writes the scripts; what to do next.
pub(in crate::cli) fn page(arguments: &Shim) -> Result<String> {
    let program = std::env::current_exe().or_kind(ErrorKind::Other).doing(|| "looking for this program")?;
    let directory = &arguments.directory;
    std::fs::create_dir_all(directory).or_kind(ErrorKind::Output).doing(|| format!("creating {directory:?}"))?;
    let text = script(&program, arguments.workdir)?;
    for name in NAMES {
        write(&directory.join(name), &text, arguments.force)?;
    }
    let shown = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
    Ok(format!("export PATH={}:\"$PATH\"\n", quoted(&shown)?))
}

fn script(program: &Path, workdir: bool) -> Result<String> {
    let option = if workdir { " --workdir" } else { "" };
    Ok(SCRIPT.replace("@MARK@", SHIM_MARK).replace("@OPTION@", option).replace("@OURS@", &quoted(program)?))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(|| {
        let path = Quoted(path.as_os_str().as_bytes());
        Error::new(ErrorKind::Usage, format!("{path} cannot be written into a script")).hint("choose another path")
    })?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let is_ours =
        std::fs::read(path).is_ok_and(|found| found.split(|&byte| byte == b'\n').nth(1) == Some(SHIM_MARK.as_bytes()));
    let output = Output::create(path, force || is_ours, 0o755)?;
    output.file().as_ref().write_all(text.as_bytes()).or_kind(ErrorKind::Output)?;
    output.publish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word() {
        let text = script(Path::new("/a b/it's"), true).unwrap();
        assert!(text.contains(r"ours='/a b/it'\''s'"), "{text}");
        assert!(text.contains(" --workdir"), "{text}");
        assert!(["@MARK@", "@OPTION@", "@OURS@"].iter().all(|left| !text.contains(left)), "{text}");
        assert!(!script(Path::new("/a"), false).unwrap().contains("--workdir"));
        assert_eq!(text.lines().nth(1), Some(SHIM_MARK));
        assert!(quoted(Path::new("a\nb")).is_err());
    }
}
