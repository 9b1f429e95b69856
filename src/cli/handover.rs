//! What is not ours to do is done by the real `apptainer` or `singularity`: the next one in `PATH` that is not a shim of ours.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::environment::Environment;
use crate::error::{Error, ErrorKind};

/// The second line of a shim (see `commands/shim.rs`). What has it is passed by, so that nothing runs in circles.
pub(super) const SHIM_MARK: &str = "# shim of sif-convert";

/// How much of a file is looked at to tell what it is, in bytes.
const START_BYTES: u64 = 4096;

/// Becomes the real program, called with the same arguments; the error where that cannot be.
pub(super) fn run_real_program(words: &[OsString], environment: &Environment) -> Error {
    let path = environment.variable("PATH").unwrap_or_default();
    let Some(program) = ["apptainer", "singularity"].iter().find_map(|name| find(name, path)) else {
        let message = "this is done by apptainer or singularity itself, and neither is in PATH";
        return Error::new(ErrorKind::Unsupported, message).hint("install one of them, or add its directory to PATH");
    };
    let error = Command::new(&program).args(words.iter().skip(1)).exec();
    Error::io(ErrorKind::Other, error).doing(format!("running {program:?}"))
}

fn find(name: &str, path: &OsStr) -> Option<PathBuf> {
    let directories = path.as_bytes().split(|&byte| byte == b':').map(|it| if it.is_empty() { b"." } else { it });
    let programs = directories.map(|directory| Path::new(OsStr::from_bytes(directory)).join(name));
    programs.into_iter().find(|program| is_executable(program) && !is_shim(program))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn is_shim(path: &Path) -> bool {
    start_of(path).split(|&byte| byte == b'\n').nth(1) == Some(SHIM_MARK.as_bytes())
}

fn start_of(path: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    let is_file = fs::metadata(path).is_ok_and(|found| found.is_file());
    if let (true, Ok(file)) = (is_file, File::open(path)) {
        // What cannot be read is told by whoever is to read it.
        let _ = file.take(START_BYTES).read_to_end(&mut start);
    }
    start
}

/// Whether a source is built by the real program alone: Sylabs' and the old library, and definition files.
pub(super) fn is_foreign(source: &OsStr) -> bool {
    let bytes = source.as_bytes();
    [&b"library://"[..], b"shub://"].iter().any(|transport| bytes.starts_with(transport))
        || is_definition(&start_of(Path::new(source)))
}

/// A definition file begins with its header, of which `Bootstrap` is the first word.
fn is_definition(start: &[u8]) -> bool {
    let lines = start.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with(b"#"));
    first.and_then(|line| line.split_at_checked(9)).is_some_and(|(word, rest)| {
        word.eq_ignore_ascii_case(b"bootstrap") && rest.trim_ascii_start().starts_with(b":")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_files_are_told_by_their_header() {
        for text in ["Bootstrap: docker\nFrom: x\n", "# a comment\n\nBOOTSTRAP : localimage", "\tbootstrap:docker"] {
            assert!(is_definition(text.as_bytes()), "{text:?}");
        }
        for text in ["", "Bootstrap docker", "From: x\n", "bootstraps: x", "\0\0\0"] {
            assert!(!is_definition(text.as_bytes()), "{text:?}");
        }
        assert!(is_foreign(OsStr::new("library://a/b")) && is_foreign(OsStr::new("shub://a/b")));
        assert!(!is_foreign(OsStr::new("docker://a/b")) && !is_foreign(OsStr::new("/no/such")));
    }

    #[test]
    fn shims_and_what_cannot_be_run_are_passed_by() {
        let place = tempfile::tempdir().unwrap();
        let put = |directory: &str, text: &str, mode: u32| {
            let file = place.path().join(directory).join("apptainer");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            file
        };
        put("shim", &format!("#!/bin/sh\n{SHIM_MARK}\n"), 0o755);
        put("text", "#!/bin/sh\n", 0o644);
        let real = put("real", "#!/bin/sh\n", 0o755);
        let path = ["none", "shim", "text", "real"].map(|it| place.path().join(it).display().to_string()).join(":");
        assert_eq!(find("apptainer", OsStr::new(&path)), Some(real));
        assert_eq!(find("singularity", OsStr::new(&path)), None);
    }
}
